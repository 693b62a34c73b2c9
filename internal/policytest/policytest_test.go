package policytest

import (
	"fmt"
	"strings"
	"testing"
)

// TestEvaluate judges one statement, or a list of them, at a time. A row without a principal is of an
// identity policy.
// The pages of AWS's that decide the rows: the IAM User Guide's, by their titles.
const (
	pLogic       = "Policy evaluation logic: an explicit deny overrides any allow; what nothing allows is denied"
	pAction      = "IAM JSON policy elements: Action: prefix and action name are case-insensitive; * and ? are wildcards"
	pNotAction   = "IAM JSON policy elements: NotAction: everything but the listed actions"
	pResource    = "IAM JSON policy elements: Resource: ARNs, with wildcards, case-sensitive"
	pNotResource = "IAM JSON policy elements: NotResource: every resource but those listed"
	pPrincipal   = "AWS JSON policy elements: Principal: accounts, roles, role sessions, federated principals, services; a wildcard only alone"
	pNot         = "AWS JSON policy elements: NotPrincipal: everybody but the listed principals"
	pCondition   = "IAM JSON policy elements: Condition: names of condition keys are not case-sensitive"
	pOperators   = "IAM JSON policy elements: Condition operators: what each compares, negated operators and IfExists on absent keys, Null"
	pSets        = "Single-valued vs. multivalued context keys: ForAllValues is true of an absent key, ForAnyValue is not"
	pMany        = "Conditions with multiple context keys or values: operators and keys are joined by AND, values by OR"
	pVariables   = "IAM policy elements: Variables and tags: values of variables hold no wildcards; without value and default nothing matches"
	pSTSKeys     = "IAM and AWS STS condition context keys: those of OIDC federation are named after the provider"
	pExternalID  = "Access to AWS accounts owned by third parties: sts:ExternalId must be the one of the trust policy"
	pRevoke      = "Revoke IAM role temporary security credentials: Deny where aws:TokenIssueTime is before an instant"
	pSourceIP    = "AWS: Denies access to AWS based on the source IP: NotIpAddress with aws:ViaAWSService false"
)

