package database

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/stdlib"
)

// A pipeline is a connection to PostgreSQL in the hands of one transaction. What
// nobody waits for, which is that it begins and what Later and Ahead are given, is
// sent with the next statement that somebody does wait for, and be it the commit:
// the way to the database and back takes longer than most statements do.
type pipeline struct {
	db      *sql.DB
	conn    *sql.Conn
	waiting []statement // in their order
	ahead   []statement // that read, behind them
	read    []readAhead // what came of those that were sent
	behind  []*behind   // what is read once it was committed
	held    bool        // nothing is sent before the commit
	ending  bool        // which is being sent
	begun   bool        // the database has said so
	failed  error       // why what waits was not done, and may not be: nothing is behind it
	kept    bool        // it was committed
}

// A statement is what is run, and what is being done by it.
type statement struct {
	what, query string
	args        []any
}

// ErrHeld is the error of a statement that somebody waits for, in a transaction that
// is held.
var ErrHeld = errors.New("nothing is sent before the transaction is committed")

// mostWaiting bounds what waits to be sent.
const mostWaiting = 50

// connectTries is how many connections a transaction is begun on that turn out to
// have been cut while nobody used them: all that there are, and a new one.
const connectTries = maxIdle + 1

// endTime bounds how long a transaction takes to be undone.
const endTime = 5 * time.Second

// pipe begins a transaction of PostgreSQL with the statement begin.
func pipe(ctx context.Context, db *sql.DB, begin string) (*Tx, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, away(ctx, err)
	}
	return &Tx{ctx: ctx, line: &pipeline{db: db, conn: conn, waiting: []statement{{"beginning", begin, nil}}}}, nil
}

// away returns the error of what kept nothing: unless somebody gave up, it is an Away.
func away(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	return &Away{err}
}

// send sends what waits, and then what more adds, whose answers read reads. Where
// not all that waited was done nothing is sent any more: it would be by itself, if
// the transaction did not begin, or be kept without what was lost.
func (p *pipeline) send(ctx context.Context, more func(*pgx.Batch), read func(*pgx.Conn, pgx.BatchResults) error) error {
	if p.held && !p.ending && p.failed == nil {
		p.failed = ErrHeld
	}
	for try := 1; p.failed == nil; try++ {
		err := p.sendOnce(ctx, more, read)
		if err != nil && !p.begun && try < connectTries && ctx.Err() == nil && pgconn.SafeToRetry(err) {
			p.drop()
			var conn *sql.Conn
			if conn, err = p.db.Conn(ctx); err == nil {
				p.conn = conn
				continue
			}
			err = away(ctx, err)
		} else if p.begun && (!p.ending || pgconn.SafeToRetry(err)) {
			err = p.unfinished(ctx, err)
		}
		if len(p.waiting) > 0 {
			p.failed = err
		}
		p.ahead = nil
		return err
	}
	return p.failed
}

func (p *pipeline) sendOnce(ctx context.Context, more func(*pgx.Batch), read func(*pgx.Conn, pgx.BatchResults) error) error {
	batch := &pgx.Batch{}
	for _, s := range p.waiting {
		batch.Queue(s.query, s.args...)
	}
	for _, s := range p.ahead {
		batch.Queue(s.query, s.args...)
	}
	more(batch)
	return p.conn.Raw(func(c any) error {
		conn := c.(*stdlib.Conn).Conn()
		results := conn.SendBatch(ctx, batch)
		err := p.answers(ctx, conn, results)
		if err == nil {
			err = read(conn, results)
		}
		if closing := results.Close(); err == nil && !p.kept { // what fails behind the commit undoes nothing
			err = closing
		}
		return err
	})
}

// answers reads the answers to what waited.
func (p *pipeline) answers(ctx context.Context, conn *pgx.Conn, results pgx.BatchResults) error {
	for i, s := range p.waiting {
		if _, err := results.Exec(); err != nil {
			switch {
			case i > 0 || p.begun:
			case isOfAnother(err, s.query):
				return err
			case p.held && isLost(err): // the commit may have arrived
			default:
				err = away(ctx, err)
			}
			return fmt.Errorf("%s: %w", s.what, err)
		}
		p.begun = true
	}
	p.waiting = nil
	for _, s := range p.ahead {
		rows, err := hold(conn, results)
		if err != nil {
			return err
		}
		p.read = append(p.read, readAhead{s, rows})
	}
	return nil
}

