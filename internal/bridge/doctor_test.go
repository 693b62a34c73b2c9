package bridge

import (
	"database/sql"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/checkup"
	"github.com/serval-bridge/serval-bridge/internal/dnstest"
	"github.com/serval-bridge/serval-bridge/internal/idptest"
	"github.com/serval-bridge/serval-bridge/internal/login"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/tokenreview"
)

// A bridge that works is found to: all but that its provider is on loopback,
// where AWS does not reach it.
func TestExamine(t *testing.T) {
	c := config(t)
	c.PublicURL = "http://127.0.0.1:1"
	idp := idptest.New(idptest.Options{ClientID: "client", ClientSecret: "s", RedirectURIs: []string{c.PublicURL + "/oidc/auth/callback"}})
	c.OIDC = login.Config{Issuer: idp.Start(t), ClientID: "client", ClientSecret: serval.NewSecret("s")}
	c.STSEndpoint = awstest.New(awstest.Options{}).Start(t)
	c.SigninEndpoint = c.STSEndpoint
	c.Secret = serval.NewSecret("8f14e45fceea167a5a36dedd4bea2543")
	c.ExternalIDSecret = serval.NewSecret("c9f0f895fb98ab9159f51fd0297e236d")
	b := start(t, c) // it is served meanwhile
	findings := Examine(t.Context(), c, Examination{Serving: "http://" + b.pages, Skip: []string{"certificate"}})
	idp.Complaints() // of the code that was never given out
	states := map[string]string{}
	for _, f := range findings {
		states[f.ID] = f.State
		if want := map[string]string{"aws_issuer": "fail", "certificate": "skip", "cluster": "skip"}[f.ID]; f.State != want && (want != "" || f.State != "ok") {
			t.Errorf("%+v, want it %q", f, want)
		}
		if f.Text == "" || (f.Mend == "") != (f.State == "ok" || f.State == "skip") {
			t.Errorf("%+v has no text, or no mend where it should", f)
		}
	}
	for _, id := range []string{"settings", "secret", "public_url", "oidc.dns", "oidc.discovery", "oidc.clock", "oidc.jwks", "oidc.client_secret", "oidc.redirect_uri", "oidc.scopes", "sts", "signin", "database", "migration", "notices", "serving"} {
		if states[id] != "ok" {
			t.Errorf("%s is %q, want ok", id, states[id])
		}
	}
	if checkup.Healthy(findings) || !checkup.Healthy([]Finding{{State: findingWarn}, {State: findingSkip}, {State: findingOK}}) {
		t.Error("healthy is what has no failure")
	}
	if status, _ := get(t, b.pages+"/"); status != 200 {
		t.Errorf("the bridge that was looked at answers %d", status)
	}

	// Under another secret the database is refused, and the way out is said.
	c.Secret = serval.NewSecret("eccbc87e4b5ce2fe28308fd9f2a7baf3")
	if f := one(t, checkDatabase(t.Context(), c), "database_secret"); f.State != findingFail || !strings.Contains(f.Mend, "comma") {
		t.Errorf("under another secret: %+v", f)
	}
}

// one returns the finding with the id.
func one(t *testing.T, findings []Finding, id string) Finding {
	t.Helper()
	for _, f := range findings {
		if f.ID == id {
			return f
		}
	}
	t.Fatalf("no finding %s in %+v", id, findings)
	return Finding{}
}

func TestCheckSecrets(t *testing.T) {
	for secret, want := range map[string]string{
		"8f14e45fceea167a5a36dedd4bea2543": "ok", "short": "ok", // which the settings say
		"changeme-0123456789-changeme-0123456789": "fail", "My-Secret-for-the-bridge-of-acme-42": "fail", "<paste the output of openssl here>": "fail",
		strings.Repeat("abc", 12): "fail",
	} {
		for _, c := range []Config{{Secret: serval.NewSecret(secret)}, {ExternalIDSecret: serval.NewSecret(secret)}} {
			findings := checkSecrets(t.Context(), c)
			if f := one(t, findings, "secret"); f.State != want || strings.Contains(fmt.Sprint(findings), secret) {
				t.Errorf("%q: %+v, want %s and not the secret", secret, findings, want)
			}
		}
	}
}

func TestCheckCertificate(t *testing.T) {
	c := Config{PublicURL: "https://127.0.0.1:8443"}
	c.TLSCertFile, c.TLSKeyFile = certificate(t) // for an hour
	later := func(d time.Duration) Config {
		c := c
		c.Now = func() time.Time { return time.Now().Add(d) }
		return c
	}
	elsewhere, gone, none := c, c, c
	elsewhere.PublicURL, gone.TLSKeyFile, none.TLSCertFile = "https://serval.example.com", "/nope", ""
	nameless, long := c, c
	nameless.PublicURL = ""
	long.TLSCertFile, long.TLSKeyFile = certificateFor(t, 15*24*time.Hour)
	for name, test := range map[string]struct {
		c    Config
		want string
	}{
		"holds for long": {long, "ok"}, "for no public URL": {nameless, "skip"},
		"ends soon": {c, "warn"}, "long ago": {later(-30 * 24 * time.Hour), "fail"}, "ended": {later(2 * time.Hour), "fail"},
		"another name": {elsewhere, "fail"}, "no key": {gone, "fail"}, "none": {none, "skip"},
	} {
		if f := one(t, checkCertificate(t.Context(), test.c), "certificate"); f.State != test.want {
			t.Errorf("%s: %+v, want %s", name, f, test.want)
		}
	}
}

