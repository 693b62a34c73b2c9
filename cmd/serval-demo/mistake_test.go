package main

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// Every mistake is told beforehand as AWS decides it then, and what is printed
// to mend it does, when it is put into the account as it stands.
func TestMistakes(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	d, err := newDemo(ctx, options{listen: "127.0.0.1:0", dir: t.TempDir(), stderr: io.Discard})
	defer func() {
		cancel()
		if err := d.wait(); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}()
	if err == nil {
		err = d.synced(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := &story{demo: d, out: io.Discard}
	ana, err := s.enter(ctx, requester)
	if err != nil {
		t.Fatal(err)
	}
	ada, err := s.enter(ctx, admin)
	if err != nil {
		t.Fatal(err)
	}
	look := func(name string) wire.Role {
		t.Helper()
		var r wire.Role
		if err := ana.call(ctx, "GET", "/roles/"+workshopAccount+"/"+name, nil, &r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	// open asks for the role and opens a session, and returns how that went.
	open := func(r wire.Role) error {
		t.Helper()
		var made wire.Request
		if r.MyRequest != nil {
			made = *r.MyRequest
		} else if err := ana.call(ctx, "POST", "/requests", wire.NewRequest{RoleARN: r.ARN, Minutes: 30, Justification: "Try it"}, &made); err != nil {
			t.Fatal(err)
		}
		return ana.call(ctx, "POST", "/sessions", wire.NewSession{RequestID: made.ID}, &wire.Credentials{})
	}
	var found wire.FindingsPage
	if err := ada.call(ctx, "GET", "/findings?account_id="+workshopAccount, nil, &found); err != nil {
		t.Fatal(err)
	}
	findings := map[string][]string{}
	for _, r := range found.Roles {
		for _, f := range r.Findings {
			findings[r.RoleARN] = append(findings[r.RoleARN], f.ID)
		}
	}
	account := d.cloud.Account(workshopAccount)
	var mended []string
	for _, m := range mistakes() {
		r := look(m.role)
		if r.Trust.Verdict != m.verdict || (r.Trust.Mend != nil) != m.mended || r.Trust.Reason == "" {
			t.Errorf("%s: %s (%s), mend %v; want %s, %v", m.role, r.Trust.Verdict, r.Trust.Reason, r.Trust.Mend != nil, m.verdict, m.mended)
		}
		has := m.finding == ""
		for _, id := range findings[r.ARN] {
			has = has || id == m.finding
		}
		if !has {
			t.Errorf("%s: findings %v, want %s among them", m.role, findings[r.ARN], m.finding)
		}
		// AWS decides as it was said.
		err := open(r)
		if m.verdict == "works" && err != nil || m.verdict == "fails" && err == nil {
			t.Errorf("%s: said to be %s, and opening a session came to: %v", m.role, m.verdict, err)
		}
		if r.Trust.Mend != nil {
			account.SetTrust(m.role, r.Trust.Mend.JSON)
			mended = append(mended, m.role)
		}
	}
	if len(mended) < 5 {
		t.Errorf("%d roles can be mended, want most of those that fail", len(mended))
	}
	if err := ada.call(ctx, "POST", "/accounts/"+workshopAccount+"/sync", nil, nil); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for _, name := range mended {
		r := look(name)
		for ; r.Trust.Verdict != "works" && time.Now().Before(deadline); r = look(name) {
			time.Sleep(50 * time.Millisecond) // a delta may have read some of them before
		}
		if r.Trust.Verdict != "works" {
			t.Errorf("%s, mended: %s (%s)", name, r.Trust.Verdict, r.Trust.Reason)
		}
		if err := open(r); err != nil {
			t.Errorf("%s, mended: %v", name, err)
		}
	}
}
