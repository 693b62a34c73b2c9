package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/serval-bridge/serval-bridge/internal/docstest"
)

// The programs that scripts run: serval itself, with a clock that a script moves,
// and what a browser is to it.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"serval": func() {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			context.AfterFunc(ctx, stop)
			p := &program{environ: os.Environ(), now: moved(os.Getenv("CLOCK")), stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
			os.Exit(p.run(ctx, os.Args[1:]))
		},
		"browser": func() {
			// As a browser does, it hands the address on and is gone.
			answer, err := http.PostForm(os.Getenv("BROWSER_DOOR"), url.Values{"address": {os.Args[len(os.Args)-1]}})
			if err != nil || answer.StatusCode != http.StatusNoContent {
				os.Exit(1)
			}
		},
	})
}

// moved is a clock that a file sets ahead.
func moved(file string) func() time.Time {
	text, err := os.ReadFile(file)
	if err != nil {
		return time.Now
	}
	by, err := time.ParseDuration(strings.TrimSpace(string(text)))
	if err != nil {
		panic(err)
	}
	return func() time.Time { return time.Now().Add(by) }
}

type worldKey struct{}

// TestScripts runs the program in front of a bridge, an identity provider and a
// cloud that each script has for itself.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			w, err := newWorld(e.WorkDir, options{
				lease:  strings.Contains(filepath.Base(e.WorkDir), "lease"),
				device: strings.Contains(filepath.Base(e.WorkDir), "device"),
				sly:    strings.Contains(filepath.Base(e.WorkDir), "sly"),
			}, e.Defer)
			if err != nil {
				return err
			}
			e.Values[worldKey{}] = w
			for _, v := range w.environ() {
				e.Setenv(v[0], v[1])
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exitcode": exitsWith,
			"bridge":   changeBridge,
			"sits":     changeBrowser,
			"clock":    moveClock,
			"sessions": countSessions,
			"as":       actAs,
			"approve":  decideLast,
			"deny":     decideLast,
			"revoke":   revokeLast,
			"trust":    distrust,
			"parallel": parallel,
			"nlines":   countLines,
			"decided":  decided,
			"waits":    waits,
			"opened":   opened,
			"typed":    typed,
		},
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
	})
}

func worldOf(ts *testscript.TestScript) *world { return ts.Value(worldKey{}).(*world) }

// exitsWith is the command exitcode N PROGRAM ARG…
func exitsWith(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if err != nil {
		exited, ok := errors.AsType[interface {
			error
			ExitCode() int
		}](err)
		if !ok {
			ts.Fatalf("%s: %v", args[1], err)
		}
		got = exited.ExitCode()
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("%s ended with %d, want %s", strings.Join(args[1:], " "), got, args[0])
	}
}

// changeBridge is the command bridge up|away|broken|foreign|skewed D: what stands
// before the bridge from now on.
func changeBridge(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(worldOf(ts).front.become(args[0], args[1:]...))
}

// changeBrowser is the command sits EMAIL [deny|never]: who sits before it, and
// what they answer.
func changeBrowser(ts *testscript.TestScript, _ bool, args []string) {
	w := worldOf(ts)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.email, w.says = args[0], "approve"
	if len(args) > 1 {
		w.says = args[1]
	}
}

// moveClock is the command clock D: all clocks, or with a second argument that of
// the laptop alone, are ahead by that much from now on.
func moveClock(ts *testscript.TestScript, _ bool, args []string) {
	w := worldOf(ts)
	by, err := time.ParseDuration(args[0])
	ts.Check(err)
	if len(args) == 1 {
		w.ahead.Store(int64(by))
	}
	ts.Check(os.WriteFile(w.clock, []byte(by.String()), 0o600))
}

// countSessions is the command sessions N: so many times was STS asked.
func countSessions(ts *testscript.TestScript, _ bool, args []string) {
	if got := worldOf(ts).cloud.CountCalls("AssumeRoleWithWebIdentity"); fmt.Sprint(got) != args[0] {
		ts.Fatalf("STS was asked for %d sessions, want %s", got, args[0])
	}
}

