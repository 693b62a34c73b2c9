// Package sqlitetest gives tests SQLite databases of their own: one file per
// test, a copy of what was prepared once in the test binary.
//
// The files lie in memory where the system has a folder for that with room to
// spare, so that no test waits for a disk. A process that is killed leaves the
// same there as on a disk; only a machine that is switched off would not, and no
// test does that.
package sqlitetest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// URL returns the address of a database whose file is not there yet. Its folder
// goes when the test ends.
func URL(t testing.TB) string {
	t.Helper()
	return address(folder(t))
}

// URLOf is URL for a database that prepare has filled. Prepare runs once in a
// test binary and leaves nothing open; each database is a copy of what it made. A
// test binary has one prepare.
func URLOf(t testing.TB, prepare func(url string) error) string {
	t.Helper()
	prepared.Do(func() { prepared.file, prepared.err = made(prepare) })
	if prepared.err != nil {
		t.Fatalf("preparing a database: %v", prepared.err)
	}
	dir := folder(t)
	if err := os.WriteFile(file(dir), prepared.file, 0o600); err != nil {
		t.Fatalf("copying the prepared database: %v", err)
	}
	return address(dir)
}

// prepared is what URLOf copies.
var prepared struct {
	sync.Once
	file []byte
	err  error
}

// made returns the file of a database that prepare has filled.
func made(prepare func(url string) error) (content []byte, err error) {
	dir, err := os.MkdirTemp("", "sqlitetest")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := prepare(address(dir)); err != nil {
		return nil, err
	}
	if _, err := os.Stat(file(dir) + "-wal"); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the database was left open: a part of it lies beside its file (%v)", err)
	}
	return os.ReadFile(file(dir))
}

func file(dir string) string    { return filepath.Join(dir, "serval.db") }
func address(dir string) string { return "sqlite://" + file(dir) }

// memory is where Linux keeps files in memory, and spare what has to be free
// there: a container has 64 MiB of it, which other tests fill.
const (
	memory = "/dev/shm"
	spare  = 1 << 30
)

// folder returns a new folder that goes when the test ends.
func folder(t testing.TB) string {
	t.Helper()
	var has syscall.Statfs_t
	if err := syscall.Statfs(memory, &has); err != nil || has.Bavail*uint64(has.Bsize) < spare {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(memory, "sqlitetest")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("removing the test's database: %v", err)
		}
	})
	return dir
}
