package awsiam_test

import (
	"context"
	"errors"
	"flag"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/awsiam"
	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

var update = flag.Bool("update", false, "write golden files")

// golden compares a text that people read with its file.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(got+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.TrimSuffix(string(want), "\n"), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// and the causes of section 2's health checks: what an admin reads.
func TestFailuresAreExplained(t *testing.T) {
	const ingest = "serval-ingest"
	worker := func(e *estate, policy string) {
		e.Account(hub).SetInline("worker", "hop", policy)
	}
	assume := func(code string, status int, message string) func(*estate, *awstest.Account, *serval.Account) {
		return func(e *estate, _ *awstest.Account, _ *serval.Account) {
			e.Inject(awstest.Fault{Action: "AssumeRole", Status: status, Code: code, Message: message})
		}
	}
	for _, tt := range []struct {
		name  string
		mess  func(e *estate, owner *awstest.Account, a *serval.Account)
		check awsiam.Stage
		text  string
	}{
		{"tagsession-trust", func(_ *estate, o *awstest.Account, _ *serval.Account) {
			o.SetTrust(ingest, trust(hub, external, "sts:AssumeRole"))
		}, awsiam.StageAssume, serval.TextNotAssumed},
		{"tagsession-worker", func(e *estate, _ *awstest.Account, _ *serval.Account) {
			worker(e, allow("sts:AssumeRole"))
		}, awsiam.StageAssume, serval.TextNotAssumed},
		{"external-id", func(_ *estate, _ *awstest.Account, a *serval.Account) { a.ExternalID = "wrong" }, awsiam.StageAssume, serval.TextNotAssumed},
		{"no-external-id", func(_ *estate, _ *awstest.Account, a *serval.Account) { a.ExternalID = "" }, awsiam.StageAssume, serval.TextNotAssumed},
		{"no-role", func(_ *estate, o *awstest.Account, _ *serval.Account) { o.DeleteRole(ingest) }, awsiam.StageAssume, serval.TextNotAssumed},
		{"worker-policy", func(e *estate, _ *awstest.Account, _ *serval.Account) { worker(e, allow("s3:*")) }, awsiam.StageAssume, serval.TextNotAssumed},
		{"region-disabled", assume("RegionDisabledException", 403, "STS is not activated in this region for account:444455556666."), awsiam.StageAssume, serval.TextNotAssumed},
		{"packed-policy", assume("PackedPolicyTooLarge", 400, "Packed size of session tags consumes 101% of allotted space."), awsiam.StageAssume, serval.TextNotAssumed},
		{"unknown-key", assume("InvalidClientTokenId", 403, "The security token included in the request is invalid."), awsiam.StageAssume, serval.TextNotAssumed},
		{"no-listroles", func(_ *estate, o *awstest.Account, _ *serval.Account) {
			o.SetInline(ingest, "read", allow("iam:GetRole"))
		}, awsiam.StageList, serval.TextNoListRoles},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
				tt.mess(e, owner, &a)
				r := e.reader(t)
				f := failureOf(t, r.Connect(t.Context(), a))
				if f.Check != tt.check || f.Text != tt.text {
					t.Errorf("check %s, text %q; want %s, %q", f.Check, f.Text, tt.check, tt.text)
				}
				text := f.Error()
				if _, session, ok := strings.Cut(text, "assumed-role/worker/"); ok { // its name is random
					name, _, _ := strings.Cut(session, " ")
					text = strings.ReplaceAll(text, strings.TrimSuffix(name, ")"), "SESSION")
				}
				golden(t, tt.name, text)
				_, err := r.Inventory(t.Context(), a, nil, "", nil)
				if g := failureOf(t, err); g.Check != f.Check || g.Code != f.Code {
					t.Errorf("Inventory says %s %s, Check says %s %s", g.Check, g.Code, f.Check, f.Code)
				}
			})
		})
	}
}

func TestCheckIsGood(t *testing.T) {
	inBubble(t, func(t *testing.T, e *estate, _ *awstest.Account, a serval.Account) {
		if err := e.reader(t).Connect(t.Context(), a); err != nil {
			t.Error(err)
		}
		if n := e.CountCalls(""); n != 2 {
			t.Errorf("%d calls, want AssumeRole and ListRoles", n)
		}
	})
}

