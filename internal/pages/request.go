package pages

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/history"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/shape"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// A requestView is a request with what its page says and offers.
type requestView struct {
	wire.Request
	Path        string
	RolePath    string
	State       string // in words, one or two
	Tone        string // good, wait, bad or over
	Waiting     string // who has to decide; empty where nobody has to
	Running     bool
	Left        string // until it ends, while it runs
	Mine        bool
	Extension   *wire.Allocation // that waits
	Asked       int              // minutes that wait for a decision
	Round       int              // of what waits: a page that stayed open decides nothing that was asked for later
	MaxMinutes  int
	Extend      lengthView // what more can be asked for
	Shorten     lengthView // what can be left of it
	Refused     bool       // AWS would open no session for whoever asked and looks, and why is known
	MayStart    bool
	MayExtend   bool
	MayShorten  bool
	MayDone     bool
	MayCancel   bool
	MayRevoke   bool
	NeedsReason bool
	Earlier     string        // how often this was asked for before, in words; for whoever decides
	LastTime    *wire.Request // the last of those times
	Inbox       bool          // it is shown among all that wait
}

// may reports whether the table has act for who in the request's state.
func may(r *serval.Request, who serval.Principal, act serval.Act) bool {
	as := r.Standings(who)
	return slices.ContainsFunc(serval.Transitions(), func(t serval.Transition) bool {
		return t.From == r.State() && t.Act == act && slices.Contains(as, t.By)
	})
}

func (p *Pages) viewRequest(r control.Request, v *Visit) requestView {
	now := p.c.Now()
	_, _, due := r.Due(now)
	view := requestView{
		Request: shape.Request(r, v.Who, p.c.Now()), Path: edge.Path("/requests/%s", r.ID),
		Running: r.State() == serval.StateRunning && !due, Mine: r.PersonID == v.Who.Person.ID,
		MaxMinutes: r.Terms.MaxMinutes, NeedsReason: r.Terms.RequireJustification,
	}
	if arn, err := serval.ParseRoleARN(r.Role.ARN); err == nil {
		view.RolePath = edge.Path("/roles/%s/%s", arn.AccountID, arn.Name)
	}
	if a := r.Asked(); a != nil && !due {
		view.Asked, view.Round = a.Minutes, r.Round()
		for _, step := range a.Steps {
			if step.Outcome == "" {
				view.Waiting = step.Approvers.String()
				break
			}
		}
		if n := len(view.Allocations); r.Status == serval.StatusApproved {
			view.Extension = &view.Allocations[n-1]
		}
	}
	if view.Running {
		view.Left = p.left(r.EndsAt)
	}
	view.State, view.Tone = p.standing(r.Request)
	view.Earlier = earlierWords(r.Earlier)
	if last := r.Earlier.Last; last != nil {
		one := shape.Request(control.Request{Request: last}, v.Who, now)
		view.LastTime = &one
	}
	open := !due && v.Who.Person.Suspended == ""
	view.Refused = view.Trust != nil && view.Trust.Verdict == "fails" && view.Trust.Reason != ""
	view.MayStart = open && view.Mine && r.Status == serval.StatusApproved && !now.Before(r.StartAt)
	view.MayExtend = open && view.Extension == nil && may(r.Request, v.Who, serval.ActExtend)
	view.MayShorten = open && may(r.Request, v.Who, serval.ActShorten)
	if view.MayExtend {
		view.Extend = newLength(view.MaxMinutes, 0, "", "")
		if !view.Running { // what is not more than there is already would be none
			view.Extend.Choices = slices.DeleteFunc(view.Extend.Choices, func(c choice) bool { return c.Minutes <= view.Minutes })
		}
	}
	if view.MayShorten {
		most := view.Minutes
		if view.Running {
			most = int(r.EndsAt.Sub(now) / time.Minute)
		}
		view.Shorten = newLength(max(most-1, 0), 0, "", "")
		view.Shorten.Choices = slices.DeleteFunc(view.Shorten.Choices, func(c choice) bool { return c.Most })
	}
	view.MayDone = open && view.Running && may(r.Request, v.Who, serval.ActDone) // before, there is nothing to be done with: it is canceled
	view.MayCancel = open && may(r.Request, v.Who, serval.ActCancel)
	view.MayRevoke = open && !view.Mine && may(r.Request, v.Who, serval.ActRevoke)
	return view
}

