package awsiam_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/serval-bridge/serval-bridge/internal/awsiam"
	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A memory is what the upstream remembers of an account.
type memory struct {
	t      testing.TB
	reader *awsiam.Reader
	a      serval.Account
	known  map[string]serval.Role // by id
	looked time.Time
}

// remember reads the account in full.
func remember(t testing.TB, e *estate, a serval.Account) *memory {
	m := &memory{t: t, reader: e.reader(t), a: a}
	m.full()
	return m
}

func (m *memory) full() {
	m.t.Helper()
	inv, err := m.reader.Inventory(m.t.Context(), m.a, nil, "", nil)
	if err != nil || !inv.Complete {
		m.t.Fatalf("reading in full: %v, problems %v", err, inv.Problems)
	}
	m.known, m.looked = make(map[string]serval.Role), inv.StartedAt
	for _, r := range inv.Roles {
		m.known[r.RoleID] = r
	}
}

func (m *memory) list() (list []serval.KnownRole) {
	for _, r := range m.known {
		list = append(list, serval.KnownRole{RoleID: r.RoleID, ARN: r.ARN, Digest: r.Digest(), Shown: r.Shown()})
	}
	return list
}

// look makes a delta and takes it in.
func (m *memory) look(budget int) serval.Delta {
	m.t.Helper()
	d, err := m.reader.Delta(m.t.Context(), m.a, m.list(), m.looked, budget)
	if err != nil {
		m.t.Fatal(err)
	}
	if d.Schema != serval.DeltaSchema || d.AccountID != m.a.ID || d.AccountName != m.a.Name || d.StartedAt.IsZero() || d.FinishedAt.Before(d.StartedAt) || d.Removed == nil {
		m.t.Errorf("the delta is not whole: %+v", d)
	}
	m.looked = d.StartedAt
	for _, r := range d.Removed {
		if k, ok := m.known[r.RoleID]; !ok || k.ARN != r.ARN {
			m.t.Errorf("removed %+v, which was not known", r)
		}
		delete(m.known, r.RoleID)
	}
	for _, r := range d.Roles {
		m.known[r.RoleID] = r
	}
	return d
}

// says describes a delta: its roles, and what it removes.
func says(d serval.Delta) string {
	var parts []string
	for _, r := range d.Roles {
		parts = append(parts, "+"+r.Name)
	}
	for _, r := range d.Removed {
		parts = append(parts, "-"+r.ARN[strings.LastIndex(r.ARN, "/")+1:]+" "+r.Reason)
	}
	for _, u := range d.Unreadable {
		parts = append(parts, "?"+u.ARN[strings.LastIndex(u.ARN, "/")+1:]+" "+u.Code)
	}
	slices.Sort(parts)
	if !d.Complete {
		parts = append(parts, "incomplete")
	}
	return strings.Join(parts, ", ")
}

const plenty = 300

// calls counts them when the last is written down, which is after its answer.
func calls(e *estate, action string) int {
	synctest.Wait()
	return e.CountCalls(action)
}

