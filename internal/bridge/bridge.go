// Package bridge is the bridge, wired: a Config in, a running server out. It
// joins the rooms; it decides nothing. The program and the demo both call Run.
package bridge

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/serval-bridge/serval-bridge/internal/awssts"
	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/database"
	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/intake"
	"github.com/serval-bridge/serval-bridge/internal/login"
	"github.com/serval-bridge/serval-bridge/internal/notify"
	"github.com/serval-bridge/serval-bridge/internal/probe"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/signin"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/tokenreview"
	"github.com/serval-bridge/serval-bridge/internal/trace"
	"github.com/serval-bridge/serval-bridge/internal/trust"
	"github.com/serval-bridge/serval-bridge/internal/web"
	"github.com/serval-bridge/serval-bridge/internal/workflow"
)

// A Config says how to run a bridge. Durations of zero mean their default.
type Config struct {
	Listen      string // host:port of pages and API
	AdminListen string // host:port of probes and metrics
	PublicURL   string // own origin, https or http on loopback

	TLSCertFile, TLSKeyFile string // both, to serve TLS here

	OIDC login.Config // its RedirectURL is set here

	Secret           serval.Secret // root secret, 32 bytes or more
	OlderSecrets     []serval.Secret
	ExternalIDSecret serval.Secret // the key of External IDs, 32 bytes or more
	DatabaseURL      serval.Secret
	SecretFiles      map[string]string // where secrets came from, by setting: those are followed

	TrustedAccount string // shown where an account is connected; may be empty
	STSRegion      string
	STSEndpoint    string
	SigninEndpoint string

	// Workers is how the cluster's own worker is recognised, by the token of its
	// service account. Where it is nil, workers come by upstream token only.
	Workers *tokenreview.Config

	File           File   // the configuration file, read; the zero File where there is none
	FilePath       string // where it was read, to read it again when it changes; may be empty
	TrustedProxies []netip.Prefix
	RequestExpiry  time.Duration
	MintRate       int
	DeviceLogin    bool // clients may sign in by a typed code

	// EgressCIDRs are where AWS sees the bridge's calls come from, or VPCEndpoint
	// in their place: what a finding prints.
	EgressCIDRs []netip.Prefix
	VPCEndpoint string
	// BlockFindings is high, medium or low, or empty: from which severity on a
	// finding about a role's trust policy keeps sessions from being opened.
	BlockFindings   string
	Lease           time.Duration // of one session, 15 to 60 minutes; 0: as long as the access
	NoSessionPolicy bool          // sessions end with their credentials alone, and cannot be narrowed

	Notices Notices // how people are told of something outside of the pages

	// AcceptNewExternalIDs starts although team or ExternalIDSecret changed.
	AcceptNewExternalIDs bool
	// DrainDelay is how long the bridge goes on serving, not ready any more,
	// after it was told to stop, so that balancers notice; DrainTime how long
	// requests under way may then take.
	DrainDelay time.Duration
	DrainTime  time.Duration

	Version string
	Log     *zap.Logger
	LogSink *Sink            // behind Log, to count what it drops; may be nil
	Level   *zap.AtomicLevel // where it is set, shown and changed at /loglevel of the admin port
	Trace   *trace.Tracer    // nil: spans are neither recorded nor sent
	Now     func() time.Time // nil: time.Now; set by tests only

	lookEvery time.Duration // at the configuration file; 0: lookEvery; set by tests only
	serving   string        // where a bridge is to be examined that serves
	resolver  *net.Resolver // of whoever examines; nil: the machine's; set by tests only

	verifyEvery time.Duration               // the audit chain; 0: verifyEvery; set by tests only
	listening   func(pages, admin net.Addr) // hears where, before anything is ready; set by tests only

	// Serving, if set, is called once with the addresses when everything is
	// ready to be used.
	Serving func(pages, admin net.Addr)
}

// The defaults of a Config.
const (
	DefaultDrainTime = 30 * time.Second
	minSecret        = 32
)

