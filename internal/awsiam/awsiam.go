// Package awsiam is an account, read: all of its IAM roles that carry the tag,
// with every document, or a statement of what could not be read.
//
// A Reader starts from base credentials (the SDK's default chain: EKS Pod
// Identity, IRSA, instance metadata, environment, profiles), assumes a base role
// where one is set, then the account's chain of roles, and last its ingestion
// role, always with the External ID. With that session it asks IAM the seven
// Actions and nothing else:
//
//	ListRoles                every role, a thousand to a page, without tags
//	GetRole                  of every role listed: only here are the tags
//	ListRolePolicies         of the tagged roles, and GetRolePolicy of each name
//	ListAttachedRolePolicies of the tagged roles, and GetPolicy with
//	                         GetPolicyVersion once of each policy that occurs
//
// In a clean run these are all the calls: one AssumeRole for each role of the
// chain, P pages, N roles, 2T lists of tagged roles, I inline policies, and 2D
// for D distinct managed policies, those of AWS's own once for all accounts.
//
// GetAccountAuthorizationDetails is tried beside ListRoles, and the refusal
// remembered. Where it happens to be allowed the calls are the roles of the chain,
// the pages of both, and two for each policy of AWS's own; the inventory is the
// same, and only says that it was read by authorization details.
//
// Where an issuer is told, GetOpenIDConnectProvider asks once for its provider; see
// provider.go.
//
// Between two such readings Delta looks for what is new, gone or changed, for as
// many calls as it is given; see delta.go.
//
// Unknown is never absent. What fails for one role is said of that role; what
// fails in the listing makes the inventory incomplete; only where nothing could be
// read is there an error, and then it is a *Failure that names the cause, or a
// *serval.Refusal.
//
// Calls are paced for each account and action below the pace at which AWS
// begins to throttle, because the throttle is shared with the customer's own
// programs; see package pace. This package does not log: Config.Observe is told of
// every call, and the caller of Inventory of its progress.
package awsiam

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/serval-bridge/serval-bridge/internal/pace"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// The actions that are asked of IAM: serval.IngestionActions, and two that are
// tried.
const (
	listRoles                = "iam:ListRoles"
	getRole                  = "iam:GetRole"
	listRolePolicies         = "iam:ListRolePolicies"
	getRolePolicy            = "iam:GetRolePolicy"
	listAttachedRolePolicies = "iam:ListAttachedRolePolicies"
	getPolicy                = "iam:GetPolicy"
	getPolicyVersion         = "iam:GetPolicyVersion"
	getDetails               = "iam:GetAccountAuthorizationDetails" // tried, and never needed
	getProvider              = "iam:GetOpenIDConnectProvider"       // the same, where an issuer is told

	assumeRole        = "sts:AssumeRole"
	getCallerIdentity = "sts:GetCallerIdentity"
)

// SessionName is the session name of every role that is assumed on the way,
// where a Config has no other.
const SessionName = "serval-worker"

// The bounds of a reading. The SDK has no overall timeout of its own.
const (
	callDeadline    = 15 * time.Second
	accountDeadline = 20 * time.Minute
	largeShare      = 16 // of Total is the share of pages of a thousand that are read at once
)

// A Config says how AWS is reached. The zero value means AWS's own endpoints
// with the SDK's default credentials.
type Config struct {
	// BaseRoleARN is a role assumed once, before all accounts; none where empty.
	BaseRoleARN string
	// STSRegion, where an account has none of its own. Default: by partition.
	STSRegion string
	// STSEndpoint and IAMEndpoint replace AWS's own; https, or http on loopback.
	// An account's own STS endpoint comes first.
	STSEndpoint, IAMEndpoint string
	// SessionName of every role that is assumed on the way. Default:
	// serval-worker.
	SessionName string
	// Credentials to start from. Default: the SDK's chain.
	Credentials aws.CredentialsProvider
	// Dial opens all connections to AWS. Default: TCP.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Concurrency bounds the calls of IAM in flight for one account, however many
	// readings of it run at once. Default 16.
	Concurrency int
	// Total bounds the calls of IAM in flight over all accounts. Default 64.
	Total int
	// Thrifty has the process collect garbage more often while many accounts are
	// read at once. It is for one that does little else, with one Reader.
	Thrifty bool
	// Observe is told of every call after it was answered, from the goroutine
	// that made it. Default: nobody is told.
	Observe func(Call)
	// Now stamps inventories. Default time.Now.
	Now func() time.Time
}

