package store

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// aNotice is due at noon.
func aNotice(id, channel string, change ...func(*serval.Notice)) serval.Notice {
	n := serval.Notice{
		ID: id, Kind: serval.RequestCreate, Purpose: serval.ToDecide, Channel: channel, To: serval.People{Groups: []string{"leads"}},
		Facts: map[string]string{"title": id}, CreatedAt: noon, State: serval.NoticePending, NextAt: noon,
	}
	for _, c := range change {
		c(&n)
	}
	return n
}

func keepNotices(t *testing.T, d place, notices ...serval.Notice) {
	t.Helper()
	d.act(t, noon, func(tx *Tx) error {
		for _, n := range notices {
			if err := tx.CreateNotice(n); err != nil {
				return err
			}
		}
		return nil
	})
}

// Whoever claims a notice has it alone until their time is over, on all
// replicas; what came of an attempt is kept only by whoever made it.
func TestNoticesAreClaimed(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		var all []serval.Notice
		for i := range 40 {
			all = append(all, aNotice(fmt.Sprintf("n%02d", i), "mail"))
		}
		keepNotices(t, d, append(all, aNotice("other", "slack"), aNotice("later", "mail", func(n *serval.Notice) { n.NextAt = noon.Add(time.Hour) }))...)

		var mu sync.Mutex
		got := map[string]int{}
		var wg sync.WaitGroup
		for _, s := range append(d.replicas(t), d.replicas(t)...) {
			wg.Go(func() {
				for range 6 {
					err := s.Write(t.Context(), noon, func(tx *Tx) error {
						claimed, err := tx.ClaimNotices("mail", noon.Add(time.Minute), 7)
						mu.Lock()
						defer mu.Unlock()
						for _, n := range claimed {
							got[n.ID]++
							if n.Attempts != 1 || !n.NextAt.Equal(noon.Add(time.Minute)) {
								t.Errorf("claimed, it is %+v", n)
							}
						}
						return err
					})
					if err != nil {
						t.Errorf("claiming: %v", err)
					}
				}
			})
		}
		wg.Wait()
		if len(got) != 40 || got["later"]+got["other"] != 0 {
			t.Errorf("claimed %d of 40: %v", len(got), got)
		}
		for id, n := range got {
			if n != 1 {
				t.Errorf("%s was claimed %d times", id, n)
			}
		}

		// A minute later it is somebody else's.
		late := noon.Add(time.Minute)
		var again []serval.Notice
		d.act(t, late, func(tx *Tx) (err error) {
			again, err = tx.ClaimNotices("mail", late.Add(time.Minute), 1)
			return err
		})
		if len(again) != 1 || again[0].Attempts != 2 {
			t.Fatalf("a minute later %+v is claimed, want one a second time", again)
		}
		n := again[0]
		n.Sent(late)
		for attempt, want := range map[int]bool{1: false, 2: true} {
			var held bool
			d.act(t, late, func(tx *Tx) (err error) {
				held, err = tx.SaveNotice(n, attempt)
				return err
			})
			if held != want {
				t.Errorf("kept by the attempt %d: %v, want %v", attempt, held, want)
			}
		}
		if diff := cmp.Diff(n, look(t, d, func(v *View) (serval.Notice, error) { return v.Notice(n.ID) })); diff != "" {
			t.Errorf("sent, it is (-want +got):\n%s", diff)
		}
	})
}

