package bridge

import (
	"math"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

// A crowd knows whether memory is nearly used up, as GOMEMLIMIT has it. Then
// nobody begins to sign in any more, so that those who have can open sessions.
type crowd struct {
	mu     sync.Mutex
	at     time.Time
	full   bool
	sample []metrics.Sample
}

// How full is too full, and for how long an answer is good.
const (
	crowdedAt   = 0.95
	crowdLooked = 250 * time.Millisecond
)

func newCrowd() *crowd {
	return &crowd{sample: []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}, {Name: "/memory/classes/heap/free:bytes"}}}
}

// Full reports whether what is in use is close to the limit. Without a limit it
// never is.
func (c *crowd) Full() bool {
	limit := debug.SetMemoryLimit(-1)
	if limit == math.MaxInt64 {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.at) >= crowdLooked {
		c.at = now
		metrics.Read(c.sample)
		used := c.sample[0].Value.Uint64() - c.sample[1].Value.Uint64() - c.sample[2].Value.Uint64()
		c.full = float64(used) >= crowdedAt*float64(limit)
	}
	return c.full
}
