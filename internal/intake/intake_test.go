package intake

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// stored returns the roles that are listed, by ARN, with what is known of each.
func (w *world) stored() map[string]store.Role {
	w.t.Helper()
	roles := map[string]store.Role{}
	err := w.store.Read(w.t.Context(), func(v *store.View) error {
		for _, id := range []string{prod, dev} {
			list, err := v.Roles(id)
			if err != nil {
				return err
			}
			for _, r := range list {
				roles[r.ARN] = r
			}
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return roles
}

func (w *world) account(id string) store.Account {
	w.t.Helper()
	var a store.Account
	if err := w.store.Read(w.t.Context(), func(v *store.View) (err error) { a, err = v.Account(id); return err }); err != nil {
		w.t.Fatal(err)
	}
	return a
}

// What is known, what comes, and what is then known.
func TestPush(t *testing.T) { each(t, testPush) }

func testPush(t *testing.T, w *world) {
	some := func(names ...string) (roles []serval.Role) {
		for _, n := range names {
			roles = append(roles, aRole(prod, n))
		}
		return roles
	}
	changed := func(r *serval.Role) { r.Description = "changed" }
	type state struct {
		ID          string
		Stale, Held bool
	}
	same := func(names ...string) map[string]state {
		m := map[string]state{}
		for _, n := range names {
			m[n] = state{ID: roleID(prod, n, 1)}
		}
		return m
	}
	with := func(m map[string]state, name string, s state) map[string]state { m[name] = s; return m }
	for _, test := range []struct {
		name   string
		change func(*serval.Inventory)
		before []serval.Role
		roles  []serval.Role
		want   Pushed
		after  map[string]state
	}{
		{"first", nil, nil, some("a", "b"), Pushed{Added: 2}, same("a", "b")},
		{"unchanged", nil, some("a", "b"), some("a", "b"), Pushed{}, same("a", "b")},
		{"changed", nil, some("a", "b"), []serval.Role{aRole(prod, "a", changed), aRole(prod, "b")}, Pushed{Changed: 1}, same("a", "b")},
		{"added", nil, some("a"), some("a", "b"), Pushed{Added: 1}, same("a", "b")},
		{"missing", nil, some("a", "b", "c"), some("a", "b"), Pushed{Removed: 1}, same("a", "b")},
		{"missing of few", nil, some("a", "b", "c", "d"), nil, Pushed{Removed: 4}, same()},
		{"missing, incomplete", func(i *serval.Inventory) { i.Complete = false }, some("a", "b"), some("b", "c"),
			Pushed{Added: 1, Stale: 1}, with(same("b", "c"), "a", state{ID: roleID(prod, "a", 1), Stale: true})},
		{"unreadable", func(i *serval.Inventory) {
			i.Unreadable = []serval.Unreadable{{ARN: roleARN(prod, "a"), RoleID: roleID(prod, "a", 1), Action: "iam:GetRole", Code: "AccessDenied"}}
		}, some("a", "b"), some("b"), Pushed{Stale: 1}, with(same("b"), "a", state{ID: roleID(prod, "a", 1), Stale: true})},
		{"untagged", func(i *serval.Inventory) { i.Complete = false; i.Untagged = []string{roleID(prod, "a", 1)} },
			some("a", "b"), some("b"), Pushed{Removed: 1}, same("b")},
		{"recreated", nil, some("a", "b"), []serval.Role{aRole(prod, "a", func(r *serval.Role) { r.RoleID = roleID(prod, "a", 2) }), aRole(prod, "b")},
			Pushed{Added: 1, Removed: 1}, with(same("b"), "a", state{ID: roleID(prod, "a", 2)})},
		{"most missing", nil, some("a", "b", "c", "d", "e"), some("a", "b"), Pushed{Held: 3},
			with(with(with(same("a", "b"), "c", state{roleID(prod, "c", 1), false, true}), "d", state{roleID(prod, "d", 1), false, true}), "e", state{roleID(prod, "e", 1), false, true})},
		{"half missing", nil, some("a", "b", "c", "d", "e", "f"), some("a", "b", "c"), Pushed{Removed: 3}, same("a", "b", "c")},
	} {
		t.Run(test.name, func(t *testing.T) {
			w.push(prod)                   // holds what is there
			w.clock.move(31 * time.Minute) // and confirms it
			w.push(prod)
			w.push(prod, test.before...)
			if test.change == nil {
				test.change = func(*serval.Inventory) {}
			}
			before := w.head()
			got := w.pushAs(prod, test.change, test.roles...)
			if d := cmp.Diff(test.want, got); d != "" {
				t.Errorf("pushed (-want +got):\n%s", d)
			}
			after := map[string]state{}
			for _, r := range w.stored() {
				if r.Key.AccountID == prod {
					after[r.Name] = state{r.Key.RoleID, !r.StaleSince.IsZero(), !r.HeldSince.IsZero()}
				}
			}
			if d := cmp.Diff(test.after, after); d != "" {
				t.Errorf("roles (-want +got):\n%s", d)
			}
			if e := w.events(before); len(e) != 1 || e[0].Action != serval.InventoryAccept || e[0].Outcome != serval.OutcomeDone || e[0].Actor != "hub" || e[0].Target != prod {
				t.Errorf("events %+v, want one", e)
			}
		})
	}
	// A role that is seen again is as it was.
	w.push(prod, some("a", "b", "c", "d", "e")...)
	if r := w.stored()[roleARN(prod, "c")]; !r.HeldSince.IsZero() || !r.StaleSince.IsZero() {
		t.Errorf("seen again: %+v", r)
	}
}

// The row of a push counts all and names some.
func TestPushDetail(t *testing.T) {
	w := newWorld(t)
	var roles []serval.Role
	for i := range maxNamed + 5 {
		roles = append(roles, aRole(prod, fmt.Sprintf("r%02d", i)))
	}
	w.push(prod, roles...)
	e := w.events(w.head() - 1)[0]
	if e.Detail["added"] != "25" || e.Detail["added_20"] == "" || e.Detail["added_21"] != "" || e.Detail["generation"] != "1" || e.Detail["complete"] != "true" || e.Detail["roles"] != "25" {
		t.Errorf("detail %v", e.Detail)
	}
	w.clock.move(time.Minute)
	w.pushAs(prod, func(i *serval.Inventory) {
		i.Complete = false
		i.Problems = []serval.Problem{{Action: "iam:ListRoles", Code: "Throttling"}}
		i.NearMisses = []serval.NearMiss{{ARN: roleARN(prod, "x"), TagKey: "Serval"}}
		i.Unreadable = []serval.Unreadable{{ARN: roleARN(prod, "y"), RoleID: "AROAX", Action: "iam:GetRole", Code: "AccessDenied"}}
	}, roles[1:]...)
	e = w.events(w.head() - 1)[0]
	if e.Detail["stale"] != "1" || e.Detail["complete"] != "false" || e.Detail["problems"] != "1" || e.Detail["added"] != "" {
		t.Errorf("detail %v", e.Detail)
	}
	a := w.account(prod)
	if a.Complete || !a.AcceptedAt.Equal(w.clock.now()) || a.ReadBy != serval.ByRoles {
		t.Errorf("account %+v", a)
	}
	adm := adm()
	list, _, err := w.plane.Accounts(t.Context(), adm, control.AccountFilter{})
	if err != nil || len(list) != 2 || list[0].ID != prod || list[0].Roles != 25 || list[0].Stale != 1 || list[0].Held != 0 || list[1].Roles != 0 {
		t.Errorf("accounts %+v, %v", list, err)
	}
	if a := list[0]; len(a.Problems) != 1 || len(a.NearMisses) != 1 || len(a.Unreadable) != 1 || a.Unreadable[0].RoleID != "AROAX" {
		t.Errorf("the last sync as an admin sees it: %+v", a)
	}
}

// the same push again has the same answer and no second event. R-22,
// an older one, another one of the same number, or one that the worker
// did not open, is a conflict.
func TestPushGenerations(t *testing.T) { each(t, testPushGenerations) }

func testPushGenerations(t *testing.T, w *world) {
	ctx := t.Context()
	other := serval.Principal{Kind: serval.KindWorker, Worker: "hub/pod-1"}
	open := func(who serval.Principal) int64 {
		t.Helper()
		g, _, err := opened(w.intake.OpenSync(ctx, who, prod, "pod-1", serval.SyncFull))
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	push := func(who serval.Principal, g int64, roles ...serval.Role) (Pushed, error) {
		return w.intake.Push(ctx, who, prod, reading(inventory(prod, g, noon), roles...))
	}
	g := open(hub())
	_, err := push(hub(), g+1)
	wantKind(t, "a number that was not issued", err, serval.Conflict)
	_, err = push(other, g)
	wantKind(t, "another worker's number", err, serval.Conflict)
	first, err := push(hub(), g, aRole(prod, "a"))
	if err != nil || first != (Pushed{Added: 1}) {
		t.Fatalf("pushed %+v, %v", first, err)
	}
	before := w.head()
	again, err := push(hub(), g, aRole(prod, "a"))
	if err != nil || again != (Pushed{Repeated: true, Added: 1}) || w.head() != before {
		t.Errorf("pushed again %+v, %v, %d events; want the same answer and none", again, err, w.head()-before)
	}
	_, err = push(hub(), g, aRole(prod, "b"))
	if wantKind(t, "another push of the same number", err, serval.Conflict); err != nil && !strings.Contains(err.Error(), "not newer") {
		t.Errorf("%q, want that it is not newer", err)
	}
	// A new sync that brings the very same is a new one.
	g = open(hub())
	digested := func(func(serval.Role) error) (serval.Inventory, string, error) {
		return inventory(prod, g, noon), w.account(prod).AcceptedDigest, nil
	}
	if got, err := w.intake.Push(ctx, hub(), prod, digested); err != nil || got.Repeated || w.account(prod).AcceptedGeneration != g {
		t.Errorf("the same again with a new number: %+v, %v; want it accepted", got, err)
	}

	older, newer := open(hub()), open(hub())
	_, err = push(hub(), older, aRole(prod, "c"))
	wantKind(t, "a number that was issued, and another since", err, serval.Conflict)
	if _, err = push(hub(), newer, aRole(prod, "d")); err != nil {
		t.Error(err)
	}
	_, err = push(hub(), older, aRole(prod, "c"))
	wantKind(t, "an older number", err, serval.Conflict)
	_, err = push(hub(), g, aRole(prod, "a"))
	wantKind(t, "a repeat of what is not the last", err, serval.Conflict)
	w.clock.move(claimFor)
	late := open(hub())
	w.clock.move(claimFor)
	if _, err = push(hub(), late); err != nil {
		t.Errorf("a push after the claim's end that nobody overtook: %v", err)
	}
	late = open(other)
	_, err = push(hub(), late)
	wantKind(t, "hub pushing what hub/pod-1 opened", err, serval.Conflict)
}

// What a worker sends is looked at role by role; failing half-way leaves
// nothing. R-23, S-2, S-85
func TestPushRefused(t *testing.T) { each(t, testPushRefused) }

func testPushRefused(t *testing.T, w *world) {
	w.push(prod, aRole(prod, "kept"))
	g, _, err := opened(w.intake.OpenSync(t.Context(), hub(), prod, "pod-1", serval.SyncFull))
	if err != nil {
		t.Fatal(err)
	}
	bound := serval.Principal{Kind: serval.KindWorker, Worker: "hub", Bound: []string{dev}}
	one := func(change func(*serval.Role)) []serval.Role {
		r := aRole(prod, "bad")
		change(&r)
		return []serval.Role{aRole(prod, "good"), r}
	}
	for _, test := range []struct {
		name    string
		who     serval.Principal
		account string
		change  func(*serval.Inventory)
		roles   []serval.Role
		want    serval.Kind
	}{
		{"no ARN", hub(), prod, nil, one(func(r *serval.Role) { r.ARN = "x" }), serval.Invalid},
		{"a role of another account", hub(), prod, nil, one(func(r *serval.Role) { r.ARN = roleARN(dev, "bad") }), serval.Invalid},
		{"a role of another partition", hub(), prod, nil, one(func(r *serval.Role) { r.ARN = strings.Replace(r.ARN, "aws", "aws-cn", 1) }), serval.Invalid},
		{"another name", hub(), prod, nil, one(func(r *serval.Role) { r.Name = "good" }), serval.Invalid},
		{"another path", hub(), prod, nil, one(func(r *serval.Role) { r.Path = "/x/" }), serval.Invalid},
		{"no role id", hub(), prod, nil, one(func(r *serval.Role) { r.RoleID = "" }), serval.Invalid},
		{"a role id that is none", hub(), prod, nil, one(func(r *serval.Role) { r.RoleID = "AROA/x" }), serval.Invalid},
		{"untagged", hub(), prod, nil, one(func(r *serval.Role) { r.Tags = map[string]string{"Serval": ""} }), serval.Invalid},
		{"a role id twice", hub(), prod, nil, one(func(r *serval.Role) { r.RoleID = roleID(prod, "good", 1) }), serval.Invalid},
		{"an ARN twice", hub(), prod, nil, append(one(func(*serval.Role) {}), aRole(prod, "good", func(r *serval.Role) { r.RoleID = "AROA2" })), serval.Invalid},
		{"NUL", hub(), prod, nil, one(func(r *serval.Role) { r.Description = "\x00" }), serval.Invalid},
		{"another account's inventory", hub(), prod, func(i *serval.Inventory) { i.AccountID = dev }, one(func(*serval.Role) {}), serval.Invalid},
		{"no generation", hub(), prod, func(i *serval.Inventory) { i.Generation = 0 }, one(func(*serval.Role) {}), serval.Conflict},
		{"an account it was not given", bound, prod, nil, one(func(*serval.Role) {}), serval.NotFound},
		{"no account", hub(), "000000000000", nil, one(func(*serval.Role) {}), serval.NotFound},
		{"a person", adm(), prod, nil, one(func(*serval.Role) {}), serval.Unauthenticated},
	} {
		t.Run(test.name, func(t *testing.T) {
			inv := inventory(prod, g, noon)
			if test.change != nil {
				test.change(&inv)
			}
			before := w.head()
			_, err := w.intake.Push(t.Context(), test.who, test.account, reading(inv, test.roles...))
			wantKind(t, "pushing", err, test.want)
			if test.want == serval.NotFound && err.Error() != noAccount().Error() {
				t.Errorf("%q, want %q for no account and for another's", err, noAccount())
			}
			if e := w.events(before); len(e) != 1 || e[0].Action != serval.InventoryAccept || e[0].Outcome != serval.OutcomeRefused {
				t.Errorf("events %+v, want one refusal", e)
			}
			w.wantOnly(g, "kept")
		})
	}
	// The connection breaks off, after many roles and in the middle of a batch.
	broken := errors.New("unexpected EOF")
	_, err = w.intake.Push(t.Context(), hub(), prod, func(take func(serval.Role) error) (serval.Inventory, string, error) {
		for i := range partRoles + 10 {
			if err := take(aRole(prod, fmt.Sprint("r", i))); err != nil {
				t.Fatal(err)
			}
		}
		return serval.Inventory{}, "", broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("%v, want %v", err, broken)
	}
	w.wantOnly(g, "kept")
	// The account goes while it is pushed.
	_, err = w.intake.Push(t.Context(), hub(), prod, func(func(serval.Role) error) (serval.Inventory, string, error) {
		return inventory(prod, g, noon), "x", w.plane.Declare(t.Context(), serval.System(), 0, accounts()[1:], policies())
	})
	if wantKind(t, "an account that goes", err, serval.NotFound); err != nil && err.Error() != noAccount().Error() {
		t.Errorf("%q, want %q", err, noAccount())
	}
	if err := w.plane.Declare(t.Context(), serval.System(), 0, accounts(), policies()); err != nil {
		t.Fatal(err)
	}
	if n := len(w.stored()); n != 0 {
		t.Errorf("the account came back with %d roles, want none before it is read again", n)
	}
	w.push(prod, aRole(prod, "kept"))

	// A push that takes so long that what it staged was swept is not half a push.
	if g, _, err = opened(w.intake.OpenSync(t.Context(), hub(), prod, "pod-1", serval.SyncFull)); err != nil {
		t.Fatal(err)
	}
	_, err = w.intake.Push(t.Context(), hub(), prod, func(take func(serval.Role) error) (serval.Inventory, string, error) {
		for i := range partRoles {
			if err := take(aRole(prod, fmt.Sprint("r", i))); err != nil {
				t.Fatal(err)
			}
		}
		w.clock.move(2 * time.Hour)
		return inventory(prod, g, noon), "x", w.plane.Sweep(t.Context())
	})
	if err == nil || serval.IsRefusal(err) {
		t.Errorf("a push whose roles were swept: %v, want a fault", err)
	}
	w.wantOnly(g, "kept")

	// An account that names no partition takes the roles of any.
	loose := accounts()
	loose[1].Partition = ""
	if err := w.plane.Declare(t.Context(), serval.System(), 0, loose, policies()); err != nil {
		t.Fatal(err)
	}
	w.push(dev, aRole(dev, "reader"))
	w.push(dev)

	// Many come whole.
	g, _, err = opened(w.intake.OpenSync(t.Context(), hub(), prod, "pod-1", serval.SyncFull))
	if err != nil {
		t.Fatal(err)
	}
	roles := []serval.Role{aRole(prod, "kept")}
	for i := range 2*partRoles + 10 {
		roles = append(roles, aRole(prod, fmt.Sprint("r", i)))
	}
	done, err := w.intake.Push(t.Context(), hub(), prod, reading(inventory(prod, g, noon), roles...))
	if err != nil || done.Added != len(roles)-1 || len(w.stored()) != len(roles) {
		t.Errorf("pushed %+v, %v; %d roles, want %d", done, err, len(w.stored()), len(roles))
	}
}

// What AWS cannot have shown is refused with what is wrong; up to its bounds all
// is taken.
func TestCheckRole(t *testing.T) {
	x := func(n int) string { return strings.Repeat("x", n) }
	ü := func(n int) string { return strings.Repeat("ü", n) }
	tags := func(n int, key, value string) map[string]string {
		m := map[string]string{serval.TagKey: "", key: value}
		for i := len(m); i < n; i++ {
			m[fmt.Sprint(i)] = ""
		}
		return m
	}
	inline := func(n int, name string, d serval.Document) func(*serval.Role) {
		return func(r *serval.Role) {
			r.InlinePolicies.Policies = slices.Repeat([]serval.InlinePolicy{{Name: name, Document: d}}, n)
		}
	}
	managed := func(n int, m serval.ManagedPolicy) func(*serval.Role) {
		return func(r *serval.Role) { r.ManagedPolicies.Policies = slices.Repeat([]serval.ManagedPolicy{m}, n) }
	}
	nested := func(n int) serval.Document { // half objects, half lists
		return serval.Document(strings.Repeat(`{"[\\\"[":[`, n/2) + strings.Repeat("]}", n/2))
	}
	bounded := func(b serval.BoundaryPolicy) func(*serval.Role) {
		return func(r *serval.Role) {
			r.PermissionsBoundary, r.BoundaryPolicy = new("arn:aws:iam::"+prod+":policy/edge"), &b
		}
	}
	for _, test := range []struct {
		name   string
		change func(*serval.Role)
		want   string // empty: taken
	}{
		{"as it is", func(*serval.Role) {}, ""},
		{"a long description", func(r *serval.Role) { r.Description = ü(1000) }, ""},
		{"a longer description", func(r *serval.Role) { r.Description = ü(1001) }, "a description of more than 1000 characters"},
		{"many tags", func(r *serval.Role) { r.Tags = tags(50, ü(128), ü(256)) }, ""},
		{"more tags", func(r *serval.Role) { r.Tags = tags(51, "a", "") }, "more than 50 tags"},
		{"a longer tag key", func(r *serval.Role) { r.Tags = tags(2, x(129), "") }, "a tag whose key"},
		{"a longer tag value", func(r *serval.Role) { r.Tags = tags(2, "a", x(257)) }, "a tag whose key"},
		{"a long trust policy", func(r *serval.Role) { r.TrustPolicy = serval.Document(ü(131072)) }, ""},
		{"a longer trust policy", func(r *serval.Role) { r.TrustPolicy = serval.Document(x(131073)) }, "a policy document of more than 131072 characters"},
		{"a longer inline document", inline(1, "a", serval.Document(x(131073))), "a policy document of more than"},
		{"a longer managed document", managed(1, serval.ManagedPolicy{Document: serval.Document(x(131073))}), "a policy document of more than"},
		{"a deep document", func(r *serval.Role) { r.TrustPolicy = nested(40) + nested(40) }, ""},
		{"brackets in a text", func(r *serval.Role) {
			r.TrustPolicy = serval.Document(`{"a":"\"` + strings.Repeat("[", 50) + `"}`)
		}, ""},
		{"a deeper trust policy", func(r *serval.Role) { r.TrustPolicy = nested(42) }, "nested deeper than 40"},
		{"a deeper inline document", inline(1, "a", "["+nested(40)+"]"), "nested deeper than 40"},
		{"a deeper managed document", managed(1, serval.ManagedPolicy{Document: nested(42)}), "nested deeper than 40"},
		{"many inline policies", inline(100, ü(128), "{}"), ""},
		{"more inline policies", inline(101, "a", "{}"), "more than 100 inline policies"},
		{"a longer inline name", inline(1, x(129), "{}"), "an inline policy whose name has more than 128"},
		{"many managed policies", managed(100, serval.ManagedPolicy{ARN: x(2048), Name: ü(128), Version: x(128)}), ""},
		{"more managed policies", managed(101, serval.ManagedPolicy{}), "more than 100 managed policies"},
		{"a longer managed name", managed(1, serval.ManagedPolicy{Name: x(129)}), "a managed policy whose name has more than 128"},
		{"a longer managed ARN", managed(1, serval.ManagedPolicy{ARN: x(2049)}), "a managed policy whose ARN"},
		{"a longer managed version", managed(1, serval.ManagedPolicy{Version: x(129)}), "a managed policy whose ARN"},
		{"a longer boundary", func(r *serval.Role) { r.PermissionsBoundary = new(x(2049)) }, "a permissions boundary whose ARN"},
		{"a boundary's policy", bounded(serval.BoundaryPolicy{Status: serval.ListRead, Version: x(128), Document: "{}"}), ""},
		{"a boundary's policy that is denied", bounded(serval.BoundaryPolicy{Status: serval.ListDenied, Action: ü(128)}), ""},
		{"a boundary's policy of no status", bounded(serval.BoundaryPolicy{}), `has permissions_boundary_policy with the status ""`},
		{"a longer boundary's action", bounded(serval.BoundaryPolicy{Status: serval.ListDenied, Action: x(129)}), "has permissions_boundary_policy with an action of more than 128"},
		{"a longer boundary's version", bounded(serval.BoundaryPolicy{Status: serval.ListRead, Version: x(129)}), "whose version has more than 128"},
		{"a longer boundary's document", bounded(serval.BoundaryPolicy{Status: serval.ListRead, Document: serval.Document(x(131073))}), "a policy document of more than"},
		{"a deeper boundary's document", bounded(serval.BoundaryPolicy{Status: serval.ListRead, Document: nested(42)}), "nested deeper than 40"},
		{"the policy of no boundary", func(r *serval.Role) { r.BoundaryPolicy = &serval.BoundaryPolicy{Status: serval.ListRead} }, "and no boundary"},
		{"throttled", func(r *serval.Role) { r.InlinePolicies.Status = serval.ListThrottled }, ""},
		{"denied, failed", func(r *serval.Role) {
			r.InlinePolicies.Status, r.InlinePolicies.Action = serval.ListDenied, ü(128)
			r.ManagedPolicies.Status, r.ManagedPolicies.Action = serval.ListFailed, ü(128)
		}, ""},
		{"no inline status", func(r *serval.Role) { r.InlinePolicies.Status = "" }, `has inline_policies with the status ""`},
		{"another managed status", func(r *serval.Role) { r.ManagedPolicies.Status = "x" }, `has managed_policies with the status "x"`},
		{"a longer inline action", func(r *serval.Role) { r.InlinePolicies.Action = x(129) }, "has inline_policies with an action of more than 128"},
		{"a longer managed action", func(r *serval.Role) { r.ManagedPolicies.Action = x(129) }, "has managed_policies with an action of more than 128"},
		{"no maximum", func(r *serval.Role) { r.MaxSessionSeconds = 0 }, ""},
		{"the least maximum", func(r *serval.Role) { r.MaxSessionSeconds = 3600 }, ""},
		{"the most", func(r *serval.Role) { r.MaxSessionSeconds = 43200 }, ""},
		{"a maximum below", func(r *serval.Role) { r.MaxSessionSeconds = 3599 }, "max_session_seconds 3599"},
		{"a maximum above", func(r *serval.Role) { r.MaxSessionSeconds = 43201 }, "max_session_seconds 43201"},
		{"a negative maximum", func(r *serval.Role) { r.MaxSessionSeconds = -1 }, "max_session_seconds -1"},
		{"a short role id", func(r *serval.Role) { r.RoleID = "ARO" }, "which is none"},
		{"a long role id", func(r *serval.Role) { r.RoleID = strings.Repeat("A", 128) }, ""},
		{"a longer role id", func(r *serval.Role) { r.RoleID = strings.Repeat("A", 129) }, "which is none"},
		{"a role id in small letters", func(r *serval.Role) { r.RoleID = "aroa1" }, "which is none"},
		{"a role id with a line behind", func(r *serval.Role) { r.RoleID = "AROA1\n" }, "which is none"},
	} {
		err := checkRole(aRole(prod, "r", test.change), accounts()[0])
		if test.want == "" && err != nil {
			t.Errorf("%s: %v, want it taken", test.name, err)
		}
		if test.want != "" && (!serval.IsRefusal(err, serval.Invalid) || !strings.Contains(err.Error(), test.want) || len(err.Error()) > 300) {
			t.Errorf("%s: %v, want it refused with %q", test.name, err, test.want)
		}
	}
}

// No quota of AWS's is raised to more roles than are taken.
func TestPushOfTooManyRoles(t *testing.T) {
	w := newWorld(t)
	g, _, err := opened(w.intake.OpenSync(t.Context(), hub(), prod, "pod-1", serval.SyncFull))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		roles int
		want  serval.Kind
	}{{maxRoles + 1, serval.TooLarge}, {maxRoles, ""}} {
		_, err = w.intake.Push(t.Context(), hub(), prod, func(take func(serval.Role) error) (serval.Inventory, string, error) {
			for i := range test.roles {
				if err := take(aRole(prod, fmt.Sprint("r", i))); err != nil {
					return serval.Inventory{}, "", err
				}
			}
			return inventory(prod, g, noon), "x", nil
		})
		wantKind(t, fmt.Sprint(test.roles, " roles"), err, test.want)
	}
}

// What waits to be staged is bounded in bytes too, not only in roles.
func TestPushOfLargeRoles(t *testing.T) {
	w := newWorld(t)
	g, _, err := opened(w.intake.OpenSync(t.Context(), hub(), prod, "pod-1", serval.SyncFull))
	if err != nil {
		t.Fatal(err)
	}
	const of = 1 << 20 // each role's documents
	document := strings.Repeat("x", of/8)
	done, err := w.intake.Push(t.Context(), hub(), prod, func(take func(serval.Role) error) (serval.Inventory, string, error) {
		for i := range 20 {
			role := aRole(prod, fmt.Sprint("r", i), func(r *serval.Role) {
				r.TrustPolicy = serval.Document(document)
				r.InlinePolicies.Policies = slices.Repeat([]serval.InlinePolicy{{Name: "p", Document: serval.Document(document)}}, 3)
				r.ManagedPolicies.Policies = slices.Repeat([]serval.ManagedPolicy{{ARN: "p", Document: serval.Document(document)}}, 4)
			})
			if err := take(role); err != nil {
				return serval.Inventory{}, "", err
			}
			if waiting := i + 1 - w.rows("staged_role"); waiting*of >= partBytes {
				t.Errorf("%d roles of a megabyte wait to be staged", waiting)
			}
		}
		return inventory(prod, g, noon), "x", nil
	})
	if err != nil || done.Added != 20 {
		t.Errorf("pushed %+v, %v", done, err)
	}
}

// rows counts the rows of a table.
func (w *world) rows(table string) (n int) {
	w.t.Helper()
	db := w.database()
	defer db.Close()
	if err := db.QueryRowContext(w.t.Context(), "select count(*) from "+table).Scan(&n); err != nil {
		w.t.Fatal(err)
	}
	return n
}

// A stale role says why in a few words, whatever the worker says.
func TestStaleReason(t *testing.T) {
	w := newWorld(t)
	w.push(prod, aRole(prod, "a"))
	long := strings.Repeat("ü", 1000)
	w.pushAs(prod, func(i *serval.Inventory) {
		i.ReadBy = long
		i.Unreadable = []serval.Unreadable{{ARN: roleARN(prod, "a"), RoleID: roleID(prod, "a", 1), Action: long, Code: long}}
	})
	if got, want := w.stored()[roleARN(prod, "a")].StaleReason, long[:128]+" answered "+long[:128]; got != want {
		t.Errorf("stale because %q, want %q", got, want)
	}
	if got := w.events(w.head() - 1)[0].Detail["read_by"]; got != long[:128] {
		t.Errorf("read by %q", got)
	}
}

// What cannot be accepted is refused before it is read, and of what can only be a
// repeat nothing is staged.
func TestPushUnread(t *testing.T) { each(t, testPushUnread) }

func testPushUnread(t *testing.T, w *world) {
	ctx := t.Context()
	other := serval.Principal{Kind: serval.KindWorker, Worker: "other"}
	open := func(who serval.Principal) int64 {
		t.Helper()
		g, _, err := opened(w.intake.OpenSync(ctx, who, prod, "pod-1", serval.SyncFull))
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	unread := func(name string, who serval.Principal) {
		t.Helper()
		before := w.head()
		_, err := w.intake.Push(ctx, who, prod, func(func(serval.Role) error) (serval.Inventory, string, error) {
			t.Errorf("%s was read", name)
			return serval.Inventory{}, "", errors.New("read")
		})
		wantKind(t, name, err, serval.Conflict)
		if e := w.events(before); len(e) != 1 || e[0].Action != serval.InventoryAccept || e[0].Outcome != serval.OutcomeRefused {
			t.Errorf("%s: events %+v, want one refusal", name, e)
		}
	}
	unread("a push of a sync that nobody opened", hub())
	g := open(hub())
	unread("a push of another's sync", other)
	var roles []serval.Role
	for i := range partRoles + 1 {
		roles = append(roles, aRole(prod, fmt.Sprint("r", i)))
	}
	if _, err := w.intake.Push(ctx, hub(), prod, reading(inventory(prod, g, noon), roles...)); err != nil {
		t.Fatal(err)
	}

	// Each batch of a repeat is read and checked, and not staged.
	repeat := func(g int64, digest string, end func() error) (Pushed, error) {
		return w.intake.Push(ctx, hub(), prod, func(take func(serval.Role) error) (serval.Inventory, string, error) {
			for _, r := range roles {
				if err := take(r); err != nil {
					return serval.Inventory{}, "", err
				}
			}
			if strings.HasPrefix(w.url, "sqlite") {
				if n := w.rows("staged_role") + w.rows("staged_document"); n != 0 {
					t.Errorf("%d rows are staged of what can only be a repeat", n)
				}
			}
			return inventory(prod, g, noon), digest, end()
		})
	}
	nothing := func() error { return nil }
	accepted := w.account(prod).AcceptedDigest
	if got, err := repeat(g, accepted, nothing); err != nil || got != (Pushed{Repeated: true, Added: len(roles)}) {
		t.Errorf("a repeat: %+v, %v", got, err)
	}
	_, err := repeat(g, "another", nothing)
	wantKind(t, "another push of an accepted number", err, serval.Conflict)
	_, err = repeat(g+1, "another", func() error { open(hub()); return nil })
	wantKind(t, "a push of a number that was opened while it was read", err, serval.Conflict)
	if a := w.account(prod); a.AcceptedGeneration != g || a.Generation != g+1 {
		t.Errorf("generation %d of %d was accepted, want %d of %d", a.AcceptedGeneration, a.Generation, g, g+1)
	}

	// Another worker has overtaken it.
	w.clock.move(claimFor)
	open(other)
	unread("a repeat of what another has overtaken", hub())
}

// One push of an account is taken in at a time; it may be sent again later.
func TestPushAtOnce(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	g, _, err := opened(w.intake.OpenSync(ctx, hub(), prod, "pod-1", serval.SyncFull))
	if err != nil {
		t.Fatal(err)
	}
	inv := inventory(prod, g, noon)
	broken := errors.New("broken")
	for _, fault := range []error{broken, nil} { // a push that failed is over too
		_, err = w.intake.Push(ctx, hub(), prod, func(take func(serval.Role) error) (serval.Inventory, string, error) {
			_, err := w.intake.Push(ctx, hub(), prod, func(func(serval.Role) error) (serval.Inventory, string, error) {
				t.Error("a second push at the same time was read")
				return inv, "", nil
			})
			wantKind(t, "a second push at the same time", err, serval.Exhausted)
			w.push(dev, aRole(dev, "reader")) // another account's is another
			return inv, "x", fault
		})
		if !errors.Is(err, fault) {
			t.Errorf("the first push: %v, want %v", err, fault)
		}
	}
	w.push(prod, aRole(prod, "a"))
}

// Nothing of a push that was refused stays.
func TestPushRefusedLeavesNothing(t *testing.T) {
	w := newWorld(t)
	w.push(prod, aRole(prod, "kept"))
	before := w.rows("document")
	g, _, err := opened(w.intake.OpenSync(t.Context(), hub(), prod, "pod-1", serval.SyncFull))
	if err != nil {
		t.Fatal(err)
	}
	bad := inventory(prod, g, noon)
	bad.AccountID = dev
	for name, inv := range map[string]serval.Inventory{"refused when it was read": bad, "refused at its end": inventory(prod, g+1, noon)} {
		_, err = w.intake.Push(t.Context(), hub(), prod, reading(inv, aRole(prod, "a", func(r *serval.Role) { r.TrustPolicy = `{"refused":true}` })))
		if !serval.IsRefusal(err) {
			t.Errorf("%s: %v, want it refused", name, err)
		}
		if documents, staged := w.rows("document"), w.rows("staged_document")+w.rows("staged_role"); documents != before || staged != 0 {
			t.Errorf("%s: %d documents, and %d staged rows are left; want %d and none", name, documents, staged, before)
		}
	}
}

// wantOnly fails the test unless just the named role is listed, and the
// generation still waits for its push.
func (w *world) wantOnly(generation int64, name string) {
	w.t.Helper()
	if roles := w.stored(); len(roles) != 1 || roles[roleARN(prod, name)].ARN == "" {
		w.t.Errorf("%d roles are listed, want %s alone", len(roles), name)
	}
	if a := w.account(prod); a.AcceptedGeneration >= generation {
		w.t.Errorf("generation %d was accepted", a.AcceptedGeneration)
	}
}

// one worker reads an account at a time.
func TestOpenSync(t *testing.T) { each(t, testOpenSync) }

func testOpenSync(t *testing.T, w *world) {
	ctx := t.Context()
	intakes := w.replicas()
	bound := serval.Principal{Kind: serval.KindWorker, Worker: "hub", Bound: []string{}}
	_, _, err := opened(w.intake.OpenSync(ctx, bound, prod, "a", serval.SyncFull))
	wantKind(t, "an account it was not given", err, serval.NotFound)
	_, _, none := opened(w.intake.OpenSync(ctx, hub(), "000000000000", "a", serval.SyncFull))
	wantKind(t, "no account", none, serval.NotFound)
	if err.Error() != none.Error() {
		t.Errorf("%q and %q, want one answer", err, none)
	}
	before := w.head()
	g, until, err := opened(w.intake.OpenSync(ctx, hub(), prod, "a", serval.SyncFull))
	if err != nil || g != 1 || !until.Equal(w.clock.now().Add(claimFor)) || w.head() != before {
		t.Errorf("opened %d until %s, %v, %d events; want the first for half an hour, and none", g, until, err, w.head()-before)
	}
	g, zero, err := opened(w.intake.OpenSync(ctx, hub(), prod, "b", serval.SyncFull))
	wantKind(t, "another replica", err, serval.Conflict)
	if r, ok := errors.AsType[*serval.Refusal](err); !ok || r.Detail["until"] != until.Format(time.RFC3339Nano) || g != 0 || !zero.IsZero() {
		t.Errorf("refused as %+v, %d %s; want until %s and nothing else", err, g, zero, until)
	}
	_, _, err = opened(w.intake.OpenSync(ctx, serval.Principal{Kind: serval.KindWorker, Worker: "hub2"}, prod, "a", serval.SyncFull))
	wantKind(t, "another worker", err, serval.Conflict)
	if g, _, err = opened(w.intake.OpenSync(ctx, hub(), prod, "a", serval.SyncFull)); err != nil || g != 2 {
		t.Errorf("opened again %d, %v; want the second", g, err)
	}
	w.clock.move(claimFor - time.Microsecond)
	_, _, err = opened(w.intake.OpenSync(ctx, hub(), prod, "b", serval.SyncFull))
	wantKind(t, "just before the claim's end", err, serval.Conflict)
	w.clock.move(time.Microsecond)
	if g, _, err = opened(w.intake.OpenSync(ctx, hub(), prod, "b", serval.SyncFull)); err != nil || g != 3 {
		t.Errorf("after the claim's end: %d, %v; want the third", g, err)
	}
	if got := claim(hub(), "x/y"+strings.Repeat("z", 300)); len(got) != len("hub/")+200 || strings.Count(got, "/") != 1 {
		t.Errorf("claimed as %q", got)
	}

	// All at once, on all replicas: one.
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for i := range 20 {
		wg.Go(func() {
			_, _, err := opened(intakes[i%2].OpenSync(ctx, hub(), dev, fmt.Sprint("pod-", i), serval.SyncFull))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if !serval.IsRefusal(err, serval.Conflict) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("%d claimed the account, want 1", won)
	}
}

// What has changed is told at once, what another replica changed within a second, and
// what has not when the time is up.
func TestWaitAccounts(t *testing.T) { synctest.Test(t, testWaitAccounts) }

func testWaitAccounts(t *testing.T) {
	const soon = 50 * time.Millisecond
	w := newWorld(t).stock()
	ctx := t.Context()
	adm := adm()
	bound := serval.Principal{Kind: serval.KindWorker, Worker: "hub", Bound: []string{dev}}
	list, version, err := w.intake.WorkerAccounts(ctx, bound)
	if err != nil || len(list) != 1 || list[0].ID != dev || list[0].ExternalID != "x1" {
		t.Fatalf("accounts %+v, %v", list, err)
	}
	wait := func(version string, for_ time.Duration, meanwhile func() error) ([]store.Account, string, time.Duration) {
		t.Helper()
		begin := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() {
			time.Sleep(soon)
			if err := meanwhile(); err != nil {
				t.Error(err)
			}
		})
		list, v, err := w.intake.WaitAccounts(ctx, bound, version, for_)
		took := time.Since(begin)
		wg.Wait()
		if err != nil {
			t.Error(err)
		}
		return list, v, took
	}
	nothing := func() error { return nil }
	if list, v, took := wait("another", time.Minute, nothing); v != version || took != 0 || len(list) != 1 {
		t.Errorf("another version: %d accounts, %s after %s", len(list), v, took)
	}
	if list, v, took := wait(version, 200*time.Millisecond, nothing); v != version || took != 200*time.Millisecond || len(list) != 1 {
		t.Errorf("nothing changed: %+v, %s after %s", list, v, took)
	}
	// A change of another account is not this worker's.
	if _, v, took := wait(version, 200*time.Millisecond, func() error { return w.plane.RequestSync(ctx, adm, prod) }); v != version || took != 200*time.Millisecond {
		t.Errorf("another's account: %s after %s", v, took)
	}
	list, asked, took := wait(version, time.Minute, func() error { return w.plane.RequestSync(ctx, adm, dev) })
	if asked == version || took != soon || len(list) != 1 || list[0].SyncRequestedAt.IsZero() {
		t.Errorf("a sync was asked for: %+v, %s after %s", list, asked, took)
	}
	// Another replica's change is seen without being told.
	other := w.newPlane()
	declared := accounts()
	declared[1].Name = "development"
	if _, v, took := wait(asked, time.Minute, func() error { return other.Declare(ctx, serval.System(), 0, declared, policies()) }); v == asked || took != time.Second {
		t.Errorf("another replica's change: %s after %s", v, took)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, _, err := w.intake.WaitAccounts(ended, bound, version, time.Minute); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that is gone: %v", err)
	}
	_, _, err = w.intake.WaitAccounts(ctx, adm, "", time.Minute)
	wantKind(t, "an admin", err, serval.Unauthenticated)
	wantKind(t, "a sync of no account", w.plane.RequestSync(ctx, adm, "000000000000"), serval.NotFound)
}

// What a push has seen the same is not written again; what differs only in when it
// was last used, or in what AWS refused meanwhile, is.
func TestPushSeenTheSame(t *testing.T) { each(t, testPushSeenTheSame) }

func testPushSeenTheSame(t *testing.T, w *world) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	roles := func() []serval.Role { return []serval.Role{aRole(prod, "a"), aRole(prod, "b"), aRole(prod, "c")} }
	w.push(prod, roles()...)
	first := w.clock.now()
	w.clock.move(time.Hour)
	again := roles()
	used := w.clock.now().Truncate(time.Second)
	again[1].LastUsedAt = &used
	must(w.store.Write(t.Context(), w.clock.now(), func(tx *store.Tx) error { return tx.LowerMaxSession(again[2].Key(), 3600) }))
	if done := w.push(prod, again...); done != (Pushed{}) {
		t.Errorf("pushed %+v, want nothing changed", done)
	}
	kept := w.stored()
	for name, want := range map[string]time.Time{"a": first, "b": w.clock.now(), "c": w.clock.now()} {
		if got := kept[roleARN(prod, name)].SeenAt; !got.Equal(want) {
			t.Errorf("%s was written at %s, want %s", name, got, want)
		}
	}
	if b := kept[roleARN(prod, "b")]; b.LastUsedAt == nil || !b.LastUsedAt.Equal(used) || kept[roleARN(prod, "c")].MaxSessionSeconds != again[2].MaxSessionSeconds {
		t.Errorf("b was last used at %v, and c's maximum is %d; want what was read", b.LastUsedAt, kept[roleARN(prod, "c")].MaxSessionSeconds)
	}
	if path, ok := strings.CutPrefix(w.url, "sqlite://"); ok { // what it can do was worked out by older rules
		db, err := sql.Open("sqlite", path)
		must(err)
		_, err = db.ExecContext(t.Context(), `update role set ability = 'old' where name = 'a'`)
		must(errors.Join(err, db.Close()))
		w.clock.move(time.Minute)
		w.push(prod, again...)
		if got := w.stored()[roleARN(prod, "a")].SeenAt; !got.Equal(w.clock.now()) {
			t.Errorf("a, which was looked at by older rules, was written at %s, want now", got)
		}
	}
	// What is seen the same is there: the others are gone.
	if done := w.push(prod, again[0]); done != (Pushed{Removed: 2}) || len(w.stored()) != 1 {
		t.Errorf("pushed %+v, %d roles; want two removed", done, len(w.stored()))
	}

	// What became of a role while it was on its way is not undone unseen.
	g, _, err := opened(w.intake.OpenSync(t.Context(), hub(), prod, "pod-1", serval.SyncFull))
	must(err)
	read := reading(inventory(prod, g, w.clock.now()), again[0])
	stale := true
	push := func() (Pushed, error) {
		return w.intake.Push(t.Context(), hub(), prod, func(take func(serval.Role) error) (serval.Inventory, string, error) {
			if stale {
				must(w.store.Write(t.Context(), w.clock.now(), func(tx *store.Tx) error { return markStale(tx, again[0].Key()) }))
			}
			return read(take)
		})
	}
	_, err = push()
	wantKind(t, "a role that was marked stale meanwhile", err, serval.Exhausted)
	stale = false
	if done, err := push(); err != nil || done != (Pushed{}) || !w.stored()[roleARN(prod, "a")].StaleSince.IsZero() {
		t.Errorf("pushed again %+v, %v; want it taken, and the role fresh", done, err)
	}
}
