package bridge

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/awssts"
	"github.com/serval-bridge/serval-bridge/internal/checkup"
	"github.com/serval-bridge/serval-bridge/internal/login"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/tokenreview"
)

// A Finding is what one check of the doctor came to.
type Finding = checkup.Finding

// The states of a finding.
const (
	findingOK   = checkup.OK
	findingWarn = checkup.Warn
	findingFail = checkup.Fail
	findingSkip = checkup.Skip
)

// checkups are all checks, in the order of their answers. It is read only.
var checkups = checkup.List[Config]{
	{ID: "settings", Run: checkSettings},
	{ID: "secret", Run: checkSecrets},
	{ID: "certificate", Run: checkCertificate},
	{ID: "public_url", Run: checkPublicURL},
	{ID: "oidc", Run: checkProvider},
	{ID: "aws_issuer", Run: checkIssuerForAWS},
	{ID: "sts", Run: checkSTS},
	{ID: "signin", Run: checkSignin},
	{ID: "database", Run: checkDatabase},
	{ID: "cluster", Run: checkCluster},
	{ID: "serving", Run: checkServing},
}

// An Examination says what to look at, beside the settings.
type Examination struct {
	// Faults are what reading the settings has said already.
	Faults []string
	// Skip are ids of checks that are left out.
	Skip []string
	// Serving is an origin at which a bridge with these settings should serve, such
	// as that of its Service; empty: none is asked.
	Serving string
}

// Check refuses an examination that names a check there is none of, or what is
// no origin.
func (e Examination) Check() error {
	if err := checkups.CheckSkip(e.Skip); err != nil {
		return err
	}
	if u, err := url.Parse(e.Serving); e.Serving != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.Path != "" && u.Path != "/") {
		return serval.Refuse(serval.Invalid, "%q is not an origin such as http://serval-bridge.serval.svc.", e.Serving)
	}
	return nil
}

// Examine runs every check over settings, whether they could be used or not, and
// returns what it found.
func Examine(ctx context.Context, c Config, e Examination) []Finding {
	list := checkups
	var findings []Finding
	for _, fault := range e.Faults {
		findings = append(findings, Finding{ID: "settings", State: findingFail, Text: fault, Mend: "Set it right; serval-bridge serve refuses to start."})
	}
	if len(e.Faults) > 0 {
		list = list[1:] // the settings': said already
	}
	c.serving = e.Serving
	return append(findings, list.Run(ctx, c, e.Skip)...)
}

// found returns one finding, with its text made from format.
func found(id, state, mend, format string, args ...any) []Finding {
	return checkup.Found(id, state, mend, format, args...)
}

func checkSettings(_ context.Context, c Config) []Finding {
	var findings []Finding
	for _, fault := range c.Faults() {
		findings = append(findings, Finding{ID: "settings", State: findingFail, Text: fault, Mend: "Set it right; serval-bridge serve refuses to start."})
	}
	if len(findings) == 0 {
		return found("settings", findingOK, "", "The settings fit together.")
	}
	return findings
}

// guessable are what people write for a secret until they have one.
var guessable = []string{"changeme", "change-me", "password", "secret", "example", "serval", "test", "<"}

// checkSecrets looks for secrets that are long enough and no secret all the same.
func checkSecrets(_ context.Context, c Config) []Finding {
	const mend = "Use the output of: openssl rand -hex 32."
	var findings []Finding
	for _, s := range []struct {
		name   string
		secret serval.Secret
	}{{"SERVAL_SECRET", c.Secret}, {"SERVAL_EXTERNAL_ID_SECRET", c.ExternalIDSecret}} {
		if len(s.secret.Reveal()) < minSecret {
			continue // a fault of the settings
		}
		distinct := map[rune]bool{}
		for _, r := range s.secret.Reveal() {
			distinct[r] = true
		}
		text := strings.ToLower(s.secret.Reveal())
		switch {
		case len(distinct) < 10:
			findings = append(findings, Finding{ID: "secret", State: findingFail, Text: s.name + " has few different characters: it can be guessed.", Mend: mend})
		case slices.ContainsFunc(guessable, func(word string) bool { return strings.Contains(text, word) }):
			findings = append(findings, Finding{ID: "secret", State: findingFail, Text: s.name + " has a word in it that placeholders have: it can be guessed.", Mend: mend})
		}
	}
	if len(findings) == 0 {
		return found("secret", findingOK, "", "The secrets look random.")
	}
	return findings
}

