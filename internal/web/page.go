package web

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

//go:embed templates static
var files embed.FS

// pages are the templates and static files, ready to serve.
type pages struct {
	byName map[string]*template.Template
	static map[string]staticFile // by path
}

type staticFile struct {
	text []byte
	kind string
	tag  string // of its text
}

// newPages reads the templates: each page is the layout with one content.
func newPages() (*pages, error) {
	p := &pages{byName: map[string]*template.Template{}, static: map[string]staticFile{}}
	kinds := map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
	names, err := fs.Glob(files, "static/*")
	if err != nil {
		return nil, fmt.Errorf("reading the static files: %w", err)
	}
	for _, name := range names {
		text, err := files.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("reading the static files: %w", err)
		}
		sum := sha256.Sum256(text)
		p.static["/"+name] = staticFile{text, kinds[path.Ext(name)], hex.EncodeToString(sum[:8])}
	}
	layout, err := template.New("layout.html").Funcs(template.FuncMap{
		"rfc": rfc, "utc": utc, "long": long, "seconds": func(n int) string { return long(n / 60) }, "deref": deref, "asset": p.asset, "name": roleName, "isRequest": func(id string) bool { return strings.HasPrefix(id, "req_") }, "tone": severityTone, "severities": func() any { return severities },
		"join": func(t []string) string { return strings.Join(t, ", ") },
	}).ParseFS(files, "templates/layout.html", "templates/parts.html")
	if err != nil {
		return nil, fmt.Errorf("reading the pages: %w", err)
	}
	names, err = fs.Glob(files, "templates/*.html")
	if err != nil {
		return nil, fmt.Errorf("reading the pages: %w", err)
	}
	for _, name := range names {
		short := strings.TrimSuffix(path.Base(name), ".html")
		if short == "layout" || short == "parts" {
			continue
		}
		one, err := layout.Clone()
		if err == nil {
			one, err = one.ParseFS(files, name)
		}
		if err != nil {
			return nil, fmt.Errorf("reading the page %s: %w", short, err)
		}
		p.byName[short] = one
	}
	return p, nil
}

// asset returns the address of a static file, which changes with its text.
func (p *pages) asset(name string) string {
	at := "/static/" + name
	return at + "?v=" + p.static[at].tag
}

