package control

import (
	"context"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/access"
	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/roster"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// A ReportFilter chooses a page of the access report.
type ReportFilter struct {
	From, To  time.Time // the period: from the first instant, before the last
	AccountID string    // empty for all
	Email     string    // one person, in any case of the letters; empty for all
	After     string    // the page token of the page before
	Limit     int       // roles
}

// A RoleAccess says who could have and who had one role.
type RoleAccess struct {
	Role        serval.RoleKey
	AccountName string
	RemovedAt   time.Time // zero while it is listed
	Could       []Could
	Had         []Had // the newest first
	More        bool  // somebody had it besides, longer ago
}

// A Could is people who may ask for the role under an access policy.
type Could struct {
	Policy string
	Emails []string
}

// A Had is an access that somebody used within the period.
type Had struct {
	store.Use
	Until time.Time // when it ended, or ends
}

// The bounds of one page of the report: how much of one role's past is told, how
// many names there are before the page ends, and how many roles are looked through
// for it.
const (
	maxUses        = 1000
	maxNames       = 20_000
	maxRolesPassed = 5000
	reportStep     = 500
)

// AccessReport says of each role who could have it, by the access policies, roles
// and groups as they are now, and who had it within the period. Roles that are gone
// are there where somebody had them. They come in the order of account, ARN and
// role id; next is the token of the page behind, empty where there is none. A page
// may have fewer roles than it could, and still be followed by another. It is for
// auditors and admins.
func (p *Plane) AccessReport(ctx context.Context, who serval.Principal, f ReportFilter) (list []RoleAccess, next string, err error) {
	err = p.view(ctx, who, serval.ReportRead, f.AccountID, func(v *store.View) error {
		list, next = nil, ""
		if !f.From.Before(f.To) {
			return serval.Refuse(serval.Invalid, "The period has to begin before it ends.")
		}
		after, err := readRolePlace(f.After)
		if err != nil {
			return err
		}
		could, err := p.eligibility(v, f.Email)
		if err != nil {
			return err
		}
		accounts, err := v.AccountsEver()
		if err != nil {
			return err
		}
		step := reportStep
		if f.Email == "" && f.Limit > 0 { // nearly every role that is read is on the page
			step = min(step, f.Limit+1)
		}
		names, passed, last := 0, 0, after
		for _, a := range accounts {
			if f.AccountID != "" && a.AccountID != f.AccountID || a.AccountID < after.AccountID {
				continue
			}
			behind := after
			if a.AccountID != after.AccountID {
				behind = serval.RoleKey{}
			}
			for r, err := range rolesEver(v, a.AccountID, behind, step) {
				if err != nil {
					return err
				}
				if len(list) == f.Limit || names >= maxNames || passed == maxRolesPassed {
					next = rolePlace(last)
					return nil
				}
				passed++
				last = r.Key
				one := RoleAccess{Role: r.Key, AccountName: a.Name, RemovedAt: r.At}
				if r.At.IsZero() {
					one.Could = could.of(r.Role)
				}
				if one.Had, one.More, err = had(v, r.Key, f); err != nil {
					return err
				}
				if len(one.Could)+len(one.Had) == 0 && (f.Email != "" || !r.At.IsZero()) {
					continue
				}
				names += len(one.Had)
				for _, c := range one.Could {
					names += len(c.Emails)
				}
				list = append(list, one)
			}
		}
		return nil
	})
	return list, next, err
}

// rolesEver goes through the roles that an account has or had behind the one after,
// step at a time.
func rolesEver(v *store.View, accountID string, after serval.RoleKey, step int) iter.Seq2[store.Removed, error] {
	return func(yield func(store.Removed, error) bool) {
		for {
			roles, err := v.RolesEver(accountID, after, step)
			for _, r := range roles {
				if !yield(r, nil) {
					return
				}
				after = r.Key
			}
			if err != nil {
				yield(store.Removed{}, err)
			}
			if len(roles) < step {
				return
			}
		}
	}
}

// had returns who had a role within the period.
func had(v *store.View, role serval.RoleKey, f ReportFilter) (list []Had, more bool, err error) {
	uses, err := v.Uses(store.UseFilter{AccountID: role.AccountID, RoleID: role.RoleID, Email: f.Email, From: f.From, To: f.To, Limit: maxUses + 1})
	if err != nil {
		return nil, false, err
	}
	for _, u := range uses[:min(len(uses), maxUses)] {
		until := u.EndsAt
		if !u.EndedAt.IsZero() && u.EndedAt.Before(until) {
			until = u.EndedAt
		}
		list = append(list, Had{u, until})
	}
	return list, len(uses) > maxUses, nil
}

// An eligibility is who is eligible under which of the policies in force.
type eligibility struct {
	policies []serval.AccessPolicy
	people   []eligible
}

// An eligible is somebody with the places of the policies that name them.
type eligible struct {
	email string
	under []int
}

// eligibility looks at everybody who has signed in and is not suspended, or those
// with the email.
func (p *Plane) eligibility(v *store.View, email string) (eligibility, error) {
	policies, err := p.inForce(v)
	if err != nil {
		return eligibility{}, err
	}
	e := eligibility{policies: policies.List}
	for f := (store.PersonFilter{Email: email, Limit: 1000}); ; {
		people, err := v.People(f)
		if err != nil {
			return eligibility{}, err
		}
		for _, k := range people {
			f.BeforeAt, f.BeforeID = k.CreatedAt, k.ID
			if k.Suspended != "" {
				continue
			}
			e.people = append(e.people, eligible{email: k.Email, under: policies.Of(k)})
		}
		if len(people) < f.Limit {
			return e, nil
		}
	}
}

// of returns who could have a role: for each person the first policy that matches
// decides alone.
func (e eligibility) of(r store.Role) (list []Could) {
	matches := make([]bool, len(e.policies))
	for i, policy := range e.policies {
		matches[i] = access.Matches(policy.Roles, roster.Target(&r))
	}
	emails := make([][]string, len(e.policies))
	for _, k := range e.people {
		if i := slices.IndexFunc(k.under, func(i int) bool { return matches[i] }); i >= 0 {
			emails[k.under[i]] = append(emails[k.under[i]], k.email)
		}
	}
	for i, those := range emails {
		if len(those) > 0 {
			slices.Sort(those)
			list = append(list, Could{Policy: e.policies[i].Name, Emails: slices.Compact(those)})
		}
	}
	return list
}

// rolePlace and readRolePlace are the page token of a list of roles of which one
// ARN may have several.
func rolePlace(k serval.RoleKey) string { return k.ARN + " " + k.RoleID }

func readRolePlace(token string) (serval.RoleKey, error) {
	if token == "" {
		return serval.RoleKey{}, nil
	}
	text, id, found := strings.Cut(token, " ")
	arn, err := serval.ParseRoleARN(text)
	if err != nil || !found {
		return serval.RoleKey{}, door.NoPage()
	}
	return serval.RoleKey{AccountID: arn.AccountID, ARN: text, RoleID: id}, nil
}
