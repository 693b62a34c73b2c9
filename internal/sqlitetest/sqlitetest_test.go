package sqlitetest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each is a copy of what was prepared once, and nobody else's; it goes with its
// test.
func TestPreparedOnce(t *testing.T) {
	times := 0
	prepare := func(url string) error {
		times++
		return os.WriteFile(strings.TrimPrefix(url, "sqlite://"), []byte("prepared"), 0o600)
	}
	var paths []string
	t.Run("a test", func(t *testing.T) {
		for range 2 {
			path := strings.TrimPrefix(URLOf(t, prepare), "sqlite://")
			if content, err := os.ReadFile(path); err != nil || string(content) != "prepared" {
				t.Errorf("the copy holds %q, %v", content, err)
			}
			if err := os.WriteFile(path, []byte("changed"), 0o600); err != nil {
				t.Error(err)
			}
			paths = append(paths, path)
		}
		empty := strings.TrimPrefix(URL(t), "sqlite://")
		if _, err := os.Stat(empty); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("an empty database is there already: %v", err)
		}
		paths = append(paths, empty)
	})
	if times != 1 {
		t.Errorf("it was prepared %d times, want once", times)
	}
	for _, path := range paths {
		if _, err := os.Stat(filepath.Dir(path)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s outlived its test: %v", path, err)
		}
	}
}

// A database that is still open has a part of it beside its file, which a copy
// would lack.
func TestPreparedAndLeftOpen(t *testing.T) {
	_, err := made(func(url string) error {
		return os.WriteFile(strings.TrimPrefix(url, "sqlite://")+"-wal", nil, 0o600)
	})
	if err == nil || !strings.Contains(err.Error(), "left open") {
		t.Errorf("preparing without closing: %v", err)
	}
	broken := errors.New("broken")
	if _, err := made(func(string) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("preparing failed with %v, want its own error", err)
	}
}
