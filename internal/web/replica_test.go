package web_test

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/idptest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/web"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// serveInTurn has bridges answer one request each, in turn.
func (w *world) serveInTurn(bridges ...http.Handler) {
	var n atomic.Uint64
	var h http.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		bridges[int(n.Add(1))%len(bridges)].ServeHTTP(rw, r)
	})
	w.handler.Store(&h)
}

// a sign-in that is begun at one replica comes back at another, and its
// state is good for one of them.
func TestReplicasInTurn(t *testing.T) {
	w := newWorld(t)
	w.push(w.inventory)
	root := serval.NewSecret(canary + "-root-secret-of-a-test-long-enough")
	w.serveInTurn(w.replica(root), w.replica(root))
	for range 3 { // an odd number of requests each, so that each begins elsewhere
		ana := w.browser()
		back := ana.begin("ana@example.com")
		calls := w.idp.Calls("token")
		if res, _ := ana.do("GET", back.RequestURI(), nil); res.StatusCode != 303 {
			t.Fatalf("the callback at the other replica answered %d", res.StatusCode)
		}
		for range 2 {
			if res, _ := ana.do("GET", back.RequestURI(), nil); res.StatusCode != 400 {
				t.Errorf("the callback was taken twice: %d", res.StatusCode)
			}
		}
		if n := w.idp.Calls("token") - calls; n != 1 {
			t.Errorf("%d calls of the token endpoint, want 1", n)
		}
		for range 3 {
			if got := ana.whoAmI(); got != "ana@example.com" {
				t.Errorf("signed in as %q", got)
			}
		}
		ana.post("/signout", nil, "/")
		for range 2 {
			if got := ana.whoAmI(); got != "" {
				t.Errorf("signed out, and still %q", got)
			}
		}
	}
}

// the secret is changed in three steps, one replica after the other, and
// nobody is signed out or refused a session before the last; then they sign in
// again, and nothing breaks.
func TestSecretRotatesOverReplicas(t *testing.T) {
	w := newWorld(t)
	w.push(w.inventory)
	older := serval.NewSecret(canary + "-root-secret-of-a-test-long-enough")
	newer := serval.NewSecret(canary + "-newer-secret-that-is-long-enough-too")
	first, second, third := w.replica(older, newer), w.replica(newer, older), w.replica(newer)
	before := w.replica(older)
	works := func(b *browser, step int) {
		t.Helper()
		for range 2 { // each replica
			var made wire.Request
			b.json("POST", "/api/v1/requests", wire.NewRequest{RoleARN: w.aws.RoleARN("dev-auto"), Minutes: 60}, 201, &made)
			res, text := b.do("POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID})
			if res.StatusCode != 200 {
				t.Errorf("step %d: a session answered %d: %s", step, res.StatusCode, text)
			}
			b.json("POST", "/api/v1/requests/"+made.ID+"/done", nil, 200, nil)
		}
	}
	var people []*browser
	for step, replicas := range [][]http.Handler{{before, before}, {before, first}, {first, first}, {first, second}, {second, second}} {
		w.serveInTurn(replicas...)
		w.clock.move(time.Minute) // of the bound on sessions
		people = append(people, w.as("ana"))
		for _, b := range people {
			works(b, step)
		}
	}
	w.serveInTurn(second, third)
	works(people[4], 5) // signed in under the newer
	w.serveInTurn(third, third)
	works(people[4], 6)
	for _, b := range people[:3] {
		if res, text := b.do("GET", "/api/v1/me", nil); res.StatusCode != 401 {
			t.Errorf("signed in under a secret that is gone: %d, want 401: %s", res.StatusCode, text)
		}
		if res, _ := b.do("GET", "/oidc/auth/login", nil); res.StatusCode != 303 {
			t.Errorf("and signing in anew answered %d", res.StatusCode)
		}
	}
}

// where hardly any room is left nobody begins to sign in, and whoever is
// signed in notices nothing.
func TestCrowded(t *testing.T) {
	crowded := false
	w := newWorld(t, func(c *web.Config) { c.Crowded = func() bool { return crowded } })
	ana := w.as("ana")
	crowded = true
	res, text := w.browser().do("GET", "/oidc/auth/login", nil)
	if res.StatusCode != 503 || res.Header.Get("Retry-After") != "5" || !strings.Contains(text, "those who are signed in come first") || len(res.Cookies()) != 0 {
		t.Errorf("crowded it answered %d with Retry-After %q, want 503 and a time: %s", res.StatusCode, res.Header.Get("Retry-After"), text)
	}
	ana.page("/roles", 200)
}

// beyond so many at a time nobody begins to sign in, and whoever is signed in
// notices nothing.
func TestTooManyBegin(t *testing.T) {
	w := newWorld(t)
	ana := w.as("ana")
	w.edge.SetMaxGoing(0)
	res, text := w.browser().do("GET", "/oidc/auth/login", nil)
	if res.StatusCode != 503 || res.Header.Get("Retry-After") != "5" || !strings.Contains(text, "Load this page again") || len(res.Cookies()) != 0 {
		t.Errorf("one too many was answered %d with Retry-After %q, want 503 and a time", res.StatusCode, res.Header.Get("Retry-After"))
	}
	ana.page("/roles", 200)
	w.edge.SetMaxGoing(1)
	for range 2 { // a place is given back
		if res, _ := w.browser().do("GET", "/oidc/auth/login", nil); res.StatusCode != 303 {
			t.Errorf("answered %d, want 303", res.StatusCode)
		}
	}
}

// a provider that does not answer keeps those waiting who sign in, in
// bounded number, and nobody else.
func TestSlowProvider(t *testing.T) {
	w := newWorld(t)
	w.push(w.inventory)
	w.edge.SetMaxComing(3)
	ana := w.as("ana")
	var made wire.Request
	ana.json("POST", "/api/v1/requests", wire.NewRequest{RoleARN: w.aws.RoleARN("dev-auto"), Minutes: 60}, 201, &made)

	var waiting []*browser
	var backs []*url.URL
	for range 4 {
		b := w.browser()
		waiting, backs = append(waiting, b), append(backs, b.begin("ben@example.com"))
	}
	before := w.idp.Calls("token")
	undo := w.idp.Misbehave(func(m *idptest.Misbehaviour) { m.AtToken = idptest.Answer{Hang: true} })
	ctx, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			r, err := http.NewRequestWithContext(ctx, "GET", backs[i].String(), nil)
			if err != nil {
				t.Error(err)
				return
			}
			if res, err := waiting[i].client.Do(r); err == nil {
				res.Body.Close()
				t.Errorf("who waited for the provider was answered %d", res.StatusCode)
			}
		})
	}
	for w.idp.Calls("token")-before < 3 { // all three wait
		time.Sleep(time.Millisecond)
	}
	res, text := waiting[3].do("GET", backs[3].RequestURI(), nil)
	if res.StatusCode != 503 || res.Header.Get("Retry-After") != "5" || !strings.Contains(text, "Load this page again") {
		t.Errorf("one more was answered %d with Retry-After %q, want 503 and a time", res.StatusCode, res.Header.Get("Retry-After"))
	}
	ana.json("POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID}, 200, nil)
	ana.page("/roles", 200)
	giveUp()
	wg.Wait()
	undo()
	for status := 0; status != 303; { // once those who gave up are gone
		res, _ := waiting[3].do("GET", backs[3].RequestURI(), nil)
		if status = res.StatusCode; status != 303 && status != 503 {
			t.Fatalf("who was told to load the page again and did was answered %d, want 303", status)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
