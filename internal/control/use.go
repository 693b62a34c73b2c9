package control

import (
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// inUse returns the requests for a role whose clock runs.
func (p *Plane) inUse(v *store.View, key serval.RoleKey) (running []*serval.Request, err error) {
	open, err := v.RequestsOfRole(key)
	if err != nil {
		return nil, err
	}
	now := p.now()
	for _, r := range open {
		if _, _, due := r.Due(now); !due && r.State() == serval.StateRunning {
			running = append(running, r)
		}
	}
	return running, nil
}
