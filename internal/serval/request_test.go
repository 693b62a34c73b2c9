package serval

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// t0 is when the tests' requests are made: a Monday morning.
var t0 = time.Date(2026, 1, 5, 9, 0, 0, 0, time.UTC)

const week = 7 * 24 * time.Hour

// emergency has the thirty characters that breaking the glass needs.
const emergency = "the shop is down, nobody is up"

// The cast. Ana asks; Bo decides a first step, by group; Cy a second, by email.
var (
	ana = Person{ID: "p-ana", Email: "ana@example.com"}
	bo  = Person{ID: "p-bo", Email: "bo@example.com", Groups: []string{"leads"}}
	cy  = Person{ID: "p-cy", Email: "cy@example.com"}
	ada = Person{ID: "p-ada", Email: "ada@example.com"}
	eve = Person{ID: "p-eve", Email: "eve@example.com", Groups: []string{"leaders", "Leads"}}

	first  = People{Groups: []string{"leads"}}
	second = People{Emails: []string{"CY@example.com"}}

	// Ana, after the identity provider lost her and took her in again.
	anaAgain = Person{ID: "p-ana-again", Email: "ANA@example.com"}

	testRole = RoleKey{Partition: "aws", AccountID: "111122223333", RoleID: "AROA1", ARN: "arn:aws:iam::111122223333:role/dev"}
)

func as(p Person) Principal { return Principal{Kind: KindPerson, Person: p} }

var (
	system = Principal{Kind: KindSystem}
	admin  = Principal{Kind: KindPerson, Person: ada, Admin: true}
	worker = Principal{Kind: KindWorker, Worker: "hub"}
	nobody = Principal{}
)

func terms(steps ...People) Terms {
	return Terms{Policy: "dev", Digest: "d", Steps: steps, MaxMinutes: 120, MaxTotalMinutes: 360}
}

// newRequest returns Ana's request for 60 minutes at t0.
func newRequest(t testing.TB, terms Terms) *Request {
	t.Helper()
	r, err := NewRequest("r1", ana, testRole, terms, Ask{Minutes: 60, Justification: "a reason"}, week, t0)
	if err != nil {
		t.Fatalf("NewRequest: %v", err)
	}
	return r
}

// approve completes every open step of r, or approves it as the system.
func approve(t testing.TB, r *Request, now time.Time) {
	t.Helper()
	people := []Principal{as(bo), as(cy)}[:len(r.Terms.Steps)]
	if len(people) == 0 {
		people = []Principal{system}
	}
	for _, who := range people {
		if _, err := r.Decide(who, Decision{Approve: true}, week, now); err != nil {
			t.Fatalf("approving as %s: %v", who.Name(), err)
		}
	}
}

func approved(t testing.TB, terms Terms) *Request {
	r := newRequest(t, terms)
	approve(t, r, t0)
	return r
}

func running(t testing.TB, terms Terms) *Request {
	r := approved(t, terms)
	if !r.StartClock(t0) {
		t.Fatal("the clock of an approved request did not start")
	}
	return r
}

func extending(t testing.TB, r *Request) *Request {
	t.Helper()
	if _, err := r.Extend(as(ana), 90, "more", t0); err != nil {
		t.Fatalf("Extend: %v", err)
	}
	return r
}

// text returns all of r, to see that a refusal changed nothing.
func text(r *Request) string {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func kindOf(err error) Kind {
	if r, ok := err.(*Refusal); ok {
		return r.Kind
	}
	return ""
}

// TestTransitions holds the table against one written here by hand, so that a
// line is neither added, lost nor changed without saying so twice.
func TestTransitions(t *testing.T) {
	const want = `
pending   approve                     approver   approved  request.approve
pending   approve                     system     approved  request.approve
pending   approve step                approver   pending   request.approve_step
pending   break glass                 requester  approved  request.break_glass
pending   deny                        approver   denied    request.deny
pending   cancel                      requester  canceled  request.cancel
pending   revoke                      admin      revoked   request.revoke
pending   relink                      admin      pending   request.relink
pending   expire                      system     expired   request.expire
pending   fail                        system     failed    request.fail
approved  mint                        requester  running   session.open
approved  cancel                      requester  canceled  request.cancel
approved  extend                      requester  approved  extension.create
approved  approve extension           approver   approved  extension.approve
approved  approve extension           system     approved  extension.approve
approved  approve extension step      approver   approved  extension.approve_step
approved  break glass for extension   requester  approved  extension.break_glass
approved  deny extension              approver   approved  extension.deny
approved  shorten                     requester  approved  request.shorten
approved  shorten                     approver   approved  request.shorten
approved  done                        requester  expired   request.done
approved  revoke                      approver   revoked   request.revoke
approved  revoke                      admin      revoked   request.revoke
approved  relink                      admin      approved  request.relink
approved  expire                      system     expired   request.expire
approved  fail                        system     failed    request.fail
running   mint                        requester  running   session.open
running   extend                      requester  running   extension.create
running   approve extension           approver   running   extension.approve
running   approve extension           system     running   extension.approve
running   approve extension step      approver   running   extension.approve_step
running   break glass for extension   requester  running   extension.break_glass
running   deny extension              approver   running   extension.deny
running   shorten                     requester  running   request.shorten
running   shorten                     approver   running   request.shorten
running   done                        requester  expired   request.done
running   revoke                      approver   revoked   request.revoke
running   revoke                      admin      revoked   request.revoke
running   revoke                      system     revoked   request.revoke
running   relink                      admin      running   request.relink
running   expire                      system     expired   request.expire
`
	got := "\n"
	for _, l := range Transitions() {
		got += fmt.Sprintf("%-9s %-27s %-10s %-9s %s\n", l.From, l.Act, l.By, l.To, l.Event)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the transition table changed (-want +got):\n%s", diff)
	}
	Transitions()[0].Act = "anything"
	if Transitions()[0].Act != ActApprove {
		t.Error("a caller of Transitions can change the table")
	}
}

// TestDocumentedTransitions holds docs/requests.md to the table.
func TestDocumentedTransitions(t *testing.T) {
	const file, from, to = "../../docs/requests.md", "<!-- transitions: written by go test ./internal/serval -run Documented -update -->\n", "<!-- end -->\n"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), from)
	got, after, ends := strings.Cut(rest, to)
	if !ok || !ends {
		t.Fatalf("%s has no place for the transitions", file)
	}
	want := "| state | act | by | leads to | audit log |\n|---|---|---|---|---|\n"
	for _, l := range Transitions() {
		want += fmt.Sprintf("| %s | %s | %s | %s | `%s` |\n", l.From, l.Act, l.By, l.To, l.Event)
	}
	if *update {
		if err := os.WriteFile(file, []byte(before+from+want+to+after), 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the transitions in %s are not the table's (-want +got):\n%s", file, diff)
	}
}

