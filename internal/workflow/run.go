// Package workflow is what admins have workers do: checks and workflows, each as a
// run. It stands beside control, which is for people's access, and intake, which
// is for workers, behind the same door.
//
// A Run is what an admin started, and perhaps another admin approved; the Task
// that a worker claims for it is intake's, and its states are the dictionary's.
// What mends a finding is made here, of the account's own values: nothing that is
// pasted into AWS comes from a worker.
package workflow

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/serval-bridge/serval-bridge/internal/connect"
	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// The bounds of runs.
const (
	mostWaiting = 100 // runs of one workflow that have not ended
	runsKept    = 90 * 24 * time.Hour
	maxReason   = 1000
)

// Settings are what Runs work by.
type Settings struct {
	Issuer, ClientID string // whose ID tokens a role that is made trusts
	ExternalID       string // the team's, for accounts that are offered
	TrustedAccount   string // what trust policies name; empty: the worker's own, as it says
}

// Runs are the runs behind a door. It is safe for concurrent use.
type Runs struct {
	door     *door.Door
	settings Settings
}

// New returns the runs behind d.
func New(d *door.Door, s Settings) *Runs { return &Runs{d, s} }

// act runs f as who and records what happened: both, or neither. See door.Act.
func (p *Runs) act(ctx context.Context, who serval.Principal, what serval.Action, target string,
	f func(tx *store.Tx, e *serval.Event) error) error {
	return p.door.Act(ctx, who, what, target, f)
}

// view runs f as who without writing. See door.View.
func (p *Runs) view(ctx context.Context, who serval.Principal, what serval.Action, target string,
	f func(v *store.View) error) error {
	return p.door.View(ctx, who, what, target, f)
}

// A Run is a run with what an admin is shown beside it.
type Run struct {
	serval.Run
	Account serval.Account
	// TrustPolicy is that of the role to be made.
	TrustPolicy string
	// Trusted is the account that trust policies must name; empty where it is not
	// known.
	Trusted string
	// Found are the accounts of the organization, where they were listed.
	Found []FoundAccount
}

// Mends returns the texts that mend a finding of the run, made here and of the
// account's own values: what is pasted into AWS does not come from a worker.
func (r Run) Mends(f serval.Finding) []connect.Paste { return connect.Mends(f, r.Account, r.Trusted) }

// A FoundAccount is an account of the organization, with what would connect it.
type FoundAccount struct {
	serval.OrganizationAccount
	Connected bool
	RoleARN   string // of the ingestion role it would have; empty where it is connected
	// ExternalID that the role would ask for, and the Terraform that makes it.
	ExternalID, Terraform string
}

// StartCheck starts a check of an account and returns its run. While the same
// check of the account is under way it returns that.
func (p *Runs) StartCheck(ctx context.Context, who serval.Principal, accountID string, name serval.CheckName) (Run, error) {
	switch name {
	case serval.CheckConnection, "":
		return p.start(ctx, who, serval.WorkflowCheck, accountID, nil)
	case serval.CheckOrganization:
		return p.start(ctx, who, serval.WorkflowListAccounts, accountID, nil)
	}
	return Run{}, serval.Refuse(serval.Invalid, "check is %q or %q.", serval.CheckConnection, serval.CheckOrganization)
}

// Start starts a workflow and returns its run. Creating a role waits for the
// decision of another admin; listing, while the same is under way, is that run.
func (p *Runs) Start(ctx context.Context, who serval.Principal, w serval.Workflow, accountID string, role *serval.NewRole) (Run, error) {
	switch w {
	case serval.WorkflowFetchRoles, serval.WorkflowListAccounts, serval.WorkflowCreateRole:
		return p.start(ctx, who, w, accountID, role)
	}
	err := serval.Refuse(serval.NotFound, "There is no such workflow. There are %s, %s and %s.",
		serval.WorkflowFetchRoles, serval.WorkflowListAccounts, serval.WorkflowCreateRole)
	return Run{}, p.view(ctx, who, serval.RunStart, accountID, func(*store.View) error { return err })
}

func (p *Runs) start(ctx context.Context, who serval.Principal, w serval.Workflow, accountID string, role *serval.NewRole) (run Run, err error) {
	err = p.act(ctx, who, serval.RunStart, accountID, func(tx *store.Tx, e *serval.Event) error {
		account, err := tx.Account(accountID)
		if err != nil {
			return err
		}
		r := serval.Run{ID: door.NewID("run"), Workflow: w, AccountID: account.ID, By: named(who), StartedAt: tx.Now, Status: serval.RunRunning}
		if w == serval.WorkflowCreateRole {
			if r.Role, err = p.order(account.Account, role); err != nil {
				return err
			}
			r.Status = serval.RunPending
		} else if role != nil {
			return serval.Refuse(serval.Invalid, "role: only %s makes one.", serval.WorkflowCreateRole)
		} else if current, err := tx.CurrentRun(accountID, w); err != nil {
			return err
		} else if current != "" {
			e.Action = "" // nothing is started
			run, err = p.run(&tx.View, current)
			return err
		}
		waiting, err := tx.CountCurrent(w)
		if err != nil {
			return err
		}
		if w == serval.WorkflowCreateRole && waiting >= mostWaiting {
			return serval.Refuse(serval.Exhausted, "%d runs of %s wait already. Decide some of them first.", waiting, w)
		}
		e.Target, e.Detail = r.ID, runDetail(r)
		if err := begin(tx, r); err != nil {
			return err
		}
		run, err = p.run(&tx.View, r.ID)
		return err
	})
	if err == nil {
		p.door.Changed.Raise()
	}
	return run, err
}

