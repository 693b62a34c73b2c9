package signin

import (
	"cmp"
	"context"
	"fmt"
	"unicode/utf8"

	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// A PersonFilter chooses people; empty fields choose all.
type PersonFilter struct {
	Email     string
	Suspended bool

	After string // the page token of the page before
	Limit int
}

// People returns the people who have ever signed in, the newest first, and the
// token of the page behind; empty where there is none.
func (s *Logins) People(ctx context.Context, who serval.Principal, f PersonFilter) (list []serval.Person, next string, err error) {
	err = s.view(ctx, who, serval.PersonRead, "", func(v *store.View) error {
		filter := store.PersonFilter{Email: f.Email, Suspended: f.Suspended, Limit: f.Limit + 1}
		if filter.BeforeAt, filter.BeforeID, err = door.ReadPlace(f.After); err != nil {
			return err
		}
		if list, err = v.People(filter); len(list) > f.Limit {
			list = list[:f.Limit]
			next = door.Place(list[f.Limit-1].CreatedAt, list[f.Limit-1].ID)
		}
		return err
	})
	return list, next, err
}

// A Relinking is what an admin says of a suspended person.
type Relinking struct {
	// SamePerson says that whoever had the email before, or this identity under
	// its old email, is the same human: what they have asked for goes on.
	SamePerson bool
	Reason     string
}

// A Relinked is what became of it.
type Relinked struct {
	Person    serval.Person
	Suspended []serval.Person // who had the email before
	Carried   []string        // requests that are Person's now
	Revoked   []string        // requests that ended
}

// Relink lifts the suspension of a person whose email or subject changed. From
// now on the email is theirs alone: every other identity that has it is
// suspended. Nobody inherits by a mailbox: what the others had asked for, or
// this person under another email, is revoked, unless the admin says that it
// is the same human; so is then what this identity itself has decided. Nobody
// says it of themselves.
func (s *Logins) Relink(ctx context.Context, who serval.Principal, id string, ask Relinking) (done Relinked, err error) {
	err = s.act(ctx, who, serval.PersonRelink, id, func(tx *store.Tx, e *serval.Event) error {
		done = Relinked{Carried: []string{}, Revoked: []string{}}
		if utf8.RuneCountInString(ask.Reason) > serval.MaxJustification {
			return serval.Refuse(serval.Invalid, "A reason has at most %d characters.", serval.MaxJustification)
		}
		person, err := tx.Person(id)
		if err != nil {
			return err
		}
		was, email := person.Email, cmp.Or(person.NewEmail, person.Email)
		switch {
		case person.Suspended == "":
			return serval.Refuse(serval.FailedPrecondition, "%s is not suspended.", person.Email)
		case who.Person.ID == id || serval.SameEmail(who.Person.Email, was) || serval.SameEmail(who.Person.Email, email):
			return serval.Refuse(serval.Denied, "Nobody links an identity of their own; another admin has to.")
		}
		same, err := tx.PeopleByEmail(email)
		if err != nil {
			return err
		}
		e.Reason = ask.Reason
		e.Detail = map[string]string{
			"issuer": person.Issuer, "subject": person.Subject, "email": email, "same_person": fmt.Sprint(ask.SamePerson),
		}
		from := []string{}
		if !serval.SameEmail(was, email) {
			e.Detail["old_email"] = was
			from = append(from, person.ID)
		}
		person.Email, person.NewEmail, person.Suspended = email, "", ""
		if err := tx.SavePerson(person); err != nil {
			return err
		}
		done.Person = person
		for _, other := range same {
			if other.ID == person.ID {
				continue
			}
			n := len(done.Suspended) + 1
			e.Detail[fmt.Sprintf("other_%02d_person", n)] = other.ID
			e.Detail[fmt.Sprintf("other_%02d_issuer", n)] = other.Issuer
			e.Detail[fmt.Sprintf("other_%02d_subject", n)] = other.Subject
			other.Suspended = "An admin linked the email " + email + " to another identity at the identity provider. An admin has to say if it is this one."
			if err := tx.SavePerson(other); err != nil {
				return err
			}
			done.Suspended = append(done.Suspended, other)
			from = append(from, other.ID)
		}
		for _, id := range from {
			// Whose email is new here is one person with who they were, and not with
			// whoever else has that email: what is open of theirs is nobody's.
			same := ask.SamePerson && (id == person.ID || serval.SameEmail(was, email))
			if err := s.settle(tx, who, id, person, same, &done); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return Relinked{}, err
	}
	s.door.Changed.Raise()
	return done, nil
}

// settle hands what a person has open to another identity of the same human, or
// revokes it.
func (s *Logins) settle(tx *store.Tx, who serval.Principal, from string, to serval.Person, same bool, done *Relinked) error {
	open, err := tx.OpenRequests(from)
	if err != nil {
		return err
	}
	for _, r := range open {
		end := !same
		var act serval.Action
		if same {
			act, err = r.Relink(who, to, tx.Now)
			end = serval.IsRefusal(err, serval.FailedPrecondition)
		}
		list := &done.Carried
		if end {
			list = &done.Revoked
			act, err = r.Revoke(who, tx.Now)
		}
		if serval.IsRefusal(err) {
			continue // time has ended it, and will say so
		}
		if err != nil {
			return err
		}
		if err := tx.SaveRequest(r); err != nil {
			return err
		}
		e := door.Event(who, act, r.ID, serval.OutcomeDone)
		e.Detail = r.Facts()
		e.Reason = "the email " + to.Email + " was linked to another identity"
		e.Detail["from_person"], e.Detail["to_person"] = from, to.ID
		if err := s.door.TellOf(tx, who, act, r, e.Reason); err != nil {
			return err
		}
		if err := tx.Append(e); err != nil {
			return err
		}
		*list = append(*list, r.ID)
	}
	return nil
}
