package store

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// S-2: what is done to one account is done to none beside it.
func TestAccountsAreApart(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		declare(t, d, prod, stage)
		push(t, d, prod, noon, serval.Inventory{Complete: true, Roles: named(prod, "a", "b")})
		push(t, d, stage, noon, serval.Inventory{Complete: true, Roles: named(stage, "c", "gone")})
		push(t, d, stage, noon, serval.Inventory{Complete: true, Roles: named(stage, "c")})
		of := func(id string) Account {
			t.Helper()
			return look(t, d, func(v *View) (Account, error) { return v.Account(id) })
		}
		rosters := func() []Roster {
			t.Helper()
			return look(t, d, func(v *View) ([]Roster, error) { return v.Rosters() })
		}
		version := func(id string) int64 {
			t.Helper()
			for _, r := range rosters() {
				if r.AccountID == id {
					return r.Version
				}
			}
			t.Fatalf("there is no roster of %s", id)
			return 0
		}
		for name, do := range map[string]func(*Tx) error{
			"a sync is opened":    func(tx *Tx) error { _, _, _, err := tx.IssueGeneration(stage, "hub", noon.Add(time.Hour)); return err },
			"a sync is asked for": func(tx *Tx) error { return tx.RequestSync(stage) },
		} {
			before, was := of(prod), of(stage)
			d.act(t, noon.Add(time.Minute), do)
			if diff := cmp.Diff(before, of(prod)); diff != "" {
				t.Errorf("%s of another account (-want +got):\n%s", name, diff)
			}
			if cmp.Equal(was, of(stage)) {
				t.Errorf("%s, and nothing shows it", name)
			}
		}
		before := version(prod)
		push(t, d, stage, noon.Add(time.Hour), serval.Inventory{Complete: true, Roles: named(stage, "c", "d")})
		if got := version(prod); got != before {
			t.Errorf("a push of another account makes the roster version %d, want %d", got, before)
		}

		d.act(t, noon.Add(2*time.Hour), func(tx *Tx) error { return tx.RemoveAccount(stage) })
		if got := listed(t, d, prod); got != "a, b" {
			t.Errorf("with another account gone there are %q, want a, b", got)
		}
		if n := d.number(t, `select count(*) from role where account_id = $1 and removed_reason = $2`, stage, serval.RemovedDisconnected); n != 2 {
			t.Errorf("%d roles were taken out with their account, want the two that were left", n)
		}
		if all := rosters(); len(all) != 1 || all[0].AccountID != prod || version(prod) != before {
			t.Errorf("rosters %+v, want the one that is left, as it was", all)
		}
	})
}

// S-63: whoever comes with a code takes what that code is of, and nothing else.
func TestClientAttemptsAreApart(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		for _, code := range []string{"one", "three", "two"} {
			d.act(t, noon, func(tx *Tx) error {
				return tx.SaveClientAttempt(ClientAttempt{Code: code, Typed: "typed " + code, LoginID: "login " + code, CreatedAt: noon, ExpiresAt: noon.Add(time.Minute)})
			})
		}
		var got ClientAttempt
		d.act(t, noon, func(tx *Tx) (err error) { got, err = tx.TakeClientAttempt("two"); return err })
		if got.Code != "two" {
			t.Errorf("the code two took %q", got.Code)
		}
		for _, code := range []string{"one", "three"} {
			if got := look(t, d, func(v *View) (ClientAttempt, error) { return v.ClientAttempt(code, noon) }); got.Code != code {
				t.Errorf("the code %s finds %q", code, got.Code)
			}
			if n := look(t, d, func(v *View) (int, error) { return v.CountApproved("login "+code, noon) }); n != 1 {
				t.Errorf("the login of %s let in %d, want 1", code, n)
			}
		}
		if n := look(t, d, func(v *View) (int, error) { return v.CountApproved("login one", noon.Add(time.Minute)) }); n != 0 {
			t.Errorf("%d that have expired are counted", n)
		}
	})
}

// S-60: a token is wiped when its own login has ended, in whatever way, and not
// when another's has.
func TestTokensAreWipedApart(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		d.act(t, noon, func(tx *Tx) error {
			err := tx.SavePerson(kim)
			for _, id := range []string{"a", "b"} {
				err = errors.Join(err, tx.SaveIDToken(IDToken{ID: "token " + id, Sealed: "sealed", Refresh: "refresh", EndsAt: noon.Add(time.Hour)}), tx.CreateLogin(Login{
					ID: id, Token: "digest " + id, PersonID: kim.ID, Kind: "browser", CreatedAt: noon, SeenAt: noon, ExpiresAt: noon.Add(time.Hour), IDToken: IDToken{ID: "token " + id},
				}))
			}
			return err
		})
		sealed := func() int64 { return d.number(t, `select count(*) from id_token where sealed <> '' and refresh <> ''`) }
		wipe := func() {
			t.Helper()
			if err := d.WipeTokens(t.Context(), noon, noon.Add(-time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
		if wipe(); sealed() != 2 {
			t.Errorf("%d of two tokens in use are sealed", sealed())
		}
		d.raw(t, `update login set ended_at = 1 where id = 'a'`)
		if wipe(); sealed() != 1 || d.number(t, `select count(*) from id_token where id = 'token b' and sealed <> ''`) != 1 {
			t.Errorf("with one login ended %d tokens are sealed, want the other's", sealed())
		}
		for id, want := range map[string]string{"a": "a", "b": "b"} {
			if got := look(t, d, func(v *View) (Login, error) { return v.Login(kim.ID, id) }); got.ID != want {
				t.Errorf("the login %s is %q", id, got.ID)
			}
		}
		err := d.Read(t.Context(), func(v *View) error { _, err := v.Login(lee.ID, "a"); return err })
		refused(t, "another's login", err, serval.NotFound)
	})
}

// A notice is dropped by whoever holds it, and alone.
func TestNoticesAreDroppedApart(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		keepNotices(t, d, aNotice("a", "mail"), aNotice("b", "mail"))
		drop := func(n serval.Notice) (held bool) {
			t.Helper()
			d.act(t, noon, func(tx *Tx) (err error) { held, err = tx.DropNotice(n); return err })
			return held
		}
		stale := aNotice("a", "mail")
		stale.Attempts = 7 // of a claim that was over
		if drop(stale) || d.number(t, `select count(*) from notice`) != 2 {
			t.Error("a notice was dropped by whoever held it once")
		}
		if !drop(aNotice("a", "mail")) || d.number(t, `select count(*) from notice`) != 1 || d.number(t, `select count(*) from notice where id = 'b'`) != 1 {
			t.Error("a notice was not dropped, or not alone")
		}
	})
}
