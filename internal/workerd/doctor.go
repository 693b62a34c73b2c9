package workerd

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/awsiam"
	"github.com/serval-bridge/serval-bridge/internal/awsorg"
	"github.com/serval-bridge/serval-bridge/internal/checkup"
	"github.com/serval-bridge/serval-bridge/internal/lease"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/upstream"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// checkups are all checks of the worker's doctor, in the order of their answers.
// It is read only.
var checkups = checkup.List[*patient]{
	{ID: "settings", Run: checkSettings},
	{ID: "dns", Run: checkDNS},
	{ID: "sts", Run: checkSTS},
	{ID: "iam", Run: checkIAM},
	{ID: "credentials", Run: checkCredentials},
	{ID: "clock", Run: checkClock},
	{ID: "upstream", Run: checkUpstream},
	{ID: "lease", Run: checkLease},
	{ID: "account", Run: checkAccount},
	{ID: "session_tags", Run: checkSessionTags},
}

// An Examination says what to look at, beside the settings.
type Examination struct {
	// Faults are what reading the settings has said already.
	Faults []string
	// Skip are ids of checks that are left out.
	Skip []string
	// Account is the id of the account to check; empty: the first few that the
	// checkUpstream gives.
	Account string
}

// Check refuses an examination that names a check there is none of, or what is
// no account.
func (e Examination) Check() error {
	if e.Account != "" {
		if _, err := serval.ParseAccountID(e.Account); err != nil {
			return err
		}
	}
	return checkups.CheckSkip(e.Skip)
}

// Examine looks at settings, whether they could be used or not, and at what they
// lead to, from where the worker runs, and returns what it found. It changes
// nothing, also in AWS.
func Examine(ctx context.Context, c Config, e Examination) []checkup.Finding {
	p := &patient{config: c, asked: e}
	defer p.close()
	return checkups.Run(ctx, p, e.Skip)
}

// A patient is a worker under examination. What one check needs of another's is
// asked for once, by whichever comes first.
type patient struct {
	config Config
	asked  Examination

	resolver *net.Resolver // nil: the machine's; set by tests only

	once struct{ reader, identity, accounts, checks sync.Once }

	reader    *awsiam.Reader
	readerErr error

	identity    awsiam.Explanation
	identityErr error

	accounts    wire.WorkerAccounts
	accountsErr error

	checks []serval.Check
}

func (p *patient) close() {
	if p.reader != nil {
		p.reader.Close()
	}
}

// aws returns the reader of accounts.
func (p *patient) aws(ctx context.Context) (*awsiam.Reader, error) {
	p.once.reader.Do(func() { p.reader, p.readerErr = awsiam.New(ctx, p.config.AWS) })
	return p.reader, p.readerErr
}

// whoami asks AWS who the worker is.
func (p *patient) whoami(ctx context.Context) (awsiam.Explanation, error) {
	p.once.identity.Do(func() {
		r, err := p.aws(ctx)
		if err != nil {
			p.identityErr = err
			return
		}
		p.identity, p.identityErr = r.Explain(ctx, serval.Account{})
	})
	return p.identity, p.identityErr
}

// given asks the upstream for the worker's accounts.
func (p *patient) given(ctx context.Context) (wire.WorkerAccounts, error) {
	p.once.accounts.Do(func() {
		client, err := upstream.New(p.config.Upstream)
		if err != nil {
			p.accountsErr = err
			return
		}
		defer client.Close()
		p.accounts, p.accountsErr = client.Accounts(ctx, "", 0)
	})
	return p.accounts, p.accountsErr
}

func checkSettings(_ context.Context, p *patient) (findings []checkup.Finding) {
	for _, fault := range p.asked.Faults {
		findings = append(findings, checkup.Finding{ID: "settings", State: checkup.Fail, Text: fault, Mend: "Set it right; serval-worker run refuses to start."})
	}
	if findings == nil {
		return checkup.Found("settings", checkup.OK, "", "The settings fit together.")
	}
	return findings
}

