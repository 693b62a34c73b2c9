package control

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/awssts"
	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/idptest"
	"github.com/serval-bridge/serval-bridge/internal/intake"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// opening is what is asked under a request.
func opening(id string) Opening { return Opening{RequestID: id, Kind: serval.ForCredentials} }

// tryOpen opens a session and returns how that went.
func (w *world) tryOpen(who serval.Principal, o Opening) (Opened, error) {
	return w.plane.Open(w.t.Context(), who, o)
}

// wantNothing fails the test if anything of a session was handed over.
func wantNothing(t *testing.T, o Opened) {
	t.Helper()
	if o.Credentials != (serval.Minted{}) || !o.Link.Empty() || o.Session.ID != "" || o.Note != "" {
		t.Errorf("handed over %+v, want nothing", o)
	}
}

// The whole of it: intent, call, answer, clock, record.
func TestOpen(t *testing.T) { each(t, testOpen) }

func testOpen(t *testing.T, w *world) {
	w.stock()
	ana := w.engineer("ana+o'neil@example.com")
	r := w.ask(ana, roleARN(prod, "reader"), 60)
	before := w.head()
	w.sts.say(func(_ context.Context, m serval.Mint, right serval.Minted) (serval.Minted, error) {
		w.clock.move(2 * time.Second) // the way there
		right.Expiration = w.clock.now().Add(time.Duration(m.Seconds) * time.Second).Truncate(time.Second)
		return right, nil
	})
	o := w.open(ana, r.ID)
	start := noon.Add(2 * time.Second).Truncate(time.Second)

	want := serval.Session{
		ID: o.Session.ID, RequestID: r.ID, PersonID: ana.Person.ID, Kind: serval.ForCredentials, State: serval.SessionIssued,
		Role:        serval.RoleKey{Partition: "aws", AccountID: prod, RoleID: roleID(prod, "reader", 1), ARN: roleARN(prod, "reader")},
		SessionName: "ana+o-neil@example.com", Seconds: 3600, StartedAt: noon, FinishedAt: noon.Add(2 * time.Second),
		AccessKeyID: "ASIA000000000001", AssumedRoleID: roleID(prod, "reader", 1) + ":ana+o-neil@example.com",
		Expiration: start.Add(time.Hour), EndsAt: noon.Add(time.Hour).Truncate(time.Second),
	}
	if d := cmp.Diff(want, o.Session); d != "" {
		t.Errorf("session (-want +got):\n%s", d)
	}
	if d := cmp.Diff(want, w.session(want.ID)); d != "" {
		t.Errorf("session as kept (-want +got):\n%s", d)
	}
	if o.Credentials.SecretAccessKey.Reveal() != canary+"-secret-access-key" || o.Credentials.SessionToken.Empty() || o.Note != "" {
		t.Errorf("credentials %+v, note %q", o.Credentials, o.Note)
	}
	m := w.sts.asked()[0]
	if m.Token.Reveal() != idToken("00u-ana+o'neil").Reveal() || m.Seconds != 3600 || m.PolicyARNs != nil {
		t.Errorf("STS was asked %+v, want the person's token for an hour", m)
	}
	wantPolicy := serval.SessionPolicy{End: noon.Add(time.Hour).Truncate(time.Second)}.Document()
	if d := cmp.Diff(wantPolicy, m.Policy); d != "" {
		t.Errorf("session policy (-want +got):\n%s", d)
	}
	got := w.request(r.ID)
	if !got.ClockStartedAt.Equal(start) || !got.EndsAt.Equal(start.Add(time.Hour)) {
		t.Errorf("clock from %s to %s, want STS's start %s and an hour", got.ClockStartedAt, got.EndsAt, start)
	}

	// S-70: the rows join with CloudTrail, whatever became of the session's name.
	events := w.events(before)
	if d := cmp.Diff([]string{"ana+o'neil@example.com session.open started", "ana+o'neil@example.com session.issue done"}, told(events)); d != "" {
		t.Fatalf("events (-want +got):\n%s", d)
	}
	intent := map[string]string{
		"session_id": want.ID, "kind": "credentials", "role_arn": want.Role.ARN, "role_id": want.Role.RoleID,
		"session_name": want.SessionName, "email": "ana+o'neil@example.com", "subject": "00u-ana+o'neil", "seconds": "3600",
		"policy": "readers", "policy_digest": policies()[0].Digest(), "end": "2026-03-01T13:00:00Z",
	}
	if d := cmp.Diff(intent, events[0].Detail); d != "" || events[0].Target != r.ID {
		t.Errorf("detail of the intent (-want +got):\n%s", d)
	}
	maps.Copy(intent, map[string]string{
		"access_key_id": want.AccessKeyID, "assumed_role_id": want.AssumedRoleID, "expiration": "2026-03-01T13:00:02Z",
		"clock_started_at": "2026-03-01T12:00:02Z", "ends_at": "2026-03-01T13:00:00Z",
	})
	if d := cmp.Diff(intent, events[1].Detail); d != "" || events[1].Target != r.ID || events[1].RequestID != "http-1" {
		t.Errorf("detail of the outcome (-want +got):\n%s", d)
	}

	// A second session ends with the grant, and moves no clock.
	w.sts.say(nil)
	w.clock.move(20 * time.Minute)
	o = w.open(ana, r.ID)
	if again := w.request(r.ID); !again.ClockStartedAt.Equal(start) || !o.Session.EndsAt.Equal(o.Session.Expiration) || o.Session.EndsAt.After(again.EndsAt) || o.Session.Seconds != 2399 {
		t.Errorf("the second session: %+v, clock from %s; want it within the grant", o.Session, again.ClockStartedAt)
	}
	// S-72: with less than fifteen minutes left it is longer than the grant, and
	// the policy ends it.
	w.clock.move(30 * time.Minute)
	o = w.open(ana, r.ID)
	if o.Session.Seconds != 900 || !o.Session.EndsAt.Equal(start.Add(time.Hour)) || o.Session.EndsAt.Equal(o.Session.Expiration) {
		t.Errorf("a session at the end: %+v, want 900 seconds, ended by its policy", o.Session)
	}
	//
	w.clock.move(10 * time.Minute)
	_, err := w.tryOpen(ana, opening(r.ID))
	wantKind(t, "after the end", err, serval.Conflict)
	w.wantNoCanary()
}

