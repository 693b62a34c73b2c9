package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

func testDelta() serval.Delta {
	inv := testInventory()
	d := serval.Delta{
		AccountID: inv.AccountID, AccountName: inv.AccountName, Generation: 8, StartedAt: inv.StartedAt, FinishedAt: inv.FinishedAt,
		Complete: true, ReadBy: inv.ReadBy, Roles: inv.Roles, Unreadable: inv.Unreadable, NearMisses: inv.NearMisses, Problems: inv.Problems,
		Removed: []serval.Removal{
			{RoleID: "AROA5", ARN: roleARN + "5", Reason: serval.RemovedUntagged}, {RoleID: "AROA6", ARN: roleARN + "6", Reason: serval.RemovedDeleted},
		},
	}
	d.Normalize()
	return d
}

func writtenDelta(t testing.TB, d serval.Delta) string {
	t.Helper()
	var b bytes.Buffer
	if err := WriteDelta(&b, d); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// collectDelta reads a delta with its roles.
func collectDelta(r io.Reader) (serval.Delta, error) {
	var roles []serval.Role
	d, err := ReadDelta(r, func(r serval.Role) error { roles = append(roles, r); return nil })
	d.Roles = roles
	return d, err
}

func TestDelta_golden(t *testing.T) {
	text := writtenDelta(t, testDelta())
	golden(t, "delta.json", pretty(t, rawText(text)))
	back, err := collectDelta(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(testDelta(), back); diff != "" {
		t.Errorf("it does not come back as it was (-want +got):\n%s", diff)
	}
}

const smallDelta = `{"schema":"serval.delta/v1","account_id":"1","account_name":"prod","generation":2,"started_at":"2026-01-05T09:00:00Z",` +
	`"finished_at":"2026-01-05T09:00:00Z","complete":true,"read_by":"roles","roles":[{"arn":"a","tags":{"serval":""}}],` +
	`"removed":[{"role_id":"AROA1","arn":"a","reason":"deleted"}],"unreadable":[],"near_misses":[],"problems":[]}`

func TestReadDelta_refuses(t *testing.T) {
	replace := func(old, new string) string {
		if !strings.Contains(smallDelta, old) {
			t.Fatalf("the sample has no %s", old)
		}
		return strings.Replace(smallDelta, old, new, 1)
	}
	if d, err := collectDelta(strings.NewReader(smallDelta)); err != nil || len(d.Roles) != 1 || len(d.Removed) != 1 || d.Generation != 2 {
		t.Fatalf("the sample: got %+v, %v", d, err)
	}
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "", "Not a delta: it does not begin"},
		{"an inventory", replace("serval.delta/v1", "serval.inventory/v1"), `its schema is "serval.inventory/v1", not "serval.delta/v1"`},
		{"an inventory's list", replace(`"problems":[]`, `"problems":[],"untagged":[]`), `field "untagged" is not known`},
		{"removals that are no list", replace(`[{"role_id":"AROA1","arn":"a","reason":"deleted"}]`, `null`), "removed is not a list"},
		{"an unknown field of one", replace(`"reason":"deleted"`, `"reason":"deleted","x":1`), `removed[0]: json: unknown field "x"`},
		{"a removal without id", replace(`"role_id":"AROA1"`, `"role_id":""`), "removed[0] names no role"},
		{"a removal without ARN", replace(`"AROA1","arn":"a"`, `"AROA1"`), "removed[0] names no role"},
		{"a removal without reason", replace(`,"reason":"deleted"`, ``), `removed[0]: the reason is "", not "untagged" or "deleted"`},
		{"another reason", replace(`"deleted"`, `"missing"`), `removed[0]: the reason is "missing"`},
		{"a removal that is null", replace(`[{"role_id":"AROA1","arn":"a","reason":"deleted"}]`, `[null]`), "removed[0] is null"},
		{"a text too long", replace(`"AROA1"`, `"`+strings.Repeat("A", MaxText+1)+`"`), "removed[0]: a text of it"},
		{"something behind it", smallDelta + "x", "something stands behind its end"},
	} {
		_, err := collectDelta(strings.NewReader(c.text))
		if kindOf(err) != serval.Invalid || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want it refused as %q", c.name, err, c.want)
		}
	}
	// A delta says nothing of what it does not name; what it says is said whole.
	for name, may := range map[string]bool{
		"schema": false, "account_id": false, "generation": false, "started_at": false, "finished_at": false, "roles": false, "removed": false,
		"account_name": true, "complete": true, "read_by": true, "unreadable": true, "near_misses": true, "problems": true,
	} {
		var fields map[string]json.RawMessage
		if err := json.Unmarshal([]byte(smallDelta), &fields); err != nil {
			t.Fatal(err)
		}
		delete(fields, name)
		short, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		delta, err := collectDelta(bytes.NewReader(short))
		switch {
		case may && err != nil:
			t.Errorf("without %s: got %v, want it read", name, err)
		case !may && (err == nil || !strings.Contains(err.Error(), fmt.Sprintf("field %q is missing", name))):
			t.Errorf("without %s: got %v, want that it is missing", name, err)
		case name == "complete" && delta.Complete:
			t.Error("a delta that does not say that it is complete is taken to be")
		}
	}
}

func TestReadDelta_bounds(t *testing.T) {
	many := strings.Replace(smallDelta, `{"role_id":"AROA1","arn":"a","reason":"deleted"}`,
		strings.TrimSuffix(strings.Repeat(`{"role_id":"A","arn":"a","reason":"deleted"},`, MaxEntries+1), ","), 1)
	if _, err := collectDelta(strings.NewReader(many)); kindOf(err) != serval.TooLarge || !strings.Contains(err.Error(), "The delta is too large: removed") {
		t.Errorf("more than %d removals: got %v", MaxEntries, err)
	}
	large := strings.Replace(smallDelta, `"arn":"a","tags"`, `"arn":"`+strings.Repeat("a", MaxRoleBytes+1)+`","tags"`, 1)
	if _, err := collectDelta(strings.NewReader(large)); kindOf(err) != serval.TooLarge {
		t.Errorf("a role of more than %d bytes: got %v", MaxRoleBytes, err)
	}
	broken := errors.New("reset")
	if _, err := collectDelta(io.MultiReader(strings.NewReader(smallDelta[:100]), failing{broken})); !errors.Is(err, broken) || serval.IsRefusal(err) {
		t.Errorf("a connection that broke: got %v, want the fault", err)
	}
}

func FuzzReadDelta(f *testing.F) { // T-1
	f.Add([]byte(smallDelta))
	f.Add([]byte(writtenDelta(f, testDelta())))
	f.Add([]byte(strings.Replace(smallDelta, `"deleted"`, `"untagged"`, 1)))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := collectDelta(bytes.NewReader(text))
		if err != nil {
			if !serval.IsRefusal(err, serval.Invalid, serval.TooLarge) {
				t.Fatalf("got %v, want it refused", err)
			}
			return
		}
		d.Normalize()
		back, err := collectDelta(strings.NewReader(writtenDelta(t, d)))
		if err != nil {
			t.Fatalf("written and read again: %v", err)
		}
		back.Normalize()
		if diff := cmp.Diff(d, back); diff != "" {
			t.Errorf("it does not come back as it was (-want +got):\n%s", diff)
		}
	})
}
