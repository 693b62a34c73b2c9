//go:build unix

// Package porttest has ports on loopback for programs that tests start, and that have to
// be told where to listen before they do.
package porttest

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
)

// Own returns an address on loopback where nobody listens, as host and port. Until the
// test ends its port is given to nobody who asks for any, for a connection or for a server:
// it is for whoever listens there by its name.
func Own(t testing.TB) string {
	t.Helper()
	syscall.ForkLock.RLock()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	// It never listens, and so leaves that to another who reuses the address, as Go's servers do.
	err = errors.Join(syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1),
		syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	if err != nil {
		t.Fatal(err)
	}
	at, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", at.(*syscall.SockaddrInet4).Port)
}