// What is sent with AssumeRole: no tags, no policy, always the External ID.
func TestAssumeRoleParameters(t *testing.T) {
	inBubble(t, func(t *testing.T, e *estate, _ *awstest.Account, a serval.Account) {
		e.KeepParams(true)
		e.inventory(t, a)
		want := url.Values{
			"Action": {"AssumeRole"}, "Version": {"2011-06-15"}, "RoleArn": {a.RoleARN}, "RoleSessionName": {"serval-worker"},
			"DurationSeconds": {"900"}, "ExternalId": {external},
		}
		for _, c := range e.Calls() {
			if c.Action == "AssumeRole" {
				if diff := cmp.Diff(want, c.Params); diff != "" {
					t.Errorf("parameters (-want +got):\n%s", diff)
				}
			}
		}
	})
}

// The base role, and a chain through another account.
func TestChain(t *testing.T) {
	inBubble(t, func(t *testing.T, e *estate, owner *awstest.Account, a serval.Account) {
		const between = "777788889999"
		e.Account(hub).PutRole(awstest.Role{
			Name: "base", Path: "/global/", Trust: trustOf(hub, "sts:AssumeRole", "sts:TagSession"),
			Inline: map[string]string{"hop": allow("sts:AssumeRole", "sts:TagSession")},
		})
		e.AddAccount(between, "between").PutRole(awstest.Role{
			Name: "hop", Trust: trust(hub, "hop-id", "sts:AssumeRole", "sts:TagSession"),
			Inline: map[string]string{"hop": allow("sts:AssumeRole", "sts:TagSession")},
		})
		owner.SetTrust("serval-ingest", trust(between, external, "sts:AssumeRole", "sts:TagSession"))
		e.config.BaseRoleARN = "arn:aws:iam::" + hub + ":role/global/base"
		a.Via = []serval.Hop{{RoleARN: "arn:aws:iam::" + between + ":role/hop", ExternalID: "hop-id"}}
		r := e.reader(t)
		for range 2 {
			inv, err := r.Inventory(t.Context(), a, nil, "", nil)
			if err != nil || len(inv.Roles) != 6 {
				t.Fatalf("%v, %v; want all six", names(inv), err)
			}
		}
		if n := e.CountCalls("AssumeRole"); n != 5 {
			t.Errorf("%d roles assumed for two readings, want the base role once and two roles twice", n)
		}
		partition, account, arn, err := r.Identity(t.Context())
		if err != nil || partition != "aws" || account != hub || arn != "arn:aws:sts::"+hub+":assumed-role/base/serval-worker" {
			t.Errorf("identity %s %s %s, %v; want the base role's session", partition, account, arn, err)
		}
	})
}

func trustOf(account string, actions ...string) string {
	return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::` + account + `:root"},"Action":["` +
		strings.Join(actions, `","`) + `"]}]}`
}

// sessions of fifteen minutes, and a reading of seventeen.
func TestSessionEndsInMidAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEstateInMemory(t, awstest.Options{})
		owner, a := e.connect(spoke)
		shape{roles: 100, tagged: 10, inline: 1}.fill(e, owner)
		e.config.Concurrency = 1
		e.SetLatency(func() time.Duration { return 8 * time.Second })
		start := time.Now()
		inv := e.inventory(t, a)
		if took := time.Since(start); took < 16*time.Minute || !inv.Complete || len(inv.Roles) != 10 {
			t.Errorf("complete %v after %v with %d roles; want all ten after a quarter of an hour", inv.Complete, took, len(inv.Roles))
		}
		if n := e.CountCalls("AssumeRole"); n != 2 {
			t.Errorf("%d sessions, want 2", n)
		}
	})
	// AWS may end a session before its time: it is renewed once for all calls.
	inBubble(t, func(t *testing.T, e *estate, _ *awstest.Account, a serval.Account) {
		e.Inject(awstest.Fault{Action: "GetRole", After: 2, Times: 3, Status: 403, Code: "ExpiredToken"})
		inv := e.inventory(t, a)
		if !inv.Complete || e.CountCalls("AssumeRole") > 4 {
			t.Errorf("complete %v after %d sessions, unreadable %v; want it renewed", inv.Complete, e.CountCalls("AssumeRole"), inv.Unreadable)
		}
	})
	inBubble(t, func(t *testing.T, e *estate, _ *awstest.Account, a serval.Account) {
		e.Inject(awstest.Fault{Action: "GetRole", Status: 403, Code: "ExpiredToken",
			Match: func(r *awstest.Request) bool { return r.Params.Get("RoleName") == "role1" }})
		inv := e.inventory(t, a)
		if inv.Complete || len(inv.Unreadable) != 1 || inv.Unreadable[0].Code != "ExpiredToken" {
			t.Errorf("complete %v, unreadable %v; want the one role given up", inv.Complete, inv.Unreadable)
		}
	})
}

