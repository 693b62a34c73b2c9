package trust

import (
	"strings"
	"time"
	"unicode/utf8"
)

// A Value is what is known of one thing in a request: nothing (the zero Value),
// that it is absent, or its text; some things have several texts.
type Value struct {
	told bool
	list []string
}

// Of returns a known value. Of nothing is Absent.
func Of(texts ...string) Value { return Value{told: true, list: texts} }

// Absent returns the value of what the request does not have.
func Absent() Value { return Value{told: true} }

// IsUnknown reports whether nothing is known.
func (v Value) IsUnknown() bool { return !v.told }

// IsAbsent reports whether the request is known not to have it.
func (v Value) IsAbsent() bool { return v.told && len(v.list) == 0 }

// text returns the value where it is known and one.
func (v Value) text() string {
	if len(v.list) == 1 {
		return v.list[0]
	}
	return ""
}

// Tags are what is known of the session tags of an attempt: nothing (the zero
// Tags), whether any are sent, or just which.
type Tags struct {
	told  bool
	sent  bool
	exact bool // pairs are all there are
	pairs map[string]string
}

// NoTags returns the tags of an attempt that sends none.
func NoTags() Tags { return Tags{told: true, exact: true} }

// SomeTags returns the tags of an attempt that sends tags, and it is not known
// which.
func SomeTags() Tags { return Tags{told: true, sent: true} }

// TheTags returns exactly these tags.
func TheTags(pairs map[string]string) Tags {
	return Tags{told: true, sent: len(pairs) > 0, exact: true, pairs: pairs}
}

// Keys are what is known of the keys of the tags that are transitive: nothing
// (the zero Keys), whether there are any, or just which.
type Keys struct {
	told bool
	sent bool
	list []string // nil: not known which
}

// NoKeys returns the keys of an attempt with no transitive tags.
func NoKeys() Keys { return Keys{told: true} }

// SomeKeys returns the keys of an attempt with transitive tags, and it is not
// known which.
func SomeKeys() Keys { return Keys{told: true, sent: true} }

// TheKeys returns exactly these keys.
func TheKeys(keys ...string) Keys { return Keys{told: true, sent: len(keys) > 0, list: keys} }

// A Context is what is known of one attempt to assume the role. A zero field is
// not known; Absent says that the request does not have it. In JSON a name that
// is not given is unknown, and null is absent.
type Context struct {
	Action         string // sts:AssumeRoleWithWebIdentity, sts:AssumeRole or sts:AssumeRoleWithSAML
	RoleARN        string
	Issuer         Value // the token's iss, a URL; of SAML the assertion's issuer
	ProviderARN    Value // of IAM's provider; from Issuer and RoleARN where it is not known
	Audience       Value // aud; several where the token has several
	Subject        Value // sub
	Email          Value
	AMR            Value
	AZP            Value
	SessionName    Value
	SourceIP       Value // the address AWS sees; absent behind a VPC endpoint
	SourceVPCE     Value
	ExternalID     Value
	CallerARN      Value // of the user, role or session that calls AssumeRole
	CallerAccount  Value // from CallerARN where it is not known
	OrgID          Value // of the caller's organization
	PassesTags     Tags
	TransitiveTags Keys
	SourceIdentity Value
	Now            time.Time
}

// What a context's JSON may hold: more than AWS lets a token, a tag or an ARN
// have.
const (
	maxText  = 2048
	maxTexts = 100
)

// field returns where the value of that name is kept, or nil.
func (c *Context) field(name string) *Value {
	switch name {
	case "issuer":
		return &c.Issuer
	case "provider_arn":
		return &c.ProviderARN
	case "audience":
		return &c.Audience
	case "subject":
		return &c.Subject
	case "email":
		return &c.Email
	case "amr":
		return &c.AMR
	case "azp":
		return &c.AZP
	case "session_name":
		return &c.SessionName
	case "source_ip":
		return &c.SourceIP
	case "source_vpce":
		return &c.SourceVPCE
	case "external_id":
		return &c.ExternalID
	case "caller_arn":
		return &c.CallerARN
	case "caller_account":
		return &c.CallerAccount
	case "org_id":
		return &c.OrgID
	case "source_identity":
		return &c.SourceIdentity
	}
	return nil
}

// ParseContext reads a context from JSON. A name that is not of a context, a
// name twice, and values that contradict each other are refused, with kind
// Invalid.
//
// A value is a text or null; audience and amr also a list. passes_tags is true,
// false, null or an object of tags; transitive_tags is true, false, null or a
// list of keys; now is an RFC 3339 time.
func ParseContext(data []byte) (Context, error) {
	var c Context
	if err := c.UnmarshalJSON(data); err != nil {
		return Context{}, err
	}
	return c, nil
}

