// Package access matches access policies: who may have which role under which
// policy. Policies are tried in order and the first that matches both role and
// person decides alone; there is no union, so that an auditor can read the list
// from the top and stop. The package is pure.
package access

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A Target is what a policy looks at of a role.
type Target struct {
	AccountID string
	ARN       string
	Tags      map[string]string
}

// Decide returns the first of policies that matches role and person; ok is
// false where none does. Policies must be in the order in which they are
// tried.
func Decide(policies []serval.AccessPolicy, role Target, who serval.Person) (p serval.AccessPolicy, ok bool) {
	i := slices.IndexFunc(policies, func(p serval.AccessPolicy) bool {
		return p.Eligible.Include(who) && Matches(p.Roles, role)
	})
	if i < 0 {
		return serval.AccessPolicy{}, false
	}
	return policies[i], true
}

// Matches reports whether the role is among those that m names. All that m
// gives must match; within accounts and ARN patterns, any one does. Nothing
// given names no role: a list that got lost must not open every one.
func Matches(m serval.RoleMatch, role Target) bool {
	return !namesNothing(m) && hasAccount(m, role) && hasARN(m, role) && len(missingTags(m, role)) == 0
}

func namesNothing(m serval.RoleMatch) bool { return len(m.Accounts)+len(m.ARNs)+len(m.Tags) == 0 }

func hasAccount(m serval.RoleMatch, role Target) bool {
	return len(m.Accounts) == 0 || slices.Contains(m.Accounts, role.AccountID)
}

func hasARN(m serval.RoleMatch, role Target) bool {
	return len(m.ARNs) == 0 || slices.ContainsFunc(m.ARNs, func(p string) bool { return MatchPattern(p, role.ARN) })
}

// missingTags returns the keys of the tags that the role does not have as m wants
// them, in order.
func missingTags(m serval.RoleMatch, role Target) (missing []string) {
	for key, want := range m.Tags {
		if value, tagged := role.Tags[key]; !tagged || want != "*" && want != value {
			missing = append(missing, key)
		}
	}
	slices.Sort(missing)
	return missing
}

// MatchPattern reports whether the whole of text fits pattern, in which * stands
// for any characters, also / and none, ? for exactly one, and every other
// character for itself in its own case. It takes time proportional to the
// product of the lengths at worst, whatever the pattern.
func MatchPattern(pattern, text string) bool {
	// Only ? counts characters; all else is the same byte by byte.
	if !strings.Contains(pattern, "?") || isASCII(text) {
		return match([]byte(pattern), []byte(text))
	}
	return match([]rune(pattern), []rune(text))
}

func isASCII(text string) bool {
	for i := range len(text) {
		if text[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func match[C byte | rune](p, t []C) bool {
	pi, ti := 0, 0
	star, mark := -1, 0 // the last *, and where the text stood then
	for ti < len(t) {
		switch {
		case pi < len(p) && p[pi] == '*':
			star, mark = pi, ti
			pi++
		case pi < len(p) && (p[pi] == '?' || p[pi] == t[ti]):
			pi++
			ti++
		case star >= 0:
			mark++
			pi, ti = star+1, mark
		default:
			return false
		}
	}
	for pi < len(p) && p[pi] == '*' {
		pi++
	}
	return pi == len(p)
}
