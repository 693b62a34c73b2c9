package trust

import (
	"fmt"
	"slices"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// Before STS looks at a trust policy it looks for IAM's OIDC provider of the token's
// issuer in the role's account ("No OpenIDConnect provider found in your account"),
// and for the token's audience among the provider's client ids ("Incorrect token
// audience"; STS API Reference, AssumeRoleWithWebIdentity, InvalidIdentityToken).

// providerUnseen is what a verdict has not checked while nothing is known of the
// provider.
const providerUnseen = "the IAM OIDC provider and its audiences"

// A Lack is what the account of a role lacks for it: it refuses whoever comes from
// the issuer, whatever the trust policy says. Whoever owns the account mends it.
type Lack struct {
	Reason    string `json:"reason"` // one sentence
	CLI       string `json:"cli"`    // that mends it, for a shell
	Terraform string `json:"terraform"`
}

// WithProvider returns the context with what was learned of IAM's provider of its
// issuer in the role's account, as far as it decides anything.
func (c Context) WithProvider(p *serval.OIDCProvider) Context {
	issuer := c.Issuer.text()
	role := identify(c.RoleARN)
	if p == nil || issuer == "" || role.account == "" || !strings.HasSuffix(p.ARN, ":iam::"+role.account+":oidc-provider/"+serval.ProviderName(issuer)) {
		return c
	}
	switch {
	case p.Status == serval.ListRead && len(p.ClientIDs) > 0: // no page says what STS makes of a provider that lists none
		c.ClientIDs = Of(p.ClientIDs...)
	case p.Status == serval.ListAbsent && hasOneForm(issuer):
		// Of another issuer there may be a provider under an ARN that differs in form:
		// no page says that STS does not take it.
		c.ProviderARN = Absent()
	}
	return c
}

// hasOneForm reports whether an issuer's provider can have one name alone: it is in
// lower case, has no slash at its end, and no port, which a provider's URL should not
// have (IAM API Reference, CreateOpenIDConnectProvider). A rehearsal on loopback, the one
// without TLS, has a port.
func hasOneForm(issuer string) bool {
	host, _, _ := strings.Cut(serval.ProviderName(issuer), "/")
	return issuer == strings.ToLower(strings.TrimSuffix(issuer, "/")) && (!strings.Contains(host, ":") || strings.HasPrefix(issuer, "http://"))
}

// NeedsProvider reports whether IAM must have a provider for an issuer. Some AWS
// knows by themselves.
func NeedsProvider(issuer string) bool { return !isBuiltIn(serval.ProviderName(issuer)) }

// provided puts what is known of IAM's provider into a verdict on the policy.
func (q *question) provided(v *Verdict) {
	if q.operation != withWebIdentity || isBuiltIn(q.issuer) {
		return // those that AWS knows by themselves need none
	}
	lack, fits := q.lack()
	if lack == nil && !fits {
		return
	}
	v.NotChecked = slices.DeleteFunc(v.NotChecked, func(s string) bool { return s == providerUnseen })
	if lack == nil {
		return
	}
	v.Provider = lack
	switch v.Verdict {
	case Fails:
		v.Reason = fmt.Sprintf("%s Besides, %s", v.Reason, lack.Reason)
		return
	case Works:
		v.Reason = "refuses you: the trust policy would accept you, but " + lack.Reason
	default:
		v.Reason = "refuses you: " + lack.Reason
	}
	v.Verdict, v.Statement, v.Condition = Fails, "", ""
}

// Lack returns what the account of the context's role lacks for the audience; nil
// where nothing is known to be lacking.
func (c Context) Lack() *Lack {
	q := newQuestion(c, &Policy{}, new(budget))
	if q.operation != withWebIdentity || isBuiltIn(q.issuer) {
		return nil
	}
	l, _ := q.lack()
	return l
}

// lack returns what the account lacks, or whether it is known to lack nothing. AWS
// may compare a token's azp in place of its audience: only where neither is listed
// it surely refuses, and only where both are it surely does not.
func (q *question) lack() (l *Lack, fits bool) {
	if q.issuer == "" || q.role.account == "" {
		return nil, false
	}
	issuer := q.Issuer.text()
	if issuer == "" {
		issuer = "https://" + q.issuer
	}
	ids := q.ClientIDs.list
	if q.noProvider {
		reason := fmt.Sprintf("account %s has no IAM OIDC provider for %s.", q.role.account, clip(issuer, 200))
		cli := "aws iam create-open-id-connect-provider --url " + shellQuote(issuer)
		if len(q.Audience.list) == 0 {
			return &Lack{Reason: reason}, false
		}
		return newLack(reason, cli+" --client-id-list "+shellQuote(q.Audience.list[0]), issuer, q.Audience.list[:1]), false
	}
	if len(ids) == 0 || len(q.Audience.list) == 0 || q.AZP.IsUnknown() {
		return nil, false
	}
	brought := slices.Concat(q.Audience.list, q.AZP.list)
	listed := 0
	for _, id := range brought {
		if slices.Contains(ids, id) {
			listed++
		}
	}
	if listed > 0 {
		return nil, listed == len(brought)
	}
	reason := fmt.Sprintf("the IAM OIDC provider of account %s for %s does not list the client id %s as an audience.",
		q.role.account, clip(issuer, 200), quote(clip(brought[0], 200)))
	cli := fmt.Sprintf("aws iam add-client-id-to-open-id-connect-provider --open-id-connect-provider-arn %s --client-id %s", shellQuote(q.provider), shellQuote(brought[0]))
	return newLack(reason, cli, issuer, slices.Concat(ids, brought[:1])), false
}

func newLack(reason, cli, issuer string, ids []string) *Lack {
	quoted := make([]string, len(ids))
	for i, id := range ids {
		quoted[i] = terraformString(id)
	}
	return &Lack{Reason: reason, CLI: cli, Terraform: fmt.Sprintf(`resource "aws_iam_openid_connect_provider" "people" {
  url            = %s
  client_id_list = [%s]
}`, terraformString(issuer), strings.Join(quoted, ", "))}
}

// shellQuote returns text as one word of a shell.
func shellQuote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
