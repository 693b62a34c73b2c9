package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/pgtest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// next is a migration of a version to come, as docs/backup.md allows them: it adds
// and it loosens.
const next = `-- +goose Up
alter table request add column future text not null default '';
alter table notice add column future bigint not null default 0;
alter table account alter column read_by drop not null;
create table future (id text not null primary key, request_id text references request (id));
create index request_by_future on request (future);

-- +goose Down
drop table future;
`

// broken is one that fails when half of it is done.
const broken = `-- +goose Up
alter table request add column halfway text not null default '';
alter table there_is_none add column x text;
`

// future returns the migrations as a program of a version to come has them: one
// more.
func future(t *testing.T, name, text string) fstest.MapFS {
	t.Helper()
	files, err := migrations()
	if err != nil {
		t.Fatal(err)
	}
	more := fstest.MapFS{name: &fstest.MapFile{Data: []byte(text)}}
	err = fs.WalkDir(files, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(files, path)
		more[path] = &fstest.MapFile{Data: data}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return more
}

// two replicas of this version are under load while one of the next migrates
// the database, first in a way that fails. No act and no look fails, the failed
// migration leaves nothing, and after the other this version goes on.
func TestOldAndNewSideBySide(t *testing.T) {
	d := migrated(t, pgtest.URL(t))
	newRequest(t, d, "r0")
	stores := d.replicas(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var acts, looks atomic.Int64
	var failed sync.Map
	var load sync.WaitGroup
	for i := range 8 {
		s := stores[i%len(stores)]
		load.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				err := s.Write(t.Context(), noon, func(tx *Tx) error {
					r, err := tx.Request("r0")
					if err != nil {
						return err
					}
					r.Status, r.EndedAt = serval.StatusPending, time.Time{}
					notice := aNotice(fmt.Sprintf("n%d-%d", i, n), "mail", func(n *serval.Notice) { n.RequestID = "r0" })
					return errors.Join(tx.SaveRequest(r), tx.CreateNotice(notice), tx.Append(serval.Event{Action: serval.RequestCreate, Target: "r0"}))
				})
				if err != nil {
					failed.Store(err.Error(), true)
				}
				acts.Add(1)
				err = s.Read(t.Context(), func(v *View) error {
					_, err1 := v.Requests(RequestFilter{Limit: 5})
					_, err2 := v.Accounts()
					_, err3 := v.HasDueNotices("mail", noon)
					_, err4 := v.Request("r0")
					return errors.Join(err1, err2, err3, err4)
				})
				if err != nil {
					failed.Store(err.Error(), true)
				}
				looks.Add(1)
			}
		})
	}
	settle := func() {
		for now, until := acts.Load(), time.Now().Add(20*time.Second); acts.Load() < now+40 && time.Now().Before(until); {
			time.Sleep(10 * time.Millisecond)
		}
	}
	settle()
	newer := opened(t, d.url).Store
	if err := newer.db.Migrate(t.Context(), future(t, "common/00098_broken.sql", broken)); err == nil {
		t.Error("a broken migration succeeded")
	}
	settle()
	if n := d.number(t, `select count(*) from information_schema.columns where column_name = 'halfway'`); n != 0 {
		t.Error("half of a broken migration is there")
	}
	if err := d.Migrate(t.Context()); err != nil {
		t.Errorf("after a broken migration this version does not start: %v", err)
	}
	if err := newer.db.Migrate(t.Context(), future(t, "common/00099_next.sql", next)); err != nil {
		t.Fatal(err)
	}
	settle()
	if err := opened(t, d.url).Migrate(t.Context()); err != nil {
		t.Errorf("on the next version's schema this version does not start: %v", err)
	}
	stop()
	load.Wait()
	failed.Range(func(text, _ any) bool {
		t.Errorf("beside a migration: %s", text)
		return true
	})
	if _, err := verify(t, d, Head{}); err != nil {
		t.Error(err)
	}
	t.Logf("%d acts and %d looks beside two migrations", acts.Load(), looks.Load())
}
