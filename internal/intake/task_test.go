package intake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/workflow"
)

// other is a worker that was given another account.
func other() serval.Principal {
	return serval.Principal{Kind: serval.KindWorker, Worker: "other", Bound: []string{dev}}
}

func passed(account string) serval.RunResult {
	return serval.RunResult{Check: &serval.Check{Name: serval.CheckConnection, AccountID: account, Passed: true, Text: serval.TextConnected}}
}

// check starts a check of prod and returns its run and its task.
func (w *world) check() (workflow.Run, string) {
	w.t.Helper()
	run, err := w.runs.StartCheck(w.t.Context(), adm(), prod, "")
	if err != nil {
		w.t.Fatal(err)
	}
	return run, w.free()
}

// free returns the one task that can be claimed.
func (w *world) free() string {
	w.t.Helper()
	tasks, _, err := w.intake.Tasks(w.t.Context(), hub())
	if err != nil || len(tasks) != 1 {
		w.t.Fatalf("tasks %+v (%v), want one", tasks, err)
	}
	return tasks[0].ID
}

func (w *world) claimTask(id, replica string) ClaimedTask {
	w.t.Helper()
	task, err := w.intake.ClaimTask(w.t.Context(), hub(), id, replica)
	if err != nil {
		w.t.Fatal(err)
	}
	return task
}

func (w *world) run(id string) workflow.Run {
	w.t.Helper()
	run, err := w.runs.Read(w.t.Context(), adm(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return run
}

func TestTasks(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		run, id := w.check()
		if run.Status != serval.RunRunning || run.Workflow != serval.WorkflowCheck {
			t.Errorf("run %+v, want it running at once", run)
		}
		again, err := w.runs.StartCheck(t.Context(), adm(), prod, serval.CheckConnection)
		if err != nil || again.ID != run.ID {
			t.Errorf("a second check while the first is open is %s (%v), want %s", again.ID, err, run.ID)
		}
		for who, worker := range map[string]serval.Principal{"a worker of another account": other()} {
			if tasks, _, err := w.intake.Tasks(t.Context(), worker); err != nil || len(tasks) != 0 {
				t.Errorf("%s sees %+v (%v)", who, tasks, err)
			}
			_, err := w.intake.ClaimTask(t.Context(), worker, id, "pod")
			_, none := w.intake.ClaimTask(t.Context(), worker, "task_none", "pod")
			wantKind(t, who, err, serval.NotFound)
			if fmt.Sprint(err) != fmt.Sprint(none) {
				t.Errorf("%s can tell a task that is there (%v) from one that is not (%v)", who, err, none)
			}
			_, err = w.intake.FinishTask(t.Context(), worker, id, "pod", 1, passed(prod))
			wantKind(t, who+" finishing", err, serval.NotFound)
		}

		before := w.head()
		task := w.claimTask(id, "pod-1")
		if task.Attempt != 1 || task.Account.ExternalID != "x1" || task.Kind != serval.TaskCheck || !task.Until.Equal(w.clock.now().Add(5*time.Minute)) {
			t.Errorf("claimed %+v, want the first attempt with the account", task)
		}
		_, err = w.intake.ClaimTask(t.Context(), hub(), id, "pod-2")
		wantKind(t, "claimed by another replica", err, serval.Conflict)
		if r, _ := errors.AsType[*serval.Refusal](err); r == nil || r.Detail["until"] == "" {
			t.Errorf("refused with %v, want until when", err)
		}
		_, err = w.intake.FinishTask(t.Context(), hub(), id, "pod-2", 1, passed(prod))
		wantKind(t, "finished by another replica", err, serval.Conflict)

		// The claim runs out; the attempt after it is the one that counts.
		w.clock.move(5 * time.Minute)
		second := w.claimTask(w.free(), "pod-2")
		if second.Attempt != 2 {
			t.Errorf("attempt %d, want 2", second.Attempt)
		}
		_, err = w.intake.FinishTask(t.Context(), hub(), id, "pod-1", 1, passed(prod))
		wantKind(t, "the older attempt", err, serval.Conflict)
		if r := w.run(run.ID); r.Status != serval.RunRunning {
			t.Errorf("an older attempt ended the run: %+v", r)
		}
		repeated, err := w.intake.FinishTask(t.Context(), hub(), id, "pod-2", 2, passed(prod))
		if err != nil || repeated {
			t.Errorf("finished: %v, repeated %v", err, repeated)
		}
		ended := w.head()
		repeated, err = w.intake.FinishTask(t.Context(), hub(), id, "pod-2", 2, passed(prod))
		if err != nil || !repeated || w.head() != ended {
			t.Errorf("the same again: %v, repeated %v, event %d after %d", err, repeated, w.head(), ended)
		}
		failed := passed(prod)
		failed.Check.Passed, failed.Check.Text = false, serval.TextNotAssumed
		_, err = w.intake.FinishTask(t.Context(), hub(), id, "pod-2", 2, failed)
		wantKind(t, "another result", err, serval.Conflict)
		r := w.run(run.ID)
		if r.Status != serval.RunDone || r.Result.Check == nil || !r.Result.Check.Passed || !r.Result.Check.At.Equal(w.clock.now()) {
			t.Errorf("run %+v, want it done with its check", r)
		}
		for id, want := range map[string]bool{prod: true, dev: false} {
			if a, err := w.plane.AccountByID(t.Context(), adm(), id); err != nil || (a.LastCheck != nil) != want || want && a.LastCheck.ID != run.ID {
				t.Errorf("account %s has the check %+v (%v), want it %v", id, a.LastCheck, err, want)
			}
		}

		var told []string
		for _, e := range w.events(before) {
			told = append(told, fmt.Sprintf("%s %s", e.Action, e.Outcome))
		}
		want := []string{"task.claim done", "task.claim refused", "task.finish refused", "task.claim done", "task.finish refused", "task.finish done", "task.finish refused"}
		if diff := cmp.Diff(want, told); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		// It can be checked again.
		if next, _ := w.check(); next.ID == run.ID {
			t.Error("a check that ended is the next one")
		}
	})
}

