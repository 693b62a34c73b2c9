package awsiam_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// Whatever goes wrong on the way that can be tried again or read elsewhere, the inventory is the truth, to the
// byte: facts 11.5, by both ways. Only the roles that vanish are missing.
func TestStress(t *testing.T) {
	short := func(e *estate) { e.ShortPages(7) }
	failing := func(e *estate) {
		var mu sync.Mutex
		rnd, n := rand.New(rand.NewPCG(1, 2)), 0
		e.Inject(awstest.Fault{Status: 500, Code: "ServiceFailure", Message: "try later", Match: func(r *awstest.Request) bool {
			mu.Lock()
			defer mu.Unlock()
			n++
			return n%50 == 0 || rnd.IntN(50) == 0
		}})
	}
	vanishing := func(e *estate) {
		gone := 0
		var mu sync.Mutex
		e.Inject(awstest.Fault{Hook: func(*awstest.Request) {
			mu.Lock()
			defer mu.Unlock()
			if gone < 12 {
				e.Account(spoke).DeleteRole(fmt.Sprintf("role%05d", 25*gone+24))
				gone++
			}
		}, Match: func(r *awstest.Request) bool { return r.Action == "GetRole" || r.Action == details }})
	}
	expiring := func(e *estate) {
		started := make(map[string]time.Time)
		var mu sync.Mutex
		e.Inject(awstest.Fault{Status: 403, Code: "ExpiredToken", Message: "The security token included in the request is expired",
			Match: func(r *awstest.Request) bool {
				if r.Service != "iam" {
					return false
				}
				mu.Lock()
				defer mu.Unlock()
				if started[r.AccessKeyID].IsZero() {
					started[r.AccessKeyID] = time.Now()
				}
				return time.Since(started[r.AccessKeyID]) > 2*time.Second
			}})
	}
	throttled := func(e *estate) { e.Throttle(20, 40) }
	per := func(e *estate) {
		for action, n := range perAction {
			e.ThrottleAction(action, float64(n), n)
		}
		e.ThrottleAction(details, 1, 1)
	}
	type disturbance struct {
		name string
		f    []func(*estate)
	}
	for _, d := range []disturbance{
		{"short pages", []func(*estate){short}},
		{"roles vanish", []func(*estate){vanishing}},
		{"two in a hundred calls fail", []func(*estate){failing}},
		{"sessions end after two seconds", []func(*estate){expiring}},
		{"throttled at 20 a second", []func(*estate){throttled}},
		{"throttled per action", []func(*estate){per}},
		{"all of it", []func(*estate){short, vanishing, failing, expiring, throttled}},
	} {
		for _, way := range []string{serval.ByRoles, serval.ByAuthorizationDetails} {
			t.Run(d.name+"/"+way, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					e := newEstateInMemory(t, awstest.Options{})
					owner, a := e.connect(spoke)
					shape{roles: 300, tagged: 60, inline: 2, attached: 3, aws: 10, local: 7}.fill(e, owner)
					if way == serval.ByAuthorizationDetails {
						allowDetails(owner)
					}
					truth := e.inventory(t, a)
					e.SetLatency(latency)
					for _, f := range d.f {
						f(e)
					}
					inv := e.inventory(t, a)
					if !inv.Complete || inv.ReadBy != way || len(inv.Problems)+len(inv.Unreadable) != 0 {
						t.Fatalf("complete %v, by %s, unreadable %v, problems %v", inv.Complete, inv.ReadBy, inv.Unreadable, inv.Problems)
					}
					// A role that vanishes may have been read before it did; none other may be missing.
					if strings.Contains(d.name, "vanish") || d.name == "all of it" {
						there := make(map[string]bool)
						for _, r := range inv.Roles {
							there[r.ARN] = true
						}
						var left []serval.Role
						for _, r := range truth.Roles {
							if there[r.ARN] || owner.RoleID(r.Name) != "" {
								left = append(left, r)
							}
						}
						if len(left) == len(truth.Roles) {
							t.Error("no role vanished")
						}
						truth.Roles = left
					}
					if diff := cmp.Diff(withoutWay(t, truth), withoutWay(t, inv)); diff != "" {
						t.Errorf("(-truth +read):\n%s", diff)
					}
				})
			})
		}
	}
}
