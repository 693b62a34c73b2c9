package main

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"go.uber.org/zap/zapcore"

	"github.com/serval-bridge/serval-bridge/internal/awsiam"
	"github.com/serval-bridge/serval-bridge/internal/awsorg"
	"github.com/serval-bridge/serval-bridge/internal/lease"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/settings"
	"github.com/serval-bridge/serval-bridge/internal/upstream"
	"github.com/serval-bridge/serval-bridge/internal/worker"
	"github.com/serval-bridge/serval-bridge/internal/workerd"
)

// Config is the manual of `serval-worker run`: each setting is an environment
// variable and a flag (SERVAL_UPSTREAM_URL is --upstream-url), and a variable
// NAME may be given as NAME_FILE, a file that holds the value. A secret is never
// a flag. Durations have a unit: 30s, 5m, 4h.
//
// AWS credentials come by the SDK's default chain (EKS Pod Identity, IRSA,
// instance metadata, environment, profiles) and are no settings of Serval's.
type Config struct {
	// UpstreamURL is where accounts come from and inventories go: an origin,
	// such as the bridge's. https, or http on a loopback address. Required.
	UpstreamURL string `env:"SERVAL_UPSTREAM_URL,required" usage:"origin of the upstream, such as https://serval.example.com"`
	// UpstreamToken is the bearer token for it. Required. As a file, which is
	// how a projected service-account token comes, it is read anew at each call.
	UpstreamToken serval.Secret `env:"SERVAL_UPSTREAM_TOKEN" usage:"bearer token for the upstream"`
	// UpstreamPlaintext lets the upstream be reached by http beyond loopback. The
	// token and the inventory then go over the network as they are: for a
	// network that encrypts by itself. Default: off.
	UpstreamPlaintext bool `env:"SERVAL_UPSTREAM_PLAINTEXT" usage:"let the upstream URL be http: the network encrypts by itself"`
	// UpstreamCAFile holds the certificate authorities (PEM) that vouch for an https
	// upstream, in place of the public ones. It is read at each connection. Default:
	// the public ones.
	UpstreamCAFile string `env:"SERVAL_UPSTREAM_CA_FILE" usage:"certificate authorities (PEM) of an https upstream, in place of the public ones"`

	// SyncInterval is how far apart full syncs are: 1m to 168h. Default: 4h.
	SyncInterval time.Duration `env:"SERVAL_SYNC_INTERVAL" envDefault:"4h" usage:"how far apart full syncs are"`
	// SyncOffset is when, after midnight UTC, one of them is: 0s to 168h. Default:
	// 30m, so that they are at 00:30, 04:30, … UTC.
	SyncOffset time.Duration `env:"SERVAL_SYNC_OFFSET" envDefault:"30m" usage:"when after midnight UTC the first full sync of a day is"`
	// DeltaInterval is how far apart the looks at an account are between its full
	// syncs, which make what was tagged requestable within minutes: 1s to 24h, or 0
	// for none. Default: 5m.
	DeltaInterval time.Duration `env:"SERVAL_DELTA_INTERVAL" envDefault:"5m" usage:"how far apart deltas are, between full syncs; 0 for none"`
	// DeltaBudget is about how many calls of IAM one of them may make: 10 to 10000.
	// What an account with more roles than that costs in time is in docs/worker.md.
	// Default: 300.
	DeltaBudget int `env:"SERVAL_DELTA_BUDGET" envDefault:"300" usage:"how many calls of IAM a delta may make in one account"`
	// ParallelAccounts is how many accounts are read at once, and beside them how
	// many are looked at by deltas: 1 to 100. Default: 10.
	ParallelAccounts int `env:"SERVAL_PARALLEL_ACCOUNTS" envDefault:"10" usage:"how many accounts are read at once"`
	// Shard, from 0, of TotalShards: which share of the accounts is this worker's,
	// where one is not enough. Default: 0 of 1, which is all.
	Shard       int `env:"SERVAL_SHARD" envDefault:"0" usage:"which share of the accounts is this worker's, from 0"`
	TotalShards int `env:"SERVAL_TOTAL_SHARDS" envDefault:"1" usage:"into how many shares the accounts are split"`
	// NoLease works without a Lease, for off a cluster: nothing then keeps a second
	// worker of the same shard from reading the same accounts in turn with this
	// one. Default: off; the replicas of a shard elect a leader by the Lease
	// serval-worker-<shard> in their namespace.
	NoLease bool `env:"SERVAL_NO_LEASE" usage:"work without a Kubernetes Lease: this is the only worker of its shard"`
	// ServiceAccountDir is where the pod finds its service account: token, ca.crt
	// and namespace. Default: where Kubernetes puts them.
	ServiceAccountDir string `env:"SERVAL_SERVICE_ACCOUNT_DIR" envDefault:"/var/run/secrets/kubernetes.io/serviceaccount" usage:"folder with the pod's service account: token, ca.crt and namespace"`

	// BaseRoleARN is a role that is assumed once, before all accounts. Default:
	// none.
	BaseRoleARN string `env:"SERVAL_BASE_ROLE_ARN" absent:"none" usage:"role that is assumed before all accounts"`
	// STSRegion is the region whose STS is asked, where an account has none of
	// its own. Default: us-west-1, us-gov-west-1 or cn-north-1, by partition.
	STSRegion string `env:"SERVAL_STS_REGION" usage:"region whose STS is asked, where an account has none of its own"`
	// STSEndpoint, IAMEndpoint and OrganizationsEndpoint stand in for AWS's own.
	// https, or http on a loopback address. Default: AWS's.
	STSEndpoint           string `env:"SERVAL_STS_ENDPOINT" usage:"URL in place of AWS's own STS endpoint"`
	IAMEndpoint           string `env:"SERVAL_IAM_ENDPOINT" usage:"URL in place of AWS's own IAM endpoint"`
	OrganizationsEndpoint string `env:"SERVAL_ORGANIZATIONS_ENDPOINT" usage:"URL in place of AWS's own Organizations endpoint"`

	// AdminListen is the address of /livez, /readyz, /metrics and /loglevel.
	// Default: :9090.
	AdminListen string `env:"SERVAL_ADMIN_LISTEN" envDefault:":9090" usage:"address of /livez, /readyz and /metrics"`
	// LogLevel is debug, info, warn or error. Default: info. It changes at run time
	// by PUT /loglevel on the admin port.
	LogLevel string `env:"SERVAL_LOG_LEVEL" envDefault:"info" usage:"debug, info, warn or error"`

	tokenFile string        // where UpstreamToken came from; empty where from no file
	lease     *lease.Config // nil with NoLease
}

