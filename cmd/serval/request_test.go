package main

import (
	"strings"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/wire"
)

func TestSpan(t *testing.T) {
	for text, want := range map[string]int{
		"1m": 1, "90m": 90, "2h": 120, "1h30m": 90, "1d": 1440, "2d12h": 3600, "2 h 30 min": 150, "30min": 30, "1 d 5 min": 1445, "366d": 366 * 1440,
		// And what is none.
		"": 0, " ": 0, "0m": 0, "2": 0, "2h ago": 0, "-2h": 0, "1.5h": 0, "30m1h": 0, "30s": 0, "367d": 0, "9999999m": 0, "2H": 0, "1h1h": 0,
	} {
		if got, err := span(text); got != want && err == nil || (err == nil) != (want > 0) {
			t.Errorf("span(%q) is %d, %v, want %d", text, got, err, want)
		}
	}
}

func TestNarrowed(t *testing.T) {
	const table = "ROLE  REASON\nprod  short\nprod  a reason that goes on and on\nprod  \n"
	for width, want := range map[int]string{
		0: table, 12: table, // no terminal, and none that anything fits on
		13: "ROLE\nprod\n  short\nprod\n  a reason t…\nprod\n",
		17: "ROLE\nprod\n  short\nprod\n  a reason that …\nprod\n",
		18: "ROLE  REASON\nprod  short\nprod  a reason th…\nprod\n",
		34: "ROLE  REASON\nprod  short\nprod  a reason that goes on and on\nprod\n",
		80: "ROLE  REASON\nprod  short\nprod  a reason that goes on and on\nprod\n",
	} {
		if got := narrowed(table, "REASON", width); got != want {
			t.Errorf("at %d columns:\n%s\nwant\n%s", width, got, want)
		}
	}
}

// Whoever decides reads that AWS would refuse who asked, and nothing where it would not.
func TestShowWaiting(t *testing.T) {
	for verdict, want := range map[string]bool{"fails": true, "works": false, "unknown": false} {
		var out strings.Builder
		p := &program{stdout: &out, now: time.Now}
		r := wire.Request{ID: "req_1", RoleName: "dev", ToDecide: &wire.ToDecide{Summary: "It can read."}, Trust: &wire.Preflight{Verdict: verdict}}
		if err := p.showWaiting(r); err != nil || strings.Contains(out.String(), "refuses them: as the role and its account are now") != want || !strings.Contains(out.String(), "It can read.") {
			t.Errorf("%s: %v, %s", verdict, err, out.String())
		}
	}
}
