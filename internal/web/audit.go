package web

import (
	"net/http"
	"net/url"
	"strconv"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/shape"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// events reads a page of the audit log.
func (s *Server) events(r *http.Request, v *visit, q url.Values) (wire.Events, error) {
	size, after, err := edge.Page(q)
	if err != nil {
		return wire.Events{}, err
	}
	before, err := edge.Number(after)
	if err != nil {
		return wire.Events{}, err
	}
	rows, head, err := s.c.Plane.Events(r.Context(), v.who, control.AuditFilter{
		Before: before, Target: q.Get("target"), Action: serval.Action(q.Get("action")), Limit: size + 1,
	})
	if err != nil {
		return wire.Events{}, err
	}
	answer := wire.Events{Events: []wire.Event{}, Head: wire.Head{Seq: head.Seq, Hash: head.Hash}}
	for _, row := range rows[:min(size, len(rows))] {
		answer.Events = append(answer.Events, shape.Event(row))
	}
	if len(rows) > size {
		answer.NextPageToken = edge.PageToken(true, strconv.FormatInt(rows[size-1].Seq, 10))
	}
	return answer, nil
}

// audit answers GET /api/v1/audit.
func (s *Server) audit(w http.ResponseWriter, r *http.Request, v *visit) error {
	q, err := edge.Query(r, "target", "action", "page_size", "page_token")
	if err != nil {
		return err
	}
	answer, err := s.events(r, v, q)
	if err != nil {
		return err
	}
	return edge.WriteJSON(w, http.StatusOK, answer)
}
