package web

import (
	"net/http"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/shape"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// narrowed returns what is asked for, narrowed.
func narrowed(ask control.Opening, n *wire.Narrow) control.Opening {
	if n != nil {
		ask.ReadOnly, ask.NoChaining, ask.Network = n.ReadOnly, n.NoChaining, n.Network
	}
	return ask
}

// openSession answers POST /api/v1/sessions.
func (s *Server) openSession(w http.ResponseWriter, r *http.Request, v *visit) error {
	var body wire.NewSession
	if err := edge.Decode(r, &body); err != nil {
		return err
	}
	ask := narrowed(control.Opening{RequestID: body.RequestID, Kind: serval.ForCredentials}, body.Narrow)
	opened, err := s.c.Plane.Open(r.Context(), v.who, ask)
	if err != nil {
		return err
	}
	c := shape.Credentials(opened)
	c.ConsolePath = consolePath(ask)
	return edge.WriteJSON(w, http.StatusOK, c)
}

// sessions answers GET /api/v1/sessions.
func (s *Server) sessions(w http.ResponseWriter, r *http.Request, v *visit) error {
	q, err := edge.Query(r, "request_id", "page_size", "page_token")
	if err != nil {
		return err
	}
	size, after, err := edge.Page(q)
	if err != nil {
		return err
	}
	found, more, err := s.c.Plane.Sessions(r.Context(), v.who, control.SessionFilter{RequestID: q.Get("request_id"), After: after, Limit: size})
	if err != nil {
		return err
	}
	answer := wire.Sessions{Sessions: []wire.Session{}}
	for _, one := range found {
		answer.Sessions = append(answer.Sessions, shape.Session(one))
	}
	if more {
		answer.NextPageToken = edge.PageToken(more, found[len(found)-1].ID)
	}
	return edge.WriteJSON(w, http.StatusOK, answer)
}
