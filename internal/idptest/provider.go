// Package idptest is an OpenID Connect provider beyond the wire: it signs
// people in for tests and for the demonstration, judges the client as a strict
// provider would, and misbehaves on request.
//
// A Provider has one client and some People. The client sends a browser to
// /authorize; whoever is chosen there comes back with a code, which /token
// takes once, for an ID token signed by the newest key of /jwks. Rotate and
// Retire move the keys on. Misbehave makes any of it wrong: a claim, a
// signature, a callback, an endpoint.
//
// What a provider may expect of a client and this one did not get (an exact
// redirect_uri, client_secret_basic, PKCE with S256, a fresh nonce, one use of
// a code) is refused, and kept as a complaint. A test that was handed a
// Provider by Start fails on complaints that it did not take; see Complaints.
package idptest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A Person is somebody the provider can sign in.
type Person struct {
	Subject       string
	Name          string
	Email         string
	EmailVerified any            // nil leaves the claim out; true, false, "false"
	Groups        []string       // nil leaves the claim out
	Title         string         // shown on the sign-in page
	Extra         map[string]any // further claims; they win over the ones above
}

// Options make a Provider. ClientID is required, the rest has defaults.
type Options struct {
	ClientID     string
	ClientSecret string
	RedirectURIs []string
	People       []Person
	Now          func() time.Time // nil means time.Now
	TokenLife    time.Duration    // of ID tokens and access tokens; 0 means an hour
	Issuer       string           // set later with SetIssuer if empty
	Algorithm    string           // that signs ID tokens: RS256 (the default) to ES512

	// ResponseIss adds iss to every callback and says so in the discovery
	// document (RFC 9207).
	ResponseIss bool
	// Thin leaves email, name and groups out of the ID token, to be had from
	// UserInfo, as some providers do when an access token is issued too.
	Thin bool
}

// Life of an authorization code, as RFC 6749 section 4.1.2 recommends at most
// ten minutes and strict providers make it one.
const codeLife = time.Minute

// A Provider is an OpenID Connect provider with one confidential client. It is
// safe for use by many goroutines.
type Provider struct {
	mu        sync.Mutex
	o         Options
	m         Misbehaviour
	keys      []*key // the last one signs; all are published
	rotations int

	codes     map[string]*code
	sessions  map[string]session // by the provider's own cookie
	access    map[string]access
	refreshes map[string]*refresh
	verifiers map[string]bool // every PKCE verifier that was ever presented
	nonces    map[string]bool // every nonce of an exchanged code

	calls      map[string]int
	complaints []string
}

type session struct {
	subject string
	at      time.Time
}

type code struct {
	redirectURI, challenge, nonce, scope, subject string

	authTime, expires time.Time
	used              bool
	family            string // of what was issued for it, revoked when the code comes twice
}

type access struct {
	subject, scope, family string

	expires time.Time
}

type refresh struct {
	subject, scope, family string

	authTime time.Time
	used     bool
}

// New returns a provider. It has no issuer until Options, SetIssuer or Start
// give it one.
func New(o Options) *Provider {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.TokenLife == 0 {
		o.TokenLife = time.Hour
	}
	if o.Algorithm == "" {
		o.Algorithm = "RS256"
	}
	o.RedirectURIs, o.People = slices.Clone(o.RedirectURIs), slices.Clone(o.People)
	p := &Provider{
		o:         o,
		codes:     map[string]*code{},
		sessions:  map[string]session{},
		access:    map[string]access{},
		refreshes: map[string]*refresh{},
		verifiers: map[string]bool{},
		nonces:    map[string]bool{},
		calls:     map[string]int{},
	}
	p.Rotate()
	return p
}

// SetIssuer sets the issuer, which is also where the provider is reached. A
// path is allowed.
func (p *Provider) SetIssuer(issuer string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.o.Issuer = issuer
}

// Issuer returns the issuer.
func (p *Provider) Issuer() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.o.Issuer
}

// AddRedirectURI registers one more redirect URI of the client.
func (p *Provider) AddRedirectURI(uri string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.o.RedirectURIs = append(p.o.RedirectURIs, uri)
}

