package kubetest

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/idptest"
	"github.com/serval-bridge/serval-bridge/internal/porttest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// The accounts of the estate. The first is read and pushed at once; the pushes
// of the others are held up.
const (
	hub    = "999988887777"
	first  = "111122223333"
	second = "222233334444"
	third  = "333344445555"
)

// What a takeover may last: the Lease, a candidate's longest pause between two
// looks at it, and more for a machine that is busy, which in the tests of
// internal/lease none is.
const takeover = 15*time.Second + 4400*time.Millisecond + 20*time.Second

// What a handover may last: less than a takeover at the least, of a Lease that was
// renewed within the two seconds before.
const handover = 15*time.Second - 2*time.Second

// soon is how long everything else may last.
const soon = 20 * time.Second

// Two workers, a bridge and the API server are real; AWS and the identity
// provider are fakes beyond the wire.
func testWorkers(t *testing.T, c *Cluster) {
	w := newWorld(t, c)
	a, b := w.worker("a", 0), (*daemon)(nil)

	// The leader is about to push two accounts when it is stopped.
	lateSecond, lateThird := w.hold("a", second), w.hold("a", third)
	a.begin()
	a.until("leading: this worker reads the accounts of its shard", soon)
	w.accepted(first, 1)
	lateSecond.arrives()
	lateThird.arrives()
	if status, text := a.admin("/readyz"); status != 200 || !strings.Contains(text, `"detail":"leading"`) {
		t.Errorf("the leader's /readyz answered %d: %s", status, text)
	}
	a.leads(true)

	b = w.worker("b", 0)
	b.begin()
	b.until("standing by", soon)
	if status, text := b.admin("/readyz"); status != 200 || !strings.Contains(text, `"detail":"standing by; `) {
		t.Errorf("the standby's /readyz answered %d: %s", status, text)
	}
	b.leads(false)

	// it is stopped for longer than its Lease lasts.
	bsThird := w.hold("b", third)
	stopped := time.Now()
	a.signal(syscall.SIGSTOP)
	calls := a.calls()
	b.until("leading: this worker reads the accounts of its shard", takeover)
	t.Logf("the standby led %s after the leader was stopped", time.Since(stopped).Round(time.Millisecond))
	w.accepted(second, 2)
	bsThird.arrives()
	// What it had on its way comes late, and is refused.
	for _, late := range []*held{lateSecond, lateThird} {
		if status, text := late.release(); status != 409 || !strings.Contains(text, `"conflict"`) {
			t.Errorf("the late push of account %s was answered %d, want 409: %s", late.account, status, text)
		}
	}
	resumed := time.Now()
	a.signal(syscall.SIGCONT)
	a.until("not leading any more: nothing is read until this worker leads again", soon)
	t.Logf("the former leader had stopped its work %s after it went on", time.Since(resumed).Round(time.Millisecond))
	a.until("standing by", soon)
	a.leads(false)
	if now := a.calls(); now != calls {
		t.Errorf("the former leader has called AWS %d times since another leads", now-calls)
	}

	// The new leader dies, about to push.
	killed := time.Now()
	b.signal(syscall.SIGKILL)
	a.until("leading: this worker reads the accounts of its shard", takeover)
	t.Logf("the standby led %s after the leader was killed", time.Since(killed).Round(time.Millisecond))
	w.accepted(third, 3)

	// The last one is told to go, and hands over.
	d := w.worker("d", 0)
	d.begin()
	d.until("standing by", soon)
	told := time.Now()
	a.signal(syscall.SIGTERM)
	d.until("leading: this worker reads the accounts of its shard", handover)
	t.Logf("the standby led %s after the leader was told to stop", time.Since(told).Round(time.Millisecond))
	a.ends(0)
	w.judge()

	// A worker whose service account may not use its Lease says so, and leads when
	// it may.
	e := w.worker("e", 1)
	e.begin()
	line := e.until("the Lease cannot be used; trying again", soon)
	const want = `the service account may not get the Lease serval-worker-1 in the namespace serval; give it a Role there with get, create and update on leases ` +
		`of the API group coordination.k8s.io: leases.coordination.k8s.io "serval-worker-1" is forbidden: User "system:serviceaccount:serval:serval-worker-sa" ` +
		`cannot get resource "leases" in API group "coordination.k8s.io" in the namespace "serval"`
	if line.Error != want {
		t.Errorf("without the right the log says\n%s\nwant\n%s", line.Error, want)
	}
	if status, text := e.admin("/readyz"); status != 503 || !strings.Contains(text, `may not get the Lease serval-worker-1`) {
		t.Errorf("without the right /readyz answered %d: %s", status, text)
	}
	c.Create(fmt.Sprintf(Roles, namespace), named("second-shard", object{"rules": []object{
		rule("coordination.k8s.io", "leases", []string{"serval-worker-1"}, "get", "update"),
	}}))
	c.Create(fmt.Sprintf(RoleBindings, namespace), named("second-shard", bind(workerAccount, "Role", "second-shard")))
	e.until("leading: this worker reads the accounts of its shard", soon)
	for _, p := range []*daemon{d, e, w.bridge} {
		p.signal(syscall.SIGTERM)
		p.ends(0)
	}
}

