package web_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zapcore"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/web"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

var update = flag.Bool("update", os.Getenv("UPDATE_GOLDEN") == "1", "write the golden files anew")

// S-71: another person's id, and one that is none, are the same answer.
func TestOthersAreNothing(t *testing.T) {
	w := newWorld(t)
	w.push(w.inventory)
	ana, cy := w.as("ana"), w.as("cy")
	var made wire.Request
	ana.json("POST", "/api/v1/requests", wire.NewRequest{RoleARN: w.aws.RoleARN("dev-auto"), Minutes: 60}, 201, &made)
	var me wire.Me
	ana.json("GET", "/api/v1/me", nil, 200, &me)
	same := func(method, path string, body func(id string) any, real, none string) {
		t.Helper()
		var input func(string) any = func(string) any { return nil }
		if body != nil {
			input = body
		}
		res1, text1 := cy.do(method, strings.ReplaceAll(path, "{id}", real), input(real))
		res2, text2 := cy.do(method, strings.ReplaceAll(path, "{id}", none), input(none))
		id := regexp.MustCompile(`<code>[A-Z0-9]{26}</code>|\b` + real + `\b|\b` + none + `\b`)
		text1, text2 = id.ReplaceAllString(text1, ""), id.ReplaceAllString(text2, "")
		if res1.StatusCode != 404 || res2.StatusCode != 404 || text1 != text2 {
			t.Errorf("%s %s answered %d for another's id and %d for none, want the same 404:\n%s\n%s", method, path, res1.StatusCode, res2.StatusCode, text1, text2)
		}
	}
	const none = "req_aaaaaaaaaaaaaaaaaaaaaaaaaa"
	json := func(v any) func(string) any { return func(string) any { return v } }
	same("GET", "/api/v1/requests/{id}", nil, made.ID, none)
	same("GET", "/requests/{id}", nil, made.ID, none)
	same("POST", "/api/v1/requests/{id}/decisions", json(wire.Decision{Outcome: "approve"}), made.ID, none)
	same("POST", "/api/v1/requests/{id}/extensions", json(wire.Extension{Minutes: 5}), made.ID, none)
	same("POST", "/api/v1/requests/{id}/shorten", json(wire.Shortening{Minutes: 5}), made.ID, none)
	same("POST", "/api/v1/requests/{id}/cancel", nil, made.ID, none)
	same("POST", "/api/v1/requests/{id}/done", nil, made.ID, none)
	same("POST", "/api/v1/requests/{id}/revoke", json(wire.Revocation{}), made.ID, none)
	same("POST", "/api/v1/sessions", func(id string) any { return wire.NewSession{RequestID: id} }, made.ID, none)
	same("POST", "/sessions", func(id string) any { return url.Values{"request_id": {id}} }, made.ID, none)
	same("DELETE", "/api/v1/logins/{id}", nil, me.LoginID, "login_aaaaaaaaaaaaaaaaaaaaaaaaaa")
	same("GET", "/api/v1/roles/"+prod+"/{id}", nil, "dev-auto", "dev-none")
	if ana.whoAmI() != "ana@example.com" {
		t.Error("Ana is not signed in any more")
	}
}

// S-78: what must never be kept is said not to be.
func TestHeaders(t *testing.T) {
	w := newWorld(t) // every answer of every test is held to the others; see checkAnswer
	res, _ := w.browser().do("GET", "/static/serval.css", nil)
	if got := res.Header.Get("Cache-Control"); got != "no-cache" {
		t.Errorf("the stylesheet without its tag has Cache-Control %q, want no-cache", got)
	}
	page := w.browser().page("/", 200)
	for _, m := range regexp.MustCompile(`/static/[^"]+`).FindAllString(page, -1) {
		res, text := w.browser().do("GET", m, nil)
		if res.StatusCode != 200 || text == "" || !strings.Contains(res.Header.Get("Cache-Control"), "immutable") {
			t.Errorf("GET %s answered %d with %q, want 200 and to be kept", m, res.StatusCode, res.Header.Get("Cache-Control"))
		}
	}
	for _, inline := range []string{"<script>", "<style", " style=", " onclick", "http://", "https://"} {
		if strings.Contains(page, inline) {
			t.Errorf("the page has %q, which its policy forbids or should not need", inline)
		}
	}
	// Off loopback it is https, and says so.
	var config web.Config
	newWorld(t, func(c *web.Config) { config = *c })
	config.PublicURL = "https://serval.example.com"
	edge, err := web.New(config)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"serval.example.com", "SERVAL.example.com:443"} {
		rec := httptest.NewRecorder()
		req := httptest.NewRequest("GET", "https://"+host+"/", nil)
		edge.ServeHTTP(rec, req)
		if rec.Code != 200 || rec.Header().Get("Strict-Transport-Security") == "" {
			t.Errorf("at https://%s: %d without HSTS", host, rec.Code)
		}
	}
	rec := httptest.NewRecorder()
	req := httptest.NewRequest("POST", "https://serval.example.com/signout", nil)
	req.Header.Set("Origin", "http://serval.example.com")
	edge.ServeHTTP(rec, req)
	if rec.Code != 403 {
		t.Errorf("from the http variant of our host: %d, want 403", rec.Code)
	}
}

