package idptest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const redirectURI = "https://bridge.example.com/oidc/auth/callback"

var testPeople = []Person{
	{Subject: "00u1ana5678", Name: "Ana <b>", Email: "ana@example.com", EmailVerified: true, Groups: []string{"engineering"}, Title: "Engineer"},
	{Subject: "00u2bob5678", Name: "Änne", Email: "bob@example.com"},
}

func newProvider() *Provider {
	return New(Options{ClientID: "client", ClientSecret: "sec ret+%", RedirectURIs: []string{redirectURI}, People: testPeople, Issuer: "http://idp.test"})
}

// request is an authorization request that nothing is wrong with.
func request(verifier string) url.Values {
	sum := sha256.Sum256([]byte(verifier))
	return url.Values{
		"response_type": {"code"}, "client_id": {"client"}, "redirect_uri": {redirectURI}, "scope": {"openid email profile"},
		"state": {"state"}, "nonce": {"nonce " + verifier}, "code_challenge_method": {"S256"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])},
	}
}

var verifierA, verifierB = strings.Repeat("a", 43), strings.Repeat("b", 43)

// code lets Ana sign in and returns the code.
func codeFor(t *testing.T, p *Provider, q url.Values) string {
	t.Helper()
	back, err := p.SignIn("http://idp.test/authorize?"+q.Encode(), "ana@example.com")
	if err != nil {
		t.Fatalf("signing in: %v", err)
	}
	return back.Query().Get("code")
}

// post posts a form to the token endpoint and returns the answer's JSON.
func post(p *Provider, form url.Values, change func(*http.Request)) (status int, answer map[string]any) {
	r := httptest.NewRequest("POST", "/token", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth("client", url.QueryEscape("sec ret+%"))
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	json.Unmarshal(w.Body.Bytes(), &answer)
	return w.Code, answer
}

func exchangeForm(code string) url.Values {
	return url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {redirectURI}, "code_verifier": {verifierA}}
}

// The provider judges the authorization request as a strict one would.
func TestAuthorizationRequest(t *testing.T) {
	tests := []struct {
		name   string
		change func(url.Values)
		want   string // the error sent back; "page" for an error page, "" for a code
	}{
		{"right", func(url.Values) {}, ""},
		{"unknown client", func(q url.Values) { q.Set("client_id", "other") }, "page"},
		{"redirect_uri with a slash", func(q url.Values) { q.Set("redirect_uri", redirectURI+"/") }, "page"},
		{"no redirect_uri", func(q url.Values) { q.Del("redirect_uri") }, "page"},
		{"a parameter twice", func(q url.Values) { q.Add("state", "x") }, "page"},
		{"implicit flow", func(q url.Values) { q.Set("response_type", "id_token") }, "unsupported_response_type"},
		{"form_post", func(q url.Values) { q.Set("response_mode", "form_post") }, "invalid_request"},
		{"no openid", func(q url.Values) { q.Set("scope", "email") }, "invalid_scope"},
		{"no state", func(q url.Values) { q.Del("state") }, "invalid_request"},
		{"no nonce", func(q url.Values) { q.Del("nonce") }, "invalid_request"},
		{"no PKCE", func(q url.Values) { q.Del("code_challenge") }, "invalid_request"},
		{"plain PKCE", func(q url.Values) { q.Set("code_challenge_method", "plain") }, "invalid_request"},
		{"no PKCE method", func(q url.Values) { q.Del("code_challenge_method") }, "invalid_request"},
		{"short challenge", func(q url.Values) { q.Set("code_challenge", "YQ") }, "invalid_request"},
		{"an ID token through the browser", func(q url.Values) { q.Set("id_token_hint", "x") }, "invalid_request"},
		{"max_age of no number", func(q url.Values) { q.Set("max_age", "soon") }, "invalid_request"},
		{"prompt none, no session", func(q url.Values) { q.Set("prompt", "none") }, "login_required"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newProvider()
			q := request(verifierA)
			tt.change(q)
			back, err := p.SignIn("http://idp.test/authorize?"+q.Encode(), "ana@example.com")
			if tt.want == "page" {
				if err == nil {
					t.Errorf("redirected to %s, want an error page", back)
				}
				return
			}
			if err != nil {
				t.Fatalf("signing in: %v", err)
			}
			got := back.Query()
			if got.Get("error") != tt.want || got.Has("code") != (tt.want == "") || got.Get("state") != q.Get("state") {
				t.Errorf("the callback says %v, want error %q and the state", got, tt.want)
			}
			if complained := len(p.Complaints()) > 0; complained != (tt.want != "" && tt.want != "login_required") {
				t.Errorf("complained: %t", complained)
			}
		})
	}
}

