package trace

import (
	"compress/gzip"
	"context"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// env is an environment that holds no more than these.
func env(of map[string]string) func(string) string {
	return func(name string) string { return of[name] }
}

var batch = []*spans.ResourceSpans{{SchemaUrl: "https://schema.example"}}

// What the variables say is done, what is said of traces wins, and what cannot be
// done is refused when the program starts.
func TestNewSender(t *testing.T) {
	const all, own = "OTEL_EXPORTER_OTLP_", "OTEL_EXPORTER_OTLP_TRACES_"
	for _, test := range []struct {
		env  map[string]string
		want string // the address; "-" for a refusal
	}{
		{nil, "http://localhost:4318/v1/traces"},
		{map[string]string{all + "ENDPOINT": "https://c.example:4318"}, "https://c.example:4318/v1/traces"},
		{map[string]string{all + "ENDPOINT": "http://c.example/otlp/"}, "http://c.example/otlp/v1/traces"},
		{map[string]string{all + "ENDPOINT": "http://c.example", own + "ENDPOINT": "http://t.example/here"}, "http://t.example/here"},
		{map[string]string{own + "ENDPOINT": "http://t.example"}, "http://t.example/"},
		{map[string]string{all + "PROTOCOL": "grpc", own + "PROTOCOL": "http/protobuf"}, "http://localhost:4318/v1/traces"},
		{map[string]string{all + "COMPRESSION": "none", all + "HEADERS": "a=b, c=d%2Ce,", all + "TIMEOUT": "500"}, "http://localhost:4318/v1/traces"},
		{map[string]string{all + "ENDPOINT": "c.example:4318"}, "-"},
		{map[string]string{all + "ENDPOINT": "unix:///run/otlp"}, "-"},
		{map[string]string{all + "PROTOCOL": "grpc"}, "-"},
		{map[string]string{all + "PROTOCOL": "http/json"}, "-"},
		{map[string]string{all + "COMPRESSION": "zstd"}, "-"},
		{map[string]string{all + "TIMEOUT": "10s"}, "-"},
		{map[string]string{all + "TIMEOUT": "0"}, "-"},
		{map[string]string{all + "HEADERS": "CANARY"}, "-"},
		{map[string]string{all + "HEADERS": "a=CANARY%zz"}, "-"},
		{map[string]string{all + "CERTIFICATE": "/nowhere"}, "-"},
		{map[string]string{all + "CERTIFICATE": os.Args[0]}, "-"},
		{map[string]string{all + "CLIENT_KEY": "/nowhere"}, "-"},
	} {
		s, err := newSender(env(test.env))
		if (err != nil) != (test.want == "-") || err == nil && s.to != test.want {
			t.Errorf("%v: to %s, %v; want %s", test.env, s.to, err, test.want)
		}
		if err != nil && (!strings.Contains(err.Error(), "OTEL_EXPORTER_OTLP_") || strings.Contains(err.Error(), "CANARY")) { // S-5
			t.Errorf("%v: %v; want the variable named, and no secret", test.env, err)
		}
	}
}

// A batch arrives as the protocol has it, also squeezed and by TLS, with the headers.
func TestSenderSends(t *testing.T) {
	var got spans.TracesData
	var header http.Header
	far := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		header = r.Header
		body := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			z, err := gzip.NewReader(r.Body)
			if err != nil {
				t.Error(err)
				return
			}
			body = z
		}
		text, err := io.ReadAll(body)
		if err == nil {
			err = proto.Unmarshal(text, &got)
		}
		if err != nil || r.Method != http.MethodPost || r.URL.Path != "/v1/traces" {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
	}))
	defer far.Close()
	roots := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: far.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, compression := range []string{"none", "gzip"} {
		got.Reset()
		s, err := newSender(env(map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": far.URL, "OTEL_EXPORTER_OTLP_CERTIFICATE": roots,
			"OTEL_EXPORTER_OTLP_COMPRESSION": compression, "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20x, x-team=a"}))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.UploadTraces(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		if len(got.ResourceSpans) != 1 || got.ResourceSpans[0].SchemaUrl != batch[0].SchemaUrl ||
			header.Get("Authorization") != "Bearer x" || header.Get("X-Team") != "a" || header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("%s: %v with %v", compression, &got, header)
		}
		if err := s.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
	s, err := newSender(env(map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": far.URL, "OTEL_EXPORTER_OTLP_TIMEOUT": "200"}))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.UploadTraces(t.Context(), batch); err == nil {
		t.Error("sent to a receiver whose certificate nobody trusts")
	}
}

// far answers with each status in turn.
type far struct {
	statuses []int
	retry    string
	asked    int
}

// RoundTrip implements http.RoundTripper.
func (f *far) RoundTrip(r *http.Request) (*http.Response, error) {
	status := f.statuses[min(f.asked, len(f.statuses)-1)]
	f.asked++
	return &http.Response{StatusCode: status, Request: r, Header: http.Header{"Retry-After": {f.retry}, "Location": {"https://elsewhere.example/"}},
		Body: io.NopCloser(strings.NewReader("CANARY"))}, nil
}

// What the receiver cannot take now is sent again, within the time; what it will
// never take is not, and what it wrote is told to nobody.
func TestSenderTriesAgain(t *testing.T) {
	for _, test := range []struct {
		far   far
		asked int
		after time.Duration
		fails bool
	}{
		{far{statuses: []int{200}}, 1, 0, false},
		{far{statuses: []int{503, 429, 200}}, 3, 3 * time.Second, false},
		{far{statuses: []int{502, 200}, retry: "4"}, 2, 4 * time.Second, false},
		{far{statuses: []int{504}}, 4, 10 * time.Second, true}, // after 0, 1, 3 and 7 seconds
		{far{statuses: []int{503}, retry: "60"}, 1, 10 * time.Second, true},
		{far{statuses: []int{400}}, 1, 0, true},
		{far{statuses: []int{307}}, 1, 0, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			s, err := newSender(env(nil))
			if err != nil {
				t.Fatal(err)
			}
			s.client.Transport = &test.far
			began := time.Now()
			err = s.UploadTraces(context.Background(), batch)
			if took := time.Since(began); test.far.asked != test.asked || took != test.after || (err != nil) != test.fails {
				t.Errorf("%v: asked %d times in %s, %v; want %d in %s, an error: %t", test.far.statuses, test.far.asked, took, err, test.asked, test.after, test.fails)
			}
			if err != nil && strings.Contains(err.Error(), "CANARY") {
				t.Errorf("%v: %v tells what the receiver wrote", test.far.statuses, err)
			}
		})
	}
}
