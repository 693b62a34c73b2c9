package workerd

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/serval-bridge/serval-bridge/internal/lease"
)

// What happens to a candidacy, what is written of it, and what /readyz says then:
// who stands by is ready, and who cannot ask is not.
func TestElection(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	e := newElection(lease.Config{Namespace: "serval", Name: "serval-worker-0"}, "pod-1", zap.New(core))
	me := e.config.Identity
	if other := newElection(e.config, "pod-1", zap.NewNop()).config.Identity; !strings.HasPrefix(me, "pod-1_") || other == me {
		t.Errorf("identities %s and %s; want two that begin with the host's name", me, other)
	}
	if _, err := e.report(t.Context()); err == nil {
		t.Error("it is ready before the API server has answered")
	}
	forbidden := errors.New("the service account may not get the Lease")
	for _, c := range []struct {
		state lease.State
		log   string
		ready string // or what is wrong
	}{
		{lease.State{Err: forbidden}, "error: the Lease cannot be used; trying again", "not ready: " + forbidden.Error()},
		{lease.State{Err: errors.New(forbidden.Error())}, "", "not ready: " + forbidden.Error()},
		{lease.State{}, "info: the Lease can be used again", "ready: standing by; nobody leads at the moment"},
		{lease.State{Holder: "pod-0_x"}, "info: standing by", "ready: standing by; pod-0_x leads"},
		{lease.State{Holder: "pod-0_x"}, "", "ready: standing by; pod-0_x leads"},
		{lease.State{Holder: me}, "", "ready: standing by; nobody leads at the moment"},
		{lease.State{Leading: true, Holder: me}, "info: leading: this worker reads the accounts of its shard", "ready: leading"},
		{lease.State{Leading: true, Holder: me, Err: forbidden}, "error: the Lease cannot be used; trying again", "ready: leading"},
		{lease.State{Holder: me, Err: forbidden}, "warn: not leading any more: nothing is read until this worker leads again", "not ready: " + forbidden.Error()},
	} {
		logs.TakeAll()
		e.changed(c.state)
		var lines []string
		for _, l := range logs.All() {
			lines = append(lines, l.Level.String()+": "+l.Message)
		}
		if got := strings.Join(lines, "; "); got != c.log {
			t.Errorf("%+v is written down as %q, want %q", c.state, got, c.log)
		}
		detail, err := e.report(t.Context())
		got := "ready: " + detail
		if err != nil {
			got = fmt.Sprintf("not ready: %v", err)
		}
		if got != c.ready {
			t.Errorf("%+v is %q, want %q", c.state, got, c.ready)
		}
	}
}
