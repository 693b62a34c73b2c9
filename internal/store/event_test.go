package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/database"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func verify(t *testing.T, d place, published Head) (head Head, err error) {
	t.Helper()
	err = d.Read(t.Context(), func(v *View) (err error) {
		head, err = v.VerifyChain(published)
		return err
	})
	return head, err
}

// R-44, S-77
func TestAppendAtOnce(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		stores := d.replicas(t)
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				err := stores[i%len(stores)].Write(t.Context(), noon, func(tx *Tx) error {
					return tx.Append(serval.Event{Action: serval.LoginCreate, Actor: fmt.Sprint("person ", i)})
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		var want int64
		actors := make(map[string]bool)
		err := d.Read(t.Context(), func(v *View) error {
			return v.EachEvent(0, func(l serval.Link) error {
				if want++; l.Seq != want {
					t.Errorf("row %d follows row %d", l.Seq, want-1)
				}
				actors[l.Actor] = true
				return nil
			})
		})
		if err != nil || want != 50 || len(actors) != 50 {
			t.Errorf("%d rows of %d actors (%v), want 50", want, len(actors), err)
		}
		if head, err := verify(t, d, Head{}); err != nil || head.Seq != 50 {
			t.Errorf("VerifyChain: %v, %v; want 50 rows", head, err)
		}
	})
}

// S-77
func TestEventsAreAppendOnly(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		d.act(t, noon, func(tx *Tx) error {
			return errors.Join(tx.Append(serval.Event{Action: serval.LoginCreate}), tx.Append(serval.Event{Action: serval.LoginEnd}))
		})
		copied := ` into event (` + eventColumns + `) select ` + eventColumns + ` from event where seq = 1`
		statements := []string{
			`update event set reason = 'x'`,
			`update event set reason = 'x' where seq = 2`,
			`delete from event`,
			`delete from event where seq = 2`,
			`insert` + copied,
		}
		if d.isSQLite() {
			statements = append(statements, `replace`+copied, `insert or replace`+copied, `update or replace event set seq = 1 where seq = 2`,
				`insert`+copied+` on conflict (seq) do update set reason = 'x'`)
		} else {
			statements = append(statements, `truncate event`, `truncate event cascade`,
				`insert`+copied+` on conflict (seq) do update set reason = 'x'`)
		}
		for _, s := range statements {
			if _, err := d.db.ExecContext(t.Context(), s); err == nil {
				t.Errorf("%s: went through", s)
			}
		}
		if head, err := verify(t, d, Head{}); err != nil || head.Seq != 2 {
			t.Errorf("VerifyChain: %v, %v; want 2 rows", head, err)
		}
	})
}

