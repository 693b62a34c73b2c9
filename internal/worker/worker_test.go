package worker_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/worker"
)

const one = "000000000001"

func TestAccountsAreReadByTheSchedule(t *testing.T) {
	inBubble(t, "never synced, and then every four hours", func(t *testing.T) {
		f := newFar(t, account(1))
		start(t, f, &near{takes: 10 * time.Second})
		time.Sleep(9 * time.Hour)
		synctest.Wait()
		if got := f.times(one); !within(got, 0, 30*time.Minute, 270*time.Minute, 510*time.Minute) {
			t.Errorf("read at %v after midnight, want at once and then at 00:30, 04:30 and 08:30", got)
		}
	})
	inBubble(t, "a restart does not read what is fresh", func(t *testing.T) {
		f := newFar(t, account(1))
		n := &near{takes: 10 * time.Second}
		r := start(t, f, n)
		time.Sleep(time.Hour)
		r.stop()
		start(t, f, n)
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := f.times(one); !within(got, 0, 30*time.Minute) {
			t.Errorf("read at %v after midnight, want at 00:00 and 00:30 only", got)
		}
	})
	//
	inBubble(t, "down for nine hours: one run at once, no burst, the offset kept", func(t *testing.T) {
		f := newFar(t, account(1))
		n := &near{takes: 10 * time.Second}
		r := start(t, f, n)
		time.Sleep(31 * time.Minute)
		r.stop()
		time.Sleep(9 * time.Hour)
		start(t, f, n)
		time.Sleep(4 * time.Hour)
		synctest.Wait()
		if got := f.times(one); !within(got, 0, 30*time.Minute, 571*time.Minute, 750*time.Minute) {
			t.Errorf("read at %v after midnight, want at 00:00, 00:30, 09:31 at once, and 12:30", got)
		}
	})
	inBubble(t, "a last sync in the future is a clock's mistake, and read once", func(t *testing.T) {
		a := account(1)
		a.LastSyncAt = midnight.Add(10 * time.Hour)
		f := newFar(t, a)
		n := &near{takes: time.Second}
		start(t, f, n, func(w *worker.Worker) { w.Schedule.Offset = 3 * time.Hour })
		time.Sleep(time.Hour)
		synctest.Wait()
		if n.total() != 1 {
			t.Errorf("%d readings in an hour, want 1", n.total())
		}
	})
	inBubble(t, "an account that is added is read at once, one that is removed no more", func(t *testing.T) {
		f := newFar(t, account(1))
		n := &near{takes: 10 * time.Second}
		start(t, f, n)
		time.Sleep(time.Minute)
		second := account(2)
		f.change(func() { f.accounts[second.ID] = &remembered{Account: second}; delete(f.accounts, one) })
		time.Sleep(10 * time.Hour)
		synctest.Wait()
		if got := f.times(second.ID); !within(got, time.Minute, 30*time.Minute, 270*time.Minute, 510*time.Minute) {
			t.Errorf("the added account was read at %v, want at 00:01 and then by the schedule", got)
		}
		if n.count(one) != 1 {
			t.Errorf("the removed account was read %d times, want once, before it was removed", n.count(one))
		}
	})
}

//
func TestUpstreamAwayForADay(t *testing.T) {
	const many = 12
	for _, test := range []struct {
		name string
		from time.Duration // when it goes away
		want int           // accepted pushes of each account by the end
	}{
		{"from the beginning", 0, 1},
		{"between the reading and the push", 5 * time.Second, 1},
		{"after the first round", time.Minute, 2},
	} {
		inBubble(t, test.name, func(t *testing.T) {
			f := newFar(t, accounts(many)...)
			back := midnight.Add(test.from + 24*time.Hour)
			f.away = func() error {
				if now := time.Now(); !now.Before(midnight.Add(test.from)) && now.Before(back) {
					return errAway
				}
				return nil
			}
			n := &near{takes: 10 * time.Second}
			r := start(t, f, n, func(w *worker.Worker) { w.Parallel = many })
			time.Sleep(test.from + 24*time.Hour)
			asked, reads := f.tally(), n.total()
			calls := asked.polls + asked.opens + asked.pushes
			time.Sleep(20 * time.Minute) // the longest pause, and the reading
			synctest.Wait()
			for _, a := range accounts(many) {
				id := a.ID
				if got := len(f.times(id)); got != test.want {
					t.Errorf("account %s has %d accepted pushes, want %d", id, got, test.want)
				}
			}
			if want := many * test.want; n.total() > want+many || reads > want {
				t.Errorf("%d accounts were read %d times, %d of them while the upstream was away; nothing must pile up", many, n.total(), reads)
			}
			if calls > 120+many*40 {
				t.Errorf("%d calls in a day while the upstream was away, want them to become rare", calls)
			}
			if got := r.logs.FilterMessage("the upstream is back").Len(); got != 1 {
				t.Errorf("its return was logged %d times, want once", got)
			}
		})
	}
}

