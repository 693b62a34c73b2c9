package serval

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// What can happen to a task in each state, all of it: the state after, or the
// kind of the refusal.
func TestTaskTransitions(t *testing.T) {
	const limit = 5 * time.Minute // of a check
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	states := []struct {
		name string
		task Task
	}{
		{"open", Task{State: TaskOpen, CreatedAt: now}},
		{"forgotten", Task{State: TaskOpen, CreatedAt: now.Add(-time.Hour)}},
		{"claimed", Task{State: TaskClaimed, Attempt: 2, ClaimedBy: "a", Until: now.Add(time.Second)}},
		{"ran out", Task{State: TaskClaimed, Attempt: 2, ClaimedBy: "a", Until: now}},
		{"ran out long ago", Task{State: TaskClaimed, Attempt: 2, ClaimedBy: "a", Until: now.Add(-time.Hour)}},
		{"last ran out", Task{State: TaskClaimed, Attempt: 3, ClaimedBy: "a", Until: now}},
		{"last", Task{State: TaskClaimed, Attempt: 3, ClaimedBy: "a", Until: now.Add(time.Second)}},
		{"done", Task{State: TaskDone, Attempt: 1, ClaimedBy: "a", EndedAt: now}},
		{"failed", Task{State: TaskFailed, Attempt: 1, ClaimedBy: "a", EndedAt: now}},
	}
	acts := []struct {
		name string
		do   func(*Task) error
	}{
		{"free", func(t *Task) error {
			if !t.IsFree(now) {
				return Refuse(Conflict, "not free")
			}
			return nil
		}},
		{"claim by a", func(t *Task) error { return t.Claim("a", now) }},
		{"claim by b", func(t *Task) error { return t.Claim("b", now) }},
		{"finish 2 by a", func(t *Task) error { return t.Finish(2, "a", false, now) }},
		{"fail 2 by a", func(t *Task) error { return t.Finish(2, "a", true, now) }},
		{"finish 2 by b", func(t *Task) error { return t.Finish(2, "b", false, now) }},
		{"finish 1 by a", func(t *Task) error { return t.Finish(1, "a", false, now) }},
		{"finish 3 by a", func(t *Task) error { return t.Finish(3, "a", false, now) }},
		{"finish 0 by nobody", func(t *Task) error { return t.Finish(0, "", false, now) }},
		{"time", func(t *Task) error { t.Lapse(now); return nil }},
	}
	const c = string(Conflict)
	want := map[string]string{
		//                  free  a         b         fin2 a fail2a  fin2 b fin1 a fin3 a fin0   time
		"open":             "open claimed/1 claimed/1 " + c + " " + c + " " + c + " " + c + " " + c + " " + c + " open",
		"forgotten":        "open claimed/1 claimed/1 " + c + " " + c + " " + c + " " + c + " " + c + " " + c + " failed",
		"claimed":          c + " " + c + " " + c + " done failed " + c + " " + c + " " + c + " " + c + " claimed",
		"ran out":          "claimed claimed/3 claimed/3 done failed " + c + " " + c + " " + c + " " + c + " claimed",
		"ran out long ago": "claimed claimed/3 claimed/3 done failed " + c + " " + c + " " + c + " " + c + " failed",
		"last ran out":     c + " " + c + " " + c + " " + c + " " + c + " " + c + " " + c + " done " + c + " failed",
		"last":             c + " " + c + " " + c + " " + c + " " + c + " " + c + " " + c + " done " + c + " claimed",
		"done":             c + " " + c + " " + c + " " + c + " " + c + " " + c + " " + c + " " + c + " " + c + " done",
		"failed":           c + " " + c + " " + c + " " + c + " " + c + " " + c + " " + c + " " + c + " " + c + " failed",
	}
	for _, s := range states {
		row := strings.Fields(want[s.name])
		for i, act := range acts {
			task := s.task
			task.Kind, task.AccountID = TaskCheck, "111122223333"
			err := act.do(&task)
			got := string(task.State)
			switch r, refused := err.(*Refusal); {
			case refused:
				got = string(r.Kind)
				if task.State != s.task.State || task.Attempt != s.task.Attempt || task.Until != s.task.Until || task.EndedAt != s.task.EndedAt {
					t.Errorf("%s × %s was refused, and changed the task to %+v", s.name, act.name, task)
				}
				if ended := s.task.State == TaskDone || s.task.State == TaskFailed; act.name != "free" && ended != (r.Reason == "This task has ended.") {
					t.Errorf("%s × %s is refused with %q", s.name, act.name, r.Reason)
				}
				if s.task.State == TaskClaimed && now.Before(s.task.Until) && strings.HasPrefix(act.name, "claim") && r.Detail["until"] == "" {
					t.Errorf("%s × %s does not say until when", s.name, act.name)
				}
			case strings.HasPrefix(act.name, "claim"):
				got += fmt.Sprintf("/%d", task.Attempt)
				if !task.Until.Equal(now.Add(limit)) || "claim by "+task.ClaimedBy != act.name {
					t.Errorf("%s × %s gave it to %s until %s", s.name, act.name, task.ClaimedBy, task.Until)
				}
			}
			if got != row[i] {
				t.Errorf("%s × %s: %s, want %s", s.name, act.name, got, row[i])
			}
			if ended := task.State == TaskDone || task.State == TaskFailed; ended == task.EndedAt.IsZero() || ended != task.DueAt().IsZero() {
				t.Errorf("%s × %s: %s ended at %s and is due at %s", s.name, act.name, task.State, task.EndedAt, task.DueAt())
			}
		}
	}
}

