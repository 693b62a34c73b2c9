package web_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-rod/rod/lib/input"
	"github.com/go-rod/rod/lib/proto"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// until waits until the page says something.
func (b *tab) until(text string) {
	b.t.Helper()
	b.wait(fmt.Sprintf("%q", text), func() bool { return strings.Contains(b.text(), text) })
}

// The whole story as two people see it, in a real browser: from the first page to
// credentials that work, and what is left of them afterwards. S-78
func TestStoryInABrowser(t *testing.T) {
	for _, on := range []screen{phone, desktop, phone.withoutScript(), desktop.withoutScript()} {
		name := on.name
		if !on.script {
			name += " without script"
		}
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.push(w.inventory)
			ana, ben := w.tab(on), w.tab(on)
			clicks, began := 0, time.Now()
			click := func(text string) { clicks++; ana.press(text) }

			ana.open("/")
			click("Sign in")
			clicks++
			ana.pressOn(`button[value="ana@example.com"]`)
			if ana.at() != "/roles" {
				t.Fatalf("signing in leads to %s, want /roles", ana.at())
			}
			ana.sound()
			if on.script {
				ana.fill("#q", "dev-ad")
				ana.until("1 role fits dev-ad")
				if !strings.HasSuffix(ana.at(), "/roles?q=dev-ad") {
					t.Errorf("the address is %s, want one that can be kept", ana.at())
				}
			} else {
				ana.fill("#q", "dev-ad")
				ana.follow(func() error { return ana.page.Keyboard.Type(input.Enter) })
			}
			if text := ana.text(); strings.Contains(text, "dev-auto") {
				t.Errorf("searching for dev-ad shows dev-auto:\n%s", text)
			}
			click("Request")
			ana.sound()
			clicks++
			ana.tap("2 h")
			ana.fill("#justification", "Incident 7")
			click("Request")
			ana.sound()
			if text := ana.text(); !strings.Contains(text, "Waiting for approval") || !strings.Contains(text, "2 h asked for") {
				t.Fatalf("the request's page says\n%s", text)
			}
			request := strings.TrimPrefix(ana.at(), "/requests/")

			ben.enter(w.as("ben"))
			noticed, decisions := time.Now(), 0
			ben.open("/requests/" + request) // where a notice leads
			ben.sound()
			if text := ben.text(); !strings.Contains(text, "Incident 7") || !strings.Contains(text, "Never before.") {
				t.Errorf("the approver reads\n%s", text)
			}
			decisions++
			ben.press("Approve")
			t.Logf("from the notice to the decision: %d click, %s", decisions, time.Since(noticed).Round(time.Millisecond))

			if on.script {
				ana.until("Approved, not used yet") // by itself
			} else {
				ana.open("/requests/" + request)
			}
			click("Start session")
			ana.sound()
			text := ana.eval(`() => document.querySelector("#credentials-json").textContent`)
			var c wire.Credentials
			if err := json.Unmarshal([]byte(text), &c); err != nil || w.try(c) != nil {
				t.Fatalf("the credentials do not work: %v: %s", err, text)
			}
			t.Logf("from cold to credentials: %d clicks, %s", clicks, time.Since(began).Round(time.Millisecond))
			if on.script {
				ana.must(proto.BrowserGrantPermissions{Permissions: []proto.BrowserPermissionType{proto.BrowserPermissionTypeClipboardReadWrite, proto.BrowserPermissionTypeClipboardSanitizedWrite},
					Origin: w.url, BrowserContextID: ana.context()}.Call(ana.page))
				ana.tap("fish")
				// It says so for two seconds.
				ana.eval(`() => { new MutationObserver((_, o) => { if (document.body.innerText.includes("Copied")) { window.said = "Copied"; o.disconnect(); } }).observe(document.body, { childList: true, subtree: true }); return ""; }`)
				ana.tapOn("[data-copy=credentials-fish]")
				ana.wait("Copied", func() bool { return ana.eval(`() => window.said || ""`) == "Copied" })
				res, err := ana.page.Eval(`() => navigator.clipboard.readText()`)
				ana.must(err)
				if !strings.Contains(res.Value.Str(), "set -gx AWS_SECRET_ACCESS_KEY '"+c.SecretAccessKey+"'") {
					t.Errorf("the clipboard has %q", res.Value.Str())
				}
			}

			// Nothing of them is to be had again: not by going back, and not from what
			// the browser keeps.
			ana.open("/roles")
			ana.back()
			if text := ana.eval(`() => document.documentElement.textContent`); strings.Contains(text, c.SecretAccessKey) {
				t.Error("going back shows the credentials again")
			}

			ana.open("/requests/" + request)
			if text := ana.text(); !strings.Contains(text, "Running") || !regexp.MustCompile(`1 h 5\d min`).MatchString(text) {
				t.Errorf("the request's page does not count down:\n%s", text)
			}
			ana.press("I'm done")
			if text := ana.text(); !strings.Contains(text, "Done") || strings.Contains(text, "Start session") {
				t.Errorf("the request's page does not show its end:\n%s", text)
			}
			ana.press("Sign out")
			ana.open("/roles")
			if text := ana.text(); !strings.Contains(text, "Please sign in") {
				t.Errorf("after signing out the roles' page says\n%s", text)
			}
		})
	}
}