// S-71, S-75: each thing that has to hold, missing; and that STS is then not
// asked at all.
func TestOpenPreconditions(t *testing.T) {
	type setting struct {
		*world
		p   people
		r   *serval.Request
		who serval.Principal
		o   Opening
	}
	reader := func(s *setting) { s.r = s.ask(s.p.ana, roleARN(prod, "reader"), 60) }
	keep := func(s *setting, f func(tx *store.Tx) error) {
		must(s.t, s.store.Write(s.t.Context(), s.clock.now(), f))
	}
	for _, test := range []struct {
		name  string
		setup func(s *setting)
		want  serval.Kind
		cause string // of the refusal's detail
	}{
		{"right", func(*setting) {}, "", ""},
		{"console", func(s *setting) { s.o.Kind = serval.ForConsole }, "", ""},
		{"another's", func(s *setting) { s.who = s.p.bob }, serval.NotFound, ""},
		{"an admin's", func(s *setting) { s.who = s.p.adm }, serval.NotFound, ""},
		{"an auditor's", func(s *setting) { s.who = s.p.aud }, serval.NotFound, ""},
		{"no request", func(s *setting) { s.o.RequestID = "req_none" }, serval.NotFound, ""},
		{"no person", func(s *setting) { s.who = stranger() }, serval.Unauthenticated, ""},
		{"a worker", func(s *setting) { s.who = hub() }, serval.Unauthenticated, ""},
		{"pending", func(s *setting) {
			s.r = s.ask(s.p.ana, roleARN(prod, "admin"), 60)
			s.o.RequestID = s.r.ID
		}, serval.Conflict, ""},
		{"half approved", func(s *setting) {
			s.r = s.ask(s.p.ana, roleARN(prod, "admin"), 60)
			s.o.RequestID = s.r.ID
			_, err := s.decide(s.p.lea, s.r.ID, true)
			must(s.t, err)
		}, serval.Conflict, ""},
		{"denied", func(s *setting) {
			s.r = s.ask(s.p.ana, roleARN(prod, "admin"), 60)
			s.o.RequestID = s.r.ID
			_, err := s.decide(s.p.lea, s.r.ID, false)
			must(s.t, err)
		}, serval.Conflict, ""},
		{"revoked", func(s *setting) {
			_, err := s.plane.Revoke(s.t.Context(), s.p.adm, s.r.ID, "")
			must(s.t, err)
		}, serval.Conflict, ""},
		{"canceled", func(s *setting) { _, err := s.plane.Cancel(s.t.Context(), s.p.ana, s.r.ID); must(s.t, err) }, serval.Conflict, ""},
		{"done", func(s *setting) { _, err := s.plane.Done(s.t.Context(), s.p.ana, s.r.ID); must(s.t, err) }, serval.Conflict, ""},
		{"expired unused", func(s *setting) { s.clock.move(serval.DefaultRequestExpiry); s.who = s.engineer("ana@example.com") }, serval.Conflict, ""},
		{"before its start", func(s *setting) {
			s.r = s.ask(s.p.ana, roleARN(prod, "reader"), 60, func(a *serval.Ask) { a.StartAt = s.clock.now().Add(time.Minute) })
			s.o.RequestID = s.r.ID
		}, serval.FailedPrecondition, ""},
		{"at its start", func(s *setting) {
			s.r = s.ask(s.p.ana, roleARN(prod, "reader"), 60, func(a *serval.Ask) { a.StartAt = s.clock.now().Add(time.Minute) })
			s.o.RequestID = s.r.ID
			s.clock.move(time.Minute)
		}, "", ""},
		{"suspended meanwhile", func(s *setting) {
			id := s.identity("ana.new@example.com", "engineering")
			id.Subject = "00u-ana"
			_, _, err := s.signInAs(s.plane, id)
			must(s.t, err)
		}, serval.FailedPrecondition, "person_suspended"},
		{"email changed", func(s *setting) {
			keep(s, func(tx *store.Tx) error {
				person := s.p.ana.Person
				person.Email = "ana.new@example.com"
				return tx.SavePerson(person)
			})
		}, serval.FailedPrecondition, "email_changed"},
		{"email in another case", func(s *setting) {
			keep(s, func(tx *store.Tx) error {
				person := s.p.ana.Person
				person.Email = "ANA@example.com"
				return tx.SavePerson(person)
			})
		}, "", ""},
		{"role created again", func(s *setting) { // S-3
			s.push(prod, aRole(prod, "reader", func(r *serval.Role) { r.RoleID = roleID(prod, "reader", 2) }),
				aRole(prod, "admin"), aRole(prod, "own"), aRole(prod, "peer"), aRole(prod, "chain"), aRole(prod, "secret"))
		}, serval.Conflict, ""}, // the unused request has failed
		{"role untagged", func(s *setting) {
			s.pushAs(prod, func(i *serval.Inventory) { i.Untagged = []string{roleID(prod, "reader", 1)} })
		}, serval.FailedPrecondition, "role_gone"},
		{"role held", func(s *setting) { s.push(prod) }, serval.FailedPrecondition, "role_held"},
		{"account disconnected", func(s *setting) {
			must(s.t, s.plane.Declare(s.t.Context(), serval.System(), 0, accounts()[1:], policies()))
		}, serval.Conflict, ""}, // the unused request has failed
		{"policy gone", func(s *setting) {
			must(s.t, s.plane.Declare(s.t.Context(), serval.System(), 0, accounts(), policies()[1:4]))
		}, serval.FailedPrecondition, "not_eligible"},
		{"group gone", func(s *setting) { s.who = s.signIn("ana@example.com") }, serval.FailedPrecondition, "not_eligible"},
		{"ID token at its margin", func(s *setting) { s.clock.move(time.Hour - time.Minute) }, serval.LoginRequired, ""}, // S-61
		{"ID token before its margin", func(s *setting) { s.clock.move(time.Hour - time.Minute - time.Microsecond) }, "", ""},
		{"ID token ended", func(s *setting) { s.clock.move(time.Hour + time.Second) }, serval.LoginRequired, ""},
		{"ID token wiped", func(s *setting) { must(s.t, s.store.WipeTokens(s.t.Context(), s.clock.now().Add(time.Hour), noon)) }, serval.LoginRequired, ""},
		{"login ended", func(s *setting) {
			must(s.t, s.logins.End(s.t.Context(), s.who, s.who.LoginID))
		}, serval.LoginRequired, ""},
		{"login ended, and its ID token left behind", func(s *setting) {
			left := s.login(s.who).IDToken
			s.who.LoginID = "login_left"
			keep(s, func(tx *store.Tx) error {
				return tx.CreateLogin(store.Login{
					ID: "login_left", Token: "x", PersonID: s.who.Person.ID, Kind: store.BrowserLogin, ExpiresAt: tx.Now.Add(time.Hour), EndedAt: tx.Now, IDToken: left,
				})
			})
		}, serval.LoginRequired, ""},
		{"login of another", func(s *setting) { s.who.LoginID = s.p.bob.LoginID }, serval.LoginRequired, ""},
		{"no login", func(s *setting) { s.who.LoginID = "" }, serval.LoginRequired, ""},
		{"login over, ID token not", func(s *setting) {
			id := s.identity("ana@example.com", "engineering")
			id.ExpiresAt = s.clock.now().Add(20 * time.Hour)
			var err error
			s.who, _, err = s.signInAs(s.plane, id)
			must(s.t, err)
			s.clock.move(8 * time.Hour)
		}, serval.LoginRequired, ""},
		{"no such network", func(s *setting) { s.o.Network = "home" }, serval.Invalid, ""},
		{"a network of nothing", func(s *setting) { s.o.Network = "void" }, serval.Invalid, ""},
	} {
		t.Run(strings.ReplaceAll(test.name, "#", ""), func(t *testing.T) {
			w := newWorld(t).stock()
			s := &setting{world: w, p: w.people()}
			s.who = s.p.ana
			reader(s)
			s.o = opening(s.r.ID)
			test.setup(s)
			before := w.head()
			o, err := w.tryOpen(s.who, s.o)
			wantKind(t, "opening", err, test.want)
			if test.want == "" {
				if len(w.sts.asked()) != 1 || (o.Credentials.AccessKeyID == "") == o.Link.Empty() || o.Session.Kind != s.o.Kind {
					t.Errorf("STS was asked %d times, opened %+v", len(w.sts.asked()), o)
				}
				return
			}
			wantNothing(t, o)
			if logs := w.logs.FilterMessage("a sealed ID token does not open"); logs.Len() != 0 {
				t.Errorf("what is not there was tried to open: %+v", logs.All())
			}
			if n := len(w.sts.asked()); n != 0 {
				t.Errorf("STS was asked %d times, want 0", n)
			}
			if r, ok := errors.AsType[*serval.Refusal](err); !ok || r.Detail["cause"] != test.cause {
				t.Errorf("refused as %+v, want the cause %q", err, test.cause)
			}
			if test.want == serval.NotFound && err.Error() != noRequest().Error() {
				t.Errorf("%q, want %q as for no request at all", err, noRequest())
			}
			if e := w.events(before); len(e) != 1 || e[0].Action != serval.SessionOpen || e[0].Outcome != serval.OutcomeRefused || e[0].Target != s.o.RequestID {
				t.Errorf("events %+v, want one refusal", e)
			}
			if r := w.request(s.r.ID); !r.ClockStartedAt.IsZero() || len(w.sessions(s.r.ID)) != 0 {
				t.Errorf("a refused opening left a clock from %s and %d sessions", r.ClockStartedAt, len(w.sessions(s.r.ID)))
			}
		})
	}
}

