// Package memory remembers what was read of tables while nothing is written to
// them. That is exact where whoever remembers hears of every write: of its tables,
// before it is acknowledged. Whoever reads says which writes it knew of when it
// began, so that what an old snapshot shows is not remembered for those who begin
// later.
package memory

import (
	"sync"
	"sync/atomic"
	"time"
)

// How long something is remembered at most, so that what somebody changes in the
// file by hand counts soon too, and how much.
const (
	rememberFor  = time.Second
	rememberMost = 4096
)

// Everything stands for all tables but those that a Memory leaves aside.
const Everything = "*"

// A Memory remembers what was read. The zero value remembers nothing. It is safe
// for concurrent use.
type Memory struct {
	// Aside are the tables that Everything leaves out.
	Aside map[string]bool

	on atomic.Bool

	mu      sync.Mutex
	writes  uint64            // that were noted so far
	touched map[string]uint64 // the last of them, by table
	known   map[Key]entry
}

// A Key is what is remembered, and of whom.
type Key struct{ What, Of string }

type entry struct {
	value any
	asOf  uint64 // the writes that it knows of: all up to this one
	at    time.Time
}

// Switch switches m on or off.
func (m *Memory) Switch(on bool) { m.on.Store(on) }

// IsOn reports whether m remembers anything.
func (m *Memory) IsOn() bool { return m.on.Load() }

// Written notes that tables were written to.
func (m *Memory) Written(tables ...string) {
	if !m.IsOn() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.touched == nil {
		m.touched = map[string]uint64{}
	}
	m.writes++
	for _, t := range tables {
		m.touched[t] = m.writes
		if !m.Aside[t] {
			m.touched[Everything] = m.writes
		}
	}
}

// Now returns the last write that was noted.
func (m *Memory) Now() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.writes
}

// Get returns what is remembered under a key that was read from tables, if it still
// holds. Whoever gets it must not change it.
func (m *Memory) Get(key Key, tables []string) (value any, holds bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, found := m.known[key]
	if !found || time.Since(e.at) >= rememberFor {
		return nil, false
	}
	for _, t := range tables {
		if m.touched[t] > e.asOf {
			return nil, false
		}
	}
	return e.value, true
}

// Put remembers a value whose reading began at an instant and knows of all writes
// up to asOf.
func (m *Memory) Put(key Key, value any, asOf uint64, began time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil || len(m.known) >= rememberMost {
		m.known = map[Key]entry{} // begun anew: what is used comes back
	}
	m.known[key] = entry{value, asOf, began}
}