// S-32, R-47: a body is one JSON object that says what is known, once.
func TestBodies(t *testing.T) {
	w := newWorld(t)
	w.push(w.inventory)
	ana := w.as("ana")
	arn := w.aws.RoleARN("dev-auto")
	good := `{"role_arn":"` + arn + `","minutes":5}`
	ana.json("POST", "/api/v1/requests", good, 201, nil)
	ana.json("POST", "/api/v1/requests", " \n"+good+" \n", 201, nil)
	for name, c := range map[string]struct {
		body   string
		status int
	}{
		"empty":              {"", 400},
		"null":               {"null", 400},
		"a list":             {"[]", 400},
		"a text":             {`"x"`, 400},
		"broken off":         {good[:len(good)-1], 400},
		"text behind":        {good + "x", 400},
		"two objects":        {good + good, 400},
		"an unknown field":   {strings.Replace(good, "{", `{"admin":true,`, 1), 400},
		"a field twice":      {strings.Replace(good, "{", `{"minutes":1,`, 1), 400},
		"a field's case":     {strings.Replace(good, "minutes", "Minutes", 1), 400},
		"escaped twice":      {strings.Replace(good, "{", `{"m\u0069nutes":1,`, 1), 400},
		"a text for minutes": {strings.Replace(good, "5", `"5"`, 1), 400},
		"a fraction":         {strings.Replace(good, "5", `5.5`, 1), 400},
		"too large a number": {strings.Replace(good, "5", `1e30`, 1), 400},
		"negative":           {strings.Replace(good, "5", `-5`, 1), 400},
		"a list for a text":  {strings.Replace(good, `"`+arn+`"`, `["x"]`, 1), 400},
		"a wrong time":       {strings.Replace(good, "{", `{"start_at":"tomorrow",`, 1), 400},
		"a time's type":      {strings.Replace(good, "{", `{"start_at":5,`, 1), 400},
		"not UTF-8":          {strings.Replace(good, "{", "{\"ticket\":\"\xff\",", 1), 400},
		"NUL":                {strings.Replace(good, "{", `{"ticket":"\u0000",`, 1), 400},
		"a BOM":              {"\ufeff" + good, 400},
		"10,000 deep":        {strings.Repeat(`{"a":`, 10_000) + "1" + strings.Repeat("}", 10_000), 400},
		"no role":            {`{"minutes":5}`, 400},
		"both roles":         {strings.Replace(good, "{", `{"role_arns":["`+arn+`"],`, 1), 400},
		"no ARN":             {`{"role_arn":"dev-auto","minutes":5}`, 400},
		"21 roles":           {`{"role_arns":["` + strings.Repeat(arn+`","`, 20) + `x"],"minutes":5}`, 400},
		"64 KiB and one":     {`{"ticket":"` + strings.Repeat("x", 64<<10) + `"}`, 413},
		"a long ticket":      {strings.Replace(good, "{", `{"ticket":"`+strings.Repeat("x", 201)+`",`, 1), 400},
	} {
		res, text := ana.do("POST", "/api/v1/requests", c.body)
		var e wire.Error
		if err := json.Unmarshal([]byte(text), &e); err != nil || res.StatusCode != c.status || e.Message == "" {
			t.Errorf("%s: answered %d, want %d with a sentence: %.300s", name, res.StatusCode, c.status, text)
		}
	}
	// What encoding/json would fold, and what it would read at any depth.
	deep := func(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }
	for body, want := range map[string]string{
		`{"request_id":"a","reque\u017ft_id":"b"}`:               "is not known",
		`{"requeſt_id":"b"}`:                                     "is not known",
		`{"request_id":"a","narrow":{"networK":["10.0.0.0/8"]}}`: "is not known",
		deep(33): "nested too deeply",
		strings.Replace(deep(10), "1", strings.Repeat("[", 23)+strings.Repeat("]", 23), 1): "nested too deeply",
		deep(32): "is not known",
	} {
		if res, text := ana.do("POST", "/api/v1/sessions", body); res.StatusCode != 400 || !strings.Contains(text, want) {
			t.Errorf("%.80s: answered %d, want 400 and that it %s: %s", body, res.StatusCode, want, text)
		}
	}
	for _, kind := range []string{"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/json; charset=latin1", "application/jsonp"} {
		ana.header = http.Header{"Content-Type": {kind}}
		if res, text := ana.do("POST", "/api/v1/requests", good); res.StatusCode != 400 || !strings.Contains(text, "application/json") {
			t.Errorf("Content-Type %q: answered %d, want 400: %s", kind, res.StatusCode, text)
		}
	}
	ana.header = http.Header{}
	for _, path := range []string{
		"/api/v1/roles?page_size=0", "/api/v1/roles?page_size=1001", "/api/v1/roles?page_size=x", "/api/v1/roles?page_token=!", "/api/v1/roles?page_token=eA",
		"/api/v1/roles?accountid=1", "/api/v1/roles?q=a&q=b", "/api/v1/roles?q=%ff", "/api/v1/requests?status=nope", "/api/v1/requests?page_token=eA",
		"/api/v1/sessions?page_token=eA", "/api/v1/me?x=1", "/api/v1/requests?a=1;b=2",
	} {
		if res, text := ana.do("GET", path, nil); res.StatusCode != 400 {
			t.Errorf("GET %s answered %d, want 400: %s", path, res.StatusCode, text)
		}
	}
	for _, form := range []url.Values{{"role_arn": {arn}, "minutes": {"x"}}, {"role_arn": {arn}, "minutes": {"-5"}}, {"role_arn": {arn}}, {}, {"role_arn": {"nope"}, "minutes": {"5"}}} {
		if res, _ := ana.do("POST", "/requests", form); res.StatusCode != 400 {
			t.Errorf("the form %v answered %d, want 400", form, res.StatusCode)
		}
	}
	if res, _ := ana.do("POST", "/requests", good); res.StatusCode != 400 {
		t.Errorf("JSON for a form answered %d, want 400", res.StatusCode)
	}
	if res, _ := ana.do("POST", "/requests", url.Values{"justification": {strings.Repeat("x", 70_000)}}); res.StatusCode != 413 {
		t.Errorf("a form of 70 KB answered %d, want 413", res.StatusCode)
	}
}

// hostile texts are shown as they are, and do nothing. S-25, S-79
var hostile = []string{
	`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `'"--></style></title><svg/onload=alert(1)>`, `javascript:alert(1)`, `{{.}}`, `${7*7}`,
	"</textarea><script>alert(1)</script>", "a\u202egnp.exe", "a\u200bb\u2066c", "¡nandú ÿ", "x\u2028y", "tab\tand\nline", "ünïcödé 🐈", "&lt;b&gt;", "`'\"\\",
}