// An admin connects an account, checks it, makes a policy and asks why, in a
// browser; an approver decides by the keyboard alone.
func TestAdminInABrowser(t *testing.T) {
	w := newWorld(t)
	w.push(w.inventory)
	ada := w.tab(desktop).enter(w.as("ada"))
	ada.open("/accounts")
	ada.press("Connect AWS")
	for _, want := range []string{"992382851720", externalID, `"sts:TagSession"`} {
		if !strings.Contains(ada.text(), want) {
			t.Errorf("Connect AWS does not show %s", want)
		}
	}
	ada.fill("#id", "777788889999")
	ada.fill("#name", "data")
	ada.fill("#role-arn", "arn:aws:iam::777788889990:role/serval-ingestion")
	ada.press("Connect")
	if text := ada.text(); !strings.Contains(text, "role_arn") || ada.eval(`() => document.querySelector("#name").value`) != "data" {
		t.Fatalf("a role of another account is taken, or the form is lost:\n%s", text)
	}
	ada.fill("#role-arn", "arn:aws:iam::777788889999:role/serval-ingestion")
	ada.press("Connect")
	if ada.at() != "/accounts/777788889999" {
		t.Fatalf("connecting leads to %s", ada.at())
	}
	ada.sound()

	// The page follows what a worker does.
	ada.open("/accounts/" + prod)
	ada.press("Sync now")
	ada.until("Asked for")
	w.push(w.inventory)
	ada.until("Generation\n2")
	ada.press("Test AWS Connection")
	ada.until("Under way")
	w.finish(serval.RunResult{Check: &serval.Check{Name: serval.CheckConnection, AccountID: prod, At: w.clock.now(), Passed: true, Text: serval.TextConnected}})
	ada.until(serval.TextConnected)

	ada.open("/policies")
	ada.press("New policy")
	ada.fill("#name", "visitors")
	ada.fill("#arns", "arn:aws:iam::*:role/people/dev-*")
	ada.fill("#groups", "visitors")
	ada.fill("#steps", "sre-leads, head@example.com\ngroup:night@shift")
	ada.press("Put it into force")
	var made wire.AccessPolicies
	w.as("ada").json("GET", "/api/v1/access-policies", nil, 200, &made)
	got := made.AccessPolicies[len(made.AccessPolicies)-1]
	if want := `[{"groups":["sre-leads"],"emails":["head@example.com"]},{"groups":["night@shift"],"emails":[]}]`; got.Name != "visitors" || asJSON(t, got.Approval.Steps) != want || got.MaxMinutes != 480 || !got.RequireJustification {
		t.Errorf("the policy is %+v, want the steps %s", got, want)
	}
	ada.press("visitors")
	ada.fill("#max", "30")
	ada.fill("#recommended", "30")
	ada.press("Save")
	w.as("cy")
	ada.press("Explain a person and a role")
	ada.fill("#email", "cy@example.com")
	ada.fill("#role-arn", w.aws.RoleARN("dev-admin"))
	ada.press("Explain")
	if text := ada.text(); !strings.Contains(text, "They may ask for it.") || !strings.Contains(text, "30 min") {
		t.Errorf("the explanation is\n%s", text)
	}
	ada.sound()
}

