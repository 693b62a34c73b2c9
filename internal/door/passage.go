package door

import (
	"context"
	"sync"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A Passage is where people who are served by this process, and what it does that takes
// long, such as a push of thousands of roles, meet. What takes long is done a little at
// a time, and stands back while people are served: where processors are few they would
// wait until the operating system interrupts it, which it does each few milliseconds.
type Passage struct {
	mu     sync.Mutex
	people int           // who are being served
	clear  chan struct{} // closed when the last of them was; nil where nobody waits for that
	left   time.Time     // when the last of them was
	hauls  int           // that stand back
}

// isServed reports whether everything else stands back for who: it is a person, or may
// become one.
func isServed(who serval.Principal) bool {
	return who.Kind != serval.KindWorker && who.Kind != serval.KindSystem
}

// A visit is that of one person. Where they act it is from when they have a connection
// to the database, and before it is asked anything: whoever still waits for a connection
// may wait for that of what would stand back.
type visit struct {
	of      *Passage
	entered bool
}

// begin notes that who is being served now, whom a transaction that is run again has
// been already.
func (v *visit) begin(who serval.Principal) {
	if !v.entered && isServed(who) {
		v.entered = true
		v.of.enter()
	}
}

// end is called in the end.
func (v *visit) end() {
	if v.entered {
		v.of.leave()
	}
}

// enter notes that somebody is being served. Call leave in the end.
func (p *Passage) enter() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.people++
}

// leave notes that somebody was served.
func (p *Passage) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left = time.Now()
	if p.people--; p.people == 0 && p.clear != nil {
		close(p.clear)
		p.clear = nil
	}
}

// busy returns a channel that is closed when nobody is being served any more. Where
// nobody is now it is nil, and for so long somebody who was may come back.
func (p *Passage) busy() (clear <-chan struct{}, lull time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.people == 0 {
		return nil, comesBack - time.Since(p.left)
	}
	if p.clear == nil {
		p.clear = make(chan struct{})
	}
	return p.clear, 0
}

// wait waits until nobody is being served, nor was a moment ago, or for so long; not
// where as many hauls do as may. The error is the context's.
func (p *Passage) wait(ctx context.Context, most time.Duration) error {
	if !p.standBack(1) {
		return ctx.Err()
	}
	defer p.standBack(-1)
	for end := time.Now().Add(most); ; {
		clear, lull := p.busy()
		left := time.Until(end)
		if clear == nil {
			left = min(left, lull)
		}
		if left <= 0 {
			return ctx.Err()
		}
		timer := time.NewTimer(left)
		select {
		case <-clear:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// standBack notes that a haul more stands back, or one less, and reports whether it may.
func (p *Passage) standBack(more int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if more > 0 && p.hauls == haulsBack {
		return false
	}
	p.hauls += more
	return true
}

// comesBack is within what time somebody comes back whose request is served in several
// acts and views.
const comesBack = 200 * time.Microsecond

// How long a haul goes on before it looks whether people are being served, for how long
// it stands back for them at a time, for how many times what it went on for in all, and
// for how long for what it holds up elsewhere.
const (
	haulStep   = 300 * time.Microsecond
	haulGives  = 5 * time.Millisecond
	haulOwes   = 7
	haulPauses = 20 * time.Millisecond
)

// haulsBack is how many hauls stand back at once. Some hold a connection to the database
// meanwhile, and people may wait for one: half of the eight that read SQLite are left.
const haulsBack = 4

// A Haul is something that takes long, from its beginning to its end. It belongs to
// one goroutine.
type Haul struct {
	of    *Passage
	since time.Time     // it goes on
	owed  time.Duration // for how long it may stand back
}

// Haul begins something that takes long.
func (p *Passage) Haul() *Haul { return &Haul{of: p, since: time.Now()} }

// GiveWay is called between two steps of a haul, and these are short. Where it has gone on
// for a while it stands back until nobody is being served, unless several others do, but
// for a few milliseconds at the most; and all together never for longer than seven times what it went on, so that it comes
// to its end however many people come. The error is the context's.
func (h *Haul) GiveWay(ctx context.Context) error {
	if time.Since(h.since) < haulStep {
		return nil
	}
	return h.giveWay(ctx)
}

func (h *Haul) giveWay(ctx context.Context) error {
	began := time.Now()
	h.owed += haulOwes * began.Sub(h.since)
	err := h.of.wait(ctx, min(h.owed, haulGives))
	h.since = time.Now()
	h.owed -= h.since.Sub(began)
	return err
}

// StandBack is called after a step that held up everybody who acts, for as long as it
// took, also those whom another process serves: it waits as long, within a bound, so that
// they come to it before the next such step. Then it is GiveWay.
func (h *Haul) StandBack(ctx context.Context, took time.Duration) error {
	h.owed += haulOwes * time.Since(h.since)
	timer := time.NewTimer(min(took, haulPauses))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	h.since = time.Now()
	return h.giveWay(ctx)
}
