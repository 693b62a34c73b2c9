package login

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A Check is one thing that was looked at to say why nobody can sign in.
type Check struct {
	ID    string
	State string // CheckOK, CheckWarn or CheckFailed
	Text  string // what was found
	Mend  string // what to do about it; empty where it is fine
}

// How a check comes out.
const (
	CheckOK     = "ok"
	CheckWarn   = "warn"
	CheckFailed = "fail"
)

// maxSkew is how far the clocks may be apart before sign-ins fail; half of it is
// worth a warning.
const maxSkew = skew

// Examine looks at the provider as a sign-in would, from its name to what it
// thinks of our credentials, and says what is wrong and what mends it. Nobody is
// signed in; the provider sees a sign-in that fails. Nothing is cached.
func (p *Provider) Examine(ctx context.Context) []Check {
	var checks []Check
	add := func(id, state, mend, format string, args ...any) {
		checks = append(checks, Check{id, state, fmt.Sprintf(format, args...), mend})
	}
	if note := IssuerNote(p.c.Issuer); note != "" {
		add("issuer", CheckWarn, note, "%s does not look like an issuer of this provider.", p.c.Issuer)
	}
	reach, m := p.examineKeys(ctx)
	checks = append(checks, reach...)
	if m == nil {
		return checks
	}
	return append(checks, p.examineClient(ctx, m), p.examineRedirect(ctx, m), p.examineScopes(m))
}

// ExamineReach looks at the provider from its name to its keys, which is what AWS
// looks at too. The provider sees nothing of a sign-in.
func (p *Provider) ExamineReach(ctx context.Context) []Check {
	checks, _ := p.examineKeys(ctx)
	return checks
}

// examineKeys is ExamineReach, and returns what the provider says of itself; nil
// where it says nothing.
func (p *Provider) examineKeys(ctx context.Context) ([]Check, *metadata) {
	checks := p.examineReach(ctx)
	add := func(id, state, mend, format string, args ...any) {
		checks = append(checks, Check{id, state, fmt.Sprintf(format, args...), mend})
	}
	m, err := p.discover(ctx)
	if err != nil {
		c := failed("discovery", err)
		c.Mend = strings.TrimSpace(c.Mend + " Check SERVAL_OIDC_ISSUER to the letter: its description has to be at " + p.wellKnown() + ".")
		return append(checks, c), nil
	}
	add("discovery", CheckOK, "", "%s describes itself, and by the name that is configured.", p.c.Issuer)
	checks = append(checks, p.examineClock(ctx))
	if body, _, err := p.get(ctx, m.JWKSURI, "", maxDocument); err != nil {
		add("jwks", CheckFailed, "Look into why "+m.JWKSURI+" cannot be read; AWS has to read it too.", "The provider's keys cannot be read: %v.", err)
	} else if keys, err := parseKeys(body); err != nil {
		add("jwks", CheckFailed, "Look into what is at "+m.JWKSURI+".", "The provider's keys cannot be used: %v.", err)
	} else {
		add("jwks", CheckOK, "", "%d keys are published.", len(keys))
	}
	return checks, m
}

// failed turns a refusal into a check: its sentence, and what was behind it. A
// fault is of the way to the provider.
func failed(id string, err error) Check {
	c := Check{ID: id, State: CheckFailed, Text: err.Error(),
		Mend: "Let the bridge reach every address of the identity provider that its description names: look at egress rules and network policies."}
	if r, ok := errors.AsType[*serval.Refusal](err); ok {
		c.Mend = r.Reason
		c.Text = strings.TrimPrefix(err.Error(), r.Reason)
		c.Text = strings.Trim(c.Text, " ()")
		if c.Text == "" {
			c.Text = r.Reason
		}
	}
	return c
}

// examineReach looks the provider up and shakes hands with it, so that a name
// that does not resolve is told from a certificate that does not hold.
func (p *Provider) examineReach(ctx context.Context) []Check {
	u, err := url.Parse(p.c.Issuer)
	if err != nil || p.c.HTTPClient != nil {
		return nil
	}
	if proxy, err := http.ProxyFromEnvironment(&http.Request{URL: u}); err == nil && proxy != nil {
		// Neither has the name to be known here nor the way to be open.
		return []Check{{"proxy", CheckOK, "The provider is asked through the proxy " + proxy.Host + ", as HTTPS_PROXY has it.", ""}}
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	host, port := u.Hostname(), u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	addresses, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return []Check{{"dns", CheckFailed, fmt.Sprintf("%s has no address: %v.", host, err), "Check SERVAL_OIDC_ISSUER, and the cluster's DNS."}}
	}
	checks := []Check{{"dns", CheckOK, fmt.Sprintf("%s is at %s.", host, strings.Join(addresses, ", ")), ""}}
	at := net.JoinHostPort(host, port)
	var conn net.Conn
	if u.Scheme == "https" {
		conn, err = (&tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS12}}).DialContext(ctx, "tcp", at)
	} else {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", at)
	}
	if err != nil {
		_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
		mend := "Let the bridge reach " + at + ": look at egress rules and network policies. It uses HTTPS_PROXY where that is set."
		if untrusted {
			mend = "Give the bridge the certificate authority that signed for " + host + ", or mend the certificate. AWS checks it too, against public authorities."
		}
		return append(checks, Check{"tls", CheckFailed, fmt.Sprintf("%s does not take a connection: %v.", at, err), mend})
	}
	conn.Close()
	if u.Scheme == "https" {
		checks = append(checks, Check{"tls", CheckOK, at + " has a certificate that holds.", ""})
	}
	return checks
}

