package idptest

import (
	_ "embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// cookieName names the provider's own session cookie.
const cookieName = "idptest_session"

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Funcs(template.FuncMap{"initial": initial}).Parse(pageText))

// initial returns the first letter of a name.
func initial(name string) string {
	for _, r := range name {
		return strings.ToUpper(string(r))
	}
	return "?"
}

// pageData is what the sign-in page and the error page show.
type pageData struct {
	Issuer, Client, Host, Target string

	People  []Person
	Problem string
}

// authorize serves the authorization endpoint (OpenID Connect Core 1.0,
// section 3.1.2). Without a choice it shows the sign-in page; the page's
// buttons post the choice to the same address. A program may put choose=EMAIL
// into the query instead.
func (p *Provider) authorize(w http.ResponseWriter, r *http.Request) {
	// The body is read before the lock: a slow browser must stop nobody else.
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	fault := r.ParseForm()
	p.mu.Lock()
	defer p.mu.Unlock()
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || fault != nil || r.Method != http.MethodGet && r.Method != http.MethodPost {
		p.problem(w, "The request cannot be read.")
		return
	}
	for name, values := range q {
		if len(values) > 1 {
			p.problem(w, "The parameter "+strconv.Quote(name)+" comes more than once.")
			return
		}
	}
	// Nothing is redirected before these two are right (RFC 6749 section
	// 4.1.2.1): the address could be anybody's.
	if q.Get("client_id") != p.o.ClientID {
		p.problem(w, "No client is registered under this client_id.")
		return
	}
	if !slices.Contains(p.o.RedirectURIs, q.Get("redirect_uri")) {
		p.problem(w, "The redirect_uri is not registered for this client, character by character.")
		return
	}
	back := func(answer url.Values) {
		p.back(w, r, q, answer)
	}
	fail := func(code, complaint string) {
		if complaint != "" {
			p.complain("authorization endpoint: %s", complaint)
		}
		back(url.Values{"error": {code}, "error_description": {"refused by the local identity provider"}})
	}
	scope := strings.Fields(q.Get("scope"))
	challenge, err := base64.RawURLEncoding.DecodeString(q.Get("code_challenge"))
	switch {
	case q.Get("response_type") != "code":
		fail("unsupported_response_type", "response_type is not code")
	case q.Has("response_mode") && q.Get("response_mode") != "query":
		fail("invalid_request", "response_mode is not query")
	case !slices.Contains(scope, "openid"):
		fail("invalid_scope", "the scope lacks openid")
	case q.Get("state") == "":
		fail("invalid_request", "no state")
	case q.Get("nonce") == "":
		fail("invalid_request", "no nonce")
	case q.Get("code_challenge") == "":
		fail("invalid_request", "no PKCE challenge")
	case q.Get("code_challenge_method") != "S256":
		fail("invalid_request", "code_challenge_method is not S256")
	case err != nil || len(challenge) != 32:
		fail("invalid_request", "code_challenge is not a SHA-256")
	case q.Has("id_token_hint"):
		fail("invalid_request", "an ID token went through the browser, as id_token_hint")
	case q.Has("max_age") && !isSeconds(q.Get("max_age")):
		fail("invalid_request", "max_age is not a number of seconds")
	case p.m.Error != "":
		back(url.Values{"error": {p.m.Error}, "error_description": {p.m.ErrorDescription}})
	default:
		p.choose(w, r, q, back, fail)
	}
}

func isSeconds(s string) bool {
	n, err := strconv.Atoi(s)
	return err == nil && n >= 0
}

// choose decides who signs in: the one that was clicked, or for prompt=none
// the one who has a session here.
func (p *Provider) choose(w http.ResponseWriter, r *http.Request, q url.Values, back func(url.Values), fail func(code, complaint string)) {
	now := p.o.Now()
	choice := q.Get("choose")
	if r.Method == http.MethodPost && choice == "" {
		choice = r.PostForm.Get("choose")
		if r.PostForm.Get("cancel") != "" {
			fail("access_denied", "")
			return
		}
	}
	prompt := q.Get("prompt")
	switch {
	case prompt == "none":
		s, found := p.session(r)
		who, known := p.person(s.subject)
		tooOld := false
		if q.Has("max_age") {
			seconds, _ := strconv.Atoi(q.Get("max_age"))
			tooOld = now.Sub(s.at) > time.Duration(seconds)*time.Second
		}
		other := q.Get("login_hint") != "" && q.Get("login_hint") != who.Email
		if !found || !known || tooOld || other {
			fail("login_required", "")
			return
		}
		p.giveCode(q, who, s.at, back)
	case choice != "":
		who, known := p.person(choice)
		if !known {
			p.problem(w, "Nobody here has this email address.")
			return
		}
		id := random()
		p.sessions[id] = session{subject: who.Subject, at: now}
		http.SetCookie(w, &http.Cookie{
			Name: cookieName, Value: id, Path: "/", HttpOnly: true,
			SameSite: http.SameSiteLaxMode, Secure: strings.HasPrefix(p.o.Issuer, "https:"),
		})
		p.giveCode(q, who, now, back)
	default:
		p.signInPage(w, r, q)
	}
}

func (p *Provider) session(r *http.Request) (session, bool) {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return session{}, false
	}
	s, found := p.sessions[c.Value]
	return s, found
}

func (p *Provider) giveCode(q url.Values, who Person, authTime time.Time, back func(url.Values)) {
	id := random()
	p.codes[id] = &code{
		redirectURI: q.Get("redirect_uri"), challenge: q.Get("code_challenge"), nonce: q.Get("nonce"),
		scope: q.Get("scope"), subject: who.Subject, authTime: authTime, expires: p.o.Now().Add(codeLife),
	}
	back(url.Values{"code": {id}})
}

// back sends the browser to the client, with the state it brought.
func (p *Provider) back(w http.ResponseWriter, r *http.Request, q, answer url.Values) {
	u, err := url.Parse(q.Get("redirect_uri"))
	if err != nil {
		p.problem(w, "The redirect_uri cannot be read.")
		return
	}
	if q.Has("state") {
		answer.Set("state", q.Get("state"))
	}
	if p.o.ResponseIss {
		answer.Set("iss", p.o.Issuer)
	}
	if p.m.Callback != nil {
		p.m.Callback(answer)
	}
	query := u.Query()
	for name, values := range answer {
		query[name] = values
	}
	u.RawQuery = query.Encode()
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, u.String(), http.StatusSeeOther)
}

func (p *Provider) signInPage(w http.ResponseWriter, r *http.Request, q url.Values) {
	u, _ := url.Parse(q.Get("redirect_uri"))
	people := p.o.People
	if hint := q.Get("login_hint"); hint != "" {
		people = slices.Clone(people)
		slices.SortStableFunc(people, func(a, b Person) int {
			switch {
			case a.Email == hint:
				return -1
			case b.Email == hint:
				return 1
			}
			return 0
		})
	}
	p.show(w, http.StatusOK, pageData{Client: p.o.ClientID, Host: u.Host, Target: r.URL.RequestURI(), People: people})
}

// problem shows an error page: what is wrong must not be sent to an address
// that may be anybody's.
func (p *Provider) problem(w http.ResponseWriter, sentence string) {
	p.complain("authorization endpoint: %s", sentence)
	p.show(w, http.StatusBadRequest, pageData{Problem: sentence})
}

func (p *Provider) show(w http.ResponseWriter, status int, d pageData) {
	d.Issuer = p.o.Issuer
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'")
	w.WriteHeader(status)
	page.Execute(w, d)
}
