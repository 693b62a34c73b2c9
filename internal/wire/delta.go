package wire

import (
	"encoding/json"
	"io"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// WriteDelta writes a delta as WriteInventory does an inventory.
func WriteDelta(w io.Writer, delta serval.Delta) error {
	roles := delta.Roles
	delta.Roles = []serval.Role{}
	return writeRoles(w, delta, roles)
}

// ReadDelta reads a delta as ReadInventory does an inventory, by the same bounds
// and with the same errors. A removal that names no role, or no reason that
// there is, is refused too. A delta says nothing of what it does not name, so what
// it may leave out takes nothing away: without complete it counts as incomplete.
func ReadDelta(r io.Reader, role func(serval.Role) error) (serval.Delta, error) {
	var delta serval.Delta
	err := readPush(r, push{
		what: "a delta", schema: serval.DeltaSchema, most: MaxInventoryBytes, mostRole: MaxRoleBytes,
		head: head{
			&delta.Schema, &delta.AccountID, &delta.AccountName, &delta.Generation,
			&delta.StartedAt, &delta.FinishedAt, &delta.Complete, &delta.ReadBy,
		},
		role: role,
		lists: map[string]func(*json.Decoder, *source) error{
			"removed": func(d *json.Decoder, src *source) (err error) {
				delta.Removed, err = readRemovals(d, src)
				return err
			},
			"unreadable":  listInto(&delta.Unreadable, "unreadable", textsOfUnreadable),
			"near_misses": listInto(&delta.NearMisses, "near_misses", textsOfNearMiss),
			"problems":    listInto(&delta.Problems, "problems", textsOfProblem),
		},
		optional: []string{"account_name", "complete", "read_by", "unreadable", "near_misses", "problems"},
	})
	if err != nil {
		return serval.Delta{}, err
	}
	return delta, nil
}

func readRemovals(d *json.Decoder, src *source) ([]serval.Removal, error) {
	list, err := readList(d, src, "removed", func(r serval.Removal) []string { return []string{r.RoleID, r.ARN, r.Reason} })
	if err != nil {
		return nil, err
	}
	for i, r := range list {
		switch {
		case r.RoleID == "" || r.ARN == "":
			return nil, src.explain("removed[%d] names no role: it has a role_id and an arn", i)
		case r.Reason != serval.RemovedUntagged && r.Reason != serval.RemovedDeleted:
			return nil, src.explain("removed[%d]: the reason is %q, not %q or %q", i, clip(r.Reason), serval.RemovedUntagged, serval.RemovedDeleted)
		}
	}
	return list, nil
}
