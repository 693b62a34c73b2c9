package edge

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// An away is a fault that passes.
type away string

func (a away) Error() string { return string(a) }
func (a away) Passing() bool { return a != "stays" }

// What took too long is no fault of the program's: whoever asked may try again.
func TestExplain(t *testing.T) {
	for _, test := range []struct {
		err    error
		status int
		code   string
	}{
		{serval.Refuse(serval.Denied, "no"), 403, "permission_denied"},
		{fmt.Errorf("beginning to write: %w", context.DeadlineExceeded), 503, "unavailable"},
		{errors.Join(serval.Refuse(serval.Conflict, "twice"), context.DeadlineExceeded), 409, "conflict"},
		{errors.New("CANARY"), 500, CodeInternal},
		{fmt.Errorf("beginning to read: %w", away("CANARY")), 503, "unavailable"},
		{fmt.Errorf("beginning to read: %w", away("stays")), 500, CodeInternal},
		{serval.Refuse("a kind of a later version", "no"), 500, CodeInternal},
		{Misfit{Status: 405, Kind: serval.Invalid, Reason: "no"}, 405, "invalid_argument"},
	} {
		status, e := Explain(test.err)
		if status != test.status || e.Code != test.code || e.Message == "CANARY" {
			t.Errorf("%v: %d %s %q, want %d %s", test.err, status, e.Code, e.Message, test.status, test.code)
		}
		if status == 503 && e.Detail["retry_after"] == "" {
			t.Errorf("%v: no time to try again", test.err)
		}
	}
}
