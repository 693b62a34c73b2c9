package notify

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/sqlitetest"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/storetest"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const origin = "https://serval.example.com"

// A world is an outbox and who delivers from it, at a time that stands until it is
// moved.
type world struct {
	t        *testing.T
	door     *door.Door
	notifier *Notifier
	at       atomic.Int64

	mu       sync.Mutex
	outcomes map[string]int
}

func newWorld(t *testing.T, channels ...Channel) *world {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{
		URL: serval.NewSecret(sqlitetest.URLOf(t, storetest.Migrate)), Chain: serval.NewChain(serval.NewSecret("a root secret of a test")),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	w := &world{t: t, door: door.New(s, zap.NewNop()), outcomes: map[string]int{}}
	w.at.Store(noon.UnixMicro())
	w.door.Now, w.door.Channels = w.now, Names(channels)
	w.notifier = New(w.door, origin+"/", zap.NewNop(), func(channel, outcome string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.outcomes[channel+" "+outcome]++
	}, channels...)
	return w
}

func (w *world) now() time.Time       { return time.UnixMicro(w.at.Load()).UTC() }
func (w *world) move(d time.Duration) { w.at.Add(d.Microseconds()) }

func (w *world) outcome(name string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.outcomes[name]
}

// act changes the store as the system.
func (w *world) act(f func(tx *store.Tx) error) {
	w.t.Helper()
	err := w.door.Act(w.t.Context(), serval.System(), serval.NoticeSend, "", func(tx *store.Tx, e *serval.Event) error {
		e.Action, e.Outcome = "", ""
		if err := f(tx); err != nil || tx.Unrecorded() == "" {
			return err
		}
		return tx.Append(serval.Event{Action: serval.RequestCreate})
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// tell keeps notices of something that is about no request.
func (w *world) tell(to serval.People, titles ...string) {
	w.t.Helper()
	w.act(func(tx *store.Tx) error {
		for _, title := range titles {
			n := serval.Notice{Kind: "role.change", Purpose: serval.ToKnow, To: to, Facts: map[string]string{serval.FactTitle: title, serval.FactText: "more", serval.FactPath: "/roles"}}
			if err := w.door.Tell(tx, n); err != nil {
				return err
			}
		}
		return nil
	})
}

// turn has each channel deliver what is due.
func (w *world) turn() {
	w.t.Helper()
	for _, c := range w.notifier.channels {
		if err := w.notifier.deliver(w.t.Context(), c); err != nil && !errors.Is(err, errReceiver) {
			w.t.Fatalf("delivering by %s: %v", c.Name(), err)
		}
	}
}

func (w *world) notices(state serval.NoticeState) (list []serval.Notice) {
	w.t.Helper()
	err := w.door.Store.Read(context.Background(), func(v *store.View) (err error) {
		list, err = v.Notices(store.NoticeFilter{State: state, Limit: 1000})
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

// events returns what the audit log says of notices.
func (w *world) events() (rows []serval.Link) {
	w.t.Helper()
	err := w.door.Store.Read(context.Background(), func(v *store.View) (err error) {
		rows, _, err = v.Events(store.EventFilter{Action: serval.NoticeFail, Limit: 1000})
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return rows
}

// people have signed in.
func (w *world) people(people ...serval.Person) {
	w.t.Helper()
	w.act(func(tx *store.Tx) error {
		for _, p := range people {
			p.ID, p.Issuer, p.Subject = "person_"+p.Email, "https://issuer.example.com", p.Email
			if err := tx.SavePerson(p); err != nil {
				return err
			}
		}
		return nil
	})
}

// request keeps a request of ana's for a role whose step is for leads.
func (w *world) request(change ...func(*serval.Request)) *serval.Request {
	w.t.Helper()
	w.people(serval.Person{Email: "ana@example.com", Groups: []string{"leads"}})
	terms := serval.Terms{Policy: "admins", Steps: []serval.People{{Groups: []string{"leads"}, Emails: []string{"ann@example.com"}}}, MaxMinutes: 480, MaxTotalMinutes: 960}
	key := serval.RoleKey{Partition: "aws", AccountID: "111122223333", RoleID: "AROA1", ARN: "arn:aws:iam::111122223333:role/team/prod-admin"}
	r, err := serval.NewRequest(door.NewID("req"), serval.Person{ID: "person_ana@example.com", Email: "ana@example.com"}, key, terms,
		serval.Ask{Minutes: 60, Justification: "<!channel> the *shop* is down", Ticket: "OPS-1"}, time.Hour, w.now())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, c := range change {
		c(r)
	}
	w.act(func(tx *store.Tx) error { return tx.SaveRequest(r) })
	return r
}

func (w *world) tellOf(who serval.Principal, act serval.Action, r *serval.Request) {
	w.t.Helper()
	w.act(func(tx *store.Tx) error {
		if err := tx.SaveRequest(r); err != nil {
			return err
		}
		return w.door.TellOf(tx, who, act, r, "")
	})
}

func person(email string, groups ...string) serval.Principal {
	return serval.Principal{Kind: serval.KindPerson, Person: serval.Person{ID: "person_" + email, Email: email, Groups: groups}}
}

// A script is a channel that does as it is told, and remembers.
type script struct {
	name string
	mu   sync.Mutex
	fail func(m Message) error
	got  []Message
}

func (s *script) Name() string { return s.name }

func (s *script) Send(ctx context.Context, m Message) error {
	s.mu.Lock()
	fail := s.fail
	s.mu.Unlock()
	if fail != nil {
		if err := fail(m); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, m)
	return nil
}

func (s *script) set(fail func(Message) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fail
}

// titles returns what came and for whom, and forgets it.
func (s *script) titles() (list []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.got {
		list = append(list, strings.TrimSpace(m.Title+" | "+m.To.String()))
	}
	s.got = nil
	return list
}

var errAway = errors.New("connection refused")
