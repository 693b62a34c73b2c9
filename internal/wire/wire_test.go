package wire

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with testdata/name, which changes only on purpose: by go
// test -update.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s is not what it was (-want +got):\n%s", file, diff)
	}
}

func pretty(t *testing.T, v any) []byte {
	t.Helper()
	text, err := encode(v)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, text, "", "  "); err != nil {
		t.Fatal(err)
	}
	b.WriteByte('\n')
	return b.Bytes()
}

var t0 = time.Date(2026, 1, 5, 9, 0, 0, 0, time.UTC)

func at(minutes int) Time { return Time{t0.Add(time.Duration(minutes) * time.Minute)} }

const (
	roleARN = "arn:aws:iam::111122223333:role/dev"
	bo      = "bo@example.com"
)

// shapes holds one of every body, filled in.
func shapes() map[string]any {
	newRole := serval.NewRole{Name: "dev", Description: "For developers", MaxSessionSeconds: 7200, PermissionsBoundary: "arn:aws:iam::111122223333:policy/b",
		Policy: `{"Statement":[]}`, Issuer: "https://login.example.com", ClientID: "serval"}
	findings := []Finding{{[]serval.Cause{serval.CauseActionsDenied}, "Denied.", roleARN, []string{"iam:GetRole"}, "AccessDenied", []Paste{{"Policy", "json", "{}"}}}}
	text := func(s string) *string { return &s }
	age, priority := 60, 100
	connect := Connect{"999988887777", "x", "x", "serval-ingestion", "{}", "{}", "x", "x"}
	account := Account{
		ID: "111122223333", AccountID: "111122223333", Name: "prod", Partition: "aws", RoleARN: "arn:aws:iam::111122223333:role/serval-ingestion", ExternalID: "x",
		Via: []serval.Hop{{RoleARN: roleARN, ExternalID: "y"}}, DefaultRegion: "eu-central-1",
		STS:             serval.STS{Region: "us-west-1", Endpoint: "https://sts.us-west-1.amazonaws.com", Dial: "nlb:443", HTTPProxy: "http://proxy:3128"},
		WorkflowRoleARN: "arn:aws:iam::111122223333:role/w", Source: "file", CreatedAt: at(0),
		Roles: 3, Generation: 7, Complete: true, LastSyncAt: at(0), LastPushAt: at(1), LastSyncAgeSeconds: &age, SyncRequested: true, ReadingUntil: at(30),
		ReadBy: "roles", Problems: []any{}, Unreadable: []any{}, NearMisses: []any{}, Held: 1, Stale: 2, Connect: &connect,
		OIDCProvider: map[string]any{"issuer": "https://acme.okta.com", "arn": "x", "status": "read", "client_ids": []any{"0oa1"}}, Lack: &Lack{"a", "b", "c"},
		LastCheck: &LastCheck{"run_1", at(2), serval.CheckConnection, true, serval.TextConnected},
	}
	policy := serval.AccessPolicy{
		Name:     "p",
		Roles:    serval.RoleMatch{Accounts: []string{"111122223333"}, ARNs: []string{"*"}, Tags: map[string]string{"Team": "payments"}},
		Eligible: serval.People{Groups: []string{"engineering"}, Emails: []string{"ana@example.com"}},
		Approval: serval.Approval{Automatic: true, Steps: []serval.People{{Groups: []string{"leads"}, Emails: []string{bo}}}},

		MaxMinutes: 60, MaxTotalMinutes: 180, RecommendedMinutes: 30, RequireJustification: true, AllowSelfApproval: true, BreakGlass: true, AllowChaining: true, SuspendOnEscalation: true,
	}
	mark := Mark{"privilege_escalation", "iam-005", "write itself an inline policy", "https://pathfinding.cloud/paths/iam-005",
		Statement{"deploy", 2, "Roles"}, []string{"iam:PutRolePolicy"}, 3, []string{"*"}, true, true}
	reach := []ServiceReach{{"iam", "IAM", []Reach{{"permissions", 1, 1, 20}}}}
	insight := Insight{"It can change IAM.", []string{"It can change 1 service."}, []Mark{mark}, reach, []string{"not all"}, "a boundary", []string{"s3:getobjekt"}, "2026-09-26"}
	gained := ChangedActions{1, 1, []string{"iam:PutRolePolicy"}, reach}
	text2 := []ChangedText{{"added", "deploy", "{}"}}
	change := Change{[]string{"It gains 1 action."}, true, gained, gained, []Mark{mark}, []Mark{mark}, []ChangedPolicy{{"changed", "deploy", "from v1 to v2"}}, text2, text2,
		[]ChangedFact{{"tag team", "a", "b"}}, []string{"not all"}}
	version := RoleVersion{2, at(3), true, &change}
	request := Request{
		ID: "r1", BatchID: text("b1"), Person: Person{"ana@example.com"}, RoleARN: roleARN, AccountID: "111122223333",
		Status: "expired", EndedBy: text("time"), Minutes: 60, ClockStartedAt: at(5), EndsAt: at(65), Policy: "dev",
		Steps:         []Step{{People{[]string{"leads"}, []string{"cy@example.com"}}, text(bo), text("approve"), at(2)}},
		Justification: "a <b> reason", Ticket: "T-1", CreatedAt: at(0), StartAt: at(1), ExpiresAt: at(10080), EndedAt: at(65),
		Allocations: []Allocation{{60, "active", "a <b> reason", at(0), text(bo), at(2), at(3), "fine", true}}, MayDecide: true, MayBreakGlass: true,
		AccountName: "prod", RoleName: "dev", PolicyDigest: "d1", Suspended: "it is gone", BreakGlass: true,
		Notices: []Notice{{"request.break_glass", "mail", People{[]string{"leads"}, []string{bo}}, at(1), "failed", 3, at(4), "refused"}},
		Insight: &insight, SinceApproval: &change,
		ToDecide: &ToDecide{"It can change IAM.", []string{"privilege_escalation"}, []string{"It can change 1 service."}, true, "a boundary",
			&Since{at(1), true, true, []string{"It gains 1 action."}, 2, true}, Earlier{20, true, 3, at(1)}},
		Trust: &Preflight{"fails", "x"}, Live: &Live{[]LiveSession{{"s1", "console", "ana@example.com", "AROA1:ana@example.com", at(5), at(65)}}, "{}", true},
	}
	role := Role{
		ARN: roleARN, RoleID: "AROA1", AccountID: "111122223333", AccountName: "prod", Name: "dev", Description: "for developers",
		MaxSessionSeconds: 3600, Tags: map[string]string{"serval": ""}, Policy: "dev", Trust: Trust{"fails", "refuses you", "statement 1", "StringEquals x:aud", []string{"resource control policies"}, &Mend{"{}", "x"}, &Lack{"account 1 has none.", "aws iam", "resource"}},
		Completeness: "incomplete", StaleSince: at(1), StaleReason: "iam:GetRole answered AccessDenied", Held: true, MyRequest: &request,
		Entitlement: Entitlement{"Assume Role", "Ability to assume this AWS IAM role"}, MaxMinutes: 120, RecommendedMinutes: 60,
		RequireJustification: true, BreakGlass: true, Blocked: "a finding", Approval: Approval{true, []People{{[]string{"leads"}, []string{bo}}}},
		Marks: []string{"privilege_escalation"}, MarksAtLeast: true, LastUsedAt: at(4), Insight: &insight,
		Documents: &Documents{json.RawMessage(`{"Version":"2012-10-17"}`), "arn:aws:iam::aws:policy/B", []any{}, []any{},
			map[string]any{"status": "read"}},
	}
	identity := Identity{"p1", "ana@example.com", "anna@example.com", "https://acme.okta.com", "00u1", []string{"leads"}, at(0), "none came", "because", at(0)}
	session := Session{"s1", "r1", "console", "issued", roleARN, "ana@example.com", "ASIA", "AROA1:ana@example.com", at(5), at(65), at(65), "no"}
	return map[string]any{
		"error":            Error{"conflict", "Another worker has it.", map[string]string{"until": "2026-01-05T09:10:00Z"}},
		"me":               Me{"p1", "ana@example.com", []string{"leads"}, at(0), true, true, "l1", at(480), at(60), "because", "none came"},
		"roles":            Roles{[]Role{role}, "next"},
		"role-versions":    RoleVersions{[]RoleVersion{version}},
		"role-change":      RoleChange{version, version, change},
		"new-request":      NewRequest{"", []string{roleARN, "b"}, 60, "a reason", "T-1", at(60), true},
		"batch":            Batch{"b1", []Request{request}},
		"requests":         Requests{[]Request{request}, "next"},
		"decision":         Decision{"approve", 30, "fine", new(2)},
		"extension":        Extension{30, "more"},
		"shortening":       Shortening{30, at(30)},
		"revocation":       Revocation{"it is over"},
		"identities":       Identities{[]Identity{identity}, "next"},
		"relinking":        Relinking{true, "she married"},
		"relinked":         Relinked{identity, []Identity{identity}, []string{"r1"}, []string{"r2"}},
		"new-session":      NewSession{"r1", &Narrow{true, true, "office"}},
		"credentials":      Credentials{1, "ASIA", "secret", "token", at(65), "s1", roleARN, "ana@example.com", at(65), "/requests/r1/console", at(45), "an hour at most"},
		"new-console-link": NewConsoleLink{"r1", &Narrow{true, true, "office"}, "ec2", "eu-central-1"},
		"console-link":     ConsoleLink{"/console/x", at(1)},
		"sessions":         Sessions{[]Session{session}, "next"},
		"logins":           Logins{[]Login{{"l1", "browser", at(0), at(1), at(480), "192.0.2.1", "a browser", true}}, "bmV4dA"},
		"events": Events{[]Event{{7, at(0), "person", "ana@example.com", "p1", "request.create", "r1", "refused", "no", "h1", "192.0.2.1",
			map[string]string{"minutes": "500"}, "0a0b0c0d", "ff"}}, "next", Head{7, "ff"}},
		"accounts": Accounts{[]Account{account}, "MTEx", connect},
		"account":  account,
		"new-account": NewAccount{"111122223333", "111122223333", "prod", "arn:aws:iam::111122223333:role/serval-ingestion", "aws", account.Via, "eu-central-1",
			account.STS, "arn:aws:iam::111122223333:role/w", "x"},
		"account-change": AccountChange{&account.Name, &account.RoleARN, &account.Via, &account.DefaultRegion, &account.STS, &account.WorkflowRoleARN, &account.ExternalID},
		"access-policies": AccessPolicies{[]AccessPolicy{{"p", RoleMatch{[]string{"111122223333"}, []string{"*"}, map[string]string{"Team": "payments"}},
			People{[]string{"engineering"}, []string{"ana@example.com"}}, Approval{true, []People{{[]string{"leads"}, []string{bo}}}},
			60, 180, 30, true, true, true, true, true, 100, "api", "abc", at(0), at(1)}}, "cA"},
		"new-access-policy": NewAccessPolicy{policy, &priority},
		"explanation": Explanation{true, "Access policy p decides.", ExplainedPerson{"ana@example.com", true, 1, "x", []string{"engineering"}, at(0), true, "x"},
			ExplainedRole{roleARN, "111122223333", true, "stale", "x", at(0)},
			[]ExplainedPolicy{{"p", true, true, "tag", "It is the first that matches role and person, and decides.", 60, Approval{true, []People{{[]string{"g"}, []string{"a@example.com"}}}}}},
			&Trust{"works", "x", "1", "x", []string{"x"}, &Mend{"{}", "x"}, &Lack{"x", "x", "x"}}, "x"},
		"export-end": ExportEnd{Head{7, "ff"}},
		"access-report": AccessReport{at(0), at(1), at(1), []RoleAccess{{roleARN, "AROAREADER", "111122223333", "prod", at(0),
			[]Could{{"p", []string{"ana@example.com"}}},
			[]Had{{"req_1", "ana@example.com", "p", "ab", []string{"lea@example.com"}, at(0), at(1), "expired", text("time"), 2}}, true}}, "bmV4dA"},
		"worker-accounts": WorkerAccounts{"v1", []WorkerAccount{{"111122223333", "prod", "aws", "arn:aws:iam::111122223333:role/serval-ingestion", "x",
			[]serval.Hop{{RoleARN: roleARN, ExternalID: "y"}}, "eu-central-1",
			serval.STS{Region: "us-west-1", Endpoint: "https://sts.us-west-1.amazonaws.com", Dial: "nlb:443", HTTPProxy: "http://proxy:3128"},
			"arn:aws:iam::111122223333:role/w", 7, at(0), true}}},
		"open-sync": OpenSync{"hub", serval.SyncDelta},
		"sync":      Sync{8, at(20), at(0), []serval.KnownRole{{RoleID: "AROA1", ARN: roleARN, Digest: "0a", Shown: "0b"}}, true, "https://acme.okta.com"},
		"push":      Push{8, true, 1, 2, 3, 4, 5},

		"start-check":  StartCheck{serval.CheckOrganization},
		"start-run":    StartRun{"111122223333", &NewRole{"dev", "For developers", 7200, "arn:aws:iam::111122223333:policy/b", `{"Statement":[]}`}},
		"run-decision": RunDecision{"deny", "not now"},
		"run": Run{"run_1", serval.WorkflowCreateRole, "Create AWS IAM Role", "111122223333", serval.RunDone, Person{"ana@example.com"}, at(0), at(9),
			&newRole, "{}", &RunDecided{Person{"ben@example.com"}, "approve", at(1), "fine"},
			&Check{serval.CheckConnection, "111122223333", at(2), true, serval.TextConnected, findings, "arn:aws:sts::999988887777:assumed-role/worker/w"},
			&CreatedRole{serval.CreatedRole{ARN: roleARN, RoleID: "AROA1", Tagged: true, Found: true}, "The role is created."},
			&serval.SyncResult{Generation: 7, Complete: true, Roles: 3},
			[]FoundAccount{{serval.OrganizationAccount{ID: "222233334444", Name: "dev", Status: "ACTIVE"}, true, &ConnectedValues{"222233334444", "dev", roleARN, "x", "resource"}}},
			findings, "no"},
		"tasks":      Tasks{"v1", []Task{{"task_1", serval.TaskCheck, "111122223333"}}},
		"claim-task": ClaimTask{"hub"},
		"claimed-task": ClaimedTask{Task{"task_1", serval.TaskCreateRole, "111122223333"}, "run_1", 2, at(5),
			WorkerAccount{"111122223333", "prod", "aws", roleARN, "x", []serval.Hop{{RoleARN: roleARN, ExternalID: "y"}}, "eu-central-1",
				serval.STS{Region: "r", Endpoint: "e", Dial: "d", HTTPProxy: "p"}, roleARN, 7, at(0), true}, &newRole},
		"task-result": TaskResult{"hub", 2, serval.RunResult{
			Check: &serval.Check{Name: serval.CheckOrganization, AccountID: "111122223333", At: at(2).Time, Passed: true, Text: serval.TextAccountsListed(1),
				Findings: []serval.Finding{{Causes: []serval.Cause{serval.CauseOther}, Text: "x", Target: roleARN, Actions: []string{"iam:GetRole"}, Code: "c"}},
				Identity: "i", Accounts: []serval.OrganizationAccount{{ID: "222233334444", Name: "dev", Status: "ACTIVE"}}},
			Role: &serval.CreatedRole{ARN: roleARN, RoleID: "AROA1", Tagged: true, Found: true}, Sync: &serval.SyncResult{Generation: 1, Complete: true, Roles: 1},
			Findings: []serval.Finding{{Causes: []serval.Cause{serval.CauseOther}, Text: "x", Target: roleARN, Actions: []string{"iam:TagRole"}, Code: "c"}}, Error: "no"}},
		"task-done": TaskDone{true},

		"sent-notices": SentNotices{[]SentNotice{{"n1", "request.create", "decide", "r1", "mail", People{[]string{"leads"}, []string{bo}}, at(1), "failed", 22, at(2), at(3), "no answer"}}, "p"},

		"new-client-token": NewClientToken{"authorization_code", "c", "http://127.0.0.1:1234/callback", "d", "v"},
		"client-token":     ClientToken{"t", "Bearer", 28800, at(480), "l1", "ana@example.com"},
		"new-device":       NewDevice{"serval 1.2", "ana-laptop", "c"},
		"device":           Device{"d", "BCDF-GHJK", "https://serval.example.com/device", 300, 5},
	}
}

