package control

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/serval-bridge/serval-bridge/internal/history"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// allowing returns a change of a role to one inline policy that allows actions on
// everything.
func allowing(actions ...string) func(*serval.Role) {
	return func(r *serval.Role) {
		r.InlinePolicies.Policies = []serval.InlinePolicy{{Name: "all",
			Document: serval.Document(`{"Statement":{"Effect":"Allow","Action":["` + strings.Join(actions, `","`) + `"],"Resource":"*"}}`)}}
	}
}

// noticesOf returns the notices about a request.
func (w *world) noticesOf(id string) (notices []serval.Notice) {
	w.t.Helper()
	if err := w.store.Read(w.t.Context(), func(v *store.View) (err error) { notices, err = v.NoticesOf(id); return err }); err != nil {
		w.t.Fatal(err)
	}
	return notices
}

// What was approved before its role could make an administrator is suspended
// where the policy says so, those who approve are told, and another approval has
// it used again.
func TestEscalation(t *testing.T) { each(t, testEscalation) }

func testEscalation(t *testing.T, w *world) {
	declared := policies()
	for i := range declared {
		declared[i].SuspendOnEscalation = declared[i].Name == "admins"
	}
	if err := w.plane.Declare(t.Context(), serval.System(), 0, accounts(), declared); err != nil {
		t.Fatal(err)
	}
	w.plane.door.Channels = []string{"mail"}
	tame := []func(*serval.Role){allowing("sqs:SendMessage")}
	roles := func(change ...func(*serval.Role)) []serval.Role {
		return []serval.Role{aRole(prod, "admin", change...), aRole(prod, "own", change...)}
	}
	w.push(prod, roles(tame...)...)
	p := w.people()
	r := w.approved(p, 60)
	w.open(p.ana, r.ID)
	unflagged := w.ask(p.ana, roleARN(prod, "own"), 60)
	if _, err := w.decide(p.ana, unflagged.ID, true); err != nil {
		t.Fatal(err)
	}
	w.open(p.ana, unflagged.ID)

	state := func(when, id, cause string, sentences ...string) Request {
		t.Helper()
		one, err := w.plane.RequestByID(t.Context(), p.lea, id)
		if id == unflagged.ID {
			one, err = w.plane.RequestByID(t.Context(), p.ana, id)
		}
		if err != nil || one.Suspended != suspensions[cause] {
			t.Fatalf("%s: suspended %q, %v; want %q", when, one.Suspended, err, suspensions[cause])
		}
		if one.Explained == nil || one.Explained.Since == nil {
			t.Fatalf("%s: it is not explained: %+v", when, one.Explained)
		}
		if diff := cmp.Diff(sentences, one.Explained.Since.Sentences); diff != "" {
			t.Errorf("%s: since the approval (-want +got):\n%s", when, diff)
		}
		return one
	}
	state("at first", r.ID, "")

	before := w.head()
	w.clock.move(time.Hour / 2)
	w.push(prod, roles(allowing("sqs:SendMessage", "iam:PutRolePolicy"))...)
	gained := []string{
		"It can now gain more rights by 1 way: write itself an inline policy, by iam:PutRolePolicy (all, statement 1).",
		"It gains 1 action: IAM (1 permissions).", "The inline policy all was changed.",
	}
	one := state("after it gained", r.ID, "role_escalated", gained...)
	if !one.Explained.Card.AdministratorGrade() || !one.Explained.Since.Escalated {
		t.Errorf("the card says %q, escalated %v", one.Explained.Card.Summary, one.Explained.Since.Escalated)
	}
	state("where the policy does not say so", unflagged.ID, "", gained...)
	w.open(p.ana, unflagged.ID)
	_, err := w.plane.Open(t.Context(), p.ana, Opening{RequestID: r.ID, Kind: serval.ForCredentials})
	wantKind(t, "opening what is suspended", err, serval.FailedPrecondition)

	var changes, accepted []serval.Event
	for _, e := range w.events(before) {
		switch e.Action {
		case serval.RoleChange:
			changes = append(changes, e)
		case serval.InventoryAccept:
			accepted = append(accepted, e)
		}
	}
	if len(changes) != 2 || changes[0].Target != roleARN(prod, "admin") || changes[0].Detail["escalated"] != "true" || changes[0].Detail["change"] != strings.Join(gained, "\n") {
		t.Errorf("events of changed roles: %+v", changes)
	}
	if len(accepted) != 1 || accepted[0].Detail["changed_01_how"] != strings.Join(gained, " ") {
		t.Errorf("events of the push: %+v", accepted)
	}
	var told []string
	for _, n := range w.noticesOf(r.ID) {
		if n.Kind == serval.RoleChange {
			told = append(told, string(n.Purpose)+" "+n.To.String()+": "+n.Facts[serval.FactTitle])
		}
	}
	slices.Sort(told)
	if diff := cmp.Diff([]string{
		"alarm ann@example.com, cto@example.com, group leads: A role that you approve for ana@example.com can make them an administrator now",
		"know ana@example.com: Your access is suspended: its role gained the powers of an administrator",
	}, told); diff != "" {
		t.Errorf("notices (-want +got):\n%s", diff)
	}

	// Approved again it is used again, and what is approved now is what counts.
	if _, err := w.plane.Extend(t.Context(), p.ana, r.ID, 30, "still at it"); err != nil {
		t.Fatal(err)
	}
	state("asked for again", r.ID, "role_escalated", gained...)
	for _, by := range []serval.Principal{p.lea, p.cto} {
		if _, err := w.decide(by, r.ID, true); err != nil {
			t.Fatal(err)
		}
	}
	state("approved again", r.ID, "")
	w.open(p.ana, r.ID)

	// What an administrator gains further suspends nothing; what is lost is told of nobody.
	w.clock.move(time.Hour / 2)
	w.push(prod, roles(allowing("*"))...)
	state("an administrator after all", r.ID, "", "It can now do anything in the account (all, statement 1).",
		"It can now get credentials where it could not before.", "It can now change who may use resources where it could not before.",
		"It can now read data where it could not before.", one0(w, p, r.ID, 4), "The inline policy all was changed.",
		"It can no longer gain more rights by 1 way: write itself an inline policy, by iam:PutRolePolicy (all, statement 1).")
	quiet := len(w.noticesOf(r.ID))
	w.push(prod, roles(tame...)...)
	if got := len(w.noticesOf(r.ID)); got != quiet {
		t.Errorf("%d notices of what a role lost", got-quiet)
	}
}

