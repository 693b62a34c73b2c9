package awsiam_test

import (
	"encoding/json"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/awsiam"
	"github.com/serval-bridge/serval-bridge/internal/awstest"
)

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// facts 11.4: AssumeRole + P + N + 2T + I + 2D, and not one call more.
func TestCallsAreExactlyTheFormula(t *testing.T) {
	e := newEstate(t)
	owner, account := e.connect(spoke)
	want := one1000.fill(e, owner)
	if want != 1594 {
		t.Fatalf("the estate needs %d calls, want the 1594 of the measurements", want)
	}
	var connections atomic.Int64
	e.config.Dial = dials(&connections, (&net.Dialer{}).DialContext)
	inv := e.inventory(t, account)
	if !inv.Complete || len(inv.Roles) != 100 || len(inv.Problems) != 0 {
		t.Errorf("complete %v, %d roles, problems %v; want all 100 without a problem", inv.Complete, len(inv.Roles), inv.Problems)
	}
	if got := e.CountCalls(""); got != want+1 || e.CountCalls(details) != 1 {
		t.Errorf("%d calls, want %d and the one that was refused", got, want)
	}
	if most := e.MaxInFlight(spoke); most > 16 {
		t.Errorf("%d calls in flight in one account, want at most 16", most)
	}
	if n := connections.Load(); n > 64 {
		t.Errorf("%d connections for %d calls, want them used again", n, want)
	}
}

// Accounts that are made alike do not all begin with the same roles.
func TestAccountsStartApart(t *testing.T) {
	starts := make(map[int]bool)
	for i := range 50 {
		id := fmt.Sprintf("4444%08d", i)
		start := awsiam.StartOf(id, 200)
		if start < 0 || start >= 200 || start != awsiam.StartOf(id, 200) {
			t.Errorf("account %s starts at role %d of 200, and then at %d", id, start, awsiam.StartOf(id, 200))
		}
		starts[start] = true
	}
	if len(starts) < 30 {
		t.Errorf("fifty accounts start at %d places of 200, want most apart", len(starts))
	}
	if start := awsiam.StartOf(spoke, 0); start != 0 {
		t.Errorf("an empty page starts at role %d", start)
	}
}

// The pace finds what the account bears. Who of many that are due at the same instant goes first is chance here, and
// decides what is measured: so the bounds are far from what is ever seen, and only say that the whole of it works. What
// the pace does with given answers is held by the tests of package pace, and how fast it is by make bench-ingest.
func TestPace(t *testing.T) {
	const latency = 44700 * time.Microsecond // the mean of the measurements
	for _, tt := range []struct {
		name     string
		throttle float64
		burst    int
		action   string
		floor    time.Duration
	}{
		{"unthrottled", 0, 0, "", 1594 * latency / 16},
		{"100 a second", 100, 100, "", 14_940 * time.Millisecond},
		{"20 a second", 20, 40, "", 77_700 * time.Millisecond},
		{"GetRole at 15 a second", 15, 15, "GetRole", 65_700 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEstateInMemory(t, awstest.Options{})
				owner, account := e.connect(spoke)
				one1000.fill(e, owner)
				e.SetLatency(func() time.Duration { return latency })
				if tt.action != "" {
					e.ThrottleAction(tt.action, tt.throttle, tt.burst)
				} else {
					e.Throttle(tt.throttle, tt.burst)
				}
				start := time.Now()
				r := e.reader(t)
				inv, err := r.Inventory(t.Context(), account, nil, "", nil)
				if err != nil {
					t.Fatal(err)
				}
				wall := time.Since(start)
				refused := 0
				for _, c := range e.Calls() {
					if c.Throttled {
						refused++
					}
				}
				ratio := float64(wall) / float64(tt.floor)
				t.Logf("%v, %.3f of the floor; %d refused; %d in flight", wall, ratio, refused, e.MaxInFlight(spoke))
				if !inv.Complete || len(inv.Roles) != 100 || len(inv.Problems) != 0 {
					t.Errorf("complete %v, %d roles, problems %v; want all", inv.Complete, len(inv.Roles), inv.Problems)
				}
				if ratio > 1.4 {
					t.Errorf("%v is %.2f of the floor %v, want at most 1.4", wall, ratio, tt.floor)
				}
				// By now the pace is known.
				e.ResetCalls()
				start = time.Now()
				if inv, err = r.Inventory(t.Context(), account, nil, "", nil); err != nil || !inv.Complete {
					t.Fatalf("complete %v: %v", inv.Complete, err)
				}
				again := 0
				for _, c := range e.Calls() {
					if c.Throttled {
						again++
					}
				}
				wall = time.Since(start)
				t.Logf("again %v, %.3f of the floor; %d refused", wall, float64(wall)/float64(tt.floor), again)
				if again > 1594/200 || float64(wall) > 1.5*float64(tt.floor) {
					t.Errorf("read again it took %v with %d calls refused, want at most 1.5 of the floor %v and one of two hundred", wall, again, tt.floor)
				}
				if refused > 1594/30 { // all answers are equally late here, so that all in flight are refused at once
					t.Errorf("%d calls refused, want at most one of thirty", refused)
				}
			})
		})
	}
}
