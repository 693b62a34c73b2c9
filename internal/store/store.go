// Package store is what the control plane remembers: accounts, roles, people,
// requests, sessions and the audit chain, and its schema: one SQL text, run in
// whichever database it is given.
//
// A View reads and a Tx writes; each belongs to one transaction. A Tx takes the
// row of the audit chain first, so that writers go one after the other and each
// decides on what the one before has left; or it goes on from an end of the chain that
// is known, and comes to nothing where that is not the end any more. An invariant that
// matters is a constraint or a unique index besides. A change and the event that tells
// of it are in one Tx, or neither is.
//
// The package decides nothing about who may do what. Its only caller is the
// control room.
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/database"
	"github.com/serval-bridge/serval-bridge/internal/lobby"
	"github.com/serval-bridge/serval-bridge/internal/memory"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A Config says which database to open.
type Config struct {
	// URL is sqlite:///absolute/path/to/file or postgres://….
	URL serval.Secret
	// Chain makes and checks the links of the audit log.
	Chain serval.Chain
	// ReadOnly opens the database beside a serving process: nothing is locked
	// and nothing can be written.
	ReadOnly bool
	// Recorded, where it is set, hears of every event that was kept, after it was.
	// It must not block.
	Recorded func(serval.Event)
}

// A Store is an open database. It is safe for concurrent use.
type Store struct {
	db     *database.DB
	chain  atomic.Pointer[serval.Chain]
	told   func(serval.Event)
	head   atomic.Pointer[Head]
	known  atomic.Pointer[end] // of the chain; nil while it is being moved, and where nobody knows whether it was
	others atomic.Int64        // the latest instant at which another process was seen to have moved the chain
	full   atomic.Bool         // the last Write found no space
	memory memory.Memory

	lobby      lobby.Lobby       // who is on the way to sign in, of SQLite
	departures *lobby.Departures // and those who leave, of PostgreSQL

	mu      sync.Mutex
	pushing map[string]bool // accounts that a push is being staged of
}

// A Head is the last row of the audit chain.
type Head struct {
	Seq  int64
	Hash string
}

// An end is that of the chain: its head, and the latest instant that was seen.
type end struct {
	Head
	at int64
}

// maxBackward is by how much an act may lie before the latest that was seen.
const maxBackward = 60 * time.Second

// ClockWentBack is the cause, in the detail, of a Write that is refused because
// its instant lies before one that was seen.
const ClockWentBack = "clock_went_back"

// DiskFull is that cause where there is no space. Reading goes on.
const DiskFull = "disk_full"

// Open opens the database. Unless it is opened read-only, a SQLite file that
// another process serves is refused. Call Migrate before anything else, and
// Close in the end.
func Open(ctx context.Context, c Config) (*Store, error) {
	db, err := database.Open(ctx, c.URL, c.ReadOnly)
	if err != nil {
		return nil, err
	}
	s := &Store{db: db, told: c.Recorded, departures: lobby.Depart()}
	s.chain.Store(&c.Chain)
	s.memory.Aside = aside
	s.memory.Switch(db.Alone() && !c.ReadOnly)
	return s, nil
}

// Rekey has the links of the audit log be made under another root secret from now
// on. Those that were made under an older one can be checked as long as it is given
// here.
func (s *Store) Rekey(root serval.Secret, older ...serval.Secret) {
	chain := serval.NewChain(root, older...)
	s.chain.Store(&chain)
}

// Rotate has connections be made by the user and the password of another address
// from now on, once they have been seen to work; an address that differs in more
// is refused, and so is every one of SQLite.
func (s *Store) Rotate(ctx context.Context, u serval.Secret) error { return s.db.Rotate(ctx, u) }

// Close closes the database and lets another process serve it. Nothing else may be
// called any more.
func (s *Store) Close() error {
	s.memory.Switch(false)
	return errors.Join(s.closeLobby(), s.db.Close())
}

//go:embed migrations
var embedded embed.FS

// migrations are the schema, step by step.
func migrations() (fs.FS, error) { return fs.Sub(embedded, "migrations") }

// Migrate brings the database to this version's schema. Several replicas may start
// at once.
func (s *Store) Migrate(ctx context.Context) error {
	files, err := migrations()
	if err != nil {
		return err
	}
	return s.db.Migrate(ctx, files)
}