// A world is a bridge, and the way to it and to AWS for workers.
type world struct {
	t        *testing.T
	cluster  *Cluster
	cloud    *awstest.Cloud
	bridge   *daemon
	upstream string // the bridge's own address

	mu     sync.Mutex
	passed []passed
	held   map[string]*held // by worker and account
}

// A passed is a call of the upstream that opened a sync or pushed one.
type passed struct {
	worker, account string
	open            bool
	generation      int64
	status          int
}

// newWorld lays out AWS and starts a bridge.
func newWorld(t *testing.T, c *Cluster) *world {
	t.Helper()
	w := &world{t: t, cluster: c, cloud: awstest.New(awstest.Options{}), held: map[string]*held{}}
	externalIDs := serval.NewSecret(rand.Text() + rand.Text())
	allow := func(actions ...string) string {
		return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["` + strings.Join(actions, `","`) + `"],"Resource":"*"}]}`
	}
	w.cloud.AddAccount(hub, "hub").PutRole(awstest.Role{Name: "worker", Inline: map[string]string{"hop": allow("sts:AssumeRole", "sts:TagSession")}})
	trust := fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::%[1]s:root"},"Action":"sts:AssumeRole",`+
		`"Condition":{"StringEquals":{"sts:ExternalId":%[2]q}}},{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::%[1]s:root"},"Action":"sts:TagSession"}]}`,
		hub, serval.ExternalID(externalIDs, "acme"))
	file := "team: acme\naccounts:\n"
	for i, id := range []string{first, second, third} {
		account := w.cloud.AddAccount(id, fmt.Sprintf("account-%d", i))
		account.PutRole(awstest.Role{Name: "serval-ingestion", Trust: trust, Inline: map[string]string{"read": allow(serval.IngestionActions()...)}})
		account.PutRole(awstest.Role{Name: "dev", Tags: map[string]string{"serval": ""}, Trust: trust})
		file += fmt.Sprintf("  - {id: %q, name: account-%d, role_arn: %q}\n", id, i, "arn:aws:iam::"+id+":role/serval-ingestion")
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "serval.yaml")
	if err := os.WriteFile(config, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	issuer := idptest.New(idptest.Options{ClientID: "serval", ClientSecret: "client-secret"}).Start(t)
	pod := c.Pod(namespace, bridgeAccount)
	w.bridge = &daemon{world: w, name: "bridge", binary: "serval-bridge", args: []string{"serve"}, environ: append(pod.Environ,
		"SERVAL_SERVICE_ACCOUNT_DIR="+pod.Dir, "SERVAL_LISTEN=127.0.0.1:0", "SERVAL_ADMIN_LISTEN=127.0.0.1:0", "SERVAL_PUBLIC_URL=http://127.0.0.1:1",
		"SERVAL_OIDC_ISSUER="+issuer, "SERVAL_OIDC_CLIENT_ID=serval", "SERVAL_OIDC_CLIENT_SECRET=client-secret",
		"SERVAL_SECRET="+rand.Text()+rand.Text(), "SERVAL_EXTERNAL_ID_SECRET="+externalIDs.Reveal(),
		"SERVAL_DATABASE_URL=sqlite://"+filepath.Join(dir, "serval.db"), "SERVAL_CONFIG="+config, "SERVAL_DRAIN_DELAY=0s",
	)}
	w.bridge.begin()
	if got := w.bridge.until("taking service-account tokens of the worker", soon).Subject; got != workerSubject {
		t.Errorf("the bridge takes the tokens of %q, want %q", got, workerSubject)
	}
	w.upstream = "http://" + w.bridge.until("serving", soon).Listen
	return w
}

