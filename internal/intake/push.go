package intake

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/insight"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
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
	read func(account serval.Account, role func(serval.Role) error) (head, error)
	// compare is told when the sync was opened.
	compare func(known []serval.Known, staged []serval.Seen, opened time.Time) (serval.Difference, error)
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

// A taking is a push that is being taken in.
type taking struct {
	push
	head
	haul       *door.Haul
	account    store.Account // when it began
	was        before
	n          int           // the roles that it has
	same       []serval.Seen // those of them that are known as they are, and are not staged
	staged     []part
	difference serval.Difference // from what was known
	parts      []part            // of that
	applied    int               // of these: they are swapped in
	at         time.Time         // when the first was
}

// seen returns all roles that it has.
func (of *taking) seen() []serval.Seen {
	seen := make([]serval.Seen, 0, of.n)
	for _, p := range of.staged {
		seen = append(seen, p.roles...)
	}
	return append(seen, of.same...)
}

// opened returns when its sync was, or, of a delta's, somewhat before: its claim ends so
// long after.
func (of *taking) opened() time.Time { return of.account.ClaimedUntil.Add(-claimFor) }

// isNext reports whether it is the push of the sync of a that who opened last.
func (of *taking) isNext(who serval.Principal, a store.Account) bool {
	return of.generation == a.Generation && isOpen(who, a)
}

// known returns what is known now, with what the push has swapped in as it was
// before.
func (of *taking) known(tx *store.Tx, swapped map[string]bool) ([]serval.Known, error) {
	known, err := tx.KnownRoles(of.account.ID)
	if err != nil {
		return nil, err
	}
	known = slices.DeleteFunc(known, func(k serval.Known) bool { return swapped[k.Key.RoleID] })
	for _, k := range of.was.known {
		if swapped[k.Key.RoleID] {
			known = append(known, k)
		}
	}
	return known, nil
}

// next returns the part that is to be swapped in next; an empty one where there is
// none.
func (of *taking) next() part {
	if of.applied < len(of.parts) {
		return of.parts[of.applied]
	}
	return part{}
}

// last returns the part that is left, with the difference of the whole push. Where
// nothing of the roles has changed it is what was worked out before: thousands are not
// read, and not compared, while everybody waits.
func (of *taking) last(tx *store.Tx) (part, serval.Difference, error) {
	p := of.next()
	roster, err := tx.Roster(of.account.ID)
	if err != nil || roster.Version == of.was.version+int64(of.applied) {
		return p, of.difference, err
	}
	swapped := map[string]bool{}
	for _, p := range of.parts[:of.applied] {
		p.about(func(k serval.RoleKey) { swapped[k.RoleID] = true })
	}
	known, err := of.known(tx, swapped)
	if err != nil {
		return p, serval.Difference{}, err
	}
	if err := stillSettled(known, of.same); err != nil {
		return p, serval.Difference{}, err
	}
	d, err := of.compare(known, of.seen(), of.opened())
	p.difference = without(d, swapped)
	return p, d, err
}

