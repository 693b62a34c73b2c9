package login

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/idptest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// Each thing that can be configured wrongly is found, by the one check that it
// is of, and with what mends it.
func TestExamine(t *testing.T) {
	at := func(f func(*idptest.Misbehaviour)) func(*world) { return func(w *world) { w.idp.Misbehave(f) } }
	for _, test := range []struct {
		name   string
		change func(*idptest.Options, *Config)
		wrong  func(*world)
		check  string // that fails or warns; "" for none
		state  string
		says   string
		mends  string
	}{
		{"all is well", nil, nil, "", "", "", ""},
		{"offline", func(_ *idptest.Options, c *Config) { c.Offline = true }, nil, "", "", "", ""},
		{"down", nil, at(func(m *idptest.Misbehaviour) { m.AtDiscovery = idptest.Answer{Status: 503, Body: "x"} }), "discovery", CheckFailed, "503", "does not answer"},
		{"HTML", nil, at(func(m *idptest.Misbehaviour) { m.AtDiscovery = idptest.Answer{Body: "<html>"} }), "discovery", CheckFailed, "not the JSON", "SERVAL_OIDC_ISSUER"},
		{"another issuer", nil, at(func(m *idptest.Misbehaviour) {
			m.Discovery = func(d map[string]any) { d["issuer"] = "https://other.example.com/" }
		}), "discovery", CheckFailed, `"https://other.example.com/"`, "trailing slash"},
		{"keys away", nil, at(func(m *idptest.Misbehaviour) { m.AtJWKS = idptest.Answer{Status: 500, Body: "x"} }), "jwks", CheckFailed, "500", "AWS has to read it too"},
		{"no usable key", nil, at(func(m *idptest.Misbehaviour) { m.AtJWKS = idptest.Answer{Body: `{"keys":[]}`} }), "jwks", CheckFailed, "no usable key", ""},
		{"wrong secret", func(_ *idptest.Options, c *Config) { c.ClientSecret = serval.NewSecret("another") }, nil, "client_secret", CheckFailed, "invalid_client", "SERVAL_OIDC_CLIENT_SECRET"},
		{"no client_secret_basic", nil, at(func(m *idptest.Misbehaviour) {
			m.Discovery = func(d map[string]any) { d["token_endpoint_auth_methods_supported"] = []string{"private_key_jwt"} }
		}), "client_secret", CheckFailed, "private_key_jwt", "authorization server"},
		{"a token for nothing", nil, at(func(m *idptest.Misbehaviour) {
			m.AtToken = idptest.Answer{Body: `{"access_token":"a","token_type":"Bearer"}`}
		}), "client_secret", CheckFailed, "never gave out", "Do not use"},
		{"an odd token endpoint", nil, at(func(m *idptest.Misbehaviour) {
			m.AtToken = idptest.Answer{Status: 400, Body: `{"error":"odd"}`}
		}), "client_secret", CheckWarn, "does not tell", "Try to sign in"},
		{"unregistered redirect URI", func(o *idptest.Options, _ *Config) { o.RedirectURIs = []string{testRedirect + "/"} }, nil, "redirect_uri", CheckFailed, "400", testRedirect},
		{"no code flow", nil, at(func(m *idptest.Misbehaviour) { m.Error = "unauthorized_client" }), "redirect_uri", CheckFailed, "grant types", "grant types"},
		{"a page of the provider's own", nil, at(func(m *idptest.Misbehaviour) { m.AtAuthorize = idptest.Answer{Body: "<html>"} }), "redirect_uri", CheckWarn, "200", "Try to sign in"},
		{"sent elsewhere", nil, at(func(m *idptest.Misbehaviour) {
			m.AtAuthorize = idptest.Answer{Status: 303, Body: "x", Header: http.Header{"Location": {testRedirect + ".example.com/?error=login_required"}}}
		}), "redirect_uri", CheckWarn, "303", "Try to sign in"},
		{"a provider that says little of itself", nil, at(func(m *idptest.Misbehaviour) {
			m.Discovery = func(d map[string]any) {
				delete(d, "token_endpoint_auth_methods_supported")
				delete(d, "scopes_supported")
			}
		}), "", "", "", ""},
		{"a token endpoint that is away", nil, at(func(m *idptest.Misbehaviour) {
			m.AtToken = idptest.Answer{Status: 503, Body: "x"}
		}), "client_secret", CheckFailed, "503", "a problem of its own"},
		{"a code at once", nil, at(func(m *idptest.Misbehaviour) {
			m.AtAuthorize = idptest.Answer{Status: 303, Body: "x", Header: http.Header{"Location": {testRedirect + "?code=x"}}}
		}), "", "", "", ""},
		{"an unknown scope", func(_ *idptest.Options, c *Config) { c.Scopes = []string{"openid", "payroll"} }, nil, "scopes", CheckWarn, "payroll", "SERVAL_OIDC_SCOPES"},
		{"a clock ahead", nil, func(w *world) { w.clock.Advance(61 * time.Second) }, "clock", CheckFailed, "1m", "NTP"},
		{"a clock behind", nil, func(w *world) { w.clock.Advance(-62 * time.Second) }, "clock", CheckFailed, "1m", "NTP"},
		{"a clock somewhat behind", nil, func(w *world) { w.clock.Advance(-45 * time.Second) }, "clock", CheckWarn, "apart", "NTP"},
		{"an issuer that is hardly one", func(o *idptest.Options, c *Config) {
			o.Issuer, c.Issuer = "https://acme.okta.com/", "https://acme.okta.com/"
		}, nil, "issuer", CheckWarn, "does not look like an issuer", "no slash"},
		{"no clock", nil, func(w *world) {
			w.between(func(_ *http.Request, res *http.Response) error { res.Header.Del("Date"); return nil })
		}, "clock", CheckWarn, "does not say what time", "by hand"},
		{"away when asked again", nil, func(w *world) {
			asked := 0
			w.between(func(r *http.Request, _ *http.Response) error {
				if strings.Contains(r.URL.Path, ".well-known") {
					asked++
				}
				if asked == 2 {
					asked++
					return errors.New("gone")
				}
				return nil
			})
		}, "clock", CheckFailed, "asking: gone", "egress"},
		{"nobody at the authorization endpoint", nil, func(w *world) {
			w.between(func(r *http.Request, _ *http.Response) error {
				if r.URL.Query().Get("prompt") == "none" {
					return errors.New("gone")
				}
				return nil
			})
		}, "redirect_uri", CheckFailed, "asking the authorization endpoint", "egress"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, func(o *idptest.Options, c *Config) {
				o.Issuer, c.Issuer = "https://idp.example.com", "https://idp.example.com"
				if test.change != nil {
					test.change(o, c)
				}
			})
			// The fake's answers carry our clock as it was.
			now := w.clock.Now().UTC().Format(http.TimeFormat)
			dated := w.p.client.Transport
			w.p.client.Transport = transport(func(r *http.Request) (*http.Response, error) {
				res, err := dated.RoundTrip(r)
				if err == nil {
					res.Header.Set("Date", now)
				}
				return res, err
			})
			if test.wrong != nil {
				test.wrong(w)
			}
			checks := w.p.Examine(t.Context())
			w.idp.Complaints() // of a code that it never gave out, which is the point
			if len(checks) == 0 {
				t.Fatal("nothing was checked")
			}
			found := test.check == ""
			for _, c := range checks {
				if strings.Contains(fmt.Sprint(c), testSecret) {
					t.Errorf("%+v holds a secret", c)
				}
				if c.ID == test.check {
					found = true
					if c.State != test.state || !strings.Contains(c.Text, test.says) || !strings.Contains(c.Mend, test.mends) || c.Mend == "" {
						t.Errorf("got %+v, want %s that says %q and mends by %q", c, test.state, test.says, test.mends)
					}
				} else if c.State != CheckOK || c.Mend != "" || c.Text == "" {
					t.Errorf("got %+v, want it fine", c)
				}
			}
			if !found {
				t.Errorf("checks are %+v, want %s among them", checks, test.check)
			}
		})
	}
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// between has f look at each answer of the provider, and do away with it.
func (w *world) between(f func(*http.Request, *http.Response) error) {
	before := w.p.client.Transport
	w.p.client.Transport = transport(func(r *http.Request) (*http.Response, error) {
		res, err := before.RoundTrip(r)
		if err == nil {
			if err = f(r, res); err != nil {
				res.Body.Close()
				res = nil
			}
		}
		return res, err
	})
}

