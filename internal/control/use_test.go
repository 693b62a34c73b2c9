package control

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// Whoever answers for a role sees who works with it now; others see themselves
// and a number.
func TestWhoUsesARole(t *testing.T) { each(t, testWhoUsesARole) }

func testWhoUsesARole(t *testing.T, w *world) {
	w.stock()
	p := w.people()
	w.open(p.ana, w.approved(p, 60).ID)
	for _, who := range []serval.Principal{p.ana, p.bob} {
		w.open(who, w.ask(who, roleARN(prod, "reader"), 60).ID)
	}
	w.approved(p, 30) // not begun: it is nobody's now
	peer := w.ask(p.ana, roleARN(prod, "peer"), 60)
	if _, err := w.decide(p.bob, peer.ID, true); err != nil {
		t.Fatal(err)
	}
	w.open(p.ana, peer.ID)
	both := []string{"ana@example.com", "bob@example.com"}
	for _, test := range []struct {
		name   string
		who    serval.Principal
		role   string
		want   []string
		others int
	}{
		{"eligible and no more", p.bob, "admin", nil, 1},
		{"the one who has it", p.ana, "admin", both[:1], 0},
		{"named in the first step by a group", w.signIn("led@example.com", "engineering", "leads"), "admin", both[:1], 0},
		{"named in the last step by email", w.signIn("cto@example.com", "engineering"), "admin", both[:1], 0},
		{"an admin", w.signIn("adm@example.com", "engineering"), "admin", both[:1], 0},
		{"an auditor", w.signIn("aud@example.com", "engineering", "security"), "admin", both[:1], 0},
		{"one of two, where nobody approves", p.bob, "reader", both[1:], 1},
		{"an approver of another role", w.signIn("led@example.com", "engineering", "leads"), "reader", nil, 2},
		{"a peer, who approves", p.bob, "peer", both[:1], 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			role, err := w.plane.RoleByName(t.Context(), test.who, prod, test.role)
			if err != nil {
				t.Fatal(err)
			}
			var emails []string
			for _, r := range role.InUse {
				emails = append(emails, r.Email)
			}
			if d := cmp.Diff(test.want, emails); d != "" || role.Others != test.others {
				t.Errorf("%d others besides (-want +got):\n%s\nwant %d", role.Others, d, test.others)
			}
		})
	}
	w.clock.move(61 * time.Minute)
	if role, err := w.plane.RoleByName(t.Context(), p.bob, prod, "reader"); err != nil || len(role.InUse)+role.Others != 0 {
		t.Errorf("after the end: %d and %d others, %v; want none", len(role.InUse), role.Others, err)
	}
}