// RotateClient gives the client another secret; the one before is refused.
func (p *Provider) RotateClient(secret string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.o.ClientSecret = secret
}

// AddPerson adds somebody who can sign in.
func (p *Provider) AddPerson(person Person) { p.SetPerson(person) }

// SetPerson replaces the person with the same subject, or adds one.
func (p *Provider) SetPerson(person Person) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.o.People {
		if p.o.People[i].Subject == person.Subject {
			p.o.People[i] = person
			return
		}
	}
	p.o.People = append(p.o.People, person)
}

// RemovePerson takes the person away: sessions and refresh tokens of theirs
// work no longer, as after a deactivation.
func (p *Provider) RemovePerson(subject string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.o.People = slices.DeleteFunc(p.o.People, func(q Person) bool { return q.Subject == subject })
}

// Calls returns how many requests an endpoint has seen: "discovery",
// "authorize", "token", "jwks" or "userinfo".
func (p *Provider) Calls(endpoint string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[endpoint]
}

// Complaints returns what the client did wrong since the last call, and
// forgets it. A test that provokes a complaint must take it, or Start's
// clean-up fails the test.
func (p *Provider) Complaints() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	taken := p.complaints
	p.complaints = nil
	return taken
}

// Secrets returns what passed between the provider and its client and is nobody
// else's: codes, access and refresh tokens, PKCE verifiers and nonces.
func (p *Provider) Secrets() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Concat(slices.Collect(maps.Keys(p.codes)), slices.Collect(maps.Keys(p.access)),
		slices.Collect(maps.Keys(p.refreshes)), slices.Collect(maps.Keys(p.verifiers)), slices.Collect(maps.Keys(p.nonces)))
}

// complain keeps what the client did wrong. The caller holds mu.
func (p *Provider) complain(format string, args ...any) {
	p.complaints = append(p.complaints, fmt.Sprintf(format, args...))
}

// Start serves the provider on a loopback address until the test ends, sets
// the issuer to it and returns it. Complaints that are left at the end fail
// the test.
func (p *Provider) Start(t testing.TB) string {
	t.Helper()
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	p.SetIssuer(server.URL)
	p.Judge(t)
	return server.URL
}

// Judge makes complaints that are left at the end of the test fail it. Start
// does so by itself.
func (p *Provider) Judge(t testing.TB) {
	t.Cleanup(func() {
		for _, c := range p.Complaints() {
			t.Errorf("the identity provider complains: %s", c)
		}
	})
}

// Dialer returns a dial function that reaches the provider in memory, whatever
// the address, for http.Transport.DialContext: a test inside testing/synctest
// cannot advance time while a real socket waits. It serves until the test ends.
func (p *Provider) Dialer(t testing.TB) func(ctx context.Context, network, address string) (net.Conn, error) {
	l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{Handler: p}
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(l)
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return l.dial
}

// pipeListener hands the far ends of net.Pipe to a server.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case l.conns <- far:
		return near, nil
	case <-l.closed:
		return nil, errors.New("idptest: the provider has ended")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "idptest", Net: "pipe"} }

// Transport returns a round tripper that answers every request from the
// provider, whatever its scheme and host: with it an issuer may be
// https://acme.okta.com.
func (p *Provider) Transport() http.RoundTripper { return inMemory{p} }

type inMemory struct{ p *Provider }

// RoundTrip implements http.RoundTripper.
func (m inMemory) RoundTrip(r *http.Request) (*http.Response, error) {
	served := r.Clone(r.Context())
	served.RequestURI = r.URL.RequestURI()
	if served.Body == nil {
		served.Body = http.NoBody
	}
	w := httptest.NewRecorder()
	m.p.ServeHTTP(w, served)
	served.Body.Close()
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	answer := w.Result()
	answer.Request = r
	return answer, nil
}

