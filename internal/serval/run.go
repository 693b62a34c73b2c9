package serval

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

// A Workflow is what an admin can have a worker do. Its text is its name in the
// API.
type Workflow string

// The workflows, and a check, which is run like them.
const (
	WorkflowFetchRoles   Workflow = "fetch-roles"
	WorkflowListAccounts Workflow = "list-accounts"
	WorkflowCreateRole   Workflow = "create-role"
	WorkflowCheck        Workflow = "check"
)

// ParseWorkflow returns the workflow that a text names: by its text, or by its
// title as it stands, or in lower case with dashes, as an address has it. What
// names none is returned as it is, and is none.
func ParseWorkflow(text string) Workflow {
	for _, w := range []Workflow{WorkflowFetchRoles, WorkflowListAccounts, WorkflowCreateRole} {
		if title := w.Title(); text == title || text == strings.ReplaceAll(strings.ToLower(title), " ", "-") {
			return w
		}
	}
	return Workflow(text)
}

// Title returns the workflow's name for people.
func (w Workflow) Title() string {
	switch w {
	case WorkflowFetchRoles:
		return "Fetch AWS IAM Roles for Resource Sync"
	case WorkflowListAccounts:
		return "List AWS Organization Accounts"
	case WorkflowCreateRole:
		return "Create AWS IAM Role"
	default:
		return string(CheckConnection)
	}
}

// Task returns the kind of task that does the workflow; empty where a sync does.
func (w Workflow) Task() TaskKind {
	switch w {
	case WorkflowListAccounts:
		return TaskListAccounts
	case WorkflowCreateRole:
		return TaskCreateRole
	case WorkflowCheck:
		return TaskCheck
	default:
		return ""
	}
}

// WorkflowActions returns the actions that the role needs under which "Create
// AWS IAM Role" runs. No other role ever gets one of them.
func WorkflowActions() []string {
	return []string{"iam:CreateRole", "iam:PutRolePolicy", "iam:TagRole"}
}

// WorkflowPath is the path of every role that "Create AWS IAM Role" makes.
const WorkflowPath = "/serval/"

// RunTag is the tag key by which a role that was made tells of its run.
const RunTag = "serval-run"

// A RunStatus is how far a run is.
type RunStatus string

// The statuses. All but the first two are the last.
const (
	RunPending RunStatus = "pending" // it waits for another admin
	RunRunning RunStatus = "running"
	RunDone    RunStatus = "done"
	RunFailed  RunStatus = "failed"
	RunDenied  RunStatus = "denied"
	RunExpired RunStatus = "expired" // nobody decided it
)

// The bounds of a run that nobody ends.
const (
	RunExpiry = 7 * 24 * time.Hour // of one that waits for a decision
	RunSync   = 24 * time.Hour     // of one that waits for a sync
)

// A Run is one workflow, or one check, of one account.
type Run struct {
	ID        string
	Workflow  Workflow
	AccountID string
	Role      *NewRole // of "Create AWS IAM Role"

	By        Person // who started it: id and email
	StartedAt time.Time
	Status    RunStatus
	DecidedBy Person // id and email; zero where nobody has
	DecidedAt time.Time
	Reason    string // of the decision
	EndedAt   time.Time
	Result    RunResult
}

// A RunResult is what came of a run; what does not belong to its workflow is nil.
type RunResult struct {
	Check    *Check       `json:"check,omitempty"`
	Role     *CreatedRole `json:"role,omitempty"`
	Sync     *SyncResult  `json:"sync,omitempty"`
	Findings []Finding    `json:"findings,omitempty"`
	// Error says why it failed, in a sentence.
	Error string `json:"error,omitempty"`
}

// A SyncResult is what is said of the sync that served a run.
type SyncResult struct {
	Generation int64 `json:"generation"`
	Complete   bool  `json:"complete"`
	Roles      int   `json:"roles"`
}

// A CreatedRole is a role that "Create AWS IAM Role" made.
type CreatedRole struct {
	ARN    string `json:"arn"`
	RoleID string `json:"role_id"`
	// Tagged says that it bears the tag serval; it must be tagged where not.
	Tagged bool `json:"tagged"`
	// Found says that an earlier attempt of this run had made it.
	Found bool `json:"found"`
}

// Text says what came of it, and what is left to do.
func (c CreatedRole) Text() string {
	if c.Tagged {
		return fmt.Sprintf("The role %s is created.", c.ARN)
	}
	return fmt.Sprintf("The role %s is created and must be tagged: the workflow role lacks iam:TagRole, and only roles with the tag %q are taken over.", c.ARN, TagKey)
}

// A NewRole is a role to be made. Its trust policy is not chosen: it is made from
// the issuer and the client by which people sign in.
type NewRole struct {
	Name                string `json:"name"`
	Description         string `json:"description"`
	MaxSessionSeconds   int    `json:"max_session_seconds"`
	PermissionsBoundary string `json:"permissions_boundary"` // ARN of a managed policy
	Policy              string `json:"policy"`               // its one inline policy, a JSON document
	Issuer              string `json:"issuer"`
	ClientID            string `json:"client_id"`
}