// TestShapes shows every body, full and empty, and that it reads back the same.
func TestShapes(t *testing.T) {
	for name, v := range shapes() {
		full := pretty(t, v)
		none := pretty(t, reflect.Zero(reflect.TypeOf(v)).Interface())
		golden(t, name+".json", append(full, none...))

		back := reflect.New(reflect.TypeOf(v))
		if err := json.Unmarshal(full, back.Interface()); err != nil {
			t.Errorf("reading %s back: %v", name, err)
			continue
		}
		if diff := cmp.Diff(string(full), string(pretty(t, back.Interface()))); diff != "" {
			t.Errorf("%s does not come back as it was:\n%s", name, diff)
		}
		// Whoever adds a field fills it in here, so that the golden file has it.
		if field := unset(reflect.ValueOf(v), name); field != "" && field != "new-request.RoleARN" {
			t.Errorf("the test leaves %s empty", field)
		}
	}
}

// unset returns the name of a field of v that is zero.
func unset(v reflect.Value, name string) string {
	switch {
	case v.Type() == reflect.TypeFor[Time]() || v.Type() == reflect.TypeFor[time.Time]() || v.Type() == reflect.TypeFor[json.RawMessage]():
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			if field := unset(v.Field(i), name+"."+v.Type().Field(i).Name); field != "" {
				return field
			}
		}
		return ""
	case v.Kind() == reflect.Slice && v.Len() > 0:
		return unset(v.Index(0), name)
	case v.Kind() == reflect.Pointer && !v.IsNil():
		return unset(v.Elem(), name)
	}
	if v.IsZero() {
		return name
	}
	return ""
}

