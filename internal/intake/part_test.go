package intake

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/pgtest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/storetest"
)

// What is in which part: all of the difference once, in order, and never too much.
func TestParts(t *testing.T) {
	keys := func(kind string, n int) (list []serval.RoleKey) {
		for i := range n {
			list = append(list, serval.RoleKey{AccountID: prod, RoleID: fmt.Sprint(kind, i), ARN: roleARN(prod, fmt.Sprint(kind, i))})
		}
		return list
	}
	seen := func(keys ...serval.RoleKey) (list []serval.Seen) {
		for _, k := range keys {
			list = append(list, serval.Seen{Key: k})
		}
		return list
	}
	again := keys("again", 3)
	was := slices.Clone(again)
	for i := range was {
		was[i].RoleID = fmt.Sprint("was", i)
	}
	stale := func(keys []serval.RoleKey) (list []serval.Stale) {
		for _, k := range keys {
			list = append(list, serval.Stale{Key: k, Reason: "x"})
		}
		return list
	}
	for _, test := range []struct {
		name   string
		staged []part
		d      serval.Difference
		want   []string
	}{
		{"nothing", nil, serval.Difference{}, nil},
		{"a little of everything", []part{{id: "p1", roles: seen(slices.Concat(keys("new", 1), again, keys("same", 2), keys("other", 1))...)}},
			serval.Difference{Added: slices.Concat(keys("new", 1), again), Changed: keys("other", 1), Fresh: keys("same", 1), Unchanged: keys("same", 2),
				Recreated: was, Untagged: keys("untagged", 2), Missing: keys("missing", 1), Held: keys("held", 1), Stale: stale(keys("stale", 1))},
			[]string{"p1: 7 roles, 4 added, 1 changed, 1 fresh, 3 recreated, 2 untagged, 1 missing, 1 held, 1 stale"}},
		{"much", []part{{id: "p1", roles: seen(slices.Concat(keys("new", 23), again[:1])...)}, {id: "p2", roles: seen(again[1:]...)}},
			serval.Difference{Added: slices.Concat(keys("new", 23), again), Recreated: was, Untagged: keys("untagged", 27), Missing: keys("missing", 38), Stale: stale(keys("stale", 12))},
			[]string{": 0 roles, 25 untagged", ": 0 roles, 2 untagged", "p1: 24 roles, 24 added, 1 recreated", "p2: 2 roles, 2 added, 2 recreated, 21 missing", ": 0 roles, 17 missing, 8 stale", ": 0 roles, 4 stale"}},
		{"most is held", []part{{id: "p1", roles: seen(keys("new", 15)...)}}, serval.Difference{Added: keys("new", 15), Untagged: keys("untagged", 2), Held: keys("held", 24), Missing: keys("missing", 1)},
			[]string{": 0 roles, 2 untagged, 23 held", "p1: 15 roles, 15 added, 1 missing, 1 held"}},
		{"what has their ARNs could not be looked at", nil, serval.Difference{Recreated: was}, []string{": 0 roles, 3 recreated"}},
		{"two that were staged", []part{{id: "p1", roles: seen(keys("a", 1)...)}, {id: "p2", roles: seen(keys("b", 1)...)}}, serval.Difference{Added: slices.Concat(keys("a", 1), keys("b", 1))},
			[]string{"p1: 1 roles, 1 added", "p2: 1 roles, 1 added"}},
	} {
		var got []string
		for _, p := range parts(test.staged, test.d) {
			text := fmt.Sprintf("%s: %d roles", p.id, len(p.roles))
			d := p.difference
			for _, list := range []struct {
				name string
				n    int
			}{{"added", len(d.Added)}, {"changed", len(d.Changed)}, {"fresh", len(d.Fresh)}, {"recreated", len(d.Recreated)}, {"untagged", len(d.Untagged)}, {"missing", len(d.Missing)},
				{"held", len(d.Held)}, {"stale", len(d.Stale)}} {
				if list.n > 0 {
					text += fmt.Sprintf(", %d %s", list.n, list.name)
				}
			}
			got = append(got, text)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

// stepping has each transaction of the world's intake have an instant of its own, and
// calls at with the number of each that begins.
func (w *world) stepping(at func(n int)) {
	d, n := w.door(w.store), 0
	d.Now = func() time.Time {
		w.clock.move(time.Second)
		n++
		at(n)
		return w.clock.now()
	}
	w.intake = New(d)
}

// large is what a push of several parts has: new roles, changed ones, one that was
// created again; and what is not seen any more.
func (w *world) large() (before, after []serval.Role, inv func(*serval.Inventory)) {
	before = many(61)
	after = many(61, func(r *serval.Role) { r.Description = "changed" })[6:]
	after[7].RoleID = roleID(prod, after[7].Name, 2)
	for i := range 10 {
		after = append(after, aRole(prod, fmt.Sprintf("s%04d", i)))
	}
	return before, after, func(inv *serval.Inventory) { inv.Untagged = []string{before[3].RoleID} }
}

// wantLarge fails the test unless the account is as the push of several parts says.
func (w *world) wantLarge(what string, after []serval.Role) {
	w.t.Helper()
	got := w.stored()
	if len(got) != len(after) {
		w.t.Errorf("%s: %d roles are listed, want %d", what, len(got), len(after))
	}
	for _, r := range after {
		if got[r.ARN].Digest != r.Digest() || got[r.ARN].RoleID != r.RoleID {
			w.t.Errorf("%s: %s is not as it was pushed", what, r.ARN)
		}
	}
}

// However much a push changes, nobody waits for more than a part of it, and all of it
// is recorded: each part as it is swapped in, and all in the end.
func TestPushInParts(t *testing.T) { each(t, testPushInParts) }

func testPushInParts(t *testing.T, w *world) {
	before, after, also := w.large()
	w.push(prod, before...)
	w.stepping(func(int) {})
	from := w.head()
	done := w.pushAs(prod, also, after...)
	if want := (Pushed{Added: 11, Changed: 54, Removed: 7}); done != want {
		t.Errorf("pushed %+v, want %+v", done, want)
	}
	w.wantLarge("pushed", after)
	together := map[time.Time]int{}
	for _, r := range w.stored() {
		together[r.SeenAt]++
	}
	for at, n := range together {
		if n > partRoles {
			t.Errorf("%d roles were swapped in together, at %s; want at most %d", n, at, partRoles)
		}
	}
	var got []string
	for _, e := range w.events(from) {
		d := e.Detail
		got = append(got, fmt.Sprintf("%s %s: part %s of %s, generation %s: %s added, %s changed, %s recreated, %s untagged, %s missing", e.Action, e.Outcome,
			d["part"], d["parts"], d["generation"], d["added"], d["changed"], d["recreated"], d["untagged"], d["missing"]))
		if e.Actor != "hub" || e.Target != prod || d["added"] != "" && d["added_01"] == "" {
			t.Errorf("event %+v", e)
		}
	}
	want := []string{
		"inventory.accept started: part 1 of 4, generation 2:  added,  changed,  recreated, 1 untagged,  missing",
		"inventory.accept started: part 2 of 4, generation 2: 1 added, 24 changed, 1 recreated,  untagged,  missing",
		"inventory.accept started: part 3 of 4, generation 2:  added, 25 changed,  recreated,  untagged,  missing",
		"inventory.accept done: part  of , generation 2: 11 added, 54 changed, 1 recreated, 1 untagged, 5 missing",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("recorded (-want +got):\n%s", diff)
	}
	// What is as it was is not written again.
	from = w.head()
	if done := w.push(prod, after...); done != (Pushed{}) || w.head() != from+1 {
		t.Errorf("the same in another sync: %+v, %d events; want nothing, and one", done, w.head()-from)
	}
}

// A push that breaks off between two parts has removed nothing that was merely
// missing, and is not accepted; what was untagged is gone all the same. The same push
// again does the rest, and so does the next sync of another worker.
func TestPushBreaksOff(t *testing.T) { each(t, testPushBreaksOff) }

func testPushBreaksOff(t *testing.T, w *world) {
	other := serval.Principal{Kind: serval.KindWorker, Worker: "other"}
	for parts := range 4 {
		before, after, also := w.large()
		w.stepping(func(int) {})
		w.clock.move(time.Hour)
		w.push(prod, before...)
		g, _, err := opened(w.intake.OpenSync(t.Context(), hub(), prod, "pod-1", serval.SyncFull))
		if err != nil {
			t.Fatal(err)
		}
		inv := inventory(prod, g, w.clock.now())
		also(&inv)
		read := reading(inv, after...)
		ctx, cancel := context.WithCancel(t.Context())
		staged, done := 0, 0
		w.stepping(func(n int) {
			if staged++; staged > 3 { // three batches are staged
				if done++; done > parts {
					cancel()
				}
			}
		})
		from := w.head()
		if _, err = w.intake.Push(ctx, hub(), prod, read); !errors.Is(err, context.Canceled) {
			t.Fatalf("after %d parts: %v, want it broken off", parts, err)
		}
		cancel()
		if n := int(w.head() - from); n != min(parts, 3) {
			t.Errorf("after %d parts there are %d events", parts, n)
		}
		kept := w.stored()
		for i, r := range before[:6] {
			if _, there := kept[r.ARN]; there != (i != 3 || parts == 0) {
				t.Errorf("after %d parts %s is listed: %t", parts, r.ARN, there)
			}
		}
		if a := w.account(prod); a.AcceptedGeneration >= g {
			t.Errorf("after %d parts generation %d is accepted", parts, g)
		}
		w.stepping(func(int) {})
		who := hub()
		if parts == 2 { // the worker is gone, and another comes
			w.clock.move(claimFor)
			who = other
			if inv.Generation, _, err = opened(w.intake.OpenSync(t.Context(), who, prod, "pod-1", serval.SyncFull)); err != nil {
				t.Fatal(err)
			}
			_, err = w.intake.Push(t.Context(), hub(), prod, read)
			wantKind(t, "what was broken off, when another has begun", err, serval.Conflict)
			read = reading(inv, after...)
		}
		if _, err := w.intake.Push(t.Context(), who, prod, read); err != nil {
			t.Fatalf("after %d parts, again: %v", parts, err)
		}
		w.wantLarge(fmt.Sprintf("after %d parts, again", parts), after)
		if got, err := w.intake.Push(t.Context(), who, prod, read); err != nil || !got.Repeated {
			t.Errorf("after all, again: %+v, %v; want it repeated", got, err)
		}
	}
}

// Where most of what was known is missing, its removal is held, whatever comes to be known
// beside it before the push breaks off; and no push confirms what it held itself,
// however late it comes again: another sync does.
func TestPushBreaksOffAndHolds(t *testing.T) { each(t, testPushBreaksOffAndHolds) }

func testPushBreaksOffAndHolds(t *testing.T, w *world) {
	for parts := range 4 {
		w.clock.move(time.Hour)
		old := many(10, func(r *serval.Role) {
			r.Name, r.ARN, r.RoleID = "old"+r.Name, roleARN(prod, "old"+r.Name), roleID(prod, "old"+r.Name, 1)
		})
		w.stepping(func(int) {})
		w.push(prod, old...)
		w.clock.move(time.Hour)
		w.push(prod, old...)      // what an earlier turn held is gone
		after := many(37 + parts) // none of them old
		g, _, err := opened(w.intake.OpenSync(t.Context(), hub(), prod, "pod-1", serval.SyncFull))
		if err != nil {
			t.Fatal(err)
		}
		read := reading(inventory(prod, g, w.clock.now()), after...)
		ctx, cancel := context.WithCancel(t.Context())
		from := w.head()
		w.stepping(func(int) {
			if int(w.head()-from) >= parts {
				cancel()
			}
		})
		changed := w.intake.door.Changed.Wait()
		_, err = w.intake.Push(ctx, hub(), prod, read)
		cancel()
		select {
		case <-changed:
			if parts == 0 {
				t.Error("whoever waits for a change is told of one before the first part")
			}
		default:
			if parts > 0 {
				t.Errorf("after %d parts whoever waits for a change is not told", parts)
			}
		}
		if whole := parts == 3; whole != (err == nil) {
			t.Fatalf("after %d parts: %v", parts, err)
		}
		w.stepping(func(int) {})
		wantHeld := func(when string, want int) {
			t.Helper()
			held := 0
			for _, r := range old {
				if r, listed := w.stored()[r.ARN]; listed && !r.HeldSince.IsZero() {
					held++
				}
			}
			if held != want {
				t.Errorf("after %d parts, %s: %d are held, want %d", parts, when, held, want)
			}
		}
		w.clock.move(31 * time.Minute)
		if _, err := w.intake.Push(t.Context(), hub(), prod, read); err != nil {
			t.Fatalf("after %d parts, again: %v", parts, err)
		}
		wantHeld("again", len(old))
		w.clock.move(31 * time.Minute)
		if done := w.push(prod, after...); done.Removed != len(old) {
			t.Errorf("after %d parts, in another sync: %+v, want %d removed", parts, done, len(old))
		}
		wantHeld("in another sync", 0)
	}
}

// A push that another sync has overtaken between two of its parts does no more.
func TestPushOvertaken(t *testing.T) { each(t, testPushOvertaken) }

func testPushOvertaken(t *testing.T, w *world) {
	before, after, _ := w.large()
	w.push(prod, before...)
	second := w.replicas()[1]
	var newer int64
	calls := 0
	w.stepping(func(int) {
		if calls++; calls == 1+4+1 { // a sync is opened, three batches are staged, and the first part is swapped in
			w.clock.move(claimFor)
			var err error
			if newer, _, err = opened(second.OpenSync(t.Context(), serval.Principal{Kind: serval.KindWorker, Worker: "other"}, prod, "pod-1", serval.SyncFull)); err != nil {
				t.Error(err)
			}
		}
	})
	g, _, err := opened(w.intake.OpenSync(t.Context(), hub(), prod, "pod-1", serval.SyncFull))
	if err != nil {
		t.Fatal(err)
	}
	from := w.head()
	_, err = w.intake.Push(t.Context(), hub(), prod, reading(inventory(prod, g, noon), after...))
	wantKind(t, "a push that was overtaken", err, serval.Conflict)
	changed := 0
	for _, r := range w.stored() {
		if r.Description == "changed" {
			changed++
		}
	}
	if newer != g+1 || changed != partRoles || len(w.stored()) != len(before) {
		t.Errorf("generation %d overtook %d; %d roles are of what was overtaken, of %d; want one part, and none gone", newer, g, changed, len(w.stored()))
	}
	var outcomes []string
	for _, e := range w.events(from) {
		outcomes = append(outcomes, string(e.Outcome))
	}
	if got := strings.Join(outcomes, " "); got != "started refused" {
		t.Errorf("recorded: %s; want a part, and that it was refused", got)
	}
	if n := w.rows("staged_role") + w.rows("staged_document"); n != 0 {
		t.Errorf("%d rows are still staged", n)
	}
}

// What is not as it has to be while a push is swapped in is a fault, and the push is
// not accepted: roles that were staged and are gone, and an account that another sync had
// overtaken for a moment.
func TestPushThatIsNotWhole(t *testing.T) { each(t, testPushThatIsNotWhole) }

func testPushThatIsNotWhole(t *testing.T, w *world) {
	before, after, _ := w.large()
	w.push(prod, before...)
	for _, test := range []struct {
		name string
		at   map[int]string // what is done to the database at the nth call of the clock; see TestPushOvertaken
		want string
	}{
		{"what was staged is gone", map[int]string{5: `delete from staged_role where role_id = '` + after[0].RoleID + `'`}, "24 of 25 staged roles are there"},
		{"it was overtaken for a moment", map[int]string{6: `update account set generation = generation + 1`, 7: `update account set generation = generation - 1`}, "1 of 3 parts are swapped in"},
	} {
		calls := 0
		w.stepping(func(int) {
			if calls++; test.at[calls] != "" {
				w.exec(test.at[calls])
			}
		})
		g, _, err := opened(w.intake.OpenSync(t.Context(), hub(), prod, "pod-1", serval.SyncFull))
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.intake.Push(t.Context(), hub(), prod, reading(inventory(prod, g, noon), after...))
		if err == nil || serval.IsRefusal(err) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %s", test.name, err, test.want)
		}
		if w.account(prod).AcceptedGeneration >= g || w.stored()[before[0].ARN].ARN == "" {
			t.Errorf("%s: it is accepted, or what is missing is gone", test.name)
		}
	}
}

// While people are served a push gives way to them, and it comes to its end however
// many come: with somebody served all the time it takes eight times as long as it works.
func TestPushGivesWay(t *testing.T) { synctest.Test(t, testPushGivesWay) }

func testPushGivesWay(t *testing.T) {
	const each = time.Millisecond / 2 // that a role takes to be read
	w := newWorld(t)
	push := func() time.Duration {
		g, _, err := opened(w.intake.OpenSync(t.Context(), hub(), prod, "pod-1", serval.SyncFull))
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		read := reading(inventory(prod, g, w.clock.now()), many(3)...)
		_, err = w.intake.Push(t.Context(), hub(), prod, func(take func(serval.Role) error) (serval.Inventory, string, error) {
			return read(func(r serval.Role) error {
				time.Sleep(each)
				return take(r)
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		return time.Since(began)
	}
	if took := push(); took != 3*each {
		t.Errorf("with nobody served a push took %s, want %s", took, 3*each)
	}
	err := w.intake.door.View(t.Context(), adm(), serval.RoleRead, "", func(*store.View) error {
		if took := push(); took != 8*3*each {
			t.Errorf("with somebody served a push took %s, want %s", took, 8*3*each)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// What changes between two parts is seen: what an admin did stands, and what was to
// stay as it is and is not so any more is pushed again.
func TestChangesBetweenParts(t *testing.T) { each(t, testChangesBetweenParts) }

func testChangesBetweenParts(t *testing.T, w *world) {
	before, after, also := w.large()
	same, steady := aRole(prod, "same"), aRole(prod, "steady")
	w.push(prod, append(before, same, steady)...)
	calls := 0
	between := func(change func(tx *store.Tx) error) {
		calls = 0
		w.stepping(func(int) {
			if calls++; calls == 1+4+1 {
				if err := w.store.Write(t.Context(), w.clock.now(), change); err != nil {
					t.Error(err)
				}
			}
		})
	}
	between(func(tx *store.Tx) error { return tx.LowerMaxSession(same.Key(), 7200) })
	done := w.pushAs(prod, also, append(after, same, steady)...)
	if want := (Pushed{Added: 11, Changed: 54, Removed: 7}); done != want {
		t.Errorf("pushed %+v, want %+v", done, want)
	}
	w.wantLarge("a role's maximum was lowered meanwhile", append(after, same, steady))
	again := many(250, func(r *serval.Role) { r.Description = "again" })
	between(func(tx *store.Tx) error { return markStale(tx, steady.Key()) })
	g, _, err := opened(w.intake.OpenSync(t.Context(), hub(), prod, "pod-1", serval.SyncFull))
	if err != nil {
		t.Fatal(err)
	}
	read := reading(inventory(prod, g, noon), append(again, same, steady)...)
	_, err = w.intake.Push(t.Context(), hub(), prod, read)
	wantKind(t, "where what was to stay as it is is stale", err, serval.Exhausted)
	w.stepping(func(int) {})
	if _, err := w.intake.Push(t.Context(), hub(), prod, read); err != nil {
		t.Error(err)
	}
	if r := w.stored()[steady.ARN]; !r.StaleSince.IsZero() {
		t.Errorf("pushed again, it is stale since %s", r.StaleSince)
	}
}

// A push that came to two replicas is taken in once, whatever each has done of it. R-21
func TestPushOnTwoReplicas(t *testing.T) {
	w := worldOver(t, pgtest.URLOf(t, storetest.Migrate))
	before, after, also := w.large()
	w.push(prod, before...)
	g, _, err := opened(w.intake.OpenSync(t.Context(), hub(), prod, "pod-1", serval.SyncFull))
	if err != nil {
		t.Fatal(err)
	}
	inv := inventory(prod, g, w.clock.now())
	also(&inv)
	read := reading(inv, after...)
	from := w.head()
	var wait sync.WaitGroup
	for _, replica := range w.replicas() {
		wait.Go(func() {
			if _, err := replica.Push(t.Context(), hub(), prod, read); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	w.wantLarge("pushed twice at once", after)
	accepted := 0
	for _, e := range w.events(from) {
		if e.Action == serval.InventoryAccept && e.Outcome == serval.OutcomeDone {
			accepted++
		}
	}
	if accepted != 1 {
		t.Errorf("it was accepted %d times", accepted)
	}
}

// the connection to PostgreSQL is cut at statements of a push of several parts,
// before they arrive and after they were done. Nothing that was merely missing is gone
// before all is taken in, the log holds, and the same push again does the rest.
// SERVAL_LONG=1 cuts at every one of them.
func TestPushCutAtEachStatement(t *testing.T) {
	proxy, url := pgtest.NewProxy(t, pgtest.URLOf(t, storetest.Migrate))
	w := worldOver(t, url)
	before, after, also := w.large()
	step := 29
	if os.Getenv("SERVAL_LONG") != "" {
		step = 1
	}
	cuts, tried := 0, 0
	for _, cutAfter := range []bool{false, true} {
		for nth := 1 + rand.IntN(step); ; nth += step {
			w.clock.move(time.Hour)
			w.push(prod, before...)
			from := w.head()
			g, _, err := opened(w.intake.OpenSync(t.Context(), hub(), prod, "pod-1", serval.SyncFull))
			if err != nil {
				t.Fatal(err)
			}
			inv := inventory(prod, g, w.clock.now())
			also(&inv)
			read := reading(inv, after...)
			proxy.Cut(nth, cutAfter)
			_, err = w.intake.Push(t.Context(), hub(), prod, read)
			hit := proxy.Cuts() > cuts
			proxy.Cut(0, false)
			cuts = proxy.Cuts()
			if accepted := w.account(prod).AcceptedGeneration == g; !accepted {
				if err == nil {
					t.Errorf("cut %d: it is said to be accepted, and is not", nth)
				}
				if kept := w.stored(); kept[before[0].ARN].ARN == "" {
					t.Errorf("cut %d: what was missing is gone before the push is accepted", nth)
				}
			}
			if _, err := w.intake.Push(t.Context(), hub(), prod, read); err != nil {
				t.Errorf("cut %d, again: %v", nth, err)
			}
			w.wantLarge(fmt.Sprintf("cut %d, again", nth), after)
			w.events(from) // the chain holds
			if !hit {
				break
			}
			tried++
		}
	}
	if tried == 0 {
		t.Error("nothing was cut")
	}
	t.Logf("%d cuts", tried)
}

// Where the database goes away, telling stops at the first role that it meets, and
// goes on when it is back.
func TestTellingStopsWhereTheDatabaseIsAway(t *testing.T) {
	proxy, url := pgtest.NewProxy(t, pgtest.URLOf(t, storetest.Migrate))
	w := worldOver(t, url)
	const n = 30
	w.push(prod, many(n, allowing("sqs:SendMessage"))...)
	from := w.head()
	w.intake.telling.Lock()
	w.clock.move(time.Minute)
	w.push(prod, many(n, allowing("sqs:SendMessage", "sqs:PurgeQueue"))...)
	w.intake.telling.Unlock()
	proxy.Fall(5)
	_, err := w.intake.Tell(t.Context())
	if err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("the database is away: %v; want it said once", err)
	}
	proxy.Down(false)
	w.intake.tellAll(t.Context())
	if times, _ := w.toldOf(from); len(times) != n {
		t.Errorf("%d roles are told of when it is back, want %d", len(times), n)
	}
}
