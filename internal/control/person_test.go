package control

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/signin"
)

// arrives signs in an identity with a subject of its own.
func (w *world) arrives(email, subject string, groups ...string) serval.Principal {
	w.t.Helper()
	id := w.identity(email, groups...)
	id.Subject, id.IDToken = subject, idToken(subject)
	who, _, err := w.signInAs(w.plane, id)
	if err != nil {
		w.t.Fatal(err)
	}
	return who
}

// mayOpen reports whether who can open a session under the request now.
func (w *world) mayOpen(who serval.Principal, id string) bool {
	w.t.Helper()
	_, err := w.plane.Open(w.t.Context(), who, Opening{RequestID: id, Kind: serval.ForCredentials})
	if err != nil && !serval.IsRefusal(err) {
		w.t.Fatal(err)
	}
	return err == nil
}

// S-54: what an email that comes with another subject, or a subject that comes
// with another email, may do, before and after an admin has spoken.
func TestRelink(t *testing.T) {
	for _, same := range []bool{false, true} {
		for _, kind := range []string{"another subject", "another email", "another email that somebody has"} {
			t.Run(fmt.Sprint(kind, "/the same person ", same), func(t *testing.T) {
				each(t, func(t *testing.T, w *world) { testRelink(t, w, kind, same) })
			})
		}
	}
}

func testRelink(t *testing.T, w *world, kind string, same bool) {
	w.stock()
	p := w.people()
	running := w.ask(p.ana, roleARN(prod, "reader"), 60).ID
	w.open(p.ana, running)
	pending := w.ask(p.ana, roleARN(prod, "admin"), 60).ID
	over := w.ask(p.ana, roleARN(prod, "reader"), 60).ID
	if _, err := w.plane.Done(t.Context(), p.ana, over); err != nil {
		t.Fatal(err)
	}

	// Whose email was ana's before, and who comes now.
	email, others := "ana@example.com", []serval.Principal{p.ana}
	var comes serval.Principal
	switch kind {
	case "another subject":
		comes = w.arrives("ANA@example.com", "00u-again", "engineering")
	case "another email":
		email, others = "ana.new@example.com", nil
		comes = w.arrives(email, "00u-ana", "engineering")
	default:
		email, others = "ann@example.com", []serval.Principal{w.arrives("ann@example.com", "00u-ann", "engineering")}
		comes = w.arrives(email, "00u-ana", "engineering")
	}
	var annas string
	if kind == "another email that somebody has" {
		annas = w.ask(others[0], roleARN(prod, "reader"), 60).ID
	}
	if comes.Person.Suspended == "" || comes.Admin {
		t.Fatalf("%s comes and is not suspended", kind)
	}
	_, err := w.plane.Request(t.Context(), comes, Ask{RoleARNs: []string{roleARN(prod, "reader")}, Ask: serval.Ask{Minutes: 5}})
	wantKind(t, "requesting", err, serval.FailedPrecondition)
	if w.mayOpen(comes, running) {
		t.Error("before an admin has spoken a session opens")
	}

	list, next, err := w.logins.People(t.Context(), p.adm, signin.PersonFilter{Suspended: true, Limit: 9})
	if err != nil || len(list) != 1 || list[0].ID != comes.Person.ID || next != "" {
		t.Errorf("suspended people: %+v, %q, %v; want who came", list, next, err)
	}
	before := w.head()
	for name, who := range map[string]serval.Principal{"oneself": comes, "a colleague": p.bob, "an auditor": p.aud} {
		_, err := w.logins.Relink(t.Context(), who, comes.Person.ID, signin.Relinking{SamePerson: same})
		wantKind(t, "linked by "+name, err, serval.Denied)
	}
	own := comes
	own.Admin = true
	_, err = w.logins.Relink(t.Context(), own, comes.Person.ID, signin.Relinking{})
	wantKind(t, "linked by an admin who is it", err, serval.Denied)
	twin := p.adm
	twin.Person.Email = strings.ToUpper(email)
	_, err = w.logins.Relink(t.Context(), twin, comes.Person.ID, signin.Relinking{})
	wantKind(t, "linked by an admin with the email", err, serval.Denied)
	_, err = w.logins.Relink(t.Context(), p.adm, "person_none", signin.Relinking{})
	wantKind(t, "nobody", err, serval.NotFound)
	_, err = w.logins.Relink(t.Context(), p.adm, p.bob.Person.ID, signin.Relinking{})
	wantKind(t, "who is not suspended", err, serval.FailedPrecondition)
	_, err = w.logins.Relink(t.Context(), p.adm, comes.Person.ID, signin.Relinking{Reason: strings.Repeat("x", serval.MaxJustification+1)})
	wantKind(t, "a book as the reason", err, serval.Invalid)
	if n := len(w.events(before)); n != 8 {
		t.Errorf("%d rows tell of 8 refusals", n)
	}

	before = w.head()
	done, err := w.logins.Relink(t.Context(), p.adm, comes.Person.ID, signin.Relinking{SamePerson: same, Reason: "HR-7"})
	if err != nil {
		t.Fatal(err)
	}
	e := w.events(before)[len(w.events(before))-1]
	if e.Action != serval.PersonRelink || e.Target != comes.Person.ID || e.Reason != "HR-7" || e.Detail["subject"] != comes.Person.Subject || e.Detail["issuer"] != issuer ||
		e.Detail["same_person"] != fmt.Sprint(same) || !serval.SameEmail(e.Detail["email"], email) {
		t.Errorf("the event is %+v", e)
	}
	if len(others) > 0 && (e.Detail["other_01_subject"] != others[0].Person.Subject || e.Detail["other_01_person"] != others[0].Person.ID || e.Detail["other_01_issuer"] != issuer) {
		t.Errorf("the event does not name the other identity: %v", e.Detail)
	}

	// The email is theirs alone.
	comes = w.arrives(email, comes.Person.Subject, "engineering")
	if comes.Person.Suspended != "" || !serval.SameEmail(comes.Person.Email, email) || comes.Person.NewEmail != "" {
		t.Errorf("linked, they are %+v", comes.Person)
	}
	for _, o := range others {
		again := w.arrives(o.Person.Email, o.Person.Subject, "engineering")
		if again.Person.Suspended == "" || len(done.Suspended) != len(others) {
			t.Errorf("who had the email before is not suspended: %+v", again.Person)
		}
		if w.mayOpen(again, running) || annas != "" && w.mayOpen(again, annas) {
			t.Error("who had the email before can open sessions")
		}
	}
	mint := w.ask(comes, roleARN(dev, "reader"), 60).ID
	if !w.mayOpen(comes, mint) {
		t.Error("what they ask for themselves opens nothing")
	}

	// And of what was open they have all, or nothing.
	want, strange := []string{running, pending}, []string(nil)
	if annas != "" {
		strange = append(strange, annas) // never theirs, whoever they were
	}
	moved, ended := done.Revoked, done.Carried
	if same {
		moved, ended = ended, moved
	} else {
		want, strange = append(want, strange...), nil
	}
	if d := cmp.Diff(sorted(want), sorted(moved)); d != "" || len(ended) != len(strange) || len(strange) == 1 && w.request(annas).Status != serval.StatusRevoked {
		t.Errorf("carried %v, revoked %v; want %v by %t", done.Carried, done.Revoked, want, same)
	}
	for _, id := range want {
		r := w.request(id)
		if same && (r.PersonID != comes.Person.ID || !serval.SameEmail(r.Email, email) || !r.EndedAt.IsZero()) ||
			!same && (r.Status != serval.StatusRevoked || r.PersonID == comes.Person.ID && kind == "another subject") {
			t.Errorf("request %s is %s of %s (%s)", id, r.Status, r.PersonID, r.Email)
		}
	}
	if got := w.mayOpen(comes, running); got != same {
		t.Errorf("opening what ran: %t, want %t", got, same)
	}
	if r := w.request(over); r.Status != serval.StatusExpired || r.PersonID != p.ana.Person.ID {
		t.Errorf("what was over became %s of %s", r.Status, r.PersonID)
	}
}