// AccountConfig is the manual of `serval-worker scan` and `check`, beside their
// flags: the same variables, as far as they are about reading an account.
type AccountConfig struct {
	// ExternalID is the External ID of the account's ingestion role. Required.
	ExternalID string `env:"SERVAL_EXTERNAL_ID" usage:"External ID that the ingestion role asks for"`
	// The others are as in Config.
	BaseRoleARN           string `env:"SERVAL_BASE_ROLE_ARN" absent:"none" usage:"role that is assumed before the account's"`
	STSRegion             string `env:"SERVAL_STS_REGION" usage:"region whose STS is asked"`
	STSEndpoint           string `env:"SERVAL_STS_ENDPOINT" usage:"URL in place of AWS's own STS endpoint"`
	IAMEndpoint           string `env:"SERVAL_IAM_ENDPOINT" usage:"URL in place of AWS's own IAM endpoint"`
	OrganizationsEndpoint string `env:"SERVAL_ORGANIZATIONS_ENDPOINT" usage:"URL in place of AWS's own Organizations endpoint"`
}

// The bounds of settings.
const (
	leastInterval = time.Minute
	leastDelta    = time.Second
	mostDelta     = 24 * time.Hour
	leastBudget   = 10
	mostBudget    = 10_000
	mostInterval  = 168 * time.Hour
	mostParallel  = 100
	mostSpread    = 2 * time.Minute
)

