package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/bridge"
	"github.com/serval-bridge/serval-bridge/internal/idptest"
	"github.com/serval-bridge/serval-bridge/internal/porttest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

var (
	soakTime  = flag.Duration("soak", 0, "for how long people use a bridge whose far sides fail (make soak)")
	soakUsers = flag.Int("soak-users", 500, "how many")
)

// How often a call of STS, and a sign-in, meets a fault.
const faulty = 0.05

// T-3: five hundred people use a bridge for a minute while a twentieth of what it
// asks of others fails. Nothing it says is its own fault, the audit log holds, no
// clock starts twice, and goroutines, descriptors and heap are back where they
// were.
func TestSoak(t *testing.T) {
	if *soakTime == 0 {
		t.Skip("make soak runs it")
	}
	s := newSoak(t, *soakUsers, "sqlite://"+filepath.Join(t.TempDir(), "serval.db"), automatic)
	s.served = s.serve(s.build(), s.address)
	s.stock()
	s.run(*soakTime/4, 0) // what is remembered is, and everybody is signed in
	before := s.rest()
	s.run(*soakTime, faulty)
	after := s.rest()
	t.Logf("%d people, %s: %d loops, %d sessions, %d faults injected, answers %v", *soakUsers, *soakTime, s.loops.Load(), s.sessions.Load(), s.faults.Load(), s.statuses())
	for _, one := range []struct {
		name          string
		before, after float64
		slack         float64
	}{
		{"goroutines", before.goroutines, after.goroutines, 2},
		{"descriptors", before.descriptors, after.descriptors, 2},
		{"heap in bytes", before.heap, after.heap, 256 << 10},
	} {
		t.Logf("%s: %.0f before, %.0f after", one.name, one.before, one.after)
		if one.after > one.before*1.05+one.slack {
			t.Errorf("%s went from %.0f to %.0f, want at most 5 %% more", one.name, one.before, one.after)
		}
	}
	if s.sessions.Load() == 0 || s.faults.Load() == 0 {
		t.Error("nobody opened a session, or nothing failed")
	}
	s.verify()
	text, err := os.ReadFile(s.cmd.Stderr.(*os.File).Name())
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, `"level":"error"`) {
			t.Errorf("the bridge logged: %s", line)
		}
	}
}

// A soak is a bridge with people who use it.
type soak struct {
	*served         // which the worker pushes to
	address  string // that people know
	admin    string // of served
	database string
	settings []string
	token    string // of the worker
	role     serval.Role
	idp      *idptest.Provider
	people   []*soaker
	faulty   atomic.Uint64 // in thousandths

	loops, sessions, faults atomic.Int64
	mu                      sync.Mutex
	answers                 map[int]int
	took                    []time.Duration // until lap
}

// A soaker is one of the people, with a browser of their own.
type soaker struct {
	*soak
	email, address string
	client         *http.Client
	signedIn       bool
}

// automatic is the approval that needs nobody.
const automatic = "{automatic: true}"

const soakSecret = "8f14e45fceea167a5a36dedd4bea2543"

