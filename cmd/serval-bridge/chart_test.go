package main

import (
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/serval-bridge/serval-bridge/internal/serval"
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
				Settings       struct{ Properties map[string]any }
				SecretSettings struct {
					Items struct{ Enum []string }
				}
			}
		}
	}
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	given := []string{
		"SERVAL_LISTEN", "SERVAL_ADMIN_LISTEN", "SERVAL_CONFIG", "SERVAL_PUBLIC_URL",
		"SERVAL_TLS_CERT_FILE", "SERVAL_TLS_KEY_FILE", "SERVAL_OIDC_CLIENT_SECRET", "SERVAL_SECRET",
		"SERVAL_EXTERNAL_ID_SECRET", "SERVAL_DATABASE_URL", "SERVAL_WORKER_SUBJECT", "SERVAL_SERVICE_ACCOUNT_DIR",
	}
	var names []string
	for f := range reflect.TypeFor[Config]().Fields() {
		if name, _, _ := strings.Cut(f.Tag.Get("env"), ","); name != "" {
			names = append(names, name)
		}
	}
	taken := schema.Properties["bridge"].Properties.Settings.Properties
	secret := reflect.TypeFor[serval.Secret]()
	for f := range reflect.TypeFor[Config]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("env"), ",")
		if _, plain := taken[name]; plain && f.Type == secret {
			t.Errorf("%s is a secret, and a plain value of the chart", name)
		}
	}
	for _, name := range schema.Properties["bridge"].Properties.SecretSettings.Items.Enum {
		taken[name] = true
	}
	for _, name := range names {
		if _, ok := taken[name]; ok == slices.Contains(given, name) {
			t.Errorf("%s is to be either a value of the chart or given by it", name)
		}
	}
	for name := range taken {
		if !slices.Contains(names, name) {
			t.Errorf("the chart takes %s, which is no setting", name)
		}
	}
}
