package access

import (
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

const prod, test = "111122223333", "444455556666"

func target(account, name string, tags map[string]string) Target {
	return Target{AccountID: account, ARN: "arn:aws:iam::" + account + ":role/" + name, Tags: tags}
}

func TestMatches(t *testing.T) {
	type tags = map[string]string
	role := target(prod, "team/a/dev-x", tags{"serval": "", "team": "payments"})
	for _, c := range []struct {
		name string
		m    serval.RoleMatch
		want bool
	}{
		{"nothing given", serval.RoleMatch{}, false},
		{"empty lists", serval.RoleMatch{Accounts: []string{}, ARNs: []string{}, Tags: tags{}}, false},
		{"its account", serval.RoleMatch{Accounts: []string{prod}}, true},
		{"one of two accounts", serval.RoleMatch{Accounts: []string{test, prod}}, true},
		{"another account", serval.RoleMatch{Accounts: []string{test}}, false},
		{"accounts are no patterns", serval.RoleMatch{Accounts: []string{"*", "1111*"}}, false},
		{"its ARN", serval.RoleMatch{ARNs: []string{role.ARN}}, true},
		{"one of two patterns", serval.RoleMatch{ARNs: []string{"x", "arn:aws:iam::*:role/*dev-*"}}, true},
		{"no pattern", serval.RoleMatch{ARNs: []string{"arn:aws:iam::*:role/dev-*"}}, false},
		{"its tag", serval.RoleMatch{Tags: tags{"team": "payments"}}, true},
		{"any value of a tag", serval.RoleMatch{Tags: tags{"team": "*"}}, true},
		{"any value, also an empty one", serval.RoleMatch{Tags: tags{"serval": "*"}}, true},
		{"an empty value", serval.RoleMatch{Tags: tags{"serval": ""}}, true},
		{"an empty value where there is one", serval.RoleMatch{Tags: tags{"team": ""}}, false},
		{"any value of a tag it does not have", serval.RoleMatch{Tags: tags{"owner": "*"}}, false},
		{"an empty value of a tag it does not have", serval.RoleMatch{Tags: tags{"owner": ""}}, false},
		{"values are no patterns", serval.RoleMatch{Tags: tags{"team": "pay*"}}, false},
		{"a value in another case", serval.RoleMatch{Tags: tags{"team": "Payments"}}, false},
		{"a key in another case", serval.RoleMatch{Tags: tags{"Team": "payments"}}, false},
		{"both tags", serval.RoleMatch{Tags: tags{"team": "payments", "serval": "*"}}, true},
		{"one of two tags", serval.RoleMatch{Tags: tags{"team": "payments", "owner": "*"}}, false},
		{"all three", serval.RoleMatch{Accounts: []string{prod}, ARNs: []string{"*"}, Tags: tags{"team": "payments"}}, true},
		{"all but the account", serval.RoleMatch{Accounts: []string{test}, ARNs: []string{"*"}, Tags: tags{"team": "payments"}}, false},
		{"all but the ARN", serval.RoleMatch{Accounts: []string{prod}, ARNs: []string{"x"}, Tags: tags{"team": "payments"}}, false},
		{"all but the tag", serval.RoleMatch{Accounts: []string{prod}, ARNs: []string{"*"}, Tags: tags{"team": "sre"}}, false},
	} {
		if got := Matches(c.m, role); got != c.want {
			t.Errorf("%s: got %t, want %t", c.name, got, c.want)
		}
	}
	// S-2: a role of the same name elsewhere is another.
	if Matches(serval.RoleMatch{Accounts: []string{prod}, ARNs: []string{"*:role/admin"}}, target(test, "admin", nil)) {
		t.Error("a role of the same name in another account matches")
	}
}

func TestDecide(t *testing.T) {
	policy := func(name string, arns []string, groups []string, emails ...string) serval.AccessPolicy {
		return serval.AccessPolicy{Name: name, Roles: serval.RoleMatch{ARNs: arns}, Eligible: serval.People{Groups: groups, Emails: emails}}
	}
	policies := []serval.AccessPolicy{
		policy("break-glass", []string{"*:role/admin"}, []string{"sre"}),
		policy("ana", []string{"*:role/dev-*"}, nil, "ana@example.com"),
		policy("engineers", []string{"*:role/dev-*", "*:role/ops-*"}, []string{"engineering"}),
		policy("everybody", []string{"*:role/read-*"}, []string{"engineering", "sre"}, "eve@example.com"),
		policy("nobody", []string{"*"}, nil),
		policy("never reached", []string{"*:role/dev-*"}, []string{"engineering"}),
	}
	ana := serval.Person{Email: "Ana@Example.com", Groups: []string{"engineering"}}
	bo := serval.Person{Email: "bo@example.com", Groups: []string{"engineering"}}
	sre := serval.Person{Email: "s@example.com", Groups: []string{"sre"}}
	for _, c := range []struct {
		name string
		role string
		who  serval.Person
		want string // the policy that decides; empty for none
	}{
		{"the first that fits decides, though a later fits too", "dev-x", ana, "ana"},
		{"the first is for another", "dev-x", bo, "engineers"},
		{"the second pattern", "ops-x", ana, "engineers"},
		{"by group", "admin", sre, "break-glass"},
		{"not by group", "admin", ana, ""},
		{"eligible for others only", "dev-x", sre, ""},
		{"by email", "read-x", serval.Person{Email: "eve@example.com"}, "everybody"},
		{"nobody", "dev-x", serval.Person{}, ""},
		{"a group in another case", "dev-x", serval.Person{Groups: []string{"Engineering"}}, ""},
		{"a role that no policy names", "secret", ana, ""},
	} {
		p, ok := Decide(policies, target(prod, c.role, nil), c.who)
		if p.Name != c.want || ok != (c.want != "") {
			t.Errorf("%s: got %q, %t; want %q", c.name, p.Name, ok, c.want)
		}
	}

	// Never a union: what the first is stricter in stays so.
	strict := policy("strict", []string{"*"}, []string{"engineering"})
	strict.MaxMinutes, strict.RequireJustification = 15, true
	lax := policy("lax", []string{"*"}, []string{"engineering"}, "ana@example.com")
	lax.MaxMinutes, lax.AllowSelfApproval = 480, true
	got, ok := Decide([]serval.AccessPolicy{strict, lax}, target(prod, "dev", nil), ana)
	if diff := cmp.Diff(strict, got); diff != "" || !ok {
		t.Errorf("of two that fit (-want +got):\n%s", diff)
	}
	if got, ok := Decide([]serval.AccessPolicy{lax, strict}, target(prod, "dev", nil), ana); !ok || got.Name != "lax" {
		t.Errorf("in the other order: got %q, %t; want lax", got.Name, ok)
	}
	if got, ok := Decide(nil, target(prod, "dev", nil), ana); ok {
		t.Errorf("of no policies: got %q", got.Name)
	}
}

func TestMatchPattern(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"", "", true}, {"", "a", false}, {"a", "", false}, {"*", "", true}, {"**", "", true}, {"?", "", false}, {"*?", "", false},
		{"a", "a", true}, {"a", "b", false}, {"a", "aa", false}, {"aa", "a", false}, {"a", "A", false}, {"K", "\u212A", false},
		{"*", "a/b/c", true}, {"a*", "a", true}, {"a*", "a/b/c", true}, {"*c", "a/b/c", true}, {"a*c", "a/b/c", true}, {"a*c", "ac", true},
		{"a*b", "a/b/c", false}, {"*b", "a/b/c", false}, {"b*", "a/b/c", false},
		{"?", "a", true}, {"?", "/", true}, {"?", "ü", true}, {"?", "ab", false}, {"a?c", "abc", true}, {"a?c", "ac", false}, {"a?c", "abbc", false},
		{"?*", "a", true}, {"*?", "a", true}, {"*?*", "a", true}, {"??*", "a", false},
		{"a*a*a", "aaa", true}, {"a*a*a", "aa", false}, {"*ab*ab*", "abab", true}, {"*ab*ab*", "aab", false}, {"*aab", "aaaab", true},
		{"a.c", "abc", false}, {"[a]", "a", false}, {"\\*", "*", false}, {"\\*", "\\x", true}, {"a+", "aa", false}, {"(a|b)", "a", false}, {"^a$", "a", false},
		{"a\n*", "a\nb", true}, {"*", "a\nb", true},
		{"arn:aws:iam::*:role/dev-*", "arn:aws:iam::111122223333:role/dev-x", true},
		{"arn:aws:iam::*:role/dev-*", "arn:aws:iam::111122223333:role/team/dev-x", false},
		{"arn:aws:iam::*:role/*dev-*", "arn:aws:iam::111122223333:role/team/dev-x", true},
		// A * reaches anywhere: here across the account into a path.
		{"arn:aws:iam::*:role/dev", "arn:aws:iam::111122223333:role/x:role/dev", true},
		{"arn:aws:iam::111122223333:role/dev", "arn:aws:iam::111122223333:role/dev2", false},
		{"arn:aws:iam::111122223333:role/dev", "xarn:aws:iam::111122223333:role/dev", false},
	} {
		if got := MatchPattern(c.pattern, c.text); got != c.want {
			t.Errorf("MatchPattern(%q, %q) = %t, want %t", c.pattern, c.text, got, c.want)
		}
	}
}

