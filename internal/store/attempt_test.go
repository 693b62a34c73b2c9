package store

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/lobby"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// attempts returns the states of all that are kept, in their order.
func (d place) attempts(t *testing.T) (states []string) {
	t.Helper()
	if !d.isSQLite() {
		return look(t, d, func(v *View) ([]string, error) {
			return all(v, func(row scanner) (state string, err error) { return state, row.Scan(&state) }, `select state from login_attempt order by created_at, state`)
		})
	}
	all, most := d.lobby.Leave()
	for _, a := range all {
		states = append(states, a.State)
		if err := d.lobby.Keep(a, most); err != nil {
			t.Fatal(err)
		}
	}
	return states
}

// S-36, R-44: an attempt is taken once, in its time, by the browser that it is of.
func TestTakeAttempt(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		stores := d.replicas(t)
		a := lobby.Attempt{State: "state", Browser: "browser", Sealed: "sealed", Network: "2001:db8:1:2::/64", Site: "2001:db8:1::/48", CreatedAt: noon, ExpiresAt: noon.Add(10 * time.Minute)}
		keep := func() {
			t.Helper()
			if err := d.KeepAttempt(t.Context(), a, lobby.Bound{Here: 10, All: 10}); err != nil {
				t.Fatal(err)
			}
		}
		keep()
		for _, wrong := range [][2]string{{"state", "another"}, {"another", "browser"}, {"", ""}, {"state", ""}, {"STATE", "browser"}, {"state", "browser\x00"}, {"%", "browser"}} {
			_, err := d.TakeAttempt(t.Context(), noon, wrong[0], wrong[1])
			refused(t, fmt.Sprintf("the attempt %q of %q", wrong[0], wrong[1]), err, serval.NotFound)
		}
		var taken atomic.Int32
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				got, err := stores[i%len(stores)].TakeAttempt(t.Context(), noon, "state", "browser")
				if err != nil {
					if !serval.IsRefusal(err, serval.NotFound) {
						t.Errorf("a taker: %v", err)
					}
					return
				}
				taken.Add(1)
				if diff := cmp.Diff(a, got); diff != "" {
					t.Errorf("the attempt (-want +got):\n%s", diff)
				}
			})
		}
		wg.Wait()
		if taken.Load() != 1 {
			t.Errorf("%d of 20 takers got the attempt, want 1", taken.Load())
		}

		keep()
		if err := d.KeepAttempt(t.Context(), a, lobby.Bound{Here: 10, All: 10}); err == nil {
			t.Error("a state was kept twice")
		}
		_, err := d.TakeAttempt(t.Context(), a.ExpiresAt, "state", "browser")
		refused(t, "an attempt at its expiry", err, serval.NotFound)
		if _, err := d.TakeAttempt(t.Context(), a.ExpiresAt.Add(-time.Microsecond), "state", "browser"); err != nil {
			t.Errorf("just before the expiry: %v", err)
		}

		keep()
		a.State, a.CreatedAt, a.ExpiresAt = "later", a.ExpiresAt, a.ExpiresAt.Add(10*time.Minute)
		keep()
		if got := d.attempts(t); !slices.Equal(got, []string{"later"}) {
			t.Errorf("after one has expired there are %s, want the later one", got)
		}
	})
}

// under returns an attempt, whose state says the network and when it begins. The
// networks x, y and z are of one site.
func under(t *testing.T, state string) lobby.Attempt {
	t.Helper()
	n, err := strconv.Atoi(state[1:])
	if err != nil {
		t.Fatal(err)
	}
	now := noon.Add(time.Duration(n) * time.Microsecond)
	site := state[:1]
	if site >= "x" {
		site = "x"
	}
	return lobby.Attempt{State: state, Browser: "browser", Sealed: "sealed", Network: state[:1], Site: site, CreatedAt: now, ExpiresAt: now.Add(time.Minute)}
}

// the oldest goes for one too many, of the network that is crowded.
func TestAttemptsAreBounded(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		most := lobby.Bound{Here: 3, All: 6}
		for _, step := range []struct {
			begin, want string
			together    bool
		}{
			{begin: "a1 a2 a3 a4 a5", want: "a3 a4 a5"},
			{begin: "b6 b7 c8", want: "a3 a4 a5 b6 b7 c8"},
			{begin: "c9", want: "a4 a5 b6 b7 c8 c9"},                               // the house is full, and a has the most
			{begin: "d10", want: "a5 b6 b7 c8 c9 d10"},                             // all have as many, and the oldest goes
			{begin: "d11 d12", want: "a5 b7 c8 c9 d11 d12"},                        // first b's, then d's own
			{begin: "d13", want: "a5 b7 c8 c9 d12 d13"},                            // again
			{begin: "a14 b15 c16", want: "c9 d12 d13 a14 b15 c16", together: true}, // c has the most, then all
			{begin: "e17 e18 e19 e20", want: "d13 a14 b15 c16 e19 e20", together: true},
		} {
			var together []lobby.Attempt
			for _, state := range strings.Fields(step.begin) {
				together = append(together, under(t, state))
			}
			switch {
			case !step.together:
				for _, a := range together {
					if err := d.KeepAttempt(t.Context(), a, most); err != nil {
						t.Fatal(err)
					}
				}
			case d.isSQLite():
				continue // memory takes them one by one
			default:
				if err := d.keepAttempts(t.Context(), together, most); err != nil {
					t.Fatal(err)
				}
			}
			got := d.attempts(t)
			slices.SortFunc(got, func(a, b string) int {
				return under(t, a).CreatedAt.Compare(under(t, b).CreatedAt)
			})
			if got := strings.Join(got, " "); got != step.want {
				t.Errorf("after %s there are %s, want %s", step.begin, got, step.want)
			}
		}
	})
}

// whoever has many networks of a site pushes out their own, and not those of
// a crowded network.
func TestSitesAreBounded(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		for _, state := range strings.Fields("a1 a2 x3 y4 z5 b6 c7") {
			if err := d.KeepAttempt(t.Context(), under(t, state), lobby.Bound{Here: 3, All: 6}); err != nil {
				t.Fatal(err)
			}
		}
		got := d.attempts(t)
		slices.Sort(got)
		if got := strings.Join(got, " "); got != "a1 a2 b6 c7 y4 z5" {
			t.Errorf("there are %s, want all but x3, the oldest of the site that has three", got)
		}
	})
}

// Who is on the way when a process stops comes back to the next one.
func TestAttemptsOutliveTheProcess(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		a, late := under(t, "a1"), under(t, "b2")
		late.CreatedAt, late.ExpiresAt = noon.Add(30*time.Second), noon.Add(90*time.Second)
		for _, a := range []lobby.Attempt{a, late} {
			if err := d.KeepAttempt(t.Context(), a, lobby.Bound{Here: 3, All: 6}); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		next := opened(t, d.url)
		_, err := next.TakeAttempt(t.Context(), a.ExpiresAt, a.State, a.Browser)
		refused(t, "one that has expired meanwhile", err, serval.NotFound)
		got, err := next.TakeAttempt(t.Context(), late.ExpiresAt.Add(-time.Microsecond), late.State, late.Browser)
		if diff := cmp.Diff(late, got); err != nil || diff != "" {
			t.Errorf("the other: %v (-want +got):\n%s", err, diff)
		}
		_, err = next.TakeAttempt(t.Context(), late.CreatedAt, late.State, late.Browser)
		refused(t, "it a second time", err, serval.NotFound)
	})
}
