package bridge

import (
	"runtime/debug"
	"strings"
	"testing"

	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// where memory is nearly used up nobody begins to sign in, and whoever has
// opens sessions.
func TestMemoryIsForSessions(t *testing.T) {
	e := newEstate(t, nil)
	ana, made := e.ana()
	c := newCrowd()
	if c.Full() {
		t.Error("without a limit it is full")
	}
	old := debug.SetMemoryLimit(1 << 20) // less than is in use
	defer debug.SetMemoryLimit(old)
	if !newCrowd().Full() {
		t.Error("over the limit it is not full")
	}
	res, text, err := e.ask(e.client(), "GET", "/oidc/auth/login", nil)
	for err == nil && res.StatusCode == 303 { // what was looked at before counts for a moment
		res, text, err = e.ask(e.client(), "GET", "/oidc/auth/login", nil)
	}
	if err != nil || res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || !strings.Contains(text, "busy") {
		t.Errorf("a sign-in gets %v %s, %v; want 503 with Retry-After", res, text, err)
	}
	e.json(ana, "POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID}, 200, nil)
	debug.SetMemoryLimit(1 << 40)
	if newCrowd().Full() {
		t.Error("far below the limit it is full")
	}
}
