package control

import (
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// maxEarlier is how many earlier requests are counted.
const maxEarlier = 20

// Earlier is what somebody who decides should know of the past: how often the
// person asked for the role before.
type Earlier struct {
	Times    int // at most maxEarlier are counted
	More     bool
	Approved int // of those, how many were
	Last     *serval.Request
}

// earlier returns what came before a request.
func (p *Plane) earlier(v *store.View, r *serval.Request) (e Earlier, err error) {
	before, err := v.Requests(store.RequestFilter{
		PersonID: r.PersonID, RoleID: r.Role.RoleID, BeforeAt: r.CreatedAt, BeforeID: r.ID, Limit: maxEarlier + 1,
	})
	if err != nil {
		return Earlier{}, err
	}
	e.More = len(before) > maxEarlier
	for _, b := range before[:min(len(before), maxEarlier)] {
		e.Times++
		if b.Active() != nil {
			e.Approved++
		}
	}
	if len(before) > 0 {
		e.Last = before[0]
	}
	return e, nil
}

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
