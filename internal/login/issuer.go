package login

import (
	"net/url"
	"strings"
)

// IssuerNote returns what is likely wrong with an issuer as it is written, and
// what it should be; empty for one that looks right. Providers have more than
// one form of their address, and only one of them is in their tokens.
func IssuerNote(issuer string) string {
	u, err := url.Parse(issuer)
	if err != nil || u.Host == "" {
		return ""
	}
	host, path := u.Hostname(), u.Path
	trimmed := strings.TrimSuffix(path, "/")
	switch {
	case strings.HasSuffix(trimmed, "/.well-known/openid-configuration"):
		return "The issuer is what stands before /.well-known/openid-configuration."
	case isOkta(issuer):
		return oktaNote(u, trimmed)
	case host == "login.microsoftonline.com" || host == "login.microsoftonline.us":
		tenant, rest, _ := strings.Cut(strings.TrimPrefix(trimmed, "/"), "/")
		switch {
		case tenant == "" || tenant == "common" || tenant == "organizations" || tenant == "consumers":
			return "Entra ID's tokens name one tenant: use https://" + host + "/<tenant id>/v2.0."
		case rest != "v2.0" || path != trimmed:
			return "Entra ID's issuer is https://" + host + "/" + tenant + "/v2.0, without a slash at its end."
		}
	case host == "sts.windows.net":
		return "This is the issuer of Entra ID's older tokens. Use https://login.microsoftonline.com/<tenant id>/v2.0."
	case host == "accounts.google.com" && (path != "" || u.Scheme != "https"):
		return "Google's issuer is https://accounts.google.com, without a slash at its end."
	case strings.HasSuffix(host, ".auth0.com") && path != "/":
		return "Auth0's issuer ends with a slash: https://" + host + "/."
	case host == "oauth.id.jumpcloud.com" && path != "/":
		return "JumpCloud's issuer ends with a slash: https://oauth.id.jumpcloud.com/."
	case host == "openid-connect.onelogin.com" || host == "openid-connect-eu.onelogin.com":
		return "OneLogin has retired this issuer. Use https://<subdomain>.onelogin.com/oidc/2."
	case strings.HasSuffix(host, ".onelogin.com") && path != "/oidc/2":
		return "OneLogin's issuer is https://" + host + "/oidc/2, without a slash at its end."
	case strings.Contains(path, "/auth/realms/"):
		return "Keycloak has no /auth in its issuer since version 17, unless it was configured: https://" + u.Host + strings.Replace(trimmed, "/auth/realms/", "/realms/", 1) + "."
	}
	return ""
}

// oktaNote tells Okta's org authorization server, whose issuer is the bare
// domain, from custom ones at /oauth2/<id>. What used to be written between them
// is the path of the org server's endpoints, and nobody's issuer.
func oktaNote(u *url.URL, path string) string {
	org, admin := u.Scheme+"://"+u.Host, false
	if name, domain, found := strings.Cut(u.Host, "-admin.okta"); found {
		org, admin = u.Scheme+"://"+name+".okta"+domain, true
	}
	switch {
	case admin:
		return "This is the address of Okta's admin console. Use " + org + ", or " + org + "/oauth2/<id> for a custom authorization server."
	case path == "/oauth2" || path == "/oauth2/v1" || strings.HasPrefix(path, "/oauth2/v1/"):
		return org + "/oauth2 is where endpoints are, and no issuer. Use " + org + " for the org authorization server, or " +
			org + "/oauth2/<id>, such as " + org + "/oauth2/default, for a custom one."
	case path != "" && !strings.HasPrefix(path, "/oauth2/"):
		return "Okta's issuer is " + org + ", or " + org + "/oauth2/<id> for a custom authorization server."
	case u.Path != path:
		return "Okta's issuer has no slash at its end: " + org + path + "."
	}
	return ""
}

// issuerAdvice returns a sentence for whoever configured the issuer, or nothing.
func issuerAdvice(configured, said string) string {
	if note := IssuerNote(configured); note != "" {
		return " " + note
	}
	a, err1 := url.Parse(configured)
	b, err2 := url.Parse(said)
	if said != "" && err1 == nil && err2 == nil && isOkta(configured) && a.Host == b.Host {
		return " Okta's org authorization server and its custom ones (/oauth2/<id>) are different issuers, with keys of their own: " +
			"the issuer has to be the one that the app's tokens come from, and that the IAM OIDC providers in AWS name."
	}
	return ""
}
