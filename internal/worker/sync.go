package worker

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// mostStrikes is how often a push may fail while the upstream answers otherwise.
// Then it is not away: something about this inventory is, and holding on to it
// would keep a slot from the other accounts.
const mostStrikes = 4

// errOutdated ends a push that was never accepted.
var errOutdated = errors.New("the account is due again; reading it anew")

// sync makes one sync of the account, from waiting for its turn to the line in
// the log.
func (w *Worker) sync(ctx context.Context, id string) {
	a, leave, ok := w.enter(ctx, id)
	if !ok {
		w.ended(id, nil)
		return
	}
	defer leave()
	defer w.stir()
	w.outlast(id)

	s := &syncing{Worker: w, account: a, begun: w.Now(), calls: w.count(id)}
	s.out.Kind, s.out.Account = serval.SyncFull, a
	err := s.guard(ctx)
	if ctx.Err() != nil && err != nil {
		// Whoever comes next opens a sync of its own.
		w.Log.Info("sync abandoned: stopping", zap.String("account_id", id), zap.Int64("generation", s.out.Generation))
		w.ended(id, nil)
		return
	}
	s.out.Err = err
	s.out.Took = w.Now().Sub(s.begun)
	next := w.ended(id, &s.out)
	s.line(next)
	if w.Done != nil {
		w.Done(s.out)
	}
}

// enter waits for a slot and returns the account as it is then, unless the sync
// is not due any more.
func (w *Worker) enter(ctx context.Context, id string) (a Account, leave func(), ok bool) {
	urgent := w.urgent
	if !w.listed(id).SyncRequested {
		urgent = nil // never ready
	}
	select {
	case w.slots <- struct{}{}:
		leave = func() { <-w.slots }
	case urgent <- struct{}{}:
		leave = func() { <-w.urgent }
	case <-ctx.Done():
		return Account{}, nil, false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	e, now := w.accounts[id], w.Now()
	if w.dueAt(e, now).After(now) {
		leave() // it was removed, or read by another worker meanwhile
		return Account{}, nil, false
	}
	return e.account, leave, true
}

// outlast waits until the account's delta, which was told to stop, has.
func (w *Worker) outlast(id string) {
	w.mu.Lock()
	l := w.accounts[id].look
	w.mu.Unlock()
	if l != nil {
		<-l.done
	}
}

// listed returns the account as last listed.
func (w *Worker) listed(id string) Account {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.accounts[id].account
}

// ended notes what came of a sync, nil where it did not come to one, and returns
// when the account is read next.
func (w *Worker) ended(id string, out *Outcome) (next time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e, now := w.accounts[id], w.Now()
	e.running = false
	if w.DeltaInterval > 0 {
		e.lookAt = w.deltaAt(id, now)
	}
	if out == nil {
		return now
	}
	e.ended, e.retryAt, e.notBefore = now, time.Time{}, time.Time{}
	var busy *Busy
	switch {
	case out.Accepted && out.Read:
		e.last, e.failures = out.StartedAt, 0
	case out.Accepted:
		e.last = out.StartedAt
		e.failures++
		e.retryAt = now.Add(w.patience(e.failures))
	case errors.As(out.Err, &busy):
		// At least a while, at most as long as a claim can last.
		e.notBefore = now.Add(min(max(busy.Until.Sub(now), shortestPoll), time.Hour))
	case errors.Is(out.Err, errOutdated):
	case isAway(out.Err):
		e.failures++
		e.notBefore = now.Add(backoff(e.failures))
	default:
		e.failures++
		e.notBefore = now.Add(w.patience(e.failures))
	}
	return w.dueAt(e, now)
}

// isAway reports whether an error of the upstream's says nothing of the account:
// the same call may well succeed later. A 401 is among them, because the token
// is read anew for each call.
func isAway(err error) bool {
	return !serval.IsRefusal(err) ||
		serval.IsRefusal(err, serval.Unavailable, serval.Exhausted, serval.Unauthenticated, serval.LoginRequired)
}

// A count is how many calls were made for an account by some time.
type count struct {
	of              func() (made, throttled int)
	made, throttled int
}

func (w *Worker) count(accountID string) count {
	if w.Calls == nil {
		return count{}
	}
	c := count{of: func() (made, throttled int) { return w.Calls(accountID) }}
	c.made, c.throttled = c.of()
	return c
}

// since returns for the log how many were made after that.
func (c count) since() []zap.Field {
	if c.of == nil {
		return nil
	}
	made, throttled := c.of()
	return []zap.Field{zap.Int("calls", made-c.made), zap.Int("throttled", throttled-c.throttled)}
}

// A syncing is one sync on its way.
type syncing struct {
	*Worker
	account  Account
	begun    time.Time
	calls    count
	out      Outcome
	inv      serval.Inventory
	reading  time.Duration
	unread   error // why nothing could be read
	pushed   Pushed
	attempts int // of the push
}

// guard runs the sync. A panic in it is this account's failure and nobody
// else's.
func (s *syncing) guard(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = serval.Refuse(serval.FailedPrecondition, "Something went wrong in the worker while it read this account.")
			s.Log.Error("a sync panicked", zap.String("account_id", s.account.ID), zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
		}
	}()
	return s.run(ctx)
}

