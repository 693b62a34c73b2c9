package serval

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	goodARNs = map[string]RoleARN{
		"arn:aws:iam::111122223333:role/dev":                                      {"aws", "111122223333", "/", "dev"},
		"arn:aws-cn:iam::111122223333:role/dev":                                   {"aws-cn", "111122223333", "/", "dev"},
		"arn:aws-us-gov:iam::111122223333:role/dev":                               {"aws-us-gov", "111122223333", "/", "dev"},
		"arn:aws-iso:iam::111122223333:role/dev":                                  {"aws-iso", "111122223333", "/", "dev"},
		"arn:aws-iso-b:iam::111122223333:role/dev":                                {"aws-iso-b", "111122223333", "/", "dev"},
		"arn:aws-eusc:iam::111122223333:role/dev":                                 {"aws-eusc", "111122223333", "/", "dev"},
		"arn:aws:iam::111122223333:role/team/a/dev":                               {"aws", "111122223333", "/team/a/", "dev"},
		"arn:aws:iam::111122223333:role/!\"$&'()*:;<>?[]^`{|}~/d":                 {"aws", "111122223333", "/!\"$&'()*:;<>?[]^`{|}~/", "d"},
		"arn:aws:iam::111122223333:role/Az09_+=,.@-":                              {"aws", "111122223333", "/", "Az09_+=,.@-"},
		"arn:aws:iam::000000000000:role/x":                                        {"aws", "000000000000", "/", "x"},
		"arn:aws:iam::111122223333:role/" + strings.Repeat("x", 64):               {"aws", "111122223333", "/", strings.Repeat("x", 64)},
		"arn:aws:iam::111122223333:role/" + strings.Repeat("p", 510) + "/x":       {"aws", "111122223333", "/" + strings.Repeat("p", 510) + "/", "x"},
		"arn:aws:iam::111122223333:role/aws-service-role/s.amazonaws.com/AWSRole": {"aws", "111122223333", "/aws-service-role/s.amazonaws.com/", "AWSRole"},
	}
	badARNs = []string{
		"", "arn:", "arn", "role/dev", "dev", "ARN:aws:iam::111122223333:role/dev", " arn:aws:iam::111122223333:role/dev",
		"arn:aws:iam::111122223333:role/dev ", "arn:aws:iam::111122223333:role/dev\n", "arn:aws:iam::111122223333:role/dev\x00",
		"\narn:aws:iam::111122223333:role/dev", "arn:aws:iam::111122223333:role/", "arn:aws:iam::111122223333:role",
		"arn:aws:iam::111122223333:role/dev/", "arn:aws:iam::111122223333:user/dev", "arn:aws:iam::111122223333:roles/dev",
		"arn:aws:iam::11112222333:role/dev", "arn:aws:iam::1111222233334:role/dev", "arn:aws:iam::11112222333a:role/dev",
		"arn:aws:iam::١١١١٢٢٢٢٣٣٣٣:role/dev", "arn:aws:iam:us-east-1:111122223333:role/dev", "arn:aws:iam:111122223333:role/dev",
		"arn:aws:sts::111122223333:assumed-role/dev/ana", "arn:aws:s3:::bucket", "arn:evil:iam::111122223333:role/dev",
		"arn:aws-:iam::111122223333:role/dev", "arn:aws-isolated:iam::111122223333:role/dev", "arn:AWS:iam::111122223333:role/dev",
		"arn:aws-iso-" + strings.Repeat("b", 3000) + ":iam::111122223333:role/dev", "arn:aws:iam::111122223333:role/d v",
		"arn:aws:iam::111122223333:role/d*", "arn:aws:iam::111122223333:role/ü", "arn:aws:iam::111122223333:role/a b/dev",
		"arn:aws:iam::111122223333:role/\u212A", "arn:aws:iam::111122223333:role/pä/dev", "arn:aws:iam::111122223333:role/dev\xff",
		"arn:aws:iam::111122223333:role/" + strings.Repeat("x", 65), "arn:aws:iam::111122223333:role/" + strings.Repeat("p", 511) + "/x",
		"arn:aws:iam::111122223333:role//" + strings.Repeat("p/", 300) + "x", "arn:aws:iam::111122223333:role/x:y/",
	}
)