// readConfig reads the settings of the daemon, and returns all their faults.
func readConfig(environ []string, flags *pflag.FlagSet) (c Config, faults []string) {
	faults = settings.Read(&c, environ, flags)
	f := &fault{list: faults}
	if err := upstream.CheckURL(c.UpstreamURL, c.UpstreamPlaintext); err != nil {
		f.add("SERVAL_UPSTREAM_URL", "%s", err)
	}
	if c.UpstreamCAFile != "" {
		if _, err := upstream.ReadCAFile(c.UpstreamCAFile); err != nil {
			f.add("SERVAL_UPSTREAM_CA_FILE", "%s.", err)
		}
	}
	if c.UpstreamToken.Empty() {
		f.add("SERVAL_UPSTREAM_TOKEN", "required; SERVAL_UPSTREAM_TOKEN_FILE names a file that holds it.")
	}
	if strings.ContainsFunc(c.UpstreamToken.Reveal(), func(r rune) bool { return r <= ' ' || r > '~' }) {
		f.add("SERVAL_UPSTREAM_TOKEN", "a token has no spaces and no line breaks in it.")
	}
	if c.SyncInterval < leastInterval || c.SyncInterval > mostInterval {
		f.add("SERVAL_SYNC_INTERVAL", "from %s to %s.", "1m", "168h")
	}
	if c.SyncOffset < 0 || c.SyncOffset > mostInterval {
		f.add("SERVAL_SYNC_OFFSET", "from %s to %s.", "0s", "168h")
	}
	if c.DeltaInterval != 0 && (c.DeltaInterval < leastDelta || c.DeltaInterval > mostDelta) {
		f.add("SERVAL_DELTA_INTERVAL", "from %s to %s, or 0 for no deltas.", "1s", "24h")
	}
	if c.DeltaBudget < leastBudget || c.DeltaBudget > mostBudget {
		f.add("SERVAL_DELTA_BUDGET", "from %d to %d calls.", leastBudget, mostBudget)
	}
	if c.ParallelAccounts < 1 || c.ParallelAccounts > mostParallel {
		f.add("SERVAL_PARALLEL_ACCOUNTS", "from 1 to %d.", mostParallel)
	}
	if c.TotalShards < 1 {
		f.add("SERVAL_TOTAL_SHARDS", "at least 1.")
	}
	if !c.NoLease {
		cluster, err := settings.FindCluster(environ, c.ServiceAccountDir)
		if err != nil {
			f.add("SERVAL_NO_LEASE", "%s, so there is no Lease by which workers elect a leader. Where this is the only worker of its shard, set it to true.", err)
		}
		c.lease = &lease.Config{
			Server: cluster.Server, TokenFile: cluster.TokenFile, CAFile: cluster.CAFile,
			Namespace: cluster.Namespace, Name: fmt.Sprintf("serval-worker-%d", c.Shard),
		}
	}
	if c.Shard < 0 || c.Shard >= c.TotalShards && c.TotalShards > 0 {
		f.add("SERVAL_SHARD", "from 0 to below SERVAL_TOTAL_SHARDS.")
	}
	if _, err := zapcore.ParseLevel(c.LogLevel); err != nil {
		f.add("SERVAL_LOG_LEVEL", "debug, info, warn or error.")
	}
	checkAWS(f, c.BaseRoleARN, c.STSRegion, c.STSEndpoint, c.IAMEndpoint, c.OrganizationsEndpoint)
	c.tokenFile = settings.SecretFiles(&c, environ, flags)["SERVAL_UPSTREAM_TOKEN"]
	return c, f.all()
}

// daemon returns what to run.
func (c Config) daemon() workerd.Config {
	return workerd.Config{
		Upstream: c.upstream(), AWS: c.aws(), Organization: c.organization(), Schedule: c.schedule(),
		DeltaInterval: c.DeltaInterval, DeltaBudget: c.DeltaBudget,
		Parallel: c.ParallelAccounts, Shard: c.Shard, TotalShards: c.TotalShards,
		Lease: c.lease, AdminListen: c.AdminListen,
	}
}

// upstream returns how the upstream is reached.
func (c Config) upstream() upstream.Config {
	u := upstream.Config{BaseURL: c.UpstreamURL, AllowPlaintext: c.UpstreamPlaintext, CAFile: c.UpstreamCAFile}
	u.Token = func() (serval.Secret, error) { return c.UpstreamToken, nil }
	if c.tokenFile != "" {
		u.Token = upstream.TokenFile(c.tokenFile)
	}
	return u
}

