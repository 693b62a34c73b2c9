package serval

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// A Status is where a request stands. Approved and running share one; a request
// whose time is over is expired, with EndedBy.
type Status string

// Where a request stands.
const (
	StatusPending  Status = "pending"
	StatusApproved Status = "approved"
	StatusDenied   Status = "denied"
	StatusExpired  Status = "expired"
	StatusRevoked  Status = "revoked"
	StatusCanceled Status = "canceled"
	StatusFailed   Status = "failed" // its role is gone before it was used
)

// EndedBy says how an expired request ended.
type EndedBy string

// How an expired request ended. A request that nobody decided in time has none.
const (
	EndedByTime   EndedBy = "time"
	EndedByUnused EndedBy = "unused"
	EndedByDone   EndedBy = "done"
)

// A State is a status, with running apart from approved: the left side of the
// transition table.
type State string

// The states in which something can happen. StateRunning is an approved request
// whose clock has started; every other state is named as its status.
const (
	StatePending        = State(StatusPending)
	StateApproved       = State(StatusApproved)
	StateRunning  State = "running"
)

// An Act is something that happens to a request.
type Act string

// What happens to a request.
const (
	ActApprove          Act = "approve"      // the last step, or no step
	ActApproveStep      Act = "approve step" // a step, with others to come
	ActBreakGlass       Act = "break glass"  // all steps at once, by the requester
	ActDeny             Act = "deny"
	ActCancel           Act = "cancel" // never mind
	ActExtend           Act = "extend" // ask for more time
	ActApproveExtension Act = "approve extension"
	ActExtensionStep    Act = "approve extension step"
	ActBreakExtension   Act = "break glass for extension"
	ActDenyExtension    Act = "deny extension"
	ActShorten          Act = "shorten"
	ActMint             Act = "mint" // a session; the first starts the clock
	ActDone             Act = "done" // I'm done
	ActRevoke           Act = "revoke"
	ActExpire           Act = "expire" // time passed
	ActFail             Act = "fail"   // the role is gone
	ActRelink           Act = "relink" // to another identity of the same human
)

// A Standing is what somebody is to a request. One person may have several.
type Standing string

// What somebody is to a request.
const (
	Requester Standing = "requester"
	Approver  Standing = "approver" // named by a step of the policy; decides where that step is open
	Overseer  Standing = "admin"
	Clockwork Standing = "system" // the control plane itself
)

// A Transition is one line of the only state machine there is: who may do what
// in which state, where it leads, and the event that tells of it.
type Transition struct {
	From  State
	Act   Act
	By    Standing
	To    State
	Event Action
}

// Transitions returns the whole table. What is not in it cannot happen.
func Transitions() []Transition { return slices.Clone(transitions) }

