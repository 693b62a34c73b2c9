package bridge

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/pgtest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// a backup of SQLite is a file that nobody else may read, made while the
// bridge serves, and never over another.
func TestBackup(t *testing.T) {
	e := newEstate(t, nil)
	file := filepath.Join(t.TempDir(), "backup.db")
	if err := Backup(t.Context(), e.c.DatabaseURL, file, nil); err != nil {
		t.Fatal(err)
	}
	if err := Backup(t.Context(), e.c.DatabaseURL, file, nil); !serval.IsRefusal(err, serval.Conflict) {
		t.Errorf("over an existing file: %v, want it refused", err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup is %v, %v; want it readable by nobody else", info, err)
	}
}

// R-53, the drill: a backup is made while the bridge serves, an access is revoked
// afterwards, the disk is lost, the backup is put back. Nobody is signed in, the
// access is found by the later log and ended once more, the worker is asked for
// everything, and what it pushes from before is refused.
func TestRestoreDrill(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		e, file := newEstate(t, nil), filepath.Join(t.TempDir(), "backup.db")
		restoreDrill(t, e, func() {
			if err := Backup(t.Context(), e.c.DatabaseURL, file, nil); err != nil {
				t.Fatal(err)
			}
		}, func() {
			path := strings.TrimPrefix(e.c.DatabaseURL.Reveal(), "sqlite://")
			for _, suffix := range []string{"", "-wal", "-shm"} {
				if err := os.Remove(path + suffix); err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
			}
			if err := os.Rename(file, path); err != nil {
				t.Fatal(err)
			}
		})
	})
	t.Run("postgres, to a point in time", func(t *testing.T) {
		archive := pgtest.NewArchive(t)
		e := newEstate(t, func(c *Config) { c.DatabaseURL = serval.NewSecret(archive.URL()) })
		archive.Back(t) // the estate's first steps are in the log that is archived
		var instant time.Time
		restoreDrill(t, e, func() { instant = archive.Now(t) }, func() { e.c.DatabaseURL = serval.NewSecret(archive.At(t, instant)) })
	})
}

