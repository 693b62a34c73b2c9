package intake

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// delta returns a complete delta.
func delta(account string, generation int64, at time.Time, removed ...serval.Removal) serval.Delta {
	return serval.Delta{
		Schema: serval.DeltaSchema, AccountID: account, Generation: generation,
		StartedAt: at, FinishedAt: at, Complete: true, ReadBy: serval.ByRoles, Removed: removed,
	}
}

// readingDelta hands over roles and then the rest, with a digest of it all.
func readingDelta(d serval.Delta, roles ...serval.Role) func(func(serval.Role) error) (serval.Delta, string, error) {
	return func(take func(serval.Role) error) (serval.Delta, string, error) {
		digest := fmt.Sprint(d.Generation, d.Complete, d.Removed, d.Unreadable)
		for _, r := range roles {
			if err := take(r); err != nil {
				return serval.Delta{}, "", err
			}
			digest += r.Digest()
		}
		return d, digest, nil
	}
}

func gone(reason string, r serval.Role) serval.Removal {
	return serval.Removal{RoleID: r.RoleID, ARN: r.ARN, Reason: reason}
}

// pushDelta opens and pushes a delta of prod.
func (w *world) pushDelta(change func(*serval.Delta), roles ...serval.Role) Pushed {
	w.t.Helper()
	o, err := w.intake.OpenSync(w.t.Context(), hub(), prod, "pod-1", serval.SyncDelta)
	if err != nil {
		w.t.Fatal(err)
	}
	d := delta(prod, o.Generation, w.clock.now())
	if change != nil {
		change(&d)
	}
	done, err := w.intake.PushDelta(w.t.Context(), hub(), prod, readingDelta(d, roles...))
	if err != nil {
		w.t.Fatal(err)
	}
	return done
}

// What a delta changes, and that it touches nothing else.
func TestPushDelta(t *testing.T) { each(t, testPushDelta) }