// order completes a role as it is asked for, and refuses what cannot be made.
func (p *Runs) order(a serval.Account, role *serval.NewRole) (*serval.NewRole, error) {
	if a.WorkflowRoleARN == "" {
		return nil, serval.Refuse(serval.FailedPrecondition,
			"Account %s has no workflow_role_arn. Roles are made under a role of its own, with %s; the ingestion role never writes.",
			a.ID, strings.Join(serval.WorkflowActions(), ", "))
	}
	if role == nil {
		return nil, serval.Refuse(serval.Invalid, "role: say which role to make.")
	}
	whole := *role
	whole.Issuer, whole.ClientID = p.settings.Issuer, p.settings.ClientID
	if whole.MaxSessionSeconds == 0 {
		whole.MaxSessionSeconds = 3600
	}
	if faults := whole.Faults(a); faults != nil {
		return nil, serval.Refuse(serval.Invalid, "%s", strings.Join(faults, " "))
	}
	return &whole, nil
}

// begin keeps a run, and has a worker do it where it waits for nobody.
func begin(tx *store.Tx, r serval.Run) error {
	if err := tx.SaveRun(r); err != nil || r.Status != serval.RunRunning {
		return err
	}
	kind := r.Workflow.Task()
	if kind == "" {
		return tx.RequestSync(r.AccountID)
	}
	return tx.SaveTask(store.Task{Task: serval.Task{
		ID: door.NewID("task"), RunID: r.ID, AccountID: r.AccountID, Kind: kind, State: serval.TaskOpen, CreatedAt: tx.Now,
	}})
}

// Read returns a run.
func (p *Runs) Read(ctx context.Context, who serval.Principal, id string) (run Run, err error) {
	err = p.view(ctx, who, serval.RunRead, id, func(v *store.View) error {
		run, err = p.run(v, id)
		return err
	})
	return run, err
}

// Waiting returns the runs that wait for another admin's decision, the oldest
// first.
func (p *Runs) Waiting(ctx context.Context, who serval.Principal) (list []Run, err error) {
	err = p.view(ctx, who, serval.RunRead, "", func(v *store.View) error {
		list = nil
		pending, err := v.PendingRuns(mostWaiting)
		if err != nil {
			return err
		}
		for _, r := range pending {
			run, err := p.run(v, r.ID)
			if err != nil {
				return err
			}
			list = append(list, run)
		}
		return nil
	})
	return list, err
}

// Decide lets a run that waits go on, or ends it. Whoever started it cannot.
func (p *Runs) Decide(ctx context.Context, who serval.Principal, id string, approve bool, reason string) (run Run, err error) {
	err = p.act(ctx, who, serval.RunDecide, id, func(tx *store.Tx, e *serval.Event) error {
		if utf8.RuneCountInString(reason) > maxReason {
			return serval.Refuse(serval.Invalid, "reason: at most %d characters.", maxReason)
		}
		r, err := tx.Run(id)
		if err != nil {
			return err
		}
		if err := r.Decide(named(who), approve, reason, tx.Now); err != nil {
			return err
		}
		e.Action, e.Reason, e.Detail = serval.RunDeny, reason, runDetail(r)
		if approve {
			e.Action = serval.RunApprove
			account, err := tx.Account(r.AccountID)
			if err != nil {
				return err
			}
			// What was asked for must still be right: the account may be declared otherwise.
			if _, err := p.order(account.Account, r.Role); err != nil {
				return err
			}
		}
		if err := begin(tx, r); err != nil {
			return err
		}
		run, err = p.run(&tx.View, id)
		return err
	})
	if err == nil {
		p.door.Changed.Raise()
	}
	return run, err
}

// named returns what is kept of who acts.
func named(who serval.Principal) serval.Person {
	return serval.Person{ID: who.Person.ID, Email: who.Person.Email}
}

func runDetail(r serval.Run) map[string]string {
	detail := map[string]string{"workflow": string(r.Workflow), "account_id": r.AccountID}
	if r.Role != nil {
		detail["role_name"], detail["permissions_boundary"] = r.Role.Name, r.Role.PermissionsBoundary
		detail["policy"], detail["max_session_seconds"] = r.Role.Policy, fmt.Sprint(r.Role.MaxSessionSeconds)
	}
	return detail
}

