package awsiam

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// How sessions are kept.
const (
	sessionSeconds = 900 // the least there is; role chaining allows an hour
	renewEarly     = 5 * time.Minute
	fetchDeadline  = time.Minute
	firstPause     = time.Second
	longestPause   = time.Minute
)

// A keeper hands out credentials and renews them five minutes before they end.
// Where renewing fails it goes on with the last ones until they do end, and
// asks again after a pause of one second that doubles up to a minute, so that
// a thousand waiting calls are one request. It is an aws.CredentialsProvider.
type keeper struct {
	fetch func(context.Context) (aws.Credentials, error)
	skew  func() time.Duration
	lock  chan struct{} // a mutex that a context can leave; guards what follows

	creds    aws.Credentials
	obtained time.Time // zero where there are none
	renewAt  time.Time // zero where they do not end
	endsAt   time.Time // the same
	err      error     // why the last renewal failed
	pause    time.Duration
	retryAt  time.Time
}

func (r *Reader) newKeeper(fetch func(context.Context) (aws.Credentials, error)) *keeper {
	return &keeper{fetch: fetch, skew: r.Skew, lock: make(chan struct{}, 1)}
}

// Retrieve returns credentials that hold for a while.
func (k *keeper) Retrieve(ctx context.Context) (aws.Credentials, error) {
	select {
	case k.lock <- struct{}{}:
	case <-ctx.Done():
		return aws.Credentials{}, ctx.Err()
	}
	defer func() { <-k.lock }()

	now := time.Now()
	usable := !k.obtained.IsZero() && (k.endsAt.IsZero() || now.Before(k.endsAt))
	if usable && (k.renewAt.IsZero() || now.Before(k.renewAt)) {
		return k.creds, nil
	}
	if now.Before(k.retryAt) {
		if usable {
			return k.creds, nil
		}
		return aws.Credentials{}, k.err
	}
	bounded, cancel := context.WithTimeout(ctx, fetchDeadline)
	defer cancel()
	creds, err := k.fetch(bounded)
	if err != nil {
		if ctx.Err() != nil {
			return aws.Credentials{}, ctx.Err() // whoever asked has gone; that says nothing of the credentials
		}
		k.err = err
		k.pause = min(max(2*k.pause, firstPause), longestPause)
		k.retryAt = time.Now().Add(k.pause)
		if usable {
			return k.creds, nil
		}
		return aws.Credentials{}, err
	}
	k.keep(creds, time.Now())
	return creds, nil
}

// keep takes over what was fetched. When it ends is said by AWS's clock, which
// need not be ours.
func (k *keeper) keep(creds aws.Credentials, now time.Time) {
	k.creds, k.obtained, k.err = creds, now, nil
	k.pause, k.retryAt, k.renewAt, k.endsAt = 0, time.Time{}, time.Time{}, time.Time{}
	if !creds.CanExpire {
		return
	}
	left := creds.Expires.Sub(now.Add(k.skew()))
	if left <= 0 {
		left = 10 * time.Second // unlikely to be true, and must not be asked again at every call
	}
	k.endsAt = now.Add(left)
	k.renewAt = k.endsAt.Add(-min(renewEarly, left/3))
}

// renew makes the next Retrieve fetch, unless that was done since.
func (k *keeper) renew(ctx context.Context, since time.Time) {
	select {
	case k.lock <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-k.lock }()
	if k.obtained.Before(since) {
		k.obtained, k.retryAt = time.Time{}, time.Time{}
	}
}

// stsClient returns the client by which roles are assumed on the way to the
// account. The endpoint is always regional.
func (r *Reader) stsClient(a serval.Account, creds aws.CredentialsProvider) *sts.Client {
	o := sts.Options{
		Region:      r.stsRegion(a),
		Credentials: creds,
		Retryer:     aws.NopRetryer{}, // ask tries again
		HTTPClient:  r.wire(way{dial: a.STS.Dial, proxy: a.STS.HTTPProxy}),
	}
	switch {
	case a.STS.Endpoint != "":
		o.BaseEndpoint = &a.STS.Endpoint
	case r.config.STSEndpoint != "":
		o.BaseEndpoint = &r.config.STSEndpoint
	}
	return sts.New(o)
}

