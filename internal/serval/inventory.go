package serval

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// The schemas of what a worker pushes.
const (
	InventorySchema = "serval.inventory/v1"
	DeltaSchema     = "serval.delta/v1"
)

// How an inventory was read.
const (
	ByRoles                = "roles"
	ByAuthorizationDetails = "authorization-details"
)

// An Inventory is all tagged roles of one account at one instant, or says that
// it is not all of them.
type Inventory struct {
	Schema      string    `json:"schema"`
	AccountID   string    `json:"account_id"`
	AccountName string    `json:"account_name"`
	Generation  int64     `json:"generation"` // 0 where nobody issued one
	StartedAt   time.Time `json:"started_at"`
	FinishedAt  time.Time `json:"finished_at"`
	Complete    bool      `json:"complete"`
	ReadBy      string    `json:"read_by"`

	Roles      []Role       `json:"roles"`
	Unreadable []Unreadable `json:"unreadable"`
	NearMisses []NearMiss   `json:"near_misses"`
	Problems   []Problem    `json:"problems"`

	// Untagged holds the ids of roles that the upstream knows and that a
	// successful GetRole showed without the tag. It is the difference between
	// "not listed" and "seen, and not ours any more".
	Untagged []string `json:"untagged,omitempty"`

	OIDCProvider *OIDCProvider `json:"oidc_provider,omitempty"` // nil where nobody asked
}

// An Unreadable is a role that could not be looked at. What was known of it
// stands.
type Unreadable struct {
	ARN    string `json:"arn"`
	RoleID string `json:"role_id"`
	Action string `json:"action"`
	Code   string `json:"code"`
}

// A NearMiss is a role whose owner may have meant to tag it.
type NearMiss struct {
	ARN    string `json:"arn"`
	TagKey string `json:"tag_key"`
}

