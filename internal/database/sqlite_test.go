package database

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000", "temp_store": "2", "wal_autocheckpoint": "5000"} {
		var got string
		if err := d.write.QueryRowContext(t.Context(), `pragma `+pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %s (%v), want %s", pragma, got, err, want)
		}
	}
}

// What was committed gets from the log into the file without a commit that waits
// for it.
func TestCheckpointsBesideCommits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "serval.db")
	d := opened(t, "sqlite://"+path)
	if _, err := d.ExecContext(t.Context(), `create table word (name text not null primary key, value text not null)`); err != nil {
		t.Fatal(err)
	}
	size := func() int64 {
		t.Helper()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	empty := size()
	for n := range commitsToCheckpoint - 1 {
		set(t, d, fmt.Sprint(n), strings.Repeat("x", 1000))
	}
	if got := size(); got != empty {
		t.Fatalf("the file grew to %d bytes before the log was due", got)
	}
	set(t, d, "the last", "x")
	for deadline := time.Now().Add(time.Minute); size() == empty; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing of the log got into the file")
		}
	}
}