// S-77
func TestVerifyChain(t *testing.T) {
	change := func(column, value string) []string {
		return []string{`update event set ` + column + ` = ` + value + ` where seq = 3`}
	}
	copyOf := func(from, to int) string {
		return fmt.Sprintf(`insert into event (seq, at, actor_kind, actor_id, actor, action, target, outcome, reason, request_id, address, detail, key_id, hash)
			select %d, at, actor_kind, actor_id, actor, action, target, outcome, reason, request_id, address, detail, key_id, hash from event where seq = %d`, to, from)
	}
	move := func(from, to int) string { return fmt.Sprintf(`update event set seq = %d where seq = %d`, to, from) }
	cut := []string{`delete from event where seq > 3`}
	tests := map[string]struct {
		statements []string
		published  int64 // the row whose hash was published; 0 for none
		want       int64 // the row that is named; 0 for a chain that holds
	}{
		"nothing":                             {nil, 0, 0},
		"nothing, with a head":                {nil, 5, 0},
		"nothing, with an older head":         {nil, 2, 0},
		"a row removed":                       {[]string{`delete from event where seq = 3`}, 0, 3},
		"the first row removed":               {[]string{`delete from event where seq = 1`}, 0, 1},
		"a row inserted":                      {[]string{move(5, 6), move(4, 5), copyOf(3, 4)}, 0, 4},
		"a row appended":                      {[]string{copyOf(5, 6)}, 0, 6},
		"a row appended, and the head":        {[]string{copyOf(5, 6), `update chain set seq = 6`}, 0, 6},
		"two rows swapped":                    {[]string{move(3, 9), move(4, 3), move(9, 4)}, 0, 3},
		"the tail cut":                        {cut, 0, 4},
		"the tail cut, and a head":            {cut, 5, 4},
		"the tail cut, and the chain's head":  {append(cut, `update chain set seq = 3, hash = (select hash from event where seq = 3)`), 0, 0},
		"the same, with a published head":     {append(cut, `update chain set seq = 3, hash = (select hash from event where seq = 3)`), 5, 4},
		"all rows gone":                       {[]string{`delete from event`}, 0, 1},
		"the chain's head changed":            {[]string{`update chain set hash = 'x'`}, 0, 5},
		"the chain's head set back":           {[]string{`update chain set seq = 3, hash = (select hash from event where seq = 3)`}, 0, 5},
		"another row published":               {nil, -3, 3},
		"an unreadable detail":                {change("detail", `'{'`), 0, 3},
		"another detail":                      {change("detail", `'{"minutes":"600"}'`), 0, 3},
		"no detail":                           {change("detail", `'null'`), 0, 3},
		"another time":                        {change("at", `at + 1`), 0, 3},
		"another key":                         {change("key_id", `'00000000'`), 0, 3},
		"another hash":                        {change("hash", `(select hash from event where seq = 2)`), 0, 3},
		"a number below one":                  {[]string{move(1, 0)}, 0, 1},
		"a space more":                        {change("actor", `actor || ' '`), 0, 3},
		"a column that takes from its nearby": {change("target", `'', reason = target || reason`), 0, 3},
	}
	for _, column := range []string{"actor_kind", "actor_id", "actor", "action", "target", "outcome", "reason", "request_id", "address"} {
		tests[column+" changed"] = struct {
			statements      []string
			published, want int64
		}{change(column, `'changed'`), 0, 3}
	}
	each(t, func(t *testing.T, d place) {
		if d.isSQLite() {
			d.raw(t, `drop trigger event_no_update`, `drop trigger event_no_delete`, `drop trigger event_no_replace`)
		} else {
			d.raw(t, `drop trigger event_no_change on event`)
		}
		var heads []Head
		for i := range 5 {
			d.act(t, noon.Add(time.Duration(i)*time.Second), func(tx *Tx) error {
				return tx.Append(serval.Event{
					ActorKind: serval.KindPerson, ActorID: "p1", Actor: "kim@example.com", Action: serval.RequestApprove, Target: fmt.Sprint("r", i),
					Outcome: serval.OutcomeDone, Reason: "because", RequestID: "q", Address: "192.0.2.1", Detail: map[string]string{"minutes": "60"},
				})
			})
			h, _ := d.Head()
			heads = append(heads, h)
		}
		d.raw(t, `create table kept as select * from event`)
		for name, test := range tests {
			t.Run(name, func(t *testing.T) {
				d.raw(t, `delete from event`, `insert into event select * from kept`)
				d.raw(t, `update chain set seq = 5, hash = (select hash from event where seq = 5)`)
				d.raw(t, test.statements...)
				var published Head
				switch {
				case test.published > 0:
					published = heads[test.published-1]
				case test.published < 0:
					published = Head{-test.published, "another"}
				}
				_, err := verify(t, d, published)
				if test.want == 0 {
					if err != nil {
						t.Errorf("a chain that holds: %v", err)
					}
					return
				}
				broken, ok := errors.AsType[*BrokenChain](err)
				if !ok || broken.Seq != test.want || !strings.Contains(err.Error(), fmt.Sprintf("row %d ", test.want)) {
					t.Errorf("got %+v (%v), want row %d", broken, err, test.want)
				}
			})
		}
	})
}

func TestVerifyChainWithOlderSecret(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		d.act(t, noon, func(tx *Tx) error { return tx.Append(serval.Event{Action: serval.LoginCreate}) })
		old, young := serval.NewSecret("a root secret of a test"), serval.NewSecret("the next one")
		d.Rekey(young, old)
		d.act(t, noon, func(tx *Tx) error { return tx.Append(serval.Event{Action: serval.LoginEnd}) })
		if _, err := verify(t, d, Head{}); err != nil {
			t.Errorf("with both secrets: %v", err)
		}
		d.Rekey(young)
		if _, err := verify(t, d, Head{}); err == nil {
			t.Error("verified without the older secret")
		}
	})
}

