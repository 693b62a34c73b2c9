package serval

import (
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func testPolicy() AccessPolicy {
	return AccessPolicy{
		Name:     "dev",
		Roles:    RoleMatch{Accounts: []string{"111122223333"}, ARNs: []string{"arn:aws:iam::*:role/dev-*"}, Tags: map[string]string{"team": "a"}},
		Eligible: People{Groups: []string{"engineering"}, Emails: []string{"ana@example.com"}},
		Approval: Approval{Steps: []People{first, second}}, MaxMinutes: 120, RecommendedMinutes: 60,
	}
}

func TestAccessPolicy_Faults(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(p *AccessPolicy)
		want string
	}{
		{"none", func(p *AccessPolicy) {}, ""},
		{"automatic", func(p *AccessPolicy) { p.Approval = Approval{Automatic: true} }, ""},
		{"by accounts alone", func(p *AccessPolicy) { p.Roles = RoleMatch{Accounts: []string{"111122223333"}} }, ""},
		{"by ARNs alone", func(p *AccessPolicy) { p.Roles = RoleMatch{ARNs: []string{"*"}} }, ""},
		{"by tags alone", func(p *AccessPolicy) { p.Roles = RoleMatch{Tags: map[string]string{"team": "*"}} }, ""},
		{"no name", func(p *AccessPolicy) { p.Name = "" }, "name"},
		{"a blank name", func(p *AccessPolicy) { p.Name = " " }, "name"},
		{"a name of 100", func(p *AccessPolicy) { p.Name = strings.Repeat("ü", 100) }, ""},
		{"a name of 101", func(p *AccessPolicy) { p.Name = strings.Repeat("ü", 101) }, "name"},
		{"no roles", func(p *AccessPolicy) { p.Roles = RoleMatch{} }, "roles"},
		{"an account that is none", func(p *AccessPolicy) { p.Roles.Accounts = []string{"111122223333", "*"} }, "roles.accounts[1]"},
		{"an empty pattern", func(p *AccessPolicy) { p.Roles.ARNs = []string{"*", ""} }, "roles.arns[1]"},
		{"a pattern of 2048", func(p *AccessPolicy) { p.Roles.ARNs = []string{strings.Repeat("*", 2048)} }, ""},
		{"a pattern of 2049", func(p *AccessPolicy) { p.Roles.ARNs = []string{strings.Repeat("*", 2049)} }, "roles.arns[0]"},
		{"nobody eligible", func(p *AccessPolicy) { p.Eligible = People{} }, "eligible"},
		{"an email that is none", func(p *AccessPolicy) { p.Eligible.Emails = []string{"ana"} }, "eligible.emails[0]"},
		{"a group without a name", func(p *AccessPolicy) { p.Eligible.Groups = []string{"a", ""} }, "eligible.groups[1]"},
		{"no approval", func(p *AccessPolicy) { p.Approval = Approval{} }, "approval"},
		{"automatic with steps", func(p *AccessPolicy) { p.Approval.Automatic = true }, "approval"},
		{"the glass of no steps", func(p *AccessPolicy) { p.Approval, p.BreakGlass = Approval{Automatic: true}, true }, "break_glass"},
		{"the glass of steps", func(p *AccessPolicy) { p.BreakGlass = true }, ""},
		{"suspended until nobody approves", func(p *AccessPolicy) { p.Approval, p.SuspendOnEscalation = Approval{Automatic: true}, true }, "suspend_on_escalation"},
		{"suspended until a step approves", func(p *AccessPolicy) { p.SuspendOnEscalation = true }, ""},
		{"a step of nobody", func(p *AccessPolicy) { p.Approval.Steps = []People{first, {}} }, "approval.steps[1]"},
		{"a step with a bad email", func(p *AccessPolicy) { p.Approval.Steps = []People{{Emails: []string{"x"}}} }, "approval.steps[0].emails[0]"},
		{"no minutes", func(p *AccessPolicy) { p.MaxMinutes, p.RecommendedMinutes = 0, 0 }, "max_minutes"},
		{"negative minutes", func(p *AccessPolicy) { p.MaxMinutes, p.RecommendedMinutes = -1, -1 }, "max_minutes recommended_minutes"},
		{"thirty days", func(p *AccessPolicy) { p.MaxMinutes = 43200 }, ""},
		{"more than thirty days", func(p *AccessPolicy) { p.MaxMinutes = 43201 }, "max_minutes"},
		{"a total as large", func(p *AccessPolicy) { p.MaxTotalMinutes = 120 }, ""},
		{"a total too small", func(p *AccessPolicy) { p.MaxTotalMinutes = 119 }, "max_total_minutes"},
		{"a negative total", func(p *AccessPolicy) { p.MaxTotalMinutes = -1 }, "max_total_minutes"},
		{"a total of a year", func(p *AccessPolicy) { p.MaxTotalMinutes = 525600 }, ""},
		{"a total that would overflow", func(p *AccessPolicy) { p.MaxTotalMinutes = 1 << 60 }, "max_total_minutes"},
		{"recommended as much as there is", func(p *AccessPolicy) { p.RecommendedMinutes = 120 }, ""},
		{"recommended more", func(p *AccessPolicy) { p.RecommendedMinutes = 121 }, "recommended_minutes"},
		{"recommended less than nothing", func(p *AccessPolicy) { p.RecommendedMinutes = -1 }, "recommended_minutes"},
		{"all at once", func(p *AccessPolicy) { *p = AccessPolicy{MaxTotalMinutes: -1, RecommendedMinutes: 1} },
			"name roles eligible approval max_minutes max_total_minutes recommended_minutes"},
	} {
		p := testPolicy()
		c.do(&p)
		faults := p.Faults()
		if diff := cmp.Diff(c.want, fieldsOf(faults)); diff != "" {
			t.Errorf("%s (-want +got):\n%s%s", c.name, diff, strings.Join(faults, "\n"))
		}
	}
}

