package bridge

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/idptest"
	"github.com/serval-bridge/serval-bridge/internal/login"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// running is a bridge that a test started.
type running struct {
	pages, admin string
	stop         func() error
}

// config returns settings with an identity provider, an STS and a database of
// the test's own.
func config(t *testing.T) Config {
	t.Helper()
	c := good()
	provider := idptest.New(idptest.Options{ClientID: "client", ClientSecret: "s"})
	c.OIDC = login.Config{Issuer: provider.Start(t), ClientID: "client", ClientSecret: serval.NewSecret("s")}
	c.STSEndpoint = awstest.New(awstest.Options{}).Start(t)
	c.Listen, c.AdminListen, c.PublicURL = "127.0.0.1:0", "127.0.0.1:0", "http://127.0.0.1:1"
	c.DatabaseURL = serval.NewSecret("sqlite://" + filepath.Join(t.TempDir(), "serval.db"))
	c.File.Team = "test"
	c.DrainTime = time.Minute // a connection that says nothing is waited for, five seconds, and a busy machine is slow
	return c
}

// start runs a bridge until it serves. It is stopped with the test, at the
// latest.
func start(t *testing.T, c Config) running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	type addresses struct{ pages, admin net.Addr }
	serving := make(chan addresses, 1)
	c.Serving = func(pages, admin net.Addr) { serving <- addresses{pages, admin} }
	go func() { ended <- Run(ctx, c) }()
	var err error
	stopped := false
	stop := func() error {
		if !stopped {
			stopped = true
			cancel()
			err = <-ended
		}
		return err
	}
	t.Cleanup(func() { stop() })
	select {
	case a := <-serving:
		return running{a.pages.String(), a.admin.String(), stop}
	case err := <-ended:
		ended <- err
		t.Fatalf("the bridge ended: %v", err)
	case <-time.After(20 * time.Second):
		t.Fatal("the bridge does not serve after 20 s")
	}
	return running{}
}

// begin runs a bridge until it listens, which must not come to serve. It is stopped
// with the test, at the latest.
func begin(t *testing.T, c Config) running {
	t.Helper()
	c.Serving = func(net.Addr, net.Addr) { t.Error("it says that it serves") }
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	begun, ended := make(chan running, 1), make(chan error, 1)
	stop := sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	c.listening = func(pages, admin net.Addr) { begun <- running{pages.String(), admin.String(), stop} }
	go func() { ended <- Run(ctx, c) }()
	t.Cleanup(func() { stop() })
	select {
	case b := <-begun:
		return b
	case err := <-ended:
		ended <- err
		t.Fatalf("the bridge ended: %v", err)
		return running{}
	}
}

func get(t *testing.T, address string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "127.0.0.1:1" // the public URL's
	w, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Body.Close()
	body, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.StatusCode, string(body)
}

func TestRunServesAndEndsInOrder(t *testing.T) {
	c := config(t)
	before := goleak.IgnoreCurrent() // the fakes
	b := start(t, c)
	for address, want := range map[string]int{
		b.pages + "/": 200, b.pages + "/roles": 401, b.pages + "/api/v1/me": 401, b.pages + "/oidc/auth/logout": 404,
		b.admin + "/livez": 200, b.admin + "/readyz": 200, b.admin + "/metrics": 200,
		// S-113: what is for operators is not among the pages, and the other way round.
		b.pages + "/metrics": 404, b.pages + "/readyz": 404, b.admin + "/": 404, b.admin + "/api/v1/me": 404, b.admin + "/debug/pprof/": 404,
	} {
		if got, body := get(t, address); got != want {
			t.Errorf("GET %s answered %d, want %d: %.200s", address, got, want, body)
		}
	}
	if _, metrics := get(t, b.admin+"/metrics"); !strings.Contains(metrics, "serval_audit_head_seq") {
		t.Error("the metrics have no serval_audit_head_seq")
	}
	if err := b.stop(); err != nil {
		t.Errorf("an orderly end: %v, want none", err)
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	goleak.VerifyNone(t, before)
}

// SQLite takes one serving process.
func TestSecondServerOnOneFileIsRefused(t *testing.T) {
	c := config(t)
	start(t, c)
	err := Run(t.Context(), c)
	if err == nil || !strings.Contains(err.Error(), "is served by another process") {
		t.Errorf("a second bridge on the same file: %v, want it refused", err)
	}
	// Looking at the audit log beside it is allowed.
	archive, err := OpenArchive(t.Context(), c.DatabaseURL, c.Secret)
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	if head, err := archive.Verify(t.Context(), store.Head{}); err != nil || head.Seq == 0 {
		t.Errorf("verify beside a serving bridge: head %v, %v", head, err)
	}
}

func TestChangedExternalIDsAreRefused(t *testing.T) {
	c := config(t)
	if err := start(t, c).stop(); err != nil {
		t.Fatal(err)
	}
	c.File.Team = "another"
	if err := Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), "--accept-new-external-ids") {
		t.Errorf("another team: %v, want it refused with the way out", err)
	}
	c.AcceptNewExternalIDs = true
	start(t, c)
}

