package worker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errAway = errors.New("connection refused")

// A far is an upstream that judges: generations only grow, a claim is one
// worker's, a push is of the last generation that was opened, and a repeat has
// the same content. It is used within a bubble.
type far struct {
	t *testing.T

	mu       sync.Mutex
	accounts map[string]*remembered
	version  int
	changed  chan struct{}

	// What is asked before each call; an error is the call's answer.
	away   func() error
	issuer string // is told with each sync
	onOpen func(id string) error
	onPush func(inv serval.Inventory) error
	// onPushed is asked after a push was taken: it happened, and failed.
	onPushed func(inv serval.Inventory) error

	onDelta  func(d serval.Delta) error
	onLooked func(d serval.Delta) error

	polls, opens, pushes int // calls, whatever came of them
	accepted             []serval.Inventory
	looks, deltaPushes   int // deltas that were opened or tried to, and pushes of them
	deltas               []serval.Delta
}

type remembered struct {
	worker.Account
	opened, taken int64
	digest        string
	lookedAt      time.Time
	claimed       string
	until         time.Time
	kind          serval.SyncKind // of the claim
}

func newFar(t *testing.T, accounts ...worker.Account) *far {
	f := &far{t: t, accounts: make(map[string]*remembered), changed: make(chan struct{})}
	for _, a := range accounts {
		f.accounts[a.ID] = &remembered{Account: a}
	}
	return f
}

// change lets somebody change what is listed.
func (f *far) change(g func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g()
	f.version++
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *far) request(id string) { f.change(func() { f.accounts[id].SyncRequested = true }) }

