package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// An Opening is what a person asks a session for.
type Opening struct {
	RequestID string
	Kind      serval.SessionKind

	// What the session may not do although the role may.
	ReadOnly   bool
	NoChaining bool
	Network    string // name of a configured network; empty: from anywhere
}

// An Opened is a session with its credentials: the one time that they are seen.
type Opened struct {
	Session     serval.Session
	Credentials serval.Minted
	Note        string // what the person should know; empty for nothing
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
// the outcome cannot be recorded they are not.
func (p *Plane) Open(ctx context.Context, who serval.Principal, ask Opening) (Opened, error) {
	var i intent
	for begun := p.now(); ; {
		err := p.act(ctx, who, serval.SessionOpen, ask.RequestID, func(tx *store.Tx, e *serval.Event) (err error) {
			if i, err = p.intend(tx, who, ask, begun); err != nil {
				return err
			}
			if i.stale {
				e.Action = ""
				return nil
			}
			e.Outcome, e.Detail = serval.OutcomeStarted, i.detail()
			return tx.SaveSession(i.session)
		})
		if err == nil && i.stale {
			err = p.refresh(ctx, who, begun)
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
			return Opened{}, p.fail(ctx, who, i, err)
		}
		session, end, err := p.issue(ctx, who, i, minted)
		if err != nil {
			return Opened{}, err
		}
		if end.Before(i.end) {
			i.discarded = append(i.discarded, minted.AccessKeyID)
			if try == mintTries {
				return Opened{}, p.fail(ctx, who, i, serval.Refuse(serval.Unavailable, "The clocks of AWS and of this server are apart, so the session's end could not be set. Try again."))
			}
			i.end = end
			i.limitChaining(end.Sub(p.now()))
			continue
		}
		if err := p.recheck(ctx, who, session); err != nil {
			return Opened{}, err
		}
		return Opened{Session: session, Credentials: minted, Note: note}, nil
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
	token   serval.Secret
	end     time.Time // of the session policy
	policy  serval.SessionPolicy
	terms   serval.Terms
	email   string
	subject string
	clamped bool
	network string

	mayChain  bool     // whatever is left: the access policy says so
	discarded []string // access key ids whose end lay too late; nobody has the keys
}

// limitChaining keeps a session that ends soon from chaining: a chained one
// could last an hour, whatever is left here.
func (i *intent) limitChaining(remains time.Duration) {
	if remains < serval.MinSessionSeconds*time.Second && !i.mayChain {
		i.policy.NoChaining = true
	}
}

func (i intent) mint() serval.Mint {
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
	if len(i.discarded) > 0 {
		d["discarded_access_key_ids"] = strings.Join(i.discarded, " ")
	}
	return d
}

// intend checks all that has to hold for a session now, and returns what to do
// about an opening that began at begun.
func (p *Plane) intend(tx *store.Tx, who serval.Principal, ask Opening, begun time.Time) (intent, error) {
	r, role, policy, err := p.mintable(&tx.View, who, ask.RequestID, tx.Now)
	if err != nil {
		return intent{}, err
	}
	if n, err := tx.CountSessions(who.Person.ID, tx.Now.Add(-time.Minute)); err != nil {
		return intent{}, err
	} else if n >= p.settings.MintRate {
		return intent{}, &serval.Refusal{Kind: serval.Exhausted,
			Reason: fmt.Sprintf("You opened %d sessions within a minute. Wait a moment.", n), Detail: map[string]string{"retry_after": "60"}}
	}
	l, err := signedIn(&tx.View, who, tx.Now)
	if err != nil {
		return intent{}, err
	}
	if p.isStale(l.IDToken, begun) {
		return intent{stale: true}, nil
	}
	if l.IDToken.Sealed == "" || l.IDToken.EndsAt.Sub(tx.Now) <= tokenMargin {
		return intent{}, serval.Refuse(serval.LoginRequired, "The identity provider's token of your sign-in has ended. Sign in again to open a session.")
	}
	token, err := p.sealer.open(l.IDToken.Sealed, l.IDToken.ID)
	if err != nil {
		p.door.Log.Warn("a sealed ID token does not open", zap.String("login", l.ID), zap.Error(err))
		return intent{}, serval.Refuse(serval.LoginRequired, "Your sign-in is from before the server's secret changed. Sign in again to open a session.")
	}
	limits := serval.SessionPolicy{ReadOnly: ask.ReadOnly, NoChaining: ask.NoChaining}
	if ask.Network != "" {
		networks := p.settings.Networks[ask.Network]
		if len(networks) == 0 { // to be pinned to nothing would be to be free
			return intent{}, serval.Refuse(serval.Invalid, "There is no network called %q; there are: %s.", serval.Cut(ask.Network, 60),
				strings.Join(slices.Sorted(maps.Keys(p.settings.Networks)), ", "))
		}
		limits.Networks = networks
	}
	g, _ := r.Grant() // CheckMint has seen it
	remains := g.Remains(tx.Now)
	i := intent{
		session: serval.Session{
			ID: door.NewID("session"), RequestID: r.ID, PersonID: who.Person.ID, Kind: ask.Kind, State: serval.SessionStarted, Role: r.Role,
			SessionName: serval.SessionName(who.Person.Email), Seconds: serval.SessionLength(remains, role.MaxSessionSeconds, 0), StartedAt: tx.Now,
		},
		token: token, end: g.End(tx.Now), policy: limits, terms: r.Terms, email: who.Person.Email, subject: who.Person.Subject,
		network: ask.Network, mayChain: policy.AllowChaining,
	}
	i.limitChaining(remains)
	return i, nil
}

// mintable returns the request if who may open a session under it at now: it is
// theirs, approved and running or unused; its very role is still there; and the
// policies of today still let them have it. Every way to credentials asks this,
// and nothing else.
func (p *Plane) mintable(v *store.View, who serval.Principal, requestID string, now time.Time) (*serval.Request, store.Role, serval.AccessPolicy, error) {
	refuse := func(err error) (*serval.Request, store.Role, serval.AccessPolicy, error) {
		return nil, store.Role{}, serval.AccessPolicy{}, err
	}
	r, err := v.Request(requestID)
	if serval.IsRefusal(err, serval.NotFound) || err == nil && r.PersonID != who.Person.ID {
		return refuse(noRequest())
	}
	if err != nil {
		return refuse(err)
	}
	// Who they are now, not who they were when the click began.
	person, err := v.Person(who.Person.ID)
	if err != nil {
		return refuse(err)
	}
	if _, err := signedIn(v, who, now); err != nil {
		return refuse(err)
	}
	if err := r.CheckMint(now); err != nil {
		return refuse(err)
	}
	role, policy, err := p.usable(v, r, person)
	if err != nil {
		return refuse(err)
	}
	return r, role, policy, nil
}

// signedIn returns the login that who acts under, if it has not ended.
func signedIn(v *store.View, who serval.Principal, now time.Time) (store.Login, error) {
	l, err := v.Login(who.Person.ID, who.LoginID)
	if err != nil && !serval.IsRefusal(err, serval.NotFound) {
		return store.Login{}, err
	}
	if err != nil || !l.EndedAt.IsZero() || !now.Before(l.ExpiresAt) {
		return store.Login{}, serval.Refuse(serval.LoginRequired, "Your sign-in has ended. Sign in again to open a session.")
	}
	return l, nil
}

// issue records that STS opened the session, and starts the clock with the
// first. It returns when the grant ends: where that is before the session's end
// nothing was recorded, and the session has to be minted again with that end.
// If the access was taken away meanwhile the session is recorded as dropped, and
// refused.
func (p *Plane) issue(ctx context.Context, who serval.Principal, i intent, m serval.Minted) (s serval.Session, end time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, recordTime)
	defer cancel()
	var dropped error
	err = p.act(ctx, who, serval.SessionIssue, i.session.RequestID, func(tx *store.Tx, e *serval.Event) error {
		s, dropped, end = i.session, nil, i.end
		kept, err := tx.Session(s.ID)
		if err != nil {
			return err
		}
		if kept.State != serval.SessionStarted {
			return serval.Refuse(serval.Unavailable, "AWS took too long to answer. Try again.")
		}
		s.AccessKeyID, s.AssumedRoleID, s.Expiration, s.FinishedAt = m.AccessKeyID, m.AssumedRoleID, m.Expiration, tx.Now
		e.Detail = i.detail()
		e.Detail["access_key_id"], e.Detail["assumed_role_id"] = m.AccessKeyID, m.AssumedRoleID
		e.Detail["expiration"] = m.Expiration.UTC().Format(time.RFC3339)
		if i.clamped {
			if err := tx.LowerMaxSession(s.Role, serval.DefaultMaxSessionSeconds); err != nil {
				return err
			}
			e.Detail["clamped"] = "true"
		}

		r, _, _, refused := p.mintable(&tx.View, who, s.RequestID, tx.Now)
		if refused != nil && !serval.IsRefusal(refused) {
			return refused
		}
		if refused != nil {
			dropped = refused
			s.State, s.Error = serval.SessionDropped, door.Reason(refused)
			e.Action, e.Outcome, e.Reason = serval.SessionDrop, serval.OutcomeRefused, s.Error
			return tx.SaveSession(s)
		}
		started := r.StartClock(m.Expiration.Add(-time.Duration(i.session.Seconds) * time.Second))
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
		}
		s.State, s.EndsAt = serval.SessionIssued, i.end
		if s.Expiration.Before(s.EndsAt) {
			s.EndsAt = s.Expiration
		}
		e.Detail["ends_at"] = s.EndsAt.UTC().Format(time.RFC3339)
		return tx.SaveSession(s)
	})
	if err == nil {
		err = dropped
	}
	return s, end, err
}

// recheck looks at the grant once more, after the outcome is recorded and just
// before the credentials leave. Whoever lost them meanwhile does not get them.
func (p *Plane) recheck(ctx context.Context, who serval.Principal, s serval.Session) error {
	ctx, cancel := context.WithTimeout(ctx, recordTime)
	defer cancel()
	var refused error // kept apart: the drop is its record
	err := p.view(ctx, who, serval.SessionRead, s.RequestID, func(v *store.View) error {
		_, _, _, err := p.mintable(v, who, s.RequestID, p.now())
		if serval.IsRefusal(err) {
			refused, err = err, nil
		}
		return err
	})
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
		if r, ok := errors.AsType[*serval.Refusal](cause); ok {
			for name, value := range r.Detail {
				e.Detail["sts_"+name] = value
			}
		}
		if kept, err := tx.Session(s.ID); err != nil || kept.State != serval.SessionStarted {
			return err // it was closed as unknown meanwhile, and stays so
		}
		return tx.SaveSession(s)
	})
	if recorded != nil {
		p.door.Log.Error("a failed mint could not be recorded", zap.String("session", i.session.ID), zap.Error(recorded))
	}
	return cause
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
				return noPage()
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
