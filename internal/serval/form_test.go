package serval

import (
	"strings"
	"testing"
)

// A text of the least and of the most characters is taken, and none of one fewer or
// one more.
func TestLengths(t *testing.T) {
	of := func(n int) string { return strings.Repeat("a", n) }
	for name, test := range map[string]struct {
		takes       func(n int) bool
		least, most int
	}{
		"access key id": {func(n int) bool { return keyID.fits(of(n)) }, 16, 128},
		"verifier":      {func(n int) bool { return verifierForm.fits(of(n)) }, 43, 128},
		"challenge":     {func(n int) bool { return challengeForm.fits(of(n)) }, 43, 43},
		"state":         {func(n int) bool { return stateForm.fits(of(n)) }, 16, 128},
		"label":         {func(n int) bool { return labelForm.fits(of(n)) }, 1, 64},
		"service":       {func(n int) bool { return consoleService.fits(of(n)) }, 1, 40},
		"new role":      {func(n int) bool { return newRoleName.fits(of(n)) }, 1, 64},
		"role":          {func(n int) bool { _, err := ParseRoleARN("arn:aws:iam::111122223333:role/" + of(n)); return err == nil }, 1, 64},
		"caller": {func(n int) bool {
			_, err := ParseCallerARN("arn:aws:iam::111122223333:user/" + of(n))
			return err == nil
		}, 1, 600},
		"boundary": {func(n int) bool {
			faults := NewRole{PermissionsBoundary: "arn:aws:iam::aws:policy/" + of(n)}.Faults(Account{ID: "111122223333", Partition: "aws"})
			return !strings.Contains(strings.Join(faults, " "), "permissions_boundary")
		}, 1, 600},
	} {
		for n, want := range map[int]bool{test.least - 1: false, test.least: true, test.most: true, test.most + 1: false} {
			if got := test.takes(n); got != want {
				t.Errorf("%s of %d characters: taken %t, want %t", name, n, got, want)
			}
		}
	}
}