// run opens, reads and pushes. A crash before the push leaves a claim that runs
// out by itself; a crash in it leaves an inventory that was taken whole or not at
// all. Either way the account is due and is read anew.
func (s *syncing) run(ctx context.Context) error {
	opened, err := s.Upstream.OpenSync(ctx, s.account.ID, s.Name, serval.SyncFull)
	if err != nil {
		return fmt.Errorf("opening a sync: %w", err)
	}
	s.out.Generation, s.out.StartedAt = opened.Generation, s.Now()
	known := make([]string, len(opened.Known))
	for i, k := range opened.Known {
		known[i] = k.RoleID
	}
	inv, err := s.Reader.Inventory(ctx, s.account.Account, known, opened.Issuer)
	s.reading = s.Now().Sub(s.out.StartedAt)
	if ctx.Err() != nil {
		return ctx.Err() // what was read so far is not an inventory
	}
	s.unread, s.out.Read = err, err == nil
	if err != nil {
		inv = nothing(s.account.Account, s.out.StartedAt, s.Now(), err)
	}
	if !inv.StartedAt.IsZero() {
		s.out.StartedAt = inv.StartedAt
	}
	inv.Generation = opened.Generation
	inv.Normalize()
	s.inv, s.out.Complete = inv, inv.Complete
	if err := s.push(ctx); err != nil {
		return fmt.Errorf("pushing the inventory: %w", err)
	}
	s.out.Accepted = true
	s.out.Changed = s.pushed.Added + s.pushed.Changed + s.pushed.Removed
	return nil
}

// nothing is the inventory of an account of which nothing could be read: it is
// incomplete and says why.
func nothing(a serval.Account, started, finished time.Time, err error) serval.Inventory {
	p := serval.Problem{Target: a.RoleARN, Code: "Failed", Message: err.Error()}
	if u, ok := errors.AsType[*Unread](err); ok {
		p = u.Problem
	} else if r, ok := errors.AsType[*serval.Refusal](err); ok {
		p.Code, p.Message = string(r.Kind), r.Reason
	} else if errors.Is(err, context.DeadlineExceeded) {
		p.Code = "Timeout"
	}
	return serval.Inventory{
		Schema: serval.InventorySchema, AccountID: a.ID, AccountName: a.Name, StartedAt: started, FinishedAt: finished,
		ReadBy: serval.ByRoles, Problems: []serval.Problem{p},
	}
}

// push puts the inventory, again while the upstream is away: the same generation
// and the same bytes, so that one that was taken without our learning of it is
// taken once. It gives up when the account is due again.
func (s *syncing) push(ctx context.Context) error {
	until := s.Schedule.DueAt(s.account.ID, s.inv.StartedAt, s.inv.StartedAt)
	strikes := 0
	var failed time.Time // when the push before failed
	for {
		var err error
		s.attempts++
		s.pushed, err = s.Upstream.Push(ctx, s.inv)
		now := s.Now()
		if err == nil || ctx.Err() != nil || !isAway(err) {
			return err
		}
		if !failed.IsZero() && s.answered.Load() > failed.UnixNano() {
			if strikes++; strikes == mostStrikes {
				return serval.Refuse(serval.FailedPrecondition, "The upstream answers, but does not take this inventory: %s", err)
			}
		}
		if failed.IsZero() {
			s.Log.Warn("a push failed; trying again", zap.String("account_id", s.account.ID),
				zap.Int64("generation", s.inv.Generation), zap.Error(err))
		}
		failed = now
		wait := backoff(s.attempts)
		if now.Add(wait).After(until) {
			return fmt.Errorf("%w; the last push failed: %w", errOutdated, err)
		}
		pause(ctx, wait)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// line writes the sync's line in the log: all that somebody needs who asks what
// became of this account.
func (s *syncing) line(next time.Time) {
	fields := []zap.Field{
		zap.String("account_id", s.account.ID), zap.String("account_name", s.account.Name),
		zap.Int64("generation", s.out.Generation), zap.Bool("requested", s.account.SyncRequested),
		zap.Bool("accepted", s.out.Accepted), zap.Duration("took", s.out.Took), zap.Time("next", next.UTC()),
	}
	fields = append(fields, s.calls.since()...)
	if s.inv.Schema != "" {
		fields = append(fields,
			zap.Bool("complete", s.inv.Complete), zap.String("read_by", s.inv.ReadBy), zap.Duration("reading", s.reading),
			zap.Int("roles", len(s.inv.Roles)), zap.Int("unreadable", len(s.inv.Unreadable)),
			zap.Int("near_misses", len(s.inv.NearMisses)), zap.Int("problems", len(s.inv.Problems)),
			zap.Int("pushes", s.attempts))
	}
	if len(s.inv.Problems) > 0 {
		p := s.inv.Problems[0]
		fields = append(fields, zap.String("problem", p.Action+" on "+p.Target+" answered "+p.Code+": "+p.Message))
	}
	if s.out.Accepted {
		p := s.pushed
		fields = append(fields, zap.Bool("repeated", p.Repeated), zap.Int("added", p.Added), zap.Int("changed", p.Changed),
			zap.Int("removed", p.Removed), zap.Int("held", p.Held), zap.Int("stale", p.Stale))
	}
	if r, ok := errors.AsType[*serval.Refusal](s.out.Err); ok {
		for _, name := range []string{"bytes", "sha256"} { // what was refused, where that matters
			if v := r.Detail[name]; v != "" {
				fields = append(fields, zap.String(name, v))
			}
		}
	}
	_, busy := errors.AsType[*Busy](s.out.Err)
	switch {
	case busy:
		s.Log.Info("sync left to another worker", append(fields, zap.Error(s.out.Err))...)
	case s.out.Err != nil:
		s.Log.Error("sync not accepted", append(fields, zap.Error(s.out.Err))...)
	case !s.out.Read:
		s.Log.Error("account not read", append(fields, zap.NamedError("error", s.unread))...)
	case !s.inv.Complete:
		s.Log.Warn("sync incomplete", fields...)
	default:
		s.Log.Info("sync complete", fields...)
	}
}
