package control

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// emergency has the thirty characters that breaking the glass needs.
const emergency = "the shop is down, nobody is up"

// withGlass adds a role whose policy has a glass to break.
func (w *world) withGlass() *world {
	w.t.Helper()
	w.stock(aRole(prod, "glass"))
	if err := w.plane.Declare(w.t.Context(), serval.System(), 0, accounts(), append(policies(), glassPolicy())); err != nil {
		w.t.Fatal(err)
	}
	return w
}

func glassPolicy() serval.AccessPolicy {
	return serval.AccessPolicy{
		Name: "glass", Roles: serval.RoleMatch{ARNs: []string{"*:role/glass"}}, Eligible: serval.People{Groups: []string{"engineering"}},
		Approval: serval.Approval{Steps: []serval.People{
			{Groups: []string{"leads"}, Emails: []string{"ann@example.com"}}, {Emails: []string{"cto@example.com"}},
		}}, MaxMinutes: 120, BreakGlass: true,
	}
}

// glass asks for the role whose policy has a glass to break.
func (w *world) glass(who serval.Principal, justification string, breakIt bool) (Request, error) {
	w.t.Helper()
	made, err := w.plane.Request(w.t.Context(), who, Ask{
		RoleARNs: []string{roleARN(prod, "glass")}, BreakGlass: breakIt, Ask: serval.Ask{Minutes: 30, Justification: justification},
	})
	if err != nil {
		return Request{}, err
	}
	return made[0], nil
}

// Breaking the glass approves at once and past the steps, has everybody told
// whom they name, and is told in the log with the notice that failed.
func TestBreakGlass(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.withGlass()
		p := w.people()
		before := w.head()
		r, err := w.glass(p.ana, emergency, true)
		if err != nil {
			t.Fatal(err)
		}
		if r.Status != serval.StatusApproved || r.Minutes() != 30 || !r.Active().BreakGlass || r.Active().DecidedBy != "ana@example.com" || !r.ClockStartedAt.IsZero() {
			t.Errorf("broken, it is %+v", r.Request)
		}
		for i, step := range r.Active().Steps {
			if step.Outcome != "" || step.DecidedBy != "" {
				t.Errorf("step %d says %+v; want nobody in it", i+1, step)
			}
		}
		want := []string{"ana@example.com request.create done", "ana@example.com notice.fail failed", "ana@example.com request.break_glass done"}
		events := w.events(before)
		if d := cmp.Diff(want, told(events)); d != "" {
			t.Fatalf("events (-want +got):\n%s", d)
		}
		if e := events[1]; e.Target != r.ID || e.Reason != "no channel configured" || e.Detail["recipients"] != "ann@example.com, cto@example.com, group leads" {
			t.Errorf("the notice's event is %+v", e)
		}
		if e := events[2]; e.Detail["break_glass"] != "true" || e.Detail["justification"] != emergency || e.Detail["status"] != "approved" {
			t.Errorf("the glass's event is %+v", e)
		}
		seen, err := w.plane.RequestByID(t.Context(), p.lea, r.ID)
		if err != nil {
			t.Fatal(err)
		}
		facts := seen.NoticeFacts(p.ana)
		if facts["path"] != "/requests/"+r.ID || facts["by"] != "ana@example.com" || facts["role_arn"] != r.Role.ARN {
			t.Errorf("the notice is made of %v", facts)
		}
		notice := serval.Notice{
			ID: events[1].Detail["notice_id"], Kind: serval.RequestBreakGlass, Purpose: serval.Alarm, RequestID: r.ID,
			To:    serval.People{Groups: []string{"leads"}, Emails: []string{"ann@example.com", "cto@example.com"}},
			Facts: facts, CreatedAt: w.clock.now(), State: serval.NoticeFailed, EndedAt: w.clock.now(), Error: "no channel configured",
		}
		if d := cmp.Diff([]serval.Notice{notice}, seen.Notices); d != "" {
			t.Errorf("notices (-want +got):\n%s", d)
		}
		w.open(p.ana, r.ID) // and it works

		w.clock.move(time.Minute)
		// An extension asks the steps; its glass is broken by its own justification.
		if _, err := w.plane.Extend(t.Context(), p.ana, r.ID, 60, "more"); err != nil {
			t.Fatal(err)
		}
		_, err = w.decide(p.ana, r.ID, true)
		wantKind(t, "an extension for which the request was justified", err, serval.Invalid)
		round := 0
		_, err = w.plane.Decide(t.Context(), p.ana, r.ID, serval.Decision{Approve: true, Reason: emergency, Round: &round})
		wantKind(t, "what names the request and not its extension", err, serval.Conflict)
		round++
		got, err := w.plane.Decide(t.Context(), p.ana, r.ID, serval.Decision{Approve: true, Reason: emergency, Round: &round})
		if err != nil || !got.Active().BreakGlass || len(got.Notices) != 2 || got.Notices[1].Kind != serval.ExtensionBreakGlass {
			t.Errorf("the extension: %+v, %v", got, err)
		}
		if end := w.clock.now().Add(time.Hour); !got.EndsAt.Equal(end) {
			t.Errorf("it ends at %s, want %s", got.EndsAt, end)
		}
		// Revoked as any other.
		if _, err := w.plane.Revoke(t.Context(), p.lea, r.ID, "it is up again"); err != nil {
			t.Errorf("revoking: %v", err)
		}
	})
}

