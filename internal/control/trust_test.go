package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/trust"
)

// trusting returns what makes a role trust our provider under a condition.
func trusting(condition string) func(*serval.Role) {
	return func(r *serval.Role) {
		r.TrustPolicy = serval.Document(fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow",
			"Principal":{"Federated":"arn:aws:iam::%s:oidc-provider/acme.okta.example"},
			"Action":"sts:AssumeRoleWithWebIdentity","Condition":%s}]}`, prod, condition))
	}
}

const (
	closed    = `{"StringEquals":{"acme.okta.example:aud":"serval"},"IpAddress":{"aws:SourceIp":"203.0.113.7/32"}}`
	openWide  = `{"StringEquals":{"acme.okta.example:aud":"serval"}}`
	anyClient = `{"IpAddress":{"aws:SourceIp":"203.0.113.7/32"}}`
)

// S-24: what is to be known about trust policies is shown to auditors, and keeps
// sessions from being opened where the setting says so.
func TestFindings(t *testing.T) {
	w := newWorld(t)
	broken := func(r *serval.Role) { r.TrustPolicy = `{"Version":"2012-10-17","Statement":[{"Effect":"Perhaps"}]}` }
	w.push(prod, aRole(prod, "closedreader", trusting(closed)), aRole(prod, "openreader", trusting(openWide)),
		aRole(prod, "anyreader", trusting(anyClient)), aRole(prod, "brokenreader", broken))
	p := w.people()

	list := func(who serval.Principal, f FindingFilter) (lines []string, next string, err error) {
		roles, next, err := w.plane.Findings(t.Context(), who, f)
		for _, r := range roles {
			line := r.AccountName + "/" + r.Name
			for _, found := range r.Findings {
				line += " " + string(found.Severity) + ":" + found.ID
			}
			if r.Unreadable != "" {
				line += " unreadable"
			}
			lines = append(lines, line)
		}
		return lines, next, err
	}
	for _, test := range []struct {
		filter FindingFilter
		want   []string
		next   string
	}{
		{FindingFilter{}, []string{"prod/anyreader high:audience-missing", "prod/brokenreader unreadable", "prod/openreader medium:bypass"}, ""},
		{FindingFilter{Severity: "medium"}, []string{"prod/anyreader high:audience-missing", "prod/brokenreader unreadable", "prod/openreader medium:bypass"}, ""},
		{FindingFilter{Severity: "high"}, []string{"prod/anyreader high:audience-missing", "prod/brokenreader unreadable"}, ""},
		{FindingFilter{Limit: 1}, []string{"prod/anyreader high:audience-missing"}, roleARN(prod, "anyreader")},
		{FindingFilter{After: roleARN(prod, "anyreader"), Limit: 5}, []string{"prod/brokenreader unreadable", "prod/openreader medium:bypass"}, ""},
		{FindingFilter{AccountID: dev}, nil, ""},
		{FindingFilter{Severity: "high", Limit: 1}, []string{"prod/anyreader high:audience-missing"}, roleARN(prod, "anyreader")}, // looked at before
	} {
		got, next, err := list(p.adm, test.filter)
		if d := cmp.Diff(test.want, got); d != "" || next != test.next || err != nil {
			t.Errorf("%+v: next %q, %v (-want +got):\n%s", test.filter, next, err, d)
		}
	}
	_, _, err := list(p.ana, FindingFilter{})
	wantKind(t, "findings for a person", err, serval.Denied)
	_, _, err = list(p.adm, FindingFilter{Severity: "grave"})
	wantKind(t, "a severity that is none", err, serval.Invalid)
	_, _, err = list(p.adm, FindingFilter{After: "x"})
	wantKind(t, "a page of another list", err, serval.Invalid)

	for _, test := range []struct {
		block   trust.Severity
		role    string
		refused string // what the refusal says; empty where the session opens
	}{
		{"", "anyreader", ""}, {"", "brokenreader", ""}, {trust.Low, "closedreader", ""},
		{trust.High, "openreader", ""}, {trust.High, "anyreader", "does not ask for our audience"},
		{trust.Medium, "openreader", "without the bridge"}, {trust.Low, "brokenreader", "cannot be looked at"},
	} {
		plane := w.newPlane(w.store, func(s *Settings) { s.BlockFindings = test.block })
		r := w.ask(p.ana, roleARN(prod, test.role), 60)
		_, err := plane.Open(t.Context(), p.ana, opening(r.ID))
		role, roleErr := plane.RoleByName(t.Context(), p.ana, prod, test.role)
		if roleErr != nil {
			t.Fatal(roleErr)
		}
		refusal, refused := errors.AsType[*serval.Refusal](err)
		switch {
		case test.refused == "" && err != nil:
			t.Errorf("%s with findings blocked from %q: %v", test.role, test.block, err)
		case test.refused != "" && (!refused || refusal.Kind != serval.FailedPrecondition || refusal.Detail["cause"] != "finding" || !strings.Contains(refusal.Reason, test.refused)):
			t.Errorf("%s with findings blocked from %q: %v, want it refused: %s", test.role, test.block, err, test.refused)
		}
		x, explainErr := plane.Explain(t.Context(), p.adm, "ana@example.com", roleARN(prod, test.role))
		if explainErr != nil || !x.May || x.Blocked != role.Blocked || !strings.HasSuffix(x.Why, role.Blocked) {
			t.Errorf("%s with findings blocked from %q is explained so: %v, %q, blocked %q, %v; want what blocks it", test.role, test.block, x.May, x.Why, x.Blocked, explainErr)
		}
		if (role.Blocked == "") != (test.refused == "") || refused && role.Blocked != refusal.Reason {
			t.Errorf("%s with findings blocked from %q: the role says %q, the refusal %v", test.role, test.block, role.Blocked, err)
		}
	}
}

// Of many trust policies that nobody has looked at yet a page looks at a bounded
// number; the pages behind it find what there is.
func TestFindingsOfManyRoles(t *testing.T) {
	w := newWorld(t)
	var roles []serval.Role
	for i := range mostJudged + 10 {
		roles = append(roles, aRole(prod, fmt.Sprintf("r%05d", i), trusting(closed)))
	}
	w.push(prod, append(roles, aRole(prod, "zopen", trusting(openWide)))...)
	p := w.people()
	roleAt := func(i int) string { return roleARN(prod, fmt.Sprintf("r%05d", i)) }
	for _, test := range []struct {
		after string
		found int
		next  string
	}{
		{"", 0, roleAt(mostJudged - 1)}, {roleAt(mostJudged - 1), 1, ""},
		{"", 1, ""}, // all have been looked at
	} {
		found, next, err := w.plane.Findings(t.Context(), p.aud, FindingFilter{Severity: "medium", After: test.after, Limit: 100})
		if err != nil || len(found) != test.found || next != test.next {
			t.Errorf("behind %q: %d roles, next %q, %v; want %d and %q", test.after, len(found), next, err, test.found, test.next)
		}
	}
}

// A trust policy that is of no role can be asked about, by admins.
func TestExplainTrust(t *testing.T) {
	w := newWorld(t)
	p := w.people()
	document := serval.Document(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Federated":"arn:aws:iam::111122223333:oidc-provider/x.example"},
		"Action":"sts:AssumeRoleWithWebIdentity","Condition":{"StringEquals":{"x.example:aud":"a"}}}]}`)
	attempt := []byte(`{"action":"sts:AssumeRoleWithWebIdentity","role_arn":"arn:aws:iam::111122223333:role/r","issuer":"https://x.example","audience":"b","azp":null,"passes_tags":false,"transitive_tags":false,"source_identity":null}`)
	verdict, findings, err := w.plane.ExplainTrust(t.Context(), p.adm, document, attempt)
	if err != nil || verdict.Verdict != trust.Fails || verdict.Mend == nil || len(findings) == 0 || findings[0].ID != trust.FindingAudienceOther {
		t.Errorf("%+v %+v %v, want a refusal with its mend and a finding", verdict, findings, err)
	}
	_, findings, err = w.plane.ExplainTrust(t.Context(), p.adm, document, []byte(`{"action":"sts:AssumeRole"}`))
	if err != nil || len(findings) != 0 {
		t.Errorf("whose provider is ours is not told: %+v %v, want no findings", findings, err)
	}
	_, _, err = w.plane.ExplainTrust(t.Context(), p.ana, document, attempt)
	wantKind(t, "by a person", err, serval.Denied)
	_, _, err = w.plane.ExplainTrust(t.Context(), p.adm, `{"Version":"2012-10-17"}`, attempt)
	wantKind(t, "no trust policy", err, serval.Invalid)
	_, _, err = w.plane.ExplainTrust(t.Context(), p.adm, document, []byte(`{"subjekt":"x"}`))
	wantKind(t, "no context", err, serval.Invalid)
}

