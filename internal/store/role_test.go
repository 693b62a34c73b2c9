package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

const (
	prod  = "111122223333"
	stage = "444455556666"
)

func account(id string) serval.Account {
	return serval.Account{
		ID: id, Name: "Account " + id, Partition: "aws", RoleARN: "arn:aws:iam::" + id + ":role/serval", ExternalID: "external",
		Via: []serval.Hop{{RoleARN: "arn:aws:iam::999988887777:role/hop", ExternalID: "hop"}}, DefaultRegion: "eu-west-1",
		STS: serval.STS{Region: "eu-west-1", Endpoint: "https://sts.example.com"}, WorkflowRoleARN: "arn:aws:iam::" + id + ":role/workflow",
	}
}

func declare(t *testing.T, d place, ids ...string) {
	t.Helper()
	d.act(t, noon, func(tx *Tx) error {
		for _, id := range ids {
			if err := tx.DeclareAccount(account(id), SourceFile); err != nil {
				return err
			}
		}
		return nil
	})
}

// role is a role with every field filled.
func role(accountID, id, name string) serval.Role {
	used := noon.Add(-time.Hour)
	boundary := "arn:aws:iam::aws:policy/Boundary"
	return serval.Role{
		ARN: "arn:aws:iam::" + accountID + ":role/team/" + name, RoleID: id, Name: name, Path: "/team/", Description: "it's <a> \"role\" & more",
		CreatedAt: noon.AddDate(-1, 0, 0), MaxSessionSeconds: 7200, Tags: map[string]string{"serval": "", "owner": "it's"},
		TrustPolicy: `{"Version":"2012-10-17","Statement":[]}`, PermissionsBoundary: &boundary, LastUsedAt: &used,
		InlinePolicies: serval.InlinePolicies{Status: serval.ListRead, Policies: []serval.InlinePolicy{
			{Name: "one", Document: `{"Statement":[{"Effect":"Allow","Action":"s3:*"}]}`}, {Name: "unread"}}},
		ManagedPolicies: serval.ManagedPolicies{Status: serval.ListDenied, Action: "iam:GetPolicyVersion", Policies: []serval.ManagedPolicy{
			{ARN: "arn:aws:iam::aws:policy/ReadOnlyAccess", Name: "ReadOnlyAccess", Version: "v3", Document: `{"Statement":[]}`}}},
		BoundaryPolicy: &serval.BoundaryPolicy{Status: serval.ListRead, Version: "v2", Document: `{"Statement":[{"Effect":"Allow","Action":"sqs:*"}]}`},
	}
}

// named are roles with these names.
func named(accountID string, names ...string) []serval.Role {
	var roles []serval.Role
	for _, name := range names {
		roles = append(roles, role(accountID, "AROA"+strings.ToUpper(name), name))
	}
	return roles
}

// push stages an inventory, compares it and applies the difference, as the
// control room does.
func push(t *testing.T, d place, accountID string, now time.Time, inv serval.Inventory) serval.Difference {
	t.Helper()
	if err := d.Stage(t.Context(), "push", accountID, now, staged(inv.Roles)); err != nil {
		t.Fatal(err)
	}
	var diff serval.Difference
	d.act(t, now, func(tx *Tx) error {
		seen, err := tx.StagedRoles("push")
		if err != nil {
			return err
		}
		known, err := tx.KnownRoles(accountID)
		if err != nil {
			return err
		}
		diff = serval.Compare(known, serval.Sighting{Complete: inv.Complete, Roles: seen, Unreadable: inv.Unreadable, Untagged: inv.Untagged}, tx.Now)
		return tx.ApplyDifference("push", accountID, diff)
	})
	if n := d.number(t, `select count(*) from staged_role`) + d.number(t, `select count(*) from staged_document`); n != 0 {
		t.Errorf("%d roles and documents are still staged", n)
	}
	return diff
}

