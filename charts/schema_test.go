package charts

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// wrong are values that one constraint of the schema refuses, by where it is in
// the schema. The values are laid over the chart's own, as --values does. What is
// below config is the configuration file's schema, and is tested with that.
var wrong = map[string][]string{
	"/properties/image/properties/registry/pattern":                               {`image: {registry: "a b"}`, `image: {registry: "a//b"}`},
	"/properties/image/properties/tag/pattern":                                    {`image: {tag: "-x"}`, `image: {tag: "a b"}`},
	"/properties/image/properties/pullPolicy/enum":                                {`image: {pullPolicy: Sometimes}`},
	"/properties/bridge/properties/publicUrl/pattern":                             {`bridge: {publicUrl: "http://serval.example.com"}`, `bridge: {publicUrl: "https://x/y"}`},
	"/properties/bridge/properties/existingSecret/pattern":                        {`bridge: {existingSecret: Secrets}`, `bridge: {existingSecret: ""}`},
	"/properties/bridge/properties/replicaCount/minimum":                          {`bridge: {replicaCount: -1}`},
	"/properties/bridge/properties/database/properties/type/enum":                 {`bridge: {database: {type: mysql}}`},
	"/properties/bridge/properties/persistence/properties/size/pattern":           {`bridge: {persistence: {size: much}}`, `bridge: {persistence: {size: 1Gb}}`},
	"/properties/bridge/properties/persistence/properties/accessModes/minItems":   {`bridge: {persistence: {accessModes: []}}`},
	"/properties/bridge/properties/persistence/properties/accessModes/items/enum": {`bridge: {persistence: {accessModes: [ReadOnlyMany]}}`},
	"/properties/bridge/properties/service/properties/type/enum":                  {`bridge: {service: {type: NodePort}}`},
	"/properties/bridge/properties/service/properties/loadBalancerClass/pattern":  {`bridge: {service: {loadBalancerClass: "a b"}}`},
	"/properties/bridge/properties/terminationGracePeriodSeconds/minimum":         {`bridge: {terminationGracePeriodSeconds: 44}`},
	"/properties/bridge/properties/topologySpreadConstraints/items/required":      {`bridge: {topologySpreadConstraints: [{maxSkew: 1, topologyKey: x}]}`},
	"/properties/bridge/properties/extraEnv/items/required":                       {`bridge: {extraEnv: [{value: x}]}`},
	"/properties/bridge/properties/extraVolumes/items/required":                   {`bridge: {extraVolumes: [{emptyDir: {}}]}`},
	"/properties/bridge/properties/extraVolumeMounts/items/required":              {`bridge: {extraVolumeMounts: [{name: x}]}`},
	"/properties/bridge/properties/doctorSkip/items/pattern":                      {`bridge: {doctorSkip: ["sts,signin"]}`},
	"/properties/bridge/properties/secretSettings/uniqueItems":                    {`bridge: {secretSettings: [SERVAL_SMTP_PASSWORD, SERVAL_SMTP_PASSWORD]}`},
	"/properties/bridge/properties/secretSettings/items/enum":                     {`bridge: {secretSettings: [SERVAL_SECRET]}`},
	"/properties/worker/properties/replicaCount/minimum":                          {`worker: {replicaCount: -1}`},
	"/properties/worker/properties/shards/minimum":                                {`worker: {shards: 0}`},
	"/properties/worker/properties/shards/maximum":                                {`worker: {shards: 101}`},
	"/properties/worker/properties/upstream/properties/url/pattern":               {`worker: {upstream: {url: serval.example.com}}`},
	"/properties/worker/properties/upstream/properties/caSecretKey/pattern":       {`worker: {upstream: {caSecretKey: "a/b"}}`},
	"/properties/worker/properties/upstream/properties/tokenSecretKey/pattern":    {`worker: {upstream: {tokenSecretKey: "a/b"}}`},
	"/properties/worker/properties/terminationGracePeriodSeconds/minimum":         {`worker: {terminationGracePeriodSeconds: 0}`},
	"/properties/worker/properties/topologySpreadConstraints/items/required":      {`worker: {topologySpreadConstraints: [{maxSkew: 1, topologyKey: x}]}`},
	"/properties/worker/properties/extraEnv/items/required":                       {`worker: {extraEnv: [{value: x}]}`},
	"/properties/worker/properties/extraVolumes/items/required":                   {`worker: {extraVolumes: [{emptyDir: {}}]}`},
	"/properties/worker/properties/extraVolumeMounts/items/required":              {`worker: {extraVolumeMounts: [{mountPath: /x}]}`},
	"/properties/worker/properties/doctorSkip/items/pattern":                      {`worker: {doctorSkip: ["--x y"]}`},
	"/properties/ingress/properties/className/pattern":                            {`ingress: {className: "a b"}`},
	"/properties/ingress/properties/hosts/items/pattern":                          {`ingress: {hosts: ["https://x"]}`},
	"/properties/networkPolicy/properties/egress/properties/kubernetesApiPort/minimum": {
		`networkPolicy: {egress: {kubernetesApiPort: 0}}`},
	"/properties/networkPolicy/properties/egress/properties/databasePort/minimum": {`networkPolicy: {egress: {databasePort: 0}}`},
	"/properties/serviceMonitor/properties/interval/pattern":                      {`serviceMonitor: {interval: often}`, `serviceMonitor: {interval: "30"}`},
	"/properties/prometheusRule/properties/disabled/items/pattern":                {`prometheusRule: {disabled: [SyncOld]}`},
	"/properties/prometheusRule/properties/syncAgeSeconds/minimum":                {`prometheusRule: {syncAgeSeconds: 59}`},
	"/properties/extraObjects/items/required":                                     {`extraObjects: [{kind: ConfigMap, metadata: {name: x}}]`},
	"/definitions/name/pattern":                                                   {`tls: {secretName: "A b"}`},
	"/definitions/cidrs/items/pattern":                                            {`networkPolicy: {egress: {httpsCidrs: [10.0.0.1]}}`},
	"/definitions/image/properties/repository/minLength":                          {`bridge: {image: {repository: ""}}`},
	"/definitions/image/properties/digest/pattern":                                {`worker: {image: {digest: latest}}`},
	"/definitions/serviceAccount/properties/name/pattern":                         {`bridge: {serviceAccount: {name: ""}}`},
	"/definitions/peers/items/minProperties":                                      {`networkPolicy: {bridge: {from: [{}]}}`},
	"/definitions/peers/items/properties/ipBlock/required":                        {`networkPolicy: {bridge: {from: [{ipBlock: {except: []}}]}}`},
}

