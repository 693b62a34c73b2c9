package history

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/insight"
	"github.com/serval-bridge/serval-bridge/internal/pgtest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/sqlitetest"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/storetest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const prod = "111122223333"

// A world is a store with one account, and a clock that goes on with each push.
type world struct {
	t      *testing.T
	store  *store.Store
	now    time.Time
	pushes int
	blind  bool // pushed roles are not looked at
}

// each runs f over both databases. T-2
func each(t *testing.T, f func(t *testing.T, w *world)) {
	t.Run("sqlite", func(t *testing.T) { f(t, newWorld(t, sqlitetest.URLOf(t, storetest.Migrate))) })
	t.Run("postgres", func(t *testing.T) { f(t, newWorld(t, pgtest.URLOf(t, storetest.Migrate))) })
}

func newWorld(t *testing.T, url string) *world {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{URL: serval.NewSecret(url), Chain: serval.NewChain(serval.NewSecret("a root secret of a test, long enough"))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	w := &world{t: t, store: s, now: noon}
	w.act(func(tx *store.Tx) error {
		a := serval.Account{ID: prod, Name: "prod", Partition: "aws", RoleARN: "arn:aws:iam::" + prod + ":role/serval-ingestion", ExternalID: "x1"}
		for _, p := range []serval.Person{ana, bob, eve} {
			if err := tx.SavePerson(p); err != nil {
				return err
			}
		}
		return tx.DeclareAccount(a, store.SourceFile)
	})
	return w
}

func (w *world) act(f func(tx *store.Tx) error) {
	w.t.Helper()
	if err := w.store.Write(w.t.Context(), w.now, f); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) view(f func(v *store.View) error) {
	w.t.Helper()
	if err := w.store.Read(w.t.Context(), f); err != nil {
		w.t.Fatal(err)
	}
}

// push takes in these roles, and no others, an hour after the push before.
func (w *world) push(roles ...serval.Role) {
	w.t.Helper()
	w.pushes++
	w.now = w.now.Add(time.Hour)
	id := fmt.Sprint("push", w.pushes)
	var staged []store.Staged
	for _, r := range roles {
		one := store.Staged{Role: r, Digest: r.Digest()}
		if !w.blind {
			one.Ability = string(insight.AWS().Look(r).Index())
		}
		staged = append(staged, one)
	}
	if err := w.store.Stage(w.t.Context(), id, prod, w.now, staged); err != nil {
		w.t.Fatal(err)
	}
	w.act(func(tx *store.Tx) error {
		seen, err := tx.StagedRoles(id)
		if err != nil {
			return err
		}
		known, err := tx.KnownRoles(prod)
		if err != nil {
			return err
		}
		return tx.ApplyDifference(id, prod, serval.Compare(known, serval.Sighting{Complete: true, Roles: seen}, tx.Now))
	})
}

// aRole returns a role that is allowed actions on everything.
func aRole(name string, actions ...string) serval.Role {
	return serval.Role{
		ARN: "arn:aws:iam::" + prod + ":role/" + name, RoleID: "AROA" + strings.ToUpper(name), Name: name, Path: "/", CreatedAt: noon, MaxSessionSeconds: 3600,
		Tags: map[string]string{"serval": ""}, TrustPolicy: `{"Statement":[]}`,
		InlinePolicies: serval.InlinePolicies{Status: serval.ListRead, Policies: []serval.InlinePolicy{{Name: "all",
			Document: serval.Document(`{"Statement":{"Effect":"Allow","Action":["` + strings.Join(actions, `","`) + `"],"Resource":"*"}}`)}}},
		ManagedPolicies: serval.ManagedPolicies{Status: serval.ListRead},
	}
}

var (
	ana = serval.Person{ID: "p-ana", Issuer: "https://id.example.com", Subject: "ana", Email: "ana@example.com"}
	bob = serval.Person{ID: "p-bob", Issuer: "https://id.example.com", Subject: "bob", Email: "bob@example.com"}
	eve = serval.Person{ID: "p-eve", Issuer: "https://id.example.com", Subject: "eve", Email: "eve@example.com"}
	lea = serval.Person{ID: "p-lea", Issuer: "https://id.example.com", Subject: "lea", Email: "lea@example.com"}
)

// ask keeps a request for a role, under a policy.
func (w *world) ask(id string, by serval.Person, role serval.Role, policy string) *serval.Request {
	w.t.Helper()
	w.now = w.now.Add(time.Minute)
	terms := serval.AccessPolicy{Name: policy, MaxMinutes: 60, SuspendOnEscalation: policy == "strict",
		Approval: serval.Approval{Steps: []serval.People{{Emails: []string{lea.Email}}}}}.Terms()
	r, err := serval.NewRequest(id, by, role.Key(), terms, serval.Ask{Minutes: 30}, serval.DefaultRequestExpiry, w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	w.act(func(tx *store.Tx) error { return tx.SaveRequest(r) })
	return r
}

// decide decides what waits on a request.
func (w *world) decide(r *serval.Request, approve bool) {
	w.t.Helper()
	w.now = w.now.Add(time.Minute)
	w.act(func(tx *store.Tx) error {
		if _, err := r.Decide(serval.Principal{Kind: serval.KindPerson, Person: lea}, serval.Decision{Approve: approve}, serval.DefaultRequestExpiry, tx.Now); err != nil {
			return err
		}
		return tx.SaveRequest(r)
	})
}

// role returns a role as it is kept.
func (w *world) role(r serval.Role) (kept store.Role) {
	w.t.Helper()
	w.view(func(v *store.View) (err error) { kept, err = v.RoleByKey(r.Key()); return err })
	return kept
}

// What roles are searched for, and what is no search.
func TestChoose(t *testing.T) {
	index := func(actions ...string) string { return string(insight.AWS().Look(aRole("r", actions...)).Index()) }
	ago := func(days int) *time.Time { at := noon.AddDate(0, 0, -days); return &at }
	role := func(ability string, created int, used *time.Time) store.Role {
		r := store.Role{Ability: ability}
		r.CreatedAt, r.LastUsedAt = *ago(created), used
		return r
	}
	for _, c := range []struct {
		name string
		list string
		days int
		role store.Role
		want bool
	}{
		{"everything", "", 0, role("", 0, nil), true},
		{"spaces are no ability", "  ", 0, role("", 0, nil), true},
		{"one that it has", "s3:read", 0, role(index("s3:GetObject"), 0, nil), true},
		{"another level", "s3:write", 0, role(index("s3:GetObject"), 0, nil), false},
		{"another service", "sqs:read", 0, role(index("s3:GetObject"), 0, nil), false},
		{"both", "s3:read, sqs:write", 0, role(index("s3:GetObject", "sqs:SendMessage"), 0, nil), true},
		{"one of both", "s3:read,sqs:write", 0, role(index("s3:GetObject"), 0, nil), false},
		{"in another case", " S3:Read ,Data_Access", 0, role(index("s3:GetObject"), 0, nil), true},
		{"an administrator can gain more", "privilege_escalation", 0, role(index("*"), 0, nil), true},
		{"nobody has looked", "s3:read", 0, role("", 0, nil), false},
		{"used for long not", "", 90, role("", 400, ago(90)), true},
		{"used a day before that", "", 90, role("", 400, ago(89)), false},
		{"never used, and old", "", 90, role("", 91, nil), true},
		{"never used, and young", "", 90, role("", 89, nil), false},
		{"not used, and able", "s3:read", 90, role(index("s3:GetObject"), 400, ago(100)), true},
		{"not used, and not able", "sqs:read", 90, role(index("s3:GetObject"), 400, ago(100)), false},
	} {
		choose, err := Choose(c.list, c.days, noon)
		if err != nil || choose(c.role) != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if _, err := Choose(strings.TrimSuffix(strings.Repeat("s3:read,", maxAbilities), ","), 0, noon); err != nil {
		t.Errorf("%d abilities: %v", maxAbilities, err)
	}
	for _, list := range []string{",", "s3:read,", "s3", "s3:all", "nothing:read", strings.Repeat("s3:read,", maxAbilities) + "s3:read", "\x1b[31m:read", strings.Repeat("x", 10_000)} {
		if _, err := Choose(list, 0, noon); !serval.IsRefusal(err, serval.Invalid) || len(err.Error()) > 400 {
			t.Errorf("%.40q: %.80v, want it refused in few words", list, err)
		}
	}
}

// Of the versions of a role any two can be compared, by number and by instant, and
// the difference is the one between what the role was.
func TestVersions(t *testing.T) { each(t, testVersions) }

func testVersions(t *testing.T, w *world) {
	random := rand.New(rand.NewPCG(3, uint64(len(t.Name()))))
	actions := []string{"sqs:SendMessage", "sqs:PurgeQueue", "s3:GetObject", "iam:PutRolePolicy", "s3:*", "*"}
	var states []serval.Role // by version, from 1 on
	var at []time.Time
	for len(states) < maxShown+5 {
		r := aRole("r", actions[random.IntN(len(actions))], actions[random.IntN(len(actions))])
		r.Description = strconv.Itoa(random.IntN(3))
		w.push(r)
		if n := len(states); n == 0 || r.Digest() != states[n-1].Digest() {
			states, at = append(states, r), append(at, w.now)
		}
	}
	history := func(from, to string) (h History) {
		w.view(func(v *store.View) (err error) { h, err = Of(v, w.role(states[0]), from, to); return err })
		return h
	}
	same := func(what string, got insight.Change, before, after serval.Role) {
		t.Helper()
		if diff := cmp.Diff(insight.AWS().Compare(before, after), got); diff != "" {
			t.Errorf("%s (-between the states +got):\n%s", what, diff)
		}
	}
	n := len(states)
	whole := history("", "")
	for _, k := range whole.kept {
		if slices.ContainsFunc(k.Documents(), func(d serval.Document) bool { return d != "" }) {
			t.Errorf("version %d is held with its documents", k.Version)
		}
	}
	versions := whole.Versions()
	if len(versions) != maxShown {
		t.Fatalf("%d versions are shown, want %d", len(versions), maxShown)
	}
	for i, v := range versions {
		if want := int64(n - i); v.Number != want || !v.At.Equal(at[want-1]) || v.Current != (i == 0) {
			t.Errorf("version %d is %d of %s, current %v; want %d of %s", i, v.Number, v.At, v.Current, want, at[want-1])
		}
		same(fmt.Sprint("version ", v.Number), v.Change, states[v.Number-2], states[v.Number-1])
	}
	for range 60 {
		from, to := 1+random.IntN(n), 1+random.IntN(n)
		texts := [2]string{strconv.Itoa(from), strconv.Itoa(to)}
		for i, number := range []int{from, to} {
			if random.IntN(2) == 0 { // sometime while it was in force
				texts[i] = at[number-1].Add(time.Duration(random.Int64N(4)) * 15 * time.Minute).Format(time.RFC3339)
			}
		}
		c, err := history(texts[0], texts[1]).Compare(texts[0], texts[1])
		if err != nil || c.From.Number != int64(from) || c.To.Number != int64(to) || !c.From.At.Equal(at[from-1]) || c.To.Current != (to == n) {
			t.Fatalf("from %q to %q: %d to %d, %v; want %d to %d", texts[0], texts[1], c.From.Number, c.To.Number, err, from, to)
		}
		same(fmt.Sprintf("from %q to %q", texts[0], texts[1]), c.Change, states[from-1], states[to-1])
		since := history(texts[0], "")
		if c, err := since.Compare(texts[0], ""); err != nil || c.From.Number != int64(from) || c.To.Number != int64(n) {
			t.Errorf("from %q on: %d to %d, %v", texts[0], c.From.Number, c.To.Number, err)
		}
		if c, err := history("", texts[1]).Compare("", texts[1]); err != nil || c.To.Number != int64(to) || c.From.Number != int64(max(to-1, 1)) {
			t.Errorf("to %q: %d to %d, %v; want from the one before", texts[1], c.From.Number, c.To.Number, err)
		}
	}
	for text, want := range map[string]serval.Kind{
		strconv.Itoa(n + 1): serval.NotFound, "0": serval.NotFound, "-1": serval.NotFound, at[0].Add(-time.Second).Format(time.RFC3339): serval.NotFound,
		"x": serval.Invalid, "1.0": serval.Invalid, "99999999999999999999": serval.Invalid, "2026-03-01": serval.Invalid, "<b>\x1b[0m": serval.Invalid,
	} {
		for _, pair := range [][2]string{{text, ""}, {"", text}, {"1", text}} {
			if _, err := history(pair[0], pair[1]).Compare(pair[0], pair[1]); !serval.IsRefusal(err, want) || strings.Contains(err.Error(), "\x1b") {
				t.Errorf("from %q to %q: %v, want %s", pair[0], pair[1], err, want)
			}
		}
	}
}

// With what a role is compared: with what is in force, else what the person had
// last, else what anybody had under the same policy; and never with another role.
func TestExplain(t *testing.T) { each(t, testExplain) }

func testExplain(t *testing.T, w *world) {
	was, is := aRole("r", "sqs:SendMessage"), aRole("r", "sqs:SendMessage", "sqs:PurgeQueue")
	other := aRole("other", "s3:GetObject")
	explain := func(requests ...*serval.Request) (all []*Explained, before []Earlier) {
		t.Helper()
		w.view(func(v *store.View) error {
			x := Explaining(v)
			for _, r := range requests {
				e, err := Before(v, r)
				if err != nil {
					return err
				}
				one, err := x.Explain(r, e)
				if err != nil {
					return err
				}
				all, before = append(all, one), append(before, e)
			}
			return nil
		})
		return all, before
	}
	since := func(name string, r *serval.Request, basis string, own bool, gained int) {
		t.Helper()
		all, _ := explain(r)
		e := all[0]
		switch {
		case e == nil || e.Card == nil:
			t.Errorf("%s: it is not explained", name)
		case (e.Since != nil) != (basis != "") || e.Basis.RequestID != basis || e.Basis.Own != own || e.Basis.At.IsZero() != (basis == ""):
			t.Errorf("%s: since %+v by %+v, want %q, own %v", name, e.Since, e.Basis, basis, own)
		case basis != "" && e.Since.Gained.Count != gained:
			t.Errorf("%s: it gained %d, want %d", name, e.Since.Gained.Count, gained)
		}
	}
	w.push(was, other)
	elsewhere := w.ask("elsewhere", ana, other, "p")
	w.decide(elsewhere, true)
	denied := w.ask("denied", ana, was, "p")
	since("nobody had it", denied, "", false, 0)
	w.decide(denied, false)
	since("nothing is to be decided", denied, "", false, 0)
	bobs := w.ask("bobs", bob, was, "p")
	w.decide(bobs, true)
	since("what is in force", bobs, "bobs", true, 0)
	w.push(is, other)
	since("what is in force, and grew", bobs, "bobs", true, 1)
	anas := w.ask("anas", ana, is, "p")
	since("what another has", anas, "bobs", false, 1)
	since("under another policy", w.ask("strict", ana, is, "strict"), "", false, 0)
	w.decide(anas, true)
	again := w.ask("again", bob, is, "p")
	since("its own before another's that is newer", again, "bobs", true, 1)
	w.decide(again, false)
	since("nothing is to be decided any more", again, "", false, 0)
	w.push(was, other)
	last := w.ask("last", bob, is, "p")
	since("what was denied is no approval", last, "bobs", true, 0)
	all, before := explain(last, again, anas, elsewhere)
	if all[0].Card != all[1].Card || all[0].Card != all[2].Card || all[0].Card == all[3].Card {
		t.Error("the card of a role is worked out for each request anew, or shared between roles")
	}
	if e := before[0]; e.Times != 2 || e.Approved != 1 || e.More || e.Last.ID != "again" {
		t.Errorf("before the last: %d times, %d approved, more %v, the last %s", e.Times, e.Approved, e.More, e.Last.ID)
	}

	// A role of another account that passes for the same by its id.
	foreign := serval.RoleKey{Partition: "aws", AccountID: "444455556666", RoleID: was.RoleID, ARN: "arn:aws:iam::444455556666:role/r"}
	for _, p := range []serval.Person{bob, ana} {
		r := w.ask("of-"+p.ID, p, aRole("x"), "q")
		r.Role = foreign
		w.act(func(tx *store.Tx) error { return tx.SaveRequest(r) })
		w.decide(r, true)
	}
	mine := w.ask("mine", ana, was, "q")
	if _, before := explain(mine); before[0].Times != 3 {
		t.Errorf("%d requests came before, want the three of this account's role", before[0].Times)
	}
	since("another account's role of the same id", w.ask("eves", eve, was, "q"), "", false, 0)

	w.push(other)
	if all, _ := explain(last, bobs); all[0] != nil || all[1] != nil {
		t.Errorf("the role is gone and is explained: %+v", all)
	}
	again2 := aRole("r", "sqs:*")
	again2.RoleID += "2"
	w.push(again2, other)
	since("made anew it is another role", w.ask("anew", bob, again2, "p"), "", false, 0)
}

// So many are counted, and there may be more.
func TestBefore(t *testing.T) {
	w := newWorld(t, sqlitetest.URLOf(t, storetest.Migrate))
	role := aRole("r", "sqs:SendMessage")
	w.push(role)
	var requests []*serval.Request
	for i := range maxEarlier + 2 {
		r := w.ask(fmt.Sprintf("r%02d", i), ana, role, "p")
		w.decide(r, i%4 == 0)
		requests = append(requests, r)
		w.ask(fmt.Sprintf("b%02d", i), bob, role, "p")
	}
	for i, r := range requests {
		var e Earlier
		w.view(func(v *store.View) (err error) { e, err = Before(v, r); return err })
		approved := 0
		for _, b := range requests[max(0, i-maxEarlier):i] {
			if b.Active() != nil {
				approved++
			}
		}
		if e.Times != min(i, maxEarlier) || e.More != (i > maxEarlier) || e.Approved != approved || (e.Last == nil) != (i == 0) || i > 0 && e.Last.ID != requests[i-1].ID {
			t.Errorf("before request %d: %+v", i, e)
		}
	}
}

// When what was approved is not to be used any more.
func TestEscalated(t *testing.T) { each(t, testEscalated) }

func testEscalated(t *testing.T, w *world) {
	const tame, grave, admin = "sqs:SendMessage", "iam:PutRolePolicy", "*"
	const unknown = "what it could do was not known"
	bounded := func(r serval.Role, b *serval.BoundaryPolicy) serval.Role {
		r.PermissionsBoundary, r.BoundaryPolicy = new("arn:aws:iam::"+prod+":policy/edge"), b
		return r
	}
	edge := &serval.BoundaryPolicy{Status: serval.ListRead, Version: "v1", Document: `{"Statement":{"Effect":"Allow","Action":"sqs:*","Resource":"*"}}`}
	unread := &serval.BoundaryPolicy{Status: serval.ListThrottled, Action: "iam:GetPolicy"}
	for i, c := range []struct {
		name      string
		policy    string // of the request
		today     bool   // the policy of today wants it
		then, now serval.Role
		want      bool
	}{
		{unknown, "strict", false, aRole("", tame), aRole("", admin), false},
		{"it gained a way", "strict", false, aRole("", tame), aRole("", grave), true},
		{"it became an administrator", "strict", false, aRole("", tame), aRole("", admin), true},
		{"today's policy wants it", "p", true, aRole("", tame), aRole("", grave), true},
		{"no policy wants it", "p", false, aRole("", tame), aRole("", admin), false},
		{"it is as it was", "strict", true, aRole("", tame), aRole("", tame), false},
		{"it could before", "strict", true, aRole("", grave), aRole("", admin), false},
		{"it could do anything before", "strict", true, aRole("", admin), aRole("", grave), false},
		{"it gained nothing grave", "strict", true, aRole("", tame), aRole("", "sqs:*"), false},
		{"its boundary could not be read", "strict", true, bounded(aRole("", admin), edge), bounded(aRole("", admin), unread), false},
		{"another boundary, that could not be read", "strict", true, bounded(aRole("", admin), edge), func() serval.Role {
			r := bounded(aRole("", admin), unread)
			*r.PermissionsBoundary += "2"
			return r
		}(), true},
		{"its boundary is gone", "strict", true, bounded(aRole("", admin), edge), aRole("", admin), true},
		{"a boundary came that could not be read", "strict", true, aRole("", tame), bounded(aRole("", admin), unread), true},
		{"its boundary was never read", "strict", true, bounded(aRole("", tame), unread), bounded(aRole("", admin), unread), true},
	} {
		named := func(r serval.Role) serval.Role {
			r.Name = fmt.Sprint("r", i)
			r.ARN, r.RoleID = "arn:aws:iam::"+prod+":role/"+r.Name, fmt.Sprint("AROA", i)
			return r
		}
		then, now := named(c.then), named(c.now)
		w.blind = c.name == unknown
		w.push(then)
		w.blind = false
		r := w.ask(fmt.Sprint("req", i), ana, then, c.policy)
		escalated := func() (err error) {
			role := w.role(now)
			w.view(func(v *store.View) error {
				err = Escalated(v, r, role, serval.AccessPolicy{SuspendOnEscalation: c.today})
				return nil
			})
			return err
		}
		if err := escalated(); err != nil {
			t.Errorf("%s: suspended before it was approved: %v", c.name, err)
		}
		w.decide(r, true)
		w.push(now)
		err := escalated()
		if (err != nil) != c.want {
			t.Errorf("%s: %v, want it suspended: %v", c.name, err, c.want)
		}
		if refusal, ok := errors.AsType[*serval.Refusal](err); c.want && (!ok || refusal.Kind != serval.FailedPrecondition || refusal.Detail["cause"] != "role_escalated") {
			t.Errorf("%s: %v is no refusal with its cause", c.name, err)
		}
	}
}

// What is asked of the store while it does not answer is a fault, and no answer.
func TestFaultsAreNoAnswers(t *testing.T) {
	w := newWorld(t, sqlitetest.URLOf(t, storetest.Migrate))
	role := aRole("r", "sqs:SendMessage")
	w.push(role)
	r := w.ask("one", ana, role, "strict")
	w.decide(r, true)
	kept := w.role(role)
	ctx, cancel := context.WithCancel(t.Context())
	err := w.store.Read(ctx, func(v *store.View) error {
		cancel()
		admin := kept
		admin.Ability = string(insight.AWS().Look(aRole("r", "*")).Index())
		_, err1 := Before(v, r)
		_, err2 := Explaining(v).Explain(r, Earlier{})
		_, err3 := Of(v, kept, "", "")
		_, err4 := since(v, kept, 0)
		err5 := Escalated(v, r, admin, serval.AccessPolicy{})
		for i, err := range []error{err1, err2, err3, err4, err5} {
			if err == nil || serval.IsRefusal(err) {
				t.Errorf("%d: %v, want a fault", i+1, err)
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