// Whoever decides sees of each request that waits what its role can do, what that
// has gained and lost since it was last approved, and how often it was asked for.
func TestApprovalsSayWhatChanged(t *testing.T) { each(t, testApprovalsSayWhatChanged) }

func testApprovalsSayWhatChanged(t *testing.T, w *world) {
	w.push(prod, aRole(prod, "peer", allowing("sqs:SendMessage")), aRole(prod, "own", allowing("sqs:SendMessage")))
	ana, bob, eve := w.engineer("ana@example.com"), w.engineer("bob@example.com"), w.engineer("eve@example.com")
	peer := roleARN(prod, "peer")
	waiting := func(when, id string, own bool, times int, sentences ...string) {
		t.Helper()
		list, _, err := w.plane.Approvals(t.Context(), eve, "", 1000)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(list, func(r Request) bool { return r.ID == id })
		if i < 0 || list[i].Explained == nil || list[i].Explained.Card.Summary == "" {
			t.Fatalf("%s: %+v is not explained", when, list)
		}
		one, err := w.plane.RequestByID(t.Context(), eve, id)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(one.Explained, list[i].Explained, cmpopts.IgnoreFields(history.Explained{}, "Role")); diff != "" || !cmp.Equal(one.Trust, list[i].Trust) || one.Trust == nil {
			t.Errorf("%s: in the list it is not as by itself (-by itself +in the list):\n%s", when, diff)
		}
		e := list[i].Explained
		if sentences == nil {
			if e.Since != nil {
				t.Errorf("%s: since nobody's approval: %+v", when, e.Since)
			}
		} else if e.Since == nil || e.Basis.Own != own || e.Basis.At.IsZero() {
			t.Errorf("%s: since %+v by %+v, want own %v", when, e.Since, e.Basis, own)
		} else if diff := cmp.Diff(strings.Join(sentences, "\n"), strings.Join(e.Since.Sentences, "\n")); diff != "" {
			t.Errorf("%s: since the last approval (-want +got):\n%s", when, diff)
		}
		if list[i].Earlier.Times != times {
			t.Errorf("%s: asked for %d times before, want %d", when, list[i].Earlier.Times, times)
		}
	}
	decided := func(by serval.Principal, id string) {
		t.Helper()
		if _, err := w.decide(by, id, true); err != nil {
			t.Fatal(err)
		}
	}
	first := w.ask(ana, peer, 60)
	waiting("nobody ever had it", first.ID, false, 0)
	elsewhere := w.ask(ana, roleARN(prod, "own"), 60)
	decided(ana, elsewhere.ID)
	waiting("another role was approved", first.ID, false, 0)
	decided(bob, first.ID)

	w.clock.move(time.Minute)
	w.push(prod, aRole(prod, "peer", allowing("sqs:SendMessage", "sqs:PurgeQueue")), aRole(prod, "own", allowing("sqs:SendMessage")))
	gained := []string{"It gains 1 action: SQS (1 write).", "The inline policy all was changed."}
	bobs := w.ask(bob, peer, 60)
	waiting("another had it", bobs.ID, false, 0, gained...)
	decided(ana, bobs.ID)
	w.clock.move(time.Minute)
	eves := w.ask(w.engineer("mia@example.com"), peer, 60)
	waiting("the last who had it had it as it is", eves.ID, false, 0, "")
	if _, err := w.plane.Done(t.Context(), ana, first.ID); err != nil {
		t.Fatal(err)
	}
	again := w.ask(ana, peer, 60)
	waiting("the person's own comes before another's", again.ID, true, 1, gained...)
	decided(bob, again.ID)
	if _, err := w.plane.Extend(t.Context(), ana, again.ID, 90, "more"); err != nil {
		t.Fatal(err)
	}
	waiting("an extension: since what is in force", again.ID, true, 1, "")

	// What was approved of a role that had the ARN before is another role's.
	w.clock.move(time.Minute)
	w.push(prod, aRole(prod, "own", allowing("sqs:SendMessage")), aRole(prod, "peer", allowing("sqs:SendMessage"), func(r *serval.Role) { r.RoleID += "2" }))
	fresh := w.ask(ana, peer, 60)
	waiting("the role was created again", fresh.ID, false, 0)
}

