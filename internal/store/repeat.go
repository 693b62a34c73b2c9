package store

import (
	"fmt"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A Repeat is a write that may be sent again: one that came with a key of the
// person's own. Claim names the one request that does it.
type Repeat struct {
	PersonID     string
	Key          string
	Digest       string // of what was sent
	Claim        string
	ClaimedUntil time.Time // until then somebody may be doing it
	Done         bool      // its effect is there
	Status       int       // of the answer; 0 where none is kept
	Answer       string
	CreatedAt    time.Time
}

const repeatColumns = `person_id, idempotency_key, digest, claim, claimed_until, done, status, answer, created_at`

// Repeat returns what is known of a person's key.
func (v *View) Repeat(personID, key string) (Repeat, error) {
	return one(v, "This key was not used.", func(row scanner) (r Repeat, err error) {
		var until, done, created int64
		if err := row.Scan(&r.PersonID, &r.Key, &r.Digest, &r.Claim, &until, &done, &r.Status, &r.Answer, &created); err != nil {
			return Repeat{}, fmt.Errorf("reading an idempotency key: %w", err)
		}
		r.ClaimedUntil, r.Done, r.CreatedAt = instant(until), done != 0, instant(created)
		return r, nil
	}, `select `+repeatColumns+` from repeat where person_id = $1 and idempotency_key = $2`, personID, key)
}

// CountRepeats returns how many keys of a person are kept.
func (v *View) CountRepeats(personID string) (n int, err error) {
	if err := v.scan(`select count(*) from repeat where person_id = $1`, []any{personID}, &n); err != nil {
		return 0, fmt.Errorf("counting idempotency keys: %w", err)
	}
	return n, nil
}

// SaveRepeat keeps r as it is now.
func (t *Tx) SaveRepeat(r Repeat) error {
	return t.exec("keeping an idempotency key", `insert into repeat (`+repeatColumns+`)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
		on conflict (person_id, idempotency_key) do update set claim = excluded.claim, claimed_until = excluded.claimed_until,
			done = excluded.done, status = excluded.status, answer = excluded.answer`,
		r.PersonID, r.Key, r.Digest, r.Claim, micros(r.ClaimedUntil), flag(r.Done), r.Status, r.Answer, micros(r.CreatedAt))
}

// DropRepeat forgets a key whose write came to nothing.
func (t *Tx) DropRepeat(r Repeat) error {
	return t.exec("dropping an idempotency key", `delete from repeat where claim = $1`, r.Claim)
}

// DropRepeats forgets keys that were first used at an instant or before.
func (t *Tx) DropRepeats(before time.Time) error {
	return t.exec("dropping old idempotency keys", `delete from repeat where created_at <= $1`, micros(before))
}

// DoRepeat notes, in the transaction of an effect, that the write of the claim
// has one. Where the claim is another's by now it refuses: what it was for is
// being done, or was.
func (t *Tx) DoRepeat(claim string) error {
	n, err := t.execCount("noting what an idempotency key did", `update repeat set done = 1 where claim = $1`, claim)
	if err == nil && n == 0 {
		err = serval.Refuse(serval.Conflict, "This took too long, and the same write was sent again meanwhile. Look at what came of it.")
	}
	return err
}