// TestContract holds the shapes against the field names that the contract
// fixes, in its order; ours may follow.
func TestContract(t *testing.T) {
	for name, c := range map[string]struct {
		v    any
		want string
	}{
		"error":       {Error{}, "code message detail"},
		"request":     {Request{}, "id batch_id person role_arn account_id status ended_by minutes clock_started_at ends_at policy steps justification ticket created_at"},
		"person":      {Person{}, "email"},
		"step":        {Step{}, "approvers decided_by outcome at"},
		"role":        {Role{}, "arn role_id account_id account_name name description max_session_seconds tags policy trust completeness stale_since held my_request"},
		"trust":       {Trust{}, "verdict reason"},
		"new request": {NewRequest{}, "role_arn role_arns minutes justification ticket start_at"},
		"batch":       {Batch{}, "batch_id requests"},
		"decision":    {Decision{}, "outcome minutes reason"},
		"extension":   {Extension{}, "minutes justification"},
		"revocation":  {Revocation{}, "reason"},
		"new session": {NewSession{}, "request_id narrow"},
		"narrow":      {Narrow{}, "read_only no_chaining network"},
		"credentials": {Credentials{}, "Version AccessKeyId SecretAccessKey SessionToken Expiration session_id role_arn session_name ends_at console_path"},
		"inventory":   {serval.Inventory{}, "schema account_id account_name generation started_at finished_at complete read_by roles unreadable near_misses problems"},
		"delta":       {serval.Delta{}, "schema account_id account_name generation started_at finished_at complete read_by roles removed unreadable near_misses problems"},
		"known role":  {serval.KnownRole{}, "role_id arn"},
		"inventory's role": {serval.Role{}, "arn role_id name path description created_at max_session_seconds tags trust_policy permissions_boundary " +
			"last_used_at inline_policies managed_policies"},
		"inline policies":  {serval.InlinePolicies{}, "status policies"},
		"inline policy":    {serval.InlinePolicy{}, "name document"},
		"managed policies": {serval.ManagedPolicies{}, "status action policies"},
		"managed policy":   {serval.ManagedPolicy{}, "arn name version document"},
		"unreadable":       {serval.Unreadable{}, "arn role_id action code"},
		"near miss":        {serval.NearMiss{}, "arn tag_key"},
		"problem":          {serval.Problem{}, "action target code message"},
		"removal":          {serval.Removal{}, "role_id arn reason"},
	} {
		typ := reflect.TypeOf(c.v)
		var got []string
		for i := range typ.NumField() {
			tag, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			got = append(got, tag)
		}
		rest := got
		for want := range strings.FieldsSeq(c.want) {
			i := 0
			for i < len(rest) && rest[i] != want {
				i++
			}
			if i == len(rest) {
				t.Errorf("%s has no field %q in its place: %v", name, want, got)
				break
			}
			rest = rest[i+1:]
		}
	}
	for _, page := range []any{Roles{}, Requests{}, Sessions{}, Events{}, Accounts{}, AccessPolicies{}} {
		if text, err := encode(page); err != nil || !strings.Contains(string(text), `"next_page_token":""`) {
			t.Errorf("%T: got %s, %v; want a page with next_page_token", page, text, err)
		}
	}
}

