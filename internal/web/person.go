package web

import (
	"net/http"

	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/shape"
	"github.com/serval-bridge/serval-bridge/internal/signin"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// people answers GET /api/v1/people.
func (s *Server) people(w http.ResponseWriter, r *http.Request, v *visit) error {
	q, err := edge.Query(r, "email", "suspended", "page_size", "page_token")
	if err != nil {
		return err
	}
	filter := signin.PersonFilter{Email: q.Get("email")}
	if filter.Suspended, err = edge.Yes(q, "suspended"); err != nil {
		return err
	}
	if filter.Limit, filter.After, err = edge.Page(q); err != nil {
		return err
	}
	found, next, err := s.c.Logins.People(r.Context(), v.who, filter)
	if err != nil {
		return err
	}
	return edge.WriteJSON(w, http.StatusOK, wire.Identities{People: shape.Identities(found), NextPageToken: edge.PageToken(next != "", next)})
}

// relink answers POST /api/v1/people/{id}/relink.
func (s *Server) relink(w http.ResponseWriter, r *http.Request, v *visit) error {
	var body wire.Relinking
	if err := edge.Decode(r, &body); err != nil {
		return err
	}
	done, err := s.c.Logins.Relink(r.Context(), v.who, r.PathValue("id"), signin.Relinking{SamePerson: body.SamePerson, Reason: body.Reason})
	if err != nil {
		return err
	}
	return edge.WriteJSON(w, http.StatusOK, wire.Relinked{
		Person: shape.Identity(done.Person), Suspended: shape.Identities(done.Suspended), Carried: done.Carried, Revoked: done.Revoked,
	})
}
