package web

import (
	"net/http"
	"slices"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/shape"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// createRequests answers POST /api/v1/requests.
func (s *Server) createRequests(w http.ResponseWriter, r *http.Request, v *visit) error {
	var body wire.NewRequest
	if err := edge.Decode(r, &body); err != nil {
		return err
	}
	arns := body.RoleARNs
	if (body.RoleARN == "") == (len(arns) == 0) {
		return edge.Refuse(serval.Invalid, "Name the role as role_arn, or several as role_arns; one of the two.")
	}
	if body.RoleARN != "" {
		arns = []string{body.RoleARN}
	}
	made, err := s.c.Plane.Request(r.Context(), v.who, control.Ask{RoleARNs: arns, BreakGlass: body.BreakGlass, Ask: serval.Ask{
		Minutes: body.Minutes, Justification: body.Justification, Ticket: body.Ticket, StartAt: body.StartAt.Time,
	}})
	if err != nil {
		return err
	}
	if body.RoleARN != "" {
		return edge.WriteJSON(w, http.StatusCreated, shape.Request(made[0], v.who, s.c.Now()))
	}
	batch := wire.Batch{BatchID: made[0].BatchID, Requests: []wire.Request{}}
	for _, m := range made {
		batch.Requests = append(batch.Requests, shape.Request(m, v.who, s.c.Now()))
	}
	return edge.WriteJSON(w, http.StatusCreated, batch)
}

// requests answers GET /api/v1/requests.
func (s *Server) requests(w http.ResponseWriter, r *http.Request, v *visit) error {
	q, err := edge.Query(r, "status", "running", "all", "email", "page_size", "page_token")
	if err != nil {
		return err
	}
	size, after, err := edge.Page(q)
	if err != nil {
		return err
	}
	status := serval.Status(q.Get("status"))
	if status != "" && !slices.Contains(shape.Statuses(), status) {
		return edge.Refuse(serval.Invalid, "There is no status %q.", serval.Clip(string(status), 40))
	}
	filter := control.RequestFilter{Status: status, Email: q.Get("email"), After: after, Limit: size}
	if filter.Running, err = edge.Yes(q, "running"); err != nil {
		return err
	}
	if filter.All, err = edge.Yes(q, "all"); err != nil {
		return err
	}
	found, next, err := s.c.Plane.Requests(r.Context(), v.who, filter)
	if err != nil {
		return err
	}
	answer := wire.Requests{Requests: []wire.Request{}, NextPageToken: edge.PageToken(next != "", next)}
	for _, one := range found {
		answer.Requests = append(answer.Requests, shape.Request(one, v.who, s.c.Now()))
	}
	return edge.WriteJSON(w, http.StatusOK, answer)
}

// request answers GET /api/v1/requests/{id}.
func (s *Server) request(w http.ResponseWriter, r *http.Request, v *visit) error {
	if _, err := edge.Query(r); err != nil {
		return err
	}
	found, err := s.c.Plane.RequestByID(r.Context(), v.who, r.PathValue("id"))
	return s.answerRequest(w, r, v, found, err)
}

// answerRequest answers with what became of a request.
func (s *Server) answerRequest(w http.ResponseWriter, r *http.Request, v *visit, found control.Request, err error) error {
	if err != nil {
		return err
	}
	live, err := s.c.Plane.Live(r.Context(), v.who, found.ID)
	if err != nil {
		return err
	}
	request := shape.Request(found, v.who, s.c.Now())
	request.Live = shape.Live(found, live)
	return edge.WriteJSON(w, http.StatusOK, request)
}

// decide answers POST /api/v1/requests/{id}/decisions.
func (s *Server) decide(w http.ResponseWriter, r *http.Request, v *visit) error {
	var body wire.Decision
	if err := edge.Decode(r, &body); err != nil {
		return err
	}
	if body.Outcome != "approve" && body.Outcome != "deny" {
		return edge.Refuse(serval.Invalid, `The outcome is "approve" or "deny".`)
	}
	if body.Minutes < 0 {
		return edge.Refuse(serval.Invalid, "Minutes are a whole number, and 0 or left out as asked for.")
	}
	changed, err := s.c.Plane.Decide(r.Context(), v.who, r.PathValue("id"),
		serval.Decision{Approve: body.Outcome == "approve", Minutes: body.Minutes, Reason: body.Reason, Round: body.Round})
	return s.answerRequest(w, r, v, changed, err)
}

// extend answers POST /api/v1/requests/{id}/extensions.
func (s *Server) extend(w http.ResponseWriter, r *http.Request, v *visit) error {
	var body wire.Extension
	if err := edge.Decode(r, &body); err != nil {
		return err
	}
	changed, err := s.c.Plane.Extend(r.Context(), v.who, r.PathValue("id"), body.Minutes, body.Justification)
	return s.answerRequest(w, r, v, changed, err)
}

// shorten answers POST /api/v1/requests/{id}/shorten.
func (s *Server) shorten(w http.ResponseWriter, r *http.Request, v *visit) error {
	var body wire.Shortening
	if err := edge.Decode(r, &body); err != nil {
		return err
	}
	if (body.Minutes == 0) == body.EndsAt.IsZero() {
		return edge.Refuse(serval.Invalid, "Say minutes from now on, or the new end as ends_at; one of the two.")
	}
	changed, err := s.c.Plane.Shorten(r.Context(), v.who, r.PathValue("id"), body.Minutes, body.EndsAt.Time)
	return s.answerRequest(w, r, v, changed, err)
}

// cancel answers POST /api/v1/requests/{id}/cancel.
func (s *Server) cancel(w http.ResponseWriter, r *http.Request, v *visit) error {
	if err := edge.DecodeNothing(r); err != nil {
		return err
	}
	changed, err := s.c.Plane.Cancel(r.Context(), v.who, r.PathValue("id"))
	return s.answerRequest(w, r, v, changed, err)
}

// done answers POST /api/v1/requests/{id}/done.
func (s *Server) done(w http.ResponseWriter, r *http.Request, v *visit) error {
	if err := edge.DecodeNothing(r); err != nil {
		return err
	}
	changed, err := s.c.Plane.Done(r.Context(), v.who, r.PathValue("id"))
	return s.answerRequest(w, r, v, changed, err)
}

// revoke answers POST /api/v1/requests/{id}/revoke.
func (s *Server) revoke(w http.ResponseWriter, r *http.Request, v *visit) error {
	var body wire.Revocation
	if err := edge.Decode(r, &body); err != nil {
		return err
	}
	changed, err := s.c.Plane.Revoke(r.Context(), v.who, r.PathValue("id"), body.Reason)
	return s.answerRequest(w, r, v, changed, err)
}

// approvals answers GET /api/v1/approvals.
func (s *Server) approvals(w http.ResponseWriter, r *http.Request, v *visit) error {
	q, err := edge.Query(r, "page_size", "page_token")
	if err != nil {
		return err
	}
	size, after, err := edge.Page(q)
	if err != nil {
		return err
	}
	waiting, next, err := s.c.Plane.Approvals(r.Context(), v.who, after, size)
	if err != nil {
		return err
	}
	answer := wire.Approvals{Requests: []wire.Request{}, NextPageToken: edge.PageToken(next != "", next)}
	for _, one := range waiting {
		answer.Requests = append(answer.Requests, shape.Waiting(one, v.who, s.c.Now()))
	}
	return edge.WriteJSON(w, http.StatusOK, answer)
}
