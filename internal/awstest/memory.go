package awstest

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// Dialer serves the cloud in memory and returns how to reach it, for an http.Transport's DialContext:
// every address leads here, over plain HTTP. Called within a bubble of testing/synctest it lets time pass
// at once. Close ends it, and must be called before the bubble's test returns.
func (c *Cloud) Dialer() func(ctx context.Context, network, address string) (net.Conn, error) {
	l := &pipes{waiting: make(chan net.Conn), closed: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	s := &http.Server{
		Handler:           c,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: time.Minute,
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l) // always ends with ErrServerClosed
	}()
	c.servers.Lock()
	defer c.servers.Unlock()
	c.closers = append(c.closers, func() {
		cancel() // what hangs lets go
		_ = s.Close()
		<-done
	})
	return l.dial
}

// pipes is a listener of which every dial makes a pair of connected ends.
type pipes struct {
	waiting chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func (l *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case l.waiting <- far:
		return near, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "dial", Net: "pipe", Err: net.ErrClosed}
	case <-ctx.Done():
		return nil, &net.OpError{Op: "dial", Net: "pipe", Err: ctx.Err()}
	}
}

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-l.waiting:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipes) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipes) Addr() net.Addr { return pipeAddress{} }

type pipeAddress struct{}

func (pipeAddress) Network() string { return "pipe" }
func (pipeAddress) String() string  { return "pipe" }