// newSoak makes all that a bridge needs. Its url is where serve puts the first one.
// Requests are approved as approval says.
func newSoak(t *testing.T, people int, database, approval string) *soak {
	t.Helper()
	dir := t.TempDir()
	s := &soak{served: &served{t: t}, address: porttest.Own(t), database: database, answers: map[int]int{}}
	var persons []idptest.Person
	for i := range people {
		email := fmt.Sprintf("p%03d@example.com", i)
		persons = append(persons, idptest.Person{Subject: "00u-" + email, Name: email, Email: email, EmailVerified: true, Groups: []string{"engineering"}})
	}
	s.idp = idptest.New(idptest.Options{ClientID: "client", ClientSecret: "s", RedirectURIs: []string{"http://" + s.address + "/oidc/auth/callback"}, People: persons})
	issuer := s.idp.Start(t)
	cloud := awstest.New(awstest.Options{})
	sts := cloud.Start(t)
	account := cloud.AddAccount("111122223333", "prod")
	provider := account.PutOIDCProvider(issuer, "client")
	trust := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Federated":"` + provider + `"},"Action":"sts:AssumeRoleWithWebIdentity",
		"Condition":{"StringEquals":{"` + strings.TrimPrefix(issuer, "http://") + `:aud":"client"}}}]}`
	account.PutRole(awstest.Role{Name: "dev", MaxSessionDuration: 3600, Tags: map[string]string{"serval": ""}, Trust: trust})
	for _, fault := range []awstest.Fault{{Status: 503}, {Reset: true}, {Code: "Throttling", Message: "Rate exceeded"}, {Status: 200}, {Delay: time.Second}, {Code: "AccessDenied", Message: "no"}} {
		fault.Match = func(*awstest.Request) bool { return s.strikes(1.0 / 6) }
		cloud.Inject(fault)
	}
	s.token = strings.Repeat("0123456789abcdef", 4)
	for name, text := range map[string]string{"token": s.token, "config.yaml": fmt.Sprintf(`team: acme
accounts:
  - {id: "111122223333", name: prod, role_arn: "arn:aws:iam::111122223333:role/serval-ingestion"}
access_policies:
  - {name: all, roles: {arns: ["*"]}, eligible: {groups: [engineering]}, approval: %s, max_minutes: 60}
upstream_tokens:
  - {name: hub, accounts: ["111122223333"], secret_file: %s/token}
`, approval, dir)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.settings = []string{
		"PATH=" + os.Getenv("PATH"), "SERVAL_PUBLIC_URL=http://" + s.address,
		"SERVAL_OIDC_ISSUER=" + issuer, "SERVAL_OIDC_CLIENT_ID=client", "SERVAL_OIDC_CLIENT_SECRET=s", "SERVAL_STS_ENDPOINT=" + sts, "SERVAL_SIGNIN_ENDPOINT=" + sts,
		"SERVAL_SECRET=" + soakSecret, "SERVAL_EXTERNAL_ID_SECRET=c9f0f895fb98ab9159f51fd0297e236d",
		"SERVAL_DATABASE_URL=" + s.database, "SERVAL_CONFIG=" + filepath.Join(dir, "config.yaml"),
		"SERVAL_TRUSTED_PROXIES=127.0.0.0/8", "SERVAL_DRAIN_DELAY=0s", "SERVAL_LOG_LEVEL=warn", "GOGC=50",
	}
	s.role = serval.Role{
		ARN: account.RoleARN("dev"), RoleID: account.RoleID("dev"), Name: "dev", Path: "/", CreatedAt: time.Now().UTC(), MaxSessionSeconds: 3600,
		Tags: map[string]string{"serval": ""}, TrustPolicy: serval.Document(trust),
		InlinePolicies: serval.InlinePolicies{Status: serval.ListRead}, ManagedPolicies: serval.ManagedPolicies{Status: serval.ListRead},
	}
	for i, one := range persons {
		s.people = append(s.people, &soaker{soak: s, email: one.Email, address: fmt.Sprintf("10.%d.%d.9", i/250, i%250)})
	}
	return s
}

// build builds the bridge.
func (s *soak) build() (program string) {
	s.t.Helper()
	program = filepath.Join(s.t.TempDir(), "serval-bridge")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		s.t.Fatalf("building the bridge: %v: %s", err, out)
	}
	return program
}

// serve runs a bridge of the program, and returns when it is ready.
func (s *soak) serve(program, address string) *served {
	s.t.Helper()
	s.admin = porttest.Own(s.t)
	cmd := exec.Command(program, "serve")
	cmd.Env = append(slices.Clone(s.settings), "SERVAL_LISTEN="+address, "SERVAL_ADMIN_LISTEN="+s.admin)
	one := serveApart(s.t, address, cmd)
	one.waitFor("http://" + s.admin + "/readyz") // which nobody's Host matters to
	return one
}

// stock has the worker push the role.
func (s *soak) stock() {
	s.t.Helper()
	(&bench{served: s.served}).push(s.token, s.role)
}

// strikes reports whether a fault happens now, and counts it.
func (s *soak) strikes(share float64) bool {
	if rand.Float64() >= float64(s.faulty.Load())/1000*share {
		return false
	}
	s.faults.Add(1)
	return true
}

// run has everybody use the bridge for some time, while such a share of what the
// bridge asks of others fails.
func (s *soak) run(d time.Duration, share float64) {
	s.faulty.Store(uint64(share * 1000))
	defer s.faulty.Store(0)
	ctx, cancel := context.WithTimeout(s.t.Context(), d)
	defer cancel()
	var running sync.WaitGroup
	running.Go(func() { // the provider fails all sign-ins for a twentieth of the time
		for share > 0 && ctx.Err() == nil {
			pause(ctx, time.Duration(float64(time.Second)*(1-share)))
			undo := s.idp.Misbehave(func(m *idptest.Misbehaviour) { m.AtToken.Status = 503 })
			s.faults.Add(1)
			pause(ctx, time.Duration(float64(time.Second)*share))
			undo()
		}
	})
	for i, one := range s.people {
		running.Go(func() {
			pause(ctx, d/2*time.Duration(i)/time.Duration(len(s.people)))
			for ctx.Err() == nil {
				one.loop()
				s.loops.Add(1)
				pause(ctx, 4*time.Second+rand.N(8*time.Second))
			}
			one.client.CloseIdleConnections()
		})
	}
	running.Wait()
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// loop is what somebody does at a time: look, ask, open a session, end it, and now
// and then sign in anew.
func (p *soaker) loop() {
	if !p.signedIn || rand.IntN(20) == 0 {
		p.signIn()
	}
	if !p.signedIn {
		return
	}
	p.call("GET", "/api/v1/roles", nil, nil)
	var made wire.Request
	if p.call("POST", "/api/v1/requests", wire.NewRequest{RoleARN: "arn:aws:iam::111122223333:role/dev", Minutes: 30}, &made) != http.StatusCreated {
		return
	}
	if made.Status == string(serval.StatusPending) { // where somebody has to approve, who is told of both
		p.call("POST", "/api/v1/requests/"+made.ID+"/cancel", nil, nil)
		return
	}
	if p.call("POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID}, nil) == http.StatusOK {
		p.sessions.Add(1)
	}
	p.call("POST", "/api/v1/requests/"+made.ID+"/done", nil, nil)
}

func (p *soaker) signIn() {
	if p.client == nil {
		jar, err := cookiejar.New(nil)
		if err != nil {
			p.t.Error(err)
			return
		}
		p.client = &http.Client{Jar: jar, Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 1, IdleConnTimeout: 2 * time.Second},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	p.signedIn = false
	res := p.ask("GET", p.url+"/oidc/auth/login", nil)
	if res == nil || res.StatusCode != http.StatusSeeOther {
		return
	}
	back, err := p.idp.SignIn(res.Header.Get("Location"), p.email)
	if err != nil {
		p.t.Errorf("at the provider: %v", err)
		return
	}
	if res = p.ask("GET", back.String(), nil); res != nil {
		p.signedIn = res.StatusCode == http.StatusSeeOther
	}
}

func (p *soaker) call(method, path string, body, into any) int {
	res := p.ask(method, p.url+path, body)
	if res == nil {
		return 0
	}
	if into != nil && res.StatusCode < 300 {
		if err := json.NewDecoder(res.Body).Decode(into); err != nil {
			p.t.Errorf("%s %s: %v", method, path, err)
		}
	}
	return res.StatusCode
}

// ask sends one request. An answer that is a fault of the bridge's own fails the
// test: that a far side failed is said with 503 or less.
func (p *soaker) ask(method, address string, body any) *http.Response {
	var reader io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			p.t.Error(err)
			return nil
		}
		reader = bytes.NewReader(text)
	}
	r, err := http.NewRequest(method, address, reader)
	if err != nil {
		p.t.Error(err)
		return nil
	}
	r.Header.Set("X-Forwarded-For", p.address)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	began := time.Now()
	res, err := p.client.Do(r)
	if err != nil {
		p.t.Errorf("%s %s: %v", method, r.URL.Path, err)
		return nil
	}
	text, err := io.ReadAll(res.Body)
	took := time.Since(began)
	res.Body.Close()
	res.Body = io.NopCloser(bytes.NewReader(text))
	if err != nil || res.StatusCode == http.StatusInternalServerError {
		p.t.Errorf("%s %s answered %d: %.300s, %v", method, r.URL.Path, res.StatusCode, text, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers[res.StatusCode]++
	p.took = append(p.took, took)
	return res
}

// lap returns how long answers took since the lap before: the median and the 99th
// percentile.
func (s *soak) lap() (n int, p50, p99 time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.Sort(s.took)
	if n = len(s.took); n > 0 {
		p50, p99 = s.took[(n-1)*50/100], s.took[(n-1)*99/100]
	}
	s.took = nil
	return n, p50, p99
}

func (s *soak) statuses() map[int]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answers
}

// A footprint is what the process holds.
type footprint struct{ goroutines, descriptors, heap float64 }

// rest waits until the bridge is idle, and returns the least that it holds then.
func (s *soak) rest() footprint {
	s.t.Helper()
	least := footprint{1e18, 1e18, 1e18}
	time.Sleep(5 * time.Second) // connections that nobody uses are closed
	for range 60 {
		f := s.footprint()
		least.goroutines, least.descriptors, least.heap = min(least.goroutines, f.goroutines), min(least.descriptors, f.descriptors), min(least.heap, f.heap)
		time.Sleep(100 * time.Millisecond)
	}
	return least
}

func (s *soak) footprint() footprint {
	s.t.Helper()
	text := s.metrics()
	return footprint{s.metric(text, "go_goroutines"), s.metric(text, "process_open_fds"), s.metric(text, "go_memstats_heap_alloc_bytes")}
}

func (s *soak) metrics() string {
	s.t.Helper()
	res, err := http.Get("http://" + s.admin + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

func (s *soak) metric(metrics, name string) float64 {
	s.t.Helper()
	_, rest, found := strings.Cut(metrics, "\n"+name+" ")
	if !found {
		s.t.Fatalf("the metrics lack %s", name)
	}
	n, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// verify walks the audit log: its chain holds, and no clock was started twice. It
// returns the log.
func (s *soak) verify() (events []serval.Event) {
	s.t.Helper()
	archive, err := bridge.OpenArchive(s.t.Context(), serval.NewSecret(s.database), serval.NewSecret(soakSecret))
	if err != nil {
		s.t.Fatal(err)
	}
	defer archive.Close()
	head, err := archive.Verify(s.t.Context(), store.Head{})
	if err != nil {
		s.t.Fatal(err)
	}
	var export bytes.Buffer
	if _, err := archive.Export(s.t.Context(), &export); err != nil {
		s.t.Fatal(err)
	}
	clocks := map[string]int{}
	var issued int64
	for line := range strings.Lines(export.String()) {
		var e serval.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			s.t.Fatal(err)
		}
		events = append(events, e)
		if e.Action == serval.SessionIssue && e.Outcome == serval.OutcomeDone {
			issued++
			if e.Detail["clock_started_at"] != "" {
				clocks[e.Target]++
			}
		}
	}
	for id, n := range clocks {
		if n > 1 {
			s.t.Errorf("the clock of %s was started %d times", id, n)
		}
	}
	if issued < s.sessions.Load() {
		s.t.Errorf("%d sessions were handed over and %d are recorded", s.sessions.Load(), issued)
	}
	s.t.Logf("%d rows, the chain holds; %d sessions recorded of %d handed over, no clock started twice", head.Seq, issued, s.sessions.Load())
	return events
}
