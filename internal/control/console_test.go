package control

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// console is an opening of the console.
func console(id string) Opening {
	return Opening{RequestID: id, Kind: serval.ForConsole, Page: serval.ConsolePage{Service: "ec2", Region: "eu-central-1"}}
}

// failure is an error of the far side's: a refusal for the person, and more for
// the audit log.
type failure struct{ refusal error }

func (f failure) Error() string { return "the far side: " + f.refusal.Error() }
func (f failure) Unwrap() error { return f.refusal }
func (f failure) Facts() map[string]string {
	return map[string]string{"code": "Refused", "message": "AWS's own words", "status": "400"}
}

// The console is a session of its own with rows of its own, and its credentials
// stay here.
func TestConsole(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.stock()
		ana := w.engineer("ana@example.com")
		r := w.ask(ana, roleARN(prod, "reader"), 60)
		first := w.open(ana, r.ID)
		before := w.head()
		ask := console(r.ID)
		ask.ReadOnly = true
		o, err := w.tryOpen(ana, ask)
		if err != nil {
			t.Fatal(err)
		}
		if o.Credentials != (serval.Minted{}) || !strings.Contains(o.Link.Reveal(), o.Session.AccessKeyID) || o.Session.ID == first.Session.ID {
			t.Errorf("opened %+v, want another session and a way into the console alone", o)
		}
		if kept := w.session(o.Session.ID); kept.Kind != serval.ForConsole || kept.State != serval.SessionIssued {
			t.Errorf("kept %+v, want a console session, issued", kept)
		}
		if d := cmp.Diff([]serval.ConsolePage{{Service: "ec2", Region: "eu-central-1"}}, w.sts.pages); d != "" {
			t.Errorf("pages (-want +got):\n%s", d)
		}
		if m := w.sts.asked()[1]; len(m.PolicyARNs) != 1 || strings.Contains(m.Policy, "Allow") {
			t.Errorf("STS was asked %+v, want it read only", m)
		}
		events := w.events(before)
		want := []string{"ana@example.com session.open started", "ana@example.com session.issue done", "ana@example.com session.signin done"}
		if d := cmp.Diff(want, told(events)); d != "" {
			t.Fatalf("events (-want +got):\n%s", d)
		}
		detail := map[string]string{
			"session_id": o.Session.ID, "access_key_id": o.Session.AccessKeyID, "assumed_role_id": o.Session.AssumedRoleID,
			"role_arn": r.Role.ARN, "service": "ec2", "region": "eu-central-1",
		}
		if d := cmp.Diff(detail, events[2].Detail); d != "" || events[0].Detail["kind"] != "console" || events[2].Target != r.ID {
			t.Errorf("detail of the sign-in (-want +got):\n%s", d)
		}
		if text := fmt.Sprintf("%v %+v %#v", o, o, o); strings.Contains(text, canary) {
			t.Errorf("the way into the console prints: %s", text)
		}
		w.wantNoCanary()
	})
}

