// Package worker is the worker's judgement: which account is read when, what
// becomes of what was read, and what is done when the upstream or AWS is away.
//
// A Worker asks its Upstream for the accounts by a long poll, and knows from
// each Account what is due: by its Schedule, or because somebody asked for a
// sync. A sync is opened (the upstream issues its generation), the Reader reads
// the account, and the inventory is pushed. It ends as one Outcome and one line
// in the log.
//
// The worker remembers nothing that matters: AWS is the truth and the upstream
// the memory. There is no outbox. While the upstream is away an inventory in
// hand is pushed again and again, the same generation and the same bytes, until
// the account would be due anyway; then it is dropped, because reading anew is
// the better answer. When the upstream is back, each overdue account is read
// once, however many instants went by.
//
// Between full syncs each account is looked at by deltas; see delta.go. They step
// aside for whatever else there is to do.
//
// One account's trouble is its own. What could not be read at all is pushed as
// an incomplete inventory without roles that says why, so that people see the
// account as stale and the reason; nothing is ever removed by it.
package worker

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A Reader reads all tagged roles of one account: all of them, or an inventory
// that says it is not all of them. It returns an error only where nothing could
// be read; an *Unread says more than others.
type Reader interface {
	// It asks for the OIDC provider of the issuer, unless that is empty.
	Inventory(ctx context.Context, a serval.Account, known []string, issuer string) (serval.Inventory, error)
	// Delta looks for what is not as known, with about budget calls of AWS. since
	// is when the account was last looked at.
	Delta(ctx context.Context, a serval.Account, known []serval.KnownRole, since time.Time, budget int) (serval.Delta, error)
}

// An Upstream is the control plane, as far as a worker needs it. Each call is
// tried once and has a deadline of its own. What it refuses is a
// *serval.Refusal, or a *Busy; every other error means that it is away.
type Upstream interface {
	// Accounts returns the accounts and their version, as soon as the version
	// is another than the one given, and after the wait at the latest.
	Accounts(ctx context.Context, version string, wait time.Duration) (list []Account, now string, err error)
	// OpenSync claims the next sync of the account and issues its generation.
	OpenSync(ctx context.Context, accountID, worker string, kind serval.SyncKind) (Opened, error)
	// Push puts what was read. Repeating it is the same as doing it once.
	Push(ctx context.Context, inv serval.Inventory) (Pushed, error)
	// PushDelta puts what changed, likewise.
	PushDelta(ctx context.Context, d serval.Delta) (Pushed, error)
}

// An Account is an account as the upstream lists it to its worker.
type Account struct {
	serval.Account
	LastSyncAt    time.Time // when the last accepted sync started; zero for none
	SyncRequested bool      // somebody asked for a sync since then
}

// An Opened is a sync that was claimed.
type Opened struct {
	Generation int64
	LookedAt   time.Time          // when the account was last looked at, by a sync of either kind; zero for never
	Known      []serval.KnownRole // the roles that the upstream lists
	Issuer     string             // whose OIDC provider is to be asked for; empty: none
}

// A Pushed is what became of a push.
type Pushed struct {
	Repeated                             bool // it was accepted before
	Added, Changed, Removed, Held, Stale int
}

// A Busy says that another worker has claimed the account.
type Busy struct{ Until time.Time }

// Error says until when.
func (b *Busy) Error() string {
	return "another worker is reading this account until " + b.Until.UTC().Format(time.RFC3339)
}

// An Unread is why nothing could be read of an account, in the form in which it
// is shown.
type Unread struct {
	Problem serval.Problem
	Err     error
}

// Error returns the error's text.
func (u *Unread) Error() string { return u.Err.Error() }

// Unwrap returns the error.
func (u *Unread) Unwrap() error { return u.Err }

// An Outcome is one sync of one account, full or delta, at its end.
type Outcome struct {
	Kind       serval.SyncKind
	Account    Account
	Generation int64     // 0 where none was issued
	StartedAt  time.Time // of the reading; zero where it did not come to that
	Took       time.Duration
	Read       bool // something of the account could be read
	Complete   bool
	Accepted   bool  // the upstream took it
	Changed    int   // roles that were added, changed or removed by it
	Err        error // why it was not accepted
}