func TestHostileTexts(t *testing.T) {
	w := newWorld(t)
	all := strings.Join(hostile, " ")
	w.push(func(g int64) serval.Inventory {
		inv := w.inventory(g)
		for i := range inv.Roles {
			inv.Roles[i].Description = all
			inv.Roles[i].Tags = map[string]string{"serval": hostile[0]}
			for _, text := range hostile {
				inv.Roles[i].Tags[text] = text
			}
			document, err := json.Marshal(map[string]string{"Sid": all})
			if err != nil {
				t.Fatal(err)
			}
			inv.Roles[i].TrustPolicy = serval.Document(document)
			inv.Roles[i].InlinePolicies.Policies[0].Document = serval.Document(all)
			inv.Roles[i].InlinePolicies.Policies[0].Name = "x" + hostile[0]
		}
		inv.Problems = []serval.Problem{{Action: all, Target: all, Code: all, Message: all}}
		inv.NearMisses = []serval.NearMiss{{ARN: all, TagKey: all}}
		inv.Unreadable = []serval.Unreadable{{ARN: all, RoleID: all, Action: all, Code: all}}
		return inv
	})
	ana := w.browser()
	ana.header.Set("User-Agent", hostile[0]+hostile[1]+hostile[5])
	ana.signIn("ana@example.com")
	ben, ada := w.as("ben"), w.as("ada")
	var made wire.Request
	ana.json("POST", "/api/v1/requests", wire.NewRequest{RoleARN: w.aws.RoleARN("dev-admin"), Minutes: 60, Justification: all, Ticket: hostile[0]}, 201, &made)
	if made.Justification != all {
		t.Errorf("the justification came back as %q, want %q", made.Justification, all)
	}
	pages := map[string]string{
		"roles":        ana.page("/roles?q="+url.QueryEscape("<script>"), 200),
		"nothing":      ana.page("/roles?q="+url.QueryEscape(all+"none")+"&tag="+url.QueryEscape(all)+"&account_id="+url.QueryEscape(all), 200),
		"role":         ana.page("/roles/"+prod+"/dev-admin", 200),
		"requests":     ana.page("/requests", 200),
		"request":      ana.page("/requests/"+made.ID, 200),
		"approvals":    ben.page("/approvals", 200),
		"accounts":     ada.page("/accounts", 200),
		"audit":        ada.page("/audit", 200),
		"audit filter": ada.page("/audit?target="+url.QueryEscape(all)+"&action="+url.QueryEscape(all), 200),
		"logins":       ana.page("/logins", 200),
	}
	_, pages["form again"] = ana.do("POST", "/requests", url.Values{"role_arn": {w.aws.RoleARN("dev-auto")}, "minutes": {all}, "justification": {all}, "ticket": {all}})
	_, pages["deny"] = ben.do("POST", "/requests/"+made.ID+"/deny", url.Values{"reason": {all}})
	pages["denied"] = ana.page("/requests/"+made.ID, 200)
	ours := regexp.MustCompile(`<script src="/static/serval\.js\?v=[0-9a-f]+" defer></script>`)
	for name, page := range pages {
		page = ours.ReplaceAllString(page, "")
		for _, alive := range []string{"<script", "<img src=x", "<svg", "onerror=alert(1)>", "\u202e", "\u200b", "\u2066", `href="javascript:`, "ZgotmplZ"} {
			if strings.Contains(page, alive) {
				t.Errorf("the page %s has %q in it, alive", name, alive)
			}
		}
	}
	for _, name := range []string{"role", "request", "approvals", "form again"} {
		for _, want := range []string{"&lt;script&gt;alert(1)&lt;/script&gt;", "⟨U+202E⟩gnp.exe", "ünïcödé 🐈", "{{.}}"} {
			if !strings.Contains(pages[name], want) {
				t.Errorf("the page %s does not show %q", name, want)
			}
		}
	}
}

// a panic costs its request and nothing else, and tells nothing.
func TestPanicAndFaults(t *testing.T) {
	boom := false
	w := newWorld(t, panicking(&boom, errors.New("CAN"+"not happen, with details")))
	ana := w.as("ana")
	boom = true
	var id string
	for _, path := range []string{"/oidc/auth/login"} {
		res, text := ana.do("GET", path, nil)
		id = res.Header.Get("X-Request-Id")
		if res.StatusCode != 500 || strings.Contains(text, "details") || strings.Contains(text, "goroutine") ||
			!strings.Contains(text, "Something went wrong on our side.") || !strings.Contains(text, res.Header.Get("X-Request-Id")) {
			t.Errorf("GET %s while panicking answered %d: %s", path, res.StatusCode, text)
		}
	}
	boom = false
	ana.page("/roles", 200)
	panics := w.logs.FilterMessage("panic").All()
	if len(panics) != 1 {
		t.Fatalf("the panic is in the log %d times, want once", len(panics))
	}
	said := panics[0].ContextMap()
	if panics[0].Level != zapcore.ErrorLevel || said["request_id"] != id || !strings.Contains(fmt.Sprint(said["panic"]), "with details") || !strings.Contains(fmt.Sprint(said["stack"]), "beginLogin") {
		t.Errorf("the log says of the panic %v, want an error with the request's id, the words and the stack", said)
	}

	// A fault: the database is gone.
	w.closeStore()
	res, text := ana.do("GET", "/api/v1/me", nil)
	if want := fmt.Sprintf(`{"code":"internal","message":"Something went wrong on our side.","detail":{"request_id":"%s"}}`, res.Header.Get("X-Request-Id")); res.StatusCode != 500 || strings.TrimSpace(text) != want {
		t.Errorf("without a database: %d %s, want 500 %s", res.StatusCode, text, want)
	}
	res, text = ana.do("GET", "/roles", nil)
	if res.StatusCode != 500 || strings.Count(text, res.Header.Get("X-Request-Id")) != 1 || strings.Contains(text, "sql") {
		t.Errorf("the page without a database: %d, which is to say its request id once: %s", res.StatusCode, text)
	}
	if n := w.logs.FilterMessage("a request failed").Len(); n != 2 {
		t.Errorf("two faults are in the log %d times, want twice", n)
	}
}

