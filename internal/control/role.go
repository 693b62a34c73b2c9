package control

import (
	"context"
	"strings"
	"sync"

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
	err = p.view(ctx, who, serval.RoleRead, "", func(v *store.View) error {
		if who.Person.Suspended != "" {
			return suspended(who.Person) // what the mailbox was eligible for is not theirs to see
		}
		after, err := serval.ParseRoleARN(f.After)
		if f.After != "" && err != nil {
			return noPage()
		}
		known, err := v.Roles()
		if err != nil {
			return err
		}
		names, err := accountNames(v)
		if err != nil {
			return err
		}
		mine, err := p.openByRole(v, who)
		if err != nil {
			return err
		}
		policies, err := p.inForce(v)
		if err != nil {
			return err
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
				more = true
				return nil
			}
			verdict, err := p.judge(v, r, who.Person)
			if err != nil {
				return err
			}
			roles = append(roles, Role{Role: r, AccountName: names[r.Key.AccountID], Policy: policy, MyRequest: mine[r.Key], Trust: verdict})
		}
		return nil
	})
	return roles, more, err
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

// judge says whether the role's trust policy accepts the ID token that the
// person's sessions are opened with.
func (p *Plane) judge(v *store.View, r store.Role, who serval.Person) (trust.Verdict, error) {
	cannotTell := func(why string) trust.Verdict {
		return trust.Verdict{Verdict: trust.Unknown, Reason: "cannot tell: " + why}
	}
	if r.TrustDigest() == "" {
		return cannotTell("the trust policy could not be read"), nil
	}
	policy, err := p.parsed.get(r.TrustDigest(), func() (*trust.Policy, error) {
		document, err := v.TrustPolicy(r)
		if err != nil {
			return nil, err
		}
		return trust.Parse(document)
	})
	if serval.IsRefusal(err) {
		return cannotTell(err.Error()), nil
	}
	if err != nil {
		return trust.Verdict{}, err
	}
	return policy.Judge(trust.Context{
		Action: "sts:AssumeRoleWithWebIdentity", RoleARN: r.ARN, Issuer: trust.Of(p.settings.Issuer),
		Audience: trust.Of(p.settings.ClientID), AZP: trust.Of(p.settings.ClientID), // sign-in takes no other
		Subject: trust.Of(who.Subject), Email: trust.Of(who.Email), SessionName: trust.Of(serval.SessionName(who.Email)),
		ExternalID: trust.Absent(), CallerARN: trust.Absent(), CallerAccount: trust.Absent(), // the call is not signed
		PassesTags: trust.NoTags(), TransitiveTags: trust.NoKeys(), SourceIdentity: trust.Absent(), Now: p.now(),
	}), nil
}

// parsedMost is how many trust policies are kept parsed.
const parsedMost = 4096

// parsed keeps trust policies that were parsed, by the digests of their texts.
type parsed struct {
	mu       sync.Mutex
	policies map[string]*trust.Policy
}

// get returns the policy with the digest, parsing it at the first time.
func (p *parsed) get(digest string, parse func() (*trust.Policy, error)) (*trust.Policy, error) {
	p.mu.Lock()
	policy := p.policies[digest]
	p.mu.Unlock()
	if policy != nil {
		return policy, nil
	}
	policy, err := parse()
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.policies == nil || len(p.policies) >= parsedMost {
		p.policies = make(map[string]*trust.Policy) // begun anew: what is used comes back
	}
	p.policies[digest] = policy
	return policy, nil
}
