package control

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// inForce returns the policies that a plane would decide by now.
func (w *world) inForce(p *Plane) (list []serval.AccessPolicy) {
	w.t.Helper()
	err := p.door.Store.Read(w.t.Context(), func(v *store.View) error {
		set, err := p.inForce(v)
		if err == nil {
			list = set.List
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

// names returns the names of policies.
func names[T any](list []T, name func(T) string) []string {
	all := []string{}
	for _, one := range list {
		all = append(all, name(one))
	}
	return all
}

// made returns a policy for the secret role, made over the API.
func made(name string, emails ...string) serval.AccessPolicy {
	return serval.AccessPolicy{
		Name: name, Roles: serval.RoleMatch{ARNs: []string{"*:role/secret"}}, Eligible: serval.People{Emails: emails},
		Approval: serval.Approval{Automatic: true}, MaxMinutes: 60,
	}
}

// Policies of the file come first, in its order; those made over the API follow
// by priority and then by name.
func TestPolicyOrder(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx, adm := t.Context(), w.signIn("adm@example.com")
		for _, p := range []struct {
			name     string
			priority int
		}{{"b", 5}, {"a", 5}, {"B", 5}, {"z", 0}, {"first", 7}} {
			if _, err := w.plane.CreatePolicy(ctx, adm, made(p.name, "ana@example.com"), p.priority); err != nil {
				t.Fatal(err)
			}
		}
		want := append(names(policies(), func(p serval.AccessPolicy) string { return p.Name }), "z", "B", "a", "b", "first")
		if d := cmp.Diff(want, names(w.inForce(w.plane), func(p serval.AccessPolicy) string { return p.Name })); d != "" {
			t.Errorf("in force (-want +got):\n%s", d)
		}
		var paged []string
		for after, more := "", true; more; {
			var page []store.Policy
			var err error
			if page, more, err = w.plane.Policies(ctx, adm, PolicyFilter{After: after, Limit: 4}); err != nil {
				t.Fatal(err)
			}
			paged = append(paged, names(page, func(p store.Policy) string { return p.Name })...)
			after = paged[len(paged)-1]
		}
		if d := cmp.Diff(want, paged); d != "" {
			t.Errorf("in pages of four (-want +got):\n%s", d)
		}
		_, _, err := w.plane.Policies(ctx, adm, PolicyFilter{After: "nothing", Limit: 4})
		wantKind(t, "another list's page", err, serval.Invalid)
	})
}

// A policy that is moved says what it says by then, and not what it said when the
// list was looked at.
func TestPlacePolicy(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx, adm := t.Context(), w.signIn("adm@example.com")
		was, err := w.plane.CreatePolicy(ctx, adm, made("break", "ana@example.com", "bob@example.com"), 5)
		must(t, err)
		narrowed, err := w.plane.ChangePolicy(ctx, adm, "break", made("break", "ana@example.com"), nil)
		must(t, err)
		before := w.head()
		must(t, w.plane.PlacePolicy(ctx, adm, "break", 7))
		list, _, err := w.plane.Policies(ctx, adm, PolicyFilter{Limit: 100})
		must(t, err)
		if now := list[len(list)-1]; now.Name != "break" || now.Priority != 7 || now.Digest != narrowed.Digest || now.Digest == was.Digest {
			t.Errorf("placed, it is %+v; want it as it was narrowed", now)
		}
		e := w.events(before)
		if len(e) != 1 || e[0].Action != serval.PolicyChange || e[0].Detail["old_priority"] != "5" || e[0].Detail["priority"] != "7" {
			t.Errorf("events %+v, want one of the change", e)
		}
		wantKind(t, "no priority", w.plane.PlacePolicy(ctx, adm, "break", -1), serval.Invalid)
		wantKind(t, "the file's", w.plane.PlacePolicy(ctx, adm, "readers", 1), serval.FailedPrecondition)
		wantKind(t, "none", w.plane.PlacePolicy(ctx, adm, "nothing", 1), serval.NotFound)
		wantKind(t, "nobody's to place", w.plane.PlacePolicy(ctx, w.engineer("ana@example.com"), "break", 1), serval.Denied)
	})
}

