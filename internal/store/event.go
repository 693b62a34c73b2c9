package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/database"
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
	err = t.later("recording an event", `insert into event
		(seq, at, actor_kind, actor_id, actor, action, target, outcome, reason, request_id, address, detail, key_id, hash)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)`,
		l.Seq, micros(l.At), l.ActorKind, l.ActorID, l.Actor, l.Action, l.Target, l.Outcome, l.Reason,
		l.RequestID, l.Address, string(detail), l.KeyID, l.Hash)
	if err != nil {
		return err
	}
	t.head = Head{l.Seq, l.Hash}
	t.appended = append(t.appended, l.Event)
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

const chainHead = `select seq, hash from chain where id = 1`

// ChainHead returns the last row of the audit chain.
func (v *View) ChainHead() (Head, error) {
	var h Head
	if err := v.scan(chainHead, nil, &h.Seq, &h.Hash); err != nil {
		return Head{}, fmt.Errorf("reading the chain's head: %w", err)
	}
	return h, nil
}

// Head returns the last row of the audit log, as far as it is written.
func (t *Tx) Head() Head { return t.head }

// recorded are the tables of which no change is without a row of the audit log, in the
// same Tx; see EndsWith. Of a login that it was used is none.
var recorded = map[string]bool{
	"request": true, "allocation": true, "approved_version": true, "session": true,
	"person": true, "login": true, "role": true, "access_policy": true,
}

// Unrecorded returns a table of which every change is recorded, and that this transaction
// has changed without a row; empty where there is none.
func (t *Tx) Unrecorded() string {
	if len(t.appended) > 0 {
		return ""
	}
	for _, table := range t.tx.Changed() {
		if recorded[table] {
			return table
		}
	}
	return ""
}

// EndsWith reports whether h is the last row of the audit log now: then what was
// read of the tables whose changes are all recorded, when h was the last, is still so.
// Where no other process writes, this one knows, unless a row is being kept at that
// moment: it may be in the database already. What somebody changes by hand is not
// seen.
func (v *View) EndsWith(h Head) (bool, error) {
	switch {
	case h == Head{}:
		return false, nil
	case v.taken != nil:
		return *v.taken == h, nil
	case v.snapshot.memory.IsOn():
		last := v.snapshot.known.Load()
		return last != nil && last.Head == h, nil
	}
	only := *v
	if d := v.snapshot; d.tx == nil && d.failed == nil {
		only.q = d.db // one row is consistent in itself: no transaction is begun and ended for it
	}
	last, err := only.ChainHead()
	return last == h, v.breaks(err)
}

// A Look is one at the end of the audit log, right behind the commit of a Tx.
type Look struct{ row database.Row }

// LookBehind has the end of the audit log be looked at once t is committed, in the same
// way to the database and back: ask what was seen after Write.
func (t *Tx) LookBehind() Look { return Look{t.tx.Behind(chainHead)} }

// SawEnd reports whether h was seen to be the last row, which is asked once. Under
// SQLite it never was: EndsWith costs nothing there.
func (l Look) SawEnd(h Head) bool {
	var last Head
	return l.row != nil && l.row.Scan(&last.Seq, &last.Hash) == nil && last == h
}

// An EventFilter chooses rows of the audit log; empty fields choose all.
type EventFilter struct {
	Before  int64 // rows with a lower number; 0 for all
	Target  string
	ActorID string
	Actor   string // as it was written
	Action  serval.Action
	Outcome serval.Outcome
	From    time.Time // rows of this instant or later; zero for all
	To      time.Time // rows before this instant; zero for all
	Limit   int       // at most so many
}

// eventsLookedThrough is how many rows are looked through for one page that
// several things are filtered by at once: one of them chooses by its index, and
// the others may let nothing through.
const eventsLookedThrough = 10_000

// The rows that a filter lets through. SQLite uses an index for a condition
// that every row must meet, and not for one that an empty filter lifts; so what
// is filtered by is said twice. The last row that is looked through for a page is
// found by the index alone.
const (
	eventsWhere = ` seq < $1 and seq >= $2 and ($3 = '' or target = $3) and ($4 = '' or actor_id = $4) and ($5 = '' or actor = $5)
		and ($6 = '' or action = $6) and ($7 = '' or outcome = $7) and at >= $8 and at < $9
		order by seq desc limit $10`
	eventsOfAll     = `select ` + eventColumns + ` from event where` + eventsWhere
	eventsOfTarget  = `select ` + eventColumns + ` from event where target = $3 and` + eventsWhere
	eventsOfActorID = `select ` + eventColumns + ` from event where actor_id = $4 and` + eventsWhere
	eventsOfActor   = `select ` + eventColumns + ` from event where actor = $5 and` + eventsWhere
	eventsOfAction  = `select ` + eventColumns + ` from event where action = $6 and` + eventsWhere
	eventsOfOutcome = `select ` + eventColumns + ` from event where outcome = $7 and` + eventsWhere

	lastWhere     = ` = $1 and seq < $2 and seq >= $3 order by seq desc limit 1 offset $4`
	lastOfTarget  = `select seq from event where target` + lastWhere
	lastOfActorID = `select seq from event where actor_id` + lastWhere
	lastOfActor   = `select seq from event where actor` + lastWhere
	lastOfAction  = `select seq from event where action` + lastWhere
)

