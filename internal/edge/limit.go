package edge

import (
	"strconv"
	"sync"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A Limiter lets an address do something so many times a minute.
type Limiter struct {
	Most int // in a minute; set before the first Take

	mu     sync.Mutex
	minute int64
	used   map[string]int
}

// maxCounted bounds how many addresses are counted apart within one minute;
// those beyond share one count.
const maxCounted = 100_000

// Take counts one more, or refuses with the seconds to wait.
func (l *Limiter) Take(address string, now time.Time) error {
	key := serval.NetworkOf(address)
	l.mu.Lock()
	defer l.mu.Unlock()
	if m := now.Unix() / 60; m != l.minute || l.used == nil {
		l.minute, l.used = m, map[string]int{}
	}
	if _, counted := l.used[key]; !counted && len(l.used) >= maxCounted {
		key = ""
	}
	if l.used[key] >= l.Most {
		return &serval.Refusal{Kind: serval.Exhausted, Reason: "Too many sign-ins from your address within a minute. Wait a moment.",
			Detail: map[string]string{"retry_after": strconv.FormatInt(60-now.Unix()%60, 10)}}
	}
	l.used[key]++
	return nil
}
