package store

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

const personColumns = `id, issuer, subject, email, groups, groups_at, groups_note, authorized_party, suspended, new_email, created_at`

func scanPerson(row scanner) (serval.Person, error) {
	var p serval.Person
	var groups string
	var groupsAt, created int64
	if err := row.Scan(&p.ID, &p.Issuer, &p.Subject, &p.Email, &groups, &groupsAt, &p.GroupsNote, &p.AuthorizedParty, &p.Suspended, &p.NewEmail, &created); err != nil {
		return serval.Person{}, fmt.Errorf("reading a person: %w", err)
	}
	p.GroupsAt, p.CreatedAt = instant(groupsAt), instant(created)
	if err := json.Unmarshal([]byte(groups), &p.Groups); err != nil {
		return serval.Person{}, fmt.Errorf("reading the groups of person %s: %w", p.ID, err)
	}
	return p, nil
}

// Person returns the person with the id.
func (v *View) Person(id string) (serval.Person, error) {
	return remember(v, source{"person", []string{"person"}}, id, func() (serval.Person, error) {
		return one(v, "There is no such person.", scanPerson, personByID, id)
	})
}

// PersonReader returns what reads people as Person does, each once.
func (v *View) PersonReader() func(id string) (serval.Person, error) {
	read := map[string]serval.Person{}
	return func(id string) (p serval.Person, err error) {
		if p, known := read[id]; known {
			return p, nil
		}
		if p, err = v.Person(id); err == nil {
			read[id] = p
		}
		return p, err
	}
}

// PersonBySubject returns the person whom an issuer knows as subject.
func (v *View) PersonBySubject(issuer, subject string) (serval.Person, error) {
	return one(v, "There is no such person.", scanPerson,
		`select `+personColumns+` from person where issuer = $1 and subject = $2`, issuer, subject)
}

// PeopleByEmail returns everybody with the email, in any case of its letters.
func (v *View) PeopleByEmail(email string) ([]serval.Person, error) {
	return all(v, scanPerson, `select `+personColumns+` from person where email_fold = $1 order by created_at, id`, serval.FoldEmail(email))
}

// A PersonFilter chooses people; empty fields choose all.
type PersonFilter struct {
	Email     string // in any case of its letters
	Suspended bool   // those who are

	// Those made before the person with this instant and id; zero for the newest.
	BeforeAt time.Time
	BeforeID string
	Limit    int // at most so many
}

// The people that a filter lets through; see eventsWhere for why what is
// filtered by is said twice.
const (
	peopleWhere = ` ($1 = '' or email_fold = $1) and (cast($2 as bigint) = 0 or suspended <> '')
			and created_at <= $3 and (created_at < $3 or id collate "C" < $4)
		order by created_at desc, id collate "C" desc limit $5`
	peopleOfAll     = `select ` + personColumns + ` from person where` + peopleWhere
	peopleOfEmail   = `select ` + personColumns + ` from person where email_fold = $1 and` + peopleWhere
	peopleSuspended = `select ` + personColumns + ` from person where suspended <> '' and` + peopleWhere
)

// People returns people, the newest first.
func (v *View) People(f PersonFilter) ([]serval.Person, error) {
	list := func(query string) ([]serval.Person, error) {
		return all(v, scanPerson, query, serval.FoldEmail(f.Email), flag(f.Suspended), cmp.Or(micros(f.BeforeAt), math.MaxInt64), f.BeforeID, f.Limit)
	}
	switch {
	case f.Email != "":
		return list(peopleOfEmail)
	case f.Suspended:
		return list(peopleSuspended)
	default:
		return list(peopleOfAll)
	}
}

// SavePerson keeps p; issuer and subject of a known person stay as they are.
func (t *Tx) SavePerson(p serval.Person) error {
	groups, err := json.Marshal(p.Groups)
	if err != nil {
		return fmt.Errorf("encoding groups: %w", err)
	}
	return t.exec("keeping a person", `insert into person
		(id, issuer, subject, email, email_fold, groups, groups_at, groups_note, authorized_party, suspended, new_email, created_at)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
		on conflict (id) do update set email = excluded.email, email_fold = excluded.email_fold,
			groups = excluded.groups, groups_at = excluded.groups_at,
			groups_note = excluded.groups_note, authorized_party = excluded.authorized_party, suspended = excluded.suspended, new_email = excluded.new_email`,
		p.ID, p.Issuer, p.Subject, p.Email, serval.FoldEmail(p.Email), string(groups), micros(p.GroupsAt),
		p.GroupsNote, p.AuthorizedParty, p.Suspended, p.NewEmail, micros(t.Now))
}
