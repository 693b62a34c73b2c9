package control

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/access"
	"github.com/serval-bridge/serval-bridge/internal/history"
	"github.com/serval-bridge/serval-bridge/internal/insight"
	"github.com/serval-bridge/serval-bridge/internal/roster"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/trust"
)

// A Role is a role in somebody's catalogue.
type Role struct {
	store.Role
	AccountName string
	Policy      serval.AccessPolicy
	MyRequest   *Request // the newest that is pending or approved; nil where there is none
	// Trust says whether the trust policy accepts the person who asks.
	Trust trust.Verdict
	// Blocked is why no session is opened with the role, whoever asks; empty where
	// one is.
	Blocked string
	// Card is what the role can do; read where one role is asked for, and nil in
	// lists.
	Card *insight.Card
	// InUse are the requests whose clock runs for it, as far as who asks may know
	// whose they are, and Others is how many there are besides; read where one role
	// is asked for, and not in lists.
	InUse  []*serval.Request
	Others int
}

// A RoleFilter chooses roles of the catalogue; empty fields choose all.
type RoleFilter struct {
	AccountID string
	Tag       string   // key, or key=value
	Text      string   // in ARN, description, account name or tags; without regard to ASCII case
	Abilities string   // what the role can do, all of them, with commas between; see insight.ParseAbility
	Unused    int      // days that it was not used for at least; 0 for any
	IDs       []string // role ids: these alone; nil: all
	After     string   // an ARN: those behind it
	Limit     int
}

// noRole is the answer both for a role that is not there and for one that who
// is not eligible for.
func noRole(who serval.Person) error {
	return serval.Refuse(serval.NotFound, "There is no such role, or you are not eligible for it.%s", groupsCause(who))
}

// Roles returns the roles that who is eligible for, in the order of account and
// name, without documents, and whether there are more.
func (p *Plane) Roles(ctx context.Context, who serval.Principal, f RoleFilter) (roles []Role, more bool, err error) {
	err = p.view(ctx, who, serval.RoleRead, "", func(v *store.View) (err error) {
		roles, more, err = p.catalogue(v, who, f)
		return err
	})
	return roles, more, err
}

// Catalogue returns what encode makes of Roles. While nothing changes that they
// were made from, it is remembered: a second at most, and only where this bridge
// is the only one.
func (p *Plane) Catalogue(ctx context.Context, who serval.Principal, f RoleFilter, encode func(roles []Role, more bool) ([]byte, error)) (answer []byte, err error) {
	err = p.view(ctx, who, serval.RoleRead, "", func(v *store.View) (err error) {
		answer, err = store.Remember(v, "catalogue", catalogueKey(who, f), func() ([]byte, error) {
			roles, more, err := p.catalogue(v, who, f)
			if err != nil {
				return nil, err
			}
			return encode(roles, more)
		})
		return err
	})
	return answer, err
}

// catalogueKey is all of somebody, and of what they ask, that the catalogue
// depends on.
func catalogueKey(who serval.Principal, f RoleFilter) string {
	var b strings.Builder
	for _, part := range append([]string{
		who.Person.ID, who.Person.Subject, who.Person.Email, who.Person.AuthorizedParty, who.Person.Suspended, who.Person.GroupsNote,
		strconv.FormatBool(who.Admin), strconv.FormatBool(who.Auditor),
		f.AccountID, f.Tag, f.Text, strings.Join(f.IDs, ","), f.Abilities, strconv.Itoa(f.Unused), f.After, strconv.Itoa(f.Limit),
	}, who.Person.Groups...) {
		b.WriteString(strconv.Itoa(len(part)))
		b.WriteByte(':')
		b.WriteString(part)
	}
	return b.String()
}

// catalogue is Roles, in a view.
func (p *Plane) catalogue(v *store.View, who serval.Principal, f RoleFilter) (roles []Role, more bool, err error) {
	if who.Person.Suspended != "" {
		return nil, false, suspended(who.Person) // what the mailbox was eligible for is not theirs to see
	}
	can, err := history.Choose(f.Abilities, f.Unused, p.now())
	if err != nil {
		return nil, false, err
	}
	mine, err := p.openByRole(v, who)
	if err != nil {
		return nil, false, err
	}
	policies, err := p.inForce(v)
	if err != nil {
		return nil, false, err
	}
	text := serval.FoldEmail(f.Text)
	err = p.rosters.EachOf(v, policies, who.Person, f.AccountID, f.After, func(of *roster.Roster, i int, policy *serval.AccessPolicy) (bool, error) {
		r := &of.Roles[i]
		if f.IDs != nil && !slices.Contains(f.IDs, r.RoleID) || !hasTag(r.Tags, f.Tag) || !r.Says(text) || !can(r.Role) {
			return true, nil
		}
		if f.Limit > 0 && len(roles) == f.Limit {
			more = true
			return false, nil
		}
		verdict, err := p.judge(v, r.Role, of.Provider, who.Person)
		if err != nil {
			return false, err
		}
		blocked, err := p.whyBlocked(v, r.Role)
		if err != nil {
			return false, err
		}
		if roles == nil {
			roles = make([]Role, 0, f.Limit)
		}
		roles = append(roles, Role{Role: r.Role, Blocked: blocked, AccountName: of.Account, Policy: *policy, MyRequest: mine[r.Key], Trust: verdict})
		return true, nil
	})
	if err != nil {
		return nil, false, err
	}
	return roles, more, nil
}

