package control

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// How long a way into the console may take to be made, with all tries.
const signInTime = 12 * time.Second

// signIn makes the way into the console of a session that was just issued, and
// records that it did. Where it cannot be made, or that cannot be recorded, the
// session is dropped: nobody has its keys. It returns what was seen before, which
// knows of that record where it is the only one since.
func (p *Plane) signIn(ctx context.Context, who serval.Principal, s serval.Session, m serval.Minted, page serval.ConsolePage, before mintable) (
	link serval.Secret, seen mintable, err error) {
	asking, cancel := context.WithTimeout(ctx, signInTime)
	defer cancel()
	link, cause := p.minter.SignIn(asking, s.Role.Partition, m, page)

	recording, cancel := context.WithTimeout(ctx, recordTime)
	defer cancel()
	err = p.act(recording, who, serval.SessionSignIn, s.RequestID, func(tx *store.Tx, e *serval.Event) error {
		seen, seen.behind = before, store.Look{}
		e.Detail = map[string]string{
			"session_id": s.ID, "access_key_id": s.AccessKeyID, "assumed_role_id": s.AssumedRoleID, "role_arn": s.Role.ARN,
		}
		if page.Service != "" {
			e.Detail["service"] = page.Service
		}
		if page.Region != "" {
			e.Detail["region"] = page.Region
		}
		if cause == nil {
			same, err := tx.EndsWith(seen.asOf)
			if err == nil && same {
				seen.behind = tx.LookBehind()
				err = seen.keep(tx, e)
			}
			return err
		}
		dropped := s
		dropped.State, dropped.Error, dropped.FinishedAt = serval.SessionDropped, door.Reason(cause), tx.Now
		e.Outcome, e.Reason = serval.OutcomeFailed, dropped.Error
		for name, value := range facts(cause) {
			e.Detail["signin_"+name] = value
		}
		return tx.SaveSession(dropped)
	}, func(tx *store.Tx) { tx.DecidedAt(before.asOf) })
	if cause != nil {
		if err != nil {
			p.door.Log.Error("a failed console sign-in could not be recorded", zap.String("session", s.ID), zap.Error(err))
		}
		return serval.Secret{}, before, cause
	}
	if err != nil {
		return serval.Secret{}, before, err
	}
	return link, seen, nil
}

// How long a way to the console that a client made can be used, and how many of
// one person's may wait.
const (
	linkLife = time.Minute
	maxLinks = 20
)

// LinkConsole makes a way to the console for a client that has no browser: a
// code that who's own browser, signed in as the same person, brings to OpenLinked,
// once and within a minute. It opens nothing yet; what would refuse the session
// refuses the link as well.
func (p *Plane) LinkConsole(ctx context.Context, who serval.Principal, ask Opening) (code serval.Secret, endsAt time.Time, err error) {
	ask.Kind = serval.ForConsole
	err = p.act(ctx, who, serval.SessionLink, ask.RequestID, func(tx *store.Tx, e *serval.Event) error {
		m, err := p.mintable(&tx.View, who, ask.RequestID, tx.Now)
		if err != nil {
			return err
		}
		if err := p.shape(&intent{}, m, ask, tx.Now); err != nil {
			return err
		}
		if n, err := tx.CountConsoleLinks(who.Person.ID, tx.Now); err != nil {
			return err
		} else if n >= maxLinks {
			return &serval.Refusal{Kind: serval.Exhausted, Reason: fmt.Sprintf("%d ways to the console wait to be used. Wait a minute.", n),
				Detail: map[string]string{"retry_after": "60"}}
		}
		asked, err := json.Marshal(ask)
		if err != nil {
			return fmt.Errorf("keeping what a console link is of: %w", err)
		}
		code, endsAt = door.NewToken(), tx.Now.Add(linkLife)
		return tx.KeepConsoleLink(store.ConsoleLink{
			Code: code.Digest(), PersonID: who.Person.ID, RequestID: m.request.ID, Asked: string(asked), ExpiresAt: endsAt,
		})
	})
	if err != nil {
		return serval.Secret{}, time.Time{}, err
	}
	return code, endsAt, nil
}

// OpenLinked opens the console session that LinkConsole made the code for, under
// the login of who's browser. The code is used up in the transaction that records
// the intent: where that is refused, as for an ID token that has ended, it can be
// brought again within its minute. Another person's code is no code.
func (p *Plane) OpenLinked(ctx context.Context, who serval.Principal, code serval.Secret) (Opened, error) {
	return p.open(ctx, who, "", func(tx *store.Tx) (ask Opening, err error) {
		l, err := tx.ConsoleLink(code.Digest(), who.Person.ID, tx.Now)
		if err != nil {
			return Opening{}, err
		}
		if err := json.Unmarshal([]byte(l.Asked), &ask); err != nil {
			return Opening{}, fmt.Errorf("reading what a console link is of: %w", err)
		}
		return ask, nil
	}, func(tx *store.Tx) error { return tx.TakeConsoleLink(code.Digest(), who.Person.ID) })
}
