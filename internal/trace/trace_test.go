package trace

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	traceID = "4bf92f3577b34da6a3ce929d0e0e4736"
	parent  = "00-" + traceID + "-00f067aa0ba902b7-01"
)

// far notes the trace that each call came in, and seen what the handler was in.
func world(t *testing.T, tracer *Tracer) (ask func(traceparent string) (seen, onward string)) {
	t.Helper()
	var onward string
	far := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { onward = r.Header.Get("traceparent") }))
	t.Cleanup(far.Close)
	client := &http.Client{Transport: tracer.Transport(http.DefaultTransport)}
	var seen string
	near := httptest.NewServer(tracer.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = ID(r.Context())
		call, err := http.NewRequestWithContext(r.Context(), "GET", far.URL+"/CANARY?q=CANARY", nil)
		if err != nil {
			t.Error(err)
			return
		}
		answer, err := client.Do(call)
		if err != nil {
			t.Error(err)
			return
		}
		answer.Body.Close()
		Answered(r.Context(), "GET", "/requests/{id}", 500)
	})))
	t.Cleanup(near.Close)
	return func(traceparent string) (string, string) {
		t.Helper()
		seen, onward = "", ""
		r, err := http.NewRequest("GET", near.URL+"/requests/CANARY?code=CANARY", nil)
		if err != nil {
			t.Fatal(err)
		}
		if traceparent != "" {
			r.Header.Set("traceparent", traceparent)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		return seen, onward
	}
}

// Without spans of our own a trace goes through as it came, and what is none does
// not.
func TestContextIsCarried(t *testing.T) {
	ask := world(t, Off())
	if seen, onward := ask(parent); seen != traceID || onward != parent {
		t.Errorf("in the trace %q, onward %q", seen, onward)
	}
	for _, bad := range []string{"", "x", "00-" + traceID, "00-00000000000000000000000000000000-00f067aa0ba902b7-01", strings.ToUpper(parent), parent + strings.Repeat("0", 5000)} {
		if seen, onward := ask(bad); seen != "" || onward != "" {
			t.Errorf("%.80q is taken for a trace: %q, onward %q", bad, seen, onward)
		}
	}
}

// Where the environment asks for them spans are sent, within the trace, and hold
// no path and no query. A receiver that is away keeps nobody.
func TestSpansAreSent(t *testing.T) {
	var mu sync.Mutex
	var got []byte
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		got = append(got, body...)
	}))
	defer collector.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	tracer, err := Start(t.Context(), "v1")
	if err != nil {
		t.Fatal(err)
	}
	seen, onward := world(t, tracer)(parent)
	if seen != traceID || !strings.HasPrefix(onward, "00-"+traceID) || onward == parent {
		t.Errorf("in the trace %q, onward %q; want it onward with a span of our own", seen, onward)
	}
	if err := tracer.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, want := range []string{"GET /requests/{id}", "serval-bridge", "http.response.status_code"} {
		if !strings.Contains(string(got), want) {
			t.Errorf("the spans lack %q", want)
		}
	}
	if strings.Contains(string(got), "CANARY") { // S-5
		t.Errorf("the spans tell a path or a query: %q", got)
	}

	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	t.Setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3000")
	away, err := Start(t.Context(), "v1")
	if err != nil {
		t.Fatal(err)
	}
	ask := world(t, away)
	began := time.Now()
	for range 20 {
		ask("")
	}
	if took := time.Since(began); took > 50*time.Second { // a minute, if each waited until it is given up
		t.Errorf("twenty requests took %s while the receiver of traces was away", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	away.Stop(ctx) // an error says that they are lost
}

func TestWanted(t *testing.T) {
	for _, test := range []struct {
		env  map[string]string
		want bool
	}{
		{nil, false},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, true},
		{map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, true},
		{map[string]string{"OTEL_TRACES_EXPORTER": "otlp"}, true},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}, false},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}, false},
		{map[string]string{"OTEL_SERVICE_NAME": "x"}, false},
	} {
		if got := Wanted(func(name string) string { return test.env[name] }); got != test.want {
			t.Errorf("%v: %v, want %v", test.env, got, test.want)
		}
	}
}
