package serval

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// TagKey is the tag that makes a role requestable: exactly this key, any value.
const TagKey = "serval"

// EntitlementName and EntitlementDescription are the one entitlement that every
// role has.
const (
	EntitlementName        = "Assume Role"
	EntitlementDescription = "Ability to assume this AWS IAM role"
)

// DefaultMaxSessionSeconds is a role's MaxSessionDuration where it is unknown:
// IAM's own default, and its minimum (IAM API Reference, Role).
const DefaultMaxSessionSeconds = 3600

// A RoleKey identifies a role. A role that was deleted and created again under
// the same ARN has another RoleID and is another role.
type RoleKey struct {
	Partition string
	AccountID string
	RoleID    string // AROA…
	ARN       string
}

// A Role is an IAM role as it was read, with its documents. Its JSON form is
// the one of an inventory (schema serval.inventory/v1): unknown is never
// absent.
type Role struct {
	ARN                 string            `json:"arn"`
	RoleID              string            `json:"role_id"`
	Name                string            `json:"name"`
	Path                string            `json:"path"`
	Description         string            `json:"description"`
	CreatedAt           time.Time         `json:"created_at"`
	MaxSessionSeconds   int               `json:"max_session_seconds"` // 0 where unknown
	Tags                map[string]string `json:"tags"`
	TrustPolicy         Document          `json:"trust_policy"`
	PermissionsBoundary *string           `json:"permissions_boundary"` // a policy's ARN
	LastUsedAt          *time.Time        `json:"last_used_at"`
	InlinePolicies      InlinePolicies    `json:"inline_policies"`
	ManagedPolicies     ManagedPolicies   `json:"managed_policies"`

	// BoundaryPolicy is the policy that the permissions boundary names; nil where
	// there is no boundary, and where whoever read the role does not look at it. It
	// is absent then, unlike all else: the schema has it only since the first
	// release, and an upstream that does not take it is not sent it.
	BoundaryPolicy *BoundaryPolicy `json:"permissions_boundary_policy,omitempty"`
}

// A Document is the text of a policy document, decoded; empty where it could
// not be read. Its JSON form is the document itself without the space between
// its parts, null where it could not be read, and a string holding the text
// where AWS holds something that is not a JSON object or list.
type Document string

// MarshalJSON returns the document, null, or the text as a string.
func (d Document) MarshalJSON() ([]byte, error) {
	switch {
	case d == "":
		return []byte("null"), nil
	case d.isStructure():
		return []byte(d), nil
	default:
		return marshal(string(d))
	}
}

// isStructure reports whether d can stand in JSON as it is. A bare null or
// string could not be told from a document that is missing or no JSON.
func (d Document) isStructure() bool {
	start := strings.TrimLeft(string(d), " \t\r\n")
	return (strings.HasPrefix(start, "{") || strings.HasPrefix(start, "[")) &&
		utf8.ValidString(string(d)) && json.Valid([]byte(d))
}

// UnmarshalJSON takes a document, null, or a string holding the text. What a
// database would not keep (invalid UTF-8, NUL) is replaced.
func (d *Document) UnmarshalJSON(data []byte) error {
	switch {
	case bytes.Equal(data, []byte("null")):
		*d = ""
	case len(data) > 0 && data[0] == '"':
		var text string
		if err := json.Unmarshal(data, &text); err != nil {
			return err
		}
		*d = Document(storable(text))
	default:
		var compact bytes.Buffer
		if err := json.Compact(&compact, data); err != nil {
			return err
		}
		*d = Document(storable(compact.String()))
	}
	return nil
}

// Digest returns the SHA-256 of the text in hex; empty for no text.
func (d Document) Digest() string {
	if d == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(d))
	return hex.EncodeToString(sum[:])
}

// ListStatus says how the reading of a list went.
type ListStatus string

// How the reading of a list went. Only a list that was read is known to be
// empty when it is empty.
const (
	ListRead      ListStatus = "read"
	ListDenied    ListStatus = "denied"    // AWS refused the action
	ListThrottled ListStatus = "throttled" // AWS kept asking us to slow down
	ListFailed    ListStatus = "failed"
	ListAbsent    ListStatus = "absent" // of what is no list: there is none
)

// InlinePolicies are the policies embedded in a role. Where the status is not
// ListRead, Action is the action that went wrong and Policies holds what is known
// nevertheless.
type InlinePolicies struct {
	Status   ListStatus     `json:"status"`
	Action   string         `json:"action,omitempty"`
	Policies []InlinePolicy `json:"policies"`
}

// An InlinePolicy is a policy embedded in a role.
type InlinePolicy struct {
	Name     string   `json:"name"`
	Document Document `json:"document"`
}

