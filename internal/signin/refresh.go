package signin

import (
	"cmp"
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// A Refresher trades a refresh token at the identity provider for what it says
// of the same person now. Of was, issuer, subject and auth time are set. It
// refuses as unavailable, or as a failed precondition, where the token was not
// taken and can be tried again; any other refusal says that the provider no
// longer honours it.
type Refresher func(ctx context.Context, token serval.Secret, was Identity) (Identity, error)

// How long one trade may take, and the record of its outcome; and how often
// somebody who waits for another's looks for it.
const (
	refreshTime = 25 * time.Second
	recordTime  = 10 * time.Second
	claimLife   = refreshTime + recordTime + 5*time.Second // longer than the trade and its record take
	refreshPoll = 100 * time.Millisecond
)

// isStale reports whether the ID token has to be traded for a new one before
// something that began at begun may use it: the provider is asked each time, so
// that whoever it has deactivated is cut off.
func (s *Logins) isStale(k store.IDToken, begun time.Time) bool {
	return s.settings.Refresh != nil && k.Refresh != "" && k.RefreshedAt.Before(begun)
}

// Refresh trades the refresh token of who's login for a new ID token that was
// asked for at begun or later. A refresh token that is used twice is taken for
// stolen, so one trade goes on at a time, on all replicas: it is claimed first.
//
// A crash after the claim, or an answer that is lost, leaves a claim that lapses
// and the old refresh token. The next trade tries it again: the provider takes
// it, or has it as used, and then the person signs in again. Nothing is opened
// before the outcome is recorded.
func (s *Logins) Refresh(ctx context.Context, who serval.Principal, begun time.Time) error {
	who.Claim = "" // a trade is not what the key was given for
	ctx, cancel := context.WithTimeout(ctx, refreshTime+claimLife)
	defer cancel()
	for {
		var k store.IDToken
		var stale, claimed bool
		err := s.act(ctx, who, serval.LoginRefresh, who.LoginID, func(tx *store.Tx, e *serval.Event) error {
			e.Action = "" // what comes of it is recorded
			l, err := Current(&tx.View, who, tx.Now)
			if err != nil {
				return err
			}
			k = l.IDToken
			stale, claimed = s.isStale(k, begun), false
			if !stale || tx.Now.Before(k.ClaimedUntil) {
				return nil
			}
			if err := s.failures.check(who.Person.ID, tx.Now, s.settings.MintRate); err != nil {
				return err
			}
			claimed, k.ClaimedUntil = true, tx.Now.Add(claimLife).Truncate(time.Microsecond)
			return tx.SaveIDToken(k)
		})
		switch {
		case err != nil || !stale:
			return err
		case claimed:
			return s.trade(ctx, who, k)
		}
		select {
		case <-time.After(refreshPoll):
		case <-ctx.Done():
			return serval.Refuse(serval.Unavailable, "The identity provider took too long to say whether you are still you. Try again.")
		}
	}
}

// trade trades the claimed refresh token, and records what came of it, also where
// the login has ended meanwhile: another may stand on the same token, and would
// bring a used one.
func (s *Logins) trade(ctx context.Context, who serval.Principal, k store.IDToken) error {
	// The caller may go away; a token that was traded has to be kept all the same.
	ctx = context.WithoutCancel(ctx)
	id, failed := s.askAgain(ctx, who, k)
	if failed != nil {
		s.failures.note(who.Person.ID, s.now())
	}
	ctx, cancel := context.WithTimeout(ctx, recordTime)
	defer cancel()
	err := s.act(ctx, who, serval.LoginRefresh, who.LoginID, func(tx *store.Tx, e *serval.Event) error {
		l, err := tx.LoginByID(who.LoginID)
		if err != nil {
			return err
		}
		if l.IDToken.Refresh != k.Refresh || !l.IDToken.ClaimedUntil.Equal(k.ClaimedUntil) {
			if _, err := Current(&tx.View, who, tx.Now); err != nil {
				return err // nothing is kept for who has signed out
			}
			return serval.Refuse(serval.Unavailable, "The identity provider took too long to say whether you are still you. Try again.")
		}
		if failed != nil {
			kept := l.IDToken
			kept.ClaimedUntil = time.Time{}
			e.Outcome, e.Reason = serval.OutcomeFailed, door.Reason(failed)
			if r, ok := errors.AsType[*serval.Refusal](failed); ok {
				e.Detail = r.Detail
				if r.Kind != serval.Unavailable && r.Kind != serval.FailedPrecondition {
					// Whom the provider does not know any more has no ID token here either.
					kept.Sealed, kept.Refresh = "", ""
					e.Outcome = serval.OutcomeRefused
				}
			}
			return tx.SaveIDToken(kept)
		}
		known, err := s.recogniseIdentity(tx, id)
		if err != nil {
			return err
		}
		e.Detail = identityDetail(id, known)
		fresh := s.sealed(k.ID, id, k.ClaimedUntil.Add(-claimLife))
		if id.RefreshToken.Empty() {
			fresh.Refresh = k.Refresh // it is not rotated
		}
		return tx.SaveIDToken(fresh)
	})
	return cmp.Or(failed, err)
}

// failures are the trades that failed, by person, within one minute: nobody has
// the provider asked more often than they may open sessions. Each replica counts
// its own.
type failures struct {
	mu     sync.Mutex
	minute int64
	of     map[string]int
}

func (f *failures) note(person string, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m := now.Unix() / 60; m != f.minute || f.of == nil {
		f.minute, f.of = m, map[string]int{}
	}
	f.of[person]++
}

// check refuses whoever had most of them.
func (f *failures) check(person string, now time.Time, most int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.minute != now.Unix()/60 || f.of[person] < most {
		return nil
	}
	return &serval.Refusal{Kind: serval.Exhausted, Detail: map[string]string{"retry_after": strconv.FormatInt(60-now.Unix()%60, 10)},
		Reason: "The identity provider was asked for you too often within a minute. Wait a moment."}
}

// askAgain asks the identity provider who it is, by the refresh token.
func (s *Logins) askAgain(ctx context.Context, who serval.Principal, k store.IDToken) (Identity, error) {
	again := serval.Refuse(serval.LoginRequired, "The identity provider wants you to sign in again.")
	token, err := s.sealer.Load().open(k.Refresh, k.ID+refreshRow)
	if err != nil {
		s.door.Log.Warn("a sealed refresh token does not open", zap.String("login", who.LoginID), zap.Error(err))
		return Identity{}, again
	}
	ctx, cancel := context.WithTimeout(ctx, refreshTime)
	defer cancel()
	id, err := s.settings.Refresh(ctx, token, Identity{Issuer: who.Person.Issuer, Subject: who.Person.Subject, AuthTime: k.AuthTime})
	if err != nil {
		return Identity{}, err
	}
	if id.Issuer != who.Person.Issuer || id.Subject != who.Person.Subject {
		return Identity{}, again
	}
	return id, nil
}
