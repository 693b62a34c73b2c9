package control

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// people are who the tests of requests need.
type people struct {
	ana, bob, lea, cto, adm, aud, guest serval.Principal
}

func (w *world) people() people {
	return people{
		ana: w.engineer("ana@example.com"), bob: w.engineer("bob@example.com"), lea: w.signIn("lea@example.com", "leads"),
		cto: w.signIn("cto@example.com"), adm: w.signIn("adm@example.com"), aud: w.signIn("aud@example.com", "security"),
		guest: w.signIn("guest@example.com"),
	}
}

// decide approves or denies as somebody whose groups were read just now.
func (w *world) decide(who serval.Principal, id string, approve bool) (Request, error) {
	return w.plane.Decide(w.t.Context(), who, id, serval.Decision{Approve: approve})
}

// approved returns ana's request for admin, approved by both.
func (w *world) approved(p people, minutes int) *serval.Request {
	w.t.Helper()
	r := w.ask(p.ana, roleARN(prod, "admin"), minutes)
	for _, by := range []serval.Principal{p.lea, p.cto} {
		if _, err := w.decide(by, r.ID, true); err != nil {
			w.t.Fatal(err)
		}
	}
	return r
}

// open opens a session, and fails the test if that does.
func (w *world) open(who serval.Principal, id string) Opened {
	w.t.Helper()
	o, err := w.plane.Open(w.t.Context(), who, Opening{RequestID: id, Kind: serval.ForCredentials})
	if err != nil {
		w.t.Fatalf("opening a session under %s: %v", id, err)
	}
	return o
}

func TestRequest(t *testing.T) { each(t, testRequest) }