// A source of base credentials that can fail.
type source struct {
	mu    sync.Mutex
	fetch func() (aws.Credentials, error)
	asked int
}

func (s *source) Retrieve(context.Context) (aws.Credentials, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	return s.fetch()
}

// renewed five minutes early, the last good ones used to their end, and no storm in between.
func TestBaseCredentialsFail(t *testing.T) {
	inBubble(t, func(t *testing.T, e *estate, _ *awstest.Account, a serval.Account) {
		good := true
		s := &source{}
		s.fetch = func() (aws.Credentials, error) {
			if !good {
				return aws.Credentials{}, errors.New("the agent does not answer")
			}
			k := e.Account(hub).PodIdentity("worker", time.Now())
			return aws.Credentials{AccessKeyID: k.AccessKeyID, SecretAccessKey: k.SecretAccessKey, SessionToken: k.SessionToken,
				CanExpire: true, Expires: k.Expiration}, nil
		}
		e.config.Credentials = s
		r := e.reader(t)
		check := func(want string) {
			t.Helper()
			err := r.Connect(t.Context(), a)
			if f, ok := errors.AsType[*awsiam.Failure](err); ok && f.Check == awsiam.StageCredentials && f.Code == want || err == nil && want == "" {
				return
			}
			t.Errorf("after %d fetches: %v, want %q", s.asked, err, want)
		}
		check("")
		time.Sleep(5*time.Hour + 54*time.Minute)
		check("")
		if s.asked != 1 {
			t.Errorf("%d fetches before the last five minutes, want 1", s.asked)
		}
		good = false
		time.Sleep(2 * time.Minute)
		check("")
		check("")
		if s.asked != 2 {
			t.Errorf("%d fetches, want one renewal tried", s.asked)
		}
		time.Sleep(5 * time.Minute)
		check("NoCredentials")
		check("NoCredentials")
		if s.asked != 3 {
			t.Errorf("%d fetches, want a pause between them", s.asked)
		}
		good = true
		time.Sleep(time.Minute)
		check("")
	})
}

// clocks ten minutes apart are seen, and told; twenty apart, too, they are worked around.
func TestClockSkew(t *testing.T) {
	for _, skew := range []time.Duration{10 * time.Minute, -10 * time.Minute, 20 * time.Minute, -20 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			e := newEstateInMemory(t, awstest.Options{Now: func() time.Time { return time.Now().Add(skew) }})
			_, a := e.connect(spoke)
			r := e.reader(t)
			if err := r.Connect(t.Context(), a); err != nil {
				t.Errorf("AWS %v ahead: %v, want it to work", skew, err)
			}
			if got := r.Skew(); (got - skew).Abs() > 2*time.Second {
				t.Errorf("skew %v, want %v", got, skew)
			}
			e.Inject(awstest.Fault{Action: "ListRoles", Status: 403, Code: "SignatureDoesNotMatch", Message: "Signature expired."})
			f := failureOf(t, r.Connect(t.Context(), a))
			if f.Skew.Abs() < 9*time.Minute || !strings.Contains(f.Cause, "The clock here is ") {
				t.Errorf("failure %+v, want the skew in it", f)
			}
		})
	}
}

// A worker serves its own partition and refuses others by name.
func TestForeignPartition(t *testing.T) {
	inBubble(t, func(t *testing.T, e *estate, _ *awstest.Account, a serval.Account) {
		a.Partition, a.RoleARN = "aws-cn", "arn:aws-cn:iam::"+spoke+":role/serval-ingest"
		r := e.reader(t)
		for range 2 {
			_, err := r.Inventory(t.Context(), a, nil, "", nil)
			if !serval.IsRefusal(err, serval.FailedPrecondition) || !strings.Contains(err.Error(), "aws-cn") {
				t.Errorf("error %v, want a refusal that names the partition", err)
			}
		}
		if n := e.CountCalls("AssumeRole"); n != 1 {
			t.Errorf("%d calls, want none once the worker's partition is known", n)
		}
	})
}