// examineClock compares our clock with the provider's.
func (p *Provider) examineClock(ctx context.Context) Check {
	const mend = "Set the clock of the bridge's machine, by NTP; tokens are refused that come from the future."
	before := p.now()
	_, header, err := p.get(ctx, p.wellKnown(), "", maxDocument)
	if err != nil {
		return failed("clock", err)
	}
	theirs, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		return Check{"clock", CheckWarn, "The provider does not say what time it is.", "Compare the clocks by hand."}
	}
	// The header has whole seconds, and the answer took a while.
	ours := before.Add(p.now().Sub(before) / 2)
	apart := theirs.Add(500 * time.Millisecond).Sub(ours)
	said := fmt.Sprintf("The provider's clock and ours are %s apart.", apart.Abs().Round(time.Second))
	switch {
	case apart.Abs() > maxSkew:
		return Check{"clock", CheckFailed, said, mend}
	case apart.Abs() > maxSkew/2:
		return Check{"clock", CheckWarn, said, mend}
	}
	return Check{"clock", CheckOK, said, ""}
}

// examineClient asks the token endpoint for a token by a code that nobody was
// given: a provider that knows our credentials minds the code, and one that does
// not minds those.
func (p *Provider) examineClient(ctx context.Context, m *metadata) Check {
	const id = "client_secret"
	if len(m.TokenAuth) > 0 && !slices.Contains(m.TokenAuth, "client_secret_basic") {
		return Check{id, CheckFailed, "The provider does not take client_secret_basic: " + serval.Clip(strings.Join(m.TokenAuth, ", "), 200) + ".",
			"Use a provider, or an authorization server of it, that does."}
	}
	_, err := p.ask(ctx, func(ctx context.Context) (*oauth2.Token, error) {
		return p.at(m).Exchange(ctx, "serval-doctor-"+oauth2.GenerateVerifier(), oauth2.VerifierOption(oauth2.GenerateVerifier()))
	})
	r, refused := errors.AsType[*serval.Refusal](err)
	switch {
	case err == nil:
		return Check{id, CheckFailed, "The provider gave a token for a code that it never gave out.", "Do not use this provider."}
	case refused && r.Detail["cause"] == CauseCode:
		return Check{id, CheckOK, "The provider accepts client id and secret.", ""}
	case refused && (r.Detail["cause"] == CauseClient || r.Detail["cause"] == CauseAway):
		return failed(id, err)
	default:
		return Check{id, CheckWarn, "The provider's answer does not tell whether it accepts client id and secret: " + err.Error() + ".",
			"Try to sign in; if that fails, check SERVAL_OIDC_CLIENT_ID and SERVAL_OIDC_CLIENT_SECRET."}
	}
}

// examineRedirect asks the authorization endpoint, as a browser in which nobody
// is signed in would. Only to a redirect URI that is registered for the client
// does a provider send anybody back, with whatever answer (RFC 6749, section
// 4.1.2.1).
func (p *Provider) examineRedirect(ctx context.Context, m *metadata) Check {
	const id = "redirect_uri"
	mend := "Register exactly " + p.c.RedirectURL + " as sign-in redirect URI of the app, and check SERVAL_OIDC_CLIENT_ID and SERVAL_PUBLIC_URL."
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	nonce := oauth2.GenerateVerifier()
	ask := p.at(m).AuthCodeURL(oauth2.GenerateVerifier(), oauth2.S256ChallengeOption(oauth2.GenerateVerifier()),
		oauth2.SetAuthURLParam("nonce", nonce), oauth2.SetAuthURLParam("prompt", "none"))
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, ask, nil)
	if err != nil {
		return failed(id, err)
	}
	once := *p.client
	once.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	answer, err := once.Do(r)
	if err != nil {
		return failed(id, cleanFault("asking the authorization endpoint", err))
	}
	answer.Body.Close()
	to, query, _ := strings.Cut(answer.Header.Get("Location"), "?")
	if to == p.c.RedirectURL && answer.StatusCode >= 300 && answer.StatusCode < 400 {
		values, _ := url.ParseQuery(query) // what cannot be read has no error
		refused := providerError(values.Get("error"))
		if values.Get("error") == "" || serval.IsRefusal(refused, serval.LoginRequired) {
			return Check{id, CheckOK, "The provider sends people back to " + p.c.RedirectURL + ".", ""}
		}
		return failed(id, refused)
	}
	if answer.StatusCode >= 400 {
		return Check{id, CheckFailed, fmt.Sprintf("The provider answers a sign-in with %d, and sends nobody back.", answer.StatusCode), mend}
	}
	return Check{id, CheckWarn, fmt.Sprintf("The provider answers a sign-in with %d; whether it knows the redirect URI cannot be told without signing in.", answer.StatusCode),
		"Try to sign in. If the provider complains about the redirect URI: " + mend}
}

// examineScopes compares what is asked for with what the provider says it knows.
func (p *Provider) examineScopes(m *metadata) Check {
	var unknown []string
	for _, s := range p.c.Scopes {
		if len(m.Scopes) > 0 && !slices.Contains(m.Scopes, s) {
			unknown = append(unknown, s)
		}
	}
	if len(unknown) > 0 {
		return Check{"scopes", CheckWarn, "The provider does not list the scopes " + strings.Join(unknown, ", ") + ".",
			"Where it answers invalid_scope, take them out of SERVAL_OIDC_SCOPES, or switch SERVAL_OIDC_OFFLINE off."}
	}
	return Check{"scopes", CheckOK, "The provider knows the scopes " + strings.Join(p.c.Scopes, ", ") + ".", ""}
}