// take takes in a push; see Push.
func (t *Intake) take(ctx context.Context, who serval.Principal, accountID string, p push) (Pushed, error) {
	of := &taking{push: p, haul: t.door.Passage.Haul()}
	var end func()
	err := t.view(ctx, who, p.what, accountID, func(v *store.View) (err error) {
		if !who.MayPush(accountID) {
			return noAccount()
		}
		if of.account, err = v.Account(accountID); serval.IsRefusal(err, serval.NotFound) {
			return noAccount()
		}
		if err != nil {
			return err
		}
		if !isOpen(who, of.account) && !isAccepted(of.account) {
			return serval.Refuse(serval.Conflict, "This worker has not opened the last sync of this account.")
		}
		var ok bool
		if end, ok = t.door.Store.BeginPush(accountID); !ok {
			return serval.Refuse(serval.Exhausted, "Another push of this account is under way. Push again when it has ended.")
		}
		if !isOpen(who, of.account) {
			return nil // what it brings is read for its digest alone
		}
		return of.learn(ctx, v)
	})
	if end != nil {
		defer end()
	}
	if err != nil {
		return Pushed{}, err
	}
	// Where the last sync was accepted, only its repeat has an answer: it is read
	// for its digest, and nothing is staged.
	staging := isOpen(who, of.account)
	defer func() {
		// What was swapped in left nothing behind; after a failure this cleans up.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		for _, p := range of.staged {
			if !slices.ContainsFunc(of.parts[:of.applied], func(done part) bool { return done.id == p.id }) {
				t.door.Store.DropStaged(ctx, p.id) // what stays behind goes with the sweep
			}
		}
	}()
	changes := &changes{known: of.was.states}
	err = of.stage(ctx, func(roles []store.Staged) error {
		if !staging {
			return nil
		}
		p := part{id: door.NewID("push")}
		for _, r := range roles {
			p.roles = append(p.roles, serval.Seen{Key: r.Key(), Digest: r.Digest})
		}
		of.staged = append(of.staged, p)
		if err := t.look(ctx, of.haul, changes, roles); err != nil {
			return err
		}
		return t.door.Store.Stage(ctx, p.id, accountID, t.door.Now(), roles)
	})
	if err != nil {
		t.door.Refused(ctx, who, p.what, accountID, err)
		return Pushed{}, err
	}
	if staging {
		if err := t.begin(ctx, who, of); err != nil {
			return Pushed{}, err
		}
	}
	var done Pushed
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
		case of.generation == a.AcceptedGeneration && of.digest == a.AcceptedDigest:
			e.Action, done.Repeated = "", true
			return json.Unmarshal([]byte(a.AcceptedAnswer), &done)
		case of.generation <= a.AcceptedGeneration:
			return serval.Refuse(serval.Conflict, "Generation %d is not newer than %d, which was accepted.", of.generation, a.AcceptedGeneration)
		case of.generation > a.Generation:
			// Somebody issued it, and this database has forgotten: it was set back.
			regressed = serval.Refuse(serval.Conflict, "Generation %d was never issued here; the last is %d. The database may have been restored from a backup: "+
				"see serval-bridge restored. The account is to be read anew.", of.generation, a.Generation)
			e.Outcome, e.Reason = serval.OutcomeRefused, regressed.Error()
			return tx.RequestSync(accountID)
		case !of.isNext(who, a) || !staging:
			return serval.Refuse(serval.Conflict, "Generation %d is not the last that this worker opened.", of.generation)
		case of.applied < len(of.parts)-1:
			return fmt.Errorf("%d of %d parts are swapped in", of.applied, len(of.parts))
		}
		last, d, err := of.last(tx)
		if err != nil {
			return err
		}
		written := of.n > len(of.same) || !d.IsEmpty()
		if written {
			if err := t.apply(tx, accountID, last); err != nil {
				return err
			}
		}
		done = Pushed{Added: len(d.Added), Changed: len(d.Changed), Removed: len(d.Removed()), Held: len(d.Held), Stale: len(d.Stale)}
		answer, err := json.Marshal(done)
		if err != nil {
			return err
		}
		if err := p.accept(tx, of.digest, string(answer)); err != nil {
			return err
		}
		changes.first(d.Changed)
		if e.Detail = p.detail(of.n, d, written); e.Detail == nil {
			e.Action, quiet = "", true
		}
		changes.describe(e.Detail, d.Changed)
		return nil
	}, func(tx *store.Tx) { tx.ExpectPush(accountID, of.next().id) })
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
	if done.Repeated {
		return done, nil
	}
	if of.applied > 0 {
		at = of.at
	}
	of.applied = len(of.parts)
	if done.Changed+done.Added > 0 {
		t.follow(ctx, accountID, at)
	}
	return done, nil
}

