package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/serval-bridge/serval-bridge/internal/pgtest"
)

// word returns the value of a word, as a transaction sees it.
func word(t *testing.T, tx *Tx, name string) (value string, err error) {
	t.Helper()
	err = tx.QueryRowContext(t.Context(), `select value from word where name = $1`, name).Scan(&value)
	return value, err
}

// kept returns the value of a word, as it is kept.
func kept(t *testing.T, d *DB, name string) (value string, err error) {
	t.Helper()
	tx, err := d.BeginRead(t.Context())
	if err != nil {
		return "", err
	}
	defer tx.Rollback()
	return word(t, tx, name)
}

// begun returns a transaction that is ended with the test.
func begun(t *testing.T, begin func(context.Context) (*Tx, error)) *Tx {
	t.Helper()
	tx, err := begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tx.Rollback)
	return tx
}

const addWord = `insert into word (name, value) values ($1, $2)`

// What nobody waits for is done in its order, before what comes behind it, whatever
// that is; and it is undone with the rest.
func TestLater(t *testing.T) {
	each(t, func(t *testing.T, d *DB) {
		for name, next := range map[string]func(*Tx) error{
			"a row": func(tx *Tx) error {
				if got, err := word(t, tx, "x"); err != nil || got != "2" {
					return fmt.Errorf("read %q, %w; want 2", got, err)
				}
				return nil
			},
			"rows": func(tx *Tx) error {
				rows, err := tx.QueryContext(t.Context(), `select value from word`)
				if err != nil {
					return err
				}
				defer rows.Close()
				var got string
				for rows.Next() {
					if err := rows.Scan(&got); err != nil {
						return err
					}
				}
				if rows.Err() != nil || got != "2" {
					return fmt.Errorf("read %q, %w; want 2", got, rows.Err())
				}
				return nil
			},
			"a change": func(tx *Tx) error {
				result, err := tx.ExecContext(t.Context(), `update word set value = '2' where value = '2'`)
				if err != nil {
					return err
				}
				if n, err := result.RowsAffected(); err != nil || n != 1 {
					return fmt.Errorf("%d rows, %w; want one", n, err)
				}
				return nil
			},
			"the commit": func(*Tx) error { return nil },
		} {
			if _, err := d.ExecContext(t.Context(), `delete from word`); err != nil {
				t.Fatal(err)
			}
			for _, keep := range []bool{false, true} {
				tx := begun(t, d.BeginWrite)
				for _, s := range []string{`insert into word (name, value) values ('x', '1')`, `update word set value = '2' where name = 'x'`} {
					if err := tx.Later(t.Context(), "keeping a word", s); err != nil {
						t.Fatal(err)
					}
				}
				if err := next(tx); err != nil {
					t.Errorf("before %s: %v", name, err)
				}
				if keep {
					if err := tx.Commit(); err != nil {
						t.Errorf("before %s: %v", name, err)
					}
				}
				tx.Rollback()
				got, err := kept(t, d, "x")
				if keep && got != "2" || !keep && !errors.Is(err, sql.ErrNoRows) {
					t.Errorf("before %s, committed %t: %q, %v", name, keep, got, err)
				}
			}
		}
		tx := begun(t, d.BeginWrite)
		for n := range mostWaiting + 10 {
			if err := tx.Later(t.Context(), "keeping a word", addWord, fmt.Sprint(n), "y"); err != nil {
				t.Fatal(err)
			}
		}
		if tx.line != nil && len(tx.line.waiting) >= mostWaiting {
			t.Errorf("%d statements wait, want fewer than %d", len(tx.line.waiting), mostWaiting)
		}
		if got, err := word(t, tx, fmt.Sprint(mostWaiting+9)); err != nil || got != "y" {
			t.Errorf("the last of many: %q, %v", got, err)
		}
	})
}

