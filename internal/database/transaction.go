package database

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"unicode/utf8"
)

// A Row is the one row of a statement. Scan reads it, once; sql.ErrNoRows where
// there is none.
type Row interface{ Scan(dest ...any) error }

// Rows are the rows of a statement, which are read one after the other, as those of
// database/sql.
type Rows interface {
	Next() bool
	Scan(dest ...any) error
	Err() error
	Close() error
}

// A Tx is one transaction. It belongs to one goroutine.
type Tx struct {
	ctx     context.Context // what it was begun with
	changed []string        // tables

	line *pipeline // of PostgreSQL; nil once it has ended

	seat *seat // of SQLite; nil once it has ended
	of   *seats
	log  *checkpointer
	kept bool // it was committed
}

// Changes returns the table that a statement changes; empty where it only reads.
func Changes(query string) string {
	query = strings.TrimLeft(query, spaces)
	for _, verb := range [...]string{"insert into ", "update ", "delete from "} {
		if rest, changes := strings.CutPrefix(query, verb); changes {
			rest = strings.TrimLeft(rest, spaces)
			if end := strings.IndexAny(rest, spaces+"("); end >= 0 {
				rest = rest[:end]
			}
			return rest
		}
	}
	return ""
}

const spaces = " \t\r\n"

// Changed returns the tables that statements of t were run on to change them; of
// those that are known to have changed no row, none.
func (t *Tx) Changed() []string { return t.changed }

func (t *Tx) note(query string) {
	if table := Changes(query); table != "" {
		t.changed = append(t.changed, table)
	}
}

// Storable reports whether both databases keep every text of args as it is:
// PostgreSQL takes neither NUL nor invalid UTF-8. What people and providers send
// is refused where it is read; this is for what slipped through, so that it is a
// refusal on both and not a fault on one.
func Storable(args []any) bool {
	for _, arg := range args {
		if text, ok := arg.(string); ok && (!utf8.ValidString(text) || strings.Contains(text, "\x00")) {
			return false
		}
	}
	return true
}

// begin begins a transaction of SQLite.
func (s *seats) begin(ctx context.Context, log *checkpointer) (*Tx, error) {
	one, err := s.take(ctx)
	if err != nil {
		return nil, err
	}
	if s.write {
		_, err = one.ExecContext(brief(ctx), `begin immediate`)
	} else {
		_, err = one.ExecContext(brief(ctx), `begin`)
	}
	if err != nil {
		s.giveBack(one, false)
		return nil, err
	}
	return &Tx{ctx: ctx, seat: one, of: s, log: log}, nil
}

// Commit ends the transaction and keeps what it wrote.
func (t *Tx) Commit() error {
	if err := t.ctx.Err(); err != nil {
		return err
	}
	if t.line != nil {
		return t.line.commit(t.ctx)
	}
	_, err := t.seat.ExecContext(context.Background(), `commit`)
	if t.kept = err == nil; t.kept && t.of.write {
		t.log.committed()
	}
	return err
}

// Rollback ends the transaction and keeps nothing of it. Whoever begins a Tx calls
// it in the end, also after Commit, where there is nothing to undo: until then no
// other transaction of SQLite that writes begins.
func (t *Tx) Rollback() {
	switch {
	case t.line != nil:
		t.line.end(t.ctx)
		t.line = nil
		return
	case t.seat == nil:
		return
	}
	sound := t.kept
	if !t.kept {
		_, err := t.seat.ExecContext(context.Background(), `rollback`)
		sound = err == nil // SQLite may have ended it itself, as where the disk is full
	}
	t.of.giveBack(t.seat, sound)
	t.seat = nil
}

// QueryContext runs a statement.
func (t *Tx) QueryContext(ctx context.Context, query string, args ...any) (Rows, error) {
	t.note(query)
	if t.line != nil {
		return t.line.query(ctx, query, args)
	}
	return t.seat.QueryContext(ctx, query, args...)
}

// QueryRowContext runs a statement, at the latest when its row is read. Under
// SQLite it is not broken off when ctx ends.
func (t *Tx) QueryRowContext(ctx context.Context, query string, args ...any) Row {
	t.note(query)
	if t.line != nil {
		return pipedRow{ctx, t.line, query, args}
	}
	return t.seat.QueryRowContext(brief(ctx), query, args...)
}

// ExecContext runs a statement. Under SQLite it is not broken off when ctx ends.
func (t *Tx) ExecContext(ctx context.Context, query string, args ...any) (result sql.Result, err error) {
	if t.line != nil {
		result, err = t.line.exec(ctx, query, args)
	} else {
		result, err = t.seat.ExecContext(brief(ctx), query, args...)
	}
	if err == nil {
		if rows, failed := result.RowsAffected(); failed == nil && rows == 0 {
			return result, nil
		}
	}
	t.note(query)
	return result, err
}

// Ahead says that a statement will be run soon: it is sent with the next one, in the
// order of these calls, and whoever runs it with the same arguments finds its rows here,
// unless something was changed before. Under SQLite there is nothing to be gained.
func (t *Tx) Ahead(query string, args ...any) {
	if t.line != nil && Storable(args) {
		t.line.ahead = append(t.line.ahead, statement{query: query, args: args})
	}
}

// Later has a statement be run before the next one, or before Commit: nobody asks
// what it changed, and where it fails those do. What says, for that error, what was
// being done. Under SQLite it is run at once.
func (t *Tx) Later(ctx context.Context, what, query string, args ...any) error {
	t.note(query)
	if t.line != nil {
		return t.line.wait(ctx, what, query, args)
	}
	if _, err := t.seat.ExecContext(brief(ctx), query, args...); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// Hold has nothing be sent before Commit, and reports whether that changes anything:
// under PostgreSQL the whole transaction then goes there at once. Whoever waits for a
// statement of it has ErrHeld instead, and nothing is kept. Call it before any statement.
// That a Commit which failed kept nothing is certain only where the error is the
// database's own.
func (t *Tx) Hold() bool {
	if t.line != nil {
		t.line.held = true
	}
	return t.line != nil
}

// Sooner is Later for what is done before all else that the transaction does, where
// it is held. Elsewhere it is Later.
func (t *Tx) Sooner(ctx context.Context, what, query string, args ...any) error {
	if t.line == nil || !t.line.held {
		return t.Later(ctx, what, query, args...)
	}
	t.note(query)
	t.line.sooner(what, query, args)
	return nil
}

// Behind has a statement be run once the transaction is committed, in the same way to
// the database and back, and returns its row, to be read after Commit: sql.ErrNoRows
// where it could not be read. Under SQLite, where nobody waits for an answer, it never is.
func (t *Tx) Behind(query string, args ...any) Row {
	b := &behind{statement: statement{query: query, args: args}}
	if t.line != nil {
		t.line.behind = append(t.line.behind, b)
	}
	return b
}
