package web_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/web"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// Who gets what from each route: nobody, Ana who asks, Ben who approves, Cy who
// has nothing to do with it, an admin, an auditor, the account's worker and
// another account's. A route that is not here fails the test. S-10
var allowed = map[string]string{
	//                                                nobody ana ben  cy adm aud wrk els
	"GET /oidc/auth/login":                                "303 303 303 303 303 303 303 303",
	"GET /oidc/auth/callback":                             "400 400 400 400 400 400 400 400",
	"POST /signout":                                       "303 303 303 303 303 303 303 303",
	"GET /client/authorize":                               "303 200 200 200 200 200 303 303",
	"POST /client/authorize":                              "401 303 303 303 303 303 401 401",
	"POST /api/v1/client/token":                           "404 404 404 404 404 404 404 404",
	"GET /device":                                         "401 200 200 200 200 200 401 401",
	"POST /device":                                        "401 404 404 404 404 404 401 401",
	"POST /device/decide":                                 "401 404 404 404 404 404 401 401",
	"POST /api/v1/client/device":                          "200 200 200 200 200 200 200 200",
	"GET /api/v1/me":                                      "401 200 200 200 200 200 401 401",
	"GET /api/v1/roles":                                   "401 200 200 200 200 200 401 401",
	"GET /api/v1/roles/{account_id}/{role_name}":          "401 200 404 404 404 404 401 401",
	"GET /api/v1/roles/{account_id}/{role_name}/versions": "401 200 404 404 404 404 401 401",
	"GET /api/v1/roles/{account_id}/{role_name}/changes":  "401 200 404 404 404 404 401 401",
	"POST /api/v1/requests":                               "401 201 404 404 404 404 401 401",
	"GET /api/v1/requests":                                "401 200 200 200 200 200 401 401",
	"GET /api/v1/requests/{id}":                           "401 200 200 404 200 200 401 401",
	"POST /api/v1/requests/{id}/decisions":                "401 403 200 404 403 403 401 401",
	"POST /api/v1/requests/{id}/extensions":               "401 200 403 404 403 403 401 401",
	"POST /api/v1/requests/{id}/shorten":                  "401 200 200 404 403 403 401 401",
	"POST /api/v1/requests/{id}/cancel":                   "401 200 403 404 403 403 401 401",
	"POST /api/v1/requests/{id}/done":                     "401 200 403 404 403 403 401 401",
	"POST /api/v1/requests/{id}/revoke":                   "401 403 200 404 200 403 401 401",
	"GET /api/v1/approvals":                               "401 200 200 200 200 200 401 401",
	"POST /api/v1/sessions":                               "401 200 404 404 404 404 401 401",
	"GET /api/v1/sessions":                                "401 200 200 200 200 200 401 401",
	"POST /api/v1/console-links":                          "401 201 404 404 404 404 401 401",
	"GET /api/v1/logins":                                  "401 200 200 200 200 200 401 401",
	"DELETE /api/v1/logins/{id}":                          "401 204 404 404 404 404 401 401",
	"GET /api/v1/audit":                                   "401 403 403 403 200 200 401 401",
	"GET /api/v1/audit/export":                            "401 403 403 403 200 200 401 401",
	"GET /api/v1/reports/access":                          "401 403 403 403 200 200 401 401",
	"POST /api/v1/explain/trust":                          "401 403 403 403 200 403 401 401",
	"GET /api/v1/findings":                                "401 403 403 403 200 200 401 401",
	"GET /api/v1/people":                                  "401 403 403 403 200 403 401 401",
	"GET /api/v1/notices":                                 "401 403 403 403 200 403 401 401",
	"POST /api/v1/notices/{id}/retry":                     "401 403 403 403 404 403 401 401",
	"POST /api/v1/people/{id}/relink":                     "401 403 403 403 404 403 401 401",
	"GET /api/v1/access-policies":                         "401 403 403 403 200 403 401 401",
	"POST /api/v1/access-policies":                        "401 403 403 403 201 403 401 401",
	"PUT /api/v1/access-policies/{name}":                  "401 403 403 403 422 403 401 401",
	"DELETE /api/v1/access-policies/{name}":               "401 403 403 403 422 403 401 401",
	"GET /api/v1/access/explain":                          "401 403 403 403 200 403 401 401",
	"GET /api/v1/accounts":                                "401 403 403 403 200 403 401 401",
	"POST /api/v1/accounts":                               "401 403 403 403 201 403 401 401",
	"GET /api/v1/accounts/{id}":                           "401 403 403 403 200 403 401 401",
	"PATCH /api/v1/accounts/{id}":                         "401 403 403 403 422 403 401 401",
	"DELETE /api/v1/accounts/{id}":                        "401 403 403 403 422 403 401 401",
	"POST /api/v1/accounts/{id}/sync":                     "401 403 403 403 202 403 401 401",
	"POST /api/v1/accounts/{id}/confirm-removals":         "401 403 403 403 422 403 401 401",
	"POST /api/v1/accounts/{id}/checks":                   "401 403 403 403 202 403 401 401",
	"POST /api/v1/workflows/{name}/runs":                  "401 403 403 403 202 403 401 401",
	"GET /api/v1/runs/{id}":                               "401 403 403 403 200 403 401 401",
	"POST /api/v1/runs/{id}/decisions":                    "401 403 403 403 409 403 401 401",
	"GET /api/v1/upstream/tasks":                          "401 401 401 401 401 401 200 200",
	"POST /api/v1/upstream/tasks/{id}/claim":              "401 401 401 401 401 401 200 404",
	"POST /api/v1/upstream/tasks/{id}/result":             "401 401 401 401 401 401 200 404",
	"GET /api/v1/upstream/accounts":                       "401 401 401 401 401 401 200 200",
	"POST /api/v1/upstream/accounts/{id}/syncs":           "401 401 401 401 401 401 200 404",
	"PUT /api/v1/upstream/accounts/{id}/inventory":        "401 401 401 401 401 401 400 404",
	"PUT /api/v1/upstream/accounts/{id}/delta":            "401 401 401 401 401 401 400 404",
	"GET /{$}":                             "200 303 303 303 303 303 200 200",
	"GET /roles":                           "401 200 200 200 200 200 401 401",
	"GET /roles/{account_id}/{role_name}":  "401 200 404 404 404 404 401 401",
	"POST /requests":                       "401 303 404 404 404 404 401 401",
	"GET /requests":                        "401 200 200 200 200 200 401 401",
	"GET /requests/{id}":                   "401 200 200 404 200 200 401 401",
	"POST /requests/{id}/approve":          "401 403 303 404 403 403 401 401",
	"POST /requests/{id}/deny":             "401 403 303 404 403 403 401 401",
	"POST /requests/{id}/extend":           "401 303 403 404 403 403 401 401",
	"POST /requests/{id}/shorten":          "401 303 303 404 403 403 401 401",
	"POST /requests/{id}/cancel":           "401 303 403 404 403 403 401 401",
	"POST /requests/{id}/done":             "401 303 403 404 403 403 401 401",
	"POST /requests/{id}/revoke":           "401 403 303 404 303 403 401 401",
	"GET /approvals":                       "401 200 200 200 200 200 401 401",
	"POST /sessions":                       "401 200 404 404 404 404 401 401",
	"POST /requests/{id}/console":          "401 303 404 404 404 404 401 401",
	"GET /console/{code}":                  "401 303 404 404 404 404 401 401",
	"GET /logins":                          "401 200 200 200 200 200 401 401",
	"POST /logins/{id}/end":                "401 303 404 404 404 404 401 401",
	"GET /accounts":                        "401 403 403 403 200 403 401 401",
	"POST /accounts/{id}/sync":             "401 403 403 403 303 403 401 401",
	"POST /accounts/{id}/confirm-removals": "401 403 403 403 422 403 401 401",
	"POST /favourites":                     "401 303 303 303 303 303 401 401",
	"GET /requests/new":                    "401 200 404 404 404 404 401 401",
	"GET /policies":                        "401 403 403 403 200 403 401 401",
	"GET /policies/new":                    "401 403 403 403 200 403 401 401",
	"GET /policies/explain":                "401 403 403 403 200 403 401 401",
	"POST /policies":                       "401 403 403 403 303 403 401 401",
	"GET /policies/{name}":                 "401 403 403 403 200 403 401 401",
	"POST /policies/{name}":                "401 403 403 403 422 403 401 401",
	"POST /policies/{name}/move":           "401 403 403 403 422 403 401 401",
	"POST /policies/{name}/delete":         "401 403 403 403 422 403 401 401",
	"GET /accounts/connect":                "401 403 403 403 200 403 401 401",
	"POST /accounts":                       "401 403 403 403 303 403 401 401",
	"GET /accounts/{id}":                   "401 403 403 403 200 403 401 401",
	"POST /accounts/{id}/change":           "401 403 403 403 422 403 401 401",
	"POST /accounts/{id}/disconnect":       "401 403 403 403 422 403 401 401",
	"POST /accounts/{id}/checks":           "401 403 403 403 303 403 401 401",
	"POST /accounts/{id}/runs":             "401 403 403 403 303 403 401 401",
	"GET /runs/{id}":                       "401 403 403 403 200 403 401 401",
	"POST /runs/{id}/decide":               "401 403 403 403 409 403 401 401",
	"GET /findings":                        "401 403 403 403 200 200 401 401",
	"GET /audit":                           "401 403 403 403 200 200 401 401",
	"GET /reports/access":                  "401 403 403 403 200 200 401 401",
	"GET /notices":                         "401 403 403 403 200 403 401 401",
	"POST /notices/{id}/retry":             "401 403 403 403 404 403 401 401",
	"GET /static/serval.css":               "200 200 200 200 200 200 200 200",
	"GET /static/serval.js":                "200 200 200 200 200 200 200 200",
	"GET /static/serval.svg":               "200 200 200 200 200 200 200 200",
}

