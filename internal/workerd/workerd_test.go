package workerd_test

import (
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/serval-bridge/serval-bridge/internal/awsiam"
	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/upstream"
	"github.com/serval-bridge/serval-bridge/internal/wire"
	"github.com/serval-bridge/serval-bridge/internal/worker"
	"github.com/serval-bridge/serval-bridge/internal/workerd"
)

func TestMain(m *testing.M) {
	if text := os.Getenv(aWorker); text != "" {
		if err := workAlone(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

const (
	hub      = "999988887777"
	good     = "111122223333"
	bad      = "444455556666" // its trust policy asks for another External ID
	external = "external-id-of-the-team"
)

func allow(actions ...string) string {
	return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["` + strings.Join(actions, `","`) + `"],"Resource":"*"}]}`
}

func trust(external string) string {
	return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::%s:root"},`+
		`"Action":["sts:AssumeRole","sts:TagSession"],"Condition":{"StringEquals":{"sts:ExternalId":%q}}}]}`, hub, external)
}

// A far is an upstream that judges what it is sent.
type far struct {
	t        *testing.T
	cloud    *awstest.Cloud // whose accounts it lists
	token    string
	identity string // how the ARN begins that a worker has to say first; empty: it need not

	mu          sync.Mutex
	generations map[string]int64
	accepted    map[string]serval.Inventory
	roles       map[string]int
	all         chan struct{} // closed when both accounts were pushed
}

func (f *far) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer "+f.token {
		f.t.Errorf("%s %s came without the token", r.Method, r.URL.Path)
	}
	id := strings.Split(r.URL.Path+"/////", "/")[5]
	switch r.Method {
	case http.MethodGet:
		if f.identity != "" && !strings.HasPrefix(r.URL.Query().Get("identity"), f.identity) {
			json.NewEncoder(w).Encode(wire.WorkerAccounts{}) // not before it has said who it is
			return
		}
		if r.URL.Query().Get("version") != "" {
			f.mu.Unlock()
			<-r.Context().Done() // nothing is new
			f.mu.Lock()
			return
		}
		var list []wire.WorkerAccount
		for _, id := range []string{good, bad} {
			list = append(list, wire.WorkerAccount{
				ID: id, Name: "account " + id, Partition: "aws", ExternalID: external, RoleARN: "arn:aws:iam::" + id + ":role/serval-ingestion",
			})
		}
		json.NewEncoder(w).Encode(wire.WorkerAccounts{Version: "1", Accounts: list})
	case http.MethodPost:
		f.generations[id]++
		json.NewEncoder(w).Encode(wire.Sync{Generation: f.generations[id], Until: wire.Time{Time: time.Now().Add(time.Minute)}})
	case http.MethodPut:
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			f.t.Errorf("pushed something else than gzip: %v", err)
			return
		}
		inv, err := wire.ReadInventory(z, func(serval.Role) error { f.roles[id]++; return nil })
		if err != nil || inv.Generation != f.generations[id] || inv.AccountID != id {
			f.t.Errorf("pushed %+v for account %s (%v)", inv, id, err)
		}
		if f.accepted[id] = inv; len(f.accepted) == 2 {
			close(f.all)
		}
		json.NewEncoder(w).Encode(wire.Push{Generation: inv.Generation, Added: f.roles[id]})
	}
}

// An estate is a cloud with two accounts, and an upstream that lists them.
func estate(t *testing.T) (*far, workerd.Config, *observer.ObservedLogs) {
	t.Helper()
	cloud := awstest.New(awstest.Options{})
	home := cloud.AddAccount(hub, "hub")
	home.PutRole(awstest.Role{Name: "worker", Inline: map[string]string{"hop": allow("sts:AssumeRole", "sts:TagSession")}})
	for id, external := range map[string]string{good: external, bad: "quite-another"} {
		a := cloud.AddAccount(id, "account "+id)
		a.PutRole(awstest.Role{Name: "serval-ingestion", Trust: trust(external), Inline: map[string]string{"read": allow(serval.IngestionActions()...)}})
		a.PutRole(awstest.Role{Name: "dev", Tags: map[string]string{"serval": ""}})
	}
	endpoint := cloud.Start(t)
	keys := home.PodIdentity("worker", time.Now())

	f := &far{t: t, cloud: cloud, token: rand.Text(), generations: map[string]int64{}, accepted: map[string]serval.Inventory{}, roles: map[string]int{}, all: make(chan struct{})}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.DebugLevel)
	level := zap.NewAtomicLevel()
	now := time.Now() // by the clock no account is due again within a test, whatever time it is
	schedule := worker.Schedule{Interval: 4 * time.Hour, Offset: now.Sub(now.Truncate(24*time.Hour)) + 2*time.Hour}
	return f, workerd.Config{
		Upstream: upstream.Config{BaseURL: server.URL, Token: func() (serval.Secret, error) { return serval.NewSecret(f.token), nil }},
		AWS: awsiam.Config{
			STSEndpoint: endpoint, IAMEndpoint: endpoint,
			Credentials: credentials.NewStaticCredentialsProvider(keys.AccessKeyID, keys.SecretAccessKey, keys.SessionToken),
		},
		Schedule: schedule, Name: "worker-0", Admin: listener, Log: zap.New(core), Level: &level,
	}, logs
}

