package pace

import (
	"testing"
	"time"
)

// Calls are counted from when the bucket was full: after a pause in which any that bears
// as much as accounts begin with filled up again, unless it has run dry once.
func TestRow(t *testing.T) {
	at := func(ms int) time.Time {
		return time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC).Add(time.Duration(ms) * time.Millisecond)
	}
	var r row
	r.add(at(0))
	r.add(at(60)) // not a call's worth later
	if p := r.lose(2, at(60)); p != (point{0.06, 1}) {
		t.Errorf("the second call met %v", p)
	}
	r.add(at(10_000))
	if p := r.lose(3, at(10_000)); p != (point{10, 1}) {
		t.Errorf("after it ran dry a call met %v", p)
	}

	r = row{}
	r.add(at(0))
	r.add(at(10))
	r.add(at(200)) // 2.85 calls' worth after two
	r.add(at(210))
	if p := r.lose(4, at(210)); p != (point{0.01, 1}) {
		t.Errorf("after a pause a call met %v", p)
	}
	if p := r.lose(2, at(10)); p != (point{}) {
		t.Errorf("of a call from before it %v is known", p)
	}
}
