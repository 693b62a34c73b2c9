package web

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"

	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// The header of a write that may be sent again, and the one of an answer that
// was given before.
const (
	repeatHeader   = "Idempotency-Key"
	repeatedHeader = "Idempotency-Replayed"
)

// maxKey bounds an idempotency key, in bytes.
const maxKey = 255

// isRepeatable reports whether r is a person's write that came with a key.
func (v *visit) isRepeatable(r *http.Request) bool {
	return v.who.Kind == serval.KindPerson && !v.route.stream && strings.HasPrefix(v.route.Pattern, "/api/") &&
		r.Method != http.MethodGet && r.Method != http.MethodHead && len(r.Header.Values(repeatHeader)) > 0
}

// once has a write done once, however often it is sent with its key, and gives
// each the same answer. The answer is kept before it is given. Where the route
// says so it is not: credentials do not rest.
func (s *Server) once(w http.ResponseWriter, r *http.Request, v *visit) error {
	key := r.Header.Get(repeatHeader)
	if len(r.Header.Values(repeatHeader)) > 1 || key == "" || len(key) > maxKey || strings.ContainsFunc(key, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
		return edge.Refuse(serval.Invalid, "%s is one text of 1 to %d visible ASCII characters.", repeatHeader, maxKey)
	}
	body, err := edge.ReadBody(r)
	if err != nil {
		return err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	sum := sha256.New()
	fmt.Fprintf(sum, "%s %s\n%s\n", r.Method, r.URL.RequestURI(), r.Header.Get("Content-Type"))
	sum.Write(body)
	found, err := s.c.Plane.Claim(r.Context(), v.who, key, hex.EncodeToString(sum.Sum(nil)))
	if err != nil {
		return err
	}
	if found.Status != 0 {
		w.Header().Set(repeatedHeader, "true")
		give(w, found.Status, found.Answer)
		return nil
	}
	v.who = found.Who
	a := &held{ResponseWriter: w}
	settled := false
	settle := func(refused bool, status int, answer []byte) {
		settled = true
		if err := s.c.Plane.Settle(r.Context(), v.who, key, refused, status, answer); err != nil {
			s.c.Log.Warn("what came of an idempotency key could not be kept", zap.String("request_id", v.who.RequestID), zap.Error(err))
		}
	}
	defer func() {
		if !settled { // it failed, or panicked
			settle(false, 0, nil)
		}
		v.who.Claim = ""
	}()
	switch err := v.route.handle(s, a, r, v); {
	case serval.IsRefusal(err):
		settle(v.route.secret, 0, nil) // what would have been given was not
		return err
	case err != nil:
		return err
	case v.route.secret:
		settle(false, 0, nil)
	default:
		settle(false, a.status, a.body.Bytes())
	}
	give(w, a.status, a.body.Bytes())
	return nil
}

// give answers with JSON that was made before, or with no body.
func give(w http.ResponseWriter, status int, body []byte) {
	if len(body) > 0 {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(status)
	_, _ = w.Write(body) // whoever does not read it, does not
}

// held is an answer that is kept before it is given.
type held struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

// WriteHeader notes the status.
func (h *held) WriteHeader(status int) { h.status = status }

// Write keeps.
func (h *held) Write(p []byte) (int, error) {
	if h.status == 0 {
		h.status = http.StatusOK
	}
	return h.body.Write(p)
}
