package trust

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A Severity says how much a finding matters.
type Severity string

// The severities.
const (
	High   Severity = "high"   // strangers, or people whom nobody granted anything, could assume the role
	Medium Severity = "medium" // somebody who is trusted could skip the bridge, or the role will not work
	Low    Severity = "low"    // worth tidying
)

// AtLeast reports whether s is as severe as t, or more.
func (s Severity) AtLeast(t Severity) bool { return s.rank() >= t.rank() }

func (s Severity) rank() int {
	switch s {
	case High:
		return 3
	case Medium:
		return 2
	case Low:
		return 1
	}
	return 0
}

// A Provider is ours, as the role's account sees it, and what our callers send.
type Provider struct {
	Issuer    string // https://...
	Audience  string // our client id
	Partition string // of the role
	AccountID string // of the role

	Addresses []string // the bridge's egress, as CIDR; empty where not known
	Endpoint  string   // the bridge's VPC endpoint for STS; empty where there is none

	WorkerSendsTags bool // the worker's session carries transitive tags
	TokenSendsTags  bool // the identity provider puts session tags into the token
}

// ParseSeverity reads the name of a severity.
func ParseSeverity(text string) (Severity, error) {
	if s := Severity(text); s.rank() > 0 {
		return s, nil
	}
	return "", refuse("a severity is high, medium or low, not %q.", clip(text, 40))
}

// Ours returns the provider that a context tells of, and whether it tells enough
// to look for findings: one issuer, one audience and the role.
func (c Context) Ours() (ours Provider, ok bool) {
	role, err := serval.ParseRoleARN(c.RoleARN)
	ours = Provider{Issuer: c.Issuer.text(), Audience: c.Audience.text(), Partition: role.Partition, AccountID: role.AccountID}
	ours.TokenSendsTags = c.PassesTags.sent
	return ours, err == nil && ours.Issuer != "" && ours.Audience != ""
}

// A Finding is something to know about a trust policy, whoever asks.
type Finding struct {
	ID        string   `json:"id"` // one of the Finding constants
	Severity  Severity `json:"severity"`
	Sentence  string   `json:"sentence"`
	Statement string   `json:"statement"`
	Mend      string   `json:"mend"` // one sentence
}

// The findings.
const (
	FindingPublic           = "public"              // everyone is trusted
	FindingNotPrincipal     = "not-principal"       // Allow with NotPrincipal
	FindingBypass           = "bypass"              // our own people could skip the bridge
	FindingOtherPrincipal   = "other-principal"     // somebody else is trusted too
	FindingExternalID       = "external-id-missing" // a whole account is trusted without an External ID
	FindingAudienceMissing  = "audience-missing"    // tokens for any client are accepted
	FindingAudienceWildcard = "audience-wildcard"   // tokens for many clients are accepted
	FindingAudienceLike     = "audience-like"       // StringLike where StringEquals would do
	FindingAudienceOther    = "audience-other"      // tokens for another client are accepted
	FindingTagsMissing      = "tags-missing"        // tags will be sent, and sts:TagSession is not allowed
	FindingDeletedPrincipal = "deleted-principal"   // a principal that is no more
	FindingForeignProvider  = "foreign-provider"    // a provider of another account
	FindingOtherIssuer      = "other-issuer"        // another authorization server of our host
	FindingWildcardAction   = "wildcard-action"     // more actions than are meant
)

// FindingIDs returns the ids of all findings.
func FindingIDs() []string {
	return []string{
		FindingPublic, FindingNotPrincipal, FindingBypass, FindingOtherPrincipal, FindingExternalID, FindingAudienceMissing,
		FindingAudienceWildcard, FindingAudienceLike, FindingAudienceOther, FindingTagsMissing, FindingDeletedPrincipal,
		FindingForeignProvider, FindingOtherIssuer, FindingWildcardAction,
	}
}

// More findings than these are not listed: nobody reads them.
const (
	maxFindingsOfStatement = 40
	maxFindings            = 200
)

// Findings returns what is to be known about the policy, the gravest first.
func (p *Policy) Findings(ours Provider) []Finding {
	l := lint{Provider: ours, policy: p, issuer: serval.ProviderName(ours.Issuer)}
	l.arn = serval.ProviderARN(cmp.Or(ours.Partition, "aws"), ours.AccountID, l.issuer)
	for i := range p.statements {
		if len(l.findings) > maxFindings {
			break
		}
		l.from = len(l.findings)
		l.s = &p.statements[i]
		l.statement()
	}
	slices.SortStableFunc(l.findings, func(a, b Finding) int { return cmp.Compare(b.Severity.rank(), a.Severity.rank()) })
	return l.findings
}

