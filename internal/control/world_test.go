package control

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/intake"
	"github.com/serval-bridge/serval-bridge/internal/pgtest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/signin"
	"github.com/serval-bridge/serval-bridge/internal/sqlitetest"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/storetest"
)

func TestMain(m *testing.M) {
	if url := os.Getenv("CONTROL_TEST_CHILD"); url != "" {
		openAndDie(url, os.Getenv("CONTROL_TEST_MOMENT"))
	}
	os.Exit(pgtest.Main(m))
}

// noon is when the tests begin. It has a fraction of a second, as life has.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 345678000, time.UTC)

const (
	issuer   = "https://acme.okta.example"
	clientID = "serval"
	prod     = "111122223333"
	dev      = "444455556666"

	// Canaries are in every secret, and must be nowhere else. S-5
	canary = "CANARY"
)

var rootSecret = serval.NewSecret("a root secret of a test, long enough")

// A clock stands until it is moved; one that runs is the wall's.
type clock struct {
	at   atomic.Int64
	runs bool
}

func (c *clock) now() time.Time {
	if c.runs {
		return time.Now().UTC().Truncate(time.Microsecond)
	}
	return time.UnixMicro(c.at.Load()).UTC()
}
func (c *clock) move(d time.Duration) { c.at.Add(d.Microseconds()) }

