package control

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// Whom the file names counts with the next thing that they do, and is recorded
// once, however many replicas read it.
func TestAppoint(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		ctx, replicas := t.Context(), w.replicas()
		_, adm, err := w.signInAs(w.plane, w.identity("adm@example.com"))
		must(t, err)
		_, ana, err := w.signInAs(w.plane, w.identity("ana@example.com", "engineering"))
		must(t, err)
		standing := func(p *Plane, token serval.Secret) (admin, auditor bool) {
			t.Helper()
			who, _, err := p.logins.Recognise(ctx, stranger(), token)
			must(t, err)
			return who.Admin, who.Auditor
		}
		if admin, _ := standing(w.plane, adm); !admin {
			t.Error("adm is no admin at first")
		}
		before := w.head()
		now := Appointed{
			Admins: serval.People{Groups: []string{"engineering"}}, Auditors: serval.People{Emails: []string{"adm@example.com"}},
			Networks: Networks{"home": {netip.MustParsePrefix("198.51.100.0/24")}},
		}
		for range 2 {
			for _, p := range replicas {
				must(t, p.Appoint(ctx, serval.System(), now))
			}
		}
		for _, p := range replicas {
			if admin, auditor := standing(p, adm); admin || !auditor {
				t.Errorf("adm is admin: %t, auditor: %t; want an auditor alone", admin, auditor)
			}
			if admin, _ := standing(p, ana); !admin {
				t.Error("ana is no admin")
			}
		}
		e := w.events(before)
		if len(e) != 1 || e[0].Action != serval.ConfigAppoint || e[0].Detail["admins"] != "group engineering" || e[0].Detail["auditors"] != "adm@example.com" || e[0].Detail["networks"] != "home" {
			t.Errorf("recorded %+v, want one event that names them", e)
		}
		who, _, err := w.logins.Recognise(ctx, stranger(), ana)
		must(t, err)
		wantKind(t, "by an admin", w.plane.Appoint(ctx, who, Appointed{}), serval.Denied)
		if admin, _ := standing(w.plane, ana); !admin {
			t.Error("what was refused counts")
		}
	})
}

// A reload is recorded once, however many replicas do it, and again when
// something else happened between.
func TestNoteReload(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		before := w.head()
		for _, note := range []struct {
			digest string
			faults []string
		}{{"a", nil}, {"b", []string{"line 1: x", "line 2: y"}}, {"a", nil}, {"b", []string{"line 1: x", "line 2: y"}}} {
			for _, p := range w.replicas() {
				must(t, p.NoteReload(t.Context(), serval.System(), note.digest, note.faults))
			}
		}
		e := w.events(before)
		want := []string{"system config.reload done", "system config.reload failed", "system config.reload done", "system config.reload failed"}
		if d := cmp.Diff(want, told(e)); d != "" {
			t.Fatalf("events (-want +got):\n%s", d)
		}
		if d := e[1].Detail; d["digest"] != "b" || d["faults"] != "2" || d["fault_01"] != "line 1: x" || d["fault_02"] != "line 2: y" || e[1].Reason == "" {
			t.Errorf("detail %v", d)
		}
		wantKind(t, "by a worker", w.plane.NoteReload(t.Context(), hub(), "a", nil), serval.Denied)
	})
}
