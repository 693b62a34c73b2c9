package awsiam

import (
	"context"
	"math"
	"sync"
	"time"
)

// The pace. AWS publishes no limits of IAM; 15 calls a second for each action
// is what others have found to be safe, and more is often borne. The other
// numbers were found by trying: TestPace holds what they must reach.
const (
	firstRate  = 15.0 // calls a second
	lowestRate = 3.0
	mostRate   = 1000.0
	firstBurst = 40.0
	doubleAt   = 8 // good answers that double the rate, until the first throttle

	regrowth   = 1.0 // a second, up to nearly the rate that was too much
	growth     = 0.02
	mostGrowth = 0.2
	patience   = 3 * time.Second // without a throttle, which add growth once more

	sure = 40 // good answers between two throttles that make AWS's rate known well
	near = 1.3
	hold = 0.96

	overfull = 1.5 // times the rate at which a bucket that was full runs dry, at most
	holdFor  = 10 * time.Minute

	steadyBurst = 100 * time.Millisecond // what may be saved up, once there was a throttle
	breath      = 150 * time.Millisecond // how long all pause after one
	window      = 500 * time.Millisecond // over which a pacer's use is averaged
	sameEvent   = time.Second            // refusals so close have one cause
)

// paces are the pacers of one account, by action.
type paces struct {
	mu     sync.Mutex
	pacers map[string]*pacer
	whole  *pacer // of all actions together; nil until it is known to be needed
	last   string // the action refused last
	lastAt time.Time
	calm   bool // AWS has throttled the account: nothing starts with a burst any more
}

func (g *paces) pacer(action string) *pacer {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.pacers[action]
	if p == nil {
		p = newPacer(time.Now())
		if g.calm {
			p.calm()
		}
		g.pacers[action] = p
	}
	return p
}

// throttled notes that a call of the action, sent at that time, was refused. AWS
// does not say which of its buckets ran dry: the action's own, or one that all
// actions of the account share. Refusals of two actions within a second mean the
// shared one, and so does that of an action that is not the busiest, or was not
// held back by its own pace; then the account slows down, and else the action.
// All pause for a moment, so that what is tried again finds something in the
// bucket.
func (g *paces) throttled(action string, sent, now time.Time) {
	own := g.pacer(action)
	g.mu.Lock()
	defer g.mu.Unlock()
	shared := g.last != action && now.Sub(g.lastAt) < sameEvent
	before := g.last
	g.last, g.lastAt = action, now
	all, most := 0.0, 0.0
	for _, p := range g.pacers {
		use := p.use(now)
		all, most = all+use, max(most, use)
	}
	use := own.use(now)
	shared = shared || use < most || g.whole != nil && use < 0.7*own.speed()
	guilty := own
	if shared {
		if g.whole == nil {
			g.whole = newPacer(now)
			g.whole.starting, g.whole.rate = false, max(firstRate, all/2)
		}
		guilty = g.whole
		if blamed := g.pacers[before]; blamed != nil {
			blamed.pardon(now)
		}
	}
	if !guilty.slow(sent, now) {
		return
	}
	for _, p := range g.pacers {
		if !g.calm {
			p.calm()
		}
		p.rest(now)
	}
	if g.whole != nil {
		g.whole.rest(now)
	}
	g.calm = true
}

// together returns the pacer of the account as a whole, nil while nothing showed
// that one is needed.
func (g *paces) together() *pacer {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.whole
}

func newPacer(now time.Time) *pacer {
	return &pacer{rate: firstRate, tokens: firstBurst, filled: now, starting: true, faster: make(chan struct{})}
}

// A pacer is a token bucket that finds out how fast it may run. It begins at a
// safe rate with a burst, and doubles the rate while AWS answers and calls wait
// for it, which takes a tenth of a second to reach what sixteen calls at once
// can use. The first throttle ends that: the rate falls to a quarter, half for the
// overshoot and half for the throttle. From then on a throttle halves it, once
// for all calls that were on their way. While calls wait it grows: fast to nearly
// the rate that was too much, from there by two percent a second, and more the
// longer nothing is refused. What is left unused below AWS's rate fills AWS's own
// bucket, so the swing around it costs no time.
//
// Between two throttles the bucket was empty at both ends, so the answers in
// between are AWS's rate, exactly: that is the rate to come back to. Once there
// were enough of them the pacer stays just below it for ten minutes, and nothing
// is refused any more; then it tries again whether more is borne.
type pacer struct {
	mu       sync.Mutex
	rate     float64 // tokens a second
	tokens   float64
	filled   time.Time // up to when tokens are counted
	starting bool      // no throttle yet
	waited   bool      // a call had to wait since the last token was taken or the rate doubled
	good     int       // answers since the rate doubled or was reduced
	took     time.Time // when the last token was taken
	cut      time.Time // when the rate was last reduced
	ceiling  float64   // what seemed to be AWS's rate then
	settled  bool      // and it is known well
	before   float64   // the rate before it was reduced
	recent   float64   // tokens taken, older ones counting less: see use
	faster   chan struct{}
}

