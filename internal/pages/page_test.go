package pages

import (
	"testing"

	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// What to do is said once.
func TestAdvice(t *testing.T) {
	for _, test := range []struct {
		message string
		way     Way
		want    string
	}{
		{"The database is away.", Way{}, "Try again in a minute."},
		{"The identity provider does not answer. Try again in a minute.", Way{}, ""},
		{"Try again in a minute. If it stays, tell an admin.", Way{}, "Try again in a minute."},
		{"The identity provider does not answer. Try again in a minute.", Way{Next: "Sign in again."}, "Sign in again."},
	} {
		if got := advice(wire.Error{Code: "unavailable", Message: test.message}, test.way); got != test.want {
			t.Errorf("%q: %q, want %q", test.message, got, test.want)
		}
	}
}