// Where what nobody waits for fails, what comes behind it does and says what it was,
// and nothing is kept. The connection is good for the next transaction.
func TestLaterFails(t *testing.T) {
	each(t, func(t *testing.T, d *DB) {
		set(t, d, "x", "1")
		for name, next := range map[string]func(*Tx) error{
			"a row":      func(tx *Tx) error { _, err := word(t, tx, "x"); return err },
			"rows":       func(tx *Tx) error { _, err := tx.QueryContext(t.Context(), `select value from word`); return err },
			"a change":   func(tx *Tx) error { _, err := tx.ExecContext(t.Context(), `delete from word`); return err },
			"the commit": func(tx *Tx) error { return tx.Commit() },
		} {
			tx := begun(t, d.BeginWrite)
			if err := tx.Later(t.Context(), "keeping y", addWord, "y", "1"); err != nil {
				t.Fatal(err)
			}
			err := tx.Later(t.Context(), "keeping x again", addWord, "x", "2")
			if err == nil {
				err = next(tx)
			}
			if err == nil || err.Error()[:min(len(err.Error()), 17)] != "keeping x again: " {
				t.Errorf("before %s: %v, want an error that begins with what failed", name, err)
			}
			if e, ok := errors.AsType[*pgconn.PgError](err); !d.Alone() && (!ok || e.Code != "23505") {
				t.Errorf("before %s: %v, want the database's own error in it", name, err)
			}
			if !d.Alone() {
				if err := tx.Commit(); err == nil {
					t.Errorf("before %s: what had failed was committed", name)
				}
			}
			tx.Rollback()
			if got, err := kept(t, d, "x"); err != nil || got != "1" {
				t.Errorf("before %s: x is %q, %v; want 1", name, got, err)
			}
			if got, err := kept(t, d, "y"); !errors.Is(err, sql.ErrNoRows) {
				t.Errorf("before %s: y is %q, %v; want nothing", name, got, err)
			}
		}
	})
}

// What is read ahead is what would be read then, whatever is in between.
func TestAhead(t *testing.T) {
	const one, all = `select value from word where name = $1`, `select name from word order by name`
	each(t, func(t *testing.T, d *DB) {
		set(t, d, "x", "1")
		set(t, d, "y", "1")
		names := func(tx *Tx) (list []string) {
			t.Helper()
			rows, err := tx.QueryContext(t.Context(), all)
			if err != nil {
				t.Fatal(err)
			}
			defer rows.Close()
			for rows.Next() {
				var name string
				if err := rows.Scan(&name); err != nil {
					t.Fatal(err)
				}
				list = append(list, name)
			}
			if err := rows.Err(); err != nil {
				t.Fatal(err)
			}
			return list
		}
		tx := begun(t, d.BeginWrite)
		tx.Ahead(one, "x")
		tx.Ahead(one, "z")
		tx.Ahead(all)
		tx.Ahead(one, "a text that no row holds\x00")
		for _, want := range []string{"y", "x"} { // the other first
			if got, err := word(t, tx, want); err != nil || got != "1" {
				t.Errorf("%s is %q, %v; want 1", want, got, err)
			}
		}
		if got, err := word(t, tx, "z"); !errors.Is(err, sql.ErrNoRows) {
			t.Errorf("z is %q, %v; want nothing", got, err)
		}
		if got := fmt.Sprint(names(tx)); got != "[x y]" {
			t.Errorf("ahead: %s, want x and y", got)
		}
		if tx.line != nil && len(tx.line.read) > 0 {
			t.Error("what was read is kept")
		}
		tx.Rollback()

		tx = begun(t, d.BeginWrite)
		tx.Ahead(one, []byte("x")) // what cannot be compared by itself
		var got string
		if err := tx.QueryRowContext(t.Context(), one, []byte("x")).Scan(&got); !d.Alone() && (err != nil || got != "1") {
			t.Errorf("by bytes: x is %q, %v; want 1", got, err)
		}
		tx.Rollback()

		for name, change := range map[string]func(*Tx) error{
			"and read": func(tx *Tx) error {
				return tx.QueryRowContext(t.Context(), `update word set value = '2' where name = 'x' returning name`).Scan(new(string))
			},
			"and read one by one": func(tx *Tx) error {
				rows, err := tx.QueryContext(t.Context(), `update word set value = '2' where name = 'x' returning name`)
				if err != nil {
					return err
				}
				for rows.Next() {
					// Each is to be read before the next statement.
				}
				return rows.Close()
			},
			"at once": func(tx *Tx) error { _, err := tx.ExecContext(t.Context(), `update word set value = '2'`); return err },
			"later":   func(tx *Tx) error { return tx.Later(t.Context(), "changing all", `update word set value = '2'`) },
		} {
			for _, sent := range []bool{false, true} {
				tx := begun(t, d.BeginWrite)
				tx.Ahead(one, "x")
				tx.Ahead(one, "y")
				if sent {
					if got, err := word(t, tx, "y"); err != nil || got != "1" {
						t.Errorf("y is %q, %v; want 1", got, err)
					}
				}
				if err := change(tx); err != nil {
					t.Fatal(err)
				}
				if got, err := word(t, tx, "x"); err != nil || got != "2" {
					t.Errorf("changed %s, sent %t: x is %q, %v; want 2", name, sent, got, err)
				}
				tx.Rollback()
			}
		}

		tx = begun(t, d.BeginRead)
		tx.Ahead(`selekt 1`)
		if _, err := word(t, tx, "x"); (err == nil) != d.Alone() {
			t.Errorf("behind what is no SQL: %v", err)
		}
		tx.Rollback()
		if got, err := kept(t, d, "x"); err != nil || got != "1" {
			t.Errorf("afterwards: %q, %v", got, err)
		}
	})
}

