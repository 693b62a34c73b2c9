package pace

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	tellFor   = time.Minute // after it
	tells     = 3           // refusals of one account
	mostTold  = 64          // are kept
	enough    = 6           // of them tell something
	straight  = 3.0         // calls by which they may lie beside the line, or so many times what they do on average
	ofThem    = 2. / 3      // do
	precisely = 0.1         // of the rate, the error of it
	more      = 0.25        // who bears so much more lies beside the line
	onlyIts   = 0.85        // of the refusals, of calls of an action that has a bucket of its own
)

// A Fleet is the accounts that one reader reads. AWS's throttles are of the same kind
// in most of them, and an account alone must be refused twice, with many calls in
// between, until its rate is known. But a bucket that was full with b, and takes r a
// second, has let by b + r·t calls when it is found to be empty after t. So accounts
// that are alike are points on one line, and its slope is known when each has been
// refused once.
//
// Whoever is refused and lies on the line as well, so far along that whoever bears
// more would not, takes its rate, and stays below it as below one of its own. Without
// a refusal no account is held to what others bear; one that is refused in spite of
// that rate measures for itself and listens to nobody any more; and so does everyone
// from the second reading on.
//
// The zero value has no accounts. It is safe for concurrent use.
type Fleet struct {
	news atomic.Int64 // how many refusals it was told of

	mu    sync.Mutex
	told  []refusal
	lines map[string]line // by action, "" of all together; as they were last asked for
}

// New returns the pace of one more account, of which nothing is known.
func (f *Fleet) New() *Account {
	return &Account{fleet: f, pacers: make(map[string]*pacer)}
}

// A row counts calls, and those of them that were refused, from a time on when the bucket
// was full: the first call's, or later where some calls were followed by a pause.
type row struct {
	calls, lost int
	before      int       // calls before it was full
	begun, last time.Time // when the first after that was sent, and the last
}

func (r *row) add(now time.Time) int {
	if r.lost == 0 && float64(r.calls-r.before) <= now.Sub(r.last).Seconds()*firstRate {
		r.before, r.begun = r.calls, now
	}
	r.calls++
	r.last = now
	return r.calls
}

// lose notes that the call with that number was refused, and returns what was let
// by before it; nothing where it was sent before the bucket was full.
func (r *row) lose(number int, sent time.Time) point {
	var p point
	if number > r.before {
		p = point{sent.Sub(r.begun).Seconds(), float64(number - 1 - r.before - r.lost)}
	}
	r.lost++
	return p
}

// A point is how many calls a bucket had let by when it was found to be empty.
type point struct{ after, calls float64 }

// A refusal has two points: of the action refused, and of all.
type refusal struct {
	action   string
	own, all point
}

// A line is what the buckets of one action have in common.
type line struct {
	rate, burst float64 // 0 where the points are not on one
	error       float64 // of the rate, as a part of it: twice the standard one
	off         float64 // calls by which the points lie beside it, on average
}

// beside is by how many calls a point of the line may lie beside it.
func (l line) beside() float64 { return max(straight, straight*l.off) }

// near reports whether the point is on the line too.
func (l line) near(p point) bool {
	return math.Abs(p.calls-l.burst-l.rate*p.after) <= l.beside()
}

// tells reports whether the point says something of the rate: a burst that ends at
// once looks the same whatever is borne.
func (l line) tells(p point) bool { return more*l.rate*p.after > l.beside() }

// tell notes a refusal, and reports whether it is one of the first.
func (f *Fleet) tell(r refusal) (early bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lines = make(map[string]line)
	n := int(f.news.Add(1))
	if len(f.told) < mostTold {
		f.told = append(f.told, r)
	} else {
		f.told[n%mostTold] = r
	}
	return n <= enough
}

// line returns what the refusals of the action have in common; "" of all. The
// caller holds the mutex.
func (f *Fleet) line(action string) line {
	l, ok := f.lines[action]
	if ok {
		return l
	}
	var points []point
	for _, r := range f.told {
		switch {
		case action == "":
			points = append(points, r.all)
		case action == r.action && r.own.after > 0:
			points = append(points, r.own)
		}
	}
	l = draw(points)
	f.lines[action] = l
	return l
}

// draw puts a line through most of the points.
func draw(points []point) line {
	var l line
	if len(points) < enough {
		return l
	}
	type slope struct{ of, weight float64 }
	var slopes []slope
	sum := 0.0
	for i, p := range points {
		for _, q := range points[:i] {
			if d := p.after - q.after; d != 0 {
				slopes = append(slopes, slope{(p.calls - q.calls) / d, math.Abs(d)})
				sum += math.Abs(d)
			}
		}
	}
	slices.SortFunc(slopes, func(a, b slope) int { return cmp.Compare(a.of, b.of) })
	var rate float64
	for half := sum / 2; half > 0 && len(slopes) > 0; slopes = slopes[1:] {
		rate = slopes[0].of
		half -= slopes[0].weight
	}
	var bursts []float64
	for _, p := range points {
		bursts = append(bursts, p.calls-rate*p.after)
	}
	slices.Sort(bursts)
	rough := line{rate: rate, burst: bursts[len(bursts)/2], off: 1}
	var on []point
	var after, calls float64
	first, last := math.Inf(1), 0.0
	for _, p := range points {
		if rough.near(p) {
			on = append(on, p)
			first, last = min(first, p.after), max(last, p.after)
			after += p.after
			calls += p.calls
		}
	}
	n := float64(len(on))
	if len(on) < enough || n < ofThem*float64(len(points)) {
		return l
	}
	after, calls = after/n, calls/n
	var spread, both, off float64
	for _, p := range on {
		spread += (p.after - after) * (p.after - after)
		both += (p.after - after) * (p.calls - calls)
	}
	rate = both / spread
	burst := calls - rate*after
	for _, p := range on {
		d := p.calls - burst - rate*p.after
		off += d * d
	}
	l.off = max(0.5, math.Sqrt(off/n))
	l.error = max(2*l.off/math.Sqrt(spread), 0.5/(last-first)) / rate // half a call more at an end, however many lie there
	if rate > 0 {
		l.rate, l.burst = rate, burst
	}
	return l
}

// A prior is what an account may take over.
type prior struct {
	alone bool // the bucket is the action's own
	rate  float64
	error float64
}

// of returns what an account that was refused so has in common with the others. The
// bucket is the action's own where nearly nothing else is refused; nothing is said
// where it makes so many of the calls that this may be chance.
func (f *Fleet) of(r refusal) (prior, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, own, all := 0, 0.0, 0.0
	for _, one := range f.told {
		if one.action == r.action {
			n, own, all = n+1, own+one.own.calls, all+one.all.calls
		}
	}
	only := float64(n) >= onlyIts*float64(len(f.told))
	l, p := f.line(""), r.all
	if only {
		l, p = f.line(r.action), r.own
	}
	byChance := only && atMost(n, len(f.told), own/all) > noChance
	return prior{only, l.rate, l.error}, !byChance && l.rate > 0 && l.error < precisely && l.near(p) && l.tells(p)
}

// atMost returns how likely it is, at most, that n or more of so many refusals are of
// calls that make that share of all (Chernoff's bound).
func atMost(n, of int, share float64) float64 {
	part := float64(n) / float64(of)
	if part <= share {
		return 1
	}
	far := part * math.Log(part/share)
	if part < 1 {
		far += (1 - part) * math.Log((1-part)/(1-share))
	}
	return math.Exp(-far * float64(of))
}
