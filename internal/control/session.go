package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/connect"
	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/signin"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// An Opening is what a person asks a session for.
type Opening struct {
	RequestID string
	Kind      serval.SessionKind
	Page      serval.ConsolePage // of a console session

	// What the session may not do although the role may.
	ReadOnly   bool
	NoChaining bool
	Network    string // name of a configured network; empty: from anywhere
}

// An Opened is a session with its credentials, or with the way into the console:
// the one time that they are seen. A console session's credentials are not
// handed over.
type Opened struct {
	Session     serval.Session
	Credentials serval.Minted
	Link        serval.Secret // into the console
	Note        string        // what the person should know; empty for nothing

	// RenewAt is from when on a session that is a lease is to be opened anew;
	// zero where it ends with the access.
	RenewAt time.Time
}

// How long STS may take, and how many times one opening asks it: for a role
// whose maximum fell, and for an end that turned out to lie earlier.
const (
	mintTime  = 15 * time.Second
	mintTries = 3
)

// How long the database may take to record an outcome. With all tries it stays
// within serval.MintDeadline, after which the intent is closed.
const recordTime = 10 * time.Second

// How long ago the look that went with the record may have begun: where the answer
// took longer, it is looked once more.
const lookTime = time.Second

// Open opens an AWS session under a request of who's. It is three acts around
// STS:
//
// The intent is recorded: who, which request, which role, and that all of this
// is allowed now. A crash after it leaves a session without an outcome; Sweep
// closes it as unknown after two minutes.
//
// STS is asked, and its answer checked against what was asked. A crash here, or
// an answer that is lost, leaves the same: nothing was handed over, and the
// clock stands.
//
// The outcome is recorded and, with the first, the clock started; then the
// grant is looked at once more, and only then are the credentials returned. If
// the outcome cannot be recorded they are not. Under PostgreSQL that look goes there
// with the record, and is made once it is kept: it sees whether anything was recorded
// since, and all is read anew where it was.
func (p *Plane) Open(ctx context.Context, who serval.Principal, ask Opening) (Opened, error) {
	return p.open(ctx, who, ask.RequestID, func(*store.Tx) (Opening, error) { return ask, nil }, func(*store.Tx) error { return nil })
}

// maxTrades is how often the identity provider is asked for one session.
const maxTrades = 3

