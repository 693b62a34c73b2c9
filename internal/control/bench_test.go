package control

import (
	"context"
	"fmt"
	"os"
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
// that do nothing are recorded with STS between them, where an opening's stand: below
// what these take nothing that keeps a record can come. And so are two pages of a
// file written, each synced to the disk: below that nothing can come that keeps
// anything. What an opening takes of the processor, with all that the process does
// meanwhile, is told too: it depends less on what else the machine does. What it may
// add is in docs/performance.md.
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
			kept, err := os.Create(filepath.Join(b.TempDir(), "kept"))
			if err != nil {
				b.Fatal(err)
			}
			defer kept.Close()
			page := make([]byte, 4096)
			ask := func() {
				if _, err := w.sts.Mint(b.Context(), m); err != nil {
					b.Fatal(err)
				}
			}
			// around returns how long it takes to do something, ask STS, and do it again.
			around := func(do func() error) time.Duration {
				began := time.Now()
				for n := range 2 {
					if n == 1 {
						ask()
					}
					if err := do(); err != nil {
						b.Fatal(err)
					}
				}
				return time.Since(began)
			}
			var bare, through, records, syncs []time.Duration
			var used time.Duration // of the processor, by openings
			for b.Loop() {
				w.clock.move(2 * time.Second) // nobody opens more than a few in a minute
				began := time.Now()
				ask()
				bare = append(bare, time.Since(began))
				before := processor(b)
				began = time.Now()
				if _, err := w.plane.Open(b.Context(), ana, opening(r.ID)); err != nil {
					b.Fatal(err)
				}
				through = append(through, time.Since(began))
				used += processor(b) - before
				records = append(records, around(func() error {
					return w.plane.act(b.Context(), ana, serval.SessionOpen, r.ID, func(*store.Tx, *serval.Event) error { return nil })
				}))
				syncs = append(syncs, around(func() error {
					if _, err := kept.WriteAt(page, 0); err != nil {
						return err
					}
					return kept.Sync()
				}))
			}
			for _, all := range [][]time.Duration{bare, through, records, syncs} {
				slices.Sort(all)
			}
			at := func(all []time.Duration, percent int) float64 {
				return float64(all[(len(all)-1)*percent/100]) / float64(time.Millisecond)
			}
			for name, all := range map[string][]time.Duration{"added": through, "two-records": records, "two-syncs": syncs} {
				for _, percent := range []int{50, 99} {
					b.ReportMetric(at(all, percent)-at(bare, percent), fmt.Sprintf("ms-%s-p%d", name, percent))
				}
			}
			b.ReportMetric(at(bare, 50), "ms-sts-p50")
			b.ReportMetric(float64(used)/float64(len(through))/float64(time.Millisecond), "ms-processor")
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