// checkCertificate looks at the certificate that is served here, if one is.
func checkCertificate(_ context.Context, c Config) []Finding {
	const id = "certificate"
	if c.TLSCertFile == "" {
		return found(id, findingSkip, "", "TLS is not served here: it ends at an ingress before.")
	}
	pair, err := tls.LoadX509KeyPair(c.TLSCertFile, c.TLSKeyFile)
	if err != nil {
		return found(id, findingFail, "Check SERVAL_TLS_CERT_FILE and SERVAL_TLS_KEY_FILE.", "The certificate cannot be used: %v.", err)
	}
	leaf := pair.Leaf
	now := time.Now()
	if c.Now != nil {
		now = c.Now()
	}
	u, err := url.Parse(c.PublicURL)
	if err != nil || u.Hostname() == "" {
		return found(id, findingSkip, "", "Without a public URL it cannot be said whether the certificate fits.")
	}
	switch err := leaf.VerifyHostname(u.Hostname()); {
	case err != nil:
		return found(id, findingFail, "Use a certificate for "+u.Hostname()+".", "The certificate is not for the public URL: %v.", err)
	case now.After(leaf.NotAfter) || now.Before(leaf.NotBefore):
		return found(id, findingFail, "Renew it.", "The certificate holds from %s to %s.", leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339))
	case leaf.NotAfter.Sub(now) < 14*24*time.Hour:
		return found(id, findingWarn, "Renew it.", "The certificate ends on %s.", leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return found(id, findingOK, "", "The certificate is for %s and holds until %s.", u.Hostname(), leaf.NotAfter.UTC().Format(time.RFC3339))
}

// checkPublicURL looks the bridge's own name up.
func checkPublicURL(ctx context.Context, c Config) []Finding {
	const id = "public_url"
	u, err := url.Parse(c.PublicURL)
	if err != nil || u.Hostname() == "" {
		return found(id, findingSkip, "", "There is no public URL to look at.")
	}
	addresses, err := c.resolver.LookupHost(ctx, u.Hostname())
	if err != nil {
		return found(id, findingWarn, "Make a DNS record for it where the people are, for example in the VPN's zone.",
			"%s has no address here: %v.", u.Hostname(), err)
	}
	return found(id, findingOK, "", "%s is at %s.", u.Hostname(), strings.Join(addresses, ", "))
}

// checkProvider looks at the identity provider as a sign-in would.
func checkProvider(ctx context.Context, c Config) []Finding {
	c.OIDC.RedirectURL = strings.TrimSuffix(c.PublicURL, "/") + "/oidc/auth/callback"
	c.OIDC.Now = c.Now
	provider, err := login.New(c.OIDC)
	if err != nil {
		return found("oidc", findingSkip, "", "The settings do not suffice to ask the identity provider: %v.", err)
	}
	var findings []Finding
	for _, one := range provider.Examine(ctx) {
		findings = append(findings, Finding{ID: "oidc." + one.ID, State: one.State, Text: one.Text, Mend: one.Mend})
	}
	return findings
}

// checkIssuerForAWS says whether AWS could make an IAM OIDC provider of the
// issuer and reach it: STS reads its keys from the internet, and CreateOpenIDConnectProvider
// takes an https URL of at most 255 characters without port or query.
func checkIssuerForAWS(ctx context.Context, c Config) []Finding {
	const id = "aws_issuer"
	const mend = "Use an issuer with a public https name; STS fetches its keys from the internet. It is enough that the discovery document and the keys can be read."
	u, err := url.Parse(c.OIDC.Issuer)
	if err != nil || u.Hostname() == "" {
		return found(id, findingSkip, "", "There is no issuer to look at.")
	}
	host := u.Hostname()
	_, literal := netip.ParseAddr(host)
	switch {
	case u.Scheme != "https":
		return found(id, findingFail, mend, "AWS takes no issuer that is not https.")
	case u.Port() != "":
		return found(id, findingFail, mend, "AWS takes no issuer with a port.")
	case u.RawQuery != "" || len(c.OIDC.Issuer) > 255:
		return found(id, findingFail, mend, "AWS takes no issuer with a query, or of more than 255 characters.")
	case literal == nil:
		return found(id, findingFail, mend, "AWS checks the certificate of a name, and %s is an address.", host)
	case !strings.Contains(host, "."), slices.ContainsFunc([]string{".local", ".internal", ".lan", ".corp", ".home.arpa", ".test", ".localhost", ".svc"}, func(end string) bool { return strings.HasSuffix(host, end) }):
		return found(id, findingFail, mend, "%s is no public name, so AWS cannot find it.", host)
	}
	addresses, err := c.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return found(id, findingFail, mend, "%s has no address: %v.", host, err)
	}
	for _, a := range addresses {
		if a := a.Unmap(); a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() {
			return found(id, findingWarn, mend+" Where your DNS answers otherwise than the internet's, try from outside.",
				"%s is at %s here, which AWS cannot reach.", host, a)
		}
	}
	return found(id, findingOK, "", "%s has a public name and a public address.", c.OIDC.Issuer)
}