// Each kind of task has its time, and each way to lapse its sentence.
func TestTaskLapses(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for kind, want := range map[TaskKind]time.Duration{
		TaskCheck: 5 * time.Minute, TaskCreateRole: 5 * time.Minute, TaskListAccounts: 10 * time.Minute,
	} {
		if got := kind.Deadline(); got != want {
			t.Errorf("%s has %s, want %s", kind, got, want)
		}
	}
	for _, tt := range []struct {
		task Task
		want string
	}{
		{Task{State: TaskOpen, AccountID: "111122223333", CreatedAt: now.Add(-time.Hour)},
			"No worker took this within an hour. Is one running that was given account 111122223333?"},
		{Task{State: TaskClaimed, Attempt: 3, Until: now}, "The worker did not finish this, 3 times."},
		{Task{State: TaskClaimed, Attempt: 2, Until: now.Add(-time.Hour)}, "The worker that had taken this did not finish it, and no other came."},
		{Task{State: TaskClaimed, Attempt: 2, Until: now}, ""},
	} {
		task := tt.task
		if got := task.Lapse(now); got != tt.want {
			t.Errorf("%+v lapses with %q, want %q", tt.task, got, tt.want)
		}
	}
}

func TestRunDecisions(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ana, ben := Person{ID: "p1", Email: "ana@example.com"}, Person{ID: "p2", Email: "ben@example.com"}
	for _, tt := range []struct {
		name    string
		run     Run
		by      Person
		approve bool
		want    string
	}{
		{"approved", Run{Status: RunPending, By: ana, StartedAt: now}, ben, true, "running"},
		{"denied", Run{Status: RunPending, By: ana, StartedAt: now}, ben, false, "denied"},
		{"by who started it", Run{Status: RunPending, By: ana, StartedAt: now}, ana, true, "permission_denied"},
		{"denied by who started it", Run{Status: RunPending, By: ana, StartedAt: now}, ana, false, "permission_denied"},
		{"by who started it, under another email", Run{Status: RunPending, By: ana, StartedAt: now}, Person{ID: "p1", Email: "ana@other.example.com"}, true, "permission_denied"},
		{"by their other identity", Run{Status: RunPending, By: ana, StartedAt: now}, Person{ID: "p9", Email: "ANA@example.com"}, true, "permission_denied"},
		{"too late", Run{Status: RunPending, By: ana, StartedAt: now.Add(-RunExpiry)}, ben, true, "conflict"},
		{"running", Run{Status: RunRunning, By: ana, StartedAt: now}, ben, true, "conflict"},
		{"ended", Run{Status: RunDone, By: ana, StartedAt: now}, ben, false, "conflict"},
		{"denied before", Run{Status: RunDenied, By: ana, StartedAt: now}, ben, true, "conflict"},
	} {
		r := tt.run
		err := r.Decide(tt.by, tt.approve, "why", now)
		got := string(r.Status)
		if refusal, ok := err.(*Refusal); ok {
			got = string(refusal.Kind)
			if r.Status != tt.run.Status || !r.DecidedAt.IsZero() {
				t.Errorf("%s: refused, and changed to %+v", tt.name, r)
			}
		} else if r.DecidedBy.ID != tt.by.ID || r.Reason != "why" || (r.Status == RunDenied) == r.EndedAt.IsZero() {
			t.Errorf("%s: %+v, want who, why and when", tt.name, r)
		}
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestRunsEnd(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name string
		run  Run
		want RunStatus
	}{
		{"waits", Run{Status: RunPending, Workflow: WorkflowCreateRole, StartedAt: now.Add(-RunExpiry + time.Second)}, RunPending},
		{"nobody decided", Run{Status: RunPending, Workflow: WorkflowCreateRole, StartedAt: now.Add(-RunExpiry)}, RunExpired},
		{"waits for a sync", Run{Status: RunRunning, Workflow: WorkflowFetchRoles, StartedAt: now.Add(-RunSync + time.Second)}, RunRunning},
		{"no sync came", Run{Status: RunRunning, Workflow: WorkflowFetchRoles, StartedAt: now.Add(-RunSync)}, RunFailed},
		{"its task ends it", Run{Status: RunRunning, Workflow: WorkflowCheck, StartedAt: now.Add(-365 * 24 * time.Hour)}, RunRunning},
		{"ended", Run{Status: RunDone, Workflow: WorkflowFetchRoles, StartedAt: now.Add(-365 * 24 * time.Hour)}, RunDone},
	} {
		r := tt.run
		if lapsed := r.Lapse(now); r.Status != tt.want || lapsed != (tt.want != tt.run.Status) || lapsed == r.EndedAt.IsZero() {
			t.Errorf("%s: %s ended at %s, lapsed %v; want %s", tt.name, r.Status, r.EndedAt, lapsed, tt.want)
		}
	}
	for status, result := range map[RunStatus]RunResult{RunDone: {}, RunFailed: {Error: "no"}} {
		r := Run{Status: RunRunning}
		if err := r.End(result, now); err != nil || r.Status != status || !r.EndedAt.Equal(now) {
			t.Errorf("%+v: %v, want %s", r, err, status)
		}
		if err := r.End(RunResult{}, now); !IsRefusal(err, Conflict) || r.Status != status {
			t.Errorf("a run that ended ended again: %v", err)
		}
	}
}

// The boundary is mandatory, and everything of a new role has its bounds.
func TestNewRoleFaults(t *testing.T) {
	account := Account{ID: "111122223333", Partition: "aws"}
	good := NewRole{Name: "dev", MaxSessionSeconds: 3600, PermissionsBoundary: "arn:aws:iam::111122223333:policy/boundary",
		Policy: `{"Statement":[]}`, Issuer: "https://login.example.com", ClientID: "serval"}
	for _, tt := range []struct {
		name   string
		change func(*NewRole)
		want   string // what the one fault begins with; empty for none
	}{
		{"good", func(*NewRole) {}, ""},
		{"a boundary of AWS's", func(r *NewRole) { r.PermissionsBoundary = "arn:aws:iam::aws:policy/PowerUserAccess" }, ""},
		{"no name", func(r *NewRole) { r.Name = "" }, "name:"},
		{"a name with a path", func(r *NewRole) { r.Name = "admin/dev" }, "name:"},
		{"a long name", func(r *NewRole) { r.Name = strings.Repeat("x", 65) }, "name:"},
		{"a long description", func(r *NewRole) { r.Description = strings.Repeat("x", 901) }, "description:"},
		{"a description IAM does not take", func(r *NewRole) { r.Description = "a\x00" }, "description:"},
		{"a short session", func(r *NewRole) { r.MaxSessionSeconds = 3599 }, "max_session_seconds:"},
		{"a long session", func(r *NewRole) { r.MaxSessionSeconds = 43201 }, "max_session_seconds:"},
		{"no boundary", func(r *NewRole) { r.PermissionsBoundary = "" }, "permissions_boundary: required"},
		{"a role for a boundary", func(r *NewRole) { r.PermissionsBoundary = "arn:aws:iam::111122223333:role/x" }, "permissions_boundary:"},
		{"a boundary of another account", func(r *NewRole) { r.PermissionsBoundary = "arn:aws:iam::222233334444:policy/x" }, "permissions_boundary:"},
		{"a boundary of another partition", func(r *NewRole) { r.PermissionsBoundary = "arn:aws-cn:iam::111122223333:policy/x" }, "permissions_boundary:"},
		{"no policy", func(r *NewRole) { r.Policy = "" }, "policy:"},
		{"a policy without statements", func(r *NewRole) { r.Policy = `{"Version":"2012-10-17"}` }, "policy:"},
		{"a long policy", func(r *NewRole) { r.Policy = `{"Statement":"` + strings.Repeat("x", 10240) + `"}` }, "policy:"},
		{"a policy that is no JSON", func(r *NewRole) { r.Policy = `{"Statement":[]` }, "policy:"},
		{"an issuer on loopback", func(r *NewRole) { r.Issuer = "http://127.0.0.1:8443" }, ""},
		{"an issuer of another scheme", func(r *NewRole) { r.Issuer = "ftp://127.0.0.1" }, "issuer:"},
		{"an issuer without a host", func(r *NewRole) { r.Issuer = "https:login" }, "issuer:"},
		{"an issuer that cannot be read", func(r *NewRole) { r.Issuer = "https://%" }, "issuer:"},
		{"a long client", func(r *NewRole) { r.ClientID = strings.Repeat("x", 256) }, "client_id:"},
		{"an issuer without TLS", func(r *NewRole) { r.Issuer = "http://login.example.com" }, "issuer:"},
		{"no client", func(r *NewRole) { r.ClientID = " " }, "client_id:"},
	} {
		r := good
		tt.change(&r)
		faults := r.Faults(account)
		if (tt.want == "") != (len(faults) == 0) || len(faults) > 1 || len(faults) == 1 && !strings.HasPrefix(faults[0], tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, faults, tt.want)
		}
	}
}

func TestParseWorkflow(t *testing.T) {
	for text, want := range map[string]Workflow{
		"fetch-roles": WorkflowFetchRoles, "Fetch AWS IAM Roles for Resource Sync": WorkflowFetchRoles, "fetch-aws-iam-roles-for-resource-sync": WorkflowFetchRoles,
		"list-accounts": WorkflowListAccounts, "List AWS Organization Accounts": WorkflowListAccounts, "list-aws-organization-accounts": WorkflowListAccounts,
		"create-role": WorkflowCreateRole, "Create AWS IAM Role": WorkflowCreateRole, "create-aws-iam-role": WorkflowCreateRole,
		"Test AWS Connection": "Test AWS Connection", "": "", "CREATE-ROLE": "CREATE-ROLE",
	} {
		if got := ParseWorkflow(text); got != want {
			t.Errorf("%q names %q, want %q", text, got, want)
		}
	}
}
