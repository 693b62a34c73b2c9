package store

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// many are roles that each have a document of their own, and of an edition.
func many(accountID string, n, edition int) (roles []serval.Role) {
	for i := range n {
		r := role(accountID, fmt.Sprintf("AROAMANY%03d", i), fmt.Sprintf("many%03d", i))
		r.InlinePolicies.Policies[0].Document = serval.Document(fmt.Sprintf(`{"Statement":[],"Id":"%d of %d"}`, i, edition))
		roles = append(roles, r)
	}
	return roles
}

// untold returns all that nobody was told of, some at a time.
func untold(t *testing.T, d place) (list []Untold) {
	t.Helper()
	var after serval.RoleKey
	for {
		some := look(t, d, func(v *View) (some []Untold, err error) {
			some, after, err = v.Untold(after, 10)
			return some, err
		})
		if list = append(list, some...); after == (serval.RoleKey{}) {
			return list
		}
	}
}

func names(list []Untold) (names []string) {
	for _, u := range list {
		name := fmt.Sprintf("%s %s %d to %d", u.Key.AccountID, u.RoleID, u.Since, u.Version)
		if u.Fault != nil {
			name += " cannot be read"
		}
		names = append(names, name)
	}
	return names
}

// Roles of which nobody was told are found one behind the other, with what they
// were, whatever lies between: what is not listed, what cannot be read.
func TestUntoldRoles(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		const n = 25
		declare(t, d, prod, stage)
		for edition := range 2 {
			now := noon.Add(time.Duration(edition) * time.Minute)
			push(t, d, prod, now, serval.Inventory{Complete: true, Roles: many(prod, n, edition)})
			push(t, d, stage, now, serval.Inventory{Complete: true, Roles: many(stage, 2, edition)})
		}
		push(t, d, prod, noon.Add(2*time.Minute), serval.Inventory{Complete: true, Roles: many(prod, n-2, 1)})
		d.raw(t, `update role set tags = '{' where role_id = 'AROAMANY003' and account_id = '`+prod+`'`)
		var want []string
		for i := range n - 2 {
			name := fmt.Sprintf("%s AROAMANY%03d 1 to 2", prod, i)
			if i == 3 {
				name = prod + " AROAMANY003 1 to 0 cannot be read"
			}
			want = append(want, name)
		}
		want = append(want, stage+" AROAMANY000 1 to 2", stage+" AROAMANY001 1 to 2")
		if diff := cmp.Diff(want, names(untold(t, d))); diff != "" {
			t.Errorf("untold (-want +got):\n%s", diff)
		}
	})
}

// What cannot have made a role able to do more, nobody is to be told of; and a change
// that may have is not lost behind one that cannot.
func TestWhatIsToldOf(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		declare(t, d, prod)
		other := "arn:aws:iam::aws:policy/OtherBoundary"
		changes := []func(r *serval.Role){
			func(r *serval.Role) {},
			func(r *serval.Role) { r.Description = "another" },
			func(r *serval.Role) { r.Tags = map[string]string{"serval": "other"} },
			func(r *serval.Role) { r.TrustPolicy = `{"Version":"2012-10-17","Statement":{}}` },
			func(r *serval.Role) { r.PermissionsBoundary = &other },
			func(r *serval.Role) { r.BoundaryPolicy.Document = "{}" },
			func(r *serval.Role) { r.InlinePolicies.Policies[0].Document = "{}" },
			func(r *serval.Role) { r.ManagedPolicies.Policies[0].Document = "{}" },
			func(r *serval.Role) { r.ManagedPolicies.Status = serval.ListRead },
		}
		roles := func() (list []serval.Role) {
			for i := range changes {
				list = append(list, role(prod, fmt.Sprintf("AROA%d", i), fmt.Sprint("r", i)))
			}
			return list
		}
		changed := roles()
		push(t, d, prod, noon, serval.Inventory{Complete: true, Roles: roles()})
		for i, change := range changes {
			change(&changed[i])
		}
		push(t, d, prod, noon.Add(time.Minute), serval.Inventory{Complete: true, Roles: changed})
		from3 := func(version int) (want []string) {
			for i := 3; i < len(changes); i++ {
				want = append(want, fmt.Sprintf("%s AROA%d 1 to %d", prod, i, version))
			}
			return want
		}
		if diff := cmp.Diff(from3(2), names(untold(t, d))); diff != "" {
			t.Errorf("to be told (-want +got):\n%s", diff)
		}
		for i := range changed {
			changed[i].Description = "and another"
		}
		push(t, d, prod, noon.Add(2*time.Minute), serval.Inventory{Complete: true, Roles: changed})
		if diff := cmp.Diff(from3(3), names(untold(t, d))); diff != "" {
			t.Errorf("to be told after what nobody is told of (-want +got):\n%s", diff)
		}
	})
}

