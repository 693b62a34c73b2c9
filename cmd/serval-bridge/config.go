package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"go.uber.org/zap/zapcore"

	"github.com/serval-bridge/serval-bridge/internal/bridge"
	"github.com/serval-bridge/serval-bridge/internal/login"
	"github.com/serval-bridge/serval-bridge/internal/notify"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/settings"
	"github.com/serval-bridge/serval-bridge/internal/tokenreview"
)

// Config is the manual of serval-bridge serve. Each field is an environment
// variable and a flag (SERVAL_LISTEN is --listen); a secret is no flag, and any
// variable NAME can be given as NAME_FILE, a file that holds the value.
type Config struct {
	Listen      string `env:"SERVAL_LISTEN" envDefault:":8080" usage:"address of pages and API"`
	AdminListen string `env:"SERVAL_ADMIN_LISTEN" envDefault:":9090" usage:"address of /livez, /readyz, /metrics and /loglevel"`
	PublicURL   string `env:"SERVAL_PUBLIC_URL" usage:"the bridge's own origin, https off loopback; the redirect URI is this + /oidc/auth/callback"`
	TLSCertFile string `env:"SERVAL_TLS_CERT_FILE" usage:"certificate (PEM), to serve TLS here and not at the ingress"`
	TLSKeyFile  string `env:"SERVAL_TLS_KEY_FILE" usage:"key (PEM) of the certificate"`

	OIDCIssuer        string        `env:"SERVAL_OIDC_ISSUER" usage:"the identity provider's issuer"`
	OIDCClientID      string        `env:"SERVAL_OIDC_CLIENT_ID" usage:"client id at the identity provider; the audience that AWS has to know"`
	OIDCClientSecret  serval.Secret `env:"SERVAL_OIDC_CLIENT_SECRET" usage:"client secret at the identity provider"`
	OIDCScopes        string        `env:"SERVAL_OIDC_SCOPES" envDefault:"openid email profile" usage:"scopes to ask for, separated by spaces"`
	OIDCEmailClaim    string        `env:"SERVAL_OIDC_EMAIL_CLAIM" envDefault:"email" usage:"claim that holds the email"`
	OIDCGroupsClaim   string        `env:"SERVAL_OIDC_GROUPS_CLAIM" envDefault:"groups" usage:"claim that holds the groups"`
	OIDCEmailVerified string        `env:"SERVAL_OIDC_EMAIL_VERIFIED" usage:"require or ignore an absent email_verified; by issuer unless set"`
	OIDCMaxAge        time.Duration `env:"SERVAL_OIDC_MAX_AGE" absent:"off" bare:"s" usage:"how old a sign-in at the identity provider may be, such as 8h, or in seconds as OpenID Connect has it; off unless set"`
	OIDCRequiredAMR   string        `env:"SERVAL_OIDC_REQUIRED_AMR" absent:"off" usage:"authentication methods that a sign-in must name, separated by spaces; off unless set"`
	OIDCOffline       bool          `env:"SERVAL_OIDC_OFFLINE" usage:"ask for a refresh token, and ask the identity provider again before each session"`
	OIDCHosts         string        `env:"SERVAL_OIDC_HOSTS" usage:"further hosts on which the identity provider's endpoints may be, separated by spaces"`

	RootSecret       serval.Secret `env:"SERVAL_SECRET" usage:"root secret, 32 bytes or more; after a comma an older one, which still opens"`
	ExternalIDSecret serval.Secret `env:"SERVAL_EXTERNAL_ID_SECRET" usage:"the key that External IDs are derived from, 32 bytes or more; never rotated"`
	DatabaseURL      serval.Secret `env:"SERVAL_DATABASE_URL" envDefault:"sqlite:///var/lib/serval/serval.db" usage:"sqlite:///path or postgres://..."`
	ConfigFile       string        `env:"SERVAL_CONFIG" usage:"the YAML file with accounts, access policies and admins"`

	// WorkerSubject and ServiceAccountDir are for a bridge in a cluster: it asks the
	// cluster, as its own service account, whose a worker's token is.
	WorkerSubject     string `env:"SERVAL_WORKER_SUBJECT" usage:"service account whose tokens are the worker's; unless set system:serviceaccount:<own namespace>:serval-worker-sa"`
	ServiceAccountDir string `env:"SERVAL_SERVICE_ACCOUNT_DIR" envDefault:"/var/run/secrets/kubernetes.io/serviceaccount" usage:"folder with the pod's service account: token, ca.crt and namespace"`

	TrustedAccount string        `env:"SERVAL_TRUSTED_ACCOUNT" usage:"account id that ingestion roles trust; shown where an account is connected"`
	STSRegion      string        `env:"SERVAL_STS_REGION" usage:"region of STS; by partition unless set"`
	STSEndpoint    string        `env:"SERVAL_STS_ENDPOINT" usage:"another STS than AWS's: https, or http on loopback"`
	SigninEndpoint string        `env:"SERVAL_SIGNIN_ENDPOINT" usage:"another federation endpoint than AWS's"`
	TrustedProxies string        `env:"SERVAL_TRUSTED_PROXIES" absent:"none" usage:"networks or addresses of proxies whose X-Forwarded-For is believed, separated by spaces or commas; none unless set"`
	RequestExpiry  time.Duration `env:"SERVAL_REQUEST_EXPIRY" envDefault:"168h" usage:"how long a request may stay undecided, or approved and unused"`
	MintRate       int           `env:"SERVAL_MINT_RATE" envDefault:"60" usage:"sessions that one person may open in a minute"`
	DeviceLogin    bool          `env:"SERVAL_DEVICE_LOGIN" usage:"let clients sign in by a code that is typed in a browser; whoever types one can be phished"`
	EgressCIDRs    string        `env:"SERVAL_EGRESS_CIDRS" usage:"networks from which AWS sees the bridge's calls, separated by spaces or commas; findings print them"`
	VPCEndpoint    string        `env:"SERVAL_VPC_ENDPOINT" usage:"the bridge's VPC endpoint for STS (vpce-...), in place of networks"`
	BlockFindings  string        `env:"SERVAL_BLOCK_FINDINGS" usage:"high, medium or low: no session is opened with a role whose trust policy has a finding as severe; off unless set"`
	LeaseMinutes   string        `env:"SERVAL_LEASE_MINUTES" envDefault:"off" usage:"how long one session lasts, 15 to 60 minutes (on: 30), after which the bridge is asked again; off: as long as the access"`
	SessionPolicy  string        `env:"SERVAL_SESSION_POLICY" envDefault:"on" usage:"off: send no session policy; a session then ends with its credentials alone and cannot be narrowed"`
	DrainDelay     time.Duration `env:"SERVAL_DRAIN_DELAY" envDefault:"5s" usage:"how long to go on serving after a signal to stop, so that balancers notice"`

	WebhookURL      serval.Secret `env:"SERVAL_WEBHOOK_URL" usage:"where signed webhooks go that tell of requests (docs/notices.md): https, or http on loopback"`
	WebhookSecret   serval.Secret `env:"SERVAL_WEBHOOK_SECRET" usage:"what they are signed with: whsec_ and base64 of 24 to 64 bytes"`
	SlackWebhookURL serval.Secret `env:"SERVAL_SLACK_WEBHOOK_URL" usage:"incoming webhook of Slack"`
	SlackAppToken   serval.Secret `env:"SERVAL_SLACK_APP_TOKEN" usage:"app-level token of Slack (xapp-...), to take decisions from there by Socket Mode"`
	SlackBotToken   serval.Secret `env:"SERVAL_SLACK_BOT_TOKEN" usage:"bot token of Slack (xoxb-...), to learn the email of whoever decides there"`
	SlackAPIURL     string        `env:"SERVAL_SLACK_API_URL" envDefault:"https://slack.com/api" usage:"Slack's API: https, or http on loopback"`
	SMTPURL         string        `env:"SERVAL_SMTP_URL" usage:"server that takes mail: smtp://host:587 (STARTTLS) or smtps://host:465"`
	SMTPFrom        string        `env:"SERVAL_SMTP_FROM" usage:"address that mail comes from"`
	SMTPUsername    string        `env:"SERVAL_SMTP_USERNAME" usage:"user at the mail server"`
	SMTPPassword    serval.Secret `env:"SERVAL_SMTP_PASSWORD" usage:"their password"`

	LogLevel string `env:"SERVAL_LOG_LEVEL" envDefault:"info" usage:"debug, info, warn or error; changed at run time by PUT /loglevel on the admin port"`

	outside error // why there is no cluster to ask about workers
}

