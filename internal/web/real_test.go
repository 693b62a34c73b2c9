package web_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"html"
	"io"
	"io/fs"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/serval-bridge/serval-bridge/internal/login"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/web"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// A realProvider is an OpenID provider that nobody here wrote: npm's
// oidc-provider, in a process of its own.
type realProvider struct {
	t      *testing.T
	issuer string
	orders io.Writer
	answer *bufio.Reader
}

// realSecret is the client's there; it has characters that HTTP Basic has to
// encode (RFC 6749, section 2.3.1).
const realSecret = canary + ": a+b/c=%&"

// startReal starts the provider for a client with the redirect URI. With full
// its ID tokens hold every claim; otherwise UserInfo does, as OpenID Connect Core
// has it.
func startReal(t *testing.T, redirectURI string, full bool) *realProvider {
	t.Helper()
	cache := os.Getenv("SERVAL_OIDC_PROVIDER")
	if cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			t.Fatal(err)
		}
		cache = filepath.Join(home, ".cache", "serval-tools", "oidc-provider-9.13.3")
	}
	missing := ""
	if _, err := os.Stat(filepath.Join(cache, "node_modules", "oidc-provider")); errors.Is(err, fs.ErrNotExist) {
		missing = "npm's oidc-provider is not installed: make oidc-provider"
	}
	if _, err := exec.LookPath("node"); err != nil {
		missing = "there is no node in PATH: Debian package nodejs"
	}
	if missing != "" {
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	dir := t.TempDir()
	text, err := os.ReadFile("testdata/oidc-provider/server.mjs")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "server.mjs"), text, 0o600), os.Symlink(filepath.Join(cache, "node_modules"), filepath.Join(dir, "node_modules"))); err != nil {
		t.Fatal(err)
	}
	claims := "conforming"
	if full {
		claims = "full"
	}
	node := exec.CommandContext(t.Context(), "node", "server.mjs", clientID, realSecret, redirectURI, claims)
	node.Dir, node.Env = dir, []string{"PATH=" + os.Getenv("PATH"), "NODE_ENV=test"}
	orders, err1 := node.StdinPipe()
	answers, err2 := node.StdoutPipe()
	var complaints strings.Builder
	node.Stderr = &complaints
	if err := errors.Join(err1, err2, node.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		orders.Close()
		_ = node.Wait() // the test's end has ended it, if nothing else has
		if t.Failed() {
			t.Log(complaints.String())
		}
	})
	p := &realProvider{t: t, orders: orders, answer: bufio.NewReader(answers)}
	var said struct{ Issuer string }
	if err := json.Unmarshal([]byte(p.line()), &said); err != nil {
		t.Fatalf("the provider did not start: %v: %s", err, complaints.String())
	}
	p.issuer = said.Issuer
	return p
}

// line returns the next line that the provider says and that is for us: it
// greets and warns on the same stream.
func (p *realProvider) line() string {
	for {
		text, err := p.answer.ReadString('\n')
		if err != nil || strings.HasPrefix(text, "{") || text == "done\n" {
			return text
		}
	}
}

// order tells the provider what to do, and waits until it has.
func (p *realProvider) order(word string) {
	p.t.Helper()
	if _, err := io.WriteString(p.orders, word+"\n"); err != nil {
		p.t.Fatal(err)
	}
	if got := p.line(); got != "done\n" {
		p.t.Fatalf("%s: the provider said %q", word, got)
	}
}

// client returns a browser's client, for the provider.
func (p *realProvider) client() *http.Client {
	p.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		p.t.Fatal(err)
	}
	return &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

var (
	formAction = regexp.MustCompile(`<form[^>]*action="([^"]+)"`)
	formField  = regexp.MustCompile(`<input[^>]*type="hidden"[^>]*name="([^"]+)"[^>]*value="([^"]*)"`)
)

// signIn goes through the provider's own pages as Ana, and returns where they
// send her back to, and the form of a form_post.
func (p *realProvider) signIn(client *http.Client, at, back string) (*url.URL, url.Values) {
	p.t.Helper()
	var form url.Values
	for range 12 {
		var res *http.Response
		var err error
		if form != nil {
			res, err = client.PostForm(at, form)
		} else {
			res, err = client.Get(at)
		}
		if err != nil {
			p.t.Fatal(err)
		}
		page, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			p.t.Fatal(err)
		}
		base, _ := url.Parse(at)
		form = nil
		if to := res.Header.Get("Location"); to != "" {
			next, err := base.Parse(to)
			if err != nil {
				p.t.Fatal(err)
			}
			if strings.HasPrefix(next.String(), back) {
				return next, nil
			}
			at = next.String()
			continue
		}
		action := formAction.FindSubmatch(page)
		if action == nil {
			p.t.Fatalf("the provider shows no form at %s: %d %.500s", at, res.StatusCode, page)
		}
		next, err := base.Parse(html.UnescapeString(string(action[1])))
		if err != nil {
			p.t.Fatal(err)
		}
		form = url.Values{}
		for _, m := range formField.FindAllSubmatch(page, -1) {
			form.Set(html.UnescapeString(string(m[1])), html.UnescapeString(string(m[2])))
		}
		if strings.HasPrefix(next.String(), back) {
			return next, form
		}
		if form.Get("prompt") == "login" {
			form.Set("login", "00u1ana")
			form.Set("password", "x")
		}
		at = next.String()
	}
	p.t.Fatal("the provider does not come to an end")
	return nil, nil
}