// actAs is the command as NAME PROGRAM ARG…: on the laptop of somebody else.
func actAs(ts *testscript.TestScript, _ bool, args []string) {
	w, before := worldOf(ts), ts.Getenv("SERVAL_CLIENT_DIR")
	w.mu.Lock()
	email := w.email
	w.email = args[0] + "@example.com"
	w.mu.Unlock()
	ts.Setenv("SERVAL_CLIENT_DIR", ts.MkAbs("laptop-"+args[0]))
	ts.Check(ts.Exec(args[1], args[2:]...))
	ts.Setenv("SERVAL_CLIENT_DIR", before)
	w.mu.Lock()
	w.email = email
	w.mu.Unlock()
}

// decideLast is the command approve, and deny: the approver decides what waits.
func decideLast(ts *testscript.TestScript, neg bool, args []string) {
	outcome := "approve"
	if neg {
		outcome = "deny"
	}
	ts.Check(worldOf(ts).decide(outcome))
}

// revokeLast is the command revoke: an admin takes away what runs.
func revokeLast(ts *testscript.TestScript, _ bool, _ []string) { ts.Check(worldOf(ts).revoke()) }

// distrust is the command trust ROLE: its trust policy lets nobody in any more.
func distrust(ts *testscript.TestScript, _ bool, args []string) {
	worldOf(ts).aws.SetTrust(args[0], `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::`+prod+`:root"},"Action":"sts:AssumeRole"}]}`)
}

// parallel is the command parallel N CODE PROGRAM ARG…: N at once, each of which
// has to end with CODE; the outputs are in the files out and err.
func parallel(ts *testscript.TestScript, _ bool, args []string) {
	var n int
	if _, err := fmt.Sscan(args[0], &n); err != nil {
		ts.Fatalf("%v", err)
	}
	outcomes := worldOf(ts).parallel(n, ts.MkAbs("."), args[2:], func(name string) string { return ts.Getenv(name) })
	var out, complaints strings.Builder
	for _, o := range outcomes {
		if fmt.Sprint(o.code) != args[1] {
			ts.Fatalf("one of %d ended with %d, want %s: %s", n, o.code, args[1], o.stderr)
		}
		out.WriteString(o.stdout)
		complaints.WriteString(o.stderr)
	}
	ts.Check(os.WriteFile(ts.MkAbs("out"), []byte(out.String()), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("err"), []byte(complaints.String()), 0o600))
}

// countLines is the command nlines N FILE: how many different lines it has.
func countLines(ts *testscript.TestScript, _ bool, args []string) {
	different := map[string]bool{}
	for line := range strings.Lines(ts.ReadFile(args[1])) {
		different[line] = true
	}
	if fmt.Sprint(len(different)) != args[0] {
		ts.Fatalf("%s has %d different lines, want %s", args[1], len(different), args[0])
	}
}

// decided is the command decided approve|deny FLAG…: serval does that to the one
// request that waits, whose id is in REQUEST from then on.
func decided(ts *testscript.TestScript, _ bool, args []string) {
	id, err := worldOf(ts).waiting()
	ts.Check(err)
	ts.Setenv("REQUEST", id)
	ts.Check(ts.Exec("serval", append([]string{args[0], id}, args[1:]...)...))
}

// waits is the command waits N: until so many requests wait for the approver.
func waits(ts *testscript.TestScript, _ bool, _ []string) {
	for range 600 {
		if _, err := worldOf(ts).waiting(); err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	ts.Fatalf("nothing waits after half a minute")
}

// opened is the command opened PATH: whether the browser was shown something
// there.
func opened(ts *testscript.TestScript, _ bool, args []string) {
	w := worldOf(ts)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, path := range w.seen {
		if strings.HasPrefix(path, args[0]) {
			return
		}
	}
	ts.Fatalf("the browser was shown %q", w.seen)
}

// typed is the command typed PROGRAM ARG…: what it shows is typed in the browser.
func typed(ts *testscript.TestScript, _ bool, args []string) {
	w := worldOf(ts)
	stop := make(chan struct{})
	done := make(chan error, 1)
	stderr := ts.MkAbs("typed.stderr")
	go func() { done <- w.typeCode(stderr, stop) }()
	err := ts.Exec("sh", "-c", strings.Join(args, " ")+" 2>"+stderr)
	close(stop)
	ts.Check(errors.Join(err, <-done))
}

// What the documents say to type is there.
func TestDocuments(t *testing.T) {
	docstest.Commands(t, "serval", 40, func(args ...string) string {
		var out bytes.Buffer
		p := &program{now: time.Now, stdin: strings.NewReader(""), stdout: &out, stderr: &out}
		p.run(t.Context(), args)
		return out.String()
	})
}
