package control

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/trust"
)

// A roster is the roles of one account at one version, as they are looked through
// for catalogues and findings: they are read again only when something changed.
// What decides whether somebody may do something reads the database.
type roster struct {
	version int64
	account string // name
	roles   []listedRole

	mu     sync.Mutex
	graves []grave // of each role
}

// A listedRole is a role with the text that a search looks in.
type listedRole struct {
	store.Role
	text string
}

// A grave says how grave the findings about a role's trust policy are, as far as
// somebody has looked.
type grave struct {
	looked     bool
	unreadable bool
	most       trust.Severity // empty where there is none
}

// rosters are the rosters that were read, by account.
type rosters struct {
	mu      sync.Mutex
	of      map[string]*roster
	reading map[string]*sync.Mutex // by account: one reads, and others wait for what it reads
}

// kept returns the roster of an account as it was read last; nil where it was not.
func (p *Plane) kept(accountID string) *roster {
	p.rosters.mu.Lock()
	defer p.rosters.mu.Unlock()
	return p.rosters.of[accountID]
}

// KeepRosters reads the rosters that somebody has looked through again as soon as
// they change, until ctx ends: whoever looks next does not wait for it. Those that
// nobody has looked through take no memory.
func (p *Plane) KeepRosters(ctx context.Context, who serval.Principal) error {
	return p.door.Await(ctx, forever, func() (bool, error) {
		return false, p.view(ctx, who, serval.RosterRead, "", func(v *store.View) error {
			connected, err := v.Rosters()
			if err != nil {
				return err
			}
			for _, k := range connected {
				if kept := p.kept(k.AccountID); kept == nil || kept.version == k.Version {
					continue
				}
				if _, err := p.roster(v, k); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// forever is longer than a bridge runs.
const forever = 100 * 365 * 24 * time.Hour

// roster returns the roles of an account as v sees them.
func (p *Plane) roster(v *store.View, known store.Roster) (*roster, error) {
	if kept := p.kept(known.AccountID); kept != nil && kept.version == known.Version {
		return kept, nil
	}
	p.rosters.mu.Lock()
	if p.rosters.reading == nil {
		p.rosters.reading = map[string]*sync.Mutex{}
	}
	reading := p.rosters.reading[known.AccountID]
	if reading == nil {
		reading = &sync.Mutex{}
		p.rosters.reading[known.AccountID] = reading
	}
	p.rosters.mu.Unlock()
	reading.Lock()
	defer reading.Unlock()
	if kept := p.kept(known.AccountID); kept != nil && kept.version == known.Version {
		return kept, nil // somebody else has read it meanwhile
	}
	// Known may be newer than what v sees; what is kept belongs together.
	own, err := v.Roster(known.AccountID)
	if serval.IsRefusal(err, serval.NotFound) {
		return &roster{}, nil
	}
	if err != nil {
		return nil, err
	}
	roles, err := v.Roles(known.AccountID)
	if err != nil {
		return nil, err
	}
	read := &roster{version: own.Version, account: own.Name, roles: make([]listedRole, len(roles)), graves: make([]grave, len(roles))}
	for i, r := range roles {
		read.roles[i] = listedRole{r, searched(r, own.Name)}
	}
	p.rosters.mu.Lock()
	defer p.rosters.mu.Unlock()
	if p.rosters.of == nil {
		p.rosters.of = map[string]*roster{}
	}
	p.rosters.of[known.AccountID] = read
	return read, nil
}

// between stands between the fields that are searched, and in no text of ours.
const between = "\xff"

// searched returns what a search looks in: ARN, description, account name and
// tags, without regard to ASCII case.
func searched(r store.Role, account string) string {
	var b strings.Builder
	for _, field := range []string{r.ARN, r.Description, account} {
		b.WriteString(serval.FoldEmail(field))
		b.WriteString(between)
	}
	for key, value := range r.Tags {
		b.WriteString(serval.FoldEmail(key))
		b.WriteString(between)
		b.WriteString(serval.FoldEmail(value))
		b.WriteString(between)
	}
	return b.String()
}

// each hands over the roles of the connected accounts, behind the role with the
// ARN after where that is given, in the order of account and ARN, until f returns
// false. Where an account is given, only its roles.
func (p *Plane) each(v *store.View, accountID string, after string, f func(of *roster, i int) (bool, error)) error {
	behind, err := serval.ParseRoleARN(after)
	if after != "" && err != nil {
		return door.NoPage()
	}
	connected, err := v.Rosters()
	if err != nil {
		return err
	}
	p.rosters.mu.Lock()
	if len(p.rosters.of) > len(connected) {
		p.rosters.of, p.rosters.reading = nil, nil // begun anew, without accounts that are gone
	}
	p.rosters.mu.Unlock()
	for _, k := range connected {
		if accountID != "" && k.AccountID != accountID || k.AccountID < behind.AccountID {
			continue
		}
		of, err := p.roster(v, k)
		if err != nil {
			return err
		}
		for i := range of.roles {
			if k.AccountID == behind.AccountID && of.roles[i].ARN <= after {
				continue
			}
			if more, err := f(of, i); err != nil || !more {
				return err
			}
		}
	}
	return nil
}
