package main

import (
	"context"
	"flag"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/serval-bridge/serval-bridge/internal/pgtest"
	"github.com/serval-bridge/serval-bridge/internal/porttest"
)

var older = flag.String("older", "", "the serval-bridge of an older version, to run beside this one (make beside)")

// an older bridge serves people on PostgreSQL; this one migrates the database
// under it and serves beside it; then the older one goes. Nobody's request fails,
// whichever of them answers, and the audit log is one.
func TestBeside(t *testing.T) {
	if *older == "" {
		t.Skip("make beside builds an older version and runs it")
	}
	const phase = 20 * time.Second
	s := newSoak(t, 100, pgtest.URL(t), automatic)
	program := s.build()
	b := balance(t, s.address)
	old := s.serve(*older, porttest.Own(t))
	b.set(old)
	s.served = &served{t: t, url: "http://" + s.address}
	s.stock()

	seen := map[int]int{}
	during := func(what string, change func()) {
		go change()
		s.run(phase, 0)
		now := maps.Clone(s.statuses())
		t.Logf("%-40s schema %d, answers %v", what, schema(t, s.database), less(now, seen))
		seen = now
	}
	joined := make(chan *served, 1)
	during("the older alone:", func() {})
	during("this one comes:", func() {
		time.Sleep(phase / 4) // in the midst of what people do
		one := s.serve(program, porttest.Own(t))
		b.set(old, one)
		joined <- one
	})
	one := <-joined
	during("side by side:", func() {})
	during("the older goes:", func() {
		time.Sleep(phase / 4)
		b.set(one)
		if err := old.cmd.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
	})
	for code, n := range seen {
		if code >= http.StatusBadRequest {
			t.Errorf("%d answers were %d, want no request to fail", n, code)
		}
	}
	if s.sessions.Load() == 0 {
		t.Error("nobody opened a session")
	}
	s.verify()
}

func less(now, before map[int]int) map[int]int {
	left := map[int]int{}
	for code, n := range now {
		if n > before[code] {
			left[code] = n - before[code]
		}
	}
	return left
}

// schema returns the number of the last migration.
func schema(t *testing.T, database string) (version int) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.WithoutCancel(t.Context()))
	if err := c.QueryRow(t.Context(), `select max(version_id) from goose_db_version`).Scan(&version); err != nil {
		t.Fatal(err)
	}
	return version
}

// A balancer sends each request to the next of the bridges that it is set to.
type balancer struct {
	to   atomic.Pointer[[]string]
	next atomic.Uint64
}

func balance(t *testing.T, address string) *balancer {
	t.Helper()
	b := &balancer{}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			to := *b.to.Load()
			target, err := url.Parse(to[b.next.Add(1)%uint64(len(to))])
			if err != nil {
				t.Error(err)
				return
			}
			r.SetURL(target)
			r.Out.Host = r.In.Host
			r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
		},
	}}
	go server.Serve(l) // until it is closed
	t.Cleanup(func() { server.Close() })
	return b
}

func (b *balancer) set(to ...*served) {
	var urls []string
	for _, one := range to {
		urls = append(urls, one.url)
	}
	b.to.Store(&urls)
}
