package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

var (
	kim   = serval.Person{ID: "p-kim", Issuer: "https://id.example.com", Subject: "kim", Email: "Kim@example.com", Groups: []string{"dev", "ops"}, GroupsAt: noon}
	lee   = serval.Person{ID: "p-lee", Issuer: "https://id.example.com", Subject: "lee", Email: "lee@example.com"}
	mia   = serval.Person{ID: "p-mia", Issuer: "https://id.example.com", Subject: "mia", Email: "mia@example.com"}
	admin = serval.RoleKey{Partition: "aws", AccountID: "111122223333", RoleID: "AROAADMIN", ARN: "arn:aws:iam::111122223333:role/admin"}
)

func principal(p serval.Person) serval.Principal {
	return serval.Principal{Kind: serval.KindPerson, Person: p}
}

// newRequest saves kim's pending request with the id for the role admin.
func newRequest(t *testing.T, d place, id string) *serval.Request {
	t.Helper()
	return newRequestAt(t, d, id, noon)
}

func newRequestAt(t *testing.T, d place, id string, now time.Time) *serval.Request {
	t.Helper()
	terms := serval.Terms{Policy: "automatic", MaxMinutes: 60, MaxTotalMinutes: 180}
	r, err := serval.NewRequest(id, kim, admin, terms, serval.Ask{Minutes: 30, Justification: "why", Ticket: "T-1"}, time.Hour, now)
	if err != nil {
		t.Fatal(err)
	}
	d.act(t, noon, func(tx *Tx) error {
		if err := tx.SavePerson(kim); err != nil {
			return err
		}
		return tx.SaveRequest(r)
	})
	return r
}

func TestRequestThroughItsLife(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		d.act(t, noon, func(tx *Tx) error { return tx.SavePerson(kim) })
		terms := serval.AccessPolicy{
			Name: "on call", MaxMinutes: 60, RequireJustification: true,
			Approval: serval.Approval{Steps: []serval.People{{Emails: []string{"lee@example.com"}}, {Groups: []string{"leads"}, Emails: []string{"mia@example.com"}}}},
		}.Terms()
		now := noon
		r, err := serval.NewRequest("r1", kim, admin, terms,
			serval.Ask{Minutes: 45, Justification: "it's \"down\"\n🦊", Ticket: "OPS-1", StartAt: now.Add(10 * time.Minute)}, serval.DefaultRequestExpiry, now)
		if err != nil {
			t.Fatal(err)
		}
		r.BatchID = "b1"
		decide := func(p serval.Person, d serval.Decision) func(time.Time) (serval.Action, error) {
			return func(now time.Time) (serval.Action, error) {
				return r.Decide(principal(p), d, serval.DefaultRequestExpiry, now)
			}
		}
		for _, step := range []struct {
			name string
			act  func(now time.Time) (serval.Action, error)
			due  time.Time // the request is due then; zero: never
		}{
			{"created", func(time.Time) (serval.Action, error) { return serval.RequestCreate, nil }, noon.Add(serval.DefaultRequestExpiry)},
			{"first step", decide(lee, serval.Decision{Approve: true, Minutes: 40}), noon.Add(serval.DefaultRequestExpiry)},
			{"approved", decide(mia, serval.Decision{Approve: true, Reason: "fine"}), noon.Add(10*time.Minute + serval.DefaultRequestExpiry)},
			{"running", func(now time.Time) (serval.Action, error) {
				if !r.StartClock(now) {
					t.Error("the clock did not start")
				}
				return serval.SessionIssue, nil
			}, noon.Add(55 * time.Minute)},
			{"extension asked", func(now time.Time) (serval.Action, error) {
				return r.Extend(principal(kim), 50, "not yet", now)
			}, noon.Add(55 * time.Minute)},
			{"extension's first step", decide(lee, serval.Decision{Approve: true}), noon.Add(55 * time.Minute)},
			{"extended", decide(mia, serval.Decision{Approve: true}), noon.Add(80 * time.Minute)},
			{"asked again", func(now time.Time) (serval.Action, error) {
				return r.Extend(principal(kim), 20, "still not", now)
			}, noon.Add(80 * time.Minute)},
			{"denied", decide(lee, serval.Decision{Reason: "enough"}), noon.Add(80 * time.Minute)},
			{"shortened", func(now time.Time) (serval.Action, error) {
				return r.ShortenTo(principal(kim), 15, now)
			}, noon.Add(60 * time.Minute)},
			{"asked once more", func(now time.Time) (serval.Action, error) {
				return r.Extend(principal(kim), 20, "please", now)
			}, noon.Add(60 * time.Minute)},
			{"done", func(now time.Time) (serval.Action, error) { return r.Done(principal(kim), now) }, time.Time{}},
		} {
			if _, err := step.act(now); err != nil {
				t.Fatalf("%s: %v", step.name, err)
			}
			for range 2 { // saving twice is saving once
				d.act(t, now, func(tx *Tx) error { return tx.SaveRequest(r) })
			}
			got := look(t, d, func(v *View) (*serval.Request, error) { return v.Request("r1") })
			if diff := cmp.Diff(r, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", step.name, diff)
			}
			due := func(at time.Time) []string {
				return look(t, d, func(v *View) ([]string, error) { return v.DueRequests(at, 10) })
			}
			if step.due.IsZero() {
				if ids := due(now.AddDate(100, 0, 0)); len(ids) != 0 {
					t.Errorf("%s: due in a hundred years: %v", step.name, ids)
				}
			} else if before, at := due(step.due.Add(-time.Microsecond)), due(step.due); len(before) != 0 || len(at) != 1 {
				t.Errorf("%s: due before %s: %v, and then: %v", step.name, step.due, before, at)
			}
			now = now.Add(5 * time.Minute)
		}
		if n := len(r.Allocations); n != 4 {
			t.Errorf("%d allocations, want 4", n)
		}
	})
}

