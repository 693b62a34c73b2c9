package control

import (
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
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
	if err := w.store.Stage(t.Context(), "push_left", prod, w.clock.now(), []serval.Role{aRole(prod, "left")}); err != nil {
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
	// The role's id would be taken twice, were it still staged.
	if err := w.store.Stage(t.Context(), "push_left", prod, w.clock.now(), []serval.Role{aRole(prod, "left")}); err != nil {
		t.Errorf("staged roles were left behind: %v", err)
	}
	if err := w.plane.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.store.Stage(t.Context(), "push_left", prod, w.clock.now(), []serval.Role{aRole(prod, "left")}); !serval.IsRefusal(err) {
		t.Errorf("fresh staged roles were swept: %v", err)
	}
	w.store.Close()
	if err := w.plane.Sweep(t.Context()); err == nil {
		t.Error("a sweep over a store that is gone has no error")
	}
}

func TestPublishHead(t *testing.T) {
	w := newWorld(t)
	if err := w.plane.PublishHead(t.Context()); err != nil {
		t.Fatal(err)
	}
	logs := w.logs.FilterMessage("audit chain").All()
	if len(logs) != 1 || logs[0].ContextMap()["seq"] != w.head() || len(logs[0].ContextMap()["hash"].(string)) != 64 {
		t.Errorf("logged %+v, want the head %d", logs, w.head())
	}
	w.store.Close()
	if err := w.plane.PublishHead(t.Context()); err == nil {
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
			rows, at, err := w.plane.Events(t.Context(), who, AuditFilter{Limit: 3})
			if err != nil || len(rows) != 3 || rows[0].Seq != head || at.Seq != head || at.Hash != rows[0].Hash {
				t.Errorf("events for %s: %+v, %+v, %v", who.Name(), rows, at, err)
			}
		}
		for name, who := range map[string]serval.Principal{"ana": p.ana, "lea": p.lea} {
			rows, _, err := w.plane.Events(t.Context(), who, AuditFilter{Limit: 3})
			wantKind(t, "the log for "+name, err, serval.Denied)
			if len(rows) != 0 {
				t.Errorf("%s got %d rows", name, len(rows))
			}
		}
		count := func(f AuditFilter) int {
			f.Limit = 1000
			rows, _, err := w.plane.Events(t.Context(), p.aud, f)
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