// Where a transaction could not begin nothing is done by itself, and where what
// waited was not sent nothing is kept without it, whoever goes on.
func TestNothingBehindWhatFailed(t *testing.T) {
	d := opened(t, pgtest.URL(t))
	if _, err := d.ExecContext(t.Context(), `create table word (name text not null primary key, value text not null)`); err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	for name, fail := range map[string]func(*Tx) error{
		"it has not begun, by a statement that is none": func(tx *Tx) error {
			return tx.QueryRowContext(t.Context(), `selekt 1`).Scan(new(string))
		},
		"it has not begun, by a context": func(tx *Tx) error {
			return tx.QueryRowContext(ended, `select 1`).Scan(new(int))
		},
		"it has begun": func(tx *Tx) error {
			if _, err := tx.ExecContext(t.Context(), addWord, "first", "1"); err != nil {
				t.Fatal(err)
			}
			if err := tx.Later(t.Context(), "keeping a word", addWord, "later", "1"); err != nil {
				t.Fatal(err)
			}
			return tx.QueryRowContext(ended, `select 1`).Scan(new(int))
		},
	} {
		for next, goOn := range map[string]func(*Tx) error{
			"a row": func(tx *Tx) error {
				return tx.QueryRowContext(t.Context(), `insert into word (name, value) values ('x', '1') returning name`).Scan(new(string))
			},
			"rows": func(tx *Tx) error {
				rows, err := tx.QueryContext(t.Context(), `insert into word (name, value) values ('x', '1') returning name`)
				if err == nil {
					err = rows.Close()
				}
				return err
			},
			"a change":   func(tx *Tx) error { _, err := tx.ExecContext(t.Context(), addWord, "x", "1"); return err },
			"the commit": func(tx *Tx) error { return tx.Commit() },
		} {
			tx := begun(t, d.BeginWrite)
			if err := fail(tx); err == nil || isAway(err) {
				t.Errorf("%s: %v, want a fault that is not the database's absence", name, err)
			}
			if err := goOn(tx); err == nil {
				t.Errorf("%s, then %s: done", name, next)
			}
			if err := tx.Commit(); err == nil {
				t.Errorf("%s, then %s: committed", name, next)
			}
			tx.Rollback()
			var words int
			if err := d.QueryRowContext(t.Context(), `select count(*) from word`).Scan(&words); err != nil || words > 0 {
				t.Fatalf("%s, then %s: %d words, %v; want none", name, next, words, err)
			}
		}
	}
}

// Whoever gives up before anything is sent costs no connection.
func TestGivenUpBefore(t *testing.T) {
	d := opened(t, pgtest.URL(t))
	session := func() (pid int) {
		t.Helper()
		if err := d.QueryRowContext(t.Context(), `select pg_backend_pid()`).Scan(&pid); err != nil {
			t.Fatal(err)
		}
		return pid
	}
	before := session()
	tx := begun(t, d.BeginWrite)
	ended, end := context.WithCancel(t.Context())
	end()
	if err := tx.QueryRowContext(ended, `select 1`).Scan(new(int)); !errors.Is(err, context.Canceled) {
		t.Errorf("given up before it began: %v", err)
	}
	tx.Rollback()
	if after := session(); after != before {
		t.Error("the connection was closed")
	}
}

