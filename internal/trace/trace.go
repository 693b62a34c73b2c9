// Package trace carries W3C trace context through the bridge: a trace that a
// request came with is named in the log and goes on with each call that the
// request makes. Spans of our own are recorded and sent only where the standard
// OTEL_… variables ask for it; otherwise nothing is.
//
// A span holds a method, a route's pattern or a host, and a status: no path, no
// query, no header, no name of a person.
package trace

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// A Tracer carries trace context, and records spans where it was started to. Off
// is one that does not. It is safe for concurrent use.
type Tracer struct {
	tracer trace.Tracer
	wire   propagation.TraceContext
	stop   func(context.Context) error
}

// Off returns a tracer that records nothing, and carries on what comes in.
func Off() *Tracer {
	return &Tracer{tracer: noop.NewTracerProvider().Tracer(""), stop: func(context.Context) error { return nil }}
}

// Wanted reports whether the environment asks for traces: with an endpoint of OTLP,
// or by naming it as the exporter, unless it switches them off.
func Wanted(getenv func(string) string) bool {
	exporter := getenv("OTEL_TRACES_EXPORTER")
	if strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") || exporter != "" && exporter != "otlp" {
		return false
	}
	return exporter == "otlp" || getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
}

// Start returns a tracer that sends its spans by OTLP over HTTP, as the OTEL_…
// variables of the process say. What cannot be sent is dropped, and keeps nobody.
func Start(ctx context.Context, version string) (*Tracer, error) {
	sender, err := newSender(os.Getenv)
	if err != nil {
		return nil, fmt.Errorf("preparing traces: %w", err)
	}
	exporter, err := otlptrace.New(ctx, sender)
	if err != nil {
		return nil, fmt.Errorf("preparing traces: %w", err)
	}
	// What the environment says of the resource wins over what is said here.
	about, err := resource.New(ctx, resource.WithTelemetrySDK(),
		resource.WithAttributes(attribute.String("service.name", "serval-bridge"), attribute.String("service.version", version)), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("preparing traces: %w", err)
	}
	provider := sdk.NewTracerProvider(sdk.WithBatcher(exporter), sdk.WithResource(about))
	return &Tracer{tracer: provider.Tracer("github.com/serval-bridge/serval-bridge"), stop: provider.Shutdown}, nil
}

// Stop sends what is recorded, until ctx ends.
func (t *Tracer) Stop(ctx context.Context) error { return t.stop(ctx) }

// Handler serves next within the trace that a request came with, and a span of
// its own.
func (t *Tracer) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := t.wire.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		ctx, span := t.tracer.Start(ctx, "request", trace.WithSpanKind(trace.SpanKindServer))
		defer span.End()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// Answered names the span of a request after its route, and says how it came out.
func Answered(ctx context.Context, method, route string, status int) {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	span.SetName(method + " " + route)
	span.SetAttributes(attribute.String("http.request.method", method), attribute.String("http.route", route), attribute.Int("http.response.status_code", status))
	if status >= http.StatusInternalServerError {
		span.SetStatus(codes.Error, "")
	}
}

// ID returns the id of the trace that ctx is in; empty where there is none.
func ID(ctx context.Context) string {
	if c := trace.SpanContextFromContext(ctx); c.HasTraceID() {
		return c.TraceID().String()
	}
	return ""
}

// Transport has each call that goes by next carry the trace it is made in, with a
// span of its own.
func (t *Tracer) Transport(next http.RoundTripper) http.RoundTripper { return &transport{t, next} }

type transport struct {
	*Tracer
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, span := t.tracer.Start(r.Context(), r.Method+" "+r.URL.Host, trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attribute.String("http.request.method", r.Method), attribute.String("server.address", r.URL.Hostname())))
	defer span.End()
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return t.next.RoundTrip(r)
	}
	r = r.Clone(ctx) // a round tripper changes no request
	t.wire.Inject(ctx, propagation.HeaderCarrier(r.Header))
	answer, err := t.next.RoundTrip(r)
	if err != nil {
		span.SetStatus(codes.Error, "no answer") // the error may name an address
		return nil, err
	}
	span.SetAttributes(attribute.Int("http.response.status_code", answer.StatusCode))
	return answer, nil
}
