package roster

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/access"
	"github.com/serval-bridge/serval-bridge/internal/pgtest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/sqlitetest"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/storetest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

var accounts = []string{"111122223333", "444455556666"}

// stocked returns a store with two accounts of a hundred roles.
func stocked(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{URL: serval.NewSecret(sqlitetest.URLOf(t, storetest.Migrate)), Chain: serval.NewChain(serval.NewSecret("a root secret of a test"))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	for _, account := range accounts {
		push(t, s, account, 100)
	}
	return s
}

// push has an account have n roles.
func push(t *testing.T, s *store.Store, account string, n int) {
	t.Helper()
	var staged []store.Staged
	for i := range n {
		name := fmt.Sprintf("role-%03d", i)
		r := serval.Role{ARN: "arn:aws:iam::" + account + ":role/" + name, RoleID: fmt.Sprintf("AROA%s%03d", account, i), Name: name, Path: "/",
			Tags: map[string]string{"serval": "", "team": fmt.Sprint(i % 7)}}
		staged = append(staged, store.Staged{Role: r, Digest: r.Digest()})
	}
	if err := s.Stage(t.Context(), "push", account, noon, staged); err != nil {
		t.Fatal(err)
	}
	err := s.Write(t.Context(), noon, func(tx *store.Tx) error {
		if err := tx.DeclareAccount(serval.Account{ID: account, Name: "a", Partition: "aws"}, store.SourceFile); err != nil {
			return err
		}
		return tx.ApplyDifference("push", account, serval.Difference{})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// What somebody may have, and by which policy, is what each role by itself and all
// policies decide: whoever asks, from wherever they go on, whichever policies
// were in force before, and after the roles have changed.
func TestEachOfIsWhatDecides(t *testing.T) {
	s := stocked(t)
	policy := func(name, group string, m serval.RoleMatch) serval.AccessPolicy {
		return serval.AccessPolicy{Name: name, Roles: m, Eligible: serval.People{Groups: []string{group}}}
	}
	some := policy("some", "g1", serval.RoleMatch{ARNs: []string{"*:role/role-0?1", "*:role/role-09*"}})
	tagged := policy("tagged", "g2", serval.RoleMatch{Tags: map[string]string{"team": "3"}})
	one := policy("one account", "g1", serval.RoleMatch{Accounts: accounts[:1]})
	nothing := policy("nothing", "g1", serval.RoleMatch{})
	all := policy("all", "g3", serval.RoleMatch{ARNs: []string{"*"}})
	var rosters Rosters
	seen := map[string]bool{}
	try := func(when string) {
		for n, set := range []*Policies{
			{List: []serval.AccessPolicy{some, tagged, one, nothing, all}}, {List: []serval.AccessPolicy{all, one, some, tagged}}, {List: []serval.AccessPolicy{tagged}}, {},
		} {
			for _, groups := range [][]string{{"g1"}, {"g2"}, {"g1", "g2"}, {"g2", "g3"}, {"g4"}, nil, {"g1"}} {
				who := serval.Person{Groups: groups}
				for _, after := range []string{"", "arn:aws:iam::111122223333:role/role-030", "arn:aws:iam::111122223333:role/role-0305", "arn:aws:iam::444455556666:role/role-099"} {
					for _, account := range append([]string{""}, accounts...) {
						var want, got []string
						err := s.Read(t.Context(), func(v *store.View) error {
							err := rosters.Each(v, account, after, func(of *Roster, i int) (bool, error) {
								if p, ok := access.Decide(set.List, Target(&of.Roles[i].Role), who); ok {
									want = append(want, of.Roles[i].ARN+" "+p.Name)
									seen[p.Name] = true
								}
								return true, nil
							})
							if err != nil {
								return err
							}
							return rosters.EachOf(v, set, who, account, after, func(of *Roster, i int, p *serval.AccessPolicy) (bool, error) {
								got = append(got, of.Roles[i].ARN+" "+p.Name)
								return true, nil
							})
						})
						if err != nil {
							t.Fatal(err)
						}
						if diff := cmp.Diff(want, got); diff != "" {
							t.Fatalf("%s, by the policies %d, groups %v, account %q after %q (-want +got):\n%s", when, n, groups, account, after, diff)
						}
					}
				}
			}
		}
	}
	try("at first")
	try("again")
	push(t, s, accounts[0], 130)
	try("with more roles")
	if len(seen) != 4 {
		t.Errorf("the policies that decided are %v: the test tries too little", seen)
	}
}

// Both go on behind the ARN, and end where they are told to.
func TestEachGoesOnBehind(t *testing.T) {
	s := stocked(t)
	var rosters Rosters
	set := &Policies{List: []serval.AccessPolicy{{Name: "all", Roles: serval.RoleMatch{ARNs: []string{"*"}}, Eligible: serval.People{Groups: []string{"g"}}}}}
	pages := func(each func(v *store.View, after string, f func(of *Roster, i int) (bool, error)) error) (seen []string) {
		for after := ""; len(seen) < 1000; {
			var page []string
			err := s.Read(t.Context(), func(v *store.View) error {
				return each(v, after, func(of *Roster, i int) (bool, error) {
					page = append(page, of.Roles[i].ARN)
					return len(page) < 7, nil
				})
			})
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				return seen
			}
			seen, after = append(seen, page...), page[len(page)-1]
		}
		return seen
	}
	of := pages(func(v *store.View, after string, f func(*Roster, int) (bool, error)) error {
		return rosters.EachOf(v, set, serval.Person{Groups: []string{"g"}}, "", after, func(of *Roster, i int, _ *serval.AccessPolicy) (bool, error) { return f(of, i) })
	})
	every := pages(func(v *store.View, after string, f func(*Roster, int) (bool, error)) error {
		return rosters.Each(v, "", after, f)
	})
	if len(of) != 200 || len(every) != 200 || cmp.Diff(of, every) != "" {
		t.Errorf("in pages of seven there are %d and %d roles, want 200 each, the same", len(of), len(every))
	}
	for i, arn := range every {
		if i > 0 && arn <= every[i-1] {
			t.Errorf("%s comes behind %s", arn, every[i-1])
		}
	}
	err := s.Read(t.Context(), func(v *store.View) error {
		return rosters.Each(v, "", "no ARN", func(*Roster, int) (bool, error) { return true, nil })
	})
	if !serval.IsRefusal(err, serval.Invalid) {
		t.Errorf("behind what is no ARN: %v, want it refused", err)
	}
}

// What is read ahead is bounded; what nobody has read is read when it is asked for.
func TestWarm(t *testing.T) {
	s := stocked(t)
	for most, want := range map[int]int{0: 0, 1: 1, 100: 1, 101: 2, 1000: 2} {
		var rosters Rosters
		if err := s.Read(t.Context(), func(v *store.View) error { return rosters.Warm(v, most) }); err != nil {
			t.Fatal(err)
		}
		kept := 0
		for _, account := range accounts {
			if rosters.Kept(account) != nil {
				kept++
			}
		}
		if kept != want {
			t.Errorf("of at most %d roles, %d accounts of a hundred were read, want %d", most, kept, want)
		}
	}
}

// People look for names: that is the order, whatever the path and the case, and a
// page begins behind the last role of the one before.
func TestRolesAreInTheOrderOfTheirNames(t *testing.T) {
	s := stocked(t)
	var staged []store.Staged
	paths := []string{"z/beta", "Alpha", "a/alpha", "m/Gamma", "b/alpha", "z/alpha-2"}
	for i, path := range paths {
		r := serval.Role{ARN: "arn:aws:iam::" + accounts[0] + ":role/" + path, RoleID: fmt.Sprintf("AROANAMED%03d", i), Name: lastName(path), Path: "/"}
		staged = append(staged, store.Staged{Role: r, Digest: r.Digest()})
	}
	if err := s.Stage(t.Context(), "named", accounts[0], noon, staged); err != nil {
		t.Fatal(err)
	}
	if err := s.Write(t.Context(), noon, func(tx *store.Tx) error { return tx.ApplyDifference("named", accounts[0], serval.Difference{}) }); err != nil {
		t.Fatal(err)
	}
	var rosters Rosters
	var got []string
	for after := ""; ; { // one at a time, as pages of one role
		next := ""
		err := s.Read(t.Context(), func(v *store.View) error {
			return rosters.Each(v, accounts[0], after, func(of *Roster, i int) (bool, error) {
				next = of.Roles[i].ARN
				return false, nil
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		if next == "" {
			break
		}
		if _, path, _ := strings.Cut(next, ":role/"); slices.Contains(paths, path) {
			got = append(got, path)
		}
		after = next
	}
	if diff := cmp.Diff([]string{"Alpha", "a/alpha", "b/alpha", "z/alpha-2", "z/beta", "m/Gamma"}, got); diff != "" {
		t.Errorf("the order (-want +got):\n%s", diff)
	}
}