func testRequest(t *testing.T, w *world) {
	w.stock()
	p := w.people()
	suspended := p.ana
	suspended.Person.Suspended = "Your email changed."
	long := strings.Repeat("x", serval.MaxJustification+1)
	reader, admin := roleARN(prod, "reader"), roleARN(prod, "admin")
	for _, test := range []struct {
		name string
		who  serval.Principal
		arns []string
		ask  serval.Ask
		want serval.Kind
	}{
		{"one", p.ana, []string{reader}, serval.Ask{Minutes: 480}, ""},
		{"several", p.ana, []string{reader, roleARN(dev, "reader")}, serval.Ask{Minutes: 1}, ""},
		{"none", p.ana, nil, serval.Ask{Minutes: 1}, serval.Invalid},
		{"twice", p.ana, []string{reader, reader}, serval.Ask{Minutes: 1}, serval.Invalid},
		{"no ARN", p.ana, []string{"reader"}, serval.Ask{Minutes: 1}, serval.Invalid},
		{"not eligible", p.ana, []string{roleARN(prod, "secret")}, serval.Ask{Minutes: 1}, serval.NotFound},
		{"not there", p.ana, []string{roleARN(prod, "nothing")}, serval.Ask{Minutes: 1}, serval.NotFound},
		{"nobody's", p.guest, []string{reader}, serval.Ask{Minutes: 1}, serval.NotFound},
		{"suspended", suspended, []string{reader}, serval.Ask{Minutes: 1}, serval.FailedPrecondition},
		{"too long", p.ana, []string{reader}, serval.Ask{Minutes: 481}, serval.Invalid},
		{"too short", p.ana, []string{reader}, serval.Ask{}, serval.Invalid},
		{"no justification", p.ana, []string{admin}, serval.Ask{Minutes: 1, Justification: " "}, serval.Invalid},
		{"a book", p.ana, []string{reader}, serval.Ask{Minutes: 1, Justification: long}, serval.Invalid},
		{"one of them wrong", p.ana, []string{reader, roleARN(dev, "reader"), admin}, serval.Ask{Minutes: 1}, serval.Invalid},
		{"start too far", p.ana, []string{reader}, serval.Ask{Minutes: 1, StartAt: noon.Add(31 * 24 * time.Hour)}, serval.Invalid},
	} {
		t.Run(test.name, func(t *testing.T) {
			before, had := w.head(), len(w.mine(test.who))
			made, err := w.plane.Request(t.Context(), test.who, Ask{RoleARNs: test.arns, Ask: test.ask})
			wantKind(t, "requesting", err, test.want)
			if test.want == serval.NotFound && err.Error() != noRole(test.who.Person).Error() {
				t.Errorf("%q, want %q for no role and for one that is not theirs", err, noRole(test.who.Person))
			}
			want, n := []string{}, 0
			if test.want == "" {
				for range test.arns {
					want = append(want, "ana@example.com request.create done", "system request.approve done")
					n++
				}
			} else {
				want = append(want, test.who.Name()+" request.create refused")
			}
			if d := cmp.Diff(want, told(w.events(before))); d != "" {
				t.Errorf("events (-want +got):\n%s", d)
			}
			if got := len(w.mine(test.who)) - had; got != n || len(made) != n {
				t.Errorf("%d requests are kept and %d returned, want %d", got, len(made), n)
			}
			for i, r := range made {
				if d := cmp.Diff(w.request(r.ID), r.Request); d != "" {
					t.Errorf("kept and returned (-kept +returned):\n%s", d)
				}
				if r.Role.ARN != test.arns[i] || r.Status != serval.StatusApproved || (r.BatchID != "") != (n > 1) || r.BatchID != made[0].BatchID {
					t.Errorf("request %+v", r)
				}
			}
		})
	}

	many := make([]string, MaxBatch+1)
	for i := range many {
		many[i] = roleARN(prod, fmt.Sprint("reader", i))
	}
	_, err := w.plane.Request(t.Context(), p.ana, Ask{RoleARNs: many, Ask: serval.Ask{Minutes: 1}})
	wantKind(t, "too many", err, serval.Invalid)

	// A held role is not to be asked for.
	w.push(prod)
	_, err = w.plane.Request(t.Context(), p.ana, Ask{RoleARNs: []string{reader}, Ask: serval.Ask{Minutes: 1}})
	wantKind(t, "a held role", err, serval.FailedPrecondition)

	scheduled := w.ask(p.ana, roleARN(dev, "reader"), 30, func(a *serval.Ask) { a.StartAt = w.clock.now().Add(time.Hour) })
	if e := w.events(w.head() - 1)[0]; e.Target != scheduled.ID || e.Detail["start_at"] != "2026-03-01T13:00:00Z" {
		t.Errorf("event %+v, want the start", e)
	}

	// S-10: what is approved for a person is fixed with its policy.
	r := w.ask(p.ana, roleARN(dev, "reader"), 30, func(a *serval.Ask) { a.Ticket = "OPS-1" })
	e := w.events(w.head() - 2)
	want := map[string]string{
		"email": "ana@example.com", "role_arn": roleARN(dev, "reader"), "role_id": roleID(dev, "reader", 1), "status": "pending",
		"minutes": "30", "policy": "readers", "policy_digest": policies()[0].Digest(), "justification": "to see why it is slow", "ticket": "OPS-1",
	}
	if d := cmp.Diff(want, e[0].Detail); d != "" || e[0].Target != r.ID || e[0].RequestID != "http-1" || e[0].Address != "198.51.100.7" {
		t.Errorf("event %+v of the request (-want +got):\n%s", e[0], d)
	}
}

// mine returns who's requests.
func (w *world) mine(who serval.Principal) []Request {
	w.t.Helper()
	list, _, err := w.plane.Requests(w.t.Context(), who, RequestFilter{Limit: 1000})
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

// The steps go in order, each by another person, and all of it is told.
func TestSteps(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.stock()
		p := w.people()
		r := w.ask(p.ana, roleARN(prod, "admin"), 60)
		before := w.head()
		_, err := w.decide(p.cto, r.ID, true)
		wantKind(t, "the second step first", err, serval.Denied)
		if _, err := w.plane.Decide(t.Context(), p.lea, r.ID, serval.Decision{Approve: true, Minutes: 45, Reason: "less will do"}); err != nil {
			t.Fatal(err)
		}
		_, err = w.decide(p.lea, r.ID, true)
		wantKind(t, "both steps by one", err, serval.Denied)
		got, err := w.decide(p.cto, r.ID, true)
		if err != nil || got.Status != serval.StatusApproved || got.Minutes() != 45 || !got.ClockStartedAt.IsZero() {
			t.Errorf("approved: %+v, %v; want 45 minutes, and the clock standing", got, err)
		}
		_, err = w.decide(p.cto, r.ID, true)
		wantKind(t, "approved again", err, serval.Conflict)
		events := w.events(before)
		want := []string{
			"cto@example.com request.decide refused", "lea@example.com request.approve_step done",
			"lea@example.com request.decide refused", "cto@example.com request.approve done", "cto@example.com request.decide refused",
		}
		if d := cmp.Diff(want, told(events)); d != "" {
			t.Errorf("events (-want +got):\n%s", d)
		}
		if events[1].Detail["decision_reason"] != "less will do" || events[3].Detail["status"] != "approved" || events[3].Detail["minutes"] != "45" {
			t.Errorf("details %v and %v", events[1].Detail, events[3].Detail)
		}
		if hasDecided(r, serval.Person{}) {
			t.Error("nobody has decided what nobody has decided")
		}
		// Whoever decided sees it still when the group is gone.
		lost := w.signIn("lea@example.com")
		if _, err := w.plane.RequestByID(t.Context(), lost, r.ID); err != nil {
			t.Errorf("who decided does not see it any more: %v", err)
		}
	})
}

