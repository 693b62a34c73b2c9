package store

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A Worker is a worker with the AWS identity that it says it has.
type Worker struct {
	Name  string
	Bound []string // the account ids that it was given; nil means all

	ARN       string
	Partition string
	AccountID string
	SeenAt    time.Time
}

const workerColumns = `name, arn, partition, account_id, bound, seen_at`

func scanWorker(row scanner) (Worker, error) {
	var w Worker
	var bound string
	var seen int64
	if err := row.Scan(&w.Name, &w.ARN, &w.Partition, &w.AccountID, &bound, &seen); err != nil {
		return Worker{}, fmt.Errorf("reading a worker: %w", err)
	}
	w.SeenAt = instant(seen)
	if err := json.Unmarshal([]byte(bound), &w.Bound); err != nil {
		return Worker{}, fmt.Errorf("reading the accounts of worker %s: %w", w.Name, err)
	}
	return w, nil
}

// Worker returns the worker with the name.
func (v *View) Worker(name string) (Worker, error) {
	return one(v, "There is no such worker.", scanWorker, `select `+workerColumns+` from worker where name = $1`, name)
}

// Workers returns the workers that said who they are since the instant.
func (v *View) Workers(since time.Time) ([]Worker, error) {
	workers, err := all(v, scanWorker, `select `+workerColumns+` from worker where seen_at >= $1 order by name collate "C"`, micros(since))
	if err != nil {
		return nil, fmt.Errorf("listing workers: %w", err)
	}
	return workers, nil
}

// SaveWorker keeps who a worker says it is, seen now.
func (t *Tx) SaveWorker(who serval.Principal, identity serval.CallerARN) error {
	bound, err := json.Marshal(who.Bound)
	if err != nil {
		return fmt.Errorf("encoding the accounts of worker %s: %w", who.Worker, err)
	}
	return t.exec("keeping worker "+who.Worker, `insert into worker (`+workerColumns+`) values ($1, $2, $3, $4, $5, $6)
		on conflict (name) do update set arn = excluded.arn, partition = excluded.partition, account_id = excluded.account_id,
			bound = excluded.bound, seen_at = excluded.seen_at`,
		who.Worker, identity.ARN, identity.Partition, identity.AccountID, string(bound), micros(t.Now))
}
