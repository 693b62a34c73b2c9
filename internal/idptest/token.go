package idptest

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// verifierForm is the form of a PKCE verifier (RFC 7636 section 4.1).
var verifierForm = regexp.MustCompile(`^[A-Za-z0-9._~-]{43,128}$`)

// token serves the token endpoint (OpenID Connect Core 1.0, sections 3.1.3 and
// 12).
func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	// The body is read before the lock: a slow client must stop nobody else.
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	fault := r.ParseForm()
	p.mu.Lock()
	defer p.mu.Unlock()
	refuse := func(status int, code, complaint string) {
		p.complain("token endpoint: %s", complaint)
		tokenError(w, status, code)
	}
	if r.Method != http.MethodPost {
		refuse(http.StatusMethodNotAllowed, "invalid_request", r.Method+" instead of POST")
		return
	}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/x-www-form-urlencoded" {
		refuse(http.StatusBadRequest, "invalid_request", "the content type is not a form's")
		return
	}
	if r.URL.RawQuery != "" {
		refuse(http.StatusBadRequest, "invalid_request", "parameters in the URL")
		return
	}
	if fault != nil {
		refuse(http.StatusBadRequest, "invalid_request", "the form cannot be read")
		return
	}
	for name, values := range r.PostForm {
		if len(values) > 1 {
			refuse(http.StatusBadRequest, "invalid_request", "the parameter "+name+" comes more than once")
			return
		}
	}
	if r.PostForm.Has("client_secret") || r.PostForm.Has("client_assertion") {
		refuse(http.StatusUnauthorized, "invalid_client", "the client's secret is in the body, not in the Authorization header")
		return
	}
	if !p.isClient(r) {
		refuse(http.StatusUnauthorized, "invalid_client", "wrong client id or secret, or none by HTTP Basic")
		return
	}
	switch r.PostForm.Get("grant_type") {
	case "authorization_code":
		p.exchange(w, r.PostForm)
	case "refresh_token":
		p.renew(w, r.PostForm)
	default:
		refuse(http.StatusBadRequest, "unsupported_grant_type", "grant_type is neither authorization_code nor refresh_token")
	}
}

// isClient reports whether the request carries the client's credentials by
// client_secret_basic, both form-encoded first (RFC 6749 section 2.3.1).
func (p *Provider) isClient(r *http.Request) bool {
	user, password, given := r.BasicAuth()
	id, err1 := url.QueryUnescape(user)
	secret, err2 := url.QueryUnescape(password)
	same := subtle.ConstantTimeCompare([]byte(id), []byte(p.o.ClientID)) &
		subtle.ConstantTimeCompare([]byte(secret), []byte(p.o.ClientSecret))
	return given && err1 == nil && err2 == nil && same == 1
}

// exchange takes a code, once.
func (p *Provider) exchange(w http.ResponseWriter, form url.Values) {
	refuse := func(code, complaint string) {
		p.complain("token endpoint: %s", complaint)
		tokenError(w, http.StatusBadRequest, code)
	}
	c := p.codes[form.Get("code")]
	if c == nil {
		refuse("invalid_grant", "a code that was never given out")
		return
	}
	if c.used {
		// RFC 6749 section 4.1.2: revoke what was issued for it.
		p.revoke(c.family)
		refuse("invalid_grant", "a code for the second time")
		return
	}
	c.used = true // also when what follows is refused: a guess costs the code
	verifier := form.Get("code_verifier")
	challenge := sha256.Sum256([]byte(verifier))
	switch {
	case form.Get("redirect_uri") != c.redirectURI:
		refuse("invalid_grant", "another redirect_uri than the code was asked with")
		return
	case verifier == "":
		refuse("invalid_grant", "no PKCE verifier")
		return
	case !verifierForm.MatchString(verifier):
		refuse("invalid_grant", "a PKCE verifier that is not 43 to 128 unreserved characters")
		return
	case subtle.ConstantTimeCompare([]byte(base64.RawURLEncoding.EncodeToString(challenge[:])), []byte(c.challenge)) != 1:
		refuse("invalid_grant", "a PKCE verifier of another challenge")
		return
	case p.verifiers[verifier]:
		refuse("invalid_grant", "a PKCE verifier for the second time")
		return
	case p.nonces[c.nonce]:
		refuse("invalid_grant", "a nonce for the second time")
		return
	}
	p.verifiers[verifier], p.nonces[c.nonce] = true, true
	who, found := p.person(c.subject)
	if !found || !p.o.Now().Before(c.expires) {
		tokenError(w, http.StatusBadRequest, "invalid_grant") // nobody's mistake
		return
	}
	c.family = random()
	claims := map[string]any{"nonce": c.nonce}
	p.issue(w, who, claims, &refresh{subject: c.subject, scope: c.scope, family: c.family, authTime: c.authTime})
}

