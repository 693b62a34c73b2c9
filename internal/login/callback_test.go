package login

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/idptest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// S-36, S-37: the callback must bring the attempt's own state, within ten
// minutes, and nothing else reaches the token endpoint.
func TestS36_AttemptAndCallbackBelongTogether(t *testing.T) {
	tests := []struct {
		name   string
		change func(*world, *Attempt, url.Values)
		cause  string
	}{
		{"nobody's attempt", func(_ *world, a *Attempt, _ url.Values) { *a = Attempt{} }, CauseState},
		{"empty state on both sides", func(_ *world, a *Attempt, q url.Values) {
			a.State = serval.Secret{}
			q.Set("state", "")
		}, CauseState},
		{"another browser's attempt", func(w *world, a *Attempt, _ url.Values) { *a, _ = w.begin() }, CauseState},
		{"state first, then the error", func(_ *world, _ *Attempt, q url.Values) {
			q.Set("state", "x")
			q.Set("error", "access_denied")
		}, CauseState},
		{"ten minutes", func(w *world, _ *Attempt, _ url.Values) { w.clock.Advance(attemptLife) }, CauseCode}, // the code's own minute is over
		{"ten minutes and a second", func(w *world, _ *Attempt, _ url.Values) { w.clock.Advance(attemptLife + time.Second) }, CauseAttempt},
		{"begun in the future", func(w *world, _ *Attempt, _ url.Values) { w.clock.Advance(-attemptLife - time.Second) }, CauseAttempt},
		{"another issuer", func(_ *world, a *Attempt, _ url.Values) { a.Issuer = "https://old.example.com" }, CauseAttempt},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, nil)
			a, query := w.callback()
			tt.change(w, &a, query)
			_, err := w.p.Finish(t.Context(), a, query)
			wantCause(t, err, tt.cause)
			if calls := w.idp.Calls("token"); tt.cause != CauseCode && calls != 0 {
				t.Errorf("the token endpoint was called %d times, want none", calls)
			}
		})
	}
}

// S-40: the nonces of two tabs cannot be swapped; S-43: both tabs can finish.
func TestS40_TwoTabs(t *testing.T) {
	w := newWorld(t, nil)
	a1, q1 := w.callback()
	a2, q2 := w.callback()
	swapped := a1
	swapped.Nonce = a2.Nonce
	_, err := w.p.Finish(t.Context(), swapped, q1)
	wantCause(t, err, CauseNonce)
	if _, err := w.p.Finish(t.Context(), a2, q2); err != nil {
		t.Errorf("the second tab: %v", err)
	}
}

// S-39, S-42: a verifier of another attempt, and a code that comes twice, are
// refused by a strict provider, and we say so in our own words.
func TestS39_ProviderRefusesTheCode(t *testing.T) {
	w := newWorld(t, nil)
	a, query := w.callback()
	other, _ := w.begin()
	other.State = a.State
	_, err := w.p.Finish(t.Context(), other, query)
	wantCause(t, err, CauseCode)
	_, err = w.p.Finish(t.Context(), a, query)
	wantCause(t, err, CauseCode)
	if got := len(w.idp.Complaints()); got != 2 {
		t.Errorf("%d complaints of the provider, want 2: a wrong verifier, and a code for the second time", got)
	}
}