// Nobody approves their own, by person or by email, unless the policy says so.
func TestSelfApproval(t *testing.T) {
	w := newWorld(t).stock()
	p := w.people()
	_, err := w.decide(p.ana, w.ask(p.ana, roleARN(prod, "peer"), 5).ID, true)
	wantKind(t, "one's own", err, serval.Denied)
	twin := p.ana
	twin.Person.ID, twin.Person.Email = "person_other", "ANA@example.com"
	_, err = w.decide(twin, w.ask(p.ana, roleARN(prod, "peer"), 5).ID, true)
	wantKind(t, "the same email", err, serval.Denied)
	_, err = w.decide(p.bob, w.ask(p.ana, roleARN(prod, "peer"), 5).ID, true)
	wantKind(t, "a peer's", err, "")
	_, err = w.decide(p.ana, w.ask(p.ana, roleARN(prod, "own"), 5).ID, true)
	wantKind(t, "one's own, allowed", err, "")
}

// Groups decide only as fresh as an hour; an email always does.
func TestFreshGroups(t *testing.T) {
	w := newWorld(t).stock()
	p := w.people()
	ann := w.signIn("ann@example.com", "leads")                                                                                                                            // named by email and by group
	both := serval.Principal{Kind: serval.KindPerson, Person: serval.Person{ID: "person_b", Email: "cto@example.com", Groups: []string{"leads"}, GroupsAt: w.clock.now()}} // by group here, by email in the next step
	decide := func(who serval.Principal, at time.Duration, want serval.Kind) {
		t.Helper()
		id := w.ask(p.ana, roleARN(prod, "admin"), 60).ID
		who.Person.GroupsAt = w.clock.now().Add(-at)
		_, err := w.decide(who, id, true)
		wantKind(t, fmt.Sprintf("%s with groups of %s ago", who.Person.Email, at), err, want)
	}
	decide(p.lea, time.Hour, "")
	decide(p.lea, time.Hour+time.Microsecond, serval.LoginRequired)
	decide(both, time.Hour, "")
	decide(both, 2*time.Hour, serval.LoginRequired)
	decide(ann, 100*time.Hour, "")
	decide(p.bob, 2*time.Hour, serval.NotFound)
	decide(p.cto, 2*time.Hour, serval.Denied) // the second step, whose people have emails: signing in again would not help
}

