package web_test

import (
	"encoding/json"
	"html"
	"net/http"
	"strings"
	"testing"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// What admins and scripts ask about a trust policy, in the form in which the
// catalogue answers.
func TestExplainTrust(t *testing.T) {
	w := newWorld(t)
	ada := w.as("ada")
	const context = `{"action":"sts:AssumeRoleWithWebIdentity","role_arn":"arn:aws:iam::111122223333:role/r","issuer":"https://x.example","audience":"b",
		"azp":null,"subject":"s","passes_tags":false,"transitive_tags":false,"source_identity":null,"source_ip":"203.0.113.7"}`
	const policy = `{"version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"Federated":"arn:aws:iam::111122223333:oidc-provider/x.example"},
		"Action":["sts:AssumeRoleWithWebIdentity"],"Condition":{"StringEquals":{"x.example:aud":"a"}}}}`
	ask := func(policy, context string) wire.TrustAnswer {
		t.Helper()
		var answer wire.TrustAnswer
		ada.json("POST", "/api/v1/explain/trust", `{"policy":`+policy+`,"context":`+context+`}`, 200, &answer)
		return answer
	}
	text, err := json.Marshal(policy)
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range []string{policy, string(text)} { // as JSON, and as its text
		got := ask(form, context)
		if got.Verdict != "fails" || got.Mend == nil || got.Statement == "" || got.Condition == "" || len(got.NotChecked) == 0 ||
			len(got.Findings) == 0 || got.Findings[0].ID != "audience-other" {
			t.Fatalf("%.20s: %+v", form, got)
		}
		// The mend is a policy that works.
		if mended := ask(got.Mend.JSON, context); mended.Verdict != "works" || mended.Mend != nil {
			t.Errorf("mended: %+v", mended)
		}
	}
	for _, test := range []struct{ body, says string }{
		{`{"policy":` + policy + `}`, "Give a policy and a context"},
		{`{"policy":` + policy + `,"context":{"subjekt":"x"}}`, "subjekt"},
		{`{"policy":{"Statement":[{"Effect":"Perhaps"}]},"context":{}}`, "Effect"},
		{`{"policy":{"Statement":[],"Statement":[]},"context":{}}`, "Statement"},
		{`{"policy":1,"policy":2}`, "twice"},
		{`{"policies":1}`, "policies"},
		{`nonsense`, "JSON"},
	} {
		var e wire.Error
		ada.json("POST", "/api/v1/explain/trust", test.body, 400, &e)
		if e.Code != "invalid_argument" || !strings.Contains(e.Message, test.says) {
			t.Errorf("%s: %+v, want invalid_argument that says %s", test.body, e, test.says)
		}
	}
	var e wire.Error
	ada.json("POST", "/api/v1/explain/trust", `{"policy":"`+strings.Repeat("x", 1<<20)+`","context":{}}`, 413, &e)

	// The trust policies of the catalogue's own roles.
	w.push(w.inventory)
	var found wire.FindingsPage
	ada.json("GET", "/api/v1/findings?severity=medium&page_size=1", nil, 200, &found)
	if len(found.Roles) != 1 || len(found.Roles[0].Findings) == 0 || found.Roles[0].Findings[0].Severity != "medium" || found.NextPageToken == "" {
		t.Errorf("findings %+v, want one role's and a next page", found)
	}
	if _, page := ada.do("GET", "/findings", nil); !strings.Contains(page, found.Roles[0].Findings[0].Sentence[:20]) {
		t.Error("the page does not show what the API tells")
	}
}

// That a role's trust policy refuses somebody stands above what they would click, and before whoever approves it; what
// their token says is told to nobody else.
func TestRefusalIsSaidFirst(t *testing.T) {
	w := newWorld(t)
	w.push(w.inventory)
	ana, ben := w.as("ana"), w.as("ben")
	var sync wire.Sync
	w.worker(hubToken).json("POST", "/api/v1/upstream/accounts/"+prod+"/syncs", wire.OpenSync{Worker: "w1"}, http.StatusOK, &sync)
	var auto, asked wire.Request
	ana.json("POST", "/api/v1/requests", map[string]any{"role_arn": w.aws.RoleARN("dev-auto"), "minutes": 60}, http.StatusCreated, &auto)
	ana.json("POST", "/api/v1/requests", map[string]any{"role_arn": w.aws.RoleARN("dev-admin"), "minutes": 60, "justification": "x"}, http.StatusCreated, &asked)
	if auto.Trust != nil {
		t.Errorf("the answer to a write judges: %+v", auto.Trust)
	}
	for _, test := range []struct {
		name, trust string
		provider    serval.ListStatus // what is known of that of the account
		verdict     string
		begins      string // the sentence on the request's page
		because     string
	}{
		{"accepts", w.trust, "", "works", "", ""},
		{"refuses", strings.ReplaceAll(w.trust, clientID, "another-client"), "", "fails", "Statement 1 asks for ", `another-client", and it is "` + clientID + `".`},
		{"is not known", "", "", "unknown", "", ""},
		{"is not what refuses", w.trust, serval.ListAbsent, "fails", "The trust policy would accept you, but ", "account " + prod + " has no IAM OIDC provider"},
		{"accepts again", w.trust, "", "works", "", ""},
	} {
		w.push(func(generation int64) serval.Inventory {
			inv := w.inventory(generation)
			if test.provider != "" {
				inv.OIDCProvider = &serval.OIDCProvider{Issuer: sync.Issuer, ARN: serval.ProviderARN("aws", prod, sync.Issuer), Status: test.provider, ClientIDs: []string{}}
			}
			for i := range inv.Roles {
				inv.Roles[i].TrustPolicy = serval.Document(test.trust)
			}
			return inv
		})
		fails, because := test.verdict == "fails", test.because
		for _, r := range []wire.Request{auto, asked} {
			var own wire.Request
			ana.json("GET", "/api/v1/requests/"+r.ID, nil, http.StatusOK, &own)
			if own.Trust == nil || own.Trust.Verdict != test.verdict || fails && !strings.Contains(own.Trust.Reason, because) {
				t.Errorf("%s: to who asked %+v is said, want %s and why", test.name, own.Trust, test.verdict)
			}
			page := html.UnescapeString(ana.page("/requests/"+r.ID, http.StatusOK))
			said, button := strings.Index(page, "As things are now, AWS refuses you.</strong> "+test.begins), strings.Index(page, "<button>Start session")
			if strings.Contains(page, "AWS refuses you") != fails || fails && (said < 0 || !strings.Contains(page, because)) || button > 0 && button < said {
				t.Errorf("%s: the request's page says it at %d, and starts sessions at %d:\n%s", test.name, said, button, page)
			}
		}
		page := html.UnescapeString(ana.page("/roles/"+prod+"/dev-admin", http.StatusOK))
		if said := strings.Index(page, `id="trust"`); (said < 0) != (test.verdict == "works") || fails != (said > 0 && said < strings.Index(page, `id="ask"`)) {
			t.Errorf("%s: the role's page says it at %d:\n%s", test.name, said, page)
		}

		var inbox wire.Approvals
		var one wire.Request
		ben.json("GET", "/api/v1/approvals", nil, http.StatusOK, &inbox)
		ben.json("GET", "/api/v1/requests/"+asked.ID, nil, http.StatusOK, &one)
		for _, r := range append(inbox.Requests, one) {
			if r.Trust == nil || *r.Trust != (wire.Preflight{Verdict: test.verdict}) {
				t.Errorf("%s: to who approves %+v is said, want %s and not why", test.name, r.Trust, test.verdict)
			}
		}
		for _, path := range []string{"/approvals", "/requests/" + asked.ID} {
			page := html.UnescapeString(ben.page(path, http.StatusOK))
			if strings.Contains(page, "<dt>AWS</dt><dd><span class=\"mark bad\">Refuses them</span>") != fails || fails && strings.Contains(page, because) || strings.Contains(page, "<dt>Trust policy") {
				t.Errorf("%s: %s says it otherwise:\n%s", test.name, path, page)
			}
		}
	}
}

// What a role's trust policy asks for now is told of a request while whoever asked may come to use the role, as its page
// is shown to them, and not for as long as requests are kept.
func TestRefusalIsToldWhileItMatters(t *testing.T) {
	w := newWorld(t)
	w.trust = strings.ReplaceAll(w.trust, clientID, "another-client")
	w.push(w.inventory)
	ana := w.as("ana")
	var auto, asked wire.Request
	ana.json("POST", "/api/v1/requests", map[string]any{"role_arn": w.aws.RoleARN("dev-auto"), "minutes": 60}, http.StatusCreated, &auto)
	ana.json("POST", "/api/v1/requests", map[string]any{"role_arn": w.aws.RoleARN("dev-admin"), "minutes": 60, "justification": "x"}, http.StatusCreated, &asked)
	told := func(when, id string, want bool) {
		t.Helper()
		var own wire.Request
		ana.json("GET", "/api/v1/requests/"+id, nil, http.StatusOK, &own)
		page := ana.page("/requests/"+id, http.StatusOK)
		if own.Trust == nil || own.Trust.Verdict != "fails" || strings.Contains(own.Trust.Reason, "another-client") != want || !want && own.Trust.Reason != "" ||
			strings.Contains(page, "AWS refuses you") != want || strings.Contains(page, "another-client") != want {
			t.Errorf("%s: %+v is said, told why: %v; want %v:\n%s", when, own.Trust, strings.Contains(page, "another-client"), want, page)
		}
	}
	told("approved", auto.ID, true)
	told("waiting", asked.ID, true)
	w.change("ana@example.com", func(p *serval.Person) { p.Groups = nil })
	told("approved, and no longer eligible", auto.ID, false)
	w.change("ana@example.com", func(p *serval.Person) { p.Groups = []string{"engineering"} })
	told("eligible again", auto.ID, true)
	w.suspend("ana@example.com")
	told("approved, and suspended", auto.ID, false)
	told("waiting, and suspended", asked.ID, false)
	w.change("ana@example.com", func(p *serval.Person) { p.Suspended = "" })
	ana.json("POST", "/api/v1/requests/"+asked.ID+"/cancel", map[string]any{}, http.StatusOK, nil)
	told("withdrawn", asked.ID, false)
}