// S-3: a grant that runs opens nothing for the role's next life.
func TestOpenUnderARunningGrantOfARecreatedRole(t *testing.T) {
	w := newWorld(t).stock()
	ana := w.engineer("ana@example.com")
	r := w.ask(ana, roleARN(prod, "reader"), 60)
	w.open(ana, r.ID)
	w.push(prod, aRole(prod, "reader", func(r *serval.Role) { r.RoleID = roleID(prod, "reader", 2) }))
	o, err := w.tryOpen(ana, opening(r.ID))
	wantNothing(t, o)
	wantKind(t, "the role's next life", err, serval.FailedPrecondition)
	if got := w.request(r.ID).Status; got != serval.StatusApproved {
		t.Errorf("the running request is %s", got)
	}
}

// S-84: sixty sessions a minute and person, failed ones too.
func TestMintRate(t *testing.T) {
	w := newWorld(t).stock()
	w.usePlane(w.newPlane(w.store, func(s *Settings) { s.MintRate = 3 }))
	if got := w.newPlane(w.store).settings.MintRate; got != 60 {
		t.Errorf("the rate is %d where none is set, want 60", got)
	}
	ana, bob := w.engineer("ana@example.com"), w.engineer("bob@example.com")
	r, theirs := w.ask(ana, roleARN(prod, "reader"), 60), w.ask(bob, roleARN(prod, "reader"), 60)
	for i := range 3 {
		if i == 1 {
			w.sts.say(func(context.Context, serval.Mint, serval.Minted) (serval.Minted, error) {
				return serval.Minted{}, serval.Refuse(serval.Unavailable, "AWS is away.")
			})
		}
		w.tryOpen(ana, opening(r.ID))
		w.sts.say(nil)
		w.clock.move(10 * time.Second)
	}
	_, err := w.tryOpen(ana, opening(r.ID))
	wantKind(t, "the fourth in a minute", err, serval.Exhausted)
	if x, ok := errors.AsType[*serval.Refusal](err); !ok || x.Detail["retry_after"] != "60" {
		t.Errorf("refused as %+v, want retry_after", err)
	}
	w.open(bob, theirs.ID)
	w.clock.move(30*time.Second - time.Microsecond)
	_, err = w.tryOpen(ana, opening(r.ID))
	wantKind(t, "just within the minute", err, serval.Exhausted)
	w.clock.move(time.Microsecond)
	_, err = w.tryOpen(ana, opening(r.ID))
	wantKind(t, "a minute after the first", err, "")
}

// S-1, S-6, S-80: an answer that does not fit is never handed over.
func TestOpenChecksTheAnswer(t *testing.T) {
	w := newWorld(t).stock()
	for i, test := range []struct {
		name   string
		change func(a *serval.Minted)
		right  bool
	}{
		{"right", func(*serval.Minted) {}, true},
		{"no access key", func(a *serval.Minted) { a.AccessKeyID = "" }, false},
		{"no secret", func(a *serval.Minted) { a.SecretAccessKey = serval.Secret{} }, false},
		{"no token", func(a *serval.Minted) { a.SessionToken = serval.Secret{} }, false},
		{"empty", func(a *serval.Minted) { *a = serval.Minted{} }, false},
		{"another account", func(a *serval.Minted) { a.AssumedRoleARN = strings.Replace(a.AssumedRoleARN, prod, dev, 1) }, false},
		{"another role", func(a *serval.Minted) { a.AssumedRoleARN = strings.Replace(a.AssumedRoleARN, "reader", "admin", 1) }, false},
		{"another session", func(a *serval.Minted) { a.AssumedRoleARN += "x" }, false},
		{"another role id", func(a *serval.Minted) { a.AssumedRoleID = "AROAOTHER:" + "x@example.com" }, false},
		{"another audience", func(a *serval.Minted) { a.Audience += "x" }, false},
		{"another subject", func(a *serval.Minted) { a.Subject += "x" }, false},
		{"another issuer", func(a *serval.Minted) { a.Provider = "https://evil.example" }, false},
		{"ended", func(a *serval.Minted) { a.Expiration = w.clock.now() }, false},
		{"an hour too long", func(a *serval.Minted) { a.Expiration = a.Expiration.Add(time.Hour) }, false},
		{"a minute too long", func(a *serval.Minted) { a.Expiration = a.Expiration.Add(61 * time.Second) }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			ana := w.engineer(fmt.Sprintf("ana%d@example.com", i))
			r := w.ask(ana, roleARN(prod, "reader"), 60)
			w.sts.say(func(_ context.Context, _ serval.Mint, right serval.Minted) (serval.Minted, error) {
				test.change(&right)
				return right, nil
			})
			before := w.head()
			o, err := w.tryOpen(ana, opening(r.ID))
			s := w.sessions(r.ID)[0]
			if test.right {
				if err != nil || s.State != serval.SessionIssued {
					t.Errorf("%v, session %+v", err, s)
				}
				return
			}
			wantKind(t, "opening", err, serval.FailedPrecondition)
			wantNothing(t, o)
			if s.State != serval.SessionFailed || s.AccessKeyID != "" || s.FinishedAt.IsZero() || s.Error == "" {
				t.Errorf("session %+v, want it failed", s)
			}
			if !w.request(r.ID).ClockStartedAt.IsZero() {
				t.Error("the clock runs")
			}
			got := w.events(before)
			if len(got) != 2 || got[1].Action != serval.SessionFail || got[1].Outcome != serval.OutcomeFailed || got[1].Detail["session_id"] != s.ID || got[1].Reason != err.Error() {
				t.Errorf("events %+v", got)
			}
		})
	}
	w.wantNoCanary()
}

// where STS refuses, nothing starts, and it is told.
func TestOpenFails(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.stock()
		ana := w.engineer("ana@example.com")
		r := w.ask(ana, roleARN(prod, "reader"), 60)
		for _, test := range []struct {
			name   string
			err    error
			want   string
			reason string
			detail map[string]string
		}{
			{"refusal", &serval.Refusal{Kind: serval.Unavailable, Reason: "AWS is away.", Detail: map[string]string{"code": "ServiceUnavailable"}},
				"unavailable", "AWS is away.", map[string]string{"sts_code": "ServiceUnavailable"}},
			{"wrapped", fmt.Errorf("sts: %w", serval.Refuse(serval.LoginRequired, "Sign in again.")), "login_required", "Sign in again.", nil},
			{"fault", errors.New("token=" + canary), "fault: token=" + canary, "something went wrong on our side", nil},
		} {
			w.sts.say(func(context.Context, serval.Mint, serval.Minted) (serval.Minted, error) {
				return serval.Minted{}, test.err
			})
			before := w.head()
			o, err := w.tryOpen(ana, opening(r.ID))
			if got := kindOf(err); got != test.want {
				t.Errorf("%s: %q, want %q", test.name, got, test.want)
			}
			wantNothing(t, o)
			e := w.events(before)
			if len(e) != 2 || e[1].Action != serval.SessionFail || e[1].Outcome != serval.OutcomeFailed || e[1].Reason != test.reason || e[1].Target != r.ID {
				t.Errorf("%s: events %+v", test.name, e)
			}
			for name, value := range test.detail {
				if e[1].Detail[name] != value {
					t.Errorf("%s: detail %v, want %s %s", test.name, e[1].Detail, name, value)
				}
			}
			if s := w.session(e[1].Detail["session_id"]); s.State != serval.SessionFailed || s.Error != test.reason {
				t.Errorf("%s: session %+v", test.name, s)
			}
		}
		if !w.request(r.ID).ClockStartedAt.IsZero() {
			t.Error("the clock runs")
		}
		w.wantNoCanary()
	})
}

