package control

import (
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// ofChat is who decides in a chat.
func ofChat(email string) Chatter { return Chatter{Chat: "slack", User: "U1", Email: email} }

// S-76: a decision from a chat takes what one in the pages takes, and is never a
// broken glass.
func TestDecideInChat(t *testing.T) {
	w := newWorld(t).withGlass()
	w.stock(aRole(prod, "glass"))
	p := w.people()
	if _, _, err := w.signInAs(w.plane, w.identity("ann@example.com")); err != nil {
		t.Fatal(err)
	}
	decide := func(email, id string, round int, approve bool) error {
		_, err := w.plane.DecideInChat(t.Context(), serval.Principal{Kind: serval.KindNobody}, ofChat(email), id, round, serval.Decision{Approve: approve})
		return err
	}
	r := w.ask(p.ana, roleARN(prod, "admin"), 60)
	for _, test := range []struct {
		name, email string
		round       int
		want        serval.Kind
	}{
		{"nobody", "nobody@example.com", 0, serval.LoginRequired},
		{"no address", "Lea <lea@example.com>", 0, serval.LoginRequired},
		{"the requester", "ana@example.com", 0, serval.Denied},
		{"a colleague", "bob@example.com", 0, serval.NotFound},
		{"an approver of the second step", "cto@example.com", 0, serval.Denied},
		{"an admin, who is none there", "adm@example.com", 0, serval.NotFound},
		{"of another round", "lea@example.com", 1, serval.Conflict},
		{"of an earlier round", "lea@example.com", -1, serval.Conflict},
	} {
		wantKind(t, test.name, decide(test.email, r.ID, test.round, true), test.want)
	}
	// Who is not known leaves a row, with what the chat calls them; many leave some.
	before := w.head()
	wantKind(t, "of no address", decide("", r.ID, 0, true), serval.LoginRequired)
	if e := w.events(before); len(e) != 1 || e[0].Action != serval.RequestDecide || e[0].Outcome != serval.OutcomeRefused || e[0].ActorKind != serval.KindNobody ||
		e[0].Target != r.ID || e[0].Detail["via"] != "slack" || e[0].Detail["via_user"] != "U1" || e[0].Reason == "" {
		t.Errorf("a click of nobody left %+v, want one refusal", e)
	}
	for range 100 {
		wantKind(t, "nobody", decide("nobody@example.com", r.ID, 0, true), serval.LoginRequired)
	}
	if n := len(w.events(before)); n < 2 || n > 60 {
		t.Errorf("a hundred clicks of nobody in a minute left %d rows, want 60 at most", n)
	}
	// And they hide nobody who comes another way, nor the other way round.
	before = w.head()
	for range 100 {
		_, err := w.plane.Cancel(t.Context(), serval.Principal{}, r.ID)
		wantKind(t, "a stranger", err, serval.Unauthenticated)
	}
	if n := len(w.events(before)); n < 2 || n > 60 {
		t.Errorf("a hundred attempts of strangers in the same minute left %d rows, want 60 at most", n)
	}
	before = w.head()
	wantKind(t, "the approver of the first step", decide("LEA@example.com", r.ID, 0, true), "")
	if e := w.events(before)[0]; e.Action != serval.RequestApproveStep || e.Actor != "lea@example.com" || e.Detail["via"] != "slack" || e.Detail["via_user"] != "U1" {
		t.Errorf("the event is %+v", e)
	}
	wantKind(t, "the same once more", decide("lea@example.com", r.ID, 0, true), serval.Denied)
	wantKind(t, "the second step, denying", decide("cto@example.com", r.ID, 0, false), "")
	wantKind(t, "after the end", decide("lea@example.com", r.ID, 0, true), serval.Conflict)

	glass, err := w.glass(p.ana, emergency, false)
	if err != nil {
		t.Fatal(err)
	}
	wantKind(t, "breaking the glass", decide("ana@example.com", glass.ID, 0, true), serval.Denied)

	// An hour after they signed in a group counts no more; eight hours after, and
	// once they are signed out, nobody is known by an address.
	again := w.ask(p.ana, roleARN(prod, "admin"), 60)
	named, err := w.glass(p.ana, emergency, false)
	if err != nil {
		t.Fatal(err)
	}
	w.clock.move(time.Hour + time.Microsecond)
	wantKind(t, "by a group of an hour ago", decide("lea@example.com", again.ID, 0, true), serval.LoginRequired)
	wantKind(t, "by name, then", decide("ann@example.com", named.ID, 0, true), "")
	w.clock.move(7 * time.Hour)
	wantKind(t, "eight hours after", decide("ann@example.com", again.ID, 0, true), serval.LoginRequired)
}

// Two identities with one address, and one that is suspended, are nobody.
func TestDecideInChatIsForOnePerson(t *testing.T) {
	w := newWorld(t).stock()
	p := w.people()
	r := w.ask(p.ana, roleARN(prod, "admin"), 60)
	id := w.identity("lea@example.com", "leads")
	id.Subject = "00u-another"
	if _, _, err := w.signInAs(w.plane, id); err != nil {
		t.Fatal(err)
	}
	decide := func() error {
		_, err := w.plane.DecideInChat(t.Context(), serval.Principal{}, ofChat("lea@example.com"), r.ID, 0, serval.Decision{Approve: true})
		return err
	}
	wantKind(t, "beside a suspended twin", decide(), "")
	change := func(change func(*serval.Person)) {
		err := w.store.Write(t.Context(), w.clock.now(), func(tx *store.Tx) error {
			same, err := tx.PeopleByEmail("lea@example.com")
			if err != nil {
				return err
			}
			for _, person := range same {
				change(&person)
				if err := tx.SavePerson(person); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	r = w.ask(p.ana, roleARN(prod, "admin"), 60)
	change(func(person *serval.Person) { person.Suspended = "" })
	wantKind(t, "two with the address", decide(), serval.LoginRequired)
	// Whoever a former provider knew by the address is not whom a chat means.
	change(func(person *serval.Person) {
		if person.Subject == id.Subject {
			person.Suspended = "yes"
		}
	})
	if err := w.store.Write(t.Context(), w.clock.now(), func(tx *store.Tx) error {
		return tx.SavePerson(serval.Person{ID: "person_former", Issuer: "https://former.example.com", Subject: "lea", Email: "lea@example.com"})
	}); err != nil {
		t.Fatal(err)
	}
	wantKind(t, "beside a twin of a former provider", decide(), "")
	r = w.ask(p.ana, roleARN(prod, "admin"), 60)
	change(func(person *serval.Person) { person.Suspended = "yes" })
	wantKind(t, "suspended", decide(), serval.LoginRequired)
}

// What failed is listed for admins, and sent again on their word.
func TestFailedNotices(t *testing.T) {
	w := newWorld(t).withGlass()
	p := w.people()
	if _, err := w.glass(p.ana, emergency, true); err != nil {
		t.Fatal(err)
	}
	list, next, err := w.plane.Notices(t.Context(), p.adm, serval.NoticeFailed, "", 10)
	if err != nil || len(list) != 1 || next != "" {
		t.Fatalf("failed: %+v, %q, %v", list, next, err)
	}
	_, err = w.plane.RetryNotice(t.Context(), p.adm, list[0].ID)
	wantKind(t, "one without a channel", err, serval.FailedPrecondition)
	_, err = w.plane.RetryNotice(t.Context(), p.adm, "notice_none")
	wantKind(t, "none", err, serval.NotFound)
	_, _, err = w.plane.Notices(t.Context(), p.adm, "other", "", 10)
	wantKind(t, "in no state", err, serval.Invalid)

	var failed serval.Notice
	for _, id := range []string{"a", "b"} {
		err = w.store.Write(t.Context(), w.clock.now(), func(tx *store.Tx) error {
			failed = serval.Notice{ID: id, Kind: "role.change", Channel: "mail", CreatedAt: tx.Now.Add(time.Second), State: serval.NoticeFailed, EndedAt: tx.Now, Attempts: 22, Error: "no"}
			return tx.CreateNotice(failed)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	n, err := w.plane.RetryNotice(t.Context(), p.adm, "a")
	if err != nil || n.State != serval.NoticePending || n.Attempts != 0 || !n.NextAt.Equal(w.clock.now()) {
		t.Errorf("sent again, it is %+v, %v", n, err)
	}
	_, err = w.plane.RetryNotice(t.Context(), p.adm, "a")
	wantKind(t, "one that is pending", err, serval.Conflict)
	list, next, err = w.plane.Notices(t.Context(), p.adm, serval.NoticeFailed, "", 1)
	if err != nil || len(list) != 1 || list[0].ID != "b" || next == "" {
		t.Errorf("the first page is %+v, %q, %v", list, next, err)
	}
	if list, _, err = w.plane.Notices(t.Context(), p.adm, serval.NoticeFailed, next, 10); err != nil || len(list) != 1 || list[0].Kind != serval.RequestBreakGlass {
		t.Errorf("the second page is %+v, %v", list, err)
	}
	_, err = w.plane.RetryNotice(t.Context(), p.ana, "b")
	wantKind(t, "by anybody", err, serval.Denied)
}