// Faults returns all that is wrong with the settings, one sentence each, that
// begins with the setting's variable. The configuration file's own faults are
// found by ReadFile.
func (c Config) Faults() []string {
	var faults []string
	fault := func(name, format string, args ...any) {
		faults = append(faults, name+": "+fmt.Sprintf(format, args...))
	}
	origin := func(name, text string, path bool) {
		u, err := url.Parse(text)
		switch {
		case text == "":
			fault(name, "required.")
		case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http":
			fault(name, "not a URL such as https://serval.example.com.")
		case u.Scheme == "http" && !serval.IsLoopback(u.Hostname()):
			fault(name, "must be https (http is allowed on a loopback address only).")
		case !path && u.Path != "" && u.Path != "/":
			fault(name, "an origin has no path.")
		case !path && (u.Host != strings.ToLower(u.Host) || u.Port() == "443" && u.Scheme == "https" || u.Port() == "80" && u.Scheme == "http"):
			fault(name, "write it as browsers do: in lower case, and without :443 or :80.")
		}
	}
	origin("SERVAL_PUBLIC_URL", c.PublicURL, false)
	origin("SERVAL_OIDC_ISSUER", c.OIDC.Issuer, true)
	if c.OIDC.ClientID == "" {
		fault("SERVAL_OIDC_CLIENT_ID", "required.")
	}
	if c.OIDC.ClientSecret.Empty() {
		fault("SERVAL_OIDC_CLIENT_SECRET", "required.")
	}
	for name, secrets := range map[string][]serval.Secret{
		"SERVAL_SECRET": append([]serval.Secret{c.Secret}, c.OlderSecrets...), "SERVAL_EXTERNAL_ID_SECRET": {c.ExternalIDSecret},
	} {
		for i, s := range secrets {
			switch {
			case s.Empty() && i == 0:
				fault(name, "required.")
			case len(s.Reveal()) < minSecret:
				fault(name, "needs at least %d bytes; for example the output of: openssl rand -hex 32.", minSecret)
			case sameByte(s.Reveal()):
				fault(name, "is one character repeated; use the output of: openssl rand -hex 32.")
			}
		}
	}
	if !c.Secret.Empty() && c.Secret.Equal(c.ExternalIDSecret) {
		fault("SERVAL_EXTERNAL_ID_SECRET", "must be another secret than SERVAL_SECRET: that one is rotated, this one never.")
	}
	if (c.TLSCertFile == "") != (c.TLSKeyFile == "") {
		fault("SERVAL_TLS_CERT_FILE", "give SERVAL_TLS_KEY_FILE too, or neither.")
	}
	for name, endpoint := range map[string]string{"SERVAL_STS_ENDPOINT": c.STSEndpoint, "SERVAL_SIGNIN_ENDPOINT": c.SigninEndpoint} {
		if endpoint == "" {
			continue
		}
		if err := serval.CheckEndpoint(endpoint); err != nil {
			fault(name, "%s", err)
		}
	}
	if c.DatabaseURL.Empty() {
		fault("SERVAL_DATABASE_URL", "required.")
	} else if err := database.CheckURL(c.DatabaseURL); err != nil {
		fault("SERVAL_DATABASE_URL", "%s.", err)
	}
	if c.Workers != nil && !isServiceAccount(c.Workers.Subject) {
		fault("SERVAL_WORKER_SUBJECT", "not a service account such as system:serviceaccount:serval:serval-worker-sa.")
	}
	if c.TrustedAccount != "" {
		if _, err := serval.ParseAccountID(c.TrustedAccount); err != nil {
			fault("SERVAL_TRUSTED_ACCOUNT", "%s", err)
		}
	}
	for name, address := range map[string]string{"SERVAL_LISTEN": c.Listen, "SERVAL_ADMIN_LISTEN": c.AdminListen} {
		if _, _, err := net.SplitHostPort(address); err != nil {
			fault(name, "not an address such as :8080 or 127.0.0.1:8080.")
		}
	}
	if v := c.OIDC.EmailVerified; v != "" && v != "require" && v != "ignore" {
		fault("SERVAL_OIDC_EMAIL_VERIFIED", "require or ignore; by issuer where it is not set.")
	}
	if !c.OIDC.Offline && slices.Contains(c.OIDC.Scopes, "offline_access") {
		fault("SERVAL_OIDC_SCOPES", "leave offline_access out and set SERVAL_OIDC_OFFLINE=true, or nobody keeps the refresh token.")
	}
	if len(c.OIDC.Scopes) > 0 && !slices.Contains(c.OIDC.Scopes, "openid") {
		fault("SERVAL_OIDC_SCOPES", "openid is missing: without it there is no ID token.")
	}
	if c.DrainDelay < 0 || c.DrainDelay > time.Minute {
		fault("SERVAL_DRAIN_DELAY", "from 0s to 1m.")
	}
	if c.BlockFindings != "" {
		if _, err := trust.ParseSeverity(c.BlockFindings); err != nil {
			fault("SERVAL_BLOCK_FINDINGS", "high, medium or low; off where it is not set.")
		}
	}
	if c.VPCEndpoint != "" && !vpcEndpoint.MatchString(c.VPCEndpoint) {
		fault("SERVAL_VPC_ENDPOINT", "not a VPC endpoint's id such as vpce-0123456789abcdef0.")
	}
	if c.MintRate < 0 {
		fault("SERVAL_MINT_RATE", "at least 1.")
	}
	// A device is let in where it is near whoever types its code. Behind an ingress
	// that is not trusted everybody is near: at the ingress's address.
	if c.DeviceLogin && len(c.TrustedProxies) == 0 && c.TLSCertFile == "" && strings.HasPrefix(c.PublicURL, "https:") {
		fault("SERVAL_DEVICE_LOGIN", "set SERVAL_TRUSTED_PROXIES to the addresses of what ends TLS, or serve TLS here: "+
			"a device is let in from its own network only, and now everybody would seem to be at one address.")
	}
	if c.Lease != 0 && (c.Lease < serval.MinLease || c.Lease > serval.MaxLease || c.Lease%time.Minute != 0) {
		fault("SERVAL_LEASE_MINUTES", "from %d to %d, on for %d, or off.", serval.MinLease/time.Minute, serval.MaxLease/time.Minute, serval.DefaultLease/time.Minute)
	}
	if c.RequestExpiry < 0 {
		fault("SERVAL_REQUEST_EXPIRY", "must not be negative.")
	}
	return append(faults, c.Notices.faults()...)
}

