package awsiam

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// An Explanation says where the base credentials come from and who they are. No
// secret is in it, and no access key.
type Explanation struct {
	Source string   // such as EKS Pod Identity
	Why    string   // what made it the one
	Passed []string // the sources that come before it in the SDK's order, and why they are not it

	Temporary bool      // they end, or have a session token
	Expires   time.Time // zero where they do not end, or did not come

	// Who assumes the accounts' roles, by sts:GetCallerIdentity: the base role
	// where there is one. Empty where there is an error.
	BaseRoleARN               string
	Partition, AccountID, ARN string

	Way []string // from there to the account, a step or a setting in each line
}

// String returns the explanation in lines, for a person.
func (x Explanation) String() string {
	var b strings.Builder
	for _, passed := range x.Passed {
		fmt.Fprintf(&b, "not %s\n", passed)
	}
	fmt.Fprintf(&b, "%s: %s\n", x.Source, x.Why)
	switch {
	case !x.Expires.IsZero():
		fmt.Fprintf(&b, "temporary credentials, until %s\n", x.Expires.UTC().Format(time.RFC3339))
	case x.Temporary:
		b.WriteString("temporary credentials, which nobody renews\n")
	}
	if x.BaseRoleARN != "" {
		fmt.Fprintf(&b, "base role %s, assumed for all accounts\n", x.BaseRoleARN)
	}
	if x.ARN != "" {
		fmt.Fprintf(&b, "this is %s; trust policies must name account %s\n", x.ARN, x.AccountID)
	}
	for _, step := range x.Way {
		fmt.Fprintln(&b, step)
	}
	return b.String()
}

// Explain fetches the base credentials where that is not done, asks AWS who they
// are, and says which source was chosen and why. With an error, a *Failure that
// names the cause, comes what is known without them. It says too how the account
// is reached from there, unless that has no id; it does not try that.
func (r *Reader) Explain(ctx context.Context, a serval.Account) (Explanation, error) {
	x := Explanation{Source: r.source.name, Why: r.source.why, Passed: r.source.passed, BaseRoleARN: r.config.BaseRoleARN, Way: r.way(a)}
	creds, err := r.own.Retrieve(ctx)
	if err != nil {
		return x, r.failure(StageCredentials, serval.Account{}, err)
	}
	x.Temporary = creds.SessionToken != "" || creds.CanExpire
	if creds.CanExpire {
		x.Expires = creds.Expires
	}
	x.Partition, x.AccountID, x.ARN, err = r.Identity(ctx)
	return x, err
}

// way says how an account is reached. A URL may hold a password, and an External
// ID is nobody else's business: neither is shown.
func (r *Reader) way(a serval.Account) (steps []string) {
	if a.ID == "" {
		return nil
	}
	for i, hop := range append(slices.Clone(a.Via), serval.Hop{RoleARN: a.RoleARN, ExternalID: a.ExternalID}) {
		with := "without an External ID"
		if hop.ExternalID != "" {
			with = "with its External ID"
		}
		what := "hop " + strconv.Itoa(i+1)
		if i == len(a.Via) {
			what = "ingestion role"
		}
		steps = append(steps, fmt.Sprintf("%s %s, assumed %s as session %s", what, hop.RoleARN, with, r.config.SessionName))
	}
	region, from := r.stsRegion(a), "the default of partition "+a.Partition
	switch {
	case a.STS.Region != "":
		from = "the account's"
	case r.config.STSRegion != "":
		from = "the worker's"
	}
	steps = append(steps, fmt.Sprintf("STS region %s, %s", region, from))
	for _, s := range []struct{ name, url string }{
		{"STS endpoint", cmp.Or(a.STS.Endpoint, r.config.STSEndpoint)}, {"IAM endpoint", r.config.IAMEndpoint}, {"HTTP proxy", a.STS.HTTPProxy},
	} {
		if s.url != "" {
			steps = append(steps, s.name+" "+bare(s.url))
		}
	}
	if a.STS.Dial != "" {
		steps = append(steps, "connections for STS go to "+a.STS.Dial)
	}
	return steps
}

// A source is where the base credentials come from.
type source struct {
	name, why string
	passed    []string
	mend      string // what to do where none come
}

// sourceMetadata is the name of the last source.
const sourceMetadata = "instance metadata"

var givenSource = source{name: "the program's own setting", why: "credentials were given to it directly"}

