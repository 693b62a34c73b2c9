package trust

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var mends = []struct {
	name   string
	policy string
	given  given
	want   string // what the mended JSON has, and the policy has not; "" where there is no mend
}{
	{"another audience", policy(when(`{"StringEquals": {"` + ourPrefix + `:aud": "0oaOLD"}}`)), web(), `"x.okta.com/oauth2/aus1:aud": "0oa1"`},
	{"audiences", policy(when(`{"StringEquals": {"` + ourPrefix + `:aud": ["a", "b"]}}`)), web(), `"0oa1"`},
	{"an audience by StringLike", policy(when(`{"StringLike": {"` + ourPrefix + `:aud": "1oa*"}}`)), web(), `:aud": "0oa1"`},
	{"the org server's provider", policy(statementOf("Allow", `"Principal": {"Federated": "arn:aws:iam::111122223333:oidc-provider/x.okta.com"}`, webAction, `{"StringEquals": {"x.okta.com:aud": "0oa1"}}`)), web(), ourProvider},
	{"the provider of another account", policy(statementOf("Allow", `"Principal": {"Federated": ["arn:aws:iam::999999999999:oidc-provider/`+ourPrefix+`"]}`, webAction, aud)), web(), ourProvider},
	{"the org server's provider and no audience", policy(statementOf("Allow", `"Principal": {"Federated": "arn:aws:iam::111122223333:oidc-provider/x.okta.com"}`, webAction, "")), web(), `:aud": "0oa1"`},
	{"a key of another server", policy(when(`{"StringEquals": {"x.okta.com:aud": "0oa1"}}`)), web(), ourPrefix + ":aud"},
	{"a key of another server and another audience", policy(when(`{"StringEquals": {"x.okta.com:aud": "0oa7", "x.okta.com:sub": "00u1"}}`)), web(), ourPrefix + ":sub"},
	{"another action", policy(statementOf("Allow", federated, `"sts:AssumeRole"`, aud)), web(), `"sts:AssumeRoleWithWebIdentity"`},
	{"another action and no audience", policy(statementOf("Allow", federated, `["sts:AssumeRole"]`, "")), web(), `:aud": "0oa1"`},
	{"no tags permission", policy(when(aud)), web("passes_tags", true), `"sts:TagSession"`},
	{"no tags permission, by NotAction", policy(`{"Effect": "Allow", ` + federated + `, "NotAction": "sts:TagSession", "Condition": ` + aud + `}`), web("passes_tags", true), ""},
	{"no tags permission, for everyone", policy(statementOf("Allow", `"Principal": "*"`, webAction, aud)), web("passes_tags", true), ""},
	{"no source identity permission", policy(when(aud)), web("source_identity", "ana"), `"sts:SetSourceIdentity"`},
	{"audience, tags and source identity", policy(when(`{"StringEquals": {"` + ourPrefix + `:aud": "x"}}`)), web("passes_tags", true, "source_identity", "ana"), `"sts:SetSourceIdentity"`},
	{"another provider altogether", policy(statementOf("Allow", `"Principal": {"Federated": "arn:aws:iam::111122223333:oidc-provider/token.actions.githubusercontent.com"}`, webAction, "")), web(), ourProvider},
	{"a service role", `{"Version": "2012-10-17", "Statement": ` + statementOf("Allow", `"Principal": {"Service": "ec2.amazonaws.com"}`, `"sts:AssumeRole"`, "") + `}`, web(), ourProvider},
	{"no statements", policy(), web(), ourProvider},
	{"tags permission alone", policy(statementOf("Allow", federated, `"sts:TagSession"`, "")), web(), `:aud": "0oa1"`},
	{"another External ID", policy(roleWhen(`{"StringEquals": {"sts:ExternalId": "xid-0"}}`)), assume(), `"sts:ExternalId": "xid-1"`},
	{"another account", policy(statementOf("Allow", `"Principal": {"AWS": "777788889999"}`, `"sts:AssumeRole"`, "")), assume(), worker},
	{"another account, of a session", policy(statementOf("Allow", `"Principal": {"AWS": "777788889999"}`, `"sts:AssumeRole"`, "")), assume("caller_arn", workerIn), "444455556666:root"},
	{"a deleted role", policy(statementOf("Allow", `"Principal": {"AWS": "AROAIIAV3SAMPLEEXAMPLE"}`, `"sts:AssumeRole"`, "")), assume(), worker},
	{"transitive tags of Pod Identity", policy(roleWhen(`{"StringEquals": {"sts:ExternalId": "xid-1"}}`)), assume("transitive_tags", true), `"sts:TagSession"`},

	// What refuses on purpose stays.
	{"another subject", policy(when(`{"StringEquals": {"` + ourPrefix + `:aud": "0oa1", "` + ourPrefix + `:sub": "00u9"}}`)), web(), ""},
	{"another address", policy(when(`{"IpAddress": {"aws:SourceIp": "198.51.100.0/24"}}`)), web(), ""},
	{"too late", policy(when(`{"DateLessThan": {"aws:CurrentTime": "2026-01-01T00:00:00Z"}}`)), web(), ""},
	{"a Deny", policy(when(aud), denied("")), web(), ""},
	{"all but us", policy(statementOf("Allow", `"NotPrincipal": {"Federated": "`+ourProvider+`"}`, webAction, "")), web(), ""},
	{"all actions but this", policy(`{"Effect": "Allow", ` + federated + `, "NotAction": "sts:AssumeRoleWithWebIdentity"}`), web(), ""},
	{"a key of an issuer that has nothing to do with it", policy(when(`{"StringEquals": {"accounts.google.com:aud": "0oa1"}}`)), web(), ""},
	{"MFA", policy(when(`{"Bool": {"aws:MultiFactorAuthPresent": "true"}}`)), web(), ""},
	{"an audience that is excluded", policy(when(`{"StringNotEquals": {"` + ourPrefix + `:aud": "0oa1"}}`)), web(), ""},
	{"tags of another value", policy(when(aud), statementOf("Allow", federated, `"sts:TagSession"`, `{"StringEquals": {"aws:RequestTag/team": "b"}}`)), web("passes_tags", map[string]string{"team": "a"}), ""},
	{"an audience that is a pattern", policy(when(`{"StringLike": {"` + ourPrefix + `:aud": "x"}}`)), web("audience", "*"), ""},
	{"an unknown audience", policy(), web("audience", unset), ""},
	{"a session without an External ID", policy(), assume("caller_arn", workerIn, "external_id", nil), ""},
}