// Where AWS says AccessDenied and nothing else, the refusal says what the trust
// policy tells, and who can mend it; the record keeps AWS's own.
// What AWS's code tells too little of is looked for, and what is found is said to
// the person and not in AWS's place in the record.
func TestProbesExplain(t *testing.T) {
	w := newWorld(t).stock()
	var asked []string
	found := true
	w.usePlane(w.newPlane(w.store, func(s *Settings) {
		s.Probe = func(ctx context.Context, code string) (Cause, bool) {
			if _, bounded := ctx.Deadline(); !bounded {
				t.Error("a probe has no deadline")
			}
			asked = append(asked, code)
			return Cause{"dns", "sts.example has no address. The operator of Serval can mend that.", "operator"}, found
		}
	}))
	ana := w.engineer("ana@example.com")
	r := w.ask(ana, roleARN(prod, "reader"), 60)
	said := &serval.Refusal{Kind: serval.Unavailable, Reason: "AWS did not answer."}
	fails := func(code string) *serval.Refusal {
		t.Helper()
		refusal := *said
		refusal.Detail = map[string]string{"code": code}
		w.sts.say(func(context.Context, serval.Mint, serval.Minted) (serval.Minted, error) {
			return serval.Minted{}, &refusal
		})
		_, err := w.tryOpen(ana, opening(r.ID))
		got, ok := errors.AsType[*serval.Refusal](err)
		if !ok || got.Kind != said.Kind {
			t.Fatalf("%s: %v, want it refused as before", code, err)
		}
		return got
	}
	before := w.head()
	if got := fails("NoAnswer"); got.Detail["probe"] != "dns" || got.Detail["mended_by"] != "operator" || got.Detail["code"] != "NoAnswer" ||
		got.Reason != "No session was opened. sts.example has no address. The operator of Serval can mend that." {
		t.Errorf("probed: %+v", got)
	}
	for _, e := range w.events(before) {
		if e.Action == serval.SessionFail && e.Reason != said.Reason {
			t.Errorf("recorded as %q, want what AWS came to", e.Reason)
		}
	}
	found = false
	for _, code := range []string{"NoAnswer", "AccessDenied", ""} { // AccessDenied is the trust policy's to explain
		if got := fails(code); got.Detail["probe"] != "" || !strings.HasPrefix(got.Reason, said.Reason) {
			t.Errorf("%q, and nothing is found: %+v", code, got)
		}
	}
	said = &serval.Refusal{Kind: serval.FailedPrecondition, Reason: "The account does not know your identity provider."}
	fails("InvalidIdentityToken") // AWS has said it
	if !slices.Equal(asked, []string{"NoAnswer", "NoAnswer"}) {
		t.Errorf("probed for %q, want NoAnswer twice", asked)
	}
}