func testPushDelta(t *testing.T, w *world) {
	a, b, c := aRole(prod, "a"), aRole(prod, "b"), aRole(prod, "c")
	again := aRole(prod, "a", func(r *serval.Role) { r.RoleID = roleID(prod, "a", 2) })
	for _, test := range []struct {
		name    string
		change  func(*serval.Delta)
		roles   []serval.Role
		want    Pushed
		after   string // ids of all roles of the account
		quiet   bool
		details string
	}{
		{"nothing", nil, nil, Pushed{}, "A1 B1", true, ""},
		{"what it has as it was", nil, []serval.Role{a}, Pushed{}, "A1 B1", true, ""},
		{"used since", nil, []serval.Role{aRole(prod, "a", func(r *serval.Role) { used := noon.Add(-time.Minute); r.LastUsedAt = &used })}, Pushed{}, "A1 B1", false, "roles"},
		{"new", nil, []serval.Role{c}, Pushed{Added: 1}, "A1 B1 C1", false, "added"},
		{"changed", nil, []serval.Role{aRole(prod, "a", func(r *serval.Role) { r.Tags["team"] = "x" })}, Pushed{Changed: 1}, "A1 B1", false, "changed"},
		{"untagged", func(d *serval.Delta) { d.Removed = []serval.Removal{gone(serval.RemovedUntagged, a)} }, nil, Pushed{Removed: 1}, "B1", false, "untagged"},
		{"deleted", func(d *serval.Delta) { d.Removed = []serval.Removal{gone(serval.RemovedDeleted, a)} }, nil, Pushed{Removed: 1}, "B1", false, "missing"},
		{"deleted, in an incomplete one", func(d *serval.Delta) { d.Complete, d.Removed = false, []serval.Removal{gone(serval.RemovedDeleted, a)} }, nil, Pushed{Removed: 1}, "B1", false, "missing"},
		{"created again", func(d *serval.Delta) { d.Removed = []serval.Removal{gone(serval.RemovedDeleted, a)} }, []serval.Role{again}, Pushed{Added: 1, Removed: 1}, "A2 B1", false, "recreated"},
		{"created again, without saying so", nil, []serval.Role{again}, Pushed{Added: 1, Removed: 1}, "A2 B1", false, "recreated"},
		{"created again without the tag", func(d *serval.Delta) { d.Removed = []serval.Removal{gone(serval.RemovedDeleted, a)} }, nil, Pushed{Removed: 1}, "B1", false, "missing"},
		// it is the full sync that says that a role is stale.
		{"unreadable", func(d *serval.Delta) {
			d.Complete, d.Unreadable = false, []serval.Unreadable{{ARN: a.ARN, RoleID: a.RoleID, Action: "iam:GetRole", Code: "AccessDenied"}}
		}, nil, Pushed{}, "A1 B1", true, ""},
		{"removing what is not there", func(d *serval.Delta) { d.Removed = []serval.Removal{gone(serval.RemovedDeleted, c)} }, nil, Pushed{}, "A1 B1", true, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			w.push(prod, a, b)
			w.push(dev, aRole(dev, "a"))
			full := w.account(prod)
			w.clock.move(time.Minute)
			before := w.head()
			if got := w.pushDelta(test.change, test.roles...); got != test.want {
				t.Errorf("pushed %+v, want %+v", got, test.want)
			}
			var ids []string
			for _, r := range w.stored() {
				if r.Key.AccountID == prod {
					ids = append(ids, strings.TrimPrefix(r.RoleID, "AROA"+prod))
				}
				if !r.StaleSince.IsZero() || !r.HeldSince.IsZero() {
					t.Errorf("%s is stale or held", r.ARN)
				}
			}
			slices.Sort(ids)
			if got := strings.Join(ids, " "); got != test.after {
				t.Errorf("roles %s, want %s", got, test.after)
			}
			if _, ok := w.stored()[roleARN(dev, "a")]; !ok {
				t.Error("another account's role has gone")
			}
			events := w.events(before)
			switch {
			case test.quiet && len(events) != 0:
				t.Errorf("%d events, want none: nothing changed", len(events))
			case !test.quiet && (len(events) != 1 || events[0].Action != serval.DeltaAccept || events[0].Target != prod || events[0].Detail[test.details] != "1"):
				t.Errorf("events %+v, want one that tells of %s", events, test.details)
			}
			// What the full sync said stands; the claim has ended.
			now, looked := w.account(prod), w.clock.now()
			if d := delta(prod, 1, noon); test.change != nil {
				if test.change(&d); !d.Complete {
					looked = full.LookedAt // and so it is looked at again
				}
			}
			if !now.LookedAt.Equal(looked) || now.ClaimedBy != "" || now.AcceptedGeneration != full.Generation+1 {
				t.Errorf("looked at %s, claimed by %q, generation %d; want %s, nobody, %d", now.LookedAt, now.ClaimedBy, now.AcceptedGeneration, looked, full.Generation+1)
			}
			now.LookedAt, now.Generation, now.AcceptedGeneration, now.AcceptedDigest, now.AcceptedAnswer =
				full.LookedAt, full.Generation, full.AcceptedGeneration, full.AcceptedDigest, full.AcceptedAnswer
			if d := cmp.Diff(full, now); d != "" {
				t.Errorf("what the full sync said has changed (-want +got):\n%s", d)
			}
		})
	}
}

// A held or stale role that a delta reads whole is fresh again; one that is
// held and gone is removed. What it does not name stays held, however many
// deltas come.
func TestDeltaAndWhatIsHeld(t *testing.T) { each(t, testDeltaAndWhatIsHeld) }

