package worker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/worker"
)

// withDeltas lets a worker look at its accounts every five minutes.
func withDeltas(w *worker.Worker) { w.DeltaInterval, w.DeltaBudget = 5*time.Minute, 77 }

// alone fails the test where two things of one account ran at once.
func alone(t *testing.T, n *near) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.overlaps) > 0 {
		t.Errorf("at once ran %q", n.overlaps)
	}
}

func TestDeltasBetweenFullSyncs(t *testing.T) {
	inBubble(t, "every five minutes, each account at an instant of its own", func(t *testing.T) {
		f := newFar(t, accounts(40)...)
		n := &near{takes: time.Second, lookTakes: time.Second}
		r := start(t, f, n, withDeltas, func(w *worker.Worker) { w.Schedule.Offset = 3 * time.Hour; w.Parallel = 40 })
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		var within [5]int // minutes of the interval
		for _, a := range accounts(40) {
			at := f.looked(a.ID)
			if len(at) < 23 || len(at) > 24 || at[0] > 5*time.Minute+2*time.Second {
				t.Fatalf("account %s was looked at %d times in two hours, first at %v; want 24, or 23 where the first full sync came between", a.ID, len(at), at)
			}
			for i := 1; i < len(at); i++ {
				if at[i]-at[i-1] != 5*time.Minute {
					t.Fatalf("account %s was looked at %v apart, want five minutes", a.ID, at[i]-at[i-1])
				}
			}
			within[at[1]%(5*time.Minute)/time.Minute]++
			if got := f.times(a.ID); len(got) != 1 {
				t.Errorf("account %s was read in full at %v, want once: a delta is no full sync", a.ID, got)
			}
		}
		for i, many := range within {
			if many < 2 {
				t.Errorf("in minute %d of five %d of 40 accounts are looked at, want them spread: %v", i, many, within)
			}
		}
		if loud := r.logs.FilterLevelExact(zap.InfoLevel).Len() + r.logs.FilterLevelExact(zap.WarnLevel).Len(); loud != 40 {
			t.Errorf("%d lines above debug, want those of the 40 full syncs: nothing changed", loud)
		}
		alone(t, n)
	})
	inBubble(t, "none without an interval", func(t *testing.T) {
		f := newFar(t, account(1))
		start(t, f, &near{takes: time.Second})
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if got := f.tally().looks; got != 0 {
			t.Errorf("%d deltas, want none", got)
		}
	})
	inBubble(t, "it is told what is known, and what it found is pushed and logged", func(t *testing.T) {
		f := newFar(t, account(1))
		role := serval.Role{ARN: "arn:aws:iam::000000000001:role/new", RoleID: "AROANEW", Name: "new", Path: "/"}
		n := &near{takes: time.Second, finds: func(a serval.Account, k []serval.KnownRole, since time.Time, budget int) serval.Delta {
			if !cmp.Equal(k, known) || since.IsZero() || time.Since(since) > 6*time.Minute || budget != 77 {
				t.Errorf("asked with %v since %s and a budget of %d", k, since, budget)
			}
			return serval.Delta{Complete: true, Roles: []serval.Role{role}}
		}}
		var outcomes []worker.Outcome
		r := start(t, f, n, withDeltas, func(w *worker.Worker) {
			w.Schedule.Offset = 3 * time.Hour
			w.Done = func(o worker.Outcome) { outcomes = append(outcomes, o) }
		})
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		got := f.tally().deltas
		if len(got) != 2 || len(got[0].Roles) != 1 || got[0].Roles[0].Name != "new" || got[1].Generation <= got[0].Generation {
			t.Errorf("pushed %+v, want two with the role, generations growing", got)
		}
		if got := r.logs.FilterMessage("delta found changes").FilterLevelExact(zap.InfoLevel).Len(); got != 2 {
			t.Errorf("%d lines tell of changes, want 2", got)
		}
		if len(outcomes) != 3 || outcomes[0].Kind != serval.SyncFull || outcomes[1].Kind != serval.SyncDelta || !outcomes[1].Accepted || outcomes[1].Changed != 1 {
			t.Errorf("outcomes %+v", outcomes)
		}
	})
	inBubble(t, "no account that was removed", func(t *testing.T) {
		f := newFar(t, account(1))
		n := &near{takes: time.Second, lookTakes: 4 * time.Minute}
		start(t, f, n, withDeltas)
		for n.lookingNow() == 0 {
			time.Sleep(time.Second)
		}
		f.change(func() { delete(f.accounts, one) })
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n.lookingNow() != 0 {
			t.Error("a delta runs of an account that was removed")
		}
		time.Sleep(time.Hour)
		if got := f.tally(); got.looks != 1 || got.deltaPushes != 0 {
			t.Errorf("%d deltas were opened and %d pushed, want the one that was stopped", got.looks, got.deltaPushes)
		}
	})
}

