package trust

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

func TestParse(t *testing.T) {
	ok := when(aud)
	for _, row := range []struct {
		name, policy string
		want         string // the refusal; "" where it is read
	}{
		{"a policy", policy(ok), ""},
		{"element names in any case", `{"version": "2012-10-17", "STATEMENT": [{"effect": "Allow", "principal": {"aws": "*"}, "action": "*", "condition": {}}]}`, ""},
		{"white space", "\n\t" + policy(ok) + "\r\n ", ""},
		{"a name with an escape", `{"\u0053tatement": []}`, ""},
		{"a Sid", `{"Statement": [{"Sid": "a b", "Effect": "Deny", "Principal": "*", "Action": "*"}]}`, ""},
		{"no principals of a kind", policy(statementOf("Allow", `"Principal": {"AWS": []}`, `"*"`, "")), ""},

		{"nothing", "", "The policy is empty."},
		{"no JSON", "AssumeRole", "The policy is not JSON at byte 0, in the document."},
		{"half of it", `{"Statement": [{"Effect": "Allow"`, "The policy is not JSON"},
		{"more than it", policy() + policy(), "The policy goes on after its end, at byte 43."},
		{"not UTF-8", "{\"Statement\": \"\xff\"}", "The policy is not JSON at byte 15"},
		{"a list", "[]", "The policy: an object, not a list."},
		{"a string", `"{}"`, `The policy: an object, not "{}".`},
		{"a name twice", `{"Statement": [{"Effect": "Allow", "Effect": "Deny"}]}`, "The policy has a name twice, at /Statement/0/Effect."},
		{"a name twice in two cases", `{"Statement": [{"Effect": "Allow", "effect": "Deny"}]}`, "Statement 1: Effect is there twice."},
		{"a key twice", policy(when(`{"StringEquals": {"a:b": "c", "a:b": "d"}}`)), "The policy has a name twice, at /Statement/0/Condition/StringEquals/a:b."},
		{"no statement", `{"Version": "2012-10-17"}`, "The policy has no Statement."},
		{"another element", `{"Statement": [], "Policy": {}}`, `The policy: there is no element "Policy".`},
		{"another version", `{"Version": "2012-10-18", "Statement": []}`, `Version: 2012-10-17 or 2008-10-17, not "2012-10-18".`},
		{"an id that is none", `{"Id": {}, "Statement": []}`, "Id: a text, not an object."},
		{"a statement that is none", `{"Statement": ["Allow"]}`, `Statement 1: an object, not "Allow".`},
		{"a resource", policy(ok, `{"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"}`), "Statement 2: a trust policy has no Resource; the role is the resource."},
		{"no effect", policy(`{"Principal": "*", "Action": "*"}`), "Statement 1: there is no Effect."},
		{"an effect in another case", policy(`{"Effect": "allow", "Principal": "*", "Action": "*"}`), `Statement 1, Effect: Allow or Deny, not "allow".`},
		{"no principal", policy(`{"Effect": "Allow", "Action": "*"}`), "Statement 1: there is no Principal; a trust policy names who is trusted."},
		{"both principals", policy(`{"Effect": "Allow", "Principal": "*", "NotPrincipal": "*", "Action": "*"}`), "Statement 1: either Principal or NotPrincipal, not both."},
		{"a principal as a text", policy(`{"Effect": "Allow", "Principal": "444455556666", "Action": "*"}`), `Statement 1, Principal: "*" or an object, not "444455556666".`},
		{"a principal of no kind", policy(`{"Effect": "Allow", "Principal": {"Azure": "x"}, "Action": "*"}`), `Statement 1, Principal: there is no element "Azure".`},
		{"a principal in a list in a list", policy(`{"Effect": "Allow", "Principal": {"AWS": [["*"]]}, "Action": "*"}`), "Statement 1, Principal AWS: a list of texts, with a list in it."},
		{"no action", policy(`{"Effect": "Allow", "Principal": "*"}`), "Statement 1: there is no Action."},
		{"both actions", policy(`{"Effect": "Allow", "Principal": "*", "Action": "*", "NotAction": "*"}`), "Statement 1: either Action or NotAction, not both."},
		{"an action that is null", policy(`{"Effect": "Allow", "Principal": "*", "Action": null}`), "Statement 1, Action: a text or a list of them, not null."},
		{"a condition that is a list", policy(when(`[]`)), "Statement 1, Condition: an object, not a list."},
		{"an operator that is a text", policy(when(`{"StringEquals": "x"}`)), `Statement 1, Condition StringEquals: an object of keys, not "x".`},
		{"a value that is an object", policy(when(`{"StringEquals": {"a:b": {}}}`)), "Statement 1, Condition StringEquals a:b: a text or a list of them, not an object."},
		{"too deep", `{"Statement": ` + strings.Repeat("[", 9000), "The policy is nested too deep, at /Statement/0/0/0/0/0/0/0."},
		{"too long", policy(ok) + strings.Repeat(" ", maxDocument), "bytes; at most 131072 are taken."},
	} {
		_, err := Parse(serval.Document(row.policy))
		switch {
		case row.want == "" && err != nil:
			t.Errorf("%s: %v", row.name, err)
		case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)):
			t.Errorf("%s: got %v, want %q", row.name, err, row.want)
		case err != nil && !serval.IsRefusal(err, serval.Invalid):
			t.Errorf("%s: %v is no refusal", row.name, err)
		}
	}
}

