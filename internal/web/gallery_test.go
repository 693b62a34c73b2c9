package web_test

import (
	"bytes"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

var screenshots = flag.String("screenshots", "", "the directory that TestScreenshots writes to")

// A picture is a page of the gallery: who looks at what.
type picture struct {
	name string
	who  string // empty: nobody
	path string
	form url.Values // posted there; nil: it is got
}

// gallery fills a world as a company fills it in a week, and returns every page.
func (w *world) gallery() []picture {
	w.t.Helper()
	w.push(w.estate)
	ana, ben, ada := w.as("ana"), w.as("ben"), w.as("ada")
	ask := func(who *browser, role string, minutes int, why, ticket string) wire.Request {
		w.t.Helper()
		var made wire.Request
		who.json("POST", "/api/v1/requests", wire.NewRequest{RoleARN: w.arn(role), Minutes: minutes, Justification: why, Ticket: ticket}, 201, &made)
		w.clock.move(time.Second)
		return made
	}
	decide := func(r wire.Request, outcome, reason string) {
		w.t.Helper()
		ben.json("POST", "/api/v1/requests/"+r.ID+"/decisions", wire.Decision{Outcome: outcome, Reason: reason}, 200, nil)
		w.clock.move(time.Second)
	}
	denied := ask(ana, "billing-export", 240, "Look at last month's invoices", "")
	decide(denied, "deny", "The report in the warehouse has them.")
	running := ask(ana, "dev-auto", 120, "Deploy of the invoice service", "OPS-1841")
	ana.json("POST", "/api/v1/sessions", wire.NewSession{RequestID: running.ID}, 200, nil)
	ready := ask(ana, "payments-oncall", 60, "Payments are late since 02:10, looking at the queue", "INC-307")
	decide(ready, "approve", "")
	pending := ask(ana, "dev-admin", 90, "Rotate the database password of the ledger:\n- stop the writers\n- rotate\n- start them", "OPS-1850")
	extended := ask(ana, "ledger-writer", 60, "Correct the two bookings of Friday", "FIN-12")
	decide(extended, "approve", "")
	ana.json("POST", "/api/v1/sessions", wire.NewSession{RequestID: extended.ID}, 200, nil)
	ana.json("POST", "/api/v1/requests/"+extended.ID+"/extensions", wire.Extension{Minutes: 60, Justification: "The export takes longer than I thought"}, 200, nil)
	w.push(func(g int64) serval.Inventory {
		inv := w.estate(g)
		for i := range inv.Roles {
			if inv.Roles[i].Name == "ledger-writer" {
				inv.Roles[i].InlinePolicies.Policies = append(inv.Roles[i].InlinePolicies.Policies, serval.InlinePolicy{Name: "bookings",
					Document: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["dynamodb:UpdateItem","dynamodb:DeleteItem"],"Resource":"arn:aws:dynamodb:eu-central-1:111122223333:table/bookings"}]}`})
			}
		}
		return inv
	})
	ada.json("POST", "/api/v1/access-policies", wire.NewAccessPolicy{AccessPolicy: serval.AccessPolicy{
		Name: "support", Roles: serval.RoleMatch{Tags: map[string]string{"team": "support"}}, Eligible: serval.People{Groups: []string{"support"}},
		Approval: serval.Approval{Steps: []serval.People{{Groups: []string{"support-leads"}}, {Emails: []string{"ben@example.com"}}}}, MaxMinutes: 120, BreakGlass: true,
	}}, 201, nil)
	var check wire.Run
	ada.json("POST", "/api/v1/accounts/"+prod+"/checks", nil, 202, &check)
	w.finish(serval.RunResult{Check: &serval.Check{
		Name: serval.CheckConnection, AccountID: prod, At: w.clock.now(), Text: serval.TextNotAssumed, Identity: "arn:aws:sts::992382851720:assumed-role/serval-worker/pod",
		Findings: []serval.Finding{{Causes: []serval.Cause{serval.CauseTagSessionTrust}, Text: "The trust policy of the role does not allow sts:TagSession to the worker.",
			Target: "arn:aws:iam::" + prod + ":role/serval-ingestion", Code: "AccessDenied"}},
	}})
	ada.json("POST", "/api/v1/access-policies", wire.NewAccessPolicy{AccessPolicy: serval.AccessPolicy{
		Name: "on-call", Roles: serval.RoleMatch{ARNs: []string{"arn:aws:iam::*:role/people/*-oncall"}}, Eligible: serval.People{Groups: []string{"on-call"}},
		Approval: serval.Approval{Automatic: true}, MaxMinutes: 240,
	}}, 201, nil)
	w.undelivered(pending.ID)
	ada.json("POST", "/api/v1/accounts", wire.NewAccount{
		ID: "777788889999", Name: "data", RoleARN: "arn:aws:iam::777788889999:role/serval-ingestion", WorkflowRoleARN: "arn:aws:iam::777788889999:role/serval-workflows",
	}, 201, nil)
	var creates wire.Run
	ada.json("POST", "/api/v1/workflows/create-role/runs", wire.StartRun{AccountID: "777788889999", Role: &wire.NewRole{
		Name: "warehouse-reader", Description: "Reads the warehouse", PermissionsBoundary: "arn:aws:iam::777788889999:policy/boundary",
		Policy: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"redshift-data:GetStatementResult","Resource":"*"}]}`,
	}}, 202, &creates)
	client, _ := ana.clientOf()
	client.json("GET", "/api/v1/me", nil, 200, nil)

	list := []picture{
		{name: "signin", path: "/"},
		{name: "signin-first", path: "/requests"},
		{name: "roles", who: "ana", path: "/roles"},
		{name: "roles-none-fit", who: "ana", path: "/roles?q=nothing+fits"},
		{name: "roles-none", who: "cy", path: "/roles"},
		{name: "roles-none-admin", who: "ada", path: "/roles"},
		{name: "role", who: "ana", path: "/roles/" + prod + "/data-platform-admin"},
		{name: "role-running", who: "ana", path: "/roles/" + prod + "/dev-auto"},
		{name: "requests", who: "ana", path: "/requests"},
		{name: "requests-none", who: "cy", path: "/requests"},
		{name: "request-running", who: "ana", path: "/requests/" + running.ID},
		{name: "request-ready", who: "ana", path: "/requests/" + ready.ID},
		{name: "request-pending", who: "ana", path: "/requests/" + pending.ID},
		{name: "request-denied", who: "ana", path: "/requests/" + denied.ID},
		{name: "request-to-decide", who: "ben", path: "/requests/" + pending.ID},
		{name: "approvals", who: "ben", path: "/approvals"},
		{name: "approvals-decided", who: "ben", path: "/approvals?decided=" + ready.ID},
		{name: "approvals-none", who: "cy", path: "/approvals"},
		{name: "credentials", who: "ana", path: "/sessions", form: url.Values{"request_id": {ready.ID}, "no_chaining": {"1"}}},
		{name: "ask-several", who: "ana", path: "/requests/new?role_arn=" + w.arn("payments-readonly") + "&role_arn=" + w.arn("support-impersonate")},
		{name: "accounts", who: "ada", path: "/accounts"},
		{name: "account", who: "ada", path: "/accounts/" + prod},
		{name: "connect", who: "ada", path: "/accounts/connect"},
		{name: "check", who: "ada", path: "/runs/" + check.ID},
		{name: "run-waiting", who: "ada", path: "/runs/" + creates.ID},
		{name: "policies", who: "ada", path: "/policies"},
		{name: "policy", who: "ada", path: "/policies/support"},
		{name: "policy-new", who: "ada", path: "/policies/new"},
		{name: "explain", who: "ada", path: "/policies/explain?email=ana@example.com&role_arn=" + w.arn("billing-export")},
		{name: "findings", who: "aud", path: "/findings"},
		{name: "report", who: "aud", path: "/reports/access"},
		{name: "notices", who: "ada", path: "/notices"},
		{name: "audit", who: "aud", path: "/audit"},
		{name: "audit-of-a-request", who: "aud", path: "/audit?target=" + running.ID},
		{name: "logins", who: "ana", path: "/logins"},
		{name: "client", who: "ana", path: "/client/authorize?" + clientQuery().Encode()},
		{name: "error", who: "ana", path: "/requests/req_none"},
		{name: "error-not-allowed", who: "ana", path: "/audit"},
	}
	return list
}

// undelivered leaves a notice of a request that reached nobody, and one that will
// be tried again.
func (w *world) undelivered(request string) {
	w.t.Helper()
	now := w.clock.now()
	notice := serval.Notice{
		ID: "notice_gaveup", Kind: serval.RequestCreate, Purpose: serval.ToDecide, RequestID: request, Channel: "slack", To: serval.People{Groups: []string{"sre-leads"}},
		CreatedAt: now.Add(-26 * time.Hour), State: serval.NoticeFailed, Attempts: 22, EndedAt: now.Add(-time.Hour), Error: "Slack answered channel_not_found",
	}
	waiting := notice
	waiting.ID, waiting.State, waiting.Attempts, waiting.EndedAt, waiting.NextAt = "notice_waits", serval.NoticePending, 3, time.Time{}, now.Add(time.Minute)
	if err := w.store.Write(w.t.Context(), now, func(tx *store.Tx) error {
		return errors.Join(tx.CreateNotice(notice), tx.CreateNotice(waiting))
	}); err != nil {
		w.t.Fatal(err)
	}
}

// arn returns the ARN of a role of the estate.
func (w *world) arn(name string) string { return "arn:aws:iam::" + prod + ":role/people/" + name }

// estate is an inventory as a company has it.
func (w *world) estate(generation int64) serval.Inventory {
	inv := w.inventory(generation)
	inv.Roles[0].Description, inv.Roles[1].Description = "Administers the development estate", "Deploys to the development estate"
	read := serval.ManagedPolicies{Status: serval.ListRead}
	inv.Roles[0].ManagedPolicies = read
	inv.Roles[0].InlinePolicies.Policies = []serval.InlinePolicy{{Name: "databases", Document: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["rds:*","secretsmanager:RotateSecret","secretsmanager:GetSecretValue"],"Resource":"*"}]}`}}
	for _, r := range []struct{ name, description, team string }{
		{"billing-export", "Reads invoices and cost reports", "finance"},
		{"data-platform-admin", "Administers the warehouse and its pipelines", "data"},
		{"ledger-writer", "Corrects bookings in the ledger", "finance"},
		{"payments-oncall", "Everything that whoever is on call for payments may need at night", "payments"},
		{"payments-readonly", "Reads queues, logs and tables of payments", "payments"},
		{"support-impersonate", "Looks at a customer's data as the customer does", "support"},
	} {
		role := inv.Roles[0]
		role.Name, role.Description = r.name, r.description
		role.ARN, role.RoleID = w.arn(r.name), w.putRole(r.name)
		role.Tags = map[string]string{"serval": "", "team": r.team, "env": "production"}
		role.InlinePolicies.Policies = []serval.InlinePolicy{{Name: "queue", Document: `{"Version":"2012-10-17","Statement":[{"Sid":"Queues","Effect":"Allow","Action":["sqs:ReceiveMessage","sqs:GetQueue*","s3:*"],"Resource":"arn:aws:sqs:eu-central-1:111122223333:payments-*"},{"Effect":"Deny","Action":"iam:*","Resource":"*"}]}`}}
		inv.Roles = append(inv.Roles, role)
	}
	inv.Normalize()
	return inv
}

// finish has a worker do the one task there is, and say what came of it.
func (w *world) finish(result serval.RunResult) {
	w.t.Helper()
	worker := w.worker(hubToken)
	var tasks wire.Tasks
	worker.json("GET", "/api/v1/upstream/tasks", nil, 200, &tasks)
	if len(tasks.Tasks) != 1 {
		w.t.Fatalf("%d tasks, want one", len(tasks.Tasks))
	}
	id := tasks.Tasks[0].ID
	var claimed wire.ClaimedTask
	worker.json("POST", "/api/v1/upstream/tasks/"+id+"/claim", wire.ClaimTask{Worker: "w1"}, 200, &claimed)
	worker.json("POST", "/api/v1/upstream/tasks/"+id+"/result", wire.TaskResult{Worker: "w1", Attempt: claimed.Attempt, Result: result}, 200, nil)
}

// look opens a picture's page in a tab.
func (b *tab) look(p picture) {
	b.t.Helper()
	if p.form == nil {
		b.open(p.path)
		return
	}
	b.open("/logins")
	var fields strings.Builder
	for name, values := range p.form {
		fmt.Fprintf(&fields, `const i%[1]s = document.createElement("input"); i%[1]s.name = %[1]q; i%[1]s.value = %[2]q; f.append(i%[1]s);`, name, values[0])
	}
	b.follow(func() error {
		_, err := b.page.Eval(fmt.Sprintf(`() => { const f = document.createElement("form"); f.method = "post"; f.action = %q; %s document.body.append(f); f.submit(); }`, p.path, fields.String()))
		return err
	})
}

// small returns the upper part of a picture in at most 48 colours, which is a
// third of its size.
func small(t testing.TB, text []byte) []byte {
	t.Helper()
	picture, err := png.Decode(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	count := map[color.RGBA]int{}
	const mostHeight = 1500 // of what is shown; the rest of a long list is more of the same
	bounds := picture.Bounds()
	bounds.Max.Y = min(bounds.Max.Y, bounds.Min.Y+mostHeight)
	rgba := image.NewRGBA(bounds)
	draw.Draw(rgba, rgba.Bounds(), picture, picture.Bounds().Min, draw.Src)
	for i := 0; i < len(rgba.Pix); i += 4 {
		count[color.RGBA{rgba.Pix[i], rgba.Pix[i+1], rgba.Pix[i+2], 255}]++
	}
	var colours []color.RGBA
	for c := range count {
		colours = append(colours, c)
	}
	slices.SortFunc(colours, func(a, b color.RGBA) int {
		return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a.R, b.R), cmp.Compare(a.G, b.G), cmp.Compare(a.B, b.B))
	})
	var palette color.Palette
	for _, c := range colours[:min(48, len(colours))] {
		palette = append(palette, c)
	}
	nearest := map[color.RGBA]uint8{}
	out := image.NewPaletted(rgba.Bounds(), palette)
	for i := range out.Pix {
		c := color.RGBA{rgba.Pix[4*i], rgba.Pix[4*i+1], rgba.Pix[4*i+2], 255}
		n, known := nearest[c]
		if !known {
			n = uint8(palette.Index(c))
			nearest[c] = n
		}
		out.Pix[i] = n
	}
	var b bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, out); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestScreenshots renews the pictures of every page, where it is asked to.
func TestScreenshots(t *testing.T) {
	if *screenshots == "" {
		t.Skip("it is for make screenshots")
	}
	w := newWorld(t)
	pictures := w.gallery()
	only := os.Getenv("ONLY")
	screens := []screen{desktop, phone, desktop.inTheDark(), phone.inTheDark()}
	if only != "" {
		screens = []screen{desktop, phone.inTheDark()}
	}
	for _, on := range screens {
		tabs := map[string]*tab{}
		for _, p := range pictures {
			if only != "" && !strings.Contains(p.name, only) {
				continue
			}
			if tabs[p.who] == nil {
				tabs[p.who] = w.tab(on)
				if p.who != "" {
					tabs[p.who].enter(w.as(p.who))
				}
			}
			tabs[p.who].look(p)
			if p.form != nil { // what is given once is in no picture either
				tabs[p.who].eval(`() => { for (const e of document.querySelectorAll("[data-once]")) e.textContent = e.textContent.replace(/[A-Za-z0-9+/=]{16,}/g, (t) => t.slice(0, 4) + "…"); return ""; }`)
			}
			name := p.name + "-" + on.name
			if on.dark {
				name += "-dark"
			}
			if err := os.WriteFile(filepath.Join(*screenshots, name+".png"), small(t, tabs[p.who].shoot()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// putRole makes a role that the people of the identity provider may use, once, and
// returns its id.
func (w *world) putRole(name string) string {
	if id := w.aws.RoleID(name); id != "" {
		return id
	}
	w.aws.PutRole(awstest.Role{Name: name, Path: "/people/", MaxSessionDuration: 14400, Tags: map[string]string{"serval": ""}, Trust: w.trust})
	return w.aws.RoleID(name)
}
