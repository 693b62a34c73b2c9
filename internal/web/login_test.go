package web_test

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/idptest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/web"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// begin begins to sign in and returns the provider's answer for the person.
func (b *browser) begin(email string) *url.URL {
	b.w.t.Helper()
	res, text := b.do("GET", "/oidc/auth/login?return_to=/roles", nil)
	if res.StatusCode != 303 {
		b.w.t.Fatalf("the login answered %d, want 303: %s", res.StatusCode, text)
	}
	back, err := b.w.idp.SignIn(res.Header.Get("Location"), email)
	if err != nil {
		b.w.t.Fatal(err)
	}
	return back
}

func (b *browser) whoAmI() string {
	b.w.t.Helper()
	var me wire.Me
	res, _ := b.do("GET", "/api/v1/me", nil)
	if res.StatusCode != 200 {
		return ""
	}
	b.json("GET", "/api/v1/me", nil, 200, &me)
	return me.Email
}

func (b *browser) cookie(name string) *http.Cookie {
	u, _ := url.Parse(b.w.url)
	for _, c := range b.client.Jar.Cookies(u) {
		if c.Name == name {
			return c
		}
	}
	return nil
}

func (b *browser) setCookie(name, value string) {
	u, _ := url.Parse(b.w.url)
	b.client.Jar.SetCookies(u, []*http.Cookie{{Name: name, Value: value, Path: "/", Secure: true, HttpOnly: true}})
}

// S-16: wherever return_to points, the browser is sent to a page of ours.
func TestReturnTo(t *testing.T) {
	corpus, err := os.ReadFile("testdata/return_to.txt")
	if err != nil {
		t.Fatal(err)
	}
	try := func(w *world, text string) string {
		t.Helper()
		w.clock.move(3 * time.Second)
		b := w.browser()
		res, page := b.do("GET", "/oidc/auth/login?return_to="+url.QueryEscape(text), nil)
		if res.StatusCode != 303 {
			t.Fatalf("%q: answered %d, want 303: %s", text, res.StatusCode, page)
		}
		back, err := w.idp.SignIn(res.Header.Get("Location"), "ana@example.com")
		if err != nil {
			t.Fatal(err)
		}
		res, _ = b.do("GET", back.RequestURI(), nil)
		return res.Header.Get("Location")
	}
	w := newWorld(t)
	for line := range strings.Lines(string(corpus)) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "#") || line == "" {
			continue
		}
		text := strings.NewReplacer(`\t`, "\t", `\r`, "\r", `\n`, "\n", `\0`, "\x00", `\x0b`, "\x0b").Replace(line)
		if got := try(w, text); got != w.url+"/" {
			t.Errorf("return_to %q leads to %q, want the first page", text, got)
		}
	}
	for text, want := range map[string]string{
		"":                                   "/",
		"/":                                  "/",
		"/roles":                             "/roles",
		"/roles?q=a+b&tag=":                  "/roles?q=a+b&tag=",
		"/roles#evil":                        "/roles",
		"/requests/req_1":                    "/requests/req_1",
		"/roles?q=//evil.example":            "/roles?q=%2F%2Fevil.example",
		"/roles/111122223333/a+b=c,d.e@f-g_": "/roles/111122223333/a+b=c,d.e@f-g_",
		"/audit?page_token=MQ":               "/audit?page_token=MQ",
	} {
		if got := try(w, text); got != w.url+want {
			t.Errorf("return_to %q leads to %q, want %q", text, got, w.url+want)
		}
	}
}

