package database

import (
	"context"
	"database/sql"
	"sync"
)

// maxStatements bounds how many statements are kept parsed. All that are run are
// constants of whoever has the DB, and they are fewer.
const maxStatements = 500

// statements are those that were run before, parsed: SQLite would parse each text
// anew, which took a third of the time of opening a session. (The driver of
// PostgreSQL does this by itself.) The zero value keeps none.
type statements struct {
	db *sql.DB

	mu     sync.RWMutex
	parsed map[string]*sql.Stmt
}

// A Tx is one transaction. It belongs to one goroutine.
type Tx struct {
	ctx   context.Context // what it was begun with
	tx    *sql.Tx
	known *statements
	new   []string // texts that were not known
}

// Commit ends the transaction and keeps what it wrote.
func (t *Tx) Commit() error { return t.tx.Commit() }

// Rollback ends the transaction and keeps nothing of it. Whoever begins a Tx calls
// it in the end, also after Commit, where there is nothing to undo.
func (t *Tx) Rollback() {
	_ = t.tx.Rollback()
	t.learn()
}

// statement returns the statement of the text, for this transaction; nil if it has
// to be run as it is.
func (t *Tx) statement(ctx context.Context, query string) *sql.Stmt {
	if t.known.db == nil {
		return nil
	}
	t.known.mu.RLock()
	defer t.known.mu.RUnlock()
	if s := t.known.parsed[query]; s != nil {
		return t.tx.StmtContext(ctx, s)
	}
	if len(t.known.parsed)+len(t.new) < maxStatements {
		t.new = append(t.new, query)
	}
	return nil
}

// learn keeps what was new, for the next transaction. One that cannot be parsed by
// itself is run as it is for ever.
func (t *Tx) learn() {
	for _, query := range t.new {
		s, err := t.known.db.PrepareContext(t.ctx, query)
		if err != nil {
			continue
		}
		t.known.mu.Lock()
		if t.known.parsed == nil {
			t.known.parsed = map[string]*sql.Stmt{}
		}
		if t.known.parsed[query] == nil {
			t.known.parsed[query], s = s, nil
		}
		t.known.mu.Unlock()
		if s != nil {
			_ = s.Close() // another was as quick
		}
	}
	t.new = nil
}

// QueryContext runs a statement.
func (t *Tx) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if s := t.statement(ctx, query); s != nil {
		return s.QueryContext(ctx, args...)
	}
	return t.tx.QueryContext(ctx, query, args...)
}

// QueryRowContext runs a statement.
func (t *Tx) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	if s := t.statement(ctx, query); s != nil {
		return s.QueryRowContext(ctx, args...)
	}
	return t.tx.QueryRowContext(ctx, query, args...)
}

// ExecContext runs a statement.
func (t *Tx) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if s := t.statement(ctx, query); s != nil {
		return s.ExecContext(ctx, args...)
	}
	return t.tx.ExecContext(ctx, query, args...)
}
