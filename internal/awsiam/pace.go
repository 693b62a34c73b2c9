package awsiam

import (
	"context"
	"sync"
	"time"
)

// The pace. AWS publishes no limits of IAM; 15 calls a second for each action
// is what others have found to be safe, and more is often borne.
const (
	firstRate  = 15.0
	lowestRate = 3.0
	mostRate   = 1000.0
	firstBurst = 40.0
	doubleAt   = 8   // good answers that double the rate, until the first throttle
	growth     = 0.1 // a second, after it
	rest       = 100 * time.Millisecond
)

// paces are the pacers of one account, by action.
type paces struct {
	mu     sync.Mutex
	pacers map[string]*pacer
}

func (g *paces) pacer(action string) *pacer {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.pacers[action]
	if p == nil {
		p = &pacer{rate: firstRate, tokens: firstBurst, filled: time.Now(), starting: true, faster: make(chan struct{})}
		g.pacers[action] = p
	}
	return p
}

// A pacer is a token bucket that finds out how fast it may run. It begins at a
// safe rate with a burst, and doubles the rate while AWS answers and calls wait
// for it, which takes a tenth of a second to reach what sixteen calls at once
// can use. The first throttle ends that: the rate falls to a quarter, half for the
// overshoot and half for the throttle. From then on it grows by a tenth each
// second while calls wait, and is halved by a throttle, once for all calls that
// were on their way. What is left unused below AWS's rate fills AWS's own
// bucket, so the swing around it costs no time.
type pacer struct {
	mu       sync.Mutex
	rate     float64 // tokens a second
	tokens   float64
	filled   time.Time // up to when tokens are counted
	starting bool      // no throttle yet
	waited   bool      // a call had to wait since the last token was taken or the rate doubled
	good     int       // answers since the rate doubled
	took     time.Time // when the last token was taken
	cut      time.Time // when the rate was last reduced
	faster   chan struct{}
}

// fill counts the tokens up to now.
func (p *pacer) fill(now time.Time) {
	if d := now.Sub(p.filled); d > 0 {
		most := firstBurst
		if !p.starting {
			most = min(firstBurst, max(1, p.rate))
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
		p.rate = min(mostRate, p.rate*(1+growth*d.Seconds()))
		p.waited = false
	}
	p.took = now
	return true
}

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

// throttled notes that a call sent at that time was refused.
func (p *pacer) throttled(sent, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if sent.Before(p.cut) {
		return // it was on its way when the rate was reduced
	}
	p.fill(now)
	if p.starting {
		p.rate /= 2
	}
	p.rate = max(lowestRate, p.rate/2)
	p.starting, p.cut = false, now
	p.tokens, p.filled = 0, now.Add(rest)
}
