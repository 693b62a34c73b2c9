package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

var capMiB = flag.Int("memory", 0, "how much memory the bridge has, in MiB (0: as much as there is)")

// A memoryCap is a control group of this machine with a limit of memory, as a
// container's is. It is of version 1 or 2, whichever the machine has.
type memoryCap struct {
	dir  string
	peak string // the file that tells the most that was in use
	kill string // and the one that counts processes killed for it
}

// newMemoryCap makes one, on a machine that lets whoever runs the test make one.
func newMemoryCap(t testing.TB, bytes int) *memoryCap {
	t.Helper()
	name := "serval-" + strconv.Itoa(os.Getpid())
	m, limit := &memoryCap{dir: filepath.Join("/sys/fs/cgroup/memory", name), peak: "memory.max_usage_in_bytes", kill: "memory.oom_control"}, "memory.limit_in_bytes"
	if _, err := os.Stat(filepath.Dir(m.dir)); errors.Is(err, os.ErrNotExist) {
		m, limit = &memoryCap{dir: filepath.Join("/sys/fs/cgroup", name), peak: "memory.peak", kill: "memory.events"}, "memory.max"
	}
	if err := os.Mkdir(m.dir, 0o755); err != nil {
		t.Fatalf("no control group can be made here: %v", err)
	}
	t.Cleanup(func() {
		if err := os.Remove(m.dir); err != nil { // nothing is in it any more
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(m.dir, limit), []byte(strconv.Itoa(bytes)), 0o644); err != nil {
		t.Fatalf("no limit of memory can be set here: %v", err)
	}
	return m
}

// hold has a command that is not started yet run under the limit from its first
// page on.
func (m *memoryCap) hold(cmd *exec.Cmd) {
	cmd.Args = append([]string{"sh", "-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(m.dir, "cgroup.procs")}, cmd.Args...)
	cmd.Path = "/bin/sh"
}

// report returns the most that was in use, in bytes, and how many processes were
// killed for using more than the limit.
func (m *memoryCap) report(t testing.TB) (most, killed int) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(m.dir, m.peak))
	if err != nil {
		t.Fatal(err)
	}
	if most, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
		t.Fatal(err)
	}
	if text, err = os.ReadFile(filepath.Join(m.dir, m.kill)); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "oom_kill %d", &killed); err == nil {
			return most, killed
		}
	}
	t.Fatalf("%s does not count kills: %s", m.kill, text)
	return 0, 0
}
