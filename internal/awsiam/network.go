package awsiam

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// A network is how connections to AWS are opened: one pool for each way, kept
// as long as the Reader, so that a thousand calls need sixteen handshakes.
type network struct {
	direct *http.Transport

	mu   sync.Mutex
	ways map[way]*http.Transport
}

// A way is a detour that an account asks for.
type way struct {
	dial  string // host:port in place of the endpoint's
	proxy string // URL
}

func newNetwork(direct *http.Transport) *network {
	return &network{direct: direct, ways: make(map[way]*http.Transport)}
}

// client returns the HTTP client for one way. A dial address leads past the
// proxy: there would be nothing left for it to replace.
func (n *network) client(w way, seen func(skew time.Duration)) (*wire, error) {
	if w.dial != "" {
		w.proxy = ""
	}
	if w == (way{}) {
		return &wire{transport: n.direct, seen: seen}, nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	t := n.ways[w]
	if t == nil {
		t = n.direct.Clone()
		if w.proxy != "" {
			u, err := url.Parse(w.proxy)
			if err != nil {
				return nil, errors.New("the proxy's URL cannot be read") // it may hold a password
			}
			t.Proxy = http.ProxyURL(u)
		}
		if w.dial != "" {
			open := t.DialContext
			t.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
				return open(ctx, network, w.dial) // Host, SNI and signature stay the endpoint's
			}
		}
		n.ways[w] = t
	}
	return &wire{transport: t, seen: seen}, nil
}

func (n *network) close() {
	n.direct.CloseIdleConnections()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, t := range n.ways {
		t.CloseIdleConnections()
	}
}

// A wire carries requests of the SDK. It follows no redirect, learns the skew
// of the clocks, and lets no answer pass that says 200 and nothing else: to the
// SDK that is an account without roles.
type wire struct {
	transport *http.Transport
	seen      func(skew time.Duration)
	turns     []chan struct{} // each is had while a good answer is read
}

// inTurn returns a wire whose good answers are read only with all of the turns in
// hand. Until then they wait where they are, outside of our memory.
func (w *wire) inTurn(turns ...chan struct{}) *wire {
	return &wire{w.transport, w.seen, turns}
}

// maxAnswer bounds an answer: a page of a thousand roles has at most some twenty
// million bytes.
const maxAnswer = 64 << 20

// mostTurn bounds a turn: an answer that comes so slowly takes little memory for each
// second, and must not use up the time that other accounts have for theirs.
const mostTurn = 2 * time.Second

var (
	errEmpty = errors.New("AWS answered 200 with nothing in it")
	errLarge = errors.New("AWS answered more than 64 MiB")
)

// Do sends one request.
func (w *wire) Do(r *http.Request) (*http.Response, error) {
	sent := time.Now()
	res, err := w.transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if date, err := http.ParseTime(res.Header.Get("Date")); err == nil {
		took := time.Since(sent)
		w.seen(date.Sub(sent.Add(took / 2)).Round(time.Second))
	}
	if res.StatusCode == http.StatusOK {
		res.Body = &body{ReadCloser: res.Body, left: maxAnswer, ctx: r.Context(), turns: w.turns}
	}
	return res, nil
}

// A body is the body of a good answer, which is neither empty nor endless.
type body struct {
	io.ReadCloser
	left  int64
	some  bool
	ctx   context.Context // of the request
	turns []chan struct{} // still to be waited for
	leave []func()        // gives one back, once
}

func (b *body) Read(p []byte) (int, error) {
	for len(b.turns) > 0 {
		select {
		case b.turns[0] <- struct{}{}:
			turn := b.turns[0]
			leave := sync.OnceFunc(func() { <-turn })
			over := time.AfterFunc(mostTurn, leave)
			b.leave = append(b.leave, func() { over.Stop(); leave() })
			b.turns = b.turns[1:]
		case <-b.ctx.Done():
			return 0, b.ctx.Err()
		}
	}
	n, err := b.ReadCloser.Read(p)
	b.some = b.some || n > 0
	b.left -= int64(n)
	switch {
	case b.left < 0:
		return n, errLarge
	case errors.Is(err, io.EOF) && !b.some:
		return n, errEmpty
	}
	return n, err
}

// Close gives back the turns that are not over. The SDK closes every answer when it has read it.
func (b *body) Close() error {
	for _, leave := range b.leave {
		leave()
	}
	return b.ReadCloser.Close()
}
