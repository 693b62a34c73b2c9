// Package wallet holds the AWS credentials of one person on one machine.
//
// Credentials come from what was kept, as long as they are fresh; then without
// a word to anybody. Otherwise the bridge is asked, by one process at a time for
// each role: whoever waited meanwhile takes what the first one got. What was kept
// is never handed out past its end, and not at all once the bridge has said that
// the access is over. While the bridge is away, or nobody is signed in, what was
// kept serves until its end, and a note says so.
package wallet

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/keep"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// A Bridge is what a wallet asks of it.
type Bridge interface {
	Role(ctx context.Context, accountID, name string) (wire.Role, error)
	Request(ctx context.Context, id string) (wire.Request, error)
	Ask(ctx context.Context, ask wire.NewRequest) ([]wire.Request, error)
	Open(ctx context.Context, s wire.NewSession) (wire.Credentials, error)
	// Skew returns how far the bridge's clock is ahead of this machine's.
	Skew() time.Duration
}

const (
	// margin is how long before their end credentials are fresh no more.
	margin = 3 * time.Minute
	// gain is how much longer new credentials have to last to be worth a session.
	gain = time.Minute
	// maxSkew is from when on a wrong clock is told of.
	maxSkew = 2 * time.Minute
)

// A Wallet holds credentials of one bridge's.
type Wallet struct {
	Origin string     // the bridge's
	Keep   *keep.Keep // nil where nothing can be kept: then each call is a session
	Now    func() time.Time
	// With calls f with the bridge as somebody who is signed in. What f returns is
	// returned; it is called again where that was for want of a login and there
	// is another one now.
	With func(ctx context.Context, f func(Bridge) error) error
}

// An Ask says what credentials are wanted for.
type Ask struct {
	Role   serval.RoleARN
	Narrow wire.Narrow
	// Request asks for the access where there is none and a policy approves it
	// without asking anybody, with this Reason.
	Request bool
	Reason  string
}

// A Held is what a wallet hands out.
type Held struct {
	wire.Credentials
	RequestID string
	Kept      bool     // it was there
	Notes     []string // what the person should know
}

// An entry is what is kept.
type entry struct {
	Credentials wire.Credentials `json:"credentials"`
	RequestID   string           `json:"request_id"`
	OpenedAt    time.Time        `json:"opened_at"`
	// Ahead is how far the bridge's clock was ahead. That it was behind is left
	// out: a clock that is set right must not make credentials last longer.
	Ahead time.Duration `json:"ahead"`
}

// lasts reports whether the credentials still work at now. A clock that was set
// back says nothing of them.
func (e entry) lasts(now time.Time) bool {
	return !now.Before(e.OpenedAt.Add(-time.Minute)) && now.Add(e.Ahead).Before(e.Credentials.Expiration.Time)
}

// fresh reports whether they need not be asked for again.
func (e entry) fresh(now time.Time) bool {
	until := e.Credentials.Expiration.Add(-margin)
	if renew := e.Credentials.RenewAt; !renew.IsZero() && renew.Before(until) {
		until = renew.Time
	}
	return e.lasts(now) && now.Add(e.Ahead).Before(until)
}

func (e entry) held(notes ...string) Held {
	return Held{Credentials: e.Credentials, RequestID: e.RequestID, Kept: true, Notes: notes}
}

// A NoAccess says that the person has no access to the role now, and what to do.
type NoAccess struct{ Reason string }

// Error returns the reason.
func (n *NoAccess) Error() string { return n.Reason }

// name is what the credentials are kept under.
func (w *Wallet) name(a Ask) keep.Name {
	return keep.Name{Of: w.of(a.Role), Which: fmt.Sprintf("%t %t %s", a.Narrow.ReadOnly, a.Narrow.NoChaining, a.Narrow.Network)}
}

func (w *Wallet) of(role serval.RoleARN) string {
	return "credentials " + w.Origin + " " + role.String()
}

// Drop removes what is kept of a role.
func (w *Wallet) Drop(role serval.RoleARN) error {
	if w.Keep == nil {
		return nil
	}
	return w.Keep.RemoveAll(w.of(role))
}

