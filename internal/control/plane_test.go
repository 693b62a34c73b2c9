package control

import (
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zapcore"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// S-10: there is no third door. Every exported method of Plane, Logins, Intake and
// Runs takes who acts, and goes through act or view, by itself or by a method that
// does.
func TestOneDoor(t *testing.T) {
	goThroughDoor(t, "*.go", "Plane", 25, map[string]string{
		"Sweep":       "acts as the system; each item is an act",
		"PublishHead": "writes the head to the log, for nobody",
	})
	goThroughDoor(t, "../signin/*.go", "Logins", 15, map[string]string{
		"Appoint": "is told by Plane.Appoint, which is an act, whom the configuration names",
		"IDToken": "looks in the transaction of an act of Plane's",
		"Rekey":   "is given another secret by whoever runs the bridge",
		"Wipe":    "drops what has ended, for nobody",
	})
	goThroughDoor(t, "../intake/*.go", "Intake", 4, map[string]string{"Tell": "acts as the system, of what an act left to tell"})
	goThroughDoor(t, "../workflow/*.go", "Runs", 5, map[string]string{"Sweep": "acts as the system; each item is an act"})
}

// goThroughDoor fails the test where an exported method of the type does not. At
// least so many have to be found.
func goThroughDoor(t *testing.T, files, typ string, least int, exceptions map[string]string) {
	t.Helper()
	names, err := filepath.Glob(files)
	if err != nil {
		t.Fatal(err)
	}
	methods := map[string]*ast.FuncDecl{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv == nil {
				continue
			}
			if star, ok := f.Recv.List[0].Type.(*ast.StarExpr); ok && star.X.(*ast.Ident).Name == typ {
				methods[f.Name.Name] = f
			}
		}
	}
	// calls returns the methods of p that f calls.
	calls := func(f *ast.FuncDecl) (names []string) {
		self := f.Recv.List[0].Names[0].Name
		ast.Inspect(f, func(n ast.Node) bool {
			if c, ok := n.(*ast.CallExpr); ok {
				if s, ok := c.Fun.(*ast.SelectorExpr); ok {
					if x, ok := s.X.(*ast.Ident); ok && x.Name == self {
						names = append(names, s.Sel.Name)
					}
				}
			}
			return true
		})
		return names
	}
	var throughDoor func(name string, seen []string) bool
	throughDoor = func(name string, seen []string) bool {
		if name == "act" || name == "view" {
			return true
		}
		f := methods[name]
		if f == nil || slices.Contains(seen, name) {
			return false
		}
		return slices.ContainsFunc(calls(f), func(next string) bool { return throughDoor(next, append(seen, name)) })
	}
	var found int
	for name, f := range methods {
		if !f.Name.IsExported() {
			continue
		}
		found++
		if exceptions[name] != "" {
			delete(exceptions, name)
			continue
		}
		var parameters []string
		for _, field := range f.Type.Params.List {
			for _, n := range field.Names {
				text := n.Name
				if s, ok := field.Type.(*ast.SelectorExpr); ok {
					text += " " + s.X.(*ast.Ident).Name + "." + s.Sel.Name
				}
				parameters = append(parameters, text)
			}
		}
		if len(parameters) < 2 || parameters[0] != "ctx context.Context" || parameters[1] != "who serval.Principal" {
			t.Errorf("%s takes (%s), want ctx context.Context, who serval.Principal first", name, strings.Join(parameters, ", "))
		}
		if !throughDoor(name, nil) {
			t.Errorf("%s goes neither through act nor through view", name)
		}
	}
	if found < least {
		t.Errorf("found %d exported methods of %s; is the test looking at the right place?", found, typ)
	}
	for name := range exceptions {
		t.Errorf("%s is excepted and is not there", name)
	}
}

// meta returns what the world keeps under name.
func (w *world) meta(name string) (value string) {
	w.t.Helper()
	if err := w.store.Read(context.Background(), func(v *store.View) (err error) { value, err = v.Meta(name); return err }); err != nil {
		w.t.Fatal(err)
	}
	return value
}

// S-77: a change and its event are one: both, or neither.
func TestAct(t *testing.T) { each(t, testAct) }

