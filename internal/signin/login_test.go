package signin

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/lobby"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// begin keeps an attempt under state and browser.
func (w *world) begin(state, browser, current string) {
	w.t.Helper()
	err := w.logins.Begin(w.t.Context(), stranger(), serval.NewSecret(state), serval.NewSecret(browser), serval.NewSecret(current),
		Attempt{Nonce: serval.NewSecret(canary + "-nonce"), Verifier: serval.NewSecret(canary + "-verifier"), ReturnTo: "/roles"})
	if err != nil {
		w.t.Fatal(err)
	}
}

// S-36, S-42: an attempt is taken once, within ten minutes, by the browser that
// made it; and who is refused asks the provider nothing.
func TestAttempts(t *testing.T) { each(t, testAttempts) }

func testAttempts(t *testing.T, w *world) {
	for _, test := range []struct {
		name, state, browser string
		later                time.Duration
		want                 serval.Kind
	}{
		{"right", "s", "b", 0, ""},
		{"at the last moment", "s", "b", 10*time.Minute - time.Microsecond, ""},
		{"expired", "s", "b", 10 * time.Minute, serval.NotFound},
		{"another state", "t", "b", 0, serval.NotFound},
		{"another browser", "s", "c", 0, serval.NotFound}, // S-37
		{"no browser", "s", "", 0, serval.NotFound},
		{"no state", "", "b", 0, serval.NotFound},
		{"swapped", "b", "s", 0, serval.NotFound},
	} {
		t.Run(test.name, func(t *testing.T) {
			w.begin("s"+test.name, "b"+test.name, "")
			w.clock.move(test.later)
			before, asked := w.head(), 0
			in, err := w.logins.SignIn(t.Context(), stranger(), serval.NewSecret(test.state+test.name), serval.NewSecret(test.browser+test.name), "x",
				func(context.Context, Attempt) (Identity, error) {
					asked++
					return w.identity("ana@example.com"), nil
				})
			wantKind(t, "signing in", err, test.want)
			if want := test.want == ""; asked != map[bool]int{true: 1}[want] || in.Token.Empty() == want {
				t.Errorf("the provider was asked %d times, token %v", asked, !in.Token.Empty())
			}
			want := []string{"ana@example.com login.create done"}
			if test.want != "" {
				want = []string{"nobody login.create refused"}
			}
			if d := cmp.Diff(want, told(w.events(before))); d != "" {
				t.Errorf("events (-want +got):\n%s", d)
			}
		})
	}
}

// S-16, S-60: what a sign-in needs is sealed with its state: a row that somebody
// else wrote, or moved, leads nowhere and asks nobody.
func TestAttemptIsSealed(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.begin("s1", "b", "")
		w.begin("s2", "b", "")
		w.wantNoCanary()
		must(t, w.store.Close()) // SQLite has them now too
		driver, source := "pgx", w.url
		if path, sqlite := strings.CutPrefix(w.url, "sqlite://"); sqlite {
			driver, source = "sqlite", path
		}
		db, err := sql.Open(driver, source)
		must(t, err)
		defer db.Close()
		changed, err := db.ExecContext(t.Context(), `update login_attempt set sealed = (select sealed from login_attempt where state = $1)`, serval.NewSecret("s1").Digest())
		must(t, err)
		if n, err := changed.RowsAffected(); err != nil || n != 2 {
			t.Fatalf("%d rows, %v; want two", n, err)
		}
		w.store = w.openStore()
		w.logins = w.loginsOver(w.store, Settings{Secret: rootSecret})
		w.wantNoCanary()
		for state, want := range map[string]serval.Kind{"s2": serval.NotFound, "s1": ""} {
			asked := 0
			_, err := w.logins.SignIn(t.Context(), stranger(), serval.NewSecret(state), serval.NewSecret("b"), "x",
				func(context.Context, Attempt) (Identity, error) {
					asked++
					return w.identity("ana@example.com"), nil
				})
			wantKind(t, "the sign-in "+state, err, want)
			if (asked == 1) != (want == "") {
				t.Errorf("the sign-in %s asked the provider %d times", state, asked)
			}
		}
	})
}

