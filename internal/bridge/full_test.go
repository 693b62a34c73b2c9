package bridge

import (
	"database/sql"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// small mounts a file system of a few megabytes.
func small(t *testing.T) (folder string) {
	t.Helper()
	folder = t.TempDir()
	// By the program: the call of the kernel is one that other systems have not.
	if text, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=8m", "none", folder).CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("mounting a small file system: %v: %s", err, text)
		}
		t.Skipf("a small file system cannot be mounted: %v: %s", err, text)
	}
	t.Cleanup(func() {
		if text, err := exec.Command("umount", folder).CombinedOutput(); err != nil {
			t.Errorf("unmounting: %v: %s", err, text)
		}
	})
	return folder
}

// fill takes all the space that there is in folder.
func fill(t *testing.T, folder string) (file string) {
	t.Helper()
	file = filepath.Join(folder, "ballast")
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for {
		if _, err := f.Write(make([]byte, 4096)); errors.Is(err, syscall.ENOSPC) {
			return file
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// on a full file system reads work and no session is opened, also where the
// space ends while AWS is asked; the person and the operator are told why, nothing
// breaks, and it is over when there is space again.
func TestFullFileSystem(t *testing.T) {
	folder := small(t)
	e := newEstate(t, func(c *Config) {
		c.DatabaseURL = serval.NewSecret("sqlite://" + filepath.Join(folder, "serval.db"))
		c.MintRate = 10000
	})
	ana, made := e.ana()
	readyz := func() string {
		t.Helper()
		status, text := get(t, e.admin+"/readyz")
		if status != 200 { // the pages would be away too
			t.Errorf("/readyz answers %d: %s", status, text)
		}
		return text
	}
	// refused opens sessions until one is refused: what SQLite has reserved
	// already may take a few.
	refused := func() {
		t.Helper()
		for range 1000 {
			res, text, err := e.ask(ana, "POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID})
			if err != nil {
				t.Fatal(err)
			}
			if res.StatusCode == 200 {
				continue
			}
			if res.StatusCode != 503 || !strings.Contains(text, "disk is full") || strings.Contains(text, "access_key") || res.Header.Get("Retry-After") == "" {
				t.Errorf("a session on a full file system: %d %s, want 503 with the reason", res.StatusCode, text)
			}
			return
		}
		t.Fatal("a thousand sessions were opened on a full file system")
	}

	ballast := fill(t, folder)
	refused()
	e.json(ana, "GET", "/api/v1/requests/"+made.ID, nil, 200, nil)
	e.json(ana, "GET", "/roles", nil, 200, nil)
	if text := readyz(); !strings.Contains(text, "the disk is full") {
		t.Errorf("/readyz does not tell of a full disk: %s", text)
	}
	metered := func(want string) {
		t.Helper()
		if _, text := get(t, e.admin+"/metrics"); !strings.Contains(text, "\nserval_database_full "+want+"\n") {
			t.Errorf("the metrics do not say serval_database_full %s", want)
		}
	}
	metered("1")
	if e.logs.FilterMessage("the disk is full").Len() == 0 {
		t.Error("the log does not tell of a full disk")
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	metered("0")
	if text := readyz(); strings.Contains(text, "full") {
		t.Errorf("/readyz of a disk with space: %s", text)
	}
	e.json(ana, "POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID}, 200, nil)

	e.cloud.Inject(awstest.Fault{Action: "AssumeRoleWithWebIdentity", Hook: func(*awstest.Request) { fill(t, folder) }})
	refused()
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	e.json(ana, "GET", "/api/v1/requests/"+made.ID, nil, 200, nil)

	if err := e.stop(); err != nil {
		t.Errorf("stopping: %v", err)
	}
	e.events() // the chain holds
	db, err := sql.Open("sqlite", filepath.Join(folder, "serval.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var integrity string
	if err := db.QueryRowContext(t.Context(), `pragma integrity_check`).Scan(&integrity); err != nil || integrity != "ok" {
		t.Errorf("integrity_check: %s, %v", integrity, err)
	}
}