// What one replica changes, every other decides by with the very next thing.
func TestPoliciesAreInForceOnEveryReplica(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.stock()
		ctx, adm, ana := t.Context(), w.signIn("adm@example.com"), w.engineer("ana@example.com")
		here, there := w.plane, w.replicas()[1]
		secret := Ask{RoleARNs: []string{roleARN(prod, "secret")}, Ask: serval.Ask{Minutes: 30}}
		_, err := there.Request(ctx, ana, secret)
		wantKind(t, "before", err, serval.NotFound)
		if _, err := here.CreatePolicy(ctx, adm, made("break", "ana@example.com"), DefaultPriority); err != nil {
			t.Fatal(err)
		}
		asked, err := there.Request(ctx, ana, secret)
		if err != nil {
			t.Fatalf("once it is in force: %v", err)
		}
		open := func(p *Plane) error {
			_, err := p.Open(ctx, ana, Opening{RequestID: asked[0].ID, Kind: serval.ForCredentials})
			return err
		}
		if err := open(there); err != nil {
			t.Fatal(err)
		}
		// Each kind of change, made here, stops the mint there, and undoing it lets it on.
		for name, change := range map[string]func() error{
			"changed": func() error {
				_, err := here.ChangePolicy(ctx, adm, "break", made("break", "guest@example.com"), nil)
				return err
			},
			"deleted": func() error { return here.DeletePolicy(ctx, adm, "break") },
		} {
			if err := change(); err != nil {
				t.Fatal(err)
			}
			wantKind(t, name, open(there), serval.FailedPrecondition)
			if name == "deleted" {
				_, err = here.CreatePolicy(ctx, adm, made("break", "ana@example.com"), DefaultPriority)
			} else {
				_, err = here.ChangePolicy(ctx, adm, "break", made("break", "ana@example.com"), nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := open(there); err != nil {
				t.Errorf("%s, and undone: %v", name, err)
			}
		}
		// So does what the file says, read by the other.
		if err := here.Declare(ctx, serval.System(), 0, accounts(), policies()[1:]); err != nil {
			t.Fatal(err)
		}
		_, err = there.Request(ctx, ana, Ask{RoleARNs: []string{roleARN(dev, "auditreader")}, Ask: serval.Ask{Minutes: 2}})
		wantKind(t, "the file has its policy no more", err, serval.Invalid) // "never reached" decides now: one minute
	})
}

// What is wrong is said all at once, by field; who changes what is recorded with
// both digests.
func TestChangePolicies(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx, adm := t.Context(), w.signIn("adm@example.com")
		before := w.head()
		bad := made("no/slash", "nobody")
		bad.MaxMinutes, bad.RecommendedMinutes, bad.Roles, bad.Approval = 0, -1, serval.RoleMatch{}, serval.Approval{}
		_, err := w.plane.CreatePolicy(ctx, adm, bad, -1)
		r, ok := err.(*serval.Refusal)
		if !ok {
			t.Fatalf("a wrong policy: %v", err)
		}
		fields := map[string]bool{}
		for field := range r.Detail {
			fields[field] = true
		}
		want := map[string]bool{"name": true, "eligible.emails[0]": true, "max_minutes": true, "recommended_minutes": true, "roles": true, "approval": true, "priority": true}
		if d := cmp.Diff(want, fields); d != "" || r.Kind != serval.Invalid || !strings.Contains(r.Reason, "And 6 more") {
			t.Errorf("%q, fields (-want +got):\n%s", r.Reason, d)
		}
		for _, name := range []string{"", " a", "a ", "a.", ".", "..", "ü", "a\nb", "a%2fb", strings.Repeat("x", 101), "-a"} {
			_, err := w.plane.CreatePolicy(ctx, adm, made(name, "ana@example.com"), 0)
			wantKind(t, fmt.Sprintf("the name %q", name), err, serval.Invalid)
		}
		wrong := 1 << 30
		make := func(name string, priority int) error {
			_, err := w.plane.CreatePolicy(ctx, adm, made(name, "ana@example.com"), priority)
			return err
		}
		change := func(name string, p serval.AccessPolicy, priority *int) error {
			_, err := w.plane.ChangePolicy(ctx, adm, name, p, priority)
			return err
		}
		wantKind(t, "too late a priority", make("a", MaxPriority+1), serval.Invalid)
		wantKind(t, "a name of the file", make("readers", 0), serval.Conflict)
		wantKind(t, "one", make("a", 3), "")
		wantKind(t, "the same name", make("a", 4), serval.Conflict)
		wantKind(t, "changing the file's", change("readers", made("", "ana@example.com"), nil), serval.FailedPrecondition)
		wantKind(t, "deleting the file's", w.plane.DeletePolicy(ctx, adm, "readers"), serval.FailedPrecondition)
		wantKind(t, "changing none", change("b", made("", "ana@example.com"), nil), serval.NotFound)
		wantKind(t, "deleting none", w.plane.DeletePolicy(ctx, adm, "b"), serval.NotFound)
		wantKind(t, "another name", change("a", made("b", "ana@example.com"), nil), serval.Invalid)
		wantKind(t, "a wrong priority", change("a", made("a", "ana@example.com"), &wrong), serval.Invalid)
		first, second := made("a", "ana@example.com"), made("a", "bob@example.com")
		wantKind(t, "changed", change("a", made("", "bob@example.com"), nil), "")
		wantKind(t, "deleted", w.plane.DeletePolicy(ctx, adm, "a"), "")

		var done []string
		for _, e := range w.events(before) {
			if e.Outcome == serval.OutcomeDone {
				d := e.Detail
				done = append(done, fmt.Sprint(e.Action, " ", e.Target, " ", d["old_digest"] == first.Digest(), d["digest"] == first.Digest(), d["digest"] == second.Digest(), d["old_digest"] == second.Digest(), d["priority"], d["old_priority"]))
			}
		}
		wantDone := []string{
			"policy.create access-policy/a false true false false3",
			"policy.change access-policy/a true false true false33",
			"policy.delete access-policy/a false false false true3",
		}
		if d := cmp.Diff(wantDone, done); d != "" {
			t.Errorf("recorded (-want +got):\n%s", d)
		}
		for name, who := range map[string]serval.Principal{"a person": w.engineer("ana@example.com"), "an auditor": w.signIn("aud@example.com", "security")} {
			_, _, err := w.plane.Policies(ctx, who, PolicyFilter{Limit: 1})
			wantKind(t, name+" lists", err, serval.Denied)
			_, err = w.plane.CreatePolicy(ctx, who, made("x", "ana@example.com"), 0)
			wantKind(t, name+" creates", err, serval.Denied)
			_, err = w.plane.ChangePolicy(ctx, who, "readers", made("", "ana@example.com"), nil)
			wantKind(t, name+" changes", err, serval.Denied)
			wantKind(t, name+" deletes", w.plane.DeletePolicy(ctx, who, "readers"), serval.Denied)
		}
	})
}