// S-73: where the role's maximum fell, an hour is asked for once, and it is said.
func TestClamp(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.stock()
		ana := w.engineer("ana@example.com")
		r := w.ask(ana, roleARN(prod, "reader"), 240)
		tooLong := &serval.Refusal{Kind: serval.FailedPrecondition, Reason: "Too long.", Detail: map[string]string{"clamp": "true"}}
		w.sts.say(func(_ context.Context, m serval.Mint, right serval.Minted) (serval.Minted, error) {
			if m.Seconds > 3600 {
				return serval.Minted{}, tooLong
			}
			return right, nil
		})
		before := w.head()
		o := w.open(ana, r.ID)
		if asked := w.sts.asked(); len(asked) != 2 || asked[0].Seconds != 14400 || asked[1].Seconds != 3600 || asked[0].Policy != asked[1].Policy {
			t.Errorf("STS was asked %+v, want four hours and then one", asked)
		}
		if o.Note == "" || o.Session.Seconds != 3600 || !o.Session.EndsAt.Equal(noon.Add(time.Hour).Truncate(time.Second)) {
			t.Errorf("opened %+v, want an hour and a note", o)
		}
		got := w.request(r.ID)
		if !got.ClockStartedAt.Equal(noon.Truncate(time.Second)) || got.EndsAt.Sub(got.ClockStartedAt) != 4*time.Hour {
			t.Errorf("clock from %s to %s, want four hours from STS's start", got.ClockStartedAt, got.EndsAt)
		}
		if e := w.events(before); e[1].Detail["clamped"] != "true" || e[1].Detail["seconds"] != "3600" {
			t.Errorf("events %+v", e)
		}
		// It is remembered for the next.
		w.open(ana, r.ID)
		if n := len(w.sts.asked()); n != 3 {
			t.Errorf("STS was asked %d times for two sessions, want 3", n)
		}

		// Also where the clock of AWS is behind ours, so that the end is set again.
		r = w.ask(ana, roleARN(dev, "reader"), 240)
		w.sts.say(func(_ context.Context, m serval.Mint, right serval.Minted) (serval.Minted, error) {
			if m.Seconds > 3600 {
				return serval.Minted{}, tooLong
			}
			right.Expiration = right.Expiration.Add(-30 * time.Second)
			return right, nil
		})
		before = w.head()
		if o, err := w.tryOpen(ana, opening(r.ID)); err != nil || o.Session.Seconds != 3600 || o.Note == "" {
			t.Errorf("with a clock that is behind: opened %+v, %v; want an hour and a note", o, err)
		}
		if e := w.events(before); len(e) != 2 || e[1].Detail["clamped"] != "true" || e[1].Detail["discarded_access_key_ids"] == "" {
			t.Errorf("with a clock that is behind: events %+v", e)
		}

		// Once: an hour that is too long as well is refused.
		r = w.ask(ana, roleARN(prod, "chain"), 240)
		asked := len(w.sts.asked())
		w.sts.say(func(context.Context, serval.Mint, serval.Minted) (serval.Minted, error) {
			return serval.Minted{}, tooLong
		})
		_, err := w.tryOpen(ana, opening(r.ID))
		wantKind(t, "never short enough", err, serval.FailedPrecondition)
		if n := len(w.sts.asked()) - asked; n != 2 {
			t.Errorf("STS was asked %d times, want 2", n)
		}
		// What is refused for another reason is not tried shorter.
		asked = len(w.sts.asked())
		w.sts.say(func(context.Context, serval.Mint, serval.Minted) (serval.Minted, error) {
			return serval.Minted{}, &serval.Refusal{Kind: serval.FailedPrecondition, Reason: "It does not trust you.", Detail: map[string]string{"denied": "sts:TagSession"}}
		})
		_, err = w.tryOpen(ana, opening(r.ID))
		wantKind(t, "not trusted", err, serval.FailedPrecondition)
		if all := w.sts.asked(); len(all) != asked+1 || all[asked].Seconds != 14400 {
			t.Errorf("STS was asked %d times, the first time for %d seconds; want once, for four hours", len(all)-asked, all[asked].Seconds)
		}
	})
}

// S-74: the clock starts exactly once, whoever mints first, on whichever
// replica; and no session has a later end than the grant.
func TestClockStartsOnce(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.stock()
		planes := w.replicas()
		ana := w.engineer("ana@example.com")
		r := w.ask(ana, roleARN(prod, "reader"), 60)
		w.sts.say(func(_ context.Context, m serval.Mint, right serval.Minted) (serval.Minted, error) {
			// Each at its own instant, and STS's clock is not ours.
			w.clock.move(10 * time.Millisecond)
			right.Expiration = w.clock.now().Add(time.Duration(m.Seconds)*time.Second - 400*time.Millisecond).Truncate(time.Second)
			return right, nil
		})
		before := w.head()
		var mu sync.Mutex
		var opened []Opened
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				o, err := planes[i%2].Open(t.Context(), ana, opening(r.ID))
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Errorf("one of fifty: %v", err)
					return
				}
				opened = append(opened, o)
			})
		}
		wg.Wait()
		got := w.request(r.ID)
		if got.EndsAt.Sub(got.ClockStartedAt) != time.Hour {
			t.Errorf("clock from %s to %s, want an hour", got.ClockStartedAt, got.EndsAt)
		}
		var starts int
		for _, e := range w.events(before) {
			if e.Detail["clock_started_at"] != "" {
				starts++
				if e.Detail["clock_started_at"] != got.ClockStartedAt.Format(time.RFC3339) {
					t.Errorf("the clock started at %s, and the request says %s", e.Detail["clock_started_at"], got.ClockStartedAt)
				}
			}
		}
		if starts != 1 || len(opened) != 50 {
			t.Errorf("%d sessions, and the clock started %d times, want 50 and once", len(opened), starts)
		}
		for _, o := range opened {
			if o.Session.EndsAt.After(got.EndsAt) || o.Session.State != serval.SessionIssued {
				t.Errorf("session %+v ends after the grant, at %s", o.Session, got.EndsAt)
			}
		}
	})
}

