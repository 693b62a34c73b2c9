package pages

import (
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A policy that is opened and saved is what it was, in every field that there is.
func TestPolicyForm(t *testing.T) {
	want := serval.AccessPolicy{
		Name:     "all of it",
		Roles:    serval.RoleMatch{Accounts: []string{"111122223333", "444455556666"}, ARNs: []string{"arn:aws:iam::*:role/a,b"}, Tags: map[string]string{"team": "a=b", "env": "", "x": "*"}},
		Eligible: serval.People{Groups: []string{"engineering", "night@shift"}, Emails: []string{"ana@example.com"}},
		Approval: serval.Approval{Steps: []serval.People{
			{Groups: []string{"sre-leads", "on@call"}, Emails: []string{"ben@example.com", "cy@example.com"}}, {Emails: []string{"ada@example.com"}}}},
		MaxMinutes: 480, MaxTotalMinutes: 960, RecommendedMinutes: 60,
		RequireJustification: true, AllowSelfApproval: true, AllowChaining: true, BreakGlass: true, SuspendOnEscalation: true,
	}
	got, priority, err := formOf(want, 7).policy()
	if err != nil || priority != 7 {
		t.Fatalf("priority %d, %v", priority, err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	automatic := serval.AccessPolicy{Approval: serval.Approval{Automatic: true}, MaxMinutes: 60}
	if got, _, err := formOf(automatic, 0).policy(); err != nil || cmp.Diff(automatic, got) != "" {
		t.Errorf("%+v, %v", got, err)
	}
	for name, f := range map[string]policyForm{
		"no approval": {Max: "60"}, "no number": {Approval: "automatic", Max: "an hour"}, "no priority": {Approval: "automatic", Max: "60", Priority: "first"},
	} {
		if _, _, err := f.policy(); !serval.IsRefusal(err, serval.Invalid) {
			t.Errorf("%s: %v, want a refusal", name, err)
		}
	}
}

// What is posted is what the form has.
func TestReadPolicyForm(t *testing.T) {
	want := policyForm{
		Name: "n", Priority: "7", Accounts: "1", ARNs: "a", Tags: "t", Groups: "g", Emails: "e", Approval: "steps", Steps: "s", Max: "1", Total: "2", Recommended: "3",
		NeedsReason: true, Self: true, Chaining: true, BreakGlass: true, SuspendOnEscalation: true,
	}
	got := readPolicyForm(url.Values{
		"name": {" n "}, "priority": {"7"}, "accounts": {"1"}, "arns": {"a"}, "tags": {"t"}, "groups": {"g"}, "emails": {"e"}, "approval": {"steps"}, "steps": {"s"},
		"max_minutes": {"1"}, "max_total_minutes": {"2"}, "recommended_minutes": {"3"}, "require_justification": {"1"}, "allow_self_approval": {"1"},
		"allow_chaining": {"1"}, "break_glass": {"1"}, "suspend_on_escalation": {"1"},
	})
	if got != want {
		t.Errorf("read %+v, want %+v", got, want)
	}
}

// The choices of minutes are few, within the bound, and have what is recommended
// and what was chosen.
func TestChoices(t *testing.T) {
	for _, c := range []struct {
		most, recommended int
		chosen            string
		want              []int
	}{
		{480, 60, "60", []int{30, 60, 120, 240, 480}},
		{20, 0, "20", []int{20}},
		{480, 45, "45", []int{30, 45, 60, 120, 480}},
		{43200, 720, "720", []int{30, 60, 120, 720, 43200}},
	} {
		var got []int
		for _, one := range choices(c.most, c.recommended, c.chosen) {
			got = append(got, one.Minutes)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("up to %d, recommended %d (-want +got):\n%s", c.most, c.recommended, d)
		}
	}
}

// An instant is what the script sends, or what a browser does in UTC.
func TestInstant(t *testing.T) {
	for text, want := range map[string]string{
		"": "0001-01-01T00:00:00Z", "2026-03-01T09:00": "2026-03-01T09:00:00Z", "2026-03-01T09:00:00.000Z": "2026-03-01T09:00:00Z", "2026-03-01T09:00:00+01:00": "2026-03-01T08:00:00Z",
	} {
		got, err := instant(text)
		if err != nil || got.Format("2006-01-02T15:04:05Z07:00") != want {
			t.Errorf("%q is %v, %v; want %s", text, got, err, want)
		}
	}
	if _, err := instant("tomorrow"); !serval.IsRefusal(err, serval.Invalid) {
		t.Errorf("tomorrow: %v, want a refusal", err)
	}
}
