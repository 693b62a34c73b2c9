package serval

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func roleKey(id, name string) RoleKey {
	return RoleKey{Partition: "aws", AccountID: "111122223333", RoleID: id, ARN: "arn:aws:iam::111122223333:role/" + name}
}

// known returns roles AROA1 … AROAn with digest d.
func known(n int) (k []Known) {
	for i := range n {
		k = append(k, Known{Key: roleKey(fmt.Sprintf("AROA%d", i+1), fmt.Sprintf("r%d", i+1)), Digest: "d"})
	}
	return k
}

// seen returns the same of the ids.
func seen(ids ...int) (s []Seen) {
	for _, i := range ids {
		s = append(s, Seen{roleKey(fmt.Sprintf("AROA%d", i), fmt.Sprintf("r%d", i)), "d"})
	}
	return s
}

// outline writes a difference as ids, sorted.
func outline(d Difference) string {
	var b strings.Builder
	for _, part := range []struct {
		name string
		keys []RoleKey
	}{{"added", d.Added}, {"changed", d.Changed}, {"unchanged", d.Unchanged}, {"fresh", d.Fresh}, {"recreated", d.Recreated},
		{"untagged", d.Untagged}, {"missing", d.Missing}, {"held", d.Held}} {
		var ids []string
		for _, k := range part.keys {
			ids = append(ids, strings.TrimPrefix(k.RoleID, "AROA"))
		}
		if ids != nil {
			slices.Sort(ids)
			fmt.Fprintf(&b, "%s %s; ", part.name, strings.Join(ids, " "))
		}
	}
	for _, s := range d.Stale {
		fmt.Fprintf(&b, "stale %s (%s); ", strings.TrimPrefix(s.Key.RoleID, "AROA"), s.Reason)
	}
	return strings.TrimSuffix(b.String(), "; ")
}