// checkSTS asks STS for nothing: any answer will do.
func checkSTS(ctx context.Context, c Config) []Finding {
	endpoint := c.stsEndpoint()
	mend := "Let the bridge reach " + endpoint + ": look at egress rules and network policies. AWS traffic uses no proxy. SERVAL_STS_REGION chooses another region."
	return checkup.Knock(ctx, "sts", endpoint, "SERVAL_STS_ENDPOINT and SERVAL_STS_REGION", mend)
}

// stsEndpoint returns where STS is asked, for the partition of the settings.
func (c Config) stsEndpoint() string {
	region := cmp.Or(c.STSRegion, serval.DefaultSTSRegion(serval.PartitionAWS))
	suffix := ""
	if strings.HasPrefix(region, "cn-") {
		suffix = ".cn"
	}
	return cmp.Or(c.STSEndpoint, "https://sts."+region+".amazonaws.com"+suffix)
}

// checkSignin asks the federation endpoint, which opens the console, for nothing.
func checkSignin(ctx context.Context, c Config) []Finding {
	const id = "signin"
	client, err := awssts.New(awssts.Config{Region: c.STSRegion, SigninEndpoint: c.SigninEndpoint})
	if err != nil {
		return found(id, findingFail, "Check SERVAL_SIGNIN_ENDPOINT and SERVAL_STS_REGION.", "The federation endpoint cannot be asked: %v", err)
	}
	endpoint := client.Signin()
	return checkup.Knock(ctx, id, endpoint, "SERVAL_SIGNIN_ENDPOINT",
		"Let the bridge reach "+endpoint+", or nobody opens the console from Serval: look at egress rules and network policies. AWS traffic uses no proxy.")
}

// checkDatabase opens the database beside whoever serves it.
func checkDatabase(ctx context.Context, c Config) []Finding {
	if c.DatabaseURL.Empty() || len(c.Secret.Reveal()) == 0 {
		return found("database", findingSkip, "", "The settings do not suffice to open the database.")
	}
	s, err := store.Open(ctx, store.Config{URL: c.DatabaseURL, Chain: serval.NewChain(c.Secret, c.OlderSecrets...), ReadOnly: true})
	if err != nil {
		return found("database", findingFail, "Check SERVAL_DATABASE_URL; a database that is new is made by: serval-bridge migrate.", "The database cannot be opened: %v.", err)
	}
	defer s.Close() // opened to read only
	if err := s.Ping(ctx); err != nil {
		return found("database", findingFail, "Check SERVAL_DATABASE_URL; an empty database is prepared by: serval-bridge migrate.", "The database does not answer: %v.", err)
	}
	findings := found("database", findingOK, "", "The database answers.")
	pending, err := s.Pending(ctx)
	switch {
	case err != nil:
		findings = append(findings, found("migration", findingWarn, "Run: serval-bridge migrate.", "Its version cannot be read: %v.", err)...)
	case pending:
		findings = append(findings, found("migration", findingWarn, "serval-bridge serve does it by itself at its start, or run: serval-bridge migrate.",
			"It is of an older version than this program.")...)
	default:
		findings = append(findings, found("migration", findingOK, "", "It is of this program's version.")...)
		findings = append(findings, checkNotices(ctx, s)...)
	}
	if err := s.CheckSecret(ctx); err != nil {
		findings = append(findings, found("database_secret", findingFail, "Put the secret that the database was written under behind a comma in SERVAL_SECRET.", "%v.", err)...)
	}
	return findings
}