// Whoever goes on after a failure commits nothing.
func TestCommitAfterFailure(t *testing.T) {
	d := opened(t, pgtest.URL(t))
	if _, err := d.ExecContext(t.Context(), `create table word (name text not null primary key, value text not null)`); err != nil {
		t.Fatal(err)
	}
	tx := begun(t, d.BeginWrite)
	if _, err := tx.ExecContext(t.Context(), addWord, "x", "1"); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), addWord, "x", "1"); err == nil {
		t.Fatal("the same word twice")
	}
	if err := tx.Commit(); err == nil {
		t.Error("committed, want an error: the database has undone it")
	}
}

// What the database says of another statement is no absence, and its last word is.
func TestIsOfAnother(t *testing.T) {
	said := func(severity string) error { return &pgconn.PgError{SeverityUnlocalized: severity} }
	for _, test := range []struct {
		err  error
		want bool
	}{
		{errors.Join(pgx.ErrPreprocessingBatch{}, said("ERROR")), true},
		{errors.Join(pgx.ErrPreprocessingBatch{}, said("FATAL")), false},
		{pgx.ErrPreprocessingBatch{}, false},
		{said("ERROR"), false},
	} {
		if got := isOfAnother(test.err, "begin"); got != test.want {
			t.Errorf("%#v: %t, want %t", test.err, got, test.want)
		}
	}
	if isOfAnother(errors.Join(pgx.ErrPreprocessingBatch{}, said("ERROR")), "") {
		t.Error("of the statement itself: true")
	}
}

func isAway(err error) bool { _, ok := errors.AsType[*Away](err); return ok }

// a connection that was cut while nobody used it is not the end of who begins
// on it; one that is cut later is, for nobody knows what of it was done.
func TestCutWhileIdle(t *testing.T) {
	proxy, url := pgtest.NewProxy(t, pgtest.URL(t))
	d := opened(t, url)
	if _, err := d.ExecContext(t.Context(), `create table word (name text not null primary key, value text not null)`); err != nil {
		t.Fatal(err)
	}
	set(t, d, "x", "1")
	for range 5 {
		proxy.Down(true)
		proxy.Down(false)
		set(t, d, "x", "2")
	}
	// As many as there may be, which the pool does not try first: it has just had them.
	for range 2 {
		var all []*Tx
		for range maxIdle {
			tx := begun(t, d.BeginWrite)
			if _, err := word(t, tx, "x"); err != nil {
				t.Fatal(err)
			}
			all = append(all, tx)
		}
		for _, tx := range all {
			tx.Rollback()
		}
	}
	proxy.Down(true)
	proxy.Down(false)
	set(t, d, "x", "2")
	// Without anybody there nothing can begin, on a connection that there was or on
	// another.
	proxy.Down(true)
	if _, err := kept(t, d, "x"); !isAway(err) {
		t.Errorf("while the database is away: %v, want an Away", err)
	}
	tx, err := d.BeginWrite(t.Context())
	if err == nil {
		err = tx.Commit()
		tx.Rollback()
	}
	if !isAway(err) {
		t.Errorf("while the database is away: %v, want an Away", err)
	}
	proxy.Down(false)
	tx = begun(t, d.BeginWrite)
	if err := tx.Later(t.Context(), "changing x", `update word set value = '3'`); err != nil {
		t.Fatal(err)
	}
	if got, err := word(t, tx, "x"); err != nil || got != "3" {
		t.Fatalf("x is %q, %v; want 3", got, err)
	}
	proxy.Down(true)
	proxy.Down(false)
	if err := tx.Commit(); !isAway(err) { // which was never sent
		t.Errorf("committed over a connection that was cut in the middle: %v, want an Away", err)
	}
	tx.Rollback()
	tx = begun(t, d.BeginWrite)
	if _, err := tx.ExecContext(t.Context(), `update word set value = '3'`); err != nil {
		t.Fatal(err)
	}
	proxy.Cut(1, false)
	if err := tx.Commit(); err == nil || isAway(err) {
		t.Errorf("its commit was sent, and nobody answered: %v, want a fault that may have been kept", err)
	}
	proxy.Cut(0, false)
	tx.Rollback()
	if got, err := kept(t, d, "x"); err != nil || got != "2" {
		t.Errorf("x is %q, %v; want 2", got, err)
	}
}