// What bounded a role when it was approved, and cannot be read since, gives nobody
// powers; that it was taken away, or another put in its place, may.
func TestEscalationOutOfABoundary(t *testing.T) { each(t, testEscalationOutOfABoundary) }

func testEscalationOutOfABoundary(t *testing.T, w *world) {
	declared := policies()
	for i := range declared {
		declared[i].SuspendOnEscalation = declared[i].Name == "admins"
	}
	if err := w.plane.Declare(t.Context(), serval.System(), 0, accounts(), declared); err != nil {
		t.Fatal(err)
	}
	bounded := func(name string, b *serval.BoundaryPolicy) func(*serval.Role) {
		return func(r *serval.Role) {
			r.PermissionsBoundary, r.BoundaryPolicy = new("arn:aws:iam::"+prod+":policy/"+name), b
		}
	}
	read := &serval.BoundaryPolicy{Status: serval.ListRead, Version: "v1", Document: `{"Statement":{"Effect":"Allow","Action":"s3:*","Resource":"*"}}`}
	denied := &serval.BoundaryPolicy{Status: serval.ListDenied, Action: "iam:GetPolicy"}
	w.push(prod, aRole(prod, "admin", allowing("*"), bounded("edge", read)))
	p := w.people()
	r := w.approved(p, 60)
	for _, c := range []struct {
		name   string
		change []func(*serval.Role)
		cause  string
	}{
		{"as it was", []func(*serval.Role){bounded("edge", read)}, ""},
		{"it cannot be read", []func(*serval.Role){bounded("edge", denied)}, ""},
		{"nobody reads it", []func(*serval.Role){bounded("edge", nil)}, ""},
		{"another, that cannot be read", []func(*serval.Role){bounded("other", denied)}, "role_escalated"},
		{"another, as tight", []func(*serval.Role){bounded("other", read)}, ""},
		{"none", nil, "role_escalated"},
	} {
		w.clock.move(time.Second)
		w.push(prod, aRole(prod, "admin", append(c.change, allowing("*"))...))
		one, err := w.plane.RequestByID(t.Context(), p.lea, r.ID)
		if err != nil || one.Suspended != suspensions[c.cause] {
			t.Errorf("%s: suspended %q, %v; want %q", c.name, one.Suspended, err, suspensions[c.cause])
		}
	}

	// Whoever makes the role an administrator and has its boundary not be read at the
	// same time has made it one, as far as anybody knows.
	if _, err := w.plane.Revoke(t.Context(), p.adm, r.ID, "x"); err != nil {
		t.Fatal(err)
	}
	w.clock.move(time.Second)
	w.push(prod, aRole(prod, "admin", allowing("sqs:SendMessage"), bounded("edge", read)))
	r = w.approved(p, 60)
	w.clock.move(time.Second)
	w.push(prod, aRole(prod, "admin", allowing("*"), bounded("edge", denied)))
	if one, err := w.plane.RequestByID(t.Context(), p.lea, r.ID); err != nil || one.Suspended != suspensions["role_escalated"] {
		t.Errorf("an administrator behind a boundary that is not read any more: suspended %q, %v", one.Suspended, err)
	}
}

