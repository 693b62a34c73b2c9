package awsiam

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"golang.org/x/sync/errgroup"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// GetAccountAuthorizationDetails tells of a thousand roles at once what would
// take a call or five for each, all but Description and MaxSessionDuration, which
// ListRoles has. It is no action that a reading may rely on: where it is refused
// or fails, the reading goes the other way from there and says the same.
//
// ListRoles alone says which roles there are. What the details do not tell of a
// listed role, or tell of one that was not listed or has another RoleId, and a
// role that the upstream knows and that has no tag here, is asked of GetRole:
// it has the last word wherever the two could disagree.

// refusedFor is how long an account's refusal is remembered.
const refusedFor = 12 * time.Hour

// A refusal is remembered of an action that a reading does not rely on.
type refusal struct {
	mu    sync.Mutex
	role  string // whose session was refused: another role may be allowed
	until time.Time
}

// worth reports whether the action is to be tried with sessions of the role.
func (r *refusal) worth(role string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.role != role || !now.Before(r.until)
}

func (r *refusal) failed(role string, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.role, r.until = role, now.Add(refusedFor)
}

// A tried is what an account remembers of its details between readings.
type tried struct {
	refusal
	large bool // roles and policies did not fit one page
}

// lists returns which lists are read each on its own: one after the other in one
// listing where they fit one page, which is a call less, else side by side.
func (t *tried) lists() [][]types.EntityType {
	t.mu.Lock()
	defer t.mu.Unlock()
	roles, policies := types.EntityTypeRole, types.EntityTypeLocalManagedPolicy
	if t.large {
		return [][]types.EntityType{{roles}, {policies}}
	}
	return [][]types.EntityType{{roles, policies}}
}

func (t *tried) isLarge() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.large = true
}

// details are an account's, as far as they were read.
type details struct {
	begun chan struct{} // closed when there is a first answer, or none will come
	once  sync.Once

	mu       sync.Mutex // guards what follows
	some     bool       // there was a first answer
	roles    map[string]*detail
	seen     map[string]bool // policies of AWS's
	queue    []string        // those of them that are to be fetched
	fetchers int             // at work
}

// A detail is one role as the details have it.
type detail struct {
	id       string
	nearMiss string
	doubtful bool // something was missing: GetRole must say

	role     *types.Role // nil where it has no tag; without description and longest session
	inline   []serval.InlinePolicy
	attached []types.AttachedPolicy
}

// managed returns the ARNs of the policies that the role has, and that bound it.
func (d *detail) managed() []string {
	if d.role == nil {
		return nil
	}
	arns := []string{boundaryOf(d.role)}
	for _, p := range d.attached {
		arns = append(arns, deref(p.PolicyArn))
	}
	return arns
}

func newDetails() *details {
	return &details{begun: make(chan struct{}), roles: make(map[string]*detail), seen: make(map[string]bool)}
}

func (d *details) begin() { d.once.Do(func() { close(d.begun) }) }