// S-44: the provider's errors are told in our words; what it wrote is not shown.
func TestS44_ErrorCallback(t *testing.T) {
	hostile := "<script>alert(1)</script>\r\nSet-Cookie: x=\u202ey " + strings.Repeat("A", 10_000)
	for code, want := range map[string]struct {
		kind  serval.Kind
		cause string
	}{
		"access_denied":              {serval.Denied, CauseAccessDenied},
		"login_required":             {serval.LoginRequired, CauseLoginRequired},
		"interaction_required":       {serval.LoginRequired, CauseLoginRequired},
		"consent_required":           {serval.LoginRequired, CauseLoginRequired},
		"account_selection_required": {serval.LoginRequired, CauseLoginRequired},
		"temporarily_unavailable":    {serval.Unavailable, CauseAway},
		"server_error":               {serval.Unavailable, CauseAway},
		"unauthorized_client":        {serval.FailedPrecondition, CauseProviderError},
		"unsupported_response_type":  {serval.FailedPrecondition, CauseProviderError},
		"invalid_scope":              {serval.FailedPrecondition, CauseProviderError},
		"invalid_request":            {serval.FailedPrecondition, CauseProviderError},
		hostile:                      {serval.Denied, CauseProviderError},
		"":                           {serval.Denied, CauseProviderError},
	} {
		w := newWorld(t, nil)
		a, query := w.callback()
		query.Set("error", code)
		query.Set("error_description", hostile)
		_, err := w.p.Finish(t.Context(), a, query)
		wantCause(t, err, want.cause)
		if !serval.IsRefusal(err, want.kind) {
			t.Errorf("error %.40q is not refused as %s: %v", code, want.kind, err)
		}
		if s := fmt.Sprint(err); strings.Contains(s, "script") || strings.Contains(s, "AAAA") || len(s) > 400 {
			t.Errorf("the provider's text is shown: %.400s", s)
		}
		if w.idp.Calls("token") != 0 {
			t.Errorf("error %.40q: the token endpoint was called", code)
		}
	}
}

// S-5: the token endpoint's body may quote the code or the secret; none of it
// is shown, and the cause is named by its code alone.
func TestS5_TokenEndpointErrors(t *testing.T) {
	const canary = "canary-9f2c"
	tests := []struct {
		name  string
		at    idptest.Answer
		kind  serval.Kind
		cause string
	}{
		{"invalid_grant", idptest.Answer{Status: 400, Body: `{"error":"invalid_grant","error_description":"` + canary + `"}`}, serval.Invalid, CauseCode},
		{"invalid_client", idptest.Answer{Status: 401, Body: `{"error":"invalid_client","error_uri":"` + canary + `"}`}, serval.FailedPrecondition, CauseClient},
		{"unauthorized_client", idptest.Answer{Status: 400, Body: `{"error":"unauthorized_client"}`}, serval.FailedPrecondition, CauseClient},
		{"unsupported_grant_type", idptest.Answer{Status: 400, Body: `{"error":"unsupported_grant_type"}`}, serval.FailedPrecondition, CauseClient},
		{"invalid_request", idptest.Answer{Status: 400, Body: `{"error":"invalid_request"}`}, serval.FailedPrecondition, CauseProviderError},
		{"an unknown code", idptest.Answer{Status: 400, Body: `{"error":"` + canary + `"}`}, serval.Denied, CauseProviderError},
		{"an error with status 200", idptest.Answer{Status: 200, Body: `{"error":"invalid_grant"}`}, serval.Invalid, CauseCode},
		{"no JSON", idptest.Answer{Status: 403, Body: canary}, serval.Denied, CauseProviderError},
		{"busy", idptest.Answer{Status: 429, Body: canary}, serval.Unavailable, CauseAway},
		{"down", idptest.Answer{Status: 503, Body: "<html>" + canary}, serval.Unavailable, CauseAway},
		{"HTML with status 200", idptest.Answer{Status: 200, Body: "<html>" + canary}, serval.Unavailable, CauseAway},
		{"a type that JSON shows", idptest.Answer{Status: 200, Body: `{"access_token":9182736455}`}, serval.Unavailable, CauseAway},
		{"no access token", idptest.Answer{Status: 200, Body: `{"id_token":"` + canary + `"}`}, serval.Unavailable, CauseAway},
		{"cut off", idptest.Answer{Status: 200, Cut: true, Body: `{"access_token":"` + canary + strings.Repeat("x", 5000) + `"}`}, serval.Unavailable, CauseAway},
		{"a redirect", idptest.Answer{Status: 307, Body: " ", Header: http.Header{"Location": {"https://evil.example.com/" + canary}}}, serval.Unavailable, CauseAway},
		{"a redirect to itself", idptest.Answer{Status: 307, Body: " ", Header: http.Header{"Location": {"/token?" + canary}}}, serval.Unavailable, CauseAway},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, nil)
			a, query := w.callback()
			w.idp.Misbehave(func(m *idptest.Misbehaviour) { m.AtToken = tt.at })
			_, err := w.p.Finish(t.Context(), a, query)
			wantCause(t, err, tt.cause)
			if !serval.IsRefusal(err, tt.kind) {
				t.Errorf("not refused as %s: %v", tt.kind, err)
			}
			if s := fmt.Sprintf("%v %+v %#v", err, err, err); strings.Contains(s, canary) || strings.Contains(s, "9182736455") || strings.Contains(s, query.Get("code")) {
				t.Errorf("the error tells what the endpoint wrote: %s", s)
			}
			if calls := w.idp.Calls("token"); calls != 1 {
				t.Errorf("the token endpoint was called %d times, want once", calls)
			}
		})
	}
}

