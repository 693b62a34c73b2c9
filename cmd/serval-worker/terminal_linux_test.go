package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/serval-bridge/serval-bridge/internal/awsiam"
)

func TestProgressOnATerminal(t *testing.T) {
	master, terminal := pseudoTerminal(t)
	m := newMeter(terminal)
	m.called(awsiam.Call{})
	got := make([]byte, 100)
	n, err := master.Read(got)
	if err != nil || !strings.Contains(string(got[:n]), "1 calls") {
		t.Errorf("progress wrote %q on a terminal (%v)", got[:n], err)
	}
}

// pseudoTerminal returns both ends of one, 80 columns wide.
func pseudoTerminal(t *testing.T) (master, terminal *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80})
	}
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { terminal.Close() })
	return master, terminal
}
