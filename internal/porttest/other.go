//go:build !unix

package porttest

import (
	"net"
	"testing"
)

// Own returns an address on loopback where nobody listens, as host and port. Another may
// take it here before it is used.
func Own(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
