package trace

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// A sender brings spans to a receiver by OTLP over HTTP, as the variables
// OTEL_EXPORTER_OTLP_… say (OpenTelemetry's specification, OTLP Exporter
// Configuration). OpenTelemetry's own brings gRPC with it, which is a fifteenth of
// the program and not used by anything in it.
type sender struct {
	to      string
	headers http.Header
	squeeze bool
	timeout time.Duration // for each batch, with what is tried again
	client  *http.Client
}

var _ otlptrace.Client = (*sender)(nil)

const (
	defaultEndpoint = "http://localhost:4318"
	defaultTimeout  = 10 * time.Second
	firstPause      = time.Second // before a batch is sent again; then twice as long each time
)

// newSender returns the sender that the environment asks for, or all that is wrong
// with what it says.
func newSender(getenv func(string) string) (*sender, error) {
	var faults []error
	fault := func(name, format string, args ...any) {
		faults = append(faults, fmt.Errorf("OTEL_EXPORTER_OTLP_%s %s", name, fmt.Sprintf(format, args...)))
	}
	option := func(name string) string { // what is said of traces wins
		if text := strings.TrimSpace(getenv("OTEL_EXPORTER_OTLP_TRACES_" + name)); text != "" {
			return text
		}
		return strings.TrimSpace(getenv("OTEL_EXPORTER_OTLP_" + name))
	}
	s := &sender{timeout: defaultTimeout, headers: http.Header{"Content-Type": {"application/x-protobuf"}}}
	var err error
	if s.to, err = endpoint(getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), getenv("OTEL_EXPORTER_OTLP_ENDPOINT")); err != nil {
		fault("ENDPOINT", "%v.", err)
	}
	if protocol := option("PROTOCOL"); protocol != "" && protocol != "http/protobuf" {
		fault("PROTOCOL", "is %q; traces are sent by http/protobuf.", protocol)
	}
	switch compression := option("COMPRESSION"); compression {
	case "", "none":
	case "gzip":
		s.squeeze = true
		s.headers.Set("Content-Encoding", "gzip")
	default:
		fault("COMPRESSION", "is %q, and neither gzip nor none.", compression)
	}
	if text := option("TIMEOUT"); text != "" {
		milliseconds, err := strconv.Atoi(text)
		if err != nil || milliseconds < 1 {
			fault("TIMEOUT", "is no number of milliseconds.")
		}
		s.timeout = time.Duration(milliseconds) * time.Millisecond
	}
	for pair := range strings.SplitSeq(option("HEADERS"), ",") {
		name, value, found := strings.Cut(pair, "=")
		if strings.TrimSpace(pair) == "" {
			continue
		}
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if !found || err != nil || strings.TrimSpace(name) == "" { // a value may be a secret
			fault("HEADERS", "is not name=value, with a comma between and with %%2C for one within.")
			continue
		}
		s.headers.Set(strings.TrimSpace(name), value)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if transport.TLSClientConfig, err = identity(option("CERTIFICATE"), option("CLIENT_CERTIFICATE"), option("CLIENT_KEY")); err != nil {
		fault("CERTIFICATE", "%v.", err)
	}
	s.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return s, errors.Join(faults...)
}

// endpoint returns where traces go: to the address for traces as it is, or to the
// path for traces below the address for all.
func endpoint(traces, all string) (string, error) {
	text, below := strings.TrimSpace(traces), ""
	if text == "" {
		text, below = strings.TrimSpace(all), "v1/traces"
	}
	if text == "" {
		text = defaultEndpoint
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "", errors.New("is not an address such as https://collector.example.com:4318")
	}
	if below != "" {
		u = u.JoinPath(below)
	}
	if u.Path == "" {
		u.Path = "/"
	}
	return u.String(), nil
}

// identity returns whom the sender trusts and who it is, by the files that say so;
// nil where none does.
func identity(roots, certificate, key string) (*tls.Config, error) {
	if roots == "" && certificate == "" && key == "" {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if roots != "" {
		text, err := os.ReadFile(roots)
		if err != nil {
			return nil, err
		}
		if c.RootCAs = x509.NewCertPool(); !c.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("names %s, which holds no certificate", roots)
		}
	}
	if certificate != "" || key != "" {
		own, err := tls.LoadX509KeyPair(certificate, key)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{own}
	}
	return c, nil
}

// Start implements otlptrace.Client.
func (s *sender) Start(context.Context) error { return nil }

// Stop implements otlptrace.Client. Nothing is being sent any more.
func (s *sender) Stop(context.Context) error {
	s.client.CloseIdleConnections()
	return nil
}

// UploadTraces implements otlptrace.Client. What the receiver cannot take now is
// sent again until the time for it is up.
func (s *sender) UploadTraces(ctx context.Context, batch []*spans.ResourceSpans) error {
	// On the wire this is an ExportTraceServiceRequest.
	body, err := proto.Marshal(&spans.TracesData{ResourceSpans: batch})
	if err != nil {
		return fmt.Errorf("writing spans: %w", err)
	}
	if s.squeeze {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, err := z.Write(body)
		if err := errors.Join(err, z.Close()); err != nil {
			return fmt.Errorf("writing spans: %w", err)
		}
		body = b.Bytes()
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	for pause := firstPause; ; pause *= 2 {
		wait, err := s.post(ctx, body)
		if err == nil || wait < 0 {
			return err
		}
		select {
		case <-time.After(max(wait, pause)):
		case <-ctx.Done():
			return err
		}
	}
}

// post sends a batch once. Where it failed, wait is how long the receiver wants to
// be left alone at least; negative where it will never take the batch.
func (s *sender) post(ctx context.Context, body []byte) (wait time.Duration, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.to, bytes.NewReader(body))
	if err != nil {
		return -1, errors.New("sending spans: the address cannot be asked")
	}
	r.Header = s.headers.Clone()
	answer, err := s.client.Do(r)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // without the address
		}
		return 0, fmt.Errorf("sending spans: %w", err)
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10)) // for the connection to be used again
	switch answer.StatusCode {
	case http.StatusOK, http.StatusAccepted, http.StatusNoContent:
		return 0, nil
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		seconds, _ := strconv.Atoi(answer.Header.Get("Retry-After"))
		return time.Duration(max(seconds, 0)) * time.Second, fmt.Errorf("sending spans: answered %d", answer.StatusCode)
	default:
		return -1, fmt.Errorf("sending spans: answered %d", answer.StatusCode)
	}
}
