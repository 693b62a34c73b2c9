package control

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// claim claims a write, and fails the test if it is not to be done.
func (w *world) claim(who serval.Principal, key string) serval.Principal {
	w.t.Helper()
	found, err := w.plane.Claim(w.t.Context(), who, key, "d")
	if err != nil || found.Status != 0 || found.Who.Claim == "" {
		w.t.Fatalf("claiming %s: %+v, %v", key, found, err)
	}
	return found.Who
}

func (w *world) wantCause(what string, err error, kind serval.Kind, cause string) {
	w.t.Helper()
	r, _ := err.(*serval.Refusal)
	if kindOf(err) != string(kind) || r.Detail["cause"] != cause {
		w.t.Errorf("%s: %v, want %s because of %s", what, err, kind, cause)
	}
}

// A write with a key has its effect once: whether it failed, or failed after it
// had happened, wherever it broke off.
func TestClaim(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.stock()
		ana, bob := w.engineer("ana@example.com"), w.engineer("bob@example.com")
		do := func(who serval.Principal) error {
			_, err := w.plane.Request(t.Context(), who, Ask{RoleARNs: []string{roleARN(prod, "reader")}, Ask: serval.Ask{Minutes: 5}})
			return err
		}
		again := func(who serval.Principal, key string) error {
			_, err := w.plane.Claim(t.Context(), who, key, "d")
			return err
		}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}

		answered := w.claim(ana, "answered")
		must(do(answered))
		w.wantCause("done, and not answered yet", again(ana, "answered"), serval.Conflict, "in_progress")
		must(w.plane.Settle(t.Context(), answered, "answered", false, 201, []byte("{}")))
		found, err := w.plane.Claim(t.Context(), ana, "answered", "d")
		if err != nil || found.Status != 201 || string(found.Answer) != "{}" || found.Who.Claim != "" {
			t.Errorf("answered, it is found as %+v, %v", found, err)
		}
		_, err = w.plane.Claim(t.Context(), ana, "answered", "another")
		w.wantCause("with another digest", err, serval.FailedPrecondition, "idempotency_key_reused")
		w.claim(bob, "answered") // his own

		// Refused: nothing happened, and it is free.
		must(w.plane.Settle(t.Context(), w.claim(ana, "refused"), "refused", true, 0, nil))
		w.claim(ana, "refused")

		// It broke off before the effect, and was taken over; who had it before
		// comes too late and does nothing.
		before, had := w.claim(ana, "before"), len(w.mine(ana))
		w.wantCause("broken off just now", again(ana, "before"), serval.Conflict, "in_progress")
		w.clock.move(repeatClaim)
		after := w.claim(ana, "before")
		wantKind(t, "by who had it before", do(before), serval.Conflict)
		must(do(after))
		if n := len(w.mine(ana)) - had; n != 1 {
			t.Errorf("%d requests were made, want 1", n)
		}
		if err := w.plane.Settle(t.Context(), before, "before", false, 201, []byte("{}")); err == nil || serval.IsRefusal(err) {
			t.Errorf("answered by who had it before: %v, want a fault", err)
		}
		must(w.plane.Settle(t.Context(), after, "before", false, 201, []byte("mine")))

		// It broke off after the effect: it is not done again.
		lost := w.claim(ana, "lost")
		must(do(lost))
		w.clock.move(repeatClaim)
		w.wantCause("broken off after the effect", again(ana, "lost"), serval.Conflict, "already_done")
		// And so it is where the answer is not to be kept, or too long to be.
		for name, answer := range map[string][]byte{"secret": nil, "long": []byte(strings.Repeat("x", maxAnswer+1))} {
			status := 200
			if answer == nil {
				status = 0
			}
			who := w.claim(ana, name)
			must(do(who))
			must(w.plane.Settle(t.Context(), who, name, false, status, answer))
			w.wantCause(name, again(ana, name), serval.Conflict, "already_done")
		}

		// An effect that is undone leaves the claim undone.
		undone := w.claim(ana, "undone")
		err = w.plane.act(t.Context(), undone, serval.RequestCreate, "", func(tx *store.Tx, e *serval.Event) error {
			return serval.Refuse(serval.Invalid, "No.")
		})
		wantKind(t, "an act that is refused", err, serval.Invalid)
		must(w.plane.Settle(t.Context(), undone, "undone", false, 0, nil))
		w.claim(ana, "undone")

		// What had an effect and came to nothing in the end, such as a session
		// that AWS refused, may be done again.
		nothing := w.claim(ana, "nothing")
		must(do(nothing))
		must(w.plane.Settle(t.Context(), nothing, "nothing", true, 0, nil))
		w.claim(ana, "nothing")

		w.clock.move(repeatLife)
		w.claim(ana, "answered") // a day later it is another write
	})
}

// Over two replicas one of many claims wins, each time.
func TestClaimAtOnce(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		planes := w.replicas()
		ana := w.engineer("ana@example.com")
		for round := range 5 {
			var won atomic.Int32
			var wg sync.WaitGroup
			for i := range 10 {
				wg.Go(func() {
					_, err := planes[i%2].Claim(t.Context(), ana, fmt.Sprint("k", round), "d")
					if err == nil {
						won.Add(1)
					} else if !serval.IsRefusal(err, serval.Conflict) {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if won.Load() != 1 {
				t.Errorf("%d claims won, want 1", won.Load())
			}
		}
	})
}

// Nobody fills the table with keys, and those of yesterday do not count.
func TestClaimsAreBounded(t *testing.T) {
	w := newWorld(t)
	ana, bob := w.engineer("ana@example.com"), w.engineer("bob@example.com")
	err := w.store.Write(t.Context(), w.clock.now(), func(tx *store.Tx) error {
		for i := range maxRepeats {
			key := fmt.Sprint("k", i)
			if err := tx.SaveRepeat(store.Repeat{PersonID: ana.Person.ID, Key: key, Claim: key, CreatedAt: tx.Now}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.plane.Claim(t.Context(), ana, "more", "d")
	wantKind(t, "one key too many", err, serval.Exhausted)
	w.claim(bob, "more")
	w.clock.move(repeatLife + time.Second)
	w.claim(ana, "more")
}