// listed describes the roles of an account that are listed.
func listed(t *testing.T, d place, accountID string) string {
	t.Helper()
	var names []string
	for _, r := range look(t, d, func(v *View) ([]Role, error) { return v.Roles(accountID) }) {
		name := r.Name
		if !r.HeldSince.IsZero() {
			name += " held"
		}
		if !r.StaleSince.IsZero() {
			name += " stale"
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

func TestRoleComesBackAsItWas(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		declare(t, d, prod)
		empty := serval.Role{
			ARN: "arn:aws:iam::" + prod + ":role/Empty", RoleID: "AROAEMPTY", Name: "Empty", Path: "/", CreatedAt: noon, Tags: map[string]string{},
			InlinePolicies:  serval.InlinePolicies{Status: serval.ListRead, Policies: []serval.InlinePolicy{}},
			ManagedPolicies: serval.ManagedPolicies{Status: serval.ListRead, Policies: []serval.ManagedPolicy{}},
		}
		odd := role(prod, "AROAODD", "odd")
		odd.Description, odd.TrustPolicy, odd.Tags = hostile[3], serval.Document(strings.Join(hostile, "\n")), map[string]string{}
		for _, text := range hostile {
			odd.Tags[text] = text
			odd.InlinePolicies.Policies = append(odd.InlinePolicies.Policies, serval.InlinePolicy{Name: text, Document: serval.Document(text)})
		}
		want := []serval.Role{empty, role(prod, "AROAFULL", "full"), odd}
		push(t, d, prod, noon, serval.Inventory{Complete: true, Roles: want})
		got := look(t, d, func(v *View) ([]Role, error) {
			roles, err := v.Roles(prod)
			for i := range roles {
				err = errors.Join(err, v.FillDocuments(&roles[i]))
			}
			return roles, err
		})
		if len(got) != len(want) {
			t.Fatalf("%d roles, want %d", len(got), len(want))
		}
		for i := range want {
			if diff := cmp.Diff(want[i], got[i].Role); diff != "" {
				t.Errorf("role %s (-want +got):\n%s", want[i].Name, diff)
			}
			if got[i].Digest != want[i].Digest() || got[i].Role.Digest() != want[i].Digest() {
				t.Errorf("role %s: digests %s and %s, want %s", want[i].Name, got[i].Digest, got[i].Role.Digest(), want[i].Digest())
			}
			if got[i].Key != want[i].Key() || got[i].SeenAt != noon || got[i].Complete != want[i].PoliciesComplete() {
				t.Errorf("role %s: key %v, seen %v, complete %v", want[i].Name, got[i].Key, got[i].SeenAt, got[i].Complete)
			}
			for name, find := range map[string]func(v *View) (Role, error){
				"key": func(v *View) (Role, error) { return v.RoleByKey(want[i].Key()) },
				"ARN": func(v *View) (Role, error) { return v.RoleByARN(want[i].ARN) },
			} {
				r := look(t, d, find)
				if diff := cmp.Diff(got[i], r, cmpopts.IgnoreUnexported(Role{}), cmpopts.IgnoreTypes(serval.Document(""), serval.InlinePolicies{}, serval.ManagedPolicies{}, &serval.BoundaryPolicy{})); diff != "" {
					t.Errorf("role %s by %s (-want +got):\n%s", want[i].Name, name, diff)
				}
			}
		}
		key := want[1].Key()
		for _, other := range []serval.RoleKey{
			{Partition: "aws-cn", AccountID: key.AccountID, RoleID: key.RoleID, ARN: key.ARN},
			{Partition: key.Partition, AccountID: stage, RoleID: key.RoleID, ARN: key.ARN},
			{Partition: key.Partition, AccountID: key.AccountID, RoleID: "AROAOTHER", ARN: key.ARN},
			{Partition: key.Partition, AccountID: key.AccountID, RoleID: key.RoleID, ARN: key.ARN + "x"},
			{},
		} {
			err := d.Read(t.Context(), func(v *View) error { _, err := v.RoleByKey(other); return err })
			refused(t, fmt.Sprintf("the role %+v", other), err, serval.NotFound)
		}
	})
}

func TestApplyDifference(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		declare(t, d, prod, stage)
		now := noon
		step := func(inv serval.Inventory, want string) serval.Difference {
			t.Helper()
			now = now.Add(time.Minute)
			diff := push(t, d, prod, now, inv)
			if got := listed(t, d, prod); got != want {
				t.Errorf("listed: %s; want: %s", got, want)
			}
			return diff
		}
		all := func(names ...string) serval.Inventory {
			return serval.Inventory{Complete: true, Roles: named(prod, names...)}
		}
		// The same role ids, names and all in another account.
		push(t, d, stage, noon, serval.Inventory{Complete: true, Roles: named(stage, "a", "b")})

		step(all("a", "b", "c"), "a, b, c") // added
		step(all("a", "b", "c"), "a, b, c") // unchanged
		changed := all("a", "b", "c")
		changed.Roles[0].Description, changed.Roles[0].MaxSessionSeconds = "changed", 3600
		step(changed, "a, b, c")
		a := look(t, d, func(v *View) (Role, error) { return v.RoleByARN(changed.Roles[0].ARN) })
		if a.Description != "changed" || a.MaxSessionSeconds != 3600 || a.Digest != changed.Roles[0].Digest() || a.SeenAt != now {
			t.Errorf("the changed role: %+v", a)
		}

		// Recreated: another role under the same ARN.
		recreated := all("a", "b", "c")
		recreated.Roles[1].RoleID = "AROANEW"
		diff := step(recreated, "a, b, c")
		if len(diff.Recreated) != 1 {
			t.Errorf("recreated: %v", diff.Recreated)
		}
		err := d.Read(t.Context(), func(v *View) error { _, err := v.RoleByKey(named(prod, "b")[0].Key()); return err })
		refused(t, "the role that was deleted", err, serval.NotFound)
		look(t, d, func(v *View) (Role, error) { return v.RoleByKey(recreated.Roles[1].Key()) })
		step(all("a", "b", "c"), "a, b, c") // and back again

		// Ids that change places, which AWS never shows: all of it is undone.
		crossed := all("a", "b", "c")
		crossed.Roles[0].RoleID, crossed.Roles[1].RoleID = crossed.Roles[1].RoleID, crossed.Roles[0].RoleID
		now = now.Add(time.Minute)
		if err := d.Stage(t.Context(), "push", prod, now, staged(crossed.Roles)); err != nil {
			t.Fatal(err)
		}
		err = d.Write(t.Context(), now, func(tx *Tx) error {
			seen, err := tx.StagedRoles("push")
			if err != nil {
				return err
			}
			known, err := tx.KnownRoles(prod)
			if err != nil {
				return err
			}
			return tx.ApplyDifference("push", prod, serval.Compare(known, serval.Sighting{Complete: true, Roles: seen}, tx.Now))
		})
		if err == nil {
			t.Error("two roles had one ARN for a moment, and the database let it pass")
		}
		if got := listed(t, d, prod); got != "a, b, c" {
			t.Errorf("listed after a push that failed: %s", got)
		}
		if err := d.DropStaged(t.Context(), "push"); err != nil {
			t.Fatal(err)
		}
		step(all("a", "b", "c"), "a, b, c")

		// Untagged, and missing.
		untagged := all("a", "c")
		untagged.Untagged = []string{"AROAB"}
		if diff := step(untagged, "a, c"); len(diff.Untagged) != 1 {
			t.Errorf("untagged: %v", diff.Untagged)
		}
		if diff := step(all("a"), "a"); len(diff.Missing) != 1 {
			t.Errorf("missing: %v", diff.Missing)
		}

		// Stale, and seen again.
		step(all("a", "b"), "a, b")
		unread := all("a")
		unread.Unreadable = []serval.Unreadable{{ARN: role(prod, "", "b").ARN, RoleID: "AROAB", Action: "iam:GetRole", Code: "AccessDenied"}}
		step(unread, "a, b stale")
		since := now
		step(serval.Inventory{}, "a stale, b stale")
		b := look(t, d, func(v *View) (Role, error) { return v.RoleByARN(role(prod, "", "b").ARN) })
		if b.StaleSince != since || b.StaleReason == "" {
			t.Errorf("stale since %v because %q, want since %v", b.StaleSince, b.StaleReason, since)
		}
		step(all("a", "b"), "a, b")

		// held, then one seen again, then confirmed.
		step(all("a", "b", "c", "d", "e", "f"), "a, b, c, d, e, f")
		step(all("a"), "a, b held, c held, d held, e held, f held")
		since = now
		step(all("a", "b"), "a, b, c held, d held, e held, f held")
		c := look(t, d, func(v *View) (Role, error) { return v.RoleByARN(role(prod, "", "c").ARN) })
		if c.HeldSince != since {
			t.Errorf("held since %v, want %v", c.HeldSince, since)
		}
		count := func() string {
			return look(t, d, func(v *View) (string, error) {
				listed, held, stale, err := v.CountRoles(prod)
				return fmt.Sprint(listed, held, stale), err
			})
		}
		if got := count(); got != "6 4 0" {
			t.Errorf("CountRoles: %s, want 6 4 0", got)
		}
		now = now.Add(time.Hour)
		if diff := step(all("a", "b"), "a, b"); len(diff.Missing) != 4 {
			t.Errorf("missing: %v", diff.Missing)
		}

		// What is gone stays as it went, whatever else is said of it.
		gone := look(t, d, func(v *View) (Removed, error) { return v.RemovedRole(role(prod, "", "c").ARN) })
		d.act(t, now.Add(time.Minute), func(tx *Tx) error {
			key := named(prod, "c")[0].Key()
			return tx.ApplyDifference("", prod, serval.Difference{Missing: []serval.RoleKey{key}, Untagged: []serval.RoleKey{key}, Held: []serval.RoleKey{key}, Stale: []serval.Stale{{Key: key, Reason: "x"}}})
		})
		still := look(t, d, func(v *View) (Removed, error) { return v.RemovedRole(role(prod, "", "c").ARN) })
		if diff := cmp.Diff(gone, still, cmp.AllowUnexported(Role{})); diff != "" {
			t.Errorf("a role that is gone (-before +after):\n%s", diff)
		}

		// Held, then confirmed by an admin.
		step(all("a", "b", "c", "d", "e", "f"), "a, b, c, d, e, f")
		step(all(), "a held, b held, c held, d held, e held, f held")
		held := func() (n int64) {
			t.Helper()
			if err := d.Read(t.Context(), func(v *View) (err error) { n, err = v.HeldRoles(); return err }); err != nil {
				t.Fatal(err)
			}
			return n
		}
		if n := held(); n != 6 {
			t.Errorf("HeldRoles is %d, want 6", n)
		}
		var removed []serval.RoleKey
		d.act(t, now, func(tx *Tx) (err error) { removed, err = tx.RemoveHeld(prod); return err })
		if n := held(); n != 0 {
			t.Errorf("HeldRoles is %d when they are removed, want 0", n)
		}
		slices.SortFunc(removed, func(a, b serval.RoleKey) int { return strings.Compare(a.ARN, b.ARN) })
		var want []serval.RoleKey
		for _, r := range named(prod, "a", "b", "c", "d", "e", "f") {
			want = append(want, r.Key())
		}
		if diff := cmp.Diff(want, removed); diff != "" {
			t.Errorf("RemoveHeld (-want +got):\n%s", diff)
		}
		if got := listed(t, d, prod); got != "" {
			t.Errorf("listed after all were removed: %s", got)
		}

		if got := listed(t, d, stage); got != "a, b" {
			t.Errorf("the other account lists %s, want a, b", got)
		}
		key := named(stage, "a")[0].Key()
		for _, seconds := range []int{5000, 6000} { // never up
			d.act(t, now, func(tx *Tx) error { return tx.LowerMaxSession(key, seconds) })
		}
		if r := look(t, d, func(v *View) (Role, error) { return v.RoleByKey(key) }); r.MaxSessionSeconds != 5000 {
			t.Errorf("the maximum is %d, want 5000", r.MaxSessionSeconds)
		}

		d.act(t, now, func(tx *Tx) error { return tx.RemoveAccount(stage) })
		if got := listed(t, d, stage); got != "" {
			t.Errorf("a removed account lists %s", got)
		}
		err = d.Read(t.Context(), func(v *View) error { _, err := v.RoleByKey(key); return err })
		refused(t, "a role of a removed account", err, serval.NotFound)
		err = d.Read(t.Context(), func(v *View) error { _, err := v.RoleByARN(key.ARN); return err })
		refused(t, "the ARN of a role of a removed account", err, serval.NotFound)
	})
}

