package serval

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// A sayer keeps of one grant what the product's sentences say of it, and knows
// nothing of how Request does it: when it ends, and whether it has.
type sayer struct {
	max, total int // minutes at a time, and in all

	minutes       int
	asked         int // minutes of an extension that waits; 0 for none
	running, over bool
	start, end    time.Time
	unused        time.Time // where it ends if nobody uses it
}

func minutesOf(n int) time.Duration { return time.Duration(n) * time.Minute }

// passed: running it ends at its end, unused after a week.
func (s *sayer) passed(now time.Time) bool {
	if s.running {
		return !now.Before(s.end)
	}
	return !now.Before(s.unused)
}

func (s *sayer) open(now time.Time) bool { return !s.over && !s.passed(now) }

// "It starts ... at STS's Expiration minus the duration asked, exactly once."
func (s *sayer) mint(now, start time.Time) bool {
	if !s.open(now) {
		return false
	}
	if !s.running {
		s.running, s.start, s.end = true, start, start.Add(minutesOf(s.minutes))
	}
	return true
}

// "At most one is active and one pending", "stays within max_total_minutes".
func (s *sayer) extend(now time.Time, minutes int) bool {
	if !s.open(now) || s.asked != 0 || minutes < 1 || minutes > s.max ||
		s.running && now.Add(minutesOf(minutes)).After(s.start.Add(minutesOf(s.total))) {
		return false
	}
	s.asked = minutes
	return true
}

// "The new end is the later of the present end and decision time + approved
// minutes", "minutes become the larger", "one decided after the end is refused".
func (s *sayer) approve(now time.Time, minutes int) bool {
	if !s.open(now) || s.asked == 0 || minutes < 0 || minutes > s.max {
		return false
	}
	if minutes == 0 {
		minutes = s.asked
	}
	s.asked = 0
	if !s.running {
		s.minutes = max(s.minutes, minutes)
		return true
	}
	later := now.Add(minutesOf(minutes))
	if last := s.start.Add(minutesOf(s.total)); later.After(last) {
		later = last
	}
	if later.After(s.end) {
		s.end = later
	}
	return true
}

// "A denied extension changes nothing."
func (s *sayer) deny(now time.Time) bool {
	if !s.open(now) || s.asked == 0 {
		return false
	}
	s.asked = 0
	return true
}

// "Shortening by the holder or an approver": never longer, never into the past.
func (s *sayer) shorten(now, end time.Time) bool {
	if !s.open(now) || !s.running || !end.After(now) || !end.After(s.start) || !end.Before(s.end) {
		return false
	}
	s.end = end
	return true
}

func (s *sayer) shortenTo(now time.Time, minutes int) bool {
	if minutes < 1 {
		return false
	}
	if s.running {
		return s.shorten(now, now.Add(minutesOf(minutes)))
	}
	if !s.open(now) || minutes >= s.minutes {
		return false
	}
	s.minutes = minutes
	return true
}

// "I'm done" ends early; revoking ends at once.
func (s *sayer) stop(now time.Time) bool {
	if !s.open(now) {
		return false
	}
	s.over, s.asked = true, 0
	return true
}

