package control

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// Leases end before the access does, are opened anew, and do not chain.
func TestLease(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.stock()
		w.usePlane(w.newPlane(w.store, func(s *Settings) { s.Lease, s.MintRate = 30*time.Minute, 2 }))
		ana := w.engineer("ana@example.com")
		r := w.ask(ana, roleARN(prod, "reader"), 60)
		start := noon.Truncate(time.Second)

		o := w.open(ana, r.ID)
		m := w.sts.asked()[0]
		end := start.Add(30 * time.Minute)
		want := serval.SessionPolicy{End: end, NoChaining: true}.Document()
		if m.Seconds != 1800 || m.Policy != want || !o.Session.EndsAt.Equal(end) || !o.RenewAt.Equal(start.Add(20*time.Minute)) {
			t.Errorf("asked for %d seconds under %s, until %s, to renew at %s; want half an hour, to renew after twenty minutes",
				m.Seconds, m.Policy, o.Session.EndsAt, o.RenewAt)
		}
		if got := w.request(r.ID); !got.EndsAt.Equal(got.ClockStartedAt.Add(time.Hour)) {
			t.Errorf("the access runs from %s to %s, want an hour", got.ClockStartedAt, got.EndsAt)
		}
		// S-84: renewed in time it is not counted, and once.
		w.open(ana, r.ID)
		_, err := w.tryOpen(ana, opening(r.ID))
		wantKind(t, "the third within a minute, none of them due", err, serval.Exhausted)
		w.clock.move(20 * time.Minute)
		before := w.head()
		second := w.open(ana, r.ID)
		if e := w.events(before); e[0].Detail["renews"] == "" || second.Session.Renews != e[0].Detail["renews"] {
			t.Errorf("the row says it renews %q, the session %q", e[0].Detail["renews"], second.Session.Renews)
		}
		for i := range 3 {
			o, err := w.tryOpen(ana, opening(r.ID))
			if i < 2 && (err != nil || o.Session.Renews != "") || i == 2 && !serval.IsRefusal(err, serval.Exhausted) {
				t.Errorf("session %d beside the renewal: renews %q, %v", i, o.Session.Renews, err)
			}
		}
		// A console is its own.
		w.clock.move(time.Minute)
		if o, err := w.tryOpen(ana, console(r.ID)); err != nil || o.Session.Renews != "" {
			t.Errorf("the console renews %q: %v", o.Session.Renews, err)
		}
		// One that fails has renewed: the next attempt counts.
		w.clock.move(25 * time.Minute)
		w.sts.say(func(context.Context, serval.Mint, serval.Minted) (serval.Minted, error) {
			return serval.Minted{}, serval.Refuse(serval.Unavailable, "AWS is away.")
		})
		for range 2 {
			w.tryOpen(ana, opening(r.ID))
			w.clock.move(time.Second)
		}
		w.sts.say(nil)
		sessions := w.sessions(r.ID)
		if a, b := sessions[len(sessions)-2], sessions[len(sessions)-1]; a.Renews == "" || b.Renews != "" {
			t.Errorf("two attempts renew %q and %q, want the first alone to renew", a.Renews, b.Renews)
		}
		// The last one ends with the access, and is not to be renewed.
		o = w.open(ana, r.ID)
		if !o.RenewAt.IsZero() || !o.Session.EndsAt.Equal(w.request(r.ID).EndsAt) || !strings.Contains(w.lastMint().Policy, "sts:AssumeRole*") {
			t.Errorf("the last lease until %s, to renew at %s; want the access's end, and no renewal", o.Session.EndsAt, o.RenewAt)
		}
		// The grant is looked at each time.
		p := w.people()
		if _, err := w.plane.Revoke(t.Context(), p.adm, r.ID, "x"); err != nil {
			t.Fatal(err)
		}
		_, err = w.tryOpen(ana, opening(r.ID))
		wantKind(t, "a renewal after it was revoked", err, serval.Conflict)

		// The access policy may allow chaining, and the person ask for none.
		r = w.ask(ana, roleARN(prod, "chain"), 60)
		w.clock.move(time.Minute)
		w.open(ana, r.ID)
		if strings.Contains(w.lastMint().Policy, "sts:AssumeRole*") {
			t.Error("a lease that may chain does not")
		}
	})
}

func (w *world) lastMint() serval.Mint {
	asked := w.sts.asked()
	return asked[len(asked)-1]
}

