// Package control is the control plane: who may ask for what, what is approved,
// what may be opened, and the record of it all. It is the only door to the
// store.
//
// Every exported method of Plane takes who acts, and goes through act or view:
// authorize, do, record, in one transaction. There is no third door. Decisions
// are the dictionary's; here they are joined with what is stored and with the
// time. What happens outside, at STS, has its intent recorded before and its
// outcome before anyone sees it; see Open.
package control

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// A Minter opens one AWS session. Its error is a *serval.Refusal where somebody
// can mend the cause, with AWS's code as Detail "code"; one whose Detail has
// "clamp" says that the duration was over the role's maximum.
type Minter interface {
	Mint(ctx context.Context, m serval.Mint) (serval.Minted, error)
}

// Settings are what a Plane works by.
type Settings struct {
	Issuer   string // of the ID tokens; STS's answer is checked against it
	ClientID string // their audience

	Secret       serval.Secret   // root secret; sealing is derived from it
	OlderSecrets []serval.Secret // what was sealed under these still opens

	RequestExpiry time.Duration // 0: serval.DefaultRequestExpiry
	MintRate      int           // sessions a person may open in a minute; 0: 60

	Networks Networks

	Admins   serval.People
	Auditors serval.People
}

// A Plane is the control plane. It is safe for concurrent use.
type Plane struct {
	store    *store.Store
	minter   Minter
	log      *zap.Logger
	settings Settings
	sealer   sealer

	// Now is the clock. Only the wiring sets it, and before the first call.
	Now func() time.Time

	policies  atomic.Pointer[[]serval.AccessPolicy]
	parsed    parsed
	changed   signal
	strangers budget
}

// New returns a Plane over an open, migrated store.
func New(s *store.Store, m Minter, log *zap.Logger, settings Settings) *Plane {
	if settings.RequestExpiry == 0 {
		settings.RequestExpiry = serval.DefaultRequestExpiry
	}
	if settings.MintRate == 0 {
		settings.MintRate = 60
	}
	p := &Plane{
		store: s, minter: m, log: log, settings: settings,
		sealer: newSealer(settings.Secret, settings.OlderSecrets),
		Now:    time.Now,
	}
	p.policies.Store(&[]serval.AccessPolicy{})
	return p
}

// System is the principal for what happens as time passes.
func System() serval.Principal { return serval.Principal{Kind: serval.KindSystem} }

// A permit says who may do something at all. Whether it may be done to this
// very thing is for the dictionary.
type permit func(serval.Principal) error

func anyone(serval.Principal) error { return nil }

func person(who serval.Principal) error {
	if who.Kind != serval.KindPerson {
		return serval.Refuse(serval.Unauthenticated, "You are not signed in.")
	}
	return nil
}

func admin(who serval.Principal) error {
	if err := person(who); err != nil {
		return err
	}
	if !who.Admin {
		return serval.Refuse(serval.Denied, "This is for admins.")
	}
	return nil
}

func auditor(who serval.Principal) error {
	if err := person(who); err != nil {
		return err
	}
	if !who.Auditor && !who.Admin {
		return serval.Refuse(serval.Denied, "This is for auditors.")
	}
	return nil
}

func worker(who serval.Principal) error {
	if who.Kind != serval.KindWorker {
		return serval.Refuse(serval.Unauthenticated, "This is for workers; no valid worker token was given.")
	}
	return nil
}

func system(who serval.Principal) error {
	if who.Kind != serval.KindSystem {
		return serval.Refuse(serval.Denied, "This happens by itself.")
	}
	return nil
}

// permits says, for every action that somebody begins, who may begin it. It is
// read only; an action that is not in it may be begun by nobody.
var permits = map[serval.Action]permit{
	serval.LoginStart:  anyone,
	serval.LoginCreate: anyone,
	serval.LoginRead:   anyone,
	serval.LoginList:   person,
	serval.LoginEnd:    person,

	serval.RoleRead:        person,
	serval.RequestRead:     person,
	serval.RequestCreate:   person,
	serval.RequestDecide:   person,
	serval.ExtensionCreate: person,
	serval.RequestShorten:  person,
	serval.RequestCancel:   person,
	serval.RequestDone:     person,
	serval.RequestRevoke:   person,
	serval.RequestExpire:   system,
	serval.RequestFail:     system,

	serval.SessionRead:  person,
	serval.SessionOpen:  person,
	serval.SessionIssue: person,
	serval.SessionFail:  person,
	serval.SessionDrop:  person,
	serval.SessionClose: system,

	serval.AccountRead:    admin,
	serval.AccountDeclare: system,
	serval.AccountRemove:  system,
	serval.PolicyDeclare:  system,
	serval.RemovalConfirm: admin,
	serval.SyncRequest:    admin,

	serval.UpstreamRead:    worker,
	serval.SyncOpen:        worker,
	serval.InventoryAccept: worker,

	serval.AuditRead: auditor,
}