// Whatever changes in an account is seen by the next delta where the budget
// suffices, and what it says is what a full reading says.
func TestDelta(t *testing.T) {
	tag := map[string]string{"serval": ""}
	for _, tt := range []struct {
		name    string
		change  func(e *estate, owner *awstest.Account)
		want    string // by the seven actions
		details string // with the details, where that is another
	}{
		{"nothing", func(*estate, *awstest.Account) {}, "", ""},
		{"a new role with the tag", func(_ *estate, o *awstest.Account) {
			o.PutRole(awstest.Role{Name: "new", Tags: tag, Inline: map[string]string{"a": allow("s3:*")}})
		}, "+new", ""},
		{"a new role without", func(_ *estate, o *awstest.Account) { o.PutRole(awstest.Role{Name: "new"}) }, "", ""},
		{"an old one tagged", func(_ *estate, o *awstest.Account) { o.TagRole("plain", "serval", "") }, "+plain", ""},
		{"untagged", func(_ *estate, o *awstest.Account) { o.UntagRole("role1", "serval") }, "-role1 untagged", ""},
		{"retagged in another case", func(_ *estate, o *awstest.Account) { o.UntagRole("role1", "serval"); o.TagRole("role1", "Serval", "") }, "-role1 untagged", ""},
		{"all of six untagged", func(_ *estate, o *awstest.Account) {
			for i := range 6 {
				o.UntagRole(fmt.Sprint("role", i), "serval")
			}
		}, "-role0 untagged, -role1 untagged, -role2 untagged, -role3 untagged, -role4 untagged, -role5 untagged", ""},
		{"deleted", func(_ *estate, o *awstest.Account) { o.DeleteRole("role2") }, "-role2 deleted", ""},
		{"half of six deleted", func(_ *estate, o *awstest.Account) {
			o.DeleteRole("role2")
			o.DeleteRole("role3")
			o.DeleteRole("role4")
		},
			"-role2 deleted, -role3 deleted, -role4 deleted", ""},
		// S-3.
		{"created again", func(_ *estate, o *awstest.Account) {
			o.DeleteRole("role2")
			o.PutRole(awstest.Role{Name: "role2", Tags: tag})
		}, "+role2, -role2 deleted", ""},
		{"created again, all of them", func(_ *estate, o *awstest.Account) {
			for i := range 6 {
				o.DeleteRole(fmt.Sprint("role", i))
				o.PutRole(awstest.Role{Name: fmt.Sprint("role", i), Tags: tag})
			}
		}, "+role0, +role1, +role2, +role3, +role4, +role5, -role0 deleted, -role1 deleted, -role2 deleted, -role3 deleted, -role4 deleted, -role5 deleted", ""},
		{"created again without the tag", func(_ *estate, o *awstest.Account) { o.DeleteRole("role2"); o.PutRole(awstest.Role{Name: "role2"}) }, "-role2 deleted", ""},
		{"created again elsewhere", func(_ *estate, o *awstest.Account) {
			o.DeleteRole("role2")
			o.PutRole(awstest.Role{Name: "role2", Path: "/team/", Tags: tag})
		}, "+role2, -role2 deleted", ""},
		{"another tag", func(_ *estate, o *awstest.Account) { o.TagRole("role3", "team", "x") }, "+role3", ""},
		{"another trust policy", func(_ *estate, o *awstest.Account) { o.SetTrust("role3", trust(hub, "x", "sts:AssumeRole")) }, "+role3", ""},
		{"another maximum", func(_ *estate, o *awstest.Account) { o.SetMaxSession("role3", 7200) }, "+role3", ""},
		// Policies do not show in GetRole: the next full reading has them.
		{"another policy", func(_ *estate, o *awstest.Account) { o.SetInline("role3", "one", allow("s3:Put*")) }, "", "+role3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
				owner.PutRole(awstest.Role{Name: "plain"})
				m := remember(t, e, a)
				time.Sleep(time.Hour) // the roles are not new any more
				m.look(plenty)
				tt.change(e, owner)
				d := m.look(plenty)
				want := tt.want
				if d.ReadBy == serval.ByAuthorizationDetails && tt.details != "" {
					want = tt.details
				}
				if got := says(d); got != want {
					t.Errorf("the delta says %q, want %q; problems %v", got, want, d.Problems)
				}
				if got := says(m.look(plenty)); got != "" {
					t.Errorf("the next one says %q, want nothing", got)
				}
				remembered := m.known
				m.full()
				if tt.name == "another policy" && d.ReadBy == serval.ByRoles {
					return
				}
				if diff := cmp.Diff(m.known, remembered); diff != "" {
					t.Errorf("what the deltas left is not what there is (-is +remembered):\n%s", diff)
				}
			})
		})
	}
}

// A role whose state is in doubt is sent, though it is as it was.
func TestDeltaSendsWhatIsInDoubt(t *testing.T) {
	bothWays(t, func(t *testing.T, e *estate, _ *awstest.Account, a serval.Account) {
		m := remember(t, e, a)
		known := m.list()
		name := m.known[known[0].RoleID].Name
		known[0].Digest, known[0].Shown = "", ""
		d, err := m.reader.Delta(t.Context(), a, known, m.looked, plenty)
		if err != nil || says(d) != "+"+name {
			t.Errorf("the delta says %q, %v; want %s alone", says(d), err, name)
		}
	})
}

