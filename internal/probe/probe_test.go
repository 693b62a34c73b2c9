package probe_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/probe"
)

// ask calls a page and returns its status and text.
func ask(p *probe.Probe, method, target string) (int, string) {
	w := httptest.NewRecorder()
	p.Handler().ServeHTTP(w, httptest.NewRequest(method, target, nil))
	return w.Code, w.Body.String()
}

func well(context.Context) error { return nil }

func TestReadyz(t *testing.T) {
	failing := func(context.Context) error { return errors.New("the store is read-only") }
	for _, c := range []struct {
		name   string
		set    func(p *probe.Probe)
		status int
		body   string
	}{
		{"nothing to check", func(*probe.Probe) {}, 200, `{"status":"ok","checks":[]}`},
		{"all well", func(p *probe.Probe) {
			p.Check("store", well)
			p.Check("keys", well)
		}, 200, `{"status":"ok","checks":[{"name":"store","ok":true},{"name":"keys","ok":true}]}`},
		{"one fails", func(p *probe.Probe) {
			p.Check("store", failing)
			p.Check("keys", well)
		}, 503, `{"status":"failing","checks":[{"name":"store","ok":false,"error":"the store is read-only"},{"name":"keys","ok":true}]}`},
		{"one panics", func(p *probe.Probe) {
			p.Check("store", func(context.Context) error { panic("canary") })
		}, 503, `{"status":"failing","checks":[{"name":"store","ok":false,"error":"the check panicked"}]}`},
		{"one says how things stand", func(p *probe.Probe) {
			p.Report("lease", func(context.Context) (string, error) { return "standing by", nil })
			p.Report("store", func(context.Context) (string, error) { return "not shown", errors.New("read-only") })
		}, 503, `{"status":"failing","checks":[{"name":"lease","ok":true,"detail":"standing by"},{"name":"store","ok":false,"error":"read-only"}]}`},
		{"draining", func(p *probe.Probe) {
			p.Check("store", well)
			p.SetDraining()
		}, 503, `{"status":"draining","checks":[{"name":"store","ok":true}]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := probe.New(prometheus.NewRegistry())
			c.set(p)
			status, body := ask(p, "GET", "/readyz")
			if diff := cmp.Diff(c.body+"\n", body); diff != "" || status != c.status {
				t.Errorf("status %d, want %d; body (-want +got):\n%s", status, c.status, diff)
			}
		})
	}
}

func TestChecksRunBesideEachOtherAndAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := probe.New(prometheus.NewRegistry())
		slow := func(ctx context.Context) error {
			select {
			case <-time.After(1500 * time.Millisecond):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		for _, name := range []string{"a", "b", "c"} {
			p.Check(name, slow)
		}
		began := time.Now()
		if status, body := ask(p, "GET", "/readyz"); status != 200 || time.Since(began) != 1500*time.Millisecond {
			t.Errorf("status %d after %s, want 200 after 1.5s: %s", status, time.Since(began), body)
		}
		p.Check("heeds", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		began = time.Now()
		status, body := ask(p, "GET", "/readyz")
		if status != 503 || time.Since(began) != 2*time.Second {
			t.Errorf("status %d after %s, want 503 after 2s: %s", status, time.Since(began), body)
		}
		// Either its own words or ours: both come at that instant.
		if !strings.Contains(body, `{"name":"heeds","ok":false,"error":"`) {
			t.Errorf("the check that hangs is not named: %s", body)
		}
	})
}

func TestACheckThatHangsIsNotRunTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := probe.New(prometheus.NewRegistry())
		var runs atomic.Int32
		release := make(chan struct{})
		p.Check("store", func(context.Context) error {
			runs.Add(1)
			<-release
			return nil
		})
		for range 3 {
			status, body := ask(p, "GET", "/readyz")
			if want := `"error":"no answer within 2s"`; status != 503 || !strings.Contains(body, want) {
				t.Errorf("status %d, want 503 with %s: %s", status, want, body)
			}
		}
		if n := runs.Load(); n != 1 {
			t.Errorf("%d runs at once of a check that hangs, want 1", n)
		}
		close(release)
		synctest.Wait()
		if status, body := ask(p, "GET", "/readyz"); status != 200 {
			t.Errorf("status %d once the check came back, want 200: %s", status, body)
		}
	})
}

func TestTwoReadersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := probe.New(prometheus.NewRegistry())
		p.Check("store", func(context.Context) error { time.Sleep(100 * time.Millisecond); return nil })
		answers := make(chan int, 2)
		for range 2 {
			go func() {
				status, _ := ask(p, "GET", "/readyz")
				answers <- status
			}()
		}
		for range 2 {
			if status := <-answers; status != 200 {
				t.Errorf("status %d for one of two readers at once, want 200", status)
			}
		}
	})
}

func TestLivezTouchesNothing(t *testing.T) {
	p := probe.New(prometheus.NewRegistry())
	p.Check("store", func(context.Context) error {
		t.Error("livez ran a check")
		return errors.New("down")
	})
	p.SetDraining()
	if status, body := ask(p, "GET", "/livez"); status != 200 || body != "ok" {
		t.Errorf("livez answers %d %q while everything is down, want 200 ok", status, body)
	}
}

// broken is a collector that cannot describe what it has.
type broken struct{}

func (broken) Describe(chan<- *prometheus.Desc) {}
func (broken) Collect(to chan<- prometheus.Metric) {
	to <- prometheus.NewInvalidMetric(prometheus.NewDesc("broken", "Broken.", nil, nil), errors.New("broken"))
}

func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	mints := prometheus.NewCounter(prometheus.CounterOpts{Name: "serval_mints_total", Help: "Sessions opened."})
	registry.MustRegister(mints, broken{})
	mints.Add(3)
	p := probe.New(registry)
	status, body := ask(p, "GET", "/metrics")
	if status != 200 || !strings.Contains(body, "\nserval_mints_total 3\n") {
		t.Errorf("status %d, want 200 with serval_mints_total 3, beside a broken collector:\n%s", status, body)
	}
}

func TestRoutes(t *testing.T) {
	p := probe.New(prometheus.NewRegistry())
	p.Handle("PUT /loglevel", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		level, _ := io.ReadAll(r.Body)
		w.Write(append([]byte("level "), level...))
	}))
	for _, c := range []struct {
		method, target string
		want           int
	}{
		{"GET", "/livez", 200}, {"GET", "/readyz", 200}, {"GET", "/metrics", 200}, {"HEAD", "/livez", 200},
		{"POST", "/livez", 405}, {"POST", "/readyz", 405}, {"PUT", "/metrics", 405}, {"DELETE", "/metrics", 405},
		{"PUT", "/loglevel", 200}, {"GET", "/loglevel", 405},
		{"GET", "/", 404}, {"GET", "/livez/", 404}, {"GET", "/healthz", 404}, {"GET", "/api/v1/me", 404},
		{"GET", "//livez", 404}, {"GET", "/x/../livez", 404}, {"GET", "/livez%2f", 404}, {"GET", "/livez;x", 404},
		{"GET", "/livez?verbose", 200}, {"GET", "/debug/pprof/", 404},
	} {
		if got, body := ask(p, c.method, c.target); got != c.want {
			t.Errorf("%s %s answers %d, want %d: %s", c.method, c.target, got, c.want, body)
		}
	}
}

// nobody is asked who they are here, and nobody fills the memory.
func TestABodyIsBounded(t *testing.T) {
	level := zap.NewAtomicLevelAt(zap.WarnLevel)
	p := probe.New(prometheus.NewRegistry())
	p.Handle("PUT /loglevel", level)
	put := func(body io.Reader) int {
		w := httptest.NewRecorder()
		p.Handler().ServeHTTP(w, httptest.NewRequest("PUT", "/loglevel", body))
		return w.Code
	}
	sent := &io.LimitedReader{R: spaces{}, N: 8 << 20}
	if code := put(io.MultiReader(sent, strings.NewReader(`{"level":"debug"}`))); code != 400 || level.Level() != zap.WarnLevel {
		t.Errorf("8 MB answered %d, and the level is %s; want 400 and warn", code, level.Level())
	}
	if read := 8<<20 - sent.N; read > 64<<10 {
		t.Errorf("%d bytes were read", read)
	}
	if code := put(strings.NewReader(`{"level":"debug"}`)); code != 200 || level.Level() != zap.DebugLevel {
		t.Errorf("a level answered %d, and is %s", code, level.Level())
	}
}

// spaces are without end.
type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}