// A clock of AWS's that is behind ours ends the grant earlier than the session's
// policy says: the session is minted again with that end.
func TestMintAgain(t *testing.T) {
	w := newWorld(t).stock()
	ana := w.engineer("ana@example.com")
	behind := func(by time.Duration) func(context.Context, serval.Mint, serval.Minted) (serval.Minted, error) {
		return func(_ context.Context, m serval.Mint, right serval.Minted) (serval.Minted, error) {
			right.Expiration = right.Expiration.Add(-by)
			return right, nil
		}
	}
	r := w.ask(ana, roleARN(prod, "reader"), 60)
	w.sts.say(behind(30 * time.Second))
	before := w.head()
	o := w.open(ana, r.ID)
	start := noon.Truncate(time.Second).Add(-30 * time.Second)
	got, asked := w.request(r.ID), w.sts.asked()
	if len(asked) != 2 || !strings.Contains(asked[0].Policy, "13:00:00Z") || !strings.Contains(asked[1].Policy, "12:59:30Z") {
		t.Errorf("STS was asked %+v, want the earlier end the second time", asked)
	}
	if !got.ClockStartedAt.Equal(start) || !o.Session.EndsAt.Equal(start.Add(time.Hour)) || o.Credentials.AccessKeyID != "ASIA000000000002" {
		t.Errorf("clock from %s, session %+v; want STS's start and end, and the second's credentials", got.ClockStartedAt, o.Session)
	}
	e := w.events(before)
	if d := cmp.Diff([]string{"ana@example.com session.open started", "ana@example.com session.issue done"}, told(e)); d != "" || e[1].Detail["discarded_access_key_ids"] != "ASIA000000000001" {
		t.Errorf("detail %v, events (-want +got):\n%s", e[1].Detail, d)
	}

	// A clock that runs away cannot be met.
	r = w.ask(ana, roleARN(dev, "reader"), 60)
	var n time.Duration
	w.sts.say(func(_ context.Context, m serval.Mint, right serval.Minted) (serval.Minted, error) {
		n += 10 * time.Second
		right.Expiration = right.Expiration.Add(-n)
		return right, nil
	})
	o, err := w.tryOpen(ana, opening(r.ID))
	wantKind(t, "a clock that runs away", err, serval.Unavailable)
	wantNothing(t, o)
	if s := w.sessions(r.ID); len(s) != 1 || s[0].State != serval.SessionFailed || !w.request(r.ID).ClockStartedAt.IsZero() {
		t.Errorf("sessions %+v, want one, failed, and the clock standing", s)
	}

	// A grant that is shortened while STS is asked ends the session; and one that
	// ends soon then does not chain.
	r = w.ask(ana, roleARN(dev, "auditreader"), 60)
	w.sts.say(nil)
	w.open(ana, r.ID)
	first := len(w.sts.asked())
	end := w.clock.now().Add(5 * time.Minute).Truncate(time.Second)
	w.sts.say(func(_ context.Context, m serval.Mint, right serval.Minted) (serval.Minted, error) {
		if len(w.sts.asked()) == first+1 {
			if _, err := w.plane.Shorten(t.Context(), ana, r.ID, 0, end); err != nil {
				t.Error(err)
			}
		}
		return right, nil
	})
	o = w.open(ana, r.ID)
	asked = w.sts.asked()[first:]
	if len(asked) != 2 || strings.Contains(asked[0].Policy, "sts:AssumeRole") || !strings.Contains(asked[1].Policy, "sts:AssumeRole") || !o.Session.EndsAt.Equal(end) {
		t.Errorf("STS was asked %+v, session %+v; want the shortened end, without chaining", asked, o.Session)
	}
}

// S-75: access that is taken away while STS is asked is not handed over, and
// starts no clock.
func TestRevokedBetweenIntentAndOutcome(t *testing.T) { each(t, testRevokedBetween) }

func testRevokedBetween(t *testing.T, w *world) {
	w.stock()
	p := w.people()
	for _, test := range []struct {
		name string
		take func(r *serval.Request) error
		want serval.Kind
	}{
		{"revoked", func(r *serval.Request) error { _, err := w.plane.Revoke(t.Context(), p.adm, r.ID, "x"); return err }, serval.Conflict},
		{"canceled", func(r *serval.Request) error { _, err := w.plane.Cancel(t.Context(), p.ana, r.ID); return err }, serval.Conflict},
		{"policy gone", func(*serval.Request) error { return w.plane.Declare(t.Context(), serval.System(), 0, accounts(), nil) }, serval.FailedPrecondition},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := w.ask(p.ana, roleARN(prod, "reader"), 60)
			inside, taken := make(chan struct{}), make(chan error)
			w.sts.say(func(_ context.Context, _ serval.Mint, right serval.Minted) (serval.Minted, error) {
				close(inside)
				if err := <-taken; err != nil {
					t.Error(err)
				}
				return right, nil
			})
			go func() { <-inside; taken <- test.take(r) }()
			before := w.head()
			o, err := w.tryOpen(p.ana, opening(r.ID))
			wantKind(t, "opening", err, test.want)
			wantNothing(t, o)
			s := w.sessions(r.ID)[0]
			if s.State != serval.SessionDropped || s.AccessKeyID == "" || s.Error != err.Error() || !w.request(r.ID).ClockStartedAt.IsZero() {
				t.Errorf("session %+v, clock from %s; want it dropped with its key's id, and no clock", s, w.request(r.ID).ClockStartedAt)
			}
			e := w.events(before)
			last := e[len(e)-1]
			if last.Action != serval.SessionDrop || last.Outcome != serval.OutcomeRefused || last.Reason != err.Error() || last.Detail["access_key_id"] != s.AccessKeyID {
				t.Errorf("the last event %+v, want session.drop", last)
			}
		})
	}
	w.wantNoCanary()
}

// S-75: whatever takes an access away while STS is asked, or after the record and
// before the way into the console is handed over, and on whichever replica.
func TestTakenAwayBeforeHandOver(t *testing.T) { each(t, testTakenAway) }

func testTakenAway(t *testing.T, w *world) {
	declared := policies()
	for i := range declared {
		declared[i].SuspendOnEscalation = declared[i].Name == "chain"
	}
	declare := func(p *Plane, accounts []serval.Account, policies []serval.AccessPolicy) error {
		return p.Declare(t.Context(), serval.System(), 0, accounts, policies)
	}
	tame := aRole(prod, "chain", allowing("sqs:SendMessage"))
	others := []serval.Role{aRole(prod, "reader"), aRole(prod, "admin"), aRole(prod, "own"), aRole(prod, "peer")}
	replicas, ingest := w.replicas(), w.intake
	defer func() { w.intake = ingest }()
	adm := w.signIn("adm@example.com")
	n := 0
	for _, test := range []struct {
		name string
		take func(by *Plane, who serval.Principal, r *serval.Request) error
		want serval.Kind
	}{
		{"revoked", func(by *Plane, _ serval.Principal, r *serval.Request) error {
			_, err := by.Revoke(t.Context(), adm, r.ID, "x")
			return err
		}, serval.Conflict},
		{"canceled, or given back", func(by *Plane, who serval.Principal, r *serval.Request) error {
			_, err := by.Cancel(t.Context(), who, r.ID)
			if serval.IsRefusal(err) {
				_, err = by.Done(t.Context(), who, r.ID)
			}
			return err
		}, serval.Conflict},
		{"the person suspended", func(by *Plane, who serval.Principal, _ *serval.Request) error {
			said := w.identity(who.Person.Email, "engineering")
			said.Email = "new-" + said.Email
			_, _, err := w.signInAs(by, said)
			return err
		}, serval.FailedPrecondition},
		{"a group lost", func(by *Plane, who serval.Principal, _ *serval.Request) error {
			_, _, err := w.signInAs(by, w.identity(who.Person.Email))
			return err
		}, serval.FailedPrecondition},
		{"the login ended", func(by *Plane, who serval.Principal, _ *serval.Request) error {
			return by.logins.End(t.Context(), who, who.LoginID)
		}, serval.LoginRequired},
		{"no policy", func(by *Plane, _ serval.Principal, _ *serval.Request) error { return declare(by, accounts(), nil) }, serval.FailedPrecondition},
		{"another policy first", func(by *Plane, _ serval.Principal, _ *serval.Request) error {
			return declare(by, accounts(), append([]serval.AccessPolicy{{
				Name: "first", Roles: serval.RoleMatch{ARNs: []string{"*"}}, Eligible: serval.People{Emails: []string{"x@example.com"}},
				Approval: serval.Approval{Automatic: true}, MaxMinutes: 60,
			}}, declared[:4]...))
		}, serval.FailedPrecondition},
		{"the account out of the file", func(by *Plane, _ serval.Principal, _ *serval.Request) error {
			return declare(by, accounts()[1:], declared)
		}, serval.Conflict},
		{"the role untagged", func(*Plane, serval.Principal, *serval.Request) error {
			w.pushAs(prod, func(i *serval.Inventory) { i.Untagged = []string{tame.RoleID} }, others...)
			return nil
		}, serval.FailedPrecondition},
		{"the role gone", func(*Plane, serval.Principal, *serval.Request) error { w.push(prod, others...); return nil }, ""},
		{"its removal held", func(*Plane, serval.Principal, *serval.Request) error { w.push(prod); return nil }, serval.FailedPrecondition},
		{"the role escalated", func(*Plane, serval.Principal, *serval.Request) error {
			w.push(prod, append(others, aRole(prod, "chain", allowing("*")))...)
			return nil
		}, serval.FailedPrecondition},
	} {
		for by, replica := range replicas {
			for _, late := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, by %d, after the record %t", test.name, by, late), func(t *testing.T) {
					must(t, declare(w.plane, accounts(), declared))
					w.push(prod, append(others, tame)...)
					n++
					who := w.engineer(fmt.Sprintf("person-%d@example.com", n))
					r := w.ask(who, tame.ARN, 60)
					w.intake = intake.New(replica.door)
					take := func() {
						if err := test.take(replica, who, r); err != nil {
							t.Error(err)
						}
					}
					w.sts.say(func(_ context.Context, _ serval.Mint, right serval.Minted) (serval.Minted, error) {
						if !late {
							take()
						}
						return right, nil
					})
					w.sts.way = func(_ context.Context, _ serval.Minted, right serval.Secret) (serval.Secret, error) {
						if late {
							take()
						}
						return right, nil
					}
					o, err := w.tryOpen(who, Opening{RequestID: r.ID, Kind: serval.ForConsole})
					if test.want != "" || !serval.IsRefusal(err) {
						wantKind(t, "opening", err, test.want)
					}
					wantNothing(t, o)
					if s := w.sessions(r.ID); len(s) != 1 || s[0].State != serval.SessionDropped {
						t.Errorf("sessions %+v, want one, dropped", s)
					}
				})
			}
			t.Run(fmt.Sprintf("%s, by %d, at the last look", test.name, by), func(t *testing.T) {
				must(t, declare(w.plane, accounts(), declared))
				w.push(prod, append(others, tame)...)
				n++
				who := w.engineer(fmt.Sprintf("person-%d@example.com", n))
				w.sts.say(nil)
				r := w.ask(who, tame.ARN, 60)
				o := w.open(who, r.ID)
				var seen mintable
				must(t, w.store.Read(t.Context(), func(v *store.View) (err error) {
					if seen, err = w.plane.mintable(v, who, r.ID, w.clock.now()); err == nil {
						seen.asOf, err = v.ChainHead()
					}
					return err
				}))
				wantKind(t, "as it was", w.plane.recheck(t.Context(), who, o.Session, seen), "")
				w.intake = intake.New(replica.door)
				must(t, test.take(replica, who, r))
				err := w.plane.recheck(t.Context(), who, o.Session, seen)
				if test.want != "" || !serval.IsRefusal(err) {
					wantKind(t, "the last look", err, test.want)
				}
				if s := w.session(o.Session.ID); s.State != serval.SessionDropped {
					t.Errorf("the session is %s, want dropped", s.State)
				}
			})
		}
	}
}

