package workerd_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/serval-bridge/serval-bridge/internal/awsiam"
	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/upstream"
	"github.com/serval-bridge/serval-bridge/internal/wire"
	"github.com/serval-bridge/serval-bridge/internal/workerd"
)

var scale = flag.Int("scale", 0, "how many accounts TestScale reads instead of a few")

// A hall is an upstream for many accounts, without sockets. It keeps of each what
// an upstream must, and judges the generations.
type hall struct {
	t testing.TB

	mu      sync.Mutex
	order   []string
	list    map[string]*wire.WorkerAccount
	known   map[string][]serval.KnownRole
	taken   map[string]int64
	full    int // accepted
	deltas  int
	changed int // deltas that changed something
}

// RoundTrip answers in the goroutine of whoever asks.
func (h *hall) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	h.serve(w, r)
	if r.Body != nil {
		r.Body.Close()
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

// nothingNew waits as long as a worker would that knows what there is.
func (h *hall) nothingNew(r *http.Request) {
	if r.URL.Query().Get("version") == "" {
		return
	}
	wait, err := time.ParseDuration(r.URL.Query().Get("wait") + "s")
	if err != nil {
		h.t.Error(err)
	}
	select {
	case <-time.After(wait):
	case <-r.Context().Done():
	}
}

func (h *hall) serve(w http.ResponseWriter, r *http.Request) {
	id := strings.Split(r.URL.Path+"/////", "/")[5]
	switch r.Method + " " + r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:] {
	case "GET tasks":
		h.nothingNew(r)
		json.NewEncoder(w).Encode(wire.Tasks{Version: "1", Tasks: []wire.Task{}})
	case "GET accounts":
		h.nothingNew(r)
		h.mu.Lock()
		defer h.mu.Unlock()
		answer := wire.WorkerAccounts{Version: "1"}
		for _, id := range h.order {
			answer.Accounts = append(answer.Accounts, *h.list[id])
		}
		json.NewEncoder(w).Encode(answer)
	case "POST syncs":
		h.mu.Lock()
		defer h.mu.Unlock()
		a := h.list[id]
		a.Generation++
		json.NewEncoder(w).Encode(wire.Sync{
			Generation: a.Generation, Until: wire.Time{Time: time.Now().Add(10 * time.Minute)}, LookedAt: a.LastSyncAt, Known: h.known[id],
		})
	case "PUT inventory":
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			h.t.Error(err)
			return
		}
		var known []serval.KnownRole
		inv, err := wire.ReadInventory(z, func(r serval.Role) error {
			known = append(known, serval.KnownRole{RoleID: r.RoleID, ARN: r.ARN, Digest: r.Digest(), Shown: r.Shown()})
			return nil
		})
		h.mu.Lock()
		defer h.mu.Unlock()
		h.take(id, inv.Generation, err)
		if !inv.Complete || inv.AccountID != id {
			h.t.Errorf("account %s was pushed complete %t as %s: %v", id, inv.Complete, inv.AccountID, inv.Problems)
		}
		h.list[id].LastSyncAt, h.known[id] = wire.Time{Time: inv.StartedAt}, known
		h.full++
		json.NewEncoder(w).Encode(wire.Push{Generation: inv.Generation, Added: len(known)})
	case "PUT delta":
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			h.t.Error(err)
			return
		}
		roles := 0
		d, err := wire.ReadDelta(z, func(serval.Role) error { roles++; return nil })
		h.mu.Lock()
		defer h.mu.Unlock()
		h.take(id, d.Generation, err)
		h.deltas++
		if roles+len(d.Removed) > 0 {
			h.changed++
		}
		json.NewEncoder(w).Encode(wire.Push{Generation: d.Generation, Added: roles, Removed: len(d.Removed)})
	default:
		h.t.Errorf("asked %s %s", r.Method, r.URL.Path)
		w.WriteHeader(http.StatusNotFound)
	}
}

