package control

import (
	"context"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/pgtest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/storetest"
)

// BenchmarkMint says what opening a session adds to STS's own time: each time STS
// is called bare and through Open, in turn, over an STS that always takes as
// long. The clock of the first mint has started before. In the same turn two acts
// that do nothing are recorded, as an opening records two: below what these take
// nothing that keeps a record can come. What an opening takes of the processor,
// with all that the process does meanwhile, is told too: it depends less on what
// else the machine does. What it may add is in docs/performance.md.
func BenchmarkMint(b *testing.B) {
	const stsTakes = 20 * time.Millisecond
	for name, url := range map[string]func() string{
		"sqlite": func() string { // on a disk
			url := "sqlite://" + filepath.Join(b.TempDir(), "serval.db")
			if err := storetest.Migrate(url); err != nil {
				b.Fatal(err)
			}
			return url
		},
		"postgres": func() string { return pgtest.URLOf(b, storetest.Migrate) },
	} {
		b.Run(name, func(b *testing.B) {
			w := worldOver(b, url()).stock()
			said := w.identity("ana@example.com", "engineering")
			said.ExpiresAt = w.clock.now().Add(24 * time.Hour)
			ana, _, err := w.signInAs(w.plane, said)
			if err != nil {
				b.Fatal(err)
			}
			r := w.ask(ana, roleARN(prod, "reader"), 480)
			w.sts.say(func(_ context.Context, _ serval.Mint, right serval.Minted) (serval.Minted, error) {
				time.Sleep(stsTakes)
				return right, nil
			})
			w.open(ana, r.ID)
			m := w.sts.asked()[0]
			var bare, through, records []time.Duration
			var used time.Duration // of the processor, by openings
			for b.Loop() {
				w.clock.move(2 * time.Second) // nobody opens more than a few in a minute
				began := time.Now()
				if _, err := w.sts.Mint(b.Context(), m); err != nil {
					b.Fatal(err)
				}
				bare = append(bare, time.Since(began))
				before := processor(b)
				began = time.Now()
				if _, err := w.plane.Open(b.Context(), ana, opening(r.ID)); err != nil {
					b.Fatal(err)
				}
				through = append(through, time.Since(began))
				used += processor(b) - before
				began = time.Now()
				for range 2 {
					if err := w.plane.act(b.Context(), ana, serval.SessionOpen, r.ID, func(*store.Tx, *serval.Event) error { return nil }); err != nil {
						b.Fatal(err)
					}
				}
				records = append(records, time.Since(began))
			}
			slices.Sort(bare)
			slices.Sort(through)
			slices.Sort(records)
			at := func(all []time.Duration, percent int) float64 {
				return float64(all[(len(all)-1)*percent/100]) / float64(time.Millisecond)
			}
			b.ReportMetric(at(through, 50)-at(bare, 50), "ms-added-p50")
			b.ReportMetric(at(through, 99)-at(bare, 99), "ms-added-p99")
			b.ReportMetric(at(bare, 50), "ms-sts-p50")
			b.ReportMetric(at(records, 50), "ms-two-records-p50")
			b.ReportMetric(float64(used)/float64(len(through))/float64(time.Millisecond), "ms-processor")
			b.ReportMetric(at(records, 99), "ms-two-records-p99")
		})
	}
}

// processor returns the time that the process has had of the processor.
func processor(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
