package trust

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// The role, the provider and the caller of the tables.
const (
	ourAccount  = "111122223333"
	ourRole     = "arn:aws:iam::111122223333:role/dev"
	ourIssuer   = "https://x.okta.com/oauth2/aus1"
	ourPrefix   = "x.okta.com/oauth2/aus1"
	ourProvider = "arn:aws:iam::111122223333:oidc-provider/x.okta.com/oauth2/aus1"
	ourAudience = "0oa1"
	ourSubject  = "00u1"
	worker      = "arn:aws:iam::444455556666:role/serval-worker"
	workerIn    = "arn:aws:sts::444455556666:assumed-role/serval-worker/pod"
	workerHome  = "444455556666"
)

type unsetType struct{}

// unset takes a name out of a context: it is unknown.
var unset unsetType

func document(t testing.TB, base map[string]any, changes []any) []byte {
	t.Helper()
	all := map[string]any{}
	for k, v := range base {
		all[k] = v
	}
	for i := 0; i < len(changes); i += 2 {
		k := changes[i].(string)
		if all[k] = changes[i+1]; changes[i+1] == any(unset) {
			delete(all, k)
		}
	}
	b, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A given is a context, as names and values over a base.
type given func(t testing.TB) Context

func build(base map[string]any, changes []any) given {
	return func(t testing.TB) Context {
		t.Helper()
		c, err := ParseContext(document(t, base, changes))
		if err != nil {
			t.Fatalf("%v: %v", changes, err)
		}
		return c
	}
}

func web(changes ...any) given {
	return build(map[string]any{
		"action": "sts:AssumeRoleWithWebIdentity", "role_arn": ourRole, "issuer": ourIssuer, "audience": ourAudience,
		"subject": ourSubject, "email": "ana@example.com", "amr": nil, "azp": nil, "session_name": "ana@example.com",
		"source_ip": "203.0.113.7", "source_vpce": nil, "external_id": nil, "passes_tags": false, "transitive_tags": false,
		"source_identity": nil, "now": "2026-03-01T12:00:00Z",
	}, changes)
}

func assume(changes ...any) given {
	return build(map[string]any{
		"action": "sts:AssumeRole", "role_arn": ourRole, "session_name": "serval", "source_ip": "203.0.113.7", "source_vpce": nil,
		"external_id": "xid-1", "caller_arn": worker, "org_id": "o-1", "passes_tags": false, "transitive_tags": false,
		"source_identity": nil, "now": "2026-03-01T12:00:00Z",
	}, changes)
}

// policy puts statements into a policy of the current version.
func policy(statements ...string) string {
	return `{"Version": "2012-10-17", "Statement": [` + strings.Join(statements, ", ") + `]}`
}

// old puts statements into a policy without a version.
func old(statements ...string) string {
	return `{"Statement": [` + strings.Join(statements, ", ") + `]}`
}

func statementOf(effect, principal, action, condition string) string {
	s := fmt.Sprintf(`{"Effect": %q, %s, "Action": %s`, effect, principal, action)
	if condition != "" {
		s += `, "Condition": ` + condition
	}
	return s + "}"
}

const (
	federated = `"Principal": {"Federated": "` + ourProvider + `"}`
	webAction = `"sts:AssumeRoleWithWebIdentity"`
	rootOf    = `"Principal": {"AWS": "arn:aws:iam::444455556666:root"}`
)

// when allows our provider under a condition.
func when(condition string) string {
	return statementOf("Allow", federated, webAction, condition)
}

// denied denies our provider under a condition.
func denied(condition string) string {
	return statementOf("Deny", federated, webAction, condition)
}

// aud asks for our audience.
const aud = `{"StringEquals": {"` + ourPrefix + `:aud": "0oa1"}}`

// roleWhen allows the worker's account to assume the role under a condition.
func roleWhen(condition string) string {
	return statementOf("Allow", rootOf, `"sts:AssumeRole"`, condition)
}

// Pages of the IAM User Guide, and of two API references.
const (
	pGrammar    = "IAM User Guide, Grammar of the IAM JSON policy language: "
	pPrincipal  = "IAM User Guide, AWS JSON policy elements: Principal: "
	pNot        = "IAM User Guide, AWS JSON policy elements: NotPrincipal: "
	pAction     = "IAM User Guide, IAM JSON policy elements: Action: "
	pNotAction  = "IAM User Guide, IAM JSON policy elements: NotAction: "
	pCondition  = "IAM User Guide, IAM JSON policy elements: Condition: "
	pOperators  = "IAM User Guide, IAM JSON policy elements: Condition operators: "
	pSets       = "IAM User Guide, Single-valued vs. multivalued context keys: "
	pMany       = "IAM User Guide, Conditions with multiple context keys or values: "
	pVariables  = "IAM User Guide, IAM policy elements: Variables and tags: "
	pGlobal     = "IAM User Guide, AWS global condition context keys: "
	pSTSKeys    = "IAM User Guide, IAM and AWS STS condition context keys: "
	pLogic      = "IAM User Guide, Policy evaluation logic: "
	pTags       = "IAM User Guide, Passing session tags in AWS STS: "
	pMonitor    = "IAM User Guide, Monitor and control actions taken with assumed roles: "
	pOIDC       = "IAM User Guide, Create an OpenID Connect (OIDC) identity provider in IAM: "
	pVersion    = "IAM User Guide, IAM JSON policy elements: Version: "
	pExternalID = "IAM User Guide, Access to AWS accounts owned by third parties: "
	pWebAPI     = "STS API Reference, AssumeRoleWithWebIdentity: "
	pAssumeAPI  = "STS API Reference, AssumeRole: "
	pSilent     = "No page decides: "
)

var table = []struct {
	name   string
	page   string // what decides it: page, section or sentence
	policy string
	given  given
	want   string
}{
	// Evaluation.
	{"an Allow that matches", pLogic + "an explicit allow in a resource-based policy", policy(when(aud)), web(), Works},
	{"no statements", pLogic + "by default, all requests are implicitly denied", policy(), web(), Fails},
	{"a Deny beside an Allow", pLogic + "an explicit deny in any policy overrides any allows", policy(when(aud), denied(aud)), web(), Fails},
	{"a Deny before an Allow", pLogic + "an explicit deny in any policy overrides any allows", policy(denied(aud), when(aud)), web(), Fails},
	{"a Deny of somebody else", pLogic + "an explicit deny applies if it matches", policy(when(aud), denied(`{"StringEquals": {"`+ourPrefix+`:sub": "00u9"}}`)), web(), Works},
	{"a Deny alone", pLogic + "implicit deny", policy(denied(aud)), web("audience", "other"), Fails},
	{"a Deny that may match", pLogic + "an explicit deny applies if it matches", policy(when(aud), denied(`{"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}`)), web("source_ip", unset), Unknown},
	{"a Deny that may match, and one that does not", pLogic + "an explicit deny applies if it matches", policy(when(aud), denied(`{"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}`), denied(`{"StringEquals": {"`+ourPrefix+`:sub": "00u9"}}`)), web("source_ip", unset), Unknown},
	{"an Allow that may match", pLogic + "an explicit allow applies if it matches", policy(when(`{"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}`)), web("source_ip", unset), Unknown},
	{"an Allow that may match, and one that does not", pLogic + "an explicit allow applies if it matches", policy(when(`{"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}`), when(`{"StringEquals": {"`+ourPrefix+`:aud": "no"}}`)), web("source_ip", unset), Unknown},
	{"a possible Deny of what nothing allows", pLogic + "implicit deny", policy(denied(`{"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}`)), web("source_ip", unset), Fails},
	{"two Allows, the second matches", pLogic + "any statement that allows", policy(when(`{"StringEquals": {"`+ourPrefix+`:aud": "no"}}`), when(aud)), web(), Works},
	{"a sure Allow beside a possible one", pLogic + "any statement that allows", policy(when(`{"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}`), when(aud)), web("source_ip", unset), Works},
	{"a Deny of all under no condition", pLogic + "an explicit deny overrides", policy(when(aud), statementOf("Deny", `"Principal": "*"`, `"*"`, "")), web(), Fails},

	// Form.
	{"one statement, no list", pGrammar + "the brackets are optional", `{"Version": "2012-10-17", "Statement": ` + when(aud) + `}`, web(), Works},
	{"actions as a list", pGrammar + "action_block", policy(statementOf("Allow", federated, `["sts:TagSession", "sts:AssumeRoleWithWebIdentity"]`, aud)), web(), Works},
	{"principals as a list", pPrincipal + "this is a logical OR and not a logical AND", policy(statementOf("Allow", `"Principal": {"Federated": ["accounts.google.com", "`+ourProvider+`"]}`, webAction, aud)), web(), Works},
	{"an empty condition", pGrammar + "condition_block is optional", policy(when(`{}`)), web(), Works},
	{"no condition", pGrammar + "condition_block is optional", policy(when("")), web(), Works},
	{"an id", pGrammar + "id_block is optional in resource-based policies", `{"Version": "2012-10-17", "Id": "x", "Statement": [` + when(aud) + `]}`, web(), Works},
	{"an account id as a number", pGrammar + "quotation marks are optional for numeric and Boolean values", policy(statementOf("Allow", `"Principal": {"AWS": 444455556666}`, `"sts:AssumeRole"`, "")), assume(), Works},
	{"a Boolean without quotes", pGrammar + "quotation marks are optional for numeric and Boolean values", policy(when(`{"Bool": {"aws:SecureTransport": true}}`)), web(), Works},
	{"a condition value as a number", pGrammar + "condition_value = (string | number | Boolean)", policy(when(`{"StringEquals": {"` + ourPrefix + `:sub": 7}}`)), web("subject", "7"), Works},
	{"the old version", pVersion + "2008-10-17. This was an earlier version of the policy language", `{"Version": "2008-10-17", "Statement": [` + when(aud) + `]}`, web(), Works},

	// Federated principals.
	{"another provider", pPrincipal + "web identity session principals", policy(statementOf("Allow", `"Principal": {"Federated": "arn:aws:iam::111122223333:oidc-provider/y.okta.com"}`, webAction, "")), web(), Fails},
	{"the org server's provider", pOIDC + "the URL must correspond to the iss claim", policy(statementOf("Allow", `"Principal": {"Federated": "arn:aws:iam::111122223333:oidc-provider/x.okta.com"}`, webAction, "")), web(), Fails},
	{"the provider of another account", pOIDC + "a provider is a resource of the account", policy(statementOf("Allow", `"Principal": {"Federated": "arn:aws:iam::999999999999:oidc-provider/x.okta.com/oauth2/aus1"}`, webAction, "")), web(), Fails},
	{"the provider of another partition", pOIDC + "a provider is a resource of the account", policy(statementOf("Allow", `"Principal": {"Federated": "arn:aws-us-gov:iam::111122223333:oidc-provider/x.okta.com/oauth2/aus1"}`, webAction, "")), web(), Fails},
	{"the provider in another case", pSilent + "whether provider ARNs are compared with case", policy(statementOf("Allow", `"Principal": {"Federated": "arn:aws:iam::111122223333:oidc-provider/X.okta.com/oauth2/aus1"}`, webAction, "")), web(), Unknown},
	{"the provider with a slash at its end", pSilent + "whether a slash at the end counts", policy(statementOf("Allow", `"Principal": {"Federated": "`+ourProvider+`/"}`, webAction, "")), web(), Unknown},
	{"a provider ARN that is given", pPrincipal + "web identity session principals", policy(when(aud)), web("issuer", unset, "provider_arn", ourProvider), Works},
	{"a provider and no role", pOIDC + "a provider is a resource of the account", policy(when("")), web("role_arn", unset), Unknown},
	{"another provider and no role", pOIDC + "the URL must correspond to the iss claim", policy(statementOf("Allow", `"Principal": {"Federated": "arn:aws:iam::111122223333:oidc-provider/y.okta.com"}`, webAction, "")), web("role_arn", unset), Fails},
	{"no issuer", pPrincipal + "web identity session principals", policy(when("")), web("issuer", unset), Unknown},
	{"no provider at all", pPrincipal + "web identity session principals", policy(when("")), web("provider_arn", nil), Fails},
	{"Google, by its domain", pPrincipal + `"Federated": "accounts.google.com"`, policy(statementOf("Allow", `"Principal": {"Federated": "accounts.google.com"}`, webAction, "")), web("issuer", "https://accounts.google.com"), Works},
	{"Google's domain for another issuer", pPrincipal + `"Federated": "accounts.google.com"`, policy(statementOf("Allow", `"Principal": {"Federated": "accounts.google.com"}`, webAction, "")), web(), Fails},
	{"Cognito, by its domain", pPrincipal + `"Federated": "cognito-identity.amazonaws.com"`, policy(statementOf("Allow", `"Principal": {"Federated": "cognito-identity.amazonaws.com"}`, webAction, "")), web("issuer", "https://cognito-identity.amazonaws.com"), Works},
	{"a SAML provider for a web identity", pPrincipal + "SAML session principals", policy(statementOf("Allow", `"Principal": {"Federated": "arn:aws:iam::111122223333:saml-provider/okta"}`, webAction, "")), web(), Fails},
	{"everyone, for a web identity", pPrincipal + "all principals", policy(statementOf("Allow", `"Principal": "*"`, webAction, aud)), web(), Works},
	{"every AWS principal, for a web identity", pSilent + `{"AWS": "*"} is equal to "*" for anonymous users`, policy(statementOf("Allow", `"Principal": {"AWS": "*"}`, webAction, aud)), web(), Unknown},
	{"every provider", pPrincipal + "you cannot use a wildcard to match part of a principal name or ARN", policy(statementOf("Allow", `"Principal": {"Federated": "*"}`, webAction, aud)), web(), Unknown},
	{"an account, for a web identity", pWebAPI + "does not require the use of AWS security credentials", policy(statementOf("Allow", rootOf, webAction, "")), web(), Fails},
	{"a service, for a web identity", pPrincipal + "AWS service principals", policy(statementOf("Allow", `"Principal": {"Service": "ec2.amazonaws.com"}`, webAction, "")), web(), Fails},
	{"a SAML provider for SAML", pPrincipal + "SAML session principals", policy(statementOf("Allow", `"Principal": {"Federated": "arn:aws:iam::111122223333:saml-provider/okta"}`, `"sts:AssumeRoleWithSAML"`, `{"StringEquals": {"SAML:aud": "https://signin.aws.amazon.com/saml"}}`)),
		web("action", "sts:AssumeRoleWithSAML", "provider_arn", "arn:aws:iam::111122223333:saml-provider/okta", "audience", "https://signin.aws.amazon.com/saml"), Works},

	// AWS principals.
	{"an account by its root", pPrincipal + "delegates authority to the account", policy(roleWhen("")), assume(), Works},
	{"an account by its id", pPrincipal + "the account ARN and the shortened account ID behave the same way", policy(statementOf("Allow", `"Principal": {"AWS": "444455556666"}`, `"sts:AssumeRole"`, "")), assume(), Works},
	{"another account", pPrincipal + "AWS account principals", policy(roleWhen("")), assume("caller_arn", "arn:aws:iam::777788889999:role/serval-worker"), Fails},
	{"an account, of a session", pPrincipal + "AWS account principals", policy(roleWhen("")), assume("caller_arn", workerIn), Works},
	{"an account, known by id only", pPrincipal + "AWS account principals", policy(roleWhen("")), assume("caller_arn", unset, "caller_account", workerHome), Works},
	{"an unknown caller", pPrincipal + "AWS account principals", policy(roleWhen("")), assume("caller_arn", unset), Unknown},
	{"a role", pPrincipal + "IAM role principals", policy(statementOf("Allow", `"Principal": {"AWS": "`+worker+`"}`, `"sts:AssumeRole"`, "")), assume(), Works},
	{"a role, of its session", pPrincipal + "when they use those session credentials they become a role session principal", policy(statementOf("Allow", `"Principal": {"AWS": "`+worker+`"}`, `"sts:AssumeRole"`, "")), assume("caller_arn", workerIn), Works},
	{"a role with a path, of its session", pAssumeAPI + "AssumedRoleUser; names are unique in an account", policy(statementOf("Allow", `"Principal": {"AWS": "arn:aws:iam::444455556666:role/eks/serval-worker"}`, `"sts:AssumeRole"`, "")), assume("caller_arn", workerIn), Works},
	{"another role of the account", pPrincipal + "IAM role principals", policy(statementOf("Allow", `"Principal": {"AWS": "`+worker+`"}`, `"sts:AssumeRole"`, "")), assume("caller_arn", "arn:aws:iam::444455556666:role/other"), Fails},
	{"a role, of a caller known by account", pPrincipal + "IAM role principals", policy(statementOf("Allow", `"Principal": {"AWS": "`+worker+`"}`, `"sts:AssumeRole"`, "")), assume("caller_arn", unset, "caller_account", workerHome), Unknown},
	{"a role, of another account", pPrincipal + "IAM role principals", policy(statementOf("Allow", `"Principal": {"AWS": "`+worker+`"}`, `"sts:AssumeRole"`, "")), assume("caller_arn", unset, "caller_account", "777788889999"), Fails},
	{"a session", pPrincipal + "principals must always name a specific session", policy(statementOf("Allow", `"Principal": {"AWS": "`+workerIn+`"}`, `"sts:AssumeRole"`, "")), assume("caller_arn", workerIn), Works},
	{"another session", pPrincipal + "principals must always name a specific session", policy(statementOf("Allow", `"Principal": {"AWS": "`+workerIn+`"}`, `"sts:AssumeRole"`, "")), assume("caller_arn", workerIn+"2"), Fails},
	{"a session, of a caller known by role", pPrincipal + "principals must always name a specific session", policy(statementOf("Allow", `"Principal": {"AWS": "`+workerIn+`"}`, `"sts:AssumeRole"`, "")), assume(), Unknown},
	{"a user", pPrincipal + "IAM user principals", policy(statementOf("Allow", `"Principal": {"AWS": "arn:aws:iam::444455556666:user/ana"}`, `"sts:AssumeRole"`, "")), assume("caller_arn", "arn:aws:iam::444455556666:user/ana"), Works},
	{"a user in another case", pPrincipal + "the user name part of the ARN is case sensitive", policy(statementOf("Allow", `"Principal": {"AWS": "arn:aws:iam::444455556666:user/Ana"}`, `"sts:AssumeRole"`, "")), assume("caller_arn", "arn:aws:iam::444455556666:user/ana"), Fails},
	{"a federated user", pPrincipal + "AWS STS federated user session principals", policy(statementOf("Allow", `"Principal": {"AWS": "arn:aws:sts::444455556666:federated-user/ana"}`, `"sts:AssumeRole"`, "")), assume("caller_arn", "arn:aws:sts::444455556666:federated-user/ana"), Works},
	{"everyone", pPrincipal + "you can use a wildcard (*) to specify all principals", policy(statementOf("Allow", `"Principal": "*"`, `"sts:AssumeRole"`, "")), assume(), Works},
	{"every AWS principal", pPrincipal + `"Principal": {"AWS": "*"}`, policy(statementOf("Allow", `"Principal": {"AWS": "*"}`, `"sts:AssumeRole"`, "")), assume(), Works},
	{"a deleted role", pPrincipal + "the policy no longer applies, even if you recreate the role", policy(statementOf("Allow", `"Principal": {"AWS": "AROAIIAV3SAMPLEEXAMPLE"}`, `"sts:AssumeRole"`, "")), assume(), Fails},
	{"a part of an ARN", pPrincipal + "you cannot use a wildcard to match part of a principal name or ARN", policy(statementOf("Allow", `"Principal": {"AWS": "arn:aws:iam::444455556666:role/*"}`, `"sts:AssumeRole"`, "")), assume(), Unknown},
	{"a canonical user", pGrammar + "most resource-based policies do not support this mapping", policy(statementOf("Allow", `"Principal": {"CanonicalUser": "79a59df900b949e5"}`, `"sts:AssumeRole"`, "")), assume(), Unknown},
	{"a service that is not the caller", pPrincipal + "AWS service principals", policy(statementOf("Allow", `"Principal": {"Service": "ec2.amazonaws.com"}`, `"sts:AssumeRole"`, "")), assume(), Fails},
	{"a service, of who knows whom", pPrincipal + "AWS service principals", policy(statementOf("Allow", `"Principal": {"Service": "ec2.amazonaws.com"}`, `"sts:AssumeRole"`, "")), assume("caller_arn", unset), Unknown},
	{"an account, of a service", pPrincipal + "AWS service principals", policy(roleWhen("")), assume("caller_arn", "ec2.amazonaws.com", "caller_account", workerHome), Fails},
	{"a provider, of a service", pPrincipal + "web identity session principals", policy(statementOf("Allow", federated, `"sts:AssumeRole"`, "")), assume("caller_arn", "ec2.amazonaws.com"), Fails},
	{"a provider, of a session", pSilent + "whether a session of a web identity counts as its provider's when it assumes a role", policy(statementOf("Allow", federated, `"sts:AssumeRole"`, "")), assume("caller_arn", workerIn), Unknown},
	{"a caller of no known form", pSilent + "what it is", policy(statementOf("Allow", `"Principal": {"AWS": "`+worker+`"}`, `"sts:AssumeRole"`, "")), assume("caller_arn", "arn:aws:iam::444455556666:group/x"), Unknown},
	{"Google's domain and no issuer", pPrincipal + `"Federated": "accounts.google.com"`, policy(statementOf("Allow", `"Principal": {"Federated": "accounts.google.com"}`, webAction, "")), web("issuer", unset), Unknown},
	{"a service that is the caller", pPrincipal + "AWS service principals", policy(statementOf("Allow", `"Principal": {"Service": "pods.eks.amazonaws.com"}`, `"sts:AssumeRole"`, "")), assume("caller_arn", "pods.eks.amazonaws.com"), Works},
	{"a provider, for a user", pPrincipal + "web identity session principals", policy(statementOf("Allow", federated, `"sts:AssumeRole"`, "")), assume("caller_arn", "arn:aws:iam::444455556666:user/ana"), Fails},

	// NotPrincipal.
	{"an Allow for all but others", pNot + "doing so allows all principals except the one named", policy(statementOf("Allow", `"NotPrincipal": {"AWS": "444455556666"}`, webAction, "")), web(), Works},
	{"an Allow for all but us", pNot + "doing so allows all principals except the one named", policy(statementOf("Allow", `"NotPrincipal": {"Federated": "`+ourProvider+`"}`, webAction, "")), web(), Fails},
	{"a Deny for all but us", pNot + "explicitly denied to all principals except for the ones specified", policy(when(aud), statementOf("Deny", `"NotPrincipal": {"Federated": "`+ourProvider+`"}`, webAction, "")), web(), Works},
	{"a Deny for all but others", pNot + "explicitly denied to all principals except for the ones specified", policy(when(aud), statementOf("Deny", `"NotPrincipal": {"AWS": "444455556666"}`, webAction, "")), web(), Fails},
	{"a Deny for all but a role and its account", pNot + "you must also specify the account ARN of the not-denied principal", policy(roleWhen(""), statementOf("Deny", `"NotPrincipal": {"AWS": ["`+worker+`", "arn:aws:iam::444455556666:root"]}`, `"*"`, "")), assume(), Works},
	{"a Deny for all but a role", pNot + "the policy might deny access to the entire account", policy(roleWhen(""), statementOf("Deny", `"NotPrincipal": {"AWS": "`+worker+`"}`, `"*"`, "")), assume(), Unknown},
	{"a Deny for all but a session, its role and account", pNot + "Example IAM role in the same or different account", policy(roleWhen(""), statementOf("Deny", `"NotPrincipal": {"AWS": ["`+workerIn+`", "`+worker+`", "444455556666"]}`, `"*"`, "")), assume("caller_arn", workerIn), Works},
	{"a Deny for all but a role and account, of a session", pNot + "the assumed-role user might be unable to access the resource", policy(roleWhen(""), statementOf("Deny", `"NotPrincipal": {"AWS": ["`+worker+`", "444455556666"]}`, `"*"`, "")), assume("caller_arn", workerIn), Unknown},
	{"a Deny for all but every AWS principal", pNot + "explicitly denied to all principals except for the ones specified", policy(roleWhen(""), statementOf("Deny", `"NotPrincipal": {"AWS": "*"}`, `"*"`, "")), assume(), Works},
	{"a Deny for all but the service", pNot + "explicitly denied to all principals except for the ones specified", policy(statementOf("Allow", `"Principal": {"Service": "pods.eks.amazonaws.com"}`, `"sts:AssumeRole"`, ""), statementOf("Deny", `"NotPrincipal": {"Service": "pods.eks.amazonaws.com"}`, `"*"`, "")), assume("caller_arn", "pods.eks.amazonaws.com"), Works},
	{"a Deny for all but another service and the account", pNot + "the policy might deny access to the entire account", policy(roleWhen(""), statementOf("Deny", `"NotPrincipal": {"Service": "ec2.amazonaws.com", "AWS": "444455556666"}`, `"*"`, "")), assume(), Unknown},
	{"a Deny for all but the account, which calls", pNot + "explicitly denied to all principals except for the ones specified", policy(roleWhen(""), statementOf("Deny", `"NotPrincipal": {"AWS": "444455556666"}`, `"*"`, "")), assume("caller_arn", "arn:aws:iam::444455556666:root"), Works},
	{"a Deny for all but a user and its account", pNot + "you must also specify the account ARN of the not-denied principal", policy(roleWhen(""), statementOf("Deny", `"NotPrincipal": {"AWS": ["arn:aws:iam::444455556666:user/ana", "444455556666"]}`, `"*"`, "")), assume("caller_arn", "arn:aws:iam::444455556666:user/ana"), Works},
	{"a Deny for all but another user and the account", pNot + "the policy might deny access to the entire account", policy(roleWhen(""), statementOf("Deny", `"NotPrincipal": {"AWS": ["arn:aws:iam::444455556666:user/bob", "444455556666"]}`, `"*"`, "")), assume("caller_arn", "arn:aws:iam::444455556666:user/ana"), Unknown},
	{"a Deny for all but a session and its account", pNot + "Example IAM role in the same or different account", policy(roleWhen(""), statementOf("Deny", `"NotPrincipal": {"AWS": ["`+workerIn+`", "444455556666"]}`, `"*"`, "")), assume("caller_arn", workerIn), Unknown},
	{"a Deny for all but everyone", pNot + "explicitly denied to all principals except for the ones specified", policy(roleWhen(""), statementOf("Deny", `"NotPrincipal": "*"`, `"*"`, "")), assume(), Works},

	// Actions.
	{"another action", pAction + "the Action element", policy(statementOf("Allow", federated, `"sts:AssumeRole"`, "")), web(), Fails},
	{"an action in another case", pAction + "the prefix and the action name are case insensitive", policy(statementOf("Allow", federated, `"STS:assumerolewithWEBidentity"`, "")), web(), Works},
	{"all actions of the service", pAction + "multi-character match wildcards", policy(statementOf("Allow", federated, `"sts:*"`, "")), web(), Works},
	{"all actions", pGrammar + `"Action": "*"`, policy(statementOf("Allow", federated, `"*"`, "")), web(), Works},
	{"actions by a star", pAction + "wildcards as part of the action name", policy(statementOf("Allow", federated, `"sts:AssumeRole*"`, "")), web(), Works},
	{"actions by a question mark", pAction + "single-character match wildcards (?)", policy(statementOf("Allow", federated, `"sts:AssumeRoleWith???Identity"`, "")), web(), Works},
	{"actions by a question mark too few", pAction + "single-character match wildcards (?)", policy(statementOf("Allow", federated, `"sts:AssumeRoleWith??Identity"`, "")), web(), Fails},
	{"all actions but others", pNotAction + "matches everything except the specified list of actions", policy(`{"Effect": "Allow", ` + federated + `, "NotAction": "sts:AssumeRole"}`), web(), Works},
	{"all actions but this", pNotAction + "matches everything except the specified list of actions", policy(`{"Effect": "Allow", ` + federated + `, "NotAction": "sts:AssumeRoleWith*"}`), web(), Fails},

	// Keys of the provider.
	{"another audience", pSTSKeys + "aud", policy(when(aud)), web("audience", "0oa2"), Fails},
	{"an unknown audience", pSTSKeys + "aud", policy(when(aud)), web("audience", unset), Unknown},
	{"the subject", pSTSKeys + "sub", policy(when(`{"StringEquals": {"` + ourPrefix + `:sub": "00u1"}}`)), web(), Works},
	{"a key of another authorization server", pOIDC + "the URL must correspond to the iss claim", policy(when(`{"StringEquals": {"x.okta.com:aud": "0oa1"}}`)), web(), Fails},
	{"a key of another provider", pSTSKeys + "keys for web identity federation carry the provider's name", policy(when(`{"StringEquals": {"accounts.google.com:aud": "0oa1"}}`)), web(), Fails},
	{"a key in another case", pCondition + "condition key names are not case-sensitive", policy(when(`{"StringEquals": {"X.OKTA.COM/oauth2/aus1:AUD": "0oa1"}}`)), web(), Works},
	{"a key with a slash", pSilent + "whether a slash at the issuer's end counts", policy(when(`{"StringEquals": {"` + ourPrefix + `/:aud": "0oa1"}}`)), web(), Unknown},
	{"methods of authentication", pSTSKeys + "amr: the key is multivalued", policy(when(`{"ForAnyValue:StringEquals": {"` + ourPrefix + `:amr": "mfa"}}`)), web("amr", []string{"pwd", "mfa"}), Works},
	{"methods of authentication, absent", pSTSKeys + "amr", policy(when(`{"ForAnyValue:StringEquals": {"` + ourPrefix + `:amr": "mfa"}}`)), web(), Fails},
	{"an azp that is the audience", pSTSKeys + "aud: azp when the azp field is set", policy(when(aud)), web("azp", "0oa1"), Works},
	{"an azp that is not the audience", pSilent + "the page speaks of azp for Google only", policy(when(aud)), web("azp", "0oa9"), Unknown},
	{"an azp that is not known", pSilent + "the page speaks of azp for Google only", policy(when(aud)), web("azp", unset), Unknown},
	{"Google's azp is aud", pSTSKeys + "aud: azp when the azp field is set", policy(statementOf("Allow", `"Principal": {"Federated": "accounts.google.com"}`, webAction, `{"StringEquals": {"accounts.google.com:aud": "a", "accounts.google.com:oaud": "b"}}`)), web("issuer", "https://accounts.google.com", "azp", "a", "audience", "b"), Works},
	{"Google's aud without azp", pSTSKeys + "aud matches both when azp is not set", policy(statementOf("Allow", `"Principal": {"Federated": "accounts.google.com"}`, webAction, `{"StringEquals": {"accounts.google.com:aud": "b", "accounts.google.com:oaud": "b"}}`)), web("issuer", "https://accounts.google.com", "audience", "b"), Works},
	{"several audiences", pSilent + "which of several audiences is compared", policy(when(aud)), web("audience", []string{"0oa1", "0oa2"}), Unknown},
	{"the email", pSilent + "email is on no list of keys", policy(when(`{"StringEquals": {"` + ourPrefix + `:email": "ana@example.com"}}`)), web(), Unknown},
	{"another claim", pSTSKeys + "no such key", policy(when(`{"StringEquals": {"` + ourPrefix + `:groups": "admins"}}`)), web(), Unknown},
	{"a provider on loopback", pSTSKeys + "aud; a port only in a rehearsal", policy(statementOf("Allow", `"Principal": {"Federated": "arn:aws:iam::111122223333:oidc-provider/127.0.0.1:8081/idp"}`, webAction, `{"StringEquals": {"127.0.0.1:8081/idp:aud": "0oa1"}}`)), web("issuer", "http://127.0.0.1:8081/idp"), Works},
	{"a key whose lower case is shorter", pCondition + "no such key", policy(when(`{"StringEquals": {"` + strings.Repeat("K", 9) + `.com:aud": "0oa1"}}`)), web(), Fails},
	{"a tag whose name has a dot and a colon", pGlobal + "aws:RequestTag/tag-key", policy(when(`{"StringEquals": {"aws:RequestTag/example.com:team": "a"}}`)), web(), Fails},
	{"a SAML key for a web identity", pSTSKeys + "keys for SAML-based federation", policy(when(`{"StringEquals": {"saml:aud": "https://signin.aws.amazon.com/saml"}}`)), web(), Fails},

	// Keys that federated callers do not have.
	{"a principal tag", pGlobal + "aws:PrincipalTag: anonymous requests do not include this key", policy(when(`{"StringEquals": {"aws:PrincipalTag/team": "a"}}`)), web(), Fails},
	{"a principal tag, if it exists", pOperators + "...IfExists", policy(when(`{"StringEqualsIfExists": {"aws:PrincipalTag/team": "a"}}`)), web(), Works},
	{"MFA", pGlobal + "aws:MultiFactorAuthPresent: only when the principal uses temporary credentials", policy(when(`{"Bool": {"aws:MultiFactorAuthPresent": "true"}}`)), web(), Fails},
	{"MFA, if it exists", pGlobal + "aws:MultiFactorAuthPresent: BoolIfExists", policy(when(`{"BoolIfExists": {"aws:MultiFactorAuthPresent": "true"}}`)), web(), Works},
	{"a Deny without MFA, if it exists", pGlobal + "aws:MultiFactorAuthPresent: BoolIfExists with Deny", policy(when(""), denied(`{"BoolIfExists": {"aws:MultiFactorAuthPresent": "false"}}`)), web(), Fails},
	{"a Deny without MFA", pGlobal + "aws:MultiFactorAuthPresent: not recommended", policy(when(""), denied(`{"Bool": {"aws:MultiFactorAuthPresent": "false"}}`)), web(), Works},
	{"the organization", pGlobal + "aws:PrincipalOrgID: anonymous requests do not include this key", policy(when(`{"StringEquals": {"aws:PrincipalOrgID": "o-1"}}`)), web(), Fails},
	{"a Deny outside the organization", pOperators + "if the key is not present, a negated condition is true", policy(when(""), denied(`{"StringNotEquals": {"aws:PrincipalOrgID": "o-1"}}`)), web(), Fails},
	{"a Deny outside the organization, if it exists", pOperators + "a Deny with a negated operator like StringNotEqualsIfExists: the request is still denied even if the key is missing", policy(when(""), denied(`{"StringNotEqualsIfExists": {"aws:PrincipalOrgID": "o-1"}}`)), web(), Fails},
	{"the External ID of a web identity", pWebAPI + "request parameters: no ExternalId", policy(when(`{"StringEquals": {"sts:ExternalId": "xid-1"}}`)), web("external_id", "xid-1"), Fails},
	{"the user's name", pGlobal + "aws:username: anonymous requests do not include this key", policy(when(`{"StringLike": {"aws:username": "*"}}`)), web(), Fails},
	{"the user's id", pSilent + "what aws:userid is while the role is assumed", policy(when(`{"StringLike": {"aws:userid": "*"}}`)), web(), Unknown},
	{"when the credentials were issued", pGlobal + "aws:TokenIssueTime: only when the principal uses temporary credentials", policy(when(`{"Null": {"aws:TokenIssueTime": "true"}}`)), web(), Works},

	// Other keys.
	{"the session's name", pSTSKeys + "sts:RoleSessionName", policy(when(`{"StringEquals": {"sts:RoleSessionName": "ana@example.com"}}`)), web(), Works},
	{"another session name", pSTSKeys + "sts:RoleSessionName", policy(when(`{"StringLike": {"sts:RoleSessionName": "*@example.org"}}`)), web(), Fails},
	{"the External ID", pExternalID + "sts:ExternalId", policy(roleWhen(`{"StringEquals": {"sts:ExternalId": "xid-1"}}`)), assume(), Works},
	{"another External ID", pExternalID + "sts:ExternalId", policy(roleWhen(`{"StringEquals": {"sts:ExternalId": "xid-1"}}`)), assume("external_id", "xid-2"), Fails},
	{"no External ID", pSTSKeys + "sts:ExternalId: present when the principal provides an external ID", policy(roleWhen(`{"StringEquals": {"sts:ExternalId": "xid-1"}}`)), assume("external_id", nil), Fails},
	{"an unknown External ID", pSTSKeys + "sts:ExternalId", policy(roleWhen(`{"StringEquals": {"sts:ExternalId": "xid-1"}}`)), assume("external_id", unset), Unknown},
	{"the caller's organization", pGlobal + "aws:PrincipalOrgID", policy(statementOf("Allow", `"Principal": "*"`, `"sts:AssumeRole"`, `{"StringEquals": {"aws:PrincipalOrgID": "o-1"}}`)), assume(), Works},
	{"another organization", pGlobal + "aws:PrincipalOrgID", policy(statementOf("Allow", `"Principal": "*"`, `"sts:AssumeRole"`, `{"StringEquals": {"aws:PrincipalOrgID": "o-1"}}`)), assume("org_id", "o-2"), Fails},
	{"no organization", pGlobal + "aws:PrincipalOrgID: only if the principal is a member of an organization", policy(statementOf("Allow", `"Principal": "*"`, `"sts:AssumeRole"`, `{"StringEquals": {"aws:PrincipalOrgID": "o-1"}}`)), assume("org_id", nil), Fails},
	{"the caller's ARN", pGlobal + "aws:PrincipalArn: for IAM roles, the ARN of the role", policy(roleWhen(`{"ArnEquals": {"aws:PrincipalArn": "` + worker + `"}}`)), assume(), Works},
	{"the caller's ARN, of a session", pGlobal + "aws:PrincipalArn: the ARN of the role, whose path a session does not show", policy(roleWhen(`{"ArnEquals": {"aws:PrincipalArn": "` + worker + `"}}`)), assume("caller_arn", workerIn), Unknown},
	{"the caller's account", pGlobal + "aws:PrincipalAccount", policy(roleWhen(`{"StringEquals": {"aws:PrincipalAccount": "444455556666"}}`)), assume("caller_arn", workerIn), Works},
	{"the IAM user's name as the session's", pSTSKeys + "sts:RoleSessionName: ${aws:username}", policy(roleWhen(`{"StringLike": {"sts:RoleSessionName": "${aws:username}"}}`)), assume("caller_arn", "arn:aws:iam::444455556666:user/ana", "session_name", "ana"), Works},
	{"the same, of a role", pSTSKeys + "this policy does not allow anyone using temporary credentials, because the username variable is present for only IAM users", policy(roleWhen(`{"StringLike": {"sts:RoleSessionName": "${aws:username}"}}`)), assume(), Fails},
	{"by way of a service", pGlobal + "aws:ViaAWSService: false when the principal makes the call directly", policy(when(`{"Bool": {"aws:ViaAWSService": "false"}}`)), web(), Works},
	{"for a resource", pGlobal + "aws:SourceArn: only if a resource triggers a service to call", policy(when(`{"ArnLike": {"aws:SourceArn": "arn:aws:s3:::*"}}`)), web(), Fails},
	{"the role's tag", pSilent + "the role's tags are not in the context", policy(when(`{"StringEquals": {"aws:ResourceTag/team": "a"}}`)), web(), Unknown},
	{"a key of no service", pCondition + "no such key", policy(when(`{"StringEquals": {"aws:Nonsense": "a"}}`)), web(), Unknown},
	{"a Deny by a key of no service", pCondition + "no such key", policy(when(""), denied(`{"StringEquals": {"aws:Nonsense": "a"}}`)), web(), Unknown},
	{"the duration", pSTSKeys + "sts:DurationSeconds: not present for AWS STS assume-role operations", policy(when(`{"NumericLessThanEquals": {"sts:DurationSeconds": "3600"}}`)), web(), Fails},

	// Strings.
	{"a string in another case", pOperators + "StringEquals: exact matching, case sensitive", policy(when(`{"StringEquals": {"` + ourPrefix + `:aud": "0OA1"}}`)), web(), Fails},
	{"a star under StringEquals", pOperators + "StringEquals: exact matching; you must specify StringLike for wildcards", policy(when(`{"StringEquals": {"` + ourPrefix + `:aud": "0oa*"}}`)), web(), Fails},
	{"a string, not equal", pOperators + "StringNotEquals: negated matching", policy(when(`{"StringNotEquals": {"` + ourPrefix + `:aud": "0oa2"}}`)), web(), Works},
	{"a string, ignoring case", pOperators + "StringEqualsIgnoreCase", policy(when(`{"StringEqualsIgnoreCase": {"` + ourPrefix + `:aud": "0OA1"}}`)), web(), Works},
	{"a string, not equal, ignoring case", pOperators + "StringNotEqualsIgnoreCase", policy(when(`{"StringNotEqualsIgnoreCase": {"` + ourPrefix + `:aud": "0OA1"}}`)), web(), Fails},
	{"StringLike with a star", pOperators + "StringLike: multi-character match wildcards (*)", policy(when(`{"StringLike": {"` + ourPrefix + `:sub": "00*"}}`)), web(), Works},
	{"StringLike with a question mark", pOperators + "StringLike: single-character match wildcards (?)", policy(when(`{"StringLike": {"` + ourPrefix + `:sub": "00u?"}}`)), web(), Works},
	{"StringLike in part", pOperators + "you must specify wildcards to achieve partial string matches", policy(when(`{"StringLike": {"` + ourPrefix + `:sub": "00"}}`)), web(), Fails},
	{"StringLike in another case", pOperators + "StringLike: case-sensitive matching", policy(when(`{"StringLike": {"` + ourPrefix + `:sub": "00U*"}}`)), web(), Fails},
	{"StringNotLike", pOperators + "StringNotLike: negated case-sensitive matching", policy(when(`{"StringNotLike": {"` + ourPrefix + `:sub": "00*"}}`)), web(), Fails},
	{"StringNotLike of an absent key", pOperators + "such as StringNotLike, and the right key is not present, the condition is true", policy(when(`{"StringNotLike": {"` + ourPrefix + `:azp": "00*"}}`)), web(), Works},
	{"StringEquals of an absent key", pOperators + "if the key is not present, the values do not match", policy(when(`{"StringEquals": {"` + ourPrefix + `:azp": "a"}}`)), web(), Fails},
	{"an operator of no page", pOperators + "no such operator", policy(when(`{"StringMatches": {"` + ourPrefix + `:aud": "0oa1"}}`)), web(), Unknown},
	{"values of a key, one of which fits", pMany + "multiple values for a context key are evaluated using a logical OR", policy(when(`{"StringEquals": {"` + ourPrefix + `:aud": ["x", "0oa1"]}}`)), web(), Works},
	{"values of a negated key, one of which fits", pMany + "a negated operator's values are evaluated using a logical NOR", policy(when(`{"StringNotEquals": {"` + ourPrefix + `:aud": ["x", "0oa1"]}}`)), web(), Fails},
	{"keys of an operator, one of which fails", pMany + "multiple context keys are evaluated using a logical AND", policy(when(`{"StringEquals": {"` + ourPrefix + `:aud": "0oa1", "` + ourPrefix + `:sub": "no"}}`)), web(), Fails},
	{"operators, one of which fails", pMany + "multiple condition operators are evaluated using a logical AND", policy(when(`{"StringEquals": {"` + ourPrefix + `:aud": "0oa1"}, "StringLike": {"` + ourPrefix + `:sub": "no*"}}`)), web(), Fails},

	// Sets.
	{"ForAllValues, all fit", pSets + "ForAllValues: every member of the request set", policy(when(`{"ForAllValues:StringEquals": {"` + ourPrefix + `:amr": ["pwd", "mfa"]}}`)), web("amr", []string{"pwd"}), Works},
	{"ForAllValues, one does not fit", pSets + "ForAllValues: every member of the request set", policy(when(`{"ForAllValues:StringEquals": {"` + ourPrefix + `:amr": ["mfa"]}}`)), web("amr", []string{"pwd", "mfa"}), Fails},
	{"ForAllValues of nothing", pSets + "ForAllValues also returns true if there are no context keys in the request", policy(when(`{"ForAllValues:StringEquals": {"` + ourPrefix + `:amr": ["mfa"]}}`)), web(), Works},
	{"ForAllValues of an empty text", pSets + "a null dataset, such as an empty string", policy(when(`{"ForAllValues:StringEquals": {"` + ourPrefix + `:amr": ["mfa"]}}`)), web("amr", []string{""}), Works},
	{"ForAllValues of nothing, and Null", pOperators + "Null: false (the key exists and its value is not null)", policy(when(`{"ForAllValues:StringEquals": {"` + ourPrefix + `:amr": ["mfa"]}, "Null": {"` + ourPrefix + `:amr": "false"}}`)), web(), Fails},
	{"ForAnyValue, one fits", pSets + "ForAnyValue: at least one member", policy(when(`{"ForAnyValue:StringLike": {"` + ourPrefix + `:amr": ["m*"]}}`)), web("amr", []string{"pwd", "mfa"}), Works},
	{"ForAnyValue, none fits", pSets + "ForAnyValue: at least one member", policy(when(`{"ForAnyValue:StringEquals": {"` + ourPrefix + `:amr": ["otp"]}}`)), web("amr", []string{"pwd", "mfa"}), Fails},
	{"ForAnyValue of an empty text", pSets + "a null dataset, such as an empty string", policy(when(`{"ForAnyValue:StringEquals": {"` + ourPrefix + `:amr": [""]}}`)), web("amr", []string{""}), Fails},
	{"ForAllValues, negated", pSets + "every member of the request set; NOR of the values", policy(when(`{"ForAllValues:StringNotEquals": {"` + ourPrefix + `:amr": ["sms"]}}`)), web("amr", []string{"pwd", "mfa"}), Works},
	{"ForAnyValue, negated", pSets + "at least one member; NOR of the values", policy(when(`{"ForAnyValue:StringNotEquals": {"` + ourPrefix + `:amr": ["sms"]}}`)), web("amr", []string{"sms", "mfa"}), Works},
	{"ForAnyValue, negated, of nothing", pSilent + "one page says true of negated operators, one false of ForAnyValue", policy(when(`{"ForAnyValue:StringNotEquals": {"` + ourPrefix + `:amr": ["sms"]}}`)), web(), Unknown},
	{"ForAnyValue, if it exists, of nothing", pOperators + "...IfExists: evaluate the condition element as true", policy(when(`{"ForAnyValue:StringEqualsIfExists": {"` + ourPrefix + `:amr": ["mfa"]}}`)), web(), Works},
	{"several values without a set operator", pSets + "multivalued context keys require a condition set operator", policy(when(`{"StringEquals": {"` + ourPrefix + `:amr": "mfa"}}`)), web("amr", []string{"pwd", "mfa"}), Unknown},
	{"one value without a set operator", pSets + "the difference depends on the number of values in the request", policy(when(`{"StringEquals": {"` + ourPrefix + `:amr": "mfa"}}`)), web("amr", []string{"mfa"}), Works},

	// Null and IfExists.
	{"Null true of an absent key", pOperators + "Null: true (the key doesn't exist)", policy(when(`{"Null": {"` + ourPrefix + `:azp": "true"}}`)), web(), Works},
	{"Null true of a present key", pOperators + "Null: true (the key doesn't exist)", policy(when(`{"Null": {"` + ourPrefix + `:aud": true}}`)), web(), Fails},
	{"Null false of a present key", pOperators + "Null: false (the key exists)", policy(when(`{"Null": {"` + ourPrefix + `:aud": "false"}}`)), web(), Works},
	{"Null of an unknown key", pOperators + "Null", policy(when(`{"Null": {"aws:SourceVpce": "true"}}`)), web("source_vpce", unset), Unknown},
	{"IfExists of a present key that fits", pOperators + "...IfExists: process the key as specified", policy(when(`{"StringEqualsIfExists": {"` + ourPrefix + `:aud": "0oa1"}}`)), web(), Works},
	{"IfExists of a present key that does not fit", pOperators + "...IfExists: process the key as specified", policy(when(`{"StringEqualsIfExists": {"` + ourPrefix + `:aud": "no"}}`)), web(), Fails},

	// Addresses.
	{"an address in a range", pOperators + "IpAddress", policy(when(`{"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}`)), web(), Works},
	{"an address outside", pOperators + "IpAddress", policy(when(`{"IpAddress": {"aws:SourceIp": "198.51.100.0/24"}}`)), web(), Fails},
	{"an address alone", pOperators + "without a prefix, IAM uses the default prefix value of /32", policy(when(`{"IpAddress": {"aws:SourceIp": "203.0.113.7"}}`)), web(), Works},
	{"another address alone", pOperators + "without a prefix, IAM uses the default prefix value of /32", policy(when(`{"IpAddress": {"aws:SourceIp": "203.0.113.8"}}`)), web(), Fails},
	{"addresses of both families", pOperators + "mix IPv4 and IPv6 addresses", policy(when(`{"IpAddress": {"aws:SourceIp": ["203.0.113.0/24", "2001:DB8:1234:5678::/64"]}}`)), web("source_ip", "2001:db8:1234:5678::1"), Works},
	{"an address of the other family", pOperators + "IpAddress", policy(when(`{"IpAddress": {"aws:SourceIp": "2001:DB8:1234:5678::/64"}}`)), web(), Fails},
	{"not an address", pOperators + "NotIpAddress: all except the specified", policy(when(""), denied(`{"NotIpAddress": {"aws:SourceIp": "203.0.113.0/24"}}`)), web(), Works},
	{"a Deny outside the bridge's address", pOperators + "NotIpAddress: all except the specified", policy(when(""), denied(`{"NotIpAddress": {"aws:SourceIp": "198.51.100.0/24"}}`)), web(), Fails},
	{"an address behind an endpoint", pGlobal + "aws:SourceIp: except when the requester uses a VPC endpoint", policy(when(`{"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}`)), web("source_ip", nil, "source_vpce", "vpce-1"), Fails},
	{"a Deny outside, behind an endpoint", pOperators + "if the key is not present, a negated condition is true", policy(when(""), denied(`{"NotIpAddress": {"aws:SourceIp": "203.0.113.0/24"}}`)), web("source_ip", nil, "source_vpce", "vpce-1"), Fails},
	{"the endpoint", pGlobal + "aws:SourceVpce", policy(when(`{"StringEquals": {"aws:SourceVpce": "vpce-1"}}`)), web("source_ip", nil, "source_vpce", "vpce-1"), Works},
	{"no endpoint", pGlobal + "aws:SourceVpce: only if the requester uses a VPC endpoint", policy(when(`{"StringEquals": {"aws:SourceVpce": "vpce-1"}}`)), web(), Fails},
	{"the VPC, without an endpoint", pGlobal + "aws:SourceVpc: only if the requester uses a VPC endpoint", policy(when(`{"StringEquals": {"aws:SourceVpc": "vpc-1"}}`)), web(), Fails},
	{"the VPC, behind an endpoint", pGlobal + "aws:SourceVpc: which VPC is not in the context", policy(when(`{"StringEquals": {"aws:SourceVpc": "vpc-1"}}`)), web("source_ip", nil, "source_vpce", "vpce-1"), Unknown},
	{"an address by strings", pGlobal + "aws:SourceIp: works with IP address operators", policy(when(`{"StringLike": {"aws:SourceIp": "203.0.113.*"}}`)), web(), Unknown},
	{"a range that is none", pOperators + "the value must be in the standard CIDR format", policy(when(`{"IpAddress": {"aws:SourceIp": "203.0.113.0/240"}}`)), web(), Unknown},

	// Dates, numbers, truths, bytes.
	{"before a date", pOperators + "DateLessThan", policy(when(`{"DateLessThan": {"aws:CurrentTime": "2026-03-02T00:00:00Z"}}`)), web(), Works},
	{"after a date", pOperators + "DateGreaterThan", policy(when(`{"DateGreaterThan": {"aws:CurrentTime": "2026-03-02T00:00:00Z"}}`)), web(), Fails},
	{"at a date", pOperators + "DateLessThanEquals: at or before", policy(when(`{"DateLessThanEquals": {"aws:CurrentTime": "2026-03-01T12:00:00Z"}}`)), web(), Works},
	{"at a date in another zone", pOperators + "W3C implementations of the ISO 8601 date formats", policy(when(`{"DateEquals": {"aws:CurrentTime": "2026-03-01T13:00:00+01:00"}}`)), web(), Works},
	{"not at a date", pOperators + "DateNotEquals: negated matching", policy(when(`{"DateNotEquals": {"aws:CurrentTime": "2026-03-01T12:00:00Z"}}`)), web(), Fails},
	{"a date without a time", pOperators + "W3C implementations of the ISO 8601 date formats", policy(when(`{"DateGreaterThan": {"aws:CurrentTime": "2026-03-01"}}`)), web(), Works},
	{"a date as epoch", pOperators + "or in epoch (UNIX) time", policy(when(`{"DateGreaterThanEquals": {"aws:EpochTime": "1772366400"}}`)), web(), Works},
	{"a date as a number", pGlobal + "aws:EpochTime: works with date operators or numeric operators", policy(when(`{"NumericLessThan": {"aws:EpochTime": 1772366401}}`)), web(), Works},
	{"an unknown time", pGlobal + "aws:CurrentTime", policy(when(`{"DateLessThan": {"aws:CurrentTime": "2026-03-02T00:00:00Z"}}`)), web("now", unset), Unknown},
	{"an unknown time, and Null", pGlobal + "aws:CurrentTime: always included in the request context", policy(when(`{"Null": {"aws:CurrentTime": "false"}}`)), web("now", unset), Works},
	{"a date that is none", pOperators + "wildcards are not permitted for date condition operators", policy(when(`{"DateLessThan": {"aws:CurrentTime": "2026-*"}}`)), web(), Unknown},
	{"a number equal", pOperators + "NumericEquals", policy(when(`{"NumericEquals": {"` + ourPrefix + `:sub": "7.0"}}`)), web("subject", "7"), Works},
	{"a number greater", pOperators + "NumericGreaterThan", policy(when(`{"NumericGreaterThan": {"` + ourPrefix + `:sub": 7}}`)), web("subject", "7"), Fails},
	{"a number at least", pOperators + "NumericGreaterThanEquals", policy(when(`{"NumericGreaterThanEquals": {"` + ourPrefix + `:sub": 7}}`)), web("subject", "7"), Works},
	{"a number that is none", pOperators + "an integer or decimal value", policy(when(`{"NumericEquals": {"` + ourPrefix + `:sub": "seven"}}`)), web("subject", "7"), Unknown},
	{"a truth", pOperators + "Bool", policy(when(`{"Bool": {"aws:SecureTransport": "true"}}`)), web(), Works},
	{"a Deny without TLS", pOperators + "Bool: aws:SecureTransport", policy(when(""), denied(`{"Bool": {"aws:SecureTransport": "false"}}`)), web(), Works},
	{"bytes", pOperators + "BinaryEquals", policy(when(`{"BinaryEquals": {"` + ourPrefix + `:sub": "MDB1MQ=="}}`)), web(), Unknown},

	// ARNs.
	{"an ARN by a star", pOperators + "ArnLike: each component can include wildcards", policy(roleWhen(`{"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/serval-*"}}`)), assume(), Works},
	{"ArnEquals by a star", pOperators + "ArnEquals and ArnLike behave identically", policy(roleWhen(`{"ArnEquals": {"aws:PrincipalArn": "arn:aws:iam::*:role/serval-*"}}`)), assume(), Works},
	{"an ARN, a star across parts", pOperators + "each of the six colon-delimited components is checked separately", policy(roleWhen(`{"ArnLike": {"aws:PrincipalArn": "arn:*:role/serval-worker:::"}}`)), assume(), Fails},
	{"an ARN in another case", pOperators + "case-sensitive matching of the ARN", policy(roleWhen(`{"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::444455556666:role/Serval-*"}}`)), assume(), Fails},
	{"ArnNotLike", pOperators + "ArnNotLike: negated matching for ARN", policy(roleWhen(""), statementOf("Deny", `"Principal": "*"`, `"*"`, `{"ArnNotLike": {"aws:PrincipalArn": "arn:aws:iam::444455556666:role/*"}}`)), assume(), Works},
	{"an ARN as a string", pGlobal + "aws:PrincipalArn: works with ARN operators and string operators", policy(roleWhen(`{"StringLike": {"aws:PrincipalArn": "*serval-worker"}}`)), assume(), Works},
	{"an ARN that is none", pSilent + "what ArnLike makes of what is no ARN", policy(roleWhen(`{"ArnLike": {"aws:PrincipalArn": "*"}}`)), assume(), Unknown},

	// Variables.
	{"a variable", pVariables + "where you can use policy variables: Condition element", policy(when(`{"StringEquals": {"sts:RoleSessionName": "${` + ourPrefix + `:sub}"}}`)), web("session_name", "00u1"), Works},
	{"a variable that does not fit", pVariables + "where you can use policy variables: Condition element", policy(when(`{"StringEquals": {"sts:RoleSessionName": "${` + ourPrefix + `:sub}"}}`)), web(), Fails},
	{"a variable without a version", pVariables + "variables like ${aws:username} are treated as literal strings", old(when(`{"StringEquals": {"sts:RoleSessionName": "${` + ourPrefix + `:sub}"}}`)), web("session_name", "00u1"), Fails},
	{"a variable in the old version", pVersion + "2008-10-17: variables are treated as literal strings", `{"Version": "2008-10-17", "Statement": [` + when(`{"StringNotEquals": {"sts:RoleSessionName": "${`+ourPrefix+`:sub}"}}`) + `]}`, web("session_name", "00u1"), Works},
	{"a variable of nothing", pSTSKeys + "sts:RoleSessionName: the username variable is present for only IAM users", policy(when(`{"StringEquals": {"sts:RoleSessionName": "${aws:username}"}}`)), web(), Fails},
	{"a variable of nothing, negated", pVariables + "this might cause the entire statement to be invalid", policy(when(`{"StringNotEquals": {"sts:RoleSessionName": "${aws:username}"}}`)), web(), Unknown},
	{"a variable of nothing beside a value that fits", pVariables + "this might cause the entire statement to be invalid", policy(when(`{"StringEquals": {"sts:RoleSessionName": ["ana@example.com", "${aws:username}"]}}`)), web(), Unknown},
	{"a variable with a default", pVariables + "specifying default values", policy(when(`{"StringEquals": {"sts:RoleSessionName": "${aws:username, 'ana@example.com'}"}}`)), web(), Works},
	{"a default that is not needed", pVariables + "specifying default values", policy(when(`{"StringEquals": {"sts:RoleSessionName": "${` + ourPrefix + `:sub, 'ana@example.com'}"}}`)), web(), Fails},
	{"a variable that is unknown", pVariables + "the value comes from the request", policy(when(`{"StringEquals": {"sts:RoleSessionName": "${` + ourPrefix + `:sub}"}}`)), web("subject", unset), Unknown},
	{"a star that is meant", pVariables + "${*}: use where you need an asterisk", policy(when(`{"StringLike": {"` + ourPrefix + `:sub": "00${*}"}}`)), web(), Fails},
	{"a star that is meant, and is there", pVariables + "${*}: use where you need an asterisk", policy(when(`{"StringLike": {"` + ourPrefix + `:sub": "00${*}"}}`)), web("subject", "00*"), Works},
	{"a star out of a variable", pVariables + "AWS substitutes a value from the request", policy(when(`{"StringLike": {"sts:RoleSessionName": "${` + ourPrefix + `:sub}"}}`)), web("subject", "*"), Fails},
	{"a variable among numbers", pVariables + "you can't use a policy variable with other operators", policy(when(`{"NumericEquals": {"` + ourPrefix + `:sub": "${aws:EpochTime}"}}`)), web("subject", "7"), Unknown},
	{"a variable of several values", pSets + "you cannot use a multivalued context key as a policy variable", policy(when(`{"StringEquals": {"sts:RoleSessionName": "${` + ourPrefix + `:amr}"}}`)), web("amr", []string{"a", "b"}), Unknown},

	{"an open variable", pSilent + "what an open ${ is", policy(when(`{"StringEquals": {"sts:RoleSessionName": "${` + ourPrefix + `:sub"}}`)), web("subject", "ana@example.com"), Unknown},
	{"a time as a variable", pSilent + "how a time is written as a variable", policy(when(`{"StringEquals": {"sts:RoleSessionName": "${aws:CurrentTime}"}}`)), web(), Unknown},
	{"a default without quotes", pSilent + "what a default without quotes is", policy(when(`{"StringEquals": {"sts:RoleSessionName": "${aws:username, ana@example.com}"}}`)), web(), Unknown},

	// Keys that are there for some callers only.
	{"a key without a colon", pSilent + "what a key of no service is", policy(when(`{"StringEquals": {"aud": "0oa1"}}`)), web(), Unknown},
	{"a caller's key, for SAML", pGlobal + "aws:PrincipalOrgID: for all signed requests", policy(statementOf("Allow", `"Principal": {"Federated": "arn:aws:iam::111122223333:saml-provider/okta"}`, `"sts:AssumeRoleWithSAML"`, `{"StringEquals": {"aws:PrincipalOrgID": "o-1"}}`)),
		web("action", "sts:AssumeRoleWithSAML", "provider_arn", "arn:aws:iam::111122223333:saml-provider/okta"), Fails},
	{"a resource's account, of a role", pGlobal + "aws:SourceAccount: only if the call to your resource is made directly by an AWS service principal", policy(roleWhen(`{"StringEquals": {"aws:SourceAccount": "111122223333"}}`)), assume(), Fails},
	{"a resource's account, of a service", pGlobal + "aws:SourceAccount: only if the call to your resource is made directly by an AWS service principal", policy(statementOf("Allow", `"Principal": {"Service": "ec2.amazonaws.com"}`, `"sts:AssumeRole"`, `{"StringEquals": {"aws:SourceAccount": "111122223333"}}`)), assume("caller_arn", "ec2.amazonaws.com"), Unknown},
	{"a resource's account, of who knows whom", pGlobal + "aws:SourceAccount: only if the call to your resource is made directly by an AWS service principal", policy(statementOf("Allow", `"Principal": "*"`, `"sts:AssumeRole"`, `{"StringEquals": {"aws:SourceAccount": "111122223333"}}`)), assume("caller_arn", unset), Unknown},
	{"SAML's key for a role", pSilent + "whether a role of a SAML session has its keys", policy(roleWhen(`{"StringEquals": {"saml:namequalifier": "x"}}`)), assume(), Unknown},
	{"the paths of no organization", pGlobal + "aws:PrincipalOrgPaths: only if the principal is a member of an organization", policy(roleWhen(`{"ForAnyValue:StringLike": {"aws:PrincipalOrgPaths": "o-1/*"}}`)), assume("org_id", nil), Fails},
	{"a token's key for a role", pSilent + "whether a role of a web identity has its keys", policy(roleWhen(aud)), assume("issuer", ourIssuer, "audience", ourAudience, "azp", nil), Unknown},
	{"Google's subject beside an azp", pSTSKeys + "accounts.google.com:sub", policy(statementOf("Allow", `"Principal": {"Federated": "accounts.google.com"}`, webAction, `{"StringEquals": {"accounts.google.com:sub": "00u1"}}`)), web("issuer", "https://accounts.google.com", "azp", "other"), Works},
	{"one of several audiences", pSilent + "what the audience of a token for several is", policy(when(`{"ForAnyValue:StringEquals": {"` + ourPrefix + `:aud": "0oa1"}}`)), web("audience", []string{"0oa1", "0oa2"}), Unknown},
	{"an email that the token does not have", pSTSKeys + "a key that is not there", policy(when(`{"StringLike": {"` + ourPrefix + `:email": "*"}}`)), web("email", nil), Fails},

	// Session tags and source identity.
	{"keys of tags, who knows", pTags + "aws:TagKeys: limits the maximum set of session tags", policy(statementOf("Allow", federated, `"sts:*"`, `{"ForAllValues:StringEquals": {"aws:TagKeys": ["cost"]}}`)), web("passes_tags", unset), Unknown},
	{"keys of some tags", pTags + "aws:TagKeys: limits the maximum set of session tags", policy(statementOf("Allow", federated, `"sts:*"`, `{"ForAllValues:StringEquals": {"aws:TagKeys": ["cost"]}}`)), web("passes_tags", true), Unknown},
	{"a tag, who knows", pGlobal + "aws:RequestTag/tag-key: when tags are passed", policy(statementOf("Allow", federated, `"sts:*"`, `{"StringLike": {"aws:RequestTag/team": "*"}}`)), web("passes_tags", unset), Unknown},
	{"transitive keys, who knows", pTags + "sts:TransitiveTagKeys", policy(statementOf("Allow", federated, `"sts:*"`, `{"ForAllValues:StringEquals": {"sts:TransitiveTagKeys": ["team"]}}`)), web("passes_tags", map[string]string{"team": "a"}, "transitive_tags", unset), Unknown},
	{"some transitive keys", pTags + "sts:TransitiveTagKeys", policy(statementOf("Allow", federated, `"sts:*"`, `{"ForAllValues:StringEquals": {"sts:TransitiveTagKeys": ["team"]}}`)), web("passes_tags", map[string]string{"team": "a"}, "transitive_tags", true), Unknown},
	{"keys of no tags", pGlobal + "aws:TagKeys: only if the operation supports passing tags in the request", policy(when(`{"Null": {"aws:TagKeys": "false"}}`)), web(), Fails},
	{"two tags that differ in case", pSilent + "which of two tags a key in any case names", policy(statementOf("Allow", federated, `"sts:*"`, `{"StringEquals": {"aws:RequestTag/team": "a"}}`)), web("passes_tags", map[string]string{"team": "a", "Team": "b"}), Unknown},
	{"tags, and the permission", pTags + "sts:TagSession", policy(statementOf("Allow", federated, `["sts:AssumeRoleWithWebIdentity", "sts:TagSession"]`, aud)), web("passes_tags", true), Works},
	{"tags, and the permission in another statement", pTags + "AllowPassSessionTagsAndTransitive", policy(when(aud), statementOf("Allow", federated, `"sts:TagSession"`, "")), web("passes_tags", true), Works},
	{"tags without the permission", pTags + "for roles that don't have this permission, the operation will fail", policy(when(aud)), web("passes_tags", true), Fails},
	{"transitive tags without the permission", pTags + "Chaining roles with session tags", policy(roleWhen("")), assume("transitive_tags", true), Fails},
	{"transitive tags, and the permission", pTags + "Chaining roles with session tags", policy(statementOf("Allow", rootOf, `["sts:AssumeRole", "sts:TagSession"]`, "")), assume("transitive_tags", []string{"team"}), Works},
	{"tags, who knows", pTags + "sts:TagSession", policy(when(aud)), web("passes_tags", unset), Unknown},
	{"tags, who knows, and the permission", pTags + "sts:TagSession", policy(statementOf("Allow", federated, `["sts:AssumeRoleWithWebIdentity", "sts:TagSession"]`, aud)), web("passes_tags", unset), Works},
	{"tags that are denied", pTags + "sts:TagSession", policy(statementOf("Allow", federated, `"sts:*"`, aud), statementOf("Deny", `"Principal": "*"`, `"sts:TagSession"`, "")), web("passes_tags", true), Fails},
	{"the permission for others", pTags + "sts:TagSession", policy(when(aud), statementOf("Allow", rootOf, `"sts:TagSession"`, "")), web("passes_tags", true), Fails},
	{"a tag's value", pGlobal + "aws:RequestTag/tag-key", policy(statementOf("Allow", federated, `"sts:*"`, `{"StringEquals": {"aws:RequestTag/Team": "a"}}`)), web("passes_tags", map[string]string{"team": "a"}), Works},
	{"another value of a tag", pGlobal + "aws:RequestTag/tag-key", policy(statementOf("Allow", federated, `"sts:*"`, `{"StringEquals": {"aws:RequestTag/Team": "b"}}`)), web("passes_tags", map[string]string{"Team": "a"}), Fails},
	{"a tag that is not sent", pGlobal + "aws:RequestTag/tag-key: when tags are passed", policy(when(`{"StringLike": {"aws:RequestTag/team": "*"}}`)), web(), Fails},
	{"a tag among unknown ones", pGlobal + "aws:RequestTag/tag-key", policy(statementOf("Allow", federated, `"sts:*"`, `{"StringLike": {"aws:RequestTag/team": "*"}}`)), web("passes_tags", true), Unknown},
	{"keys of tags", pTags + "aws:TagKeys: limits the maximum set of session tags", policy(statementOf("Allow", federated, `"sts:*"`, `{"ForAllValues:StringEquals": {"aws:TagKeys": ["team", "cost"]}}`)), web("passes_tags", map[string]string{"team": "a"}), Works},
	{"keys of tags beyond", pTags + "aws:TagKeys: limits the maximum set of session tags", policy(statementOf("Allow", federated, `"sts:*"`, `{"ForAllValues:StringEquals": {"aws:TagKeys": ["cost"]}}`)), web("passes_tags", map[string]string{"team": "a"}), Fails},
	{"transitive keys", pTags + "sts:TransitiveTagKeys: the user can choose to set a subset or no tags as transitive", policy(statementOf("Allow", federated, `"sts:*"`, `{"ForAllValues:StringEquals": {"sts:TransitiveTagKeys": ["team"]}}`)), web("passes_tags", map[string]string{"team": "a"}, "transitive_tags", []string{"team"}), Works},
	{"transitive keys, required", pTags + `"Null": {"sts:TransitiveTagKeys": "false"}`, policy(statementOf("Allow", federated, `"sts:*"`, `{"Null": {"sts:TransitiveTagKeys": "false"}}`)), web("passes_tags", map[string]string{"team": "a"}), Fails},
	{"a source identity without the permission", pMonitor + "sts:SetSourceIdentity", policy(when(aud)), web("source_identity", "ana"), Fails},
	{"a source identity, and the permission", pMonitor + "sts:SetSourceIdentity", policy(statementOf("Allow", federated, `["sts:AssumeRoleWithWebIdentity", "sts:SetSourceIdentity"]`, aud)), web("source_identity", "ana"), Works},
	{"the source identity", pSTSKeys + "sts:SourceIdentity: AllowAdminUserAssumeRole", policy(statementOf("Allow", rootOf, `["sts:AssumeRole", "sts:SetSourceIdentity"]`, `{"StringEquals": {"sts:SourceIdentity": "DiegoRamirez"}}`)), assume("source_identity", "DiegoRamirez"), Works},
	{"another source identity", pSTSKeys + "sts:SourceIdentity: AllowAdminUserAssumeRole", policy(statementOf("Allow", rootOf, `["sts:AssumeRole", "sts:SetSourceIdentity"]`, `{"StringEquals": {"sts:SourceIdentity": "DiegoRamirez"}}`)), assume("source_identity", "Saanvi"), Fails},

	// What is asked.
	{"no action", pWebAPI + "the operation", policy(when(aud)), web("action", unset), Unknown},
	{"another operation", pWebAPI + "the operation", policy(when(aud)), web("action", "sts:GetSessionToken"), Unknown},
	{"the operation in another case", pAction + "case insensitive", policy(when(aud)), web("action", "sts:assumerolewithwebidentity"), Works},
}

func parse(t testing.TB, text string) *Policy {
	t.Helper()
	p, err := Parse(serval.Document(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return p
}

// TestPolicy_Judge holds verdicts against AWS's documentation.
func TestPolicy_Judge(t *testing.T) {
	if len(table) < 120 {
		t.Errorf("%d rows, want at least 120", len(table))
	}
	names := map[string]bool{}
	for _, row := range table {
		if row.page == "" || names[row.name] {
			t.Errorf("%s: a row has a page and a name of its own", row.name)
		}
		if strings.HasPrefix(row.page, pSilent) && row.want != Unknown {
			t.Errorf("%s: no page decides, and the verdict is %q", row.name, row.want)
		}
		names[row.name] = true
		p, c := parse(t, row.policy), row.given(t)
		got := p.Judge(c)
		if got.Verdict != row.want {
			t.Errorf("%s: got %q (%s), want %q: %s\n%s", row.name, got.Verdict, got.Reason, row.want, row.page, row.policy)
		}
		start := map[string]string{Works: "the trust policy accepts you", Fails: "refuses you: ", Unknown: "cannot tell: "}[got.Verdict]
		if !strings.HasPrefix(got.Reason, start) || got.Verdict != Works && !strings.HasSuffix(got.Reason, ".") {
			t.Errorf("%s: the reason of %q is %q", row.name, got.Verdict, got.Reason)
		}
		if (got.Mend != nil) && got.Verdict != Fails {
			t.Errorf("%s: a mend for %q", row.name, got.Verdict)
		}
	}
}

// A verdict says which statement decided and which condition of it, and why, in a
// sentence: of several Allows it is about the one that comes nearest.
func TestPolicy_Judge_reason(t *testing.T) {
	const key = ourPrefix
	for _, row := range []struct {
		name, policy                 string
		given                        given
		statement, condition, reason string
	}{
		{"a Deny", policy(when(aud), statementOf("Deny", `"Principal": "*"`, `"*"`, "")), web(),
			"statement 2", "", "refuses you: statement 2 denies sts:AssumeRoleWithWebIdentity."},
		{"a Deny under a condition", policy(when(aud), denied(`{"StringEquals": {"`+key+`:sub": "00u1"}}`)), web(),
			"statement 2", `StringEquals x.okta.com/oauth2/aus1:sub "00u1"`, `refuses you: statement 2 denies sts:AssumeRoleWithWebIdentity, where StringEquals x.okta.com/oauth2/aus1:sub "00u1".`},
		{"a Deny of the tags", policy(statementOf("Allow", federated, `"sts:*"`, aud), statementOf("Deny", `"Principal": "*"`, `"sts:TagSession"`, "")), web("passes_tags", true),
			"statement 2", "", "refuses you: statement 2 denies sts:TagSession, which session tags need."},
		{"nothing allowed", policy(denied(aud)), web(),
			"statement 1", `StringEquals x.okta.com/oauth2/aus1:aud "0oa1"`, `refuses you: statement 1 denies sts:AssumeRoleWithWebIdentity, where StringEquals x.okta.com/oauth2/aus1:aud "0oa1".`},
		{"all but the caller", policy(statementOf("Allow", `"NotPrincipal": {"Federated": "`+ourProvider+`"}`, webAction, "")), web(),
			"statement 1", "", `refuses you: statement 1 allows all but those it names, and it names "arn:aws:iam::111122223333:oidc-provider/x.okta.com/oauth2/aus1".`},
		{"another provider", policy(statementOf("Allow", `"Principal": {"Federated": "accounts.google.com"}`, webAction, "")), web(),
			"statement 1", "", `refuses you: statement 1 trusts "accounts.google.com", and not "arn:aws:iam::111122223333:oidc-provider/x.okta.com/oauth2/aus1".`},
		{"two others", policy(statementOf("Allow", `"Principal": {"Federated": ["accounts.google.com", "www.amazon.com"]}`, webAction, "")), web(),
			"statement 1", "", `refuses you: statement 1 trusts "accounts.google.com" and 1 more, and not "arn:aws:iam::111122223333:oidc-provider/x.okta.com/oauth2/aus1".`},
		{"nobody", policy(statementOf("Allow", `"Principal": {"AWS": []}`, webAction, "")), web(),
			"statement 1", "", `refuses you: statement 1 trusts nobody, and not "arn:aws:iam::111122223333:oidc-provider/x.okta.com/oauth2/aus1".`},
		{"who was deleted", policy(statementOf("Allow", `"Principal": {"AWS": "AROAIIAV3SAMPLEEXAMPLE"}`, `"sts:AssumeRole"`, "")), assume(),
			"statement 1", "", `refuses you: statement 1 trusts "AROAIIAV3SAMPLEEXAMPLE", a principal that was deleted, and not "arn:aws:iam::444455556666:role/serval-worker".`},
		{"an account that is known by its id", policy(roleWhen("")), assume("caller_arn", unset, "caller_account", "777788889999"),
			"statement 1", "", `refuses you: statement 1 trusts "arn:aws:iam::444455556666:root", and not account 777788889999.`},
		{"no provider", policy(when(aud)), web("provider_arn", nil),
			"", "", "refuses you: the trust policy would accept you, but account 111122223333 has no IAM OIDC provider for https://x.okta.com/oauth2/aus1."},
		{"no such action", policy(statementOf("Allow", federated, `"sts:TagSession"`, aud)), web(),
			"statement 1", "", "refuses you: statement 1 does not allow sts:AssumeRoleWithWebIdentity."},
		{"no tags", policy(when(aud)), web("passes_tags", true),
			"statement 1", "", "refuses you: statement 1 does not allow sts:TagSession, which session tags need."},
		{"no source identity", policy(when(aud)), web("source_identity", "ana"),
			"statement 1", "", "refuses you: statement 1 does not allow sts:SetSourceIdentity, which a source identity needs."},
		{"another audience", policy(when(aud)), web("audience", "0oa2"),
			"statement 1", `StringEquals x.okta.com/oauth2/aus1:aud "0oa1"`, `refuses you: statement 1 asks for StringEquals x.okta.com/oauth2/aus1:aud "0oa1", and it is "0oa2".`},
		{"no subject", policy(when(`{"StringEquals": {"` + key + `:amr": "mfa"}}`)), web(),
			"statement 1", `StringEquals x.okta.com/oauth2/aus1:amr "mfa"`, `refuses you: statement 1 asks for StringEquals x.okta.com/oauth2/aus1:amr "mfa", and the request has no such key.`},
		{"another server's key", policy(when(`{"StringEquals": {"x.okta.com:aud": "0oa1"}}`)), web(),
			"statement 1", `StringEquals x.okta.com:aud "0oa1"`, `refuses you: statement 1 asks for StringEquals x.okta.com:aud "0oa1", and your token's keys begin with x.okta.com/oauth2/aus1.`},
		{"a caller's key", policy(when(`{"StringEquals": {"aws:PrincipalOrgID": "o-1"}}`)), web(),
			"statement 1", `StringEquals aws:PrincipalOrgID "o-1"`, `refuses you: statement 1 asks for StringEquals aws:PrincipalOrgID "o-1", and AWS sets no such key for federated callers.`},
		{"a caller's second factor", policy(when(`{"Bool": {"aws:MultiFactorAuthPresent": "true"}}`)), web(),
			"statement 1", `Bool aws:MultiFactorAuthPresent "true"`, `refuses you: statement 1 asks for Bool aws:MultiFactorAuthPresent "true", and AWS sets no such key for federated callers.`},
		{"too late", policy(when(`{"DateLessThan": {"aws:CurrentTime": "2026-02-01T00:00:00Z"}}`)), web(),
			"statement 1", `DateLessThan aws:CurrentTime "2026-02-01T00:00:00Z"`, `refuses you: statement 1 asks for DateLessThan aws:CurrentTime "2026-02-01T00:00:00Z", and it is 2026-03-01T12:00:00Z.`},
		{"too late, in seconds", policy(when(`{"NumericLessThan": {"aws:EpochTime": "1700000000"}}`)), web(),
			"statement 1", `NumericLessThan aws:EpochTime "1700000000"`, `refuses you: statement 1 asks for NumericLessThan aws:EpochTime "1700000000", and it is 2026-03-01T12:00:00Z.`},
		{"several values", policy(when(`{"ForAnyValue:StringEquals": {"` + key + `:amr": "mfa"}}`)), web("amr", []string{"pwd", "otp"}),
			"statement 1", `ForAnyValue:StringEquals x.okta.com/oauth2/aus1:amr "mfa"`, `refuses you: statement 1 asks for ForAnyValue:StringEquals x.okta.com/oauth2/aus1:amr "mfa", and the request's values do not fit.`},
		{"the nearest of two, by principal", policy(statementOf("Allow", `"Principal": {"Federated": "accounts.google.com"}`, webAction, ""), when(`{"StringEquals": {"`+key+`:aud": "no", "`+key+`:sub": "no"}}`)), web(),
			"statement 2", `StringEquals x.okta.com/oauth2/aus1:aud "no"`, `refuses you: statement 2 asks for StringEquals x.okta.com/oauth2/aus1:aud "no", and it is "0oa1".`},
		{"the nearest of two, by host", policy(statementOf("Allow", `"Principal": {"Federated": "accounts.google.com"}`, webAction, ""), statementOf("Allow", `"Principal": {"Federated": "arn:aws:iam::111122223333:oidc-provider/x.okta.com"}`, webAction, "")), web(),
			"statement 2", "", `refuses you: statement 2 trusts "arn:aws:iam::111122223333:oidc-provider/x.okta.com", and not "arn:aws:iam::111122223333:oidc-provider/x.okta.com/oauth2/aus1".`},
		{"the nearest of two, by action", policy(statementOf("Allow", federated, `"sts:TagSession"`, ""), when(`{"StringEquals": {"`+key+`:aud": "no"}}`)), web(),
			"statement 2", `StringEquals x.okta.com/oauth2/aus1:aud "no"`, `refuses you: statement 2 asks for StringEquals x.okta.com/oauth2/aus1:aud "no", and it is "0oa1".`},
		{"the nearest of two, by conditions", policy(when(`{"StringEquals": {"`+key+`:aud": "no", "`+key+`:sub": "no"}}`), when(`{"StringEquals": {"`+key+`:aud": "0oa1", "`+key+`:sub": "no"}}`)), web(),
			"statement 2", `StringEquals x.okta.com/oauth2/aus1:sub "no"`, `refuses you: statement 2 asks for StringEquals x.okta.com/oauth2/aus1:sub "no", and it is "00u1".`},
		{"no operation", policy(when(aud)), web("action", unset),
			"", "", "cannot tell: the action is not given."},
		{"another operation", policy(when(aud)), web("action", "sts:GetSessionToken"),
			"", "", "cannot tell: sts:GetSessionToken is not sts:AssumeRoleWithWebIdentity, sts:AssumeRole or sts:AssumeRoleWithSAML."},
		{"who calls", policy(roleWhen("")), assume("caller_arn", unset),
			"statement 1", "", "cannot tell: statement 1 may allow this, and who calls is not known."},
		{"who denied", policy(roleWhen(""), statementOf("Deny", `"Principal": {"AWS": "arn:aws:iam::444455556666:role/x"}`, `"*"`, "")), assume("caller_arn", unset, "caller_account", workerHome),
			"statement 2", "", "cannot tell: whether the principals of statement 2 take in account 444455556666 is not known."},
		{"whose provider", policy(when("")), web("role_arn", unset),
			"statement 1", "", `cannot tell: whether the principals of statement 1 take in the provider "x.okta.com/oauth2/aus1" is not known.`},
		{"tags", policy(when(aud)), web("passes_tags", unset),
			"", "", "cannot tell: the policy does not allow sts:TagSession, which session tags need, and whether the call has any is not known."},
		{"a value", policy(when(aud)), web("audience", unset),
			"statement 1", `StringEquals x.okta.com/oauth2/aus1:aud "0oa1"`, `cannot tell: statement 1 may allow this, and of StringEquals x.okta.com/oauth2/aus1:aud "0oa1" the request's value is not known.`},
		{"a value of a Deny", policy(when(aud), denied(`{"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}`)), web("source_ip", unset),
			"statement 2", `IpAddress aws:SourceIp "203.0.113.0/24"`, `cannot tell: statement 2 may deny this, and of IpAddress aws:SourceIp "203.0.113.0/24" the request's value is not known.`},
		{"a Deny beside an Allow that may not match", policy(when(`{"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}`), denied(`{"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}`)), web("source_ip", unset),
			"statement 1", `IpAddress aws:SourceIp "203.0.113.0/24"`, `cannot tell: statement 1 may allow this, and of IpAddress aws:SourceIp "203.0.113.0/24" the request's value is not known.`},
		{"an operator", policy(when(`{"StringMatches": {"` + key + `:aud": "0oa1"}}`)), web(),
			"statement 1", `StringMatches x.okta.com/oauth2/aus1:aud "0oa1"`, `cannot tell: statement 1 may allow this, and of StringMatches x.okta.com/oauth2/aus1:aud "0oa1" the operator is not known.`},
		{"a key", policy(when(`{"StringEquals": {"aws:Weather": "fine"}}`)), web(),
			"statement 1", `StringEquals aws:Weather "fine"`, `cannot tell: statement 1 may allow this, and of StringEquals aws:Weather "fine" AWS documents no such key.`},
		{"a tag of the role", policy(when(`{"StringEquals": {"aws:ResourceTag/team": "a"}}`)), web(),
			"statement 1", `StringEquals aws:ResourceTag/team "a"`, `cannot tell: statement 1 may allow this, and of StringEquals aws:ResourceTag/team "a" the request's value is not known.`},
		{"a tag of the role, as IAM has it", policy(when(`{"StringEquals": {"iam:ResourceTag/team": "a"}}`)), web(),
			"statement 1", `StringEquals iam:ResourceTag/team "a"`, `cannot tell: statement 1 may allow this, and of StringEquals iam:ResourceTag/team "a" the request's value is not known.`},
		{"an azp that is not known", policy(when(aud)), web("azp", unset),
			"statement 1", `StringEquals x.okta.com/oauth2/aus1:aud "0oa1"`, `cannot tell: statement 1 may allow this, and of StringEquals x.okta.com/oauth2/aus1:aud "0oa1" the token's azp is not known, which AWS may compare in its place.`},
		{"another azp", policy(when(aud)), web("azp", "0oa9"),
			"statement 1", `StringEquals x.okta.com/oauth2/aus1:aud "0oa1"`, `cannot tell: statement 1 may allow this, and of StringEquals x.okta.com/oauth2/aus1:aud "0oa1" AWS may compare the token's azp in place of its audience.`},
		{"a value that AWS does not explain", policy(when(`{"Bool": {"` + key + `:sub": "true"}}`)), web(),
			"statement 1", `Bool x.okta.com/oauth2/aus1:sub "true"`, `cannot tell: statement 1 may allow this, and of Bool x.okta.com/oauth2/aus1:sub "true" AWS documents no answer for this value.`},
		{"a value that is there", policy(when(`{"StringEquals": {"aws:UserAgent": "x"}}`)), web(),
			"statement 1", `StringEquals aws:UserAgent "x"`, `cannot tell: statement 1 may allow this, and of StringEquals aws:UserAgent "x" the request's value is not known.`},
	} {
		v := parse(t, row.policy).Judge(row.given(t))
		if v.Statement != row.statement || v.Condition != row.condition || v.Reason != row.reason {
			t.Errorf("%s: by %q, %q:\n%s, want by %q, %q:\n%s", row.name, v.Statement, v.Condition, v.Reason, row.statement, row.condition, row.reason)
		}
	}
}
