package web_test

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/web"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// devices lets devices sign in.
func devices(c *web.Config) { c.DeviceLogin = true }

// verifier is a client's, and canary: nothing may show it.
const verifier = canary + "-verifier-of-a-client-that-is-long-enough-by-far"

// clientQuery is what a client opens in the browser.
func clientQuery() url.Values {
	return url.Values{
		"response_type": {"code"}, "client_id": {"serval"}, "client_name": {"serval 1.2"}, "client_host": {"ana-laptop"},
		"redirect_uri": {"http://127.0.0.1:1234/callback"}, "state": {strings.Repeat("s", 32)},
		"code_challenge": {serval.Challenge(serval.NewSecret(verifier))}, "code_challenge_method": {"S256"},
	}
}

func withDecision(q url.Values, decision string) url.Values {
	q.Set("decision", decision)
	return q
}

// formTarget is where the consent page's form may lead besides the bridge.
func formTarget(page *url.URL) string {
	origin, err := serval.LoopbackOrigin(page.Query().Get("redirect_uri"))
	if err != nil {
		return "nowhere"
	}
	if strings.Contains(origin, "[") {
		return "http:"
	}
	return origin
}

// letIn has a browser let a client in, and returns the code that it is sent.
func (b *browser) letIn(q url.Values) string {
	b.w.t.Helper()
	b.page("/client/authorize?"+q.Encode(), 200)
	res, text := b.do("POST", "/client/authorize", withDecision(q, "approve"))
	to, err := url.Parse(res.Header.Get("Location"))
	if err != nil || res.StatusCode != 303 {
		b.w.t.Fatalf("letting a client in answered %d to %q: %s", res.StatusCode, to, text)
	}
	return to.Query().Get("code")
}

// client returns a laptop's client that the browser has let in.
func (b *browser) clientOf() (*browser, wire.ClientToken) {
	b.w.t.Helper()
	q := clientQuery()
	client := b.w.browser()
	var got wire.ClientToken
	client.json("POST", "/api/v1/client/token", wire.NewClientToken{
		GrantType: "authorization_code", Code: b.letIn(q), RedirectURI: q.Get("redirect_uri"), CodeVerifier: verifier}, 200, &got)
	client.token = got.AccessToken
	return client, got
}

