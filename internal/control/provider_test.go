package control

import (
	"slices"
	"strings"
	"testing"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/trust"
)

// What a sync learned of the account's OIDC provider decides beside the trust policy, wherever a verdict is shown;
// what nobody could learn leaves it as it was.
func TestTrustVerdictByProvider(t *testing.T) { each(t, testTrustVerdictByProvider) }

func testTrustVerdictByProvider(t *testing.T, w *world) {
	w.stock()
	p := w.people()
	who := p.ana
	_, at, _ := strings.Cut(issuer, "://")
	policy := func(audience string) serval.Document {
		return serval.Document(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Federated":"arn:aws:iam::` + prod +
			`:oidc-provider/` + at + `"},"Action":"sts:AssumeRoleWithWebIdentity","Condition":{"StringEquals":{"` + at + `:aud":"` + audience + `"}}}]}`)
	}
	provider := func(status serval.ListStatus, ids ...string) *serval.OIDCProvider {
		return &serval.OIDCProvider{Issuer: issuer, ARN: serval.ProviderARN("aws", prod, issuer), Status: status, ClientIDs: ids}
	}
	const none, unlisted = "has no IAM OIDC provider", "does not list the client id"
	for _, test := range []struct {
		name    string
		learned *serval.OIDCProvider
		lacks   string
		checked bool // the provider is not among what was not
	}{
		{"not asked for", nil, "", false},
		{"fits", provider(serval.ListRead, "another", clientID), "", true},
		{"lists others", provider(serval.ListRead, "another"), unlisted, true},
		{"absent", provider(serval.ListAbsent), none, true},
		{"denied", provider(serval.ListDenied), "", false},
		{"throttled", provider(serval.ListThrottled), "", false},
		{"failed", provider(serval.ListFailed), "", false},
		{"of the issuer of before", &serval.OIDCProvider{Issuer: "https://former.example.com", ARN: serval.ProviderARN("aws", prod, "https://former.example.com"), Status: serval.ListAbsent}, "", false},
		{"mended", provider(serval.ListRead, clientID), "", true},
	} {
		for audience, verdict := range map[string]string{clientID: trust.Works, "another": trust.Fails} {
			w.pushAs(prod, func(i *serval.Inventory) { i.OIDCProvider = test.learned }, aRole(prod, "reader", func(r *serval.Role) { r.TrustPolicy = policy(audience) }))
			want := verdict
			if test.lacks != "" {
				want = trust.Fails
			}
			one, err := w.plane.RoleByName(t.Context(), who, prod, "reader")
			must(t, err)
			list, _, err := w.plane.Roles(t.Context(), who, RoleFilter{AccountID: prod, Text: "role/reader"})
			if must(t, err); len(list) != 1 {
				t.Fatalf("the catalogue has the role %d times", len(list))
			}
			x, err := w.plane.Explain(t.Context(), p.adm, who.Person.Email, roleARN(prod, "reader"))
			must(t, err)
			for shown, v := range map[string]trust.Verdict{"its page": one.Trust, "the catalogue": list[0].Trust, "the explanation": *x.Trust} {
				if v.Verdict != want || (v.Provider != nil) != (test.lacks != "") || !strings.Contains(v.Reason, test.lacks) ||
					slices.Contains(v.NotChecked, "the IAM OIDC provider and its audiences") == test.checked || (v.Mend != nil) != (verdict == trust.Fails) {
					t.Errorf("%s, a policy for %s: %s has %+v, want %s for %q", test.name, audience, shown, v, want, test.lacks)
				}
			}
			a, err := w.plane.AccountByID(t.Context(), p.adm, prod)
			if must(t, err); (a.Lack != nil) != (test.lacks != "") || a.Lack != nil && !strings.Contains(a.Lack.Reason, test.lacks) {
				t.Errorf("%s: the account lacks %+v, want %q", test.name, a.Lack, test.lacks)
			}
		}
	}
}
