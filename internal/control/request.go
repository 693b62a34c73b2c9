package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/serval-bridge/serval-bridge/internal/access"
	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/history"
	"github.com/serval-bridge/serval-bridge/internal/roster"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// MaxBatch is how many roles may be asked for in one go.
const MaxBatch = 20

// maxOpen is how many requests of one person may be open at a time: nobody
// hides other people's requests from their approvers behind their own.
const maxOpen = 200

// groupsLast is how old somebody's groups may be for a decision.
const groupsLast = time.Hour

// An Ask is what a person fills in to request one role or several.
type Ask struct {
	RoleARNs []string
	serval.Ask
	BreakGlass bool // approve it oneself, where the policy allows that
}

// A Request is a request as it is shown, with what of it depends on the moment.
type Request struct {
	*serval.Request
	AccountName string

	// Suspended says why an approval that stands cannot be used now; empty where
	// it can, and for what is not approved.
	Suspended string

	// Notices are of what people had to be told; read where one request is asked
	// for or changed, and not in lists.
	Notices []serval.Notice

	// Explained is what is approved, or would be, and Trust whether the role's trust
	// policy accepts whoever asked; read where one request is asked for, and for whoever
	// decides, and not while anything is written. Both are nil where the role is gone.
	Explained *history.Explained
	Trust     *Verdict

	// Earlier is what the person asked before for the same role; read for whoever
	// decides, and not in other lists.
	Earlier history.Earlier
}

// Request asks for roles: one request each, all or none. Where the policy
// approves automatically they are approved in the same transaction; so they are
// where the glass is broken.
func (p *Plane) Request(ctx context.Context, who serval.Principal, ask Ask) (made []Request, err error) {
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
			r, err := p.request(tx, who, arn, ask, batch)
			if err != nil {
				return err
			}
			one, err := p.shown(&tx.View, r)
			if err != nil {
				return err
			}
			made = append(made, one)
		}
		e.Action = "" // each request has its own
		return nil
	})
	if err != nil {
		return nil, err
	}
	return made, nil
}

func (p *Plane) request(tx *store.Tx, who serval.Principal, arn string, ask Ask, batch string) (*serval.Request, error) {
	if _, err := serval.ParseRoleARN(arn); err != nil {
		return nil, err
	}
	role, err := tx.RoleByARN(arn)
	if serval.IsRefusal(err, serval.NotFound) {
		return nil, noRole(who.Person)
	}
	if err != nil {
		return nil, err
	}
	policies, err := p.inForce(&tx.View)
	if err != nil {
		return nil, err
	}
	policy, ok := access.Decide(policies.List, roster.Target(&role), who.Person)
	if !ok {
		return nil, noRole(who.Person)
	}
	if !role.HeldSince.IsZero() {
		return nil, held(role)
	}
	r, err := serval.NewRequest(door.NewID("req"), who.Person, role.Key, policy.Terms(), ask.Ask, p.settings.RequestExpiry, tx.Now)
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
	// The request is kept before what tells of it.
	if err := tx.SaveRequest(r); err != nil {
		return nil, err
	}
	if !ask.BreakGlass {
		return r, p.door.TellOf(tx, who, serval.RequestCreate, r, "")
	}
	if !r.MayBreakGlass(who) {
		return nil, serval.Refuse(serval.Invalid, "Policy %s has no glass to break for %s. Request it as usual.", r.Terms.Policy, role.ARN)
	}
	act, err := p.breakGlass(tx, who, r, "")
	if err != nil {
		return nil, err
	}
	if err := p.door.TellOf(tx, who, act, r, ""); err != nil {
		return nil, err
	}
	if err := tx.Append(requestEvent(who, act, r)); err != nil {
		return nil, err
	}
	return r, tx.SaveRequest(r)
}