func TestEvaluate(t *testing.T) {
	context := map[string][]string{
		"aws:currenttime":         {"2026-03-01T12:00:00Z"},
		"aws:epochtime":           {"1772366400"},
		"aws:tokenissuetime":      {"2026-03-01T11:00:00Z"},
		"aws:userid":              {"AROAEXAMPLE:ann@example.com"},
		"aws:sourceip":            {"203.0.113.7"},
		"aws:viaawsservice":       {"false"},
		"aws:principalarn":        {"arn:aws:iam::111122223333:role/worker"},
		"aws:principaltag/team":   {"blue"},
		"aws:tagkeys":             {"team", "cost"},
		"aws:username":            {"a*b"},
		"sts:externalid":          {"right"},
		"login.example.com/x:aud": {"client"},
		"login.example.com/x:amr": {"pwd", "mfa"},
	}
	const (
		allow, deny, none = "allow", "deny", "none"
		session           = "arn:aws:sts::111122223333:assumed-role/worker/w"
		roleARN           = "arn:aws:iam::111122223333:role/worker"
		idp               = "arn:aws:iam::444455556666:oidc-provider/login.example.com/x"
	)
	caller := Asker{Account: "111122223333", Self: session, Role: roleARN}
	web := Asker{Federated: idp}
	pods := Asker{Service: "pods.eks.amazonaws.com"}
	if1 := func(condition string) string {
		return `{"Effect":"Allow","Action":"*","Resource":"*","Condition":` + condition + `}`
	}
	trust := func(principal string) string {
		return `{"Effect":"Allow","Principal":` + principal + `,"Action":"sts:*"}`
	}
	tests := []struct {
		name       string
		statements string
		action     string // iam:GetRole unless set
		resource   string
		who        Asker
		want       string
		page       string // of AWS's that decides it
	}{
		{"all", `{"Effect":"Allow","Action":"*","Resource":"*"}`, "", "", Asker{}, allow, pLogic},
		{"nothing", ``, "", "", Asker{}, none, pLogic},
		{"action ignores case", `{"Effect":"Allow","Action":"IAM:getrole","Resource":"*"}`, "", "", Asker{}, allow, pAction},
		{"action prefix", `{"Effect":"Allow","Action":["s3:*","iam:Get*"],"Resource":"*"}`, "", "", Asker{}, allow, pAction},
		{"question mark", `{"Effect":"Allow","Action":"iam:GetRol?","Resource":"*"}`, "", "", Asker{}, allow, pAction},
		{"other action", `{"Effect":"Allow","Action":"iam:List*","Resource":"*"}`, "", "", Asker{}, none, pAction},
		{"not action", `{"Effect":"Allow","NotAction":"iam:*","Resource":"*"}`, "", "", Asker{}, none, pNotAction},
		{"not other action", `{"Effect":"Allow","NotAction":"s3:*","Resource":"*"}`, "", "", Asker{}, allow, pNotAction},
		{"resource", `{"Effect":"Allow","Action":"*","Resource":"arn:aws:iam::*:role/serval/*"}`, "", "arn:aws:iam::111122223333:role/serval/x", Asker{}, allow, pResource},
		{"resource heeds case", `{"Effect":"Allow","Action":"*","Resource":"arn:aws:iam::*:role/Serval/*"}`, "", "arn:aws:iam::111122223333:role/serval/x", Asker{}, none, pResource},
		{"not resource", `{"Effect":"Deny","Action":"*","NotResource":"arn:aws:iam::111122223333:role/a"}`, "", "arn:aws:iam::111122223333:role/b", Asker{}, deny, pNotResource},
		{"deny wins", `{"Effect":"Allow","Action":"*","Resource":"*"},{"Effect":"Deny","Action":"iam:*","Resource":"*"}`, "", "", Asker{}, deny, pLogic},
		{"deny first wins", `{"Effect":"Deny","Action":"iam:*","Resource":"*"},{"Effect":"Allow","Action":"*","Resource":"*"}`, "", "", Asker{}, deny, pLogic},

		{"string equals", if1(`{"StringEquals":{"aws:PrincipalTag/team":"blue"}}`), "", "", Asker{}, allow, pOperators},
		{"string equals one of", if1(`{"StringEquals":{"aws:PrincipalTag/team":["red","blue"]}}`), "", "", Asker{}, allow, pMany},
		{"string equals heeds case", if1(`{"StringEquals":{"aws:PrincipalTag/team":"Blue"}}`), "", "", Asker{}, none, pOperators},
		{"string equals takes no wildcard", if1(`{"StringEquals":{"aws:PrincipalTag/team":"bl*"}}`), "", "", Asker{}, none, pOperators},
		{"key ignores case", if1(`{"StringEquals":{"AWS:principaltag/TEAM":"blue"}}`), "", "", Asker{}, allow, pCondition},
		{"string equals absent", if1(`{"StringEquals":{"aws:PrincipalTag/x":"blue"}}`), "", "", Asker{}, none, pOperators},
		{"string equals if exists, absent", if1(`{"StringEqualsIfExists":{"aws:PrincipalTag/x":"blue"}}`), "", "", Asker{}, allow, pOperators},
		{"string equals if exists, other", if1(`{"StringEqualsIfExists":{"aws:PrincipalTag/team":"red"}}`), "", "", Asker{}, none, pOperators},
		{"string not equals", if1(`{"StringNotEquals":{"aws:PrincipalTag/team":["red","blue"]}}`), "", "", Asker{}, none, pOperators},
		{"string not equals absent", if1(`{"StringNotEquals":{"aws:PrincipalTag/x":"blue"}}`), "", "", Asker{}, allow, pOperators},
		{"string equals ignore case", if1(`{"StringEqualsIgnoreCase":{"aws:PrincipalTag/team":"BLUE"}}`), "", "", Asker{}, allow, pOperators},
		{"string not equals ignore case", if1(`{"StringNotEqualsIgnoreCase":{"aws:PrincipalTag/team":"BLUE"}}`), "", "", Asker{}, none, pOperators},
		{"string like", if1(`{"StringLike":{"aws:userid":"AROAEXAMPLE:*@example.com"}}`), "", "", Asker{}, allow, pOperators},
		{"string not like", if1(`{"StringNotLike":{"aws:userid":"AROAEXAMPLE:*"}}`), "", "", Asker{}, none, pOperators},
		{"variable", if1(`{"StringEquals":{"aws:PrincipalTag/team":"${aws:PrincipalTag/team}"}}`), "", "", Asker{}, allow, pVariables},
		{"variable in a resource", `{"Effect":"Allow","Action":"*","Resource":"x/${aws:PrincipalTag/team}/*"}`, "", "x/blue/1", Asker{}, allow, pVariables},
		{"variable without value", `{"Effect":"Allow","Action":"*","Resource":"x/${aws:PrincipalTag/no}/*"}`, "", "x/blue/1", Asker{}, none, pVariables},
		{"variable with default", `{"Effect":"Allow","Action":"*","Resource":"x/${aws:PrincipalTag/no, 'red'}"}`, "", "x/red", Asker{}, allow, pVariables},
		{"variable's star is no wildcard", `{"Effect":"Allow","Action":"*","Resource":"x/${aws:username}"}`, "", "x/aXb", Asker{}, none, pVariables},
		{"variable's star is a star", `{"Effect":"Allow","Action":"*","Resource":"x/${aws:username}"}`, "", "x/a*b", Asker{}, allow, pVariables},

		{"date before", if1(`{"DateLessThan":{"aws:CurrentTime":"2026-03-01T12:00:01Z"}}`), "", "", Asker{}, allow, pOperators},
		{"date not before itself", if1(`{"DateLessThan":{"aws:CurrentTime":"2026-03-01T12:00:00Z"}}`), "", "", Asker{}, none, pOperators},
		{"date at the end", if1(`{"DateGreaterThanEquals":{"aws:CurrentTime":"2026-03-01T12:00:00Z"}}`), "", "", Asker{}, allow, pOperators},
		{"date after", if1(`{"DateGreaterThan":{"aws:CurrentTime":"2026-03-01T12:00:00Z"}}`), "", "", Asker{}, none, pOperators},
		{"date at most", if1(`{"DateLessThanEquals":{"aws:CurrentTime":"2026-03-01T13:00:00+01:00"}}`), "", "", Asker{}, allow, pOperators},
		{"date equals epoch", if1(`{"DateEquals":{"aws:CurrentTime":"1772366400"}}`), "", "", Asker{}, allow, pOperators},
		{"epoch before date", if1(`{"DateLessThan":{"aws:EpochTime":"2026-03-02"}}`), "", "", Asker{}, allow, pOperators},
		{"date not equals", if1(`{"DateNotEquals":{"aws:CurrentTime":"2026-03-01T12:00:00Z"}}`), "", "", Asker{}, none, pOperators},
		{"revoked sessions", `{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"DateLessThan":{"aws:TokenIssueTime":"2026-03-01T11:30:00Z"}}}`, "", "", Asker{}, deny, pRevoke},
		{"no date", if1(`{"DateLessThan":{"aws:CurrentTime":"tomorrow"}}`), "", "", Asker{}, none, pOperators},

		{"bool", if1(`{"Bool":{"aws:ViaAWSService":"False"}}`), "", "", Asker{}, allow, pOperators},
		{"bool unquoted", if1(`{"Bool":{"aws:ViaAWSService":true}}`), "", "", Asker{}, none, pOperators},
		{"bool absent", if1(`{"Bool":{"aws:MultiFactorAuthPresent":"false"}}`), "", "", Asker{}, none, pOperators},
		{"bool if exists absent", if1(`{"BoolIfExists":{"aws:MultiFactorAuthPresent":"true"}}`), "", "", Asker{}, allow, pOperators},
		{"null absent", if1(`{"Null":{"aws:x":"true"}}`), "", "", Asker{}, allow, pOperators},
		{"null present", if1(`{"Null":{"aws:SourceIp":"true"}}`), "", "", Asker{}, none, pOperators},
		{"not null", if1(`{"Null":{"aws:SourceIp":false}}`), "", "", Asker{}, allow, pOperators},
		{"numeric", if1(`{"NumericLessThanEquals":{"aws:EpochTime":1772366400}}`), "", "", Asker{}, allow, pOperators},
		{"numeric greater", if1(`{"NumericGreaterThan":{"aws:EpochTime":"1772366400"}}`), "", "", Asker{}, none, pOperators},
		{"numeric not equals absent", if1(`{"NumericNotEquals":{"x:y":"1"}}`), "", "", Asker{}, allow, pOperators},
		{"ip inside", if1(`{"IpAddress":{"aws:SourceIp":["198.51.100.0/24","203.0.113.0/24"]}}`), "", "", Asker{}, allow, pOperators},
		{"ip alone", if1(`{"IpAddress":{"aws:SourceIp":"203.0.113.7"}}`), "", "", Asker{}, allow, pOperators},
		{"not ip inside", if1(`{"NotIpAddress":{"aws:SourceIp":"203.0.113.0/24"}}`), "", "", Asker{}, none, pOperators},
		{"pinned network", `{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"NotIpAddress":{"aws:SourceIp":"198.51.100.0/24"},"Bool":{"aws:ViaAWSService":"false"},"Null":{"aws:SourceIp":"false"}}}`, "", "", Asker{}, deny, pSourceIP},
		{"two operators, one fails", if1(`{"Bool":{"aws:ViaAWSService":"false"},"StringEquals":{"aws:PrincipalTag/team":"red"}}`), "", "", Asker{}, none, pMany},
		{"arn", if1(`{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::*:role/w*"}}`), "", "", Asker{}, allow, pOperators},
		{"arn equals takes wildcards too", if1(`{"ArnEquals":{"aws:PrincipalArn":"arn:aws:iam::111122223333:role/*"}}`), "", "", Asker{}, allow, pOperators},
		{"arn parts", if1(`{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam*role/worker"}}`), "", "", Asker{}, none, pOperators},
		{"arn not", if1(`{"ArnNotLike":{"aws:PrincipalArn":"arn:aws:iam::*:role/x"}}`), "", "", Asker{}, allow, pOperators},
		{"any value", if1(`{"ForAnyValue:StringEquals":{"aws:TagKeys":["cost","x"]}}`), "", "", Asker{}, allow, pSets},
		{"any value, none fits", if1(`{"ForAnyValue:StringLike":{"aws:TagKeys":"x*"}}`), "", "", Asker{}, none, pSets},
		{"any value absent", if1(`{"ForAnyValue:StringEquals":{"x:y":"cost"}}`), "", "", Asker{}, none, pSets},
		{"all values", if1(`{"ForAllValues:StringEquals":{"aws:TagKeys":["cost","team","x"]}}`), "", "", Asker{}, allow, pSets},
		{"all values, one too many", if1(`{"ForAllValues:StringEquals":{"aws:TagKeys":["cost"]}}`), "", "", Asker{}, none, pSets},
		{"all values absent", if1(`{"ForAllValues:StringEquals":{"x:y":"cost"}}`), "", "", Asker{}, allow, pSets},
		{"any value unlike", if1(`{"ForAnyValue:StringNotEquals":{"aws:TagKeys":"cost"}}`), "", "", Asker{}, allow, pSets},

		{"everyone", trust(`"*"`), "sts:AssumeRole", "", caller, allow, pPrincipal},
		{"every AWS principal", trust(`{"AWS":"*"}`), "sts:AssumeRole", "", caller, allow, pPrincipal},
		{"account id", trust(`{"AWS":"111122223333"}`), "sts:AssumeRole", "", caller, allow, pPrincipal},
		{"account root", trust(`{"AWS":["arn:aws:iam::444455556666:root","arn:aws:iam::111122223333:root"]}`), "sts:AssumeRole", "", caller, allow, pPrincipal},
		{"other account", trust(`{"AWS":"444455556666"}`), "sts:AssumeRole", "", caller, none, pPrincipal},
		{"role of a session", trust(`{"AWS":"` + roleARN + `"}`), "sts:AssumeRole", "", caller, allow, pPrincipal},
		{"the session", trust(`{"AWS":"` + session + `"}`), "sts:AssumeRole", "", caller, allow, pPrincipal},
		{"another session", trust(`{"AWS":"` + session + `x"}`), "sts:AssumeRole", "", caller, none, pPrincipal},
		{"AWS principals are not federated", trust(`{"AWS":"*"}`), "sts:AssumeRole", "", web, none, pPrincipal},
		{"federated", trust(`{"Federated":"` + idp + `"}`), "sts:AssumeRoleWithWebIdentity", "", web, allow, pPrincipal},
		{"other federated", trust(`{"Federated":"` + idp + `/y"}`), "sts:AssumeRoleWithWebIdentity", "", web, none, pPrincipal},
		{"service", trust(`{"Service":"pods.eks.amazonaws.com"}`), "sts:AssumeRole", "", pods, allow, pPrincipal},
		{"other service", trust(`{"Service":"ec2.amazonaws.com"}`), "sts:AssumeRole", "", pods, none, pPrincipal},
		{"not principal", `{"Effect":"Deny","NotPrincipal":{"AWS":"` + roleARN + `"},"Action":"*"}`, "sts:AssumeRole", "", caller, none, pNot},
		{"not another principal", `{"Effect":"Deny","NotPrincipal":{"AWS":"arn:aws:iam::444455556666:root"},"Action":"*"}`, "sts:AssumeRole", "", caller, deny, pNot},
		{"issuer keys", `{"Effect":"Allow","Principal":{"Federated":"` + idp + `"},"Action":"sts:AssumeRoleWithWebIdentity","Condition":{"StringEquals":{"login.example.com/x:aud":"client"},"ForAnyValue:StringEquals":{"login.example.com/x:amr":"mfa"}}}`, "sts:AssumeRoleWithWebIdentity", "", web, allow, pSTSKeys},
		{"external id", `{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole","Condition":{"StringEquals":{"sts:ExternalId":"wrong"}}}`, "sts:AssumeRole", "", caller, none, pExternalID},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.page == "" {
				t.Error("no page of AWS's decides it")
			}
			kind := Identity
			if strings.Contains(tt.statements, "Principal\":") {
				kind = Trust
			}
			p, err := Parse(fmt.Sprintf(`{"Version":"2012-10-17","Statement":[%s]}`, tt.statements), kind)
			if err != nil {
				t.Fatal(err)
			}
			q := Question{Action: "iam:GetRole", Resource: tt.resource, Who: tt.who, Context: context}
			if tt.action != "" {
				q.Action = tt.action
			}
			got := none
			switch o := p.Evaluate(q); {
			case o.Denied:
				got = deny
			case o.Allowed != Nobody:
				got = allow
			}
			if got != tt.want {
				t.Errorf("%s: %s, want %s", tt.statements, got, tt.want)
			}
		})
	}
}