// earlierWords says how often somebody asked for a role before.
func earlierWords(e history.Earlier) string {
	switch {
	case e.Times == 0:
		return "Never before."
	case e.More:
		return fmt.Sprintf("More than %d times before; of the last %d, %d were approved.", e.Times, e.Times, e.Approved)
	case e.Times == 1 && e.Approved == 1:
		return "Once before; it was approved."
	case e.Times == 1:
		return "Once before; it was not approved."
	default:
		return fmt.Sprintf("%d times before, %d of them approved.", e.Times, e.Approved)
	}
}

// left says how long it is until an end, as the script goes on to say it.
func (p *Pages) left(end time.Time) string {
	n := int(end.Sub(p.c.Now()) / time.Minute)
	if n >= 60 && n < 1440 {
		return fmt.Sprintf("%d h %02d min", n/60, n%60)
	}
	return serval.Length(n)
}

// standing says where a request stands.
func (p *Pages) standing(r *serval.Request) (words, tone string) {
	now := p.c.Now()
	if by, _, due := r.Due(now); due {
		return ended(by), "over"
	}
	switch {
	case r.State() == serval.StateRunning:
		return "Running", "good"
	case r.Status == serval.StatusApproved && now.Before(r.StartAt):
		return "Approved for later", "good"
	case r.Status == serval.StatusApproved:
		return "Approved, not used yet", "good"
	case r.Status == serval.StatusPending:
		return "Waiting for approval", "wait"
	case r.Status == serval.StatusDenied:
		return "Denied", "bad"
	case r.Status == serval.StatusRevoked:
		return "Revoked", "bad"
	case r.Status == serval.StatusFailed:
		return "Its role is gone", "bad"
	case r.Status == serval.StatusCanceled:
		return "Canceled", "over"
	default:
		return ended(r.EndedBy), "over"
	}
}

func ended(by serval.EndedBy) string {
	switch by {
	case serval.EndedByTime:
		return "Time is up"
	case serval.EndedByUnused:
		return "Ended unused"
	case serval.EndedByDone:
		return "Done"
	default:
		return "Nobody decided in time"
	}
}

// A decidedView is what somebody has just decided, as it stands now.
type decidedView struct {
	requestView
	Outcome string // approve or deny
	Rest    string // who has to decide besides; empty where nobody has to
	Extends bool
	Against bool // somebody else denied what they had approved a step of
}

// decided returns what who decided last of a request; nil where that is nothing.
func decided(view requestView, r *serval.Request, who serval.Principal) *decidedView {
	for i, a := range slices.Backward(r.Allocations) {
		for _, step := range a.Steps {
			if step.PersonID != who.Person.ID {
				continue
			}
			d := &decidedView{requestView: view, Outcome: step.Outcome, Extends: i > 0}
			if a.State == serval.Asked {
				d.Rest = view.Waiting
			}
			d.Against = a.State == serval.Refused && step.Outcome == "approve"
			return d
		}
	}
	return nil
}

// A requestsView is a list of requests.
type requestsView struct {
	Requests []requestView
	Status   string
	Next     string // page token
	Decided  *decidedView
}

