package database

import (
	"errors"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// A dialect is what differs between the two databases; all other SQL is one
// text.
type dialect struct {
	name        string
	goose       goose.Dialect
	read, write string // how a transaction begins, where no seat begins it
	retryable   func(error) bool
	full        func(error) bool // there is no space
	unset       func(error) bool // there is no value where one has to be
	alone       bool             // no other process writes
}

var sqliteDialect = dialect{
	name:  "sqlite",
	goose: goose.DialectSQLite3,
	alone: true,
	retryable: func(err error) bool {
		e, ok := errors.AsType[*sqlite.Error](err)
		return ok && e.Code()&0xff == sqlite3.SQLITE_BUSY
	},
	full: func(err error) bool { // the file, or the index of its log
		e, ok := errors.AsType[*sqlite.Error](err)
		return ok && (e.Code()&0xff == sqlite3.SQLITE_FULL || e.Code() == sqlite3.SQLITE_IOERR_SHMSIZE)
	},
	unset: func(err error) bool {
		e, ok := errors.AsType[*sqlite.Error](err)
		return ok && e.Code() == sqlite3.SQLITE_CONSTRAINT_NOTNULL
	},
}

var postgresDialect = dialect{
	name:  "postgres",
	goose: goose.DialectPostgres,
	read:  `begin isolation level repeatable read read only`,
	// Once a Tx has the chain's row, each of its statements sees all that the
	// writers before it left. Under a higher level it would see the state from
	// before it waited, and start again each time.
	write: `begin isolation level read committed`,
	retryable: func(err error) bool { // serialization failure, deadlock
		e, ok := errors.AsType[*pgconn.PgError](err)
		return ok && (e.Code == "40001" || e.Code == "40P01")
	},
	full: func(err error) bool { // disk_full
		e, ok := errors.AsType[*pgconn.PgError](err)
		return ok && e.Code == "53100"
	},
	unset: func(err error) bool { // not_null_violation
		e, ok := errors.AsType[*pgconn.PgError](err)
		return ok && e.Code == "23502"
	},
}

// collate registers the collation "C" with SQLite, which PostgreSQL has by
// itself: order by bytes, whatever the database's language.
var collate = sync.OnceValue(func() error {
	return sqlite.RegisterCollationUtf8("C", strings.Compare)
})
