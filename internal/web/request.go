package web

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// requestJSON returns a request as who sees it.
func (s *Server) requestJSON(r control.Request, who serval.Principal) wire.Request {
	_, _, due := r.Due(s.c.Now())
	request := wire.Request{
		ID: r.ID, BatchID: text(r.BatchID), Person: wire.Person{Email: r.Email}, RoleARN: r.Role.ARN, AccountID: r.Role.AccountID,
		Status: string(r.Status), EndedBy: text(string(r.EndedBy)), Minutes: r.Minutes(),
		ClockStartedAt: wire.Time{Time: r.ClockStartedAt}, EndsAt: wire.Time{Time: r.EndsAt}, Policy: r.Terms.Policy,
		Steps: []wire.Step{}, Justification: r.Justification, Ticket: r.Ticket, CreatedAt: wire.Time{Time: r.CreatedAt},
		StartAt: wire.Time{Time: r.StartAt}, ExpiresAt: wire.Time{Time: r.ExpiresAt}, EndedAt: wire.Time{Time: r.EndedAt},
		Allocations: []wire.Allocation{}, MayDecide: !due && who.Person.Suspended == "" && r.Awaits(who.Person),
		AccountName: r.AccountName, RoleName: r.Role.ARN, PolicyDigest: r.Terms.Digest, Notices: []wire.Notice{},
	}
	request.MayBreakGlass = !due && who.Person.Suspended == "" && !request.MayDecide && r.MayBreakGlass(who)
	if arn, err := serval.ParseRoleARN(r.Role.ARN); err == nil {
		request.RoleName = arn.Name
	}
	if !due {
		request.Suspended = r.Suspended
	}
	if a := r.Active(); a != nil {
		request.BreakGlass = a.BreakGlass
	}
	for _, n := range r.Notices {
		request.Notices = append(request.Notices, wire.Notice{
			Kind: string(n.Kind), Channel: n.Channel, Recipients: peopleJSON(n.To), CreatedAt: wire.Time{Time: n.CreatedAt},
			State: string(n.State), Attempts: n.Attempts, EndedAt: wire.Time{Time: n.EndedAt}, Error: n.Error,
		})
	}
	for _, step := range r.Steps() {
		request.Steps = append(request.Steps, wire.Step{
			Approvers: peopleJSON(step.Approvers), DecidedBy: text(step.DecidedBy), Outcome: text(step.Outcome), At: wire.Time{Time: step.At},
		})
	}
	for _, a := range r.Allocations {
		request.Allocations = append(request.Allocations, wire.Allocation{
			Minutes: a.Minutes, State: string(a.State), Justification: a.Justification, AskedAt: wire.Time{Time: a.AskedAt},
			DecidedBy: text(a.DecidedBy), DecidedAt: wire.Time{Time: a.DecidedAt}, SupersededAt: wire.Time{Time: a.SupersededAt}, Reason: a.Reason,
			BreakGlass: a.BreakGlass,
		})
	}
	return request
}

// text returns a text or null.
func text(t string) *string {
	if t == "" {
		return nil
	}
	return &t
}

// createRequests answers POST /api/v1/requests.
func (s *Server) createRequests(w http.ResponseWriter, r *http.Request, v *visit) error {
	var body wire.NewRequest
	if err := edge.Decode(r, &body); err != nil {
		return err
	}
	arns := body.RoleARNs
	if (body.RoleARN == "") == (len(arns) == 0) {
		return serval.Refuse(serval.Invalid, "Name the role as role_arn, or several as role_arns; one of the two.")
	}
	if body.RoleARN != "" {
		arns = []string{body.RoleARN}
	}
	made, err := s.c.Plane.Request(r.Context(), v.who, control.Ask{RoleARNs: arns, BreakGlass: body.BreakGlass, Ask: serval.Ask{
		Minutes: body.Minutes, Justification: body.Justification, Ticket: body.Ticket, StartAt: body.StartAt.Time,
	}})
	if err != nil {
		return err
	}
	if body.RoleARN != "" {
		return edge.WriteJSON(w, http.StatusCreated, s.requestJSON(made[0], v.who))
	}
	batch := wire.Batch{BatchID: made[0].BatchID, Requests: []wire.Request{}}
	for _, m := range made {
		batch.Requests = append(batch.Requests, s.requestJSON(m, v.who))
	}
	return edge.WriteJSON(w, http.StatusCreated, batch)
}

