package web

import (
	"bufio"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/shape"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// audit answers GET /api/v1/audit.
func (s *Server) audit(w http.ResponseWriter, r *http.Request, v *visit) error {
	q, err := edge.Query(r, "target", "actor", "action", "outcome", "from", "to", "page_size", "page_token")
	if err != nil {
		return err
	}
	f := control.AuditFilter{
		Target: q.Get("target"), Actor: q.Get("actor"), Action: serval.Action(q.Get("action")), Outcome: serval.Outcome(q.Get("outcome")),
	}
	var after string
	if f.Limit, after, err = edge.Page(q); err != nil {
		return err
	}
	if f.Before, err = edge.Number(after); err != nil {
		return err
	}
	if f.From, f.To, err = period(q); err != nil {
		return err
	}
	rows, next, head, err := s.c.Plane.Events(r.Context(), v.who, f)
	if err != nil {
		return err
	}
	answer := wire.Events{Events: []wire.Event{}, Head: wire.Head{Seq: head.Seq, Hash: head.Hash}}
	for _, row := range rows {
		answer.Events = append(answer.Events, shape.Event(row))
	}
	answer.NextPageToken = edge.PageToken(next != 0, strconv.FormatInt(next, 10))
	return edge.WriteJSON(w, http.StatusOK, answer)
}

// period reads from when to when; zero where nothing is said.
func period(q url.Values) (from, to time.Time, err error) {
	if from, err = edge.Instant(q, "from"); err != nil {
		return from, to, err
	}
	to, err = edge.Instant(q, "to")
	return from, to, err
}

// exportTime is how long an export may take. One that breaks off is taken up again
// behind its last row.
const exportTime = time.Hour

// exportAudit answers GET /api/v1/audit/export: a row on each line, as serval-bridge
// audit export writes it, and on the last the chain's head. An export without that
// line broke off.
func (s *Server) exportAudit(w http.ResponseWriter, r *http.Request, v *visit) error {
	q, err := edge.Query(r, "after")
	if err != nil {
		return err
	}
	after, err := edge.Seq(q, "after")
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(w, 64<<10)
	lines := json.NewEncoder(out)
	lines.SetEscapeHTML(false)
	head, err := s.c.Plane.Export(r.Context(), v.who, after, func(l serval.Link) error {
		w.Header().Set("Content-Type", "application/jsonl") // not before: a refusal is none
		return lines.Encode(l)
	})
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/jsonl")
	if err := lines.Encode(wire.ExportEnd{Head: wire.Head{Seq: head.Seq, Hash: head.Hash}}); err != nil {
		return err
	}
	return out.Flush()
}

// defaultPeriod is the period of a report where nothing is said.
const defaultPeriod = 30 * 24 * time.Hour

// accessReport answers GET /api/v1/reports/access.
func (s *Server) accessReport(w http.ResponseWriter, r *http.Request, v *visit) error {
	q, err := edge.Query(r, "from", "to", "account_id", "email", "page_size", "page_token")
	if err != nil {
		return err
	}
	f := control.ReportFilter{AccountID: q.Get("account_id"), Email: q.Get("email")}
	if f.Limit, f.After, err = edge.Page(q); err != nil {
		return err
	}
	if f.From, f.To, err = period(q); err != nil {
		return err
	}
	now := s.c.Now().UTC()
	if f.To.IsZero() {
		f.To = now.Truncate(time.Second).Add(time.Second) // what began just now is of it
	}
	if f.From.IsZero() {
		f.From = f.To.Add(-defaultPeriod)
	}
	roles, next, err := s.c.Plane.AccessReport(r.Context(), v.who, f)
	if err != nil {
		return err
	}
	answer := shape.AccessReport(roles)
	answer.From, answer.To, answer.AsOf = wire.Time{Time: f.From}, wire.Time{Time: f.To}, wire.Time{Time: now}
	answer.NextPageToken = edge.PageToken(next != "", next)
	return edge.WriteJSON(w, http.StatusOK, answer)
}
