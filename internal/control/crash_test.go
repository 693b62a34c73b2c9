package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/signin"
	"github.com/serval-bridge/serval-bridge/internal/sqlitetest"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/storetest"
)

// A child is what a process that dies is given.
type child struct {
	Who       serval.Principal
	RequestID string
	Now       time.Time
}

// The moments at which a process dies.
const (
	beforeTheRecord = "before the record" // STS has answered, rightly
	afterTheRecord  = "after the record"  // and that was committed
)

// openAndDie opens a session over the database and kills its own process at the
// moment: nothing is flushed, closed or said.
func openAndDie(url, moment string) {
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	die := func() {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	var c child
	if err := json.Unmarshal([]byte(os.Getenv("CONTROL_TEST_WHO")), &c); err != nil {
		fail(err)
	}
	s, err := store.Open(context.Background(), store.Config{URL: serval.NewSecret(url), Chain: serval.NewChain(rootSecret)})
	if err != nil {
		fail(err)
	}
	now := func() time.Time { return c.Now }
	answered := false
	sts := &script{now: now, answer: func(_ context.Context, _ serval.Mint, right serval.Minted) (serval.Minted, error) {
		if moment == beforeTheRecord {
			die()
		}
		answered = true
		return right, nil
	}}
	d := door.New(s, zap.NewNop())
	p := New(d, signin.New(d, signin.Settings{Secret: rootSecret}), sts, Settings{Issuer: issuer, ClientID: clientID})
	p.door.Now = func() time.Time {
		if answered { // the clock is asked again when the outcome is kept
			issued := errors.New("issued")
			err := s.Read(context.Background(), func(v *store.View) error {
				list, err := v.Sessions(store.SessionFilter{RequestID: c.RequestID, Limit: 1})
				if err == nil && len(list) == 1 && list[0].State == serval.SessionIssued {
					err = issued
				}
				return err
			})
			if errors.Is(err, issued) {
				die()
			}
			if err != nil {
				fail(err)
			}
		}
		return now()
	}
	if err := p.Declare(context.Background(), serval.System(), 0, accounts(), policies()); err != nil {
		fail(err)
	}
	_, err = p.Open(context.Background(), c.Who, opening(c.RequestID))
	fail(fmt.Errorf("still alive: %v", err))
}

// S-74, R-23: a process that is killed between STS's answer and its record has
// handed over nothing: the intent is closed as unknown, the clock stands, and
// the next session opens. One that is killed after it has started the clock,
// once.
func TestKilled(t *testing.T) {
	for _, moment := range []string{beforeTheRecord, afterTheRecord} {
		t.Run(moment, func(t *testing.T) {
			w := worldOver(t, sqlitetest.URLOf(t, storetest.Migrate)).stock()
			ana := w.engineer("ana@example.com")
			r := w.ask(ana, roleARN(prod, "reader"), 60)
			before := w.head()
			given, err := json.Marshal(child{ana, r.ID, w.clock.now()})
			if err != nil {
				t.Fatal(err)
			}
			if err := w.store.Close(); err != nil { // its process serves the file now
				t.Fatal(err)
			}
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "CONTROL_TEST_CHILD="+w.url, "CONTROL_TEST_MOMENT="+moment, "CONTROL_TEST_WHO="+string(given))
			out, err := cmd.CombinedOutput()
			if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
				t.Fatalf("the child ended with %v: %s", err, out)
			}
			w.store = w.openStore()
			w.usePlane(w.newPlane(w.store))

			started := w.request(r.ID).ClockStartedAt
			session := w.sessions(r.ID)[0]
			told1 := told(w.events(before))
			if moment == afterTheRecord {
				want := []string{"ana@example.com session.open started", "ana@example.com session.issue done"}
				if d := cmp.Diff(want, told1); d != "" || started.IsZero() || session.State != serval.SessionIssued {
					t.Errorf("clock from %s, session %+v, events (-want +got):\n%s", started, session, d)
				}
			} else if d := cmp.Diff([]string{"ana@example.com session.open started"}, told1); d != "" || !started.IsZero() || session.State != serval.SessionStarted {
				t.Errorf("clock from %s, session %+v, events (-want +got):\n%s", started, session, d)
			}

			w.clock.move(serval.MintDeadline - time.Microsecond)
			if err := w.plane.Sweep(t.Context()); err != nil || w.session(session.ID).State != session.State {
				t.Errorf("swept too early: %v, %s", err, w.session(session.ID).State)
			}
			w.clock.move(time.Microsecond)
			before = w.head()
			for range 2 {
				if err := w.plane.Sweep(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			swept := w.events(before)
			if moment == afterTheRecord {
				if len(swept) != 0 || !w.request(r.ID).ClockStartedAt.Equal(started) {
					t.Errorf("swept %+v, want nothing", swept)
				}
			} else {
				if len(swept) != 1 || swept[0].Action != serval.SessionClose || swept[0].Outcome != serval.OutcomeUnknown ||
					swept[0].Target != r.ID || swept[0].Detail["session_id"] != session.ID || swept[0].ActorKind != serval.KindSystem {
					t.Errorf("swept %+v, want session.close, unknown", swept)
				}
				if s := w.session(session.ID); s.State != serval.SessionUnknown || s.FinishedAt.IsZero() || s.Error == "" || !w.request(r.ID).ClockStartedAt.IsZero() {
					t.Errorf("session %+v, want it unknown, and the clock standing", s)
				}
			}
			w.open(ana, r.ID)
			if got := w.request(r.ID).ClockStartedAt; got.IsZero() || moment == afterTheRecord && !got.Equal(started) {
				t.Errorf("clock from %s after another session, want it started once (first %s)", got, started)
			}
			w.wantNoCanary()
		})
	}
}
