package pace_test

import (
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/pace"
)

// A bucket is AWS's throttle.
type bucket struct {
	rate, burst, tokens float64
	at                  time.Time
	shrinks             time.Time // from when on its rate is less; zero where it stays
	less                float64
}

func newBucket(rate, burst float64) *bucket {
	return &bucket{rate: rate, burst: burst, tokens: burst, at: time.Now()}
}

func (b *bucket) refuses(now time.Time) bool {
	if !b.shrinks.IsZero() && now.After(b.shrinks) {
		b.rate = b.less
	}
	b.tokens = min(b.burst, b.tokens+b.rate*now.Sub(b.at).Seconds())
	b.at = now
	if b.tokens < 1 {
		return true
	}
	b.tokens--
	return false
}

// An account is read by so many callers at once; the buckets are by action, "" that of all.
type account struct {
	*pace.Account
	buckets map[string]*bucket
	callers int
	slower  int // ms that each call takes longer
	refused int
}

// run reads one account with sixteen callers.
func run(t *testing.T, a *pace.Account, buckets map[string]*bucket, n int) (refused int, took time.Duration) {
	t.Helper()
	one := &account{Account: a, buckets: buckets, callers: 16}
	took = runAll(t, n, one)
	return one.refused, took
}

// runAll makes n good calls in each account, two of three of the action "often" and the others of "seldom", of which
// there are now more and now fewer. One goroutine makes them all, a step of a millisecond after the other, so that
// it goes the same way each time.
func runAll(t *testing.T, n int, accounts ...*account) time.Duration {
	t.Helper()
	start := time.Now()
	var readings []func(time.Time) bool
	for _, a := range accounts {
		readings = append(readings, a.reading(n))
	}
	for ; len(readings) > 0; time.Sleep(time.Millisecond) {
		now := time.Now()
		readings = slices.DeleteFunc(readings, func(step func(time.Time) bool) bool { return !step(now) })
	}
	return time.Since(start)
}

// reading returns what is to be done at each step, and reports whether there is more to do. Of the callers that wait for
// the same, the first asks in a step for all of them, until something is answered.
func (a *account) reading(n int) func(now time.Time) bool {
	a.Begin()
	a.refused = 0
	const (
		idle = iota
		waiting
		under
		late
	)
	type caller struct {
		state  int
		action string
		takes  time.Duration
		until  time.Time
		pass   pace.Pass
		good   bool
	}
	callers := make([]caller, a.callers)
	next, done := 0, 0
	var told []string // the actions whose callers are to wait in this step
	return func(now time.Time) bool {
		told = told[:0]
		for i := range callers {
			c := &callers[i]
			if c.state == late && !now.Before(c.until) {
				c.state = waiting
			}
			if c.state == under && !now.Before(c.until) {
				told = told[:0]
				if c.good {
					a.Succeeded(c.pass)
					c.state = idle
					done++
				} else {
					a.Throttled(c.pass)
					c.state, c.until = late, now.Add(100*time.Millisecond)
					a.refused++
				}
			}
			if c.state == idle && next < n {
				c.state, c.action, c.takes = waiting, "often", time.Duration(20+7*(next%8)+a.slower)*time.Millisecond
				if every := 6 - 4*(next/150%2); (next+a.slower)%every == 1 {
					c.action = "seldom"
				}
				next++
			}
			if c.state == waiting && !slices.Contains(told, c.action) {
				told = append(told, c.action)
				if !a.Wants(c.action) {
					continue
				}
				if pass, ok := a.Take(c.action); ok {
					told = told[:len(told)-1]
					c.state, c.pass, c.until, c.good = under, pass, now.Add(c.takes), true
					for _, name := range []string{c.action, ""} {
						if b := a.buckets[name]; c.good && b != nil {
							c.good = !b.refuses(now)
						}
					}
				}
			}
		}
		return done < n
	}
}

