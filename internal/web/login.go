package web

import (
	"context"
	"crypto/rand"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/login"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/shape"
	"github.com/serval-bridge/serval-bridge/internal/signin"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// beginLogin sends a browser to the identity provider. Whoever was signed in is
// not any more, unless another site sent them here: that could otherwise sign
// people out.
func (s *Server) beginLogin(w http.ResponseWriter, r *http.Request, v *visit) error {
	if s.c.Crowded != nil && s.c.Crowded() {
		return &serval.Refusal{Kind: serval.Unavailable, Reason: "Serval is very busy; those who are signed in come first. Try again in a moment.",
			Detail: map[string]string{"retry_after": "5"}}
	}
	if err := s.logins.Take(v.who.Address, s.c.Now()); err != nil {
		return err
	}
	select {
	case s.going <- struct{}{}:
		defer func() { <-s.going }()
	default:
		return crowded()
	}
	returnTo := s.returnTo(r.URL.Query().Get("return_to"))
	if v.who.Kind == serval.KindPerson && r.Header.Get("Sec-Fetch-Site") == "cross-site" {
		return s.redirect(w, returnTo)
	}
	// A silent sign-in renews the ID token of whoever is signed in, and asks them
	// nothing; where the provider wants to ask, it becomes one that does.
	var prompt login.Prompt
	var subject string
	if v.who.Kind == serval.KindPerson && r.URL.Query().Get("prompt") == "none" {
		prompt, subject = login.Prompt{Silent: true, LoginHint: v.who.Person.Email}, v.who.Person.Subject
	}
	attempt, provider, err := s.c.Login.Begin(r.Context(), prompt)
	if err != nil {
		return err
	}
	// Several tabs of one browser share one id, so that all may come back.
	browser, _ := s.cookies.Load().read(r, attemptCookie)
	if browser.Empty() {
		browser = serval.NewSecret(rand.Text() + rand.Text())
	}
	err = s.c.Logins.Begin(r.Context(), v.nobody(), attempt.State, browser, v.token, signin.Attempt{
		Issuer: attempt.Issuer, Nonce: attempt.Nonce, Verifier: attempt.Verifier, ReturnTo: returnTo, CreatedAt: attempt.CreatedAt, Subject: subject,
	})
	if err != nil {
		return err
	}
	if err := s.cookies.Load().write(w, r, attemptCookie, browser); err != nil {
		return err
	}
	if _, err := r.Cookie(loginCookie); err == nil {
		s.cookies.Load().clear(w, loginCookie)
	}
	w.Header().Set("Location", provider)
	w.WriteHeader(http.StatusSeeOther)
	return nil
}

// nobody returns the visit's principal as it was before anybody was recognised.
func (v *visit) nobody() serval.Principal {
	return serval.Principal{Kind: serval.KindNobody, RequestID: v.who.RequestID, Address: v.who.Address}
}

// crowded is said where too many sign in at the same moment. Nothing was taken.
func crowded() error {
	return &serval.Refusal{Kind: serval.Unavailable, Reason: "Too many people are signing in right now. Load this page again in a few seconds.",
		Detail: map[string]string{"retry_after": "5"}}
}

// finishLogin takes a browser back from the identity provider. An attempt that
// is not there, any more or for this browser, changes nothing: whoever is signed
// in stays so.
func (s *Server) finishLogin(w http.ResponseWriter, r *http.Request, v *visit) error {
	if err := s.returns.Take(v.who.Address, s.c.Now()); err != nil {
		return err
	}
	select {
	case s.coming <- struct{}{}:
		defer func() { <-s.coming }()
	default:
		return crowded()
	}
	answer, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || len(answer["state"]) != 1 {
		return serval.Refuse(serval.Invalid, "This is not an answer of the identity provider to a sign-in of yours. Start again.")
	}
	state := serval.NewSecret(answer.Get("state"))
	browser, _ := s.cookies.Load().read(r, attemptCookie)
	var begun signin.Attempt
	in, err := s.c.Logins.SignIn(r.Context(), v.nobody(), state, browser, r.UserAgent(), func(ctx context.Context, kept signin.Attempt) (signin.Identity, error) {
		begun = kept
		return s.identify(ctx, state, kept, answer)
	})
	if begun.Subject != "" && serval.IsRefusal(err, serval.LoginRequired) {
		return s.redirect(w, loginPath(begun.ReturnTo, ""))
	}
	if serval.IsRefusal(err, serval.NotFound) {
		return edge.Misfit{Status: http.StatusBadRequest, Kind: serval.Invalid, Reason: err.Error()}
	}
	if err != nil {
		return err
	}
	if v.who.Kind == serval.KindPerson {
		// Another tab was quicker; the browser forgets that login now.
		if err := s.c.Logins.End(r.Context(), v.who, v.login.ID); err != nil && !serval.IsRefusal(err) {
			return err
		}
	}
	if err := s.cookies.Load().write(w, r, loginCookie, in.Token); err != nil {
		return err
	}
	return s.redirect(w, in.ReturnTo) // checked before it was sealed
}

// identify asks the identity provider who it is, for the attempt that was kept.
func (s *Server) identify(ctx context.Context, state serval.Secret, kept signin.Attempt, answer url.Values) (signin.Identity, error) {
	id, err := s.c.Login.Finish(ctx, login.Attempt{
		State: state, Nonce: kept.Nonce, Verifier: kept.Verifier, Issuer: kept.Issuer, CreatedAt: kept.CreatedAt,
	}, answer)
	if err != nil {
		return signin.Identity{}, err
	}
	return Identity(id), nil
}

// Identity returns what sign-in has found as the control plane takes it.
func Identity(id login.Identity) signin.Identity {
	return signin.Identity{
		Issuer: id.Issuer, Subject: id.Subject, Email: id.Email, Groups: id.Groups, GroupsNote: id.GroupsNote,
		IDToken: id.IDToken, ExpiresAt: id.ExpiresAt, AuthorizedParty: id.AuthorizedParty, AWSClaims: id.AWSClaims, AuthTime: id.AuthTime, RefreshToken: id.RefreshToken,
	}
}

// Refresher returns what asks the identity provider again who somebody is, for
// the control plane.
func Refresher(p *login.Provider) signin.Refresher {
	return func(ctx context.Context, token serval.Secret, was signin.Identity) (signin.Identity, error) {
		id, err := p.Refresh(ctx, token, login.Identity{Issuer: was.Issuer, Subject: was.Subject, AuthTime: was.AuthTime})
		if err != nil {
			return signin.Identity{}, err
		}
		return Identity(id), nil
	}
}

// loginPath returns where a sign-in begins that comes back to a page of ours.
func loginPath(returnTo, prompt string) string {
	q := url.Values{"return_to": {returnTo}}
	if prompt != "" {
		q.Set("prompt", prompt)
	}
	return "/oidc/auth/login?" + q.Encode()
}

// maxReturnTo bounds where a sign-in comes back to.
const maxReturnTo = 2000

// returnTo returns the page of ours that text names, built anew from its parts:
// a path that the table has as a page. Anything else is the first page.
func (s *Server) returnTo(text string) string {
	const home = "/"
	if len(text) > maxReturnTo || !strings.HasPrefix(text, "/") || strings.ContainsFunc(text, func(c rune) bool { return c <= 0x20 || c >= 0x7f || c == '\\' }) {
		return home
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || u.Opaque != "" || path.Clean(u.Path) != u.Path {
		return home
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return home
	}
	to := &url.URL{Path: u.Path, RawQuery: q.Encode()}
	found, _ := s.match(&http.Request{Method: http.MethodGet, URL: to})
	if found == nil || found.Rule == Public || found.Rule == Worker || strings.HasPrefix(u.Path, "/api/") || strings.HasPrefix(u.Path, "/oidc/") {
		return home
	}
	return to.String()
}

// signOut ends the login that the browser holds, and works when there is none.
func (s *Server) signOut(w http.ResponseWriter, r *http.Request, v *visit) error {
	if v.who.Kind == serval.KindPerson {
		if err := s.c.Logins.End(r.Context(), v.who, v.login.ID); err != nil && !serval.IsRefusal(err, serval.NotFound) {
			return err
		}
	}
	s.cookies.Load().clear(w, loginCookie)
	return s.redirect(w, "/")
}

// me answers GET /api/v1/me.
func (s *Server) me(w http.ResponseWriter, r *http.Request, v *visit) error {
	if _, err := edge.Query(r); err != nil {
		return err
	}
	return edge.WriteJSON(w, http.StatusOK, shape.Me(v.who, v.login))
}

// listLogins answers GET /api/v1/logins, the latest first. A page begins behind an
// instant and an id, so that a login that has ended meanwhile takes no place away.
func (s *Server) listLogins(w http.ResponseWriter, r *http.Request, v *visit) error {
	q, err := edge.Query(r, "page_size", "page_token")
	if err != nil {
		return err
	}
	size, after, err := edge.Page(q)
	if err != nil {
		return err
	}
	logins, err := s.c.Logins.List(r.Context(), v.who)
	if err != nil {
		return err
	}
	answer := shape.Logins(logins, v.login.ID)
	if after != "" {
		at, id, _ := strings.Cut(after, " ")
		last, err := time.Parse(time.RFC3339Nano, at)
		if err != nil {
			return edge.Refuse(serval.Invalid, "This page_token is not of this list.")
		}
		answer.Logins = slices.DeleteFunc(answer.Logins, func(l wire.Login) bool {
			return l.CreatedAt.After(last) || l.CreatedAt.Equal(last) && l.ID <= id
		})
	}
	if len(answer.Logins) > size {
		answer.Logins = answer.Logins[:size]
		last := answer.Logins[size-1]
		answer.NextPageToken = edge.PageToken(true, last.CreatedAt.UTC().Format(time.RFC3339Nano)+" "+last.ID)
	}
	return edge.WriteJSON(w, http.StatusOK, answer)
}

// endLogin answers DELETE /api/v1/logins/{id}.
func (s *Server) endLogin(w http.ResponseWriter, r *http.Request, v *visit) error {
	if err := s.endNamedLogin(w, r, v); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) endNamedLogin(w http.ResponseWriter, r *http.Request, v *visit) error {
	id := r.PathValue("id")
	if err := s.c.Logins.End(r.Context(), v.who, id); err != nil {
		return err
	}
	if id == v.login.ID {
		s.cookies.Load().clear(w, loginCookie)
	}
	return nil
}

// postEndLogin ends a login from its page.
func (s *Server) postEndLogin(w http.ResponseWriter, r *http.Request, v *visit) error {
	if err := s.endNamedLogin(w, r, v); err != nil {
		return err
	}
	if r.PathValue("id") == v.login.ID {
		return s.redirect(w, "/")
	}
	return s.redirect(w, "/logins")
}
