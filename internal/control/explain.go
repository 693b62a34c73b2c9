package control

import (
	"context"
	"slices"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/access"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/trust"
)

// A RoleState says what becomes of a role when somebody asks for it.
type RoleState string

// What a role can be.
const (
	RoleListed  RoleState = "listed"
	RoleStale   RoleState = "stale" // listed, and its last state could not be confirmed
	RoleHeld    RoleState = "held"  // listed, and not to be minted
	RoleRemoved RoleState = "removed"
	RoleUnknown RoleState = "unknown" // never read with the tag
)

// An Explanation says why somebody may or may not have a role.
type Explanation struct {
	// May says whether they could request it now. Why is the first thing that
	// keeps them from it, or which policy lets them.
	May bool
	Why string

	ARN       serval.RoleARN
	State     RoleState
	Reason    string    // of the state; empty for a listed role
	Since     time.Time // of the state; zero for a listed or an unknown role
	Connected bool      // the role's account is connected

	// Person is who was found: somebody who never signed in has an email and no id.
	Person serval.Person
	// Identities is how many people have signed in with the email. Beyond one,
	// Person is one who is not suspended, if there is one.
	Identities int
	// GroupsFresh says that the groups are young enough for a decision.
	GroupsFresh bool

	Findings []access.Finding // every policy in order
	Trust    *trust.Verdict   // nil where role or person is not known

	// Blocked is why no session is opened with the role, whoever asks; empty where
	// one is.
	Blocked string
}

// Explain returns why the person with the email may or may not have the role.
func (p *Plane) Explain(ctx context.Context, who serval.Principal, email, arn string) (x Explanation, err error) {
	err = p.view(ctx, who, serval.AccessExplain, "", func(v *store.View) error {
		x = Explanation{}
		if _, err := serval.ParseEmail(email); err != nil {
			return err
		}
		if x.ARN, err = serval.ParseRoleARN(arn); err != nil {
			return err
		}
		if err := p.explainPerson(v, &x, email); err != nil {
			return err
		}
		role, err := explainRole(v, &x)
		if err != nil {
			return err
		}
		policies, err := p.inForce(v)
		if err != nil {
			return err
		}
		x.Findings = access.Explain(policies.List, access.Target{AccountID: x.ARN.AccountID, ARN: arn, Tags: role.Tags}, x.Person)
		if x.State != RoleUnknown && x.State != RoleRemoved {
			if x.Person.ID != "" {
				if x.Trust, err = p.verdict(v, role, x.Person); err != nil {
					return err
				}
			}
			if x.Blocked, err = p.whyBlocked(v, role); err != nil {
				return err
			}
		}
		x.May, x.Why = x.conclude()
		return nil
	})
	return x, err
}

func (p *Plane) explainPerson(v *store.View, x *Explanation, email string) error {
	people, err := v.PeopleByEmail(email)
	if err != nil {
		return err
	}
	x.Identities, x.Person = len(people), serval.Person{Email: email}
	if len(people) > 0 {
		x.Person = people[max(0, slices.IndexFunc(people, func(k serval.Person) bool { return k.Suspended == "" }))]
		x.GroupsFresh = p.now().Sub(x.Person.GroupsAt) <= groupsLast
	}
	return nil
}

// explainRole returns the role that has the ARN, or had it last.
func explainRole(v *store.View, x *Explanation) (store.Role, error) {
	switch _, err := v.Account(x.ARN.AccountID); {
	case err == nil:
		x.Connected = true
	case !serval.IsRefusal(err, serval.NotFound):
		return store.Role{}, err
	}
	role, err := v.RoleByARN(x.ARN.String())
	switch {
	case serval.IsRefusal(err, serval.NotFound):
		removed, err := v.RemovedRole(x.ARN.String())
		if serval.IsRefusal(err, serval.NotFound) {
			x.State = RoleUnknown
			x.Reason = `No sync has seen this role with the tag "serval".`
			if !x.Connected {
				x.Reason = "Its account is not connected."
			}
			return store.Role{}, nil
		}
		x.State, x.Since, x.Reason = RoleRemoved, removed.At, removed.Reason
		return removed.Role, err
	case err != nil:
		return store.Role{}, err
	case !role.HeldSince.IsZero():
		x.State, x.Since, x.Reason = RoleHeld, role.HeldSince, "It was missing from the last sync together with most others of its account; until that is confirmed no session is opened."
	case !role.StaleSince.IsZero():
		x.State, x.Since, x.Reason = RoleStale, role.StaleSince, role.StaleReason
	default:
		x.State = RoleListed
	}
	return role, nil
}

// conclude returns whether the role can be requested, and why or why not.
func (x Explanation) conclude() (may bool, why string) {
	i := slices.IndexFunc(x.Findings, func(f access.Finding) bool { return f.Decides })
	switch {
	case x.State == RoleUnknown || x.State == RoleRemoved:
		return false, "The role is not in the catalogue: " + x.Reason
	case x.Person.ID == "" && i < 0:
		return false, "Nobody has signed in with this email, and no access policy names it."
	case x.Person.ID == "":
		return false, "Nobody has signed in with this email yet. Access policy " + x.Findings[i].Policy.Name + " would decide."
	case x.Person.Suspended != "":
		return false, x.Person.Suspended
	case i < 0 && x.Person.GroupsNote != "":
		return false, "No access policy matches role and person. The person's groups are not known: " + x.Person.GroupsNote
	case i < 0:
		return false, "No access policy matches role and person."
	case x.State == RoleHeld:
		return false, x.Reason
	case x.Blocked != "":
		return true, "Access policy " + x.Findings[i].Policy.Name + " decides. But it could not be used: " + x.Blocked
	default:
		return true, "Access policy " + x.Findings[i].Policy.Name + " decides."
	}
}