// A Worker keeps the upstream's memory of its accounts true. Set the exported
// fields and call Run once.
type Worker struct {
	Reader   Reader
	Upstream Upstream
	Name     string // who claims a sync, for people to read; another in each replica
	Schedule Schedule

	// DeltaInterval is how far apart the looks at an account are between its full
	// syncs, and DeltaBudget about how many calls of AWS one of them may make. No
	// interval: none are made.
	DeltaInterval time.Duration
	DeltaBudget   int

	// Parallel is how many accounts are read in full at once, and beside them how
	// many are looked at by deltas. Default 10.
	Parallel int
	// Shard of TotalShards: the worker takes the accounts whose id falls into
	// its share. TotalShards below 2 means all.
	Shard, TotalShards int
	// Tasks is asked for checks and workflows, which Perform does: its error is
	// that ctx ended, all else is in the result. Default: none are done.
	Tasks   Tasks
	Perform func(ctx context.Context, t Task) (serval.RunResult, error)
	// Done is told of each sync that was opened or could not be, from the
	// goroutine that made it. Default: nobody is told.
	Done func(Outcome)
	// Calls returns how many calls of AWS were made for an account so far, and how
	// many of them came too fast: for the log. Default: it tells of none.
	Calls func(accountID string) (made, throttled int)
	// Log gets one line for each sync. Default: none.
	Log *zap.Logger
	// Now is the clock. Default time.Now.
	Now func() time.Time

	slots    chan struct{} // one for each account that is read
	urgent   chan struct{} // further ones, for syncs that somebody waits for
	wake     chan struct{} // there may be a delta to begin
	answered atomic.Int64  // when the upstream last listed the accounts, in Unix nanoseconds

	mu       sync.Mutex
	accounts map[string]*entry
	away     bool // the upstream
}

// An entry is what the worker keeps of an account while it runs.
type entry struct {
	account Account // as last listed
	asked   time.Time
	running bool

	last      time.Time // when the last sync that the upstream took had started
	ended     time.Time // when the last sync ended
	notBefore time.Time
	retryAt   time.Time // where nothing could be read, before the schedule says so
	failures  int       // in a row

	look         *look     // the delta that runs
	lookAt       time.Time // when the next is due
	lookFailures int       // in a row
}

// How the worker asks.
const (
	longestPoll  = 30 * time.Second
	shortestPoll = time.Second
	urgentSlots  = 2

	defaultParallel = 10
	// restPause is how long a sync that was asked for waits after the last one
	// ended. A request that is never taken as served must not keep a worker busy.
	restPause = 15 * time.Second
)

// patience is how long an account is left alone after the nth failure in a row
// that waiting a second will not mend: a quarter of an hour, doubling up to the
// interval. Each try costs a whole reading of the account.
func (w *Worker) patience(n int) time.Duration {
	d := longestPause
	for range n - 1 {
		if d >= w.Schedule.Interval {
			break
		}
		d *= 2
	}
	return min(d, max(w.Schedule.Interval, longestPause))
}

// Run works until ctx ends, and returns when nothing of it runs any more. Its
// error is why ctx ended.
func (w *Worker) Run(ctx context.Context) error {
	if w.Log == nil {
		w.Log = zap.NewNop()
	}
	if w.Now == nil {
		w.Now = time.Now
	}
	w.slots = make(chan struct{}, cmp.Or(w.Parallel, defaultParallel))
	w.wake = make(chan struct{}, 1)
	w.urgent = make(chan struct{}, urgentSlots)
	w.accounts = make(map[string]*entry)

	var syncs sync.WaitGroup
	defer syncs.Wait()
	if w.Tasks != nil {
		syncs.Go(func() { w.runTasks(ctx) })
	}
	if w.DeltaInterval > 0 {
		syncs.Go(func() { w.runDeltas(ctx) })
	}
	var version string
	var failures int
	var since time.Time // when the upstream went away
	var said string     // what was logged of it
	for ctx.Err() == nil {
		asked := w.Now()
		list, now, err := w.Upstream.Accounts(ctx, version, w.wait(asked))
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			if failures++; failures == 1 {
				since = asked
				w.setAway(true)
			}
			if err.Error() != said {
				said = err.Error()
				w.Log.Warn("the upstream does not list the accounts; trying again", zap.Error(err))
			}
			pause(ctx, backoff(failures))
			continue
		}
		if failures > 0 {
			w.Log.Info("the upstream is back", zap.Int("failures", failures), zap.Duration("away", w.Now().Sub(since)))
			failures, said = 0, ""
		}
		w.answered.Store(w.Now().UnixNano())
		version = now
		w.list(list, asked)
		for _, id := range w.due() {
			syncs.Go(func() { w.sync(ctx, id) })
		}
		w.setAway(false)
		if rest := shortestPoll - w.Now().Sub(asked); rest > 0 {
			pause(ctx, rest)
		}
	}
	return ctx.Err()
}