func TestRequestsPageByPage(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		// A language orders these otherwise than bytes do.
		ids := []string{"a", "B", "c", "D", "_", "-b", "b", "é", "Z", "ab", "A b", "aB"}
		for _, id := range ids {
			newRequest(t, d, id)
			d.act(t, noon, func(tx *Tx) error {
				return tx.SaveSession(serval.Session{ID: id, RequestID: id, PersonID: kim.ID, Kind: serval.ForConsole, State: serval.SessionStarted, StartedAt: noon})
			})
		}
		newRequestAt(t, d, "m older", noon.Add(-time.Second))
		newRequestAt(t, d, "m younger", noon.Add(time.Second))
		slices.SortFunc(ids, func(a, b string) int { return strings.Compare(b, a) })
		want := slices.Concat([]string{"m younger"}, ids, []string{"m older"})
		for _, size := range []int{1, 2, 5, 100} {
			var got []string
			f := RequestFilter{Limit: size}
			for {
				page := look(t, d, func(v *View) ([]*serval.Request, error) { return v.Requests(f) })
				if len(page) == 0 {
					break
				}
				for _, r := range page {
					got = append(got, r.ID)
					if len(r.Allocations) != 1 {
						t.Errorf("request %s has %d allocations, want 1", r.ID, len(r.Allocations))
					}
				}
				last := page[len(page)-1]
				f.BeforeAt, f.BeforeID = last.CreatedAt, last.ID
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("requests in pages of %d (-want +got):\n%s", size, diff)
			}
			got = nil
			g := SessionFilter{Limit: size}
			for {
				page := look(t, d, func(v *View) ([]serval.Session, error) { return v.Sessions(g) })
				if len(page) == 0 {
					break
				}
				for _, s := range page {
					got = append(got, s.ID)
				}
				g.BeforeAt, g.BeforeID = page[len(page)-1].StartedAt, page[len(page)-1].ID
			}
			if diff := cmp.Diff(ids, got); diff != "" {
				t.Errorf("sessions in pages of %d (-want +got):\n%s", size, diff)
			}
		}
	})
}