// What an account bears is found out in its first reading, with few calls refused; in the second none is.
func TestNothingIsRefusedOnceSettled(t *testing.T) {
	for _, tt := range []struct {
		name  string
		which string
		rate  float64
		burst float64
		calls int
		of    float64 // the part of the calls that the bucket counts
	}{
		{"shared, 20 a second", "", 20, 40, 1500, 1},
		{"shared, 100 a second", "", 100, 100, 5000, 1},
		{"shared, 5 a second", "", 5, 10, 500, 1},
		{"shared, 50 a second, few calls", "", 50, 50, 400, 1},
		{"of one action, 15 a second", "often", 15, 15, 1500, 2. / 3},
		{"of the other, 10 a second", "seldom", 10, 10, 1500, 1. / 3},
		{"none", "", 1e6, 1e6, 1500, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := new(pace.Fleet).New()
				buckets := map[string]*bucket{tt.which: newBucket(tt.rate, tt.burst)}
				floor := time.Duration(max(0, (float64(tt.calls)*tt.of-tt.burst)/tt.rate)*float64(time.Second)) +
					time.Duration(float64(tt.calls)*44.5/16)*time.Millisecond*time.Duration(1-min(1, int(tt.of+0.9)))
				refused, took := run(t, a, buckets, tt.calls)
				again, second := run(t, a, buckets, tt.calls)
				if other := map[string]string{"often": "seldom", "seldom": "often"}[tt.which]; other != "" {
					if rates := a.Rates(); rates[other] < 1.2*rates[tt.which] {
						t.Errorf("%v calls a second, want %q not held back by the bucket of %q", rates, other, tt.which)
					}
				}
				t.Logf("%v of %v, %d refused; again %v, %d refused; %v", took, floor, refused, second, again, a.Rates())
				if refused > 30 || float64(took) > 1.1*float64(floor) {
					t.Errorf("%v with %d refused, want at most 1.1 of %v, and thirty", took, refused, floor)
				}
				if again > 0 || float64(second) > 1.2*float64(floor) {
					t.Errorf("the second time %v with %d refused, want at most 1.2 of %v, and none", second, again, floor)
				}
			})
		})
	}
}

// Which bucket ran dry is never said: what tells is who is refused, and whose rate comes out the same again.
func TestWhichBucketRanDry(t *testing.T) {
	unknown := math.NaN()
	for _, tt := range []struct {
		name string
		c    pace.Clues
		own  bool
	}{
		{"refused once", pace.Clues{Busiest: true, Alike: 0.6, Whole: unknown, Own: unknown}, false},
		{"refused alone, too often for chance", pace.Clues{Busiest: true, Alike: 0.04, Whole: unknown, Own: unknown}, true},
		{"so, and two had been refused together before", pace.Clues{Busiest: true, Certain: true, Alike: 0.04, Whole: unknown, Own: unknown}, false},
		{"so, and far too often for chance", pace.Clues{Busiest: true, Certain: true, Alike: 0.0009, Whole: unknown, Own: unknown}, true},
		{"another refused just before", pace.Clues{Alone: true, Mixed: true, Busiest: true, Alike: 0.0009, Whole: unknown, Own: unknown}, false},
		{"others make more calls", pace.Clues{Alone: true, Alike: 0.04, Whole: unknown, Own: unknown}, false},
		{"others make more calls, and far too often for chance", pace.Clues{Alike: 0.0009, Whole: unknown, Own: unknown}, true},
		{"the rate of all is the same again", pace.Clues{Alone: true, Busiest: true, Alike: 0.0009, Whole: 0.5, Own: 3}, false},
		{"both are", pace.Clues{Alone: true, Busiest: true, Alike: 0.0009, Whole: 0.5, Own: 0.5}, true},
		{"neither is", pace.Clues{Alone: true, Busiest: true, Alike: 0.0009, Whole: 3, Own: 3}, true},
		{"its own rate is the same again", pace.Clues{Busiest: true, Alike: 0.6, Whole: 3, Own: 0.5}, true},
		{"so, whatever was thought and whoever calls more", pace.Clues{Certain: true, Alike: 0.6, Whole: 3, Own: 0.5}, true},
		{"so, and another was refused just before", pace.Clues{Mixed: true, Busiest: true, Alike: 0.6, Whole: 3, Own: 0.5}, false},
		{"both are, and nothing else is known", pace.Clues{Busiest: true, Alike: 0.6, Whole: 0.5, Own: 0.5}, false},
		{"its own rate is rather the same, after more of the others was tried", pace.Clues{Busiest: true, Certain: true, Alike: 0.6, Whole: 1.5, Own: 1.1, Tried: true}, true},
		{"so, and more was not tried", pace.Clues{Busiest: true, Alike: 0.6, Whole: 1.5, Own: 1.1}, false},
		{"both are, after more was tried", pace.Clues{Busiest: true, Alike: 0.6, Whole: 0.2, Own: 0.1, Tried: true}, false},
		{"the rate of all is rather the same, after more was tried", pace.Clues{Busiest: true, Alike: 0.6, Whole: 1.1, Own: 1.5, Tried: true}, false},
	} {
		if got := tt.c.Mean(); got != tt.own {
			t.Errorf("%s: its own bucket is %v, want %v", tt.name, got, tt.own)
		}
	}
}

