package serval

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A Session is one set of temporary AWS credentials, opened under a grant. Its
// credentials are not part of it: they pass through once and rest nowhere.
type Session struct {
	ID        string
	RequestID string
	PersonID  string
	Kind      SessionKind
	State     SessionState
	Role      RoleKey

	SessionName   string
	Seconds       int       // DurationSeconds, as asked
	StartedAt     time.Time // of the intent
	FinishedAt    time.Time // of the outcome
	AccessKeyID   string
	AssumedRoleID string
	Expiration    time.Time // STS's
	EndsAt        time.Time // the earlier of Expiration and the grant's end
	Error         string    // why it failed
	Renews        string    // id of the lease that this one goes on from; empty for none
}

// IsLive reports whether the session's credentials were handed over and still
// work at now.
func (s Session) IsLive(now time.Time) bool {
	return s.State == SessionIssued && now.Before(s.EndsAt)
}

// IssuedAt returns when STS issued the session's credentials, by AWS's clock. It
// is the session's aws:TokenIssueTime.
func (s Session) IssuedAt() time.Time {
	return s.Expiration.Add(-time.Duration(s.Seconds) * time.Second)
}

// RenewAt returns from when on a session that is a lease is to be opened anew:
// when two thirds of it are over.
func (s Session) RenewAt() time.Time {
	return s.StartedAt.Add(s.EndsAt.Sub(s.StartedAt) * 2 / 3).Truncate(time.Second)
}

// The bounds of a lease, and its length where none is set. AWS opens no session
// that is shorter.
const (
	MinLease     = 15 * time.Minute
	MaxLease     = time.Hour
	DefaultLease = 30 * time.Minute
)

// A SessionKind says what a session was opened for.
type SessionKind string

// What a session was opened for.
const (
	ForCredentials SessionKind = "credentials"
	ForConsole     SessionKind = "console"
)

// A SessionState says how far a session came.
type SessionState string

// How far a session came. Only an issued one was, or could have been, handed
// over.
const (
	SessionStarted SessionState = "started" // the intent; STS is being asked
	SessionIssued  SessionState = "issued"
	SessionFailed  SessionState = "failed"  // STS refused, or its answer was wrong
	SessionDropped SessionState = "dropped" // issued, and not handed over: the grant was gone by then
	SessionUnknown SessionState = "unknown" // no outcome was recorded; nothing was handed over
)

// MintDeadline is how long an intent may stay without an outcome before it is
// closed as unknown.
const MintDeadline = 2 * time.Minute

// A Mint is one AssumeRoleWithWebIdentity call.
type Mint struct {
	Role        RoleKey
	SessionName string
	Token       Secret // the person's ID token
	Seconds     int
	Policy      string   // inline session policy
	PolicyARNs  []string // managed session policies
}

// A Minted is what STS answered.
type Minted struct {
	AccessKeyID     string
	SecretAccessKey Secret
	SessionToken    Secret
	Expiration      time.Time

	AssumedRoleARN   string
	AssumedRoleID    string
	Audience         string
	Provider         string
	Subject          string
	PackedPolicySize int // percent of what is allowed
}

// keyID is STS's pattern for an access key id (STS API Reference, Credentials).
var keyID = formOf(`^\w+$`, 16, 128)

// maxKeyText is how long a secret key or session token may be. AWS sets no
// bound and says not to assume one; this is many times what was ever seen.
const maxKeyText = 64 << 10

// isKeyText reports whether s is made of what base64 and its variants are made
// of.
func isKeyText(s Secret) bool {
	text := s.Reveal()
	return len(text) <= maxKeyText && !strings.ContainsFunc(text, func(r rune) bool {
		return !isAlphanumeric(r) && !strings.ContainsRune("+/=_.-", r)
	})
}

// expirySlack is how far past what was asked an Expiration may lie: the clocks
// of AWS and of this machine are not one.
const expirySlack = 60 * time.Second

