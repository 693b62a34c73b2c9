// Package pace finds out how fast the API of one AWS account may be called, so that
// next to nothing is refused: the throttle is shared with the customer's own
// programs, and staying below it is also faster than trying again above it.
//
// An Account has a pacer for each action, and one for all of them together once AWS
// has refused something. A call waits for Ready, is let go by Take, and what became
// of it is told to Succeeded or Throttled. The accounts of a Fleet find it out
// together.
package pace

import (
	"context"
	"math"
	"sync"
	"time"
)

// AWS publishes no limits of IAM; 15 calls a second for each action
// is what others have found to be safe, and more is often borne. The other
// numbers were found by trying: make bench-ingest measures what they reach.
const (
	firstRate  = 15.0 // calls a second
	lowestRate = 3.0
	mostRate   = 1000.0
	firstBurst = 40.0

	regrowth   = 1.0 // a second, where AWS has refused nothing
	gain       = 0.5 // the same, for each e-fold to the rate that was too much
	growth     = 0.02
	mostGrowth = 0.2
	patience   = 3 * time.Second // without a throttle, which add growth once more

	some  = 8  // calls between two throttles that tell AWS's rate
	sure  = 30 // and that make it known well
	below = 0.8
	above = 0.1

	overfull = 1.5 // times the rate at which a bucket that was full runs dry, at most
	holdFor  = time.Hour
	mostHold = 24 * time.Hour
	holdLess = 2 * time.Minute // where less is borne than before
	near     = 0.15            // by what part the same rate may be measured otherwise
	most     = 0.985           // of a rate that is known is used

	steadyBurst = 100 * time.Millisecond // what may be saved up, once there was a throttle
	heldBurst   = 600 * time.Millisecond // the same, where AWS's rate is known: what is not used fills AWS's bucket as well
	breath      = 150 * time.Millisecond // how long all pause after one
	window      = 500 * time.Millisecond // over which a pacer's use is averaged
	sameEvent   = time.Second            // refusals so close have one cause
	chance      = 0.05                   // that is rare
	noChance    = 0.001                  // that is too rare to have been
	drift       = 0.93                   // times its part is less
	soon        = 60 * time.Millisecond  // how long a bucket stays nearly so
)

// An Account is the pace of one account. AWS does not say which of its buckets ran
// dry when it refuses, one of the action's own or one that all share, so there is a
// pacer for each action, and one for all together. It is safe for concurrent use.
type Account struct {
	mu     sync.Mutex
	pacers map[string]*pacer
	whole  *pacer // nil until something was refused
	alone  bool   // it only counts: the bucket of the action refused last is the one

	last  string    // the action refused last
	at    time.Time // when
	alike float64   // how likely it is that one bucket of all actions refused this one alone
	first int       // the calls until then

	dry               time.Time // when the first call was sent that found the bucket empty last
	accepted, refused int       // of the calls sent just after it

	certain bool    // the bucket is a shared one
	part    float64 // of the calls were the action's, when both rates were measured; 0 where that is no matter
	ofWhole measure // these rates
	ofOwn   measure

	fleet   *Fleet
	sent    row     // calls of all actions
	told    int     // refusals that the fleet was told of
	refusal refusal // the last of them
	heard   int64   // what was told by then, in all
	early   bool    // one of the first to be refused: once more, for the others
	tries   bool    // and on its way there
	borrows bool    // it took over the rate of the others
	deaf    bool    // it measures for itself
}

// A Pass lets one call be sent, at once.
type Pass struct {
	Sent time.Time

	action     string
	own, whole int // its number to the pacers of the action and of the account; 0 where there was none
	all        int // which of all it is
}

// Ready waits until a call of the action may be sent, as far as is known now.
func (g *Account) Ready(ctx context.Context, action string) error {
	if err := g.pacer(action).ready(ctx); err != nil {
		return err
	}
	if whole, limits := g.together(); limits {
		return whole.ready(ctx)
	}
	return nil
}