func TestPolicy_Judge_mend(t *testing.T) {
	for _, row := range mends {
		p, c := parse(t, row.policy), row.given(t)
		v := p.Judge(c)
		switch {
		case v.Verdict != Fails:
			t.Errorf("%s: got %q (%s), want a failure to mend", row.name, v.Verdict, v.Reason)
		case row.want == "":
			if v.Mend != nil {
				t.Errorf("%s: got a mend, want none\n%s", row.name, v.Mend.JSON)
			}
		case v.Mend == nil:
			t.Errorf("%s: got no mend (%s)", row.name, v.Reason)
		case !strings.Contains(v.Mend.JSON, row.want):
			t.Errorf("%s: got a mend without %s\n%s", row.name, row.want, v.Mend.JSON)
		default:
			if after := parse(t, v.Mend.JSON).Judge(c); after.Verdict != Works {
				t.Errorf("%s: mended, it is %q (%s)\n%s", row.name, after.Verdict, after.Reason, v.Mend.JSON)
			}
		}
	}
}

// A mend lets in who asks, and nobody beside: what was wrong goes, what else is trusted
// stays, and nobody is given an action who has not asked for it.
func TestMend_narrow(t *testing.T) {
	const stranger = "arn:aws:iam::777788889999:role/stranger"
	for _, row := range []struct {
		name       string
		policy     string
		given      given
		has, lacks []string
		statements int
	}{
		{"one audience is replaced", policy(when(`{"StringEquals": {"` + ourPrefix + `:aud": "0oaOLD"}}`)), web(), []string{`"0oa1"`}, []string{"0oaOLD"}, 1},
		{"of several none is", policy(when(`{"StringEquals": {"` + ourPrefix + `:aud": ["0oaA", "0oaB"]}}`)), web(), []string{`"0oa1"`, "0oaA", "0oaB"}, nil, 1},
		{"an account that may tag is not let in", policy(statementOf("Allow", rootOf, `"sts:TagSession"`, "")), assume(), []string{worker, `"sts:ExternalId": "xid-1"`}, nil, 2},
		{"nor is a stranger who may tag as well", policy(statementOf("Allow", `"Principal": {"AWS": ["`+worker+`", "`+stranger+`"]}`, `"sts:TagSession"`, "")), assume(), []string{worker}, nil, 2},
		{"a provider that is alone in its statement may do what it asks for there", policy(statementOf("Allow", federated, `"sts:AssumeRole"`, aud)), web(), []string{`"sts:AssumeRoleWithWebIdentity"`}, nil, 1},
		{"an account that may do something else may not", policy(statementOf("Allow", rootOf, `"sts:AssumeRoleWithSAML"`, "")), assume(), []string{worker}, nil, 2},
		{"nor a provider beside another", policy(statementOf("Allow", `"Principal": {"Federated": ["`+ourProvider+`", "accounts.google.com"]}`, `"sts:AssumeRole"`, "")), web(), []string{`:aud": "0oa1"`}, nil, 2},
		{"without an External ID none is asked for", policy(), assume("external_id", nil), []string{worker}, []string{"ExternalId"}, 1},
		{"nor one that would be a pattern", policy(), assume("external_id", "x*"), []string{worker}, []string{"ExternalId"}, 1},
	} {
		v := parse(t, row.policy).Judge(row.given(t))
		if v.Mend == nil {
			t.Errorf("%s: no mend (%s)", row.name, v.Reason)
			continue
		}
		for _, want := range row.has {
			if !strings.Contains(v.Mend.JSON, want) {
				t.Errorf("%s: without %s\n%s", row.name, want, v.Mend.JSON)
			}
		}
		for _, not := range row.lacks {
			if strings.Contains(v.Mend.JSON, not) {
				t.Errorf("%s: with %s\n%s", row.name, not, v.Mend.JSON)
			}
		}
		if n := strings.Count(v.Mend.JSON, `"Effect"`); n != row.statements {
			t.Errorf("%s: %d statements, want %d\n%s", row.name, n, row.statements, v.Mend.JSON)
		}
	}
}

