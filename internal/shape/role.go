package shape

import (
	"time"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/insight"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// Role returns a role as the person who asks sees it.
func Role(r control.Role, who serval.Principal, now time.Time) wire.Role {
	role := wire.Role{
		ARN: r.ARN, RoleID: r.RoleID, AccountID: r.Key.AccountID, AccountName: r.AccountName, Name: r.Name, Description: r.Description,
		MaxSessionSeconds: r.MaxSessionSeconds, Tags: r.Tags, Policy: r.Policy.Name,
		Trust: Trust(r.Trust), Completeness: "incomplete",
		StaleSince: wire.Time{Time: r.StaleSince}, StaleReason: r.StaleReason, Held: !r.HeldSince.IsZero(), Blocked: r.Blocked,
		Entitlement: wire.Entitlement{Name: serval.EntitlementName, Description: serval.EntitlementDescription},
		MaxMinutes:  r.Policy.MaxMinutes, RecommendedMinutes: r.Policy.RecommendedMinutes, RequireJustification: r.Policy.RequireJustification,
		BreakGlass: r.Policy.BreakGlass, Approval: wire.Approval{Automatic: r.Policy.Approval.Automatic, Steps: []wire.People{}},
	}
	if role.Tags == nil {
		role.Tags = map[string]string{}
	}
	if r.Complete {
		role.Completeness = "complete"
	}
	index := insight.Index(r.Ability)
	role.Marks, role.MarksAtLeast = []string{}, index.AtLeast() || !index.IsKnown()
	for _, k := range index.Kinds() {
		role.Marks = append(role.Marks, string(k))
	}
	if r.LastUsedAt != nil {
		role.LastUsedAt = wire.Time{Time: *r.LastUsedAt}
	}
	role.Insight = Insight(r.Card)
	for _, step := range r.Policy.Approval.Steps {
		role.Approval.Steps = append(role.Approval.Steps, People(step))
	}
	if r.MyRequest != nil {
		mine := Request(*r.MyRequest, who, now)
		role.MyRequest = &mine
	}
	return role
}

// Documents returns what RoleByName brings with a role.
func Documents(r control.Role) *wire.Documents {
	inline, managed := r.InlinePolicies, r.ManagedPolicies
	inline.Policies, managed.Policies = List(inline.Policies), List(managed.Policies)
	d := &wire.Documents{TrustPolicy: r.TrustPolicy, InlinePolicies: inline, ManagedPolicies: managed}
	if r.PermissionsBoundary != nil {
		d.PermissionsBoundary = *r.PermissionsBoundary
	}
	if r.BoundaryPolicy != nil {
		d.BoundaryPolicy = r.BoundaryPolicy
	}
	return d
}

// People returns who is named, as lists that are never null.
func People(p serval.People) wire.People {
	return wire.People{Groups: List(p.Groups), Emails: List(p.Emails)}
}