// Three attempts, and no fourth; a task that nobody takes fails too.
func TestTasksLapse(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		run, id := w.check()
		for i := range 3 {
			if got := w.claimTask(id, "pod").Attempt; got != i+1 {
				t.Errorf("attempt %d, want %d", got, i+1)
			}
			w.sweep()
			w.clock.move(5 * time.Minute)
		}
		if tasks, _, _ := w.intake.Tasks(t.Context(), hub()); len(tasks) != 0 {
			t.Errorf("tasks %+v after three attempts", tasks)
		}
		_, err := w.intake.ClaimTask(t.Context(), hub(), id, "pod")
		wantKind(t, "the fourth attempt", err, serval.Conflict)
		w.sweep()
		if r := w.run(run.ID); r.Status != serval.RunFailed || r.Result.Error != "The worker did not finish this, 3 times." {
			t.Errorf("run %+v, want it failed", r)
		}
		_, err = w.intake.FinishTask(t.Context(), hub(), id, "pod", 3, passed(prod))
		wantKind(t, "a result after the end", err, serval.Conflict)

		run, _ = w.check()
		w.clock.move(time.Hour - time.Second)
		w.sweep()
		if r := w.run(run.ID); r.Status != serval.RunRunning {
			t.Errorf("run %+v, want it still waiting", r)
		}
		w.clock.move(time.Second)
		w.sweep()
		if r := w.run(run.ID); r.Status != serval.RunFailed || !strings.Contains(r.Result.Error, "No worker took this within an hour") {
			t.Errorf("run %+v, want it failed for want of a worker", r)
		}

		// What is long over is dropped, and no sooner.
		w.clock.move(90*24*time.Hour - time.Second)
		w.sweep()
		w.run(run.ID)
		w.clock.move(2 * time.Second)
		w.sweep()
		_, err = w.runs.Read(t.Context(), adm(), run.ID)
		wantKind(t, "after ninety days", err, serval.NotFound)
	})
}