// Unknown is never absent: where it cannot be known.
func TestDeltaRemovesOnlyWhatItSaw(t *testing.T) {
	cut := func(from, to string) func([]byte) []byte {
		return func(b []byte) []byte {
			i, j := strings.Index(string(b), from), strings.Index(string(b), to)
			return []byte(string(b[:i]) + string(b[j+len(to):]))
		}
	}
	of := func(name string) func(*awstest.Request) bool {
		return func(r *awstest.Request) bool { return r.Params.Get("RoleName") == name }
	}
	for _, tt := range []struct {
		name  string
		fault awstest.Fault
		want  string // with role2 deleted and role3 untagged meanwhile; "" for an error
	}{
		{"a page that fails", awstest.Fault{Action: "ListRoles", After: 1, Status: 500, Code: "ServiceFailure"}, "incomplete"},
		{"no marker", awstest.Fault{Action: "ListRoles", Mutate: cut("<Marker>", "</Marker>")}, "incomplete"},
		{"an empty page", awstest.Fault{Action: "ListRoles", After: 1, Status: 200}, "incomplete"},
		{"no page at all", awstest.Fault{Action: "ListRoles", Status: 500, Code: "ServiceFailure"}, ""},
		{"an empty listing", awstest.Fault{Action: "ListRoles", Status: 200}, ""},
		{"another account", awstest.Fault{Action: "ListRoles", Mutate: func(b []byte) []byte { return []byte(strings.ReplaceAll(string(b), spoke, "999999999999")) }}, ""},
		{"another account's role", awstest.Fault{Action: "GetRole", Mutate: func(b []byte) []byte { return []byte(strings.ReplaceAll(string(b), spoke, "999999999999")) }}, ""},
		{"the deleted one cannot be asked for", awstest.Fault{Action: "GetRole", Match: of("role2"), Code: "AccessDenied", Status: 403}, "-role3 untagged, ?role2 AccessDenied, incomplete"},
		{"the untagged one neither", awstest.Fault{Action: "GetRole", Match: of("role3"), Code: "Throttling"}, "-role2 deleted, ?role3 Throttling, incomplete"},
		{"GetRole answers nothing", awstest.Fault{Action: "GetRole", Match: of("role3"), Status: 200}, "-role2 deleted, ?role3 EmptyAnswer, incomplete"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
				m := remember(t, e, a)
				owner.DeleteRole("role2")
				owner.UntagRole("role3", "serval")
				e.ShortPages(3)
				e.Inject(tt.fault)
				d, err := m.reader.Delta(t.Context(), a, m.list(), m.looked, plenty)
				if tt.want == "" {
					if f := failureOf(t, err); len(d.Removed)+len(d.Roles) != 0 {
						t.Errorf("%v with %q, want nothing else", f, says(d))
					}
					return
				}
				got := says(d)
				// The first page is whole, and what it shows counts.
				if err != nil || strings.Replace(got, "-role3 untagged, ", "", 1) != strings.Replace(tt.want, "-role3 untagged, ", "", 1) {
					t.Errorf("the delta says %q, %v; want %q", got, err, tt.want)
				}
				if !d.Complete && len(d.Problems) == 0 {
					t.Error("it does not say why it is not complete")
				}
			})
		})
	}
	inBubble(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
		m := remember(t, e, a)
		for i := range 4 {
			owner.DeleteRole(fmt.Sprint("role", i))
		}
		owner.PutRole(awstest.Role{Name: "new", Tags: map[string]string{"serval": ""}})
		before := calls(e, "GetRole")
		d := m.look(plenty)
		if got := says(d); got != "+new, incomplete" || len(d.Problems) != 1 || d.Problems[0].Code != "ManyMissing" {
			t.Errorf("with four of six deleted the delta says %q, problems %v; want that it is left to the full reading", got, d.Problems)
		}
		if got := calls(e, "GetRole") - before; got != 4 { // what is listed: the two, the new one, and the ingestion role
			t.Errorf("%d calls of GetRole, want 4", got)
		}
	})
	// A listing that lags: what it has lost is still there.
	inBubble(t, func(t *testing.T, e *estate, _ *awstest.Account, a serval.Account) {
		m := remember(t, e, a)
		e.Inject(awstest.Fault{Action: "ListRoles", Mutate: func(b []byte) []byte {
			text := string(b)
			at := strings.Index(text, "<RoleName>role4</RoleName>")
			from, to := strings.LastIndex(text[:at], "<member>"), at+strings.Index(text[at:], "</member>")+len("</member>")
			return []byte(text[:from] + text[to:])
		}})
		if got := says(m.look(plenty)); got != "" {
			t.Errorf("where the listing lags the delta says %q, want nothing", got)
		}
	})
}

