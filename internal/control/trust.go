package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/roster"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/trust"
)

// The evaluator's answers, for those who show them.
type (
	Verdict = trust.Verdict
	Finding = trust.Finding
)

// ExplainTrust says what a trust policy makes of an attempt (a context as
// trust.ParseContext reads it), and what is to be known about the policy where
// the context tells whose provider is ours. Nothing of it has to be in the
// catalogue. It is for admins.
func (p *Plane) ExplainTrust(ctx context.Context, who serval.Principal, document serval.Document, attempt []byte) (verdict Verdict, findings []Finding, err error) {
	err = p.view(ctx, who, serval.TrustExplain, "", func(*store.View) error {
		policy, err := trust.Parse(document)
		if err != nil {
			return err
		}
		c, err := trust.ParseContext(attempt)
		if err != nil {
			return err
		}
		if c.Now.IsZero() {
			c.Now = p.now()
		}
		verdict = policy.Judge(c)
		if ours, ok := c.Ours(); ok {
			findings = policy.Findings(ours)
		}
		return nil
	})
	return verdict, findings, err
}

// A RoleFindings is a role with what is to be known about its trust policy.
type RoleFindings struct {
	store.Role
	AccountName string
	Findings    []Finding // the gravest first
	Unreadable  string    // why the policy cannot be looked at; empty where it was
}

// A FindingFilter chooses findings; empty fields choose all.
type FindingFilter struct {
	AccountID string
	Severity  string // at least: high, medium or low
	After     string // an ARN: roles behind it
	Limit     int    // roles
}

// mostJudged is how many trust policies are looked at for the first time for one
// page of findings.
const mostJudged = 1000

// Findings returns the roles about whose trust policies there is something to
// know, in the order of account and name, and the ARN behind which the next page
// begins; empty where there is none. A page may have fewer roles than it could,
// and still be followed by another: many policies that nobody has looked at yet
// are looked at for several. It is for auditors and admins, whatever they are
// eligible for.
func (p *Plane) Findings(ctx context.Context, who serval.Principal, f FindingFilter) (list []RoleFindings, next string, err error) {
	err = p.view(ctx, who, serval.FindingRead, "", func(v *store.View) error {
		list, next = nil, ""
		least, err := trust.ParseSeverity(cmp.Or(f.Severity, string(trust.Low)))
		if err != nil {
			return err
		}
		judged, last := 0, ""
		return p.rosters.Each(v, f.AccountID, f.After, func(of *roster.Roster, i int) (bool, error) {
			r := of.Roles[i].Role
			known := of.Grave(i)
			if known.Looked && !known.Unreadable && !(known.Most != "" && known.Most.AtLeast(least)) {
				last = r.ARN
				return true, nil
			}
			if !known.Looked {
				if judged == mostJudged {
					next = last
					return false, nil
				}
				judged++
			}
			found := RoleFindings{Role: r, AccountName: of.Account}
			all, err := p.findings(v, r, trust.Low)
			if serval.IsRefusal(err) {
				found.Unreadable, err = err.Error(), nil
			}
			if err != nil {
				return false, err
			}
			of.SetGrave(i, gravest(all, found.Unreadable != ""))
			found.Findings = atLeast(all, least)
			if len(found.Findings) == 0 && found.Unreadable == "" {
				last = r.ARN
				return true, nil
			}
			if f.Limit > 0 && len(list) == f.Limit {
				next = last
				return false, nil
			}
			list, last = append(list, found), r.ARN
			return true, nil
		})
	})
	return list, next, err
}

// gravest says how grave findings are, of which the gravest are first.
func gravest(all []Finding, unreadable bool) roster.Grave {
	g := roster.Grave{Looked: true, Unreadable: unreadable}
	if len(all) > 0 {
		g.Most = all[0].Severity
	}
	return g
}

// atLeast returns those of findings, the gravest first, that are so severe.
func atLeast(all []Finding, least trust.Severity) []Finding {
	i := slices.IndexFunc(all, func(f Finding) bool { return !f.Severity.AtLeast(least) })
	if i < 0 {
		return all
	}
	return all[:i]
}

