// Package pages is what people see in a browser: the templates, the static files,
// and what each page reads and does. All of it works without script, and nothing of
// it is served but by a line of web's table, which says who it is for.
//
// A page shows what the API answers with, in the shapes of the wire, and calls the
// same methods of the control plane. One that changes something is a form that is
// posted and answered with 303. An error is returned, never shown here: web says
// what a caller may learn of it, and comes back for the page that says so.
package pages

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
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/signin"
	"github.com/serval-bridge/serval-bridge/internal/wire"
	"github.com/serval-bridge/serval-bridge/internal/workflow"
)

//go:embed templates static
var files embed.FS

// A Config says what the pages stand on. All but Lease, NoSessionPolicy,
// ConsoleHosts and Version are required.
type Config struct {
	Logins   *signin.Logins
	Plane    *control.Plane
	Runs     *workflow.Runs
	Origin   string          // of the bridge
	Networks func() []string // to which a session can be held, by their names

	Lease           time.Duration // of a session; 0: none
	NoSessionPolicy bool
	ConsoleHosts    []string // where a sign-in to the console leads

	Version string
	Now     func() time.Time
}

// Pages are the pages, ready to serve. They are safe for concurrent use.
type Pages struct {
	c      Config
	byName map[string]func() (*template.Template, error)
	static map[string]staticFile // by path
}

// A Visit is one request for a page, and who makes it.
type Visit struct {
	Who     serval.Principal
	LoginID string
	Again   bool   // they come back from a silent sign-in
	From    string // page of ours that a posted form stands on, where that is not to be seen from the address; set here
	place   string // in the navigation, where that is not the page's own
	onward  string // where the page goes on to by itself
}

type staticFile struct {
	text []byte
	kind string
	tag  string // of its text
}

// New reads the templates: each page is the layout with one content. It is put
// together when it is first shown; all of them at the start are most of what an idle
// bridge would hold.
func New(c Config) (*Pages, error) {
	p := &Pages{c: c, byName: map[string]func() (*template.Template, error){}, static: map[string]staticFile{}}
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
		"rfc": rfc, "utc": utc, "long": serval.Length, "seconds": func(n int) string { return serval.Length(n / 60) }, "ago": func(seconds *int) string { return serval.Length(*seconds / 60) }, "deref": deref, "asset": p.asset, "name": roleName, "isRequest": func(id string) bool { return strings.HasPrefix(id, "req_") }, "tone": severityTone, "severities": func() any { return severities }, "kind": kind, "kindsOf": kindsOf, "causes": causes, "abilities": func() []string { return abilities },
		"agent": agent, "because": because, "join": func(t []string) string { return strings.Join(t, ", ") },
	}).ParseFS(files, "templates/layout.html", "templates/parts.html", "templates/insight.html")
	if err != nil {
		return nil, fmt.Errorf("reading the pages: %w", err)
	}
	names, err = fs.Glob(files, "templates/*.html")
	if err != nil {
		return nil, fmt.Errorf("reading the pages: %w", err)
	}
	for _, name := range names {
		short := strings.TrimSuffix(path.Base(name), ".html")
		if short == "layout" || short == "parts" || short == "insight" {
			continue
		}
		p.byName[short] = sync.OnceValues(func() (*template.Template, error) {
			one, err := layout.Clone()
			if err != nil {
				return nil, err
			}
			return one.ParseFS(files, name)
		})
	}
	return p, nil
}

// asset returns the address of a static file, which changes with its text.
func (p *Pages) asset(name string) string {
	at := "/static/" + name
	return at + "?v=" + p.static[at].tag
}

// Static answers with a static file. One that is asked for by its tag never
// changes.
func (p *Pages) Static(w http.ResponseWriter, r *http.Request, _ *Visit) error {
	f := p.static[r.URL.Path]
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
	Again     bool   // they were signed in again on the way to do something
	Onward    string // where the page goes on to by itself
	Version   string
	RequestID string
	Data      any
}

// show answers with a page. Nothing is written before all of it is made.
func (p *Pages) show(w http.ResponseWriter, v *Visit, status int, name, title string, data any) error {
	l := layout{Title: title, Name: cmp.Or(v.place, name), Version: p.c.Version, RequestID: v.Who.RequestID, Again: v.Again, Data: data}
	if v.Who.Kind == serval.KindPerson {
		l.Who, l.Suspended = &v.Who, v.Who.Person.Suspended
	}
	l.Onward = v.onward
	var b bytes.Buffer
	page, err := p.byName[name]()
	if err == nil {
		err = page.Execute(&b, l)
	}
	if err != nil {
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
	string(serval.Unavailable):        "Try again in a minute.",
	edge.CodeInternal:                 "Try again. If it happens again, tell an admin and give them the request id below.",
}

var titles = map[string]string{
	string(serval.Invalid): "This does not work", string(serval.LoginRequired): "Sign in again", string(serval.Denied): "Not allowed",
	string(serval.NotFound): "Not found", string(serval.Conflict): "Already changed", string(serval.TooLarge): "Too large",
	string(serval.FailedPrecondition): "Not possible right now", string(serval.Exhausted): "Too often",
	string(serval.Unavailable): "Not available right now", edge.CodeInternal: "Something went wrong",
}

// A Way says how somebody goes on from a refusal.
type Way struct {
	Back   string // a page of ours
	SignIn string // where to come back to from signing in; empty where that does not help
	Next   string // what to do, where that is not what the kind of refusal says
}

// advice says what to do about a refusal; nothing where the refusal says so itself.
func advice(e wire.Error, way Way) string {
	what := cmp.Or(way.Next, next[e.Code])
	if strings.HasSuffix(e.Message, what) {
		return ""
	}
	return what
}

// ShowError shows a refusal.
func (p *Pages) ShowError(w http.ResponseWriter, v *Visit, status int, e wire.Error, way Way) error {
	view := errorView{
		Heading: titles[e.Code], Message: e.Message, Next: advice(e, way), SignIn: way.SignIn, Back: way.Back,
	}
	if code := e.Detail["code"]; code != "" {
		view.Detail = append(view.Detail, fact{"AWS says", code})
	}
	if id := e.Detail["aws_request_id"]; id != "" {
		view.Detail = append(view.Detail, fact{"AWS request", id})
	}
	return p.show(w, v, status, "error", view.Heading, view)
}

// redirect answers 303 to a path of ours, written out in full.
func (p *Pages) redirect(w http.ResponseWriter, path string) error {
	w.Header().Set("Location", p.c.Origin+path)
	w.WriteHeader(http.StatusSeeOther)
	return nil
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
