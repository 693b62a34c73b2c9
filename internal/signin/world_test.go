package signin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/pgtest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/sqlitetest"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/storetest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// noon is when the tests begin. It has a fraction of a second, as life has.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 345678000, time.UTC)

const (
	issuer = "https://acme.okta.example"

	// Canaries are in every secret, and must be nowhere else. S-5
	canary = "CANARY"
)

var rootSecret = serval.NewSecret("a root secret of a test, long enough")

// A clock stands until it is moved.
type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time       { return time.UnixMicro(c.at.Load()).UTC() }
func (c *clock) move(d time.Duration) { c.at.Add(d.Microseconds()) }

// A world is logins over a database.
type world struct {
	t      testing.TB
	url    string
	store  *store.Store
	logins *Logins
	clock  *clock
	log    *zap.Logger
	logs   *observer.ObservedLogs

	signIns int
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

func worldOver(t testing.TB, url string) *world {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	w := &world{t: t, url: url, clock: &clock{}, logs: logs, log: zap.New(core)}
	w.clock.at.Store(noon.UnixMicro())
	w.store = w.openStore()
	w.logins = w.loginsOver(w.store, Settings{Secret: rootSecret})
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

// loginsOver returns logins as the wiring would make them.
func (w *world) loginsOver(s *store.Store, settings Settings) *Logins {
	d := door.New(s, w.log)
	d.Now = w.clock.now
	l := New(d, settings)
	l.Appoint(serval.People{Emails: []string{"adm@example.com"}}, serval.People{Groups: []string{"security"}})
	return l
}

// replicas returns the logins that can serve the database at once: with SQLite
// one process holds it, and two share the store.
func (w *world) replicas() []*Logins {
	s := w.store
	if strings.HasPrefix(w.url, "postgres") {
		s = w.openStore()
	}
	return []*Logins{w.logins, w.loginsOver(s, Settings{Secret: rootSecret})}
}

// idToken is the ID token of a subject, such as it is here.
func idToken(subject string) serval.Secret {
	return serval.NewSecret("eyJ" + canary + "-id-token." + subject)
}

// identity returns what the provider says of a person.
func (w *world) identity(email string, groups ...string) Identity {
	subject, _, _ := strings.Cut(email, "@")
	return Identity{
		Issuer: issuer, Subject: "00u-" + subject, Email: email, Groups: groups,
		IDToken: idToken("00u-" + subject), ExpiresAt: w.clock.now().Add(time.Hour),
	}
}

// a stranger is who comes to sign in.
func stranger() serval.Principal {
	return serval.Principal{Kind: serval.KindNobody, RequestID: "http-1", Address: "198.51.100.7"}
}

// signInAs signs in whoever the provider says, and returns the token too.
func (w *world) signInAs(id Identity) (serval.Principal, serval.Secret, error) {
	w.t.Helper()
	ctx := w.t.Context()
	w.signIns++
	state := serval.NewSecret(fmt.Sprint(canary, "-state-", w.signIns))
	browser := serval.NewSecret(fmt.Sprint(canary, "-browser-", w.signIns))
	a := Attempt{Issuer: issuer, Nonce: serval.NewSecret(canary + "-nonce"), Verifier: serval.NewSecret(canary + "-verifier"), ReturnTo: "/roles"}
	if err := w.logins.Begin(ctx, stranger(), state, browser, serval.Secret{}, a); err != nil {
		return serval.Principal{}, serval.Secret{}, err
	}
	in, err := w.logins.SignIn(ctx, stranger(), state, browser, "Mozilla/5.0", func(_ context.Context, back Attempt) (Identity, error) {
		if back.Issuer != a.Issuer || !back.Nonce.Equal(a.Nonce) || !back.Verifier.Equal(a.Verifier) || back.ReturnTo != a.ReturnTo {
			w.t.Errorf("the attempt came back as another: %q %q %q", back.Nonce.Reveal(), back.Verifier.Reveal(), back.ReturnTo)
		}
		return id, nil
	})
	if err != nil {
		return serval.Principal{}, serval.Secret{}, err
	}
	who, _, err := w.logins.Recognise(ctx, stranger(), in.Token)
	return who, in.Token, err
}

// signIn signs somebody in.
func (w *world) signIn(email string, groups ...string) serval.Principal {
	w.t.Helper()
	who, _, err := w.signInAs(w.identity(email, groups...))
	if err != nil {
		w.t.Fatalf("signing in %s: %v", email, err)
	}
	return who
}

func (w *world) engineer(email string) serval.Principal { return w.signIn(email, "engineering") }

// events returns all events since the row after, oldest first.
func (w *world) events(after int64) []serval.Event {
	w.t.Helper()
	var events []serval.Event
	err := w.store.Read(context.Background(), func(v *store.View) error {
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

// told writes events in one line each: actor, action, outcome.
func told(events []serval.Event) []string {
	lines := []string{}
	for _, e := range events {
		lines = append(lines, e.Actor+" "+string(e.Action)+" "+string(e.Outcome))
	}
	return lines
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

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// login returns the login that who acts under, as the database has it.
func (w *world) login(who serval.Principal) (l store.Login) {
	w.t.Helper()
	if err := w.store.Read(context.Background(), func(v *store.View) (err error) {
		l, err = v.Login(who.Person.ID, who.LoginID)
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	return l
}

// wantNoCanary fails the test if a secret is in the log or, with SQLite, in the
// files of the database. S-5, S-7, S-60
func (w *world) wantNoCanary() {
	w.t.Helper()
	for _, e := range w.logs.All() {
		if text := fmt.Sprint(e.Message, e.ContextMap()); strings.Contains(text, canary) {
			w.t.Errorf("a secret is in the log: %s", text)
		}
	}
	path, sqlite := strings.CutPrefix(w.url, "sqlite://")
	if !sqlite {
		return
	}
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) < 2 {
		w.t.Fatalf("the files of the database: %v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			w.t.Fatal(err)
		}
		if i := strings.Index(string(text), canary); i >= 0 {
			w.t.Errorf("a secret is in %s: %q", filepath.Base(file), text[max(0, i-40):min(len(text), i+40)])
		}
	}
}
