// Package web is the bridge's edge: who comes and where they may go, the JSON
// API, the cookies, signing in, and what people are told when something is refused.
// What they see in a browser is the room of the pages, which has no way in but this
// room's table.
//
// A Server has one table of routes. Each names its method, its exact path and
// the rule of who may come; nothing is served that is not in the table, and no
// rule looks at a query, a header or a prefix. The rule says who is recognised
// here: by a cookie, by a worker's bearer token, or not at all. What they may do
// is the control plane's to say, so that a refusal is recorded where everything
// is. API and pages call the same methods of the plane; a page that changes
// something is a form that is posted and answered with 303.
//
// What the plane or the identity provider's room returns is either a refusal,
// shown as it stands, or a fault: logged once, here, and shown as an apology
// with the request's id.
//
// The http.Server around it is the caller's: ReadHeaderTimeout 5 s, ReadTimeout
// 15 s, WriteTimeout 30 s, IdleTimeout 60 s and MaxHeaderBytes 32 KB are
// expected. Routes that need longer (a long poll, a push, a session) move their
// own deadlines.
package web

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/intake"
	"github.com/serval-bridge/serval-bridge/internal/login"
	"github.com/serval-bridge/serval-bridge/internal/pages"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/signin"
	"github.com/serval-bridge/serval-bridge/internal/trace"
	"github.com/serval-bridge/serval-bridge/internal/workflow"
)

// A Config says what the edge stands on. Logins, Plane, Intake, Login, PublicURL, Secret
// and Log are required.
type Config struct {
	Logins *signin.Logins
	Plane  *control.Plane
	Runs   *workflow.Runs
	Intake *intake.Intake
	Login  *login.Provider

	// PublicURL is the bridge's own origin. The redirect URI of Login must be
	// this and /oidc/auth/callback.
	PublicURL string

	// Secret is the root secret, of at least 32 bytes; the cookies' keys are
	// derived from it. Cookies made under OlderSecrets still open.
	Secret       serval.Secret
	OlderSecrets []serval.Secret

	// UpstreamTokens returns the tokens of workers, asked anew for each request;
	// where it is nil there are none.
	UpstreamTokens func() []UpstreamToken
	// Workload, if set, recognises the cluster's own worker by the token of its
	// service account, for all accounts, and returns its name, which is empty for
	// everybody else. The error is a refusal where that cannot be said now.
	Workload func(ctx context.Context, from string, token serval.Secret) (name string, err error)

	// ProviderIssuer is whose OIDC provider workers ask accounts for; none where it
	// is empty.
	ProviderIssuer string

	// TrustedProxies may say in X-Forwarded-For whose request they pass on. The
	// address is recorded and counted, and decides nothing else.
	TrustedProxies []netip.Prefix

	// DeviceLogin lets clients sign in by a code that somebody types in a browser.
	// Who can be talked into typing one can be phished, so it is off by default.
	DeviceLogin bool

	// What sessions are opened with, as the plane does: the names of networks, how
	// long a lease is (0: none), and that no session policy is sent.
	Networks        func() []string
	Lease           time.Duration
	NoSessionPolicy bool

	// ConsoleHosts are where a sign-in to the console leads, as sources of a
	// Content-Security-Policy.
	ConsoleHosts []string

	// Crowded, where it is set, reports that there is hardly any room left: nobody
	// begins to sign in then, so that whoever has can open sessions.
	Crowded func() bool

	// Served, where it is set, hears of every request that was answered, by its
	// method, its route's pattern ("none" where there is none) and the status.
	Served func(method, route string, status int, took time.Duration)

	Log     *zap.Logger
	Version string
	Now     func() time.Time // nil means time.Now
}

// An UpstreamToken lets one worker in, for some accounts.
type UpstreamToken struct {
	Name     string
	Accounts []string             // ids; none: no account
	Secret   func() serval.Secret // asked anew for each request; empty lets nobody in
}

// minSecret is the fewest bytes that cookie keys are derived from.
const minSecret = 32