// TestTheEndIsWhatIsSaid lets requests, extensions, shortenings and revocations
// of one grant come in any order and at any time, and holds the grant to what
// the sentences say after each.
func TestTheEndIsWhatIsSaid(t *testing.T) {
	runs := 10_000
	if testing.Short() {
		runs = 1_000
	}
	reached := map[string]int{}
	for seed := range runs {
		saidRun(t, uint64(seed), reached)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	// A test that never gets there says nothing.
	for _, act := range []string{"mint", "extend", "approve", "deny", "shorten", "shorten to", "done", "revoke"} {
		if reached[act] < runs/20 || reached["no "+act] < runs/20 {
			t.Errorf("in %d runs %s was done %d times and refused %d times; the runs do not reach it", runs, act, reached[act], reached["no "+act])
		}
	}
}

func saidRun(t *testing.T, seed uint64, reached map[string]int) {
	rnd := rand.New(rand.NewPCG(seed, 5))
	pick := func(n int) int { return rnd.IntN(n) }
	short := terms(first)
	short.MaxTotalMinutes = 150 // so that runs come to it
	r := approved(t, short)
	said := &sayer{max: 120, total: 150, minutes: 60, unused: t0.Add(week)}
	now := t0
	var history []string
	for range 30 {
		switch pick(12) {
		case 0:
			now = now.Add(time.Duration(pick(90)) * time.Minute)
		case 1:
			now = now.Add(time.Duration(pick(100)) * time.Hour / 24)
		default:
			now = now.Add(time.Duration(pick(600)) * time.Second)
		}
		minutes := pick(140) - 5
		var act string
		var want bool
		var err error
		switch pick(16) {
		case 0, 1, 2:
			start := now.Add(time.Duration(pick(9)-4) * time.Second) // AWS's clock is not ours
			act, want = "mint", said.mint(now, start)
			if err = r.CheckMint(now); err == nil {
				r.StartClock(start)
			}
		case 3, 4, 5, 6:
			act, want = "extend", said.extend(now, minutes)
			_, err = r.Extend(as(ana), minutes, "more", now)
		case 7, 8, 9:
			give := max(0, minutes) * pick(2)
			act, want = "approve", said.approve(now, give)
			_, err = r.Decide(as(bo), Decision{Approve: true, Minutes: give}, week, now)
		case 10:
			act, want = "deny", said.deny(now)
			_, err = r.Decide(as(bo), Decision{}, week, now)
		case 11, 12:
			end := now.Add(minutesOf(minutes))
			act, want = "shorten", said.shorten(now, end)
			_, err = r.Shorten([]Principal{as(ana), as(bo)}[pick(2)], end, now)
		case 13, 14:
			act, want = "shorten to", said.shortenTo(now, minutes)
			_, err = r.ShortenTo([]Principal{as(ana), as(bo)}[pick(2)], minutes, now)
		default:
			act = []string{"done", "revoke"}[pick(2)]
			want = said.stop(now)
			if act == "done" {
				_, err = r.Done(as(ana), now)
			} else {
				_, err = r.Revoke([]Principal{as(bo), admin}[pick(2)], now)
			}
		}
		history = append(history, fmt.Sprintf("%s %d at %s: %v", act, minutes, now.Sub(t0), err))
		if want {
			reached[act]++
		} else {
			reached["no "+act]++
		}
		switch {
		case (err == nil) != want:
			t.Errorf("%s: %v, and the sentences say %t", act, err, want)
		case !r.EndsAt.Equal(said.end) || !r.ClockStartedAt.Equal(said.start):
			t.Errorf("after %s it runs from %s to %s, and the sentences say from %s to %s", act, r.ClockStartedAt, r.EndsAt, said.start, said.end)
		case !said.running && !said.over && r.Minutes() != said.minutes:
			t.Errorf("after %s it has %d minutes, and the sentences say %d", act, r.Minutes(), said.minutes)
		case r.EndedAt.IsZero() == said.over:
			t.Errorf("after %s it ended at %s, and the sentences say that it is over: %t", act, r.EndedAt, said.over)
		}
		if t.Failed() {
			for _, line := range history {
				t.Log(line)
			}
			return
		}
	}
}

// TestAllOrders lets an extension, its approval, another one's, a shortening and
// the end come in every order there is.
func TestAllOrders(t *testing.T) {
	type act struct {
		name string
		said func(s *sayer, now time.Time) bool
		do   func(r *Request, now time.Time) error
	}
	acts := []act{
		{"mint", func(s *sayer, now time.Time) bool { return s.mint(now, now) }, func(r *Request, now time.Time) error {
			err := r.CheckMint(now)
			if err == nil {
				r.StartClock(now)
			}
			return err
		}},
		{"extend by 90", func(s *sayer, now time.Time) bool { return s.extend(now, 90) }, func(r *Request, now time.Time) error {
			return errOf(r.Extend(as(ana), 90, "more", now))
		}},
		{"approve", func(s *sayer, now time.Time) bool { return s.approve(now, 0) }, func(r *Request, now time.Time) error {
			return errOf(r.Decide(as(bo), Decision{Approve: true}, week, now))
		}},
		{"extend by 30", func(s *sayer, now time.Time) bool { return s.extend(now, 30) }, func(r *Request, now time.Time) error {
			return errOf(r.Extend(as(ana), 30, "more", now))
		}},
		{"approve again", func(s *sayer, now time.Time) bool { return s.approve(now, 110) }, func(r *Request, now time.Time) error {
			return errOf(r.Decide(as(bo), Decision{Approve: true, Minutes: 110}, week, now))
		}},
		{"shorten to 20", func(s *sayer, now time.Time) bool { return s.shortenTo(now, 20) }, func(r *Request, now time.Time) error {
			return errOf(r.ShortenTo(as(bo), 20, now))
		}},
		{"revoke", func(s *sayer, now time.Time) bool { return s.stop(now) }, func(r *Request, now time.Time) error { return errOf(r.Revoke(as(bo), now)) }},
	}
	orders := 0
	var permute func(order []int, left []int)
	permute = func(order, left []int) {
		if len(left) == 0 {
			orders++
			r, said := approved(t, terms(first)), &sayer{max: 120, total: 360, minutes: 60, unused: t0.Add(week)}
			for step, i := range order {
				now := t0.Add(minutesOf(step * 9))
				want, err := acts[i].said(said, now), acts[i].do(r, now)
				if (err == nil) != want || !r.EndsAt.Equal(said.end) || r.EndedAt.IsZero() == said.over {
					t.Fatalf("in the order %v, %s: %v, until %s; the sentences say %t, until %s", order, acts[i].name, err, r.EndsAt, want, said.end)
				}
			}
			return
		}
		for k, i := range left {
			rest := append(append([]int{}, left[:k]...), left[k+1:]...)
			permute(append(append([]int{}, order...), i), rest)
		}
	}
	permute(nil, []int{0, 1, 2, 3, 4, 5, 6})
	if orders != 5040 {
		t.Errorf("%d orders, want 5,040", orders)
	}
}
