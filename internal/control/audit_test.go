package control

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// Time ends what is due, once, whoever notices.
func TestSweep(t *testing.T) { each(t, testSweep) }

func testSweep(t *testing.T, w *world) {
	w.stock()
	planes := w.replicas()
	p := w.people()
	pending, unused := w.ask(p.ana, roleARN(prod, "admin"), 60), w.ask(p.ana, roleARN(prod, "reader"), 60)
	running := w.ask(p.ana, roleARN(dev, "reader"), 60)
	scheduled := w.ask(p.ana, roleARN(prod, "reader"), 60, func(a *serval.Ask) { a.StartAt = w.clock.now().Add(24 * time.Hour) })
	w.open(p.ana, running.ID)
	sweep := func() []string {
		t.Helper()
		before := w.head()
		var wg sync.WaitGroup
		for range 3 {
			for _, plane := range planes {
				wg.Go(func() {
					if err := plane.Sweep(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
		}
		wg.Wait()
		return targets(w.events(before))
	}
	end := w.request(running.ID).EndsAt
	for _, test := range []struct {
		name string
		at   time.Time
		want []string
		id   string
		by   serval.EndedBy
	}{
		{"just before the grant's end", end.Add(-time.Microsecond), []string{}, "", ""},
		{"the grant's end", end, []string{"request.expire " + running.ID}, running.ID, serval.EndedByTime},
		{"just before a week", noon.Add(serval.DefaultRequestExpiry - time.Microsecond), []string{}, "", ""},
		{"a week", noon.Add(serval.DefaultRequestExpiry), []string{"request.expire " + pending.ID, "request.expire " + unused.ID}, unused.ID, serval.EndedByUnused},
		{"a week after the start", noon.Add(serval.DefaultRequestExpiry + 24*time.Hour), []string{"request.expire " + scheduled.ID}, scheduled.ID, serval.EndedByUnused},
	} {
		w.clock.at.Store(test.at.UnixMicro())
		got := sweep()
		if d := cmp.Diff(sorted(test.want), sorted(got)); d != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, d)
		}
		if test.id == "" {
			continue
		}
		if r := w.request(test.id); r.Status != serval.StatusExpired || r.EndedBy != test.by || !r.EndedAt.Equal(test.at.Truncate(time.Microsecond)) {
			t.Errorf("%s: %s by %q at %s, want expired by %q at %s", test.name, r.Status, r.EndedBy, r.EndedAt, test.by, test.at)
		}
	}
	if r := w.request(pending.ID); r.Status != serval.StatusExpired || r.EndedBy != "" {
		t.Errorf("the undecided request: %s by %q", r.Status, r.EndedBy)
	}
}

// Only an intent that is old enough and has no outcome is closed as unknown: one
// that got its outcome while the sweep came to it keeps that.
func TestCloseIntent(t *testing.T) { // S-74
	w := newWorld(t).stock()
	p := w.people()
	r := w.ask(p.ana, roleARN(dev, "reader"), 60)
	issued := w.open(p.ana, r.ID).Session
	intent := func(id string, age time.Duration, state serval.SessionState) serval.Session {
		s := issued
		s.ID, s.State, s.StartedAt, s.FinishedAt, s.AccessKeyID = id, state, w.clock.now().Add(-age), time.Time{}, ""
		if err := w.store.Write(t.Context(), w.clock.now(), func(tx *store.Tx) error {
			if err := tx.SaveSession(s); err != nil {
				return err
			}
			return tx.Append(serval.Event{Action: serval.SessionOpen})
		}); err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, c := range []struct {
		session serval.Session
		want    serval.SessionState
		rows    int
	}{
		{issued, serval.SessionIssued, 0},
		{intent("session_failed", time.Hour, serval.SessionFailed), serval.SessionFailed, 0},
		{intent("session_young", serval.MintDeadline-time.Microsecond, serval.SessionStarted), serval.SessionStarted, 0},
		{intent("session_old", serval.MintDeadline, serval.SessionStarted), serval.SessionUnknown, 1},
	} {
		before := w.head()
		if err := w.plane.closeIntent(t.Context(), serval.System(), c.session.ID); err != nil {
			t.Fatal(err)
		}
		if got := w.session(c.session.ID); got.State != c.want || len(w.events(before)) != c.rows {
			t.Errorf("%s, begun at %s: %s with %d rows, want %s with %d", c.session.ID, c.session.StartedAt, got.State, len(w.events(before)), c.want, c.rows)
		}
	}
}

// A request expires after the time that is set.
func TestRequestExpiry(t *testing.T) {
	w := newWorld(t).stock()
	w.usePlane(w.newPlane(w.store, func(s *Settings) { s.RequestExpiry = time.Hour }))
	ana := w.engineer("ana@example.com")
	pending, unused := w.ask(ana, roleARN(prod, "admin"), 60), w.ask(ana, roleARN(prod, "reader"), 60)
	w.clock.move(time.Hour)
	if err := w.plane.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*serval.Request{pending, unused} {
		if got := w.request(r.ID).Status; got != serval.StatusExpired {
			t.Errorf("%s is %s after an hour", r.Role.ARN, got)
		}
	}
}

// A Sweep does a hundred of each, and the next one the rest; roles that a push
// left behind go after an hour.
func TestSweepBounds(t *testing.T) {
	w := newWorld(t).stock()
	ana := w.engineer("ana@example.com")
	for range sweepLimit + 5 {
		w.ask(ana, roleARN(prod, "reader"), 5)
	}
	if err := w.store.Stage(t.Context(), "push_left", prod, w.clock.now(), []store.Staged{{Role: aRole(prod, "left"), Digest: "x"}}); err != nil {
		t.Fatal(err)
	}
	w.clock.move(serval.DefaultRequestExpiry)
	for _, want := range []int{sweepLimit, 5, 0} {
		before := w.head()
		if err := w.plane.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := int(w.head() - before); got != want {
			t.Errorf("swept %d, want %d", got, want)
		}
	}
	// The name would have two roles, were the one still staged.
	if err := w.store.Stage(t.Context(), "push_left", prod, w.clock.now(), []store.Staged{{Role: aRole(prod, "again"), Digest: "x"}}); err != nil {
		t.Errorf("staged roles were left behind: %v", err)
	}
	if err := w.plane.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.store.Stage(t.Context(), "push_left", prod, w.clock.now(), []store.Staged{{Role: aRole(prod, "other"), Digest: "x"}}); !serval.IsRefusal(err) {
		t.Errorf("fresh staged roles were swept: %v", err)
	}
	w.store.Close()
	if err := w.plane.Sweep(t.Context()); err == nil {
		t.Error("a sweep over a store that is gone has no error")
	}
}

func TestPublishHead(t *testing.T) {
	w := newWorld(t)
	if head, err := w.plane.PublishHead(t.Context()); err != nil || head.Seq != w.head() {
		t.Fatalf("published %+v, %v; want the head %d", head, err, w.head())
	}
	logs := w.logs.FilterMessage("audit chain head").All()
	if len(logs) != 1 || logs[0].ContextMap()["seq"] != w.head() || len(logs[0].ContextMap()["hash"].(string)) != 64 {
		t.Errorf("logged %+v, want the head %d", logs, w.head())
	}
	w.store.Close()
	if _, err := w.plane.PublishHead(t.Context()); err == nil {
		t.Error("published the head of a store that is gone")
	}
}

// The audit log is for auditors and admins; a request's rows for whoever sees
// the request.
func TestEvents(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.stock()
		p := w.people()
		r := w.approved(p, 60)
		w.open(p.ana, r.ID)
		head := w.head()
		for _, who := range []serval.Principal{p.adm, p.aud} {
			rows, _, at, err := w.plane.Events(t.Context(), who, AuditFilter{Limit: 3})
			if err != nil || len(rows) != 3 || rows[0].Seq != head || at.Seq != head || at.Hash != rows[0].Hash {
				t.Errorf("events for %s: %+v, %+v, %v", who.Name(), rows, at, err)
			}
		}
		for name, who := range map[string]serval.Principal{"ana": p.ana, "lea": p.lea} {
			rows, _, _, err := w.plane.Events(t.Context(), who, AuditFilter{Limit: 3})
			wantKind(t, "the log for "+name, err, serval.Denied)
			if len(rows) != 0 {
				t.Errorf("%s got %d rows", name, len(rows))
			}
		}
		count := func(f AuditFilter) int {
			f.Limit = 1000
			rows, _, _, err := w.plane.Events(t.Context(), p.aud, f)
			if err != nil {
				t.Fatal(err)
			}
			return len(rows)
		}
		if n := count(AuditFilter{Target: r.ID}); n != 5 {
			t.Errorf("%d rows of the request, want 5", n)
		}
		if n := count(AuditFilter{Target: r.ID, Action: serval.SessionIssue}); n != 1 {
			t.Errorf("%d rows of an issue, want 1", n)
		}
		for _, test := range []struct {
			filter AuditFilter
			want   int
		}{
			{AuditFilter{Target: r.ID, Actor: "ana@example.com"}, 3}, {AuditFilter{Target: r.ID, Actor: p.ana.Person.ID}, 3}, {AuditFilter{Actor: "ana"}, 0},
			{AuditFilter{Target: r.ID, Outcome: serval.OutcomeStarted}, 1}, {AuditFilter{Target: r.ID, From: w.clock.now()}, 5},
			{AuditFilter{Target: r.ID, To: w.clock.now()}, 0}, {AuditFilter{Actor: "hub", Action: serval.InventoryAccept}, 2},
		} {
			if n := count(test.filter); n != test.want {
				t.Errorf("%+v: %d rows, want %d", test.filter, n, test.want)
			}
		}
		for _, f := range []AuditFilter{{Outcome: "well"}, {From: noon, To: noon}, {From: noon, To: noon.Add(-1)}} {
			_, _, _, err := w.plane.Events(t.Context(), p.aud, f)
			wantKind(t, fmt.Sprintf("%+v", f), err, serval.Invalid)
		}
		if n := count(AuditFilter{Before: 4}); n != 3 {
			t.Errorf("%d rows before the fourth, want 3", n)
		}
		want := []string{
			"ana@example.com request.create done", "lea@example.com request.approve_step done", "cto@example.com request.approve done",
			"ana@example.com session.open started", "ana@example.com session.issue done",
		}
		for _, who := range []serval.Principal{p.ana, p.lea, p.cto, p.adm, p.aud} {
			rows, err := w.plane.EventsOf(t.Context(), who, r.ID)
			if err != nil {
				t.Fatal(err)
			}
			var events []serval.Event
			for _, l := range rows {
				events = append(events, l.Event)
			}
			if d := cmp.Diff(want, told(events)); d != "" {
				t.Errorf("for %s (-want +got):\n%s", who.Name(), d)
			}
		}
		rows, err := w.plane.EventsOf(t.Context(), p.bob, r.ID)
		wantKind(t, "for bob", err, serval.NotFound)
		if rows != nil {
			t.Errorf("bob got %d rows", len(rows))
		}
	})
}

// An export is the whole log as it was when it began, its own row and the head
// included, and is for auditors and admins.
func TestExport(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		p := w.stock().people()
		must(t, w.store.Write(t.Context(), w.clock.now(), func(tx *store.Tx) error {
			for range exportBatch + 10 { // more than is read at a time
				if err := tx.Append(serval.Event{Action: serval.LoginStart}); err != nil {
					return err
				}
			}
			return nil
		}))
		for _, who := range []serval.Principal{p.adm, p.aud} {
			for _, after := range []int64{0, 3, w.head(), w.head() + 100} {
				before := w.head()
				var rows []serval.Link
				head, err := w.plane.Export(t.Context(), who, after, func(l serval.Link) error {
					if len(rows) == 0 { // what comes meanwhile is not of it
						w.ask(p.ana, roleARN(prod, "own"), 10)
						w.plane.Cancel(t.Context(), p.ana, w.events(before + 1)[0].Target)
					}
					rows = append(rows, l)
					return nil
				})
				if err != nil || head.Seq != before+1 {
					t.Fatalf("%s exports behind %d: %v, head %d, want %d", who.Name(), after, err, head.Seq, before+1)
				}
				if want := max(0, head.Seq-after); int64(len(rows)) != want {
					t.Fatalf("%s exports %d rows behind %d, want %d", who.Name(), len(rows), after, want)
				}
				last := serval.Link{}
				for i, l := range rows {
					if l.Seq != after+int64(i)+1 {
						t.Fatalf("row %d comes at place %d behind %d", l.Seq, i, after)
					}
					last = l
				}
				if len(rows) > 0 && (last.Hash != head.Hash || last.Action != serval.AuditExport || last.Actor != who.Name() || last.Detail["after"] != fmt.Sprint(after)) {
					t.Errorf("the last row is %+v, want the export itself, which is the head", last)
				}
			}
		}
		take := func(serval.Link) error { t.Error("a row was handed over"); return nil }
		before := w.head()
		_, err := w.plane.Export(t.Context(), p.ana, 0, take)
		wantKind(t, "an export for a person", err, serval.Denied)
		if d := cmp.Diff([]string{"ana@example.com audit.export refused"}, told(w.events(before))); d != "" {
			t.Errorf("events (-want +got):\n%s", d)
		}
		stop := errors.New("stop")
		if _, err := w.plane.Export(t.Context(), p.aud, 0, func(serval.Link) error { return stop }); !errors.Is(err, stop) {
			t.Errorf("whoever takes cannot: %v", err)
		}

		// A few at a time, and whoever is done makes room.
		for range maxExports {
			w.plane.exports.Add(1)
		}
		_, err = w.plane.Export(t.Context(), p.aud, 0, take)
		wantKind(t, "an export beside as many as there may be", err, serval.Exhausted)
		w.plane.exports.Store(0)
		if _, err := w.plane.Export(t.Context(), p.aud, w.head()+100, take); err != nil || w.plane.exports.Load() != 0 {
			t.Errorf("an export when the others have ended: %v, %d under way", err, w.plane.exports.Load())
		}
	})
}

// What the edge refuses of somebody is recorded, within a bound of their own.
func TestTurnedAway(t *testing.T) {
	w := newWorld(t)
	p := w.people()
	before := w.head()
	cause := &serval.Refusal{Kind: serval.Invalid, Reason: "The body breaks off."}
	for range 15 {
		w.plane.TurnedAway(t.Context(), p.ana, "POST /api/v1/requests", cause)
	}
	w.plane.TurnedAway(t.Context(), p.bob, "POST /api/v1/requests", cause)
	w.clock.move(time.Minute)
	w.plane.TurnedAway(t.Context(), p.ana, "POST /api/v1/requests", cause)
	events := w.events(before)
	if len(events) != 12 {
		t.Fatalf("%d rows of 17 refusals, want ten of Ana's, Bob's and Ana's in the next minute", len(events))
	}
	last := events[11]
	if last.Action != serval.EdgeRefuse || last.Outcome != serval.OutcomeRefused || last.Reason != cause.Reason || last.Target != "POST /api/v1/requests" ||
		last.Detail["not_recorded_before"] != "5" || events[10].Actor != "bob@example.com" {
		t.Errorf("the last row is %+v, want Ana's with the five that were not recorded, behind Bob's", last)
	}
}
