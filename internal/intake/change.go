package intake

import (
	"context"
	"fmt"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/insight"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// The bounds of what one push tells: roles whose change is worked out and
// recorded, each by itself, and requests whose approvers are told. The event of
// the push counts all that changed.
const (
	maxCompared = 500
	maxTold     = 200
	maxSaid     = 2000 // characters of a change, in an event of its own and in a message
	maxHow      = 400  // and in the event of the push
)

// Changes are what a push changes of roles that are known. They are worked out
// while it is staged, and not while the chain is held.
type changes struct {
	known    map[string]store.KnownAbility // by role id, when the push began
	compared map[string]compared
}

// A compared is how a role differs from what was known of it by the digest.
type compared struct {
	from   string
	change insight.Change
}

// look returns roles as they are staged, with what each can do, and compares
// those that changed with what is known of them.
func (t *Intake) look(ctx context.Context, c *changes, roles []serval.Role) ([]store.Staged, error) {
	aws := insight.AWS()
	staged := make([]store.Staged, len(roles))
	for i, r := range roles {
		staged[i] = store.Staged{Role: r, Digest: r.Digest(), Ability: string(aws.Look(r).Index())}
		k, known := c.known[r.RoleID]
		if !known || k.Digest == staged[i].Digest || len(c.compared) >= maxCompared {
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
			return nil, err
		}
		if c.compared == nil {
			c.compared = map[string]compared{}
		}
		c.compared[r.RoleID] = compared{before.Digest, aws.Compare(before.Role, r)}
	}
	return staged, nil
}

// of returns how a role changed; ok is false where that was not worked out.
func (c *changes) of(key serval.RoleKey) (change insight.Change, ok bool) {
	one, ok := c.compared[key.RoleID]
	// What was compared with another state than the one that was known says nothing.
	if !ok || one.from != c.known[key.RoleID].Digest {
		return insight.Change{}, false
	}
	return one.change, true
}

// describe puts how roles changed into the detail of a push's event, beside their
// names.
func (c *changes) describe(detail map[string]string, changed []serval.RoleKey) {
	for i, key := range changed[:min(len(changed), maxNamed)] {
		if one, ok := c.of(key); ok && detail != nil {
			detail[fmt.Sprintf("changed_%02d_how", i+1)] = serval.Cut(strings.Join(one.Sentences, " "), maxHow)
		}
	}
}

// tellChanges records of each changed role that gained something what that is,
// and has those told who approved what is used of it: with an alarm where whoever
// holds the role is an administrator now, or can become one.
func (t *Intake) tellChanges(tx *store.Tx, who serval.Principal, c *changes, changed []serval.RoleKey) error {
	told := 0
	for _, key := range changed {
		change, ok := c.of(key)
		if !ok || !change.Grew() {
			continue
		}
		said := serval.Cut(strings.Join(change.Sentences, "\n"), maxSaid)
		e := door.Event(who, serval.RoleChange, key.ARN, serval.OutcomeDone)
		e.Detail = map[string]string{
			"role_id": key.RoleID, "gained": fmt.Sprint(change.Gained.Count), "lost": fmt.Sprint(change.Lost.Count), "change": said,
		}
		if change.Escalated {
			e.Detail["escalated"] = "true"
		}
		if err := tx.Append(e); err != nil {
			return err
		}
		requests, err := tx.RequestsOfRole(key)
		if err != nil {
			return err
		}
		for _, r := range requests {
			if r.Status != serval.StatusApproved || told >= maxTold {
				continue
			}
			told++
			if err := t.tellApprovers(tx, r, change.Escalated, said); err != nil {
				return err
			}
		}
	}
	return nil
}

// tellApprovers has everybody told who is named to approve r that its role gained
// something since, and its requester where that suspends what was approved.
func (t *Intake) tellApprovers(tx *store.Tx, r *serval.Request, escalated bool, said string) error {
	n := serval.Notice{Kind: serval.RoleChange, Purpose: serval.ToKnow, RequestID: r.ID, To: r.Terms.Named(), Facts: r.NoticeFacts(serval.System())}
	n.Facts[serval.FactTitle] = "A role that you approve for " + r.Email + " can do more now"
	n.Facts[serval.FactText] = said
	if escalated {
		n.Purpose = serval.Alarm
		n.Facts[serval.FactTitle] = "A role that you approve for " + r.Email + " can make them an administrator now"
	}
	if n.To.IsEmpty() {
		return nil // nobody was asked
	}
	if escalated && r.Terms.SuspendOnEscalation {
		n.Facts[serval.FactText] = "What was approved is suspended until it is approved again: its holder asks for an extension.\n" + said
		holder := n
		holder.Purpose, holder.To = serval.ToKnow, serval.People{Emails: []string{r.Email}}
		holder.Facts = r.NoticeFacts(serval.System())
		holder.Facts[serval.FactTitle] = "Your access is suspended: its role gained the powers of an administrator"
		holder.Facts[serval.FactText] = "Ask for an extension; whoever approves it approves the role as it is now."
		if err := t.door.Tell(tx, holder); err != nil {
			return err
		}
	}
	return t.door.Tell(tx, n)
}
