package workflow

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

const workflowRole = "arn:aws:iam::" + prod + ":role/serval-workflow"

// withWorkflow declares prod with a workflow role.
func (w *world) withWorkflow(arn string) {
	w.t.Helper()
	declared := accounts()
	declared[0].WorkflowRoleARN = arn
	if err := w.plane.Declare(w.t.Context(), serval.System(), 0, declared, nil); err != nil {
		w.t.Fatal(err)
	}
}

func anAdmin(id, email string) serval.Principal {
	return serval.Principal{Kind: serval.KindPerson, Person: serval.Person{ID: id, Email: email}, Admin: true}
}

func newRole() *serval.NewRole {
	return &serval.NewRole{Name: "dev", PermissionsBoundary: "arn:aws:iam::" + prod + ":policy/boundary", Policy: `{"Statement":[]}`}
}

// tasks returns the tasks that a worker would see.
func (w *world) tasks() []serval.Task {
	w.t.Helper()
	list, _, err := w.intake.Tasks(w.t.Context(), hub())
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

func TestCreateRoleIsApproved(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ann, ben := anAdmin("p1", "ann@example.com"), anAdmin("p2", "ben@example.com")
		ctx := t.Context()
		start := func(role *serval.NewRole) (Run, error) {
			return w.runs.Start(ctx, ann, serval.WorkflowCreateRole, prod, role)
		}
		_, err := start(newRole())
		wantKind(t, "without a workflow role", err, serval.FailedPrecondition)
		w.withWorkflow(workflowRole)
		_, err = start(nil)
		wantKind(t, "without saying which", err, serval.Invalid)
		unbounded := newRole()
		unbounded.PermissionsBoundary = ""
		_, err = start(unbounded)
		wantKind(t, "without a boundary", err, serval.Invalid)
		steered := newRole()
		steered.Issuer, steered.ClientID = "https://evil.example.com", "evil"

		before := w.head()
		run, err := start(steered)
		if err != nil || run.Status != serval.RunPending {
			t.Fatalf("run %+v (%v), want it waiting", run, err)
		}
		// The trust policy is ours, and shown before anybody approves.
		if run.Role.Issuer != w.runs.settings.Issuer || run.Role.ClientID != w.runs.settings.ClientID || run.Role.MaxSessionSeconds != 3600 ||
			!strings.Contains(run.TrustPolicy, "AssumeRoleWithWebIdentity") || strings.Contains(run.TrustPolicy, "evil") {
			t.Errorf("role %+v with trust %s; want our own issuer and client", run.Role, run.TrustPolicy)
		}
		if tasks := w.tasks(); len(tasks) != 0 {
			t.Errorf("tasks %+v before anybody approved", tasks)
		}
		for name, who := range map[string]serval.Principal{
			"who started it": ann, "their other identity": anAdmin("p9", "Ann@example.com"),
		} {
			_, err := w.runs.Decide(ctx, who, run.ID, true, "")
			wantKind(t, name, err, serval.Denied)
		}
		_, err = w.runs.Decide(ctx, ben, run.ID, true, strings.Repeat("x", 1001))
		wantKind(t, "a long reason", err, serval.Invalid)
		_, err = w.runs.Decide(ctx, ben, "run_none", true, "")
		wantKind(t, "no such run", err, serval.NotFound)
		w.withWorkflow("")
		_, err = w.runs.Decide(ctx, ben, run.ID, true, "")
		wantKind(t, "the workflow role was taken away", err, serval.FailedPrecondition)
		w.withWorkflow(workflowRole)
		if list, err := w.runs.Waiting(ctx, ben); err != nil || len(list) != 1 || list[0].ID != run.ID || list[0].Role.Name != "dev" || list[0].Account.ID != prod {
			t.Errorf("what waits is %+v (%v), want the run with its role and account", list, err)
		}
		approved, err := w.runs.Decide(ctx, ben, run.ID, true, "fine")
		if err != nil || approved.Status != serval.RunRunning || approved.DecidedBy.Email != "ben@example.com" {
			t.Fatalf("run %+v (%v), want it approved", approved, err)
		}
		if list, err := w.runs.Waiting(ctx, ann); err != nil || len(list) != 0 {
			t.Errorf("once decided, what waits is %+v (%v), want nothing", list, err)
		}
		_, err = w.runs.Decide(ctx, ben, run.ID, true, "")
		wantKind(t, "approved twice", err, serval.Conflict)

		tasks := w.tasks()
		if len(tasks) != 1 || tasks[0].Kind != serval.TaskCreateRole {
			t.Fatalf("tasks %+v, want one", tasks)
		}
		task, err := w.intake.ClaimTask(ctx, hub(), tasks[0].ID, "pod")
		if err != nil || task.RunID != run.ID || task.Role == nil || task.Role.Name != "dev" || task.Account.WorkflowRoleARN != workflowRole {
			t.Fatalf("claimed %+v (%v), want the role and the account", task, err)
		}
		made := serval.CreatedRole{ARN: "arn:aws:iam::" + prod + ":role/serval/dev", RoleID: "AROADEV", Tagged: true}
		for name, wrong := range map[string]serval.RunResult{
			"another role":   {Role: &serval.CreatedRole{ARN: "arn:aws:iam::" + prod + ":role/dev", RoleID: "AROADEV"}},
			"no id":          {Role: &serval.CreatedRole{ARN: made.ARN, RoleID: "x/y"}},
			"a check":        {Check: &serval.Check{}},
			"both":           {Role: &made, Error: "no"},
			"nothing at all": {},
		} {
			_, err := w.intake.FinishTask(ctx, hub(), task.ID, "pod", 1, wrong)
			wantKind(t, name, err, serval.Invalid)
		}
		if _, err := w.intake.FinishTask(ctx, hub(), task.ID, "pod", 1, serval.RunResult{Role: &made}); err != nil {
			t.Fatal(err)
		}
		if r, err := w.runs.Read(ctx, ann, run.ID); err != nil || r.Status != serval.RunDone || *r.Result.Role != made {
			t.Errorf("run %+v (%v), want it done", r, err)
		}
		var got []string
		for _, e := range w.events(before) {
			if strings.HasPrefix(string(e.Action), "account") {
				continue
			}
			got = append(got, fmt.Sprintf("%s %s by %s", e.Action, e.Outcome, e.Actor))
			if e.Action == serval.RunStart && (e.Target != run.ID || e.Detail["policy"] == "" || e.Detail["permissions_boundary"] == "" || e.Detail["account_id"] != prod) {
				t.Errorf("the start's event %+v lacks what was asked for", e)
			}
			if e.Action == serval.TaskFinish && e.Outcome == serval.OutcomeDone && e.Detail["role_arn"] != made.ARN {
				t.Errorf("the result's event %+v lacks the role", e)
			}
		}
		want := []string{
			"run.start done by ann@example.com",
			"run.decide refused", "run.decide refused", // two, in any order
			"run.decide refused by ben@example.com", "run.decide refused by ben@example.com", "run.decide refused by ben@example.com",
			"run.approve done by ben@example.com", "run.decide refused by ben@example.com",
			"task.claim done by hub", "task.finish refused by hub", "task.finish refused by hub", "task.finish refused by hub",
			"task.finish refused by hub", "task.finish refused by hub", "task.finish done by hub",
		}
		for i := 1; i <= 2 && i < len(got); i++ {
			got[i], _, _ = strings.Cut(got[i], " by ")
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

func TestCreateRoleIsDenied(t *testing.T) {
	w := newWorld(t)
	w.withWorkflow(workflowRole)
	ann, ben := anAdmin("p1", "ann@example.com"), anAdmin("p2", "ben@example.com")
	run, err := w.runs.Start(t.Context(), ann, serval.WorkflowCreateRole, prod, newRole())
	if err != nil {
		t.Fatal(err)
	}
	denied, err := w.runs.Decide(t.Context(), ben, run.ID, false, "not now")
	if err != nil || denied.Status != serval.RunDenied || denied.Reason != "not now" || len(w.tasks()) != 0 {
		t.Errorf("run %+v (%v) with tasks %+v, want it denied and nothing done", denied, err, w.tasks())
	}
	// Nobody decides the next one.
	run, err = w.runs.Start(t.Context(), ann, serval.WorkflowCreateRole, prod, newRole())
	if err != nil {
		t.Fatal(err)
	}
	w.clock.move(7 * 24 * time.Hour)
	if err := w.runs.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r, err := w.runs.Read(t.Context(), ann, run.ID); err != nil || r.Status != serval.RunExpired {
		t.Errorf("run %+v (%v), want it expired", r, err)
	}
	for i := range mostWaiting {
		if _, err := w.runs.Start(t.Context(), ann, serval.WorkflowCreateRole, prod, newRole()); err != nil {
			t.Fatalf("run %d: %v", i, err)
		}
	}
	_, err = w.runs.Start(t.Context(), ann, serval.WorkflowCreateRole, prod, newRole())
	wantKind(t, "one too many", err, serval.Exhausted)
}

func TestRunsAreForAdmins(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	run, err := w.runs.StartCheck(ctx, anAdmin("p1", "ann@example.com"), prod, "")
	if err != nil {
		t.Fatal(err)
	}
	for name, who := range map[string]serval.Principal{"a person": {Kind: serval.KindPerson, Person: serval.Person{ID: "p5", Email: "eve@example.com"}}, "a worker": hub(), "a stranger": {}} {
		want := serval.Unauthenticated
		if name == "a person" {
			want = serval.Denied
		}
		_, err := w.runs.StartCheck(ctx, who, prod, "")
		wantKind(t, name+" checking", err, want)
		_, err = w.runs.Start(ctx, who, serval.WorkflowFetchRoles, prod, nil)
		wantKind(t, name+" starting", err, want)
		_, err = w.runs.Start(ctx, who, "magic", prod, nil)
		wantKind(t, name+" starting what is none", err, want)
		_, err = w.runs.Read(ctx, who, run.ID)
		wantKind(t, name+" reading", err, want)
		_, err = w.runs.Waiting(ctx, who)
		wantKind(t, name+" looking at what waits", err, want)
		_, err = w.runs.Decide(ctx, who, run.ID, true, "")
		wantKind(t, name+" deciding", err, want)
	}
	ann := anAdmin("p1", "ann@example.com")
	_, err = w.runs.Start(ctx, ann, "magic", prod, nil)
	wantKind(t, "no such workflow", err, serval.NotFound)
	_, err = w.runs.Start(ctx, ann, serval.WorkflowCheck, prod, nil)
	wantKind(t, "a check as a workflow", err, serval.NotFound)
	_, err = w.runs.Start(ctx, ann, serval.WorkflowListAccounts, "000000000000", nil)
	wantKind(t, "no such account", err, serval.NotFound)
	_, err = w.runs.Start(ctx, ann, serval.WorkflowListAccounts, prod, newRole())
	wantKind(t, "a role where none is made", err, serval.Invalid)
	_, err = w.runs.StartCheck(ctx, ann, prod, "magic")
	wantKind(t, "no such check", err, serval.Invalid)
}

// The list offers to connect what is not connected, with our own values.
func TestListedAccountsAreOffered(t *testing.T) {
	w := newWorld(t)
	w.runs.settings.ExternalID = "the-team's"
	ann := anAdmin("p1", "ann@example.com")
	ctx := t.Context()
	list := func(identity string) Run {
		t.Helper()
		run, err := w.runs.Start(ctx, ann, serval.WorkflowListAccounts, prod, nil)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := w.runs.StartCheck(ctx, ann, prod, serval.CheckOrganization); err != nil || again.ID != run.ID {
			t.Errorf("the check of the same is %s (%v), want %s", again.ID, err, run.ID)
		}
		task, err := w.intake.ClaimTask(ctx, hub(), w.tasks()[0].ID, "pod")
		if err != nil {
			t.Fatal(err)
		}
		found := []serval.OrganizationAccount{{ID: prod, Name: "prod", Status: "ACTIVE"}, {ID: "222233334444", Name: `new "one"`, Status: "ACTIVE"}}
		_, err = w.intake.FinishTask(ctx, hub(), task.ID, "pod", 1, serval.RunResult{Check: &serval.Check{Name: serval.CheckOrganization, AccountID: prod,
			Passed: true, Text: "Successfully retrieved 2 accounts from AWS Organizations", Accounts: found, Identity: identity}})
		if err != nil {
			t.Fatal(err)
		}
		if run, err = w.runs.Read(ctx, ann, run.ID); err != nil || len(run.Found) != 2 {
			t.Fatalf("run %+v (%v), want two accounts", run, err)
		}
		return run
	}
	run := list("arn:aws:sts::999988887777:assumed-role/worker/w")
	known, offered := run.Found[0], run.Found[1]
	if !known.Connected || known.RoleARN != "" || known.ExternalID != "" {
		t.Errorf("a connected account is offered: %+v", known)
	}
	if offered.Connected || offered.RoleARN != "arn:aws:iam::222233334444:role/serval-ingestion" || offered.ExternalID != "the-team's" ||
		!strings.Contains(offered.Terraform, `"arn:aws:iam::999988887777:root"`) {
		t.Errorf("offered %+v, want the role of the account that was asked and the team's External ID", offered)
	}
	if run := list(""); run.Found[1].Terraform != "" || run.Found[1].RoleARN == "" {
		t.Errorf("offered %+v although nobody knows whom to trust", run.Found[1])
	}
	// What is set goes before what a worker says.
	w.runs.settings.TrustedAccount = "123456789012"
	if run := list("arn:aws:sts::999988887777:assumed-role/worker/w"); !strings.Contains(run.Found[1].Terraform, "123456789012") || strings.Contains(run.Found[1].Terraform, "999988887777") {
		t.Errorf("offered %s, want the account that is set", run.Found[1].Terraform)
	}
}