// vpcEndpoint is what an id of a VPC endpoint may be.
var vpcEndpoint = regexp.MustCompile(`^vpce-[0-9a-f]{8,17}$`)

// serviceAccount is the user name of a service account, by its namespace and its
// name.
var serviceAccount = regexp.MustCompile(`^system:serviceaccount:([a-z0-9](?:[-a-z0-9]*[a-z0-9])?):([a-z0-9](?:[-.a-z0-9]*[a-z0-9])?)$`)

// isServiceAccount reports whether text may be the user name of one: a label of DNS
// and a name of it.
func isServiceAccount(text string) bool {
	m := serviceAccount.FindStringSubmatch(text)
	return m != nil && len(m[1]) <= 63 && len(m[2]) <= 253
}

func sameByte(text string) bool { return strings.Trim(text, text[:1]) == "" }

// Run runs a bridge until ctx ends, and then lets requests under way finish. It
// returns nil after an orderly end. Until the database is migrated and the keys
// are there every route but liveness answers 503.
func Run(ctx context.Context, c Config) (err error) {
	if faults := c.Faults(); len(faults) > 0 {
		return errors.New("settings:\n  " + strings.Join(faults, "\n  "))
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Trace == nil {
		c.Trace = trace.Off()
	}
	if c.DrainTime == 0 {
		c.DrainTime = DefaultDrainTime
	}

	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	ready := &gate{}
	probes := probe.New(registry)
	probes.Check("started", func(context.Context) error {
		if ready.handler.Load() == nil {
			return errors.New("the database and the configuration are being prepared")
		}
		return nil
	})

	if c.Level != nil {
		probes.Handle("GET /loglevel", c.Level)
		probes.Handle("PUT /loglevel", c.Level)
	}
	count := newTally(registry)
	if c.LogSink != nil {
		registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "serval_log_dropped_total", Help: "Lines of the log that were dropped because nobody read it.",
		}, func() float64 { return float64(c.LogSink.Dropped()) }))
	}

	cert, err := c.keyPair()
	if err != nil {
		return err
	}
	pages, err := c.listen(c.Listen, cert)
	if err != nil {
		return err
	}
	defer pages.Close() // the server closes it before; after an error nobody else does
	admin, err := net.Listen("tcp", c.AdminListen)
	if err != nil {
		return fmt.Errorf("listening for probes and metrics: %w", err)
	}
	defer admin.Close()
	if c.listening != nil {
		c.listening(pages.Addr(), admin.Addr())
	}

	// Servers end after everything that ctx ends, so they have their own.
	servers, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var group errgroup.Group
	server := c.server(c.Trace.Handler(ready))
	group.Go(func() error { return serve(servers, server, pages, c.DrainTime) })
	group.Go(func() error {
		// A scraper's connection that has asked nothing yet is no reason to end in disorder.
		if err := serve(servers, c.server(probes.Handler()), admin, time.Second); !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		return nil
	})
	defer func() {
		stop()
		err = errors.Join(err, group.Wait())
	}()

	c.OIDC.RedirectURL = strings.TrimSuffix(c.PublicURL, "/") + "/oidc/auth/callback"
	c.OIDC.Now, c.OIDC.Around = c.Now, c.Trace.Transport
	provider, err := login.New(c.OIDC)
	if err != nil {
		return fmt.Errorf("preparing sign-in: %w", err)
	}
	minter, err := awssts.New(awssts.Config{Region: c.STSRegion, Endpoint: c.STSEndpoint, SigninEndpoint: c.SigninEndpoint, Around: c.Trace.Transport, Now: c.Now})
	if err != nil {
		return fmt.Errorf("preparing STS: %w", err)
	}
	packed := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "serval_session_packed_policy_percent", Help: "How much of the room that AWS gives them the limits of a session took.",
		Buckets: []float64{10, 25, 50, 75, 90, 100},
	})
	registry.MustRegister(packed)
	m, err := newMessenger(&c)
	if err != nil {
		return fmt.Errorf("preparing notices: %w", err)
	}
	d, logins, plane, err := c.open(ctx, m.channels, count, provider, minter, packed)
	if err != nil {
		return err
	}
	defer func() {
		stop()
		err = errors.Join(err, group.Wait(), d.Store.Close()) // requests first
	}()
	// A full disk is told and does not fail: what can be read is served.
	probes.Report("database", func(ctx context.Context) (string, error) {
		if err := d.Store.Ping(ctx); err != nil || !d.Store.Full(ctx, c.Now()) {
			return "", err
		}
		return "the disk is full: reading works, and nothing can be changed or opened", nil
	})
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "serval_audit_head_seq", Help: "Number of the last row of the audit chain that this process wrote.",
	}, func() float64 {
		head, _ := d.Store.Head()
		return float64(head.Seq)
	}))
	heads := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "serval_audit_published_head", Help: "Number of the last row of the audit chain when it was last published, with that row's hash.",
	}, []string{"hash"})
	registry.MustRegister(heads)

	runs := workflow.New(d, workflow.Settings{
		Issuer: c.OIDC.Issuer, ClientID: c.OIDC.ClientID,
		ExternalID: serval.ExternalID(c.ExternalIDSecret, c.File.Team), TrustedAccount: c.TrustedAccount,
	})
	var workload func(context.Context, string, serval.Secret) (string, error)
	if c.Workers != nil {
		reviewer := tokenreview.New(*c.Workers)
		defer reviewer.Close()
		workload = c.recognise(reviewer)
	}
	file := newInForce(&c, plane, registry)
	probes.Report("configuration", file.report)
	if err := file.begin(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // told to stop before it had begun
		}
		return fmt.Errorf("putting the configuration into force: %w", err)
	}
	taking := intake.New(d)
	edge, err := web.New(web.Config{
		Logins: logins, Plane: plane, Intake: taking, Runs: runs, Login: provider, PublicURL: c.PublicURL, Secret: c.Secret, OlderSecrets: c.OlderSecrets,
		UpstreamTokens: file.upstreamTokens, Workload: workload, ProviderIssuer: providerIssuer(c.OIDC.Issuer), TrustedProxies: c.TrustedProxies, DeviceLogin: c.DeviceLogin,
		Networks: file.networks, Lease: c.Lease, NoSessionPolicy: c.NoSessionPolicy, ConsoleHosts: minter.ConsoleHosts(),
		Crowded: newCrowd().Full, Served: count.served, Log: c.Log, Version: c.Version, Now: c.Now,
	})
	if err != nil {
		return fmt.Errorf("preparing the pages: %w", err)
	}
	defer c.notify(ctx, d, plane, m, registry)()
	server.RegisterOnShutdown(edge.Drain)
	watch := newWatch(&c, d.Store, registry)
	secrets := newKeeper(&c, append(m.rotations,
		rotation{[]string{"SERVAL_OIDC_CLIENT_SECRET"}, func(_ context.Context, _, next *Config) error {
			provider.Rotate(next.OIDC.ClientSecret)
			return nil
		}},
		rotation{[]string{"SERVAL_DATABASE_URL"}, func(ctx context.Context, _, next *Config) error {
			return d.Store.Rotate(ctx, next.DatabaseURL)
		}},
		rekey(d.Store.Rekey, logins.Rekey, edge.Rekey),
		kept("SERVAL_EXTERNAL_ID_SECRET", "every trust policy depends on the one in use: put it back"),
	), registry)
	secrets.follow("upstream_tokens", file.tokensRead)
	if cert != nil {
		secrets.follow("SERVAL_TLS_CERT_FILE", cert.read)
	}
	probes.Report("secrets", secrets.report)
	ready.open(edge)
	c.Log.Info("serving", zap.String("url", c.PublicURL), zap.Stringer("listen", pages.Addr()),
		zap.Stringer("admin_listen", admin.Addr()), zap.String("version", c.Version))
	if c.Serving != nil {
		c.Serving(pages.Addr(), admin.Addr())
	}

	var background sync.WaitGroup
	background.Go(debug.FreeOSMemory) // what beginning took, and nothing else takes
	background.Go(func() { c.guard("walk", func() { watch.walk(ctx) }) })
	background.Go(func() { secrets.watch(ctx, &c) })
	background.Go(func() { c.keepRosters(ctx, plane) })
	c.tick(ctx, plane, taking, runs, file, heads)
	background.Wait()

	// Told to stop: not ready first, so that nobody is sent here any more.
	probes.SetDraining()
	c.Log.Info("stopping", zap.Duration("drain_delay", c.DrainDelay))
	time.Sleep(c.DrainDelay)
	return nil
}

