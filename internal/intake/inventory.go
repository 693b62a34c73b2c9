package intake

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// How much of a push is staged in one transaction: so many roles, or fewer with
// so many bytes of documents.
const (
	stageBatch = 250
	stageBytes = 8 << 20
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
	minSession     = 3600
	maxSession     = 43_200
)

// roleIDs is what a unique id of IAM's may be.
var roleIDs = regexp.MustCompile(`^[A-Z0-9]{4,128}$`)

// A Pushed is what became of a push. Its JSON form is kept, for a repeat.
type Pushed struct {
	Repeated bool `json:"-"`
	Added    int  `json:"added"`
	Changed  int  `json:"changed"`
	Removed  int  `json:"removed"`
	Held     int  `json:"held"`
	Stale    int  `json:"stale"`
}

// Push takes in the inventory of an account. Read hands over its roles one by
// one and then returns the rest of it, with a digest of all that it read. The
// roles are staged without holding the chain and swapped in in one short
// transaction, or not at all. What could not be accepted is refused before it is
// read; a second push of an account while one is under way is Exhausted.
//
// The generation must be the one that this account's last sync was opened with,
// and newer than the last accepted; the same push again has the same answer and
// no second event. Nothing that is merely missing from an incomplete inventory
// is removed.
func (t *Intake) Push(ctx context.Context, who serval.Principal, accountID string,
	read func(role func(serval.Role) error) (inv serval.Inventory, digest string, err error)) (Pushed, error) {
	var done Pushed
	var account store.Account
	var end func()
	err := t.view(ctx, who, serval.InventoryAccept, accountID, func(v *store.View) (err error) {
		if !who.MayPush(accountID) {
			return noAccount()
		}
		if account, err = v.Account(accountID); serval.IsRefusal(err, serval.NotFound) {
			return noAccount()
		}
		if err != nil {
			return err
		}
		if !isOpen(who, account) && !isAccepted(account) {
			return serval.Refuse(serval.Conflict, "This worker has not opened the last sync of this account.")
		}
		var ok bool
		if end, ok = t.door.Store.BeginPush(accountID); !ok {
			return serval.Refuse(serval.Exhausted, "Another push of this account is under way. Push again when it has ended.")
		}
		return nil
	})
	if end != nil {
		defer end()
	}
	if err != nil {
		return done, err
	}
	// Where the last sync was accepted, only its repeat has an answer: it is read
	// for its digest, and nothing is staged.
	staging := isOpen(who, account)
	push := door.NewID("push")
	if staging {
		defer func() {
			// After the swap there is nothing left; after a failure this cleans up.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			t.door.Store.DropStaged(ctx, push) // what stays behind goes with the sweep
		}()
	}
	keep := func(roles []serval.Role) error {
		if !staging {
			return nil
		}
		return t.door.Store.Stage(ctx, push, accountID, t.door.Now(), roles)
	}
	inv, digest, n, err := stage(account.Account, keep, read)
	if err != nil {
		t.door.Refused(ctx, who, serval.InventoryAccept, accountID, err)
		return done, err
	}
	err = t.act(ctx, who, serval.InventoryAccept, accountID, func(tx *store.Tx, e *serval.Event) error {
		done = Pushed{}
		a, err := tx.Account(accountID)
		if serval.IsRefusal(err, serval.NotFound) {
			return noAccount()
		}
		if err != nil {
			return err
		}
		switch {
		case inv.Generation == a.AcceptedGeneration && digest == a.AcceptedDigest:
			e.Action, done.Repeated = "", true
			return json.Unmarshal([]byte(a.AcceptedAnswer), &done)
		case inv.Generation <= a.AcceptedGeneration:
			return serval.Refuse(serval.Conflict, "Generation %d is not newer than %d, which was accepted.", inv.Generation, a.AcceptedGeneration)
		case inv.Generation != a.Generation || !isOpen(who, a) || !staging:
			return serval.Refuse(serval.Conflict, "Generation %d is not the last that this worker opened.", inv.Generation)
		}
		known, err := tx.KnownRoles(accountID)
		if err != nil {
			return err
		}
		staged, err := tx.StagedRoles(push)
		if err != nil {
			return err
		}
		if len(staged) != n {
			return fmt.Errorf("%d of %d staged roles are there", len(staged), n)
		}
		d := serval.Compare(known, serval.Sighting{
			Complete: inv.Complete, Roles: staged, Unreadable: unreadable(inv), Untagged: inv.Untagged,
		}, tx.Now)
		if err := tx.ApplyDifference(push, accountID, d); err != nil {
			return err
		}
		done = Pushed{Added: len(d.Added), Changed: len(d.Changed), Removed: len(d.Removed()), Held: len(d.Held), Stale: len(d.Stale)}
		answer, err := json.Marshal(done)
		if err != nil {
			return err
		}
		if err := tx.AcceptInventory(inv, digest, string(answer)); err != nil {
			return err
		}
		e.Detail = inventoryDetail(inv, len(staged), d)
		// What was untagged may be tagged again; what was deleted never returns.
		return door.FailRequests(tx, append(append([]serval.RoleKey(nil), d.Recreated...), d.Missing...))
	})
	if err != nil {
		return Pushed{}, err
	}
	t.door.Changed.Raise()
	return done, nil
}

