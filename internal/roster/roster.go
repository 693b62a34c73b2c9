// Package roster keeps the roles of connected accounts as they are looked through
// for catalogues and findings. A Roster is those of one account at one version: it
// is read again only when something changed, and with it goes what was worked out
// of its roles, such as which of them an access policy names.
//
// What decides whether somebody may do something reads the database.
package roster

import (
	"cmp"
	"slices"
	"strings"
	"sync"

	"github.com/serval-bridge/serval-bridge/internal/access"
	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/trust"
)

// A Roster is the roles of one account at one version. What it hands out nobody
// changes.
type Roster struct {
	Version int64
	Account string // name
	// Provider is what is known of the account's OIDC provider; nil where nobody asked.
	Provider *serval.OIDCProvider
	Roles    []Role // in the order of byName

	mu     sync.Mutex
	graves []Grave // of each role
	set    *Policies
	named  map[int]bits // by each policy of the set that somebody has asked for
}

// A Role is a role with the text that a search looks in.
type Role struct {
	store.Role
	text string
	name string // in the ARN, folded
}

// newRole returns a role of an account with the name.
func newRole(r store.Role, account string) Role {
	text := searched(r, account)
	return Role{Role: r, text: text, name: lastName(text[:len(r.ARN)])}
}

// lastName returns what stands behind the last slash of an ARN.
func lastName(arn string) string { return arn[strings.LastIndexByte(arn, '/')+1:] }

// byName is the order of the roles of an account: by name, without regard to ASCII
// case, as people look for them, and by ARN where that is the same.
func byName(a, b Role) int {
	return cmp.Or(strings.Compare(a.name, b.name), strings.Compare(a.ARN, b.ARN))
}

// Says reports whether ARN, description, account name or tags hold text, which is
// folded.
func (r *Role) Says(text string) bool { return strings.Contains(r.text, text) }

// Target returns what an access policy looks at of a role.
func Target(r *store.Role) access.Target {
	return access.Target{AccountID: r.Key.AccountID, ARN: r.ARN, Tags: r.Tags}
}

// A Grave says how grave the findings about a role's trust policy are, as far as
// somebody has looked.
type Grave struct {
	Looked     bool
	Unreadable bool
	Most       trust.Severity // empty where there is none
}

// Grave returns that of a role, by its place.
func (of *Roster) Grave(i int) Grave {
	of.mu.Lock()
	defer of.mu.Unlock()
	return of.graves[i]
}

// SetGrave keeps what somebody has found.
func (of *Roster) SetGrave(i int, g Grave) {
	of.mu.Lock()
	defer of.mu.Unlock()
	of.graves[i] = g
}

// Policies are the access policies that were in force at a version, in the order
// in which they are tried. Nobody changes them.
type Policies struct {
	Version string
	List    []serval.AccessPolicy
}

// Of returns those that name who, whatever their roles, by their places.
func (p *Policies) Of(who serval.Person) (theirs []int) {
	for i := range p.List {
		if p.List[i].Eligible.Include(who) {
			theirs = append(theirs, i)
		}
	}
	return theirs
}

// bits are a yes or no for each role.
type bits []uint64

func (b bits) has(i int) bool { return b[i/64]&(1<<(i%64)) != 0 }

// namedBy returns which of the roles the policies name that are at theirs. It is
// worked out once for each policy, and not for each who asks.
func (of *Roster) namedBy(set *Policies, theirs []int) []bits {
	of.mu.Lock()
	defer of.mu.Unlock()
	if of.set != set {
		of.set, of.named = set, map[int]bits{}
	}
	all := make([]bits, len(theirs))
	for k, place := range theirs {
		named, known := of.named[place]
		if !known {
			named = make(bits, (len(of.Roles)+63)/64)
			for i := range of.Roles {
				if access.Matches(set.List[place].Roles, Target(&of.Roles[i].Role)) {
					named[i/64] |= 1 << (i % 64)
				}
			}
			of.named[place] = named
		}
		all[k] = named
	}
	return all
}

// Rosters are the rosters that were read. The zero value has none; it is safe for
// concurrent use.
type Rosters struct {
	mu      sync.Mutex
	of      map[string]*Roster     // by account
	reading map[string]*sync.Mutex // by account: one reads, and others wait for what it reads
}

// Kept returns the roster of an account as it was read last; nil where it was not.
func (s *Rosters) Kept(accountID string) *Roster {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.of[accountID]
}

// Renew reads those again that somebody has looked through and that have changed.
// Those that nobody has looked through take no memory.
func (s *Rosters) Renew(v *store.View) error {
	connected, err := v.Rosters()
	if err != nil {
		return err
	}
	for _, k := range connected {
		if kept := s.Kept(k.AccountID); kept == nil || kept.Version == k.Version {
			continue
		}
		if _, err := s.Of(v, k); err != nil {
			return err
		}
	}
	return nil
}

