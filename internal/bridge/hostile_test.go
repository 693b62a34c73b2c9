package bridge

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
)

// whoever says nothing, or says it slowly, is cut off, and keeps nobody
// from being served.
func TestSlowConnections(t *testing.T) {
	t.Parallel()
	b := start(t, config(t))
	slow := map[string]string{
		"nothing":        "",
		"half a header":  "GET / HTTP/1.1\r\nHost: 127.0.0.1:1\r\nX-Slow: ",
		"half a request": "GET",
	}
	const each = 150
	var conns []net.Conn
	for _, text := range slow {
		for range each {
			conn, err := net.Dial("tcp", b.pages)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, text); err != nil {
				t.Fatal(err)
			}
			conns = append(conns, conn)
		}
	}
	for range 20 {
		if status, _ := get(t, b.pages+"/"); status != 200 {
			t.Errorf("among %d slow ones a person is answered %d", len(conns), status)
		}
	}
	for i, conn := range conns {
		// ReadHeaderTimeout is five seconds; a test's machine may be slow.
		if err := conn.SetReadDeadline(time.Now().Add(40 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, conn); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Fatalf("slow connection %d is still there: %v", i, err)
		}
	}
}

// no more connections than there is room for.
func TestConnectionsAreCapped(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &capped{Listener: inner, most: 2}
	defer l.Close()
	accepted := make(chan net.Conn)
	go func() {
		defer close(accepted)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- conn
		}
	}()
	dial := func() net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	closed := func(conn net.Conn) {
		t.Helper()
		if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil || strings.Contains(err.Error(), "timeout") {
			t.Errorf("one too many was not closed: %v", err)
		}
	}
	dial()
	first := <-accepted
	dial()
	<-accepted
	closed(dial())
	closed(dial())
	first.Close()
	first.Close() // net/http may close twice
	dial()
	<-accepted
	closed(dial())
}

// the bounds of each connection, which net/http keeps; to wait for all of
// them takes a minute and a half.
func TestServerBounds(t *testing.T) {
	c := good()
	s := c.server(nil)
	if s.ReadHeaderTimeout != 5*time.Second || s.ReadTimeout != 15*time.Second || s.WriteTimeout != 30*time.Second || s.IdleTimeout != 60*time.Second ||
		s.MaxHeaderBytes != 32<<10 {
		t.Errorf("a head takes %s, a request %s, an answer %s, silence %s, and %d bytes, want 5 s, 15 s, 30 s, 60 s and 32 KB",
			s.ReadHeaderTimeout, s.ReadTimeout, s.WriteTimeout, s.IdleTimeout, s.MaxHeaderBytes)
	}
	l, err := c.listen("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if l, ok := l.(*capped); !ok || l.most != maxConnections {
		t.Errorf("the pages are served from %+v, want a bound on connections", l)
	}
}

// what is too large is refused quickly, and never read into memory.
func TestTooLarge(t *testing.T) {
	b := start(t, config(t))
	send := func(head string, body io.Reader) int {
		t.Helper()
		conn, err := net.Dial("tcp", b.pages)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		go func() { // the server answers before all of it is sent, or closes
			_, _ = io.WriteString(conn, head)
			_, _ = io.Copy(conn, body)
		}()
		if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%.60q was not answered: %v", head, err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	const host = " HTTP/1.1\r\nHost: 127.0.0.1:1\r\n"
	const megabyte = 1 << 20
	const json = "Content-Type: application/json\r\n"
	for _, c := range []struct {
		name, head string
		body       io.Reader
		want       []int
	}{
		{"1 MB of headers", "GET /" + host + "X-Large: ", strings.NewReader(strings.Repeat("a", megabyte)), []int{431}},
		{"10,000 cookies", "GET /" + host, strings.NewReader(strings.Repeat("Cookie: a=b\r\n", 10_000) + "\r\n"), []int{431}},
		{"1 MB of query", "GET /?q=", strings.NewReader(strings.Repeat("a", megabyte) + host + "\r\n"), []int{414, 431}},
		{"a body of 100 MB", "POST /api/v1/client/token" + host + json + "Content-Length: 104857600\r\n\r\n", io.LimitReader(zeros{}, 100*megabyte), []int{413}},
		{"a body without an end", "POST /api/v1/client/token" + host + json + "Transfer-Encoding: chunked\r\n\r\n",
			io.MultiReader(strings.NewReader("100000\r\n"), io.LimitReader(zeros{}, megabyte)), []int{413}},
		{"JSON 10,000 deep", fmt.Sprintf("POST /api/v1/client/token%s%sContent-Length: %d\r\n\r\n", host, json, 50_001),
			strings.NewReader(strings.Repeat(`{"a":`, 10_000) + "1"), []int{400}},
	} {
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		status := send(c.head, c.body)
		runtime.ReadMemStats(&after)
		ok := false
		for _, want := range c.want {
			ok = ok || status == want
		}
		if !ok {
			t.Errorf("%s: %d, want one of %v", c.name, status, c.want)
		}
		// All that both sides have allocated meanwhile, whether it is still in use or not.
		if delta := after.TotalAlloc - before.TotalAlloc; delta > 10*megabyte {
			t.Errorf("%s: %d KB were allocated, want less than 10 MB", c.name, delta>>10)
		}
	}
}

// zeros is text without an end.
type zeros struct{}

// Read fills p.
func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '0'
	}
	return len(p), nil
}