func TestCompare(t *testing.T) { // R-4 R-7 R-11 S-3
	const incomplete = "the last inventory of the account was incomplete"
	held := func(k []Known, since time.Time, ids ...int) []Known {
		for _, i := range ids {
			k[i-1].HeldSince = since
		}
		return k
	}
	changed := func(s []Seen) []Seen { s[0].Digest = "e"; return s }
	recreated := append(seen(2), Seen{roleKey("AROA9", "r1"), "d"})

	for _, c := range []struct {
		name  string
		known []Known
		seen  Sighting
		want  string
	}{
		{"nothing known, nothing seen", nil, Sighting{Complete: true}, ""},
		{"the first inventory", nil, Sighting{Complete: true, Roles: seen(1, 2)}, "added 1 2"},
		{"an incomplete first one adds too", nil, Sighting{Roles: seen(1, 2)}, "added 1 2"},
		{"a role listed twice is added once", nil, Sighting{Complete: true, Roles: seen(1, 1)}, "added 1"},
		{"nothing new", known(2), Sighting{Complete: true, Roles: seen(2, 1)}, "unchanged 1 2"},
		{"a change", known(2), Sighting{Complete: true, Roles: changed(seen(1, 2))}, "changed 1; unchanged 2"},
		{"a change in an incomplete one", known(2), Sighting{Roles: changed(seen(1))}, "changed 1; stale 2 (" + incomplete + ")"},

		// unknown is never absent.
		{"all missing from an incomplete one", known(2), Sighting{}, "stale 1 (" + incomplete + "); stale 2 (" + incomplete + ")"},
		{"one of two missing from a complete one", known(2), Sighting{Complete: true, Roles: seen(2)}, "unchanged 2; missing 1"},
		{"all of four missing from a complete one", known(4), Sighting{Complete: true}, "missing 1 2 3 4"},

		// what could not be looked at stands.
		{"unreadable, by ARN", known(2), Sighting{Complete: true, Roles: seen(2), Unreadable: []Unreadable{
			{ARN: roleKey("", "r1").ARN, Action: "iam:GetRole", Code: "AccessDenied"}}}, "unchanged 2; stale 1 (iam:GetRole answered AccessDenied)"},
		{"unreadable, by id", known(2), Sighting{Complete: true, Roles: seen(2), Unreadable: []Unreadable{
			{RoleID: "AROA1", Action: "iam:GetRole", Code: "Throttling"}}}, "unchanged 2; stale 1 (iam:GetRole answered Throttling)"},
		{"unreadable, by both", known(2), Sighting{Roles: seen(2), Unreadable: []Unreadable{
			{ARN: roleKey("", "r1").ARN, RoleID: "AROA1", Action: "iam:GetRole", Code: "x"}}}, "unchanged 2; stale 1 (iam:GetRole answered x)"},
		{"unreadable and new", known(1), Sighting{Complete: true, Roles: seen(1), Unreadable: []Unreadable{
			{ARN: roleKey("", "r7").ARN, RoleID: "AROA7"}}}, "unchanged 1"},
		{"unreadable without any name", known(1), Sighting{Complete: true, Unreadable: []Unreadable{{Action: "iam:GetRole"}}}, "missing 1"},
		{"unreadable roles are not missing ones", known(6), Sighting{Complete: true, Roles: seen(3, 4), Unreadable: []Unreadable{
			{RoleID: "AROA1", Action: "a", Code: "c"}, {RoleID: "AROA2", Action: "a", Code: "c"}}},
			"unchanged 3 4; missing 5 6; stale 1 (a answered c); stale 2 (a answered c)"},

		// Untagging is the owner's kill switch.
		{"untagged", known(2), Sighting{Complete: true, Roles: seen(2), Untagged: []string{"AROA1"}}, "unchanged 2; untagged 1"},
		{"untagged in an incomplete one", known(2), Sighting{Untagged: []string{"AROA1"}}, "untagged 1; stale 2 (" + incomplete + ")"},
		{"all of six untagged at once", known(6), Sighting{Complete: true, Untagged: []string{"AROA1", "AROA2", "AROA3", "AROA4", "AROA5", "AROA6"}}, "untagged 1 2 3 4 5 6"},
		{"untagged, though unreadable before", known(1), Sighting{Untagged: []string{"AROA1"}, Unreadable: []Unreadable{{RoleID: "AROA1"}}}, "untagged 1"},
		{"untagged while held", held(known(6), t0, 1, 2, 3, 4), Sighting{Complete: true, Roles: seen(5, 6), Untagged: []string{"AROA1", "AROA2", "AROA3"}},
			"unchanged 5 6; untagged 1 2 3; held 4"},
		{"somebody else untagged", known(1), Sighting{Complete: true, Roles: seen(1), Untagged: []string{"AROA7"}}, "unchanged 1"},

		// S-3: the same ARN is not the same role.
		{"created again", known(2), Sighting{Complete: true, Roles: recreated}, "added 9; unchanged 2; recreated 1"},
		{"created again, in an incomplete one", known(2), Sighting{Roles: recreated}, "added 9; unchanged 2; recreated 1"},
		{"created again and unreadable", known(2), Sighting{Roles: seen(2), Unreadable: []Unreadable{
			{ARN: roleKey("", "r1").ARN, RoleID: "AROA9", Action: "a", Code: "c"}}}, "unchanged 2; recreated 1"},
		{"created again many times at once is no hold", known(5), Sighting{Complete: true, Roles: []Seen{
			{roleKey("AROA11", "r1"), "d"}, {roleKey("AROA12", "r2"), "d"}, {roleKey("AROA13", "r3"), "d"}, {roleKey("AROA14", "r4"), "d"}, {roleKey("AROA5", "r5"), "d"}}},
			"added 11 12 13 14; unchanged 5; recreated 1 2 3 4"},

		// five or more known, and more than half missing.
		{"four known, three missing", known(4), Sighting{Complete: true, Roles: seen(1)}, "unchanged 1; missing 2 3 4"},
		{"five known, two missing", known(5), Sighting{Complete: true, Roles: seen(1, 2, 3)}, "unchanged 1 2 3; missing 4 5"},
		{"five known, three missing", known(5), Sighting{Complete: true, Roles: seen(1, 2)}, "unchanged 1 2; held 3 4 5"},
		{"five known, all missing", known(5), Sighting{Complete: true}, "held 1 2 3 4 5"},
		{"six known, exactly half missing", known(6), Sighting{Complete: true, Roles: seen(1, 2, 3)}, "unchanged 1 2 3; missing 4 5 6"},
		{"six known, four missing", known(6), Sighting{Complete: true, Roles: seen(1, 2)}, "unchanged 1 2; held 3 4 5 6"},
		{"new ones do not hide the missing", known(5), Sighting{Complete: true, Roles: seen(1, 2, 21, 22, 23, 24)}, "added 21 22 23 24; unchanged 1 2; held 3 4 5"},

		// Held until a second complete inventory, half an hour later.
		{"not yet", held(known(5), t0.Add(-30*time.Minute+1), 3, 4, 5), Sighting{Complete: true, Roles: seen(1, 2)}, "unchanged 1 2; held 3 4 5"},
		{"after half an hour", held(known(5), t0.Add(-30*time.Minute), 3, 4, 5), Sighting{Complete: true, Roles: seen(1, 2)}, "unchanged 1 2; missing 3 4 5"},
		{"after half an hour, incomplete", held(known(5), t0.Add(-time.Hour), 3, 4, 5), Sighting{Roles: seen(1, 2)},
			"unchanged 1 2; stale 3 (" + incomplete + "); stale 4 (" + incomplete + "); stale 5 (" + incomplete + ")"},
		{"one more missing then", held(known(6), t0.Add(-time.Hour), 3, 4, 5, 6), Sighting{Complete: true, Roles: seen(1)}, "unchanged 1; missing 3 4 5 6; held 2"},
		{"some reappear", held(known(6), t0.Add(-time.Minute), 3, 4, 5, 6), Sighting{Complete: true, Roles: seen(1, 2, 3, 4, 5)}, "unchanged 1 2 3 4 5; fresh 3 4 5; held 6"},
		{"a held role reappears changed", held(known(5), t0.Add(-time.Hour), 1, 2, 3), Sighting{Complete: true, Roles: changed(seen(1, 2, 3, 4, 5))}, "changed 1; unchanged 2 3 4 5; fresh 2 3"},
		{"a held role was created again", held(known(2), t0, 1), Sighting{Complete: true, Roles: recreated}, "added 9; unchanged 2; recreated 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := Compare(c.known, c.seen, t0)
			if got := outline(d); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			quiet := c.want == "" || strings.HasPrefix(c.want, "unchanged") && !strings.Contains(c.want, ";")
			if d.IsEmpty() != quiet {
				t.Errorf("IsEmpty: got %t, want %t", d.IsEmpty(), quiet)
			}
			if got, want := len(d.Removed()), len(d.Recreated)+len(d.Untagged)+len(d.Missing); got != want {
				t.Errorf("Removed: got %d roles, want %d", got, want)
			}
		})
	}
}

