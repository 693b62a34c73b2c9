// Package terraform holds the modules, and here what they promise. The real AWS
// provider is not at hand: the modules are evaluated, and their own tests run,
// over a provider that has nothing but the AWS provider's names and types, as
// npm's generated bindings have them (testdata/aws-schema.json; make
// terraform-schema compares it).
package terraform

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/connect"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/trust"
)

var modules = []string{"worker", "account", "role"}

// tool returns Terraform, with the stand-in for the AWS provider.
func tool(t *testing.T) (run func(dir string, args ...string) (string, error)) {
	t.Helper()
	path, err := exec.LookPath("terraform")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("there is no terraform, 1.7 or later")
		}
		t.Skip("there is no terraform")
	}
	dir := t.TempDir()
	build := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, "terraform-provider-aws"), ".")
	build.Dir = "testdata/provider"
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the provider: %v\n%s", err, text)
	}
	schema, err := filepath.Abs("testdata/aws-schema.json")
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "terraformrc")
	text := fmt.Sprintf("disable_checkpoint = true\nprovider_installation {\n  dev_overrides {\n    \"hashicorp/aws\" = %q\n  }\n}\n", dir)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return func(module string, args ...string) (string, error) {
		c := exec.Command(path, args...)
		c.Dir = module
		c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TF_CLI_CONFIG_FILE=" + config, "TF_IN_AUTOMATION=1", "AWS_SCHEMA=" + schema, "TF_DATA_DIR=" + filepath.Join(dir, "data")}
		out, err := c.CombinedOutput()
		return string(out), err
	}
}

// The modules' own tests, and their form.
func TestModules(t *testing.T) {
	run := tool(t)
	if out, err := run(".", "fmt", "-check", "-recursive", "-diff"); err != nil {
		t.Errorf("terraform fmt: %v\n%s", err, out)
	}
	for _, module := range modules {
		t.Run(module, func(t *testing.T) {
			if out, err := run(module, "validate", "-no-color"); err != nil {
				t.Errorf("terraform validate: %v\n%s", err, out)
			}
			out, err := run(module, "test", "-no-color")
			if err != nil {
				t.Errorf("terraform test: %v\n%s", err, out)
			}
			for line := range strings.Lines(out) {
				if strings.HasPrefix(line, "Success!") || strings.HasPrefix(line, "  run ") {
					t.Log(strings.TrimSpace(line))
				}
			}
		})
	}
}

