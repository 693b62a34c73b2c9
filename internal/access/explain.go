package access

import (
	"fmt"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A Miss is the first reason for which a policy does not match.
type Miss string

// Why a policy does not match; in this order they are looked at.
const (
	Matched     Miss = ""
	MissNothing Miss = "nothing" // the policy names no role at all
	MissAccount Miss = "account"
	MissARN     Miss = "arn"
	MissTag     Miss = "tag"
	MissGroup   Miss = "group" // the policy names groups, and perhaps emails too
	MissEmail   Miss = "email" // the policy names emails only
)

// A Finding is what one policy says to a role and a person.
type Finding struct {
	Policy  serval.AccessPolicy
	Miss    Miss
	Reason  string // one sentence
	Decides bool   // it is the first that matches: it decides alone
}

// Explain returns what every policy says, in the order in which they are tried.
// The one that decides is the one that Decide returns.
func Explain(policies []serval.AccessPolicy, role Target, who serval.Person) []Finding {
	findings := make([]Finding, len(policies))
	decided := false
	for i, p := range policies {
		f := &findings[i]
		f.Policy = p
		f.Miss, f.Reason = explain(p, role, who)
		switch {
		case f.Miss != Matched:
		case decided:
			f.Reason = "It matches too, and is not asked: an earlier policy decides."
		default:
			decided, f.Decides = true, true
			f.Reason = "It is the first that matches role and person, and decides."
		}
	}
	return findings
}

func explain(p serval.AccessPolicy, role Target, who serval.Person) (Miss, string) {
	m := p.Roles
	if namesNothing(m) {
		return MissNothing, "It names no roles."
	}
	if !hasAccount(m, role) {
		return MissAccount, fmt.Sprintf("It is for other accounts than %s: %s.", role.AccountID, few(m.Accounts))
	}
	if !hasARN(m, role) {
		return MissARN, fmt.Sprintf("None of its patterns fits the role's ARN: %s.", few(m.ARNs))
	}
	if missing := missingTags(m, role); len(missing) > 0 {
		key := missing[0]
		if value, tagged := role.Tags[key]; tagged {
			return MissTag, fmt.Sprintf("The role's tag %q is %q and not %q.", key, value, m.Tags[key])
		}
		return MissTag, fmt.Sprintf("The role has no tag %q.", key)
	}
	if p.Eligible.Include(who) {
		return Matched, ""
	}
	if len(p.Eligible.Groups) == 0 {
		return MissEmail, "It is for these emails only: " + few(p.Eligible.Emails) + "."
	}
	reason := "The person is in none of its groups: " + few(p.Eligible.Groups) + "."
	if len(p.Eligible.Emails) > 0 {
		reason += " Nor is their email named: " + few(p.Eligible.Emails) + "."
	}
	return MissGroup, reason
}

// few names some of many for a sentence.
func few(names []string) string {
	const most = 10
	text := strings.Join(names[:min(len(names), most)], ", ")
	if n := len(names) - most; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return text
}
