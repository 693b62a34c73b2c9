package memory

import (
	"testing"
	"testing/synctest"
	"time"
)

// What is remembered is so for a second, in bounded number, and while nothing was
// written to what it was read from.
func TestMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reads := 0
		get := func(m *Memory, of string, asOf uint64, tables ...string) {
			key, began := Key{"x", of}, time.Now()
			if _, holds := m.Get(key, tables); !holds {
				reads++
				m.Put(key, reads, asOf, began)
			}
		}
		m := &Memory{Aside: map[string]bool{"aside": true}}
		m.Switch(true)
		read := func(of string) { get(m, of, 0, "a", "b") }
		want := func(what string, n int) {
			t.Helper()
			if reads != n {
				t.Errorf("%s: read %d times, want %d", what, reads, n)
			}
		}
		read("1")
		read("1")
		want("twice", 1)
		read("2")
		want("another", 2)
		m.Written("c")
		read("1")
		want("another table was written to", 2)
		m.Written("b")
		read("1")
		want("its table was written to", 3)
		time.Sleep(rememberFor - 1)
		get(m, "1", m.Now(), "a", "b")
		want("written to before, and read by who knows", 4)
		time.Sleep(rememberFor - 1)
		read("1")
		want("just below a second", 4)
		time.Sleep(time.Nanosecond)
		read("1")
		want("a second", 5)

		all := func() { get(m, "all", m.Now(), Everything) }
		all()
		m.Written("aside")
		all()
		want("everything, and a table aside was written to", 6)
		m.Written("c")
		all()
		want("everything, and a table was written to", 7)

		for i := range 2 * rememberMost {
			m.Put(Key{"x", string(rune(i))}, nil, 0, time.Now())
		}
		if len(m.known) > rememberMost {
			t.Errorf("%d values are remembered, want at most %d", len(m.known), rememberMost)
		}
	})
}

// Switched off, it notes nothing: what is remembered by then must not be asked for.
func TestOff(t *testing.T) {
	var m Memory
	m.Written("a")
	if m.IsOn() || m.Now() != 0 {
		t.Errorf("on: %t, at write %d; want nothing noted", m.IsOn(), m.Now())
	}
}
