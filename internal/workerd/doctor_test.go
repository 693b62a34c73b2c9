package workerd

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/serval-bridge/serval-bridge/internal/awsiam"
	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/checkup"
	"github.com/serval-bridge/serval-bridge/internal/dnstest"
	"github.com/serval-bridge/serval-bridge/internal/lease"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/upstream"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// A ward is what a doctor looks at: a cloud with the worker's account and one
// other, and an upstream that lists the latter.
type ward struct {
	t      *testing.T
	cloud  *awstest.Cloud
	home   *awstest.Account
	lists  []wire.WorkerAccount
	config Config
}

const (
	wardHome, wardAccount = "999988887777", "111122223333"
	wardTrust             = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::999988887777:root"},"Action":["sts:AssumeRole","sts:TagSession"],"Condition":{"StringEquals":{"sts:ExternalId":"an-external-id"}}}]}`
)

func newWard(t *testing.T) *ward {
	w := &ward{t: t, cloud: awstest.New(awstest.Options{})}
	allow := func(actions ...string) string {
		return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["` + strings.Join(actions, `","`) + `"],"Resource":"*"}]}`
	}
	w.home = w.cloud.AddAccount(wardHome, "hub")
	w.home.PutRole(awstest.Role{Name: "worker", Inline: map[string]string{"hop": allow("sts:AssumeRole", "sts:TagSession")}})
	w.cloud.AddAccount(wardAccount, "prod").PutRole(awstest.Role{Name: "serval-ingestion", Trust: wardTrust, Inline: map[string]string{"read": allow(serval.IngestionActions()...)}})
	w.lists = []wire.WorkerAccount{{ID: wardAccount, Name: "prod", Partition: "aws", ExternalID: "an-external-id", RoleARN: "arn:aws:iam::" + wardAccount + ":role/serval-ingestion"}}
	endpoint := w.cloud.Start(t)
	far := httptest.NewServer(http.HandlerFunc(func(a http.ResponseWriter, r *http.Request) {
		if err := json.NewEncoder(a).Encode(wire.WorkerAccounts{Version: "1", Accounts: w.lists}); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(far.Close)
	w.config = Config{
		AWS:      awsiam.Config{STSEndpoint: endpoint, IAMEndpoint: endpoint, Credentials: static(w.home.PodIdentity("worker", time.Now()))},
		Upstream: upstream.Config{BaseURL: far.URL, Token: func() (serval.Secret, error) { return serval.NewSecret("t"), nil }},
	}
	return w
}

func static(k awstest.Keys) aws.CredentialsProvider {
	return credentials.NewStaticCredentialsProvider(k.AccessKeyID, k.SecretAccessKey, k.SessionToken)
}

// finds holds the doctor to one finding of a check.
func (w *ward) finds(id, state, text string, skip ...string) {
	w.t.Helper()
	for _, f := range Examine(w.t.Context(), w.config, Examination{Skip: skip}) {
		if f.ID == id {
			if f.State != state || !strings.Contains(f.Text, text) || (f.Mend == "") != (state == checkup.OK || state == checkup.Skip) {
				w.t.Errorf("%+v, want %s that says %q", f, state, text)
			}
			return
		}
	}
	w.t.Errorf("there is no finding of %s", id)
}

func TestAWorkerThatIsWell(t *testing.T) {
	w := newWard(t)
	for _, f := range Examine(t.Context(), w.config, Examination{}) {
		if want := map[string]string{"dns": checkup.Skip, "lease": checkup.Skip}[f.ID]; f.State != want && (want != "" || f.State != checkup.OK) {
			t.Errorf("%+v", f)
		}
	}
}

func TestEndpoints(t *testing.T) {
	for _, test := range []struct {
		c        awsiam.Config
		sts, iam string
	}{
		{awsiam.Config{}, "https://sts.us-west-1.amazonaws.com", "https://iam.amazonaws.com"},
		{awsiam.Config{STSRegion: "eu-central-1"}, "https://sts.eu-central-1.amazonaws.com", "https://iam.amazonaws.com"},
		{awsiam.Config{BaseRoleARN: "arn:aws-us-gov:iam::111122223333:role/base"}, "https://sts.us-gov-west-1.amazonaws.com", "https://iam.us-gov.amazonaws.com"},
		{awsiam.Config{BaseRoleARN: "arn:aws-cn:iam::111122223333:role/base"}, "https://sts.cn-north-1.amazonaws.com.cn", "https://iam.cn-north-1.amazonaws.com.cn"},
		{awsiam.Config{STSRegion: "cn-northwest-1"}, "https://sts.cn-northwest-1.amazonaws.com.cn", "https://iam.cn-north-1.amazonaws.com.cn"},
		{awsiam.Config{STSEndpoint: "https://a", IAMEndpoint: "https://b"}, "https://a", "https://b"},
	} {
		if sts, iam := (&patient{config: Config{AWS: test.c}}).endpoints(); sts != test.sts || iam != test.iam {
			t.Errorf("%+v: %s and %s, want %s and %s", test.c, sts, iam, test.sts, test.iam)
		}
	}
}

func TestCheckDNS(t *testing.T) {
	resolver := dnstest.Resolver(t, map[string]string{"sts.example.com": "192.0.2.1", "bridge.example.com": "192.0.2.2"})
	for _, test := range []struct{ sts, iam, bridge, state, text string }{
		{"https://sts.example.com", "https://sts.example.com", "https://bridge.example.com", checkup.OK, "sts.example.com, bridge.example.com: each has"},
		{"https://sts.example.com", "https://iam.example.com", "", checkup.Fail, "iam.example.com has no address"},
		{"https://192.0.2.1", "http://[::1]:80", "", checkup.Skip, "no name"},
		{"https://192.0.2.1", "http://[", "%", checkup.Skip, "no name"},
	} {
		p := &patient{resolver: resolver, config: Config{AWS: awsiam.Config{STSEndpoint: test.sts, IAMEndpoint: test.iam}, Upstream: upstream.Config{BaseURL: test.bridge}}}
		if f := checkDNS(t.Context(), p); len(f) != 1 || f[0].State != test.state || !strings.Contains(f[0].Text, test.text) {
			t.Errorf("%+v: %+v", test, f)
		}
	}
}

// Whose the credentials are, and what AWS's answers say of the clock.
func TestCheckCredentials(t *testing.T) {
	w := newWard(t)
	w.config.AWS.Credentials = static(w.home.PutUser("deploy", ""))
	w.finds("credentials", checkup.Warn, "by keys that do not end")

	w = newWard(t)
	w.config.AWS.SessionName = "?"
	w.finds("credentials", checkup.Fail, "AWS cannot be asked")
	w.finds("clock", checkup.Skip, "AWS was not asked")
	w.finds("account", checkup.Skip, "There is no account to check")
	w.finds("session_tags", checkup.Skip, "Without credentials")

	w = newWard(t)
	w.config.AWS.STSEndpoint = "http://127.0.0.1:1"
	w.finds("clock", checkup.Skip, "AWS did not answer")
}

// What the upstream answers, and whom.
func TestCheckUpstream(t *testing.T) {
	w := newWard(t)
	w.finds("upstream", checkup.OK, "a token that does not say whose it is, and has 1 accounts")
	w.config.Upstream.Token = func() (serval.Secret, error) { return serval.Secret{}, errors.New("gone") }
	w.finds("upstream", checkup.Fail, "does not answer as an upstream does")
	if got := (&patient{config: w.config}).bearer(); got != "nobody, since it cannot be read" {
		t.Errorf("the bearer of a token that cannot be read is %q", got)
	}
	w.config.Upstream.Token = nil
	if got := (&patient{config: w.config}).bearer(); got != "nobody" {
		t.Errorf("the bearer without a token is %q", got)
	}

	w = newWard(t)
	w.lists = nil
	w.finds("upstream", checkup.Warn, "has no accounts for it")
	w.finds("account", checkup.Skip, "There is no account to check")
	w.finds("session_tags", checkup.Skip, "attaches no session tags")

	w.config.Upstream.BaseURL = "http://serval.example.com" // in clear, and elsewhere
	w.finds("upstream", checkup.Fail, "does not answer as an upstream does")
	w.config.Upstream.BaseURL = ""
	w.finds("upstream", checkup.Skip, "no upstream")
}

// Pod Identity attaches tags: whether they are in the way is said by accounts
// alone.
func TestCheckSessionTags(t *testing.T) {
	w := newWard(t)
	for source, want := range map[string]string{"container credentials (EKS Pod Identity)": checkup.Warn, "environment variables": checkup.Skip} {
		p := &patient{config: w.config, asked: Examination{Skip: []string{"account"}}}
		p.once.identity.Do(func() { p.identity.Source = source }) // the agent is at an address of its own
		if f := checkSessionTags(t.Context(), p); len(f) != 1 || f[0].State != want || (f[0].Mend == "") != (want == checkup.Skip) {
			t.Errorf("by %s, and no account was reached: %+v, want %s", source, f, want)
		}
		p.close()
	}
	w.finds("session_tags", checkup.OK, "keep the worker out of no account")
}

// What an account's check cannot begin with leaves the account unchecked.
func TestCheckAccount(t *testing.T) {
	w := newWard(t)
	w.config.Organization.OrganizationsEndpoint = "ftp://x"
	w.finds("account", checkup.Skip, "There is no account to check")
	w = newWard(t)
	w.lists = append(w.lists, w.lists[0], w.lists[0], w.lists[0])
	checked := 0
	for _, f := range Examine(t.Context(), w.config, Examination{}) {
		if f.ID == "account" {
			checked++
		}
	}
	if checked != mostChecked {
		t.Errorf("%d accounts were checked, want %d", checked, mostChecked)
	}
}

func TestCheckLease(t *testing.T) {
	status := http.StatusOK
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case status != http.StatusOK:
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":%d}`, status)
		case r.Method == http.MethodPost:
			w.WriteHeader(http.StatusConflict)
			fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"AlreadyExists","code":409}`)
		default:
			fmt.Fprint(w, `{"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{"name":"serval-worker-0","namespace":"serval","resourceVersion":"7"},"spec":{"holderIdentity":"somebody"}}`)
		}
	}))
	t.Cleanup(server.Close)
	dir := t.TempDir()
	for name, text := range map[string][]byte{"token": []byte("t"), "ca.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	good := lease.Config{Server: server.URL, TokenFile: filepath.Join(dir, "token"), CAFile: filepath.Join(dir, "ca.crt"), Namespace: "serval", Name: "serval-worker-0"}
	look := func(c *lease.Config) checkup.Finding {
		t.Helper()
		f := checkLease(t.Context(), &patient{config: Config{Lease: c}})
		if len(f) != 1 || f[0].ID != "lease" {
			t.Fatalf("%+v", f)
		}
		return f[0]
	}
	nowhere, nameless := good, good
	nowhere.Server, nameless.Namespace = "", ""
	for _, c := range []*lease.Config{&nowhere, &nameless} {
		if f := look(c); f.State != checkup.Skip || !strings.Contains(f.Text, "do not suffice") {
			t.Errorf("%+v", f)
		}
	}
	if f := look(&good); f.State != checkup.OK || !strings.Contains(f.Text, "serval/serval-worker-0 may be read and written; it is held by somebody") {
		t.Errorf("%+v", f)
	}
	status = http.StatusForbidden
	if f := look(&good); f.State != checkup.Fail || !strings.Contains(f.Mend, "get, create and update on leases") {
		t.Errorf("%+v", f)
	}
}
