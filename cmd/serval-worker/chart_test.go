package main

import (
	"encoding/json"
	"os"
	"slices"
	"testing"
)

// Each setting is one of the chart's values, or the chart gives it by itself; and
// the chart takes no setting that there is none of.
func TestChartKnowsTheSettings(t *testing.T) {
	text, err := os.ReadFile("../../charts/serval/values.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Properties map[string]struct {
			Properties struct {
				Settings struct{ Properties map[string]any }
			}
		}
	}
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	given := []string{
		"SERVAL_UPSTREAM_URL", "SERVAL_UPSTREAM_TOKEN", "SERVAL_UPSTREAM_PLAINTEXT", "SERVAL_UPSTREAM_CA_FILE",
		"SERVAL_SHARD", "SERVAL_TOTAL_SHARDS", "SERVAL_NO_LEASE", "SERVAL_SERVICE_ACCOUNT_DIR",
		"SERVAL_ADMIN_LISTEN",
	}
	taken := schema.Properties["worker"].Properties.Settings.Properties
	for _, name := range variables(Config{}) {
		if _, ok := taken[name]; ok == slices.Contains(given, name) {
			t.Errorf("%s is to be either a value of the chart or given by it", name)
		}
	}
	for name := range taken {
		if !slices.Contains(variables(Config{}), name) {
			t.Errorf("the chart takes %s, which is no setting", name)
		}
	}
}