// ManagedPolicies are the policies attached to a role. Where the status is not
// ListRead, Action is the action that went wrong and Policies holds what is known
// nevertheless.
type ManagedPolicies struct {
	Status   ListStatus      `json:"status"`
	Action   string          `json:"action,omitempty"`
	Policies []ManagedPolicy `json:"policies"`
}

// A ManagedPolicy is a policy attached to a role, in its default version.
type ManagedPolicy struct {
	ARN      string   `json:"arn"`
	Name     string   `json:"name"`
	Version  string   `json:"version"` // empty where unknown
	Document Document `json:"document"`
}

// A BoundaryPolicy is the managed policy that is a role's permissions boundary, in
// its default version. Where the status is not ListRead, Action is the action that
// went wrong.
type BoundaryPolicy struct {
	Status   ListStatus `json:"status"`
	Action   string     `json:"action,omitempty"`
	Version  string     `json:"version"` // empty where unknown
	Document Document   `json:"document"`
}

// Key returns the role's identity. The role's ARN must be one that ParseRoleARN
// takes.
func (r Role) Key() RoleKey {
	arn, err := ParseRoleARN(r.ARN)
	if err != nil {
		return RoleKey{RoleID: r.RoleID, ARN: r.ARN}
	}
	return RoleKey{Partition: arn.Partition, AccountID: arn.AccountID, RoleID: r.RoleID, ARN: r.ARN}
}

// PoliciesComplete reports whether every policy of the role was read.
func (r Role) PoliciesComplete() bool {
	return r.InlinePolicies.Status == ListRead && r.ManagedPolicies.Status == ListRead
}

// Digest returns a SHA-256, in hex, over all of the role that matters to
// somebody who approves it: everything but when it was last used.
func (r Role) Digest() string {
	r.LastUsedAt = nil
	r.normalize()
	text, err := marshal(r)
	if err != nil {
		// Every field is a string, a number, a time or valid JSON.
		panic("serval: encoding a role: " + err.Error())
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// Documents returns the documents that the role has, the trust policy first; one
// that could not be read is empty.
func (r Role) Documents() []Document {
	list := []Document{r.TrustPolicy}
	for _, p := range r.InlinePolicies.Policies {
		list = append(list, p.Document)
	}
	for _, p := range r.ManagedPolicies.Policies {
		list = append(list, p.Document)
	}
	if r.BoundaryPolicy != nil {
		list = append(list, r.BoundaryPolicy.Document)
	}
	return list
}

// Shown returns the digest of what GetRole alone shows of the role: all but its
// policies and when it was last used.
func (r Role) Shown() string {
	r.InlinePolicies, r.ManagedPolicies, r.BoundaryPolicy = InlinePolicies{}, ManagedPolicies{}, nil
	return r.Digest()
}

// normalize gives lists one order and one form of emptiness, so that the same
// role has the same bytes however it was read.
func (r *Role) normalize() {
	if r.Tags == nil {
		r.Tags = map[string]string{}
	}
	r.CreatedAt = r.CreatedAt.UTC()
	if r.PermissionsBoundary != nil && *r.PermissionsBoundary == "" {
		r.PermissionsBoundary = nil
	}
	if r.LastUsedAt != nil {
		t := r.LastUsedAt.UTC()
		r.LastUsedAt = &t
	}
	r.InlinePolicies.Policies = slices.SortedFunc(slices.Values(r.InlinePolicies.Policies),
		func(a, b InlinePolicy) int { return strings.Compare(a.Name, b.Name) })
	r.ManagedPolicies.Policies = slices.SortedFunc(slices.Values(r.ManagedPolicies.Policies),
		func(a, b ManagedPolicy) int { return strings.Compare(a.ARN, b.ARN) })
	if r.InlinePolicies.Policies == nil {
		r.InlinePolicies.Policies = []InlinePolicy{}
	}
	if r.ManagedPolicies.Policies == nil {
		r.ManagedPolicies.Policies = []ManagedPolicy{}
	}
}

// IsTagged reports whether tags make a role requestable.
func IsTagged(tags map[string]string) bool {
	_, tagged := tags[TagKey]
	return tagged
}

// NearMissKey returns the tag key, if there is one, that somebody may have
// meant as the tag and that is not: another case, or spaces around it. A role
// that has the tag is no near miss.
func NearMissKey(tags map[string]string) (key string, ok bool) {
	if IsTagged(tags) {
		return "", false
	}
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		if FoldEmail(strings.TrimSpace(key)) == TagKey {
			return key, true
		}
	}
	return "", false
}

// marshal is json.Marshal without the escapes that are made for HTML, so that
// a document keeps the bytes that AWS holds.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
