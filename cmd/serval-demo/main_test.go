package main

import (
	"context"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/serval-bridge/serval-bridge/internal/pgtest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// The scripts in testdata/script run the demo as its user does.
func TestMain(m *testing.M) {
	testscript.Main(withDatabase{m}, map[string]func(){
		"serval-demo": func() {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
		},
	})
}

// withDatabase runs the tests and stops the PostgreSQL that some of them had.
type withDatabase struct{ m *testing.M }

// Run runs the tests.
func (w withDatabase) Run() int { return pgtest.Main(w.m) }

func TestScripts(t *testing.T) {
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", bin, "../serval-bridge", "../serval-worker")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the daemons: %v\n%s", err, out)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
			return nil
		},
	})
}

// The demo's identity provider signs in whoever asks, so nobody else may reach
// it.
func TestLoopback(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1:8080": true, "localhost:0": true, "[::1]:80": true, "127.9.9.9:1": true,
		":8080": false, "0.0.0.0:8080": false, "192.0.2.1:80": false, "example.com:80": false, "127.0.0.1": false, "": false,
		"127.0.0.1.example.com:80": false, "[::]:80": false,
	} {
		if err := loopback(address); (err == nil) != want {
			t.Errorf("loopback(%q): %v, want allowed %v", address, err, want)
		}
	}
}

// The estate is what README and script say of it.
func TestEstate(t *testing.T) {
	var all, tagged, near int
	for _, a := range estate() {
		for _, r := range a.roles {
			all++
			switch _, isNear := serval.NearMissKey(r.allTags()); {
			case serval.IsTagged(r.allTags()):
				tagged++
			case isNear:
				near++
			}
		}
	}
	if len(estate()) != 4 || all != 38 || tagged != 29 || near != 2 {
		t.Errorf("%d accounts, %d roles, %d tagged, %d near misses; want 4, 38, 29 and 2", len(estate()), all, tagged, near)
	}
}