// Requests shows somebody's own requests.
func (p *Pages) Requests(w http.ResponseWriter, r *http.Request, v *Visit) error {
	q := r.URL.Query()
	_, after, err := edge.Page(url.Values{"page_token": q["page_token"]})
	if err != nil {
		return err
	}
	status := serval.Status(q.Get("status"))
	if status != "" && !slices.Contains(shape.Statuses(), status) {
		status = ""
	}
	found, next, err := p.c.Plane.Requests(r.Context(), v.Who, control.RequestFilter{Status: status, After: after, Limit: 50})
	if err != nil {
		return err
	}
	view := requestsView{Status: string(status), Next: edge.PageToken(next != "", next)}
	for _, one := range found {
		view.Requests = append(view.Requests, p.viewRequest(one, v))
	}
	return p.show(w, v, http.StatusOK, "requests", "My requests", view)
}

// A requestPageView is a request with its history.
type requestPageView struct {
	requestView
	Decided  *decidedView // just now
	Events   []eventView
	Sessions []wire.Session
	Live     *wire.Live

	Networks []string
	Lease    int  // minutes; 0: none
	Bare     bool // without a session policy, and so not to be narrowed
	TooShort bool // too little is left for a session without a policy
	Console  bool // the console of the role's partition is known
}

// Request shows one request.
func (p *Pages) Request(w http.ResponseWriter, r *http.Request, v *Visit) error {
	id := r.PathValue("id")
	found, err := p.c.Plane.RequestByID(r.Context(), v.Who, id)
	if err != nil {
		return err
	}
	events, err := p.c.Plane.EventsOf(r.Context(), v.Who, id)
	if err != nil {
		return err
	}
	view := requestPageView{
		requestView: p.viewRequest(found, v), Networks: p.c.Networks(), Lease: int(p.c.Lease / time.Minute), Bare: p.c.NoSessionPolicy,
	}
	if r.URL.Query().Has(decidedField) {
		view.Decided = decided(view.requestView, found.Request, v.Who)
	}
	live, err := p.c.Plane.Live(r.Context(), v.Who, id)
	if err != nil {
		return err
	}
	view.Live = shape.Live(found, live)
	if g, ok := found.Grant(); ok {
		view.TooShort = view.Bare && g.Remains(p.c.Now()) < serval.MinSessionSeconds*time.Second
	}
	_, err = serval.ConsolePage{}.URL(found.Role.Partition)
	view.Console = err == nil
	if view.MayStart && view.Console { // its form leads there
		allowFormTo(w, strings.Join(p.c.ConsoleHosts, " "))
	}
	for _, e := range events {
		view.Events = append(view.Events, viewEvent(e))
	}
	if view.Mine {
		opened, _, err := p.c.Plane.Sessions(r.Context(), v.Who, control.SessionFilter{RequestID: id, Limit: 50})
		if err != nil {
			return err
		}
		for _, one := range opened {
			view.Sessions = append(view.Sessions, shape.Session(one))
		}
	} else {
		v.place = "approvals"
	}
	return p.show(w, v, http.StatusOK, "request", "Request for "+view.RoleName, view)
}

// pageApprovals is how many requests that wait are on a page.
const pageApprovals = 20

// Approvals shows what waits for somebody's decision.
func (p *Pages) Approvals(w http.ResponseWriter, r *http.Request, v *Visit) error {
	_, after, err := edge.Page(url.Values{"page_token": r.URL.Query()["page_token"]})
	if err != nil {
		return err
	}
	waiting, next, err := p.c.Plane.Approvals(r.Context(), v.Who, after, pageApprovals)
	if err != nil {
		return err
	}
	view := requestsView{Next: edge.PageToken(next != "", next)}
	if id := r.URL.Query().Get(decidedField); id != "" {
		found, err := p.c.Plane.RequestByID(r.Context(), v.Who, id)
		switch {
		case err == nil:
			view.Decided = decided(p.viewRequest(found, v), found.Request, v.Who)
		case !serval.IsRefusal(err):
			return err
		}
	}
	for _, one := range waiting {
		shown := p.viewRequest(one, v)
		shown.Inbox = true
		view.Requests = append(view.Requests, shown)
	}
	return p.show(w, v, http.StatusOK, "approvals", "Approvals", view)
}

