package pages

import (
	"maps"
	"net/http"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// OpenConsole opens the console: a session of its own, which the browser is sent
// to AWS with. What is asked for stands in the form, in the address, or in both.
func (p *Pages) OpenConsole(w http.ResponseWriter, r *http.Request, v *Visit) error {
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
	v.From = edge.Path("/requests/%s", id)
	opened, err := p.c.Plane.Open(r.Context(), v.Who, narrowedBy(control.Opening{
		RequestID: id, Kind: serval.ForConsole, Page: serval.ConsolePage{Service: asked.Get("service"), Region: asked.Get("region")},
	}, asked))
	return p.toConsole(w, opened, err)
}

// FollowLink opens the console that a client made a way to, in the browser of
// its person. It is a GET, as only an address can be handed to a browser: what
// stands for a posted form's origin is the code, which nobody else knows.
func (p *Pages) FollowLink(w http.ResponseWriter, r *http.Request, v *Visit) error {
	opened, err := p.c.Plane.OpenLinked(r.Context(), v.Who, serval.NewSecret(r.PathValue("code")))
	return p.toConsole(w, opened, err)
}

// toConsole sends the browser on to AWS. The way there is in this header and
// nowhere else.
func (p *Pages) toConsole(w http.ResponseWriter, o control.Opened, err error) error {
	if err != nil {
		return err
	}
	w.Header().Set("Location", o.Link.Reveal())
	w.WriteHeader(http.StatusSeeOther)
	return nil
}