// S-19
func TestEventsKeepHostileText(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		var want []serval.Event
		d.act(t, noon, func(tx *Tx) error {
			for i, text := range append(hostile, unkept...) {
				e := serval.Event{
					ActorKind: serval.KindPerson, ActorID: text, Actor: text, Action: serval.RequestCreate, Target: text, Outcome: serval.OutcomeRefused,
					Reason: text, RequestID: text, Address: text, Detail: map[string]string{text: text},
				}
				if err := tx.Append(e); err != nil {
					return fmt.Errorf("text %d: %w", i, err)
				}
				kept := strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
				e.ActorID, e.Actor, e.Target, e.Reason, e.RequestID, e.Address = kept, kept, kept, kept, kept, kept
				e.Detail = map[string]string{kept: kept}
				e.Seq, e.At = int64(i+1), noon
				want = append(want, e)
			}
			return nil
		})
		var got []serval.Event
		err := d.Read(t.Context(), func(v *View) error {
			return v.EachEvent(0, func(l serval.Link) error {
				got = append(got, l.Event)
				return nil
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		if _, err := verify(t, d, Head{}); err != nil {
			t.Error(err)
		}
		for _, text := range hostile {
			events := look(t, d, func(v *View) ([]serval.Link, error) {
				rows, _, err := v.Events(EventFilter{Target: text, ActorID: text, Limit: 9})
				return rows, err
			})
			if len(events) != 1 {
				t.Errorf("%d events with the target %.20q, want 1", len(events), text)
			}
		}
		for _, text := range unkept {
			events := look(t, d, func(v *View) ([]serval.Link, error) {
				rows, _, err := v.Events(EventFilter{Target: text, Limit: 9})
				return rows, err
			})
			if len(events) != 0 {
				t.Errorf("%d events with the target %q, which no row can hold", len(events), text)
			}
		}
	})
}

func page(t *testing.T, d place, f EventFilter) (rows []serval.Link, next int64) {
	t.Helper()
	err := d.Read(t.Context(), func(v *View) (err error) {
		rows, next, err = v.Events(f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows, next
}

func numbers(rows []serval.Link) string {
	var list []string
	for _, l := range rows {
		list = append(list, fmt.Sprint(l.Seq))
	}
	return strings.Join(list, " ")
}

// what is looked through for one page is bounded, also where nothing is
// found; the pages that follow find what there is.
func TestEventsOfALongLog(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		d.raw(t, fmt.Sprintf(`insert into event (`+eventColumns+`)
			with recursive n (i) as (select 1 union all select i + 1 from n where i < %d)
			select i, 0, '', '', '', 'request.create', '', case when i = 4 then 'failed' else 'done' end, '', '', '', '{}', '', '' from n`,
			2*eventsLookedThrough+500))
		f := EventFilter{Action: serval.RequestCreate, Outcome: serval.OutcomeFailed, Limit: 100}
		if rows, next := page(t, d, EventFilter{Outcome: serval.OutcomeFailed, Limit: 100}); len(rows) != 1 || next != 0 {
			t.Errorf("by the outcome alone %d rows and then %d, want one and no more", len(rows), next)
		}
		// Of the two, the action chooses.
		for _, want := range []struct {
			rows int
			next int64
		}{{0, eventsLookedThrough + 501}, {0, 501}, {1, 0}} {
			rows, next := page(t, d, f)
			if len(rows) != want.rows || next != want.next {
				t.Errorf("before row %d: %d rows, next %d; want %d and %d", f.Before, len(rows), next, want.rows, want.next)
			}
			f.Before = next
		}
	})
}

func TestEvents(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		for i := range 12 {
			e := serval.Event{
				ActorID: fmt.Sprint("p", i%2), Actor: fmt.Sprint("n", i%2), Target: fmt.Sprint("r", i%3), Action: serval.RequestCreate,
				Outcome: serval.OutcomeDone,
			}
			if i%4 == 0 {
				e.Action = serval.RequestDeny
			}
			if i > 9 {
				e.Outcome = serval.OutcomeRefused
			}
			at := noon.Add(time.Duration(i) * time.Hour)
			if i == 6 {
				at = noon.Add(5*time.Hour - maxBackward) // by a clock that is behind
			}
			d.act(t, at, func(tx *Tx) error { return tx.Append(e) })
		}
		hour := func(n int) time.Time { return noon.Add(time.Duration(n) * time.Hour) }
		for _, test := range []struct {
			filter EventFilter
			want   string
		}{
			{EventFilter{Limit: 3}, "12 11 10"},
			{EventFilter{Before: 10, Limit: 3}, "9 8 7"},
			{EventFilter{Before: 1, Limit: 100}, ""},
			{EventFilter{Limit: 100}, "12 11 10 9 8 7 6 5 4 3 2 1"},
			{EventFilter{Target: "r0", Limit: 100}, "10 7 4 1"},
			{EventFilter{Target: "r0", Before: 7, Limit: 100}, "4 1"},
			{EventFilter{Target: "r", Limit: 100}, ""},
			{EventFilter{Target: "R0", Limit: 100}, ""},
			{EventFilter{ActorID: "p1", Limit: 2}, "12 10"},
			{EventFilter{Action: serval.RequestDeny, Limit: 100}, "9 5 1"},
			{EventFilter{Target: "r0", ActorID: "p0", Action: serval.RequestDeny, Limit: 100}, "1"},
			{EventFilter{ActorID: "p1", Action: serval.RequestDeny, Limit: 100}, ""},
			{EventFilter{Actor: "n1", Limit: 2}, "12 10"},
			{EventFilter{Actor: "p1", Limit: 100}, ""},
			{EventFilter{Outcome: serval.OutcomeRefused, Limit: 100}, "12 11"},
			{EventFilter{Outcome: serval.OutcomeRefused, Actor: "n1", Limit: 100}, "12"},
			{EventFilter{From: hour(9), Limit: 100}, "12 11 10"},
			{EventFilter{From: hour(9).Add(time.Microsecond), Limit: 100}, "12 11"},
			{EventFilter{To: hour(2), Limit: 100}, "2 1"},
			{EventFilter{From: hour(1), To: hour(4), Limit: 100}, "4 3 2"},
			{EventFilter{From: hour(5), To: hour(8), Limit: 100}, "8 6"},
			{EventFilter{From: hour(4), To: hour(5), Limit: 100}, "7 5"},
			{EventFilter{From: hour(12), Limit: 100}, ""},
			{EventFilter{From: noon.Add(-time.Hour), To: noon, Limit: 100}, ""},
			{EventFilter{From: noon.Add(-time.Hour), To: hour(100), Before: 3, Limit: 100}, "2 1"},
		} {
			rows, next := page(t, d, test.filter)
			if got := numbers(rows); got != test.want {
				t.Errorf("%+v: rows %s, want %s", test.filter, got, test.want)
			}
			if test.filter.Limit < 100 {
				if next != rows[len(rows)-1].Seq {
					t.Errorf("%+v: the next page is before row %d, want the last of this one", test.filter, next)
				}
				continue
			}
			f, all := test.filter, []serval.Link(nil)
			for f.Limit = 2; ; {
				rows, next := page(t, d, f)
				if all = append(all, rows...); next == 0 {
					break
				}
				f.Before = next
			}
			if got := numbers(all); next != 0 || got != test.want {
				t.Errorf("%+v, two at a time: rows %s, want %s; after a hundred comes a page before %d", test.filter, got, test.want, next)
			}
		}

		var rows []int64
		stop := errors.New("stop")
		err := d.Read(t.Context(), func(v *View) error {
			return v.EachEvent(5, func(l serval.Link) error {
				if rows = append(rows, l.Seq); l.Seq == 8 {
					return stop
				}
				return nil
			})
		})
		if diff := cmp.Diff([]int64{6, 7, 8}, rows); diff != "" || !errors.Is(err, stop) {
			t.Errorf("EachEvent after 5 until 8: %v (-want +got):\n%s", err, diff)
		}
	})
}

// S-75: what was read when a row was the last is still so where it is the last, and
// not where any other was kept, whoever wrote it.
func TestEndsWith(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		stores := d.replicas(t)
		ends := func(h Head) (same bool) {
			t.Helper()
			if err := d.Read(t.Context(), func(v *View) (err error) { same, err = v.EndsWith(h); return err }); err != nil {
				t.Fatal(err)
			}
			return same
		}
		if ends(Head{}) {
			t.Error("an empty log ends with no row, and something is known of it")
		}
		var last Head
		keep := func(s *Store, undo error) {
			t.Helper()
			err := s.Write(t.Context(), noon, func(tx *Tx) error {
				before := tx.Head()
				if err := tx.Append(serval.Event{Action: serval.LoginCreate}); err != nil {
					return err
				}
				last = tx.Head()
				was, _ := tx.EndsWith(before)
				is, err := tx.EndsWith(last)
				if was || !is {
					t.Errorf("in its own transaction: ends with the row before %t, with its own %t", was, is)
				}
				return errors.Join(err, undo)
			})
			if !errors.Is(err, undo) {
				t.Fatal(err)
			}
		}
		keep(d.Store, nil)
		first := last
		if !ends(first) || ends(Head{first.Seq, "another"}) {
			t.Errorf("ends with %+v: %t, with another of that number: %t", first, ends(first), ends(Head{first.Seq, "another"}))
		}
		keep(stores[len(stores)-1], errors.New("undone"))
		if !ends(first) {
			t.Error("a row that was undone is the last")
		}
		keep(stores[len(stores)-1], nil)
		if ends(first) || !ends(last) {
			t.Error("a row that another wrote is not seen")
		}
		// Where it cannot be told whether a row was kept, memory says nothing.
		ctx, cancel := context.WithCancel(t.Context())
		if err := d.Write(ctx, noon, func(tx *Tx) error { defer cancel(); return tx.Append(serval.Event{Action: serval.LoginCreate}) }); err == nil {
			t.Error("it was kept for nobody")
		}
		if d.db.Alone() && ends(last) {
			t.Error("the last row is known while nobody knows")
		}
		if keep(d.Store, nil); !ends(last) {
			t.Error("after the next one the last row is not known")
		}
	})
}

