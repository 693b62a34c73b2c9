package awsiam_test

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/awsiam"
)

const median = 40 * time.Millisecond

// BenchmarkOne1000 reads the account of the measurements over loopback at 40 ms a call. The heap is that
// of the whole process above what it was before, the played AWS included.
func BenchmarkOne1000(b *testing.B) { benchmark(b, one1000) }

// BenchmarkOne5000 reads five thousand roles, five hundred of them tagged.
func BenchmarkOne5000(b *testing.B) {
	benchmark(b, one5000)
}

func benchmark(b *testing.B, s shape) {
	e := newEstate(b)
	owner, a := e.connect(spoke)
	want := s.fill(e, owner)
	e.SetLatency(func() time.Duration { return median })
	for b.Loop() {
		b.StopTimer()
		e.ResetCalls()
		r, err := awsiam.New(context.Background(), e.config)
		if err != nil {
			b.Fatal(err)
		}
		runtime.GC()
		before, peak, stop := heap(), atomic.Uint64{}, make(chan struct{})
		go func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(20 * time.Millisecond):
					peak.Store(max(peak.Load(), heap()))
				}
			}
		}()
		b.StartTimer()
		start := time.Now()
		inv, err := r.Inventory(b.Context(), a, nil, nil)
		wall := time.Since(start)
		close(stop)
		if err != nil || !inv.Complete || len(inv.Roles) != s.tagged || e.CountCalls("") != want+1 {
			b.Fatalf("%v, complete %v, %d roles, %d calls; want %d roles in %d calls", err, inv.Complete, len(inv.Roles), e.CountCalls(""), s.tagged, want)
		}
		b.ReportMetric(float64(want), "calls")
		b.ReportMetric(float64(wall)/(float64(want)*float64(median)/16), "of-floor")
		used := float64(peak.Load()-min(before, peak.Load())) / (1 << 20)
		b.ReportMetric(used, "peak-MiB")
		if used > 48 {
			b.Errorf("%.0f MiB, want at most 48", used)
		}
		runtime.KeepAlive(inv)
		r.Close()
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
