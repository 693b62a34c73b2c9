package web

import (
	"cmp"
	"net/http"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/shape"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

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
	answer := wire.Accounts{Accounts: []wire.Account{}, Connect: shape.Connect(next)}
	for _, a := range connected {
		answer.Accounts = append(answer.Accounts, shape.Account(a, s.c.Now()))
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
	answer, connect := shape.Account(a, s.c.Now()), shape.Connect(a.Connect)
	answer.Connect = &connect
	return edge.WriteJSON(w, status, answer)
}

// connectAccount answers POST /api/v1/accounts.
func (s *Server) connectAccount(w http.ResponseWriter, r *http.Request, v *visit) error {
	var body wire.NewAccount
	if err := edge.Decode(r, &body); err != nil {
		return err
	}
	id := cmp.Or(body.ID, body.AccountID)
	if body.AccountID != "" && body.AccountID != id {
		return edge.Refuse(serval.Invalid, "id and account_id are the same; give one of them.")
	}
	err := s.c.Plane.ConnectAccount(r.Context(), v.who, serval.Account{
		ID: id, Name: body.Name, RoleARN: body.RoleARN, Partition: body.Partition, Via: body.Via, DefaultRegion: body.DefaultRegion,
		STS: body.STS, WorkflowRoleARN: body.WorkflowRoleARN, ExternalID: body.ExternalID,
	})
	if err != nil {
		return err
	}
	return s.answerAccount(w, r, v, id, http.StatusCreated)
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
