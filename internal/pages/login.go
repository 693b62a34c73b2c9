package pages

import (
	"net/http"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/shape"
)

// Home shows who is not signed in what this is, and everybody else the
// roles.
func (p *Pages) Home(w http.ResponseWriter, r *http.Request, v *Visit) error {
	if v.Who.Kind == serval.KindPerson {
		return p.redirect(w, "/roles")
	}
	return p.show(w, v, http.StatusOK, "signin", "Sign in", signInView{ReturnTo: "/roles"})
}

// A signInView is the page of who is not signed in.
type signInView struct {
	ReturnTo string
	Ended    bool // they came for a page that wants a login
}

// ShowOnward shows a page that goes on by itself, to a path of ours that leads to
// the identity provider and back.
func (p *Pages) ShowOnward(w http.ResponseWriter, v *Visit, to string) error {
	v.onward = to
	return p.show(w, v, http.StatusUnauthorized, "onward", "Signing you in again", to)
}

// What browsers and systems call themselves by, and what people call them: the first
// that is there counts, since most name others besides.
var (
	browsers = [][2]string{{"Edg/", "Edge"}, {"OPR/", "Opera"}, {"Firefox/", "Firefox"}, {"FxiOS/", "Firefox"}, {"CriOS/", "Chrome"}, {"Chrome/", "Chrome"}, {"Safari/", "Safari"}}
	systems  = [][2]string{{"Windows", "Windows"}, {"Android", "Android"}, {"iPhone", "an iPhone"}, {"iPad", "an iPad"}, {"CrOS", "ChromeOS"}, {"Mac OS X", "macOS"}, {"Linux", "Linux"}}
)

// agent says in people's words what a browser calls itself; what is no browser of
// theirs, such as a client, is said as it is.
func agent(text string) string {
	find := func(list [][2]string) string {
		for _, one := range list {
			if strings.Contains(text, one[0]) {
				return one[1]
			}
		}
		return ""
	}
	browser, system := find(browsers), find(systems)
	if !strings.HasPrefix(text, "Mozilla/") || browser == "" || system == "" {
		return text
	}
	return browser + " on " + system
}

// Logins shows where somebody is signed in.
func (p *Pages) Logins(w http.ResponseWriter, r *http.Request, v *Visit) error {
	logins, err := p.c.Logins.List(r.Context(), v.Who)
	if err != nil {
		return err
	}
	return p.show(w, v, http.StatusOK, "logins", "Logins", shape.Logins(logins, v.LoginID))
}

// ShowSignIn says to whoever comes for a page that wants a login that they are not
// signed in, and leads back to it. It is a button and no redirect, so that it never
// loops.
func (p *Pages) ShowSignIn(w http.ResponseWriter, v *Visit, status int, returnTo string) error {
	return p.show(w, v, status, "signin", "Sign in", signInView{ReturnTo: returnTo, Ended: true})
}
