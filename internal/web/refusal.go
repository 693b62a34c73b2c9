package web

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// refuse answers err: as JSON under /api/, as a page elsewhere.
func (s *Server) refuse(w *edge.Answer, r *http.Request, v *visit, err error) {
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		err = serval.Refuse(serval.Unavailable, "The request was given up.") // nobody reads it
	}
	status, e := edge.Explain(err)
	if _, refused := errors.AsType[*serval.Refusal](err); status == http.StatusInternalServerError || refused && hasCause(err) {
		v.fault = err
	}
	if w.Written {
		return // half an answer is on its way; it breaks off
	}
	h := w.Header()
	switch status {
	case http.StatusTooManyRequests:
		h.Set("Retry-After", cmp.Or(e.Detail["retry_after"], "60"))
	case http.StatusServiceUnavailable:
		if after := e.Detail["retry_after"]; after != "" {
			h.Set("Retry-After", after)
		}
	case http.StatusUnauthorized:
		if v.route != nil && v.route.Rule == Worker {
			h.Set("WWW-Authenticate", "Bearer")
		}
	case http.StatusInternalServerError:
		e.Detail["request_id"] = v.who.RequestID
	}
	if strings.HasPrefix(r.URL.Path, "/api/") {
		if err := edge.WriteJSON(w, status, e); err != nil {
			v.fault = errors.Join(v.fault, err)
		}
		return
	}
	if err := s.errorPage(w, r, v, status, e); err != nil {
		v.fault = errors.Join(v.fault, err)
		s.apologise(w, r, v)
	}
}

// hasCause reports whether a refusal has a fault behind it that the log should
// have: the identity provider is away.
func hasCause(err error) bool {
	_, plain := err.(*serval.Refusal)
	return !plain
}

// apologise answers without anything that could fail again.
func (s *Server) apologise(w *edge.Answer, r *http.Request, v *visit) {
	if w.Written {
		return
	}
	if strings.HasPrefix(r.URL.Path, "/api/") {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(w, `{"code":%q,"message":%q,"detail":{"request_id":%q}}`+"\n", edge.CodeInternal, edge.Apology, v.who.RequestID)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(http.StatusInternalServerError)
	fmt.Fprintf(w, "%s\n\nRequest %s\n", edge.Apology, v.who.RequestID)
}