// constraints are the keywords of a schema that refuse something, beside what a
// value is at all (type) and which keys there are, which TestValuesHaveASchema and
// TestEveryTypeIsHeld have.
var constraints = []string{"pattern", "enum", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "uniqueItems", "minProperties", "required", "const", "not", "oneOf", "anyOf"}

// Each constraint of the schema refuses what it is there for: without it that
// would be taken.
func TestEveryConstraintRefuses(t *testing.T) {
	schema := readSchema(t)
	values := readValues(t)
	if err := validate(t, schema, values); err != nil {
		t.Fatalf("the chart's own values: %v", err)
	}
	found := map[string]bool{}
	var look func(path string, v any)
	look = func(path string, v any) {
		m, ok := v.(map[string]any)
		if !ok || strings.HasPrefix(path, "/definitions/config") {
			return
		}
		for name, x := range m {
			if slices.Contains(constraints, name) && !strings.HasSuffix(path, "/properties") && path != "/definitions" {
				found[path+"/"+name] = true
			}
			look(path+"/"+name, x)
		}
	}
	look("", schema)
	for _, path := range slices.Sorted(maps.Keys(found)) {
		if len(wrong[path]) == 0 {
			t.Errorf("nothing is known that %s refuses", path)
		}
	}
	for path, texts := range wrong {
		if !found[path] {
			t.Errorf("there is no constraint %s", path)
			continue
		}
		without := readSchema(t)
		at := any(without)
		steps := strings.Split(path, "/")[1:]
		for _, step := range steps[:len(steps)-1] {
			at = at.(map[string]any)[step]
		}
		delete(at.(map[string]any), steps[len(steps)-1])
		for _, text := range texts {
			var over map[string]any
			if err := yaml.Unmarshal([]byte(text), &over); err != nil {
				t.Fatal(err)
			}
			with := lay(values, over)
			if err := validate(t, schema, with); err == nil {
				t.Errorf("%s takes %s", path, text)
			}
			if err := validate(t, without, with); err != nil {
				t.Errorf("without %s something else refuses %s: %v", path, text, err)
			}
		}
	}
}

// Whatever has a type refuses a value of another.
func TestEveryTypeIsHeld(t *testing.T) {
	schema := readSchema(t)
	values := readValues(t)
	tried := 0
	var look func(path []string, s map[string]any)
	look = func(path []string, s map[string]any) {
		if ref, ok := s["$ref"].(string); ok {
			s = schema["definitions"].(map[string]any)[strings.TrimPrefix(ref, "#/definitions/")].(map[string]any)
		}
		if len(path) > 0 && path[0] == "global" {
			return // Helm's own, of charts above this one
		}
		if len(path) > 0 {
			tried++
			var other any = []any{"x"}
			if s["type"] == "array" {
				other = "x"
			}
			for i := len(path) - 1; i >= 0; i-- {
				other = map[string]any{path[i]: other}
			}
			if err := validate(t, schema, lay(values, other.(map[string]any))); err == nil {
				t.Errorf("%s takes %v", strings.Join(path, "."), other)
			}
		}
		properties, _ := s["properties"].(map[string]any)
		for name, v := range properties {
			if len(path) == 0 && name == "config" {
				continue
			}
			look(append(slices.Clone(path), name), v.(map[string]any))
		}
	}
	look(nil, schema)
	if tried < 100 {
		t.Errorf("%d values were tried; is the schema read?", tried)
	}
}

func readSchema(t *testing.T) map[string]any {
	t.Helper()
	return readJSON(t, "serval/values.schema.json")
}

func readJSON(t *testing.T, path string) map[string]any {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var object map[string]any
	if err := json.Unmarshal(text, &object); err != nil {
		t.Fatal(err)
	}
	return object
}

func readValues(t *testing.T) map[string]any {
	t.Helper()
	text, err := os.ReadFile("serval/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var values map[string]any
	if err := yaml.Unmarshal(text, &values); err != nil {
		t.Fatal(err)
	}
	return values
}

// lay returns values with others over them, as Helm lays them.
func lay(values, over map[string]any) map[string]any {
	all := maps.Clone(values)
	for name, v := range over {
		below, ok := all[name].(map[string]any)
		if above, both := v.(map[string]any); ok && both {
			v = lay(below, above)
		}
		all[name] = v
	}
	return all
}

// validate says what a schema has against values.
func validate(t *testing.T, schema, values map[string]any) error {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft7)
	if err := c.AddResource("values.schema.json", schema); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("values.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(string(text)))
	if err != nil {
		t.Fatal(fmt.Errorf("reading values back: %w", err))
	}
	return s.Validate(v)
}
