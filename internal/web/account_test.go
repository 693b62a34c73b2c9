package web_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

const newcomer = "777788889999"

// An admin who begins without anything: the values to copy, the account, its
// texts, a change, and the end.
func TestAccountsOverTheAPI(t *testing.T) {
	w := newWorld(t)
	ada := w.as("ada")
	var list wire.Accounts
	ada.json("GET", "/api/v1/accounts?page_size=1", nil, 200, &list)
	if list.Connect.ExternalID != externalID || list.Connect.TrustedAccount != "992382851720" || list.NextPageToken == "" || len(list.Accounts) != 1 || list.Accounts[0].Connect != nil {
		t.Errorf("the list begins with %+v", list)
	}
	ada.json("GET", "/api/v1/accounts?page_size=1&page_token="+list.NextPageToken, nil, 200, &list)
	if len(list.Accounts) != 1 || list.Accounts[0].ID != dev || list.NextPageToken != "" {
		t.Errorf("the second page is %+v", list)
	}
	arn := "arn:aws:iam::" + newcomer + ":role/path/reader"
	for body, status := range map[string]int{
		`{"id":"` + newcomer + `","name":"new","role_arn":"` + arn + `","external_id":"mine"}`:       400, // S-23
		`{"id":"` + newcomer + `","name":"new"}`:                                                     400,
		`{"id":"` + newcomer + `","name":"new","role_arn":"` + arn + `","nope":1}`:                   400,
		`{"id":7,"name":"new","role_arn":"` + arn + `"}`:                                             400,
		`{"id":"` + newcomer + `","account_id":"` + dev + `","name":"new","role_arn":"` + arn + `"}`: 400,
		`{"id":"` + prod + `","name":"x","role_arn":"arn:aws:iam::` + prod + `:role/x"}`:             422,
		`[]`:   400,
		`{}{}`: 400,
	} {
		ada.json("POST", "/api/v1/accounts", body, status, nil)
	}
	var refused wire.Error
	ada.json("POST", "/api/v1/accounts", `{"id":"1","role_arn":"nope"}`, 400, &refused)
	if refused.Detail["id"] == "" || refused.Detail["name"] == "" || refused.Detail["role_arn"] != "invalid role ARN format" { // S-86
		t.Errorf("refused with %+v, want every fault", refused)
	}
	var made wire.Account
	ada.json("POST", "/api/v1/accounts", wire.NewAccount{
		ID: newcomer, Name: `Naïve "prod" ${x}`, RoleARN: arn, DefaultRegion: "eu-west-1", STS: serval.STS{Region: "eu-west-1"},
	}, 201, &made)
	if made.Source != "api" || made.ExternalID != externalID || made.Connect == nil || made.Connect.RoleName != "reader" || made.LastSyncAgeSeconds != nil {
		t.Errorf("made %+v", made)
	}
	for _, text := range []string{made.Connect.TrustPolicy, made.Connect.Terraform, made.Connect.CloudFormation} {
		if !strings.Contains(text, externalID) || !strings.Contains(text, "arn:aws:iam::992382851720:root") {
			t.Errorf("a text lacks the real values:\n%s", text)
		}
	}
	ada.json("POST", "/api/v1/accounts", wire.NewAccount{ID: newcomer, Name: "again", RoleARN: arn}, 409, nil)
	// By the dictionary's word for it.
	ada.json("DELETE", "/api/v1/accounts/"+newcomer, nil, 204, nil)
	ada.json("POST", "/api/v1/accounts", `{"account_id":"`+newcomer+`","name":"new","role_arn":"`+arn+`","default_region":"eu-west-1"}`, 201, &made)
	if made.ID != newcomer || made.AccountID != newcomer {
		t.Errorf("made %q, %q by account_id, want %s", made.ID, made.AccountID, newcomer)
	}
	made = wire.Account{}
	ada.json("PATCH", "/api/v1/accounts/"+newcomer, `{"name":"renamed","via":null,"sts":{"dial":"nlb.example.com:443"}}`, 200, &made)
	if made.Name != "renamed" || made.STS.Dial != "nlb.example.com:443" || made.STS.Region != "" || made.DefaultRegion != "eu-west-1" || !made.SyncRequested {
		t.Errorf("changed to %+v", made)
	}
	ada.json("PATCH", "/api/v1/accounts/"+newcomer, `{"external_id":"mine"}`, 400, nil)
	ada.json("PATCH", "/api/v1/accounts/"+newcomer, `{"id":"`+dev+`"}`, 400, nil)
	ada.json("PATCH", "/api/v1/accounts/000000000000", `{"name":"x"}`, 404, nil)
	ada.json("PATCH", "/api/v1/accounts/"+prod, `{"name":"x"}`, 422, &refused)
	if !strings.Contains(refused.Message, "/etc/serval/serval.yaml") {
		t.Errorf("%q does not name the file", refused.Message)
	}
	ada.json("DELETE", "/api/v1/accounts/"+newcomer, nil, 204, nil)
	ada.json("GET", "/api/v1/accounts/"+newcomer, nil, 404, nil)
	ada.json("DELETE", "/api/v1/accounts/"+newcomer, nil, 404, nil)
}

