package wallet

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/keep"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

var noon = time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)

const arn = "arn:aws:iam::111122223333:role/dev"

// A world is a laptop, and a bridge that can be made to fail.
type world struct {
	t      *testing.T
	now    time.Time // of the laptop
	skew   time.Duration
	role   wire.Role
	fault  error         // of every call
	lease  time.Duration // of sessions; 0: as long as the access
	cap    time.Duration // that the role sets
	opened int
	calls  int
	asked  []wire.NewRequest
	narrow *wire.Narrow
	note   string // of the bridge's with a session
	waits  bool   // what is asked for waits for approval
	*Wallet
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, now: noon, cap: 12 * time.Hour}
	ends := wire.Time{Time: noon.Add(4 * time.Hour)}
	w.role = wire.Role{ARN: arn, AccountID: "111122223333", Name: "dev", MaxMinutes: 480, RecommendedMinutes: 90,
		MyRequest: &wire.Request{ID: "req_1", Status: "approved", EndsAt: ends}}
	k, err := keep.Open(t.TempDir(), nil, func() time.Time { return w.now })
	if err != nil {
		t.Fatal(err)
	}
	w.Wallet = &Wallet{Origin: "https://serval.example.com", Keep: k, Now: func() time.Time { return w.now },
		With: func(_ context.Context, f func(Bridge) error) error { return f(w) }}
	return w
}

func (w *world) Skew() time.Duration { return w.skew }

func (w *world) Role(_ context.Context, accountID, name string) (wire.Role, error) {
	w.calls++
	if accountID != "111122223333" || name != "dev" {
		return wire.Role{}, serval.Refuse(serval.NotFound, "There is no such role.")
	}
	return w.role, w.reading()
}

// reading is the fault of calls that change nothing: they are not refused for the
// state that an access is in.
func (w *world) reading() error {
	if serval.IsRefusal(w.fault, serval.Conflict, serval.FailedPrecondition, serval.Denied) {
		return nil
	}
	return w.fault
}

func (w *world) Request(_ context.Context, id string) (wire.Request, error) {
	w.calls++
	if w.role.MyRequest == nil || w.role.MyRequest.ID != id {
		return wire.Request{}, serval.Refuse(serval.NotFound, "There is no such request.")
	}
	return *w.role.MyRequest, w.reading()
}

func (w *world) Ask(_ context.Context, ask wire.NewRequest) ([]wire.Request, error) {
	w.asked = append(w.asked, ask)
	w.role.MyRequest = &wire.Request{ID: "req_2", Status: "approved", EndsAt: wire.Time{Time: w.now.Add(90 * time.Minute)}}
	if w.waits {
		w.role.MyRequest.Status, w.role.MyRequest.EndsAt = "pending", wire.Time{}
	}
	return []wire.Request{*w.role.MyRequest}, w.fault
}

func (w *world) Open(_ context.Context, s wire.NewSession) (wire.Credentials, error) {
	w.calls++
	if w.fault != nil {
		return wire.Credentials{}, w.fault
	}
	w.opened, w.narrow = w.opened+1, s.Narrow
	there := w.now.Add(w.skew)
	c := wire.Credentials{AccessKeyID: fmt.Sprintf("ASIA%d", w.opened), Expiration: w.role.MyRequest.EndsAt, Note: w.note}
	if end := there.Add(w.cap); end.Before(c.Expiration.Time) {
		c.Expiration.Time = end
	}
	if end := there.Add(w.lease); w.lease > 0 && end.Before(c.Expiration.Time) {
		c.Expiration.Time, c.RenewAt.Time = end, there.Add(w.lease*2/3)
	}
	return c, nil
}

func ask(t *testing.T) Ask {
	t.Helper()
	parsed, err := serval.ParseRoleARN(arn)
	if err != nil {
		t.Fatal(err)
	}
	return Ask{Role: parsed}
}

// gets expects the credentials of that session.
func (w *world) gets(what string, session int) Held {
	w.t.Helper()
	held, err := w.Credentials(w.t.Context(), ask(w.t))
	if err != nil {
		w.t.Fatalf("%s: %v", what, err)
	}
	if want := fmt.Sprintf("ASIA%d", session); held.AccessKeyID != want {
		w.t.Errorf("%s: got %s, want %s", what, held.AccessKeyID, want)
	}
	return held
}

