package main

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/trust"
)

// A signIn is how people sign in at the bridge, as far as trust policies ask.
// The zero value is not told.
type signIn struct{ issuer, audience string }

func (s *signIn) add(c *cobra.Command) {
	c.Flags().StringVar(&s.issuer, "issuer", "", "issuer that people sign in with: the account is asked for its OIDC provider, and a table says whose trust policy accepts them")
	c.Flags().StringVar(&s.audience, "audience", "", "the bridge's client id there")
}

func (s signIn) isTold() bool { return s.issuer != "" }

// faults returns what is wrong with one that is told in part.
func (s signIn) faults() []string {
	if (s.issuer == "") != (s.audience == "") {
		return []string{"--issuer: give --audience too, or neither."}
	}
	return nil
}

// asked says what became of asking for the issuer's OIDC provider, and what mends it
// where it refuses whoever signs in.
func (s signIn) asked(p *serval.OIDCProvider, roleARN string) (lines []string) {
	if p == nil {
		return nil
	}
	said := map[serval.ListStatus]string{
		serval.ListRead: "it lists " + plural(len(p.ClientIDs), "client id"), serval.ListAbsent: "there is none",
		serval.ListDenied: "not known: the role may not ask for it (iam:GetOpenIDConnectProvider)",
	}[p.Status]
	lines = append(lines, p.ARN+": "+cmp.Or(said, "not known: AWS did not tell"))
	c := trust.Context{
		Action: "sts:AssumeRoleWithWebIdentity", RoleARN: roleARN, Issuer: trust.Of(s.issuer), Audience: trust.Of(s.audience), AZP: trust.Of(s.audience),
	}
	if l := c.WithProvider(p).Lack(); l != nil {
		lines = append(lines, "AWS refuses whoever signs in: "+l.Reason, "what mends it: "+l.CLI)
	}
	return lines
}

// judge returns the verdict on a role's trust policy for whoever signs in, and
// lines with the reason and with the findings.
func (s signIn) judge(r serval.Role, provider *serval.OIDCProvider) (verdict string, lines []string) {
	policy, err := trust.Parse(r.TrustPolicy)
	if err != nil {
		return trust.Unknown, []string{fmt.Sprintf("%s: cannot tell: %s", r.ARN, err)}
	}
	c := trust.Context{
		Action: "sts:AssumeRoleWithWebIdentity", RoleARN: r.ARN, Issuer: trust.Of(s.issuer), Audience: trust.Of(s.audience),
		AZP: trust.Of(s.audience), ExternalID: trust.Absent(), CallerARN: trust.Absent(), CallerAccount: trust.Absent(),
		PassesTags: trust.NoTags(), TransitiveTags: trust.NoKeys(), SourceIdentity: trust.Absent(),
	}
	v := policy.Judge(c.WithProvider(provider))
	if v.Verdict != trust.Works {
		lines = append(lines, fmt.Sprintf("%s: %s", r.ARN, v.Reason))
	}
	if ours, ok := c.Ours(); ok {
		for _, f := range policy.Findings(ours) {
			lines = append(lines, fmt.Sprintf("%s: %s (%s): %s %s", r.ARN, f.Severity, f.ID, f.Sentence, strings.TrimSpace(f.Mend)))
		}
	}
	return v.Verdict, lines
}