// TestEveryAct_S76 tries every act in every state as everybody. What the table
// below does not allow is refused, and changes nothing.
func TestEveryAct_S76(t *testing.T) { // S-76
	one, two, glass := terms(first), terms(first, second), terms(first)
	glass.BreakGlass = true
	situations := map[string]func(t testing.TB) *Request{
		"pending auto":         func(t testing.TB) *Request { return newRequest(t, terms()) },
		"pending":              func(t testing.TB) *Request { return newRequest(t, one) },
		"pending of two":       func(t testing.TB) *Request { return newRequest(t, two) },
		"approved":             func(t testing.TB) *Request { return approved(t, one) },
		"approved, ext auto":   func(t testing.TB) *Request { return extending(t, approved(t, terms())) },
		"approved, ext":        func(t testing.TB) *Request { return extending(t, approved(t, one)) },
		"approved, ext of two": func(t testing.TB) *Request { return extending(t, approved(t, two)) },
		"running":              func(t testing.TB) *Request { return running(t, one) },
		"running, ext auto":    func(t testing.TB) *Request { return extending(t, running(t, terms())) },
		"running, ext":         func(t testing.TB) *Request { return extending(t, running(t, one)) },
		"running, ext of two":  func(t testing.TB) *Request { return extending(t, running(t, two)) },
		"pending glass":        func(t testing.TB) *Request { return newRequest(t, glass) },
		"approved, ext glass":  func(t testing.TB) *Request { return extending(t, approved(t, glass)) },
		"running, ext glass":   func(t testing.TB) *Request { return extending(t, running(t, glass)) },
		"overdue pending": func(t testing.TB) *Request {
			r := newRequest(t, one)
			r.ExpiresAt = t0
			return r
		},
		"overdue approved": func(t testing.TB) *Request {
			r := extending(t, approved(t, one))
			r.ExpiresAt = t0
			return r
		},
		"overdue running": func(t testing.TB) *Request {
			r := extending(t, running(t, one))
			r.EndsAt = t0
			return r
		},
	}
	for _, s := range []Status{StatusDenied, StatusExpired, StatusRevoked, StatusCanceled, StatusFailed} {
		situations[string(s)] = func(t testing.TB) *Request {
			r := running(t, one)
			r.end(s, "", t0)
			return r
		}
	}
	people := map[string]Principal{
		"ana": as(ana), "bo": as(bo), "cy": as(cy), "admin": admin, "system": system,
		"eve": as(eve), "worker": worker, "nobody": nobody,
	}
	acts := map[string]func(r *Request, who Principal) (Action, error){
		"approve": func(r *Request, who Principal) (Action, error) {
			return r.Decide(who, Decision{Approve: true}, week, t0)
		},
		"deny":        func(r *Request, who Principal) (Action, error) { return r.Decide(who, Decision{}, week, t0) },
		"break glass": func(r *Request, who Principal) (Action, error) { return r.BreakGlass(who, emergency, week, t0) },
		"relink":      func(r *Request, who Principal) (Action, error) { return r.Relink(who, anaAgain, t0) },
		"cancel":      func(r *Request, who Principal) (Action, error) { return r.Cancel(who, t0) },
		"extend":      func(r *Request, who Principal) (Action, error) { return r.Extend(who, 30, "more", t0) },
		"shorten to":  func(r *Request, who Principal) (Action, error) { return r.ShortenTo(who, 10, t0) },
		"shorten":     func(r *Request, who Principal) (Action, error) { return r.Shorten(who, t0.Add(time.Minute), t0) },
		"done":        func(r *Request, who Principal) (Action, error) { return r.Done(who, t0) },
		"revoke":      func(r *Request, who Principal) (Action, error) { return r.Revoke(who, t0) },
		"expire":      func(r *Request, who Principal) (Action, error) { return r.Expire(who, t0) },
		"fail":        func(r *Request, who Principal) (Action, error) { return r.Fail(who, t0) },
	}

	// Who may, the state it leads to, and the event: or the kind of refusal of
	// those named, behind an exclamation mark. For everybody else an act that
	// has a line is denied, and one that has none is in conflict.
	const table = `
pending auto    approve     system              approved  request.approve
pending auto    deny        ana                 !permission_denied
pending auto    cancel      ana                 canceled  request.cancel
pending auto    revoke      admin               revoked   request.revoke
pending auto    expire      system              !conflict
pending auto    fail        system              failed    request.fail
pending         approve     bo                  approved  request.approve
pending         deny        bo                  denied    request.deny
pending         cancel      ana                 canceled  request.cancel
pending         revoke      admin               revoked   request.revoke
pending         expire      system              !conflict
pending         fail        system              failed    request.fail
pending of two  approve     bo                  pending   request.approve_step
pending of two  deny        bo                  denied    request.deny
pending of two  cancel      ana                 canceled  request.cancel
pending of two  revoke      admin               revoked   request.revoke
pending of two  expire      system              !conflict
pending of two  fail        system              failed    request.fail

approved        approve     bo system           !conflict
approved        deny        bo                  !conflict
approved        cancel      ana                 canceled  request.cancel
approved        extend      ana                 approved  extension.create
approved        shorten to  ana bo              approved  request.shorten
approved        shorten     ana bo              !failed_precondition
approved        done        ana                 expired   request.done
approved        revoke      bo admin            revoked   request.revoke
approved        expire      system              !conflict
approved        fail        system              failed    request.fail
approved, ext auto  approve     system          approved  extension.approve
approved, ext auto  deny        ana             !permission_denied
approved, ext auto  cancel      ana             canceled  request.cancel
approved, ext auto  extend      ana             !conflict
approved, ext auto  shorten to  ana             approved  request.shorten
approved, ext auto  shorten     ana             !failed_precondition
approved, ext auto  done        ana             expired   request.done
approved, ext auto  revoke      admin           revoked   request.revoke
approved, ext auto  expire      system          !conflict
approved, ext auto  fail        system          failed    request.fail
approved, ext   approve     bo                  approved  extension.approve
approved, ext   deny        bo                  approved  extension.deny
approved, ext   cancel      ana                 canceled  request.cancel
approved, ext   extend      ana                 !conflict
approved, ext   shorten to  ana bo              approved  request.shorten
approved, ext   shorten     ana bo              !failed_precondition
approved, ext   done        ana                 expired   request.done
approved, ext   revoke      bo admin            revoked   request.revoke
approved, ext   expire      system              !conflict
approved, ext   fail        system              failed    request.fail
approved, ext of two  approve     bo            approved  extension.approve_step
approved, ext of two  deny        bo            approved  extension.deny
approved, ext of two  cancel      ana           canceled  request.cancel
approved, ext of two  extend      ana           !conflict
approved, ext of two  shorten to  ana bo cy     approved  request.shorten
approved, ext of two  shorten     ana bo cy     !failed_precondition
approved, ext of two  done        ana           expired   request.done
approved, ext of two  revoke      bo cy admin   revoked   request.revoke
approved, ext of two  expire      system        !conflict
approved, ext of two  fail        system        failed    request.fail

running         approve     bo system           !conflict
running         deny        bo                  !conflict
running         extend      ana                 running   extension.create
running         shorten to  ana bo              running   request.shorten
running         shorten     ana bo              running   request.shorten
running         done        ana                 expired   request.done
running         revoke      bo admin system     revoked   request.revoke
running         expire      system              !conflict
running, ext auto  approve     system           running   extension.approve
running, ext auto  deny        ana              !permission_denied
running, ext auto  extend      ana              !conflict
running, ext auto  shorten to  ana              running   request.shorten
running, ext auto  shorten     ana              running   request.shorten
running, ext auto  done        ana              expired   request.done
running, ext auto  revoke      admin system     revoked   request.revoke
running, ext auto  expire      system           !conflict
running, ext    approve     bo                  running   extension.approve
running, ext    deny        bo                  running   extension.deny
running, ext    extend      ana                 !conflict
running, ext    shorten to  ana bo              running   request.shorten
running, ext    shorten     ana bo              running   request.shorten
running, ext    done        ana                 expired   request.done
running, ext    revoke      bo admin system     revoked   request.revoke
running, ext    expire      system              !conflict
running, ext of two  approve     bo             running   extension.approve_step
running, ext of two  deny        bo             running   extension.deny
running, ext of two  extend      ana            !conflict
running, ext of two  shorten to  ana bo cy      running   request.shorten
running, ext of two  shorten     ana bo cy      running   request.shorten
running, ext of two  done        ana            expired   request.done
running, ext of two  revoke      bo cy admin system  revoked   request.revoke
running, ext of two  expire      system         !conflict

pending auto  break glass  ana  !permission_denied
pending auto  relink  admin  pending  request.relink
pending  break glass  ana  !permission_denied
pending  relink  admin  pending  request.relink
pending of two  break glass  ana  !permission_denied
pending of two  relink  admin  pending  request.relink
approved  break glass  ana  !conflict
approved  relink  admin  approved  request.relink
approved, ext auto  break glass  ana  !permission_denied
approved, ext auto  relink  admin  approved  request.relink
approved, ext  break glass  ana  !permission_denied
approved, ext  relink  admin  approved  request.relink
approved, ext of two  break glass  ana  !permission_denied
approved, ext of two  relink  admin  approved  request.relink
running  break glass  ana  !conflict
running  relink  admin  running  request.relink
running, ext auto  break glass  ana  !permission_denied
running, ext auto  relink  admin  running  request.relink
running, ext  break glass  ana  !permission_denied
running, ext  relink  admin  running  request.relink
running, ext of two  break glass  ana  !permission_denied
running, ext of two  relink  admin  running  request.relink

pending glass  approve      bo        approved  request.approve
pending glass  deny         bo        denied  request.deny
pending glass  break glass  ana       approved  request.break_glass
pending glass  cancel       ana       canceled  request.cancel
pending glass  revoke       admin     revoked  request.revoke
pending glass  relink       admin     pending  request.relink
pending glass  expire       system    !conflict
pending glass  fail         system    failed  request.fail
approved, ext glass  approve      bo        approved  extension.approve
approved, ext glass  deny         bo        approved  extension.deny
approved, ext glass  break glass  ana       approved  extension.break_glass
approved, ext glass  cancel       ana       canceled  request.cancel
approved, ext glass  extend       ana       !conflict
approved, ext glass  shorten to   ana bo    approved  request.shorten
approved, ext glass  shorten      ana bo    !failed_precondition
approved, ext glass  done         ana       expired  request.done
approved, ext glass  revoke       bo admin  revoked  request.revoke
approved, ext glass  relink       admin     approved  request.relink
approved, ext glass  expire       system    !conflict
approved, ext glass  fail         system    failed  request.fail
running, ext glass  approve      bo        running  extension.approve
running, ext glass  deny         bo        running  extension.deny
running, ext glass  break glass  ana       running  extension.break_glass
running, ext glass  extend       ana       !conflict
running, ext glass  shorten to   ana bo    running  request.shorten
running, ext glass  shorten      ana bo    running  request.shorten
running, ext glass  done         ana       expired  request.done
running, ext glass  revoke       bo admin system  revoked  request.revoke
running, ext glass  relink       admin     running  request.relink
running, ext glass  expire       system    !conflict

overdue pending   expire    system              expired   request.expire
overdue approved  expire    system              expired   request.expire
overdue running   expire    system              expired   request.expire
`
	type cell struct{ situation, act string }
	type result struct {
		state State
		event Action
		kind  Kind
	}
	want := map[cell]map[string]result{}
	for line := range strings.Lines(table) {
		f := slices.DeleteFunc(strings.Split(strings.TrimSpace(line), "  "), func(s string) bool { return s == "" })
		if len(f) == 0 {
			continue
		}
		for i := range f {
			f[i] = strings.TrimSpace(f[i])
		}
		c, res := cell{f[0], f[1]}, result{}
		if kind, refused := strings.CutPrefix(f[3], "!"); refused {
			res.kind = Kind(kind)
		} else {
			res.state, res.event = State(f[3]), Action(f[4])
		}
		if situations[c.situation] == nil || acts[c.act] == nil || want[c] != nil {
			t.Fatalf("the test's own table has a wrong or second line: %q", line)
		}
		want[c] = map[string]result{}
		for who := range strings.FieldsSeq(f[2]) {
			if _, ok := people[who]; !ok {
				t.Fatalf("the test's own table names %q", who)
			}
			want[c][who] = res
		}
	}

	for situation, make := range situations {
		for act, do := range acts {
			for name, who := range people {
				t.Run(situation+"/"+act+"/"+name, func(t *testing.T) {
					c := cell{situation, act}
					expect, listed := want[c][name]
					switch {
					case !listed && want[c] != nil:
						expect = result{kind: Denied}
					case !listed:
						expect = result{kind: Conflict}
					}
					r := make(t)
					before := text(r)
					event, err := do(r, who)
					if expect.kind != "" {
						if got := kindOf(err); got != expect.kind {
							t.Fatalf("%s: got kind %q (%v), want %q", act, got, err, expect.kind)
						}
						if diff := cmp.Diff(before, text(r)); diff != "" {
							t.Errorf("%s was refused and changed the request:\n%s", act, diff)
						}
						return
					}
					if err != nil {
						t.Fatalf("%s as %s in %s: %v, want it done", act, name, situation, err)
					}
					if r.State() != expect.state || event != expect.event {
						t.Errorf("%s: got state %s and event %s, want %s and %s", act, r.State(), event, expect.state, expect.event)
					}
					if before == text(r) {
						t.Errorf("%s was done and changed nothing", act)
					}
				})
			}
		}
	}
}