// Take lets a call go, or reports that others came first: then it is to wait for
// Ready again.
func (g *Account) Take(action string) (Pass, bool) {
	c, own := Pass{Sent: time.Now(), action: action}, g.pacer(action)
	if c.own = own.take(c.Sent, true); c.own == 0 {
		return Pass{}, false
	}
	whole, limits := g.together()
	if whole != nil {
		if c.whole = whole.take(c.Sent, limits); c.whole == 0 {
			own.back()
			return Pass{}, false
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	c.all = g.sent.add(c.Sent)
	return c, true
}

// Rates returns how many calls a second each action may make now, at most.
func (g *Account) Rates() map[string]float64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	rates := make(map[string]float64, len(g.pacers))
	for action, p := range g.pacers {
		rates[action] = p.speed()
		if g.whole != nil && !g.alone {
			rates[action] = min(rates[action], g.whole.speed())
		}
	}
	return rates
}

func (g *Account) pacer(action string) *pacer {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.pacers[action]
	if p == nil {
		p = newPacer(time.Now())
		if g.whole != nil {
			p.calm()
		}
		g.pacers[action] = p
	}
	return p
}

// Throttled notes that a call was refused, and slows down the
// account; or the action alone, where it is the action's own bucket that ran dry.
// So many refusals in turn of one action that it would be a rare chance mean that;
// those of calls that were on their way together are one.
// One of two actions within a second means a shared bucket; so does one of an action
// that is not the busiest, until nothing else was refused for too long for that to be
// chance. And the bucket is the one whose rate comes out the same again, where the other's
// does not. Where it is open, and the account's rate is known, and the action's part in
// it becomes less, the account goes faster until the next refusal, to see which does.
//
// All pause for a moment, so that what is tried again finds something in the
// bucket.
func (g *Account) Throttled(c Pass) {
	now, action := time.Now(), c.action
	g.mu.Lock()
	defer g.mu.Unlock()
	own := g.pacers[action]
	all, busiest, sum := 0.0, 0.0, 0
	for _, p := range g.pacers {
		use, taken := p.use(now)
		all, busiest, sum = all+use, max(busiest, use), sum+taken
	}
	if g.whole == nil { // nothing starts with a burst any more
		g.whole, g.first = newPacer(now), sum
		g.whole.recent, g.whole.took = all*window.Seconds(), now
		g.whole.calm()
		for _, p := range g.pacers {
			p.calm()
		}
	}
	use, _ := own.use(now)
	mixed := g.last != "" && g.last != action && now.Sub(g.at) < sameEvent
	if g.last != action {
		g.alike = 1
	}
	ofWhole, ofOwn := g.whole.empty(c.Sent, now, c.whole), own.empty(c.Sent, now, c.own)
	inOwn, inAll := own.lose(c.own, c.Sent), g.sent.lose(c.all, c.Sent)
	if ofWhole.news {
		lately := ofWhole
		if g.alone {
			lately = ofOwn
		}
		g.tell(refusal{action, inOwn, inAll}, lately.rate)
		g.alike *= use / all
		g.dry, g.accepted, g.refused = c.Sent, 0, 0
	}
	g.refused++
	g.last, g.at = action, now
	open, limited := g.ofOwn.calls > 0, g.alone
	found := clues{
		alone: g.alone, certain: g.certain, mixed: mixed, busiest: use == busiest, alike: g.alike,
		whole: g.whole.again(ofWhole), own: own.again(ofOwn), tried: open,
	}
	g.alone = found.mean()
	g.certain = !g.alone && (g.certain || mixed || use < busiest || open && found.own > 2)
	switch {
	case !ofWhole.news:
		return
	case g.alone:
		if open {
			ofOwn = ofOwn.or(g.ofOwn)
		}
		own.slow(ofOwn, now, g.first, limited)
	default:
		if open {
			ofWhole = ofWhole.or(g.ofWhole)
		}
		g.whole.slow(ofWhole, now, g.first, !limited)
	}
	g.part, g.ofWhole, g.ofOwn = 0, measure{}, measure{}
	if !g.alone && !g.certain && g.whole.holds(now) && ofOwn.calls >= some {
		g.part, g.ofWhole, g.ofOwn = float64(ofOwn.calls)/float64(ofWhole.calls), ofWhole, ofOwn
	}
	g.listen(now)
	g.whole.rest(now)
	for _, p := range g.pacers {
		if !g.alone {
			p.release()
		}
		p.rest(now)
	}
}

// tell has the fleet know of a refusal. One in spite of the rate of the others
// means that the account bears less than they do, unless as much was let by lately.
func (g *Account) tell(r refusal, lately float64) {
	if g.borrows && lately < (1-near)*g.limiting().speed() {
		g.deaf = true
		g.whole.loosen()
	}
	if g.deaf || g.told == tells || r.all.after == 0 || r.all.after > tellFor.Seconds() {
		return
	}
	g.told++
	g.refusal = r
	first := g.fleet.tell(r)
	g.early = first && g.told == 1
}

// limiting returns the pacer of the bucket that ran dry.
func (g *Account) limiting() *pacer {
	if g.alone {
		return g.pacers[g.last]
	}
	return g.whole
}

// listen takes over what the fleet knows, unless the account knows better. The
// first to be refused go on from there until they are once more: two refusals far apart
// tell the rate to all others.
func (g *Account) listen(now time.Time) {
	if g.deaf || g.told == 0 || g.early && g.tries {
		return
	}
	g.heard = g.fleet.news.Load()
	p, ok := g.fleet.of(g.refusal)
	switch {
	case !ok:
	case g.early:
		g.tries, g.alone = true, p.alone
		g.limiting().probe(p, now)
	case g.borrows || p.alone != g.alone || g.limiting().worse(p.error):
		g.borrows, g.alone = true, p.alone
		g.limiting().borrow(p, now)
	}
}

// Clues are what tells which bucket ran dry: the action's own, or one that all share.
type clues struct {
	alone, certain bool    // what was thought so far: its own; and surely a shared one
	mixed          bool    // another action was refused just before
	busiest        bool    // no action makes more calls
	alike          float64 // how likely a shared one is to have refused this action alone
	whole, own     float64 // by how much the rates of all calls, and of its own, are others than the last time: see again
	tried          bool    // more of the others was tried before it
}

// mean reports whether they mean the action's own. A bucket's rate comes out the
// same again, and that of calls it does not count only by chance.
func (c clues) mean() bool {
	rare := chance
	if c.certain {
		rare = noChance
	}
	switch {
	case c.mixed, c.whole < 1 && c.own > 2:
		return false
	case c.own < 1 && c.whole > 2:
		return true
	case !c.busiest && c.alike >= noChance:
		return false
	}
	return c.alone || c.alike < rare || c.tried && c.whole > 1 && c.own < c.whole
}

// Succeeded notes that a call was answered well. Where a bucket that all actions share had just
// been emptied, a call of another action would hardly have found anything in it.
func (g *Account) Succeeded(c Pass) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if d := c.Sent.Sub(g.dry); d > 0 && d < soon {
		g.accepted++
		if c.action != g.last {
			g.alike *= float64(g.accepted) / float64(g.accepted+g.refused)
		}
	}
	g.pacers[c.action].succeeded()
	if g.whole == nil {
		return
	}
	g.whole.succeeded()
	if g.fleet.news.Load() != g.heard {
		g.listen(time.Now())
	}
	calls, ofAll := g.pacers[g.last].sinceEmpty(), g.whole.sinceEmpty()
	if ofAll >= sure && float64(calls) < drift*g.part*float64(ofAll) {
		g.part = 0
		g.whole.loosen()
	}
}