func TestMalformedPolicies(t *testing.T) {
	tests := []struct {
		name string
		kind Kind
		text string
		want string // part of the error; "" is fine
	}{
		{"one statement", Identity, `{"Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`, ""},
		{"empty", Identity, ``, "invalid Json"},
		{"cut off", Identity, `{"Statement":[`, "invalid Json"},
		{"two documents", Identity, `{"Statement":[]}{}`, "more than one"},
		{"version", Identity, `{"Version":"2026-01-01","Statement":[]}`, "version"},
		{"unknown element", Identity, `{"Statement":[{"Effect":"Allow","Action":"*","Resource":"*","When":"now"}]}`, "When"},
		{"effect", Identity, `{"Statement":[{"Effect":"allow","Action":"*","Resource":"*"}]}`, "effect"},
		{"no action", Identity, `{"Statement":[{"Effect":"Allow","Resource":"*"}]}`, "Action"},
		{"no resource", Identity, `{"Statement":[{"Effect":"Allow","Action":"*"}]}`, "resources"},
		{"principal", Identity, `{"Statement":[{"Effect":"Allow","Action":"*","Resource":"*","Principal":"*"}]}`, "principal"},
		{"operator", Identity, `{"Statement":[{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringIs":{"a":"b"}}}]}`, "StringIs"},
		{"null if exists", Identity, `{"Statement":[{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"NullIfExists":{"a":"true"}}}]}`, "NullIfExists"},
		{"trust", Trust, `{"Statement":[{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"AWS":"*"}}]}`, ""},
		{"trust without principal", Trust, `{"Statement":[{"Effect":"Allow","Action":"sts:AssumeRole"}]}`, "Principal"},
		{"trust with resource", Trust, `{"Statement":[{"Effect":"Allow","Action":"sts:AssumeRole","Principal":"*","Resource":"*"}]}`, "Resource"},
		{"kind of principal", Trust, `{"Statement":[{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"Person":"ann"}}]}`, "Person"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse(tt.text, tt.kind)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}