func TestPushIsTriedAgainUntilItIsTaken(t *testing.T) {
	// the same generation and the same bytes, taken once.
	inBubble(t, "taken, but the answer was lost", func(t *testing.T) {
		f := newFar(t, account(1))
		lost := 0
		f.onPushed = func(serval.Inventory) error { lost++; return errAway } // f is locked
		n := &near{takes: time.Second}
		r := start(t, f, n)
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		if len(f.tally().accepted) != 1 || lost != 1 || n.total() != 1 || f.tally().pushes != 2 {
			t.Errorf("%d accepted of %d pushes after %d readings, want 1 of 2 after 1", len(f.tally().accepted), f.tally().pushes, n.total())
		}
		if !contains(r.lines(one), "sync complete") {
			t.Errorf("logged %q, want the sync as complete", r.lines(one))
		}
	})
	inBubble(t, "away for ten minutes", func(t *testing.T) {
		f := newFar(t, account(1))
		f.away = func() error {
			if d := time.Since(midnight); d > 5*time.Second && d < 10*time.Minute {
				return errAway
			}
			return nil
		}
		n := &near{takes: 10 * time.Second}
		start(t, f, n)
		time.Sleep(25 * time.Minute)
		synctest.Wait()
		if got := f.times(one); !within(got, 0) || n.total() != 1 {
			t.Errorf("accepted syncs began at %v after %d readings, want the first one kept and pushed", got, n.total())
		}
	})
}

// nothing that the upstream says no to is said again at once.
func TestRefusals(t *testing.T) {
	for _, test := range []struct {
		kind  serval.Kind
		reads int // in the first hour
		most  int // pushes in it
	}{
		{serval.Unauthenticated, 3, 30}, // the token is read anew each time
		{serval.Denied, 3, 3},
		{serval.NotFound, 3, 3},
		{serval.TooLarge, 3, 3},
		{serval.Invalid, 3, 3},
		{serval.FailedPrecondition, 3, 3},
		{serval.Conflict, 3, 3},
	} {
		inBubble(t, string(test.kind), func(t *testing.T) {
			f := newFar(t, account(1), account(2))
			f.onPush = func(inv serval.Inventory) error {
				if inv.AccountID == one {
					return &serval.Refusal{Kind: test.kind, Reason: "No.", Detail: map[string]string{"bytes": "12345", "sha256": "ab"}}
				}
				return nil
			}
			n := &near{takes: time.Second}
			r := start(t, f, n, func(w *worker.Worker) { w.Schedule.Offset = 3 * time.Hour })
			time.Sleep(time.Hour)
			synctest.Wait()
			if n.count(one) > test.reads || f.tally().pushes-len(f.tally().accepted) > test.most {
				t.Errorf("%d readings and %d refused pushes in an hour, want at most %d and %d", n.count(one), f.tally().pushes-len(f.tally().accepted), test.reads, test.most)
			}
			if got := f.times("000000000002"); !within(got, 0) {
				t.Errorf("the other account was read at %v, want once at the beginning", got)
			}
			if test.kind == serval.TooLarge {
				last := r.logs.FilterMessage("sync not accepted").All()
				if len(last) == 0 || last[0].ContextMap()["bytes"] != "12345" {
					t.Errorf("logged %v, want the size that was too large", last)
				}
			}
		})
	}
	inBubble(t, "what is mended is tried again", func(t *testing.T) {
		f := newFar(t, account(1))
		broken := true
		f.onPush = func(serval.Inventory) error {
			if broken {
				return serval.Refuse(serval.FailedPrecondition, "No.")
			}
			return nil
		}
		start(t, f, &near{takes: time.Second})
		time.Sleep(time.Minute)
		f.change(func() { broken = false; f.accounts[one].RoleARN += "-mended" })
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(f.tally().accepted) != 1 {
			t.Errorf("%d pushes were accepted a minute after the account was changed, want 1", len(f.tally().accepted))
		}
	})
}