// open opens the store and makes the rooms behind its door.
func (c *Config) open(ctx context.Context, channels []notify.Channel, count *tally, provider *login.Provider, minter control.Minter, packed prometheus.Observer) (*door.Door, *signin.Logins, *control.Plane, error) {
	s, err := store.Open(ctx, store.Config{URL: c.DatabaseURL, Chain: serval.NewChain(c.Secret, c.OlderSecrets...), Recorded: count.recorded})
	if err != nil {
		return nil, nil, nil, fmt.Errorf("opening the database: %w", err)
	}
	d := door.New(s, c.Log)
	d.Now, d.Channels = c.Now, notify.Names(channels)
	logins, plane, err := c.prepare(ctx, d, provider, minter, packed)
	if err != nil {
		return nil, nil, nil, errors.Join(err, s.Close())
	}
	return d, logins, plane, nil
}

func (c *Config) prepare(ctx context.Context, d *door.Door, provider *login.Provider, minter control.Minter, packed prometheus.Observer) (*signin.Logins, *control.Plane, error) {
	if err := d.Store.Migrate(ctx); err != nil {
		return nil, nil, err
	}
	if err := d.Store.CheckSecret(ctx); err != nil {
		return nil, nil, err
	}
	var refresh signin.Refresher
	if c.OIDC.Offline {
		refresh = web.Refresher(provider)
	}
	logins := signin.New(d, signin.Settings{Secret: c.Secret, OlderSecrets: c.OlderSecrets, Refresh: refresh, MintRate: c.MintRate})
	plane := control.New(d, logins, minter, control.Settings{
		Issuer: c.OIDC.Issuer, ClientID: c.OIDC.ClientID,
		RequestExpiry: c.RequestExpiry, MintRate: c.MintRate,
		EgressAddresses: texts(c.EgressCIDRs), VPCEndpoint: c.VPCEndpoint, BlockFindings: trust.Severity(c.BlockFindings),
		Networks: c.File.Networks, Lease: c.Lease, NoSessionPolicy: c.NoSessionPolicy,
		Probe:  newCauses(c, provider).find,
		Packed: func(percent int) { packed.Observe(float64(percent)) },
		Admins: c.File.Admins, Auditors: c.File.Auditors,
		ExternalID: serval.ExternalID(c.ExternalIDSecret, c.File.Team), TrustedAccount: c.TrustedAccount, File: c.FilePath,
	})
	// Without a file there is no team: nothing is kept, and where something is, a file
	// that went missing must not take its accounts and policies along.
	fingerprint := ""
	if c.File.Team != "" {
		fingerprint = serval.ExternalIDFingerprint(c.ExternalIDSecret, c.File.Team)
	}
	if err := plane.KeepExternalIDs(ctx, serval.System(), fingerprint, c.AcceptNewExternalIDs && fingerprint != ""); err != nil {
		return nil, nil, err
	}
	return logins, plane, nil
}