// SignIn plays the browser and the person: it opens the authorization URL,
// chooses the person by email, and returns the callback that the browser would
// be sent to. An error means that the provider showed an error page instead.
func (p *Provider) SignIn(authorizationURL, email string) (callback *url.URL, err error) {
	u, err := url.Parse(authorizationURL)
	if err != nil {
		return nil, fmt.Errorf("opening the authorization URL: %w", err)
	}
	q := u.Query()
	q.Set("choose", email)
	u.RawQuery = q.Encode()
	r := httptest.NewRequest(http.MethodPost, u.String(), nil)
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	answer := w.Result()
	if answer.Header.Get("Location") == "" {
		return nil, fmt.Errorf("the provider answered %s and no redirect: %s", answer.Status, plain(w.Body.Bytes()))
	}
	return answer.Location()
}

// plain cuts an HTML page down to the words of its paragraphs.
func plain(page []byte) string {
	_, rest, found := bytes.Cut(page, []byte("<p>"))
	if !found {
		rest = page
	}
	words, _, _ := bytes.Cut(rest, []byte("</p>"))
	return string(words)
}

// ServeHTTP serves the endpoints below the issuer's path.
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	if u, err := url.Parse(p.Issuer()); err == nil {
		path = strings.TrimPrefix(path, strings.TrimSuffix(u.Path, "/"))
	}
	endpoint, serve := "", http.NotFound
	switch path {
	case "/.well-known/openid-configuration":
		endpoint, serve = "discovery", p.discovery
	case "/authorize":
		endpoint, serve = "authorize", p.authorize
	case "/token":
		endpoint, serve = "token", p.token
	case "/jwks":
		endpoint, serve = "jwks", p.jwks
	case "/userinfo":
		endpoint, serve = "userinfo", p.userinfo
	}
	p.mu.Lock()
	p.calls[endpoint]++
	answer := p.m.answer(endpoint)
	p.mu.Unlock()
	if answer.instead(w, r) {
		return
	}
	serve(w, r)
}

// discovery serves the metadata of OpenID Connect Discovery 1.0, section 3.
func (p *Provider) discovery(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	base := strings.TrimSuffix(p.o.Issuer, "/")
	document := map[string]any{
		"issuer":                                         p.o.Issuer,
		"authorization_endpoint":                         base + "/authorize",
		"token_endpoint":                                 base + "/token",
		"userinfo_endpoint":                              base + "/userinfo",
		"jwks_uri":                                       base + "/jwks",
		"response_types_supported":                       []string{"code"},
		"response_modes_supported":                       []string{"query"},
		"grant_types_supported":                          []string{"authorization_code", "refresh_token"},
		"subject_types_supported":                        []string{"public"},
		"id_token_signing_alg_values_supported":          []string{p.o.Algorithm},
		"scopes_supported":                               []string{"openid", "email", "profile", "groups", "offline_access"},
		"token_endpoint_auth_methods_supported":          []string{"client_secret_basic"},
		"code_challenge_methods_supported":               []string{"S256"},
		"claims_supported":                               []string{"iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "at_hash", "amr", "email", "email_verified", "name", "preferred_username", "groups"},
		"authorization_response_iss_parameter_supported": p.o.ResponseIss,
	}
	if p.m.Discovery != nil {
		p.m.Discovery(document)
	}
	writeJSON(w, http.StatusOK, document)
}

// person finds somebody by email or subject. The caller holds mu.
func (p *Provider) person(name string) (Person, bool) {
	for _, person := range p.o.People {
		if name != "" && (person.Email == name || person.Subject == name) {
			return person, true
		}
	}
	return Person{}, false
}

// profile returns the claims about a person that a scope asks for (OpenID
// Connect Core 1.0, section 5.4).
func (p *Provider) profile(person Person, scope string) map[string]any {
	asked := strings.Fields(scope)
	claims := map[string]any{}
	if slices.Contains(asked, "email") && person.Email != "" {
		claims["email"] = person.Email
		if person.EmailVerified != nil {
			claims["email_verified"] = person.EmailVerified
		}
	}
	if slices.Contains(asked, "profile") && person.Name != "" {
		claims["name"] = person.Name
		claims["preferred_username"] = person.Email
	}
	if person.Groups != nil {
		claims["groups"] = person.Groups
	}
	maps.Copy(claims, person.Extra)
	return claims
}

// random returns 160 bits as text.
func random() string { return rand.Text() + rand.Text()[:6] }
