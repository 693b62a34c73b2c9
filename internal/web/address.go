package web

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"go.uber.org/zap"
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
	nearest := at
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		next, err := netip.ParseAddr(strings.TrimSpace(hop))
		if err != nil {
			break
		}
		if at = next.Unmap().WithZone(""); !s.isProxy(at) {
			return at.String()
		}
		if nearest == peer.Addr().Unmap() {
			nearest = at
		}
	}
	// Every hop is a proxy's address, and the farther ones whoever asks could have
	// written: what counts is whom our own proxy names.
	return nearest.String()
}

func (s *Server) isProxy(a netip.Addr) bool {
	return slices.ContainsFunc(s.c.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(a) })
}