func TestCheckIssuerForAWS(t *testing.T) {
	for issuer, want := range map[string]string{
		"http://127.0.0.1:8080": "not https", "https://login.example.com:8443": "port", "https://192.0.2.1": "address", "https://[2001:db8::1]": "address",
		"https://dex": "public name", "https://dex.auth.svc": "public name", "https://sso.acme.internal/realms/x": "public name", "https://sso.acme.local": "public name",
		"https://login.example.com/?a=b": "query", "https://login.example.com/" + strings.Repeat("a", 255): "255", "https://nobody.invalid": "no address",
	} {
		f := one(t, checkIssuerForAWS(t.Context(), Config{OIDC: login.Config{Issuer: issuer}}), "aws_issuer")
		if f.State != findingFail || !strings.Contains(f.Text, want) || f.Mend == "" {
			t.Errorf("%s: %+v, want it to fail for %q", issuer, f, want)
		}
	}
	if f := one(t, checkIssuerForAWS(t.Context(), Config{}), "aws_issuer"); f.State != findingSkip {
		t.Errorf("no issuer: %+v", f)
	}
	// What the cluster's DNS says of a public name.
	for address, want := range map[string]string{
		"198.51.100.7": "ok", "2001:db8::1": "ok", "10.0.0.7": "warn", "127.0.0.1": "warn", "169.254.1.1": "warn", "fd00::1": "warn", "::ffff:10.0.0.7": "warn", "SERVFAIL": "fail",
	} {
		c := Config{OIDC: login.Config{Issuer: "https://login.example.com"}, resolver: dnstest.Resolver(t, map[string]string{"login.example.com": address})}
		if f := one(t, checkIssuerForAWS(t.Context(), c), "aws_issuer"); f.State != want || (want == "warn") != strings.Contains(f.Mend, "try from outside") {
			t.Errorf("at %s: %+v, want %s", address, f, want)
		}
	}
}

func TestCheckPublicURL(t *testing.T) {
	resolver := dnstest.Resolver(t, map[string]string{"serval.example.com": "10.8.0.7"})
	for public, want := range map[string]string{"https://serval.example.com": "ok", "https://nobody.example.com": "warn", "": "skip"} {
		f := one(t, checkPublicURL(t.Context(), Config{PublicURL: public, resolver: resolver}), "public_url")
		if f.State != want || (want == "ok") != strings.Contains(f.Text, "10.8.0.7") {
			t.Errorf("%q: %+v, want %s", public, f, want)
		}
	}
}

// What reading the settings has said is said once; what they are in themselves is
// said by the check.
func TestCheckSettings(t *testing.T) {
	findings := Examine(t.Context(), Config{}, Examination{Faults: []string{"SERVAL_X: unknown."}, Skip: []string{"oidc", "sts", "signin"}})
	var said []string
	for _, f := range findings {
		if f.ID == "settings" {
			said = append(said, f.State+" "+f.Text)
		}
	}
	if diff := cmp.Diff([]string{"fail SERVAL_X: unknown."}, said); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	findings = checkSettings(t.Context(), Config{})
	if len(findings) < 3 || checkup.Healthy(findings) || slices.ContainsFunc(findings, func(f Finding) bool { return f.State != findingFail || f.Mend == "" }) {
		t.Errorf("of no settings: %+v", findings)
	}
}

// Whoever is in another partition is asked for there.
func TestCheckSTSEndpoint(t *testing.T) {
	for _, test := range []struct {
		c    Config
		want string
	}{
		{Config{}, "https://sts.us-west-1.amazonaws.com"}, {Config{STSRegion: "eu-central-1"}, "https://sts.eu-central-1.amazonaws.com"},
		{Config{STSRegion: "cn-north-1"}, "https://sts.cn-north-1.amazonaws.com.cn"}, {Config{STSRegion: "cn-north-1", STSEndpoint: "https://x"}, "https://x"},
	} {
		if got := test.c.stsEndpoint(); got != test.want {
			t.Errorf("%+v: %s, want %s", test.c, got, test.want)
		}
	}
	if f := one(t, checkSignin(t.Context(), Config{SigninEndpoint: "http://192.0.2.1"}), "signin"); f.State != findingFail || !strings.Contains(f.Mend, "SERVAL_SIGNIN_ENDPOINT") {
		t.Errorf("a federation endpoint that cannot be: %+v", f)
	}
}

