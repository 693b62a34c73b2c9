// Package workerd is the worker, wired: a Config in, a running worker out.
//
// Run joins the reader of accounts, the upstream's client and the worker's
// judgement, none of which know each other, and serves the admin port beside
// them. Where there is a Lease the worker works while it holds it, and stands by
// otherwise. What becomes of each call and each sync is counted here; see
// metrics.
package workerd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/awsiam"
	"github.com/serval-bridge/serval-bridge/internal/awsorg"
	"github.com/serval-bridge/serval-bridge/internal/lease"
	"github.com/serval-bridge/serval-bridge/internal/probe"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/upstream"
	"github.com/serval-bridge/serval-bridge/internal/wire"
	"github.com/serval-bridge/serval-bridge/internal/worker"
)

// A Config says what to run. Only Upstream is required.
type Config struct {
	// Upstream is where the accounts come from and the inventories go.
	Upstream upstream.Config
	// AWS says how AWS is reached, and by which credentials. Observe and Thrifty are
	// taken.
	AWS awsiam.Config
	// Organization says how AWS is reached for what is not reading.
	Organization awsorg.Config
	// Schedule of the full syncs. Default: every 4 hours with an offset of 30
	// minutes, each account within two minutes of it.
	Schedule worker.Schedule
	// Lease is what the replicas of a shard elect one by. Identity and Changed are
	// taken; the Identity begins with the host's name, which is the pod's. Where
	// it is nil there is no other worker of this shard.
	Lease *lease.Config
	// Name is under which syncs are claimed. Default: the Lease's name, so that
	// whoever leads next may go on with what was claimed; the host's name where
	// there is no Lease.
	Name string
	// DeltaInterval is how far apart deltas are, none where it is 0; DeltaBudget is
	// about how many calls of AWS one of them may make. Default: DefaultDeltaBudget.
	DeltaInterval time.Duration
	DeltaBudget   int
	// Parallel is how many accounts are read in full at once, and beside them how
	// many are looked at by deltas. Default 10.
	Parallel int
	// Shard of TotalShards, where the accounts are shared among workers.
	Shard, TotalShards int
	// Admin is the listener of the admin port, which is closed in the end. Where
	// it is nil, AdminListen is listened on; where that is empty too, there is
	// no admin port.
	Admin       net.Listener
	AdminListen string
	// Log. Default: none.
	Log *zap.Logger
	// Level, where it is set, is shown and changed at /loglevel.
	Level *zap.AtomicLevel
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// DefaultSchedule is the schedule where none is set: 00:30, 04:30, … UTC.
func DefaultSchedule() worker.Schedule {
	return worker.Schedule{Interval: 4 * time.Hour, Offset: 30 * time.Minute, Spread: 2 * time.Minute}
}

// DefaultDeltaBudget and DefaultDeltaInterval are those of a worker that is run
// as a daemon: an account of three hundred roles is looked at whole every time.
const (
	DefaultDeltaBudget   = 300
	DefaultDeltaInterval = 5 * time.Minute
)

// stopping is how long the admin port may finish its answers.
const stopping = 2 * time.Second

// Run runs the worker until ctx ends, and then returns nil when nothing of it
// runs any more. An error means that it could not begin, or that the admin port
// broke.
func Run(ctx context.Context, c Config) error {
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.Schedule == (worker.Schedule{}) {
		c.Schedule = DefaultSchedule()
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("finding a name for the worker: %w", err)
	}
	if c.Lease != nil {
		c.Name = cmp.Or(c.Name, c.Lease.Name)
	}
	c.Name = cmp.Or(c.Name, host)
	if c.Admin != nil {
		defer c.Admin.Close() // also where it does not come to serving
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m := newMetrics(registry)

	client, err := upstream.New(c.Upstream)
	if err != nil {
		return fmt.Errorf("upstream: %w", err)
	}
	defer client.Close()
	c.AWS.Observe, c.AWS.Thrifty = m.observe, true
	c.AWS.Now = cmpNow(c.AWS.Now, c.Now)
	aws, err := awsiam.New(ctx, c.AWS)
	if err != nil {
		return fmt.Errorf("AWS: %w", err)
	}
	defer aws.Close()
	registry.MustRegister(flow{aws})
	organization, err := awsorg.New(c.Organization)
	if err != nil {
		return fmt.Errorf("AWS: %w", err)
	}

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p := probe.New(registry)
	lead := func(ctx context.Context, work func(context.Context)) error { work(ctx); return nil }
	if c.Lease != nil {
		e := newElection(*c.Lease, host, c.Log)
		p.Report("leadership", e.report)
		lead = e.lead
	}
	stopAdmin, err := serveAdmin(&c, p, cancel)
	if err != nil {
		return err
	}
	defer stopAdmin()

	introduced := make(chan struct{})
	go func() {
		defer close(introduced)
		introduce(ctx, aws, client, c.Log)
	}()
	c.Log.Info("worker running", zap.String("name", c.Name), zap.String("upstream", c.Upstream.BaseURL),
		zap.Duration("sync_interval", c.Schedule.Interval), zap.Duration("sync_offset", c.Schedule.Offset),
		zap.Duration("delta_interval", c.DeltaInterval),
		zap.Int("shard", c.Shard), zap.Int("total_shards", max(1, c.TotalShards)), zap.Bool("lease", c.Lease != nil))
	err = lead(ctx, func(ctx context.Context) {
		m.leader.Set(1)
		w := &worker.Worker{
			Reader: reader{aws}, Upstream: far{client, m}, Name: c.Name, Schedule: c.Schedule, Parallel: c.Parallel,
			DeltaInterval: c.DeltaInterval, DeltaBudget: cmp.Or(c.DeltaBudget, DefaultDeltaBudget),
			Shard: c.Shard, TotalShards: c.TotalShards, Done: m.done, Calls: m.callsOf, Log: c.Log, Now: c.Now,
			Tasks: tasks{client}, Perform: Performer{AWS: aws, Organization: organization}.Perform,
		}
		_ = w.Run(ctx) // ends with ctx only
		m.leader.Set(0)
		m.listed(nil) // another one tells of the accounts now
	})
	cancel(nil)
	<-introduced
	c.Log.Info("worker stopped")
	if broken, ok := errors.AsType[*adminError](context.Cause(ctx)); ok {
		return broken
	}
	if err != nil {
		return fmt.Errorf("leadership: %w", err)
	}
	return nil
}

func cmpNow(a, b func() time.Time) func() time.Time {
	if a != nil {
		return a
	}
	return b
}

// introduceEvery is how often AWS is asked who the worker is, until it answers.
const introduceEvery = time.Minute

// introduce logs who the worker is to AWS and where its credentials come from, and
// has the upstream told: the account that trust policies must name. A worker that
// has no credentials yet goes on, and asks again; only the first failure is logged.
func introduce(ctx context.Context, aws *awsiam.Reader, client *upstream.Client, log *zap.Logger) {
	failed := false
	for {
		x, err := aws.Explain(ctx, serval.Account{})
		if ctx.Err() != nil {
			return
		}
		fields := []zap.Field{
			zap.String("credentials", x.Source), zap.String("because", x.Why), zap.Strings("passed", x.Passed),
			zap.Bool("temporary", x.Temporary), zap.String("base_role_arn", x.BaseRoleARN),
		}
		if err == nil {
			log.Info("this worker's identity, which trust policies name",
				append(fields, zap.String("partition", x.Partition), zap.String("account_id", x.AccountID), zap.String("arn", x.ARN))...)
			if caller, err := serval.ParseCallerARN(x.ARN); err == nil {
				client.Introduce(caller)
			}
			return
		}
		if !failed {
			failed = true
			log.Warn("AWS does not say who this worker is; asking again until it does", append(fields, zap.Error(err))...)
		}
		again := time.NewTimer(introduceEvery)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return
		}
	}
}

// An adminError is why the admin port broke.
type adminError struct{ err error }

func (e *adminError) Error() string { return "admin port: " + e.err.Error() }
func (e *adminError) Unwrap() error { return e.err }

// serveAdmin serves the admin port until stop is called. Where it breaks before,
// it cancels with an *adminError: a worker nobody can look into is not run.
//
// Neither upstream nor AWS make a worker unready: while one is away it is as ready
// as it can be, and restarting it would help nobody.
func serveAdmin(c *Config, p *probe.Probe, cancel context.CancelCauseFunc) (stop func(), err error) {
	if c.Admin == nil {
		if c.AdminListen == "" {
			return func() {}, nil
		}
		if c.Admin, err = net.Listen("tcp", c.AdminListen); err != nil {
			return nil, &adminError{err}
		}
	}
	if c.Level != nil {
		p.Handle("GET /loglevel", c.Level)
		p.Handle("PUT /loglevel", c.Level)
	}
	server := &http.Server{
		Handler: p.Handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: zap.NewStdLog(c.Log),
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := server.Serve(c.Admin); !errors.Is(err, http.ErrServerClosed) {
			cancel(&adminError{err})
		}
	}()
	return func() {
		p.SetDraining()
		ctx, done := context.WithTimeout(context.Background(), stopping)
		defer done()
		if err := server.Shutdown(ctx); err != nil {
			server.Close()
		}
		<-served
	}, nil
}

// A reader is the AWS room's reader in the worker's terms.
type reader struct{ aws *awsiam.Reader }

// Inventory reads the account, unless its ingestion role is open to others.
func (r reader) Inventory(ctx context.Context, a serval.Account, known []string, issuer string) (inv serval.Inventory, err error) {
	if err = r.aws.Guard(ctx, a); err == nil {
		inv, err = r.aws.Inventory(ctx, a, known, issuer, nil)
	}
	if f, ok := errors.AsType[*awsiam.Failure](err); ok {
		err = &worker.Unread{
			Problem: serval.Problem{Action: f.Action, Target: cmp.Or(f.Target, a.RoleARN), Code: f.Code, Message: f.Error()},
			Err:     err,
		}
	}
	return inv, err
}

// Delta looks at the account, unless it is one that is not read.
func (r reader) Delta(ctx context.Context, a serval.Account, known []serval.KnownRole, since time.Time, budget int) (serval.Delta, error) {
	if err := r.aws.Guard(ctx, a); err != nil {
		return serval.Delta{}, err
	}
	return r.aws.Delta(ctx, a, known, since, budget)
}

// A far is the upstream's client in the worker's terms.
type far struct {
	client  *upstream.Client
	metrics *metrics
}

// Accounts lists the accounts.
func (f far) Accounts(ctx context.Context, version string, wait time.Duration) ([]worker.Account, string, error) {
	answer, err := f.client.Accounts(ctx, version, wait)
	if err != nil {
		return nil, "", err
	}
	list := make([]worker.Account, len(answer.Accounts))
	for i, a := range answer.Accounts {
		list[i] = worker.Account{
			Account: a.Account(), LastSyncAt: a.LastSyncAt.Time, SyncRequested: a.SyncRequested,
		}
	}
	f.metrics.listed(list)
	return list, answer.Version, nil
}

// OpenSync opens a sync.
func (f far) OpenSync(ctx context.Context, accountID, name string, kind serval.SyncKind) (worker.Opened, error) {
	sync, err := f.client.OpenSync(ctx, accountID, name, kind)
	if b, ok := errors.AsType[*upstream.Busy](err); ok {
		return worker.Opened{}, &worker.Busy{Until: b.Until}
	}
	return worker.Opened{Generation: sync.Generation, LookedAt: sync.LookedAt.Time, Known: sync.Known, Issuer: sync.Issuer}, err
}

// Push puts an inventory.
func (f far) Push(ctx context.Context, inv serval.Inventory) (worker.Pushed, error) {
	p, err := f.client.PushInventory(ctx, inv)
	return pushed(p), err
}

// PushDelta puts a delta.
func (f far) PushDelta(ctx context.Context, d serval.Delta) (worker.Pushed, error) {
	p, err := f.client.PushDelta(ctx, d)
	return pushed(p), err
}

func pushed(p wire.Push) worker.Pushed {
	return worker.Pushed{
		Repeated: p.Repeated, Added: p.Added, Changed: p.Changed, Removed: p.Removed, Held: p.Held, Stale: p.Stale,
	}
}
