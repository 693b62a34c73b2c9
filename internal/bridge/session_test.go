package bridge

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/idptest"
	"github.com/serval-bridge/serval-bridge/internal/login"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

const prod = "111122223333"

// An estate is a bridge with people, an account and a role that can be opened.
type estate struct {
	t     *testing.T
	c     Config
	idp   *idptest.Provider
	cloud *awstest.Cloud
	aws   *awstest.Account
	logs  *observer.ObservedLogs
	running
	token serval.Secret // of the worker
	trust string        // of the role
}

// newEstate runs a bridge with its configuration changed, and has a worker push
// the role.
func newEstate(t *testing.T, change func(c *Config)) *estate {
	t.Helper()
	e := &estate{t: t, c: config(t)}
	e.idp = idptest.New(idptest.Options{
		ClientID: "client", ClientSecret: "the-secret-of-the-client", RedirectURIs: []string{"http://127.0.0.1:1/oidc/auth/callback"},
		People: []idptest.Person{{Subject: "00u1ana", Name: "Ana", Email: "ana@example.com", EmailVerified: true, Groups: []string{"engineering"}}},
	})
	issuer := e.idp.Start(t)
	e.c.OIDC = login.Config{Issuer: issuer, ClientID: "client", ClientSecret: serval.NewSecret("the-secret-of-the-client")}
	e.cloud = awstest.New(awstest.Options{})
	e.c.STSEndpoint = e.cloud.Start(t)
	e.c.SigninEndpoint = e.c.STSEndpoint
	e.aws = e.cloud.AddAccount(prod, "prod")
	provider := e.aws.PutOIDCProvider(issuer, "client")
	trust := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Federated":"` + provider + `"},"Action":"sts:AssumeRoleWithWebIdentity",
		"Condition":{"StringEquals":{"` + strings.TrimPrefix(issuer, "http://") + `:aud":"client"}}}]}`
	e.aws.PutRole(awstest.Role{Name: "dev", MaxSessionDuration: 14400, Tags: map[string]string{"serval": ""}, Trust: trust})
	file := tokenFile(t, 40)
	e.c.File.Accounts = []serval.Account{{ID: prod, Name: "prod", Partition: "aws", RoleARN: "arn:aws:iam::" + prod + ":role/serval-ingestion"}}
	e.c.File.UpstreamTokens = []UpstreamToken{{Name: "hub", Accounts: []string{prod}, SecretFile: file}}
	e.c.File.Policies = []serval.AccessPolicy{{
		Name: "auto", Roles: serval.RoleMatch{ARNs: []string{"*"}}, Eligible: serval.People{Groups: []string{"engineering"}},
		Approval: serval.Approval{Automatic: true}, MaxMinutes: 480,
	}}
	core, logs := observer.New(zapcore.DebugLevel)
	e.c.Log, e.logs = zap.New(core), logs
	if change != nil {
		change(&e.c)
	}
	e.running = start(t, e.c)
	var err error
	if e.token, err = readToken(file); err != nil {
		t.Fatal(err)
	}

	worker := e.client()
	var opened wire.Sync
	e.json(worker, "POST", "/api/v1/upstream/accounts/"+prod+"/syncs", wire.OpenSync{Worker: "w"}, 200, &opened)
	e.trust = trust
	e.json(worker, "PUT", "/api/v1/upstream/accounts/"+prod+"/inventory", inventoryOf(e, opened.Generation), 200, nil)
	return e
}

// inventoryOf returns the account with its one role, as of a generation.
func inventoryOf(e *estate, generation int64) json.RawMessage {
	e.t.Helper()
	inv := serval.Inventory{
		AccountID: prod, AccountName: "prod", Generation: generation, Complete: true, ReadBy: serval.ByRoles, StartedAt: time.Now(), FinishedAt: time.Now(),
		Roles: []serval.Role{{
			ARN: e.aws.RoleARN("dev"), RoleID: e.aws.RoleID("dev"), Name: "dev", Path: "/", CreatedAt: time.Now(), MaxSessionSeconds: 14400,
			Tags: map[string]string{"serval": ""}, TrustPolicy: serval.Document(e.trust),
			InlinePolicies: serval.InlinePolicies{Status: serval.ListRead}, ManagedPolicies: serval.ManagedPolicies{Status: serval.ListRead},
		}},
	}
	inv.Normalize()
	var body bytes.Buffer
	if err := wire.WriteInventory(&body, inv); err != nil {
		e.t.Fatal(err)
	}
	return body.Bytes()
}

// client returns a browser without anybody in it.
func (e *estate) client() *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		e.t.Fatal(err)
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == "127.0.0.1:1" { // the public URL's
			address = e.pages
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}}
	e.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Jar: jar, Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// ask sends one request.
func (e *estate) ask(client *http.Client, method, path string, body any) (*http.Response, string, error) {
	var reader io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, "", err
		}
		reader = bytes.NewReader(text)
	}
	r, err := http.NewRequest(method, "http://127.0.0.1:1"+path, reader)
	if err != nil {
		return nil, "", err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if strings.Contains(path, "/upstream/") {
		r.Header.Set("Authorization", "Bearer "+e.token.Reveal())
	}
	res, err := client.Do(r)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res, string(text), err
}

