package worker

import (
	"context"
	"runtime/debug"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// Tasks is where a worker is asked for checks and workflows. Each call is tried
// once and has a deadline of its own; the errors are those of an Upstream.
type Tasks interface {
	// Tasks returns what can be claimed and its version, as soon as the version
	// is another than the one given, and after the wait at the latest.
	Tasks(ctx context.Context, version string, wait time.Duration) (list []Listed, now string, err error)
	// Claim takes a task for an attempt.
	Claim(ctx context.Context, id, worker string) (Task, error)
	// Finish puts the result of an attempt. Repeating it is the same as doing it
	// once.
	Finish(ctx context.Context, t Task, worker string, r serval.RunResult) error
}

// A Listed is a task that can be claimed.
type Listed struct {
	ID        string
	Kind      serval.TaskKind
	AccountID string
}

// A Task is a claimed task, with all that is needed to do it.
type Task struct {
	Listed
	RunID   string
	Attempt int
	Account serval.Account
	Role    *serval.NewRole // of create-role
}

// How tasks are done.
const (
	taskSlots = 4 // at once, beside the syncs
	// taskPause is how long the upstream is left alone that knows nothing of tasks.
	taskPause = 15 * time.Minute
	// claimPause is the least time between two looks at a list: one that does not
	// change although it was answered must not be asked for in a hurry.
	claimPause = time.Second
)

// runTasks does tasks until ctx ends, and returns when none runs any more.
func (w *Worker) runTasks(ctx context.Context) {
	slots := make(chan struct{}, taskSlots)
	defer func() {
		for range taskSlots { // wait for those that run
			slots <- struct{}{}
		}
	}()
	var version, said string
	var failures, refused int
	for ctx.Err() == nil {
		asked := w.Now()
		list, now, err := w.Tasks.Tasks(ctx, version, longestPoll)
		switch {
		case ctx.Err() != nil:
			return
		case serval.IsRefusal(err, serval.NotFound, serval.Denied, serval.Invalid):
			w.Log.Info("the upstream has no tasks for this worker", zap.Error(err))
			pause(ctx, taskPause)
			continue
		case err != nil:
			failures++
			if err.Error() != said {
				said = err.Error()
				w.Log.Warn("the upstream does not list the tasks; trying again", zap.Error(err))
			}
			pause(ctx, backoff(failures))
			continue
		}
		version, said, failures = now, "", 0
		list = slices.DeleteFunc(list, func(t Listed) bool { return !w.owns(t.AccountID) })
		for _, t := range list {
			// Only with a slot in hand: a task that is claimed and waits here would
			// keep it from a worker that has time.
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			claimed, err := w.Tasks.Claim(ctx, t.ID, w.Name)
			if err != nil {
				<-slots
				if serval.IsRefusal(err, serval.Conflict, serval.NotFound) {
					continue // another worker was first
				}
				version = "" // look again, it is still there
				refused++
				w.Log.Warn("a task was not claimed", zap.String("task_id", t.ID), zap.Error(err))
				pause(ctx, backoff(refused))
				break
			}
			refused = 0
			go func() {
				defer func() { <-slots }()
				w.task(ctx, claimed)
			}()
		}
		if rest := claimPause - w.Now().Sub(asked); rest > 0 {
			pause(ctx, rest)
		}
	}
}

// task does one task and puts its result, again while the upstream is away and
// the claim lasts. What ends before leaves a claim that runs out; the next
// attempt recognises what this one did.
func (w *Worker) task(ctx context.Context, t Task) {
	begun := w.Now()
	bounded, cancel := context.WithTimeout(ctx, t.Kind.Deadline()) // by our own clock
	defer cancel()
	log := w.Log.With(zap.String("task_id", t.ID), zap.String("kind", string(t.Kind)), zap.String("account_id", t.AccountID),
		zap.String("run_id", t.RunID), zap.Int("attempt", t.Attempt))
	result, err := w.perform(bounded, t)
	if err != nil {
		log.Info("task abandoned", zap.Error(err)) // stopping, or out of time: another attempt will be
		return
	}
	for tries := 1; ; tries++ {
		err = w.Tasks.Finish(bounded, t, w.Name, result)
		if err == nil || bounded.Err() != nil || !isAway(err) {
			break
		}
		if tries == 1 {
			log.Warn("the upstream did not take a task's result; trying again", zap.Error(err))
		}
		pause(bounded, backoff(tries))
	}
	took := zap.Duration("took", w.Now().Sub(begun))
	switch {
	case err != nil:
		log.Error("a task's result was not taken", took, zap.Error(err))
	case result.Error != "":
		log.Warn("task failed", took, zap.String("error", result.Error))
	case result.Check != nil:
		log.Info("task done", took, zap.Bool("passed", result.Check.Passed), zap.String("text", result.Check.Text))
	default:
		log.Info("task done", took)
	}
}

// perform does the task. A panic in it is this task's failure and nobody else's.
func (w *Worker) perform(ctx context.Context, t Task) (r serval.RunResult, err error) {
	defer func() {
		if p := recover(); p != nil {
			r, err = serval.RunResult{Error: "Something went wrong in the worker while it did this."}, nil
			w.Log.Error("a task panicked", zap.String("task_id", t.ID), zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
		}
	}()
	return w.Perform(ctx, t)
}