func TestTime(t *testing.T) {
	type box struct {
		T Time `json:"t"`
	}
	for _, c := range []struct {
		t    Time
		want string
	}{
		{Time{}, `{"t":null}`},
		{at(0), `{"t":"2026-01-05T09:00:00Z"}`},
		{Time{t0.Add(1500 * time.Millisecond)}, `{"t":"2026-01-05T09:00:01.5Z"}`},
		{Time{t0.In(time.FixedZone("far", 9*3600))}, `{"t":"2026-01-05T09:00:00Z"}`},
	} {
		got, err := encode(box{c.t})
		if err != nil || string(got) != c.want {
			t.Errorf("%s: got %s, %v; want %s", c.t, got, err, c.want)
		}
		back := box{at(99)}
		if err := json.Unmarshal(got, &back); err != nil || !back.T.Equal(c.t.Time) {
			t.Errorf("%s came back as %s, %v", c.want, back.T, err)
		}
	}
	for in, want := range map[string]time.Time{`{"t":"2026-01-05T18:00:00+09:00"}`: t0, `{}`: {}, `{"t":null}`: {}} {
		var b box
		if err := json.Unmarshal([]byte(in), &b); err != nil || !b.T.Equal(want) {
			t.Errorf("%s: got %s, %v; want %s", in, b.T, err, want)
		}
	}
	for _, in := range []string{`{"t":""}`, `{"t":"2026-01-05"}`, `{"t":1767603600}`, `{"t":"2026-01-05 09:00:00Z"}`, `{"t":"2026-13-05T09:00:00Z"}`} {
		var b box
		if err := json.Unmarshal([]byte(in), &b); err == nil {
			t.Errorf("%s: got %s, want it refused", in, b.T)
		}
	}
}