// The provider judges the token request as a strict one would.
func TestTokenRequest(t *testing.T) {
	tests := []struct {
		name   string
		form   func(url.Values)
		change func(*http.Request)
		want   string
	}{
		{"right", nil, nil, ""},
		{"wrong secret", nil, func(r *http.Request) { r.SetBasicAuth("client", "x") }, "invalid_client"},
		{"secret not encoded", nil, func(r *http.Request) { r.SetBasicAuth("client", "sec ret+%") }, "invalid_client"},
		{"no credentials", nil, func(r *http.Request) { r.Header.Del("Authorization") }, "invalid_client"},
		{"client_secret_post", func(f url.Values) { f.Set("client_id", "client"); f.Set("client_secret", "sec ret+%") }, nil, "invalid_client"},
		{"another redirect_uri", func(f url.Values) { f.Set("redirect_uri", redirectURI+"?") }, nil, "invalid_grant"},
		{"no verifier", func(f url.Values) { f.Del("code_verifier") }, nil, "invalid_grant"},
		{"short verifier", func(f url.Values) { f.Set("code_verifier", "a") }, nil, "invalid_grant"},
		{"wrong verifier", func(f url.Values) { f.Set("code_verifier", verifierB) }, nil, "invalid_grant"},
		{"unknown code", func(f url.Values) { f.Set("code", "x") }, nil, "invalid_grant"},
		{"a parameter twice", func(f url.Values) { f.Add("code", "x") }, nil, "invalid_request"},
		{"unknown grant", func(f url.Values) { f.Set("grant_type", "password") }, nil, "unsupported_grant_type"},
		{"GET", nil, func(r *http.Request) { r.Method = "GET" }, "invalid_request"},
		{"in the URL", nil, func(r *http.Request) { r.URL.RawQuery = "code=x" }, "invalid_request"},
		{"as JSON", nil, func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }, "invalid_request"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newProvider()
			form := exchangeForm(codeFor(t, p, request(verifierA)))
			if tt.form != nil {
				tt.form(form)
			}
			status, answer := post(p, form, tt.change)
			if got, _ := answer["error"].(string); got != tt.want {
				t.Errorf("status %d, error %q, want %q", status, got, tt.want)
			}
			if complained := len(p.Complaints()) > 0; complained != (tt.want != "") {
				t.Errorf("complained: %t", complained)
			}
		})
	}
}

// A code works once; the second use ends what the first one brought.
func TestCodeTwice(t *testing.T) {
	p := newProvider()
	form := exchangeForm(codeFor(t, p, request(verifierA)))
	_, first := post(p, form, nil)
	if _, second := post(p, form, nil); second["error"] != "invalid_grant" {
		t.Errorf("the second use of a code is answered %v", second)
	}
	if status, _ := userinfo(p, first["access_token"].(string)); status != http.StatusUnauthorized {
		t.Errorf("the access token of a code that came twice still works")
	}
	if got := p.Complaints(); len(got) != 1 {
		t.Errorf("complaints %q, want one", got)
	}
}

func userinfo(p *Provider, token string) (int, map[string]any) {
	r := httptest.NewRequest("GET", "/userinfo", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	var claims map[string]any
	json.Unmarshal(w.Body.Bytes(), &claims)
	return w.Code, claims
}

// A verifier and a nonce work once, a code for a minute.
func TestReuseAndTime(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	p := New(Options{ClientID: "client", ClientSecret: "sec ret+%", RedirectURIs: []string{redirectURI}, People: testPeople,
		Issuer: "http://idp.test", Now: func() time.Time { return now }})
	if _, answer := post(p, exchangeForm(codeFor(t, p, request(verifierA))), nil); answer["error"] != nil {
		t.Fatalf("refused: %v", answer)
	}
	if _, answer := post(p, exchangeForm(codeFor(t, p, request(verifierA))), nil); answer["error"] != "invalid_grant" || len(p.Complaints()) != 1 {
		t.Errorf("a verifier for the second time is answered %v", answer)
	}
	for after, want := range map[time.Duration]any{codeLife - time.Second: nil, codeLife: "invalid_grant"} {
		verifier := strings.Repeat("c", 43+int(after/time.Second))
		form := exchangeForm(codeFor(t, p, request(verifier)))
		form.Set("code_verifier", verifier)
		now = now.Add(after)
		if _, answer := post(p, form, nil); answer["error"] != want {
			t.Errorf("a code %s old is answered %v, want error %v", after, answer["error"], want)
		}
	}
}

// Refresh tokens rotate; one that comes twice ends its family.
func TestRefreshTokens(t *testing.T) {
	p := newProvider()
	q := request(verifierA)
	q.Set("scope", "openid email offline_access")
	_, first := post(p, exchangeForm(codeFor(t, p, q)), nil)
	renew := func(token any) map[string]any {
		_, answer := post(p, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token.(string)}}, nil)
		return answer
	}
	second := renew(first["refresh_token"])
	if second["refresh_token"] == nil || second["refresh_token"] == first["refresh_token"] || second["id_token"] == nil {
		t.Fatalf("renewed to %v, want a new refresh token and an ID token", second)
	}
	if again := renew(first["refresh_token"]); again["error"] != "invalid_grant" || len(p.Complaints()) != 1 {
		t.Errorf("a refresh token for the second time is answered %v", again)
	}
	if last := renew(second["refresh_token"]); last["error"] != "invalid_grant" {
		t.Errorf("the family of a refresh token that came twice goes on: %v", last)
	}
}