// wanted waits for the first answer and reports whether there was one.
func (d *details) wanted(ctx context.Context) bool {
	select {
	case <-d.begun:
	case <-ctx.Done():
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.some
}

// readDetails reads the account's details to the end. Policies of AWS's that
// are seen attached are fetched meanwhile.
func (rd *reading) readDetails(ctx context.Context) error {
	defer rd.details.begin()
	now := time.Now()
	if !rd.gate.tried.worth(rd.account.RoleARN, now) {
		return nil
	}
	var fetching errgroup.Group
	fetch := func() { fetching.Go(func() error { rd.fetch(ctx); return nil }) }
	lists, stopping := errgroup.WithContext(ctx) // the first failure ends both: what they lack is asked for anyway
	for _, kinds := range rd.gate.tried.lists() {
		lists.Go(func() error { return rd.detailPages(stopping, kinds, fetch) })
	}
	err := lists.Wait()
	rd.details.begin()
	_ = fetching.Wait() // none of them fails
	switch {
	case err == nil:
		rd.mu.Lock()
		rd.inventory.ReadBy = serval.ByAuthorizationDetails
		rd.mu.Unlock()
	case ctx.Err() == nil && !isWrongAccount(err):
		e := asCallError(err, getDetails, rd.account.ID)
		if e.action == getDetails && e.kind != throttled && e.kind != expired {
			rd.gate.tried.failed(rd.account.RoleARN, now)
		}
		// A refusal is what is to be expected. Anything else should be seen, though
		// nothing is lost by it.
		if e.kind != denied {
			rd.problems.add(e, rd.account.ID)
		}
	}
	return err
}

// detailPages reads one listing of the details.
func (rd *reading) detailPages(ctx context.Context, kinds []types.EntityType, fetch func()) error {
	used := map[string]bool{"": true}
	var marker *string
	for range mostPages {
		out, err := ask(ctx, &rd.line, getDetails, rd.account.ID, func(ctx context.Context) (*iam.GetAccountAuthorizationDetailsOutput, error) {
			out, err := rd.iam.GetAccountAuthorizationDetails(ctx, &iam.GetAccountAuthorizationDetailsInput{
				Filter: kinds, Marker: marker, MaxItems: size()}, rd.page)
			if err == nil && (out.RoleDetailList == nil || out.Policies == nil) {
				return nil, errEmpty // AWS sends all lists, those not asked for too
			}
			return out, err
		})
		if err != nil {
			return err
		}
		rd.gate.open()
		if err := rd.takeDetails(out, fetch); err != nil {
			return err
		}
		rd.details.begin()
		if !out.IsTruncated {
			return nil
		}
		if len(kinds) > 1 {
			rd.gate.tried.isLarge()
		}
		next := deref(out.Marker)
		if used[next] {
			return &callError{action: getDetails, target: rd.account.ID, kind: failed, code: codeEndless,
				message: "the list did not end: its marker was missing or came twice"}
		}
		used[next], marker = true, &next
	}
	return &callError{action: getDetails, target: rd.account.ID, kind: failed, code: codeEndless,
		message: fmt.Sprintf("the list did not end after %d pages", mostPages)}
}

// takeDetails takes over one page, and has AWS's policies fetched that are new in
// it. It fails where something is of another account.
func (rd *reading) takeDetails(out *iam.GetAccountAuthorizationDetailsOutput, fetch func()) error {
	for _, p := range out.Policies {
		arn := deref(p.Arn)
		if isAWSManaged(arn) {
			continue // not asked for
		}
		if err := rd.ours(arn); err != nil {
			return err
		}
		for _, v := range p.PolicyVersionList {
			if id := deref(v.VersionId); id != "" && id == deref(p.DefaultVersionId) && v.IsDefaultVersion && deref(v.Document) != "" {
				rd.policies.put(arn, version{id, document(*v.Document)})
			}
		}
	}
	found := make(map[string]*detail, len(out.RoleDetailList))
	for i := range out.RoleDetailList {
		role := &out.RoleDetailList[i]
		if err := rd.ours(deref(role.Arn)); err != nil {
			return err
		}
		one := rd.detail(role)
		one.doubtful = one.doubtful || found[*role.Arn] != nil
		found[*role.Arn] = one
	}
	d := rd.details
	d.mu.Lock()
	defer d.mu.Unlock()
	d.some = true
	for arn, one := range found {
		if d.roles[arn] != nil {
			one.doubtful = true // it moved between pages
		}
		d.roles[arn] = one
		for _, arn := range one.managed() {
			if isAWSManaged(arn) && !d.seen[arn] {
				d.seen[arn] = true
				d.queue = append(d.queue, arn)
			}
		}
	}
	for most := min(rd.reader.fetchers(), len(d.queue)); d.fetchers < most; d.fetchers++ {
		fetch()
	}
	return nil
}

// fetchers is how many policies of AWS's a reading fetches at once. Readings of
// many accounts want the same ones at the same time: each fetches some of them,
// so that no account pays for all.
func (r *Reader) fetchers() int {
	return max(1, min(r.config.Concurrency, r.config.Total/int(max(1, r.crews.Load()))))
}

// fetch fetches policies of AWS's until none is left that no other reading is
// fetching. Whoever needs one of the others waits for it then.
func (rd *reading) fetch(ctx context.Context) {
	d := rd.details
	for {
		d.mu.Lock()
		i := slices.IndexFunc(d.queue, func(arn string) bool { return !rd.reader.shared.busy(arn) })
		if i < 0 {
			d.fetchers--
			d.mu.Unlock()
			return
		}
		arn := d.queue[i]
		d.queue = slices.Delete(d.queue, i, i+1)
		d.mu.Unlock()
		_, _ = rd.policies.get(ctx, arn) // whoever needs it sees what became of it
	}
}

// detail keeps of a role what is needed of it.
func (rd *reading) detail(role *types.RoleDetail) *detail {
	d := &detail{id: deref(role.RoleId)}
	if deref(role.RoleName) == "" || d.id == "" || role.Tags == nil || role.RolePolicyList == nil || role.AttachedManagedPolicies == nil {
		d.doubtful = true
		return d
	}
	full := &types.Role{
		Arn: role.Arn, RoleId: role.RoleId, RoleName: role.RoleName, Path: role.Path, CreateDate: role.CreateDate,
		PermissionsBoundary: role.PermissionsBoundary, RoleLastUsed: role.RoleLastUsed, Tags: role.Tags,
	}
	held := tags(full)
	if !serval.IsTagged(held) {
		d.nearMiss, _ = serval.NearMissKey(held)
		return d
	}
	trust := rd.intern(deref(role.AssumeRolePolicyDocument))
	full.AssumeRolePolicyDocument = &trust
	d.role, d.attached = full, role.AttachedManagedPolicies
	for _, p := range role.RolePolicyList {
		d.doubtful = d.doubtful || deref(p.PolicyDocument) == "" || deref(p.PolicyName) == ""
		d.inline = append(d.inline, serval.InlinePolicy{Name: deref(p.PolicyName), Document: document(deref(p.PolicyDocument))})
	}
	d.doubtful = d.doubtful || slices.ContainsFunc(d.attached, func(p types.AttachedPolicy) bool { return deref(p.PolicyArn) == "" })
	return d
}

// join puts the two lists together, when both have ended. What is certain is put
// down here; of what is not, read is called.
func (rd *reading) join(ctx context.Context, roles []listed, read func(func() error)) {
	rest := rd.details.roles
	for _, l := range roles {
		d := rest[l.arn]
		delete(rest, l.arn)
		switch {
		case d == nil || d.doubtful || d.id != l.id || d.role == nil && rd.known[l.id]:
			read(func() error { return rd.read(ctx, l) })
		case d.role == nil:
			rd.advance(func(p *Progress) {
				p.Read++
				if d.nearMiss != "" {
					rd.inventory.NearMisses = append(rd.inventory.NearMisses, serval.NearMiss{ARN: l.arn, TagKey: d.nearMiss})
				}
			})
		default:
			read(func() error { return rd.settle(ctx, l, d) })
		}
	}
	for arn, d := range rest { // made since, or gone again; or the listing broke off
		if d.role != nil || d.doubtful || d.nearMiss != "" || rd.known[d.id] {
			rd.advance(func(p *Progress) { p.Listed++ })
			read(func() error { return rd.read(ctx, listed{arn: arn, id: d.id}) })
		}
	}
}

// settle puts down a tagged role of the details. Where AWS does not know a policy
// that it has named, the role is read the other way.
func (rd *reading) settle(ctx context.Context, l listed, d *detail) error {
	p := rolePolicies{inline: serval.InlinePolicies{Status: serval.ListRead, Policies: d.inline}}
	p.managed, p.wrong = rd.documents(ctx, d.attached)
	var bounding []*callError
	p.boundary, bounding = rd.boundary(ctx, d.role)
	p.wrong = append(p.wrong, bounding...)
	if p.changed() {
		return rd.read(ctx, l)
	}
	p.report(rd.problems, l.arn)
	d.role.Description, d.role.MaxSessionDuration = l.description, l.longest
	rd.advance(func(done *Progress) {
		done.Read++
		done.Tagged++
		rd.inventory.Roles = append(rd.inventory.Roles, rd.form(d.role, p))
	})
	return nil
}
