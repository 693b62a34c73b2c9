package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// An AuditFilter chooses rows of the audit log; empty fields choose all.
type AuditFilter struct {
	Before  int64 // rows with a lower number
	Target  string
	Actor   string // a person's email as it was written, or id, or a worker's name
	Action  serval.Action
	Outcome serval.Outcome
	From    time.Time // rows of this instant or later
	To      time.Time // rows before this instant
	Limit   int
}

// Events returns rows of the audit log, newest first, the number of the row before
// which the next page begins, 0 where there is none, and the chain's head. A page
// that several things are filtered by may have fewer rows than it could, and still
// be followed by another.
func (p *Plane) Events(ctx context.Context, who serval.Principal, f AuditFilter) (rows []serval.Link, next int64, head store.Head, err error) {
	err = p.view(ctx, who, serval.AuditRead, f.Target, func(v *store.View) error {
		switch f.Outcome {
		case "", serval.OutcomeDone, serval.OutcomeRefused, serval.OutcomeFailed, serval.OutcomeStarted, serval.OutcomeUnknown:
		default:
			return serval.Refuse(serval.Invalid, "An outcome is done, refused, failed, started or unknown, not %q.", serval.Clip(string(f.Outcome), 40))
		}
		if !f.To.IsZero() && !f.From.Before(f.To) {
			return serval.Refuse(serval.Invalid, "The time from which rows are chosen lies before the time to which they are.")
		}
		if head, err = v.ChainHead(); err != nil {
			return err
		}
		filter := store.EventFilter{
			Before: f.Before, Target: f.Target, Actor: f.Actor, Action: f.Action, Outcome: f.Outcome, From: f.From, To: f.To, Limit: f.Limit,
		}
		if strings.HasPrefix(f.Actor, "person_") {
			filter.Actor, filter.ActorID = "", f.Actor
		}
		rows, next, err = v.Events(filter)
		return err
	})
	return rows, next, head, err
}

// The bounds of exports: how many at a time, and how many rows of one are read in
// one transaction.
const (
	maxExports  = 4
	exportBatch = 1000
)

// Export hands over the rows of the audit log behind the row with the number
// after, oldest first, up to the chain's head at the beginning, which it returns.
// That somebody exports is a row too, and there before the first is handed over.
// A batch of rows is read in a transaction of its own, so that nothing waits for
// whoever reads slowly; what is handed over never changes.
func (p *Plane) Export(ctx context.Context, who serval.Principal, after int64, take func(serval.Link) error) (head store.Head, err error) {
	if p.exports.Add(1) > maxExports {
		p.exports.Add(-1)
		return head, serval.Refuse(serval.Exhausted, "%d exports are under way. Try again when one has ended.", maxExports)
	}
	defer p.exports.Add(-1)
	err = p.act(ctx, who, serval.AuditExport, "", func(_ *store.Tx, e *serval.Event) error {
		e.Detail = map[string]string{"after": fmt.Sprint(after)}
		return nil
	})
	if err != nil {
		return head, err
	}
	err = p.view(ctx, who, serval.AuditExport, "", func(v *store.View) (err error) {
		head, err = v.ChainHead()
		return err
	})
	for err == nil {
		var rows []serval.Link
		err = p.view(ctx, who, serval.AuditExport, "", func(v *store.View) (err error) {
			rows, err = v.EventsAfter(after, head.Seq, exportBatch)
			return err
		})
		for _, l := range rows {
			if err = take(l); err != nil {
				return head, err
			}
			after = l.Seq
		}
		if len(rows) < exportBatch {
			break
		}
	}
	return head, err
}

// EventsOf returns what happened to one request that who can see, oldest first.
func (p *Plane) EventsOf(ctx context.Context, who serval.Principal, requestID string) (rows []serval.Link, err error) {
	err = p.view(ctx, who, serval.RequestRead, requestID, func(v *store.View) error {
		if _, err := visible(v, who, requestID); err != nil {
			return err
		}
		newest, _, err := v.Events(store.EventFilter{Target: requestID, Limit: 200})
		for i := len(newest) - 1; i >= 0; i-- {
			rows = append(rows, newest[i])
		}
		return err
	})
	return rows, err
}