func (w *world) sweep() {
	w.t.Helper()
	if err := w.runs.Sweep(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// Who waits is told at once.
func TestWaitTasks(t *testing.T) {
	w := newWorld(t)
	_, version, err := w.intake.Tasks(t.Context(), hub())
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan []serval.Task, 1)
	go func() {
		tasks, _, _ := w.intake.WaitTasks(context.Background(), hub(), version, time.Minute)
		got <- tasks
	}()
	w.check()
	select {
	case tasks := <-got:
		if len(tasks) != 1 {
			t.Errorf("tasks %+v, want the one that was started", tasks)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("nobody was told of the task")
	}
	// The version is that of what this worker sees.
	if _, theirs, err := w.intake.Tasks(t.Context(), other()); err != nil || theirs != version {
		t.Errorf("another worker's version is %s (%v), want that of nothing, %s", theirs, err, version)
	}
}

// What a worker says is bounded, and nothing else than what can have come of the
// run is taken in.
func TestResultsAreHostile(t *testing.T) {
	w := newWorld(t)
	finding := serval.Finding{Causes: []serval.Cause{serval.CauseActionsDenied}, Text: "Denied.", Target: "arn:x", Actions: []string{"iam:GetRole"}, Code: "AccessDenied"}
	for name, change := range map[string]func(r *serval.RunResult, c *serval.Check, f *serval.Finding){
		"nothing":              func(r *serval.RunResult, _ *serval.Check, _ *serval.Finding) { r.Check = nil },
		"a role":               func(r *serval.RunResult, _ *serval.Check, _ *serval.Finding) { r.Role = &serval.CreatedRole{} },
		"a sync":               func(r *serval.RunResult, _ *serval.Check, _ *serval.Finding) { r.Sync = &serval.SyncResult{} },
		"a check and an error": func(r *serval.RunResult, _ *serval.Check, _ *serval.Finding) { r.Error = "no" },
		"a long error": func(r *serval.RunResult, c *serval.Check, _ *serval.Finding) {
			r.Check, r.Error = nil, strings.Repeat("x", 4001)
		},
		"an error with a bell":  func(r *serval.RunResult, c *serval.Check, _ *serval.Finding) { r.Check, r.Error = nil, "\a" },
		"another check":         func(_ *serval.RunResult, c *serval.Check, _ *serval.Finding) { c.Name = serval.CheckOrganization },
		"another account":       func(_ *serval.RunResult, c *serval.Check, _ *serval.Finding) { c.AccountID = dev },
		"a text of its own":     func(_ *serval.RunResult, c *serval.Check, _ *serval.Finding) { c.Text = "All is well" },
		"passed with a failure": func(_ *serval.RunResult, c *serval.Check, _ *serval.Finding) { c.Text = serval.TextNotAssumed },
		"failed with a success": func(_ *serval.RunResult, c *serval.Check, _ *serval.Finding) { c.Passed = false },
		"another check's text": func(_ *serval.RunResult, c *serval.Check, _ *serval.Finding) {
			c.Passed, c.Text = false, serval.TextNoListAccounts
		},
		"accounts": func(_ *serval.RunResult, c *serval.Check, _ *serval.Finding) {
			c.Accounts = []serval.OrganizationAccount{{ID: dev}}
		},
		"an identity that is none": func(_ *serval.RunResult, c *serval.Check, _ *serval.Finding) {
			c.Identity = "arn:aws:iam::999988887777:root\n"
		},
		"many findings": func(_ *serval.RunResult, c *serval.Check, f *serval.Finding) {
			c.Findings = slices.Repeat([]serval.Finding{*f}, 21)
		},
		"no cause":                  func(_ *serval.RunResult, _ *serval.Check, f *serval.Finding) { f.Causes = nil },
		"a cause of its own":        func(_ *serval.RunResult, _ *serval.Check, f *serval.Finding) { f.Causes = []serval.Cause{"magic"} },
		"many causes":               func(_ *serval.RunResult, _ *serval.Check, f *serval.Finding) { f.Causes = slices.Repeat(f.Causes, 11) },
		"an action of its own":      func(_ *serval.RunResult, _ *serval.Check, f *serval.Finding) { f.Actions = []string{"iam:PassRole"} },
		"a target with a space":     func(_ *serval.RunResult, _ *serval.Check, f *serval.Finding) { f.Target = "arn: x" },
		"a long target":             func(_ *serval.RunResult, _ *serval.Check, f *serval.Finding) { f.Target = strings.Repeat("x", 2049) },
		"a long code":               func(_ *serval.RunResult, _ *serval.Check, f *serval.Finding) { f.Code = strings.Repeat("x", 129) },
		"a long sentence":           func(_ *serval.RunResult, _ *serval.Check, f *serval.Finding) { f.Text = strings.Repeat("x", 4001) },
		"a sentence with an escape": func(_ *serval.RunResult, _ *serval.Check, f *serval.Finding) { f.Text = "\x1b[2J" },
		"findings besides the check": func(r *serval.RunResult, _ *serval.Check, f *serval.Finding) {
			r.Findings = []serval.Finding{{Text: "x"}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, id := w.check()
			task := w.claimTask(id, "pod")
			r := passed(prod)
			r.Check.Findings = []serval.Finding{finding}
			change(&r, r.Check, &r.Check.Findings[0])
			_, err := w.intake.FinishTask(t.Context(), hub(), id, "pod", task.Attempt, r)
			wantKind(t, name, err, serval.Invalid)
			// What was refused has changed nothing, and the right result still counts.
			r = passed(prod)
			r.Check.Findings = []serval.Finding{finding}
			if _, err := w.intake.FinishTask(t.Context(), hub(), id, "pod", task.Attempt, r); err != nil {
				t.Errorf("the right result after it: %v", err)
			}
		})
	}
}

func TestListedAccountsAreHostile(t *testing.T) {
	w := newWorld(t)
	good := serval.OrganizationAccount{ID: "222233334444", Name: "dev", Status: "ACTIVE"}
	try := func(name string, want serval.Kind, accounts ...serval.OrganizationAccount) {
		t.Run(name, func(t *testing.T) {
			if _, err := w.runs.Start(t.Context(), adm(), serval.WorkflowListAccounts, prod, nil); err != nil {
				t.Fatal(err)
			}
			id := w.free()
			task := w.claimTask(id, "pod")
			r := serval.RunResult{Check: &serval.Check{Name: serval.CheckOrganization, AccountID: prod, Passed: true,
				Text: serval.TextAccountsListed(len(accounts)), Accounts: accounts}}
			_, err := w.intake.FinishTask(t.Context(), hub(), id, "pod", task.Attempt, r)
			wantKind(t, name, err, want)
			if err != nil {
				_, _ = w.intake.FinishTask(t.Context(), hub(), id, "pod", task.Attempt, serval.RunResult{Error: "over"})
			}
		})
	}
	try("good", "", good)
	try("none", "")
	try("an id that is none", serval.Invalid, serval.OrganizationAccount{ID: "1", Name: "x"})
	try("twice", serval.Invalid, good, good)
	try("a long name", serval.Invalid, serval.OrganizationAccount{ID: good.ID, Name: strings.Repeat("x", 101)})
	try("a name with an escape", serval.Invalid, serval.OrganizationAccount{ID: good.ID, Name: "\x1b[2J"})
	try("a long status", serval.Invalid, serval.OrganizationAccount{ID: good.ID, Status: strings.Repeat("x", 41)})
	many := make([]serval.OrganizationAccount, 20_001)
	for i := range many {
		many[i].ID = fmt.Sprintf("%012d", i)
	}
	try("many", serval.Invalid, many...)
	try("as many as there may be", "", many[:20_000]...)
}

// "Fetch AWS IAM Roles for Resource Sync" is a sync, and ends with the first that
// began after it.
func TestFetchRoles(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		run, err := w.runs.Start(t.Context(), adm(), serval.WorkflowFetchRoles, prod, nil)
		if err != nil || run.Status != serval.RunRunning {
			t.Fatalf("run %+v (%v)", run, err)
		}
		if tasks, _, _ := w.intake.Tasks(t.Context(), hub()); len(tasks) != 0 {
			t.Errorf("tasks %+v, want none for a sync", tasks)
		}
		if w.account(prod).SyncRequestedAt.IsZero() {
			t.Error("no sync was asked for")
		}
		w.pushAs(prod, func(inv *serval.Inventory) { inv.StartedAt = inv.StartedAt.Add(-time.Minute) }, aRole(prod, "reader"))
		if r := w.run(run.ID); r.Status != serval.RunRunning {
			t.Errorf("a sync that had begun before ended the run: %+v", r)
		}
		w.clock.move(time.Second)
		w.push(dev)
		w.push(prod, aRole(prod, "reader"), aRole(prod, "admin"))
		r := w.run(run.ID)
		if r.Status != serval.RunDone || r.Result.Sync == nil || *r.Result.Sync != (serval.SyncResult{Generation: 2, Complete: true, Roles: 2}) {
			t.Errorf("run %+v with %+v, want it done with the sync", r, r.Result.Sync)
		}
		waits, err := w.runs.Start(t.Context(), adm(), serval.WorkflowFetchRoles, dev, nil)
		if err != nil {
			t.Fatal(err)
		}
		w.clock.move(24 * time.Hour)
		w.sweep()
		if r := w.run(waits.ID); r.Status != serval.RunFailed || !strings.Contains(r.Result.Error, "24 hours") {
			t.Errorf("run %+v, want it failed when no sync came for a day", r)
		}
	})
}