// Whoever is suspended inherits nothing by an email that may be another's.
func TestSuspended(t *testing.T) {
	w := newWorld(t).stock()
	p := w.people()
	id := w.identity("cto@example.com", "engineering")
	id.Subject = "00u-recycled"
	newcomer, _, err := w.signInAs(w.plane, id)
	if err != nil {
		t.Fatal(err)
	}
	r := w.ask(p.ana, roleARN(prod, "admin"), 60)
	if _, err := w.decide(p.lea, r.ID, true); err != nil {
		t.Fatal(err)
	}
	_, err = w.plane.RequestByID(t.Context(), newcomer, r.ID)
	wantKind(t, "seeing", err, serval.NotFound)
	_, err = w.decide(newcomer, r.ID, true)
	wantKind(t, "approving", err, serval.NotFound)
	_, err = w.plane.Revoke(t.Context(), newcomer, r.ID, "")
	wantKind(t, "revoking", err, serval.NotFound)
	if list, _, err := w.plane.Approvals(t.Context(), newcomer, "", 9); err != nil || len(list) != 0 {
		t.Errorf("approvals: %d, %v; want none", len(list), err)
	}
	if list, _, err := w.plane.Approvals(t.Context(), p.cto, "", 9); err != nil || len(list) != 1 {
		t.Errorf("approvals of the one they are: %d, %v; want one", len(list), err)
	}

	// Of their own they can give back, and take nothing.
	own, running := w.ask(p.ana, roleARN(prod, "own"), 30), w.ask(p.ana, roleARN(prod, "reader"), 30)
	ana := p.ana
	ana.Person.Suspended = "Your email changed."
	_, err = w.decide(ana, own.ID, true)
	wantKind(t, "approving one's own", err, serval.FailedPrecondition)
	_, err = w.plane.Extend(t.Context(), ana, running.ID, 30, "")
	wantKind(t, "extending", err, serval.FailedPrecondition)
	_, err = w.plane.RoleHistory(t.Context(), ana, prod, "reader", "", "")
	wantKind(t, "reading what a role was", err, serval.FailedPrecondition)
	_, err = w.plane.Done(t.Context(), ana, running.ID)
	wantKind(t, "being done", err, "")
}

func TestExtend(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.stock()
		p := w.people()
		auto := w.ask(p.ana, roleARN(prod, "reader"), 30)
		before := w.head()
		got, err := w.plane.Extend(t.Context(), p.ana, auto.ID, 60, "it goes on")
		if err != nil || got.Minutes() != 60 || got.Asked() != nil {
			t.Errorf("extended %+v, %v; want 60 minutes at once", got, err)
		}
		events := w.events(before)
		if d := cmp.Diff([]string{"ana@example.com extension.create done", "system extension.approve done"}, told(events)); d != "" {
			t.Fatalf("events (-want +got):\n%s", d)
		}
		for _, e := range events {
			if e.Detail["extension_minutes"] != "60" || e.Detail["extension_justification"] != "it goes on" {
				t.Errorf("detail of %s: %v", e.Action, e.Detail)
			}
		}
		if events[1].ActorID != "" || events[1].ActorKind != serval.KindSystem {
			t.Errorf("approved by %+v, want the system", events[1])
		}

		steps := w.approved(p, 30)
		before = w.head()
		if _, err := w.plane.Extend(t.Context(), p.ana, steps.ID, 60, "it goes on"); err != nil {
			t.Fatal(err)
		}
		for _, by := range []serval.Principal{p.lea, p.cto} {
			if _, err := w.decide(by, steps.ID, true); err != nil {
				t.Fatal(err)
			}
		}
		want := []string{"ana@example.com extension.create done", "lea@example.com extension.approve_step done", "cto@example.com extension.approve done"}
		if d := cmp.Diff(want, told(w.events(before))); d != "" {
			t.Errorf("events (-want +got):\n%s", d)
		}
		if r := w.request(steps.ID); r.Minutes() != 60 || r.Allocations[0].State != serval.Superseded {
			t.Errorf("request %+v, want 60 minutes and the first allocation superseded", r)
		}
	})
}

func TestShortenAndRevoke(t *testing.T) {
	w := newWorld(t).stock()
	p := w.people()
	r := w.approved(p, 60)
	got, err := w.plane.Shorten(t.Context(), p.cto, r.ID, 20, time.Time{})
	if err != nil || got.Minutes() != 20 {
		t.Errorf("shortened to %d minutes, %v; want 20", got.Minutes(), err)
	}
	w.open(p.ana, r.ID)
	end := w.clock.now().Add(10 * time.Minute)
	got, err = w.plane.Shorten(t.Context(), p.ana, r.ID, 0, end)
	if err != nil || !got.EndsAt.Equal(end) {
		t.Errorf("shortened: %+v, %v; want the end at %s", got, err, end)
	}
	_, err = w.plane.Revoke(t.Context(), p.lea, r.ID, strings.Repeat("é", serval.MaxJustification+1))
	wantKind(t, "a book as the reason", err, serval.Invalid)
	reason := strings.Repeat("é", serval.MaxJustification)
	before := w.head()
	if got, err = w.plane.Revoke(t.Context(), p.lea, r.ID, reason); err != nil || got.Status != serval.StatusRevoked {
		t.Errorf("revoked: %+v, %v", got, err)
	}
	if e := w.events(before); len(e) != 1 || e[0].Reason != reason || e[0].Action != serval.RequestRevoke || e[0].Detail["ends_at"] != end.Format(time.RFC3339) {
		t.Errorf("events %+v", e)
	}
}

