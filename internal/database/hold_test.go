package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/serval-bridge/serval-bridge/internal/pgtest"
)

// A transaction that is held goes to the database at once, in its order but for what
// comes sooner, and what is read behind it sees it kept.
func TestHold(t *testing.T) {
	proxy, url := pgtest.NewProxy(t, pgtest.URL(t))
	over := func(t *testing.T, d *DB) {
		if _, err := d.ExecContext(t.Context(), `create table word (name text not null primary key, value text not null)`); err != nil {
			t.Fatal(err)
		}
		for _, held := range []bool{true, false} {
			least := 100
			for n := range 5 { // a connection prepares statements at first
				before := proxy.Sent()
				tx := begun(t, d.BeginWrite)
				if held && tx.Hold() == d.Alone() {
					t.Errorf("held %t, want what there is to be gained", !d.Alone())
				}
				name := fmt.Sprint(held, n)
				err := errors.Join(
					tx.Later(t.Context(), "keeping a word", addWord, name, "1"),
					tx.Later(t.Context(), "adding to it", `update word set value = value || '2' where name = $1`, name),
					tx.Sooner(t.Context(), "adding to all", `update word set value = value || '3'`),
				)
				row := tx.Behind(`select value from word where name = $1`, name)
				if err := row.Scan(new(string)); !errors.Is(err, sql.ErrNoRows) {
					t.Errorf("read before it was kept: %v", err)
				}
				if err := errors.Join(err, tx.Commit()); err != nil {
					t.Fatal(err)
				}
				least = min(least, proxy.Sent()-before)
				want := "123"
				if held && !d.Alone() {
					want = "12"
				}
				var got string
				if err := row.Scan(&got); d.Alone() != errors.Is(err, sql.ErrNoRows) || !d.Alone() && (err != nil || got != want) {
					t.Errorf("held %t: read %q behind it, %v; want %s", held, got, err, want)
				}
				tx.Rollback()
				if got, err := kept(t, d, name); err != nil || got != want {
					t.Errorf("held %t: %q, %v; want %s", held, got, err, want)
				}
				if _, err := d.ExecContext(t.Context(), `delete from word`); err != nil {
					t.Fatal(err)
				}
			}
			if held && !d.Alone() && least != 1 {
				t.Errorf("waited %d times, want once", least)
			}
		}
		tx := begun(t, d.BeginWrite)
		tx.Hold()
		if err := tx.Commit(); err != nil {
			t.Errorf("nothing to do: %v", err)
		}
		tx.Rollback()
	}
	t.Run("postgres", func(t *testing.T) { over(t, opened(t, url)) })
	t.Run("sqlite", func(t *testing.T) { over(t, opened(t, "sqlite://"+filepath.Join(t.TempDir(), "serval.db"))) })
}

// Whoever waits for an answer of a transaction that is held has none, and nothing of it
// is kept, whoever goes on.
func TestHeldAnswersNobody(t *testing.T) {
	d := opened(t, pgtest.URL(t))
	if _, err := d.ExecContext(t.Context(), `create table word (name text not null primary key, value text not null)`); err != nil {
		t.Fatal(err)
	}
	for name, ask := range map[string]func(*Tx) error{
		"a row": func(tx *Tx) error { _, err := word(t, tx, "x"); return err },
		"a row ahead": func(tx *Tx) error {
			tx.Ahead(`select value from word where name = $1`, "x")
			_, err := word(t, tx, "x")
			return err
		},
		"rows":     func(tx *Tx) error { _, err := tx.QueryContext(t.Context(), `select value from word`); return err },
		"a change": func(tx *Tx) error { _, err := tx.ExecContext(t.Context(), addWord, "z", "1"); return err },
		"too much": func(tx *Tx) (err error) {
			for n := range mostWaiting {
				if err == nil {
					err = tx.Later(t.Context(), "keeping a word", addWord, fmt.Sprint(n), "1")
				}
			}
			return err
		},
	} {
		tx := begun(t, d.BeginWrite)
		tx.Hold()
		if err := tx.Later(t.Context(), "keeping a word", addWord, "y", "1"); err != nil {
			t.Fatal(err)
		}
		if err := ask(tx); !errors.Is(err, ErrHeld) {
			t.Errorf("%s: %v, want ErrHeld", name, err)
		}
		if err := tx.Commit(); !errors.Is(err, ErrHeld) {
			t.Errorf("%s, and committed: %v, want ErrHeld", name, err)
		}
		tx.Rollback()
		var words int
		if err := d.QueryRowContext(t.Context(), `select count(*) from word`).Scan(&words); err != nil || words > 0 {
			t.Fatalf("%s: %d words, %v; want none", name, words, err)
		}
	}
}

