// Package porttest has ports on loopback for programs that tests start, and that have to
// be told where to listen before they do.
package porttest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// The ports that are given: no system gives any of them to a connection, or to a server
// that asks for any port. Those that Linux gives so begin at 32768, those of others
// at 49152.
const first, last = 20000, 32767

// Own returns an address on loopback where nobody listens, as host and port. Until the
// test ends it is given to nobody else who asks for one here, in this process or in
// another: it is for whoever listens there by its name.
func Own(t testing.TB) string {
	t.Helper()
	var failed error
	for range 1000 {
		address, giveBack, err := take(first + rand.IntN(last-first+1))
		if err == nil {
			t.Cleanup(giveBack)
			return address
		}
		failed = err
	}
	t.Fatalf("finding a port where nobody listens: %v", failed)
	return ""
}

// take returns the address of a port until it is given back; the error is that it is
// somebody's.
//
// What tells others so is the port of UDP with the same number, where no program of ours
// listens. Its own cannot be held for a program that is to listen there: only Linux lets
// two have one port, of whom one listens.
func take(port int) (address string, giveBack func(), err error) {
	address = fmt.Sprintf("127.0.0.1:%d", port)
	held, err := net.ListenPacket("udp", address)
	if err != nil {
		return "", nil, err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return "", nil, errors.Join(err, held.Close())
	}
	if err := l.Close(); err != nil {
		return "", nil, errors.Join(err, held.Close())
	}
	return address, func() { held.Close() }, nil
}