// transitions is read only.
var transitions = []Transition{
	{StatePending, ActApprove, Approver, StateApproved, RequestApprove},
	{StatePending, ActApprove, Clockwork, StateApproved, RequestApprove},
	{StatePending, ActApproveStep, Approver, StatePending, RequestApproveStep},
	{StatePending, ActBreakGlass, Requester, StateApproved, RequestBreakGlass},
	{StatePending, ActDeny, Approver, State(StatusDenied), RequestDeny},
	{StatePending, ActCancel, Requester, State(StatusCanceled), RequestCancel},
	{StatePending, ActRevoke, Overseer, State(StatusRevoked), RequestRevoke},
	{StatePending, ActRelink, Overseer, StatePending, RequestRelink},
	{StatePending, ActExpire, Clockwork, State(StatusExpired), RequestExpire},
	{StatePending, ActFail, Clockwork, State(StatusFailed), RequestFail},

	{StateApproved, ActMint, Requester, StateRunning, SessionOpen},
	{StateApproved, ActCancel, Requester, State(StatusCanceled), RequestCancel},
	{StateApproved, ActExtend, Requester, StateApproved, ExtensionCreate},
	{StateApproved, ActApproveExtension, Approver, StateApproved, ExtensionApprove},
	{StateApproved, ActApproveExtension, Clockwork, StateApproved, ExtensionApprove},
	{StateApproved, ActExtensionStep, Approver, StateApproved, ExtensionApproveStep},
	{StateApproved, ActBreakExtension, Requester, StateApproved, ExtensionBreakGlass},
	{StateApproved, ActDenyExtension, Approver, StateApproved, ExtensionDeny},
	{StateApproved, ActShorten, Requester, StateApproved, RequestShorten},
	{StateApproved, ActShorten, Approver, StateApproved, RequestShorten},
	{StateApproved, ActDone, Requester, State(StatusExpired), RequestDone},
	{StateApproved, ActRevoke, Approver, State(StatusRevoked), RequestRevoke},
	{StateApproved, ActRevoke, Overseer, State(StatusRevoked), RequestRevoke},
	{StateApproved, ActRelink, Overseer, StateApproved, RequestRelink},
	{StateApproved, ActExpire, Clockwork, State(StatusExpired), RequestExpire},
	{StateApproved, ActFail, Clockwork, State(StatusFailed), RequestFail},

	{StateRunning, ActMint, Requester, StateRunning, SessionOpen},
	{StateRunning, ActExtend, Requester, StateRunning, ExtensionCreate},
	{StateRunning, ActApproveExtension, Approver, StateRunning, ExtensionApprove},
	{StateRunning, ActApproveExtension, Clockwork, StateRunning, ExtensionApprove},
	{StateRunning, ActExtensionStep, Approver, StateRunning, ExtensionApproveStep},
	{StateRunning, ActBreakExtension, Requester, StateRunning, ExtensionBreakGlass},
	{StateRunning, ActDenyExtension, Approver, StateRunning, ExtensionDeny},
	{StateRunning, ActShorten, Requester, StateRunning, RequestShorten},
	{StateRunning, ActShorten, Approver, StateRunning, RequestShorten},
	{StateRunning, ActDone, Requester, State(StatusExpired), RequestDone},
	{StateRunning, ActRevoke, Approver, State(StatusRevoked), RequestRevoke},
	{StateRunning, ActRevoke, Overseer, State(StatusRevoked), RequestRevoke},
	{StateRunning, ActRevoke, Clockwork, State(StatusRevoked), RequestRevoke}, // its account was disconnected
	{StateRunning, ActRelink, Overseer, StateRunning, RequestRelink},
	{StateRunning, ActExpire, Clockwork, State(StatusExpired), RequestExpire},
}

// Terms are what a request was made under: its access policy as it was then.
type Terms struct {
	Policy string `json:"policy"`
	Digest string `json:"digest"`

	Steps                []People `json:"steps,omitempty"` // none: automatic
	MaxMinutes           int      `json:"max_minutes"`
	MaxTotalMinutes      int      `json:"max_total_minutes"`
	RequireJustification bool     `json:"require_justification,omitempty"`
	AllowSelfApproval    bool     `json:"allow_self_approval,omitempty"`
	BreakGlass           bool     `json:"break_glass,omitempty"`
	SuspendOnEscalation  bool     `json:"suspend_on_escalation,omitempty"`
}

// Named returns everybody whom a step names: those who are told where the glass
// is broken.
func (t Terms) Named() People {
	var all People
	for _, step := range t.Steps {
		all.Groups = append(all.Groups, step.Groups...)
		all.Emails = append(all.Emails, step.Emails...)
	}
	slices.Sort(all.Groups)
	slices.Sort(all.Emails)
	all.Groups, all.Emails = slices.Compact(all.Groups), slices.Compact(all.Emails)
	return all
}

// Terms returns what a request made under the policy is fixed to.
func (p AccessPolicy) Terms() Terms {
	return Terms{
		Policy:               p.Name,
		Digest:               p.Digest(),
		Steps:                p.Approval.Steps,
		MaxMinutes:           p.MaxMinutes,
		MaxTotalMinutes:      p.TotalMinutes(),
		RequireJustification: p.RequireJustification,
		AllowSelfApproval:    p.AllowSelfApproval,
		BreakGlass:           p.BreakGlass,
		SuspendOnEscalation:  p.SuspendOnEscalation,
	}
}

