package connect

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What an admin pastes is a golden file: it changes only on purpose.
func TestTexts(t *testing.T) {
	for name, got := range map[string]string{
		"trust.json":       TrustPolicy("aws", "999988887777", "external-id-of-the-team"),
		"trust-china.json": TrustPolicy("aws-cn", "999988887777", `a"b`),
		"permissions.json": PermissionPolicy(),
	} {
		t.Run(name, func(t *testing.T) {
			if !json.Valid([]byte(got)) {
				t.Errorf("not JSON:\n%s", got)
			}
			path := filepath.Join("testdata", name)
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
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		})
	}
}
