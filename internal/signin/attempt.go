package signin

import (
	"context"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/lobby"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// How long a sign-in may be under way, and how many are at a time.
const (
	attemptLife = 10 * time.Minute
	maxAttempts = 20_000
	maxHere     = 300 // from one network
)

// An Attempt is what a sign-in needs when it comes back.
type Attempt struct {
	Issuer    string // that it left for
	Nonce     serval.Secret
	Verifier  serval.Secret
	ReturnTo  string // a path of ours
	CreatedAt time.Time

	// Subject is whom a silent sign-in has to bring back: nobody is asked
	// anything on the way, so nobody would see that it is another. Empty for a
	// sign-in that asks.
	Subject string
}

// Begin keeps a sign-in that leaves for the identity provider, to be taken
// once within ten minutes by whoever brings both state and browser. A login
// that is still open under current ends here, on the server: the way to the
// sign-in page is also the way out. The state is kept as its digest.
func (s *Logins) Begin(ctx context.Context, who serval.Principal, state, browser, current serval.Secret, a Attempt) error {
	row, now := state.Digest(), s.now()
	err := s.door.Store.KeepAttempt(ctx, lobby.Attempt{
		State: row, Browser: browser.Digest(),
		// Where it comes back to may hold a client's state, or a way to the console.
		Sealed:  s.sealer.Load().seal(join(a.Nonce, a.Verifier, serval.NewSecret(a.Issuer), serval.NewSecret(a.Subject), serval.NewSecret(a.ReturnTo)), row),
		Network: serval.NetworkOf(who.Address), Site: serval.SiteOf(who.Address), CreatedAt: now, ExpiresAt: now.Add(attemptLife),
	}, lobby.Bound{Here: maxHere, All: maxAttempts})
	if err != nil {
		s.door.Refused(ctx, who, serval.LoginStart, "", err)
		return err
	}
	// A crash here leaves a sign-in that nobody comes back from, and that expires.
	if current.Empty() {
		return nil
	}
	return s.act(ctx, who, serval.LoginStart, "", func(tx *store.Tx, e *serval.Event) error {
		e.Action = "" // whose login ends is told of in an event of its own
		l, err := tx.LoginByToken(current.Digest())
		if serval.IsRefusal(err) {
			return nil
		}
		if err != nil {
			return err
		}
		return endBefore(tx, who, l)
	})
}

// endBefore ends a login whose holder begins to sign in anew, and records it as
// theirs.
func endBefore(tx *store.Tx, who serval.Principal, l store.Login) error {
	ended, err := tx.EndLogin(l.PersonID, l.ID)
	if err != nil || !ended {
		return err
	}
	if who.Person, err = tx.Person(l.PersonID); err != nil {
		return err
	}
	who.Kind = serval.KindPerson
	e := door.Event(who, serval.LoginEnd, l.ID, serval.OutcomeDone)
	e.Reason = "a new sign-in began in the same browser"
	return tx.Append(e)
}
