package awsiam_test

import (
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/awsiam"
	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// gcPercent returns by how much garbage may grow now.
func gcPercent() int {
	now := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(now)
	return int(now[0].Value.Uint64())
}

// While many accounts are read at once garbage is collected more often, and after that as before; and who has it
// collected oftener is left alone.
func TestThriftInACrowd(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	for _, tt := range []struct{ before, crowded int }{{100, awsiam.CrowdedPercent}, {10, 10}} {
		debug.SetGCPercent(tt.before)
		var thrift awsiam.Thrift
		for _, step := range []struct{ add, want int }{{4, tt.before}, {1, tt.crowded}, {1, tt.crowded}, {-1, tt.crowded}, {-1, tt.before}, {-4, tt.before}, {5, tt.crowded}, {-5, tt.before}} {
			thrift.Add(step.add, 4)
			if got := gcPercent(); got != step.want {
				t.Errorf("from %d: %d after %+d, want %d", tt.before, got, step.add, step.want)
			}
		}
	}
}

// A Reader does so where it was asked to.
func TestThriftyReader(t *testing.T) {
	for _, thrifty := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			defer debug.SetGCPercent(debug.SetGCPercent(100))
			e := newEstateInMemory(t, awstest.Options{})
			var accounts []serval.Account
			for _, id := range []string{spoke, "444455556667", "444455556668"} {
				owner, a := e.connect(id)
				shape{roles: 20, tagged: 4}.fill(e, owner)
				accounts = append(accounts, a)
			}
			e.SetLatency(func() time.Duration { return 10 * time.Millisecond })
			var crowded atomic.Bool
			e.config.Thrifty, e.config.Concurrency, e.config.Total = thrifty, 4, 8
			e.config.Observe = func(awsiam.Call) {
				if gcPercent() == awsiam.CrowdedPercent {
					crowded.Store(true)
				}
			}
			readAll(t, e.reader(t), accounts)
			if crowded.Load() != thrifty || gcPercent() != 100 {
				t.Errorf("thrifty %v: a crowd was one %v, and it is %d after it", thrifty, crowded.Load(), gcPercent())
			}
		})
	}
}
