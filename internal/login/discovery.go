package login

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// How long discovery lasts, and how soon a failed one is tried again.
const (
	metadataLife = 24 * time.Hour
	firstRetry   = time.Second
	lastRetry    = 30 * time.Second // nobody can sign in until then
	idleRetry    = 15 * time.Minute // the last good document still serves
)

// elsewhere names, by issuer host, the hosts that large providers keep their
// endpoints on although the issuer is another.
var elsewhere = map[string][]string{
	"accounts.google.com":       {"oauth2.googleapis.com", "openidconnect.googleapis.com", "www.googleapis.com"},
	"login.microsoftonline.com": {"graph.microsoft.com"},
	"login.microsoftonline.us":  {"graph.microsoft.us"},
}

// metadata is what we use of OpenID Connect Discovery 1.0, section 3.
type metadata struct {
	Issuer                string   `json:"issuer"`
	AuthorizationEndpoint string   `json:"authorization_endpoint"`
	TokenEndpoint         string   `json:"token_endpoint"`
	UserInfoEndpoint      string   `json:"userinfo_endpoint"`
	JWKSURI               string   `json:"jwks_uri"`
	Algorithms            []string `json:"id_token_signing_alg_values_supported"`
	CallbackIss           bool     `json:"authorization_response_iss_parameter_supported"`
	TokenAuth             []string `json:"token_endpoint_auth_methods_supported"`
	Scopes                []string `json:"scopes_supported"`
}

// discovery keeps the provider's metadata.
type discovery struct {
	turn turn // held while fetching

	mu       sync.Mutex
	metadata *metadata
	readAt   time.Time
	failures int
	retryAt  time.Time
	fault    error // of the last fetch, if it failed
}

// Ready reports whether sign-in can work: nil once the provider's metadata and
// keys have been read. It reads them if that is due.
func (p *Provider) Ready(ctx context.Context) error {
	m, err := p.metadata(ctx)
	if err != nil {
		return err
	}
	_, _, err = p.keys.current(ctx, p, m.JWKSURI)
	return err
}

// metadata returns the provider's metadata, read at most a day ago or, while
// the provider is away, whenever it was last read.
func (p *Provider) metadata(ctx context.Context) (*metadata, error) {
	d := &p.found
	m, due, err := d.state(p.now())
	if !due {
		return m, err
	}
	if m != nil {
		// The document still serves: one caller reads it again, nobody waits.
		select {
		case d.turn <- struct{}{}:
		default:
			return m, nil
		}
	} else {
		select {
		case d.turn <- struct{}{}:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for discovery: %w", ctx.Err())
		}
	}
	defer func() { <-d.turn }()
	if m, due, err = d.state(p.now()); !due {
		return m, err
	}
	// What is read is for everybody, so the caller's end does not end it.
	fresh, err := p.discover(context.WithoutCancel(ctx))
	d.keep(fresh, err, p.now())
	m, _, err = d.state(p.now())
	return m, err
}

// state returns what is known, and whether it is time to ask again.
func (d *discovery) state(now time.Time) (m *metadata, due bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	age := now.Sub(d.readAt)
	switch {
	case d.metadata != nil && 0 <= age && age < metadataLife:
		return d.metadata, false, nil
	case d.metadata != nil:
		return d.metadata, !now.Before(d.retryAt), nil
	default:
		return nil, !now.Before(d.retryAt), d.fault
	}
}

// keep records what came of a fetch. A failed one never replaces a good one.
func (d *discovery) keep(fresh *metadata, err error, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		d.metadata, d.readAt, d.failures, d.retryAt, d.fault = fresh, now, 0, time.Time{}, nil
		return
	}
	wait := min(firstRetry<<min(d.failures, 20), lastRetry)
	if d.metadata != nil {
		wait = idleRetry
	}
	d.failures++
	d.retryAt, d.fault = now.Add(wait), err
}

func (p *Provider) wellKnown() string {
	return strings.TrimSuffix(p.c.Issuer, "/") + "/.well-known/openid-configuration"
}

