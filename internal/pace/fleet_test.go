package pace_test

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/pace"
)

// fleet returns so many accounts that are alike.
func fleet(f *pace.Fleet, n int, which string, rate, burst float64) (accounts []*account) {
	for i := range n {
		accounts = append(accounts, &account{Account: f.New(), callers: 2, slower: 14 + i%12, buckets: map[string]*bucket{which: newBucket(rate, burst)}})
	}
	return accounts
}

// Accounts that are alike find out together what they bear: most of them are refused once, where each alone is twice
// or more, and none in the second reading.
func TestAFleetFindsOutTogether(t *testing.T) {
	for _, tt := range []struct {
		name    string
		which   string
		rate    float64
		burst   float64
		callers int // more, in each seventh account
		saves   float64
	}{
		{"shared", "", 20, 40, 0, 0.3},
		{"of one action", "often", 15, 15, 0, 0.3},
		{"shared, and the bursts end at once", "", 20, 40, 1, 0},
		{"of one action, and the bursts end at once", "often", 15, 15, 1, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const n = 20
				all, each := make([]*account, n), make([]*account, n)
				var together pace.Fleet
				for i := range n {
					var own pace.Fleet
					all[i] = fleet(&together, i+1, tt.which, tt.rate, tt.burst)[i]
					each[i] = fleet(&own, i+1, tt.which, tt.rate, tt.burst)[i]
					all[i].callers += i % 7 * tt.callers
					each[i].callers = all[i].callers
				}
				refused := func(all []*account) (sum int) {
					for _, a := range all {
						sum += a.refused
					}
					return sum
				}
				took := runAll(t, 400, all...)
				of := refused(all)
				lowest, highest := all[0].Rates()["often"], 0.0
				for _, a := range all {
					lowest, highest = min(lowest, a.Rates()["often"]), max(highest, a.Rates()["often"])
				}
				again := runAll(t, 400, all...)
				if n := refused(all); n > 0 {
					t.Errorf("%d calls refused the second time", n)
				}
				tookAlone := runAll(t, 400, each...)
				ofAlone := refused(each)
				if lowest < 0.96*tt.rate || highest > 0.99*tt.rate {
					t.Errorf("%.2f to %.2f calls a second, want %.2f to %.2f", lowest, highest, 0.96*tt.rate, 0.99*tt.rate)
				}
				t.Logf("%v with %d refused, then %v; each for itself %v with %d; %.2f to %.2f a second", took, of, again, tookAlone, ofAlone, lowest, highest)
				if most := (1 - tt.saves) * float64(ofAlone); float64(of) > most {
					t.Errorf("%d refused, and %d of each for itself: want at most %.0f", of, ofAlone, most)
				}
				if took > tookAlone*51/50 {
					t.Errorf("it took %v, and each for itself %v", took, tookAlone)
				}
			})
		})
	}
}

// What others bear is no matter to an account that bears more or less, and to one that knows what it bears.
func TestAFleetHoldsNobodyToIt(t *testing.T) {
	for _, tt := range []struct {
		name            string
		rate, burst     float64
		lowest, highest float64
		refused         int
		knew            bool
	}{
		{"bears more", 100, 100, 60, 200, 25, false},
		{"bears more, from as large a bucket", 100, 40, 60, 100, 25, false},
		{"bears twice as much, from as large a bucket", 40, 40, 30, 40, 25, false},
		{"bears less", 8, 20, 6, 8, 25, false},
		{"bears less, and that is found out when it has taken over their rate", 14, 45, 10, 14, 25, false},
		{"knew before", 100, 100, 90, 100, 0, true},
		{"nothing is refused", 1e6, 1e6, 100, 1e6, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var f pace.Fleet
				one := &account{Account: f.New(), callers: 16, buckets: map[string]*bucket{"": newBucket(tt.rate, tt.burst)}}
				if tt.knew {
					runAll(t, 3000, one)
				}
				others := fleet(&f, 10, "", 20, 40)
				runAll(t, 300, others...)
				runAll(t, 900, one)
				if one.refused > tt.refused {
					t.Errorf("%d calls refused, want at most %d", one.refused, tt.refused)
				}
				if rate := one.Rates()["often"]; rate < tt.lowest || rate > tt.highest {
					t.Errorf("%.1f calls a second, want %v to %v", rate, tt.lowest, tt.highest)
				}
				if runAll(t, 900, one); one.refused > 0 {
					t.Errorf("%d calls refused in the next reading", one.refused)
				}
				if runAll(t, 300, others...); others[7].refused > 0 {
					t.Errorf("%d calls of another account refused after it", others[7].refused)
				}
			})
		})
	}
}