// A Server is the edge. It is an http.Handler and safe for concurrent use.
type Server struct {
	c       Config
	origin  *url.URL
	routes  []route
	mux     *http.ServeMux // path patterns; methods are the table's
	cookies atomic.Pointer[cookies]
	pages   *pages.Pages
	logins  *edge.Limiter
	returns *edge.Limiter
	going   chan struct{} // who is beginning to sign in right now,
	coming  chan struct{} // and who is coming back
	cross   *http.CrossOriginProtection

	patience  time.Duration // with a body that nobody reads any more
	forwarded *sync.Once    // the log has heard of a peer that is no trusted proxy

	draining context.Context // ends when long polls have to
	drain    context.CancelFunc
}

// Rekey has cookies be made under another root secret from now on. Those that were
// made under an older one open as long as it is given here.
func (s *Server) Rekey(root serval.Secret, older ...serval.Secret) {
	s.cookies.Store(newCookies(root, older))
}

// Drain answers the long polls that are waiting, and lets none wait any more,
// so that a server that shuts down does not wait for them.
func (s *Server) Drain() { s.drain() }

// patience is how long a connection stays open for the rest of a body, where the
// route's own time was longer than the server's.
const patience = 5 * time.Second

// How often one address may begin to sign in, and come back from it, in a
// minute.
const (
	loginRate  = 30
	returnRate = 120
)

// maxComing is how many may be on either half of signing in at a time: each waits
// for the database or for the identity provider, which may be slow. Beyond that
// they are told to try again, and have lost nothing: it is sooner done than
// waiting behind a thousand others.
const maxComing = 250

