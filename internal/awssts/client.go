// Package awssts opens sessions: it turns a person's ID token into temporary
// credentials of one role, and those into a way into the AWS console.
//
// A [Client] does both. [Client.Mint] makes one AssumeRoleWithWebIdentity call
// of a serval.Mint; [Client.SignInURL] makes a sign-in link of what it
// answered. What goes wrong is an [Error], which says what AWS said, what the
// person should read, and whether another try could help.
//
// The ID token is the real credential here: whoever holds it can open a session
// under every role that trusts its audience, past every approval. So it is sent
// to one place only, which the configuration fixes. The client is built by hand
// and not by the SDK's default configuration, because that would take a host
// from AWS_ENDPOINT_URL, from AWS_ENDPOINT_URL_STS or from a shared file, plain
// http included, and would look for credentials of the machine, which the call
// neither needs nor gets: it is unsigned. No environment variable, no file and
// no metadata service is read. Redirects are not followed.
//
// The answer is only read here. Whether it is the right one is judged by
// serval.Mint.Check, and every caller must ask it.
package awssts

import (
	"context"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A Config says where sessions are opened. The zero value is AWS's own
// endpoints, by the partition of each role.
type Config struct {
	// Region whose STS is asked. It stands for the partition it belongs to;
	// roles of another partition use serval.DefaultSTSRegion of theirs, or are
	// refused where there is none.
	Region string

	// Endpoint replaces AWS's regional STS endpoint: https, or http on a
	// loopback address. It serves one partition, that of Region, or aws where
	// Region is empty; roles of another are refused.
	Endpoint string

	// SigninEndpoint replaces the federation endpoint of the same partition,
	// such as https://signin.aws.amazon.com/federation. The path may be left
	// out.
	SigninEndpoint string

	// HTTPClient carries the calls. Redirects and cookies of its are switched
	// off, its transport is used as it is. Where nil, a transport with
	// deadlines is made that uses no proxy: HTTP_PROXY, HTTPS_PROXY and
	// NO_PROXY are not read.
	HTTPClient *http.Client
	// Around, where it is set, is put around the transport.
	Around func(http.RoundTripper) http.RoundTripper

	// Now is the clock; time.Now where nil.
	Now func() time.Time
}

// A Client opens sessions. It holds no secret and is safe for concurrent use.
type Client struct {
	sts    map[string]*sts.Client // by partition
	region map[string]string      // by partition
	signin map[string]string      // federation endpoints by partition
	own    string                 // the partition of the configured region
	only   string                 // the one partition served; empty for all that have a region
	http   *http.Client
	now    func() time.Time
}

// The bounds of one call with all its tries, and of one try. STS itself waits
// five seconds for the keys of an identity provider, and says so afterwards.
const (
	patience    = 10 * time.Second
	tryPatience = 7 * time.Second
)

// maxAnswer bounds what is read of an answer. STS's are some kilobytes.
const maxAnswer = 1 << 20

// regionName is the form of a region's name. It leaves out aws-global, which
// the SDK would take for STS's global endpoint.
var regionName = regexp.MustCompile(`^[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}$`)

// New returns a client, or a serval.Refusal that names what is wrong with the
// configuration.
func New(c Config) (*Client, error) {
	if c.Region != "" && (!regionName.MatchString(c.Region) || strings.HasPrefix(c.Region, "fips-")) {
		return nil, serval.Refuse(serval.Invalid, "STS region: %q is not the name of an AWS region, such as us-west-1.", c.Region)
	}
	if err := checkEndpoint(c.Endpoint); err != nil {
		return nil, serval.Refuse(serval.Invalid, "STS endpoint: %s", err)
	}
	if err := checkEndpoint(c.SigninEndpoint); err != nil {
		return nil, serval.Refuse(serval.Invalid, "Sign-in endpoint: %s", err)
	}
	client := &Client{
		sts:    map[string]*sts.Client{},
		region: map[string]string{},
		signin: map[string]string{},
		http:   carrier(c.HTTPClient, c.Around),
		now:    c.Now,
	}
	if client.now == nil {
		client.now = time.Now
	}
	own := serval.RegionPartition(c.Region)
	client.own = own
	for _, partition := range []string{serval.PartitionAWS, serval.PartitionChina, serval.PartitionGov} {
		client.region[partition] = serval.DefaultSTSRegion(partition)
		client.signin[partition] = federation[partition]
	}
	if c.Region != "" {
		client.region[own] = c.Region
	}
	if c.SigninEndpoint != "" {
		client.signin = map[string]string{own: withFederation(c.SigninEndpoint)}
	}
	if c.Endpoint != "" {
		client.only = own
	}
	for partition, region := range client.region {
		if client.only == "" || client.only == partition {
			client.sts[partition] = newSTS(region, c.Endpoint, client.http)
		}
	}
	return client, nil
}

// checkEndpoint refuses an endpoint that a token must not be sent to, and one
// that is more than an address.
func checkEndpoint(endpoint string) error {
	if endpoint == "" {
		return nil
	}
	if err := serval.CheckEndpoint(endpoint); err != nil {
		return err
	}
	if u, err := url.Parse(endpoint); err != nil || u.RawQuery != "" || u.Fragment != "" {
		return serval.Refuse(serval.Invalid, "must have neither a query nor a fragment.")
	}
	return nil
}

// newSTS returns an STS client that knows its region, its endpoint and nothing
// else. It tries once: how often a mint is tried again is decided in repeat.
func newSTS(region, endpoint string, carrier *http.Client) *sts.Client {
	o := sts.Options{
		Region:      region,
		Credentials: aws.AnonymousCredentials{},
		HTTPClient:  carrier,
		Retryer:     aws.NopRetryer{},
	}
	if endpoint != "" {
		o.BaseEndpoint = &endpoint
	}
	return sts.New(o)
}

// carrier returns a copy of given that follows no redirect, since a 307 would
// carry the token on to whatever host it names, and that reads bounded answers.
func carrier(given *http.Client, around func(http.RoundTripper) http.RoundTripper) *http.Client {
	own := http.Client{}
	if given != nil {
		own = *given
	}
	own.Jar = nil
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if given == nil {
		own.Transport = &http.Transport{
			DialContext:            (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    5 * time.Second,
			ResponseHeaderTimeout:  tryPatience,
			IdleConnTimeout:        time.Minute,
			MaxIdleConnsPerHost:    10,
			MaxResponseHeaderBytes: 64 << 10,
			ForceAttemptHTTP2:      true,
		}
	}
	if own.Transport == nil {
		own.Transport = http.DefaultTransport
	}
	if around != nil {
		own.Transport = around(own.Transport)
	}
	own.Transport = bounded{own.Transport}
	return &own
}

// bounded lets no answer be longer than maxAnswer.
type bounded struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := b.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	res.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(res.Body, maxAnswer), res.Body}
	return res, nil
}

