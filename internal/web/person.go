package web

import (
	"net/http"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

func identityJSON(p serval.Person) wire.Identity {
	return wire.Identity{
		ID: p.ID, Email: p.Email, NewEmail: p.NewEmail, Issuer: p.Issuer, Subject: p.Subject, Groups: list(p.Groups),
		GroupsAt: wire.Time{Time: p.GroupsAt}, GroupsNote: p.GroupsNote, Suspended: p.Suspended, CreatedAt: wire.Time{Time: p.CreatedAt},
	}
}

func identitiesJSON(people []serval.Person) []wire.Identity {
	all := []wire.Identity{}
	for _, p := range people {
		all = append(all, identityJSON(p))
	}
	return all
}

// people answers GET /api/v1/people.
func (s *Server) people(w http.ResponseWriter, r *http.Request, v *visit) error {
	q, err := edge.Query(r, "email", "suspended", "page_size", "page_token")
	if err != nil {
		return err
	}
	filter := control.PersonFilter{Email: q.Get("email")}
	if filter.Suspended, err = edge.Yes(q, "suspended"); err != nil {
		return err
	}
	if filter.Limit, filter.After, err = edge.Page(q); err != nil {
		return err
	}
	found, next, err := s.c.Plane.People(r.Context(), v.who, filter)
	if err != nil {
		return err
	}
	return edge.WriteJSON(w, http.StatusOK, wire.Identities{People: identitiesJSON(found), NextPageToken: edge.PageToken(next != "", next)})
}

// relink answers POST /api/v1/people/{id}/relink.
func (s *Server) relink(w http.ResponseWriter, r *http.Request, v *visit) error {
	var body wire.Relinking
	if err := edge.Decode(r, &body); err != nil {
		return err
	}
	done, err := s.c.Plane.Relink(r.Context(), v.who, r.PathValue("id"), control.Relinking{SamePerson: body.SamePerson, Reason: body.Reason})
	if err != nil {
		return err
	}
	return edge.WriteJSON(w, http.StatusOK, wire.Relinked{
		Person: identityJSON(done.Person), Suspended: identitiesJSON(done.Suspended), Carried: done.Carried, Revoked: done.Revoked,
	})
}