// findings returns what is at least so severe about a role's trust policy. A
// refusal says why it cannot be looked at.
func (p *Plane) findings(v *store.View, r store.Role, least trust.Severity) ([]Finding, error) {
	policy, err := p.trustPolicy(v, r)
	if err != nil {
		return nil, err
	}
	ours := trust.Provider{
		Issuer: p.settings.Issuer, Audience: p.settings.ClientID, Partition: r.Key.Partition, AccountID: r.Key.AccountID,
		Addresses: p.settings.EgressAddresses, Endpoint: p.settings.VPCEndpoint,
	}
	return atLeast(policy.Findings(ours), least), nil
}

// blocked refuses to open sessions of a role whose trust policy has a finding as
// grave as the setting says. One that cannot be looked at blocks too: nobody
// knows who else could assume the role.
func (p *Plane) blocked(v *store.View, r store.Role) error {
	if p.settings.BlockFindings == "" {
		return nil
	}
	found, err := p.findings(v, r, p.settings.BlockFindings)
	refuse := func(format string, args ...any) error {
		return &serval.Refusal{Kind: serval.FailedPrecondition, Detail: map[string]string{"cause": "finding"},
			Reason: serval.Refuse(serval.FailedPrecondition, format, args...).Error()}
	}
	if serval.IsRefusal(err) {
		return refuse("No session is opened with this role while its trust policy cannot be looked at: %s", err)
	}
	if err != nil || len(found) == 0 {
		return err
	}
	return refuse("No session is opened with this role until whoever owns it mends its trust policy. %s %s", found[0].Sentence, found[0].Mend)
}

// whyBlocked is blocked, as a sentence.
func (p *Plane) whyBlocked(v *store.View, r store.Role) (string, error) {
	err := p.blocked(v, r)
	if serval.IsRefusal(err) {
		return err.Error(), nil
	}
	return "", err
}

// accessDenied is AWS's code for a refusal that says nothing else.
const accessDenied = "AccessDenied"

