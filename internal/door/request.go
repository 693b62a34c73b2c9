package door

import (
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// FailRequests ends the requests for roles that will never be there again and
// that nobody used yet. What runs goes on to its end; no session opens.
func (d *Door) FailRequests(tx *store.Tx, gone []serval.RoleKey) error {
	for _, key := range gone {
		requests, err := tx.RequestsOfRole(key)
		if err != nil {
			return err
		}
		for _, r := range requests {
			act, err := r.Fail(serval.System(), tx.Now)
			if serval.IsRefusal(err) {
				continue // running, or due to end by itself
			}
			if err != nil {
				return err
			}
			if err := tx.SaveRequest(r); err != nil {
				return err
			}
			e := Event(serval.System(), act, r.ID, serval.OutcomeDone)
			e.Detail = r.Facts()
			e.Reason = "its role is gone"
			if err := d.TellOf(tx, serval.System(), act, r, e.Reason); err != nil {
				return err
			}
			if err := tx.Append(e); err != nil {
				return err
			}
		}
	}
	return nil
}