// One line for each request, with its pattern and without what it asked.
func TestLogLines(t *testing.T) {
	w := newWorld(t, func(c *web.Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	w.push(w.inventory)
	ana := w.as("ana")
	w.logs.TakeAll()
	ana.header.Set("X-Forwarded-For", "203.0.113.9, 198.51.100.7, 127.0.0.2")
	ana.do("GET", "/api/v1/requests/req_x?secret=1", nil)
	ana.do("GET", "/nope?secret=1", nil)
	ana.do("POST", "/api/v1/requests", wire.NewRequest{RoleARN: w.aws.RoleARN("dev-auto"), Minutes: 5, Justification: "private words"})
	lines := w.logs.FilterMessage("request").All()
	if len(lines) != 3 {
		t.Fatalf("%d lines for three requests", len(lines))
	}
	for i, want := range []struct {
		method, route string
		status        int64
		person        bool
	}{{"GET", "/api/v1/requests/{id}", 400, true}, {"GET", "none", 404, true}, {"POST", "/api/v1/requests", 201, true}} {
		got := lines[i].ContextMap()
		if got["method"] != want.method || got["route"] != want.route || got["status"] != want.status || (got["person"] != nil) != want.person || got["request_id"] == "" {
			t.Errorf("line %d is %v, want %+v", i+1, got, want)
		}
		if strings.Contains(fmt.Sprint(got), "secret") || strings.Contains(fmt.Sprint(got), "private") || strings.Contains(fmt.Sprint(got), "@") {
			t.Errorf("line %d tells too much: %v", i+1, got)
		}
	}
	var events wire.Events
	w.as("aud").json("GET", "/api/v1/audit?action=request.create", nil, 200, &events)
	if len(events.Events) != 1 || events.Events[0].Address != "198.51.100.7" || events.Events[0].RequestID != lines[2].ContextMap()["request_id"] {
		t.Errorf("the audit row is %+v, want the address that the trusted proxy named, and the same request id", events.Events)
	}
	// Where every hop is a proxy's address, the farther ones could be anybody's
	// word: our own proxy's counts. S-12
	ana.header.Set("X-Forwarded-For", "127.0.0.9, 127.0.0.3")
	ana.do("POST", "/api/v1/requests", wire.NewRequest{RoleARN: w.aws.RoleARN("dev-auto"), Minutes: 5, Justification: "again"})
	w.as("aud").json("GET", "/api/v1/audit?action=request.create", nil, 200, &events)
	if got := events.Events[0].Address; got != "127.0.0.3" {
		t.Errorf("recorded from %s, want the hop that our proxy names", got)
	}
	// Whoever is no proxy names nobody.
	w = newWorld(t)
	ana = w.browser()
	ana.header.Set("X-Forwarded-For", "203.0.113.9")
	ana.signIn("ana@example.com")
	var logins wire.Logins
	ana.json("GET", "/api/v1/logins", nil, 200, &logins)
	if logins.Logins[0].Address != "127.0.0.1" {
		t.Errorf("the login's address is %s, want the peer's", logins.Logins[0].Address)
	}
}

// A push is a stream of its own bounds, and tells its sender what is wrong.
// A worker that somebody wrote by hand says no more than it has to: no name, and
// nothing of the kind of what it sends. An older generation is a conflict, also the
// one before the first.
func TestPush_byHand(t *testing.T) {
	w := newWorld(t)
	send := func(method, path, body string, status int) string {
		t.Helper()
		req, err := http.NewRequest(method, w.url+"/api/v1/upstream/accounts/"+prod+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+hubToken)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != status {
			t.Errorf("%s %s %.80s answered %d, want %d: %s %v", method, path, body, res.StatusCode, status, text, err)
		}
		return string(text)
	}
	inventory := func(generation int64) string {
		var body bytes.Buffer
		if err := wire.WriteInventory(&body, w.inventory(generation)); err != nil {
			t.Fatal(err)
		}
		return body.String()
	}
	send("POST", "/syncs", "", 200)
	if opened := send("POST", "/syncs", "{}", 200); !strings.Contains(opened, `"generation":2,`) {
		t.Errorf("the second sync is %s, want generation 2", opened)
	}
	first, second := inventory(1), inventory(2)
	send("PUT", "/inventory", inventory(0), 409)
	send("PUT", "/inventory", first, 409)
	send("PUT", "/inventory", second, 200)
	send("PUT", "/inventory", second, 200)
	send("PUT", "/inventory", first, 409)
}

func TestPush(t *testing.T) {
	w := newWorld(t)
	hub := w.worker(hubToken)
	at := "/api/v1/upstream/accounts/" + prod
	var accounts wire.WorkerAccounts
	hub.json("GET", "/api/v1/upstream/accounts", nil, 200, &accounts)
	if len(accounts.Accounts) != 1 || accounts.Accounts[0].ID != prod || accounts.Accounts[0].ExternalID != "external-id-1" {
		t.Fatalf("the worker's accounts are %+v, want prod alone", accounts)
	}
	var sync wire.Sync
	hub.json("POST", at+"/syncs", wire.OpenSync{Worker: "w1"}, 200, &sync)
	var busy wire.Error
	hub.json("POST", at+"/syncs", wire.OpenSync{Worker: "w2"}, 409, &busy)
	if busy.Detail["until"] == "" {
		t.Errorf("the other worker is told %+v, want until when", busy)
	}
	var body bytes.Buffer
	if err := wire.WriteInventory(&body, w.inventory(sync.Generation)); err != nil {
		t.Fatal(err)
	}
	zip := func(text []byte) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		z.Write(text)
		z.Close()
		return b.Bytes()
	}
	zipped := zip(body.Bytes())
	put := func(body []byte, encoding string) (*http.Response, string) {
		hub.header = http.Header{"Content-Encoding": {encoding}}
		defer func() { hub.header = http.Header{} }()
		return hub.do("PUT", at+"/inventory", io.Reader(bytes.NewReader(body)))
	}
	for name, c := range map[string]struct {
		body     []byte
		encoding string
		status   int
	}{
		"not gzip":           {body.Bytes(), "gzip", 400},
		"half of gzip":       {zipped[:len(zipped)/2], "gzip", 400},
		"broken gzip":        {append(append([]byte{}, zipped[:40]...), zipped[42:]...), "gzip", 400},
		"another encoding":   {zipped, "br", 400},
		"gzip unsaid":        {zipped, "", 400},
		"half":               {body.Bytes()[:body.Len()/2], "", 400},
		"another account":    {bytes.Replace(body.Bytes(), []byte(`"account_id":"`+prod), []byte(`"account_id":"`+dev), 1), "", 400},
		"another generation": {bytes.Replace(body.Bytes(), []byte(`"generation":1`), []byte(`"generation":7`), 1), "", 409},
		"a bomb":             {zip([]byte(`{"schema":"` + strings.Repeat(" ", 9<<20) + `"}`)), "gzip", 413},
		"too large a role":   {zip([]byte(`{"schema":"serval.inventory/v1","roles":[{"arn":"` + strings.Repeat("x", 9<<20) + `"}]}`)), "gzip", 413},
	} {
		if res, text := put(c.body, c.encoding); res.StatusCode != c.status {
			t.Errorf("%s: answered %d, want %d: %.300s", name, res.StatusCode, c.status, text)
		}
	}
	for i, repeated := range []bool{false, true} {
		res, text := put(zipped, "gzip")
		var push wire.Push
		if err := json.Unmarshal([]byte(text), &push); err != nil || res.StatusCode != 200 || push.Repeated != repeated || push.Added != 2 || push.Generation != sync.Generation {
			t.Fatalf("push %d answered %d, want 200, two added, repeated %t: %s", i+1, res.StatusCode, repeated, text)
		}
	}
	// The digest is of the text, however it came.
	if res, text := put(body.Bytes(), ""); res.StatusCode != 200 || !strings.Contains(text, `"repeated":true`) {
		t.Errorf("the same without gzip answered %d, want 200 and repeated: %s", res.StatusCode, text)
	}
	// A delta goes the same way, by the same generations.
	hub.json("POST", at+"/syncs", wire.OpenSync{Worker: "w1", Kind: serval.SyncDelta}, 200, &sync)
	if len(sync.Known) != 2 || sync.Known[0].RoleID == "" || sync.Known[0].Digest == "" || sync.Known[0].Shown == "" || sync.LookedAt.IsZero() {
		t.Fatalf("the delta was opened with %+v, want what is known", sync)
	}
	gone := serval.Removal{RoleID: sync.Known[0].RoleID, ARN: sync.Known[0].ARN, Reason: serval.RemovedUntagged}
	delta := serval.Delta{AccountID: prod, Generation: sync.Generation, StartedAt: time.Now(), FinishedAt: time.Now(), Complete: true, ReadBy: serval.ByRoles, Removed: []serval.Removal{gone}}
	delta.Normalize()
	body.Reset()
	if err := wire.WriteDelta(&body, delta); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"an inventory as a delta": bytes.Replace(body.Bytes(), []byte("serval.delta/v1"), []byte("serval.inventory/v1"), 1),
		"half of a delta":         body.Bytes()[:body.Len()/2],
	} {
		if res, text := hub.do("PUT", at+"/delta", io.Reader(bytes.NewReader(text))); res.StatusCode != 400 {
			t.Errorf("%s: answered %d, want 400: %.300s", name, res.StatusCode, text)
		}
	}
	hub.header = http.Header{"Content-Encoding": {"gzip"}}
	for i, repeated := range []bool{false, true} {
		res, text := hub.do("PUT", at+"/delta", io.Reader(bytes.NewReader(zip(body.Bytes()))))
		var push wire.Push
		if err := json.Unmarshal([]byte(text), &push); err != nil || res.StatusCode != 200 || push.Repeated != repeated || push.Removed != 1 || push.Generation != sync.Generation {
			t.Fatalf("push %d of the delta answered %d, want 200, one removed, repeated %t: %s", i+1, res.StatusCode, repeated, text)
		}
	}
	hub.header = http.Header{}
	var later wire.WorkerAccounts
	hub.json("GET", "/api/v1/upstream/accounts", nil, 200, &later)
	if before, now := accounts.Accounts[0], later.Accounts[0]; now.LastSyncAt.IsZero() || now.Generation != 2 || before.ID != now.ID {
		t.Errorf("after the delta the account is %+v", now)
	}

	for _, token := range []string{"", "x", hubToken + "x", hubToken[:len(hubToken)-1], "Bearer"} {
		if res, _ := w.worker(token).do("GET", "/api/v1/upstream/accounts", nil); res.StatusCode != 401 || res.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("token %q answered %d, want 401", token, res.StatusCode)
		}
	}

	// A token that is not set lets nobody in, and no other scheme does.
	for _, header := range []string{"Bearer ", "Bearer", "bearer  ", "Basic " + hubToken, hubToken} {
		b := w.browser()
		b.header.Set("Authorization", header)
		if res, _ := b.do("GET", "/api/v1/upstream/accounts", nil); res.StatusCode != 401 {
			t.Errorf("Authorization %q answered %d, want 401", header, res.StatusCode)
		}
	}

	// Nor where a proxy or a client leaves the space behind the scheme.
	for _, header := range []string{"Bearer ", "Bearer", "Bearer  ", " ", "Basic " + hubToken} {
		rec, req := httptest.NewRecorder(), httptest.NewRequest("GET", w.url+"/api/v1/upstream/accounts", nil)
		req.Header["Authorization"] = []string{header}
		if w.edge.ServeHTTP(rec, req); rec.Code != 401 {
			t.Errorf("Authorization %q as it is answered %d, want 401", header, rec.Code)
		}
	}

	for _, wait := range []string{"x", "-1", "1.5", "1s"} {
		hub.json("GET", "/api/v1/upstream/accounts?wait="+wait, nil, 400, nil)
	}

	// A long poll waits for news, and hears them at once.
	hub.json("GET", "/api/v1/upstream/accounts", nil, 200, &accounts)
	began := time.Now()
	hub.json("GET", "/api/v1/upstream/accounts?wait=1&version="+accounts.Version, nil, 200, nil)
	if took := time.Since(began); took < time.Second || took > 30*time.Second {
		t.Errorf("without news the poll took %s, want a second", took)
	}
	ada := w.as("ada")
	done := make(chan wire.WorkerAccounts)
	go func() {
		var news wire.WorkerAccounts
		req, _ := http.NewRequest("GET", w.url+"/api/v1/upstream/accounts?wait=60&version="+accounts.Version, nil)
		req.Header.Set("Authorization", "Bearer "+hubToken)
		if res, err := http.DefaultClient.Do(req); err == nil {
			json.NewDecoder(res.Body).Decode(&news)
			res.Body.Close()
		}
		done <- news
	}()
	time.Sleep(50 * time.Millisecond)
	ada.json("POST", "/api/v1/accounts/"+prod+"/sync", nil, 202, nil)
	select {
	case news := <-done:
		if len(news.Accounts) != 1 || !news.Accounts[0].SyncRequested {
			t.Errorf("the news are %+v, want that a sync was asked for", news)
		}
	case <-time.After(30 * time.Second):
		t.Error("the poll heard nothing within half a minute, of the minute that it waits")
	}

	// A server that is about to go lets nobody wait: it says what there is.
	w.edge.Drain()
	hub.json("GET", "/api/v1/upstream/accounts", nil, 200, &accounts)
	began = time.Now()
	hub.json("GET", "/api/v1/upstream/accounts?wait=60&version="+accounts.Version, nil, 200, &later)
	if took := time.Since(began); took > 30*time.Second || later.Version != accounts.Version || len(later.Accounts) != 1 {
		t.Errorf("at a drain the poll took %s and said %+v, want at once what there is", took, later)
	}
}