// hold returns the rows of the next statement of a batch.
func hold(conn *pgx.Conn, results pgx.BatchResults) (heldRows, error) {
	rows, err := results.Query()
	if err != nil {
		return heldRows{}, err
	}
	held := heldRows{types: conn.TypeMap(), fields: slices.Clone(rows.FieldDescriptions())}
	for rows.Next() {
		row := make([][]byte, len(held.fields))
		for i, value := range rows.RawValues() {
			row[i] = bytes.Clone(value)
		}
		held.values = append(held.values, row)
	}
	rows.Close()
	return held, rows.Err()
}

// isOfAnother reports whether the database, which is there, said err of another
// statement than the one: those that are new are prepared before the first is run.
func isOfAnother(err error, query string) bool {
	prepared, ok := errors.AsType[pgx.ErrPreprocessingBatch](err)
	said, answered := errors.AsType[*pgconn.PgError](err)
	return ok && answered && prepared.SQL() != query && said.SeverityUnlocalized == "ERROR"
}

// isLost reports whether nobody knows what the database did of a batch: it was sent,
// and no answer came.
func isLost(err error) bool {
	_, prepared := errors.AsType[pgx.ErrPreprocessingBatch](err) // nothing was sent but texts
	_, answered := errors.AsType[*pgconn.PgError](err)
	return !prepared && !answered && !pgconn.SafeToRetry(err)
}

// Of a batch: nothing more, and one more statement.
func nothing(*pgx.Batch)                       {}
func unread(*pgx.Conn, pgx.BatchResults) error { return nil }
func one(query string, args []any) func(*pgx.Batch) {
	return func(b *pgx.Batch) { b.Queue(query, args...) }
}

// A readAhead is what came of a statement before it was run.
type readAhead struct {
	statement
	rows heldRows
}

// isOf reports whether the statement is this one.
func (s statement) isOf(query string, args []any) bool {
	return s.query == query && reflect.DeepEqual(s.args, args)
}

// readAhead returns the rows of a statement that Ahead was given.
func (p *pipeline) readAhead(ctx context.Context, query string, args []any) (rows *heldRows, found bool, err error) {
	same := func(s statement) bool { return s.isOf(query, args) }
	if slices.ContainsFunc(p.ahead, same) {
		if err := p.send(ctx, nothing, unread); err != nil {
			return nil, false, err
		}
	}
	for i := range p.read {
		if same(p.read[i].statement) {
			rows := p.read[i].rows // what is behind it moves
			p.read = slices.Delete(p.read, i, i+1)
			return &rows, true, nil
		}
	}
	return nil, false, nil
}

// heldRows are rows that came already.
type heldRows struct {
	types  *pgtype.Map
	fields []pgconn.FieldDescription
	values [][][]byte
	row    [][]byte
}

// Next goes to the next row.
func (r *heldRows) Next() bool {
	if len(r.values) == 0 {
		return false
	}
	r.row, r.values = r.values[0], r.values[1:]
	return true
}

// Scan reads the row.
func (r *heldRows) Scan(dest ...any) error { return pgx.ScanRow(r.types, r.fields, r.row, dest...) }

// Err returns nil: they came.
func (r *heldRows) Err() error { return nil }

// Close does nothing.
func (r *heldRows) Close() error { return nil }

// A behind is a statement that reads once the transaction is committed, and what came
// of it: no rows before, and where it failed, which undoes nothing any more.
type behind struct {
	statement
	rows heldRows
}

// Scan reads the one row.
func (b *behind) Scan(dest ...any) error {
	if !b.rows.Next() {
		return sql.ErrNoRows
	}
	return b.rows.Scan(dest...)
}

// query runs a statement whose rows are read one by one.
func (p *pipeline) query(ctx context.Context, query string, args []any) (Rows, error) {
	rows, found, err := p.readAhead(ctx, query, args)
	if found || err != nil {
		return rows, err
	}
	if Changes(query) != "" {
		p.changes()
	}
	if len(p.waiting) > 0 {
		if err := p.send(ctx, nothing, unread); err != nil {
			return nil, err
		}
	}
	lines, err := p.conn.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, p.unfinished(ctx, err)
	}
	return pipedRows{lines, ctx, p}, nil
}