// What is changed without a row is named, where there has to be one.
func TestUntold(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		declare(t, d, prod)
		for _, test := range []struct {
			name string
			f    func(*Tx) error
			want string
		}{
			{"nothing", func(*Tx) error { return nil }, ""},
			{"a person", func(tx *Tx) error { return tx.SavePerson(kim) }, "person"},
			{"a person, and it is told", func(tx *Tx) error {
				return errors.Join(tx.SavePerson(kim), tx.Append(serval.Event{Action: serval.LoginCreate}))
			}, ""},
			{"a sync", func(tx *Tx) error { return tx.RequestSync(prod) }, ""},
		} {
			d.act(t, noon, func(tx *Tx) error {
				err := test.f(tx)
				if got := tx.Unrecorded(); got != test.want {
					t.Errorf("%s: untold is %q, want %q", test.name, got, test.want)
				}
				return err
			})
		}
	})
}

// appending returns what keeps an event and counts how often it ran.
func appending(runs *int) func(*Tx) error {
	return func(tx *Tx) error {
		*runs++
		return tx.Append(serval.Event{Action: serval.PolicyDeclare})
	}
}

// Who knows where the chain ends goes on from there; where that is not so, by another
// replica or by hand, what was done is undone and done behind what came first, and for a
// while the chain is taken.
func TestMovedChain(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		runs, now := 0, noon
		decided := func(what string, by Head, want int) {
			t.Helper()
			runs = 0
			if err := d.Write(t.Context(), now, appending(&runs), func(tx *Tx) { tx.DecidedAt(by) }); err != nil || runs != want {
				t.Errorf("%s: ran %d times, %v; want %d", what, runs, err, want)
			}
		}
		last := func() Head { h, _ := d.Head(); return h }
		decided("the first", Head{}, 1)
		decided("the next", last(), 1)
		decided("what an older end decided", Head{Seq: 1, Hash: "x"}, 1)
		if got := look(t, d, (*View).ChainHead); got != last() || got.Seq != 3 {
			t.Errorf("the chain ends at %v, and %v was told", got, last())
		}
		for _, s := range d.replicas(t)[1:] {
			for _, c := range []struct {
				asks bool // takes the chain in between, and so sees that another moved it
				want int
			}{{true, 1}, {false, 2}} {
				must(t, s.Write(t.Context(), now, appending(&runs)))
				if c.asks {
					must(t, d.Write(t.Context(), now, appending(&runs)))
					must(t, s.Write(t.Context(), now, appending(&runs)))
				}
				decided("another replica was first", last(), c.want)
				now = now.Add(othersCount - time.Microsecond)
				must(t, s.Write(t.Context(), now, appending(&runs)))
				decided("another replica was first again", last(), 1)
				now = now.Add(othersCount)
			}
		}
		before := last()
		// By hand: the row is there as another would have written it, and then it is not.
		hand := func(query string, args ...any) {
			t.Helper()
			if _, err := d.db.ExecContext(t.Context(), query, args...); err != nil {
				t.Fatal(err)
			}
		}
		hand(`update chain set hash = 'by hand' where id = 1`)
		decided("another hash", before, 2)
		if got := last(); got.Seq != before.Seq+1 {
			t.Errorf("the chain ends at %v", got)
		}
		if _, err := verify(t, d, Head{}); err == nil {
			t.Error("a chain whose head was changed by hand holds")
		}
	})
}

