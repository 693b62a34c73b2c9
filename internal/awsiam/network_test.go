package awsiam_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

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
			{"readings", 2, func(a serval.Account) error { _, err := r.Inventory(t.Context(), a, nil, nil); return err }},
			{"deltas", 1, func(a serval.Account) error {
				_, err := r.Delta(t.Context(), a, nil, time.Time{}, plenty)
				return err
			}},
		} {
			reading.most = 0
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
