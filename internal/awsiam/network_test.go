package awsiam_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/serval-bridge/serval-bridge/internal/awsiam"
	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// However many accounts are read at once, few of the long answers are: the calls are all made, and what was not come to
// yet waits where it takes no memory of ours. Of deltas there is one, so that full readings go on beside them.
func TestFewLongAnswersAreReadAtOnce(t *testing.T) {
	const long = 200_000
	inBubble(t, func(t *testing.T, e *estate, _ *awstest.Account, _ serval.Account) {
		e.config.Total = 32
		var accounts []serval.Account
		for i := range 10 {
			o, a := e.connect(fmt.Sprintf("5555%08d", i))
			allowDetails(o)
			accounts = append(accounts, a)
		}
		for _, action := range []string{"ListRoles", details} {
			e.Inject(awstest.Fault{Action: action, Mutate: func(body []byte) []byte {
				return append(body, strings.Repeat("\n", long)...)
			}})
		}
		var reading tally
		dial := e.config.Dial
		e.config.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dial(ctx, network, address)
			return &slowly{Conn: c, long: long, reading: &reading}, err
		}
		r := e.reader(t)
		e.SetLatency(func() time.Duration { return 40 * time.Millisecond })
		for _, how := range []struct {
			name string
			most int
			read func(serval.Account) error
		}{
			{"readings", 2, func(a serval.Account) error { _, err := r.Inventory(t.Context(), a, nil, "", nil); return err }},
			{"deltas", 1, func(a serval.Account) error {
				_, err := r.Delta(t.Context(), a, nil, time.Time{}, plenty)
				return err
			}},
		} {
			reading.most = 0
			start := time.Now()
			var g errgroup.Group
			for _, a := range accounts {
				g.Go(func() error { return how.read(a) })
			}
			if err := g.Wait(); err != nil {
				t.Fatal(err)
			}
			if reading.most != how.most {
				t.Errorf("%s: %d long answers were read at once, want %d", how.name, reading.most, how.most)
			}
			if took := time.Since(start); took > 3*time.Second { // some fifty milliseconds for each of twenty answers
				t.Errorf("%s: it took %s, want a turn to end with its answer", how.name, took)
			}
			first := make(map[time.Time]int)
			for _, c := range e.Calls() {
				if c.Action == "ListRoles" {
					first[c.At]++
				}
			}
			if how.name == "readings" && len(first) != 1 {
				t.Errorf("ten accounts were asked for their roles at %d times, want all at once", len(first))
			}
		}
	})
}

// Accounts whose answers come too slowly do not keep those of others waiting until they are given up too.
func TestSlowAnswersHoldNobodyUp(t *testing.T) {
	inBubble(t, func(t *testing.T, e *estate, _ *awstest.Account, _ serval.Account) {
		e.config.Total = 32 // of which two long answers are read at once
		var prompt, late []serval.Account
		for i := range prompts {
			_, a := e.connect(fmt.Sprintf("5555%08d", i))
			prompt = append(prompt, a)
			e.Inject(awstest.Fault{Action: "ListRoles", Account: a.ID, Delay: 5 * time.Second, Times: 1})
		}
		for i := range stalled {
			_, a := e.connect(fmt.Sprintf("6666%08d", i))
			late = append(late, a)
		}
		e.Inject(awstest.Fault{Action: "ListRoles", Mutate: func(body []byte) []byte {
			return bytes.Replace(body, []byte("<Roles>"), []byte("<Roles>"+strings.Repeat("\n", 200_000)), 1)
		}})
		var lists, slow atomic.Int64
		dial := e.config.Dial
		e.config.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dial(ctx, network, address)
			return &stalling{Conn: c, lists: &lists}, err
		}
		e.config.Observe = func(c awsiam.Call) {
			if c.Code == "Timeout" {
				slow.Add(1)
			}
		}
		r := e.reader(t)
		var both sync.WaitGroup
		both.Go(func() { readAll(t, r, prompt) })
		time.Sleep(time.Second) // asked later, and answered before
		both.Go(func() { readAll(t, r, late) })
		both.Wait()
		if n := slow.Load(); n != stalled {
			t.Errorf("%d answers were given up, want the %d that came slowly", n, stalled)
		}
	})
}

// How many lists of roles come slowly, after those that do not.
const prompts, stalled = 7, 3

// A stalling connection takes a second for each piece of an answer that is to come slowly.
type stalling struct {
	net.Conn
	lists *atomic.Int64
	slow  atomic.Bool
}

func (c *stalling) Write(p []byte) (int, error) {
	n := int64(0)
	if bytes.Contains(p, []byte("Action=ListRoles&")) {
		n = c.lists.Add(1)
	}
	c.slow.Store(n > prompts && n <= prompts+stalled)
	return c.Conn.Write(p)
}

func (c *stalling) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == nil && c.slow.Load() {
		time.Sleep(time.Second)
	}
	return n, err
}

// A slowly arriving connection counts itself among those of which a long answer is being read: what comes before that
// are the headers and what is read ahead.
type slowly struct {
	net.Conn
	long, got int
	reading   *tally
}

func (c *slowly) Write(p []byte) (int, error) {
	c.got = 0
	return c.Conn.Write(p)
}

func (c *slowly) Read(p []byte) (int, error) {
	const ahead = 16_000
	n, err := c.Conn.Read(p)
	before := c.got
	c.got += n
	if before < ahead && c.got >= ahead {
		c.reading.add(1)
	}
	if before < c.long && c.got >= c.long {
		c.reading.add(-1)
	}
	if err == nil {
		time.Sleep(time.Millisecond)
	}
	return n, err
}

// A tally counts what is under way.
type tally struct {
	mu        sync.Mutex
	now, most int
}

func (t *tally) add(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now += n
	t.most = max(t.most, t.now)
}
