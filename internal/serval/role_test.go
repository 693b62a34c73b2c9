package serval

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func testReadRole() Role {
	used := t0.Add(-time.Hour)
	boundary := "arn:aws:iam::111122223333:policy/boundary"
	return Role{
		ARN: "arn:aws:iam::111122223333:role/dev", RoleID: "AROA1", Name: "dev", Path: "/", Description: "for <developers> & friends",
		CreatedAt: t0, MaxSessionSeconds: 3600, Tags: map[string]string{"serval": "", "team": "a"},
		TrustPolicy: `{"Version":"2012-10-17"}`, PermissionsBoundary: &boundary, LastUsedAt: &used,
		InlinePolicies: InlinePolicies{Status: ListRead, Policies: []InlinePolicy{{"a", `{}`}, {"b", `{"x":1}`}}},
		ManagedPolicies: ManagedPolicies{Status: ListDenied, Action: "iam:GetPolicyVersion", Policies: []ManagedPolicy{
			{"arn:aws:iam::aws:policy/A", "A", "v3", ""}, {"arn:aws:iam::aws:policy/B", "B", "", `[]`},
		}},
	}
}

func TestDocument(t *testing.T) {
	big := `{"a":"` + strings.Repeat("x", 128<<10-8) + `"}`
	for _, c := range []struct {
		name string
		d    Document
		json string
		back Document // where it is not d
	}{
		{"none", "", `null`, ""},
		{"a document", `{"Version":"2012-10-17"}`, `{"Version":"2012-10-17"}`, ""},
		{"with space between its parts", "\n{ \"a\" : [ 1,\r\n 2 ] }\t", `{"a":[1,2]}`, `{"a":[1,2]}`},
		{"a list", `[]`, `[]`, ""},
		{"numbers keep their digits", `{"a":1.0,"b":1e5,"c":12345678901234567890}`, `{"a":1.0,"b":1e5,"c":12345678901234567890}`, ""},
		{"repeated keys are kept", `{"a":1,"a":2}`, `{"a":1,"a":2}`, ""},
		{"the order of keys is kept", `{"b":1,"a":2}`, `{"b":1,"a":2}`, ""},
		{"characters of HTML", `{"a":"<&>"}`, `{"a":"<&>"}`, ""},
		{"plus and percent", `{"a":"+%20"}`, `{"a":"+%20"}`, ""},
		{"escapes stay", `{"a":"\u0000\u00e9\/"}`, `{"a":"\u0000\u00e9\/"}`, ""},
		{"not JSON", `{"a":`, `"{\"a\":"`, ""},
		{"text", `hello`, `"hello"`, ""},
		{"a BOM", "\uFEFF{}", "\"\uFEFF{}\"", ""},
		{"more behind it", `{} {}`, `"{} {}"`, ""},
		{"the word null", `null`, `"null"`, ""},
		{"a string", `"text"`, `"\"text\""`, ""},
		{"a string behind space", ` "text"`, `" \"text\""`, ""},
		{"a number", `1`, `"1"`, ""},
		{"only space", " ", `" "`, ""},
		{"invalid UTF-8 in it", "{\"a\":\"\xff\"}", "\"{\\\"a\\\":\\\"\\ufffd\\\"}\"", "{\"a\":\"\uFFFD\"}"},
		{"128 KiB", Document(big), big, ""},
	} {
		b, err := marshal(c.d)
		if err != nil || string(b) != c.json {
			t.Errorf("%s: got %.200s, %v; want %.200s", c.name, b, err, c.json)
			continue
		}
		var back Document
		if err := json.Unmarshal(b, &back); err != nil {
			t.Errorf("%s: reading it back: %v", c.name, err)
			continue
		}
		want := c.back
		if want == "" {
			want = c.d
		}
		if back != want {
			t.Errorf("%s came back as %.200q, want %.200q", c.name, back, want)
		}
	}
	for in, want := range map[string]Document{
		`null`: "", `""`: "", `"a\u0000b"`: "a\uFFFDb", "{\"a\": \"\xff\"}": "{\"a\":\"\uFFFD\"}", `1`: "1", `true`: "true",
	} {
		var d Document
		if err := json.Unmarshal([]byte(in), &d); err != nil || d != want {
			t.Errorf("reading %s: got %q, %v; want %q", in, d, err, want)
		}
	}
	for _, in := range []string{`"`, `"\ud8"`, `{`, ``} {
		var d Document
		if err := d.UnmarshalJSON([]byte(in)); err == nil {
			t.Errorf("reading %s: got %q, want an error", in, d)
		}
	}
	if d := Document(""); d.Digest() != "" {
		t.Errorf("no document has the digest %s, want none", d.Digest())
	}
	const sum = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a" // of {}
	if d := Document("{}"); d.Digest() != sum {
		t.Errorf("{} has the digest %s, want %s", d.Digest(), sum)
	}
}

