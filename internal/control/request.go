package control

import (
	"context"
	"fmt"
	"maps"
	"time"
	"unicode/utf8"

	"github.com/serval-bridge/serval-bridge/internal/access"
	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// MaxBatch is how many roles may be asked for in one go.
const MaxBatch = 20

// maxOpen is how many requests of one person may be open at a time: nobody
// hides other people's requests from their approvers behind their own.
const maxOpen = 200

// An Ask is what a person fills in to request one role or several.
type Ask struct {
	RoleARNs []string
	serval.Ask
}

// Request asks for roles: one request each, all or none. Where the policy
// approves automatically they are approved in the same transaction.
func (p *Plane) Request(ctx context.Context, who serval.Principal, ask Ask) (made []*serval.Request, err error) {
	var target string
	if _, err := serval.ParseRoleARN(first(ask.RoleARNs)); err == nil {
		target = ask.RoleARNs[0] // of a refusal; never another thing's name
	}
	err = p.act(ctx, who, serval.RequestCreate, target, func(tx *store.Tx, e *serval.Event) error {
		made = nil // f may be repeated
		switch n := len(ask.RoleARNs); {
		case n == 0:
			return serval.Refuse(serval.Invalid, "Name the role to request.")
		case n > MaxBatch:
			return serval.Refuse(serval.Invalid, "At most %d roles can be requested in one go.", MaxBatch)
		}
		if who.Person.Suspended != "" {
			return suspended(who.Person)
		}
		open, err := tx.CountOpenRequests(who.Person.ID)
		if err != nil {
			return err
		}
		if open+len(ask.RoleARNs) > maxOpen {
			return serval.Refuse(serval.Exhausted, "You have %d open requests; at most %d are taken. Cancel or end some first.", open, maxOpen)
		}
		var batch string
		if len(ask.RoleARNs) > 1 {
			batch = door.NewID("batch")
		}
		asked := map[string]bool{}
		for _, arn := range ask.RoleARNs {
			if asked[arn] {
				return serval.Refuse(serval.Invalid, "The role %s is named twice.", arn)
			}
			asked[arn] = true
			r, err := p.request(tx, who, arn, ask.Ask, batch)
			if err != nil {
				return err
			}
			made = append(made, r)
		}
		e.Action = "" // each request has its own
		return nil
	})
	if err != nil {
		return nil, err
	}
	return made, nil
}

func (p *Plane) request(tx *store.Tx, who serval.Principal, arn string, ask serval.Ask, batch string) (*serval.Request, error) {
	if _, err := serval.ParseRoleARN(arn); err != nil {
		return nil, err
	}
	role, err := tx.RoleByARN(arn)
	if serval.IsRefusal(err, serval.NotFound) {
		return nil, noRole()
	}
	if err != nil {
		return nil, err
	}
	policies, err := p.inForce(&tx.View)
	if err != nil {
		return nil, err
	}
	policy, ok := access.Decide(policies, target(role), who.Person)
	if !ok {
		return nil, noRole()
	}
	if !role.HeldSince.IsZero() {
		return nil, held(role)
	}
	r, err := serval.NewRequest(door.NewID("req"), who.Person, role.Key, policy.Terms(), ask, p.settings.RequestExpiry, tx.Now)
	if err != nil {
		return nil, err
	}
	r.BatchID = batch
	if err := tx.Append(requestEvent(who, serval.RequestCreate, r)); err != nil {
		return nil, err
	}
	if err := p.approveAutomatically(tx, r); err != nil {
		return nil, err
	}
	return r, tx.SaveRequest(r)
}

// approveAutomatically decides what waits on r where its terms ask nobody.
func (p *Plane) approveAutomatically(tx *store.Tx, r *serval.Request) error {
	if len(r.Terms.Steps) > 0 {
		return nil
	}
	act, err := r.Decide(serval.System(), serval.Decision{Approve: true}, p.settings.RequestExpiry, tx.Now)
	if err != nil {
		return err
	}
	return tx.Append(requestEvent(serval.System(), act, r))
}

// requestEvent returns the event of an act on r, with the facts that an auditor
// needs beside it.
func requestEvent(who serval.Principal, act serval.Action, r *serval.Request) serval.Event {
	e := door.Event(who, act, r.ID, serval.OutcomeDone)
	e.Detail = r.Facts()
	return e
}

// noRequest is the answer both for a request that is not there and for one that
// is none of who's business.
func noRequest() error { return serval.Refuse(serval.NotFound, "There is no such request.") }

// visible returns the request if who has anything to do with it.
func visible(v *store.View, who serval.Principal, id string) (*serval.Request, error) {
	r, err := v.Request(id)
	if serval.IsRefusal(err, serval.NotFound) {
		return nil, noRequest()
	}
	if err != nil {
		return nil, err
	}
	if r.PersonID == who.Person.ID {
		return r, nil
	}
	// Whoever is suspended may not be who their email says: they see their own.
	if who.Person.Suspended != "" || len(r.Standings(who)) == 0 && !who.Auditor && !hasDecided(r, who.Person) {
		return nil, noRequest()
	}
	return r, nil
}

// hasDecided reports whether the person settled a step of the request, by
// whatever group they did.
func hasDecided(r *serval.Request, who serval.Person) bool {
	for _, a := range r.Allocations {
		for _, step := range a.Steps {
			if step.PersonID != "" && step.PersonID == who.ID {
				return true
			}
		}
	}
	return false
}

// RequestByID returns a request of who's, one that who may decide or has
// decided, or any for admins and auditors.
func (p *Plane) RequestByID(ctx context.Context, who serval.Principal, id string) (r *serval.Request, err error) {
	err = p.view(ctx, who, serval.RequestRead, id, func(v *store.View) error {
		r, err = visible(v, who, id)
		return err
	})
	return r, err
}

// A RequestFilter chooses requests.
type RequestFilter struct {
	Status serval.Status // empty for all
	After  string        // the id of a request of the same list: those behind it
	Limit  int
}

// Requests returns who's own requests, newest first, and whether there are more.
func (p *Plane) Requests(ctx context.Context, who serval.Principal, f RequestFilter) (list []*serval.Request, more bool, err error) {
	err = p.view(ctx, who, serval.RequestRead, "", func(v *store.View) error {
		filter := store.RequestFilter{PersonID: who.Person.ID, Status: f.Status, Limit: f.Limit + 1}
		if f.After != "" {
			last, err := v.Request(f.After)
			if serval.IsRefusal(err) || err == nil && last.PersonID != who.Person.ID {
				return noPage()
			}
			if err != nil {
				return err
			}
			filter.BeforeAt, filter.BeforeID = last.CreatedAt, last.ID
		}
		list, err = v.Requests(filter)
		return err
	})
	if len(list) > f.Limit {
		return list[:f.Limit], true, err
	}
	return list, false, err
}

// noPage is the answer for a page token that this list did not give.
func noPage() error { return serval.Refuse(serval.Invalid, "This page_token is not of this list.") }

// maxAwaiting bounds how many undecided requests are looked through for one
// approver.
const maxAwaiting = 5000

// Approvals returns the requests that wait for a decision which who may make,
// newest first.
func (p *Plane) Approvals(ctx context.Context, who serval.Principal) (list []*serval.Request, err error) {
	err = p.view(ctx, who, serval.RequestRead, "", func(v *store.View) error {
		if who.Person.Suspended != "" {
			return nil // nothing is theirs to decide
		}
		waiting, err := v.Requests(store.RequestFilter{Awaiting: true, Limit: maxAwaiting})
		if err != nil {
			return err
		}
		now := p.now()
		for _, r := range waiting {
			if _, _, due := r.Due(now); !due && r.Awaits(who.Person) {
				list = append(list, r)
			}
		}
		return nil
	})
	return list, err
}

// change runs one act of the dictionary on a request that who can see, and
// records the event that it returns.
func (p *Plane) change(ctx context.Context, who serval.Principal, what serval.Action, id string,
	f func(tx *store.Tx, r *serval.Request, e *serval.Event) (serval.Action, error)) (r *serval.Request, err error) {
	err = p.act(ctx, who, what, id, func(tx *store.Tx, e *serval.Event) error {
		if r, err = visible(&tx.View, who, id); err != nil {
			return err
		}
		e.Detail = map[string]string{}
		act, err := f(tx, r, e)
		if err != nil {
			return err
		}
		e.Action = act
		maps.Copy(e.Detail, r.Facts())
		return tx.SaveRequest(r)
	})
	if err != nil {
		return nil, err
	}
	p.door.Changed.Raise()
	return r, nil
}

// Decide approves or denies what waits on a request. A group that names the
// approver counts only as fresh as an hour.
func (p *Plane) Decide(ctx context.Context, who serval.Principal, id string, d serval.Decision) (*serval.Request, error) {
	return p.change(ctx, who, serval.RequestDecide, id, func(tx *store.Tx, r *serval.Request, e *serval.Event) (serval.Action, error) {
		if who.Person.Suspended != "" {
			return "", suspended(who.Person)
		}
		by := who
		if tx.Now.Sub(who.Person.GroupsAt) > groupsLast {
			by.Person.Groups = nil
			if r.Awaits(who.Person) && !r.Awaits(by.Person) {
				return "", serval.Refuse(serval.LoginRequired, "Your groups were read more than an hour ago. Sign in again to decide.")
			}
		}
		act, err := r.Decide(by, d, p.settings.RequestExpiry, tx.Now)
		if d.Reason != "" {
			e.Detail["decision_reason"] = d.Reason
		}
		return act, err
	})
}

// Extend asks for more time on a request of who's.
func (p *Plane) Extend(ctx context.Context, who serval.Principal, id string, minutes int, justification string) (*serval.Request, error) {
	return p.change(ctx, who, serval.ExtensionCreate, id, func(tx *store.Tx, r *serval.Request, e *serval.Event) (serval.Action, error) {
		if who.Person.Suspended != "" {
			return "", suspended(who.Person)
		}
		act, err := r.Extend(who, minutes, justification, tx.Now)
		if err != nil {
			return "", err
		}
		e.Detail["extension_minutes"], e.Detail["extension_justification"] = fmt.Sprint(minutes), justification
		if len(r.Terms.Steps) > 0 {
			return act, nil
		}
		asked := requestEvent(who, act, r)
		maps.Copy(asked.Detail, e.Detail)
		if err := tx.Append(asked); err != nil {
			return "", err
		}
		e.ActorKind, e.ActorID, e.Actor = serval.KindSystem, "", serval.System().Name()
		return r.Decide(serval.System(), serval.Decision{Approve: true}, p.settings.RequestExpiry, tx.Now)
	})
}

// Shorten lets the access end at the instant end, or where that is zero, after
// so many minutes.
func (p *Plane) Shorten(ctx context.Context, who serval.Principal, id string, minutes int, end time.Time) (*serval.Request, error) {
	return p.change(ctx, who, serval.RequestShorten, id, func(tx *store.Tx, r *serval.Request, _ *serval.Event) (serval.Action, error) {
		if !end.IsZero() {
			return r.Shorten(who, end, tx.Now)
		}
		return r.ShortenTo(who, minutes, tx.Now)
	})
}

// Cancel withdraws a request of who's that was not used yet.
func (p *Plane) Cancel(ctx context.Context, who serval.Principal, id string) (*serval.Request, error) {
	return p.change(ctx, who, serval.RequestCancel, id, func(tx *store.Tx, r *serval.Request, _ *serval.Event) (serval.Action, error) {
		return r.Cancel(who, tx.Now)
	})
}

// Done ends who's access early.
func (p *Plane) Done(ctx context.Context, who serval.Principal, id string) (*serval.Request, error) {
	return p.change(ctx, who, serval.RequestDone, id, func(tx *store.Tx, r *serval.Request, _ *serval.Event) (serval.Action, error) {
		return r.Done(who, tx.Now)
	})
}

// Revoke takes an access away, at once for every further session.
func (p *Plane) Revoke(ctx context.Context, who serval.Principal, id, reason string) (*serval.Request, error) {
	return p.change(ctx, who, serval.RequestRevoke, id, func(tx *store.Tx, r *serval.Request, e *serval.Event) (serval.Action, error) {
		if utf8.RuneCountInString(reason) > serval.MaxJustification {
			return "", serval.Refuse(serval.Invalid, "A reason has at most %d characters.", serval.MaxJustification)
		}
		e.Reason = reason
		return r.Revoke(who, tx.Now)
	})
}

func suspended(who serval.Person) error {
	return &serval.Refusal{Kind: serval.FailedPrecondition, Reason: who.Suspended, Detail: map[string]string{"cause": "person_suspended"}}
}

func held(r store.Role) error {
	return serval.Refuse(serval.FailedPrecondition,
		"The role %s was missing from the last sync together with most others of its account. Until that is confirmed no session is opened for it.", r.ARN)
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}