// A Request is a person asking for a role. Its zero value is not a request; see
// NewRequest. The methods that change it are the only way it changes: each
// either does what the transition table says, or refuses and leaves it as it
// was.
type Request struct {
	ID       string
	BatchID  string // of requests made in one go; may be empty
	PersonID string
	Email    string
	Role     RoleKey
	Terms    Terms

	Status        Status
	EndedBy       EndedBy
	Justification string
	Ticket        string
	StartAt       time.Time // no session before; zero means at once
	CreatedAt     time.Time
	ExpiresAt     time.Time // undecided, or approved and unused, it ends here
	EndedAt       time.Time // zero while it can still be used

	ClockStartedAt time.Time
	EndsAt         time.Time

	Allocations []Allocation // in the order they were asked for
}

// An AllocationState says what became of a stretch of time.
type AllocationState string

// What became of a stretch of time. A request has at most one active and one
// asked.
const (
	Asked      AllocationState = "pending"
	Active     AllocationState = "active"
	Superseded AllocationState = "superseded"
	Refused    AllocationState = "denied"
	Closed     AllocationState = "closed" // its request ended before it was decided
)

// An Allocation is a stretch of time asked for or approved on a request. The
// first is the request itself, each further one an extension.
type Allocation struct {
	Minutes       int // as asked for, then as approved
	State         AllocationState
	Justification string
	AskedAt       time.Time
	DecidedBy     string // email, or system
	DecidedAt     time.Time
	SupersededAt  time.Time
	Reason        string // of the decision
	BreakGlass    bool   // in force without its steps, by the requester
	Steps         []Step // as many as the terms have
}

// A Step is one approval of an allocation. It is completed once, by one person.
type Step struct {
	Approvers People    `json:"approvers"`
	PersonID  string    `json:"person_id,omitempty"`
	DecidedBy string    `json:"decided_by,omitempty"` // email
	Outcome   string    `json:"outcome,omitempty"`    // approve or deny
	At        time.Time `json:"at,omitzero"`
}

// The bounds of what people write, in characters, and of a scheduled start.
const (
	MaxJustification = 2000
	MaxTicket        = 200
	MaxStartAhead    = 30 * 24 * time.Hour
)

// MinBreakGlass is the fewest characters that somebody writes to break the
// glass.
const MinBreakGlass = 30

// DefaultRequestExpiry is how long a request may stay undecided, or approved
// and unused, where no other time is set.
const DefaultRequestExpiry = 7 * 24 * time.Hour

// An Ask is what a person fills in to request a role.
type Ask struct {
	Minutes       int
	Justification string
	Ticket        string
	StartAt       time.Time // zero: at once
}

// NewRequest returns the pending request of a person for a role under terms, or
// refuses what was asked. Automatic terms leave it pending too: the control
// plane approves it in the same transaction, so that one path approves.
func NewRequest(id string, who Person, role RoleKey, terms Terms, ask Ask, expiry time.Duration, now time.Time) (*Request, error) {
	if err := terms.check(ask.Minutes, ask.Justification); err != nil {
		return nil, err
	}
	if err := checkText("A ticket reference", ask.Ticket, MaxTicket); err != nil {
		return nil, err
	}
	start := ask.StartAt
	switch {
	case start.IsZero() || !start.After(now):
		start = time.Time{}
	case start.Sub(now) > MaxStartAhead:
		return nil, Refuse(Invalid, "The start may be at most 30 days ahead.")
	}
	return &Request{
		ID: id, PersonID: who.ID, Email: who.Email, Role: role, Terms: terms,
		Status: StatusPending, Justification: ask.Justification, Ticket: ask.Ticket,
		StartAt: start, CreatedAt: now, ExpiresAt: now.Add(expiry),
		Allocations: []Allocation{terms.allocation(ask.Minutes, ask.Justification, now)},
	}, nil
}

func (t Terms) allocation(minutes int, justification string, now time.Time) Allocation {
	a := Allocation{Minutes: minutes, State: Asked, Justification: justification, AskedAt: now}
	for _, approvers := range t.Steps {
		a.Steps = append(a.Steps, Step{Approvers: approvers})
	}
	return a
}

