package intake

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/insight"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// How much of a push is staged in one transaction: so many roles, or fewer with
// so many bytes of documents.
const (
	stageBatch = 250
	stageBytes = 8 << 20
)

// A Pushed is what became of a push. Its JSON form is kept, for a repeat.
type Pushed struct {
	Repeated bool `json:"-"`
	Added    int  `json:"added"`
	Changed  int  `json:"changed"`
	Removed  int  `json:"removed"`
	Held     int  `json:"held"`
	Stale    int  `json:"stale"`
}

// A push is what is told apart in taking in an inventory and a delta.
type push struct {
	what serval.Action
	noun string
	// read hands over the account's roles, and notes the rest.
	read    func(account serval.Account, role func(serval.Role) error) (head, error)
	compare func(known []serval.Known, staged []serval.Seen, now time.Time) (serval.Difference, error)
	accept  func(tx *store.Tx, digest, answer string) error
	// detail is the event's; nil where there is none, which may be where no role is
	// written.
	detail func(roles int, d serval.Difference, written bool) map[string]string
}

// A head says of which sync a push is.
type head struct {
	accountID  string
	generation int64
	digest     string
}

// take takes in a push; see Push.
func (t *Intake) take(ctx context.Context, who serval.Principal, accountID string, p push) (Pushed, error) {
	var done Pushed
	var account store.Account
	var end func()
	var was before
	err := t.view(ctx, who, p.what, accountID, func(v *store.View) (err error) {
		if !who.MayPush(accountID) {
			return noAccount()
		}
		if account, err = v.Account(accountID); serval.IsRefusal(err, serval.NotFound) {
			return noAccount()
		}
		if err != nil {
			return err
		}
		if !isOpen(who, account) && !isAccepted(account) {
			return serval.Refuse(serval.Conflict, "This worker has not opened the last sync of this account.")
		}
		var ok bool
		if end, ok = t.door.Store.BeginPush(accountID); !ok {
			return serval.Refuse(serval.Exhausted, "Another push of this account is under way. Push again when it has ended.")
		}
		if !isOpen(who, account) {
			return nil // what it brings is read for its digest alone
		}
		was, err = knownBefore(v, accountID)
		return err
	})
	if end != nil {
		defer end()
	}
	if err != nil {
		return done, err
	}
	// Where the last sync was accepted, only its repeat has an answer: it is read
	// for its digest, and nothing is staged.
	staging := isOpen(who, account)
	id, dirty := door.NewID("push"), false
	defer func() {
		if !dirty {
			return
		}
		// After the swap there is nothing left; after a failure this cleans up.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		t.door.Store.DropStaged(ctx, id) // what stays behind goes with the sweep
	}()
	changes := &changes{known: was.states}
	keep := func(roles []serval.Role) error {
		if !staging {
			return nil
		}
		dirty = true
		staged, err := t.look(ctx, changes, roles)
		if err != nil {
			return err
		}
		return t.door.Store.Stage(ctx, id, accountID, t.door.Now(), staged)
	}
	h, n, same, err := stage(account.Account, was.states, keep, p)
	if err != nil {
		t.door.Refused(ctx, who, p.what, accountID, err)
		return done, err
	}
	quiet := false
	var regressed error
	var at time.Time
	err = t.act(ctx, who, p.what, accountID, func(tx *store.Tx, e *serval.Event) error {
		done, quiet, regressed, at = Pushed{}, false, nil, tx.Now
		a, err := tx.Account(accountID)
		if serval.IsRefusal(err, serval.NotFound) {
			return noAccount()
		}
		if err != nil {
			return err
		}
		switch {
		case h.generation == a.AcceptedGeneration && h.digest == a.AcceptedDigest:
			e.Action, done.Repeated = "", true
			return json.Unmarshal([]byte(a.AcceptedAnswer), &done)
		case h.generation <= a.AcceptedGeneration:
			return serval.Refuse(serval.Conflict, "Generation %d is not newer than %d, which was accepted.", h.generation, a.AcceptedGeneration)
		case h.generation > a.Generation:
			// Somebody issued it, and this database has forgotten: it was set back.
			regressed = serval.Refuse(serval.Conflict, "Generation %d was never issued here; the last is %d. The database may have been restored from a backup: "+
				"see serval-bridge restored. The account is to be read anew.", h.generation, a.Generation)
			e.Outcome, e.Reason = serval.OutcomeRefused, regressed.Error()
			return tx.RequestSync(accountID)
		case h.generation != a.Generation || !isOpen(who, a) || !staging:
			return serval.Refuse(serval.Conflict, "Generation %d is not the last that this worker opened.", h.generation)
		}
		known, err := was.now(tx, accountID)
		if err != nil {
			return err
		}
		staged, err := tx.StagedRoles(id)
		if err != nil {
			return err
		}
		if len(staged) != n-len(same) {
			return fmt.Errorf("%d of %d staged roles are there", len(staged), n-len(same))
		}
		if err := stillSettled(known, same); err != nil {
			return err
		}
		staged = append(staged, same...)
		d, err := p.compare(known, staged, tx.Now)
		if err != nil {
			return err
		}
		written := n > len(same) || !d.IsEmpty()
		if written {
			if err := tx.ApplyDifference(id, accountID, d); err != nil {
				return err
			}
		}
		done = Pushed{Added: len(d.Added), Changed: len(d.Changed), Removed: len(d.Removed()), Held: len(d.Held), Stale: len(d.Stale)}
		answer, err := json.Marshal(done)
		if err != nil {
			return err
		}
		if err := p.accept(tx, h.digest, string(answer)); err != nil {
			return err
		}
		changes.first(d.Changed)
		if e.Detail = p.detail(n, d, written); e.Detail == nil {
			e.Action, quiet = "", true
		}
		changes.describe(e.Detail, d.Changed)
		// What was untagged may be tagged again; what was deleted never returns.
		return t.door.FailRequests(tx, append(append([]serval.RoleKey(nil), d.Recreated...), d.Missing...))
	})
	if err == nil && regressed != nil {
		t.door.Changed.Raise()
		err = regressed
	}
	if err != nil {
		return Pushed{}, err
	}
	if !quiet {
		t.door.Changed.Raise()
	}
	if done.Changed+done.Added > 0 && !done.Repeated {
		t.follow(ctx, accountID, at)
	}
	return done, nil
}