// renew takes a refresh token, once, and gives the next. One that comes twice
// ends its whole family (RFC 9700 section 4.14.2).
func (p *Provider) renew(w http.ResponseWriter, form url.Values) {
	old := p.refreshes[form.Get("refresh_token")]
	if old == nil {
		tokenError(w, http.StatusBadRequest, "invalid_grant")
		return
	}
	if old.used {
		p.revoke(old.family)
		p.complain("token endpoint: a refresh token for the second time")
		tokenError(w, http.StatusBadRequest, "invalid_grant")
		return
	}
	who, found := p.person(old.subject)
	if !found {
		p.revoke(old.family)
		tokenError(w, http.StatusBadRequest, "invalid_grant")
		return
	}
	old.used = true
	next := *old
	next.used = false
	p.issue(w, who, map[string]any{}, &next)
}

// revoke ends every token of a family.
func (p *Provider) revoke(family string) {
	for token, a := range p.access {
		if a.family == family {
			delete(p.access, token)
		}
	}
	for token, r := range p.refreshes {
		if r.family == family {
			delete(p.refreshes, token)
		}
	}
}

// issue answers with an access token, an ID token and, for offline_access, a
// refresh token.
func (p *Provider) issue(w http.ResponseWriter, who Person, claims map[string]any, grant *refresh) {
	accessToken := random()
	p.access[accessToken] = access{
		subject: grant.subject, scope: grant.scope, family: grant.family,
		expires: p.o.Now().Add(p.o.TokenLife),
	}
	if !p.o.Thin {
		for name, value := range p.profile(who, grant.scope) {
			claims[name] = value
		}
	}
	hashed := accessToken
	if p.m.WrongAtHash {
		hashed = "another"
	}
	claims["at_hash"] = atHash(p.keys[len(p.keys)-1].alg, hashed)
	p.stamp(claims, who, grant.authTime.Unix())
	answer := map[string]any{
		"access_token": accessToken,
		"token_type":   "Bearer",
		"expires_in":   int(p.o.TokenLife.Seconds()),
		"scope":        grant.scope,
		"id_token":     p.sign(claims),
	}
	if slices.Contains(strings.Fields(grant.scope), "offline_access") {
		token := random()
		p.refreshes[token] = grant
		answer["refresh_token"] = token
	}
	if p.m.TokenAnswer != nil {
		p.m.TokenAnswer(answer)
	}
	writeJSON(w, http.StatusOK, answer)
}

// userinfo serves UserInfo (OpenID Connect Core 1.0, section 5.3).
func (p *Provider) userinfo(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	a, found := p.access[token]
	if r.URL.Query().Has("access_token") {
		p.complain("userinfo endpoint: the access token is in the URL")
		found = false
	}
	who, known := p.person(a.subject)
	if !strings.EqualFold(scheme, "Bearer") || !found || !known || !p.o.Now().Before(a.expires) {
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		writeJSON(w, http.StatusUnauthorized, map[string]any{"error": "invalid_token"})
		return
	}
	claims := p.profile(who, a.scope)
	claims["sub"] = who.Subject
	if p.m.UserInfo != nil {
		p.m.UserInfo(claims)
	}
	writeJSON(w, http.StatusOK, claims)
}

func tokenError(w http.ResponseWriter, status int, code string) {
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="token endpoint"`)
	}
	writeJSON(w, status, map[string]any{"error": code, "error_description": "refused by the local identity provider"})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	if w.Header().Get("Cache-Control") == "" {
		w.Header().Set("Cache-Control", "no-store")
	}
	w.WriteHeader(status)
	w.Write(encodeJSON(v))
}
