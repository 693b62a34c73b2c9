package access

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// Each policy says why not, by the first reason; the first that matches decides
// and the others that would are named.
func TestExplain(t *testing.T) {
	role := target(prod, "team/admin", map[string]string{"serval": "", "team": "payments"})
	who := serval.Person{Email: "ana@example.com", Groups: []string{"engineering"}}
	mine := serval.People{Groups: []string{"engineering"}}
	policy := func(name string, m serval.RoleMatch, who serval.People) serval.AccessPolicy {
		return serval.AccessPolicy{Name: name, Roles: m, Eligible: who}
	}
	all := serval.RoleMatch{ARNs: []string{"*"}}
	var many []string
	for i := range 12 {
		many = append(many, fmt.Sprint("g", i))
	}
	var got []string
	for _, f := range Explain([]serval.AccessPolicy{
		policy("nothing", serval.RoleMatch{}, mine),
		policy("account", serval.RoleMatch{Accounts: []string{test}, ARNs: []string{"x"}}, serval.People{}),
		policy("arn", serval.RoleMatch{Accounts: []string{prod}, ARNs: []string{"*:role/admin", "x"}, Tags: map[string]string{"a": "b"}}, serval.People{}),
		policy("no tag", serval.RoleMatch{Tags: map[string]string{"team": "sre", "b": "*", "c": "*"}}, serval.People{}),
		policy("other tag", serval.RoleMatch{Tags: map[string]string{"team": "sre", "serval": "*"}}, mine),
		policy("empty key", serval.RoleMatch{Tags: map[string]string{"": "*"}}, mine),
		policy("group", all, serval.People{Groups: many}),
		policy("group and email", all, serval.People{Groups: []string{"sre"}, Emails: []string{"bo@example.com"}}),
		policy("email", all, serval.People{Emails: []string{"bo@example.com"}}),
		policy("first", all, mine),
		policy("second", all, serval.People{Emails: []string{"ANA@example.com"}}),
	}, role, who) {
		got = append(got, fmt.Sprintf("%s|%s|%t|%s", f.Policy.Name, f.Miss, f.Decides, f.Reason))
	}
	want := []string{
		"nothing|nothing|false|It names no roles.",
		"account|account|false|It is for other accounts than 111122223333: 444455556666.",
		"arn|arn|false|None of its patterns fits the role's ARN: *:role/admin, x.",
		`no tag|tag|false|The role has no tag "b".`,
		`other tag|tag|false|The role's tag "team" is "payments" and not "sre".`,
		`empty key|tag|false|The role has no tag "".`,
		"group|group|false|The person is in none of its groups: g0, g1, g2, g3, g4, g5, g6, g7, g8, g9 and 2 more.",
		"group and email|group|false|The person is in none of its groups: sre. Nor is their email named: bo@example.com.",
		"email|email|false|It is for these emails only: bo@example.com.",
		"first||true|It is the first that matches role and person, and decides.",
		"second||false|It matches too, and is not asked: an earlier policy decides.",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// What is explained is what is decided, whatever the policies: exactly the one
// that Decide returns decides, and one matches if and only if it would decide
// alone.
func TestExplainAndDecideAgree(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(from ...string) (some []string) {
		for _, one := range from {
			if r.IntN(3) == 0 {
				some = append(some, one)
			}
		}
		return some
	}
	tags := func(values ...string) map[string]string {
		m := map[string]string{}
		for _, key := range pick("team", "", "Team", "serval") {
			m[key] = values[r.IntN(len(values))]
		}
		return m
	}
	matched := 0
	for range 20_000 {
		policies := make([]serval.AccessPolicy, r.IntN(5))
		for i := range policies {
			policies[i] = serval.AccessPolicy{
				Name:     fmt.Sprint(i),
				Roles:    serval.RoleMatch{Accounts: pick(prod, test, "*"), ARNs: pick("*", "*:role/?", "*:role/a*", "", "arn:aws:iam::"+prod+":role/a"), Tags: tags("*", "", "x")},
				Eligible: serval.People{Groups: pick("g", "G", ""), Emails: pick("a@b.c", "A@B.C", "x@b.c", "\u212a@b.c")},
			}
		}
		role := target([]string{prod, test}[r.IntN(2)], []string{"a", "ab", "b/a"}[r.IntN(3)], tags("", "x", "*"))
		who := serval.Person{Email: []string{"a@B.c", "k@b.c", ""}[r.IntN(3)], Groups: pick("g", "")}
		decided, ok := Decide(policies, role, who)
		findings := Explain(policies, role, who)
		if len(findings) != len(policies) {
			t.Fatalf("%d findings of %d policies", len(findings), len(policies))
		}
		for i, f := range findings {
			if f.Policy.Name != policies[i].Name {
				t.Fatalf("finding %d is of policy %s", i, f.Policy.Name)
			}
			if _, alone := Decide(policies[i:i+1], role, who); alone != (f.Miss == Matched) {
				t.Fatalf("%+v, role %+v, who %+v: Decide alone says %t, Explain %q", policies[i], role, who, alone, f.Miss)
			}
			if f.Decides != (ok && f.Policy.Name == decided.Name) {
				t.Fatalf("policy %s decides: %t, and Decide returned %q", f.Policy.Name, f.Decides, decided.Name)
			}
			if f.Reason == "" {
				t.Fatalf("policy %s says nothing", f.Policy.Name)
			}
		}
		if ok {
			matched++
		}
	}
	if matched < 1000 {
		t.Errorf("only %d of 20000 matched: the test looks at too little", matched)
	}
}
