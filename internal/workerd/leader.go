package workerd

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync"

	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/lease"
)

// An election is this worker's candidacy, for those who look in.
type election struct {
	config lease.Config
	log    *zap.Logger

	mu    sync.Mutex
	state lease.State
	known bool // the API server has answered, or not, at least once
}

func newElection(c lease.Config, host string, log *zap.Logger) *election {
	e := &election{log: log.With(zap.String("lease", c.Namespace+"/"+c.Name))}
	// A restarted container has its predecessor's host name, and is another.
	c.Identity = host + "_" + strings.ToLower(rand.Text())
	c.Changed = e.changed
	e.config = c
	return e
}

// lead works whenever this worker leads its shard, until ctx ends.
func (e *election) lead(ctx context.Context, work func(context.Context)) error {
	e.log.Info("standing for election", zap.String("identity", e.config.Identity))
	return lease.Lead(ctx, e.config, work)
}

// changed takes over how things stand, and writes down what is new of it.
func (e *election) changed(s lease.State) {
	e.mu.Lock()
	defer e.mu.Unlock()
	was, first := e.state, !e.known
	e.state, e.known = s, true
	switch {
	case s.Leading && !was.Leading:
		e.log.Info("leading: this worker reads the accounts of its shard")
	case !s.Leading && was.Leading:
		e.log.Warn("not leading any more: nothing is read until this worker leads again", zap.String("leader", s.Holder), zap.Error(s.Err))
		return
	case !s.Leading && s.Holder != e.config.Identity && s.Holder != "" && (first || s.Holder != was.Holder):
		e.log.Info("standing by", zap.String("leader", s.Holder))
	}
	switch {
	case s.Err != nil && (was.Err == nil || s.Err.Error() != was.Err.Error()):
		e.log.Error("the Lease cannot be used; trying again", zap.Error(s.Err))
	case s.Err == nil && was.Err != nil:
		e.log.Info("the Lease can be used again")
	}
}

// report says how things stand. A worker that stands by is ready. One that
// cannot even ask is not: it would never lead.
func (e *election) report(context.Context) (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch s := e.state; {
	case s.Leading:
		return "leading", nil
	case s.Err != nil:
		return "", s.Err
	case !e.known:
		return "", errors.New("the API server has not answered yet")
	case s.Holder == "" || s.Holder == e.config.Identity:
		return "standing by; nobody leads at the moment", nil
	default:
		return "standing by; " + s.Holder + " leads", nil
	}
}