// S-36, S-37, S-38, S-42: an answer of the provider counts once, and in the
// browser that began.
func TestCallback(t *testing.T) {
	w := newWorld(t)
	ana, eve := w.browser(), w.browser()

	back := ana.begin("ana@example.com")
	before := ana.cookie("__Host-serval-login").Value
	calls := w.idp.Calls("token")
	for name, query := range map[string]string{
		"no state": "code=" + back.Query().Get("code"), "wrong state": "state=nope&code=x", "two states": back.RawQuery + "&state=x",
		"an error without state": "error=access_denied", "not a query": "state=%zz",
	} {
		if res, _ := ana.do("GET", "/oidc/auth/callback?"+query, nil); res.StatusCode != 400 {
			t.Errorf("%s: answered %d, want 400", name, res.StatusCode)
		}
	}
	// Eve has Ana's link, or has Ana open hers: nobody becomes anybody.
	if res, _ := eve.do("GET", back.RequestURI(), nil); res.StatusCode != 400 || eve.whoAmI() != "" {
		t.Errorf("in another browser: answered %d and signed in %q, want 400 and nobody", res.StatusCode, eve.whoAmI())
	}
	if got := w.idp.Calls("token"); got != calls {
		t.Errorf("%d token calls were made for answers that do not count", got-calls)
	}

	// Twenty at once: one token call, one login.
	var wg sync.WaitGroup
	statuses := make([]int, 20)
	for i := range statuses {
		wg.Go(func() {
			res, _ := ana.do("GET", back.RequestURI(), nil)
			statuses[i] = res.StatusCode
		})
	}
	wg.Wait()
	won := 0
	for _, status := range statuses {
		if status == 303 {
			won++
		} else if status != 400 {
			t.Errorf("a parallel callback answered %d, want 303 or 400", status)
		}
	}
	if got := w.idp.Calls("token") - calls; won != 1 || got != 1 {
		t.Errorf("of 20 parallel callbacks %d won with %d token calls, want 1 and 1", won, got)
	}
	if ana.whoAmI() != "ana@example.com" {
		t.Fatalf("Ana is %q", ana.whoAmI())
	}
	after := ana.cookie("__Host-serval")
	if after.Value == before || len(after.Value) > 400 {
		t.Errorf("the login's cookie is the one from before, or holds more than an id")
	}

	// The back button: a plain page, and Ana stays who she is.
	res, page := ana.do("GET", back.RequestURI(), nil)
	if res.StatusCode != 400 || !strings.Contains(page, "already used") || !strings.Contains(page, "Sign in again") || ana.whoAmI() != "ana@example.com" {
		t.Errorf("a repeated callback answered %d and left %q, want 400 and Ana: %s", res.StatusCode, ana.whoAmI(), page)
	}
	// Eve's own answer, opened in Ana's browser.
	theirs := eve.begin("cy@example.com")
	if res, _ := ana.do("GET", theirs.RequestURI(), nil); res.StatusCode != 400 || ana.whoAmI() != "ana@example.com" {
		t.Errorf("another's answer: %d and %q, want 400 and Ana still", res.StatusCode, ana.whoAmI())
	}
	// A cookie that was planted before does not become a session.
	eve = w.browser()
	eve.setCookie("__Host-serval", after.Value)
	fixed := eve.begin("cy@example.com")
	eve.do("GET", fixed.RequestURI(), nil)
	if eve.whoAmI() != "cy@example.com" || eve.cookie("__Host-serval").Value == after.Value {
		t.Errorf("after signing in with a planted cookie the browser is %q", eve.whoAmI())
	}
	// S-15: to begin anew is to be signed out, on the server.
	if ana.whoAmI() != "" {
		t.Errorf("the planted login still works after its browser began anew")
	}
}

// S-36: ten minutes.
func TestCallbackTooLate(t *testing.T) {
	w := newWorld(t)
	ana := w.browser()
	back := ana.begin("ana@example.com")
	w.clock.move(10*time.Minute + time.Second)
	if res, _ := ana.do("GET", back.RequestURI(), nil); res.StatusCode != 400 {
		t.Errorf("after ten minutes the callback answered %d, want 400", res.StatusCode)
	}
}