// What is wrong with what f does is told as it is, whether the chain was taken first or
// not; and nothing of it is kept.
func TestFailingBehindAKnownEnd(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		runs, now := 0, noon
		must(t, d.Write(t.Context(), now, appending(&runs)))
		last, _ := d.Head()
		for name, f := range map[string]func(*Tx) error{
			"a refusal":              func(*Tx) error { return serval.Refuse(serval.Conflict, "no") },
			"a value that is not":    func(tx *Tx) error { return tx.later("failing", `update meta set value = null`) },
			"what is there":          func(tx *Tx) error { return tx.later("failing", `insert into meta (name, value) values ('a', 'b')`) },
			"a failure that is read": func(tx *Tx) error { _ = tx.scan(`select nothing from meta`, nil, new(int)); return nil },
		} {
			now = now.Add(othersCount) // what failed may have been another's doing
			must(t, d.Write(t.Context(), now, func(tx *Tx) error { return tx.SetMeta("a", "b") }))
			err := d.Write(t.Context(), now, func(tx *Tx) error {
				return errors.Join(tx.Append(serval.Event{Action: serval.PolicyDeclare}), f(tx))
			}, func(tx *Tx) { tx.DecidedAt(last) })
			if err == nil || errors.Is(err, errMoved) || errors.Is(err, database.ErrHeld) || serval.IsRefusal(err) != (name == "a refusal") {
				t.Errorf("%s: %v, want what it is", name, err)
			}
			if got := look(t, d, (*View).ChainHead); got != last {
				t.Errorf("%s: the chain ends at %v, want %v", name, got, last)
			}
		}
		// What reads is done with the chain taken.
		now = now.Add(othersCount)
		must(t, d.Write(t.Context(), now, func(tx *Tx) error { return tx.SetMeta("a", "b") }))
		var read string
		must(t, d.Write(t.Context(), now, func(tx *Tx) (err error) {
			runs++
			read, err = tx.Meta("a")
			return errors.Join(err, tx.Append(serval.Event{Action: serval.PolicyDeclare, Reason: read}))
		}, func(tx *Tx) { tx.DecidedAt(last) }))
		if h, _ := d.Head(); read != "b" || h.Seq != last.Seq+1 || (runs == 2) != d.db.Alone() {
			t.Errorf("read %q in %d tries, and the chain ends at %d", read, runs-1, h.Seq)
		}
		if _, err := verify(t, d, Head{}); err != nil {
			t.Error(err)
		}
	})
}

