// Package charts holds the chart, and here what it promises: what it renders,
// what it refuses and in which words, and what its pods and policies let happen.
// The tests run helm and nothing else; internal/kubetest installs the chart.
package charts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/kubetest"
)

// Helm reads the chart in a process of its own; read here too, it decides whether
// a result that go test remembers still counts.
func TestMain(m *testing.M) {
	err := filepath.WalkDir("serval", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			_, err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// render runs helm template over the chart.
func render(t *testing.T, args ...string) (manifests string, err error) {
	t.Helper()
	helm := exec.Command(kubetest.Tool(t, "helm"), append([]string{"template", "serval", "serval", "--namespace", "serval"}, args...)...)
	var stderr bytes.Buffer
	helm.Stderr = &stderr
	text, err := helm.Output()
	if err != nil {
		return "", fmt.Errorf("%s", stderr.String())
	}
	return string(text), nil
}

// mustRender renders what has to be rendered, as objects.
func mustRender(t *testing.T, args ...string) []object {
	t.Helper()
	text, err := render(t, args...)
	if err != nil {
		t.Fatalf("helm template %s: %v", strings.Join(args, " "), err)
	}
	return parse(t, text)
}

// An object is one of Kubernetes.
type object map[string]any

func parse(t *testing.T, text string) (objects []object) {
	t.Helper()
	d := yaml.NewDecoder(strings.NewReader(text))
	for {
		var o object
		if err := d.Decode(&o); err != nil {
			break
		}
		if o != nil {
			objects = append(objects, o)
		}
	}
	if len(objects) == 0 {
		t.Fatal("nothing is rendered")
	}
	return objects
}

// at follows a path such as spec.template; nil where there is nothing.
func (o object) at(path string) any {
	var v any = map[string]any(o)
	for key := range strings.SplitSeq(path, ".") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[key]
	}
	return v
}

func (o object) kind() string { return fmt.Sprint(o["kind"]) }
func (o object) name() string { return fmt.Sprint(o.at("metadata.name")) }

// find returns the object of a kind and a name.
func find(t *testing.T, objects []object, kind, name string) object {
	t.Helper()
	i := slices.IndexFunc(objects, func(o object) bool { return o.kind() == kind && o.name() == name })
	if i < 0 {
		t.Fatalf("there is no %s %s", kind, name)
	}
	return objects[i]
}

// examples are the values files that the chart comes with.
func examples(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("serval/examples/*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("the examples: %v, %v", files, err)
	}
	return files
}

// S-103: what each example renders, as it is.
func TestGolden(t *testing.T) {
	for _, file := range examples(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			got, err := render(t, "--values", file)
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", "golden", filepath.Base(file))
			if os.Getenv("UPDATE_GOLDEN") != "" {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestLint(t *testing.T) {
	for _, file := range examples(t) {
		text, err := exec.Command(kubetest.Tool(t, "helm"), "lint", "--strict", "serval", "--values", file).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", file, err, text)
		}
	}
}

// elsewhere is the least that renders.
const elsewhere = "tls.terminatedElsewhere=true"

// S-103: the names that others rely on.
func TestNames(t *testing.T) {
	objects := mustRender(t, "--set", elsewhere)
	bridge, worker := find(t, objects, "Deployment", "serval-bridge"), find(t, objects, "Deployment", "serval-worker")
	container := bridge.at("spec.template.spec.containers").([]any)[0].(map[string]any)
	if container["name"] != "svbridge-api" {
		t.Errorf("the bridge's container is %v, want svbridge-api", container["name"])
	}
	ports := find(t, objects, "Service", "serval-bridge").at("spec.ports").([]any)
	if len(ports) != 1 {
		t.Fatalf("the Service has ports %v, want 80 to 8080 alone", ports)
	}
	if port := ports[0].(map[string]any); fmt.Sprint(port["port"]) != "80" || fmt.Sprint(port["targetPort"]) != "8080" {
		t.Errorf("the Service's port is %v, want 80 to 8080", port)
	}
	if got := worker.at("spec.template.spec.serviceAccountName"); got != "serval-worker-sa" {
		t.Errorf("the worker's service account is %v", got)
	}
	if got := bridge.at("spec.template.spec.serviceAccountName"); got != "serval-bridge" {
		t.Errorf("the bridge's service account is %v", got)
	}
	var accounts, secrets []string
	for _, o := range objects {
		switch o.kind() {
		case "ServiceAccount":
			accounts = append(accounts, o.name())
		case "Secret":
			secrets = append(secrets, o.name())
		}
	}
	if diff := cmp.Diff([]string{"serval-bridge"}, accounts); diff != "" {
		t.Errorf("service accounts that are created, -want +got:\n%s", diff)
	}
	if secrets != nil {
		t.Errorf("Secrets are created: %v", secrets)
	}
	volumes, _ := json.Marshal(bridge.at("spec.template.spec.volumes"))
	if !strings.Contains(string(volumes), `"secretName":"bridge-secrets"`) {
		t.Errorf("bridge-secrets is not mounted: %s", volumes)
	}
}

// What the chart refuses, and the words it has for it.
func TestRefusals(t *testing.T) {
	const (
		tls      = "Port 80 carries credentials, so TLS has to end somewhere."
		sqlite   = "bridge.replicaCount is 2, and SQLite serves one: set bridge.database.type=postgresql"
		postgres = "bridge.database.type=postgresql"
	)
	for _, c := range []struct {
		name string
		set  []string
		want string // within what is said; empty where it renders
	}{
		{"nothing said of TLS", nil, tls},
		{"TLS elsewhere", []string{elsewhere}, ""},
		{"TLS at the bridge", []string{"tls.secretName=x"}, ""},
		{"TLS at the ingress", []string{"ingress.enabled=true", "ingress.tls[0].secretName=x"}, ""},
		{"an ingress without TLS", []string{"ingress.enabled=true"}, tls},
		{"TLS of an ingress that is not there", []string{"ingress.tls[0].secretName=x"}, tls},
		{"an ALB's certificate", []string{"ingress.enabled=true", `ingress.annotations.alb\.ingress\.kubernetes\.io/certificate-arn=arn:aws:acm:x`}, ""},
		{"no bridge, no TLS", []string{"bridge.enabled=false", "worker.upstream.url=https://serval.example.com"}, ""},
		{"two on SQLite", []string{elsewhere, "bridge.replicaCount=2"}, sqlite},
		{"two on PostgreSQL", []string{elsewhere, "bridge.replicaCount=2", postgres}, ""},
		{"all at once", []string{"bridge.replicaCount=2"}, tls + "* - " + sqlite},
		{"a typo", []string{elsewhere, "bridge.replicas=2"}, "additional properties 'replicas' not allowed"},
		{"a typo at the top", []string{elsewhere, "brigde.enabled=true"}, "additional properties 'brigde' not allowed"},
		{"a typo in the configuration", []string{elsewhere, "config.team=a", "config.acounts[0].id=x"}, "additional properties 'acounts' not allowed"},
		{"an account id that is a number", []string{elsewhere, "config.team=a", "config.accounts[0].id=111122223333", "config.accounts[0].name=x", "config.accounts[0].role_arn=x"}, "at '/config/accounts/0/id': got number, want string"},
		{"a setting that is none", []string{elsewhere, "bridge.settings.SERVAL_STS_REGOIN=x"}, "additional properties 'SERVAL_STS_REGOIN' not allowed"},
		{"a secret among the settings", []string{elsewhere, "bridge.settings.SERVAL_SECRET=x"}, "additional properties 'SERVAL_SECRET' not allowed"},
		{"http pages", []string{elsewhere, "bridge.publicUrl=http://serval.example.com"}, "at '/bridge/publicUrl'"},
		{"pages with a path", []string{elsewhere, "bridge.publicUrl=https://serval.example.com/x"}, "at '/bridge/publicUrl'"},
		{"a digest that is none", []string{elsewhere, "bridge.image.digest=latest"}, "at '/bridge/image/digest'"},
		{"too short a grace", []string{elsewhere, "bridge.terminationGracePeriodSeconds=30"}, "at '/bridge/terminationGracePeriodSeconds'"},
		{"plain http without a policy", []string{elsewhere, "networkPolicy.enabled=false"}, "Without networkPolicy.enabled the worker does not speak plain http with the bridge."},
		{"plain http in a mesh", []string{elsewhere, "networkPolicy.enabled=false", "worker.upstream.plaintext=true"}, ""},
		{"https without a policy", []string{"tls.secretName=x", "networkPolicy.enabled=false"}, ""},
		{"plain http elsewhere", []string{elsewhere, "worker.upstream.url=http://bridge.example.com"}, "worker.upstream.url is http"},
		{"a worker, for a bridge of another release", []string{"bridge.enabled=false"}, ""},
		{"a bridge, for a worker of another release", []string{elsewhere, "worker.enabled=false"}, ""},
		{"nothing at all", []string{"bridge.enabled=false", "worker.enabled=false"}, "there is nothing to install"},
		{"one service account for both", []string{elsewhere, "bridge.serviceAccount.name=serval-worker-sa"}, "the bridge must not have the worker's AWS role"},
		{"annotations of nothing", []string{elsewhere, "worker.serviceAccount.annotations.a=b"}, "set worker.serviceAccount.create=true, or annotate serval-worker-sa yourself"},
		{"a load balancer that lets the internet in", []string{elsewhere, "bridge.service.type=LoadBalancer", "bridge.service.loadBalancerClass=service.k8s.aws/nlb"}, "nothing says that the internet is not let in"},
		{"an internal load balancer", []string{elsewhere, "bridge.service.type=LoadBalancer", `bridge.service.annotations.service\.beta\.kubernetes\.io/aws-load-balancer-scheme=internal`}, ""},
		{"a load balancer for a network", []string{elsewhere, "bridge.service.type=LoadBalancer", "bridge.service.loadBalancerSourceRanges={10.8.0.0/16}"}, ""},
		{"a load balancer of no bridge", []string{"bridge.enabled=false", "bridge.service.type=LoadBalancer"}, ""},
		{"more than a tag", []string{elsewhere, "image.tag=1\n          command: [sh]"}, "at '/image/tag'"},
		{"more than a class of an ingress", []string{elsewhere, "ingress.className=x\n  rules: []"}, "at '/ingress/className'"},
		{"more than a host", []string{elsewhere, "ingress.hosts[0]=x.example.com\n    - host: y"}, "at '/ingress/hosts/0'"},
		{"more than a class of a load balancer", []string{elsewhere, "bridge.service.loadBalancerClass=x\n  externalIPs: [192.0.2.1]"}, "at '/bridge/service/loadBalancerClass'"},
		{"a limit of memory that nine tenths cannot be taken of", []string{elsewhere, "bridge.resources.limits.memory=512m", "worker.resources.limits.memory=4e8"}, "bridge.resources.limits.memory is 512m: write it as 512Mi*worker.resources.limits.memory is 4e8: write it as 512Mi"},
		{"two configurations", []string{elsewhere, "config.team=a", "bridge.existingConfigMap=x"}, "config and bridge.existingConfigMap are both set"},
		{"an ingress without a bridge", []string{"bridge.enabled=false", "worker.upstream.url=https://x.example.com", "ingress.enabled=true"}, "there is nothing behind it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var args []string
			for _, s := range c.set {
				args = append(args, "--set", s)
			}
			_, err := render(t, args...)
			switch {
			case c.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.want != "" && err == nil:
				t.Errorf("rendered, want %q", c.want)
			case c.want != "":
				rest := err.Error()
				for part := range strings.SplitSeq(c.want, "*") {
					_, after, found := strings.Cut(rest, part)
					if !found {
						t.Errorf("%q is not said:\n%v", part, err)
					}
					rest = after
				}
			}
		})
	}
}

// What would be another thing in YAML than the text that it is comes as text.
func TestTextsAreTexts(t *testing.T) {
	objects := mustRender(t, "--set", "ingress.enabled=true,ingress.tls[0].secretName=x,ingress.hosts={*.example.com}",
		"--set", "bridge.service.type=LoadBalancer", "--set-string", `bridge.service.annotations.service\.beta\.kubernetes\.io/aws-load-balancer-internal=true`,
		"--set-string", "ingress.className=1,bridge.service.loadBalancerClass=true,image.tag=1.10")
	ingress, service := find(t, objects, "Ingress", "serval-bridge"), find(t, objects, "Service", "serval-bridge")
	rule := object(ingress.at("spec.rules").([]any)[0].(map[string]any))
	image := find(t, objects, "Deployment", "serval-bridge").at("spec.template.spec.containers").([]any)[0].(map[string]any)["image"]
	for _, c := range []struct{ got, want any }{
		{ingress.at("spec.ingressClassName"), "1"}, {rule["host"], "*.example.com"}, {service.at("spec.loadBalancerClass"), "true"}, {image, "serval-bridge:1.10"},
	} {
		if c.got != c.want {
			t.Errorf("got %#v, want %#v", c.got, c.want)
		}
	}
}

// An Ingress speaks with the bridge as the bridge serves.
func TestIngressPort(t *testing.T) {
	for set, want := range map[string]string{"tls.terminatedElsewhere=true": "http", "tls.secretName=x": "https"} {
		rules := find(t, mustRender(t, "--set", "ingress.enabled=true", "--set", set), "Ingress", "serval-bridge").at("spec.rules").([]any)
		paths := object(rules[0].(map[string]any)).at("http.paths").([]any)
		if got := object(paths[0].(map[string]any)).at("backend.service.port.name"); got != want {
			t.Errorf("with %s it is sent to port %v, want %s", set, got, want)
		}
	}
}

// The chart's schema has the configuration file's, word for word.
func TestConfigSchema(t *testing.T) {
	// Helm's dialect has definitions, and the chart has others among them.
	var moved func(v any) any
	moved = func(v any) any {
		switch v := v.(type) {
		case map[string]any:
			m := map[string]any{}
			for k, x := range v {
				m[k] = moved(x)
				if ref, ok := x.(string); ok && k == "$ref" {
					m[k] = strings.Replace(ref, "#/$defs/", "#/definitions/config.", 1)
				}
			}
			return m
		case []any:
			list := make([]any, len(v))
			for i, x := range v {
				list[i] = moved(x)
			}
			return list
		}
		return v
	}
	want := moved(readJSON(t, "../api/config.schema.json")).(map[string]any)
	definitions := readSchema(t)["definitions"].(map[string]any)
	got := map[string]any{"properties": definitions["config"].(map[string]any)["properties"]}
	all := map[string]any{"properties": want["properties"]}
	for name, v := range want["$defs"].(map[string]any) {
		all[name], got[name] = v, definitions["config."+name]
	}
	if diff := cmp.Diff(all, got); diff != "" {
		t.Errorf("api/config.schema.json and the chart's, -want +got:\n%s", diff)
	}
}

// Every value is in the schema, and the other way round: a key that is in one
// alone could not be set, or would do nothing.
func TestValuesHaveASchema(t *testing.T) {
	values, schema := readValues(t), readSchema(t)
	definitions := schema["definitions"].(map[string]any)
	var compare func(path string, values, schema map[string]any)
	compare = func(path string, values, schema map[string]any) {
		if ref, ok := schema["$ref"].(string); ok {
			schema = definitions[strings.TrimPrefix(ref, "#/definitions/")].(map[string]any)
		}
		properties, ok := schema["properties"].(map[string]any)
		if !ok || len(values) == 0 {
			return // a map of anything, or one that begins empty
		}
		if schema["additionalProperties"] != false {
			t.Errorf("%s takes any key", path)
		}
		for name := range properties {
			if _, there := values[name]; !there && path+name != ".global" {
				t.Errorf("%s%s is in the schema alone", path, name)
			}
		}
		for name, v := range values {
			p, there := properties[name].(map[string]any)
			if !there {
				t.Errorf("%s%s is in the values alone", path, name)
				continue
			}
			if m, ok := v.(map[string]any); ok {
				compare(path+name+".", m, p)
			}
		}
	}
	compare(".", values, schema)
}

// The chart's README is written from its values (make chart-docs), so every value
// and what is said of it are there.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("serval/README.md")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("serval/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	said := 0
	for line := range strings.Lines(string(text)) {
		if comment, ok := strings.CutPrefix(strings.TrimSpace(line), "# -- "); ok {
			said++
			if !strings.Contains(string(readme), " | "+comment) {
				t.Errorf("the README does not say %q: run make chart-docs", comment)
			}
		}
	}
	if rows := strings.Count(string(readme), "\n| `"); rows != said || said < 100 {
		t.Errorf("the README has %d values, and the chart %d: run make chart-docs", rows, said)
	}
}