// New returns the edge, or all that is wrong with its configuration.
func New(c Config) (*Server, error) {
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Networks == nil {
		c.Networks = func() []string { return nil }
	}
	if c.UpstreamTokens == nil {
		c.UpstreamTokens = func() []UpstreamToken { return nil }
	}
	var faults []error
	if c.Logins == nil || c.Plane == nil || c.Intake == nil || c.Runs == nil || c.Login == nil {
		faults = append(faults, errors.New("web: a plane, an intake, runs and a login provider are needed"))
	}
	origin, err := url.Parse(strings.TrimSuffix(c.PublicURL, "/"))
	switch {
	case err != nil || origin.Host == "" || origin.User != nil || origin.Path != "" || origin.RawQuery != "" || origin.Fragment != "":
		faults = append(faults, errors.New("web: the public URL is not an origin such as https://serval.example.com"))
	case origin.Scheme != "https" && !(origin.Scheme == "http" && serval.IsLoopback(origin.Hostname())):
		faults = append(faults, errors.New("web: the public URL must be https; http is for loopback"))
	}
	for _, secret := range append([]serval.Secret{c.Secret}, c.OlderSecrets...) {
		if len(secret.Reveal()) < minSecret {
			faults = append(faults, fmt.Errorf("web: a secret has fewer than %d bytes", minSecret))
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	s := &Server{
		c: c, origin: origin, mux: http.NewServeMux(),
		logins: &edge.Limiter{Most: loginRate}, returns: &edge.Limiter{Most: returnRate},
		going: make(chan struct{}, maxComing), coming: make(chan struct{}, maxComing),
		cross: http.NewCrossOriginProtection(), patience: patience, forwarded: &sync.Once{},
	}
	s.Rekey(c.Secret, c.OlderSecrets...)
	s.draining, s.drain = context.WithCancel(context.Background())
	s.pages, err = pages.New(pages.Config{
		Logins: c.Logins, Plane: c.Plane, Runs: c.Runs, Origin: origin.String(), Networks: c.Networks, Lease: c.Lease, NoSessionPolicy: c.NoSessionPolicy,
		ConsoleHosts: c.ConsoleHosts, Version: c.Version, Now: c.Now,
	})
	if err != nil {
		return nil, err
	}
	s.route(table)
	return s, nil
}

// A visit is one request and who makes it.
type visit struct {
	who   serval.Principal
	login signin.Login
	token serval.Secret // of the login, as the browser brought it
	route *route        // nil where there is none
	from  string        // page of ours that a posted form stands on, where that is not to be seen from the address
	again bool          // they come back from a silent sign-in
	fault error
}

// ServeHTTP answers one request. It writes one line to the log for each, with
// the route's pattern and never with a query or a body.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	a := &edge.Answer{ResponseWriter: w}
	v := &visit{who: serval.Principal{Kind: serval.KindNobody, RequestID: rand.Text(), Address: s.address(r)}}
	s.protect(a.Header(), v)
	defer func() {
		p := recover()
		if p != nil && p != http.ErrAbortHandler {
			s.c.Log.Error("panic", zap.String("request_id", v.who.RequestID), zap.Any("panic", p), zap.Stack("stack"))
			if !a.Written {
				s.apologise(a, r, v)
				p = nil
			} else {
				p = http.ErrAbortHandler // half an answer must not pass for a whole one
			}
		}
		s.log(r, v, cmp.Or(a.Status, http.StatusOK), time.Since(began))
		if p != nil {
			panic(p)
		}
	}()
	if err := s.serve(a, r, v); err != nil {
		s.refuse(a, r, v, err)
	}
}

// serve goes through all that comes before a route, and then there.
func (s *Server) serve(w *edge.Answer, r *http.Request, v *visit) error {
	found, allow := s.match(r)
	v.route, v.again = found, r.URL.RawQuery == againParameter+"=1"
	// What a Host header says decides nothing (S-12), but for what nobody has to be
	// known for: a site whose name was made to point here could have a browser on the
	// VPN begin a client's sign-in, and read the answer.
	if found != nil && found.Rule == Public && found.Method != http.MethodGet && !s.isOwnHost(r.Host) {
		return edge.Misfit{Status: http.StatusMisdirectedRequest, Kind: serval.Invalid, Reason: "This server answers at " + s.origin.String() + "."}
	}
	if found == nil {
		if allow == "" {
			s.greet(r, v)
			return serval.Refuse(serval.NotFound, "There is nothing at this address.")
		}
		w.Header().Set("Allow", allow)
		return edge.Misfit{Status: http.StatusMethodNotAllowed, Kind: serval.Invalid, Reason: "This address does not take " + serval.Clip(r.Method, 20) + "."}
	}
	if _, present := bearer(r); !present { // no other site has a browser send one
		if err := s.checkOrigin(r); err != nil {
			return err
		}
	}
	if !found.stream {
		r.Body = http.MaxBytesReader(w.ResponseWriter, r.Body, cmp.Or(found.most, edge.MaxBody))
	}
	if found.time > 0 {
		defer w.Linger(s.patience)
	}
	if err := s.recognise(w, r, v); err != nil {
		return err
	}
	// Not earlier: a stranger could hold a connection for as long.
	if found.time > 0 && (found.Rule != Worker || v.who.Kind == serval.KindWorker) {
		w.Extend(found.time)
	}
	if v.isRepeatable(r) {
		return s.once(w, r, v)
	}
	return found.handle(s, w, r, v)
}

// recognise says who it is, as the route's rule wants it: by the cookie or, in the
// API, by a client's token. For workers nobody is turned away here: the plane
// refuses nobodies, and records it.
func (s *Server) recognise(w http.ResponseWriter, r *http.Request, v *visit) error {
	switch v.route.Rule {
	case Public:
		return nil
	case Worker:
		var err error
		v.who, err = s.worker(r, v.who)
		return err
	}
	if token, present := bearer(r); present {
		who, current, err := s.c.Logins.RecogniseClient(r.Context(), v.who, token)
		if err == nil {
			v.who, v.login, v.token = who, current, token
		} else if serval.IsRefusal(err, serval.Unauthenticated) {
			w.Header().Set("WWW-Authenticate", "Bearer")
		}
		return err
	}
	token, broken := s.cookies.Load().read(r, loginCookie)
	if broken {
		s.cookies.Load().clear(w, loginCookie)
	}
	who, current, err := s.c.Logins.Recognise(r.Context(), v.who, token)
	switch {
	case err == nil:
		v.who, v.login, v.token = who, current, token
		return nil
	case !serval.IsRefusal(err, serval.Unauthenticated):
		return err
	}
	if !token.Empty() {
		s.cookies.Load().clear(w, loginCookie)
	}
	v.who.Kind = serval.KindNobody
	if v.route.Rule == Anyone {
		return nil
	}
	return err
}

// greet recognises whoever came to an address where nothing is, so that the page
// that says so shows them where they can go.
func (s *Server) greet(r *http.Request, v *visit) {
	if r.Method != http.MethodGet || strings.HasPrefix(r.URL.Path, "/api/") {
		return
	}
	token, _ := s.cookies.Load().read(r, loginCookie)
	if token.Empty() {
		return
	}
	if who, _, err := s.c.Logins.Recognise(r.Context(), v.who, token); err == nil {
		v.who = who
	}
}

// checkOrigin refuses what another site has a browser send: by Sec-Fetch-Site,
// and where there is none by Origin, whose scheme counts too.
func (s *Server) checkOrigin(r *http.Request) error {
	refused := edge.Refuse(serval.Denied, "This was sent by another site than %s, so nothing was done.", s.origin)
	if err := s.cross.Check(r); err != nil {
		return refused
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return nil
	}
	// Browsers say null for our own forms, because of our Referrer-Policy; that
	// it is our own then, Sec-Fetch-Site has said.
	if origin := r.Header.Get("Origin"); origin != "" && origin != "null" && origin != s.origin.String() {
		return refused
	}
	return nil
}

// isOwnHost reports whether a Host header means this server.
func (s *Server) isOwnHost(host string) bool {
	trim := func(h string) string {
		h = strings.ToLower(h)
		if s.origin.Scheme == "https" {
			return strings.TrimSuffix(h, ":443")
		}
		return strings.TrimSuffix(h, ":80")
	}
	return trim(host) == trim(s.origin.Host)
}

// protect sets the headers that every answer has.
func (s *Server) protect(h http.Header, v *visit) {
	h.Set("X-Request-Id", v.who.RequestID)
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; "+
		"form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Permissions-Policy", "accelerometer=(), camera=(), geolocation=(), gyroscope=(), magnetometer=(), microphone=(), payment=(), usb=()")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	if s.origin.Scheme == "https" {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
}

func (s *Server) log(r *http.Request, v *visit, status int, took time.Duration) {
	pattern := "none"
	if v.route != nil {
		pattern = v.route.Pattern
	}
	fields := []zap.Field{
		zap.String("method", serval.Clip(r.Method, 20)), zap.String("route", pattern), zap.Int("status", status),
		zap.Duration("duration", took), zap.String("request_id", v.who.RequestID),
	}
	if id := trace.ID(r.Context()); id != "" {
		fields = append(fields, zap.String("trace_id", id))
	}
	method := r.Method
	if v.route == nil {
		method = "other" // whatever a stranger writes is no label
	}
	trace.Answered(r.Context(), method, pattern, status)
	if s.c.Served != nil {
		s.c.Served(method, pattern, status, took)
	}
	switch v.who.Kind {
	case serval.KindPerson:
		fields = append(fields, zap.String("person", v.who.Person.ID))
	case serval.KindWorker:
		fields = append(fields, zap.String("worker", v.who.Worker))
	}
	s.c.Log.Info("request", fields...)
	if v.fault != nil {
		level := zap.WarnLevel // refused, and somebody else's fault behind it
		if status == http.StatusInternalServerError {
			level = zap.ErrorLevel
		}
		s.c.Log.Log(level, "a request failed", zap.String("route", pattern), zap.String("request_id", v.who.RequestID), zap.Error(v.fault))
	}
}

// redirect answers 303 to a path of ours, written out in full.
func (s *Server) redirect(w http.ResponseWriter, path string) error {
	w.Header().Set("Location", s.origin.String()+path)
	w.WriteHeader(http.StatusSeeOther)
	return nil
}
