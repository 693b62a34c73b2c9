package main

import "strings"

// A mistake is a trust policy as it is often written wrong, by the name of the
// role that has it. Given the role's account and the provider as IAM names it.
type mistake struct {
	role, description string
	trust             func(accountID, provider string) string
	verdict           string // on it, as the requester sees it
	mended            bool   // there is a mend to print
	finding           string // what is to be known about it; empty where nothing is
}

// mistakes are the roles of the workshop account: one of each.
func mistakes() []mistake {
	provider := func(accountID, name string) map[string]any {
		return map[string]any{"Federated": "arn:aws:iam::" + accountID + ":oidc-provider/" + name}
	}
	allow := func(principal any, action string, condition map[string]any) map[string]any {
		s := map[string]any{"Effect": "Allow", "Principal": principal, "Action": action}
		if condition != nil {
			s["Condition"] = condition
		}
		return s
	}
	const web = "sts:AssumeRoleWithWebIdentity"
	audience := func(name, value string) map[string]any {
		return map[string]any{"StringEquals": map[string]any{name + ":aud": value}}
	}
	// with is our own trust with one more condition, which AWS asks as well.
	with := func(operator, key, value string) func(string, string) string {
		return func(id, name string) string {
			c := audience(name, clientID)
			operand := strings.ReplaceAll(key, "PROVIDER", name)
			if same, ok := c[operator].(map[string]any); ok {
				same[operand] = value
			} else {
				c[operator] = map[string]any{operand: value}
			}
			return document(allow(provider(id, name), web, c))
		}
	}
	return []mistake{
		{"workshop-other-client", "Trusts tokens made for another client", func(id, name string) string {
			return document(allow(provider(id, name), web, audience(name, "0oaOLDCLIENT")))
		}, "fails", true, "audience-other"},
		{"workshop-other-server", "Trusts another authorization server of the same host", func(id, name string) string {
			return document(allow(provider(id, name+"/oauth2/default"), web, audience(name+"/oauth2/default", clientID)))
		}, "fails", true, "other-issuer"},
		{"workshop-other-account", "Names the identity provider of another account", func(_, name string) string {
			return document(allow(provider(prodAccount, name), web, audience(name, clientID)))
		}, "fails", true, "foreign-provider"},
		{"workshop-wrong-action", "Allows sts:AssumeRole, which nobody calls with a token", func(id, name string) string {
			return document(allow(provider(id, name), "sts:AssumeRole", audience(name, clientID)))
		}, "fails", true, ""},
		{"workshop-account-only", "Has the trust policy that the console makes by default", func(id, _ string) string {
			return document(allow(map[string]any{"AWS": "arn:aws:iam::" + id + ":root"}, "sts:AssumeRole", nil))
		}, "fails", true, "external-id-missing"},
		{"workshop-key-of-another", "Asks for the audience under another provider's name", func(id, name string) string {
			return document(allow(provider(id, name), web, audience("acme.okta.com", clientID)))
		}, "fails", false, "audience-missing"},
		{"workshop-somebody-else", "Is for one person alone, and that is not you", with("StringEquals", "PROVIDER:sub", "00u1aSomebodyElse"), "fails", false, "bypass"},
		{"workshop-until-last-year", "Was trusted until last year", with("DateLessThan", "aws:CurrentTime", "2025-01-01T00:00:00Z"), "fails", false, "bypass"},
		{"workshop-with-mfa", "Asks for MFA, which AWS never sees of a token", with("Bool", "aws:MultiFactorAuthPresent", "true"), "fails", false, "bypass"},
		{"workshop-from-the-office", "Is closed to all but one network", with("IpAddress", "aws:SourceIp", "127.0.0.0/8"), "unknown", false, ""},
		{"workshop-any-client", "Trusts tokens made for any client", func(id, name string) string {
			return document(allow(provider(id, name), web, map[string]any{"StringLike": map[string]any{name + ":aud": "*"}}))
		}, "works", false, "audience-wildcard"},
		{"workshop-no-audience", "Does not ask whom the token was made for", func(id, name string) string {
			return document(allow(provider(id, name), web, nil))
		}, "works", false, "audience-missing"},
		{"workshop-a-second-door", "Also trusts whoever its account lets assume roles", func(id, name string) string {
			return document(allow(provider(id, name), web, audience(name, clientID)),
				allow(map[string]any{"AWS": id}, "sts:AssumeRole", nil))
		}, "works", false, "external-id-missing"},
		{"workshop-somebody-gone", "Also names a role that was deleted", func(id, name string) string {
			return document(allow(provider(id, name), web, audience(name, clientID)),
				allow(map[string]any{"AWS": "AROAIIAV3SAMPLEEXAMPLE"}, "sts:AssumeRole", nil))
		}, "works", false, "deleted-principal"},
	}
}
