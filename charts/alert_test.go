package charts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/serval-bridge/serval-bridge/internal/kubetest"
)

// A situation is what two hours of a metric look like, and which alert is to fire
// then, if any does.
type situation struct {
	name   string
	series map[string]string // as promtool has it: a value each minute
	fires  string            // the alert that fires, alone; empty: none
}

// situations have each alert fire, and be silent just before it would.
var situations = []situation{
	{"all is well", nil, ""},
	{"no bridge is there", map[string]string{bridgeUp: "_x120"}, "ServalBridgeDown"},
	{"no bridge answers", map[string]string{bridgeUp: "0x120"}, "ServalBridgeDown"},
	{"one bridge of two answers", map[string]string{strings.Replace(bridgeUp, "b1", "b2", 1): "0x120"}, ""},
	{"a bridge of somebody else", map[string]string{bridgeUp: "0x120", strings.Replace(bridgeUp, `"serval"`, `"other"`, 1): "1x120"}, "ServalBridgeDown"},
	{"sessions fail", map[string]string{`serval_sessions_total{outcome="failed"}`: "0+1x120"}, "ServalMintFailures"},
	{"sessions are dropped", map[string]string{`serval_sessions_total{outcome="dropped"}`: "0+1x120"}, "ServalMintFailures"},
	{"sessions are unknown", map[string]string{`serval_sessions_total{outcome="unknown"}`: "0+1x120"}, "ServalMintFailures"},
	{"sessions are refused", map[string]string{`serval_sessions_total{outcome="refused"}`: "0+100x120"}, ""},
	{"a session fails now and then", map[string]string{`serval_sessions_total{outcome="failed"}`: "0+0.1x120"}, ""},
	{"sign-ins fail", map[string]string{`serval_logins_total{outcome="failed"}`: "0+1x120"}, "ServalLoginFailures"},
	{"sign-ins are refused", map[string]string{`serval_logins_total{outcome="refused"}`: "0+1x120"}, "ServalLoginFailures"},
	{"a sign-in fails now and then", map[string]string{`serval_logins_total{outcome="failed"}`: "0+0.3x120"}, ""},
	{"people sign in", map[string]string{`serval_logins_total{outcome="done"}`: "0+100x120"}, ""},
	{"the chain does not hold", map[string]string{`serval_audit_chain_holds{pod="b1"}`: "1x118 0 0"}, "ServalAuditChainBroken"},
	{"removals are held", map[string]string{`serval_removals_held{pod="b1"}`: "7x120"}, "ServalRemovalsHeld"},
	{"removals were held for a little", map[string]string{`serval_removals_held{pod="b1"}`: "0x110 7x10"}, ""},
	{"a notice waits", map[string]string{`serval_notices_oldest_seconds{channel="slack"}`: "901x120"}, "ServalNoticesStuck"},
	{"a notice waits for a little", map[string]string{`serval_notices_oldest_seconds{channel="slack"}`: "900x120"}, ""},
	{"the configuration has a fault", map[string]string{`serval_config_in_force{pod="b1"}`: "0x120"}, "ServalConfigNotInForce"},
	{"a secret is gone", map[string]string{`serval_secret_unreadable{setting="SERVAL_SECRET"}`: "1x120"}, "ServalSecretUnreadable"},
	{"the disk is full", map[string]string{`serval_database_full{pod="b1"}`: "0x118 1 1"}, "ServalDatabaseFull"},
	{"a session's limits hardly fit", map[string]string{
		`serval_session_packed_policy_percent_bucket{le="90"}`: "0x120", `serval_session_packed_policy_percent_bucket{le="+Inf"}`: "0+1x120",
	}, "ServalSessionPolicyAlmostFull"},
	{"a session's limits fit", map[string]string{
		`serval_session_packed_policy_percent_bucket{le="90"}`: "0+1x120", `serval_session_packed_policy_percent_bucket{le="+Inf"}`: "0+1x120",
	}, ""},
	{"no worker leads", map[string]string{leads: "0x120"}, "ServalWorkerNotLeading"},
	{"no worker is there", map[string]string{leads: "_x120"}, "ServalWorkerNotLeading"},
	{"the other worker leads", map[string]string{leads: "0x120", strings.Replace(leads, "w1", "w2", 1): "1x120", strings.Replace(oldest, "w1", "w2", 1): "0+60x120"}, ""},
	{"an account is not read", map[string]string{oldest: "0x600"}, "ServalSyncOld"},
	{"there is no account", map[string]string{oldest: "0x600", complete: "0x600"}, ""},
	{"who stands by has not read", map[string]string{strings.Replace(oldest, "w1", "w2", 1): "0x600", strings.Replace(complete, "w1", "w2", 1): "1x600",
		strings.Replace(leads, "w1", "w2", 1): "0x600"}, ""},
	{"an account is read in part", map[string]string{`serval_worker_accounts{pod="w1",state="incomplete"}`: "1x120"}, "ServalSyncIncomplete"},
	{"an account was read in part by who stands by", map[string]string{`serval_worker_accounts{pod="w2",state="incomplete"}`: "1x120"}, ""},
	{"AWS slows down", map[string]string{`serval_worker_aws_throttled_total{action="iam:GetRole"}`: "0+60x120"}, "ServalWorkerThrottled"},
	{"AWS slows down a little", map[string]string{`serval_worker_aws_throttled_total{action="iam:GetRole"}`: "0+3x120"}, ""},
}

