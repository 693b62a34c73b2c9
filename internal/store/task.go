package store

import (
	"fmt"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A Task is a task with the digest of the result that was taken of it; empty
// before there is one.
type Task struct {
	serval.Task
	Digest string
}

const taskColumns = `id, run_id, account_id, kind, state, attempt, claimed_by, until_at, created_at, ended_at, due_at, digest`

func scanTask(row scanner) (Task, error) {
	var t Task
	var until, created, ended, due int64
	err := row.Scan(&t.ID, &t.RunID, &t.AccountID, &t.Kind, &t.State, &t.Attempt, &t.ClaimedBy, &until, &created, &ended, &due, &t.Digest)
	if err != nil {
		return Task{}, fmt.Errorf("reading a task: %w", err)
	}
	t.Until, t.CreatedAt, t.EndedAt = instant(until), instant(created), instant(ended)
	return t, nil
}

// Task returns the task with the id.
func (v *View) Task(id string) (Task, error) {
	return one(v, "There is no such task.", scanTask, `select `+taskColumns+` from task where id = $1`, id)
}

// OpenTasks returns the tasks that have not ended, oldest first.
func (v *View) OpenTasks() ([]Task, error) {
	return all(v, scanTask, `select `+taskColumns+` from task where due_at <> 0 order by created_at, id collate "C"`)
}

// DueTasks returns the ids of tasks that time ends at now, at most limit.
func (v *View) DueTasks(now time.Time, limit int) ([]string, error) {
	return all(v, scanID, `select id from task where due_at <> 0 and due_at <= $1 order by due_at limit $2`, micros(now), limit)
}

// SaveTask keeps the task.
func (t *Tx) SaveTask(task Task) error {
	return t.exec("keeping task "+task.ID, `insert into task (`+taskColumns+`)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
		on conflict (id) do update set state = excluded.state, attempt = excluded.attempt, claimed_by = excluded.claimed_by,
			until_at = excluded.until_at, ended_at = excluded.ended_at, due_at = excluded.due_at, digest = excluded.digest`,
		task.ID, task.RunID, task.AccountID, string(task.Kind), string(task.State), task.Attempt, task.ClaimedBy,
		micros(task.Until), micros(task.CreatedAt), micros(task.EndedAt), micros(task.DueAt()), task.Digest)
}
