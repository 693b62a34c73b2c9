package serval

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestExternalID_S23(t *testing.T) { // S-23
	key := NewSecret("0123456789abcdef0123456789abcdef")
	// AWS's own pattern, STS API Reference, AssumeRole.
	pattern := regexp.MustCompile(`^[\w+=,.@:/-]+$`)

	const want = "3e4b1c964f58edb7c8d61572925d606c64425e7055c60c36e3e8a2b2e78947b3" // computed apart, by RFC 5869 and 2104
	if got := ExternalID(key, "acme"); got != want {
		t.Errorf("the External ID of acme is %s, want %s: every trust policy has it", got, want)
	}
	if ExternalID(key, "acme") != ExternalID(NewSecret(key.Reveal()), "acme") {
		t.Error("the External ID is not the same on every connect")
	}

	teams := []string{"", " ", "acme", "Acme", "acme ", " acme", "acm", "e", "\x00", "\xff", "ü", "u\u0308", "acme\x00", strings.Repeat("a", 1000)}
	for i := range 5_000 {
		teams = append(teams, fmt.Sprintf("team-%d", i))
	}
	seen := map[string]string{}
	for _, k := range []Secret{key, NewSecret("another key of thirty-two bytes!"), NewSecret("")} {
		for _, team := range teams {
			id := ExternalID(k, team)
			if len(id) != 64 || !pattern.MatchString(id) || !isExternalID(id) {
				t.Fatalf("the External ID of %q is %q, which is not 64 characters that AWS takes", team, id)
			}
			if other, taken := seen[id]; taken {
				t.Fatalf("%q and %s have the same External ID", team, other)
			}
			seen[id] = team
			if f := ExternalIDFingerprint(k, team); len(f) != 16 || strings.Contains(id, f) {
				t.Fatalf("the fingerprint of %q is %q; want 16 characters that tell nothing of %s", team, f, id)
			}
		}
	}
	was := ExternalIDFingerprint(key, "acme")
	if was != ExternalIDFingerprint(key, "acme") || was == ExternalIDFingerprint(key, "acme2") || was == ExternalIDFingerprint(NewSecret("x"), "acme") {
		t.Error("the fingerprint does not tell a changed team or key")
	}
}

func testAccount() Account {
	return Account{
		ID: "111122223333", Name: "prod", Partition: "aws", RoleARN: "arn:aws:iam::111122223333:role/serval-ingestion",
		ExternalID: strings.Repeat("a", 64),
	}
}

