package serval

import (
	"strings"
	"time"
	"unicode/utf8"
)

// STS's bounds of DurationSeconds for AssumeRoleWithWebIdentity, in seconds
// (STS API Reference). The upper one is the role's own maximum, at most
// MaxSessionSeconds.
const (
	MinSessionSeconds = 900
	MaxSessionSeconds = 43200
)

// STS's bounds of RoleSessionName (STS API Reference).
const (
	minSessionName = 2
	maxSessionName = 64
)

// SessionName returns the AWS session name of a person: the email, each
// character outside [\w+=,.@-] as one hyphen, cut to 64 characters. It is what
// CloudTrail shows; two emails may share it, so the audit log keeps the whole.
func SessionName(email string) string {
	var name strings.Builder
	for rest := email; rest != "" && name.Len() < maxSessionName; {
		r, size := utf8.DecodeRuneInString(rest)
		rest = rest[size:]
		if r < utf8.RuneSelf && (isAlphanumeric(r) || strings.ContainsRune("_+=,.@-", r)) {
			name.WriteByte(byte(r))
		} else {
			name.WriteByte('-')
		}
	}
	for name.Len() < minSessionName {
		name.WriteByte('-')
	}
	return name.String()
}

// IsSessionName reports whether AWS takes name as a RoleSessionName: 2 to 64
// characters of [\w+=,.@-] (STS API Reference).
func IsSessionName(name string) bool {
	return len(name) >= minSessionName && len(name) <= maxSessionName && SessionName(name) == name
}

// SessionLength returns the DurationSeconds to ask STS for: what remains of the
// grant, at most the role's maximum and the limit, at least 900, never rounded
// up. An unknown role maximum (0) counts as 3,600; a limit of 0 is none. A length
// beyond what remains is ended by the session policy, not by the credentials.
func SessionLength(remains time.Duration, roleMaxSeconds int, limit time.Duration) int {
	if roleMaxSeconds <= 0 {
		roleMaxSeconds = DefaultMaxSessionSeconds
	}
	seconds := min(int64(remains/time.Second), int64(roleMaxSeconds), MaxSessionSeconds)
	if limit > 0 {
		seconds = min(seconds, int64(limit/time.Second))
	}
	return int(max(seconds, MinSessionSeconds))
}

// A Grant is approved time that can be used: a request's active allocation and
// its clock. It is a view of the request and has no life of its own.
type Grant struct {
	Minutes        int
	ClockStartedAt time.Time // zero while no session was opened
	EndsAt         time.Time // zero while the clock stands
}

// Grant returns the request's grant; ok is false where there is none.
func (r *Request) Grant() (g Grant, ok bool) {
	a := r.Active()
	if r.Status != StatusApproved || a == nil {
		return Grant{}, false
	}
	return Grant{a.Minutes, r.ClockStartedAt, r.EndsAt}, true
}

// Remains returns how long sessions opened at now may last. While the clock
// stands that is all of the approved time.
func (g Grant) Remains(now time.Time) time.Duration {
	if g.ClockStartedAt.IsZero() {
		return time.Duration(g.Minutes) * time.Minute
	}
	return max(0, g.EndsAt.Sub(now))
}

// End returns the instant at which a session opened at now has to stop, in
// whole seconds as AWS compares them, and never after the grant's end.
func (g Grant) End(now time.Time) time.Time {
	if g.ClockStartedAt.IsZero() {
		return now.Add(time.Duration(g.Minutes) * time.Minute).Truncate(time.Second)
	}
	return g.EndsAt.Truncate(time.Second)
}

// CheckMint refuses a session under the request at now, with the reason.
func (r *Request) CheckMint(now time.Time) error {
	if err := r.check(ActMint, now, Requester); err != nil {
		return err
	}
	if now.Before(r.StartAt) {
		return Refuse(FailedPrecondition, "This access is approved from %s on; it cannot be used before.", clock(r.StartAt))
	}
	return nil
}

// StartClock starts the clock of a grant whose first session STS opened at
// start: its Expiration less the duration that was asked. A clock that already
// runs is left alone, so that it starts exactly once. It reports whether it
// started.
func (r *Request) StartClock(start time.Time) (started bool) {
	g, ok := r.Grant()
	if !ok || !r.ClockStartedAt.IsZero() {
		return false
	}
	r.ClockStartedAt = start
	r.EndsAt = start.Add(time.Duration(g.Minutes) * time.Minute)
	return true
}

// clock writes an instant for a sentence.
func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
