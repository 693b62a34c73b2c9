package main

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

var costs = flag.Bool("client", false, "measure the client's size, start and kept credentials")

// TestClientCosts measures what the client costs whoever waits for it, beside a
// program that does nothing. make bench-client runs it.
func TestClientCosts(t *testing.T) {
	if !*costs {
		t.Skip("run by make bench-client")
	}
	bin := t.TempDir()
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", bin, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the client: %v\n%s", err, out)
	}
	program := filepath.Join(bin, "serval")
	info, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	l := newLaptop(t, options{})
	l.must(program, "creds", "prod/dev")
	median := func(name string, args ...string) time.Duration {
		took := make([]time.Duration, 20)
		for i := range took {
			c := l.command(name, args...)
			began := time.Now()
			if err := c.Run(); err != nil {
				t.Fatal(err)
			}
			took[i] = time.Since(began)
		}
		slices.Sort(took)
		return (took[9] + took[10]) / 2
	}
	nothing, start, kept := median("true"), median(program, "version"), median(program, "creds", "prod/dev")
	t.Logf("size %.1f MB; medians of 20: true %s, serval version %s, serval creds from what is kept %s",
		float64(info.Size())/1e6, nothing.Round(10*time.Microsecond), start.Round(10*time.Microsecond), kept.Round(10*time.Microsecond))
	if n := l.cloud.CountCalls("AssumeRoleWithWebIdentity"); n != 1 {
		t.Errorf("%d sessions were opened, want one", n)
	}
}