// providerIssuer returns whose OIDC provider accounts are asked for: the issuer's,
// unless AWS knows it by itself.
func providerIssuer(issuer string) string {
	if !trust.NeedsProvider(issuer) {
		return ""
	}
	return issuer
}

// recognise returns how the cluster's worker is recognised. Why somebody is not,
// the log has: an operator who took the wrong service account has to learn of it,
// and a stranger must not.
func (c *Config) recognise(reviewer *tokenreview.Reviewer) func(context.Context, string, serval.Secret) (string, error) {
	return func(ctx context.Context, from string, token serval.Secret) (string, error) {
		verdict, err := reviewer.Review(ctx, from, token)
		switch {
		case err != nil:
			return "", err
		case !verdict.OK:
			c.Log.Warn("a worker's token is not accepted", zap.String("why", verdict.Why))
			return "", nil
		}
		return c.Workers.Subject, nil
	}
}

// How often what is due is done, and how often the audit chain's head is
// published.
const (
	sweepEvery = time.Second
	headEvery  = 5 * time.Minute
)

// tick does what is due until ctx ends.
func (c *Config) tick(ctx context.Context, plane *control.Plane, taking *intake.Intake, runs *workflow.Runs, file *inForce, heads *prometheus.GaugeVec) {
	publish := func() {
		head, err := plane.PublishHead(ctx)
		if err != nil {
			if ctx.Err() == nil {
				c.Log.Error("the audit chain's head could not be published", zap.Error(err))
			}
			return
		}
		heads.Reset() // there is one
		heads.WithLabelValues(head.Hash).Set(float64(head.Seq))
	}
	c.guard("head", publish)
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	head := time.NewTicker(headEvery)
	defer head.Stop()
	reload := time.NewTicker(cmp.Or(c.lookEvery, lookEvery))
	defer reload.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-sweep.C:
			c.guard("sweep", func() {
				_, telling := taking.Tell(ctx)
				if err := errors.Join(plane.Sweep(ctx), runs.Sweep(ctx), telling); err != nil && ctx.Err() == nil {
					c.Log.Error("what is due could not all be done", zap.Error(err))
				}
			})
		case <-reload.C:
			c.guard("reload", func() { file.look(ctx) })
		case <-head.C:
			c.guard("head", publish)
		}
	}
}