// check refuses minutes and a justification that the terms do not take.
func (t Terms) check(minutes int, justification string) error {
	switch {
	case minutes < 1:
		return Refuse(Invalid, "Say for how many minutes; at least 1.")
	case minutes > t.MaxMinutes:
		return t.tooLong("Policy %s allows at most %s.")
	case t.RequireJustification && strings.TrimSpace(justification) == "":
		return &Refusal{Kind: Invalid, Reason: fmt.Sprintf("Policy %s asks for a justification.", t.Policy), Detail: map[string]string{"cause": "justification"}}
	}
	return checkText("A justification", justification, MaxJustification)
}

// tooLong refuses a length of time with a sentence of the policy and of the longest.
func (t Terms) tooLong(sentence string) error {
	return &Refusal{Kind: Invalid, Reason: fmt.Sprintf(sentence, t.Policy, Length(t.MaxMinutes)), Detail: map[string]string{"max_minutes": strconv.Itoa(t.MaxMinutes)}}
}

// Length writes minutes for people, everywhere alike: 2 h 30 min.
func Length(minutes int) string {
	text := fmt.Sprintf(" %d d %d h %d min", minutes/1440, minutes/60%24, minutes%60)
	text = strings.NewReplacer(" 0 d", "", " 0 h", "").Replace(text)
	if whole, ok := strings.CutSuffix(text, " 0 min"); ok && whole != "" {
		text = whole
	}
	return text[1:]
}

// checkText refuses what somebody wrote if it is too long, or if a database
// would not keep it as it is.
func checkText(what, text string, most int) error {
	switch {
	case storable(text) != text:
		return Refuse(Invalid, "%s holds a character that cannot be kept.", what)
	case utf8.RuneCountInString(text) > most:
		return Refuse(Invalid, "%s has at most %d characters.", what, most)
	}
	return nil
}

// State returns the request's state in the transition table.
func (r *Request) State() State {
	if r.Status == StatusApproved && !r.ClockStartedAt.IsZero() {
		return StateRunning
	}
	return State(r.Status)
}

// Active returns the allocation in force; nil where there is none.
func (r *Request) Active() *Allocation { return r.allocation(Active) }

// Asked returns the allocation that waits for a decision; nil where there is
// none.
func (r *Request) Asked() *Allocation { return r.allocation(Asked) }

func (r *Request) allocation(state AllocationState) *Allocation {
	for i := range r.Allocations {
		if r.Allocations[i].State == state {
			return &r.Allocations[i]
		}
	}
	return nil
}

// Minutes returns the approved minutes, or those asked for while none are
// approved.
func (r *Request) Minutes() int {
	if a := r.Active(); a != nil {
		return a.Minutes
	}
	if n := len(r.Allocations); n > 0 {
		return r.Allocations[n-1].Minutes
	}
	return 0
}

// Steps returns the steps of the decision that is open, or of the last one.
func (r *Request) Steps() []Step {
	if a := r.Asked(); a != nil {
		return a.Steps
	}
	if a := r.Active(); a != nil {
		return a.Steps
	}
	if n := len(r.Allocations); n > 0 {
		return r.Allocations[n-1].Steps
	}
	return nil
}

// openStep returns the first step that nobody completed; nil where all are.
func (a *Allocation) openStep() *Step {
	for i := range a.Steps {
		if a.Steps[i].Outcome == "" {
			return &a.Steps[i]
		}
	}
	return nil
}

// Standings returns what who is to the request.
func (r *Request) Standings(who Principal) []Standing {
	if who.Kind == KindSystem {
		return []Standing{Clockwork}
	}
	if who.Kind != KindPerson {
		return nil
	}
	var is []Standing
	if who.Person.ID == r.PersonID {
		is = append(is, Requester)
	}
	if r.isApprover(who.Person) {
		is = append(is, Approver)
	}
	if who.Admin {
		is = append(is, Overseer)
	}
	return is
}

