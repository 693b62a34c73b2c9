package workerd

import (
	"cmp"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/serval-bridge/serval-bridge/internal/awsiam"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/worker"
)

// metrics are what the worker counts. An account's own are those of the accounts
// that are listed; one that is removed takes them along.
type metrics struct {
	leader    prometheus.Gauge
	calls     *prometheus.CounterVec
	throttled *prometheus.CounterVec
	seconds   prometheus.Histogram
	syncs     *prometheus.CounterVec
	deltas    *prometheus.CounterVec
	looking   prometheus.Histogram
	last      *prometheus.GaugeVec
	complete  *prometheus.GaugeVec

	mu    sync.Mutex
	known map[string]time.Time // by account id, when the last sync that is known of started
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		leader: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "serval_worker_leader",
			Help: "1 where this worker reads accounts: it leads its shard, or has no Lease to lead by. 0 where it stands by.",
		}),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "serval_worker_aws_calls_total",
			Help: "Calls of AWS as they were answered, by action and by AWS's error code (OK where it went well).",
		}, []string{"action", "code"}),
		throttled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "serval_worker_aws_throttled_total",
			Help: "Calls that AWS refused because they came too fast. They are tried again.",
		}, []string{"action"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "serval_worker_sync_seconds",
			Help:    "How long the sync of one account took, from opening it to its acceptance.",
			Buckets: []float64{1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200, 3600, 14400},
		}),
		syncs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "serval_worker_syncs_total",
			Help: "Syncs by outcome: complete, incomplete, unread (nothing of the account could be read) or refused (by the upstream).",
		}, []string{"outcome"}),
		deltas: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "serval_worker_deltas_total",
			Help: "Deltas by outcome: changed, unchanged, incomplete (something could not be looked at, and nothing else changed), busy (another worker had the account) or failed.",
		}, []string{"outcome"}),
		looking: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "serval_worker_delta_seconds",
			Help:    "How long the delta of one account took, from opening it to its acceptance.",
			Buckets: []float64{0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300},
		}),
		last: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "serval_worker_last_sync_timestamp_seconds",
			Help: "When the account's last accepted sync started, in Unix seconds.",
		}, []string{"account_id"}),
		complete: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "serval_worker_sync_complete",
			Help: "1 where the account's last accepted sync was complete, 0 where it was not.",
		}, []string{"account_id"}),
		known: make(map[string]time.Time),
	}
	r.MustRegister(m.leader, m.calls, m.throttled, m.seconds, m.syncs, m.deltas, m.looking, m.last, m.complete)
	return m
}

// observe counts a call of AWS.
func (m *metrics) observe(c awsiam.Call) {
	m.calls.WithLabelValues(c.Action, cmp.Or(c.Code, "OK")).Inc()
	if c.Throttled {
		m.throttled.WithLabelValues(c.Action).Inc()
	}
}

// done counts a sync.
func (m *metrics) done(o worker.Outcome) {
	if o.Kind == serval.SyncDelta {
		m.delta(o)
		return
	}
	if !o.Accepted {
		if o.Generation != 0 {
			m.syncs.WithLabelValues("refused").Inc()
		}
		return
	}
	outcome := "complete"
	switch {
	case !o.Read:
		outcome = "unread"
	case !o.Complete:
		outcome = "incomplete"
	}
	m.syncs.WithLabelValues(outcome).Inc()
	m.seconds.Observe(o.Took.Seconds())
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.known[o.Account.ID]; !ok {
		return // it was removed meanwhile
	}
	m.known[o.Account.ID] = o.StartedAt
	m.last.WithLabelValues(o.Account.ID).Set(float64(o.StartedAt.UnixMilli()) / 1000)
	whole := 0.0
	if o.Complete {
		whole = 1
	}
	m.complete.WithLabelValues(o.Account.ID).Set(whole)
}

// delta counts a delta.
func (m *metrics) delta(o worker.Outcome) {
	outcome := "unchanged"
	_, busy := errors.AsType[*worker.Busy](o.Err)
	switch {
	case busy:
		outcome = "busy"
	case !o.Accepted:
		outcome = "failed"
	case o.Changed > 0:
		outcome = "changed"
	case !o.Complete:
		outcome = "incomplete"
	}
	m.deltas.WithLabelValues(outcome).Inc()
	if o.Accepted {
		m.looking.Observe(o.Took.Seconds())
	}
}

// listed takes over which accounts there are, also those that another worker
// reads: when that was is the upstream's word.
func (m *metrics) listed(list []worker.Account) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := make(map[string]time.Time, len(list))
	for _, a := range list {
		now[a.ID] = m.known[a.ID]
		if a.LastSyncAt.After(now[a.ID]) { // by whichever worker
			now[a.ID] = a.LastSyncAt
			m.last.WithLabelValues(a.ID).Set(float64(a.LastSyncAt.UnixMilli()) / 1000)
		}
	}
	for id := range m.known {
		if _, ok := now[id]; !ok {
			m.last.DeleteLabelValues(id)
			m.complete.DeleteLabelValues(id)
		}
	}
	m.known = now
}
