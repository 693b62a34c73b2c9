package catalogue

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/wire"
)

func entries() []Entry {
	return Entries([]wire.Role{
		{ARN: "arn:aws:iam::111122223333:role/readonly", AccountID: "111122223333", AccountName: "prod", Name: "readonly"},
		{ARN: "arn:aws:iam::111122223333:role/team/admin", AccountID: "111122223333", AccountName: "prod", Name: "admin"},
		{ARN: "arn:aws:iam::444455556666:role/readonly", AccountID: "444455556666", AccountName: "Staging EU", Name: "readonly"},
		{ARN: "arn:aws:iam::123456789012:role/only", AccountID: "123456789012", AccountName: "a/b", Name: "only"},
	})
}

func labels(list []Entry) (labels []string) {
	for _, e := range list {
		labels = append(labels, e.Label())
	}
	return labels
}

func TestDirect(t *testing.T) {
	aliases := map[string]string{"ro": "arn:aws:iam::111122223333:role/readonly", "bad": "nothing"}
	for text, want := range map[string]string{
		"arn:aws:iam::111122223333:role/team/admin": "arn:aws:iam::111122223333:role/team/admin",
		"ro":                               "arn:aws:iam::111122223333:role/readonly",
		"bad":                              "",
		"RO":                               "",
		"prod/readonly":                    "",
		"arn:aws:iam::111122223333:user/x": "",
		"":                                 "",
	} {
		arn, ok := Direct(text, aliases)
		if ok != (want != "") || ok && arn.String() != want {
			t.Errorf("%q is %s, %v; want %q", text, arn, ok, want)
		}
	}
}

func TestExact(t *testing.T) {
	for text, want := range map[string][]string{
		"prod/readonly":         {"prod/readonly"},
		"PROD/readonly":         {"prod/readonly"},
		"prod/Readonly":         nil,
		"111122223333/admin":    {"prod/admin"},
		"staging eu/readonly":   {"Staging EU/readonly"},
		"readonly":              {"prod/readonly", "Staging EU/readonly"},
		"only":                  {"123456789012/only"},
		"123456789012/only":     {"123456789012/only"},
		"prod/team/admin":       nil,
		"read":                  nil,
		"":                      nil,
		"/":                     nil,
		"prod/":                 nil,
		"444455556666/readonly": {"Staging EU/readonly"},
	} {
		if diff := cmp.Diff(want, labels(Exact(text, entries()))); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
}

func TestNear(t *testing.T) {
	for text, want := range map[string][]string{
		"prodread":  {"prod/readonly"},
		"prod adm":  {"prod/admin"},
		"stag":      {"Staging EU/readonly"},
		"zzz":       nil,
		"":          {"prod/readonly", "prod/admin", "Staging EU/readonly", "123456789012/only"},
		"   ":       {"prod/readonly", "prod/admin", "Staging EU/readonly", "123456789012/only"},
		"1234 only": {"123456789012/only"},
	} {
		if diff := cmp.Diff(want, labels(Near(text, entries()))); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
}
