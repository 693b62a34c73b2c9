package control

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// A request for a role that will never be there again ends, unless it runs;
// one for a role that may be tagged again waits.
func TestRequestsOfRolesThatAreGone(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		keep := []serval.Role{aRole(prod, "own"), aRole(prod, "peer")}
		w.push(prod, append(keep, aRole(prod, "reader"), aRole(prod, "admin"), aRole(prod, "chain"))...)
		p := w.people()
		deleted, again := w.ask(p.ana, roleARN(prod, "admin"), 60), w.ask(p.ana, roleARN(prod, "reader"), 60)
		untagged, running := w.ask(p.ana, roleARN(prod, "chain"), 60), w.ask(p.bob, roleARN(prod, "reader"), 60)
		w.open(p.bob, running.ID)
		before := w.head()
		w.pushAs(prod, func(i *serval.Inventory) { i.Untagged = []string{roleID(prod, "chain", 1)} },
			append(keep, aRole(prod, "reader", func(r *serval.Role) { r.RoleID = roleID(prod, "reader", 2) }))...)
		for _, test := range []struct {
			name string
			id   string
			want serval.Status
		}{
			{"deleted", deleted.ID, serval.StatusFailed}, {"created again", again.ID, serval.StatusFailed},
			{"untagged", untagged.ID, serval.StatusApproved}, {"created again, running", running.ID, serval.StatusApproved},
		} {
			if got := w.request(test.id).Status; got != test.want {
				t.Errorf("the request for a role that was %s is %s, want %s", test.name, got, test.want)
			}
		}
		failed := map[string]bool{}
		for _, e := range w.events(before) {
			if e.Action == serval.RequestFail {
				failed[e.Target] = e.ActorKind == serval.KindSystem && e.Reason == "its role is gone" && e.Detail["status"] == "failed"
			}
		}
		if d := cmp.Diff(map[string]bool{deleted.ID: true, again.ID: true}, failed); d != "" {
			t.Errorf("requests that were failed (-want +got):\n%s", d)
		}
	})
}

// what is held goes when an admin says so.
func TestConfirmRemovals(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.stock()
		p := w.people()
		r := w.ask(p.ana, roleARN(prod, "admin"), 60)
		_, err := w.plane.ConfirmRemovals(t.Context(), p.adm, prod)
		wantKind(t, "nothing held", err, serval.FailedPrecondition)
		w.push(prod, aRole(prod, "own"))
		_, err = w.plane.ConfirmRemovals(t.Context(), p.ana, prod)
		wantKind(t, "by a person", err, serval.Denied)
		_, err = w.plane.ConfirmRemovals(t.Context(), p.adm, "000000000000")
		wantKind(t, "no account", err, serval.NotFound)
		before := w.head()
		n, err := w.plane.ConfirmRemovals(t.Context(), p.adm, prod)
		if err != nil || n != 5 || w.request(r.ID).Status != serval.StatusFailed {
			t.Errorf("%d removed, %v, request %s; want 5 and failed", n, err, w.request(r.ID).Status)
		}
		e := w.events(before)
		if d := cmp.Diff([]string{"system request.fail done", "adm@example.com removal.confirm done"}, told(e)); d != "" || e[1].Detail["removed"] != "5" {
			t.Errorf("events (-want +got):\n%s", d)
		}
	})
}

// A file of a lower revision than the one in force is no news: its declaration
// changes nothing, on whichever replica, and is told to who asked.
func TestDeclareAnOlderFile(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		for _, test := range []struct {
			name     string
			revision int64
			old      bool
		}{
			{"a first revision", 3, false},
			{"a lower one", 2, true},
			{"a lower one again", 2, true},
			{"the same", 3, false},
			{"a higher one", 11, false},
			{"the one before", 3, true},
			{"none", 0, false},
			{"any after none", 2, false},
			{"a lower one than that", 1, true},
		} {
			declared := accounts()[1:]
			if test.old {
				declared = nil // would disconnect
			}
			before := w.head()
			declare := func() error {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				return w.plane.Declare(ctx, serval.System(), test.revision, declared, policies()[1:])
			}
			var err error
			if test.old { // it is told although somebody else acts, and for long
				must(t, w.store.Write(t.Context(), w.clock.now(), func(*store.Tx) error { err = declare(); return nil }))
			} else {
				err = declare()
			}
			if r, _ := errors.AsType[*serval.Refusal](err); test.old != (r != nil && r.Kind == serval.FailedPrecondition && r.Detail["cause"] == OlderFile) || !test.old && err != nil {
				t.Errorf("%s: %v", test.name, err)
			}
			if e := w.events(before); test.old && len(e) > 0 {
				t.Errorf("%s: events %v, want none", test.name, targets(e))
			}
			known, _, err := w.plane.Accounts(t.Context(), w.people().adm, AccountFilter{})
			if err != nil || len(known) != 1 {
				t.Errorf("%s: %d accounts, %v; want the one of the file in force", test.name, len(known), err)
			}
		}
	})
}

// Nor is one that was the newest when it was looked at, and is no more when its turn
// comes.
func TestDeclareAFileThatBecameOlder(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		declared := make(chan error)
		must(t, w.store.Write(t.Context(), w.clock.now(), func(tx *store.Tx) error {
			go func() {
				declared <- w.plane.Declare(t.Context(), serval.System(), 3, accounts()[1:], policies()[1:])
			}()
			time.Sleep(100 * time.Millisecond) // it has looked, or looks later and finds the same
			return tx.SetMeta("config_revision", "4")
		}))
		if r, _ := errors.AsType[*serval.Refusal](<-declared); r == nil || r.Detail["cause"] != OlderFile {
			t.Errorf("it was declared, or %v", r)
		}
	})
}

