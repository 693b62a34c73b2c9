// Package pgtest gives tests a PostgreSQL of their own: one server per test
// binary, one empty database per test.
//
// The server is started by the first test that asks for a database, listens on
// a unix socket in a temporary folder that nobody else may enter, and keeps
// nothing safe (fsync is off). A shell watches it, and ends when the test
// binary does, however that comes: it stops the server and removes the folder.
// PostgreSQL refuses to run as root, so under root both run as nobody.
package pgtest

import (
	"bufio"
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Main runs the tests of a package, waits until the server is gone, if one was
// started, and returns the exit code:
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }
func Main(m *testing.M) int {
	code := m.Run()
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	return code
}

// URL returns the address of an empty database that orders text by bytes. It
// is dropped when the test ends. Where PostgreSQL is not installed the test is
// skipped, or fails if the environment has CI=true.
func URL(t testing.TB) string {
	t.Helper()
	return create(t, `template template0 encoding 'UTF8' locale 'C'`)
}

// URLOf is URL for a database that prepare has filled. Prepare runs once in a
// test binary and leaves nothing connected; each database is a copy of what it
// made. A test binary has one prepare.
func URLOf(t testing.TB, prepare func(url string) error) string {
	t.Helper()
	return create(t, copyOf(t, prepare, `template template0 encoding 'UTF8' locale 'C'`))
}

// URLIn is URLOf for a database that orders text as a language does, such as
// en_US.UTF-8. Where the system does not have the locale, the database has
// ICU's collation for American English.
func URLIn(t testing.TB, locale string, prepare func(url string) error) string {
	t.Helper()
	return create(t, copyOf(t, prepare,
		`template template0 encoding 'UTF8' locale `+quote(locale),
		`template template0 encoding 'UTF8' locale 'C' locale_provider icu icu_locale 'en-US'`))
}

// prepared are the databases that URLOf and URLIn copy, by the options they were
// made with.
var prepared struct {
	sync.Mutex
	ready map[string]*preparation
}

type preparation struct {
	sync.Once
	name string
	err  error
}

// copyOf returns the option that makes a database a copy of one that was made
// with the first of options that the server can, and filled by prepare.
func copyOf(t testing.TB, prepare func(url string) error, options ...string) string {
	t.Helper()
	prepared.Lock()
	if prepared.ready == nil {
		prepared.ready = map[string]*preparation{}
	}
	p := prepared.ready[options[0]]
	if p == nil {
		p = &preparation{name: fmt.Sprintf("prepared%d", len(prepared.ready)+1)}
		prepared.ready[options[0]] = p
	}
	prepared.Unlock()
	p.Do(func() {
		s, err := start()
		if err != nil {
			return // create says so
		}
		if p.err = s.make(p.name, options...); p.err == nil {
			p.err = prepare(s.url(p.name))
		}
	})
	if p.err != nil {
		t.Fatalf("preparing a database: %v", p.err)
	}
	return `template ` + p.name
}

var databases atomic.Int64

// create makes a database with the options.
func create(t testing.TB, options string) string {
	t.Helper()
	s, err := start()
	skipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("test%d", databases.Add(1))
	if err := s.make(name, options); err != nil {
		t.Fatalf("creating a database: %v", err)
	}
	t.Cleanup(func() {
		err := s.do(func(ctx context.Context, c *pgx.Conn) error {
			_, err := c.Exec(ctx, `drop database `+name+` with (force)`)
			return err
		})
		if err != nil {
			t.Errorf("dropping the test's database: %v", err)
		}
	})
	return s.url(name)
}

// make makes a database with the first of options that the server can.
func (s *server) make(name string, options ...string) error {
	return s.do(func(ctx context.Context, c *pgx.Conn) error {
		var failed error
		for _, o := range options {
			_, err := c.Exec(ctx, `create database `+name+` `+o)
			if err == nil {
				return nil
			}
			failed = errors.Join(failed, err)
		}
		return failed
	})
}

// quote returns text as a string of SQL; DDL takes no parameters.
func quote(text string) string {
	quoted := []byte{'\''}
	for _, b := range []byte(text) {
		if b == '\'' {
			quoted = append(quoted, b)
		}
		quoted = append(quoted, b)
	}
	return string(append(quoted, '\''))
}

// A missingError says that there is no PostgreSQL to run.
type missingError struct{ name string }

func (e *missingError) Error() string {
	return "PostgreSQL is not installed: there is no " + e.name +
		" in PATH, " + strings.Join(places, ", ") + " or /usr/local/bin. Install postgresql, from Debian or from Homebrew."
}

// skipMissing skips the test where err says that there is no PostgreSQL, and it
// does not have to be there.
func skipMissing(t testing.TB, err error) {
	t.Helper()
	if missing, ok := errors.AsType[*missingError](err); ok && os.Getenv("CI") != "true" {
		t.Skip(missing)
	}
}