// madePolicy returns an access policy that may be made over the API.
func madePolicy(name string) serval.AccessPolicy {
	return serval.AccessPolicy{
		Name: name, Roles: serval.RoleMatch{Accounts: []string{prod}, Tags: map[string]string{"Team": "payments", "Größe": "*"}},
		Eligible: serval.People{Emails: []string{"cy@example.com"}}, Approval: serval.Approval{Automatic: true}, MaxMinutes: 60,
	}
}

func TestEveryRouteForEverybody(t *testing.T) {
	w := newWorld(t, devices)
	w.push(w.inventory)
	ana, ben := w.as("ana"), w.as("ben")
	callers := []*browser{w.browser(), ana, ben, w.as("cy"), w.as("ada"), w.as("aud"), w.worker(hubToken), w.worker(elseToken)}
	arn := w.aws.RoleARN("dev-admin")

	pending := func() string {
		var made wire.Request
		ana.json("POST", "/api/v1/requests", wire.NewRequest{RoleARN: arn, Minutes: 60, Justification: "Incident 7"}, 201, &made)
		return made.ID
	}
	approved := func() string {
		id := pending()
		ben.json("POST", "/api/v1/requests/"+id+"/decisions", wire.Decision{Outcome: "approve"}, 200, nil)
		return id
	}
	another := func() string { // a login of Ana's
		w.clock.move(time.Second)
		w.as("ana")
		var logins wire.Logins
		ana.json("GET", "/api/v1/logins", nil, 200, &logins)
		for _, l := range logins.Logins {
			if !l.Current {
				return l.ID
			}
		}
		t.Fatal("Ana has no other login")
		return ""
	}
	started := func() string {
		var run wire.Run
		w.as("ada").json("POST", "/api/v1/accounts/"+prod+"/checks", nil, 202, &run)
		return run.ID
	}
	task := ""
	open := func() string {
		started()
		var tasks wire.Tasks
		w.worker(hubToken).json("GET", "/api/v1/upstream/tasks", nil, 200, &tasks)
		if len(tasks.Tasks) > 0 {
			task = tasks.Tasks[0].ID
		}
		return task
	}
	claimed := func() string {
		w.worker(hubToken).do("POST", "/api/v1/upstream/tasks/"+open()+"/claim", wire.ClaimTask{Worker: "w1"})
		return task
	}
	extension := wire.Extension{Minutes: 30, Justification: "More"}
	reason := url.Values{"reason": {"because"}}
	inputs := map[string]struct {
		id   func() string
		body any
	}{
		"POST /client/authorize":                       {nil, withDecision(clientQuery(), "approve")},
		"POST /api/v1/client/token":                    {nil, wire.NewClientToken{GrantType: "authorization_code", Code: "x", CodeVerifier: "x"}},
		"POST /device":                                 {nil, url.Values{"user_code": {"BCDF-GHJK"}}},
		"POST /device/decide":                          {nil, url.Values{"user_code": {"BCDF-GHJK"}, "decision": {"approve"}}},
		"POST /api/v1/client/device":                   {nil, wire.NewDevice{ClientName: "serval", ClientHost: "laptop", CodeChallenge: strings.Repeat("c", 43)}},
		"POST /api/v1/requests":                        {nil, wire.NewRequest{RoleARN: arn, Minutes: 60, Justification: "Incident 7"}},
		"POST /api/v1/requests/{id}/decisions":         {pending, wire.Decision{Outcome: "approve"}},
		"POST /api/v1/requests/{id}/extensions":        {approved, extension},
		"POST /api/v1/requests/{id}/shorten":           {approved, wire.Shortening{Minutes: 10}},
		"POST /api/v1/requests/{id}/cancel":            {pending, nil},
		"POST /api/v1/requests/{id}/done":              {approved, nil},
		"POST /api/v1/requests/{id}/revoke":            {approved, wire.Revocation{Reason: "because"}},
		"POST /api/v1/sessions":                        {approved, nil},
		"POST /api/v1/console-links":                   {approved, nil},
		"POST /requests/{id}/console":                  {approved, nil},
		"GET /console/{code}":                          {approved, nil},
		"POST /api/v1/people/{id}/relink":              {nil, wire.Relinking{}},
		"DELETE /api/v1/logins/{id}":                   {another, nil},
		"POST /api/v1/upstream/accounts/{id}/syncs":    {nil, wire.OpenSync{Worker: "w1"}},
		"PUT /api/v1/upstream/accounts/{id}/inventory": {nil, "{}"},
		"PUT /api/v1/upstream/accounts/{id}/delta":     {nil, "{}"},
		"POST /api/v1/explain/trust":                   {nil, `{"policy":{"Version":"2012-10-17","Statement":[]},"context":{"action":"sts:AssumeRole"}}`},
		"POST /api/v1/access-policies":                 {nil, wire.NewAccessPolicy{AccessPolicy: madePolicy("made")}},
		"PUT /api/v1/access-policies/{name}":           {nil, wire.NewAccessPolicy{AccessPolicy: madePolicy("engineers")}},
		"POST /api/v1/accounts":                        {nil, wire.NewAccount{ID: "777788889999", Name: "new", RoleARN: "arn:aws:iam::777788889999:role/x"}},
		"PATCH /api/v1/accounts/{id}":                  {nil, `{"name":"other"}`},
		"POST /requests":                               {nil, url.Values{"role_arn": {arn}, "minutes": {"60"}, "justification": {"Incident 7"}}},
		"POST /requests/{id}/approve":                  {pending, reason},
		"POST /requests/{id}/deny":                     {pending, reason},
		"POST /requests/{id}/extend":                   {approved, url.Values{"minutes": {"30"}, "justification": {"More"}}},
		"POST /requests/{id}/shorten":                  {approved, url.Values{"minutes": {"10"}}},
		"POST /requests/{id}/done":                     {approved, nil},
		"POST /requests/{id}/revoke":                   {approved, reason},
		"POST /sessions":                               {approved, nil},
		"POST /favourites":                             {nil, url.Values{"role_id": {w.aws.RoleID("dev-admin")}}},
		"POST /policies":                               {nil, url.Values{"name": {"made by a form"}, "arns": {"*"}, "groups": {"engineering"}, "approval": {"automatic"}, "max_minutes": {"60"}}},
		"POST /policies/{name}":                        {nil, url.Values{"arns": {"*"}, "groups": {"engineering"}, "approval": {"automatic"}, "max_minutes": {"60"}}},
		"POST /policies/{name}/move":                   {nil, url.Values{"to": {"up"}}},
		"POST /accounts":                               {nil, url.Values{"id": {"888899990000"}, "name": {"newer"}, "role_arn": {"arn:aws:iam::888899990000:role/x"}}},
		"POST /accounts/{id}/change":                   {nil, url.Values{"name": {"other"}, "role_arn": {"arn:aws:iam::" + prod + ":role/x"}}},
		"POST /accounts/{id}/disconnect":               {nil, url.Values{"id": {prod}}},
		"POST /accounts/{id}/checks":                   {nil, url.Values{"check": {"Test AWS Connection"}}},
		"POST /accounts/{id}/runs":                     {nil, url.Values{"workflow": {"fetch-roles"}}},
		"GET /runs/{id}":                               {started, nil},
		"POST /runs/{id}/decide":                       {started, url.Values{"outcome": {"approve"}}},
		"POST /logins/{id}/end":                        {another, nil},
		"POST /api/v1/workflows/{name}/runs":           {nil, wire.StartRun{AccountID: prod}},
		"GET /api/v1/runs/{id}":                        {started, nil},
		"POST /api/v1/runs/{id}/decisions":             {started, wire.RunDecision{Outcome: "approve"}},
		"POST /api/v1/upstream/tasks/{id}/claim":       {open, wire.ClaimTask{Worker: "w1"}},
		"POST /api/v1/upstream/tasks/{id}/result": {claimed, wire.TaskResult{Worker: "w1", Attempt: 1, Result: serval.RunResult{
			Check: &serval.Check{Name: serval.CheckConnection, AccountID: prod, Passed: true, Text: serval.TextConnected}}}},
	}
	try := func(r web.Route, i int, from *browser) {
		t.Helper()
		key := r.Method + " " + r.Pattern
		in := inputs[key]
		id, body := prod, in.body
		switch {
		case in.id != nil:
			id = in.id()
		case strings.Contains(r.Pattern, "/requests/{id}"):
			id = pending()
		}
		switch key {
		case "POST /sessions":
			body = url.Values{"request_id": {id}}
		case "POST /api/v1/sessions":
			body = wire.NewSession{RequestID: id}
		case "POST /api/v1/console-links":
			body = wire.NewConsoleLink{RequestID: id}
		}
		code := ""
		if strings.Contains(r.Pattern, "{code}") { // Ana's, for everybody
			var link wire.ConsoleLink
			ana.json("POST", "/api/v1/console-links", wire.NewConsoleLink{RequestID: id}, 201, &link)
			code = strings.TrimPrefix(link.Path, "/console/")
		}
		name := "engineers"
		if strings.Contains(r.Pattern, "/workflows/") {
			name = "fetch-roles"
		}
		path := strings.NewReplacer("{code}", code, "{id}", id, "{account_id}", prod, "{role_name}", "dev-admin", "{name}", name, "{$}", "").Replace(r.Pattern)
		switch key {
		case "GET /api/v1/access/explain":
			path += "?email=ana@example.com&role_arn=" + url.QueryEscape(arn)
		case "GET /policies/explain":
			path += "?email=ana@example.com&role_arn=" + url.QueryEscape(arn)
		case "GET /requests/new":
			path += "?role_arn=" + url.QueryEscape(arn)
		case "GET /client/authorize":
			path += "?" + clientQuery().Encode()
		}
		want := strings.Fields(allowed[key])[i]
		res, text := from.do(r.Method, path, body)
		if got := fmt.Sprint(res.StatusCode); got != want {
			t.Errorf("%s as caller %d answered %s, want %s: %.300s", key, i, got, want, text)
		}
	}
	last := map[string]bool{"GET /oidc/auth/login": true, "POST /signout": true}
	seen := 0
	for _, r := range w.edge.Routes() {
		key := r.Method + " " + r.Pattern
		if allowed[key] == "" || r.Rule == "" {
			t.Errorf("%s has no rule, or is not in this table", key)
			continue
		}
		seen++
		if last[key] {
			continue
		}
		for i, from := range callers {
			w.clock.move(2 * time.Second) // the bound on sign-ins is another test's
			try(r, i, from)
		}
	}
	if seen != len(allowed) {
		t.Errorf("%d routes are in the table, %d were tried", len(allowed), seen)
	}
	for i, from := range callers {
		try(web.Route{Method: "POST", Pattern: "/signout"}, i, from)
		try(web.Route{Method: "GET", Pattern: "/oidc/auth/login"}, i, from)
	}
}

