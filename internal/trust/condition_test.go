package trust

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// What the tables of whole policies pass by: values that no page of AWS's gives a
// meaning are not guessed at, and what is the same needs no page.
func TestMatch(t *testing.T) {
	for _, row := range []struct {
		test      test
		want, got string
		kind      kind
		truth     truth
	}{
		{testBool, "True", "true", kindText, yes},
		{testBool, "false", "true", kindText, no},
		{testBool, "yes", "true", kindText, unknown},
		{testBool, "true", "1", kindText, unknown},
		{testBool, "${aws:username}", "true", kindText, unknown},

		{testEqualsFold, "ANA", "ana", kindText, yes},
		{testEqualsFold, "ANA", "bob", kindText, no},
		{testEqualsFold, "ä", "ä", kindText, yes},
		{testEqualsFold, "Ä", "ä", kindText, unknown},
		{testEqualsFold, "a", "ä", kindText, unknown},
		{testEqualsFold, "ä", "a", kindText, unknown},

		{testNumericLess, "10", "9.5", kindText, yes},
		{testNumericLess, "1e1", "+9", kindText, yes},
		{testNumericEquals, "0x10", "16", kindText, unknown},
		{testNumericEquals, "16", "0x10", kindText, unknown},
		{testNumericGreater, "1", "inf", kindText, unknown},
		{testNumericLess, "nan", "1", kindText, unknown},
		{testNumericGreater, "1", "1e999", kindText, unknown},
		{testNumericEquals, "${aws:username}", "1", kindText, unknown},

		{testAddress, "203.0.113.0/24", "203.0.113.7", kindAddress, yes},
		{testAddress, "203.0.113.7", "::ffff:203.0.113.7", kindAddress, yes},
		{testAddress, "203.0.113.0/24", "::ffff:203.0.113.7", kindAddress, yes},
		{testAddress, "203.0.113.8", "203.0.113.7", kindAddress, no},
		{testAddress, "fe80::/10", "fe80::1%eth0", kindAddress, unknown},
		{testAddress, "fe80::1%eth0", "fe80::1", kindAddress, unknown},
		{testAddress, "a network", "203.0.113.7", kindAddress, unknown},
		{testAddress, "${aws:SourceIp}", "203.0.113.7", kindAddress, unknown},
		{testEquals, "203.0.113.7", "203.0.113.7", kindAddress, unknown},

		{testARN, "arn:aws:iam::*:role/dev", ourRole, kindText, yes},
		{testARN, "arn:aws:iam::111122223333:role/${aws:PrincipalTag/none}", ourRole, kindText, unknown},
		{testARN, "role/dev", ourRole, kindText, unknown},
		{testARN, ourRole, "arn:aws", kindText, unknown},
		{testARN, "id:aws:iam::111122223333:role/dev", ourRole, kindText, unknown},
		{testARN, ourRole, "id:aws:iam::111122223333:role/dev", kindText, unknown},

		{testDateLess, "2026-03-01T12:00:01Z", "", kindTime, yes},
		{testDateLess, "noon", "", kindTime, unknown},
		{testDateLess, "2027", "", kindTime, unknown}, // a year, or seconds
		{testDateLess, "20270301120000", "", kindTime, unknown},
		{testDateLess, "2026-03-02", "2026-03-01", kindText, yes},
		{testDateLess, "2026-03-02", "noon", kindText, unknown},
		{testDateGreater, "noon", "2026-03-01", kindText, unknown},
		{testDateLess, "${aws:CurrentTime}", "", kindTime, unknown},
		{testNumericLess, "1772366401", "", kindEpoch, yes},
		{testNumericLess, "1772366401", "", kindTime, unknown},
		{testNumericLess, "soon", "", kindEpoch, unknown},
		{testEquals, "2026-03-01T12:00:00Z", "", kindTime, unknown},

		{testBinary, "YQ==", "YQ==", kindText, unknown},
	} {
		steps := maxSteps
		q := &question{Context: Context{Now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}, variables: true, steps: &steps}
		if got := q.match(row.test, row.want, row.got, row.kind); got != row.truth {
			t.Errorf("test %d of %q with %q: %d, want %d", row.test, row.got, row.want, got, row.truth)
		}
	}
}