func TestParseContext(t *testing.T) {
	const all = `{"action": "sts:AssumeRole", "role_arn": "arn:aws:iam::111122223333:role/dev", "issuer": "https://x.okta.com",
		"provider_arn": null, "audience": ["a", "b"], "subject": "s", "email": "e", "amr": ["pwd"], "azp": "z", "session_name": "n",
		"source_ip": null, "source_vpce": "vpce-1", "external_id": "x", "caller_arn": "arn:aws:iam::444455556666:user/ana",
		"caller_account": "444455556666", "org_id": "o-1", "passes_tags": {"team": "a"}, "transitive_tags": ["team"],
		"source_identity": "ana", "client_ids": null, "now": "2026-03-01T12:00:00Z"}`
	want := Context{
		Action: "sts:AssumeRole", RoleARN: ourRole, Issuer: Of("https://x.okta.com"), ProviderARN: Absent(), ClientIDs: Absent(), Audience: Of("a", "b"),
		Subject: Of("s"), Email: Of("e"), AMR: Of("pwd"), AZP: Of("z"), SessionName: Of("n"), SourceIP: Absent(), SourceVPCE: Of("vpce-1"),
		ExternalID: Of("x"), CallerARN: Of("arn:aws:iam::444455556666:user/ana"), CallerAccount: Of("444455556666"), OrgID: Of("o-1"),
		PassesTags: TheTags(map[string]string{"team": "a"}), TransitiveTags: TheKeys("team"), SourceIdentity: Of("ana"),
		Now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC),
	}
	inside := cmp.AllowUnexported(Value{}, Tags{}, Keys{})
	got, err := ParseContext([]byte(all))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, inside); diff != "" {
		t.Errorf("a full context (-want +got):\n%s", diff)
	}
	for _, c := range []Context{want, {}, {Action: "sts:AssumeRoleWithWebIdentity", Issuer: Of(ourIssuer), ProviderARN: Of(ourProvider)}, {PassesTags: SomeTags(), TransitiveTags: SomeKeys()}, {PassesTags: NoTags(), TransitiveTags: NoKeys(), AZP: Absent()}, {ClientIDs: Of("a", "b")}} {
		b, err := c.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseContext(b)
		if err != nil {
			t.Errorf("%s: %v", b, err)
		}
		if diff := cmp.Diff(c, again, inside); diff != "" {
			t.Errorf("written and read (-want +got):\n%s", diff)
		}
	}

	for _, row := range []struct{ json, want string }{
		{`{"audiance": "x"}`, `A context has no "audiance".`},
		{`{"azp": "x", "azp": "y"}`, "The context has a name twice, at /azp."},
		{`[]`, "The context: an object, not a list."},
		{`{`, "The context is not JSON"},
		{``, "The context is empty."},
		{`{"action": null}`, "action: a text, not null."},
		{`{"action": ""}`, `action: a text, not "".`},
		{`{"role_arn": "` + strings.Repeat("x", maxText+1) + `"}`, "role_arn: a text, not "},
		{`{"audience": {}}`, "audience: a text of at most 2048 bytes or null, not an object."},
		{`{"amr": ["` + strings.Repeat("x", maxText+1) + `"]}`, "amr: a list of texts of at most 2048 bytes"},
		{`{"subject": ["a"]}`, "subject: a text of at most 2048 bytes or null, not a list."},
		{`{"subject": 7}`, "subject: a text of at most 2048 bytes or null, not 7."},
		{`{"amr": [7]}`, "amr: a list of texts of at most 2048 bytes, with 7 in it."},
		{`{"now": "noon"}`, `now: an RFC 3339 time, not "noon".`},
		{`{"now": null}`, "now: an RFC 3339 time, not null."},
		{`{"passes_tags": "yes"}`, `passes_tags: true, false, null or an object of tags, not "yes".`},
		{`{"passes_tags": {"a": 1}}`, "passes_tags: the value of a tag is a text, not 1."},
		{`{"transitive_tags": {}}`, "transitive_tags: true, false, null or a list of keys, not an object."},
		{`{"source_ip": "1.2.3.4", "source_vpce": "vpce-1"}`, "source_ip and source_vpce: AWS sets"},
		{`{"action": "sts:AssumeRoleWithWebIdentity", "issuer": "https://x.okta.com", "provider_arn": "arn:aws:iam::111122223333:oidc-provider/y.okta.com"}`, "issuer and provider_arn:"},
		{`{"provider_arn": null, "client_ids": "a"}`, "provider_arn and client_ids:"},
		{`{"caller_arn": "arn:aws:iam::444455556666:user/ana", "caller_account": "111122223333"}`, "caller_arn and caller_account:"},
		{`{"subject": "` + strings.Repeat("x", 2049) + `"}`, "subject: a text of at most 2048 bytes"},
	} {
		_, err := ParseContext([]byte(row.json))
		if err == nil || !strings.Contains(err.Error(), row.want) || !serval.IsRefusal(err, serval.Invalid) {
			t.Errorf("%.80s: got %v, want a refusal with %q", row.json, err, row.want)
		}
	}
}