// Begin notes that another reading begins. What the last one left open stays as it
// is: nothing is refused for the sake of finding out, nor because of what others bear.
func (g *Account) Begin() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.part = 0
	if g.whole == nil {
		return
	}
	g.deaf = true
	now := time.Now()
	g.whole.settle(now)
	for _, p := range g.pacers {
		p.settle(now)
	}
}

// together returns the pacer of the account as a whole, nil while nothing was
// refused, and whether it limits or only counts.
func (g *Account) together() (whole *pacer, limits bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.whole, g.whole != nil && !g.alone
}

func newPacer(now time.Time) *pacer {
	return &pacer{rate: firstRate, tokens: firstBurst, filled: now, starting: true, faster: make(chan struct{})}
}

// A pacer is a token bucket that finds out how fast it may run. It begins at a
// safe rate with a burst, and doubles the rate with each good answer while calls wait
// for it, so that sixteen calls at once hardly ever do. The first throttle ends that: the rate falls to the safe one, or to
// what a bucket as large as the one that was emptied is refilled with at least.
// From there it grows while calls wait, fast where the rate that was too much is
// far away, and slowly near it. What is left unused below AWS's rate fills AWS's
// own bucket, so the swing around it costs no time.
//
// Between two throttles AWS's bucket was empty at both ends, so the calls sent in
// between and not refused are AWS's rate, exactly. Where they are few the pacer
// goes on a good deal below it and measures again. Once they were enough it stays
// just below for an hour, and nothing is refused any more; then it tries again
// whether more is borne, and where it is not, stays twice as long, up to a day.
// Where it turns out to be less than before, the account's own programs are taking
// their part, and it is tried again soon.
type pacer struct {
	mu       sync.Mutex
	rate     float64 // tokens a second
	tokens   float64
	filled   time.Time // up to when tokens are counted
	starting bool      // no throttle yet
	waited   bool      // a call had to wait since the last token was taken or the rate doubled
	sent     row       // tokens taken
	took     time.Time // when the last one was
	recent   float64   // tokens taken, older ones counting less: see use
	faster   chan struct{}

	noted   time.Time // when AWS's bucket was last seen to be empty; what was on its way then tells nothing new
	since   time.Time // when the call was sent that showed it; zero where the bucket has filled since
	from    int       // the number of that call
	refused int       // calls since

	cut     time.Time     // when the rate was last reduced
	tooMuch float64       // the rate before; 0 where it never was
	low     float64       // the rate when it was reduced
	ceiling float64       // AWS's rate, when it was last known well
	hold    float64       // what part of it is safe to use
	holding bool          // and no more is used
	held    time.Duration // for so long, from cut

	measured measure // what the rate was reduced by last
	last     measure // that told a rate
}