// what is lost with its connection before its commit was sent kept nothing, and
// is over when the database is back; whoever gave up is told of that instead.
func TestCutInTheMiddle(t *testing.T) {
	proxy, url := pgtest.NewProxy(t, pgtest.URL(t))
	d := opened(t, url)
	if _, err := d.ExecContext(t.Context(), `create table word (name text not null primary key, value text not null)`); err != nil {
		t.Fatal(err)
	}
	read := func(rows Rows, err error) error {
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
		}
		return rows.Err()
	}
	const many = `select repeat('x', 10000) from generate_series(1, 1000)`
	for name, next := range map[string]func(context.Context, *Tx) error{
		"a row":    func(ctx context.Context, tx *Tx) error { return tx.QueryRowContext(ctx, `select 1`).Scan(new(int)) },
		"rows":     func(ctx context.Context, tx *Tx) error { return read(tx.QueryContext(ctx, many)) },
		"a change": func(ctx context.Context, tx *Tx) error { _, err := tx.ExecContext(ctx, addWord, "y", "1"); return err },
		"what waits": func(ctx context.Context, tx *Tx) error {
			return errors.Join(tx.Later(ctx, "keeping y", addWord, "y", "1"), tx.QueryRowContext(ctx, `select 1`).Scan(new(int)))
		},
		"rows behind what waits": func(ctx context.Context, tx *Tx) error {
			return errors.Join(tx.Later(ctx, "keeping y", addWord, "y", "1"), read(tx.QueryContext(ctx, many)))
		},
		"what was read ahead": func(ctx context.Context, tx *Tx) error {
			tx.Ahead(`select 1`)
			return tx.QueryRowContext(ctx, `select 1`).Scan(new(int))
		},
	} {
		for how, cut := range map[string]func(context.CancelFunc){
			"it is away":     func(context.CancelFunc) { proxy.Down(true) },
			"it is ended":    func(context.CancelFunc) { terminate(t, d) },
			"it is given up": func(giveUp context.CancelFunc) { giveUp() },
		} {
			proxy.Down(false)
			tx := begun(t, d.BeginWrite)
			if _, err := tx.ExecContext(t.Context(), addWord, "x", "1"); err != nil {
				t.Fatal(err)
			}
			ctx, giveUp := context.WithCancel(t.Context())
			cut(giveUp)
			if err := next(ctx, tx); err == nil || isAway(err) != (how != "it is given up") {
				t.Errorf("%s, %s: %v", name, how, err)
			}
			giveUp()
			if how != "it is given up" && tx.Commit() == nil {
				t.Errorf("%s, %s: committed", name, how)
			}
			tx.Rollback()
		}
	}
	proxy.Down(false)
	tx := begun(t, d.BeginRead)
	rows, err := tx.QueryContext(t.Context(), many)
	if err != nil || !rows.Next() {
		t.Fatalf("no first row: %v", err)
	}
	proxy.Down(true)
	if err := read(rows, nil); !isAway(err) {
		t.Errorf("rows, in their middle: %v", err)
	}
	tx.Rollback()
	proxy.Down(false)
	tx = begun(t, d.BeginWrite)
	for range 2 { // an error of a statement is none of the database's
		if _, err := tx.ExecContext(t.Context(), `select 1 / 0`); err == nil || isAway(err) {
			t.Errorf("a statement that fails: %v", err)
		}
	}
	if err := read(tx.QueryContext(t.Context(), `select 1`)); err == nil || isAway(err) {
		t.Errorf("rows behind it: %v", err)
	}
	tx.Rollback()
	var words int
	if err := d.QueryRowContext(t.Context(), `select count(*) from word`).Scan(&words); err != nil || words > 0 {
		t.Errorf("%d words, %v; want none", words, err)
	}
}

// terminate ends all other connections to the database, as whoever administers it does.
func terminate(t *testing.T, d *DB) {
	t.Helper()
	const others = `from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()`
	if _, err := d.ExecContext(t.Context(), `select pg_terminate_backend(pid, 20000) `+others); err != nil {
		t.Fatal(err)
	}
}
