package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pressly/goose/v3"

	"github.com/serval-bridge/serval-bridge/internal/pgtest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/sqlitetest"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("STORE_TEST_WRITER"); path != "" {
		writeUntilKilled(path)
	}
	os.Exit(pgtest.Main(m))
}

// noon is when the tests happen.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)

var chain = serval.NewChain(serval.NewSecret("a root secret of a test"))

// A place is a store of a test, and where it is.
type place struct {
	*Store
	url string
}

// each runs f on SQLite, on a PostgreSQL that orders text as a language does,
// and, unless the tests are to be short, on one that orders it by bytes. T-2
func each(t *testing.T, f func(*testing.T, place)) {
	for name, url := range map[string]func(*testing.T) string{
		"sqlite":         func(t *testing.T) string { return sqlitetest.URLOf(t, migrate) },
		"postgres":       func(t *testing.T) string { return pgtest.URLOf(t, migrate) },
		"postgres en_US": func(t *testing.T) string { return pgtest.URLIn(t, "en_US.UTF-8", migrate) },
	} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && name == "postgres" {
				t.Skip("short: one PostgreSQL is enough")
			}
			t.Parallel()
			f(t, opened(t, url(t)))
		})
	}
}

// migrate prepares a database.
func migrate(url string) error {
	s, err := Open(context.Background(), Config{URL: serval.NewSecret(url)})
	if err != nil {
		return err
	}
	return errors.Join(s.Migrate(context.Background()), s.Close())
}

func opened(t *testing.T, url string) place {
	t.Helper()
	s, err := Open(t.Context(), Config{URL: serval.NewSecret(url), Chain: chain})
	if err != nil {
		t.Fatalf("opening the database: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("closing the database: %v", err)
		}
	})
	return place{s, url}
}

func migrated(t *testing.T, url string) place {
	t.Helper()
	d := opened(t, url)
	if err := d.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d place) isSQLite() bool { return strings.HasPrefix(d.url, "sqlite:") }

// replicas returns the stores that may serve the database at once: one SQLite,
// two PostgreSQL.
func (d place) replicas(t *testing.T) []*Store {
	if d.isSQLite() {
		return []*Store{d.Store}
	}
	return []*Store{d.Store, opened(t, d.url).Store}
}

// act runs f at now and fails the test where it cannot.
func (d place) act(t *testing.T, now time.Time, f func(*Tx) error) {
	t.Helper()
	if err := d.Write(t.Context(), now, f); err != nil {
		t.Fatalf("Write: %v", err)
	}
}

