package signin

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// How a client on a laptop signs in.
const (
	clientLife = 8 * time.Hour    // of its login
	codeLife   = 60 * time.Second // from the consent to the token
	deviceLife = 5 * time.Minute  // from a device's start to its token
	devicePoll = 5 * time.Second  // between two polls, and how much longer after one too soon

	maxDevices     = 1000 // under way at a time, unless tests reach it sooner,
	maxDevicesHere = 50   // and from one network
	maxApproved    = 50   // clients that one login lets in and that have not come
)

// ApproveClient lets a client in under who's name: whoever brings the code and
// the verifier of ask's challenge within a minute gets a login of its own, once.
// It stands on the same ID token as who's login.
func (s *Logins) ApproveClient(ctx context.Context, who serval.Principal, ask serval.ClientAsk) (code serval.Secret, err error) {
	code = door.NewToken()
	err = s.act(ctx, who, serval.ClientApprove, who.LoginID, func(tx *store.Tx, e *serval.Event) error {
		if err := ask.Check(); err != nil {
			return err
		}
		if _, err := Current(&tx.View, who, tx.Now); err != nil {
			return err
		}
		if n, err := tx.CountApproved(who.LoginID, tx.Now); err != nil {
			return err
		} else if n >= maxApproved {
			return tooManyClients()
		}
		e.Detail = map[string]string{"client": ask.Name, "host": ask.Host, "redirect_uri": ask.RedirectURI}
		return tx.SaveClientAttempt(store.ClientAttempt{
			Code: code.Digest(), Challenge: ask.Challenge, RedirectURI: ask.RedirectURI, Name: ask.Name, Host: ask.Host,
			Address: serval.NetworkOf(who.Address), Outcome: store.ClientApproved, LoginID: who.LoginID,
			CreatedAt: tx.Now, ExpiresAt: tx.Now.Add(codeLife),
		})
	})
	if err != nil {
		return serval.Secret{}, err
	}
	return code, nil
}

// DenyClient records that who lets a client not in.
func (s *Logins) DenyClient(ctx context.Context, who serval.Principal, ask serval.ClientAsk) error {
	return s.act(ctx, who, serval.ClientDeny, who.LoginID, func(_ *store.Tx, e *serval.Event) error {
		e.Detail = map[string]string{"client": ask.Name, "host": ask.Host, "redirect_uri": ask.RedirectURI}
		return ask.Check()
	})
}

// roomForDevice refuses one more device where too many of its network are under
// way. Where the house is full the oldest that waits goes, of the sites that have the
// most: strangers push out their own, from however many networks of theirs, and
// nobody who is signed in.
func (s *Logins) roomForDevice(tx *store.Tx, who serval.Principal) error {
	all, here, err := tx.CountDevices(serval.NetworkOf(who.Address), tx.Now)
	if err == nil && here >= maxDevicesHere {
		err = tooManyClients()
	}
	if err != nil || all < s.mostDevices {
		return err
	}
	waiting, err := tx.WaitingDevices(tx.Now)
	if err != nil {
		return err
	}
	if len(waiting) == 0 {
		return tooManyClients()
	}
	of, most := map[string]int{}, 0
	for _, a := range waiting {
		site := serval.SiteOf(a.StartedFrom)
		of[site]++
		most = max(most, of[site])
	}
	oldest := slices.IndexFunc(waiting, func(a store.ClientAttempt) bool { return of[serval.SiteOf(a.StartedFrom)] == most })
	_, err = tx.TakeClientAttempt(waiting[oldest].Code)
	return err
}

func tooManyClients() error {
	return &serval.Refusal{Kind: serval.Exhausted, Reason: "Too many clients are signing in right now. Try again in a few minutes.",
		Detail: map[string]string{"retry_after": "60"}}
}

// noClient is the answer to a code that is not there, and to one that is not
// this client's.
func noClient() error {
	return &serval.Refusal{Kind: serval.NotFound, Reason: "This sign-in of a client was already used, has expired, or was never begun. Start again.",
		Detail: map[string]string{"error": "invalid_grant"}}
}

