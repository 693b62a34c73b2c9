package pages

import (
	"net/http"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/shape"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// A findingsView is what is to be known about the trust policies of all roles.
type findingsView struct {
	wire.FindingsPage
	Account, Severity string
}

// Findings answers GET /findings.
func (p *Pages) Findings(w http.ResponseWriter, r *http.Request, v *Visit) error {
	q, err := edge.Query(r, "account_id", "severity", "page_token")
	if err != nil {
		return err
	}
	f := control.FindingFilter{AccountID: q.Get("account_id"), Severity: q.Get("severity")}
	if f.Limit, f.After, err = edge.Page(q); err != nil {
		return err
	}
	roles, next, err := p.c.Plane.Findings(r.Context(), v.Who, f)
	if err != nil {
		return err
	}
	page := shape.Findings(roles)
	page.NextPageToken = edge.PageToken(next != "", next)
	return p.show(w, v, http.StatusOK, "findings", "Findings", findingsView{FindingsPage: page, Account: f.AccountID, Severity: f.Severity})
}

// severities are what a list of findings can be held to, and the colour of each.
var severities = []struct{ Name, Tone string }{{"low", ""}, {"medium", "wait"}, {"high", "bad"}}

func severityTone(severity string) string {
	for _, s := range severities {
		if s.Name == severity {
			return s.Tone
		}
	}
	return ""
}