// fill counts the tokens up to now.
func (p *pacer) fill(now time.Time) {
	if d := now.Sub(p.filled); d > 0 {
		most := firstBurst
		if !p.starting {
			saved := steadyBurst
			if p.holding {
				saved = heldBurst
			}
			most = min(firstBurst, max(1, p.rate*saved.Seconds()))
		}
		p.tokens = min(most, p.tokens+p.rate*d.Seconds())
		p.filled = now
	}
}

// ready waits until there is a token, and does not take it.
func (p *pacer) ready(ctx context.Context) error {
	for {
		wait, faster := p.wait(time.Now())
		if wait == 0 {
			return ctx.Err()
		}
		t := time.NewTimer(wait)
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

// wait notes that a call wants to be sent, and returns how long it has to wait for
// that, unless faster is closed before; 0 where there is a token.
func (p *pacer) wait(now time.Time) (d time.Duration, faster <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fill(now)
	if p.tokens >= 1 {
		return 0, nil
	}
	p.waited = true
	d = time.Duration((1-p.tokens)/p.rate*float64(time.Second)) + max(0, p.filled.Sub(now))
	return max(d, time.Millisecond), p.faster
}

// take takes a token, if there is one, just before a call is sent; or counts the
// call only, where it does not limit. It returns the call's number, from 1; 0
// where there is no token.
func (p *pacer) take(now time.Time, limits bool) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fill(now)
	if limits && p.tokens < 1 {
		return 0
	}
	p.tokens = max(0, p.tokens-1)
	idle := now.Sub(p.took)
	if !p.starting && p.waited {
		p.rate = min(mostRate, p.rate*(1+p.growth(now)*min(idle, sameEvent).Seconds()))
		if p.holding && now.Sub(p.cut) < p.held {
			p.rate = min(p.rate, max(lowestRate, p.hold*p.ceiling))
		}
		p.waited = false
	}
	if idle > sameEvent {
		p.since = time.Time{}
	}
	p.recent = p.recent*fade(idle) + 1
	p.took = now
	return p.sent.add(now)
}

// growth returns by what part the rate grows in a second. Where calls are rare it
// grows more slowly, since it shows later what it is too much for.
func (p *pacer) growth(now time.Time) float64 {
	if p.tooMuch == 0 {
		return regrowth
	}
	slowly := min(mostGrowth, growth*(1+now.Sub(p.cut).Seconds()/patience.Seconds()))
	return max(slowly, gain*math.Log(p.tooMuch/p.rate)) * min(1, p.rate/firstRate)
}

// back gives a token back that was not used.
func (p *pacer) back() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tokens++
	p.recent--
	p.sent.calls--
}

// use returns how many tokens a second were taken lately, and how many ever.
func (p *pacer) use(now time.Time) (lately float64, ever int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.used(now), p.sent.calls
}

func (p *pacer) used(now time.Time) float64 {
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
	if p.starting && p.waited && p.rate < mostRate {
		p.fill(time.Now())
		p.rate = min(mostRate, 2*p.rate)
		p.waited = false
		close(p.faster)
		p.faster = make(chan struct{})
	}
}

// A measure is what AWS let by between two throttles.
type measure struct {
	news  bool // the throttle is none that is known already
	calls int
	rate  float64
}

// off returns by what part the rate is another.
func (m measure) off(than measure) float64 { return math.Abs(m.rate/than.rate - 1) }

// or returns the better of two measures of the same: a bucket that was full in
// between has run over, so that a measure is never too high.
func (m measure) or(other measure) measure {
	if other.rate > m.rate {
		return measure{m.news, other.calls, other.rate}
	}
	return m
}

