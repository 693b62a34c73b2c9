package worker_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/worker"
)

// A board is where tasks are taken from; it judges as an upstream does.
type board struct {
	t *testing.T

	mu      sync.Mutex
	list    []worker.Listed
	version int
	changed chan struct{}
	claimed map[string]string // by id, who has it
	results map[string]serval.RunResult
	finish  func(n int) error // what the nth call of Finish answers, before it is taken
	puts    int
	polls   int
	away    func() error
	claim   func() error
}

func newBoard(t *testing.T, list ...worker.Listed) *board {
	return &board{t: t, list: slices.Clone(list), changed: make(chan struct{}), claimed: map[string]string{}, results: map[string]serval.RunResult{}}
}

func listed(n int, account string) worker.Listed {
	return worker.Listed{ID: fmt.Sprintf("task_%d", n), Kind: serval.TaskCheck, AccountID: account}
}

func (b *board) change() {
	b.version++
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *board) Tasks(ctx context.Context, version string, wait time.Duration) ([]worker.Listed, string, error) {
	b.mu.Lock()
	b.polls++
	if b.away != nil {
		if err := b.away(); err != nil {
			b.mu.Unlock()
			return nil, "", err
		}
	}
	changed, same := b.changed, version == fmt.Sprint(b.version)
	b.mu.Unlock()
	if same {
		select {
		case <-changed:
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, "", ctx.Err()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.list), fmt.Sprint(b.version), nil
}

func (b *board) Claim(ctx context.Context, id, name string) (worker.Task, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.claim != nil {
		return worker.Task{}, b.claim()
	}
	i := slices.IndexFunc(b.list, func(l worker.Listed) bool { return l.ID == id })
	if i < 0 || b.claimed[id] != "" {
		return worker.Task{}, serval.Refuse(serval.Conflict, "Another worker has this task.")
	}
	one := b.list[i]
	b.list = slices.Delete(b.list, i, i+1)
	b.claimed[id] = name
	b.change()
	return worker.Task{Listed: one, RunID: "run", Attempt: 1, Account: serval.Account{ID: one.AccountID}}, nil
}

func (b *board) Finish(ctx context.Context, t worker.Task, name string, r serval.RunResult) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.puts++
	if b.finish != nil {
		if err := b.finish(b.puts); err != nil {
			return err
		}
	}
	if b.claimed[t.ID] != name || t.Attempt != 1 {
		b.t.Errorf("%s put a result of %+v, which it has not", name, t)
	}
	b.results[t.ID] = r
	return nil
}

// tally returns how often tasks were asked for, and results put.
func (b *board) tally() (polls, puts int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.polls, b.puts
}

// result returns what was put of a task.
func (b *board) result(id string) (serval.RunResult, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, ok := b.results[id]
	return r, ok
}

func with(b *board, perform func(ctx context.Context, t worker.Task) (serval.RunResult, error)) func(*worker.Worker) {
	return func(w *worker.Worker) { w.Tasks, w.Perform = b, perform }
}

func done(ctx context.Context, t worker.Task) (serval.RunResult, error) {
	return serval.RunResult{Check: &serval.Check{AccountID: t.AccountID, Passed: true}}, nil
}