// repeat calls do until it succeeds, until its error says that it was tried
// often enough, or until patience is over. Both calls made here are safe to
// repeat: what an answer that got lost held is unknown to everybody, and ends
// by itself.
func repeat[T any](ctx context.Context, do func(context.Context) (T, *Error)) (T, error) {
	all, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var none T
	var last *Error
	for tries := 1; ; tries++ {
		one, done := context.WithTimeout(all, tryPatience)
		result, failed := do(one)
		done()
		if failed == nil {
			return result, nil
		}
		if failed.Code == NoAnswer && last != nil && all.Err() != nil {
			failed = last // it says more than that the time was over
		}
		failed.Retried = tries - 1
		if err := ctx.Err(); err != nil {
			failed.cause = err
		}
		if tries >= failed.tries || !wait(all, backoff(tries, failed)) {
			return none, failed
		}
		last = failed
	}
}

// backoff returns how long to wait after so many tries: some of a time that
// doubles, so that those who failed together do not come back together.
func backoff(tries int, failed *Error) time.Duration {
	most := 500 * time.Millisecond << (tries - 1)
	if failed.throttled {
		most *= 2
	}
	return most/4 + rand.N(most*3/4)
}

// wait reports whether d went by with time left to try again. It does not wait
// for what cannot come.
func wait(ctx context.Context, d time.Duration) bool {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= d {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// forPartition returns the STS client of a partition, or why there is none.
func (c *Client) forPartition(partition string) (*sts.Client, error) {
	if client := c.sts[partition]; client != nil {
		return client, nil
	}
	if c.only != "" {
		return nil, serval.Refuse(serval.FailedPrecondition, "The role is in partition %s, and the STS endpoint that is set serves %s. The operator of Serval can mend that.", partition, c.only)
	}
	return nil, serval.Refuse(serval.FailedPrecondition, "The role is in partition %s, for which no STS region is set. The operator of Serval can set one.", partition)
}
