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
	"sync/atomic"
	"time"
)

// A DB is an open database. It is safe for concurrent use.
type DB struct {
	dialect dialect
	write   *sql.DB // of SQLite: one connection
	read    *sql.DB
	writes  statements // those of write,
	reads   statements // and of read
	unlock  func() error

	login atomic.Pointer[login] // who connects, where that can change
	place string                // of PostgreSQL, without who connects there
}

// tries is how often Again runs what it is given.
const tries = 5

// Close closes the database and lets another process serve it.
func (d *DB) Close() error {
	err := d.read.Close()
	if d.write != d.read {
		err = errors.Join(err, d.write.Close())
	}
	return errors.Join(err, d.release())
}

// Alone reports whether no other process writes to the database: it is SQLite.
func (d *DB) Alone() bool { return d.dialect.alone }

// IsFull reports whether err says that there is no space.
func (d *DB) IsFull(err error) bool { return err != nil && d.dialect.full(err) }

// BeginRead begins a transaction that sees the database as it is at one instant,
// and writes nothing.
func (d *DB) BeginRead(ctx context.Context) (*Tx, error) {
	tx, err := d.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true, Isolation: d.dialect.readIsolation})
	if err != nil {
		return nil, fmt.Errorf("beginning to read: %w", err)
	}
	return &Tx{ctx: ctx, tx: tx, known: &d.reads}, nil
}

// BeginWrite begins a transaction that may write. SQLite has one at a time. Under
// PostgreSQL each statement sees what others have committed before it: take a row
// first that all writers take.
func (d *DB) BeginWrite(ctx context.Context) (*Tx, error) {
	tx, err := d.write.BeginTx(ctx, &sql.TxOptions{Isolation: d.dialect.writeIsolation})
	if err != nil {
		return nil, fmt.Errorf("beginning to write: %w", err)
	}
	return &Tx{ctx: ctx, tx: tx, known: &d.writes}, nil
}

// QueryContext runs a statement that reads, by itself.
func (d *DB) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return d.read.QueryContext(ctx, query, args...)
}

// QueryRowContext runs a statement that reads one row, by itself.
func (d *DB) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return d.read.QueryRowContext(ctx, query, args...)
}

// ExecContext runs a statement that writes, by itself.
func (d *DB) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
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