// TestCompare_partition holds random comparisons to the promise that every
// known role is in exactly one list.
func TestCompare_partition(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 5_000 {
		k := known(rnd.IntN(12))
		s := Sighting{Complete: rnd.IntN(2) == 0}
		for i := range 14 {
			id, name := fmt.Sprintf("AROA%d", i+1), fmt.Sprintf("r%d", i+1)
			if i < len(k) && rnd.IntN(3) == 0 {
				k[i].HeldSince = t0.Add(-time.Duration(rnd.IntN(60)) * time.Minute)
			}
			switch rnd.IntN(7) {
			case 0, 1, 2:
				s.Roles = append(s.Roles, Seen{roleKey(id, name), []string{"d", "e"}[rnd.IntN(2)]})
			case 3:
				s.Roles = append(s.Roles, Seen{roleKey(id+"x", name), "d"})
			case 4:
				s.Unreadable = append(s.Unreadable, Unreadable{ARN: roleKey(id, name).ARN, RoleID: []string{"", id, id + "x"}[rnd.IntN(3)]})
			case 5:
				s.Untagged = append(s.Untagged, id)
			}
		}
		d := Compare(k, s, t0)
		in := map[string]int{}
		for _, list := range [][]RoleKey{d.Changed, d.Unchanged, d.Recreated, d.Untagged, d.Missing, d.Held} {
			for _, key := range list {
				in[key.RoleID]++
			}
		}
		for _, s := range d.Stale {
			in[s.Key.RoleID]++
		}
		for _, one := range k {
			if in[one.Key.RoleID] != 1 {
				t.Fatalf("%s is in %d lists of %s, want one", one.Key.RoleID, in[one.Key.RoleID], outline(d))
			}
		}
		if len(in) != len(k) {
			t.Fatalf("%d roles in the lists, want the %d known: %s", len(in), len(k), outline(d))
		}
		if !s.Complete && len(d.Missing)+len(d.Held) > 0 {
			t.Fatalf("an incomplete inventory removes or holds roles for being missing: %s", outline(d))
		}
	}
}

