package bridge

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// tokenFile writes an upstream token's file and returns its path.
func tokenFile(t *testing.T, length int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(strings.Repeat("ab", length/2)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// example is the configuration file of the documentation.
const example = `
team: acme                               # the External ID is derived from it
accounts:
  - id: "111122223333"
    name: prod
    role_arn: arn:aws:iam::111122223333:role/serval-ingestion
access_policies:
  - name: engineers-nonprod
    roles: {accounts: ["111122223333"], arns: ["arn:aws:iam::*:role/dev-*"], tags: {team: payments}}
    eligible: {groups: [engineering], emails: [ana@example.com]}
    approval: {automatic: true}          # or: steps: [{groups: [sre-leads]}, {emails: [cto@example.com]}]
    max_minutes: 480
    recommended_minutes: 60
    require_justification: true
    allow_self_approval: false
admins:   {groups: [serval-admins], emails: []}
auditors: {groups: [security], emails: []}
upstream_tokens:                         # workers outside the cluster; each bound to accounts
  - {name: hub, accounts: ["111122223333"], secret_file: %s}
networks:
  - {name: office, cidrs: ["203.0.113.0/24"]}
`

func TestParseFile(t *testing.T) {
	got, faults := ParseFile([]byte(fmt.Sprintf(example, tokenFile(t, 40))))
	if len(faults) > 0 {
		t.Fatalf("faults: %v, want none", faults)
	}
	if diff := cmp.Diff([]serval.Account{{
		ID: "111122223333", Name: "prod", Partition: "aws", RoleARN: "arn:aws:iam::111122223333:role/serval-ingestion",
	}}, got.Accounts); diff != "" {
		t.Errorf("accounts (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]serval.AccessPolicy{{
		Name:     "engineers-nonprod",
		Roles:    serval.RoleMatch{Accounts: []string{"111122223333"}, ARNs: []string{"arn:aws:iam::*:role/dev-*"}, Tags: map[string]string{"team": "payments"}},
		Eligible: serval.People{Groups: []string{"engineering"}, Emails: []string{"ana@example.com"}}, Approval: serval.Approval{Automatic: true},
		MaxMinutes: 480, RecommendedMinutes: 60, RequireJustification: true,
	}}, got.Policies); diff != "" {
		t.Errorf("policies (-want +got):\n%s", diff)
	}
	if got.Team != "acme" || len(got.UpstreamTokens) != 1 || len(got.Networks["office"]) != 1 || got.Admins.Groups[0] != "serval-admins" || got.Auditors.Groups[0] != "security" {
		t.Errorf("the rest: %+v", got)
	}
}

// S-109: every fault at once, each with its line.
func TestParseFileNamesEveryFault(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       []string
	}{
		{"everything", `team: acme
accounts:
  - id: 111122223333
    name: prod
    role_arn: arn:aws:iam::444455556666:role/x
  - id: "444455556666"
    name: a
    role_arn: nonsense
    region: us-east-1
  - id: "777788889999"
    name: b
    role_arn: arn:aws:iam::777788889999:role/x
    sts: {endpoint: "http://sts.example.com"}
  - id: "777788889999"
    name: c
    role_arn: arn:aws:iam::777788889999:role/x
access_policies:
  - name: p
    roles: {}
    eligible: {emails: [nobody]}
    approval: {automatic: true, steps: [{}]}
    max_minutes: 0
admins: {group: [x]}
upstream_tokens:
  - {name: hub, accounts: ["000000000000"], secret_file: /nonexistent}
networks:
  - {name: n, cidrs: [203.0.113.7/24]}
`, []string{
			"line 3: accounts[0].id: got number, want string; put it in quotes.",
			`line 8: accounts[1].role_arn: invalid role ARN format`,
			"line 9: accounts[1].region: no such key.",
			"line 13: accounts[2].sts.endpoint: must be https (http is allowed on a loopback address only).",
			"line 14: accounts[3].id: account 777788889999 is declared twice.",
			"line 19: access_policies[0].roles: minProperties: got 0, want 1.",
			`line 20: access_policies[0].eligible.emails[0]: "nobody" is not a usable email address: it has no @.`,
			"line 21: access_policies[0].approval: either automatic or steps, not both.",
			"line 22: access_policies[0].max_minutes: minimum: got 0, want 1.",
			"line 23: admins.group: no such key.",
			"line 25: upstream_tokens[0].secret_file: the token's file cannot be read: open /nonexistent: no such file or directory.",
			`line 27: networks[0].cidrs[0]: "203.0.113.7/24" is not a network such as 203.0.113.0/24.`,
		}},
		{"no YAML", "team: [", []string{"line 1: not YAML"}},
		{"a tab", "team: acme\n\taccounts: []\n", []string{"line 2: not YAML"}},
		{"a key twice", "team: a\nteam: b\n", []string{"line 2: not YAML"}},
		{"two documents", "team: a\n---\nteam: b\n", []string{"one YAML document is read"}},
		{"an anchor", "team: &a acme\n", []string{"line 1: anchors and aliases are not taken"}},
		{"an alias", "team: acme\nadmins: {groups: [&g x, *g]}\n", []string{"line 2: anchors and aliases are not taken"}},
		{"a merge", "team: acme\nadmins:\n  <<: {groups: [x]}\n", []string{"line 3: anchors and aliases are not taken"}},
		{"empty", "", []string{"the file is empty"}},
		{"a list", "- a\n", []string{"got array, want object"}},
		{"no team", "accounts: []\n", []string{"missing property 'team'"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, faults := ParseFile([]byte(test.text))
			var got strings.Builder
			for _, f := range faults {
				fmt.Fprintln(&got, f)
			}
			for _, want := range test.want {
				if !strings.Contains(got.String(), want) {
					t.Errorf("no fault %q among\n%s", want, got.String())
				}
			}
		})
	}
}