// TurnedAway records that the edge refused what somebody who is signed in sent to
// an address: it came from another site, or was malformed. Of one person so many
// are recorded in a minute, and the rest is counted.
func (p *Plane) TurnedAway(ctx context.Context, who serval.Principal, address string, cause *serval.Refusal) {
	_ = p.view(ctx, who, serval.EdgeRefuse, address, func(*store.View) error { return cause })
}

// The bound of one Sweep, and how long a push may take.
const (
	sweepLimit = 100
	stagedLife = time.Hour
)

// Sweep does what is due: requests that time has ended, sessions without an
// outcome, ID tokens that have ended, what pushes left behind and documents that
// nothing refers to. It does at most a hundred of each; call it once a second.
// Several replicas may: each item is claimed by the act on it.
func (p *Plane) Sweep(ctx context.Context) error {
	var due, open []string
	who := serval.System()
	now := p.now()
	err := p.view(ctx, who, serval.RequestExpire, "", func(v *store.View) (err error) {
		if due, err = v.DueRequests(now, sweepLimit); err != nil {
			return err
		}
		open, err = v.OpenIntents(now.Add(-serval.MintDeadline), sweepLimit)
		return err
	})
	errs := []error{err}
	for _, id := range due {
		errs = append(errs, p.expire(ctx, who, id))
	}
	for _, id := range open {
		errs = append(errs, p.closeIntent(ctx, who, id))
	}
	errs = append(errs, p.logins.Wipe(ctx), p.door.Store.DropOldStaged(ctx, now.Add(-stagedLife)), p.door.Store.DropDocuments(ctx, now))
	return errors.Join(errs...)
}

func (p *Plane) expire(ctx context.Context, who serval.Principal, id string) error {
	return p.act(ctx, who, serval.RequestExpire, id, func(tx *store.Tx, e *serval.Event) error {
		r, err := tx.Request(id)
		if err != nil {
			return err
		}
		act, err := r.Expire(who, tx.Now)
		if serval.IsRefusal(err) {
			e.Action = "" // another replica was first, or it was extended meanwhile
			return nil
		}
		if err != nil {
			return err
		}
		e.Action, e.Detail = act, r.Facts()
		if err := tx.SaveRequest(r); err != nil {
			return err
		}
		return p.door.TellOf(tx, who, act, r, "")
	})
}

func (p *Plane) closeIntent(ctx context.Context, who serval.Principal, id string) error {
	return p.act(ctx, who, serval.SessionClose, id, func(tx *store.Tx, e *serval.Event) error {
		s, err := tx.Session(id)
		if err != nil {
			return err
		}
		if s.State != serval.SessionStarted || tx.Now.Sub(s.StartedAt) < serval.MintDeadline {
			e.Action = ""
			return nil
		}
		s.State, s.FinishedAt = serval.SessionUnknown, tx.Now
		s.Error = "No outcome was recorded; nothing was handed over."
		e.Target, e.Outcome, e.Reason = s.RequestID, serval.OutcomeUnknown, s.Error
		e.Detail = map[string]string{"session_id": s.ID, "role_arn": s.Role.ARN, "session_name": s.SessionName}
		return tx.SaveSession(s)
	})
}

// PublishHead writes the chain's head to the log, and returns it for whatever else
// keeps it: outside the database, whose owner could otherwise cut the tail off.
func (p *Plane) PublishHead(ctx context.Context) (head store.Head, err error) {
	err = p.door.Store.Read(ctx, func(v *store.View) (err error) {
		head, err = v.ChainHead()
		return err
	})
	if err != nil {
		return head, fmt.Errorf("publishing the audit chain's head: %w", err)
	}
	p.door.Log.Info("audit chain head", zap.Int64("seq", head.Seq), zap.String("hash", head.Hash))
	return head, nil
}