// Where the policy lets the requester decide a step of their own, approving is that
// step: the other step stays, and no glass is broken.
func TestApprovingOnesOwnStepBreaksNoGlass(t *testing.T) { // S-76
	w := newWorld(t).stock(aRole(prod, "glass"))
	policy := glassPolicy()
	policy.AllowSelfApproval = true
	policy.Approval.Steps[0].Emails = []string{"ana@example.com"}
	if err := w.plane.Declare(t.Context(), serval.System(), 0, accounts(), append(policies(), policy)); err != nil {
		t.Fatal(err)
	}
	p := w.people()
	r, err := w.glass(p.ana, emergency, false)
	if err != nil {
		t.Fatal(err)
	}
	got, err := w.plane.Decide(t.Context(), p.ana, r.ID, serval.Decision{Approve: true, Reason: emergency})
	if err != nil || got.Status != serval.StatusPending || got.Asked() == nil || got.Asked().BreakGlass {
		t.Errorf("ana approved her own first step of two: %+v, %v; want it pending", got, err)
	}
	if got, err = w.plane.Decide(t.Context(), p.cto, r.ID, serval.Decision{Approve: true}); err != nil || got.Status != serval.StatusApproved || got.Active().BreakGlass {
		t.Errorf("the second step: %+v, %v; want it approved by its steps", got, err)
	}
}

// S-76: who may break which glass with what.
func TestBreakGlassRefused(t *testing.T) {
	w := newWorld(t).withGlass()
	p := w.people()
	twin := p.ana
	twin.Person.ID = "person_twin"
	for _, test := range []struct {
		name string
		do   func() error
		want serval.Kind
	}{
		{"29 characters", func() error { _, err := w.glass(p.ana, emergency[1:], true); return err }, serval.Invalid},
		{"30 with spaces around", func() error { _, err := w.glass(p.ana, " "+emergency[1:]+" ", true); return err }, serval.Invalid},
		{"30 in other letters", func() error { _, err := w.glass(p.ana, strings.Repeat("ü", 30), true); return err }, ""},
		{"29 in other letters", func() error { _, err := w.glass(p.ana, strings.Repeat("ü", 29), true); return err }, serval.Invalid},
		{"nobody's", func() error { _, err := w.glass(p.guest, emergency, true); return err }, serval.NotFound},
		{"no glass in the policy", func() error {
			_, err := w.plane.Request(t.Context(), p.ana, Ask{RoleARNs: []string{roleARN(prod, "admin")}, BreakGlass: true, Ask: serval.Ask{Minutes: 5, Justification: emergency}})
			return err
		}, serval.Invalid},
		{"automatic", func() error {
			_, err := w.plane.Request(t.Context(), p.ana, Ask{RoleARNs: []string{roleARN(prod, "reader")}, BreakGlass: true, Ask: serval.Ask{Minutes: 5, Justification: emergency}})
			return err
		}, serval.Invalid},
		{"one of a batch without", func() error {
			_, err := w.plane.Request(t.Context(), p.ana, Ask{
				RoleARNs: []string{roleARN(prod, "glass"), roleARN(prod, "admin")}, BreakGlass: true, Ask: serval.Ask{Minutes: 5, Justification: emergency}})
			return err
		}, serval.Invalid},
		{"later, by deciding", func() error { return w.later(p.ana, p.ana, serval.Decision{Approve: true}) }, ""},
		{"later, with other minutes", func() error { return w.later(p.ana, p.ana, serval.Decision{Approve: true, Minutes: 120}) }, serval.Invalid},
		{"later, denying", func() error { return w.later(p.ana, p.ana, serval.Decision{}) }, serval.Denied},
		{"a twin's", func() error { return w.later(p.ana, twin, serval.Decision{Approve: true}) }, serval.NotFound},
		{"a colleague's", func() error { return w.later(p.ana, p.bob, serval.Decision{Approve: true}) }, serval.NotFound},
		{"an approver of the second step", func() error { return w.later(p.ana, p.cto, serval.Decision{Approve: true}) }, serval.Denied},
		{"an admin", func() error { return w.later(p.ana, p.adm, serval.Decision{Approve: true}) }, serval.Denied},
		{"with groups of an hour ago", func() error {
			ana := p.ana
			ana.Person.GroupsAt = w.clock.now().Add(-time.Hour - time.Microsecond)
			_, err := w.glass(ana, emergency, true)
			return err
		}, serval.LoginRequired},
		{"suspended", func() error {
			ana := p.ana
			ana.Person.Suspended = "Your email changed."
			return w.later(p.ana, ana, serval.Decision{Approve: true})
		}, serval.FailedPrecondition},
	} {
		before := len(w.notices())
		wantKind(t, test.name, test.do(), test.want)
		made := 0
		if test.want == "" {
			made = 1
		}
		if got := len(w.notices()) - before; got != made {
			t.Errorf("%s: %d notices, want %d", test.name, got, made)
		}
	}

	// What the policy allowed when it was asked for, today's does not.
	r, err := w.glass(p.ana, emergency, false)
	if err != nil {
		t.Fatal(err)
	}
	changed := glassPolicy()
	changed.BreakGlass = false
	if err := w.plane.Declare(t.Context(), serval.System(), 0, accounts(), append(policies(), changed)); err != nil {
		t.Fatal(err)
	}
	_, err = w.decide(p.ana, r.ID, true)
	wantKind(t, "a glass that was taken out of the policy", err, serval.Denied)
}

