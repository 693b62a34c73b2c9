package control

import (
	"context"

	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// Notices returns the notices in a state, newest first, and the token of the
// page behind; empty where there is none. Those that failed for good are the list
// of what reached nobody.
func (p *Plane) Notices(ctx context.Context, who serval.Principal, state serval.NoticeState, after string, limit int) (list []serval.Notice, next string, err error) {
	err = p.view(ctx, who, serval.NoticeRead, "", func(v *store.View) error {
		switch state {
		case serval.NoticePending, serval.NoticeSent, serval.NoticeFailed:
		default:
			return serval.Refuse(serval.Invalid, "state is pending, sent or failed.")
		}
		f := store.NoticeFilter{State: state, Limit: limit + 1}
		if f.BeforeAt, f.BeforeID, err = door.ReadPlace(after); err != nil {
			return err
		}
		if list, err = v.Notices(f); err != nil {
			return err
		}
		if len(list) > limit {
			list = list[:limit]
			next = door.Place(list[limit-1].CreatedAt, list[limit-1].ID)
		}
		return nil
	})
	return list, next, err
}

// RetryNotice has a notice that failed for good tried again from the beginning.
func (p *Plane) RetryNotice(ctx context.Context, who serval.Principal, id string) (n serval.Notice, err error) {
	err = p.act(ctx, who, serval.NoticeRetry, id, func(tx *store.Tx, e *serval.Event) error {
		if n, err = tx.Notice(id); err != nil {
			return err
		}
		attempt := n.Attempts
		if err := n.Retry(tx.Now); err != nil {
			return err
		}
		e.Detail = map[string]string{"of": string(n.Kind), "channel": n.Channel, "request": n.RequestID}
		held, err := tx.SaveNotice(n, attempt)
		if err == nil && !held {
			err = serval.Refuse(serval.Conflict, "This notice has changed meanwhile. Look again.")
		}
		return err
	})
	return n, err
}

// A Chatter is who decides outside of the pages, as a chat knows them.
type Chatter struct {
	Chat  string // such as slack
	User  string // the chat's name for them
	Email string // that the chat has verified; empty where it has none
}

// DecideInChat approves or denies what a request asked for in a round, as the
// person with the chatter's email. It takes what a decision in the pages takes:
// one person has the email and is not suspended, they are signed in here
// somewhere, and a group of theirs counts as fresh as ever. The glass is not
// broken from a chat, and a button of an earlier round decides nothing.
func (p *Plane) DecideInChat(ctx context.Context, who serval.Principal, c Chatter, id string, round int, d serval.Decision) (Request, error) {
	known, err := p.chatter(ctx, who, c)
	if err != nil {
		// Of somebody who is not known, as of whoever is not signed in: some in a minute.
		p.door.Refused(ctx, who, serval.RequestDecide, serval.Cut(id, 100), err)
		return Request{}, err
	}
	who.Kind, who.Person = serval.KindPerson, known
	return p.change(ctx, who, serval.RequestDecide, id, func(tx *store.Tx, r *serval.Request, e *serval.Event) (serval.Action, error) {
		e.Detail["via"], e.Detail["via_user"] = c.Chat, serval.Cut(c.User, 100)
		switch {
		case r.Asked() == nil || r.Round() != round:
			return "", serval.Refuse(serval.Conflict, "This was decided already, or has ended. The request is %s.", r.Status)
		case d.Approve && r.MayBreakGlass(who) && !r.Awaits(who.Person):
			return "", serval.Refuse(serval.Denied, "The glass is not broken from a chat. Open the request in Serval.")
		}
		return p.decide(tx, who, r, e, d)
	})
}

// chatter returns the one person who has the chatter's email and is signed in.
func (p *Plane) chatter(ctx context.Context, who serval.Principal, c Chatter) (known serval.Person, err error) {
	err = p.view(ctx, who, serval.LoginRead, "", func(v *store.View) error {
		refused := &serval.Refusal{Kind: serval.LoginRequired, Detail: map[string]string{"via": c.Chat, "via_user": serval.Cut(c.User, 100), "via_email": serval.Cut(c.Email, 200)},
			Reason: "Serval does not know who you are by " + c.Chat + " alone. Sign in to Serval, and try again."}
		if _, err := serval.ParseEmail(c.Email); err != nil {
			return refused
		}
		same, err := v.PeopleByEmail(c.Email)
		if err != nil {
			return err
		}
		var found []serval.Person
		for _, person := range same {
			if person.Suspended == "" && person.Issuer == p.settings.Issuer {
				found = append(found, person)
			}
		}
		if len(found) != 1 {
			return refused
		}
		// A chat does not hear at once of who has left: being signed in here says it.
		logins, err := v.Logins(found[0].ID, p.now())
		if err != nil {
			return err
		}
		if len(logins) == 0 {
			return refused
		}
		known = found[0]
		return nil
	})
	return known, err
}
