//go:build unix

package keep

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// S-64: what is kept is its owner's alone, whatever the umask says and whatever
// the folder was before.
func TestUmask(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	dir := filepath.Join(t.TempDir(), "kept")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	k := open(t, dir, nil, &clock{noon})
	k.mustWrite(t, paper, "a canary", noon.Add(time.Hour))
	unlock, err := k.Lock(t.Context(), paper)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	seen := 0
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is %v", path, info.Mode())
		}
		seen++
		return err
	})
	if err != nil || seen != 5 { // the folder, the key and what made it alone, what is kept and its lock
		t.Errorf("%d files: %v", seen, err)
	}
}
