package charts

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// names are the metrics of Serval's that a text has.
var names = regexp.MustCompile(`\bserval_[a-z_]+\b`)

// defined returns the metrics that the daemons have, by their source.
func defined(t *testing.T) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	err := filepath.WalkDir("../internal", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range regexp.MustCompile(`"(serval_[a-z_]+)", *"?`).FindAllStringSubmatch(string(text), -1) {
			all[m[1]] = true
		}
		for _, m := range regexp.MustCompile(`Name: +"(serval_[a-z_]+)"`).FindAllStringSubmatch(string(text), -1) {
			all[m[1]] = true
		}
		return err
	})
	if err != nil || len(all) < 20 {
		t.Fatalf("metrics: %v, %v", all, err)
	}
	return all
}

// An alert or a panel over a metric that nobody has would never say anything.
func TestMetricsAreThere(t *testing.T) {
	dashboard, err := os.ReadFile("serval/dashboards/serval.json")
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(dashboard) {
		t.Error("the dashboard is no JSON")
	}
	rule := find(t, mustRender(t, "--values", "serval/examples/postgresql.yaml"), "PrometheusRule", "serval")
	alerts := rule.at("spec.groups").([]any)[0].(map[string]any)["rules"].([]any)
	text := string(dashboard)
	handbook, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range alerts {
		alert := object(a.(map[string]any))
		text += alert["expr"].(string) + "\n"
		if !strings.Contains(string(handbook), "\n### "+alert["alert"].(string)+"\n") {
			t.Errorf("docs/operations.md does not say what to do for %s", alert["alert"])
		}
		for _, path := range []string{"annotations.summary", "annotations.description", "labels.severity", "labels.team"} {
			if s, _ := alert.at(path).(string); s == "" || strings.Contains(s, "SHARDS") {
				t.Errorf("%s has no %s: %q", alert["alert"], path, s)
			}
		}
	}
	have := defined(t)
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names.FindAllString(text, -1)))) {
		base := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")
		if !have[name] && !have[base] {
			t.Errorf("%s is no metric of Serval's", name)
		}
	}
	if off := mustRender(t, "--values", "serval/examples/postgresql.yaml", "--set", "prometheusRule.disabled={ServalSyncOld}"); len(find(t, off, "PrometheusRule", "serval").at("spec.groups").([]any)[0].(map[string]any)["rules"].([]any)) != len(alerts)-1 {
		t.Error("an alert that is disabled is there")
	}
}
