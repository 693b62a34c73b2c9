package web

import (
	"net/http"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/shape"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// roles answers GET /api/v1/roles.
func (s *Server) roles(w http.ResponseWriter, r *http.Request, v *visit) error {
	q, err := edge.Query(r, "account_id", "q", "tag", "ability", "unused_days", "page_size", "page_token")
	if err != nil {
		return err
	}
	size, after, err := edge.Page(q)
	if err != nil {
		return err
	}
	unused, err := edge.Days(q.Get("unused_days"))
	if err != nil {
		return err
	}
	text, err := s.c.Plane.Catalogue(r.Context(), v.who, control.RoleFilter{
		AccountID: q.Get("account_id"), Tag: q.Get("tag"), Text: q.Get("q"), Abilities: q.Get("ability"), Unused: unused, After: after, Limit: size,
	}, func(roles []control.Role, more bool) ([]byte, error) {
		answer := wire.Roles{Roles: []wire.Role{}}
		for _, role := range roles {
			answer.Roles = append(answer.Roles, shape.Role(role, v.who, s.c.Now()))
		}
		if more {
			answer.NextPageToken = edge.PageToken(more, roles[len(roles)-1].ARN)
		}
		return edge.JSON(answer)
	})
	if err != nil {
		return err
	}
	edge.WriteText(w, http.StatusOK, text)
	return nil
}

// role answers GET /api/v1/roles/{account_id}/{role_name}.
func (s *Server) role(w http.ResponseWriter, r *http.Request, v *visit) error {
	if _, err := edge.Query(r); err != nil {
		return err
	}
	role, err := s.c.Plane.RoleByName(r.Context(), v.who, r.PathValue("account_id"), r.PathValue("role_name"))
	if err != nil {
		return err
	}
	answer := shape.Role(role, v.who, s.c.Now())
	answer.Documents = shape.Documents(role)
	return edge.WriteJSON(w, http.StatusOK, answer)
}

// roleVersions answers GET /api/v1/roles/{account_id}/{role_name}/versions.
func (s *Server) roleVersions(w http.ResponseWriter, r *http.Request, v *visit) error {
	if _, err := edge.Query(r); err != nil {
		return err
	}
	h, err := s.c.Plane.RoleHistory(r.Context(), v.who, r.PathValue("account_id"), r.PathValue("role_name"), "", "")
	if err != nil {
		return err
	}
	return edge.WriteJSON(w, http.StatusOK, shape.Versions(h.Versions()))
}

// roleChanges answers GET /api/v1/roles/{account_id}/{role_name}/changes.
func (s *Server) roleChanges(w http.ResponseWriter, r *http.Request, v *visit) error {
	q, err := edge.Query(r, "from", "to")
	if err != nil {
		return err
	}
	h, err := s.c.Plane.RoleHistory(r.Context(), v.who, r.PathValue("account_id"), r.PathValue("role_name"), q.Get("from"), q.Get("to"))
	if err != nil {
		return err
	}
	c, err := h.Compare(q.Get("from"), q.Get("to"))
	if err != nil {
		return err
	}
	return edge.WriteJSON(w, http.StatusOK, shape.Compared(c))
}
