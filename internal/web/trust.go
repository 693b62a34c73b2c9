package web

import (
	"encoding/json"
	"net/http"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// maxQuestion bounds what is to be explained: the longest document AWS takes
// anywhere, escaped, and the context.
const maxQuestion = 1 << 20

// explainTrust answers POST /api/v1/explain/trust.
func (s *Server) explainTrust(w http.ResponseWriter, r *http.Request, v *visit) error {
	if _, err := edge.Query(r); err != nil {
		return err
	}
	var document serval.Document
	var context []byte
	if v.who.Admin { // whoever is none hears that first
		r.Body = http.MaxBytesReader(w, r.Body, maxQuestion)
		given, err := edge.Members(r, "policy", "context")
		if err != nil {
			return err
		}
		if given["policy"] == nil || given["context"] == nil {
			return serval.Refuse(serval.Invalid, `Give a policy and a context: {"policy": {…}, "context": {…}}.`)
		}
		document = serval.Document(given["policy"])
		var text string
		if json.Unmarshal(given["policy"], &text) == nil {
			document = serval.Document(text)
		}
		context = given["context"]
	}
	verdict, findings, err := s.c.Plane.ExplainTrust(r.Context(), v.who, document, context)
	if err != nil {
		return err
	}
	return edge.WriteJSON(w, http.StatusOK, wire.TrustAnswer{Trust: trustJSON(verdict), Findings: findingsJSON(findings)})
}

func trustJSON(v control.Verdict) wire.Trust {
	t := wire.Trust{Verdict: v.Verdict, Reason: v.Reason, Statement: v.Statement, Condition: v.Condition, NotChecked: list(v.NotChecked)}
	if v.Mend != nil {
		t.Mend = &wire.Mend{JSON: v.Mend.JSON, Terraform: v.Mend.Terraform}
	}
	return t
}

func findingsJSON(findings []control.Finding) []wire.TrustFinding {
	out := make([]wire.TrustFinding, len(findings))
	for i, f := range findings {
		out[i] = wire.TrustFinding{ID: f.ID, Severity: string(f.Severity), Sentence: f.Sentence, Statement: f.Statement, Mend: f.Mend}
	}
	return out
}

// readFindings returns a page of roles with findings, for the API and the pages
// alike.
func (s *Server) readFindings(r *http.Request, v *visit) (page wire.FindingsPage, f control.FindingFilter, err error) {
	q, err := edge.Query(r, "account_id", "severity", "page_size", "page_token")
	if err != nil {
		return page, f, err
	}
	f.AccountID, f.Severity = q.Get("account_id"), q.Get("severity")
	if f.Limit, f.After, err = edge.Page(q); err != nil {
		return page, f, err
	}
	roles, more, err := s.c.Plane.Findings(r.Context(), v.who, f)
	if err != nil {
		return page, f, err
	}
	page.Roles = []wire.RoleFindings{}
	for _, role := range roles {
		page.Roles = append(page.Roles, wire.RoleFindings{
			RoleARN: role.ARN, RoleID: role.RoleID, AccountID: role.Key.AccountID, AccountName: role.AccountName,
			Findings: findingsJSON(role.Findings), Unreadable: role.Unreadable,
		})
	}
	if more {
		page.NextPageToken = edge.PageToken(more, page.Roles[len(page.Roles)-1].RoleARN)
	}
	return page, f, nil
}

// findings answers GET /api/v1/findings.
func (s *Server) findings(w http.ResponseWriter, r *http.Request, v *visit) error {
	page, _, err := s.readFindings(r, v)
	if err != nil {
		return err
	}
	return edge.WriteJSON(w, http.StatusOK, page)
}

// A findingsView is what is to be known about the trust policies of all roles.
type findingsView struct {
	wire.FindingsPage
	Account, Severity string
}

// findingsPage answers GET /findings.
func (s *Server) findingsPage(w http.ResponseWriter, r *http.Request, v *visit) error {
	page, f, err := s.readFindings(r, v)
	if err != nil {
		return err
	}
	return s.show(w, v, http.StatusOK, "findings", "Findings", findingsView{FindingsPage: page, Account: f.AccountID, Severity: f.Severity})
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
