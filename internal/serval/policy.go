package serval

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// An AccessPolicy says who is eligible for which roles, for how long at most,
// and who approves. Its matching is the access room's; its JSON form is the
// API's and, digested, what a request is fixed to.
type AccessPolicy struct {
	Name     string    `json:"name"`
	Roles    RoleMatch `json:"roles"`
	Eligible People    `json:"eligible"`
	Approval Approval  `json:"approval"`

	MaxMinutes           int  `json:"max_minutes"`
	MaxTotalMinutes      int  `json:"max_total_minutes,omitempty"` // 0: three times MaxMinutes
	RecommendedMinutes   int  `json:"recommended_minutes,omitempty"`
	RequireJustification bool `json:"require_justification,omitempty"`
	AllowSelfApproval    bool `json:"allow_self_approval,omitempty"`
	AllowChaining        bool `json:"allow_chaining,omitempty"`
	BreakGlass           bool `json:"break_glass,omitempty"` // requesters may approve their own, and everybody named is told

	// SuspendOnEscalation: what was approved before the role could make whoever
	// holds it an administrator is not used until it is approved again.
	SuspendOnEscalation bool `json:"suspend_on_escalation,omitempty"`
}

// A RoleMatch says which roles; all that are given must match. Accounts are
// ids, ARNs are patterns (* any characters, also /; ? one), tags are exact with
// * as any value.
type RoleMatch struct {
	Accounts []string          `json:"accounts,omitempty"`
	ARNs     []string          `json:"arns,omitempty"`
	Tags     map[string]string `json:"tags,omitempty"`
}

// People are groups and emails, either of which suffices.
type People struct {
	Groups []string `json:"groups,omitempty"`
	Emails []string `json:"emails,omitempty"`
}

// IsEmpty reports whether nobody is named.
func (p People) IsEmpty() bool { return len(p.Groups)+len(p.Emails) == 0 }

// Include reports whether the person is named by email or by group.
func (p People) Include(who Person) bool {
	return slices.ContainsFunc(p.Emails, func(e string) bool { return SameEmail(e, who.Email) }) ||
		slices.ContainsFunc(p.Groups, func(g string) bool { return who.IsInGroup(g) })
}

// String names the people for a sentence.
func (p People) String() string {
	all := append([]string(nil), p.Emails...)
	for _, g := range p.Groups {
		all = append(all, "group "+g)
	}
	return strings.Join(all, ", ")
}

// An Approval is automatic, or steps in order, each completed by any one of its
// people.
type Approval struct {
	Automatic bool     `json:"automatic,omitempty"`
	Steps     []People `json:"steps,omitempty"`
}

// The longest access that a policy may give, in minutes: thirty days at a time,
// a year with all extensions.
const (
	maxPolicyMinutes = 30 * 24 * 60
	maxTotalMinutes  = 365 * 24 * 60
)

// The longest pattern, in bytes: no ARN is longer (STS API Reference,
// AssumeRole).
const maxARNPattern = 2048

// TotalMinutes returns how long a grant may last with all its extensions.
func (p AccessPolicy) TotalMinutes() int {
	if p.MaxTotalMinutes > 0 {
		return p.MaxTotalMinutes
	}
	return 3 * p.MaxMinutes
}

// Digest returns a SHA-256, in hex, over the policy.
func (p AccessPolicy) Digest() string {
	text, err := marshal(p)
	if err != nil {
		panic("serval: encoding an access policy: " + err.Error()) // strings and numbers only
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// Faults returns all that is wrong with the policy as it is declared, one
// sentence each.
func (p AccessPolicy) Faults() []string {
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }

	if strings.TrimSpace(p.Name) == "" || utf8.RuneCountInString(p.Name) > 100 {
		fault("name: 1 to 100 characters.")
	}
	for i, id := range p.Roles.Accounts {
		if _, err := ParseAccountID(id); err != nil {
			fault("roles.accounts[%d]: %s", i, err)
		}
	}
	for i, pattern := range p.Roles.ARNs {
		if pattern == "" || len(pattern) > maxARNPattern {
			fault("roles.arns[%d]: a pattern of 1 to %d characters.", i, maxARNPattern)
		}
	}
	if len(p.Roles.Accounts)+len(p.Roles.ARNs)+len(p.Roles.Tags) == 0 {
		fault(`roles: name accounts, arns or tags; arns: ["*"] means every role.`)
	}
	people := func(where string, who People) {
		if who.IsEmpty() {
			fault("%s: name at least one group or email.", where)
		}
		for i, e := range who.Emails {
			if _, err := ParseEmail(e); err != nil {
				fault("%s.emails[%d]: %s", where, i, err)
			}
		}
		for i, g := range who.Groups {
			if g == "" {
				fault("%s.groups[%d]: a group has a name.", where, i)
			}
		}
	}
	people("eligible", p.Eligible)
	switch {
	case p.Approval.Automatic && len(p.Approval.Steps) > 0:
		fault("approval: either automatic or steps, not both.")
	case !p.Approval.Automatic && len(p.Approval.Steps) == 0:
		fault("approval: say automatic: true, or name the steps.")
	}
	if p.SuspendOnEscalation && len(p.Approval.Steps) == 0 {
		fault("suspend_on_escalation: somebody has to approve again, and there are no steps.")
	}
	if p.BreakGlass && len(p.Approval.Steps) == 0 {
		fault("break_glass: it goes past steps, and there are none.")
	}
	for i, step := range p.Approval.Steps {
		people(fmt.Sprintf("approval.steps[%d]", i), step)
	}
	if p.MaxMinutes < 1 || p.MaxMinutes > maxPolicyMinutes {
		fault("max_minutes: 1 to %d.", maxPolicyMinutes)
	}
	if p.MaxTotalMinutes != 0 && (p.MaxTotalMinutes < p.MaxMinutes || p.MaxTotalMinutes > maxTotalMinutes) {
		fault("max_total_minutes: at least max_minutes and at most %d.", maxTotalMinutes)
	}
	if p.RecommendedMinutes < 0 || p.RecommendedMinutes > p.MaxMinutes {
		fault("recommended_minutes: at most max_minutes.")
	}
	return faults
}