// The sign-in page shows the people, posts the choice to its own address and
// escapes what it shows; the session it sets answers prompt=none, within
// max_age and for the same person only.
func TestPageAndSession(t *testing.T) {
	p := newProvider()
	issuer := p.Start(t)
	jar, _ := cookiejar.New(nil)
	browser := &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	open := func(q url.Values) *http.Response {
		t.Helper()
		answer, err := browser.Get(issuer + "/authorize?" + q.Encode())
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	answer := open(request(verifierA))
	body, _ := io.ReadAll(answer.Body)
	answer.Body.Close()
	for _, want := range []string{"Choose who to sign in as", "ana@example.com", "Engineer", "Ana &lt;b&gt;", ">Ä<", "demonstrations", "bridge.example.com", "prefers-color-scheme"} {
		if !strings.Contains(string(body), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(string(body), "<b>\"") || answer.Header.Get("Content-Security-Policy") == "" {
		t.Errorf("the page is open to its people's names")
	}
	chosen, err := browser.PostForm(issuer+"/authorize?"+request(verifierA).Encode(), url.Values{"choose": {"ana@example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	chosen.Body.Close()
	if to, err := chosen.Location(); err != nil || chosen.StatusCode != http.StatusSeeOther || to.Query().Get("code") == "" {
		t.Errorf("choosing answers %s to %v, want 303 with a code", chosen.Status, to)
	}
	for name, tt := range map[string]struct {
		change func(url.Values)
		want   string
	}{
		"same person":    {func(q url.Values) { q.Set("login_hint", "ana@example.com") }, ""},
		"nobody named":   {func(url.Values) {}, ""},
		"another person": {func(q url.Values) { q.Set("login_hint", "bob@example.com") }, "login_required"},
		"young enough":   {func(q url.Values) { q.Set("max_age", "3600") }, ""},
		"too old":        {func(q url.Values) { q.Set("max_age", "0") }, "login_required"},
	} {
		q := request(verifierA)
		q.Set("prompt", "none")
		tt.change(q)
		answer := open(q)
		answer.Body.Close()
		to, err := answer.Location()
		if err != nil || to.Query().Get("error") != tt.want {
			t.Errorf("prompt=none, %s: %v, %v, want error %q", name, to, err, tt.want)
		}
	}
	canceled, err := browser.PostForm(issuer+"/authorize?"+request(verifierA).Encode(), url.Values{"cancel": {"1"}})
	if err != nil {
		t.Fatal(err)
	}
	canceled.Body.Close()
	if to, _ := canceled.Location(); to == nil || to.Query().Get("error") != "access_denied" {
		t.Errorf("canceling answers %v, want access_denied", to)
	}
}

// Every algorithm signs what its published key verifies.
func TestKeysVerify(t *testing.T) {
	for _, alg := range []string{"RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "EdDSA"} {
		p := newProvider()
		p.RotateTo(alg)
		p.Retire()
		w := httptest.NewRecorder()
		p.ServeHTTP(w, httptest.NewRequest("GET", "/jwks", nil))
		var set jose.JSONWebKeySet
		if err := json.Unmarshal(w.Body.Bytes(), &set); err != nil || len(set.Keys) != 1 || set.Keys[0].KeyID != p.KeyID() {
			t.Fatalf("%s: key set %s, %v, want the one key %s", alg, w.Body, err, p.KeyID())
		}
		token, err := jose.ParseSignedCompact(p.IDToken("ana@example.com", nil), []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
		if err != nil {
			t.Fatalf("%s: %v", alg, err)
		}
		if _, err := token.Verify(set.Keys[0].Key); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
	}
}

// Undo puts back what was before.
func TestMisbehaveUndo(t *testing.T) {
	p := newProvider()
	undo := p.Misbehave(func(m *Misbehaviour) { m.AtJWKS = Answer{Status: 500} })
	get := func() int {
		w := httptest.NewRecorder()
		p.ServeHTTP(w, httptest.NewRequest("GET", "/jwks", nil))
		return w.Code
	}
	if got := get(); got != 500 {
		t.Errorf("misbehaving: %d, want 500", got)
	}
	undo()
	if got := get(); got != 200 {
		t.Errorf("after undo: %d, want 200", got)
	}
	if got := p.Calls("jwks"); got != 2 {
		t.Errorf("%d calls counted, want 2", got)
	}
}

// The in-memory dialer lets time pass at once, also through a delay.
func TestDialerInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProvider()
		p.Misbehave(func(m *Misbehaviour) { m.AtDiscovery.Delay = time.Hour })
		client := &http.Client{Transport: &http.Transport{DialContext: p.Dialer(t)}}
		defer client.CloseIdleConnections()
		start := time.Now()
		answer, err := client.Get("http://idp.test/.well-known/openid-configuration")
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if took := time.Since(start); answer.StatusCode != 200 || took != time.Hour {
			t.Errorf("status %d after %s, want 200 after an hour", answer.StatusCode, took)
		}
	})
}
