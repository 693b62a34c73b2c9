package door

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

func TestSignalIsNotMissed(t *testing.T) {
	var s Signal
	a, b := s.Wait(), s.Wait()
	s.Raise()
	<-a
	<-b
	select {
	case <-s.Wait():
		t.Error("a new wait saw the old change")
	default:
	}
}

// S-10: who may begin what, all of it. A new action is in this table or may be
// begun by nobody.
func TestPermits(t *testing.T) {
	who := []serval.Principal{
		{},
		{Kind: serval.KindNobody},
		{Kind: serval.KindPerson},
		{Kind: serval.KindPerson, Admin: true},
		{Kind: serval.KindPerson, Auditor: true},
		{Kind: serval.KindWorker},
		{Kind: serval.KindSystem},
		// Standing is nothing without being a person.
		{Kind: serval.KindNobody, Admin: true, Auditor: true},
		{Kind: serval.KindWorker, Admin: true, Auditor: true},
	}
	const (
		y = "" // allowed
		u = string(serval.Unauthenticated)
		d = string(serval.Denied)
	)
	anyone := []string{y, y, y, y, y, y, y, y, y}
	people := []string{u, u, y, y, y, u, u, u, u}
	admins := []string{u, u, d, y, d, u, u, u, u}
	audits := []string{u, u, d, y, y, u, u, u, u}
	worker := []string{u, u, u, u, u, y, u, u, y}
	system := []string{d, d, d, d, d, d, y, d, d}
	want := map[serval.Action][]string{
		serval.LoginStart: anyone, serval.LoginCreate: anyone, serval.LoginRead: anyone, serval.LoginList: people, serval.LoginEnd: people, serval.LoginRefresh: people,
		serval.ClientStart: anyone, serval.ClientRead: people, serval.ClientApprove: people, serval.ClientDeny: people,
		serval.RoleRead: people, serval.RequestRead: people, serval.RequestCreate: people, serval.RequestDecide: people,
		serval.ExtensionCreate: people, serval.RequestShorten: people, serval.RequestCancel: people, serval.RequestDone: people,
		serval.RequestRevoke: people, serval.RequestExpire: system, serval.RequestFail: system,
		serval.WriteClaim: people, serval.PersonRead: admins, serval.PersonRelink: admins,
		serval.SessionRead: people, serval.SessionOpen: people, serval.SessionIssue: people, serval.SessionFail: people,
		serval.SessionDrop: people, serval.SessionClose: system, serval.SessionLink: people, serval.SessionSignIn: people,
		serval.AccountRead: admins, serval.AccountDeclare: system, serval.AccountRemove: system, serval.PolicyDeclare: system,
		serval.AccountConnect: admins, serval.AccountChange: admins, serval.AccountDisconnect: admins, serval.WorkerIdentify: worker,
		serval.ConfigAppoint: system, serval.ConfigReload: system,
		serval.PolicyRead: admins, serval.PolicyCreate: admins, serval.PolicyChange: admins, serval.PolicyDelete: admins, serval.AccessExplain: admins,
		serval.RemovalConfirm: admins, serval.SyncRequest: admins,
		serval.UpstreamRead: worker, serval.SyncOpen: worker, serval.InventoryAccept: worker, serval.DeltaAccept: worker,
		serval.RosterRead: system, serval.RoleChange: system, serval.TrustExplain: admins, serval.FindingRead: audits,
		serval.RunRead: admins, serval.RunStart: admins, serval.RunDecide: admins, serval.RunExpire: system,
		serval.TaskClaim: worker, serval.TaskFinish: worker, serval.TaskLapse: system,
		serval.NoticeRead: admins, serval.NoticeRetry: admins, serval.NoticeSend: system,
		serval.StoreRestore: system,
		serval.AuditRead:    audits, serval.AuditExport: audits, serval.ReportRead: audits, serval.EdgeRefuse: people,
	}
	for action := range permits {
		if want[action] == nil {
			t.Errorf("%s is permitted to somebody and is not in this table", action)
		}
	}
	for action, row := range want {
		for i, w := range who {
			if got := kindOf(authorize(w, action)); got != row[i] {
				t.Errorf("%s by %+v: %q, want %q", action, w, got, row[i])
			}
		}
	}
	for _, nobodys := range []serval.Action{"", "no.such", serval.RequestApprove, serval.RequestDeny, serval.ExtensionApprove} {
		for _, w := range who {
			if err := authorize(w, nobodys); err == nil || serval.IsRefusal(err) {
				t.Errorf("%q by %+v: %v, want a fault: nobody may begin it", nobodys, w, err)
			}
		}
	}
}