// aws returns how AWS is reached.
func (c Config) aws() awsiam.Config {
	return awsiam.Config{BaseRoleARN: c.BaseRoleARN, STSRegion: c.STSRegion, STSEndpoint: c.STSEndpoint, IAMEndpoint: c.IAMEndpoint}
}

// organization returns how what is not reading is reached.
func (c Config) organization() awsorg.Config {
	return awsorg.Config{OrganizationsEndpoint: c.OrganizationsEndpoint, IAMEndpoint: c.IAMEndpoint}
}

// schedule returns when accounts are read.
func (c Config) schedule() worker.Schedule {
	// An offset beyond the interval names the same times as what is left of it.
	return worker.Schedule{Interval: c.SyncInterval, Offset: c.SyncOffset % c.SyncInterval, Spread: min(mostSpread, c.SyncInterval/4)}
}

// readAccountConfig reads the settings of scan and check, and returns all their
// faults.
func readAccountConfig(environ []string, flags *pflag.FlagSet) (c AccountConfig, f *fault) {
	// In the daemon's own pod its settings are there too, and no matter here.
	ours, daemons := variables(c), variables(Config{})
	environ = slices.DeleteFunc(slices.Clone(environ), func(text string) bool {
		name, _, _ := strings.Cut(text, "=")
		name = strings.TrimSuffix(name, "_FILE")
		return slices.Contains(daemons, name) && !slices.Contains(ours, name)
	})
	f = &fault{list: settings.Read(&c, environ, flags)}
	checkAWS(f, c.BaseRoleARN, c.STSRegion, c.STSEndpoint, c.IAMEndpoint, c.OrganizationsEndpoint)
	return c, f
}

// aws returns how AWS is reached.
func (c AccountConfig) aws() awsiam.Config {
	return awsiam.Config{BaseRoleARN: c.BaseRoleARN, STSRegion: c.STSRegion, STSEndpoint: c.STSEndpoint, IAMEndpoint: c.IAMEndpoint}
}

// organization returns how what is not reading is reached.
func (c AccountConfig) organization() awsorg.Config {
	return awsorg.Config{OrganizationsEndpoint: c.OrganizationsEndpoint, IAMEndpoint: c.IAMEndpoint}
}

// variables returns the names of a struct's variables.
func variables(of any) (names []string) {
	for f := range reflect.TypeOf(of).Fields() {
		if name, _, _ := strings.Cut(f.Tag.Get("env"), ","); name != "" {
			names = append(names, name)
		}
	}
	return names
}

var regionName = regexp.MustCompile(`^[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}$`)

// checkAWS checks the settings about AWS.
func checkAWS(f *fault, baseRole, region, sts, iam, organizations string) {
	if baseRole != "" {
		if _, err := serval.ParseRoleARN(baseRole); err != nil {
			f.add("SERVAL_BASE_ROLE_ARN", "%s.", err)
		}
	}
	if region != "" && !regionName.MatchString(region) {
		f.add("SERVAL_STS_REGION", "not an AWS region, such as eu-central-1.")
	}
	for _, e := range []struct{ name, url string }{{"SERVAL_STS_ENDPOINT", sts}, {"SERVAL_IAM_ENDPOINT", iam}, {"SERVAL_ORGANIZATIONS_ENDPOINT", organizations}} {
		if e.url == "" {
			continue
		}
		if err := serval.CheckEndpoint(e.url); err != nil {
			f.add(e.name, "%s", err)
		}
	}
}

// A fault gathers what is wrong, each once: a value that could not be read
// is not also out of bounds.
type fault struct{ list []string }

func (f *fault) add(name, format string, args ...any) {
	for _, have := range f.list {
		if strings.HasPrefix(have, name+":") || strings.HasPrefix(have, name+"_FILE:") {
			return
		}
	}
	f.list = append(f.list, name+": "+fmt.Sprintf(format, args...))
}

func (f *fault) all() []string {
	slices.Sort(f.list)
	return f.list
}
