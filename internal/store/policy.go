package store

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A Policy is an access policy as it is kept.
type Policy struct {
	serval.AccessPolicy
	Source string // SourceFile or SourceAPI
	// Priority is its place in the file, or what it was given over the API: the
	// smaller is tried first, those of the file before all others.
	Priority  int
	Digest    string
	CreatedAt time.Time
	ChangedAt time.Time
}

const policyColumns = `name, source, priority, body, digest, created_at, changed_at`

func scanPolicy(row scanner) (Policy, error) {
	var p Policy
	var name, body string
	var created, changed int64
	if err := row.Scan(&name, &p.Source, &p.Priority, &body, &p.Digest, &created, &changed); err != nil {
		return Policy{}, fmt.Errorf("reading an access policy: %w", err)
	}
	if err := json.Unmarshal([]byte(body), &p.AccessPolicy); err != nil {
		return Policy{}, fmt.Errorf("reading access policy %s: %w", name, err)
	}
	p.CreatedAt, p.ChangedAt = instant(created), instant(changed)
	return p, nil
}

// Policies returns all access policies in the order in which they are tried:
// those of the file in its order, then the others by priority and name.
func (v *View) Policies() ([]Policy, error) {
	policies, err := all(v, scanPolicy, `select `+policyColumns+` from access_policy
		order by case source when 'file' then 0 else 1 end, priority, name collate "C"`)
	if err != nil {
		return nil, fmt.Errorf("listing access policies: %w", err)
	}
	return policies, nil
}

// Policy returns the access policy with the name.
func (v *View) Policy(name string) (Policy, error) {
	return one(v, "There is no such access policy.", scanPolicy, `select `+policyColumns+` from access_policy where name = $1`, name)
}

// policyVersion is the meta that changes with every change of the policies.
const policyVersion = "policy_version"

// PolicyVersion returns what is another text after every change of the
// policies: who has them with their version has the ones in force.
func (v *View) PolicyVersion() (string, error) { return v.Meta(policyVersion) }

// SavePolicy keeps p, and since when. An access policy of the same name is
// replaced.
func (t *Tx) SavePolicy(p Policy) error {
	body, err := json.Marshal(p.AccessPolicy)
	if err != nil {
		return fmt.Errorf("encoding access policy %s: %w", p.Name, err)
	}
	err = t.exec("keeping access policy "+p.Name, `insert into access_policy (`+policyColumns+`)
		values ($1, $2, $3, $4, $5, $6, $6)
		on conflict (name) do update set source = excluded.source, priority = excluded.priority, body = excluded.body,
			digest = excluded.digest, changed_at = excluded.changed_at`,
		p.Name, p.Source, p.Priority, string(body), p.AccessPolicy.Digest(), micros(t.Now))
	if err != nil {
		return err
	}
	return t.SetMeta(policyVersion, rand.Text())
}

// DropPolicy forgets an access policy. Requests that were made under it know
// what it said.
func (t *Tx) DropPolicy(name string) error {
	if err := t.exec("dropping access policy "+name, `delete from access_policy where name = $1`, name); err != nil {
		return err
	}
	return t.SetMeta(policyVersion, rand.Text())
}
