package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// S-9, S-63: the browser comes back once, to who began, with what only they have
// the other half of.
func TestArrival(t *testing.T) {
	var mu sync.Mutex
	var redeemed []wire.NewClientToken
	c := at(t, func(w http.ResponseWriter, r *http.Request) {
		var n wire.NewClientToken
		if err := json.NewDecoder(r.Body).Decode(&n); err != nil || r.Header.Get("Authorization") != "" {
			t.Errorf("%v, authorized by %q", err, r.Header.Get("Authorization"))
		}
		mu.Lock()
		redeemed = append(redeemed, n)
		mu.Unlock()
		io.WriteString(w, `{"access_token":"the-token","ends_at":"2026-01-05T17:00:00Z","login_id":"l","email":"ana@example.com"}`)
	})
	begin := func() (*Arrival, url.Values) {
		t.Helper()
		a, err := c.Begin(t.Context(), 0, "ana’s laptop")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(a.Close)
		u, err := url.Parse(a.Address())
		if err != nil || !strings.HasPrefix(a.Address(), c.Origin()+"/client/authorize?") || strings.Contains(a.Address(), a.verifier.Reveal()) {
			t.Fatalf("the address is %s, %v", a.Address(), err)
		}
		ask := serval.ClientAsk{Name: u.Query().Get("client_name"), Host: u.Query().Get("client_host"), Challenge: u.Query().Get("code_challenge"),
			RedirectURI: u.Query().Get("redirect_uri"), State: u.Query().Get("state")}
		if err := ask.Check(); err != nil {
			t.Errorf("the bridge refuses the address: %v", err)
		}
		return a, u.Query()
	}
	back := func(q url.Values, answer url.Values) int {
		t.Helper()
		res, err := http.Get(q.Get("redirect_uri") + "?" + answer.Encode())
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.Header.Get("Cache-Control") != "no-store" || res.Header.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("the page may be kept, or tell where it was: %v", res.Header)
		}
		return res.StatusCode
	}
	a, q := begin()
	good := url.Values{"code": {"the-code"}, "iss": {c.Origin()}, "state": {q.Get("state")}}
	for name, change := range map[string]func(url.Values){
		"another state":  func(v url.Values) { v.Set("state", strings.Repeat("A", 26)) },
		"another bridge": func(v url.Values) { v.Set("iss", "https://evil.example") },
		"no bridge":      func(v url.Values) { v.Del("iss") },
		"both answers":   func(v url.Values) { v.Set("error", "access_denied") },
		"no answer":      func(v url.Values) { v.Del("code") },
	} {
		bad := maps.Clone(good)
		change(bad)
		if got := back(q, bad); got != 400 || len(redeemed) > 0 {
			t.Errorf("%s: %d, redeemed %v", name, got, redeemed)
		}
	}
	if got := back(q, good); got != 200 {
		t.Errorf("the browser came back to %d", got)
	}
	token, err := a.Wait(t.Context())
	if err != nil || token.AccessToken != "the-token" {
		t.Errorf("%v, %v", token, err)
	}
	if len(redeemed) != 1 || redeemed[0].Code != "the-code" || redeemed[0].RedirectURI != q.Get("redirect_uri") ||
		serval.Challenge(serval.NewSecret(redeemed[0].CodeVerifier)) != q.Get("code_challenge") {
		t.Errorf("redeemed %+v", redeemed)
	}
	if got := back(q, good); got != 409 || len(redeemed) != 1 {
		t.Errorf("a second time it is %d, and was redeemed %d times", got, len(redeemed))
	}
	_, q2 := begin()
	if q2.Get("state") == q.Get("state") || q2.Get("code_challenge") == q.Get("code_challenge") {
		t.Error("two sign-ins have one state or one challenge")
	}

	a, q = begin()
	if got := back(q, url.Values{"error": {"access_denied"}, "iss": {c.Origin()}, "state": {q.Get("state")}}); got != 200 {
		t.Errorf("a no came back to %d", got)
	}
	if _, err := a.Wait(t.Context()); !serval.IsRefusal(err, serval.Denied) {
		t.Errorf("a no is %v", err)
	}
	a, _ = begin()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := a.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody came: %v", err)
	}
	if _, err := c.Begin(t.Context(), a.Port(), "x"); !serval.IsRefusal(err, serval.FailedPrecondition) {
		t.Errorf("a port that is taken: %v", err)
	}
}

// What is redeemed and is no login is not taken for one.
func TestRedeem(t *testing.T) {
	text := ""
	c := at(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) })
	for _, text = range []string{`{}`, `{"access_token":"x"}`, `{"ends_at":"2026-01-05T17:00:00Z"}`} {
		if _, err := c.redeem(t.Context(), wire.NewClientToken{}); err == nil {
			t.Errorf("%s was taken for a login", text)
		}
	}
}

// A device asks as often as it is told to, until it is let in or the code ends.
func TestDevice(t *testing.T) {
	answers := []string{
		`422 {"code":"failed_precondition","message":"Not yet.","detail":{"error":"authorization_pending","interval":"1"}}`,
		`429 {"code":"resource_exhausted","message":"Too soon.","detail":{"error":"slow_down","interval":"1"}}`,
		`200 {"access_token":"the-token","ends_at":"2026-01-05T17:00:00Z"}`,
	}
	asked := 0
	start := `{"device_code":"d","user_code":"BCDF-\u001bGHJK","verification_uri":"https://serval.example.com/device","expires_in":300,"interval":1}`
	c := at(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/device") {
			io.WriteString(w, start)
			return
		}
		var status int
		var body string
		fmt.Sscan(answers[asked], &status)
		_, body, _ = strings.Cut(answers[asked], " ")
		asked = min(asked+1, len(answers)-1)
		w.WriteHeader(status)
		io.WriteString(w, body)
	})
	d, err := c.StartDevice(t.Context(), "build-7")
	if err != nil || d.UserCode != "BCDF- GHJK" {
		t.Fatalf("%+v, %v", d, err)
	}
	d.interval = time.Millisecond
	if token, err := d.Wait(t.Context()); err != nil || token.AccessToken != "the-token" || d.interval != time.Second {
		t.Errorf("%v, %v, every %s", token, err, d.interval)
	}
	answers, asked = []string{`403 {"code":"permission_denied","message":"No.","detail":{"error":"access_denied"}}`}, 0
	d.interval = time.Millisecond
	if _, err := d.Wait(t.Context()); !serval.IsRefusal(err, serval.Denied) {
		t.Errorf("a no is %v", err)
	}
	d.endsAt = time.Now()
	if _, err := d.Wait(t.Context()); !serval.IsRefusal(err, serval.Unauthenticated) {
		t.Errorf("a code that has ended: %v", err)
	}
	off := at(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(404)
		io.WriteString(w, `{"code":"not_found","message":"There is nothing here.","detail":{}}`)
	})
	if _, err := off.StartDevice(t.Context(), "build-7"); !serval.IsRefusal(err, serval.FailedPrecondition) || !strings.Contains(err.Error(), "SERVAL_DEVICE_LOGIN") {
		t.Errorf("where it is off: %v", err)
	}
}