// open is Open for what asked returns. Take is called in the transaction that
// records the intent.
func (p *Plane) open(ctx context.Context, who serval.Principal, target string, asked func(*store.Tx) (Opening, error),
	take func(*store.Tx) error) (Opened, error) {
	var i intent
	begun := p.now()
	for trade := 1; ; trade++ {
		err := p.act(ctx, who, serval.SessionOpen, target, func(tx *store.Tx, e *serval.Event) error {
			ask, err := asked(tx)
			if err != nil {
				return err
			}
			if tx.Now.Before(begun) {
				begun = tx.Now // a clock that was set back must not make every token an old one
			}
			if i, err = p.intend(tx, who, ask, begun); err != nil {
				return err
			}
			if i.stale {
				e.Action, e.Outcome = "", ""
				return nil
			}
			if err := take(tx); err != nil {
				return err
			}
			if err := tx.SaveSession(i.session); err != nil {
				return err
			}
			e.Target, e.Outcome, e.Detail = i.session.RequestID, serval.OutcomeStarted, i.detail()
			return i.seen.keep(tx, e)
		}, func(tx *store.Tx) {
			tx.ExpectOpening(target, who.Person.ID, who.LoginID)
			tx.ExpectCount(who.Person.ID, tx.Now.Add(-time.Minute))
		})
		if err == nil && i.stale && trade > maxTrades {
			err = serval.Refuse(serval.Unavailable, "The identity provider was asked several times, and each answer was old when it came. Try again.")
		} else if err == nil && i.stale {
			err = p.logins.Refresh(ctx, who, begun)
		}
		if err != nil {
			return Opened{}, err
		}
		if !i.stale {
			break
		}
	}

	// The caller may go away; what STS is asked has an outcome all the same.
	ctx = context.WithoutCancel(ctx)
	var note string
	for try := 1; ; try++ {
		asked := p.now()
		mint := i.mint()
		minted, err := p.ask(ctx, mint)
		if r, ok := errors.AsType[*serval.Refusal](err); ok && r.Detail["clamp"] != "" && i.session.Seconds > serval.DefaultMaxSessionSeconds {
			i.session.Seconds, i.clamped = serval.DefaultMaxSessionSeconds, true
			note = "AWS says that this role's maximum session duration is lower now; the session lasts an hour at most."
			continue
		}
		if err == nil {
			if wrong := mint.Check(minted, p.settings.Issuer, p.settings.ClientID, who.Person.Subject, asked, p.now()); wrong != nil {
				p.door.Log.Error("STS's answer does not fit what was asked", zap.String("session", i.session.ID), zap.Error(wrong))
				err = serval.Refuse(serval.FailedPrecondition, "AWS's answer does not fit what was asked, so nothing was handed over: %s. Tell an admin.", wrong)
			}
		}
		if err != nil {
			return Opened{}, p.explain(ctx, who, i, p.fail(ctx, who, i, err))
		}
		p.packed(i, minted)
		if i.bare { // nothing but the credentials ends it
			i.end = minted.Expiration
		}
		session, end, err := p.issue(ctx, who, &i, minted)
		if err != nil {
			return Opened{}, err
		}
		if end.Before(i.end) {
			i.discarded = append(i.discarded, minted.AccessKeyID)
			if try == mintTries || !i.endAt(end, p.now()) {
				return Opened{}, p.fail(ctx, who, i, serval.Refuse(serval.Unavailable, "The clocks of AWS and of this server are apart, so the session's end could not be set. Try again."))
			}
			continue
		}
		opened := Opened{Session: session, Note: note}
		if i.renewable {
			opened.RenewAt = session.RenewAt()
		}
		if session.Kind == serval.ForConsole {
			// A crash here leaves a session that nobody has.
			if opened.Link, i.seen, err = p.signIn(ctx, who, session, minted, i.page, i.seen); err != nil {
				return Opened{}, err
			}
		} else {
			opened.Credentials = minted
		}
		if err := p.recheck(ctx, who, session, i.seen); err != nil {
			return Opened{}, err
		}
		return opened, nil
	}
}

// nearlyFull is from how many percent of AWS's room on a warning is logged.
const nearlyFull = 80

// packed watches how much of AWS's room the session's limits take.
func (p *Plane) packed(i intent, m serval.Minted) {
	if p.settings.Packed != nil {
		p.settings.Packed(m.PackedPolicySize)
	}
	if m.PackedPolicySize >= nearlyFull {
		p.door.Log.Warn("a session's limits are close to more than AWS takes", zap.String("session", i.session.ID), zap.Int("percent", m.PackedPolicySize))
	}
}

// ask asks STS, within a bounded time.
func (p *Plane) ask(ctx context.Context, m serval.Mint) (serval.Minted, error) {
	ctx, cancel := context.WithTimeout(ctx, mintTime)
	defer cancel()
	return p.minter.Mint(ctx, m)
}

// An intent is what Open is about to do.
type intent struct {
	session serval.Session
	stale   bool // nothing else is set: the identity provider has to be asked first
	seen    mintable
	token   serval.Secret
	end     time.Time // of the session policy
	policy  serval.SessionPolicy
	terms   serval.Terms
	email   string
	subject string
	clamped bool
	network string
	page    serval.ConsolePage

	bare      bool          // without a session policy
	lease     time.Duration // how long one session lasts; 0: as long as the access
	renewable bool          // a lease that ends before the access does
	mayChain  bool          // whatever is left: the access policy says so
	discarded []string      // access key ids whose end lay too late; nobody has the keys
}

// limitChaining keeps a session that ends soon, or that is a lease, from
// chaining: a chained one could last an hour, whatever is left here.
func (i *intent) limitChaining(remains time.Duration) {
	if (remains < serval.MinSessionSeconds*time.Second || i.lease > 0) && !i.mayChain && !i.bare {
		i.policy.NoChaining = true
	}
}

// endAt moves the session's end forward to one that turned out to lie earlier,
// and reports whether AWS opens a session that ends then.
func (i *intent) endAt(end, now time.Time) bool {
	if i.bare {
		i.session.Seconds -= int(i.end.Sub(end)/time.Second) + 1
		return i.session.Seconds >= serval.MinSessionSeconds
	}
	i.end, i.renewable = end, false
	i.limitChaining(end.Sub(now))
	return true
}