// TestStandings says who is what to a request.
func TestStandings(t *testing.T) {
	r := newRequest(t, terms(first, second))
	both := bo
	both.ID = ana.ID
	for _, c := range []struct {
		name string
		who  Principal
		want []Standing
	}{
		{"the requester", as(ana), []Standing{Requester}},
		{"an approver of the first step", as(bo), []Standing{Approver}},
		{"an approver of the second step", as(cy), []Standing{Approver}},
		{"an admin", admin, []Standing{Overseer}},
		{"a requester in the approving group, as admin", Principal{Kind: KindPerson, Person: both, Admin: true}, []Standing{Requester, Approver, Overseer}},
		{"the system", system, []Standing{Clockwork}},
		{"a system that claims to be a person", Principal{Kind: KindSystem, Person: ana, Admin: true}, []Standing{Clockwork}},
		{"a stranger", as(eve), nil},
		{"a worker with a person's id", Principal{Kind: KindWorker, Person: ana, Admin: true}, nil},
		{"nobody with a person's id", Principal{Person: ana, Admin: true}, nil},
	} {
		if diff := cmp.Diff(c.want, r.Standings(c.who)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestNewRequest(t *testing.T) {
	long := func(n int) string { return strings.Repeat("ü", n) }
	strict := terms(first)
	strict.RequireJustification = true
	for _, c := range []struct {
		name  string
		terms Terms
		ask   Ask
		want  Kind
	}{
		{"one minute", terms(), Ask{Minutes: 1}, ""},
		{"the maximum", terms(), Ask{Minutes: 120}, ""},
		{"no minutes", terms(), Ask{}, Invalid},
		{"negative minutes", terms(), Ask{Minutes: -5}, Invalid},
		{"more than the policy allows", terms(), Ask{Minutes: 121}, Invalid},
		{"minutes that would overflow", terms(), Ask{Minutes: 1 << 62}, Invalid},
		{"no justification where none is asked", strict, Ask{Minutes: 5, Justification: "x"}, ""},
		{"no justification", strict, Ask{Minutes: 5}, Invalid},
		{"a blank justification", strict, Ask{Minutes: 5, Justification: " \t\n"}, Invalid},
		{"a long justification", terms(), Ask{Minutes: 5, Justification: long(MaxJustification)}, ""},
		{"a justification too long", terms(), Ask{Minutes: 5, Justification: long(MaxJustification + 1)}, Invalid},
		{"a justification with NUL", terms(), Ask{Minutes: 5, Justification: "a\x00b"}, Invalid},
		{"a justification that is not UTF-8", terms(), Ask{Minutes: 5, Justification: "a\xffb"}, Invalid},
		{"a long ticket", terms(), Ask{Minutes: 5, Ticket: long(MaxTicket)}, ""},
		{"a ticket too long", terms(), Ask{Minutes: 5, Ticket: long(MaxTicket + 1)}, Invalid},
		{"a ticket with NUL", terms(), Ask{Minutes: 5, Ticket: "\x00"}, Invalid},
		{"a start in thirty days", terms(), Ask{Minutes: 5, StartAt: t0.Add(30 * 24 * time.Hour)}, ""},
		{"a start later than that", terms(), Ask{Minutes: 5, StartAt: t0.Add(30*24*time.Hour + 1)}, Invalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := NewRequest("r1", ana, testRole, c.terms, c.ask, week, t0)
			if got := kindOf(err); got != c.want || (err == nil) != (r != nil) {
				t.Fatalf("got %v, %v; want kind %q", r, err, c.want)
			}
			if err != nil {
				return
			}
			want := &Request{
				ID: "r1", PersonID: "p-ana", Email: "ana@example.com", Role: testRole, Terms: c.terms,
				Status: StatusPending, Justification: c.ask.Justification, Ticket: c.ask.Ticket, StartAt: c.ask.StartAt,
				CreatedAt: t0, ExpiresAt: t0.Add(week),
				Allocations: []Allocation{{Minutes: c.ask.Minutes, State: Asked, Justification: c.ask.Justification, AskedAt: t0}},
			}
			for _, p := range c.terms.Steps {
				want.Allocations[0].Steps = append(want.Allocations[0].Steps, Step{Approvers: p})
			}
			if diff := cmp.Diff(want, r); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if r.Minutes() != c.ask.Minutes {
				t.Errorf("Minutes: got %d, want those asked for, %d", r.Minutes(), c.ask.Minutes)
			}
		})
	}
	for name, start := range map[string]time.Time{"now": t0, "an hour ago": t0.Add(-time.Hour)} {
		r, err := NewRequest("r1", ana, testRole, terms(), Ask{Minutes: 5, StartAt: start}, week, t0)
		if err != nil || !r.StartAt.IsZero() {
			t.Errorf("a start %s: got %v, %v; want a request that starts at once", name, r, err)
		}
	}
}

func TestDecide_steps(t *testing.T) { // S-76
	r := newRequest(t, terms(first, second))
	if !r.Awaits(bo) || r.Awaits(cy) || r.Awaits(ana) {
		t.Errorf("the first step: awaits bo %t, cy %t, ana %t; want true, false, false", r.Awaits(bo), r.Awaits(cy), r.Awaits(ana))
	}
	if _, err := r.Decide(as(cy), Decision{Approve: true}, week, t0); kindOf(err) != Denied {
		t.Errorf("the second step before the first: got %v, want it denied", err)
	}
	if _, err := r.Decide(as(bo), Decision{Approve: true, Minutes: 45, Reason: "fine"}, week, t0.Add(time.Hour)); err != nil {
		t.Fatalf("the first step: %v", err)
	}
	if r.Status != StatusPending || r.Minutes() != 45 {
		t.Errorf("after one step of two: got %s with %d minutes, want pending with 45", r.Status, r.Minutes())
	}
	if _, ok := r.Grant(); ok {
		t.Error("one step of two gives a grant")
	}
	if r.Awaits(bo) || !r.Awaits(cy) {
		t.Errorf("the second step: awaits bo %t, cy %t; want false, true", r.Awaits(bo), r.Awaits(cy))
	}
	if _, err := r.Decide(as(cy), Decision{Approve: true, Minutes: 90}, week, t0.Add(2*time.Hour)); err != nil {
		t.Fatalf("the second step: %v", err)
	}
	want := []Allocation{{
		Minutes: 90, State: Active, Justification: "a reason", AskedAt: t0, DecidedBy: "cy@example.com", DecidedAt: t0.Add(2 * time.Hour),
		Steps: []Step{
			{Approvers: first, PersonID: "p-bo", DecidedBy: "bo@example.com", Outcome: "approve", At: t0.Add(time.Hour)},
			{Approvers: second, PersonID: "p-cy", DecidedBy: "cy@example.com", Outcome: "approve", At: t0.Add(2 * time.Hour)},
		},
	}}
	if diff := cmp.Diff(want, r.Allocations); diff != "" {
		t.Errorf("after both steps (-want +got):\n%s", diff)
	}
	if !r.ExpiresAt.Equal(t0.Add(2*time.Hour + week)) {
		t.Errorf("unused, it expires at %s; want a week after the approval", r.ExpiresAt)
	}
	if r.Awaits(bo) || r.Awaits(cy) {
		t.Error("an approved request still awaits somebody")
	}
	if ext := extending(t, approved(t, terms(first, second))); !ext.Awaits(bo) || ext.Awaits(cy) || ext.Awaits(ana) {
		t.Errorf("an extension: awaits bo %t, cy %t, ana %t; want true, false, false", ext.Awaits(bo), ext.Awaits(cy), ext.Awaits(ana))
	}
	if diff := cmp.Diff(want[0].Steps, r.Steps()); diff != "" {
		t.Errorf("Steps (-want +got):\n%s", diff)
	}
}

func TestDecide_onePersonOneStep(t *testing.T) { // S-76
	everyone := People{Groups: []string{"leads"}, Emails: []string{"cy@example.com"}}
	for name, again := range map[string]Person{
		"the same person":                     bo,
		"the same person under a new email":   {ID: "p-bo", Email: "robert@example.com", Groups: []string{"leads"}},
		"another person under the same email": {ID: "p-two", Email: "BO@example.com", Groups: []string{"leads"}},
	} {
		r := newRequest(t, terms(everyone, everyone))
		if _, err := r.Decide(as(bo), Decision{Approve: true}, week, t0); err != nil {
			t.Fatal(err)
		}
		before := text(r)
		for _, approve := range []bool{true, false} {
			if _, err := r.Decide(as(again), Decision{Approve: approve}, week, t0); kindOf(err) != Denied {
				t.Errorf("%s decides both steps: got %v, want it denied", name, err)
			}
		}
		if r.Awaits(again) || text(r) != before {
			t.Errorf("%s: the request awaits them again, or changed", name)
		}
		if _, err := r.Decide(as(cy), Decision{Approve: true}, week, t0); err != nil {
			t.Errorf("another person decides the second step: %v", err)
		}
	}
}

func TestDecide_self(t *testing.T) { // S-76
	lead := []string{"leads"}
	for name, self := range map[string]Person{
		"the same person":                       {ID: "p-ana", Email: "ana@example.com", Groups: lead},
		"the same person under another email":   {ID: "p-ana", Email: "anna@example.com", Groups: lead},
		"another person under the same email":   {ID: "p-2", Email: "ana@example.com", Groups: lead},
		"the same email in another case":        {ID: "p-2", Email: "ANA@Example.COM", Groups: lead},
		"the requester as admin and first lead": {ID: "p-ana", Email: "ana@example.com", Groups: lead},
	} {
		who := Principal{Kind: KindPerson, Person: self, Admin: true}
		for _, approve := range []bool{true, false} {
			r := newRequest(t, terms(first))
			before := text(r)
			if _, err := r.Decide(who, Decision{Approve: approve}, week, t0); kindOf(err) != Denied || text(r) != before {
				t.Errorf("%s decides (approve %t): got %v, want it denied", name, approve, err)
			}
			if r.Awaits(self) {
				t.Errorf("%s: the request awaits its own requester", name)
			}
			if ext := extending(t, approved(t, terms(first))); true {
				if _, err := ext.Decide(who, Decision{Approve: approve}, week, t0); kindOf(err) != Denied {
					t.Errorf("%s decides their extension (approve %t): got %v, want it denied", name, approve, err)
				}
			}
		}
		allowed := terms(first)
		allowed.AllowSelfApproval = true
		r := newRequest(t, allowed)
		if !r.Awaits(self) {
			t.Errorf("%s, where the policy allows it: the request does not await them", name)
		}
		if _, err := r.Decide(who, Decision{Approve: true}, week, t0); err != nil {
			t.Errorf("%s, where the policy allows it: %v", name, err)
		}
	}
	// Allowed or not, it takes a step that names them.
	allowed := terms(second)
	allowed.AllowSelfApproval = true
	if _, err := newRequest(t, allowed).Decide(as(ana), Decision{Approve: true}, week, t0); kindOf(err) != Denied {
		t.Errorf("self-approval by somebody whom no step names: got %v, want it denied", err)
	}
	// A Kelvin sign is no k.
	k := newRequest(t, terms(first))
	k.Email = "kate@example.com"
	if _, err := k.Decide(as(Person{ID: "p-k", Email: "\u212Aate@example.com", Groups: lead}), Decision{Approve: true}, week, t0); err != nil {
		t.Errorf("another address that only looks the same: %v", err)
	}
}

// What is decided is what was looked at: a page that stayed open, or a message in
// a chat, decides nothing that was asked for since.
func TestDecide_round(t *testing.T) { // S-76
	round := func(n int) *int { return &n }
	for name, c := range map[string]struct {
		request *Request
		round   *int
		want    Kind
	}{
		"the request":                    {newRequest(t, terms(first)), round(0), ""},
		"whatever waits":                 {extending(t, running(t, terms(first))), nil, ""},
		"the extension":                  {extending(t, running(t, terms(first))), round(1), ""},
		"the request, and not what came": {extending(t, running(t, terms(first))), round(0), Conflict},
		"what nobody asked for yet":      {newRequest(t, terms(first)), round(1), Conflict},
	} {
		for _, approve := range []bool{true, false} {
			r := *c.request
			r.Allocations = slices.Clone(r.Allocations)
			for i := range r.Allocations {
				r.Allocations[i].Steps = slices.Clone(r.Allocations[i].Steps)
			}
			before := text(&r)
			_, err := r.Decide(as(bo), Decision{Approve: approve, Round: c.round}, week, t0)
			if kindOf(err) != c.want || (err != nil) != (text(&r) == before) {
				t.Errorf("%s (approve %t): got %v, want kind %q", name, approve, err, c.want)
			}
		}
	}
}

// Only the requester breaks the glass, only where the terms have some, only while
// something waits; what they give as a reason has the bounds of every text.
func TestMayBreakGlass(t *testing.T) { // S-76
	glass := terms(first)
	glass.BreakGlass = true
	waits, ext := newRequest(t, glass), extending(t, approved(t, glass))
	for name, c := range map[string]struct {
		request *Request
		who     Principal
		want    bool
	}{
		"the requester":             {waits, as(ana), true},
		"an approver":               {waits, as(bo), false},
		"an admin":                  {waits, admin, false},
		"the same email":            {waits, as(anaAgain), false},
		"the requester, for more":   {ext, as(ana), true},
		"an approver, of an ext":    {ext, as(bo), false},
		"where nothing waits":       {approved(t, glass), as(ana), false},
		"where the terms have none": {newRequest(t, terms(first)), as(ana), false},
	} {
		if got := c.request.MayBreakGlass(c.who); got != c.want {
			t.Errorf("%s: %t, want %t", name, got, c.want)
		}
	}
	for _, reason := range []string{emergency + "\x00", strings.Repeat("x", MaxJustification+1)} {
		r := newRequest(t, glass)
		before := text(r)
		if _, err := r.BreakGlass(as(ana), reason, week, t0); kindOf(err) != Invalid || text(r) != before {
			t.Errorf("the glass is broken with %d bytes that end in %q: %v", len(reason), reason[len(reason)-1:], err)
		}
	}
}

// A request goes to another identity of who made it, and never to one that has
// decided a step of it: that would be self-approval by the back door.
func TestRelink(t *testing.T) { // S-54 S-76
	renamed := Person{ID: ana.ID, Email: "ana.lee@example.com"}
	self := terms(first)
	self.AllowSelfApproval = true
	decided := func(t testing.TB, terms Terms, id, email string) *Request {
		r := approved(t, terms)
		s := &r.Allocations[0].Steps[0]
		s.PersonID, s.DecidedBy = id, email
		return r
	}
	for name, c := range map[string]struct {
		request *Request
		to      Person
		want    Kind
	}{
		"another identity with their email":       {newRequest(t, terms(first)), anaAgain, ""},
		"the same person under a new email":       {newRequest(t, terms(first)), renamed, ""},
		"somebody else":                           {newRequest(t, terms(first)), bo, FailedPrecondition},
		"decided by somebody else":                {approved(t, terms(first)), anaAgain, ""},
		"decided by that identity":                {decided(t, terms(first), anaAgain.ID, "as.they.were@example.com"), anaAgain, FailedPrecondition},
		"decided under that email":                {decided(t, terms(first), "p-third", "Ana@Example.com"), anaAgain, FailedPrecondition},
		"decided by that identity, as is allowed": {decided(t, self, anaAgain.ID, anaAgain.Email), anaAgain, ""},
	} {
		r := c.request
		before := text(r)
		_, err := r.Relink(admin, c.to, t0)
		switch {
		case kindOf(err) != c.want || err != nil && text(r) != before:
			t.Errorf("%s: got %v, want kind %q", name, err, c.want)
		case err == nil && (r.PersonID != c.to.ID || r.Email != c.to.Email):
			t.Errorf("%s: the request is %s's, %s", name, r.PersonID, r.Email)
		}
	}
}

func TestDecide_what(t *testing.T) {
	for _, c := range []struct {
		name    string
		d       Decision
		want    Kind
		minutes int
	}{
		{"as asked", Decision{Approve: true}, "", 60},
		{"less", Decision{Approve: true, Minutes: 1}, "", 1},
		{"more, up to the maximum", Decision{Approve: true, Minutes: 120}, "", 120},
		{"more than the maximum", Decision{Approve: true, Minutes: 121}, Invalid, 0},
		{"less than nothing", Decision{Approve: true, Minutes: -1}, Invalid, 0},
		{"a long reason", Decision{Approve: true, Reason: strings.Repeat("ß", MaxJustification)}, "", 60},
		{"a reason too long", Decision{Approve: true, Reason: strings.Repeat("ß", MaxJustification+1)}, Invalid, 0},
		{"a reason with NUL", Decision{Reason: "\x00"}, Invalid, 0},
		{"minutes of a denial", Decision{Minutes: 7, Reason: "no"}, "", 60},
	} {
		r := newRequest(t, terms(first))
		before := text(r)
		_, err := r.Decide(as(bo), c.d, week, t0)
		switch {
		case kindOf(err) != c.want:
			t.Errorf("%s: got %v, want kind %q", c.name, err, c.want)
		case err != nil && text(r) != before:
			t.Errorf("%s was refused and changed the request", c.name)
		case err == nil && (r.Minutes() != c.minutes || r.Allocations[0].Reason != c.d.Reason):
			t.Errorf("%s: got %d minutes, reason %q; want %d, %q", c.name, r.Minutes(), r.Allocations[0].Reason, c.minutes, c.d.Reason)
		}
	}
	r := newRequest(t, terms(first))
	if _, err := r.Decide(as(bo), Decision{Reason: "no"}, week, t0.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if a := r.Allocations[0]; a.State != Refused || a.Steps[0].Outcome != "deny" || a.DecidedBy != "bo@example.com" || !r.EndedAt.Equal(t0.Add(time.Hour)) {
		t.Errorf("a denied request: got %+v, ended %s; want it refused by bo an hour later", a, r.EndedAt)
	}
}

// TestDeadlines holds each state to its own, to the instant.
func TestDeadlines(t *testing.T) { // S-76
	scheduled := func(t testing.TB) *Request {
		r, err := NewRequest("r1", ana, testRole, terms(first), Ask{Minutes: 60, StartAt: t0.Add(48 * time.Hour)}, week, t0)
		if err != nil {
			t.Fatal(err)
		}
		approve(t, r, t0)
		return r
	}
	for _, c := range []struct {
		name string
		r    *Request
		at   time.Time
		by   EndedBy
	}{
		{"pending", newRequest(t, terms(first)), t0.Add(week), ""},
		{"approved", approved(t, terms(first)), t0.Add(week), EndedByUnused},
		{"approved for later", scheduled(t), t0.Add(48*time.Hour + week), EndedByUnused},
		{"running", running(t, terms(first)), t0.Add(time.Hour), EndedByTime},
		{"running, with an extension asked", extending(t, running(t, terms(first))), t0.Add(time.Hour), EndedByTime},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, _, due := c.r.Due(c.at.Add(-1)); due {
				t.Error("it is due a moment before its time")
			}
			if _, err := c.r.Expire(system, c.at.Add(-1)); kindOf(err) != Conflict {
				t.Errorf("Expire before its time: got %v, want a conflict", err)
			}
			if by, at, due := c.r.Due(c.at); !due || by != c.by || !at.Equal(c.at) {
				t.Errorf("Due at its time: got %q, %s, %t; want %q, %s, true", by, at, due, c.by, c.at)
			}
			before := text(c.r)
			for _, approve := range []bool{true, false} {
				if _, err := c.r.Decide(as(bo), Decision{Approve: approve}, week, c.at); kindOf(err) != Conflict {
					t.Errorf("a decision (approve %t) at its end: got %v, want a conflict", approve, err)
				}
			}
			if _, err := c.r.Revoke(admin, c.at); kindOf(err) != Conflict {
				t.Errorf("Revoke at its end: got %v, want a conflict", err)
			}
			if err := c.r.CheckMint(c.at); kindOf(err) != Conflict {
				t.Errorf("CheckMint at its end: got %v, want a conflict", err)
			}
			if text(c.r) != before {
				t.Error("a refusal changed the request")
			}
			if _, err := c.r.Expire(system, c.at.Add(time.Hour)); err != nil {
				t.Fatalf("Expire an hour late: %v", err)
			}
			if c.r.Status != StatusExpired || c.r.EndedBy != c.by || !c.r.EndedAt.Equal(c.at) {
				t.Errorf("expired: got %s by %q at %s, want expired by %q at %s", c.r.Status, c.r.EndedBy, c.r.EndedAt, c.by, c.at)
			}
			if c.r.Asked() != nil {
				t.Error("an expired request still asks for something")
			}
			if _, err := c.r.Expire(system, c.at.Add(time.Hour)); kindOf(err) != Conflict || !strings.Contains(err.Error(), "already expired") {
				t.Errorf("Expire again: got %v, want a conflict that says it is already expired", err)
			}
		})
	}
}

func TestExtend_running(t *testing.T) {
	for _, c := range []struct {
		name    string
		ask     int
		asked   time.Duration // after the clock started, of 60 minutes
		decided time.Duration
		give    int // by the approver; 0 as asked
		want    time.Duration
	}{
		{"decision time and minutes", 60, 30 * time.Minute, 40 * time.Minute, 0, 100 * time.Minute},
		{"the approver gives less", 60, 30 * time.Minute, 40 * time.Minute, 30, 70 * time.Minute},
		{"it never shortens", 10, 0, time.Minute, 0, 60 * time.Minute},
		{"to the minute of the present end", 30, 30 * time.Minute, 30 * time.Minute, 0, 60 * time.Minute},
		{"at the last moment", 120, 59 * time.Minute, time.Hour - 1, 0, 3*time.Hour - 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := running(t, terms(first))
			if _, err := r.Extend(as(ana), c.ask, "more", t0.Add(c.asked)); err != nil {
				t.Fatal(err)
			}
			if !r.EndsAt.Equal(t0.Add(time.Hour)) {
				t.Errorf("asking moved the end to %s", r.EndsAt)
			}
			if _, err := r.Decide(as(bo), Decision{Approve: true, Minutes: c.give}, week, t0.Add(c.decided)); err != nil {
				t.Fatal(err)
			}
			if got := r.EndsAt.Sub(t0); got != c.want {
				t.Errorf("the new end is %s after the clock started, want %s", got, c.want)
			}
			if old := r.Allocations[0]; old.State != Superseded || !old.SupersededAt.Equal(t0.Add(c.decided)) {
				t.Errorf("the old allocation: got %s at %s, want it superseded at the decision", old.State, old.SupersededAt)
			}
			if r.Active() != &r.Allocations[1] || r.Asked() != nil {
				t.Error("the extension is not the one active allocation")
			}
			if !r.ClockStartedAt.Equal(t0) {
				t.Errorf("the clock started at %s, want it left alone", r.ClockStartedAt)
			}
		})
	}
}