// endpoints returns where STS and IAM are. Which partition the worker is in is
// told by its settings; AWS itself is asked later.
func (p *patient) endpoints() (sts, iam string) {
	c, domain, partition := p.config.AWS, "amazonaws.com", serval.PartitionAWS
	if role, err := serval.ParseRoleARN(c.BaseRoleARN); err == nil {
		partition = role.Partition
	}
	region := cmp.Or(c.STSRegion, serval.DefaultSTSRegion(partition))
	iam = "iam"
	switch {
	case strings.HasPrefix(region, "cn-"):
		domain, iam = domain+".cn", "iam.cn-north-1"
	case strings.HasPrefix(region, "us-gov-"):
		iam = "iam.us-gov"
	}
	return cmp.Or(c.STSEndpoint, "https://sts."+region+"."+domain), cmp.Or(c.IAMEndpoint, "https://"+iam+"."+domain)
}

// checkDNS looks up every name that the worker goes to.
func checkDNS(ctx context.Context, p *patient) (findings []checkup.Finding) {
	sts, iam := p.endpoints()
	var names []string
	for _, endpoint := range []string{sts, iam, p.config.Upstream.BaseURL} {
		u, err := url.Parse(endpoint)
		if err != nil || u.Hostname() == "" || slices.Contains(names, u.Hostname()) {
			continue
		}
		if _, err := netip.ParseAddr(u.Hostname()); err == nil {
			continue // an address already
		}
		names = append(names, u.Hostname())
		if _, err := p.resolver.LookupHost(ctx, u.Hostname()); err != nil {
			findings = append(findings, checkup.Finding{ID: "dns", State: checkup.Fail, Text: fmt.Sprintf("%s has no address here: %v.", u.Hostname(), err),
				Mend: "Let the worker ask the cluster's DNS (UDP and TCP port 53 in network policies), and look whether the name is right."})
		}
	}
	if findings != nil {
		return findings
	}
	if names == nil {
		return checkup.Found("dns", checkup.Skip, "", "There is no name to look up.")
	}
	return checkup.Found("dns", checkup.OK, "", "%s: each has an address.", strings.Join(names, ", "))
}

func checkSTS(ctx context.Context, p *patient) []checkup.Finding {
	endpoint, _ := p.endpoints()
	return checkup.Knock(ctx, "sts", endpoint, "SERVAL_STS_ENDPOINT and SERVAL_STS_REGION",
		"Let the worker reach "+endpoint+": look at egress rules and network policies. AWS traffic uses no proxy unless an account says so. SERVAL_STS_REGION chooses another region.")
}

func checkIAM(ctx context.Context, p *patient) []checkup.Finding {
	_, endpoint := p.endpoints()
	return checkup.Knock(ctx, "iam", endpoint, "SERVAL_IAM_ENDPOINT",
		"Let the worker reach "+endpoint+": look at egress rules and network policies. AWS traffic uses no proxy unless an account says so.")
}

// checkCredentials says whose the worker's are, and how it came by them.
func checkCredentials(ctx context.Context, p *patient) []checkup.Finding {
	const id = "credentials"
	x, err := p.whoami(ctx)
	switch f, failed := errors.AsType[*awsiam.Failure](err); {
	case failed:
		return checkup.Found(id, checkup.Fail, f.Cause, "AWS does not say who this worker is (credentials: %s, because %s).", cmp.Or(x.Source, "none"), cmp.Or(x.Why, "none were found"))
	case err != nil:
		return checkup.Found(id, checkup.Fail, "Look at the settings of AWS and at the shared config files.", "AWS cannot be asked who this worker is: %v.", err)
	case !x.Temporary:
		return checkup.Found(id, checkup.Warn, "Use EKS Pod Identity (terraform/worker has the association), or IRSA: their credentials end by themselves.",
			"The worker is %s, by keys that do not end (%s: %s).", x.ARN, x.Source, x.Why)
	}
	return checkup.Found(id, checkup.OK, "", "The worker is %s, by %s (%s); trust policies must name account %s.", x.ARN, x.Source, x.Why, x.AccountID)
}

// mostSkew is how far AWS's clock may be off before the doctor says so; AWS
// refuses signatures at five minutes.
const mostSkew = time.Minute

