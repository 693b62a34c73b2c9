package web

import (
	"encoding/json"
	"net/http"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/shape"
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
			return edge.Refuse(serval.Invalid, `Give a policy and a context: {"policy": {…}, "context": {…}}.`)
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
	return edge.WriteJSON(w, http.StatusOK, wire.TrustAnswer{Trust: shape.Trust(verdict), Findings: shape.TrustFindings(findings)})
}

// findings answers GET /api/v1/findings.
func (s *Server) findings(w http.ResponseWriter, r *http.Request, v *visit) error {
	q, err := edge.Query(r, "account_id", "severity", "page_size", "page_token")
	if err != nil {
		return err
	}
	f := control.FindingFilter{AccountID: q.Get("account_id"), Severity: q.Get("severity")}
	if f.Limit, f.After, err = edge.Page(q); err != nil {
		return err
	}
	roles, next, err := s.c.Plane.Findings(r.Context(), v.who, f)
	if err != nil {
		return err
	}
	answer := shape.Findings(roles)
	answer.NextPageToken = edge.PageToken(next != "", next)
	return edge.WriteJSON(w, http.StatusOK, answer)
}