// S-13, S-62: public routes are exact, and a path that is not written as it is
// meant is nothing.
func TestPathsAreExact(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	b.header.Set("User-Agent", "kube-probe/1.34")
	for _, path := range []string{
		"/oidc/auth/logout", "/nope", "/api", "/api/", "/api/v1", "/api/v1/", "/api/v1/nope", "/api/v2/me", "/healthz", "/livez", "/metrics",
		"/static", "/static/", "/static/../roles", "/static/nope.css", "/static/serval.css/", "//api/v1/me", "/api//v1/me", "/api/v1/me/", "/./api/v1/me",
		"/static/serval.css/../../api/v1/me", "/static%2f..%2fapi/v1/me", "/api/v1/me;x", "/api%2fv1%2fme", "/%2e%2e/api/v1/me", "/api/v1/../v1/me",
		"/static/serval.css%00", "/api/v1/requests/%2e%2e", "/api/v1/requests/..%5cx", "/signin", "/api/v1/requests/a%2fb", "/api/v1/requests/a;b", "/api/v1/requests/a%25b", "/api/v1/requests/%c3%bc", "/requests/x/nope", "/roles/a/b/c",
	} {
		u, err := url.Parse(w.url)
		if err != nil {
			t.Fatal(err)
		}
		u.Opaque = "//" + u.Host + path // as it is, not cleaned
		req := &http.Request{Method: "GET", URL: u, Host: u.Host, Header: b.header}
		res, err := b.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 404 {
			t.Errorf("GET %s answered %d, want 404", path, res.StatusCode)
		}
	}
	for _, path := range []string{"/api/v1/me", "/api/v1/me?/static/serval.css", "/api/v1/me?x=/healthz", "/roles?/static/serval.css", "/audit?healthz"} {
		if res, _ := b.do("GET", path, nil); res.StatusCode != 401 {
			t.Errorf("GET %s answered %d, want 401", path, res.StatusCode)
		}
	}
	for path, allow := range map[string]string{
		"/api/v1/me": "GET, HEAD", "/oidc/auth/callback": "GET", "/oidc/auth/login": "GET", "/api/v1/sessions": "GET, HEAD, POST", "/signout": "POST",
		"/api/v1/requests/x/done": "POST", "/api/v1/logins/x": "DELETE",
	} {
		for _, method := range []string{"PATCH", "OPTIONS", "TRACE"} {
			res, text := b.do(method, path, nil)
			if res.StatusCode != 405 || res.Header.Get("Allow") != allow || strings.HasPrefix(path, "/api/") != strings.HasPrefix(text, `{"code":"invalid_argument"`) {
				t.Errorf("%s %s answered %d with Allow %q, want 405 with %q: %.100s", method, path, res.StatusCode, res.Header.Get("Allow"), allow, text)
			}
		}
	}
	// S-45: the way back is a query, never a post.
	if res, _ := b.do("POST", "/oidc/auth/callback", url.Values{"state": {"x"}}); res.StatusCode != 405 {
		t.Errorf("POST to the callback answered %d, want 405", res.StatusCode)
	}
	if res, _ := b.do("HEAD", "/oidc/auth/login", nil); res.StatusCode != 405 {
		t.Errorf("HEAD of the login answered %d, want 405", res.StatusCode)
	}
	if res, _ := b.do("HEAD", "/", nil); res.StatusCode != 200 {
		t.Errorf("HEAD of the first page answered %d, want 200", res.StatusCode)
	}
}