// The calls of a delta are AssumeRole, the pages, and a GetRole for each role
// that it looks at; it does not go beyond its budget but for the last role.
func TestDeltaCalls(t *testing.T) {
	inBubble(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
		for i := range 193 {
			owner.PutRole(awstest.Role{Name: fmt.Sprintf("plain%03d", i)})
		}
		m := remember(t, e, a) // 6 known of 200
		time.Sleep(time.Hour)
		for _, tt := range []struct{ budget, calls int }{
			{1000, 1 + 1 + 200}, {201, 1 + 1 + 200}, {100, 1 + 100}, {7, 1 + 7}, {1, 1 + 1}, {0, 1 + 1},
		} {
			synctest.Wait()
			e.ResetCalls()
			d := m.look(tt.budget)
			if got := calls(e, ""); got != tt.calls || says(d) != "" || !d.Complete {
				t.Errorf("with a budget of %d: %d calls, want %d; it says %q", tt.budget, got, tt.calls, says(d))
			}
		}
		if got := calls(e, details); got != 0 {
			t.Errorf("%d calls of what was refused before", got)
		}
	})
	inBubble(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
		allowDetails(owner)
		for i := range 193 {
			owner.PutRole(awstest.Role{Name: fmt.Sprintf("plain%03d", i)})
		}
		m := remember(t, e, a)
		synctest.Wait()
		e.ResetCalls()
		if d := m.look(plenty); says(d) != "" || d.ReadBy != serval.ByAuthorizationDetails {
			t.Errorf("the delta says %q, read by %s", says(d), d.ReadBy)
		}
		if got := calls(e, ""); got != 3 { // AssumeRole and a page of each; AWS's own policy is known for an hour
			t.Errorf("with the details: %d calls, want 3", got)
		}
	})
	// New ones do not take all of it, and policies count.
	inBubble(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
		m := remember(t, e, a)
		time.Sleep(time.Hour)
		for i := range 100 {
			owner.PutRole(awstest.Role{Name: fmt.Sprintf("new%03d", i), Tags: map[string]string{"serval": ""}, Inline: map[string]string{"a": allow("s3:*")}})
			time.Sleep(time.Second)
		}
		owner.UntagRole("role1", "serval")
		synctest.Wait()
		e.ResetCalls()
		d := m.look(80)
		if got := calls(e, "") - 1; got < 80 || got > 80+4*4 {
			t.Errorf("%d calls with a budget of 80, want that many, or those of four roles more", got)
		}
		var young []string
		for _, r := range d.Roles {
			young = append(young, r.Name)
		}
		slices.Sort(young)
		if len(young) < 12 || young[len(young)-1] != "new099" || !slices.Contains(young, "new090") {
			t.Errorf("the new ones that were read are %v, want the newest", young)
		}
		if !slices.ContainsFunc(d.Removed, func(r serval.Removal) bool { return strings.HasSuffix(r.ARN, "/role1") }) {
			t.Errorf("with many new roles the untagged one was not seen: %q", says(d))
		}
		for range 20 {
			m.look(80)
		}
		if len(m.known) != 105 {
			t.Errorf("after twenty more, %d roles are known, want 105", len(m.known))
		}
	})
}