// fill counts the tokens up to now.
func (p *pacer) fill(now time.Time) {
	if d := now.Sub(p.filled); d > 0 {
		most := firstBurst
		if !p.starting {
			most = min(firstBurst, max(1, p.rate*steadyBurst.Seconds()))
		}
		p.tokens = min(most, p.tokens+p.rate*d.Seconds())
		p.filled = now
	}
}

// ready waits until there is a token, and does not take it.
func (p *pacer) ready(ctx context.Context) error {
	for {
		p.mu.Lock()
		now := time.Now()
		p.fill(now)
		if p.tokens >= 1 {
			p.mu.Unlock()
			return ctx.Err()
		}
		p.waited = true
		wait := time.Duration((1 - p.tokens) / p.rate * float64(time.Second))
		wait += max(0, p.filled.Sub(now))
		faster := p.faster
		p.mu.Unlock()

		t := time.NewTimer(max(wait, time.Millisecond))
		select {
		case <-t.C:
		case <-faster:
			t.Stop()
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}

// take takes a token, if there is one, just before a call is sent.
func (p *pacer) take(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fill(now)
	if p.tokens < 1 {
		return false
	}
	p.tokens--
	if !p.starting && p.waited {
		d := min(now.Sub(p.took), time.Second)
		by := regrowth
		if !p.cut.IsZero() && p.rate >= 0.9*p.ceiling {
			by = min(mostGrowth, growth*(1+now.Sub(p.cut).Seconds()/patience.Seconds()))
		}
		p.rate = min(mostRate, p.rate*(1+by*d.Seconds()))
		if p.settled && now.Sub(p.cut) < holdFor {
			p.rate = min(p.rate, max(lowestRate, hold*p.ceiling))
		}
		p.waited = false
	}
	p.recent = p.recent*fade(now.Sub(p.took)) + 1
	p.took = now
	return true
}

// back gives a token back that was not used.
func (p *pacer) back() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tokens++
	p.recent--
}

// use returns how many tokens a second were taken lately.
func (p *pacer) use(now time.Time) float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.recent * fade(now.Sub(p.took)) / window.Seconds()
}

// speed returns the rate.
func (p *pacer) speed() float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rate
}

func fade(d time.Duration) float64 { return math.Exp(-d.Seconds() / window.Seconds()) }

// succeeded notes a good answer.
func (p *pacer) succeeded() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.good++
	if p.starting && p.waited && p.good >= doubleAt && p.rate < mostRate {
		p.fill(time.Now())
		p.rate = min(mostRate, 2*p.rate)
		p.good, p.waited = 0, false
		close(p.faster)
		p.faster = make(chan struct{})
	}
}

// slow reduces the rate for a call that was sent then and refused. It reports
// false where that was done since.
func (p *pacer) slow(sent, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if sent.Before(p.cut) {
		return false
	}
	if p.starting {
		p.rate /= 2
	}
	if p.cut.IsZero() || now.Sub(p.cut) > sameEvent {
		p.before = p.rate
	}
	p.ceiling = p.rate
	p.settled = false
	if d := now.Sub(p.cut); !p.cut.IsZero() && d > sameEvent && d < time.Minute {
		p.ceiling = float64(p.good) / d.Seconds() // not of a moment, nor with a night in between
		if p.good >= sure {
			p.settled = p.rate <= near*p.ceiling
			p.ceiling = max(p.ceiling, p.rate/overfull) // else AWS's bucket was full meanwhile
		}
	}
	p.good = 0
	if p.starting {
		p.rate = max(firstRate, p.rate)
	}
	p.rate = max(lowestRate, p.rate/2)
	p.starting, p.cut = false, now
	return true
}

// pardon takes back what was done within the last second: it was another
// bucket that ran dry.
func (p *pacer) pardon(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.cut.IsZero() && now.Sub(p.cut) < sameEvent {
		p.rate, p.cut = p.before, time.Time{}
	}
}

// calm ends the fast start.
func (p *pacer) calm() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.starting {
		p.starting = false
		p.rate = min(p.rate, firstRate)
	}
}

// rest takes all tokens, and a moment to come with them.
func (p *pacer) rest(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tokens, p.filled = min(0, p.tokens), now.Add(breath)
}
