// Package probe answers the orchestrator and the metrics scraper, on a port of
// its own that no Service and no Ingress leads to.
//
// A [Probe] has three pages. /livez says that the process can answer, and
// touches nothing else: an outage elsewhere must not restart every replica.
// /readyz runs the named checks and says whether to send people here. /metrics
// is what the registry gathers.
package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// checkPatience bounds each readiness check. It is below the timeout of the
// probes in the chart, so that a check that hangs is named.
const checkPatience = 2 * time.Second

// A Probe is the admin port's handler. It is safe for concurrent use.
type Probe struct {
	draining atomic.Bool
	mux      *http.ServeMux

	mu     sync.Mutex // guards what follows
	checks []*check
}

type check struct {
	name string
	f    func(context.Context) (string, error)
	turn chan struct{} // holds one value while f runs
}

// New returns a probe without checks, which is ready. The registry is what
// /metrics shows; it must not be nil.
func New(registry *prometheus.Registry) *Probe {
	p := &Probe{mux: http.NewServeMux()}
	p.mux.HandleFunc("GET /livez", livez)
	p.mux.HandleFunc("GET /readyz", p.readyz)
	p.mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		Registry: registry,
		// One broken collector must not hide all the others.
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: 4,
	}))
	return p
}

// Check adds a readiness check. It is run for each call of /readyz, beside the
// others, and fails where it takes longer than two seconds. The text of its
// error is shown to whoever reaches the admin port, so it must hold no secret.
//
// Only what this replica cannot serve without belongs here: the store, the keys.
// An outage of the identity provider or of AWS would take every replica out of
// service at once, and help nobody.
func (p *Probe) Check(name string, f func(context.Context) error) {
	p.Report(name, func(ctx context.Context) (string, error) { return "", f(ctx) })
}

// Report adds a Check that, where it succeeds, also says in a few words how
// things stand: that a replica stands by, for instance, and for whom.
func (p *Probe) Report(name string, f func(context.Context) (string, error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.checks = append(p.checks, &check{name, f, make(chan struct{}, 1)})
}

// SetDraining makes /readyz answer 503 from now on, so that no new calls arrive
// while the last ones are served. There is no way back.
func (p *Probe) SetDraining() { p.draining.Store(true) }

// Handle adds a page, such as "PUT /loglevel", by a pattern of http.ServeMux. It
// panics where the pattern is malformed or taken, and must not be called once
// the handler serves.
func (p *Probe) Handle(pattern string, h http.Handler) { p.mux.Handle(pattern, h) }

// maxBody bounds what a page is sent, in bytes: whoever reaches the port is asked
// for no name, and could otherwise send on until the memory is full.
const maxBody = 4 << 10

// Handler returns the pages. What is none of them is 404, also where it would be
// one if its path were cleaned, and a method that a page does not take is 405.
func (p *Probe) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if clean := path.Clean(r.URL.Path); r.URL.Path != clean && r.URL.Path != clean+"/" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		p.mux.ServeHTTP(w, r)
	})
}

func livez(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ok")) // whoever asked may be gone
}

// The JSON of /readyz.
type readiness struct {
	Status string   `json:"status"` // ok, failing or draining
	Checks []result `json:"checks"`
}

type result struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
	Error  string `json:"error,omitempty"`
}

func (p *Probe) readyz(w http.ResponseWriter, r *http.Request) {
	answer := readiness{Status: "ok", Checks: p.run(r.Context())}
	for _, c := range answer.Checks {
		if !c.OK {
			answer.Status = "failing"
		}
	}
	if p.draining.Load() {
		answer.Status = "draining"
	}
	w.Header().Set("Content-Type", "application/json")
	if answer.Status != "ok" {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(answer) // whoever asked may be gone
}

// run runs all checks at once and returns what came of them, in the order in
// which they were added.
func (p *Probe) run(ctx context.Context) []result {
	p.mu.Lock()
	checks := append([]*check(nil), p.checks...)
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	results := make([]result, len(checks))
	var running sync.WaitGroup
	for i, c := range checks {
		running.Go(func() {
			results[i] = c.run(ctx)
		})
	}
	running.Wait()
	return results
}

// errPatience is a check that took too long.
var errPatience = fmt.Errorf("no answer within %s", checkPatience)

// run runs the check until ctx ends. A check that does not heed ctx is left
// behind, and not run again before it has come back: one that hangs costs one
// goroutine, however often it is asked.
func (c *check) run(ctx context.Context) result {
	failed := func(err error) result { return result{Name: c.name, Error: err.Error()} }
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return failed(errPatience)
	}
	done := make(chan result, 1)
	go func() {
		defer func() { <-c.turn }()
		defer func() {
			// A panic here would end the process, and is told like a failure. What
			// it says may hold anything, and is not shown.
			if recover() != nil {
				done <- failed(errors.New("the check panicked"))
			}
		}()
		detail, err := c.f(ctx)
		if err != nil {
			done <- failed(err)
			return
		}
		done <- result{Name: c.name, OK: true, Detail: detail}
	}()
	select {
	case r := <-done:
		return r
	case <-ctx.Done():
		return failed(errPatience)
	}
}
