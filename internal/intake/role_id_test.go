package intake

import (
	"strings"
	"testing"
)

func TestIsRoleID(t *testing.T) {
	for text, want := range map[string]bool{
		"AROA": true, strings.Repeat("A", 128): true, "ARO": false, strings.Repeat("A", 129): false, "aroa": false, "AROA\n": false, "": false,
	} {
		if got := isRoleID(text); got != want {
			t.Errorf("%.20q of %d: %t, want %t", text, len(text), got, want)
		}
	}
}