func TestTasksAreDone(t *testing.T) {
	inBubble(t, "beside the syncs", func(t *testing.T) {
		b := newBoard(t, listed(1, "000000000001"), listed(2, "000000000002"))
		start(t, newFar(t), &near{}, with(b, done))
		time.Sleep(5 * time.Second)
		for _, id := range []string{"task_1", "task_2"} {
			if r, ok := b.result(id); !ok || r.Check == nil || !r.Check.Passed {
				t.Errorf("%s came to %+v", id, r)
			}
		}
		// A new one is taken at once, not with the next poll.
		time.Sleep(10 * time.Second)
		b.mu.Lock()
		b.list = append(b.list, listed(3, "000000000001"))
		b.change()
		b.mu.Unlock()
		time.Sleep(2 * time.Second)
		if _, ok := b.result("task_3"); !ok {
			t.Error("a task that was started while the worker waited was not done")
		}
	})
	inBubble(t, "of the shard only", func(t *testing.T) {
		var list []worker.Listed
		for i := range 40 {
			list = append(list, listed(i, fmt.Sprintf("%012d", i)))
		}
		boards := []*board{newBoard(t, list...), newBoard(t, list...)}
		for shard, b := range boards {
			start(t, newFar(t), &near{}, with(b, done), func(w *worker.Worker) { w.Shard, w.TotalShards = shard, 2 })
		}
		time.Sleep(5 * time.Minute)
		for i := range 40 {
			id := fmt.Sprintf("task_%d", i)
			_, first := boards[0].result(id)
			_, second := boards[1].result(id)
			if first == second {
				t.Errorf("%s was done by the first %v, by the second %v; want one of them", id, first, second)
			}
		}
	})
	inBubble(t, "a few at once", func(t *testing.T) {
		var list []worker.Listed
		for i := range 12 {
			list = append(list, listed(i, "000000000001"))
		}
		b := newBoard(t, list...)
		var mu sync.Mutex
		running, most := 0, 0
		start(t, newFar(t), &near{}, with(b, func(ctx context.Context, task worker.Task) (serval.RunResult, error) {
			mu.Lock()
			running++
			most = max(most, running)
			mu.Unlock()
			time.Sleep(time.Minute)
			mu.Lock()
			running--
			mu.Unlock()
			return done(ctx, task)
		}))
		time.Sleep(30 * time.Second)
		b.mu.Lock()
		left := len(b.list)
		b.mu.Unlock()
		if left != 8 {
			t.Errorf("%d tasks are left for others while four are done, want 8: none is claimed to wait", left)
		}
		time.Sleep(5 * time.Minute)
		if _, ok := b.result("task_11"); !ok || most != 4 {
			t.Errorf("the last was done %v, %d at once; want true, 4", ok, most)
		}
	})
}

func TestResultsArePutAgain(t *testing.T) {
	inBubble(t, "while the upstream is away", func(t *testing.T) {
		b := newBoard(t, listed(1, "000000000001"))
		b.finish = func(n int) error {
			if n < 5 {
				return errAway
			}
			return nil
		}
		start(t, newFar(t), &near{}, with(b, done))
		time.Sleep(time.Minute)
		_, puts := b.tally()
		if _, ok := b.result("task_1"); !ok || puts != 5 {
			t.Errorf("put %d times, taken %v; want it taken the fifth time", puts, ok)
		}
	})
	inBubble(t, "not longer than the claim", func(t *testing.T) {
		b := newBoard(t, listed(1, "000000000001"))
		b.finish = func(int) error { return errAway }
		r := start(t, newFar(t), &near{}, with(b, done))
		time.Sleep(time.Hour)
		if _, puts := b.tally(); puts < 5 || puts > 15 {
			t.Errorf("put %d times in five minutes with backoff", puts)
		}
		if r.logs.FilterMessage("a task's result was not taken").Len() != 1 {
			t.Error("nobody was told that a result was lost")
		}
	})
	inBubble(t, "not where it is refused", func(t *testing.T) {
		b := newBoard(t, listed(1, "000000000001"))
		b.finish = func(int) error { return serval.Refuse(serval.Conflict, "The task was claimed again.") }
		start(t, newFar(t), &near{}, with(b, done))
		time.Sleep(time.Hour)
		if _, puts := b.tally(); puts != 1 {
			t.Errorf("put %d times, want once", puts)
		}
	})
}

