package web_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/serval-bridge/serval-bridge/internal/awssts"
	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/idptest"
	"github.com/serval-bridge/serval-bridge/internal/intake"
	"github.com/serval-bridge/serval-bridge/internal/login"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/signin"
	"github.com/serval-bridge/serval-bridge/internal/sqlitetest"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/storetest"
	"github.com/serval-bridge/serval-bridge/internal/web"
	"github.com/serval-bridge/serval-bridge/internal/wire"
	"github.com/serval-bridge/serval-bridge/internal/workflow"
)

const (
	clientID  = "serval-bridge"
	prod      = "111122223333"
	dev       = "444455556666"
	hubToken  = canary + "-hub-token-of-a-worker"
	elseToken = canary + "-token-of-another-worker"

	externalID = "the-external-id-of-the-team" // of what is connected over the API

	// canary is in every secret that a test can choose, and must be nowhere else. Ids are
	// random and of letters and the digits from 2 to 7, so that none has it by chance.
	canary = "CANARY1"
)

// token is what an ID token looks like.
var token = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}\.eyJ`)

// The people. Ana asks, Ben approves, Cy is nobody to them.
var people = []idptest.Person{
	{Subject: "00u1ana", Name: "Ana", Email: "ana@example.com", EmailVerified: true, Groups: []string{"engineering"}},
	{Subject: "00u2ben", Name: "Ben", Email: "ben@example.com", EmailVerified: true, Groups: []string{"sre-leads"}},
	{Subject: "00u3cyr", Name: "Cy", Email: "cy@example.com", EmailVerified: true, Groups: []string{"visitors"}},
	{Subject: "00u4adm", Name: "Ada", Email: "ada@example.com", EmailVerified: true, Groups: []string{"serval-admins"}},
	{Subject: "00u5aud", Name: "Aud", Email: "aud@example.com", EmailVerified: true, Groups: []string{"security"}},
	{Subject: "00u6odd", Name: "Odd", Email: oddEmail, EmailVerified: true, Groups: []string{"engineering", oddGroup}},
}

// What an email address and a group may be called, at the worst.
const (
	oddEmail = "o'odd=`${broken}`&lt{{.}}--/*@example.com"
	oddGroup = `"><svg onload=broken.push("group")>`
)

// A clock is the wall's, moved, until it is made to stand.
type clock struct{ ahead, stands atomic.Int64 }

func (c *clock) now() time.Time {
	if at := c.stands.Load(); at != 0 {
		return time.Unix(0, at)
	}
	return time.Now().Add(time.Duration(c.ahead.Load()))
}

func (c *clock) move(d time.Duration) {
	if c.stands.Load() != 0 {
		c.stands.Add(int64(d))
	}
	c.ahead.Add(int64(d))
}

// standAt has it be that instant, however long what is done then takes.
func (c *clock) standAt(instant time.Time) { c.stands.Store(instant.UnixNano()) }

// A world is a bridge's edge with everything behind it: an identity provider and
// a cloud beyond the wire, the control plane over SQLite.
type world struct {
	trust string // policy of the roles, accepting the identity provider
	t     testing.TB
	idp   *idptest.Provider
	cloud *awstest.Cloud
	aws   *awstest.Account
	awsAt string
	plane *control.Plane
	edge  *web.Server
	url   string
	clock *clock

	store      *store.Store
	database   string // file
	closeStore func()
	passed     sync.Map // secrets that an answer had, as a header or a path
	handler    atomic.Pointer[http.Handler]

	// replica returns another bridge over the same database.
	replica func(secret serval.Secret, older ...serval.Secret) http.Handler
	logs    *observer.ObservedLogs
}

// newWorld builds a world, after changes to the edge's configuration.
func newWorld(t testing.TB, change ...func(*web.Config)) *world {
	t.Helper()
	return buildWorld(t, false, change...)
}