// A decision needs no mouse, and none is made by the keys that lead to it.
func TestApprovingByKeyboard(t *testing.T) {
	w := newWorld(t)
	w.push(w.inventory)
	for range 2 {
		w.as("ana").json("POST", "/api/v1/requests", wire.NewRequest{RoleARN: w.aws.RoleARN("dev-admin"), Minutes: 60, Justification: "Incident 7"}, 201, nil)
		w.clock.move(time.Second)
	}
	ben := w.tab(desktop).enter(w.as("ben"))
	ben.open("/approvals")
	ben.must(ben.page.Keyboard.Type('j', 'j', 'd'))
	ben.must(ben.page.Keyboard.Type('j', 'a', 'd')) // a reason with those letters in it
	if got := ben.eval(`() => document.activeElement.value`); got != "jad" {
		t.Fatalf("the reason is %q, want jad", got)
	}
	ben.must(ben.page.Keyboard.Type(input.Enter))
	if text := ben.text(); strings.Count(text, "asks for dev-admin") != 2 {
		t.Fatal("Enter in the reason decides")
	}
	ben.must(ben.page.Keyboard.Type(input.Tab))
	ben.follow(func() error { return ben.page.Keyboard.Type(input.Enter) })
	if text := ben.text(); ben.at() != "/approvals" || strings.Count(text, "asks for dev-admin") != 1 || !strings.Contains(text, "ana@example.com has dev-admin in prod for 1 h") {
		t.Errorf("after the keys %s says\n%s", ben.at(), text)
	}
}

// A page that looks again by itself takes nothing from whoever is at work in it, not
// even where they began while it looked.
func TestLookingAgain(t *testing.T) {
	w := newWorld(t)
	w.push(w.inventory)
	ana := w.as("ana")
	var made wire.Request
	ana.json("POST", "/api/v1/requests", wire.NewRequest{RoleARN: w.aws.RoleARN("dev-admin"), Minutes: 60, Justification: "Incident 7"}, 201, &made)
	ben := w.tab(desktop).enter(w.as("ben"))
	// Time goes by quickly, and what the page asks for comes when it may.
	ben.must2(ben.page.EvalOnNewDocument(`{
		const later = setTimeout, ask = fetch;
		window.looks = window.answers = 0;
		window.setTimeout = (f, ms) => later(async () => { await f(); window.looks++; }, ms / 50);
		window.fetch = async (...what) => {
			const answer = await ask(...what);
			window.answers++;
			await new Promise((go) => { window.go = go; });
			return answer;
		};
	}`))
	come := func(what string) {
		t.Helper()
		ben.wait("another of the "+what, func() bool { return ben.eval(`() => String(window.`+what+` > (window.seen || 0))`) == "true" })
	}
	ben.open("/requests/" + made.ID)
	come("answers")
	ben.fill("[data-reason]", "Not today, because")
	ben.eval(`() => { window.seen = window.looks; go(); return ""; }`)
	come("looks")
	if got := ben.eval(`() => document.querySelector("[data-reason]").value`); got != "Not today, because" {
		t.Errorf("the reason is %q after the page looked again", got)
	}
	ana.json("POST", "/api/v1/requests/"+made.ID+"/cancel", nil, 200, nil)
	ben.eval(`() => { window.seen = window.answers; document.activeElement.blur(); return ""; }`)
	come("answers")
	ben.eval(`() => { go(); return ""; }`)
	ben.until("Canceled")
}

