// Package database is a database and nothing of what is in it: a file of SQLite
// or a PostgreSQL, opened, migrated and backed up, with what differs between the
// two, so that whoever has a DB writes one SQL text.
//
// A Tx is one transaction, to read (BeginRead) or to write (BeginWrite). What a
// database asks to have repeated is repeated by Again.
//
// The package knows no table: the schema, and what its rows mean, are the store's.
package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// A DB is an open database. It is safe for concurrent use.
type DB struct {
	dialect dialect
	write   *sql.DB
	read    *sql.DB
	writes  *seats        // of SQLite: one,
	reads   *seats        // and some
	log     *checkpointer // of SQLite that is written to
	unlock  func() error

	migrating sync.Mutex // held while this process migrates

	login atomic.Pointer[login] // who connects, where that can change
	place string                // of PostgreSQL, without who connects there
}

// tries is how often Again runs what it is given.
const tries = 5

// Close closes the database and lets another process serve it.
func (d *DB) Close() error {
	var err error
	if d.log != nil {
		d.log.stop()
	}
	if d.reads != nil {
		err = errors.Join(d.reads.close(), d.writes.close())
	}
	err = errors.Join(err, d.read.Close())
	if d.write != d.read {
		err = errors.Join(err, d.write.Close())
	}
	return errors.Join(err, d.release())
}

// Alone reports whether no other process writes to the database: it is SQLite.
func (d *DB) Alone() bool { return d.dialect.alone }

// IsFull reports whether err says that there is no space.
func (d *DB) IsFull(err error) bool { return err != nil && d.dialect.full(err) }

// IsUnset reports whether err says that a statement left a column without the value
// that it has to have. So a statement can make a condition of the whole transaction.
func (d *DB) IsUnset(err error) bool { return err != nil && d.dialect.unset(err) }

// BeginRead begins a transaction that sees the database as it is at one instant,
// and writes nothing.
func (d *DB) BeginRead(ctx context.Context) (*Tx, error) {
	tx, err := d.begin(ctx, d.reads, d.dialect.read)
	if err != nil {
		return nil, fmt.Errorf("beginning to read: %w", err)
	}
	return tx, nil
}

// BeginWrite begins a transaction that may write. SQLite has one at a time. Under
// PostgreSQL each statement sees what others have committed before it: take a row
// first that all writers take.
func (d *DB) BeginWrite(ctx context.Context) (*Tx, error) {
	tx, err := d.begin(ctx, d.writes, d.dialect.write)
	if err != nil {
		return nil, fmt.Errorf("beginning to write: %w", err)
	}
	return tx, nil
}

// An Away is why no transaction could begin, or why one was lost before its commit was
// sent, while nobody gave up: the database is not there, such as PostgreSQL while
// another takes over. Nothing was kept.
type Away struct{ err error }

// Error returns what was met.
func (a *Away) Error() string { return a.err.Error() }

// Unwrap returns it.
func (a *Away) Unwrap() error { return a.err }

// Passing reports that it is over by itself.
func (a *Away) Passing() bool { return true }

// begin begins a transaction: of SQLite at one of the seats, of PostgreSQL with the
// statement.
func (d *DB) begin(ctx context.Context, at *seats, statement string) (*Tx, error) {
	if at != nil {
		return at.begin(ctx, d.log)
	}
	return pipe(ctx, d.write, statement)
}

// QueryContext runs a statement that reads, by itself.
func (d *DB) QueryContext(ctx context.Context, query string, args ...any) (Rows, error) {
	return d.read.QueryContext(ctx, query, args...)
}

// QueryRowContext runs a statement that reads one row, by itself.
func (d *DB) QueryRowContext(ctx context.Context, query string, args ...any) Row {
	return d.read.QueryRowContext(ctx, query, args...)
}

// ExecContext runs a statement that writes, by itself.
func (d *DB) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if d.writes != nil {
		one, err := d.writes.take(ctx)
		if err != nil {
			return nil, err
		}
		result, err := one.ExecContext(brief(ctx), query, args...)
		d.writes.giveBack(one, true)
		return result, err
	}
	return d.write.ExecContext(ctx, query, args...)
}

// Again runs f, and runs it again, at most five times in all, where its error is
// one with which the database asks for that.
func (d *DB) Again(ctx context.Context, f func() error) error {
	for try := 1; ; try++ {
		err := f()
		if err == nil || try == tries || !d.dialect.retryable(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Duration(try) * time.Duration(5+rand.IntN(20)) * time.Millisecond):
		}
	}
}
