package pgtest

import (
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// A Proxy stands between a program and a PostgreSQL of this package, and cuts the
// connection where it is told to: before a statement arrives, or after it was done
// and before anybody hears of it.
type Proxy struct {
	listener net.Listener
	to       string // the server's socket

	mu    sync.Mutex
	sent  int  // statements
	left  int  // of them until the cut, counted over all connections; 0: none
	after bool // the cut is after the statement
	falls bool // at the cut everything goes down
	cuts  int
	down  bool
	open  map[net.Conn]bool
	gone  sync.Cond // that a connection is closed
}

// NewProxy returns a proxy to the server of an address, and the address through
// it. It ends with the test.
func NewProxy(t testing.TB, address string) (*Proxy, string) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	dir, err := os.MkdirTemp("/tmp", "pgproxy") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL.5432"))
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: l, to: filepath.Join(q.Get("host"), ".s.PGSQL."+q.Get("port")), open: map[net.Conn]bool{}}
	p.gone.L = &p.mu
	q.Set("host", dir)
	q.Set("port", "5432")
	u.RawQuery = q.Encode()
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { p.serve(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.Down(true)
		serving.Wait()
		os.RemoveAll(dir)
	})
	return p, u.String()
}

// Cut has the connection that sends the nth statement from now on cut there; with
// after once the statement was done. Zero cuts nothing.
func (p *Proxy) Cut(nth int, after bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left, p.after, p.falls = nth, after, false
}

// Fall is Cut before the nth statement, and Down with it.
func (p *Proxy) Fall(nth int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left, p.after, p.falls = nth, false, true
}

// Cuts returns how many connections were cut at a statement.
func (p *Proxy) Cuts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cuts
}

// Sent returns how many statements were sent so far; those that are sent together
// and waited for once count as one.
func (p *Proxy) Sent() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent
}

// Down cuts every connection and lets none through, until it is called with false.
// It returns when each is closed, so that what is sent next arrives nowhere: two that
// close one at the same time do not wait for each other by themselves.
func (p *Proxy) Down(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.fall(down); down && len(p.open) > 0; {
		p.gone.Wait()
	}
}

func (p *Proxy) fall(down bool) {
	if p.down = down; down {
		for conn := range p.open {
			conn.Close()
		}
	}
}

// admit notes a pair of connections, or reports that none is let through.
func (p *Proxy) admit(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		p.open[c] = true
	}
	return !p.down
}

func (p *Proxy) forget(conns ...net.Conn) {
	for _, c := range conns {
		c.Close()
		p.mu.Lock()
		delete(p.open, c)
		p.mu.Unlock()
	}
	p.gone.Broadcast()
}

// due reports whether the statement that a connection is about to send is the one
// to be cut at.
func (p *Proxy) due() (now, after bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent++
	if p.left == 0 {
		return false, false
	}
	if p.left--; p.left > 0 {
		return false, false
	}
	p.cuts++
	if p.falls {
		p.fall(true)
	}
	return true, p.after
}

func (p *Proxy) serve(client net.Conn) {
	server, err := net.Dial("unix", p.to)
	if err != nil {
		client.Close()
		return
	}
	defer p.forget(client, server)
	if !p.admit(client, server) {
		return
	}
	var mu sync.Mutex
	silent := false // what the server says is not passed on any more
	done := make(chan struct{})
	answered := make(chan struct{}, 1)
	go func() {
		defer close(done)
		for {
			message, err := read(server, false)
			if err != nil {
				client.Close()
				return
			}
			mu.Lock()
			quiet := silent
			mu.Unlock()
			if quiet {
				if message[0] == 'Z' { // ready for the next: the statement is done
					answered <- struct{}{}
				}
				continue
			}
			if _, err := client.Write(message); err != nil {
				return
			}
		}
	}()
	defer func() {
		client.Close()
		server.Close()
		<-done
	}()
	var held []byte
	for first := true; ; first = false {
		message, err := read(client, first)
		if err != nil {
			return
		}
		var kind byte
		if !first {
			kind = message[0]
		}
		held = append(held, message...)
		switch kind {
		case 'P', 'B', 'D', 'E', 'C':
			// What the extended protocol sends goes on with its Sync: without it, too, it would
			// be done, commits and all, while whoever sent it hears that it was cut.
			continue
		}
		message, held = held, nil
		// Sync ends what was sent of the extended protocol; Query is a whole one.
		if kind == 'S' || kind == 'Q' {
			if now, after := p.due(); now && !after {
				return
			} else if now {
				mu.Lock()
				silent = true
				mu.Unlock()
				if _, err := server.Write(message); err == nil {
					select {
					case <-answered:
					case <-done:
					}
				}
				return
			}
		}
		if _, err := server.Write(message); err != nil {
			return
		}
	}
}

// maxMessage bounds a message of the protocol.
const maxMessage = 64 << 20

// read reads a message; the first that a client sends has no type.
func read(from io.Reader, first bool) ([]byte, error) {
	head := make([]byte, 5)
	if first {
		head = head[:4]
	}
	if _, err := io.ReadFull(from, head); err != nil {
		return nil, err
	}
	size := int(binary.BigEndian.Uint32(head[len(head)-4:])) - 4
	if size < 0 || size > maxMessage {
		return nil, io.ErrUnexpectedEOF
	}
	message := append(head, make([]byte, size)...)
	_, err := io.ReadFull(from, message[len(head):])
	return message, err
}
