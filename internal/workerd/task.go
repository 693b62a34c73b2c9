package workerd

import (
	"context"
	"fmt"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/awsiam"
	"github.com/serval-bridge/serval-bridge/internal/awsorg"
	"github.com/serval-bridge/serval-bridge/internal/connect"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/upstream"
	"github.com/serval-bridge/serval-bridge/internal/worker"
)

// A Performer does what is asked of a worker beside syncs: it gives the rooms of
// AWS to one another, which do not know each other.
type Performer struct {
	AWS          *awsiam.Reader
	Organization *awsorg.Client
}

// Check runs one of the checks of an account. The error is that ctx ended.
func (p Performer) Check(ctx context.Context, name serval.CheckName, a serval.Account) (serval.Check, error) {
	if name == serval.CheckConnection {
		return p.AWS.Check(ctx, a)
	}
	at := p.AWS.Now()
	c := serval.Check{Name: name, AccountID: a.ID, At: at}
	by, err := p.enter(ctx, a)
	if err != nil {
		p.AWS.Blame(ctx, &c, err)
		c.Text = serval.TextNoOrganizations
		return c, ctx.Err()
	}
	c, err = p.Organization.Accounts(ctx, a, by)
	c.At = at
	return c, err
}

// enter assumes the account's role where it asks for its External ID.
func (p Performer) enter(ctx context.Context, a serval.Account) (awsorg.Access, error) {
	if err := p.AWS.Guard(ctx, a); err != nil {
		return awsorg.Access{}, err
	}
	creds, client, err := p.AWS.Enter(ctx, a)
	return awsorg.Access{Credentials: creds, HTTP: client}, err
}

// Perform does a task. The error is that ctx ended; all else is in the result.
func (p Performer) Perform(ctx context.Context, t worker.Task) (serval.RunResult, error) {
	switch t.Kind {
	case serval.TaskCheck, serval.TaskListAccounts:
		name := serval.CheckConnection
		if t.Kind == serval.TaskListAccounts {
			name = serval.CheckOrganization
		}
		c, err := p.Check(ctx, name, t.Account)
		return serval.RunResult{Check: &c}, err
	case serval.TaskCreateRole:
		return p.createRole(ctx, t)
	}
	return serval.RunResult{Error: fmt.Sprintf("This worker does not know what %q is: it is older than the bridge.", serval.Cut(string(t.Kind), 40))}, nil
}

func (p Performer) createRole(ctx context.Context, t worker.Task) (serval.RunResult, error) {
	a := t.Account
	if a.WorkflowRoleARN == "" || a.WorkflowRoleARN == a.RoleARN || t.Role == nil {
		return serval.RunResult{Error: "This account has no workflow role of its own, and the ingestion role never writes."}, nil
	}
	if faults := t.Role.Faults(a); faults != nil {
		return serval.RunResult{Error: "The role cannot be made as it was asked for: " + faults[0]}, nil
	}
	as := a
	as.RoleARN = a.WorkflowRoleARN
	var by [2]awsorg.Access
	for i, account := range []serval.Account{as, a} {
		var err error
		if by[i], err = p.enter(ctx, account); err == nil {
			continue
		}
		if ctx.Err() != nil {
			return serval.RunResult{}, ctx.Err()
		}
		var c serval.Check
		p.AWS.Blame(ctx, &c, err)
		return serval.RunResult{Error: fmt.Sprintf("The role %s cannot be assumed, so nothing was made.", account.RoleARN), Findings: c.Findings}, nil
	}
	return p.Organization.CreateRole(ctx, a, awsorg.Order{
		RunID: t.RunID, Role: *t.Role, Trust: connect.GrantTrust(a.Partition, a.ID, t.Role.Issuer, t.Role.ClientID),
	}, by[0], by[1])
}

// tasks is the upstream's client in the worker's terms.
type tasks struct{ client *upstream.Client }

// Tasks lists the tasks.
func (t tasks) Tasks(ctx context.Context, version string, wait time.Duration) ([]worker.Listed, string, error) {
	answer, err := t.client.Tasks(ctx, version, wait)
	if err != nil {
		return nil, "", err
	}
	list := make([]worker.Listed, len(answer.Tasks))
	for i, one := range answer.Tasks {
		list[i] = worker.Listed(one)
	}
	return list, answer.Version, nil
}

// Claim takes a task.
func (t tasks) Claim(ctx context.Context, id, name string) (worker.Task, error) {
	c, err := t.client.ClaimTask(ctx, id, name)
	return worker.Task{Listed: worker.Listed(c.Task), RunID: c.RunID, Attempt: c.Attempt, Account: c.Account.Account(), Role: c.Role}, err
}

// Finish puts a result.
func (t tasks) Finish(ctx context.Context, task worker.Task, name string, r serval.RunResult) error {
	_, err := t.client.FinishTask(ctx, task.ID, name, task.Attempt, r)
	return err
}