// A bridge serves without a configuration file; one that had a file does not lose
// what it declared because the file's name went missing.
func TestRunWithoutAFile(t *testing.T) {
	c := config(t)
	file := c.File
	c.File = File{}
	b := start(t, c)
	if got, _ := get(t, b.pages+"/oidc/auth/login"); got != 303 {
		t.Errorf("login answered %d without a file, want 303", got)
	}
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	c.File = file
	if err := start(t, c).stop(); err != nil {
		t.Fatalf("with a file after none: %v", err)
	}
	c.File = File{}
	for _, c.AcceptNewExternalIDs = range []bool{false, true} {
		if err := Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), "has changed") {
			t.Errorf("without the file that it had, accepting other External IDs %t: %v, want it refused", c.AcceptNewExternalIDs, err)
		}
	}
}

// S-52: an identity provider that is away does not stop the bridge.
func TestRunWithoutTheIdentityProvider(t *testing.T) {
	c := config(t)
	c.OIDC.Issuer = "http://127.0.0.1:1"
	b := start(t, c)
	if got, _ := get(t, b.admin+"/readyz"); got != 200 {
		t.Errorf("readyz answered %d, want 200: one blip of the provider must not drain the fleet", got)
	}
	if got, body := get(t, b.pages+"/oidc/auth/login"); got != 503 {
		t.Errorf("login answered %d, want 503: %.300s", got, body)
	}
}

// Whoever is connected to the admin port and has asked nothing does not spoil a
// shutdown.
func TestShutdownBesideASilentScraper(t *testing.T) {
	b := start(t, config(t))
	conn, err := net.Dial("tcp", b.admin)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if status, _ := get(t, b.admin+"/livez"); status != 200 { // whose connection was taken after the other's
		t.Errorf("/livez answered %d, want 200", status)
	}
	if err := b.stop(); err != nil {
		t.Errorf("an orderly end: %v, want none", err)
	}
}

// A polling worker does not hold up a shutdown.
func TestShutdownEndsLongPolls(t *testing.T) {
	c := config(t)
	secret := tokenFile(t, 40)
	c.File.Accounts = []serval.Account{{ID: "111122223333", Name: "prod", Partition: "aws", RoleARN: "arn:aws:iam::111122223333:role/x"}}
	c.File.UpstreamTokens = []UpstreamToken{{Name: "hub", Accounts: []string{"111122223333"}, SecretFile: secret}}
	c.DrainTime = 30 * time.Second // what is still waiting then is cut off, unanswered
	b := start(t, c)
	token, err := readToken(secret)
	if err != nil {
		t.Fatal(err)
	}
	poll := func(query string) (wire.WorkerAccounts, error) {
		var list wire.WorkerAccounts
		r, err := http.NewRequest(http.MethodGet, "http://"+b.pages+"/api/v1/upstream/accounts"+query, nil)
		if err != nil {
			return list, err
		}
		r.Header.Set("Authorization", "Bearer "+token.Reveal())
		w, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			return list, err
		}
		defer w.Body.Close()
		return list, json.NewDecoder(w.Body).Decode(&list)
	}
	now, err := poll("")
	if err != nil || len(now.Accounts) != 1 {
		t.Fatalf("the first poll: %+v, %v", now, err)
	}
	// Who the worker is gets noted before it waits.
	const identity = "arn:aws:sts::992382851720:assumed-role/serval-worker/pod"
	answered := make(chan error, 1)
	go func() {
		list, err := poll("?wait=60&version=" + now.Version + "&identity=" + url.QueryEscape(identity))
		if err == nil && len(list.Accounts) != 1 {
			err = fmt.Errorf("%d accounts, want 1", len(list.Accounts))
		}
		answered <- err
	}()
	db, err := sql.Open("sqlite", strings.TrimPrefix(c.DatabaseURL.Reveal(), "sqlite://")+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	until(t, "the poll is there", func() bool {
		var known bool
		if err := db.QueryRowContext(t.Context(), `select exists (select 1 from worker where arn = ?)`, identity).Scan(&known); err != nil {
			t.Fatal(err)
		}
		return known
	})
	if err := b.stop(); err != nil {
		t.Errorf("stopping: %v", err)
	}
	if err := <-answered; err != nil {
		t.Errorf("the poll that waited: %v, want the list", err)
	}
}

