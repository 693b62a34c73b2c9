package trust

import (
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

var ours = Provider{Issuer: ourIssuer, Audience: ourAudience, Partition: "aws", AccountID: ourAccount, WorkerSendsTags: true, TokenSendsTags: true}

// closed asks for our audience, from the bridge's address.
const closed = `{"StringEquals": {"` + ourPrefix + `:aud": "0oa1"}, "IpAddress": {"aws:SourceIp": "203.0.113.7/32"}}`

// away is whoever does not come from the bridge's address.
const away = `{"NotIpAddress": {"aws:SourceIp": "203.0.113.7/32"}}`

func TestPolicy_Findings(t *testing.T) { // S-24, S-53
	sealed := func(principal string) string {
		return statementOf("Allow", principal, `["sts:AssumeRoleWithWebIdentity", "sts:TagSession"]`, closed)
	}
	open := func(condition string) string {
		return statementOf("Allow", federated, `["sts:AssumeRoleWithWebIdentity", "sts:TagSession"]`, condition)
	}
	both := `["sts:AssumeRole", "sts:TagSession"]`
	const xid = `{"StringEquals": {"sts:ExternalId": "xid-1"}}`
	for _, row := range []struct {
		name, policy string
		want         string // findings, as severity:id
	}{
		{"as it should be", policy(sealed(federated)), ""},
		{"as it should be, behind an endpoint", policy(open(`{"StringEquals": {"` + ourPrefix + `:aud": "0oa1", "aws:SourceVpce": "vpce-1"}}`)), ""},
		{"as it should be, by a Deny", policy(open(aud), denied(`{"NotIpAddress": {"aws:SourceIp": "203.0.113.7/32"}}`)), ""},
		{"as it should be, for the worker", policy(statementOf("Allow", `"Principal": {"AWS": "`+worker+`"}`, both, xid)), "medium:other-principal"},
		{"no statements", policy(), ""},
		{"a Deny", policy(statementOf("Deny", `"Principal": "*"`, `"*"`, "")), ""},
		{"tags alone", policy(statementOf("Allow", `"Principal": "*"`, `"sts:TagSession"`, "")), ""},

		{"nothing that closes it", policy(open(aud)), "medium:bypass"},
		{"a subject", policy(open(`{"StringEquals": {"` + ourPrefix + `:aud": "0oa1", "` + ourPrefix + `:sub": "00u1"}}`)), "low:bypass"},
		{"a subject that is anybody", policy(open(`{"StringEquals": {"` + ourPrefix + `:aud": "0oa1"}, "StringLike": {"` + ourPrefix + `:sub": "*"}}`)), "medium:bypass"},
		{"every address", policy(open(`{"StringEquals": {"` + ourPrefix + `:aud": "0oa1"}, "IpAddress": {"aws:SourceIp": "0.0.0.0/0"}}`)), "medium:bypass"},
		{"every address, in halves", policy(open(`{"StringEquals": {"` + ourPrefix + `:aud": "0oa1"}, "IpAddress": {"aws:SourceIp": ["0.0.0.0/1", "128.0.0.0/1"]}}`)), "medium:bypass"},
		{"private addresses, which every VPC has", policy(open(`{"StringEquals": {"` + ourPrefix + `:aud": "0oa1"}, "IpAddress": {"aws:VpcSourceIp": "10.0.0.0/8"}}`)), "medium:bypass"},
		{"a network", policy(open(`{"StringEquals": {"` + ourPrefix + `:aud": "0oa1"}, "IpAddress": {"aws:SourceIp": ["203.0.113.0/24", "2001:db8::/32"]}}`)), ""},
		{"an address, if it exists", policy(open(`{"StringEquals": {"` + ourPrefix + `:aud": "0oa1"}, "IpAddressIfExists": {"aws:SourceIp": "203.0.113.7"}}`)), "medium:bypass"},
		{"all but an address", policy(open(`{"StringEquals": {"` + ourPrefix + `:aud": "0oa1"}, "NotIpAddress": {"aws:SourceIp": "203.0.113.7"}}`)), "medium:bypass"},

		{"a Deny for another provider", policy(open(aud), statementOf("Deny", `"Principal": {"Federated": "accounts.google.com"}`, webAction, `{"NotIpAddress": {"aws:SourceIp": "203.0.113.7/32"}}`)), "medium:bypass"},
		{"a Deny for everyone", policy(open(aud), statementOf("Deny", `"Principal": "*"`, webAction, away)), ""},
		{"a Deny for all but ours", policy(open(aud), statementOf("Deny", strings.Replace(federated, "Principal", "NotPrincipal", 1), webAction, away)), "medium:bypass"},
		{"a Deny of something else", policy(open(aud), statementOf("Deny", federated, `"sts:TagSession"`, away)), "medium:bypass"},
		{"a Deny of the network that is meant", policy(open(aud), denied(`{"IpAddress": {"aws:SourceIp": "203.0.113.7/32"}}`)), "medium:bypass"},
		{"a Deny of several addresses' worth", policy(open(aud), denied(`{"ForAllValues:NotIpAddress": {"aws:SourceIp": "203.0.113.7/32"}}`)), "medium:bypass"},
		{"a Deny of what is no network", policy(open(aud), denied(`{"StringNotEquals": {"`+ourPrefix+`:sub": "00u1"}}`)), "medium:bypass"},
		{"an Allow beside, from elsewhere", policy(open(aud), open(away)), "high:audience-missing medium:bypass medium:bypass"},
		{"a wide network", policy(open(`{"StringEquals": {"` + ourPrefix + `:aud": "0oa1"}, "IpAddress": {"aws:SourceIp": "12.0.0.0/8"}}`)), ""},
		{"most addresses of version 6", policy(open(`{"StringEquals": {"` + ourPrefix + `:aud": "0oa1"}, "IpAddress": {"aws:SourceIp": "2000::/3"}}`)), "medium:bypass"},
		{"no network", policy(open(`{"StringEquals": {"` + ourPrefix + `:aud": "0oa1"}, "IpAddress": {"aws:SourceIp": []}}`)), "medium:bypass"},
		{"any endpoint", policy(open(`{"StringEquals": {"` + ourPrefix + `:aud": "0oa1"}, "StringLike": {"aws:SourceVpce": "*"}}`)), "medium:bypass"},
		{"some endpoints", policy(open(`{"StringEquals": {"` + ourPrefix + `:aud": "0oa1"}, "StringLike": {"aws:SourceVpce": "vpce-1*"}}`)), ""},
		{"an endpoint that is itself", policy(open(`{"StringEquals": {"` + ourPrefix + `:aud": "0oa1", "aws:SourceVpce": "${aws:SourceVpce}"}}`)), "medium:bypass"},
		{"a subject of another provider", policy(open(`{"StringEquals": {"` + ourPrefix + `:aud": "0oa1", "accounts.google.com:sub": "00u1"}}`)), "medium:bypass"},
		{"all subjects but one", policy(open(`{"StringEquals": {"` + ourPrefix + `:aud": "0oa1"}, "StringNotEquals": {"` + ourPrefix + `:sub": "00u1"}}`)), "medium:bypass"},
		{"a subject with a star that is meant", policy(open(`{"StringEquals": {"` + ourPrefix + `:aud": "0oa1", "` + ourPrefix + `:sub": "00u*"}}`)), "low:bypass"},
		{"a subject by StringLike", policy(open(`{"StringEquals": {"` + ourPrefix + `:aud": "0oa1"}, "StringLike": {"` + ourPrefix + `:sub": "00u1"}}`)), "low:bypass"},
		{"a subject that is itself", policy(open(`{"StringEquals": {"` + ourPrefix + `:aud": "0oa1", "` + ourPrefix + `:sub": "${` + ourPrefix + `:sub}"}}`)), "medium:bypass"},

		{"no audience", policy(open(`{"IpAddress": {"aws:SourceIp": "203.0.113.7"}}`)), "high:audience-missing"},
		{"an audience, if it exists", policy(open(strings.Replace(closed, `"StringEquals"`, `"StringEqualsIfExists"`, 1))), "high:audience-missing"},
		{"an audience, of all values", policy(open(strings.Replace(closed, `"StringEquals"`, `"ForAllValues:StringEquals"`, 1))), "high:audience-missing"},
		{"not an audience", policy(open(strings.Replace(closed, `"StringEquals"`, `"StringNotEquals"`, 1))), "high:audience-missing"},
		{"the audience of another server", policy(open(strings.Replace(closed, ourPrefix, "x.okta.com", 1))), "high:audience-missing"},
		{"an audience with a star", policy(open(strings.Replace(strings.Replace(closed, `"StringEquals"`, `"StringLike"`, 1), "0oa1", "0oa*", 1))), "high:audience-wildcard"},
		{"every audience", policy(open(strings.Replace(strings.Replace(closed, `"StringEquals"`, `"StringLike"`, 1), "0oa1", "*", 1))), "high:audience-wildcard"},
		{"an audience that is itself", policy(open(strings.Replace(closed, "0oa1", "${"+ourPrefix+":aud}", 1))), "high:audience-wildcard"},
		{"an audience with a star that is meant", policy(open(strings.Replace(closed, "0oa1", "0oa*", 1))), "medium:audience-other"},
		{"an audience with a variable that is a text", old(open(strings.Replace(closed, "0oa1", "${"+ourPrefix+":aud}", 1))), "medium:audience-other"},
		{"StringLike without a star", policy(open(strings.Replace(closed, `"StringEquals"`, `"StringLike"`, 1))), "low:audience-like"},
		{"another audience", policy(open(strings.Replace(closed, `"0oa1"`, `["0oa1", "0oa2"]`, 1))), "medium:audience-other"},

		{"everyone", policy(statementOf("Allow", `"Principal": "*"`, `"sts:AssumeRole"`, "")), "high:public"},
		{"everyone in any organization", policy(statementOf("Allow", `"Principal": {"AWS": "*"}`, both, `{"StringLike": {"aws:PrincipalOrgID": "*"}}`)), "high:public"},
		{"everyone in one of many organizations", policy(statementOf("Allow", `"Principal": {"AWS": "*"}`, both, `{"StringLike": {"aws:PrincipalOrgID": ["o-1", "o-a*"]}}`)), "high:public"},
		{"everyone, if in the organization", policy(statementOf("Allow", `"Principal": {"AWS": "*"}`, both, `{"StringEqualsIfExists": {"aws:PrincipalOrgID": "o-1"}}`)), "high:public"},
		{"everyone below a unit", policy(statementOf("Allow", `"Principal": {"AWS": "*"}`, both, `{"StringLike": {"aws:PrincipalOrgPaths": "o-1/r-1/*"}}`)), "medium:public"},
		{"everyone in any unit", policy(statementOf("Allow", `"Principal": {"AWS": "*"}`, both, `{"StringLike": {"aws:PrincipalOrgPaths": "o-*/r-1/*"}}`)), "high:public"},
		{"a role of any path", policy(statementOf("Allow", `"Principal": {"AWS": "*"}`, both, `{"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::444455556666:role/*"}}`)), "medium:public"},
		{"a role of any account", policy(statementOf("Allow", `"Principal": {"AWS": "*"}`, both, `{"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/deploy"}}`)), "high:public"},
		{"an ARN of one account", policy(statementOf("Allow", `"Principal": {"AWS": "*"}`, both, `{"StringLike": {"aws:PrincipalArn": "arn:aws:iam::444455556666*"}}`)), "medium:public"},
		{"an ARN that may have another account's before it", policy(statementOf("Allow", `"Principal": {"AWS": "*"}`, both, `{"StringLike": {"aws:PrincipalArn": "arn:*:iam::444455556666:role/x"}}`)), "high:public"},
		{"that ARN, part by part", policy(statementOf("Allow", `"Principal": {"AWS": "*"}`, both, `{"ArnLike": {"aws:PrincipalArn": "arn:*:iam::444455556666:role/x"}}`)), "medium:public"},
		{"an organization that is itself", policy(statementOf("Allow", `"Principal": {"AWS": "*"}`, both, `{"StringEquals": {"aws:PrincipalOrgID": "${aws:PrincipalOrgID}"}}`)), "high:public"},
		{"the role's own organization", policy(statementOf("Allow", `"Principal": {"AWS": "*"}`, both, `{"StringEquals": {"aws:PrincipalOrgID": "${aws:ResourceOrgID}"}}`)), "medium:public"},
		{"an organization with a star that is meant", policy(statementOf("Allow", `"Principal": {"AWS": "*"}`, both, `{"StringEquals": {"aws:PrincipalOrgID": "o-*"}}`)), "medium:public"},
		{"whoever's ARN has a word in it", policy(statementOf("Allow", `"Principal": {"AWS": "*"}`, both, `{"StringLike": {"aws:PrincipalArn": "*deploy*"}}`)), "high:public"},
		{"every AWS principal", policy(statementOf("Allow", `"Principal": {"AWS": "*"}`, both, "")), "high:public"},
		{"everyone in the organization", policy(statementOf("Allow", `"Principal": {"AWS": "*"}`, both, `{"StringEquals": {"aws:PrincipalOrgID": "o-1"}}`)), "medium:public"},
		{"everyone with a token", policy(statementOf("Allow", `"Principal": "*"`, webAction, closed)), "high:public"},
		{"every AWS principal, with a token", policy(statementOf("Allow", `"Principal": {"AWS": "*"}`, webAction, closed)), "high:public"},
		{"every AWS principal, without tags", policy(statementOf("Allow", `"Principal": {"AWS": "*"}`, `"sts:AssumeRole"`, "")), "high:public"},
		{"every provider", policy(statementOf("Allow", `"Principal": {"Federated": "*"}`, webAction, closed)), "high:public"},
		{"all but one", policy(statementOf("Allow", `"NotPrincipal": {"AWS": "444455556666"}`, `"sts:AssumeRole"`, "")), "high:not-principal"},

		{"all but one, with a token", policy(statementOf("Allow", `"NotPrincipal": {"AWS": "444455556666"}`, webAction, "")), "high:not-principal high:audience-missing medium:bypass"},

		{"another account", policy(statementOf("Allow", rootOf, both, "")), "high:external-id-missing medium:other-principal"},
		{"another account, by id", policy(statementOf("Allow", `"Principal": {"AWS": "444455556666"}`, both, "")), "high:external-id-missing medium:other-principal"},
		{"its own account", policy(statementOf("Allow", `"Principal": {"AWS": "111122223333"}`, both, "")), "medium:external-id-missing medium:other-principal"},
		{"another account with an External ID", policy(statementOf("Allow", rootOf, both, xid)), "medium:other-principal"},
		{"any External ID", policy(statementOf("Allow", rootOf, both, `{"StringLike": {"sts:ExternalId": "*"}}`)), "high:external-id-missing medium:other-principal"},
		{"an External ID with a star that is meant", policy(statementOf("Allow", rootOf, both, `{"StringEquals": {"sts:ExternalId": "xid-*"}}`)), "medium:other-principal"},
		{"an External ID by StringLike", policy(statementOf("Allow", rootOf, both, `{"StringLike": {"sts:ExternalId": "xid-1"}}`)), "medium:other-principal"},
		{"an External ID that is itself", policy(statementOf("Allow", rootOf, both, `{"StringEquals": {"sts:ExternalId": "${sts:ExternalId}"}}`)), "high:external-id-missing medium:other-principal"},
		{"an External ID or an empty one", policy(statementOf("Allow", rootOf, both, `{"StringEquals": {"sts:ExternalId": ["xid-1", ""]}}`)), "high:external-id-missing medium:other-principal"},
		{"no External ID of none", policy(statementOf("Allow", rootOf, both, `{"StringEquals": {"sts:ExternalId": []}}`)), "high:external-id-missing medium:other-principal"},
		{"another condition than an External ID", policy(statementOf("Allow", rootOf, both, `{"StringEquals": {"aws:PrincipalOrgID": "o-1"}}`)), "high:external-id-missing medium:other-principal"},
		{"an External ID, if it exists", policy(statementOf("Allow", rootOf, both, `{"StringEqualsIfExists": {"sts:ExternalId": "xid-1"}}`)), "high:external-id-missing medium:other-principal"},
		{"a user", policy(statementOf("Allow", `"Principal": {"AWS": "arn:aws:iam::111122223333:user/ana"}`, both, "")), "medium:other-principal"},
		{"a service", policy(statementOf("Allow", `"Principal": {"Service": "ec2.amazonaws.com"}`, `"sts:AssumeRole"`, "")), "low:other-principal"},
		{"a canonical user", policy(statementOf("Allow", `"Principal": {"CanonicalUser": "79a5"}`, `"sts:AssumeRole"`, "")), "low:other-principal"},
		{"another provider", policy(sealed(`"Principal": {"Federated": "arn:aws:iam::111122223333:oidc-provider/token.actions.githubusercontent.com"}`)), "medium:other-principal"},
		{"another provider, without a condition", policy(statementOf("Allow", `"Principal": {"Federated": "accounts.google.com"}`, webAction, "")), "medium:other-principal"},
		{"our provider, whose tokens are not taken", policy(statementOf("Allow", federated, `"sts:AssumeRole"`, "")), ""},
		{"another provider beside ours", policy(sealed(`"Principal": {"Federated": ["` + ourProvider + `", "accounts.google.com"]}`)), "medium:other-principal"},
		{"a SAML provider", policy(statementOf("Allow", `"Principal": {"Federated": "arn:aws:iam::111122223333:saml-provider/okta"}`, `"sts:AssumeRoleWithSAML"`, "")), "medium:other-principal"},
		{"a provider of another account", policy(sealed(`"Principal": {"Federated": "arn:aws:iam::999999999999:oidc-provider/` + ourPrefix + `"}`)), "medium:foreign-provider"},
		{"a provider of another partition", policy(sealed(`"Principal": {"Federated": "arn:aws-cn:iam::111122223333:oidc-provider/` + ourPrefix + `"}`)), "medium:foreign-provider"},
		{"the org server", policy(sealed(`"Principal": {"Federated": "arn:aws:iam::111122223333:oidc-provider/x.okta.com"}`)), "medium:other-issuer"},

		{"a user who has no token", policy(statementOf("Allow", `"Principal": {"AWS": "arn:aws:iam::111122223333:user/ana"}`, webAction, closed)), ""},
		{"a provider whose tokens are not taken", policy(statementOf("Allow", `"Principal": {"Federated": "accounts.google.com"}`, `"sts:AssumeRole"`, "")), ""},

		{"a deleted role", policy(statementOf("Allow", `"Principal": {"AWS": "AROAIIAV3SAMPLEEXAMPLE"}`, `"sts:AssumeRole"`, "")), "low:deleted-principal"},
		{"a deleted user beside", policy(sealed(federated), statementOf("Deny", `"Principal": {"AWS": "AIDAIIAV3SAMPLEEXAMPLE"}`, `"*"`, "")), "low:deleted-principal"},
		{"no tags of the token", policy(when(closed)), "medium:tags-missing"},
		{"no tags of the worker", policy(statementOf("Allow", `"Principal": {"AWS": "`+worker+`"}`, `"sts:AssumeRole"`, xid)), "medium:other-principal medium:tags-missing"},
		{"tags of the worker in another statement", policy(statementOf("Allow", `"Principal": {"AWS": "`+worker+`"}`, `"sts:AssumeRole"`, xid), statementOf("Allow", rootOf, `"sts:TagSession"`, "")), "medium:other-principal"},
		{"tags of the token that are denied", policy(when(closed), statementOf("Deny", federated, `"sts:TagSession"`, "")), "medium:tags-missing"},
		{"tags of the token for all but ours", policy(when(closed), statementOf("Allow", strings.Replace(federated, "Principal", "NotPrincipal", 1), `"sts:TagSession"`, "")), "medium:tags-missing"},
		{"tags of the token for everyone", policy(when(closed), statementOf("Allow", `"Principal": "*"`, `"sts:TagSession"`, "")), ""},
		{"tags of the token for every provider", policy(when(closed), statementOf("Allow", `"Principal": {"Federated": "*"}`, `"sts:TagSession"`, "")), ""},
		{"tags of the token for every AWS principal", policy(when(closed), statementOf("Allow", `"Principal": {"AWS": "*"}`, `"sts:TagSession"`, "")), "medium:tags-missing"},
		{"tags of the token for an account", policy(when(closed), statementOf("Allow", rootOf, `"sts:TagSession"`, "")), "medium:tags-missing"},
		{"tags of the worker for a user of its account", policy(statementOf("Allow", `"Principal": {"AWS": "`+worker+`"}`, `"sts:AssumeRole"`, xid), statementOf("Allow", `"Principal": {"AWS": "arn:aws:iam::444455556666:user/ana"}`, `"sts:TagSession"`, "")), "medium:other-principal medium:tags-missing"},
		{"tags of the worker for another account", policy(statementOf("Allow", `"Principal": {"AWS": "`+worker+`"}`, `"sts:AssumeRole"`, xid), statementOf("Allow", `"Principal": {"AWS": "111122223333"}`, `"sts:TagSession"`, "")), "medium:other-principal medium:tags-missing"},
		{"all actions", policy(statementOf("Allow", federated, `"sts:*"`, closed)), "low:wildcard-action"},
		{"all actions but one", policy(`{"Effect": "Allow", ` + federated + `, "NotAction": "iam:PassRole", "Condition": ` + closed + `}`), "low:wildcard-action"},
		{"the worst", policy(statementOf("Allow", `"Principal": "*"`, `"*"`, "")), "high:public high:audience-missing medium:bypass low:wildcard-action"},
	} {
		var got []string
		for _, f := range parse(t, row.policy).Findings(ours) {
			got = append(got, string(f.Severity)+":"+f.ID)
			if !strings.HasSuffix(f.Sentence, ".") || !unicode.IsUpper(rune(f.Sentence[0])) || f.Mend == "" || !strings.HasPrefix(f.Statement, "statement ") {
				t.Errorf("%s: %+v", row.name, f)
			}
		}
		if got := strings.Join(got, " "); got != row.want {
			t.Errorf("%s: got %q, want %q\n%s", row.name, got, row.want, row.policy)
		}
	}
}

// The bypass finding prints the condition that closes it.
func TestPolicy_Findings_bypassMend(t *testing.T) {
	for _, row := range []struct {
		addresses []string
		endpoint  string
		want      string
	}{
		{nil, "", `"IpAddress": {"aws:SourceIp": "ADDRESS/32"}`},
		{nil, "", "With SERVAL_EGRESS_CIDRS or SERVAL_VPC_ENDPOINT set"},
		{[]string{"203.0.113.7/32", "203.0.113.8/32"}, "", `"IpAddress": {"aws:SourceIp": ["203.0.113.7/32", "203.0.113.8/32"]}`},
		{[]string{"203.0.113.7/32"}, "vpce-1", `"StringEquals": {"aws:SourceVpce": "vpce-1"}`},
	} {
		p := ours
		p.Addresses, p.Endpoint, p.TokenSendsTags = row.addresses, row.endpoint, false
		f := parse(t, policy(when(aud))).Findings(p)
		if len(f) != 1 || f[0].ID != FindingBypass || !strings.Contains(f[0].Mend, row.want) {
			t.Errorf("%v %q: got %+v, want one bypass with %s", row.addresses, row.endpoint, f, row.want)
		}
	}
}

// Tags that nobody sends are missed nowhere.
func TestPolicy_Findings_noTags(t *testing.T) {
	p := ours
	p.WorkerSendsTags, p.TokenSendsTags = false, false
	for _, text := range []string{policy(when(closed)), policy(roleWhen(`{"StringEquals": {"sts:ExternalId": "xid-1"}}`))} {
		for _, f := range parse(t, text).Findings(p) {
			if f.ID == FindingTagsMissing {
				t.Errorf("%s\n%s", f.Sentence, text)
			}
		}
	}
}

// A context is enough to look for findings where it tells of our provider and of
// the role.
func TestContext_Ours(t *testing.T) {
	for name, given := range map[string]given{
		"the role": web("role_arn", "dev"), "the issuer": web("issuer", unset), "the audience": web("audience", unset), "one audience": web("audience", []string{"a", "b"}),
	} {
		if ours, ok := given(t).Ours(); ok {
			t.Errorf("without %s: %+v", name, ours)
		}
	}
	want := Provider{Issuer: ourIssuer, Audience: ourAudience, Partition: "aws", AccountID: ourAccount, TokenSendsTags: true}
	if got, ok := web("passes_tags", true)(t).Ours(); !ok || !cmp.Equal(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, ok, want)
	}
}

func TestSeverity_AtLeast(t *testing.T) {
	for _, row := range []struct {
		a, b Severity
		want bool
	}{{High, Low, true}, {Medium, Medium, true}, {Low, Medium, false}, {"", Low, false}} {
		if got := row.a.AtLeast(row.b); got != row.want {
			t.Errorf("%q at least %q: got %v, want %v", row.a, row.b, got, row.want)
		}
	}
}