func TestStage(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		declare(t, d, prod)
		stageAll := func(push string, roles ...serval.Role) error {
			return d.Stage(t.Context(), push, prod, noon, staged(roles))
		}
		roles := named(prod, "a", "b", "c")
		for _, push := range []string{"p1", "p2"} {
			if err := stageAll(push, roles...); err != nil {
				t.Fatal(err)
			}
		}
		twin := role(prod, "AROAA", "twin")
		refused(t, "a role id twice", stageAll("p3", roles[0], twin), serval.Invalid)
		twin = role(prod, "AROATWIN", "a")
		refused(t, "an ARN twice", stageAll("p3", roles[0], twin), serval.Invalid)
		refused(t, "more under the name of another", stageAll("p1", role(prod, "AROAD", "d")), serval.Invalid)
		// What was refused is not there in part.
		for push, want := range map[string]int{"p1": 3, "p2": 3, "p3": 0} {
			if got := look(t, d, func(v *View) ([]serval.Seen, error) { return v.StagedRoles(push) }); len(got) != want {
				t.Errorf("push %s has %d roles, want %d", push, len(got), want)
			}
		}
		// Documents by digest: trust, one inline, one managed and a boundary for all roles.
		if n := d.number(t, `select count(*) from staged_document where push = 'p1'`); n != 4 {
			t.Errorf("%d staged documents, want 4", n)
		}
		if n := d.number(t, `select count(*) from staged_document`); n != 8 {
			t.Errorf("%d staged documents of two pushes, want 8", n)
		}
		for i, text := range unkept {
			bad := role(prod, "AROABAD", "bad")
			bad.Description = text
			refused(t, fmt.Sprintf("the description %q", text), stageAll(fmt.Sprint("bad", i), bad), serval.Invalid)
		}
		if err := d.DropStaged(t.Context(), "p1"); err != nil {
			t.Fatal(err)
		}
		if err := d.Stage(t.Context(), "p4", prod, noon.Add(time.Hour), staged(roles)); err != nil {
			t.Fatal(err)
		}
		if err := d.DropOldStaged(t.Context(), noon.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if roles, documents := d.number(t, `select count(*) from staged_role`), d.number(t, `select count(*) from staged_document`); roles != 3 || documents != 4 {
			t.Errorf("%d staged roles and %d documents after the old ones were dropped, want 3 and 4", roles, documents)
		}
		// Nothing of a push that was not applied is kept.
		if err := d.DropStaged(t.Context(), "p4"); err != nil {
			t.Fatal(err)
		}
		if n := d.number(t, `select (select count(*) from staged_role) + (select count(*) from staged_document) + (select count(*) from document)`); n != 0 {
			t.Errorf("%d rows are left of pushes that were dropped", n)
		}
		// What is kept is not staged again, and is there for the next push.
		push(t, d, prod, noon, serval.Inventory{Complete: true, Roles: roles})
		if n := d.number(t, `select count(*) from document`); n != 4 {
			t.Errorf("%d documents, want 4", n)
		}
		roles[0].TrustPolicy = `{"new":true}`
		if err := stageAll("p5", roles...); err != nil {
			t.Fatal(err)
		}
		if n := d.number(t, `select count(*) from staged_document`); n != 1 {
			t.Errorf("%d documents are staged of a push with one new, want 1", n)
		}
		if err := d.DropStaged(t.Context(), "p5"); err != nil {
			t.Fatal(err)
		}
		push(t, d, prod, noon, serval.Inventory{Complete: true, Roles: roles})
		got := look(t, d, func(v *View) (Role, error) {
			r, err := v.RoleByARN(roles[0].ARN)
			return r, errors.Join(err, v.FillDocuments(&r))
		})
		if diff := cmp.Diff(roles[0], got.Role); diff != "" {
			t.Errorf("a role with a new document (-want +got):\n%s", diff)
		}
	})
}