// padding is gzip that never comes to its text: members that hold nothing, each
// with 64 KB in its header.
type padding struct{ read, most int }

func (p *padding) Read(to []byte) (int, error) {
	if p.read >= p.most {
		return 0, io.EOF
	}
	n := copy(to, member[p.read%len(member):])
	p.read += n
	return n, nil
}

// member is one of them (RFC 1952 section 2.3): a header with an extra field, an
// empty block, the checksum and the length.
var member = "\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\xff\xff\xff" + strings.Repeat("\x00", 0xffff) + "\x03\x00" + strings.Repeat("\x00", 8)

// A push is bounded on the wire too: what is nothing when unpacked could go on
// for ever.
func TestPushOnTheWire(t *testing.T) {
	const most = 256 << 20
	w := newWorld(t)
	w.worker(hubToken).json("POST", "/api/v1/upstream/accounts/"+prod+"/syncs", wire.OpenSync{Worker: "w1"}, 200, nil)
	body := &padding{most: most + 16<<20}
	rec, req := httptest.NewRecorder(), httptest.NewRequest("PUT", w.url+"/api/v1/upstream/accounts/"+prod+"/inventory", body)
	req.Header = http.Header{"Authorization": {"Bearer " + hubToken}, "Content-Type": {"application/json"}, "Content-Encoding": {"gzip"}}
	w.edge.ServeHTTP(rec, req)
	if rec.Code != 413 || body.read > most+1<<20 {
		t.Errorf("answered %d after %d bytes, want 413 after 256 MiB: %s", rec.Code, body.read, rec.Body)
	}
}

