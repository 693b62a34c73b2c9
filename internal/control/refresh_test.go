package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/signin"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// A provider is an identity provider with refresh tokens: each is good for one
// trade, and one that comes twice ends them all.
type provider struct {
	w *world

	mu      sync.Mutex
	n       int
	used    []string
	stolen  bool
	traded  []string                     // what was brought, in order
	instead func(*signin.Identity) error // changes the answer after the trade
	during  func()                       // happens in the middle of it
}

func refreshToken(n int) serval.Secret {
	return serval.NewSecret(fmt.Sprint(canary, "-refresh-token-", n))
}

// refresh is a Refresher.
func (p *provider) refresh(_ context.Context, token serval.Secret, was signin.Identity) (signin.Identity, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.traded = append(p.traded, token.Reveal())
	if was.Issuer != issuer || was.Subject != "00u-ana" || !was.AuthTime.Equal(noon.Truncate(time.Second)) {
		p.w.t.Errorf("refreshed as %+v", was)
	}
	if p.during != nil {
		p.during()
	}
	if p.stolen || slices.Contains(p.used, token.Reveal()) {
		p.stolen = true
		return signin.Identity{}, serval.Refuse(serval.LoginRequired, "The identity provider wants you to sign in again.")
	}
	p.used = append(p.used, token.Reveal())
	p.n++
	id := p.w.identity("ana@example.com", "engineering")
	id.IDToken = serval.NewSecret(fmt.Sprintf("eyJ%s-id-token-%d.00u-ana", canary, p.n))
	id.AuthTime, id.RefreshToken = was.AuthTime, refreshToken(p.n)
	if p.instead != nil {
		if err := p.instead(&id); err != nil {
			return signin.Identity{}, err
		}
	}
	return id, nil
}

// offline returns a world whose provider gives refresh tokens, Ana signed in
// and half an hour old, and a request of hers that is approved.
func offline(t *testing.T, w *world) (idp *provider, ana serval.Principal, open func(p *Plane) error) {
	t.Helper()
	w.stock()
	idp = &provider{w: w}
	w.signin.Refresh = idp.refresh
	w.usePlane(w.newPlane(w.store))
	id := w.identity("ana@example.com", "engineering", "old")
	id.AuthTime, id.RefreshToken = noon.Truncate(time.Second), refreshToken(0)
	ana, _, err := w.signInAs(w.plane, id)
	must(t, err)
	r := w.ask(ana, roleARN(prod, "reader"), 400)
	w.clock.move(20 * time.Minute)
	return idp, ana, func(p *Plane) error {
		_, err := p.Open(t.Context(), ana, Opening{RequestID: r.ID, Kind: serval.ForCredentials})
		return err
	}
}

// Before each session the provider is asked again, with the token that it gave
// last, and the session is opened with the ID token that it gives now.
func TestRefresh(t *testing.T) {
	w := newWorld(t)
	idp, ana, open := offline(t, w)
	before := w.head()
	for range 3 {
		wantKind(t, "opening", open(w.plane), "")
		w.clock.move(55 * time.Minute) // each ID token lives for an hour
	}
	want := []string{refreshToken(0).Reveal(), refreshToken(1).Reveal(), refreshToken(2).Reveal()}
	if d := cmp.Diff(want, idp.traded); d != "" {
		t.Errorf("refresh tokens that were traded (-want +got):\n%s", d)
	}
	for i, m := range w.sts.asked() {
		if want := fmt.Sprintf("-id-token-%d.", i+1); !strings.Contains(m.Token.Reveal(), want) {
			t.Errorf("session %d was opened with %q, want the one with %q", i+1, m.Token.Reveal(), want)
		}
	}
	events := w.events(before)
	if d := cmp.Diff([]string{"ana@example.com login.refresh done", "ana@example.com session.open started", "ana@example.com session.issue done"}, told(events)[:3]); d != "" {
		t.Errorf("events (-want +got):\n%s", d)
	}
	if e := events[0]; e.Target != ana.LoginID || e.Detail["subject"] != "00u-ana" {
		t.Errorf("event %+v", e)
	}
	if known := w.person(ana); !slices.Equal(known.Groups, []string{"engineering"}) || !known.GroupsAt.Equal(w.clock.now().Add(-55*time.Minute)) {
		t.Errorf("groups are %v as of %s, want them anew", known.Groups, known.GroupsAt)
	}

	// A provider that does not rotate answers without one: the old one stays.
	idp.instead = func(id *signin.Identity) error { id.RefreshToken = serval.Secret{}; return nil }
	idp.used = nil
	wantKind(t, "not rotated", open(w.plane), "")
	kept := w.login(ana).IDToken.Refresh
	w.clock.move(time.Minute)
	idp.used = nil
	wantKind(t, "not rotated again", open(w.plane), "")
	if got := w.login(ana).IDToken.Refresh; got != kept || got == "" {
		t.Error("the refresh token that was not rotated is another now")
	}

	// Without a refresh token, or where it is not switched on, nobody is asked.
	asked := len(idp.traded)
	plain := w.signIn("ana@example.com", "engineering")
	r := w.ask(plain, roleARN(dev, "reader"), 60)
	w.clock.move(time.Minute)
	for _, p := range []*Plane{w.plane, w.planeUnder(signin.Settings{Secret: rootSecret})} {
		_, err := p.Open(t.Context(), plain, Opening{RequestID: r.ID, Kind: serval.ForCredentials})
		wantKind(t, "without a refresh token", err, "")
	}
	wantKind(t, "switched off", open(w.planeUnder(signin.Settings{Secret: rootSecret})), "")
	if len(idp.traded) != asked {
		t.Errorf("the provider was asked %d times for nothing", len(idp.traded)-asked)
	}
	w.wantNoCanary()
}