func testAct(t *testing.T, w *world) {
	who := serval.Principal{
		Kind: serval.KindPerson, Person: serval.Person{ID: "person_1", Email: "adm@example.com"}, Admin: true,
		RequestID: "http-9", Address: "192.0.2.1",
	}
	base := serval.Event{
		ActorKind: serval.KindPerson, ActorID: "person_1", Actor: "adm@example.com", Action: serval.SyncRequest, Target: prod,
		RequestID: "http-9", Address: "192.0.2.1",
	}
	with := func(change func(*serval.Event)) []serval.Event {
		e := base
		change(&e)
		return []serval.Event{e}
	}
	for _, test := range []struct {
		name string
		who  serval.Principal
		f    func(cancel func(), tx *store.Tx, e *serval.Event) error
		kept string
		want []serval.Event
	}{
		{
			"done", who, func(_ func(), _ *store.Tx, e *serval.Event) error {
				e.Detail = map[string]string{"fact": "1"}
				return nil
			}, "yes",
			with(func(e *serval.Event) { e.Outcome, e.Detail = serval.OutcomeDone, map[string]string{"fact": "1"} }),
		},
		{
			"its own events", who, func(_ func(), _ *store.Tx, e *serval.Event) error { e.Action = ""; return nil }, "yes", nil,
		},
		{
			// A change that must be told, and is not.
			"untold", who, func(_ func(), tx *store.Tx, e *serval.Event) error {
				e.Action = ""
				return tx.SavePerson(serval.Person{ID: "person_9", Email: "new@example.com", CreatedAt: noon})
			}, "",
			with(func(e *serval.Event) {
				e.Outcome, e.Reason = serval.OutcomeFailed, "something went wrong on our side"
			}),
		},
		{
			"refused", who, func(func(), *store.Tx, *serval.Event) error {
				return &serval.Refusal{Kind: serval.Conflict, Reason: "Too late.", Detail: map[string]string{"until": "noon"}}
			}, "",
			with(func(e *serval.Event) {
				e.Outcome, e.Reason, e.Detail = serval.OutcomeRefused, "Too late.", map[string]string{"until": "noon"}
			}),
		},
		{
			"fault", who, func(func(), *store.Tx, *serval.Event) error { return errors.New("password=" + canary) }, "",
			with(func(e *serval.Event) {
				e.Outcome, e.Reason = serval.OutcomeFailed, "something went wrong on our side"
			}),
		},
		{
			// The event cannot be kept, so the change is not.
			"no record", who, func(cancel func(), _ *store.Tx, _ *serval.Event) error { cancel(); return nil }, "", nil,
		},
		{
			// whoever goes away is recorded all the same.
			"refused, and gone", who, func(cancel func(), _ *store.Tx, _ *serval.Event) error {
				cancel()
				return serval.Refuse(serval.Denied, "No.")
			}, "",
			with(func(e *serval.Event) { e.Outcome, e.Reason = serval.OutcomeRefused, "No." }),
		},
		{
			"not permitted", serval.Principal{Kind: serval.KindPerson, Person: serval.Person{ID: "person_2", Email: "ana@example.com"}},
			func(func(), *store.Tx, *serval.Event) error { panic("f ran") }, "",
			with(func(e *serval.Event) {
				e.ActorID, e.Actor, e.RequestID, e.Address = "person_2", "ana@example.com", "", ""
				e.Outcome, e.Reason = serval.OutcomeRefused, "This is for admins."
			}),
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			name, before := "test "+test.name, w.head()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			err := w.plane.act(ctx, test.who, serval.SyncRequest, prod, func(tx *store.Tx, e *serval.Event) error {
				if err := tx.SetMeta(name, "yes"); err != nil {
					return err
				}
				return test.f(cancel, tx, e)
			})
			if (err == nil) != (test.kept != "") {
				t.Errorf("err %v", err)
			}
			if got := w.meta(name); got != test.kept {
				t.Errorf("the change is kept as %q, want %q", got, test.kept)
			}
			got := w.events(before)
			for i := range got {
				got[i].Seq, got[i].At = 0, time.Time{}
			}
			if d := cmp.Diff(test.want, got); d != "" {
				t.Errorf("events (-want +got):\n%s", d)
			}
		})
	}
	w.wantNoCanary()
}

func TestView(t *testing.T) {
	w := newWorld(t)
	who := serval.Principal{Kind: serval.KindPerson, Person: serval.Person{ID: "person_1", Email: "ana@example.com"}}
	before := w.head()
	look := func(who serval.Principal, what serval.Action, f func(*store.View) error) error {
		return w.plane.view(t.Context(), who, what, "x", f)
	}
	wantKind(t, "a fault", look(who, serval.RoleRead, func(*store.View) error { return serval.Refuse(serval.NotFound, "Not here.") }), serval.NotFound)
	if err := look(who, serval.RoleRead, func(*store.View) error { return errors.New("broken") }); err == nil || serval.IsRefusal(err) {
		t.Errorf("a fault came out as %v", err)
	}
	wantKind(t, "accounts for a person", look(who, serval.AccountRead, func(*store.View) error { panic("f ran") }), serval.Denied)
	wantKind(t, "roles for a worker", look(hub(), serval.RoleRead, func(*store.View) error { panic("f ran") }), serval.Unauthenticated)
	want := []string{"ana@example.com role.read refused", "ana@example.com account.read refused", "hub role.read refused"}
	if d := cmp.Diff(want, told(w.events(before))); d != "" {
		t.Errorf("events (-want +got):\n%s", d)
	}
}

