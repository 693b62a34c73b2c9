package insight

import (
	"math/bits"
	"slices"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// Powers are what a role's permission documents come to. They do not change; one
// goroutine at a time may ask them.
type Powers struct {
	ref      *Reference
	role     string   // ARN
	attached []string // ARNs of the policies attached to it

	own      []statement
	limit    []statement // of the permissions boundary
	bounded  bool        // a boundary's document is known, and counted
	boundary string      // the boundary's ARN; empty where there is none
	unbound  string      // why its document is not known, where that is so

	unread []string // what could not be looked at, a sentence each
	named  int      // policies

	steps       budget
	some, broad []uint64 // actions that may be allowed somewhere, and those that are allowed everywhere
	cut         int      // actions of its own that the boundary leaves nowhere
}

// Look reads the permission documents of a role. Where that of its permissions
// boundary is not known the role's powers are those without it, and the card says
// so.
func (r *Reference) Look(role serval.Role) *Powers {
	p := &Powers{ref: r, role: role.ARN, steps: maxSteps}
	words := 0
	take := func(name string, doc serval.Document) {
		p.named++
		var statements []statement
		err := error(serval.Refuse(serval.Invalid, "the role's policies have more than %d statements, or %d actions, resources and values", maxOwn, maxOwnWords))
		if len(p.own) < maxOwn && words < maxOwnWords { // else nothing more is read
			if read, fault := r.read(name, doc); fault != nil {
				err = fault
			} else if words += wordsOf(read); words <= maxOwnWords && len(p.own)+len(read) <= maxOwn {
				statements, err = read, nil
			}
		}
		if err != nil {
			p.unread = append(p.unread, "The policy "+clip(name, 128)+" is not counted: "+err.Error()+".")
			return
		}
		p.own = append(p.own, statements...)
	}
	list := func(what string, status serval.ListStatus, action string) {
		if status != serval.ListRead {
			p.unread = append(p.unread, "Not all "+what+" policies are known: "+clip(action, 128)+" "+clip(string(status), 40)+".")
		}
	}
	list("inline", role.InlinePolicies.Status, role.InlinePolicies.Action)
	for _, policy := range role.InlinePolicies.Policies {
		take(policy.Name, policy.Document)
	}
	list("attached", role.ManagedPolicies.Status, role.ManagedPolicies.Action)
	for _, policy := range role.ManagedPolicies.Policies {
		take(policy.Name, policy.Document)
		p.attached = append(p.attached, policy.ARN)
	}
	if role.PermissionsBoundary != nil && *role.PermissionsBoundary != "" {
		p.boundary = *role.PermissionsBoundary
		p.bound(role.BoundaryPolicy)
	}
	return p
}

// bound takes the policy of the boundary into account, where it can be read.
func (p *Powers) bound(b *serval.BoundaryPolicy) {
	switch {
	case b == nil:
		p.unbound = "its document was not read"
	case b.Status != serval.ListRead:
		p.unbound = "its document is not known: " + clip(b.Action, 128) + " " + clip(string(b.Status), 40)
	default:
		statements, err := p.ref.read(policyName(p.boundary), b.Document)
		if err != nil {
			p.unbound = "its document is not counted: " + err.Error()
			return
		}
		p.limit, p.bounded = statements, true
	}
}

// unbounded returns the powers as they are where no boundary is counted.
func (p *Powers) unbounded() *Powers {
	free := *p
	free.limit, free.bounded = nil, false
	free.some, free.broad, free.cut = nil, nil, 0
	return &free
}

// policyName returns the name that ends a policy's ARN.
func policyName(arn string) string { return arn[strings.LastIndexByte(arn, '/')+1:] }

// weigh fills some and broad.
func (p *Powers) weigh() {
	if p.some != nil {
		return
	}
	own := p.ref.balance(p.own, &p.steps)
	p.some, p.broad = own.some.words, own.broad.words
	if p.bounded {
		// Both must allow (IAM User Guide, "Permissions boundaries for IAM
		// entities").
		limit := p.ref.balance(p.limit, &p.steps)
		before := 0
		for w := range p.some {
			before += bits.OnesCount64(p.some[w])
			p.some[w] &= limit.some.words[w]
			p.broad[w] &= limit.broad.words[w]
			// On different things each allows nothing together.
			for word := p.some[w] &^ own.wide.words[w] &^ limit.wide.words[w]; word != 0; word &= word - 1 {
				if i := w*64 + bits.TrailingZeros64(word); p.steps >= 0 && len(p.causes(i)) == 0 && p.steps >= 0 {
					p.some[w] &^= 1 << (i % 64)
				}
			}
		}
		p.cut = before - (&board{p.some}).total()
	}
}

// A balance is what statements of one kind come to. Wide are the actions that one
// of them allows without naming on what.
type balance struct{ some, broad, wide board }

func (r *Reference) balance(statements []statement, steps *budget) balance {
	b := balance{board{make([]uint64, r.size())}, board{make([]uint64, r.size())}, board{make([]uint64, r.size())}}
	for i := range statements {
		s := &statements[i]
		switch {
		case !s.allow:
		case s.everywhere || s.elsewhere:
			r.each(s, func(w int, word uint64) {
				b.some.words[w] |= word
				b.wide.words[w] |= word
				if s.everywhere && !s.conditional {
					b.broad.words[w] |= word
				}
			})
		default:
			r.allowOn(s, statements, &b.some, steps)
		}
	}
	for i := range statements {
		s := &statements[i]
		if s.allow {
			continue
		}
		whole := s.everywhere && !s.conditional
		r.each(s, func(w int, word uint64) {
			b.broad.words[w] &^= word
			if whole {
				b.some.words[w] &^= word
			}
		})
	}
	return b
}

// each calls f with the words of the actions that a statement is about.
func (r *Reference) each(s *statement, f func(w int, word uint64)) {
	if !s.others {
		for _, m := range s.matched {
			for i, word := range m.words {
				if word != 0 {
					f(m.lo+i, word)
				}
			}
		}
		return
	}
	b := r.scratch.Get().(*board)
	defer r.scratch.Put(b)
	b.clear()
	b.add(r.match("*"))
	for _, m := range s.matched {
		b.remove(m)
	}
	for w, word := range b.words {
		if word != 0 {
			f(w, word)
		}
	}
}

// allowOn adds what a statement allows on the resources it names: the actions
// that have a resource type which one of them may be of, and that no Deny takes
// back on it whole.
func (r *Reference) allowOn(s *statement, all []statement, some *board, steps *budget) {
	b := r.scratch.Get().(*board)
	defer r.scratch.Put(b)
	b.clear()
	r.each(s, func(w int, word uint64) { b.words[w] |= word })
	var typed []uint64
	for i := range s.resources {
		x := &s.resources[i]
		mine, others := r.kindsOf(x)
		if !steps.take((len(mine) + len(others)) / 8) {
			break
		}
		for _, kinds := range [2][]*kind{mine, others} {
			for _, k := range kinds {
				on := r.services[k.service].onType[k.place]
				typed = typed[:0]
				left := uint64(0)
				for j, word := range on.words {
					word &= b.words[on.lo+j] &^ some.words[on.lo+j]
					left |= word
					typed = append(typed, word)
				}
				if left == 0 || !steps.onType(x, k) {
					continue
				}
				if !steps.take(len(all) / 8) {
					break
				}
				for j := range all {
					if d := &all[j]; !d.allow && !d.conditional && d.takes(x, steps) {
						r.each(d, func(w int, word uint64) {
							if w >= on.lo && w < on.lo+len(typed) {
								typed[w-on.lo] &^= word
							}
						})
					}
				}
				for j, word := range typed {
					some.words[on.lo+j] |= word
				}
			}
		}
	}
	if *steps < 0 {
		for w, word := range b.words {
			some.words[w] |= word
		}
	}
}

// takes reports whether the statement is about everything that the pattern of a
// resource matches.
func (s *statement) takes(x *resource, steps *budget) bool {
	if s.everywhere {
		return true
	}
	if s.elsewhere {
		for i := range s.resources {
			if steps.meet(&s.resources[i], x) {
				return false
			}
		}
		return true
	}
	if !steps.take(1 + len(s.resources)/8) {
		return false
	}
	for i := range s.resources {
		mine := &s.resources[i]
		if mine.pattern == mine.written && steps.covers(mine.pattern, x.pattern) {
			return true
		}
	}
	return false
}

// A grant is how one statement allows one action.
type grant struct {
	*statement
	on          []resource
	restricted  bool // on some targets only, by a condition
	conditional bool
}

// grants returns the statements that allow an action that is not denied
// everywhere, with what denies leave to each.
func (r *Reference) grants(statements []statement, i int, steps *budget) (grants []grant) {
	steps.take(len(statements) / 4)
	var restricted, conditional bool
	var denies []*statement // that are whole, on some resources
	for j := range statements {
		d := &statements[j]
		if d.allow || !d.covers(i) {
			continue
		}
		switch {
		case d.conditional && (d.everywhere || d.elsewhere):
			conditional = true
			for _, c := range d.conditions {
				restricted = restricted || c.unless()
			}
		case d.elsewhere:
			restricted = true
		}
		if !d.conditional {
			denies = append(denies, d)
		}
	}
	a := &r.actions[i]
	for j := range statements {
		s := &statements[j]
		if !s.allow || !s.covers(i) {
			continue
		}
		g := grant{statement: s, restricted: restricted || s.restricted, conditional: conditional || s.conditional}
		switch {
		case s.everywhere || s.elsewhere:
			g.on = everything
		case *steps < 0:
			g.on = s.resources
		default:
			for k := range s.resources {
				if x := &s.resources[k]; r.fits(a, x, steps) && !denied(denies, x, steps) {
					g.on = append(g.on, *x)
				}
			}
		}
		if len(g.on) > 0 {
			grants = append(grants, g)
		}
	}
	return grants
}

// written returns the resources as the statement has them, the first of them.
func (g *grant) written() (list []string) {
	for _, x := range g.on[:min(len(g.on), maxNamed)] {
		list = append(list, clip(x.written, 300))
	}
	return list
}

// fits reports whether the resource may be one that the action is done to.
func (r *Reference) fits(a *action, x *resource, steps *budget) bool {
	for _, t := range a.types {
		if steps.onType(x, &r.services[a.service].types[t]) {
			return true
		}
	}
	return false
}

// denied reports whether a Deny takes all that the pattern of a resource matches.
func denied(denies []*statement, x *resource, steps *budget) bool {
	return slices.ContainsFunc(denies, func(d *statement) bool { return d.takes(x, steps) })
}

// deniedOn reports whether a Deny takes an action back on one resource.
func deniedOn(statements []statement, i int, arn string, steps *budget) bool {
	x := newResource(arn, arn)
	if !steps.take(len(statements) / 8) {
		return false
	}
	for j := range statements {
		if d := &statements[j]; !d.allow && !d.conditional && d.covers(i) && d.takes(&x, steps) {
			return true
		}
	}
	return false
}

// can reports whether the action may be allowed somewhere.
func (p *Powers) can(i int) bool { return p.some[i/64]&(1<<(i%64)) != 0 }

// everywhere reports whether the action is allowed on every resource, always.
func (p *Powers) everywhere(i int) bool { return p.broad[i/64]&(1<<(i%64)) != 0 }

// causes returns how the action is allowed; none where it is not. Where a boundary
// is counted, each is what of it the boundary leaves.
func (p *Powers) causes(i int) []grant {
	if !p.can(i) {
		return nil
	}
	own := p.ref.grants(p.own, i, &p.steps)
	if !p.bounded {
		return own
	}
	limit := p.ref.grants(p.limit, i, &p.steps)
	left := own[:0]
	for _, g := range own {
		if g.on, g.conditional = p.within(&g, limit); len(g.on) > 0 {
			left = append(left, g)
		}
	}
	return left
}

// maxWithin is how many resources that a boundary leaves of one grant are told
// apart.
const maxWithin = 100

// within returns on what a boundary leaves a grant, and whether under conditions.
func (p *Powers) within(g *grant, limit []grant) (on []resource, conditional bool) {
	conditional = true
	if !p.steps.take(len(limit) / 8) {
		return g.on, g.conditional
	}
	for i := range limit {
		l := &limit[i]
		var both []resource
		switch {
		case l.isWhole():
			both = g.on
		case g.isWhole():
			both = l.on
		default:
			for k := range g.on {
				if slices.ContainsFunc(l.on, func(x resource) bool { return p.steps.meet(&g.on[k], &x) }) {
					both = append(both, g.on[k])
				}
			}
		}
		if len(both) > 0 {
			conditional = conditional && l.conditional
		}
		for _, x := range both {
			if len(on) < maxWithin && !slices.ContainsFunc(on, func(o resource) bool { return o.pattern == x.pattern }) {
				on = append(on, x)
			}
		}
	}
	return on, conditional || g.conditional
}

// isWhole reports whether the grant is on every resource.
func (g *grant) isWhole() bool { return g.on[0].pattern == "*" }