func TestHolds(t *testing.T) {
	here := Context{Action: "sts:AssumeRole", RoleARN: ourRole, SessionName: Of("ana"), ExternalID: Absent(), SourceIdentity: Of(""),
		Now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	for _, row := range []struct {
		condition condition
		truth     truth
	}{
		{condition{test: testEquals, key: newKey("sts:RoleSessionName"), values: []string{"ana"}}, yes},
		{condition{test: testEquals, key: newKey("sts:RoleSessionName")}, unknown},
		{condition{test: testEquals, key: newKey("sts:RoleSessionName"), negated: true}, unknown},
		{condition{test: testUnknown, key: newKey("sts:ExternalId"), values: []string{"x"}}, unknown},
		{condition{test: testEquals, key: newKey("sts:ExternalId"), values: []string{"x"}}, no},
		// An empty text is a null data set for an operator of sets only, and a time is none.
		{condition{test: testEquals, key: newKey("sts:SourceIdentity"), values: []string{""}}, yes},
		{condition{test: testEquals, key: newKey("sts:SourceIdentity"), values: []string{"x"}, set: allOf}, yes},
		{condition{test: testEquals, key: newKey("sts:SourceIdentity"), values: []string{""}, set: anyOf}, no},
		{condition{test: testDateLess, key: newKey("aws:CurrentTime"), values: []string{"2026-03-01"}, set: allOf}, no},
		// Without variables in the version's language a text that looks like one is a text.
		{condition{test: testEquals, key: newKey("sts:RoleSessionName"), values: []string{"${sts:ExternalId}"}, negated: true}, yes},
	} {
		steps := maxSteps
		q := &question{Context: here, operation: assumeRole, steps: &steps}
		if got := q.holds(&row.condition); got != row.truth {
			t.Errorf("%s: %d, want %d", &row.condition, got, row.truth)
		}
	}
	// What is no text is compared with nothing: its bytes would be wildcards.
	steps := maxSteps
	q := &question{Context: Context{SessionName: Of("\xff")}, operation: assumeRole, steps: &steps}
	if got := q.holds(&condition{test: testEquals, key: newKey("sts:RoleSessionName"), values: []string{"a"}, negated: true}); got != unknown {
		t.Errorf("a session name that is no text: %d", got)
	}
}

// What stands before a key's last colon is a provider where it can be one.
func TestNewKey(t *testing.T) {
	for name, want := range map[string]string{
		"x.okta.com/oauth2/aus1:AUD": "x.okta.com/oauth2/aus1", "x.example.com:8443/a:aud": "x.example.com:8443/a",
		"localhost:aud": "localhost", "localhost/dex:aud": "localhost/dex", "localhost:5556/dex:aud": "localhost:5556/dex",
		"aws:aud": "", "saml:aud": "", "localhosts:aud": "", "aud": "", ":aud": "",
		"x.example.com::aud": "", "x.example.com:/:aud": "", "x.example.com:a:aud": "", "x.example.com:8:9:aud": "",
	} {
		if k := newKey(name); k.provider != want || (k.claim == "aud") != (want != "") || k.lower != strings.ToLower(name) {
			t.Errorf("%s: of %q the claim %q, want %q's", name, k.provider, k.claim, want)
		}
	}
}

func TestCondition_String(t *testing.T) {
	for n, want := range []string{"StringEquals k", `StringEquals k "0"`, `StringEquals k "0", "1"`, `StringEquals k "0", "1", "2"`, `StringEquals k "0", "1", "2", "..."`} {
		c := condition{operator: "StringEquals", key: key{name: "k"}}
		for i := range n {
			c.values = append(c.values, fmt.Sprint(i))
		}
		if got := c.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if len(c.values) != n {
			t.Errorf("its values are %q now", c.values)
		}
	}
}

// What is read is bounded, and so is what is found.
func TestBounds(t *testing.T) {
	texts := func(n int) string { return `{"amr": [` + strings.TrimSuffix(strings.Repeat(`"x",`, n), ",") + `]}` }
	if _, err := ParseContext([]byte(texts(maxTexts))); err != nil {
		t.Errorf("%d texts: %v", maxTexts, err)
	}
	if _, err := ParseContext([]byte(texts(maxTexts + 1))); !serval.IsRefusal(err, serval.Invalid) {
		t.Errorf("%d texts: %v", maxTexts+1, err)
	}
	var principals []string
	for i := range maxFindingsOfStatement + 1 {
		principals = append(principals, fmt.Sprintf(`"arn:aws:iam::111122223333:user/u%d"`, i))
	}
	long := statementOf("Allow", `"Principal": {"AWS": [`+strings.Join(principals, ", ")+`]}`, `"sts:AssumeRole"`, "")
	if n := len(parse(t, policy(long)).Findings(ours)); n != maxFindingsOfStatement {
		t.Errorf("%d findings of one statement, want %d", n, maxFindingsOfStatement)
	}
	var many []string
	for range 2 * maxFindings / maxFindingsOfStatement {
		many = append(many, long)
	}
	if n := len(parse(t, policy(many...)).Findings(ours)); n < maxFindings || n > maxFindings+maxFindingsOfStatement {
		t.Errorf("%d findings, want some %d", n, maxFindings)
	}
}

func TestParseSeverity(t *testing.T) {
	for _, s := range []Severity{High, Medium, Low} {
		if got, err := ParseSeverity(string(s)); got != s || err != nil {
			t.Errorf("%s: %q, %v", s, got, err)
		}
	}
	for _, text := range []string{"", "grave", "HIGH"} {
		if got, err := ParseSeverity(text); got != "" || !serval.IsRefusal(err, serval.Invalid) {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

// What is empty stands on one line, and a name that is none is quoted.
func TestWriteTerraform(t *testing.T) {
	for text, want := range map[string]string{
		`{}`:                          "{}",
		`[]`:                          "[]",
		`{"a": {}, "b_1": [], "": 1}`: "{\n  a   = {}\n  b_1 = []\n  \"\"  = \"1\"\n}",
		`{"é": 1}`:                    "{\n  \"é\" = \"1\"\n}",
		`{"a{": 1, "a[": 1}`:          "{\n  \"a{\" = \"1\"\n  \"a[\" = \"1\"\n}",
		`{"a.b": 1}`:                  "{\n  \"a.b\" = \"1\"\n}",
		`{"1a": "${x}", "a:b": true}`: "{\n  \"1a\"  = \"$${x}\"\n  \"a:b\" = true\n}",
	} {
		n, err := readJSON("a text", []byte(text), 10)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if n.writeTerraform(&b, "\n"); b.String() != want {
			t.Errorf("%s is %s, want %s", text, b.String(), want)
		}
	}
}

// What an AWS principal is, by its name; what no page of AWS's names is nobody we
// know.
func TestIdentify(t *testing.T) {
	const home = "444455556666"
	for id, want := range map[string]identity{
		"*":                                     {class: everyone},
		home:                                    {class: account, account: home},
		"arn:aws:iam::" + home + ":root":        {class: account, account: home},
		"arn:aws-cn:iam::" + home + ":user/a/b": {class: user, account: home, name: "a/b"},
		"arn:aws:iam::" + home + ":role/a/b":    {class: role, account: home, name: "b"},
		"arn:aws:sts::" + home + ":assumed-role/b/s": {class: session, account: home, name: "b", session: "s"},
		"arn:aws:sts::" + home + ":federated-user/a": {class: federatedUser, account: home, name: "a"},
		"AROAIIAV3SAMPLEEXAMPLE":                     {class: uniqueID},
		"AIDA" + strings.Repeat("0", 124):            {class: uniqueID},

		"":                              {},
		"44445555666":                   {},
		"44445555666x":                  {},
		"arn:aws:iam::" + home:          {},
		"id:aws:iam::" + home + ":root": {},
		"arn:aws:iam:us-east-1:" + home + ":root":    {},
		"arn:aws:iam::44445555666:root":              {},
		"arn:aws:iam::" + home + ":role/*":           {},
		"arn:aws:iam::" + home + ":role/?":           {},
		"arn:aws:sts::" + home + ":root":             {account: home},
		"arn:aws:iam::" + home + ":user/":            {account: home},
		"arn:aws:iam::" + home + ":role/":            {account: home},
		"arn:aws:iam::" + home + ":group/a":          {account: home},
		"arn:aws:sts::" + home + ":user/a":           {account: home},
		"arn:aws:sts::" + home + ":role/a":           {account: home},
		"arn:aws:sts::" + home + ":assumed-role/b":   {account: home, name: "b"},
		"arn:aws:iam::" + home + ":assumed-role/b/s": {account: home},
		"arn:aws:sts::" + home + ":federated-user/":  {account: home},
		"arn:aws:iam::" + home + ":federated-user/a": {account: home},
		"AROAIIAV3SAMPLE":                            {},
		"AIDA" + strings.Repeat("0", 125):            {},
		"BROAIIAV3SAMPLEEXAMPLE":                     {},
		"AXXAIIAV3SAMPLEEXAMPLE":                     {},
		"AROAiIAV3SAMPLEEXAMPLE":                     {},
		"AROA-IAV3SAMPLEEXAMPLE":                     {},
		"AROA:IAV3SAMPLEEXAMPLE":                     {},
		"AROA[IAV3SAMPLEEXAMPLE":                     {},
	} {
		if got := identify(id); got != want {
			t.Errorf("%q is %+v, want %+v", id, got, want)
		}
	}
}