func TestLists(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.stock()
		p := w.people()
		var ids []string
		for i := range 5 {
			if i != 3 {
				w.clock.move(time.Second) // two of them at one instant
			}
			ids = append([]string{w.ask(p.ana, roleARN(prod, "admin"), 10+i).ID}, ids...)
		}
		if ids[1] < ids[2] {
			ids[1], ids[2] = ids[2], ids[1] // by id where the instant is one
		}
		w.clock.move(time.Second)
		theirs := w.ask(p.bob, roleARN(prod, "admin"), 10)
		var got []string
		var after string
		for pages := range 3 {
			list, next, err := w.plane.Requests(t.Context(), p.ana, RequestFilter{Limit: 2, After: after})
			if err != nil || (next != "") != (pages < 2) {
				t.Fatalf("page %d: next %q, %v", pages, next, err)
			}
			after = next
			for _, r := range list {
				got = append(got, r.ID)
			}
		}
		if d := cmp.Diff(ids, got); d != "" {
			t.Errorf("requests in pages (-want +got):\n%s", d)
		}
		for _, token := range []string{theirs.ID, "req_none", "1", "1.", "0.x", "-1.x", ".", "x.1", "99999999999999999999.x"} {
			_, _, err := w.plane.Requests(t.Context(), p.ana, RequestFilter{Limit: 2, After: token})
			wantKind(t, "requests behind "+token, err, serval.Invalid)
			_, _, err = w.plane.Approvals(t.Context(), p.lea, token, 2)
			wantKind(t, "approvals behind "+token, err, serval.Invalid)
		}
		// S-71: a place tells nothing of what is there.
		other, _, err := w.plane.Requests(t.Context(), p.ana, RequestFilter{Limit: 9, After: door.Place(theirs.CreatedAt, theirs.ID)})
		if err != nil || len(other) != len(ids) {
			t.Errorf("behind another's request: %d, %v; want all %d", len(other), err, len(ids))
		}
		if _, err := w.plane.Cancel(t.Context(), p.ana, ids[0]); err != nil {
			t.Fatal(err)
		}
		list, _, err := w.plane.Requests(t.Context(), p.ana, RequestFilter{Limit: 9, Status: serval.StatusCanceled})
		if err != nil || len(list) != 1 || list[0].ID != ids[0] {
			t.Errorf("canceled: %v, %v", list, err)
		}

		// Everybody's, and one person's, are for admins and auditors.
		for _, c := range []struct {
			name string
			who  serval.Principal
			f    RequestFilter
			want int // -1: refused
		}{
			{"an admin, everybody's", p.adm, RequestFilter{All: true, Limit: 99}, len(ids) + 1},
			{"an auditor, everybody's", p.aud, RequestFilter{All: true, Limit: 99}, len(ids) + 1},
			{"an admin, bob's", p.adm, RequestFilter{Email: "BOB@example.com", Limit: 99}, 1},
			{"an admin, their own", p.adm, RequestFilter{Limit: 99}, 0},
			{"ana, everybody's", p.ana, RequestFilter{All: true, Limit: 99}, -1},
			{"ana, bob's", p.ana, RequestFilter{Email: "bob@example.com", Limit: 99}, -1},
			{"ana, hers by her email", p.ana, RequestFilter{Email: "ana@example.com", Limit: 99}, -1},
			{"an approver, everybody's", p.lea, RequestFilter{All: true, Limit: 99}, -1},
		} {
			list, _, err := w.plane.Requests(t.Context(), c.who, c.f)
			if c.want < 0 {
				wantKind(t, c.name, err, serval.Denied)
			} else if err != nil || len(list) != c.want {
				t.Errorf("%s: %d, %v; want %d", c.name, len(list), err, c.want)
			}
		}

		approvals := func(who serval.Principal) (got []string) {
			list, _, err := w.plane.Approvals(t.Context(), who, "", 9)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range list {
				got = append(got, r.ID)
			}
			return got
		}
		if d := cmp.Diff(append([]string{theirs.ID}, ids[1:]...), approvals(p.lea)); d != "" {
			t.Errorf("approvals of the first step (-want +got):\n%s", d)
		}
		for _, who := range []serval.Principal{p.cto, p.ana, p.adm, p.aud} {
			if got := approvals(who); len(got) != 0 {
				t.Errorf("approvals of %s: %v, want none", who.Person.Email, got)
			}
		}
		if _, err := w.decide(p.lea, theirs.ID, true); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]string{theirs.ID}, approvals(p.cto)); d != "" {
			t.Errorf("approvals of the second step (-want +got):\n%s", d)
		}
		w.clock.move(serval.DefaultRequestExpiry)
		if got := approvals(p.lea); len(got) != 0 {
			t.Errorf("approvals a week later, before anybody swept: %v, want none", got)
		}
	})
}

