package web_test

import (
	"encoding/json"
	"strings"
	"testing"

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