// isApprover reports whether any step of the terms names the person. Which step
// is open does not matter: an extension that waits for one approver must not
// keep another from revoking.
func (r *Request) isApprover(who Person) bool {
	return slices.ContainsFunc(r.Terms.Steps, func(p People) bool { return p.Include(who) })
}

// Awaits reports whether the request waits for a decision that who may make.
func (r *Request) Awaits(who Person) bool {
	return (r.Status == StatusPending || r.Status == StatusApproved) && r.Asked() != nil && r.mayDecide(who) == nil
}

// Due returns how time has ended the request by now; ok is false when it has
// not.
func (r *Request) Due(now time.Time) (by EndedBy, at time.Time, ok bool) {
	switch r.State() {
	case StatePending:
		return "", r.ExpiresAt, !now.Before(r.ExpiresAt)
	case StateApproved:
		return EndedByUnused, r.ExpiresAt, !now.Before(r.ExpiresAt)
	case StateRunning:
		return EndedByTime, r.EndsAt, !now.Before(r.EndsAt)
	default:
		return "", time.Time{}, false
	}
}

// check refuses an act that the table does not have for the state and any of
// the standings, or whose request has ended by the time now.
func (r *Request) check(act Act, now time.Time, as ...Standing) error {
	if r.Status != StatusPending && r.Status != StatusApproved {
		return Refuse(Conflict, "This request is already %s.", r.Status)
	}
	if _, at, due := r.Due(now); due && act != ActExpire {
		return Refuse(Conflict, "This request ended at %s.", clock(at))
	}
	state, known := r.State(), false
	for _, t := range transitions {
		if t.From != state || t.Act != act {
			continue
		}
		if slices.Contains(as, t.By) {
			return nil
		}
		known = true
	}
	if known {
		return Refuse(Denied, "You are not allowed to do this: %s.", act)
	}
	return Refuse(Conflict, "This request is %s, which does not allow: %s.", state, act)
}

// MayBreakGlass reports whether who may put in force what waits on the request
// without its steps.
func (r *Request) MayBreakGlass(who Principal) bool {
	return r.Terms.BreakGlass && len(r.Terms.Steps) > 0 && r.Asked() != nil && slices.Contains(r.Standings(who), Requester)
}

// BreakGlass puts what waits on the request in force at once, without its steps,
// where the terms allow the requester that: a person at three in the morning.
// They justify it, in what they asked with or now, by at least MinBreakGlass
// characters; white space at the ends does not count. The caller tells
// Terms.Named.
func (r *Request) BreakGlass(who Principal, reason string, expiry time.Duration, now time.Time) (Action, error) {
	act := ActBreakGlass
	if r.Status == StatusApproved {
		act = ActBreakExtension
	}
	if err := r.check(act, now, r.Standings(who)...); err != nil {
		return "", err
	}
	a := r.Asked()
	switch {
	case a == nil:
		return "", nothingWaits()
	case !r.MayBreakGlass(who):
		return "", ownRequest()
	}
	if err := checkText("A reason", reason, MaxJustification); err != nil {
		return "", err
	}
	length := func(text string) int { return utf8.RuneCountInString(strings.TrimSpace(text)) }
	if max(length(a.Justification), length(reason)) < MinBreakGlass {
		return "", Refuse(Invalid, "To break the glass, justify it with at least %d characters: everybody who would have decided is told.", MinBreakGlass)
	}
	a.BreakGlass = true
	a.DecidedBy, a.DecidedAt, a.Reason = who.Name(), now, reason
	event := r.event(act)
	r.inForce(a, expiry, now)
	return event, nil
}

func nothingWaits() error {
	return Refuse(Conflict, "Nothing about this request waits for a decision.")
}

// inForce makes an allocation that was decided the active one: the request's
// first, or an extension of it.
func (r *Request) inForce(a *Allocation, expiry time.Duration, now time.Time) {
	if r.Status == StatusApproved {
		r.extend(a, now)
		return
	}
	a.State = Active
	r.Status = StatusApproved
	from := now
	if r.StartAt.After(from) {
		from = r.StartAt
	}
	r.ExpiresAt = from.Add(expiry)
}

