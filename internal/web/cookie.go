package web

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/securecookie"
	"github.com/gorilla/sessions"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// The cookies. Each holds one opaque random id, encrypted and signed. The prefix
// binds them to this very host, also where that is http on loopback, which
// browsers trust alike.
const (
	loginCookie   = "__Host-serval"       // who is signed in
	attemptCookie = "__Host-serval-login" // which browser began to sign in
)

// How long a browser keeps them: as long as what they name can last.
const (
	loginAge   = 8 * time.Hour
	attemptAge = 10 * time.Minute
)

// cookieValue is the name of the id within a cookie.
const cookieValue = "id"

// cookies reads and writes them.
type cookies struct {
	login, attempt *sessions.CookieStore
}

// newCookies derives the keys. What was made under an older secret still opens;
// what is written is made under the present one.
func newCookies(secret serval.Secret, older []serval.Secret) *cookies {
	var keys [][]byte
	for _, s := range append([]serval.Secret{secret}, older...) {
		keys = append(keys, s.Key("cookie hash"), s.Key("cookie block"))
	}
	lasting := func(age time.Duration) *sessions.CookieStore {
		store := sessions.NewCookieStore(keys...)
		for _, codec := range store.Codecs {
			if c, ok := codec.(*securecookie.SecureCookie); ok {
				c.SetSerializer(plainID{})
			}
		}
		store.Options = &sessions.Options{Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode}
		store.MaxAge(int(age / time.Second)) // the codecs' bound as well
		return store
	}
	return &cookies{login: lasting(loginAge), attempt: lasting(attemptAge)}
}

// plainID writes the one value that a cookie of ours has as it is. What the
// package would do by itself describes the type of a map with each cookie, which
// costs as much as all else that is done for a request.
type plainID struct{}

// Serialize returns the id.
func (plainID) Serialize(src any) ([]byte, error) {
	values, ok := src.(map[any]any)
	id, is := values[cookieValue].(string)
	if !ok || !is || len(values) != 1 {
		return nil, errors.New("web: a cookie holds one id")
	}
	return []byte(id), nil
}

// Deserialize puts the id into the map that dst points to.
func (plainID) Deserialize(src []byte, dst any) error {
	values, ok := dst.(*map[any]any)
	if !ok {
		return errors.New("web: a cookie holds one id")
	}
	*values = map[any]any{cookieValue: string(src)}
	return nil
}

// store returns what reads and writes the cookie of a name.
func (c *cookies) store(name string) *sessions.CookieStore {
	if name == loginCookie {
		return c.login
	}
	return c.attempt
}

// read returns the id that a cookie holds: empty where there is none, and broken
// where there is one that is not ours. That is an anonymous visitor, no fault.
func (c *cookies) read(r *http.Request, name string) (id serval.Secret, broken bool) {
	if _, err := r.Cookie(name); err != nil {
		return serval.Secret{}, false
	}
	session, err := c.store(name).New(r, name)
	if err != nil {
		return serval.Secret{}, true
	}
	text, ok := session.Values[cookieValue].(string)
	if !ok || text == "" {
		return serval.Secret{}, true
	}
	return serval.NewSecret(text), false
}

// write sets a cookie in place of whatever this answer said of it before.
func (c *cookies) write(w http.ResponseWriter, r *http.Request, name string, id serval.Secret) error {
	forget(w.Header(), name)
	store := c.store(name)
	session := sessions.NewSession(store, name)
	session.Options = store.Options
	session.Values[cookieValue] = id.Reveal()
	return store.Save(r, w, session)
}

// clear has the browser drop a cookie.
func (*cookies) clear(w http.ResponseWriter, name string) {
	forget(w.Header(), name)
	http.SetCookie(w, &http.Cookie{
		Name: name, Path: "/", MaxAge: -1, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}

func forget(h http.Header, name string) {
	kept := h["Set-Cookie"][:0]
	for _, line := range h["Set-Cookie"] {
		if !strings.HasPrefix(line, name+"=") {
			kept = append(kept, line)
		}
	}
	h["Set-Cookie"] = kept
	if len(kept) == 0 {
		h.Del("Set-Cookie")
	}
}
