package workerd_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/serval-bridge/serval-bridge/internal/awsiam"
	"github.com/serval-bridge/serval-bridge/internal/awsorg"
	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/worker"
	"github.com/serval-bridge/serval-bridge/internal/workerd"
)

const workflow = "arn:aws:iam::" + good + ":role/serval-workflow"

// performing returns a performer over a cloud whose good account has a workflow
// role too, and the account.
func performing(t *testing.T) (*awstest.Cloud, workerd.Performer, serval.Account) {
	t.Helper()
	cloud := awstest.New(awstest.Options{})
	url := cloud.Start(t)
	home := cloud.AddAccount(hub, "hub")
	home.PutRole(awstest.Role{Name: "worker", Inline: map[string]string{"hop": allow("sts:AssumeRole", "sts:TagSession")}})
	a := cloud.AddAccount(good, "good")
	a.PutRole(awstest.Role{Name: "serval-ingestion", Trust: trust(external), Inline: map[string]string{"read": allow(append(serval.IngestionActions(), serval.ListAccounts)...)}})
	a.PutRole(awstest.Role{Name: "serval-workflow", Trust: trust(external), Inline: map[string]string{"write": allow(serval.WorkflowActions()...)}})
	a.PutPolicy(awstest.Policy{Name: "boundary", Document: allow("s3:*")})
	cloud.SetManagementAccount(good)
	k := home.PodIdentity("worker", time.Now())
	reader, err := awsiam.New(t.Context(), awsiam.Config{
		STSEndpoint: url, IAMEndpoint: url, Credentials: credentials.NewStaticCredentialsProvider(k.AccessKeyID, k.SecretAccessKey, k.SessionToken),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(reader.Close)
	organization, err := awsorg.New(awsorg.Config{OrganizationsEndpoint: url, IAMEndpoint: url})
	if err != nil {
		t.Fatal(err)
	}
	return cloud, workerd.Performer{AWS: reader, Organization: organization}, serval.Account{
		ID: good, Name: "good", Partition: "aws", ExternalID: external, RoleARN: "arn:aws:iam::" + good + ":role/serval-ingestion", WorkflowRoleARN: workflow,
	}
}

func task(kind serval.TaskKind, a serval.Account) worker.Task {
	t := worker.Task{Listed: worker.Listed{ID: "task_1", Kind: kind, AccountID: a.ID}, RunID: "run_1", Attempt: 1, Account: a}
	if kind == serval.TaskCreateRole {
		t.Role = &serval.NewRole{Name: "dev", MaxSessionSeconds: 3600, PermissionsBoundary: "arn:aws:iam::" + good + ":policy/boundary",
			Policy: allow("s3:GetObject"), Issuer: "https://login.example.com", ClientID: "serval"}
	}
	return t
}

func perform(t *testing.T, p workerd.Performer, task worker.Task) serval.RunResult {
	t.Helper()
	r, err := p.Perform(t.Context(), task)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestPerform(t *testing.T) {
	cloud, p, a := performing(t)
	if r := perform(t, p, task(serval.TaskCheck, a)); r.Check == nil || !r.Check.Passed || r.Check.Name != serval.CheckConnection {
		t.Errorf("check: %+v", r)
	}
	if r := perform(t, p, task(serval.TaskListAccounts, a)); r.Check == nil || r.Check.Text != serval.TextAccountsListed(2) || len(r.Check.Accounts) != 2 || r.Check.At.IsZero() {
		t.Errorf("list: %+v", r.Check)
	}
	if r := perform(t, p, task("dance", a)); r.Error == "" {
		t.Errorf("a task that is not known: %+v", r)
	}
	r := perform(t, p, task(serval.TaskCreateRole, a))
	if r.Error != "" || r.Role == nil || !r.Role.Tagged {
		t.Fatalf("role: %+v", r)
	}
	// S-87: what writes is asked as the workflow role, and as no other.
	for _, c := range cloud.Calls() {
		writes := slices.Contains(serval.WorkflowActions(), "iam:"+c.Action)
		if writes && !strings.Contains(c.Caller, ":assumed-role/serval-workflow/") {
			t.Errorf("%s was asked as %s", c.Action, c.Caller)
		}
	}
	// What it made can be found by tag, and assumed by who bears a token of ours only.
	inv, err := p.AWS.Inventory(t.Context(), a, nil, "", nil)
	if err != nil || len(inv.Roles) != 1 || inv.Roles[0].ARN != r.Role.ARN || !strings.Contains(string(inv.Roles[0].TrustPolicy), "login.example.com:aud") {
		t.Errorf("inventory %+v (%v), want the role that was made", inv.Roles, err)
	}
}

// Accept 6: the worker is killed after CreateRole and before its result; another
// finishes and makes no second role.
func TestCreateRoleSurvivesItsWorker(t *testing.T) {
	cloud, p, a := performing(t)
	dies, cancel := context.WithCancel(t.Context())
	remove := cloud.Inject(awstest.Fault{Action: "PutRolePolicy", Hook: func(*awstest.Request) { cancel() }, Reset: true})
	if r, err := p.Perform(dies, task(serval.TaskCreateRole, a)); err == nil {
		t.Fatalf("result %+v of a worker that was killed", r)
	}
	remove()
	first := cloud.Account(good).RoleID("dev")
	second := task(serval.TaskCreateRole, a)
	second.Attempt = 2
	if r := perform(t, p, second); r.Error != "" || r.Role == nil || !r.Role.Found || r.Role.RoleID != first || first == "" {
		t.Errorf("result %+v %+v, want the role %s of the first attempt", r, r.Role, first)
	}
}

func TestWhatIsNotPerformed(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(cloud *awstest.Cloud, task *worker.Task)
		error  string
	}{
		"no workflow role":     {func(_ *awstest.Cloud, task *worker.Task) { task.Account.WorkflowRoleARN = "" }, "has no workflow role"},
		"the ingestion role":   {func(_ *awstest.Cloud, task *worker.Task) { task.Account.WorkflowRoleARN = task.Account.RoleARN }, "the ingestion role never writes"},
		"no role to make":      {func(_ *awstest.Cloud, task *worker.Task) { task.Role = nil }, "has no workflow role"},
		"a role out of bounds": {func(_ *awstest.Cloud, task *worker.Task) { task.Role.PermissionsBoundary = "" }, "permissions_boundary"},
		"a workflow role that is closed": {func(cloud *awstest.Cloud, _ *worker.Task) {
			cloud.Account(good).SetTrust("serval-workflow", trust("another"))
		}, "cannot be assumed"},
		// S-22
		"a workflow role that is open": {func(cloud *awstest.Cloud, _ *worker.Task) {
			cloud.Account(good).SetTrust("serval-workflow", strings.Replace(trust(external), "StringEquals", "StringEqualsIfExists", 1))
		}, "cannot be assumed"},
	} {
		t.Run(name, func(t *testing.T) {
			cloud, p, a := performing(t)
			one := task(serval.TaskCreateRole, a)
			tt.change(cloud, &one)
			if r := perform(t, p, one); !strings.Contains(r.Error, tt.error) || r.Role != nil || cloud.CountCalls("CreateRole") != 0 {
				t.Errorf("result %+v after %d calls of CreateRole, want %q and none", r, cloud.CountCalls("CreateRole"), tt.error)
			}
		})
	}
	// The list is refused like a sync.
	cloud, p, a := performing(t)
	cloud.Account(good).SetTrust("serval-ingestion", strings.Replace(trust(external), "StringEquals", "StringEqualsIfExists", 1))
	r := perform(t, p, task(serval.TaskListAccounts, a))
	if r.Check.Passed || r.Check.Text != serval.TextNoOrganizations || !slices.Contains(r.Check.Findings[0].Causes, serval.CauseExternalIDOpen) || cloud.CountCalls("ListAccounts") != 0 {
		t.Errorf("check %+v, want it refused before anything is listed", r.Check)
	}
}