// stage reads a push and hands its roles to keep in batches, checking each. It
// returns how many there were.
func stage(account serval.Account, keep func([]serval.Role) error,
	read func(role func(serval.Role) error) (serval.Inventory, string, error)) (inv serval.Inventory, digest string, n int, err error) {
	var batch []serval.Role
	var size int
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := keep(batch)
		batch, size = batch[:0], 0
		return err
	}
	inv, digest, err = read(func(r serval.Role) error {
		if n++; n > maxRoles {
			return serval.Refuse(serval.TooLarge, "The inventory has more than %d roles.", maxRoles)
		}
		if err := checkRole(r, account); err != nil {
			return err
		}
		batch = append(batch, r)
		for _, d := range documents(r) {
			size += len(d)
		}
		if len(batch) == stageBatch || size >= stageBytes {
			return flush()
		}
		return nil
	})
	if err == nil {
		err = flush()
	}
	switch {
	case err != nil:
	case inv.AccountID != account.ID:
		err = serval.Refuse(serval.Invalid, "This inventory is of account %s, not of %s.", serval.Cut(inv.AccountID, 40), account.ID)
	case inv.Generation < 1:
		err = serval.Refuse(serval.Invalid, "An inventory is pushed with the generation that its sync was opened with.")
	}
	return inv, digest, n, err
}

// checkRole refuses a role of a push that AWS cannot have shown of the account.
func checkRole(r serval.Role, account serval.Account) error {
	refuse := func(format string, args ...any) error {
		return serval.Refuse(serval.Invalid, "Role %s %s.", r.ARN, fmt.Sprintf(format, args...))
	}
	arn, err := serval.ParseRoleARN(r.ARN)
	switch {
	case err != nil:
		return serval.Refuse(serval.Invalid, "Role %q: %s.", serval.Cut(r.ARN, 200), err)
	case arn.AccountID != account.ID:
		return refuse("is not in account %s", account.ID)
	case account.Partition != "" && arn.Partition != account.Partition:
		return refuse("is not in partition %s", account.Partition)
	case arn.Name != r.Name || arn.Path != r.Path:
		return refuse("has another name and path than its ARN")
	case r.RoleID == "":
		return refuse("has no role_id")
	case !roleIDs.MatchString(r.RoleID):
		return refuse("has the role_id %q, which is none", serval.Cut(r.RoleID, 40))
	case !serval.IsTagged(r.Tags):
		return refuse("has no tag %q", serval.TagKey)
	case longer(r.Description, maxDescription):
		return refuse("has a description of more than %d characters", maxDescription)
	case r.MaxSessionSeconds != 0 && (r.MaxSessionSeconds < minSession || r.MaxSessionSeconds > maxSession):
		return refuse("has max_session_seconds %d, which is neither 0 nor from %d to %d", r.MaxSessionSeconds, minSession, maxSession)
	case r.PermissionsBoundary != nil && longer(*r.PermissionsBoundary, maxPolicyARN):
		return refuse("has a permissions boundary whose ARN has more than %d characters", maxPolicyARN)
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
	for _, list := range []struct {
		name   string
		status serval.ListStatus
		action string
	}{
		{"inline_policies", r.InlinePolicies.Status, r.InlinePolicies.Action},
		{"managed_policies", r.ManagedPolicies.Status, r.ManagedPolicies.Action},
	} {
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
	for _, d := range documents(r) {
		if longer(string(d), maxDocument) {
			return refuse("has a policy document of more than %d characters", maxDocument)
		}
		if nesting(d) > maxNesting {
			return refuse("has a policy document nested deeper than %d", maxNesting)
		}
	}
	return nil
}

// documents returns the documents of r.
func documents(r serval.Role) []serval.Document {
	list := []serval.Document{r.TrustPolicy}
	for _, policy := range r.InlinePolicies.Policies {
		list = append(list, policy.Document)
	}
	for _, policy := range r.ManagedPolicies.Policies {
		list = append(list, policy.Document)
	}
	return list
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

// maxNamed is how many roles an event names; it counts all.
const maxNamed = 20

func inventoryDetail(inv serval.Inventory, roles int, d serval.Difference) map[string]string {
	detail := map[string]string{
		"generation": fmt.Sprint(inv.Generation), "complete": fmt.Sprint(inv.Complete), "read_by": serval.Cut(inv.ReadBy, maxAction),
		"roles": fmt.Sprint(roles), "unreadable": fmt.Sprint(len(inv.Unreadable)), "problems": fmt.Sprint(len(inv.Problems)),
	}
	for name, keys := range map[string][]serval.RoleKey{
		"added": d.Added, "changed": d.Changed, "recreated": d.Recreated, "untagged": d.Untagged, "missing": d.Missing, "held": d.Held,
	} {
		if len(keys) == 0 {
			continue
		}
		detail[name] = fmt.Sprint(len(keys))
		for i, k := range keys[:min(len(keys), maxNamed)] {
			detail[fmt.Sprintf("%s_%02d", name, i+1)] = k.ARN
		}
	}
	if len(d.Stale) > 0 {
		detail["stale"] = fmt.Sprint(len(d.Stale))
	}
	return detail
}
