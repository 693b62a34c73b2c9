package shape

import (
	"slices"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// AccessReport returns a page of the access report.
func AccessReport(roles []control.RoleAccess) wire.AccessReport {
	report := wire.AccessReport{Roles: []wire.RoleAccess{}}
	for _, r := range roles {
		one := wire.RoleAccess{
			RoleARN: r.Role.ARN, RoleID: r.Role.RoleID, AccountID: r.Role.AccountID, AccountName: r.AccountName,
			RemovedAt: wire.Time{Time: r.RemovedAt}, Could: []wire.Could{}, Had: []wire.Had{}, HadMore: r.More,
		}
		for _, c := range r.Could {
			one.Could = append(one.Could, wire.Could(c))
		}
		for _, h := range r.Had {
			one.Had = append(one.Had, wire.Had{
				RequestID: h.ID, Email: h.Email, Policy: h.Terms.Policy, PolicyDigest: h.Terms.Digest, DecidedBy: approvers(h.Request),
				From: wire.Time{Time: h.ClockStartedAt}, Until: wire.Time{Time: h.Until}, Status: string(h.Status), EndedBy: text(string(h.EndedBy)),
				Sessions: h.Sessions,
			})
		}
		report.Roles = append(report.Roles, one)
	}
	return report
}

// approvers returns who approved any of the time that was had, in the order in
// which they did.
func approvers(r *serval.Request) []string {
	names := []string{}
	add := func(name string) {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, a := range r.Allocations {
		if a.State != serval.Active && a.State != serval.Superseded {
			continue
		}
		for _, step := range a.Steps {
			add(step.DecidedBy)
		}
		add(a.DecidedBy)
	}
	return names
}
