package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

func testInventory() serval.Inventory {
	used, boundary := t0, "arn:aws:iam::111122223333:policy/boundary"
	inv := serval.Inventory{
		AccountID: "111122223333", AccountName: `prod "roles":[] <&>`, Generation: 7, StartedAt: t0, FinishedAt: t0.Add(time.Minute),
		Complete: true, ReadBy: serval.ByRoles,
		Roles: []serval.Role{
			{ARN: roleARN, RoleID: "AROA1", Name: "dev", Path: "/", Description: "<b> & c", CreatedAt: t0, MaxSessionSeconds: 3600,
				Tags: map[string]string{"serval": "", "team": "a"}, TrustPolicy: `{"a":"<&>","a":1.0}`, PermissionsBoundary: &boundary, LastUsedAt: &used,
				InlinePolicies:  serval.InlinePolicies{Status: serval.ListRead, Policies: []serval.InlinePolicy{{Name: "p", Document: `{}`}}},
				ManagedPolicies: serval.ManagedPolicies{Status: serval.ListDenied, Action: "iam:GetPolicyVersion", Policies: []serval.ManagedPolicy{{ARN: "arn:aws:iam::aws:policy/A", Name: "A", Version: "v3"}}},
				BoundaryPolicy:  &serval.BoundaryPolicy{Status: serval.ListDenied, Action: "iam:GetPolicyVersion", Version: "v2"}},
			{ARN: roleARN + "2", RoleID: "AROA2", Name: "dev2", Path: "/", CreatedAt: t0, Tags: map[string]string{"serval": ""}, TrustPolicy: "not JSON",
				InlinePolicies: serval.InlinePolicies{Status: serval.ListRead}, ManagedPolicies: serval.ManagedPolicies{Status: serval.ListRead}},
		},
		Unreadable: []serval.Unreadable{{ARN: roleARN + "3", RoleID: "AROA3", Action: "iam:GetRole", Code: "AccessDenied"}},
		NearMisses: []serval.NearMiss{{ARN: roleARN + "4", TagKey: "Serval"}},
		Problems:   []serval.Problem{{Action: "iam:GetPolicyVersion", Target: "arn:aws:iam::aws:policy/A", Code: "AccessDenied", Message: "no"}},
		Untagged:   []string{"AROA5"},
	}
	inv.Normalize()
	return inv
}