// S-43
func TestTwoTabs(t *testing.T) {
	w := newWorld(t)
	ana := w.browser()
	one := ana.begin("ana@example.com")
	two := ana.begin("ana@example.com")
	for i, back := range []*url.URL{two, one} {
		res, page := ana.do("GET", back.RequestURI(), nil)
		if res.StatusCode != 303 || ana.whoAmI() != "ana@example.com" {
			t.Fatalf("tab %d answered %d, want 303 and Ana signed in: %s", i+1, res.StatusCode, page)
		}
	}
	var logins wire.Logins
	ana.json("GET", "/api/v1/logins", nil, 200, &logins)
	if len(logins.Logins) != 1 || !logins.Logins[0].Current {
		t.Errorf("logins are %+v, want the current one alone", logins)
	}
}

// A person's logins come in pages like any other list.
func TestLoginsInPages(t *testing.T) {
	w := newWorld(t)
	var last *browser
	for i := range 5 {
		last = w.as("ana")
		if i > 1 { // the first three began at one instant
			w.clock.move(time.Second)
		}
	}
	token, seen := "", map[string]bool{}
	for page := range 4 {
		var logins wire.Logins
		last.json("GET", "/api/v1/logins?page_size=2&page_token="+token, nil, 200, &logins)
		if n := len(logins.Logins); n > 2 {
			t.Errorf("page %d has %d logins, want at most 2", page+1, n)
		}
		for _, l := range logins.Logins {
			if seen[l.ID] {
				t.Errorf("page %d repeats login %s", page+1, l.ID)
			}
			seen[l.ID] = true
		}
		if token = logins.NextPageToken; token == "" {
			break
		}
		// What the token names may have ended meanwhile.
		if page == 0 && logins.Logins[1].ID != "" && !logins.Logins[1].Current {
			last.json("DELETE", "/api/v1/logins/"+logins.Logins[1].ID, nil, 204, nil)
		}
	}
	if len(seen) != 5 || token != "" {
		t.Errorf("%d logins in the pages, want 5 and no further page", len(seen))
	}
	last.json("GET", "/api/v1/logins?page_token=eA", nil, 400, nil)
}

// S-15, S-47: what ends a login ends it on the server.
func TestLoginEnds(t *testing.T) {
	w := newWorld(t)
	id := func(b *browser) string {
		var me wire.Me
		b.json("GET", "/api/v1/me", nil, 200, &me)
		return me.LoginID
	}
	end := map[string]func(b *browser){
		"signing out":         func(b *browser) { b.post("/signout", nil, "/") },
		"signing in anew":     func(b *browser) { b.begin("ana@example.com") },
		"thirty idle minutes": func(b *browser) { w.clock.move(30 * time.Minute) },
		"ending it by the API": func(b *browser) {
			b.json("DELETE", "/api/v1/logins/"+id(b), nil, 204, nil)
			if b.cookie("__Host-serval") != nil {
				t.Error("the browser that ended its own login still has the cookie")
			}
		},
		"ending it on the page": func(b *browser) { b.post("/logins/"+id(b)+"/end", nil, "/") },
	}
	for name, f := range end {
		ana, copied := w.as("ana"), w.browser()
		copied.setCookie("__Host-serval", ana.cookie("__Host-serval").Value)
		if copied.whoAmI() != "ana@example.com" {
			t.Fatalf("%s: the copied cookie does not work before", name)
		}
		f(ana)
		if got := copied.whoAmI(); got != "" {
			t.Errorf("after %s the old cookie is still %s", name, got)
		}
		if copied.cookie("__Host-serval") != nil {
			t.Errorf("after %s the old cookie was not cleared", name)
		}
	}
	// Eight hours, however busy.
	ana := w.as("ana")
	for range 23 {
		w.clock.move(20 * time.Minute)
		ana.page("/", 303)
	}
	w.clock.move(20 * time.Minute)
	if got := ana.whoAmI(); got != "" {
		t.Errorf("after eight hours the login is still %s", got)
	}
}

