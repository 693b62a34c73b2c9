package shape

import (
	"time"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// Request returns a request as who sees it.
func Request(r control.Request, who serval.Principal, now time.Time) wire.Request {
	_, _, due := r.Due(now)
	request := wire.Request{
		ID: r.ID, BatchID: text(r.BatchID), Person: wire.Person{Email: r.Email}, RoleARN: r.Role.ARN, AccountID: r.Role.AccountID,
		Status: string(r.Status), EndedBy: text(string(r.EndedBy)), Minutes: r.Minutes(),
		ClockStartedAt: wire.Time{Time: r.ClockStartedAt}, EndsAt: wire.Time{Time: r.EndsAt}, Policy: r.Terms.Policy,
		Steps: []wire.Step{}, Justification: r.Justification, Ticket: r.Ticket, CreatedAt: wire.Time{Time: r.CreatedAt},
		StartAt: wire.Time{Time: r.StartAt}, ExpiresAt: wire.Time{Time: r.ExpiresAt}, EndedAt: wire.Time{Time: r.EndedAt},
		Allocations: []wire.Allocation{}, MayDecide: !due && who.Person.Suspended == "" && r.Awaits(who.Person),
		AccountName: r.AccountName, RoleName: r.Role.ARN, PolicyDigest: r.Terms.Digest, Notices: []wire.Notice{},
	}
	request.MayBreakGlass = !due && who.Person.Suspended == "" && !request.MayDecide && r.MayBreakGlass(who)
	if arn, err := serval.ParseRoleARN(r.Role.ARN); err == nil {
		request.RoleName = arn.Name
	}
	if !due {
		request.Suspended = r.Suspended
	}
	if a := r.Active(); a != nil {
		request.BreakGlass = a.BreakGlass
	}
	if e := r.Explained; e != nil {
		request.Insight = Insight(e.Card)
		if e.Since != nil {
			since := Change(*e.Since)
			request.SinceApproval = &since
		}
	}
	for _, n := range r.Notices {
		request.Notices = append(request.Notices, Notice(n))
	}
	for _, step := range r.Steps() {
		request.Steps = append(request.Steps, wire.Step{
			Approvers: People(step.Approvers), DecidedBy: text(step.DecidedBy), Outcome: text(step.Outcome), At: wire.Time{Time: step.At},
		})
	}
	for _, a := range r.Allocations {
		request.Allocations = append(request.Allocations, wire.Allocation{
			Minutes: a.Minutes, State: string(a.State), Justification: a.Justification, AskedAt: wire.Time{Time: a.AskedAt},
			DecidedBy: text(a.DecidedBy), DecidedAt: wire.Time{Time: a.DecidedAt}, SupersededAt: wire.Time{Time: a.SupersededAt}, Reason: a.Reason,
			BreakGlass: a.BreakGlass,
		})
	}
	return request
}

// text returns a text or null.
func text(t string) *string {
	if t == "" {
		return nil
	}
	return &t
}

// Statuses are what requests can be filtered by.
func Statuses() []serval.Status {
	return []serval.Status{
		serval.StatusPending, serval.StatusApproved, serval.StatusDenied, serval.StatusExpired,
		serval.StatusRevoked, serval.StatusCanceled, serval.StatusFailed,
	}
}

// Live returns the sessions of a request that still work; nil where none does.
func Live(r control.Request, live control.Live) *wire.Live {
	if len(live.Sessions) == 0 {
		return nil
	}
	answer := &wire.Live{Sessions: []wire.LiveSession{}, DenyPolicy: live.DenyPolicy}
	for _, one := range live.Sessions {
		answer.Sessions = append(answer.Sessions, wire.LiveSession{
			ID: one.ID, Kind: string(one.Kind), SessionName: one.SessionName, AssumedRoleID: one.AssumedRoleID,
			StartedAt: wire.Time{Time: one.StartedAt}, EndsAt: wire.Time{Time: one.EndsAt},
		})
		if r.Status != serval.StatusApproved || one.EndsAt.After(r.EndsAt) {
			answer.OutlivesAccess = true
		}
	}
	return answer
}
