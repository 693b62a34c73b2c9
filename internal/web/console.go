package web

import (
	"maps"
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
	path := pathEscape("/requests/%s/console", ask.RequestID)
	if len(narrow) > 0 {
		path += "?" + narrow.Encode()
	}
	return path
}

// postConsole opens the console: a session of its own, which the browser is sent
// to AWS with. What is asked for stands in the form, in the address, or in both.
func (s *Server) postConsole(w http.ResponseWriter, r *http.Request, v *visit) error {
	asked, err := edge.Query(r, "read_only", "no_chaining", "network", "service", "region")
	if err != nil {
		return err
	}
	f, err := edge.Form(r)
	if err != nil {
		return err
	}
	maps.Copy(asked, f)
	id := r.PathValue("id")
	v.from = pathEscape("/requests/%s", id)
	opened, err := s.c.Plane.Open(r.Context(), v.who, narrowedBy(control.Opening{
		RequestID: id, Kind: serval.ForConsole, Page: serval.ConsolePage{Service: asked.Get("service"), Region: asked.Get("region")},
	}, asked))
	return s.toConsole(w, opened, err)
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

// openLinked opens the console that a client made a way to, in the browser of
// its person. It is a GET, as only an address can be handed to a browser: what
// stands for a posted form's origin is the code, which nobody else knows.
func (s *Server) openLinked(w http.ResponseWriter, r *http.Request, v *visit) error {
	opened, err := s.c.Plane.OpenLinked(r.Context(), v.who, serval.NewSecret(r.PathValue("code")))
	return s.toConsole(w, opened, err)
}

// toConsole sends the browser on to AWS. The way there is in this header and
// nowhere else.
func (s *Server) toConsole(w http.ResponseWriter, o control.Opened, err error) error {
	if err != nil {
		return err
	}
	w.Header().Set("Location", o.Link.Reveal())
	w.WriteHeader(http.StatusSeeOther)
	return nil
}