// An unread body is a stranger's way to hold a connection: it ends soon,
// whatever time the route has.
func TestUnreadBodies(t *testing.T) {
	w := newWorld(t)
	w.edge.SetPatience(200 * time.Millisecond)
	host := strings.TrimPrefix(w.url, "http://")
	push := "PUT /api/v1/upstream/accounts/" + prod + "/inventory"
	for name, c := range map[string]struct{ line, token, status string }{
		"a stranger's push":         {push, "nope", "401"},
		"a push of another account": {push, elseToken, "404"},
		"a stranger's poll":         {"GET /api/v1/upstream/accounts?wait=60", "nope", "401"},
		"a stranger's session":      {"POST /api/v1/sessions", "", "401"},
		"a session by the page":     {"POST /sessions", "", "401"},
		"a callback":                {"GET /oidc/auth/callback?state=x", "", "400"},
	} {
		conn, err := net.Dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		conn.SetDeadline(began.Add(30 * time.Second)) // a poll would take a minute, a push ten
		fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{", c.line, host, c.token)
		text, err := io.ReadAll(conn)
		if err != nil || !strings.HasPrefix(string(text), "HTTP/1.1 "+c.status) {
			t.Errorf("%s: %v after %s and %.40q, want %s and the connection closed within moments", name, err, time.Since(began), text, c.status)
		}
		conn.Close()
	}
}

// A timed recorder remembers the deadlines that were set.
type timed struct {
	*httptest.ResponseRecorder
	reads []time.Duration // from then
}

func (r *timed) SetReadDeadline(at time.Time) error {
	r.reads = append(r.reads, time.Until(at).Round(time.Second))
	return nil
}

// Only who is known has the time of a long route, and nobody keeps it.
func TestTimeIsForWhoIsKnown(t *testing.T) {
	w := newWorld(t)
	for name, c := range map[string]struct {
		method, path, token string
		want                []time.Duration
	}{
		"a worker":            {"PUT", "/api/v1/upstream/accounts/" + prod + "/inventory", hubToken, []time.Duration{10 * time.Minute, 5 * time.Second}},
		"a stranger":          {"PUT", "/api/v1/upstream/accounts/" + prod + "/inventory", "nope", []time.Duration{5 * time.Second}},
		"a stranger who asks": {"POST", "/api/v1/sessions", "", []time.Duration{5 * time.Second}},
		"a short route":       {"GET", "/api/v1/me", "", nil},
	} {
		rec, req := &timed{ResponseRecorder: httptest.NewRecorder()}, httptest.NewRequest(c.method, w.url+c.path, strings.NewReader("{}"))
		req.Header = http.Header{"Authorization": {"Bearer " + c.token}, "Content-Type": {"application/json"}}
		w.edge.ServeHTTP(rec, req)
		if d := cmp.Diff(c.want, rec.reads); d != "" {
			t.Errorf("%s: answered %d, deadlines of reading (-want +got):\n%s", name, rec.Code, d)
		}
	}
}

// S-12: an operator hears once that the ingress is not trusted.
func TestUntrustedForwarding(t *testing.T) {
	for name, c := range map[string]struct {
		trusted, header string
		want            int
	}{
		"an ingress nobody named": {"", "203.0.113.9", 1},
		"another is named":        {"10.0.0.0/8", "203.0.113.9", 1},
		"a trusted ingress":       {"127.0.0.0/8", "203.0.113.9", 0},
		"no ingress":              {"", "", 0},
	} {
		w := newWorld(t, func(config *web.Config) {
			if c.trusted != "" {
				config.TrustedProxies = []netip.Prefix{netip.MustParsePrefix(c.trusted)}
			}
		})
		b := w.browser()
		if c.header != "" {
			b.header.Set("X-Forwarded-For", c.header)
		}
		for range 3 {
			b.do("GET", "/", nil)
		}
		said := w.logs.FilterLevelExact(zapcore.WarnLevel).All()
		if len(said) != c.want {
			t.Errorf("%s: %d warnings after three requests, want %d: %v", name, len(said), c.want, said)
		}
		for _, s := range said {
			if !strings.Contains(s.Message, "SERVAL_TRUSTED_PROXIES") || s.ContextMap()["peer"] != "127.0.0.1" || strings.Contains(fmt.Sprint(s), c.header) {
				t.Errorf("%s: the warning is %v, want what to set, and the peer, not whom it named", name, s)
			}
		}
	}
}

// Documents that indenting makes thousands of make no page larger than its
// bound.
func TestDocumentBombs(t *testing.T) {
	bomb := serval.Document(strings.Repeat("[", 38) + strings.Repeat("0,", 5000) + "0" + strings.Repeat("]", 38))
	w := newWorld(t)
	w.push(func(g int64) serval.Inventory {
		inv := w.inventory(g)
		inv.Roles[0].InlinePolicies.Policies = nil
		for i := range 100 {
			inv.Roles[0].InlinePolicies.Policies = append(inv.Roles[0].InlinePolicies.Policies, serval.InlinePolicy{Name: fmt.Sprint("bomb", i), Document: bomb})
		}
		return inv
	})
	if page := w.as("ana").page("/roles/"+prod+"/dev-admin", 200); len(page) > 3<<20 || !strings.Contains(page, "The API has all of it.") {
		t.Errorf("the page has %d bytes, want at most 3 MiB, and that not all is on it", len(page))
	}
}

// A long poll and a push outlast the server's own deadlines.
func TestDeadlines(t *testing.T) {
	var config web.Config
	newWorld(t, func(c *web.Config) { config = *c })
	var edge *web.Server
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { edge.ServeHTTP(w, r) }))
	server.Config.ReadTimeout, server.Config.WriteTimeout = 500*time.Millisecond, 500*time.Millisecond
	server.Start()
	defer server.Close()
	config.PublicURL = server.URL
	var err error
	if edge, err = web.New(config); err != nil {
		t.Fatal(err)
	}
	get := func(query string) wire.WorkerAccounts {
		t.Helper()
		req, _ := http.NewRequest("GET", server.URL+"/api/v1/upstream/accounts"+query, nil)
		req.Header.Set("Authorization", "Bearer "+hubToken)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var answer wire.WorkerAccounts
		if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || res.StatusCode != 200 {
			t.Fatalf("answered %d: %v", res.StatusCode, err)
		}
		return answer
	}
	get("?wait=2&version=" + get("").Version)
}

