package control

import (
	"context"
	"strconv"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/access"
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
}

// A RoleFilter chooses roles of the catalogue; empty fields choose all.
type RoleFilter struct {
	AccountID string
	Tag       string // key, or key=value
	Text      string // in ARN, description, account name or tags; without regard to ASCII case
	After     string // an ARN: those behind it
	Limit     int
}

// noRole is the answer both for a role that is not there and for one that who
// is not eligible for.
func noRole(who serval.Person) error {
	return serval.Refuse(serval.NotFound, "There is no such role, or you are not eligible for it.%s", groupsCause(who))
}

// Roles returns the roles that who is eligible for, in the order of account and
// ARN, without documents, and whether there are more.
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
		f.AccountID, f.Tag, f.Text, f.After, strconv.Itoa(f.Limit),
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
	after, err := serval.ParseRoleARN(f.After)
	if f.After != "" && err != nil {
		return nil, false, noPage()
	}
	known, err := v.Roles()
	if err != nil {
		return nil, false, err
	}
	names, err := accountNames(v)
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
	for _, r := range known {
		if f.AccountID != "" && r.Key.AccountID != f.AccountID || f.After != "" && !behind(r, after) ||
			!hasTag(r.Tags, f.Tag) || !hasText(r, names[r.Key.AccountID], f.Text) {
			continue
		}
		policy, ok := access.Decide(policies, target(r), who.Person)
		if !ok {
			continue
		}
		if f.Limit > 0 && len(roles) == f.Limit {
			return roles, true, nil
		}
		verdict, err := p.judge(v, r, who.Person)
		if err != nil {
			return nil, false, err
		}
		blocked, err := p.whyBlocked(v, r)
		if err != nil {
			return nil, false, err
		}
		roles = append(roles, Role{Role: r, Blocked: blocked, AccountName: names[r.Key.AccountID], Policy: policy, MyRequest: mine[r.Key], Trust: verdict})
	}
	return roles, false, nil
}

// behind reports whether r comes after the role with the ARN in the catalogue's
// order.
func behind(r store.Role, arn serval.RoleARN) bool {
	return r.Key.AccountID > arn.AccountID || r.Key.AccountID == arn.AccountID && r.ARN > arn.String()
}

// RoleByName returns one role that who is eligible for, with its documents.
func (p *Plane) RoleByName(ctx context.Context, who serval.Principal, accountID, name string) (role Role, err error) {
	err = p.view(ctx, who, serval.RoleRead, accountID+"/"+name, func(v *store.View) error {
		if who.Person.Suspended != "" {
			return suspended(who.Person)
		}
		known, err := v.Roles()
		if err != nil {
			return err
		}
		policies, err := p.inForce(v)
		if err != nil {
			return err
		}
		for _, r := range known {
			if r.Key.AccountID != accountID || r.Name != name {
				continue
			}
			policy, ok := access.Decide(policies, target(r), who.Person)
			if !ok {
				return noRole(who.Person)
			}
			names, err := accountNames(v)
			if err != nil {
				return err
			}
			mine, err := p.openByRole(v, who)
			if err != nil {
				return err
			}
			role = Role{Role: r, AccountName: names[accountID], Policy: policy, MyRequest: mine[r.Key]}
			if role.Trust, err = p.judge(v, r, who.Person); err != nil {
				return err
			}
			if role.Blocked, err = p.whyBlocked(v, r); err != nil {
				return err
			}
			return v.FillDocuments(&role.Role)
		}
		return noRole(who.Person)
	})
	return role, err
}

func target(r store.Role) access.Target {
	return access.Target{AccountID: r.Key.AccountID, ARN: r.ARN, Tags: r.Tags}
}

func accountNames(v *store.View) (map[string]string, error) {
	accounts, err := v.Accounts()
	if err != nil {
		return nil, err
	}
	names := make(map[string]string, len(accounts))
	for _, a := range accounts {
		names[a.ID] = a.Name
	}
	return names, nil
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

func hasText(r store.Role, account, text string) bool {
	if text == "" {
		return true
	}
	text = serval.FoldEmail(text)
	for _, field := range []string{r.ARN, r.Description, account} {
		if strings.Contains(serval.FoldEmail(field), text) {
			return true
		}
	}
	for key, value := range r.Tags {
		if strings.Contains(serval.FoldEmail(key), text) || strings.Contains(serval.FoldEmail(value), text) {
			return true
		}
	}
	return false
}