// worker lays out a worker of a shard of its own way to AWS and to the bridge.
func (w *world) worker(name string, shard int) *daemon {
	w.t.Helper()
	pod := w.cluster.Pod(namespace, workerAccount)
	token := filepath.Join(w.t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(w.cluster.Token(namespace, workerAccount, audience)), 0o600); err != nil {
		w.t.Fatal(err)
	}
	d := &daemon{world: w, name: name, binary: "serval-worker", args: []string{"run"}, adminAt: porttest.Own(w.t)}
	aws := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		d.asked++
		d.mu.Unlock()
		w.cloud.ServeHTTP(rw, r)
	}))
	w.t.Cleanup(aws.Close)
	upstream := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.pass(name, rw, r) }))
	w.t.Cleanup(upstream.Close)
	keys := w.cloud.Account(hub).PodIdentity("worker", time.Now())
	now := time.Now() // by the clock no account is due again within a test, whatever time it is
	offset := now.Sub(now.Truncate(24*time.Hour)) + 2*time.Hour
	d.environ = append(pod.Environ, "SERVAL_SYNC_OFFSET="+offset.String(), "SERVAL_SERVICE_ACCOUNT_DIR="+pod.Dir, "SERVAL_UPSTREAM_URL="+upstream.URL, "SERVAL_UPSTREAM_TOKEN_FILE="+token,
		"SERVAL_STS_ENDPOINT="+aws.URL, "SERVAL_IAM_ENDPOINT="+aws.URL, "SERVAL_ADMIN_LISTEN="+d.adminAt, fmt.Sprintf("SERVAL_SHARD=%d", shard),
		fmt.Sprintf("SERVAL_TOTAL_SHARDS=%d", shard+1), "AWS_EC2_METADATA_DISABLED=true", "AWS_ACCESS_KEY_ID="+keys.AccessKeyID,
		"AWS_SECRET_ACCESS_KEY="+keys.SecretAccessKey, "AWS_SESSION_TOKEN="+keys.SessionToken)
	return d
}

// A held is a push on its way from a worker to the bridge.
type held struct {
	t       *testing.T
	account string
	there   chan struct{} // closed when it is there
	goOn    chan struct{}
	status  int
	answer  chan string // comes after status
}

// hold holds up the worker's next push of the account.
func (w *world) hold(worker, account string) *held {
	h := &held{t: w.t, account: account, there: make(chan struct{}), goOn: make(chan struct{}), answer: make(chan string, 1)}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held[worker+account] = h
	return h
}

// arrives waits until all of the push is there.
func (h *held) arrives() {
	h.t.Helper()
	select {
	case <-h.there:
	case <-time.After(soon):
		h.t.Fatalf("no push of account %s came in %s", h.account, soon)
	}
}

// release passes the push on, and returns what the bridge says.
func (h *held) release() (status int, text string) {
	h.t.Helper()
	close(h.goOn)
	select {
	case text := <-h.answer:
		return h.status, text
	case <-time.After(soon):
		h.t.Fatalf("the push of account %s was not answered in %s", h.account, soon)
		return 0, ""
	}
}

// pass passes a worker's call on to the bridge, and notes what it was.
func (w *world) pass(worker string, rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	p := passed{worker: worker, open: r.Method == http.MethodPost}
	if parts := strings.Split(r.URL.Path, "/"); len(parts) > 5 {
		p.account = parts[5]
	}
	ctx := r.Context()
	var h *held
	if r.Method == http.MethodPut {
		p.generation = generation(w.t, body)
		w.mu.Lock()
		h = w.held[worker+p.account]
		delete(w.held, worker+p.account)
		w.mu.Unlock()
	}
	if h != nil {
		close(h.there)
		select {
		case <-h.goOn:
			ctx = context.WithoutCancel(ctx) // it was sent, whoever waits for the answer
		case <-ctx.Done():
			return // the worker is dead
		}
	}
	q, err := http.NewRequestWithContext(ctx, r.Method, w.upstream+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		w.t.Error(err)
		return
	}
	q.Header = r.Header.Clone()
	res, err := http.DefaultTransport.RoundTrip(q)
	if err != nil {
		if ctx.Err() == nil {
			rw.WriteHeader(http.StatusBadGateway) // the bridge has ended
		}
		return
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return
	}
	p.status = res.StatusCode
	if p.open && p.status == http.StatusOK {
		p.generation = generation(w.t, answer)
	}
	if p.account != "" && !strings.Contains(r.URL.Path, "/tasks") {
		w.mu.Lock()
		w.passed = append(w.passed, p)
		w.mu.Unlock()
	}
	if h != nil {
		h.status = p.status
		h.answer <- string(answer)
	}
	for name, values := range res.Header {
		rw.Header()[name] = values
	}
	rw.WriteHeader(res.StatusCode)
	rw.Write(answer) // whoever does not read it, does not
}

// generation returns the generation in JSON, gzipped or not.
func generation(t *testing.T, text []byte) int64 {
	if z, err := gzip.NewReader(bytes.NewReader(text)); err == nil {
		if text, err = io.ReadAll(z); err != nil {
			t.Error(err)
		}
	}
	var v struct{ Generation int64 }
	if err := json.Unmarshal(text, &v); err != nil {
		t.Errorf("%v: %.200s", err, text)
	}
	return v.Generation
}