// UnmarshalJSON reads a context as ParseContext does.
func (c *Context) UnmarshalJSON(data []byte) error {
	root, err := readJSON("The context", data, 2)
	if err != nil {
		return err
	}
	if root.kind != '{' {
		return refuse("The context: an object, not %s.", root.brief())
	}
	*c = Context{}
	for _, m := range root.members {
		if err := c.set(m.name, m.value); err != nil {
			return err
		}
	}
	return c.check()
}

// set takes one member of a context.
func (c *Context) set(name string, n *node) error {
	switch name {
	case "action", "role_arn":
		if n.kind != '"' || n.text == "" || len(n.text) > maxText {
			return refuse("%s: a text, not %s.", name, n.brief())
		}
		if name == "action" {
			c.Action = n.text
		} else {
			c.RoleARN = n.text
		}
		return nil
	case "now":
		at, err := time.Parse(time.RFC3339, n.text)
		if n.kind != '"' || err != nil {
			return refuse("now: an RFC 3339 time, not %s.", n.brief())
		}
		c.Now = at
		return nil
	case "passes_tags":
		switch n.kind {
		case 't':
			c.PassesTags = SomeTags()
		case 'f', 'n':
			c.PassesTags = NoTags()
		case '{':
			pairs := make(map[string]string, len(n.members))
			for _, m := range n.members {
				if m.value.kind != '"' {
					return refuse("passes_tags: the value of a tag is a text, not %s.", m.value.brief())
				}
				pairs[m.name] = m.value.text
			}
			c.PassesTags = TheTags(pairs)
		default:
			return refuse("passes_tags: true, false, null or an object of tags, not %s.", n.brief())
		}
		return nil
	case "transitive_tags":
		switch n.kind {
		case 't':
			c.TransitiveTags = SomeKeys()
		case 'f', 'n':
			c.TransitiveTags = NoKeys()
		case '[':
			keys, err := n.texts(name)
			if err != nil {
				return err
			}
			c.TransitiveTags = TheKeys(keys...)
		default:
			return refuse("transitive_tags: true, false, null or a list of keys, not %s.", n.brief())
		}
		return nil
	}
	v := c.field(name)
	if v == nil {
		return refuse("A context has no %q.", clip(name, 40))
	}
	switch {
	case n.kind == 'n':
		*v = Absent()
	case n.kind == '"' && len(n.text) <= maxText:
		*v = Of(n.text)
	case n.kind == '[' && (name == "audience" || name == "amr"):
		list, err := n.texts(name)
		if err != nil {
			return err
		}
		*v = Of(list...)
	default:
		return refuse("%s: a text of at most %d bytes or null, not %s.", name, maxText, n.brief())
	}
	return nil
}

// texts returns a list of texts.
func (n *node) texts(name string) ([]string, error) {
	if len(n.items) > maxTexts {
		return nil, refuse("%s: at most %d texts.", name, maxTexts)
	}
	var list []string
	for _, item := range n.items {
		if item.kind != '"' || len(item.text) > maxText {
			return nil, refuse("%s: a list of texts of at most %d bytes, with %s in it.", name, maxText, item.brief())
		}
		list = append(list, item.text)
	}
	return list, nil
}

// check refuses values that contradict each other: a verdict on what cannot
// happen would be worth nothing.
func (c *Context) check() error {
	if c.SourceIP.text() != "" && c.SourceVPCE.text() != "" {
		return refuse("source_ip and source_vpce: AWS sets aws:SourceIp except when the request comes through a VPC endpoint; make one of them null.")
	}
	if c.operation() == withWebIdentity {
		_, url, ok := strings.Cut(c.ProviderARN.text(), ":oidc-provider/")
		if issuer := trimScheme(c.Issuer.text()); ok && issuer != "" && !sameButForm(url, issuer) {
			return refuse("issuer and provider_arn: the provider's ARN ends in the issuer without its scheme.")
		}
	}
	if id := identify(c.CallerARN.text()); id.account != "" && c.CallerAccount.text() != "" && id.account != c.CallerAccount.text() {
		return refuse("caller_arn and caller_account: they name different accounts.")
	}
	return nil
}

