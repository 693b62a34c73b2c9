package awsiam

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// An account takes an issuer's tokens only where IAM has a provider for it that
// lists the audience. A reading that is told the issuer asks for that one provider,
// once. It is no action that a reading may rely on: a refusal is remembered as that
// of the details is, and whatever comes of it the inventory is as complete as without.

// The bounds of a provider: how long it is asked for, and the quotas of its client
// ids (IAM API Reference, CreateOpenIDConnectProvider).
const (
	providerDeadline = 30 * time.Second
	mostClientIDs    = 100
	longestClientID  = 255
)

// isClientID reports whether text may be a client id: printable ASCII (RFC 6749,
// appendix A.1).
func isClientID(text string) bool {
	return text != "" && len(text) <= longestClientID && strings.IndexFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}

// askProvider puts down what becomes of asking for the issuer's provider.
func (rd *reading) askProvider(ctx context.Context, issuer string) {
	p := rd.unasked(issuer)
	now := time.Now()
	if refused := rd.gate.provider; refused.worth(rd.account.RoleARN, now) {
		if p = rd.asked(ctx, issuer); p.Status == serval.ListDenied {
			refused.failed(rd.account.RoleARN, now)
		}
	}
	rd.mu.Lock()
	defer rd.mu.Unlock()
	rd.inventory.OIDCProvider = &p
}

// Provider asks the account for the issuer's provider, whatever is remembered. The
// error is one of Inventory's, where it did not come to that.
func (r *Reader) Provider(ctx context.Context, a serval.Account, issuer string) (serval.OIDCProvider, error) {
	s, err := r.open(ctx, a)
	if err != nil {
		return serval.OIDCProvider{}, err
	}
	return s.asked(ctx, issuer), ctx.Err()
}

// unasked returns the issuer's provider as it is while nobody may ask.
func (s *session) unasked(issuer string) serval.OIDCProvider {
	return serval.OIDCProvider{
		Issuer: issuer, ARN: serval.ProviderARN(s.account.Partition, s.account.ID, issuer), Status: serval.ListDenied, ClientIDs: []string{},
	}
}

// asked returns it as it is by AWS's answer.
func (s *session) asked(ctx context.Context, issuer string) serval.OIDCProvider {
	p := s.unasked(issuer)
	ids, err := s.provider(ctx, p.ARN)
	p.Status, p.ClientIDs = providerStatus(err), append(p.ClientIDs, ids...)
	return p
}

// provider returns the client ids of a provider, in order. More than AWS lets a
// provider have, or ones that are none, are no answer: cut short, they would say
// that another is not among them.
func (s *session) provider(ctx context.Context, arn string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, providerDeadline)
	defer cancel()
	return ask(ctx, &s.line, getProvider, arn, func(ctx context.Context) ([]string, error) {
		out, err := s.iam.GetOpenIDConnectProvider(ctx, &iam.GetOpenIDConnectProviderInput{OpenIDConnectProviderArn: &arn})
		switch {
		case err != nil:
			return nil, err
		case serval.ProviderARN(s.account.Partition, s.account.ID, deref(out.Url)) != arn || out.ClientIDList == nil || len(out.ClientIDList) > mostClientIDs ||
			slices.ContainsFunc(out.ClientIDList, func(id string) bool { return !isClientID(id) }):
			return nil, errEmpty
		}
		slices.Sort(out.ClientIDList)
		return slices.Compact(out.ClientIDList), nil
	})
}

// providerStatus says how asking for a provider went.
func providerStatus(err error) serval.ListStatus {
	e, _ := errors.AsType[*callError](err)
	switch {
	case err == nil:
		return serval.ListRead
	case e == nil || e.action != getProvider: // time was up, or the session ended and could not be renewed
		return serval.ListFailed
	case e.kind == gone:
		return serval.ListAbsent
	case e.kind == denied:
		return serval.ListDenied
	case e.kind == throttled:
		return serval.ListThrottled
	}
	return serval.ListFailed
}
