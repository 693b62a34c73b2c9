package main

import (
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/pgtest"
	"github.com/serval-bridge/serval-bridge/internal/porttest"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// S-74: two bridges, each a process of its own, serve one PostgreSQL. Fifty first
// sessions of a request are opened at the same time, every other one at the other
// bridge: all are opened, and the clock starts once.
func TestFirstSessionsAtTwoBridges(t *testing.T) {
	const sessions = 50 // within a minute's
	s := newSoak(t, 1, pgtest.URL(t), automatic)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "serval-bridge") // a name that TestMain knows
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	first := s.serve(program, porttest.Own(t))
	second := s.serve(program, porttest.Own(t))
	b := balance(t, s.address)
	b.set(first, second)
	s.served = &served{t: t, url: "http://" + s.address}
	s.stock()

	ana := s.people[0]
	ana.signIn()
	var made wire.Request
	if code := ana.call("POST", "/api/v1/requests", wire.NewRequest{RoleARN: s.role.ARN, Minutes: 30}, &made); code != http.StatusCreated {
		t.Fatalf("the request was answered %d", code)
	}
	begin := make(chan struct{})
	opened := make([]wire.Credentials, sessions)
	var all sync.WaitGroup
	for i := range opened {
		all.Go(func() {
			<-begin
			if code := ana.call("POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID}, &opened[i]); code == http.StatusOK {
				s.sessions.Add(1)
			}
		})
	}
	close(begin)
	all.Wait()
	if n := s.sessions.Load(); n != sessions {
		t.Errorf("%d sessions were opened, want %d: %v", n, sessions, s.statuses())
	}
	var now wire.Request
	if code := ana.call("GET", "/api/v1/requests/"+made.ID, nil, &now); code != http.StatusOK {
		t.Fatalf("the request is answered %d", code)
	}
	if now.ClockStartedAt.IsZero() || now.EndsAt.Sub(now.ClockStartedAt.Time) != 30*time.Minute {
		t.Errorf("the clock runs from %s to %s, want half an hour", now.ClockStartedAt, now.EndsAt)
	}
	for _, one := range opened {
		if one.EndsAt.After(now.EndsAt.Time) {
			t.Errorf("session %s ends at %s, after the access, at %s", one.SessionID, one.EndsAt, now.EndsAt)
		}
	}
	starts := 0
	for _, e := range s.verify() {
		if e.Target == made.ID && e.Detail["clock_started_at"] != "" {
			starts++
		}
	}
	if starts != 1 {
		t.Errorf("the clock was started %d times, want once", starts)
	}
}
