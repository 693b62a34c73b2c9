package web

import (
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// address returns whose request it is: the peer's address or, where that is a
// trusted proxy, the last in X-Forwarded-For that is none. It is for the record
// and for counting.
//
// A bridge behind an ingress that it does not trust sees everybody at the
// ingress's address, with one rate of sign-ins for all, so that is said once.
func (s *Server) address(r *http.Request) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	at := peer.Addr().Unmap()
	if !s.isProxy(at) {
		if r.Header.Get("X-Forwarded-For") != "" {
			s.forwarded.Do(func() {
				s.c.Log.Warn("a peer that is no trusted proxy sends X-Forwarded-For, which is not believed; "+
					"if it is your ingress, set SERVAL_TRUSTED_PROXIES, or all people behind it share one address and one rate of sign-ins",
					zap.String("peer", at.String()))
			})
		}
		return at.String()
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		next, err := netip.ParseAddr(strings.TrimSpace(hop))
		if err != nil {
			break
		}
		if at = next.Unmap().WithZone(""); !s.isProxy(at) {
			break
		}
	}
	return at.String()
}

func (s *Server) isProxy(a netip.Addr) bool {
	return slices.ContainsFunc(s.c.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(a) })
}

// A limiter lets an address do something so many times a minute.
type limiter struct {
	most int

	mu     sync.Mutex
	minute int64
	used   map[string]int
}

// maxCounted bounds how many addresses are counted apart within one minute;
// those beyond share one count.
const maxCounted = 100_000

// take counts one more, or refuses with the seconds to wait.
func (l *limiter) take(address string, now time.Time) error {
	key := network(address)
	l.mu.Lock()
	defer l.mu.Unlock()
	if m := now.Unix() / 60; m != l.minute || l.used == nil {
		l.minute, l.used = m, map[string]int{}
	}
	if _, counted := l.used[key]; !counted && len(l.used) >= maxCounted {
		key = ""
	}
	if l.used[key] >= l.most {
		return &serval.Refusal{Kind: serval.Exhausted, Reason: "Too many sign-ins from your address within a minute. Wait a moment.",
			Detail: map[string]string{"retry_after": strconv.FormatInt(60-now.Unix()%60, 10)}}
	}
	l.used[key]++
	return nil
}

// network returns what is counted as one: an IPv4 address, and of IPv6 the /64
// that one line has all of.
func network(address string) string {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return ""
	}
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.String()
		}
	}
	return a.String()
}
