package login

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/serval-bridge/serval-bridge/internal/idptest"
)

func unknownKid(m *idptest.Misbehaviour) {
	m.Header = func(h map[string]any) { h["kid"] = fmt.Sprintf("junk-%p", h) }
}

// S-50: a key that is no longer published stops working within an hour, or
// within what Cache-Control says; go-oidc alone would trust it on.
func TestS50_RemovedKey(t *testing.T) {
	for cacheControl, life := range map[string]time.Duration{
		"public, max-age=3600": time.Hour,
		"":                     time.Hour,
		"max-age=86400":        time.Hour,
		"max-age=600":          10 * time.Minute,
		"Max-Age=0":            keysMinLife,
		"no-store":             keysMinLife,
		"max-age=nonsense":     time.Hour,
	} {
		t.Run(cacheControl, func(t *testing.T) {
			w := newWorld(t, nil)
			w.idp.Misbehave(func(m *idptest.Misbehaviour) {
				m.AtJWKS.Header = http.Header{"Cache-Control": {cacheControl}, "Expires": {"0"}}
				if cacheControl == "" {
					m.AtJWKS.Header = http.Header{"Cache-Control": {" "}}
				}
			})
			if _, err := w.signIn(); err != nil {
				t.Fatalf("signing in: %v", err)
			}
			// The provider withdraws the key, and a thief goes on signing with it.
			w.idp.Misbehave(func(m *idptest.Misbehaviour) {
				m.Keys = func([]jose.JSONWebKey) []jose.JSONWebKey {
					return otherKeys(t)
				}
			})
			w.clock.Advance(life - time.Second)
			if _, err := w.signIn(); err != nil {
				t.Fatalf("a second before %s: %v", life, err)
			}
			w.clock.Advance(time.Second)
			_, err := w.signIn()
			wantCause(t, err, CauseKid)
		})
	}
}

// otherKeys returns the keys of some other provider, under other ids.
func otherKeys(t *testing.T) []jose.JSONWebKey {
	other := idptest.New(idptest.Options{ClientID: "other"})
	other.Rotate()
	other.Retire()
	r := httptest.NewRecorder()
	other.ServeHTTP(r, httptest.NewRequest("GET", "/jwks", nil))
	keys, err := parseKeys(r.Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// S-50: ten thousand tokens with keys nobody knows cost two fetches, in a row
// and at once; half a minute later one more.
func TestS50_JunkKids(t *testing.T) {
	w := newWorld(t, nil)
	w.idp.Misbehave(unknownKid)
	token := w.idp.IDToken(ana.Email, nil)
	m, err := w.p.metadata(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	try := func(n int) {
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				for range n / 20 {
					_, _, err := w.p.verifyIDToken(context.Background(), m, token, expected{})
					wantCause(t, err, CauseKid)
				}
			})
		}
		wg.Wait()
	}
	try(10_000)
	if calls := w.idp.Calls("jwks"); calls > 2 {
		t.Errorf("%d fetches for ten thousand unknown keys, want two at most", calls)
	}
	before := w.idp.Calls("jwks")
	w.clock.Advance(missPause - time.Second)
	try(20)
	if calls := w.idp.Calls("jwks"); calls != before {
		t.Errorf("%d more fetches before the pause was over, want none", calls-before)
	}
	w.clock.Advance(time.Second)
	try(20)
	if calls := w.idp.Calls("jwks"); calls != before+1 {
		t.Errorf("%d more fetches after the pause, want one", calls-before)
	}
}

