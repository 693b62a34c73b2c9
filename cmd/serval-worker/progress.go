package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/serval-bridge/serval-bridge/internal/awsiam"
)

// redraw is how far apart two looks at a reading are, at least.
const redraw = 200 * time.Millisecond

// A meter shows how far a reading is, over and over in one line of a terminal.
// Where w is none it shows nothing.
type meter struct {
	w     io.Writer
	width func() int
	now   func() time.Time

	mu               sync.Mutex // guards what follows
	started, shown   time.Time
	calls, throttled int
	at               awsiam.Progress
	since            time.Time // when the first role was read
	before           int       // roles read then
}

// newMeter returns a meter for w, which is to be a terminal.
func newMeter(w io.Writer) *meter {
	m := &meter{w: io.Discard, width: func() int { return 0 }, now: time.Now}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		m.w = w
		m.width = func() int {
			columns, _, err := term.GetSize(int(f.Fd()))
			if err != nil {
				return 80
			}
			return columns
		}
	}
	return m
}

// called counts a call of AWS.
func (m *meter) called(c awsiam.Call) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls++
	if c.Throttled {
		m.throttled++
	}
	m.draw()
}

// advanced takes over how far the reading is.
func (m *meter) advanced(p awsiam.Progress) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.since.IsZero() && p.Read > 0 {
		m.since, m.before = m.now(), p.Read
	}
	m.at = p
	m.draw()
}

// done takes the line away.
func (m *meter) done() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.shown.IsZero() {
		fmt.Fprint(m.w, "\r\x1b[K")
	}
}

func (m *meter) draw() {
	now := m.now()
	if m.started.IsZero() {
		m.started = now
	}
	if m.w == io.Discard || now.Sub(m.shown) < redraw {
		return
	}
	m.shown = now
	fmt.Fprint(m.w, "\r\x1b[K"+m.line(now, max(0, m.width()-1))) // a line that wraps is not gone over again
}

// line says it all, or in fewer columns less: the time left is the last to go.
func (m *meter) line(now time.Time, columns int) string {
	var read, tagged, left string
	if m.at.Listed > 0 {
		read = fmt.Sprintf("%d/%d", m.at.Read, m.at.Listed)
		if !m.at.AllListed {
			read += " or more"
		}
		read += " roles"
		tagged = fmt.Sprintf("%d tagged", m.at.Tagged)
	}
	calls, throttled := fmt.Sprintf("%d calls", m.calls), fmt.Sprintf("%d throttled", m.throttled)
	if took := now.Sub(m.started); took >= time.Second {
		calls += fmt.Sprintf(" (%.0f/s)", float64(m.calls)/took.Seconds())
	}
	if took := now.Sub(m.since); !m.since.IsZero() && m.at.AllListed && took >= time.Second && m.at.Read > m.before {
		rest := time.Duration(float64(took) / float64(m.at.Read-m.before) * float64(m.at.Listed-m.at.Read))
		left = roughly(max(0, rest)) + " left"
	}
	var line string
	for _, parts := range [][]string{
		{read, tagged, calls, throttled, left},
		{read, calls, throttled, left},
		{read, calls, left},
		{read, left},
		{left},
	} {
		parts = slices.DeleteFunc(parts, func(part string) bool { return part == "" })
		if len(parts) == 0 {
			break
		}
		if line = strings.Join(parts, ", "); len(line) <= columns {
			return line
		}
	}
	return line[:columns]
}

// roughly returns d in seconds, or where they are many in minutes.
func roughly(d time.Duration) string {
	if d = d.Round(time.Second); d < 100*time.Second {
		return fmt.Sprintf("%.0fs", d.Seconds())
	}
	return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
}
