package bridge

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// scrapeTime bounds what a scrape asks of the database.
const scrapeTime = 2 * time.Second

// A tally counts what happens: what is recorded, and what is answered. No label of
// it is of anybody's choosing. S-112
type tally struct {
	events    *prometheus.CounterVec
	requests  *prometheus.CounterVec
	decisions *prometheus.CounterVec
	waited    prometheus.Histogram
	sessions  *prometheus.CounterVec
	logins    *prometheus.CounterVec
	answers   *prometheus.CounterVec
	took      *prometheus.HistogramVec
}

func newTally(registry *prometheus.Registry) *tally {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		registry.MustRegister(c)
		return c
	}
	t := &tally{
		events:    counter("serval_events_total", "Rows of the audit log that this process wrote, by action and outcome.", "action", "outcome"),
		requests:  counter("serval_requests_total", "Requests and extensions that were asked for, or were not taken.", "kind", "outcome"),
		decisions: counter("serval_decisions_total", "Requests and extensions that were settled.", "kind", "outcome"),
		waited: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "serval_decision_wait_seconds", Help: "How long people waited for a decision by people.",
			Buckets: []float64{30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600, 7 * 24 * 3600},
		}),
		sessions: counter("serval_sessions_total", "AWS sessions, by how opening one came out.", "outcome"),
		logins:   counter("serval_logins_total", "Sign-ins, by how they came out.", "outcome"),
		answers:  counter("serval_http_requests_total", "Requests that were answered, by route and class of status.", "method", "route", "status"),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "serval_http_request_seconds", Help: "How long answers took; long polls and uploads are of the class upstream.",
			Buckets: []float64{.005, .025, .1, .25, 1, 2.5, 10},
		}, []string{"class"}),
	}
	registry.MustRegister(t.waited, t.took)
	for _, kind := range []string{"request", "extension"} {
		t.requests.WithLabelValues(kind, "done")
		for _, outcome := range []string{"approved", "denied", "automatic", "break_glass"} {
			t.decisions.WithLabelValues(kind, outcome)
		}
	}
	for _, outcome := range []string{"issued", "failed", "refused", "dropped", "unknown"} {
		t.sessions.WithLabelValues(outcome)
	}
	for _, outcome := range []string{"done", "refused", "failed"} {
		t.logins.WithLabelValues(outcome)
	}
	return t
}

// recorded counts an event that was kept.
func (t *tally) recorded(e serval.Event) {
	t.events.WithLabelValues(string(e.Action), string(e.Outcome)).Inc()
	kind := "request"
	if strings.HasPrefix(string(e.Action), "extension.") {
		kind = "extension"
	}
	decided := func(outcome string) {
		if e.ActorKind == serval.KindSystem && outcome == "approved" {
			outcome = "automatic"
		}
		t.decisions.WithLabelValues(kind, outcome).Inc()
		if seconds, err := strconv.ParseFloat(e.Detail[serval.DetailWaited], 64); err == nil {
			t.waited.Observe(seconds)
		}
	}
	switch e.Action {
	case serval.RequestCreate, serval.ExtensionCreate:
		t.requests.WithLabelValues(kind, string(e.Outcome)).Inc()
	case serval.RequestApprove, serval.ExtensionApprove:
		decided("approved")
	case serval.RequestDeny, serval.ExtensionDeny:
		decided("denied")
	case serval.RequestBreakGlass, serval.ExtensionBreakGlass:
		decided("break_glass")
	case serval.SessionIssue:
		t.sessions.WithLabelValues("issued").Inc()
	case serval.SessionFail:
		t.sessions.WithLabelValues("failed").Inc()
	case serval.SessionDrop:
		t.sessions.WithLabelValues("dropped").Inc()
	case serval.SessionClose:
		t.sessions.WithLabelValues("unknown").Inc()
	case serval.SessionOpen:
		if e.Outcome == serval.OutcomeRefused {
			t.sessions.WithLabelValues("refused").Inc()
		}
	case serval.LoginCreate:
		t.logins.WithLabelValues(string(e.Outcome)).Inc()
	}
}

// served counts an answer.
func (t *tally) served(method, route string, status int, took time.Duration) {
	t.answers.WithLabelValues(method, route, strconv.Itoa(status/100)+"xx").Inc()
	class := "page"
	switch {
	case strings.HasPrefix(route, "/api/v1/upstream/"):
		class = "upstream"
	case strings.HasPrefix(route, "/api/"):
		class = "api"
	}
	t.took.WithLabelValues(class).Observe(took.Seconds())
}

// queues are how the channels of notices stand, asked of the database at each
// scrape. Every replica says the same.
type queues struct {
	store                   *store.Store
	now                     func() time.Time
	channels                []string
	pending, oldest, failed *prometheus.Desc
	waiting, since          *prometheus.Desc
}

func newQueues(s *store.Store, now func() time.Time, channels []string) *queues {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, []string{"channel"}, nil)
	}
	return &queues{
		store: s, now: now, channels: channels,
		pending: desc("serval_notices_pending", "Notices that are due and not delivered."),
		oldest:  desc("serval_notices_oldest_seconds", "How old the oldest notice is that is due and not delivered; 0 where there is none."),
		failed:  desc("serval_notices_failed", "Notices that reached nobody and are not tried any more."),
		waiting: prometheus.NewDesc("serval_decisions_pending", "Requests and extensions that wait for a decision.", nil, nil),
		since:   prometheus.NewDesc("serval_decisions_oldest_seconds", "How long the oldest of them has waited; 0 where there is none.", nil, nil),
	}
}

// Describe names the metrics.
func (q *queues) Describe(to chan<- *prometheus.Desc) {
	to <- q.pending
	to <- q.oldest
	to <- q.failed
}

// Collect asks the database; where it does not answer there are none.
func (q *queues) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTime)
	defer cancel()
	now := q.now()
	byName := map[string]store.NoticeQueue{}
	for _, name := range q.channels {
		byName[name] = store.NoticeQueue{Channel: name}
	}
	var waiting int64
	var since time.Time
	err := q.store.Read(ctx, func(v *store.View) (err error) {
		if waiting, since, err = v.Awaiting(); err != nil {
			return err
		}
		found, err := v.NoticeQueues(now)
		for _, one := range found {
			byName[one.Channel] = one
		}
		return err
	})
	if err != nil {
		return
	}
	age := func(at time.Time) float64 {
		if at.IsZero() {
			return 0
		}
		return max(0, now.Sub(at).Seconds())
	}
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	gauge(q.waiting, float64(waiting))
	gauge(q.since, age(since))
	for name, one := range byName {
		if name == "" {
			name = "none"
		}
		gauge(q.pending, float64(one.Pending), name)
		gauge(q.oldest, age(one.Oldest), name)
		gauge(q.failed, float64(one.Failed), name)
	}
}
