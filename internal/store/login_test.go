package store

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

func TestLogin(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		login := func(id string, created time.Time) Login {
			return Login{
				ID: id, Token: "token " + id, PersonID: kim.ID, Kind: "browser", CreatedAt: created, SeenAt: created, ExpiresAt: created.Add(time.Hour),
				Address: "192.0.2.1", Agent: "Agent/1.0", IDToken: IDToken{
					ID: "token " + id, Sealed: "sealed " + id, EndsAt: created.Add(30 * time.Minute),
					AuthTime: created.Add(-time.Hour), Refresh: "refresh " + id, RefreshedAt: created, ClaimedUntil: created.Add(time.Second),
				},
			}
		}
		a, b := login("a", noon), login("b", noon.Add(time.Minute))
		d.act(t, noon, func(tx *Tx) error {
			for _, p := range []serval.Person{kim, lee} {
				if err := tx.SavePerson(p); err != nil {
					return err
				}
			}
			for _, l := range []Login{a, b} {
				if err := errors.Join(tx.SaveIDToken(l.IDToken), tx.CreateLogin(l)); err != nil {
					return err
				}
			}
			return nil
		})
		is := func(want Login) {
			t.Helper()
			got := look(t, d, func(v *View) (Login, error) { return v.LoginByToken(want.Token) })
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("login (-want +got):\n%s", diff)
			}
		}
		is(a)
		is(b)
		for _, token := range []string{"", "token", "TOKEN A", "token a ", "token a\x00", "token\xff"} {
			err := d.Read(t.Context(), func(v *View) error { _, err := v.LoginByToken(token); return err })
			refused(t, fmt.Sprintf("the token %q", token), err, serval.NotFound)
		}
		ids := func(person string, now time.Time) (ids string) {
			for _, l := range look(t, d, func(v *View) ([]Login, error) { return v.Logins(person, now) }) {
				ids += l.ID
			}
			return ids
		}
		if got := ids(kim.ID, noon.Add(2*time.Minute)); got != "ba" {
			t.Errorf("logins: %s, want ba", got)
		}
		if got := ids(kim.ID, noon.Add(time.Hour)); got != "b" {
			t.Errorf("logins when one has expired: %s, want b", got)
		}
		if got := ids(lee.ID, noon); got != "" {
			t.Errorf("another's logins: %s", got)
		}

		a.SeenAt = noon.Add(5 * time.Minute)
		for _, seen := range []time.Time{a.SeenAt, noon.Add(time.Minute)} { // never backward
			if err := d.TouchLogin(t.Context(), "a", seen); err != nil {
				t.Error(err)
			}
		}
		is(a)

		idle := noon.Add(-time.Hour) // nobody is
		wipe := func(now time.Time) {
			t.Helper()
			if err := d.WipeTokens(t.Context(), now, idle); err != nil {
				t.Error(err)
			}
		}
		wipe(a.IDToken.EndsAt.Add(-time.Microsecond))
		is(a)
		wipe(a.IDToken.EndsAt)
		a.IDToken.Sealed = "" // the refresh token may still get another
		is(a)
		is(b)

		end := func(person, id string, now time.Time) (found bool) {
			t.Helper()
			d.act(t, now, func(tx *Tx) (err error) { found, err = tx.EndLogin(person, id); return err })
			return found
		}
		if end(lee.ID, "b", noon) {
			t.Error("lee ended a login of kim's")
		}
		is(b)
		if !end(kim.ID, "b", noon.Add(3*time.Minute)) {
			t.Error("kim's login was not found")
		}
		b.EndedAt, b.IDToken.Sealed, b.IDToken.Refresh = noon.Add(3*time.Minute), "", "" // S-60
		is(b)
		if end(kim.ID, "b", noon.Add(4*time.Minute)) {
			t.Error("a login was ended twice")
		}
		is(b)
		if got := ids(kim.ID, noon.Add(5*time.Minute)); got != "a" {
			t.Errorf("logins after one was ended: %s, want a", got)
		}

		c := login("c", noon)
		c.IDToken.EndsAt = noon.AddDate(1, 0, 0)
		keep := func(l Login) {
			t.Helper()
			d.act(t, noon.Add(4*time.Minute), func(tx *Tx) error { return errors.Join(tx.SaveIDToken(l.IDToken), tx.CreateLogin(l)) })
		}
		keep(c)
		wipe(c.ExpiresAt.Add(-time.Microsecond))
		is(c)
		wipe(c.ExpiresAt)
		c.IDToken.Sealed, c.IDToken.Refresh = "", ""
		is(c)

		// A client's login stands on the browser's ID token, and holds it up.
		e, f := login("e", noon), login("f", noon)
		f.Kind, f.IDToken = ClientLogin, e.IDToken
		keep(e)
		keep(f)
		if !end(kim.ID, "e", noon.Add(4*time.Minute+time.Second)) {
			t.Error("the browser's login was not found")
		}
		is(f)
		idle = noon.Add(10 * time.Minute) // which a client may be
		wipe(noon.Add(10 * time.Minute))
		is(f)
		if !end(kim.ID, "f", noon.Add(4*time.Minute+2*time.Second)) {
			t.Error("the client's login was not found")
		}
		f.EndedAt, f.IDToken.Sealed, f.IDToken.Refresh = noon.Add(4*time.Minute+2*time.Second), "", ""
		is(f)
		g := login("g", noon)
		keep(g)
		wipe(noon.Add(10 * time.Minute))
		g.IDToken.Sealed, g.IDToken.Refresh = "", ""
		is(g)
		if got := look(t, d, func(v *View) (Login, error) { return v.LoginByID("g") }); got.ID != "g" {
			t.Errorf("the login by its id is %+v", got)
		}

		// A browser may call itself anything.
		for i, agent := range append(hostile, unkept...) {
			l := login(fmt.Sprint("agent ", i), noon)
			l.Agent = agent
			if err := d.Write(t.Context(), noon.Add(4*time.Minute), func(tx *Tx) error { return errors.Join(tx.SaveIDToken(l.IDToken), tx.CreateLogin(l)) }); err != nil {
				t.Errorf("a browser that calls itself %.20q: %v", agent, err)
			}
		}
		same := login("d", noon)
		same.Token = a.Token
		if err := d.Write(t.Context(), noon.Add(4*time.Minute), func(tx *Tx) error { return errors.Join(tx.SaveIDToken(same.IDToken), tx.CreateLogin(same)) }); err == nil {
			t.Error("two logins have one token")
		}
		alone := login("alone", noon)
		if err := d.Write(t.Context(), noon.Add(4*time.Minute), func(tx *Tx) error { return tx.CreateLogin(alone) }); err == nil {
			t.Error("a login stands on no ID token")
		}
	})
}

