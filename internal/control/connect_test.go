package control

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

const newcomer = "777788889999"

// unconnected is an account that an admin may connect.
func unconnected() serval.Account {
	return serval.Account{ID: newcomer, Name: "newcomer", RoleARN: roleARN(newcomer, "serval-ingestion")}
}

// A worker's replica, of a worker that was given every account.
func everywhere(name string) serval.Principal {
	return serval.Principal{Kind: serval.KindWorker, Worker: name}
}

func caller(account string) string {
	return "arn:aws:sts::" + account + ":assumed-role/serval-worker/eks-serval-1"
}

// S-23: the External ID is derived and the same on every connect; nobody chooses
// it. What is wrong is said all at once. What the file declares is the file's.
func TestConnectAccount(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx, adm := t.Context(), w.signIn("adm@example.com")
		p := w.plane
		p.settings.ExternalID, p.settings.File = serval.ExternalID(serval.NewSecret("key of a test, 32 bytes and more"), "acme"), "/etc/serval.yaml"
		bad := serval.Account{ID: "1", Name: " ", RoleARN: "role", ExternalID: "mine", DefaultRegion: "x y", STS: serval.STS{Dial: "x"}, Via: []serval.Hop{{RoleARN: "x"}}}
		before := w.head()
		err := p.ConnectAccount(ctx, adm, bad)
		r, ok := err.(*serval.Refusal)
		if !ok || r.Kind != serval.Invalid {
			t.Fatalf("a wrong account: %v", err)
		}
		var fields []string
		for field := range r.Detail {
			fields = append(fields, field)
		}
		slices.Sort(fields)
		if d := cmp.Diff([]string{"default_region", "external_id", "id", "name", "role_arn", "sts.dial", "via[0].role_arn"}, fields); d != "" {
			t.Errorf("faults (-want +got):\n%s", d)
		}
		chosen := unconnected()
		chosen.ExternalID = p.settings.ExternalID // not even the right one
		wantKind(t, "a chosen External ID", p.ConnectAccount(ctx, adm, chosen), serval.Invalid)
		onTheWay := unconnected()
		onTheWay.Via = []serval.Hop{{RoleARN: roleARN(prod, "hop"), ExternalID: "mine"}}
		wantKind(t, "a chosen External ID of a role on the way", p.ConnectAccount(ctx, adm, onTheWay), serval.Invalid)
		err = p.ConnectAccount(ctx, adm, accounts()[0])
		wantKind(t, "one with an External ID that the file declares", err, serval.Invalid)
		ofFile := accounts()[0]
		ofFile.ExternalID = ""
		err = p.ConnectAccount(ctx, adm, ofFile)
		wantKind(t, "one that the file declares", err, serval.FailedPrecondition)
		if err != nil && !strings.Contains(err.Error(), "/etc/serval.yaml") {
			t.Errorf("%q does not name the file", err)
		}

		wantKind(t, "connected", p.ConnectAccount(ctx, adm, unconnected()), "")
		wantKind(t, "connected again", p.ConnectAccount(ctx, adm, unconnected()), serval.Conflict)
		first, err := p.AccountByID(ctx, adm, newcomer)
		if err != nil {
			t.Fatal(err)
		}
		if first.ExternalID != p.settings.ExternalID || len(first.ExternalID) != 64 || first.Partition != "aws" || first.Source != store.SourceAPI {
			t.Errorf("connected as %+v", first.Account)
		}
		wantKind(t, "disconnected", p.DisconnectAccount(ctx, adm, newcomer), "")
		_, err = p.AccountByID(ctx, adm, newcomer)
		wantKind(t, "it is gone", err, serval.NotFound)
		wantKind(t, "disconnected again", p.DisconnectAccount(ctx, adm, newcomer), serval.NotFound)
		wantKind(t, "connected once more", p.ConnectAccount(ctx, adm, unconnected()), "")
		if again, err := p.AccountByID(ctx, adm, newcomer); err != nil || again.ExternalID != first.ExternalID || again.SyncRequestedAt.IsZero() {
			t.Errorf("connected once more as %+v, %v; want the same External ID, and to be read soon", again.Account, err)
		}
		var done []string
		for _, e := range w.events(before) {
			if e.Outcome == serval.OutcomeDone {
				done = append(done, e.Actor+" "+string(e.Action)+" "+e.Target+" "+e.Detail["name"])
			}
			for name, value := range e.Detail {
				if strings.Contains(value, p.settings.ExternalID) {
					t.Errorf("%s of the event %s holds the External ID", name, e.Action)
				}
			}
		}
		want := []string{"account.connect", "account.disconnect", "account.connect"}
		for i := range want {
			want[i] = "adm@example.com " + want[i] + " " + newcomer + " newcomer"
		}
		if d := cmp.Diff(want, done); d != "" {
			t.Errorf("recorded (-want +got):\n%s", d)
		}
	})
}

