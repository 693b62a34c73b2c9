package connect

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// What cuts off live sessions is a golden file: a statement for each name, from
// the last session of that name on.
func TestDenyPolicy(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)
	session := func(userID string, issued time.Time) serval.Session {
		return serval.Session{State: serval.SessionIssued, AssumedRoleID: userID, Seconds: 3600, Expiration: issued.Add(time.Hour)}
	}
	got := DenyPolicy([]serval.Session{
		session("AROAEXAMPLEEXAMPLE01:ana@example.com", at.Add(5*time.Minute)),
		session("AROAEXAMPLEEXAMPLE01:ana@example.com", at.Add(10*time.Minute)),
		session("AROAEXAMPLEEXAMPLE01:ana@example.com", at),
		session("AROAEXAMPLEEXAMPLE01:ana.old@example.com", at.Add(time.Minute)),
	})
	if !json.Valid([]byte(got)) {
		t.Errorf("not JSON:\n%s", got)
	}
	path := filepath.Join("testdata", "deny.json")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("the deny policy (-want +got):\n%s", diff)
	}
	if got := DenyPolicy(nil); got != "" {
		t.Errorf("without sessions there is a policy: %s", got)
	}
}