func (r *Reader) stsRegion(a serval.Account) string {
	switch {
	case a.STS.Region != "":
		return a.STS.Region
	case r.config.STSRegion != "":
		return r.config.STSRegion
	}
	return a.STSRegion()
}

// iamClient returns the client of the account's IAM. IAM has one endpoint in
// each partition, which the resolver finds by any region of it.
func (r *Reader) iamClient(a serval.Account, creds aws.CredentialsProvider, w *wire) *iam.Client {
	o := iam.Options{
		Region:      r.stsRegion(a),
		Credentials: creds,
		Retryer:     aws.NopRetryer{},
		HTTPClient:  w,
	}
	if r.config.IAMEndpoint != "" {
		o.BaseEndpoint = &r.config.IAMEndpoint
	}
	return iam.New(o)
}

// page is an option of calls that are answered with a page of a thousand. Such
// answers take memory by the megabyte, so only a few are read at once, and of those
// of deltas fewer. It is not the calls that are few: to wait for an answer takes
// nothing, and to be late with an account's first call is time lost.
func (s *session) page(o *iam.Options) {
	turns := []chan struct{}{s.reader.large}
	if s.aside != nil {
		turns = []chan struct{}{s.aside.of.large, s.reader.large}
	}
	o.HTTPClient = s.wire.inTurn(turns...)
}

// wire returns the HTTP client for one way; open has seen that the way exists.
func (r *Reader) wire(w way) *wire {
	c, err := r.network.client(w, func(skew time.Duration) { r.skew.Store(int64(skew)) })
	if err != nil {
		c, _ = r.network.client(way{}, func(time.Duration) {})
	}
	return c
}

// assumed returns a keeper of sessions of a role. The session gets no tags and
// no session policy: those of EKS Pod Identity already take up most of what a
// session may carry.
func (r *Reader) assumed(by *keeper, client *sts.Client, role serval.RoleARN, externalID string) *keeper {
	arn := role.String()
	l := &line{reader: r, gate: r.gate(role.AccountID), creds: by}
	in := &sts.AssumeRoleInput{
		RoleArn:         aws.String(arn),
		RoleSessionName: aws.String(r.config.SessionName),
		DurationSeconds: aws.Int32(sessionSeconds),
	}
	if externalID != "" {
		in.ExternalId = aws.String(externalID)
	}
	return r.newKeeper(func(ctx context.Context) (aws.Credentials, error) {
		out, err := ask(ctx, l, assumeRole, arn, func(ctx context.Context) (*sts.AssumeRoleOutput, error) {
			return client.AssumeRole(ctx, in)
		})
		if err != nil {
			return aws.Credentials{}, err
		}
		wrong := func(code, format string, args ...any) error {
			return &callError{action: assumeRole, target: arn, kind: failed, code: code, message: fmt.Sprintf(format, args...)}
		}
		c, user := out.Credentials, out.AssumedRoleUser
		if c == nil || user == nil || deref(c.AccessKeyId) == "" || deref(c.SecretAccessKey) == "" ||
			deref(c.SessionToken) == "" || c.Expiration == nil {
			return aws.Credentials{}, wrong(codeMalformed, "the answer has no credentials in it")
		}
		partition, account, err := splitARN(deref(user.Arn))
		if err != nil || partition != role.Partition || account != role.AccountID {
			return aws.Credentials{}, wrong(codeWrongAccount, "the session is not in account %s of partition %s but is %s",
				role.AccountID, role.Partition, clip(deref(user.Arn), 200))
		}
		return aws.Credentials{
			AccessKeyID: *c.AccessKeyId, SecretAccessKey: *c.SecretAccessKey, SessionToken: *c.SessionToken,
			CanExpire: true, Expires: *c.Expiration, AccountID: account, Source: assumeRole,
		}, nil
	})
}

// A session is the way to one account's IAM.
type session struct {
	line
	account serval.Account
	iam     *iam.Client
	wire    *wire   // of iam
	by      *keeper // who assumed its role
}