func (i intent) mint() serval.Mint {
	if i.bare {
		return serval.Mint{Role: i.session.Role, SessionName: i.session.SessionName, Token: i.token, Seconds: i.session.Seconds}
	}
	policy := i.policy
	policy.End = i.end
	return serval.Mint{
		Role: i.session.Role, SessionName: i.session.SessionName, Token: i.token, Seconds: i.session.Seconds,
		Policy: policy.Document(), PolicyARNs: policy.ManagedPolicies(i.session.Role.Partition),
	}
}

// detail holds the facts that join an audit row with CloudTrail.
func (i intent) detail() map[string]string {
	d := map[string]string{
		"session_id": i.session.ID, "kind": string(i.session.Kind), "role_arn": i.session.Role.ARN, "role_id": i.session.Role.RoleID,
		"session_name": i.session.SessionName, "email": i.email, "subject": i.subject,
		"seconds": fmt.Sprint(i.session.Seconds), "policy": i.terms.Policy, "policy_digest": i.terms.Digest,
		"end": i.end.UTC().Format(time.RFC3339),
	}
	if i.policy.ReadOnly {
		d["read_only"] = "true"
	}
	if i.policy.NoChaining {
		d["no_chaining"] = "true"
	}
	if i.network != "" {
		d["network"] = i.network
	}
	if i.bare {
		d["session_policy"] = "off"
	}
	if i.session.Renews != "" {
		d["renews"] = i.session.Renews
	}
	if len(i.discarded) > 0 {
		d["discarded_access_key_ids"] = strings.Join(i.discarded, " ")
	}
	return d
}

// intend checks all that has to hold for a session now, and returns what to do
// about an opening that began at begun.
func (p *Plane) intend(tx *store.Tx, who serval.Principal, ask Opening, begun time.Time) (intent, error) {
	m, err := p.mintable(&tx.View, who, ask.RequestID, tx.Now)
	if err != nil {
		return intent{}, err
	}
	r := m.request
	renews, err := p.countMint(tx, r, ask.Kind)
	if err != nil {
		return intent{}, err
	}
	token, stale, err := p.logins.IDToken(m.login, begun, tx.Now)
	if err != nil || stale {
		return intent{stale: stale}, err
	}
	i := intent{
		session: serval.Session{
			ID: door.NewID("session"), RequestID: r.ID, PersonID: who.Person.ID, Kind: ask.Kind, State: serval.SessionStarted, Role: r.Role,
			SessionName: serval.SessionName(who.Person.Email), StartedAt: tx.Now, Renews: renews,
		},
		seen: m, token: token, terms: r.Terms, email: who.Person.Email, subject: who.Person.Subject,
	}
	if err := p.shape(&i, m, ask, tx.Now); err != nil {
		return intent{}, err
	}
	return i, nil
}

// shape says how long the session lasts and what it may do, or refuses what was
// asked.
func (p *Plane) shape(i *intent, m mintable, ask Opening, now time.Time) error {
	r := m.request
	i.page, i.bare, i.lease, i.mayChain = ask.Page, p.settings.NoSessionPolicy, p.settings.Lease, m.policy.AllowChaining
	if ask.Kind == serval.ForConsole {
		if _, err := ask.Page.URL(r.Role.Partition); err != nil {
			return err
		}
	}
	if err := p.narrow(i, ask); err != nil {
		return err
	}
	g, _ := r.Grant() // CheckMint has seen it
	remains := g.Remains(now)
	if i.bare && remains < serval.MinSessionSeconds*time.Second {
		return tooShort()
	}
	i.session.Seconds, i.end = serval.SessionLength(remains, m.role.MaxSessionSeconds, i.lease), g.End(now)
	if i.lease > 0 && remains > i.lease {
		i.renewable, i.end = true, now.Add(i.lease).Truncate(time.Second)
	}
	i.limitChaining(remains)
	return nil
}

