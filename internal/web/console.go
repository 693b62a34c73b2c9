package web

import (
	"net/http"
	"net/url"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// consolePath returns what a browser posts to, to open the console under a
// request and narrowed as another session was.
func consolePath(ask control.Opening) string {
	narrow := url.Values{}
	if ask.ReadOnly {
		narrow.Set("read_only", "true")
	}
	if ask.NoChaining {
		narrow.Set("no_chaining", "true")
	}
	if ask.Network != "" {
		narrow.Set("network", ask.Network)
	}
	path := edge.Path("/requests/%s/console", ask.RequestID)
	if len(narrow) > 0 {
		path += "?" + narrow.Encode()
	}
	return path
}

// linkConsole answers POST /api/v1/console-links.
func (s *Server) linkConsole(w http.ResponseWriter, r *http.Request, v *visit) error {
	var body wire.NewConsoleLink
	if err := edge.Decode(r, &body); err != nil {
		return err
	}
	code, ends, err := s.c.Plane.LinkConsole(r.Context(), v.who, narrowed(control.Opening{
		RequestID: body.RequestID, Page: serval.ConsolePage{Service: body.Service, Region: body.Region},
	}, body.Narrow))
	if err != nil {
		return err
	}
	return edge.WriteJSON(w, http.StatusCreated, wire.ConsoleLink{Path: "/console/" + code.Reveal(), ExpiresAt: wire.Time{Time: ends}})
}
