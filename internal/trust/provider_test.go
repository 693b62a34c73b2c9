package trust

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// What is known of IAM's provider, beside each verdict on the policy: AWS refuses only where it surely does, and
// what was looked at is not called unchecked.
func TestPolicy_Judge_provider(t *testing.T) {
	const none, unlisted = "account 111122223333 has no IAM OIDC provider for https://x.okta.com/oauth2/aus1.",
		`the IAM OIDC provider of account 111122223333 for https://x.okta.com/oauth2/aus1 does not list the client id "0oa1" as an audience.`
	policies := map[string]string{
		Works: policy(when(aud)), Fails: policy(when(`{"StringEquals": {"x.okta.com/oauth2/aus1:sub": "another"}}`)),
		Unknown: policy(when(`{"StringEquals": {"aws:SourceVpce": "vpce-1"}}`)),
	}
	for _, row := range []struct {
		name  string
		with  []any
		lacks string // empty: nothing is known to be lacking
		fits  bool
	}{
		{"nothing is known", nil, "", false},
		{"there is none", []any{"provider_arn", nil}, none, false},
		{"it lists the client", []any{"client_ids", []string{"0oa0", "0oa1"}, "azp", nil}, "", true},
		{"it lists the client, which the token has as azp too", []any{"client_ids", "0oa1", "azp", "0oa1"}, "", true},
		{"it lists another client", []any{"client_ids", []string{"0oa0", "0oa2"}, "azp", nil}, unlisted, false},
		{"it lists part of the client id", []any{"client_ids", []string{"0oa", "0oa12", "0OA1", " 0oa1"}, "azp", nil}, unlisted, false},
		{"it lists neither client nor azp", []any{"client_ids", "0oa0", "azp", "0oa9"}, unlisted, false},
		{"it lists the client, and the token has another azp", []any{"client_ids", "0oa1", "azp", "0oa9"}, "", false},
		{"it lists the azp alone", []any{"client_ids", "0oa9", "azp", "0oa9"}, "", false},
		{"it lists the client, and the azp is not known", []any{"client_ids", "0oa1", "azp", unset}, "", false},
		{"it does not list the client, and the azp is not known", []any{"client_ids", "0oa0", "azp", unset}, "", false},
		{"it lists nothing", []any{"client_ids", nil, "azp", nil}, "", false},
		{"the audience is not known", []any{"client_ids", "0oa0", "azp", nil, "audience", unset}, "", false},
		{"it lists one of several audiences", []any{"client_ids", "0oa1", "azp", nil, "audience", []string{"0oa1", "0oa5"}}, "", false},
		{"it lists all of several audiences", []any{"client_ids", []string{"0oa1", "0oa5"}, "azp", nil, "audience", []string{"0oa1", "0oa5"}}, "", true},
		{"the issuer is not known", []any{"provider_arn", nil, "issuer", unset}, "", false},
		{"the role is not known", []any{"provider_arn", nil, "role_arn", unset}, "", false},
	} {
		for _, verdict := range []string{Works, Fails, Unknown} {
			p := parse(t, policies[verdict])
			var alone []any // the same context without the provider
			for i := 0; i < len(row.with); i += 2 {
				if name := row.with[i]; name != "client_ids" && name != "provider_arn" {
					alone = append(alone, name, row.with[i+1])
				}
			}
			vpce := []any{"source_vpce", unset, "source_ip", unset}
			before := p.Judge(web(append(alone, vpce...)...)(t))
			got := p.Judge(web(append(slices.Clone(row.with), vpce...)...)(t))
			name := verdict + ", " + row.name
			if len(alone) == 0 && before.Verdict != verdict {
				t.Fatalf("%s: without the provider it is %q (%s)", name, before.Verdict, before.Reason)
			}
			if before.Provider != nil || !slices.Contains(before.NotChecked, providerUnseen) {
				t.Errorf("%s: without the provider it is %+v", name, before)
			}
			want := before
			if row.fits || row.lacks != "" {
				want.NotChecked = []string{"resource control policies"}
			}
			if row.lacks != "" {
				want.Provider = got.Provider
				want.Reason = map[string]string{
					Works: "refuses you: the trust policy would accept you, but " + row.lacks, Unknown: "refuses you: " + row.lacks,
					Fails: before.Reason + " Besides, " + row.lacks,
				}[before.Verdict]
				if want.Verdict = Fails; before.Verdict != Fails {
					want.Statement, want.Condition = "", ""
				}
				if got.Provider == nil || got.Provider.Reason != row.lacks {
					t.Errorf("%s: the provider is %+v, want %q", name, got.Provider, row.lacks)
				}
			}
			if row.name == "the issuer is not known" || row.name == "the role is not known" { // then it is no name that a policy could have
				want.NotChecked, want.Verdict, want.Reason, want.Statement, want.Condition, want.Mend = got.NotChecked, got.Verdict, got.Reason, got.Statement, got.Condition, got.Mend
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
	}
}

// The providers that AWS knows by themselves need none in IAM.
func TestPolicy_Judge_builtInProvider(t *testing.T) {
	google := strings.ReplaceAll(policy(statementOf("Allow", `"Principal": {"Federated": "accounts.google.com"}`, webAction, "")), ourPrefix, "accounts.google.com")
	for _, with := range [][]any{{"provider_arn", nil}, {"client_ids", "0oa0"}} {
		v := parse(t, google).Judge(web(append(with, "issuer", "https://accounts.google.com", "azp", nil)...)(t))
		if v.Verdict != Works || v.Provider != nil || !slices.Contains(v.NotChecked, providerUnseen) {
			t.Errorf("%v: got %+v, want what it is without", with, v)
		}
	}
	if NeedsProvider("https://accounts.google.com") || !NeedsProvider(ourIssuer) {
		t.Error("another issuer than Google's is built in, or Google's is not")
	}
}

// Whoever owns the account mends it by the texts, whatever is in the issuer and the client ids.
func TestPolicy_Judge_providerMends(t *testing.T) {
	p := parse(t, policy(when("")))
	absent := p.Judge(web("provider_arn", nil)(t)).Provider
	want := &Lack{
		Reason:    "account 111122223333 has no IAM OIDC provider for https://x.okta.com/oauth2/aus1.",
		CLI:       "aws iam create-open-id-connect-provider --url 'https://x.okta.com/oauth2/aus1' --client-id-list '0oa1'",
		Terraform: "resource \"aws_iam_openid_connect_provider\" \"people\" {\n  url            = \"https://x.okta.com/oauth2/aus1\"\n  client_id_list = [\"0oa1\"]\n}",
	}
	if diff := cmp.Diff(want, absent); diff != "" {
		t.Errorf("where there is none (-want +got):\n%s", diff)
	}
	odd := p.Judge(web("client_ids", []string{"a", `${x}"`}, "audience", "it's", "azp", nil)(t)).Provider
	want = &Lack{
		Reason: `the IAM OIDC provider of account 111122223333 for https://x.okta.com/oauth2/aus1 does not list the client id "it's" as an audience.`,
		CLI:    "aws iam add-client-id-to-open-id-connect-provider --open-id-connect-provider-arn '" + ourProvider + `' --client-id 'it'\''s'`,
		Terraform: "resource \"aws_iam_openid_connect_provider\" \"people\" {\n  url            = \"https://x.okta.com/oauth2/aus1\"\n" +
			`  client_id_list = ["a", "$${x}\"", "it's"]` + "\n}",
	}
	if diff := cmp.Diff(want, odd); diff != "" {
		t.Errorf("where it lists others (-want +got):\n%s", diff)
	}
	if l := p.Judge(web("provider_arn", nil, "audience", unset)(t)).Provider; l == nil || l.CLI != "" || l.Terraform != "" || l.Reason != absent.Reason {
		t.Errorf("for nobody's client id: %+v, want the reason alone", l)
	}
}

// A policy that names the provider that is not there is not called wrong for it, and mended by itself.
func TestPolicy_Judge_mendBesideProvider(t *testing.T) {
	v := parse(t, policy(when(`{"StringEquals": {"x.okta.com/oauth2/aus1:aud": "0oaOLD"}}`))).Judge(web("provider_arn", nil)(t))
	if v.Verdict != Fails || v.Mend == nil || v.Provider == nil || !strings.Contains(v.Mend.JSON, `"0oa1"`) {
		t.Errorf("got %+v, want a mend of the policy beside what the account lacks", v)
	}
}

// What a sync has learned of the provider decides only where it is of this issuer and this account, and where no
// other form of the issuer could be meant.
func TestContext_WithProvider(t *testing.T) {
	read := serval.OIDCProvider{Issuer: ourIssuer, ARN: ourProvider, Status: serval.ListRead, ClientIDs: []string{"0oa0"}}
	of := func(f func(*serval.OIDCProvider)) *serval.OIDCProvider { p := read; f(&p); return &p }
	is := func(s serval.ListStatus) *serval.OIDCProvider {
		return of(func(p *serval.OIDCProvider) { p.Status, p.ClientIDs = s, []string{} })
	}
	issued := func(issuer string) (string, *serval.OIDCProvider) {
		return issuer, of(func(p *serval.OIDCProvider) {
			p.Issuer, p.ARN, p.Status, p.ClientIDs = issuer, serval.ProviderARN("aws", ourAccount, issuer), serval.ListAbsent, nil
		})
	}
	slash, ofSlash := issued(ourIssuer + "/")
	upper, ofUpper := issued("https://X.okta.com")
	port, ofPort := issued("https://idp.example.com:8443/realms/a")
	path, ofPath := issued("https://idp.example.com/realms/a:b")
	loopback, ofLoopback := issued("http://127.0.0.1:8400")
	for _, row := range []struct {
		name   string
		issuer string
		p      *serval.OIDCProvider
		want   Context // of ProviderARN and ClientIDs
	}{
		{"nobody asked", ourIssuer, nil, Context{}},
		{"read", ourIssuer, &read, Context{ClientIDs: Of("0oa0")}},
		{"read, with nothing listed", ourIssuer, of(func(p *serval.OIDCProvider) { p.ClientIDs = nil }), Context{}},
		{"absent", ourIssuer, is(serval.ListAbsent), Context{ProviderARN: Absent()}},
		{"denied", ourIssuer, is(serval.ListDenied), Context{}},
		{"throttled", ourIssuer, is(serval.ListThrottled), Context{}},
		{"failed", ourIssuer, is(serval.ListFailed), Context{}},
		{"a status of the future", ourIssuer, is("perhaps"), Context{}},
		{"of another issuer", "https://y.okta.com", is(serval.ListAbsent), Context{}},
		{"of another account", ourIssuer, of(func(p *serval.OIDCProvider) { p.ARN = serval.ProviderARN("aws", "444455556666", ourIssuer) }), Context{}},
		{"of an issuer with a slash at its end", slash, ofSlash, Context{}},
		{"of an issuer with capitals", upper, ofUpper, Context{}},
		{"of an issuer with a port", port, ofPort, Context{}},
		{"of an issuer with a colon in its path", path, ofPath, Context{ProviderARN: Absent()}},
		{"of a rehearsal on loopback", loopback, ofLoopback, Context{ProviderARN: Absent()}},
		{"read, of an issuer with a slash at its end", slash, of(func(p *serval.OIDCProvider) { p.Issuer, p.ARN = ofSlash.Issuer, ofSlash.ARN }), Context{ClientIDs: Of("0oa0")}},
	} {
		row.want.RoleARN, row.want.Issuer = ourRole, Of(row.issuer)
		got := Context{RoleARN: ourRole, Issuer: Of(row.issuer)}.WithProvider(row.p)
		if diff := cmp.Diff(row.want, got, cmp.AllowUnexported(Value{}, Tags{}, Keys{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.name, diff)
		}
	}
	if got := (Context{Issuer: Of(ourIssuer)}).WithProvider(&read); !got.ClientIDs.IsUnknown() {
		t.Error("a role that is not known has a provider")
	}
}
