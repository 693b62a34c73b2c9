package web

import (
	"net/http"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/shape"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// policies answers GET /api/v1/access-policies.
func (s *Server) policies(w http.ResponseWriter, r *http.Request, v *visit) error {
	q, err := edge.Query(r, "page_size", "page_token")
	if err != nil {
		return err
	}
	size, after, err := edge.Page(q)
	if err != nil {
		return err
	}
	policies, more, err := s.c.Plane.Policies(r.Context(), v.who, control.PolicyFilter{After: after, Limit: size})
	if err != nil {
		return err
	}
	answer := wire.AccessPolicies{AccessPolicies: []wire.AccessPolicy{}}
	for _, p := range policies {
		answer.AccessPolicies = append(answer.AccessPolicies, shape.Policy(p))
	}
	if more {
		answer.NextPageToken = edge.PageToken(more, policies[len(policies)-1].Name)
	}
	return edge.WriteJSON(w, http.StatusOK, answer)
}

// createPolicy answers POST /api/v1/access-policies.
func (s *Server) createPolicy(w http.ResponseWriter, r *http.Request, v *visit) error {
	var body wire.NewAccessPolicy
	if err := edge.Decode(r, &body); err != nil {
		return err
	}
	priority := control.DefaultPriority
	if body.Priority != nil {
		priority = *body.Priority
	}
	made, err := s.c.Plane.CreatePolicy(r.Context(), v.who, body.AccessPolicy, priority)
	if err != nil {
		return err
	}
	return edge.WriteJSON(w, http.StatusCreated, shape.Policy(made))
}

// changePolicy answers PUT /api/v1/access-policies/{name}.
func (s *Server) changePolicy(w http.ResponseWriter, r *http.Request, v *visit) error {
	var body wire.NewAccessPolicy
	if err := edge.Decode(r, &body); err != nil {
		return err
	}
	made, err := s.c.Plane.ChangePolicy(r.Context(), v.who, r.PathValue("name"), body.AccessPolicy, body.Priority)
	if err != nil {
		return err
	}
	return edge.WriteJSON(w, http.StatusOK, shape.Policy(made))
}

// deletePolicy answers DELETE /api/v1/access-policies/{name}.
func (s *Server) deletePolicy(w http.ResponseWriter, r *http.Request, v *visit) error {
	if err := edge.DecodeNothing(r); err != nil {
		return err
	}
	if err := s.c.Plane.DeletePolicy(r.Context(), v.who, r.PathValue("name")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// explain answers GET /api/v1/access/explain.
func (s *Server) explain(w http.ResponseWriter, r *http.Request, v *visit) error {
	q, err := edge.Query(r, "email", "role_arn")
	if err != nil {
		return err
	}
	x, err := s.c.Plane.Explain(r.Context(), v.who, q.Get("email"), q.Get("role_arn"))
	if err != nil {
		return err
	}
	return edge.WriteJSON(w, http.StatusOK, shape.Explanation(x))
}
