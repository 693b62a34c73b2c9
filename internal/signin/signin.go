// Package signin is who comes to the control plane: sign-ins on their way through
// the identity provider, the logins of browsers and of clients that come of them,
// and the ID tokens that logins stand on. It stands beside control, behind the
// same door.
//
// An Attempt leaves for the provider and comes back once. Whom it brings is an
// Identity, and whom that is known as a person; a login is theirs until it ends.
// The ID token of a login rests sealed and never leaves but by Logins.IDToken, for
// the one call that a session is opened with. A client on a laptop is let in by
// somebody who is signed in, and gets a login of its own. Whose email or subject
// changed is suspended until an admin has said, by Logins.Relink, who that is.
package signin

import (
	"context"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// Settings are what Logins work by.
type Settings struct {
	Secret       serval.Secret   // root secret; sealing is derived from it
	OlderSecrets []serval.Secret // what was sealed under these still opens

	// Refresh is asked before each session whose sign-in has a refresh token; nil
	// asks nobody, and sessions are opened until the ID token has ended.
	Refresh Refresher
	// MintRate is how many sessions a person may open in a minute; so often may
	// Refresh fail for them. 0: 60.
	MintRate int
}

// Logins are the logins behind a door. It is safe for concurrent use.
type Logins struct {
	door     *door.Door
	settings Settings
	sealer   atomic.Pointer[sealer]

	appointed atomic.Pointer[appointed]

	failures  failures
	awsClaims atomic.Pointer[string] // of the last sign-in

	mostDevices int
}

// appointed are whom the configuration gives a standing.
type appointed struct{ admins, auditors serval.People }

// New returns the logins behind d. Until Appoint nobody is an admin or an auditor.
func New(d *door.Door, settings Settings) *Logins {
	if settings.MintRate == 0 {
		settings.MintRate = 60
	}
	s := &Logins{door: d, settings: settings, mostDevices: maxDevices}
	s.Rekey(settings.Secret, settings.OlderSecrets...)
	s.appointed.Store(&appointed{})
	return s
}

// Rekey has what waits in the database be sealed under another root secret from
// now on. What was sealed under an older one opens as long as it is given here.
func (s *Logins) Rekey(root serval.Secret, older ...serval.Secret) {
	s.sealer.Store(newSealer(root, older))
}

// Appoint makes these the admins and auditors as whom people are recognised from
// now on. The control plane, which records whom the configuration names, calls it.
func (s *Logins) Appoint(admins, auditors serval.People) {
	s.appointed.Store(&appointed{admins, auditors})
}

// Wipe drops the ID tokens that no login stands on any more: of those that have
// ended, and of browsers that are idle.
func (s *Logins) Wipe(ctx context.Context) error {
	now := s.now()
	return s.door.Store.WipeTokens(ctx, now, now.Add(-loginIdle))
}

// act runs f as who and records what happened: both, or neither. See door.Act.
func (s *Logins) act(ctx context.Context, who serval.Principal, what serval.Action, target string,
	f func(tx *store.Tx, e *serval.Event) error) error {
	return s.door.Act(ctx, who, what, target, f)
}

// view runs f as who without writing. See door.View.
func (s *Logins) view(ctx context.Context, who serval.Principal, what serval.Action, target string,
	f func(v *store.View) error) error {
	return s.door.View(ctx, who, what, target, f)
}

func (s *Logins) now() time.Time { return s.door.Now() }

// Current returns the login that who acts under, if it has not ended. It is read
// in the transaction of whatever may only be done while it lasts.
func Current(v *store.View, who serval.Principal, now time.Time) (store.Login, error) {
	l, err := v.Login(who.Person.ID, who.LoginID)
	if err != nil && !serval.IsRefusal(err, serval.NotFound) {
		return store.Login{}, err
	}
	return l, CheckLogin(l, now) // none has ended
}

// CheckLogin refuses a login that has ended by now.
func CheckLogin(l store.Login, now time.Time) error {
	if !l.EndedAt.IsZero() || !now.Before(l.ExpiresAt) {
		return serval.Refuse(serval.LoginRequired, "Your sign-in has ended. Sign in again to open a session.")
	}
	return nil
}

// IDToken returns the ID token of a login, as it is in the transaction of something
// that began at begun. Where the provider has to be asked first it reports stale
// and returns none: Refresh, outside of the transaction, and look again. A token
// that has a minute left or less is refused.
func (s *Logins) IDToken(l store.Login, begun, now time.Time) (token serval.Secret, stale bool, err error) {
	if s.isStale(l.IDToken, begun) {
		return serval.Secret{}, true, nil
	}
	if l.IDToken.Sealed == "" || l.IDToken.EndsAt.Sub(now) <= tokenMargin {
		return serval.Secret{}, false, serval.Refuse(serval.LoginRequired, "The identity provider's token of your sign-in has ended. Sign in again to open a session.")
	}
	token, err = s.sealer.Load().open(l.IDToken.Sealed, l.IDToken.ID)
	if err != nil {
		s.door.Log.Warn("a sealed ID token does not open", zap.String("login", l.ID), zap.Error(err))
		return serval.Secret{}, false, serval.Refuse(serval.LoginRequired, "Your sign-in is from before the server's secret changed. Sign in again to open a session.")
	}
	return token, false, nil
}