// kept returns what is kept under name.
func (w *Wallet) kept(name keep.Name) (e entry, ok bool, err error) {
	if w.Keep == nil {
		return entry{}, false, nil
	}
	ok, err = w.Keep.Read(name, &e)
	return e, ok && e.lasts(w.Now()), err
}

// Fresh returns what was kept, where it is fresh.
func (w *Wallet) Fresh(a Ask) (Held, bool) {
	e, ok, err := w.kept(w.name(a))
	if err != nil || !ok || !e.fresh(w.Now()) {
		return Held{}, false
	}
	return e.held(), true
}

// Credentials returns credentials of the role. That there is no access now is a
// *NoAccess; what AWS or the bridge refused is the bridge's refusal.
func (w *Wallet) Credentials(ctx context.Context, a Ask) (Held, error) {
	began, name := w.Now(), w.name(a)
	if held, ok := w.Fresh(a); ok {
		return held, nil
	}
	var notes []string
	if w.Keep != nil {
		unlock, err := w.Keep.Lock(ctx, name)
		if err != nil {
			return Held{}, err
		}
		defer unlock()
	}
	old, ok, err := w.kept(name)
	if err != nil {
		notes = append(notes, err.Error())
	}
	if ok && (old.fresh(w.Now()) || !old.OpenedAt.Before(began)) {
		return old.held(), nil
	}
	var held Held
	err = w.With(ctx, func(b Bridge) error {
		if ok {
			enough, err := w.enough(ctx, b, old)
			if enough || err != nil {
				held = old.held()
				return err
			}
		}
		var err error
		held, err = w.open(ctx, b, a, name)
		return err
	})
	switch {
	case err == nil:
		held.Notes = append(notes, held.Notes...)
		return held, nil
	case ok && isPassing(err) && old.lasts(w.Now()):
		left := old.Credentials.Expiration.Sub(w.Now().Add(old.Ahead)).Round(time.Second)
		return old.held(append(notes, fmt.Sprintf("%s What was kept serves for another %s.", err, left))...), nil
	case w.Keep != nil && !isPassing(err):
		if removing := w.Keep.Remove(name); removing != nil {
			return Held{}, errors.Join(err, removing)
		}
	}
	return Held{}, err
}

// isPassing reports whether err says nothing of the access: the bridge or AWS is
// away, or nobody is signed in.
func isPassing(err error) bool {
	_, none := errors.AsType[*NoAccess](err)
	return !none && (!serval.IsRefusal(err) ||
		serval.IsRefusal(err, serval.Unavailable, serval.Exhausted, serval.Unauthenticated, serval.LoginRequired))
}