// the latest instant counts that any replica has seen, and it moves with what is
// done from a known end, too.
func TestClockGoesBackBehindAKnownEnd(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		runs := 0
		must(t, d.Write(t.Context(), noon, appending(&runs)))
		last, _ := d.Head()
		act := func(at time.Time) error {
			return d.Write(t.Context(), at, appending(&runs), func(tx *Tx) { tx.DecidedAt(last) })
		}
		stores := d.replicas(t)
		must(t, stores[len(stores)-1].Write(t.Context(), noon.Add(time.Hour), func(*Tx) error { return nil }))
		refused(t, "an act an hour back", act(noon), serval.Unavailable)
		must(t, act(noon.Add(2*time.Hour)))
		if at := d.number(t, `select at from chain`); at != micros(noon.Add(2*time.Hour)) {
			t.Errorf("the latest instant is %v", instant(at))
		}
		last, _ = d.Head()
		must(t, act(noon.Add(2*time.Hour-time.Minute))) // no more than may be
		if at := d.number(t, `select at from chain`); at != micros(noon.Add(2*time.Hour)) {
			t.Errorf("the latest instant went back to %v", instant(at))
		}
		for _, s := range stores {
			refused(t, "an act an hour back", s.Write(t.Context(), noon.Add(time.Hour), appending(&runs)), serval.Unavailable)
		}
	})
}