// narrow sets what the session may not do although the role may.
func (p *Plane) narrow(i *intent, ask Opening) error {
	if i.bare && (ask.ReadOnly || ask.NoChaining || ask.Network != "") {
		return serval.Refuse(serval.FailedPrecondition, "Session policies are switched off here (SERVAL_SESSION_POLICY), and without one a session cannot be narrowed. Open it without narrowing.")
	}
	i.policy, i.network = serval.SessionPolicy{ReadOnly: ask.ReadOnly, NoChaining: ask.NoChaining}, ask.Network
	if ask.Network == "" {
		return nil
	}
	networks := p.appointed.Load().Networks
	i.policy.Networks = networks[ask.Network]
	if len(i.policy.Networks) == 0 { // to be pinned to nothing would be to be free
		return serval.Refuse(serval.Invalid, "There is no network called %q; there are: %s.", serval.Cut(ask.Network, 60),
			cmp.Or(strings.Join(slices.Sorted(maps.Keys(networks)), ", "), "none"))
	}
	return nil
}

// tooShort is said where little is left and only a session policy could end a
// session in time.
func tooShort() error {
	return &serval.Refusal{Kind: serval.FailedPrecondition, Detail: map[string]string{"cause": "session_policy_off"},
		Reason: "Less than 15 minutes are left. AWS opens no session that short, and session policies, which could end one in time, are switched off here (SERVAL_SESSION_POLICY). Ask for more time."}
}

// countMint refuses one session too many in a minute. A lease that is renewed
// when it is due is not counted, once: its client has to come back. Which one
// that is, is returned.
func (p *Plane) countMint(tx *store.Tx, r *serval.Request, kind serval.SessionKind) (renews string, err error) {
	if p.settings.Lease > 0 {
		last, renewed, err := tx.NewestSession(r.ID, kind)
		if err != nil && !serval.IsRefusal(err, serval.NotFound) {
			return "", err
		}
		if err == nil && !renewed && !tx.Now.Before(last.RenewAt()) {
			return last.ID, nil
		}
	}
	n, err := tx.CountSessions(r.PersonID, tx.Now.Add(-time.Minute))
	if err == nil && n >= p.settings.MintRate {
		err = &serval.Refusal{Kind: serval.Exhausted,
			Reason: fmt.Sprintf("You opened %d sessions within a minute. Wait a moment.", n), Detail: map[string]string{"retry_after": "60"}}
	}
	return "", err
}

// A mintable is what a session may be opened under, and what with.
type mintable struct {
	request *serval.Request
	role    store.Role
	policy  serval.AccessPolicy
	login   store.Login
	asOf    store.Head // the last row of the audit log that it knows of
	behind  store.Look // at the end of the log, when that row had been kept
}

// keep appends e, so that Act does not, and has m know of it.
func (m *mintable) keep(tx *store.Tx, e *serval.Event) error {
	err := tx.Append(*e)
	e.Action, m.asOf = "", tx.Head()
	return err
}

// check refuses what has ended by now.
func (m mintable) check(now time.Time) error {
	if err := signin.CheckLogin(m.login, now); err != nil {
		return err
	}
	return m.request.CheckMint(now)
}

// mintable returns the request if who may open a session under it at now: it is
// theirs, approved and running or unused; its very role is still there; and the
// policies of today still let them have it. Every way to credentials asks this,
// and nothing else.
func (p *Plane) mintable(v *store.View, who serval.Principal, requestID string, now time.Time) (m mintable, err error) {
	m.request, err = v.Request(requestID)
	if serval.IsRefusal(err, serval.NotFound) || err == nil && m.request.PersonID != who.Person.ID {
		return mintable{}, noRequest()
	}
	if err != nil {
		return mintable{}, err
	}
	// Who they are now, not who they were when the click began.
	person, err := v.Person(who.Person.ID)
	if err != nil {
		return mintable{}, err
	}
	if m.login, err = signin.Current(v, who, now); err != nil {
		return mintable{}, err
	}
	if err := m.check(now); err != nil {
		return mintable{}, err
	}
	if m.role, m.policy, err = p.usable(v, m.request, person); err != nil {
		return mintable{}, err
	}
	return m, nil
}

// mintableStill is mintable for what was found before. Nothing changes
// unrecorded: where no row of the audit log follows the last that was known of
// then, only time has passed; else all is read anew.
func (p *Plane) mintableStill(v *store.View, who serval.Principal, seen mintable, requestID string, now time.Time) (mintable, error) {
	same, err := v.EndsWith(seen.asOf)
	if err != nil {
		return mintable{}, err
	}
	if !same {
		return p.mintable(v, who, requestID, now)
	}
	return seen, seen.check(now)
}