// What cannot be reached is told apart: a name, a connection, a certificate.
func TestExamineReach(t *testing.T) {
	idp := idptest.New(idptest.Options{ClientID: testClient, ClientSecret: testSecret})
	issuer := idp.Start(t)
	secure := strings.Replace(issuer, "http://", "https://", 1)
	untrusted := httptest.NewUnstartedServer(http.NotFoundHandler())
	untrusted.Config.ErrorLog = log.New(io.Discard, "", 0) // of the handshake that is broken off
	untrusted.StartTLS()
	defer untrusted.Close()
	for issuer, test := range map[string]struct{ want, says, mends string }{
		issuer:                          {"dns ok", "is at 127.0.0.1", ""},
		secure:                          {"tls fail", "does not take a connection", "egress"},
		untrusted.URL:                   {"tls fail", "certificate", "certificate authority that signed"},
		"http://127.0.0.1:1":            {"tls fail", "127.0.0.1:1 does not", "egress"},
		"https://nobody.invalid/oauth2": {"dns fail", "no address", "SERVAL_OIDC_ISSUER"},
	} {
		if strings.Contains(issuer, "nobody") && os.Getenv("HTTPS_PROXY")+os.Getenv("https_proxy") != "" {
			continue // whatever the name, this machine asks its proxy
		}
		p, err := New(Config{Issuer: issuer, ClientID: testClient, ClientSecret: serval.NewSecret(testSecret), RedirectURL: testRedirect})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.client.CloseIdleConnections)
		checks := p.examineReach(t.Context())
		if len(checks) == 0 {
			t.Fatalf("%s: nothing was checked", issuer)
		}
		last := checks[len(checks)-1]
		if got := last.ID + " " + last.State; got != test.want || !strings.Contains(last.Text, test.says) || !strings.Contains(last.Mend, test.mends) || (last.Mend == "") != (last.State == CheckOK) {
			t.Errorf("%s: %+v, want %+v", issuer, last, test)
		}
	}
}