// statuses are what requests can be filtered by.
var statuses = []serval.Status{
	serval.StatusPending, serval.StatusApproved, serval.StatusDenied, serval.StatusExpired,
	serval.StatusRevoked, serval.StatusCanceled, serval.StatusFailed,
}

// requests answers GET /api/v1/requests.
func (s *Server) requests(w http.ResponseWriter, r *http.Request, v *visit) error {
	q, err := edge.Query(r, "status", "running", "all", "email", "page_size", "page_token")
	if err != nil {
		return err
	}
	size, after, err := edge.Page(q)
	if err != nil {
		return err
	}
	status := serval.Status(q.Get("status"))
	if status != "" && !slices.Contains(statuses, status) {
		return serval.Refuse(serval.Invalid, "There is no status %q.", serval.Clip(string(status), 40))
	}
	filter := control.RequestFilter{Status: status, Email: q.Get("email"), After: after, Limit: size}
	if filter.Running, err = edge.Yes(q, "running"); err != nil {
		return err
	}
	if filter.All, err = edge.Yes(q, "all"); err != nil {
		return err
	}
	found, next, err := s.c.Plane.Requests(r.Context(), v.who, filter)
	if err != nil {
		return err
	}
	answer := wire.Requests{Requests: []wire.Request{}, NextPageToken: edge.PageToken(next != "", next)}
	for _, one := range found {
		answer.Requests = append(answer.Requests, s.requestJSON(one, v.who))
	}
	return edge.WriteJSON(w, http.StatusOK, answer)
}

// request answers GET /api/v1/requests/{id}.
func (s *Server) request(w http.ResponseWriter, r *http.Request, v *visit) error {
	if _, err := edge.Query(r); err != nil {
		return err
	}
	found, err := s.c.Plane.RequestByID(r.Context(), v.who, r.PathValue("id"))
	return s.answerRequest(w, r, v, found, err)
}

// answerRequest answers with what became of a request.
func (s *Server) answerRequest(w http.ResponseWriter, r *http.Request, v *visit, found control.Request, err error) error {
	if err != nil {
		return err
	}
	request := s.requestJSON(found, v.who)
	if request.Live, err = s.live(r.Context(), v, found); err != nil {
		return err
	}
	return edge.WriteJSON(w, http.StatusOK, request)
}

// live returns the sessions of a request that still work; nil where none does.
func (s *Server) live(ctx context.Context, v *visit, r control.Request) (*wire.Live, error) {
	live, err := s.c.Plane.Live(ctx, v.who, r.ID)
	if err != nil || len(live.Sessions) == 0 {
		return nil, err
	}
	answer := &wire.Live{Sessions: []wire.LiveSession{}, DenyPolicy: live.DenyPolicy}
	for _, one := range live.Sessions {
		answer.Sessions = append(answer.Sessions, wire.LiveSession{
			ID: one.ID, Kind: string(one.Kind), SessionName: one.SessionName, AssumedRoleID: one.AssumedRoleID,
			StartedAt: wire.Time{Time: one.StartedAt}, EndsAt: wire.Time{Time: one.EndsAt},
		})
		if r.Status != serval.StatusApproved || one.EndsAt.After(r.EndsAt) {
			answer.OutlivesAccess = true
		}
	}
	return answer, nil
}

// decide answers POST /api/v1/requests/{id}/decisions.
func (s *Server) decide(w http.ResponseWriter, r *http.Request, v *visit) error {
	var body wire.Decision
	if err := edge.Decode(r, &body); err != nil {
		return err
	}
	if body.Outcome != "approve" && body.Outcome != "deny" {
		return serval.Refuse(serval.Invalid, `The outcome is "approve" or "deny".`)
	}
	if body.Minutes < 0 {
		return serval.Refuse(serval.Invalid, "Minutes are a whole number, and 0 or left out as asked for.")
	}
	changed, err := s.c.Plane.Decide(r.Context(), v.who, r.PathValue("id"),
		serval.Decision{Approve: body.Outcome == "approve", Minutes: body.Minutes, Reason: body.Reason})
	return s.answerRequest(w, r, v, changed, err)
}

