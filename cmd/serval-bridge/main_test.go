package main

import (
	"bytes"
	"context"
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
	testscript.Run(t, testscript.Params{Dir: "testdata/script", RequireExplicitExec: false})
}

// What the documents say to type is there.
func TestDocuments(t *testing.T) {
	docstest.Commands(t, "serval-bridge", 15, func(args ...string) string {
		var out bytes.Buffer
		run(t.Context(), args, nil, &out, &out)
		return out.String()
	})
}
