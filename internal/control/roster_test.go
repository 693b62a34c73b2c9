package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/roster"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// The catalogue of each replica is what the database holds, after everything that
// changes a role or its account's name, although a replica reads again only what
// has changed.
func TestRostersFollow(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		p := w.stock().people()
		planes := w.replicas()
		catalogue := func() string {
			t.Helper()
			var first string
			for i, plane := range planes {
				roles, _, err := plane.Roles(t.Context(), p.ana, RoleFilter{})
				if err != nil {
					t.Fatal(err)
				}
				var lines []string
				for _, r := range roles {
					lines = append(lines, fmt.Sprint(r.AccountName, " ", r.Name, " ", r.RoleID, " ", r.MaxSessionSeconds, " ", r.StaleReason, " ", r.HeldSince, r.Description))
				}
				all := strings.Join(lines, "\n")
				if i > 0 && all != first {
					t.Errorf("replica %d has\n%s\nthe first has\n%s", i, all, first)
				}
				first = all
			}
			return first
		}
		six := func(change ...func(*serval.Role)) (roles []serval.Role) {
			for _, name := range []string{"areader", "breader", "creader", "dreader", "ereader", "freader"} {
				roles = append(roles, aRole(dev, name, change...))
			}
			return roles
		}
		before := catalogue()
		for _, step := range []struct {
			name string
			do   func()
		}{
			{"roles are new", func() { w.push(dev, six()...) }},
			{"one has changed", func() { w.push(dev, six(func(r *serval.Role) { r.Description = "of another kind" })...) }},
			{"one is unreadable", func() {
				w.pushAs(dev, func(i *serval.Inventory) {
					i.Complete = false
					i.Unreadable = []serval.Unreadable{{ARN: roleARN(dev, "areader"), RoleID: roleID(dev, "areader", 1), Action: "iam:GetRole", Code: "AccessDenied"}}
				})
			}},
			{"it is read again", func() { w.push(dev, six(func(r *serval.Role) { r.Description = "of another kind" })...) }},
			{"most are missing", func() { w.push(dev, aRole(dev, "areader")) }},
			{"their removal is confirmed", func() { _, err := w.plane.ConfirmRemovals(t.Context(), p.adm, dev); must(t, err) }},
			{"a maximum is lower", func() {
				key := serval.RoleKey{Partition: "aws", AccountID: dev, ARN: roleARN(dev, "areader"), RoleID: roleID(dev, "areader", 1)}
				must(t, w.store.Write(t.Context(), w.clock.now(), func(tx *store.Tx) error { return tx.LowerMaxSession(key, 3600) }))
			}},
			{"it is created again", func() {
				w.push(dev, aRole(dev, "areader", func(r *serval.Role) { r.RoleID = roleID(dev, "areader", 2) }))
			}},
			{"its account has another name", func() {
				all := accounts()
				all[1].Name = "development"
				must(t, w.plane.Declare(t.Context(), serval.System(), 0, all, policies()))
			}},
			{"its account is gone", func() { must(t, w.plane.Declare(t.Context(), serval.System(), 0, accounts()[:1], policies())) }},
		} {
			step.do()
			after := catalogue()
			if after == before {
				t.Errorf("after %s the catalogue is still\n%s", step.name, after)
			}
			before = after
		}
		if planes[0].rosters.Kept(prod) == nil || planes[0].rosters.Kept(dev) != nil {
			t.Error("not the roster of the account that is left is kept, and it alone")
		}
	})
}

// What nobody may have costs one account's roles at most, and what did not change is
// not read again.
func TestRostersAreKept(t *testing.T) {
	w := newWorld(t)
	p := w.stock().people()
	for range 2 {
		_, _, err := w.plane.Roles(t.Context(), p.ana, RoleFilter{})
		must(t, err)
	}
	kept := w.plane.rosters.Kept(prod)
	w.push(dev, aRole(dev, "reader"))
	_, _, err := w.plane.Roles(t.Context(), p.ana, RoleFilter{})
	must(t, err)
	if kept == nil || w.plane.rosters.Kept(prod) != kept {
		t.Error("the roles of an account were read again, and nothing of it had changed")
	}
}

// What somebody looks through is read again as soon as it changes, before anybody
// asks; what nobody looks through is not.
func TestRostersAreReadAhead(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		p := w.stock().people()
		if _, _, err := w.plane.Roles(t.Context(), p.ana, RoleFilter{AccountID: prod}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- w.plane.KeepRosters(ctx, serval.System()) }()
		was := w.plane.rosters.Kept(prod)
		w.push(prod, aRole(prod, "reader"), aRole(prod, "newreader"))
		w.push(dev, aRole(dev, "reader", func(r *serval.Role) { r.Description = "of another kind" }))
		for end := time.Now().Add(30 * time.Second); w.plane.rosters.Kept(prod).Version == was.Version; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("nobody asked, and the roster is as it was")
			}
		}
		if w.plane.rosters.Kept(dev) != nil {
			t.Error("an account that nobody has looked at was read")
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
	})
}

// Many who look at once wait for one that reads.
func TestRostersAreReadOnce(t *testing.T) {
	w := newWorld(t)
	w.stock()
	var all sync.WaitGroup
	var mu sync.Mutex
	read := map[*roster.Roster]int{}
	for range 20 {
		all.Go(func() {
			err := w.store.Read(t.Context(), func(v *store.View) error {
				known, err := v.Roster(prod)
				if err != nil {
					return err
				}
				of, err := w.plane.rosters.Of(v, known)
				mu.Lock()
				defer mu.Unlock()
				read[of]++
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(read) != 1 {
		t.Errorf("twenty who look have %d rosters, want one", len(read))
	}
}
