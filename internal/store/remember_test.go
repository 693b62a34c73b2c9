package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// What is remembered is what the database holds, after every kind of write to
// what it was read from.
func TestRememberedIsTrue(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		declare(t, d, prod)
		newRequest(t, d, "r1")
		token := IDToken{ID: "k", Sealed: "sealed", EndsAt: noon.Add(time.Hour)}
		login := Login{ID: "l", Token: "t", PersonID: kim.ID, Kind: BrowserLogin, CreatedAt: noon, SeenAt: noon, ExpiresAt: noon.Add(time.Hour), IDToken: token}
		d.act(t, noon, func(tx *Tx) error { return errors.Join(tx.SaveIDToken(token), tx.CreateLogin(login)) })

		byToken := func(v *View) (any, error) { return v.LoginByToken("t") }
		person := func(v *View) (any, error) { return v.Person(kim.ID) }
		accounts := func(v *View) (any, error) { return v.Accounts() }
		roles := func(v *View) (any, error) { return v.Rosters() }
		policies := func(v *View) (any, error) { return v.PolicyVersion() }
		open := func(v *View) (any, error) { return v.OpenRequests(kim.ID) }
		read := func(f func(*View) (any, error)) any { t.Helper(); return look(t, d, f) }
		for _, test := range []struct {
			name  string
			read  func(*View) (any, error)
			write func() error
		}{
			{"a login that is used", byToken, func() error { return d.TouchLogin(t.Context(), "l", noon.Add(time.Minute)) }},
			{"an ID token that is wiped", byToken, func() error { return d.WipeTokens(t.Context(), noon.Add(time.Hour), noon) }},
			{"an ID token that is refreshed", byToken, func() error {
				fresh := token
				fresh.Sealed = "fresh"
				return d.Write(t.Context(), noon, func(tx *Tx) error { return tx.SaveIDToken(fresh) })
			}},
			{"a login that is ended", byToken, func() error {
				return d.Write(t.Context(), noon, func(tx *Tx) error { _, err := tx.EndLogin(kim.ID, "l"); return err })
			}},
			{"a person", person, func() error {
				p := kim
				p.Suspended = "because"
				return d.Write(t.Context(), noon, func(tx *Tx) error { return tx.SavePerson(p) })
			}},
			{"an account", accounts, func() error {
				return d.Write(t.Context(), noon, func(tx *Tx) error { return tx.RequestSync(prod) })
			}},
			{"roles", roles, func() error {
				push(t, d, prod, noon, serval.Inventory{Complete: true, Roles: named(prod, "a")})
				return nil
			}},
			{"roles of an account that goes", roles, func() error {
				return d.Write(t.Context(), noon, func(tx *Tx) error { return tx.RemoveAccount(prod) })
			}},
			{"a policy", policies, func() error {
				return d.Write(t.Context(), noon, func(tx *Tx) error { return tx.SetMeta(policyVersion, "another") })
			}},
			{"a request", open, func() error {
				return d.Write(t.Context(), noon, func(tx *Tx) error {
					r, err := tx.Request("r1")
					if err != nil {
						return err
					}
					r.ClockStartedAt, r.EndsAt = noon, noon.Add(time.Hour)
					return tx.SaveRequest(r)
				})
			}},
		} {
			before := read(test.read)
			if again := read(test.read); !cmp.Equal(before, again, cmp.AllowUnexported(Role{})) {
				t.Errorf("%s: read twice it differs:\n%s", test.name, cmp.Diff(before, again))
			}
			if err := test.write(); err != nil {
				t.Fatalf("%s: %v", test.name, err)
			}
			if after := read(test.read); cmp.Equal(before, after, cmp.AllowUnexported(Role{})) {
				t.Errorf("%s: after it was written to it is still %+v", test.name, after)
			}
		}

		// Whoever asked may change what they got.
		requests := look(t, d, func(v *View) ([]*serval.Request, error) { return v.OpenRequests(kim.ID) })
		requests[0].Ticket = "changed"
		requests[0].Allocations[0].Steps = append(requests[0].Allocations[0].Steps, serval.Step{Outcome: "approve"})
		list := look(t, d, func(v *View) ([]Account, error) { return v.Accounts() })
		for i := range list {
			list[i].Name = "changed"
		}
		again := look(t, d, func(v *View) ([]*serval.Request, error) { return v.OpenRequests(kim.ID) })
		if again[0].Ticket == "changed" || len(again[0].Allocations[0].Steps) == len(requests[0].Allocations[0].Steps) {
			t.Errorf("what one reader changed another reads: %q", again[0].Ticket)
		}
		for _, a := range look(t, d, func(v *View) ([]Account, error) { return v.Accounts() }) {
			if a.Name == "changed" {
				t.Error("what one reader changed of an account another reads")
			}
		}
	})
}

// A view that began before a write remembers nothing from before it for those
// that begin after.
func TestOldSnapshotIsNotRemembered(t *testing.T) {
	d := migrated(t, "sqlite://"+filepath.Join(t.TempDir(), "serval.db"))
	d.act(t, noon, func(tx *Tx) error { return errors.Join(tx.SavePerson(kim), tx.SetMeta("x", "before")) })
	err := d.Read(t.Context(), func(v *View) error {
		if _, err := v.Person(kim.ID); err != nil { // the snapshot begins
			return err
		}
		d.act(t, noon, func(tx *Tx) error { return tx.SetMeta("x", "after") })
		old, err := v.Meta("x")
		if err != nil || old != "before" {
			t.Errorf("in the snapshot from before it is %q, %v; want before", old, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := look(t, d, func(v *View) (string, error) { return v.Meta("x") }); got != "after" {
		t.Errorf("a new view reads %q, want after", got)
	}
}

// Something is remembered only where this process alone writes.
func TestRememberAlone(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		if d.memory.IsOn() != d.isSQLite() {
			t.Errorf("something is remembered: %t", d.memory.IsOn())
		}
	})
}

// Every write outside of a Tx goes through alone, or it would not be noted.
func TestWritesAreNoted(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		n := strings.Count(string(text), "db."+"ExecContext(")
		found += n
		if n > 0 && file != "remember.go" && !strings.HasSuffix(file, "_test.go") {
			t.Errorf("%s writes past the memory: use alone", file)
		}
	}
	if found == 0 {
		t.Error("alone was not found: the test looks for the wrong thing")
	}
}