func TestNoticeLists(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		failed := func(n *serval.Notice) {
			n.State, n.NextAt, n.EndedAt, n.Error = serval.NoticeFailed, time.Time{}, noon, "no"
		}
		sent := func(n *serval.Notice) { n.State, n.NextAt, n.EndedAt = serval.NoticeSent, time.Time{}, noon }
		keepNotices(t, d, aNotice("a", "mail", failed), aNotice("b", "mail", failed), aNotice("c", "mail"), aNotice("d", "slack", sent),
			aNotice("e", "slack", sent, func(n *serval.Notice) { n.Purpose = serval.Alarm }),
			aNotice("f", "webhook", func(n *serval.Notice) { n.NextAt = noon.Add(time.Hour) }))
		page := func(f NoticeFilter) (ids []string) {
			f.State, f.Limit = serval.NoticeFailed, 1
			for _, n := range look(t, d, func(v *View) ([]serval.Notice, error) { return v.Notices(f) }) {
				ids = append(ids, n.ID)
			}
			return ids
		}
		if got := append(page(NoticeFilter{}), page(NoticeFilter{BeforeAt: noon, BeforeID: "b"})...); !cmp.Equal(got, []string{"b", "a"}) {
			t.Errorf("the failed ones are %q", got)
		}
		want := []NoticeQueue{{"mail", 1, noon, 2}}
		if diff := cmp.Diff(want, look(t, d, func(v *View) ([]NoticeQueue, error) { return v.NoticeQueues(noon) })); diff != "" {
			t.Errorf("queues (-want +got):\n%s", diff)
		}
		for channel, want := range map[string]bool{"mail": true, "slack": false, "webhook": false} {
			if got := look(t, d, func(v *View) (bool, error) { return v.HasDueNotices(channel, noon) }); got != want {
				t.Errorf("%s has something due: %v, want %v", channel, got, want)
			}
		}
		d.act(t, noon, func(tx *Tx) error { return tx.DropSent(noon.Add(time.Second), 10) })
		if n := d.number(t, `select count(*) from notice where state = 'sent'`); n != 1 {
			t.Errorf("%d sent ones are left, want the alarm alone", n)
		}
	})
}

// Notices from before there were purposes, and about requests only, are kept.
func TestNoticesOfAnOlderSchema(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		newRequest(t, d, "r1")
		p := d.byHand(t)
		if _, err := p.DownTo(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		d.raw(t, `insert into notice (id, kind, request_id, channel, recipients, facts, created_at, state, attempts, next_at, ended_at, error)
			values ('old', 'request.break_glass', 'r1', '', '{}', '{}', 5, 'failed', 0, 0, 7, 'no channel configured')`)
		if err := d.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		// the program of before still writes them.
		d.raw(t, `insert into notice (id, kind, request_id, channel, recipients, facts, created_at, state, attempts, next_at, ended_at, error)
			values ('older program', 'request.break_glass', 'r1', '', '{}', '{}', 6, 'failed', 0, 0, 7, 'no channel configured')`)
		got := look(t, d, func(v *View) ([]serval.Notice, error) { return v.NoticesOf("r1") })
		if len(got) != 2 || got[0].ID != "old" || got[1].ID != "older program" || got[0].Error != "no channel configured" {
			t.Errorf("after migrating there are %+v", got)
		}
	})
}

func TestEmailsOfGroups(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		people := []serval.Person{
			{ID: "1", Subject: "1", Email: "a@example.com", Groups: []string{"leads", "x"}},
			{ID: "2", Subject: "2", Email: "b@example.com", Groups: []string{"leads-not", "Leads"}},
			{ID: "3", Subject: "3", Email: "c@example.com", Groups: []string{`say "hi"`, "leads"}, Suspended: "yes"},
			{ID: "4", Subject: "4", Email: "d@example.com", Groups: []string{`say "hi"`, "%"}},
			{ID: "5", Subject: "5", Email: "e@example.com"},
		}
		d.act(t, noon, func(tx *Tx) error {
			for _, p := range people {
				if err := tx.SavePerson(p); err != nil {
					return err
				}
			}
			return nil
		})
		for group, want := range map[string][]string{"leads": {"a@example.com"}, `say "hi"`: {"d@example.com"}, "lead": nil, "%": {"d@example.com"}, "Leads": {"b@example.com"}} {
			if got := look(t, d, func(v *View) ([]string, error) { return v.EmailsOfGroups([]string{group}, 10) }); !cmp.Equal(got, want) {
				t.Errorf("group %s: %q, want %q", group, got, want)
			}
		}
	})
}
