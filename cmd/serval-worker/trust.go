package main

import (
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
	c.Flags().StringVar(&s.issuer, "issuer", "", "issuer that people sign in with; the table then says whose trust policy accepts them")
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

// judge returns the verdict on a role's trust policy for whoever signs in, and
// lines with the reason and with the findings.
func (s signIn) judge(r serval.Role) (verdict string, lines []string) {
	policy, err := trust.Parse(r.TrustPolicy)
	if err != nil {
		return trust.Unknown, []string{fmt.Sprintf("%s: cannot tell: %s", r.ARN, err)}
	}
	c := trust.Context{
		Action: "sts:AssumeRoleWithWebIdentity", RoleARN: r.ARN, Issuer: trust.Of(s.issuer), Audience: trust.Of(s.audience),
		AZP: trust.Of(s.audience), ExternalID: trust.Absent(), CallerARN: trust.Absent(), CallerAccount: trust.Absent(),
		PassesTags: trust.NoTags(), TransitiveTags: trust.NoKeys(), SourceIdentity: trust.Absent(),
	}
	v := policy.Judge(c)
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