// A role's path is whatever whoever made it wrote; in a command it is left out
// where a shell would obey or split it.
func TestWord(t *testing.T) { // S-25
	for path, plain := range map[string]bool{
		"/": true, "/team/a/": true, "/a_b+=,.@-/": true,
		"/x;id/": false, "/$(id)/": false, "/`id`/": false, "/a|b/": false, "/a&b/": false, "/'/": false, "/\"/": false, "/\\/": false, "/%PATH%/": false,
		"/a>b/": false, "/#/": false, "/~/": false, "/*/": false, "/{a}/": false, "/!!/": false, "/^/": false, "/(/": false,
	} {
		a := RoleARN{"aws", "111122223333", path, "dev"}
		if _, err := ParseRoleARN(a.String()); err != nil {
			t.Fatalf("%s is no ARN: %v", a, err)
		}
		want := "111122223333/dev"
		if plain {
			want = a.String()
		}
		if got := a.Word(); got != want {
			t.Errorf("the word of %s is %q, want %q", a, got, want)
		}
	}
}

func TestParseRoleARN_S86(t *testing.T) { // S-86
	for arn, want := range goodARNs {
		got, err := ParseRoleARN(arn)
		if err != nil {
			t.Errorf("ParseRoleARN(%q): %v", arn, err)
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("ParseRoleARN(%q) (-want +got):\n%s", arn, diff)
		}
		if got.String() != arn {
			t.Errorf("%q is written as %q", arn, got)
		}
	}
	for _, arn := range badARNs {
		if got, err := ParseRoleARN(arn); got != (RoleARN{}) || kindOf(err) != Invalid || err.Error() != "invalid role ARN format" {
			t.Errorf("ParseRoleARN(%q) = %+v, %v; want invalid role ARN format", arn, got, err)
		}
	}
	a := RoleARN{"aws-cn", "111122223333", "/team/a/", "dev"}
	if got, want := a.Session("ana@example.com"), "arn:aws-cn:sts::111122223333:assumed-role/dev/ana@example.com"; got != want {
		t.Errorf("Session: got %q, want %q", got, want)
	}
}

func FuzzParseRoleARN(f *testing.F) { // T-1 S-86
	for arn := range goodARNs {
		f.Add(arn)
	}
	for _, arn := range badARNs {
		f.Add(arn)
	}
	f.Fuzz(func(t *testing.T, text string) {
		arn, err := ParseRoleARN(text)
		if err != nil {
			if err.Error() != "invalid role ARN format" || !IsRefusal(err, Invalid) || arn != (RoleARN{}) {
				t.Errorf("ParseRoleARN(%q) = %+v, %v", text, arn, err)
			}
			return
		}
		switch {
		case arn.String() != text:
			t.Errorf("%q is written as %q", text, arn)
		case len(text) < 20 || len(text) > 2048 || !strings.HasPrefix(text, "arn:"):
			t.Errorf("%q passes, and AWS refuses it", text)
		case len(arn.AccountID) != 12 || !strings.HasPrefix(arn.Path, "/") || !strings.HasSuffix(arn.Path, "/") || strings.Contains(arn.Name, "/"):
			t.Errorf("%q is taken apart as %+v", text, arn)
		}
	})
}

func TestParseAccountID(t *testing.T) {
	for id, ok := range map[string]bool{
		"111122223333": true, "000000000000": true, "": false, "11112222333": false, "1111222233334": false, "1111-2222-33": false,
		"11112222333x": false, " 11112222333": false, "11112222333\n": false, "١١١١١١": false, strings.Repeat("1", 1000): false,
	} {
		got, err := ParseAccountID(id)
		if ok && (err != nil || got != id) || !ok && (got != "" || kindOf(err) != Invalid || len(err.Error()) > 200) {
			t.Errorf("ParseAccountID(%.40q) = %q, %v; want accepted %t", id, got, err, ok)
		}
	}
}