// S-63: the whole way of a client, from its browser to a session and its end.
func TestClientSignsIn(t *testing.T) {
	w := newWorld(t)
	w.push(w.inventory)
	ana, q := w.browser(), clientQuery()

	// Whoever is not signed in signs in first, and comes back.
	res, _ := ana.do("GET", "/client/authorize?"+q.Encode(), nil)
	signIn, err := url.Parse(res.Header.Get("Location"))
	if err != nil || res.StatusCode != 303 || signIn.Path != "/oidc/auth/login" {
		t.Fatalf("not signed in: %d to %q", res.StatusCode, signIn)
	}
	res, _ = ana.do("GET", signIn.RequestURI(), nil)
	back, err := w.idp.SignIn(res.Header.Get("Location"), "ana@example.com")
	if err != nil {
		t.Fatal(err)
	}
	res, _ = ana.do("GET", back.RequestURI(), nil)
	consent := res.Header.Get("Location")
	if u, err := url.Parse(consent); err != nil || u.Path != "/client/authorize" || u.Query().Encode() != q.Encode() {
		t.Fatalf("after the sign-in: %d to %q", res.StatusCode, consent)
	}
	page := ana.page(strings.TrimPrefix(consent, w.url), 200)
	for _, want := range []string{"ana-laptop", "serval 1.2", "ana@example.com", `name="decision" value="deny"`} {
		if !strings.Contains(page, want) {
			t.Errorf("the consent page lacks %q: %s", want, page)
		}
	}
	res, _ = ana.do("POST", "/client/authorize", withDecision(clientQuery(), "deny"))
	if got, want := res.Header.Get("Location"), "http://127.0.0.1:1234/callback?error=access_denied&iss="+url.QueryEscape(w.url)+"&state="+q.Get("state"); got != want {
		t.Errorf("denied: %q, want %q", got, want)
	}
	res, _ = ana.do("POST", "/client/authorize", withDecision(clientQuery(), "approve"))
	to, err := url.Parse(res.Header.Get("Location"))
	if err != nil || !strings.HasPrefix(to.String(), "http://127.0.0.1:1234/callback?") || to.Query().Get("state") != q.Get("state") || to.Query().Get("iss") != w.url {
		t.Fatalf("approved: %q", to)
	}
	code := to.Query().Get("code")

	// S-9: for a bare code nobody gets anything.
	thief, client := w.browser(), w.browser()
	good := wire.NewClientToken{GrantType: "authorization_code", Code: code, RedirectURI: q.Get("redirect_uri"), CodeVerifier: verifier}
	for name, change := range map[string]func(*wire.NewClientToken){
		"no verifier":      func(n *wire.NewClientToken) { n.CodeVerifier = "" },
		"another verifier": func(n *wire.NewClientToken) { n.CodeVerifier = strings.Repeat("v", 43) },
		"the challenge":    func(n *wire.NewClientToken) { n.CodeVerifier = q.Get("code_challenge") },
		"the state":        func(n *wire.NewClientToken) { n.Code = q.Get("state") },
		"another port":     func(n *wire.NewClientToken) { n.RedirectURI = "http://127.0.0.1:4321/callback" },
	} {
		ask := good
		change(&ask)
		var e wire.Error
		thief.json("POST", "/api/v1/client/token", ask, 404, &e)
		if e.Detail["error"] != "invalid_grant" {
			t.Errorf("%s: %+v", name, e)
		}
	}
	for name, change := range map[string]func(*wire.NewClientToken){
		"no grant": func(n *wire.NewClientToken) { n.GrantType = "" },
		"a device": func(n *wire.NewClientToken) {
			n.GrantType, n.DeviceCode = "urn:ietf:params:oauth:grant-type:device_code", "x"
		},
		"both":          func(n *wire.NewClientToken) { n.DeviceCode = "x" },
		"refresh_token": func(n *wire.NewClientToken) { n.GrantType = "refresh_token" },
	} {
		ask := good
		change(&ask)
		thief.json("POST", "/api/v1/client/token", ask, 400, nil)
		_ = name
	}
	client.header.Set("Host", "rebound.example") // S-63: DNS rebinding
	if res, _ := client.do("POST", "/api/v1/client/token", good); res.StatusCode != 421 {
		t.Errorf("at another host: %d, want 421", res.StatusCode)
	}
	client.header = http.Header{}
	var token wire.ClientToken
	client.json("POST", "/api/v1/client/token", good, 200, &token)
	if token.TokenType != "Bearer" || token.ExpiresIn > 8*3600 || token.ExpiresIn < 8*3600-60 || token.Email != "ana@example.com" {
		t.Errorf("the client's token is %+v", token)
	}
	thief.json("POST", "/api/v1/client/token", good, 404, nil)

	// It is Ana in the API, and nobody on pages.
	client.token = token.AccessToken
	var me wire.Me
	client.json("GET", "/api/v1/me", nil, 200, &me)
	if me.Email != "ana@example.com" || me.LoginID != token.LoginID {
		t.Errorf("the client is %+v", me)
	}
	client.page("/roles", 401)
	var made wire.Request
	client.json("POST", "/api/v1/requests", wire.NewRequest{RoleARN: w.aws.RoleARN("dev-auto"), Minutes: 60}, 201, &made)
	var keys wire.Credentials
	client.json("POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID}, 200, &keys)
	var logins wire.Logins
	ana.json("GET", "/api/v1/logins", nil, 200, &logins)
	if len(logins.Logins) != 2 || logins.Logins[0].ID != token.LoginID || logins.Logins[0].Kind != "client" || logins.Logins[0].Agent != "serval 1.2 on ana-laptop" {
		t.Errorf("logins are %+v", logins)
	}

	// A header decides alone: a wrong one is nobody, whatever the cookies say.
	for _, header := range []string{"Bearer wrong", "Bearer " + strings.ToUpper(token.AccessToken), "Basic " + token.AccessToken, "Bearer", ""} {
		ana.header.Set("Authorization", header)
		if res, _ := ana.do("GET", "/api/v1/me", nil); res.StatusCode != 401 || res.Header.Get("WWW-Authenticate") != "Bearer" || len(res.Cookies()) > 0 {
			t.Errorf("with Authorization %q: %d", header, res.StatusCode)
		}
	}
	ana.header = http.Header{"Authorization": {"Bearer " + token.AccessToken, "Bearer " + token.AccessToken}}
	if res, _ := ana.do("GET", "/api/v1/me", nil); res.StatusCode != 401 {
		t.Errorf("with two Authorization headers: %d, want 401", res.StatusCode)
	}
	ana.header = http.Header{}
	cookie := w.browser()
	cookie.token = ana.cookie("__Host-serval").Value
	cookie.json("GET", "/api/v1/me", nil, 401, nil)

	// What another site sends with a cookie does nothing; a client has none.
	client.header.Set("Sec-Fetch-Site", "cross-site")
	client.json("POST", "/api/v1/requests", wire.NewRequest{RoleARN: w.aws.RoleARN("dev-auto"), Minutes: 60}, 201, nil)
	client.header = http.Header{}

	client.json("DELETE", "/api/v1/logins/"+token.LoginID, nil, 204, nil)
	client.json("GET", "/api/v1/me", nil, 401, nil)
	if ana.whoAmI() != "ana@example.com" {
		t.Error("Ana's browser was signed out with her client")
	}
	_, second := ana.clientOf()
	ana.post("/logins/"+second.LoginID+"/end", nil, "/logins")
	client.token = second.AccessToken
	client.json("GET", "/api/v1/me", nil, 401, nil)
}

// S-63: an address that nobody listens at who began is never redirected to, be
// it with a code or with an error.
func TestClientAskRefused(t *testing.T) {
	w := newWorld(t)
	ana := w.as("ana")
	for name, change := range map[string]func(url.Values){
		"a site":         func(q url.Values) { q.Set("redirect_uri", "https://evil.example/callback") },
		"a name":         func(q url.Values) { q.Set("redirect_uri", "http://localhost:1234/callback") },
		"user info":      func(q url.Values) { q.Set("redirect_uri", "http://127.0.0.1:1234@evil.example/callback") },
		"no redirect":    func(q url.Values) { q.Del("redirect_uri") },
		"no challenge":   func(q url.Values) { q.Del("code_challenge") },
		"plain":          func(q url.Values) { q.Set("code_challenge_method", "plain") },
		"no method":      func(q url.Values) { q.Del("code_challenge_method") },
		"a token":        func(q url.Values) { q.Set("response_type", "token") },
		"another client": func(q url.Values) { q.Set("client_id", "evil") },
		"no state":       func(q url.Values) { q.Del("state") },
		"markup":         func(q url.Values) { q.Set("client_host", "<script>alert(1)</script>") },
		"unknown":        func(q url.Values) { q.Set("prompt", "none") },
		"two redirects":  func(q url.Values) { q.Add("redirect_uri", "http://127.0.0.1:4321/callback") },
	} {
		q := clientQuery()
		change(q)
		for _, b := range []*browser{ana, w.browser()} {
			res, text := b.do("GET", "/client/authorize?"+q.Encode(), nil)
			if res.StatusCode != 400 || res.Header.Get("Location") != "" || strings.Contains(text, "alert(1)") {
				t.Errorf("%s: %d to %q", name, res.StatusCode, res.Header.Get("Location"))
			}
		}
		if name == "unknown" || name == "two redirects" {
			continue // of a query
		}
		for _, decision := range []string{"approve", "deny"} {
			if res, _ := ana.do("POST", "/client/authorize", withDecision(q, decision)); res.StatusCode != 400 || res.Header.Get("Location") != "" {
				t.Errorf("%s, %s: %d to %q", name, decision, res.StatusCode, res.Header.Get("Location"))
			}
		}
	}
	if res, _ := ana.do("POST", "/client/authorize", clientQuery()); res.StatusCode != 400 {
		t.Errorf("no decision: %d, want 400", res.StatusCode)
	}
	q := clientQuery()
	q.Set("redirect_uri", "http://[::1]:1234/")
	if ana.letIn(q) == "" {
		t.Error("a listener on IPv6's loopback got no code")
	}
	// A client lets nobody in: that takes a browser.
	client, _ := ana.clientOf()
	client.header.Set("Content-Type", "application/x-www-form-urlencoded")
	if res, _ := client.do("POST", "/client/authorize", withDecision(clientQuery(), "approve")); res.StatusCode != 401 {
		t.Errorf("a client that lets a client in: %d, want 401", res.StatusCode)
	}
}

// S-63: device code is off by default, and there is no trace of it.
func TestDeviceIsOff(t *testing.T) {
	w := newWorld(t)
	for _, b := range []*browser{w.browser(), w.as("ana")} {
		for _, route := range []string{"GET /device", "POST /device", "POST /device/decide", "POST /api/v1/client/device"} {
			method, path, _ := strings.Cut(route, " ")
			if res, _ := b.do(method, path, nil); res.StatusCode != 404 {
				t.Errorf("%s answered %d, want 404", route, res.StatusCode)
			}
		}
	}
}

// S-63, on: what the device shows is typed, and looked at before it is let in.
func TestDeviceSignsIn(t *testing.T) {
	w := newWorld(t, devices)
	w.clock.standAt(time.Now()) // a device is told to slow down by it
	ana, device := w.as("ana"), w.browser()
	ask := wire.NewDevice{ClientName: "serval 1.2", ClientHost: "build-7", CodeChallenge: clientQuery().Get("code_challenge")}
	var d wire.Device
	device.json("POST", "/api/v1/client/device", ask, 200, &d)
	if d.VerificationURI != w.url+"/device" || d.Interval != 5 || d.ExpiresIn > 300 || d.ExpiresIn < 290 || len(d.UserCode) != 9 {
		t.Errorf("the device shows %+v", d)
	}
	poll := wire.NewClientToken{GrantType: "urn:ietf:params:oauth:grant-type:device_code", DeviceCode: d.DeviceCode, CodeVerifier: verifier}
	waits := func(want string, status int, retry string) {
		t.Helper()
		var e wire.Error
		res, _ := device.do("POST", "/api/v1/client/token", poll)
		device.json("POST", "/api/v1/client/token", wire.NewClientToken{GrantType: poll.GrantType, DeviceCode: "guess", CodeVerifier: verifier}, 404, &e)
		if res.StatusCode != status || res.Header.Get("Retry-After") != retry || e.Detail["error"] != "expired_token" {
			t.Errorf("%s: %d with Retry-After %q; a guess: %+v", want, res.StatusCode, res.Header.Get("Retry-After"), e)
		}
	}
	waits("authorization_pending", 422, "")
	waits("slow_down", 429, "10")
	w.clock.move(10 * time.Second)
	waits("authorization_pending", 422, "")

	if page := ana.page("/device", 200); strings.Contains(page, "build-7") {
		t.Error("the page says what nobody has typed the code of")
	}
	res, page := ana.do("POST", "/device", url.Values{"user_code": {"BCDF-GHJK"}})
	if res.StatusCode != 404 || !strings.Contains(page, "No device shows this code") {
		t.Errorf("a code of nothing: %d %s", res.StatusCode, page)
	}
	typed := url.Values{"user_code": {strings.ToLower(d.UserCode)}}
	_, page = ana.do("POST", "/device", typed)
	for _, want := range []string{"build-7", "serval 1.2", "127.0.0.1", "ana@example.com", "<time datetime="} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q: %s", want, page)
		}
	}
	if res, _ := ana.do("POST", "/device/decide", typed); res.StatusCode != 400 {
		t.Errorf("no decision: %d, want 400", res.StatusCode)
	}
	ana.post("/device/decide", withDecision(typed, "approve"), `/device\?said=approved`)
	if page := ana.page("/device?said=approved", 200); !strings.Contains(page, "The device is signed in") {
		t.Errorf("afterwards the page says: %s", page)
	}
	var token wire.ClientToken
	device.json("POST", "/api/v1/client/token", poll, 200, &token)
	device.token = token.AccessToken
	device.json("GET", "/api/v1/me", nil, 200, nil)

	device = w.browser()
	device.json("POST", "/api/v1/client/device", ask, 200, &d)
	ana.post("/device/decide", url.Values{"user_code": {d.UserCode}, "decision": {"deny"}}, `/device\?said=denied`)
	poll.DeviceCode = d.DeviceCode
	var e wire.Error
	device.json("POST", "/api/v1/client/token", poll, 403, &e)
	if e.Detail["error"] != "access_denied" {
		t.Errorf("denied: %+v", e)
	}
}

