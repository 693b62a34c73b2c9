package bridge

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/serval-bridge/serval-bridge/internal/store"
)

// scrapeTime bounds what a scrape asks of the database.
const scrapeTime = 2 * time.Second

// queues are how the channels of notices stand, asked of the database at each
// scrape. Every replica says the same.
type queues struct {
	store                   *store.Store
	now                     func() time.Time
	channels                []string
	pending, oldest, failed *prometheus.Desc
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
	err := q.store.Read(ctx, func(v *store.View) error {
		found, err := v.NoticeQueues(now)
		for _, one := range found {
			byName[one.Channel] = one
		}
		return err
	})
	if err != nil {
		return
	}
	for name, one := range byName {
		if name == "" {
			name = "none"
		}
		var age float64
		if !one.Oldest.IsZero() {
			age = max(0, now.Sub(one.Oldest).Seconds())
		}
		to <- prometheus.MustNewConstMetric(q.pending, prometheus.GaugeValue, float64(one.Pending), name)
		to <- prometheus.MustNewConstMetric(q.oldest, prometheus.GaugeValue, age, name)
		to <- prometheus.MustNewConstMetric(q.failed, prometheus.GaugeValue, float64(one.Failed), name)
	}
}
