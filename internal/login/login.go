// Package login is a person, recognised: OpenID Connect sign-in with one
// provider, by the authorization code flow with PKCE.
//
// Begin makes an Attempt and the address to send the browser to. The caller
// keeps the attempt, bound to that browser, and takes it exactly once when the
// browser comes back. Finish judges the callback against the attempt, exchanges
// the code, verifies the ID token and returns the Identity. Refresh does the
// same with a refresh token.
//
// go-oidc checks signature, issuer, audience and expiry. It accepts tokens that
// the Basic RP conformance plan wants refused: without sub, iat or nonce, with
// duplicate claims, for two audiences, issued next week. verifyIDToken is the
// only caller of go-oidc and makes every check that go-oidc leaves out; keySet
// gives its keys an age and its fetches a limit.
//
// What a person did, or must be told, is a serval.Refusal whose Detail["cause"]
// is one of the Cause words, for the audit log. A refusal that has a fault
// behind it (the provider is away) also wraps the fault, for the log. No text
// here holds a token, a code or a claim other than issuer and email.
//
// The package stores nothing, logs nothing and serves nothing.
package login

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// Config says who the provider is and what is asked of it.
type Config struct {
	Issuer       string // exactly as in the discovery document: a trailing slash counts
	ClientID     string
	ClientSecret serval.Secret // until Rotate
	RedirectURL  string        // one constant, from the settings; https, or http on loopback
	Scopes       []string      // nil means openid, email, profile

	// Offline asks for a refresh token too, so that the provider can be asked
	// again who somebody is without their browser.
	Offline bool

	EmailClaim  string // the claim that is the email; "" means "email". There is no second choice.
	GroupsClaim string // "" means "groups"

	// EmailVerified says what an absent email_verified means. "" decides by
	// issuer: accepted from Okta, which leaves it out of ID tokens, and from
	// whoever was given another EmailClaim; refused elsewhere. "require"
	// refuses, "ignore" accepts. False refuses always.
	EmailVerified string

	MaxAge      time.Duration // how long ago the person may have signed in at the provider; 0 does not ask
	RequiredAMR []string      // authentication methods that must all have been used (RFC 8176)
	Algorithms  []string      // that may sign an ID token; nil means RS256. STS takes RS256 to RS512 and ES256 to ES512.

	// Hosts are hosts, besides the issuer's own, that the provider's endpoints
	// may live on. Google's and Microsoft's are known.
	Hosts []string

	// HTTPClient carries the calls to the provider; nil means one with its own
	// deadlines. Of a given client the transport counts: cookies, redirects
	// and deadlines are always ours.
	HTTPClient *http.Client
	// Around, where it is set, is put around the transport of our own.
	Around func(http.RoundTripper) http.RoundTripper
	Now    func() time.Time // nil means time.Now
}

// A Provider signs people in at one OpenID Connect provider. It is safe for
// use by many goroutines.
type Provider struct {
	c      Config
	secret atomic.Pointer[serval.Secret] // the client's, as it is now
	client *http.Client
	now    func() time.Time
	watch  watched
	found  discovery
	keys   keySet
}

// offlineAccess is the scope for a refresh token (OpenID Connect Core 1.0,
// section 11).
const offlineAccess = "offline_access"

// Algorithms that AWS STS takes a web identity token with, and no others: HS*
// and none prove nothing, PS* and EdDSA would fail at the first session.
var signingAlgorithms = []string{"RS256", "RS384", "RS512", "ES256", "ES384", "ES512"}