// One of each answer, as others read it.
func TestGolden(t *testing.T) {
	w := newWorld(t)
	w.push(func(g int64) serval.Inventory {
		inv := w.inventory(g)
		inv.Problems = []serval.Problem{{Action: "iam:GetPolicyVersion", Target: "arn:aws:iam::aws:policy/ReadOnlyAccess", Code: "AccessDenied", Message: "no"}}
		inv.NearMisses = []serval.NearMiss{{ARN: "arn:aws:iam::" + prod + ":role/almost", TagKey: "Serval"}}
		inv.Unreadable = []serval.Unreadable{{ARN: "arn:aws:iam::" + prod + ":role/closed", RoleID: "AROACLOSED", Action: "iam:GetRole", Code: "AccessDenied"}}
		return inv
	})
	ana, ben := w.as("ana"), w.as("ben")
	var made wire.Request
	ana.json("POST", "/api/v1/requests", wire.NewRequest{RoleARN: w.aws.RoleARN("dev-admin"), Minutes: 60, Justification: "Incident 7 <&>", Ticket: "OPS-7"}, 201, &made)
	ben.json("POST", "/api/v1/requests/"+made.ID+"/decisions", wire.Decision{Outcome: "approve", Minutes: 45}, 200, nil)
	answers := map[string]func() string{
		"me":        func() string { return ana.page("/api/v1/me", 200) },
		"role":      func() string { return ana.page("/api/v1/roles/"+prod+"/dev-admin", 200) },
		"roles":     func() string { return ana.page("/api/v1/roles?page_size=1", 200) },
		"request":   func() string { return ana.page("/api/v1/requests/"+made.ID, 200) },
		"approvals": func() string { return ben.page("/api/v1/approvals", 200) },
		"refused":   func() string { return ana.page("/api/v1/accounts", 403) },
		"credentials": func() string {
			_, text := ana.do("POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID})
			return text
		},
		"sessions": func() string { return ana.page("/api/v1/sessions", 200) },
		"logins":   func() string { return ana.page("/api/v1/logins", 200) },
		"account":  func() string { return w.as("ada").page("/api/v1/accounts/"+prod, 200) },
		"policies": func() string { return w.as("ada").page("/api/v1/access-policies?page_size=1", 200) },
		"explained": func() string {
			return w.as("ada").page("/api/v1/access/explain?email=ana@example.com&role_arn="+url.QueryEscape(w.aws.RoleARN("dev-auto")), 200)
		},
		"events":   func() string { return w.as("aud").page("/api/v1/audit?action=session.issue", 200) },
		"upstream": func() string { _, text := w.worker(hubToken).do("GET", "/api/v1/upstream/accounts", nil); return text },
	}
	for _, name := range []string{"me", "role", "roles", "request", "approvals", "refused", "credentials", "sessions", "logins", "account", "policies", "explained", "events", "upstream"} {
		golden(t, name+".json", answers[name]())
	}
}

// A variation is what differs from run to run, and what stands for it.
type variation struct{ pattern, stand string }

// varying is what differs in answers of the API.
var varying = []variation{
	{`"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"`, `"TIME"`},
	{`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`, "TIME"},
	{`\b(req|login|person|session|batch)_[a-z0-9]{26}`, "${1}_ID"},
	{`"last_sync_age_seconds": ?\d+`, `"last_sync_age_seconds":60`},
	{`\bAROA[A-Z0-9]{10,}`, "AROAID"}, {`\bASIA[A-Z0-9]+`, "ASIAKEY"},
	{`"(SecretAccessKey|SessionToken|packed_policy_percent|hash|key_id|policy_digest|request_id|next_page_token|version)": "[^"]+"`, `"$1": "…"`},
	{`"seq": \d+`, `"seq": 0`}, {`127\.0\.0\.1:\d+`, "127.0.0.1:PORT"},
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	var b bytes.Buffer
	if err := json.Indent(&b, []byte(got), "", "  "); err != nil {
		t.Fatalf("%s is not JSON: %v in %s", name, err, got)
	}
	compare(t, name, b.String(), varying)
}

// compare holds text against the golden file of the name, but for what varies.
func compare(t *testing.T, name, text string, varies []variation) {
	t.Helper()
	for _, v := range varies {
		text = regexp.MustCompile(v.pattern).ReplaceAllString(text, v.stand)
	}
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), text); d != "" {
		t.Errorf("%s (-want +got); UPDATE_GOLDEN=1 writes it anew:\n%s", path, d)
	}
}

