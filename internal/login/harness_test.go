package login

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/idptest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

const (
	testClient   = "serval-bridge"
	testSecret   = "canary: secret+with/odd=characters%"
	testRedirect = "https://bridge.example.com/oidc/auth/callback"
)

var ana = idptest.Person{
	Subject: "00u1ana5678", Name: "Ana", Email: "ana@example.com", EmailVerified: true,
	Groups: []string{"engineering", "sre"}, Title: "Engineer",
}

// clock is a time that stands still until it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Unix(1_800_000_000, 0)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// world is a provider beyond the wire and our side of it.
type world struct {
	t   *testing.T
	idp *idptest.Provider
	p   *Provider

	clock *clock
}

// newWorld starts a provider and a client of it, after changes to either.
func newWorld(t *testing.T, change func(*idptest.Options, *Config)) *world {
	t.Helper()
	c := newClock()
	options := idptest.Options{
		ClientID: testClient, ClientSecret: testSecret, RedirectURIs: []string{testRedirect},
		People: []idptest.Person{ana}, Now: c.Now,
	}
	config := Config{
		ClientID: testClient, ClientSecret: serval.NewSecret(testSecret), RedirectURL: testRedirect, Now: c.Now,
	}
	if change != nil {
		change(&options, &config)
	}
	idp := idptest.New(options)
	if config.Issuer == "" {
		config.Issuer = idp.Start(t)
	} else {
		idp.Judge(t)
		config.HTTPClient = newTransportClient(idp)
	}
	p, err := New(config)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(p.client.CloseIdleConnections)
	return &world{t: t, idp: idp, p: p, clock: c}
}

// newTransportClient returns a client that reaches the provider in memory.
func newTransportClient(idp *idptest.Provider) *http.Client {
	return &http.Client{Transport: idp.Transport()}
}

// begin begins a sign-in.
func (w *world) begin() (Attempt, string) {
	w.t.Helper()
	a, redirect, err := w.p.Begin(w.t.Context(), Prompt{})
	if err != nil {
		w.t.Fatalf("Begin: %v", err)
	}
	return a, redirect
}

// callback begins and lets Ana sign in.
func (w *world) callback() (Attempt, url.Values) {
	w.t.Helper()
	a, redirect := w.begin()
	back, err := w.idp.SignIn(redirect, ana.Email)
	if err != nil {
		w.t.Fatalf("signing in: %v", err)
	}
	return a, back.Query()
}

// signIn goes the whole way once.
func (w *world) signIn() (Identity, error) {
	w.t.Helper()
	a, query := w.callback()
	return w.p.Finish(context.Background(), a, query)
}

// wantCause fails the test unless err is a refusal with the cause.
func wantCause(t *testing.T, err error, cause string) {
	t.Helper()
	r, ok := errors.AsType[*serval.Refusal](err)
	switch {
	case err == nil:
		t.Errorf("accepted, want a refusal with cause %q", cause)
	case !ok:
		t.Errorf("fault %v, want a refusal with cause %q", err, cause)
	case r.Detail["cause"] != cause:
		t.Errorf("refused with cause %q (%s), want %q", r.Detail["cause"], r.Reason, cause)
	}
}
