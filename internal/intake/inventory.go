package intake

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// The bounds of a push: AWS's own (IAM API Reference; IAM and STS quotas), and
// for numbers of roles and policies what no quota of AWS's can be raised to.
const (
	maxRoles       = 20_000
	maxDescription = 1000
	maxTags        = 50
	maxTagKey      = 128
	maxTagValue    = 256
	maxDocument    = 131_072
	maxNesting     = 40
	maxPolicies    = 100 // of a role, inline, and as many managed
	maxPolicyName  = 128
	maxAction      = 128
	maxPolicyARN   = 2048 // and a boundary's
	maxVersion     = 128
	maxClientIDs   = 100 // of an OIDC provider
	maxClientID    = 255
	minSession     = 3600
	maxSession     = 43_200
)

// roleIDs is what a unique id of IAM's is made of.
var roleIDs = regexp.MustCompile(`^[A-Z0-9]+$`)

// isRoleID reports whether text may be a unique id of IAM's (IAM API Reference,
// Role).
func isRoleID(text string) bool {
	return 4 <= len(text) && len(text) <= 128 && roleIDs.MatchString(text)
}

// Push takes in the inventory of an account. Read hands over its roles one by
// one and then returns the rest of it, with a digest of all that it read. The
// roles are staged without holding the chain and then swapped in, in parts where they
// are many. What could not be accepted is refused before it is
// read; a second push of an account while one is under way is Exhausted. Where it fails
// some parts of it may be swapped in: the same push again does the rest.
//
// The generation must be the one that this account's last sync was opened with,
// and newer than the last accepted; the same push again has the same answer and
// no second event. Nothing that is merely missing from an incomplete inventory
// is removed.
func (t *Intake) Push(ctx context.Context, who serval.Principal, accountID string,
	read func(role func(serval.Role) error) (inv serval.Inventory, digest string, err error)) (Pushed, error) {
	var inv serval.Inventory
	roles := 0
	return t.take(ctx, who, accountID, push{
		what: serval.InventoryAccept, noun: "inventory",
		read: func(account serval.Account, role func(serval.Role) error) (h head, err error) {
			inv, h.digest, err = read(role)
			h.accountID, h.generation = inv.AccountID, inv.Generation
			if err == nil {
				err = checkProvider(inv.OIDCProvider, account)
			}
			return h, err
		},
		compare: func(known []serval.Known, staged []serval.Seen, opened time.Time) (serval.Difference, error) {
			roles = len(staged)
			return serval.Compare(known, serval.Sighting{
				Complete: inv.Complete, Roles: staged, Unreadable: unreadable(inv), Untagged: inv.Untagged,
			}, opened), nil
		},
		accept: func(tx *store.Tx, digest, answer string) error {
			if err := endFetches(tx, inv, roles); err != nil {
				return err
			}
			return tx.AcceptInventory(inv, digest, answer)
		},
		detail: func(roles int, d serval.Difference, _ bool) map[string]string {
			detail := map[string]string{
				"generation": fmt.Sprint(inv.Generation), "complete": fmt.Sprint(inv.Complete), "read_by": serval.Cut(inv.ReadBy, maxAction),
				"roles": fmt.Sprint(roles), "unreadable": fmt.Sprint(len(inv.Unreadable)), "problems": fmt.Sprint(len(inv.Problems)),
			}
			if inv.OIDCProvider != nil {
				detail["oidc_provider"] = string(inv.OIDCProvider.Status)
			}
			describe(detail, d, maxNamed)
			return detail
		},
	})
}

// checkProvider refuses an OIDC provider that AWS cannot have shown of the account.
func checkProvider(p *serval.OIDCProvider, account serval.Account) error {
	refuse := func(format string, args ...any) error {
		return serval.Refuse(serval.Invalid, "The OIDC provider %s.", fmt.Sprintf(format, args...))
	}
	if p == nil {
		return nil
	}
	switch p.Status {
	case serval.ListRead, serval.ListAbsent, serval.ListDenied, serval.ListThrottled, serval.ListFailed:
	default:
		return refuse("has the status %q; it is one of read, absent, denied, throttled, failed", serval.Cut(string(p.Status), 40))
	}
	switch {
	case p.Issuer == "" || p.ARN != serval.ProviderARN(cmp.Or(account.Partition, serval.PartitionAWS), account.ID, p.Issuer):
		return refuse("is not that of its issuer in account %s", account.ID)
	case p.Status != serval.ListRead && len(p.ClientIDs) > 0:
		return refuse("was not read, and has client ids")
	case len(p.ClientIDs) > maxClientIDs:
		return refuse("has more than %d client ids", maxClientIDs)
	}
	for _, id := range p.ClientIDs {
		if id == "" || longer(id, maxClientID) {
			return refuse("has a client id that is empty or has more than %d characters", maxClientID)
		}
	}
	return nil
}

// checkIdentity refuses a role that is not one of the account's.
func checkIdentity(text, roleID string, account serval.Account) (serval.RoleARN, error) {
	refuse := func(format string, args ...any) error {
		return serval.Refuse(serval.Invalid, "Role %s %s.", text, fmt.Sprintf(format, args...))
	}
	arn, err := serval.ParseRoleARN(text)
	switch {
	case err != nil:
		return arn, serval.Refuse(serval.Invalid, "Role %q: %s.", serval.Cut(text, 200), err)
	case arn.AccountID != account.ID:
		return arn, refuse("is not in account %s", account.ID)
	case account.Partition != "" && arn.Partition != account.Partition:
		return arn, refuse("is not in partition %s", account.Partition)
	case roleID == "":
		return arn, refuse("has no role_id")
	case !isRoleID(roleID):
		return arn, refuse("has the role_id %q, which is none", serval.Cut(roleID, 40))
	}
	return arn, nil
}