// json sends a request and expects an answer.
func (e *estate) json(client *http.Client, method, path string, body any, status int, into any) *http.Response {
	e.t.Helper()
	res, text, err := e.ask(client, method, path, body)
	if err != nil {
		e.t.Fatal(err)
	}
	if res.StatusCode != status {
		e.t.Fatalf("%s %s answered %d, want %d: %s", method, path, res.StatusCode, status, text)
	}
	if into != nil {
		if err := json.Unmarshal([]byte(text), into); err != nil {
			e.t.Fatal(err)
		}
	}
	return res
}

// ana returns a browser in which Ana is signed in, and a request of hers that is
// approved.
func (e *estate) ana() (*http.Client, wire.Request) {
	e.t.Helper()
	ana := e.client()
	res := e.json(ana, "GET", "/oidc/auth/login", nil, 303, nil)
	back, err := e.idp.SignIn(res.Header.Get("Location"), "ana@example.com")
	if err != nil {
		e.t.Fatal(err)
	}
	e.json(ana, "GET", back.RequestURI(), nil, 303, nil)
	var made wire.Request
	e.json(ana, "POST", "/api/v1/requests", wire.NewRequest{RoleARN: e.aws.RoleARN("dev"), Minutes: 120}, 201, &made)
	return ana, made
}

// events returns the audit log, whose chain holds.
func (e *estate) events() (events []serval.Event) {
	e.t.Helper()
	archive, err := OpenArchive(e.t.Context(), e.c.DatabaseURL, e.c.Secret)
	if err != nil {
		e.t.Fatal(err)
	}
	defer archive.Close()
	if _, err := archive.Verify(e.t.Context(), store.Head{}); err != nil {
		e.t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := archive.Export(e.t.Context(), &out); err != nil {
		e.t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		var event serval.Event
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			e.t.Fatal(err)
		}
		events = append(events, event)
	}
	return events
}