// A database is looked at as it is, whatever that may be.
func TestCheckDatabase(t *testing.T) {
	if f := one(t, checkDatabase(t.Context(), Config{}), "database"); f.State != findingSkip {
		t.Errorf("of no settings: %+v", f)
	}
	for _, test := range []struct {
		name, change    string // what is done to a good database
		id, state, text string
	}{
		{"a good one", "", "notices", "ok", "No notice"},
		{"an empty one", "drop table chain", "database", "fail", "does not answer"},
		{"one of an older version", "delete from goose_db_version where version_id = (select max(version_id) from goose_db_version)", "migration", "warn", "older version"},
		{"one whose version is not known", "alter table goose_db_version rename column version_id to v", "migration", "warn", "cannot be read"},
		{"one with a notice that failed", `insert into notice (id, kind, channel, recipients, facts, created_at, state, attempts, next_at, ended_at, error) values ('n1', 'k', 'slack', '', '{}', 1, 'failed', 9, 0, 2, 'x')`,
			"notices", "warn", "Notices reached nobody: 1 by slack."},
		{"one whose notices cannot be read", "alter table notice rename column channel to c", "notices", "warn", "cannot be read"},
	} {
		file := filepath.Join(t.TempDir(), "serval.db")
		c := Config{DatabaseURL: serval.NewSecret("sqlite://" + file), Secret: serval.NewSecret("8f14e45fceea167a5a36dedd4bea2543")}
		s, err := store.Open(t.Context(), store.Config{URL: c.DatabaseURL, Chain: serval.NewChain(c.Secret)})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.Migrate(t.Context()), s.Close()); err != nil {
			t.Fatal(err)
		}
		raw, err := sql.Open("sqlite", file)
		if err != nil {
			t.Fatal(err)
		}
		_, err = raw.Exec(test.change)
		if err := errors.Join(err, raw.Close()); err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		if f := one(t, checkDatabase(t.Context(), c), test.id); f.State != test.state || !strings.Contains(f.Text, test.text) || (f.Mend == "") != (test.state == "ok") {
			t.Errorf("%s: %+v, want %s and %q", test.name, f, test.state, test.text)
		}
	}
}

func TestCheckCluster(t *testing.T) {
	status := http.StatusCreated
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprintln(w, `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","status":{"authenticated":false}}`)
	}))
	defer server.Close()
	dir := t.TempDir()
	write := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	c := Config{Workers: &tokenreview.Config{
		Server: server.URL, TokenFile: write("token", []byte("t")), Audience: "serval-bridge", Subject: "system:serviceaccount:serval:serval-worker-sa",
		CAFile: write("ca.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})),
	}}
	if f := one(t, checkCluster(t.Context(), c), "cluster"); f.State != findingOK || !strings.Contains(f.Text, "serval-worker-sa") {
		t.Errorf("a cluster that answers: %+v", f)
	}
	status = http.StatusForbidden
	if f := one(t, checkCluster(t.Context(), c), "cluster"); f.State != findingFail || !strings.Contains(f.Mend, "TokenReviews") {
		t.Errorf("a cluster that refuses: %+v", f)
	}
}

// What is behind a Service may be anything, or nothing.
func TestCheckServing(t *testing.T) {
	answer := func(status int, body string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Host != "serval.example.com" || r.URL.Path != "/api/v1/me" {
				status = http.StatusTeapot
			}
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	const gone = "http://127.0.0.1:1" // a port that was free a moment ago may be somebody's again
	c := Config{PublicURL: "https://serval.example.com"}
	c.TLSCertFile, c.TLSKeyFile = certificate(t)
	other := httptest.NewTLSServer(nil)
	defer other.Close()
	nobody := `{"code":"unauthenticated","message":"","detail":{}}`
	for name, test := range map[string]struct{ at, state, text string }{
		"a bridge":            {answer(401, nobody), "ok", "serves"},
		"one that starts":     {answer(503, `{"code":"unavailable"}`), "fail", "not ready"},
		"an ingress's 503":    {answer(503, "no endpoints"), "fail", "something else"},
		"somebody's 401":      {answer(401, "<html>"), "fail", "something else"},
		"anything":            {answer(200, nobody), "fail", "something else"},
		"nothing":             {gone, "fail", "does not answer"},
		"another certificate": {other.URL, "fail", "another certificate"},
		"nobody was named":    {"", "skip", ""},
	} {
		c.serving = test.at
		if f := one(t, checkServing(t.Context(), c), "serving"); f.State != test.state || !strings.Contains(f.Text, test.text) || (f.Mend == "") == (f.State == "fail") {
			t.Errorf("%s: %+v, want %s and %q", name, f, test.state, test.text)
		}
	}
	c.PublicURL, c.serving = "", gone
	if f := one(t, checkServing(t.Context(), c), "serving"); f.State != "skip" {
		t.Errorf("without a public URL: %+v", f)
	}
}

func TestExaminationCheck(t *testing.T) {
	for _, test := range []struct {
		e    Examination
		want string
	}{
		{Examination{}, ""},
		{Examination{Skip: []string{"database", "aws_issuer"}, Serving: "http://serval-bridge.serval.svc"}, ""},
		{Examination{Skip: []string{"databse"}}, `there is no check "databse"; there are settings, secret,`},
		{Examination{Serving: "serval-bridge"}, "is not an origin"},
		{Examination{Serving: "http://x/y"}, "is not an origin"},
	} {
		if err := test.e.Check(); (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v, want %q", test.e, err, test.want)
		}
	}
}
