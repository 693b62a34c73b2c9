package store

import (
	"encoding/json"
	"fmt"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

const personColumns = `id, issuer, subject, email, groups, groups_at, suspended`

func scanPerson(row scanner) (serval.Person, error) {
	var p serval.Person
	var groups string
	var groupsAt int64
	if err := row.Scan(&p.ID, &p.Issuer, &p.Subject, &p.Email, &groups, &groupsAt, &p.Suspended); err != nil {
		return serval.Person{}, fmt.Errorf("reading a person: %w", err)
	}
	p.GroupsAt = instant(groupsAt)
	if err := json.Unmarshal([]byte(groups), &p.Groups); err != nil {
		return serval.Person{}, fmt.Errorf("reading the groups of person %s: %w", p.ID, err)
	}
	return p, nil
}

// Person returns the person with the id.
func (v *View) Person(id string) (serval.Person, error) {
	return one(v, "There is no such person.", scanPerson, `select `+personColumns+` from person where id = $1`, id)
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

// SavePerson keeps p; issuer and subject of a known person stay as they are.
func (t *Tx) SavePerson(p serval.Person) error {
	groups, err := json.Marshal(p.Groups)
	if err != nil {
		return fmt.Errorf("encoding groups: %w", err)
	}
	return t.exec("keeping a person", `insert into person
		(id, issuer, subject, email, email_fold, groups, groups_at, suspended, created_at)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
		on conflict (id) do update set email = excluded.email, email_fold = excluded.email_fold,
			groups = excluded.groups, groups_at = excluded.groups_at, suspended = excluded.suspended`,
		p.ID, p.Issuer, p.Subject, p.Email, serval.FoldEmail(p.Email), string(groups), micros(p.GroupsAt), p.Suspended, micros(t.Now))
}