func TestInventory_Normalize(t *testing.T) {
	zone := time.FixedZone("", 3600)
	make := func(reverse bool) Inventory {
		a, b := testReadRole(), testReadRole()
		b.ARN, b.Tags = b.ARN+"2", nil
		c := b
		c.RoleID = "AROA0"
		inv := Inventory{
			AccountID: "111122223333", StartedAt: t0, FinishedAt: t0.Add(time.Minute),
			Roles:      []Role{a, b, c},
			Unreadable: []Unreadable{{"a", "1", "x", "y"}, {"a", "2", "x", "y"}, {"a", "2", "x", "z"}, {"a", "2", "y", "z"}, {"b", "0", "", ""}},
			NearMisses: []NearMiss{{"a", "SERVAL"}, {"a", "Serval"}, {"b", "Serval"}},
			Problems:   []Problem{{"a", "t", "c", "m"}, {"a", "t", "c", "n"}, {"a", "t", "d", "m"}, {"a", "u", "c", "m"}, {"b", "t", "c", "m"}},
			Untagged:   []string{"AROA1", "AROA2"},
		}
		if reverse {
			slices.Reverse(inv.Roles)
			slices.Reverse(inv.Unreadable)
			slices.Reverse(inv.NearMisses)
			slices.Reverse(inv.Problems)
			slices.Reverse(inv.Untagged)
			inv.StartedAt, inv.FinishedAt = inv.StartedAt.In(zone), inv.FinishedAt.In(zone)
			inv.Roles[0].Tags, inv.Roles[1].Tags = map[string]string{}, map[string]string{}
			used := inv.Roles[2].LastUsedAt.In(zone)
			inv.Roles[2].LastUsedAt, inv.Roles[2].CreatedAt = &used, inv.Roles[2].CreatedAt.In(zone)
		}
		inv.Normalize()
		return inv
	}
	one, err := marshal(make(false))
	if err != nil {
		t.Fatal(err)
	}
	other, err := marshal(make(true))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(one), string(other)); diff != "" {
		t.Errorf("the same account read in another order has other bytes:\n%s", diff)
	}
	inv := make(true)
	inv.Normalize()
	again, err := marshal(inv)
	if err != nil || string(again) != string(one) {
		t.Errorf("normalizing twice changes: %s, %v", again, err)
	}
	if inv.Schema != InventorySchema {
		t.Errorf("the schema is %q, want %q", inv.Schema, InventorySchema)
	}
	delta := Inventory{Schema: DeltaSchema}
	delta.Normalize()
	if delta.Schema != DeltaSchema {
		t.Errorf("a given schema became %q", delta.Schema)
	}

	bare := Inventory{Roles: []Role{{}}}
	bare.Normalize()
	role, err := marshal(bare.Roles[0])
	const wantRole = `{"arn":"","role_id":"","name":"","path":"","description":"","created_at":"0001-01-01T00:00:00Z",` +
		`"max_session_seconds":0,"tags":{},"trust_policy":null,"permissions_boundary":null,"last_used_at":null,` +
		`"inline_policies":{"status":"","policies":[]},"managed_policies":{"status":"","policies":[]}}`
	if err != nil || string(role) != wantRole {
		t.Errorf("an empty role: got %s, %v; want %s", role, err, wantRole)
	}

	var none Inventory
	none.Normalize()
	text, err := marshal(none)
	const want = `{"schema":"serval.inventory/v1","account_id":"","account_name":"","generation":0,` +
		`"started_at":"0001-01-01T00:00:00Z","finished_at":"0001-01-01T00:00:00Z","complete":false,"read_by":"",` +
		`"roles":[],"unreadable":[],"near_misses":[],"problems":[]}`
	if err != nil || string(text) != want {
		t.Errorf("an empty inventory: got %s, %v; want %s", text, err, want)
	}
}