// afterPost leads from a change back to its request.
func (p *Pages) afterPost(w http.ResponseWriter, id string, err error) error {
	if err != nil {
		return err
	}
	return p.redirect(w, edge.Path("/requests/%s", id))
}

// Approve approves a request, for as many minutes as the form says.
func (p *Pages) Approve(w http.ResponseWriter, r *http.Request, v *Visit) error {
	return p.postDecision(w, r, v, true)
}

// Deny denies a request.
func (p *Pages) Deny(w http.ResponseWriter, r *http.Request, v *Visit) error {
	return p.postDecision(w, r, v, false)
}

func (p *Pages) postDecision(w http.ResponseWriter, r *http.Request, v *Visit, approve bool) error {
	f, err := edge.Form(r)
	if err != nil {
		return err
	}
	d := serval.Decision{Approve: approve, Reason: strings.TrimSpace(f.Get("reason"))}
	if text := f.Get("round"); text != "" {
		round, err := strconv.Atoi(text)
		if err != nil {
			return serval.Refuse(serval.Invalid, "The round is a whole number.")
		}
		d.Round = &round
	}
	if approve {
		if d.Minutes, err = minutes(f.Get("minutes")); err != nil {
			return err
		}
	}
	id := r.PathValue("id")
	if _, err = p.c.Plane.Decide(r.Context(), v.Who, id, d); err != nil {
		return err
	}
	to := edge.Path("/requests/%s", id)
	if f.Get("from") == "approvals" {
		to = "/approvals"
	}
	return p.redirect(w, to+"?"+url.Values{decidedField: {id}}.Encode())
}

// decidedField is the parameter that says of which request a page tells what the
// reader has just decided. It tells them what is recorded, whoever made the address.
const decidedField = "decided"

// Extend asks for more time.
func (p *Pages) Extend(w http.ResponseWriter, r *http.Request, v *Visit) error {
	f, err := edge.Form(r)
	if err != nil {
		return err
	}
	n, err := readLength(f)
	if err != nil {
		return err
	}
	id := r.PathValue("id")
	_, err = p.c.Plane.Extend(r.Context(), v.Who, id, n, strings.TrimSpace(f.Get("justification")))
	return p.afterPost(w, id, err)
}

// Shorten ends an access earlier.
func (p *Pages) Shorten(w http.ResponseWriter, r *http.Request, v *Visit) error {
	f, err := edge.Form(r)
	if err != nil {
		return err
	}
	n, err := readLength(f)
	if err != nil {
		return err
	}
	id := r.PathValue("id")
	_, err = p.c.Plane.Shorten(r.Context(), v.Who, id, n, time.Time{})
	return p.afterPost(w, id, err)
}

// Cancel takes a request back.
func (p *Pages) Cancel(w http.ResponseWriter, r *http.Request, v *Visit) error {
	return p.postAct(w, r, v, p.c.Plane.Cancel)
}

// Done ends an access.
func (p *Pages) Done(w http.ResponseWriter, r *http.Request, v *Visit) error {
	return p.postAct(w, r, v, p.c.Plane.Done)
}

// postAct does to a request what needs nothing but the request.
func (p *Pages) postAct(w http.ResponseWriter, r *http.Request, v *Visit,
	act func(context.Context, serval.Principal, string) (control.Request, error)) error {
	if _, err := edge.Form(r); err != nil {
		return err
	}
	id := r.PathValue("id")
	_, err := act(r.Context(), v.Who, id)
	return p.afterPost(w, id, err)
}

// Revoke takes an access away.
func (p *Pages) Revoke(w http.ResponseWriter, r *http.Request, v *Visit) error {
	f, err := edge.Form(r)
	if err != nil {
		return err
	}
	id := r.PathValue("id")
	_, err = p.c.Plane.Revoke(r.Context(), v.Who, id, strings.TrimSpace(f.Get("reason")))
	return p.afterPost(w, id, err)
}
