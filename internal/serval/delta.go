package serval

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// A SyncKind says how much of its account a sync looks at.
type SyncKind string

// The kinds of sync.
const (
	SyncFull  SyncKind = "full"  // every role: an Inventory
	SyncDelta SyncKind = "delta" // what is new, what is gone, and some of the rest: a Delta
)

// A KnownRole is a role as the upstream lists it to the worker that opens a sync
// of its account: enough to tell what is worth sending.
type KnownRole struct {
	RoleID string `json:"role_id"`
	ARN    string `json:"arn"`
	// Digest is that of the role as it was taken in, and Shown that of what
	// GetRole alone shows of it. Both are empty where the role's state is in
	// doubt, so that whoever reads it sends it.
	Digest string `json:"digest"`
	Shown  string `json:"shown"`
}

// Role returns the known role as its worker needs it.
func (k Known) Role() KnownRole {
	r := KnownRole{RoleID: k.Key.RoleID, ARN: k.Key.ARN}
	if !k.Stale && k.HeldSince.IsZero() {
		r.Digest, r.Shown = k.Digest, k.Shown
	}
	return r
}

// A Delta is what changed in an account since it was last looked at, as far as
// was looked. It removes what it names, with what was seen, and says nothing of
// roles that it does not name.
type Delta struct {
	Schema      string    `json:"schema"`
	AccountID   string    `json:"account_id"`
	AccountName string    `json:"account_name"`
	Generation  int64     `json:"generation"`
	StartedAt   time.Time `json:"started_at"`
	FinishedAt  time.Time `json:"finished_at"`
	Complete    bool      `json:"complete"` // the listing was whole, and all that was looked at could be read
	ReadBy      string    `json:"read_by"`

	Roles      []Role       `json:"roles"`
	Removed    []Removal    `json:"removed"`
	Unreadable []Unreadable `json:"unreadable"`
	NearMisses []NearMiss   `json:"near_misses"`
	Problems   []Problem    `json:"problems"`
}

// Why a delta removes a role.
const (
	RemovedUntagged = "untagged" // a successful GetRole showed no tag
	RemovedDeleted  = "deleted"  // GetRole answered NoSuchEntity, or another role under the ARN

	RemovedDisconnected = "disconnected" // with its account; no worker says so
)

// A Removal is a role that a delta removes, with what was seen.
type Removal struct {
	RoleID string `json:"role_id"`
	ARN    string `json:"arn"`
	Reason string `json:"reason"`
}

// Normalize is as that of an Inventory.
func (d *Delta) Normalize() {
	inv := Inventory{
		Schema: DeltaSchema, StartedAt: d.StartedAt, FinishedAt: d.FinishedAt,
		Roles: d.Roles, Unreadable: d.Unreadable, NearMisses: d.NearMisses, Problems: d.Problems,
	}
	inv.Normalize()
	d.Schema, d.StartedAt, d.FinishedAt = cmp.Or(d.Schema, DeltaSchema), inv.StartedAt, inv.FinishedAt
	d.Roles, d.Unreadable, d.NearMisses, d.Problems = inv.Roles, inv.Unreadable, inv.NearMisses, inv.Problems
	slices.SortFunc(d.Removed, func(a, b Removal) int {
		return cmp.Or(strings.Compare(a.ARN, b.ARN), strings.Compare(a.RoleID, b.RoleID), strings.Compare(a.Reason, b.Reason))
	})
	d.Removed = orEmpty(d.Removed)
}

// CompareDelta returns what a delta changes of what is known of its account. A
// known role that the delta does not name is in none of the difference's lists.
// Whatever it names it has looked at, so that nothing is held: a role that was
// deleted is Missing. The other ways of a role to go are those of Compare. A
// delta that has a role and removes it is refused.
func CompareDelta(known []Known, seen []Seen, removed []Removal) (Difference, error) {
	var d Difference
	present := make(map[string]Seen, len(seen)) // by role id
	holder := make(map[string]string, len(seen))
	for _, r := range seen {
		present[r.Key.RoleID] = r
		holder[r.Key.ARN] = r.Key.RoleID
	}
	named := make(map[string]Removal, len(removed))
	for _, r := range removed {
		if _, ok := present[r.RoleID]; ok {
			return Difference{}, Refuse(Invalid, "The delta both has the role %s and removes it.", r.RoleID)
		}
		if before, ok := named[r.RoleID]; ok && before != r {
			return Difference{}, Refuse(Invalid, "The delta removes the role %s twice, and differently.", r.RoleID)
		}
		named[r.RoleID] = r
	}
	isKnown := make(map[string]bool, len(known))
	for _, k := range known {
		isKnown[k.Key.RoleID] = true
		if r, ok := present[k.Key.RoleID]; ok {
			d.confirm(k, r)
			continue
		}
		if _, taken := holder[k.Key.ARN]; taken {
			d.Recreated = append(d.Recreated, k.Key)
			continue
		}
		r, ok := named[k.Key.RoleID]
		switch {
		case !ok || r.ARN != k.Key.ARN:
		case r.Reason == RemovedUntagged:
			d.Untagged = append(d.Untagged, k.Key)
		case r.Reason == RemovedDeleted:
			d.Missing = append(d.Missing, k.Key)
		}
	}
	for _, r := range seen {
		if !isKnown[r.Key.RoleID] {
			d.Added = append(d.Added, r.Key)
		}
	}
	return d, nil
}
