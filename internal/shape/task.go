package shape

import (
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
	"github.com/serval-bridge/serval-bridge/internal/workflow"
)

// Run returns a run of a workflow or a check, with what mends what it found.
func Run(r workflow.Run) wire.Run {
	out := wire.Run{
		ID: r.ID, Workflow: r.Workflow, Title: r.Workflow.Title(), AccountID: r.AccountID, Status: r.Status,
		StartedBy: wire.Person{Email: r.By.Email}, StartedAt: wire.Time{Time: r.StartedAt}, EndedAt: wire.Time{Time: r.EndedAt},
		Role: r.Role, TrustPolicy: r.TrustPolicy, Sync: r.Result.Sync, Accounts: []wire.FoundAccount{},
		Findings: foundJSON(r, r.Result.Findings), Error: r.Result.Error,
	}
	if !r.DecidedAt.IsZero() {
		outcome := "approve"
		if r.Status == serval.RunDenied {
			outcome = "deny"
		}
		out.Decision = &wire.RunDecided{By: wire.Person{Email: r.DecidedBy.Email}, Outcome: outcome, At: wire.Time{Time: r.DecidedAt}, Reason: r.Reason}
	}
	if c := r.Result.Check; c != nil {
		out.Check = &wire.Check{Name: c.Name, AccountID: c.AccountID, At: wire.Time{Time: c.At}, Passed: c.Passed, Text: c.Text,
			Findings: foundJSON(r, c.Findings), Identity: c.Identity}
	}
	if c := r.Result.Role; c != nil {
		out.Created = &wire.CreatedRole{CreatedRole: *c, Text: c.Text()}
	}
	for _, f := range r.Found {
		one := wire.FoundAccount{OrganizationAccount: f.OrganizationAccount, Connected: f.Connected}
		if f.RoleARN != "" {
			one.Connect = &wire.ConnectedValues{ID: f.ID, Name: f.Name, RoleARN: f.RoleARN, ExternalID: f.ExternalID, Terraform: f.Terraform}
		}
		out.Accounts = append(out.Accounts, one)
	}
	return out
}

func foundJSON(r workflow.Run, found []serval.Finding) []wire.Finding {
	out := []wire.Finding{}
	for _, f := range found {
		one := wire.Finding{Causes: f.Causes, Text: f.Text, Target: f.Target, Actions: List(f.Actions), Code: f.Code, Mends: []wire.Paste{}}
		for _, m := range r.Mends(f) {
			one.Mends = append(one.Mends, wire.Paste(m))
		}
		out = append(out, one)
	}
	return out
}

func lastCheck(r *serval.Run) *wire.LastCheck {
	if r == nil || r.Result.Check == nil {
		return nil
	}
	c := r.Result.Check
	return &wire.LastCheck{RunID: r.ID, At: wire.Time{Time: c.At}, Name: c.Name, Passed: c.Passed, Text: c.Text}
}