// What the settings say of sessions is what happens.
func TestSessionSettings(t *testing.T) {
	t.Run("by default", func(t *testing.T) {
		e := newEstate(t, nil)
		ana, made := e.ana()
		var c wire.Credentials
		e.json(ana, "POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID, Narrow: &wire.Narrow{ReadOnly: true}}, 200, &c)
		if left := time.Until(c.EndsAt.Time); left < 119*time.Minute || !c.RenewAt.IsZero() {
			t.Errorf("a session for %s, to renew at %s; want two hours, and none", left, c.RenewAt)
		}
		res := e.json(ana, "GET", "/requests/"+made.ID, nil, 200, nil)
		if policy := res.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "https://*.aws.amazon.com") || !strings.Contains(policy, e.c.SigninEndpoint) {
			t.Errorf("the page's form may not lead to the console: %s", policy)
		}
		res = e.json(ana, "POST", c.ConsolePath, nil, 303, nil)
		if to := res.Header.Get("Location"); !strings.HasPrefix(to, e.c.SigninEndpoint+"/federation?") {
			t.Errorf("the console opens at %q", to)
		}
		// Nothing of it is in the metrics, and how full AWS's room is, is.
		_, metrics := get(t, e.admin+"/metrics")
		if !strings.Contains(metrics, "serval_session_packed_policy_percent_count 2") {
			t.Error("the metrics do not tell of the two sessions' limits")
		}
		secrets := slices.Concat(e.idp.Secrets(), e.cloud.Secrets(), []string{e.token.Reveal(), e.c.Secret.Reveal(), "the-secret-of-the-client", e.c.ExternalIDSecret.Reveal()})
		texts := map[string]string{"the metrics": metrics, "the log": fmt.Sprintf("%+v", e.logs.All())}
		for _, entry := range e.logs.All() {
			texts["the log"] += fmt.Sprint(entry.ContextMap())
		}
		files, err := filepath.Glob(strings.TrimPrefix(e.c.DatabaseURL.Reveal(), "sqlite://") + "*")
		if err != nil || len(files) == 0 {
			t.Fatalf("the files of the database: %v, %v", files, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			texts[filepath.Base(file)] = string(text)
		}
		for where, text := range texts {
			for _, s := range secrets {
				if len(s) >= 16 && strings.Contains(text, s) { // S-5, S-7
					t.Errorf("a secret is in %s", where)
				}
			}
		}
	})
	t.Run("leases", func(t *testing.T) {
		e := newEstate(t, func(c *Config) { c.Lease = 30 * time.Minute })
		ana, made := e.ana()
		var c wire.Credentials
		e.json(ana, "POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID}, 200, &c)
		if left := time.Until(c.EndsAt.Time); left > 30*time.Minute || left < 29*time.Minute || c.RenewAt.IsZero() {
			t.Errorf("a session for %s, to renew at %s; want half an hour", left, c.RenewAt)
		}
	})
	t.Run("without a session policy", func(t *testing.T) {
		e := newEstate(t, func(c *Config) { c.NoSessionPolicy = true })
		ana, made := e.ana()
		e.json(ana, "POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID, Narrow: &wire.Narrow{ReadOnly: true}}, 422, nil)
		_, page, err := e.ask(ana, "GET", "/requests/"+made.ID, nil)
		if err != nil || strings.Contains(page, "Narrow the session") {
			t.Errorf("the page offers to narrow the session: %v", err)
		}
		e.cloud.KeepParams(true)
		e.json(ana, "POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID}, 200, nil)
		calls := e.cloud.Calls()
		if sent := calls[len(calls)-1].Params; sent.Has("Policy") || sent.Get("Action") != "AssumeRoleWithWebIdentity" {
			t.Errorf("AWS was sent %v, want no session policy", sent)
		}
	})
}

// a bridge that is told to stop while 200 sessions are being opened is not
// ready at once, finishes each of them or opens none, and loses no row.
func TestStopWhileSessionsAreOpened(t *testing.T) {
	const sessions = 200
	e := newEstate(t, func(c *Config) {
		c.MintRate, c.DrainDelay, c.DrainTime = 10*sessions, 3*time.Second, 2*time.Minute
	})
	ana, made := e.ana()
	reached := make(chan struct{}, sessions)
	let := make(chan struct{})
	e.cloud.Inject(awstest.Fault{Action: "AssumeRoleWithWebIdentity", Hook: func(*awstest.Request) {
		reached <- struct{}{}
		<-let
	}})
	type outcome struct {
		key    string
		status int
		err    error
	}
	outcomes := make(chan outcome, sessions)
	var group sync.WaitGroup
	for range sessions {
		group.Go(func() {
			res, text, err := e.ask(ana, "POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID})
			o := outcome{err: err}
			if err == nil {
				var c wire.Credentials
				o.status, o.err = res.StatusCode, json.Unmarshal([]byte(text), &c)
				o.key = c.AccessKeyID
			}
			outcomes <- o
		})
	}
	for n := range sessions {
		select {
		case <-reached:
		case <-time.After(60 * time.Second):
			t.Fatalf("%d of %d sessions are being opened after a minute", n, sessions)
		}
	}
	stopped := make(chan error, 1)
	go func() { stopped <- e.stop() }()
	for {
		if status, _ := get(t, e.admin+"/readyz"); status != http.StatusOK {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	close(let)
	group.Wait()
	if err := <-stopped; err != nil {
		t.Errorf("stopping: %v, want an orderly end", err)
	}
	close(outcomes)

	rows := map[serval.Action]map[string]string{} // by session, the key
	for _, event := range e.events() {
		if rows[event.Action] == nil {
			rows[event.Action] = map[string]string{}
		}
		if id := event.Detail["session_id"]; id != "" {
			rows[event.Action][id] = event.Detail["access_key_id"]
		}
	}
	// What AWS or the database took too long over, on a busy machine, is not
	// handed over, and told so.
	delivered := map[string]bool{}
	failures := 0
	for o := range outcomes {
		switch {
		case o.err == nil && o.status == http.StatusOK:
			delivered[o.key] = true
		case o.err == nil && o.key == "" && o.status >= 500:
			failures++
		default:
			t.Errorf("a session that was being opened: %d with the key %q, %v", o.status, o.key, o.err)
		}
	}
	open, unused := 0, 0
	for id := range rows[serval.SessionOpen] {
		key, wasIssued := rows[serval.SessionIssue][id]
		_, failed := rows[serval.SessionFail][id]
		switch {
		case wasIssued && delivered[key]:
			delete(delivered, key)
		case wasIssued:
			unused++
		case !failed:
			open++ // closed as unknown within two minutes
		}
	}
	if len(delivered) > 0 {
		t.Errorf("keys were handed over without a row, or twice: %v", delivered)
	}
	if n := len(rows[serval.SessionOpen]); n != sessions || open+unused > failures || failures == sessions {
		t.Errorf("%d intents of %d sessions; %d have no outcome and %d were issued for nobody, with %d failures told", n, sessions, open, unused, failures)
	}
}