// Whom the provider does not honour any more gets no session, although the ID
// token would still do; whoever it cannot be asked about gets none now.
func TestRefreshRefused(t *testing.T) {
	away := serval.Refuse(serval.Unavailable, "The identity provider does not answer.")
	for name, test := range map[string]struct {
		wrong func(w *world, idp *provider, ana serval.Principal)
		want  serval.Kind
		event string
		kept  bool        // the tokens, and so
		after serval.Kind // what is said once nothing is wrong any more
	}{
		"deactivated": {func(_ *world, idp *provider, _ serval.Principal) { idp.stolen = true },
			serval.LoginRequired, "ana@example.com login.refresh refused", false, serval.LoginRequired},
		"another person": {func(_ *world, idp *provider, _ serval.Principal) {
			idp.instead = func(id *signin.Identity) error { id.Subject = "00u-bob"; return nil }
		}, serval.LoginRequired, "ana@example.com login.refresh refused", false, serval.LoginRequired},
		"another issuer": {func(_ *world, idp *provider, _ serval.Principal) {
			idp.instead = func(id *signin.Identity) error { id.Issuer += "/x"; return nil }
		}, serval.LoginRequired, "ana@example.com login.refresh refused", false, serval.LoginRequired},
		"no longer verified": {func(_ *world, idp *provider, _ serval.Principal) {
			idp.instead = func(*signin.Identity) error { return serval.Refuse(serval.Denied, "Not verified.") }
		}, serval.Denied, "ana@example.com login.refresh refused", false, serval.LoginRequired},
		"away": {func(_ *world, idp *provider, _ serval.Principal) {
			idp.during = func() { idp.used = append(idp.used[:0:0], "") }
			idp.instead = func(*signin.Identity) error { idp.used = nil; return away }
		}, serval.Unavailable, "ana@example.com login.refresh failed", true, ""},
		// The answer was lost after the token had been used: the next try is taken
		// for a theft, and the person signs in again. Nothing else is lost.
		"away, and it had happened": {func(_ *world, idp *provider, _ serval.Principal) {
			idp.instead = func(*signin.Identity) error { return away }
		}, serval.Unavailable, "ana@example.com login.refresh failed", true, serval.LoginRequired},
		"a fault": {func(_ *world, idp *provider, _ serval.Principal) {
			idp.instead = func(*signin.Identity) error { idp.used = nil; return errors.New("code=" + canary) }
		}, "fault: code=" + canary, "ana@example.com login.refresh failed", true, ""},
		"settings that are wrong": {func(_ *world, idp *provider, _ serval.Principal) {
			idp.instead = func(*signin.Identity) error {
				idp.used = nil
				return serval.Refuse(serval.FailedPrecondition, "Client.")
			}
		}, serval.FailedPrecondition, "ana@example.com login.refresh failed", true, ""},
		"signed out meanwhile": {func(w *world, idp *provider, ana serval.Principal) {
			idp.during = func() { must(w.t, w.logins.End(w.t.Context(), ana, ana.LoginID)) }
		}, serval.LoginRequired, "ana@example.com login.refresh refused", false, serval.LoginRequired},
		"claimed by another meanwhile": {func(w *world, idp *provider, ana serval.Principal) {
			idp.during = func() {
				k := w.login(ana).IDToken
				k.ClaimedUntil = k.ClaimedUntil.Add(-time.Hour)
				must(w.t, w.store.Write(w.t.Context(), w.clock.now(), func(tx *store.Tx) error { return tx.SaveIDToken(k) }))
			}
			idp.instead = func(*signin.Identity) error { idp.used = nil; return nil }
		}, serval.Unavailable, "ana@example.com login.refresh refused", true, ""},
		"another email": {func(_ *world, idp *provider, _ serval.Principal) {
			idp.instead = func(id *signin.Identity) error { id.Email = "ana.new@example.com"; return nil }
		}, serval.FailedPrecondition, "ana@example.com login.refresh done", true, serval.FailedPrecondition},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			idp, ana, open := offline(t, w)
			before := w.head()
			test.wrong(w, idp, ana)
			err := open(w.plane)
			wantKind(t, "opening", err, test.want)
			if !slices.Contains(told(w.events(before)), test.event) {
				t.Errorf("events %v, want %q among them", told(w.events(before)), test.event)
			}
			if k := w.login(ana).IDToken; (k.Sealed != "") != test.kept || (k.Refresh != "") != test.kept {
				t.Errorf("the tokens are kept: %t and %t, want %t", k.Sealed != "", k.Refresh != "", test.kept)
			}
			idp.instead, idp.during = nil, nil
			w.clock.move(time.Second)
			wantKind(t, "opening once more", open(w.plane), test.after)
			if n := len(w.sts.asked()); (n > 0) != (test.after == "") {
				t.Errorf("STS was asked %d times", n)
			}
		})
	}
	// Under another root secret the token does not open.
	w := newWorld(t)
	idp, _, open := offline(t, w)
	other := w.planeUnder(signin.Settings{Secret: serval.NewSecret("another root secret, as long"), Refresh: idp.refresh})
	wantKind(t, "under another root secret", open(other), serval.LoginRequired)
	if len(idp.traded) != 0 {
		t.Error("the provider was asked with a token that did not open")
	}
}

