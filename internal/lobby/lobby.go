// Package lobby is where sign-ins wait that are on their way through the identity
// provider: who has left with a browser, and may come back with it once.
//
// A Lobby keeps them in memory, for a database that one process serves. Departures
// are for one that several serve: those who leave at the same moment are written
// together. Both are the store's, which has the database beside them; what is sealed
// in an Attempt is signin's.
package lobby

import (
	"cmp"
	"container/list"
	"errors"
	"slices"
	"sync"
	"time"
)

// An Attempt is a sign-in between leaving for the identity provider and coming
// back. State and Browser are digests: what they are of is known to the
// browser alone.
type Attempt struct {
	State     string
	Browser   string
	Sealed    string // nonce, PKCE verifier, and where it comes back to
	Network   string // that it is counted to
	Site      string // that the network is of
	CreatedAt time.Time
	ExpiresAt time.Time
}

// A Bound is how many attempts are kept at most, of one network and in all. Of a
// network that has too many its oldest go; where there are too many in all, the
// oldest of the sites that have the most, and some more than one: whoever begins
// without end, from however many networks of theirs, pushes out nobody but themselves. Replicas that keep some at the same
// moment may be over it by those.
type Bound struct{ Here, All int }

// Slack says how many go besides where there are too many in all: one in so many. To
// find them each has to be looked at, which is not to be done for everybody who begins.
const Slack = 20

// maxBytes bounds, in bytes, what attempts hold in memory.
const maxBytes = 32 << 20

// A Lobby is where attempts wait in memory. It is safe for concurrent use; the zero
// value is empty.
type Lobby struct {
	mu      sync.Mutex
	byState map[string]*list.Element
	order   list.List      // of Attempts, the oldest first
	here    map[string]int // by network
	bytes   int
	most    Bound // of the last that was kept
}

// Keep keeps a, and drops whatever has expired or is too much.
func (l *Lobby) Keep(a Attempt, most Bound) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byState == nil {
		l.byState, l.here = map[string]*list.Element{}, map[string]int{}
	}
	if l.byState[a.State] != nil {
		return errors.New("keeping a login attempt: there is one with its state")
	}
	for e := l.order.Front(); e != nil && !a.CreatedAt.Before(e.Value.(Attempt).ExpiresAt); e = l.order.Front() {
		l.remove(e)
	}
	l.byState[a.State] = l.order.PushBack(a)
	l.here[a.Network]++
	l.bytes += len(a.Sealed)
	l.most = most
	for e := l.order.Front(); e != nil && l.here[a.Network] > most.Here; {
		next := e.Next()
		if e.Value.(Attempt).Network == a.Network {
			l.remove(e)
		}
		e = next
	}
	if l.order.Len() > most.All || l.bytes > maxBytes {
		l.thin(max(l.order.Len()-most.All, 0) + l.order.Len()/Slack)
	}
	return nil
}

// thin drops n attempts, of the sites that have the most.
func (l *Lobby) thin(n int) {
	type placed struct {
		*list.Element
		place int // among those of its site, the newest first
	}
	var all []placed
	places := map[string]int{}
	for e := l.order.Back(); e != nil; e = e.Prev() {
		site := e.Value.(Attempt).Site
		places[site]++
		all = append(all, placed{e, places[site]})
	}
	slices.Reverse(all)
	slices.SortStableFunc(all, func(a, b placed) int { return cmp.Compare(b.place, a.place) })
	for _, one := range all[:min(n, len(all))] {
		l.remove(one.Element)
	}
}

// remove removes one. The caller holds the lock.
func (l *Lobby) remove(e *list.Element) {
	a := l.order.Remove(e).(Attempt)
	delete(l.byState, a.State)
	l.bytes -= len(a.Sealed)
	if l.here[a.Network]--; l.here[a.Network] == 0 {
		delete(l.here, a.Network)
	}
}

// Take returns the attempt with the state and the browser, and removes it: of all
// who ask, one gets it. Where the state is another browser's, nothing is taken.
func (l *Lobby) Take(state, browser string, now time.Time) (a Attempt, found bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, known := l.byState[state]
	if !known {
		return Attempt{}, false
	}
	if a = e.Value.(Attempt); a.Browser != browser || !now.Before(a.ExpiresAt) {
		return Attempt{}, false
	}
	l.remove(e)
	return a, true
}

// Leave removes all, and returns them, the oldest first, with the bound of the last
// that was kept.
func (l *Lobby) Leave() (all []Attempt, most Bound) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for e := l.order.Front(); e != nil; e = l.order.Front() {
		all = append(all, e.Value.(Attempt))
		l.remove(e)
	}
	return all, l.most
}