// audience is whom a worker's service-account token has to be made out to.
const audience = "serval-bridge"

// read returns the settings as a bridge takes them, or every fault.
func (c *Config) read(environ []string, flags *pflag.FlagSet) (out bridge.Config, level zapcore.Level, faults []string) {
	faults = settings.Read(c, environ, flags)
	// A fault of reading says more than the check of what was not read.
	add := func(text string) {
		name, _, _ := strings.Cut(text, ":")
		if !slices.ContainsFunc(faults, func(f string) bool { return strings.HasPrefix(f, name+":") || strings.HasPrefix(f, name+"_FILE:") }) {
			faults = append(faults, text)
		}
	}
	root, older := bridge.SplitSecret(c.RootSecret)
	out = bridge.Config{
		Listen: c.Listen, AdminListen: c.AdminListen, PublicURL: c.PublicURL,
		TLSCertFile: c.TLSCertFile, TLSKeyFile: c.TLSKeyFile,
		OIDC: login.Config{
			Issuer: c.OIDCIssuer, ClientID: c.OIDCClientID, ClientSecret: c.OIDCClientSecret,
			Scopes: strings.Fields(c.OIDCScopes), EmailClaim: c.OIDCEmailClaim, GroupsClaim: c.OIDCGroupsClaim,
			EmailVerified: c.OIDCEmailVerified, MaxAge: c.OIDCMaxAge, RequiredAMR: strings.Fields(c.OIDCRequiredAMR),
			Hosts: strings.Fields(c.OIDCHosts), Offline: c.OIDCOffline,
		},
		Secret: root, OlderSecrets: older, ExternalIDSecret: c.ExternalIDSecret, DatabaseURL: c.DatabaseURL,
		SecretFiles:    settings.SecretFiles(c, environ, flags),
		TrustedAccount: c.TrustedAccount, STSRegion: c.STSRegion, STSEndpoint: c.STSEndpoint, SigninEndpoint: c.SigninEndpoint,
		RequestExpiry: c.RequestExpiry, MintRate: c.MintRate, DrainDelay: c.DrainDelay, DeviceLogin: c.DeviceLogin,
		VPCEndpoint: c.VPCEndpoint, BlockFindings: c.BlockFindings,
		Notices: bridge.Notices{
			Webhook: notify.WebhookConfig{URL: c.WebhookURL, Secret: c.WebhookSecret},
			Slack:   notify.SlackConfig{WebhookURL: c.SlackWebhookURL, AppToken: c.SlackAppToken, BotToken: c.SlackBotToken, APIURL: c.SlackAPIURL},
			Mail:    notify.MailConfig{URL: c.SMTPURL, From: c.SMTPFrom, Username: c.SMTPUsername, Password: c.SMTPPassword},
		},
	}
	for _, text := range strings.FieldsFunc(c.EgressCIDRs, func(r rune) bool { return r == ',' || r == ' ' }) {
		prefix, err := network(text)
		if err != nil {
			add(fmt.Sprintf("SERVAL_EGRESS_CIDRS: %q is not a network such as 203.0.113.7/32.", text))
			continue
		}
		out.EgressCIDRs = append(out.EgressCIDRs, prefix)
	}
	var err error
	if cluster, err := settings.FindCluster(environ, c.ServiceAccountDir); err == nil {
		out.Workers = &tokenreview.Config{
			Server: cluster.Server, TokenFile: cluster.TokenFile, CAFile: cluster.CAFile, Audience: audience,
			Subject: cmp.Or(c.WorkerSubject, "system:serviceaccount:"+cluster.Namespace+":serval-worker-sa"),
		}
	} else if c.outside = err; c.WorkerSubject != "" {
		add("SERVAL_WORKER_SUBJECT: " + err.Error() + ", so nobody can be asked whose a service account's token is. Leave it out, and use upstream_tokens.")
	}
	for _, text := range strings.FieldsFunc(c.TrustedProxies, func(r rune) bool { return r == ',' || r == ' ' }) {
		prefix, err := network(text)
		if err != nil {
			add(fmt.Sprintf("SERVAL_TRUSTED_PROXIES: %q is not a network such as 10.0.0.0/8.", text))
			continue
		}
		out.TrustedProxies = append(out.TrustedProxies, prefix)
	}
	if out.Lease, err = lease(c.LeaseMinutes); err != nil {
		add("SERVAL_LEASE_MINUTES: " + err.Error() + ".")
	}
	switch c.SessionPolicy {
	case "on":
	case "off":
		out.NoSessionPolicy = true
	default:
		add("SERVAL_SESSION_POLICY: on or off.")
	}
	level, err = zapcore.ParseLevel(c.LogLevel)
	if err != nil {
		add("SERVAL_LOG_LEVEL: one of debug, info, warn and error.")
	}
	for _, text := range out.Faults() {
		add(text)
	}
	if c.ConfigFile != "" {
		file, wrong := bridge.ReadFile(c.ConfigFile)
		for _, f := range wrong {
			faults = append(faults, "SERVAL_CONFIG: "+f.String())
		}
		out.File, out.FilePath = file, c.ConfigFile
	}
	slices.Sort(faults)
	return out, level, faults
}

// network reads a network, or an address, which is one of itself.
func network(text string) (netip.Prefix, error) {
	if address, err := netip.ParseAddr(text); err == nil && address.Zone() == "" {
		return netip.PrefixFrom(address, address.BitLen()), nil
	}
	return netip.ParsePrefix(text)
}

// lease reads how long one session lasts; zero is off.
func lease(text string) (time.Duration, error) {
	switch text {
	case "off":
		return 0, nil
	case "on":
		return serval.DefaultLease, nil
	}
	minutes, err := strconv.Atoi(text)
	if err != nil || minutes < int(serval.MinLease/time.Minute) || minutes > int(serval.MaxLease/time.Minute) {
		return 0, fmt.Errorf("from %d to %d, on for %d, or off", serval.MinLease/time.Minute, serval.MaxLease/time.Minute, serval.DefaultLease/time.Minute)
	}
	return time.Duration(minutes) * time.Minute, nil
}
