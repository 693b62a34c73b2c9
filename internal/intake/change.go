package intake

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/history"
	"github.com/serval-bridge/serval-bridge/internal/insight"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// What a push changes of roles is told in two ways. The event of the push names
// the first roles, with what changed of them. All of them are compared after it,
// some in a transaction: the push only notes, in its own, that they are to be. So
// the chain is held for long neither by the push nor by what follows, and where
// the bridge dies in between another goes on.

// The bounds of what is told: how many roles are compared at once, how many rows
// are written of them in one transaction, but for what one role has more, and how many
// people one notice names.
const (
	tellBatch = 50
	maxTold   = 10
	maxPeople = 20
	maxSaid   = 2000 // characters of a change, in an event of its own and in a message
	maxHow    = 400  // and in the event of the push
)

// tellFor bounds how long a push tells of what it changed; the rest is told by
// whoever calls Tell.
const tellFor = time.Minute

// Changes are what a push changes of the first roles that are known. They are
// worked out while it is staged, and not while the chain is held.
type changes struct {
	known map[string]store.KnownState // by role id, when the push began
	how   map[string]how
}

// A how is how a role differs from what was known of it by the digest, in words.
type how struct{ from, text string }

// look notes of roles that are about to be staged what each can do, and compares the
// first that changed with what is known of them.
func (t *Intake) look(ctx context.Context, haul *door.Haul, c *changes, roles []store.Staged) error {
	aws := insight.AWS()
	for i, r := range roles {
		if err := haul.GiveWay(ctx); err != nil {
			return err
		}
		roles[i].Ability = string(aws.Look(r.Role).Index())
		k, known := c.known[r.RoleID]
		if !known || k.Digest == r.Digest || len(c.how) >= maxNamed {
			continue
		}
		var before store.Role
		err := t.door.Store.Read(ctx, func(v *store.View) (err error) {
			if before, err = v.RoleByKey(k.Key); err != nil {
				return err
			}
			return v.FillDocuments(&before)
		})
		if serval.IsRefusal(err, serval.NotFound) {
			continue // it went meanwhile
		}
		if err != nil {
			return err
		}
		if c.how == nil {
			c.how = map[string]how{}
		}
		change := aws.Compare(before.Role, r.Role)
		c.how[r.RoleID] = how{before.Digest, serval.Cut(strings.Join(change.Sentences, " "), maxHow)}
	}
	return nil
}

// of returns how a role changed; ok is false where that was not worked out.
func (c *changes) of(key serval.RoleKey) (text string, ok bool) {
	one, ok := c.how[key.RoleID]
	// What was compared with another state than the one that was known says nothing.
	return one.text, ok && one.from == c.known[key.RoleID].Digest
}

// first puts the roles of which it is known how they changed before the others. They may
// be thousands, and everybody waits meanwhile.
func (c *changes) first(changed []serval.RoleKey) {
	var others []serval.RoleKey
	n := 0
	for _, k := range changed {
		if _, ok := c.of(k); !ok {
			others = append(others, k)
			continue
		}
		changed[n] = k
		n++
	}
	copy(changed[n:], others)
}

// describe puts how roles changed into the detail of a push's event, beside their
// names.
func (c *changes) describe(detail map[string]string, changed []serval.RoleKey) {
	for i, key := range changed[:min(len(changed), maxNamed)] {
		if text, ok := c.of(key); ok && detail != nil {
			detail[fmt.Sprintf("changed_%02d_how", i+1)] = text
		}
	}
}

// follow does what follows a push at an instant: old versions of what it changed
// are given up, and all that nobody was told of is told.
func (t *Intake) follow(ctx context.Context, accountID string, at time.Time) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tellFor)
	defer cancel()
	if err := t.door.Store.GiveUpVersions(ctx, accountID, at, at); err != nil {
		t.door.Log.Error("old versions of roles could not be given up", zap.String("account", accountID), zap.Error(err))
	}
	t.tellAll(ctx)
}

// tellAll tells of all that nobody was told of. What it does not come to, and what
// fails, is told by whoever calls Tell next.
func (t *Intake) tellAll(ctx context.Context) {
	for more := true; more && ctx.Err() == nil; {
		var err error
		if more, err = t.Tell(ctx); err != nil {
			t.door.Log.Error("what a push changed of roles could not all be told", zap.Error(err))
		}
	}
}

// A telling is what there is to tell of one role.
type telling struct {
	store.Untold
	change  insight.Change
	notices []serval.Notice
}

// rows is how many rows are written of it.
func (t telling) rows(channels int) int {
	if !t.change.Grew() {
		return 1
	}
	return 2 + len(t.notices)*channels
}

// Tell records, of some roles that changed and of which nobody was told yet, what
// each gained, where it gained something, and has those told who approved what is
// used of it: with an alarm where whoever holds it is an administrator now, or can
// become one. It reports whether there may be more, also with an error: a role of
// which it cannot be found out waits, and the others do not wait for it. Call it
// once a second, too: what a push did not come to is told then. Several replicas
// may; each role is told of once.
func (t *Intake) Tell(ctx context.Context) (more bool, err error) {
	if !t.telling.TryLock() {
		return false, nil // whoever has it goes on until all is told
	}
	defer t.telling.Unlock()
	who := serval.System()
	haul := t.door.Passage.Haul()
	var untold []store.Untold
	err = t.view(ctx, who, serval.RoleChange, "", func(v *store.View) (err error) {
		untold, t.told, err = v.Untold(t.told, tellBatch)
		return err
	})
	if err != nil {
		return false, err
	}
	more = t.told != serval.RoleKey{}
	var list []telling
	var left error
	for len(untold) > 0 {
		n := 0
		err := t.view(ctx, who, serval.RoleChange, "", func(v *store.View) error {
			for documents := v.Documents(); n < len(untold); n++ {
				one, err := whatToTell(v, documents, untold[n], func() error { return haul.GiveWay(ctx) })
				if err != nil {
					return err
				}
				list = append(list, one)
			}
			return nil
		})
		if err != nil { // of the one that it came to
			left, n = errors.Join(left, err), min(n+1, len(untold))
			if t.door.Store.Ping(ctx) != nil {
				return more, left // every other would meet the same
			}
		}
		untold = untold[n:]
	}
	for len(list) > 0 {
		n, rows := 0, 0
		for n < len(list) {
			if rows += list[n].rows(len(t.door.Channels)); rows > maxTold && n > 0 {
				break
			}
			n++
		}
		began := time.Now()
		if err := t.tell(ctx, who, list[:n]); err != nil {
			return more, errors.Join(left, err)
		}
		if err := haul.StandBack(ctx, time.Since(began)); err != nil {
			return more, errors.Join(left, err)
		}
		list = list[n:]
	}
	return more, left
}