// run reads a run with what is shown beside it.
func (p *Runs) run(v *store.View, id string) (Run, error) {
	r, err := v.Run(id)
	if err != nil {
		return Run{}, err
	}
	out := Run{Run: r}
	account, err := v.Account(r.AccountID)
	switch {
	case serval.IsRefusal(err, serval.NotFound):
		out.Account = serval.Account{ID: r.AccountID} // it was disconnected since; nothing can be pasted
	case err != nil:
		return Run{}, err
	default:
		out.Account = account.Account
	}
	if r.Role != nil {
		out.TrustPolicy = connect.GrantTrust(out.Account.Partition, r.AccountID, r.Role.Issuer, r.Role.ClientID)
	}
	direct := out.Account
	direct.Via = nil // who assumes the first role; connect knows the others
	if out.Trusted, _, _, err = door.TrustedAccount(v, direct, p.settings.TrustedAccount, p.door.Now()); err != nil {
		return Run{}, err
	}
	if r.Result.Check == nil {
		return out, nil
	}
	if out.Trusted == "" { // several, or none has said: the one that made this check
		out.Trusted = r.Result.Check.TrustedAccount()
	}
	if len(r.Result.Check.Accounts) == 0 {
		return out, nil
	}
	trusted, _, _, err := door.TrustedAccount(v, out.Account, p.settings.TrustedAccount, p.door.Now()) // by a found account's role, reached in the same way
	if err != nil {
		return Run{}, err
	}
	trusted = cmp.Or(trusted, out.Trusted)
	connected, err := v.Accounts()
	if err != nil {
		return Run{}, err
	}
	known := make(map[string]bool, len(connected))
	for _, a := range connected {
		known[a.ID] = true
	}
	for _, found := range r.Result.Check.Accounts {
		out.Found = append(out.Found, p.offer(out.Account, found, known[found.ID], trusted))
	}
	return out, nil
}

// offer returns what would connect an account that was found: a role named as the
// one of the account that was asked, with the team's External ID.
func (p *Runs) offer(asked serval.Account, found serval.OrganizationAccount, connected bool, trusted string) FoundAccount {
	f := FoundAccount{OrganizationAccount: found, Connected: connected}
	like, err := serval.ParseRoleARN(asked.RoleARN)
	if connected || err != nil {
		return f
	}
	like.AccountID = found.ID
	f.RoleARN, f.ExternalID = like.String(), p.settings.ExternalID
	if trusted != "" {
		f.Terraform = connect.Terraform(connect.Role{
			Partition: like.Partition, TrustedAccount: trusted, ExternalID: f.ExternalID, Name: like.Name, Path: like.Path,
			AccountID: found.ID, AccountName: found.Name,
		})
	}
	return f
}

// sweepLimit bounds one Sweep.
const sweepLimit = 100

// Sweep ends runs and tasks whose time has come, at most a hundred of each, and
// drops what is long over; call it once a second. Several replicas may: each item
// is claimed by the act on it.
func (p *Runs) Sweep(ctx context.Context) error {
	who, now := serval.System(), p.door.Now()
	var runs, tasks []string
	err := p.view(ctx, who, serval.RunExpire, "", func(v *store.View) (err error) {
		if runs, err = v.DueRuns(now, sweepLimit); err != nil {
			return err
		}
		tasks, err = v.DueTasks(now, sweepLimit)
		return err
	})
	errs := []error{err}
	for _, id := range runs {
		errs = append(errs, p.expireRun(ctx, who, id))
	}
	for _, id := range tasks {
		errs = append(errs, p.lapse(ctx, who, id))
	}
	return errors.Join(append(errs, p.door.Store.DropOldRuns(ctx, now.Add(-runsKept)))...)
}

func (p *Runs) expireRun(ctx context.Context, who serval.Principal, id string) error {
	return p.act(ctx, who, serval.RunExpire, id, func(tx *store.Tx, e *serval.Event) error {
		r, err := tx.Run(id)
		if err != nil {
			return err
		}
		if !r.Lapse(tx.Now) {
			e.Action = "" // another replica was first, or it was decided meanwhile
			return nil
		}
		e.Detail, e.Reason = runDetail(r), r.Result.Error
		return tx.SaveRun(r)
	})
}

func (p *Runs) lapse(ctx context.Context, who serval.Principal, id string) error {
	return p.act(ctx, who, serval.TaskLapse, id, func(tx *store.Tx, e *serval.Event) error {
		task, err := tx.Task(id)
		if err != nil {
			return err
		}
		why := task.Lapse(tx.Now)
		if why == "" {
			e.Action = ""
			return nil
		}
		run, err := tx.Run(task.RunID)
		if err != nil {
			return err
		}
		if err := run.End(serval.RunResult{Error: why}, tx.Now); err != nil {
			return err
		}
		e.Outcome, e.Reason, e.Detail = serval.OutcomeFailed, why, runDetail(run)
		e.Detail["run_id"] = run.ID
		if err := tx.SaveTask(task); err != nil {
			return err
		}
		return tx.SaveRun(run)
	})
}