// S-12, S-46: no header says who or where we are.
func TestHeadersDecideNothing(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	want, _ := b.do("GET", "/oidc/auth/login", nil)
	redirect := func(res *http.Response) string {
		u, err := url.Parse(res.Header.Get("Location"))
		if err != nil {
			t.Fatal(err)
		}
		return u.Query().Get("redirect_uri")
	}
	for name, value := range map[string]string{
		"X-Forwarded-Host": "evil.example", "X_Forwarded_Host": "evil.example", "X-Forwarded-Proto": "https", "X-Forwarded-Uri": "/static/serval.css",
		"X-Original-Url": "/static/serval.css", "X-Rewrite-Url": "/static/serval.css", "X-Forwarded-Email": "ada@example.com", "X-Forwarded-User": "ada@example.com",
		"X-Auth-Request-Email": "ada@example.com", "Forwarded": "for=1.2.3.4;host=evil.example;proto=https", "X-Http-Method-Override": "POST",
		"X-Forwarded-Prefix": "/evil", "Remote-User": "ada",
	} {
		b := w.browser()
		b.header = http.Header{name: {value}}
		res, _ := b.do("GET", "/oidc/auth/login", nil)
		if res.StatusCode != 303 || redirect(res) != redirect(want) || redirect(res) != w.url+"/oidc/auth/callback" {
			t.Errorf("with %s the redirect URI is %q (%d), want the configured one", name, redirect(res), res.StatusCode)
		}
		if res, _ := b.do("GET", "/api/v1/accounts", nil); res.StatusCode != 401 {
			t.Errorf("with %s GET /api/v1/accounts answered %d, want 401", name, res.StatusCode)
		}
	}
	// Nor does the Host: every address answers as it does at its own, and nothing of
	// it comes back.
	ana := w.as("ana")
	for _, host := range []string{"evil.example", "127.0.0.1", "localhost:443"} {
		for _, path := range []string{"/oidc/auth/login", "/oidc/auth/logout", "/api/v1/me", "/", "/roles", "/nope", "/static/serval.css"} {
			b := w.browser()
			own, _ := b.do("GET", path, nil)
			b.header.Set("Host", host)
			res, text := b.do("GET", path, nil)
			if res.StatusCode != own.StatusCode || redirect(res) != redirect(own) || strings.Contains(text+fmt.Sprint(res.Header), "evil") {
				t.Errorf("Host %q: GET %s answered %d, want %d as at its own: %.100s", host, path, res.StatusCode, own.StatusCode, text)
			}
		}
		b := w.browser()
		b.header.Set("Host", host)
		for _, r := range w.edge.Routes() {
			if r.Rule != web.Public || r.Method == "GET" {
				continue
			}
			if res, _ := b.do(r.Method, r.Pattern, nil); res.StatusCode != 421 {
				t.Errorf("Host %q: %s %s answered %d to a stranger, want 421", host, r.Method, r.Pattern, res.StatusCode)
			}
		}
		// Another site's Origin is refused although its Host says the same.
		ana.header = http.Header{"Host": {host}, "Origin": {"http://" + host}}
		if res, _ := ana.do("POST", "/api/v1/requests", "{}"); res.StatusCode != 403 {
			t.Errorf("Host and Origin %q: a request answered %d, want 403", host, res.StatusCode)
		}
		ana.header = http.Header{}
	}
	// A worker comes by the cluster's own name.
	worker := w.worker(hubToken)
	worker.header.Set("Host", "serval-bridge")
	if res, text := worker.do("GET", "/api/v1/upstream/accounts", nil); res.StatusCode != 200 {
		t.Errorf("a worker by another host name: %d, want 200: %s", res.StatusCode, text)
	}
}

