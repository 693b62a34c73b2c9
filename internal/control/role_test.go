package control

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/trust"
)

// arns returns the ARNs of roles.
func arns(roles []Role) []string {
	list := []string{}
	for _, r := range roles {
		list = append(list, r.ARN)
	}
	return list
}

// A person sees what they are eligible for, filtered, in pages.
func TestRoles(t *testing.T) { each(t, testRoles) }

func testRoles(t *testing.T, w *world) {
	w.push(prod,
		aRole(prod, "reader", func(r *serval.Role) { r.Tags["team"] = "payments"; r.Description = "Reads The LEDGER" }),
		aRole(prod, "admin"), aRole(prod, "secret"))
	w.push(dev, aRole(dev, "reader", func(r *serval.Role) { r.Tags["team"] = "data"; r.Tags["Üse"] = "Ünit" }), aRole(dev, "auditreader"))
	ana, guest := w.engineer("ana@example.com"), w.signIn("guest@example.com", "Engineering", "engineering ")
	all := []string{roleARN(prod, "admin"), roleARN(prod, "reader"), roleARN(dev, "auditreader"), roleARN(dev, "reader")}
	for _, test := range []struct {
		name   string
		who    serval.Principal
		filter RoleFilter
		want   []string
		more   bool
	}{
		{"all", ana, RoleFilter{}, all, false},
		{"not eligible", guest, RoleFilter{}, []string{}, false},
		{"account", ana, RoleFilter{AccountID: dev}, all[2:], false},
		{"no account", ana, RoleFilter{AccountID: "000000000000"}, []string{}, false},
		{"tag key", ana, RoleFilter{Tag: "team"}, []string{all[1], all[3]}, false},
		{"tag value", ana, RoleFilter{Tag: "team=data"}, all[3:], false},
		{"empty tag value", ana, RoleFilter{Tag: "team="}, []string{}, false},
		{"tag in another case", ana, RoleFilter{Tag: "Team"}, []string{}, false},
		{"text in the ARN", ana, RoleFilter{Text: "AUDIT"}, all[2:3], false},
		{"text in the description", ana, RoleFilter{Text: "ledger"}, all[1:2], false},
		{"text in the account's name", ana, RoleFilter{Text: "Dev"}, all[2:], false},
		{"text in a tag's value", ana, RoleFilter{Text: "PAYM"}, all[1:2], false},
		{"text in a tag's key", ana, RoleFilter{Text: "team"}, []string{all[1], all[3]}, false},
		{"text in no role", ana, RoleFilter{Text: "secret"}, []string{}, false},
		{"case beyond ASCII counts", ana, RoleFilter{Text: "ünit"}, []string{}, false},
		{"first page", ana, RoleFilter{Limit: 3}, all[:3], true},
		{"last page", ana, RoleFilter{Limit: 3, After: all[2]}, all[3:], false},
		{"exactly a page", ana, RoleFilter{Limit: 4}, all, false},
		{"behind another account's last", ana, RoleFilter{After: roleARN(prod, "zzz")}, all[2:], false},
		{"behind the last", ana, RoleFilter{After: all[3]}, []string{}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			roles, more, err := w.plane.Roles(t.Context(), test.who, test.filter)
			if err != nil || more != test.more {
				t.Errorf("more %v, %v; want %v", more, err, test.more)
			}
			if d := cmp.Diff(test.want, arns(roles)); d != "" {
				t.Errorf("roles (-want +got):\n%s", d)
			}
		})
	}
	_, _, err := w.plane.Roles(t.Context(), ana, RoleFilter{After: "x"})
	wantKind(t, "a page token of another list", err, serval.Invalid)

	// The first policy that matches decides alone; the account has its name; one's
	// own open request is shown, and nobody else's.
	bob := w.engineer("bob@example.com")
	old := w.ask(ana, roleARN(prod, "reader"), 10)
	w.clock.move(1000)
	newer := w.ask(ana, roleARN(prod, "reader"), 20)
	w.ask(bob, roleARN(dev, "reader"), 10)
	canceled := w.ask(ana, roleARN(dev, "auditreader"), 10)
	if _, err := w.plane.Cancel(t.Context(), ana, canceled.ID); err != nil {
		t.Fatal(err)
	}
	roles, _, err := w.plane.Roles(t.Context(), ana, RoleFilter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range roles {
		var mine string
		if r.MyRequest != nil {
			mine = r.MyRequest.ID
		}
		want := map[string][3]string{
			all[0]: {"prod", "admins", ""}, all[1]: {"prod", "readers", newer.ID}, all[2]: {"dev", "readers", ""}, all[3]: {"dev", "readers", ""},
		}[r.ARN]
		if got := [3]string{r.AccountName, r.Policy.Name, mine}; got != want {
			t.Errorf("%s: %q, want %q (the older request is %s)", r.ARN, got, want, old.ID)
		}
	}

	// S-2: one name in two accounts is two roles.
	for _, account := range []string{prod, dev} {
		r, err := w.plane.RoleByName(t.Context(), ana, account, "reader")
		if err != nil || r.ARN != roleARN(account, "reader") || r.Key.RoleID != roleID(account, "reader", 1) {
			t.Errorf("reader of %s: %s, %v", account, r.ARN, err)
		}
		if r.TrustPolicy == "" || len(r.InlinePolicies.Policies) != 1 || r.Policy.Name != "readers" || r.MyRequest == nil != (account == dev) {
			t.Errorf("reader of %s: %+v, want documents, policy and request", account, r)
		}
	}
	// Not there and not eligible are one answer.
	var answers []string
	for _, test := range []struct {
		who           serval.Principal
		account, name string
	}{{ana, prod, "secret"}, {ana, prod, "nothing"}, {guest, prod, "reader"}, {ana, "000000000000", "reader"}, {ana, prod, "Reader"}} {
		r, err := w.plane.RoleByName(t.Context(), test.who, test.account, test.name)
		wantKind(t, test.name, err, serval.NotFound)
		if answers = append(answers, err.Error()); answers[0] != err.Error() || r.ARN != "" {
			t.Errorf("%s/%s: %v %s, want %q", test.account, test.name, err, r.ARN, answers[0])
		}
	}
}