// breakGlass has who approve what waits on their own r, where the policy of
// today allows that as well as the one that r was made under. A group that makes
// who eligible counts only as fresh as for any decision.
func (p *Plane) breakGlass(tx *store.Tx, who serval.Principal, r *serval.Request, reason string) (serval.Action, error) {
	fresh := who.Person
	if !hasFreshGroups(fresh, tx.Now) {
		fresh.Groups = nil
	}
	_, policy, err := p.usable(&tx.View, r, who.Person)
	if err != nil {
		return "", err
	}
	if !policy.BreakGlass {
		return "", serval.Refuse(serval.Denied, "Policy %s, which decides now, has no glass to break.", policy.Name)
	}
	if !policy.Eligible.Include(fresh) {
		return "", staleGroups()
	}
	return r.BreakGlass(who, reason, p.settings.RequestExpiry, tx.Now)
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

// usable returns the role and the policy of today that let person use what is
// approved on r: its very role is still there, and a policy still fits. Where
// there is none the approval stands, and can be used again when there is.
func (p *Plane) usable(v *store.View, r *serval.Request, person serval.Person) (store.Role, serval.AccessPolicy, error) {
	refuse := func(err error) (store.Role, serval.AccessPolicy, error) {
		return store.Role{}, serval.AccessPolicy{}, err
	}
	if person.Suspended != "" {
		return refuse(suspended(person))
	}
	if !serval.SameEmail(person.Email, r.Email) {
		return refuse(&serval.Refusal{Kind: serval.FailedPrecondition, Detail: map[string]string{"cause": "email_changed"},
			Reason: fmt.Sprintf("This request was made as %s; you are %s now.", r.Email, person.Email)})
	}
	role, err := v.RoleOf(r)
	if serval.IsRefusal(err, serval.NotFound) {
		return refuse(&serval.Refusal{Kind: serval.FailedPrecondition, Detail: map[string]string{"cause": "role_gone"},
			Reason: "The role that was approved is not there any more, or is no longer tagged. If it was created again it is another role, and has to be requested anew."})
	}
	if err != nil {
		return refuse(err)
	}
	if !role.HeldSince.IsZero() {
		return refuse(held(role))
	}
	if err := p.blocked(v, role); err != nil {
		return refuse(err)
	}
	policies, err := p.inForce(v)
	if err != nil {
		return refuse(err)
	}
	policy, ok := access.Decide(policies.List, roster.Target(&role), person)
	if !ok {
		return refuse(&serval.Refusal{Kind: serval.FailedPrecondition, Detail: map[string]string{"cause": "not_eligible"},
			Reason: "No access policy makes you eligible for this role any more. The approval stands and can be used again when one does." + groupsCause(person)})
	}
	if err := history.Escalated(v, r, role, policy); err != nil {
		return refuse(err)
	}
	return role, policy, nil
}

// suspensions says why an approval cannot be used now, to whoever sees it, by the
// cause that usable refuses with. It is read only.
var suspensions = map[string]string{
	"person_suspended": "The person is suspended until an admin links their identity again.",
	"email_changed":    "It was requested under another email than the person has now.",
	"role_gone":        "The role is not there any more, or is no longer tagged.",
	"role_held":        "The role was missing from the last sync together with most others of its account, and that is not confirmed yet.",
	"finding":          "The role's trust policy would let somebody in without asking here, or cannot be looked at; whoever owns it has to mend it.",
	"role_escalated":   "Since it was approved the role has come to make whoever holds it an administrator. It is used again when it is approved again, by an extension.",
	"not_eligible":     "No access policy makes the person eligible for this role any more.",
}

// groupsCause names missing groups as what may be behind a refusal; empty for
// whoever has theirs.
func groupsCause(who serval.Person) string {
	if who.GroupsNote == "" {
		return ""
	}
	return " Your groups are not known: " + who.GroupsNote
}

// shown returns r as it is shown, with its notices.
func (p *Plane) shown(v *store.View, r *serval.Request) (Request, error) {
	list, err := p.listed(v, []*serval.Request{r})
	if err != nil {
		return Request{}, err
	}
	if list[0].Earlier, err = history.Before(v, r); err != nil {
		return Request{}, err
	}
	list[0].Notices, err = v.NoticesOf(r.ID)
	return list[0], err
}

// listed returns requests as they are shown.
func (p *Plane) listed(v *store.View, requests []*serval.Request) ([]Request, error) {
	names, people := map[string]string{}, v.PersonReader()
	list := make([]Request, 0, len(requests))
	for _, r := range requests {
		one := Request{Request: r}
		name, known := names[r.Role.AccountID]
		if !known {
			var err error
			if name, err = v.AccountName(r.Role.AccountID); err != nil {
				return nil, err
			}
			names[r.Role.AccountID] = name
		}
		one.AccountName = name
		if r.Status == serval.StatusApproved {
			person, err := people(r.PersonID)
			if err != nil {
				return nil, err
			}
			_, _, err = p.usable(v, r, person)
			if why, refused := errors.AsType[*serval.Refusal](err); refused {
				one.Suspended = suspensions[why.Detail["cause"]]
			} else if err != nil {
				return nil, err
			}
		}
		list = append(list, one)
	}
	return list, nil
}

// RequestByID returns a request of who's, one that who may decide or has
// decided, or any for admins and auditors.
func (p *Plane) RequestByID(ctx context.Context, who serval.Principal, id string) (r Request, err error) {
	err = p.view(ctx, who, serval.RequestRead, id, func(v *store.View) error {
		found, err := visible(v, who, id)
		if err != nil {
			return err
		}
		if r, err = p.shown(v, found); err == nil {
			err = p.inform(v, history.Explaining(v), v.Person, &r)
		}
		return err
	})
	return r, err
}

// inform adds what there is to know of the role of r before it is approved or used.
func (p *Plane) inform(v *store.View, x *history.Explainer, person func(string) (serval.Person, error), r *Request) (err error) {
	if r.Explained, err = x.Explain(r.Request, r.Earlier); err != nil || r.Explained == nil {
		return err
	}
	who, err := person(r.PersonID)
	if err == nil {
		r.Trust, err = p.verdict(v, *r.Explained.Role, who)
	}
	return err
}

// A RequestFilter chooses requests; empty fields choose all of who's own.
type RequestFilter struct {
	Status  serval.Status
	Running bool // those whose clock runs

	// For admins and auditors: everybody's, or those of whoever has the email.
	All   bool
	Email string

	After string // the page token of the page before
	Limit int
}

// Requests returns who's own requests, or for admins and auditors everybody's,
// newest first, and the token of the page behind; empty where there is none.
func (p *Plane) Requests(ctx context.Context, who serval.Principal, f RequestFilter) (list []Request, next string, err error) {
	err = p.view(ctx, who, serval.RequestRead, "", func(v *store.View) error {
		filter := store.RequestFilter{PersonID: who.Person.ID, Status: f.Status, Running: f.Running, Limit: f.Limit + 1}
		if f.All || f.Email != "" {
			if !who.Admin && !who.Auditor {
				return serval.Refuse(serval.Denied, "Other people's requests are listed for admins and auditors.")
			}
			filter.PersonID, filter.Email = "", f.Email
		}
		if filter.BeforeAt, filter.BeforeID, err = door.ReadPlace(f.After); err != nil {
			return err
		}
		found, err := v.Requests(filter)
		if err != nil {
			return err
		}
		if len(found) > f.Limit {
			found = found[:f.Limit]
			next = door.Place(found[f.Limit-1].CreatedAt, found[f.Limit-1].ID)
		}
		list, err = p.listed(v, found)
		return err
	})
	return list, next, err
}

// maxApprovals is how many requests that wait are on one page at most: of each is
// worked out what its role can do and what that has gained.
const maxApprovals = 100

// Approvals returns the requests that wait for a decision which who may make,
// newest first, with what there is to know for it, and the token of the page
// behind; empty where there is none. A page holds at most a hundred, and may hold
// fewer than limit where many others wait, even none.
func (p *Plane) Approvals(ctx context.Context, who serval.Principal, after string, limit int) (list []Request, next string, err error) {
	limit = min(limit, maxApprovals)
	err = p.view(ctx, who, serval.RequestRead, "", func(v *store.View) error {
		filter := store.RequestFilter{Awaiting: true, Limit: p.mostAwaiting / 4}
		if filter.BeforeAt, filter.BeforeID, err = door.ReadPlace(after); err != nil {
			return err
		}
		if who.Person.Suspended != "" {
			return nil // nothing is theirs to decide
		}
		now := p.now()
		var mine []*serval.Request
		for seen := 0; ; {
			waiting, err := v.Requests(filter)
			if err != nil {
				return err
			}
			for _, r := range waiting {
				if _, _, due := r.Due(now); due || !r.Awaits(who.Person) {
					continue
				}
				if len(mine) == limit {
					next = door.Place(mine[limit-1].CreatedAt, mine[limit-1].ID)
					break
				}
				mine = append(mine, r)
			}
			if seen += len(waiting); next != "" || len(waiting) < filter.Limit {
				break
			}
			last := waiting[len(waiting)-1]
			if filter.BeforeAt, filter.BeforeID = last.CreatedAt, last.ID; seen >= p.mostAwaiting {
				next = door.Place(last.CreatedAt, last.ID)
				break
			}
		}
		if list, err = p.listed(v, mine); err != nil {
			return err
		}
		explaining, people := history.Explaining(v), v.PersonReader()
		for i, r := range mine {
			if list[i].Earlier, err = history.Before(v, r); err != nil {
				return err
			}
			if err := p.inform(v, explaining, people, &list[i]); err != nil {
				return err
			}
		}
		return nil
	})
	return list, next, err
}

// change runs one act of the dictionary on a request that who can see, and
// records the event that it returns.
func (p *Plane) change(ctx context.Context, who serval.Principal, what serval.Action, id string,
	f func(tx *store.Tx, r *serval.Request, e *serval.Event) (serval.Action, error)) (changed Request, err error) {
	err = p.act(ctx, who, what, id, func(tx *store.Tx, e *serval.Event) error {
		r, err := visible(&tx.View, who, id)
		if err != nil {
			return err
		}
		e.Detail = map[string]string{}
		act, err := f(tx, r, e)
		if err != nil {
			return err
		}
		e.Action = act
		maps.Copy(e.Detail, r.Facts())
		if err := tx.SaveRequest(r); err != nil {
			return err
		}
		by := who
		if e.ActorKind == serval.KindSystem {
			by = serval.System()
		}
		if err := p.door.TellOf(tx, by, act, r, e.Reason); err != nil {
			return err
		}
		changed, err = p.shown(&tx.View, r)
		return err
	})
	if err != nil {
		return Request{}, err
	}
	p.door.Changed.Raise()
	return changed, nil
}

// hasFreshGroups reports whether the person's groups are young enough for a
// decision.
func hasFreshGroups(who serval.Person, now time.Time) bool {
	return now.Sub(who.GroupsAt) <= groupsLast
}

func staleGroups() error {
	return serval.Refuse(serval.LoginRequired, "Your groups were read more than an hour ago. Sign in again to decide.")
}

// Decide approves or denies what waits on a request. A group that names the
// approver counts only as fresh as an hour. Whoever approves their own, where
// no step is theirs, breaks the glass if the policy allows that.
func (p *Plane) Decide(ctx context.Context, who serval.Principal, id string, d serval.Decision) (Request, error) {
	return p.change(ctx, who, serval.RequestDecide, id, func(tx *store.Tx, r *serval.Request, e *serval.Event) (serval.Action, error) {
		return p.decide(tx, who, r, e, d)
	})
}

// decide is Decide inside of its act.
func (p *Plane) decide(tx *store.Tx, who serval.Principal, r *serval.Request, e *serval.Event, d serval.Decision) (serval.Action, error) {
	if who.Person.Suspended != "" {
		return "", suspended(who.Person)
	}
	if d.Reason != "" {
		e.Detail["decision_reason"] = d.Reason
	}
	if d.Approve && r.MayBreakGlass(who) && !r.Awaits(who.Person) {
		if d.Minutes != 0 {
			return "", serval.Refuse(serval.Invalid, "Whoever breaks the glass does so for the minutes that they asked for; leave minutes out.")
		}
		if err := d.CheckRound(r); err != nil {
			return "", err
		}
		return p.breakGlass(tx, who, r, d.Reason)
	}
	by := who
	if !hasFreshGroups(who.Person, tx.Now) {
		by.Person.Groups = nil
		if r.Awaits(who.Person) && !r.Awaits(by.Person) {
			return "", staleGroups()
		}
	}
	asked := r.Asked()
	act, err := r.Decide(by, d, p.settings.RequestExpiry, tx.Now)
	if err == nil && asked != nil && !asked.DecidedAt.IsZero() {
		e.Detail[serval.DetailWaited] = strconv.FormatInt(int64(tx.Now.Sub(asked.AskedAt)/time.Second), 10)
	}
	return act, err
}

// Extend asks for more time on a request of who's.
func (p *Plane) Extend(ctx context.Context, who serval.Principal, id string, minutes int, justification string) (Request, error) {
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
func (p *Plane) Shorten(ctx context.Context, who serval.Principal, id string, minutes int, end time.Time) (Request, error) {
	return p.change(ctx, who, serval.RequestShorten, id, func(tx *store.Tx, r *serval.Request, _ *serval.Event) (serval.Action, error) {
		if !end.IsZero() {
			return r.Shorten(who, end, tx.Now)
		}
		return r.ShortenTo(who, minutes, tx.Now)
	})
}

// Cancel withdraws a request of who's that was not used yet.
func (p *Plane) Cancel(ctx context.Context, who serval.Principal, id string) (Request, error) {
	return p.change(ctx, who, serval.RequestCancel, id, func(tx *store.Tx, r *serval.Request, _ *serval.Event) (serval.Action, error) {
		return r.Cancel(who, tx.Now)
	})
}

// Done ends who's access early.
func (p *Plane) Done(ctx context.Context, who serval.Principal, id string) (Request, error) {
	return p.change(ctx, who, serval.RequestDone, id, func(tx *store.Tx, r *serval.Request, _ *serval.Event) (serval.Action, error) {
		return r.Done(who, tx.Now)
	})
}

// Revoke takes an access away, at once for every further session.
func (p *Plane) Revoke(ctx context.Context, who serval.Principal, id, reason string) (Request, error) {
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
	return &serval.Refusal{Kind: serval.FailedPrecondition, Detail: map[string]string{"cause": "role_held"}, Reason: fmt.Sprintf(
		"The role %s was missing from the last sync together with most others of its account. Until that is confirmed no session is opened for it.", r.ARN)}
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}
