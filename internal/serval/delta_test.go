package serval

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCompareDelta(t *testing.T) {
	gone := func(reason string, ids ...int) (list []Removal) {
		for _, s := range seen(ids...) {
			list = append(list, Removal{RoleID: s.Key.RoleID, ARN: s.Key.ARN, Reason: reason})
		}
		return list
	}
	doubtful := func(k []Known) []Known {
		k[0].HeldSince, k[1].Stale = t0, true
		return k
	}
	changed := func(s []Seen) []Seen { s[0].Digest = "e"; return s }
	recreated := []Seen{{roleKey("AROA9", "r1"), "d"}}

	for _, c := range []struct {
		name    string
		known   []Known
		seen    []Seen
		removed []Removal
		want    string
	}{
		{"nothing", nil, nil, nil, ""},
		{"what it does not name stands", known(6), nil, nil, ""},
		{"also where that is held or stale", doubtful(known(6)), seen(3), nil, "unchanged 3"},
		{"a new role", known(2), seen(3), nil, "added 3"},
		{"a changed one", known(2), changed(seen(1)), nil, "changed 1"},
		{"one that is as it was", known(2), seen(2), nil, "unchanged 2"},
		{"held and stale ones that are read whole", doubtful(known(3)), seen(1, 2), nil, "unchanged 1 2; fresh 1 2"},
		{"untagged", known(2), nil, gone(RemovedUntagged, 1), "untagged 1"},
		{"deleted", known(2), nil, gone(RemovedDeleted, 1), "missing 1"},
		{"all of six untagged at once", known(6), nil, gone(RemovedUntagged, 1, 2, 3, 4, 5, 6), "untagged 1 2 3 4 5 6"},
		// Each of them was looked for: nothing is merely missing.
		{"all of six deleted at once", known(6), nil, gone(RemovedDeleted, 1, 2, 3, 4, 5, 6), "missing 1 2 3 4 5 6"},
		{"a held one deleted", doubtful(known(3)), nil, gone(RemovedDeleted, 1), "missing 1"},
		{"named twice in one way", known(2), nil, append(gone(RemovedDeleted, 1), gone(RemovedDeleted, 1)...), "missing 1"},
		{"what is not known", known(1), nil, gone(RemovedDeleted, 7), ""},
		{"a reason that is none", known(1), nil, gone("bored", 1), ""},
		// S-2, S-3: identity is id and ARN.
		{"another's id", known(2), nil, []Removal{{RoleID: "AROA1", ARN: roleKey("", "r2").ARN, Reason: RemovedDeleted}}, ""},
		{"created again", known(2), recreated, nil, "added 9; recreated 1"},
		{"created again, and the old one deleted", known(2), recreated, gone(RemovedDeleted, 1), "added 9; recreated 1"},
		{"created again without the tag", known(2), nil, gone(RemovedDeleted, 1), "missing 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := CompareDelta(c.known, c.seen, c.removed)
			if err != nil {
				t.Fatal(err)
			}
			if got := outline(d); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if quiet := c.want == "" || c.want == "unchanged 2" || c.want == "unchanged 3"; d.IsEmpty() != quiet {
				t.Errorf("IsEmpty: got %t, want %t", d.IsEmpty(), quiet)
			}
		})
	}
	for name, removed := range map[string][]Removal{
		"what it has itself":       gone(RemovedUntagged, 1),
		"twice, by other reasons":  append(gone(RemovedUntagged, 2), gone(RemovedDeleted, 2)...),
		"twice, by different ARNs": {{"AROA2", "a", RemovedDeleted}, {"AROA2", "b", RemovedDeleted}},
	} {
		if d, err := CompareDelta(known(2), seen(1), removed); !IsRefusal(err, Invalid) {
			t.Errorf("a delta that removes %s: got %s, %v; want a refusal", name, outline(d), err)
		}
	}
}