// S-50, R-33: what is no key set never replaces a good one, which serves for a day
// while the provider is in trouble, and not a second longer.
func TestR33_LastGoodKeys(t *testing.T) {
	for name, answer := range map[string]idptest.Answer{
		"down":          {Status: 500, Body: "oops"},
		"HTML":          {Body: "<html>sign in to the network</html>"},
		"empty set":     {Body: `{"keys":[]}`},
		"empty object":  {Body: `{}`},
		"empty body":    {Status: 200, Body: " "},
		"null":          {Body: `null`},
		"duplicates":    {Body: `{"keys":[],"keys":[]}`},
		"cut":           {Cut: true, Body: strings.Repeat(`{"keys":[]}      `, 100)},
		"over a MB":     {Body: `{"keys":[` + strings.Repeat(" ", maxDocument) + `]}`},
		"another host":  {Status: 302, Body: " ", Header: http.Header{"Location": {"https://evil.example.com/jwks"}}},
		"weak RSA":      {Body: `{"keys":[{"kty":"RSA","kid":"key-1","n":"` + strings.Repeat("q", 170) + `","e":"AQAB"}]}`},
		"unknown types": {Body: `{"keys":[{"kty":"OKP","crv":"Ed448","kid":"key-1","x":"AA"},{"kty":"new"},5,null,"x"]}`},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			if _, err := w.signIn(); err != nil {
				t.Fatalf("signing in: %v", err)
			}
			undo := w.idp.Misbehave(func(m *idptest.Misbehaviour) { m.AtJWKS = answer })
			w.clock.Advance(keysLife)
			for range 3 {
				if _, err := w.signIn(); err != nil {
					t.Fatalf("with keys an hour old: %v", err)
				}
			}
			w.clock.Advance(missPause - time.Second)
			if _, err := w.signIn(); err != nil {
				t.Fatalf("with keys that are older: %v", err)
			}
			if calls := w.idp.Calls("jwks"); calls != 2 {
				t.Errorf("%d fetches, want two: the first, and one that failed", calls)
			}
			w.clock.Advance(24*time.Hour - keysLife - missPause)
			if _, err := w.signIn(); err != nil {
				t.Errorf("with keys a second less than a day old: %v", err)
			}
			w.clock.Advance(time.Second)
			_, err := w.signIn()
			wantCause(t, err, CauseKeys)
			undo()
			w.clock.Advance(missPause)
			if _, err := w.signIn(); err != nil {
				t.Errorf("after the provider came back: %v", err)
			}
		})
	}
}

// A sign-in that is given up does not spoil the metadata and keys for others.
func TestGivenUpSignInSpoilsNothing(t *testing.T) {
	w := newWorld(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for range 100 {
		w.p.metadata(ctx) // may give up waiting for its turn, half of the time
	}
	m, err := w.p.metadata(t.Context())
	if err != nil {
		t.Fatalf("the metadata was read for one who has gone: %v", err)
	}
	w.p.keys.fetch(ctx, w.p, m.JWKSURI)
	if _, err := w.signIn(); err != nil {
		t.Errorf("after another's sign-in was given up: %v", err)
	}
}

// A token without a key id works with the one published key, also after that
// key was replaced.
func TestKidAbsentAndRotated(t *testing.T) {
	w := newWorld(t, nil)
	w.idp.Misbehave(func(m *idptest.Misbehaviour) {
		m.Header = func(h map[string]any) { delete(h, "kid") }
	})
	for range 3 {
		if _, err := w.signIn(); err != nil {
			t.Fatalf("signing in without a key id: %v", err)
		}
		w.idp.Rotate()
		w.idp.Retire()
	}
}

// A key need not say what it is for (RFC 7517, sections 4.2 and 4.4); one that does
// is for that alone.
func TestKeysThatSayLittle(t *testing.T) {
	n := base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, minRSABits/8))
	for _, tt := range []struct {
		says string
		fits bool
	}{
		{"", true}, {`,"use":"sig"`, true}, {`,"alg":"RS256"`, true},
		{`,"use":"enc"`, false}, {`,"alg":"RS512"`, false},
	} {
		keys, err := parseKeys([]byte(`{"keys":[{"kty":"RSA","kid":"a","e":"AQAB","n":"` + n + `"` + tt.says + `}]}`))
		if got := err == nil && fits(keys[0], "RS256"); got != tt.fits {
			t.Errorf("a key with %q is used for RS256: %t, %v", tt.says, got, err)
		}
	}
}

// Keys are those of the address that the provider names now, and of a known age: what
// was read elsewhere, or later than now, is asked for again and serves nobody
// meanwhile.
func TestR33_KeysOfAnotherAddressOrTime(t *testing.T) {
	w := newWorld(t, nil)
	m, err := w.p.metadata(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	here := m.JWKSURI
	read := func(from string, calls int, works bool) {
		t.Helper()
		_, _, err := w.p.keys.current(t.Context(), w.p, from)
		if got := w.idp.Calls("jwks"); got != calls || (err == nil) != works {
			t.Errorf("%d calls and %v, want %d and that it works: %t", got, err, calls, works)
		}
	}
	read(here, 1, true)
	read(here, 1, true)
	read(here+"?new", 2, true)
	w.clock.Advance(-time.Second)
	read(here+"?new", 3, true)
	undo := w.idp.Misbehave(func(m *idptest.Misbehaviour) { m.AtJWKS = idptest.Answer{Status: 500, Body: "x"} })
	w.clock.Advance(-time.Second)
	read(here+"?new", 4, false)
	read(here+"?new", 4, false) // too soon
	read(here, 5, false)        // another address was not asked yet
	undo()
	w.clock.Advance(lastRetry)
	read(here, 6, true)
}
