package awsiam_test

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"
)

// A drawn is what can be reached at all with the details: calls as they need one another, each as long as it happens
// to take, made by one who knows which call needs which and what the throttle is, and no answer's time before it has come.
type drawn struct {
	accounts      int
	chain, beside int // pages of the details and of roles in each account, after AssumeRole
	policies      int // of AWS's, two calls one after the other; known with the first page of the details
	slots         int // calls in flight
	perSecond     float64
	burst         float64
	each          bool // the throttle is one of GetPolicy, and one as much of GetPolicyVersion
}

// drawn returns that of a measurement.
func (m measured) drawn() drawn {
	d := map[string]drawn{
		"one1000":  {accounts: 1, chain: 2, beside: 1, policies: 57, slots: 16},
		"one5000":  {accounts: 1, chain: 6, beside: 5, policies: 60, slots: 16},
		"fifty200": {accounts: 50, chain: 1, beside: 1, policies: 60, slots: 64},
	}[m.Estate]
	if d.accounts > 1 {
		return d // no account makes as many calls as are let by at once
	}
	switch m.Throttle {
	case "100/s":
		d.perSecond, d.burst = 100, 100
	case "20/s":
		d.perSecond, d.burst = 20, 40
	case "per action":
		d.perSecond, d.burst, d.each = 35, 35, true
	}
	return d
}

// mean returns how long the better of the two orders takes on average: those policies first of which nothing is known, or
// those whose version is.
func (d drawn) mean() time.Duration {
	const draws = 1000
	var sums [2]time.Duration
	for order := range sums {
		for range draws {
			sums[order] += d.once(order == 1)
		}
	}
	return min(sums[0], sums[1]) / draws
}

// What a call is; those of one kind wait together.
const (
	assuming = iota
	detailing
	listing
	asking // GetPolicy
	fetching
	kinds
)

// An underway is a call in flight.
type underway struct {
	ends time.Duration
	kind int
	left int // of its list
}

// flights are calls in flight, the one that ends first before all others.
type flights []underway

func (f flights) Len() int           { return len(f) }
func (f flights) Less(i, j int) bool { return f[i].ends < f[j].ends }
func (f flights) Swap(i, j int)      { f[i], f[j] = f[j], f[i] }
func (f *flights) Push(x any)        { *f = append(*f, x.(underway)) }
func (f *flights) Pop() any {
	last := (*f)[len(*f)-1]
	*f = (*f)[:len(*f)-1]
	return last
}

// once returns how long one draw takes.
func (d drawn) once(versionsFirst bool) time.Duration {
	var now time.Duration
	var inFlight flights
	var waiting [kinds][]underway
	named, used := false, 0
	tokens := map[int]float64{}
	filled := map[int]time.Duration{}
	bucket := func(kind int) (which int, limited bool) {
		if d.each {
			return kind, kind == asking || kind == fetching
		}
		return 0, d.perSecond > 0
	}
	// takes reports whether the throttle lets a call by now, or when it will.
	takes := func(kind int) (ok bool, at time.Duration) {
		b, limited := bucket(kind)
		if !limited {
			return true, 0
		}
		if _, known := tokens[b]; !known {
			tokens[b] = d.burst
		}
		tokens[b] = min(d.burst, tokens[b]+d.perSecond*(now-filled[b]).Seconds())
		filled[b] = now
		if tokens[b] < 1-1e-9 {
			return false, now + time.Duration((1-tokens[b])/d.perSecond*float64(time.Second)) + 1
		}
		tokens[b]--
		return true, 0
	}
	order := []int{detailing, listing, asking, fetching}
	if versionsFirst {
		order = []int{detailing, listing, fetching, asking}
	}
	for range d.accounts {
		heap.Push(&inFlight, underway{ends: latency(), kind: assuming})
	}
	for {
		var next time.Duration
		for _, kind := range order {
			for len(waiting[kind]) > 0 && used < d.slots {
				ok, at := takes(kind)
				if !ok {
					if next == 0 || at < next {
						next = at
					}
					break
				}
				c := waiting[kind][0]
				waiting[kind] = waiting[kind][1:]
				c.ends = now + latency()
				used++
				heap.Push(&inFlight, c)
			}
		}
		if len(inFlight) == 0 && next == 0 {
			return now
		}
		if next > 0 && (len(inFlight) == 0 || next < inFlight[0].ends) {
			now = next
			continue
		}
		c := heap.Pop(&inFlight).(underway)
		now = c.ends
		if c.kind != assuming {
			used--
		}
		switch c.kind {
		case assuming:
			waiting[detailing] = append(waiting[detailing], underway{kind: detailing, left: d.chain})
			waiting[listing] = append(waiting[listing], underway{kind: listing, left: d.beside})
		case detailing, listing:
			if c.kind == detailing && !named {
				named = true
				for range d.policies {
					waiting[asking] = append(waiting[asking], underway{kind: asking})
				}
			}
			if c.left--; c.left > 0 {
				waiting[c.kind] = append(waiting[c.kind], c)
			}
		case asking:
			waiting[fetching] = append(waiting[fetching], underway{kind: fetching})
		}
	}
}

// inFlightAndRefused returns a table of how long the reading of one1000 with the details takes with so many in flight, and what
// part of its calls is refused at 20 a second: at the end of a burst whose size nobody knows, all that is on its way.
func inFlightAndRefused() string {
	table := "| in flight | seconds | of what can be drawn | refused | % |\n| ---: | ---: | ---: | ---: | ---: |\n"
	free := measured{"one1000", true, ""}
	best := free.drawn().mean()
	for _, k := range []int{1, 2, 4, 8, 12, 14, 16} {
		d := free.drawn()
		d.slots = k
		wall := d.mean()
		// Of those in flight when the last token goes, the ones sent before it were let by: the call that takes it is
		// answered, and tells nothing; the next one is refused, and with it all that are sent until its answer comes.
		const draws = 2000
		refused := 0
		for range draws {
			refused += refusedAtOnce(k)
		}
		n := float64(refused) / draws
		table += fmt.Sprintf("| %d | %.2f | %.2f | %.1f | %.1f |\n", k, wall.Seconds(), float64(wall)/float64(best), n, 100*n/(117+n))
	}
	return table
}

// refusedAtOnce returns how many of k in flight are refused when a burst ends, where each answer lets the next call go until
// the first refusal has come.
func refusedAtOnce(k int) (n int) {
	ends := make([]time.Duration, k) // of calls that were let by, and have been on their way for a while
	for i := range ends {
		ends[i] = time.Duration(rand.Float64() * float64(latency()))
	}
	first := time.Duration(-1)
	for {
		i := 0
		for j := range ends {
			if ends[j] < ends[i] {
				i = j
			}
		}
		now := ends[i]
		if first >= 0 && now >= first {
			return n
		}
		ends[i] = now + latency()
		n++
		if first < 0 || ends[i] < first {
			first = ends[i]
		}
	}
}