// load reads the SDK's configuration: environment, profiles, and from them the
// chain of credentials. What assumes roles in there is ours, since the SDK's own
// client would follow AWS_ENDPOINT_URL and give a pod's token to whom it names.
func load(ctx context.Context, c *Config, client config.HTTPClient) (aws.Config, source, error) {
	first, err := config.LoadDefaultConfig(ctx, config.WithHTTPClient(client))
	if err != nil {
		return aws.Config{}, source{}, err
	}
	env, shared := settings(first)
	own := func(o *sts.Options, role string) {
		partition := serval.PartitionAWS
		if arn, err := serval.ParseRoleARN(role); err == nil {
			partition = arn.Partition
		}
		o.Region = cmp.Or(c.STSRegion, first.Region, serval.DefaultSTSRegion(partition))
		o.HTTPClient = first.HTTPClient
		o.BaseEndpoint = nil
		if c.STSEndpoint != "" {
			o.BaseEndpoint = &c.STSEndpoint
		}
	}
	loaded, err := config.LoadDefaultConfig(ctx, config.WithHTTPClient(client),
		config.WithCredentialsCacheOptions(func(o *aws.CredentialsCacheOptions) { o.ExpiryWindow = renewEarly }),
		config.WithWebIdentityRoleCredentialOptions(func(o *stscreds.WebIdentityRoleOptions) {
			var with sts.Options
			own(&with, o.RoleARN)
			o.Client = sts.New(with)
		}),
		config.WithAssumeRoleCredentialOptions(func(o *stscreds.AssumeRoleOptions) {
			if theirs, ok := o.Client.(*sts.Client); ok {
				with := theirs.Options()
				own(&with, o.RoleARN)
				o.Client = sts.New(with)
			}
		}))
	return loaded, chosen(env, shared), err
}

// settings returns what the SDK read.
func settings(c aws.Config) (env config.EnvConfig, shared config.SharedConfig) {
	for _, s := range c.ConfigSources {
		switch s := s.(type) {
		case config.EnvConfig:
			env = s
		case config.SharedConfig:
			shared = s
		}
	}
	return env, shared
}

// chosen goes through the sources in the order of the SDK (config v1.33,
// resolveCredentialChain) and stops at the first that is set.
func chosen(env config.EnvConfig, shared config.SharedConfig) source {
	profile := cmp.Or(shared.Profile, env.SharedConfigProfile, "default")
	var passed []string
	for _, s := range []struct {
		set            bool
		name, why, not string
		mend           string
	}{
		{env.Credentials.HasKeys(), "environment variables", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are set",
			"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not both set", "Look at them for spaces and for a missing AWS_SESSION_TOKEN."},
		{env.WebIdentityTokenFilePath != "", "web identity (IRSA)",
			fmt.Sprintf("AWS_WEB_IDENTITY_TOKEN_FILE is %s, for the role %s", env.WebIdentityTokenFilePath, env.RoleARN),
			"AWS_WEB_IDENTITY_TOKEN_FILE is not set",
			"The trust policy of that role must name the cluster's OIDC provider and this service account, and STS must be reached."},
		{fromProfile(shared) != "", "profile " + profile, fromProfile(shared), "there is nothing about credentials in the shared config files for profile " + profile,
			"Look at the profile in the shared config files."},
		{env.ContainerCredentialsRelativePath != "", "container credentials (ECS)", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is set",
			"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is not set", "Give the task a task role."},
		{env.ContainerCredentialsEndpoint != "", containerName(env.ContainerCredentialsEndpoint),
			"AWS_CONTAINER_CREDENTIALS_FULL_URI is " + bare(env.ContainerCredentialsEndpoint), "AWS_CONTAINER_CREDENTIALS_FULL_URI is not set",
			"The agent runs on the node: it must be installed, and network policies must let the pod reach it on port 80."},
	} {
		if s.set {
			return source{name: s.name, why: s.why, passed: passed, mend: s.mend}
		}
		passed = append(passed, s.name+": "+s.not)
	}
	return source{name: sourceMetadata, why: "nothing else is set", passed: passed,
		mend: "On EKS, give the service account a Pod Identity association or an IRSA role. On an instance, give it an instance profile; " +
			"and where this runs in a container there, raise the metadata hop limit: an answer may make one hop only by default, and the way into a container is one more " +
			"(aws ec2 modify-instance-metadata-options --instance-id ID --http-put-response-hop-limit 2 --http-tokens required --http-endpoint enabled)."}
}

// fromProfile says what a profile has, or "" where the SDK looks on.
func fromProfile(p config.SharedConfig) string {
	switch {
	case p.Source != nil:
		return fmt.Sprintf("role_arn is %s, assumed by source_profile %s", p.RoleARN, p.SourceProfileName)
	case p.Credentials.HasKeys():
		return "it has aws_access_key_id and aws_secret_access_key"
	case p.CredentialSource != "":
		return fmt.Sprintf("role_arn is %s, assumed by credential_source %s", p.RoleARN, p.CredentialSource)
	case p.WebIdentityTokenFile != "":
		return fmt.Sprintf("web_identity_token_file is %s, for the role %s", p.WebIdentityTokenFile, p.RoleARN)
	case p.SSOSessionName != "" || p.SSOStartURL != "":
		return "it signs in by IAM Identity Center"
	case p.LoginSession != "":
		return "it has a login session"
	case p.CredentialProcess != "":
		return "it has a credential_process"
	}
	return ""
}

func containerName(endpoint string) string {
	if u, err := url.Parse(endpoint); err == nil && (u.Hostname() == "169.254.170.23" || u.Hostname() == "fd00:ec2::23") {
		return "container credentials (EKS Pod Identity)"
	}
	return "container credentials"
}

// bare returns a URL without what may be secret in it.
func bare(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil {
		return "not a URL"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}
