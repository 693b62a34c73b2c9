package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A dialect is what differs between the two databases; all other SQL is one
// text.
type dialect struct {
	name           string
	goose          goose.Dialect
	readIsolation  sql.IsolationLevel
	writeIsolation sql.IsolationLevel
	retryable      func(error) bool
	full           func(error) bool // there is no space
	alone          bool             // no other process writes
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
}

var postgresDialect = dialect{
	name:          "postgres",
	goose:         goose.DialectPostgres,
	readIsolation: sql.LevelRepeatableRead,
	// Once a Tx has the chain's row, each of its statements sees all that the
	// writers before it left. Under a higher level it would see the state from
	// before it waited, and start again each time.
	writeIsolation: sql.LevelReadCommitted,
	retryable: func(err error) bool { // serialization failure, deadlock
		e, ok := errors.AsType[*pgconn.PgError](err)
		return ok && (e.Code == "40001" || e.Code == "40P01")
	},
	full: func(err error) bool { // disk_full
		e, ok := errors.AsType[*pgconn.PgError](err)
		return ok && e.Code == "53100"
	},
}

// collate registers the collation "C" with SQLite, which PostgreSQL has by
// itself: order by bytes, whatever the database's language.
var collate = sync.OnceValue(func() error {
	return sqlite.RegisterCollationUtf8("C", strings.Compare)
})

func open(ctx context.Context, c Config) (*Store, error) {
	if err := CheckURL(c.URL); err != nil {
		return nil, err
	}
	text := c.URL.Reveal()
	if !strings.HasPrefix(text, "sqlite:") {
		return openPostgres(ctx, text, c.ReadOnly)
	}
	path, err := sqlitePath(text)
	if err != nil {
		return nil, err
	}
	return openSQLite(ctx, path, c.ReadOnly)
}

func openSQLite(ctx context.Context, path string, readOnly bool) (*Store, error) {
	if err := collate(); err != nil {
		return nil, fmt.Errorf("preparing SQLite: %w", err)
	}
	s := &Store{dialect: sqliteDialect}
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
		s.unlock = lock.Unlock
	}
	file := func(extra ...string) string {
		// temp_store(MEMORY): the image has no folder for what a great statement would spill.
		q := url.Values{"_pragma": append([]string{"busy_timeout(5000)", "foreign_keys(1)", "synchronous(FULL)", "temp_store(MEMORY)"}, extra...)}
		if !slices.Contains(extra, "query_only(1)") {
			q.Set("_txlock", "immediate")
		}
		return (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String()
	}
	var err error
	if s.read, err = sql.Open("sqlite", file("query_only(1)")); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the database: %w", err), s.release())
	}
	s.read.SetMaxOpenConns(8)
	s.write = s.read
	if readOnly {
		var version int64
		if err := s.read.QueryRowContext(ctx, `pragma schema_version`).Scan(&version); err != nil {
			return nil, errors.Join(fmt.Errorf("opening the database: %w", err), s.read.Close())
		}
	} else {
		if s.write, err = sql.Open("sqlite", file("journal_mode(WAL)")); err != nil {
			return nil, errors.Join(fmt.Errorf("opening the database: %w", err), s.read.Close(), s.release())
		}
		s.write.SetMaxOpenConns(1)
		// The first connection makes the file, and readable by nobody else.
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err == nil {
			err = f.Close()
		}
		if err == nil {
			err = s.write.PingContext(ctx)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("opening the database: %w", err), s.Close())
		}
	}
	return s, nil
}

func (s *Store) release() error {
	if s.unlock == nil {
		return nil
	}
	return s.unlock()
}

func openPostgres(ctx context.Context, text string, readOnly bool) (*Store, error) {
	config, err := pgx.ParseConfig(text)
	if err != nil {
		// The driver's error may hold the password.
		return nil, serval.Refuse(serval.Invalid, "the PostgreSQL address cannot be read")
	}
	if config.DefaultQueryExecMode == pgx.QueryExecModeSimpleProtocol {
		// It would put values into the text of queries.
		return nil, serval.Refuse(serval.Invalid, "default_query_exec_mode=simple_protocol is not supported in the PostgreSQL address")
	}
	var options []stdlib.OptionOpenDB
	if readOnly {
		options = append(options, stdlib.OptionAfterConnect(func(ctx context.Context, c *pgx.Conn) error {
			_, err := c.Exec(ctx, `set default_transaction_read_only = on`)
			return err
		}))
	} else if config.ValidateConnect == nil {
		// A standby would answer every check of a grant with old news.
		config.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	db := stdlib.OpenDB(*config, options...)
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(8)
	db.SetConnMaxLifetime(30 * time.Minute)
	s := &Store{dialect: postgresDialect, read: db, write: db}
	if err := db.PingContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("connecting to PostgreSQL: %w", redacted(err)), db.Close())
	}
	return s, nil
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

//go:embed migrations
var migrations embed.FS

// Migrate brings the database to this version's schema. Under PostgreSQL it
// takes an advisory lock, so that several replicas may start at once.
func (s *Store) Migrate(ctx context.Context) error {
	p, err := s.provider()
	if err != nil {
		return err
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrating the database: %w", err)
	}
	return nil
}

// Pending reports whether the database still has to be migrated.
func (s *Store) Pending(ctx context.Context) (bool, error) {
	p, err := s.provider()
	if err != nil {
		return false, err
	}
	pending, err := p.HasPending(ctx)
	if err != nil {
		return false, fmt.Errorf("reading the database's version: %w", err)
	}
	return pending, nil
}

func (s *Store) provider() (*goose.Provider, error) {
	var files layers
	for _, dir := range []string{"common", s.dialect.name} {
		sub, err := fs.Sub(migrations, "migrations/"+dir)
		if err != nil {
			return nil, err
		}
		files = append(files, sub)
	}
	var options []goose.ProviderOption
	if s.dialect.goose == goose.DialectPostgres {
		// Ask for the lock every second, for five minutes.
		locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300))
		if err != nil {
			return nil, fmt.Errorf("preparing the migration lock: %w", err)
		}
		options = append(options, goose.WithSessionLocker(locker))
	}
	p, err := goose.NewProvider(s.dialect.goose, s.write, files, options...)
	if err != nil {
		return nil, fmt.Errorf("reading the migrations: %w", err)
	}
	return p, nil
}

// layers are folders seen as one: the migrations that are alike, and those of
// one database.
type layers []fs.FS

// Open opens name in the first layer that has it.
func (l layers) Open(name string) (fs.File, error) {
	for _, layer := range l {
		if f, err := layer.Open(name); err == nil || !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// ReadDir lists the files of all layers.
func (l layers) ReadDir(name string) ([]fs.DirEntry, error) {
	var entries []fs.DirEntry
	for _, layer := range l {
		e, err := fs.ReadDir(layer, name)
		if err != nil {
			return nil, err
		}
		entries = append(entries, e...)
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, nil
}

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
