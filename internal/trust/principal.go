package trust

import (
	"strings"
)

// A principal is one entry of a Principal or NotPrincipal element (IAM User
// Guide, "AWS JSON policy elements: Principal").
type principal struct {
	kind string // AWS, Federated, Service, CanonicalUser
	id   string
	arn  identity // of an AWS principal
}

// An identity is what an AWS principal's name says.
type identity struct {
	class   class
	account string
	name    string // of a user, with its path; of a role, without
	session string
}

// A class is a sort of AWS principal.
type class int

const (
	other         class = iota // a form we do not know
	everyone                   // *
	account                    // an account id, or its :root
	user                       // arn:...:user/...
	role                       // arn:...:role/...
	session                    // arn:...:assumed-role/NAME/SESSION
	federatedUser              // arn:...:federated-user/...
	uniqueID                   // AIDA..., AROA...: what is left of a deleted principal
	service                    // NAME.amazonaws.com, of a caller
)

// identify takes the name of an AWS principal apart.
func identify(id string) identity {
	if id == "*" {
		return identity{class: everyone}
	}
	if isAccountID(id) {
		return identity{class: account, account: id}
	}
	if isUniqueID(id) {
		return identity{class: uniqueID}
	}
	parts := strings.SplitN(id, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[3] != "" || !isAccountID(parts[4]) || strings.ContainsAny(id, "*?") {
		return identity{}
	}
	i := identity{account: parts[4]}
	kind, name, _ := strings.Cut(parts[5], "/")
	switch {
	case parts[2] == "iam" && parts[5] == "root":
		i.class = account
	case parts[2] == "iam" && kind == "user" && name != "":
		i.class, i.name = user, name
	case parts[2] == "iam" && kind == "role" && name != "":
		// A session's ARN has the role's name without its path, and names are
		// unique in an account (STS API Reference, AssumedRoleUser; IAM quotas).
		i.class, i.name = role, name[strings.LastIndexByte(name, '/')+1:]
	case parts[2] == "sts" && kind == "assumed-role":
		var ok bool
		if i.name, i.session, ok = strings.Cut(name, "/"); ok {
			i.class = session
		}
	case parts[2] == "sts" && kind == "federated-user" && name != "":
		i.class, i.name = federatedUser, name
	}
	return i
}

func isAccountID(s string) bool {
	return len(s) == 12 && strings.Trim(s, "0123456789") == ""
}

// isUniqueID reports whether s is the unique id of a user, a role or another
// IAM entity: a prefix as AROA, then capitals and digits (IAM User Guide, "IAM
// identifiers"). A trust policy shows one where the principal was deleted.
func isUniqueID(s string) bool {
	if len(s) < 16 || len(s) > 128 || s[0] != 'A' {
		return false
	}
	switch s[:4] {
	case "AROA", "AIDA", "AGPA", "AIPA", "ANPA", "ANVA", "APKA", "ABIA", "ACCA", "ASCA", "ASIA", "AKIA":
	default:
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

func (s *statement) readPrincipals(where string, principals, except *node) error {
	switch {
	case principals != nil && except != nil:
		return refuse("%s: either Principal or NotPrincipal, not both.", where)
	case principals == nil && except == nil:
		return refuse("%s: there is no Principal; a trust policy names who is trusted.", where)
	case except != nil:
		principals, s.except = except, true
	}
	where += ", Principal"
	if principals.kind == '"' {
		if principals.text != "*" {
			return refuse(`%s: "*" or an object, not %s.`, where, principals.brief())
		}
		s.all = true
		return nil
	}
	if err := only(principals, where, "AWS", "Federated", "Service", "CanonicalUser"); err != nil {
		return err
	}
	for _, m := range principals.members {
		ids, err := m.value.words(where + " " + clip(m.name, 40))
		if err != nil {
			return err
		}
		for _, id := range ids {
			p := principal{id: id}
			switch strings.ToLower(m.name) {
			case "aws":
				p.kind, p.arn = "AWS", identify(id)
			case "federated":
				p.kind = "Federated"
			case "service":
				p.kind = "Service"
			default:
				p.kind = "CanonicalUser"
			}
			s.principals = append(s.principals, p)
		}
	}
	return nil
}

// concerns reports whether the statement's Principal or NotPrincipal takes the
// caller in.
func (q *question) concerns(s *statement) truth {
	if s.except {
		return not(q.excepted(s))
	}
	if s.all {
		return yes
	}
	t := no
	for i := range s.principals {
		if t = or(t, q.is(&s.principals[i])); t == yes {
			break
		}
	}
	return t
}

// is reports whether the caller is the principal.
func (q *question) is(p *principal) truth {
	if q.operation != assumeRole {
		return q.isFederated(p)
	}
	switch p.kind {
	case "Service":
		switch {
		case q.caller.class == service:
			return known(p.id == q.callerARN)
		case q.callerARN != "":
			return no
		}
		return unknown
	case "Federated":
		// A session that came of a web identity may count as its provider's too;
		// the page on Principal leaves it open. Users and services do not.
		switch q.caller.class {
		case user, service, account:
			return no
		}
		return unknown
	case "CanonicalUser":
		return unknown // "Most resource-based policies do not support this mapping" (grammar notes)
	}

	switch p.arn.class {
	case everyone:
		return yes
	case uniqueID:
		return no // "The policy no longer applies" (page on Principal, IAM role principals)
	case other:
		return unknown
	}
	if q.caller.class == service {
		return no
	}
	switch {
	case q.account == "":
		return unknown
	case q.account != p.arn.account:
		return no
	case p.arn.class == account:
		return yes // "Both delegate permissions to the account"
	case q.callerARN == "", q.caller.class == other:
		return unknown
	}
	switch p.arn.class {
	case role:
		return known((q.caller.class == role || q.caller.class == session) && q.caller.name == p.arn.name)
	case session:
		if q.caller.class == role && q.caller.name == p.arn.name {
			return unknown // one of its sessions, and which is not known
		}
	}
	return known(q.callerARN == p.id)
}

// Providers that AWS knows by themselves: roles name them by domain, without a
// provider in IAM (page on Principal, web identity session principals).
func isBuiltIn(issuer string) bool {
	switch issuer {
	case "accounts.google.com", "cognito-identity.amazonaws.com", "graph.facebook.com", "www.amazon.com":
		return true
	}
	return false
}

// isFederated is for callers that bring a token or an assertion and no
// credentials ("Calling AssumeRoleWithWebIdentity does not require the use of
// AWS security credentials", STS API Reference).
func (q *question) isFederated(p *principal) truth {
	switch p.kind {
	case "AWS":
		if p.arn.class == everyone {
			return unknown // equal to "*" "for anonymous users"; not said of federated ones
		}
		return no
	case "Federated":
	default:
		return no
	}
	if p.id == "*" {
		return unknown // no page allows or explains it
	}
	if q.operation == withWebIdentity && isBuiltIn(p.id) {
		switch {
		case q.issuer == p.id:
			return yes
		case q.issuer != "":
			return no
		}
		return unknown
	}
	if q.noProvider && q.provider == "" {
		return no
	}
	if q.provider != "" {
		switch {
		case q.provider == p.id:
			if q.derived && isBuiltIn(q.issuer) {
				return unknown
			}
			return yes
		case sameButForm(q.provider, p.id):
			return unknown
		}
		return no
	}
	if q.operation == withWebIdentity && q.issuer != "" {
		// The provider's ARN ends in the issuer, whatever the account.
		if _, url, ok := strings.Cut(p.id, ":oidc-provider/"); ok && !sameButForm(url, q.issuer) {
			return no
		}
	}
	return unknown
}

// sameButForm reports whether two names differ in case or in a slash at the end
// at most. No page says what AWS makes of that.
func sameButForm(a, b string) bool {
	return strings.EqualFold(strings.TrimSuffix(a, "/"), strings.TrimSuffix(b, "/"))
}

// excepted reports whether a NotPrincipal leaves the caller out. "When you use
// NotPrincipal with Deny, you must also specify the account ARN of the
// not-denied principal. Otherwise, the policy might deny access to the entire
// account" (page on NotPrincipal): who is listed in part is unknown.
func (q *question) excepted(s *statement) truth {
	if s.all {
		return yes
	}
	t := no
	for i := range s.principals {
		t = or(t, q.is(&s.principals[i]))
	}
	if q.operation != assumeRole || t != yes {
		return t
	}
	var listed struct{ account, role, self bool }
	for i := range s.principals {
		p := &s.principals[i]
		if p.kind != "AWS" {
			if q.is(p) == yes {
				return yes // a service
			}
			continue
		}
		if p.arn.class == everyone {
			return yes
		}
		if q.is(p) != yes {
			continue
		}
		switch {
		case p.arn.class == account:
			listed.account = true
		case p.arn.class == role && q.caller.class == session:
			listed.role = true
		default:
			listed.self = true
		}
	}
	switch q.caller.class {
	case account:
		return known(listed.account)
	case session:
		if listed.account && listed.role && listed.self {
			return yes
		}
	case user, role, federatedUser:
		if listed.account && listed.self {
			return yes
		}
	}
	return unknown
}