// What was written in a form is there again where the login had ended meanwhile, and
// nowhere else.
func TestNothingWrittenIsLost(t *testing.T) {
	w := newWorld(t)
	w.push(w.inventory)
	ana := w.tab(desktop)
	ana.open("/oidc/auth/login?return_to=/roles")
	ana.pressOn(`button[value="ana@example.com"]`)
	role := "/roles/" + prod + "/dev-admin"
	ana.open(role)
	ana.must(ana.click(ana.button("2 h")))
	ana.fill("#justification", "Incident 7:\nthe queue")
	ana.fill("#ticket", "OPS-7")
	w.clock.move(13 * time.Hour) // longer than a login
	ana.press("Request")
	if text := ana.text(); !strings.Contains(text, "Please sign in") {
		t.Fatalf("after the login's end the page says\n%s", text)
	}
	ana.press("Sign in")
	if ana.at() != role {
		ana.pressOn(`button[value="ana@example.com"]`)
	}
	if got := ana.eval(`() => [location.pathname, document.querySelector("[name=minutes]:checked").value, document.querySelector("#justification").value, document.querySelector("#ticket").value].join("|")`); got != role+"|120|Incident 7:\nthe queue|OPS-7" {
		t.Errorf("after signing in again the form has %q", got)
	}
	ana.sound()
	ana.press("Request")
	if text := ana.text(); !strings.Contains(text, "Waiting for approval") {
		t.Fatalf("the request's page says\n%s", text)
	}
	if left := ana.eval(`() => String(sessionStorage.getItem("written"))`); left != "null" {
		t.Errorf("the tab still keeps %s", left)
	}

	// Whoever else signs in at the same screen finds nothing of it.
	ana.open("/roles/" + prod + "/dev-auto")
	ana.fill("#justification", "For Ana alone")
	w.clock.move(13 * time.Hour)
	ana.press("Request")
	odd := w.browser()
	odd.signIn(oddEmail)
	ana.enter(odd)
	ana.open("/roles/" + prod + "/dev-auto")
	if got := ana.eval(`() => document.querySelector("#justification").value + document.querySelector(".me a").textContent`); got != oddEmail {
		t.Errorf("the next one at the screen finds %q", got)
	}
}

