package web

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// statusOf is the HTTP status of each kind of refusal. It is read only.
var statusOf = map[serval.Kind]int{
	serval.Invalid:            http.StatusBadRequest,
	serval.Unauthenticated:    http.StatusUnauthorized,
	serval.LoginRequired:      http.StatusUnauthorized,
	serval.Denied:             http.StatusForbidden,
	serval.NotFound:           http.StatusNotFound,
	serval.Conflict:           http.StatusConflict,
	serval.TooLarge:           http.StatusRequestEntityTooLarge,
	serval.FailedPrecondition: http.StatusUnprocessableEntity,
	serval.Exhausted:          http.StatusTooManyRequests,
	serval.Unavailable:        http.StatusServiceUnavailable,
}

// codeInternal is the code of every fault, and apology is all that is said.
const (
	codeInternal = "internal"
	apology      = "Something went wrong on our side."
)

// A misfit is a refusal with a status that only HTTP knows.
type misfit struct {
	status int
	kind   serval.Kind
	reason string
}

// Error returns the reason.
func (m misfit) Error() string { return m.reason }

// explain returns what a caller may learn of err.
func explain(err error) (status int, e wire.Error) {
	if m, ok := errors.AsType[misfit](err); ok {
		return m.status, wire.Error{Code: string(m.kind), Message: m.reason, Detail: map[string]string{}}
	}
	if r, ok := errors.AsType[*serval.Refusal](err); ok && statusOf[r.Kind] != 0 {
		detail := map[string]string{}
		for name, value := range r.Detail {
			detail[name] = value
		}
		return statusOf[r.Kind], wire.Error{Code: string(r.Kind), Message: r.Reason, Detail: detail}
	}
	return http.StatusInternalServerError, wire.Error{Code: codeInternal, Message: apology, Detail: map[string]string{}}
}

// refuse answers err: as JSON under /api/, as a page elsewhere.
func (s *Server) refuse(w *answer, r *http.Request, v *visit, err error) {
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		err = serval.Refuse(serval.Unavailable, "The request was given up.") // nobody reads it
	}
	status, e := explain(err)
	if _, refused := errors.AsType[*serval.Refusal](err); status == http.StatusInternalServerError || refused && hasCause(err) {
		v.fault = err
	}
	if w.written {
		return // half an answer is on its way; it breaks off
	}
	h := w.Header()
	switch status {
	case http.StatusTooManyRequests:
		h.Set("Retry-After", cmp.Or(e.Detail["retry_after"], "60"))
	case http.StatusUnauthorized:
		if v.route != nil && v.route.Rule == Worker {
			h.Set("WWW-Authenticate", "Bearer")
		}
	case http.StatusInternalServerError:
		e.Detail["request_id"] = v.who.RequestID
	}
	if strings.HasPrefix(r.URL.Path, "/api/") {
		if err := writeJSON(w, status, e); err != nil {
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
func (s *Server) apologise(w *answer, r *http.Request, v *visit) {
	if w.written {
		return
	}
	if strings.HasPrefix(r.URL.Path, "/api/") {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(w, `{"code":%q,"message":%q,"detail":{"request_id":%q}}`+"\n", codeInternal, apology, v.who.RequestID)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(http.StatusInternalServerError)
	fmt.Fprintf(w, "%s\n\nRequest %s\n", apology, v.who.RequestID)
}

// writeJSON answers with value. Nothing is written before all of it is known.
func writeJSON(w http.ResponseWriter, status int, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encoding an answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // whoever does not read it, does not
	return nil
}