// tell records and tells of some roles, in one transaction. It is short, since
// everybody who acts waits for it: all is worked out.
func (t *Intake) tell(ctx context.Context, who serval.Principal, list []telling) error {
	return t.act(ctx, who, serval.RoleChange, "", func(tx *store.Tx, e *serval.Event) error {
		e.Action, e.Outcome = "", ""
		for _, one := range list {
			if ours, err := tx.Told(one.Key, one.Since, one.Version); err != nil {
				return err
			} else if !ours || !one.change.Grew() {
				continue
			}
			changed := door.Event(who, serval.RoleChange, one.ARN, serval.OutcomeDone)
			changed.Detail = map[string]string{
				"role_id": one.RoleID, "gained": fmt.Sprint(one.change.Gained.Count), "lost": fmt.Sprint(one.change.Lost.Count), "change": said(one.change),
			}
			if one.change.Escalated {
				changed.Detail["escalated"] = "true"
			}
			if err := tx.Append(changed); err != nil {
				return err
			}
			for _, n := range one.notices {
				if err := t.door.Tell(tx, n); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// said is a change in words, as long as a message may be.
func said(c insight.Change) string { return serval.Cut(strings.Join(c.Sentences, "\n"), maxSaid) }

// whatToTell works out what changed of a role, and who is to be told, and gives way
// between its steps.
func whatToTell(v *store.View, documents *store.Documents, u store.Untold, giveWay func() error) (telling, error) {
	one := telling{Untold: u}
	if u.Fault != nil {
		return one, u.Fault
	}
	if err := giveWay(); err != nil {
		return one, err
	}
	was, err := v.RoleVersion(u.Key, u.Since)
	if serval.IsRefusal(err, serval.NotFound) {
		return one, nil // nobody knows any more what it was
	}
	if err != nil {
		return one, err
	}
	is := u.Role // its documents are not kept with what is told
	for _, r := range []*store.Role{&was, &is} {
		if err := errors.Join(documents.Fill(r), giveWay()); err != nil {
			return one, err
		}
	}
	if one.change = history.Between(was, is); !one.change.Grew() {
		return one, nil
	}
	if err := giveWay(); err != nil {
		return one, err
	}
	requests, err := v.RequestsOfRole(u.Key)
	if err != nil {
		return one, err
	}
	one.notices = notices(one.change, slices.DeleteFunc(requests, func(r *serval.Request) bool { return r.Status != serval.StatusApproved }))
	return one, nil
}

// notices are those of a role that can do more than before, where requests are
// approved for it: one for each set of people who are named to approve, and one for
// each requester whose approval is suspended by that.
func notices(change insight.Change, requests []*serval.Request) (list []serval.Notice) {
	about := func(r *serval.Request, purpose serval.Purpose, to serval.People, title, text string) {
		n := serval.Notice{Kind: serval.RoleChange, Purpose: purpose, RequestID: r.ID, To: to, Facts: r.NoticeFacts(serval.System())}
		n.Facts[serval.FactTitle], n.Facts[serval.FactText] = title, text
		list = append(list, n)
	}
	var order []string // of what follows
	groups := map[string][]*serval.Request{}
	for _, r := range requests {
		named := r.Terms.Named()
		if named.IsEmpty() {
			continue // nobody was asked
		}
		suspends := change.Escalated && r.Terms.SuspendOnEscalation
		if suspends {
			about(r, serval.ToKnow, serval.People{Emails: []string{r.Email}},
				"Your access is suspended: its role gained the powers of an administrator",
				"Ask for an extension; whoever approves it approves the role as it is now.")
		}
		key := fmt.Sprintf("%v %q %q", suspends, named.Groups, named.Emails)
		if groups[key] == nil {
			order = append(order, key)
		}
		groups[key] = append(groups[key], r)
	}
	for _, key := range order {
		all := groups[key]
		r := all[0]
		purpose, can, text := serval.ToKnow, "can do more now", said(change)
		if change.Escalated {
			purpose, can = serval.Alarm, "can make them an administrator now"
		}
		if change.Escalated && r.Terms.SuspendOnEscalation {
			text = "What was approved is suspended until it is approved again: its holder asks for an extension.\n" + text
		}
		about(r, purpose, r.Terms.Named(), "A role that you approve for "+holders(all)+" "+can, text)
	}
	return list
}

// holders names whose requests they are.
func holders(requests []*serval.Request) string {
	var names []string
	for _, r := range requests {
		if !slices.Contains(names, r.Email) {
			names = append(names, r.Email)
		}
	}
	if more := len(names) - maxPeople; more > 0 {
		return strings.Join(names[:maxPeople], ", ") + fmt.Sprintf(" and %d more", more)
	}
	return strings.Join(names, ", ")
}