// tflint, with the rules that it has in itself: those for AWS are a plugin, which
// is not at hand.
func TestLint(t *testing.T) {
	path := os.Getenv("TEST_TFLINT")
	if path == "" {
		const missing = "TEST_TFLINT names no tflint: run make test-terraform"
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	lint := func(dir string) (string, error) {
		c := exec.Command(path, "--chdir="+dir, "--no-color")
		c.Env = []string{"HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH")} // nobody's own rules
		out, err := c.CombinedOutput()
		return string(out), err
	}
	examples, err := filepath.Glob("examples/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range append(slices.Clone(modules), examples...) {
		if out, err := lint(dir); err != nil {
			t.Errorf("%s: %v\n%s", dir, err, out)
		}
	}
	faulty := t.TempDir()
	if err := os.WriteFile(filepath.Join(faulty, "main.tf"), []byte("variable \"unused\" {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := lint(faulty); err == nil || !strings.Contains(out, "terraform_unused_declarations") {
		t.Errorf("what is declared and not used: %v\n%s", err, out)
	}
}

// The examples fit the modules.
func TestExamples(t *testing.T) {
	run := tool(t)
	examples, err := filepath.Glob("examples/*")
	if err != nil || len(examples) != 3 {
		t.Fatalf("examples are %v, %v", examples, err)
	}
	for _, example := range examples {
		if out, err := run(example, "get", "-no-color"); err != nil {
			t.Errorf("%s: terraform get: %v\n%s", example, err, out)
		}
		if out, err := run(example, "validate", "-no-color"); err != nil {
			t.Errorf("%s: terraform validate: %v\n%s", example, err, out)
		}
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// What the module's tests compare with is what the bridge shows to paste.
func TestAccountIsWhatTheBridgeShows(t *testing.T) {
	const externalID = "3f7a1c0e5b9d2846a0c4e8f1b3d5079e6a2c4f8b1d3e5079a6c8e0f2b4d61728"
	for path, want := range map[string]string{
		"account/tests/trust.json":       connect.TrustPolicy(serval.PartitionAWS, "999988887777", externalID),
		"account/tests/permissions.json": connect.PermissionPolicy(),
	} {
		if os.Getenv("UPDATE_GOLDEN") != "" {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(want, string(read(t, path))); diff != "" {
			t.Errorf("%s, -want +got:\n%s", path, diff)
		}
	}
}

// The StackSet's template makes the role that the bridge's own template makes.
func TestStackSet(t *testing.T) {
	var template, shown struct {
		Parameters map[string]struct {
			Default *string `yaml:"Default"`
		} `yaml:"Parameters"`
		Resources map[string]struct {
			Properties map[string]any `yaml:"Properties"`
		} `yaml:"Resources"`
	}
	// The functions of CloudFormation, as the values that they stand for.
	text := regexp.MustCompile(`!Sub "([^"]*)"`).ReplaceAllString(string(read(t, "account/stackset.yaml")), `"$1"`)
	text = strings.NewReplacer("${AWS::Partition}", "aws", "${TrustedAccountId}", "999988887777", "!Ref ExternalId", "an-external-id", "!Ref RoleName", connect.DefaultRole).Replace(text)
	text = regexp.MustCompile(`!(Not|Equals|Ref|GetAtt) `).ReplaceAllString(text, "")
	if err := yaml.Unmarshal([]byte(text), &template); err != nil {
		t.Fatal(err)
	}
	bridges := connect.CloudFormation(connect.Role{Partition: serval.PartitionAWS, TrustedAccount: "999988887777", ExternalID: "an-external-id"})
	if err := yaml.Unmarshal([]byte(strings.ReplaceAll(bridges, "!GetAtt ", "")), &shown); err != nil {
		t.Fatal(err)
	}
	got, want := template.Resources["Ingestion"].Properties, shown.Resources["ServalIngestion"].Properties
	for _, property := range []string{"RoleName", "AssumeRolePolicyDocument", "Policies"} {
		if diff := cmp.Diff(want[property], got[property]); diff != "" || got[property] == nil {
			t.Errorf("%s, -want +got:\n%s", property, diff)
		}
	}
	for _, name := range []string{"TrustedAccountId", "ExternalId"} {
		if p, ok := template.Parameters[name]; !ok || p.Default != nil {
			t.Errorf("parameter %s has to be given", name)
		}
	}
}

// S-114: what the worker may is to assume roles; who may be the worker is one
// service account of one cluster.
func TestWorkersPolicies(t *testing.T) {
	type statement struct {
		Effect           string
		Action, Resource any
		Condition        map[string]map[string]any
	}
	type policy struct{ Statement []statement }
	var trust, anything, tight policy
	for path, into := range map[string]*policy{"worker/tests/trust.json": &trust, "worker/tests/any.json": &anything, "worker/tests/tight.json": &tight} {
		if err := json.Unmarshal(read(t, path), into); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"aws:RequestTag/eks-cluster-arn", "aws:RequestTag/kubernetes-namespace", "aws:RequestTag/kubernetes-service-account"} {
		if trust.Statement[0].Condition["StringEquals"][key] == nil {
			t.Errorf("the trust policy does not ask for %s", key)
		}
	}
	for name, p := range map[string]policy{"any role": anything, "the tighter variant": tight} {
		if len(p.Statement) != 1 || fmt.Sprint(p.Statement[0].Action) != "[sts:AssumeRole sts:TagSession]" {
			t.Errorf("%s: %+v, want sts:AssumeRole and sts:TagSession alone", name, p)
		}
	}
	if fmt.Sprint(anything.Statement[0].Resource) != "[*]" || slices.Contains(tight.Statement[0].Resource.([]any), any("*")) || tight.Statement[0].Condition == nil {
		t.Errorf("resources are %v and %v", anything.Statement[0].Resource, tight.Statement[0].Resource)
	}
}

// S-87, S-114: each right that a module or the StackSet gives is for a call that the
// worker makes, and each of its calls has its right.
func TestEachRightIsUsed(t *testing.T) {
	find := func(pattern string, files ...string) map[string]bool {
		all := map[string]bool{}
		for _, glob := range files {
			paths, err := filepath.Glob(glob)
			if err != nil || len(paths) == 0 {
				t.Fatalf("%s: %v, %v", glob, paths, err)
			}
			for _, path := range paths {
				if strings.HasSuffix(path, "_test.go") {
					continue
				}
				for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(read(t, path)), -1) {
					all[m[1]+":"+m[2]] = true
				}
			}
		}
		return all
	}
	given := find(`"(iam|sts|organizations):([A-Z]\w+)"`, "worker/main.tf", "account/main.tf", "account/stackset.yaml")
	for _, key := range []string{"sts:ExternalId", "iam:PermissionsBoundary"} {
		delete(given, key) // of conditions
	}
	called := find(`\b(iam|sts|organizations)\.([A-Z]\w+)Input\{`, "../internal/awsiam/*.go", "../internal/awsorg/*.go")
	called["sts:TagSession"] = true                // comes with AssumeRole, for the tags of Pod Identity
	called["sts:AssumeRoleWithWebIdentity"] = true // IRSA's, by the SDK
	if diff := cmp.Diff(called, given); diff != "" {
		t.Errorf("calls and rights, -called +given:\n%s", diff)
	}
}

// What the module role writes is judged as the bridge judges it: it accepts the
// bridge's people, and where it is pinned nobody who comes from elsewhere.
func TestRolesTrust(t *testing.T) {
	const provider = "arn:aws:iam::111122223333:oidc-provider/acme.okta.com/oauth2/default"
	for _, c := range []struct {
		file, audience, ip, endpoint string
		want                         string
	}{
		{"trust", "0oa1example", "203.0.113.7", "", trust.Works},
		{"trust", "another", "203.0.113.7", "", trust.Fails},
		{"pinned", "0oa1example", "203.0.113.7", "", trust.Works},
		{"pinned", "0oa1example", "198.51.100.1", "", trust.Fails},
		{"endpoint", "0oa1example", "", "vpce-0123456789abcdef0", trust.Works},
		{"endpoint", "0oa1example", "", "vpce-11111111111111111", trust.Fails},
		{"endpoint", "0oa1example", "203.0.113.7", "", trust.Fails},
	} {
		policy, err := trust.Parse(serval.Document(read(t, "role/tests/"+c.file+".json")))
		if err != nil {
			t.Fatal(err)
		}
		person := map[string]any{
			"action": "sts:AssumeRoleWithWebIdentity", "role_arn": "arn:aws:iam::111122223333:role/dev-payments", "issuer": "https://acme.okta.com/oauth2/default",
			"provider_arn": provider, "audience": c.audience, "subject": "00u1", "email": "ana@example.com", "session_name": "ana@example.com",
			"source_ip": nil, "source_vpce": nil, "amr": nil, "azp": nil, "passes_tags": false, "transitive_tags": false, "source_identity": nil, "now": "2026-03-01T12:00:00Z",
		}
		if c.ip != "" {
			person["source_ip"] = c.ip
		}
		if c.endpoint != "" {
			person["source_vpce"] = c.endpoint
		}
		text, err := json.Marshal(person)
		if err != nil {
			t.Fatal(err)
		}
		context, err := trust.ParseContext(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := policy.Judge(context); got.Verdict != c.want {
			t.Errorf("%s, for %s from %s%s: %s (%s), want %s", c.file, c.audience, c.ip, c.endpoint, got.Verdict, got.Reason, c.want)
		}
	}
}

// Every variable and output says what it is, and every variable of which.
func TestDocumented(t *testing.T) {
	block := regexp.MustCompile(`(?ms)^(variable|output) "(\w+)" \{\n(.*?)^\}`)
	for _, module := range modules {
		for _, file := range []string{"variables.tf", "outputs.tf"} {
			for _, m := range block.FindAllStringSubmatch(string(read(t, filepath.Join(module, file))), -1) {
				if !strings.Contains(m[3], "description = ") || m[1] == "variable" && !regexp.MustCompile(`(?m)^  type +=`).MatchString(m[3]) {
					t.Errorf("%s: %s %s has no description or no type", module, m[1], m[2])
				}
			}
		}
	}
}
