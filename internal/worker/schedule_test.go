package worker_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/worker"
)

func at(text string) time.Time {
	t, err := time.Parse("2006-01-02 15:04:05", text)
	if err != nil {
		panic(err)
	}
	return t
}

func TestScheduleKeepsItsInstants(t *testing.T) {
	seed := worker.Schedule{Interval: 4 * time.Hour, Offset: 30 * time.Minute}
	for _, test := range []struct {
		name     string
		schedule worker.Schedule
		now      string
		last     string
	}{
		{"on the instant", seed, "2026-03-01 00:30:00", "2026-03-01 00:30:00"},
		{"a second before it", seed, "2026-03-01 00:29:59", "2026-02-28 20:30:00"},
		{"in between", seed, "2026-03-01 06:00:00", "2026-03-01 04:30:00"},
		{"late in the day", seed, "2026-03-01 23:59:59", "2026-03-01 20:30:00"},
		{"on a leap day", seed, "2028-02-29 00:31:00", "2028-02-29 00:30:00"},
		{"daily", worker.Schedule{Interval: 24 * time.Hour, Offset: 3 * time.Hour}, "2026-03-01 02:00:00", "2026-02-28 03:00:00"},
		{"without offset", worker.Schedule{Interval: time.Hour}, "2026-03-01 02:10:00", "2026-03-01 02:00:00"},
	} {
		t.Run(test.name, func(t *testing.T) {
			now := at(test.now)
			if got, want := test.schedule.Last(now), at(test.last); !got.Equal(want) {
				t.Errorf("Last(%s) = %s, want %s", test.now, got, want)
			}
			if got, want := test.schedule.Next(now), at(test.last).Add(test.schedule.Interval); !got.Equal(want) {
				t.Errorf("Next(%s) = %s, want %s", test.now, got, want)
			}
			elsewhere := now.In(time.FixedZone("UTC+5:30", 19800))
			if got, want := test.schedule.Last(elsewhere), at(test.last); !got.Equal(want) {
				t.Errorf("in another time zone Last(%s) = %s, want %s", elsewhere, got, want)
			}
		})
	}
}

func TestDueAt(t *testing.T) {
	seed := worker.Schedule{Interval: 4 * time.Hour, Offset: 30 * time.Minute}
	for _, test := range []struct {
		name, last, now, due string
	}{
		{"never synced: at once", "", "2026-03-01 02:00:00", "2026-03-01 02:00:00"},
		{"synced in this round: the next", "2026-03-01 00:30:07", "2026-03-01 02:00:00", "2026-03-01 04:30:00"},
		{"synced on the instant: the next", "2026-03-01 00:30:00", "2026-03-01 00:30:00", "2026-03-01 04:30:00"},
		{"synced in the last round: now", "2026-02-28 20:30:07", "2026-03-01 00:30:00", "2026-03-01 00:30:00"},
		{"synced just before the instant: now", "2026-03-01 00:29:59", "2026-03-01 00:30:01", "2026-03-01 00:30:00"},
		{"down for nine hours: at once", "2026-03-01 00:30:07", "2026-03-01 09:30:00", "2026-03-01 09:30:00"},
		{"a clock a little ahead is believed", "2026-03-01 02:04:00", "2026-03-01 02:00:00", "2026-03-01 04:30:00"},
		{"a sync in the future is not", "2026-03-09 00:00:00", "2026-03-01 02:00:00", "2026-03-01 02:00:00"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var last time.Time
			if test.last != "" {
				last = at(test.last)
			}
			if got, want := seed.DueAt("111122223333", last, at(test.now)), at(test.due); !got.Equal(want) {
				t.Errorf("last synced %q and asked at %s it is due at %s, want %s", test.last, test.now, got, want)
			}
		})
	}
}

func TestSpreadIsEvenAndSteady(t *testing.T) {
	s := worker.Schedule{Interval: 4 * time.Hour, Offset: 30 * time.Minute, Spread: 2 * time.Minute}
	last, now := at("2026-02-28 20:31:00"), at("2026-03-01 00:30:00")
	var halves [2]int
	for i := range 1000 {
		id := fmt.Sprintf("%012d", i)
		due := s.DueAt(id, last, now)
		if due.Before(now) || !due.Before(now.Add(s.Spread)) {
			t.Fatalf("account %s is due at %s, want within %s of the instant", id, due, s.Spread)
		}
		if again := s.DueAt(id, last, now.Add(time.Second)); !again.Equal(due) {
			t.Fatalf("account %s is due at %s and then at %s, want it to stay", id, due, again)
		}
		halves[int(due.Sub(now)/time.Minute)]++
	}
	if halves[0] < 400 || halves[1] < 400 {
		t.Errorf("the two minutes have %v of 1000 accounts, want them about even", halves)
	}
}