// fails expects none, and returns why.
func (w *world) fails(what string, a Ask) error {
	w.t.Helper()
	held, err := w.Credentials(w.t.Context(), a)
	if err == nil {
		w.t.Fatalf("%s: got %s", what, held.AccessKeyID)
	}
	return err
}

func TestFresh(t *testing.T) {
	w := newWorld(t)
	w.cap = time.Hour
	if held := w.gets("the first", 1); held.Kept {
		t.Error("the first was kept")
	}
	calls := w.calls
	w.now = noon.Add(57*time.Minute - time.Second)
	if held := w.gets("three minutes before the end", 1); !held.Kept || w.calls != calls {
		t.Errorf("it took %d calls", w.calls-calls)
	}
	w.now = noon.Add(57 * time.Minute)
	w.gets("within three minutes", 2)
	w.now = noon.Add(3*time.Hour + 30*time.Minute)
	w.gets("long after", 3)

	// It ends with the access: another session would last no longer.
	w.now = noon.Add(3*time.Hour + 58*time.Minute)
	w.gets("the last minutes", 3)
	w.role.MyRequest.EndsAt.Time = noon.Add(6 * time.Hour)
	w.gets("the last minutes, extended", 4)
	w.now = noon.Add(4*time.Hour + 56*time.Minute)
	w.role.MyRequest.EndsAt.Time = noon.Add(4*time.Hour + 58*time.Minute)
	w.role.MyRequest.Status = "expired"
	w.fault = serval.Refuse(serval.Conflict, "This access has ended.")
	if err := w.fails("the last minutes, ended", ask(t)); exit(err) != "no access" {
		t.Errorf("after the end: %v", err)
	}
}

// exit says in words what an error is to the caller.
func exit(err error) string {
	if _, ok := errors.AsType[*NoAccess](err); ok {
		return "no access"
	}
	if r, ok := errors.AsType[*serval.Refusal](err); ok {
		return string(r.Kind)
	}
	return "fault"
}

