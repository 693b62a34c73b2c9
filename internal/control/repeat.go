package control

import (
	"context"
	"fmt"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// The bounds of writes that may be sent again.
const (
	repeatLife  = 24 * time.Hour
	repeatClaim = 2 * time.Minute // longer than any request may take
	maxRepeats  = 1000            // kept of one person
	maxAnswer   = 256 << 10       // bytes; what is longer is not kept
)

// A Repeat is a write that may be sent again, as it is found: to be done by who
// as Who, or answered before.
type Repeat struct {
	Who serval.Principal // acts under the claim

	Status int // of the answer that was given; 0 where it is to be done
	Answer []byte
}

// Claim asks whether a write that came with a key is to be done. The same key
// with the same digest is done once: a second is answered as the first was, or
// refused while that is under way, and where no answer was kept of it. With
// another digest it is refused. A claim whose holder died before the effect is
// taken over; whether there was an effect the effect's own transaction says, by
// Who. Whoever claims calls Settle in the end.
func (p *Plane) Claim(ctx context.Context, who serval.Principal, key, digest string) (found Repeat, err error) {
	claim := door.NewID("claim")
	err = p.act(ctx, who, serval.WriteClaim, "", func(tx *store.Tx, e *serval.Event) error {
		e.Action = "" // what is done under it is recorded
		found = Repeat{}
		if err := tx.DropRepeats(tx.Now.Add(-repeatLife)); err != nil {
			return err
		}
		r, err := tx.Repeat(who.Person.ID, key)
		unused := serval.IsRefusal(err, serval.NotFound)
		refuse := func(kind serval.Kind, cause, reason string) error {
			return &serval.Refusal{Kind: kind, Reason: reason, Detail: map[string]string{"cause": cause}}
		}
		switch {
		case err != nil && !unused:
			return err
		case unused:
			n, err := tx.CountRepeats(who.Person.ID)
			if err != nil {
				return err
			}
			if n >= maxRepeats {
				return serval.Refuse(serval.Exhausted, "You used %d idempotency keys within a day; at most %d are kept. Write without one.", n, maxRepeats)
			}
			r = store.Repeat{PersonID: who.Person.ID, Key: key, Digest: digest, CreatedAt: tx.Now}
		case r.Digest != digest:
			return refuse(serval.FailedPrecondition, "idempotency_key_reused", "This Idempotency-Key was sent with something else before. Use a new one for each write.")
		case r.Status != 0:
			found.Status, found.Answer = r.Status, []byte(r.Answer)
			return nil
		case tx.Now.Before(r.ClaimedUntil):
			return refuse(serval.Conflict, "in_progress", "The same write is being done right now. Send it again in a moment.")
		case r.Done:
			return refuse(serval.Conflict, "already_done", "This was done already, and its answer is not kept: it holds credentials, or was lost. See what is there before you do it again, with a new Idempotency-Key.")
		}
		r.Claim, r.ClaimedUntil = claim, tx.Now.Add(repeatClaim)
		return tx.SaveRepeat(r)
	})
	found.Who = who
	if found.Status == 0 {
		found.Who.Claim = claim
	}
	return found, err
}

// Settle ends the claim that who acts under, of key. With a status the answer is
// kept for a day; without one nothing is. Where the write was refused, or had no
// effect, it may be done anew: a session that AWS refused was handed to nobody.
func (p *Plane) Settle(ctx context.Context, who serval.Principal, key string, refused bool, status int, answer []byte) error {
	claim := who.Claim
	who.Claim = ""
	// The caller may be gone; the answer is kept all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTime)
	defer cancel()
	return p.act(ctx, who, serval.WriteClaim, "", func(tx *store.Tx, e *serval.Event) error {
		e.Action = ""
		r, err := tx.Repeat(who.Person.ID, key)
		if err != nil {
			return err
		}
		if r.Claim != claim {
			return fmt.Errorf("settling a claim that is another's by now")
		}
		if refused || !r.Done && status == 0 {
			return tx.DropRepeat(r)
		}
		r.ClaimedUntil = time.Time{}
		if len(answer) <= maxAnswer {
			r.Status, r.Answer = status, string(answer)
		}
		return tx.SaveRepeat(r)
	})
}