func TestChangeAccount(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.stock()
		ctx, adm := t.Context(), w.signIn("adm@example.com")
		p := w.plane
		p.settings.ExternalID = "of-the-team"
		must(t, p.ConnectAccount(ctx, adm, unconnected()))
		w.push(newcomer, aRole(newcomer, "reader"))
		text := func(s string) *string { return &s }
		look := func() Account {
			t.Helper()
			a, err := p.AccountByID(ctx, adm, newcomer)
			must(t, err)
			return a
		}
		before := w.head()
		must(t, p.ChangeAccount(ctx, adm, newcomer, AccountChange{Name: text("renamed")}))
		if a := look(); a.Name != "renamed" || !a.SyncRequestedAt.IsZero() {
			t.Errorf("renamed: %+v", a.Account)
		}
		must(t, p.ChangeAccount(ctx, adm, newcomer, AccountChange{Name: text("renamed"), Via: &[]serval.Hop{}}))
		if n := len(w.events(before)); n != 1 {
			t.Errorf("%d events, want one: nothing changed the second time", n)
		}
		sts, via := serval.STS{Region: "eu-west-1"}, []serval.Hop{{RoleARN: roleARN(prod, "hop")}}
		must(t, p.ChangeAccount(ctx, adm, newcomer, AccountChange{
			RoleARN: text(roleARN(newcomer, "other")), STS: &sts, Via: &via, DefaultRegion: text("eu-west-1"), WorkflowRoleARN: text(roleARN(newcomer, "w")),
		}))
		a := look()
		ofTheTeam := []serval.Hop{{RoleARN: roleARN(prod, "hop"), ExternalID: "of-the-team"}}
		if a.RoleARN != roleARN(newcomer, "other") || a.STS != sts || !slices.Equal(a.Via, ofTheTeam) || a.DefaultRegion != "eu-west-1" ||
			a.WorkflowRoleARN != roleARN(newcomer, "w") || a.ExternalID != "of-the-team" {
			t.Errorf("changed: %+v", a.Account)
		}
		must(t, p.ChangeAccount(ctx, adm, newcomer, AccountChange{Via: &ofTheTeam})) // as it was shown
		if a.Roles != 1 || a.AcceptedGeneration != 1 || a.SyncRequestedAt.IsZero() {
			t.Errorf("%d roles of generation %d, sync asked for at %v; want what was read to stay until it is read anew", a.Roles, a.AcceptedGeneration, a.SyncRequestedAt)
		}
		// The trusted account is the last one on the way.
		if a.Connect.TrustedAccount != prod || !strings.Contains(a.Connect.TrustPolicy, "arn:aws:iam::"+prod+":root") || a.Connect.RoleName != "other" {
			t.Errorf("connect: %+v", a.Connect)
		}
		if e := w.events(w.head() - 1)[0]; e.Detail["old_role_arn"] != roleARN(newcomer, "serval-ingestion") || e.Detail["role_arn"] != a.RoleARN {
			t.Errorf("recorded %+v", e)
		}
		for name, c := range map[string]AccountChange{
			"another account's role":   {RoleARN: text(roleARN(prod, "x"))},
			"no role":                  {RoleARN: text("")},
			"an External ID":           {ExternalID: text("mine")},
			"one of a role on the way": {Via: &[]serval.Hop{{RoleARN: roleARN(prod, "hop"), ExternalID: "mine"}}},
			"too many roles to assume": {Via: &[]serval.Hop{11: {RoleARN: roleARN(prod, "hop")}}},
			"a name of two lines":      {Name: text("a\nb")},
		} {
			wantKind(t, name, p.ChangeAccount(ctx, adm, newcomer, c), serval.Invalid)
		}
		wantKind(t, "the file's", p.ChangeAccount(ctx, adm, prod, AccountChange{Name: text("x")}), serval.FailedPrecondition)
		wantKind(t, "none", p.ChangeAccount(ctx, adm, "000000000000", AccountChange{Name: text("x")}), serval.NotFound)
	})
}