func FuzzDocument(f *testing.F) { // T-1
	for _, s := range []string{``, `{}`, ` "a"`, `null`, `{"a":1,"a":2}`, "\uFEFF{}", "{\"\xff\":0}", `{"Statement":[{"Effect":"Allow"}]}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		b, err := marshal(Document(text))
		if err != nil || !json.Valid(b) {
			t.Fatalf("%q encodes as %q, %v", text, b, err)
		}
		var d Document
		if err := json.Unmarshal(b, &d); err != nil {
			t.Fatalf("%q, encoded as %q: %v", text, b, err)
		}
		if (d == "") != (text == "") {
			t.Errorf("%q came back as %q: nothing and something are mistaken for one another", text, d)
		}
		if !utf8.ValidString(string(d)) || strings.ContainsRune(string(d), 0) {
			t.Errorf("%q came back as %q, which a database does not keep", text, d)
		}
		again, err := marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		var d2 Document
		if err := json.Unmarshal(again, &d2); err != nil || d2 != d {
			t.Errorf("%q comes back as %q, then as %q (%v)", text, d, d2, err)
		}
		// Whatever arrives as JSON, too.
		if json.Unmarshal([]byte(text), &d) == nil {
			(Role{TrustPolicy: d}).Digest()
		}
	})
}

func TestRole_Digest(t *testing.T) {
	was := testReadRole().Digest()
	// Golden: catalogues remember it.
	golden(t, "role-digest.txt", was+"\n")

	same := map[string]func(r *Role){
		"last used later":     func(r *Role) { now := t0; r.LastUsedAt = &now },
		"last used never":     func(r *Role) { r.LastUsedAt = nil },
		"another order":       func(r *Role) { p := r.InlinePolicies.Policies; p[0], p[1] = p[1], p[0] },
		"another order of m.": func(r *Role) { p := r.ManagedPolicies.Policies; p[0], p[1] = p[1], p[0] },
		"another zone":        func(r *Role) { r.CreatedAt = r.CreatedAt.In(time.FixedZone("", 3600)) },
		"space in a document": func(r *Role) { r.TrustPolicy = "{ \"Version\": \"2012-10-17\" }" },
	}
	for name, do := range same {
		r := testReadRole()
		do(&r)
		if r.Digest() != was {
			t.Errorf("%s is another role, want the same", name)
		}
	}
	bare, none := Role{Tags: map[string]string{}, InlinePolicies: InlinePolicies{Policies: []InlinePolicy{}}}, Role{}
	if bare.Digest() != none.Digest() {
		t.Error("empty lists make another role than none")
	}

	boundless, empty := testReadRole(), testReadRole()
	boundless.PermissionsBoundary, empty.PermissionsBoundary = nil, new(string)
	if boundless.Digest() != empty.Digest() {
		t.Error("an empty boundary makes another role than none")
	}

	// Every other field counts.
	seen := map[string]string{was: "as it was"}
	count := func(name string, do func(r *Role)) {
		r := testReadRole()
		do(&r)
		d := r.Digest()
		if other, taken := seen[d]; taken {
			t.Errorf("%s gives the same digest as %s", name, other)
		}
		seen[d] = name
	}
	for name, b := range map[string]BoundaryPolicy{
		"a boundary's policy": {Status: ListRead}, "its version": {Status: ListRead, Version: "v1"}, "its document": {Status: ListRead, Document: "{}"},
		"its status": {Status: ListDenied}, "its action": {Status: ListDenied, Action: "iam:GetPolicy"},
	} {
		count(name, func(r *Role) { r.BoundaryPolicy = &b })
	}
	fields := reflect.TypeFor[Role]()
	for i := range fields.NumField() {
		// A role without the policy of its boundary is as it was before there was one.
		if name := fields.Field(i).Name; name != "LastUsedAt" && name != "BoundaryPolicy" {
			count("no "+name, func(r *Role) { reflect.ValueOf(r).Elem().Field(i).SetZero() })
		}
	}
	count("a document", func(r *Role) { r.InlinePolicies.Policies[1].Document += " x" })
	count("an inline policy's name", func(r *Role) { r.InlinePolicies.Policies[1].Name = "c" })
	count("an inline status", func(r *Role) { r.InlinePolicies.Status = ListFailed })
	count("a managed action", func(r *Role) { r.ManagedPolicies.Action = "iam:GetPolicy" })
	count("a managed status", func(r *Role) { r.ManagedPolicies.Status = ListRead })
	count("a version", func(r *Role) { r.ManagedPolicies.Policies[0].Version = "v4" })
	count("a managed document", func(r *Role) { r.ManagedPolicies.Policies[0].Document = `{}` })
	count("a tag's value", func(r *Role) { r.Tags["serval"] = "x" })

	r := testReadRole()
	p := r.InlinePolicies.Policies
	p[0], p[1] = p[1], p[0]
	before := fmt.Sprintf("%+v", r)
	r.Digest()
	if got := fmt.Sprintf("%+v", r); got != before {
		t.Errorf("Digest changed the role:\n%s\n%s", before, got)
	}
}

func TestRole(t *testing.T) {
	r := testReadRole()
	want := RoleKey{Partition: "aws", AccountID: "111122223333", RoleID: "AROA1", ARN: r.ARN}
	if diff := cmp.Diff(want, r.Key()); diff != "" {
		t.Errorf("Key (-want +got):\n%s", diff)
	}
	r.ARN = "nonsense"
	if diff := cmp.Diff(RoleKey{RoleID: "AROA1", ARN: "nonsense"}, r.Key()); diff != "" {
		t.Errorf("Key of another ARN (-want +got):\n%s", diff)
	}
	for _, c := range []struct {
		inline, managed ListStatus
		want            bool
	}{
		{ListRead, ListRead, true}, {ListDenied, ListRead, false}, {ListRead, ListDenied, false},
		{ListRead, ListThrottled, false}, {ListFailed, ListRead, false}, {"", "", false}, {ListRead, "", false},
	} {
		r := Role{InlinePolicies: InlinePolicies{Status: c.inline}, ManagedPolicies: ManagedPolicies{Status: c.managed}}
		if got := r.PoliciesComplete(); got != c.want {
			t.Errorf("inline %q, managed %q: complete %t, want %t", c.inline, c.managed, got, c.want)
		}
	}
}

func TestTag_S88(t *testing.T) { // S-88
	for _, c := range []struct {
		name   string
		tags   map[string]string
		tagged bool
		miss   string
	}{
		{"none", nil, false, ""},
		{"others", map[string]string{"team": "serval"}, false, ""},
		{"the key without a value", map[string]string{"serval": ""}, true, ""},
		{"the key with any value", map[string]string{"serval": "no"}, true, ""},
		{"capital", map[string]string{"Serval": ""}, false, "Serval"},
		{"capitals", map[string]string{"SERVAL": "x"}, false, "SERVAL"},
		{"a space behind", map[string]string{"serval ": ""}, false, "serval "},
		{"a space before", map[string]string{" serval": ""}, false, " serval"},
		{"both", map[string]string{"\tSerVal\u00a0": ""}, false, "\tSerVal\u00a0"},
		{"the first of two", map[string]string{"serval ": "", "Serval": ""}, false, "Serval"},
		{"the key and a near miss", map[string]string{"serval": "", "serval ": ""}, true, ""},
		{"longer", map[string]string{"servals": "", "my-serval": ""}, false, ""},
		{"a long s is no s", map[string]string{"\u017Ferval": ""}, false, ""},
		{"full width", map[string]string{"ｓerval": ""}, false, ""},
	} {
		if got := IsTagged(c.tags); got != c.tagged {
			t.Errorf("%s: tagged %t, want %t", c.name, got, c.tagged)
		}
		if got, ok := NearMissKey(c.tags); got != c.miss || ok != (c.miss != "") {
			t.Errorf("%s: near miss %q, %t; want %q", c.name, got, ok, c.miss)
		}
	}
}
