//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
)

// A conversation is a command at a terminal of its own.
type conversation struct {
	*testing.T
	master *os.File
	c      *exec.Cmd
	stdout bytes.Buffer // apart from the terminal, where it is redirected

	mu   sync.Mutex // guards what follows
	seen strings.Builder
	done chan struct{}
}

// converse starts a command of the laptop's at a terminal, with variables left
// out of its environment. Redirected, its stdout is no terminal.
func (l *laptop) converse(redirected bool, without []string, name string, args ...string) *conversation {
	l.Helper()
	v := &conversation{T: l.T, c: l.command(name, args...), done: make(chan struct{})}
	v.c.Env = slices.DeleteFunc(v.c.Env, func(text string) bool {
		name, _, _ := strings.Cut(text, "=")
		return name == "SERVAL_NO_INPUT" || slices.Contains(without, name)
	})
	if redirected {
		v.c.Stdout = &v.stdout
	}
	var err error
	if v.master, err = pty.Start(v.c); err != nil {
		l.Skipf("no pseudo-terminals here: %v", err)
	}
	go func() {
		defer close(v.done)
		text := make([]byte, 4096)
		for {
			n, err := v.master.Read(text) // fails when the other end is closed
			v.mu.Lock()
			v.seen.Write(text[:n])
			v.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	l.Cleanup(func() { _ = v.c.Process.Kill(); v.master.Close(); <-v.done })
	return v
}

func (v *conversation) text() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.seen.String()
}

// sees waits until the terminal shows something like that, and returns it.
func (v *conversation) sees(pattern string) string {
	v.Helper()
	re := regexp.MustCompile(pattern)
	for range 600 {
		if found := re.FindString(v.text()); found != "" {
			return found
		}
		time.Sleep(50 * time.Millisecond)
	}
	v.Fatalf("the terminal does not show %q after half a minute: %s", pattern, v.text())
	return ""
}

func (v *conversation) types(text string) {
	v.Helper()
	if _, err := io.WriteString(v.master, text); err != nil {
		v.Fatal(err)
	}
}

// ends waits for the command's end, and returns its exit code.
func (v *conversation) ends() int {
	v.Helper()
	err := v.c.Wait()
	if exited, ok := errors.AsType[*exec.ExitError](err); ok {
		return exited.ExitCode()
	}
	if err != nil {
		v.Fatal(err)
	}
	return 0
}

// A role is chosen by a few letters and a number, and stdout stays clean.
func TestPick(t *testing.T) {
	l := newLaptop(t, options{})
	v := l.converse(true, nil, "serval", "creds")
	v.sees("Number, or a few letters: $")
	v.types("zzz\n")
	v.sees("Nothing has these letters")
	v.types("dev dat\n")
	v.sees(`1  prod/dev-data`)
	v.types("\n")
	if code := v.ends(); code != exitNoAccess {
		t.Errorf("dev-data, to which there is no access, ended with %d: %s", code, v.text())
	}
	v = l.converse(true, nil, "serval", "creds", "prod/d")
	v.sees("Number, or a few letters: $")
	v.types("prod/dev\n")
	v.sees(`1  prod/dev `)
	v.types("1\n")
	if code := v.ends(); code != 0 || !strings.HasPrefix(v.stdout.String(), `{"Version":1,`) || strings.Count(v.stdout.String(), "\n") != 1 {
		t.Errorf("chosen, it ended with %d and printed %q", code, v.stdout.String())
	}
	v = l.converse(true, nil, "serval", "explain")
	v.sees("Number, or a few letters: $")
	v.types("\x03")
	if code := v.ends(); code != exitInterrupted {
		t.Errorf("Ctrl-C ended with %d, want %d", code, exitInterrupted)
	}
}

// Of several accesses the one that ends, or is to last longer, is chosen among them, and
// not among all roles.
func TestPickAccess(t *testing.T) {
	l := newLaptop(t, options{})
	l.must("serval", "request", "prod/dev-data", "--for", "30m")
	l.must("serval", "creds", "prod/dev-data")
	const which = `Which access\?\r\n   1  prod/dev-data +until .*\r\n   2  prod/dev +approved, 2 h\r\nNumber`
	for _, test := range []struct{ command, shows string }{
		{"extend", which},
		{"done", which},
		{"done", ""}, // of the one that is left nobody asks
	} {
		v := l.converse(true, nil, "serval", test.command)
		if test.shows != "" {
			v.sees(test.shows)
			v.types("1\n")
		}
		if code := v.ends(); code != 0 || test.shows != "" && !strings.Contains(v.stdout.String(), "prod/dev-data") || test.shows == "" && !strings.Contains(v.stdout.String(), "prod/dev ") {
			t.Errorf("%s ended with %d: %q, %s", test.command, code, v.stdout.String(), v.text())
		}
	}
}

// Ten tools that stumble over a missing login at a terminal open one browser,
// and all of them get what they came for; if the person says no, none asks again.
func TestStumble(t *testing.T) {
	l := newLaptop(t, options{})
	visits := func() (n int) {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, path := range l.seen {
			if path == "/client/authorize" {
				n++
			}
		}
		return n
	}
	l.must("serval", "logout")
	all := func(want int) {
		t.Helper()
		before := visits()
		var talks []*conversation
		for range 10 {
			talks = append(talks, l.converse(true, nil, "serval", "creds", "arn:aws:iam::"+prod+":role/dev"))
		}
		for _, v := range talks {
			if code := v.ends(); code != want || (code == 0) != strings.HasPrefix(v.stdout.String(), `{"Version":1,`) {
				t.Errorf("it ended with %d, want %d: %q, %s", code, want, v.stdout.String(), v.text())
			}
		}
		if n := visits() - before; n != 1 {
			t.Errorf("the browser opened %d times, want once", n)
		}
	}
	l.mu.Lock()
	l.says = "deny"
	l.mu.Unlock()
	all(exitLogin)
	l.mu.Lock()
	l.says = "approve"
	l.mu.Unlock()
	if err := os.WriteFile(l.clock, []byte("31s"), 0o600); err != nil {
		t.Fatal(err)
	}
	all(0)
	if n := l.cloud.CountCalls("AssumeRoleWithWebIdentity"); n != 1 {
		t.Errorf("%d sessions were opened, want one", n)
	}
}

// Without a terminal nothing waits for anybody.
func TestNoTerminal(t *testing.T) {
	l := newLaptop(t, options{})
	l.must("serval", "logout")
	for _, args := range [][]string{{"creds", "arn:aws:iam::" + prod + ":role/dev"}, {"whoami"}, {"request", "prod/dev"}, {"explain"}} {
		c := l.command("serval", args...)
		c.Env = slices.DeleteFunc(c.Env, func(text string) bool { return strings.HasPrefix(text, "SERVAL_NO_INPUT=") })
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		began := time.Now()
		o := l.run(c)
		if want := map[bool]int{true: exitUsage, false: exitLogin}[args[0] == "explain"]; o.code != want || o.stdout != "" {
			t.Errorf("serval %s ended with %d, want %d: %s%s", args, o.code, want, o.stdout, o.stderr)
		}
		if took := time.Since(began); took >= stumbledTime { // for which somebody at a terminal is waited for
			t.Errorf("serval %s took %s", args, took)
		}
	}
}

// Ctrl-C leaves the request that is waited for.
func TestWaitInterrupted(t *testing.T) {
	l := newLaptop(t, options{})
	v := l.converse(false, nil, "serval", "request", "prod/prod-readonly", "--reason", "Why not", "--wait")
	v.sees(`Waiting for leads, [1-9][0-9]*s so far \(Ctrl-C leaves the request\)`)
	v.types("\x03")
	if code := v.ends(); code != exitInterrupted {
		t.Errorf("Ctrl-C ended with %d, want %d: %s", code, exitInterrupted, v.text())
	}
	v.sees("the request stays")
	if got := l.must("serval", "requests"); !strings.Contains(got, "waits for leads") {
		t.Errorf("the request is gone: %s", got)
	}
	v = l.converse(false, nil, "serval", "approve")
	v.sees("Nothing waits for your decision")
	if code := v.ends(); code != exitNotFound {
		t.Errorf("with nothing to approve it ended with %d, want %d", code, exitNotFound)
	}
}

// A terminal shows what somebody wrote and does not obey it: S-25.
func TestObeyed(t *testing.T) {
	for _, c := range []string{"\x00", "\x1b", "\r", "\t", "\x7f", "\u0085", "\u009b", "\u061c", "\u200f", "\u202a", "\u202d", "\u202e", "\u2066", "\u2068", "\u2069"} {
		if got := cell("a" + c + "b"); got != "a b" {
			t.Errorf("%q in a cell is %q", c, got)
		}
		if got := passage("a" + c + "b\nc"); got != "a b\nc" {
			t.Errorf("%q in a passage is %q", c, got)
		}
		var out, notes strings.Builder
		p := &program{stdout: &out, stderr: &notes}
		p.note("a%sb", c)
		var back string
		if err := p.json("a" + c + "b"); err != nil || strings.Contains(out.String(), c) || json.Unmarshal([]byte(out.String()), &back) != nil || back != "a"+c+"b" {
			t.Errorf("%q in JSON is %q (%v)", c, out.String(), err)
		}
		if notes.String() != "serval: a b\n" {
			t.Errorf("%q in a note is %q", c, notes.String())
		}
	}
	if got := cell("a\nb"); got != "a b" {
		t.Errorf("two lines in a cell are %q", got)
	}
	if text := "größer ≥ 語 \U0001F431"; cell(text) != text || document(text) != text {
		t.Errorf("%q is %q, and %q", text, cell(text), document(text))
	}
}

// Where no browser opens the address is printed, with how to get back over SSH.
// S-63: what is not the bridge's answer to this sign-in changes nothing.
func TestPrintedAddress(t *testing.T) {
	l := newLaptop(t, options{})
	l.must("serval", "logout")
	v := l.converse(false, []string{"BROWSER"}, "serval", "login", "--port", "0")
	v.sees("ssh -L [0-9]+:127.0.0.1:[0-9]+ ")
	address := v.sees(`http://127\.0\.0\.1:[0-9]+/client/authorize\?\S+`)
	back := "http://" + strings.TrimPrefix(regexp.MustCompile(`127\.0\.0\.1:[0-9]+ `).FindString(v.text()), "")
	back = strings.TrimSpace(back)
	if strings.Contains(address, "verifier") {
		t.Errorf("the address tells the verifier: %s", address)
	}
	state := regexp.MustCompile(`state=([A-Z0-9]+)`).FindStringSubmatch(address)[1]
	for name, c := range map[string]struct {
		path, host string
		want       int
	}{
		"another state":  {"/callback?code=x&iss=" + l.front.origin + "&state=" + strings.Repeat("A", 26), "", 400},
		"no state":       {"/callback?code=x&iss=" + l.front.origin, "", 400},
		"another issuer": {"/callback?code=x&iss=https://evil.example&state=" + state, "", 400},
		"no issuer":      {"/callback?code=x&state=" + state, "", 400},
		"no code":        {"/callback?iss=" + l.front.origin + "&state=" + state, "", 400},
		"two states":     {"/callback?code=x&iss=" + l.front.origin + "&state=" + state + "&state=" + state, "", 400},
		"another host":   {"/callback?code=x&iss=" + l.front.origin + "&state=" + state, "rebound.example", 421},
		"localhost":      {"/callback?code=x&iss=" + l.front.origin + "&state=" + state, "localhost:" + back[len("http://127.0.0.1:"):], 421},
		"another path":   {"/?code=x&iss=" + l.front.origin + "&state=" + state, "", 404},
	} {
		r, err := http.NewRequest("GET", back+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.host != "" {
			r.Host = c.host
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != c.want {
			t.Errorf("%s: %d, want %d", name, answer.StatusCode, c.want)
		}
	}
	if err := l.visit("ana@example.com", "approve", address); err != nil {
		t.Fatal(err)
	}
	v.sees("Signed in as ana@example.com until")
	if code := v.ends(); code != 0 {
		t.Errorf("it ended with %d", code)
	}
}

// A shell at a terminal says what it is for, and until when.
func TestShellAtATerminal(t *testing.T) {
	l := newLaptop(t, options{})
	v := l.converse(false, nil, "serval", "shell", "prod/dev")
	v.sees("arn:aws:iam::" + prod + ":role/dev until ")
	v.types("echo is $AWS_ACCESS_KEY_ID\n")
	v.sees("is ASIA")
	v.types("exit 5\n")
	if code := v.ends(); code != 5 {
		t.Errorf("the shell's exit code is %d, want 5", code)
	}
}