// pipedRows are rows that come while they are read.
type pipedRows struct {
	*sql.Rows
	ctx  context.Context
	line *pipeline
}

// Err returns why there were no more rows than those that came.
func (r pipedRows) Err() error { return r.line.unfinished(r.ctx, r.Rows.Err()) }

// unfinished returns the error of a statement that came to no end: an Away where that
// cost the connection, and with it the transaction.
func (p *pipeline) unfinished(ctx context.Context, err error) error {
	if err != nil && p.conn.Raw(func(c any) error {
		if c.(*stdlib.Conn).Conn().IsClosed() {
			return driver.ErrBadConn
		}
		return nil
	}) != nil {
		return away(ctx, err)
	}
	return err
}

// changes is called before something is changed: what was read ahead may not be so
// any more.
func (p *pipeline) changes() { p.ahead, p.read = nil, nil }

func (p *pipeline) wait(ctx context.Context, what, query string, args []any) error {
	p.changes()
	p.waiting = append(p.waiting, statement{what, query, args})
	if len(p.waiting) >= mostWaiting {
		return p.send(ctx, nothing, unread)
	}
	return nil
}

// sooner is wait for what is done before all else of a transaction that is held.
func (p *pipeline) sooner(what, query string, args []any) {
	p.changes()
	p.waiting = slices.Insert(p.waiting, 1, statement{what, query, args}) // it begins first
}

func (p *pipeline) exec(ctx context.Context, query string, args []any) (sql.Result, error) {
	p.changes()
	var tag pgconn.CommandTag
	err := p.send(ctx, one(query, args), func(_ *pgx.Conn, results pgx.BatchResults) (err error) {
		tag, err = results.Exec()
		return err
	})
	return driver.RowsAffected(tag.RowsAffected()), err
}

// A pipedRow is the one row of a statement, which is run when it is read.
type pipedRow struct {
	ctx   context.Context
	line  *pipeline
	query string
	args  []any
}

// Scan runs the statement and reads its row; sql.ErrNoRows where there is none.
func (r pipedRow) Scan(dest ...any) error {
	rows, found, err := r.line.readAhead(r.ctx, r.query, r.args)
	switch {
	case err != nil:
		return err
	case found && !rows.Next():
		return sql.ErrNoRows
	case found:
		return rows.Scan(dest...)
	case Changes(r.query) != "":
		r.line.changes()
	}
	return r.line.send(r.ctx, one(r.query, r.args), func(_ *pgx.Conn, results pgx.BatchResults) error {
		err := results.QueryRow().Scan(dest...)
		if errors.Is(err, pgx.ErrNoRows) {
			return sql.ErrNoRows
		}
		return err
	})
}

func (p *pipeline) commit(ctx context.Context) error {
	p.changes()
	if !p.begun && !p.held { // what fails to begin is not what may have been committed
		if err := p.send(ctx, nothing, unread); err != nil {
			return err
		}
	}
	p.ending = true
	return p.send(ctx, func(b *pgx.Batch) {
		b.Queue(`commit`)
		for _, s := range p.behind {
			b.Queue(s.query, s.args...)
		}
	}, func(conn *pgx.Conn, results pgx.BatchResults) error {
		tag, err := results.Exec()
		if err == nil && tag.String() != "COMMIT" {
			err = pgx.ErrTxCommitRollback // a statement had failed, and somebody went on
		}
		if p.kept = err == nil; !p.kept {
			return err
		}
		for _, s := range p.behind {
			if rows, failed := hold(conn, results); failed == nil {
				s.rows = rows
			}
		}
		return nil
	})
}

// end undoes what was not committed, and gives the connection back.
func (p *pipeline) end(ctx context.Context) {
	if p.begun && !p.kept {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
		defer cancel()
		if _, err := p.conn.ExecContext(ctx, `rollback`); err != nil {
			p.drop()
			return
		}
	}
	_ = p.conn.Close()
}

// drop closes the connection for good.
func (p *pipeline) drop() { _ = p.conn.Raw(func(any) error { return driver.ErrBadConn }) }
