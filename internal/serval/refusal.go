package serval

import (
	"errors"
	"fmt"
	"slices"
)

// A Kind says what sort of refusal it is. Its text is the code of the API's
// error envelope; the HTTP statuses belong to the web room.
type Kind string

// The kinds of refusal.
const (
	Invalid            Kind = "invalid_argument"    // the request itself is wrong; sending it again will not help
	Unauthenticated    Kind = "unauthenticated"     // nobody is signed in
	LoginRequired      Kind = "login_required"      // signed in, but the ID token has ended: sign in again
	Denied             Kind = "permission_denied"   // known, and not allowed
	NotFound           Kind = "not_found"           // not there, or not for the one who asks
	Conflict           Kind = "conflict"            // the thing has moved on
	TooLarge           Kind = "too_large"           // more than is taken
	FailedPrecondition Kind = "failed_precondition" // right request, wrong state of the world
	Exhausted          Kind = "resource_exhausted"  // too often; later it works
	Unavailable        Kind = "unavailable"         // somebody we depend on is away; later it works
)

// A Refusal is an error written for the person who asked. Its reason is shown
// to them as it stands, so it says what to do and holds nothing secret. Every
// other error is a fault: logged once, at the edge, and shown as a plain
// apology.
type Refusal struct {
	Kind   Kind
	Reason string            // one or two sentences
	Detail map[string]string // facts beside the sentence, for programs; may be nil
}

// Error returns the reason.
func (r *Refusal) Error() string { return r.Reason }

// Refuse returns a refusal whose reason is formatted as by fmt.Sprintf.
func Refuse(kind Kind, format string, args ...any) error {
	return &Refusal{Kind: kind, Reason: fmt.Sprintf(format, args...)}
}

// IsRefusal reports whether err is a refusal of one of the kinds, or of any
// kind when none is named.
func IsRefusal(err error, kinds ...Kind) bool {
	r, ok := errors.AsType[*Refusal](err)
	if !ok {
		return false
	}
	return len(kinds) == 0 || slices.Contains(kinds, r.Kind)
}