// S-9, R-44: of all who bring a client's code, on all replicas, one gets it.
func TestClientAttempt(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		stores := d.replicas(t)
		a := ClientAttempt{
			Code: "code", Typed: "typed", Challenge: "challenge", RedirectURI: "http://127.0.0.1:1/", Name: "serval", Host: "laptop", Address: "192.0.2.1",
			StartedFrom: "192.0.2.1", Pause: 5 * time.Second, CreatedAt: noon, ExpiresAt: noon.Add(time.Minute),
		}
		save := func(now time.Time, a ClientAttempt) {
			t.Helper()
			d.act(t, now, func(tx *Tx) error { return tx.SaveClientAttempt(a) })
		}
		save(noon, a)
		a.Outcome, a.LoginID, a.PolledAt, a.Pause = ClientApproved, "login", noon.Add(time.Second), 10*time.Second
		changed := a
		changed.Challenge, changed.Address = "another", "another" // what it began with stays
		save(noon, changed)
		last := a.ExpiresAt.Add(-time.Microsecond)
		for name, find := range map[string]func(*View) (ClientAttempt, error){
			"code":  func(v *View) (ClientAttempt, error) { return v.ClientAttempt("code", last) },
			"typed": func(v *View) (ClientAttempt, error) { return v.TypedAttempt("typed", last) },
		} {
			if diff := cmp.Diff(a, look(t, d, find)); diff != "" {
				t.Errorf("by its %s (-want +got):\n%s", name, diff)
			}
		}
		for name, find := range map[string]func(*View) (ClientAttempt, error){
			"an expired code":  func(v *View) (ClientAttempt, error) { return v.ClientAttempt("code", a.ExpiresAt) },
			"an expired typed": func(v *View) (ClientAttempt, error) { return v.TypedAttempt("typed", a.ExpiresAt) },
			"another code":     func(v *View) (ClientAttempt, error) { return v.ClientAttempt("typed", noon) },
			"nothing typed":    func(v *View) (ClientAttempt, error) { return v.TypedAttempt("", noon) },
		} {
			refused(t, name, d.Read(t.Context(), func(v *View) error { _, err := find(v); return err }), serval.NotFound)
		}
		other := a
		other.Code, other.Typed, other.Address = "code 2", "", "2001:db8::/64"
		save(noon, other)
		other.Code = "code 3"
		save(noon, other) // two that are not typed
		for address, want := range map[string]string{"192.0.2.1": "1 1", "2001:db8::/64": "1 0", "": "1 0"} {
			var all, here int
			if err := d.Read(t.Context(), func(v *View) (err error) { all, here, err = v.CountDevices(address, last); return err }); err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(all, here); got != want {
				t.Errorf("devices, and from %q: %s, want %s", address, got, want)
			}
		}
		twin := a
		twin.Code = "code 4"
		if err := d.Write(t.Context(), noon, func(tx *Tx) error { return tx.SaveClientAttempt(twin) }); err == nil {
			t.Error("two devices show the same")
		}

		var taken atomic.Int32
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				err := stores[i%len(stores)].Write(t.Context(), last, func(tx *Tx) error { _, err := tx.TakeClientAttempt("code"); return err })
				if err == nil {
					taken.Add(1)
				} else if !serval.IsRefusal(err, serval.NotFound) {
					t.Errorf("a taker: %v", err)
				}
			})
		}
		wg.Wait()
		if taken.Load() != 1 {
			t.Errorf("%d of 20 takers got the attempt, want 1", taken.Load())
		}
		err := d.Write(t.Context(), a.ExpiresAt, func(tx *Tx) error { _, err := tx.TakeClientAttempt("code 2"); return err })
		refused(t, "an attempt at its expiry", err, serval.NotFound)
		other.Code, other.ExpiresAt = "later", noon.Add(time.Hour)
		save(a.ExpiresAt, other)
		if n := d.number(t, `select count(*) from client_attempt`); n != 1 {
			t.Errorf("%d attempts are kept after all but one had expired, want 1", n)
		}
	})
}