// What one identity has decided does not become its own by a link.
func TestRelinkOfWhoDecided(t *testing.T) {
	w := newWorld(t).stock()
	p := w.people()
	lea := w.signIn("lea@example.com", "leads", "engineering")
	// Lea decided a step of ana's, who turns out to be lea.
	mine := w.ask(p.ana, roleARN(prod, "admin"), 60).ID
	if _, err := w.decide(lea, mine, true); err != nil {
		t.Fatal(err)
	}
	free := w.ask(p.ana, roleARN(prod, "admin"), 60).ID
	ana := w.arrives("lea@example.com", "00u-ana", "engineering", "leads")
	done, err := w.logins.Relink(t.Context(), p.adm, ana.Person.ID, signin.Relinking{SamePerson: true})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{mine}, done.Revoked); d != "" {
		t.Errorf("revoked (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{free}, done.Carried); d != "" {
		t.Errorf("carried (-want +got):\n%s", d)
	}
	ana = w.arrives("lea@example.com", "00u-ana", "engineering", "leads")
	_, err = w.decide(ana, free, true)
	wantKind(t, "deciding one's own", err, serval.Denied)
}

// Whoever goes back to the email they had stays suspended, and an admin who
// links them then links that one.
func TestRelinkAfterGoingBack(t *testing.T) {
	w := newWorld(t).stock()
	p := w.people()
	w.arrives("ana.new@example.com", "00u-ana", "engineering")
	back := w.engineer("ana@example.com")
	if back.Person.Suspended == "" || back.Person.NewEmail != "" {
		t.Fatalf("back at the old email: %+v", back.Person)
	}
	if _, err := w.logins.Relink(t.Context(), p.adm, back.Person.ID, signin.Relinking{}); err != nil {
		t.Fatal(err)
	}
	if who := w.engineer("ana@example.com"); who.Person.Suspended != "" || who.Person.Email != "ana@example.com" {
		t.Errorf("linked: %+v", who.Person)
	}
}

func TestPeople(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		p := w.people()
		var got []string
		token := ""
		for {
			list, next, err := w.logins.People(t.Context(), p.adm, signin.PersonFilter{Limit: 3, After: token})
			if err != nil {
				t.Fatal(err)
			}
			for _, one := range list {
				got = append(got, one.Email)
			}
			if token = next; next == "" {
				break
			}
			w.clock.move(time.Second)
		}
		if len(got) != 7 || len(sorted(got)) != 7 {
			t.Errorf("people in pages of three: %v", got)
		}
		list, _, err := w.logins.People(t.Context(), p.adm, signin.PersonFilter{Email: "BOB@example.com", Limit: 9})
		if err != nil || len(list) != 1 || list[0].Email != "bob@example.com" {
			t.Errorf("by email: %+v, %v", list, err)
		}
		for name, who := range map[string]serval.Principal{"a person": p.ana, "an auditor": p.aud} {
			_, _, err := w.logins.People(t.Context(), who, signin.PersonFilter{Limit: 3})
			wantKind(t, name, err, serval.Denied)
		}
		_, _, err = w.logins.People(t.Context(), p.adm, signin.PersonFilter{Limit: 3, After: "x"})
		wantKind(t, "a token of another list", err, serval.Invalid)
	})
}
