package bridge

import (
	"net"
	"sync"
	"sync/atomic"
)

// maxConnections is how many connections pages and API hold at a time. Those
// that say nothing are closed within seconds; a person's browser has a few.
const maxConnections = 10_000

// A capped listener closes at once what comes beyond the most that it holds, so
// that memory and files are bounded whoever comes.
type capped struct {
	net.Listener
	most int64
	held atomic.Int64
}

// Accept returns the next connection that there is room for.
func (l *capped) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.held.Add(1) <= l.most {
			return &counted{Conn: conn, gone: sync.OnceFunc(func() { l.held.Add(-1) })}, nil
		}
		l.held.Add(-1)
		conn.Close()
	}
}

// A counted connection is held until it is closed.
type counted struct {
	net.Conn
	gone func()
}

// Close closes the connection.
func (c *counted) Close() error {
	c.gone()
	return c.Conn.Close()
}