// issue records that STS opened the session, and starts the clock with the
// first. It returns when the grant ends: where that is before the session's end
// nothing was recorded, and the session has to be minted again with that end.
// If the access was taken away meanwhile the session is recorded as dropped, and
// refused.
func (p *Plane) issue(ctx context.Context, who serval.Principal, i *intent, minted serval.Minted) (s serval.Session, end time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, recordTime)
	defer cancel()
	var dropped error
	var seen mintable
	err = p.act(ctx, who, serval.SessionIssue, i.session.RequestID, func(tx *store.Tx, e *serval.Event) error {
		s, dropped, end, seen = i.session, nil, i.end, i.seen
		s.AccessKeyID, s.AssumedRoleID, s.Expiration, s.FinishedAt = minted.AccessKeyID, minted.AssumedRoleID, minted.Expiration, tx.Now
		e.Detail = i.detail()
		e.Detail["access_key_id"], e.Detail["assumed_role_id"] = minted.AccessKeyID, minted.AssumedRoleID
		e.Detail["expiration"] = minted.Expiration.UTC().Format(time.RFC3339)
		if minted.PackedPolicySize > 0 {
			e.Detail["packed_policy_percent"] = fmt.Sprint(minted.PackedPolicySize)
		}
		if i.clamped {
			e.Detail["clamped"] = "true"
		}

		m, refused := p.mintableStill(&tx.View, who, i.seen, s.RequestID, tx.Now)
		if refused != nil && !serval.IsRefusal(refused) {
			return refused
		}
		if refused != nil {
			dropped = refused
			s.State, s.Error = serval.SessionDropped, door.Reason(refused)
			e.Action, e.Outcome, e.Reason = serval.SessionDrop, serval.OutcomeRefused, s.Error
			return conclude(tx, s, i.clamped)
		}
		r := new(*m.request) // its clock is not started twice where this is repeated
		started := r.StartClock(minted.Expiration.Add(-time.Duration(i.session.Seconds) * time.Second))
		if last := r.EndsAt.Truncate(time.Second); i.end.After(last) {
			// The clock of AWS is behind ours, or another session was the first.
			end, e.Action = last, ""
			return nil
		}
		if started {
			e.Detail["clock_started_at"] = r.ClockStartedAt.UTC().Format(time.RFC3339)
			if err := tx.SaveRequest(r); err != nil {
				return err
			}
			if err := p.door.TellOf(tx, who, serval.SessionIssue, r, ""); err != nil {
				return err
			}
		}
		s.State, s.EndsAt = serval.SessionIssued, i.end
		if s.Expiration.Before(s.EndsAt) {
			s.EndsAt = s.Expiration
		}
		e.Detail["ends_at"] = s.EndsAt.UTC().Format(time.RFC3339)
		if err := conclude(tx, s, i.clamped); err != nil {
			return err
		}
		seen, seen.request, seen.behind = m, r, tx.LookBehind()
		return seen.keep(tx, e)
	}, func(tx *store.Tx) {
		tx.DecidedAt(i.seen.asOf)
		tx.ExpectOpening(i.session.RequestID, who.Person.ID, who.LoginID) // where that is not the end any more
	})
	if err == nil {
		err, i.seen = dropped, seen
	}
	return s, end, err
}

// conclude keeps the outcome of a session that has none, and with it what was found
// of its role: that AWS lets a session of it last an hour at most.
func conclude(tx *store.Tx, s serval.Session, clamped bool) error {
	open, err := tx.ConcludeSession(s)
	if err == nil && !open {
		err = serval.Refuse(serval.Unavailable, "AWS took too long to answer. Try again.")
	}
	if err == nil && clamped {
		err = tx.LowerMaxSession(s.Role, serval.DefaultMaxSessionSeconds)
	}
	return err
}