func (f *far) Accounts(ctx context.Context, version string, wait time.Duration) ([]worker.Account, string, error) {
	f.mu.Lock()
	f.polls++
	if err := ask(f.away); err != nil {
		f.mu.Unlock()
		return nil, "", err
	}
	if wait < time.Second || wait > time.Minute || wait%time.Second != 0 {
		f.t.Errorf("the worker asked the upstream to wait %s, want whole seconds up to a minute", wait)
	}
	changed := f.changed
	same := version == fmt.Sprint(f.version)
	f.mu.Unlock()
	if same {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			return nil, "", ctx.Err()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := ask(f.away); err != nil {
		return nil, "", err
	}
	var list []worker.Account
	for _, r := range f.accounts {
		list = append(list, r.Account)
	}
	return list, fmt.Sprint(f.version), nil
}

func (f *far) OpenSync(ctx context.Context, id, name string, kind serval.SyncKind) (worker.Opened, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if kind == serval.SyncDelta {
		f.looks++
	} else {
		f.opens++
	}
	if err := ask(f.away); err != nil {
		return worker.Opened{}, err
	}
	if f.onOpen != nil {
		if err := f.onOpen(id); err != nil {
			return worker.Opened{}, err
		}
	}
	r := f.accounts[id]
	if r == nil {
		return worker.Opened{}, serval.Refuse(serval.NotFound, "There is no such account for this worker.")
	}
	if time.Now().Before(r.until) && r.claimed != name {
		return worker.Opened{}, &worker.Busy{Until: r.until}
	}
	r.opened++
	r.claimed, r.kind, r.until = name, kind, time.Now().Add(30*time.Minute)
	if kind == serval.SyncDelta {
		r.until = time.Now().Add(10 * time.Minute)
	}
	return worker.Opened{Generation: r.opened, LookedAt: r.lookedAt, Known: known, Issuer: f.issuer}, nil
}

func (f *far) Push(ctx context.Context, inv serval.Inventory) (worker.Pushed, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pushes++
	if err := ask(f.away); err != nil {
		return worker.Pushed{}, err
	}
	if f.onPush != nil {
		if err := f.onPush(inv); err != nil {
			return worker.Pushed{}, err
		}
	}
	if inv.Schema != serval.InventorySchema || inv.Roles == nil || inv.Problems == nil || inv.ReadBy == "" || inv.StartedAt.IsZero() {
		f.t.Errorf("pushed an inventory that is not normalized: %+v", inv)
	}
	r := f.accounts[inv.AccountID]
	if r == nil {
		return worker.Pushed{}, serval.Refuse(serval.NotFound, "There is no such account for this worker.")
	}
	digest := fmt.Sprintf("%+v", inv)
	switch {
	case inv.Generation == r.taken && digest == r.digest:
		return worker.Pushed{Repeated: true}, nil
	case inv.Generation == r.taken:
		f.t.Errorf("generation %d of account %s was pushed again with another content", inv.Generation, inv.AccountID)
		fallthrough
	case inv.Generation != r.opened:
		return worker.Pushed{}, serval.Refuse(serval.Conflict, "Generation %d is not the last that was opened.", inv.Generation)
	}
	r.taken, r.digest, r.until = inv.Generation, digest, time.Time{}
	r.LastSyncAt, r.lookedAt = inv.StartedAt, inv.StartedAt
	if r.SyncRequested {
		r.SyncRequested = false
		f.version++
		close(f.changed)
		f.changed = make(chan struct{})
	}
	f.accepted = append(f.accepted, inv)
	if f.onPushed != nil {
		if err := f.onPushed(inv); err != nil {
			return worker.Pushed{}, err
		}
	}
	return worker.Pushed{Added: len(inv.Roles)}, nil
}

// known are the roles that every account is known to have.
var known = []serval.KnownRole{{RoleID: "AROADEV", ARN: "arn:aws:iam::000000000001:role/dev", Digest: "0a", Shown: "0b"}}

func (f *far) PushDelta(ctx context.Context, d serval.Delta) (worker.Pushed, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.deltaPushes++
	if err := ask(f.away); err != nil {
		return worker.Pushed{}, err
	}
	if f.onDelta != nil {
		if err := f.onDelta(d); err != nil {
			return worker.Pushed{}, err
		}
	}
	if d.Schema != serval.DeltaSchema || d.Roles == nil || d.Removed == nil || d.Problems == nil || d.ReadBy == "" || d.StartedAt.IsZero() {
		f.t.Errorf("pushed a delta that is not normalized: %+v", d)
	}
	r := f.accounts[d.AccountID]
	if r == nil {
		return worker.Pushed{}, serval.Refuse(serval.NotFound, "There is no such account for this worker.")
	}
	digest := fmt.Sprintf("%+v", d)
	switch {
	case d.Generation == r.taken && digest == r.digest:
		return worker.Pushed{Repeated: true, Added: len(d.Roles)}, nil
	case d.Generation == r.taken:
		f.t.Errorf("generation %d of account %s was pushed again with another content", d.Generation, d.AccountID)
		fallthrough
	case d.Generation != r.opened || r.kind != serval.SyncDelta:
		return worker.Pushed{}, serval.Refuse(serval.Conflict, "Generation %d is not the last that was opened.", d.Generation)
	}
	r.taken, r.digest, r.until, r.lookedAt = d.Generation, digest, time.Time{}, d.StartedAt
	f.deltas = append(f.deltas, d)
	if f.onLooked != nil {
		if err := f.onLooked(d); err != nil {
			return worker.Pushed{}, err
		}
	}
	return worker.Pushed{Added: len(d.Roles), Removed: len(d.Removed)}, nil
}

// looked returns when the accepted deltas of the account started, since the
// bubble's midnight.
func (f *far) looked(id string) (list []time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.deltas {
		if d.AccountID == id {
			list = append(list, d.StartedAt.Sub(midnight))
		}
	}
	return list
}

func ask(f func() error) error {
	if f == nil {
		return nil
	}
	return f()
}

// times returns when the accepted syncs of the account started, since the
// bubble's midnight.
func (f *far) times(id string) (list []time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, inv := range f.accepted {
		if inv.AccountID == id {
			list = append(list, inv.StartedAt.Sub(midnight))
		}
	}
	return list
}

// A tally is what an upstream was asked so far.
type tally struct {
	polls, opens, pushes int
	accepted             []serval.Inventory
	looks, deltaPushes   int
	deltas               []serval.Delta
}

func (f *far) tally() tally {
	f.mu.Lock()
	defer f.mu.Unlock()
	return tally{f.polls, f.opens, f.pushes, slices.Clone(f.accepted), f.looks, f.deltaPushes, slices.Clone(f.deltas)}
}

// midnight is when each bubble begins.
var midnight = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// A near is a Reader whose accounts have one role each.
type near struct {
	takes  time.Duration
	before func(ctx context.Context, a serval.Account) error // may be nil

	// Of a delta: how long it takes, what is done before it, what it finds.
	lookTakes  time.Duration
	beforeLook func(ctx context.Context, a serval.Account) error
	finds      func(a serval.Account, known []serval.KnownRole, since time.Time, budget int) serval.Delta

	mu       sync.Mutex
	reads    map[string]int
	running  int
	most     int
	looking  int
	mostLook int
	at       map[string]string // what runs, by account
	overlaps []string
}

// enter notes that something of an account runs until leave is called. Two
// things of one account must not.
func (n *near) enter(id, what string) (leave func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.at == nil {
		n.at = make(map[string]string)
	}
	if n.at[id] != "" {
		n.overlaps = append(n.overlaps, id+": "+n.at[id]+" and "+what)
	}
	n.at[id] = what
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.at, id)
	}
}