type lint struct {
	Provider
	policy   *Policy
	issuer   string
	arn      string // of our provider
	s        *statement
	from     int
	findings []Finding
}

func (l *lint) find(id string, severity Severity, mend, format string, args ...any) {
	if len(l.findings)-l.from >= maxFindingsOfStatement {
		return
	}
	sentence := fmt.Sprintf(format, args...)
	l.findings = append(l.findings, Finding{ID: id, Severity: severity, Sentence: strings.ToUpper(sentence[:1]) + sentence[1:],
		Statement: l.s.String(), Mend: mend})
}

// has reports whether the statement covers an action, in lower case.
func (s *statement) has(action string) bool {
	steps := maxSteps
	q := question{steps: &steps}
	return q.covers(s, action) != no
}

func (l *lint) statement() {
	s := l.s
	for i := range s.principals {
		if s.principals[i].arn.class == uniqueID {
			l.find(FindingDeletedPrincipal, Low,
				"Remove the id, or put the ARN of the principal that is meant in its place.",
				"%s names %s, which is what is left of a user or role that was deleted; it matches nobody, not even one created anew by that name.",
				s, clip(s.principals[i].id, 60))
		}
	}
	if !s.allow {
		return
	}
	web, assume, saml := s.has("sts:assumerolewithwebidentity"), s.has("sts:assumerole"), s.has("sts:assumerolewithsaml")
	if !web && !assume && !saml {
		return
	}
	if s.except {
		l.find(FindingNotPrincipal, High, "Name who is trusted in Principal.",
			"%s allows everyone except those it names.", s)
	}
	if s.all {
		l.public(`"*"`)
	}
	for i := range s.principals {
		l.principal(&s.principals[i], web, assume, saml)
	}
	if web && (s.all || s.except || l.isOurs()) {
		l.audience()
		l.bypass()
	}
	if s.others || slices.ContainsFunc(s.actions, isWild) {
		l.find(FindingWildcardAction, Low, "Name the actions that are needed.", "%s allows more actions than it names.", s)
	}
	l.tags(web, assume)
}

func (l *lint) isOurs() bool {
	return slices.ContainsFunc(l.s.principals, func(p principal) bool { return p.kind == "Federated" && p.id == l.arn })
}

func (l *lint) public(who string) {
	severity, but := High, ""
	for i := range l.s.conditions {
		c := &l.s.conditions[i]
		if !c.pins() || c.isAnybody() {
			continue
		}
		switch c.key.lower {
		case "aws:principalorgid", "aws:principalarn", "aws:principalaccount", "aws:principalorgpaths", "aws:sourcevpce":
			severity, but = Medium, ", held back by conditions only"
		}
	}
	l.find(FindingPublic, severity, "Name who is trusted in Principal.", "%s trusts everyone (%s)%s.", l.s, who, but)
}

// isAnybody reports whether a value of the condition is a pattern for organizations,
// accounts or endpoints, which others have too.
func (c *condition) isAnybody() bool {
	return slices.ContainsFunc(c.values, func(v string) bool {
		if strings.EqualFold(v, "${"+c.key.name+"}") {
			return true // what it is itself
		}
		switch {
		case c.test != testLike && c.test != testARN:
			return false
		case c.key.lower == "aws:principalorgpaths":
			v, _, _ = strings.Cut(v, "/")
		case c.key.lower == "aws:principalarn" && c.test == testARN:
			if parts := strings.SplitN(v, ":", 6); len(parts) == 6 {
				v = parts[4]
			}
		case c.key.lower == "aws:principalarn" && ofOneAccount.MatchString(v):
			return false
		}
		return strings.ContainsAny(v, "*?")
	})
}

// ofOneAccount is a pattern of StringLike for ARNs of one account: its stars, which go
// beyond colons, come behind that.
var ofOneAccount = regexp.MustCompile(`^arn:[a-z-]+:(iam|sts)::[0-9]{12}([:*?]|$)`)