// recheck looks at the grant once more, after the outcome is recorded and just
// before the credentials leave. Whoever lost them meanwhile does not get them.
func (p *Plane) recheck(ctx context.Context, who serval.Principal, s serval.Session, seen mintable) error {
	ctx, cancel := context.WithTimeout(ctx, recordTime)
	defer cancel()
	var err, refused error // kept apart: the drop is its record
	if now := p.now(); now.Before(s.FinishedAt.Add(lookTime)) && seen.behind.SawEnd(seen.asOf) {
		refused = seen.check(now)
	} else {
		err = p.view(ctx, who, serval.SessionRead, s.RequestID, func(v *store.View) error {
			_, err := p.mintableStill(v, who, seen, s.RequestID, p.now())
			if serval.IsRefusal(err) {
				refused, err = err, nil
			}
			return err
		})
	}
	if err == nil {
		err = refused
	}
	if err == nil {
		return nil
	}
	recorded := p.act(ctx, who, serval.SessionDrop, s.RequestID, func(tx *store.Tx, e *serval.Event) error {
		s.State, s.Error, s.FinishedAt = serval.SessionDropped, door.Reason(err), tx.Now
		e.Outcome, e.Reason = serval.OutcomeRefused, s.Error
		e.Detail = map[string]string{"session_id": s.ID, "access_key_id": s.AccessKeyID}
		return tx.SaveSession(s)
	})
	return errors.Join(err, recorded)
}

// fail records that STS refused, or answered what does not fit, and returns
// cause for the person.
func (p *Plane) fail(ctx context.Context, who serval.Principal, i intent, cause error) error {
	// Its own deadline: STS may have used up the other.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	recorded := p.act(ctx, who, serval.SessionFail, i.session.RequestID, func(tx *store.Tx, e *serval.Event) error {
		s := i.session
		s.State, s.FinishedAt, s.Error = serval.SessionFailed, tx.Now, door.Reason(cause)
		e.Outcome, e.Reason, e.Detail = serval.OutcomeFailed, s.Error, i.detail()
		for name, value := range facts(cause) {
			e.Detail["sts_"+name] = value
		}
		_, err := tx.ConcludeSession(s) // or it was closed as unknown meanwhile, and stays so
		return err
	})
	if recorded != nil {
		p.door.Log.Error("a failed mint could not be recorded", zap.String("session", i.session.ID), zap.Error(recorded))
	}
	return cause
}

// facts returns what the audit log keeps of an error of the far side's: what it
// says of itself, or what the refusal tells the person too.
func facts(err error) map[string]string {
	if told, ok := errors.AsType[interface {
		error
		Facts() map[string]string
	}](err); ok {
		return told.Facts()
	}
	if r, ok := errors.AsType[*serval.Refusal](err); ok {
		return r.Detail
	}
	return nil
}

// A SessionFilter chooses sessions.
type SessionFilter struct {
	RequestID string
	After     string // the id of a session of the same list: those behind it
	Limit     int
}

// Sessions returns the sessions that who opened, newest first, and whether
// there are more.
func (p *Plane) Sessions(ctx context.Context, who serval.Principal, f SessionFilter) (list []serval.Session, more bool, err error) {
	err = p.view(ctx, who, serval.SessionRead, f.RequestID, func(v *store.View) error {
		filter := store.SessionFilter{PersonID: who.Person.ID, RequestID: f.RequestID, Limit: f.Limit + 1}
		if f.After != "" {
			last, err := v.Session(f.After)
			if serval.IsRefusal(err) || err == nil && last.PersonID != who.Person.ID {
				return door.NoPage()
			}
			if err != nil {
				return err
			}
			filter.BeforeAt, filter.BeforeID = last.StartedAt, last.ID
		}
		list, err = v.Sessions(filter)
		return err
	})
	if len(list) > f.Limit {
		return list[:f.Limit], true, err
	}
	return list, false, err
}

// Networks are what a session may be pinned to, by name.
type Networks map[string][]netip.Prefix

// Live are the sessions under a request whose credentials still work, whatever
// became of the request, and what cuts them off.
type Live struct {
	Sessions []serval.Session // newest first
	// DenyPolicy is for whoever owns the role to attach to it, as JSON. Serval
	// never does: nobody wants a tool that may write policies everywhere.
	DenyPolicy string
}

// maxLive is how many live sessions are listed. They have one name, so that the
// newest of them are enough to cut off all.
const maxLive = 1000

// Live returns what is live under a request that who may see.
func (p *Plane) Live(ctx context.Context, who serval.Principal, requestID string) (live Live, err error) {
	err = p.view(ctx, who, serval.SessionRead, requestID, func(v *store.View) error {
		if _, err := visible(v, who, requestID); err != nil {
			return err
		}
		live.Sessions, err = v.LiveSessions(requestID, p.now(), maxLive)
		return err
	})
	live.DenyPolicy = connect.DenyPolicy(live.Sessions)
	return live, err
}
