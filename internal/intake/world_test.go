package intake

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/pgtest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/signin"
	"github.com/serval-bridge/serval-bridge/internal/sqlitetest"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/storetest"
	"github.com/serval-bridge/serval-bridge/internal/workflow"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// noon is when the tests begin. It has a fraction of a second, as life has.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 345678000, time.UTC)

const (
	prod = "111122223333"
	dev  = "444455556666"
)

var rootSecret = serval.NewSecret("a root secret of a test, long enough")

// A clock stands until it is moved.
type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time       { return time.UnixMicro(c.at.Load()).UTC() }
func (c *clock) move(d time.Duration) { c.at.Add(d.Microseconds()) }

// A world is an intake over a database, beside the control plane that declares
// its accounts.
type world struct {
	t      *testing.T
	url    string
	store  *store.Store
	plane  *control.Plane
	intake *Intake
	runs   *workflow.Runs
	clock  *clock
}

// each runs f over both databases. T-2
func each(t *testing.T, f func(t *testing.T, w *world)) {
	t.Run("sqlite", func(t *testing.T) { f(t, newWorld(t)) })
	t.Run("postgres", func(t *testing.T) { f(t, worldOver(t, pgtest.URLOf(t, storetest.Migrate))) })
}

// newWorld returns a world over SQLite.
func newWorld(t *testing.T) *world {
	t.Helper()
	return worldOver(t, sqlitetest.URLOf(t, storetest.Migrate))
}

func worldOver(t *testing.T, url string) *world {
	t.Helper()
	w := &world{t: t, url: url, clock: &clock{}}
	w.clock.at.Store(noon.UnixMicro())
	w.store = w.openStore()
	d := w.door(w.store)
	w.plane, w.intake, w.runs = w.planeBehind(d), New(d), workflow.New(d, workflow.Settings{})
	return w
}

func (w *world) openStore() *store.Store {
	w.t.Helper()
	s, err := store.Open(w.t.Context(), store.Config{URL: serval.NewSecret(w.url), Chain: serval.NewChain(rootSecret)})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { s.Close() })
	return s
}

func (w *world) door(s *store.Store) *door.Door {
	d := door.New(s, zap.NewNop())
	d.Now = w.clock.now
	return d
}

// newPlane returns the control plane of another replica.
func (w *world) newPlane() *control.Plane { return w.planeBehind(w.door(w.store)) }

// planeBehind returns a control plane with the world's accounts declared.
func (w *world) planeBehind(d *door.Door) *control.Plane {
	w.t.Helper()
	p := control.New(d, signin.New(d, signin.Settings{Secret: rootSecret}), nil, control.Settings{})
	if err := p.Declare(w.t.Context(), serval.System(), 0, accounts(), policies()); err != nil {
		w.t.Fatal(err)
	}
	return p
}

// replicas returns the intakes that can serve the database at once: with SQLite
// one process holds it, and two intakes share the store.
func (w *world) replicas() []*Intake {
	s := w.store
	if strings.HasPrefix(w.url, "postgres") {
		s = w.openStore()
	}
	return []*Intake{w.intake, New(w.door(s))}
}

func accounts() []serval.Account {
	return []serval.Account{
		{ID: prod, Name: "prod", Partition: "aws", RoleARN: "arn:aws:iam::" + prod + ":role/serval-ingestion", ExternalID: "x1"},
		{ID: dev, Name: "dev", Partition: "aws", RoleARN: "arn:aws:iam::" + dev + ":role/serval-ingestion", ExternalID: "x1"},
	}
}

func policies() []serval.AccessPolicy { return nil }

// adm is an admin.
func adm() serval.Principal {
	return serval.Principal{Kind: serval.KindPerson, Person: serval.Person{ID: "person_1", Email: "adm@example.com"}, Admin: true}
}

func roleARN(account, name string) string { return "arn:aws:iam::" + account + ":role/" + name }

// roleID makes the id of a role: another for each of its lives.
func roleID(account, name string, life int) string {
	return fmt.Sprintf("AROA%s%s%d", account, strings.ToUpper(name), life)
}