// Many sessions at once, on all replicas, are one trade: a token that comes twice
// would be taken for stolen.
func TestRefreshOnceAtATime(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		idp, _, open := offline(t, w)
		planes := w.replicas()
		var wg sync.WaitGroup
		for i := range 12 {
			wg.Go(func() {
				if err := open(planes[i%2]); err != nil {
					t.Errorf("a session: %v", err)
				}
			})
		}
		wg.Wait()
		if len(idp.traded) != 1 || len(w.sts.asked()) != 12 {
			t.Errorf("%d trades for %d sessions, want 1 for 12", len(idp.traded), len(w.sts.asked()))
		}
	})
}

// A claim whose holder died lapses, and the next one trades the token.
func TestRefreshAfterCrash(t *testing.T) {
	w := newWorld(t)
	idp, ana, open := offline(t, w)
	k := w.login(ana).IDToken
	k.ClaimedUntil = w.clock.now().Add(time.Minute)
	must(t, w.store.Write(t.Context(), w.clock.now(), func(tx *store.Tx) error { return tx.SaveIDToken(k) }))
	done := make(chan error, 1)
	go func() { done <- open(w.plane) }()
	w.clock.move(time.Minute)
	if err := <-done; err != nil || len(idp.traded) != 1 {
		t.Errorf("after the claim has lapsed: %v, and %d trades", err, len(idp.traded))
	}
}

// person returns who as the database has them.
func (w *world) person(who serval.Principal) (known serval.Person) {
	w.t.Helper()
	must(w.t, w.store.Read(context.Background(), func(v *store.View) (err error) {
		known, err = v.Person(who.Person.ID)
		return err
	}))
	return known
}