// TestMatchPattern_pathological would take longer than the universe with a
// matcher that tries every way.
func TestMatchPattern_pathological(t *testing.T) {
	start := time.Now()
	text := strings.Repeat("a", 2048)
	for _, pattern := range []string{
		strings.Repeat("a*", 1000) + "b", strings.Repeat("*a", 1000) + "b", strings.Repeat("*", 2047) + "b",
		strings.Repeat("?*", 1000) + "b", strings.Repeat("*?", 1020) + "b",
	} {
		if MatchPattern(pattern, text) {
			t.Errorf("%.20s… matches what does not end in b", pattern)
		}
	}
	if !MatchPattern(strings.Repeat("*a", 1024), text) {
		t.Error("a thousand stars do not match what they should")
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("matching took %s", took)
	}
}

// FuzzMatchPattern compares with the regular expression that says the same.
func FuzzMatchPattern(f *testing.F) {
	f.Add("arn:aws:iam::*:role/dev-?", "arn:aws:iam::111122223333:role/dev-x")
	f.Add("*a*b?c*", "xaxxbbc")
	f.Add("**?", "")
	f.Fuzz(func(t *testing.T, pattern, text string) {
		if len(pattern) > 200 || len(text) > 1000 || !utf8.ValidString(pattern) || !utf8.ValidString(text) {
			return
		}
		quoted := regexp.QuoteMeta(pattern)
		re := regexp.MustCompile(`(?s)\A` + strings.NewReplacer(`\*`, `.*`, `\?`, `.`).Replace(quoted) + `\z`)
		if got, want := MatchPattern(pattern, text), re.MatchString(text); got != want {
			t.Errorf("MatchPattern(%q, %q) = %t, want %t", pattern, text, got, want)
		}
	})
}
