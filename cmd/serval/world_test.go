package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/bridge"
	"github.com/serval-bridge/serval-bridge/internal/idptest"
	"github.com/serval-bridge/serval-bridge/internal/login"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

const prod = "111122223333"

const clientSecret = "the-secret-of-the-bridge-at-its-provider"

// A world is everything that a laptop reaches: a bridge with people and roles, an
// AWS, and a browser.
type world struct {
	dir   string
	front *front // what the laptop takes for the bridge
	idp   *idptest.Provider
	cloud *awstest.Cloud
	aws   *awstest.Account
	awsAt string
	door  string       // of the browser
	clock string       // file of the laptop's
	ahead atomic.Int64 // of all other clocks
	token string       // of the worker

	mu    sync.Mutex // guards what follows
	email string     // who sits before the browser
	says  string     // approve, deny or never
	jars  map[string]http.CookieJar
	seen  []string // what the browser was shown, by path
}

type options struct {
	lease, device bool
	sly           bool // there is a role whose path a shell would obey
}

// newWorld starts a world, which ends with deferred.
func newWorld(dir string, o options, deferred func(func())) (*world, error) {
	w := &world{dir: dir, clock: filepath.Join(dir, "clock"), email: "ana@example.com", says: "approve", jars: map[string]http.CookieJar{}}
	w.front = &front{}
	origin, err := serveOn(w.front, deferred)
	if err != nil {
		return nil, err
	}
	w.front.origin = origin
	if w.door, err = serveOn(http.HandlerFunc(w.openDoor), deferred); err != nil {
		return nil, err
	}
	now := func() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }
	person := func(name string, groups ...string) idptest.Person {
		return idptest.Person{Subject: "00u1" + name, Name: name, Email: name + "@example.com", EmailVerified: true, Groups: groups}
	}
	w.idp = idptest.New(idptest.Options{
		ClientID: "client", ClientSecret: clientSecret, RedirectURIs: []string{origin + "/oidc/auth/callback"}, Now: now,
		People: []idptest.Person{person("ana", "engineering"), person("bo", "engineering", "leads"), person("adm", "admins")},
	})
	issuer, err := serveOn(w.idp, deferred)
	if err != nil {
		return nil, err
	}
	w.idp.SetIssuer(issuer)
	w.cloud = awstest.New(awstest.Options{Now: now})
	if w.awsAt, err = serveOn(w.cloud, deferred); err != nil {
		return nil, err
	}
	roles := w.fill(issuer, o.sly)

	w.token = strings.Repeat("worker-token-", 4)
	tokenFile := filepath.Join(dir, "worker-token")
	if err := os.WriteFile(tokenFile, []byte(w.token), 0o600); err != nil {
		return nil, err
	}
	c := bridge.Config{
		Listen: "127.0.0.1:0", AdminListen: "127.0.0.1:0", PublicURL: origin,
		OIDC:   login.Config{Issuer: issuer, ClientID: "client", ClientSecret: serval.NewSecret(clientSecret)},
		Secret: serval.NewSecret(strings.Repeat("root-secret-0", 4)), ExternalIDSecret: serval.NewSecret(strings.Repeat("external-id-0", 4)),
		DatabaseURL: serval.NewSecret("sqlite://" + filepath.Join(dir, "serval.db")), TrustedAccount: "999988887777",
		STSEndpoint: w.awsAt, SigninEndpoint: w.awsAt, DeviceLogin: o.device, Log: zap.NewNop(), Now: now, DrainTime: time.Second, Version: "test",
	}
	if o.lease {
		c.Lease = 30 * time.Minute
	}
	c.File.Team = "test"
	c.File.Accounts = []serval.Account{{ID: prod, Name: "prod", Partition: "aws", RoleARN: "arn:aws:iam::" + prod + ":role/serval-ingestion"}}
	c.File.UpstreamTokens = []bridge.UpstreamToken{{Name: "hub", Accounts: []string{prod}, SecretFile: tokenFile}}
	c.File.Admins = serval.People{Groups: []string{"admins"}}
	policy := func(name, arn string, approval serval.Approval) serval.AccessPolicy {
		return serval.AccessPolicy{
			Name: name, Roles: serval.RoleMatch{ARNs: []string{arn}}, Eligible: serval.People{Groups: []string{"engineering"}},
			Approval: approval, MaxMinutes: 480, RecommendedMinutes: 60, RequireJustification: !approval.Automatic,
		}
	}
	c.File.Policies = []serval.AccessPolicy{
		policy("dev", "*role/*dev*", serval.Approval{Automatic: true}),
		policy("prod", "*", serval.Approval{Steps: []serval.People{{Groups: []string{"leads"}}}}),
	}
	if err := w.start(c, deferred); err != nil {
		return nil, err
	}
	return w, w.push(roles)
}