// Each role is looked at again within the time that the manual states: known
// ones in ceil(T/(B/2)) passes, all others in ceil(U/rest).
func TestDeltaGoesRound(t *testing.T) {
	inBubble(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
		for i := range 20 {
			owner.PutRole(awstest.Role{Name: fmt.Sprintf("tagged%02d", i), Tags: map[string]string{"serval": ""}})
		}
		for i := range 103 {
			owner.PutRole(awstest.Role{Name: fmt.Sprintf("plain%03d", i)})
		}
		m := remember(t, e, a) // 26 known, 104 others with the ingestion role
		time.Sleep(time.Hour)
		m.look(21)
		rnd := rand.New(rand.NewPCG(3, 4))
		e.KeepParams(true)
		const budget = 21 // 20 after the page: 10 of the known, 10 of the others
		for range 3 {
			seen := map[string]int{}
			for pass := range 11 {
				synctest.Wait()
				e.ResetCalls()
				m.look(budget)
				synctest.Wait()
				for _, c := range e.Calls() {
					if c.Action != "GetRole" {
						continue
					}
					name := c.Params.Get("RoleName")
					if strings.HasPrefix(name, "plain") || name == "serval-ingest" {
						seen[name]++
					} else if pass < 3 {
						seen[name]++
					}
				}
				// What comes and goes does not stop the round.
				name := fmt.Sprintf("passing%d", rnd.IntN(1000))
				owner.PutRole(awstest.Role{Name: name, Created: time.Now().Add(-24 * time.Hour)})
				owner.DeleteRole(name)
			}
			if len(seen) != 103+26+1 {
				t.Errorf("%d of 130 roles were looked at, known ones within 3 passes and all others within 11", len(seen))
			}
			for name, n := range seen {
				if n > 2 {
					t.Errorf("%s was looked at %d times in one round", name, n)
				}
			}
		}
	})
}

// However many deltas run, they leave three quarters of the calls to full
// readings.
func TestDeltasStepAside(t *testing.T) {
	inBubble(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
		e.config.Total = 16
		e.config.Concurrency = 16
		var accounts []serval.Account
		for i := range 12 {
			o, a := e.connect(fmt.Sprintf("5555%08d", i))
			for n := range 20 {
				o.PutRole(awstest.Role{Name: fmt.Sprintf("plain%d", n)})
			}
			accounts = append(accounts, a)
		}
		r := e.reader(t)
		e.SetLatency(func() time.Duration { return 40 * time.Millisecond })
		var g errgroup.Group
		for _, a := range accounts {
			g.Go(func() error { _, err := r.Delta(t.Context(), a, nil, time.Time{}, plenty); return err })
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		// Every call takes the same time, so that those at one instant run at once.
		at := map[time.Time]int{}
		synctest.Wait()
		for _, c := range e.Calls() {
			if c.Action == "GetRole" {
				at[c.At]++
			}
		}
		for when, n := range at {
			if n > 4 {
				t.Errorf("%d calls of deltas at %s, want at most 4 of 16", n, when)
			}
		}
	})
}

// A delta that is told to stop says nothing.
func TestDeltaStops(t *testing.T) {
	inBubble(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
		m := remember(t, e, a)
		owner.UntagRole("role1", "serval")
		e.SetLatency(func() time.Duration { return time.Second })
		for _, after := range []time.Duration{0, 1500 * time.Millisecond, 2500 * time.Millisecond, 3500 * time.Millisecond} {
			ctx, cancel := context.WithTimeout(t.Context(), after)
			d, err := m.reader.Delta(ctx, a, m.list(), m.looked, plenty)
			cancel()
			if err == nil || len(d.Removed)+len(d.Roles) != 0 {
				t.Errorf("stopped after %s: %q, %v; want nothing", after, says(d), err)
			}
		}
		// One whose time is up says what it saw, and that it is not all.
		e.SetLatency(func() time.Duration { return 14 * time.Second })
		for i := range 100 {
			owner.PutRole(awstest.Role{Name: fmt.Sprintf("new%03d", i), Tags: map[string]string{"serval": ""}, Inline: map[string]string{"a": allow("s3:*")}})
		}
		d := m.look(plenty)
		if d.Complete || len(d.Unreadable) != 0 || !slices.ContainsFunc(d.Problems, func(p serval.Problem) bool { return p.Code == "Timeout" }) {
			t.Errorf("an account that is slow: complete %t, unreadable %v, problems %v", d.Complete, d.Unreadable, d.Problems)
		}
		for _, r := range d.Roles {
			if !r.PoliciesComplete() {
				t.Errorf("%s was sent with policies that there was no time for", r.Name)
			}
		}
	})
}