// A Decision is what an approver says.
type Decision struct {
	Approve bool
	Minutes int // 0: as asked
	Reason  string
	Round   *int // what was looked at; nil decides whatever waits
}

// CheckRound refuses a decision on r that names something else than what was asked
// for last.
func (d Decision) CheckRound(r *Request) error {
	if d.Round != nil && *d.Round != r.Round() {
		return Refuse(Conflict, "What you looked at was decided already, and more was asked for since. Look at the request again.")
	}
	return nil
}

// Decide settles the open step, and with the last step the open allocation: the
// request itself, or an extension of it. A step is settled once, a person
// settles at most one, and nobody settles their own unless the policy allows
// it. The event tells what happened.
func (r *Request) Decide(who Principal, d Decision, expiry time.Duration, now time.Time) (Action, error) {
	a := r.Asked()
	extension := r.Status == StatusApproved
	act := ActDeny
	switch {
	case d.Approve && !extension && r.stepsLeft() > 1:
		act = ActApproveStep
	case d.Approve && !extension:
		act = ActApprove
	case d.Approve && r.stepsLeft() > 1:
		act = ActExtensionStep
	case d.Approve:
		act = ActApproveExtension
	case extension:
		act = ActDenyExtension
	}
	if err := r.check(act, now, r.Standings(who)...); err != nil {
		if IsRefusal(err, Denied) && slices.Contains(r.Standings(who), Requester) {
			err = ownRequest() // says more than that they are no approver
		}
		return "", err
	}
	if a == nil {
		return "", nothingWaits()
	}
	if who.Kind == KindPerson {
		if err := r.mayDecide(who.Person); err != nil {
			return "", err
		}
	} else if len(a.Steps) > 0 {
		return "", Refuse(Denied, "A request with steps is decided by people.")
	}
	if err := d.CheckRound(r); err != nil {
		return "", err
	}
	if err := checkText("A reason", d.Reason, MaxJustification); err != nil {
		return "", err
	}
	minutes := a.Minutes
	if d.Approve && d.Minutes != 0 {
		if d.Minutes < 1 || d.Minutes > r.Terms.MaxMinutes {
			return "", r.Terms.tooLong("Policy %s allows at least 1 min and at most %s.")
		}
		minutes = d.Minutes
	}

	if step := a.openStep(); step != nil {
		step.PersonID, step.DecidedBy, step.At = who.Person.ID, who.Name(), now
		step.Outcome = "deny"
		if d.Approve {
			step.Outcome = "approve"
		}
	}
	a.Minutes = minutes
	switch act {
	case ActApproveStep, ActExtensionStep:
		return r.event(act), nil
	}
	a.DecidedBy, a.DecidedAt, a.Reason = who.Name(), now, d.Reason
	event := r.event(act)
	switch act {
	case ActDeny:
		a.State = Refused
		r.end(StatusDenied, "", now)
	case ActDenyExtension:
		a.State = Refused
	default:
		r.inForce(a, expiry, now)
	}
	return event, nil
}

// extend puts the extension a in force. It never shortens: with the clock
// running the end is the later of the present one and now + minutes, within
// the most that the policy allows in all; before, the minutes are the larger.
func (r *Request) extend(a *Allocation, now time.Time) {
	old := r.Active()
	old.State, old.SupersededAt = Superseded, now
	a.State = Active
	if r.ClockStartedAt.IsZero() {
		a.Minutes = max(a.Minutes, old.Minutes)
		return
	}
	end := now.Add(time.Duration(a.Minutes) * time.Minute)
	if last := r.lastEnd(); end.After(last) {
		end = last
	}
	if end.After(r.EndsAt) {
		r.EndsAt = end
	}
}

// lastEnd returns the latest end that a running clock may be extended to.
func (r *Request) lastEnd() time.Time {
	return r.ClockStartedAt.Add(time.Duration(r.Terms.MaxTotalMinutes) * time.Minute)
}