// S-42: twenty at once, on all replicas: one gets it.
func TestAttemptIsSingleUse(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		planes := w.replicas()
		w.begin("s", "b", "")
		var asked, won atomic.Int64
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				_, err := planes[i%2].SignIn(t.Context(), stranger(), serval.NewSecret("s"), serval.NewSecret("b"), "x",
					func(context.Context, Attempt) (Identity, error) {
						asked.Add(1)
						return w.identity("ana@example.com"), nil
					})
				if err == nil {
					won.Add(1)
				} else if !serval.IsRefusal(err, serval.NotFound) {
					t.Errorf("a loser got %v", err)
				}
			})
		}
		wg.Wait()
		if asked.Load() != 1 || won.Load() != 1 {
			t.Errorf("%d asked the provider and %d got in, want 1 and 1", asked.Load(), won.Load())
		}
	})
}

// What the provider refuses is recorded; a fault of it tells nothing.
func TestIdentifyFails(t *testing.T) {
	w := newWorld(t)
	for _, test := range []struct {
		cause error
		want  string
	}{
		{serval.Refuse(serval.Unauthenticated, "The token's nonce is another."), "refused The token's nonce is another."},
		{errors.New("code=" + canary), "failed something went wrong on our side"},
	} {
		w.begin("s", "b", "")
		before := w.head()
		in, err := w.logins.SignIn(t.Context(), stranger(), serval.NewSecret("s"), serval.NewSecret("b"), "x",
			func(context.Context, Attempt) (Identity, error) { return Identity{}, test.cause })
		if !errors.Is(err, test.cause) || !in.Token.Empty() {
			t.Errorf("err %v and a token %v, want %v and none", err, !in.Token.Empty(), test.cause)
		}
		got := w.events(before)
		if len(got) != 1 || got[0].Action != serval.LoginCreate || string(got[0].Outcome)+" "+got[0].Reason != test.want || got[0].Address != "198.51.100.7" {
			t.Errorf("events %+v, want one: %s", got, test.want)
		}
	}
	// An attempt that holds something else is a fault, and asks nobody.
	row := serval.NewSecret("odd").Digest()
	must(t, w.store.KeepAttempt(t.Context(), lobby.Attempt{State: row, Browser: serval.NewSecret("b").Digest(), CreatedAt: w.clock.now(), ExpiresAt: w.clock.now().Add(time.Minute),
		Sealed: w.logins.sealer.Load().seal(serval.NewSecret(canary), row)}, lobby.Bound{Here: 10, All: 10}))
	_, err := w.logins.SignIn(t.Context(), stranger(), serval.NewSecret("odd"), serval.NewSecret("b"), "x",
		func(context.Context, Attempt) (Identity, error) { panic("the provider was asked") })
	if err == nil || serval.IsRefusal(err) {
		t.Errorf("an attempt that holds one secret: %v, want a fault", err)
	}
	// A person that cannot be kept gets no token.
	id := w.identity("ana@example.com")
	id.Subject = "00u\x00"
	if who, _, err := w.signInAs(id); !serval.IsRefusal(err, serval.Invalid) || who.Kind != "" {
		t.Errorf("signed in as %+v: %v", who, err)
	}
	w.wantNoCanary()
}

// S-15: the way to the sign-in page is also the way out.
func TestBeginLoginEndsTheCurrentOne(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ana, token, err := w.signInAs(w.identity("ana@example.com"))
		if err != nil {
			t.Fatal(err)
		}
		before := w.head()
		w.begin("s2", "b2", "not a token")
		if _, _, err := w.logins.Recognise(t.Context(), stranger(), token); err != nil {
			t.Errorf("another's token ended the login: %v", err)
		}
		w.begin("s3", "b3", token.Reveal())
		_, _, err = w.logins.Recognise(t.Context(), stranger(), token)
		wantKind(t, "the old login", err, serval.Unauthenticated)
		w.begin("s4", "b4", token.Reveal())
		if d := cmp.Diff([]string{"ana@example.com login.end done"}, told(w.events(before))); d != "" {
			t.Errorf("events (-want +got):\n%s", d)
		}
		if l := w.login(ana); l.IDToken.Sealed != "" || l.EndedAt.IsZero() {
			t.Errorf("the login is still there: %+v", l)
		}
	})
}

// sign-ins under way are bounded, in all and for each network, and whoever
// begins without end pushes out nobody but themselves.
func TestTooManyAttempts(t *testing.T) {
	w := newWorld(t)
	begin := func(state string) {
		t.Helper()
		must(t, w.logins.Begin(t.Context(), stranger(), serval.NewSecret(state), serval.NewSecret("b"), serval.Secret{}, Attempt{}))
	}
	begin("first")
	for i := range maxHere {
		w.clock.move(time.Millisecond)
		begin(fmt.Sprint("s", i))
	}
	for state, want := range map[string]serval.Kind{"first": serval.NotFound, "s0": "", fmt.Sprint("s", maxHere-1): ""} {
		_, err := w.logins.SignIn(t.Context(), stranger(), serval.NewSecret(state), serval.NewSecret("b"), "x",
			func(context.Context, Attempt) (Identity, error) { return w.identity("ana@example.com"), nil })
		wantKind(t, "the sign-in "+state, err, want)
	}
}