// raw runs statements as somebody would who has the database and not the
// program.
func (d place) raw(t *testing.T, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := d.db.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// byHand returns the migrations for goose's own hands, which take them back too.
func (d place) byHand(t *testing.T) *goose.Provider {
	t.Helper()
	dialect, driver, folder, at := goose.DialectPostgres, "pgx", "postgres", d.url
	if d.isSQLite() {
		dialect, driver, folder, at = goose.DialectSQLite3, "sqlite", "sqlite", strings.TrimPrefix(d.url, "sqlite://")
	}
	db, err := sql.Open(driver, at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	files := fstest.MapFS{}
	for path, file := range future(t, "common/none.md", "") {
		if dir, name, _ := strings.Cut(path, "/"); dir == "common" || dir == folder {
			files[name] = file
		}
	}
	p, err := goose.NewProvider(dialect, db, files)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (d place) number(t *testing.T, query string, args ...any) (n int64) {
	t.Helper()
	if err := d.db.QueryRowContext(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

// look returns what f reads.
func look[T any](t *testing.T, d place, f func(*View) (T, error)) T {
	t.Helper()
	var value T
	err := d.Read(t.Context(), func(v *View) (err error) {
		value, err = f(v)
		return err
	})
	if err != nil {
		t.Fatalf("Read: %v", err)
	}
	return value
}

func refused(t *testing.T, what string, err error, kind serval.Kind) {
	t.Helper()
	if !serval.IsRefusal(err, kind) {
		t.Errorf("%s: got %v, want a refusal of kind %s", what, err, kind)
	}
}

// hostile are texts that break what was put together from strings. S-19
var hostile = []string{
	`'`, `''`, `"`, "`", `\`, `\'`, `';drop table event;--`, `' or '1'='1`, `$1`, `$1::text`, `%s%d%n`, `?`, `:a`, `@a`,
	`{"a":1}`, `null`, `</script><script>alert(1)</script>`, "a\r\nb\tc", "\u202egnp.exe", "\u2028\u2029", "é e\u0301", "日本語", "🦊",
	"\u212aate@example.com", strings.Repeat("x", 100_000),
}

// unkept are texts that PostgreSQL cannot keep.
var unkept = []string{"nul\x00nul", "broken\xff", "\xed\xa0\x80"}

func TestMigrate(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		if err := d.Migrate(t.Context()); err != nil {
			t.Errorf("migrating again: %v", err)
		}
		if pending, err := d.Pending(t.Context()); err != nil || pending {
			t.Errorf("Pending after Migrate: %v, %v; want false", pending, err)
		}
		p := d.byHand(t)
		for range 2 {
			if _, err := p.Down(t.Context()); err != nil {
				t.Fatalf("taking the last migration back: %v", err)
			}
			if pending, err := d.Pending(t.Context()); err != nil || !pending {
				t.Errorf("Pending after a migration was taken back: %v, %v; want true", pending, err)
			}
		}
		if err := d.Migrate(t.Context()); err != nil {
			t.Errorf("migrating after all was taken back: %v", err)
		}
		d.act(t, noon, func(tx *Tx) error { return tx.Append(serval.Event{Action: serval.LoginCreate}) })

		// the program of an older version works on a newer schema.
		if d.isSQLite() {
			d.raw(t, `insert into goose_db_version (version_id, is_applied) values (99, 1)`)
		} else {
			d.raw(t, `insert into goose_db_version (version_id, is_applied) values (99, true)`)
		}
		if err := d.Migrate(t.Context()); err != nil {
			t.Errorf("migrating a newer schema: %v", err)
		}
		if pending, err := d.Pending(t.Context()); err != nil || pending {
			t.Errorf("Pending of a newer schema: %v, %v; want false", pending, err)
		}
	})
}

//
func TestMigrateAtOnce(t *testing.T) {
	for name, url := range map[string]string{
		"sqlite":   "sqlite://" + filepath.Join(t.TempDir(), "serval.db"),
		"postgres": pgtest.URL(t),
	} {
		t.Run(name, func(t *testing.T) {
			d := opened(t, url)
			stores := append(d.replicas(t), d.replicas(t)...)
			var wg sync.WaitGroup
			for _, s := range append(stores, stores...) {
				wg.Go(func() {
					if err := s.Migrate(t.Context()); err != nil {
						t.Errorf("migrating beside others: %v", err)
					}
				})
			}
			wg.Wait()
			if pending, err := d.Pending(t.Context()); err != nil || pending {
				t.Errorf("Pending: %v, %v; want false", pending, err)
			}
			if n := d.number(t, `select count(*) from chain`); n != 1 {
				t.Errorf("%d rows in chain, want 1", n)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	const canary = "canary7f3a"
	dir := t.TempDir()
	for _, url := range []string{
		"",
		canary,
		"mysql://u:" + canary + "@localhost/db",
		"sqlite:" + canary,
		"sqlite://" + canary + "/serval.db",
		"sqlite://" + dir + "/serval.db?password=" + canary,
		"sqlite://" + dir + "/not there/serval.db",
		"sqlite://" + dir,
		"postgres://u:" + canary + "@127.0.0.1:1/db?connect_timeout=2",
		"postgres://u:" + canary + "@127.0.0.1:1,127.0.0.1:2/db?connect_timeout=2",
		"postgres://u:" + canary + "@[::1/db",
		"postgres://u:" + canary + "%zz@localhost/db",
		"postgres://u:" + canary + "@localhost:port/db",
		"postgres://u:" + canary + "@localhost/db?sslmode=nonsense",
		"postgres://u:" + canary + "@localhost/db?sslrootcert=/not/there",
		"postgres://localhost/db?connect_timeout=x&password=" + canary,
		"postgres://u:" + canary + "@localhost/db?default_query_exec_mode=simple_protocol",
		"postgresql://u:" + canary + "@does-not-exist.invalid/db?connect_timeout=2",
	} {
		for _, readOnly := range []bool{false, true} {
			s, err := Open(t.Context(), Config{URL: serval.NewSecret(url), ReadOnly: readOnly})
			if err == nil {
				s.Close()
				t.Errorf("Open took %q (read-only: %v)", url, readOnly)
				continue
			}
			// S-5
			for e := err; e != nil; e = errors.Unwrap(e) {
				if text := fmt.Sprintf("%v %+v %q", e, e, e); strings.Contains(text, canary) {
					t.Errorf("the error of %q tells the password: %s", url, text)
				}
			}
		}
	}
}

// S-19: values never become part of a query's text.
func TestOpenRefusesSimpleProtocol(t *testing.T) {
	_, err := Open(t.Context(), Config{URL: serval.NewSecret(pgtest.URL(t) + "&default_query_exec_mode=simple_protocol")})
	refused(t, "the simple protocol", err, serval.Invalid)
}

// a database that cannot be written is not served.
func TestOpenRefusesStandby(t *testing.T) {
	d := opened(t, pgtest.URLOf(t, migrate))
	d.raw(t, `do $$ begin execute 'alter database ' || current_database() || ' set default_transaction_read_only = on'; end $$`)
	if s, err := Open(t.Context(), Config{URL: serval.NewSecret(d.url), Chain: chain}); err == nil {
		s.Close()
		t.Error("Open took a PostgreSQL that is read-only")
	}
	s, err := Open(t.Context(), Config{URL: serval.NewSecret(d.url), Chain: chain, ReadOnly: true})
	if err != nil {
		t.Fatalf("opening it read-only: %v", err)
	}
	s.Close()
}

func TestReadOnly(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		d.act(t, noon, func(tx *Tx) error { return tx.Append(serval.Event{Action: serval.LoginCreate}) })
		s, err := Open(t.Context(), Config{URL: serval.NewSecret(d.url), Chain: chain, ReadOnly: true})
		if err != nil {
			t.Fatalf("opening beside the serving process: %v", err)
		}
		defer s.Close()
		if pending, err := s.Pending(t.Context()); err != nil || pending {
			t.Errorf("Pending: %v, %v; want false", pending, err)
		}
		err = s.Read(t.Context(), func(v *View) error {
			_, err := v.VerifyChain(Head{})
			return err
		})
		if err != nil {
			t.Errorf("verifying the chain: %v", err)
		}
		if err := s.Write(t.Context(), noon, func(tx *Tx) error { return tx.SetMeta("a", "b") }); err == nil {
			t.Error("a read-only store wrote")
		}
		if err := s.TouchLogin(t.Context(), "a", noon); err == nil {
			t.Error("a read-only store wrote outside a transaction")
		}
	})
}

func TestWriteIsAllOrNothing(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		change := func(tx *Tx, value string) error {
			return errors.Join(tx.SetMeta("value", value), tx.Append(serval.Event{Action: serval.PolicyDeclare, Reason: value}))
		}
		d.act(t, noon, func(tx *Tx) error { return change(tx, "first") })
		head, ok := d.Head()
		if !ok || head.Seq != 1 {
			t.Errorf("Head: %v, %v; want row 1", head, ok)
		}

		fault := errors.New("a fault")
		refusal := serval.Refuse(serval.Conflict, "a refusal")
		for _, want := range []error{fault, refusal} {
			err := d.Write(t.Context(), noon, func(tx *Tx) error { return errors.Join(change(tx, "undone"), want) })
			if !errors.Is(err, want) {
				t.Errorf("Write returned %v, want %v", err, want)
			}
		}
		swallowed := d.Write(t.Context(), noon, func(tx *Tx) error {
			if err := tx.exec("failing", `insert into meta (name, value) values ('value', 'again')`); err == nil {
				t.Error("one name was kept twice")
			}
			change(tx, "undone")
			return nil
		})
		if swallowed == nil {
			t.Error("Write kept what came after a statement that failed")
		}
		func() {
			defer func() { recover() }()
			d.Write(t.Context(), noon, func(tx *Tx) error {
				if err := change(tx, "undone"); err != nil {
					t.Error(err)
				}
				panic("a bug")
			})
		}()
		ended, cancel := context.WithCancel(t.Context())
		err := d.Write(ended, noon, func(tx *Tx) error {
			err := change(tx, "undone")
			cancel()
			return err
		})
		if err == nil {
			t.Error("Write returned nil after its context had ended")
		}

		if got := look(t, d, func(v *View) (string, error) { return v.Meta("value") }); got != "first" {
			t.Errorf("value is %q, want first", got)
		}
		if got := look(t, d, (*View).ChainHead); got != head {
			t.Errorf("the chain's head is %v, want %v", got, head)
		}
		if got, _ := d.Head(); got != head {
			t.Errorf("Head is %v, want %v", got, head)
		}
		if n := d.number(t, `select count(*) from event`); n != 1 {
			t.Errorf("%d events, want 1", n)
		}
		if got := look(t, d, func(v *View) (string, error) { return v.Meta("not there") }); got != "" {
			t.Errorf("a name that keeps nothing keeps %q", got)
		}
	})
}

// Whether a Write whose context ends returns an error or not, the change and
// its event are both there or both not; without an error they are.
func TestWriteWhileContextEnds(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		var kept int64
		for i := range 60 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(3000))*time.Microsecond)
			err := d.Write(ctx, noon, func(tx *Tx) error {
				return errors.Join(tx.SetMeta(fmt.Sprint("n", i), "x"), tx.Append(serval.Event{Action: serval.PolicyDeclare}))
			})
			cancel()
			if err == nil {
				kept++
				name := fmt.Sprint("n", i)
				if got := look(t, d, func(v *View) (string, error) { return v.Meta(name) }); got != "x" {
					t.Fatalf("Write returned nil and kept %s as %q", name, got)
				}
			}
			// One query: what an earlier commit was asked for may come any time.
			if more := d.number(t, `select (select count(*) from event) - (select count(*) from meta)`); more != 0 {
				t.Fatalf("there are %d more events than changes", more)
			}
		}
		t.Logf("%d of 60 were kept without an error", kept)
		if _, err := verify(t, d, Head{}); err != nil {
			t.Error(err)
		}
	})
}

func TestReadIsConsistent(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		d.act(t, noon, func(tx *Tx) error { return tx.SetMeta("value", "old") })
		err := d.Read(t.Context(), func(v *View) error {
			first, err := v.Meta("value")
			if err != nil {
				return err
			}
			d.act(t, noon, func(tx *Tx) error { return tx.SetMeta("value", "new") })
			second, err := v.Meta("value")
			if err == nil && (first != "old" || second != "old") {
				t.Errorf("one Read saw %q and then %q, want old twice", first, second)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
		err = d.Read(t.Context(), func(v *View) error { return v.exec("writing", `insert into meta (name, value) values ('a', 'b')`) })
		if err == nil {
			t.Error("a View wrote")
		}
	})
}

//
func TestClockGoesBack(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		nothing := func(*Tx) error { return nil }
		d.act(t, noon, nothing)
		for _, test := range []struct {
			back time.Duration
			ok   bool
		}{
			{time.Second, true},
			{60 * time.Second, true},
			{60*time.Second + time.Microsecond, false},
			{time.Hour, false},
			{59 * time.Second, true}, // an earlier act does not move the latest instant
			{-time.Hour, true},
			{0, false},
		} {
			ran := false
			err := d.Write(t.Context(), noon.Add(-test.back), func(*Tx) error { ran = true; return nil })
			if test.ok != (err == nil) || ran != test.ok {
				t.Errorf("an act %s back: ran %v, %v; want ran %v", test.back, ran, err, test.ok)
			}
			if !test.ok {
				refused(t, "an act in the past", err, serval.Unavailable)
			}
		}
		// On every replica, and also where what moved it was refused.
		for _, s := range d.replicas(t) {
			refused(t, "an act in the past", s.Write(t.Context(), noon, nothing), serval.Unavailable)
		}
	})
}

func TestNowIsWholeMicroseconds(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		now := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.FixedZone("", 3600))
		d.act(t, now, func(tx *Tx) error {
			if want := time.Date(2026, 3, 1, 11, 0, 0, 123456000, time.UTC); tx.Now != want {
				t.Errorf("Now is %v, want %v", tx.Now, want)
			}
			return nil
		})
	})
}

func TestWriteAgain(t *testing.T) {
	d := opened(t, pgtest.URLOf(t, migrate))
	for _, code := range []string{"40001", "40P01"} {
		for _, failures := range []int{1, 4, 5} {
			runs := 0
			err := d.Write(t.Context(), noon, func(tx *Tx) error {
				if err := tx.Append(serval.Event{Action: serval.PolicyDeclare}); err != nil {
					return err
				}
				if runs++; runs <= failures {
					return tx.exec("failing", `do $$ begin raise exception using errcode = '`+code+`'; end $$`)
				}
				return nil
			})
			if want := min(failures+1, 5); runs != want {
				t.Errorf("%d failures with %s: f ran %d times, want %d", failures, code, runs, want)
			}
			if (err == nil) != (failures < 5) {
				t.Errorf("%d failures with %s: %v", failures, code, err)
			}
		}
	}
	if head := look(t, d, (*View).ChainHead); head.Seq != 4 {
		t.Errorf("%d events of four acts that were repeated", head.Seq)
	}

	var runs int
	err := d.Write(t.Context(), noon, func(tx *Tx) error {
		runs++
		return tx.exec("failing", `select 1 / 0`)
	})
	if err == nil || runs != 1 {
		t.Errorf("another fault: f ran %d times, %v; want once", runs, err)
	}
}

// TestDeadlock: two transactions wait for each other; the Write is told to give
// way, and comes back.
func TestDeadlock(t *testing.T) {
	d := opened(t, pgtest.URLOf(t, migrate))
	d.act(t, noon, func(tx *Tx) error { return tx.SetMeta("value", "old") })
	other, err := d.db.BeginWrite(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Rollback()
	for _, s := range []string{`set local deadlock_timeout = '1min'`, `update meta set value = 'other' where name = 'value'`} {
		if _, err := other.ExecContext(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	var runs atomic.Int32
	err = d.Write(t.Context(), noon, func(tx *Tx) error {
		if runs.Add(1) == 1 {
			wg.Go(func() {
				if _, err := other.ExecContext(t.Context(), `update chain set at = at`); err != nil {
					t.Errorf("the other transaction: %v", err)
				}
				if err := other.Commit(); err != nil {
					t.Errorf("the other transaction: %v", err)
				}
			})
			// PostgreSQL looks for a deadlock once in each wait: the Write's has to be
			// the one that closes the ring.
			for d.number(t, `select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`) == 0 {
				time.Sleep(10 * time.Millisecond)
			}
		}
		return tx.SetMeta("value", "new")
	})
	wg.Wait()
	if err != nil || runs.Load() < 2 { // more where the other has not woken up when the Write comes back
		t.Errorf("Write: %v after %d runs, want success after 2", err, runs.Load())
	}
	if got := look(t, d, func(v *View) (string, error) { return v.Meta("value") }); got != "new" {
		t.Errorf("the value is %q, want new", got)
	}
}

func TestAtMostOneActiveAllocation(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		stores := d.replicas(t)
		for _, writers := range []int{2, 20} {
			r := newRequest(t, d, fmt.Sprint("r", writers))
			var wins, losses atomic.Int32
			var wg sync.WaitGroup
			for i := range writers {
				wg.Go(func() {
					err := stores[i%len(stores)].Write(t.Context(), noon, func(tx *Tx) error {
						r, err := tx.Request(r.ID)
						if err != nil {
							return err
						}
						if r.Active() != nil {
							return serval.Refuse(serval.Conflict, "too late")
						}
						r.Allocations = append(r.Allocations, serval.Allocation{Minutes: 10, State: serval.Active, AskedAt: tx.Now})
						return errors.Join(tx.SaveRequest(r), tx.Append(serval.Event{Action: serval.RequestApprove, Target: r.ID}))
					})
					switch {
					case err == nil:
						wins.Add(1)
					case serval.IsRefusal(err, serval.Conflict):
						losses.Add(1)
					default:
						t.Errorf("a writer among %d: %v", writers, err)
					}
				})
			}
			wg.Wait()
			if wins.Load() != 1 || int(losses.Load()) != writers-1 {
				t.Errorf("of %d writers %d won and %d lost, want 1 and %d", writers, wins.Load(), losses.Load(), writers-1)
			}
		}
		if _, err := verify(t, d, Head{}); err != nil {
			t.Error(err)
		}

		// The database holds it too.
		newRequest(t, d, "raw")
		insert := func(number int, state string) error {
			_, err := d.db.ExecContext(t.Context(), `insert into allocation (request_id, number, minutes, state, justification, asked_at,
				decided_by, decided_at, superseded_at, reason, break_glass, steps) values ('raw', $1, 5, $2, '', 1, '', 0, 0, '', 0, '[]')`, number, state)
			return err
		}
		var kept atomic.Int32
		var wg sync.WaitGroup
		for n := range 10 {
			wg.Go(func() {
				if insert(10+n, "active") == nil {
					kept.Add(1)
				}
			})
		}
		wg.Wait()
		if kept.Load() != 1 {
			t.Errorf("%d active allocations were kept, want 1", kept.Load())
		}
		if insert(30, "pending") == nil {
			t.Error("a second pending allocation was kept")
		}
		if err := insert(31, "denied"); err != nil {
			t.Errorf("a denied one beside: %v", err)
		}
	})
}

func TestPing(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		if err := d.Ping(t.Context()); err != nil {
			t.Error(err)
		}
		if !d.isSQLite() {
			// connections that are cut are replaced.
			_, err := d.db.ExecContext(t.Context(), `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()`)
			if e, ok := errors.AsType[*pgconn.PgError](err); err != nil && (!ok || e.Code != "57P01") {
				t.Logf("cutting connections: %v", err)
			}
			if err := d.Ping(t.Context()); err != nil {
				t.Errorf("after the connections were cut: %v", err)
			}
		}
		d.Close()
		if err := d.Ping(t.Context()); err == nil {
			t.Error("a closed database answers")
		}
	})
}

// What was read around a statement that failed is no answer, whatever the reader
// makes of it.
func TestReadingAroundAFailureFails(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		err := d.Read(t.Context(), func(v *View) error {
			_ = v.scan(`select nothing from nowhere`, nil, new(string))
			return nil
		})
		if err == nil {
			t.Error("read, want an error")
		}
		if err := d.Read(t.Context(), func(v *View) error { _, err := v.Person("nobody"); _ = err; return nil }); err != nil {
			t.Errorf("what is not there: %v; want that to be no failure", err)
		}
	})
}
