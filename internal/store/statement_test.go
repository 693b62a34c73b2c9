package store

import (
	"fmt"
	"sync"
	"testing"
)

// SQLite's statements are parsed once, are run by many at a time, see another
// schema, and are not kept without bound.
func TestStatementsAreKept(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		const text = `select value from meta where name = $1`
		get := func() (value string, err error) {
			err = d.Read(t.Context(), func(v *View) error { return v.scan(text, []any{"x"}, &value) })
			return value, err
		}
		set := func(value string) {
			t.Helper()
			d.act(t, noon, func(tx *Tx) error { return tx.SetMeta("x", value) })
		}
		for _, value := range []string{"1", "2", "3"} {
			set(value)
			if got, err := get(); err != nil || got != value {
				t.Fatalf("read %q, %v; want %q", got, err, value)
			}
		}
		if got := d.reads.known[text] != nil; got != d.isSQLite() {
			t.Errorf("the statement is kept: %t, want %t", got, d.isSQLite())
		}
		d.raw(t, `alter table meta add column more text`)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if got, err := get(); err != nil || got != "3" {
					t.Errorf("at once, of another schema: %q, %v; want 3", got, err)
				}
			})
		}
		wg.Wait()

		if !d.isSQLite() {
			return
		}
		// What fails is not kept, and spoils nothing.
		for range 2 {
			err := d.Read(t.Context(), func(v *View) error { return v.exec("no SQL", `selekt 1`) })
			if err == nil || d.reads.known[`selekt 1`] != nil {
				t.Errorf("what is no SQL: %v, and it is kept: %t", err, d.reads.known[`selekt 1`] != nil)
			}
		}
		for n := range maxStatements + 10 {
			var got int
			query := fmt.Sprintf(`select %d`, n)
			if err := d.Read(t.Context(), func(v *View) error { return v.scan(query, nil, &got) }); err != nil || got != n {
				t.Fatalf("%q: %d, %v", query, got, err)
			}
		}
		if n := len(d.reads.known); n > maxStatements {
			t.Errorf("%d statements are kept, want at most %d", n, maxStatements)
		}
	})
}
