package web

import (
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/pages"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// A Rule says who a route is for.
type Rule string

// Who a route is for. Whoever is not signed in gets no further than the first
// two; that an admin's or an auditor's route is not for everybody the control
// plane says, and records.
const (
	Public  Rule = "public"  // nobody is recognised
	Anyone  Rule = "anyone"  // recognised where they are signed in
	Person  Rule = "person"  // signed in
	Auditor Rule = "auditor" // signed in, and named as auditor or admin
	Admin   Rule = "admin"   // signed in, and named as admin
	Worker  Rule = "worker"  // by bearer token
)

// A Route is one line of the table: a method, an exact path with its variables
// in braces, and who it is for.
type Route struct {
	Method  string
	Pattern string
	Rule    Rule
}

type handler func(s *Server, w http.ResponseWriter, r *http.Request, v *visit) error

type route struct {
	Route
	handle handler
	stream bool          // the body is read as a stream, with its own bound
	secret bool          // what it answers is given once, and kept nowhere
	most   int64         // bytes of the body; 0: edge.MaxBody
	device bool          // there only where devices may sign in
	time   time.Duration // for the whole request; 0: the server's
}

// How long the routes take that take long.
const (
	pollTime = (maxWait + 30) * time.Second
	pushTime = 10 * time.Minute
	mintTime = 60 * time.Second
)

func on(method, pattern string, rule Rule, h handler) route {
	return route{Route: Route{method, pattern, rule}, handle: h}
}

// page is a page's handler, as a line of the table has it.
func page(h func(*pages.Pages, http.ResponseWriter, *http.Request, *pages.Visit) error) handler {
	return func(s *Server, w http.ResponseWriter, r *http.Request, v *visit) error {
		p := v.page()
		err := h(s.pages, w, r, p)
		v.from = p.From
		return err
	}
}

// page returns what a page knows of a visit.
func (v *visit) page() *pages.Visit {
	return &pages.Visit{Who: v.who, LoginID: v.login.ID, Again: v.again}
}

func (r route) within(d time.Duration) route { r.time = d; return r }
func (r route) streaming() route             { r.stream = true; return r }
func (r route) givenOnce() route             { r.secret = true; return r }
func (r route) taking(bytes int64) route     { r.most = bytes; return r }
func (r route) forDevices() route            { r.device = true; return r }

// table is every route there is. It is read only.
var table = []route{
	on("GET", "/oidc/auth/login", Anyone, (*Server).beginLogin),
	on("GET", "/oidc/auth/callback", Anyone, (*Server).finishLogin).within(mintTime),
	on("POST", "/signout", Anyone, (*Server).signOut),

	on("GET", "/client/authorize", Anyone, (*Server).clientPage),
	on("POST", "/client/authorize", Person, (*Server).postClient),
	on("POST", "/api/v1/client/token", Public, (*Server).clientToken),
	on("GET", "/device", Person, (*Server).devicePage).forDevices(),
	on("POST", "/device", Person, (*Server).postDevice).forDevices(),
	on("POST", "/device/decide", Person, (*Server).postDeviceDecision).forDevices(),
	on("POST", "/api/v1/client/device", Public, (*Server).startDevice).forDevices(),

	on("GET", "/api/v1/me", Person, (*Server).me),
	on("GET", "/api/v1/roles", Person, (*Server).roles),
	on("GET", "/api/v1/roles/{account_id}/{role_name}", Person, (*Server).role),
	on("GET", "/api/v1/roles/{account_id}/{role_name}/versions", Person, (*Server).roleVersions),
	on("GET", "/api/v1/roles/{account_id}/{role_name}/changes", Person, (*Server).roleChanges),
	on("POST", "/api/v1/requests", Person, (*Server).createRequests),
	on("GET", "/api/v1/requests", Person, (*Server).requests),
	on("GET", "/api/v1/requests/{id}", Person, (*Server).request),
	on("POST", "/api/v1/requests/{id}/decisions", Person, (*Server).decide),
	on("POST", "/api/v1/requests/{id}/extensions", Person, (*Server).extend),
	on("POST", "/api/v1/requests/{id}/shorten", Person, (*Server).shorten),
	on("POST", "/api/v1/requests/{id}/cancel", Person, (*Server).cancel),
	on("POST", "/api/v1/requests/{id}/done", Person, (*Server).done),
	on("POST", "/api/v1/requests/{id}/revoke", Person, (*Server).revoke),
	on("GET", "/api/v1/approvals", Person, (*Server).approvals),
	on("POST", "/api/v1/sessions", Person, (*Server).openSession).within(mintTime).givenOnce(),
	on("GET", "/api/v1/sessions", Person, (*Server).sessions),
	on("POST", "/api/v1/console-links", Person, (*Server).linkConsole).givenOnce(),
	on("GET", "/api/v1/logins", Person, (*Server).listLogins),
	on("DELETE", "/api/v1/logins/{id}", Person, (*Server).endLogin),
	on("GET", "/api/v1/audit", Auditor, (*Server).audit),
	on("GET", "/api/v1/audit/export", Auditor, (*Server).exportAudit).within(exportTime),
	on("GET", "/api/v1/reports/access", Auditor, (*Server).accessReport),
	on("POST", "/api/v1/explain/trust", Admin, (*Server).explainTrust).streaming(),
	on("GET", "/api/v1/findings", Auditor, (*Server).findings),
	on("GET", "/api/v1/people", Admin, (*Server).people),
	on("POST", "/api/v1/people/{id}/relink", Admin, (*Server).relink),
	on("GET", "/api/v1/notices", Admin, (*Server).notices),
	on("POST", "/api/v1/notices/{id}/retry", Admin, (*Server).retryNotice),
	on("GET", "/api/v1/access-policies", Admin, (*Server).policies),
	on("POST", "/api/v1/access-policies", Admin, (*Server).createPolicy),
	on("PUT", "/api/v1/access-policies/{name}", Admin, (*Server).changePolicy),
	on("DELETE", "/api/v1/access-policies/{name}", Admin, (*Server).deletePolicy),
	on("GET", "/api/v1/access/explain", Admin, (*Server).explain),
	on("GET", "/api/v1/accounts", Admin, (*Server).accounts),
	on("POST", "/api/v1/accounts", Admin, (*Server).connectAccount),
	on("GET", "/api/v1/accounts/{id}", Admin, (*Server).account),
	on("PATCH", "/api/v1/accounts/{id}", Admin, (*Server).changeAccount),
	on("DELETE", "/api/v1/accounts/{id}", Admin, (*Server).disconnectAccount),
	on("POST", "/api/v1/accounts/{id}/sync", Admin, (*Server).requestSync),
	on("POST", "/api/v1/accounts/{id}/confirm-removals", Admin, (*Server).confirmRemovals),
	on("POST", "/api/v1/accounts/{id}/checks", Admin, (*Server).startCheck),
	on("POST", "/api/v1/workflows/{name}/runs", Admin, (*Server).startRun),
	on("GET", "/api/v1/runs/{id}", Admin, (*Server).run),
	on("POST", "/api/v1/runs/{id}/decisions", Admin, (*Server).decideRun),

	on("GET", "/api/v1/upstream/accounts", Worker, (*Server).workerAccounts).within(pollTime),
	on("POST", "/api/v1/upstream/accounts/{id}/syncs", Worker, (*Server).openSync),
	on("PUT", "/api/v1/upstream/accounts/{id}/inventory", Worker, (*Server).pushInventory).within(pushTime).streaming(),
	on("GET", "/api/v1/upstream/tasks", Worker, (*Server).workerTasks).within(pollTime),
	on("POST", "/api/v1/upstream/tasks/{id}/claim", Worker, (*Server).claimTask),
	on("POST", "/api/v1/upstream/tasks/{id}/result", Worker, (*Server).finishTask).taking(maxResult),
	on("PUT", "/api/v1/upstream/accounts/{id}/delta", Worker, (*Server).pushDelta).within(pushTime).streaming(),

	on("GET", "/{$}", Anyone, page((*pages.Pages).Home)),
	on("GET", "/roles", Person, page((*pages.Pages).Roles)),
	on("GET", "/roles/{account_id}/{role_name}", Person, page((*pages.Pages).Role)),
	on("POST", "/favourites", Person, page((*pages.Pages).Favour)),
	on("GET", "/requests/new", Person, page((*pages.Pages).AskSeveral)),
	on("POST", "/requests", Person, page((*pages.Pages).Ask)),
	on("GET", "/requests", Person, page((*pages.Pages).Requests)),
	on("GET", "/requests/{id}", Person, page((*pages.Pages).Request)),
	on("POST", "/requests/{id}/approve", Person, page((*pages.Pages).Approve)),
	on("POST", "/requests/{id}/deny", Person, page((*pages.Pages).Deny)),
	on("POST", "/requests/{id}/extend", Person, page((*pages.Pages).Extend)),
	on("POST", "/requests/{id}/shorten", Person, page((*pages.Pages).Shorten)),
	on("POST", "/requests/{id}/cancel", Person, page((*pages.Pages).Cancel)),
	on("POST", "/requests/{id}/done", Person, page((*pages.Pages).Done)),
	on("POST", "/requests/{id}/revoke", Person, page((*pages.Pages).Revoke)),
	on("GET", "/approvals", Person, page((*pages.Pages).Approvals)),
	on("POST", "/sessions", Person, page((*pages.Pages).OpenSession)).within(mintTime),
	on("POST", "/requests/{id}/console", Person, page((*pages.Pages).OpenConsole)).within(mintTime),
	on("GET", "/console/{code}", Person, page((*pages.Pages).FollowLink)).within(mintTime),
	on("GET", "/logins", Person, page((*pages.Pages).Logins)),
	on("POST", "/logins/{id}/end", Person, (*Server).postEndLogin),
	on("GET", "/policies", Admin, page((*pages.Pages).Policies)),
	on("GET", "/policies/new", Admin, page((*pages.Pages).NewPolicy)),
	on("GET", "/policies/explain", Admin, page((*pages.Pages).Explain)),
	on("POST", "/policies", Admin, page((*pages.Pages).MakePolicy)),
	on("GET", "/policies/{name}", Admin, page((*pages.Pages).Policy)),
	on("POST", "/policies/{name}", Admin, page((*pages.Pages).ChangePolicy)),
	on("POST", "/policies/{name}/move", Admin, page((*pages.Pages).MovePolicy)),
	on("POST", "/policies/{name}/delete", Admin, page((*pages.Pages).DeletePolicy)),
	on("GET", "/accounts", Admin, page((*pages.Pages).Accounts)),
	on("GET", "/accounts/connect", Admin, page((*pages.Pages).ConnectAccount)),
	on("POST", "/accounts", Admin, page((*pages.Pages).AddAccount)),
	on("GET", "/accounts/{id}", Admin, page((*pages.Pages).Account)),
	on("POST", "/accounts/{id}/change", Admin, page((*pages.Pages).ChangeAccount)),
	on("POST", "/accounts/{id}/disconnect", Admin, page((*pages.Pages).DisconnectAccount)),
	on("POST", "/accounts/{id}/checks", Admin, page((*pages.Pages).Check)),
	on("POST", "/accounts/{id}/runs", Admin, page((*pages.Pages).StartRun)),
	on("GET", "/runs/{id}", Admin, page((*pages.Pages).Run)),
	on("POST", "/runs/{id}/decide", Admin, page((*pages.Pages).DecideRun)),
	on("POST", "/accounts/{id}/sync", Admin, page((*pages.Pages).Sync)),
	on("POST", "/accounts/{id}/confirm-removals", Admin, page((*pages.Pages).ConfirmRemovals)),
	on("GET", "/findings", Auditor, page((*pages.Pages).Findings)),
	on("GET", "/audit", Auditor, page((*pages.Pages).Audit)),
	on("GET", "/reports/access", Auditor, page((*pages.Pages).AccessReport)),
	on("GET", "/notices", Admin, page((*pages.Pages).Notices)),
	on("POST", "/notices/{id}/retry", Admin, page((*pages.Pages).RetryNotice)),

	on("GET", "/static/serval.css", Public, page((*pages.Pages).Static)),
	on("GET", "/static/serval.js", Public, page((*pages.Pages).Static)),
	on("GET", "/static/serval.svg", Public, page((*pages.Pages).Static)),
}

// maxWait is how many seconds a worker may wait for news.
const maxWait = 60

// maxInventory is a push's bound on the wire, compressed or not.
const maxInventory = wire.MaxInventoryBytes

// Routes returns the table.
func (s *Server) Routes() []Route {
	all := make([]Route, len(s.routes))
	for i, r := range s.routes {
		all[i] = r.Route
	}
	return all
}

func (s *Server) route(table []route) {
	for _, r := range table {
		if !r.device || s.c.DeviceLogin {
			s.routes = append(s.routes, r)
		}
	}
	registered := map[string]bool{}
	for _, r := range s.routes {
		if !registered[r.Pattern] {
			registered[r.Pattern] = true
			s.mux.Handle(r.Pattern, http.NotFoundHandler()) // only asked what it would match
		}
	}
}

// match returns the route of a request. Where the path is there and the method
// is not, allow lists those that are.
//
// Only a path that is written as it is meant is looked up: one with a doubled
// slash, dots, a backslash, a control or an encoded separator is no path of
// ours, and is not mended either.
func (s *Server) match(r *http.Request) (found *route, allow string) {
	if !isPlain(r) {
		return nil, ""
	}
	_, pattern := s.mux.Handler(r)
	if pattern == "" {
		return nil, ""
	}
	var methods []string
	for i := range s.routes {
		if s.routes[i].Pattern != pattern {
			continue
		}
		method := s.routes[i].Method
		if method == r.Method || r.Method == http.MethodHead && s.routes[i].allowsHead() {
			s.readPath(r, pattern)
			return &s.routes[i], ""
		}
		methods = append(methods, method)
		if s.routes[i].allowsHead() {
			methods = append(methods, http.MethodHead)
		}
	}
	slices.Sort(methods)
	return nil, strings.Join(methods, ", ")
}

// allowsHead reports whether HEAD is GET here. Signing in is not, nor is a way to
// the console: they change something.
func (r *route) allowsHead() bool {
	return r.Method == http.MethodGet && !strings.HasPrefix(r.Pattern, "/oidc/") && !strings.HasPrefix(r.Pattern, "/console/")
}

// readPath sets the path's variables, which the mux sets only where it serves.
func (s *Server) readPath(r *http.Request, pattern string) {
	names := strings.Split(pattern, "/")
	for i, part := range strings.Split(r.URL.Path, "/") {
		if i < len(names) && strings.HasPrefix(names[i], "{") && names[i] != "{$}" {
			r.SetPathValue(strings.Trim(names[i], "{}"), part)
		}
	}
}

// isPlain reports whether a request's path is one that could be ours.
func isPlain(r *http.Request) bool {
	p := r.URL.Path
	if !strings.HasPrefix(p, "/") || path.Clean(p) != p || strings.ContainsAny(p, "\\;%") ||
		strings.ContainsFunc(p, func(c rune) bool { return c < 0x20 || c >= 0x7f }) {
		return false
	}
	raw := strings.ToLower(r.URL.EscapedPath())
	return !strings.Contains(raw, "%2f") && !strings.Contains(raw, "%2e") && !strings.Contains(raw, "%5c") && r.Method != http.MethodConnect
}
