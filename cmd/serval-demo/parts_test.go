package main

import (
	"bytes"
	"strings"
	"testing"
)

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