// ARN returns the ARN that the role will have.
func (r NewRole) ARN(partition, accountID string) string {
	return fmt.Sprintf("arn:%s:iam::%s:role%s%s", partition, accountID, WorkflowPath, r.Name)
}

// The bounds of a new role (IAM API Reference, CreateRole; IAM quotas).
const (
	maxNewDescription = 900 // of 1,000: the run's id comes behind it
	maxInline         = 10_240
	maxBoundaryName   = 600 // with its path
	leastSession      = 3600
	mostSession       = 43_200
)

var (
	newRoleName    = formOf(`^[\w+=,.@-]+$`, 1, 64)
	newDescription = regexp.MustCompile(`^[\t\n\r\x20-\x7E\x{A1}-\x{FF}]*$`)
	boundaryARN    = regexp.MustCompile(`^arn:(aws[a-z-]*):iam::([0-9]{12}|aws):policy/([\x21-\x7E]+)$`)
)

// Faults returns all that is wrong with the role as it is asked for in an
// account, one sentence each.
func (r NewRole) Faults(a Account) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	if !newRoleName.fits(r.Name) {
		fault("name: 1 to 64 characters of A-Z a-z 0-9 _ + = , . @ -.")
	}
	if utf8.RuneCountInString(r.Description) > maxNewDescription || !newDescription.MatchString(r.Description) {
		fault("description: at most %d characters, of those that IAM takes.", maxNewDescription)
	}
	if r.MaxSessionSeconds < leastSession || r.MaxSessionSeconds > mostSession {
		fault("max_session_seconds: from %d to %d.", leastSession, mostSession)
	}
	m := boundaryARN.FindStringSubmatch(r.PermissionsBoundary)
	switch {
	case r.PermissionsBoundary == "":
		fault("permissions_boundary: required: the ARN of a managed policy that bounds what the role can ever do.")
	case m == nil || len(m[3]) > maxBoundaryName:
		fault("permissions_boundary: not the ARN of a managed policy.")
	case m[1] != a.Partition || m[2] != "aws" && m[2] != a.ID:
		fault("permissions_boundary: the policy is not in account %s of partition %s.", a.ID, a.Partition)
	}
	var policy struct {
		Statement any
	}
	switch err := json.Unmarshal([]byte(r.Policy), &policy); {
	case err != nil || policy.Statement == nil:
		fault("policy: not a policy document: a JSON object with a Statement.")
	case len(r.Policy) > maxInline:
		fault("policy: at most %d characters.", maxInline)
	}
	if u, err := url.Parse(r.Issuer); err != nil || u.Host == "" || u.Scheme != "https" && !(u.Scheme == "http" && IsLoopback(u.Hostname())) {
		fault("issuer: not a URL.")
	}
	if strings.TrimSpace(r.ClientID) == "" || len(r.ClientID) > 255 {
		fault("client_id: 1 to 255 characters.")
	}
	return faults
}

// NeedsApproval reports whether another admin decides each run of the workflow.
func (w Workflow) NeedsApproval() bool { return w == WorkflowCreateRole }

// Decide lets a run that waits go on, or ends it. It is decided once, and never
// by who started it.
func (r *Run) Decide(by Person, approve bool, reason string, now time.Time) error {
	switch {
	case r.Status == RunPending && !now.Before(r.StartedAt.Add(RunExpiry)):
		return Refuse(Conflict, "This run has expired. Start it again.")
	case r.Status != RunPending:
		return Refuse(Conflict, "This run waits for no decision: it is %s.", r.Status)
	case by.ID == r.By.ID || SameEmail(by.Email, r.By.Email):
		return Refuse(Denied, "You started this run. Another admin decides it.")
	}
	r.DecidedBy, r.DecidedAt, r.Reason = by, now, reason
	r.Status = RunRunning
	if !approve {
		r.Status, r.EndedAt = RunDenied, now
	}
	return nil
}

// End ends a run that is running with its result.
func (r *Run) End(result RunResult, now time.Time) error {
	if r.Status != RunRunning {
		return Refuse(Conflict, "This run is %s.", r.Status)
	}
	r.Status, r.Result, r.EndedAt = RunDone, result, now
	if result.Error != "" {
		r.Status = RunFailed
	}
	return nil
}

// DueAt returns when time ends the run by itself: one that nobody decides, or
// whose sync never comes. A run with a task ends with it; zero for those.
func (r *Run) DueAt() time.Time {
	switch {
	case r.Status == RunPending:
		return r.StartedAt.Add(RunExpiry)
	case r.Status == RunRunning && r.Workflow.Task() == "":
		return r.StartedAt.Add(RunSync)
	}
	return time.Time{}
}

// Lapse ends a run whose time has come, and reports whether it did.
func (r *Run) Lapse(now time.Time) bool {
	due := r.DueAt()
	if due.IsZero() || now.Before(due) {
		return false
	}
	if r.Status == RunPending {
		r.Status = RunExpired
	} else {
		r.Status = RunFailed
		r.Result = RunResult{Error: fmt.Sprintf("No worker has read account %s within %s. Is one running that was given it?", r.AccountID, words(RunSync))}
	}
	r.EndedAt = now
	return true
}
