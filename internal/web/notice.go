package web

import (
	"cmp"
	"net/http"

	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/shape"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// notices answers GET /api/v1/notices.
func (s *Server) notices(w http.ResponseWriter, r *http.Request, v *visit) error {
	q, err := edge.Query(r, "state", "page_size", "page_token")
	if err != nil {
		return err
	}
	limit, after, err := edge.Page(q)
	if err != nil {
		return err
	}
	state := serval.NoticeState(cmp.Or(q.Get("state"), string(serval.NoticeFailed)))
	found, next, err := s.c.Plane.Notices(r.Context(), v.who, state, after, limit)
	if err != nil {
		return err
	}
	page := wire.SentNotices{Notices: []wire.SentNotice{}, NextPageToken: edge.PageToken(next != "", next)}
	for _, n := range found {
		page.Notices = append(page.Notices, shape.SentNotice(n))
	}
	return edge.WriteJSON(w, http.StatusOK, page)
}

// retryNotice answers POST /api/v1/notices/{id}/retry.
func (s *Server) retryNotice(w http.ResponseWriter, r *http.Request, v *visit) error {
	if err := edge.DecodeNothing(r); err != nil {
		return err
	}
	n, err := s.c.Plane.RetryNotice(r.Context(), v.who, r.PathValue("id"))
	if err != nil {
		return err
	}
	return edge.WriteJSON(w, http.StatusOK, shape.SentNotice(n))
}