// S-49: a cookie that is none of ours is nobody's, and is cleared.
func TestBrokenCookies(t *testing.T) {
	w := newWorld(t)
	good := w.as("ana").cookie("__Host-serval").Value
	other := newWorld(t, func(c *web.Config) { c.Secret = serval.NewSecret(canary + "-quite-another-secret-long-enough") })
	foreign := other.as("ana").cookie("__Host-serval").Value
	attempt := w.browser()
	attempt.begin("ana@example.com")
	for name, value := range map[string]string{
		"garbage": "garbage", "empty": "x", "truncated": good[:len(good)/2], "with more": good + "AAAA", "of another key": foreign,
		"5 KB": strings.Repeat("A", 5000), "of another name": attempt.cookie("__Host-serval-login").Value, "not base64": "%%%", "with quotes": `""`,
	} {
		for _, path := range []string{"/api/v1/me", "/roles", "/"} {
			b := w.browser()
			b.header.Set("Cookie", "__Host-serval="+value)
			res, _ := b.do("GET", path, nil)
			want := map[string]int{"/api/v1/me": 401, "/roles": 401, "/": 200}[path]
			cleared := strings.Contains(strings.Join(res.Header["Set-Cookie"], "\n"), "__Host-serval=; Path=/; Max-Age=0")
			if res.StatusCode != want || !cleared && value != `""` {
				t.Errorf("a cookie that is %s: GET %s answered %d (cleared: %t), want %d and cleared", name, path, res.StatusCode, cleared, want)
			}
		}
		b := w.browser()
		b.header.Set("Cookie", "__Host-serval-login="+value)
		if res, _ := b.do("GET", "/oidc/auth/login", nil); res.StatusCode != 303 {
			t.Errorf("an attempt's cookie that is %s: the login answered %d, want 303", name, res.StatusCode)
		}
		w.clock.move(3 * time.Second)
	}
}

// R-43, S-108: an older secret's cookies still open; without it they are nobody's.
// No restart is between.
func TestCookieKeyRotation(t *testing.T) {
	older, newer := serval.NewSecret(canary+"-older-secret-long-enough-for-it"), serval.NewSecret(canary+"-newer-secret-long-enough-for-it")
	w := newWorld(t, func(config *web.Config) { config.Secret = older })
	ana := w.as("ana")
	answers := func(secret serval.Secret, more ...serval.Secret) int {
		w.edge.Rekey(secret, more...)
		res, _ := ana.do("GET", "/roles", nil)
		return res.StatusCode
	}
	if got := answers(newer, older); got != 200 {
		t.Errorf("with the older secret behind the newer: %d, want 200", got)
	}
	value := ana.cookie("__Host-serval").Value
	if got := answers(newer); got != 401 {
		t.Errorf("without the older secret: %d, want 401", got)
	}
	ana.setCookie("__Host-serval", value)
	if got := answers(older); got != 200 {
		t.Errorf("back under the older secret: %d, want 200", got)
	}
}

// S-44: what the provider refuses has our words, not its.
func TestProviderRefuses(t *testing.T) {
	w := newWorld(t)
	const hostile = `<script>alert(1)</script>`
	for code, want := range map[string]int{"access_denied": 403, "server_error": 503, "login_required": 401, hostile: 403} {
		undo := w.idp.Misbehave(func(m *idptest.Misbehaviour) { m.Error, m.ErrorDescription = code, hostile+" secret words" })
		b := w.browser()
		back := b.begin("ana@example.com")
		res, page := b.do("GET", back.RequestURI(), nil)
		undo()
		if res.StatusCode != want && code != hostile || res.StatusCode < 400 || strings.Contains(page, "alert(1)") || strings.Contains(page, "secret words") || b.whoAmI() != "" {
			t.Errorf("error %q: answered %d, want %d in our own words: %s", code, res.StatusCode, want, page)
		}
	}
	// S-45
	undo := w.idp.Misbehave(func(m *idptest.Misbehaviour) { m.Callback = func(q url.Values) { q.Set("id_token", "x") } })
	b := w.browser()
	if res, _ := b.do("GET", b.begin("ana@example.com").RequestURI(), nil); res.StatusCode != 400 {
		t.Errorf("a token in the callback: %d, want 400", res.StatusCode)
	}
	undo()
	// away is said, and nobody is signed out for it.
	ana := w.as("ana")
	w.idp.Misbehave(func(m *idptest.Misbehaviour) {
		m.AtToken = idptest.Answer{Status: 502, Body: "<html>secret words</html>"}
	})
	b = w.browser()
	if res, page := b.do("GET", b.begin("ana@example.com").RequestURI(), nil); res.StatusCode != 503 || strings.Contains(page, "secret words") {
		t.Errorf("the token endpoint is away: %d, want 503: %s", res.StatusCode, page)
	}
	if ana.whoAmI() != "ana@example.com" {
		t.Error("who was signed in is not any more")
	}
}