// Nobody fills the log from outside: what strangers are refused is recorded up
// to sixty times a minute, and the rest is counted. Who only looks is not.
func TestStrangers(t *testing.T) {
	for name, who := range map[string]serval.Principal{"zero": {}, "nobody": {Kind: serval.KindNobody}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.clock.move(30 * time.Second)
			before := w.head()
			try := func() {
				_, err := w.plane.Cancel(t.Context(), who, "req_1")
				wantKind(t, "a stranger", err, serval.Unauthenticated)
			}
			for range 60 + 15 {
				try()
				_, _, err := w.plane.Roles(t.Context(), who, RoleFilter{})
				wantKind(t, "a stranger's look", err, serval.Unauthenticated)
				_, err = w.logins.List(t.Context(), who)
				wantKind(t, "a stranger's look at logins", err, serval.Unauthenticated)
				_, _, err = w.logins.Recognise(t.Context(), who, serval.NewSecret("old"))
				wantKind(t, "an old cookie", err, serval.Unauthenticated)
			}
			if got := w.events(before); len(got) != 60 {
				t.Fatalf("%d rows, want %d", len(got), 60)
			} else if got[0].ActorKind != serval.KindNobody || got[0].Action != serval.RequestCancel || got[0].Reason != "You are not signed in." {
				t.Errorf("row %+v", got[0])
			}
			// Who is known is not a stranger.
			_, err := w.plane.Cancel(t.Context(), hub(), "req_1")
			wantKind(t, "a worker", err, serval.Unauthenticated)
			before = w.head()
			w.clock.move(time.Minute)
			try()
			try()
			got := w.events(before)
			if len(got) != 2 || got[0].Detail["not_recorded_before"] != "15" || got[1].Detail["not_recorded_before"] != "" {
				t.Errorf("a minute later: %+v, want two rows, the first with not_recorded_before 15", got)
			}
		})
	}
}

// with a clock that was set back nothing happens.
func TestClockSetBack(t *testing.T) {
	w := newWorld(t).stock()
	ana := w.engineer("ana@example.com")
	w.clock.move(-2 * time.Minute)
	_, err := w.plane.Request(t.Context(), ana, Ask{RoleARNs: []string{roleARN(prod, "reader")}, Ask: serval.Ask{Minutes: 5}})
	wantKind(t, "two minutes back", err, serval.Unavailable)
	if alarms := w.logs.FilterMessage("the clock went back").All(); len(alarms) != 1 || alarms[0].Level != zapcore.ErrorLevel {
		t.Errorf("the log has the alarms %+v, want one", alarms)
	}
}

// of two replicas, the one whose clock goes back or ahead by an hour
// lengthens nothing: the end of an access is an instant.
func TestClocksApart(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.stock()
		planes := w.replicas()
		var ahead atomic.Int64
		planes[1].door.Now = func() time.Time { return w.clock.now().Add(time.Duration(ahead.Load())) }
		ana := w.engineer("ana@example.com")
		r := w.ask(ana, roleARN(prod, "reader"), 30)
		w.open(ana, r.ID)
		end := w.request(r.ID).EndsAt
		open := func(p *Plane) error { _, err := p.Open(t.Context(), ana, opening(r.ID)); return err }

		ahead.Store(int64(-time.Hour))
		w.clock.move(29 * time.Minute)
		wantKind(t, "an hour behind: a session", open(planes[1]), serval.Unavailable)
		_, err := planes[1].Extend(t.Context(), ana, r.ID, 30, "more")
		wantKind(t, "an hour behind: an extension", err, serval.Unavailable)
		wantKind(t, "on time: a session", open(planes[0]), "")
		w.clock.move(2 * time.Minute)
		wantKind(t, "an hour behind, after the end", open(planes[1]), serval.Unavailable)
		wantKind(t, "on time, after the end", open(planes[0]), serval.Conflict)
		if got := w.request(r.ID).EndsAt; !got.Equal(end) {
			t.Errorf("the end moved from %s to %s", end, got)
		}

		// An hour ahead it ends early, and from then on the other is behind.
		second := w.ask(ana, roleARN(prod, "reader"), 30)
		w.open(ana, second.ID)
		ahead.Store(int64(time.Hour))
		_, err = planes[1].Open(t.Context(), ana, opening(second.ID))
		wantKind(t, "an hour ahead: a session", err, serval.Conflict)
		_, err = planes[0].Open(t.Context(), ana, opening(second.ID))
		wantKind(t, "on time, after an hour ahead was seen", err, serval.Unavailable)
		if w.logs.FilterMessage("the clock went back").Len() < 4 {
			t.Error("the log does not tell of the clocks")
		}
	})
}
