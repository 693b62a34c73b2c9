package main

import (
	"strings"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/awsiam"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

func TestProgressIsOneLineAndGoesAway(t *testing.T) {
	var b strings.Builder
	now := time.Unix(1e9, 0)
	show, done := counting(&b, func() time.Time { return now })
	show(awsiam.Progress{Listed: 1000, Read: 3, Tagged: 1})
	show(awsiam.Progress{Listed: 1000, Read: 4, Tagged: 1}) // too soon
	now = now.Add(time.Second)
	show(awsiam.Progress{Listed: 1500, AllListed: true, Read: 700, Tagged: 20})
	done()
	const line = "\r\x1b[K"
	if got, want := b.String(), line+"3 of 1000 or more roles read, 1 tagged"+line+"700 of 1500 roles read, 20 tagged"+line; got != want {
		t.Errorf("progress wrote %q, want %q", got, want)
	}
}

func TestProgressIsForTerminalsOnly(t *testing.T) {
	var b strings.Builder
	if show, done := progress(&b, time.Now); show != nil {
		t.Error("progress is shown where there is no terminal")
	} else if done(); b.Len() > 0 {
		t.Errorf("progress wrote %q where there is no terminal", b.String())
	}
}

func TestSession(t *testing.T) {
	for seconds, want := range map[int]string{0: "unknown", 3600: "1h", 14400: "4h", 5400: "1h30m", 600: "10m", 36000: "10h", 3630: "1h0m30s"} {
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
	}}, signIn{})
	if err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(b.String(), "\x1b\u202e") {
		t.Errorf("the table has control characters: %q", b.String())
	}
}