// S-48
func TestConfigRefused(t *testing.T) {
	for name, change := range map[string]func(*web.Config){
		"short secret":       func(c *web.Config) { c.Secret = serval.NewSecret("short") },
		"no secret":          func(c *web.Config) { c.Secret = serval.Secret{} },
		"short older secret": func(c *web.Config) { c.OlderSecrets = []serval.Secret{serval.NewSecret("short")} },
		"no plane":           func(c *web.Config) { c.Plane = nil },
		"http":               func(c *web.Config) { c.PublicURL = "http://serval.example.com" },
		"a path":             func(c *web.Config) { c.PublicURL = "https://serval.example.com/x" },
		"a user":             func(c *web.Config) { c.PublicURL = "https://me@serval.example.com" },
		"no URL":             func(c *web.Config) { c.PublicURL = "" },
	} {
		var config web.Config
		newWorld(t, func(c *web.Config) { config = *c })
		change(&config)
		if _, err := web.New(config); err == nil {
			t.Errorf("%s: New took it", name)
		} else if strings.Contains(fmt.Sprint(err), "short\"") {
			t.Errorf("%s: the error holds the secret: %v", name, err)
		}
	}
}

// S-16, T-1: wherever a sign-in is told to lead, it leads to a page of ours, the
// same as it is read by a browser.
func FuzzReturnTo(f *testing.F) {
	const origin = "https://serval.example"
	returnTo := web.ReturnTo()
	for _, seed := range []string{"/roles", "/requests/x?again=1", "//evil.example", "/\\evil.example", "/.//evil.example", "/%09/evil.example", "/roles/../..//evil.example",
		"/client/authorize?redirect_uri=http://127.0.0.1:1/&state=x", "https://evil.example/roles", "/roles#x", "/roles?a=b;c", "/api/v1/me", "/oidc/auth/login"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		to := returnTo(text)
		u, err := url.Parse(origin + to)
		if err != nil || !strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") || strings.ContainsAny(to, "\\\r\n\t") || u.Host != "serval.example" ||
			u.User != nil || strings.HasPrefix(u.Path, "/api/") || strings.HasPrefix(u.Path, "/oidc/") || strings.Contains(u.Path, "//") {
			t.Errorf("%q leads to %q (%v)", text, to, err)
		}
		if again := returnTo(to); again != to {
			t.Errorf("%q leads to %q, and that to %q", text, to, again)
		}
	})
}

// A catalogue that is empty for want of groups says what withholds them, on the
// page as in a refusal.
func TestMissingGroupsAreTheCause(t *testing.T) {
	for name, c := range map[string]struct {
		token func(map[string]any)
		want  string
	}{
		"no claim": {func(map[string]any) {}, `sends no claim &#34;groups&#34;`},
		"too many": {func(c map[string]any) { c["hasgroups"] = true }, "You are in more groups than"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.idp.Misbehave(func(m *idptest.Misbehaviour) {
				m.Claims = func(claims map[string]any) {
					delete(claims, "groups")
					c.token(claims)
				}
				m.UserInfo = func(claims map[string]any) { delete(claims, "groups") }
			})
			ana := w.browser()
			ana.signIn("ana@example.com")
			if page := ana.page("/roles", 200); !strings.Contains(page, "Your groups are not known") || !strings.Contains(page, c.want) {
				t.Errorf("the empty catalogue does not say that %q: %s", c.want, page)
			}
		})
	}
}