// Pending reports whether the database still has to be migrated.
func (s *Store) Pending(ctx context.Context) (bool, error) {
	files, err := migrations()
	if err != nil {
		return false, err
	}
	return s.db.Pending(ctx, files)
}

// Ping returns an error if the database does not answer.
func (s *Store) Ping(ctx context.Context) error {
	var seq int64
	if err := s.db.QueryRowContext(ctx, `select seq from chain where id = 1`).Scan(&seq); err != nil {
		return fmt.Errorf("asking the database: %w", err)
	}
	return nil
}

// Head returns the last row of the chain that this process wrote; ok is false
// before the first.
func (s *Store) Head() (h Head, ok bool) {
	if h := s.head.Load(); h != nil {
		return *h, true
	}
	return Head{}, false
}

// A View reads, in one transaction.
type View struct {
	ctx    context.Context
	q      querier
	chain  serval.Chain
	broken error // the first statement that failed; none is run after it
	taken  *Head // the end of the chain, where this transaction has taken it

	snapshot *snapshot // nil where nothing is remembered
}

type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (database.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) database.Row
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// A Tx reads and writes, in one transaction, at one instant.
type Tx struct {
	View
	Now      time.Time
	head     Head
	decided  *Head // see DecidedAt
	held     bool  // nobody waits for what it does before it is committed
	appended []serval.Event
	tx       *database.Tx
}

// Read runs f on a consistent view. What is remembered of it was so when f
// began, or later. After a statement of it has failed that is an error, whatever f
// returns: under PostgreSQL it may be the first that finds the database away.
func (s *Store) Read(ctx context.Context, f func(*View) error) error {
	if err := ctx.Err(); err != nil {
		return err // memory would answer, and nobody waits for it
	}
	d := &snapshot{memory: &s.memory, known: &s.known, db: s.db, begun: ctx}
	defer d.end()
	v := &View{ctx: ctx, q: d, chain: *s.chain.Load(), snapshot: d}
	err := f(v)
	if d.failed != nil {
		return d.failed
	}
	if err == nil {
		err = v.broken
	}
	return err
}

// Write runs f in one transaction at now, in whole microseconds: all of it is
// kept, or none. It is repeated, at most five times in all, where the database
// asks for that, so f must do nothing besides. A refusal or fault of f undoes it
// and is returned as it is. After a statement of it has failed nothing can be
// kept any more, whatever f returns. Where ctx ends or the database goes away while the
// transaction is being committed, only reading tells whether it was.
//
// The store remembers the latest instant it saw. An act that lies more than a
// minute before it is refused: a clock that was set back would lengthen
// approved time.
//
// Expect is called once there is a connection, each time before f. It may say what f is
// going to read (see ExpectOpening), or what it was decided on (see DecidedAt), and asks
// the database nothing.
func (s *Store) Write(ctx context.Context, now time.Time, f func(*Tx) error, expect ...func(*Tx)) error {
	now = now.UTC().Truncate(time.Microsecond)
	taking := false
	return s.noteFull(s.db.Again(ctx, func() error {
		err := s.writeOnce(ctx, now, f, expect, taking)
		if errors.Is(err, errMoved) {
			taking = true
			err = s.writeOnce(ctx, now, f, expect, taking)
		}
		return err
	}))
}

// errMoved is why a transaction that did not take the chain first came to nothing.
var errMoved = errors.New("the chain was moved meanwhile")

// noteFull notes whether a write found no space, and makes a refusal of that.
func (s *Store) noteFull(err error) error {
	full := s.db.IsFull(err)
	s.full.Store(full || err != nil && s.full.Load()) // another fault says nothing of it
	if full {
		return fmt.Errorf("%w (%w)", &serval.Refusal{Kind: serval.Unavailable, Detail: map[string]string{"cause": DiskFull, "retry_after": "60"},
			Reason: "Serval's disk is full: what cannot be recorded is not done. Tell whoever runs Serval; it goes on once there is space."}, err)
	}
	return err
}

// Full reports whether the disk is full. Where a Write was refused for that it
// tries another, which changes nothing, as of now.
func (s *Store) Full(ctx context.Context, now time.Time) bool {
	if s.full.Load() {
		_ = s.Write(ctx, now, func(*Tx) error { return nil }) // it notes what came of it
	}
	return s.full.Load()
}