// authorize refuses who may not begin what. Every act and view asks it, and
// nothing else does.
func authorize(who serval.Principal, what serval.Action) error {
	allowed, known := permits[what]
	if !known {
		return fmt.Errorf("control: nobody may begin %q", what)
	}
	return allowed(who)
}

// act runs f as who and records what happened: both, or neither. A refusal
// undoes f and is recorded in its place; a fault undoes it and is recorded as
// failed. F may put facts into the event; with an empty action it says that it
// has appended its own.
func (p *Plane) act(ctx context.Context, who serval.Principal, what serval.Action, target string,
	f func(tx *store.Tx, e *serval.Event) error) error {
	err := authorize(who, what)
	if err == nil {
		err = p.store.Write(ctx, p.Now(), func(tx *store.Tx) error {
			e := event(who, what, target, serval.OutcomeDone)
			if err := f(tx, &e); err != nil {
				return err
			}
			if e.Action == "" {
				return nil
			}
			return tx.Append(e)
		})
	}
	if err != nil {
		p.recordFailure(ctx, who, what, target, err)
	}
	return err
}

// view runs f as who without writing. Refusals are recorded.
func (p *Plane) view(ctx context.Context, who serval.Principal, what serval.Action, target string,
	f func(v *store.View) error) error {
	err := authorize(who, what)
	if err == nil {
		err = p.store.Read(ctx, f)
	}
	if serval.IsRefusal(err) {
		p.recordFailure(ctx, who, what, target, err)
	}
	return err
}

// strangerRows is how many refusals of people who are not signed in are
// recorded in a minute; the rest is counted. Nobody fills the log from outside.
const strangerRows = 60

// recordFailure records that an act or a view did not happen. Where even that
// fails there is the log.
func (p *Plane) recordFailure(ctx context.Context, who serval.Principal, what serval.Action, target string, cause error) {
	e := event(who, what, target, serval.OutcomeFailed)
	e.Reason = reasonOf(cause)
	stranger := e.ActorKind == serval.KindNobody
	if r, ok := errors.AsType[*serval.Refusal](cause); ok {
		e.Outcome, e.Detail = serval.OutcomeRefused, r.Detail
		if stranger && isLook(what) {
			return // no cookie, an old cookie, a token of nobody: every visit begins so
		}
	} else if errors.Is(cause, context.Canceled) {
		return // nobody waits for it any more, and nothing happened
	}
	now := p.Now()
	if stranger {
		skipped, ok := p.strangers.take(now, strangerRows)
		if !ok {
			return
		}
		if skipped > 0 {
			e.Detail = withDetail(e.Detail, "not_recorded_before", fmt.Sprint(skipped))
		}
	}
	// The caller may be gone; the record is made all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := p.store.Write(ctx, now, func(tx *store.Tx) error { return tx.Append(e) }); err != nil {
		p.log.Error("a refusal could not be recorded", zap.String("action", string(what)), zap.String("target", target), zap.Error(err))
	}
}

// reasonOf returns what the record may say of err: a refusal's sentence, and of
// a fault no more than that it was one.
func reasonOf(err error) string {
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

// event returns the event of who doing what.
func event(who serval.Principal, what serval.Action, target string, outcome serval.Outcome) serval.Event {
	id := who.Person.ID
	if who.Kind == serval.KindWorker {
		id = who.Worker
	}
	kind := who.Kind
	if kind == "" {
		kind = serval.KindNobody
	}
	return serval.Event{
		ActorKind: kind, ActorID: id, Actor: who.Name(), Action: what, Target: cut(target, maxTarget), Outcome: outcome,
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

// newID returns a fresh id that says what it is of.
func newID(of string) string { return of + "_" + strings.ToLower(rand.Text()) }

// A signal wakes everybody who waits for a change.
type signal struct {
	mu sync.Mutex
	ch chan struct{}
}

// wait returns a channel that is closed at the next raise.
func (s *signal) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) raise() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
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