// aRole returns a tagged role in its first life.
func aRole(account, name string, change ...func(*serval.Role)) serval.Role {
	r := serval.Role{
		ARN: roleARN(account, name), RoleID: roleID(account, name, 1), Name: name, Path: "/", CreatedAt: noon.Add(-time.Hour).Truncate(time.Second),
		MaxSessionSeconds: 14400, Tags: map[string]string{"serval": ""}, TrustPolicy: `{"Version":"2012-10-17"}`,
		InlinePolicies:  serval.InlinePolicies{Status: serval.ListRead, Policies: []serval.InlinePolicy{{Name: "all", Document: `{"Statement":[]}`}}},
		ManagedPolicies: serval.ManagedPolicies{Status: serval.ListRead},
	}
	for _, c := range change {
		c(&r)
	}
	return r
}

// hub is a worker that was given every account.
func hub() serval.Principal { return serval.Principal{Kind: serval.KindWorker, Worker: "hub"} }

// inventory returns a complete inventory.
func inventory(account string, generation int64, at time.Time) serval.Inventory {
	return serval.Inventory{
		Schema: serval.InventorySchema, AccountID: account, Generation: generation,
		StartedAt: at, FinishedAt: at, Complete: true, ReadBy: serval.ByRoles,
	}
}

// reading hands over roles and then the rest, with a digest of it all.
func reading(inv serval.Inventory, roles ...serval.Role) func(func(serval.Role) error) (serval.Inventory, string, error) {
	return func(take func(serval.Role) error) (serval.Inventory, string, error) {
		digest := fmt.Sprint(inv.Generation, inv.Complete, inv.Untagged, inv.Unreadable)
		for _, r := range roles {
			if err := take(r); err != nil {
				return serval.Inventory{}, "", err
			}
			digest += r.Digest()
		}
		return inv, digest, nil
	}
}

// opened returns what most tests want of a sync that was opened.
func opened(o Opened, err error) (generation int64, until time.Time, _ error) {
	return o.Generation, o.Until, err
}

// push syncs an account: exactly these roles are there.
func (w *world) push(account string, roles ...serval.Role) Pushed {
	w.t.Helper()
	return w.pushAs(account, func(*serval.Inventory) {}, roles...)
}

func (w *world) pushAs(account string, change func(*serval.Inventory), roles ...serval.Role) Pushed {
	w.t.Helper()
	g, _, err := opened(w.intake.OpenSync(w.t.Context(), hub(), account, "pod-1", serval.SyncFull))
	if err != nil {
		w.t.Fatalf("opening a sync of %s: %v", account, err)
	}
	inv := inventory(account, g, w.clock.now())
	change(&inv)
	done, err := w.intake.Push(w.t.Context(), hub(), account, reading(inv, roles...))
	if err != nil {
		w.t.Fatalf("pushing %s: %v", account, err)
	}
	return done
}

// stock pushes the roles that most tests need.
func (w *world) stock() *world {
	w.t.Helper()
	w.push(prod, aRole(prod, "reader"), aRole(prod, "admin"), aRole(prod, "own"), aRole(prod, "peer"), aRole(prod, "chain"), aRole(prod, "secret"))
	w.push(dev, aRole(dev, "reader"), aRole(dev, "auditreader"))
	return w
}

// markStale has it that a listed role could not be looked at.
func markStale(tx *store.Tx, k serval.RoleKey) error {
	return tx.ApplyDifference("", k.AccountID, serval.Difference{Stale: []serval.Stale{{Key: k, Reason: "AWS is away"}}})
}

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

// kindOf returns the kind of a refusal, "fault" or "".
func kindOf(err error) string {
	if err == nil {
		return ""
	}
	if r, ok := errors.AsType[*serval.Refusal](err); ok {
		return string(r.Kind)
	}
	return "fault: " + err.Error()
}

// wantKind fails the test unless err is a refusal of the kind; empty for none.
func wantKind(t *testing.T, what string, err error, want serval.Kind) {
	t.Helper()
	if got := kindOf(err); got != string(want) {
		t.Errorf("%s: %q (%v), want %q", what, got, err, want)
	}
}