func (n *near) lookingNow() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.looking
}

func TestDeltasStepAside(t *testing.T) {
	inBubble(t, "one that runs is stopped for a full sync", func(t *testing.T) {
		f := newFar(t, account(1))
		n := &near{takes: time.Second, lookTakes: 4 * time.Minute}
		start(t, f, n, withDeltas, func(w *worker.Worker) { w.Schedule.Offset = 3 * time.Hour })
		for n.lookingNow() == 0 {
			time.Sleep(time.Second)
		}
		time.Sleep(time.Minute)
		asked := time.Since(midnight)
		f.request(one)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := f.times(one); len(got) != 2 || got[1] > asked+2*time.Second {
			t.Errorf("asked for at %s, read at %v; want it at once", asked, got)
		}
		if got := f.tally(); got.deltaPushes != 0 {
			t.Errorf("%d pushes of the delta that was stopped, want none", got.deltaPushes)
		}
		alone(t, n)
	})
	inBubble(t, "none begins while a full sync is due, waits or runs", func(t *testing.T) {
		f := newFar(t, accounts(20)...)
		n := &near{takes: 10 * time.Minute, lookTakes: time.Second}
		n.beforeLook = func(_ context.Context, a serval.Account) error {
			if got := f.times(a.ID); len(got) == 0 || got[len(got)-1] < 30*time.Minute && time.Since(midnight) >= 30*time.Minute {
				t.Errorf("at %s a delta of account %s began, which was read in full at %v", time.Since(midnight), a.ID, got)
			}
			return nil
		}
		start(t, f, n, withDeltas, func(w *worker.Worker) { w.Parallel = 1 })
		time.Sleep(5 * time.Hour)
		synctest.Wait()
		if len(f.tally().deltas) == 0 {
			t.Error("no delta at all")
		}
		alone(t, n)
	})
	inBubble(t, "one that is slow to stop is waited for", func(t *testing.T) {
		f := newFar(t, account(1))
		n := &near{takes: 10 * time.Second, beforeLook: func(ctx context.Context, _ serval.Account) error {
			<-ctx.Done()
			time.Sleep(3 * time.Second)
			return ctx.Err()
		}}
		start(t, f, n, withDeltas, func(w *worker.Worker) { w.Schedule.Offset = 3 * time.Hour })
		for n.lookingNow() == 0 {
			time.Sleep(time.Second)
		}
		f.request(one)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if got := f.times(one); len(got) != 2 {
			t.Errorf("read in full at %v, want once more", got)
		}
		alone(t, n)
	})
	inBubble(t, "none begins while a full sync is overdue and another worker's", func(t *testing.T) {
		a := account(1)
		f := newFar(t, a)
		f.onOpen = func(string) error {
			if time.Since(midnight) < 40*time.Minute {
				return &worker.Busy{Until: midnight.Add(40 * time.Minute)}
			}
			return nil
		}
		start(t, f, &near{takes: time.Second}, withDeltas, func(w *worker.Worker) { w.Schedule.Offset = 3 * time.Hour })
		time.Sleep(39 * time.Minute)
		synctest.Wait()
		if got := f.tally(); got.looks != 0 {
			t.Errorf("%d deltas of an account that was never read in full, want none", got.looks)
		}
		time.Sleep(15 * time.Minute)
		synctest.Wait()
		if got := f.tally(); len(got.accepted) != 1 || len(got.deltas) < 2 {
			t.Errorf("then %d full syncs and %d deltas, want one and some", len(got.accepted), len(got.deltas))
		}
	})
	inBubble(t, "none begins beside a full sync that another worker has overtaken", func(t *testing.T) {
		f := newFar(t, account(1))
		n := &near{takes: 20 * time.Minute}
		start(t, f, n, withDeltas, func(w *worker.Worker) { w.Schedule.Offset = 3 * time.Hour })
		time.Sleep(time.Minute)
		f.change(func() { f.accounts[one].LastSyncAt = time.Now() }) // so that none is due any more
		time.Sleep(18 * time.Minute)
		synctest.Wait()
		if got := f.tally(); got.looks != 0 {
			t.Errorf("%d deltas while the account is read, want none", got.looks)
		}
		alone(t, n)
	})
	inBubble(t, "none of an account that cannot be read", func(t *testing.T) {
		f := newFar(t, account(1), account(2))
		n := &near{takes: time.Second, before: func(_ context.Context, a serval.Account) error {
			if a.ID == one {
				return errors.New("no")
			}
			return nil
		}}
		start(t, f, n, withDeltas, func(w *worker.Worker) { w.Schedule.Offset = 3 * time.Hour })
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if mine, other := f.looked(one), f.looked("000000000002"); len(mine) != 0 || len(other) < 20 {
			t.Errorf("it was looked at %d times and the other account %d times, want none and every five minutes", len(mine), len(other))
		}
	})
	inBubble(t, "they have slots of their own", func(t *testing.T) {
		f := newFar(t, accounts(30)...)
		n := &near{takes: time.Second, lookTakes: 2 * time.Minute}
		start(t, f, n, withDeltas, func(w *worker.Worker) { w.Parallel = 4; w.Schedule.Offset = 3 * time.Hour })
		time.Sleep(20 * time.Minute)
		added := account(99)
		f.change(func() { f.accounts[added.ID] = &remembered{Account: added} })
		time.Sleep(40 * time.Minute)
		synctest.Wait()
		if n.mostLook != 4 {
			t.Errorf("%d deltas at once, want 4", n.mostLook)
		}
		if got := f.times(added.ID); len(got) != 1 || got[0] > 20*time.Minute+2*time.Second {
			t.Errorf("with all slots of deltas taken, a new account was read at %v, want at once", got)
		}
		// More to do than there is time for: each has its turn nevertheless.
		least := 1000
		for _, a := range accounts(30) {
			least = min(least, len(f.looked(a.ID)))
		}
		if least < 3 {
			t.Errorf("an account was looked at %d times in an hour, want that all have their turn: four slots make 120 deltas", least)
		}
	})
	// the claim of another replica is respected.
	inBubble(t, "two workers", func(t *testing.T) {
		f := newFar(t, accounts(5)...)
		n := &near{takes: time.Second, lookTakes: time.Minute}
		start(t, f, n, withDeltas)
		start(t, f, n, withDeltas, func(w *worker.Worker) { w.Name = "worker-1" })
		time.Sleep(25 * time.Minute)
		synctest.Wait()
		alone(t, n)
		if got := f.tally(); len(got.deltas) < 15 || len(got.deltas) > 30 {
			t.Errorf("%d deltas of 5 accounts in 25 minutes, want about 25", len(got.deltas))
		}
	})
}

