package intake

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// The bounds of a result. A worker is believed in what it saw of AWS, and AWS's
// answers are somebody else's words.
const (
	maxFindings = 20
	maxCauses   = 10
	maxSentence = 4000
	maxListed   = 20_000 // accounts of an organization
	maxName     = 100
	maxStatus   = 40
)

// noTask is the answer both for a task that is not there and for one of an
// account that the worker was not given.
func noTask() error {
	return serval.Refuse(serval.NotFound, "There is no such task for this worker.")
}

// Tasks returns the tasks that a worker can claim, oldest first. The version
// changes when the list does.
func (t *Intake) Tasks(ctx context.Context, who serval.Principal) (list []serval.Task, version string, err error) {
	err = t.view(ctx, who, serval.UpstreamRead, "", func(v *store.View) error {
		open, err := v.OpenTasks()
		if err != nil {
			return err
		}
		now, sum := t.door.Now(), sha256.New()
		for _, one := range open {
			if who.MayPush(one.AccountID) && one.IsFree(now) {
				list = append(list, one.Task)
				fmt.Fprintf(sum, "%s %d\n", one.ID, one.Attempt)
			}
		}
		version = hex.EncodeToString(sum.Sum(nil)[:8])
		return nil
	})
	return list, version, err
}

// WaitTasks is Tasks, answered as soon as the version is another than the one
// the worker has, or when the time is up.
func (t *Intake) WaitTasks(ctx context.Context, who serval.Principal, version string, wait time.Duration) (list []serval.Task, now string, err error) {
	err = t.door.Await(ctx, wait, func() (bool, error) {
		list, now, err = t.Tasks(ctx, who)
		return now != version, err
	})
	return list, now, err
}

// A ClaimedTask is a task with all that its worker needs.
type ClaimedTask struct {
	serval.Task
	Account store.Account
	Role    *serval.NewRole // of "Create AWS IAM Role"
}

// ClaimTask gives a task to a replica of a worker, for an attempt with a
// deadline. While another has it, the refusal is a conflict whose detail says
// until when.
func (t *Intake) ClaimTask(ctx context.Context, who serval.Principal, id, replica string) (claimed ClaimedTask, err error) {
	err = t.act(ctx, who, serval.TaskClaim, id, func(tx *store.Tx, e *serval.Event) error {
		task, run, err := given(tx, who, id)
		if err != nil {
			return err
		}
		if claimed.Account, err = tx.Account(task.AccountID); serval.IsRefusal(err, serval.NotFound) {
			return noTask() // disconnected meanwhile; time ends the task
		}
		if err != nil {
			return err
		}
		if err := task.Claim(claim(who, replica), tx.Now); err != nil {
			return err
		}
		claimed.Task, claimed.Role = task.Task, run.Role
		e.Detail = taskDetail(task.Task)
		return tx.SaveTask(task)
	})
	return claimed, err
}

// given returns a task that is there for the worker, with its run.
func given(tx *store.Tx, who serval.Principal, id string) (store.Task, serval.Run, error) {
	task, err := tx.Task(id)
	switch {
	case serval.IsRefusal(err, serval.NotFound):
		return task, serval.Run{}, noTask()
	case err != nil:
		return task, serval.Run{}, err
	case !who.MayPush(task.AccountID):
		return task, serval.Run{}, noTask()
	}
	run, err := tx.Run(task.RunID)
	return task, run, err
}

// FinishTask takes the result of an attempt and ends the task's run with it. An
// older attempt's is refused; the same result again is the same as once.
func (t *Intake) FinishTask(ctx context.Context, who serval.Principal, id, replica string, attempt int, result serval.RunResult) (repeated bool, err error) {
	text, err := json.Marshal(result)
	if err != nil {
		return false, fmt.Errorf("encoding a result: %w", err)
	}
	sum := sha256.Sum256(text)
	digest := hex.EncodeToString(sum[:])
	err = t.act(ctx, who, serval.TaskFinish, id, func(tx *store.Tx, e *serval.Event) error {
		repeated = false
		task, run, err := given(tx, who, id)
		if err != nil {
			return err
		}
		by := claim(who, replica)
		if task.Digest == digest && task.Attempt == attempt && task.ClaimedBy == by {
			e.Action, repeated = "", true
			return nil
		}
		if err := task.Finish(attempt, by, result.Error != "", tx.Now); err != nil {
			return err
		}
		account, err := tx.Account(task.AccountID)
		if serval.IsRefusal(err, serval.NotFound) {
			return noTask()
		}
		if err != nil {
			return err
		}
		if err := checkResult(result, run, account.Account); err != nil {
			return err
		}
		ended := result
		if ended.Check != nil { // by our clock
			c := *ended.Check
			c.At = tx.Now
			ended.Check = &c
		}
		if err := run.End(ended, tx.Now); err != nil {
			return err
		}
		task.Digest = digest
		e.Detail = resultDetail(task.Task, result)
		if result.Error != "" {
			e.Outcome, e.Reason = serval.OutcomeFailed, result.Error
		}
		if err := tx.SaveTask(task); err != nil {
			return err
		}
		return tx.SaveRun(run)
	})
	return repeated, err
}

func taskDetail(task serval.Task) map[string]string {
	return map[string]string{
		"run_id": task.RunID, "account_id": task.AccountID, "kind": string(task.Kind), "attempt": fmt.Sprint(task.Attempt),
		"worker": task.ClaimedBy,
	}
}