// S-54: a person is issuer and subject. An email that changed, or that another
// subject has, suspends; and only the person who is in doubt.
func TestRecogniseIdentity(t *testing.T) { each(t, testRecogniseIdentity) }

func testRecogniseIdentity(t *testing.T, w *world) {
	first := w.signIn("ana@example.com", "engineering")
	second := w.signIn("ana@example.com", "leads")
	if first.Person.ID != second.Person.ID || first.LoginID == second.LoginID {
		t.Errorf("the same subject is %s and then %s", first.Person.ID, second.Person.ID)
	}
	if d := cmp.Diff([]string{"leads"}, second.Person.Groups); d != "" {
		t.Errorf("groups of the second login (-want +got):\n%s", d)
	}
	for _, test := range []struct {
		name      string
		change    func(*Identity)
		same      bool // the same person as before
		email     string
		suspended bool
	}{
		{"another case", func(i *Identity) { i.Email = "ANA@Example.com" }, true, "ana@example.com", false},
		{"another issuer", func(i *Identity) { i.Issuer += "/oauth2/default" }, false, "ana@example.com", true},
		{"another subject, same email", func(i *Identity) { i.Subject = "00u-new"; i.Email = "Ana@example.com" }, false, "Ana@example.com", true},
		{"another subject, another email", func(i *Identity) { i.Subject = "00u-other"; i.Email = "eve@example.com" }, false, "eve@example.com", false},
		{"kelvin sign", func(i *Identity) { i.Subject = "00u-kelvin"; i.Email = "\u212Aate@example.com" }, false, "\u212Aate@example.com", false},
		{"changed email", func(i *Identity) { i.Email = "ana.new@example.com" }, true, "ana@example.com", true},
		{"the old email again", func(*Identity) {}, true, "ana@example.com", true}, // until an admin says so
	} {
		t.Run(test.name, func(t *testing.T) {
			id := w.identity("ana@example.com", "engineering")
			id.GroupsNote = "too many"
			test.change(&id)
			who, _, err := w.signInAs(id)
			if err != nil {
				t.Fatal(err)
			}
			if got := who.Person; (got.ID == first.Person.ID) != test.same || got.Email != test.email || (got.Suspended != "") != test.suspended {
				t.Errorf("recognised as %+v, want the same person %v, email %s, suspended %v", got, test.same, test.email, test.suspended)
			}
			e := w.events(w.head() - 1)[0]
			if e.Target != who.LoginID || e.Detail["issuer"] != id.Issuer || e.Detail["subject"] != id.Subject ||
				e.Detail["suspended"] != who.Person.Suspended || e.Detail["groups"] != "too many" {
				t.Errorf("event %+v", e)
			}
			if !who.Person.GroupsAt.Equal(w.clock.now()) {
				t.Errorf("groups as of %s, want now", who.Person.GroupsAt)
			}
		})
	}
}

// Claims that AWS makes session tags of are recorded with each sign-in, and warned
// of when they are others than before.
func TestAWSClaimsAreNoticed(t *testing.T) {
	w := newWorld(t)
	const tags, source = "https://aws.amazon.com/tags", "https://aws.amazon.com/source_identity"
	for i, test := range []struct {
		claims []string
		warned int // so far
	}{{nil, 0}, {[]string{source, tags}, 1}, {[]string{source, tags}, 1}, {[]string{tags}, 2}, {nil, 2}, {[]string{tags}, 3}} {
		id := w.identity("ana@example.com")
		id.AWSClaims = test.claims
		if _, _, err := w.signInAs(id); err != nil {
			t.Fatal(err)
		}
		warnings := w.logs.FilterMessageSnippet("session tags").All()
		if len(warnings) != test.warned {
			t.Errorf("%d: %d warnings, want %d", i, len(warnings), test.warned)
		}
		if e := w.events(w.head() - 1)[0]; e.Detail["aws_claims"] != strings.Join(test.claims, " ") {
			t.Errorf("%d: recorded %q, want %q", i, e.Detail["aws_claims"], test.claims)
		}
	}
}