// What is there in every situation that does not say otherwise.
const (
	bridgeUp = `up{namespace="serval",job="serval-bridge-metrics",pod="b1"}`
	leads    = `serval_worker_leader{pod="w1"}`
	oldest   = `serval_worker_oldest_sync_timestamp_seconds{pod="w1"}`
	complete = `serval_worker_accounts{pod="w1",state="complete"}`
)

var well = map[string]string{bridgeUp: "1x600", leads: "1x600", oldest: "0+60x600", complete: "3x600"}

// Each alert fires when it should, by Prometheus's own promtool, and no other does.
func TestAlertsFire(t *testing.T) {
	promtool := kubetest.Tool(t, "promtool")
	rule := find(t, mustRender(t, "--values", "serval/examples/postgresql.yaml"), "PrometheusRule", "serval")
	dir := t.TempDir()
	write := func(name string, v any) string {
		text, err := yaml.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("rules.yaml", rule["spec"])
	tried := map[string]bool{}
	var tests []any
	for _, s := range situations {
		all := map[string]string{}
		for name, values := range well {
			all[name] = values
		}
		minutes := 120
		for name, values := range s.series {
			all[name] = values
			if strings.HasSuffix(values, "x600") {
				minutes = 600
			}
		}
		var series []any
		for name, values := range all {
			if !strings.Contains(name, "namespace=") {
				name = strings.Replace(name, "{", `{namespace="serval",`, 1)
			}
			series = append(series, map[string]any{"series": name, "values": values})
		}
		samples := []any{}
		if s.fires != "" {
			tried[s.fires] = true
			samples = append(samples, map[string]any{"labels": fmt.Sprintf("{alertname=%q}", s.fires), "value": 1})
		}
		tests = append(tests, map[string]any{
			"name": s.name, "interval": "1m", "input_series": series,
			"promql_expr_test": []any{map[string]any{
				"expr": `count by (alertname) (ALERTS{alertstate="firing"})`, "eval_time": fmt.Sprint(minutes, "m"), "exp_samples": samples,
			}},
		})
	}
	file := write("tests.yaml", map[string]any{"rule_files": []string{"rules.yaml"}, "evaluation_interval": "1m", "tests": tests})
	var out bytes.Buffer
	command := exec.Command(promtool, "test", "rules", file)
	command.Stdout, command.Stderr = &out, &out
	if err := command.Run(); err != nil {
		t.Errorf("promtool test rules: %v\n%s", err, &out)
	}
	for _, a := range rule.at("spec.groups").([]any)[0].(map[string]any)["rules"].([]any) {
		if name := a.(map[string]any)["alert"].(string); !tried[name] {
			t.Errorf("no situation has %s fire", name)
		}
	}
}

// The panels' queries are PromQL.
func TestQueriesParse(t *testing.T) {
	promtool := kubetest.Tool(t, "promtool")
	var dashboard any
	text, err := os.ReadFile("serval/dashboards/serval.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	var queries []string
	var look func(v any)
	look = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if q, ok := v["expr"].(string); ok {
				queries = append(queries, q)
			}
			for _, x := range v {
				look(x)
			}
		case []any:
			for _, x := range v {
				look(x)
			}
		}
	}
	look(dashboard)
	if len(queries) < 10 {
		t.Fatalf("%d queries; is the dashboard read?", len(queries))
	}
	var rules []any
	for i, q := range slices.Compact(slices.Sorted(slices.Values(queries))) {
		q = strings.NewReplacer("$__rate_interval", "5m", "$__range", "1h", "$__interval", "1m").Replace(q)
		rules = append(rules, map[string]any{"record": fmt.Sprint("panel:", i), "expr": q})
	}
	body, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "panels", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(promtool, "check", "rules", "--lint=none")
	command.Stdin = bytes.NewReader(body)
	if out, err := command.CombinedOutput(); err != nil {
		t.Errorf("promtool check rules: %v\n%s", err, out)
	}
}