// a clock that is set back while the provider is asked does not make its
// answer an old one, over and over.
func TestRefreshWhileClockIsSetBack(t *testing.T) {
	w := newWorld(t)
	idp, _, open := offline(t, w)
	first := true
	w.plane.door.Now = func() time.Time {
		if first {
			first = false
			return w.clock.now().Add(30 * time.Second)
		}
		return w.clock.now()
	}
	wantKind(t, "opening", open(w.plane), "")
	if n := len(idp.traded); n != 1 {
		t.Errorf("the provider was asked %d times, want once", n)
	}
}

// A browser that signs out while its refresh token is traded leaves the client that
// stands on the same token with the new one: the old one would be taken for stolen.
func TestSignOutDuringRefresh(t *testing.T) {
	w := newWorld(t)
	idp, ana, open := offline(t, w)
	verifier := serval.NewSecret(strings.Repeat(canary, 8))
	ask := serval.ClientAsk{
		Name: "serval 1.2", Host: "ana-laptop", Challenge: serval.Challenge(verifier),
		RedirectURI: "http://127.0.0.1:1234/callback", State: strings.Repeat("s", 32),
	}
	code, err := w.logins.ApproveClient(t.Context(), ana, ask)
	must(t, err)
	in, err := w.logins.SignInClient(t.Context(), stranger(), code, verifier, ask.RedirectURI)
	must(t, err)
	client, _, err := w.logins.RecogniseClient(t.Context(), stranger(), in.Token)
	must(t, err)
	idp.during = func() {
		idp.during = nil
		must(t, w.logins.End(t.Context(), ana, ana.LoginID))
	}
	wantKind(t, "the browser that signs out meanwhile", open(w.plane), serval.LoginRequired)
	r := w.ask(client, roleARN(dev, "reader"), 60)
	for range 2 {
		w.clock.move(time.Minute)
		_, err = w.plane.Open(t.Context(), client, opening(r.ID))
		wantKind(t, "the client", err, "")
	}
	if want := []string{refreshToken(0).Reveal(), refreshToken(1).Reveal(), refreshToken(2).Reveal()}; !slices.Equal(idp.traded, want) {
		t.Errorf("traded %v, want %v", idp.traded, want)
	}
}

// S-84: somebody whose trades fail does not have the provider asked more often
// than they may open sessions.
func TestFailedRefreshesAreBounded(t *testing.T) {
	w := newWorld(t)
	w.signin.MintRate = 3
	idp, _, open := offline(t, w)
	idp.instead = func(*signin.Identity) error { return serval.Refuse(serval.Unavailable, "It does not answer.") }
	w.clock.move(time.Minute - time.Duration(w.clock.now().UnixNano())%time.Minute) // the begin of a minute
	idp.used = []string{""}
	for range 3 {
		idp.used = nil
		wantKind(t, "opening while the provider is away", open(w.plane), serval.Unavailable)
	}
	idp.used = nil
	wantKind(t, "once more", open(w.plane), serval.Exhausted)
	if len(idp.traded) != 3 {
		t.Errorf("the provider was asked %d times, want 3", len(idp.traded))
	}
	w.clock.move(time.Minute)
	idp.instead = nil
	wantKind(t, "a minute later", open(w.plane), "")
}

// A key under which nothing was done, because the provider could not be asked,
// can be used again.
func TestKeyAfterFailedRefresh(t *testing.T) {
	w := newWorld(t)
	idp, ana, _ := offline(t, w)
	idp.instead = func(*signin.Identity) error { return serval.Refuse(serval.Unavailable, "It does not answer.") }
	r := w.ask(ana, roleARN(prod, "reader"), 60)
	w.clock.move(time.Minute)
	who := w.claim(ana, "k")
	_, err := w.plane.Open(t.Context(), who, opening(r.ID))
	wantKind(t, "opening while the provider is away", err, serval.Unavailable)
	w.clock.move(repeatClaim)
	idp.instead, idp.used = nil, nil
	again, err := w.plane.Claim(t.Context(), ana, "k", "d")
	if err != nil || again.Who.Claim == "" {
		t.Fatalf("the key again: %+v, %v; want it to be used", again, err)
	}
	if _, err := w.plane.Open(t.Context(), again.Who, opening(r.ID)); err != nil {
		t.Errorf("opening under it: %v", err)
	}
}