func TestAccessPolicy_TotalMinutes(t *testing.T) {
	if got := (AccessPolicy{MaxMinutes: 120}).TotalMinutes(); got != 360 {
		t.Errorf("without a total: got %d, want three times the 120", got)
	}
	if got := (AccessPolicy{MaxMinutes: 120, MaxTotalMinutes: 121}).TotalMinutes(); got != 121 {
		t.Errorf("with a total: got %d, want it, 121", got)
	}
}

// TestAccessPolicy_Digest changes each field in turn.
func TestAccessPolicy_Digest(t *testing.T) {
	if one, other := testPolicy().Digest(), testPolicy().Digest(); one != other {
		t.Error("the same policy has two digests")
	}
	seen := map[string]string{testPolicy().Digest(): "as it was"}
	var change func(name string, of func(p *AccessPolicy) reflect.Value, t reflect.Type)
	change = func(name string, of func(p *AccessPolicy) reflect.Value, typ reflect.Type) {
		if typ.Kind() == reflect.Struct {
			for i := range typ.NumField() {
				change(name+"."+typ.Field(i).Name, func(p *AccessPolicy) reflect.Value { return of(p).Field(i) }, typ.Field(i).Type)
			}
			return
		}
		p := testPolicy()
		switch v := of(&p); typ.Kind() {
		case reflect.String:
			v.SetString(v.String() + "x")
		case reflect.Bool:
			v.SetBool(!v.Bool())
		case reflect.Int:
			v.SetInt(v.Int() + 1)
		case reflect.Slice:
			v.Set(reflect.Append(v, reflect.Zero(typ.Elem())))
		case reflect.Map:
			v.Set(reflect.ValueOf(map[string]string{"team": "b"}))
		default:
			t.Fatalf("%s is a %s: teach the test to change it", name, typ)
		}
		d := p.Digest()
		if other, taken := seen[d]; taken {
			t.Errorf("%s changed gives the same digest as %s", name, other)
		}
		seen[d] = name
	}
	change("", func(p *AccessPolicy) reflect.Value { return reflect.ValueOf(p).Elem() }, reflect.TypeFor[AccessPolicy]())
	reordered := testPolicy()
	reordered.Approval.Steps = []People{second, first}
	if _, taken := seen[reordered.Digest()]; taken {
		t.Error("steps in another order give the same digest")
	}
}

func TestPeople(t *testing.T) {
	p := People{Groups: []string{"leads", "sre"}, Emails: []string{"Cy@Example.com"}}
	for _, c := range []struct {
		name string
		who  Person
		want bool
	}{
		{"by group", Person{Groups: []string{"x", "sre"}}, true},
		{"by email, in another case", Person{Email: "cY@example.COM"}, true},
		{"by a group in another case", Person{Groups: []string{"SRE"}}, false},
		{"by part of a group", Person{Groups: []string{"sr", "sre2"}}, false},
		{"by another email", Person{Email: "cy@example.com.evil.com"}, false},
		{"nobody", Person{}, false},
	} {
		if got := p.Include(c.who); got != c.want {
			t.Errorf("%s: included %t, want %t", c.name, got, c.want)
		}
	}
	if (People{}).Include(Person{}) || !(People{}).IsEmpty() || p.IsEmpty() || (People{Groups: []string{"a"}}).IsEmpty() {
		t.Error("nobody includes somebody, or is not empty, or somebody is")
	}
	if got, want := p.String(), "Cy@Example.com, group leads, group sre"; got != want {
		t.Errorf("String: got %q, want %q", got, want)
	}
}
