package porttest

import (
	"net"
	"testing"
)

// It can be listened at by its name, and each is another.
func TestOwn(t *testing.T) {
	seen := map[string]bool{}
	for range 20 {
		address := Own(t)
		if seen[address] {
			t.Errorf("%s twice", address)
		}
		seen[address] = true
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
}
