package main

import (
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/serval-bridge/serval-bridge/internal/settings"
)

// Interval and offset are set each by itself: an interval below the offset's default
// names times as well.
func TestSchedule(t *testing.T) {
	const day = "2026-03-01 13:07:00"
	for _, test := range []struct{ interval, offset, last string }{
		{"", "", "2026-03-01 12:30:00"},
		{"20m", "", "2026-03-01 12:50:00"},
		{"30m", "", "2026-03-01 13:00:00"},
		{"1m", "", "2026-03-01 13:07:00"},
		{"", "5h", "2026-03-01 13:00:00"},
		{"24h", "49h", "2026-03-01 01:00:00"},
	} {
		environ := []string{"SERVAL_UPSTREAM_URL=https://serval.example.com", "SERVAL_UPSTREAM_TOKEN=0123456789abcdef", "SERVAL_NO_LEASE=true"}
		if test.interval != "" {
			environ = append(environ, "SERVAL_SYNC_INTERVAL="+test.interval)
		}
		if test.offset != "" {
			environ = append(environ, "SERVAL_SYNC_OFFSET="+test.offset)
		}
		flags := pflag.NewFlagSet("run", pflag.ContinueOnError)
		settings.Flags(flags, new(Config))
		c, faults := readConfig(environ, flags)
		if len(faults) > 0 {
			t.Errorf("every %q at %q: %q", test.interval, test.offset, faults)
			continue
		}
		now, err := time.Parse(time.DateTime, day)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.daemon().Schedule.Last(now).Format(time.DateTime); got != test.last {
			t.Errorf("every %q at %q: the last before %s is at %s, want %s", test.interval, test.offset, day, got, test.last)
		}
	}
}
