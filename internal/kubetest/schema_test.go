package kubetest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// testSchemas holds the chart's examples against schemas that know no field besides
// those that there are: what the API server itself publishes of each kind, those of
// others among them.
func testSchemas(t *testing.T, c *Cluster) {
	conform := Tool(t, "kubeconform")
	dir := t.TempDir()
	n := writeSchemas(t, c, dir)
	validate := func(files ...string) (string, error) {
		text, err := exec.Command(conform, append([]string{"-strict", "-summary", "-verbose",
			"-schema-location", filepath.Join(dir, "{{.ResourceKind}}{{.KindSuffix}}.json")}, files...)...).CombinedOutput()
		return string(text), err
	}
	said, err := validate(goldens(t)...)
	if err != nil || !strings.Contains(said, "Invalid: 0, Errors: 0, Skipped: 0") {
		t.Errorf("the examples: %v\n%s", err, said)
	}
	t.Logf("%d schemas. %s", n, strings.TrimSpace(said[strings.LastIndex(strings.TrimSpace(said), "\n")+1:]))

	const deployment = `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"x"},"spec":{%s"selector":{"matchLabels":{"a":"b"}},
		"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"x","image":"x"}]}}}}`
	for name, text := range map[string]string{
		"good":          fmt.Sprintf(deployment, `"replicas":2,`),
		"unknown field": fmt.Sprintf(deployment, `"replicaz":2,`),
		"wrong type":    fmt.Sprintf(deployment, `"replicas":"two",`),
		"others' field": `{"apiVersion":"cilium.io/v2","kind":"CiliumNetworkPolicy","metadata":{"name":"x"},"spec":{"endpointSelectorr":{}}}`,
		"no such kind":  `{"apiVersion":"apps/v2","kind":"Deployment","metadata":{"name":"x"}}`,
	} {
		file := filepath.Join(t.TempDir(), "object.json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if said, err := validate(file); (err == nil) != (name == "good") {
			t.Errorf("%s: %v\n%s", name, err, said)
		}
	}
}

// writeSchemas writes a schema of each kind that the API server publishes, and
// returns how many there are.
func writeSchemas(t *testing.T, c *Cluster, dir string) (n int) {
	t.Helper()
	status, text := c.Call(c.admin, http.MethodGet, "/openapi/v2", nil)
	var published struct {
		Definitions map[string]map[string]any
	}
	if err := json.Unmarshal([]byte(text), &published); err != nil || status != http.StatusOK {
		t.Fatalf("the API server's description of itself: %d, %v", status, err)
	}
	for _, d := range published.Definitions {
		strictly(d)
	}
	write := func(name string, v any) {
		t.Helper()
		text, err := json.Marshal(v)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write("all.json", map[string]any{"definitions": published.Definitions})
	for name, d := range published.Definitions {
		kinds, _ := d["x-kubernetes-group-version-kind"].([]any)
		if len(kinds) != 1 {
			continue // such as DeleteOptions, which is of every group
		}
		kind := kinds[0].(map[string]any)
		group, version := kind["group"].(string), kind["version"].(string)
		file := kind["kind"].(string) + "-" + version + ".json"
		if group != "" {
			short, _, _ := strings.Cut(group, ".")
			file, version = kind["kind"].(string)+"-"+short+"-"+version+".json", group+"/"+version
		}
		write(strings.ToLower(file), map[string]any{"allOf": []any{
			map[string]any{"$ref": "all.json#/definitions/" + name},
			map[string]any{"required": []string{"apiVersion", "kind"}, "properties": map[string]any{
				"apiVersion": map[string]any{"enum": []string{version}}, "kind": map[string]any{"enum": []any{kind["kind"]}},
			}},
		}})
		n++
	}
	return n
}

// strictly has a schema, and all within it, take the fields that it names alone,
// and numbers where Kubernetes does beside texts.
func strictly(schema map[string]any) {
	if properties, ok := schema["properties"].(map[string]any); ok {
		for _, p := range properties {
			strictly(p.(map[string]any))
		}
		if _, more := schema["additionalProperties"]; !more && schema["x-kubernetes-preserve-unknown-fields"] != true {
			schema["additionalProperties"] = false
		}
	}
	for _, within := range []string{"items", "additionalProperties"} {
		if s, ok := schema[within].(map[string]any); ok {
			strictly(s)
		}
	}
	if schema["format"] == "int-or-string" || schema["x-kubernetes-int-or-string"] == true || strings.HasPrefix(fmt.Sprint(schema["description"]), "Quantity is") {
		delete(schema, "format")
		schema["type"] = []string{"integer", "number", "string"}
	}
}
