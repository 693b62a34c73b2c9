package control

import (
	"strings"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/access"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// Why may or may not this person have this role: by what is known of them, of
// the role, and by every policy.
func TestExplain(t *testing.T) { each(t, testExplain) }

func testExplain(t *testing.T, w *world) {
	ctx, p := t.Context(), w.stock().people()
	var five []serval.Role
	for _, name := range []string{"areader", "breader", "creader", "dreader", "ereader"} {
		five = append(five, aRole(dev, name))
	}
	w.push(dev, append(five, aRole(dev, "reader"))...)
	w.push(dev, aRole(dev, "reader")) // the others are held
	w.pushAs(prod, func(i *serval.Inventory) { i.Untagged = []string{roleID(prod, "secret", 1)} },
		aRole(prod, "reader"), aRole(prod, "admin"), aRole(prod, "own"), aRole(prod, "peer"))
	w.pushAs(prod, func(i *serval.Inventory) {
		i.Complete = false
		i.Unreadable = []serval.Unreadable{{ARN: roleARN(prod, "peer"), RoleID: roleID(prod, "peer", 1), Action: "iam:GetRole", Code: "AccessDenied"}}
	}, aRole(prod, "reader"), aRole(prod, "admin"), aRole(prod, "own"))
	noGroups := w.identity("nog@example.com")
	noGroups.GroupsNote = "The token has no groups claim."
	if _, _, err := w.signInAs(w.plane, noGroups); err != nil {
		t.Fatal(err)
	}
	sus := w.engineer("sus@example.com")
	must(t, w.store.Write(ctx, w.clock.now(), func(tx *store.Tx) error {
		sus.Person.Suspended = "Two people are one."
		return tx.SavePerson(sus.Person)
	}))
	// A second identity with Ana's email is suspended; the first is still she.
	second := w.identity("ana@example.com", "engineering")
	second.Subject = "00u-other"
	if _, _, err := w.signInAs(w.plane, second); err != nil {
		t.Fatal(err)
	}
	w.clock.move(time.Minute)
	for _, test := range []struct {
		name, email, arn string
		may              bool
		why              string
		state            RoleState
		decides          string
		trusts           bool
	}{
		{"hers", "ANA@example.com", roleARN(prod, "reader"), true, "policy readers decides", RoleListed, "readers", true},
		{"to be approved", "ana@example.com", roleARN(prod, "admin"), true, "policy admins decides", RoleListed, "admins", true},
		{"stale", "ana@example.com", roleARN(prod, "peer"), true, "policy peers decides", RoleStale, "peers", true},
		{"held", "ana@example.com", roleARN(dev, "areader"), false, "no session is opened", RoleHeld, "readers", true},
		{"removed", "ana@example.com", roleARN(prod, "secret"), false, "untagged", RoleRemoved, "", false},
		{"unknown", "ana@example.com", roleARN(prod, "nothing"), false, `No sync has seen this role with the tag "serval"`, RoleUnknown, "", false},
		{"of no account", "ana@example.com", roleARN("000000000000", "reader"), false, "account is not connected", RoleUnknown, "readers", false},
		{"not in the group", "guest@example.com", roleARN(prod, "reader"), false, "No access policy matches", RoleListed, "", true},
		{"groups not known", "nog@example.com", roleARN(prod, "reader"), false, "The token has no groups claim.", RoleListed, "", true},
		{"suspended", "sus@example.com", roleARN(prod, "reader"), false, "Two people are one.", RoleListed, "readers", true},
		{"never signed in", "new@example.com", roleARN(prod, "reader"), false, "no access policy names it", RoleListed, "", false},
	} {
		x, err := w.plane.Explain(ctx, p.adm, test.email, test.arn)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		decides := ""
		for _, f := range x.Findings {
			if f.Decides {
				decides = f.Policy.Name
			}
		}
		if x.May != test.may || !strings.Contains(x.Why, test.why) || x.State != test.state || decides != test.decides || (x.Trust != nil) != test.trusts || len(x.Findings) != len(policies()) {
			t.Errorf("%s: %t, %q, %s, %q decides, trust %v, %d findings", test.name, x.May, x.Why, x.State, decides, x.Trust, len(x.Findings))
		}
		// What is said is what happens.
		who := map[string]serval.Principal{"ana@example.com": p.ana, "guest@example.com": p.guest, "sus@example.com": sus}[test.email]
		if who.Kind == "" {
			continue
		}
		_, err = w.plane.Request(ctx, who, Ask{RoleARNs: []string{test.arn}, Ask: serval.Ask{Minutes: 5, Justification: "x"}})
		if (err == nil) != test.may {
			t.Errorf("%s: explained as %t, and asking for it says %v", test.name, test.may, err)
		}
	}
	x, err := w.plane.Explain(ctx, p.adm, "ana@example.com", roleARN(prod, "reader"))
	if err != nil || x.Identities != 2 || x.Person.Suspended != "" || !x.GroupsFresh || x.Findings[1].Miss != access.MissARN || x.Findings[5].Miss != access.Matched {
		t.Errorf("%+v, %v", x, err)
	}
	w.clock.move(time.Hour)
	if x, err := w.plane.Explain(ctx, p.adm, "ana@example.com", roleARN(prod, "reader")); err != nil || x.GroupsFresh {
		t.Errorf("an hour later the groups are fresh: %v", err)
	}
	before := w.head()
	for _, test := range []struct {
		who        serval.Principal
		email, arn string
		want       serval.Kind
	}{
		{p.adm, "ana", roleARN(prod, "reader"), serval.Invalid}, {p.adm, "ana@example.com", "reader", serval.Invalid}, {p.adm, "", "", serval.Invalid},
		{p.ana, "ana@example.com", roleARN(prod, "reader"), serval.Denied}, {p.aud, "ana@example.com", roleARN(prod, "reader"), serval.Denied},
		{hub(), "ana@example.com", roleARN(prod, "reader"), serval.Unauthenticated},
	} {
		_, err := w.plane.Explain(ctx, test.who, test.email, test.arn)
		wantKind(t, test.who.Name()+" about "+test.email+" and "+test.arn, err, test.want)
	}
	if n := len(w.events(before)); n != 6 {
		t.Errorf("%d events, want the six refusals", n)
	}
}
