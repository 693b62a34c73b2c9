package control

import (
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// told writes a page of the access report in one line for each role.
func toldAccess(list []RoleAccess) []string {
	lines := []string{}
	for _, r := range list {
		arn, _ := serval.ParseRoleARN(r.Role.ARN)
		line := r.AccountName + "/" + arn.Name
		if !r.RemovedAt.IsZero() {
			line += " (gone)"
		}
		for _, c := range r.Could {
			line += fmt.Sprintf(" %s: %s", c.Policy, strings.Join(c.Emails, ", "))
		}
		for _, h := range r.Had {
			line += fmt.Sprintf("; %s from %s until %s, %d sessions", h.Email, h.ClockStartedAt.Format("15:04"), h.Until.Format("15:04"), h.Sessions)
		}
		lines = append(lines, line)
	}
	return lines
}

// Who could have and who had what: by the policies in force, and by the clocks that
// ran in the period.
func TestAccessReport(t *testing.T) { each(t, testAccessReport) }

func testAccessReport(t *testing.T, w *world) {
	p := w.stock().people()
	w.engineer("ANA@example.com") // the same person signs in again
	read := w.ask(p.ana, roleARN(dev, "reader"), 60)
	used := w.approved(p, 60)
	w.open(p.ana, used.ID)
	w.open(p.ana, used.ID)
	w.clock.move(10 * time.Minute)
	_, err := w.plane.Revoke(t.Context(), p.adm, used.ID, "")
	must(t, err)
	w.clock.move(20 * time.Minute)
	w.open(p.ana, read.ID)
	// The role that somebody had goes; one that nobody had goes too.
	w.clock.move(10 * time.Minute)
	w.pushAs(dev, func(i *serval.Inventory) {
		i.Untagged = []string{roleID(dev, "reader", 1), roleID(dev, "auditreader", 1)}
	})
	w.push(prod, aRole(prod, "admin"), aRole(prod, "reader"), aRole(prod, "secret"))

	report := func(f ReportFilter) ([]string, string) {
		t.Helper()
		if f.From.IsZero() {
			f.From, f.To = noon.Add(-time.Hour), noon.Add(10*time.Hour)
		}
		if f.Limit == 0 {
			f.Limit = 100
		}
		list, next, err := w.plane.AccessReport(t.Context(), p.aud, f)
		if err != nil {
			t.Fatalf("%+v: %v", f, err)
		}
		return toldAccess(list), next
	}
	second := noon.Truncate(time.Second) // clocks start with STS's, which has no fractions
	at := func(minutes int) string { return noon.Add(time.Duration(minutes) * time.Minute).Format("15:04") }
	reader := "prod/reader readers: ana@example.com, bob@example.com"
	admin := "prod/admin admins: ana@example.com, bob@example.com"
	had := fmt.Sprintf("; ana@example.com from %s until %s, 2 sessions", at(0), at(10))
	gone := fmt.Sprintf("dev/reader (gone); ana@example.com from %s until %s, 1 sessions", at(30), at(90))
	for _, test := range []struct {
		name   string
		filter ReportFilter
		want   []string
	}{
		{"all", ReportFilter{}, []string{admin + had, reader, "prod/secret", gone}},
		{"one account", ReportFilter{AccountID: dev}, []string{gone}},
		{"one person", ReportFilter{Email: "ANA@example.com"}, []string{"prod/admin admins: ana@example.com" + had, "prod/reader readers: ana@example.com", gone}},
		{"somebody else", ReportFilter{Email: "bob@example.com"}, []string{"prod/admin admins: bob@example.com", "prod/reader readers: bob@example.com"}},
		{"nobody", ReportFilter{Email: "eve@example.com"}, []string{}},
		{"before", ReportFilter{From: noon.Add(-time.Hour), To: second}, []string{admin, reader, "prod/secret"}},
		{"behind the first", ReportFilter{From: noon.Add(10 * time.Minute).Add(time.Second), To: second.Add(30 * time.Minute)}, []string{admin, reader, "prod/secret"}},
		{"within", ReportFilter{From: noon.Add(5 * time.Minute), To: noon.Add(6 * time.Minute)}, []string{admin + had, reader, "prod/secret"}},
	} {
		got, next := report(test.filter)
		if d := cmp.Diff(test.want, got); d != "" || next != "" {
			t.Errorf("%s: next %q (-want +got):\n%s", test.name, next, d)
		}
		// Page by page it is the same.
		var all []string
		for f := test.filter; ; {
			f.Limit = 1
			page, next := report(f)
			all = append(all, page...)
			if f.After = next; next == "" {
				break
			}
		}
		if !slices.Equal(all, got) {
			t.Errorf("%s, one at a time: %q, want %q", test.name, all, got)
		}
	}
	for _, f := range []ReportFilter{{From: noon, To: noon}, {From: noon, To: noon.Add(1), After: "x"}, {From: noon, To: noon.Add(1), After: roleARN(prod, "admin")}} {
		_, _, err := w.plane.AccessReport(t.Context(), p.aud, f)
		wantKind(t, fmt.Sprintf("%+v", f), err, serval.Invalid)
	}
	for _, who := range []serval.Principal{p.ana, p.lea} {
		list, _, err := w.plane.AccessReport(t.Context(), who, ReportFilter{From: noon, To: noon.Add(1), Limit: 1})
		wantKind(t, "the report for "+who.Name(), err, serval.Denied)
		if list != nil {
			t.Errorf("%s got %d roles", who.Name(), len(list))
		}
	}
}

// Whoever is suspended could have nothing, and the first policy that matches decides.
func TestAccessReportFollowsThePolicies(t *testing.T) {
	w := newWorld(t)
	p := w.stock().people()
	sus := w.engineer("sus@example.com")
	id := w.identity("sus.new@example.com", "engineering")
	id.Subject = "00u-sus"
	_, _, err := w.signInAs(w.plane, id)
	must(t, err)
	list, _, err := w.plane.AccessReport(t.Context(), p.aud, ReportFilter{AccountID: dev, From: noon.Add(-1), To: noon, Limit: 9})
	must(t, err)
	want := []string{"dev/auditreader readers: ana@example.com, bob@example.com", "dev/reader readers: ana@example.com, bob@example.com"}
	if d := cmp.Diff(want, toldAccess(list)); d != "" {
		t.Errorf("%s is suspended (-want +got):\n%s", sus.Name(), d)
	}
}

// A page that looks through many roles has each of them once, and the page behind
// it goes on where it ended.
func TestAccessReportOfMany(t *testing.T) {
	w := newWorld(t)
	p := w.people()
	var roles []serval.Role
	var want []string
	for i := range 2*reportStep + 7 {
		roles = append(roles, aRole(prod, fmt.Sprintf("%04dreader", i)))
		want = append(want, roles[i].ARN)
	}
	w.push(prod, roles...)
	f := ReportFilter{From: w.clock.now().Add(-time.Hour), To: w.clock.now(), Limit: reportStep + 3}
	var got []string
	for {
		list, next, err := w.plane.AccessReport(t.Context(), p.aud, f)
		must(t, err)
		for _, r := range list {
			got = append(got, r.Role.ARN)
		}
		if f.After = next; next == "" {
			break
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("roles (-want +got):\n%s", d)
	}
}

// Nobody reads more for a page than its roles and the one that says that another
// page follows: what is behind cannot even be read here.
func TestAccessReportReadsItsPage(t *testing.T) {
	w := newWorld(t)
	p := w.people()
	w.push(prod, aRole(prod, "areader"), aRole(prod, "breader"), aRole(prod, "creader"), aRole(prod, "dreader"))
	db, err := sql.Open("sqlite", strings.TrimPrefix(w.url, "sqlite://"))
	must(t, err)
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), `update role set tags = '{' where name = 'dreader'`); err != nil {
		t.Fatal(err)
	}
	f := ReportFilter{From: w.clock.now().Add(-time.Hour), To: w.clock.now(), Limit: 2}
	list, next, err := w.plane.AccessReport(t.Context(), p.aud, f)
	if err != nil || len(list) != 2 || list[1].Role.ARN != roleARN(prod, "breader") || next == "" {
		t.Errorf("the first page: %v, next %q, %v", list, next, err)
	}
	f.After = next
	if _, _, err := w.plane.AccessReport(t.Context(), p.aud, f); err == nil || serval.IsRefusal(err) {
		t.Errorf("the second page: %v, want a fault", err)
	}
}
