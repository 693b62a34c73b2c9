package workerd_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
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

// TestScale runs one worker over very many accounts, in virtual time: all are read
// in full within four hours at a pace that every account bears, and looked at in
// between. With -scale=10000 it is the measurement of docs/performance.md.
func TestScale(t *testing.T) {
	accounts, roles, tagged := 60, 12, 3
	if *scale > 0 {
		accounts = *scale
	}
	synctest.Test(t, func(t *testing.T) {
		s := newSphere(t)
		cloud, h := s.cloud, s.hall
		ingestion, read := trust(external), map[string]string{"read": allow(serval.IngestionActions()...)}
		inline := map[string]string{"own": allow("s3:GetObject")}
		for i := range accounts {
			id := fmt.Sprintf("%012d", 100000000000+i*7)
			a := cloud.AddAccount(id, "account")
			a.PutRole(awstest.Role{Name: "serval-ingestion", Trust: ingestion, Inline: read})
			for n := range roles - 1 {
				r := awstest.Role{Name: fmt.Sprintf("role%02d", n)}
				if n < tagged {
					r.Tags, r.Inline, r.Attached = map[string]string{"serval": ""}, inline, []string{"arn:aws:iam::aws:policy/ReadOnlyAccess"}
				}
				a.PutRole(r)
			}
			h.add(id, time.Time{})
		}
		// What others have found to be safe, for each account and action.
		for _, action := range serval.IngestionActions() {
			cloud.ThrottleAction(strings.TrimPrefix(action, "iam:"), 15, 40)
		}
		cloud.SetLatency(func() time.Duration { return 45 * time.Millisecond })

		runtime.GC()
		before, peak := live(), uint64(0)
		began := time.Now()
		stop := s.run()
		all := func() bool {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.full >= accounts
		}
		sample := func() { peak = max(peak, live()) }
		calls := 0
		drain := func() {
			calls += cloud.CountCalls("")
			cloud.ResetCalls() // the record of calls is the cloud's, and long
		}
		for !all() {
			time.Sleep(time.Second)
			sample()
			drain()
			if time.Since(began) > 4*time.Hour {
				t.Fatalf("after four hours %d of %d accounts have been read", h.full, accounts)
			}
		}
		took, fullCalls := time.Since(began), calls
		for range 600 {
			time.Sleep(time.Second)
			sample()
			drain()
		}
		stop()
		if h.full != accounts {
			t.Errorf("%d full syncs of %d accounts", h.full, accounts)
		}
		// Two deltas each in ten minutes, or as many as ten at a time come to.
		want := min(2*accounts-accounts/10, 10_000)
		if h.deltas < want || h.changed != 0 {
			t.Errorf("%d deltas of %d accounts in ten minutes, %d with changes; want at least %d and none", h.deltas, accounts, h.changed, want)
		}
		// What the played AWS and upstream remember by then counts too.
		if need := peak - before; need > 256<<20 {
			t.Errorf("%d accounts need %d MiB, want at most 256", accounts, need>>20)
		}
		t.Logf("%d accounts of %d roles, %d tagged: read in %s of virtual time with %d calls (some by the first deltas); %d deltas in all, with %d calls in ten minutes more; %d MiB live at most above the %d MiB of the played AWS",
			accounts, roles, tagged, took.Round(time.Second), fullCalls, h.deltas, calls-fullCalls, (peak-before)>>20, before>>20)
	})
}

// live returns the bytes of objects that the last collection found in use.
func live() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
