package control

import (
	"slices"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// fillUse fills in whose clock runs for a role. Who works with what at this moment
// is for those who answer for it: who approves it by the policy that decides here,
// auditors and admins. Others see their own, and how many there are besides.
func (p *Plane) fillUse(v *store.View, who serval.Principal, role *Role) error {
	open, err := v.RequestsOfRole(role.Key)
	if err != nil {
		return err
	}
	mayKnow := who.Admin || who.Auditor ||
		slices.ContainsFunc(role.Policy.Approval.Steps, func(step serval.People) bool { return step.Include(who.Person) })
	now := p.now()
	for _, r := range open {
		if _, _, due := r.Due(now); due || r.State() != serval.StateRunning {
			continue
		}
		if mayKnow || r.PersonID == who.Person.ID {
			role.InUse = append(role.InUse, r)
		} else {
			role.Others++
		}
	}
	return nil
}