// S-17: what another site sends does nothing, on every route that changes
// something.
func TestCrossOrigin(t *testing.T) {
	w := newWorld(t)
	w.push(w.inventory)
	ana := w.as("ana")
	evil := []http.Header{
		{"Sec-Fetch-Site": {"cross-site"}},
		{"Sec-Fetch-Site": {"same-site"}},
		{"Sec-Fetch-Site": {"cross-site"}, "Origin": {w.url}},
		{"Origin": {"https://evil.example"}},
		{"Origin": {"null"}},
		{"Origin": {strings.Replace(w.url, "http:", "https:", 1)}},
		{"Origin": {w.url + ".evil.example"}},
		{"Origin": {"https://evil.example"}, "Sec-Fetch-Site": {"same-origin"}},
	}
	for _, r := range w.edge.Routes() {
		if r.Method == "GET" {
			continue
		}
		for _, header := range evil {
			ana.header = header
			path := strings.NewReplacer("{id}", "x").Replace(r.Pattern)
			if res, text := ana.do(r.Method, path, nil); res.StatusCode != 403 || !strings.Contains(text, "another site") {
				t.Errorf("%s %s with %v answered %d, want 403", r.Method, path, header, res.StatusCode)
			}
		}
	}
	form := url.Values{"role_arn": {w.aws.RoleARN("dev-auto")}, "minutes": {"5"}}
	for _, header := range []http.Header{
		{}, {"Origin": {w.url}}, {"Origin": {"null"}, "Sec-Fetch-Site": {"same-origin"}}, {"Origin": {w.url}, "Sec-Fetch-Site": {"same-origin"}}, {"Sec-Fetch-Site": {"none"}},
	} {
		ana.header = header
		ana.post("/requests", form, "/requests/req_.*")
	}
	// A form of another site cannot speak JSON either, whatever its browser says.
	ana.header = http.Header{}
	if res, _ := ana.do("POST", "/api/v1/requests", url.Values{`{"role_arn":"x","minutes":5,"ticket":"`: {`"}`}}); res.StatusCode != 400 {
		t.Errorf("a form posted to the API answered %d, want 400", res.StatusCode)
	}
	// Another site can neither sign anybody out by sending them to sign in.
	ana.header = http.Header{"Sec-Fetch-Site": {"cross-site"}}
	if res, _ := ana.do("GET", "/oidc/auth/login?return_to=/requests", nil); res.Header.Get("Location") != w.url+"/requests" {
		t.Errorf("a sign-in begun by another site leads to %q, want back to /requests", res.Header.Get("Location"))
	}
	ana.header = http.Header{}
	ana.page("/roles", 200)
}