// principal finds who is trusted beside our provider.
func (l *lint) principal(p *principal, web, assume, saml bool) {
	if l.s.except {
		return
	}
	name := quote(clip(p.id, 200))
	const remove = "Remove the principal, or give it a role of its own."
	switch p.kind {
	case "AWS":
		if !assume && p.arn.class != everyone {
			return
		}
		switch p.arn.class {
		case uniqueID:
			return
		case everyone:
			l.public(`"AWS": "*"`)
			return
		case account:
			severity, whose := Medium, "its own account"
			if p.arn.account != l.AccountID {
				severity, whose = High, "account "+p.arn.account
			}
			if !l.hasExternalID() {
				l.find(FindingExternalID, severity,
					`Add "StringEquals": {"sts:ExternalId": "..."}, or name the role that is meant in place of the account.`,
					"%s trusts whoever %s lets assume roles, without an External ID.", l.s, whose)
			}
		}
		l.find(FindingOtherPrincipal, Medium, remove, "%s also trusts %s, which needs no grant and leaves no trace here.", l.s, name)
	case "Service":
		if assume {
			l.find(FindingOtherPrincipal, Low, remove, "%s also trusts the AWS service %s.", l.s, name)
		}
	case "Federated":
		if !web && !saml {
			return
		}
		if p.id == "*" {
			l.public(`"Federated": "*"`)
			return
		}
		head, url, ok := strings.Cut(p.id, ":oidc-provider/")
		switch {
		case p.id == l.arn:
		case ok && head != strings.TrimSuffix(l.arn, ":oidc-provider/"+l.issuer):
			l.find(FindingForeignProvider, Medium, "Name the provider of the role's own account: "+l.arn+".",
				"%s trusts %s, a provider of another account, which AWS never accepts.", l.s, name)
		case ok && strings.EqualFold(host(url), host(l.issuer)):
			l.find(FindingOtherIssuer, Medium, "Name the issuer that people sign in with: "+l.arn+".",
				"%s trusts %s, another authorization server than the one people sign in with.", l.s, name)
		default:
			l.find(FindingOtherPrincipal, Medium, remove, "%s also trusts another identity provider, %s.", l.s, name)
		}
	default:
		l.find(FindingOtherPrincipal, Low, remove, "%s also trusts %s, a kind of principal that roles do not have.", l.s, name)
	}
}

// hasExternalID reports whether the statement asks for an External ID that one
// has to know.
func (l *lint) hasExternalID() bool {
	return slices.ContainsFunc(l.s.conditions, func(c condition) bool {
		return c.key.lower == "sts:externalid" && c.pins() && len(c.values) > 0 && !slices.ContainsFunc(c.values, func(v string) bool {
			return v == "" || c.test == testLike && strings.ContainsAny(v, "*?") || strings.Contains(v, "${")
		})
	})
}

// audience finds whose tokens are accepted (Amazon's advice: IAM User Guide,
// "Create a role for OpenID Connect federation").
func (l *lint) audience() {
	key := strings.ToLower(l.issuer + ":aud")
	mend := fmt.Sprintf(`Set "StringEquals": {%s: %s}.`, quote(l.issuer+":aud"), quote(cmp.Or(l.Audience, "...")))
	pinned := false
	for i := range l.s.conditions {
		c := &l.s.conditions[i]
		if c.key.lower != key || !c.pins() {
			continue
		}
		pinned = true
		opens := func(v string) bool {
			return c.test == testLike && strings.ContainsAny(v, "*?") || l.policy.variables && strings.Contains(v, "${")
		}
		j := slices.IndexFunc(c.values, func(v string) bool { return v != l.Audience })
		switch {
		case slices.ContainsFunc(c.values, opens):
			l.find(FindingAudienceWildcard, High, mend, "%s accepts tokens that were made for other clients: %s.", l.s, c)
		case j >= 0:
			l.find(FindingAudienceOther, Medium, mend, "%s accepts tokens that were made for another client, %s.", l.s, quote(clip(c.values[j], 100)))
		case c.test == testLike:
			l.find(FindingAudienceLike, Low, mend, "%s compares the audience with StringLike, where a star would open it to every client.", l.s)
		}
	}
	if !pinned {
		l.find(FindingAudienceMissing, High, mend, "%s does not ask for our audience, so a token made for any client of %s is accepted.", l.s, quote(clip(l.issuer, 100)))
	}
}

