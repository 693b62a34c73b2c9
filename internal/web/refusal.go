package web

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"path"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/pages"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// refuse answers err: as JSON under /api/, as a page elsewhere.
func (s *Server) refuse(w *edge.Answer, r *http.Request, v *visit, err error) {
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		err = serval.Refuse(serval.Unavailable, "The request was given up.") // nobody reads it
	}
	s.record(r, v, err)
	status, e := edge.Explain(err)
	if _, refused := errors.AsType[*serval.Refusal](err); status == http.StatusInternalServerError || refused && hasCause(err) || !refused && status == http.StatusServiceUnavailable {
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

// againParameter says in an address of ours that somebody came back to it from a
// silent sign-in.
const againParameter = "again"

// errorPage shows a refusal, and how to go on from it. Whoever is not signed in is
// shown how to, and comes back afterwards.
func (s *Server) errorPage(w http.ResponseWriter, r *http.Request, v *visit, status int, e wire.Error) error {
	here := r.URL.RequestURI()
	back := "/"
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		here = path.Dir(r.URL.Path)
		back = here
	}
	if v.from != "" {
		here, back = v.from, v.from
	}
	if e.Code == string(serval.Unauthenticated) {
		return s.pages.ShowSignIn(w, v.page(), status, s.returnTo(here))
	}
	if e.Code == string(serval.LoginRequired) && v.who.Kind == serval.KindPerson && r.Method == http.MethodPost {
		// The ID token has ended, not the login: it is renewed without a question,
		// and what was posted is done again by whoever posted it.
		to := loginPath(s.returnTo(back+"?"+againParameter+"=1"), "none")
		if r.Header.Get("Sec-Fetch-Mode") != "" {
			// A browser holds what a form leads to, by however many redirects, to the
			// form-action of its page, and the provider is none of ours. A page that goes
			// on by itself is not what the form leads to.
			return s.pages.ShowOnward(w, v.page(), to)
		}
		return s.redirect(w, to)
	}
	way := pages.Way{Back: s.returnTo(back)}
	if e.Code == string(serval.LoginRequired) {
		way.SignIn = s.returnTo(here)
	}
	if v.route != nil && v.route.Pattern == "/oidc/auth/callback" {
		way.Next, way.SignIn = "Start again, in this browser.", "/roles"
	}
	return s.pages.ShowError(w, v.page(), status, e, way)
}

// hasCause reports whether a refusal has a fault behind it that the log should
// have: the identity provider is away.
func hasCause(err error) bool {
	switch err.(type) {
	case *serval.Refusal, edge.Early:
		return false
	}
	return true
}

// record has the audit log hear of what was refused here to somebody who is signed
// in; what the plane refuses it records itself.
func (s *Server) record(r *http.Request, v *visit, err error) {
	early, ok := errors.AsType[edge.Early](err)
	if !ok || v.route == nil {
		return
	}
	if v.who.Kind != serval.KindPerson {
		// Another site's is turned away before anybody is recognised.
		if v.route.Rule == Public || v.route.Rule == Worker {
			return
		}
		token, _ := s.cookies.Load().read(r, loginCookie)
		who, _, err := s.c.Logins.Recognise(r.Context(), v.who, token)
		if err != nil {
			return
		}
		v.who = who
	}
	s.c.Plane.TurnedAway(r.Context(), v.who, r.Method+" "+v.route.Pattern, early.Refusal)
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
