package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
)

// The demo begins when every bridge serves, and not before, and says why it does not
// begin at all.
func TestBalance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &parts{demo: &demo{failed: make(chan error, 1)}, options: options{replicas: 2}}
		serving := make(chan string, 2)
		serving <- "127.0.0.1:1"
		if err := p.balance(t.Context(), serving); err == nil || !strings.Contains(err.Error(), "does not serve after") {
			t.Errorf("one of two serves: %v", err)
		}
		serving <- "127.0.0.1:2"
		serving <- "127.0.0.1:3"
		if err := p.balance(t.Context(), serving); err != nil || len(p.balancer.targets) != 3 {
			t.Errorf("both serve: %v, %v", err, p.balancer.targets)
		}
		p.failed <- errors.New("it ended")
		if err := p.balance(t.Context(), serving); err == nil || err.Error() != "it ended" {
			t.Errorf("one has ended: %v", err)
		}
		ctx, stop := context.WithCancel(t.Context())
		stop()
		if err := p.balance(ctx, serving); !errors.Is(err, context.Canceled) {
			t.Errorf("told to stop: %v", err)
		}
	})
}

// A bridge's log says where that listens, however it arrives; once it did, none of it
// is kept, and all of it is passed on.
func TestListener(t *testing.T) {
	const (
		begins = `{"level":"info","msg":"migrated","listen":"192.0.2.1:1"}` + "\n"
		serves = `{"level":"info","msg":"serving","url":"http://127.0.0.1:8080","listen":"127.0.0.1:4711","admin_listen":"127.0.0.1:4712"}` + "\n"
	)
	for text, want := range map[string]string{
		serves:                             "127.0.0.1:4711",
		begins + serves + begins:           "127.0.0.1:4711",
		"no JSON\n" + begins + serves:      "127.0.0.1:4711",
		"\n" + serves + serves:             "127.0.0.1:4711",
		begins:                             "",
		strings.TrimSuffix(serves, "\n"):   "", // it may go on
		"and now " + serves:                "",
		`["serving"]` + "\n" + `"serving"`: "",
	} {
		for size := 1; size <= len(text); size++ {
			var passed bytes.Buffer
			serving := make(chan string, 2)
			l := &listener{serving: serving, log: &passed}
			for rest := []byte(text); len(rest) > 0; {
				n, err := l.Write(rest[:min(size, len(rest))])
				if err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			close(serving)
			var got []string
			for address := range serving {
				got = append(got, address)
			}
			if strings.Join(got, " ") != want || passed.String() != text {
				t.Errorf("%q, %d bytes at a time: %q, want %q; passed on: %q", text, size, got, want, passed.String())
			}
			if want != "" && len(l.line) > 0 {
				t.Errorf("%q: %q is kept", text, l.line)
			}
		}
	}
}
