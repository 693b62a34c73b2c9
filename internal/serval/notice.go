package serval

import (
	"fmt"
	"time"
)

// A NoticeState says what became of a notice.
type NoticeState string

// What became of a notice.
const (
	NoticePending NoticeState = "pending"
	NoticeSent    NoticeState = "sent"
	NoticeFailed  NoticeState = "failed" // for good
)

// A Purpose says what a notice is for those who get it.
type Purpose string

// What a notice is for.
const (
	ToDecide Purpose = "decide"  // they are asked to decide
	ToKnow   Purpose = "know"    // what they asked for, or hold, has changed
	Handled  Purpose = "handled" // what they were asked to decide waits for them no more
	Ending   Purpose = "ending"  // what they hold ends soon
	Alarm    Purpose = "alarm"   // something was done past them
)

// NoticeEnding is what a notice tells of before the end: not an act, but time.
const NoticeEnding Action = "request.ending"

// A Notice tells people of something outside of the pages. That it fails blocks
// nothing: it is shown beside what it tells of, and recorded.
type Notice struct {
	ID        string
	Kind      Action // what it tells of
	Purpose   Purpose
	RequestID string // empty where it is about no request
	Channel   string // empty where none is configured
	To        People
	Facts     map[string]string // what the message is made of; never a secret
	CreatedAt time.Time

	State    NoticeState
	Attempts int
	NextAt   time.Time // of the next attempt, while it is pending
	EndedAt  time.Time
	Error    string // of the last attempt
}

// The facts that every message can be made of, whatever it tells of. A kind that
// the notify room has no words for is told by these.
const (
	FactTitle = "title" // one line
	FactText  = "text"  // further lines
	FactPath  = "path"  // a path of the bridge's, to look further
	FactBy    = "by"    // who did it
	FactWhy   = "why"   // the reason that they gave
)

// How a notice is tried again: from the first pause to the last, each the double
// of the one before, in all for about a day.
const (
	firstPause  = 5 * time.Second
	lastPause   = 2 * time.Hour
	maxAttempts = 22
)

// Failed notes at now that an attempt failed, and when the next is due, not
// before the pause that the receiver asked for. After the last attempt the notice
// has failed for good.
func (n *Notice) Failed(why string, pause time.Duration, now time.Time) {
	n.Error = why
	if n.Attempts >= maxAttempts {
		n.State, n.NextAt, n.EndedAt = NoticeFailed, time.Time{}, now
		return
	}
	next := lastPause
	if doublings := n.Attempts - 1; doublings < 12 {
		next = min(firstPause<<max(doublings, 0), lastPause)
	}
	n.NextAt = now.Add(max(next, min(pause, lastPause)))
}

// Sent notes at now that the notice was delivered.
func (n *Notice) Sent(now time.Time) {
	n.State, n.NextAt, n.EndedAt, n.Error = NoticeSent, time.Time{}, now, ""
}

// Retry has a notice that failed for good tried again from the beginning.
func (n *Notice) Retry(now time.Time) error {
	if n.State != NoticeFailed {
		return Refuse(Conflict, "This notice is %s; only one that has failed is sent again.", n.State)
	}
	if n.Channel == "" {
		return Refuse(FailedPrecondition, "This notice has no channel: none was configured when it was made.")
	}
	n.State, n.NextAt, n.EndedAt, n.Attempts = NoticePending, now, time.Time{}, 0
	return nil
}

// A Telling is who is to be told of an act, and what for.
type Telling struct {
	Purpose Purpose
	To      People
}

// Tellings returns who is to be told that by did act on the request, as it
// stands after. What somebody did to their own they are not told of.
func (r *Request) Tellings(act Action, by Principal) []Telling {
	var all []Telling
	add := func(purpose Purpose, to People) {
		if !to.IsEmpty() {
			all = append(all, Telling{purpose, to})
		}
	}
	requester := func() {
		if by.Kind != KindPerson || by.Person.ID != r.PersonID {
			add(ToKnow, People{Emails: []string{r.Email}})
		}
	}
	done, open := r.lastSteps()
	switch act {
	case RequestCreate, ExtensionCreate:
		add(ToDecide, open)
	case RequestApproveStep, ExtensionApproveStep:
		add(Handled, done)
		add(ToDecide, open)
	case RequestApprove, RequestDeny, ExtensionApprove, ExtensionDeny:
		if by.Kind == KindPerson { // what needs nobody's approval is answered on the spot
			add(Handled, done)
			requester()
		}
	case RequestBreakGlass, ExtensionBreakGlass:
		add(Alarm, r.Terms.Named())
	case RequestCancel, RequestRevoke, RequestDone, RequestFail:
		add(Handled, open)
		requester()
	case RequestExpire:
		add(Handled, open)
		if r.EndedBy != EndedByTime { // of that they were told before
			requester()
		}
	case RequestShorten:
		requester()
	}
	return all
}

// lastSteps returns the people of the last step that was completed, and of the
// one that waits, or waited when the request ended, of what was asked for last.
func (r *Request) lastSteps() (done, open People) {
	if len(r.Allocations) == 0 {
		return People{}, People{}
	}
	a := r.Allocations[len(r.Allocations)-1]
	for _, step := range a.Steps {
		if step.Outcome == "" {
			if a.State == Asked || a.State == Closed {
				open = step.Approvers
			}
			break
		}
		done = step.Approvers
	}
	return done, open
}

// Round returns the number of what was asked for last on the request: 0 for the
// request itself, one more for each extension. A decision that names it decides
// that and nothing that was asked for later.
func (r *Request) Round() int { return len(r.Allocations) - 1 }

// NoticeFacts returns what a message about the request is made of.
func (r *Request) NoticeFacts(by Principal) map[string]string {
	facts := r.Facts()
	facts[FactPath] = "/requests/" + r.ID
	facts[FactBy] = by.Name()
	facts["round"] = fmt.Sprint(r.Round())
	if n := len(r.Allocations); n > 0 {
		last := r.Allocations[n-1]
		facts["asked_minutes"], facts["asked_justification"] = fmt.Sprint(last.Minutes), last.Justification
		if last.Reason != "" {
			facts[FactWhy] = last.Reason
		}
	}
	return facts
}

// endingSoon is how long before its end somebody is told that an access ends; of
// a short one, half of what it lasts.
const endingSoon = 10 * time.Minute

// TellEndingAt returns when to tell the requester that the access ends soon; ok
// is false where it has no end.
func (r *Request) TellEndingAt() (at time.Time, ok bool) {
	if r.State() != StateRunning {
		return time.Time{}, false
	}
	return r.EndsAt.Add(-min(endingSoon, r.EndsAt.Sub(r.ClockStartedAt)/2)), true
}
