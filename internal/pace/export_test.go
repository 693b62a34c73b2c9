package pace

import "time"

// Wants does what Ready does, and does not wait. It reports whether Take is worth a try: the action has a token of its own.
func (g *Account) Wants(action string) bool {
	if d, _ := g.pacer(action).wait(time.Now()); d > 0 {
		return false
	}
	if whole, limits := g.together(); limits {
		whole.wait(time.Now())
	}
	return true
}

// Clues are clues.
type Clues struct {
	Alone, Certain, Mixed, Busiest bool
	Alike, Whole, Own              float64
	Tried                          bool
}

// Mean is clues.mean.
func (c Clues) Mean() bool {
	return clues{c.Alone, c.Certain, c.Mixed, c.Busiest, c.Alike, c.Whole, c.Own, c.Tried}.mean()
}

// MostTold is mostTold.
const MostTold = mostTold

// Told returns how many refusals the fleet keeps.
func (f *Fleet) Told() int { return len(f.told) }

// Tell is tell: of an action that had made so many of all calls when it was refused.
func (f *Fleet) Tell(action string, after, own, all float64) {
	f.tell(refusal{action, point{after, own}, point{after, all}})
}

// Of is of.
func (f *Fleet) Of(action string, after, own, all float64) (alone bool, rate float64, ok bool) {
	p, ok := f.of(refusal{action, point{after, own}, point{after, all}})
	return p.alone, p.rate, ok
}