// S-54: whoever has somebody else's mailbox does not see what that was eligible
// for.
func TestSuspendedSeeNoRoles(t *testing.T) {
	w := newWorld(t).stock()
	who := w.people().ana
	who.Person.Suspended = "Your email changed."
	_, _, err := w.plane.Roles(t.Context(), who, RoleFilter{})
	wantKind(t, "the catalogue", err, serval.FailedPrecondition)
	_, err = w.plane.RoleByName(t.Context(), who, prod, "reader")
	wantKind(t, "a role", err, serval.FailedPrecondition)
}

// The catalogue says what the trust policy makes of the person's token.
// The trust policy is judged with the ID token's own claim azp, or with none
// where the token has none.
func TestTrustVerdictByAuthorizedParty(t *testing.T) {
	w := newWorld(t).stock()
	_, at, _ := strings.Cut(issuer, "://")
	federated := `"Principal":{"Federated":"arn:aws:iam::` + prod + `:oidc-provider/` + at + `"},"Action":"sts:AssumeRoleWithWebIdentity"`
	document := serval.Document(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow",` + federated + `,"Condition":{"Null":{"` + at + `:azp":"true"}}}]}`)
	w.push(prod, aRole(prod, "reader", func(r *serval.Role) { r.TrustPolicy = document }))
	for party, want := range map[string]string{"": trust.Works, clientID: trust.Fails} {
		id := w.identity("ana@example.com", "engineering")
		id.AuthorizedParty = party
		ana, _, err := w.signInAs(w.plane, id)
		must(t, err)
		one, err := w.plane.RoleByName(t.Context(), ana, prod, "reader")
		if err != nil || one.Trust.Verdict != want {
			t.Errorf("azp %q: the trust policy that wants none %s (%s), %v; want %s", party, one.Trust.Verdict, one.Trust.Reason, err, want)
		}
	}
}

func TestTrustVerdict(t *testing.T) {
	w := newWorld(t).stock()
	who := w.people().ana
	accepts := func(audience string) serval.Document {
		_, provider, _ := strings.Cut(issuer, "://")
		return serval.Document(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Federated":"arn:aws:iam::` + prod +
			`:oidc-provider/` + provider + `"},"Action":"sts:AssumeRoleWithWebIdentity","Condition":{"StringEquals":{"` + provider + `:aud":"` + audience + `"}}}]}`)
	}
	for _, test := range []struct {
		name, verdict string
		document      serval.Document
	}{
		{"ours", "works", accepts(clientID)},
		{"another client's", "fails", accepts("another")},
		{"unread", "unknown", ""},
		{"no policy", "unknown", "nonsense"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w.push(prod, aRole(prod, "reader", func(r *serval.Role) { r.TrustPolicy = test.document }))
			one, err := w.plane.RoleByName(t.Context(), who, prod, "reader")
			if err != nil {
				t.Fatal(err)
			}
			list, _, err := w.plane.Roles(t.Context(), who, RoleFilter{AccountID: prod})
			list = slices.DeleteFunc(list, func(r Role) bool { return r.ARN != one.ARN })
			if err != nil || len(list) != 1 {
				t.Fatalf("the catalogue has the role %d times, %v", len(list), err)
			}
			if one.Trust.Verdict != test.verdict || list[0].Trust.Verdict != test.verdict || one.Trust.Reason == "" {
				t.Errorf("verdicts %+v and %+v, want %s with a reason", one.Trust, list[0].Trust, test.verdict)
			}
		})
	}
}