// checkRole refuses a role of a push that AWS cannot have shown of the account.
func checkRole(r serval.Role, account serval.Account) error {
	refuse := func(format string, args ...any) error {
		return serval.Refuse(serval.Invalid, "Role %s %s.", r.ARN, fmt.Sprintf(format, args...))
	}
	arn, err := checkIdentity(r.ARN, r.RoleID, account)
	switch {
	case err != nil:
		return err
	case arn.Name != r.Name || arn.Path != r.Path:
		return refuse("has another name and path than its ARN")
	case !serval.IsTagged(r.Tags):
		return refuse("has no tag %q", serval.TagKey)
	case longer(r.Description, maxDescription):
		return refuse("has a description of more than %d characters", maxDescription)
	case r.MaxSessionSeconds != 0 && (r.MaxSessionSeconds < minSession || r.MaxSessionSeconds > maxSession):
		return refuse("has max_session_seconds %d, which is neither 0 nor from %d to %d", r.MaxSessionSeconds, minSession, maxSession)
	case r.PermissionsBoundary != nil && longer(*r.PermissionsBoundary, maxPolicyARN):
		return refuse("has a permissions boundary whose ARN has more than %d characters", maxPolicyARN)
	case r.PermissionsBoundary == nil && r.BoundaryPolicy != nil:
		return refuse("has the policy of a permissions boundary, and no boundary")
	case len(r.Tags) > maxTags:
		return refuse("has more than %d tags", maxTags)
	case len(r.InlinePolicies.Policies) > maxPolicies:
		return refuse("has more than %d inline policies", maxPolicies)
	case len(r.ManagedPolicies.Policies) > maxPolicies:
		return refuse("has more than %d managed policies", maxPolicies)
	}
	for key, value := range r.Tags {
		if longer(key, maxTagKey) || longer(value, maxTagValue) {
			return refuse("has a tag whose key has more than %d characters, or its value more than %d", maxTagKey, maxTagValue)
		}
	}
	type read struct {
		name   string
		status serval.ListStatus
		action string
	}
	lists := []read{
		{"inline_policies", r.InlinePolicies.Status, r.InlinePolicies.Action},
		{"managed_policies", r.ManagedPolicies.Status, r.ManagedPolicies.Action},
	}
	if b := r.BoundaryPolicy; b != nil {
		lists = append(lists, read{"permissions_boundary_policy", b.Status, b.Action})
		if longer(b.Version, maxVersion) {
			return refuse("has a permissions boundary whose version has more than %d characters", maxVersion)
		}
	}
	for _, list := range lists {
		switch list.status {
		case serval.ListRead, serval.ListDenied, serval.ListThrottled, serval.ListFailed:
		default:
			return refuse("has %s with the status %q; it is one of read, denied, throttled, failed", list.name, serval.Cut(string(list.status), 40))
		}
		if longer(list.action, maxAction) {
			return refuse("has %s with an action of more than %d characters", list.name, maxAction)
		}
	}
	for _, policy := range r.InlinePolicies.Policies {
		if longer(policy.Name, maxPolicyName) {
			return refuse("has an inline policy whose name has more than %d characters", maxPolicyName)
		}
	}
	for _, policy := range r.ManagedPolicies.Policies {
		if longer(policy.Name, maxPolicyName) {
			return refuse("has a managed policy whose name has more than %d characters", maxPolicyName)
		}
		if longer(policy.ARN, maxPolicyARN) || longer(policy.Version, maxVersion) {
			return refuse("has a managed policy whose ARN has more than %d characters, or its version more than %d", maxPolicyARN, maxVersion)
		}
	}
	for _, d := range r.Documents() {
		if longer(string(d), maxDocument) {
			return refuse("has a policy document of more than %d characters", maxDocument)
		}
		if nesting(d) > maxNesting {
			return refuse("has a policy document nested deeper than %d", maxNesting)
		}
	}
	return nil
}

// longer reports whether text has more than max characters.
func longer(text string, max int) bool {
	return len(text) > max && utf8.RuneCountInString(text) > max
}

// nesting returns how deep the objects and lists of d lie in each other.
func nesting(d serval.Document) (deepest int) {
	depth, quoted := 0, false
	for i := 0; i < len(d); i++ {
		switch c := d[i]; {
		case quoted && c == '\\':
			i++ // what is escaped ends nothing
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
			deepest = max(deepest, depth)
		case c == '}' || c == ']':
			depth--
		}
	}
	return deepest
}

// unreadable returns the roles that could not be looked at with what their
// stale_reason is made of cut to what AWS would say.
func unreadable(inv serval.Inventory) []serval.Unreadable {
	list := slices.Clone(inv.Unreadable)
	for i := range list {
		list[i].Action, list[i].Code = serval.Cut(list[i].Action, maxAction), serval.Cut(list[i].Code, maxAction)
	}
	return list
}

// How many roles an event names, of each kind, and that of a part; it counts all.
const (
	maxNamed       = 20
	maxNamedOfPart = 3
)

// describe puts a difference into an event's detail, with so many names.
func describe(detail map[string]string, d serval.Difference, names int) {
	for name, keys := range map[string][]serval.RoleKey{
		"added": d.Added, "changed": d.Changed, "recreated": d.Recreated, "untagged": d.Untagged, "missing": d.Missing, "held": d.Held,
		"fresh": d.Fresh,
	} {
		if len(keys) == 0 {
			continue
		}
		detail[name] = fmt.Sprint(len(keys))
		for i, k := range keys[:min(len(keys), names)] {
			detail[fmt.Sprintf("%s_%02d", name, i+1)] = k.ARN
		}
	}
	if len(d.Stale) > 0 {
		detail["stale"] = fmt.Sprint(len(d.Stale))
	}
}