// What fails undoes all of a transaction that is held, and costs no connection; what
// fails behind it undoes nothing.
func TestHeldFails(t *testing.T) {
	d := opened(t, pgtest.URL(t))
	if _, err := d.ExecContext(t.Context(), `create table word (name text not null primary key, value text not null)`); err != nil {
		t.Fatal(err)
	}
	session := func() (pid int) {
		t.Helper()
		if err := d.QueryRowContext(t.Context(), `select pg_backend_pid()`).Scan(&pid); err != nil {
			t.Fatal(err)
		}
		return pid
	}
	set(t, d, "x", "1")
	before := session()
	tx := begun(t, d.BeginWrite)
	tx.Hold()
	row := tx.Behind(`select value from word where name = $1`, "x")
	err := errors.Join(
		tx.Later(t.Context(), "keeping y", addWord, "y", "1"),
		tx.Later(t.Context(), "unsetting x", `update word set value = null where name = $1`, "x"),
		tx.Later(t.Context(), "keeping z", addWord, "z", "1"),
	)
	if err != nil {
		t.Fatal(err)
	}
	if err = tx.Commit(); !d.IsUnset(err) || isAway(err) {
		t.Errorf("committed what has no value: %v, want that it is not set", err)
	}
	if err := row.Scan(new(string)); !errors.Is(err, sql.ErrNoRows) {
		t.Errorf("read behind what was not kept: %v", err)
	}
	tx.Rollback()
	for name, want := range map[string]error{"x": nil, "y": sql.ErrNoRows, "z": sql.ErrNoRows} {
		if _, err := kept(t, d, name); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	if session() != before {
		t.Error("the connection was closed")
	}

	tx = begun(t, d.BeginWrite)
	tx.Hold()
	row = tx.Behind(`select 1 / 0`)
	if err := errors.Join(tx.Later(t.Context(), "keeping y", addWord, "y", "1"), tx.Commit()); err != nil {
		t.Errorf("committed, and then something failed: %v", err)
	}
	if err := row.Scan(new(int)); !errors.Is(err, sql.ErrNoRows) {
		t.Errorf("what failed: %v, want no row", err)
	}
	tx.Rollback()
	if got, err := kept(t, d, "y"); err != nil || got != "1" {
		t.Errorf("y is %q, %v; want 1", got, err)
	}

	ended, end := context.WithCancel(t.Context())
	end()
	tx = begun(t, d.BeginWrite)
	tx.Hold()
	if err := tx.Later(ended, "keeping z", addWord, "z", "1"); err != nil {
		t.Fatal(err)
	}
	tx.ctx = ended
	if err := tx.Commit(); !errors.Is(err, context.Canceled) {
		t.Errorf("committed for nobody: %v", err)
	}
	tx.Rollback()
}

// nobody knows what became of a transaction that was held and then lost, so that
// it is no absence of the database; where nothing was sent, another connection takes it.
func TestHeldIsLost(t *testing.T) {
	proxy, url := pgtest.NewProxy(t, pgtest.URL(t))
	d := opened(t, url)
	if _, err := d.ExecContext(t.Context(), `create table word (name text not null primary key, value text not null)`); err != nil {
		t.Fatal(err)
	}
	hold := func(name string) *Tx {
		t.Helper()
		tx := begun(t, d.BeginWrite)
		tx.Hold()
		if err := tx.Later(t.Context(), "keeping a word", addWord, name, "1"); err != nil {
			t.Fatal(err)
		}
		return tx
	}
	commit := func(name string, prepare func()) error {
		t.Helper()
		tx := hold(name)
		defer tx.Rollback()
		prepare()
		return tx.Commit()
	}
	if err := commit("a", func() {}); err != nil { // its statements are prepared
		t.Fatal(err)
	}
	for name, after := range map[string]bool{"b": false, "c": true} {
		err := commit(name, func() { proxy.Cut(1, after) })
		if proxy.Cut(0, false); err == nil || isAway(err) || d.IsUnset(err) {
			t.Errorf("lost, done %t: %v, want a fault that may have been kept", after, err)
		}
		if _, err := kept(t, d, name); after && err != nil || !after && !errors.Is(err, sql.ErrNoRows) {
			t.Errorf("lost, done %t: it reads %v", after, err)
		}
		if err := commit(name+"2", func() {}); err != nil {
			t.Fatal(err)
		}
	}
	down := func() { proxy.Down(true) }
	if err := commit("d", func() { down(); proxy.Down(false) }); err != nil {
		t.Errorf("over a connection that was cut while nobody used it: %v", err)
	}
	if err := commit("e", down); !isAway(err) {
		t.Errorf("while the database is away: %v, want an Away", err)
	}
}

// A value that has to be there and is not is told from what else may be wrong.
func TestIsUnset(t *testing.T) {
	each(t, func(t *testing.T, d *DB) {
		set(t, d, "x", "1")
		for query, want := range map[string]bool{
			`update word set value = null`:                         true,
			`insert into word (name, value) values ('x', '1')`:     false,
			`insert into word (name, nothing) values ('x', 'two')`: false,
		} {
			if _, err := d.ExecContext(t.Context(), query); err == nil || d.IsUnset(err) != want {
				t.Errorf("%s: %v, unset %t", query, err, d.IsUnset(err))
			}
		}
		if d.IsUnset(nil) || d.IsUnset(&pgconn.ConnectError{}) {
			t.Error("nothing, or another error, is a value that is not set")
		}
	})
}

func TestChanges(t *testing.T) {
	for query, want := range map[string]string{
		`select value from word`:                            "",
		`insert into word (name) values ($1)`:               "word",
		`insert into word(name) values ($1)`:                "word",
		"\n\t\tupdate word set name = $1":                   "word",
		`delete from word`:                                  "word",
		"delete from word\n\t\twhere name = $1":             "word",
		`select 1 from word where name = 'delete from all'`: "",
		`updated`: "",
		``:        "",
	} {
		if got := Changes(query); got != want {
			t.Errorf("%q changes %q, want %q", query, got, want)
		}
	}
}