// SignInClient gives a client that was let in its login, once. What it brings
// must be what it was let in with; with anything else nothing is taken.
func (s *Logins) SignInClient(ctx context.Context, who serval.Principal, code, verifier serval.Secret, redirectURI string) (SignedIn, error) {
	in := SignedIn{Token: door.NewToken(), LoginID: door.NewID("login")}
	err := s.act(ctx, who, serval.LoginCreate, in.LoginID, func(tx *store.Tx, e *serval.Event) error {
		a, err := tx.TakeClientAttempt(code.Digest())
		if serval.IsRefusal(err) || err == nil && (a.Challenge != serval.Challenge(verifier) || a.RedirectURI != redirectURI ||
			a.Outcome != store.ClientApproved) {
			return noClient()
		}
		if err != nil {
			return err
		}
		by, err := tx.LoginByID(a.LoginID)
		if serval.IsRefusal(err) || err == nil && (!by.EndedAt.IsZero() || !tx.Now.Before(by.ExpiresAt)) {
			return noClient() // whoever let it in has signed out
		}
		if err != nil {
			return err
		}
		if in.Person, err = tx.Person(by.PersonID); err != nil {
			return err
		}
		in.EndsAt = tx.Now.Add(clientLife)
		e.ActorKind, e.ActorID, e.Actor = serval.KindPerson, in.Person.ID, in.Person.Email
		e.Detail = map[string]string{"kind": store.ClientLogin, "client": a.Name, "host": a.Host, "approved_by_login": by.ID}
		return tx.CreateLogin(store.Login{
			ID: in.LoginID, Token: in.Token.Digest(), PersonID: by.PersonID, Kind: store.ClientLogin,
			CreatedAt: tx.Now, SeenAt: tx.Now, ExpiresAt: in.EndsAt, Address: who.Address, Agent: a.Name + " on " + a.Host, IDToken: by.IDToken,
		})
	})
	if err != nil {
		return SignedIn{}, err
	}
	return in, nil
}

// A DeviceStart is what a device shows and keeps: Typed is for the person's
// browser, Code for itself.
type DeviceStart struct {
	Code     serval.Secret
	Typed    string
	EndsAt   time.Time
	Interval time.Duration // between two polls
}

// StartDevice keeps a device that asks to be let in. Somebody who is signed in
// types what it shows within five minutes.
func (s *Logins) StartDevice(ctx context.Context, who serval.Principal, ask serval.ClientAsk) (DeviceStart, error) {
	d := DeviceStart{Code: door.NewToken(), Typed: newTyped(), Interval: devicePoll}
	err := s.act(ctx, who, serval.ClientStart, "", func(tx *store.Tx, e *serval.Event) error {
		e.Action = "" // a stranger may come as often as they like; what matters is who lets them in
		if err := ask.CheckDevice(); err != nil {
			return err
		}
		if err := s.roomForDevice(tx, who); err != nil {
			return err
		}
		d.EndsAt = tx.Now.Add(deviceLife)
		return tx.SaveClientAttempt(store.ClientAttempt{
			Code: d.Code.Digest(), Typed: serval.NewSecret(d.Typed).Digest(), Challenge: ask.Challenge, Name: ask.Name, Host: ask.Host,
			Address: serval.NetworkOf(who.Address), StartedFrom: who.Address, Pause: devicePoll, CreatedAt: tx.Now, ExpiresAt: d.EndsAt,
		})
	})
	if err != nil {
		return DeviceStart{}, err
	}
	return d, nil
}

// newTyped returns what a device shows: some 34 bits, for five minutes.
func newTyped() string {
	typed := make([]byte, 0, TypedLength)
	for len(typed) < TypedLength {
		var b [1]byte
		rand.Read(b[:]) // never fails
		if int(b[0]) < 256/len(typedAlphabet)*len(typedAlphabet) {
			typed = append(typed, typedAlphabet[int(b[0])%len(typedAlphabet)])
		}
	}
	return string(typed)
}

// A Device is a device that waits to be let in, as the person is shown it.
type Device struct {
	Name, Host string // what it says of itself
	Address    string // where it was begun
	StartedAt  time.Time
	Near       bool // it was begun where who is
}

// Device returns the device for which who has typed something.
func (s *Logins) Device(ctx context.Context, who serval.Principal, typed string) (d Device, err error) {
	err = s.view(ctx, who, serval.ClientRead, "", func(v *store.View) error {
		a, err := waitingDevice(v, typed, s.now())
		if err != nil {
			return err
		}
		d = Device{Name: a.Name, Host: a.Host, Address: a.StartedFrom, StartedAt: a.CreatedAt, Near: serval.IsNear(a.StartedFrom, who.Address)}
		return nil
	})
	return d, err
}