// The credentials go by client_secret_basic, form-encoded first; wrong ones
// are told as an admin's task and not tried another way.
func TestClientSecretBasic(t *testing.T) {
	w := newWorld(t, func(_ *idptest.Options, c *Config) { c.ClientSecret = serval.NewSecret("wrong") })
	_, err := w.signIn()
	wantCause(t, err, CauseClient)
	if calls := w.idp.Calls("token"); calls != 1 || len(w.idp.Complaints()) != 1 {
		t.Errorf("%d calls of the token endpoint, want one, and one complaint", calls)
	}
}

// S-108: the client's secret changes while somebody is at the provider, and whoever
// comes back is signed in by the new one.
func TestRotate(t *testing.T) {
	w := newWorld(t, nil)
	a, query := w.callback()
	w.idp.RotateClient("another")
	w.p.Rotate(serval.NewSecret("another"))
	if _, err := w.p.Finish(t.Context(), a, query); err != nil {
		t.Errorf("who had begun before: %v", err)
	}
	if _, err := w.signIn(); err != nil {
		t.Errorf("who begins after: %v", err)
	}
	w.p.Rotate(serval.NewSecret(testSecret))
	_, err := w.signIn()
	wantCause(t, err, CauseClient)
	w.idp.Complaints()
}

// an endpoint that never answers costs its deadline and no more, and the
// fault behind the refusal says that time ran out.
func TestR32_EndpointsHang(t *testing.T) {
	for endpoint, tt := range map[string]struct {
		hang  func(*idptest.Misbehaviour)
		cause string
		after time.Duration
	}{
		"token":     {func(m *idptest.Misbehaviour) { m.AtToken.Hang = true }, CauseAway, exchangeTimeout},
		"jwks":      {func(m *idptest.Misbehaviour) { m.AtJWKS.Hang = true }, CauseKeys, callTimeout},
		"userinfo":  {func(m *idptest.Misbehaviour) { m.AtUserInfo.Hang = true }, CauseUserInfo, callTimeout},
		"discovery": {func(m *idptest.Misbehaviour) { m.AtDiscovery.Hang = true }, CauseDiscovery, callTimeout},
	} {
		t.Run(endpoint, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const issuer = "http://127.0.0.1:9"
				idp := idptest.New(idptest.Options{
					ClientID: testClient, ClientSecret: testSecret, RedirectURIs: []string{testRedirect},
					People: []idptest.Person{ana}, Issuer: issuer, Thin: true,
				})
				p, err := New(Config{
					Issuer: issuer, ClientID: testClient, ClientSecret: serval.NewSecret(testSecret), RedirectURL: testRedirect,
					HTTPClient: &http.Client{Transport: &http.Transport{DialContext: idp.Dialer(t)}},
				})
				if err != nil {
					t.Fatal(err)
				}
				defer p.client.CloseIdleConnections()
				w := &world{t: t, idp: idp, p: p}
				start := time.Now()
				if endpoint == "discovery" {
					idp.Misbehave(tt.hang)
					_, _, err = p.Begin(t.Context(), Prompt{})
				} else {
					a, query := w.callback()
					idp.Misbehave(tt.hang)
					_, err = p.Finish(t.Context(), a, query)
				}
				wantCause(t, err, tt.cause)
				if took := time.Since(start); took != tt.after {
					t.Errorf("it took %s, want %s", took, tt.after)
				}
				if !strings.Contains(err.Error(), "deadline exceeded") {
					t.Errorf("the fault %v does not say that time ran out", err)
				}
			})
		})
	}
}

