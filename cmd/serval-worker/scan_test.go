package main

import (
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/awsiam"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

func TestProgressIsOneLineAndGoesAway(t *testing.T) {
	var b strings.Builder
	now := time.Unix(1e9, 0)
	m := &meter{w: &b, width: func() int { return 100 }, now: func() time.Time { return now }}
	shown := func(want string) {
		t.Helper()
		if got := b.String(); got != want {
			t.Errorf("progress wrote %q, want %q", got, want)
		}
		b.Reset()
	}
	const line = "\r\x1b[K"
	m.called(awsiam.Call{})
	shown(line + "1 calls, 0 throttled")
	m.advanced(awsiam.Progress{Listed: 1000, Read: 3, Tagged: 1})
	shown("") // too soon
	now = now.Add(500 * time.Millisecond)
	m.called(awsiam.Call{Throttled: true})
	shown(line + "3/1000 or more roles, 1 tagged, 2 calls, 1 throttled")
	for range 158 {
		m.called(awsiam.Call{})
	}
	now = now.Add(9500 * time.Millisecond)
	m.advanced(awsiam.Progress{Listed: 1503, AllListed: true, Read: 503, Tagged: 20})
	shown(line + "503/1503 roles, 20 tagged, 160 calls (16/s), 1 throttled, 20s left")
	now = now.Add(time.Second)
	m.width = func() int { return 21 }
	m.called(awsiam.Call{})
	shown(line + "22s left") // never wrapped
	m.done()
	shown(line)
}

// A line is as wide as the terminal at most; where there are few columns, the time left is the last to go.
func TestProgressFitsTheTerminal(t *testing.T) {
	start := time.Unix(1e9, 0)
	long := meter{calls: 43210, throttled: 12345, started: start, since: start,
		at: awsiam.Progress{Listed: 54321, AllListed: true, Read: 43210, Tagged: 12345}}
	listing := meter{calls: 43210, throttled: 12345, started: start,
		at: awsiam.Progress{Listed: 54321, Read: 43210, Tagged: 12345}}
	for _, tt := range []struct {
		m    *meter
		took time.Duration
		want map[int]string // by columns
	}{
		{&long, 432 * time.Second, map[int]string{
			200: "43210/54321 roles, 12345 tagged, 43210 calls (100/s), 12345 throttled, 2m left",
			79:  "43210/54321 roles, 12345 tagged, 43210 calls (100/s), 12345 throttled, 2m left",
			78:  "43210/54321 roles, 12345 tagged, 43210 calls (100/s), 12345 throttled, 2m left",
			77:  "43210/54321 roles, 43210 calls (100/s), 12345 throttled, 2m left",
			63:  "43210/54321 roles, 43210 calls (100/s), 2m left",
			39:  "43210/54321 roles, 2m left",
			25:  "2m left",
			4:   "2m l",
			0:   "",
		}},
		{&long, 100 * time.Second, map[int]string{79: "43210/54321 roles, 12345 tagged, 43210 calls (432/s), 12345 throttled, 26s left"}},
		{&long, 4 * time.Hour, map[int]string{79: "43210/54321 roles, 12345 tagged, 43210 calls (3/s), 12345 throttled, 1h2m left"}},
		{&listing, 432 * time.Second, map[int]string{
			79: "43210/54321 or more roles, 12345 tagged, 43210 calls (100/s), 12345 throttled",
			39: "43210/54321 or more roles",
			9:  "43210/543",
		}},
		{&meter{calls: 1, started: start}, 0, map[int]string{79: "1 calls, 0 throttled", 19: "1 calls", 3: "1 c"}},
	} {
		for columns, want := range tt.want {
			if got := tt.m.line(start.Add(tt.took), columns); got != want {
				t.Errorf("in %d columns progress is %q, want %q", columns, got, want)
			}
		}
	}
}

// A pipe is not written to. A terminal is: see TestProgressOnATerminal.
func TestProgressIsForTerminalsOnly(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	m := newMeter(write)
	m.called(awsiam.Call{})
	m.advanced(awsiam.Progress{Listed: 10, Read: 1})
	m.done()
	write.Close()
	if text, err := io.ReadAll(read); err != nil || len(text) > 0 {
		t.Errorf("progress wrote %q into a pipe (%v)", text, err)
	}
	if m := newMeter(new(strings.Builder)); m.w != io.Discard {
		t.Error("progress is shown where there is no file")
	}
}

func TestSession(t *testing.T) {
	for seconds, want := range map[int]string{0: "unknown", 3600: "1 h", 14400: "4 h", 5400: "1 h 30 min", 600: "10 min", 36000: "10 h", 3630: "1 h 30 s"} {
		if got := session(seconds); got != want {
			t.Errorf("session(%d) = %q, want %q", seconds, got, want)
		}
	}
}

// What is in an account was written by others, and must not command the
// terminal.
func TestTableIsHarmless(t *testing.T) {
	var b strings.Builder
	err := printTable(&b, serval.Inventory{AccountID: member, Complete: true, Problems: []serval.Problem{
		{Action: "iam:GetRole", Target: "x", Code: "y", Message: "a\x1b[2Jb\u202ec"},
	}}, serval.Account{}, signIn{})
	if err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(b.String(), "\x1b\u202e") {
		t.Errorf("the table has control characters: %q", b.String())
	}
}