func TestBeginPush(t *testing.T) {
	s := &Store{}
	end, ok := s.BeginPush(prod)
	if _, again := s.BeginPush(prod); !ok || again {
		t.Errorf("began %v, and again %v; want one push of an account at a time", ok, again)
	}
	endOther, ok := s.BeginPush(stage)
	if !ok {
		t.Error("a push of another account did not begin")
	}
	end()
	if end, ok = s.BeginPush(prod); !ok {
		t.Error("a push after the one before has ended did not begin")
	}
	end()
	endOther()
	if len(s.pushing) != 0 {
		t.Errorf("%d pushes are remembered after their end", len(s.pushing))
	}
}

// Pushes of two accounts bring the same documents in different orders.
func TestStageAtOnce(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		declare(t, d, prod, stage)
		stores := d.replicas(t)
		var wg sync.WaitGroup
		for i := range 6 {
			roles := named([]string{prod, stage}[i%2], "a", "b", "c", "d", "e", "f", "g", "h", "i", "j")
			for n := range roles {
				roles[n].TrustPolicy = serval.Document(fmt.Sprintf(`{"n":%d}`, n))
			}
			if i%2 == 1 {
				slices.Reverse(roles)
			}
			wg.Go(func() {
				for n := range 5 {
					if err := stores[i%len(stores)].Stage(t.Context(), fmt.Sprint(i, n), roles[0].Key().AccountID, noon, staged(roles)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	})
}

func TestIssueGeneration(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		declare(t, d, prod)
		stores := d.replicas(t)
		issue := func(s *Store, worker string, now time.Time) (generation int64, claimed time.Time, ok bool, err error) {
			err = s.Write(t.Context(), now, func(tx *Tx) (err error) {
				generation, claimed, ok, err = tx.IssueGeneration(prod, worker, now.Add(10*time.Minute))
				return err
			})
			return generation, claimed, ok, err
		}
		for _, step := range []struct {
			worker     string
			after      time.Duration
			generation int64
			until      time.Duration
			ok         bool
		}{
			{"one", 0, 1, 10 * time.Minute, true},
			{"two", time.Minute, 0, 10 * time.Minute, false},
			{"one", 2 * time.Minute, 2, 12 * time.Minute, true}, // renewed
			{"two", 11 * time.Minute, 0, 12 * time.Minute, false},
			{"two", 12 * time.Minute, 3, 22 * time.Minute, true}, // expired
			{"one", 13 * time.Minute, 0, 22 * time.Minute, false},
		} {
			generation, until, ok, err := issue(d.Store, step.worker, noon.Add(step.after))
			if err != nil || generation != step.generation || !until.Equal(noon.Add(step.until)) || ok != step.ok {
				t.Errorf("%s after %s: generation %d until %v, %v, %v; want %d until %v, %v", step.worker, step.after,
					generation, until, ok, err, step.generation, noon.Add(step.until), step.ok)
			}
		}

		now := noon.Add(time.Hour)
		var won atomic.Int32
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				_, _, ok, err := issue(stores[i%len(stores)], fmt.Sprint("worker ", i), now)
				if err != nil {
					t.Error(err)
				}
				if ok {
					won.Add(1)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Errorf("%d of 20 workers got the claim, want 1", won.Load())
		}
		now = now.Add(time.Hour)
		generations := make(chan int64, 20)
		for i := range 20 {
			wg.Go(func() {
				g, _, _, err := issue(stores[i%len(stores)], "one", now)
				if err != nil {
					t.Error(err)
				}
				generations <- g
			})
		}
		wg.Wait()
		close(generations)
		seen := make(map[int64]bool)
		for g := range generations {
			if g <= 4 || seen[g] {
				t.Errorf("generation %d was issued again", g)
			}
			seen[g] = true
		}
		err := d.Write(t.Context(), now, func(tx *Tx) error { _, _, _, err := tx.IssueGeneration(stage, "one", now); return err })
		refused(t, "a generation of an account that is not there", err, serval.NotFound)
	})
}

func TestAccount(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		declare(t, d, stage, prod)
		accounts := look(t, d, (*View).Accounts)
		want := []Account{
			{Account: account(prod), Source: SourceFile, CreatedAt: noon},
			{Account: account(stage), Source: SourceFile, CreatedAt: noon},
		}
		if diff := cmp.Diff(want, accounts, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("accounts (-want +got):\n%s", diff)
		}

		later := noon.Add(time.Hour)
		d.act(t, later, func(tx *Tx) error {
			if _, _, _, err := tx.IssueGeneration(prod, "one", later.Add(time.Minute)); err != nil {
				return err
			}
			return tx.RequestSync(prod)
		})
		inv := serval.Inventory{
			AccountID: prod, Generation: 1, StartedAt: later, FinishedAt: later.Add(time.Minute), Complete: true, ReadBy: serval.ByRoles,
			Unreadable: []serval.Unreadable{{ARN: "a", RoleID: "r", Action: "iam:GetRole", Code: "AccessDenied"}},
			NearMisses: []serval.NearMiss{{ARN: "b", TagKey: "Serval"}},
			Problems:   []serval.Problem{{Action: "iam:ListRoles", Target: "c", Code: "Throttling", Message: "it's\x00 \"slow\""}},
		}
		d.act(t, later.Add(2*time.Minute), func(tx *Tx) error { return tx.AcceptInventory(inv, "digest", `{"added":1}`) })
		w := want[0]
		w.Generation, w.AcceptedGeneration, w.AcceptedDigest, w.AcceptedAnswer = 1, 1, "digest", `{"added":1}`
		w.LookedAt = inv.StartedAt
		w.AcceptedAt, w.StartedAt, w.FinishedAt, w.Complete, w.ReadBy = later.Add(2*time.Minute), inv.StartedAt, inv.FinishedAt, true, inv.ReadBy
		w.Unreadable, w.NearMisses, w.Problems = inv.Unreadable, inv.NearMisses, inv.Problems
		same := func() {
			t.Helper()
			if diff := cmp.Diff(w, look(t, d, func(v *View) (Account, error) {
				a, err := v.Account(prod)
				return a, errors.Join(err, v.FillLastSync(&a))
			}), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("account (-want +got):\n%s", diff)
			}
		}
		same()
		// A delta ends the claim, and what the full sync said stays.
		d.act(t, later.Add(2*time.Minute), func(tx *Tx) error {
			_, _, _, err := tx.IssueGeneration(prod, "w/1", later.Add(time.Hour))
			return errors.Join(err, tx.AcceptDelta(serval.Delta{AccountID: prod, Generation: 2, StartedAt: later.Add(time.Minute), Complete: true}, "delta", "{}"))
		})
		w.Generation, w.AcceptedGeneration, w.AcceptedDigest, w.AcceptedAnswer, w.LookedAt = 2, 2, "delta", "{}", later.Add(time.Minute)
		same()
		// A worker's clock that is ahead is not believed.
		d.act(t, later.Add(2*time.Minute), func(tx *Tx) error {
			return tx.AcceptDelta(serval.Delta{AccountID: prod, Generation: 2, StartedAt: later.Add(time.Hour), Complete: true}, "delta", "{}")
		})
		w.LookedAt = later.Add(2 * time.Minute)
		same()
		// What was not looked at whole is looked at again.
		d.act(t, later.Add(2*time.Minute), func(tx *Tx) error {
			return tx.AcceptDelta(serval.Delta{AccountID: prod, Generation: 2, StartedAt: later.Add(time.Minute)}, "delta", "{}")
		})
		same()
		inv.Generation = 3
		if err := d.Write(t.Context(), later.Add(2*time.Minute), func(tx *Tx) error { return tx.AcceptInventory(inv, "", "") }); err == nil {
			t.Error("a generation was accepted that was never issued")
		}
		// A wish that came while the account was being read still stands.
		inv.Generation = 2
		w.AcceptedDigest, w.AcceptedAnswer, w.LookedAt = "digest", `{"added":1}`, inv.StartedAt
		w.SyncRequestedAt = later.Add(3 * time.Minute)
		w.AcceptedAt = w.SyncRequestedAt
		d.act(t, w.SyncRequestedAt, func(tx *Tx) error {
			return errors.Join(tx.RequestSync(prod), tx.AcceptInventory(inv, "digest", `{"added":1}`))
		})
		same()

		d.act(t, later.Add(3*time.Minute), func(tx *Tx) error { return tx.RemoveAccount(prod) })
		err := d.Read(t.Context(), func(v *View) error { _, err := v.Account(prod); return err })
		refused(t, "a removed account", err, serval.NotFound)
		if got := look(t, d, (*View).Accounts); len(got) != 1 || got[0].ID != stage {
			t.Errorf("accounts after one was removed: %v", got)
		}
		changed := account(prod)
		changed.Name, changed.Via, changed.ExternalID = "It's new", nil, "another"
		w.Account, w.Source = changed, SourceAPI
		d.act(t, later.Add(3*time.Minute), func(tx *Tx) error { return tx.DeclareAccount(changed, SourceAPI) })
		same()
		if err := d.Write(t.Context(), later.Add(3*time.Minute), func(tx *Tx) error { return tx.DeclareAccount(changed, "elsewhere") }); err == nil {
			t.Error("an account was kept from a source that there is not")
		}
	})
}