// S-63: who types the code of a device that is somewhere else has been sent it.
func TestDeviceElsewhere(t *testing.T) {
	w := newWorld(t, devices, func(c *web.Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	device, ana := w.browser(), w.as("ana")
	device.header.Set("X-Forwarded-For", "203.0.113.9")
	ana.header.Set("X-Forwarded-For", "198.51.100.7")
	var d wire.Device
	device.json("POST", "/api/v1/client/device", wire.NewDevice{ClientName: "serval", ClientHost: "laptop", CodeChallenge: clientQuery().Get("code_challenge")}, 200, &d)
	_, page := ana.do("POST", "/device", url.Values{"user_code": {d.UserCode}})
	if !strings.Contains(page, "203.0.113.9") || !strings.Contains(page, "another network") || strings.Contains(page, `value="approve"`) {
		t.Errorf("the page of a device that is elsewhere: %s", page)
	}
	res, _ := ana.do("POST", "/device/decide", url.Values{"user_code": {d.UserCode}, "decision": {"approve"}})
	if res.StatusCode != 403 {
		t.Errorf("approved from elsewhere: %d, want 403", res.StatusCode)
	}
	ana.header.Set("X-Forwarded-For", "203.0.113.200")
	ana.post("/device/decide", url.Values{"user_code": {d.UserCode}, "decision": {"approve"}}, `/device\?said=approved`)
}