// extend answers POST /api/v1/requests/{id}/extensions.
func (s *Server) extend(w http.ResponseWriter, r *http.Request, v *visit) error {
	var body wire.Extension
	if err := edge.Decode(r, &body); err != nil {
		return err
	}
	changed, err := s.c.Plane.Extend(r.Context(), v.who, r.PathValue("id"), body.Minutes, body.Justification)
	return s.answerRequest(w, r, v, changed, err)
}

// shorten answers POST /api/v1/requests/{id}/shorten.
func (s *Server) shorten(w http.ResponseWriter, r *http.Request, v *visit) error {
	var body wire.Shortening
	if err := edge.Decode(r, &body); err != nil {
		return err
	}
	if (body.Minutes == 0) == body.EndsAt.IsZero() {
		return serval.Refuse(serval.Invalid, "Say minutes from now on, or the new end as ends_at; one of the two.")
	}
	changed, err := s.c.Plane.Shorten(r.Context(), v.who, r.PathValue("id"), body.Minutes, body.EndsAt.Time)
	return s.answerRequest(w, r, v, changed, err)
}

// cancel answers POST /api/v1/requests/{id}/cancel.
func (s *Server) cancel(w http.ResponseWriter, r *http.Request, v *visit) error {
	if err := edge.DecodeNothing(r); err != nil {
		return err
	}
	changed, err := s.c.Plane.Cancel(r.Context(), v.who, r.PathValue("id"))
	return s.answerRequest(w, r, v, changed, err)
}

// done answers POST /api/v1/requests/{id}/done.
func (s *Server) done(w http.ResponseWriter, r *http.Request, v *visit) error {
	if err := edge.DecodeNothing(r); err != nil {
		return err
	}
	changed, err := s.c.Plane.Done(r.Context(), v.who, r.PathValue("id"))
	return s.answerRequest(w, r, v, changed, err)
}

// revoke answers POST /api/v1/requests/{id}/revoke.
func (s *Server) revoke(w http.ResponseWriter, r *http.Request, v *visit) error {
	var body wire.Revocation
	if err := edge.Decode(r, &body); err != nil {
		return err
	}
	changed, err := s.c.Plane.Revoke(r.Context(), v.who, r.PathValue("id"), body.Reason)
	return s.answerRequest(w, r, v, changed, err)
}

// approvals answers GET /api/v1/approvals.
func (s *Server) approvals(w http.ResponseWriter, r *http.Request, v *visit) error {
	q, err := edge.Query(r, "page_size", "page_token")
	if err != nil {
		return err
	}
	size, after, err := edge.Page(q)
	if err != nil {
		return err
	}
	waiting, next, err := s.c.Plane.Approvals(r.Context(), v.who, after, size)
	if err != nil {
		return err
	}
	answer := wire.Approvals{Requests: []wire.Request{}, NextPageToken: edge.PageToken(next != "", next)}
	for _, one := range waiting {
		answer.Requests = append(answer.Requests, s.requestJSON(one, v.who))
	}
	return edge.WriteJSON(w, http.StatusOK, answer)
}

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
	MaxMinutes  int
	MayStart    bool
	MayExtend   bool
	MayShorten  bool
	MayDone     bool
	MayCancel   bool
	MayRevoke   bool
	NeedsReason bool
}

// may reports whether the table has act for who in the request's state.
func may(r *serval.Request, who serval.Principal, act serval.Act) bool {
	as := r.Standings(who)
	return slices.ContainsFunc(serval.Transitions(), func(t serval.Transition) bool {
		return t.From == r.State() && t.Act == act && slices.Contains(as, t.By)
	})
}

func (s *Server) viewRequest(r control.Request, v *visit) requestView {
	now := s.c.Now()
	_, _, due := r.Due(now)
	view := requestView{
		Request: s.requestJSON(r, v.who), Path: pathEscape("/requests/%s", r.ID),
		Running: r.State() == serval.StateRunning && !due, Mine: r.PersonID == v.who.Person.ID,
		MaxMinutes: r.Terms.MaxMinutes, NeedsReason: r.Terms.RequireJustification,
	}
	if arn, err := serval.ParseRoleARN(r.Role.ARN); err == nil {
		view.RolePath = pathEscape("/roles/%s/%s", arn.AccountID, arn.Name)
	}
	if a := r.Asked(); a != nil && !due {
		view.Asked = a.Minutes
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
		view.Left = long(int(r.EndsAt.Sub(now) / time.Minute))
	}
	view.State, view.Tone = s.standing(r.Request)
	open := !due && v.who.Person.Suspended == ""
	view.MayStart = open && view.Mine && r.Status == serval.StatusApproved && !now.Before(r.StartAt)
	view.MayExtend = open && view.Extension == nil && may(r.Request, v.who, serval.ActExtend)
	view.MayShorten = open && may(r.Request, v.who, serval.ActShorten)
	view.MayDone = open && may(r.Request, v.who, serval.ActDone)
	view.MayCancel = open && may(r.Request, v.who, serval.ActCancel)
	view.MayRevoke = open && !view.Mine && may(r.Request, v.who, serval.ActRevoke)
	return view
}

