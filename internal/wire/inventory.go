package wire

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// The bounds of a pushed inventory.
const (
	MaxInventoryBytes = 256 << 20 // of the whole body, uncompressed
	MaxRoleBytes      = 8 << 20   // of one role
)

// WriteInventory writes inv as one JSON object, role by role, so that the
// peak is one role's text. Documents keep their bytes: nothing is escaped for
// HTML. The caller has normalized inv.
func WriteInventory(w io.Writer, inv serval.Inventory) error {
	b := bufio.NewWriter(w)
	roles := inv.Roles
	inv.Roles = []serval.Role{}
	head, err := encode(inv)
	if err != nil {
		return err
	}
	before, after, found := bytes.Cut(head, []byte(`"roles":[]`))
	if !found {
		return fmt.Errorf("wire: an inventory has no roles field")
	}
	b.Write(before)
	b.WriteString(`"roles":[`)
	for i, r := range roles {
		if i > 0 {
			b.WriteByte(',')
		}
		text, err := encode(r)
		if err != nil {
			return fmt.Errorf("encoding role %s: %w", r.ARN, err)
		}
		b.Write(text)
	}
	b.WriteByte(']')
	b.Write(after)
	b.WriteByte('\n')
	return b.Flush() // reports the first error of all writes
}

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// ReadInventory reads one inventory and hands each of its roles to role as it
// comes, so that the peak is one role. It returns the inventory without its
// roles. Fields may come in any order, so the roles may come before the account
// they belong to: keep them aside until ReadInventory has returned.
//
// What is not an inventory is refused with what is wrong: an unknown or
// repeated field, another schema, a value of the wrong type, text behind the
// end. An error of role is returned as it is.
func ReadInventory(r io.Reader, role func(serval.Role) error) (serval.Inventory, error) {
	var inv serval.Inventory
	refuse := func(format string, args ...any) (serval.Inventory, error) {
		return serval.Inventory{}, serval.Refuse(serval.Invalid, "Not an inventory: "+format+".", args...)
	}
	d := json.NewDecoder(r)
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return refuse("it does not begin as a JSON object")
	}
	fields := map[string]any{
		"schema": &inv.Schema, "account_id": &inv.AccountID, "account_name": &inv.AccountName,
		"generation": &inv.Generation, "started_at": &inv.StartedAt, "finished_at": &inv.FinishedAt,
		"complete": &inv.Complete, "read_by": &inv.ReadBy, "unreadable": &inv.Unreadable,
		"near_misses": &inv.NearMisses, "problems": &inv.Problems, "untagged": &inv.Untagged,
	}
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		name, isName := t.(string)
		if err != nil || !isName {
			return refuse("its JSON breaks off or is malformed")
		}
		if seen[name] {
			return refuse("field %q comes twice", clip(name))
		}
		seen[name] = true
		if name == "roles" {
			if err := readRoles(d, role); err != nil {
				return serval.Inventory{}, err
			}
			continue
		}
		into, known := fields[name]
		if !known {
			return refuse("field %q is not known", clip(name))
		}
		if err := d.Decode(into); err != nil {
			return refuse("field %q: %s", name, clip(err.Error()))
		}
	}
	if _, err := d.Token(); err != nil {
		return refuse("its JSON breaks off")
	}
	if _, err := d.Token(); err != io.EOF {
		return refuse("something stands behind its end")
	}
	for _, name := range []string{"schema", "account_id", "generation", "started_at", "finished_at", "complete", "roles"} {
		if !seen[name] {
			return refuse("field %q is missing", name)
		}
	}
	if inv.Schema != serval.InventorySchema {
		return refuse("its schema is %q, not %q", clip(inv.Schema), serval.InventorySchema)
	}
	return inv, nil
}

func readRoles(d *json.Decoder, role func(serval.Role) error) error {
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return serval.Refuse(serval.Invalid, "Not an inventory: roles is not a list.")
	}
	for n := 0; d.More(); n++ {
		var text json.RawMessage
		if err := d.Decode(&text); err != nil {
			return serval.Refuse(serval.Invalid, "Not an inventory: roles[%d] breaks off or is malformed.", n)
		}
		if len(text) > MaxRoleBytes {
			return serval.Refuse(serval.TooLarge, "roles[%d] has %d bytes; at most %d are taken.", n, len(text), MaxRoleBytes)
		}
		var r serval.Role
		strict := json.NewDecoder(bytes.NewReader(text))
		strict.DisallowUnknownFields()
		if err := strict.Decode(&r); err != nil {
			return serval.Refuse(serval.Invalid, "Not an inventory: roles[%d]: %s.", n, clip(err.Error()))
		}
		if err := role(r); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return serval.Refuse(serval.Invalid, "Not an inventory: roles breaks off.")
	}
	return nil
}

func clip(text string) string {
	if len(text) > 200 {
		return text[:200] + "…"
	}
	return text
}