// Before is what was known of an account's roles when a push of it began.
type before struct {
	version int64 // of the account's roster
	known   []serval.Known
	states  map[string]store.KnownState // by role id
}

func knownBefore(v *store.View, accountID string) (before, error) {
	roster, err := v.Roster(accountID)
	if err != nil {
		return before{}, err
	}
	states, err := v.KnownStates(accountID)
	b := before{version: roster.Version, known: make([]serval.Known, len(states)), states: make(map[string]store.KnownState, len(states))}
	for i, k := range states {
		b.known[i], b.states[k.Key.RoleID] = k.Known, k
	}
	return b, err
}

// now returns what is known now. Where nothing of the roles has changed it is what
// was: thousands are not read while everybody waits.
func (b before) now(tx *store.Tx, accountID string) ([]serval.Known, error) {
	roster, err := tx.Roster(accountID)
	if err != nil {
		return nil, err
	}
	if roster.Version == b.version {
		return b.known, nil
	}
	return tx.KnownRoles(accountID)
}

// stillSettled refuses a push where what it has seen the same is not as it was when
// the push began.
func stillSettled(known []serval.Known, same []serval.Seen) error {
	now := make(map[string]serval.Known, len(known))
	for _, k := range known {
		now[k.Key.RoleID] = k
	}
	for _, s := range same {
		if k, there := now[s.Key.RoleID]; !there || k.Key != s.Key || k.Digest != s.Digest || k.Stale || !k.HeldSince.IsZero() {
			return serval.Refuse(serval.Exhausted, "What is known of role %s has changed while it was pushed. Push again.", s.Key.ARN)
		}
	}
	return nil
}

// stage reads a push and hands its roles to keep in batches, checking each, but for
// those that are settled as they are, which were checked when they came to be so:
// they are returned as same. It returns how many there were in all.
func stage(account serval.Account, known map[string]store.KnownState, keep func([]serval.Role) error, p push) (h head, n int, same []serval.Seen, err error) {
	var batch []serval.Role
	var size int
	ids, arns := map[string]bool{}, map[string]bool{}
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := keep(batch)
		batch, size = batch[:0], 0
		return err
	}
	h, err = p.read(account, func(r serval.Role) error {
		if n++; n > maxRoles {
			return serval.Refuse(serval.TooLarge, "The %s has more than %d roles.", p.noun, maxRoles)
		}
		was, there := known[r.RoleID]
		settled := there && isSettledAs(r, was)
		if !settled {
			if err := checkRole(r, account); err != nil {
				return err
			}
		}
		if ids[r.RoleID] || arns[r.ARN] {
			return serval.Refuse(serval.Invalid, "The role id %s, or the ARN %s, comes twice.", r.RoleID, r.ARN)
		}
		ids[r.RoleID], arns[r.ARN] = true, true
		if settled {
			same = append(same, serval.Seen{Key: was.Key, Digest: was.Digest})
			return nil
		}
		batch = append(batch, r)
		for _, d := range r.Documents() {
			size += len(d)
		}
		if len(batch) == stageBatch || size >= stageBytes {
			return flush()
		}
		return nil
	})
	if err == nil {
		err = flush()
	}
	switch {
	case err != nil:
	case h.accountID != account.ID:
		err = serval.Refuse(serval.Invalid, "This %s is of account %s, not of %s.", p.noun, serval.Cut(h.accountID, 40), account.ID)
	case h.generation < 1:
		err = serval.Refuse(serval.Conflict, "The %s bears no generation: it is pushed with the one that its sync was opened with.", p.noun)
	}
	return h, n, same, err
}

// isSettledAs reports whether r is what is known of it, to the letter. What it can
// do has to be known by the rules of today too.
func isSettledAs(r serval.Role, was store.KnownState) bool {
	return was.IsSettled() && was.Key.ARN == r.ARN && was.MaxSessionSeconds == r.MaxSessionSeconds && isUsed(r, was.LastUsedAt) &&
		insight.Index(was.Ability).IsKnown() && was.Digest == r.Digest()
}

// isUsed reports whether r was last used at the instant; zero for never.
func isUsed(r serval.Role, at time.Time) bool {
	if r.LastUsedAt == nil {
		return at.IsZero()
	}
	return r.LastUsedAt.Truncate(time.Microsecond).Equal(at)
}