// standing says where a request stands.
func (s *Server) standing(r *serval.Request) (words, tone string) {
	now := s.c.Now()
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

// A requestsView is a list of requests.
type requestsView struct {
	Requests []requestView
	Status   string
	Next     string // page token
}

// requestsPage shows somebody's own requests.
func (s *Server) requestsPage(w http.ResponseWriter, r *http.Request, v *visit) error {
	q := r.URL.Query()
	_, after, err := edge.Page(url.Values{"page_token": q["page_token"]})
	if err != nil {
		return err
	}
	status := serval.Status(q.Get("status"))
	if status != "" && !slices.Contains(statuses, status) {
		status = ""
	}
	found, next, err := s.c.Plane.Requests(r.Context(), v.who, control.RequestFilter{Status: status, After: after, Limit: 50})
	if err != nil {
		return err
	}
	view := requestsView{Status: string(status), Next: edge.PageToken(next != "", next)}
	for _, one := range found {
		view.Requests = append(view.Requests, s.viewRequest(one, v))
	}
	return s.show(w, v, http.StatusOK, "requests", "My requests", view)
}

// A requestPageView is a request with its history.
type requestPageView struct {
	requestView
	Events   []eventView
	Sessions []wire.Session
	Live     *wire.Live

	Networks []string
	Lease    int  // minutes; 0: none
	Bare     bool // without a session policy, and so not to be narrowed
	TooShort bool // too little is left for a session without a policy
	Console  bool // the console of the role's partition is known
}

// requestPage shows one request.
func (s *Server) requestPage(w http.ResponseWriter, r *http.Request, v *visit) error {
	id := r.PathValue("id")
	found, err := s.c.Plane.RequestByID(r.Context(), v.who, id)
	if err != nil {
		return err
	}
	events, err := s.c.Plane.EventsOf(r.Context(), v.who, id)
	if err != nil {
		return err
	}
	view := requestPageView{
		requestView: s.viewRequest(found, v), Networks: s.c.Networks(), Lease: int(s.c.Lease / time.Minute), Bare: s.c.NoSessionPolicy,
	}
	if view.Live, err = s.live(r.Context(), v, found); err != nil {
		return err
	}
	if g, ok := found.Grant(); ok {
		view.TooShort = view.Bare && g.Remains(s.c.Now()) < serval.MinSessionSeconds*time.Second
	}
	_, err = serval.ConsolePage{}.URL(found.Role.Partition)
	view.Console = err == nil
	if view.MayStart && view.Console { // its form leads there
		s.allowFormTo(w, strings.Join(s.c.ConsoleHosts, " "))
	}
	for _, e := range events {
		view.Events = append(view.Events, viewEvent(e))
	}
	if view.Mine {
		opened, _, err := s.c.Plane.Sessions(r.Context(), v.who, control.SessionFilter{RequestID: id, Limit: 50})
		if err != nil {
			return err
		}
		for _, one := range opened {
			view.Sessions = append(view.Sessions, sessionJSON(one))
		}
	} else {
		v.place = "approvals"
	}
	return s.show(w, v, http.StatusOK, "request", "Request for "+view.RoleName, view)
}

// approvalsPage shows what waits for somebody's decision.
func (s *Server) approvalsPage(w http.ResponseWriter, r *http.Request, v *visit) error {
	waiting, _, err := s.c.Plane.Approvals(r.Context(), v.who, "", edge.MaxPage)
	if err != nil {
		return err
	}
	var view requestsView
	for _, one := range waiting {
		view.Requests = append(view.Requests, s.viewRequest(one, v))
	}
	return s.show(w, v, http.StatusOK, "approvals", "Approvals", view)
}

// postRequest asks for a role from its page, which comes back with what was
// entered where that is not taken.
func (s *Server) postRequest(w http.ResponseWriter, r *http.Request, v *visit) error {
	f, err := edge.Form(r)
	if err != nil {
		return err
	}
	n, err := minutes(f.Get("minutes"))
	var made []control.Request
	if err == nil {
		made, err = s.c.Plane.Request(r.Context(), v.who, control.Ask{RoleARNs: f["role_arn"], Ask: serval.Ask{
			Minutes: n, Justification: strings.TrimSpace(f.Get("justification")), Ticket: strings.TrimSpace(f.Get("ticket")),
		}})
	}
	if serval.IsRefusal(err, serval.Invalid) {
		if arn, notARN := serval.ParseRoleARN(f.Get("role_arn")); notARN == nil {
			return s.showRole(w, r, v, arn.AccountID, arn.Name,
				formView{Minutes: f.Get("minutes"), Justification: f.Get("justification"), Ticket: f.Get("ticket")}, err.Error())
		}
	}
	if err != nil {
		return err
	}
	return s.redirect(w, pathEscape("/requests/%s", made[0].ID))
}

// afterPost leads from a change back to where it was made.
func (s *Server) afterPost(w http.ResponseWriter, f url.Values, id string, err error) error {
	if err != nil {
		return err
	}
	if f.Get("from") == "approvals" {
		return s.redirect(w, "/approvals")
	}
	return s.redirect(w, pathEscape("/requests/%s", id))
}

func (s *Server) postApprove(w http.ResponseWriter, r *http.Request, v *visit) error {
	return s.postDecision(w, r, v, true)
}

func (s *Server) postDeny(w http.ResponseWriter, r *http.Request, v *visit) error {
	return s.postDecision(w, r, v, false)
}

func (s *Server) postDecision(w http.ResponseWriter, r *http.Request, v *visit, approve bool) error {
	f, err := edge.Form(r)
	if err != nil {
		return err
	}
	d := serval.Decision{Approve: approve, Reason: strings.TrimSpace(f.Get("reason"))}
	if approve {
		if d.Minutes, err = minutes(f.Get("minutes")); err != nil {
			return err
		}
	}
	id := r.PathValue("id")
	_, err = s.c.Plane.Decide(r.Context(), v.who, id, d)
	return s.afterPost(w, f, id, err)
}

func (s *Server) postExtend(w http.ResponseWriter, r *http.Request, v *visit) error {
	f, err := edge.Form(r)
	if err != nil {
		return err
	}
	n, err := minutes(f.Get("minutes"))
	if err != nil {
		return err
	}
	id := r.PathValue("id")
	_, err = s.c.Plane.Extend(r.Context(), v.who, id, n, strings.TrimSpace(f.Get("justification")))
	return s.afterPost(w, f, id, err)
}

func (s *Server) postShorten(w http.ResponseWriter, r *http.Request, v *visit) error {
	f, err := edge.Form(r)
	if err != nil {
		return err
	}
	n, err := minutes(f.Get("minutes"))
	if err != nil {
		return err
	}
	id := r.PathValue("id")
	_, err = s.c.Plane.Shorten(r.Context(), v.who, id, n, time.Time{})
	return s.afterPost(w, f, id, err)
}

func (s *Server) postCancel(w http.ResponseWriter, r *http.Request, v *visit) error {
	return s.postAct(w, r, v, s.c.Plane.Cancel)
}

func (s *Server) postDone(w http.ResponseWriter, r *http.Request, v *visit) error {
	return s.postAct(w, r, v, s.c.Plane.Done)
}

// postAct does to a request what needs nothing but the request.
func (s *Server) postAct(w http.ResponseWriter, r *http.Request, v *visit,
	act func(context.Context, serval.Principal, string) (control.Request, error)) error {
	f, err := edge.Form(r)
	if err != nil {
		return err
	}
	id := r.PathValue("id")
	_, err = act(r.Context(), v.who, id)
	return s.afterPost(w, f, id, err)
}

func (s *Server) postRevoke(w http.ResponseWriter, r *http.Request, v *visit) error {
	f, err := edge.Form(r)
	if err != nil {
		return err
	}
	id := r.PathValue("id")
	_, err = s.c.Plane.Revoke(r.Context(), v.who, id, strings.TrimSpace(f.Get("reason")))
	return s.afterPost(w, f, id, err)
}