// bypass finds whether one who holds a token of ours could assume the role
// without the bridge: STS never asks it.
func (l *lint) bypass() {
	if l.isClosed() {
		return
	}
	var conditions []string
	if len(l.Addresses) > 0 {
		quoted := make([]string, len(l.Addresses))
		for i, a := range l.Addresses {
			quoted[i] = quote(a)
		}
		conditions = append(conditions, fmt.Sprintf(`"IpAddress": {"aws:SourceIp": [%s]}`, strings.Join(quoted, ", ")))
	}
	if l.Endpoint != "" {
		conditions = []string{fmt.Sprintf(`"StringEquals": {"aws:SourceVpce": %s}`, quote(l.Endpoint))}
	}
	mend := `Add the address the bridge's calls come from, "IpAddress": {"aws:SourceIp": "ADDRESS/32"}, or its VPC endpoint for STS, "StringEquals": {"aws:SourceVpce": "vpce-..."}. With SERVAL_EGRESS_CIDRS or SERVAL_VPC_ENDPOINT set, the bridge's own stands here.`
	if len(conditions) > 0 {
		mend = "Add where the bridge's calls come from: " + conditions[0] + "."
	}
	severity, who := Medium, "anyone with an ID token for our client"
	for i := range l.s.conditions {
		c := &l.s.conditions[i]
		if c.key.claim == "sub" && strings.EqualFold(c.key.provider, l.issuer) && c.pins() &&
			!slices.ContainsFunc(c.values, func(v string) bool {
				return c.test == testLike && strings.ContainsAny(v, "*?") || strings.Contains(v, "${")
			}) {
			severity, who = Low, "those whose subject it names"
		}
	}
	l.find(FindingBypass, severity, mend, "%s lets %s assume the role without the bridge, and so without a grant.", l.s, who)
}

// isClosed reports whether the statement, or a Deny, holds callers to a network.
func (l *lint) isClosed() bool {
	for i := range l.s.conditions {
		c := &l.s.conditions[i]
		if c.pins() && isNetwork(c) {
			return true
		}
	}
	for i := range l.policy.statements {
		s := &l.policy.statements[i]
		if s.allow || s.except || !s.has("sts:assumerolewithwebidentity") || len(s.conditions) != 1 {
			continue
		}
		if !s.all && !slices.ContainsFunc(s.principals, func(p principal) bool { return p.id == l.arn }) {
			continue
		}
		if c := &s.conditions[0]; c.negated && c.set == single && isNetwork(c) {
			return true
		}
	}
	return false
}

// isNetwork reports whether a condition tells networks apart.
func isNetwork(c *condition) bool {
	switch c.key.lower {
	case "aws:sourceip", "aws:sourcevpce", "aws:sourcevpc":
	default: // aws:VpcSourceIp is a private address, which anybody's VPC can have
		return false
	}
	return len(c.values) > 0 && !slices.ContainsFunc(c.values, func(v string) bool {
		return isWide(v) || c.test == testLike && strings.Trim(v, "*?") == "" || strings.Contains(v, "${")
	})
}

// The widest networks that hold callers to a place: no company has a wider one.
const (
	widestIPv4 = 8
	widestIPv6 = 16
)

// isWide reports whether a network is so wide that it closes nothing.
func isWide(text string) bool {
	p, err := netip.ParsePrefix(text)
	return err == nil && (p.Addr().Is4() && p.Bits() < widestIPv4 || p.Addr().Is6() && p.Bits() < widestIPv6)
}

// tags finds whether tags that will be sent are allowed to whom the statement
// trusts.
func (l *lint) tags(web, assume bool) {
	for i := range l.s.principals {
		p := &l.s.principals[i]
		sends := l.WorkerSendsTags && assume && p.kind == "AWS" && p.arn.class != uniqueID && p.arn.class != everyone ||
			l.TokenSendsTags && web && p.kind == "Federated" && p.id == l.arn
		if l.s.except || !sends || l.maySendTags(p) {
			continue
		}
		l.find(FindingTagsMissing, Medium, `Add "sts:TagSession" to its Action.`,
			"%s does not allow sts:TagSession to %s, and session tags will be sent: AWS refuses the whole call.", l.s, quote(clip(p.id, 200)))
	}
}

func (l *lint) maySendTags(p *principal) bool {
	for i := range l.policy.statements {
		s := &l.policy.statements[i]
		if !s.allow || s.except || !s.has("sts:tagsession") {
			continue
		}
		if s.all || slices.ContainsFunc(s.principals, func(other principal) bool {
			return other.kind == p.kind && (other.id == p.id || other.id == "*" || other.arn.class == account && other.arn.account == p.arn.account)
		}) {
			return true
		}
	}
	return false
}