func written(t testing.TB, inv serval.Inventory) string {
	t.Helper()
	var b bytes.Buffer
	if err := WriteInventory(&b, inv); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// collect reads an inventory with its roles.
func collect(r io.Reader) (serval.Inventory, error) {
	var roles []serval.Role
	inv, err := ReadInventory(r, func(r serval.Role) error { roles = append(roles, r); return nil })
	inv.Roles = roles
	return inv, err
}

func kindOf(err error) serval.Kind {
	if r, ok := err.(*serval.Refusal); ok {
		return r.Kind
	}
	return ""
}

func TestInventory_golden(t *testing.T) {
	text := written(t, testInventory())
	golden(t, "inventory.json", pretty(t, rawText(text)))
	back, err := collect(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(testInventory(), back); diff != "" {
		t.Errorf("it does not come back as it was (-want +got):\n%s", diff)
	}
}

// A rawText is JSON already.
type rawText string

func (r rawText) MarshalJSON() ([]byte, error) { return []byte(r), nil }

// TestInventory_random writes random inventories: what is streamed is what
// encoding/json would write of the whole, and it reads back the same.
func TestInventory_random(t *testing.T) {
	rnd := rand.New(rand.NewPCG(8, 8))
	texts := []string{"", "a", `"roles":[]`, `\"`, "<script>&", "\u2028", "ü😀", "{}", "null", "\uFEFF", "line\nbreak", strings.Repeat("x", MaxText)}
	pick := func() string { return texts[rnd.IntN(len(texts))] }
	docs := []serval.Document{"", "{}", `{"a":[1,2.0,"<&>"],"a":null}`, "[]", "not JSON", "\uFEFF{}", "null", `"s"`}
	doc := func() serval.Document { return docs[rnd.IntN(len(docs))] }
	when := func() time.Time { return t0.Add(time.Duration(rnd.Int64N(1e17))) }
	statuses := []serval.ListStatus{serval.ListRead, serval.ListDenied, serval.ListThrottled, serval.ListFailed}
	for range 200 {
		inv := serval.Inventory{
			AccountID: pick(), AccountName: pick(), Generation: rnd.Int64(), StartedAt: when(), FinishedAt: when(), Complete: rnd.IntN(2) == 0, ReadBy: pick(),
		}
		for i := range rnd.IntN(5) {
			r := serval.Role{
				ARN: fmt.Sprint(pick(), i), RoleID: pick(), Name: pick(), Path: pick(), Description: pick(), CreatedAt: when(), MaxSessionSeconds: rnd.IntN(43201),
				Tags: map[string]string{"serval": pick(), pick(): pick()}, TrustPolicy: doc(),
				InlinePolicies:  serval.InlinePolicies{Status: statuses[rnd.IntN(4)], Action: pick()},
				ManagedPolicies: serval.ManagedPolicies{Status: statuses[rnd.IntN(4)], Action: pick()},
			}
			if rnd.IntN(2) == 0 {
				used, boundary := when(), pick()
				r.LastUsedAt, r.PermissionsBoundary = &used, &boundary
			}
			if rnd.IntN(2) == 0 {
				r.BoundaryPolicy = &serval.BoundaryPolicy{Status: statuses[rnd.IntN(4)], Action: pick(), Version: pick(), Document: doc()}
			}
			for range rnd.IntN(3) {
				r.InlinePolicies.Policies = append(r.InlinePolicies.Policies, serval.InlinePolicy{Name: pick(), Document: doc()})
				r.ManagedPolicies.Policies = append(r.ManagedPolicies.Policies, serval.ManagedPolicy{ARN: pick(), Name: pick(), Version: pick(), Document: doc()})
			}
			inv.Roles = append(inv.Roles, r)
		}
		for range rnd.IntN(3) {
			inv.Unreadable = append(inv.Unreadable, serval.Unreadable{ARN: pick(), RoleID: pick(), Action: pick(), Code: pick()})
			inv.NearMisses = append(inv.NearMisses, serval.NearMiss{ARN: pick(), TagKey: pick()})
			inv.Problems = append(inv.Problems, serval.Problem{Action: pick(), Target: pick(), Code: pick(), Message: pick()})
			inv.Untagged = append(inv.Untagged, pick())
		}
		inv.Normalize()

		got := written(t, inv)
		whole, err := encode(inv)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(whole)+"\n", got); diff != "" {
			t.Fatalf("streamed, it is not what the whole is (-want +got):\n%s", diff)
		}
		back, err := collect(iotest.OneByteReader(strings.NewReader(got)))
		if err != nil {
			t.Fatal(err)
		}
		back.Normalize()
		if diff := cmp.Diff(inv, back); diff != "" {
			t.Fatalf("it does not come back as it was (-want +got):\n%s", diff)
		}
		for i := range inv.Roles {
			if inv.Roles[i].Digest() != back.Roles[i].Digest() {
				t.Fatalf("role %d has another digest after the way", i)
			}
		}
	}
}

func TestWriteInventory_fails(t *testing.T) {
	full := errors.New("disk full")
	if err := WriteInventory(iotest.TruncateWriter(io.Discard, 0), testInventory()); err != nil {
		t.Errorf("a writer that takes all: %v", err)
	}
	if err := WriteInventory(failing{full}, testInventory()); !errors.Is(err, full) {
		t.Errorf("got %v, want the writer's own error", err)
	}
	for name, do := range map[string]func(inv *serval.Inventory){
		"the account": func(inv *serval.Inventory) { inv.StartedAt = inv.StartedAt.AddDate(10_000, 0, 0) },
		"a role":      func(inv *serval.Inventory) { inv.Roles[1].CreatedAt = inv.StartedAt.AddDate(10_000, 0, 0) },
	} {
		inv := testInventory()
		do(&inv)
		if err := WriteInventory(io.Discard, inv); err == nil {
			t.Errorf("a year that cannot be written, of %s: got no error", name)
		}
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
func (f failing) Read([]byte) (int, error)  { return 0, f.err }

// small is the least that is an inventory.
const small = `{"schema":"serval.inventory/v1","account_id":"1","account_name":"","generation":1,"started_at":"2026-01-05T09:00:00Z",` +
	`"finished_at":"2026-01-05T09:00:00Z","complete":true,"read_by":"roles","roles":[{"arn":"a","tags":{"serval":""}},{}],` +
	`"unreadable":[],"near_misses":[],"problems":[]}`

func TestReadInventory_takes(t *testing.T) {
	for name, text := range map[string]string{
		"the least":              small,
		"with untagged":          strings.Replace(small, `"problems":[]`, `"problems":[],"untagged":["AROA1"]`, 1),
		"with space around":      " \r\n\t" + strings.ReplaceAll(small, ",", " ,\n ") + "\n\n ",
		"in another order":       `{"roles":[{"arn":"a"},{}],` + strings.Replace(small[1:], `"roles":[{"arn":"a","tags":{"serval":""}},{}],`, "", 1),
		"with space in a list":   strings.Replace(small, `"problems":[]`, `"problems": [ {"action":"a"} , {} ] `, 1),
		"with escapes in a name": strings.Replace(small, `"schema"`, `"sch\u0065ma"`, 1),
	} {
		if inv, err := collect(strings.NewReader(text)); err != nil || len(inv.Roles) != 2 || inv.AccountID != "1" || inv.Roles[0].ARN != "a" {
			t.Errorf("%s: got %+v, %v; want an inventory of two roles", name, inv, err)
		}
	}
}

func TestReadInventory_refuses(t *testing.T) {
	replace := func(old, new string) string {
		if !strings.Contains(small, old) {
			t.Fatalf("the sample has no %s", old)
		}
		return strings.Replace(small, old, new, 1)
	}
	cases := []struct{ name, text, want string }{
		{"nothing", "", "does not begin"},
		{"space", "  ", "does not begin"},
		{"a list", "[]", "does not begin"},
		{"a word", "null", "does not begin"},
		{"HTML", "<html>", "does not begin"},
		{"an empty object", "{}", `field "schema" is missing`},
		{"an unknown field", replace(`"complete":true`, `"complete":true,"complet":true`), `field "complet" is not known`},
		{"a field in another case", replace(`"complete":true`, `"Complete":true`), `field "Complete" is not known`},
		{"a long unknown field", `{"` + strings.Repeat("ü", 5000) + `":1}`, "is not known"},
		{"a field twice", replace(`"complete":true`, `"complete":false,"complete":true`), `field "complete" comes twice`},
		{"roles twice", replace(`"unreadable":[]`, `"roles":[],"unreadable":[]`), `field "roles" comes twice`},
		{"an unknown field twice", `{"x":1,"x":1}`, `field "x" is not known`},
		{"another schema", replace("inventory/v1", "inventory/v2"), `its schema is "serval.inventory/v2"`},
		{"a delta", replace("serval.inventory/v1", "serval.delta/v1"), `its schema is "serval.delta/v1"`},
		{"no schema", replace(`"serval.inventory/v1"`, `null`), `its schema is ""`},
		{"a wrong type", replace(`"generation":1`, `"generation":"1"`), `field "generation"`},
		{"a fraction", replace(`"generation":1`, `"generation":1.5`), `field "generation"`},
		{"a number too large", replace(`"generation":1`, `"generation":9223372036854775808`), `field "generation"`},
		{"a time that is none", replace(`"started_at":"2026-01-05T09:00:00Z"`, `"started_at":"today"`), `field "started_at"`},
		{"a time before the years", replace(`"started_at":"2026-01-05T09:00:00Z"`, `"started_at":"0000-01-01T00:00:00+23:59"`), "outside the years"},
		{"a time after the years", replace(`"finished_at":"2026-01-05T09:00:00Z"`, `"finished_at":"9999-12-31T23:59:59-23:59"`), "outside the years"},
		{"roles that are no list", replace(`[{"arn":"a","tags":{"serval":""}},{}]`, `{}`), "roles is not a list"},
		{"roles unknown", replace(`[{"arn":"a","tags":{"serval":""}},{}]`, `null`), "roles is not a list"},
		{"a role that is none", replace(`{}]`, `1]`), "roles[1]: json"},
		{"an unknown field of a role", replace(`{}]`, `{"x":1}]`), `roles[1]: json: unknown field "x"`},
		{"a wrong type in a role", replace(`{}]`, `{"arn":1}]`), "roles[1]: json"},
		{"a role's time after the years", replace(`{}]`, `{"created_at":"9999-12-31T23:59:59-23:59"}]`), "roles[1]: a time of it"},
		{"a role's last use before the years", replace(`{}]`, `{"last_used_at":"0000-01-01T00:00:00+23:59"}]`), "roles[1]: a time of it"},
		{"no comma between roles", replace(`}},{}]`, `}}{}]`), "roles[1] breaks off or is malformed"},
		{"roles that end as an object", replace(`{}]`, `{}}`), "roles breaks off or is malformed"},
		{"an end that is none", small[:len(small)-1] + "]", "breaks off or is malformed"},
		{"no comma between fields", replace(`"complete":true,`, `"complete":true `), "breaks off or is malformed"},
		{"a field that is no text", replace(`"complete":true`, `1:true`), "breaks off or is malformed"},
		{"text behind the end", small + "x", "something stands behind its end"},
		{"another inventory behind it", small + small, "something stands behind its end"},
		{"too deep", replace(`"problems":[]`, `"problems":`+strings.Repeat("[", 20_000)), "problems[0] breaks off or is malformed"},
		{"unreadable unknown", replace(`"unreadable":[]`, `"unreadable":null`), "unreadable is not a list"},
		{"near misses unknown", replace(`"near_misses":[]`, `"near_misses":null`), "near_misses is not a list"},
		{"problems unknown", replace(`"problems":[]`, `"problems":null`), "problems is not a list"},
		{"untagged unknown", replace(`"problems":[]`, `"problems":[],"untagged":null`), "untagged is not a list"},
		{"an unknown field of an unreadable", replace(`"unreadable":[]`, `"unreadable":[{},{"x":1}]`), `unreadable[1]: json: unknown field "x"`},
		{"an unknown field of a near miss", replace(`"near_misses":[]`, `"near_misses":[{"x":1}]`), `near_misses[0]: json: unknown field "x"`},
		{"an unknown field of a problem", replace(`"problems":[]`, `"problems":[{"x":1}]`), `problems[0]: json: unknown field "x"`},
		{"a provider that is null", withProvider("null"), "oidc_provider is null"},
		{"a provider that is none", withProvider("[]"), "oidc_provider: json"},
		{"an unknown field of a provider", withProvider(`{"x":1}`), `oidc_provider: json: unknown field "x"`},
		{"a provider that breaks off", withProvider(`{"arn":}`), "oidc_provider breaks off or is malformed"},
		{"a provider twice", withProvider(`{},"oidc_provider":{}`), `field "oidc_provider" comes twice`},
		{"an untagged that is no text", replace(`"problems":[]`, `"problems":[],"untagged":[1]`), "untagged[0]: json"},
		{"a problem that is null", replace(`"problems":[]`, `"problems":[null]`), "problems[0] is null"},
		{"no comma between problems", replace(`"problems":[]`, `"problems":[{}{}]`), "problems[1] breaks off or is malformed"},
		{"problems that end as an object", replace(`"problems":[]`, `"problems":[{}}`), "problems breaks off or is malformed"},
		{"a role too deep", replace(`{}]`, `{"trust_policy":`+strings.Repeat("[", 20_000)), "roles[1]"},
	}
	long := strings.Repeat("x", MaxText+1)
	for list, entries := range map[string][]string{
		"unreadable":  {`{"arn":"` + long + `"}`, `{"role_id":"` + long + `"}`, `{"action":"` + long + `"}`, `{"code":"` + long + `"}`},
		"near_misses": {`{"arn":"` + long + `"}`, `{"tag_key":"` + long + `"}`},
		"problems":    {`{"action":"` + long + `"}`, `{"target":"` + long + `"}`, `{"code":"` + long + `"}`, `{"message":"` + long + `"}`},
		"untagged":    {`"` + long + `"`},
	} {
		for _, entry := range entries {
			name := fmt.Sprintf("a long text in %s: %.12s", list, entry)
			cases = append(cases, struct{ name, text, want string }{name, withList(list, entry), list + "[0]: a text of it has more than 2048 bytes"})
			if _, err := collect(strings.NewReader(withList(list, strings.Replace(entry, "xx", "x", 1)))); err != nil {
				t.Errorf("%s, of as many bytes as are taken: %v", name, err)
			}
		}
	}
	for _, field := range []string{`"issuer":"`, `"arn":"`, `"status":"`, `"client_ids":["a","`} {
		end := `"}`
		if strings.Contains(field, "[") {
			end = `"]}`
		}
		name := "a long text in a provider: " + field
		cases = append(cases, struct{ name, text, want string }{name, withProvider("{" + field + long + end), "oidc_provider: a text of it has more than 2048 bytes"})
		if _, err := collect(strings.NewReader(withProvider("{" + field + long[1:] + end))); err != nil {
			t.Errorf("%s, of as many bytes as are taken: %v", name, err)
		}
	}
	for _, field := range []string{"account_id", "account_name", "read_by"} {
		at := strings.Index(small, `"`+field+`":"`) + len(field) + 4
		cases = append(cases, struct{ name, text, want string }{"a long " + field, small[:at] + long + small[at:], "a text of it has more than 2048 bytes"})
	}
	for _, field := range slices.Concat(headFields, []string{"roles", "unreadable", "near_misses", "problems"}) {
		text := small
		if field == "roles" {
			text = strings.Replace(text, `"roles":[{"arn":"a","tags":{"serval":""}},{}],`, "", 1)
		} else {
			i := strings.Index(text, `"`+field+`":`)
			j := i + strings.IndexAny(text[i:], ",}")
			text = strings.Replace(strings.Replace(text[:i]+text[j:], ",,", ",", 1), "{,", "{", 1)
			text = strings.Replace(text, ",}", "}", 1)
		}
		cases = append(cases, struct{ name, text, want string }{"without " + field, text, fmt.Sprintf("field %q is missing", field)})
	}
	for _, c := range cases {
		inv, err := collect(strings.NewReader(c.text))
		if kindOf(err) != serval.Invalid || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want it refused as invalid with %q", c.name, err, c.want)
			continue
		}
		if len(err.Error()) > 600 || !strings.HasPrefix(err.Error(), "Not an inventory: ") || inv.AccountID != "" {
			t.Errorf("%s: got %q and %+v; want a short sentence and nothing else", c.name, err, inv)
		}
	}
	for i := range len(small) {
		if _, err := collect(strings.NewReader(small[:i])); kindOf(err) != serval.Invalid {
			t.Errorf("cut after %d bytes: got %v, want it refused as invalid", i, err)
		}
	}
}

func TestReadInventory_callback(t *testing.T) {
	stop := errors.New("stop")
	var n int
	_, err := ReadInventory(strings.NewReader(small), func(serval.Role) error { n++; return stop })
	if err != stop || n != 1 {
		t.Errorf("got %v after %d roles, want role's own error after one", err, n)
	}
}

// withList returns the sample with a list that has these entries.
func withList(list string, entries ...string) string {
	text := strings.Replace(small, `"`+list+`":[],`, "", 1)
	text = strings.TrimSuffix(strings.Replace(text, `,"`+list+`":[]`, "", 1), "}")
	return text + `,"` + list + `":[` + strings.Join(entries, ",") + "]}"
}

// withProvider returns small with an OIDC provider.
func withProvider(text string) string {
	return small[:len(small)-1] + `,"oidc_provider":` + text + "}"
}

// The provider that an account was asked for is there only where it was, and all of it comes back.
func TestInventory_provider(t *testing.T) {
	for name, ids := range map[string][]string{"provider": {"0oa1", "0oa2"}, "provider without ids": {}} {
		inv := testInventory()
		plain := written(t, inv)
		inv.OIDCProvider = &serval.OIDCProvider{Issuer: "https://acme.okta.com", ARN: "arn:aws:iam::111122223333:oidc-provider/acme.okta.com", Status: serval.ListRead, ClientIDs: ids}
		text := written(t, inv)
		golden(t, "inventory-"+strings.ReplaceAll(name, " ", "-")+".json", pretty(t, rawText(text)))
		back, err := collect(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(inv, back); diff != "" {
			t.Errorf("it does not come back as it was (-want +got):\n%s", diff)
		}
		if without, _, _ := strings.Cut(text, `,"oidc_provider"`); !strings.HasPrefix(plain, without) || strings.Contains(plain, "oidc_provider") {
			t.Errorf("the provider changes what is beside it:\n%s", text)
		}
	}
}

// More than AWS lets a provider have is bounded before it is held.
func TestReadInventory_longProvider(t *testing.T) {
	ids := strings.Repeat(`"`+strings.Repeat("x", 1000)+`",`, 70)
	_, err := collect(strings.NewReader(withProvider(`{"client_ids":[` + ids + `"x"]}`)))
	if kindOf(err) != serval.TooLarge {
		t.Errorf("got %v, want it refused as too large", err)
	}
	if _, err := collect(strings.NewReader(withProvider(`{"client_ids":[` + ids[:60*1003] + `"x"]}`))); err != nil {
		t.Errorf("of almost as many bytes as are taken: %v", err)
	}
}

// A few bytes of gzip unfold to lists without end: they are bounded in number
// and size, and before they are held.
func TestReadInventory_longLists(t *testing.T) {
	full := `"` + strings.Repeat("x", MaxText) + `"`
	for list, entry := range map[string][2]string{
		"unreadable":  {`{"action":"x"}`, `{"arn":` + full + `,"action":` + full + `}`},
		"near_misses": {`{"arn":"x"}`, `{"arn":` + full + `}`},
		"problems":    {`{"code":"x"}`, `{"message":` + full + `}`},
		"untagged":    {`"x"`, full},
	} {
		many := func(entry string, n int) (serval.Inventory, error) {
			return collect(strings.NewReader(withList(list, slices.Repeat([]string{entry}, n)...)))
		}
		inv, err := many(entry[0], MaxEntries)
		if n := len(inv.Unreadable) + len(inv.NearMisses) + len(inv.Problems) + len(inv.Untagged); err != nil || n != 20_000 {
			t.Errorf("%s: got %d entries, %v; want 20,000", list, n, err)
		}
		if _, err := many(entry[0], MaxEntries+1); kindOf(err) != serval.TooLarge || !strings.Contains(err.Error(), list) {
			t.Errorf("%s with one entry more: got %v, want it refused as too large", list, err)
		}
		if _, err := many(entry[1], MaxListBytes/len(entry[1])-10); err != nil {
			t.Errorf("%s of almost %d bytes: %v", list, MaxListBytes, err)
		}
		if _, err := many(entry[1], MaxListBytes/len(entry[1])+1); kindOf(err) != serval.TooLarge || !strings.Contains(err.Error(), list) {
			t.Errorf("%s of more than %d bytes: got %v, want it refused as too large", list, MaxListBytes, err)
		}

		// Of what has no end, little is read.
		until := strings.TrimSuffix(withList(list), "]}")
		for name, r := range map[string]io.Reader{
			"an entry": io.MultiReader(strings.NewReader(until+`"`), endlessly{}),
			"a list":   io.MultiReader(strings.NewReader(until), strings.NewReader(strings.Repeat(entry[1]+",", 2*MaxListBytes/len(entry[1]))), endlessly{}),
		} {
			most := map[string]int{"an entry": 4 * MaxEntryBytes, "a list": MaxListBytes + 4*MaxEntryBytes}[name]
			endless := &counting{r: r}
			if _, err := ReadInventory(endless, func(serval.Role) error { return nil }); kindOf(err) != serval.TooLarge || endless.n > most {
				t.Errorf("%s of %s without end: got %v after %d bytes, want it refused as too large after at most %d", name, list, err, endless.n, most)
			}
		}
	}
	for name, text := range map[string]string{
		"a text":    small[:strings.Index(small, `"account_name":"`)+len(`"account_name":"`)],
		"a name":    `{"`,
		"no number": `{"generation":"`,
		"a list":    strings.Replace(small, `"problems":[]}`, `"problems":"`, 1),
	} {
		endless := &counting{r: io.MultiReader(strings.NewReader(text), endlessly{})}
		if _, err := ReadInventory(endless, func(serval.Role) error { return nil }); kindOf(err) != serval.TooLarge || endless.n > 4*MaxEntryBytes {
			t.Errorf("%s without end: got %v after %d bytes, want it refused as too large", name, err, endless.n)
		}
	}
}

// TestReadInventory_tooLarge is for bodies that are more than is taken.
func TestReadInventory_tooLarge(t *testing.T) {
	limited := func(text string, n int64) io.Reader {
		return http.MaxBytesReader(httptest.NewRecorder(), io.NopCloser(strings.NewReader(text)), n)
	}
	for n := range len(small) {
		if _, err := collect(limited(small, int64(n))); kindOf(err) != serval.TooLarge {
			t.Errorf("a body of %d bytes where %d are taken: got %v, want it refused as too large", len(small), n, err)
		}
	}
	if _, err := collect(limited(small, int64(len(small)))); err != nil {
		t.Errorf("a body of exactly as many bytes as are taken: %v", err)
	}
	// Behind something that wraps the error, as a decompressor may.
	wrapped := &wrapping{limited(small, 50)}
	if _, err := collect(wrapped); kindOf(err) != serval.TooLarge || !strings.Contains(err.Error(), "50 bytes") {
		t.Errorf("behind another reader: got %v, want it refused as too large with the limit", err)
	}

	// What is large once unzipped is bounded here.
	read := func(text string, most, mostRole int64) error {
		_, err := readInventory(strings.NewReader(text), most, mostRole, func(serval.Role) error { return nil })
		return err
	}
	size := int64(len(small))
	if err := read(small, size, 1000); err != nil {
		t.Errorf("as large as is taken: %v", err)
	}
	for _, most := range []int64{size - 1, size / 2, 1, 0} {
		if err := read(small, most, 1000); kindOf(err) != serval.TooLarge {
			t.Errorf("%d bytes where %d are taken: got %v, want it refused as too large", size, most, err)
		}
	}
	if err := read(small+" ", size, 1000); kindOf(err) != serval.TooLarge {
		t.Errorf("one byte of space more than is taken: got %v, want it refused as too large", err)
	}

	// One role.
	role := func(n int) string { return `{"arn":"` + strings.Repeat("x", n-len(`{"arn":""}`)) + `"}` }
	roles := func(rs ...string) string {
		return strings.Replace(small, `{"arn":"a","tags":{"serval":""}},{}`, strings.Join(rs, ","), 1)
	}
	const mostRole = 20_000
	for _, c := range []struct {
		name  string
		roles []string
		want  serval.Kind
	}{
		{"as large as is taken", []string{role(mostRole)}, ""},
		{"many as large as is taken", []string{role(mostRole), role(mostRole), role(20), role(mostRole)}, ""},
		{"a byte larger", []string{role(mostRole + 1)}, serval.TooLarge},
		{"a byte larger, behind others", []string{role(mostRole), role(mostRole + 1)}, serval.TooLarge},
		{"much larger", []string{role(20), role(10 * mostRole), role(20)}, serval.TooLarge},
		{"space without end between", []string{role(20), strings.Repeat(" ", 10*mostRole) + role(20)}, serval.TooLarge},
		{"space without end behind", []string{role(20) + strings.Repeat(" ", 10*mostRole)}, serval.TooLarge},
	} {
		if err := read(roles(c.roles...), 1<<20, mostRole); kindOf(err) != c.want {
			t.Errorf("a role %s: got %v, want kind %q", c.name, err, c.want)
		}
	}
	// It is refused before it is held: of an endless role little more is read
	// than one may have.
	endless := &counting{r: io.MultiReader(strings.NewReader(small[:strings.Index(small, `{"arn"`)]+`{"arn":"`), endlessly{})}
	_, err := readInventory(endless, 1<<40, mostRole, func(serval.Role) error { return nil })
	if kindOf(err) != serval.TooLarge || endless.n > 2*mostRole {
		t.Errorf("an endless role: got %v after %d bytes, want it refused as too large after about %d", err, endless.n, mostRole)
	}
	if MaxInventoryBytes != 256<<20 {
		t.Errorf("%d bytes are taken, want 256 MiB", MaxInventoryBytes)
	}
}

type wrapping struct{ r io.Reader }

func (w *wrapping) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("unzipping: %w", err)
	}
	return n, err
}

type counting struct {
	r io.Reader
	n int
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

type endlessly struct{}

func (endlessly) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// TestReadInventory_faults breaks the reader after every byte: that is nobody's
// malformed inventory.
func TestReadInventory_faults(t *testing.T) {
	broken := errors.New("connection reset")
	for _, fault := range []error{broken, io.ErrUnexpectedEOF} {
		for i := range len(small) + 1 {
			_, err := collect(io.MultiReader(strings.NewReader(small[:i]), failing{fault}))
			if !errors.Is(err, fault) || serval.IsRefusal(err) {
				t.Fatalf("%v after %d bytes: got %v, want it as a fault", fault, i, err)
			}
		}
	}
	// An error that goes away does not make an inventory of the rest.
	for at := range len(small) + 1 {
		rest, failed := strings.NewReader(small), false
		flaky := readerFunc(func(p []byte) (int, error) {
			if len(small)-rest.Len() == at && !failed {
				failed = true
				return 0, broken
			}
			return rest.Read(p[:1])
		})
		if _, err := collect(flaky); !errors.Is(err, broken) || serval.IsRefusal(err) {
			t.Errorf("a reader that fails once after %d bytes: got %v, want its error", at, err)
		}
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func FuzzReadInventory(f *testing.F) { // T-1
	f.Add([]byte(small))
	f.Add([]byte(written(f, testInventory())))
	f.Add([]byte(small + "x"))
	f.Add([]byte(strings.Replace(small, "inventory/v1", "delta/v1", 1)))
	f.Add([]byte(strings.Replace(small, `{}]`, `{"trust_policy":"\u0000","created_at":"9999-12-31T23:59:59-23:59"}]`, 1)))
	f.Add([]byte(strings.Replace(small, `{}]`, `{"trust_policy": "a", "ARN":"x","tags":null}]`, 1)))
	f.Fuzz(func(t *testing.T, text []byte) {
		inv, err := collect(bytes.NewReader(text))
		if err != nil {
			if !serval.IsRefusal(err, serval.Invalid, serval.TooLarge) {
				t.Fatalf("got %v, want it refused", err)
			}
			return
		}
		// What was taken can be digested, written, and read as the same.
		for _, r := range inv.Roles {
			r.Digest()
		}
		inv.Normalize()
		back, err := collect(strings.NewReader(written(t, inv)))
		if err != nil {
			t.Fatalf("written and read again: %v", err)
		}
		back.Normalize()
		if diff := cmp.Diff(inv, back); diff != "" {
			t.Errorf("it does not come back as it was (-want +got):\n%s", diff)
		}
	})
}
