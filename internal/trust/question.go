package trust

import (
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A question is one attempt, ready to be put to statements.
type question struct {
	Context
	operation operation
	variables bool // of the policy's version
	steps     *budget

	issuer     string // without its scheme; "" where it is not known
	provider   string // the provider's ARN; "" where it is not known
	noProvider bool   // there is none; provider is then how it would be called
	derived    bool   // the provider was derived

	callerARN string
	caller    identity
	account   string // the caller's
	role      identity
	partition string // the role's
}

func newQuestion(c Context, p *Policy, steps *budget) *question {
	c.Now = c.Now.Truncate(time.Second)
	q := &question{Context: c, operation: c.operation(), variables: p.variables, steps: steps, role: identify(c.RoleARN)}
	if q.role.account != "" {
		q.partition = strings.SplitN(c.RoleARN, ":", 3)[1]
	}
	if q.operation == assumeRole {
		q.callerARN = c.CallerARN.text()
		if strings.HasSuffix(q.callerARN, ".amazonaws.com") || strings.HasSuffix(q.callerARN, ".amazonaws.com.cn") {
			q.caller = identity{class: service}
		} else {
			q.caller = identify(q.callerARN)
		}
		if q.account = q.caller.account; q.account == "" {
			q.account = c.CallerAccount.text()
		}
		return q
	}
	q.provider, q.noProvider = c.ProviderARN.text(), c.ProviderARN.IsAbsent()
	if q.operation != withWebIdentity {
		return q
	}
	q.issuer = serval.ProviderName(c.Issuer.text())
	if q.issuer == "" {
		_, q.issuer, _ = strings.Cut(q.provider, ":oidc-provider/")
	}
	if q.provider == "" && q.issuer != "" && q.role.account != "" {
		// The provider is in the role's account, and named for its URL (IAM User
		// Guide, "Create an OpenID Connect (OIDC) identity provider in IAM").
		q.provider, q.derived = serval.ProviderARN(q.partition, q.role.account, q.issuer), true
	}
	return q
}
