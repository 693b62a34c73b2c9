package web_test

import (
	"html"
	"strings"
	"testing"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// A worker is told whose OIDC provider to ask for, and what it learned is shown wherever somebody would click. A
// worker of before tells nothing of it, and is taken as it was.
func TestOIDCProvider(t *testing.T) {
	w := newWorld(t)
	ana, ada := w.as("ana"), w.as("ada")
	var sync wire.Sync
	w.worker(hubToken).json("POST", "/api/v1/upstream/accounts/"+dev+"/syncs", wire.OpenSync{Worker: "w1"}, 404, nil) // not its own
	w.worker(hubToken).json("POST", "/api/v1/upstream/accounts/"+prod+"/syncs", wire.OpenSync{Worker: "w1"}, 200, &sync)
	if !strings.HasPrefix(sync.Issuer, "http://127.0.0.1:") {
		t.Fatalf("the worker is told the issuer %q, want that of the sign-ins", sync.Issuer)
	}
	push := func(status serval.ListStatus, ids ...string) (role wire.Role, account map[string]any, pages string) {
		t.Helper()
		w.push(func(generation int64) serval.Inventory {
			inv := w.inventory(generation)
			if status != "" {
				inv.OIDCProvider = &serval.OIDCProvider{Issuer: sync.Issuer, ARN: serval.ProviderARN("aws", prod, sync.Issuer), Status: status, ClientIDs: append([]string{}, ids...)}
			}
			return inv
		})
		ana.json("GET", "/api/v1/roles/"+prod+"/dev-auto", nil, 200, &role)
		ada.json("GET", "/api/v1/accounts/"+prod, nil, 200, &account)
		return role, account, html.UnescapeString(ana.page("/roles/"+prod+"/dev-auto", 200) + ana.page("/roles", 200) +
			ada.page("/policies/explain?email=ana@example.com&role_arn="+w.aws.RoleARN("dev-auto"), 200) + "ACCOUNT" + ada.page("/accounts/"+prod, 200))
	}
	for _, test := range []struct {
		status  serval.ListStatus
		ids     []string
		verdict string
		account string   // what its page says of the provider
		says    []string // on the pages; nothing of refusing where it is empty
	}{
		{"", nil, "works", "", nil},
		{serval.ListRead, []string{clientID, "a", "b", "c", "d", "e", "f"}, "works", "there, for " + clientID + ", a, b, c, d and 2 more", nil},
		{serval.ListRead, []string{"<script>alert(1)</script>"}, "fails", "there, for <script>alert(1)</script>", []string{"AWS refuses you", "AWS refuses them", "does not list the client id", "aws iam add-client-id-to-open-id-connect-provider"}},
		{serval.ListAbsent, nil, "fails", "none under arn:aws:iam::" + prod + ":oidc-provider/127.0.0.1:", []string{"AWS refuses you in this account", "has no IAM OIDC provider", "aws iam create-open-id-connect-provider", `resource "aws_iam_openid_connect_provider"`}},
		{serval.ListDenied, nil, "works", "not known: the ingestion role may not ask for it (iam:GetOpenIDConnectProvider)", nil},
		{serval.ListThrottled, nil, "works", "not known: AWS did not tell", nil},
		{serval.ListFailed, nil, "works", "not known: AWS did not tell", nil},
		{"", nil, "works", "", nil},
	} {
		role, account, pages := push(test.status, test.ids...)
		_, accountPage, _ := strings.Cut(pages, "ACCOUNT")
		lacks := test.verdict == "fails"
		if role.Trust.Verdict != test.verdict || (role.Trust.Provider != nil) != lacks || (account["lack"] != nil) != lacks || (account["oidc_provider"] != nil) != (test.status != "") {
			t.Errorf("%s %v: the role has %+v, the account %v and %v; want it %s", test.status, test.ids, role.Trust, account["oidc_provider"], account["lack"], test.verdict)
		}
		for _, said := range append(test.says, test.account) {
			if !strings.Contains(pages, said) {
				t.Errorf("%s %v: no page says %q", test.status, test.ids, said)
			}
		}
		if !lacks && strings.Contains(pages, "AWS refuses") || strings.Contains(accountPage, "<dt>OIDC provider</dt>") != (test.status != "") || strings.Contains(accountPage, "has no IAM OIDC provider") != (test.status == serval.ListAbsent) {
			t.Errorf("%s %v: the pages say more, or less, than is known:\n%s", test.status, test.ids, accountPage)
		}
	}
	push(serval.ListRead, "<script>alert(1)</script>")
	if page := ada.page("/accounts/"+prod, 200); strings.Contains(page, "<script>alert") {
		t.Error("a client id is taken for markup")
	}
}