func (h *hall) take(id string, generation int64, err error) {
	if err != nil || generation != h.list[id].Generation || generation <= h.taken[id] {
		h.t.Errorf("account %s pushed generation %d, of %d that were opened and %d taken: %v", id, generation, h.list[id].Generation, h.taken[id], err)
	}
	h.taken[id] = generation
}

// add lists an account that was last read in full then.
func (h *hall) add(id string, last time.Time) {
	h.order = append(h.order, id)
	h.list[id] = &wire.WorkerAccount{
		ID: id, Name: "account " + id, Partition: "aws", ExternalID: external, RoleARN: "arn:aws:iam::" + id + ":role/serval-ingestion",
		LastSyncAt: wire.Time{Time: last},
	}
}

// A sphere is a hall before a cloud with a worker in its hub, all without
// sockets, for a bubble.
type sphere struct {
	*hall
	cloud *awstest.Cloud
	keys  awstest.Keys
}

func newSphere(t testing.TB) *sphere {
	cloud := awstest.New(awstest.Options{})
	t.Cleanup(cloud.Close)
	home := cloud.AddAccount(hub, "hub")
	home.PutRole(awstest.Role{Name: "worker", Inline: map[string]string{"hop": allow("sts:AssumeRole", "sts:TagSession")}})
	return &sphere{
		hall:  &hall{t: t, list: map[string]*wire.WorkerAccount{}, known: map[string][]serval.KnownRole{}, taken: map[string]int64{}},
		cloud: cloud, keys: home.PodIdentity("worker", time.Now()),
	}
}

// run runs a worker until stop is called.
func (s *sphere) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- workerd.Run(ctx, workerd.Config{
			Upstream: upstream.Config{BaseURL: "http://127.0.0.1:1", HTTPClient: &http.Client{Transport: s.hall}},
			AWS: awsiam.Config{
				STSEndpoint: "http://127.0.0.1:2", IAMEndpoint: "http://127.0.0.1:2", Dial: s.cloud.Dialer(),
				Credentials: credentials.NewStaticCredentialsProvider(s.keys.AccessKeyID, s.keys.SecretAccessKey, s.keys.SessionToken),
			},
			Name: "worker-0", DeltaInterval: 5 * time.Minute,
		})
	}()
	return func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
		synctest.Wait()
	}
}

// S-22: an account whose role can be assumed without the External ID is not
// looked at either.
func TestDeltasAskForTheExternalID(t *testing.T) {
	for _, careful := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s := newSphere(t)
			policy := trust(external)
			if !careful {
				policy = strings.Replace(policy, `"sts:ExternalId"`, `"aws:PrincipalAccount"`, 1)
				policy = strings.Replace(policy, external, hub, 1)
			}
			s.cloud.AddAccount(good, "prod").PutRole(awstest.Role{
				Name: "serval-ingestion", Trust: policy, Inline: map[string]string{"read": allow(serval.IngestionActions()...)},
			})
			s.add(good, time.Now())
			stop := s.run()
			time.Sleep(9 * time.Minute)
			stop()
			if looked := s.cloud.CountCalls("ListRoles") > 0; looked != careful || (s.deltas > 0) != careful || s.full > 0 {
				t.Errorf("where its role asks for the External ID (%t) the account was looked at: %t, with %d deltas and %d full syncs", careful, looked, s.deltas, s.full)
			}
		})
	}
}

// firstBurst is what every action of every account bears at once.
const firstBurst = 40

// A load is accounts that are all alike.
type load struct{ accounts, roles, tagged int }

// put makes them.
func (l load) put(s *sphere) {
	ingestion, read := trust(external), map[string]string{"read": allow(serval.IngestionActions()...)}
	inline := map[string]string{"own": allow("s3:GetObject")}
	for i := range l.accounts {
		id := fmt.Sprintf("%012d", 100000000000+i*7)
		a := s.cloud.AddAccount(id, "account")
		a.PutRole(awstest.Role{Name: "serval-ingestion", Trust: ingestion, Inline: read})
		for n := range l.roles - 1 {
			r := awstest.Role{Name: fmt.Sprintf("role%03d", n)}
			if n < l.tagged {
				r.Tags, r.Inline, r.Attached = map[string]string{"serval": ""}, inline, []string{"arn:aws:iam::aws:policy/ReadOnlyAccess"}
			}
			a.PutRole(r)
		}
		s.add(id, time.Time{})
	}
}