func TestDeltasThatFail(t *testing.T) {
	denied := errors.New("AccessDenied")
	refuse := func(k serval.Kind) func(serval.Delta) error {
		return func(serval.Delta) error { return serval.Refuse(k, "No.") }
	}
	for _, test := range []struct {
		name         string
		prepare      func(f *far, n *near)
		looks, least int // in two hours: at most, at least
		pushes       int // for each look
	}{
		{"unreadable", func(f *far, n *near) { n.beforeLook = func(context.Context, serval.Account) error { return denied } }, 8, 3, 0},
		{"a panic", func(f *far, n *near) {
			n.beforeLook = func(context.Context, serval.Account) error { panic("out of luck") }
		}, 8, 3, 0},
		{"refused", func(f *far, n *near) { f.onDelta = refuse(serval.FailedPrecondition) }, 8, 3, 1},
		{"too large", func(f *far, n *near) { f.onDelta = refuse(serval.TooLarge) }, 8, 3, 1},
		{"not taken for the moment", func(f *far, n *near) { f.onDelta = refuse(serval.Unavailable) }, 8, 3, 3},
		{"incomplete", func(f *far, n *near) {
			n.finds = func(serval.Account, []serval.KnownRole, time.Time, int) serval.Delta {
				return serval.Delta{Problems: []serval.Problem{{Action: "iam:GetRole", Code: "AccessDenied"}}}
			}
		}, 24, 23, 1},
		{"another worker's", func(f *far, n *near) {
			until := midnight.Add(61 * time.Minute)
			f.onOpen = func(string) error {
				if time.Since(midnight) > time.Minute && time.Now().Before(until) {
					return &worker.Busy{Until: until}
				}
				return nil
			}
		}, 14, 10, 1},
	} {
		inBubble(t, test.name, func(t *testing.T) {
			f := newFar(t, account(1), account(2))
			n := &near{takes: time.Second}
			test.prepare(f, n)
			r := start(t, f, n, withDeltas, func(w *worker.Worker) { w.Schedule.Offset = 3 * time.Hour })
			time.Sleep(2 * time.Hour)
			synctest.Wait()
			got := f.tally()
			if got.looks > 2*test.looks || got.looks < 2*test.least || test.pushes != 1 && got.deltaPushes != test.pushes*got.looks {
				t.Errorf("%d deltas and %d pushes of two accounts in two hours, want from %d to %d, and %d pushes each", got.looks, got.deltaPushes, 2*test.least, 2*test.looks, test.pushes)
			}
			if len(got.accepted) != 2 {
				t.Errorf("%d full syncs, want 2 whatever becomes of deltas", len(got.accepted))
			}
			if warned := r.logs.FilterMessage("delta failed").FilterLevelExact(zap.WarnLevel).Len(); warned > 2 {
				t.Errorf("%d warnings of two accounts, want one each", warned)
			}
		})
	}
	//
	inBubble(t, "taken, but the answer was lost", func(t *testing.T) {
		f := newFar(t, account(1))
		f.onLooked = func(serval.Delta) error { return errAway }
		start(t, f, &near{takes: time.Second}, withDeltas, func(w *worker.Worker) { w.Schedule.Offset = 3 * time.Hour })
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		if got := f.tally(); len(got.deltas) != 1 || got.deltaPushes != 2 {
			t.Errorf("%d taken of %d pushes, want 1 of 2", len(got.deltas), got.deltaPushes)
		}
	})
	//
	inBubble(t, "stopped", func(t *testing.T) {
		f := newFar(t, accounts(10)...)
		n := &near{takes: time.Second, lookTakes: 3 * time.Minute}
		r := start(t, f, n, withDeltas)
		time.Sleep(3 * time.Minute)
		if n.lookingNow() == 0 {
			t.Fatal("no delta runs")
		}
		began := time.Now()
		r.stop()
		if d := time.Since(began); d > time.Second || f.tally().deltaPushes != 0 {
			t.Errorf("stopping took %s with %d pushes, want it at once and none", d, f.tally().deltaPushes)
		}
	})
}