func (n *near) Delta(ctx context.Context, a serval.Account, known []serval.KnownRole, since time.Time, budget int) (serval.Delta, error) {
	defer n.enter(a.ID, "a delta")()
	n.mu.Lock()
	n.looking++
	n.mostLook = max(n.mostLook, n.looking)
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.looking--
	}()
	started := time.Now()
	if n.beforeLook != nil {
		if err := n.beforeLook(ctx, a); err != nil {
			return serval.Delta{}, err
		}
	}
	select {
	case <-time.After(n.lookTakes):
	case <-ctx.Done():
		return serval.Delta{}, ctx.Err()
	}
	d := serval.Delta{Complete: true}
	if n.finds != nil {
		d = n.finds(a, known, since, budget)
	}
	d.AccountID, d.AccountName, d.StartedAt, d.FinishedAt, d.ReadBy = a.ID, a.Name, started, time.Now(), serval.ByRoles
	return d, nil
}

func (n *near) Inventory(ctx context.Context, a serval.Account, known []string, issuer string) (serval.Inventory, error) {
	defer n.enter(a.ID, "a full sync")()
	n.mu.Lock()
	if n.reads == nil {
		n.reads = make(map[string]int)
	}
	n.reads[a.ID]++
	n.running++
	n.most = max(n.most, n.running)
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.running--
	}()
	started := time.Now()
	if n.before != nil {
		if err := n.before(ctx, a); err != nil {
			return serval.Inventory{}, err
		}
	}
	select {
	case <-time.After(n.takes):
	case <-ctx.Done():
		return serval.Inventory{}, ctx.Err()
	}
	var provider *serval.OIDCProvider
	if issuer != "" {
		provider = &serval.OIDCProvider{Issuer: issuer}
	}
	return serval.Inventory{
		AccountID: a.ID, AccountName: a.Name, StartedAt: started, FinishedAt: time.Now(), Complete: true, ReadBy: serval.ByRoles, OIDCProvider: provider,
		Roles: []serval.Role{{ARN: "arn:aws:iam::" + a.ID + ":role/dev", RoleID: "AROADEV", Name: "dev", Path: "/"}},
	}, nil
}

func (n *near) total() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	sum := 0
	for _, c := range n.reads {
		sum += c
	}
	return sum
}

func (n *near) count(id string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.reads[id]
}

func account(n int) worker.Account {
	id := fmt.Sprintf("%012d", n)
	return worker.Account{Account: serval.Account{ID: id, Name: "account " + id, Partition: "aws", RoleARN: "arn:aws:iam::" + id + ":role/serval-ingestion"}}
}

func accounts(n int) (list []worker.Account) {
	for i := range n {
		list = append(list, account(i+1))
	}
	return list
}

// A running is a worker at work.
type running struct {
	*worker.Worker
	stop func()
	logs *observer.ObservedLogs
}

// start runs a worker with the seed's schedule until the test, or stop, ends it.
func start(t *testing.T, f *far, n *near, with ...func(*worker.Worker)) *running {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	w := &worker.Worker{
		Reader: n, Upstream: f, Name: "worker-0", Log: zap.New(core),
		Schedule: worker.Schedule{Interval: 4 * time.Hour, Offset: 30 * time.Minute},
	}
	for _, g := range with {
		g(w)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := w.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v, want the context's error", err)
		}
	}()
	stop := sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return &running{w, stop, logs}
}

// lines returns the messages that were logged about the account.
func (r *running) lines(id string) (list []string) {
	for _, e := range r.logs.All() {
		if e.ContextMap()["account_id"] == id {
			list = append(list, e.Message)
		}
	}
	return list
}

func inBubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

// within reports whether each time is in the minute that begins with its want.
func within(got []time.Duration, want ...time.Duration) bool {
	return slices.EqualFunc(got, want, func(g, w time.Duration) bool { return g >= w && g < w+time.Minute })
}

func contains(list []string, part string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return strings.Contains(s, part) })
}