// A cost is what one worker needs for a load.
type cost struct {
	part
	half    part // until half of the accounts have been read
	full    int
	more    int // calls in the time after
	deltas  int // in all
	changed int
	before  uint64 // bytes in use before the worker began: the played AWS
	after   uint64 // above them at most, in all the time
	thrifty bool   // garbage was collected more often than usual, while many accounts were read
}

// garbage returns by how much it may grow now, in percent.
func garbage() uint64 {
	now := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(now)
	return now[0].Value.Uint64()
}

// A part is what was needed until accounts have been read in full.
type part struct {
	took  time.Duration
	calls int
	need  uint64 // bytes above those before, at most
}

// work has one worker read the load in virtual time, at a pace that every account bears, and look at it for some
// time more.
func (l load) work(t *testing.T, more time.Duration) (c cost) {
	synctest.Test(t, func(t *testing.T) {
		s := newSphere(t)
		l.put(s)
		// What others have found to be safe, for each account and action.
		for _, action := range serval.IngestionActions() {
			s.cloud.ThrottleAction(strings.TrimPrefix(action, "iam:"), 15, firstBurst)
		}
		usual := garbage()
		var thrifty atomic.Bool
		s.cloud.SetLatency(func() time.Duration {
			if garbage() < usual {
				thrifty.Store(true)
			}
			return 45 * time.Millisecond
		})

		runtime.GC()
		c.before = live()
		peak, calls := c.before, 0
		began := time.Now()
		stop := s.run()
		second := func() {
			time.Sleep(time.Second)
			peak = max(peak, live())
			calls += s.cloud.CountCalls("")
			s.cloud.ResetCalls() // the record of calls is the cloud's, and long
		}
		full := func() int {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.full
		}
		for full() < l.accounts {
			if full() < l.accounts/2 {
				c.half = part{time.Since(began), calls, peak - c.before}
			}
			second()
			if time.Since(began) > 4*time.Hour {
				t.Fatalf("after four hours %d of %d accounts have been read", full(), l.accounts)
			}
		}
		c.part = part{time.Since(began), calls, peak - c.before}
		for range int(more.Seconds()) {
			second()
		}
		stop()
		c.thrifty = thrifty.Load() || usual < 100 // then whoever runs the test is
		c.more, c.after, c.full, c.deltas, c.changed = calls-c.calls, peak-c.before, s.full, s.deltas, s.changed
	})
	return c
}

// TestScale runs one worker over very many accounts: all are read in full within four hours, and looked at in
// between. With -scale=10000 it is the measurement of docs/performance.md.
func TestScale(t *testing.T) {
	l := load{60, 12, 3}
	if *scale > 0 {
		l.accounts = *scale
	}
	c := l.work(t, 10*time.Minute)
	if c.full != l.accounts {
		t.Errorf("%d full syncs of %d accounts", c.full, l.accounts)
	}
	if !c.thrifty {
		t.Error("garbage grows as usual while many accounts are read at once")
	}
	// Two deltas each in ten minutes, or as many as ten at a time come to.
	want := min(2*l.accounts-l.accounts/10, 10_000)
	if c.deltas < want || c.changed != 0 {
		t.Errorf("%d deltas of %d accounts in ten minutes, %d with changes; want at least %d and none", c.deltas, l.accounts, c.changed, want)
	}
	// What the played AWS and upstream remember by then counts too.
	if c.after > 256<<20 {
		t.Errorf("%d accounts need %d MiB, want at most 256", l.accounts, c.after>>20)
	}
	t.Logf("%+v: read in %s of virtual time with %d calls (some by the first deltas); %d deltas in all, with %d calls in ten minutes more; %d MiB live at most above the %d MiB of the played AWS",
		l, c.took.Round(time.Second), c.calls, c.deltas, c.more, c.after>>20, c.before>>20)
}

