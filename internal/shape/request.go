package shape

import (
	"time"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/history"
	"github.com/serval-bridge/serval-bridge/internal/insight"
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
		if e.Since != nil && e.Basis.RequestID == r.ID {
			since := Change(*e.Since)
			request.SinceApproval = &since
		}
		if request.MayDecide {
			request.ToDecide = toDecide(e, r.Earlier)
		}
	}
	if t := r.Trust; t != nil {
		request.Trust = &wire.Preflight{Verdict: t.Verdict}
		// It says what is in their token, and what the trust policy asks for now: it is for
		// whoever may come to use the role, as the role's page is.
		open := r.Status == serval.StatusPending || r.Status == serval.StatusApproved
		if r.PersonID == who.Person.ID && who.Person.Suspended == "" && open && r.Suspended == "" {
			request.Trust.Reason = t.Reason
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

// Waiting returns a request in the list of what waits: with what there is to know
// for whoever decides, and without the whole of what that was made of.
func Waiting(r control.Request, who serval.Principal, now time.Time) wire.Request {
	request := Request(r, who, now)
	request.Insight, request.SinceApproval = nil, nil
	return request
}

// maxSentences is how many sentences of a change are to be known at a glance.
const maxSentences = 10

func toDecide(e *history.Explained, before history.Earlier) *wire.ToDecide {
	d := &wire.ToDecide{
		Summary: e.Card.Summary, Marks: []string{}, Facts: List(e.Card.Facts), AtLeast: len(e.Card.AtLeast) > 0, AtMost: e.Card.AtMost,
		Earlier: wire.Earlier{Times: before.Times, More: before.More, Approved: before.Approved},
	}
	for _, k := range insight.Kinds {
		if e.Card.Is(k) {
			d.Marks = append(d.Marks, string(k))
		}
	}
	if before.Last != nil {
		d.Earlier.LastAt = wire.Time{Time: before.Last.CreatedAt}
	}
	if c := e.Since; c != nil {
		n := min(len(c.Sentences), maxSentences)
		d.Since = &wire.Since{
			ApprovedAt: wire.Time{Time: e.Basis.At}, Own: e.Basis.Own, Escalated: c.Escalated,
			Sentences: List(c.Sentences[:n]), More: len(c.Sentences) - n, AtLeast: len(c.AtLeast) > 0,
		}
	}
	return d
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
