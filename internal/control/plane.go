// Package control is the control plane as people use it: who may ask for what,
// what is approved, what may be opened, and the record of it all. What workers
// do there is intake's; both stand behind one door.
//
// Every exported method of Plane takes who acts, and goes through act or view:
// authorize, do, record, in one transaction. There is no third door. Decisions
// are the dictionary's; here they are joined with what is stored and with the
// time. What happens outside, at STS, has its intent recorded before and its
// outcome before anyone sees it; see Open.
package control

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/roster"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/signin"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/trust"
)

// A Minter opens one AWS session, and a way into the console with one. Its error
// is a *serval.Refusal where somebody can mend the cause, with AWS's code as
// Detail "code"; one whose Detail has "clamp" says that the duration was over the
// role's maximum. An error that has a method Facts tells the audit log more than
// the person.
type Minter interface {
	Mint(ctx context.Context, m serval.Mint) (serval.Minted, error)

	// SignIn returns a link that opens a page of the console. It is a secret.
	SignIn(ctx context.Context, partition string, m serval.Minted, page serval.ConsolePage) (serval.Secret, error)
}

// Settings are what a Plane works by.
type Settings struct {
	Issuer   string // of the ID tokens; STS's answer is checked against it
	ClientID string // their audience

	RequestExpiry time.Duration // 0: serval.DefaultRequestExpiry
	MintRate      int           // sessions a person may open in a minute; 0: 60

	// EgressAddresses (CIDR) and VPCEndpoint are where the bridge's calls to STS
	// come from, as far as somebody said: a finding prints them.
	EgressAddresses []string
	VPCEndpoint     string
	// BlockFindings is the severity from which on a finding about a role's trust
	// policy keeps sessions from being opened; empty: none does.
	BlockFindings trust.Severity

	// Lease is how long one session lasts at most, after which the bridge is
	// asked again; 0: as long as the access.
	Lease time.Duration
	// NoSessionPolicy sends no session policy. A session then ends with its
	// credentials and not before, and cannot be narrowed.
	NoSessionPolicy bool
	// Packed is told how many percent of AWS's room the limits of a session
	// took; nil tells nobody.
	Packed func(percent int)

	// Probe looks, from where this runs, for what is behind a session that was not
	// opened and of which AWS's code tells too little; ok is false where nothing is
	// found. Nil looks for nothing.
	Probe func(ctx context.Context, code string) (c Cause, ok bool)

	// Until Appoint names others.
	Admins   serval.People
	Auditors serval.People
	Networks Networks

	ExternalID     string // of every account that is connected over the API
	TrustedAccount string // what trust policies name; empty: the worker's own, as it says
	File           string // where the configuration file is, for sentences; may be empty
}

// A Cause is why no session can be opened, as a probe found it.
type Cause struct {
	ID       string // dns, connect, tls, clock, discovery, jwks or issuer
	Sentence string // what it is, and who can mend it how
	MendedBy string // operator, or provider for who runs the identity provider
}

// A Plane is the control plane. It is safe for concurrent use.
type Plane struct {
	door     *door.Door
	logins   *signin.Logins
	minter   Minter
	settings Settings

	appointed atomic.Pointer[Appointed]
	policies  atomic.Pointer[roster.Policies] // as last read; see inForce
	parsed    trust.Parsed
	rosters   roster.Rosters
	exports   atomic.Int32 // that are under way

	// How many undecided requests are looked through for one page of an
	// approver's; so many at a time, a quarter of it.
	mostAwaiting int
}

// New returns a Plane behind d, for people who are signed in by l.
func New(d *door.Door, l *signin.Logins, m Minter, settings Settings) *Plane {
	if settings.RequestExpiry == 0 {
		settings.RequestExpiry = serval.DefaultRequestExpiry
	}
	if settings.MintRate == 0 {
		settings.MintRate = 60
	}
	p := &Plane{
		door: d, logins: l, minter: m, settings: settings,
		mostAwaiting: 2000,
	}
	p.appointed.Store(&Appointed{settings.Admins, settings.Auditors, settings.Networks})
	l.Appoint(settings.Admins, settings.Auditors)
	return p
}

// act runs f as who and records what happened: both, or neither. See door.Act.
func (p *Plane) act(ctx context.Context, who serval.Principal, what serval.Action, target string,
	f func(tx *store.Tx, e *serval.Event) error, expect ...func(*store.Tx)) error {
	return p.door.Act(ctx, who, what, target, f, expect...)
}

// view runs f as who without writing. See door.View.
func (p *Plane) view(ctx context.Context, who serval.Principal, what serval.Action, target string,
	f func(v *store.View) error) error {
	return p.door.View(ctx, who, what, target, f)
}

func (p *Plane) now() time.Time { return p.door.Now() }