// waitingDevice returns the device that was typed for, if nobody has decided.
func waitingDevice(v *store.View, typed string, now time.Time) (store.ClientAttempt, error) {
	refused := serval.Refuse(serval.NotFound, "No device shows this code, or it has expired. Start again on the device.")
	folded := foldTyped(typed)
	if folded == "" {
		return store.ClientAttempt{}, refused
	}
	a, err := v.TypedAttempt(serval.NewSecret(folded).Digest(), now)
	if serval.IsRefusal(err) || err == nil && a.Outcome != "" {
		return store.ClientAttempt{}, refused
	}
	return a, err
}

// ApproveDevice lets a device in under who's name. A device that was begun
// somewhere else is not: who types the code may have been sent it by somebody.
func (s *Logins) ApproveDevice(ctx context.Context, who serval.Principal, typed string) error {
	return s.act(ctx, who, serval.ClientApprove, who.LoginID, func(tx *store.Tx, e *serval.Event) error {
		a, err := waitingDevice(&tx.View, typed, tx.Now)
		if err != nil {
			return err
		}
		e.Detail = deviceDetail(a)
		if !serval.IsNear(a.StartedFrom, who.Address) {
			return &serval.Refusal{Kind: serval.Denied, Detail: e.Detail,
				Reason: fmt.Sprintf("The device is at %s and you are at %s, which is another network. Sign in on a device beside you; if somebody sent you the code, tell an admin.",
					a.StartedFrom, who.Address)}
		}
		if _, err := Current(&tx.View, who, tx.Now); err != nil {
			return err
		}
		a.Outcome, a.LoginID = store.ClientApproved, who.LoginID
		return tx.SaveClientAttempt(a)
	})
}

// DenyDevice tells a device that it is not let in.
func (s *Logins) DenyDevice(ctx context.Context, who serval.Principal, typed string) error {
	return s.act(ctx, who, serval.ClientDeny, who.LoginID, func(tx *store.Tx, e *serval.Event) error {
		a, err := waitingDevice(&tx.View, typed, tx.Now)
		if err != nil {
			return err
		}
		e.Detail = deviceDetail(a)
		a.Outcome = store.ClientDenied
		return tx.SaveClientAttempt(a)
	})
}

func deviceDetail(a store.ClientAttempt) map[string]string {
	return map[string]string{"client": a.Name, "host": a.Host, "device": a.StartedFrom}
}

// PollDevice gives a device its login once somebody has let it in. Until then it
// refuses with Detail["error"] as RFC 8628, section 3.5, has it:
// authorization_pending, slow_down with the new "interval", access_denied, and
// expired_token for whatever is not there, or is another's.
func (s *Logins) PollDevice(ctx context.Context, who serval.Principal, code, verifier serval.Secret) (SignedIn, error) {
	answer := func(kind serval.Kind, word, reason string) error {
		return &serval.Refusal{Kind: kind, Reason: reason, Detail: map[string]string{"error": word}}
	}
	expired := answer(serval.NotFound, "expired_token", "Nobody let this device in within five minutes. Start again.")
	var waits error // kept apart: a device that waits is no event
	err := s.act(ctx, who, serval.ClientStart, "", func(tx *store.Tx, e *serval.Event) error {
		e.Action, waits = "", nil
		a, err := tx.ClientAttempt(code.Digest(), tx.Now)
		if serval.IsRefusal(err) || err == nil && (a.Typed == "" || a.Challenge != serval.Challenge(verifier)) {
			waits = expired
			return nil
		}
		if err != nil {
			return err
		}
		soon := !a.PolledAt.IsZero() && tx.Now.Sub(a.PolledAt) < a.Pause
		switch {
		case a.Outcome == store.ClientDenied:
			waits = answer(serval.Denied, "access_denied", "You did not let this device in.")
			return nil
		case a.Outcome == store.ClientApproved:
			return nil
		case soon:
			a.Pause += devicePoll
			waits = &serval.Refusal{Kind: serval.Exhausted, Reason: "Ask less often.", Detail: map[string]string{
				"error": "slow_down", "interval": fmt.Sprint(a.Pause.Seconds()), "retry_after": fmt.Sprint(a.Pause.Seconds())}}
		default:
			waits = &serval.Refusal{Kind: serval.FailedPrecondition, Reason: "Nobody has let this device in yet.", Detail: map[string]string{
				"error": "authorization_pending", "interval": fmt.Sprint(a.Pause.Seconds())}}
		}
		a.PolledAt = tx.Now
		return tx.SaveClientAttempt(a)
	})
	if err == nil {
		err = waits
	}
	if err != nil {
		return SignedIn{}, err
	}
	in, err := s.SignInClient(ctx, who, code, verifier, "")
	if serval.IsRefusal(err, serval.NotFound) {
		err = expired // another poll was quicker
	}
	return in, err
}