// Of a role is told once, and of all that changed.
func TestTold(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		declare(t, d, prod)
		for edition := range 2 {
			push(t, d, prod, noon.Add(time.Duration(edition)*time.Minute), serval.Inventory{Complete: true, Roles: many(prod, 2, edition)})
		}
		list := untold(t, d)
		push(t, d, prod, noon.Add(2*time.Minute), serval.Inventory{Complete: true, Roles: append(many(prod, 1, 2), many(prod, 2, 1)[1:]...)})
		told := func(u Untold) (ours bool) {
			d.act(t, noon.Add(3*time.Minute), func(tx *Tx) (err error) { ours, err = tx.Told(u.Key, u.Since, u.Version); return err })
			return ours
		}
		if told(list[0]) {
			t.Error("what has changed again is told as it was before")
		}
		if !told(list[1]) || told(list[1]) {
			t.Error("what is as it was compared is not told once")
		}
		left := untold(t, d)
		if diff := cmp.Diff([]string{prod + " AROAMANY000 1 to 3"}, names(left)); diff != "" {
			t.Fatalf("still to be told (-want +got):\n%s", diff)
		}
		left[0].Since = 2
		if told(left[0]) {
			t.Error("what was compared with another version is told")
		}
	})
}

// While everybody waits for a part of a push, nothing is looked at but what the part
// has: its statements are the same however many roles it takes in, and what is known of
// each is found by its key, whatever PostgreSQL knows of the tables.
func TestAPartIsFoundByItsKeys(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		declare(t, d, prod)
		push(t, d, prod, noon, serval.Inventory{Complete: true, Roles: many(prod, 300, 0)})
		if !d.isSQLite() {
			d.raw(t, `analyze`)
		}
		counts := map[int]int{}
		for _, n := range []int{1, 50} {
			if err := d.Stage(t.Context(), fmt.Sprint("part", n), prod, noon, staged(many(prod, n, 1))); err != nil {
				t.Fatal(err)
			}
			tx, err := d.db.BeginWrite(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer tx.Rollback()
			r := &recorder{querier: tx}
			part := &Tx{View: View{ctx: t.Context(), q: r, chain: chain}, Now: noon.Add(time.Minute)}
			if err := part.ApplyDifference(fmt.Sprint("part", n), prod, serval.Difference{}); err != nil {
				t.Fatal(err)
			}
			counts[n] = len(r.statements)
			for _, s := range r.statements {
				plan := explain(t, d, tx, s)
				if d.isSQLite() && scans(plan) || strings.Contains(plan, "Join") || strings.Contains(plan, "Seq Scan on role") || strings.Contains(plan, "Seq Scan on document") {
					t.Errorf("%s\nis done by\n%s", s.text, plan)
				}
			}
			tx.Rollback()
		}
		if counts[1] == 0 || counts[1] != counts[50] {
			t.Errorf("%d statements take in one role, %d fifty; want as many", counts[1], counts[50])
		}
	})
}