func TestRequestFilters(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		newRequestAt(t, d, "1", noon)
		other := newRequestAt(t, d, "2", noon.Add(time.Second))
		other.Role.RoleID, other.ID, other.PersonID = "AROAOTHER", "3", lee.ID
		other.CreatedAt = noon.Add(2 * time.Second)
		ended := newRequestAt(t, d, "4", noon.Add(3*time.Second))
		if _, err := ended.Cancel(principal(kim), noon.Add(4*time.Second)); err != nil {
			t.Fatal(err)
		}
		d.act(t, noon, func(tx *Tx) error {
			if err := tx.SavePerson(lee); err != nil {
				return err
			}
			if err := tx.SaveRequest(ended); err != nil {
				return err
			}
			return tx.SaveRequest(other)
		})
		ids := func(f func(v *View) ([]*serval.Request, error)) string {
			var ids []string
			for _, r := range look(t, d, f) {
				ids = append(ids, r.ID)
			}
			return strings.Join(ids, " ")
		}
		for _, test := range []struct {
			filter RequestFilter
			want   string
		}{
			{RequestFilter{}, "4 3 2 1"},
			{RequestFilter{PersonID: kim.ID}, "4 2 1"},
			{RequestFilter{Status: serval.StatusCanceled}, "4"},
			{RequestFilter{RoleID: "AROAOTHER"}, "3"},
			{RequestFilter{Awaiting: true}, "3 2 1"},
			{RequestFilter{Awaiting: true, PersonID: lee.ID}, "3"},
			{RequestFilter{PersonID: kim.ID, Status: serval.StatusPending}, "2 1"},
			{RequestFilter{RoleID: admin.RoleID, Status: serval.StatusPending, BeforeAt: noon.Add(time.Second), BeforeID: "2"}, "1"},
			{RequestFilter{PersonID: "nobody"}, ""},
			{RequestFilter{PersonID: "\x00"}, ""},
		} {
			test.filter.Limit = 10
			if got := ids(func(v *View) ([]*serval.Request, error) { return v.Requests(test.filter) }); got != test.want {
				t.Errorf("%+v: %s, want %s", test.filter, got, test.want)
			}
		}
		if got := ids(func(v *View) ([]*serval.Request, error) { return v.OpenRequests(kim.ID) }); got != "2 1" {
			t.Errorf("open requests: %s, want 2 1", got)
		}
		if got := ids(func(v *View) ([]*serval.Request, error) { return v.RequestsOfRole(admin) }); got != "1 2" {
			t.Errorf("requests of the role: %s, want 1 2", got)
		}
		err := d.Read(t.Context(), func(v *View) error { _, err := v.Request("nope"); return err })
		refused(t, "a request that is not there", err, serval.NotFound)
		for _, id := range unkept {
			err := d.Read(t.Context(), func(v *View) error { _, err := v.Request(id); return err })
			refused(t, fmt.Sprintf("the request %q", id), err, serval.NotFound)
		}
	})
}

// More requests than are looked up at once, each with its own allocations.
func TestAllocationsOfMany(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		var want []*serval.Request
		for i := range 45 {
			r := newRequestAt(t, d, fmt.Sprintf("r%02d", i), noon.Add(-time.Duration(i)*time.Second))
			r.Allocations[0].State = serval.Superseded
			for n := range i % 4 {
				r.Allocations = append(r.Allocations, serval.Allocation{Minutes: 1 + n + i, State: serval.Superseded, AskedAt: noon})
			}
			d.act(t, noon, func(tx *Tx) error { return tx.SaveRequest(r) })
			want = append(want, r)
		}
		got := look(t, d, func(v *View) ([]*serval.Request, error) { return v.Requests(RequestFilter{Limit: 100}) })
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
	})
}