// open assumes the account's ingestion role, anew.
func (r *Reader) open(ctx context.Context, a serval.Account) (*session, error) {
	role, err := serval.ParseRoleARN(a.RoleARN)
	if err != nil {
		return nil, err
	}
	if role.AccountID != a.ID {
		return nil, serval.Refuse(serval.Invalid, "The role is in account %s, not in %s.", role.AccountID, clip(a.ID, 40))
	}
	a.Partition = role.Partition
	if err := r.refuseForeign(a); err != nil {
		return nil, err
	}
	if a.STS.Endpoint != "" {
		if err := serval.CheckEndpoint(a.STS.Endpoint); err != nil {
			return nil, serval.Refuse(serval.Invalid, "The account's STS endpoint: %s", err)
		}
	}
	if _, err := r.network.client(way{proxy: a.STS.HTTPProxy}, nil); err != nil {
		return nil, serval.Refuse(serval.Invalid, "The account's HTTP proxy: %s.", err)
	}
	if r.stsRegion(a) == "" {
		return nil, serval.Refuse(serval.Invalid, "Set the account's STS region: there is no default one in partition %s.", a.Partition)
	}

	creds := r.base
	for _, hop := range a.Via {
		via, err := serval.ParseRoleARN(hop.RoleARN)
		if err != nil {
			return nil, err
		}
		creds = r.assumed(creds, r.stsClient(a, creds), via, hop.ExternalID)
	}
	by := creds
	creds = r.assumed(by, r.stsClient(a, by), role, a.ExternalID)
	if _, err := creds.Retrieve(ctx); err != nil {
		if r.partition.Load() == nil && ctx.Err() == nil && !isUnreached(err) {
			// Only now, so that a run without trouble has no call more than it
			// needs. Whether it succeeds does not matter.
			_, _, _, _ = r.Identity(ctx)
			if err := r.refuseForeign(a); err != nil {
				return nil, err
			}
		}
		return nil, r.failure(StageAssume, a, err)
	}
	r.partition.CompareAndSwap(nil, &role.Partition) // no role is assumed across partitions
	w := r.wire(way{proxy: a.STS.HTTPProxy})
	return &session{
		line:    line{reader: r, gate: r.gate(a.ID), creds: creds, slotted: true},
		account: a,
		iam:     r.iamClient(a, creds, w),
		wire:    w,
		by:      by,
	}, nil
}

// isUnreached reports whether nobody answered: then nobody will say who we are.
func isUnreached(err error) bool {
	e, ok := errors.AsType[*callError](err)
	return ok && (e.code == codeConnection || e.code == codeTimeout)
}

// refuseForeign refuses an account of another partition than that of the base
// credentials, where that is known.
func (r *Reader) refuseForeign(a serval.Account) error {
	own := r.partition.Load()
	if own == nil || *own == a.Partition {
		return nil
	}
	return serval.Refuse(serval.FailedPrecondition,
		"Account %s is in partition %s, and this worker's credentials are of partition %s. Partitions do not trust each other: run a worker with credentials of %s for it.",
		a.ID, a.Partition, *own, a.Partition)
}

// splitARN returns the partition and the account of an ARN of IAM or STS.
func splitARN(arn string) (partition, account string, err error) {
	f := strings.SplitN(arn, ":", 6)
	if len(f) != 6 || f[0] != "arn" || f[1] == "" {
		return "", "", fmt.Errorf("not an ARN: %q", clip(arn, 100))
	}
	if _, err := serval.ParseAccountID(f[4]); err != nil {
		return "", "", err
	}
	return f[1], f[4], nil
}

// Enter assumes the account's role anew, for what is not asked of IAM's seven
// actions, and returns its session and the way to AWS. The error is one of
// Inventory's.
func (r *Reader) Enter(ctx context.Context, a serval.Account) (aws.CredentialsProvider, aws.HTTPClient, error) {
	s, err := r.open(ctx, a)
	if err != nil {
		return nil, nil, err
	}
	return s.creds, r.wire(way{proxy: a.STS.HTTPProxy}), nil
}