//
func TestOneAccountDeniedOfTen(t *testing.T) {
	inBubble(t, "the others are pushed, and it says why", func(t *testing.T) {
		f := newFar(t, accounts(10)...)
		denied := &worker.Unread{
			Problem: serval.Problem{Action: "sts:AssumeRole", Target: "arn:aws:iam::000000000001:role/serval-ingestion", Code: "AccessDenied", Message: "You shall not."},
			Err:     errors.New("You shall not."),
		}
		n := &near{takes: time.Second, before: func(_ context.Context, a serval.Account) error {
			if a.ID == one {
				return denied
			}
			return nil
		}}
		r := start(t, f, n, func(w *worker.Worker) { w.Schedule.Offset = 3 * time.Hour })
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(f.tally().accepted) != 10 {
			t.Fatalf("%d accounts were pushed, want 10", len(f.tally().accepted))
		}
		for _, inv := range f.tally().accepted {
			if inv.AccountID != one {
				if !inv.Complete || len(inv.Roles) != 1 {
					t.Errorf("account %s was pushed with %d roles, complete %t; want 1, true", inv.AccountID, len(inv.Roles), inv.Complete)
				}
				continue
			}
			if diff := cmp.Diff([]serval.Problem{denied.Problem}, inv.Problems); diff != "" || inv.Complete || len(inv.Roles) != 0 {
				t.Errorf("the denied account was pushed complete %t with %d roles; problems (-want +got):\n%s", inv.Complete, len(inv.Roles), diff)
			}
		}
		if got := r.lines(one); len(got) != 1 || got[0] != "account not read" {
			t.Errorf("logged %q of it, want one line", got)
		}
		// It is tried again before the schedule says so, less and less often.
		time.Sleep(29 * time.Minute)
		synctest.Wait()
		if n.count(one) != 2 {
			t.Errorf("it was read %d times in half an hour, want twice", n.count(one))
		}
	})
	inBubble(t, "a panic is one account's", func(t *testing.T) {
		f := newFar(t, accounts(3)...)
		n := &near{takes: time.Second, before: func(_ context.Context, a serval.Account) error {
			if a.ID == one {
				panic("out of luck")
			}
			return nil
		}}
		start(t, f, n)
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(f.tally().accepted) != 2 {
			t.Errorf("%d accounts were pushed, want the other 2", len(f.tally().accepted))
		}
	})
}

//
func TestFencing(t *testing.T) {
	inBubble(t, "two workers read an account once", func(t *testing.T) {
		f := newFar(t, accounts(5)...)
		n := &near{takes: 2 * time.Minute}
		start(t, f, n)
		start(t, f, n, func(w *worker.Worker) { w.Name = "worker-1" })
		time.Sleep(29 * time.Minute)
		synctest.Wait()
		if len(f.tally().accepted) != 5 || n.total() != 5 {
			t.Errorf("%d pushes and %d readings of 5 accounts, want 5 and 5", len(f.tally().accepted), n.total())
		}
	})
	inBubble(t, "a claim that ran out is taken over, and the late push dropped", func(t *testing.T) {
		f := newFar(t, account(1))
		slow := &near{takes: 45 * time.Minute}
		late := start(t, f, slow, func(w *worker.Worker) { w.Schedule.Offset = 3 * time.Hour })
		time.Sleep(time.Second)
		start(t, f, &near{takes: time.Minute}, func(w *worker.Worker) { w.Name, w.Schedule.Offset = "worker-1", 3*time.Hour })
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if got := f.times(one); !within(got, 30*time.Minute) {
			t.Errorf("accepted syncs began at %v, want the second worker's at 00:30 only", got)
		}
		if !contains(late.lines(one), "sync not accepted") {
			t.Errorf("the late worker logged %q, want that its push was dropped", late.lines(one))
		}
	})
}