func TestTheWorkerRuns(t *testing.T) {
	f, config, logs := estate(t)
	f.identity = "arn:aws:sts::" + hub + ":assumed-role/worker/"
	admin := "http://" + config.Admin.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- workerd.Run(ctx, config) }()
	select {
	case <-f.all:
	case <-time.After(20 * time.Second):
		t.Fatal("not both accounts were pushed in twenty seconds")
	}

	if inv := f.accepted[good]; !inv.Complete || f.roles[good] != 1 {
		t.Errorf("the good account was pushed complete %t with %d roles, want true with 1", inv.Complete, f.roles[good])
	}
	inv := f.accepted[bad]
	if inv.Complete || len(inv.Problems) != 1 {
		t.Fatalf("the account that refuses us was pushed as %+v, want it incomplete with one problem", inv)
	}
	if p := inv.Problems[0]; p.Action != "sts:AssumeRole" || p.Code != "AccessDenied" || p.Target != "arn:aws:iam::"+bad+":role/serval-ingestion" ||
		!strings.Contains(p.Message, serval.TextNotAssumed) {
		t.Errorf("its problem is %+v, want AccessDenied of sts:AssumeRole on its ingestion role, with the check's text", p)
	}

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	page := func(path string) string {
		res, err := client.Get(admin + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Errorf("%s answered %d (%v)", path, res.StatusCode, err)
		}
		return string(text)
	}
	page("/livez")
	page("/readyz")
	if got := page("/loglevel"); !strings.Contains(got, "info") {
		t.Errorf("/loglevel says %q, want info", got)
	}
	// The last line is logged and counted after the upstream has answered.
	want := []string{
		`serval_worker_leader 1`,
		`serval_worker_aws_calls_total{action="iam:ListRoles",code="OK"} 1`,
		`serval_worker_aws_call_seconds_count{action="iam:GetRole"} 2`,
		"serval_worker_aws_calls_in_flight 0",
		`serval_worker_aws_pace{action="iam:GetRole",of="lowest"} 15`,
		`serval_worker_aws_calls_total{action="sts:AssumeRole",code="AccessDenied"} 1`,
		`serval_worker_last_sync_timestamp_seconds{account_id="` + good + `"}`,
		`serval_worker_sync_complete{account_id="` + good + `"} 1`,
		`serval_worker_sync_complete{account_id="` + bad + `"} 0`,
		`serval_worker_syncs_total{outcome="complete"} 1`,
		`serval_worker_syncs_total{outcome="unread"} 1`,
		`serval_worker_sync_seconds_count 2`,
	}
	var missing []string
	for range 3000 {
		metrics := page("/metrics")
		missing = nil
		for _, line := range want {
			if !strings.Contains(metrics, line) {
				missing = append(missing, line)
			}
		}
		if missing == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, line := range missing {
		t.Errorf("/metrics does not have %s", line)
	}

	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run ended with %v, want none: it was told to stop", err)
	}
	keys, err := config.AWS.Credentials.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range logs.All() { // at every level
		text := fmt.Sprint(e.Message, e.ContextMap())
		for _, secret := range []string{f.token, external, keys.SecretAccessKey, keys.SessionToken} {
			if strings.Contains(text, secret) {
				t.Errorf("the log shows a secret: %s", text)
			}
		}
	}
	if n := logs.FilterMessage("this worker's identity, which trust policies name").Len(); n != 1 {
		t.Errorf("the worker's identity was logged %d times, want once", n)
	}
}

// S-22: an account whose role can be assumed without its External ID is not read,
// and people see why.
func TestOpenRolesAreNotRead(t *testing.T) {
	f, config, _ := estate(t)
	open := strings.Replace(trust(external), "StringEquals", "StringEqualsIfExists", 1)
	f.cloud.Account(bad).SetTrust("serval-ingestion", open)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- workerd.Run(ctx, config) }()
	select {
	case <-f.all:
	case <-time.After(20 * time.Second):
		t.Error("not both accounts were pushed in twenty seconds")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if inv := f.accepted[good]; !inv.Complete || f.roles[good] != 1 {
		t.Errorf("the good account was pushed complete %t with %d roles, want true with 1", inv.Complete, f.roles[good])
	}
	inv := f.accepted[bad]
	if inv.Complete || f.roles[bad] != 0 || len(inv.Problems) != 1 || inv.Problems[0].Code != "ExternalIDNotRequired" {
		t.Errorf("the open account was pushed complete %t with %d roles and %+v, want nothing of it and the reason", inv.Complete, f.roles[bad], inv.Problems)
	}
}

func TestWhatCannotBegin(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, spoil := range map[string]func(*workerd.Config){
		"an upstream without TLS": func(c *workerd.Config) { c.Upstream.BaseURL = "http://serval.example.com" },
		"AWS without TLS":         func(c *workerd.Config) { c.AWS.STSEndpoint = "http://sts.example.com" },
		"an admin port in use":    func(c *workerd.Config) { c.Admin, c.AdminListen = nil, taken.Addr().String() },
		"an admin port that broke": func(c *workerd.Config) {
			c.Schedule = worker.Schedule{Interval: time.Hour}
			c.Admin.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, config, _ := estate(t)
			defer config.Admin.Close()
			spoil(&config)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := workerd.Run(ctx, config); err == nil || ctx.Err() != nil {
				t.Errorf("Run = %v; want the fault at once", err)
			}
		})
	}
}
