package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A delta is a look at an account between two full syncs. Deltas have slots of
// their own and always step aside: none begins while a full sync of its account
// is due, waits or runs, and one that is under way is stopped when a full sync
// becomes due. What a delta does not come to, the next one or the full sync does,
// so that one that failed is never made up for: it is dropped, and tried again
// with a backoff of its own.

// mostDeltaPushes is how often a delta is pushed. It is soon outdated.
const mostDeltaPushes = 3

// A look is a delta that runs.
type look struct {
	stop context.CancelFunc
	done chan struct{}
}

// runDeltas makes deltas until ctx ends, and returns when none runs any more.
func (w *Worker) runDeltas(ctx context.Context) {
	var looks sync.WaitGroup
	defer looks.Wait()
	slots := cmp.Or(w.Parallel, defaultParallel)
	for ctx.Err() == nil {
		begin, rest := w.beginDeltas(ctx, slots)
		for _, f := range begin {
			looks.Go(f)
		}
		timer := time.NewTimer(rest)
		select {
		case <-timer.C:
		case <-w.wake:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// stir lets runDeltas look again at what there is to do.
func (w *Worker) stir() {
	select {
	case w.wake <- struct{}{}:
	default: // it will anyway
	}
}

// beginDeltas returns the deltas that are to begin now, those that wait longest
// first and no more than there are slots, and how long there is nothing else to
// do unless something changes.
func (w *Worker) beginDeltas(ctx context.Context, slots int) (begin []func(), rest time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now, rest := w.Now(), longestPoll
	var due []*entry
	running := 0
	for _, e := range w.accounts {
		switch {
		case e.look != nil:
			running++
		case e.account.ID == "" || e.running || e.failures > 0 || !w.wanted(e, now).After(now):
		case e.lookAt.After(now):
			rest = min(rest, e.lookAt.Sub(now))
		default:
			due = append(due, e)
		}
	}
	if w.away {
		return nil, longestPoll // its return is told
	}
	slices.SortFunc(due, func(a, b *entry) int {
		return cmp.Or(a.lookAt.Compare(b.lookAt), cmp.Compare(a.account.ID, b.account.ID))
	})
	for _, e := range due[:min(len(due), max(0, slots-running))] {
		ctx, stop := context.WithCancel(ctx)
		l := &look{stop, make(chan struct{})}
		e.look = l
		a := e.account
		begin = append(begin, func() {
			defer stop()
			w.delta(ctx, a, l)
		})
	}
	return begin, max(rest, time.Millisecond)
}

// deltaAt returns the account's first instant for a delta after now. Each account
// has its own, so that they do not come together.
func (w *Worker) deltaAt(id string, now time.Time) time.Time {
	every := w.DeltaInterval
	return Schedule{Interval: every, Offset: time.Duration(hash(id) % uint64(every))}.Next(now)
}

// delta makes one delta, from opening it to the line in the log.
func (w *Worker) delta(ctx context.Context, a Account, l *look) {
	d := &delving{Worker: w, account: a, begun: w.Now(), calls: w.count(a.ID)}
	d.out.Kind, d.out.Account = serval.SyncDelta, a
	err := d.guard(ctx)
	stopped := ctx.Err() != nil && err != nil
	d.out.Err, d.out.Took = err, w.Now().Sub(d.begun)

	w.mu.Lock()
	e, now := w.accounts[a.ID], w.Now()
	e.look = nil
	e.lookAt = w.deltaAt(a.ID, now)
	busy, isBusy := errors.AsType[*Busy](err)
	switch {
	case stopped:
	case isBusy:
		e.lookAt = latest(e.lookAt, now.Add(min(busy.Until.Sub(now), time.Hour)))
	case err != nil || !d.out.Read:
		e.lookFailures++
		e.lookAt = latest(e.lookAt, now.Add(min(w.DeltaInterval<<min(e.lookFailures, 10), w.Schedule.Interval)))
	case d.out.Complete:
		e.lookFailures = 0
	}
	first := e.lookFailures == 1
	w.mu.Unlock()
	close(l.done)
	w.stir()
	if stopped {
		w.Log.Debug("delta abandoned", zap.String("account_id", a.ID), zap.Int64("generation", d.out.Generation))
		return
	}
	d.line(first, isBusy)
	if w.Done != nil {
		w.Done(d.out)
	}
}

// A delving is one delta on its way.
type delving struct {
	*Worker
	calls   count
	account Account
	begun   time.Time
	out     Outcome
	delta   serval.Delta
	pushed  Pushed
}

// guard runs the delta; a panic in it is this account's failure and nobody
// else's.
func (d *delving) guard(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = serval.Refuse(serval.FailedPrecondition, "Something went wrong in the worker while it looked at this account.")
			d.Log.Error("a delta panicked", zap.String("account_id", d.account.ID), zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
		}
	}()
	return d.run(ctx)
}

// run opens, looks and pushes. What ends before the push leaves a claim that runs
// out in minutes, and that a full sync of this worker takes over.
func (d *delving) run(ctx context.Context) error {
	opened, err := d.Upstream.OpenSync(ctx, d.account.ID, d.Name, serval.SyncDelta)
	if err != nil {
		return fmt.Errorf("opening a delta: %w", err)
	}
	d.out.Generation, d.out.StartedAt = opened.Generation, d.Now()
	delta, err := d.Reader.Delta(ctx, d.account.Account, opened.Known, opened.LookedAt, d.DeltaBudget)
	if err != nil {
		return fmt.Errorf("looking at the account: %w", err)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	delta.Generation = opened.Generation
	delta.Normalize()
	d.delta, d.out.Read, d.out.Complete = delta, true, delta.Complete
	for n := 1; ; n++ {
		d.pushed, err = d.Upstream.PushDelta(ctx, delta)
		if err == nil || ctx.Err() != nil || !isAway(err) || n == mostDeltaPushes {
			break
		}
		pause(ctx, backoff(n))
	}
	if err != nil {
		return fmt.Errorf("pushing the delta: %w", err)
	}
	d.out.Accepted = true
	d.out.Changed = d.pushed.Added + d.pushed.Changed + d.pushed.Removed
	return nil
}

// line writes the delta's line in the log. There are twelve in an hour for each
// account: what is as it was is for those who look closely, and so is trouble
// that was told of before.
func (d *delving) line(first, busy bool) {
	fields := []zap.Field{
		zap.String("account_id", d.account.ID), zap.String("account_name", d.account.Name),
		zap.Int64("generation", d.out.Generation), zap.Duration("took", d.out.Took),
	}
	fields = append(fields, d.calls.since()...)
	if d.out.Read {
		p := d.pushed
		fields = append(fields, zap.Bool("complete", d.delta.Complete), zap.String("read_by", d.delta.ReadBy),
			zap.Int("added", p.Added), zap.Int("changed", p.Changed), zap.Int("removed", p.Removed),
			zap.Int("unreadable", len(d.delta.Unreadable)), zap.Int("near_misses", len(d.delta.NearMisses)))
	}
	if len(d.delta.Problems) > 0 {
		p := d.delta.Problems[0]
		fields = append(fields, zap.String("problem", p.Action+" on "+p.Target+" answered "+p.Code+": "+p.Message))
	}
	log := d.Log.Debug
	switch {
	case busy:
		log("delta left to another worker", append(fields, zap.Error(d.out.Err))...)
	case d.out.Err != nil:
		if first {
			log = d.Log.Warn
		}
		log("delta failed", append(fields, zap.Error(d.out.Err))...)
	case d.out.Changed > 0:
		d.Log.Info("delta found changes", fields...)
	case !d.out.Complete:
		log("delta incomplete", fields...)
	default:
		log("delta found nothing", fields...)
	}
}