func TestTasksThatGoWrong(t *testing.T) {
	inBubble(t, "a panic is one task's", func(t *testing.T) {
		b := newBoard(t, listed(1, "000000000001"), listed(2, "000000000001"))
		start(t, newFar(t), &near{}, with(b, func(ctx context.Context, task worker.Task) (serval.RunResult, error) {
			if task.ID == "task_1" {
				panic("boom")
			}
			return done(ctx, task)
		}))
		time.Sleep(5 * time.Second)
		if r, _ := b.result("task_1"); r.Error == "" {
			t.Errorf("a panic came to %+v, want an error", r)
		}
		if _, ok := b.result("task_2"); !ok {
			t.Error("the next task was not done")
		}
	})
	inBubble(t, "a deadline ends it", func(t *testing.T) {
		b := newBoard(t, listed(1, "000000000001"))
		var took atomic.Int64
		start(t, newFar(t), &near{}, with(b, func(ctx context.Context, task worker.Task) (serval.RunResult, error) {
			began := time.Now()
			<-ctx.Done()
			took.Store(int64(time.Since(began)))
			return serval.RunResult{}, ctx.Err()
		}))
		time.Sleep(time.Hour)
		if _, ok := b.result("task_1"); ok || took.Load() != int64(5*time.Minute) {
			t.Errorf("it ended after %s with a result: %v; want none after 5m", time.Duration(took.Load()), ok)
		}
	})
	inBubble(t, "stopping leaves it to another attempt", func(t *testing.T) {
		b := newBoard(t, listed(1, "000000000001"))
		r := start(t, newFar(t), &near{}, with(b, func(ctx context.Context, task worker.Task) (serval.RunResult, error) {
			<-ctx.Done()
			return serval.RunResult{}, ctx.Err()
		}))
		time.Sleep(5 * time.Second)
		r.stop()
		if _, puts := b.tally(); puts != 0 {
			t.Error("a result was put of what was not done")
		}
	})
}

func TestTasksWhileTheUpstreamIsAway(t *testing.T) {
	inBubble(t, "backoff", func(t *testing.T) {
		b := newBoard(t, listed(1, "000000000001"))
		gone := true
		b.away = func() error {
			if gone {
				return errAway
			}
			return nil
		}
		start(t, newFar(t), &near{}, with(b, done))
		time.Sleep(24 * time.Hour)
		if polls, _ := b.tally(); polls > 250 {
			t.Errorf("asked %d times in a day, want backoff", polls)
		}
		b.mu.Lock()
		gone = false
		b.mu.Unlock()
		time.Sleep(16 * time.Minute)
		if _, ok := b.result("task_1"); !ok {
			t.Error("the task was not done when the upstream was back")
		}
	})
	// An older bridge knows nothing of tasks; the syncs go on.
	inBubble(t, "an upstream without tasks", func(t *testing.T) {
		b := newBoard(t)
		b.away = func() error { return serval.Refuse(serval.NotFound, "There is nothing at this address.") }
		n := &near{}
		start(t, newFar(t, account(1)), n, with(b, done))
		time.Sleep(time.Hour)
		if polls, _ := b.tally(); polls > 5 || n.total() == 0 {
			t.Errorf("asked %d times in an hour, %d syncs", polls, n.total())
		}
	})
	inBubble(t, "a claim that fails", func(t *testing.T) {
		b := newBoard(t, listed(1, "000000000001"))
		b.claim = func() error { return errAway }
		start(t, newFar(t), &near{}, with(b, done))
		time.Sleep(time.Hour)
		if polls, _ := b.tally(); polls > 25 {
			t.Errorf("asked %d times in an hour, want backoff", polls)
		}
		b.mu.Lock()
		b.claim = nil
		b.mu.Unlock()
		time.Sleep(16 * time.Minute)
		if _, ok := b.result("task_1"); !ok {
			t.Error("the task was not done when it could be claimed")
		}
	})
	inBubble(t, "an upstream that answers at once", func(t *testing.T) {
		b := newBoard(t)
		b.away = func() error { b.version++; return nil }
		start(t, newFar(t), &near{}, with(b, done))
		time.Sleep(time.Minute)
		if polls, _ := b.tally(); polls > 65 {
			t.Errorf("asked %d times in a minute", polls)
		}
	})
}