// restoreDrill is the drill of one database: keep makes what putBack sets it back
// to.
func restoreDrill(t *testing.T, e *estate, keep, putBack func()) {
	ana, made := e.ana()
	var kept wire.Request
	e.json(ana, "POST", "/api/v1/requests", wire.NewRequest{RoleARN: e.aws.RoleARN("dev"), Minutes: 60}, 201, &kept)
	e.json(ana, "POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID}, 200, nil)
	keep()

	// What happens after the backup, and is lost but for an export.
	e.json(ana, "POST", "/api/v1/requests/"+made.ID+"/done", nil, 200, nil)
	worker := e.client()
	for range 3 {
		e.json(worker, "POST", "/api/v1/upstream/accounts/"+prod+"/syncs", wire.OpenSync{Worker: "w"}, 200, nil)
	}
	archive, err := OpenArchive(t.Context(), e.c.DatabaseURL, e.c.Secret)
	if err != nil {
		t.Fatal(err)
	}
	var export bytes.Buffer
	lost, err := archive.Export(t.Context(), &export)
	if err != nil {
		t.Fatal(err)
	}
	archive.Close()
	if err := e.stop(); err != nil {
		t.Fatal(err)
	}

	putBack()
	restore := Restore{DatabaseURL: e.c.DatabaseURL, Secret: e.c.Secret, Log: zap.NewNop()}
	for name, text := range map[string]string{
		"no JSON":         "{",
		"another history": strings.Replace(export.String(), `"hash":"`, `"hash":"0`, -1),
		"a changed row":   strings.Replace(export.String(), `request.done`, `request.read`, 1),
		"one too old":     export.String()[:strings.Index(export.String(), "\n")+1],
	} {
		restore.Audit = strings.NewReader(text)
		if _, err := restore.Run(t.Context()); err == nil {
			t.Errorf("an export with %s was taken", name)
		}
	}
	restore.Audit, restore.Revoke = bytes.NewReader(export.Bytes()), true
	done, err := restore.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if done.Logins != 1 || len(done.Returned) != 1 || done.Returned[0].Request.ID != made.ID || !done.Returned[0].Revoked || done.Open != 2 || done.Lost != lost.Seq-done.Head.Seq {
		t.Errorf("restored: %s%+v", done, done)
	}
	if text := done.String(); !strings.Contains(text, made.ID) || strings.Contains(text, kept.ID) || !strings.Contains(text, "request.done") {
		t.Errorf("it says:\n%s", text)
	}

	e.running = start(t, e.c)
	if res, _, err := e.ask(ana, "GET", "/api/v1/me", nil); err != nil || res.StatusCode != http.StatusUnauthorized {
		t.Errorf("who was signed in before gets %v, %v; want 401", res, err)
	}
	var list wire.WorkerAccounts
	e.json(worker, "GET", "/api/v1/upstream/accounts", nil, 200, &list)
	if len(list.Accounts) != 1 || !list.Accounts[0].SyncRequested {
		t.Errorf("the worker is told %+v; want it asked for a full sync", list.Accounts)
	}
	// Four generations were issued before; none of them counts, and the next is newer.
	for generation := int64(1); generation < 6; generation++ {
		e.json(worker, "PUT", "/api/v1/upstream/accounts/"+prod+"/inventory", inventoryOf(e, generation), 409, nil)
	}
	var opened wire.Sync
	e.json(worker, "POST", "/api/v1/upstream/accounts/"+prod+"/syncs", wire.OpenSync{Worker: "w"}, 200, &opened)
	if opened.Generation < 1_000_000 {
		t.Errorf("the next generation is %d", opened.Generation)
	}
	e.json(worker, "PUT", "/api/v1/upstream/accounts/"+prod+"/inventory", inventoryOf(e, opened.Generation), 200, nil)
	events := e.events() // whose chain holds
	var told bool
	for _, event := range events {
		told = told || event.Action == serval.StoreRestore && event.Detail["returned"] == "1"
	}
	if !told {
		t.Error("the audit log does not tell of the restore")
	}
	archive, err = OpenArchive(t.Context(), e.c.DatabaseURL, e.c.Secret)
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	if _, err := archive.Verify(t.Context(), lost); err == nil {
		t.Error("the head that was published before the loss is in the restored log")
	}
	if _, err := archive.Verify(t.Context(), done.Head); err != nil {
		t.Errorf("the last head from before the backup: %v, want the log to hold with it", err)
	}
}

// A database that was set back and not made safe is noticed by what a worker
// brings.
func TestRegressIsNoticed(t *testing.T) {
	e := newEstate(t, nil)
	worker := e.client()
	_, text, err := e.ask(worker, "PUT", "/api/v1/upstream/accounts/"+prod+"/inventory", inventoryOf(e, 9))
	if err != nil || !strings.Contains(text, "never issued here") {
		t.Errorf("a generation from nowhere: %s, %v", text, err)
	}
	var list wire.WorkerAccounts
	e.json(worker, "GET", "/api/v1/upstream/accounts", nil, 200, &list)
	if len(list.Accounts) != 1 || !list.Accounts[0].SyncRequested {
		t.Errorf("the worker is told %+v; want it asked for a full sync", list.Accounts)
	}
}

// PostgreSQL has its own tools, and its database is made safe alike.
func TestRestoredPostgres(t *testing.T) {
	url := postgres(t)
	for _, to := range []string{filepath.Join(t.TempDir(), "x"), "-"} {
		if err := Backup(t.Context(), url, to, io.Discard); !serval.IsRefusal(err, serval.FailedPrecondition) {
			t.Errorf("a backup of PostgreSQL to %s: %v, want it refused with the way", to, err)
		}
	}
	e := newEstate(t, func(c *Config) { c.DatabaseURL = url })
	_, made := e.ana()
	head := func() (h store.Head) {
		archive, err := OpenArchive(t.Context(), url, e.c.Secret)
		if err != nil {
			t.Fatal(err)
		}
		defer archive.Close()
		if h, err = archive.Verify(t.Context(), store.Head{}); err != nil {
			t.Fatal(err)
		}
		return h
	}
	if err := e.stop(); err != nil {
		t.Fatal(err)
	}
	before := head()
	done, err := Restore{DatabaseURL: url, Secret: e.c.Secret, Log: zap.NewNop()}.Run(t.Context())
	if err != nil || done.Head != before || done.Logins != 1 || done.Open != 1 || len(done.Returned) != 0 {
		t.Errorf("restored: %+v, %v; request %s", done, err, made.ID)
	}
	if after := head(); after.Seq != before.Seq+1 {
		t.Errorf("the log went from row %d to row %d, want one more", before.Seq, after.Seq)
	}
}
