// Package awsorg is an organization, listed, and a role, created: what the
// workflows ask of AWS beside reading roles.
//
// A Client holds no credentials. Whoever calls it gives it an Access: the session
// of the one role that may do the one thing, the account's ingestion role for the
// list and its separate workflow role for the role. Both methods bound what they
// wait for and what they take in.
package awsorg

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// The bounds of a call.
const (
	callDeadline = 30 * time.Second // its repetitions included
	attempts     = 5
)

// A Config says how AWS is reached. The zero value means AWS's own endpoints.
type Config struct {
	OrganizationsEndpoint string // https, or http on loopback
	IAMEndpoint           string // the same
}

// A Client asks AWS. It is safe for concurrent use.
type Client struct{ config Config }

// New returns a client. It makes no call; endpoints that cannot be used are
// refused together.
func New(c Config) (*Client, error) {
	var faults []error
	for name, endpoint := range map[string]string{"Organizations endpoint": c.OrganizationsEndpoint, "IAM endpoint": c.IAMEndpoint} {
		if endpoint == "" {
			continue
		}
		if err := serval.CheckEndpoint(endpoint); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", name, err))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, serval.Refuse(serval.Invalid, "%s", err)
	}
	return &Client{c}, nil
}

// An Access is a session of one role of one account, and the way to AWS.
type Access struct {
	Credentials aws.CredentialsProvider
	HTTP        aws.HTTPClient
}

// region is where the partition's global services are signed for.
func region(partition string) string {
	switch partition {
	case serval.PartitionChina:
		return "cn-northwest-1"
	case serval.PartitionGov:
		return "us-gov-west-1"
	default:
		return "us-east-1"
	}
}

func retryer() aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = attempts, 5*time.Second })
}

func endpoint(url string) *string {
	if url == "" {
		return nil
	}
	return &url
}

// call makes one call within its deadline.
func call[T any](ctx context.Context, f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	return f(ctx)
}

// said returns AWS's code and words of an error, and of any other error ours; of
// none nothing.
func said(err error) (code, message string) {
	if err == nil {
		return "", ""
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode(), serval.Cut(api.ErrorMessage(), 500)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "Timeout", fmt.Sprintf("no answer in %s", callDeadline)
	}
	return "NoConnection", serval.Cut(root(err).Error(), 200)
}

func root(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// isDenied reports whether a code is a refusal.
func isDenied(code string) bool { return code == "AccessDenied" || code == "AccessDeniedException" }

func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