// A mailbox that was given to somebody else makes nobody an admin or auditor.
func TestStandingByConfiguration(t *testing.T) {
	w := newWorld(t)
	for _, test := range []struct {
		email          string
		groups         []string
		admin, auditor bool
	}{
		{"adm@example.com", nil, true, false},
		{"ADM@example.com", []string{"security"}, true, true},
		{"sec@example.com", []string{"security"}, false, true},
		{"ana@example.com", []string{"Security", "engineering"}, false, false},
	} {
		id := w.identity(test.email, test.groups...)
		id.Subject = "00u-" + strings.ToLower(test.email)
		who, _, err := w.signInAs(id)
		if err != nil || who.Admin != test.admin || who.Auditor != test.auditor {
			t.Errorf("%s of %q: admin %v, auditor %v, %v; want %v, %v", test.email, test.groups, who.Admin, who.Auditor, err, test.admin, test.auditor)
		}
	}
	id := w.identity("adm@example.com", "security")
	id.Subject = "00u-recycled"
	who, _, err := w.signInAs(id)
	if err != nil || who.Person.Suspended == "" || who.Admin || who.Auditor {
		t.Errorf("another subject with an admin's email: %+v, %v; want suspended, neither admin nor auditor", who, err)
	}
}

// S-47: idle after half an hour, over after eight, ended at once.
func TestRecognise(t *testing.T) { each(t, testRecognise) }

func testRecognise(t *testing.T, w *world) {
	sign := func() (serval.Principal, serval.Secret) {
		who, token, err := w.signInAs(w.identity("ana@example.com"))
		if err != nil {
			t.Fatal(err)
		}
		return who, token
	}
	recognise := func(token serval.Secret) error {
		// Whatever the caller says of who asks, the token decides.
		asks := serval.Principal{Kind: serval.KindSystem, Admin: true, Person: serval.Person{ID: "person_0"}, RequestID: "http-2", Address: "192.0.2.9"}
		who, l, err := w.logins.Recognise(t.Context(), asks, token)
		if who.RequestID != "http-2" || who.Address != "192.0.2.9" {
			t.Errorf("who lost the request: %+v", who)
		}
		if err != nil && (who.Kind != "" || who.Person.ID != "" || who.Admin || l.ID != "") {
			t.Errorf("refused, and still somebody: %+v %+v", who, l)
		}
		if err == nil && (who.Kind != serval.KindPerson || who.Person.Email != "ana@example.com" || who.Admin || l.ID != who.LoginID || l.ID == "" || l.IDTokenEndsAt.IsZero()) {
			t.Errorf("recognised as %+v %+v", who, l)
		}
		return err
	}
	_, token := sign()
	wantKind(t, "at once", recognise(token), "")
	wantKind(t, "no token", recognise(serval.Secret{}), serval.Unauthenticated)
	wantKind(t, "a token of nobody", recognise(serval.NewSecret("x")), serval.Unauthenticated)
	wantKind(t, "the digest of a token", recognise(serval.NewSecret(token.Digest())), serval.Unauthenticated)

	// Within the same minute a use is not noted, later it is.
	w.clock.move(touchEvery - time.Microsecond)
	wantKind(t, "in use", recognise(token), "")
	w.clock.move(loginIdle - touchEvery)
	wantKind(t, "just not idle", recognise(token), "")
	w.clock.move(loginIdle - time.Microsecond)
	wantKind(t, "used meanwhile", recognise(token), "")
	w.clock.move(loginIdle)
	wantKind(t, "idle", recognise(token), serval.Unauthenticated)

	_, token = sign()
	for range 19 {
		w.clock.move(25 * time.Minute)
		wantKind(t, "in use", recognise(token), "")
	}
	w.clock.move(5*time.Minute - time.Microsecond)
	wantKind(t, "just below eight hours", recognise(token), "")
	w.clock.move(time.Microsecond)
	wantKind(t, "eight hours", recognise(token), serval.Unauthenticated)

	ana, token := sign()
	other, otherToken := sign()
	logins, err := w.logins.List(t.Context(), ana)
	if err != nil || len(logins) != 2 {
		t.Fatalf("logins %+v, %v; want two", logins, err)
	}
	for _, l := range logins {
		if l.Token != "" || l.IDToken.Sealed != "" || l.Agent != "Mozilla/5.0" || l.Address != "198.51.100.7" {
			t.Errorf("login %+v, want agent and address, and nothing it holds", l)
		}
	}
	eve := w.signIn("eve@example.com")
	before := w.head()
	wantKind(t, "another's login", w.logins.End(t.Context(), eve, other.LoginID), serval.NotFound)
	wantKind(t, "no login", w.logins.End(t.Context(), eve, "login_none"), serval.NotFound)
	wantKind(t, "it stays", recognise(otherToken), "")
	wantKind(t, "one's other login", w.logins.End(t.Context(), ana, other.LoginID), "")
	wantKind(t, "it is ended", recognise(otherToken), serval.Unauthenticated)
	wantKind(t, "twice", w.logins.End(t.Context(), ana, other.LoginID), serval.NotFound)
	wantKind(t, "the present one stays", recognise(token), "")
	if l := w.login(other); l.IDToken.Sealed != "" {
		t.Error("the ID token of an ended login is kept") // S-60
	}
	want := []string{"eve@example.com login.end refused", "eve@example.com login.end refused", "ana@example.com login.end done", "ana@example.com login.end refused"}
	if d := cmp.Diff(want, told(w.events(before))); d != "" {
		t.Errorf("events (-want +got):\n%s", d)
	}
}