// a thousand accounts of a thousand roles are read in less than three hours and a half at the pace that others
// have found to be safe, and take no more memory than few: what is needed grows with those that are read at once. Here
// twenty are read, ten at once, and with -scale they are as large as that; else less large, and have less time.
func TestScaleOfLargeAccounts(t *testing.T) {
	l := load{20, 300, 15}
	if *scale > 0 {
		l.roles, l.tagged = 1000, 50
	}
	c := l.work(t, 0)
	most := 3*time.Hour + 30*time.Minute
	most = most / 1000 * time.Duration(l.roles-firstBurst) / (1000 - firstBurst)
	if each := (c.took - c.half.took) / time.Duration(l.accounts/2); each > most || each < most/4 {
		t.Errorf("ten accounts of %d roles took %s, twenty %s: %s each, want at most %s", l.roles, c.half.took, c.took, each, most)
	}
	if c.need > c.half.need+c.half.need/3+4<<20 || c.need > 64<<20 {
		t.Errorf("ten accounts need %.1f MiB, twenty %.1f, want not much more", mib(c.half.need), mib(c.need))
	}
	t.Logf("%+v: ten in %s, %d calls, %.1f MiB; twenty in %s, %d calls, %.1f MiB", l, c.half.took, c.half.calls, mib(c.half.need), c.took, c.calls, mib(c.need))
}

func mib(bytes uint64) float64 { return float64(bytes) / (1 << 20) }

// aWorker is the variable that makes this program a worker; see workAlone.
const aWorker = "SERVAL_TEST_WORKER"

// An opening is what that worker needs to know.
type opening struct {
	AWS, Upstream string
	Keys          awstest.Keys
}

// workAlone is a worker with its defaults, until standard input ends.
func workAlone(text string) error {
	var o opening
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return workerd.Run(ctx, workerd.Config{
		Upstream: upstream.Config{BaseURL: o.Upstream},
		AWS: awsiam.Config{STSEndpoint: o.AWS, IAMEndpoint: o.AWS,
			Credentials: credentials.NewStaticCredentialsProvider(o.Keys.AccessKeyID, o.Keys.SecretAccessKey, o.Keys.SessionToken)},
		Name: "worker-0", DeltaInterval: 5 * time.Minute,
	})
}

// TestScaleAlone measures what a worker of very many accounts has resident, in a process of its own and over
// sockets.
func TestScaleAlone(t *testing.T) {
	if *scale == 0 {
		t.Skip("it takes minutes: -scale=10000")
	}
	s := newSphere(t)
	l := load{*scale, 12, 3}
	l.put(s)
	aws, hall := httptest.NewServer(s.cloud), httptest.NewServer(http.HandlerFunc(s.serve))
	defer aws.Close()
	defer hall.Close()
	text, err := json.Marshal(opening{AWS: aws.URL, Upstream: hall.URL, Keys: s.keys})
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), aWorker+"="+string(text))
	c.Stderr = os.Stderr
	hold, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		hold.Close()
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
	}()
	began := time.Now()
	resident := func() string {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.Process.Pid))
		if err != nil {
			return "an amount that only Linux tells"
		}
		_, rest, _ := strings.Cut(string(status), "VmHWM:")
		line, _, _ := strings.Cut(rest, "\n")
		return strings.TrimSpace(line)
	}
	for {
		time.Sleep(time.Second)
		s.cloud.ResetCalls()
		s.mu.Lock()
		full, deltas := s.full, s.deltas
		s.mu.Unlock()
		if full >= l.accounts {
			t.Logf("%d accounts read and %d deltas after %s: %s resident at most", full, deltas, time.Since(began).Round(time.Second), resident())
			break
		}
		if time.Since(began) > time.Hour {
			t.Fatalf("after an hour %d of %d accounts have been read, %s resident", full, l.accounts, resident())
		}
	}
	time.Sleep(time.Minute)
	t.Logf("a minute of deltas later: %s resident at most", resident())
}

// live returns the bytes of objects that the last collection found in use.
func live() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