func sorted(list []string) []string { return slices.Sorted(slices.Values(list)) }

// The file says what is in force; each change of it is one row.
func TestDeclare(t *testing.T) { each(t, testDeclare) }

func testDeclare(t *testing.T, w *world) {
	ctx := t.Context()
	declare := func(a []serval.Account, p []serval.AccessPolicy) []string {
		t.Helper()
		before := w.head()
		if err := w.plane.Declare(ctx, serval.System(), 0, a, p); err != nil {
			t.Fatal(err)
		}
		return targets(w.events(before))
	}
	empty := accounts()
	empty[0].Via = []serval.Hop{}
	renamed := accounts()
	renamed[0].Name = "production"
	routed := accounts()
	routed[0].Name, routed[0].Via = "production", []serval.Hop{{RoleARN: roleARN(dev, "hop")}}
	first := targets(w.events(0))
	if d := cmp.Diff([]string{"account.declare " + prod, "account.declare " + dev, "policy.declare "}, first); d != "" {
		t.Errorf("the first time (-want +got):\n%s", d)
	}
	// What is connected otherwise stays.
	err := w.store.Write(ctx, w.clock.now(), func(tx *store.Tx) error {
		return tx.DeclareAccount(serval.Account{ID: "777788889999", Name: "api", Partition: "aws"}, store.SourceAPI)
	})
	if err != nil {
		t.Fatal(err)
	}
	api := append(accounts(), serval.Account{ID: "777788889999", Name: "api", Partition: "aws"})
	for _, test := range []struct {
		name     string
		accounts []serval.Account
		policies []serval.AccessPolicy
		want     []string
	}{
		{"the same", accounts(), policies(), []string{}},
		{"the same, differently empty", empty, policies(), []string{}},
		{"renamed", renamed, policies(), []string{"account.declare " + prod}},
		{"routed", routed, policies(), []string{"account.declare " + prod}},
		{"routed still", routed, policies(), []string{}},
		{"one gone", accounts()[1:], policies(), []string{"account.remove " + prod}},
		{"gone still", accounts()[1:], policies(), []string{}},
		{"back", accounts(), policies(), []string{"account.declare " + prod}},
		{"fewer policies", accounts(), policies()[1:], []string{"policy.declare "}},
		{"none", accounts(), nil, []string{"policy.declare "}},
		{"none still", accounts(), nil, []string{}},
		{"taken over from the pages", api, nil, []string{"account.declare 777788889999"}},
		{"and then gone", accounts(), nil, []string{"account.remove 777788889999"}},
	} {
		if d := cmp.Diff(test.want, declare(test.accounts, test.policies)); d != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, d)
		}
	}
	declare(accounts(), policies())
	e := w.events(w.head() - 1)[0]
	if e.Detail["001 readers"] != policies()[0].Digest() || len(e.Detail) != len(policies()) {
		t.Errorf("policies as told: %v", e.Detail)
	}
	// Who declares again in another order changes who decides.
	turned := policies()
	turned[0], turned[5] = turned[5], turned[0]
	if d := cmp.Diff([]string{"policy.declare "}, declare(accounts(), turned)); d != "" {
		t.Errorf("another order (-want +got):\n%s", d)
	}

	// In force is what was declared, not what became of the caller's list; and
	// what could not be kept is not in force.
	mine := policies()
	declare(accounts(), mine)
	mine[0].Eligible = serval.People{Emails: []string{"guest@example.com"}}
	if got := w.inForce(w.plane)[0].Eligible.Emails; got != nil {
		t.Error("the caller's list is the one in force")
	}
	adm := w.signIn("adm@example.com")
	wantKind(t, "by an admin", w.plane.Declare(ctx, adm, 0, nil, nil), serval.Denied)
	if len(w.inForce(w.plane)) != len(policies()) {
		t.Error("what was refused is in force")
	}
}

func TestKeepExternalIDs(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		keep := func(fingerprint string, accept bool) error {
			return w.plane.KeepExternalIDs(t.Context(), serval.System(), fingerprint, accept)
		}
		before := w.head()
		wantKind(t, "the first", keep("one", false), "")
		wantKind(t, "the same", keep("one", false), "")
		wantKind(t, "another", keep("two", false), serval.FailedPrecondition)
		if got := w.meta("external_ids"); got != "one" {
			t.Errorf("kept %q, want one", got)
		}
		wantKind(t, "another, accepted", keep("two", true), "")
		wantKind(t, "it stays", keep("two", false), "")
		want := []string{"system account.declare done", "system account.declare refused", "system account.declare done"}
		e := w.events(before)
		if d := cmp.Diff(want, told(e)); d != "" || e[2].Detail["before"] != "one" || e[2].Detail["fingerprint"] != "two" {
			t.Errorf("detail %v, events (-want +got):\n%s", e[2].Detail, d)
		}
		wantKind(t, "by a worker", w.plane.KeepExternalIDs(t.Context(), hub(), "x", true), serval.Denied)
	})
}

// targets writes events in one line each: action and target.
func targets(events []serval.Event) []string {
	lines := []string{}
	for _, e := range events {
		lines = append(lines, string(e.Action)+" "+e.Target)
	}
	return lines
}