// explain returns cause with more of why than AWS tells: by the role's trust policy
// where AWS denied, and otherwise by what a probe finds.
func (p *Plane) explain(ctx context.Context, who serval.Principal, i intent, cause error) error {
	refusal, ok := errors.AsType[*serval.Refusal](cause)
	if !ok {
		return cause
	}
	if refusal.Detail["code"] == accessDenied {
		return p.explainDenied(ctx, who, i, cause)
	}
	said := refusal.Detail["code"] == "InvalidIdentityToken" && refusal.Kind != serval.Unavailable
	if p.settings.Probe == nil || refusal.Detail["code"] == "" || said {
		return cause
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	found, ok := p.settings.Probe(ctx, refusal.Detail["code"])
	if !ok {
		return cause
	}
	told := *refusal
	told.Detail = maps.Clone(refusal.Detail)
	told.Detail["probe"], told.Detail["mended_by"] = found.ID, found.MendedBy
	told.Reason = "No session was opened. " + found.Sentence
	return &told
}

// probeTime is how long a probe may take: somebody waits for the page.
const probeTime = 4 * time.Second

// explainDenied returns cause with what the role's trust policy tells of it,
// where it is AWS's AccessDenied and names no other action: the condition that refuses, or what is left
// where the policy accepts, and who can mend it.
func (p *Plane) explainDenied(ctx context.Context, who serval.Principal, i intent, cause error) error {
	refusal, ok := errors.AsType[*serval.Refusal](cause)
	if !ok || refusal.Detail["code"] != accessDenied || refusal.Detail["denied"] != "" {
		return cause // AWS has named the action that is missing: that says more
	}
	var verdict trust.Verdict
	var seen time.Time
	err := p.view(ctx, who, serval.RoleRead, i.session.Role.ARN, func(v *store.View) error {
		r, err := v.RoleByKey(i.session.Role)
		if err != nil {
			return err
		}
		if seen, err = lastRead(v, r); err != nil {
			return err
		}
		// A provider that refuses has another code.
		verdict, err = p.judge(v, r, nil, who.Person)
		return err
	})
	if err != nil {
		return cause // what AWS said is still true
	}
	told := *refusal
	told.Detail = maps.Clone(refusal.Detail)
	told.Detail["trust_verdict"] = verdict.Verdict
	read := seen.UTC().Format("2006-01-02 15:04 UTC")
	role := i.session.Role.ARN
	switch verdict.Verdict {
	case trust.Fails:
		told.Detail["mended_by"] = "role_owner"
		told.Reason = fmt.Sprintf("AWS refused, because the trust policy of %s %s Whoever owns the role can mend that; the role's page shows how.",
			role, sentence(verdict.Reason))
	case trust.Works:
		told.Detail["mended_by"] = "account_owner"
		told.Reason = fmt.Sprintf("AWS refused, although the trust policy of %s, as it was read at %s, accepts you. Either it has changed since, or what is not in it refuses: %s. Whoever owns the account can look there.",
			role, read, strings.Join(verdict.NotChecked, ", "))
	default:
		told.Reason = fmt.Sprintf("%s Whether the trust policy is the reason cannot be told: %s", refusal.Reason, sentence(strings.TrimPrefix(verdict.Reason, "cannot tell: ")))
	}
	return &told
}

// lastRead returns when a role was last read. A complete sync has read every role,
// and writes those that it has not seen the same.
func lastRead(v *store.View, r store.Role) (time.Time, error) {
	account, err := v.Account(r.Key.AccountID)
	if err != nil {
		return time.Time{}, err
	}
	if r.StaleSince.IsZero() && r.HeldSince.IsZero() && account.Complete && account.AcceptedAt.After(r.SeenAt) {
		return account.AcceptedAt, nil
	}
	return r.SeenAt, nil
}

// sentence returns text with a full stop at its end.
func sentence(text string) string { return strings.TrimRight(text, ". ") + "." }

// webIdentity is what sessions are opened with.
const webIdentity = "sts:AssumeRoleWithWebIdentity"

// verdict is judge with what is known of the OIDC provider of the role's account.
func (p *Plane) verdict(v *store.View, r store.Role, who serval.Person) (*Verdict, error) {
	provider, err := v.OIDCProvider(r.Key.AccountID)
	if err != nil {
		return nil, err
	}
	verdict, err := p.judge(v, r, provider, who)
	return &verdict, err
}

// judge says whether the role's trust policy, and the OIDC provider of its account
// where that is known, accept the ID token that the person's sessions are opened with.
func (p *Plane) judge(v *store.View, r store.Role, provider *serval.OIDCProvider, who serval.Person) (trust.Verdict, error) {
	policy, err := p.trustPolicy(v, r)
	if serval.IsRefusal(err) {
		return trust.Verdict{Verdict: trust.Unknown, Reason: "cannot tell: " + err.Error()}, nil
	}
	if err != nil {
		return trust.Verdict{}, err
	}
	attempt := p.attempt(r.ARN)
	if who.AuthorizedParty != "" {
		attempt.AZP = trust.Of(who.AuthorizedParty)
	}
	attempt.Subject, attempt.Email, attempt.SessionName = trust.Of(who.Subject), trust.Of(who.Email), trust.Of(serval.SessionName(who.Email))
	attempt.Now = p.now()
	return policy.Judge(attempt.WithProvider(provider)), nil
}

// trustPolicy returns the role's trust policy. A refusal says why there is none
// to look at.
func (p *Plane) trustPolicy(v *store.View, r store.Role) (*trust.Policy, error) {
	if r.TrustDigest() == "" {
		return nil, serval.Refuse(serval.FailedPrecondition, "the trust policy could not be read")
	}
	return p.parsed.Get(r.TrustDigest(), func() (*trust.Policy, error) {
		document, err := v.TrustPolicy(r)
		if err != nil {
			return nil, err
		}
		return trust.Parse(document)
	})
}

// attempt is the call that opens a session of a role, whoever it is for.
func (p *Plane) attempt(roleARN string) trust.Context {
	return trust.Context{
		Action: webIdentity, RoleARN: roleARN, Issuer: trust.Of(p.settings.Issuer), Audience: trust.Of(p.settings.ClientID), AZP: trust.Absent(),
		ExternalID: trust.Absent(), CallerARN: trust.Absent(), CallerAccount: trust.Absent(), // the call is not signed
		PassesTags: trust.NoTags(), TransitiveTags: trust.NoKeys(), SourceIdentity: trust.Absent(),
	}
}