// A look behind the commit sees the end as it is then.
func TestLookBehind(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		var seen Look
		var last Head
		act := func() {
			t.Helper()
			must(t, d.Write(t.Context(), noon, func(tx *Tx) error {
				seen = tx.LookBehind()
				err := tx.Append(serval.Event{Action: serval.LoginCreate})
				last = tx.Head()
				return err
			}, func(tx *Tx) { tx.DecidedAt(last) }))
		}
		for range 2 { // with the chain taken, and from a known end
			if act(); seen.SawEnd(last) == d.db.Alone() {
				t.Errorf("saw the end: %t", d.db.Alone())
			}
		}
		if act(); seen.SawEnd(Head{last.Seq, "another"}) || (Look{}).SawEnd(Head{}) {
			t.Error("another end was seen, or one without looking")
		}
		if d.db.Alone() {
			return
		}
		// Another row is there before the look.
		for _, s := range []string{
			`create function other() returns trigger language plpgsql as $$ begin update chain set seq = seq + 1; return null; end $$`,
			`create constraint trigger other after insert on event deferrable initially deferred for each row execute function other()`,
		} {
			if _, err := d.db.ExecContext(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
		if act(); seen.SawEnd(last) {
			t.Error("the end was seen behind which there is another row")
		}
	})
}

// S-75: a session that was concluded meanwhile stays so, also where that left no row.
func TestConcludedMeanwhile(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		declare(t, d, prod)
		push(t, d, prod, noon, serval.Inventory{Complete: true, Roles: named(prod, "a")})
		r := newRequest(t, d, "r1")
		s := serval.Session{ID: "s1", RequestID: r.ID, PersonID: r.PersonID, Kind: serval.ForCredentials, State: serval.SessionStarted, Role: r.Role, StartedAt: noon}
		begin := func() (last Head) {
			t.Helper()
			must(t, d.Write(t.Context(), noon, func(tx *Tx) error {
				err := errors.Join(tx.SaveSession(s), tx.Append(serval.Event{Action: serval.SessionOpen}))
				last = tx.Head()
				return err
			}))
			return last
		}
		conclude := func(last Head) (open bool, runs int) {
			t.Helper()
			must(t, d.Write(t.Context(), noon, func(tx *Tx) (err error) {
				runs++
				s := s
				s.State, s.AccessKeyID = serval.SessionIssued, fmt.Sprint("key ", runs)
				if open, err = tx.ConcludeSession(s); err == nil {
					err = tx.Append(serval.Event{Action: serval.SessionIssue})
				}
				return err
			}, func(tx *Tx) { tx.DecidedAt(last) }))
			return open, runs
		}
		if open, runs := conclude(begin()); !open || runs != 1 {
			t.Errorf("the first: open %t, ran %d times", open, runs)
		}
		if got := look(t, d, func(v *View) (serval.Session, error) { return v.Session("s1") }); got.State != serval.SessionIssued || got.AccessKeyID != "key 1" {
			t.Errorf("kept %+v", got)
		}
		s.ID = "s2"
		last := begin()
		if _, err := d.db.ExecContext(t.Context(), `update session set state = 'unknown' where id = 's2'`); err != nil {
			t.Fatal(err)
		}
		if open, _ := conclude(last); open {
			t.Error("it was open once it was concluded")
		}
		if got := look(t, d, func(v *View) (serval.Session, error) { return v.Session("s2") }); got.State != serval.SessionUnknown || got.AccessKeyID != "" {
			t.Errorf("kept %+v, want it to stay unknown", got)
		}
	})
}

// Whoever goes on from a known end beside others who do the same is first, or behind
// them: no row is lost, and none is there twice.
func TestMovedAtOnce(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		const each = 25
		stores := append(d.replicas(t), d.replicas(t)...)
		var tries atomic.Int64
		var wg sync.WaitGroup
		for _, s := range stores {
			wg.Go(func() {
				for range each {
					s.others.Store(0) // as if nobody else had written
					last, _ := s.Head()
					err := s.Write(t.Context(), noon, func(tx *Tx) error {
						tries.Add(1)
						return tx.Append(serval.Event{Action: serval.PolicyDeclare})
					}, func(tx *Tx) { tx.DecidedAt(last) })
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		want := int64(each * len(stores))
		if n := d.number(t, `select count(*) from event`); n != want {
			t.Errorf("%d rows, want %d", n, want)
		}
		if head, err := verify(t, d, Head{}); err != nil || head.Seq != want {
			t.Errorf("the chain holds to row %d, %v; want %d", head.Seq, err, want)
		}
		t.Logf("%d rows in %d tries", want, tries.Load())
	})
}
