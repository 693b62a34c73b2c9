// Package intake is what workers do at the control plane: they ask which accounts
// are theirs, claim the sync of one, and push what they read. It stands beside
// control, which is for people, behind the same door.
//
// A push is staged without holding the audit chain, compared with what is known, and
// swapped in. Only the generation that an account's last sync was opened with is
// taken, and nothing that is merely missing from an incomplete inventory is
// removed.
//
// A push that changes much is swapped in in parts, each short, so that whoever acts
// waits for one of them at the most: first what was seen untagged, then what is held,
// then what is new and what has changed, then what is gone, and with the last part the
// generation is accepted. Each part has an event of its own, of outcome started, and is done only
// while the push's generation is the account's last: what an older push brings never
// mixes in behind a newer one's. In between, each role is whole and as AWS showed it, and
// none is gone but what was seen to be. Where a push breaks off it is not accepted: what is
// swapped in by then is newer than the generation says, its events tell of it, and the
// next push, or the same again, finds it as it is and does the rest. A rule that counts
// what is missing counts against what was known when the push began. Where it breaks off
// the next counts against what is known then: what was to be held is held by that time,
// or counts for more, and no push confirms what it held itself, however late it comes
// again. What was to go may be held then.
//
// A push goes on a fraction of a millisecond at a time, and gives way to people between;
// see door.Passage.
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
	f func(tx *store.Tx, e *serval.Event) error, expect ...func(*store.Tx)) error {
	return t.door.Act(ctx, who, what, target, f, expect...)
}

// view runs f as who without writing. See door.View.
func (t *Intake) view(ctx context.Context, who serval.Principal, what serval.Action, target string,
	f func(v *store.View) error) error {
	return t.door.View(ctx, who, what, target, f)
}
