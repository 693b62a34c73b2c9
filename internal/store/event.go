package store

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// Append records e as the next row of the audit log. Seq and At are set here;
// the rest is the caller's.
func (t *Tx) Append(e serval.Event) error {
	e.Seq, e.At = t.head.Seq+1, t.Now
	l := t.chain.Append(t.head.Hash, e)
	detail, err := json.Marshal(l.Detail)
	if err != nil {
		return fmt.Errorf("encoding event %d: %w", l.Seq, err)
	}
	err = t.exec("recording an event", `insert into event
		(seq, at, actor_kind, actor_id, actor, action, target, outcome, reason, request_id, address, detail, key_id, hash)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)`,
		l.Seq, micros(l.At), l.ActorKind, l.ActorID, l.Actor, l.Action, l.Target, l.Outcome, l.Reason,
		l.RequestID, l.Address, string(detail), l.KeyID, l.Hash)
	if err != nil {
		return err
	}
	t.head = Head{l.Seq, l.Hash}
	return nil
}

const eventColumns = `seq, at, actor_kind, actor_id, actor, action, target, outcome, reason, request_id, address, detail, key_id, hash`

func scanEvent(row scanner) (serval.Link, error) {
	var l serval.Link
	var at int64
	var detail string
	err := row.Scan(&l.Seq, &at, &l.ActorKind, &l.ActorID, &l.Actor, &l.Action, &l.Target, &l.Outcome, &l.Reason,
		&l.RequestID, &l.Address, &detail, &l.KeyID, &l.Hash)
	if err != nil {
		return serval.Link{}, fmt.Errorf("reading an event: %w", err)
	}
	l.At = instant(at)
	if err := json.Unmarshal([]byte(detail), &l.Detail); err != nil {
		// What was changed by hand is for the chain to find, not a reason to stop.
		l.Detail = map[string]string{"unreadable": detail}
	}
	return l, nil
}

// ChainHead returns the last row of the audit chain.
func (v *View) ChainHead() (Head, error) {
	var h Head
	if err := v.scan(`select seq, hash from chain where id = 1`, nil, &h.Seq, &h.Hash); err != nil {
		return Head{}, fmt.Errorf("reading the chain's head: %w", err)
	}
	return h, nil
}

// An EventFilter chooses rows of the audit log; empty fields choose all.
type EventFilter struct {
	Before  int64 // rows with a lower number; 0 for all
	Target  string
	ActorID string
	Action  serval.Action
	Limit   int // at most so many
}

// The rows that a filter lets through. SQLite uses an index for a condition
// that every row must meet, and not for one that an empty filter lifts; so what
// is filtered by is said twice.
const (
	eventsWhere = ` seq < $1 and ($2 = '' or target = $2) and ($3 = '' or actor_id = $3) and ($4 = '' or action = $4)
		order by seq desc limit $5`
	eventsOfAll    = `select ` + eventColumns + ` from event where` + eventsWhere
	eventsOfTarget = `select ` + eventColumns + ` from event where target = $2 and` + eventsWhere
	eventsOfActor  = `select ` + eventColumns + ` from event where actor_id = $3 and` + eventsWhere
	eventsOfAction = `select ` + eventColumns + ` from event where action = $4 and` + eventsWhere
)

// Events returns rows of the audit log, newest first.
func (v *View) Events(f EventFilter) ([]serval.Link, error) {
	list := func(query string) ([]serval.Link, error) {
		return all(v, scanEvent, query, cmp.Or(f.Before, math.MaxInt64), f.Target, f.ActorID, string(f.Action), f.Limit)
	}
	switch {
	case f.Target != "":
		return list(eventsOfTarget)
	case f.ActorID != "":
		return list(eventsOfActor)
	case f.Action != "":
		return list(eventsOfAction)
	default:
		return list(eventsOfAll)
	}
}

// EachEvent hands every row after the row seq to f, oldest first, and stops at
// its first error. F must not use the View: its connection is busy.
func (v *View) EachEvent(after int64, f func(serval.Link) error) error {
	if v.broken != nil {
		return v.broken
	}
	rows, err := v.q.QueryContext(v.ctx, `select `+eventColumns+` from event where seq > $1 order by seq`, after)
	if err != nil {
		return v.breaks(fmt.Errorf("reading events: %w", err))
	}
	defer rows.Close()
	for rows.Next() {
		l, err := scanEvent(rows)
		if err != nil {
			return err
		}
		if err := f(l); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return v.breaks(fmt.Errorf("reading events: %w", err))
	}
	return nil
}

// A BrokenChain says which row of the audit log does not hold.
type BrokenChain struct {
	Seq    int64
	Reason string
}

// Error returns the reason.
func (b *BrokenChain) Error() string { return b.Reason }

// VerifyChain walks the whole audit log and returns how many rows hold and the
// last one's hash. Where a row does not hold, or the log ends before the chain's
// head or before published, the error is a *BrokenChain that names the row.
// Published may be zero.
func (v *View) VerifyChain(published Head) (Head, error) {
	last := Head{0, serval.Genesis}
	err := v.EachEvent(0, func(l serval.Link) error {
		if err := v.chain.Check(last.Seq, last.Hash, l); err != nil {
			return &BrokenChain{last.Seq + 1, err.Error()}
		}
		last = Head{l.Seq, l.Hash}
		if l.Seq == published.Seq && l.Hash != published.Hash {
			return &BrokenChain{l.Seq, fmt.Sprintf("row %d is not the one that was published as the head", l.Seq)}
		}
		return nil
	})
	if err != nil {
		return last, err
	}
	if last.Seq < published.Seq {
		return last, &BrokenChain{last.Seq + 1, fmt.Sprintf("row %d is missing: the log ends at row %d, and row %d was published as the head", last.Seq+1, last.Seq, published.Seq)}
	}
	head, err := v.ChainHead()
	if err != nil {
		return last, err
	}
	switch {
	case head.Seq > last.Seq:
		return last, &BrokenChain{last.Seq + 1, fmt.Sprintf("row %d is missing: the log ends at row %d, and its head says row %d", last.Seq+1, last.Seq, head.Seq)}
	case head != last:
		return last, &BrokenChain{last.Seq, fmt.Sprintf("row %d is the last, but the log's head says row %d with another hash: the head was changed", last.Seq, head.Seq)}
	}
	return last, nil
}

// CheckSecret refuses a chain that lacks the key which the last row of the audit
// log was made with: the secret was changed and the older one not kept.
func (s *Store) CheckSecret(ctx context.Context) error {
	return s.Read(ctx, func(v *View) error {
		rows, err := v.Events(EventFilter{Limit: 1})
		if err != nil || len(rows) == 0 || s.chain.Knows(rows[0].KeyID) {
			return err
		}
		return serval.Refuse(serval.FailedPrecondition,
			"The audit log was written with another SERVAL_SECRET (its key is %s). Put the old secret behind a comma.", rows[0].KeyID)
	})
}