// What keeps the console from opening: nobody has the session then.
func TestConsoleFails(t *testing.T) {
	w := newWorld(t).stock()
	p := w.people()
	type step func(r *serval.Request) func(context.Context, serval.Minted, serval.Secret) (serval.Secret, error)
	answer := func(err error) step {
		return func(*serval.Request) func(context.Context, serval.Minted, serval.Secret) (serval.Secret, error) {
			return func(context.Context, serval.Minted, serval.Secret) (serval.Secret, error) {
				return serval.Secret{}, err
			}
		}
	}
	for _, test := range []struct {
		name   string
		way    step
		want   string // kind, or fault
		told   []string
		detail map[string]string // of the last row
	}{
		{"the sign-in service refuses", answer(failure{serval.Refuse(serval.FailedPrecondition, "AWS does not open the console.")}),
			"failed_precondition", []string{"session.open started", "session.issue done", "session.signin failed"},
			map[string]string{"signin_code": "Refused", "signin_message": "AWS's own words", "signin_status": "400"}},
		{"a fault", answer(errors.New(canary)), "fault: " + canary, []string{"session.open started", "session.issue done", "session.signin failed"}, nil},
		// S-75: the last look is after the way was made.
		{"revoked meanwhile", func(r *serval.Request) func(context.Context, serval.Minted, serval.Secret) (serval.Secret, error) {
			return func(_ context.Context, _ serval.Minted, right serval.Secret) (serval.Secret, error) {
				if _, err := w.plane.Revoke(t.Context(), p.adm, r.ID, "x"); err != nil {
					t.Error(err)
				}
				return right, nil
			}
		}, "conflict", []string{"session.open started", "session.issue done", "request.revoke done", "session.signin done", "session.drop refused"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := w.ask(p.ana, roleARN(prod, "reader"), 60)
			before := w.head()
			w.sts.way = test.way(r)
			o, err := w.tryOpen(p.ana, console(r.ID))
			wantNothing(t, o)
			if got := kindOf(err); got != test.want {
				t.Errorf("refused as %s, want %s", got, test.want)
			}
			events := w.events(before)
			var got []string
			for _, e := range events {
				got = append(got, string(e.Action)+" "+string(e.Outcome))
			}
			if d := cmp.Diff(test.told, got); d != "" {
				t.Errorf("events (-want +got):\n%s", d)
			}
			for name, want := range test.detail {
				if got := events[len(events)-1].Detail[name]; got != want {
					t.Errorf("the row says %s %q, want %q", name, got, want)
				}
			}
			if s := w.sessions(r.ID)[0]; s.State != serval.SessionDropped || s.Error == "" || s.AccessKeyID == "" {
				t.Errorf("session %+v, want it dropped", s)
			}
		})
	}
	w.wantNoCanary()

	// S-77: what cannot be recorded is not handed over, were all else still there.
	db, err := sql.Open("sqlite", strings.TrimPrefix(w.url, "sqlite://"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), `create trigger full before insert on event when new.action = 'session.signin'
		begin select raise(abort, 'there is no room'); end`); err != nil {
		t.Fatal(err)
	}
	r := w.ask(p.ana, roleARN(prod, "reader"), 60)
	w.sts.way = nil
	o, err := w.tryOpen(p.ana, console(r.ID))
	wantNothing(t, o)
	if err == nil || serval.IsRefusal(err) {
		t.Errorf("not to be recorded: %v, want a fault", err)
	}
}

// A page that is not there is refused before AWS is asked.
func TestConsolePageIsChecked(t *testing.T) {
	w := newWorld(t).stock()
	ana := w.engineer("ana@example.com")
	r := w.ask(ana, roleARN(prod, "reader"), 60)
	for _, page := range []serval.ConsolePage{{Service: "//evil.example"}, {Region: "cn-north-1"}, {Region: "x"}} {
		ask := console(r.ID)
		ask.Page = page
		o, err := w.tryOpen(ana, ask)
		wantKind(t, fmt.Sprintf("the page %+v", page), err, serval.Invalid)
		wantNothing(t, o)
		_, _, err = w.plane.LinkConsole(t.Context(), ana, ask)
		wantKind(t, fmt.Sprintf("a link to the page %+v", page), err, serval.Invalid)
	}
	if n := len(w.sts.asked()); n != 0 {
		t.Errorf("STS was asked %d times, want 0", n)
	}
}

