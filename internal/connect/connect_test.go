package connect

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
)

// A member account, and one whose every text tries to be something else.
var (
	member = Role{
		Partition: "aws", TrustedAccount: "999988887777", ExternalID: "external-id-of-the-team",
		Name: "reader", Path: "/serval/", AccountID: "111122223333", AccountName: "Production (EU)",
	}
	hostile = Role{
		Partition: "aws", TrustedAccount: `1"${file("/etc/passwd")}`, ExternalID: "a\"b\\c${x}%{if}$${y}\n# \u2028\u0085\U0001f600\x7f: - !Ref {}",
		Name: "x\"\n}", Path: "/${path}/", AccountID: "1\nresource", AccountName: "a\nb\u2028c\u0085d\u202ee \"${f}\" 'g' #",
	}
)

// What an admin pastes is a golden file: it changes only on purpose.
func TestTexts(t *testing.T) {
	for name, got := range map[string]string{
		"trust.json":       TrustPolicy("aws", "999988887777", "external-id-of-the-team"),
		"trust-china.json": TrustPolicy("aws-cn", "999988887777", `a"b`),
		"permissions.json": PermissionPolicy(),

		"role.tf":           Terraform(member),
		"role.yaml":         CloudFormation(member),
		"role-new.tf":       Terraform(Role{Partition: "aws", TrustedAccount: "999988887777", ExternalID: "external-id-of-the-team"}),
		"role-hostile.tf":   Terraform(hostile),
		"role-hostile.yaml": CloudFormation(hostile),
	} {
		t.Run(name, func(t *testing.T) {
			if strings.HasSuffix(name, ".json") && !json.Valid([]byte(got)) {
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

// The template says what the policies say, whatever the names are: it is read
// back by a reader of YAML. S-79
func TestCloudFormationSaysWhatThePoliciesSay(t *testing.T) {
	for _, r := range []Role{member, hostile} {
		var template struct {
			Resources map[string]struct {
				Properties struct {
					RoleName                 string
					Path                     string
					AssumeRolePolicyDocument any
					Policies                 []struct{ PolicyDocument any }
				}
			}
		}
		var read any
		err := yaml.Unmarshal([]byte(strings.ReplaceAll(CloudFormation(r), "!GetAtt ", "")), &read)
		if text, wrong := json.Marshal(read); err == nil && wrong == nil {
			err = json.Unmarshal(text, &template)
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, CloudFormation(r))
		}
		role := template.Resources["ServalIngestion"].Properties
		if role.RoleName != r.Name || role.Path != r.Path || len(role.Policies) != 1 {
			t.Fatalf("the role is %q %q, want %q %q", role.RoleName, role.Path, r.Name, r.Path)
		}
		for _, pair := range []struct {
			got  any
			want string
		}{
			{role.AssumeRolePolicyDocument, TrustPolicy(r.Partition, r.TrustedAccount, r.ExternalID)},
			{role.Policies[0].PolicyDocument, PermissionPolicy()},
		} {
			var want any
			if err := json.Unmarshal([]byte(pair.want), &want); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, pair.got); diff != "" {
				t.Errorf("template (-policy +template):\n%s", diff)
			}
		}
	}
}

// terraform runs the real one over a text, where it is at hand.
func terraform(t *testing.T, input string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("terraform")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("terraform is needed on the PATH")
		}
		t.Skip("no terraform on the PATH")
	}
	settings := filepath.Join(t.TempDir(), "terraformrc")
	if err := os.WriteFile(settings, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	run := exec.CommandContext(t.Context(), path, args...)
	run.Dir, run.Stdin = t.TempDir(), strings.NewReader(input)
	run.Env = append(os.Environ(), "TF_CLI_CONFIG_FILE="+settings, "CHECKPOINT_DISABLE=1")
	out, err := run.CombinedOutput()
	if err != nil {
		t.Fatalf("terraform %v: %v\n%s\n%s", args, err, out, input)
	}
	return string(out)
}

// terraform fmt finds nothing to change, and nothing that is no HCL.
func TestTerraformIsFormatted(t *testing.T) {
	for _, r := range []Role{member, hostile, {Partition: "aws-cn", TrustedAccount: "999988887777", ExternalID: "x"}} {
		text := Terraform(r)
		if diff := cmp.Diff(terraform(t, text, "fmt", "-no-color", "-"), text); diff != "" {
			t.Errorf("not as terraform fmt writes it (-fmt +ours):\n%s", diff)
		}
	}
}

// Every text is the same text again when Terraform has read it.
func TestTerraformReadsWhatWasMeant(t *testing.T) {
	texts := []string{hostile.ExternalID, hostile.AccountName, "%%{x}", "$", "%", "$$${a}", `\${a}`, "\x00\x1f\u00a0\u200b", "{}$", "\U000e0001"}
	var asked []string
	for _, text := range texts {
		asked = append(asked, hcl(text))
	}
	answer := strings.TrimSpace(terraform(t, "jsonencode(["+strings.Join(asked, ", ")+"])\n", "console"))
	var got []string
	shown, err := strconv.Unquote(answer)
	if err == nil {
		err = json.Unmarshal([]byte(shown), &got)
	}
	if diff := cmp.Diff(texts, got); err != nil || diff != "" {
		t.Errorf("%v; read (-meant +read):\n%s", err, diff)
	}
}

// Whatever the texts are, a comment is one line and nothing leaves its string.
func FuzzTexts(f *testing.F) {
	f.Add(hostile.AccountName, hostile.ExternalID)
	f.Add("prod", "x")
	f.Fuzz(func(t *testing.T, name, id string) {
		if !utf8.ValidString(name) || !utf8.ValidString(id) {
			return // no account has such a text
		}
		plain, odd := member, member
		plain.AccountName, plain.ExternalID = "x", "x"
		odd.AccountName, odd.ExternalID = name, id
		for _, text := range []func(Role) string{Terraform, CloudFormation} {
			want, got := text(plain), text(odd)
			if a, b := lines(want), lines(got); a != b {
				t.Errorf("%d lines, want %d:\n%s", b, a, got)
			}
		}
		if text := hcl(id); strings.ContainsFunc(text, func(c rune) bool { return !strconv.IsGraphic(c) }) || !whole.MatchString(text) || template.MatchString(text) {
			t.Errorf("%q is no string of HCL", text)
		}
	})
}

// whole is one string of HCL, and template what must not begin in it.
var (
	whole    = regexp.MustCompile(`^"(\\.|[^"\\])*"$`)
	template = regexp.MustCompile(`(^|[^$])\$\{|(^|[^%])%\{`)
)

// lines counts lines as whoever takes the most characters for an end of one.
func lines(text string) (n int) {
	for _, c := range text {
		if strings.ContainsRune("\n\r\v\f\u0085\u2028\u2029", c) {
			n++
		}
	}
	return n
}