// one0 returns a sentence of what changed since the approval, whose numbers change
// with AWS's list.
func one0(w *world, p people, id string, i int) string {
	one, err := w.plane.RequestByID(w.t.Context(), p.lea, id)
	if err != nil || len(one.Explained.Since.Sentences) <= i {
		w.t.Fatalf("%+v, %v", one.Explained, err)
	}
	return one.Explained.Since.Sentences[i]
}

// Roles are found by what they can do, and by how long they were not used.
func TestRolesByAbility(t *testing.T) { each(t, testRolesByAbility) }

func testRolesByAbility(t *testing.T, w *world) {
	used := noon.Add(-100 * 24 * time.Hour)
	w.push(prod, aRole(prod, "reader", allowing("s3:GetObject"), func(r *serval.Role) { r.LastUsedAt, r.CreatedAt = &used, used }),
		aRole(prod, "own", allowing("s3:*")), aRole(prod, "admin", allowing("*")))
	w.push(dev, aRole(dev, "reader", allowing("s3:PutObject", "iam:PassRole", "lambda:CreateFunction", "lambda:InvokeFunction")))
	ana := w.engineer("ana@example.com")
	for _, c := range []struct {
		filter RoleFilter
		want   string
	}{
		{RoleFilter{}, "prod/admin prod/own prod/reader dev/reader"},
		{RoleFilter{Abilities: "s3:write"}, "prod/admin prod/own dev/reader"},
		{RoleFilter{Abilities: "s3:write", AccountID: prod}, "prod/admin prod/own"},
		{RoleFilter{Abilities: "s3:read, s3:permissions"}, "prod/admin prod/own"},
		{RoleFilter{Abilities: "privilege_escalation"}, "prod/admin dev/reader"},
		{RoleFilter{Abilities: "administrator"}, "prod/admin"},
		{RoleFilter{Abilities: "data_access"}, "prod/admin prod/own prod/reader"},
		{RoleFilter{Unused: 90}, "prod/reader"},
		{RoleFilter{Unused: 101}, ""},
		{RoleFilter{Unused: 90, Abilities: "s3:write"}, ""},
	} {
		roles, _, err := w.plane.Roles(t.Context(), ana, c.filter)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range roles {
			got = append(got, r.AccountName+"/"+r.Name)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%+v: %v, want %s", c.filter, got, c.want)
		}
	}
	for _, bad := range []string{"s3", "s3:write,", "nothere:read", strings.Repeat("s3:read,", 10) + "s3:read"} {
		_, _, err := w.plane.Roles(t.Context(), ana, RoleFilter{Abilities: bad})
		wantKind(t, bad, err, serval.Invalid)
	}
}

