package workflow

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/intake"
	"github.com/serval-bridge/serval-bridge/internal/pgtest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/signin"
	"github.com/serval-bridge/serval-bridge/internal/sqlitetest"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/storetest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

const (
	prod = "111122223333"
	dev  = "444455556666"
)

// A clock stands until it is moved.
type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time       { return time.UnixMicro(c.at.Load()).UTC() }
func (c *clock) move(d time.Duration) { c.at.Add(d.Microseconds()) }

// A world is runs over a database, beside the control plane that declares its
// accounts and the intake that its workers come to.
type world struct {
	t      *testing.T
	store  *store.Store
	plane  *control.Plane
	intake *intake.Intake
	runs   *Runs
	clock  *clock
}

// each runs f over both databases. T-2
func each(t *testing.T, f func(t *testing.T, w *world)) {
	t.Run("sqlite", func(t *testing.T) { f(t, newWorld(t)) })
	t.Run("postgres", func(t *testing.T) { f(t, worldOver(t, pgtest.URLOf(t, storetest.Migrate))) })
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return worldOver(t, sqlitetest.URLOf(t, storetest.Migrate))
}

func worldOver(t *testing.T, url string) *world {
	t.Helper()
	secret := serval.NewSecret("a root secret of a test, long enough")
	s, err := store.Open(t.Context(), store.Config{URL: serval.NewSecret(url), Chain: serval.NewChain(secret)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	w := &world{t: t, store: s, clock: &clock{}}
	w.clock.at.Store(time.Date(2026, 3, 1, 12, 0, 0, 345678000, time.UTC).UnixMicro())
	d := door.New(s, zap.NewNop())
	d.Now = w.clock.now
	w.plane = control.New(d, signin.New(d, signin.Settings{Secret: secret}), nil, control.Settings{})
	w.intake = intake.New(d)
	w.runs = New(d, Settings{Issuer: "https://login.example.com", ClientID: "serval"})
	if err := w.plane.Declare(t.Context(), serval.System(), 0, accounts(), nil); err != nil {
		t.Fatal(err)
	}
	return w
}

func accounts() []serval.Account {
	return []serval.Account{
		{ID: prod, Name: "prod", Partition: "aws", RoleARN: "arn:aws:iam::" + prod + ":role/serval-ingestion", ExternalID: "x1"},
		{ID: dev, Name: "dev", Partition: "aws", RoleARN: "arn:aws:iam::" + dev + ":role/serval-ingestion", ExternalID: "x1"},
	}
}

// hub is a worker that was given every account.
func hub() serval.Principal { return serval.Principal{Kind: serval.KindWorker, Worker: "hub"} }

// events returns all events since the row after, oldest first, and that the
// chain holds.
func (w *world) events(after int64) []serval.Event {
	w.t.Helper()
	var events []serval.Event
	err := w.store.Read(context.Background(), func(v *store.View) error {
		if _, err := v.VerifyChain(store.Head{}); err != nil {
			return err
		}
		return v.EachEvent(after, func(l serval.Link) error {
			events = append(events, l.Event)
			return nil
		})
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return events
}

// head returns the number of the last event.
func (w *world) head() int64 {
	w.t.Helper()
	var h store.Head
	if err := w.store.Read(context.Background(), func(v *store.View) (err error) { h, err = v.ChainHead(); return err }); err != nil {
		w.t.Fatal(err)
	}
	return h.Seq
}

// wantKind fails the test unless err is a refusal of the kind; empty for none.
func wantKind(t *testing.T, what string, err error, want serval.Kind) {
	t.Helper()
	var got serval.Kind
	if r, ok := errors.AsType[*serval.Refusal](err); ok {
		got = r.Kind
	} else if err != nil {
		got = "fault"
	}
	if got != want {
		t.Errorf("%s: %q (%v), want %q", what, got, err, want)
	}
}