// panicking has a world panic with the value wherever it asks what time it is, as long as
// boom says so.
func panicking(boom *bool, value any) func(*web.Config) {
	return func(c *web.Config) {
		real := c.Now
		c.Now = func() time.Time {
			if *boom {
				panic(value)
			}
			return real()
		}
	}
}

// buildWorld builds a world that asks for refresh tokens or does not.
func buildWorld(t testing.TB, offline bool, change ...func(*web.Config)) *world {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	log := zap.New(core)
	w := &world{t: t, clock: &clock{}, logs: logs}

	handler := &w.handler
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { (*handler.Load()).ServeHTTP(rw, r) }))
	t.Cleanup(server.Close)
	w.url = server.URL

	w.idp = idptest.New(idptest.Options{
		ClientID: clientID, ClientSecret: canary + "-client-secret", RedirectURIs: []string{w.url + "/oidc/auth/callback"},
		People: people, Now: w.clock.now,
	})
	issuer := w.idp.Start(t)
	w.cloud = awstest.New(awstest.Options{Now: w.clock.now})
	w.awsAt = w.cloud.Start(t)
	w.aws = w.cloud.AddAccount(prod, "prod")
	provider := w.aws.PutOIDCProvider(issuer, clientID)
	host := strings.TrimPrefix(issuer, "http://")
	w.trust = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Federated":"` + provider + `"},
		"Action":"sts:AssumeRoleWithWebIdentity","Condition":{"StringEquals":{"` + host + `:aud":"` + clientID + `"}}}]}`
	for _, name := range []string{"dev-admin", "dev-auto"} {
		w.aws.PutRole(awstest.Role{
			Name: name, Path: "/people/", MaxSessionDuration: 14400, Tags: map[string]string{"serval": "", "team": "payments"},
			Trust:  w.trust,
			Inline: map[string]string{"all": `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iam:*","Resource":"*"}]}`},
		})
	}

	root := serval.NewSecret(canary + "-root-secret-of-a-test-long-enough")
	w.database = strings.TrimPrefix(sqlitetest.URLOf(t, storetest.Migrate), "sqlite://")
	db, err := store.Open(t.Context(), store.Config{
		URL: serval.NewSecret("sqlite://" + w.database), Chain: serval.NewChain(root),
	})
	if err != nil {
		t.Fatal(err)
	}
	w.store = db
	w.closeStore = sync.OnceFunc(func() { db.Close() })
	t.Cleanup(w.closeStore)
	minter, err := awssts.New(awssts.Config{Endpoint: w.awsAt, SigninEndpoint: w.awsAt, Now: w.clock.now})
	if err != nil {
		t.Fatal(err)
	}
	behind := door.New(db, log)
	behind.Now = w.clock.now
	signIn, err := login.New(login.Config{
		Offline: offline,
		Issuer:  issuer, ClientID: clientID, ClientSecret: serval.NewSecret(canary + "-client-secret"),
		RedirectURL: w.url + "/oidc/auth/callback", Now: w.clock.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	var refresh signin.Refresher
	if offline {
		refresh = web.Refresher(signIn)
	}
	logins := signin.New(behind, signin.Settings{Secret: root, Refresh: refresh})
	w.plane = control.New(behind, logins, minter, control.Settings{
		Issuer: issuer, ClientID: clientID,
		Networks: control.Networks{"office": {netip.MustParsePrefix("203.0.113.0/24")}},
		Admins:   serval.People{Groups: []string{"serval-admins"}}, Auditors: serval.People{Groups: []string{"security"}},
		ExternalID: externalID, TrustedAccount: "992382851720", File: "/etc/serval/serval.yaml",
	})
	if err := w.plane.Declare(t.Context(), serval.System(), 0, accounts(), policies()); err != nil {
		t.Fatal(err)
	}
	c := web.Config{
		Logins: logins, Plane: w.plane, Intake: intake.New(behind), Runs: workflow.New(behind, workflow.Settings{Issuer: issuer, ClientID: clientID}), Login: signIn, ProviderIssuer: issuer, PublicURL: w.url, Secret: root, Log: log, Version: "test", Now: w.clock.now,
		UpstreamTokens: func() []web.UpstreamToken {
			return []web.UpstreamToken{
				{Name: "hub", Accounts: []string{prod}, Secret: func() serval.Secret { return serval.NewSecret(hubToken) }},
				{Name: "else", Accounts: []string{dev}, Secret: func() serval.Secret { return serval.NewSecret(elseToken) }},
				{Name: "unset", Accounts: []string{prod}, Secret: func() serval.Secret { return serval.Secret{} }},
			}
		},
		Networks: func() []string { return []string{"office"} }, ConsoleHosts: []string{"https://console.example"},
	}
	for _, f := range change {
		f(&c)
	}
	w.replica = func(secret serval.Secret, older ...serval.Secret) http.Handler {
		t.Helper()
		one := c
		one.Secret, one.OlderSecrets = secret, older
		one.Logins = signin.New(behind, signin.Settings{Secret: secret, OlderSecrets: older, Refresh: refresh})
		one.Plane = control.New(behind, one.Logins, minter, control.Settings{Issuer: issuer, ClientID: clientID})
		edge, err := web.New(one)
		if err != nil {
			t.Fatal(err)
		}
		return edge
	}
	if w.edge, err = web.New(c); err != nil {
		t.Fatal(err)
	}
	var h http.Handler = w.edge
	handler.Store(&h)
	t.Cleanup(func() { w.noCanary(logs) })
	return w
}

func accounts() []serval.Account {
	return []serval.Account{
		{ID: prod, Name: "prod", Partition: "aws", RoleARN: "arn:aws:iam::" + prod + ":role/serval-ingestion", ExternalID: "external-id-1"},
		{ID: dev, Name: "dev", Partition: "aws", RoleARN: "arn:aws:iam::" + dev + ":role/serval-ingestion", ExternalID: "external-id-2"},
	}
}

func policies() []serval.AccessPolicy {
	engineers := serval.People{Groups: []string{"engineering"}}
	return []serval.AccessPolicy{
		{Name: "auto", Roles: serval.RoleMatch{ARNs: []string{"arn:aws:iam::*:role/people/dev-auto"}}, Eligible: engineers,
			Approval: serval.Approval{Automatic: true}, MaxMinutes: 120},
		{Name: "engineers", Roles: serval.RoleMatch{ARNs: []string{"*"}}, Eligible: engineers,
			Approval:   serval.Approval{Steps: []serval.People{{Groups: []string{"sre-leads"}}}},
			MaxMinutes: 480, RecommendedMinutes: 60, RequireJustification: true},
	}
}

// suspend suspends whoever has the email, as at a sign-in with another one.
func (w *world) suspend(email string) {
	w.t.Helper()
	w.change(email, func(p *serval.Person) { p.Suspended = "An admin has to say that both are you." })
}

// change changes what is known of whoever has the email.
func (w *world) change(email string, how func(*serval.Person)) {
	w.t.Helper()
	err := w.store.Write(w.t.Context(), w.clock.now(), func(tx *store.Tx) error {
		people, err := tx.PeopleByEmail(email)
		if err != nil || len(people) != 1 {
			return fmt.Errorf("%d people with the email: %w", len(people), err)
		}
		how(&people[0])
		return tx.SavePerson(people[0])
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// noCanary fails the test where the log or the files of the database hold a
// secret: one with a canary in it, or any that was seen on its way. S-5, S-7, S-60
func (w *world) noCanary(logs *observer.ObservedLogs) {
	secrets := slices.Concat(w.idp.Secrets(), w.cloud.Secrets())
	w.passed.Range(func(s, _ any) bool { secrets = append(secrets, s.(string)); return true })
	holds := func(text string) bool {
		return strings.Contains(text, canary) || token.MatchString(text) ||
			slices.ContainsFunc(secrets, func(s string) bool { return len(s) >= 16 && strings.Contains(text, s) })
	}
	encoder := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	for _, entry := range logs.All() {
		text, err := encoder.EncodeEntry(entry.Entry, entry.Context)
		if err != nil {
			w.t.Error(err)
		}
		if line := text.String(); holds(line) || strings.Contains(line, "?") {
			w.t.Errorf("the log holds a secret or a query: %s", line)
		}
	}
	files, err := filepath.Glob(w.database + "*")
	if err != nil || len(files) == 0 {
		w.t.Errorf("the files of the database: %v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			w.t.Error(err)
		}
		if holds(string(text)) {
			for _, s := range append(secrets, canary) {
				if i := strings.Index(string(text), s); len(s) >= 6 && i >= 0 {
					w.t.Errorf("a secret is at rest in %s: %q", filepath.Base(file), text[max(0, i-60):min(len(text), i+20)])
				}
			}
		}
	}
}

// watch remembers the secrets that an answer has where it may.
func (w *world) watch(res *http.Response, body string) {
	if to, err := url.Parse(res.Header.Get("Location")); err == nil {
		for _, name := range []string{"SigninToken", "state", "nonce", "code"} {
			if v := to.Query().Get(name); v != "" {
				w.passed.Store(v, name)
			}
		}
	}
	if m := consoleCode.FindStringSubmatch(body); m != nil {
		w.passed.Store(m[1], "console link")
	}
	for _, c := range res.Cookies() {
		if c.Value != "" && c.Name != "__Host-serval-favourites" {
			w.passed.Store(c.Value, "cookie")
		}
	}
}

var consoleCode = regexp.MustCompile(`"path":"/console/([\w-]{43})"`)

// inventory is what a worker reads of prod.
func (w *world) inventory(generation int64) serval.Inventory {
	inv := serval.Inventory{
		AccountID: prod, AccountName: "prod", Generation: generation, Complete: true, ReadBy: serval.ByRoles,
		StartedAt: w.clock.now().Add(-time.Minute), FinishedAt: w.clock.now(),
	}
	for _, name := range []string{"dev-admin", "dev-auto"} {
		inv.Roles = append(inv.Roles, serval.Role{
			ARN: w.aws.RoleARN(name), RoleID: w.aws.RoleID(name), Name: name, Path: "/people/", Description: "For development",
			CreatedAt: time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC), MaxSessionSeconds: 14400,
			Tags:           map[string]string{"serval": "", "team": "payments"},
			TrustPolicy:    serval.Document(w.trust),
			InlinePolicies: serval.InlinePolicies{Status: serval.ListRead, Policies: []serval.InlinePolicy{{Name: "all", Document: `{"Version":"2012-10-17"}`}}},
			ManagedPolicies: serval.ManagedPolicies{Status: serval.ListDenied, Action: "iam:GetPolicyVersion", Policies: []serval.ManagedPolicy{
				{ARN: "arn:aws:iam::aws:policy/ReadOnlyAccess", Name: "ReadOnlyAccess", Version: "v3"}}},
		})
	}
	inv.Normalize()
	return inv
}

// push has a worker push an inventory, by the API.
func (w *world) push(inv func(generation int64) serval.Inventory) {
	w.t.Helper()
	worker := w.worker(hubToken)
	var opened wire.Sync
	worker.json("POST", "/api/v1/upstream/accounts/"+prod+"/syncs", wire.OpenSync{Worker: "w1"}, 200, &opened)
	var body bytes.Buffer
	if err := wire.WriteInventory(&body, inv(opened.Generation)); err != nil {
		w.t.Fatal(err)
	}
	worker.json("PUT", "/api/v1/upstream/accounts/"+prod+"/inventory", json.RawMessage(body.Bytes()), 200, nil)
}

// A browser has cookies of its own and follows nothing by itself.
type browser struct {
	w      *world
	client *http.Client
	token  string // of a worker
	header http.Header
}

func (w *world) browser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return &browser{w: w, header: http.Header{}, client: &http.Client{
		Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (w *world) worker(token string) *browser {
	b := w.browser()
	b.token = token
	return b
}

// as returns a browser in which the person is signed in.
func (w *world) as(name string) *browser {
	w.t.Helper()
	b := w.browser()
	b.signIn(name + "@example.com")
	return b
}

func (b *browser) signIn(email string) {
	b.w.t.Helper()
	res, _ := b.do("GET", "/oidc/auth/login?return_to=/roles", nil)
	if res.StatusCode != 303 {
		b.w.t.Fatalf("/oidc/auth/login answered %d, want 303", res.StatusCode)
	}
	back, err := b.w.idp.SignIn(res.Header.Get("Location"), email)
	if err != nil {
		b.w.t.Fatal(err)
	}
	res, text := b.do("GET", back.RequestURI(), nil)
	if res.StatusCode != 303 || res.Header.Get("Location") != b.w.url+"/roles" {
		b.w.t.Fatalf("the callback answered %d to %q, want 303 to /roles: %s", res.StatusCode, res.Header.Get("Location"), text)
	}
}

// do sends one request and returns the answer with its whole body, held to what
// every answer promises.
func (b *browser) do(method, path string, body any) (*http.Response, string) {
	b.w.t.Helper()
	var reader io.Reader
	kind := ""
	switch body := body.(type) {
	case nil:
	case url.Values:
		reader, kind = strings.NewReader(body.Encode()), "application/x-www-form-urlencoded"
	case string:
		reader, kind = strings.NewReader(body), "application/json"
	case io.Reader:
		reader, kind = body, "application/json"
	default:
		text, err := json.Marshal(body)
		if err != nil {
			b.w.t.Fatal(err)
		}
		reader, kind = bytes.NewReader(text), "application/json"
	}
	if strings.HasPrefix(path, "/") {
		path = b.w.url + path
	}
	var sent []byte
	if reader != nil {
		var err error
		if sent, err = io.ReadAll(reader); err != nil {
			b.w.t.Fatal(err)
		}
		reader = bytes.NewReader(sent)
	}
	req, err := http.NewRequest(method, path, reader)
	if err != nil {
		b.w.t.Fatal(err)
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	if b.token != "" {
		req.Header.Set("Authorization", "Bearer "+b.token)
	}
	for name, values := range b.header {
		req.Header[name] = values
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
	}
	res, err := b.client.Do(req)
	if err != nil {
		b.w.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		b.w.t.Fatal(err)
	}
	b.w.watch(res, string(text))
	checkAnswer(b.w.t, b.w.url, res, string(text))
	if strings.HasPrefix(req.URL.Path, "/api/") && req.Host == strings.TrimPrefix(b.w.url, "http://") {
		checkDescribed(b.w.t, req, sent, res, string(text))
	}
	return res, string(text)
}

// json sends and expects JSON with a status.
func (b *browser) json(method, path string, body any, status int, into any) {
	b.w.t.Helper()
	res, text := b.do(method, path, body)
	if res.StatusCode != status {
		b.w.t.Fatalf("%s %s answered %d, want %d: %s", method, path, res.StatusCode, status, text)
	}
	if into == nil {
		return
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		b.w.t.Fatalf("%s %s: %v in %s", method, path, err, text)
	}
}

// page gets a page and expects a status.
func (b *browser) page(path string, status int) string {
	b.w.t.Helper()
	res, text := b.do("GET", path, nil)
	if res.StatusCode != status {
		b.w.t.Fatalf("GET %s answered %d, want %d: %s", path, res.StatusCode, status, text)
	}
	return text
}

// post posts a form and expects to be sent to a page.
func (b *browser) post(path string, form url.Values, to string) string {
	b.w.t.Helper()
	res, text := b.do("POST", path, form)
	location := strings.TrimPrefix(res.Header.Get("Location"), b.w.url)
	if ok, _ := regexp.MatchString("^"+to+"$", location); res.StatusCode != 303 || !ok {
		b.w.t.Fatalf("POST %s answered %d to %q, want 303 to %q: %s", path, res.StatusCode, location, to, text)
	}
	return location
}

func isRequestPage(res *http.Response) bool {
	return res.Request.Method == http.MethodGet && res.StatusCode == http.StatusOK && strings.HasPrefix(res.Request.URL.Path, "/requests/")
}

// checkAnswer holds every answer to what all promise. S-47, S-78
func checkAnswer(t testing.TB, origin string, res *http.Response, body string) {
	t.Helper()
	where := fmt.Sprintf("%s %s (%d)", res.Request.Method, res.Request.URL.Path, res.StatusCode)
	if strings.HasPrefix(res.Request.URL.String(), origin) {
		h := res.Header
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cross-Origin-Opener-Policy": "same-origin", "X-Frame-Options": "DENY",
			"Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
		} {
			if res.Request.URL.Path == "/client/authorize" && res.StatusCode == 200 { // its form leads to the client's listener
				want = strings.Replace(want, "form-action 'self'", "form-action 'self' "+formTarget(res.Request.URL), 1)
			}
			got := h.Get(name)
			if isRequestPage(res) || res.Request.Method == http.MethodPost && res.Request.URL.Path == "/sessions" { // its form for the console leads to AWS
				got = strings.Replace(got, " https://console.example", "", 1)
			}
			if got != want {
				t.Errorf("%s: %s is %q, want %q", where, name, got, want)
			}
		}
		if h.Get("X-Request-Id") == "" || h.Get("Permissions-Policy") == "" {
			t.Errorf("%s: no request id or permissions policy", where)
		}
		if !strings.HasPrefix(res.Request.URL.Path, "/static/") && h.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: Cache-Control is %q, want no-store", where, h.Get("Cache-Control"))
		}
		if kind := h.Get("Content-Type"); body != "" && strings.HasPrefix(res.Request.URL.Path, "/api/") && kind != "application/json" &&
			(kind != "application/jsonl" || res.Request.URL.Path != "/api/v1/audit/export") {
			t.Errorf("%s: Content-Type is %q, want application/json", where, kind)
		}
	}
	cookies := res.Cookies()
	if !strings.HasPrefix(res.Request.URL.String(), origin) {
		cookies = nil
	}
	for _, c := range cookies {
		if !strings.HasPrefix(c.Name, "__Host-") || !c.Secure || !c.HttpOnly || c.Path != "/" || c.Domain != "" || c.SameSite != http.SameSiteLaxMode {
			t.Errorf("%s: cookie %s is not as every cookie must be: %s", where, c.Name, c.Raw)
		}
		ours := map[string]time.Duration{"__Host-serval": 8 * time.Hour, "__Host-serval-login": 10 * time.Minute}
		if want := ours[c.Name]; c.Name != "__Host-serval-favourites" && c.MaxAge != int(want.Seconds()) && c.MaxAge != -1 || c.MaxAge == 0 {
			t.Errorf("%s: cookie %s lasts for %d s, want %s or to be cleared", where, c.Name, c.MaxAge, want)
		}
	}
	// Cookies are encrypted: whatever they look like is chance.
	header := res.Header.Clone()
	header.Del("Set-Cookie")
	if res.StatusCode == http.StatusSeeOther && !strings.HasPrefix(header.Get("Location"), origin) {
		header.Del("Location") // the one place for the way into the console, or to the identity provider
	}
	if text := body + fmt.Sprint(header); strings.Contains(text, canary) || token.MatchString(text) { // S-5, S-60
		t.Errorf("%s: the answer holds a secret", where)
	}
}