// An account that took over the rate of the others, and bears less, measures for itself as soon as it is refused, and
// listens to nobody any more.
func TestAContradictedAccountMeasuresForItself(t *testing.T) {
	for _, tt := range []struct {
		name        string
		which       string
		rate, burst float64 // of the others
		bears, full float64 // the same, of this one
		less        float64 // it bears after a while
		calls       int
	}{
		{"shared", "", 20, 40, 20, 40, 10, 2000},
		{"of one action", "often", 15, 15, 15, 15, 7, 2000},
		{"shared from the start, and the reading ends before it is measured well", "", 20, 40, 14, 57, 14, 125},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var f pace.Fleet
				runAll(t, 300, fleet(&f, 30, tt.which, tt.rate, tt.burst)...)
				b := newBucket(tt.bears, tt.full)
				b.shrinks, b.less = time.Now().Add(80*time.Second), tt.less
				one := &account{Account: f.New(), callers: 2, slower: 14, buckets: map[string]*bucket{tt.which: b}}
				runAll(t, tt.calls, one)
				if one.refused > 12 {
					t.Errorf("%d calls refused, want at most 12", one.refused)
				}
				time.Sleep(10 * time.Second)
				runAll(t, 600, one)
				if one.refused > 0 {
					t.Errorf("%d calls refused in the next reading", one.refused)
				}
			})
		})
	}
}

// What others find out after an account was read is no matter when it is read again.
func TestAFleetIsHeardInTheFirstReadingAlone(t *testing.T) {
	rates := func(others int) (rate float64) {
		synctest.Test(t, func(t *testing.T) {
			var f pace.Fleet
			one := &account{Account: f.New(), callers: 3, slower: 14, buckets: map[string]*bucket{"": newBucket(20, 40)}}
			runAll(t, 120, one)
			runAll(t, 300, fleet(&f, others, "", 20, 40)...)
			runAll(t, 400, one)
			rate = one.Rates()["often"]
		})
		return rate
	}
	if alone, beside := rates(1), rates(30); alone != beside {
		t.Errorf("%.2f calls a second, and %.2f beside thirty others", alone, beside)
	}
}

// Whether the bucket is the action's own is said where so many of its calls would hardly be refused by chance.
func TestAFleetKnowsWhoseTheBucketIs(t *testing.T) {
	for _, tt := range []struct {
		name  string
		share float64 // of the calls are "often"
		n     int     // refusals,
		every int     // of which one in so many is not
		alone bool
		ok    bool
	}{
		{"nothing else is refused", 0.67, 30, 100, true, true},
		{"next to nothing else is", 0.67, 60, 15, true, true},
		{"nothing else is, and little else is called", 0.95, 60, 100, true, false},
		{"as much else is as is called", 0.85, 64, 8, true, false},
		{"much else is", 0.67, 60, 3, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var f pace.Fleet
			point := func(i int) (after, all float64) {
				after = 1 + float64(i%50)/10
				return after, 40 + 20*after
			}
			for i := range tt.n {
				after, all := point(i)
				if i%tt.every == 1 {
					f.Tell("seldom", after, (1-tt.share)*all, all)
				} else {
					f.Tell("often", after, tt.share*all, all)
				}
			}
			after, all := point(25)
			alone, rate, ok := f.Of("often", after, tt.share*all, all)
			if want := map[bool]float64{true: tt.share * 20, false: 20}[tt.alone]; ok != tt.ok || ok && (alone != tt.alone || math.Abs(rate-want) > 0.1) {
				t.Errorf("its own %t, %.1f a second, said %t; want %t, %.1f, %t", alone, rate, ok, tt.alone, want, tt.ok)
			}
		})
	}
}

// However many accounts are refused, as much is kept of it.
func TestAFleetRemembersLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f pace.Fleet
		for range 100 {
			a := f.New()
			a.Begin()
			for range 10 {
				if _, ok := a.Take("often"); !ok {
					t.Fatal("the first calls have to wait")
				}
				time.Sleep(time.Millisecond)
			}
			c, _ := a.Take("often")
			a.Throttled(c)
		}
		if n := f.Told(); n != pace.MostTold {
			t.Errorf("%d refusals kept of a hundred, want %d", n, pace.MostTold)
		}
	})
}

// An account that was looked at before it is read, with a call or so, is in the fleet like
// the others: what its bucket took in in the pause ran over.
func TestAFleetWithCallsBefore(t *testing.T) {
	refused := func(before int, ago time.Duration) (n int) {
		synctest.Test(t, func(t *testing.T) {
			var f pace.Fleet
			all := fleet(&f, 20, "", 20, 40)
			for _, a := range all[:before] {
				runAll(t, 1, a)
				time.Sleep(ago / 20)
			}
			time.Sleep(ago)
			runAll(t, 400, all...)
			for _, a := range all {
				n += a.refused
			}
		})
		return n
	}
	want := refused(0, 0)
	for _, before := range []int{2, 10, 20} {
		for _, ago := range []time.Duration{time.Second, 10 * time.Second, 2 * time.Minute} {
			if got := refused(before, ago); got > want+2 {
				t.Errorf("%d of 20 made a call %s before: %d are refused, %d where none did", before, ago, got, want)
			}
		}
	}
}