// A role's versions are kept with what changed, for those who are eligible.
func TestRoleHistory(t *testing.T) { each(t, testRoleHistory) }

func testRoleHistory(t *testing.T, w *world) {
	w.push(prod, aRole(prod, "reader", allowing("sqs:SendMessage")))
	first := w.clock.now()
	w.clock.move(time.Hour)
	w.push(prod, aRole(prod, "reader", allowing("sqs:SendMessage"))) // nothing changed
	w.clock.move(time.Hour)
	w.push(prod, aRole(prod, "reader", allowing("sqs:SendMessage", "sqs:PurgeQueue")))
	w.clock.move(time.Hour)
	w.push(prod, aRole(prod, "reader", allowing("sqs:PurgeQueue")))
	ana, guest := w.engineer("ana@example.com"), w.signIn("guest@example.com")
	compare := func(from, to string) (history.Compared, error) {
		h, err := w.plane.RoleHistory(t.Context(), ana, prod, "reader", from, to)
		if err != nil {
			t.Fatal(err)
		}
		return h.Compare(from, to)
	}
	h, err := w.plane.RoleHistory(t.Context(), ana, prod, "reader", "", "")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range h.Versions() {
		got = append(got, strings.Join(v.Change.Sentences[:min(len(v.Change.Sentences), 2)], " "))
	}
	if diff := cmp.Diff([]string{"The inline policy all was changed. It loses 1 action: SQS (1 write).", "It gains 1 action: SQS (1 write). The inline policy all was changed.", ""}, got); diff != "" {
		t.Errorf("versions (-want +got):\n%s", diff)
	}
	for _, c := range []struct {
		from, to     string
		want         [2]int64
		gained, lost int
	}{
		{"", "", [2]int64{2, 3}, 0, 1}, {"1", "", [2]int64{1, 3}, 1, 1}, {"1", "2", [2]int64{1, 2}, 1, 0}, {"3", "1", [2]int64{3, 1}, 1, 1},
		{first.Add(time.Second).Format(time.RFC3339), "", [2]int64{1, 3}, 1, 1},
		{first.Add(2*time.Hour + time.Second).Format(time.RFC3339), "3", [2]int64{2, 3}, 0, 1},
		{"", "1", [2]int64{1, 1}, 0, 0},
	} {
		d, err := compare(c.from, c.to)
		if err != nil || [2]int64{d.From.Number, d.To.Number} != c.want || d.Change.Gained.Count != c.gained || d.Change.Lost.Count != c.lost {
			t.Errorf("from %q to %q: %d to %d, gained %d, lost %d, %v; want %+v", c.from, c.to, d.From.Number, d.To.Number, d.Change.Gained.Count, d.Change.Lost.Count, err, c)
		}
	}
	for text, want := range map[string]serval.Kind{"4": serval.NotFound, "x": serval.Invalid, first.Add(-time.Hour).Format(time.RFC3339): serval.NotFound} {
		_, err := compare(text, "")
		wantKind(t, "from "+text, err, want)
	}
	_, err = w.plane.RoleHistory(t.Context(), guest, prod, "reader", "", "")
	wantKind(t, "history for who is not eligible", err, serval.NotFound)

	// So many are kept, and what is approved besides.
	r := w.ask(ana, roleARN(prod, "reader"), 60) // of version 3
	for i := range 60 {
		w.clock.move(time.Minute)
		w.push(prod, aRole(prod, "reader", allowing("sqs:PurgeQueue"), func(r *serval.Role) { r.Description = strings.Repeat("x", i+1) }))
	}
	if _, err := compare("13", ""); !serval.IsRefusal(err, serval.NotFound) {
		t.Errorf("version 13 of 63 is kept: %v", err)
	}
	if _, err := compare("14", ""); err != nil {
		t.Errorf("version 14 of 63 is not kept: %v", err)
	}
	if _, err := compare("3", ""); err != nil {
		t.Errorf("what is approved is not kept: %v", err)
	}
	one, err := w.plane.RequestByID(t.Context(), ana, r.ID)
	if err != nil || one.Explained.Since == nil || len(one.Explained.Since.Facts) != 1 {
		t.Errorf("since the approval: %+v, %v", one.Explained, err)
	}
}