// mayDecide refuses a person who may not decide the open step: the requester,
// somebody who already completed a step, or whom this step does not name. An
// allocation is asked for.
func (r *Request) mayDecide(who Person) error {
	if (who.ID == r.PersonID || SameEmail(who.Email, r.Email)) && !r.Terms.AllowSelfApproval {
		return ownRequest()
	}
	a := r.Asked()
	for _, s := range a.Steps {
		if s.Outcome != "" && (s.PersonID == who.ID || SameEmail(s.DecidedBy, who.Email)) {
			return Refuse(Denied, "You have already completed a step of this request; another person decides the next.")
		}
	}
	if step := a.openStep(); step == nil || !step.Approvers.Include(who) {
		return Refuse(Denied, "This step is not yours to decide.")
	}
	return nil
}

func ownRequest() error { return Refuse(Denied, "You cannot decide your own request.") }

func (r *Request) stepsLeft() (left int) {
	if a := r.Asked(); a != nil {
		for _, s := range a.Steps {
			if s.Outcome == "" {
				left++
			}
		}
	}
	return left
}

// Extend asks for more time under the same terms and steps. At most one
// extension waits at a time.
func (r *Request) Extend(who Principal, minutes int, justification string, now time.Time) (Action, error) {
	if err := r.check(ActExtend, now, r.Standings(who)...); err != nil {
		return "", err
	}
	if r.Asked() != nil {
		return "", Refuse(Conflict, "An extension of this request already waits for a decision.")
	}
	if err := r.Terms.check(minutes, justification); err != nil {
		return "", err
	}
	if !r.ClockStartedAt.IsZero() && now.Add(time.Duration(minutes)*time.Minute).After(r.lastEnd()) {
		left := max(0, int(r.lastEnd().Sub(now)/time.Minute))
		return "", Refuse(FailedPrecondition, "Policy %s allows %s in all, extensions included; from now on that leaves %s.", r.Terms.Policy, Length(r.Terms.MaxTotalMinutes), Length(left))
	}
	event := r.event(ActExtend)
	r.Allocations = append(r.Allocations, r.Terms.allocation(minutes, justification, now))
	return event, nil
}

// Shorten ends the access at the instant end instead of later. Before the clock
// has started there is no end to move; use ShortenTo.
func (r *Request) Shorten(who Principal, end, now time.Time) (Action, error) {
	if err := r.check(ActShorten, now, r.Standings(who)...); err != nil {
		return "", err
	}
	switch {
	case r.ClockStartedAt.IsZero():
		return "", Refuse(FailedPrecondition, "The clock of this access has not started, so it has no end yet. Shorten its minutes instead.")
	case !end.After(now) || !end.After(r.ClockStartedAt): // AWS's clock may be ahead of ours
		return "", Refuse(Invalid, "The new end has passed. To end the access now, say that you are done.")
	case !end.Before(r.EndsAt):
		return "", Refuse(Invalid, "The access already ends at %s. To have it longer, ask for an extension.", clock(r.EndsAt))
	}
	r.EndsAt = end
	return r.event(ActShorten), nil
}

// ShortenTo leaves the access so many minutes: from now on when its clock runs,
// in all when it does not.
func (r *Request) ShortenTo(who Principal, minutes int, now time.Time) (Action, error) {
	if minutes < 1 {
		return "", Refuse(Invalid, "Say how many minutes are left; at least 1.")
	}
	if !r.ClockStartedAt.IsZero() {
		minutes = min(minutes, maxTotalMinutes) // no access has more, and more could overflow
		return r.Shorten(who, now.Add(time.Duration(minutes)*time.Minute), now)
	}
	if err := r.check(ActShorten, now, r.Standings(who)...); err != nil {
		return "", err
	}
	a := r.Active()
	if minutes >= a.Minutes {
		return "", Refuse(Invalid, "The access already has only %s. To have it longer, ask for an extension.", Length(a.Minutes))
	}
	a.Minutes = minutes
	return r.event(ActShorten), nil
}

// Cancel withdraws a request that nobody used yet.
func (r *Request) Cancel(who Principal, now time.Time) (Action, error) {
	return r.finish(who, ActCancel, StatusCanceled, "", now)
}

