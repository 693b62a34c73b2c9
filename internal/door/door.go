// Package door is the one way to the store for whoever acts: authorize, do,
// record, in one transaction. The rooms behind it, signin for who comes,
// control for people and intake for workers, have no other; what they share of a transaction is here too.
//
// Who may begin what is one table, permits. Whether it may be done to this very
// thing is for the dictionary.
package door

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// A Door opens the store for those who may act on it. It is safe for concurrent
// use; make it with New, one for each store.
type Door struct {
	Store *store.Store
	Log   *zap.Logger
	// Now is the clock. Only the wiring sets it, and before the first call.
	Now func() time.Time
	// Channels are the names of the ways in which people are told of something
	// outside of the pages. Only the wiring sets them, and before the first call.
	Channels []string
	// Changed is raised when there may be news for somebody who waits.
	Changed Signal
	// Passage is where people and what takes long meet.
	Passage Passage

	strangers budget
	chatters  budget  // of people who are not known, those whom a chat brings
	turned    budgets // what the edge refused, by person
}

// New returns the door of an open, migrated store.
func New(s *store.Store, log *zap.Logger) *Door { return &Door{Store: s, Log: log, Now: time.Now} }

// Act runs f as who and records what happened: both, or neither. A refusal
// undoes f and is recorded in its place; a fault undoes it and is recorded as
// failed. What who does under a claim is noted with it, or not done. F may put
// facts into the event; with an empty action it says that it has appended its
// own, with an empty outcome too that it has done nothing. Where it has changed,
// without a row, what must have one, that is a fault. Expect is the store's: see Write.
func (d *Door) Act(ctx context.Context, who serval.Principal, what serval.Action, target string,
	f func(tx *store.Tx, e *serval.Event) error, expect ...func(*store.Tx)) error {
	visit := visit{of: &d.Passage}
	defer visit.end()
	err := authorize(who, what)
	if err == nil {
		expect = append([]func(*store.Tx){func(*store.Tx) { visit.begin(who) }}, expect...)
		err = d.Store.Write(ctx, d.Now(), func(tx *store.Tx) error {
			e := Event(who, what, target, serval.OutcomeDone)
			if err := f(tx, &e); err != nil {
				return err
			}
			if who.Claim != "" && (e.Action != "" || e.Outcome != "") {
				if err := tx.DoRepeat(who.Claim); err != nil {
					return err
				}
			}
			if e.Action != "" {
				return tx.Append(e)
			}
			if table := tx.Unrecorded(); table != "" {
				return fmt.Errorf("%s changes %s, and no event tells of it", what, table)
			}
			return nil
		}, expect...)
	}
	if err != nil {
		d.Refused(ctx, who, what, target, err)
	}
	return err
}

// View runs f as who without writing. Refusals are recorded.
func (d *Door) View(ctx context.Context, who serval.Principal, what serval.Action, target string,
	f func(v *store.View) error) error {
	visit := visit{of: &d.Passage}
	defer visit.end()
	err := authorize(who, what)
	if err == nil {
		err = d.Store.Read(ctx, func(v *store.View) error {
			visit.begin(who)
			return f(v)
		})
	}
	if serval.IsRefusal(err) {
		d.Refused(ctx, who, what, target, err)
	}
	return err
}

// turnedRows is how many refusals of the edge are recorded of one person in a
// minute; the rest is counted.
const turnedRows = 10

// strangerRows is how many refusals of people who are not signed in are
// recorded in a minute; the rest is counted. Nobody fills the log from outside.
// Those of a chat are counted apart: neither hides the other.
const strangerRows = 60

// Refused records that an act or a view did not happen. Where even that
// fails there is the log.
func (d *Door) Refused(ctx context.Context, who serval.Principal, what serval.Action, target string, cause error) {
	e := Event(who, what, target, serval.OutcomeFailed)
	e.Reason = Reason(cause)
	stranger := e.ActorKind == serval.KindNobody
	if r, ok := errors.AsType[*serval.Refusal](cause); ok {
		if r.Detail["cause"] == store.ClockWentBack {
			// The log is the alarm: this clock can record nothing either.
			d.Log.Error("the clock went back", zap.String("action", string(what)), zap.String("target", e.Target), zap.String("reason", r.Reason))
			return
		}
		if r.Detail["cause"] == store.DiskFull {
			d.Log.Error("the disk is full", zap.String("action", string(what)), zap.String("target", e.Target), zap.Error(cause))
			return
		}
		e.Outcome, e.Detail = serval.OutcomeRefused, r.Detail
		if stranger && isLook(what) {
			return // no cookie, an old cookie, a token of nobody: every visit begins so
		}
	} else if errors.Is(cause, context.Canceled) {
		return // nobody waits for it any more, and nothing happened
	}
	now := d.Now()
	skipped, ok := 0, true
	switch {
	case stranger && e.Detail["via"] != "":
		skipped, ok = d.chatters.take(now, strangerRows)
	case stranger:
		skipped, ok = d.strangers.take(now, strangerRows)
	case what == serval.EdgeRefuse:
		skipped, ok = d.turned.take(e.ActorID, now, turnedRows)
	}
	if !ok {
		return
	}
	if skipped > 0 {
		e.Detail = withDetail(e.Detail, "not_recorded_before", fmt.Sprint(skipped))
	}
	// The caller may be gone; the record is made all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := d.Store.Write(ctx, now, func(tx *store.Tx) error { return tx.Append(e) }); err != nil {
		d.Log.Error("a refusal could not be recorded", zap.String("action", string(what)), zap.String("target", target), zap.Error(err))
	}
}

