package database

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"sync"
)

// maxStatements bounds how many statements a seat keeps parsed. All that are run
// are constants of whoever has the DB, and they are fewer.
const maxStatements = 500

// A seat is a connection to SQLite, and the statements that were run on it, parsed:
// SQLite would parse each text anew, also those that begin and end a transaction.
// (The driver of PostgreSQL does this by itself.) It belongs to one transaction at
// a time, which is no sql.Tx: that has a goroutine of its own, and one for each
// statement that reads, and to start and end these took a tenth of the time of
// opening a session.
type seat struct {
	conn   *sql.Conn
	parsed map[string]*sql.Stmt
}

// statement returns the statement of the text; nil if it has to be run as it is.
func (s *seat) statement(query string) *sql.Stmt {
	if known := s.parsed[query]; known != nil || len(s.parsed) >= maxStatements {
		return known
	}
	parsed, err := s.conn.PrepareContext(context.Background(), query)
	if err != nil {
		return nil
	}
	s.parsed[query] = parsed
	return parsed
}

// QueryContext runs a statement.
func (s *seat) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if known := s.statement(query); known != nil {
		return known.QueryContext(ctx, args...)
	}
	return s.conn.QueryContext(ctx, query, args...)
}

// QueryRowContext runs a statement.
func (s *seat) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	if known := s.statement(query); known != nil {
		return known.QueryRowContext(ctx, args...)
	}
	return s.conn.QueryRowContext(ctx, query, args...)
}

// ExecContext runs a statement.
func (s *seat) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if known := s.statement(query); known != nil {
		return known.ExecContext(ctx, args...)
	}
	return s.conn.ExecContext(ctx, query, args...)
}

// close closes the connection for good; while a statement of it is open the file is
// too.
func (s *seat) close() (err error) {
	for _, known := range s.parsed {
		err = errors.Join(err, known.Close())
	}
	if raw := s.conn.Raw(func(any) error { return driver.ErrBadConn }); !errors.Is(raw, driver.ErrBadConn) {
		err = errors.Join(err, raw)
	}
	return err
}

// brief returns the context of a statement that is not broken off once it is
// under way: the driver would start a goroutine to watch for that.
func brief(ctx context.Context) context.Context {
	if ctx.Err() != nil {
		return ctx
	}
	return context.WithoutCancel(ctx)
}

// seats are the connections of one kind, made as they are wanted.
type seats struct {
	db    *sql.DB
	write bool          // what begins there may write
	taken chan struct{} // one for each that is taken; as many as there may be

	mu     sync.Mutex
	free   []*seat // what was used last is taken first
	closed bool
}

func newSeats(db *sql.DB, write bool, most int) *seats {
	return &seats{db: db, write: write, taken: make(chan struct{}, most)}
}

// take returns a seat, once there is one. Give it back in the end.
func (s *seats) take(ctx context.Context) (*seat, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case s.taken <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.mu.Lock()
	var one *seat
	if last := len(s.free) - 1; last >= 0 {
		one, s.free = s.free[last], s.free[:last]
	}
	s.mu.Unlock()
	if one != nil {
		return one, nil
	}
	conn, err := s.db.Conn(ctx)
	if err != nil {
		<-s.taken
		return nil, err
	}
	return &seat{conn: conn, parsed: map[string]*sql.Stmt{}}, nil
}

// giveBack returns a seat. One that is not sound is not used again.
func (s *seats) giveBack(one *seat, sound bool) {
	s.mu.Lock()
	keep := sound && !s.closed
	if keep {
		s.free = append(s.free, one)
	}
	s.mu.Unlock()
	if !keep {
		_ = one.close()
	}
	<-s.taken
}

// close closes the seats that are free, and has the others closed once they are
// given back.
func (s *seats) close() (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.free {
		err = errors.Join(err, one.close())
	}
	s.free, s.closed = nil, true
	return err
}