// An attempt without a nonce accepts no token, least of all one without.
func TestS40_EmptyNonce(t *testing.T) {
	w := newWorld(t, nil)
	w.idp.Misbehave(set("nonce", nil))
	a, query := w.callback()
	a.Nonce = serval.Secret{}
	_, err := w.p.Finish(t.Context(), a, query)
	wantCause(t, err, CauseNonce)
}

// S-59: signing in again helps against an old sign-in, not against a provider
// that does not say when it was: that must not become a loop.
func TestS59_Kinds(t *testing.T) {
	for name, tt := range map[string]struct {
		wrong func(*idptest.Misbehaviour)
		kind  serval.Kind
	}{
		"old":    {shift("auth_time", -time.Hour), serval.LoginRequired},
		"absent": {set("auth_time", nil), serval.Denied},
	} {
		w := newWorld(t, maxAge)
		w.idp.Misbehave(tt.wrong)
		if _, err := w.signIn(); !serval.IsRefusal(err, tt.kind) {
			t.Errorf("%s: %v, want a refusal of kind %s", name, err, tt.kind)
		}
	}
}

// Twenty people at once: no races, one key fetch.
func TestManySignInsAtOnce(t *testing.T) {
	w := newWorld(t, nil)
	var wg sync.WaitGroup
	for range 20 {
		a, query := w.callback()
		wg.Go(func() {
			if _, err := w.p.Finish(t.Context(), a, query); err != nil {
				t.Errorf("Finish: %v", err)
			}
		})
	}
	wg.Wait()
	if d, k := w.idp.Calls("discovery"), w.idp.Calls("jwks"); d != 1 || k != 1 {
		t.Errorf("%d discovery calls and %d key fetches, want one each", d, k)
	}
}

// S-61: with a minute or less left the ID token is not to be minted with.
func TestS61_UsableAt(t *testing.T) {
	end := time.Unix(1_800_000_000, 0)
	id := Identity{ExpiresAt: end}
	for before, want := range map[time.Duration]bool{61 * time.Second: true, 60 * time.Second: false, 59 * time.Second: false, -time.Second: false} {
		if got := id.UsableAt(end.Add(-before)); got != want {
			t.Errorf("%s before the end: usable %t, want %t", before, got, want)
		}
	}
}