// A policy made over the API is in force with the next look at the catalogue,
// and gone with the next one after its end.
func TestPoliciesOverTheAPI(t *testing.T) {
	w := newWorld(t)
	w.push(w.inventory)
	ada, cy := w.as("ada"), w.as("cy")
	sees := func(want int) {
		t.Helper()
		var roles wire.Roles
		cy.json("GET", "/api/v1/roles", nil, 200, &roles)
		if len(roles.Roles) != want {
			t.Errorf("Cy sees %d roles, want %d", len(roles.Roles), want)
		}
	}
	sees(0)
	policy := madePolicy("for cy")
	policy.Roles.Tags = map[string]string{"team": "payments"}
	var made wire.AccessPolicy
	ada.json("POST", "/api/v1/access-policies", wire.NewAccessPolicy{AccessPolicy: policy}, 201, &made)
	if made.Priority != 100 || made.Source != "api" || made.Digest != policy.Digest() {
		t.Errorf("made %+v", made)
	}
	sees(2)
	ada.json("POST", "/api/v1/access-policies", wire.NewAccessPolicy{AccessPolicy: policy}, 409, nil)
	ada.json("POST", "/api/v1/access-policies", wire.NewAccessPolicy{AccessPolicy: madePolicy("engineers")}, 409, nil)
	priority := 7
	policy.Roles.Tags["Größe"] = "*" // the roles have no such tag
	ada.json("PUT", "/api/v1/access-policies/for%20cy", wire.NewAccessPolicy{AccessPolicy: policy, Priority: &priority}, 200, &made)
	if made.Priority != 7 || made.Roles.Tags["Größe"] != "*" {
		t.Errorf("changed to %+v", made)
	}
	sees(0)

	// An answer has all of a policy, and what it has makes the same one.
	_, text := ada.do("GET", "/api/v1/access-policies", nil)
	var whole struct {
		AccessPolicies []map[string]any `json:"access_policies"`
	}
	if err := json.Unmarshal([]byte(text), &whole); err != nil {
		t.Fatal(err)
	}
	again := whole.AccessPolicies[len(whole.AccessPolicies)-1]
	for _, field := range []string{"source", "digest", "created_at", "changed_at"} {
		delete(again, field)
	}
	if want := `{"allow_chaining":false,"allow_self_approval":false,"approval":{"automatic":true,"steps":[]},"break_glass":false,` +
		`"eligible":{"emails":["cy@example.com"],"groups":[]},"max_minutes":60,"max_total_minutes":0,"name":"for cy","priority":7,"recommended_minutes":0,` +
		`"require_justification":false,"roles":{"accounts":["` + prod + `"],"arns":[],"tags":{"Größe":"*","team":"payments"}},"suspend_on_escalation":false}`; asJSON(t, again) != want {
		t.Errorf("the policy is\n%s, want\n%s", asJSON(t, again), want)
	}
	ada.json("PUT", "/api/v1/access-policies/for%20cy", asJSON(t, again), 200, &made)
	if made.Digest != policy.Digest() {
		t.Errorf("what was answered makes another policy: %+v", made)
	}
	ada.json("PUT", "/api/v1/access-policies/nothing", wire.NewAccessPolicy{AccessPolicy: madePolicy("nothing")}, 404, nil)
	for _, body := range []string{
		`{"roles":{"arns":["*"]},"eligible":{"groups":["x"]},"approval":{"automatic":true},"max_minutes":1,"nope":1}`,
		`{"roles":{"Arns":["*"]},"eligible":{"groups":["x"]},"approval":{"automatic":true},"max_minutes":1}`,
		`{"roles":{"tags":{"a":"b","a":"c"}},"eligible":{"groups":["x"]},"approval":{"automatic":true},"max_minutes":1}`,
		`{"roles":{"tags":{"a":{"B":"c"}}},"eligible":{"groups":["x"]},"approval":{"automatic":true},"max_minutes":1}`,
	} {
		ada.json("PUT", "/api/v1/access-policies/for%20cy", body, 400, nil)
	}
	var refused wire.Error
	ada.json("POST", "/api/v1/access-policies", `{"name":"a/b","max_minutes":0}`, 400, &refused)
	for _, field := range []string{"name", "roles", "eligible", "approval", "max_minutes"} {
		if refused.Detail[field] == "" {
			t.Errorf("refused with %+v, want a fault of %s", refused, field)
		}
	}
	ada.json("DELETE", "/api/v1/access-policies/for%20cy", nil, 204, nil)
	ada.json("DELETE", "/api/v1/access-policies/for%20cy", nil, 404, nil)
	var all wire.AccessPolicies
	ada.json("GET", "/api/v1/access-policies", nil, 200, &all)
	if len(all.AccessPolicies) != len(policies()) {
		t.Errorf("%d policies, want %d", len(all.AccessPolicies), len(policies()))
	}
}