// A workload of the cluster is a worker with all accounts. While the cluster
// cannot be asked nobody gets in, and nobody is told that the token is bad.
func TestWorkload(t *testing.T) {
	const theirs = "e30.e30.good"
	var shown []string
	w := newWorld(t, func(c *web.Config) {
		c.Workload = func(_ context.Context, from string, token serval.Secret) (string, error) {
			if from == "" {
				t.Error("whoever brings a token has no address")
			}
			shown = append(shown, token.Reveal())
			switch token.Reveal() {
			case theirs:
				return "system:serviceaccount:serval:serval-worker-sa", nil
			case "away":
				return "", fmt.Errorf("%w (%w)", serval.Refuse(serval.Unavailable, "Try again."), errors.New("no route to host"))
			}
			return "", nil
		}
	})
	var accounts wire.WorkerAccounts
	pod := w.worker(theirs)
	pod.json("GET", "/api/v1/upstream/accounts", nil, 200, &accounts)
	if len(accounts.Accounts) != 2 {
		t.Errorf("it sees %d accounts, want both", len(accounts.Accounts))
	}
	var opened wire.Sync
	for _, id := range []string{prod, dev} {
		pod.json("POST", "/api/v1/upstream/accounts/"+id+"/syncs", wire.OpenSync{Worker: "serval-worker-0"}, 200, &opened)
	}
	// What another worker has opened is another's, whoever may push everything.
	w.worker(hubToken).json("POST", "/api/v1/upstream/accounts/"+prod+"/syncs", wire.OpenSync{Worker: "serval-worker-0"}, 409, nil)

	shown = nil
	w.worker(hubToken).json("GET", "/api/v1/upstream/accounts", nil, 200, nil)
	for _, header := range []string{"Basic " + theirs, "Bearer", "Bearer ", theirs} {
		b := w.browser()
		b.header.Set("Authorization", header)
		if res, _ := b.do("GET", "/api/v1/upstream/accounts", nil); res.StatusCode != 401 {
			t.Errorf("Authorization %q answered %d, want 401", header, res.StatusCode)
		}
	}
	if len(shown) != 0 {
		t.Errorf("%d tokens were shown to the cluster that are not its business", len(shown))
	}
	if res, text := w.worker("another's").do("GET", "/api/v1/upstream/accounts", nil); res.StatusCode != 401 || !strings.Contains(text, "unauthenticated") {
		t.Errorf("another's token answered %d, want 401: %s", res.StatusCode, text)
	}
	for _, call := range []struct{ method, path string }{
		{"GET", "/api/v1/upstream/accounts"}, {"POST", "/api/v1/upstream/accounts/" + prod + "/syncs"}, {"PUT", "/api/v1/upstream/accounts/" + prod + "/inventory"},
	} {
		res, text := w.worker("away").do(call.method, call.path, wire.OpenSync{Worker: "serval-worker-0"})
		if res.StatusCode != 503 || !strings.Contains(text, `"unavailable"`) || strings.Contains(text, "route") {
			t.Errorf("%s %s while the cluster is away answered %d, want 503: %s", call.method, call.path, res.StatusCode, text)
		}
	}
}