// setAway notes whether the upstream can be asked. While it cannot, no delta
// begins; when it can, there may be some.
func (w *Worker) setAway(away bool) {
	w.mu.Lock()
	w.away = away
	w.mu.Unlock()
	w.stir()
}

// owns reports whether the account falls into the worker's shard.
func (w *Worker) owns(id string) bool {
	return w.TotalShards < 2 || int(hash(id)%uint64(w.TotalShards)) == w.Shard
}

// list takes over what the upstream listed when it was asked.
func (w *Worker) list(list []Account, asked time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	listed := make(map[string]bool, len(list))
	for _, a := range list {
		if !w.owns(a.ID) {
			continue
		}
		listed[a.ID] = true
		e := w.accounts[a.ID]
		if e == nil {
			e = &entry{}
			if w.DeltaInterval > 0 {
				e.lookAt = w.deltaAt(a.ID, w.Now())
			}
			w.accounts[a.ID] = e
		}
		if e.failures > 0 && !sameSettings(e.account.Account, a.Account) {
			// Somebody mended it, perhaps.
			e.failures, e.notBefore = 0, time.Time{}
			e.retryAt = asked
		}
		e.account, e.asked = a, asked
	}
	maps.DeleteFunc(w.accounts, func(id string, e *entry) bool { return !listed[id] && !e.running && e.look == nil })
	for id, e := range w.accounts {
		if !listed[id] {
			e.account = Account{} // it is not begun any more; one that runs is refused by the upstream
			if e.look != nil {
				e.look.stop()
			}
		}
	}
}

func sameSettings(a, b serval.Account) bool {
	return a.RoleARN == b.RoleARN && a.ExternalID == b.ExternalID && a.STS == b.STS && slices.Equal(a.Via, b.Via)
}

// due returns the accounts to begin with now, those that somebody waits for
// first and then the oldest, and notes that they are running.
func (w *Worker) due() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.Now()
	var begin []*entry
	for _, e := range w.accounts {
		if !e.running && !w.dueAt(e, now).After(now) {
			e.running = true
			if e.look != nil {
				e.look.stop()
			}
			begin = append(begin, e)
		}
	}
	slices.SortFunc(begin, func(a, b *entry) int {
		return cmp.Or(-boolCompare(a.account.SyncRequested, b.account.SyncRequested),
			a.account.LastSyncAt.Compare(b.account.LastSyncAt), cmp.Compare(a.account.ID, b.account.ID))
	})
	ids := make([]string, len(begin))
	for i, e := range begin {
		ids[i] = e.account.ID
	}
	return ids
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	default:
		return -1
	}
}

// never is when nothing is due.
const never = 100 * 365 * 24 * time.Hour

// dueAt returns when the account is to be read.
func (w *Worker) dueAt(e *entry, now time.Time) time.Time {
	return latest(w.wanted(e, now), e.notBefore)
}

// wanted returns when the account should be read, whether it may be then or not.
func (w *Worker) wanted(e *entry, now time.Time) time.Time {
	if e.account.ID == "" {
		return now.Add(never)
	}
	last := e.account.LastSyncAt
	if e.last.After(last) || !e.last.IsZero() && e.asked.Before(e.ended) {
		last = e.last // what was listed is older than what was pushed since
	}
	at := w.Schedule.DueAt(e.account.ID, last, now)
	if !e.retryAt.IsZero() && e.retryAt.Before(at) {
		at = e.retryAt
	}
	// A list that was asked for before the last sync ended may not know of it.
	if e.account.SyncRequested && !e.asked.Before(e.ended) {
		at = minTime(at, latest(now, e.ended.Add(restPause)))
	}
	return at
}

func minTime(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// wait returns how long the upstream may wait with its answer: until the next
// account is due.
func (w *Worker) wait(now time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := longestPoll
	for _, e := range w.accounts {
		if !e.running {
			d = min(d, w.dueAt(e, now).Sub(now))
		}
	}
	// Whole seconds are what goes over the wire.
	return max(shortestPoll, (d + time.Second - 1).Truncate(time.Second))
}

// pause waits, or returns early when ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
