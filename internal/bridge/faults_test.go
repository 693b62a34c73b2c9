package bridge

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/login"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/tokenreview"
)

func good() Config {
	return Config{
		Listen: ":8080", AdminListen: ":9090",
		PublicURL:        "https://serval.example.com",
		OIDC:             login.Config{Issuer: "https://acme.example.com/oauth2/default", ClientID: "client", ClientSecret: serval.NewSecret("s")},
		Secret:           serval.NewSecret(strings.Repeat("ab", 16)),
		ExternalIDSecret: serval.NewSecret(strings.Repeat("cd", 16)),
		DatabaseURL:      serval.NewSecret("sqlite:///var/lib/serval/serval.db"),
	}
}

// S-46, S-48, S-109
func TestFaults(t *testing.T) {
	if faults := good().Faults(); len(faults) > 0 {
		t.Fatalf("faults of good settings: %q", faults)
	}
	long := strings.Repeat("ef", 16)
	for _, test := range []struct {
		name   string
		change func(*Config)
		want   string // beginning of the one fault; empty for none
	}{
		{"loopback over http", func(c *Config) { c.PublicURL = "http://127.0.0.1:8080" }, ""},
		{"localhost over http", func(c *Config) { c.PublicURL = "http://localhost:8080" }, ""},
		{"IPv6 loopback over http", func(c *Config) { c.PublicURL = "http://[::1]:8080" }, ""},
		{"http off loopback", func(c *Config) { c.PublicURL = "http://serval.example.com" }, "SERVAL_PUBLIC_URL: must be https"},
		{"a host that only begins like loopback", func(c *Config) { c.PublicURL = "http://127.0.0.1.example.com" }, "SERVAL_PUBLIC_URL: must be https"},
		{"no origin", func(c *Config) { c.PublicURL = "" }, "SERVAL_PUBLIC_URL: required"},
		{"an origin with a path", func(c *Config) { c.PublicURL += "/serval" }, "SERVAL_PUBLIC_URL: an origin has no path"},
		{"an origin with a query", func(c *Config) { c.PublicURL += "?a=b" }, "SERVAL_PUBLIC_URL: not a URL"},
		{"an origin with a user", func(c *Config) { c.PublicURL = "https://a@serval.example.com" }, "SERVAL_PUBLIC_URL: not a URL"},
		{"a host in capitals", func(c *Config) { c.PublicURL = "https://Serval.example.com" }, "SERVAL_PUBLIC_URL: write it as browsers do"},
		{"the default port", func(c *Config) { c.PublicURL = "https://serval.example.com:443" }, "SERVAL_PUBLIC_URL: write it as browsers do"},
		{"the default port of http", func(c *Config) { c.PublicURL = "http://127.0.0.1:80" }, "SERVAL_PUBLIC_URL: write it as browsers do"},
		{"another port", func(c *Config) { c.PublicURL = "https://serval.example.com:8443" }, ""},
		{"no port", func(c *Config) { c.Listen = "nonsense" }, "SERVAL_LISTEN: not an address"},
		{"no admin port", func(c *Config) { c.AdminListen = "" }, "SERVAL_ADMIN_LISTEN: not an address"},
		{"an email rule that is none", func(c *Config) { c.OIDC.EmailVerified = "maybe" }, "SERVAL_OIDC_EMAIL_VERIFIED: require or ignore"},
		{"an email rule", func(c *Config) { c.OIDC.EmailVerified = "require" }, ""},
		{"no scheme", func(c *Config) { c.PublicURL = "serval.example.com" }, "SERVAL_PUBLIC_URL: not a URL"},
		{"issuer over http", func(c *Config) { c.OIDC.Issuer = "http://acme.example.com" }, "SERVAL_OIDC_ISSUER: must be https"},
		{"issuer on loopback", func(c *Config) { c.OIDC.Issuer = "http://127.0.0.1:1" }, ""},
		{"no client", func(c *Config) { c.OIDC.ClientID = "" }, "SERVAL_OIDC_CLIENT_ID: required"},
		{"no client secret", func(c *Config) { c.OIDC.ClientSecret = serval.Secret{} }, "SERVAL_OIDC_CLIENT_SECRET: required"},
		{"no secret", func(c *Config) { c.Secret = serval.Secret{} }, "SERVAL_SECRET: required"},
		{"a short secret", func(c *Config) { c.Secret = serval.NewSecret(long[:31]) }, "SERVAL_SECRET: needs at least 32"},
		{"a repeated secret", func(c *Config) { c.Secret = serval.NewSecret(strings.Repeat("a", 64)) }, "SERVAL_SECRET: is one character"},
		{"a short older secret", func(c *Config) { c.OlderSecrets = []serval.Secret{serval.NewSecret("x")} }, "SERVAL_SECRET: needs at least 32"},
		{"a comma and nothing behind it", func(c *Config) { c.OlderSecrets = []serval.Secret{{}} }, "SERVAL_SECRET: needs at least 32"},
		{"a good older secret", func(c *Config) { c.OlderSecrets = []serval.Secret{serval.NewSecret(long)} }, ""},
		{"no External ID secret", func(c *Config) { c.ExternalIDSecret = serval.Secret{} }, "SERVAL_EXTERNAL_ID_SECRET: required"},
		{"one secret for both", func(c *Config) { c.ExternalIDSecret = c.Secret }, "SERVAL_EXTERNAL_ID_SECRET: must be another"},
		{"a certificate without its key", func(c *Config) { c.TLSCertFile = "cert.pem" }, "SERVAL_TLS_CERT_FILE: give"},
		{"a key without its certificate", func(c *Config) { c.TLSKeyFile = "key.pem" }, "SERVAL_TLS_CERT_FILE: give"},
		{"STS over http", func(c *Config) { c.STSEndpoint = "http://sts.example.com" }, "SERVAL_STS_ENDPOINT: must be https"},
		{"STS on loopback", func(c *Config) { c.STSEndpoint = "http://127.0.0.1:1" }, ""},
		{"sign-in over http", func(c *Config) { c.SigninEndpoint = "http://signin.example.com" }, "SERVAL_SIGNIN_ENDPOINT: must be https"},
		{"no database", func(c *Config) { c.DatabaseURL = serval.Secret{} }, "SERVAL_DATABASE_URL: required"},
		{"another database", func(c *Config) { c.DatabaseURL = serval.NewSecret("mysql://x") }, "SERVAL_DATABASE_URL: a database is given as"},
		{"a relative file", func(c *Config) { c.DatabaseURL = serval.NewSecret("sqlite://serval.db") }, "SERVAL_DATABASE_URL: a SQLite database"},
		{"a worker that is no service account", func(c *Config) { c.Workers = &tokenreview.Config{Subject: "serval-worker-sa"} }, "SERVAL_WORKER_SUBJECT:"},
		{"a worker with a pattern for a name", func(c *Config) { c.Workers = &tokenreview.Config{Subject: "system:serviceaccount:serval:*"} }, "SERVAL_WORKER_SUBJECT:"},
		{"a trusted account of letters", func(c *Config) { c.TrustedAccount = "prod" }, "SERVAL_TRUSTED_ACCOUNT:"},
		{"a severity that is none", func(c *Config) { c.BlockFindings = "critical" }, "SERVAL_BLOCK_FINDINGS:"},
		{"an endpoint that is none", func(c *Config) { c.VPCEndpoint = "vpc-1234" }, "SERVAL_VPC_ENDPOINT:"},
		{"a negative rate", func(c *Config) { c.MintRate = -1 }, "SERVAL_MINT_RATE:"},
		{"device login behind who knows what", func(c *Config) { c.DeviceLogin = true }, "SERVAL_DEVICE_LOGIN: set SERVAL_TRUSTED_PROXIES"}, // S-63
		{"device login behind an ingress", func(c *Config) {
			c.DeviceLogin, c.TrustedProxies = true, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
		}, ""},
		{"device login with TLS here", func(c *Config) { c.DeviceLogin, c.TLSCertFile, c.TLSKeyFile = true, "cert.pem", "key.pem" }, ""},
		{"device login on loopback", func(c *Config) { c.DeviceLogin, c.PublicURL = true, "http://127.0.0.1:8080" }, ""},
		{"a lease", func(c *Config) { c.Lease = 15 * time.Minute }, ""},
		{"the longest lease", func(c *Config) { c.Lease = time.Hour }, ""},
		{"a short lease", func(c *Config) { c.Lease = 14 * time.Minute }, "SERVAL_LEASE_MINUTES: from 15 to 60, on for 30, or off."},
		{"a long lease", func(c *Config) { c.Lease = 61 * time.Minute }, "SERVAL_LEASE_MINUTES:"},
		{"a lease of seconds", func(c *Config) { c.Lease = 1000 * time.Second }, "SERVAL_LEASE_MINUTES:"},
		{"a negative lease", func(c *Config) { c.Lease = -time.Minute }, "SERVAL_LEASE_MINUTES:"},
		{"a negative expiry", func(c *Config) { c.RequestExpiry = -1 }, "SERVAL_REQUEST_EXPIRY:"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := good()
			test.change(&c)
			faults := c.Faults()
			if test.want == "" {
				if len(faults) > 0 {
					t.Errorf("faults: %q, want none", faults)
				}
				return
			}
			if len(faults) != 1 || !slices.ContainsFunc(faults, func(f string) bool { return strings.HasPrefix(f, test.want) }) {
				t.Errorf("faults: %q, want one that begins with %q", faults, test.want)
			}
			if err := Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Run: %v, want it to refuse with %q", err, test.want)
			}
		})
	}
}

// The user name of a service account has a label of DNS for the namespace and a name
// of it for the account.
func TestIsServiceAccount(t *testing.T) {
	const prefix = "system:serviceaccount:"
	long := func(n int) string { return strings.Repeat("a", n) }
	for text, want := range map[string]bool{
		prefix + "serval:serval-worker-sa": true, prefix + long(63) + ":" + long(253): true, prefix + "a:b.c": true,
		prefix + long(64) + ":a": false, prefix + "a:" + long(254): false, prefix + "a.b:c": false, prefix + "-a:b": false, prefix + "a:b-": false,
		prefix + ":a": false, prefix + "a:": false, prefix + "a:b:c": false, "x" + prefix + "a:b": false,
	} {
		if got := isServiceAccount(text); got != want {
			t.Errorf("%.80s: %t, want %t", text, got, want)
		}
	}
}