// keepRosters has what people look through ready before they do, until ctx ends.
func (c *Config) keepRosters(ctx context.Context, plane *control.Plane) {
	ahead := func(read func(context.Context, serval.Principal) error) {
		c.guard("rosters", func() {
			if err := read(ctx, serval.System()); err != nil && ctx.Err() == nil {
				c.Log.Error("the roles could not be read ahead", zap.Error(err))
			}
		})
	}
	ahead(plane.WarmRosters)
	for ctx.Err() == nil {
		ahead(plane.KeepRosters)
		select {
		case <-ctx.Done():
		case <-time.After(sweepEvery):
		}
	}
}

// guard runs one turn of what goes on in the background. A panic in it ends that
// turn and not the bridge; the next comes as it would.
func (c *Config) guard(what string, turn func()) {
	defer func() {
		if p := recover(); p != nil {
			c.Log.Error("a turn in the background panicked", zap.String("turn", what), zap.Any("panic", p), zap.Stack("stack"))
		}
	}()
	turn()
}

// listen listens for pages and API, with TLS where there is a certificate.
func (c *Config) listen(address string, cert *keyPair) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	l = &capped{Listener: l, most: maxConnections}
	if cert == nil {
		return l, nil
	}
	return tls.NewListener(l, &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		// Asked for each connection, so that a renewed certificate counts.
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert.pair.Load(), nil },
	}), nil
}

