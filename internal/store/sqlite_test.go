package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

//
func TestSQLiteServesOne(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "serval ?#%41é.db")
	url := "sqlite://" + strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23", " ", "%20").Replace(path)
	d := migrated(t, url)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("the file is not where it was asked for: %v", err)
	}
	link := filepath.Join(dir, "link.db")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, again := range []string{url, "sqlite://" + link} {
		s, err := Open(t.Context(), Config{URL: serval.NewSecret(again)})
		refused(t, "a second process", err, serval.FailedPrecondition)
		if err == nil {
			s.Close()
		}
	}
	d.act(t, noon, func(tx *Tx) error { return tx.SetMeta("a", "b") })

	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if e.Type().IsRegular() && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, want 0600", e.Name(), info.Mode().Perm())
		}
	}
	if len(entries) != 5 { // file, -wal, -shm, .lock and the link
		t.Errorf("%d files, want 5: %v", len(entries), entries)
	}

	d.Close()
	s, err := Open(t.Context(), Config{URL: serval.NewSecret(url), Chain: chain})
	if err != nil {
		t.Fatalf("opening after the first was closed: %v", err)
	}
	defer s.Close()
	if got := look(t, place{s, url}, func(v *View) (string, error) { return v.Meta("a") }); got != "b" {
		t.Errorf("the reopened file keeps %q, want b", got)
	}
}

// writeUntilKilled acts without an end and says each act that was kept. It is
// what TestSQLiteKilled kills.
func writeUntilKilled(path string) {
	ctx := context.Background()
	s, err := Open(ctx, Config{URL: serval.NewSecret("sqlite://" + path), Chain: chain})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("open")
	for {
		var seq int64
		err := s.Write(ctx, noon, func(tx *Tx) error {
			seq = tx.head.Seq + 1
			return errors.Join(
				tx.SetMeta(fmt.Sprint("act ", seq), strings.Repeat("x", rand.IntN(3000))),
				tx.Append(serval.Event{Action: serval.PolicyDeclare, Reason: strings.Repeat("y", rand.IntN(3000))}),
			)
		})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(seq)
	}
}

// whenever the process is killed, what it said is kept, the file is whole,
// the chain holds, and there is no act without its event. SERVAL_LONG=1 kills it
// two hundred times.
func TestSQLiteKilled(t *testing.T) {
	rounds := 20
	if os.Getenv("SERVAL_LONG") != "" {
		rounds = 200
	}
	path := filepath.Join(t.TempDir(), "serval.db")
	migrated(t, "sqlite://"+path).Close()
	var said int64
	for round := range rounds {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), "STORE_TEST_WRITER="+path)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		if !lines.Scan() || lines.Text() != "open" {
			t.Fatalf("round %d: the writer could not open the file: %s", round, lines.Text())
		}
		time.AfterFunc(time.Duration(rand.IntN(60))*time.Millisecond, func() { child.Process.Kill() })
		for lines.Scan() {
			seq, err := strconv.ParseInt(lines.Text(), 10, 64)
			if err != nil {
				t.Fatalf("round %d: the writer says: %s", round, lines.Text())
			}
			said = seq
		}
		child.Wait()
		check(t, path, said)
	}
	t.Logf("%d acts were kept through %d kills", said, rounds)
}

// check opens a file whose process was killed after it said that so many acts
// were kept.
func check(t *testing.T, path string, said int64) {
	t.Helper()
	s, err := Open(t.Context(), Config{URL: serval.NewSecret("sqlite://" + path), Chain: chain})
	if err != nil {
		t.Fatalf("opening after a kill: %v", err)
	}
	defer s.Close()
	d := place{s, ""}
	var integrity string
	if err := d.db.QueryRowContext(t.Context(), `pragma integrity_check`).Scan(&integrity); err != nil || integrity != "ok" {
		t.Fatalf("integrity_check: %s, %v", integrity, err)
	}
	head, err := verify(t, d, Head{})
	if err != nil {
		t.Fatalf("the chain after a kill: %v", err)
	}
	if head.Seq < said {
		t.Fatalf("%d acts were said to be kept, and %d are", said, head.Seq)
	}
	if acts := d.number(t, `select count(*) from meta`); acts != head.Seq {
		t.Fatalf("%d acts and %d events", acts, head.Seq)
	}
}

// a full disk refuses writes, leaves reads, breaks nothing, and is over
// when there is space again.
func TestSQLiteFull(t *testing.T) {
	d := migrated(t, "sqlite://"+filepath.Join(t.TempDir(), "serval.db"))
	write := func() error {
		return d.Write(t.Context(), noon, func(tx *Tx) error {
			return errors.Join(tx.SetMeta("value", strings.Repeat("x", 1<<20)), tx.Append(serval.Event{Action: serval.PolicyDeclare}))
		})
	}
	d.raw(t, `pragma max_page_count = 1`) // SQLite takes the present count
	if r, ok := errors.AsType[*serval.Refusal](write()); !ok || r.Kind != serval.Unavailable || r.Detail["cause"] != DiskFull {
		t.Errorf("writing to a full disk: %v, want it refused for that", r)
	}
	if !d.full.Load() {
		t.Error("the store does not know that the disk is full")
	}
	if head := look(t, d, (*View).ChainHead); head.Seq != 0 {
		t.Errorf("the chain's head is %v after a write that failed", head)
	}
	d.raw(t, `pragma max_page_count = 1000000`)
	if d.Full(t.Context(), noon) {
		t.Error("the disk is full when there is space again")
	}
	if err := write(); err != nil {
		t.Errorf("writing when there is space again: %v", err)
	}
	var integrity string
	if err := d.db.QueryRowContext(t.Context(), `pragma integrity_check`).Scan(&integrity); err != nil || integrity != "ok" {
		t.Errorf("integrity_check: %s, %v", integrity, err)
	}
	if _, err := verify(t, d, Head{}); err != nil {
		t.Error(err)
	}
}