// S-19
func TestRequestsKeepHostileText(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		for i, text := range hostile {
			if len(text) > 2000 {
				continue // an index does not take an id of this length
			}
			p := serval.Person{ID: "p" + text, Issuer: text, Subject: text, Email: text, Groups: []string{text}, GroupsAt: noon,
				GroupsNote: text, Suspended: text, NewEmail: text, CreatedAt: noon}
			r := &serval.Request{
				ID: text, BatchID: text, PersonID: p.ID, Email: text, Role: serval.RoleKey{Partition: text, AccountID: text, RoleID: text, ARN: text},
				Terms:  serval.Terms{Policy: text, Digest: text, Steps: []serval.People{{Groups: []string{text}, Emails: []string{text}}}},
				Status: serval.StatusPending, Justification: text, Ticket: text, CreatedAt: noon, ExpiresAt: noon.Add(time.Hour),
				Allocations: []serval.Allocation{{
					Minutes: 1, State: serval.Asked, Justification: text, DecidedBy: text, Reason: text,
					Steps: []serval.Step{{Approvers: serval.People{Groups: []string{text}}, PersonID: text, DecidedBy: text, Outcome: text}},
				}},
			}
			s := serval.Session{
				ID: text, RequestID: text, PersonID: p.ID, Kind: serval.ForCredentials, State: serval.SessionFailed, Role: r.Role, SessionName: text,
				Seconds: 900, StartedAt: noon, AccessKeyID: text, AssumedRoleID: text, Error: text,
			}
			n := serval.Notice{
				ID: text, Kind: serval.Action(text), RequestID: text, Channel: text, To: serval.People{Groups: []string{text}, Emails: []string{text}},
				Facts: map[string]string{text: text}, CreatedAt: noon, State: serval.NoticePending, NextAt: noon, Error: text,
			}
			d.act(t, noon, func(tx *Tx) error {
				for _, err := range []error{tx.SavePerson(p), tx.SaveRequest(r), tx.SaveSession(s), tx.CreateNotice(n), tx.SetMeta(text, text)} {
					if err != nil {
						return fmt.Errorf("text %d: %w", i, err)
					}
				}
				return nil
			})
			if diff := cmp.Diff(r, look(t, d, func(v *View) (*serval.Request, error) { return v.Request(text) })); diff != "" {
				t.Errorf("request %q (-want +got):\n%s", text, diff)
			}
			if diff := cmp.Diff([]serval.Notice{n}, look(t, d, func(v *View) ([]serval.Notice, error) { return v.NoticesOf(text) })); diff != "" {
				t.Errorf("notice %q (-want +got):\n%s", text, diff)
			}
			if diff := cmp.Diff(p, look(t, d, func(v *View) (serval.Person, error) { return v.PersonBySubject(text, text) })); diff != "" {
				t.Errorf("person %q (-want +got):\n%s", text, diff)
			}
			if diff := cmp.Diff(s, look(t, d, func(v *View) (serval.Session, error) { return v.Session(text) })); diff != "" {
				t.Errorf("session %q (-want +got):\n%s", text, diff)
			}
			if got := look(t, d, func(v *View) (string, error) { return v.Meta(text) }); got != text {
				t.Errorf("meta %q keeps %q", text, got)
			}
		}
		// What one database cannot keep is refused by both, and is no fault.
		for _, text := range unkept {
			r := newRequest(t, d, "kept")
			r.ID, r.Justification = "unkept", text
			refused(t, fmt.Sprintf("the justification %q", text),
				d.Write(t.Context(), noon, func(tx *Tx) error { return tx.SaveRequest(r) }), serval.Invalid)
			refused(t, fmt.Sprintf("the subject %q", text),
				d.Write(t.Context(), noon, func(tx *Tx) error { return tx.SavePerson(serval.Person{ID: "x", Subject: text}) }), serval.Invalid)
		}
	})
}

