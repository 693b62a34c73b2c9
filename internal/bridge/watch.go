package bridge

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/store"
)

// verifyEvery is how often the whole audit chain is walked.
const verifyEvery = 6 * time.Hour

// heldTime bounds what a scrape asks of the database.
const heldTime = 2 * time.Second

// A watch looks, while the bridge serves, at what nobody asks for: whether the
// audit chain holds, whether removals wait for somebody to confirm them, and
// whether there is space.
type watch struct {
	store *store.Store
	log   *zap.Logger
	now   func() time.Time
	every time.Duration // between two walks; 0: verifyEvery

	holds, verified prometheus.Gauge
	held, full      *prometheus.Desc
}

func newWatch(c *Config, s *store.Store, registry *prometheus.Registry) *watch {
	w := &watch{store: s, log: c.Log, now: c.Now, every: c.verifyEvery,
		holds: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "serval_audit_chain_holds", Help: "1 where the audit chain held when it was last walked, and until it was; 0 where a row did not.",
		}),
		verified: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "serval_audit_verified_timestamp_seconds", Help: "When the audit chain was last walked to its end, in Unix seconds; 0 where it was not yet.",
		}),
		held: prometheus.NewDesc("serval_removals_held", "Roles whose removal waits to be confirmed.", nil, nil),
		full: prometheus.NewDesc("serval_database_full", "1 where the database's disk is full: what is there can be read, and nothing can be recorded.", nil, nil),
	}
	w.holds.Set(1)
	registry.MustRegister(w.holds, w.verified, w)
	return w
}

// Describe names the metrics that a scrape asks the database for.
func (w *watch) Describe(to chan<- *prometheus.Desc) { to <- w.held; to <- w.full }

// Collect asks the database; where it does not answer there is none.
func (w *watch) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), heldTime)
	defer cancel()
	var held int64
	err := w.store.Read(ctx, func(v *store.View) (err error) {
		held, err = v.HeldRoles()
		return err
	})
	if err == nil {
		to <- prometheus.MustNewConstMetric(w.held, prometheus.GaugeValue, float64(held))
	}
	full := 0.0
	if w.store.Full(ctx, w.now()) {
		full = 1
	}
	to <- prometheus.MustNewConstMetric(w.full, prometheus.GaugeValue, full)
}

// walk verifies the audit chain at once and then every few hours, until ctx
// ends.
func (w *watch) walk(ctx context.Context) {
	for {
		w.verify(ctx)
		next := time.NewTimer(cmp.Or(w.every, verifyEvery))
		select {
		case <-next.C:
		case <-ctx.Done():
			next.Stop()
			return
		}
	}
}

func (w *watch) verify(ctx context.Context) {
	err := w.store.Read(ctx, func(v *store.View) error {
		_, err := v.VerifyChain(store.Head{})
		return err
	})
	broken, ok := errors.AsType[*store.BrokenChain](err)
	switch {
	case ok:
		w.holds.Set(0)
		w.log.Error("the audit chain does not hold", zap.Int64("row", broken.Seq), zap.String("reason", broken.Reason))
	case err == nil:
		w.holds.Set(1)
	case ctx.Err() != nil:
		return
	default:
		w.log.Error("the audit chain could not be verified", zap.Error(err))
		return
	}
	w.verified.Set(float64(w.now().Unix()))
}