// RoleByName returns one role that who is eligible for, with its documents.
func (p *Plane) RoleByName(ctx context.Context, who serval.Principal, accountID, name string) (role Role, err error) {
	err = p.view(ctx, who, serval.RoleRead, accountID+"/"+name, func(v *store.View) error {
		if who.Person.Suspended != "" {
			return suspended(who.Person)
		}
		if role, err = p.eligible(v, who, accountID, name); err != nil {
			return err
		}
		mine, err := p.openByRole(v, who)
		if err != nil {
			return err
		}
		role.MyRequest = mine[role.Key]
		verdict, err := p.verdict(v, role.Role, who.Person)
		if err != nil {
			return err
		}
		role.Trust = *verdict
		if role.Blocked, err = p.whyBlocked(v, role.Role); err != nil {
			return err
		}
		if err = p.fillUse(v, who, &role); err != nil {
			return err
		}
		if err := v.FillDocuments(&role.Role); err != nil {
			return err
		}
		role.Card = history.Card(role.Role)
		return nil
	})
	return role, err
}

// maxWarm is about how many roles are read ahead: those of a large company. What is
// beyond them is read when somebody looks through it.
const maxWarm = 25_000

// WarmRosters reads the rosters that whoever looks first would wait for.
func (p *Plane) WarmRosters(ctx context.Context, who serval.Principal) error {
	return p.view(ctx, who, serval.RosterRead, "", func(v *store.View) error { return p.rosters.Warm(v, maxWarm) })
}

// KeepRosters reads the rosters that somebody has looked through again as soon as
// they change, until ctx ends: whoever looks next does not wait for it.
func (p *Plane) KeepRosters(ctx context.Context, who serval.Principal) error {
	return p.door.Await(ctx, forever, func() (bool, error) {
		return false, p.view(ctx, who, serval.RosterRead, "", p.rosters.Renew)
	})
}

// forever is longer than a bridge runs.
const forever = 100 * 365 * 24 * time.Hour

// eligible returns the role by its name, with its account's and the policy that
// lets who have it.
func (p *Plane) eligible(v *store.View, who serval.Principal, accountID, name string) (role Role, err error) {
	policies, err := p.inForce(v)
	if err != nil {
		return Role{}, err
	}
	known, err := v.Roster(accountID)
	if serval.IsRefusal(err, serval.NotFound) {
		return Role{}, noRole(who.Person)
	}
	if err != nil {
		return Role{}, err
	}
	of, err := p.rosters.Of(v, known)
	if err != nil {
		return Role{}, err
	}
	i := slices.IndexFunc(of.Roles, func(r roster.Role) bool { return r.Name == name })
	if i < 0 {
		return Role{}, noRole(who.Person)
	}
	role = Role{Role: of.Roles[i].Role, AccountName: of.Account}
	var ok bool
	if role.Policy, ok = access.Decide(policies.List, roster.Target(&role.Role), who.Person); !ok {
		return Role{}, noRole(who.Person)
	}
	return role, nil
}

// RoleHistory returns what a role that who is eligible for was and is; see
// history.Of.
func (p *Plane) RoleHistory(ctx context.Context, who serval.Principal, accountID, name, from, to string) (h history.History, err error) {
	err = p.view(ctx, who, serval.RoleRead, accountID+"/"+name, func(v *store.View) error {
		if who.Person.Suspended != "" {
			return suspended(who.Person)
		}
		role, err := p.eligible(v, who, accountID, name)
		if err == nil {
			h, err = history.Of(v, role.Role, from, to)
		}
		return err
	})
	return h, err
}

// openByRole returns who's newest open request for each role.
func (p *Plane) openByRole(v *store.View, who serval.Principal) (map[serval.RoleKey]*Request, error) {
	requests, err := v.OpenRequests(who.Person.ID)
	if err != nil {
		return nil, err
	}
	list, err := p.listed(v, requests)
	if err != nil {
		return nil, err
	}
	open := make(map[serval.RoleKey]*Request, len(list))
	for i, r := range list {
		if open[r.Role] == nil {
			open[r.Role] = &list[i]
		}
	}
	return open, nil
}

func hasTag(tags map[string]string, wanted string) bool {
	if wanted == "" {
		return true
	}
	key, want, withValue := strings.Cut(wanted, "=")
	value, tagged := tags[key]
	return tagged && (!withValue || value == want)
}