// S-9, S-63: a way to the console is used once, within a minute, by the person
// whose client made it, signed in.
func TestConsoleLink(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.stock()
		p := w.people()
		r := w.ask(p.ana, roleARN(prod, "reader"), 240)
		link := func() serval.Secret {
			t.Helper()
			ask := console(r.ID)
			ask.NoChaining = true
			code, ends, err := w.plane.LinkConsole(t.Context(), p.ana, ask)
			if err != nil {
				t.Fatal(err)
			}
			if !ends.Equal(w.clock.now().Add(time.Minute)) || len(code.Reveal()) != 43 {
				t.Errorf("a code of %d characters until %s, want one of 43 for a minute", len(code.Reveal()), ends)
			}
			return code
		}
		use := func(who serval.Principal, code serval.Secret) (Opened, error) {
			return w.plane.OpenLinked(t.Context(), who, code)
		}
		before := w.head()
		code := link()
		if n := len(w.sts.asked()); n != 0 {
			t.Errorf("a link alone asked STS %d times", n)
		}
		o, err := use(p.bob, code)
		wantKind(t, "another person's", err, serval.NotFound)
		wantNothing(t, o)
		o, err = use(p.ana, serval.NewSecret(code.Reveal()+"x"))
		wantKind(t, "another code", err, serval.NotFound)
		wantNothing(t, o)
		// Not used up by anybody else, it opens what was asked.
		o, err = use(p.ana, code)
		if err != nil || o.Link.Empty() || o.Session.Kind != serval.ForConsole || o.Session.RequestID != r.ID {
			t.Fatalf("opened %+v: %v", o, err)
		}
		if d := cmp.Diff([]serval.ConsolePage{console("").Page}, w.sts.pages); d != "" || !strings.Contains(w.sts.asked()[0].Policy, "sts:AssumeRole*") {
			t.Errorf("asked for another page or another session than was linked (-want +got):\n%s", d)
		}
		if d := cmp.Diff([]string{
			"ana@example.com session.link done", "bob@example.com session.open refused", "ana@example.com session.open refused",
			"ana@example.com session.open started", "ana@example.com session.issue done", "ana@example.com session.signin done",
		}, told(w.events(before))); d != "" {
			t.Errorf("events (-want +got):\n%s", d)
		}
		if e := w.events(before); e[3].Target != r.ID {
			t.Errorf("the intent is about %q, want the request", e[3].Target)
		}
		_, err = use(p.ana, code)
		wantKind(t, "used", err, serval.NotFound)
		code = link()
		w.clock.move(time.Minute)
		_, err = use(p.ana, code)
		wantKind(t, "too late", err, serval.NotFound)

		// Where the session is refused, the link stays for the rest of its minute.
		w.clock.move(time.Hour - 2*time.Minute)
		ana := p.ana
		p.ana = w.signIn("ana@example.com", "engineering")
		code = link()
		_, err = use(ana, code)
		wantKind(t, "in a browser whose ID token has ended", err, serval.LoginRequired)
		if _, err := use(p.ana, code); err != nil {
			t.Errorf("after signing in again: %v", err)
		}

		// One of many gets it, on whichever replica.
		code = link()
		planes := w.replicas()
		var got atomic.Int32
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				if _, err := planes[i%2].OpenLinked(t.Context(), p.ana, code); err == nil {
					got.Add(1)
				} else if !serval.IsRefusal(err, serval.NotFound) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := got.Load(); n != 1 {
			t.Errorf("one link opened %d sessions", n)
		}

		// What the session would be refused for, the link is.
		for name, change := range map[string]func(o *Opening) serval.Kind{
			"no request":      func(o *Opening) serval.Kind { o.RequestID = "req_none"; return serval.NotFound },
			"no such network": func(o *Opening) serval.Kind { o.Network = "home"; return serval.Invalid },
		} {
			ask := console(r.ID)
			want := change(&ask)
			code, _, err := w.plane.LinkConsole(t.Context(), p.ana, ask)
			wantKind(t, name, err, want)
			if !code.Empty() {
				t.Errorf("%s: a code beside the refusal", name)
			}
		}
		_, _, err = w.plane.LinkConsole(t.Context(), p.bob, console(r.ID))
		wantKind(t, "under another's request", err, serval.NotFound)

		// They are bounded.
		for range maxLinks {
			link()
		}
		_, _, err = w.plane.LinkConsole(t.Context(), p.ana, console(r.ID))
		wantKind(t, "one too many", err, serval.Exhausted)
		w.clock.move(time.Minute)
		link()
		if _, err := w.plane.Revoke(t.Context(), p.adm, r.ID, "x"); err != nil {
			t.Fatal(err)
		}
		_, _, err = w.plane.LinkConsole(t.Context(), p.ana, console(r.ID))
		wantKind(t, "after it was revoked", err, serval.Conflict)
		w.wantNoCanary()
	})
}