// fill fills the account with roles.
func (w *world) fill(issuer string, sly bool) (roles []serval.Role) {
	w.aws = w.cloud.AddAccount(prod, "prod")
	provider := w.aws.PutOIDCProvider(issuer, "client")
	trust := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Federated":"` + provider + `"},"Action":"sts:AssumeRoleWithWebIdentity",
		"Condition":{"StringEquals":{"` + strings.TrimPrefix(issuer, "http://") + `:aud":"client"}}}]}`
	strict := strings.ReplaceAll(trust, `"client"`, `"another-client"`)
	allow := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iam:ListRoles"],"Resource":"*"}]}`
	type one struct{ name, path, description, trust string }
	all := []one{
		{"dev", "/", "Build and debug", trust}, {"dev-data", "/data/", "Query the copies", trust}, {"broken-dev", "/", "Trusts somebody else", strict},
		{"prod-readonly", "/", "Look at everything, change nothing", trust},
	}
	if sly {
		all = append(all, one{"sly-dev", "/x;touch${IFS}$WORK/owned;`touch${IFS}$WORK/owned`#\"'/", "Made by somebody with a plan", trust},
			one{"sly-broken", "/", "Says to terminals what to do", strings.Replace(strict, `"Effect"`, `"Sid":"`+"\u009b2J\u202e"+`","Effect"`, 1)})
	}
	for _, r := range all {
		w.aws.PutRole(awstest.Role{Name: r.name, Path: r.path, Description: r.description, MaxSessionDuration: 14400,
			Tags: map[string]string{"serval": ""}, Trust: r.trust, Inline: map[string]string{"list": allow}})
		roles = append(roles, serval.Role{
			ARN: w.aws.RoleARN(r.name), RoleID: w.aws.RoleID(r.name), Name: r.name, Path: r.path, Description: r.description, CreatedAt: time.Now(),
			MaxSessionSeconds: 14400, Tags: map[string]string{"serval": ""}, TrustPolicy: serval.Document(r.trust),
			InlinePolicies: serval.InlinePolicies{Status: serval.ListRead}, ManagedPolicies: serval.ManagedPolicies{Status: serval.ListRead},
		})
	}
	return roles
}

// start runs the bridge until deferred.
func (w *world) start(c bridge.Config, deferred func(func())) error {
	ctx, cancel := context.WithCancel(context.Background())
	ended, serving := make(chan error, 1), make(chan string, 1)
	c.Serving = func(pages, _ net.Addr) { serving <- pages.String() }
	go func() { ended <- bridge.Run(ctx, c) }()
	deferred(func() { cancel(); <-ended })
	select {
	case address := <-serving:
		w.front.mu.Lock()
		defer w.front.mu.Unlock()
		w.front.behind = &httputil.ReverseProxy{
			ErrorLog: log.New(io.Discard, "", 0), // of callers that were killed
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(&url.URL{Scheme: "http", Host: address})
				r.Out.Host = r.In.Host
			},
		}
		return nil
	case err := <-ended:
		ended <- err
		return fmt.Errorf("the bridge ended: %w", err)
	case <-time.After(30 * time.Second):
		return errors.New("the bridge does not serve after 30 s")
	}
}

// push has a worker push the roles.
func (w *world) push(roles []serval.Role) error {
	var opened wire.Sync
	if err := w.call(http.DefaultClient, "POST", "/upstream/accounts/"+prod+"/syncs", wire.OpenSync{Worker: "w"}, &opened); err != nil {
		return err
	}
	inv := serval.Inventory{AccountID: prod, AccountName: "prod", Generation: opened.Generation, Complete: true, ReadBy: serval.ByRoles,
		StartedAt: time.Now(), FinishedAt: time.Now(), Roles: roles}
	inv.Normalize()
	var body bytes.Buffer
	if err := wire.WriteInventory(&body, inv); err != nil {
		return err
	}
	return w.call(http.DefaultClient, "PUT", "/upstream/accounts/"+prod+"/inventory", json.RawMessage(body.Bytes()), nil)
}

// environ is what a laptop of this world has in its environment. Somebody is at it from
// afar: where there is always a desktop, as on macOS, no test opens its browser.
func (w *world) environ() [][2]string {
	return [][2]string{
		{"HOME", w.dir}, {"SERVAL_CLIENT_DIR", filepath.Join(w.dir, "laptop")}, {"SERVAL_BRIDGE_URL", w.front.origin}, {"SERVAL_KEYCHAIN", "off"},
		{"SERVAL_NO_INPUT", "true"}, {"BROWSER", "browser"}, {"BROWSER_DOOR", w.door}, {"SSH_CONNECTION", "192.0.2.1 50000 192.0.2.2 22"}, {"CLOCK", w.clock}, {"SHELL", "/bin/sh"},
		{"AWS_ENDPOINT_URL", w.awsAt}, {"AWS_EC2_METADATA_DISABLED", "true"}, {"AWS_REGION", "us-west-1"}, {"AWS_DEFAULT_REGION", "us-west-1"}, {"AWS_CONFIG_FILE", filepath.Join(w.dir, "aws-config")},
		{"DEV", "arn:aws:iam::" + prod + ":role/dev"}, {"PROD", "arn:aws:iam::" + prod + ":role/prod-readonly"}, {"ORIGIN", w.front.origin},
		{"NO_PROXY", "127.0.0.1"},
	}
}

// serveOn serves h on loopback until deferred, and returns its origin.
func serveOn(h http.Handler, deferred func(func())) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	deferred(func() { s.Close(); <-done })
	return "http://" + l.Addr().String(), nil
}

