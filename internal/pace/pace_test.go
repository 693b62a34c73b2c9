package pace_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/pace"
)

// A bucket is AWS's throttle.
type bucket struct {
	rate, burst, tokens float64
	at                  time.Time
}

func newBucket(rate, burst float64) *bucket { return &bucket{rate, burst, burst, time.Now()} }

func (b *bucket) refuses(now time.Time) bool {
	b.tokens = min(b.burst, b.tokens+b.rate*now.Sub(b.at).Seconds())
	b.at = now
	if b.tokens < 1 {
		return true
	}
	b.tokens--
	return false
}

// run makes n good calls, sixteen at once, two of three of the action "often" and the others of "seldom". The
// buckets are by action, "" that of all.
func run(t *testing.T, a *pace.Account, buckets map[string]*bucket, n int) (refused int, took time.Duration) {
	t.Helper()
	a.Begin()
	start := time.Now()
	var mu sync.Mutex
	next := 0
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				if i >= n {
					return
				}
				action := "often"
				if i%3 == 2 {
					action = "seldom"
				}
				for good := false; !good; {
					if err := a.Ready(t.Context(), action); err != nil {
						t.Error(err)
						return
					}
					c, ok := a.Take(action)
					if !ok {
						continue
					}
					time.Sleep(time.Duration(20+7*(i%8)) * time.Millisecond)
					mu.Lock()
					good = true
					for _, name := range []string{action, ""} {
						if b := buckets[name]; b != nil && b.refuses(time.Now()) {
							good = false
							break
						}
					}
					if !good {
						refused++
					}
					mu.Unlock()
					if good {
						a.Succeeded(c)
						continue
					}
					a.Throttled(c)
					time.Sleep(100 * time.Millisecond)
				}
			}
		})
	}
	all.Wait()
	return refused, time.Since(start)
}

// What an account bears is found out in its first reading, with few calls refused; in the second none is. In which
// order calls that are due at the same instant go is chance, so times differ by a tenth or two, and the bounds leave
// room for more.
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
				a := pace.New()
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
				if refused > 40 || float64(took) > 1.4*float64(floor) {
					t.Errorf("%v with %d refused, want at most 1.4 of %v, and forty", took, refused, floor)
				}
				if again > 0 || float64(second) > 1.6*float64(floor) {
					t.Errorf("the second time %v with %d refused, want at most 1.6 of %v, and none", second, again, floor)
				}
			})
		})
	}
}

// What a short reading left open stays open: nothing is refused in the next one for the sake of finding out.
func TestShortReadingsFindOutNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := pace.New()
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
		a := pace.New()
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
		a := pace.New()
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