// checkClock compares with AWS's.
func checkClock(ctx context.Context, p *patient) []checkup.Finding {
	const id, mend = "clock", "Set the clock of the node (chrony, systemd-timesyncd)."
	_, err := p.whoami(ctx)
	if p.reader == nil {
		return checkup.Found(id, checkup.Skip, "", "AWS was not asked.")
	}
	skew := p.reader.Skew()
	switch {
	case skew == 0 && err != nil:
		return checkup.Found(id, checkup.Skip, "", "AWS did not answer, so its clock is not known.")
	case skew.Abs() >= 4*time.Minute:
		return checkup.Found(id, checkup.Fail, mend, "The clock here is %s off AWS's, which refuses signatures that are five minutes off.", skew.Abs())
	case skew.Abs() > mostSkew:
		return checkup.Found(id, checkup.Warn, mend, "The clock here is %s off AWS's.", skew.Abs())
	}
	return checkup.Found(id, checkup.OK, "", "The clock here is AWS's, to a minute.")
}

// checkUpstream asks for the worker's accounts, as whom its token is.
func checkUpstream(ctx context.Context, p *patient) []checkup.Finding {
	const id = "upstream"
	if p.config.Upstream.BaseURL == "" {
		return checkup.Found(id, checkup.Skip, "", "There is no upstream to ask.")
	}
	bearer := p.bearer()
	given, err := p.given(ctx)
	r, refused := errors.AsType[*serval.Refusal](err)
	switch {
	case refused && (r.Kind == serval.Unauthenticated || r.Kind == serval.Denied):
		return checkup.Found(id, checkup.Fail, "The bridge accepts the service account that SERVAL_WORKER_SUBJECT names there, with a token projected for the audience serval-bridge, "+
			"and the upstream_tokens of its configuration file. Its own doctor (check cluster) says whether it can ask whose a token is.",
			"%s refuses the token of %s: %s", p.config.Upstream.BaseURL, bearer, r.Reason)
	case err != nil:
		return checkup.Found(id, checkup.Fail, "Look at SERVAL_UPSTREAM_URL and SERVAL_UPSTREAM_CA_FILE, at the bridge's Service, and at network policies: the worker must reach it.",
			"%s does not answer as an upstream does: %v.", p.config.Upstream.BaseURL, err)
	case len(given.Accounts) == 0:
		return checkup.Found(id, checkup.Warn, "Connect an account at the bridge; a token in upstream_tokens has the accounts that are bound to it there.",
			"%s answers %s, and has no accounts for it.", p.config.Upstream.BaseURL, bearer)
	}
	return checkup.Found(id, checkup.OK, "", "%s answers %s, and has %d accounts for it.", p.config.Upstream.BaseURL, bearer, len(given.Accounts))
}

