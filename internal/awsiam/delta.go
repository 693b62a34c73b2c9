package awsiam

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"golang.org/x/sync/errgroup"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A delta is a look at an account between two full readings, for a few calls.
// ListRoles shows what is new, deleted and created again; it does not show tags,
// so GetRole is asked of as many other roles as the budget allows, those next
// that were not asked for longest. Where authorization details are allowed they
// show all tags at once.
//
// What comes first when the budget is short:
//
//  1. known roles that are not listed: each must be seen to be gone;
//  2. roles that were created since the account was last looked at, the newest
//     first, as long as not half of the budget is spent;
//  3. known roles, for half of what is left, since untagging is their owner's kill
//     switch;
//  4. all others, any of which may have been tagged.
//
// The last two go round: a Reader remembers for each account where it stopped,
// and nothing of any role. If it is lost, the round begins anew.

// How a delta is bounded.
const (
	deltaDeadline = 5 * time.Minute
	deltaInFlight = 4                // calls, for one account
	newFor        = 10 * time.Minute // clocks differ, and a listing lags behind: what is younger is new once more
)

// deltas are what the deltas of a Reader share.
type deltas struct {
	calls, large chan struct{} // a quarter of what there is: full readings go on beside them

	mu     sync.Mutex
	rounds map[string]*round // by account id
}

func (d *deltas) init(total, large int) {
	d.calls, d.large = make(chan struct{}, max(1, total/4)), make(chan struct{}, max(1, large/4))
	d.rounds = make(map[string]*round)
}

func (d *deltas) round(accountID string) *round {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.rounds[accountID]
	if r == nil {
		r = &round{}
		d.rounds[accountID] = r
	}
	return r
}

// A round is how far the looking around has come: the places of the last role of
// each kind that was looked at.
type round struct {
	mu            sync.Mutex
	known, others uint64
}

// aside counts a delta's calls, and lets them wait where they would be in the way.
type aside struct {
	of    *deltas
	spent atomic.Int64
}

// Delta looks at an account for at most about budget calls of IAM and returns
// what is not as known, where known are the roles that the upstream lists and
// since is when it last looked. A role that was begun is read to its end, so that
// the last few may go beyond the budget; so may the listing, which comes first.
//
// The delta says of each role that it removes what was seen. Where so many known
// roles are not listed that a full reading would hold their removal, it removes
// none of them and says that it is not complete. Its errors are those of
// Inventory.
func (r *Reader) Delta(ctx context.Context, a serval.Account, known []serval.KnownRole, since time.Time, budget int) (serval.Delta, error) {
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, deltaDeadline)
	defer cancel()

	started := r.config.Now()
	s, err := r.open(ctx, a)
	if err != nil {
		return serval.Delta{}, err
	}
	s.aside = &aside{of: &r.deltas}
	d := &looking{
		reading: &reading{
			session: s, problems: newProblems(), policies: newPolicies(s),
			known: make(map[string]bool, len(known)), interned: make(map[string]string), details: newDetails(),
			done: Progress{AccountID: a.ID},
		},
		byID: make(map[string]serval.KnownRole, len(known)), since: since, budget: int64(budget),
	}
	for _, k := range known {
		d.known[k.RoleID] = true
		d.byID[k.RoleID] = k
	}
	d.inventory = serval.Inventory{Complete: true, ReadBy: serval.ByRoles}
	err = d.run(ctx)
	if outer.Err() != nil {
		return serval.Delta{}, fmt.Errorf("looking at account %s: %w", a.ID, outer.Err())
	}
	if err != nil {
		return serval.Delta{}, r.failure(StageList, a, err)
	}
	if ctx.Err() != nil {
		d.incomplete(codeTimeout, "the account was not looked at in %d minutes", int(deltaDeadline.Minutes()))
	}
	return d.delta(a, started, r.config.Now()), nil
}

// A looking is one delta on its way.
type looking struct {
	*reading
	byID   map[string]serval.KnownRole
	since  time.Time
	budget int64

	removed []serval.Removal // guarded by the reading's mutex
}

// run lists the roles, and then looks at those that it should.
func (d *looking) run(ctx context.Context) error {
	var roles []listed
	pages := make(chan []listed, 1)
	var listing, detailing errgroup.Group
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	detailing.Go(func() error {
		err := d.readDetails(ctx)
		if isWrongAccount(err) {
			cancel(err)
			return err
		}
		return nil // all else was noted, and is no matter
	})
	listing.Go(func() error {
		defer close(pages)
		err := d.list(ctx, pages)
		if isWrongAccount(err) || err != nil && d.listed() == 0 {
			cancel(err)
		}
		return err
	})
	for page := range pages {
		roles = append(roles, page...)
	}
	err, wrong := listing.Wait(), detailing.Wait()
	switch {
	case wrong != nil:
		return wrong
	case isWrongAccount(err) || err != nil && len(roles) == 0:
		return err
	case err != nil:
		d.trouble(err, listRoles, d.account.ID)
	default:
		if err := d.confirmMissing(ctx, roles); err != nil {
			return err
		}
	}
	if d.inventory.ReadBy == serval.ByAuthorizationDetails {
		return d.all(ctx, roles)
	}
	return d.some(ctx, roles)
}