func TestSession(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		newRequest(t, d, "r1")
		s := serval.Session{
			ID: "s1", RequestID: "r1", PersonID: kim.ID, Kind: serval.ForCredentials, State: serval.SessionStarted, Role: admin,
			SessionName: "kim@example.com", Seconds: 900, StartedAt: noon,
		}
		save := func() {
			d.act(t, noon, func(tx *Tx) error { return tx.SaveSession(s) })
			if diff := cmp.Diff(s, look(t, d, func(v *View) (serval.Session, error) { return v.Session("s1") })); diff != "" {
				t.Errorf("session (-want +got):\n%s", diff)
			}
		}
		open := func(before time.Time) int {
			return len(look(t, d, func(v *View) ([]string, error) { return v.OpenIntents(before, 10) }))
		}
		save()
		if before, at := open(noon.Add(-time.Microsecond)), open(noon); before != 0 || at != 1 {
			t.Errorf("open intents before it was begun: %d, and then: %d; want 0 and 1", before, at)
		}
		s.State, s.FinishedAt, s.AccessKeyID, s.AssumedRoleID = serval.SessionIssued, noon.Add(time.Second), "ASIAEXAMPLE", "AROAADMIN:kim@example.com"
		s.Expiration, s.EndsAt = noon.Add(time.Hour), noon.Add(30*time.Minute)
		save()
		if n := open(noon.Add(time.Hour)); n != 0 {
			t.Errorf("%d open intents after the outcome, want none", n)
		}
		for _, f := range []SessionFilter{{PersonID: kim.ID}, {RequestID: "r1"}, {PersonID: kim.ID, RequestID: "r1"}, {}} {
			f.Limit = 10
			if n := len(look(t, d, func(v *View) ([]serval.Session, error) { return v.Sessions(f) })); n != 1 {
				t.Errorf("%+v: %d sessions, want 1", f, n)
			}
		}
		for _, f := range []SessionFilter{{PersonID: lee.ID}, {RequestID: "r2"}, {PersonID: lee.ID, RequestID: "r1"}} {
			f.Limit = 10
			if n := len(look(t, d, func(v *View) ([]serval.Session, error) { return v.Sessions(f) })); n != 0 {
				t.Errorf("%+v: %d sessions, want none", f, n)
			}
		}
		err := d.Read(t.Context(), func(v *View) error { _, err := v.Session("s2"); return err })
		refused(t, "a session that is not there", err, serval.NotFound)
	})
}

// Which sessions work at an instant, which is the newest, and what renews it.
func TestLiveSessions(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		newRequest(t, d, "r1")
		newRequest(t, d, "r2")
		add := func(id, request string, kind serval.SessionKind, state serval.SessionState, started, ends time.Time, renews string) {
			d.act(t, noon, func(tx *Tx) error {
				return tx.SaveSession(serval.Session{
					ID: id, RequestID: request, PersonID: kim.ID, Kind: kind, State: state, Role: admin, SessionName: "kim@example.com",
					Seconds: 900, StartedAt: started, EndsAt: ends, Renews: renews,
				})
			})
		}
		end := noon.Add(15 * time.Minute)
		add("a", "r1", serval.ForCredentials, serval.SessionIssued, noon, end, "")
		add("b", "r1", serval.ForConsole, serval.SessionIssued, noon.Add(time.Minute), end.Add(time.Minute), "")
		add("c", "r1", serval.ForCredentials, serval.SessionDropped, noon.Add(2*time.Minute), end.Add(2*time.Minute), "")
		add("d", "r2", serval.ForCredentials, serval.SessionIssued, noon.Add(3*time.Minute), end.Add(3*time.Minute), "")
		live := func(now time.Time, limit int) (ids []string) {
			for _, s := range look(t, d, func(v *View) ([]serval.Session, error) { return v.LiveSessions("r1", now, limit) }) {
				ids = append(ids, s.ID)
			}
			return ids
		}
		for _, c := range []struct {
			now   time.Time
			limit int
			want  []string
		}{
			{noon.Add(5 * time.Minute), 10, []string{"b", "a"}},
			{noon.Add(5 * time.Minute), 1, []string{"b"}},
			{end.Add(-time.Microsecond), 10, []string{"b", "a"}},
			{end, 10, []string{"b"}},
			{end.Add(time.Minute), 10, nil},
		} {
			if diff := cmp.Diff(c.want, live(c.now, c.limit)); diff != "" {
				t.Errorf("live at %s, at most %d (-want +got):\n%s", c.now, c.limit, diff)
			}
		}
		newest := func(kind serval.SessionKind) (id string, renewed bool) {
			s := look(t, d, func(v *View) (s serval.Session, err error) {
				s, renewed, err = v.NewestSession("r1", kind)
				return s, err
			})
			return s.ID, renewed
		}
		if id, renewed := newest(serval.ForCredentials); id != "a" || renewed {
			t.Errorf("the newest session is %s, renewed %t; want a, not renewed", id, renewed)
		}
		add("e", "r1", serval.ForCredentials, serval.SessionFailed, noon.Add(9*time.Minute), time.Time{}, "a")
		if id, renewed := newest(serval.ForCredentials); id != "a" || !renewed {
			t.Errorf("the newest session is %s, renewed %t; want a, renewed by one that failed", id, renewed)
		}
		if id, renewed := newest(serval.ForConsole); id != "b" || renewed {
			t.Errorf("the newest console is %s, renewed %t; want b, not renewed", id, renewed)
		}
		// S-84: what renews does not count.
		if n := look(t, d, func(v *View) (int, error) { return v.CountSessions(kim.ID, noon.Add(-time.Minute)) }); n != 4 {
			t.Errorf("%d sessions count, want the 4 that renew none", n)
		}
		refused(t, "no session of a request that is not there",
			d.Read(t.Context(), func(v *View) error { _, _, err := v.NewestSession("r3", serval.ForConsole); return err }), serval.NotFound)
	})
}

