package database

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

func TestSQLiteReadOnlyNeedsAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "serval.db")
	if d, err := Open(t.Context(), serval.NewSecret("sqlite://"+path), true); err == nil {
		d.Close()
		t.Error("opened a file that is not there")
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("opening read-only made the file")
	}
}

// S-77: what was committed is on the disk before anything is handed over.
func TestSQLitePragmas(t *testing.T) {
	d := opened(t, "sqlite://"+filepath.Join(t.TempDir(), "serval.db"))
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000", "temp_store": "2"} {
		var got string
		if err := d.write.QueryRowContext(t.Context(), `pragma `+pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %s (%v), want %s", pragma, got, err, want)
		}
	}
}
