package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// An AuditFilter chooses rows of the audit log; empty fields choose all.
type AuditFilter struct {
	Before int64 // rows with a lower number
	Target string
	Action serval.Action
	Limit  int
}

// Events returns rows of the audit log, newest first, and the chain's head.
func (p *Plane) Events(ctx context.Context, who serval.Principal, f AuditFilter) (rows []serval.Link, head store.Head, err error) {
	err = p.view(ctx, who, serval.AuditRead, f.Target, func(v *store.View) error {
		if head, err = v.ChainHead(); err != nil {
			return err
		}
		rows, err = v.Events(store.EventFilter{Before: f.Before, Target: f.Target, Action: f.Action, Limit: f.Limit})
		return err
	})
	return rows, head, err
}

// EventsOf returns what happened to one request that who can see, oldest first.
func (p *Plane) EventsOf(ctx context.Context, who serval.Principal, requestID string) (rows []serval.Link, err error) {
	err = p.view(ctx, who, serval.RequestRead, requestID, func(v *store.View) error {
		if _, err := visible(v, who, requestID); err != nil {
			return err
		}
		newest, err := v.Events(store.EventFilter{Target: requestID, Limit: 200})
		for i := len(newest) - 1; i >= 0; i-- {
			rows = append(rows, newest[i])
		}
		return err
	})
	return rows, err
}

// The bound of one Sweep, and how long a push may take.
const (
	sweepLimit = 100
	stagedLife = time.Hour
)

// Sweep does what is due: requests that time has ended, sessions without an
// outcome, ID tokens that have ended. It does at most a hundred of each; call
// it once a second. Several replicas may: each item is claimed by the act on it.
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
	errs = append(errs, p.logins.Wipe(ctx), p.door.Store.DropOldStaged(ctx, now.Add(-stagedLife)))
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

// PublishHead writes the chain's head to the log: outside the database, whose
// owner could otherwise cut the tail off.
func (p *Plane) PublishHead(ctx context.Context) error {
	var head store.Head
	err := p.door.Store.Read(ctx, func(v *store.View) (err error) {
		head, err = v.ChainHead()
		return err
	})
	if err != nil {
		return fmt.Errorf("publishing the audit chain's head: %w", err)
	}
	p.door.Log.Info("audit chain", zap.Int64("seq", head.Seq), zap.String("hash", head.Hash))
	return nil
}