// The file takes over what was made over the API under a name that it uses, and
// says so; what it does not name stays.
func TestFileTakesOverAPolicy(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx, adm := t.Context(), w.signIn("adm@example.com")
		for _, name := range []string{"a", "b"} {
			if _, err := w.plane.CreatePolicy(ctx, adm, made(name, "ana@example.com"), 0); err != nil {
				t.Fatal(err)
			}
		}
		mine := made("a", "cto@example.com")
		if err := w.plane.Declare(ctx, serval.System(), 0, accounts(), append(policies(), mine)); err != nil {
			t.Fatal(err)
		}
		e := w.events(w.head() - 1)[0]
		if old := made("a", "ana@example.com"); e.Action != serval.PolicyDeclare || e.Detail["taken over a"] != old.Digest() || e.Detail["007 a"] != mine.Digest() {
			t.Errorf("recorded %+v", e)
		}
		all := w.inForce(w.plane)
		if n := len(all); n != 8 || all[6].Name != "a" || all[6].Eligible.Emails[0] != "cto@example.com" || all[7].Name != "b" {
			t.Errorf("in force: %v", names(all, func(p serval.AccessPolicy) string { return p.Name }))
		}
		wantKind(t, "it is the file's now", w.plane.DeletePolicy(ctx, adm, "a"), serval.FailedPrecondition)
		if err := w.plane.Declare(ctx, serval.System(), 0, accounts(), policies()); err != nil {
			t.Fatal(err)
		}
		e = w.events(w.head() - 1)[0]
		if e.Detail["gone a"] != mine.Digest() || len(w.inForce(w.plane)) != 7 {
			t.Errorf("gone from the file: %+v", e)
		}
	})
}

// No more are taken than every decision can look through.
func TestPoliciesAreBounded(t *testing.T) {
	w := newWorld(t)
	ctx, adm := t.Context(), w.signIn("adm@example.com")
	err := w.store.Write(ctx, w.clock.now(), func(tx *store.Tx) error {
		for i := range MaxPolicies {
			if err := tx.SavePolicy(store.Policy{AccessPolicy: made(fmt.Sprint("p", i), "ana@example.com"), Source: store.SourceAPI}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.plane.CreatePolicy(ctx, adm, made("more", "ana@example.com"), 0)
	wantKind(t, "one more", err, serval.FailedPrecondition)
	if err := w.plane.DeletePolicy(ctx, adm, "p7"); err != nil {
		t.Fatal(err)
	}
	_, err = w.plane.CreatePolicy(ctx, adm, made("more", "ana@example.com"), 0)
	wantKind(t, "one for one", err, "")
}