// empty notes that AWS's bucket was empty when the call with that number was sent.
func (p *pacer) empty(sent, now time.Time, number int) measure {
	p.mu.Lock()
	defer p.mu.Unlock()
	if number > p.from {
		p.refused++
	}
	if !sent.After(p.noted) {
		return measure{}
	}
	m := measure{news: true}
	if !p.since.IsZero() {
		m.calls = number - p.from - p.refused
		m.rate = float64(m.calls) / max(sent.Sub(p.since), time.Millisecond).Seconds()
	}
	p.noted, p.since, p.from, p.refused = now, sent, number, 0
	return m
}

// lose notes that the call with that number was refused; see row.
func (p *pacer) lose(number int, sent time.Time) point {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent.lose(number, sent)
}

// again keeps what was measured, and returns by how much its rate is another than
// the one before: 1 is as much as chance may do, and NaN, which is neither less nor
// more than anything, where that cannot be said.
func (p *pacer) again(m measure) float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m.calls < some {
		return math.NaN()
	}
	last := p.last
	p.last = m
	if last.calls < some {
		return math.NaN()
	}
	return m.off(last) / (near/2 + 1/float64(min(m.calls, last.calls)))
}

// slow reduces the rate, which may have been none that limits; first are the calls
// of the account before its first throttle.
func (p *pacer) slow(m measure, now time.Time, first int, limits bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	rate := p.rate
	over := p.holding && now.Sub(p.cut) >= p.held
	switch {
	case m.calls >= some && limits && p.low < m.rate && rate > overfull*m.rate: // AWS's bucket was full meanwhile, and it bears more
		p.rate /= 2
	case m.calls >= sure:
		switch {
		case m.rate < (1-near)*p.ceiling:
			p.held = holdLess
		case m.rate > (1+near)*p.ceiling:
			p.held = holdFor
		default:
			p.held = min(max(holdFor, 2*p.held), mostHold)
		}
		p.holding, p.ceiling, p.hold = true, m.rate, most-1/float64(m.calls)
		p.rate = p.hold * m.rate
	case m.calls >= some:
		p.rate = below * m.rate
	case p.tooMuch == 0:
		rate = p.used(now)
		p.rate = max(firstRate, min(rate/3, float64(first)/4))
	case over: // more was tried
		p.rate = max(p.hold*p.ceiling, p.rate/2)
		p.holding = false
	default:
		rate = max(rate, p.tooMuch)
		p.rate /= 2
	}
	p.rate = max(lowestRate, p.rate)
	p.tooMuch, p.low, p.cut = rate, p.rate, now
	if m.calls >= some {
		p.measured = m
	}
}

// probe goes on a little above what is known roughly, so that AWS soon refuses
// again: from a bucket that ran over meanwhile nothing could be told.
func (p *pacer) probe(from prior, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rate = max(lowestRate, from.rate*(1+from.error+above))
	p.tooMuch, p.low, p.cut, p.holding = p.rate*(1+above), p.rate, now, false
}

// borrow stays just below a rate that others have measured.
func (p *pacer) borrow(from prior, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.holding {
		p.tooMuch, p.cut, p.held = max(p.rate, from.rate), now, holdFor
	}
	p.holding, p.ceiling, p.hold = true, from.rate, 1-from.error
	p.rate = max(lowestRate, p.hold*p.ceiling)
	p.low = p.rate
}

// settle stays well below the rate that was measured last, where that was lately
// and not good enough to stay just below it.
func (p *pacer) settle(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.measured.calls > 0 && !p.holding && now.Sub(p.cut) < holdFor {
		p.holding, p.held, p.ceiling, p.hold = true, holdFor, p.measured.rate, most-2/float64(p.measured.calls)
		p.rate = max(lowestRate, p.hold*p.ceiling)
	}
}

// worse reports whether the rate is not known as well as with that error.
func (p *pacer) worse(than float64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.holding || 1-p.hold > than
}

// holds reports whether the pacer stays below a rate that is known.
func (p *pacer) holds(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.holding && now.Sub(p.cut) < p.held
}

// sinceEmpty returns how many calls were sent since AWS's bucket was empty.
func (p *pacer) sinceEmpty() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent.calls - p.from
}

// loosen lets the pacer try what it bears.
func (p *pacer) loosen() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holding = false
}

// release lets the pacer go faster again: another bucket ran dry.
func (p *pacer) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tooMuch, p.cut, p.measured, p.holding = 0, time.Time{}, measure{}, false
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
