package web_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/idptest"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// follow goes to the identity provider, with its cookies, and back. There the
// person with the email is chosen; nobody, where nothing is to be asked.
func (b *browser) follow(to, email string) (status int, last string) {
	b.w.t.Helper()
	if email != "" {
		to += "&choose=" + url.QueryEscape(email)
	}
	res, text := b.do("GET", to, nil)
	back, err := url.Parse(res.Header.Get("Location"))
	if err != nil || res.StatusCode != 303 {
		b.w.t.Fatalf("the identity provider answered %d: %s", res.StatusCode, text)
	}
	res, _ = b.do("GET", back.RequestURI(), nil)
	return res.StatusCode, strings.TrimPrefix(res.Header.Get("Location"), b.w.url)
}

// signedIn returns a browser that is signed in here and at the provider.
func (w *world) signedIn(email string) *browser {
	w.t.Helper()
	b := w.browser()
	res, _ := b.do("GET", "/oidc/auth/login?return_to=/roles", nil)
	if status, at := b.follow(res.Header.Get("Location"), email); status != 303 || at != "/roles" {
		w.t.Fatalf("signing in answered %d to %q", status, at)
	}
	return b
}

// S-61: where the ID token has ended a browser goes back through the provider
// without being asked anything, and the API says login_required.
func TestSilentSignIn(t *testing.T) {
	w := newWorld(t)
	w.push(w.inventory)
	ana := w.signedIn("ana@example.com")
	client, _ := ana.clientOf()
	var made wire.Request
	ana.json("POST", "/api/v1/requests", wire.NewRequest{RoleARN: w.aws.RoleARN("dev-auto"), Minutes: 120}, 201, &made)
	var me wire.Me
	ana.json("GET", "/api/v1/me", nil, 200, &me)
	page := "/requests/" + made.ID
	session := url.Values{"request_id": {made.ID}}
	until := func(d time.Duration) { // keeping the login in use
		for me.IDTokenEndsAt.Add(d).Sub(w.clock.now()) > 20*time.Minute {
			w.clock.move(20 * time.Minute)
			ana.page("/", 303)
		}
		w.clock.standAt(me.IDTokenEndsAt.Add(d))
	}
	until(-65 * time.Second)
	if res, text := ana.do("POST", "/sessions", session); res.StatusCode != 200 {
		t.Fatalf("65 seconds before the end: %d: %s", res.StatusCode, text)
	}
	for _, d := range []time.Duration{-59 * time.Second, time.Second} {
		until(d)
		for _, b := range []*browser{ana, client} {
			var e wire.Error
			b.json("POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID}, 401, &e)
			if e.Code != "login_required" {
				t.Errorf("%s after the end the API says %+v", d, e)
			}
		}
	}
	silent := ana.post("/sessions", session, `/oidc/auth/login\?prompt=none&return_to=.*`)
	res, _ := ana.do("GET", silent, nil)
	to, err := url.Parse(res.Header.Get("Location"))
	if err != nil || to.Query().Get("prompt") != "none" || to.Query().Get("login_hint") != "ana@example.com" {
		t.Fatalf("the provider is asked by %q", to)
	}
	if ana.whoAmI() != "" { // S-15
		t.Error("the old login is still there")
	}
	_, at := ana.follow(to.String(), "")
	if at != page+"?again=1" {
		t.Fatalf("back at %q, want where the session was begun", at)
	}
	if text := ana.page(at, 200); !strings.Contains(text, "signed in again") {
		t.Error("the page does not say that it is to be done once more")
	}
	if res, text := ana.do("POST", "/sessions", session); res.StatusCode != 200 {
		t.Errorf("afterwards: %d: %s", res.StatusCode, text)
	}
}

// Where the provider has to ask something, the silent sign-in becomes one that
// asks; and nobody becomes somebody else without seeing it.
func TestSilentSignInAsks(t *testing.T) {
	signIn := func(w *world, b *browser, at string) {
		t.Helper()
		res, _ := b.do("GET", at, nil)
		if strings.Contains(res.Header.Get("Location"), "prompt=") {
			t.Fatalf("the sign-in that should ask leads to %q", res.Header.Get("Location"))
		}
		if _, at := b.follow(res.Header.Get("Location"), "ana@example.com"); at != "/requests" || b.whoAmI() != "ana@example.com" {
			t.Errorf("it ends at %q as %q", at, b.whoAmI())
		}
	}
	const asks = "/oidc/auth/login?return_to=%2Frequests"
	for name, wrong := range map[string]func(*idptest.Misbehaviour){
		"login_required":             func(m *idptest.Misbehaviour) { m.Error = "login_required" },
		"interaction_required":       func(m *idptest.Misbehaviour) { m.Error = "interaction_required" },
		"consent_required":           func(m *idptest.Misbehaviour) { m.Error = "consent_required" },
		"account_selection_required": func(m *idptest.Misbehaviour) { m.Error = "account_selection_required" },
		"somebody else": func(m *idptest.Misbehaviour) {
			m.Claims = func(c map[string]any) { c["sub"], c["email"] = "00u2ben", "ben@example.com" }
		},
	} {
		w := newWorld(t)
		ana := w.signedIn("ana@example.com")
		res, _ := ana.do("GET", "/oidc/auth/login?prompt=none&return_to=/requests", nil)
		undo := w.idp.Misbehave(wrong)
		_, at := ana.follow(res.Header.Get("Location"), "")
		undo()
		if at != asks || ana.whoAmI() != "" {
			t.Fatalf("%s leads to %q as %q, want a sign-in that asks", name, at, ana.whoAmI())
		}
		signIn(w, ana, at)
	}
	// Who has no session at the provider any more is asked.
	w := newWorld(t)
	ana := w.as("ana")
	res, _ := ana.do("GET", "/oidc/auth/login?prompt=none&return_to=/requests", nil)
	_, at := ana.follow(res.Header.Get("Location"), "")
	if at != asks {
		t.Fatalf("without a session there: %q", at)
	}
	signIn(w, ana, at)
	// So is who is not signed in here. An error that is not about asking is shown.
	res, _ = w.browser().do("GET", "/oidc/auth/login?prompt=none", nil)
	if strings.Contains(res.Header.Get("Location"), "prompt=") {
		t.Errorf("nobody's silent sign-in leads to %q", res.Header.Get("Location"))
	}
	ana = w.signedIn("ana@example.com")
	res, _ = ana.do("GET", "/oidc/auth/login?prompt=none", nil)
	w.idp.Misbehave(func(m *idptest.Misbehaviour) { m.Error = "access_denied" })
	if status, _ := ana.follow(res.Header.Get("Location"), ""); status != 403 {
		t.Errorf("denied silently: %d, want 403", status)
	}
}

// With SERVAL_OIDC_OFFLINE the provider is asked before each session, the ID
// token never ends, and whoever is deactivated is cut off at once.
func TestOffline(t *testing.T) {
	w := buildWorld(t, true)
	w.push(w.inventory)
	ana := w.as("ana")
	client, _ := ana.clientOf()
	var made wire.Request
	ana.json("POST", "/api/v1/requests", wire.NewRequest{RoleARN: w.aws.RoleARN("dev-auto"), Minutes: 120}, 201, &made)
	for i := range 3 {
		w.clock.move(25 * time.Minute) // the ID token lives for an hour
		before := w.idp.Calls("token")
		for _, b := range []*browser{ana, client} { // one sign-in, one refresh token
			b.json("POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID}, 200, nil)
		}
		if n := w.idp.Calls("token") - before; n != 2 {
			t.Errorf("round %d: %d calls of the token endpoint for two sessions, want 2", i, n)
		}
	}
	w.idp.RemovePerson("00u1ana")
	for _, b := range []*browser{client, ana} {
		var e wire.Error
		b.json("POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID}, 401, &e)
		if e.Code != "login_required" {
			t.Errorf("deactivated: %+v", e)
		}
	}
}