// R-1, with deltas: nothing piles up, and on its return each account is read once
// in full before it is looked at again.
func TestUpstreamAwayForADayWithDeltas(t *testing.T) {
	const many = 12
	for _, from := range []time.Duration{0, 5 * time.Second, 33 * time.Minute, 47 * time.Minute} {
		inBubble(t, fmt.Sprint("from ", from), func(t *testing.T) {
			f := newFar(t, accounts(many)...)
			back := midnight.Add(from + 24*time.Hour)
			f.away = func() error {
				if now := time.Now(); !now.Before(midnight.Add(from)) && now.Before(back) {
					return errAway
				}
				return nil
			}
			n := &near{takes: 10 * time.Second, lookTakes: 10 * time.Second}
			start(t, f, n, withDeltas, func(w *worker.Worker) { w.Parallel = many })
			time.Sleep(from + 24*time.Hour - time.Second)
			before := f.tally()
			if calls := before.looks + before.deltaPushes - len(before.deltas)*2; calls > 4*many {
				t.Errorf("%d calls of deltas while the upstream was away, want next to none", calls)
			}
			time.Sleep(21 * time.Minute)
			synctest.Wait()
			after := f.tally()
			for _, a := range accounts(many) {
				full := 0
				for _, inv := range after.accepted[len(before.accepted):] {
					if inv.AccountID == a.ID {
						full++
					}
				}
				if full != 1 {
					t.Errorf("account %s had %d full syncs accepted on the return, want exactly one", a.ID, full)
				}
				times := f.times(a.ID)
				for _, at := range f.looked(a.ID) {
					if at > from+24*time.Hour-time.Second && at < times[len(times)-1] {
						t.Errorf("account %s was looked at %s after midnight, before its full sync at %s", a.ID, at, times[len(times)-1])
					}
				}
			}
			alone(t, n)
		})
	}
}

// a pause brings one full sync at once, and no burst of deltas.
func TestDeltasAfterAPause(t *testing.T) {
	inBubble(t, "down for nine hours", func(t *testing.T) {
		f := newFar(t, accounts(50)...)
		n := &near{takes: time.Second, lookTakes: time.Second}
		r := start(t, f, n, withDeltas, func(w *worker.Worker) { w.Parallel = 50 })
		time.Sleep(31 * time.Minute)
		r.stop()
		time.Sleep(9 * time.Hour)
		before := len(f.tally().deltas)
		start(t, f, n, withDeltas, func(w *worker.Worker) { w.Parallel = 50 })
		time.Sleep(5*time.Minute + 5*time.Second)
		synctest.Wait()
		got := f.tally().deltas[before:]
		if len(got) < 48 || len(got) > 52 {
			t.Errorf("%d deltas of 50 accounts in the first five minutes, want one each", len(got))
		}
		var starts []time.Time
		for _, d := range got {
			starts = append(starts, d.StartedAt)
		}
		slices.SortFunc(starts, time.Time.Compare)
		for i := 10; i < len(starts); i++ {
			if starts[i].Sub(starts[i-10]) < 10*time.Second {
				t.Errorf("ten deltas began within %s, want them spread", starts[i].Sub(starts[i-10]))
			}
		}
	})
}