// A Call is one call of AWS as it was answered. A call that is tried again is
// several Calls.
type Call struct {
	AccountID string
	Action    string // such as iam:GetRole
	Code      string // empty where it went well; AWS's code, or one of ours: see Failure
	Duration  time.Duration
	Throttled bool
}

// A Reader reads accounts. It is safe for concurrent use; several accounts are
// read at once by calling it several times. It remembers the pace each account
// bears, how far its deltas have come in it, and AWS's own policies, and nothing
// of what it read.
type Reader struct {
	config  Config
	own     *keeper // the base credentials
	source  source  // where they come from
	base    *keeper // who assumes the accounts' roles: base credentials, or the base role
	region  string  // of STS where neither config nor partition says
	total   chan struct{}
	large   chan struct{} // answers that are read now and take memory by the megabyte
	deltas  deltas
	network *network
	shared  *library

	crews     atomic.Int64           // readings at work
	thrift    thrift                 // the same, of a process that is thrifty
	partition atomic.Pointer[string] // of the base credentials, once known
	skew      atomic.Int64           // AWS's clock minus ours, as last seen

	fleet pace.Fleet // what the accounts bear, found out together

	mu      sync.Mutex
	gates   map[string]*gate   // by account id
	guarded map[string]guarded // the same; see Guard
}

// New returns a Reader. It makes no call; what is wrong with the settings is
// reported together, as a refusal.
func New(ctx context.Context, c Config) (*Reader, error) {
	var faults []error
	endpoint := func(name, url string) {
		if url == "" {
			return
		}
		if err := serval.CheckEndpoint(url); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", name, err))
		}
	}
	endpoint("STS endpoint", c.STSEndpoint)
	endpoint("IAM endpoint", c.IAMEndpoint)
	var baseRole serval.RoleARN
	if c.BaseRoleARN != "" {
		var err error
		if baseRole, err = serval.ParseRoleARN(c.BaseRoleARN); err != nil {
			faults = append(faults, fmt.Errorf("base role: %w", err))
		}
	}
	c.SessionName = cmp.Or(c.SessionName, SessionName)
	if !serval.IsSessionName(c.SessionName) {
		faults = append(faults, errors.New("session name: 2 to 64 characters of A-Z a-z 0-9 _ + = , . @ -"))
	}
	if c.Concurrency < 0 || c.Total < 0 {
		faults = append(faults, errors.New("calls in flight: fewer than none is not possible"))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, serval.Refuse(serval.Invalid, "%s", err)
	}
	c.Concurrency = cmp.Or(c.Concurrency, 16)
	c.Total = cmp.Or(c.Total, 64)
	if c.Now == nil {
		c.Now = time.Now
	}

	r := &Reader{config: c, total: make(chan struct{}, c.Total), large: make(chan struct{}, max(2, c.Total/largeShare)), gates: make(map[string]*gate), guarded: make(map[string]guarded)}
	r.deltas.init(cap(r.total), cap(r.large))
	client := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.Proxy = nil // HTTPS_PROXY is not for AWS, and least of all for the credentials endpoint
		t.MaxIdleConns = 2 * c.Total
		t.MaxIdleConnsPerHost = c.Total
		if c.Dial != nil {
			t.DialContext = c.Dial
		}
	})
	var fetch func(context.Context) (aws.Credentials, error)
	if c.Credentials != nil {
		r.source, fetch = givenSource, c.Credentials.Retrieve
	} else {
		loaded, chosen, err := load(ctx, &c, client)
		if err != nil {
			return nil, fmt.Errorf("reading the AWS configuration: %w", err)
		}
		if with, ok := loaded.HTTPClient.(*awshttp.BuildableClient); ok {
			client = with // it has the certificates of AWS_CA_BUNDLE
		}
		r.region, r.source = loaded.Region, chosen
		fetch = func(ctx context.Context) (aws.Credentials, error) {
			creds, err := loaded.Credentials.Retrieve(ctx)
			if creds.CanExpire {
				creds.Expires = creds.Expires.Add(renewEarly) // the SDK's cache took it off
			}
			return creds, err
		}
	}
	r.network = newNetwork(client.GetTransport())
	r.shared = newLibrary()
	r.base = r.newKeeper(func(ctx context.Context) (aws.Credentials, error) {
		creds, err := fetch(ctx)
		if err != nil {
			return aws.Credentials{}, noCredentials(err)
		}
		return creds, nil
	})
	r.own = r.base
	if c.BaseRoleARN != "" {
		r.partition.Store(&baseRole.Partition)
		own := serval.Account{Partition: baseRole.Partition}
		r.base = r.assumed(r.base, r.stsClient(own, r.base), baseRole, "")
	}
	return r, nil
}

