package worker

import (
	"hash/fnv"
	"math/rand/v2"
	"time"
)

// A Schedule says when accounts are read in full: at Offset after midnight UTC,
// and every Interval from there. With 4h and 30m that is 00:30, 04:30, … UTC.
type Schedule struct {
	Interval time.Duration // above 0
	Offset   time.Duration // from 0 to below Interval
	// Spread is over how much time the accounts of one instant are spread, so
	// that fleets of workers do not call AWS in the same second. Below Interval.
	Spread time.Duration
}

// Last returns the latest instant at or before now.
func (s Schedule) Last(now time.Time) time.Time {
	// Truncate counts from a midnight UTC.
	return now.UTC().Add(-s.Offset).Truncate(s.Interval).Add(s.Offset)
}

// Next returns the first instant after now.
func (s Schedule) Next(now time.Time) time.Time { return s.Last(now).Add(s.Interval) }

// DueAt returns when an account, whose last sync started at last, is to be read
// again; an instant that is not after now means at once. An account never read
// (last is zero) is due at once, and so is one whose instant went by while
// nobody was there, but only once, however many instants those were. A last sync
// in the future is a clock's mistake and not believed.
func (s Schedule) DueAt(accountID string, last, now time.Time) time.Time {
	instant := s.Last(now)
	switch {
	case last.IsZero() || last.After(now.Add(clocksDiffer)):
		return now
	case last.Before(instant.Add(-s.Interval)):
		return now
	case last.Before(instant):
		return instant.Add(s.spread(accountID))
	default:
		return instant.Add(s.Interval + s.spread(accountID))
	}
}

// clocksDiffer is how far the clocks of two workers may be apart.
const clocksDiffer = 5 * time.Minute

// spread returns the account's place in the spread, always the same.
func (s Schedule) spread(accountID string) time.Duration {
	if s.Spread <= 0 {
		return 0
	}
	return time.Duration(hash(accountID) % uint64(s.Spread))
}

func hash(text string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(text))
	// FNV's high bits say little of short texts; those of a product say more.
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	return x ^ x>>33
}

// The pauses after something failed.
const (
	firstPause   = time.Second
	longestPause = 15 * time.Minute
)

// backoff returns how long to wait after the nth failure in a row: a second,
// doubling up to fifteen minutes, and between half of that and all of it, so
// that workers that failed together do not come back together.
func backoff(n int) time.Duration {
	most := longestPause
	if n < 11 {
		most = min(firstPause<<max(0, n-1), longestPause)
	}
	return most/2 + rand.N(most/2+1)
}