func TestExtend_notRunning(t *testing.T) {
	for _, c := range []struct {
		name            string
		ask, give, want int
	}{
		{"the larger", 90, 0, 90},
		{"it never shortens", 30, 0, 60},
		{"the approver gives less than there is", 90, 20, 60},
	} {
		r := approved(t, terms(first))
		if _, err := r.Extend(as(ana), c.ask, "more", t0); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Decide(as(bo), Decision{Approve: true, Minutes: c.give}, week, t0.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if r.Minutes() != c.want || r.State() != StateApproved || !r.ExpiresAt.Equal(t0.Add(week)) {
			t.Errorf("%s: got %d minutes, %s until %s; want %d, approved as before", c.name, r.Minutes(), r.State(), r.ExpiresAt, c.want)
		}
	}
}

func TestExtend_limits(t *testing.T) {
	// The clock may run for 360 minutes in all.
	r := running(t, terms())
	r.EndsAt = t0.Add(5 * time.Hour)
	at := t0.Add(4*time.Hour + 30*time.Minute)
	if _, err := r.Extend(as(ana), 91, "more", at); kindOf(err) != FailedPrecondition || !strings.Contains(err.Error(), "leaves 1 h 30 min") {
		t.Errorf("one minute beyond the total: got %v, want it refused with what is left", err)
	}
	if _, err := r.Extend(as(ana), 90, "more", at); err != nil {
		t.Fatalf("up to the total: %v", err)
	}
	if _, err := r.Decide(system, Decision{Approve: true}, week, at.Add(10*time.Minute)); err != nil {
		t.Fatal(err)
	}
	if got, want := r.EndsAt, t0.Add(6*time.Hour); !got.Equal(want) {
		t.Errorf("decided later, the end is %s; want %s, the total", got, want)
	}
	// Beyond the total, for what ran before the policy became what it is: the
	// extension moves nothing, forward or back.
	past := extending(t, running(t, terms()))
	past.EndsAt = t0.Add(7 * time.Hour)
	if _, err := past.Decide(system, Decision{Approve: true}, week, t0.Add(6*time.Hour+30*time.Minute)); err != nil || !past.EndsAt.Equal(t0.Add(7*time.Hour)) {
		t.Errorf("an end beyond the total: got %s, %v; want it left alone", past.EndsAt, err)
	}
	for name, c := range map[string]struct {
		minutes       int
		justification string
	}{
		"more than the policy gives at a time": {121, "more"},
		"none":                                 {0, "more"},
		"with a justification too long":        {10, strings.Repeat("x", MaxJustification+1)},
	} {
		r := running(t, terms())
		if _, err := r.Extend(as(ana), c.minutes, c.justification, t0); kindOf(err) != Invalid || len(r.Allocations) != 1 {
			t.Errorf("an extension by %s: got %v, want it refused as invalid", name, err)
		}
	}
}

func TestExtend_denied(t *testing.T) {
	for name, r := range map[string]*Request{"approved": approved(t, terms(first)), "running": running(t, terms(first))} {
		before := *r
		before.Allocations = slices.Clone(r.Allocations)
		extending(t, r)
		if _, err := r.Decide(as(bo), Decision{Reason: "no"}, week, t0.Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if a := r.Allocations[1]; a.State != Refused || a.Reason != "no" {
			t.Errorf("%s: the extension is %s because %q, want it denied because \"no\"", name, a.State, a.Reason)
		}
		after := *r
		after.Allocations = r.Allocations[:1]
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("%s: a denied extension changed the request:\n%s", name, diff)
		}
		if _, err := r.Extend(as(ana), 30, "please", t0.Add(2*time.Minute)); err != nil {
			t.Errorf("%s: asking again after a denial: %v", name, err)
		}
	}
}

// TestExtend_shown says which minutes and steps are shown while an extension is
// asked, and after it was denied.
func TestExtend_shown(t *testing.T) {
	for name, r := range map[string]*Request{"approved": approved(t, terms(first)), "running": running(t, terms(first))} {
		extending(t, r)
		if r.Minutes() != 60 {
			t.Errorf("%s, 90 asked: it has %d minutes, want the 60 approved", name, r.Minutes())
		}
		if steps := r.Steps(); len(steps) != 1 || steps[0].Outcome != "" {
			t.Errorf("%s, asked: the steps are %+v, want the open one", name, steps)
		}
		if _, err := r.Decide(as(bo), Decision{}, week, t0); err != nil {
			t.Fatal(err)
		}
		if r.Minutes() != 60 {
			t.Errorf("%s, 90 denied: it has %d minutes, want the 60 approved", name, r.Minutes())
		}
		if steps := r.Steps(); len(steps) != 1 || steps[0].Outcome != "approve" {
			t.Errorf("%s, denied: the steps are %+v, want those of what is in force", name, steps)
		}
	}
}

func TestExtend_startsWhileAsked(t *testing.T) {
	r := extending(t, approved(t, terms(first)))
	if !r.StartClock(t0.Add(time.Hour)) {
		t.Fatal("the clock did not start")
	}
	if got, want := r.EndsAt, t0.Add(2*time.Hour); !got.Equal(want) {
		t.Errorf("the end is %s, want %s: what was approved then", got, want)
	}
	if _, err := r.Decide(as(bo), Decision{Approve: true}, week, t0.Add(90*time.Minute)); err != nil {
		t.Fatal(err)
	}
	if got, want := r.EndsAt, t0.Add(3*time.Hour); !got.Equal(want) {
		t.Errorf("extended, the end is %s, want %s", got, want)
	}
}

func TestShorten(t *testing.T) {
	end := t0.Add(time.Hour)
	for _, c := range []struct {
		name string
		end  time.Time
		want Kind
	}{
		{"earlier", end.Add(-1), ""},
		{"in a moment", t0.Add(1), ""},
		{"now", t0, Invalid},
		{"earlier than now", t0.Add(-time.Hour), Invalid},
		{"the same end", end, Invalid},
		{"later", end.Add(time.Hour), Invalid},
	} {
		r := running(t, terms(first))
		_, err := r.Shorten(as(ana), c.end, t0)
		want := end
		if c.want == "" {
			want = c.end
		}
		if kindOf(err) != c.want || !r.EndsAt.Equal(want) {
			t.Errorf("%s: got %v and the end %s, want kind %q and %s", c.name, err, r.EndsAt, c.want, want)
		}
	}
	ahead := running(t, terms(first))
	ahead.ClockStartedAt = t0.Add(time.Minute)
	if _, err := ahead.Shorten(as(ana), t0.Add(time.Minute), t0); kindOf(err) != Invalid {
		t.Errorf("to where the clock starts, by AWS's clock: got %v, want it refused as invalid", err)
	}
	if _, err := ahead.Shorten(as(ana), t0.Add(time.Minute+1), t0); err != nil {
		t.Errorf("to behind where the clock starts, by AWS's clock: %v", err)
	}
	for _, c := range []struct {
		name    string
		minutes int
		want    Kind
	}{
		{"less", 59, ""}, {"one", 1, ""}, {"none", 0, Invalid}, {"as many", 60, Invalid}, {"more", 61, Invalid},
		{"negative", -10, Invalid}, {"so many that they overflow to half an hour", 307_445_735 + 30, Invalid},
	} {
		for _, r := range []*Request{approved(t, terms(first)), running(t, terms(first))} {
			state, before := r.State(), text(r)
			_, err := r.ShortenTo(as(bo), c.minutes, t0)
			switch {
			case kindOf(err) != c.want:
				t.Errorf("to %s, %s: got %v, want kind %q", c.name, state, err, c.want)
			case err != nil && text(r) != before:
				t.Errorf("to %s, %s was refused and changed the request", c.name, state)
			case err == nil && state == StateApproved && r.Minutes() != c.minutes:
				t.Errorf("to %s, approved: got %d minutes, want %d", c.name, r.Minutes(), c.minutes)
			case err == nil && state == StateRunning && !r.EndsAt.Equal(t0.Add(time.Duration(c.minutes)*time.Minute)):
				t.Errorf("to %s, running: got the end %s, want %d minutes from now", c.name, r.EndsAt, c.minutes)
			}
		}
	}
}

// TestEnd says what the acts that end a request leave behind.
func TestEnd(t *testing.T) { // S-75
	at := t0.Add(10 * time.Minute)
	for _, c := range []struct {
		name string
		r    *Request
		do   func(r *Request) (Action, error)
		want Status
		by   EndedBy
	}{
		{"cancel", extending(t, approved(t, terms(first))), func(r *Request) (Action, error) { return r.Cancel(as(ana), at) }, StatusCanceled, ""},
		{"cancel pending", newRequest(t, terms(first)), func(r *Request) (Action, error) { return r.Cancel(as(ana), at) }, StatusCanceled, ""},
		{"done", extending(t, running(t, terms(first))), func(r *Request) (Action, error) { return r.Done(as(ana), at) }, StatusExpired, EndedByDone},
		{"revoke", extending(t, running(t, terms(first))), func(r *Request) (Action, error) { return r.Revoke(as(bo), at) }, StatusRevoked, ""},
		{"fail", extending(t, approved(t, terms(first))), func(r *Request) (Action, error) { return r.Fail(system, at) }, StatusFailed, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			last := len(c.r.Allocations) - 1
			if _, err := c.do(c.r); err != nil {
				t.Fatal(err)
			}
			if c.r.Status != c.want || c.r.EndedBy != c.by || !c.r.EndedAt.Equal(at) {
				t.Errorf("got %s by %q at %s, want %s by %q at %s", c.r.Status, c.r.EndedBy, c.r.EndedAt, c.want, c.by, at)
			}
			if got := c.r.Allocations[last].State; got != Closed || c.r.Asked() != nil {
				t.Errorf("what waited is %s, want closed", got)
			}
			if _, ok := c.r.Grant(); ok {
				t.Error("an ended request still is a grant")
			}
			if c.r.StartClock(at) {
				t.Error("the clock of an ended request starts")
			}
			if err := c.r.CheckMint(at); kindOf(err) != Conflict {
				t.Errorf("CheckMint: got %v, want a conflict", err)
			}
			if _, _, due := c.r.Due(at.Add(1000 * time.Hour)); due || c.r.Awaits(bo) {
				t.Error("an ended request is due, or awaits somebody")
			}
			if c.r.Minutes() == 0 || len(c.r.Steps()) != 1 {
				t.Errorf("it forgot its minutes or steps: %d, %v", c.r.Minutes(), c.r.Steps())
			}
		})
	}
	if r := new(Request); r.Minutes() != 0 || r.Steps() != nil {
		t.Error("the zero request has minutes or steps")
	}
}

