package web

import (
	"net/http"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

func accountJSON(a control.Account) wire.Account {
	return wire.Account{
		ID: a.ID, Name: a.Name, Partition: a.Partition, RoleARN: a.RoleARN, ExternalID: a.ExternalID, Source: a.Source,
		Roles: a.Roles, Generation: a.AcceptedGeneration, Complete: a.Complete,
		LastSyncAt: wire.Time{Time: a.StartedAt}, LastPushAt: wire.Time{Time: a.AcceptedAt}, ReadBy: a.ReadBy,
		Problems: list(a.Problems), Unreadable: list(a.Unreadable), NearMisses: list(a.NearMisses), Held: a.Held, Stale: a.Stale,
	}
}

// accounts answers GET /api/v1/accounts.
func (s *Server) accounts(w http.ResponseWriter, r *http.Request, v *visit) error {
	if _, err := edge.Query(r); err != nil {
		return err
	}
	connected, err := s.c.Plane.Accounts(r.Context(), v.who)
	if err != nil {
		return err
	}
	answer := wire.Accounts{Accounts: []wire.Account{}}
	for _, a := range connected {
		answer.Accounts = append(answer.Accounts, accountJSON(a))
	}
	return edge.WriteJSON(w, http.StatusOK, answer)
}

// account answers GET /api/v1/accounts/{id}.
func (s *Server) account(w http.ResponseWriter, r *http.Request, v *visit) error {
	if _, err := edge.Query(r); err != nil {
		return err
	}
	return s.answerAccount(w, r, v, http.StatusOK)
}

func (s *Server) answerAccount(w http.ResponseWriter, r *http.Request, v *visit, status int) error {
	connected, err := s.c.Plane.Accounts(r.Context(), v.who)
	if err != nil {
		return err
	}
	for _, a := range connected {
		if a.ID == r.PathValue("id") {
			return edge.WriteJSON(w, status, accountJSON(a))
		}
	}
	return serval.Refuse(serval.NotFound, "There is no such account.")
}

// requestSync answers POST /api/v1/accounts/{id}/sync: the worker will come by.
func (s *Server) requestSync(w http.ResponseWriter, r *http.Request, v *visit) error {
	if err := edge.DecodeNothing(r); err != nil {
		return err
	}
	if err := s.c.Plane.RequestSync(r.Context(), v.who, r.PathValue("id")); err != nil {
		return err
	}
	return s.answerAccount(w, r, v, http.StatusAccepted)
}

// confirmRemovals answers POST /api/v1/accounts/{id}/confirm-removals.
func (s *Server) confirmRemovals(w http.ResponseWriter, r *http.Request, v *visit) error {
	if err := edge.DecodeNothing(r); err != nil {
		return err
	}
	n, err := s.c.Plane.ConfirmRemovals(r.Context(), v.who, r.PathValue("id"))
	if err != nil {
		return err
	}
	return edge.WriteJSON(w, http.StatusOK, wire.Removed{Removed: n})
}

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

// accountsPage shows the connected accounts and how their syncs went.
func (s *Server) accountsPage(w http.ResponseWriter, r *http.Request, v *visit) error {
	connected, err := s.c.Plane.Accounts(r.Context(), v.who)
	if err != nil {
		return err
	}
	view := accountsView{TrustedAccount: s.c.TrustedAccount()}
	for _, a := range connected {
		one := accountView{
			Account: accountJSON(a), Problems: a.Problems, Unreadable: a.Unreadable, NearMisses: a.NearMisses,
			SyncRequested: !a.SyncRequestedAt.IsZero(), Path: pathEscape("/accounts/%s", a.ID),
		}
		if a.ClaimedUntil.After(s.c.Now()) {
			one.Claimed = wire.Time{Time: a.ClaimedUntil}
		}
		switch {
		case a.AcceptedAt.IsZero():
			one.State, one.Tone = "Not read yet", "wait"
		case a.Held > 0:
			one.State, one.Tone = "Removals held", "bad"
		case s.c.Now().Sub(a.StartedAt) > oldAfter:
			one.State, one.Tone = "Old", "bad"
		case !a.Complete:
			one.State, one.Tone = "Incomplete", "wait"
		default:
			one.State, one.Tone = "Complete", "good"
		}
		view.Accounts = append(view.Accounts, one)
	}
	return s.show(w, v, http.StatusOK, "accounts", "Accounts", view)
}

func (s *Server) postSync(w http.ResponseWriter, r *http.Request, v *visit) error {
	if err := s.c.Plane.RequestSync(r.Context(), v.who, r.PathValue("id")); err != nil {
		return err
	}
	return s.redirect(w, "/accounts")
}

func (s *Server) postConfirmRemovals(w http.ResponseWriter, r *http.Request, v *visit) error {
	if _, err := s.c.Plane.ConfirmRemovals(r.Context(), v.who, r.PathValue("id")); err != nil {
		return err
	}
	return s.redirect(w, "/accounts")
}