// Disconnecting closes what depends on the account, and connecting it again
// brings back neither roles nor grants.
func TestDisconnectAccount(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.stock()
		ctx, p := t.Context(), w.people()
		plane := w.plane
		plane.settings.ExternalID = "of-the-team"
		must(t, plane.ConnectAccount(ctx, p.adm, unconnected()))
		roles := []serval.Role{aRole(newcomer, "reader"), aRole(newcomer, "chain"), aRole(newcomer, "admin")}
		w.push(newcomer, roles...)
		pending := w.ask(p.ana, roleARN(newcomer, "admin"), 30)
		unused := w.ask(p.ana, roleARN(newcomer, "chain"), 30)
		running := w.ask(p.ana, roleARN(newcomer, "reader"), 30)
		elsewhere := w.ask(p.ana, roleARN(prod, "reader"), 30)
		open := func(r *serval.Request) error {
			_, err := plane.Open(ctx, p.ana, Opening{RequestID: r.ID, Kind: serval.ForCredentials})
			return err
		}
		must(t, open(running))
		must(t, open(elsewhere))
		late, err := w.intake.OpenSync(ctx, everywhere("hub"), newcomer, "pod", serval.SyncFull)
		must(t, err)
		before := w.head()

		must(t, plane.DisconnectAccount(ctx, p.adm, newcomer))
		for name, c := range map[string]struct {
			r    *serval.Request
			want serval.Status
		}{"pending": {pending, serval.StatusFailed}, "unused": {unused, serval.StatusFailed}, "running": {running, serval.StatusRevoked}, "elsewhere": {elsewhere, serval.StatusApproved}} {
			if got := w.request(c.r.ID).Status; got != c.want {
				t.Errorf("%s is %s, want %s", name, got, c.want)
			}
		}
		var ended []string
		for _, e := range w.events(before) {
			if e.Target == newcomer && (e.Detail["requests_failed"] != "2" || e.Detail["requests_revoked"] != "1") {
				t.Errorf("recorded %v, want two failed and one revoked", e.Detail)
			}
			if e.Target != newcomer {
				ended = append(ended, fmt.Sprint(e.Actor, " ", e.Action, " ", e.Reason))
			}
		}
		slices.Sort(ended)
		why := " its account was disconnected"
		if d := cmp.Diff([]string{"system request.fail" + why, "system request.fail" + why, "system request.revoke" + why}, ended); d != "" {
			t.Errorf("ended (-want +got):\n%s", d)
		}
		catalogue := func() []string {
			t.Helper()
			list, _, err := plane.Roles(ctx, p.ana, RoleFilter{AccountID: newcomer})
			must(t, err)
			return arns(list)
		}
		if got := catalogue(); len(got) != 0 {
			t.Errorf("still in the catalogue: %v", got)
		}
		if open(running) == nil || open(unused) == nil {
			t.Error("a session was opened in a disconnected account")
		}
		inv := inventory(newcomer, late.Generation, w.clock.now())
		_, err = w.intake.Push(ctx, everywhere("hub"), newcomer, reading(inv, roles...))
		wantKind(t, "a late push", err, serval.NotFound)
		_, err = w.intake.OpenSync(ctx, everywhere("hub"), newcomer, "pod", serval.SyncFull)
		wantKind(t, "another sync", err, serval.NotFound)

		must(t, plane.ConnectAccount(ctx, p.adm, unconnected()))
		if got := catalogue(); len(got) != 0 {
			t.Errorf("in the catalogue before it was read again: %v", got)
		}
		_, err = w.intake.Push(ctx, everywhere("hub"), newcomer, reading(inv, roles...))
		wantKind(t, "a push of before", err, serval.Conflict)
		w.push(newcomer, roles...)
		if got := catalogue(); len(got) != 3 {
			t.Errorf("in the catalogue again: %v, want all three", got)
		}
		if open(running) == nil || open(unused) == nil {
			t.Error("a grant of before was inherited")
		}
		if got := w.request(running.ID).Status; got != serval.StatusRevoked {
			t.Errorf("the running request is %s, want revoked", got)
		}
		wantKind(t, "the file's", plane.DisconnectAccount(ctx, p.adm, prod), serval.FailedPrecondition)
	})
}

