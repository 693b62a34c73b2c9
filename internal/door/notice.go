package door

import (
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// The outbox has two ways in, both for use inside of an act: TellOf for what
// happens to a request, and Tell for anything else. What they keep is delivered
// after the act, and not at all where the act is undone; neither waits for a
// receiver, and a receiver that is away fails nothing.
//
// To tell of something new: choose an Action, name who is to know, and give at
// least FactTitle; a message that needs its own words has them in the notify room.

// Tell has people told of something outside of the pages: one notice for each
// channel that is configured, none where there is none. Kind, Purpose, To and
// Facts are the caller's, and RequestID where it is about a request.
func (d *Door) Tell(tx *store.Tx, n serval.Notice) error { return d.tellAt(tx, n, tx.Now) }

func (d *Door) tellAt(tx *store.Tx, n serval.Notice, at time.Time) error {
	n.CreatedAt, n.State, n.NextAt = tx.Now, serval.NoticePending, at
	for _, n.Channel = range d.Channels {
		n.ID = NewID("notice")
		if err := tx.CreateNotice(n); err != nil {
			return err
		}
	}
	return nil
}

// TellOf has everybody told who has to know that who did act on r, which is kept
// already, and why where they gave a reason; and sees to it that the requester
// hears before the access ends. Where something was done past people and there is
// no channel to tell them by, that is kept and recorded as a failure.
func (d *Door) TellOf(tx *store.Tx, who serval.Principal, act serval.Action, r *serval.Request, why string) error {
	for _, telling := range r.Tellings(act, who) {
		n := serval.Notice{Kind: act, Purpose: telling.Purpose, RequestID: r.ID, To: telling.To, Facts: r.NoticeFacts(who)}
		if why != "" {
			n.Facts[serval.FactWhy] = why
		}
		if err := d.Tell(tx, n); err != nil {
			return err
		}
		if len(d.Channels) > 0 || telling.Purpose != serval.Alarm {
			continue
		}
		n.ID, n.CreatedAt, n.State, n.EndedAt, n.Error = NewID("notice"), tx.Now, serval.NoticeFailed, tx.Now, "no channel configured"
		if err := tx.CreateNotice(n); err != nil {
			return err
		}
		if err := tx.Append(NoticeFailed(who, n)); err != nil {
			return err
		}
	}
	return d.tellEnding(tx, r)
}

// tellEnding keeps what is told before the end of r, as the end stands now.
func (d *Door) tellEnding(tx *store.Tx, r *serval.Request) error {
	if len(d.Channels) == 0 {
		return nil
	}
	at, ok := r.TellEndingAt()
	if ok && !at.After(tx.Now) {
		return nil // what was told, or is on its way, stays
	}
	if err := tx.DropEnding(r.ID); err != nil || !ok {
		return err
	}
	return d.tellAt(tx, serval.Notice{
		Kind: serval.NoticeEnding, Purpose: serval.Ending, RequestID: r.ID,
		To: serval.People{Emails: []string{r.Email}}, Facts: r.NoticeFacts(serval.System()),
	}, at)
}

// NoticeFailed returns the event of a notice that did not reach its people.
func NoticeFailed(who serval.Principal, n serval.Notice) serval.Event {
	e := Event(who, serval.NoticeFail, n.RequestID, serval.OutcomeFailed)
	e.Reason = n.Error
	e.Detail = map[string]string{"notice_id": n.ID, "of": string(n.Kind), "recipients": serval.Clip(n.To.String(), 2000)}
	if n.Channel != "" {
		e.Detail["channel"] = n.Channel
	}
	return e
}