// nothing is recorded while STS is asked, and time passes: what has ended is
// not handed over.
func TestEndedBetweenIntentAndOutcome(t *testing.T) { each(t, testEndedBetween) }

func testEndedBetween(t *testing.T, w *world) {
	w.stock()
	said := w.identity("ana@example.com", "engineering")
	said.ExpiresAt = w.clock.now().Add(24 * time.Hour)
	ana, _, err := w.signInAs(w.plane, said)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name        string
		asked, open time.Duration // after noon: when the clock starts, and when a session is opened
		takes       time.Duration
		want        serval.Kind
	}{
		{"nothing ends", 0, time.Minute, time.Minute, ""},
		{"the access ends", 10 * time.Minute, 69 * time.Minute, 2 * time.Minute, serval.Conflict},
		{"the sign-in ends", 470 * time.Minute, 479 * time.Minute, 2 * time.Minute, serval.LoginRequired},
	} {
		t.Run(test.name, func(t *testing.T) {
			w.sts.say(nil)
			w.clock.at.Store(noon.Add(test.asked).UnixMicro())
			r := w.ask(ana, roleARN(prod, "reader"), 60)
			w.open(ana, r.ID)
			w.clock.at.Store(noon.Add(test.open).UnixMicro())
			w.sts.say(func(_ context.Context, _ serval.Mint, right serval.Minted) (serval.Minted, error) {
				w.clock.move(test.takes)
				return right, nil
			})
			o, err := w.tryOpen(ana, opening(r.ID))
			if test.want == "" {
				if err != nil || o.Credentials.SecretAccessKey.Empty() {
					t.Errorf("%v, want credentials", err)
				}
				return
			}
			wantKind(t, "opening", err, test.want)
			wantNothing(t, o)
			if s := w.sessions(r.ID); s[len(s)-1].State != serval.SessionDropped {
				t.Errorf("the session is %s, want dropped", s[len(s)-1].State)
			}
		})
	}
}

// S-75: the last look is after the record and before the hand-over.
func TestRecheck(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.stock()
		p := w.people()
		r := w.ask(p.ana, roleARN(prod, "reader"), 60)
		o := w.open(p.ana, r.ID)
		before := w.head()
		if err := w.plane.recheck(t.Context(), p.ana, o.Session, mintable{}); err != nil || w.head() != before {
			t.Errorf("an access that stands: %v, and %d events", err, w.head()-before)
		}
		if _, err := w.plane.Revoke(t.Context(), p.adm, r.ID, "x"); err != nil {
			t.Fatal(err)
		}
		before = w.head()
		err := w.plane.recheck(t.Context(), p.ana, o.Session, mintable{})
		wantKind(t, "revoked after the record", err, serval.Conflict)
		if s := w.session(o.Session.ID); s.State != serval.SessionDropped || s.Error == "" {
			t.Errorf("session %+v, want it dropped", s)
		}
		e := w.events(before)
		if d := cmp.Diff([]string{"ana@example.com session.drop refused"}, told(e)); d != "" || e[0].Detail["access_key_id"] != o.Session.AccessKeyID {
			t.Errorf("events (-want +got):\n%s", d)
		}
		// A fault is told as one: no text of the database's is kept.
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := w.plane.recheck(ctx, p.ana, o.Session, mintable{}); err == nil || serval.IsRefusal(err) {
			t.Errorf("a look that fails: %v, want a fault", err)
		}
	})
}

// S-75, R-36: whoever revokes at whatever instant: credentials leave only while
// the access stands, and Open asks recheck.
func TestRevokeRaces(t *testing.T) {
	w := newWorld(t).stock()
	p := w.people()
	for i := range 30 {
		r := w.ask(p.ana, roleARN(prod, "reader"), 60)
		w.clock.move(5 * time.Second)
		var wg sync.WaitGroup
		go1 := make(chan struct{})
		w.sts.say(func(_ context.Context, _ serval.Mint, right serval.Minted) (serval.Minted, error) {
			close(go1)
			return right, nil
		})
		wg.Go(func() {
			<-go1
			time.Sleep(time.Duration(i*40) * time.Microsecond)
			if _, err := w.plane.Revoke(t.Context(), p.adm, r.ID, "x"); err != nil {
				t.Error(err)
			}
		})
		o, err := w.tryOpen(p.ana, opening(r.ID))
		wg.Wait()
		s := w.sessions(r.ID)[0]
		if handed := err == nil && !o.Credentials.SecretAccessKey.Empty(); handed != (s.State == serval.SessionIssued) {
			t.Errorf("handed over %v (%v), and the session is %s", handed, err, s.State)
		}
	}
	// The look is asked for: a revocation right after the record is seen.
	r := w.ask(p.ana, roleARN(prod, "reader"), 60)
	w.sts.say(nil)
	done := false
	w.plane.door.Now = func() time.Time {
		if !done && w.sessions(r.ID) != nil && w.sessions(r.ID)[0].State == serval.SessionIssued {
			done = true
			if _, err := w.newPlane(w.store).Revoke(t.Context(), p.adm, r.ID, "x"); err != nil {
				t.Error(err)
			}
		}
		return w.clock.now()
	}
	o, err := w.plane.Open(t.Context(), p.ana, opening(r.ID))
	wantKind(t, "revoked between record and hand-over", err, serval.Conflict)
	wantNothing(t, o)
	if s := w.sessions(r.ID)[0]; s.State != serval.SessionDropped {
		t.Errorf("session %+v, want it dropped", s)
	}
}