// A front stands before the bridge, and can be in its way.
type front struct {
	origin string

	mu     sync.Mutex // guards what follows
	behind http.Handler
	is     string // up where empty
	skew   time.Duration
	times  int // that it is so; 0: from now on
}

func (f *front) become(what string, args ...string) (err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.is, f.skew, f.times = what, 0, 0
	if what == "skewed" {
		f.skew, err = time.ParseDuration(args[0])
	}
	return err
}

// ServeHTTP answers as the bridge does, or as what is in its way.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	is, skew, behind := f.is, f.skew, f.behind
	f.mu.Unlock()
	switch is {
	case "away":
		panic(http.ErrAbortHandler) // the connection ends without a word
	case "broken":
		http.Error(w, "upstream connect error", http.StatusBadGateway)
	case "foreign":
		fmt.Fprint(w, "<html>Welcome to the airport. Sign in to use the internet.</html>")
	default:
		if skew != 0 {
			w = dated{w, skew}
		}
		behind.ServeHTTP(w, r)
	}
}

// dated has another date.
type dated struct {
	http.ResponseWriter
	skew time.Duration
}

func (d dated) WriteHeader(status int) {
	d.Header().Set("Date", time.Now().Add(d.skew).UTC().Format(http.TimeFormat))
	d.ResponseWriter.WriteHeader(status)
}