// What people do besides the story: keep a role first, ask for several in one go,
// for later, and with nobody up to approve it; ask for more and give some back.
func TestAskingInABrowser(t *testing.T) {
	for _, on := range []screen{desktop, phone.withoutScript()} {
		t.Run(on.name, func(t *testing.T) {
			w := newWorld(t)
			broken := policies()
			broken[1].BreakGlass = true
			if err := w.plane.Declare(t.Context(), serval.System(), 0, accounts(), broken); err != nil {
				t.Fatal(err)
			}
			w.push(w.estate)
			signedIn, ben := w.as("ana"), w.as("ben")
			ana := w.tab(on)
			ana.open("/oidc/auth/login?return_to=/roles")
			ana.pressOn(`button[value="ana@example.com"]`)
			says := func(want string) {
				t.Helper()
				ana.sound()
				if text := ana.text(); !strings.Contains(text, want) {
					t.Fatalf("%s does not say %q:\n%s", ana.at(), want, text)
				}
			}

			// First is what somebody keeps first, until they do not.
			const star = `button[aria-label="Keep support-impersonate first"]`
			ana.pressOn(star)
			says("Favourites\n")
			if first := ana.eval(`() => document.querySelector("#catalogue section .what > a").textContent`); first != "support-impersonate" {
				t.Errorf("first comes %s", first)
			}
			ana.pressOn(star)
			if strings.Contains(ana.text(), "Favourites\n") {
				t.Error("what is not kept any more still comes first")
			}

			for _, name := range []string{"payments-readonly", "support-impersonate"} {
				ana.tapOn(fmt.Sprintf(`#catalogue input[value$="/%s"]`, name))
			}
			ana.press("Request the ticked roles")
			says("Request 2 roles")
			says("payments-readonly: It asks anyone in sre-leads.")
			ana.tapOn(`input[name=minutes][value="30"]`)
			ana.fill("#justification", "The two of them")
			ana.press("Request")
			if text := ana.text(); ana.at() != "/requests" || strings.Count(text, "Waiting for approval") != 2 {
				t.Errorf("%s says\n%s", ana.at(), text)
			}
			says("The two of them")

			// For later, in the reader's zone where there is script, and in UTC without.
			later := w.clock.now().Add(2 * time.Hour).Truncate(time.Minute)
			entered := later.UTC()
			if on.script {
				zone, err := time.LoadLocation("Europe/Berlin")
				if err != nil {
					t.Fatal(err)
				}
				entered = later.In(zone)
			}
			ana.open("/roles/" + prod + "/billing-export")
			ana.tap("Start later")
			ana.eval(fmt.Sprintf(`() => { document.querySelector("#start-at").value = %q; return ""; }`, entered.Format("2006-01-02T15:04")))
			ana.fill("#justification", "The report of tomorrow")
			ana.press("Request")
			says("Not before")
			at := ana.at()
			var made wire.Request
			signedIn.json("GET", "/api/v1"+at, nil, 200, &made)
			if !made.StartAt.Equal(later) {
				t.Errorf("it begins at %s, want %s", made.StartAt, later)
			}
			ben.json("POST", "/api/v1"+at+"/decisions", wire.Decision{Outcome: "approve"}, 200, nil)
			ana.open(at)
			says("Approved for later")
			if strings.Contains(ana.text(), "Start session") {
				t.Error("a session is offered before the start")
			}
			for range 7 { // never idle for long
				w.clock.move(18 * time.Minute)
				ana.open(at)
			}
			// The ID token has ended meanwhile: the provider is asked, and nobody else.
			ana.press("Start session")
			ana.wait("being back", func() bool { return strings.HasPrefix(ana.at(), at) && strings.Contains(ana.text(), "once more") })
			ana.sound()
			ana.press("Start session")
			says("Shown once")

			// Nobody is up: with a reason of some length, and everybody is told.
			ana.open("/roles/" + prod + "/dev-admin")
			ana.tap("Nobody is up to approve it")
			ana.tapOn("input[name=break_glass]")
			ana.fill("#justification", "It is down")
			ana.press("Request")
			says("30 characters")
			if ana.eval(`() => String(document.querySelector("input[name=break_glass]").checked)`) != "true" {
				t.Error("the form forgot that the glass is to be broken")
			}
			ana.fill("#justification", "The ledger is down and nobody answers")
			ana.press("Request")
			says("Approved, not used yet")
			says("Broken")

			ana.open("/roles/" + prod + "/ledger-writer")
			ana.fill("#justification", "Correct a booking")
			ana.press("Request")
			says("Waiting for approval")
			ana.tap("Nobody is up to approve it")
			ana.fill("#glass", "The books close at midnight, and nobody answers")
			ana.press("Break the glass")
			says("Approved, not used yet")

			// More time, and less, of what is offered and of what is typed.
			ana.open("/roles/" + prod + "/dev-auto")
			ana.tapOn(`input[name=minutes][value="30"]`)
			ana.press("Request")
			ana.tap("Ask for more time")
			ana.tapOn(`form[action$="/extend"] input[value="120"]`)
			ana.pressOn(`form[action$="/extend"] button`)
			says("2 h, from your first session on")
			ana.tap("Shorten")
			ana.tapOn(`form[action$="/shorten"] input[value=other]`)
			ana.fill(`form[action$="/shorten"] input[name=other_minutes]`, "45")
			ana.pressOn(`form[action$="/shorten"] button`)
			says("45 min, from your first session on")
		})
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Every page, in both schemes, on a phone and a desktop: axe-core finds nothing,
// nothing is against the page's own policy, nothing is wider than the screen.
func TestEveryPageIsAccessible(t *testing.T) {
	axeSource(t)
	w := newWorld(t)
	pictures := w.gallery()
	tabs := map[string]*tab{}
	for _, p := range pictures {
		b := tabs[p.who]
		if b == nil {
			b = w.tab(desktop)
			if p.who != "" {
				b.enter(w.as(p.who))
			}
			tabs[p.who] = b
		}
		b.show(desktop)
		b.look(p)
		for _, on := range []screen{desktop, phone.inTheDark()} {
			b.show(on)
			if on.dark { // with everything in sight that is folded
				b.eval(`() => { for (const d of document.querySelectorAll("details")) d.open = true; return ""; }`)
			}
			b.sound()
			for _, found := range b.axe() {
				t.Errorf("%s (%s): %s", p.name, on.name, found)
			}
		}
	}
}

// impostors are texts that are something else elsewhere: markup, a template, a
// script, an address, what hides or turns what stands beside it.
var impostors = []string{
	`<script>broken.push("script")</script>`, `"><img src=x onerror=broken.push("attribute")>`, `'; broken.push("quote") //`, `</textarea><svg onload=broken.push("svg")>`,
	`{{.}} ${broken} <!-- --> ]]> &lt;b&gt;`, `javascript:broken.push("address")`, `</pre></script><script>broken.push("pre")</script>`, "ÿ¡ß é̂", "a\u00a0b",
}

// A role as IAM lets anybody name one, with what its path may be.
const (
	oddName = "onload=x@1,+.javascript"
	oddPath = `/"><img/src=x/onerror=broken.push("path")>/{{.}}/`
	oddARN  = "arn:aws:iam::" + prod + ":role" + oddPath + oddName
)

// S-25, S-79: whatever is in a name, a tag, a policy, an email or a reason is
// shown as it is, and does nothing.
func TestHostileTextsAreInert(t *testing.T) {
	w := newWorld(t)
	all := strings.Join(impostors, " ")
	tags := map[string]string{"serval": ""}
	for i, text := range impostors {
		tags[fmt.Sprintf("k%d%s", i, "<b>")] = text
	}
	document := serval.Document(asJSON(t, map[string]any{"Version": "2012-10-17", "Statement": []any{map[string]any{"Sid": all, "Effect": "Deny", "Action": "*", "Resource": all}}}))
	w.push(func(g int64) serval.Inventory {
		inv := w.inventory(g)
		for i := range inv.Roles {
			inv.Roles[i].Description, inv.Roles[i].Tags = all, tags
			inv.Roles[i].InlinePolicies.Policies = []serval.InlinePolicy{{Name: "x<b>", Document: document}}
		}
		odd := inv.Roles[0]
		odd.ARN, odd.RoleID, odd.Name, odd.Path = oddARN, "AROAODDODDODDODD", oddName, oddPath
		inv.Roles = append(inv.Roles, odd)
		inv.Problems = []serval.Problem{{Action: "iam:GetPolicyVersion", Target: all, Code: all, Message: all}}
		inv.Complete = false
		inv.Normalize()
		return inv
	})
	ana, ben, odd, ada := w.as("ana"), w.as("ben"), w.browser(), w.as("ada")
	odd.signIn(oddEmail)
	var made, odds wire.Request
	ana.json("POST", "/api/v1/requests", wire.NewRequest{RoleARN: w.aws.RoleARN("dev-admin"), Minutes: 60, Justification: all, Ticket: impostors[1]}, 201, &made)
	odd.json("POST", "/api/v1/requests", wire.NewRequest{RoleARN: oddARN, Minutes: 60, Justification: all}, 201, &odds)
	policy := madePolicy("odd ones")
	policy.Roles.Tags, policy.Eligible = map[string]string{"k0<b>": impostors[0]}, serval.People{Groups: []string{oddGroup}, Emails: []string{oddEmail}}
	policy.Approval = serval.Approval{Steps: []serval.People{{Groups: []string{oddGroup}, Emails: []string{oddEmail}}}}
	ada.json("POST", "/api/v1/access-policies", wire.NewAccessPolicy{AccessPolicy: policy}, 201, nil)
	role := "/roles/" + prod + "/" + oddName
	explain := "/policies/explain?" + url.Values{"email": {oddEmail}, "role_arn": {oddARN}}.Encode()
	pages := []picture{
		{who: "ana", path: "/roles"}, {who: "ana", path: "/roles?q=" + url.QueryEscape(impostors[0])}, {who: "ana", path: "/roles/" + prod + "/dev-auto"},
		{who: "ana", path: "/requests"}, {who: "ana", path: "/requests/" + made.ID}, {who: "ben", path: "/approvals"}, {who: "ben", path: "/requests/" + made.ID},
		{who: "ada", path: "/accounts/" + prod}, {who: "aud", path: "/audit?target=" + url.QueryEscape(all)},
		{who: "odd", path: "/roles"}, {who: "odd", path: role}, {who: "odd", path: "/requests/" + odds.ID}, {who: "odd", path: "/logins"}, {who: "odd", path: "/requests/new?role_arn=" + url.QueryEscape(oddARN)},
		{who: "ben", path: "/requests/" + odds.ID}, {who: "ada", path: "/policies"}, {who: "ada", path: "/policies/odd%20ones"}, {who: "ada", path: explain},
		{who: "aud", path: "/findings"}, {who: "aud", path: "/reports/access"}, {who: "aud", path: "/reports/access?email=" + url.QueryEscape(all)}, {who: "aud", path: "/audit"},
	}
	verbatim := map[string][]string{
		"/roles": {all, "k0<b>=" + impostors[0]}, "/roles/" + prod + "/dev-auto": {all, `"Deny"`}, "/requests/" + made.ID: {all}, "/approvals": {all, oddEmail, oddName}, "/accounts/" + prod: {all},
		role: {oddARN}, "/requests/" + odds.ID: {oddEmail, oddARN}, "/policies": {oddEmail, oddGroup}, explain: {oddEmail, oddGroup}, "/findings": {oddARN},
		"/reports/access": {oddEmail, oddName}, "/logins": {oddEmail},
	}
	tabs := map[string]*tab{}
	for i, p := range pages {
		if i == len(pages)-1 {
			ben.json("POST", "/api/v1/requests/"+made.ID+"/decisions", wire.Decision{Outcome: "deny", Reason: all}, 200, nil)
		}
		b := tabs[p.who]
		if b == nil {
			b = w.tab(phone)
			if p.who == "odd" {
				b.enter(odd)
			} else {
				b.enter(w.as(p.who))
			}
			tabs[p.who] = b
		}
		b.look(p)
		b.eval(`() => { for (const d of document.querySelectorAll("details")) d.open = true; return ""; }`)
		b.sound()
		text := b.eval(`() => document.body.textContent + [...document.querySelectorAll("input, textarea")].map((e) => e.value).join(" ")`)
		for _, want := range verbatim[p.path] {
			if !strings.Contains(text, want) && !strings.Contains(text, escapedIn(want)) {
				t.Errorf("%s does not show %q verbatim:\n%.600s", p.path, want, text)
			}
		}
	}
}

// escapedIn returns a text as it stands within a JSON document.
func escapedIn(text string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(text)
	return strings.Trim(strings.TrimSpace(b.String()), `"`)
}