// Documents that are as long as IAM takes, and as hard as can be thought of,
// are judged in time.
func TestPolicy_Judge_bounded(t *testing.T) {
	fill := func(head, each, tail string) string {
		n := (maxDocument - len(head) - len(tail)) / (len(each) + 1)
		return head + strings.TrimSuffix(strings.Repeat(each+",", n), ",") + tail
	}
	hard := `"` + strings.Repeat("*a", 60) + `*b"`
	long := web("subject", strings.Repeat("a", maxText))
	for _, row := range []struct {
		name, policy string
		given        given
	}{
		{"statements", fill(`{"Version": "2012-10-17", "Statement": [`, when(aud), "]}"), web("audience", "x")},
		{"statements of another server", fill(`{"Version": "2012-10-17", "Statement": [`, statementOf("Allow", `"Principal": {"Federated": "arn:aws:iam::111122223333:oidc-provider/x.okta.com"}`, webAction, ""), "]}"), web("audience", "x")},
		{"principals", fill(`{"Statement": [{"Effect": "Allow", "Action": "sts:*", "Principal": {"AWS": [`, `"444455556666"`, "]}}]}"), assume("external_id", nil)},
		{"not principals", fill(`{"Statement": [{"Effect": "Allow", "Action": "sts:*", "NotPrincipal": {"AWS": [`, `"444455556666"`, "]}}]}"), assume()},
		{"actions", fill(`{"Statement": [{"Effect": "Allow", "Principal": "*", "Action": [`, `"*?*?*?*?x"`, "]}]}"), web()},
		{"patterns", fill(`{"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "*", "Condition": {"StringLike": {"`+ourPrefix+`:sub": [`, hard, "]}}}]}"), long},
		{"one pattern", `{"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "*", "Condition": {"StringLike": {"` + ourPrefix + `:sub": "` + strings.Repeat("*a", 60000) + `b"}}}]}`, long},
		{"variables", `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "*", "Condition": {"StringLike": {"sts:RoleSessionName": "` + strings.Repeat("${"+ourPrefix+":sub}*", 3000) + `"}}}]}`, long},
		{"keys", `{"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "*", "Condition": {"StringEquals": {` + func() string {
			var b strings.Builder
			for i := range 6000 {
				if i > 0 {
					b.WriteByte(',')
				}
				b.WriteString(quote(strings.Repeat("k", 1+i%7)+string(rune('a'+i%26))+time.Duration(i).String()) + `:""`)
			}
			return b.String()
		}() + `}}}]}`, web()},
	} {
		if len(row.policy) > maxDocument {
			t.Errorf("%s: %d bytes", row.name, len(row.policy))
			continue
		}
		start := time.Now()
		p := parse(t, row.policy)
		v := p.Judge(row.given(t))
		p.Findings(ours)
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s: %d bytes took %v (%s)", row.name, len(row.policy), took, v.Reason)
		} else {
			t.Logf("%s: %v, %s", row.name, took, clip(v.Reason, 100))
		}
	}
}
