package web_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// running returns a request of Ana's for the role that is approved at once.
func (b *browser) running(minutes int) wire.Request {
	b.w.t.Helper()
	var made wire.Request
	b.json("POST", "/api/v1/requests", wire.NewRequest{RoleARN: b.w.aws.RoleARN("dev-auto"), Minutes: minutes}, 201, &made)
	return made
}

// toConsole follows an answer to AWS and returns what the console shows.
func (b *browser) toConsole(res *http.Response, body string) string {
	b.w.t.Helper()
	to, err := url.Parse(res.Header.Get("Location"))
	if err != nil || res.StatusCode != 303 || !strings.HasPrefix(to.String(), b.w.awsAt+"/federation?") || body != "" {
		b.w.t.Fatalf("answered %d to %q with %q, want 303 to AWS and nothing else", res.StatusCode, to, body)
	}
	if q := to.Query(); q.Get("Action") != "login" || q.Get("SigninToken") == "" || q.Has("SessionDuration") {
		b.w.t.Errorf("sent to AWS with %v, want a login, its token and no SessionDuration", q)
	}
	return b.page(to.String(), 200)
}

// The console opens from a page, by a path that an answer of the API names, and
// by a link for a client: each time a session of its own, told in rows of its
// own.
func TestConsole(t *testing.T) {
	w := newWorld(t)
	w.push(w.inventory)
	w.cloud.KeepParams(true)
	ana := w.as("ana")
	made := ana.running(60)
	at := "/requests/" + made.ID

	res, page := ana.do("GET", at, nil)
	if !strings.Contains(page, `formaction="`+at+`/console"`) || !strings.Contains(res.Header.Get("Content-Security-Policy"), "form-action 'self' https://console.example;") {
		t.Errorf("the page has no way to the console, or its policy does not let it: %s", res.Header.Get("Content-Security-Policy"))
	}
	shown := ana.toConsole(ana.do("POST", at+"/console", url.Values{"request_id": {made.ID}, "service": {"s3"}, "region": {"eu-central-1"}, "network": {""}}))
	if !strings.Contains(shown, "assumed-role/dev-auto/ana@example.com") || !strings.Contains(shown, "https://console.aws.amazon.com/s3/home?region=eu-central-1") {
		t.Errorf("the console shows %s", shown)
	}

	var c wire.Credentials
	ana.json("POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID, Narrow: &wire.Narrow{ReadOnly: true, NoChaining: true, Network: "office"}}, 200, &c)
	if want := at + "/console?network=office&no_chaining=true&read_only=true"; c.ConsolePath != want {
		t.Errorf("the console is at %q, want %q", c.ConsolePath, want)
	}
	ana.toConsole(ana.do("POST", c.ConsolePath, nil))
	calls := w.cloud.Calls()
	mints := 0
	for _, call := range calls {
		if call.Action == "AssumeRoleWithWebIdentity" {
			mints++
			narrowed := strings.Contains(call.Params.Get("Policy"), "203.0.113.0/24") && strings.Contains(call.Params.Get("Policy"), "sts:AssumeRole*") &&
				strings.HasSuffix(call.Params.Get("PolicyArns.member.1.arn"), ":policy/ReadOnlyAccess")
			if narrowed != (mints > 1) {
				t.Errorf("mint %d is narrowed: %t", mints, narrowed)
			}
		}
		if call.Action == "getSigninToken" && call.Params.Has("SessionDuration") {
			t.Error("SessionDuration is sent")
		}
	}

	// By a link, in another browser of the same person.
	var link wire.ConsoleLink
	ana.json("POST", "/api/v1/console-links", wire.NewConsoleLink{RequestID: made.ID, Region: "us-west-2"}, 201, &link)
	if left := link.ExpiresAt.Sub(w.clock.now()); left > time.Minute || left < 50*time.Second || !strings.HasPrefix(link.Path, "/console/") {
		t.Errorf("a link to %q for %s, want one of ours for a minute", link.Path, left)
	}
	if page := w.browser().page(link.Path, 401); !strings.Contains(page, "return_to="+strings.ReplaceAll(link.Path, "/", "%2f")) {
		t.Errorf("whoever is not signed in is not led back: %s", page)
	}
	w.as("ben").page(link.Path, 404)
	if res, _ := ana.do("HEAD", link.Path, nil); res.StatusCode != 405 {
		t.Errorf("HEAD answered %d, want 405", res.StatusCode)
	}
	if shown := ana.toConsole(w.as("ana").do("GET", link.Path, nil)); !strings.Contains(shown, "/console/home?region=us-west-2") {
		t.Errorf("the console shows %s", shown)
	}
	ana.page(link.Path, 404)

	var sessions wire.Sessions
	ana.json("GET", "/api/v1/sessions?request_id="+made.ID, nil, 200, &sessions)
	kinds := map[string]int{}
	for _, s := range sessions.Sessions {
		kinds[s.Kind+" "+s.State]++
	}
	if kinds["console issued"] != 3 || kinds["credentials issued"] != 1 || len(kinds) != 2 {
		t.Errorf("sessions %v, want three consoles and one with credentials", kinds)
	}
	var events wire.Events
	w.as("aud").json("GET", "/api/v1/audit?action=session.signin", nil, 200, &events)
	if len(events.Events) != 3 || events.Events[0].Outcome != "done" || events.Events[0].Detail["region"] != "us-west-2" || events.Events[0].Target != made.ID {
		t.Errorf("sign-ins in the audit log: %+v, want three", events.Events)
	}
	if page := ana.page(at, 200); !strings.Contains(page, "Console, ") {
		t.Error("the page does not tell a console from credentials")
	}
}

// S-16: nothing that is asked for leads the browser anywhere but to AWS, and
// nothing is minted for what is refused.
func TestConsoleLeadsNowhereElse(t *testing.T) {
	w := newWorld(t)
	w.push(w.inventory)
	ana := w.as("ana")
	at := "/requests/" + ana.running(60).ID + "/console"
	for _, c := range []struct {
		query  string
		form   url.Values
		status int
	}{
		{"", url.Values{"service": {"//evil.example"}}, 400},
		{"", url.Values{"service": {`\evil.example`}}, 400},
		{"", url.Values{"service": {"ec2#@evil.example"}}, 400},
		{"", url.Values{"region": {"eu-central-1.evil.example"}}, 400},
		{"", url.Values{"region": {"cn-north-1"}}, 400},
		{"?region=%0a", nil, 400},
		{"?service=https://evil.example", nil, 400},
		{"?destination=https://evil.example", nil, 400},
		{"?service=ec2&service=s3", nil, 400},
		{"?network=home", nil, 400},
	} {
		res, text := ana.do("POST", at+c.query, c.form)
		if res.StatusCode != c.status || res.Header.Get("Location") != "" {
			t.Errorf("%s %v answered %d to %q, want %d: %.200s", c.query, c.form, res.StatusCode, res.Header.Get("Location"), c.status, text)
		}
	}
	if n := w.cloud.CountCalls("AssumeRoleWithWebIdentity"); n != 0 {
		t.Errorf("STS was asked %d times, want 0", n)
	}
}

// Where AWS opens no console the page says so, and the rows keep AWS's code.
func TestConsoleIsRefused(t *testing.T) {
	w := newWorld(t)
	w.push(w.inventory)
	ana := w.as("ana")
	made := ana.running(60)
	w.cloud.Inject(awstest.Fault{Action: "getSigninToken", Status: 400, Body: "<html>" + canary})
	res, page := ana.do("POST", "/requests/"+made.ID+"/console", nil)
	if res.StatusCode != 422 || !strings.Contains(page, "AWS does not open the console with this session") || res.Header.Get("Location") != "" {
		t.Errorf("answered %d, want 422 and the cause: %s", res.StatusCode, page)
	}
	var events wire.Events
	w.as("aud").json("GET", "/api/v1/audit?action=session.signin", nil, 200, &events)
	if len(events.Events) != 1 || events.Events[0].Outcome != "failed" || events.Events[0].Detail["signin_code"] != "Refused" || events.Events[0].Detail["signin_status"] != "400" {
		t.Errorf("the rows say %+v, want one that failed, with AWS's code", events.Events)
	}
	var sessions wire.Sessions
	ana.json("GET", "/api/v1/sessions", nil, 200, &sessions)
	if len(sessions.Sessions) != 1 || sessions.Sessions[0].State != "dropped" {
		t.Errorf("sessions %+v, want one, dropped", sessions.Sessions)
	}
}

// After a revocation, when it is over or where it was shortened, page and API
// show what cuts off the sessions that are left: exactly those.
func TestDenyPolicy(t *testing.T) {
	w := newWorld(t)
	w.push(w.inventory)
	ana, ada := w.as("ana"), w.as("ada")
	for _, end := range []struct {
		name string
		end  func(at string)
	}{
		{"revoked", func(at string) { ada.json("POST", at+"/revoke", wire.Revocation{Reason: "x"}, 200, nil) }},
		{"done", func(at string) { ana.json("POST", at+"/done", nil, 200, nil) }},
		{"shortened", func(at string) { ana.json("POST", at+"/shorten", wire.Shortening{Minutes: 5}, 200, nil) }},
	} {
		t.Run(end.name, func(t *testing.T) {
			w.clock.move(2 * time.Second)
			w.aws.SetInline("dev-auto", "revoke", "")
			made := ana.running(60)
			at := "/api/v1/requests/" + made.ID
			ana.json("GET", at, nil, 200, &made)
			if made.Live != nil {
				t.Errorf("before any session: %+v", made.Live)
			}
			var first, second wire.Credentials
			ana.json("POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID}, 200, &first)
			w.clock.move(2 * time.Second)
			ana.json("POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID}, 200, &second)
			ana.json("GET", at, nil, 200, &made)
			if made.Live == nil || made.Live.OutlivesAccess || len(made.Live.Sessions) != 2 {
				t.Errorf("while it runs: %+v, want two sessions that do not outlive it", made.Live)
			}
			end.end(at)
			for who, b := range map[string]*browser{"holder": ana, "admin": ada} {
				var seen wire.Request
				b.json("GET", at, nil, 200, &seen)
				if seen.Live == nil || !seen.Live.OutlivesAccess || len(seen.Live.Sessions) != 2 {
					t.Fatalf("the %s sees %+v, want two sessions that outlive it", who, seen.Live)
				}
				made = seen
				page := b.page("/requests/"+made.ID, 200)
				if !strings.Contains(page, "Sessions that outlive the access") || !strings.Contains(page, "aws:TokenIssueTime") ||
					!strings.Contains(page, made.Live.Sessions[0].AssumedRoleID) {
					t.Errorf("the %s's page does not show what cuts them off", who)
				}
			}
			if strings.Count(made.Live.DenyPolicy, "aws:userid") != 1 {
				t.Errorf("two sessions of one name take more than one statement: %s", made.Live.DenyPolicy)
			}
			for _, c := range []wire.Credentials{first, second} {
				if err := w.try(c); err != nil {
					t.Errorf("a session does not outlive the access: %v", err)
				}
			}
			w.aws.SetInline("dev-auto", "revoke", made.Live.DenyPolicy)
			for _, c := range []wire.Credentials{first, second} {
				if err := w.try(c); err == nil || !strings.Contains(err.Error(), "explicit deny") {
					t.Errorf("with the policy attached: %v, want an explicit deny", err)
				}
			}
			// A later approval works.
			w.clock.move(2 * time.Second)
			var later wire.Credentials
			ana.json("POST", "/api/v1/sessions", wire.NewSession{RequestID: ana.running(60).ID}, 200, &later)
			if err := w.try(later); err != nil {
				t.Errorf("a session that was approved later: %v, want it to work", err)
			}
		})
	}
	w.as("cy").json("GET", "/api/v1/requests/"+ana.running(60).ID, nil, 404, nil)
}