// begin works out what a push does that is all staged, and does all of it but the
// last part.
func (t *Intake) begin(ctx context.Context, who serval.Principal, of *taking) error {
	if of.was.unkept && len(of.staged) > 0 {
		if err := t.door.Store.KeepUnkept(ctx, of.account.ID); err != nil {
			return err
		}
	}
	seen := of.seen()
	err := of.haul.GiveWay(ctx)
	if err != nil {
		return err
	}
	if of.difference, err = of.compare(of.was.known, seen, of.opened()); err != nil {
		t.door.Refused(ctx, who, of.what, of.account.ID, err)
		return err
	}
	if err := of.haul.GiveWay(ctx); err != nil {
		return err
	}
	of.parts = parts(of.staged, of.difference)
	err = t.ahead(ctx, who, of)
	if of.applied > 0 { // also where it comes to no more than these
		t.door.Changed.Raise()
	}
	return err
}

// Before is what was known of an account's roles when a push of it began.
type before struct {
	version int64 // of the account's roster
	known   []serval.Known
	states  map[string]store.KnownState // by role id
	unkept  bool                        // of some no version is kept
}

// learn reads what is known before anything of the push is done.
func (of *taking) learn(ctx context.Context, v *store.View) error {
	roster, err := v.Roster(of.account.ID)
	if err != nil {
		return err
	}
	was := before{version: roster.Version, states: map[string]store.KnownState{}}
	err = v.KnownStates(of.account.ID, func(k store.KnownState) error {
		was.known, was.states[k.Key.RoleID] = append(was.known, k.Known), k
		was.unkept = was.unkept || k.Version == 0
		return of.haul.GiveWay(ctx)
	})
	of.was = was
	return err
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

// stage reads the push and hands its roles to keep in batches, checking each, but for
// those that are settled as they are, which were checked when they came to be so.
func (of *taking) stage(ctx context.Context, keep func([]store.Staged) error) error {
	var batch []store.Staged
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
	var err error
	of.head, err = of.read(of.account.Account, func(r serval.Role) error {
		if err := of.haul.GiveWay(ctx); err != nil {
			return err
		}
		if of.n++; of.n > maxRoles {
			return serval.Refuse(serval.TooLarge, "The %s has more than %d roles.", of.noun, maxRoles)
		}
		was, there := of.was.states[r.RoleID]
		digest := ""
		if there {
			digest = r.Digest()
		}
		settled := there && isSettledAs(r, digest, was)
		if !settled {
			if err := checkRole(r, of.account.Account); err != nil {
				return err
			}
		}
		if ids[r.RoleID] || arns[r.ARN] {
			return serval.Refuse(serval.Invalid, "The role id %s, or the ARN %s, comes twice.", r.RoleID, r.ARN)
		}
		ids[r.RoleID], arns[r.ARN] = true, true
		if settled {
			of.same = append(of.same, serval.Seen{Key: was.Key, Digest: was.Digest})
			return nil
		}
		if !there {
			digest = r.Digest()
		}
		batch = append(batch, store.Staged{Role: r, Digest: digest})
		for _, d := range r.Documents() {
			size += len(d)
		}
		if len(batch) == partRoles || size >= partBytes {
			return flush()
		}
		return nil
	})
	if err == nil {
		err = flush()
	}
	switch {
	case err != nil:
	case of.accountID != of.account.ID:
		err = serval.Refuse(serval.Invalid, "This %s is of account %s, not of %s.", of.noun, serval.Cut(of.accountID, 40), of.account.ID)
	case of.generation < 1:
		err = serval.Refuse(serval.Conflict, "The %s bears no generation: it is pushed with the one that its sync was opened with.", of.noun)
	}
	return err
}

// isSettledAs reports whether r, with its digest, is what is known of it, to the
// letter. What it can do has to be known by the rules of today too.
func isSettledAs(r serval.Role, digest string, was store.KnownState) bool {
	return was.IsSettled() && was.Key.ARN == r.ARN && was.MaxSessionSeconds == r.MaxSessionSeconds && isUsed(r, was.LastUsedAt) &&
		insight.Index(was.Ability).IsKnown() && was.Digest == digest
}

// isUsed reports whether r was last used at the instant; zero for never.
func isUsed(r serval.Role, at time.Time) bool {
	if r.LastUsedAt == nil {
		return at.IsZero()
	}
	return r.LastUsedAt.Truncate(time.Microsecond).Equal(at)
}
