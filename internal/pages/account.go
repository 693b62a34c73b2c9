package pages

import (
	"net/http"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/shape"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// An accountsView is the admin's page of accounts.
type accountsView struct {
	Accounts       []accountView
	TrustedAccount string
}

type accountView struct {
	wire.Account
	Problems      []serval.Problem
	Unreadable    []serval.Unreadable
	NearMisses    []serval.NearMiss
	SyncRequested bool
	Claimed       wire.Time // until when a worker has it
	State, Tone   string
	Path          string
}

// oldAfter is when an account's last sync is called old: the second in a row is
// missing.
const oldAfter = 9 * time.Hour

// Accounts shows the connected accounts and how their syncs went.
func (p *Pages) Accounts(w http.ResponseWriter, r *http.Request, v *Visit) error {
	connected, _, err := p.c.Plane.Accounts(r.Context(), v.Who, control.AccountFilter{})
	if err != nil {
		return err
	}
	next, err := p.c.Plane.Connecting(r.Context(), v.Who)
	if err != nil {
		return err
	}
	view := accountsView{TrustedAccount: next.TrustedAccount}
	for _, a := range connected {
		one := accountView{
			Account: shape.Account(a, p.c.Now()), Problems: a.Problems, Unreadable: a.Unreadable, NearMisses: a.NearMisses,
			SyncRequested: !a.SyncRequestedAt.IsZero(), Path: edge.Path("/accounts/%s", a.ID),
		}
		if a.ClaimedUntil.After(p.c.Now()) {
			one.Claimed = wire.Time{Time: a.ClaimedUntil}
		}
		switch {
		case a.AcceptedAt.IsZero():
			one.State, one.Tone = "Not read yet", "wait"
		case a.Held > 0:
			one.State, one.Tone = "Removals held", "bad"
		case p.c.Now().Sub(a.StartedAt) > oldAfter:
			one.State, one.Tone = "Old", "bad"
		case !a.Complete:
			one.State, one.Tone = "Incomplete", "wait"
		default:
			one.State, one.Tone = "Complete", "good"
		}
		view.Accounts = append(view.Accounts, one)
	}
	return p.show(w, v, http.StatusOK, "accounts", "Accounts", view)
}

// Sync asks for a sync of an account.
func (p *Pages) Sync(w http.ResponseWriter, r *http.Request, v *Visit) error {
	if err := p.c.Plane.RequestSync(r.Context(), v.Who, r.PathValue("id")); err != nil {
		return err
	}
	return p.redirect(w, "/accounts")
}

// ConfirmRemovals removes the roles whose removal is held.
func (p *Pages) ConfirmRemovals(w http.ResponseWriter, r *http.Request, v *Visit) error {
	if _, err := p.c.Plane.ConfirmRemovals(r.Context(), v.Who, r.PathValue("id")); err != nil {
		return err
	}
	return p.redirect(w, "/accounts")
}