// Without a session policy a session ends with its credentials, so none is
// opened that would outlast the access, and none is narrowed.
func TestNoSessionPolicy(t *testing.T) {
	w := newWorld(t).stock()
	w.usePlane(w.newPlane(w.store, func(s *Settings) { s.NoSessionPolicy = true }))
	ana := w.engineer("ana@example.com")
	r := w.ask(ana, roleARN(prod, "reader"), 60)
	for name, o := range map[string]Opening{"read only": {ReadOnly: true}, "no chaining": {NoChaining: true}, "network": {Network: "office"}} {
		o.RequestID, o.Kind = r.ID, serval.ForCredentials
		_, err := w.tryOpen(ana, o)
		wantKind(t, name, err, serval.FailedPrecondition)
	}
	before := w.head()
	o := w.open(ana, r.ID)
	if m := w.lastMint(); m.Policy != "" || m.PolicyARNs != nil || m.Seconds != 3600 || !o.Session.EndsAt.Equal(o.Session.Expiration) {
		t.Errorf("STS was asked %+v, session %+v; want an hour without a policy", m, o.Session)
	}
	if e := w.events(before); e[1].Detail["session_policy"] != "off" {
		t.Errorf("the row does not say that there was no session policy: %v", e[1].Detail)
	}
	// S-6: a clock of AWS's that is ahead must not carry it past the end.
	w.clock.move(30 * time.Minute)
	asked := len(w.sts.asked())
	w.sts.say(func(_ context.Context, m serval.Mint, right serval.Minted) (serval.Minted, error) {
		right.Expiration = right.Expiration.Add(40 * time.Second)
		return right, nil
	})
	o = w.open(ana, r.ID)
	if ends := w.request(r.ID).EndsAt; o.Session.Expiration.After(ends) || len(w.sts.asked()) != asked+2 {
		t.Errorf("after %d more calls it ends at %s, want two and no later than the access, %s", len(w.sts.asked())-asked, o.Session.Expiration, ends)
	}
	// 901, 900 and 899 seconds are left.
	w.sts.say(nil)
	ends := w.request(r.ID).EndsAt
	for _, left := range []int{901, 900, 899} {
		w.clock.move(ends.Sub(w.clock.now()) - time.Duration(left)*time.Second)
		o, err := w.tryOpen(ana, opening(r.ID))
		if left >= 900 {
			if err != nil || o.Session.EndsAt.After(ends) {
				t.Errorf("with %d seconds left: until %s of %s, %v", left, o.Session.EndsAt, ends, err)
			}
			continue
		}
		wantKind(t, fmt.Sprint("with ", left, " seconds left"), err, serval.FailedPrecondition)
		wantNothing(t, o)
		if err == nil || !strings.Contains(err.Error(), "SERVAL_SESSION_POLICY") {
			t.Errorf("with %d seconds left: %v, want the reason", left, err)
		}
	}
	// With too little left to end in time it is not opened.
	r = w.ask(ana, roleARN(dev, "reader"), 16)
	w.open(ana, r.ID)
	w.clock.move(50 * time.Second)
	w.sts.say(func(_ context.Context, m serval.Mint, right serval.Minted) (serval.Minted, error) {
		right.Expiration = right.Expiration.Add(50 * time.Second)
		return right, nil
	})
	o, err := w.tryOpen(ana, opening(r.ID))
	wantKind(t, "a clock too far ahead", err, serval.Unavailable)
	wantNothing(t, o)
}

// How much of AWS's room a session's limits take is recorded, told and, when it
// gets scarce, logged.
func TestPackedPolicySize(t *testing.T) {
	w := newWorld(t).stock()
	var told []int
	w.usePlane(w.newPlane(w.store, func(s *Settings) { s.Packed = func(percent int) { told = append(told, percent) } }))
	ana := w.engineer("ana@example.com")
	r := w.ask(ana, roleARN(prod, "reader"), 60)
	for i, percent := range []int{12, 80} {
		w.sts.say(func(_ context.Context, _ serval.Mint, right serval.Minted) (serval.Minted, error) {
			right.PackedPolicySize = percent
			return right, nil
		})
		before := w.head()
		w.open(ana, r.ID)
		if e := w.events(before); e[1].Detail["packed_policy_percent"] != fmt.Sprint(percent) || len(told) != i+1 || told[i] != percent {
			t.Errorf("told %v, and the row says %q; want %d", told, e[1].Detail["packed_policy_percent"], percent)
		}
		if n := w.logs.FilterMessage("a session's limits are close to more than AWS takes").Len(); n != i {
			t.Errorf("%d warnings at %d percent, want %d", n, percent, i)
		}
	}
}

// What is live is told to whoever sees the request, and what cuts it off is of
// exactly that.
func TestLive(t *testing.T) {
	w := newWorld(t).stock()
	p := w.people()
	r := w.ask(p.ana, roleARN(prod, "reader"), 60)
	live := func(who serval.Principal) Live {
		t.Helper()
		l, err := w.plane.Live(t.Context(), who, r.ID)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	if l := live(p.ana); l.DenyPolicy != "" || l.Sessions != nil {
		t.Errorf("before any session: %+v", l)
	}
	w.open(p.ana, r.ID)
	w.clock.move(20 * time.Minute)
	w.open(p.ana, r.ID)
	if _, err := w.plane.Revoke(t.Context(), p.adm, r.ID, "x"); err != nil {
		t.Fatal(err)
	}
	for name, who := range map[string]serval.Principal{"holder": p.ana, "admin": p.adm} {
		l := live(who)
		if len(l.Sessions) != 2 || strings.Count(l.DenyPolicy, "aws:userid") != 1 ||
			!strings.Contains(l.DenyPolicy, `"aws:userid": "`+roleID(prod, "reader", 1)+`:ana@example.com"`) ||
			!strings.Contains(l.DenyPolicy, `"aws:TokenIssueTime": "`+w.sessions(r.ID)[1].IssuedAt().Add(time.Second).Format(time.RFC3339)+`"`) {
			t.Errorf("the %s sees %d sessions and %s; want two and one statement, from the second after the last", name, len(l.Sessions), l.DenyPolicy)
		}
	}
	_, err := w.plane.Live(t.Context(), p.bob, r.ID)
	wantKind(t, "somebody else", err, serval.NotFound)
	// The first session has ended; then the other has.
	w.clock.move(40 * time.Minute)
	if l := live(p.ana); len(l.Sessions) != 1 && len(l.Sessions) != 0 {
		t.Errorf("after the end of the first: %+v", l.Sessions)
	}
	w.clock.move(time.Hour)
	p.ana = w.engineer("ana@example.com")
	if l := live(p.ana); len(l.Sessions) != 0 || l.DenyPolicy != "" {
		t.Errorf("after all ends: %+v", l)
	}
}