func TestTerms(t *testing.T) {
	p := AccessPolicy{
		Name: "dev", Approval: Approval{Steps: []People{first, second}}, MaxMinutes: 120, RequireJustification: true, AllowSelfApproval: true,
	}
	want := Terms{
		Policy: "dev", Digest: p.Digest(), Steps: []People{first, second}, MaxMinutes: 120, MaxTotalMinutes: 360,
		RequireJustification: true, AllowSelfApproval: true,
	}
	if diff := cmp.Diff(want, p.Terms()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestRandomActs_S76 lets random people do random things to a request, and
// holds every state they reach to what must always be true.
func TestRandomActs_S76(t *testing.T) { // S-76
	runs := 10_000
	if testing.Short() {
		runs = 1_000
	}
	for seed := range runs {
		randomActs(t, uint64(seed))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func randomActs(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 76))
	pick := func(n int) int { return rnd.IntN(n) }

	lead := []string{"leads"}
	people := []Principal{
		as(ana), as(bo), as(cy), as(eve), admin, system, worker, nobody,
		as(Person{ID: "p-ana", Email: "ana@example.com", Groups: lead}),
		as(Person{ID: "p-2", Email: "ANA@example.com", Groups: lead}), as(anaAgain),
		as(Person{ID: "p-3", Email: "bO@example.com", Groups: lead}),
		as(Person{ID: "p-dan", Email: "dan@example.com", Groups: lead}),
	}
	tm := terms([][]People{{}, {first}, {first, first}, {first, second}}[pick(4)]...)
	tm.AllowSelfApproval, tm.BreakGlass = pick(8) == 0, pick(4) == 0
	ask := Ask{Minutes: 1 + pick(120)}
	if pick(4) == 0 {
		ask.StartAt = t0.Add(time.Duration(pick(96)) * time.Hour)
	}
	r, err := NewRequest("r", ana, testRole, tm, ask, week, t0)
	if err != nil {
		t.Fatal(err)
	}

	now := t0
	for range 25 {
		now = now.Add(time.Duration(pick(20)) * time.Minute)
		if pick(15) == 0 {
			now = now.Add(time.Duration(pick(200)) * time.Hour)
		}
		who := people[pick(len(people))]
		if pick(3) == 0 { // the ones who can, so that runs come far
			who = []Principal{as(ana), as(bo), as(cy), system}[pick(4)]
		}
		was := clone(r)
		_, _, overdue := r.Due(now)
		var act string
		var err error
		switch n := pick(25); {
		case n < 6:
			act, err = "approve", errOf(r.Decide(who, Decision{Approve: true, Minutes: pick(140) - 10}, week, now))
		case n < 7:
			act, err = "deny", errOf(r.Decide(who, Decision{}, week, now))
		case n < 10:
			act, err = "extend", errOf(r.Extend(who, pick(130), "more", now))
		case n < 14:
			act = "mint"
			if err = r.CheckMint(now); err == nil {
				r.StartClock(now.Add(-time.Duration(pick(5)) * time.Second))
			}
		case n < 15:
			act, err = "shorten", errOf(r.Shorten(who, now.Add(time.Duration(pick(200)-20)*time.Minute), now))
		case n < 16:
			act, err = "shorten", errOf(r.ShortenTo(who, pick(130)-5, now))
		case n < 17:
			act, err = "cancel", errOf(r.Cancel(who, now))
		case n < 18:
			act, err = "done", errOf(r.Done(who, now))
		case n < 19:
			act, err = "revoke", errOf(r.Revoke(who, now))
		case n < 20:
			act, err = "fail", errOf(r.Fail(who, now))
		case n < 22:
			act, err = "break", errOf(r.BreakGlass(who, emergency[pick(2):], week, now))
		case n < 23:
			act, err = "relink", errOf(r.Relink(who, []Person{anaAgain, ana, bo, eve}[pick(4)], now))
		default:
			act, err = "expire", errOf(r.Expire(who, now))
		}
		if err != nil {
			if !IsRefusal(err) {
				t.Errorf("%s is a fault: %v", act, err)
			}
			if !reflect.DeepEqual(was, r) {
				t.Errorf("%s was refused and changed the request:\n%s", act, cmp.Diff(was, r))
			}
			if !r.EndedAt.IsZero() && pick(4) == 0 {
				return
			}
			continue
		}
		if was.Status != StatusPending && was.Status != StatusApproved {
			t.Errorf("%s as %s changed a request that was %s", act, who.Name(), was.Status)
		}
		if overdue && act != "expire" {
			t.Errorf("%s as %s came after the end", act, who.Name())
		}
		if !was.EndsAt.IsZero() && r.EndsAt.Before(was.EndsAt) && act != "shorten" {
			t.Errorf("%s moved the end from %s to %s", act, was.EndsAt, r.EndsAt)
		}
		if !was.ClockStartedAt.IsZero() && !r.ClockStartedAt.Equal(was.ClockStartedAt) {
			t.Errorf("%s moved the clock's start", act)
		}
		checkInvariants(t, r)
	}
}

// errOf drops the event.
func errOf(_ Action, err error) error { return err }

// clone returns a copy of r that shares nothing that changes.
func clone(r *Request) *Request {
	c := *r
	c.Allocations = slices.Clone(r.Allocations)
	for i, a := range c.Allocations {
		c.Allocations[i].Steps = slices.Clone(a.Steps)
	}
	return &c
}

func checkInvariants(t *testing.T, r *Request) {
	t.Helper()
	count := map[AllocationState]int{}
	for _, a := range r.Allocations {
		count[a.State]++
		if a.State != Active && a.State != Superseded {
			continue
		}
		// It was in force: everybody who had to has approved it.
		if len(a.Steps) != len(r.Terms.Steps) {
			t.Errorf("an allocation has %d steps, want %d", len(a.Steps), len(r.Terms.Steps))
		}
		if a.BreakGlass {
			if !r.Terms.BreakGlass || len(a.Steps) == 0 || !strings.EqualFold(a.DecidedBy, "ana@example.com") || len(a.Reason) < MinBreakGlass {
				t.Errorf("a glass was broken by %q under %+v because %q", a.DecidedBy, r.Terms, a.Reason)
			}
			continue
		}
		if len(a.Steps) == 0 && a.DecidedBy != "system" {
			t.Errorf("%q approved what is approved by nobody but the system", a.DecidedBy)
		}
		if a.Minutes < 1 || a.Minutes > r.Terms.MaxMinutes {
			t.Errorf("%d minutes are in force, want 1 to %d", a.Minutes, r.Terms.MaxMinutes)
		}
		by := map[string]bool{}
		for _, s := range a.Steps {
			email := strings.ToLower(s.DecidedBy)
			inLeads := slices.Contains([]string{"bo@example.com", "ana@example.com", "dan@example.com"}, email)
			switch {
			case s.Outcome != "approve" || s.At.IsZero():
				t.Errorf("a step of what is in force was not approved: %+v", s)
			case by[email] || by[s.PersonID]:
				t.Errorf("%s completed two steps", email)
			case email == "ana@example.com" && !r.Terms.AllowSelfApproval:
				t.Error("the requester approved their own request")
			case len(s.Approvers.Groups) > 0 && !inLeads, len(s.Approvers.Emails) > 0 && email != "cy@example.com":
				t.Errorf("%s approved a step of %s", email, s.Approvers)
			}
			by[email], by[s.PersonID] = true, true
		}
	}
	if !SameEmail(r.Email, "ana@example.com") || r.PersonID != ana.ID && r.PersonID != anaAgain.ID {
		t.Errorf("the request became %s's", r.Email)
	}
	if count[Active] > 1 || count[Asked] > 1 {
		t.Errorf("%d active and %d asked allocations, want at most one of each", count[Active], count[Asked])
	}
	if _, ok := r.Grant(); ok != (r.Status == StatusApproved) || ok && count[Active] != 1 {
		t.Errorf("a grant (%t) of a request that is %s with %d active allocations", ok, r.Status, count[Active])
	}
	if r.Status == StatusPending && count[Active] > 0 {
		t.Error("a pending request has time in force")
	}
	if r.EndedAt.IsZero() != (r.Status == StatusPending || r.Status == StatusApproved) {
		t.Errorf("a request that is %s ended at %s", r.Status, r.EndedAt)
	}
	if !r.EndedAt.IsZero() && count[Asked] > 0 {
		t.Error("an ended request still asks")
	}
	if r.ClockStartedAt.IsZero() != r.EndsAt.IsZero() {
		t.Errorf("a clock started at %s ends at %s", r.ClockStartedAt, r.EndsAt)
	}
	if last := r.ClockStartedAt.Add(time.Duration(r.Terms.MaxTotalMinutes) * time.Minute); r.EndsAt.After(last) {
		t.Errorf("the end is %s, beyond the total at %s", r.EndsAt, last)
	}
}

func TestLength(t *testing.T) {
	for minutes, want := range map[int]string{
		0: "0 min", 1: "1 min", 10: "10 min", 59: "59 min", 60: "1 h", 61: "1 h 1 min", 90: "1 h 30 min", 600: "10 h", 1439: "23 h 59 min",
		1440: "1 d", 14400: "10 d", 1530: "1 d 1 h 30 min", 2885: "2 d 5 min", 2890: "2 d 10 min",
	} {
		if got := Length(minutes); got != want {
			t.Errorf("%d minutes are %q, want %q", minutes, got, want)
		}
	}
}