// A whole sign-in through the bridge, at a provider that nobody here wrote; its
// keys rotate without a failed one; a form_post is refused.
func TestRealProvider(t *testing.T) {
	for name, full := range map[string]bool{"claims in the ID token": true, "claims in UserInfo": false} {
		t.Run(name, func(t *testing.T) {
			var real *realProvider
			w := newWorld(t, func(c *web.Config) {
				real = startReal(t, c.PublicURL+"/oidc/auth/callback", full)
				provider, err := login.New(login.Config{
					Issuer: real.issuer, ClientID: clientID, ClientSecret: serval.NewSecret(realSecret), RedirectURL: c.PublicURL + "/oidc/auth/callback",
				})
				if err != nil {
					t.Fatal(err)
				}
				c.Login = provider
			})
			begin := func(b *browser) string {
				t.Helper()
				res, text := b.do("GET", "/oidc/auth/login?return_to=/roles", nil)
				if res.StatusCode != 303 || !strings.HasPrefix(res.Header.Get("Location"), real.issuer) {
					t.Fatalf("the sign-in begins with %d at %q: %s", res.StatusCode, res.Header.Get("Location"), text)
				}
				return res.Header.Get("Location")
			}
			signIn := func(when string) *browser {
				t.Helper()
				ana := w.browser()
				back, _ := real.signIn(real.client(), begin(ana), w.url)
				res, text := ana.do("GET", back.RequestURI(), nil)
				var me wire.Me
				if res.StatusCode != 303 {
					t.Fatalf("%s: the callback answered %d: %s", when, res.StatusCode, text)
				}
				ana.json("GET", "/api/v1/me", nil, 200, &me)
				if me.Email != "ana@example.com" || !slices.Equal(me.Groups, []string{"engineering"}) || me.GroupsNote != "" {
					t.Errorf("%s: signed in as %+v", when, me)
				}
				return ana
			}
			ana := signIn("at first")
			real.order("rotate")
			signIn("with a new key")
			real.order("rotate")
			real.order("forget")
			signIn("with another, and the old ones gone")
			if ana.whoAmI() != "ana@example.com" {
				t.Error("who was signed in before the keys rotated is not any more")
			}

			// The provider would post the answer if it were asked to. Nothing takes that.
			eve := w.browser()
			back, form := real.signIn(real.client(), begin(eve)+"&response_mode=form_post", w.url)
			if form.Get("code") == "" || form.Get("state") == "" {
				t.Fatalf("the provider posts %v to %s, want a code", form, back)
			}
			if res, _ := eve.do("POST", back.RequestURI(), form); res.StatusCode != 405 || eve.whoAmI() != "" {
				t.Errorf("a posted answer: %d as %q, want 405", res.StatusCode, eve.whoAmI())
			}
			// So the code was not used, and the very sign-in is still good.
			if res, _ := eve.do("GET", "/oidc/auth/callback?"+form.Encode(), nil); res.StatusCode != 303 || eve.whoAmI() != "ana@example.com" {
				t.Errorf("the same answer as a query: %d as %q, want 303", res.StatusCode, eve.whoAmI())
			}
		})
	}
}

// Refresh tokens of a provider that nobody here wrote: they rotate, outlive a
// change of keys, and end with the person; the doctor finds nothing wrong.
func TestRealProviderRefreshes(t *testing.T) {
	const redirect = "http://127.0.0.1:1/oidc/auth/callback"
	real := startReal(t, redirect, true)
	p, err := login.New(login.Config{Issuer: real.issuer, ClientID: clientID, ClientSecret: serval.NewSecret(realSecret), RedirectURL: redirect, Offline: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range p.Examine(t.Context()) {
		if c.State != login.CheckOK {
			t.Errorf("a provider that is fine: %+v", c)
		}
	}
	wrong, err := login.New(login.Config{Issuer: real.issuer, ClientID: clientID, ClientSecret: serval.NewSecret("wrong"), RedirectURL: redirect + "/wrong"})
	if err != nil {
		t.Fatal(err)
	}
	failures := map[string]bool{}
	for _, c := range wrong.Examine(t.Context()) {
		failures[c.ID] = c.State == login.CheckFailed
	}
	if !failures["client_secret"] || !failures["redirect_uri"] {
		t.Errorf("a wrong secret and a wrong redirect URI: %v, want both found", failures)
	}

	attempt, at, err := p.Begin(t.Context(), login.Prompt{})
	if err != nil {
		t.Fatal(err)
	}
	back, _ := real.signIn(real.client(), at, redirect)
	was, err := p.Finish(t.Context(), attempt, back.Query())
	if err != nil || was.RefreshToken.Empty() {
		t.Fatalf("signing in: %v, and a refresh token: %t", err, !was.RefreshToken.Empty())
	}
	first := was.RefreshToken
	for i := range 3 {
		is, err := p.Refresh(t.Context(), was.RefreshToken, was)
		if err != nil {
			t.Fatalf("refresh %d: %v", i, err)
		}
		if is.Subject != was.Subject || is.Email != was.Email || is.RefreshToken.Equal(was.RefreshToken) {
			t.Errorf("refresh %d: %+v (rotated: %t), want the same person with another refresh token", i, is, !is.RefreshToken.Equal(was.RefreshToken))
		}
		was = is
		real.order("rotate")
	}
	real.order("deactivate")
	if _, err := p.Refresh(t.Context(), was.RefreshToken, was); !serval.IsRefusal(err, serval.LoginRequired) {
		t.Errorf("deactivated: %v, want %s", err, serval.LoginRequired)
	}
	if _, err := p.Refresh(t.Context(), first, was); !serval.IsRefusal(err, serval.LoginRequired) {
		t.Errorf("a refresh token that was used: %v, want %s", err, serval.LoginRequired)
	}
}
