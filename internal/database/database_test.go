package database

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/serval-bridge/serval-bridge/internal/pgtest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// opened returns the database at url, for the time of the test.
func opened(t *testing.T, url string) *DB {
	t.Helper()
	d, err := Open(t.Context(), serval.NewSecret(url), false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("closing the database: %v", err)
		}
	})
	return d
}

// each runs f on both databases, of which each has a table word.
func each(t *testing.T, f func(*testing.T, *DB)) {
	for name, url := range map[string]func(*testing.T) string{
		"sqlite":   func(t *testing.T) string { return "sqlite://" + filepath.Join(t.TempDir(), "serval.db") },
		"postgres": func(t *testing.T) string { return pgtest.URL(t) },
	} {
		t.Run(name, func(t *testing.T) {
			d := opened(t, url(t))
			if _, err := d.ExecContext(t.Context(), `create table word (name text not null primary key, value text not null)`); err != nil {
				t.Fatal(err)
			}
			f(t, d)
		})
	}
}

// set keeps a word.
func set(t *testing.T, d *DB, name, value string) {
	t.Helper()
	tx, err := d.BeginWrite(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(t.Context(), `insert into word (name, value) values ($1, $2)
		on conflict (name) do update set value = excluded.value`, name, value); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

// Migrations are those of all databases and those of one, in one order, and what
// one of them breaks is as if it had never begun.
func TestMigrate(t *testing.T) {
	step := func(sql string) *fstest.MapFile { return &fstest.MapFile{Data: []byte("-- +goose Up\n" + sql)} }
	schema := fstest.MapFS{
		"common/00001_first.sql":   step("create table one (a text);"),
		"sqlite/00002_own.sql":     step("create table two as select a from one; create table ours (a text);"),
		"postgres/00002_own.sql":   step("create table two as select a from one; create table ours (a bigint);"),
		"common/00003_last.sql":    step("insert into two (a) values ('x');"),
		"elsewhere/00004_none.sql": step("no SQL;"),
	}
	each(t, func(t *testing.T, d *DB) {
		pending := func(want bool) {
			t.Helper()
			if got, err := d.Pending(t.Context(), schema); err != nil || got != want {
				t.Errorf("Pending: %t, %v; want %t", got, err, want)
			}
		}
		pending(true)
		for range 2 {
			if err := d.Migrate(t.Context(), schema); err != nil {
				t.Fatal(err)
			}
		}
		pending(false)
		var n int
		if err := d.QueryRowContext(t.Context(), `select count(*) from two`).Scan(&n); err != nil || n != 1 {
			t.Errorf("%d rows, %v; want the one of the last step", n, err)
		}
		schema["common/00005_broken.sql"] = step("create table halfway (a text); insert into there_is_none (a) values ('x');")
		defer delete(schema, "common/00005_broken.sql")
		if err := d.Migrate(t.Context(), schema); err == nil {
			t.Error("a broken migration succeeded")
		}
		pending(true)
		if err := d.QueryRowContext(t.Context(), `select count(*) from halfway`).Scan(&n); err == nil {
			t.Error("half of a broken migration is there")
		}
	})
}

// What is written is there once it is committed, and then for who began to read
// afterwards.
func TestTransactions(t *testing.T) {
	each(t, func(t *testing.T, d *DB) {
		set(t, d, "x", "1")
		before, err := d.BeginRead(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer before.Rollback()
		get := func(tx *Tx) (value string) {
			t.Helper()
			if err := tx.QueryRowContext(t.Context(), `select value from word where name = 'x'`).Scan(&value); err != nil {
				t.Fatal(err)
			}
			return value
		}
		if got := get(before); got != "1" {
			t.Errorf("read %q, want 1", got)
		}
		undone, err := d.BeginWrite(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := undone.ExecContext(t.Context(), `delete from word`); err != nil {
			t.Fatal(err)
		}
		undone.Rollback()
		set(t, d, "x", "2")
		after, err := d.BeginRead(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer after.Rollback()
		if was, is := get(before), get(after); was != "1" || is != "2" {
			t.Errorf("who began before reads %q and who began after %q, want 1 and 2", was, is)
		}
		if _, err := after.ExecContext(t.Context(), `delete from word`); err == nil {
			t.Error("a transaction that reads wrote")
		}
	})
}

// What a database asks to have repeated is repeated, a few times, and nothing else.
func TestAgain(t *testing.T) {
	d := &DB{dialect: postgresDialect}
	deadlock, other := error(&pgconn.PgError{Code: "40P01"}), errors.New("another fault")
	for _, test := range []struct {
		name string
		errs []error
		want error
		runs int
	}{
		{"nothing wrong", []error{nil}, nil, 1},
		{"another fault", []error{other}, other, 1},
		{"a deadlock", []error{deadlock, fmt.Errorf("keeping: %w", deadlock), nil}, nil, 3},
		{"a deadlock and another fault", []error{deadlock, other}, other, 2},
		{"no end of deadlocks", []error{deadlock, deadlock, deadlock, deadlock, deadlock, nil}, deadlock, tries},
	} {
		runs := 0
		err := d.Again(t.Context(), func() error { runs++; return test.errs[runs-1] })
		if !errors.Is(err, test.want) || runs != test.runs {
			t.Errorf("%s: %v after %d runs, want %v after %d", test.name, err, runs, test.want, test.runs)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	runs := 0
	err := d.Again(ctx, func() error { runs++; cancel(); return deadlock })
	if !errors.Is(err, deadlock) || runs != 1 {
		t.Errorf("for nobody: %v after %d runs, want the deadlock after 1", err, runs)
	}
}

//
func TestSQLiteIsFull(t *testing.T) {
	d := opened(t, "sqlite://"+filepath.Join(t.TempDir(), "serval.db"))
	for _, s := range []string{`create table word (value text)`, `pragma max_page_count = 1`} { // SQLite takes the present count
		if _, err := d.ExecContext(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	_, err := d.ExecContext(t.Context(), `insert into word (value) values (hex(zeroblob(1000000)))`)
	if !d.IsFull(fmt.Errorf("keeping: %w", err)) {
		t.Errorf("%v is not taken for a full disk", err)
	}
	if _, err = d.ExecContext(t.Context(), `no SQL`); err == nil || d.IsFull(err) || d.IsFull(nil) {
		t.Errorf("%v, or nothing, is taken for a full disk", err)
	}
}

//
func TestFullPostgres(t *testing.T) {
	for code, want := range map[string]bool{"53100": true, "53200": false, "40001": false} {
		if got := (&DB{dialect: postgresDialect}).IsFull(fmt.Errorf("committing: %w", &pgconn.PgError{Code: code})); got != want {
			t.Errorf("%s is a full disk: %t, want %t", code, got, want)
		}
	}
}
