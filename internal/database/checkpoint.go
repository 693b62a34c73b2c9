package database

import (
	"context"
	"database/sql"
	"fmt"
	"sync/atomic"
)

// SQLite writes to a log, and moves what is there into its file when a commit finds
// a thousand pages: one opening of a session in forty waited several milliseconds
// for that. So it is moved beside the commits, and by one of them only where the log
// has grown to several times as much, because that was slower than what is written.
const (
	commitsToCheckpoint = 40 // of a dozen pages or two each
	pagesAtMost         = 5000
)

// A checkpointer moves what is in the log of SQLite into the file. Call stop in the
// end.
type checkpointer struct {
	commits atomic.Int64
	due     chan struct{}
	stop    func()
}

func startCheckpoints(db *sql.DB) *checkpointer {
	ctx, cancel := context.WithCancel(context.Background())
	c := &checkpointer{due: make(chan struct{}, 1)}
	done := make(chan struct{})
	c.stop = func() { cancel(); <-done }
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-c.due:
				// What it cannot move now it moves the next time.
				_ = checkpoint(ctx, db)
			}
		}
	}()
	return c
}

// checkpoint moves what no reader needs in the log any more, and waits for nobody.
func checkpoint(ctx context.Context, db *sql.DB) error {
	var busy, pages, moved int64
	if err := db.QueryRowContext(ctx, `pragma wal_checkpoint(passive)`).Scan(&busy, &pages, &moved); err != nil {
		return fmt.Errorf("moving the log into the file: %w", err)
	}
	return nil
}

// committed has the log be moved now and then.
func (c *checkpointer) committed() {
	if c == nil || c.commits.Add(1)%commitsToCheckpoint != 0 {
		return
	}
	select {
	case c.due <- struct{}{}:
	default: // it is due already
	}
}