func TestAccount_Faults(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(a *Account)
		want string // the faults' fields
	}{
		{"none", func(a *Account) {}, ""},
		{"all that may be set", func(a *Account) {
			a.Via = []Hop{{RoleARN: "arn:aws:iam::444455556666:role/hub"}, {"arn:aws:iam::444455556666:role/next", "x:y/z"}}
			a.DefaultRegion, a.WorkflowRoleARN = "eu-central-1", "arn:aws:iam::111122223333:role/serval-workflow"
			a.STS = STS{Region: "us-west-1", Endpoint: "https://sts.us-west-1.amazonaws.com", Dial: "nlb.internal:443", HTTPProxy: "http://proxy:3128"}
		}, ""},
		{"the partition is the role's", func(a *Account) { a.Partition = "" }, ""},
		{"no id", func(a *Account) { a.ID = "" }, "id role_arn"},
		{"a short id", func(a *Account) { a.ID = "1111" }, "id role_arn"},
		{"no name", func(a *Account) { a.Name = "" }, "name"},
		{"a blank name", func(a *Account) { a.Name = " \t" }, "name"},
		{"a name of 100", func(a *Account) { a.Name = strings.Repeat("ü", 100) }, ""},
		{"a name of 101", func(a *Account) { a.Name = strings.Repeat("ü", 101) }, "name"},
		{"a name of two lines", func(a *Account) { a.Name = "prod\nadmin" }, "name"}, // S-25
		{"no role", func(a *Account) { a.RoleARN = "" }, "role_arn"},
		{"another account's role", func(a *Account) { a.RoleARN = "arn:aws:iam::999922223333:role/serval-ingestion" }, "role_arn"}, // S-85
		{"another partition's role", func(a *Account) { a.RoleARN = "arn:aws-cn:iam::111122223333:role/serval-ingestion" }, "role_arn"},
		{"an unknown partition", func(a *Account) { a.Partition = "mars" }, "role_arn"},
		{"no External ID", func(a *Account) { a.ExternalID = "" }, "external_id"},
		{"an External ID of 1", func(a *Account) { a.ExternalID = "a" }, "external_id"},
		{"an External ID of 2", func(a *Account) { a.ExternalID = "a:" }, ""},
		{"an External ID of 1224", func(a *Account) { a.ExternalID = strings.Repeat("a", 1224) }, ""},
		{"an External ID of 1225", func(a *Account) { a.ExternalID = strings.Repeat("a", 1225) }, "external_id"},
		{"an External ID with a space", func(a *Account) { a.ExternalID = "a b" }, "external_id"},
		{"an External ID with a line break", func(a *Account) { a.ExternalID = "ab\n" }, "external_id"},
		{"an External ID with ü", func(a *Account) { a.ExternalID = "aü" }, "external_id"},
		{"as many hops as there may be", func(a *Account) {
			a.Via = slices.Repeat([]Hop{{RoleARN: "arn:aws:iam::444455556666:role/hub"}}, maxVia)
		}, ""},
		{"a hop too many", func(a *Account) {
			a.Via = slices.Repeat([]Hop{{RoleARN: "arn:aws:iam::444455556666:role/hub"}}, maxVia+1)
		}, "via"},
		{"a hop that is no role", func(a *Account) { a.Via = []Hop{{RoleARN: "x"}} }, "via[0].role_arn"},
		{"a hop in another partition", func(a *Account) { a.Via = []Hop{{RoleARN: "arn:aws-cn:iam::444455556666:role/hub"}} }, "via[0].role_arn"},
		{"a hop's bad External ID", func(a *Account) {
			a.Via = []Hop{{RoleARN: "arn:aws:iam::444455556666:role/hub"}, {"arn:aws:iam::444455556666:role/b", "x"}}
		}, "via[1].external_id"},
		{"the ingestion role as workflow role", func(a *Account) { a.WorkflowRoleARN = a.RoleARN }, "workflow_role_arn"},
		{"no role as workflow role", func(a *Account) { a.WorkflowRoleARN = "x" }, "workflow_role_arn"},
		{"another account's workflow role", func(a *Account) { a.WorkflowRoleARN = "arn:aws:iam::999922223333:role/w" }, "workflow_role_arn"},
		{"a default region that is none", func(a *Account) { a.DefaultRegion = "Europe" }, "default_region"},
		{"a region that is a host", func(a *Account) { a.STS.Region = "us-west-1.evil.example/" }, "sts.region"},
		{"an endpoint in clear", func(a *Account) { a.STS.Endpoint = "http://sts.example.com" }, "sts.endpoint"},
		{"a dial without a port", func(a *Account) { a.STS.Dial = "nlb.internal" }, "sts.dial"},
		{"a dial with an empty port", func(a *Account) { a.STS.Dial = "nlb.internal:" }, "sts.dial"},
		{"a dial without a host", func(a *Account) { a.STS.Dial = ":443" }, "sts.dial"},
		{"a dial of an address without brackets", func(a *Account) { a.STS.Dial = "2001:db8::1:443" }, "sts.dial"},
		{"a proxy spoken to by TLS", func(a *Account) { a.STS.HTTPProxy = "https://proxy:3128" }, ""},
		{"a proxy that is no URL", func(a *Account) { a.STS.HTTPProxy = "proxy:3128" }, "sts.http_proxy"},
		{"a proxy that cannot be read", func(a *Account) { a.STS.HTTPProxy = "http://%" }, "sts.http_proxy"},
		{"a proxy without a host", func(a *Account) { a.STS.HTTPProxy = "http://:3128" }, "sts.http_proxy"},
		{"a proxy of another kind", func(a *Account) { a.STS.HTTPProxy = "socks5://proxy:1080" }, "sts.http_proxy"},
		{"all at once", func(a *Account) {
			*a = Account{Via: []Hop{{"x", "y"}}, WorkflowRoleARN: "x", DefaultRegion: "x", STS: STS{"x", "x", "x", "x"}}
		}, "id name role_arn workflow_role_arn via[0].role_arn via[0].external_id external_id default_region sts.region sts.endpoint sts.dial sts.http_proxy"},
	} {
		a := testAccount()
		c.do(&a)
		faults := a.Faults()
		if diff := cmp.Diff(c.want, fieldsOf(faults)); diff != "" {
			t.Errorf("%s (-want +got):\n%s%s", c.name, diff, strings.Join(faults, "\n"))
		}
	}
}

