package awsiam

import (
	"runtime/debug"
	"sync"
)

// crowdedPercent is by how much of what lives in the heap garbage may grow, in
// percent, while more readings are at work than fill what may be in flight. Fifty
// accounts live in twice the memory of one, and garbage would grow to as much again.
const crowdedPercent = 40

// A thrift is a process's collection of garbage, more often in a crowd.
type thrift struct {
	mu       sync.Mutex
	readings int
	usual    int // percent
}

// add notes that so many readings more are at work; more than many are a crowd.
// Whoever has garbage collected as often already, or not at all, is left alone.
func (t *thrift) add(n, many int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.readings > many
	t.readings += n
	switch is := t.readings > many; {
	case is && !was:
		if t.usual = debug.SetGCPercent(crowdedPercent); t.usual < crowdedPercent {
			debug.SetGCPercent(t.usual)
		}
	case was && !is:
		debug.SetGCPercent(t.usual)
	}
}