// each runs f of the items in order, a few at once, until one fails, or the
// budget is spent up to the given part of it. It returns how many were begun.
func each[T any](ctx context.Context, d *looking, limit int64, items []T, f func(context.Context, T) error) (begun int, err error) {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(deltaInFlight)
	for _, item := range items {
		if d.aside.spent.Load() >= limit || ctx.Err() != nil {
			break
		}
		begun++
		g.Go(func() error { return f(ctx, item) })
	}
	return begun, g.Wait()
}

// confirmMissing asks for the known roles that are not listed.
func (d *looking) confirmMissing(ctx context.Context, roles []listed) error {
	ids, arns := make(map[string]bool, len(roles)), make(map[string]bool, len(roles))
	for _, l := range roles {
		ids[l.id], arns[l.arn] = true, true
	}
	var missing []serval.KnownRole
	gone := 0 // and nothing else in their place
	for id, k := range d.byID {
		if ids[id] {
			continue
		}
		missing = append(missing, k)
		if !arns[k.ARN] {
			gone++
		}
	}
	if serval.Holds(len(d.byID), gone) {
		d.incomplete("ManyMissing", "%d of %d known roles are not listed: that is left to the next full sync", gone, len(d.byID))
		return nil
	}
	slices.SortFunc(missing, func(a, b serval.KnownRole) int { return cmp.Compare(a.RoleID, b.RoleID) })
	_, err := each(ctx, d, d.budget, missing, d.confirm)
	return err
}

// confirm asks for one known role that is not listed. It is removed where it is
// not there any more, or another has its name; or where it has no tag, since then
// it is the listing that lags.
func (d *looking) confirm(ctx context.Context, k serval.KnownRole) error {
	arn, err := serval.ParseRoleARN(k.ARN)
	if err != nil {
		return nil // the upstream's mistake; AWS knows nothing of it
	}
	role, err := d.role(ctx, arn.Name)
	if err == nil {
		if err := d.ours(deref(role.Arn)); err != nil {
			return err
		}
	}
	switch {
	case isGone(err) || err == nil && deref(role.RoleId) != k.RoleID:
		d.remove(k, serval.RemovedDeleted)
	case err != nil:
		d.unreadable(ctx, err, k.ARN, k.RoleID)
	case !serval.IsTagged(tags(role)):
		d.remove(k, serval.RemovedUntagged)
	}
	return nil
}

// all puts the details and the listing together, as a full reading does.
func (d *looking) all(ctx context.Context, roles []listed) error {
	g, together := errgroup.WithContext(ctx)
	g.SetLimit(deltaInFlight)
	d.join(together, roles, g.Go)
	if err := g.Wait(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		d.inventory.Roles = nil // of some the policies are missing only because the time was up
	}
	for _, id := range d.inventory.Untagged {
		d.remove(d.byID[id], serval.RemovedUntagged)
	}
	return nil
}

// some looks at new roles and at some of the others.
func (d *looking) some(ctx context.Context, roles []listed) error {
	var young, known, others []listed
	for _, l := range roles {
		_, isKnown := d.byID[l.id]
		switch {
		case isKnown:
			known = append(known, l)
		case l.created.After(d.since.Add(-newFor)):
			young = append(young, l)
		default:
			others = append(others, l)
		}
	}
	slices.SortFunc(young, func(a, b listed) int { return cmp.Or(b.created.Compare(a.created), cmp.Compare(a.id, b.id)) })
	begun, err := each(ctx, d, d.budget/2, young, d.look)
	if err != nil {
		return err
	}
	others = append(others, young[begun:]...)

	r := d.reader.deltas.round(d.account.ID)
	r.mu.Lock()
	defer r.mu.Unlock()
	left := int(max(0, d.budget-d.aside.spent.Load()))
	ofKnown := min(len(known), (left+1)/2)
	ofOthers := min(len(others), left-ofKnown)
	ofKnown = min(len(known), left-ofOthers)
	for _, part := range []struct {
		at    *uint64
		roles []listed
		n     int
	}{{&r.known, known, ofKnown}, {&r.others, others, ofOthers}} {
		next := after(*part.at, part.roles, part.n)
		begun, err := each(ctx, d, d.budget, next, d.look)
		if err != nil {
			return err
		}
		if begun > 0 && ctx.Err() == nil {
			*part.at = place(next[begun-1].id)
		}
	}
	return nil
}

