package control

import (
	"strings"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/signin"
)

// the older secret still opens; without it people sign in anew, and
// nothing breaks.
func TestSecretRotation(t *testing.T) {
	w := newWorld(t).stock()
	ana := w.engineer("ana@example.com")
	r := w.ask(ana, roleARN(prod, "reader"), 60)
	fresh := serval.NewSecret("another root secret, as long")
	rotated := w.planeUnder(signin.Settings{Secret: fresh, OlderSecrets: []serval.Secret{rootSecret}})
	removed := w.planeUnder(signin.Settings{Secret: fresh})
	open := func(p *Plane, who serval.Principal) error {
		_, err := p.Open(t.Context(), who, Opening{RequestID: r.ID, Kind: serval.ForCredentials})
		return err
	}
	wantKind(t, "the older secret", open(rotated, ana), "")
	wantKind(t, "an unknown secret", open(removed, ana), serval.LoginRequired)
	again, _, err := w.signInAs(rotated, w.identity("ana@example.com", "engineering"))
	if err != nil {
		t.Fatal(err)
	}
	wantKind(t, "sealed under the new", open(removed, again), "")
	wantKind(t, "sealed under the new, on a replica with the old", open(w.plane, again), serval.LoginRequired)
	w.wantNoCanary()
}

// A client's login is its own: it is no browser's, may be idle, lasts eight
// hours, is listed and ended, and stands on the browser's ID token.
func TestClientLogin(t *testing.T) {
	w := newWorld(t).stock()
	verifier := serval.NewSecret(strings.Repeat(canary, 8))
	ask := serval.ClientAsk{
		Name: "serval 1.2", Host: "ana-laptop", Challenge: serval.Challenge(verifier),
		RedirectURI: "http://127.0.0.1:1234/callback", State: strings.Repeat("s", 32),
	}
	id := w.identity("ana@example.com", "engineering")
	id.ExpiresAt = w.clock.now().Add(20 * time.Hour)
	ana, browser, err := w.signInAs(w.plane, id)
	must(t, err)
	code, err := w.logins.ApproveClient(t.Context(), ana, ask)
	must(t, err)
	in, err := w.logins.SignInClient(t.Context(), stranger(), code, verifier, ask.RedirectURI)
	must(t, err)
	recognise := func(token serval.Secret) error {
		_, _, err := w.logins.RecogniseClient(t.Context(), stranger(), token)
		return err
	}
	_, _, err = w.logins.Recognise(t.Context(), stranger(), in.Token)
	wantKind(t, "the client's token in a cookie", err, serval.Unauthenticated)
	wantKind(t, "the browser's token from a client", recognise(browser), serval.Unauthenticated)

	client, login, err := w.logins.RecogniseClient(t.Context(), stranger(), in.Token)
	if err != nil || client.Person.ID != ana.Person.ID || client.LoginID != in.LoginID || login.ID != in.LoginID || !login.IDTokenEndsAt.Equal(id.ExpiresAt) {
		t.Fatalf("the client is %+v %+v, %v", client, login, err)
	}
	logins, err := w.logins.List(t.Context(), client)
	if err != nil || len(logins) != 2 {
		t.Fatalf("logins %+v, %v; want two", logins, err)
	}
	r := w.ask(client, roleARN(prod, "reader"), 400)
	open := func(who serval.Principal) error {
		_, err := w.plane.Open(t.Context(), who, Opening{RequestID: r.ID, Kind: serval.ForCredentials})
		return err
	}
	wantKind(t, "a session for the client", open(client), "")
	must(t, w.logins.End(t.Context(), ana, ana.LoginID))
	wantKind(t, "a session after the browser has signed out", open(ana), serval.LoginRequired)
	wantKind(t, "a session for the client after that", open(client), "")
	w.clock.move(3 * time.Hour)
	must(t, w.plane.Sweep(t.Context()))
	wantKind(t, "idle for three hours", recognise(in.Token), "")
	wantKind(t, "and a session", open(client), "")
	w.clock.move(5*time.Hour - time.Microsecond)
	wantKind(t, "just below eight hours", recognise(in.Token), "")
	w.clock.move(time.Microsecond)
	wantKind(t, "eight hours", recognise(in.Token), serval.Unauthenticated)
	must(t, w.plane.Sweep(t.Context()))
	if k := w.login(client).IDToken; k.Sealed != "" {
		t.Error("the ID token is kept although no login stands on it") // S-60
	}

	again := w.engineer("ana@example.com")
	code, err = w.logins.ApproveClient(t.Context(), again, ask)
	must(t, err)
	in, err = w.logins.SignInClient(t.Context(), stranger(), code, verifier, ask.RedirectURI)
	must(t, err)
	must(t, w.logins.End(t.Context(), again, in.LoginID))
	wantKind(t, "ended", recognise(in.Token), serval.Unauthenticated)
	w.wantNoCanary()
}