// discover reads the discovery document and refuses one that is not the
// issuer's, or that leads elsewhere.
func (p *Provider) discover(ctx context.Context) (*metadata, error) {
	const doing = "reading the identity provider's discovery document"
	body, _, err := p.get(ctx, p.wellKnown(), "", maxDocument)
	if err != nil {
		return nil, because(refuse(serval.Unavailable, CauseDiscovery,
			"The identity provider does not answer, so nobody can sign in. Try again in a minute.%s", issuerAdvice(p.c.Issuer, "")),
			fmt.Errorf("%s: %w", doing, err))
	}
	unusable := func(format string, args ...any) error {
		return because(refuse(serval.Unavailable, CauseDiscovery,
			"The identity provider's description of itself is not usable, so nobody can sign in. An admin should check SERVAL_OIDC_ISSUER.%s",
			issuerAdvice(p.c.Issuer, "")),
			fmt.Errorf(doing+": "+format, args...))
	}
	var m metadata
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, unusable("it is not the JSON we expect")
	}
	if m.Issuer != p.c.Issuer {
		return nil, because(refuse(serval.Unavailable, CauseDiscovery,
			"The identity provider goes by another name than the one configured, so nobody can sign in. "+
				"An admin should set SERVAL_OIDC_ISSUER to exactly what its discovery document says; a trailing slash counts.%s",
			issuerAdvice(p.c.Issuer, m.Issuer)),
			fmt.Errorf("%s: it says issuer %.200q, configured is %q", doing, m.Issuer, p.c.Issuer))
	}
	for _, e := range []struct {
		name, url string
		optional  bool
	}{
		{"authorization_endpoint", m.AuthorizationEndpoint, false},
		{"token_endpoint", m.TokenEndpoint, false},
		{"jwks_uri", m.JWKSURI, false},
		{"userinfo_endpoint", m.UserInfoEndpoint, true},
	} {
		if e.url == "" && e.optional {
			continue
		}
		if err := p.checkEndpoint(e.url); err != nil {
			return nil, unusable("its %s %.200q %w", e.name, e.url, err)
		}
	}
	if len(m.Algorithms) > 0 && !slices.ContainsFunc(m.Algorithms, func(a string) bool { return slices.Contains(p.c.Algorithms, a) }) {
		return nil, unusable("it signs with none of %s", strings.Join(p.c.Algorithms, ", "))
	}
	return &m, nil
}

// checkEndpoint reports what is wrong with an endpoint's URL: it must be https
// on the issuer's host or a configured one. Over http it must be the issuer's
// own loopback host.
func (p *Provider) checkEndpoint(endpoint string) error {
	if err := checkURL(endpoint); err != nil {
		return err
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return errors.New("is not a URL")
	}
	issuer, err := url.Parse(p.c.Issuer)
	if err != nil {
		return errors.New("cannot be compared with the issuer")
	}
	switch {
	case issuer.Scheme == "https" && u.Scheme != "https":
		return errors.New("is not https")
	case u.Host == issuer.Host, slices.Contains(p.c.Hosts, u.Host), slices.Contains(elsewhere[issuer.Host], u.Host):
		return nil
	default:
		return errors.New("is on another host than the issuer, and that host is not configured")
	}
}

// get reads a document from the provider: 200, at most limit bytes, within
// callTimeout. The error holds nothing of the body.
func (p *Provider) get(ctx context.Context, from, bearer string, limit int64) (body []byte, header http.Header, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, nil, errors.New("the URL cannot be asked")
	}
	r.Header.Set("Accept", "application/json")
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	answer, err := p.client.Do(r)
	if err != nil {
		return nil, nil, cleanFault("asking", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("the answer is %d", answer.StatusCode)
	}
	body, err = io.ReadAll(io.LimitReader(answer.Body, limit+1))
	switch {
	case err != nil:
		return nil, nil, cleanFault("reading the answer", err)
	case int64(len(body)) > limit:
		return nil, nil, fmt.Errorf("the answer is longer than %d bytes", limit)
	}
	return body, answer.Header, nil
}