// What a short reading left open stays open: nothing is refused in the next one for the sake of finding out.
func TestShortReadingsFindOutNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := new(pace.Fleet).New()
		buckets := map[string]*bucket{"": newBucket(20, 30)}
		first, _ := run(t, a, buckets, 80)
		if again, _ := run(t, a, buckets, 80); first == 0 || again > 0 {
			t.Errorf("%d of 80 calls were refused, and of as many after them %d, want some and then none", first, again)
		}
	})
}

// What is refused finds something in the bucket when it is tried again: all actions pause for a moment.
func TestAllPauseAfterARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := new(pace.Fleet).New()
		a.Begin()
		var last pace.Pass
		for range 5 {
			c, ok := a.Take("often")
			if !ok {
				t.Fatal("the first calls have to wait")
			}
			last = c
		}
		time.Sleep(40 * time.Millisecond)
		a.Throttled(last)
		for _, action := range []string{"often", "seldom"} {
			if _, ok := a.Take(action); ok {
				t.Errorf("%s goes on as if nothing was refused", action)
			}
		}
		start := time.Now()
		if err := a.Ready(t.Context(), "often"); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d < 150*time.Millisecond || d > time.Second {
			t.Errorf("the next call may go after %s, want a moment", d)
		}
	})
}

// Whether more is borne is tried after an hour, then after two, and a rate that has become another is found.
func TestTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := new(pace.Fleet).New()
		b := newBucket(20, 40)
		buckets := map[string]*bucket{"": b}
		run(t, a, buckets, 500)
		var tried []int
		for h := range 8 {
			time.Sleep(time.Hour - time.Minute)
			if refused, _ := run(t, a, buckets, 1000); refused > 0 {
				tried = append(tried, h)
			}
		}
		if len(tried) < 1 || len(tried) > 4 {
			t.Errorf("in eight hours something was refused in those of %v, want one to four tries", tried)
		}
		b.rate, b.burst = 60, 60
		for range 26 {
			time.Sleep(time.Hour)
			run(t, a, buckets, 1000)
		}
		if _, took := run(t, a, buckets, 1200); took > 30*time.Second {
			t.Errorf("a day after the account bears 60 a second, 1200 calls take %v, want at most half a minute", took)
		}
		b.rate, b.burst = 10, 20
		run(t, a, buckets, 500)
		if refused, took := run(t, a, buckets, 500); refused > 0 || took > 70*time.Second {
			t.Errorf("after it bears 10 a second, 500 calls take %v with %d refused, want none refused", took, refused)
		}
	})
}