// Reason returns what the record may say of err: a refusal's sentence, and of
// a fault no more than that it was one.
func Reason(err error) string {
	if r, ok := errors.AsType[*serval.Refusal](err); ok {
		return r.Reason
	}
	return "something went wrong on our side"
}

// isLook reports whether what only looks at something.
func isLook(what serval.Action) bool {
	return strings.HasSuffix(string(what), ".read") || what == serval.LoginList
}

// maxTarget bounds, in bytes, what somebody says they act on. No ARN is longer.
const maxTarget = 2048

// Event returns the event of who doing what.
func Event(who serval.Principal, what serval.Action, target string, outcome serval.Outcome) serval.Event {
	id := who.Person.ID
	if who.Kind == serval.KindWorker {
		id = who.Worker
	}
	kind := who.Kind
	if kind == "" {
		kind = serval.KindNobody
	}
	return serval.Event{
		ActorKind: kind, ActorID: id, Actor: who.Name(), Action: what, Target: serval.Cut(target, maxTarget), Outcome: outcome,
		RequestID: who.RequestID, Address: who.Address,
	}
}

func withDetail(detail map[string]string, name, value string) map[string]string {
	with := map[string]string{name: value}
	for k, v := range detail {
		with[k] = v
	}
	return with
}

// NewID returns a fresh id that says what it is of.
func NewID(of string) string { return of + "_" + strings.ToLower(rand.Text()) }

// NewToken returns a fresh token of 256 bits. The store keeps its Digest.
func NewToken() serval.Secret {
	b := make([]byte, 32)
	rand.Read(b) // never fails
	return serval.NewSecret(base64.RawURLEncoding.EncodeToString(b))
}

// A Signal wakes everybody who waits for a change.
type Signal struct {
	mu sync.Mutex
	ch chan struct{}
}

// Wait returns a channel that is closed at the next Raise.
func (s *Signal) Wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

// Raise wakes everybody who waits now.
func (s *Signal) Raise() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}

// Await calls look until it reports true or fails, and once more when the time is
// up: at once, at each Changed, and each second, because another replica may have
// changed something.
func (d *Door) Await(ctx context.Context, wait time.Duration, look func() (bool, error)) error {
	deadline := time.NewTimer(wait)
	defer deadline.Stop()
	for {
		changed := d.Changed.Wait() // before looking, so that nothing is missed between
		if done, err := look(); done || err != nil {
			return err
		}
		again := time.NewTimer(time.Second)
		select {
		case <-changed:
		case <-again.C:
		case <-deadline.C:
			again.Stop()
			_, err := look()
			return err
		case <-ctx.Done():
			again.Stop()
			return ctx.Err()
		}
		again.Stop()
	}
}

// A budget counts something by the minute.
type budget struct {
	mu      sync.Mutex
	minute  int64
	used    int
	skipped int
}

// take reports whether one more is within max in now's minute. With the first
// one of a minute it returns how many were not before.
func (b *budget) take(now time.Time, max int) (skipped int, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if m := now.Unix() / 60; m != b.minute {
		b.minute, b.used = m, 0
		skipped, b.skipped = b.skipped, 0
	}
	if b.used >= max {
		b.skipped++
		return 0, false
	}
	b.used++
	return skipped, true
}

// budgets are a budget for each of many. Those that have nothing to remember are
// forgotten with the minute.
type budgets struct {
	mu     sync.Mutex
	minute int64
	of     map[string]*budget
}

// take is take of whose budget.
func (b *budgets) take(whose string, now time.Time, max int) (skipped int, ok bool) {
	b.mu.Lock()
	if m := now.Unix() / 60; m != b.minute || b.of == nil {
		kept := map[string]*budget{}
		for name, one := range b.of {
			if one.owes() {
				kept[name] = one
			}
		}
		b.minute, b.of = m, kept
	}
	one := b.of[whose]
	if one == nil {
		one = &budget{}
		b.of[whose] = one
	}
	b.mu.Unlock()
	return one.take(now, max)
}

// owes reports whether there are any that were not within.
func (b *budget) owes() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.skipped > 0
}