// Two replicas and two workers: one claims.
func TestClaimRace(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		_, id := w.check()
		replicas := w.replicas()
		type outcome struct {
			task ClaimedTask
			err  error
		}
		done := make(chan outcome)
		for i := range 8 {
			go func() {
				task, err := replicas[i%len(replicas)].ClaimTask(context.Background(), hub(), id, fmt.Sprintf("pod-%d", i))
				done <- outcome{task, err}
			}()
		}
		claims := 0
		for range 8 {
			o := <-done
			if o.err == nil {
				claims++
				if o.task.Attempt != 1 {
					t.Errorf("attempt %d", o.task.Attempt)
				}
				continue
			}
			wantKind(t, "losing", o.err, serval.Conflict)
		}
		if claims != 1 {
			t.Errorf("%d claims, want one", claims)
		}
	})
}

// A result reads back as it was put.
func TestResultIsKept(t *testing.T) {
	w := newWorld(t)
	run, id := w.check()
	task := w.claimTask(id, "pod")
	r := passed(prod)
	r.Check.Passed, r.Check.Text = false, serval.TextNotAssumed
	r.Check.Identity = "arn:aws:sts::999988887777:assumed-role/worker/serval"
	r.Check.Findings = []serval.Finding{{Causes: []serval.Cause{serval.CauseExternalID, serval.CauseNoRole}, Text: "One of „these“ <&>.",
		Target: "arn:aws:iam::" + prod + ":role/serval-ingestion", Actions: []string{}, Code: "AccessDenied"}}
	if _, err := w.intake.FinishTask(t.Context(), hub(), id, "pod", task.Attempt, r); err != nil {
		t.Fatal(err)
	}
	got := w.run(run.ID)
	r.Check.At = w.clock.now()
	want, _ := json.Marshal(r)
	have, _ := json.Marshal(got.Result)
	if diff := cmp.Diff(string(want), string(have)); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	// What mends it is made here, of what the account is.
	mends := got.Mends(got.Result.Check.Findings[0])
	if len(mends) != 2 || !strings.Contains(mends[0].Text, `"sts:ExternalId": "x1"`) || !strings.Contains(mends[0].Text, "arn:aws:iam::999988887777:root") {
		t.Errorf("mends %+v, want the trust policy with the account's own values", mends)
	}
}