// S-77: what cannot be recorded is not handed over.
func TestStoreGoneBeforeTheRecord(t *testing.T) {
	w := newWorld(t).stock()
	ana := w.engineer("ana@example.com")
	r := w.ask(ana, roleARN(prod, "reader"), 60)
	w.sts.say(func(_ context.Context, _ serval.Mint, right serval.Minted) (serval.Minted, error) {
		w.store.Close()
		return right, nil
	})
	o, err := w.tryOpen(ana, opening(r.ID))
	if err == nil || serval.IsRefusal(err) {
		t.Errorf("%v, want a fault", err)
	}
	wantNothing(t, o)
	w.store = w.openStore()
	if s := w.sessions(r.ID); len(s) != 1 || s[0].State != serval.SessionStarted || !w.request(r.ID).ClockStartedAt.IsZero() {
		t.Errorf("sessions %+v, want the intent alone", s)
	}

	// Where STS refuses then, the refusal is the answer, and the log tells.
	w.usePlane(w.newPlane(w.store))
	w.sts.say(func(context.Context, serval.Mint, serval.Minted) (serval.Minted, error) {
		w.store.Close()
		return serval.Minted{}, serval.Refuse(serval.Unavailable, "AWS is away.")
	})
	_, err = w.tryOpen(ana, opening(r.ID))
	wantKind(t, "refused by STS, and not to be recorded", err, serval.Unavailable)
	if w.logs.FilterMessage("a failed mint could not be recorded").Len() != 1 {
		t.Error("nothing in the log says that the failure could not be recorded")
	}
	w.store = w.openStore()
	w.wantNoCanary()
}

// A row that cannot be read is a fault, not a no: nothing is handed over, and
// the intent is closed in time.
func TestFaultBeforeTheRecord(t *testing.T) {
	w := newWorld(t).stock()
	ana := w.engineer("ana@example.com")
	r := w.ask(ana, roleARN(prod, "reader"), 60)
	w.sts.say(func(_ context.Context, _ serval.Mint, right serval.Minted) (serval.Minted, error) {
		db, err := sql.Open("sqlite", strings.TrimPrefix(w.url, "sqlite://"))
		if err != nil {
			t.Error(err)
			return right, nil
		}
		defer db.Close()
		if _, err := db.ExecContext(t.Context(), `update role set tags = '{`+canary+`'`); err != nil {
			t.Error(err)
		}
		w.plane.door.Refused(t.Context(), ana, serval.RequestCreate, "", errors.New("so that all is read anew"))
		return right, nil
	})
	before := w.head()
	o, err := w.tryOpen(ana, opening(r.ID))
	if err == nil || serval.IsRefusal(err) {
		t.Errorf("%v, want a fault", err)
	}
	wantNothing(t, o)
	e := w.events(before + 1)
	if len(e) != 2 || e[1].Action != serval.SessionIssue || e[1].Outcome != serval.OutcomeFailed || e[1].Reason != "something went wrong on our side" {
		t.Errorf("events %+v, want the intent, and that its record failed", e)
	}
	if s := w.sessions(r.ID)[0]; s.State != serval.SessionStarted || !w.request(r.ID).ClockStartedAt.IsZero() {
		t.Errorf("session %+v, want the intent alone", s)
	}
}

// whoever goes away while STS is asked has opened a session all the same.
func TestCallerGone(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.stock()
		ana := w.engineer("ana@example.com")
		r := w.ask(ana, roleARN(prod, "reader"), 60)
		ctx, cancel := context.WithCancel(t.Context())
		w.sts.say(func(ctx context.Context, _ serval.Mint, right serval.Minted) (serval.Minted, error) {
			cancel()
			if d, ok := ctx.Deadline(); ctx.Err() != nil || !ok || time.Until(d) > mintTime {
				t.Errorf("STS is asked under %v until %v, want a context of its own with a deadline", ctx.Err(), d)
			}
			return right, nil
		})
		before := w.head()
		if _, err := w.plane.Open(ctx, ana, opening(r.ID)); err != nil {
			t.Errorf("opening: %v", err)
		}
		if d := cmp.Diff([]string{"ana@example.com session.open started", "ana@example.com session.issue done"}, told(w.events(before))); d != "" {
			t.Errorf("events (-want +got):\n%s", d)
		}
		if w.request(r.ID).ClockStartedAt.IsZero() {
			t.Error("the clock stands")
		}
		// So it is where STS refuses.
		ctx, cancel = context.WithCancel(t.Context())
		w.sts.say(func(context.Context, serval.Mint, serval.Minted) (serval.Minted, error) {
			cancel()
			return serval.Minted{}, serval.Refuse(serval.Unavailable, "AWS is away.")
		})
		before = w.head()
		_, err := w.plane.Open(ctx, ana, opening(r.ID))
		wantKind(t, "opening", err, serval.Unavailable)
		if d := cmp.Diff([]string{"ana@example.com session.open started", "ana@example.com session.fail failed"}, told(w.events(before))); d != "" {
			t.Errorf("events (-want +got):\n%s", d)
		}
	})
}

// An answer that comes when the intent is closed is not taken.
func TestAnswerAfterTheDeadline(t *testing.T) {
	w := newWorld(t).stock()
	ana := w.engineer("ana@example.com")
	for name, fails := range map[string]bool{"answer": false, "failure": true} {
		r := w.ask(ana, roleARN(prod, "reader"), 60)
		w.sts.say(func(_ context.Context, m serval.Mint, right serval.Minted) (serval.Minted, error) {
			w.clock.move(serval.MintDeadline)
			if err := w.plane.Sweep(t.Context()); err != nil {
				t.Error(err)
			}
			if fails {
				return serval.Minted{}, serval.Refuse(serval.Unavailable, "AWS is away.")
			}
			return right, nil
		})
		o, err := w.tryOpen(ana, opening(r.ID))
		wantKind(t, name, err, serval.Unavailable)
		wantNothing(t, o)
		if s := w.sessions(r.ID)[0]; s.State != serval.SessionUnknown || !w.request(r.ID).ClockStartedAt.IsZero() {
			t.Errorf("%s: session %+v, want it unknown, and no clock", name, s)
		}
	}
}

// What a session may not do although the role may.
func TestNarrow(t *testing.T) {
	w := newWorld(t).stock()
	ana := w.engineer("ana@example.com")
	for _, test := range []struct {
		name    string
		role    string
		minutes int
		ask     Opening
		has     []string
		hasNot  []string
		arns    []string
		detail  map[string]string
	}{
		{"nothing", "reader", 60, Opening{}, []string{`"Allow"`}, []string{"sts:AssumeRole", "SourceIp"}, nil, nil},
		{"read only", "reader", 60, Opening{ReadOnly: true}, nil, []string{`"Allow"`, "sts:AssumeRole"},
			[]string{"arn:aws:iam::aws:policy/ReadOnlyAccess"}, map[string]string{"read_only": "true"}},
		{"no chaining", "reader", 60, Opening{NoChaining: true}, []string{"sts:AssumeRole*"}, nil, nil, map[string]string{"no_chaining": "true"}},
		{"short", "reader", 14, Opening{}, []string{"sts:AssumeRole*"}, nil, nil, map[string]string{"no_chaining": "true"}},
		{"just not short", "reader", 15, Opening{}, nil, []string{"sts:AssumeRole"}, nil, nil},
		{"short, and may chain", "chain", 14, Opening{}, nil, []string{"sts:AssumeRole"}, nil, nil},
		{"short, may chain, and asks not to", "chain", 14, Opening{NoChaining: true}, []string{"sts:AssumeRole*"}, nil, nil, nil},
		{"network", "reader", 60, Opening{Network: "office"}, []string{`"aws:SourceIp":["203.0.113.0/24","2001:db8::/48"]`}, nil, nil, map[string]string{"network": "office"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w.clock.move(10 * time.Second)
			r := w.ask(ana, roleARN(prod, test.role), test.minutes)
			test.ask.RequestID, test.ask.Kind = r.ID, serval.ForConsole
			before := w.head()
			if _, err := w.tryOpen(ana, test.ask); err != nil {
				t.Fatal(err)
			}
			asked := w.sts.asked()
			m := asked[len(asked)-1]
			for _, text := range test.has {
				if !strings.Contains(m.Policy, text) {
					t.Errorf("the session policy has no %s: %s", text, m.Policy)
				}
			}
			for _, text := range test.hasNot {
				if strings.Contains(m.Policy, text) {
					t.Errorf("the session policy has %s: %s", text, m.Policy)
				}
			}
			if !slices.Equal(m.PolicyARNs, test.arns) {
				t.Errorf("managed policies %q, want %q", m.PolicyARNs, test.arns)
			}
			e := w.events(before)
			for _, name := range []string{"read_only", "no_chaining", "network"} {
				if want, said := test.detail[name]; said && e[1].Detail[name] != want {
					t.Errorf("detail %v, want %s %s", e[1].Detail, name, want)
				}
			}
		})
	}
}

