package shape

import (
	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// Policy returns an access policy.
func Policy(p control.Policy) wire.AccessPolicy {
	one := wire.AccessPolicy{
		Name: p.Name, Roles: wire.RoleMatch{Accounts: List(p.Roles.Accounts), ARNs: List(p.Roles.ARNs), Tags: p.Roles.Tags},
		Eligible: People(p.Eligible), Approval: Approval(p.Approval),
		MaxMinutes: p.MaxMinutes, MaxTotalMinutes: p.MaxTotalMinutes, RecommendedMinutes: p.RecommendedMinutes,
		RequireJustification: p.RequireJustification, AllowSelfApproval: p.AllowSelfApproval, AllowChaining: p.AllowChaining,
		BreakGlass: p.BreakGlass, SuspendOnEscalation: p.SuspendOnEscalation,
		Priority: p.Priority, Source: p.Source, Digest: p.Digest,
		CreatedAt: wire.Time{Time: p.CreatedAt}, ChangedAt: wire.Time{Time: p.ChangedAt},
	}
	if one.Roles.Tags == nil {
		one.Roles.Tags = map[string]string{}
	}
	return one
}

// Approval returns who approves.
func Approval(a serval.Approval) wire.Approval {
	approval := wire.Approval{Automatic: a.Automatic, Steps: []wire.People{}}
	for _, step := range a.Steps {
		approval.Steps = append(approval.Steps, People(step))
	}
	return approval
}

// Explanation returns why somebody may or may not have a role.
func Explanation(x control.Explanation) wire.Explanation {
	answer := wire.Explanation{
		May: x.May, Why: x.Why, Blocked: x.Blocked,
		Person: wire.ExplainedPerson{
			Email: x.Person.Email, Known: x.Person.ID != "", Identities: x.Identities, Suspended: x.Person.Suspended, Groups: List(x.Person.Groups),
			GroupsAt: wire.Time{Time: x.Person.GroupsAt}, GroupsFresh: x.GroupsFresh, GroupsNote: x.Person.GroupsNote,
		},
		Role: wire.ExplainedRole{
			ARN: x.ARN.String(), AccountID: x.ARN.AccountID, AccountConnected: x.Connected, State: string(x.State), Reason: x.Reason,
			Since: wire.Time{Time: x.Since},
		},
		Policies: []wire.ExplainedPolicy{},
	}
	for _, f := range x.Findings {
		answer.Policies = append(answer.Policies, wire.ExplainedPolicy{
			Name: f.Policy.Name, Matches: f.Miss == "", Decides: f.Decides, Miss: string(f.Miss), Reason: f.Reason,
			MaxMinutes: f.Policy.MaxMinutes, Approval: Approval(f.Policy.Approval),
		})
	}
	if x.Trust != nil {
		verdict := Trust(*x.Trust)
		answer.Trust = &verdict
	}
	return answer
}