// fieldsOf returns the fields that faults name, one after the other.
func fieldsOf(faults []string) string {
	var fields []string
	for _, f := range faults {
		field, sentence, _ := strings.Cut(f, ": ")
		if !strings.HasSuffix(sentence, ".") && sentence != "invalid role ARN format" {
			field += " (no sentence: " + sentence + ")"
		}
		fields = append(fields, field)
	}
	return strings.Join(fields, " ")
}

func TestSTSRegion(t *testing.T) { // S-82
	for partition, want := range map[string]string{
		"aws": "us-west-1", "aws-us-gov": "us-gov-west-1", "aws-cn": "cn-north-1", "aws-iso": "", "": "",
	} {
		if got := DefaultSTSRegion(partition); got != want {
			t.Errorf("DefaultSTSRegion(%q) = %q, want %q", partition, got, want)
		}
		if got := (Account{Partition: partition}).STSRegion(); got != want {
			t.Errorf("an account in %q is reached in %q, want %q", partition, got, want)
		}
		if got := (Account{Partition: partition, STS: STS{Region: "eu-west-1"}}).STSRegion(); got != "eu-west-1" {
			t.Errorf("an account in %q with a region is reached in %q, want that region", partition, got)
		}
	}
	for name, want := range map[string]bool{
		"us-east-1": true, "us-gov-west-1": true, "cn-north-1": true, "ap-southeast-7": true, "us-isob-east-1": true, "eusc-de-east-1": true,
		"mx-central-1": true, "us-east": false, "": false, "us-east-1.evil": false, "US-EAST-1": false, "us-east-1\n": false,
	} {
		if got := region.MatchString(name); got != want {
			t.Errorf("%q is a region: got %t, want %t", name, got, want)
		}
	}
}

func TestCheckEndpoint_S82(t *testing.T) { // S-82
	for endpoint, ok := range map[string]bool{
		"https://sts.us-west-1.amazonaws.com":        true,
		"https://sts.us-west-1.amazonaws.com:8443/x": true,
		"http://127.0.0.1:4566":                      true,
		"http://127.255.0.9":                         true,
		"http://[::1]:4566":                          true,
		"http://localhost:4566":                      true,
		"http://sts.us-west-1.amazonaws.com":         false,
		"http://169.254.169.254":                     false,
		"http://10.0.0.1":                            false,
		"http://0.0.0.0":                             false,
		"http://localhost.evil.com":                  false,
		"http://127.0.0.1.evil.com":                  false,
		"http://localhost@evil.com":                  false,
		"https://user:password@sts.amazonaws.com":    false,
		"https://":                    false,
		"https://:443":                false,
		"https:sts.amazonaws.com":     false,
		"sts.amazonaws.com":           false,
		"":                            false,
		"ftp://127.0.0.1":             false,
		"file:///etc/passwd":          false,
		"https://sts.amazonaws.com\n": false,
		"https://%zz":                 false,
		"HTTPS://sts.amazonaws.com":   true,
		"http://[::ffff:127.0.0.1]":   true,
		"http://2130706433":           false,
		"https://sts.us-west-1.amazonaws.com@evil.com": false,
	} {
		if err := CheckEndpoint(endpoint); (err == nil) != ok || err != nil && kindOf(err) != Invalid {
			t.Errorf("CheckEndpoint(%q) = %v, want accepted %t", endpoint, err, ok)
		}
	}
	for host, want := range map[string]bool{
		"localhost": true, "127.0.0.1": true, "127.1.2.3": true, "::1": true, "": false, "LOCALHOST": false, "127.1": false,
		"::": false, "0.0.0.0": false, "example.com": false, "128.0.0.1": false,
	} {
		if got := IsLoopback(host); got != want {
			t.Errorf("IsLoopback(%q) = %t, want %t", host, got, want)
		}
	}
}
