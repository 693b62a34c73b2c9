package web

import (
	"net/http"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

func (s *Server) accountJSON(a control.Account) wire.Account {
	account := wire.Account{
		ID: a.ID, Name: a.Name, Partition: a.Partition, RoleARN: a.RoleARN, ExternalID: a.ExternalID, Via: list(a.Via),
		DefaultRegion: a.DefaultRegion, STS: a.STS, WorkflowRoleARN: a.WorkflowRoleARN, Source: a.Source, CreatedAt: wire.Time{Time: a.CreatedAt},
		Roles: a.Roles, Generation: a.AcceptedGeneration, Complete: a.Complete,
		LastSyncAt: wire.Time{Time: a.StartedAt}, LastPushAt: wire.Time{Time: a.AcceptedAt}, ReadBy: a.ReadBy,
		SyncRequested: !a.SyncRequestedAt.IsZero(),
		Problems:      list(a.Problems), Unreadable: list(a.Unreadable), NearMisses: list(a.NearMisses), Held: a.Held, Stale: a.Stale,
		LastCheck: lastCheck(a.LastCheck),
	}
	now := s.c.Now()
	if a.ClaimedUntil.After(now) {
		account.ReadingUntil = wire.Time{Time: a.ClaimedUntil}
	}
	if !a.StartedAt.IsZero() {
		age := int(max(0, now.Sub(a.StartedAt)).Seconds())
		account.LastSyncAgeSeconds = &age
	}
	return account
}

func connectJSON(c control.Connect) wire.Connect {
	return wire.Connect{
		TrustedAccount: c.TrustedAccount, Note: c.Note, ExternalID: c.ExternalID, RoleName: c.RoleName, TrustPolicy: c.TrustPolicy,
		PermissionPolicy: c.PermissionPolicy, Terraform: c.Terraform, CloudFormation: c.CloudFormation,
	}
}

// accounts answers GET /api/v1/accounts.
func (s *Server) accounts(w http.ResponseWriter, r *http.Request, v *visit) error {
	q, err := edge.Query(r, "page_size", "page_token")
	if err != nil {
		return err
	}
	size, after, err := edge.Page(q)
	if err != nil {
		return err
	}
	connected, more, err := s.c.Plane.Accounts(r.Context(), v.who, control.AccountFilter{After: after, Limit: size})
	if err != nil {
		return err
	}
	next, err := s.c.Plane.Connecting(r.Context(), v.who)
	if err != nil {
		return err
	}
	answer := wire.Accounts{Accounts: []wire.Account{}, Connect: connectJSON(next)}
	for _, a := range connected {
		answer.Accounts = append(answer.Accounts, s.accountJSON(a))
	}
	if more {
		answer.NextPageToken = edge.PageToken(more, connected[len(connected)-1].ID)
	}
	return edge.WriteJSON(w, http.StatusOK, answer)
}

// account answers GET /api/v1/accounts/{id}.
func (s *Server) account(w http.ResponseWriter, r *http.Request, v *visit) error {
	if _, err := edge.Query(r); err != nil {
		return err
	}
	return s.answerAccount(w, r, v, r.PathValue("id"), http.StatusOK)
}

func (s *Server) answerAccount(w http.ResponseWriter, r *http.Request, v *visit, id string, status int) error {
	a, err := s.c.Plane.AccountByID(r.Context(), v.who, id)
	if err != nil {
		return err
	}
	answer, connect := s.accountJSON(a), connectJSON(a.Connect)
	answer.Connect = &connect
	return edge.WriteJSON(w, status, answer)
}

// connectAccount answers POST /api/v1/accounts.
func (s *Server) connectAccount(w http.ResponseWriter, r *http.Request, v *visit) error {
	var body wire.NewAccount
	if err := edge.Decode(r, &body); err != nil {
		return err
	}
	err := s.c.Plane.ConnectAccount(r.Context(), v.who, serval.Account{
		ID: body.ID, Name: body.Name, RoleARN: body.RoleARN, Partition: body.Partition, Via: body.Via, DefaultRegion: body.DefaultRegion,
		STS: body.STS, WorkflowRoleARN: body.WorkflowRoleARN, ExternalID: body.ExternalID,
	})
	if err != nil {
		return err
	}
	return s.answerAccount(w, r, v, body.ID, http.StatusCreated)
}

// changeAccount answers PATCH /api/v1/accounts/{id}.
func (s *Server) changeAccount(w http.ResponseWriter, r *http.Request, v *visit) error {
	var body wire.AccountChange
	if err := edge.Decode(r, &body); err != nil {
		return err
	}
	id := r.PathValue("id")
	if err := s.c.Plane.ChangeAccount(r.Context(), v.who, id, control.AccountChange(body)); err != nil {
		return err
	}
	return s.answerAccount(w, r, v, id, http.StatusOK)
}

// disconnectAccount answers DELETE /api/v1/accounts/{id}.
func (s *Server) disconnectAccount(w http.ResponseWriter, r *http.Request, v *visit) error {
	if err := edge.DecodeNothing(r); err != nil {
		return err
	}
	if err := s.c.Plane.DisconnectAccount(r.Context(), v.who, r.PathValue("id")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// requestSync answers POST /api/v1/accounts/{id}/sync: the worker will come by.
func (s *Server) requestSync(w http.ResponseWriter, r *http.Request, v *visit) error {
	if err := edge.DecodeNothing(r); err != nil {
		return err
	}
	if err := s.c.Plane.RequestSync(r.Context(), v.who, r.PathValue("id")); err != nil {
		return err
	}
	return s.answerAccount(w, r, v, r.PathValue("id"), http.StatusAccepted)
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
	connected, _, err := s.c.Plane.Accounts(r.Context(), v.who, control.AccountFilter{})
	if err != nil {
		return err
	}
	next, err := s.c.Plane.Connecting(r.Context(), v.who)
	if err != nil {
		return err
	}
	view := accountsView{TrustedAccount: next.TrustedAccount}
	for _, a := range connected {
		one := accountView{
			Account: s.accountJSON(a), Problems: a.Problems, Unreadable: a.Unreadable, NearMisses: a.NearMisses,
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