func TestReadFileOfNothing(t *testing.T) {
	_, faults := ReadFile(filepath.Join(t.TempDir(), "nothing.yaml"))
	if len(faults) != 1 || !strings.Contains(faults[0].String(), "no such file") {
		t.Errorf("faults: %v, want one that says there is no such file", faults)
	}
}

func TestShortUpstreamTokenIsRefused(t *testing.T) {
	_, faults := ParseFile([]byte(fmt.Sprintf(example, tokenFile(t, 15))))
	if len(faults) != 1 || !strings.Contains(faults[0].String(), "it needs at least 16") {
		t.Errorf("faults: %v, want the token's length", faults)
	}
}

func TestUpstreamTokensAreDifferent(t *testing.T) {
	file := tokenFile(t, 40)
	text := "team: acme\naccounts:\n  - {id: \"111122223333\", name: a, role_arn: \"arn:aws:iam::111122223333:role/x\"}\nupstream_tokens:\n" +
		"  - {name: a, accounts: [\"111122223333\"], secret_file: " + file + "}\n" +
		"  - {name: b, accounts: [\"111122223333\"], secret_file: " + file + "}\n"
	_, faults := ParseFile([]byte(text))
	if len(faults) != 1 || faults[0].Line != 6 || !strings.Contains(faults[0].Text, "same secret") {
		t.Errorf("faults: %v, want one on line 6 that says the secrets are the same", faults)
	}
}

// T-1
func FuzzParseFile(f *testing.F) {
	f.Add(fmt.Sprintf(example, "/nonexistent"))
	f.Add("team: a\naccounts: [{id: 1}]\n")
	f.Add("&a [*a]")
	f.Add("team: !!binary x\n? {a: b}\n: c\n")
	f.Fuzz(func(t *testing.T, text string) {
		file, faults := ParseFile([]byte(text))
		if len(faults) > 0 {
			return
		}
		if file.Team == "" {
			t.Error("no fault and no team")
		}
		for _, a := range file.Accounts {
			if a.ExternalID = "derived"; len(a.Faults()) > 0 {
				t.Errorf("no fault, and account %+v has %v", a, a.Faults())
			}
		}
		for _, p := range file.Policies {
			if len(p.Faults()) > 0 {
				t.Errorf("no fault, and policy %+v has %v", p, p.Faults())
			}
		}
	})
}
