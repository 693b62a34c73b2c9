package store

import (
	"context"
	"database/sql"
	"sync/atomic"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/database"
	"github.com/serval-bridge/serval-bridge/internal/memory"
)

// What is read again and again (who holds a cookie, which roles there are) is
// remembered while nothing writes to the tables that it was read from. That is
// exact where one process alone writes, which is so with SQLite: every write of
// ours is noted by its table before it is acknowledged. Under PostgreSQL other
// replicas write too, and nothing is remembered. A Tx reads the database itself:
// what decides is never remembered.

// A source is what a remembered value is called, and the tables it is read from.
type source struct {
	what   string
	tables []string
}

// Remember returns what read would, and remembers it until anything is written
// that is not only about signing in. It is for answers that are made from much,
// and must hold no more than what may lie in memory for a second. Whoever gets it
// must not change it.
func Remember[T any](v *View, what, of string, read func() (T, error)) (T, error) {
	return remember(v, source{"answer " + what, []string{memory.Everything}}, of, read)
}

// aside are the tables of sign-ins that are under way, of what a login was last
// used for, of pushes that were not accepted, and of the chain's row, which every
// transaction takes.
var aside = map[string]bool{"chain": true, "login_attempt": true, "client_attempt": true, "login": true, "id_token": true, "staged_role": true, "staged_document": true}

// remember returns what read would. Whoever gets it must not change it.
func remember[T any](v *View, from source, of string, read func() (T, error)) (T, error) {
	if v.snapshot == nil || !v.snapshot.memory.IsOn() {
		return read()
	}
	m, key := v.snapshot.memory, memory.Key{What: from.what, Of: of}
	if value, holds := m.Get(key, from.tables); holds {
		return value.(T), nil
	}
	began := time.Now()
	value, err := read()
	if err == nil {
		m.Put(key, value, v.snapshot.asOf, began)
	}
	return value, err
}

// alone runs one statement outside of a transaction of ours, and notes what it
// changed. It is for housekeeping; no chain is taken.
func (s *Store) alone(ctx context.Context, query string, args ...any) error {
	result, err := s.db.ExecContext(ctx, query, args...)
	if err != nil {
		return err
	}
	changed, err := result.RowsAffected()
	if err != nil {
		return err
	}
	if changed > 0 {
		s.memory.Written(database.Changes(query))
	}
	return nil
}

// A snapshot is the transaction of a view. It begins with the first statement:
// a view whose every answer is remembered has none.
type snapshot struct {
	memory *memory.Memory
	known  *atomic.Pointer[end]
	db     *database.DB
	begun  context.Context // what the view was asked for with
	tx     *database.Tx
	asOf   uint64 // the writes that it sees: all up to this one, and perhaps more
	failed error
}

// querier returns what runs a statement, and a context that has ended where
// there is no transaction to run it in.
func (d *snapshot) querier(ctx context.Context) (querier, context.Context) {
	if d.tx == nil && d.failed == nil {
		d.asOf = d.memory.Now()
		d.tx, d.failed = d.db.BeginRead(d.begun)
	}
	if d.failed != nil {
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		return d.db, ctx
	}
	return d.tx, ctx
}

// QueryContext passes on.
func (d *snapshot) QueryContext(ctx context.Context, query string, args ...any) (database.Rows, error) {
	q, ctx := d.querier(ctx)
	return q.QueryContext(ctx, query, args...)
}

// QueryRowContext passes on.
func (d *snapshot) QueryRowContext(ctx context.Context, query string, args ...any) database.Row {
	q, ctx := d.querier(ctx)
	return q.QueryRowContext(ctx, query, args...)
}

// ExecContext passes on.
func (d *snapshot) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	q, ctx := d.querier(ctx)
	return q.ExecContext(ctx, query, args...)
}

// end ends the transaction, if one was begun: nothing was written.
func (d *snapshot) end() {
	if d.tx != nil {
		d.tx.Rollback()
	}
}