func TestAccessDeniedIsExplained(t *testing.T) {
	w := newWorld(t)
	other := `{"StringEquals":{"acme.okta.example:aud":"another"}}`
	w.push(prod, aRole(prod, "otherreader", trusting(other)), aRole(prod, "openreader", trusting(openWide)), aRole(prod, "officereader", trusting(closed)))
	p := w.people()
	said := &serval.Refusal{Kind: serval.FailedPrecondition, Reason: "It does not trust your sign-in, or is gone.", Detail: map[string]string{"code": "AccessDenied"}}
	for _, test := range []struct {
		role, code, verdict, mends string
		says                       []string
	}{
		{"otherreader", "AccessDenied", trust.Fails, "role_owner", []string{"because the trust policy", `"another"`, "Whoever owns the role"}},
		{"openreader", "AccessDenied", trust.Works, "account_owner", []string{"although the trust policy", "2026-03-01 12:00 UTC", "the IAM OIDC provider", "Whoever owns the account"}},
		{"officereader", "AccessDenied", "", "", []string{said.Reason, "cannot be told"}},
		{"otherreader", "ExpiredTokenException", "", "", []string{said.Reason}},
	} {
		r := w.ask(p.ana, roleARN(prod, test.role), 60)
		refusal := *said
		refusal.Detail = map[string]string{"code": test.code}
		w.sts.say(func(context.Context, serval.Mint, serval.Minted) (serval.Minted, error) {
			return serval.Minted{}, &refusal
		})
		before := w.head()
		_, err := w.tryOpen(p.ana, opening(r.ID))
		got, ok := errors.AsType[*serval.Refusal](err)
		if !ok || got.Kind != serval.FailedPrecondition || got.Detail["code"] != test.code ||
			test.mends != "" && (got.Detail["trust_verdict"] != test.verdict || got.Detail["mended_by"] != test.mends) {
			t.Errorf("%s, %s: %+v, want it with the verdict %s", test.role, test.code, err, test.verdict)
			continue
		}
		for _, says := range test.says {
			if !strings.Contains(got.Reason, says) {
				t.Errorf("%s, %s: %q, want %q in it", test.role, test.code, got.Reason, says)
			}
		}
		for _, e := range w.events(before) {
			if e.Action == serval.SessionFail && e.Reason != said.Reason {
				t.Errorf("%s: recorded as %q, want what AWS came to: %q", test.role, e.Reason, said.Reason)
			}
		}
	}
}