// bearer says whose the upstream's token is, as far as the token itself says.
func (p *patient) bearer() string {
	if p.config.Upstream.Token == nil {
		return "nobody"
	}
	token, err := p.config.Upstream.Token()
	if err != nil {
		return "nobody, since it cannot be read"
	}
	var claims struct {
		Subject  string          `json:"sub"`
		Audience json.RawMessage `json:"aud"`
		Expires  int64           `json:"exp"`
	}
	parts := strings.Split(token.Reveal(), ".")
	if len(parts) != 3 {
		return "a token that does not say whose it is"
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(payload, &claims) != nil || claims.Subject == "" {
		return "a token that does not say whose it is"
	}
	whose := fmt.Sprintf("%s (audience %s", serval.Cut(claims.Subject, 200), serval.Cut(string(claims.Audience), 200))
	if claims.Expires != 0 {
		whose += ", until " + time.Unix(claims.Expires, 0).UTC().Format(time.RFC3339)
	}
	return whose + ")"
}

// checkLease has the API server say whether the worker could lead.
func checkLease(ctx context.Context, p *patient) []checkup.Finding {
	const id = "lease"
	c := p.config.Lease
	switch {
	case c == nil:
		return checkup.Found(id, checkup.Skip, "", "The worker works without a Lease.")
	case c.Server == "" || c.Namespace == "":
		return checkup.Found(id, checkup.Skip, "", "The settings do not suffice to ask the cluster.")
	}
	holder, err := lease.Try(ctx, *c)
	if err != nil {
		return checkup.Found(id, checkup.Fail, "Give the worker's service account a Role with get, create and update on leases (coordination.k8s.io) in its namespace, as the chart does, "+
			"and let the worker reach the API server.", "%v.", err)
	}
	return checkup.Found(id, checkup.OK, "", "The Lease %s/%s may be read and written; it is held by %s.", c.Namespace, c.Name, cmp.Or(holder, "nobody"))
}

// mostChecked is how many accounts are checked where none is named.
const mostChecked = 3

// inspected checks the connection to a few accounts. It returns nil where there
// are none, or the upstream does not tell.
func (p *patient) inspected(ctx context.Context) []serval.Check {
	p.once.checks.Do(func() {
		if slices.Contains(p.asked.Skip, "account") {
			return
		}
		given, err := p.given(ctx)
		r, wrong := p.aws(ctx)
		if err != nil || wrong != nil {
			return
		}
		organization, err := awsorg.New(p.config.Organization)
		if err != nil {
			return
		}
		for _, a := range given.Accounts {
			if p.asked.Account != "" && a.ID != p.asked.Account || len(p.checks) == mostChecked {
				continue
			}
			c, err := Performer{AWS: r, Organization: organization}.Check(ctx, serval.CheckConnection, a.Account())
			if err != nil {
				return
			}
			p.checks = append(p.checks, c)
		}
	})
	return p.checks
}

// checkAccount checks the connection to accounts as "Test AWS Connection" does.
func checkAccount(ctx context.Context, p *patient) (findings []checkup.Finding) {
	const id = "account"
	for _, c := range p.inspected(ctx) {
		if c.Passed && len(c.Findings) == 0 {
			findings = append(findings, checkup.Found(id, checkup.OK, "", "%s: %s.", c.AccountID, c.Text)...)
			continue
		}
		state := checkup.Warn
		if !c.Passed {
			state = checkup.Fail
		}
		var why []string
		for _, f := range c.Findings {
			why = append(why, f.Text)
		}
		mend := fmt.Sprintf("What to paste is said by serval-worker check, and by %s on the account's page.", serval.CheckConnection)
		findings = append(findings, checkup.Finding{ID: id, State: state, Text: fmt.Sprintf("%s: %s", c.AccountID, c.Text), Mend: strings.Join(append(why, mend), " ")})
	}
	if findings != nil {
		return findings
	}
	if _, err := p.given(ctx); err == nil && p.asked.Account != "" {
		return checkup.Found(id, checkup.Fail, "Connect it at the bridge, or bind it to this worker's upstream token.", "The upstream has no account %s for this worker.", p.asked.Account)
	}
	return checkup.Found(id, checkup.Skip, "", "There is no account to check.")
}

// checkSessionTags says whether the tags that Pod Identity gives a session get in the
// way. AWS tells nobody which tags a session has, so the accounts' answers do.
func checkSessionTags(ctx context.Context, p *patient) []checkup.Finding {
	const id = "session_tags"
	const mend = "Allow sts:TagSession beside sts:AssumeRole in the trust policy of the ingestion role and in the worker's own policy, or turn the tags off with disableSessionTags on the Pod Identity association."
	x, err := p.whoami(ctx)
	checks := p.inspected(ctx)
	for _, c := range checks {
		for _, f := range c.Findings {
			if slices.ContainsFunc(f.Causes, func(c serval.Cause) bool {
				return c == serval.CauseTagSessionTrust || c == serval.CauseTagSessionWorker || c == serval.CausePackedPolicy
			}) {
				return checkup.Found(id, checkup.Fail, mend, "The session tags of EKS Pod Identity keep the worker out of account %s: %s", c.AccountID, f.Text)
			}
		}
	}
	switch {
	case err != nil:
		return checkup.Found(id, checkup.Skip, "", "Without credentials there are no session tags.")
	case slices.ContainsFunc(checks, func(c serval.Check) bool { return c.Passed }):
		return checkup.Found(id, checkup.OK, "", "Session tags, if there are any, keep the worker out of no account that was checked.")
	case strings.Contains(x.Source, "Pod Identity"):
		return checkup.Found(id, checkup.Warn, mend, "EKS Pod Identity attaches session tags, and no account was reached that shows whether they are allowed.")
	}
	return checkup.Found(id, checkup.Skip, "", "No account was reached, and %s attaches no session tags.", x.Source)
}