// Who the configuration names as admin and who is suspended has no say: somebody
// else may have their mailbox.
func TestSuspendedAdminsAreNone(t *testing.T) {
	w := newWorld(t)
	ada := w.as("ada")
	ada.json("GET", "/api/v1/accounts", nil, 200, nil)
	w.suspend("ada@example.com")
	for _, r := range w.edge.Routes() {
		if !strings.HasPrefix(r.Pattern, "/api/v1/acc") { // accounts, access policies and their explanation
			continue
		}
		path := strings.NewReplacer("{id}", prod, "{name}", "engineers").Replace(r.Pattern)
		var body any
		switch r.Method + " " + r.Pattern {
		case "POST /api/v1/accounts":
			body = wire.NewAccount{ID: newcomer, Name: "new", RoleARN: "arn:aws:iam::" + newcomer + ":role/x"}
		case "PATCH /api/v1/accounts/{id}":
			body = json.RawMessage(`{"name":"other"}`)
		case "POST /api/v1/access-policies", "PUT /api/v1/access-policies/{name}":
			body = wire.NewAccessPolicy{AccessPolicy: madePolicy("engineers")}
		case "GET /api/v1/access/explain":
			path += "?email=ana@example.com&role_arn=" + url.QueryEscape(w.aws.RoleARN("dev-auto"))
		}
		if res, text := ada.do(r.Method, path, body); res.StatusCode != 403 {
			t.Errorf("%s %s answered %d, want 403: %s", r.Method, r.Pattern, res.StatusCode, text)
		}
	}
}

// A worker says with its poll which AWS account it runs in.
func TestWorkerSaysWhoItIs(t *testing.T) {
	w := newWorld(t)
	at := "/api/v1/upstream/accounts?identity="
	w.worker(hubToken).json("GET", at+url.QueryEscape("arn:aws:sts::999988887777:assumed-role/serval-worker/pod"), nil, 200, nil)
	for _, arn := range []string{"x", "arn:aws:iam::999988887777:role/x"} {
		w.worker(hubToken).json("GET", at+url.QueryEscape(arn), nil, 400, nil)
	}
	w.browser().json("GET", at+"x", nil, 401, nil)
	w.as("ada").json("GET", at+"x", nil, 401, nil)
	var events wire.Events
	w.as("aud").json("GET", "/api/v1/audit?action=worker.identify&target=hub", nil, 200, &events)
	var told []string
	for _, e := range events.Events {
		told = append(told, fmt.Sprint(e.Outcome, " ", e.Detail["account_id"]))
	}
	if got := strings.Join(told, ", "); got != "refused , refused , done 999988887777" {
		t.Errorf("recorded %q", got)
	}
}

// Whatever comes as a policy is refused or kept as it was meant. T-1
func FuzzNewPolicy(f *testing.F) {
	w := newWorld(f)
	ada := w.as("ada")
	f.Add(`{"name":"p","roles":{"tags":{"Team":"x"}},"eligible":{"groups":["g"]},"approval":{"automatic":true},"max_minutes":60}`)
	f.Add(`{"name":"p","roles":{"arns":["*"]},"eligible":{"emails":["a@example.com"]},"approval":{"steps":[{"groups":["g"]}]},"max_minutes":60,"priority":-1}`)
	f.Add(`{"tags":{"tags":{"Tags":[]}}}`)
	f.Fuzz(func(t *testing.T, body string) {
		w.t = t
		res, text := ada.do("POST", "/api/v1/access-policies", strings.NewReader(body))
		switch res.StatusCode {
		case 400, 409, 413, 422:
		case 201:
			var made serval.AccessPolicy
			if err := json.Unmarshal([]byte(text), &made); err != nil || len(made.Faults()) > 0 {
				t.Errorf("made %s, %v", text, err)
			}
			ada.do("DELETE", "/api/v1/access-policies/"+url.PathEscape(made.Name), nil)
		default:
			t.Errorf("answered %d: %s", res.StatusCode, text)
		}
	})
}