// Close closes connections that are idle. A Reader that is closed can still be
// used.
func (r *Reader) Close() { r.network.close() }

// Skew returns how far AWS's clock is ahead of ours, as the Date header of its
// last answer showed it, to the second; 0 before the first answer. Beyond five
// minutes AWS refuses signatures.
func (r *Reader) Skew() time.Duration { return time.Duration(r.skew.Load()) }

// Now returns the time by the reader's clock.
func (r *Reader) Now() time.Time { return r.config.Now() }

// Identity returns who assumes the accounts' roles: the base role where there is
// one, else the base credentials. Trust policies must name this account.
func (r *Reader) Identity(ctx context.Context) (partition, accountID, arn string, err error) {
	own := serval.Account{Partition: cmp.Or(deref(r.partition.Load()), serval.PartitionAWS)}
	if r.partition.Load() == nil && r.region != "" && r.config.STSRegion == "" {
		own.STS.Region = r.region // the partition is not known, but the region is of it
	}
	client := r.stsClient(own, r.base)
	l := &line{reader: r, gate: r.gate(""), creds: r.base}
	out, err := ask(ctx, l, getCallerIdentity, "", func(ctx context.Context) (*sts.GetCallerIdentityOutput, error) {
		return client.GetCallerIdentity(ctx, nil)
	})
	if err != nil {
		return "", "", "", r.failure(StageCredentials, serval.Account{}, err)
	}
	arn = deref(out.Arn)
	partition, accountID, err = splitARN(arn)
	if err != nil {
		return "", "", "", r.failure(StageCredentials, serval.Account{}, &callError{
			action: getCallerIdentity, kind: failed, code: codeMalformed, message: "the answer names nobody"})
	}
	r.partition.Store(&partition)
	return partition, accountID, arn, nil
}

// InFlight returns how many calls of IAM are in flight over all accounts.
func (r *Reader) InFlight() int { return len(r.total) }

// Rates returns for each action how many calls a second the account may make that
// bears the fewest, and the one that bears the most, of those read so far.
func (r *Reader) Rates() (lowest, highest map[string]float64) {
	lowest, highest = make(map[string]float64), make(map[string]float64)
	r.mu.Lock()
	gates := slices.Collect(maps.Values(r.gates))
	r.mu.Unlock()
	for _, g := range gates {
		for action, rate := range g.pace.Rates() {
			if low, ok := lowest[action]; !ok || rate < low {
				lowest[action] = rate
			}
			highest[action] = max(highest[action], rate)
		}
	}
	return lowest, highest
}

// gate returns the account's gate, which lives as long as the Reader.
func (r *Reader) gate(accountID string) *gate {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.gates[accountID]
	if g == nil {
		g = &gate{account: accountID, slots: make(chan struct{}, r.config.Concurrency), tried: &tried{}, provider: &refusal{}, pace: r.fleet.New()}
		for range r.config.Concurrency / notAtFirst {
			g.slots <- struct{}{}
		}
		r.gates[accountID] = g
	}
	return g
}

func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
