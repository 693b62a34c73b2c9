package control

import (
	"context"
	"database/sql"
	"math"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/pgtest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/storetest"
)

// the connection to PostgreSQL is cut at each statement of opening a session,
// of asking and of deciding, before it arrives and after it was done. Nothing is
// half done, no row of the audit log is lost, no clock starts twice, and the next
// attempt works on new connections. SERVAL_LONG=1 cuts at every one of them, and
// not at every third.
func TestPostgresCutAtEachStatement(t *testing.T) {
	proxy, url := pgtest.NewProxy(t, pgtest.URLOf(t, storetest.Migrate))
	w := worldOver(t, url).stock()
	p := w.people()
	var cuts, clocks int
	step := 3
	if os.Getenv("SERVAL_LONG") != "" {
		step = 1
	}
	for _, after := range []bool{false, true} {
		for nth := 1 + rand.IntN(step); ; nth += step {
			r := w.ask(p.ana, roleARN(prod, "own"), 60)
			before := w.head()
			proxy.Cut(nth, after)
			_, decided := w.plane.Decide(t.Context(), p.ana, r.ID, serval.Decision{Approve: true})
			var opened error
			if decided == nil {
				_, opened = w.plane.Open(t.Context(), p.ana, opening(r.ID))
			}
			hit := proxy.Cuts() > cuts
			proxy.Cut(0, false)
			cuts = proxy.Cuts()

			began := time.Now()
			now := w.request(r.ID)
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("cut %d: the next read took %s", nth, took)
			}
			// What is said to be done is done; what is done is recorded, once.
			counts := map[serval.Action]int{}
			for _, e := range w.events(before) {
				if e.Target == r.ID && (e.Outcome == serval.OutcomeDone || e.Outcome == serval.OutcomeStarted) {
					counts[e.Action]++
				}
			}
			var recorded, issued int
			for _, s := range w.sessions(r.ID) {
				switch s.State {
				case serval.SessionIssued:
					issued++
					recorded++
				case serval.SessionDropped: // the last look at the grant could not be made
					recorded++
				}
			}
			if approved := now.Status == serval.StatusApproved; approved != (counts[serval.RequestApprove] == 1) || decided == nil && !approved {
				t.Errorf("cut %d (after %v): %s, %d approvals recorded, and the approver heard %v", nth, after, now.Status, counts[serval.RequestApprove], decided)
			}
			if recorded != counts[serval.SessionIssue] || (recorded == 1) != !now.ClockStartedAt.IsZero() || decided == nil && opened == nil && issued != 1 {
				t.Errorf("cut %d (after %v): %d sessions, %d recorded, clock from %s, and ana heard %v", nth, after, recorded, counts[serval.SessionIssue], now.ClockStartedAt, opened)
			}

			// The next attempt works, and starts no second clock.
			first := now.ClockStartedAt
			if now.Status != serval.StatusApproved {
				if _, err := w.plane.Decide(t.Context(), p.ana, r.ID, serval.Decision{Approve: true}); err != nil {
					t.Fatalf("cut %d: deciding again: %v", nth, err)
				}
			}
			w.open(p.ana, r.ID)
			if got := w.request(r.ID).ClockStartedAt; got.IsZero() || !first.IsZero() && !got.Equal(first) {
				t.Errorf("cut %d: the clock runs from %s, and ran from %s", nth, got, first)
			} else {
				clocks++
			}
			if _, err := w.plane.Done(t.Context(), p.ana, r.ID); err != nil {
				t.Fatal(err)
			}
			w.clock.move(2 * time.Second)
			if !hit {
				break // beyond the last statement
			}
		}
	}
	// What was left without an outcome is closed, once.
	w.clock.move(serval.MintDeadline)
	if err := w.plane.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := w.store.Read(t.Context(), func(v *store.View) error {
		open, err := v.OpenIntents(w.clock.now(), 10)
		if len(open) > 0 {
			t.Errorf("%d intents are left open", len(open))
		}
		if err == nil {
			_, err = v.VerifyChain(store.Head{})
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if cuts < 24/step {
		t.Errorf("only %d cuts were made", cuts)
	}
	t.Logf("%d cuts, no row lost, %d clocks started once each", cuts, clocks)
}

// An opening waits for PostgreSQL three times: for what may be opened, for the intent, and
// for the outcome with the last look behind it. That it made a way into the console is
// one more: nothing is read again for it. Where other replicas record something all the
// time, two more: the chain is taken and read again what may be opened, and it is seen
// that there is no outcome yet.
func TestOpeningWaitsForPostgresThreeTimes(t *testing.T) {
	address := pgtest.URLOf(t, storetest.Migrate)
	proxy, url := pgtest.NewProxy(t, address)
	w := worldOver(t, url).stock()
	w.url = address
	other := w.replicas()[1]
	ana, adm := w.engineer("ana@example.com"), w.signIn("adm@example.com")
	r := w.ask(ana, roleARN(prod, "reader"), 60)
	console := opening(r.ID)
	console.Kind = serval.ForConsole
	for _, c := range []struct {
		ask    Opening
		beside bool
		want   int
	}{{opening(r.ID), false, 3}, {console, false, 4}, {opening(r.ID), true, 5}} {
		w.sts.say(func(_ context.Context, _ serval.Mint, right serval.Minted) (serval.Minted, error) {
			if c.beside {
				if err := other.RequestSync(t.Context(), adm, prod); err != nil {
					t.Error(err)
				}
			}
			return right, nil
		})
		least := math.MaxInt
		for range 10 { // connections prepare statements, and see whether they live, now and then
			before := proxy.Sent()
			if _, err := w.plane.Open(t.Context(), ana, c.ask); err != nil {
				t.Fatal(err)
			}
			least = min(least, proxy.Sent()-before)
		}
		if least != c.want {
			t.Errorf("opening a session for %s, with others beside it %t, waited for PostgreSQL %d times, want %d", c.ask.Kind, c.beside, least, c.want)
		}
	}
}

// S-75: an access that is taken away right behind the record, before anybody hears that
// it is kept, is not handed over: the look behind the commit sees that there is more.
func TestTakenAwayBehindTheRecord(t *testing.T) {
	url := pgtest.URLOf(t, storetest.Migrate)
	w := worldOver(t, url).stock()
	p := w.people()
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, kind := range []serval.SessionKind{serval.ForCredentials, serval.ForConsole} {
		r := w.ask(p.ana, roleARN(prod, "reader"), 60)
		w.open(p.ana, r.ID)
		last := serval.SessionIssue
		if kind == serval.ForConsole {
			last = serval.SessionSignIn
		}
		// At the end of that very transaction, as if another replica's came behind it.
		for _, s := range []string{
			`create or replace function taken() returns trigger language plpgsql as $$ begin
				if new.action = '` + string(last) + `' and new.target = '` + r.ID + `' then
					update request set status = 'revoked' where id = new.target;
					update chain set seq = seq + 1;
				end if;
				return null;
			end $$`,
			`drop trigger if exists taken on event`,
			`create constraint trigger taken after insert on event deferrable initially deferred for each row execute function taken()`,
		} {
			if _, err := db.ExecContext(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
		ask := opening(r.ID)
		ask.Kind = kind
		o, err := w.tryOpen(p.ana, ask)
		wantKind(t, "opening a session for "+string(kind), err, serval.Conflict)
		wantNothing(t, o)
		states := map[serval.SessionState]int{}
		for _, s := range w.sessions(r.ID) {
			states[s.State]++
		}
		if states[serval.SessionDropped] != 1 || states[serval.SessionIssued] != 1 {
			t.Errorf("sessions for %s: %v, want one of before, and one that was dropped", kind, states)
		}
	}
}

// time passes between the record and the last look, too.
func TestEndedBehindTheRecord(t *testing.T) {
	w := worldOver(t, pgtest.URLOf(t, storetest.Migrate)).stock()
	ana := w.engineer("ana@example.com")
	r := w.ask(ana, roleARN(prod, "reader"), 30)
	w.open(ana, r.ID)
	w.clock.at.Store(noon.Add(30*time.Minute - 500*time.Millisecond).UnixMicro())
	w.onceKept(r.ID, func() { w.clock.move(600 * time.Millisecond) })
	o, err := w.plane.Open(t.Context(), ana, opening(r.ID))
	wantKind(t, "ended between record and hand-over", err, serval.Conflict)
	wantNothing(t, o)
	if s := w.sessions(r.ID)[1]; s.State != serval.SessionDropped {
		t.Errorf("the session is %s, want dropped", s.State)
	}
}

// S-75: the look that goes with the record counts for a second: an access that is taken
// away while the answer is on the way for longer is not handed over.
func TestTakenAwayWhileTheAnswerIsOnTheWay(t *testing.T) {
	url := pgtest.URLOf(t, storetest.Migrate)
	w := worldOver(t, url).stock()
	ana := w.engineer("ana@example.com")
	r := w.ask(ana, roleARN(prod, "reader"), 60)
	w.open(ana, r.ID)
	other := w.newPlane(w.openStore())
	w.clock.move(2 * time.Second)
	w.onceKept(r.ID, func() {
		if _, err := other.Done(t.Context(), ana, r.ID); err != nil {
			t.Error(err)
		}
		w.clock.move(lookTime)
	})
	o, err := w.plane.Open(t.Context(), ana, opening(r.ID))
	wantKind(t, "taken away while the answer was on the way", err, serval.Conflict)
	wantNothing(t, o)
	if s := w.sessions(r.ID)[1]; s.State != serval.SessionDropped {
		t.Errorf("the session is %s, want dropped", s.State)
	}
}

// onceKept has f done when the plane first asks for the time after the outcome of the
// request's second session was kept.
func (w *world) onceKept(requestID string, f func()) {
	var done atomic.Bool
	w.plane.door.Now = func() time.Time {
		for _, s := range w.sessions(requestID)[1:] {
			if s.State == serval.SessionIssued && done.CompareAndSwap(false, true) {
				f()
			}
		}
		return w.clock.now()
	}
}

// while there is no primary everything fails, soon, and once there is one
// again it works within ten seconds.
func TestPostgresAway(t *testing.T) {
	proxy, url := pgtest.NewProxy(t, pgtest.URLOf(t, storetest.Migrate))
	w := worldOver(t, url).stock()
	p := w.people()
	r := w.ask(p.ana, roleARN(prod, "reader"), 60)
	proxy.Down(true)
	began := time.Now()
	if _, err := w.plane.Open(t.Context(), p.ana, opening(r.ID)); err == nil || serval.IsRefusal(err) {
		t.Errorf("without a database: %v, want a fault", err)
	}
	if err := w.store.Ping(t.Context()); err == nil {
		t.Error("without a database it is ready")
	}
	proxy.Down(false)
	w.open(p.ana, r.ID)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("failing and being back took %s", took)
	}
}