// A link is taken once, in time, by its own person.
func TestConsoleLink(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		newRequest(t, d, "r1")
		keep := func(code string) ConsoleLink {
			l := ConsoleLink{Code: code, PersonID: kim.ID, RequestID: "r1", Asked: `{"region":"eu-central-1"}`, ExpiresAt: noon.Add(time.Minute)}
			d.act(t, noon, func(tx *Tx) error { return tx.KeepConsoleLink(l) })
			return l
		}
		take := func(at time.Time, code, person string) (l ConsoleLink, err error) {
			err = d.Write(t.Context(), at, func(tx *Tx) error {
				if l, err = tx.ConsoleLink(code, person, at); err != nil {
					return err
				}
				return tx.TakeConsoleLink(code, person)
			})
			return l, err
		}
		want := keep("c1")
		for name, wrong := range map[string]func() error{
			"another person's": func() error { _, err := take(noon, "c1", lee.ID); return err },
			"another code":     func() error { _, err := take(noon, "c2", kim.ID); return err },
			"too late":         func() error { _, err := take(noon.Add(time.Minute), "c1", kim.ID); return err },
		} {
			refused(t, name, wrong(), serval.NotFound)
		}
		waiting := func(at time.Time) int {
			return look(t, d, func(v *View) (int, error) { return v.CountConsoleLinks(kim.ID, at) })
		}
		if n, later := waiting(noon), waiting(noon.Add(time.Minute)); n != 1 || later != 0 {
			t.Errorf("%d links wait, and %d a minute later; want 1 and 0", n, later)
		}
		blind := d.Write(t.Context(), noon, func(tx *Tx) error { return tx.TakeConsoleLink("c1", lee.ID) })
		refused(t, "another person's, taken blindly", blind, serval.NotFound)
		var wg sync.WaitGroup
		var got atomic.Int32
		for range 8 {
			wg.Go(func() {
				l, err := take(noon, "c1", kim.ID)
				if err == nil {
					got.Add(1)
					if diff := cmp.Diff(want, l); diff != "" {
						t.Errorf("link (-want +got):\n%s", diff)
					}
				}
			})
		}
		wg.Wait()
		if n := got.Load(); n != 1 {
			t.Errorf("the link was taken %d times, want once", n)
		}
	})
}

// S-20
func TestLookupsWhileContextsEnd(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		for i := range 10 {
			newRequest(t, d, fmt.Sprint("r", i))
			d.act(t, noon, func(tx *Tx) error {
				k := IDToken{ID: fmt.Sprint("k", i)}
				return errors.Join(tx.SaveIDToken(k), tx.CreateLogin(Login{ID: fmt.Sprint("l", i), Token: fmt.Sprint("t", i), PersonID: kim.ID, Kind: BrowserLogin, IDToken: k}))
			})
		}
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				// All of them, on both PostgreSQLs, leave fewer connections behind than the
				// server lets wait: beyond that it turns away those of other tests.
				for range 20 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(1500))*time.Microsecond)
					d.Read(ctx, func(v *View) error {
						if r, err := v.Request(fmt.Sprint("r", i)); err == nil && r.ID != fmt.Sprint("r", i) {
							t.Errorf("asked for request r%d, got %s", i, r.ID)
						}
						if l, err := v.LoginByToken(fmt.Sprint("t", i)); err == nil && l.ID != fmt.Sprint("l", i) {
							t.Errorf("asked for login l%d, got %s", i, l.ID)
						}
						return nil
					})
					cancel()
				}
			})
		}
		wg.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := d.Ping(ctx); err != nil {
			t.Error(err)
		}
	})
}