// Warm reads rosters that nobody has looked through yet, until so many roles are
// kept: whoever looks first does not wait for it.
func (s *Rosters) Warm(v *store.View, most int) error {
	connected, err := v.Rosters()
	if err != nil {
		return err
	}
	for _, k := range connected {
		if most <= 0 {
			return nil
		}
		of, err := s.Of(v, k)
		if err != nil {
			return err
		}
		most -= len(of.Roles)
	}
	return nil
}

// Of returns the roles of an account as v sees them.
func (s *Rosters) Of(v *store.View, known store.Roster) (*Roster, error) {
	if kept := s.Kept(known.AccountID); kept != nil && kept.Version == known.Version {
		return kept, nil
	}
	s.mu.Lock()
	if s.reading == nil {
		s.reading = map[string]*sync.Mutex{}
	}
	reading := s.reading[known.AccountID]
	if reading == nil {
		reading = &sync.Mutex{}
		s.reading[known.AccountID] = reading
	}
	s.mu.Unlock()
	reading.Lock()
	defer reading.Unlock()
	if kept := s.Kept(known.AccountID); kept != nil && kept.Version == known.Version {
		return kept, nil // somebody else has read it meanwhile
	}
	// Known may be newer than what v sees; what is kept belongs together.
	own, err := v.Roster(known.AccountID)
	if serval.IsRefusal(err, serval.NotFound) {
		return &Roster{}, nil
	}
	if err != nil {
		return nil, err
	}
	roles, err := v.Roles(known.AccountID)
	if err != nil {
		return nil, err
	}
	provider, err := v.OIDCProvider(known.AccountID)
	if err != nil {
		return nil, err
	}
	read := &Roster{Version: own.Version, Account: own.Name, Provider: provider, Roles: make([]Role, len(roles)), graves: make([]Grave, len(roles))}
	for i, r := range roles {
		read.Roles[i] = newRole(r, own.Name)
	}
	slices.SortFunc(read.Roles, byName)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of = map[string]*Roster{}
	}
	s.of[known.AccountID] = read
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

// Each hands over the roles of the connected accounts, behind the role with the
// ARN after where that is given, in the order of account and byName, until f
// returns false. Where an account is given, only its roles.
func (s *Rosters) Each(v *store.View, accountID, after string, f func(of *Roster, i int) (bool, error)) error {
	return s.eachAccount(v, accountID, after, func(of *Roster, from int) (bool, error) {
		for i := from; i < len(of.Roles); i++ {
			if more, err := f(of, i); err != nil || !more {
				return false, err
			}
		}
		return true, nil
	})
}

// EachOf is Each of the roles that who may have by the policies of set, each with
// the one that decides.
func (s *Rosters) EachOf(v *store.View, set *Policies, who serval.Person, accountID, after string, f func(of *Roster, i int, policy *serval.AccessPolicy) (bool, error)) error {
	theirs := set.Of(who)
	if len(theirs) == 0 {
		return nil
	}
	return s.eachAccount(v, accountID, after, func(of *Roster, from int) (bool, error) {
		named := of.namedBy(set, theirs)
		for i := from; i < len(of.Roles); i++ {
			k := slices.IndexFunc(named, func(b bits) bool { return b.has(i) }) // the first decides alone
			if k < 0 {
				continue
			}
			if more, err := f(of, i, &set.List[theirs[k]]); err != nil || !more {
				return false, err
			}
		}
		return true, nil
	})
}

// eachAccount hands over the rosters of the connected accounts that there is
// something of to see, from the role at from on.
func (s *Rosters) eachAccount(v *store.View, accountID, after string, f func(of *Roster, from int) (bool, error)) error {
	behind, err := serval.ParseRoleARN(after)
	if after != "" && err != nil {
		return door.NoPage()
	}
	connected, err := v.Rosters()
	if err != nil {
		return err
	}
	s.mu.Lock()
	if len(s.of) > len(connected) {
		s.of, s.reading = nil, nil // begun anew, without accounts that are gone
	}
	s.mu.Unlock()
	for _, k := range connected {
		if accountID != "" && k.AccountID != accountID || k.AccountID < behind.AccountID {
			continue
		}
		of, err := s.Of(v, k)
		if err != nil {
			return err
		}
		from := 0
		if k.AccountID == behind.AccountID {
			last := Role{Role: store.Role{Role: serval.Role{ARN: after}}, name: serval.FoldEmail(lastName(after))}
			from, _ = slices.BinarySearchFunc(of.Roles, last, func(r, last Role) int {
				if byName(r, last) <= 0 {
					return -1
				}
				return 1
			})
		}
		if more, err := f(of, from); err != nil || !more {
			return err
		}
	}
	return nil
}