// oidcc-client-test-refresh-token, -refresh-token-invalid-issuer, -invalid-sub.
func TestRefresh(t *testing.T) {
	offline := func(_ *idptest.Options, c *Config) {
		c.Offline = true
	}
	tests := []struct {
		name  string
		wrong func(*idptest.Misbehaviour)
		cause string
	}{
		{"refresh-token", nil, ""},
		{"invalid-issuer", set("iss", "https://another.example.com"), CauseIss},
		{"invalid-sub", set("sub", "00u2bob5678"), CauseRefresh},
		{"invalid-aud", set("aud", "another-client"), CauseAud},
		{"a later auth_time", set("auth_time", newClock().Now().Add(30*time.Minute).Unix()), ""},
		{"no auth_time", set("auth_time", nil), ""},
		{"no ID token", func(m *idptest.Misbehaviour) {
			m.TokenAnswer = func(a map[string]any) { delete(a, "id_token") }
		}, CauseToken},
		{"email no longer verified", set("email_verified", false), CauseEmailVerified},
		{"away", func(m *idptest.Misbehaviour) { m.AtToken = idptest.Answer{Status: 503, Body: "down"} }, CauseAway}, // which is no end
		{"stale", shift("iat", 0), CauseIat}, // half an hour old by then
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, offline)
			was, err := w.signIn()
			if err != nil {
				t.Fatalf("signing in: %v", err)
			}
			if was.RefreshToken.Empty() {
				t.Fatal("no refresh token although offline_access was asked for")
			}
			w.clock.Advance(30 * time.Minute)
			if tt.wrong != nil {
				w.idp.Misbehave(tt.wrong)
			}
			is, err := w.p.Refresh(t.Context(), was.RefreshToken, was)
			if tt.cause != "" {
				wantCause(t, err, tt.cause)
				return
			}
			if err != nil {
				t.Fatalf("Refresh: %v", err)
			}
			if is.Subject != was.Subject || !is.AuthTime.Equal(was.AuthTime) || !is.ExpiresAt.After(was.ExpiresAt) ||
				is.RefreshToken.Empty() || is.RefreshToken.Equal(was.RefreshToken) {
				t.Errorf("refreshed to %+v from %+v: want the same person and sign-in, a later end and the next refresh token", is, was)
			}
		})
	}

	t.Run("deactivated", func(t *testing.T) {
		w := newWorld(t, offline)
		was, err := w.signIn()
		if err != nil {
			t.Fatalf("signing in: %v", err)
		}
		w.idp.RemovePerson(ana.Subject)
		_, err = w.p.Refresh(t.Context(), was.RefreshToken, was)
		wantCause(t, err, CauseRefresh)
		if !serval.IsRefusal(err, serval.LoginRequired) {
			t.Errorf("not refused as %s: %v", serval.LoginRequired, err)
		}
	})
	t.Run("what is not this provider's", func(t *testing.T) {
		w := newWorld(t, nil)
		token := serval.NewSecret("canary")
		for name, tt := range map[string]struct {
			token serval.Secret
			was   Identity
		}{
			"no token":             {serval.Secret{}, Identity{Issuer: w.p.c.Issuer, Subject: ana.Subject}},
			"of the one before it": {token, Identity{Issuer: "https://old.example.com", Subject: ana.Subject}},
			"of nobody":            {token, Identity{Issuer: w.p.c.Issuer}},
		} {
			_, err := w.p.Refresh(t.Context(), tt.token, tt.was)
			wantCause(t, err, CauseRefresh)
			if w.idp.Calls("token") != 0 {
				t.Errorf("%s: the token endpoint was called", name)
			}
		}
	})
}

// S-5: nothing an identity, an attempt or a provider holds prints a secret.
func TestS5_NothingPrints(t *testing.T) {
	w := newWorld(t, nil)
	a, query := w.callback()
	id, err := w.p.Finish(t.Context(), a, query)
	if err != nil {
		t.Fatal(err)
	}
	printed := fmt.Sprintf("%v %+v %#v %v %+v %#v %+v %#v", a, a, a, id, id, id, w.p.c, w.p.c)
	for _, s := range []serval.Secret{a.State, a.Nonce, a.Verifier, id.IDToken, serval.NewSecret(testSecret)} {
		if strings.Contains(printed, s.Reveal()) {
			t.Errorf("a secret prints")
		}
	}
}

// The fault behind a refusal stays reachable for the log.
func TestBecauseKeepsBoth(t *testing.T) {
	fault := errors.New("the fault")
	err := because(refuse(serval.Unavailable, CauseAway, "The refusal."), fault)
	if !errors.Is(err, fault) || !serval.IsRefusal(err, serval.Unavailable) {
		t.Errorf("%v is not both", err)
	}
}