func TestSessions(t *testing.T) {
	w := newWorld(t).stock()
	ana, bob := w.engineer("ana@example.com"), w.engineer("bob@example.com")
	one, two := w.ask(ana, roleARN(prod, "reader"), 60), w.ask(ana, roleARN(dev, "reader"), 60)
	theirs := w.open(bob, w.ask(bob, roleARN(dev, "reader"), 60).ID)
	var ids []string
	for i := range 5 {
		w.clock.move(time.Second)
		ids = append([]string{w.open(ana, []*serval.Request{one, two}[i%2].ID).Session.ID}, ids...)
	}
	list := func(f SessionFilter) ([]string, bool) {
		t.Helper()
		sessions, more, err := w.plane.Sessions(t.Context(), ana, f)
		if err != nil {
			t.Fatal(err)
		}
		got := []string{}
		for _, s := range sessions {
			got = append(got, s.ID)
		}
		return got, more
	}
	for _, test := range []struct {
		name   string
		filter SessionFilter
		want   []string
		more   bool
	}{
		{"all", SessionFilter{Limit: 5}, ids, false},
		{"first page", SessionFilter{Limit: 2}, ids[:2], true},
		{"next page", SessionFilter{Limit: 2, After: ids[1]}, ids[2:4], true},
		{"last page", SessionFilter{Limit: 2, After: ids[3]}, ids[4:], false},
		{"of a request", SessionFilter{Limit: 5, RequestID: two.ID}, []string{ids[1], ids[3]}, false},
		{"of another's request", SessionFilter{Limit: 5, RequestID: theirs.Session.RequestID}, []string{}, false},
	} {
		got, more := list(test.filter)
		if d := cmp.Diff(test.want, got); d != "" || more != test.more {
			t.Errorf("%s: more %v, sessions (-want +got):\n%s", test.name, more, d)
		}
	}
	for name, after := range map[string]string{"another's": theirs.Session.ID, "nobody's": "session_none"} {
		_, _, err := w.plane.Sessions(t.Context(), ana, SessionFilter{Limit: 2, After: after})
		wantKind(t, name+" page token", err, serval.Invalid)
	}
}

// All of it against an AWS that judges: the token, the trust policy, the
// length, and the session policy's end.
func TestOpenAtAWS(t *testing.T) {
	w := newWorld(t)
	idp := idptest.New(idptest.Options{
		ClientID: clientID, Issuer: issuer, Now: w.clock.now,
		People: []idptest.Person{{Subject: "00u-ana", Name: "Ana", Email: "ana@example.com"}},
	})
	cloud := awstest.New(awstest.Options{Now: w.clock.now, HTTPClient: &http.Client{Transport: idp.Transport()}})
	account := cloud.AddAccount(prod, "prod")
	provider := account.PutOIDCProvider(issuer, clientID)
	id := account.PutRole(awstest.Role{
		Name: "reader", MaxSessionDuration: 3600, Tags: map[string]string{"serval": ""},
		Trust: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Federated":"` + provider + `"},
			"Action":"sts:AssumeRoleWithWebIdentity","Condition":{"StringEquals":{"acme.okta.example:aud":"serval"}}}]}`,
	})
	client, err := awssts.New(awssts.Config{Endpoint: cloud.Start(t), Now: w.clock.now})
	if err != nil {
		t.Fatal(err)
	}
	w.plane.minter = client
	// What the last sync saw is not what AWS has now: four hours, and one. S-73
	w.push(prod, aRole(prod, "reader", func(r *serval.Role) { r.RoleID = id }))
	said := w.identity("ana@example.com", "engineering")
	said.IDToken = serval.NewSecret(idp.IDToken("ana@example.com", nil))
	ana, _, err := w.signInAs(w.plane, said)
	if err != nil {
		t.Fatal(err)
	}
	r := w.ask(ana, roleARN(prod, "reader"), 120)
	o := w.open(ana, r.ID)
	if o.Note == "" || o.Session.Seconds != 3600 || o.Session.AccessKeyID == "" || o.Session.AssumedRoleID != id+":ana@example.com" {
		t.Errorf("opened %+v, want an hour, and that it is said", o)
	}
	if got := w.request(r.ID); got.EndsAt.Sub(got.ClockStartedAt) != 2*time.Hour {
		t.Errorf("clock from %s to %s, want two hours", got.ClockStartedAt, got.EndsAt)
	}
	// S-3: created again in AWS before the next sync tells us.
	account.DeleteRole("reader")
	account.PutRole(awstest.Role{Name: "reader", MaxSessionDuration: 3600, Trust: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow",
		"Principal":{"Federated":"` + provider + `"},"Action":"sts:AssumeRoleWithWebIdentity","Condition":{"StringEquals":{"acme.okta.example:aud":"serval"}}}]}`})
	again, err := w.tryOpen(ana, opening(r.ID))
	wantKind(t, "the role's next life", err, serval.FailedPrecondition)
	wantNothing(t, again)
	// A trust policy that refuses is a refusal that is told.
	account.SetTrust("reader", `{"Version":"2012-10-17","Statement":[]}`)
	before := w.head()
	_, err = w.tryOpen(ana, opening(r.ID))
	if !serval.IsRefusal(err) {
		t.Errorf("refused by AWS: %v, want a refusal", err)
	}
	if e := w.events(before); len(e) != 2 || e[1].Action != serval.SessionFail || e[1].Detail["sts_code"] != "AccessDenied" {
		t.Errorf("events %+v, want AWS's code", e)
	}
	text := fmt.Sprint(w.events(0), w.logs.All())
	for _, secret := range []serval.Secret{said.IDToken, o.Credentials.SecretAccessKey, o.Credentials.SessionToken} {
		if strings.Contains(text, secret.Reveal()) {
			t.Error("a secret is in the events or the log")
		}
	}
}

// Whoever signs out while STS is asked is handed nothing.
func TestLoginEndedInFlight(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.stock()
		p := w.people()
		r := w.ask(p.ana, roleARN(prod, "reader"), 60)
		o := w.open(p.ana, r.ID)
		if err := w.logins.End(t.Context(), p.ana, p.ana.LoginID); err != nil {
			t.Fatal(err)
		}
		wantKind(t, "just before the credentials leave", w.plane.recheck(t.Context(), p.ana, o.Session, mintable{}), serval.LoginRequired)
		if s := w.session(o.Session.ID); s.State != serval.SessionDropped {
			t.Errorf("the session is %s, want dropped", s.State)
		}
	})
}