// One person does not hide the others' requests from their approvers.
func TestOpenRequestsAreBounded(t *testing.T) {
	w := newWorld(t).stock()
	p := w.people()
	for range maxOpen - 1 {
		w.ask(p.ana, roleARN(prod, "reader"), 60)
	}
	both := Ask{RoleARNs: []string{roleARN(prod, "reader"), roleARN(dev, "reader")}, Ask: serval.Ask{Minutes: 1}}
	_, err := w.plane.Request(t.Context(), p.ana, both)
	wantKind(t, "two more, where one may be", err, serval.Exhausted)
	last := w.ask(p.ana, roleARN(prod, "reader"), 60)
	_, err = w.plane.Request(t.Context(), p.ana, Ask{RoleARNs: both.RoleARNs[:1], Ask: serval.Ask{Minutes: 1}})
	wantKind(t, "one too many", err, serval.Exhausted)
	w.ask(w.engineer("ben@example.com"), roleARN(prod, "reader"), 60) // somebody else's is taken
	if _, err := w.plane.Cancel(t.Context(), p.ana, last.ID); err != nil {
		t.Fatal(err)
	}
	w.ask(p.ana, roleARN(prod, "reader"), 60)
}

// A refused request is not recorded under a name that is another thing's.
func TestRefusedRequestHasARoleAsItsTarget(t *testing.T) {
	w := newWorld(t).stock()
	p := w.people()
	mine := w.ask(p.ana, roleARN(prod, "reader"), 60)
	for arn, want := range map[string]string{mine.ID: "", roleARN(prod, "nothing"): roleARN(prod, "nothing")} {
		ben := w.engineer("ben@example.com")
		before := w.head()
		if _, err := w.plane.Request(t.Context(), ben, Ask{RoleARNs: []string{arn}, Ask: serval.Ask{Minutes: 1}}); err == nil {
			t.Fatalf("%s could be requested", arn)
		}
		if e := w.events(before); len(e) != 1 || e[0].Target != want {
			t.Errorf("requesting %s: events %+v, want one with the target %q", arn, e, want)
		}
	}
}