// MarshalJSON writes the context as ParseContext reads it.
func (c Context) MarshalJSON() ([]byte, error) {
	root := object()
	if c.Action != "" {
		root.put("action", text(c.Action))
	}
	if c.RoleARN != "" {
		root.put("role_arn", text(c.RoleARN))
	}
	for _, name := range []string{
		"issuer", "provider_arn", "audience", "subject", "email", "amr", "azp", "session_name", "source_ip", "source_vpce",
		"external_id", "caller_arn", "caller_account", "org_id", "passes_tags", "transitive_tags", "source_identity",
	} {
		switch name {
		case "passes_tags":
			if t := c.PassesTags; t.told {
				n := &node{kind: 't', text: "true"}
				if !t.sent {
					n = &node{kind: 'f', text: "false"}
				} else if t.exact {
					n = object()
					for _, k := range sortedKeys(t.pairs) {
						n.put(k, text(t.pairs[k]))
					}
				}
				root.put(name, n)
			}
			continue
		case "transitive_tags":
			if t := c.TransitiveTags; t.told {
				n := &node{kind: 't', text: "true"}
				if !t.sent {
					n = &node{kind: 'f', text: "false"}
				} else if t.list != nil {
					n = texts(t.list)
				}
				root.put(name, n)
			}
			continue
		}
		switch v := *c.field(name); {
		case v.IsUnknown():
		case v.IsAbsent():
			root.put(name, &node{kind: 'n', text: "null"})
		case len(v.list) == 1:
			root.put(name, text(v.list[0]))
		default:
			root.put(name, texts(v.list))
		}
	}
	if !c.Now.IsZero() {
		root.put("now", text(c.Now.Format(time.RFC3339Nano)))
	}
	return []byte(writeJSON(root)), nil
}

func texts(list []string) *node {
	n := &node{kind: '['}
	for _, s := range list {
		n.items = append(n.items, text(s))
	}
	return n
}

// An operation is what the caller calls.
type operation int

const (
	noOperation operation = iota
	withWebIdentity
	assumeRole
	withSAML
)

func (c *Context) operation() operation {
	switch strings.ToLower(c.Action) {
	case "sts:assumerolewithwebidentity":
		return withWebIdentity
	case "sts:assumerole":
		return assumeRole
	case "sts:assumerolewithsaml":
		return withSAML
	}
	return noOperation
}

func trimScheme(issuer string) string {
	if len(issuer) >= 7 && strings.EqualFold(issuer[:7], "http://") {
		return issuer[7:] // of a provider on loopback, which only a local AWS takes
	}
	if len(issuer) >= 8 && strings.EqualFold(issuer[:8], "https://") {
		return issuer[8:]
	}
	return issuer
}

// A question is one attempt, ready to be put to statements.
type question struct {
	Context
	operation operation
	variables bool // of the policy's version
	steps     *budget

	issuer     string // without its scheme; "" where it is not known
	provider   string // the provider's ARN; "" where it is not known
	noProvider bool   // there is none
	derived    bool   // the provider was derived

	callerARN string
	caller    identity
	account   string // the caller's
	role      identity
	partition string // the role's
}

func newQuestion(c Context, p *Policy, steps *budget) *question {
	c.Now = c.Now.Truncate(time.Second)
	q := &question{Context: c, operation: c.operation(), variables: p.variables, steps: steps, role: identify(c.RoleARN)}
	if q.role.account != "" {
		q.partition = strings.SplitN(c.RoleARN, ":", 3)[1]
	}
	if q.operation == assumeRole {
		q.callerARN = c.CallerARN.text()
		if strings.HasSuffix(q.callerARN, ".amazonaws.com") || strings.HasSuffix(q.callerARN, ".amazonaws.com.cn") {
			q.caller = identity{class: service}
		} else {
			q.caller = identify(q.callerARN)
		}
		if q.account = q.caller.account; q.account == "" {
			q.account = c.CallerAccount.text()
		}
		return q
	}
	q.provider, q.noProvider = c.ProviderARN.text(), c.ProviderARN.IsAbsent()
	if q.operation != withWebIdentity {
		return q
	}
	q.issuer = trimScheme(c.Issuer.text())
	if q.issuer == "" {
		_, q.issuer, _ = strings.Cut(q.provider, ":oidc-provider/")
	}
	if q.provider == "" && !q.noProvider && q.issuer != "" && q.role.account != "" {
		// The provider is in the role's account, and named for its URL (IAM User
		// Guide, "Create an OpenID Connect (OIDC) identity provider in IAM").
		q.provider, q.derived = providerARN(q.partition, q.role.account, q.issuer), true
	}
	return q
}

func providerARN(partition, account, issuer string) string {
	return "arn:" + partition + ":iam::" + account + ":oidc-provider/" + issuer
}

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
		k.provider, k.claim = name[:i], k.lower[i+1:]
	}
	return k
}

// isProvider reports whether what stands before a key's claim can be an OIDC
// provider: a host with a dot, perhaps a port (which AWS does not take; a local
// AWS does), and a path.
func isProvider(text string) bool {
	host, rest, colon := strings.Cut(text, ":")
	return strings.Contains(host, ".") && (!colon || rest != "" && '0' <= rest[0] && rest[0] <= '9' && !strings.Contains(rest, ":"))
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
