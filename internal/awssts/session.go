package awssts

import (
	"context"
	"regexp"

	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// STS's bounds (STS API Reference, AssumeRoleWithWebIdentity). The SDK sends
// anything; what is out of them is a fault of ours and stays here.
const (
	minToken = 4
	maxToken = 20000
)

var sessionName = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)

// Mint makes the AssumeRoleWithWebIdentity call (STS API Reference) and returns
// what STS answered, which nobody may use before serval.Mint.Check has found it
// right. The call is sent to the STS of the role's own partition.
//
// It takes ten seconds at most. Within them a call that was throttled, that met
// a failure of AWS's or of the identity provider's, or whose answer got lost is
// made up to three times; one for which AWS could not fetch the provider's keys
// twice; any other once. A mint that failed may therefore have opened sessions
// whose credentials nobody has.
//
// The error is a serval.Refusal where m cannot be sent, and an [*Error] where
// STS was asked.
func (c *Client) Mint(ctx context.Context, m serval.Mint) (serval.Minted, error) {
	role, err := serval.ParseRoleARN(m.Role.ARN)
	if err != nil {
		return serval.Minted{}, err
	}
	token := len(m.Token.Reveal())
	switch {
	case role.Partition != m.Role.Partition || role.AccountID != m.Role.AccountID:
		return serval.Minted{}, serval.Refuse(serval.Invalid, "The role's ARN is of account %s in partition %s, and the role is known in account %s in partition %s.",
			role.AccountID, role.Partition, m.Role.AccountID, m.Role.Partition)
	case !sessionName.MatchString(m.SessionName):
		return serval.Minted{}, serval.Refuse(serval.Invalid, "The session name has characters that AWS does not take, or is not 2 to 64 characters long.")
	case m.Seconds < serval.MinSessionSeconds || m.Seconds > serval.MaxSessionSeconds:
		return serval.Minted{}, serval.Refuse(serval.Invalid, "A session lasts %d to %d seconds, not %d.", serval.MinSessionSeconds, serval.MaxSessionSeconds, m.Seconds)
	case token < minToken || token > maxToken:
		return serval.Minted{}, serval.Refuse(serval.LoginRequired, "AWS does not take ID tokens of %d characters. Sign in again.", token)
	}
	client, err := c.forPartition(role.Partition)
	if err != nil {
		return serval.Minted{}, err
	}
	asked := asking{mint: m, role: role, region: c.region[role.Partition]}
	return repeat(ctx, func(ctx context.Context) (serval.Minted, *Error) {
		out, err := client.AssumeRoleWithWebIdentity(ctx, input(m))
		if err != nil {
			return serval.Minted{}, asked.failed(err)
		}
		return asked.minted(out)
	})
}

func input(m serval.Mint) *sts.AssumeRoleWithWebIdentityInput {
	token, seconds := m.Token.Reveal(), int32(m.Seconds) // checked to be small
	in := &sts.AssumeRoleWithWebIdentityInput{
		RoleArn:          &m.Role.ARN,
		RoleSessionName:  &m.SessionName,
		WebIdentityToken: &token,
		DurationSeconds:  &seconds,
	}
	if m.Policy != "" {
		in.Policy = &m.Policy
	}
	for _, arn := range m.PolicyARNs {
		in.PolicyArns = append(in.PolicyArns, types.PolicyDescriptorType{Arn: &arn})
	}
	return in
}

// minted reads an answer. The SDK takes a 200 with an empty body for success,
// and leaves nil what AWS promises.
func (a asking) minted(out *sts.AssumeRoleWithWebIdentityOutput) (serval.Minted, *Error) {
	k, who := out.Credentials, out.AssumedRoleUser
	if k == nil || who == nil || k.Expiration == nil ||
		text(k.AccessKeyId) == "" || text(k.SecretAccessKey) == "" || text(k.SessionToken) == "" {
		return serval.Minted{}, a.incomplete(out)
	}
	got := serval.Minted{
		AccessKeyID:     text(k.AccessKeyId),
		SecretAccessKey: serval.NewSecret(text(k.SecretAccessKey)),
		SessionToken:    serval.NewSecret(text(k.SessionToken)),
		Expiration:      k.Expiration.UTC(),
		AssumedRoleARN:  text(who.Arn),
		AssumedRoleID:   text(who.AssumedRoleId),
		Audience:        text(out.Audience),
		Provider:        text(out.Provider),
		Subject:         text(out.SubjectFromWebIdentityToken),
	}
	//lint:ignore SA1019 what AWS says in its place is about the token, and the limit that refuses a session is the policy's
	if size := out.PackedPolicySize; size != nil {
		got.PackedPolicySize = int(*size)
	}
	return got, nil
}

func text(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}