// New checks the configuration, and reports all of its faults at once. It does
// not touch the network: a provider that is away when the process starts is
// found later, by itself.
func New(c Config) (*Provider, error) {
	c.Scopes = slices.Clone(c.Scopes)
	if len(c.Scopes) == 0 {
		c.Scopes = []string{"openid", "email", "profile"}
	}
	if c.Offline && !isGoogle(c.Issuer) && !slices.Contains(c.Scopes, offlineAccess) {
		c.Scopes = append(c.Scopes, offlineAccess)
	}
	if c.EmailClaim == "" {
		c.EmailClaim = "email"
	}
	if c.GroupsClaim == "" {
		c.GroupsClaim = "groups"
	}
	c.Algorithms = slices.Clone(c.Algorithms)
	if len(c.Algorithms) == 0 {
		c.Algorithms = []string{"RS256"}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	p := &Provider{
		c:      c,
		client: boundedClient(c.HTTPClient, c.Around),
		now:    c.Now,
		watch:  watchedClaims(c.EmailClaim, c.GroupsClaim),
		found:  discovery{turn: newTurn()},
		keys:   keySet{turn: newTurn()},
	}
	p.Rotate(c.ClientSecret)
	return p, nil
}

// Rotate has the client prove itself by another secret from now on. Who is on
// the way to the provider and back notices nothing: the secret is of no use
// before the code is exchanged.
func (p *Provider) Rotate(secret serval.Secret) { p.secret.Store(&secret) }

// check returns every fault of the configuration.
func (c Config) check() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	if c.Issuer == "" {
		fault("the issuer is missing")
	} else if err := checkURL(c.Issuer); err != nil {
		fault("the issuer %q %w", c.Issuer, err)
	} else if strings.Contains(c.Issuer, "?") {
		fault("the issuer %q has a query", c.Issuer) // OpenID Connect Discovery 1.0, section 4.3
	}
	if c.ClientID == "" {
		fault("the client id is missing")
	}
	if c.ClientSecret.Empty() {
		fault("the client secret is missing: Serval is a confidential client")
	}
	if c.RedirectURL == "" {
		fault("the redirect URL is missing")
	} else if err := checkURL(c.RedirectURL); err != nil {
		fault("the redirect URL %q %w", c.RedirectURL, err)
	}
	if !slices.Contains(c.Scopes, "openid") {
		fault("the scopes lack openid")
	}
	if !c.Offline && slices.Contains(c.Scopes, offlineAccess) {
		fault("the scopes have %s: set Offline instead, or nobody keeps what comes of it", offlineAccess)
	}
	for _, s := range c.Scopes {
		if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) {
			fault("%q is not a scope", s) // RFC 6749 section 3.3
		}
	}
	for _, a := range c.Algorithms {
		if !slices.Contains(signingAlgorithms, a) {
			fault("the algorithm %q is not one that AWS takes: %s", a, strings.Join(signingAlgorithms, ", "))
		}
	}
	if !slices.Contains([]string{"", "require", "ignore"}, c.EmailVerified) {
		fault("the rule for email_verified is %q, and neither require nor ignore", c.EmailVerified)
	}
	if c.MaxAge < 0 || c.MaxAge%time.Second != 0 {
		fault("the maximum age %s is not a number of whole seconds", c.MaxAge)
	}
	if slices.Contains(c.RequiredAMR, "") {
		fault("a required authentication method is empty")
	}
	if registered[c.EmailClaim] || registered[c.GroupsClaim] || c.EmailClaim == c.GroupsClaim {
		fault("the claims %q for the email and %q for the groups do not fit", c.EmailClaim, c.GroupsClaim)
	}
	for _, h := range c.Hosts {
		if u, err := url.Parse("https://" + h); err != nil || u.Host != h || h == "" {
			fault("%q is not a host", h)
		}
	}
	return errors.Join(faults...)
}

// checkURL reports what keeps a URL from being an issuer, an endpoint or a
// redirect URL: it must be https, or http on a loopback address.
func checkURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil, u.Opaque != "", u.Hostname() == "":
		return errors.New("is not a URL")
	case u.User != nil:
		return errors.New("has a user name in it")
	case u.Fragment != "" || strings.Contains(text, "#"):
		return errors.New("has a fragment")
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && serval.IsLoopback(u.Hostname()):
		return nil
	default:
		return errors.New("is not https (http is for loopback addresses only)")
	}
}

// A turn is a lock that can be waited for with a deadline.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

// Calls to the provider, and what is taken of its answers.
const (
	callTimeout     = 5 * time.Second  // discovery, keys, UserInfo
	exchangeTimeout = 10 * time.Second // the token endpoint
	maxDocument     = 1 << 20          // discovery document, key set
	maxUserInfo     = 64 << 10
	maxRedirects    = 3
)

// boundedClient returns a client with our own deadlines, without cookies, and
// that follows no redirect to another host. Who reads a body bounds it.
func boundedClient(given *http.Client, around func(http.RoundTripper) http.RoundTripper) *http.Client {
	c := &http.Client{Timeout: exchangeTimeout, CheckRedirect: stayAtHost}
	if given != nil && given.Transport != nil {
		c.Transport = given.Transport
		return c
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&net.Dialer{Timeout: callTimeout, KeepAlive: 30 * time.Second}).DialContext
	t.TLSHandshakeTimeout = callTimeout
	t.ResponseHeaderTimeout = exchangeTimeout
	t.MaxResponseHeaderBytes = 64 << 10
	t.MaxIdleConnsPerHost = 16
	c.Transport = t
	if around != nil {
		c.Transport = around(t)
	}
	return c
}

// stayAtHost lets a GET be redirected within its own origin. A POST is never
// redirected: it carries the code, the verifier and the client's secret.
func stayAtHost(r *http.Request, via []*http.Request) error {
	first := via[0]
	switch {
	case first.Method != http.MethodGet:
		return errors.New("the answer to a POST is a redirect")
	case len(via) > maxRedirects:
		return errors.New("too many redirects")
	case r.URL.Scheme != first.URL.Scheme || r.URL.Host != first.URL.Host:
		return errors.New("redirected to another host")
	}
	return nil
}