// later asks as one, and decides as another.
func (w *world) later(asks, decides serval.Principal, d serval.Decision) error {
	w.t.Helper()
	r, err := w.glass(asks, emergency, false)
	if err != nil {
		w.t.Fatal(err)
	}
	_, err = w.plane.Decide(w.t.Context(), decides, r.ID, d)
	return err
}

// notices returns every notice about a request.
func (w *world) notices() (all []serval.Notice) {
	w.t.Helper()
	err := w.store.Read(context.Background(), func(v *store.View) error {
		requests, err := v.Requests(store.RequestFilter{Limit: 1000})
		if err != nil {
			return err
		}
		for _, r := range requests {
			notices, err := v.NoticesOf(r.ID)
			if err != nil {
				return err
			}
			all = append(all, notices...)
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// A grant whose policy or role is gone is suspended, not deleted: it is shown
// so, opens nothing, and comes back.
func TestSuspendedGrants(t *testing.T) {
	w := newWorld(t).stock()
	p := w.people()
	r := w.ask(p.ana, roleARN(prod, "own"), 60)
	if _, err := w.decide(p.ana, r.ID, true); err != nil {
		t.Fatal(err)
	}
	w.open(p.ana, r.ID)
	running := w.ask(p.ana, roleARN(dev, "reader"), 60)
	w.open(p.ana, running.ID)
	shown := func(when string, id, cause string) {
		t.Helper()
		one, err := w.plane.RequestByID(t.Context(), p.adm, id)
		if err != nil || one.Suspended != suspensions[cause] || one.Status != serval.StatusApproved || one.AccountName == "" {
			t.Errorf("%s: suspended %q, %s, account %q, %v; want %q", when, one.Suspended, one.Status, one.AccountName, err, suspensions[cause])
		}
		list, _, err := w.plane.Requests(t.Context(), p.adm, RequestFilter{All: true, Running: true, Limit: 9})
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range list {
			if l.ID == id && l.Suspended != one.Suspended {
				t.Errorf("%s: in the list %q, alone %q", when, l.Suspended, one.Suspended)
			}
		}
		_, err = w.plane.Open(t.Context(), p.ana, Opening{RequestID: id, Kind: serval.ForCredentials})
		if want := map[bool]serval.Kind{true: "", false: serval.FailedPrecondition}[cause == ""]; kindOf(err) != string(want) {
			t.Errorf("%s: opening: %v, want %q", when, err, want)
		}
	}
	shown("at first", r.ID, "")
	if err := w.plane.Declare(t.Context(), serval.System(), 0, accounts(), policies()[:2]); err != nil {
		t.Fatal(err)
	}
	shown("without its policy", r.ID, "not_eligible")
	if err := w.plane.Declare(t.Context(), serval.System(), 0, accounts(), policies()); err != nil {
		t.Fatal(err)
	}
	shown("with its policy again", r.ID, "")
	none := w.identity("ana@example.com")
	none.GroupsNote = "The identity provider sends no claim."
	bare, _, err := w.signInAs(w.plane, none)
	if err != nil {
		t.Fatal(err)
	}
	shown("without groups", r.ID, "not_eligible")
	_, err = w.plane.Open(t.Context(), bare, Opening{RequestID: r.ID, Kind: serval.ForCredentials})
	if err == nil || !strings.HasSuffix(err.Error(), "Your groups are not known: The identity provider sends no claim.") {
		t.Errorf("opening without a groups claim: %v; want the missing claim named", err)
	}
	_, err = w.plane.Request(t.Context(), bare, Ask{RoleARNs: []string{roleARN(prod, "reader")}, Ask: serval.Ask{Minutes: 5}})
	if wantKind(t, "requesting without a groups claim", err, serval.NotFound); !strings.Contains(err.Error(), "sends no claim") {
		t.Errorf("%q does not name the missing claim", err)
	}
	p.ana = w.engineer("ana@example.com")
	if p.ana.Person.GroupsNote != "" {
		t.Error("groups that came leave the note that they are missing")
	}
	shown("with groups again", r.ID, "")

	w.push(dev, aRole(dev, "reader", func(r *serval.Role) { r.RoleID = roleID(dev, "reader", 2) }), aRole(dev, "auditreader"))
	shown("its role created again", running.ID, "role_gone") // S-3
	w.push(prod)
	shown("with its role held", r.ID, "role_held")
}
