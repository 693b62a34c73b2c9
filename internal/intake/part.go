package intake

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// How much of a push one part of it has: so many roles, or fewer with so many bytes
// of documents. Everybody who acts waits while a part is swapped in.
const (
	partRoles = 25
	partBytes = 1 << 20
)

// A part is what one transaction does of a push: it takes in the roles that were
// staged under a name of their own, and does to others what its difference says.
type part struct {
	id         string // empty where it takes none in
	roles      []serval.Seen
	difference serval.Difference
}

// size is how many roles a part is about.
func (p part) size() int {
	d := p.difference
	return len(p.roles) + len(d.Recreated) + len(d.Untagged) + len(d.Missing) + len(d.Held) + len(d.Stale)
}

// about calls f with the key of each role that a part is about.
func (p part) about(f func(serval.RoleKey)) {
	for _, s := range p.roles {
		f(s.Key)
	}
	for _, k := range slices.Concat(p.difference.Removed(), p.difference.Held) {
		f(k)
	}
	for _, s := range p.difference.Stale {
		f(s.Key)
	}
}

// without returns d without the roles of these ids.
func without(d serval.Difference, ids map[string]bool) serval.Difference {
	for _, keys := range []*[]serval.RoleKey{&d.Added, &d.Changed, &d.Unchanged, &d.Fresh, &d.Recreated, &d.Untagged, &d.Missing, &d.Held} {
		*keys = slices.DeleteFunc(slices.Clone(*keys), func(k serval.RoleKey) bool { return ids[k.RoleID] })
	}
	d.Stale = slices.DeleteFunc(slices.Clone(d.Stale), func(s serval.Stale) bool { return ids[s.Key.RoleID] })
	return d
}

// parts divides what a push does, in the order in which it is to be done: what was
// seen untagged goes first, since that is its owner's kill switch; then what is held,
// since it would not be held any more where the push broke off with many new roles beside
// it; then come the roles that were staged, each with the one, if there was one, that had
// its ARN before; and last what becomes of the others that were not seen. A small push is
// one part.
func parts(staged []part, d serval.Difference) (list []part) {
	add := func(p part) {
		if last := len(list) - 1; last >= 0 && list[last].size()+p.size() <= partRoles && (list[last].id == "" || p.id == "") {
			list[last] = list[last].with(p)
			return
		}
		list = append(list, p)
	}
	for _, k := range d.Untagged {
		add(part{difference: serval.Difference{Untagged: []serval.RoleKey{k}}})
	}
	for _, k := range d.Held {
		add(part{difference: serval.Difference{Held: []serval.RoleKey{k}}})
	}
	kinds := make(map[string]func(*serval.Difference) *[]serval.RoleKey, len(d.Added)+len(d.Changed)+len(d.Fresh)) // by role id
	for _, k := range d.Added {
		kinds[k.RoleID] = func(d *serval.Difference) *[]serval.RoleKey { return &d.Added }
	}
	for _, k := range d.Changed {
		kinds[k.RoleID] = func(d *serval.Difference) *[]serval.RoleKey { return &d.Changed }
	}
	for _, k := range d.Fresh {
		kinds[k.RoleID] = func(d *serval.Difference) *[]serval.RoleKey { return &d.Fresh }
	}
	recreated := make(map[string]serval.RoleKey, len(d.Recreated)) // by ARN
	for _, k := range d.Recreated {
		recreated[k.ARN] = k
	}
	for _, p := range staged {
		for _, s := range p.roles {
			if of, there := kinds[s.Key.RoleID]; there {
				keys := of(&p.difference)
				*keys = append(*keys, s.Key)
			}
			if k, there := recreated[s.Key.ARN]; there {
				p.difference.Recreated = append(p.difference.Recreated, k)
				delete(recreated, k.ARN)
			}
		}
		add(p)
	}
	for _, k := range d.Recreated {
		if _, left := recreated[k.ARN]; left { // what has its ARN now could not be looked at
			add(part{difference: serval.Difference{Recreated: []serval.RoleKey{k}}})
		}
	}
	for _, k := range d.Missing {
		add(part{difference: serval.Difference{Missing: []serval.RoleKey{k}}})
	}
	for _, s := range d.Stale {
		add(part{difference: serval.Difference{Stale: []serval.Stale{s}}})
	}
	return list
}

// with returns p and what comes behind it as one.
func (p part) with(next part) part {
	d, more := &p.difference, next.difference
	d.Added, d.Changed, d.Fresh = append(d.Added, more.Added...), append(d.Changed, more.Changed...), append(d.Fresh, more.Fresh...)
	d.Recreated, d.Untagged, d.Missing = append(d.Recreated, more.Recreated...), append(d.Untagged, more.Untagged...), append(d.Missing, more.Missing...)
	d.Held, d.Stale = append(d.Held, more.Held...), append(d.Stale, more.Stale...)
	if next.id != "" {
		p.id, p.roles = next.id, next.roles
	}
	return p
}

// ahead swaps in all parts of a push but the last, each in a transaction of its own
// with an event that says so. Where the push is not to be taken in any more it does no
// further one: the last tells why.
func (t *Intake) ahead(ctx context.Context, who serval.Principal, of *taking) error {
	if err := of.haul.GiveWay(ctx); err != nil {
		return err
	}
	for of.applied < len(of.parts)-1 {
		one, began, overtaken := of.parts[of.applied], time.Now(), false
		var now time.Time
		err := t.act(ctx, who, of.what, of.account.ID, func(tx *store.Tx, e *serval.Event) error {
			a, err := tx.Account(of.account.ID)
			if err != nil && !serval.IsRefusal(err, serval.NotFound) {
				return err
			}
			if overtaken = err != nil || !of.isNext(who, a); overtaken {
				e.Action, e.Outcome = "", ""
				return nil
			}
			now = tx.Now
			e.Outcome = serval.OutcomeStarted
			e.Detail = map[string]string{
				"generation": fmt.Sprint(of.generation), "part": fmt.Sprint(of.applied + 1), "parts": fmt.Sprint(len(of.parts)), "roles": fmt.Sprint(one.size()),
			}
			describe(e.Detail, one.difference, maxNamedOfPart)
			return t.apply(tx, of.account.ID, one)
		}, func(tx *store.Tx) { tx.ExpectPush(of.account.ID, one.id) })
		if err != nil || overtaken {
			return err
		}
		if of.applied++; of.applied == 1 {
			of.at = now
		}
		if err := of.haul.StandBack(ctx, time.Since(began)); err != nil {
			return err
		}
	}
	return nil
}

// apply swaps a part in, and ends the requests for roles that it takes out for
// good: what was untagged may be tagged again, what was deleted never returns.
func (t *Intake) apply(tx *store.Tx, accountID string, p part) error {
	if p.id != "" {
		staged, err := tx.StagedRoles(p.id)
		if err != nil {
			return err
		}
		if len(staged) != len(p.roles) {
			return fmt.Errorf("%d of %d staged roles are there", len(staged), len(p.roles))
		}
	}
	if err := tx.ApplyDifference(p.id, accountID, p.difference); err != nil {
		return err
	}
	return t.door.FailRequests(tx, append(append([]serval.RoleKey(nil), p.difference.Recreated...), p.difference.Missing...))
}
