package workerd

import (
	"cmp"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/serval-bridge/serval-bridge/internal/awsiam"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/worker"
)

// mostLabelled is how many accounts have series of their own. Where there are more,
// those with the greatest ids have none: serval_worker_accounts tells of all, and
// the log of each.
const mostLabelled = 400

// metrics are what the worker counts. There are fewer than two thousand series
// whatever AWS answers and however many accounts there are. An account's own go
// with it when it is removed.
type metrics struct {
	leader    prometheus.Gauge
	calls     *prometheus.CounterVec
	throttled *prometheus.CounterVec
	call      *prometheus.HistogramVec
	seconds   prometheus.Histogram
	syncs     *prometheus.CounterVec
	deltas    *prometheus.CounterVec
	looking   prometheus.Histogram
	last      *prometheus.GaugeVec
	complete  *prometheus.GaugeVec

	accounts *prometheus.GaugeVec
	oldest   prometheus.Gauge

	mu    sync.Mutex
	known map[string]*account // that are listed, by id
}

// An account is what is known of one.
type account struct {
	last     time.Time // when the last sync that is known of started
	state    string    // of it: complete, incomplete, or unknown
	labelled bool

	calls, throttled int
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		leader: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "serval_worker_leader",
			Help: "1 where this worker reads accounts: it leads its shard, or has no Lease to lead by. 0 where it stands by.",
		}),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "serval_worker_aws_calls_total",
			Help: "Calls of AWS as they were answered, by action and by AWS's error code (OK where it went well, other where it is none of the usual ones).",
		}, []string{"action", "code"}),
		throttled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "serval_worker_aws_throttled_total",
			Help: "Calls that AWS refused because they came too fast. They are tried again.",
		}, []string{"action"}),
		call: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "serval_worker_aws_call_seconds",
			Help:    "How long AWS took to answer, by action, without the waiting for the pace.",
			Buckets: []float64{0.02, 0.05, 0.1, 0.2, 0.5, 1, 2.5, 5, 15},
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
		accounts: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "serval_worker_accounts",
			Help: "Accounts that are listed, by the state of the last sync that this worker knows of: complete, incomplete, unknown (synced by another worker) or never.",
		}, []string{"state"}),
		oldest: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "serval_worker_oldest_sync_timestamp_seconds",
			Help: "When that account's last accepted sync started whose is the longest ago, in Unix seconds; 0 where an account has none.",
		}),
		known: make(map[string]*account),
	}
	r.MustRegister(m.leader, m.calls, m.throttled, m.call, m.accounts, m.oldest, m.seconds, m.syncs, m.deltas, m.looking, m.last, m.complete)
	return m
}

// codes are those of AWS that a label may have. Whoever answers in AWS's place
// may send any.
var codes = map[string]bool{
	"OK": true, "AccessDenied": true, "NoSuchEntity": true, "Throttling": true, "ThrottlingException": true, "TooManyRequestsException": true,
	"RequestLimitExceeded": true, "ExpiredToken": true, "InvalidClientTokenId": true, "SignatureDoesNotMatch": true, "RequestExpired": true,
	"RegionDisabledException": true, "PackedPolicyTooLarge": true, "ServiceFailure": true, "InternalFailure": true, "ServiceUnavailable": true,
	"ValidationError": true, "Timeout": true, "NoConnection": true, "NoTLS": true, "BadCertificate": true, "EmptyAnswer": true,
	"MalformedAnswer": true, "NoCredentials": true, "Canceled": true, "HTTP429": true, "HTTP500": true, "HTTP502": true, "HTTP503": true, "HTTP504": true,
}

// observe counts a call of AWS.
func (m *metrics) observe(c awsiam.Call) {
	code := cmp.Or(c.Code, "OK")
	if !codes[code] {
		code = "other"
	}
	m.calls.WithLabelValues(c.Action, code).Inc()
	m.call.WithLabelValues(c.Action).Observe(c.Duration.Seconds())
	if c.Throttled {
		m.throttled.WithLabelValues(c.Action).Inc()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if a := m.known[c.AccountID]; a != nil {
		a.calls++
		if c.Throttled {
			a.throttled++
		}
	}
}

// callsOf returns how many calls of AWS were made for an account that is listed,
// and how many of them came too fast.
func (m *metrics) callsOf(accountID string) (made, throttled int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if a := m.known[accountID]; a != nil {
		return a.calls, a.throttled
	}
	return 0, 0
}

// A flow shows how fast AWS is called now.
type flow struct{ aws *awsiam.Reader }

var (
	inFlight = prometheus.NewDesc("serval_worker_aws_calls_in_flight", "Calls of IAM in flight, over all accounts.", nil, nil)
	pace     = prometheus.NewDesc("serval_worker_aws_pace",
		"Calls a second of the action that an account may make at most, as was found out: of the account that bears the fewest, and of that which bears the most.",
		[]string{"action", "of"}, nil)
)

// Describe sends the descriptions.
func (f flow) Describe(to chan<- *prometheus.Desc) {
	to <- inFlight
	to <- pace
}

// Collect sends the figures.
func (f flow) Collect(to chan<- prometheus.Metric) {
	to <- prometheus.MustNewConstMetric(inFlight, prometheus.GaugeValue, float64(f.aws.InFlight()))
	lowest, highest := f.aws.Rates()
	for action := range lowest {
		to <- prometheus.MustNewConstMetric(pace, prometheus.GaugeValue, lowest[action], action, "lowest")
		to <- prometheus.MustNewConstMetric(pace, prometheus.GaugeValue, highest[action], action, "highest")
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
	a := m.known[o.Account.ID]
	if a == nil {
		return // it was removed meanwhile
	}
	a.last, a.state = o.StartedAt, "incomplete"
	if o.Complete {
		a.state = "complete"
	}
	m.show(o.Account.ID, a)
	m.sum()
}

// show sets an account's own series.
func (m *metrics) show(id string, a *account) {
	if !a.labelled || a.last.IsZero() {
		return
	}
	m.last.WithLabelValues(id).Set(float64(a.last.UnixMilli()) / 1000)
	switch a.state {
	case "complete":
		m.complete.WithLabelValues(id).Set(1)
	case "incomplete":
		m.complete.WithLabelValues(id).Set(0)
	}
}

// sum sets the series of all accounts together.
func (m *metrics) sum() {
	states := map[string]int{"complete": 0, "incomplete": 0, "unknown": 0, "never": 0}
	var oldest time.Time
	first := true
	for _, a := range m.known {
		if a.last.IsZero() {
			states["never"]++
		} else {
			states[a.state]++
		}
		if first || a.last.Before(oldest) {
			oldest, first = a.last, false
		}
	}
	for state, n := range states {
		m.accounts.WithLabelValues(state).Set(float64(n))
	}
	m.oldest.Set(0)
	if !oldest.IsZero() {
		m.oldest.Set(float64(oldest.UnixMilli()) / 1000)
	}
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
	list = slices.SortedFunc(slices.Values(list), func(a, b worker.Account) int { return cmp.Compare(a.ID, b.ID) })
	now := make(map[string]*account, len(list))
	for i, l := range list {
		a := m.known[l.ID]
		if a == nil {
			a = &account{state: "unknown"}
		}
		now[l.ID], a.labelled = a, i < mostLabelled
		if l.LastSyncAt.After(a.last) { // by whichever worker
			a.last = l.LastSyncAt
		}
		m.show(l.ID, a)
	}
	for id := range m.known {
		if a := now[id]; a == nil || !a.labelled {
			m.last.DeleteLabelValues(id)
			m.complete.DeleteLabelValues(id)
		}
	}
	m.known = now
	m.sum()
}