// Extensions, their approvals, shortenings and the end of one running access,
// all at once over two replicas: the audit log says in which order they came,
// and the end is what the product says for that order.
func TestTheEndInAnyOrder(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.stock()
		p := w.people()
		planes := w.replicas()
		for round := range 12 {
			r := w.ask(p.ana, roleARN(prod, "peer"), 60)
			if _, err := w.decide(p.bob, r.ID, true); err != nil {
				t.Fatal(err)
			}
			before := w.head()
			acts := []func(*Plane) error{
				func(p1 *Plane) error { _, err := p1.Open(t.Context(), p.ana, opening(r.ID)); return err },
				func(p1 *Plane) error { _, err := p1.Open(t.Context(), p.ana, opening(r.ID)); return err },
				func(p1 *Plane) error { return errOf(p1.Extend(t.Context(), p.ana, r.ID, 90, "more")) },
				func(p1 *Plane) error {
					return errOf(p1.Decide(t.Context(), p.bob, r.ID, serval.Decision{Approve: true}))
				},
				func(p1 *Plane) error { return errOf(p1.Extend(t.Context(), p.ana, r.ID, 40, "more")) },
				func(p1 *Plane) error {
					return errOf(p1.Decide(t.Context(), p.bob, r.ID, serval.Decision{Approve: true, Minutes: 110}))
				},
				func(p1 *Plane) error { return errOf(p1.Shorten(t.Context(), p.bob, r.ID, 20+round, time.Time{})) },
			}
			if round%3 == 0 {
				acts = append(acts, func(p1 *Plane) error { return errOf(p1.Revoke(t.Context(), p.adm, r.ID, "enough")) })
			}
			var wg sync.WaitGroup
			for i := range acts {
				wg.Go(func() {
					w.clock.move(time.Duration(i*7) * time.Second)
					if err := acts[(i+round)%len(acts)](planes[i%2]); err != nil && !serval.IsRefusal(err) {
						t.Error(err)
					}
				})
			}
			wg.Wait()

			minutes, over := 60, false
			var start, end time.Time
			for _, e := range w.events(before) {
				if e.Target != r.ID || e.Outcome != serval.OutcomeDone {
					continue
				}
				if over {
					t.Errorf("round %d: %s came after the end", round, e.Action)
				}
				number := func(name string) (n int) {
					if _, err := fmt.Sscan(e.Detail[name], &n); err != nil {
						t.Fatalf("%s of %s: %v", name, e.Action, err)
					}
					return n
				}
				switch e.Action {
				case serval.SessionIssue:
					if e.Detail["clock_started_at"] != "" {
						if !start.IsZero() {
							t.Errorf("round %d: the clock started twice", round)
						}
						start = w.request(r.ID).ClockStartedAt
						end = start.Add(time.Duration(minutes) * time.Minute)
					}
				case serval.ExtensionApprove:
					minutes = number("minutes") // the larger, while the clock stands
					if later := e.At.Add(time.Duration(minutes) * time.Minute); !start.IsZero() && later.After(end) {
						end = later
					}
				case serval.RequestShorten:
					if minutes = number("minutes"); !start.IsZero() {
						end = e.At.Add(time.Duration(20+round) * time.Minute)
					}
				case serval.RequestRevoke:
					over = true
				}
			}
			got := w.request(r.ID)
			if !got.EndsAt.Equal(end) || got.EndedAt.IsZero() == over {
				t.Errorf("round %d: it ends at %s, ended %s; by the order in the log at %s, over %t", round, got.EndsAt, got.EndedAt, end, over)
			}
			w.clock.move(time.Minute)
		}
	})
}

// An approver finds what is theirs behind many that are not: in pages that
// may be empty, none of which looks at too much.
func TestApprovalsBehindManyOthers(t *testing.T) {
	w := newWorld(t).stock()
	w.plane.mostAwaiting = 80
	const others = 90
	p := w.people()
	mine := w.ask(p.ana, roleARN(prod, "peer"), 5) // bob's to decide, not lea's
	w.clock.move(time.Second)
	err := w.store.Write(t.Context(), w.clock.now(), func(tx *store.Tx) error {
		for i := range others {
			r, err := serval.NewRequest(fmt.Sprintf("req_%05d", i), p.ana.Person, mine.Role, policies()[1].Terms(),
				serval.Ask{Minutes: 5, Justification: "x"}, time.Hour, tx.Now)
			if err != nil {
				return err
			}
			if err := tx.SaveRequest(r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	list, next, err := w.plane.Approvals(t.Context(), p.bob, "", 10)
	if err != nil || len(list) != 0 || next == "" {
		t.Fatalf("the first page has %d, then %q, %v; want none, and another behind", len(list), next, err)
	}
	list, next, err = w.plane.Approvals(t.Context(), p.bob, next, 10)
	if err != nil || len(list) != 1 || list[0].ID != mine.ID || next != "" {
		t.Errorf("the second page has %d, then %q, %v; want the one, and no other", len(list), next, err)
	}
	seen, token := map[string]bool{}, ""
	for pages := 1; ; pages++ {
		list, next, err := w.plane.Approvals(t.Context(), p.lea, token, 31)
		if err != nil || len(list) > 31 {
			t.Fatalf("page %d: %d, %v", pages, len(list), err)
		}
		for _, r := range list {
			seen[r.ID] = true
		}
		if token = next; next == "" {
			break
		}
	}
	if len(seen) != others {
		t.Errorf("lea's pages hold %d, want %d", len(seen), others)
	}
}
