package bridge

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// What people do is counted, by names that nobody of them chooses. S-112
func TestWhatHappensIsCounted(t *testing.T) {
	e := newEstate(t, nil)
	ana, made := e.ana()
	e.json(ana, "POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID}, 200, nil)
	e.json(ana, "POST", "/api/v1/sessions", wire.NewSession{RequestID: "req_none"}, 404, nil)
	stranger := e.client()
	for _, path := range []string{"/CANARY1", "/api/v1/roles/CANARY2/x", "/oidc/auth/callback?code=CANARY3&state=x", "/requests/CANARY4"} {
		if _, _, err := e.ask(stranger, "GET", path, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := e.ask(stranger, "CANARY5", "/", nil); err != nil {
		t.Fatal(err)
	}
	_, metrics := get(t, e.admin+"/metrics")
	for _, want := range []string{
		`serval_requests_total{kind="request",outcome="done"} 1`,
		`serval_decisions_total{kind="request",outcome="automatic"} 1`,
		`serval_sessions_total{outcome="issued"} 1`,
		`serval_sessions_total{outcome="refused"} 1`,
		`serval_logins_total{outcome="done"} 1`,
		`serval_events_total{action="session.issue",outcome="done"} 1`,
		`serval_http_requests_total{method="POST",route="/api/v1/sessions",status="2xx"} 1`,
		`serval_http_requests_total{method="POST",route="/api/v1/sessions",status="4xx"} 1`,
		`serval_decision_wait_seconds_count 0`,
		`serval_decisions_pending 0`,
		`serval_decisions_oldest_seconds 0`,
		`serval_http_request_seconds_count{class="api"}`,
		`serval_audit_head_seq`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	if strings.Contains(metrics, "CANARY") || strings.Contains(metrics, "ana@example.com") {
		t.Error("the metrics tell what somebody wrote")
	}
	if n := strings.Count(metrics, "\n"); n > 2000 {
		t.Errorf("the metrics have %d lines, want fewer than 2,000", n)
	}
}

// The log's level is shown and changed on the admin port while the bridge runs.
func TestLogLevel(t *testing.T) {
	c := config(t)
	level := zap.NewAtomicLevelAt(zapcore.InfoLevel)
	c.Level = &level
	b := start(t, c)
	if status, body := get(t, b.admin+"/loglevel"); status != 200 || !strings.Contains(body, `"info"`) {
		t.Errorf("it says %d %s, want info", status, body)
	}
	put := func(body string) int {
		r, err := http.NewRequest(http.MethodPut, "http://"+b.admin+"/loglevel", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		io.Copy(io.Discard, answer.Body)
		return answer.StatusCode
	}
	if status := put(`{"level":"debug"}`); status != 200 || level.Level() != zapcore.DebugLevel {
		t.Errorf("changing it: %d, and it is %s", status, level.Level())
	}
	if status := put(`{"level":"loud"}`); status != 400 || level.Level() != zapcore.DebugLevel {
		t.Errorf("changing it to none: %d, and it is %s", status, level.Level())
	}
	if status, _ := get(t, b.pages+"/loglevel"); status != 404 { // S-113
		t.Errorf("among the pages it answers %d, want 404", status)
	}
}

// A request that comes within a trace is found by it in the log, beside the id
// that its page and its audit row have.
func TestTraceInTheLog(t *testing.T) {
	e := newEstate(t, nil)
	r, err := http.NewRequest("GET", "http://"+e.pages+"/api/v1/me", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "127.0.0.1:1"
	r.Header.Set("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	id := answer.Header.Get("X-Request-Id")
	for _, line := range e.logs.FilterMessage("request").All() {
		if fields := line.ContextMap(); fields["request_id"] == id {
			if fields["trace_id"] != "4bf92f3577b34da6a3ce929d0e0e4736" {
				t.Errorf("the log line has %v", fields)
			}
			return
		}
	}
	t.Errorf("no log line has the request id %q", id)
}