// A Problem is an action of AWS's that went wrong while the account was read.
type Problem struct {
	Action  string `json:"action"`
	Target  string `json:"target"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Normalize gives lists one order and one form of emptiness, and times one
// zone, so that the same account read twice has the same bytes.
func (inv *Inventory) Normalize() {
	inv.Schema = cmp.Or(inv.Schema, InventorySchema)
	inv.StartedAt, inv.FinishedAt = inv.StartedAt.UTC(), inv.FinishedAt.UTC()
	for i := range inv.Roles {
		inv.Roles[i].normalize()
	}
	slices.SortFunc(inv.Roles, func(a, b Role) int { return cmp.Or(strings.Compare(a.ARN, b.ARN), strings.Compare(a.RoleID, b.RoleID)) })
	slices.SortFunc(inv.Unreadable, func(a, b Unreadable) int {
		return cmp.Or(strings.Compare(a.ARN, b.ARN), strings.Compare(a.RoleID, b.RoleID),
			strings.Compare(a.Action, b.Action), strings.Compare(a.Code, b.Code))
	})
	slices.SortFunc(inv.NearMisses, func(a, b NearMiss) int {
		return cmp.Or(strings.Compare(a.ARN, b.ARN), strings.Compare(a.TagKey, b.TagKey))
	})
	slices.SortFunc(inv.Problems, func(a, b Problem) int {
		return cmp.Or(strings.Compare(a.Action, b.Action), strings.Compare(a.Target, b.Target),
			strings.Compare(a.Code, b.Code), strings.Compare(a.Message, b.Message))
	})
	slices.Sort(inv.Untagged)
	inv.Roles = orEmpty(inv.Roles)
	inv.Unreadable = orEmpty(inv.Unreadable)
	inv.NearMisses = orEmpty(inv.NearMisses)
	inv.Problems = orEmpty(inv.Problems)
}

func orEmpty[S ~[]E, E any](s S) S {
	if s == nil {
		return S{}
	}
	return s
}

// The removal rule: where at least holdFrom roles were known and more than half
// of them are missing, they are held until a second complete inventory, begun at
// least holdFor later, misses them too or an admin confirms.
const (
	holdFrom = 5
	holdFor  = 30 * time.Minute
)

// Holds reports whether so many missing roles of so many known ones are held
// rather than removed.
func Holds(known, missing int) bool { return known >= holdFrom && 2*missing > known }

// A Known is what is remembered of one role of an account, as far as comparing
// needs it.
type Known struct {
	Key       RoleKey
	Digest    string
	Shown     string
	HeldSince time.Time // of a role whose removal is held; else zero
	Stale     bool      // its last state could not be confirmed
}

// A Seen is what comparing needs of one role of an inventory.
type Seen struct {
	Key    RoleKey
	Digest string
}

// A Sighting is what an inventory says about which roles there are. It is apart
// from the roles' documents so that a large inventory can be compared without
// holding it.
type Sighting struct {
	Complete   bool
	Roles      []Seen
	Unreadable []Unreadable
	Untagged   []string // role ids
}

// A Difference is what an inventory, or a delta, changes of what is known. Every
// role known before an inventory is in exactly one of Changed, Unchanged,
// Recreated, Untagged, Missing, Held and Stale.
type Difference struct {
	Added     []RoleKey
	Changed   []RoleKey
	Unchanged []RoleKey
	Fresh     []RoleKey // of the Unchanged: held or stale before, and confirmed now
	Recreated []RoleKey // removed: the ARN belongs to another role now
	Untagged  []RoleKey // removed: seen without the tag
	Missing   []RoleKey // removed: a complete inventory does not have them
	Held      []RoleKey // kept, not to be minted, until confirmed
	Stale     []Stale   // kept as they were
}

// A Stale is a known role whose state could not be confirmed, and why.
type Stale struct {
	Key    RoleKey
	Reason string
}

// Removed returns all that the difference removes.
func (d Difference) Removed() []RoleKey {
	return slices.Concat(d.Recreated, d.Untagged, d.Missing)
}

// IsEmpty reports whether nothing changes that anybody must be told of.
func (d Difference) IsEmpty() bool {
	return len(d.Added)+len(d.Changed)+len(d.Fresh)+len(d.Recreated)+len(d.Untagged)+len(d.Missing)+len(d.Held)+len(d.Stale) == 0
}

// confirm puts down a known role that was seen.
func (d *Difference) confirm(k Known, r Seen) {
	if r.Digest != k.Digest {
		d.Changed = append(d.Changed, k.Key)
		return
	}
	d.Unchanged = append(d.Unchanged, k.Key)
	if k.Stale || !k.HeldSince.IsZero() {
		d.Fresh = append(d.Fresh, k.Key)
	}
}

// Compare returns what an inventory, whose sync was opened at the instant, changes of
// what is known of its account. Unknown is never absent: only a complete inventory removes
// roles for being missing, and only a few at once; a role seen untagged goes at
// once, since untagging is its owner's kill switch.
func Compare(known []Known, seen Sighting, opened time.Time) Difference {
	var d Difference

	present := make(map[string]Seen, len(seen.Roles)) // by role id
	holder := make(map[string]string, len(seen.Roles))
	for _, r := range seen.Roles {
		present[r.Key.RoleID] = r
		holder[r.Key.ARN] = r.Key.RoleID
	}
	untagged := make(map[string]bool, len(seen.Untagged))
	for _, id := range seen.Untagged {
		untagged[id] = true
	}
	unreadable := make(map[string]Unreadable, 2*len(seen.Unreadable))
	for _, u := range seen.Unreadable {
		unreadable[u.ARN] = u
		if u.RoleID != "" {
			unreadable[u.RoleID] = u
			if u.ARN != "" {
				holder[u.ARN] = u.RoleID
			}
		}
	}

	knownIDs := make(map[string]bool, len(known))
	var missing []Known
	for _, k := range known {
		knownIDs[k.Key.RoleID] = true
		if r, ok := present[k.Key.RoleID]; ok {
			d.confirm(k, r)
			continue
		}
		if untagged[k.Key.RoleID] {
			d.Untagged = append(d.Untagged, k.Key)
			continue
		}
		if other, taken := holder[k.Key.ARN]; taken && other != k.Key.RoleID {
			d.Recreated = append(d.Recreated, k.Key)
			continue
		}
		u, ok := unreadable[k.Key.RoleID]
		if !ok {
			u, ok = unreadable[k.Key.ARN]
		}
		switch {
		case ok:
			d.Stale = append(d.Stale, Stale{k.Key, u.Action + " answered " + u.Code})
		case !seen.Complete:
			d.Stale = append(d.Stale, Stale{k.Key, "the last inventory of the account was incomplete"})
		default:
			missing = append(missing, k)
		}
	}
	for _, r := range seen.Roles {
		if !knownIDs[r.Key.RoleID] {
			knownIDs[r.Key.RoleID] = true // listed twice, it is added once
			d.Added = append(d.Added, r.Key)
		}
	}

	hold := Holds(len(known), len(missing))
	for _, k := range missing {
		confirmed := !k.HeldSince.IsZero() && opened.Sub(k.HeldSince) >= holdFor
		if (hold || !k.HeldSince.IsZero()) && !confirmed {
			d.Held = append(d.Held, k.Key)
		} else {
			d.Missing = append(d.Missing, k.Key)
		}
	}
	return d
}