// Done ends the access early.
func (r *Request) Done(who Principal, now time.Time) (Action, error) {
	return r.finish(who, ActDone, StatusExpired, EndedByDone, now)
}

// Revoke takes the access away.
func (r *Request) Revoke(who Principal, now time.Time) (Action, error) {
	return r.finish(who, ActRevoke, StatusRevoked, "", now)
}

// Relink hands the request to another identity of the human who made it: one
// with its email, or the same person under a new one. What
// that identity has decided would become their own: unless the terms allow
// self-approval it is refused.
func (r *Request) Relink(who Principal, to Person, now time.Time) (Action, error) {
	if err := r.check(ActRelink, now, r.Standings(who)...); err != nil {
		return "", err
	}
	if to.ID != r.PersonID && !SameEmail(to.Email, r.Email) {
		return "", Refuse(FailedPrecondition, "%s is no identity of %s.", to.Email, r.Email)
	}
	for _, a := range r.Allocations {
		for _, s := range a.Steps {
			if s.Outcome != "" && (s.PersonID == to.ID || SameEmail(s.DecidedBy, to.Email)) && !r.Terms.AllowSelfApproval {
				return "", Refuse(FailedPrecondition, "%s decided a step of this request, and nobody decides their own.", to.Email)
			}
		}
	}
	r.PersonID, r.Email = to.ID, to.Email
	return r.event(ActRelink), nil
}

// Fail ends a request whose role is gone.
func (r *Request) Fail(who Principal, now time.Time) (Action, error) {
	return r.finish(who, ActFail, StatusFailed, "", now)
}

// Expire ends a request that is due by now, at the instant it was due.
func (r *Request) Expire(who Principal, now time.Time) (Action, error) {
	if err := r.check(ActExpire, now, r.Standings(who)...); err != nil {
		return "", err
	}
	by, at, due := r.Due(now)
	if !due {
		return "", Refuse(Conflict, "This request has not ended yet.")
	}
	event := r.event(ActExpire)
	r.end(StatusExpired, by, at)
	return event, nil
}

func (r *Request) finish(who Principal, act Act, status Status, by EndedBy, now time.Time) (Action, error) {
	if err := r.check(act, now, r.Standings(who)...); err != nil {
		return "", err
	}
	event := r.event(act)
	r.end(status, by, now)
	return event, nil
}

// end closes the request at the instant at, and whatever still waited on it.
func (r *Request) end(status Status, by EndedBy, at time.Time) {
	r.Status, r.EndedBy, r.EndedAt = status, by, at
	if a := r.Asked(); a != nil {
		a.State = Closed
	}
}

// event returns the event of an act in the request's present state. The act was
// checked.
func (r *Request) event(act Act) Action {
	for _, t := range transitions {
		if t.From == r.State() && t.Act == act {
			return t.Event
		}
	}
	panic("serval: " + string(act) + " is not in the transition table for " + string(r.State()))
}

// Facts returns what an event of the request tells beside it: what an auditor
// needs to know without looking the request up.
func (r *Request) Facts() map[string]string {
	detail := map[string]string{
		"email": r.Email, "role_arn": r.Role.ARN, "role_id": r.Role.RoleID, "status": string(r.Status),
		"minutes": fmt.Sprint(r.Minutes()), "policy": r.Terms.Policy, "policy_digest": r.Terms.Digest,
	}
	add := func(name, value string) {
		if value != "" {
			detail[name] = value
		}
	}
	add("justification", r.Justification)
	add("ticket", r.Ticket)
	add("batch_id", r.BatchID)
	add("ended_by", string(r.EndedBy))
	if a := r.Active(); a != nil && a.BreakGlass {
		add("break_glass", "true")
	}
	if !r.EndsAt.IsZero() {
		add("ends_at", r.EndsAt.UTC().Format(time.RFC3339))
	}
	if !r.StartAt.IsZero() {
		add("start_at", r.StartAt.UTC().Format(time.RFC3339))
	}
	return detail
}