func TestSyncRequested(t *testing.T) {
	inBubble(t, "read within seconds, and once", func(t *testing.T) {
		f := newFar(t, account(1))
		start(t, f, &near{takes: time.Second})
		time.Sleep(10 * time.Minute)
		f.request(one)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if got := f.times(one); len(got) != 2 || got[1] < 10*time.Minute || got[1] > 10*time.Minute+2*time.Second {
			t.Errorf("read at %v, want at the beginning and at once when asked at 00:10", got)
		}
	})
	inBubble(t, "it does not wait for a queue", func(t *testing.T) {
		f := newFar(t, accounts(20)...)
		start(t, f, &near{takes: 10 * time.Minute}, func(w *worker.Worker) { w.Parallel = 1; w.Schedule.Offset = 3 * time.Hour })
		time.Sleep(time.Minute)
		added := account(99)
		added.SyncRequested = true
		f.change(func() { f.accounts[added.ID] = &remembered{Account: added} })
		time.Sleep(12 * time.Minute)
		synctest.Wait()
		if got := f.times(added.ID); !within(got, time.Minute) {
			t.Errorf("with 19 accounts waiting it was read at %v, want at once at 00:01", got)
		}
	})
	inBubble(t, "a request that is never served keeps nobody busy", func(t *testing.T) {
		f := newFar(t, account(1))
		f.onPushed = func(serval.Inventory) error { f.accounts[one].SyncRequested = true; return nil }
		n := &near{takes: time.Second}
		start(t, f, n)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n.total() > 45 {
			t.Errorf("%d readings in ten minutes, want a pause between them", n.total())
		}
	})
}

func TestSlots(t *testing.T) {
	inBubble(t, "no more at once than allowed", func(t *testing.T) {
		f := newFar(t, accounts(25)...)
		n := &near{takes: time.Minute}
		start(t, f, n, func(w *worker.Worker) { w.Parallel = 4 })
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n.most != 4 || len(f.tally().accepted) != 25 {
			t.Errorf("%d at once, %d pushed; want 4 and 25", n.most, len(f.tally().accepted))
		}
	})
	inBubble(t, "a push that alone is not answered gives its slot back", func(t *testing.T) {
		f := newFar(t, accounts(5)...)
		f.onPush = func(inv serval.Inventory) error {
			if inv.AccountID == one {
				return serval.Refuse(serval.Unavailable, "The upstream answered 502 Bad Gateway.")
			}
			return nil
		}
		start(t, f, &near{takes: time.Second}, func(w *worker.Worker) { w.Parallel = 1; w.Schedule.Offset = 3 * time.Hour })
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(f.tally().accepted) != 4 {
			t.Errorf("%d of the 4 other accounts were pushed within an hour", len(f.tally().accepted))
		}
	})
	inBubble(t, "shards share the accounts", func(t *testing.T) {
		f := newFar(t, accounts(40)...)
		var shards [3]*near
		for i := range shards {
			shards[i] = &near{takes: time.Second}
			start(t, f, shards[i], func(w *worker.Worker) { w.Name, w.Shard, w.TotalShards = fmt.Sprint("worker-", i), i, 3 })
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		sum := 0
		for i, n := range shards {
			if n.total() == 0 || n.total() > 30 {
				t.Errorf("shard %d of 3 read %d of 40 accounts, want about a third", i, n.total())
			}
			sum += n.total()
		}
		if sum != 40 || f.tally().opens != 40 {
			t.Errorf("%d readings and %d opened syncs of 40 accounts, want each once", sum, f.tally().opens)
		}
	})
}

// what is not whole is not pushed as whole, nor at all.
func TestStopping(t *testing.T) {
	for _, test := range []struct {
		name string
		at   time.Duration
	}{
		{"in the middle of a reading", 5 * time.Second},
		{"between two pushes", 40 * time.Second},
		{"while others wait for their turn", 2 * time.Second},
	} {
		inBubble(t, test.name, func(t *testing.T) {
			f := newFar(t, accounts(30)...)
			f.onPush = func(serval.Inventory) error { return errAway }
			r := start(t, f, &near{takes: 10 * time.Second})
			time.Sleep(test.at)
			began := time.Now()
			r.stop()
			if d := time.Since(began); d > time.Second {
				t.Errorf("stopping took %s, want it at once", d)
			}
			if len(f.tally().accepted) != 0 {
				t.Errorf("%d inventories were accepted, want none", len(f.tally().accepted))
			}
			if got := r.logs.FilterMessage("sync not accepted").Len() + r.logs.FilterMessage("account not read").Len(); got != 0 {
				t.Errorf("%d failures were logged, want none: it was told to stop", got)
			}
		})
	}
}