// While nobody can say anything of the access what is kept serves until its end;
// once somebody has said no it is gone.
func TestFaults(t *testing.T) {
	away := errors.New("the bridge is away")
	aws := &serval.Refusal{Kind: serval.Denied, Reason: "AWS refused.", Detail: map[string]string{"code": "AccessDenied"}}
	for name, c := range map[string]struct {
		fault  error
		serves bool
		want   string
	}{
		"the bridge is away":     {away, true, "fault"},
		"it is overloaded":       {serval.Refuse(serval.Exhausted, "Wait."), true, "resource_exhausted"},
		"nobody is signed in":    {serval.Refuse(serval.Unauthenticated, "Sign in."), true, "unauthenticated"},
		"the ID token has ended": {serval.Refuse(serval.LoginRequired, "Sign in."), true, "login_required"},
		"it was revoked":         {serval.Refuse(serval.Conflict, "It was revoked."), false, "no access"},
		"it is suspended":        {serval.Refuse(serval.FailedPrecondition, "It is suspended."), false, "no access"},
		"AWS refused":            {aws, false, "permission_denied"},
	} {
		w := newWorld(t)
		w.lease = 30 * time.Minute
		w.gets(name+": the first", 1)
		w.fault = c.fault
		w.now = noon.Add(19 * time.Minute)
		w.gets(name+": before it is due", 1)
		w.now = noon.Add(20 * time.Minute)
		if c.serves {
			held := w.gets(name+": when it is due", 1)
			if len(held.Notes) != 1 || !strings.Contains(held.Notes[0], "What was kept serves for another 10m0s.") {
				t.Errorf("%s: the notes are %q", name, held.Notes)
			}
			w.now = noon.Add(30 * time.Minute)
		}
		if err := w.fails(name, ask(t)); exit(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
		// What was taken away does not come back while the bridge is away.
		w.now, w.fault = noon.Add(21*time.Minute), away
		if _, err := w.Credentials(t.Context(), ask(t)); (err == nil) != c.serves {
			t.Errorf("%s: a minute later: %v", name, err)
		}
	}
}

func TestNoAccess(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*world, *Ask)
		want   string
	}{
		"none":      {func(w *world, _ *Ask) { w.role.MyRequest = nil }, "You have no access to " + arn + " now. Ask for it: serval request " + arn + " --for 1h30m"},
		"suspended": {func(w *world, _ *Ask) { w.role.MyRequest.Suspended = "No policy fits." }, "No policy fits."},
		"pending": {func(w *world, _ *Ask) {
			w.role.MyRequest.Status = "pending"
			w.role.MyRequest.Steps = []wire.Step{
				{Approvers: wire.People{Groups: []string{"owners"}}, Outcome: new("approve")}, {Approvers: wire.People{Groups: []string{"leads"}}}}
		}, "Your request for " + arn + " waits for approval by leads (serval requests)."},
		"not automatic": {func(w *world, a *Ask) { w.role.MyRequest, a.Request = nil, true }, "it is not approved automatically"},
		"no reason": {func(w *world, a *Ask) {
			w.role.MyRequest, a.Request, w.role.Approval.Automatic, w.role.RequireJustification = nil, true, true, true
		}, `a request has to give a reason. Ask for it: serval request ` + arn + ` --for 1h30m --reason "…"`},
	} {
		w, a := newWorld(t), ask(t)
		c.change(w, &a)
		if err := w.fails(name, a); exit(err) != "no access" || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if len(w.asked) > 0 {
			t.Errorf("%s: access was asked for", name)
		}
	}
	w, a := newWorld(t), ask(t)
	w.role.MyRequest, w.role.Approval.Automatic, a.Request, a.Reason = nil, true, true, "why"
	if _, err := w.Credentials(t.Context(), a); err != nil || len(w.asked) != 1 || w.asked[0].Minutes != 90 || w.asked[0].Justification != "why" {
		t.Errorf("with --request: %v, asked for %+v", err, w.asked)
	}
	w, a = newWorld(t), ask(t)
	w.role.MyRequest, w.role.Approval.Automatic, a.Request, w.waits = nil, true, true, true
	if err := w.fails("asked, and not approved", a); exit(err) != "no access" || !strings.Contains(err.Error(), "was made, and waits for approval") || len(w.asked) != 1 {
		t.Errorf("with --request, not approved: %v, asked for %+v", err, w.asked)
	}
	// A command that is said to type holds nothing that a shell obeys. S-25
	w, a = newWorld(t), ask(t)
	a.Role.Path = "/x;id;/"
	w.role.ARN, w.role.MyRequest = a.Role.String(), nil
	if err := w.fails("a path for a shell", a); !strings.HasSuffix(err.Error(), "Ask for it: serval request "+a.Role.AccountID+"/"+a.Role.Name+" --for 1h30m") {
		t.Errorf("a path for a shell: %v", err)
	}
	// The same name in another path is another role.
	w, a = newWorld(t), ask(t)
	a.Role.Path = "/team/"
	if err := w.fails("another path", a); exit(err) != "not_found" {
		t.Errorf("another path: %v", err)
	}
}

// Narrowed credentials are kept apart, and all of a role's dropped together.
func TestNarrow(t *testing.T) {
	w, narrow := newWorld(t), ask(t)
	narrow.Narrow.ReadOnly = true
	w.gets("whole", 1)
	if w.narrow != nil {
		t.Errorf("whole was asked for as %+v", w.narrow)
	}
	if held, err := w.Credentials(t.Context(), narrow); err != nil || held.AccessKeyID != "ASIA2" || !w.narrow.ReadOnly {
		t.Errorf("read-only: %v, %v", held.AccessKeyID, err)
	}
	w.gets("whole, again", 1)
	if err := w.Drop(narrow.Role); err != nil {
		t.Fatal(err)
	}
	if _, ok := w.Wallet.Fresh(narrow); ok {
		t.Error("read-only is still kept")
	}
	w.gets("whole, dropped", 3)
	other := *w.Wallet
	other.Origin = "https://other.example.com"
	if _, ok := other.Fresh(ask(t)); ok {
		t.Error("another bridge's credentials were handed out")
	}
}

