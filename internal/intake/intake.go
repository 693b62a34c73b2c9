// Package intake is what workers do at the control plane: they ask which accounts
// are theirs, claim the sync of one, and push what they read. It stands beside
// control, which is for people, behind the same door.
//
// A push is staged without holding the audit chain and swapped in in one short
// transaction. Only the generation that an account's last sync was opened with is
// taken, and nothing that is merely missing from an incomplete inventory is
// removed.
package intake

import (
	"context"
	"sync"

	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// An Intake takes in what workers bring. It is safe for concurrent use.
type Intake struct {
	door    *door.Door
	telling sync.Mutex     // held by whoever tells of changed roles
	told    serval.RoleKey // the last role that was looked at for that; guarded by telling
}

// New returns an Intake behind d.
func New(d *door.Door) *Intake { return &Intake{door: d} }

// act runs f as who and records what happened: both, or neither. See door.Act.
func (t *Intake) act(ctx context.Context, who serval.Principal, what serval.Action, target string,
	f func(tx *store.Tx, e *serval.Event) error) error {
	return t.door.Act(ctx, who, what, target, f)
}

// view runs f as who without writing. See door.View.
func (t *Intake) view(ctx context.Context, who serval.Principal, what serval.Action, target string,
	f func(v *store.View) error) error {
	return t.door.View(ctx, who, what, target, f)
}
