package lobby

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"
)

// WriteTime bounds one transaction of Departures. Whoever waits waits for two
// at the most.
const WriteTime = 10 * time.Second

// Departures keep the attempts that begin at the same moment in one transaction:
// each is in the database before its browser leaves, and what that costs they
// share. Make them with Depart.
type Departures struct {
	turn chan struct{} // held by who writes

	mu      sync.Mutex
	waiting []*departure
}

// Depart returns Departures that nobody waits for yet.
func Depart() *Departures { return &Departures{turn: make(chan struct{}, 1)} }

// A departure is one of them; kept is closed once err says what became of it.
type departure struct {
	attempt Attempt
	kept    chan struct{}
	err     error
}

// Keep returns when a is kept, be it by the caller's write or by that of somebody
// who came at the same moment. Where it fails, or ctx ends, a may be kept all the
// same, and nobody comes back from it.
func (d *Departures) Keep(ctx context.Context, a Attempt, write func(context.Context, []Attempt) error) error {
	own := &departure{attempt: a, kept: make(chan struct{})}
	d.mu.Lock()
	d.waiting = append(d.waiting, own)
	d.mu.Unlock()
	select {
	case d.turn <- struct{}{}:
	case <-own.kept:
		return own.err
	case <-ctx.Done():
		d.mu.Lock()
		defer d.mu.Unlock()
		d.waiting = slices.DeleteFunc(d.waiting, func(one *departure) bool { return one == own })
		return fmt.Errorf("waiting to begin a sign-in: %w", ctx.Err())
	}
	defer func() { <-d.turn }()
	runtime.Gosched() // whoever is about to come is in time
	d.writeAll(ctx, write)
	return own.err // it was among them, or among those of the turn before
}

// writeAll writes all that wait. The caller has the turn.
func (d *Departures) writeAll(ctx context.Context, write func(context.Context, []Attempt) error) {
	d.mu.Lock()
	together := d.waiting
	d.waiting = nil
	d.mu.Unlock()
	if len(together) == 0 {
		return
	}
	err := errors.New("keeping login attempts was broken off")
	defer func() {
		for _, one := range together {
			one.err = err
			close(one.kept)
		}
	}()
	attempts := make([]Attempt, len(together))
	for i, one := range together {
		attempts[i] = one.attempt
	}
	// It is for all of them, so the caller's end does not end it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), WriteTime)
	defer cancel()
	err = write(ctx, attempts)
}