func resultDetail(task serval.Task, r serval.RunResult) map[string]string {
	detail := taskDetail(task)
	if c := r.Check; c != nil {
		detail["passed"], detail["text"] = fmt.Sprint(c.Passed), c.Text
		for i, f := range c.Findings {
			causes := make([]string, len(f.Causes))
			for j, cause := range f.Causes {
				causes[j] = string(cause)
			}
			detail[fmt.Sprintf("finding_%02d", i+1)] = strings.Join(causes, " or ")
		}
	}
	if r.Role != nil {
		detail["role_arn"], detail["role_id"] = r.Role.ARN, r.Role.RoleID
		detail["tagged"], detail["found"] = fmt.Sprint(r.Role.Tagged), fmt.Sprint(r.Role.Found)
	}
	return detail
}

// checkResult refuses what cannot have come of the run.
func checkResult(r serval.RunResult, run serval.Run, account serval.Account) error {
	refuse := func(format string, args ...any) error {
		return serval.Refuse(serval.Invalid, "The result %s.", fmt.Sprintf(format, args...))
	}
	if err := checkText(r.Error); err != nil {
		return refuse("has an error that %s", err)
	}
	if err := checkFindings(r.Findings); err != nil {
		return refuse("%s", err)
	}
	creates := run.Workflow == serval.WorkflowCreateRole
	switch {
	case r.Sync != nil:
		return refuse("is of a sync, which comes by another way")
	case r.Role != nil && !creates || r.Check != nil && creates:
		return refuse("does not belong to %s", run.Workflow)
	case r.Error != "" && (r.Role != nil || r.Check != nil):
		return refuse("says both what came of it and that nothing did")
	case r.Error != "":
		return nil
	case r.Role != nil:
		if want := run.Role.ARN(account.Partition, account.ID); r.Role.ARN != want || !isRoleID(r.Role.RoleID) {
			return refuse("is of another role than %s", want)
		}
		return nil
	case r.Check == nil:
		return refuse("says nothing")
	}
	c := *r.Check
	name := serval.CheckConnection
	if run.Workflow == serval.WorkflowListAccounts {
		name = serval.CheckOrganization
	}
	passes := serval.TextConnected
	if name == serval.CheckOrganization {
		passes = serval.TextAccountsListed(len(c.Accounts))
	}
	switch {
	case c.Name != name || c.AccountID != account.ID:
		return refuse("is not of the check %q of account %s", name, account.ID)
	case c.Passed && c.Text != passes, !c.Passed && !slices.Contains(name.Texts(), c.Text):
		return refuse("has the text %q, which this check does not have", serval.Clip(c.Text, 100))
	case len(c.Accounts) > 0 && (!c.Passed || name != serval.CheckOrganization):
		return refuse("lists accounts, which this check does not")
	case len(c.Accounts) > maxListed:
		return refuse("lists more than %d accounts", maxListed)
	case c.Identity != "" && !identities.MatchString(c.Identity) || len(c.Identity) > maxIdentity:
		return refuse("has an identity that is no ARN")
	}
	if err := checkFindings(c.Findings); err != nil {
		return refuse("%s", err)
	}
	return checkAccounts(c.Accounts)
}

// identities is what the ARN of somebody who assumes roles may be.
var identities = regexp.MustCompile(`^arn:aws[a-z-]*:(sts|iam)::[0-9]{12}:[\w+=,.@/-]+$`)

const maxIdentity = 600 // characters

// targets is what a finding may be about, and what AWS's code may be.
var targets = regexp.MustCompile(`^[\x21-\x7E]*$`)

func checkFindings(list []serval.Finding) error {
	if len(list) > maxFindings {
		return fmt.Errorf("has more than %d findings", maxFindings)
	}
	known := slices.Concat(serval.IngestionActions(), serval.RetiredActions(), serval.WorkflowActions(), []string{serval.ListAccounts})
	for _, f := range list {
		switch {
		case len(f.Causes) == 0 || len(f.Causes) > maxCauses:
			return fmt.Errorf("has a finding without a cause, or with more than %d", maxCauses)
		case slices.ContainsFunc(f.Causes, func(c serval.Cause) bool { return !slices.Contains(serval.Causes(), c) }):
			return fmt.Errorf("has a finding whose cause is not known")
		case len(f.Actions) > len(known) || slices.ContainsFunc(f.Actions, func(a string) bool { return !slices.Contains(known, a) }):
			return fmt.Errorf("has a finding about an action that no check is about")
		case !targets.MatchString(f.Target) || len(f.Target) > maxPolicyARN || !targets.MatchString(f.Code) || len(f.Code) > maxAction:
			return fmt.Errorf("has a finding whose target or code is no word")
		}
		if err := checkText(f.Text); err != nil {
			return fmt.Errorf("has a finding whose text %w", err)
		}
	}
	return nil
}

func checkText(text string) error {
	switch {
	case longer(text, maxSentence):
		return fmt.Errorf("has more than %d characters", maxSentence)
	case !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl):
		return fmt.Errorf("has a character that is none to read")
	}
	return nil
}

func checkAccounts(list []serval.OrganizationAccount) error {
	seen := make(map[string]bool, len(list))
	for _, a := range list {
		if _, err := serval.ParseAccountID(a.ID); err != nil || seen[a.ID] {
			return serval.Refuse(serval.Invalid, "The result lists an account whose id is none, or comes twice.")
		}
		seen[a.ID] = true
		if longer(a.Name, maxName) || longer(a.Status, maxStatus) || checkText(a.Name) != nil || checkText(a.Status) != nil {
			return serval.Refuse(serval.Invalid, "The result lists account %s with a name or a status that is none.", a.ID)
		}
	}
	return nil
}

// endFetches ends the runs that waited for this sync.
func endFetches(tx *store.Tx, inv serval.Inventory, roles int) error {
	return tx.EndFetches(inv.AccountID, inv.StartedAt, serval.SyncResult{Generation: inv.Generation, Complete: inv.Complete, Roles: roles})
}