// S-36, S-60: nonce, verifier, ID token and login token are in the database
// sealed or digested, never as they are; and go with their time.
func TestSealed(t *testing.T) {
	w := newWorld(t)
	for _, test := range []struct {
		name       string
		life, wait time.Duration
	}{{"its end", 10 * time.Minute, 10 * time.Minute}, {"its browser was idle", time.Hour, loginIdle}} {
		id := w.identity("ana@example.com")
		id.ExpiresAt, id.RefreshToken = w.clock.now().Add(test.life), serval.NewSecret(canary+"-refresh-token")
		who, token, err := w.signInAs(id)
		if err != nil {
			t.Fatal(err)
		}
		w.begin(canary+"-state"+test.name, canary+"-browser", "")
		if l := w.login(who); l.IDToken.Sealed == "" || l.IDToken.Refresh == "" || l.Token != token.Digest() {
			t.Fatalf("login %+v, want sealed tokens and the digest", l)
		}
		w.wantNoCanary()

		w.clock.move(test.wait - time.Microsecond)
		if err := w.logins.Wipe(t.Context()); err != nil || w.login(who).IDToken.Sealed == "" {
			t.Errorf("%v, and the ID token is gone before %s", err, test.name)
		}
		w.clock.move(time.Microsecond)
		if err := w.logins.Wipe(t.Context()); err != nil || w.login(who).IDToken.Sealed != "" {
			t.Errorf("%v, and the ID token is there after %s", err, test.name)
		}
	}
}

// an attempt under the older secret still comes back; without it people
// begin anew, and nothing breaks.
func TestSecretRotation(t *testing.T) {
	w := newWorld(t)
	fresh := serval.NewSecret("another root secret, as long")
	for name, test := range map[string]struct {
		now  Settings
		want serval.Kind
	}{
		"older":   {Settings{Secret: fresh, OlderSecrets: []serval.Secret{rootSecret}}, ""},
		"unknown": {Settings{Secret: fresh}, serval.NotFound},
	} {
		w.begin("s"+name, "b"+name, "")
		_, err := w.loginsOver(w.store, test.now).SignIn(t.Context(), stranger(), serval.NewSecret("s"+name), serval.NewSecret("b"+name), "x",
			func(context.Context, Attempt) (Identity, error) { return w.identity("ana@example.com"), nil })
		wantKind(t, "an attempt under a secret that is "+name, err, test.want)
	}
	w.wantNoCanary()
}

// A sealed text opens only in the row it was sealed for.
func TestSealer(t *testing.T) {
	s := newSealer(rootSecret, nil)
	sealed := s.seal(serval.NewSecret("x"), "row 1")
	if again := s.seal(serval.NewSecret("x"), "row 1"); again == sealed {
		t.Error("the same text is sealed the same twice: a nonce was used again")
	}
	changed := "A" + sealed[1:]
	if changed == sealed {
		changed = "B" + sealed[1:]
	}
	for _, test := range []struct{ name, sealed, row, want string }{
		{"right", sealed, "row 1", "x"},
		{"another row", sealed, "row 2", ""},
		{"changed", changed, "row 1", ""},
		{"cut", sealed[:10], "row 1", ""},
		{"empty", "", "row 1", ""},
		{"no base64", "!", "row 1", ""},
	} {
		got, err := s.open(test.sealed, test.row)
		if (err == nil) != (test.want != "") || got.Reveal() != test.want {
			t.Errorf("%s: opened %q, %v; want %q", test.name, got.Reveal(), err, test.want)
		}
	}
	if a, b := door.NewToken(), door.NewToken(); a.Equal(b) || len(a.Reveal()) != 43 {
		t.Error("tokens are 256 bits, each another")
	}
}
