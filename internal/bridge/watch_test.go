package bridge

import (
	"database/sql"
	"strings"
	"testing"
	"time"
)

// A chain that was changed by hand is found by the bridge itself, and one that
// was mended holds again.
func TestWatchFindsABrokenChain(t *testing.T) {
	c := config(t)
	c.verifyEvery = 20 * time.Millisecond
	b := start(t, c)
	shows := func(line string) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			_, metrics := get(t, b.admin+"/metrics")
			if strings.Contains(metrics, "\n"+line+"\n") {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("the metrics never say %q:\n%s", line, metrics)
			}
		}
	}
	shows("serval_audit_chain_holds 1")
	shows("serval_removals_held 0")

	db, err := sql.Open("sqlite", strings.TrimPrefix(c.DatabaseURL.Reveal(), "sqlite://")+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	run := func(query string) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	run(`drop trigger event_no_update`)
	run(`update event set actor = actor || 'x' where seq = 1`)
	shows("serval_audit_chain_holds 0")
	run(`update event set actor = substr(actor, 1, length(actor) - 1) where seq = 1`)
	shows("serval_audit_chain_holds 1")
	if _, metrics := get(t, b.admin+"/metrics"); strings.Contains(metrics, "\nserval_audit_verified_timestamp_seconds 0\n") {
		t.Error("the chain was walked, and no time of it is shown")
	}
}
