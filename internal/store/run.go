package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

const runColumns = `id, workflow, account_id, role, started_by, started_email, started_at, status, decided_by, decided_email,
	decided_at, reason, ended_at, due_at, result`

func scanRun(row scanner) (serval.Run, error) {
	var r serval.Run
	var role, result string
	var started, decided, ended, due int64
	err := row.Scan(&r.ID, &r.Workflow, &r.AccountID, &role, &r.By.ID, &r.By.Email, &started, &r.Status, &r.DecidedBy.ID, &r.DecidedBy.Email,
		&decided, &r.Reason, &ended, &due, &result)
	if err != nil {
		return serval.Run{}, fmt.Errorf("reading a run: %w", err)
	}
	r.StartedAt, r.DecidedAt, r.EndedAt = instant(started), instant(decided), instant(ended)
	if role != "" {
		r.Role = &serval.NewRole{}
		if err := json.Unmarshal([]byte(role), r.Role); err != nil {
			return serval.Run{}, fmt.Errorf("reading the role of run %s: %w", r.ID, err)
		}
	}
	if err := json.Unmarshal([]byte(result), &r.Result); err != nil {
		return serval.Run{}, fmt.Errorf("reading the result of run %s: %w", r.ID, err)
	}
	return r, nil
}

// Run returns the run with the id.
func (v *View) Run(id string) (serval.Run, error) {
	return one(v, "There is no such run.", scanRun, `select `+runColumns+` from run where id = $1`, id)
}

// CurrentRun returns the id of the account's run of a workflow that has not ended
// yet; empty where there is none.
func (v *View) CurrentRun(accountID string, w serval.Workflow) (string, error) {
	ids, err := all(v, scanID, `select id from run where account_id = $1 and workflow = $2 and ended_at = 0 order by started_at limit 1`,
		accountID, string(w))
	if err != nil || len(ids) == 0 {
		return "", err
	}
	return ids[0], nil
}

// PendingRuns returns the runs that wait for a decision, the oldest first, at most
// limit.
func (v *View) PendingRuns(limit int) ([]serval.Run, error) {
	return all(v, scanRun, `select `+runColumns+` from run
		where status = 'pending' and due_at <> 0 order by due_at, id collate "C" limit $1`, limit)
}

// CountCurrent returns how many runs of a workflow have not ended yet.
func (v *View) CountCurrent(w serval.Workflow) (n int, err error) {
	if err := v.scan(`select count(*) from run where workflow = $1 and ended_at = 0`, []any{string(w)}, &n); err != nil {
		return 0, fmt.Errorf("counting runs: %w", err)
	}
	return n, nil
}

// LastCheck returns the account's last check that came to an end; nil where there
// is none.
func (v *View) LastCheck(accountID string) (*serval.Run, error) {
	runs, err := all(v, scanRun, `select `+runColumns+` from run
		where account_id = $1 and workflow = 'check' and status = 'done' order by ended_at desc, id collate "C" limit 1`, accountID)
	if err != nil || len(runs) == 0 {
		return nil, err
	}
	return &runs[0], nil
}

// DueRuns returns the ids of runs that time ends at now, at most limit.
func (v *View) DueRuns(now time.Time, limit int) ([]string, error) {
	return all(v, scanID, `select id from run where due_at <> 0 and due_at <= $1 order by due_at limit $2`, micros(now), limit)
}

func scanID(row scanner) (id string, err error) {
	if err := row.Scan(&id); err != nil {
		return "", fmt.Errorf("reading an id: %w", err)
	}
	return id, nil
}

// SaveRun keeps the run.
func (t *Tx) SaveRun(r serval.Run) error {
	result, err := json.Marshal(r.Result)
	if err != nil {
		return fmt.Errorf("encoding the result of run %s: %w", r.ID, err)
	}
	role := []byte{}
	if r.Role != nil {
		if role, err = json.Marshal(r.Role); err != nil {
			return fmt.Errorf("encoding the role of run %s: %w", r.ID, err)
		}
	}
	return t.exec("keeping run "+r.ID, `insert into run (`+runColumns+`)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
		on conflict (id) do update set status = excluded.status, decided_by = excluded.decided_by, decided_email = excluded.decided_email,
			decided_at = excluded.decided_at, reason = excluded.reason, ended_at = excluded.ended_at, due_at = excluded.due_at,
			result = excluded.result`,
		r.ID, string(r.Workflow), r.AccountID, string(role), r.By.ID, r.By.Email, micros(r.StartedAt), string(r.Status),
		r.DecidedBy.ID, r.DecidedBy.Email, micros(r.DecidedAt), r.Reason, micros(r.EndedAt), micros(r.DueAt()), string(result))
}

// EndFetches ends the runs that waited for a sync of the account which started
// at or after they did.
func (t *Tx) EndFetches(accountID string, started time.Time, result serval.SyncResult) error {
	runs, err := all(&t.View, scanRun, `select `+runColumns+` from run
		where account_id = $1 and workflow = 'fetch-roles' and ended_at = 0 and started_at <= $2`, accountID, micros(started))
	if err != nil {
		return err
	}
	for _, r := range runs {
		if err := r.End(serval.RunResult{Sync: &result}, t.Now); err != nil {
			return err
		}
		if err := t.SaveRun(r); err != nil {
			return err
		}
	}
	return nil
}

// DropOldRuns drops runs that ended before the instant, with their tasks. The
// audit log keeps what was done.
func (s *Store) DropOldRuns(ctx context.Context, before time.Time) error {
	err := s.alone(ctx, `delete from task where run_id in (select id from run where ended_at <> 0 and ended_at < $1)`, micros(before))
	if err != nil {
		return fmt.Errorf("dropping old tasks: %w", err)
	}
	err = s.alone(ctx, `delete from run where ended_at <> 0 and ended_at < $1 and id not in (select run_id from task)`, micros(before))
	if err != nil {
		return fmt.Errorf("dropping old runs: %w", err)
	}
	return nil
}
