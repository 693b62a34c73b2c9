package pgtest

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// An Archive is a database on a server of its own that keeps its log, as one does
// that is to be set back to an instant (PostgreSQL, "Continuous Archiving and
// Point-in-Time Recovery").
type Archive struct{ *server }

// archived is the database's name.
const archived = "archived"

// NewArchive starts one that is empty; it is gone when the test ends. Without
// PostgreSQL the test is skipped or fails as with URL.
func NewArchive(t testing.TB) *Archive {
	t.Helper()
	a := &Archive{launchFor(t, "archive")}
	if err := a.make(archived, `template template0 encoding 'UTF8' locale 'C'`); err != nil {
		t.Fatalf("creating a database: %v", err)
	}
	return a
}

// URL returns the database's address.
func (a *Archive) URL() string { return a.url(archived) }

// Back makes the base backup, once, while the database is used.
func (a *Archive) Back(t testing.TB) {
	t.Helper()
	var bin string
	err := a.do(func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, `select setting from pg_config where name = 'BINDIR'`).Scan(&bin)
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "pg_basebackup"),
		"-h", a.dir, "-U", "serval", "-D", filepath.Join(a.dir, "base"), "-X", "none", "--checkpoint=fast", "--no-sync")
	cmd.Dir, cmd.SysProcAttr = "/", &syscall.SysProcAttr{Credential: a.shell.SysProcAttr.Credential}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("pg_basebackup: %v: %s", err, out)
	}
}

// Now returns the server's instant. What is committed from here on is after it.
func (a *Archive) Now(t testing.TB) (now time.Time) {
	t.Helper()
	err := a.do(func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, `select clock_timestamp()`).Scan(&now)
	})
	if err != nil {
		t.Fatal(err)
	}
	return now
}

// At returns the address of the database as it was at the instant, on another new
// server: the base backup with the archived log on top of it. Something has to
// have been committed since. The first server goes on.
func (a *Archive) At(t testing.TB, instant time.Time) string {
	t.Helper()
	err := a.do(func(ctx context.Context, c *pgx.Conn) error {
		var file string
		if err := c.QueryRow(ctx, `select pg_walfile_name(pg_switch_wal())`).Scan(&file); err != nil {
			return err
		}
		for kept := false; !kept; time.Sleep(20 * time.Millisecond) {
			if err := c.QueryRow(ctx, `select coalesce(last_archived_wal >= $1, false) from pg_stat_archiver`, file).Scan(&kept); err != nil {
				return fmt.Errorf("waiting for the archive to have %s: %w", file, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return launchFor(t, a.dir, instant.UTC().Format("2006-01-02 15:04:05.999999-07:00")).url(archived)
}

// launchFor starts a server that ends with the test.
func launchFor(t testing.TB, how ...string) *server {
	t.Helper()
	s, err := launch(how...)
	skipMissing(t, err)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}
