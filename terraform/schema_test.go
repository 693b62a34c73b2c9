package terraform

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// used are the resources of the AWS provider that modules and examples have.
var used = []string{
	"aws_iam_role", "aws_iam_role_policy", "aws_iam_role_policy_attachment", "aws_iam_openid_connect_provider",
	"aws_eks_pod_identity_association", "aws_cloudformation_stack_set", "aws_cloudformation_stack_set_instance",
	"aws_cloudwatch_event_rule", "aws_cloudwatch_event_target",
}

// A schema is what the provider calls its resources' attributes, and their types.
type schema struct {
	Provider  string              `json:"provider"`
	Resources map[string]resource `json:"resources"`
}

type resource struct {
	Attributes map[string]attribute `json:"attributes"`
	Blocks     map[string]resource  `json:"blocks,omitempty"`
}

type attribute struct {
	Type     string `json:"type"` // string, number, bool, list, map
	Required bool   `json:"required,omitempty"`
	Computed bool   `json:"computed,omitempty"` // the provider's alone
}

// The schema that the modules are evaluated over is that of the AWS provider, as
// its bindings on npm are generated from it. It runs where TEST_BINDINGS names the
// folder of the package @cdktf/provider-aws: make terraform-schema.
func TestSchemaIsTheProviders(t *testing.T) {
	bindings := os.Getenv("TEST_BINDINGS")
	if bindings == "" {
		t.Skip("this needs the bindings of the AWS provider, 400 MB: run make terraform-schema")
	}
	got := schema{Resources: map[string]resource{}}
	version := regexp.MustCompile(`hashicorp/aws/([0-9.]+)/docs`)
	for _, name := range used {
		text := string(read(t, filepath.Join(bindings, "lib", strings.ReplaceAll(strings.TrimPrefix(name, "aws_"), "_", "-"), "index.d.ts")))
		if !strings.Contains(text, `tfResourceType = "`+name+`"`) {
			t.Fatalf("%s is not where it should be", name)
		}
		got.Provider = version.FindStringSubmatch(text)[1]
		root := regexp.MustCompile(`(?m)^export interface (\w+)Config extends`).FindStringSubmatch(text)[1]
		got.Resources[name] = parse(t, text, root+"Config", root)
	}
	const path = "testdata/aws-schema.json"
	if os.Getenv("UPDATE_GOLDEN") != "" {
		out, err := json.MarshalIndent(got, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(out, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var want schema
	if err := json.Unmarshal(read(t, path), &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s and the bindings, -want +got:\n%s", path, diff)
	}
	attributes := 0
	for _, r := range got.Resources {
		attributes += len(r.Attributes)
	}
	t.Logf("provider %s: %d resources, %d attributes", got.Provider, len(got.Resources), attributes)
}

// parse reads an interface of the bindings: what can be set; and of the class, if
// there is one, what the provider alone sets.
func parse(t *testing.T, text, of, class string) resource {
	t.Helper()
	r := resource{Attributes: map[string]attribute{}}
	body := regexp.MustCompile(`(?ms)^export interface ` + of + `\b[^{]*\{\n(.*?)^\}`).FindStringSubmatch(text)
	if body == nil {
		t.Fatalf("there is no interface %s", of)
	}
	camel := map[string]bool{}
	property := regexp.MustCompile(`(?s)#(\w+) \w+#\w+\}\s*\*/\s*readonly (\w+)(\??): (.*);`)
	for part := range strings.SplitSeq(body[1], "/**") {
		m := property.FindStringSubmatch(part)
		if m == nil {
			continue
		}
		name, required, kind := m[1], m[3] == "", strings.Join(strings.Fields(m[4]), " ")
		camel[m[2]] = true
		if block := regexp.MustCompile(`^(?:cdktf\.IResolvable \| )?(\w+)(?:\[\])?(?: \| cdktf\.IResolvable)?$`).FindStringSubmatch(kind); block != nil && typeOf(kind) == "" {
			if r.Blocks == nil {
				r.Blocks = map[string]resource{}
			}
			r.Blocks[name] = parse(t, text, block[1], "")
			continue
		}
		if typeOf(kind) == "" {
			t.Fatalf("%s.%s is a %q", of, name, kind)
		}
		r.Attributes[name] = attribute{Type: typeOf(kind), Required: required}
	}
	if class == "" {
		return r
	}
	body = regexp.MustCompile(`(?ms)^export declare class ` + class + ` extends[^{]*\{\n(.*?)^\}`).FindStringSubmatch(text)
	for _, m := range regexp.MustCompile(`(?m)^    get (\w+)\(\): ([^;{]+);`).FindAllStringSubmatch(body[1], -1) {
		kind := typeOf(strings.TrimPrefix(m[2], "cdktf.StringMap"))
		if strings.HasPrefix(m[2], "cdktf.StringMap") {
			kind = "map"
		}
		if name := snake(m[1]); !camel[m[1]] && !strings.HasSuffix(m[1], "Input") && kind != "" {
			r.Attributes[name] = attribute{Type: kind, Computed: true}
		}
	}
	return r
}

func typeOf(kind string) string {
	switch kind {
	case "string", "number":
		return kind
	case "boolean | cdktf.IResolvable", "cdktf.IResolvable":
		return "bool"
	case "string[]":
		return "list"
	case "{ [key: string]: string; }":
		return "map"
	}
	return ""
}

func snake(name string) string {
	return strings.ToLower(regexp.MustCompile(`([A-Z])`).ReplaceAllString(name, "_$1"))
}