// jar returns the cookies of a person's browser.
func (w *world) jar(email string) *http.Client {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.jars[email] == nil {
		w.jars[email], _ = cookiejar.New(nil)
	}
	return &http.Client{Jar: w.jars[email], CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// openDoor is the browser: it is handed an address, and its person does what is
// asked there, in their own time.
func (w *world) openDoor(rw http.ResponseWriter, r *http.Request) {
	address := r.PostFormValue("address")
	w.mu.Lock()
	email, says := w.email, w.says
	if u, err := url.Parse(address); err == nil {
		w.seen = append(w.seen, u.Path)
	}
	w.mu.Unlock()
	rw.WriteHeader(http.StatusNoContent)
	if says == "never" {
		return
	}
	go w.visit(email, says, address)
}

var hidden = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)"`)

// visit opens an address, signs in where that is asked, and answers the page on
// which a client is let in.
func (w *world) visit(email, says, address string) error {
	client := w.jar(email)
	for range 10 {
		at, page, err := get(client, address)
		switch {
		case err != nil:
			return err
		case at.StatusCode == http.StatusSeeOther || at.StatusCode == http.StatusFound:
			to, err := at.Location()
			if err != nil {
				return err
			}
			address = to.String()
			if strings.HasPrefix(address, w.idp.Issuer()) {
				back, err := w.idp.SignIn(address, email)
				if err != nil {
					return err
				}
				address = back.String()
			}
		case strings.HasSuffix(at.Request.URL.Path, "/client/authorize"):
			form := url.Values{"decision": {says}}
			for _, m := range hidden.FindAllStringSubmatch(page, -1) {
				form.Set(m[1], html.UnescapeString(m[2]))
			}
			answer, err := w.form(client, "/client/authorize", form)
			if err != nil {
				return err
			}
			to, err := answer.Location()
			if err != nil {
				return fmt.Errorf("letting a client in answered %d", answer.StatusCode)
			}
			address = to.String()
		default:
			return nil
		}
	}
	return errors.New("the browser was sent round and round")
}

func get(client *http.Client, address string) (*http.Response, string, error) {
	answer, err := client.Get(address)
	if err != nil {
		return nil, "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return answer, string(text), err
}

// call calls the API as whoever the client is.
func (w *world) call(client *http.Client, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	r, err := http.NewRequest(method, w.front.origin+"/api/v1"+path, body)
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Origin", w.front.origin)
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	if strings.HasPrefix(path, "/upstream/") {
		r.Header.Set("Authorization", "Bearer "+w.token)
	}
	answer, err := client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode >= 300 {
		return fmt.Errorf("%s %s answered %d: %s", method, path, answer.StatusCode, text)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(text, out)
}

// enter returns a browser in which somebody is signed in.
func (w *world) enter(name string) (*http.Client, error) {
	email := name + "@example.com"
	return w.jar(email), w.visit(email, "", w.front.origin+"/oidc/auth/login?return_to=/api/v1/me")
}

// decide has the approver decide what waits.
func (w *world) decide(outcome string) error {
	bo, err := w.enter("bo")
	if err != nil {
		return err
	}
	var list wire.Requests
	if err := w.call(bo, "GET", "/approvals", nil, &list); err != nil {
		return err
	}
	if len(list.Requests) != 1 {
		return fmt.Errorf("%d requests wait, want one", len(list.Requests))
	}
	return w.call(bo, "POST", "/requests/"+list.Requests[0].ID+"/decisions", wire.Decision{Outcome: outcome, Reason: "As you like"}, nil)
}

// revoke has an admin take away everything that runs.
func (w *world) revoke() error {
	adm, err := w.enter("adm")
	if err != nil {
		return err
	}
	var list wire.Requests
	if err := w.call(adm, "GET", "/requests?all=true&running=true", nil, &list); err != nil {
		return err
	}
	if len(list.Requests) == 0 {
		return errors.New("nothing runs that could be revoked")
	}
	for _, r := range list.Requests {
		if err := w.call(adm, "POST", "/requests/"+r.ID+"/revoke", wire.Revocation{Reason: "Enough"}, nil); err != nil {
			return err
		}
	}
	return nil
}

// An outcome is what became of a program.
type outcome struct {
	code           int
	stdout, stderr string
}

// parallel runs a program many times at once.
func (w *world) parallel(n int, dir string, command []string, getenv func(string) string) []outcome {
	outcomes := make([]outcome, n)
	var all sync.WaitGroup
	for i := range outcomes {
		all.Go(func() {
			c := exec.Command(command[0], command[1:]...)
			if found, err := lookIn(getenv("PATH"), command[0]); err == nil {
				c = exec.Command(found, command[1:]...)
			}
			c.Dir = dir
			for _, v := range append(w.environ(), [2]string{"PATH", getenv("PATH")}, [2]string{"TMPDIR", getenv("TMPDIR")}) {
				c.Env = append(c.Env, v[0]+"="+v[1])
			}
			var stdout, stderr strings.Builder
			c.Stdout, c.Stderr = &stdout, &stderr
			err := c.Run()
			o := outcome{stdout: stdout.String(), stderr: stderr.String()}
			if exited, ok := errors.AsType[*exec.ExitError](err); ok {
				o.code = exited.ExitCode()
			} else if err != nil {
				o.code, o.stderr = -1, err.Error()
			}
			outcomes[i] = o
		})
	}
	all.Wait()
	return outcomes
}

// lookIn finds a program in a path.
func lookIn(path, name string) (string, error) {
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, name)
		if info, err := os.Stat(file); err == nil && !info.IsDir() {
			return file, nil
		}
	}
	return "", exec.ErrNotFound
}

// waiting returns the id of the one request that waits for the approver.
func (w *world) waiting() (string, error) {
	bo, err := w.enter("bo")
	if err != nil {
		return "", err
	}
	var list wire.Requests
	if err := w.call(bo, "GET", "/approvals", nil, &list); err != nil {
		return "", err
	}
	if len(list.Requests) != 1 {
		return "", fmt.Errorf("%d requests wait, want one", len(list.Requests))
	}
	return list.Requests[0].ID, nil
}

var shownCode = regexp.MustCompile(`\b[A-Z]{4}-[A-Z]{4}\b`)

// typeCode types the code that appears in a file, and lets the device in.
func (w *world) typeCode(file string, stop <-chan struct{}) error {
	ana, err := w.enter("ana")
	if err != nil {
		return err
	}
	for {
		select {
		case <-stop:
			return errors.New("no code was shown")
		case <-time.After(50 * time.Millisecond):
		}
		text, err := os.ReadFile(file)
		code := shownCode.FindString(string(text))
		if err != nil || code == "" {
			continue
		}
		if _, err := w.form(ana, "/device", url.Values{"user_code": {code}}); err != nil {
			return err
		}
		_, err = w.form(ana, "/device/decide", url.Values{"user_code": {code}, "decision": {"approve"}})
		return err
	}
}

// form posts a form of a page's.
func (w *world) form(client *http.Client, path string, values url.Values) (*http.Response, error) {
	r, err := http.NewRequest("POST", w.front.origin+path, strings.NewReader(values.Encode()))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Origin", w.front.origin)
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	answer, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	answer.Body.Close()
	if answer.StatusCode >= 400 {
		return nil, fmt.Errorf("POST %s answered %d", path, answer.StatusCode)
	}
	return answer, nil
}
