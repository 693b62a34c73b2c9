package trust

import (
	"strings"
	"unicode/utf8"
)

// A key is the name of a condition key. Names "are not case-sensitive" (IAM
// User Guide, "IAM JSON policy elements: Condition").
type key struct {
	name     string // as written
	lower    string
	provider string // of x.example.com/path:aud the part before the last colon
	claim    string
}

func newKey(name string) key {
	k := key{name: name, lower: strings.ToLower(name)}
	if i := strings.LastIndexByte(name, ':'); i > 0 && isProvider(name[:i]) {
		k.provider, k.claim = name[:i], strings.ToLower(name[i+1:])
	}
	return k
}

// isProvider reports whether what stands before a key's claim can be an OIDC
// provider: a host with a dot, perhaps a port (which AWS does not take; a local
// AWS does), and a path.
func isProvider(text string) bool {
	host, rest, colon := strings.Cut(text, ":")
	return (strings.Contains(host, ".") || host == "localhost" || strings.HasPrefix(host, "localhost/")) && (!colon || rest != "" && '0' <= rest[0] && rest[0] <= '9' && !strings.Contains(rest, ":"))
}

// A kind is what sort of value a key has, and so which operators it works with.
type kind int

const (
	kindText kind = iota
	kindAddress
	kindTime  // aws:CurrentTime
	kindEpoch // aws:EpochTime
)

// A found is what is known of a key in the request. Its values are nil where it
// is there and what it is is not known.
type found struct {
	state  truth
	values []string
	kind   kind
	known  bool // a key that we know; else nobody said what it would be
}

func (v Value) found() found {
	switch {
	case v.IsUnknown():
		return found{known: true}
	case v.IsAbsent():
		return found{state: no, known: true}
	}
	for _, s := range v.list {
		if !utf8.ValidString(s) {
			return found{state: yes, known: true}
		}
	}
	return found{state: yes, values: v.list, known: true}
}

// lookup returns what the request has under a key. Availability is that of the
// IAM User Guide, "AWS global condition context keys" and "IAM and AWS STS
// condition context keys".
func (q *question) lookup(k key) found {
	absent, present, nobodyKnows := Absent().found(), found{state: yes, known: true}, found{known: true}
	federated := q.operation == withWebIdentity || q.operation == withSAML
	if k.provider != "" {
		return q.claim(k)
	}
	switch k.lower {
	case "aws:sourceip":
		f := q.SourceIP.found()
		f.kind = kindAddress
		return f
	case "aws:sourcevpce":
		return q.SourceVPCE.found()
	case "aws:sourcevpc", "aws:vpcsourceip", "aws:vpceaccount", "aws:vpceorgid", "aws:vpceorgpaths":
		f := q.SourceVPCE.found() // "only if the requester uses a VPC endpoint"
		f.values = nil
		return f
	case "aws:currenttime", "aws:epochtime":
		f := present
		if f.kind = kindTime; k.lower == "aws:epochtime" {
			f.kind = kindEpoch
		}
		if !q.Now.IsZero() {
			f.values = []string{""} // Now itself
		}
		return f
	case "aws:securetransport":
		return Of("true").found() // STS endpoints take HTTPS only (AWS General Reference)
	case "aws:viaawsservice":
		return Of("false").found() // "also returns false when the principal makes the call directly"
	case "aws:calledvia", "aws:calledviafirst", "aws:calledvialast":
		return absent // "not present when the principal makes the call directly"
	case "aws:sourcearn", "aws:sourceaccount", "aws:sourceorgid", "aws:sourceorgpaths":
		if q.operation == assumeRole && (q.caller.class == service || q.callerARN == "") {
			return nobodyKnows
		}
		return absent // only where a service calls on behalf of a resource
	case "aws:useragent", "aws:requestedregion", "aws:resourceaccount":
		return present
	case "aws:tagkeys":
		return q.PassesTags.keys()
	case "sts:transitivetagkeys":
		return q.TransitiveTags.found()
	case "sts:rolesessionname":
		return q.SessionName.found()
	case "sts:sourceidentity":
		return q.SourceIdentity.found()
	case "sts:externalid":
		if federated {
			return absent // the two operations have no such parameter
		}
		return q.ExternalID.found()
	case "sts:durationseconds", "sts:awsservicename":
		return absent // "not present for AWS STS assume-role operations"
	case "saml:aud", "saml:iss", "saml:sub":
		if q.operation == withSAML {
			switch k.lower {
			case "saml:aud":
				return q.Audience.found()
			case "saml:iss":
				return q.Issuer.found()
			}
			return q.Subject.found()
		}
	case "aws:principalarn", "aws:principalaccount", "aws:principalorgid", "aws:principalorgpaths", "aws:username",
		"aws:multifactorauthpresent", "aws:multifactorauthage", "aws:tokenissuetime", "aws:sourceidentity",
		"aws:principalisawsservice", "aws:principalservicename", "aws:principalservicenameslist":
		if federated {
			return absent // "for all signed requests", and these are not signed
		}
		return q.callerKey(k.lower)
	case "aws:userid", "aws:principaltype", "aws:federatedprovider", "aws:referer":
		return nobodyKnows
	}
	switch {
	case strings.HasPrefix(k.lower, "aws:requesttag/"):
		return q.PassesTags.tag(k.lower[len("aws:requesttag/"):])
	case strings.HasPrefix(k.lower, "aws:principaltag/"):
		if federated {
			return absent
		}
		return nobodyKnows
	case strings.HasPrefix(k.lower, "saml:") && q.operation == withWebIdentity:
		return absent
	case strings.HasPrefix(k.lower, "aws:resourcetag/"), strings.HasPrefix(k.lower, "iam:resourcetag/"),
		strings.HasPrefix(k.lower, "saml:"):
		return nobodyKnows
	}
	return found{}
}