// A mend changes nothing but what it corrects, and both its forms are golden.
func TestMend_forms(t *testing.T) {
	const before = `{"Id":"x","Version":"2012-10-17","Statement":[
		{"Sid":"Okta","Effect":"Allow","Principal":{"Federated":"arn:aws:iam::111122223333:oidc-provider/x.okta.com"},
		 "Action":"sts:AssumeRoleWithWebIdentity",
		 "Condition":{"StringEquals":{"x.okta.com:aud":"0oa1"},"StringNotEquals":{"sts:RoleSessionName":["${aws:username, 'a\"b\\c'}","%{x}"]},"Bool":{"aws:SecureTransport":true}}},
		{"Effect":"Deny","Principal":"*","Action":["sts:GetFederationToken"],"Condition":{"NumericEquals":{"aws:EpochTime":1e3}}}]}`
	v := parse(t, before).Judge(web("passes_tags", true)(t))
	if v.Mend == nil {
		t.Fatalf("no mend: %s", v.Reason)
	}
	golden(t, "mend.json", v.Mend.JSON)
	golden(t, "mend.tf", v.Mend.Terraform)
	again := parse(t, v.Mend.JSON)
	if diff := cmp.Diff(v.Mend.JSON, writeJSON(again.root)); diff != "" {
		t.Errorf("the mend, read and written (-want +got):\n%s", diff)
	}
}

var update = flag.Bool("update", false, "write the golden files")

// golden holds text that others read. What changes it on purpose is go test
// -update.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}