// A world is a control plane over a database, with AWS as a script.
type world struct {
	t      testing.TB
	url    string
	store  *store.Store
	signin signin.Settings // of planes that are made
	logins *signin.Logins  // of the plane
	plane  *Plane
	intake *intake.Intake
	sts    *script
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
	w.sts = &script{now: w.clock.now}
	w.store = w.openStore()
	w.signin.Secret = rootSecret
	w.usePlane(w.newPlane(w.store))
	w.intake = intake.New(w.plane.door)
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

// usePlane makes p the world's.
func (w *world) usePlane(p *Plane) { w.plane, w.logins = p, p.logins }

// planeUnder returns a plane whose logins work by other settings.
func (w *world) planeUnder(s signin.Settings) *Plane {
	defer func(before signin.Settings) { w.signin = before }(w.signin)
	w.signin = s
	return w.newPlane(w.store)
}

// newPlane returns a plane as the wiring would make it, with the accounts and
// policies of the world declared.
func (w *world) newPlane(s *store.Store, change ...func(*Settings)) *Plane {
	w.t.Helper()
	settings := Settings{
		Issuer: issuer, ClientID: clientID,
		Networks: Networks{
			"office": {netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8::/48")},
			"void":   {},
		},
		Admins:   serval.People{Emails: []string{"adm@example.com"}},
		Auditors: serval.People{Groups: []string{"security"}},
	}
	for _, c := range change {
		c(&settings)
	}
	d := door.New(s, w.log)
	d.Now = w.clock.now
	p := New(d, signin.New(d, w.signin), w.sts, settings)
	if err := p.Declare(w.t.Context(), serval.System(), 0, accounts(), policies()); err != nil {
		w.t.Fatal(err)
	}
	return p
}

// replicas returns the planes that can serve the database at once: with SQLite
// one process holds it, and two planes share the store.
func (w *world) replicas() []*Plane {
	s := w.store
	if strings.HasPrefix(w.url, "postgres") {
		s = w.openStore()
	}
	return []*Plane{w.plane, w.newPlane(s)}
}

func accounts() []serval.Account {
	return []serval.Account{
		{ID: prod, Name: "prod", Partition: "aws", RoleARN: "arn:aws:iam::" + prod + ":role/serval-ingestion", ExternalID: "x1"},
		{ID: dev, Name: "dev", Partition: "aws", RoleARN: "arn:aws:iam::" + dev + ":role/serval-ingestion", ExternalID: "x1"},
	}
}

// policies: reader is for every engineer at once, admin takes two steps, own
// may be approved by whoever asks, chain may chain, and nobody is eligible for
// any other role.
func policies() []serval.AccessPolicy {
	engineers := serval.People{Groups: []string{"engineering"}}
	return []serval.AccessPolicy{
		{
			Name: "readers", Roles: serval.RoleMatch{ARNs: []string{"*:role/*reader"}}, Eligible: engineers,
			Approval: serval.Approval{Automatic: true}, MaxMinutes: 480,
		},
		{
			Name: "admins", Roles: serval.RoleMatch{ARNs: []string{"*:role/admin"}}, Eligible: engineers,
			Approval: serval.Approval{Steps: []serval.People{
				{Groups: []string{"leads"}, Emails: []string{"ann@example.com"}}, {Emails: []string{"cto@example.com"}},
			}}, MaxMinutes: 120, RequireJustification: true,
		},
		{
			Name: "own", Roles: serval.RoleMatch{ARNs: []string{"*:role/own"}}, Eligible: engineers,
			Approval: serval.Approval{Steps: []serval.People{engineers}}, MaxMinutes: 120, AllowSelfApproval: true,
		},
		{
			Name: "peers", Roles: serval.RoleMatch{ARNs: []string{"*:role/peer"}}, Eligible: engineers,
			Approval: serval.Approval{Steps: []serval.People{engineers}}, MaxMinutes: 120,
		},
		{
			Name: "chain", Roles: serval.RoleMatch{ARNs: []string{"*:role/chain"}}, Eligible: engineers,
			Approval: serval.Approval{Automatic: true}, MaxMinutes: 480, AllowChaining: true,
		},
		{
			Name: "never reached", Roles: serval.RoleMatch{ARNs: []string{"*:role/*reader"}}, Eligible: engineers,
			Approval: serval.Approval{Automatic: true}, MaxMinutes: 1,
		},
	}
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

// push syncs an account: exactly these roles are there.
func (w *world) push(account string, roles ...serval.Role) intake.Pushed {
	w.t.Helper()
	return w.pushAs(account, func(*serval.Inventory) {}, roles...)
}

func (w *world) pushAs(account string, change func(*serval.Inventory), roles ...serval.Role) intake.Pushed {
	w.t.Helper()
	opened, err := w.intake.OpenSync(w.t.Context(), hub(), account, "pod-1", serval.SyncFull)
	if err != nil {
		w.t.Fatalf("opening a sync of %s: %v", account, err)
	}
	inv := inventory(account, opened.Generation, w.clock.now())
	change(&inv)
	done, err := w.intake.Push(w.t.Context(), hub(), account, reading(inv, roles...))
	if err != nil {
		w.t.Fatalf("pushing %s: %v", account, err)
	}
	return done
}

// stock pushes the roles that most tests need, and more in prod.
func (w *world) stock(more ...serval.Role) *world {
	w.t.Helper()
	w.push(prod, append(more, aRole(prod, "reader"), aRole(prod, "admin"), aRole(prod, "own"), aRole(prod, "peer"), aRole(prod, "chain"), aRole(prod, "secret"))...)
	w.push(dev, aRole(dev, "reader"), aRole(dev, "auditreader"))
	return w
}

// idToken is the ID token of a subject, such as it is here.
func idToken(subject string) serval.Secret {
	return serval.NewSecret("eyJ" + canary + "-id-token." + subject)
}

// identity returns what the provider says of a person.
func (w *world) identity(email string, groups ...string) signin.Identity {
	subject, _, _ := strings.Cut(email, "@")
	return signin.Identity{
		Issuer: issuer, Subject: "00u-" + subject, Email: email, Groups: groups,
		IDToken: idToken("00u-" + subject), ExpiresAt: w.clock.now().Add(time.Hour),
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

// a stranger is who comes to sign in.
func stranger() serval.Principal {
	return serval.Principal{Kind: serval.KindNobody, RequestID: "http-1", Address: "198.51.100.7"}
}

// signInAs signs in whoever the provider says, and returns the token too.
func (w *world) signInAs(p *Plane, id signin.Identity) (serval.Principal, serval.Secret, error) {
	w.t.Helper()
	ctx := w.t.Context()
	w.signIns++
	state := serval.NewSecret(fmt.Sprint(canary, "-state-", w.signIns))
	browser := serval.NewSecret(fmt.Sprint(canary, "-browser-", w.signIns))
	a := signin.Attempt{Issuer: issuer, Nonce: serval.NewSecret(canary + "-nonce"), Verifier: serval.NewSecret(canary + "-verifier"), ReturnTo: "/roles"}
	if err := p.logins.Begin(ctx, stranger(), state, browser, serval.Secret{}, a); err != nil {
		return serval.Principal{}, serval.Secret{}, err
	}
	in, err := p.logins.SignIn(ctx, stranger(), state, browser, "Mozilla/5.0", func(_ context.Context, back signin.Attempt) (signin.Identity, error) {
		if back.Issuer != a.Issuer || !back.Nonce.Equal(a.Nonce) || !back.Verifier.Equal(a.Verifier) || back.ReturnTo != a.ReturnTo {
			w.t.Errorf("the attempt came back as another: %q %q %q", back.Nonce.Reveal(), back.Verifier.Reveal(), back.ReturnTo)
		}
		return id, nil
	})
	if err != nil {
		return serval.Principal{}, serval.Secret{}, err
	}
	who, _, err := p.logins.Recognise(ctx, stranger(), in.Token)
	return who, in.Token, err
}

// signIn signs somebody in.
func (w *world) signIn(email string, groups ...string) serval.Principal {
	w.t.Helper()
	who, _, err := w.signInAs(w.plane, w.identity(email, groups...))
	if err != nil {
		w.t.Fatalf("signing in %s: %v", email, err)
	}
	return who
}

func (w *world) engineer(email string) serval.Principal { return w.signIn(email, "engineering") }

// ask requests one role.
func (w *world) ask(who serval.Principal, arn string, minutes int, change ...func(*serval.Ask)) *serval.Request {
	w.t.Helper()
	a := Ask{RoleARNs: []string{arn}, Ask: serval.Ask{Minutes: minutes, Justification: "to see why it is slow"}}
	for _, c := range change {
		c(&a.Ask)
	}
	made, err := w.plane.Request(w.t.Context(), who, a)
	if err != nil {
		w.t.Fatalf("requesting %s: %v", arn, err)
	}
	return made[0].Request
}

// request returns the request as the database has it.
func (w *world) request(id string) *serval.Request {
	w.t.Helper()
	var r *serval.Request
	if err := w.store.Read(w.t.Context(), func(v *store.View) (err error) { r, err = v.Request(id); return err }); err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *world) session(id string) serval.Session {
	w.t.Helper()
	var s serval.Session
	if err := w.store.Read(w.t.Context(), func(v *store.View) (err error) { s, err = v.Session(id); return err }); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// sessions returns the sessions of a request, oldest first.
func (w *world) sessions(requestID string) []serval.Session {
	w.t.Helper()
	var list []serval.Session
	err := w.store.Read(w.t.Context(), func(v *store.View) (err error) {
		list, err = v.Sessions(store.SessionFilter{RequestID: requestID, Limit: 1000})
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	slices.Reverse(list)
	return list
}

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

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
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

// A script is STS: it answers rightly, or as it is told.
type script struct {
	now func() time.Time

	mu    sync.Mutex
	mints []serval.Mint
	n     int

	pages []serval.ConsolePage // that a way into the console was asked for

	// way answers for a way into the console; nil for the right answer.
	way func(ctx context.Context, m serval.Minted, right serval.Secret) (serval.Secret, error)

	// answer may change what comes; nil for the right answer.
	answer func(ctx context.Context, m serval.Mint, right serval.Minted) (serval.Minted, error)
}

// Mint answers as STS would.
func (s *script) Mint(ctx context.Context, m serval.Mint) (serval.Minted, error) {
	s.mu.Lock()
	s.mints = append(s.mints, m)
	s.n++
	n, answer := s.n, s.answer
	s.mu.Unlock()
	right := rightAnswer(m, s.now(), n)
	if answer == nil {
		return right, nil
	}
	return answer(ctx, m, right)
}

// SignIn answers as the federation endpoint would.
func (s *script) SignIn(ctx context.Context, _ string, m serval.Minted, page serval.ConsolePage) (serval.Secret, error) {
	s.mu.Lock()
	s.pages = append(s.pages, page)
	way := s.way
	s.mu.Unlock()
	right := serval.NewSecret("https://signin.example/federation?SigninToken=" + canary + "-" + m.AccessKeyID)
	if way == nil {
		return right, nil
	}
	return way(ctx, m, right)
}

func rightAnswer(m serval.Mint, now time.Time, n int) serval.Minted {
	arn, err := serval.ParseRoleARN(m.Role.ARN)
	if err != nil {
		panic(err)
	}
	_, subject, _ := strings.Cut(m.Token.Reveal(), ".")
	return serval.Minted{
		AccessKeyID:     fmt.Sprintf("ASIA%012d", n),
		SecretAccessKey: serval.NewSecret(canary + "-secret-access-key"),
		SessionToken:    serval.NewSecret(canary + "-session-token"),
		Expiration:      now.Add(time.Duration(m.Seconds) * time.Second).Truncate(time.Second),
		AssumedRoleARN:  arn.Session(m.SessionName), AssumedRoleID: m.Role.RoleID + ":" + m.SessionName,
		Audience: clientID, Provider: issuer, Subject: subject,
	}
}

// say makes STS answer as f does from now on.
func (s *script) say(f func(ctx context.Context, m serval.Mint, right serval.Minted) (serval.Minted, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = f
}

// asked returns what STS was asked so far.
func (s *script) asked() []serval.Mint {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.mints)
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