// callerKey is for keys about the caller of AssumeRole.
func (q *question) callerKey(name string) found {
	nobodyKnows, absent := found{known: true}, Absent().found()
	switch name {
	case "aws:principalarn":
		// "For IAM roles, the request context returns the ARN of the role": with
		// the path, which a session's ARN does not have.
		switch q.caller.class {
		case user, role, federatedUser, account:
			return Of(q.callerARN).found()
		}
	case "aws:principalaccount":
		if q.account != "" {
			return Of(q.account).found()
		}
	case "aws:principalorgid":
		return q.OrgID.found()
	case "aws:principalorgpaths":
		if q.OrgID.IsAbsent() {
			return absent // "only if the principal is a member of an organization"
		}
	case "aws:username":
		switch q.caller.class {
		case user:
			return Of(q.caller.name[strings.LastIndexByte(q.caller.name, '/')+1:]).found()
		case role, session, account:
			return absent // "do not include this key"
		}
	}
	return nobodyKnows
}

// claim is for keys of OpenID Connect providers.
func (q *question) claim(k key) found {
	if q.operation != withWebIdentity || q.issuer == "" {
		return found{known: true}
	}
	if !strings.EqualFold(k.provider, q.issuer) {
		if sameButForm(k.provider, q.issuer) {
			return found{known: true}
		}
		return Absent().found() // another provider's
	}
	if q.issuer == "accounts.google.com" {
		// "aud ... when the azp field is not set; azp when the azp field is set";
		// oaud is the aud in any case (keys for web identity federation).
		switch {
		case k.claim == "oaud":
			return q.Audience.found()
		case k.claim == "aud" && q.AZP.text() != "":
			return q.AZP.found()
		}
	}
	switch k.claim {
	case "aud":
		// "azp when the azp field is set" (keys for web identity federation): said
		// of Google, so with another azp than aud nobody knows.
		aud, azp := q.Audience, q.AZP
		switch {
		case azp.IsUnknown(), aud.IsUnknown():
			return found{known: true}
		case len(aud.list) > 1, !azp.IsAbsent() && azp.text() != aud.text():
			return found{known: true}
		}
		return aud.found()
	case "sub":
		return q.Subject.found()
	case "amr":
		return q.AMR.found()
	case "azp":
		return q.AZP.found()
	case "email":
		if q.Email.IsAbsent() {
			return Absent().found()
		}
		return found{known: true} // reported to work, and documented nowhere
	}
	return found{}
}

func (t Tags) keys() found {
	switch {
	case !t.told:
		return found{known: true}
	case !t.sent:
		return Absent().found()
	case !t.exact:
		return found{state: yes, known: true}
	}
	return Of(sortedKeys(t.pairs)...).found()
}

// tag returns the tag by that name, in lower case: names of tags in keys "are
// not case-sensitive".
func (t Tags) tag(name string) found {
	switch {
	case !t.told, t.sent && !t.exact:
		return found{known: true}
	}
	f := Absent().found()
	for k, v := range t.pairs {
		if strings.EqualFold(k, name) {
			if f.state == yes {
				return found{state: yes, known: true} // two that differ in case
			}
			f = Of(v).found()
		}
	}
	return f
}

func (k Keys) found() found {
	switch {
	case !k.told:
		return found{known: true}
	case !k.sent:
		return Absent().found()
	case k.list == nil:
		return found{state: yes, known: true}
	}
	return Of(k.list...).found()
}