// A clock that is wrong makes credentials end early, and never late.
func TestSkew(t *testing.T) {
	w := newWorld(t)
	w.cap, w.skew = time.Hour, 30*time.Minute // this machine is behind
	held := w.gets("behind", 1)
	if len(held.Notes) != 1 || !strings.Contains(held.Notes[0], "30m0s behind") {
		t.Errorf("the notes are %q", held.Notes)
	}
	w.now = noon.Add(56 * time.Minute)
	w.gets("behind, four minutes before the end", 1)
	w.fault = errors.New("away")
	with := w.With
	w.With = func(ctx context.Context, f func(Bridge) error) error {
		w.now = noon.Add(61 * time.Minute) // it took that long to find out
		return with(ctx, f)
	}
	w.now = noon.Add(58 * time.Minute)
	w.fails("behind, the end came while the bridge was asked", ask(t))
	w.With, w.now = with, noon.Add(time.Hour)
	w.fails("behind, at the end", ask(t))

	w = newWorld(t)
	w.cap, w.skew = time.Hour, -30*time.Minute // this machine is ahead
	if held := w.gets("ahead", 1); len(held.Notes) != 1 || !strings.Contains(held.Notes[0], "30m0s ahead of") {
		t.Errorf("the notes are %q", held.Notes)
	}
	w.now = noon.Add(26 * time.Minute)
	w.gets("ahead, before the end as this clock has it", 1)
	w.now = noon.Add(30 * time.Minute)
	w.fault = errors.New("away")
	w.fails("ahead, at the end as this clock has it", ask(t))

	// One that was set back knows nothing.
	w = newWorld(t)
	w.gets("right", 1)
	w.now = noon.Add(-time.Hour)
	w.gets("set back", 2)
}

// Many at once open one session.
func TestOneSession(t *testing.T) {
	w := newWorld(t)
	var all sync.WaitGroup
	var mu sync.Mutex
	seen := map[string]int{}
	for range 20 {
		all.Go(func() {
			held, err := w.Credentials(t.Context(), ask(t))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			seen[held.AccessKeyID]++
		})
	}
	all.Wait()
	if len(seen) != 1 || w.opened != 1 {
		t.Errorf("%d sessions were opened: %v", w.opened, seen)
	}
	// Also when what is got is not fresh for long.
	w.role.MyRequest.EndsAt.Time = noon.Add(2 * time.Minute)
	if err := w.Drop(ask(t).Role); err != nil {
		t.Fatal(err)
	}
	calls := w.calls
	for range 5 {
		all.Go(func() {
			if _, err := w.Credentials(t.Context(), ask(t)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if w.opened != 2 || w.calls != calls+2 {
		t.Errorf("with two minutes left %d sessions were opened in %d calls, want one more in two", w.opened-1, w.calls-calls)
	}
}

// What the bridge has to say of a session is handed on with it, and once. A lease is
// renewed without asking whether its access goes on, which the bridge knows.
func TestRenewed(t *testing.T) {
	w := newWorld(t)
	w.lease, w.note = 30*time.Minute, "It was made shorter."
	if held := w.gets("the first", 1); len(held.Notes) != 1 || held.Notes[0] != w.note {
		t.Errorf("the notes are %q", held.Notes)
	}
	if held := w.gets("the first, kept", 1); len(held.Notes) != 0 {
		t.Errorf("kept, the notes are %q", held.Notes)
	}
	calls := w.calls
	w.now = noon.Add(20 * time.Minute)
	if w.gets("renewed", 2); w.calls != calls+2 {
		t.Errorf("it took %d calls, want two", w.calls-calls)
	}

	// The access that it was opened under is not known any more, and there is another.
	w = newWorld(t)
	w.cap = time.Hour
	w.gets("under the first access", 1)
	w.role.MyRequest = &wire.Request{ID: "req_3", Status: "approved", EndsAt: wire.Time{Time: noon.Add(2 * time.Hour)}}
	w.now = noon.Add(58 * time.Minute)
	w.gets("under another", 2)
}

// Where nothing can be kept it works all the same.
func TestNothingKept(t *testing.T) {
	w := newWorld(t)
	w.Keep = nil
	w.gets("the first", 1)
	w.gets("the second", 2)
	if err := w.Drop(ask(t).Role); err != nil {
		t.Error(err)
	}
}