// Check returns an error that names what is wrong with STS's answer to m, asked
// at asked and received at now with a token of subject for audience, issued by
// issuer. A wrong answer is never handed over: an attacker who can steer the
// call must not be able to steer its result.
func (m Mint) Check(a Minted, issuer, audience, subject string, asked, now time.Time) error {
	arn, err := ParseRoleARN(m.Role.ARN)
	if err != nil {
		return err
	}
	// An issuer may end in a slash (Auth0's does); IAM's provider may have been
	// created with or without it.
	providers := []string{issuer}
	for _, form := range []string{issuer, strings.TrimSuffix(issuer, "/")} {
		providers = append(providers, ProviderName(form), ProviderARN(arn.Partition, arn.AccountID, form))
	}
	switch {
	case a.AccessKeyID == "" || a.SecretAccessKey.Empty() || a.SessionToken.Empty():
		return fmt.Errorf("STS answered without credentials")
	case !keyID.fits(a.AccessKeyID), !isKeyText(a.SecretAccessKey), !isKeyText(a.SessionToken):
		// They end up in shells and configuration files.
		return fmt.Errorf("STS answered with something else than keys")
	case a.AssumedRoleARN != arn.Session(m.SessionName):
		return fmt.Errorf("STS answered for %q, not for %q", Clip(a.AssumedRoleARN, 200), arn.Session(m.SessionName))
	case a.AssumedRoleID != m.Role.RoleID+":"+m.SessionName:
		return fmt.Errorf("STS answered for the role id %q, not for %q: the role may have been deleted and created again", Clip(a.AssumedRoleID, 200), m.Role.RoleID+":"+m.SessionName)
	case a.Audience != audience:
		return fmt.Errorf("STS answered for another audience: %q", Clip(a.Audience, 200))
	case a.Subject != subject:
		return fmt.Errorf("STS answered for another subject")
	case !slices.Contains(providers, a.Provider):
		return fmt.Errorf("STS answered for another provider: %q", Clip(a.Provider, 200))
	case !a.Expiration.After(now):
		return fmt.Errorf("STS answered with credentials that ended at %s", clock(a.Expiration))
	case a.Expiration.After(asked.Add(time.Duration(m.Seconds)*time.Second + expirySlack)):
		return fmt.Errorf("STS answered with credentials until %s, more than a minute past what was asked", clock(a.Expiration))
	}
	return nil
}

// A SessionPolicy is what a session is limited to, beyond its role. Every limit
// is an explicit Deny, because inline and managed session policies are OR-ed
// and a conditional Allow beside a managed one would limit nothing.
type SessionPolicy struct {
	End        time.Time // whole seconds
	ReadOnly   bool      // the partition's ReadOnlyAccess, and no inline Allow
	NoChaining bool
	Networks   []netip.Prefix // none: from anywhere
}

// Document returns the inline session policy. It ends everything at End, by
// aws:CurrentTime, and keeps the session from drawing a longer one through the
// sign-in service.
func (p SessionPolicy) Document() string {
	var b strings.Builder
	b.WriteString(`{"Version":"2012-10-17","Statement":[`)
	if !p.ReadOnly {
		b.WriteString(`{"Effect":"Allow","Action":"*","Resource":"*"},`)
	}
	fmt.Fprintf(&b, `{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"DateGreaterThanEquals":{"aws:CurrentTime":"%s"}}},`,
		p.End.UTC().Truncate(time.Second).Format("2006-01-02T15:04:05Z"))
	b.WriteString(`{"Effect":"Deny","Action":["signin:AuthorizeOAuth2Access","signin:CreateOAuth2Token"],"Resource":"*"}`)
	if p.NoChaining {
		b.WriteString(`,{"Effect":"Deny","Action":"sts:AssumeRole*","Resource":"*"}`)
	}
	if len(p.Networks) > 0 {
		networks := make([]string, len(p.Networks))
		for i, n := range p.Networks {
			networks[i] = `"` + n.String() + `"`
		}
		fmt.Fprintf(&b, `,{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"NotIpAddress":{"aws:SourceIp":[%s]},"Bool":{"aws:ViaAWSService":"false"},"Null":{"aws:SourceIp":"false"}}}`,
			strings.Join(networks, ","))
	}
	b.WriteString(`]}`)
	return b.String()
}

// ManagedPolicies returns the ARNs of the managed session policies that go with
// the document.
func (p SessionPolicy) ManagedPolicies(partition string) []string {
	if !p.ReadOnly {
		return nil
	}
	return []string{"arn:" + partition + ":iam::aws:policy/ReadOnlyAccess"}
}
