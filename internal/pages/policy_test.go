package pages

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/control"
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
		{20, 0, "20", []int{15, 20}},
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

// A policy that is moved changes places with its neighbour and nothing else, and
// no change on the way there makes another order.
func TestMoved(t *testing.T) {
	inOrder := func(list []control.Policy) string {
		list = slices.Clone(list)
		slices.SortStableFunc(list, func(a, b control.Policy) int {
			switch {
			case a.Source != b.Source:
				return strings.Compare(b.Source, a.Source) // file before api
			case a.Source == "file":
				return 0
			case a.Priority != b.Priority:
				return a.Priority - b.Priority
			}
			return strings.Compare(a.Name, b.Name)
		})
		var names []string
		for _, k := range list {
			names = append(names, k.Name)
		}
		return strings.Join(names, " ")
	}
	for _, test := range []struct {
		list string // name:priority, in order; those without a priority are the file's
		move string
		want string
	}{
		{"a:1 b:2 c:3", "b up", "b a c"},
		{"a:1 b:2 c:3", "b down", "a c b"},
		{"a:100 b:100 c:100 d:100", "d up", "a b d c"},
		{"a:100 b:100 c:100 d:100", "a down", "b a c d"},
		{"a:100 b:100 c:100 d:100 e:101", "b down", "a c b d e"},
		{"b:7 a:8 c:8", "a up", "a b c"},
		{"b:7 a:8 c:8", "b down", "a b c"},
		{"a:1 z:5 b:6", "z up", "z a b"},
		{"f g a:1 b:1", "b up", "f g b a"},
		{"f g a:1 b:1", "a up", "f g a b"}, // what the file declares is passed by nothing
		{"f g a:1 b:1", "b down", "f g a b"},
		{"a:1", "a up", "a"},
	} {
		var list []control.Policy
		i := -1
		who, to, _ := strings.Cut(test.move, " ")
		for n, text := range strings.Fields(test.list) {
			name, priority, own := strings.Cut(text, ":")
			k := control.Policy{AccessPolicy: serval.AccessPolicy{Name: name}, Source: "file"}
			if own {
				k.Source = "api"
				if _, err := fmt.Sscan(priority, &k.Priority); err != nil {
					t.Fatal(err)
				}
			}
			if name == who {
				i = n
			}
			list = append(list, k)
		}
		was := inOrder(list)
		changed := moved(list, i, to == "up")
		for n, k := range changed {
			if got := inOrder(list); got != was {
				t.Errorf("%s, %s: after %d of %d changes the order is %s, want %s still", test.list, test.move, n, len(changed), got, was)
			}
			list[slices.IndexFunc(list, func(one control.Policy) bool { return one.Name == k.Name })].Priority = k.Priority
		}
		if got := inOrder(list); got != test.want {
			t.Errorf("%s, %s: the order is %s, want %s", test.list, test.move, got, test.want)
		}
	}
}

// What is offered for how long, and what of it is chosen.
func TestLengths(t *testing.T) {
	words := func(l lengthView) string {
		var b strings.Builder
		for _, c := range l.Choices {
			fmt.Fprint(&b, c.Minutes)
			for _, mark := range []struct {
				is   bool
				sign string
			}{{c.Recommended, "r"}, {c.Most, "m"}, {c.Chosen, "*"}} {
				if mark.is {
					b.WriteString(mark.sign)
				}
			}
			b.WriteByte(' ')
		}
		return b.String() + l.Chosen + " " + l.Other
	}
	for _, test := range []struct {
		most, recommended int
		chosen, entered   string
		want              string
	}{
		{480, 60, "60", "", "30 60r* 120 240 480m 60 "},
		{480, 0, "", "", "30 60 120 240 480m  "},
		{2880, 720, "1440", "", "30 60 720r 1440* 2880m 1440 "},
		{45, 0, "45", "", "15 30 45m* 45 "},
		{10, 0, "", "", "10m  "},
		{0, 0, "", "", " "},
		{480, 60, "75", "", "30 60r 120 240 480m other 75"},
		{480, 60, "other", "90", "30 60r 120 240 480m other 90"},
		{480, 15, "15", "", "15r* 30 60 120 480m 15 "},
	} {
		if got := words(newLength(test.most, test.recommended, test.chosen, test.entered)); got != test.want {
			t.Errorf("up to %d, %d recommended, %q chosen: %s, want %s", test.most, test.recommended, test.chosen, got, test.want)
		}
	}
	for text, want := range map[string]int{"minutes=30&other_minutes=7": 30, "minutes=other&other_minutes=7": 7, "minutes=other": 0, "other_minutes=7": 0} {
		f, err := url.ParseQuery(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := readLength(f); got != want || err != nil {
			t.Errorf("%s: %d, %v; want %d", text, got, err, want)
		}
	}
}
