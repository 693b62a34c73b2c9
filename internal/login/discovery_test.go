package login

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/idptest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// S-52: a provider that is away when we start is found by itself, asked ever
// more slowly, and all the while sign-in is refused as unavailable.
func TestS52_ProviderAwayAtStart(t *testing.T) {
	w := newWorld(t, nil)
	undo := w.idp.Misbehave(func(m *idptest.Misbehaviour) { m.AtDiscovery = idptest.Answer{Status: 503, Body: "down"} })
	fail := func(calls int) {
		t.Helper()
		_, _, err := w.p.Begin(t.Context(), Prompt{})
		wantCause(t, err, CauseDiscovery)
		if !serval.IsRefusal(w.p.Ready(t.Context()), serval.Unavailable) {
			t.Errorf("ready although the provider is away")
		}
		if got := w.idp.Calls("discovery"); got != calls {
			t.Errorf("%d discovery calls by now, want %d", got, calls)
		}
	}
	fail(1)
	for i, wait := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		w.clock.Advance(wait*time.Second - time.Millisecond)
		fail(i + 1)
		w.clock.Advance(time.Millisecond)
		fail(i + 2)
	}
	undo()
	w.clock.Advance(lastRetry)
	if err := w.p.Ready(t.Context()); err != nil {
		t.Errorf("not ready although the provider is back: %v", err)
	}
	if _, err := w.signIn(); err != nil {
		t.Errorf("signing in after the provider came back: %v", err)
	}
}

// S-52: the document is read again daily, and the last good one serves while
// that fails.
func TestS52_DailyAgain(t *testing.T) {
	w := newWorld(t, nil)
	if err := w.p.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	undo := w.idp.Misbehave(func(m *idptest.Misbehaviour) { m.AtDiscovery = idptest.Answer{Status: 500, Body: "x"} })
	for _, step := range []struct {
		after time.Duration
		calls int
	}{{metadataLife - time.Second, 1}, {time.Second, 2}, {idleRetry - time.Second, 2}, {time.Second, 3}} {
		w.clock.Advance(step.after)
		w.begin()
		if got := w.idp.Calls("discovery"); got != step.calls {
			t.Errorf("%d discovery calls by now, want %d", got, step.calls)
		}
	}
	undo()
	w.clock.Advance(idleRetry)
	w.begin()
	w.begin()
	if got := w.idp.Calls("discovery"); got != 4 {
		t.Errorf("%d discovery calls after the provider came back, want 4", got)
	}
	// What a clock that went back calls read later than now is of no known age.
	w.clock.Advance(-time.Second)
	w.begin()
	if got := w.idp.Calls("discovery"); got != 5 {
		t.Errorf("%d discovery calls after the clock went back, want 5", got)
	}
	// Where somebody is asking, nobody else waits for that.
	w.clock.Advance(metadataLife)
	w.p.found.turn <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := w.p.Begin(ctx, Prompt{}); err != nil {
		t.Errorf("while another asks: %v", err)
	}
	<-w.p.found.turn
}

// S-52: a provider need not say which algorithms it signs with.
func TestS52_NoAlgorithms(t *testing.T) {
	w := newWorld(t, nil)
	w.idp.Misbehave(func(m *idptest.Misbehaviour) {
		m.Discovery = func(d map[string]any) { delete(d, "id_token_signing_alg_values_supported") }
	})
	if _, err := w.signIn(); err != nil {
		t.Error(err)
	}
}

