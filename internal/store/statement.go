package store

import (
	"context"
	"database/sql"
	"sync"
)

// maxStatements bounds how many statements are kept parsed. All that are run are
// texts of this package, and they are fewer.
const maxStatements = 500

// statements are those that were run before, parsed: SQLite would parse each text
// anew, which took a third of the time of opening a session. (The driver of
// PostgreSQL does this by itself.) The zero value keeps none.
type statements struct {
	db *sql.DB

	mu    sync.RWMutex
	known map[string]*sql.Stmt
}

// in returns what runs statements in tx. Call learn when tx has ended.
func (s *statements) in(tx *sql.Tx) *parsed { return &parsed{tx: tx, of: s} }

// A parsed runs the statements of one transaction.
type parsed struct {
	tx  *sql.Tx
	of  *statements
	new []string // texts that were not known
}

// statement returns the statement of the text, for this transaction; nil if it has
// to be run as it is.
func (p *parsed) statement(ctx context.Context, query string) *sql.Stmt {
	if p.of.db == nil {
		return nil
	}
	p.of.mu.RLock()
	defer p.of.mu.RUnlock()
	if s := p.of.known[query]; s != nil {
		return p.tx.StmtContext(ctx, s)
	}
	if len(p.of.known)+len(p.new) < maxStatements {
		p.new = append(p.new, query)
	}
	return nil
}

// learn keeps what was new, for the next transaction. One that cannot be parsed by
// itself is run as it is for ever.
func (p *parsed) learn(ctx context.Context) {
	for _, query := range p.new {
		s, err := p.of.db.PrepareContext(ctx, query)
		if err != nil {
			continue
		}
		p.of.mu.Lock()
		if p.of.known == nil {
			p.of.known = map[string]*sql.Stmt{}
		}
		if p.of.known[query] == nil {
			p.of.known[query], s = s, nil
		}
		p.of.mu.Unlock()
		if s != nil {
			_ = s.Close() // another was as quick
		}
	}
}

// QueryContext runs a statement.
func (p *parsed) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if s := p.statement(ctx, query); s != nil {
		return s.QueryContext(ctx, args...)
	}
	return p.tx.QueryContext(ctx, query, args...)
}

// QueryRowContext runs a statement.
func (p *parsed) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	if s := p.statement(ctx, query); s != nil {
		return s.QueryRowContext(ctx, args...)
	}
	return p.tx.QueryRowContext(ctx, query, args...)
}

// ExecContext runs a statement.
func (p *parsed) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if s := p.statement(ctx, query); s != nil {
		return s.ExecContext(ctx, args...)
	}
	return p.tx.ExecContext(ctx, query, args...)
}