// place is where a role stands in the round, the same at all times.
func place(id string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(id))
	return h.Sum64()
}

// after returns the next n roles of the round behind a place.
func after(at uint64, roles []listed, n int) []listed {
	slices.SortFunc(roles, func(a, b listed) int {
		// The distance from the place, going round; the place itself comes last.
		return cmp.Or(cmp.Compare(place(a.id)-at-1, place(b.id)-at-1), cmp.Compare(a.id, b.id))
	})
	return roles[:n]
}

// look asks for one listed role and puts down how it is not as known.
func (d *looking) look(ctx context.Context, l listed) error {
	role, err := d.role(ctx, l.name())
	if err == nil {
		if err := d.ours(deref(role.Arn)); err != nil {
			return err
		}
	}
	switch {
	case isGone(err):
		if k, ok := d.byID[l.id]; ok {
			d.remove(k, serval.RemovedDeleted)
		}
		return nil
	case err != nil:
		d.unreadable(ctx, err, l.arn, l.id)
		return nil
	}
	if k, ok := d.byID[l.id]; ok && deref(role.RoleId) != l.id {
		d.remove(k, serval.RemovedDeleted) // created again since it was listed
	}
	return d.settleLook(ctx, role)
}

// settleLook puts down a role that GetRole has shown, with its policies where
// they are needed.
func (d *looking) settleLook(ctx context.Context, role *types.Role) error {
	id, arn := deref(role.RoleId), deref(role.Arn)
	k, isKnown := d.byID[id]
	if serval.IsTagged(tags(role)) {
		if isKnown && k.Shown != "" && k.Shown == d.shown(role) {
			return nil
		}
		whole, policies, err := d.whole(ctx, role)
		switch {
		case isWrongAccount(err):
			return err
		case isGone(err): // in between; the next look confirms it
			return nil
		case err != nil:
			d.unreadable(ctx, err, arn, id)
			return nil
		case deref(whole.RoleId) != id:
			return nil // likewise
		case ctx.Err() != nil:
			return nil // its policies are missing only because the time was up
		}
		if serval.IsTagged(tags(whole)) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.inventory.Roles = append(d.inventory.Roles, d.form(whole, policies))
			return nil
		}
		role = whole // it was untagged while it was read
	}
	if isKnown {
		d.remove(k, serval.RemovedUntagged)
		return nil
	}
	if key, ok := serval.NearMissKey(tags(role)); ok {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.inventory.NearMisses = append(d.inventory.NearMisses, serval.NearMiss{ARN: arn, TagKey: key})
	}
	return nil
}

// shown returns the digest of what GetRole has shown of a role.
func (d *looking) shown(role *types.Role) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.form(role, rolePolicies{}).Shown()
}

func (d *looking) remove(k serval.KnownRole, reason string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.removed = append(d.removed, serval.Removal{RoleID: k.RoleID, ARN: k.ARN, Reason: reason})
}

// unreadable puts down a role that could not be looked at. Where only the time
// was up, nothing is known of the role.
func (d *looking) unreadable(ctx context.Context, err error, arn, id string) {
	if ctx.Err() != nil {
		return
	}
	e := d.trouble(err, getRole, arn)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inventory.Unreadable = append(d.inventory.Unreadable, serval.Unreadable{ARN: arn, RoleID: id, Action: e.action, Code: e.code})
}

// incomplete notes why the delta is not whole.
func (d *looking) incomplete(code, format string, args ...any) {
	d.trouble(&callError{action: listRoles, target: d.account.ID, kind: failed, code: code, message: fmt.Sprintf(format, args...)},
		listRoles, d.account.ID)
}

// delta returns what was seen. Of the roles that were read whole those are left
// out that are as known.
func (d *looking) delta(a serval.Account, started, finished time.Time) serval.Delta {
	out := serval.Delta{
		AccountID: a.ID, AccountName: a.Name, StartedAt: started, FinishedAt: finished,
		Complete: d.inventory.Complete, ReadBy: d.inventory.ReadBy,
		Unreadable: d.inventory.Unreadable, NearMisses: d.inventory.NearMisses, Problems: d.problems.all(),
	}
	have := make(map[string]bool, len(d.inventory.Roles))
	for _, r := range d.inventory.Roles {
		have[r.RoleID] = true
		if k, ok := d.byID[r.RoleID]; !ok || k.Digest == "" || k.Digest != r.Digest() {
			out.Roles = append(out.Roles, r)
		}
	}
	removed := make(map[string]bool, len(d.removed))
	for _, r := range d.removed {
		// A role that moved while it was looked at may have been seen in two ways;
		// that it is there is the word that does no harm until the next look.
		if !have[r.RoleID] && !removed[r.RoleID] {
			removed[r.RoleID] = true
			out.Removed = append(out.Removed, r)
		}
	}
	out.Normalize()
	return out
}