func TestPerson(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		save := func(p serval.Person) error {
			return d.Write(t.Context(), noon, func(tx *Tx) error { return tx.SavePerson(p) })
		}
		if err := save(kim); err != nil {
			t.Fatal(err)
		}
		p := kim
		p.Email, p.Groups, p.GroupsAt, p.Suspended = "KIM@Example.com", nil, noon.Add(time.Hour), "why"
		p.GroupsNote, p.AuthorizedParty, p.NewEmail, p.CreatedAt = "none came", "serval", "kimberly@example.com", noon
		if err := save(p); err != nil {
			t.Fatal(err)
		}
		moved := p
		moved.Issuer, moved.Subject = "https://other.example.com", "other"
		if err := save(moved); err != nil {
			t.Fatal(err)
		}
		for name, find := range map[string]func(v *View) (serval.Person, error){
			"id":      func(v *View) (serval.Person, error) { return v.Person(kim.ID) },
			"subject": func(v *View) (serval.Person, error) { return v.PersonBySubject(kim.Issuer, kim.Subject) },
		} {
			if diff := cmp.Diff(p, look(t, d, find)); diff != "" {
				t.Errorf("person by %s (-want +got):\n%s", name, diff)
			}
		}
		twin := kim
		twin.ID = "p-twin"
		if err := save(twin); err == nil {
			t.Error("two people have one issuer and subject")
		}
		err := d.Read(t.Context(), func(v *View) error { _, err := v.PersonBySubject(kim.Issuer, "KIM"); return err })
		refused(t, "a subject in another case", err, serval.NotFound)

		// S-55
		second := kim
		second.ID, second.Subject = "p-second", "second"
		if err := save(second); err != nil {
			t.Fatal(err)
		}
		for email, want := range map[string]int{
			"kim@example.com": 2, "KIM@EXAMPLE.COM": 2, "\u212aim@example.com": 0, "k\u0131m@example.com": 0, "\uff4bim@example.com": 0,
			"k\u200bim@example.com": 0, "kim@example.com ": 0, "kim%": 0, "": 0, "kim@example.com\x00": 0,
		} {
			if got := look(t, d, func(v *View) ([]serval.Person, error) { return v.PeopleByEmail(email) }); len(got) != want {
				t.Errorf("%d people with the email %q, want %d", len(got), email, want)
			}
		}
	})
}
