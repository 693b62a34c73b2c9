package trust

import (
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
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
	ClientIDs      Value // of IAM's provider: the audiences that it takes
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
	case "client_ids":
		return &c.ClientIDs
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
// A value is a text or null; audience, client_ids and amr also a list. passes_tags is true,
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
		if err != nil {
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
	case n.kind == '[' && (name == "audience" || name == "client_ids" || name == "amr"):
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
		if issuer := serval.ProviderName(c.Issuer.text()); ok && issuer != "" && !sameButForm(url, issuer) {
			return refuse("issuer and provider_arn: the provider's ARN ends in the issuer without its scheme.")
		}
	}
	if c.ProviderARN.IsAbsent() && len(c.ClientIDs.list) > 0 {
		return refuse("provider_arn and client_ids: a provider that is not there lists none.")
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
		"issuer", "provider_arn", "client_ids", "audience", "subject", "email", "amr", "azp", "session_name", "source_ip", "source_vpce",
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