// A SERVAL_SECRET that the audit log was not written with is found at the start,
// not at the next audit.
func TestChangedSecretIsRefused(t *testing.T) {
	c := config(t)
	if err := start(t, c).stop(); err != nil {
		t.Fatal(err)
	}
	old := c.Secret
	c.Secret = serval.NewSecret(strings.Repeat("ef", 16))
	if err := Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), "behind a comma") {
		t.Errorf("another secret: %v, want it refused with the way out", err)
	}
	c.OlderSecrets = []serval.Secret{old}
	start(t, c)
}

// S-8: until everything is there nothing is served.
func TestGateIsClosedUntilOpened(t *testing.T) {
	g := &gate{}
	for range 2 {
		w := httptest.NewRecorder()
		g.ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/roles", nil))
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), `"code":"unavailable"`) {
			t.Errorf("closed: %d %v %s, want 503 with Retry-After and the envelope", w.Code, w.Header(), w.Body)
		}
	}
	g.open(http.NotFoundHandler())
	w := httptest.NewRecorder()
	g.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if w.Code != http.StatusNotFound {
		t.Errorf("opened: %d, want the handler's 404", w.Code)
	}
}

// S-8: while the database does not answer, and nobody knows what is in it, nothing is
// served but that the process lives.
func TestNothingIsServedBeforeTheDatabase(t *testing.T) {
	stalled, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer stalled.Close() // it takes connections, and says nothing
	c := config(t)
	c.DatabaseURL = serval.NewSecret("postgres://serval:x@" + stalled.Addr().String() + "/serval?sslmode=disable")
	b := begin(t, c)
	for address, want := range map[string]int{
		b.admin + "/livez": 200, b.admin + "/readyz": 503, b.pages + "/": 503, b.pages + "/roles": 503, b.pages + "/api/v1/me": 503, b.pages + "/static/serval.css": 503,
		b.pages + "/oidc/auth/login": 503, b.pages + "/oidc/auth/callback?state=x&code=y": 503, b.pages + "/api/v1/upstream/accounts": 503, b.pages + "/nothing": 503,
	} {
		if got, body := get(t, address); got != want {
			t.Errorf("GET %s answered %d, want %d: %.200s", address, got, want, body)
		}
	}
	_ = b.stop() // it may say that the database did not answer
}

// S-11
func TestTLS(t *testing.T) {
	c := config(t)
	c.TLSCertFile, c.TLSKeyFile = certificate(t)
	c.PublicURL = "https://127.0.0.1:1"
	b := start(t, c)
	dial := func(version uint16) error {
		conn, err := tls.Dial("tcp", b.pages, &tls.Config{MinVersion: version, MaxVersion: version, InsecureSkipVerify: true})
		if err == nil {
			conn.Close()
		}
		return err
	}
	for version, want := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		if err := dial(version); (err == nil) != want {
			t.Errorf("%s: %v, want accepted %v", tls.VersionName(version), err, want)
		}
	}
	if err := os.Remove(c.TLSKeyFile); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), "SERVAL_TLS_KEY_FILE") {
		t.Errorf("a missing key: %v, want it named", err)
	}
}

// certificate writes a certificate for loopback and its key, and returns their
// paths.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	return certificateFor(t, time.Hour)
}

// certificateFor makes one that holds so long from now.
func certificateFor(t *testing.T, d time.Duration) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "127.0.0.1"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(d),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
}

func TestParseHead(t *testing.T) {
	hash := strings.Repeat("0a", 32)
	if head, err := ParseHead("7:" + hash); err != nil || head.Seq != 7 || head.Hash != hash {
		t.Errorf("got %v, %v", head, err)
	}
	for _, text := range []string{"", "7", "7:", ":" + hash, "0:" + hash, "-1:" + hash, "x:" + hash, "7:" + hash + "0"} {
		if _, err := ParseHead(text); err == nil {
			t.Errorf("%q was taken for a head", text)
		}
	}
}
