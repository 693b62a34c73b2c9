package control

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// words are what the table says of a refusal.
var words = map[string]string{
	"":                                "yes",
	string(serval.Denied):             "no",
	string(serval.NotFound):           "hidden",
	string(serval.Unauthenticated):    "nobody",
	string(serval.Conflict):           "state",
	string(serval.FailedPrecondition): "not now",
	string(serval.LoginRequired):      "sign in",
}

const permissionsHead = `Who may do what to a request, by the state it is in. A test asks a running control plane for every cell.

  yes      it is done
  no       refused: known, and not allowed
  state    refused: the request's state does not have it
  not now  refused: what it needs is not there now
  hidden   there is no such request, word for word as for an id that nobody has
  nobody   not signed in, or not a person

  requester   Ana, who asked
  twin        another identity with Ana's email, not suspended, whom the first step names too
  step 1      an approver whom the first of two steps names, by a group
  step 2      an approver whom the second step names, by email
  admin, auditor, colleague (eligible for the role, no more), worker, stranger (not signed in)
`

// S-76, S-71: every act, by every kind of person, in every state. The table is
// testdata/permissions.txt, for auditors; go test -update writes it anew, and
// what changed in it has to be meant.
func TestPermissions(t *testing.T) {
	w := newWorld(t).withGlass()
	p := w.people()
	twin := p.ana
	twin.Person.ID, twin.Person.Groups = "person_twin", []string{"engineering", "leads"}
	who := []struct {
		name string
		who  serval.Principal
	}{
		{"requester", p.ana}, {"twin", twin}, {"step 1", p.lea}, {"step 2", p.cto}, {"admin", p.adm}, {"auditor", p.aud},
		{"colleague", p.bob}, {"worker", hub()}, {"stranger", stranger()},
	}
	type act struct {
		name string
		do   func(serval.Principal, string) error
		look bool // it changes nothing
	}
	acts := []act{
		{"see", func(who serval.Principal, id string) error {
			_, err := w.plane.RequestByID(t.Context(), who, id)
			return err
		}, true},
		{"read its history", func(who serval.Principal, id string) error {
			_, err := w.plane.EventsOf(t.Context(), who, id)
			return err
		}, true},
		{"approve", func(who serval.Principal, id string) error { _, err := w.decide(who, id, true); return err }, false},
		{"deny", func(who serval.Principal, id string) error { _, err := w.decide(who, id, false); return err }, false},
		{"extend", func(who serval.Principal, id string) error {
			_, err := w.plane.Extend(t.Context(), who, id, 5, emergency)
			return err
		}, false},
		{"shorten", func(who serval.Principal, id string) error {
			_, err := w.plane.Shorten(t.Context(), who, id, 1, time.Time{})
			return err
		}, false},
		{"cancel", func(who serval.Principal, id string) error {
			_, err := w.plane.Cancel(t.Context(), who, id)
			return err
		}, false},
		{"be done", func(who serval.Principal, id string) error { _, err := w.plane.Done(t.Context(), who, id); return err }, false},
		{"revoke", func(who serval.Principal, id string) error {
			_, err := w.plane.Revoke(t.Context(), who, id, "x")
			return err
		}, false},
		{"open a session", func(who serval.Principal, id string) error {
			_, err := w.plane.Open(t.Context(), who, Opening{RequestID: id, Kind: serval.ForCredentials})
			return err
		}, false},
	}
	pending := func() string { return w.ask(p.ana, roleARN(prod, "admin"), 60).ID }
	running := func() string { r := w.approved(p, 60); w.open(p.ana, r.ID); return r.ID }
	then := func(id string, do func(id string) error) string {
		t.Helper()
		if err := do(id); err != nil {
			t.Fatal(err)
		}
		return id
	}
	more := func(id string) error { return errOf(w.plane.Extend(t.Context(), p.ana, id, 90, emergency)) }
	broken := func() string {
		r, err := w.glass(p.ana, emergency, false)
		if err != nil {
			t.Fatal(err)
		}
		return r.ID
	}
	states := []struct {
		name string
		make func() string
	}{
		{"pending, step 1 is open", pending},
		{"pending, step 2 is open", func() string {
			return then(pending(), func(id string) error { return errOf(w.decide(p.lea, id, true)) })
		}},
		{"pending, with a glass to break", broken},
		{"approved", func() string { return w.approved(p, 60).ID }},
		{"approved for tomorrow", func() string {
			r := w.ask(p.ana, roleARN(prod, "admin"), 60, func(a *serval.Ask) { a.StartAt = w.clock.now().Add(24 * time.Hour) })
			for _, by := range []serval.Principal{p.lea, p.cto} {
				then(r.ID, func(id string) error { return errOf(w.decide(by, id, true)) })
			}
			return r.ID
		}},
		{"approved, more time is asked", func() string { return then(w.approved(p, 60).ID, more) }},
		{"running", running},
		{"running, more time is asked", func() string { return then(running(), more) }},
		{"running, more time is asked, with a glass to break", func() string {
			id := then(broken(), func(id string) error { return errOf(w.decide(p.ana, id, true)) })
			w.open(p.ana, id)
			return then(id, more)
		}},
		{"denied", func() string {
			return then(pending(), func(id string) error { return errOf(w.decide(p.lea, id, false)) })
		}},
		{"canceled", func() string {
			return then(pending(), func(id string) error { return errOf(w.plane.Cancel(t.Context(), p.ana, id)) })
		}},
		{"done", func() string {
			return then(running(), func(id string) error { return errOf(w.plane.Done(t.Context(), p.ana, id)) })
		}},
		{"revoked", func() string {
			return then(running(), func(id string) error { return errOf(w.plane.Revoke(t.Context(), p.cto, id, "x")) })
		}},
		{"an id that nobody has", func() string { return "req_none" }},
	}
	text, cells := permissionsHead, 0
	for _, state := range states {
		text += "\n" + state.name + "\n"
		line := fmt.Sprintf("  %-16s", "")
		for _, one := range who {
			line += fmt.Sprintf("  %-9s", one.name)
		}
		text += strings.TrimRight(line, " ") + "\n"
		id := state.make()
		for _, a := range acts {
			line := fmt.Sprintf("  %-16s", a.name)
			for _, one := range who {
				w.clock.move(2 * time.Second) // stay below the rate of sessions
				before := w.head()
				err := a.do(one.who, id)
				word, known := words[kindOf(err)]
				if !known {
					t.Errorf("%s, %s by %s: %v", state.name, a.name, one.name, err)
				}
				if word == "hidden" && err.Error() != noRequest().Error() {
					t.Errorf("%s, %s by %s: %q, want %q as for no id at all", state.name, a.name, one.name, err, noRequest())
				}
				// Who is refused is in the log, once; a stranger's look is not.
				if events := w.events(before); err != nil && !(one.name == "stranger" && a.look) &&
					(len(events) != 1 || events[0].Outcome != serval.OutcomeRefused || events[0].Target != id || events[0].Reason != err.Error()) {
					t.Errorf("%s, %s by %s: recorded as %+v, want one refusal", state.name, a.name, one.name, events)
				}
				if err == nil && !a.look {
					id = state.make()
				}
				line += fmt.Sprintf("  %-9s", word)
				cells++
			}
			text += strings.TrimRight(line, " ") + "\n"
		}
	}
	text += fmt.Sprintf("\n%d cells: %d states, %d acts, %d kinds of people.\n", cells, len(states), len(acts), len(who))
	const file = "testdata/permissions.txt"
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(slices.Collect(strings.Lines(string(want))), slices.Collect(strings.Lines(text))); d != "" {
		t.Errorf("%s is not what it was (-want +got):\n%s", file, d)
	}
}

// errOf drops what an act returned beside its error.
func errOf(_ Request, err error) error { return err }
