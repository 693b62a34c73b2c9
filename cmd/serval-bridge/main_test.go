package main

import (
	"bytes"
	"context"
	"database/sql"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/serval-bridge/serval-bridge/internal/docstest"
)

// The scripts in testdata/script run the program as its user does.
func TestMain(m *testing.M) {
	if address := os.Getenv("SERVAL_BENCH_BARE"); address != "" {
		serveBare(address)
	}
	testscript.Main(m, map[string]func(){
		"serval-bridge": func() {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
		},
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:  "testdata/script",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"tamper": tamper},
	})
}

// tamper FILE SQL… does to an SQLite database what its owner can.
func tamper(ts *testscript.TestScript, not bool, args []string) {
	if not || len(args) < 2 {
		ts.Fatalf("usage: tamper FILE SQL...")
	}
	db, err := sql.Open("sqlite", ts.MkAbs(args[0]))
	ts.Check(err)
	for _, statement := range args[1:] {
		_, err := db.Exec(statement)
		ts.Check(err)
	}
	ts.Check(db.Close())
}

// What the documents say to type is there.
func TestDocuments(t *testing.T) {
	docstest.Commands(t, "serval-bridge", 15, func(args ...string) string {
		var out bytes.Buffer
		run(t.Context(), args, nil, &out, &out)
		return out.String()
	})
}