// Events returns rows of the audit log, newest first. Where next is not 0 there
// may be more, before the row with that number; a page that several things are
// filtered by may have fewer rows than were asked for, or none, and still be
// followed by another.
func (v *View) Events(f EventFilter) (rows []serval.Link, next int64, err error) {
	before, from := cmp.Or(f.Before, math.MaxInt64), int64(1)
	if !f.From.IsZero() {
		if from, err = v.eventAround(f.From.Add(-maxBackward)); err != nil {
			return nil, 0, err
		}
	}
	if !f.To.IsZero() {
		to, err := v.eventAround(f.To.Add(maxBackward))
		if err != nil {
			return nil, 0, err
		}
		before = min(before, to)
	}
	if f.regards() > 1 {
		last, err := v.lastLookedThrough(f, before, from)
		if err != nil {
			return nil, 0, err
		}
		if len(last) > 0 {
			from, next = last[0]+1, last[0]+1
		}
	}
	list := func(query string) ([]serval.Link, error) {
		return all(v, scanEvent, query, before, from, f.Target, f.ActorID, f.Actor, string(f.Action), string(f.Outcome),
			micros(f.From), cmp.Or(micros(f.To), math.MaxInt64), f.Limit+1)
	}
	switch { // by what chooses the fewest
	case f.Target != "":
		rows, err = list(eventsOfTarget)
	case f.ActorID != "":
		rows, err = list(eventsOfActorID)
	case f.Actor != "":
		rows, err = list(eventsOfActor)
	case f.Action != "":
		rows, err = list(eventsOfAction)
	case f.Outcome != "":
		rows, err = list(eventsOfOutcome)
	default:
		rows, err = list(eventsOfAll)
	}
	if len(rows) > f.Limit {
		rows = rows[:f.Limit]
		next = rows[f.Limit-1].Seq
	}
	return rows, next, err
}

// regards returns in how many regards f chooses, other than by number and time.
func (f EventFilter) regards() (n int) {
	for _, by := range []string{f.Target, f.ActorID, f.Actor, string(f.Action), string(f.Outcome)} {
		if by != "" {
			n++
		}
	}
	return n
}

// lastLookedThrough returns the row behind the last that is looked through for a
// page; none where all that there are can be.
func (v *View) lastLookedThrough(f EventFilter, before, from int64) ([]int64, error) {
	list := func(query, by string) ([]int64, error) {
		return all(v, func(row scanner) (seq int64, err error) { return seq, row.Scan(&seq) }, query, by, before, from, eventsLookedThrough)
	}
	switch { // as Events does
	case f.Target != "":
		return list(lastOfTarget, f.Target)
	case f.ActorID != "":
		return list(lastOfActorID, f.ActorID)
	case f.Actor != "":
		return list(lastOfActor, f.Actor)
	default: // with the outcome alone there is one regard
		return list(lastOfAction, string(f.Action))
	}
}

// eventAround returns the number of a row that has no row at or after the instant
// more than maxBackward later before it, and none earlier than maxBackward before
// the instant behind it. Rows are in the order in which they were written, and no
// clock that wrote one was further back than that; so no index by time is needed.
func (v *View) eventAround(at time.Time) (int64, error) {
	head, err := v.ChainHead()
	if err != nil {
		return 0, err
	}
	low, high := int64(1), head.Seq+1 // the row before low is earlier; high is not
	for low < high {
		middle := low + (high-low)/2
		var then int64
		if err := v.scan(`select at from event where seq = $1`, []any{middle}, &then); err != nil && !errors.Is(err, sql.ErrNoRows) {
			return 0, fmt.Errorf("reading when event %d was: %w", middle, err)
		}
		if then < micros(at) {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low, nil
}

// EventsAfter returns rows of the audit log behind the row after and up to the row
// last, oldest first, at most so many.
func (v *View) EventsAfter(after, last int64, limit int) ([]serval.Link, error) {
	rows, err := all(v, scanEvent, `select `+eventColumns+` from event where seq > $1 and seq <= $2 order by seq limit $3`, after, last, limit)
	if err != nil {
		return nil, fmt.Errorf("reading events: %w", err)
	}
	return rows, nil
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
		rows, _, err := v.Events(EventFilter{Limit: 1})
		if err != nil || len(rows) == 0 || s.chain.Load().Knows(rows[0].KeyID) {
			return err
		}
		return serval.Refuse(serval.FailedPrecondition,
			"The audit log was written with another SERVAL_SECRET (its key is %s). Put the old secret behind a comma.", rows[0].KeyID)
	})
}
