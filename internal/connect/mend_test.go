package connect

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// What mends a finding has the account's own values, and is about the role that
// the finding is about.
func TestMends(t *testing.T) {
	const (
		trusted = "999988887777"
		hop     = "arn:aws:iam::222233334444:role/hop"
	)
	account := serval.Account{
		ID: "111122223333", Name: "prod", Partition: "aws", ExternalID: "external-id-of-the-team",
		RoleARN: "arn:aws:iam::111122223333:role/security/serval-ingestion", WorkflowRoleARN: "arn:aws:iam::111122223333:role/workflow",
	}
	chained := account
	chained.Via = []serval.Hop{{RoleARN: hop, ExternalID: "hop-id"}}
	open := account
	open.Via = []serval.Hop{{RoleARN: hop}}
	plain := account
	plain.WorkflowRoleARN = ""
	causes := func(c ...serval.Cause) []serval.Cause { return c }
	for _, tt := range []struct {
		name    string
		finding serval.Finding
		account serval.Account
		trusted string
		want    []string // format, and texts in it
	}{
		{"one of several", serval.Finding{Causes: causes(serval.CauseNoRole, serval.CauseTrustedAccount, serval.CauseExternalID, serval.CauseWorkerPolicy), Target: account.RoleARN}, account, trusted,
			[]string{"terraform:path = \"/security/\"", "json:\"sts:ExternalId\": \"external-id-of-the-team\"", "json:\"Resource\": \"" + account.RoleARN + "\""}},
		{"of a named account", serval.Finding{Causes: causes(serval.CauseNoRole), Target: account.RoleARN}, account, trusted,
			[]string{"terraform:reads the IAM roles of account 111122223333, prod."}},
		{"nobody knows who trusts", serval.Finding{Causes: causes(serval.CauseNoRole, serval.CauseExternalID, serval.CauseTagSessionWorker), Target: account.RoleARN}, account, "",
			[]string{"json:\"Resource\": \"" + account.RoleARN + "\""}},
		{"a hop", serval.Finding{Causes: causes(serval.CauseNoRole, serval.CauseTagSessionTrust), Target: hop}, chained, trusted,
			[]string{"json:\"sts:ExternalId\": \"hop-id\""}},
		{"behind a hop its account is trusted", serval.Finding{Causes: causes(serval.CauseExternalIDOpen), Target: account.RoleARN}, chained, trusted,
			[]string{"json:arn:aws:iam::222233334444:root"}},
		{"denied", serval.Finding{Causes: causes(serval.CauseActionsDenied), Target: account.RoleARN, Actions: []string{"iam:GetRole"}}, account, trusted,
			[]string{"json:\"iam:GetPolicyVersion\""}},
		{"denied by the organization", serval.Finding{Causes: causes(serval.CauseActionsDenied), Target: account.RoleARN, Actions: []string{"organizations:ListAccounts"}}, account, trusted,
			[]string{"json:\"organizations:ListAccounts\""}},
		{"denied to the workflow role", serval.Finding{Causes: causes(serval.CauseActionsDenied), Target: account.WorkflowRoleARN, Actions: []string{"iam:TagRole"}}, account, trusted,
			[]string{"json:\"Resource\": \"arn:aws:iam::111122223333:role/serval/*\""}},
		{"the workflow role's trust", serval.Finding{Causes: causes(serval.CauseExternalID), Target: account.WorkflowRoleARN}, account, trusted,
			[]string{"json:Trust policy of " + account.WorkflowRoleARN + "\n{"}},
		{"of none of the way", serval.Finding{Causes: causes(serval.CauseExternalID), Target: "arn:aws:iam::111122223333:role/another"}, account, trusted,
			[]string{"json:Trust policy of " + account.RoleARN + "\n{"}},
		{"of nothing, and there is no workflow role", serval.Finding{Causes: causes(serval.CauseExternalID)}, plain, trusted,
			[]string{"json:Trust policy of " + account.RoleARN + "\n{"}},
		{"a hop without an External ID", serval.Finding{Causes: causes(serval.CauseTagSessionTrust), Target: hop}, open, trusted, nil},
		{"retired", serval.Finding{Causes: causes(serval.CauseRetiredActions), Target: account.RoleARN, Actions: serval.RetiredActions()}, account, trusted,
			[]string{"json:\"iam:ListRoles\""}},
		{"packed", serval.Finding{Causes: causes(serval.CausePackedPolicy)}, account, trusted, []string{"shell:--disable-session-tags"}},
		{"hop limit", serval.Finding{Causes: causes(serval.CauseNoCredentials, serval.CauseMetadataHopLimit)}, account, trusted, []string{"shell:--http-put-response-hop-limit 2"}},
		{"region", serval.Finding{Causes: causes(serval.CauseRegionDisabled)}, account, trusted, []string{"yaml:id: \"111122223333\""}},
		{"nothing to paste", serval.Finding{Causes: causes(serval.CauseEgress, serval.CauseTLS, serval.CauseClockSkew, serval.CauseOther)}, account, trusted, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := Mends(tt.finding, tt.account, tt.trusted)
			if len(got) != len(tt.want) {
				t.Fatalf("%d texts, want %d: %+v", len(got), len(tt.want), got)
			}
			for i, want := range tt.want {
				format, part, _ := strings.Cut(want, ":")
				if got[i].Format != format || !strings.Contains(got[i].Title+"\n"+got[i].Text, part) || got[i].Title == "" {
					t.Errorf("text %d is %s:\n%s\nwant %s with %s", i, got[i].Format, got[i].Text, format, part)
				}
				if got[i].Format == "json" && !json.Valid([]byte(got[i].Text)) {
					t.Errorf("not JSON:\n%s", got[i].Text)
				}
			}
		})
	}
}

func TestGrantTrust(t *testing.T) {
	const want = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Federated":"arn:aws-cn:iam::111122223333:oidc-provider/login.example.com/oauth2/x"},` +
		`"Action":"sts:AssumeRoleWithWebIdentity","Condition":{"StringEquals":{"login.example.com/oauth2/x:aud":"a\"b"}}}]}`
	var got, wanted any
	if err := json.Unmarshal([]byte(GrantTrust("aws-cn", "111122223333", "https://login.example.com/oauth2/x", `a"b`)), &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(want), &wanted); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(wanted, got); diff != "" {
		t.Errorf("trust (-want +got):\n%s", diff)
	}
}