// enough reports whether new credentials would last no longer than the old ones,
// because the access ends with them and runs on until then.
func (w *Wallet) enough(ctx context.Context, b Bridge, e entry) (bool, error) {
	if !e.Credentials.RenewAt.IsZero() {
		return false, nil // asking for the next lease asks it all
	}
	r, err := b.Request(ctx, e.RequestID)
	if serval.IsRefusal(err, serval.NotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return r.Status == string(serval.StatusApproved) && r.Suspended == "" &&
		!r.EndsAt.IsZero() && r.EndsAt.Sub(e.Credentials.Expiration.Time) < gain, nil
}

// open has the bridge open a session, and keeps it.
func (w *Wallet) open(ctx context.Context, b Bridge, a Ask, name keep.Name) (Held, error) {
	r, err := w.access(ctx, b, a)
	if err != nil {
		return Held{}, err
	}
	ask := wire.NewSession{RequestID: r.ID}
	if a.Narrow != (wire.Narrow{}) {
		ask.Narrow = &a.Narrow
	}
	credentials, err := b.Open(ctx, ask)
	if err != nil {
		return Held{}, noAccess(err)
	}
	held := Held{Credentials: credentials, RequestID: r.ID}
	if credentials.Note != "" {
		held.Notes = append(held.Notes, credentials.Note)
	}
	skew := b.Skew()
	if skew.Abs() >= maxSkew {
		word := "behind"
		if skew < 0 {
			word = "ahead of"
		}
		held.Notes = append(held.Notes, fmt.Sprintf("The clock of this machine is %s %s the bridge's. Set it: AWS refuses what is signed minutes off.", skew.Abs().Round(time.Minute), word))
	}
	if w.Keep == nil {
		return held, nil
	}
	e := entry{Credentials: credentials, RequestID: r.ID, OpenedAt: w.Now(), Ahead: max(0, skew)}
	if err := w.Keep.Write(name, e, credentials.Expiration.Add(-e.Ahead)); err != nil {
		held.Notes = append(held.Notes, err.Error()) // the session is open all the same
	}
	return held, nil
}

// noAccess returns a refusal of the bridge's as NoAccess, unless it is of AWS, of
// the login, or will pass.
func noAccess(err error) error {
	refused, ok := errors.AsType[*serval.Refusal](err)
	if ok && refused.Detail["code"] == "" && serval.IsRefusal(err, serval.Conflict, serval.Denied, serval.NotFound, serval.FailedPrecondition) {
		return &NoAccess{refused.Reason}
	}
	return err
}

// Access returns the person's request for the role, under which a session can be
// opened now.
func (w *Wallet) Access(ctx context.Context, a Ask) (r wire.Request, err error) {
	err = w.With(ctx, func(b Bridge) error {
		r, err = w.access(ctx, b, a)
		return err
	})
	return r, err
}

func (w *Wallet) access(ctx context.Context, b Bridge, a Ask) (wire.Request, error) {
	role, err := b.Role(ctx, a.Role.AccountID, a.Role.Name)
	if err != nil {
		return wire.Request{}, err
	}
	if role.ARN != a.Role.String() {
		return wire.Request{}, serval.Refuse(serval.NotFound, "There is no role %s, or not for you. There is %s.", a.Role, role.ARN)
	}
	r := role.MyRequest
	switch {
	case r == nil && a.Request:
		return w.request(ctx, b, a, role)
	case r == nil:
		return wire.Request{}, &NoAccess{fmt.Sprintf("You have no access to %s now. Ask for it: %s", a.Role, advice(a.Role, role))}
	case r.Status == string(serval.StatusPending):
		return wire.Request{}, &NoAccess{fmt.Sprintf("Your request for %s waits for approval by %s (serval requests).", a.Role, Approvers(*r))}
	case r.Suspended != "":
		return wire.Request{}, &NoAccess{r.Suspended}
	}
	return *r, nil
}

// request asks for the access, where nobody has to be asked.
func (w *Wallet) request(ctx context.Context, b Bridge, a Ask, role wire.Role) (wire.Request, error) {
	switch {
	case !role.Approval.Automatic:
		return wire.Request{}, &NoAccess{fmt.Sprintf("You have no access to %s now, and it is not approved automatically. Ask for it: %s", a.Role, advice(a.Role, role))}
	case role.RequireJustification && a.Reason == "":
		return wire.Request{}, &NoAccess{fmt.Sprintf("You have no access to %s now, and a request has to give a reason. Ask for it: %s", a.Role, advice(a.Role, role))}
	}
	made, err := b.Ask(ctx, wire.NewRequest{RoleARN: role.ARN, Minutes: Minutes(role), Justification: a.Reason})
	if err != nil {
		return wire.Request{}, noAccess(err)
	}
	if len(made) != 1 || made[0].Status != string(serval.StatusApproved) {
		return wire.Request{}, &NoAccess{fmt.Sprintf("Your request for %s was made, and waits for approval (serval requests).", a.Role)}
	}
	return made[0], nil
}

// advice is the command that asks for a role.
func advice(arn serval.RoleARN, role wire.Role) string {
	text := fmt.Sprintf("serval request %s --for %s", arn.Word(), typed(Minutes(role)))
	if role.RequireJustification {
		text += ` --reason "…"`
	}
	return text
}

// typed returns minutes as one types them: 1h30m.
func typed(minutes int) string {
	return strings.NewReplacer(" ", "", "min", "m").Replace(serval.Length(minutes))
}

// Minutes returns how long to ask for where nobody has said.
func Minutes(role wire.Role) int {
	if role.RecommendedMinutes > 0 {
		return role.RecommendedMinutes
	}
	return min(60, role.MaxMinutes)
}

// Approvers says who can take the open step of a request.
func Approvers(r wire.Request) string {
	for _, step := range r.Steps {
		if step.Outcome != nil {
			continue
		}
		if who := append(step.Approvers.Groups, step.Approvers.Emails...); len(who) > 0 {
			return strings.Join(who, " or ")
		}
	}
	return "an approver"
}