// kindOf returns the kind of a refusal, "fault" or "".
func kindOf(err error) string {
	if err == nil {
		return ""
	}
	if r, ok := errors.AsType[*serval.Refusal](err); ok {
		return string(r.Kind)
	}
	return "fault: " + err.Error()
}

func TestCut(t *testing.T) {
	for _, test := range []struct {
		text string
		max  int
		want string
	}{
		{"abc", 3, "abc"}, {"abcd", 3, "abc"}, {"", 3, ""}, {"aé", 2, "a"}, {"aé", 3, "aé"}, {"ééé", 4, "éé"}, {"éa", 1, ""}, {"\xa9\xa9\xa9", 2, ""},
	} {
		if got := serval.Cut(test.text, test.max); got != test.want {
			t.Errorf("serval.Cut(%q, %d) = %q, want %q", test.text, test.max, got, test.want)
		}
	}
	// What somebody says they act on is theirs to choose, and bounded.
	if e := Event(serval.Principal{Kind: serval.KindWorker, Worker: "hub"}, serval.SyncOpen, strings.Repeat("x", 5000), serval.OutcomeDone); len(e.Target) != maxTarget {
		t.Errorf("a target of %d bytes, want %d", len(e.Target), maxTarget)
	}
}

func TestEventNames(t *testing.T) {
	for _, test := range []struct {
		who  serval.Principal
		want string
	}{
		{serval.Principal{}, "nobody  nobody"},
		{serval.Principal{Kind: serval.KindWorker, Worker: "hub"}, "worker hub hub"},
		{serval.System(), "system  system"},
		{serval.Principal{Kind: serval.KindPerson, Person: serval.Person{ID: "person_1", Email: "a@b"}}, "person person_1 a@b"},
	} {
		e := Event(test.who, serval.RoleRead, "", serval.OutcomeDone)
		if got := fmt.Sprintf("%s %s %s", e.ActorKind, e.ActorID, e.Actor); got != test.want {
			t.Errorf("event of %+v: %q, want %q", test.who, got, test.want)
		}
	}
}

// Whose minute is over is forgotten, but for who has refusals that no row tells of
// yet: the people of a day take no room.
func TestBudgetsForget(t *testing.T) {
	var b budgets
	now := time.Unix(600, 0)
	for range 3 {
		b.take("ana", now, 1)
	}
	b.take("ben", now, 1)
	now = now.Add(time.Minute)
	b.take("cy", now, 1)
	if len(b.of) != 2 || b.of["ben"] != nil {
		t.Errorf("%d are remembered, want Cy and Ana, who has two to tell of", len(b.of))
	}
	if skipped, ok := b.take("ana", now, 1); skipped != 2 || !ok {
		t.Errorf("Ana's next minute begins with %d that were skipped, and %t; want 2, and within", skipped, ok)
	}
}

func TestReadPlace(t *testing.T) {
	made := time.UnixMicro(1767225600123456).UTC()
	if at, id, err := ReadPlace(Place(made, "req_1")); err != nil || !at.Equal(made) || id != "req_1" {
		t.Errorf("a place is read as %s and %q, %v", at, id, err)
	}
	if at, id, err := ReadPlace(""); err != nil || !at.IsZero() || id != "" {
		t.Errorf("the beginning is read as %s and %q, %v", at, id, err)
	}
	for _, token := range []string{"x", ".", "1", "1.", ".req_1", "0.req_1", "-1.req_1", "x.req_1", "99999999999999999999.req_1"} {
		if _, _, err := ReadPlace(token); !serval.IsRefusal(err, serval.Invalid) {
			t.Errorf("%q is taken for a place: %v", token, err)
		}
	}
}