// What the file declares it takes over, with what is known of it; from then on
// it is read-only here, and goes when the file drops it.
func TestFileTakesOverAnAccount(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx, adm := t.Context(), w.signIn("adm@example.com")
		p := w.plane
		p.settings.ExternalID = "of-the-team"
		must(t, p.ConnectAccount(ctx, adm, unconnected()))
		w.push(newcomer, aRole(newcomer, "reader"))
		declared := unconnected()
		declared.Partition, declared.ExternalID = "aws", "adopted"
		must(t, p.Declare(ctx, serval.System(), 0, append(accounts(), declared), policies()))
		if e := w.events(w.head() - 1)[0]; e.Action != serval.AccountDeclare || e.Detail["taken_over"] == "" {
			t.Errorf("recorded %+v", e)
		}
		a, err := p.AccountByID(ctx, adm, newcomer)
		if err != nil || a.Source != store.SourceFile || a.ExternalID != "adopted" || a.Roles != 1 {
			t.Errorf("taken over as %+v, %v", a.Account, err)
		}
		wantKind(t, "disconnecting it here", p.DisconnectAccount(ctx, adm, newcomer), serval.FailedPrecondition)
		must(t, p.Declare(ctx, serval.System(), 0, accounts(), policies()))
		_, err = p.AccountByID(ctx, adm, newcomer)
		wantKind(t, "dropped by the file", err, serval.NotFound)
	})
}

// The trusted account is the setting's, or what the workers that may read the
// account say of themselves, where they agree.
func TestTrustedAccount(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx, adm := t.Context(), w.signIn("adm@example.com")
		p := w.plane
		p.settings.ExternalID = "of-the-team"
		trusted := func(what, want string) {
			t.Helper()
			c, err := p.Connecting(ctx, adm)
			must(t, err)
			a, err := p.AccountByID(ctx, adm, prod)
			must(t, err)
			for _, c := range []Connect{c, a.Connect} {
				texts := []string{c.TrustPolicy, c.Terraform, c.CloudFormation}
				complete := !slices.Contains(texts, "")
				if c.TrustedAccount != want || complete != (want != "") || (c.Note == "") != (want != "") || c.PermissionPolicy == "" {
					t.Errorf("%s: %q (%s), texts complete: %t; want %q", what, c.TrustedAccount, c.Note, complete, want)
				}
				for _, text := range texts {
					if want != "" && (!strings.Contains(text, "arn:aws:iam::"+want+":root") || !strings.Contains(text, c.ExternalID)) {
						t.Errorf("%s: a text lacks the real values:\n%s", what, text)
					}
				}
			}
		}
		say := func(who serval.Principal, arn string) {
			t.Helper()
			must(t, w.intake.Identify(ctx, who, arn))
		}
		trusted("no worker", "")
		before := w.head()
		say(everywhere("a"), caller("999988887777"))
		trusted("one worker", "999988887777")
		say(everywhere("a"), caller("999988887777"))
		if got := told(w.events(before)); len(got) != 1 || got[0] != "a worker.identify done" {
			t.Errorf("recorded %v, want one event", got)
		}
		w.clock.move(door.IdentityLasts - time.Minute)
		say(everywhere("a"), caller("999988887777"))
		w.clock.move(2 * time.Minute)
		trusted("it still says so", "999988887777")
		if got := len(w.events(before)); got != 1 {
			t.Errorf("%d events, want one: nothing changed", got)
		}
		bound := everywhere("b")
		bound.Bound = []string{dev}
		say(bound, caller("123456789012"))
		if a, err := p.AccountByID(ctx, adm, prod); err != nil || a.Connect.TrustedAccount != "999988887777" {
			t.Errorf("prod trusts %+v, %v; a worker that may not read it has no say", a.Connect, err)
		}
		if a, err := p.AccountByID(ctx, adm, dev); err != nil || a.Connect.TrustedAccount != "" || !strings.Contains(a.Connect.Note, "123456789012") {
			t.Errorf("dev trusts %+v, %v; want it to say that two accounts compete", a.Connect, err)
		}
		bound.Bound = []string{dev, prod}
		say(bound, caller("123456789012"))
		trusted("two workers that differ", "")
		p.settings.TrustedAccount = "992382851720"
		trusted("set", "992382851720")
		p.settings.TrustedAccount = ""
		say(bound, caller("999988887777"))
		trusted("two that agree", "999988887777")
		w.clock.move(door.IdentityLasts + time.Second)
		trusted("a day later", "")

		// Behind a role on the way it is that role's account, whatever else is said.
		p.settings.TrustedAccount = "992382851720"
		routed := accounts()
		routed[0].Via = []serval.Hop{{RoleARN: roleARN(dev, "hop")}}
		must(t, p.Declare(ctx, serval.System(), 0, routed, policies()))
		if a, err := p.AccountByID(ctx, adm, prod); err != nil || a.Connect.TrustedAccount != dev {
			t.Errorf("behind a role of dev prod trusts %+v, %v; want dev", a.Connect, err)
		}

		for _, arn := range []string{"", "x", "arn:aws:iam::999988887777:role/x", "arn:aws:sts::9:assumed-role/a/b", caller("999988887777") + "\n", "arn:aws:s3::999988887777:root"} {
			wantKind(t, fmt.Sprintf("%q", arn), w.intake.Identify(ctx, everywhere("a"), arn), serval.Invalid)
		}
		wantKind(t, "a person", w.intake.Identify(ctx, adm, caller("999988887777")), serval.Unauthenticated)
	})
}