// Accounts are read each second; the long lists of their last push are not.
func TestLastSyncIsReadWhereAsked(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		declare(t, d, prod)
		inv := serval.Inventory{
			AccountID:  prod,
			Unreadable: []serval.Unreadable{{ARN: "a"}}, NearMisses: []serval.NearMiss{{ARN: "b"}}, Problems: []serval.Problem{{Target: "c"}},
		}
		d.act(t, noon, func(tx *Tx) error { return tx.AcceptInventory(inv, "", "{}") })
		one := look(t, d, func(v *View) (Account, error) { return v.Account(prod) })
		for _, a := range append(look(t, d, (*View).Accounts), one) {
			if a.Unreadable != nil || a.NearMisses != nil || a.Problems != nil {
				t.Errorf("an account was read with its last sync: %+v", a)
			}
		}
		d.raw(t, `update account set problems = 'broken'`)
		err := d.Read(t.Context(), func(v *View) error {
			a, err := v.Account(prod)
			if err != nil {
				t.Errorf("an account whose last sync cannot be read: %v", err)
			}
			return v.FillLastSync(&a)
		})
		if err == nil || serval.IsRefusal(err) {
			t.Errorf("a last sync that cannot be read: %v, want a fault", err)
		}
	})
}

func BenchmarkRoles(b *testing.B) {
	s, err := Open(b.Context(), Config{URL: serval.NewSecret("sqlite://" + b.TempDir() + "/serval.db"), Chain: chain})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	if err := s.Migrate(b.Context()); err != nil {
		b.Fatal(err)
	}
	var roles []serval.Role
	for i := range 5000 {
		roles = append(roles, named(prod, fmt.Sprint("r", i))...)
	}
	write := func(f func(*Tx) error) {
		b.Helper()
		if err := s.Write(context.Background(), noon, f); err != nil {
			b.Fatal(err)
		}
	}
	write(func(tx *Tx) error { return tx.DeclareAccount(account(prod), SourceFile) })
	if err := s.Stage(b.Context(), "push", prod, noon, staged(roles)); err != nil {
		b.Fatal(err)
	}
	write(func(tx *Tx) error { return tx.ApplyDifference("push", prod, serval.Difference{}) })
	for name, f := range map[string]func(*View) error{
		"Roles":      func(v *View) error { _, err := v.Roles(prod); return err },
		"KnownRoles": func(v *View) error { _, err := v.KnownRoles(prod); return err },
		"RoleByKey":  func(v *View) error { _, err := v.RoleByKey(roles[77].Key()); return err },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := s.Read(b.Context(), f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// staged returns roles as a push stages them that does not know what they can do.
func staged(roles []serval.Role) []Staged {
	list := make([]Staged, len(roles))
	for i, r := range roles {
		list[i] = Staged{Role: r, Digest: r.Digest()}
	}
	return list
}
