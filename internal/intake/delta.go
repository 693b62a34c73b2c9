package intake

import (
	"context"
	"fmt"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// PushDelta takes in a delta of an account as Push does an inventory, by the same
// generations. It removes the roles that it names, adds and changes those that it
// has, and leaves all others, and what the last full sync said of the account,
// as they are. A delta that writes no role leaves no event: it ends the claim and
// notes when the account was looked at.
func (t *Intake) PushDelta(ctx context.Context, who serval.Principal, accountID string,
	read func(role func(serval.Role) error) (delta serval.Delta, digest string, err error)) (Pushed, error) {
	var delta serval.Delta
	return t.take(ctx, who, accountID, push{
		what: serval.DeltaAccept, noun: "delta",
		read: func(account serval.Account, role func(serval.Role) error) (h head, err error) {
			if delta, h.digest, err = read(role); err != nil {
				return h, err
			}
			h.accountID, h.generation = delta.AccountID, delta.Generation
			for _, r := range delta.Removed {
				if _, err := checkIdentity(r.ARN, r.RoleID, account); err != nil {
					return h, err
				}
			}
			return h, nil
		},
		compare: func(known []serval.Known, staged []serval.Seen, _ time.Time) (serval.Difference, error) {
			return serval.CompareDelta(known, staged, delta.Removed)
		},
		accept: func(tx *store.Tx, digest, answer string) error { return tx.AcceptDelta(delta, digest, answer) },
		detail: func(roles int, d serval.Difference, written bool) map[string]string {
			if !written {
				return nil
			}
			detail := map[string]string{
				"generation": fmt.Sprint(delta.Generation), "complete": fmt.Sprint(delta.Complete), "read_by": serval.Cut(delta.ReadBy, maxAction),
				"roles": fmt.Sprint(roles), "unreadable": fmt.Sprint(len(delta.Unreadable)), "problems": fmt.Sprint(len(delta.Problems)),
			}
			describe(detail, d, maxNamed)
			return detail
		},
	})
}