// A new key for External IDs, accepted, changes those of connected accounts too.
func TestNewExternalIDs(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx, adm := t.Context(), w.signIn("adm@example.com")
		p := w.plane
		p.settings.ExternalID = "one"
		must(t, p.KeepExternalIDs(ctx, serval.System(), "first", false))
		must(t, p.ConnectAccount(ctx, adm, unconnected()))
		p.settings.ExternalID = "two"
		wantKind(t, "not accepted", p.KeepExternalIDs(ctx, serval.System(), "second", false), serval.FailedPrecondition)
		must(t, p.KeepExternalIDs(ctx, serval.System(), "second", true))
		a, err := p.AccountByID(ctx, adm, newcomer)
		must(t, err)
		file, err := p.AccountByID(ctx, adm, prod)
		must(t, err)
		if a.ExternalID != "two" || file.ExternalID != "x1" {
			t.Errorf("External IDs %q and %q, want two and, of the file's account, x1", a.ExternalID, file.ExternalID)
		}
	})
}

func TestAccountsInPages(t *testing.T) {
	w := newWorld(t)
	ctx, adm := t.Context(), w.signIn("adm@example.com")
	first, more, err := w.plane.Accounts(ctx, adm, AccountFilter{Limit: 1})
	if err != nil || !more || len(first) != 1 || first[0].ID != prod {
		t.Fatalf("the first page: %v, %t, %v", first, more, err)
	}
	second, more, err := w.plane.Accounts(ctx, adm, AccountFilter{After: first[0].ID, Limit: 1})
	if err != nil || more || len(second) != 1 || second[0].ID != dev {
		t.Fatalf("the second page: %v, %t, %v", second, more, err)
	}

	// By name, they come in the other order.
	by := AccountFilter{ByName: true, Limit: 1}
	for i, want := range []string{dev, prod} {
		page, more, err := w.plane.Accounts(ctx, adm, by)
		if err != nil || more != (i == 0) || len(page) != 1 || page[0].ID != want {
			t.Fatalf("page %d by name: %v, %t, %v; want %s", i, page, more, err, want)
		}
		by.After = by.Place(page[0].Account.Account)
	}
}

func TestAccountsAreBounded(t *testing.T) {
	w := newWorld(t)
	ctx, adm := t.Context(), w.signIn("adm@example.com")
	w.plane.settings.ExternalID = "of-the-team"
	err := w.store.Write(ctx, w.clock.now(), func(tx *store.Tx) error {
		for i := range maxAccounts {
			if err := tx.DeclareAccount(serval.Account{ID: fmt.Sprintf("2%011d", i), Name: "x"}, store.SourceAPI); err != nil {
				return err
			}
		}
		return nil
	})
	must(t, err)
	wantKind(t, "one more", w.plane.ConnectAccount(ctx, adm, unconnected()), serval.FailedPrecondition)
}