// S-52: the issuer must be the very same, and no endpoint may lead elsewhere.
func TestS52_Document(t *testing.T) {
	change := func(name string, value any) func(*idptest.Misbehaviour) {
		return func(m *idptest.Misbehaviour) {
			m.Discovery = func(d map[string]any) { d[name] = value }
		}
	}
	body := func(text string) func(*idptest.Misbehaviour) {
		return func(m *idptest.Misbehaviour) { m.AtDiscovery.Body = text }
	}
	for name, wrong := range map[string]func(*idptest.Misbehaviour){
		"another issuer":          change("issuer", "https://another.example.com"),
		"issuer of no text":       change("issuer", 5),
		"no issuer":               change("issuer", nil),
		"no authorization":        change("authorization_endpoint", ""),
		"no token endpoint":       change("token_endpoint", ""),
		"no keys":                 change("jwks_uri", ""),
		"keys elsewhere":          change("jwks_uri", "https://evil.example.com/jwks"),
		"keys on another port":    change("jwks_uri", "http://127.0.0.1:1/jwks"),
		"token endpoint http":     change("token_endpoint", "http://evil.example.com/token"),
		"authorization elsewhere": change("authorization_endpoint", "https://evil.example.com/authorize"),
		"userinfo elsewhere":      change("userinfo_endpoint", "https://evil.example.com/userinfo"),
		"a user name in the URL":  change("token_endpoint", "http://x@127.0.0.1/token"),
		"a fragment":              change("authorization_endpoint", "http://127.0.0.1/a#b"),
		"a script":                change("authorization_endpoint", "javascript:alert(1)"),
		"other algorithms only":   change("id_token_signing_alg_values_supported", []string{"HS256", "PS256"}),
		"HTML":                    body("<html>sign in to the network</html>"),
		"issuer twice":            body(`{"issuer":"a","issuer":"b"}`),
		"over a MB":               body(`{"issuer":"` + strings.Repeat("x", maxDocument) + `"}`),
		"a redirect elsewhere": func(m *idptest.Misbehaviour) {
			m.AtDiscovery = idptest.Answer{Status: 302, Body: " ", Header: http.Header{"Location": {"https://evil.example.com/"}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.idp.Misbehave(wrong)
			_, _, err := w.p.Begin(t.Context(), Prompt{})
			wantCause(t, err, CauseDiscovery)
			if !serval.IsRefusal(err, serval.Unavailable) {
				t.Errorf("not refused as %s: %v", serval.Unavailable, err)
			}
		})
	}
}

// S-52: endpoints may live on hosts that are configured, or known of the
// issuer; over https they must all be https.
func TestS52_Hosts(t *testing.T) {
	tests := []struct {
		issuer, endpoint string
		hosts            []string
		ok               bool
	}{
		{"https://acme.okta.com", "https://acme.okta.com/oauth2/v1/token", nil, true},
		{"https://acme.okta.com", "http://acme.okta.com/oauth2/v1/token", nil, false},
		{"https://acme.okta.com", "http://127.0.0.1/token", nil, false},
		{"https://acme.okta.com", "https://acme.okta.com.evil.example/token", nil, false},
		{"https://acme.okta.com", "https://acme.okta.com:444/token", nil, false},
		{"https://id.example.com", "https://keys.example.com/jwks", nil, false},
		{"https://id.example.com", "https://keys.example.com/jwks", []string{"keys.example.com"}, true},
		{"https://id.example.com", "http://127.0.0.1/jwks", []string{"127.0.0.1"}, false},
		{"https://accounts.google.com", "https://www.googleapis.com/oauth2/v3/certs", nil, true},
		{"https://id.example.com", "https://www.googleapis.com/oauth2/v3/certs", nil, false},
		{"https://login.microsoftonline.com/t/v2.0", "https://graph.microsoft.com/oidc/userinfo", nil, true},
	}
	for _, tt := range tests {
		p, err := New(Config{
			Issuer: tt.issuer, ClientID: testClient, ClientSecret: serval.NewSecret("s"), RedirectURL: testRedirect, Hosts: tt.hosts,
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.checkEndpoint(tt.endpoint); (err == nil) != tt.ok {
			t.Errorf("endpoint %s of issuer %s with hosts %v: %v, want ok %t", tt.endpoint, tt.issuer, tt.hosts, err, tt.ok)
		}
	}
}

// S-53: an issuer with a path, and one with a slash at its end, are reached
// and compared as they are written.
func TestS53_IssuerWithPath(t *testing.T) {
	for _, issuer := range []string{"https://acme.okta.com/oauth2/default", "https://acme.auth0.com/"} {
		w := newWorld(t, at(issuer))
		id, err := w.signIn()
		if err != nil {
			t.Fatalf("signing in at %s: %v", issuer, err)
		}
		if id.Issuer != issuer {
			t.Errorf("issuer %q, want %q", id.Issuer, issuer)
		}
	}
}

// at moves the provider to an issuer that is reached in memory.
func at(issuer string) func(*idptest.Options, *Config) {
	return func(o *idptest.Options, c *Config) {
		c.Issuer = issuer
		o.Issuer = issuer
	}
}

// All faults of a configuration come at once.
func TestNewReportsEveryFault(t *testing.T) {
	_, err := New(Config{
		Issuer: "http://id.example.com", RedirectURL: "/oidc/auth/callback", Scopes: []string{"email", "a b", "offline_access"},
		Algorithms: []string{"HS256", "none"}, EmailVerified: "maybe", MaxAge: -time.Second, RequiredAMR: []string{""},
		EmailClaim: "sub2", GroupsClaim: "sub2", Hosts: []string{"https://x"},
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, part := range []string{
		"issuer", "https", "client id", "client secret", "redirect URL", "openid", "set Offline instead", `"a b"`, `"HS256"`, `"none"`, "maybe",
		"-1s", "authentication method", "sub2", `"https://x"`,
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the faults do not mention %s:\n%v", part, err)
		}
	}
	if faults, ok := err.(interface{ Unwrap() []error }); !ok || len(faults.Unwrap()) < 12 {
		t.Errorf("the faults are not given one by one")
	}
}

// Each fault is one by itself.
func TestNewReportsEachFault(t *testing.T) {
	config := func() Config {
		return Config{Issuer: "https://id.example.com", ClientID: testClient, ClientSecret: serval.NewSecret(testSecret), RedirectURL: testRedirect}
	}
	if _, err := New(config()); err != nil {
		t.Fatal(err)
	}
	for name, wrong := range map[string]func(*Config){
		"an empty scope":                func(c *Config) { c.Scopes = []string{"openid", ""} },
		"a scope beyond ASCII":          func(c *Config) { c.Scopes = []string{"openid", "é"} },
		"a scope with a quote":          func(c *Config) { c.Scopes = []string{"openid", `a"b`} },
		"a scope with a backslash":      func(c *Config) { c.Scopes = []string{"openid", `a\b`} },
		"an age of parts of a second":   func(c *Config) { c.MaxAge = 1500 * time.Millisecond },
		"the email in a registered one": func(c *Config) { c.EmailClaim = "iss" },
		"groups in a registered one":    func(c *Config) { c.GroupsClaim = "amr" },
		"a host with a path":            func(c *Config) { c.Hosts = []string{"a.example.com/b"} },
		"an empty host":                 func(c *Config) { c.Hosts = []string{""} },
	} {
		c := config()
		wrong(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestNewChecksURLs(t *testing.T) {
	for issuer, ok := range map[string]bool{
		"https://acme.okta.com":            true,
		"https://acme.okta.com/":           true,
		"http://127.0.0.1:8080":            true,
		"http://localhost:8080":            true,
		"http://[::1]:8080":                true,
		"http://127.0.0.1.evil.example":    false,
		"http://localhost.evil.example":    false,
		"http://10.0.0.1":                  false,
		"ftp://127.0.0.1":                  false,
		"https://":                         false,
		"https:acme.okta.com":              false,
		"https://user:pw@acme.okta.com":    false,
		"https://acme.okta.com?tenant=1":   false,
		"https://acme.okta.com/#fragment":  false,
		"https://acme.okta.com/#":          false,
		"ftp://acme.okta.com":              false,
		"":                                 false,
		"https://acme.okta.com/\x7f":       false,
		"https://acme.okta.com:port/":      false,
		"javascript://acme.okta.com/%0aal": false,
	} {
		_, err := New(Config{Issuer: issuer, ClientID: "c", ClientSecret: serval.NewSecret("s"), RedirectURL: testRedirect})
		if (err == nil) != ok {
			t.Errorf("issuer %q: %v, want ok %t", issuer, err, ok)
		}
	}
}

// Redirects stay at their host, and a POST is never redirected.
func TestStayAtHost(t *testing.T) {
	request := func(method, url string) *http.Request {
		r, err := http.NewRequest(method, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	get := request("GET", "https://id.example.com/a")
	tests := []struct {
		name string
		to   *http.Request
		via  []*http.Request
		ok   bool
	}{
		{"same host", request("GET", "https://id.example.com/b"), []*http.Request{get}, true},
		{"another host", request("GET", "https://id.example.org/b"), []*http.Request{get}, false},
		{"another port", request("GET", "https://id.example.com:8443/b"), []*http.Request{get}, false},
		{"down to http", request("GET", "http://id.example.com/b"), []*http.Request{get}, false},
		{"three times", request("GET", "https://id.example.com/b"), []*http.Request{get, get, get}, true},
		{"four times", request("GET", "https://id.example.com/b"), []*http.Request{get, get, get, get}, false},
		{"a POST", request("GET", "https://id.example.com/b"), []*http.Request{request("POST", "https://id.example.com/a")}, false},
	}
	for _, tt := range tests {
		if err := stayAtHost(tt.to, tt.via); (err == nil) != tt.ok {
			t.Errorf("%s: %v, want ok %t", tt.name, err, tt.ok)
		}
	}
	own := boundedClient(nil, nil)
	if own.Timeout == 0 || own.Jar != nil || own.CheckRedirect == nil || own.Transport.(*http.Transport).ResponseHeaderTimeout == 0 {
		t.Errorf("our own client has no deadlines or follows redirects: %+v", own)
	}
	given := boundedClient(&http.Client{Transport: http.DefaultTransport, Timeout: time.Hour}, nil)
	if given.Timeout != exchangeTimeout || given.CheckRedirect == nil {
		t.Errorf("a given client keeps its own deadline or redirects")
	}
}

var errRoundTrip = errors.New("no connection")

type away struct{}

func (away) RoundTrip(*http.Request) (*http.Response, error) { return nil, errRoundTrip }

// The fault behind an unreachable provider is kept for the log.
func TestReadyKeepsTheFault(t *testing.T) {
	p, err := New(Config{
		Issuer: "https://acme.okta.com", ClientID: "c", ClientSecret: serval.NewSecret("s"), RedirectURL: testRedirect,
		HTTPClient: &http.Client{Transport: away{}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Ready(t.Context()); !errors.Is(err, errRoundTrip) || !serval.IsRefusal(err, serval.Unavailable) {
		t.Errorf("Ready: %v, want a refusal with the fault behind it", err)
	}
}
