package bridge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/serval-bridge/serval-bridge/api"
)

// full has every key of the configuration file, and a value of each kind.
const full = `{"team": "acme", "revision": 7,
"accounts": [{"id": "111122223333", "name": "prod", "role_arn": "r", "partition": "aws-cn", "external_id": "e1", "via": [{"role_arn": "v", "external_id": "e2"}],
  "default_region": "us-west-1", "sts": {"region": "us-west-1", "endpoint": "https://x", "dial": "x:1", "http_proxy": "http://x"}, "workflow_role_arn": "w"}],
"access_policies": [{"name": "p", "roles": {"accounts": ["111122223333"], "arns": ["*"], "tags": {"team": "x", "12": "y"}}, "eligible": {"groups": ["g"], "emails": ["a@b"]},
  "approval": {"automatic": true, "steps": [{"groups": ["s"]}]}, "max_minutes": 480, "max_total_minutes": 900, "recommended_minutes": 60, "require_justification": true,
  "allow_self_approval": false, "allow_chaining": true, "break_glass": false, "suspend_on_escalation": true}],
"admins": {"groups": ["a"]}, "auditors": {"emails": ["b@c"]},
"upstream_tokens": [{"name": "hub", "accounts": ["111122223333"], "secret_file": "/f"}],
"networks": [{"name": "office", "cidrs": ["203.0.113.0/24"]}]}`

// The form finds what a library finds that knows all of JSON Schema: with each value
// of a whole file taken away, another in its place, or a key beside it.
func TestFormIsTheSchemas(t *testing.T) {
	schema, known := compiled(t), 0
	hold := func(text []byte) {
		t.Helper()
		want := byLibrary(t, schema, text)
		var got []string
		if err := configuration().check(text, func(path, format string, args ...any) {
			got = append(got, path+": "+fmt.Sprintf(format, args...))
		}); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-library +form):\n%s", text, diff)
		}
		known += len(got)
	}
	hold([]byte(full))
	if known != 0 {
		t.Fatalf("%d faults in a file that has none", known)
	}
	others := []any{nil, true, "", "x", "é", strings.Repeat("é", 100), strings.Repeat("é", 101), strings.Repeat("x", 1225), "aws", "11112222333", "1111222233334", "1111 2222 33",
		json.Number("0"), json.Number("1"), json.Number("-1"), json.Number("1.0"), json.Number("1e0"), json.Number("1.5"), json.Number("43200"), json.Number("43201"),
		json.Number("9007199254740991"), json.Number("9007199254740993"), json.Number("1e300"), []any{}, []any{"x"}, []any{nil}, map[string]any{}, map[string]any{"x": nil}}
	var whole any
	d := json.NewDecoder(strings.NewReader(full))
	d.UseNumber()
	if err := d.Decode(&whole); err != nil {
		t.Fatal(err)
	}
	tell := func() {
		t.Helper()
		text, err := json.Marshal(whole)
		if err != nil {
			t.Fatal(err)
		}
		hold(text)
	}
	// walk tries each in the place of v, which set changes, and within.
	var walk func(v any, set func(any))
	walk = func(v any, set func(any)) {
		for _, other := range others {
			set(other)
			tell()
		}
		set(v)
		switch v := v.(type) {
		case map[string]any:
			v["another"] = "x"
			tell()
			v["more"] = nil
			tell()
			delete(v, "another")
			delete(v, "more")
			var names []string
			for name := range v {
				names = append(names, name)
			}
			for _, name := range names {
				was := v[name]
				delete(v, name)
				tell()
				v[name] = was
				walk(was, func(x any) { v[name] = x })
			}
		case []any:
			set(append(slices.Clone(v), v[0]))
			tell()
			set(v)
			walk(v[0], func(x any) { v[0] = x })
		}
	}
	walk(whole, func(x any) { whole = x })
	if known < 1000 {
		t.Errorf("only %d faults were found: the test does not try much", known)
	}
}

func compiled(t testing.TB) *jsonschema.Schema {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(api.ConfigSchema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("config.schema.json", document); err != nil {
		t.Fatal(err)
	}
	return c.MustCompile("config.schema.json")
}

// byLibrary returns the faults that the library finds, sorted.
func byLibrary(t testing.TB, schema *jsonschema.Schema, text []byte) (faults []string) {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	var faulty *jsonschema.ValidationError
	if err := schema.Validate(value); !errors.As(err, &faulty) {
		return nil
	}
	english := message.NewPrinter(language.English)
	var walk func(e *jsonschema.ValidationError)
	walk = func(e *jsonschema.ValidationError) {
		for _, cause := range e.Causes {
			walk(cause)
		}
		path := "$"
		at := value
		for _, part := range e.InstanceLocation {
			switch v := at.(type) {
			case map[string]any:
				path, at = path+"."+part, v[part]
			case []any:
				var n int
				if _, err := fmt.Sscan(part, &n); err != nil {
					t.Fatal(err)
				}
				path, at = path+"["+part+"]", v[n]
			}
		}
		switch k := e.ErrorKind.(type) {
		case *kind.AdditionalProperties:
			for _, name := range k.Properties {
				faults = append(faults, path+"."+name+": no such key")
			}
		case *kind.Minimum: // as the file has them, and not as the English write them
			faults = append(faults, fmt.Sprintf("%s: minimum: got %s, want %s", path, at, k.Want.RatString()))
		case *kind.Maximum:
			faults = append(faults, fmt.Sprintf("%s: maximum: got %s, want %s", path, at, k.Want.RatString()))
		case *kind.MinLength:
			faults = append(faults, fmt.Sprintf("%s: minLength: got %d, want %d", path, k.Got, k.Want))
		case *kind.MaxLength:
			faults = append(faults, fmt.Sprintf("%s: maxLength: got %d, want %d", path, k.Got, k.Want))
		default:
			if len(e.Causes) == 0 {
				faults = append(faults, path+": "+e.ErrorKind.LocalizedString(english))
			}
		}
	}
	walk(faulty)
	slices.Sort(faults)
	return faults
}
