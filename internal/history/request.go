package history

import (
	"slices"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/insight"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// How many requests are looked at of what came before: the person's own, which
// are counted too, and everybody's for the role.
const (
	maxEarlier  = 20
	maxApproved = 50
)

// Earlier is what somebody who decides should know of the past: how often the
// person asked for the role before.
type Earlier struct {
	Times    int // at most maxEarlier are counted
	More     bool
	Approved int // of those, how many were
	Last     *serval.Request

	requests []*serval.Request // those that are counted, the newest first
}

// Before returns what came before a request.
func Before(v *store.View, r *serval.Request) (e Earlier, err error) {
	before, err := v.Requests(store.RequestFilter{
		PersonID: r.PersonID, RoleID: r.Role.RoleID, BeforeAt: r.CreatedAt, BeforeID: r.ID, Limit: maxEarlier + 1,
	})
	if err != nil {
		return Earlier{}, err
	}
	// A worker could push another account's role id for a role of its own.
	before = slices.DeleteFunc(before, func(b *serval.Request) bool { return b.Role.AccountID != r.Role.AccountID })
	e.More = len(before) > maxEarlier
	e.requests = before[:min(len(before), maxEarlier)]
	e.Times = len(e.requests)
	for _, b := range e.requests {
		if b.Active() != nil {
			e.Approved++
		}
	}
	if len(before) > 0 {
		e.Last = before[0]
	}
	return e, nil
}

// An Explained is what a request's role can do now, and what it gained and lost
// since it was last approved.
type Explained struct {
	Role *store.Role // with its documents
	Card *insight.Card
	// Since is what changed since the approval that Basis names; nil where there is
	// none, or nobody knows what the role was then.
	Since *insight.Change
	Basis Basis
}

// A Basis is the approval that a role is compared with: of what is in force, or
// else the last that the person had for the role, or else the last that anybody
// had under the same access policy.
type Basis struct {
	RequestID string
	At        time.Time
	Own       bool // the person's, and not somebody else's
}

// An Explainer explains requests in one view of the store. What several of them
// need is read and worked out once.
type Explainer struct {
	v     *store.View
	roles map[serval.RoleKey]explained
	asked map[serval.RoleKey][]*serval.Request // everybody's for the role, the newest first
}

// An explained is a role with its documents and what it can do; nil where it is
// gone.
type explained struct {
	role *store.Role
	card *insight.Card
}

// Explaining returns what explains requests in v.
func Explaining(v *store.View) *Explainer {
	return &Explainer{v, map[serval.RoleKey]explained{}, map[serval.RoleKey][]*serval.Request{}}
}

// Explain returns what the role of r can do, and what changed since it was last
// approved, where before is what came before r; nil where the role is gone.
func (x *Explainer) Explain(r *serval.Request, before Earlier) (*Explained, error) {
	is, err := x.role(r.Role)
	if err != nil || is.role == nil {
		return nil, err
	}
	e := &Explained{Role: is.role, Card: is.card}
	basis, err := x.basis(r, before)
	if err != nil || basis == nil {
		return e, err
	}
	approved, err := x.v.ApprovedVersion(basis.ID)
	if serval.IsRefusal(err, serval.NotFound) {
		return e, nil
	}
	if err != nil {
		return nil, err
	}
	change, err := since(x.v, *is.role, approved.Version)
	if serval.IsRefusal(err, serval.NotFound) {
		return e, nil
	}
	if err != nil {
		return nil, err
	}
	e.Since, e.Basis = &change, Basis{RequestID: basis.ID, At: basis.Active().DecidedAt, Own: basis.PersonID == r.PersonID}
	return e, nil
}

// role returns the role with its documents and its card.
func (x *Explainer) role(key serval.RoleKey) (explained, error) {
	if known, ok := x.roles[key]; ok {
		return known, nil
	}
	var is explained
	role, err := x.v.RoleByKey(key)
	switch {
	case serval.IsRefusal(err, serval.NotFound):
	case err != nil:
		return is, err
	default:
		if err := x.v.FillDocuments(&role); err != nil {
			return is, err
		}
		is = explained{&role, Card(role)}
	}
	x.roles[key] = is
	return is, nil
}

// basis returns the request whose approval r is compared with; nil for none.
// Where r has ended without one there is nothing to decide and nothing to compare.
func (x *Explainer) basis(r *serval.Request, before Earlier) (*serval.Request, error) {
	approved := func(b *serval.Request) bool { return b.Active() != nil }
	switch {
	case approved(r):
		return r, nil
	case r.Asked() == nil:
		return nil, nil
	}
	if i := slices.IndexFunc(before.requests, approved); i >= 0 {
		return before.requests[i], nil
	}
	all, known := x.asked[r.Role]
	if !known {
		var err error
		if all, err = x.v.Requests(store.RequestFilter{RoleID: r.Role.RoleID, Limit: maxApproved}); err != nil {
			return nil, err
		}
		x.asked[r.Role] = all
	}
	i := slices.IndexFunc(all, func(b *serval.Request) bool {
		return approved(b) && b.Role == r.Role && b.Terms.Policy == r.Terms.Policy
	})
	if i < 0 {
		return nil, nil
	}
	return all[i], nil
}