func testDeltaAndWhatIsHeld(t *testing.T, w *world) {
	var roles []serval.Role
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		roles = append(roles, aRole(prod, name))
	}
	w.push(prod, roles...)
	w.pushAs(prod, func(i *serval.Inventory) {
		i.Unreadable = []serval.Unreadable{{ARN: roles[0].ARN, RoleID: roles[0].RoleID, Action: "iam:GetRole", Code: "AccessDenied"}}
	}, roles[1])
	held := func() (names string) {
		for _, r := range roles {
			s, ok := w.stored()[r.ARN]
			switch {
			case !ok:
				names += r.Name + " gone "
			case !s.HeldSince.IsZero():
				names += r.Name + " held "
			case !s.StaleSince.IsZero():
				names += r.Name + " stale "
			}
		}
		return strings.TrimSpace(names)
	}
	if got := held(); got != "a stale c held d held e held" {
		t.Fatalf("before the delta: %s", got)
	}
	o, err := w.intake.OpenSync(t.Context(), hub(), prod, "pod-1", serval.SyncDelta)
	if err != nil {
		t.Fatal(err)
	}
	// Their digests are not told, so that the worker sends them.
	for _, k := range o.Known {
		doubtful := k.RoleID != roles[1].RoleID
		if (k.Digest == "") != doubtful || (k.Shown == "") != doubtful {
			t.Errorf("known role %+v, want its digests empty: %t", k, doubtful)
		}
	}
	w.clock.move(time.Hour)
	w.pushDelta(nil)
	if got := held(); got != "a stale c held d held e held" {
		t.Errorf("after a delta that names none of them: %s", got)
	}
	before := w.head()
	w.pushDelta(func(d *serval.Delta) { d.Removed = []serval.Removal{gone(serval.RemovedDeleted, roles[3])} }, roles[0], roles[2])
	if got := held(); got != "d gone e held" {
		t.Errorf("after a delta that has a and c, and misses d: %s", got)
	}
	if e := w.events(before); len(e) != 1 || e[0].Detail["fresh"] != "2" || e[0].Detail["missing"] != "1" {
		t.Errorf("events %+v, want one that says that two are fresh and one is gone", e)
	}
}

// as with inventories, and the two share their generations.
func TestDeltaGenerations(t *testing.T) { each(t, testDeltaGenerations) }

func testDeltaGenerations(t *testing.T, w *world) {
	ctx := t.Context()
	w.push(prod, aRole(prod, "a"))
	open := func(name string, kind serval.SyncKind) (Opened, error) {
		return w.intake.OpenSync(ctx, hub(), prod, name, kind)
	}
	push := func(g int64, roles ...serval.Role) (Pushed, error) {
		return w.intake.PushDelta(ctx, hub(), prod, readingDelta(delta(prod, g, w.clock.now()), roles...))
	}
	_, err := open("pod-1", "whole")
	wantKind(t, "a kind that there is not", err, serval.Invalid)

	o, err := open("pod-1", serval.SyncDelta)
	if err != nil || !o.Until.Equal(w.clock.now().Add(deltaClaimFor)) || !o.LookedAt.Equal(noon) || len(o.Known) != 1 {
		t.Fatalf("opened %+v, %v", o, err)
	}
	a := aRole(prod, "a")
	if want := (serval.KnownRole{RoleID: a.RoleID, ARN: a.ARN, Digest: a.Digest(), Shown: a.Shown()}); o.Known[0] != want {
		t.Errorf("known %+v, want %+v", o.Known[0], want)
	}
	_, err = open("pod-2", serval.SyncFull)
	wantKind(t, "another replica's sync, while the delta is read", err, serval.Conflict)
	_, err = push(o.Generation + 1)
	wantKind(t, "a number that was not issued", err, serval.Conflict)
	if got, err := push(o.Generation, aRole(prod, "b")); err != nil || got != (Pushed{Added: 1}) {
		t.Fatalf("pushed %+v, %v", got, err)
	}
	before := w.head()
	if got, err := push(o.Generation, aRole(prod, "b")); err != nil || got != (Pushed{Repeated: true, Added: 1}) || w.head() != before {
		t.Errorf("pushed again %+v, %v, %d events; want the same answer and none", got, err, w.head()-before)
	}
	_, err = push(o.Generation)
	wantKind(t, "another delta of the same number", err, serval.Conflict)
	_, err = w.intake.Push(ctx, hub(), prod, reading(inventory(prod, o.Generation, noon)))
	wantKind(t, "an inventory of the same number", err, serval.Conflict)

	// A full sync of the same replica overtakes a delta: the late push is dropped.
	late, err := open("pod-1", serval.SyncDelta)
	if err != nil {
		t.Fatal(err)
	}
	full, err := open("pod-1", serval.SyncFull)
	if err != nil || full.Generation != late.Generation+1 {
		t.Fatalf("opened %+v, %v; want the next", full, err)
	}
	_, err = push(late.Generation, aRole(prod, "c"))
	wantKind(t, "a delta that was overtaken", err, serval.Conflict)
	if _, err = w.intake.Push(ctx, hub(), prod, reading(inventory(prod, full.Generation, noon), aRole(prod, "a"))); err != nil {
		t.Fatal(err)
	}
	_, err = push(late.Generation, aRole(prod, "c"))
	wantKind(t, "an older delta", err, serval.Conflict)

	bound := serval.Principal{Kind: serval.KindWorker, Worker: "hub", Bound: []string{dev}}
	_, err = w.intake.PushDelta(ctx, bound, prod, readingDelta(delta(prod, full.Generation, noon)))
	wantKind(t, "an account it was not given", err, serval.NotFound)
	_, err = w.intake.PushDelta(ctx, adm(), prod, readingDelta(delta(prod, full.Generation, noon)))
	wantKind(t, "an admin", err, serval.Unauthenticated)
}