func TestCredentials_print(t *testing.T) { // S-5
	c := Credentials{SecretAccessKey: "canary", SessionToken: "canary"}
	for _, v := range []any{c, &c, struct{ C Credentials }{c}, []Credentials{c}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			if got := fmt.Sprintf(verb, v); strings.Contains(got, "canary") || strings.Contains(got, "63616e617279") || !strings.Contains(got, "[redacted]") {
				t.Errorf("%T under %s: %s", v, verb, got)
			}
		}
	}
}

func TestWorkerAccount(t *testing.T) {
	a := shapes()["worker-accounts"].(WorkerAccounts).Accounts[0]
	want := serval.Account{
		ID: "111122223333", Name: "prod", Partition: "aws", RoleARN: "arn:aws:iam::111122223333:role/serval-ingestion", ExternalID: "x",
		Via: []serval.Hop{{RoleARN: roleARN, ExternalID: "y"}}, DefaultRegion: "eu-central-1",
		STS:             serval.STS{Region: "us-west-1", Endpoint: "https://sts.us-west-1.amazonaws.com", Dial: "nlb:443", HTTPProxy: "http://proxy:3128"},
		WorkflowRoleARN: "arn:aws:iam::111122223333:role/w",
	}
	if diff := cmp.Diff(want, a.Account()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if field := unset(reflect.ValueOf(a.Account()), "account"); field != "" {
		t.Errorf("%s was lost", field)
	}
}