// An issuer without a port is at its scheme's.
func TestExamineReachPort(t *testing.T) {
	p, err := New(Config{Issuer: "http://127.0.0.1", ClientID: testClient, ClientSecret: serval.NewSecret(testSecret), RedirectURL: testRedirect})
	if err != nil {
		t.Fatal(err)
	}
	checks := p.examineReach(t.Context())
	if last := checks[len(checks)-1]; last.State != CheckOK && !strings.Contains(last.Text, "127.0.0.1:80 does not") { // somebody may be there
		t.Errorf("%+v, want port 80", last)
	}
}

func TestIssuerNote(t *testing.T) {
	for issuer, want := range map[string]string{
		"https://acme.okta.com": "", "https://acme.okta.com/oauth2/default": "", "https://acme.okta.com/oauth2/aus1": "", "https://login.acme.com": "",
		"https://acme.okta.com/oauth2":                           "https://acme.okta.com/oauth2/default",
		"https://acme.okta.com/oauth2/":                          "no issuer",
		"https://acme.okta.com/oauth2/v1":                        "no issuer",
		"https://acme.okta.com/oauth2/v1/token":                  "no issuer",
		"https://acme.okta.com/":                                 "no slash at its end: https://acme.okta.com.",
		"https://acme.okta.com/oauth2/default/":                  "no slash",
		"https://acme.okta.com/app/serval":                       "Okta's issuer is https://acme.okta.com,",
		"https://acme-admin.okta.com":                            "Use https://acme.okta.com,",
		"https://acme.okta.com/.well-known/openid-configuration": "stands before",
		"https://login.microsoftonline.com/6c1e/v2.0":            "", "https://login.microsoftonline.com/6c1e": "/6c1e/v2.0", "https://login.microsoftonline.com/6c1e/v2.0/": "without a slash",
		"https://login.microsoftonline.com/common/v2.0": "one tenant", "https://sts.windows.net/6c1e/": "older tokens",
		"https://accounts.google.com": "", "https://accounts.google.com/": "without a slash",
		"https://acme.eu.auth0.com/": "", "https://acme.eu.auth0.com": "ends with a slash",
		"https://oauth.id.jumpcloud.com/": "", "https://oauth.id.jumpcloud.com": "ends with a slash",
		"https://acme.onelogin.com/oidc/2": "", "https://acme.onelogin.com/oidc": "/oidc/2", "https://openid-connect.onelogin.com/oidc": "retired",
		"https://sso.acme.com/realms/acme": "", "https://sso.acme.com/auth/realms/acme": "https://sso.acme.com/realms/acme.",
		"https://login.microsoftonline.com/": "one tenant", "https://login.microsoftonline.us/organizations/v2.0": "one tenant", "https://login.microsoftonline.com/consumers/v2.0": "one tenant",
		"http://accounts.google.com": "Google's issuer", "https://openid-connect-eu.onelogin.com/oidc": "retired",
		"": "", "%": "",
	} {
		if got := IssuerNote(issuer); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%q: %q, want a note with %q", issuer, got, want)
		}
	}
	// The page says it too.
	for said, want := range map[string]string{
		"https://acme.okta.com/oauth2/default": "org authorization server and its custom ones",
		"https://other.okta.com":               "",
	} {
		w := newWorld(t, func(o *idptest.Options, c *Config) {
			o.Issuer, c.Issuer = "https://acme.okta.com", "https://acme.okta.com"
		})
		w.idp.Misbehave(func(m *idptest.Misbehaviour) { m.Discovery = func(d map[string]any) { d["issuer"] = said } })
		_, _, err := w.p.Begin(t.Context(), Prompt{})
		wantCause(t, err, CauseDiscovery)
		if err == nil || !strings.Contains(err.Error(), want) || want == "" && strings.Contains(err.Error(), "custom ones") {
			t.Errorf("the provider goes by %s: %v, want it to say %q", said, err, want)
		}
	}
}

// The pages on providers show issuers that are right.
func TestDocumentedIssuers(t *testing.T) {
	pages, err := filepath.Glob("../../docs/idp/*.md")
	if err != nil || len(pages) != 8 {
		t.Fatalf("%d pages, %v; want the index and seven providers", len(pages), err)
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(`(?m)^SERVAL_OIDC_ISSUER=(.*)$`).FindAllSubmatch(text, -1)
		if len(found) == 0 && filepath.Base(page) != "README.md" {
			t.Errorf("%s shows no issuer", page)
		}
		for _, m := range found {
			if note := IssuerNote(strings.ReplaceAll(string(m[1]), "<tenant id>", "6c1e")); note != "" {
				t.Errorf("%s: the issuer %s is not right: %s", page, m[1], note)
			}
		}
	}
}
