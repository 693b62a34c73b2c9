package database

import (
	"fmt"
	"sync"
	"testing"
)

// SQLite's statements are parsed once, are run by many at a time, see another
// schema, and are not kept without bound.
func TestStatementsAreKept(t *testing.T) {
	each(t, func(t *testing.T, d *DB) {
		const text = `select value from word where name = $1`
		get := func(query string, args ...any) (value string, err error) {
			tx, err := d.BeginRead(t.Context())
			if err != nil {
				return "", err
			}
			defer tx.Rollback()
			err = tx.QueryRowContext(t.Context(), query, args...).Scan(&value)
			return value, err
		}
		for _, value := range []string{"1", "2", "3"} {
			set(t, d, "x", value)
			if got, err := get(text, "x"); err != nil || got != value {
				t.Fatalf("read %q, %v; want %q", got, err, value)
			}
		}
		if d.Alone() && d.reads.free[0].parsed[text] == nil {
			t.Error("the statement is not kept")
		}
		if _, err := d.ExecContext(t.Context(), `alter table word add column more text`); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if got, err := get(text, "x"); err != nil || got != "3" {
					t.Errorf("at once, of another schema: %q, %v; want 3", got, err)
				}
			})
		}
		wg.Wait()

		if !d.Alone() {
			return
		}
		// What fails is not kept, and spoils nothing.
		for range 2 {
			if _, err := get(`selekt 1`); err == nil || d.reads.free[0].parsed[`selekt 1`] != nil {
				t.Errorf("what is no SQL: %v, and it is kept: %t", err, d.reads.free[0].parsed[`selekt 1`] != nil)
			}
		}
		for n := range maxStatements + 10 {
			want := fmt.Sprint(n)
			if got, err := get(`select ` + want); err != nil || got != want {
				t.Fatalf("select %s: %q, %v", want, got, err)
			}
		}
		if n := len(d.reads.free[0].parsed); n > maxStatements {
			t.Errorf("%d statements are kept, want at most %d", n, maxStatements)
		}
	})
}