// S-84
func TestLoginRate(t *testing.T) {
	w := newWorld(t)
	w.clock.standAt(time.Now().Add(time.Hour).Truncate(time.Minute).Add(10 * time.Second))
	for i := range 31 {
		res, _ := w.browser().do("GET", "/oidc/auth/login", nil)
		if want := 303; i < 30 && res.StatusCode != want {
			t.Fatalf("sign-in %d answered %d, want %d", i+1, res.StatusCode, want)
		}
		if i == 30 && (res.StatusCode != 429 || res.Header.Get("Retry-After") == "") {
			t.Fatalf("sign-in 31 answered %d with Retry-After %q, want 429 and a time", res.StatusCode, res.Header.Get("Retry-After"))
		}
	}
	w.clock.move(time.Minute)
	if res, _ := w.browser().do("GET", "/oidc/auth/login", nil); res.StatusCode != 303 {
		t.Errorf("a minute later the sign-in answered %d, want 303", res.StatusCode)
	}
}

// S-84: nor does anybody come back from signing in without end.
func TestReturnRate(t *testing.T) {
	w := newWorld(t)
	w.clock.standAt(time.Now().Add(time.Hour).Truncate(time.Minute).Add(10 * time.Second))
	b := w.browser()
	for i := range 121 {
		res, _ := b.do("GET", "/oidc/auth/callback?state=x&code=x", nil)
		if i < 120 && res.StatusCode != 400 {
			t.Fatalf("answer %d of the provider answered %d, want 400", i+1, res.StatusCode)
		}
		if i == 120 && (res.StatusCode != 429 || res.Header.Get("Retry-After") == "") {
			t.Fatalf("answer 121 of the provider answered %d with Retry-After %q, want 429 and a time", res.StatusCode, res.Header.Get("Retry-After"))
		}
	}
	w.clock.move(time.Minute)
	if res, _ := b.do("GET", "/oidc/auth/callback?state=x&code=x", nil); res.StatusCode != 400 {
		t.Errorf("a minute later the callback answered %d, want 400", res.StatusCode)
	}
}
