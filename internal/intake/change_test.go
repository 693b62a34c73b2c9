package intake

import (
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/insight"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// allowing returns a change of a role to one policy that allows actions.
func allowing(actions ...string) func(*serval.Role) {
	return func(r *serval.Role) {
		r.InlinePolicies.Policies = []serval.InlinePolicy{{Name: "all",
			Document: serval.Document(`{"Statement":{"Effect":"Allow","Action":["` + strings.Join(actions, `","`) + `"],"Resource":"*"}}`)}}
	}
}

// many returns roles of an account, each with a change.
func many(n int, change ...func(*serval.Role)) (roles []serval.Role) {
	for i := range n {
		roles = append(roles, aRole(prod, fmt.Sprintf("r%04d", i), change...))
	}
	return roles
}

// toldOf returns how often each role was told of, and what of it.
func (w *world) toldOf(after int64) (times map[string]int, last map[string]string) {
	w.t.Helper()
	times, last = map[string]int{}, map[string]string{}
	for _, e := range w.events(after) {
		if e.Action == serval.RoleChange {
			times[e.Target]++
			last[e.Target] = e.Detail["change"]
		}
	}
	return times, last
}

// However many roles a push changes, each that gained something is told of, once.
func TestEveryChangedRoleIsToldOf(t *testing.T) { each(t, testEveryChangedRoleIsToldOf) }

func testEveryChangedRoleIsToldOf(t *testing.T, w *world) {
	const n = 730
	w.push(prod, many(n, allowing("sqs:SendMessage"))...)
	before := w.head()
	if times, _ := w.toldOf(0); len(times) != 0 {
		t.Errorf("%d new roles are told of as changed", len(times))
	}
	w.clock.move(time.Minute)
	roles := many(n, allowing("sqs:SendMessage", "sqs:PurgeQueue"))
	roles[7].Description = "It gained this, too."
	allowing("sqs:SendMessage")(&roles[8])
	allowing()(&roles[9])
	done := w.push(prod, roles...)
	if done.Changed != n-1 {
		t.Fatalf("%d roles changed, want %d", done.Changed, n-1)
	}
	if times, _ := w.toldOf(before); len(times) < tellBatch {
		t.Errorf("the push itself told of %d roles, want all that there is time for", len(times))
	}
	for more := true; more; { // what a slow machine did not come to in that time
		var err error
		if more, err = w.intake.Tell(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	times, last := w.toldOf(before)
	if len(times) != n-2 {
		t.Errorf("%d roles are told of, want %d: all but the one that is as it was, and the one that lost something", len(times), n-2)
	}
	for arn, n := range times {
		if n != 1 || !strings.HasPrefix(last[arn], "It gains 1 action: SQS (1 write).\n") {
			t.Errorf("%s is told of %d times: %s", arn, n, last[arn])
		}
	}
	// Of the first twenty the push's own event says how.
	hows := 0
	for _, e := range w.events(before) {
		for i := range maxNamed + 1 {
			name := fmt.Sprintf("changed_%02d", i+1)
			if _, ok := e.Detail[name+"_how"]; ok {
				hows++
				if e.Action != serval.InventoryAccept || e.Detail[name] == "" {
					t.Errorf("%s of %s says how, and not of what", name, e.Action)
				}
			}
		}
	}
	if hows != maxNamed {
		t.Errorf("of %d roles the push's event says how they changed, want %d", hows, maxNamed)
	}
	if more, err := w.intake.Tell(t.Context()); more || err != nil {
		t.Errorf("there is more to tell: %v, %v", more, err)
	}
}

// What a push did not come to is told later, once, whichever replica comes to it;
// and of a role that has changed again, both changes at once.
func TestWhatIsLeftIsToldOnce(t *testing.T) { each(t, testWhatIsLeftIsToldOnce) }

func testWhatIsLeftIsToldOnce(t *testing.T, w *world) {
	const n = 120
	w.push(prod, many(n, allowing("sqs:SendMessage"))...)
	before := w.head()
	w.intake.telling.Lock() // as where the bridge dies behind the push
	for _, actions := range [][]string{{"sqs:SendMessage", "sqs:PurgeQueue"}, {"sqs:SendMessage", "sqs:PurgeQueue", "sqs:DeleteQueue"}} {
		w.clock.move(time.Minute)
		w.push(prod, many(n, allowing(actions...))...)
	}
	if times, _ := w.toldOf(before); len(times) != 0 {
		t.Fatalf("%d roles were told of", len(times))
	}
	w.intake.telling.Unlock()
	var wait sync.WaitGroup
	for _, replica := range w.replicas() {
		wait.Go(func() {
			for more := true; more; {
				var err error
				if more, err = replica.Tell(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	w.intake.tellAll(t.Context()) // where one replica began when the other had all but ended
	times, last := w.toldOf(before)
	if len(times) != n {
		t.Errorf("%d roles are told of, want %d", len(times), n)
	}
	for arn, n := range times {
		if n != 1 || !strings.HasPrefix(last[arn], "It gains 2 actions: SQS (2 write).\n") {
			t.Errorf("%s is told of %d times: %s", arn, n, last[arn])
		}
	}
}

// A role that goes before it is told of is told of when it comes back, with what it
// gained in between.
func TestARoleThatWasAway(t *testing.T) { each(t, testARoleThatWasAway) }

func testARoleThatWasAway(t *testing.T, w *world) {
	role := func(actions ...string) serval.Role { return aRole(prod, "r", allowing(actions...)) }
	rest := many(9)
	w.push(prod, append(rest, role("sqs:SendMessage"))...)
	w.clock.move(time.Minute)
	w.pushAs(prod, func(inv *serval.Inventory) { inv.Untagged = []string{roleID(prod, "r", 1)} }, rest...)
	before := w.head()
	w.clock.move(time.Minute)
	w.push(prod, append(rest, role("sqs:SendMessage", "sqs:PurgeQueue"))...)
	times, last := w.toldOf(before)
	if arn := roleARN(prod, "r"); len(times) != 1 || times[arn] != 1 || !strings.HasPrefix(last[arn], "It gains 1 action: SQS") {
		t.Errorf("told of %v: %v", times, last)
	}
}

// Those who approve are told once of all for whom they do; whoever's approval is
// suspended, each.
func TestNotices(t *testing.T) {
	request := func(id, email string, suspends bool, approvers ...string) *serval.Request {
		return &serval.Request{ID: id, Email: email, Status: serval.StatusApproved,
			Terms: serval.Terms{SuspendOnEscalation: suspends, Steps: []serval.People{{Groups: approvers}}}}
	}
	grew := insight.Change{Sentences: []string{"It gains much."}}
	grave := insight.Change{Sentences: []string{"It can now do anything."}, Escalated: true}
	var crowd []*serval.Request
	for i := range 25 {
		crowd = append(crowd, request(fmt.Sprint("r", i), fmt.Sprintf("p%02d@example.com", i), false, "leads"))
	}
	automatic := request("auto", "ana@example.com", true)
	automatic.Terms.Steps = nil
	for _, c := range []struct {
		name     string
		change   insight.Change
		requests []*serval.Request
		want     []string
	}{
		{"nobody has it", grew, nil, nil},
		{"nobody was asked", grave, []*serval.Request{automatic}, nil},
		{"one", grew, []*serval.Request{request("r1", "ana@example.com", true, "leads")},
			[]string{"know r1 group leads: A role that you approve for ana@example.com can do more now: It gains much."}},
		{"the same twice, and another", grew, []*serval.Request{request("r1", "ana@example.com", true, "leads"), request("r2", "ana@example.com", false, "leads"), request("r3", "bob@example.com", true, "leads")},
			[]string{"know r1 group leads: A role that you approve for ana@example.com, bob@example.com can do more now: It gains much."}},
		{"other approvers", grew, []*serval.Request{request("r1", "ana@example.com", true, "leads"), request("r2", "bob@example.com", true, "leads", "sre")},
			[]string{"know r1 group leads: A role that you approve for ana@example.com can do more now: It gains much.",
				"know r2 group leads, group sre: A role that you approve for bob@example.com can do more now: It gains much."}},
		{"an administrator", grave, []*serval.Request{request("r1", "ana@example.com", true, "leads"), request("r2", "bob@example.com", true, "leads"), request("r3", "eve@example.com", false, "leads")},
			[]string{"know r1 ana@example.com: Your access is suspended: its role gained the powers of an administrator: Ask for an extension; whoever approves it approves the role as it is now.",
				"know r2 bob@example.com: Your access is suspended: its role gained the powers of an administrator: Ask for an extension; whoever approves it approves the role as it is now.",
				"alarm r1 group leads: A role that you approve for ana@example.com, bob@example.com can make them an administrator now: What was approved is suspended until it is approved again: its holder asks for an extension.\nIt can now do anything.",
				"alarm r3 group leads: A role that you approve for eve@example.com can make them an administrator now: It can now do anything."}},
		{"very many", grew, crowd, []string{"know r0 group leads: A role that you approve for " + strings.Join(func() (names []string) {
			for i := range maxPeople {
				names = append(names, fmt.Sprintf("p%02d@example.com", i))
			}
			return names
		}(), ", ") + " and 5 more can do more now: It gains much."}},
	} {
		var got []string
		for _, n := range notices(c.change, c.requests) {
			got = append(got, fmt.Sprintf("%s %s %s: %s: %s", n.Purpose, n.RequestID, n.To, n.Facts[serval.FactTitle], n.Facts[serval.FactText]))
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: notices (-want +got):\n%s", c.name, diff)
		}
	}
}

// A role that cannot be read keeps nobody from hearing of the others, and is told of
// itself once it can be.
func TestARoleThatCannotBeRead(t *testing.T) { each(t, testARoleThatCannotBeRead) }

func testARoleThatCannotBeRead(t *testing.T, w *world) {
	const n = 70
	w.push(prod, many(n, allowing("sqs:SendMessage"))...)
	before := w.head()
	w.intake.telling.Lock() // nobody is told meanwhile
	w.clock.move(time.Minute)
	w.push(prod, many(n, allowing("sqs:SendMessage", "sqs:PurgeQueue"))...)
	w.intake.telling.Unlock()
	broken := []string{"r0001", "r0002", "r0003", "r0060"}
	set := func(column, name, value string) {
		w.exec(`update role set ` + column + ` = ` + value + ` where arn = '` + roleARN(prod, name) + `'`)
	}
	set("tags", broken[0], "'{' || tags")
	set("policies", broken[1], "'{' || policies")
	was := func(tags string) {
		w.exec(`update role_version set tags = ` + tags + ` where number = 1 and arn = '` + roleARN(prod, broken[2]) + `'`)
	}
	was("'{' || tags")
	set("trust", broken[3], "'no such document'")
	var failed error
	for more := true; more; {
		var err error
		more, err = w.intake.Tell(t.Context())
		failed = errors.Join(failed, err)
	}
	if failed == nil {
		t.Fatal("nothing is said of roles that cannot be read")
	}
	for _, name := range broken[:3] {
		if !strings.Contains(failed.Error(), roleARN(prod, name)) {
			t.Errorf("it failed with %v; want %s named", failed, name)
		}
	}
	times, _ := w.toldOf(before)
	if len(times) != n-len(broken) {
		t.Errorf("%d roles are told of, want %d", len(times), n-len(broken))
	}
	set("tags", broken[0], "substr(tags, 2)")
	set("policies", broken[1], "substr(policies, 2)")
	was("substr(tags, 2)")
	set("trust", broken[3], "(select trust from role_version where role_version.role_id = role.role_id and number = 1)")
	w.intake.tellAll(t.Context())
	times, _ = w.toldOf(before)
	if len(times) != n {
		t.Errorf("%d roles are told of after all can be read, want %d", len(times), n)
	}
	for arn, n := range times {
		if n != 1 {
			t.Errorf("%s is told of %d times", arn, n)
		}
	}
}

// exec changes the database as somebody would who has it.
func (w *world) exec(statement string) {
	w.t.Helper()
	db := w.database()
	defer db.Close()
	if _, err := db.ExecContext(w.t.Context(), statement); err != nil {
		w.t.Fatal(err)
	}
}

// database opens the world's database beside the store.
func (w *world) database() *sql.DB {
	w.t.Helper()
	driver, url := "pgx", w.url
	if path, ok := strings.CutPrefix(w.url, "sqlite://"); ok {
		driver, url = "sqlite", path
	}
	db, err := sql.Open(driver, url)
	if err != nil {
		w.t.Fatal(err)
	}
	return db
}

// Whoever acts waits for a few rows of a telling, however much there is to tell.
func TestTellingIsShort(t *testing.T) {
	w := newWorld(t)
	d := w.door(w.store)
	d.Now = func() time.Time { w.clock.move(time.Second); return w.clock.now() } // each transaction has its own
	taking := New(d)
	w.intake = taking
	w.push(prod, many(80, allowing("sqs:SendMessage"))...)
	before := w.head()
	w.push(prod, many(80, allowing("sqs:SendMessage", "sqs:PurgeQueue"))...)
	together, all := map[time.Time]int{}, 0
	for _, e := range w.events(before) {
		if e.Action == serval.RoleChange {
			all++
			together[e.At]++
		}
	}
	for at, n := range together {
		if n > maxTold/2 { // beside each row there is the note that it was told
			t.Errorf("%d rows are kept together, at %s; want at most %d", n, at, maxTold/2)
		}
	}
	if all != 80 {
		t.Errorf("%d roles are told of", all)
	}
}

// A role has fifty versions, however often it changes, also where nobody is to be
// told of any.
func TestFiftyVersionsAreKept(t *testing.T) {
	w := newWorld(t)
	const n = 53
	for i := range n {
		w.clock.move(time.Minute)
		w.push(prod, aRole(prod, "r", func(r *serval.Role) { r.Description = fmt.Sprint(i) }))
	}
	var kept []store.Role
	err := w.store.Read(t.Context(), func(v *store.View) (err error) {
		kept, err = v.RoleVersions(aRole(prod, "r").Key())
		return err
	})
	if err != nil || len(kept) != 50 || kept[0].Version != n {
		t.Errorf("%d versions are kept, %v; want 50, up to the last", len(kept), err)
	}
}

// What a role was that was here before versions were is kept when it first changes, and
// what it gained is told.
func TestARoleFromBeforeVersions(t *testing.T) { each(t, testARoleFromBeforeVersions) }

func testARoleFromBeforeVersions(t *testing.T, w *world) {
	w.push(prod, aRole(prod, "r", allowing("sqs:SendMessage")))
	w.exec(`delete from role_version`)
	w.exec(`update role set version = 0, changed_at = 0`)
	before := w.head()
	w.clock.move(time.Minute)
	w.push(prod, aRole(prod, "r", allowing("sqs:SendMessage", "sqs:PurgeQueue")))
	var numbers []int64
	err := w.store.Read(t.Context(), func(v *store.View) error {
		kept, err := v.RoleVersions(aRole(prod, "r").Key())
		for _, r := range kept {
			numbers = append(numbers, r.Version)
		}
		return err
	})
	if diff := cmp.Diff([]int64{1, 0}, numbers); err != nil || diff != "" {
		t.Errorf("%v; the versions that are kept (-want +got):\n%s", err, diff)
	}
	if times, last := w.toldOf(before); times[roleARN(prod, "r")] != 1 || !strings.HasPrefix(last[roleARN(prod, "r")], "It gains 1 action: SQS") {
		t.Errorf("told of %v: %v", times, last)
	}
}
