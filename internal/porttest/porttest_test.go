package porttest

import (
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// It can be listened at by its name, and each is another, until the test ends.
func TestOwn(t *testing.T) {
	seen := map[string]bool{}
	t.Run("while it is held", func(t *testing.T) {
		for range 20 {
			address := Own(t)
			if seen[address] {
				t.Errorf("%s twice", address)
			}
			seen[address] = true
			port := portOf(t, address)
			if port < first || port > last {
				t.Errorf("%s is no port of those that are given here", address)
			}
			if _, _, err := take(port); err == nil {
				t.Errorf("%s is given to another", address)
			}
			l, err := net.Listen("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			l.Close()
		}
	})
	for address := range seen {
		_, giveBack, err := take(portOf(t, address))
		if err == nil {
			giveBack()
			return
		}
	}
	t.Error("none of 20 is given back when the test ends")
}

// Where somebody listens nobody is sent, and that nobody was holds nothing.
func TestTake(t *testing.T) {
	free := false
	for range 20 {
		port := first + rand.IntN(last-first+1)
		address, giveBack, err := take(port)
		if err != nil {
			continue
		}
		l, err := net.Listen("tcp", address)
		giveBack()
		if err != nil {
			continue
		}
		if _, _, err := take(port); err == nil {
			t.Errorf("port %d is given, where somebody listens", port)
		}
		l.Close()
		if _, giveBack, err := take(port); err == nil {
			giveBack()
			free = true
		}
	}
	if !free {
		t.Error("none of 20 ports is free when nobody listens there any more")
	}
}

func portOf(t *testing.T, address string) int {
	t.Helper()
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return port
}
