package web_test

import (
	"context"
	"fmt"
	"net/url"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/serval-bridge/serval-bridge/internal/idptest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// try uses credentials as their holder would.
func (w *world) try(c wire.Credentials) error {
	client := iam.New(iam.Options{
		Region: "us-east-1", BaseEndpoint: &w.awsAt, Retryer: aws.NopRetryer{},
		Credentials: credentials.NewStaticCredentialsProvider(c.AccessKeyID, c.SecretAccessKey, c.SessionToken),
	})
	_, err := client.ListRoles(context.Background(), &iam.ListRolesInput{})
	return err
}

// The whole story over the API: two people, a worker and AWS.
func TestStoryByAPI(t *testing.T) {
	w := newWorld(t)
	w.push(w.inventory)
	ana, ben := w.as("ana"), w.as("ben")

	var me wire.Me
	ana.json("GET", "/api/v1/me", nil, 200, &me)
	if me.Email != "ana@example.com" || me.Admin || me.Auditor {
		t.Fatalf("me is %+v, want Ana, who is no admin", me)
	}
	var roles wire.Roles
	ana.json("GET", "/api/v1/roles?q=DEV-admin", nil, 200, &roles)
	if len(roles.Roles) != 1 || roles.Roles[0].Name != "dev-admin" || roles.Roles[0].Trust.Verdict != "works" {
		t.Fatalf("roles are %+v, want dev-admin alone, its trust policy accepting her", roles)
	}
	arn := roles.Roles[0].ARN

	var made wire.Request
	ana.json("POST", "/api/v1/requests", wire.NewRequest{RoleARN: arn, Minutes: 60, Justification: "Incident 7", Ticket: "OPS-7"}, 201, &made)
	if made.Status != "pending" || made.MayDecide || len(made.Steps) != 1 {
		t.Fatalf("request is %+v, want pending, with one step, not Ana's to decide", made)
	}
	at := "/api/v1/requests/" + made.ID
	ana.json("POST", at+"/decisions", wire.Decision{Outcome: "approve"}, 403, nil)
	ana.json("POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID}, 409, nil)

	var waiting wire.Approvals
	ben.json("GET", "/api/v1/approvals", nil, 200, &waiting)
	if len(waiting.Requests) != 1 || waiting.Requests[0].ID != made.ID || !waiting.Requests[0].MayDecide {
		t.Fatalf("approvals are %+v, want Ana's request, for Ben to decide", waiting)
	}
	brief := waiting.Requests[0].ToDecide
	if brief == nil || brief.Summary == "" || brief.Since != nil || brief.Earlier.Times != 0 || waiting.Requests[0].Insight != nil {
		t.Errorf("the list of approvals has %+v to decide by, with the whole %+v; want what the role can do, in short", brief, waiting.Requests[0].Insight)
	}
	var whole wire.Request
	if ben.json("GET", at, nil, 200, &whole); !reflect.DeepEqual(whole.ToDecide, brief) || whole.Insight == nil || whole.Insight.Summary != brief.Summary {
		t.Errorf("by itself the request has %+v to decide by, in the list %+v", whole.ToDecide, brief)
	}
	if ana.json("GET", at, nil, 200, &whole); whole.ToDecide != nil {
		t.Errorf("who asked has %+v to decide by", whole.ToDecide)
	}
	ben.json("POST", at+"/decisions", wire.Decision{Outcome: "approve", Minutes: 45}, 200, &made)
	if made.Status != "approved" || made.Minutes != 45 || !made.ClockStartedAt.IsZero() {
		t.Fatalf("request is %+v, want approved for 45 minutes, its clock not started", made)
	}
	ben.json("POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID}, 404, nil)

	var c wire.Credentials
	ana.json("POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID}, 200, &c)
	if c.Version != 1 || c.SessionName != "ana@example.com" || c.ConsolePath != "/requests/"+made.ID+"/console" || !c.Expiration.Equal(c.EndsAt.Time) || !c.RenewAt.IsZero() {
		t.Fatalf("credentials for %s until %s and %s, console at %q; want Ana's, one end, and her console", c.SessionName, c.Expiration, c.EndsAt, c.ConsolePath)
	}
	if err := w.try(c); err != nil {
		t.Fatalf("the credentials do not work: %v", err)
	}
	ana.json("GET", at, nil, 200, &made)
	if made.ClockStartedAt.IsZero() || made.EndsAt.Sub(made.ClockStartedAt.Time) != 45*time.Minute {
		t.Fatalf("request is %+v, want a clock of 45 minutes", made)
	}
	ana.json("POST", at+"/extensions", wire.Extension{Minutes: 90, Justification: "Not finished"}, 200, nil)
	ben.json("POST", at+"/decisions", wire.Decision{Outcome: "approve"}, 200, nil)
	ana.json("POST", at+"/shorten", wire.Shortening{Minutes: 30}, 200, &made)
	if left := time.Until(made.EndsAt.Time); left > 30*time.Minute || left < 29*time.Minute {
		t.Errorf("%s are left after shortening to 30 minutes", left)
	}
	var sessions wire.Sessions
	ana.json("GET", "/api/v1/sessions?request_id="+made.ID, nil, 200, &sessions)
	if len(sessions.Sessions) != 1 || sessions.Sessions[0].AccessKeyID != c.AccessKeyID || sessions.Sessions[0].State != "issued" {
		t.Errorf("sessions are %+v, want the one that was opened", sessions)
	}
	ana.json("POST", at+"/done", nil, 200, &made)
	if made.Status != "expired" || made.EndedBy == nil || *made.EndedBy != "done" {
		t.Errorf("request is %+v, want expired by done", made)
	}
	ana.json("POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID}, 409, nil)

	// What the end promises: AWS refuses the session's next call.
	w.clock.move(46 * time.Minute)
	if err := w.try(c); err == nil {
		t.Error("the credentials still work after the grant's first end")
	}

	var events wire.Events
	w.as("aud").json("GET", "/api/v1/audit?target="+made.ID+"&page_size=5", nil, 200, &events)
	if len(events.Events) != 5 || events.NextPageToken == "" || events.Head.Seq == 0 {
		t.Errorf("audit shows %d rows and the token %q, want 5 and one", len(events.Events), events.NextPageToken)
	}
}

// The same by the pages, as a browser without script goes through them.
func TestStoryByPages(t *testing.T) {
	w := newWorld(t)
	w.push(w.inventory)
	ana, ben := w.browser(), w.as("ben")

	// Sign in on the provider's own page.
	if home := ana.page("/", 200); !strings.Contains(home, `href="/oidc/auth/login?return_to=%2froles"`) {
		t.Fatalf("the first page has no way to sign in: %s", home)
	}
	if page := ana.page("/roles?q=dev", 401); !strings.Contains(page, `return_to=%2froles%3fq%3ddev`) {
		t.Errorf("the page does not lead back: %s", page)
	}
	res, _ := ana.do("GET", "/oidc/auth/login?return_to=/roles%3Fq%3Ddev", nil)
	provider := res.Header.Get("Location")
	if page := ana.page(provider, 200); !strings.Contains(page, "Choose who to sign in as") {
		t.Fatalf("the provider shows %s", page)
	}
	res, _ = ana.do("POST", provider, url.Values{"choose": {"ana@example.com"}})
	res, _ = ana.do("GET", res.Header.Get("Location"), nil)
	if got := res.Header.Get("Location"); got != w.url+"/roles?q=dev" {
		t.Fatalf("after signing in the browser is sent to %q, want /roles?q=dev", got)
	}

	if page := ana.page("/roles", 200); !strings.Contains(page, "dev-admin") || !strings.Contains(page, "team=payments") {
		t.Errorf("the catalogue lacks the role: %s", page)
	}
	role := ana.page("/roles/"+prod+"/dev-admin", 200)
	for _, want := range []string{`value="60"`, `max="480"`, "anyone in sre-leads", "iam:GetPolicyVersion denied", "The document could not be read"} {
		if !strings.Contains(role, want) {
			t.Errorf("the role's page lacks %q", want)
		}
	}
	arn := w.aws.RoleARN("dev-admin")
	res, text := ana.do("POST", "/requests", url.Values{"role_arn": {arn}, "minutes": {"60"}, "ticket": {"OPS-7"}})
	if res.StatusCode != 400 || !strings.Contains(text, "asks for a justification") || !strings.Contains(text, `value="OPS-7"`) {
		t.Errorf("without a justification: %d, want 400 and the form again: %s", res.StatusCode, text)
	}
	at := ana.post("/requests", url.Values{"role_arn": {arn}, "minutes": {"60"}, "justification": {"Incident 7"}}, "/requests/req_[a-z0-9]+")
	if page := ana.page(at, 200); !strings.Contains(page, "Waiting for approval") || !strings.Contains(page, "group sre-leads") {
		t.Errorf("the request's page does not say whom it waits for: %s", page)
	}
	if page := ben.page("/approvals", 200); !strings.Contains(page, "Incident 7") || !strings.Contains(page, at+"/deny") {
		t.Errorf("the approvals lack the request: %s", page)
	}
	// Enter in a field presses the first button of its form: it decides nothing.
	if _, form, _ := strings.Cut(ben.page("/approvals", 200), at+"/approve"); !strings.Contains(form, "<button") ||
		!strings.HasPrefix(form[strings.Index(form, "<button"):], "<button disabled") {
		t.Error("the first button of the form that decides is not the disabled one")
	}
	ben.post(at+"/approve", url.Values{"minutes": {"45"}}, at+`\?decided=`+path.Base(at))
	if page := ana.page("/requests", 200); !strings.Contains(page, "Start session") {
		t.Errorf("my requests do not offer the session: %s", page)
	}
	res, text = ana.do("POST", "/sessions", url.Values{"request_id": {strings.TrimPrefix(at, "/requests/")}, "no_chaining": {"1"}})
	for _, want := range []string{"export AWS_ACCESS_KEY_ID=", "set -gx AWS_SECRET_ACCESS_KEY", "$Env:AWS_SESSION_TOKEN", "aws_session_token = ",
		"&#34;Version&#34;: 1", "After the end AWS authorises no new call", "ana@example.com", " min</span><br>"} {
		if res.StatusCode != 200 || !strings.Contains(text, want) {
			t.Errorf("the credentials' page (%d) lacks %q", res.StatusCode, want)
		}
	}
	if page := ana.page(at, 200); !strings.Contains(page, "Running") || !strings.Contains(page, "data-until") {
		t.Errorf("the request's page shows no clock: %s", page)
	}
	ana.post(at+"/extend", url.Values{"minutes": {"90"}, "justification": {"More"}}, at)
	ben.post(at+"/deny", url.Values{"reason": {"Enough"}, "from": {"approvals"}}, `/approvals\?decided=`+path.Base(at))
	ana.post(at+"/shorten", url.Values{"minutes": {"20"}}, at)
	ana.post(at+"/done", nil, at)
	if page := ana.page(at, 200); !strings.Contains(page, "Done") || strings.Contains(page, "Start session") {
		t.Errorf("the request's page does not show its end: %s", page)
	}

	ada := w.as("ada")
	if page := ada.page("/accounts/"+prod, 200); !strings.Contains(page, "992382851720") || !strings.Contains(page, "external-id-1") {
		t.Errorf("the account's page lacks what to paste: %s", page)
	}
	ada.post("/accounts/"+prod+"/sync", nil, "/accounts/"+prod)
	if page := ada.page("/accounts", 200); !strings.Contains(page, "Sync asked for") {
		t.Errorf("the accounts' page does not show that a sync was asked for")
	}
	if page := w.as("aud").page("/audit?target="+strings.TrimPrefix(at, "/requests/"), 200); !strings.Contains(page, "session.issue") {
		t.Errorf("the audit log lacks the session: %s", page)
	}
	if page := ana.page("/logins", 200); !strings.Contains(page, "This one") {
		t.Errorf("the logins lack this one: %s", page)
	}
	ana.post("/signout", nil, "/")
	ana.page("/roles", 401)
}

// An ID token that ended wants a new sign-in, and the page leads through it and
// back.
func TestTokenEndedBeforeTheSession(t *testing.T) {
	w := newWorld(t)
	w.push(w.inventory)
	ana := w.as("ana")
	var made wire.Request
	ana.json("POST", "/api/v1/requests", wire.NewRequest{RoleARN: w.aws.RoleARN("dev-auto"), Minutes: 60}, 201, &made)
	if made.Status != "approved" {
		t.Fatalf("request is %s, want approved", made.Status)
	}
	for range 3 {
		w.clock.move(20 * time.Minute)
		ana.page("/requests/"+made.ID, 200) // not idle
	}
	ana.json("POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID}, 401, nil)
	res, text := ana.do("POST", "/sessions", url.Values{"request_id": {made.ID}})
	if want := w.url + "/oidc/auth/login?prompt=none&return_to=%2Frequests%2F" + made.ID + "%3Fagain%3D1"; res.Header.Get("Location") != want {
		t.Errorf("answered %d to %q, want to %q: %s", res.StatusCode, res.Header.Get("Location"), want, text)
	}
	// What a browser's form leads to must not lead elsewhere: a page goes on to it.
	ana.header.Set("Sec-Fetch-Mode", "navigate")
	if res, text := ana.do("POST", "/sessions", url.Values{"request_id": {made.ID}}); res.StatusCode != 401 ||
		!strings.Contains(text, `<meta http-equiv="refresh" content="0; url=/oidc/auth/login?prompt=none&amp;return_to=%2Frequests%2F`+made.ID+`%3Fagain%3D1">`) {
		t.Errorf("a browser is answered %d to %q: %s", res.StatusCode, res.Header.Get("Location"), text)
	}
	ana.header.Del("Sec-Fetch-Mode")
	ana.signIn("ana@example.com")
	var c wire.Credentials
	ana.json("POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID}, 200, &c)
}

// Several roles in one go are one request each.
func TestBatch(t *testing.T) {
	w := newWorld(t)
	w.push(w.inventory)
	ana := w.as("ana")
	var batch wire.Batch
	ana.json("POST", "/api/v1/requests", wire.NewRequest{
		RoleARNs: []string{w.aws.RoleARN("dev-auto"), w.aws.RoleARN("dev-admin")}, Minutes: 60, Justification: "Both",
	}, 201, &batch)
	if batch.BatchID == "" || len(batch.Requests) != 2 || batch.Requests[0].Status != "approved" || batch.Requests[1].Status != "pending" {
		t.Errorf("batch is %+v, want two requests, the first approved", batch)
	}
	var first, second wire.Requests
	ana.json("GET", "/api/v1/requests?page_size=1", nil, 200, &first)
	ana.json("GET", "/api/v1/requests?page_size=1&page_token="+first.NextPageToken, nil, 200, &second)
	if len(first.Requests) != 1 || len(second.Requests) != 1 || second.NextPageToken != "" || first.Requests[0].ID == second.Requests[0].ID {
		t.Errorf("pages are %+v and %+v, want one request each and no third", first, second)
	}
}

// Over the API: a glass is broken, an admin finds the access among everybody's
// and takes it away.
func TestGlassByAPI(t *testing.T) {
	w := newWorld(t)
	w.push(w.inventory)
	broken := policies()
	broken[1].BreakGlass = true
	if err := w.plane.Declare(t.Context(), serval.System(), 0, accounts(), broken); err != nil {
		t.Fatal(err)
	}
	ana, ben, ada := w.as("ana"), w.as("ben"), w.as("ada")
	ask := wire.NewRequest{RoleARN: w.aws.RoleARN("dev-admin"), Minutes: 60, Justification: "the shop is down, nobody is up", BreakGlass: true}
	var made wire.Request
	ana.json("POST", "/api/v1/requests", ask, 201, &made)
	if made.Status != "approved" || !made.BreakGlass || made.RoleName != "dev-admin" || made.AccountName != "prod" || made.Suspended != "" || len(made.PolicyDigest) != 64 {
		t.Fatalf("request is %+v, want approved by a broken glass, with its names", made)
	}
	ben.json("GET", "/api/v1/requests/"+made.ID, nil, 200, &made)
	if len(made.Notices) != 1 || made.Notices[0].State != "failed" || made.Notices[0].Error != "no channel configured" ||
		!slices.Equal(made.Notices[0].Recipients.Groups, []string{"sre-leads"}) {
		t.Errorf("the approver sees the notices %+v", made.Notices)
	}
	ask.Justification = ask.Justification[1:]
	ana.json("POST", "/api/v1/requests", ask, 400, nil)
	ask.BreakGlass = false
	var later wire.Request
	ana.json("POST", "/api/v1/requests", ask, 201, &later)
	if !later.MayBreakGlass || later.MayDecide || later.Status != "pending" {
		t.Errorf("request is %+v, want pending with a glass to break", later)
	}
	ana.json("POST", "/api/v1/requests/"+later.ID+"/decisions", wire.Decision{Outcome: "approve", Reason: "it is down and I am all alone here"}, 200, nil)
	ana.json("POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID}, 200, nil)

	var found wire.Requests
	ana.json("GET", "/api/v1/requests?all=true", nil, 403, nil)
	ana.json("GET", "/api/v1/requests?email=ana@example.com", nil, 403, nil)
	ada.json("GET", "/api/v1/requests?running=no", nil, 400, nil)
	ada.json("GET", "/api/v1/requests", nil, 200, &found)
	if len(found.Requests) != 0 {
		t.Errorf("an admin's own requests are %d, want none", len(found.Requests))
	}
	for path, want := range map[string]int{
		"?all=true": 2, "?all=true&running=true": 1, "?email=ANA@example.com&running=true": 1, "?email=ben@example.com": 0, "?all=true&status=pending": 0,
	} {
		ada.json("GET", "/api/v1/requests"+path, nil, 200, &found)
		if len(found.Requests) != want {
			t.Errorf("%s: %d requests, want %d", path, len(found.Requests), want)
		}
	}
	ada.json("GET", "/api/v1/requests?all=true&page_size=1", nil, 200, &found)
	if len(found.Requests) != 1 || found.NextPageToken == "" {
		t.Fatalf("a page of one is %+v", found)
	}
	ada.json("GET", "/api/v1/requests?all=true&page_size=1&page_token="+found.NextPageToken, nil, 200, &found)
	if len(found.Requests) != 1 || found.NextPageToken != "" || found.Requests[0].ID != made.ID {
		t.Fatalf("the page behind it is %+v, want the first request", found)
	}
	ada.json("POST", "/api/v1/requests/"+made.ID+"/revoke", wire.Revocation{Reason: "the shop is up"}, 200, &made)
	if made.Status != "revoked" {
		t.Errorf("request is %s, want revoked", made.Status)
	}

	// What waits comes in pages too.
	for range 3 {
		ana.json("POST", "/api/v1/requests", wire.NewRequest{RoleARN: w.aws.RoleARN("dev-admin"), Minutes: 5, Justification: "Incident 7"}, 201, nil)
		w.clock.move(time.Second)
	}
	seen, token := 0, ""
	for pages := 1; ; pages++ {
		var waiting wire.Approvals
		ben.json("GET", "/api/v1/approvals?page_size=2&page_token="+token, nil, 200, &waiting)
		seen += len(waiting.Requests)
		if token = waiting.NextPageToken; token == "" {
			if pages != 2 {
				t.Errorf("%d pages, want 2", pages)
			}
			break
		}
	}
	if seen != 3 {
		t.Errorf("%d requests wait, want 3", seen)
	}
}

// S-54, over the API: an identity with an email that somebody has is suspended,
// found and linked.
func TestRelinkByAPI(t *testing.T) {
	w := newWorld(t)
	w.push(w.inventory)
	w.as("ana")
	ada := w.as("ada")
	var people wire.Identities
	ada.json("GET", "/api/v1/people?email=ANA@example.com", nil, 200, &people)
	if len(people.People) != 1 || people.People[0].Suspended != "" || people.People[0].Subject == "" {
		t.Fatalf("people are %+v, want Ana", people.People)
	}
	ada.json("POST", "/api/v1/people/"+people.People[0].ID+"/relink", wire.Relinking{SamePerson: true}, 422, nil)
	ada.json("POST", "/api/v1/people/person_none/relink", wire.Relinking{}, 404, nil)

	was := w.aws.RoleARN("dev-auto")
	ana := w.as("ana")
	var open wire.Request
	ana.json("POST", "/api/v1/requests", wire.NewRequest{RoleARN: was, Minutes: 60, Justification: "Incident 7"}, 201, &open)
	w.idp.SetPerson(idptest.Person{Subject: "00u1ana", Name: "Ana", Email: "ana.new@example.com", EmailVerified: true, Groups: []string{"engineering"}})
	married := w.as("ana.new")
	married.json("POST", "/api/v1/sessions", wire.NewSession{RequestID: open.ID}, 422, nil)
	ada.json("GET", "/api/v1/requests/"+open.ID, nil, 200, &open)
	if open.Suspended != "The person is suspended until an admin links their identity again." {
		t.Errorf("the request is suspended because %q", open.Suspended)
	}
	ada.json("GET", "/api/v1/people?suspended=true&page_size=1", nil, 200, &people)
	if len(people.People) != 1 || people.People[0].NewEmail != "ana.new@example.com" || people.NextPageToken != "" {
		t.Fatalf("suspended are %+v, want Ana with her new email", people)
	}
	var done wire.Relinked
	ada.json("POST", "/api/v1/people/"+people.People[0].ID+"/relink", wire.Relinking{SamePerson: true, Reason: "she married"}, 200, &done)
	if done.Person.Email != "ana.new@example.com" || done.Person.Suspended != "" || !slices.Equal(done.Carried, []string{open.ID}) || len(done.Revoked)+len(done.Suspended) != 0 {
		t.Errorf("linked: %+v", done)
	}
	married.json("POST", "/api/v1/sessions", wire.NewSession{RequestID: open.ID}, 200, nil)
}

// S-10: a page that stayed open decides what it shows, as a button in a chat does,
// and nothing that was asked for since.
func TestPageOfAnEarlierRound(t *testing.T) {
	w := newWorld(t)
	w.push(w.inventory)
	ana, ben := w.as("ana"), w.as("ben")
	var made wire.Request
	ana.json("POST", "/api/v1/requests", wire.NewRequest{RoleARN: w.aws.RoleARN("dev-admin"), Minutes: 60, Justification: "Incident 7"}, 201, &made)
	at := "/requests/" + made.ID
	rounds := regexp.MustCompile(`name="round" value="([0-9]+)"`)
	form := func(page string) url.Values {
		t.Helper()
		found := rounds.FindStringSubmatch(ben.page(page, 200))
		if found == nil {
			t.Fatalf("the form on %s does not say what it decides", page)
		}
		return url.Values{"minutes": {"60"}, "round": {found[1]}}
	}
	old := form(at)
	ben.post(at+"/approve", form("/approvals"), at+`\?decided=`+made.ID)
	ana.json("POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID}, 200, nil)
	ana.json("POST", "/api/v1"+at+"/extensions", wire.Extension{Minutes: 90, Justification: "More"}, 200, nil)
	for _, decision := range []string{"/approve", "/deny"} {
		if res, text := ben.do("POST", at+decision, old); res.StatusCode != 409 || !strings.Contains(text, "more was asked for since") {
			t.Errorf("an old page's %s answered %d, want 409: %s", decision, res.StatusCode, text)
		}
	}
	if res, _ := ben.do("POST", at+"/approve", url.Values{"minutes": {"60"}, "round": {"x"}}); res.StatusCode != 400 {
		t.Errorf("a round that is no number answered %d, want 400", res.StatusCode)
	}
	// Over the API the same, where it is said.
	for _, outcome := range []string{"approve", "deny"} {
		for _, round := range []int{0, 2, -1} {
			ben.json("POST", "/api/v1"+at+"/decisions", wire.Decision{Outcome: outcome, Round: &round}, 409, nil)
		}
	}
	ben.post(at+"/approve", form(at), at+`\?decided=`+made.ID)
}

// An auditor reads who could have and who had a role; whoever is gone from it is
// cut with a number.
func TestAccessReportPage(t *testing.T) {
	w := newWorld(t)
	w.push(w.inventory)
	ana, aud := w.as("ana"), w.as("aud")
	var made wire.Request
	ana.json("POST", "/api/v1/requests", wire.NewRequest{RoleARN: w.aws.RoleARN("dev-auto"), Minutes: 60}, 201, &made)
	ana.json("POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID}, 200, nil)
	page := aud.page("/reports/access", 200)
	for _, want := range []string{`<strong>dev-auto</strong>`, `ana@example.com <span class="soft">under auto</span>`, `<a href="/requests/` + made.ID + `">ana@example.com</a>`, "1 session", "approved by system"} {
		if !strings.Contains(page, want) {
			t.Errorf("the report lacks %s", want)
		}
	}
	if page := aud.page("/reports/access?email=ben@example.com", 200); !strings.Contains(page, "No role fits.") {
		t.Error("somebody who could have nothing has something")
	}
	if page := aud.page("/reports/access?to="+time.Now().AddDate(0, 0, -2).Format(time.DateOnly)+"&account_id="+prod, 200); strings.Contains(page, made.ID) || !strings.Contains(page, "under auto") {
		t.Error("a period that is over has what came after, or lacks who could have it")
	}
	for _, query := range []string{"from=yesterday", "from=2026-03-02&to=2026-03-01", "to=2026-13-01"} {
		if page := aud.page("/reports/access?"+query, 400); !strings.Contains(page, `role="alert"`) {
			t.Errorf("%s: the page does not say what is wrong", query)
		}
	}
	whole := regexp.MustCompile(`href="(/api/v1/reports/access[^"]*)"`).FindStringSubmatch(aud.page("/reports/access?email=ANA@example.com", 200))
	var report wire.AccessReport
	aud.json("GET", strings.ReplaceAll(whole[1], "&amp;", "&"), nil, 200, &report)
	if len(report.Roles) != 2 {
		t.Errorf("the whole report has %d roles, want Ana's two", len(report.Roles))
	}

	// Thirty more people, and thirty more accesses: twenty of each are named.
	if err := w.store.Write(t.Context(), w.clock.now(), func(tx *store.Tx) error {
		for i := range 30 {
			name := fmt.Sprintf("more-%02d", i)
			person := serval.Person{ID: "person_" + name, Issuer: "https://idp.example", Subject: name, Email: name + "@example.com", Groups: []string{"engineering"}, CreatedAt: w.clock.now()}
			if err := tx.SavePerson(person); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if page := aud.page("/reports/access", 200); !strings.Contains(page, "and 11 more") || strings.Contains(page, "more-29@example.com") {
		t.Errorf("of 31 people the report does not name twenty: %s", page)
	}
}

// An admin sees what reached nobody, and has it sent again.
func TestNoticesPage(t *testing.T) {
	w := newWorld(t)
	w.push(w.inventory)
	var made wire.Request
	w.as("ana").json("POST", "/api/v1/requests", wire.NewRequest{RoleARN: w.aws.RoleARN("dev-auto"), Minutes: 60}, 201, &made)
	w.undelivered(made.ID)
	ada := w.as("ada")
	page := ada.page("/notices", 200)
	for _, want := range []string{"Slack answered channel_not_found", "anyone in sre-leads", "22 attempts", `action="/notices/notice_gaveup/retry"`} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	if page := ada.page("/notices?state=pending", 200); !strings.Contains(page, "3 attempts") || strings.Contains(page, "Send again") {
		t.Errorf("what is on its way: %s", page)
	}
	ada.page("/notices?state=lost", 400)
	ada.post("/notices/notice_gaveup/retry", nil, "/notices")
	if page := ada.page("/notices", 200); !strings.Contains(page, "Every notice has reached somebody.") {
		t.Error("what is sent again still stands among what reached nobody")
	}
	if res, _ := ada.do("POST", "/notices/notice_gaveup/retry", url.Values{}); res.StatusCode != 409 {
		t.Errorf("a second time: %d, want 409", res.StatusCode)
	}
}

// Policies change places, as an admin sees them, and not those of the file.
func TestMovingPolicies(t *testing.T) {
	w := newWorld(t)
	ada := w.as("ada")
	for _, name := range []string{"x", "y", "z"} {
		ada.json("POST", "/api/v1/access-policies", wire.NewAccessPolicy{AccessPolicy: madePolicy(name)}, 201, nil)
	}
	order := func() (names string) {
		var list wire.AccessPolicies
		ada.json("GET", "/api/v1/access-policies", nil, 200, &list)
		for _, k := range list.AccessPolicies {
			names += k.Name + " "
		}
		return names
	}
	for _, move := range []struct{ name, to, want string }{
		{"z", "up", "auto engineers x z y "}, {"z", "up", "auto engineers z x y "}, {"z", "up", "auto engineers z x y "},
		{"x", "down", "auto engineers z y x "}, {"x", "down", "auto engineers z y x "},
	} {
		ada.post("/policies/"+move.name+"/move", url.Values{"to": {move.to}}, "/policies#p-[0-9a-f]{64}")
		if got := order(); got != move.want {
			t.Errorf("%s %s: the order is %s, want %s", move.name, move.to, got, move.want)
		}
	}
	if got := strings.Count(ada.page("/policies", 200), "disabled>"); got != 2 {
		t.Errorf("%d arrows lead nowhere, want the first up and the last down", got)
	}
	for form, want := range map[string]int{"to=sideways": 400, "to=up": 422} {
		f, _ := url.ParseQuery(form)
		if res, _ := ada.do("POST", "/policies/auto/move", f); res.StatusCode != want {
			t.Errorf("a policy of the file, %s: %d, want %d", form, res.StatusCode, want)
		}
	}
	if res, _ := ada.do("POST", "/policies/none/move", url.Values{"to": {"up"}}); res.StatusCode != 404 {
		t.Errorf("a policy that is not there: %d, want 404", res.StatusCode)
	}
}

// Whoever decides is told what came of it, as it stands when they look: who has the
// role until when, or whom it waits for, and how to take it back. Nobody else is told
// anything, whatever the address says.
func TestWhatWasDecidedIsSaid(t *testing.T) {
	two := policies()
	two[1].Approval.Steps = []serval.People{{Groups: []string{"sre-leads"}}, {Emails: []string{"aud@example.com"}}}
	w := newWorld(t)
	if err := w.plane.Declare(t.Context(), serval.System(), 0, accounts(), two); err != nil {
		t.Fatal(err)
	}
	w.push(w.inventory)
	ana, ben, aud := w.as("ana"), w.as("ben"), w.as("aud")
	said := regexp.MustCompile(`(?s)<div class="note[^>]*data-said>(.*?)</div>`)
	tags := regexp.MustCompile(`<[^>]*>`)
	on := func(b *browser, page string) string {
		found := said.FindStringSubmatch(b.page(page, 200))
		if found == nil {
			return ""
		}
		return strings.Join(strings.Fields(tags.ReplaceAllString(found[1], "")), " ")
	}
	check := func(b *browser, page, want string) {
		t.Helper()
		if got := on(b, page); !regexp.MustCompile("^" + want + "$").MatchString(got) {
			t.Errorf("%s says %q, want %s", page, got, want)
		}
	}
	ask := func() (at, id string) {
		var made wire.Request
		ana.json("POST", "/api/v1/requests", wire.NewRequest{RoleARN: w.aws.RoleARN("dev-admin"), Minutes: 90, Justification: "Incident 7"}, 201, &made)
		return "/requests/" + made.ID, made.ID
	}
	form := func(n int) url.Values {
		return url.Values{"minutes": {fmt.Sprint(n)}, "from": {"approvals"}}
	}

	at, id := ask()
	inbox := "/approvals?decided=" + id
	check(ben, inbox, "")
	ben.post(at+"/approve", form(90), regexp.QuoteMeta(inbox))
	check(ben, inbox, `Approved. ana@example.com does not have dev-admin yet: now it waits for aud@example.com\.`)
	check(aud, inbox, "")
	aud.post(at+"/approve", form(45), regexp.QuoteMeta(inbox))
	for _, b := range []*browser{ben, aud} {
		for _, page := range []string{inbox, at + "?decided=" + id} {
			check(b, page, `Approved. ana@example.com has dev-admin in prod for 45 min, from their first session on\. Unused, it ends [-0-9: ]+UTC\. Undo: revoke it`)
		}
		check(b, at, "")
	}
	check(ana, at+"?decided="+id, "") // theirs, but not their decision
	for _, other := range []string{id, "req_none", ""} {
		check(w.as("cy"), "/approvals?decided="+other, "")
	}
	ana.json("POST", "/api/v1/sessions", wire.NewSession{RequestID: id}, 200, nil)
	check(ben, inbox, `Approved. ana@example.com has dev-admin in prod until [-0-9: ]+UTC\. Undo: revoke it`)
	ana.json("POST", "/api/v1"+at+"/extensions", wire.Extension{Minutes: 90, Justification: "More"}, 200, nil)
	ben.post(at+"/approve", form(90), regexp.QuoteMeta(inbox))
	check(ben, inbox, `Approved. ana@example.com does not have more time with dev-admin yet: now it waits for aud@example.com\.`)
	aud.post(at+"/deny", url.Values{"from": {"approvals"}}, regexp.QuoteMeta(inbox))
	check(aud, inbox, `Denied. ana@example.com does not get more time with dev-admin, and is told so\.`)
	check(ben, inbox, `Approved. Meanwhile somebody else denied ana@example.com more time with dev-admin\.`)
	ben.post(at+"/revoke", nil, at)

	at, id = ask()
	ben.post(at+"/deny", url.Values{"reason": {"No"}, "from": {"approvals"}}, regexp.QuoteMeta("/approvals?decided="+id))
	check(ben, "/approvals?decided="+id, `Denied. ana@example.com does not get dev-admin, and is told so\.`)

	at, id = ask()
	inbox = "/approvals?decided=" + id
	ben.post(at+"/approve", form(90), regexp.QuoteMeta(inbox))
	aud.post(at+"/approve", form(90), regexp.QuoteMeta(inbox))
	ben.post(at+"/revoke", nil, at)
	check(ben, inbox, `Approved. Meanwhile the request of ana@example.com for dev-admin has ended\.`)
}

// Whoever is signed in finds their way from an address where nothing is; nobody else
// is told more than that.
func TestNothingHere(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"/nothing", "/requests/x/y/z"} {
		if page := w.as("ana").page(path, 404); !strings.Contains(page, `<nav class="nav"`) || !strings.Contains(page, "ana@example.com") || !strings.Contains(page, "There is nothing at this address.") {
			t.Errorf("%s has no navigation: %s", path, page)
		}
		if page := w.browser().page(path, 404); strings.Contains(page, "<nav") || !strings.Contains(page, "There is nothing at this address.") {
			t.Errorf("%s shows a stranger %s", path, page)
		}
	}
}
