package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// CheckURL refuses what Open would not know how to open, without trying.
func CheckURL(u serval.Secret) error {
	text := u.Reveal()
	switch scheme, _, _ := strings.Cut(text, ":"); scheme {
	case "sqlite":
		_, err := sqlitePath(text)
		return err
	case "postgres", "postgresql":
		return nil
	default:
		return serval.Refuse(serval.Invalid, "a database is given as sqlite:///absolute/path/to/file or postgres://…")
	}
}

func sqlitePath(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host != "" || !filepath.IsAbs(u.Path) || u.RawQuery != "" || u.Fragment != "" {
		return "", serval.Refuse(serval.Invalid, "a SQLite database is given as sqlite:///absolute/path/to/file")
	}
	return u.Path, nil
}

// Open opens the database at u: sqlite:///absolute/path/to/file or postgres://….
// Unless it is opened read-only, a SQLite file that another process serves is
// refused; read-only, nothing is locked and nothing can be written. Call Close in
// the end.
func Open(ctx context.Context, u serval.Secret, readOnly bool) (*DB, error) {
	if err := CheckURL(u); err != nil {
		return nil, err
	}
	text := u.Reveal()
	if !strings.HasPrefix(text, "sqlite:") {
		return openPostgres(ctx, text, readOnly)
	}
	path, err := sqlitePath(text)
	if err != nil {
		return nil, err
	}
	return openSQLite(ctx, path, readOnly)
}

// maxReaders is how many transactions of SQLite may read at a time.
const maxReaders = 8

func openSQLite(ctx context.Context, path string, readOnly bool) (*DB, error) {
	if err := collate(); err != nil {
		return nil, fmt.Errorf("preparing SQLite: %w", err)
	}
	d := &DB{dialect: sqliteDialect}
	// One file has one lock, by whatever link it is reached.
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	if readOnly {
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("opening the database: %w", err)
		}
	} else {
		lock := flock.New(path + ".lock")
		got, err := lock.TryLock()
		if err != nil {
			return nil, fmt.Errorf("locking %s: %w", lock.Path(), err)
		}
		if !got {
			return nil, serval.Refuse(serval.FailedPrecondition,
				"%s is served by another process. SQLite takes one; for several, use PostgreSQL.", path)
		}
		d.unlock = lock.Unlock
	}
	file := func(extra ...string) string {
		// temp_store(MEMORY): the image has no folder for what a great statement would spill.
		q := url.Values{"_pragma": append([]string{"busy_timeout(5000)", "foreign_keys(1)", "synchronous(FULL)", "temp_store(MEMORY)"}, extra...)}
		if !slices.Contains(extra, "query_only(1)") {
			q.Set("_txlock", "immediate") // of what migrates
		}
		return (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String()
	}
	var err error
	if d.read, err = sql.Open("sqlite", file("query_only(1)")); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the database: %w", err), d.release())
	}
	d.read.SetMaxOpenConns(maxReaders + 3) // a backup, a checkpoint, and a statement by itself
	d.write = d.read
	if readOnly {
		var version int64
		if err := d.read.QueryRowContext(ctx, `pragma schema_version`).Scan(&version); err != nil {
			return nil, errors.Join(fmt.Errorf("opening the database: %w", err), d.read.Close())
		}
	} else {
		if d.write, err = sql.Open("sqlite", file("journal_mode(WAL)", fmt.Sprintf("wal_autocheckpoint(%d)", pagesAtMost))); err != nil {
			return nil, errors.Join(fmt.Errorf("opening the database: %w", err), d.read.Close(), d.release())
		}
		d.write.SetMaxOpenConns(2) // the writer's, and one to migrate on
		// The first connection makes the file, and readable by nobody else.
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err == nil {
			err = f.Close()
		}
		if err == nil {
			err = d.write.PingContext(ctx)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("opening the database: %w", err), d.Close())
		}
	}
	d.reads = newSeats(d.read, false, maxReaders)
	if d.writes = d.reads; !readOnly {
		d.writes = newSeats(d.write, true, 1)
		d.log = startCheckpoints(d.read)
	}
	return d, nil
}

func (d *DB) release() error {
	if d.unlock == nil {
		return nil
	}
	return d.unlock()
}

// parsePostgres reads an address as Serval connects to it.
func parsePostgres(text string) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(text)
	if err != nil {
		// The driver's error may hold the password.
		return nil, serval.Refuse(serval.Invalid, "the PostgreSQL address cannot be read")
	}
	if config.DefaultQueryExecMode == pgx.QueryExecModeSimpleProtocol {
		// It would put values into the text of queries.
		return nil, serval.Refuse(serval.Invalid, "default_query_exec_mode=simple_protocol is not supported in the PostgreSQL address")
	}
	return config, nil
}

// maxIdle is how many connections to PostgreSQL are kept while nobody uses them.
const maxIdle = 8

func openPostgres(ctx context.Context, text string, readOnly bool) (*DB, error) {
	config, err := parsePostgres(text)
	if err != nil {
		return nil, err
	}
	d := &DB{dialect: postgresDialect}
	var db *sql.DB
	if readOnly {
		db = stdlib.OpenDB(*config, stdlib.OptionAfterConnect(func(ctx context.Context, c *pgx.Conn) error {
			_, err := c.Exec(ctx, `set default_transaction_read_only = on`)
			return err
		}))
	} else {
		d.place = place(text)
		d.login.Store(&login{config.User, config.Password})
		if config.ValidateConnect == nil {
			// A standby would answer every check of a grant with old news.
			config.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
		}
		db = sql.OpenDB(d.connector(config))
	}
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(maxIdle)
	db.SetConnMaxLifetime(30 * time.Minute)
	d.read, d.write = db, db
	if err := db.PingContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("connecting to PostgreSQL: %w", redacted(err)), db.Close())
	}
	return d, nil
}

// redacted returns err without the connection string that pgx puts into a
// failed connect.
func redacted(err error) error {
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		for inner := err; inner != nil; inner = errors.Unwrap(inner) {
			if _, ok := inner.(*pgconn.ConnectError); ok {
				if cause := errors.Unwrap(inner); cause != nil {
					return cause
				}
			}
		}
	}
	return err
}
