package edge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

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

// CodeInternal is the code of every fault, and Apology all that is said of it.
const (
	CodeInternal = "internal"
	Apology      = "Something went wrong on our side."
)

// A Misfit is a refusal with a status that only HTTP knows.
type Misfit struct {
	Status int
	Kind   serval.Kind
	Reason string
}

// Error returns the reason.
func (m Misfit) Error() string { return m.Reason }

// An Early refusal is made here, before anything behind the edge has heard of it.
type Early struct{ *serval.Refusal }

// Unwrap returns the refusal.
func (e Early) Unwrap() error { return e.Refusal }

// Refuse returns an early refusal; see serval.Refuse.
func Refuse(kind serval.Kind, format string, args ...any) error {
	return Early{&serval.Refusal{Kind: kind, Reason: serval.Refuse(kind, format, args...).Error()}}
}

// A passing fault is the database's, which is not there and will be again.
type passing interface {
	error
	Passing() bool
}

// Explain returns what a caller may learn of err.
func Explain(err error) (status int, e wire.Error) {
	if m, ok := errors.AsType[Misfit](err); ok {
		return m.Status, wire.Error{Code: string(m.Kind), Message: m.Reason, Detail: map[string]string{}}
	}
	if r, ok := errors.AsType[*serval.Refusal](err); ok && statusOf[r.Kind] != 0 {
		detail := map[string]string{}
		for name, value := range r.Detail {
			detail[name] = value
		}
		return statusOf[r.Kind], wire.Error{Code: string(r.Kind), Message: r.Reason, Detail: detail}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return http.StatusServiceUnavailable, wire.Error{Code: string(serval.Unavailable), Message: "This took too long and was given up. Look at what came of it, and try again in a moment.",
			Detail: map[string]string{"retry_after": "5"}}
	}
	if p, ok := errors.AsType[passing](err); ok && p.Passing() {
		return http.StatusServiceUnavailable, wire.Error{Code: string(serval.Unavailable), Message: "Serval's database does not answer. Look at what came of it, and try again in a moment.",
			Detail: map[string]string{"retry_after": "5"}}
	}
	return http.StatusInternalServerError, wire.Error{Code: CodeInternal, Message: Apology, Detail: map[string]string{}}
}

// WriteJSON answers with value. Nothing is written before all of it is known.
func WriteJSON(w http.ResponseWriter, status int, value any) error {
	text, err := JSON(value)
	if err != nil {
		return err
	}
	WriteText(w, status, text)
	return nil
}

// JSON returns value as an answer has it.
func JSON(value any) ([]byte, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("encoding an answer: %w", err)
	}
	return append(text, '\n'), nil
}

// WriteText answers with what JSON has made.
func WriteText(w http.ResponseWriter, status int, text []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(text) // whoever does not read it, does not
}
