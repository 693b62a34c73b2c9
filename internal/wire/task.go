package wire

import "github.com/serval-bridge/serval-bridge/internal/serval"

// A Check is what came of a health check, as it is shown.
type Check struct {
	Name      serval.CheckName `json:"name"`
	AccountID string           `json:"account_id"`
	At        Time             `json:"at"`
	Passed    bool             `json:"passed"`
	Text      string           `json:"text"` // exact
	Findings  []Finding        `json:"findings"`
	// Identity is the ARN that assumes the account's role; empty where it is not
	// known.
	Identity string `json:"identity"`
}

// A Finding is one thing found below the text, with what mends it.
type Finding struct {
	// Causes it may be: of several, AWS's answer does not say which.
	Causes  []serval.Cause `json:"causes"`
	Text    string         `json:"text"`
	Target  string         `json:"target"`
	Actions []string       `json:"actions"`
	Code    string         `json:"code"`
	Mends   []Paste        `json:"mends"`
}

// A Paste is a text that mends something, and where it belongs.
type Paste struct {
	Title  string `json:"title"`
	Format string `json:"format"` // json, terraform, yaml or shell
	Text   string `json:"text"`
}

// A StartCheck is the body of POST /accounts/{id}/checks.
type StartCheck struct {
	Check serval.CheckName `json:"check,omitempty"` // empty: Test AWS Connection
}

// A StartRun is the body of POST /workflows/{name}/runs.
type StartRun struct {
	AccountID string   `json:"account_id"`
	Role      *NewRole `json:"role,omitempty"` // of create-role
}

// A NewRole is a role to be made, as an admin asks for it.
type NewRole struct {
	Name                string `json:"name"`
	Description         string `json:"description,omitempty"`
	MaxSessionSeconds   int    `json:"max_session_seconds,omitempty"` // 0: 3600
	PermissionsBoundary string `json:"permissions_boundary"`
	Policy              string `json:"policy"` // a policy document, as text
}

// A RunDecision is the body of POST /runs/{id}/decisions.
type RunDecision struct {
	Outcome string `json:"outcome"` // approve or deny
	Reason  string `json:"reason,omitempty"`
}

// A Run is one run of a workflow, or of a check.
type Run struct {
	ID        string           `json:"id"`
	Workflow  serval.Workflow  `json:"workflow"`
	Title     string           `json:"title"`
	AccountID string           `json:"account_id"`
	Status    serval.RunStatus `json:"status"`
	StartedBy Person           `json:"started_by"`
	StartedAt Time             `json:"started_at"`
	EndedAt   Time             `json:"ended_at"`
	// Role is what create-role is to make, with the trust policy it would have.
	Role        *serval.NewRole `json:"role"`
	TrustPolicy string          `json:"trust_policy"`
	Decision    *RunDecided     `json:"decision"`

	// What came of it, as far as it belongs to the workflow.
	Check    *Check             `json:"check"`
	Created  *CreatedRole       `json:"created_role"`
	Sync     *serval.SyncResult `json:"sync"`
	Accounts []FoundAccount     `json:"accounts"`
	Findings []Finding          `json:"findings"`
	Error    string             `json:"error"`
}

// A RunDecided is who decided a run.
type RunDecided struct {
	By      Person `json:"by"`
	Outcome string `json:"outcome"`
	At      Time   `json:"at"`
	Reason  string `json:"reason"`
}

// A CreatedRole is a role that was made.
type CreatedRole struct {
	serval.CreatedRole
	Text string `json:"text"`
}

// A FoundAccount is an account of the organization. One that is not connected
// comes with what would connect it.
type FoundAccount struct {
	serval.OrganizationAccount
	Connected bool             `json:"connected"`
	Connect   *ConnectedValues `json:"connect"`
}

// ConnectedValues are what is filled in to connect an account, ready.
type ConnectedValues struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	RoleARN    string `json:"role_arn"`
	ExternalID string `json:"external_id"`
	Terraform  string `json:"terraform"` // makes that role
}

// A LastCheck is the last check of an account that ended.
type LastCheck struct {
	RunID  string           `json:"run_id"`
	At     Time             `json:"at"`
	Name   serval.CheckName `json:"name"`
	Passed bool             `json:"passed"`
	Text   string           `json:"text"`
}

// Tasks answers GET /upstream/tasks: those that can be claimed. Version is as in
// WorkerAccounts.
type Tasks struct {
	Version string `json:"version"`
	Tasks   []Task `json:"tasks"`
}

// A Task is what a worker is to do, as it is listed.
type Task struct {
	ID        string          `json:"id"`
	Kind      serval.TaskKind `json:"kind"`
	AccountID string          `json:"account_id"`
}

// A ClaimTask is the body of POST /upstream/tasks/{id}/claim.
type ClaimTask struct {
	Worker string `json:"worker"` // who claims it, for people to read
}

// A ClaimedTask answers it: all that the worker needs. Refused with conflict,
// the error's detail has until.
type ClaimedTask struct {
	Task
	RunID   string          `json:"run_id"`
	Attempt int             `json:"attempt"`
	Until   Time            `json:"until"`
	Account WorkerAccount   `json:"account"`
	Role    *serval.NewRole `json:"role"`
}

// A TaskResult is the body of POST /upstream/tasks/{id}/result.
type TaskResult struct {
	Worker  string           `json:"worker"`
	Attempt int              `json:"attempt"`
	Result  serval.RunResult `json:"result"`
}

// A TaskDone answers it.
type TaskDone struct {
	Repeated bool `json:"repeated"` // the same result was taken before
}