// A writer takes the row of the chain first and moves it in the end. Where it knows
// where the chain ends it does both at once: one that ends elsewhere by then, or has
// seen a later instant than it may, gets no number, and that undoes the transaction.
const (
	takeChain = `update chain set at = case when at < $1 then $1 else at end where id = 1 returning seq, hash, at`
	moveTaken = `update chain set seq = $1, hash = $2 where id = 1`
	moveChain = `update chain set seq = case when seq = $1 and hash = $2 and at <= $3 then cast($4 as bigint) end,
		hash = $5, at = case when at < $6 then $6 else at end where id = 1`
)

// writeOnce is one try of Write. Unless it takes the chain first it may end with
// errMoved, and nothing is kept.
func (s *Store) writeOnce(ctx context.Context, now time.Time, f func(*Tx) error, expect []func(*Tx), taking bool) error {
	tx, err := s.db.BeginWrite(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	t := &Tx{View: View{ctx: ctx, q: tx, chain: *s.chain.Load()}, Now: now, tx: tx}
	t.taken = &t.head
	tx.Ahead(takeChain, micros(now)) // what is expected is read behind it
	for _, tell := range expect {
		tell(t)
	}
	last := s.end(t)
	if taking = taking || last == nil; taking {
		last = new(end)
		if err := tx.QueryRowContext(ctx, takeChain, micros(now)).Scan(&last.Seq, &last.Hash, &last.at); err != nil {
			return fmt.Errorf("taking the chain: %w", err)
		}
		if left := s.known.Load(); left != nil && left.Head != last.Head {
			s.others.Store(micros(now))
		}
	} else {
		t.held = tx.Hold()
	}
	if back := instant(last.at).Sub(now); back > maxBackward {
		return &serval.Refusal{Kind: serval.Unavailable, Detail: map[string]string{"cause": ClockWentBack}, Reason: fmt.Sprintf(
			"The clock of this server went back by %s; nothing is changed until it is right again.", back.Round(time.Second))}
	}
	t.head = last.Head
	if err = f(t); err == nil {
		err = t.broken
	}
	switch {
	case err != nil && t.held: // an answer was wanted; or that there is none was decided by what may not be so any more
		return errMoved
	case err != nil:
		return err
	case !taking:
		s.known.Store(nil)
		err = tx.Sooner(ctx, "moving the chain", moveChain, last.Seq, last.Hash, micros(now.Add(maxBackward)), t.head.Seq, t.head.Hash, micros(now))
	case t.head != last.Head:
		s.known.Store(nil)
		err = tx.Later(ctx, "moving the chain", moveTaken, t.head.Seq, t.head.Hash)
	}
	if err == nil {
		err = tx.Commit()
		s.memory.Written(tx.Changed()...) // also where it cannot be told whether it was
	}
	if !taking && s.db.IsUnset(err) {
		s.others.Store(micros(now))
		return errMoved
	}
	if err != nil {
		return fmt.Errorf("committing: %w", err)
	}
	if t.head != last.Head {
		s.head.Store(&t.head)
	}
	s.known.Store(&end{t.head, max(last.at, micros(now))})
	if s.told != nil {
		for _, e := range t.appended {
			s.told(e)
		}
	}
	return nil
}

// othersCount is for how long another process that has moved the chain is expected to do
// so again: to be wrong about where it ends costs more than to ask.
const othersCount = 10 * time.Second

// end returns where the chain ends, as far as t may begin there without asking: this
// process alone writes, or what t does was decided by that end, and nobody else was seen
// to write of late. It is nil otherwise.
func (s *Store) end(t *Tx) *end {
	last := s.known.Load()
	if last == nil || !s.db.Alone() && (t.decided == nil || *t.decided != last.Head || t.Now.Sub(instant(s.others.Load())) < othersCount) {
		return nil
	}
	return last
}

// DecidedAt says that what is about to be done was decided when h was the last row of
// the audit log: where that is still so, as far as this process knows, and nothing is
// read for it, it goes to the database at once.
func (t *Tx) DecidedAt(h Head) { t.decided = &h }

// aside runs f in a transaction of its own, which does not take the chain. What
// says, for an error, what was being done.
func (s *Store) aside(ctx context.Context, what string, f func(*View) error) error {
	return s.db.Again(ctx, func() error {
		tx, err := s.db.BeginWrite(ctx)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if err := f(&View{ctx: ctx, q: tx, chain: *s.chain.Load()}); err != nil {
			return err
		}
		if err := tx.Commit(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	})
}

// Meta returns what is kept under name; empty where nothing is.
func (v *View) Meta(name string) (string, error) {
	return remember(v, source{"meta", []string{"meta"}}, name, func() (value string, err error) {
		err = v.scan(metaByName, []any{name}, &value)
		if errors.Is(err, sql.ErrNoRows) {
			return "", nil
		}
		if err != nil {
			return "", fmt.Errorf("reading meta %s: %w", name, err)
		}
		return value, nil
	})
}

// SetMeta keeps value under name.
func (t *Tx) SetMeta(name, value string) error {
	return t.exec("keeping meta "+name, `insert into meta (name, value) values ($1, $2)
		on conflict (name) do update set value = excluded.value`, name, value)
}

// exec runs a statement; what says, for an error, what was being done. A text
// that cannot be kept is refused.
func (v *View) exec(what, query string, args ...any) error {
	_, err := v.execCount(what, query, args...)
	return err
}

// later is exec for a statement that nobody asks whether it changed anything: where it
// fails, the next one does, or the end of the transaction.
func (v *View) later(what, query string, args ...any) error {
	tx, writes := v.q.(*database.Tx)
	if !writes || v.broken != nil || !database.Storable(args) {
		return v.exec(what, query, args...) // which says why not
	}
	return v.breaks(tx.Later(v.ctx, what, query, args...))
}

// execCount is exec, and returns how many rows the statement changed.
func (v *View) execCount(what, query string, args ...any) (int64, error) {
	if !database.Storable(args) {
		return 0, serval.Refuse(serval.Invalid, "A text holds a character that cannot be kept: NUL, or bytes that are not UTF-8.")
	}
	if v.broken != nil {
		return 0, v.broken
	}
	result, err := v.q.ExecContext(v.ctx, query, args...)
	if err != nil {
		return 0, v.breaks(fmt.Errorf("%s: %w", what, err))
	}
	n, err := result.RowsAffected()
	if err != nil {
		return 0, fmt.Errorf("%s: %w", what, err)
	}
	return n, nil
}

// breaks notes that a statement failed, and returns err. PostgreSQL runs no
// further statement of the transaction then. SQLite, when the disk is full, has
// already rolled it back, and would keep each further statement by itself: an
// event without its change, or a change without its event.
func (v *View) breaks(err error) error {
	if err != nil && v.broken == nil && !errors.Is(err, sql.ErrNoRows) {
		v.broken = err
	}
	return err
}

// scanner is a row, of one or of many.
type scanner interface{ Scan(dest ...any) error }

// scan reads the one row of a query into dest; sql.ErrNoRows where there is
// none.
func (v *View) scan(query string, args []any, dest ...any) error {
	if v.broken != nil {
		return v.broken
	}
	if !database.Storable(args) {
		return sql.ErrNoRows // no row holds it
	}
	return v.breaks(v.q.QueryRowContext(v.ctx, query, args...).Scan(dest...))
}

// one returns what scan makes of the one row of a query. Where there is no row
// it refuses with the sentence missing; so it does for a text that no row can
// hold.
func one[T any](v *View, missing string, scan func(scanner) (T, error), query string, args ...any) (T, error) {
	var zero T
	refusal := serval.Refuse(serval.NotFound, "%s", missing)
	switch {
	case v.broken != nil:
		return zero, v.broken
	case !database.Storable(args):
		return zero, refusal
	}
	value, err := scan(v.q.QueryRowContext(v.ctx, query, args...))
	if errors.Is(err, sql.ErrNoRows) {
		return zero, refusal
	}
	return value, v.breaks(err)
}

// all returns what scan makes of each row of a query.
func all[T any](v *View, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	switch {
	case v.broken != nil:
		return nil, v.broken
	case !database.Storable(args):
		return nil, nil // no row holds it
	}
	rows, err := v.q.QueryContext(v.ctx, query, args...)
	if err != nil {
		return nil, v.breaks(err)
	}
	defer rows.Close()
	var values []T
	for rows.Next() {
		value, err := scan(rows)
		if err != nil {
			return nil, v.breaks(err)
		}
		values = append(values, value)
	}
	return values, v.breaks(rows.Err())
}

// micros and instant convert between an instant and what the database keeps.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func instant(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// flag is how a yes or no is kept.
func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