// S-82, S-105: endpoints are regional and of the partition; neither AWS's endpoint variables nor a general
// proxy lead anywhere else.
func TestEndpoints(t *testing.T) {
	var decoys atomic.Int64
	decoy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { decoys.Add(1) }))
	defer decoy.Close()
	for _, name := range []string{"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL_IAM", "HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"} {
		t.Setenv(name, decoy.URL)
	}
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte("[default]\nendpoint_url = "+decoy.URL+"\nregion = eu-west-1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_CONFIG_FILE", file)
	for partition, want := range map[string][]string{
		"aws":        {"sts.us-west-1.amazonaws.com:443", "iam.amazonaws.com:443"},
		"aws-cn":     {"sts.cn-north-1.amazonaws.com.cn:443", "iam.cn-north-1.amazonaws.com.cn:443"},
		"aws-us-gov": {"sts.us-gov-west-1.amazonaws.com:443", "iam.us-gov.amazonaws.com:443"},
	} {
		synctest.Test(t, func(t *testing.T) {
			e := newEstateInMemory(t, awstest.Options{Partition: partition})
			_, a := e.connect(spoke)
			a.Partition, a.RoleARN = partition, "arn:"+partition+":iam::"+spoke+":role/serval-ingest"
			inMemory := e.config.Dial
			var mu sync.Mutex
			dialed := make(map[string]bool)
			e.config.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				mu.Lock()
				dialed[address] = true
				mu.Unlock()
				if strings.HasSuffix(address, ":443") {
					return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
				}
				return inMemory(ctx, network, address)
			}
			check := func(sts, iam string) {
				c := e.config
				c.STSEndpoint, c.IAMEndpoint = sts, iam
				r, err := awsiam.New(t.Context(), c)
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				if f := failureOf(t, r.Connect(t.Context(), a)); f.Code != "NoConnection" {
					t.Errorf("%s: %v, want no connection", partition, f)
				}
			}
			check("", e.config.IAMEndpoint)
			check(e.config.STSEndpoint, "")
			for _, address := range want {
				if !dialed[address] {
					t.Errorf("partition %s: dialed %v, want %s", partition, dialed, address)
				}
			}
		})
	}
	if n := decoys.Load(); n != 0 {
		t.Errorf("%d requests went to what the environment names, want none", n)
	}
	if _, err := awsiam.New(t.Context(), awsiam.Config{STSEndpoint: "http://sts.example.com", IAMEndpoint: "ftp://x", BaseRoleARN: "role"}); !serval.IsRefusal(err, serval.Invalid) ||
		!strings.Contains(err.Error(), "STS") || !strings.Contains(err.Error(), "IAM") || !strings.Contains(err.Error(), "base role") {
		t.Errorf("error %v, want all three faults refused together", err)
	}
}

// An account's own way: a dial address for STS alone, a proxy for all its calls.
func TestDialAndProxy(t *testing.T) {
	e := newEstate(t)
	_, a := e.connect(spoke)
	address := strings.TrimPrefix(e.config.STSEndpoint, "http://")

	dialed := a
	dialed.STS = serval.STS{Endpoint: "http://127.0.0.1:9", Dial: address, Region: "eu-central-1"}
	if err := e.reader(t).Connect(t.Context(), dialed); err != nil {
		t.Errorf("with dial: %v", err)
	}

	var hosts sync.Map
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hosts.Store(r.URL.Host, true)
		e.ServeHTTP(w, r)
	}))
	defer proxy.Close()
	proxied := a
	proxied.STS = serval.STS{Endpoint: "http://127.0.0.1:9", HTTPProxy: proxy.URL}
	if err := e.reader(t).Connect(t.Context(), proxied); err != nil {
		t.Errorf("with a proxy: %v", err)
	}
	for _, host := range []string{"127.0.0.1:9", address} {
		if _, ok := hosts.Load(host); !ok {
			t.Errorf("the proxy was not asked for %s", host)
		}
	}

	refused := a
	refused.STS.Endpoint = "http://sts.example.com"
	if err := e.reader(t).Connect(t.Context(), refused); !serval.IsRefusal(err, serval.Invalid) {
		t.Errorf("plain http: %v, want a refusal", err)
	}
}

// A key that is wrong, and a name that does not resolve, are failures and not faults.
func TestNothingThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEstateInMemory(t, awstest.Options{})
		_, a := e.connect(spoke)
		n := 0
		dial := e.config.Dial
		e.config.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if n++; n <= 3 { // resolved anew at every try
				return nil, &net.DNSError{Err: "server misbehaving", IsTemporary: true}
			}
			return dial(ctx, network, address)
		}
		if err := e.reader(t).Connect(t.Context(), a); err != nil {
			t.Errorf("after three SERVFAIL: %v, want it to work", err)
		}
	})
}
