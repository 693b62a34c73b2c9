package awsiam

import (
	"context"
	"errors"
	"net/url"
	"slices"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"golang.org/x/sync/errgroup"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// read looks at one listed role and puts down what it is: tagged, with its
// policies; untagged; gone; or unreadable. It fails only where the role is of
// another account.
//
// Every listed role is looked at, those under /aws-service-role/ too. Nobody
// assumes them with a web identity, but their tags can be set, so leaving them
// out would make "seen without the tag" and "not looked at" the same.
func (rd *reading) read(ctx context.Context, l listed) error {
	role, err := rd.role(ctx, l.name())
	if err == nil {
		if err := rd.ours(deref(role.Arn)); err != nil {
			return err
		}
	}
	var policies rolePolicies
	tagged := false
	if err == nil {
		if tagged = serval.IsTagged(tags(role)); tagged {
			role, policies, err = rd.whole(ctx, role)
		}
		if err == nil && tagged {
			tagged = serval.IsTagged(tags(role)) // it was read again
		}
	}
	var e *callError
	if isWrongAccount(err) {
		return err
	}
	if err != nil && !isGone(err) {
		e = rd.trouble(err, getRole, l.arn)
	}

	rd.advance(func(p *Progress) {
		p.Read++
		switch {
		case e != nil:
			rd.inventory.Unreadable = append(rd.inventory.Unreadable,
				serval.Unreadable{ARN: l.arn, RoleID: l.id, Action: e.action, Code: e.code})
		case err != nil: // deleted since it was listed
		case tagged:
			p.Tagged++
			rd.inventory.Roles = append(rd.inventory.Roles, rd.form(role, policies))
		default:
			if key, ok := serval.NearMissKey(tags(role)); ok {
				rd.inventory.NearMisses = append(rd.inventory.NearMisses, serval.NearMiss{ARN: deref(role.Arn), TagKey: key})
			}
			if id := deref(role.RoleId); rd.known[id] {
				rd.inventory.Untagged = append(rd.inventory.Untagged, id)
			}
		}
	})
	return nil
}

// role asks for one role.
func (s *session) role(ctx context.Context, name string) (*types.Role, error) {
	return ask(ctx, &s.line, getRole, name, func(ctx context.Context) (*types.Role, error) {
		out, err := s.iam.GetRole(ctx, &iam.GetRoleInput{RoleName: &name})
		switch {
		case err != nil:
			return nil, err
		case out.Role == nil || deref(out.Role.RoleId) == "" || deref(out.Role.Arn) == "":
			return nil, errEmpty
		}
		return out.Role, nil
	})
}

// whole reads the policies of a tagged role. Where AWS does not know what it
// has just named, the role or a policy changed in between: the role is read
// once again, from the start.
func (rd *reading) whole(ctx context.Context, role *types.Role) (*types.Role, rolePolicies, error) {
	p := rd.rolePolicies(ctx, role)
	if !p.changed() {
		p.report(rd.problems, deref(role.Arn))
		return role, p, nil
	}
	role, err := rd.role(ctx, deref(role.RoleName))
	if err != nil {
		return nil, p, err
	}
	if err := rd.ours(deref(role.Arn)); err != nil {
		return nil, p, err
	}
	p = rd.rolePolicies(ctx, role)
	p.report(rd.problems, deref(role.Arn))
	return role, p, nil
}

// rolePolicies are both lists of a role's policies, its boundary's policy, and what
// went wrong.
type rolePolicies struct {
	inline   serval.InlinePolicies
	managed  serval.ManagedPolicies
	boundary *serval.BoundaryPolicy // nil where there is none
	wrong    []*callError
}

// changed reports whether AWS did not know something it had named.
func (p rolePolicies) changed() bool {
	for _, e := range p.wrong {
		if e.kind == gone {
			return true
		}
	}
	return false
}

func (p rolePolicies) report(to *problems, role string) {
	for _, e := range p.wrong {
		target := e.target
		if e.action != getPolicy && e.action != getPolicyVersion {
			target = role
		}
		to.add(e, target)
	}
}

// rolePolicies reads both lists side by side, and the documents of each; and what
// the role's boundary names.
func (rd *reading) rolePolicies(ctx context.Context, role *types.Role) rolePolicies {
	name := deref(role.RoleName)
	var p rolePolicies
	var inline, managed, bounding []*callError
	var g errgroup.Group
	g.Go(func() error { p.boundary, bounding = rd.boundary(ctx, role); return nil })
	g.Go(func() error { p.inline, inline = rd.inlinePolicies(ctx, name); return nil })
	g.Go(func() error { p.managed, managed = rd.managedPolicies(ctx, name); return nil })
	_ = g.Wait() // each says what went wrong in its own way
	p.wrong = slices.Concat(inline, managed, bounding)
	return p
}

// boundary reads the policy that is a role's permissions boundary. Its two calls
// are made once for all roles that have it, and not at all where it is attached to
// one too.
func (rd *reading) boundary(ctx context.Context, role *types.Role) (*serval.BoundaryPolicy, []*callError) {
	arn := boundaryOf(role)
	if arn == "" {
		return nil, nil
	}
	v, err := rd.policies.get(ctx, rd.intern(arn))
	b := &serval.BoundaryPolicy{Status: serval.ListRead, Version: v.id, Document: v.document}
	if err == nil {
		return b, nil
	}
	e := asCallError(err, getPolicy, arn)
	b.Status, b.Action = status(e), e.action
	return b, []*callError{e}
}

// boundaryOf returns the ARN of a role's permissions boundary; empty where it has
// none.
func boundaryOf(role *types.Role) string {
	if b := role.PermissionsBoundary; b != nil {
		return deref(b.PermissionsBoundaryArn)
	}
	return ""
}

func (rd *reading) inlinePolicies(ctx context.Context, name string) (serval.InlinePolicies, []*callError) {
	names, err := pagesOf(listRolePolicies, name, func(marker *string) ([]string, bool, *string, error) {
		out, err := ask(ctx, &rd.line, listRolePolicies, name, func(ctx context.Context) (*iam.ListRolePoliciesOutput, error) {
			out, err := rd.iam.ListRolePolicies(ctx, &iam.ListRolePoliciesInput{RoleName: &name, Marker: marker, MaxItems: size()})
			if err == nil && out.PolicyNames == nil {
				return nil, errEmpty
			}
			return out, err
		})
		if err != nil {
			return nil, false, nil, err
		}
		return out.PolicyNames, out.IsTruncated, out.Marker, nil
	})
	list := serval.InlinePolicies{Status: serval.ListRead, Policies: make([]serval.InlinePolicy, len(names))}
	var wrong []*callError
	if err != nil {
		wrong = append(wrong, asCallError(err, listRolePolicies, name))
	}
	errs := make([]error, len(names))
	var g errgroup.Group
	for i, policy := range names {
		list.Policies[i].Name = policy
		g.Go(func() error {
			list.Policies[i].Document, errs[i] = ask(ctx, &rd.line, getRolePolicy, name, func(ctx context.Context) (serval.Document, error) {
				out, err := rd.iam.GetRolePolicy(ctx, &iam.GetRolePolicyInput{RoleName: &name, PolicyName: &policy})
				switch {
				case err != nil:
					return "", err
				case deref(out.PolicyDocument) == "":
					return "", errEmpty
				}
				return document(*out.PolicyDocument), nil
			})
			return nil
		})
	}
	_ = g.Wait() // errs has them all
	for _, err := range errs {
		if err != nil {
			wrong = append(wrong, asCallError(err, getRolePolicy, name))
		}
	}
	if e := worst(wrong); e != nil {
		list.Status, list.Action = status(e), e.action
	}
	return list, wrong
}

func (rd *reading) managedPolicies(ctx context.Context, name string) (serval.ManagedPolicies, []*callError) {
	attached, err := pagesOf(listAttachedRolePolicies, name, func(marker *string) ([]types.AttachedPolicy, bool, *string, error) {
		out, err := ask(ctx, &rd.line, listAttachedRolePolicies, name, func(ctx context.Context) (*iam.ListAttachedRolePoliciesOutput, error) {
			out, err := rd.iam.ListAttachedRolePolicies(ctx, &iam.ListAttachedRolePoliciesInput{RoleName: &name, Marker: marker, MaxItems: size()})
			if err == nil && out.AttachedPolicies == nil {
				return nil, errEmpty
			}
			return out, err
		})
		if err != nil {
			return nil, false, nil, err
		}
		return out.AttachedPolicies, out.IsTruncated, out.Marker, nil
	})
	list, wrong := rd.documents(ctx, attached)
	if err != nil {
		wrong = append(wrong, asCallError(err, listAttachedRolePolicies, name))
		e := worst(wrong)
		list.Status, list.Action = status(e), e.action
	}
	return list, wrong
}

// documents reads the documents of attached policies.
func (rd *reading) documents(ctx context.Context, attached []types.AttachedPolicy) (serval.ManagedPolicies, []*callError) {
	list := serval.ManagedPolicies{Status: serval.ListRead, Policies: make([]serval.ManagedPolicy, len(attached))}
	var wrong []*callError
	errs := make([]error, len(attached))
	var g errgroup.Group
	for i, policy := range attached {
		g.Go(func() error {
			p := serval.ManagedPolicy{ARN: rd.intern(deref(policy.PolicyArn)), Name: rd.intern(deref(policy.PolicyName))}
			var v version
			v, errs[i] = rd.policies.get(ctx, p.ARN)
			p.Version, p.Document = v.id, v.document
			list.Policies[i] = p
			return nil
		})
	}
	_ = g.Wait() // errs has them all
	for i, err := range errs {
		if err != nil {
			wrong = append(wrong, asCallError(err, getPolicy, deref(attached[i].PolicyArn)))
		}
	}
	if e := worst(wrong); e != nil {
		list.Status, list.Action = status(e), e.action
	}
	return list, wrong
}

// pagesOf joins the pages of a role's list, on which both faults of a marker
// are possible too. What was read before a failure is returned with it.
func pagesOf[T any](action, target string, page func(marker *string) (items []T, more bool, next *string, err error)) ([]T, error) {
	var all []T
	var marker *string
	used := make(map[string]bool)
	for range mostPages {
		items, more, next, err := page(marker)
		if err != nil {
			return all, err
		}
		all = append(all, items...)
		if !more {
			return all, nil
		}
		if deref(next) == "" || used[*next] {
			break
		}
		used[*next] = true
		marker = next
	}
	return all, &callError{action: action, target: target, kind: failed, code: codeEndless,
		message: "the list did not end: its marker was missing or came twice"}
}

func size() *int32 {
	n := int32(pageSize)
	return &n
}

// worst returns the one error that a list's status tells: a denial before a
// throttle before all else, so that it does not depend on which came first.
func worst(wrong []*callError) *callError {
	rank := func(e *callError) int {
		switch e.kind {
		case denied:
			return 0
		case throttled:
			return 1
		}
		return 2
	}
	var w *callError
	for _, e := range wrong {
		if w == nil || rank(e) < rank(w) || rank(e) == rank(w) && e.action < w.action {
			w = e
		}
	}
	return w
}

func status(e *callError) serval.ListStatus {
	switch e.kind {
	case denied:
		return serval.ListDenied
	case throttled:
		return serval.ListThrottled
	}
	return serval.ListFailed
}

func isWrongAccount(err error) bool {
	e, ok := errors.AsType[*callError](err)
	return ok && e.code == codeWrongAccount
}

func isGone(err error) bool {
	e, ok := errors.AsType[*callError](err)
	return ok && e.kind == gone && e.action == getRole
}

// form returns the role as the dictionary has it. The caller holds the mutex.
func (rd *reading) form(role *types.Role, p rolePolicies) serval.Role {
	r := serval.Role{
		ARN: deref(role.Arn), RoleID: deref(role.RoleId), Name: deref(role.RoleName), Path: deref(role.Path),
		Description: deref(role.Description), CreatedAt: deref(role.CreateDate),
		MaxSessionSeconds: int(deref(role.MaxSessionDuration)), Tags: tags(role),
		TrustPolicy:    serval.Document(rd.internLocked(string(document(deref(role.AssumeRolePolicyDocument))))),
		InlinePolicies: p.inline, ManagedPolicies: p.managed, BoundaryPolicy: p.boundary,
	}
	if arn := boundaryOf(role); arn != "" {
		arn = rd.internLocked(arn)
		r.PermissionsBoundary = &arn
	}
	if used := role.RoleLastUsed; used != nil {
		r.LastUsedAt = used.LastUsedDate
	}
	return r
}

// intern returns the first text of the reading that equals s. Roles are made
// from templates: their trust policies are few.
func (rd *reading) intern(s string) string {
	rd.mu.Lock()
	defer rd.mu.Unlock()
	return rd.internLocked(s)
}

func (rd *reading) internLocked(s string) string {
	if first, ok := rd.interned[s]; ok {
		return first
	}
	rd.interned[s] = s
	return s
}

func tags(role *types.Role) map[string]string {
	m := make(map[string]string, len(role.Tags))
	for _, t := range role.Tags {
		m[deref(t.Key)] = deref(t.Value)
	}
	return m
}

// document decodes a document as IAM encodes it, by RFC 3986: once, and as a
// path, since a plus is a plus. What does not decode stays as it came.
func document(encoded string) serval.Document {
	text, err := url.PathUnescape(encoded)
	if err != nil {
		return serval.Document(encoded)
	}
	return serval.Document(text)
}