// accepted waits until a push of the account was accepted with the generation, or
// a later one.
func (w *world) accepted(account string, generation int64) {
	w.t.Helper()
	for end := time.Now().Add(soon); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		w.mu.Lock()
		for _, p := range w.passed {
			if !p.open && p.account == account && p.status == 200 && p.generation >= generation {
				w.mu.Unlock()
				return
			}
		}
		w.mu.Unlock()
	}
	w.t.Fatalf("account %s was not pushed with generation %d in %s; what passed: %+v", account, generation, soon, w.passed)
}

// judge looks back at all that passed: generations grew, and only the worker that
// had opened an account last could push it.
func (w *world) judge() {
	w.mu.Lock()
	defer w.mu.Unlock()
	opened, accepted := map[string]passed{}, map[string]int64{}
	for _, p := range w.passed {
		switch last := opened[p.account]; {
		case p.open && p.status == 200:
			if p.generation <= last.generation {
				w.t.Errorf("account %s was opened with generation %d after %d", p.account, p.generation, last.generation)
			}
			opened[p.account] = p
		case p.open:
			w.t.Errorf("%s opened account %s and was answered %d", p.worker, p.account, p.status)
		case p.status == 200:
			if p.generation <= accepted[p.account] || p.generation != last.generation || p.worker != last.worker {
				w.t.Errorf("%s pushed account %s with generation %d; last accepted was %d, last opened %d by %s",
					p.worker, p.account, p.generation, accepted[p.account], last.generation, last.worker)
			}
			accepted[p.account] = p.generation
		}
	}
	if len(accepted) != 3 {
		w.t.Errorf("accounts were accepted with generations %v, want all three", accepted)
	}
}

// A daemon is a program that a test runs as its pod would.
type daemon struct {
	*world
	name, binary  string
	args, environ []string
	adminAt       string

	mu      sync.Mutex
	asked   int    // calls of AWS
	text    []byte // what it wrote
	read    int    // how much of it until has seen
	running *program
}

// A line is what a test reads of a line of the log.
type line struct {
	Msg, Error, Listen, Subject string
}

// Write takes in what the program writes.
func (d *daemon) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.text = append(d.text, p...)
	return len(p), nil
}

// begin starts the program.
func (d *daemon) begin() {
	d.t.Helper()
	d.running = start(d.t, d, append(d.environ, "HOME="+d.t.TempDir()), Tool(d.t, d.binary), d.args...)
	d.t.Cleanup(func() {
		if d.t.Failed() {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.t.Logf("what %s wrote:\n%s", d.name, d.text)
		}
	})
}

// until waits until the program has written a line, after those that until has
// returned before, and returns it.
func (d *daemon) until(message string, patience time.Duration) line {
	d.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		d.mu.Lock()
		for {
			text, _, whole := bytes.Cut(d.text[d.read:], []byte("\n"))
			if !whole {
				break
			}
			d.read += len(text) + 1
			var l line
			if json.Unmarshal(text, &l) == nil && l.Msg == message {
				d.mu.Unlock()
				return l
			}
		}
		d.mu.Unlock()
		if time.Now().After(end) {
			d.t.Fatalf("%s did not say %q in %s", d.name, message, patience)
		}
	}
}

func (d *daemon) signal(s syscall.Signal) {
	d.t.Helper()
	if err := syscall.Kill(d.running.pid, s); err != nil {
		d.t.Fatalf("sending %s to %s: %v", s, d.name, err)
	}
}

// ends waits until the program has ended, with that code.
func (d *daemon) ends(code int) {
	d.t.Helper()
	select {
	case <-d.running.ended:
		if d.running.code != code {
			d.t.Errorf("%s ended with %d, want %d", d.name, d.running.code, code)
		}
	case <-time.After(soon):
		d.t.Fatalf("%s has not ended in %s", d.name, soon)
	}
}

func (d *daemon) calls() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked
}

// admin calls a page of the admin port.
func (d *daemon) admin(path string) (status int, text string) {
	d.t.Helper()
	res, err := http.Get("http://" + d.adminAt + path)
	if err != nil {
		d.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// leads demands what the metric says.
func (d *daemon) leads(want bool) {
	d.t.Helper()
	line := "\nserval_worker_leader 0\n"
	if want {
		line = "\nserval_worker_leader 1\n"
	}
	if _, text := d.admin("/metrics"); !strings.Contains(text, line) {
		d.t.Errorf("%s does not have the metric %s", d.name, strings.TrimSpace(line))
	}
}