// server returns a server with the bounds that keep one slow or greedy client
// from the others.
func (c *Config) server(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          log.New(quiet{c.Log}, "", 0),
	}
}

// quiet turns net/http's own complaints, mostly of clients that went away, into
// debug lines.
type quiet struct{ log *zap.Logger }

// Write logs one complaint.
func (q quiet) Write(p []byte) (int, error) {
	q.log.Debug("http", zap.String("text", strings.TrimSpace(string(p))))
	return len(p), nil
}

// serve serves until ctx ends, and then gives requests under way some time.
func serve(ctx context.Context, s *http.Server, l net.Listener, drain time.Duration) error {
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	err := s.Shutdown(last)
	if err != nil {
		err = errors.Join(fmt.Errorf("not every request ended in time: %w", err), s.Close())
	}
	<-failed // http.ErrServerClosed
	return err
}

// A gate answers 503 until it is opened.
type gate struct{ handler atomic.Pointer[http.Handler] }

func (g *gate) open(h http.Handler) { g.handler.Store(&h) }

// ServeHTTP hands over to what the gate was opened with.
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h := g.handler.Load(); h != nil {
		(*h).ServeHTTP(w, r)
		return
	}
	w.Header().Set("Retry-After", "5")
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusServiceUnavailable)
	fmt.Fprintln(w, `{"code":"unavailable","message":"Serval is starting. Try again in a few seconds.","detail":{}}`)
}

// texts returns prefixes as text.
func texts(prefixes []netip.Prefix) []string {
	list := make([]string, len(prefixes))
	for i, p := range prefixes {
		list[i] = p.String()
	}
	return list
}