// static answers with a static file. One that is asked for by its tag never
// changes.
func (s *Server) static(w http.ResponseWriter, r *http.Request, _ *visit) error {
	f := s.pages.static[r.URL.Path]
	h := w.Header()
	h.Set("Content-Type", f.kind)
	h.Set("ETag", `"`+f.tag+`"`)
	h.Set("Cache-Control", "no-cache")
	if r.URL.Query().Get("v") == f.tag {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	if r.Header.Get("If-None-Match") == `"`+f.tag+`"` {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	_, _ = w.Write(f.text)
	return nil
}

// A layout is what every page has around its content.
type layout struct {
	Title     string
	Name      string // of the page, for its place in the navigation
	Who       *serval.Principal
	Suspended string
	Again     bool // they were signed in again on the way to do something
	Version   string
	RequestID string
	Data      any
}

// show answers with a page. Nothing is written before all of it is made.
func (s *Server) show(w http.ResponseWriter, v *visit, status int, name, title string, data any) error {
	l := layout{Title: title, Name: cmp.Or(v.place, name), Version: s.c.Version, RequestID: v.who.RequestID, Again: v.again, Data: data}
	if v.who.Kind == serval.KindPerson {
		l.Who, l.Suspended = &v.who, v.who.Person.Suspended
	}
	var b bytes.Buffer
	if err := s.pages.byName[name].Execute(&b, l); err != nil {
		return fmt.Errorf("making the page %s: %w", name, err)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(inert(b.Bytes()))
	return nil
}

// inert returns a page with the characters made visible that would otherwise
// hide or reorder what stands beside them. Our own pages have none.
func inert(text []byte) []byte {
	strange := func(c rune) bool {
		return unicode.Is(unicode.Cf, c) && c != '\u00ad' || unicode.IsControl(c) && c != '\n' && c != '\t' && c != '\r' || c == utf8.RuneError
	}
	if !bytes.ContainsFunc(text, strange) {
		return text
	}
	var b bytes.Buffer
	for _, c := range string(text) {
		if strange(c) {
			fmt.Fprintf(&b, "⟨U+%04X⟩", c)
		} else {
			b.WriteRune(c)
		}
	}
	return b.Bytes()
}

// An errorView is the page that names the one cause.
type errorView struct {
	Heading string
	Message string
	Next    string // what to do
	SignIn  string // where to sign in and come back from; empty where that does not help
	Back    string
	Detail  []fact

	RequestID string
}

// next says what to do about each kind of refusal.
var next = map[string]string{
	string(serval.Invalid):            "Go back, change what is named above, and send it again.",
	string(serval.LoginRequired):      "Sign in again; you come back to where you were.",
	string(serval.Denied):             "If you should be allowed to do this, ask an admin of Serval and give them the request id below.",
	string(serval.NotFound):           "Check the address. What belongs to somebody else is not shown here either.",
	string(serval.Conflict):           "Somebody or something was quicker. Look at it again to see how it stands now.",
	string(serval.TooLarge):           "Send less.",
	string(serval.FailedPrecondition): "Nothing was changed. Once what is named above is mended, try again.",
	string(serval.Exhausted):          "Wait a minute, then try again.",
	string(serval.Unavailable):        "Nothing was changed. Try again in a minute.",
	edge.CodeInternal:                 "Try again. If it happens again, tell an admin and give them the request id below.",
}

var titles = map[string]string{
	string(serval.Invalid): "This does not work", string(serval.LoginRequired): "Sign in again", string(serval.Denied): "Not allowed",
	string(serval.NotFound): "Not found", string(serval.Conflict): "Already changed", string(serval.TooLarge): "Too large",
	string(serval.FailedPrecondition): "Not possible right now", string(serval.Exhausted): "Too often",
	string(serval.Unavailable): "Not available right now", edge.CodeInternal: "Something went wrong",
}

// againParameter says in an address of ours that somebody came back to it from a
// silent sign-in.
const againParameter = "again"

// errorPage shows a refusal. Whoever is not signed in is shown how to, and comes
// back afterwards; it is a button and not a redirect, so that it never loops.
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
		return s.show(w, v, status, "signin", "Sign in", signInView{ReturnTo: s.returnTo(here), Ended: true})
	}
	if e.Code == string(serval.LoginRequired) && v.who.Kind == serval.KindPerson && r.Method == http.MethodPost {
		// The ID token has ended, not the login: it is renewed without a question,
		// and what was posted is done again by whoever posted it.
		return s.redirect(w, loginPath(s.returnTo(back+"?"+againParameter+"=1"), "none"))
	}
	view := errorView{Heading: titles[e.Code], Message: e.Message, Next: next[e.Code], Back: s.returnTo(back), RequestID: v.who.RequestID}
	if e.Code == string(serval.LoginRequired) {
		view.SignIn = s.returnTo(here)
	}
	if v.route != nil && v.route.Pattern == "/oidc/auth/callback" {
		view.Next, view.SignIn = "Start again, in this browser.", "/roles"
	}
	if code := e.Detail["code"]; code != "" {
		view.Detail = append(view.Detail, fact{"AWS says", code})
	}
	if id := e.Detail["aws_request_id"]; id != "" {
		view.Detail = append(view.Detail, fact{"AWS request", id})
	}
	return s.show(w, v, status, "error", view.Heading, view)
}

// long writes minutes for people.
func long(minutes int) string {
	d, h, m := minutes/1440, minutes/60%24, minutes%60
	var parts []string
	for _, p := range []struct {
		n    int
		unit string
	}{{d, "d"}, {h, "h"}, {m, "min"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.unit))
		}
	}
	if len(parts) == 0 {
		return "0 min"
	}
	return strings.Join(parts, " ")
}

// rfc writes an instant for programs, utc one for people; the script puts it
// into local time.
func rfc(t wire.Time) string { return t.UTC().Format(time.RFC3339) }
func utc(t wire.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

func deref(t *string) string {
	if t == nil {
		return ""
	}
	return *t
}

func roleName(arn string) string {
	if a, err := serval.ParseRoleARN(arn); err == nil {
		return a.Name
	}
	return arn
}