// A server is a running PostgreSQL with the shell that watches it.
type server struct {
	dir   string
	shell *exec.Cmd
	alive io.Closer // the shell ends when this is closed, as it is when the process ends
}

//go:embed watch.sh
var watch string

var (
	start = sync.OnceValues(func() (*server, error) {
		s, err := launch()
		started.Store(s)
		return s, err
	})
	started atomic.Pointer[server]
)

// launch starts a server; how is what watch.sh takes besides.
func launch(how ...string) (*server, error) {
	bin, err := folder()
	if err != nil {
		return nil, err
	}
	// A socket's path is short, and nobody can enter root's own folders.
	parent := os.TempDir()
	if os.Geteuid() == 0 {
		parent = "/tmp"
	}
	shell := exec.Command("/bin/sh", append([]string{"-c", watch, "watch.sh", bin, parent}, how...)...)
	shell.Dir = "/"
	shell.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"}
	// A group of its own: Ctrl-C is for the tests, and what follows is the shell's.
	shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Geteuid() == 0 {
		if shell.SysProcAttr.Credential, err = unprivileged(); err != nil {
			return nil, err
		}
	}
	alive, err := shell.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("starting PostgreSQL: %w", err)
	}
	out, err := shell.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("starting PostgreSQL: %w", err)
	}
	shell.Stderr = os.Stderr
	if err := shell.Start(); err != nil {
		return nil, fmt.Errorf("starting PostgreSQL: %w", err)
	}
	lines := bufio.NewReader(out)
	dir, _ := lines.ReadString('\n')
	ready, _ := lines.ReadString('\n')
	if ready != "ready\n" {
		log, _ := io.ReadAll(lines)
		alive.Close()
		err := shell.Wait()
		return nil, fmt.Errorf("starting PostgreSQL: %v\n%s%s", err, ready, log)
	}
	return &server{dir[:len(dir)-1], shell, alive}, nil
}

// stop stops the server that the tests share, where one was started.
func stop() error {
	if s := started.Load(); s != nil {
		return s.stop()
	}
	return nil
}

func (s *server) stop() error {
	s.alive.Close()
	if err := s.shell.Wait(); err != nil {
		return fmt.Errorf("stopping PostgreSQL: %w", err)
	}
	return nil
}

// url returns the address of a database of the server.
func (s *server) url(database string) string {
	return (&url.URL{
		Scheme:   "postgres",
		User:     url.User("serval"),
		Path:     "/" + database,
		RawQuery: url.Values{"host": {s.dir}, "port": {"5432"}, "sslmode": {"disable"}}.Encode(),
	}).String()
}

// do runs f on the server's own database.
func (s *server) do(f func(context.Context, *pgx.Conn) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := pgx.Connect(ctx, s.url("postgres"))
	for errors.Is(err, syscall.EAGAIN) && ctx.Err() == nil {
		// The socket's queue is full of connections that a test gave up.
		time.Sleep(20 * time.Millisecond)
		c, err = pgx.Connect(ctx, s.url("postgres"))
	}
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	for {
		err := f(ctx, c)
		if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code != "55006" {
			return err
		}
		// The template is in use for the moment that another database is made.
		time.Sleep(20 * time.Millisecond)
	}
}

// places are where Debian and Homebrew put versions of PostgreSQL side by side.
var places = []string{"/usr/lib/postgresql/*/bin", "/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin"}

// folder returns where PostgreSQL's programs are; of several versions the
// newest, unless PATH has one.
func folder() (string, error) {
	programs := []string{"postgres", "initdb", "pg_ctl"}
	missing := func(dir string) string {
		for _, p := range programs {
			if _, err := exec.LookPath(filepath.Join(dir, p)); err != nil {
				return p
			}
		}
		return ""
	}
	var dirs []string
	if path, err := exec.LookPath("postgres"); err == nil {
		dirs = append(dirs, filepath.Dir(path))
	}
	var versions []string
	for _, place := range places {
		found, _ := filepath.Glob(place)
		versions = append(versions, found...)
	}
	slices.SortFunc(versions, func(a, b string) int { return cmp.Compare(version(b), version(a)) })
	dirs = append(append(dirs, versions...), "/usr/local/bin")
	for _, dir := range dirs {
		if missing(dir) == "" {
			return dir, nil
		}
	}
	return "", &missingError{missing(dirs[0])}
}

func version(bin string) int {
	n, _ := strconv.Atoi(strings.TrimPrefix(filepath.Base(filepath.Dir(bin)), "postgresql@"))
	return n
}

// unprivileged returns somebody who is not root.
func unprivileged() (*syscall.Credential, error) {
	for _, name := range []string{"nobody", "postgres"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("reading the user %s: %w", name, err)
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("PostgreSQL refuses to run as root, and there is neither a user nobody nor postgres")
}
