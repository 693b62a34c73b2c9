package serval

import (
	"fmt"
	"time"
)

// A TaskKind says what a worker does.
type TaskKind string

// What a worker does on request. A sync is asked for in another way, because the
// schedule asks for it too.
const (
	TaskCheck        TaskKind = "check"
	TaskListAccounts TaskKind = "list-accounts"
	TaskCreateRole   TaskKind = "create-role"
)

// A TaskState is how far a task is.
type TaskState string

// The states. Done and failed are the last.
const (
	TaskOpen    TaskState = "open"
	TaskClaimed TaskState = "claimed"
	TaskDone    TaskState = "done"
	TaskFailed  TaskState = "failed"
)

// The bounds of a task.
const (
	// TaskAttempts is how often a task is claimed at most.
	TaskAttempts = 3
	// TaskPatience is how long a task waits for a worker.
	TaskPatience = time.Hour
)

// A Task is what one worker does for one run. A claim gives it an attempt number
// and a deadline; only the result of the last attempt counts, so that a worker
// that was thought dead cannot speak for the one after it.
type Task struct {
	ID        string
	RunID     string
	AccountID string
	Kind      TaskKind
	State     TaskState
	Attempt   int // 0 before the first claim
	ClaimedBy string
	Until     time.Time // the claim's deadline
	CreatedAt time.Time
	EndedAt   time.Time
}

// Deadline returns how long one attempt may take.
func (k TaskKind) Deadline() time.Duration {
	if k == TaskListAccounts {
		return 10 * time.Minute // an organization of ten thousand is five hundred pages
	}
	return 5 * time.Minute
}

// IsFree reports whether the task can be claimed: nobody has it, or the claim
// has run out and may be repeated.
func (t *Task) IsFree(now time.Time) bool {
	return t.State == TaskOpen || t.State == TaskClaimed && !now.Before(t.Until) && t.Attempt < TaskAttempts
}

// Claim gives the task to a worker until the deadline. While somebody else has
// it, the refusal's detail says until when.
func (t *Task) Claim(by string, now time.Time) error {
	switch {
	case t.State == TaskDone || t.State == TaskFailed:
		return Refuse(Conflict, "This task has ended.")
	case t.State == TaskClaimed && now.Before(t.Until):
		return &Refusal{Kind: Conflict, Reason: "Another worker has this task.",
			Detail: map[string]string{"until": t.Until.UTC().Format(time.RFC3339Nano)}}
	case t.Attempt >= TaskAttempts:
		return Refuse(Conflict, "This task was claimed %d times and never finished.", t.Attempt)
	}
	t.State, t.ClaimedBy, t.Until = TaskClaimed, by, now.Add(t.Kind.Deadline())
	t.Attempt++
	return nil
}

// Finish ends the task with the result of an attempt. One that comes late counts
// as long as nobody has claimed the task after it.
func (t *Task) Finish(attempt int, by string, failed bool, now time.Time) error {
	switch {
	case t.State == TaskDone || t.State == TaskFailed:
		return Refuse(Conflict, "This task has ended.")
	case t.State != TaskClaimed || attempt != t.Attempt || by != t.ClaimedBy:
		return Refuse(Conflict, "Attempt %d is not the one that counts: the task was claimed again.", attempt)
	}
	t.State, t.EndedAt = TaskDone, now
	if failed {
		t.State = TaskFailed
	}
	return nil
}

// DueAt returns when time ends the task by itself; zero where it has ended.
func (t *Task) DueAt() time.Time {
	switch {
	case t.State == TaskOpen:
		return t.CreatedAt.Add(TaskPatience)
	case t.State == TaskClaimed && t.Attempt >= TaskAttempts:
		return t.Until
	case t.State == TaskClaimed:
		return t.Until.Add(TaskPatience)
	}
	return time.Time{}
}

// Lapse fails a task that nobody will finish any more, and says why; empty where
// it goes on.
func (t *Task) Lapse(now time.Time) (why string) {
	due := t.DueAt()
	switch {
	case due.IsZero() || now.Before(due):
		return ""
	case t.State == TaskOpen:
		why = fmt.Sprintf("No worker took this within %s. Is one running that was given account %s?", words(TaskPatience), t.AccountID)
	case t.Attempt >= TaskAttempts:
		why = fmt.Sprintf("The worker did not finish this, %d times.", t.Attempt)
	default:
		why = "The worker that had taken this did not finish it, and no other came."
	}
	t.State, t.EndedAt = TaskFailed, now
	return why
}

// words says a duration of whole hours.
func words(d time.Duration) string {
	if d == time.Hour {
		return "an hour"
	}
	return fmt.Sprintf("%d hours", d/time.Hour)
}
