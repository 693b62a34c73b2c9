package serval

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// A Person is somebody who has signed in. A person is recognised by issuer and
// subject alone (OpenID Connect Core 1.0, section 5.7); the email is shown,
// names the AWS session, and must stay the same.
type Person struct {
	ID      string
	Issuer  string
	Subject string
	Email   string // as the provider wrote it; compare with SameEmail

	Groups     []string  // as of GroupsAt
	GroupsAt   time.Time // the login or refresh the groups were read from
	GroupsNote string    // why groups are missing; empty where they are not

	// AuthorizedParty is the claim azp of the ID token that the groups were read
	// with; empty where it has none. AWS compares it in place of the audience.
	AuthorizedParty string

	// Suspended says why this person may open no session until an admin links
	// the two identities again; empty for everybody else.
	Suspended string
	NewEmail  string // that the provider says now, where that is why
	CreatedAt time.Time
}

// IsInGroup reports whether the person was in group at GroupsAt. Group names
// are compared exactly.
func (p Person) IsInGroup(group string) bool { return slices.Contains(p.Groups, group) }

// PrincipalKind tells who can act.
type PrincipalKind string

// Who can act.
const (
	KindNobody PrincipalKind = "nobody" // not signed in
	KindPerson PrincipalKind = "person"
	KindWorker PrincipalKind = "worker"
	KindSystem PrincipalKind = "system" // the control plane itself: time passing
)

// A Principal is who acts: a person, a worker, or the control plane as time
// passes. The zero value is nobody.
type Principal struct {
	Kind    PrincipalKind
	Person  Person   // of a person
	LoginID string   // the login a person acts under
	Admin   bool     // a person whom the configuration names as admin
	Auditor bool     // a person whom the configuration names as auditor
	Worker  string   // name of a worker
	Bound   []string // the account ids that a worker may push; nil means all

	Claim     string // of the write that this is done under, where it may be sent again
	RequestID string // of the HTTP request, for the audit row
	Address   string // network address the act came from, for the audit row
}

// Name returns who acted in the words of the audit log: an email, a worker's
// name, system or nobody.
func (p Principal) Name() string {
	switch p.Kind {
	case KindPerson:
		return p.Person.Email
	case KindWorker:
		return p.Worker
	case KindSystem:
		return "system"
	default:
		return "nobody"
	}
}

// System is the principal for what happens as time passes.
func System() Principal { return Principal{Kind: KindSystem} }

// MayPush reports whether the principal is a worker that was given the account.
func (p Principal) MayPush(accountID string) bool {
	return p.Kind == KindWorker && (p.Bound == nil || slices.Contains(p.Bound, accountID))
}

// The longest parts of an email address (RFC 5321 section 4.5.3.1).
const (
	maxEmailLocal  = 64
	maxEmailDomain = 255
)

// ParseEmail returns address if it fits one strict ASCII grammar: dot-separated
// atoms, exactly one @, dot-separated host labels. Quoted local parts, display
// names, comments, spaces, controls and everything beyond ASCII are refused:
// two addresses that look alike must not be taken for one another.
func ParseEmail(address string) (string, error) {
	refuse := func(why string) (string, error) {
		return "", Refuse(Invalid, "%q is not a usable email address: %s.", Clip(address, 80), why)
	}
	local, domain, found := strings.Cut(address, "@")
	switch {
	case !found:
		return refuse("it has no @")
	case strings.Contains(domain, "@"):
		return refuse("it has more than one @")
	case local == "" || domain == "":
		return refuse("one side of the @ is empty")
	case len(local) > maxEmailLocal || len(domain) > maxEmailDomain:
		return refuse("it is too long")
	}
	for atom := range strings.SplitSeq(local, ".") {
		if atom == "" {
			return refuse("a dot stands where a letter should")
		}
		if i := strings.IndexFunc(atom, func(r rune) bool { return !isAtom(r) }); i >= 0 {
			return refuse("it has a character that is not allowed before the @")
		}
	}
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return refuse("its domain is not a host name")
		}
		if i := strings.IndexFunc(label, func(r rune) bool { return !isAlphanumeric(r) && r != '-' }); i >= 0 {
			return refuse("its domain is not a host name")
		}
	}
	return address, nil
}

// SameEmail reports whether two addresses differ at most in the case of ASCII
// letters. Unicode case folding is not used: it would take U+212A (the Kelvin
// sign) for k.
func SameEmail(a, b string) bool { return FoldEmail(a) == FoldEmail(b) }

// FoldEmail returns address with A to Z as a to z and every other byte as it
// is: the form in which addresses are looked up.
func FoldEmail(address string) string {
	folded := []byte(address)
	for i, b := range folded {
		if 'A' <= b && b <= 'Z' {
			folded[i] = b + 'a' - 'A'
		}
	}
	return string(folded)
}

// isAtom reports whether r is atext of RFC 5322 section 3.2.3.
func isAtom(r rune) bool {
	return isAlphanumeric(r) || strings.ContainsRune("!#$%&'*+-/=?^_`{|}~", r)
}

func isAlphanumeric(r rune) bool {
	return '0' <= r && r <= '9' || 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z'
}

// Clip cuts text for a message, so that a refusal never echoes a megabyte.
func Clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// Cut shortens text that somebody else chose to at most max bytes, at a
// character.
func Cut(text string, max int) string {
	if len(text) <= max {
		return text
	}
	for max > 0 && !utf8.RuneStart(text[max]) {
		max--
	}
	return text[:max]
}