func TestHolds(t *testing.T) {
	for _, c := range []struct {
		known, missing int
		want           bool
	}{{0, 0, false}, {4, 4, false}, {5, 2, false}, {5, 3, true}, {6, 3, false}, {6, 4, true}} {
		if got := Holds(c.known, c.missing); got != c.want {
			t.Errorf("Holds(%d, %d) = %t, want %t", c.known, c.missing, got, c.want)
		}
	}
}

func TestShown(t *testing.T) {
	one := testReadRole()
	shown := one.Shown()
	for name, c := range map[string]struct {
		change func(*Role)
		same   bool
	}{
		"its policies":       {func(r *Role) { r.InlinePolicies.Policies, r.ManagedPolicies.Status = nil, ListDenied }, true},
		"when it was used":   {func(r *Role) { r.LastUsedAt = nil }, true},
		"its tags":           {func(r *Role) { r.Tags = map[string]string{"serval": "x"} }, false},
		"its trust policy":   {func(r *Role) { r.TrustPolicy = `{"Statement":[]}` }, false},
		"its boundary":       {func(r *Role) { b := "arn:aws:iam::aws:policy/b"; r.PermissionsBoundary = &b }, false},
		"its longest":        {func(r *Role) { r.MaxSessionSeconds = 7200 }, false},
		"its description":    {func(r *Role) { r.Description += "." }, false},
		"its id":             {func(r *Role) { r.RoleID += "X" }, false},
		"the space in trust": {func(r *Role) { r.TrustPolicy = " " + r.TrustPolicy }, true}, // as it is on the wire
	} {
		other := testReadRole()
		c.change(&other)
		if (other.Shown() == shown) != c.same {
			t.Errorf("with another %s it shows the same: %t, want %t", name, !c.same, c.same)
		}
	}
	if got := testReadRole().Digest(); got != one.Digest() {
		t.Error("Shown changed the role")
	}
}

func TestDelta_Normalize(t *testing.T) {
	zone := time.FixedZone("", 3600)
	made := func(reverse bool) Delta {
		a, b := testReadRole(), testReadRole()
		b.ARN = b.ARN + "2"
		d := Delta{
			AccountID: "111122223333", StartedAt: t0, FinishedAt: t0.Add(time.Minute),
			Roles:      []Role{a, b},
			Removed:    []Removal{{"AROA1", "a", RemovedDeleted}, {"AROA2", "a", RemovedDeleted}, {"AROA2", "a", RemovedUntagged}, {"AROA0", "b", RemovedDeleted}},
			Unreadable: []Unreadable{{"a", "1", "x", "y"}, {"b", "0", "", ""}},
			NearMisses: []NearMiss{{"a", "SERVAL"}, {"b", "Serval"}},
			Problems:   []Problem{{"a", "t", "c", "m"}, {"b", "t", "c", "m"}},
		}
		if reverse {
			slices.Reverse(d.Roles)
			slices.Reverse(d.Removed)
			slices.Reverse(d.Unreadable)
			slices.Reverse(d.NearMisses)
			slices.Reverse(d.Problems)
			d.StartedAt, d.FinishedAt = d.StartedAt.In(zone), d.FinishedAt.In(zone)
		}
		d.Normalize()
		return d
	}
	one, err := marshal(made(false))
	if err != nil {
		t.Fatal(err)
	}
	other, err := marshal(made(true))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(one), string(other)); diff != "" {
		t.Errorf("the same delta in another order has other bytes:\n%s", diff)
	}
	var none Delta
	none.Normalize()
	text, err := marshal(none)
	want := `{"schema":"serval.delta/v1","account_id":"","account_name":"","generation":0,"started_at":"0001-01-01T00:00:00Z","finished_at":"0001-01-01T00:00:00Z",` +
		`"complete":false,"read_by":"","roles":[],"removed":[],"unreadable":[],"near_misses":[],"problems":[]}`
	if err != nil || string(text) != want {
		t.Errorf("an empty delta is %s (%v), want %s", text, err, want)
	}
}