// checkNotices looks for what reached nobody.
func checkNotices(ctx context.Context, s *store.Store) []Finding {
	var queues []store.NoticeQueue
	err := s.Read(ctx, func(v *store.View) (err error) {
		queues, err = v.NoticeQueues(time.Now())
		return err
	})
	if err != nil {
		return found("notices", findingWarn, "Look into the log.", "What people were told cannot be read: %v.", err)
	}
	var failed []string
	for _, q := range queues {
		if q.Failed > 0 {
			failed = append(failed, fmt.Sprintf("%d by %s", q.Failed, cmp.Or(q.Channel, "no channel")))
		}
	}
	if len(failed) > 0 {
		return found("notices", findingWarn, "GET /api/v1/notices lists them with the reason; mend that, and POST /api/v1/notices/{id}/retry. See docs/notices.md.",
			"Notices reached nobody: %s.", strings.Join(failed, ", "))
	}
	return found("notices", findingOK, "", "No notice has failed.")
}

// checkCluster asks the cluster about a token that is nobody's, to see whether it
// lets the bridge ask.
func checkCluster(ctx context.Context, c Config) []Finding {
	const id = "cluster"
	if c.Workers == nil {
		return found(id, findingSkip, "", "No worker's service account is to be recognised.")
	}
	reviewer := tokenreview.New(*c.Workers)
	defer reviewer.Close()
	claims, err := json.Marshal(map[string]any{"sub": c.Workers.Subject, "aud": c.Workers.Audience, "exp": time.Now().Add(time.Minute).Unix()})
	if err != nil {
		return found(id, findingSkip, "", "No question can be made for the cluster: %v.", err)
	}
	nobodys := serval.NewSecret("e30." + base64.RawURLEncoding.EncodeToString(claims) + ".AA")
	if _, err := reviewer.Review(ctx, "", nobodys); err != nil {
		return found(id, findingFail, "Let the service account of the bridge create TokenReviews (a ClusterRole, in the chart), and let the bridge reach the API server.",
			"The cluster does not say whose a token is: %v.", err)
	}
	return found(id, findingOK, "", "The cluster says whose a token is; the worker is %s.", c.Workers.Subject)
}

// checkServing asks the bridge that serves at an address who nobody is, by its
// public name, as an ingress would. Nothing secret is sent: with TLS it is enough
// that the certificate is the one that is configured.
func checkServing(ctx context.Context, c Config) []Finding {
	const id = "serving"
	const mend = "Look at the Deployment serval-bridge: kubectl get pods, kubectl logs, and /readyz on its admin port. A network policy has to let this pod reach port 8080."
	if c.serving == "" {
		return found(id, findingSkip, "", "No bridge that serves is to be asked.")
	}
	public, err := url.Parse(c.PublicURL)
	r, wrong := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(c.serving, "/")+"/api/v1/me", nil)
	if err != nil || public.Host == "" || wrong != nil {
		return found(id, findingSkip, "", "Without a public URL the bridge cannot be asked for it.")
	}
	r.Host = public.Host
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: public.Hostname()}
	if pair, err := tls.LoadX509KeyPair(c.TLSCertFile, c.TLSKeyFile); err == nil && pair.Leaf != nil {
		config.InsecureSkipVerify = true // the certificate itself is compared
		config.VerifyConnection = func(s tls.ConnectionState) error {
			if !s.PeerCertificates[0].Equal(pair.Leaf) {
				return errors.New("it serves another certificate than the one that is configured")
			}
			return nil
		}
	}
	client := checkup.Caller(config)
	defer client.CloseIdleConnections()
	answer, err := client.Do(r)
	if err != nil {
		return found(id, findingFail, mend, "%s does not answer: %v.", c.serving, errors.Unwrap(err))
	}
	defer answer.Body.Close()
	var said struct{ Code string }
	err = json.NewDecoder(io.LimitReader(answer.Body, 1<<16)).Decode(&said)
	switch {
	case err == nil && answer.StatusCode == http.StatusUnauthorized && said.Code == "unauthenticated":
		return found(id, findingOK, "", "The bridge serves at %s.", c.serving)
	case err == nil && answer.StatusCode == http.StatusServiceUnavailable && said.Code == "unavailable":
		return found(id, findingFail, mend, "The bridge at %s is not ready: it is starting, or its database is away.", c.serving)
	}
	return found(id, findingFail, "Look at what is behind the Service serval-bridge: kubectl get endpointslices. SERVAL_PUBLIC_URL has to be the same there and here.",
		"At %s something else answers than a bridge for %s, with status %d.", c.serving, c.PublicURL, answer.StatusCode)
}