// What is not of the account, or says two things of one role, is refused whole.
func TestDeltaRefused(t *testing.T) {
	w := newWorld(t)
	a := aRole(prod, "a")
	w.push(prod, a)
	o, err := w.intake.OpenSync(t.Context(), hub(), prod, "pod-1", serval.SyncDelta)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		change func(*serval.Delta)
		roles  []serval.Role
		want   string
	}{
		{"another account's delta", func(d *serval.Delta) { d.AccountID = dev }, nil, "is of account"},
		{"no generation", func(d *serval.Delta) { d.Generation = 0 }, nil, "bears no generation"},
		{"another account's role", nil, []serval.Role{aRole(dev, "x")}, "is not in account"},
		{"a role without the tag", nil, []serval.Role{aRole(prod, "x", func(r *serval.Role) { r.Tags = nil })}, "has no tag"},
		{"removing another account's role", func(d *serval.Delta) { d.Removed = []serval.Removal{gone(serval.RemovedDeleted, aRole(dev, "x"))} }, nil, "is not in account"},
		{"removing another partition's", func(d *serval.Delta) {
			d.Removed = []serval.Removal{{RoleID: a.RoleID, ARN: strings.Replace(a.ARN, "arn:aws:", "arn:aws-cn:", 1), Reason: serval.RemovedDeleted}}
		}, nil, "is not in partition"},
		{"removing no role", func(d *serval.Delta) {
			d.Removed = []serval.Removal{{RoleID: a.RoleID, ARN: "arn:aws:s3:::x", Reason: serval.RemovedDeleted}}
		}, nil, "Role"},
		{"removing by no id", func(d *serval.Delta) {
			d.Removed = []serval.Removal{{RoleID: "x y", ARN: a.ARN, Reason: serval.RemovedDeleted}}
		}, nil, "which is none"},
		{"removing what it has", func(d *serval.Delta) { d.Removed = []serval.Removal{gone(serval.RemovedUntagged, a)} }, []serval.Role{a}, "both has the role"},
		{"the same role twice", nil, []serval.Role{aRole(prod, "x"), aRole(prod, "x")}, "comes twice"},
	} {
		d := delta(prod, o.Generation, noon)
		if test.change != nil {
			test.change(&d)
		}
		_, err := w.intake.PushDelta(t.Context(), hub(), prod, readingDelta(d, test.roles...))
		if !serval.IsRefusal(err, serval.Invalid, serval.Conflict) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want it refused with %q", test.name, err, test.want)
		}
		if n := w.rows("staged_role") + w.rows("staged_document"); n != 0 {
			t.Errorf("%s: %d rows stay staged", test.name, n)
		}
	}
	w.wantOnly(o.Generation, "a")
	if got, err := w.intake.PushDelta(t.Context(), hub(), prod, readingDelta(delta(prod, o.Generation, noon))); err != nil || got != (Pushed{}) {
		t.Errorf("after all that, the delta: %+v, %v", got, err)
	}
}
