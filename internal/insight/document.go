package insight

import (
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// The longest permission document that is read, in bytes, the most statements,
// and the most actions, resources or values in one of their lists. IAM's bounds
// for customers are lower (6,144 characters for a managed policy, 10,240 for all
// inline ones of a role); AWS's own ReadOnlyAccess has passed 100 KB.
const (
	maxDocument   = 262_144
	maxStatements = 1000
	maxWords      = 10_000
)

// The most statements of a role's policies together that are counted, and the most
// actions, resources and values. What IAM lets a role have of its account's own
// comes to a third of that, however it is written.
const (
	maxOwn      = 5000
	maxOwnWords = 60_000
)

// wordsOf returns how many actions, resources and values there are.
func wordsOf(statements []statement) (n int) {
	for i := range statements {
		n += len(statements[i].actions) + len(statements[i].resources)
		for _, c := range statements[i].conditions {
			n += len(c.values)
		}
	}
	return n
}

// A Statement names the statement that causes something.
type Statement struct {
	Policy string `json:"policy"` // the policy's name
	Number int    `json:"number"` // from 1
	Sid    string `json:"sid,omitempty"`
}

// String names it for a sentence.
func (s Statement) String() string {
	if s.Sid == "" {
		return fmt.Sprintf("%s, statement %d", clip(s.Policy, 128), s.Number)
	}
	return fmt.Sprintf("%s, statement %d (%s)", clip(s.Policy, 128), s.Number, clip(s.Sid, 60))
}

// A statement is one statement of a permission document.
type statement struct {
	Statement
	allow       bool
	actions     []string // lower case, as patterns
	others      bool     // NotAction
	resources   []resource
	elsewhere   bool // NotResource
	conditions  []condition
	matched     []set    // of the actions
	unknown     []string // actions without wildcards that the reference does not have
	everywhere  bool     // every resource
	restricted  bool     // a condition holds it to some targets
	conditional bool
}

// A condition is one key under one operator, with its values.
type condition struct {
	operator, key string // lower case
	values        []string
	written       string
}

type document struct {
	Version   string             `json:"Version"`
	ID        string             `json:"Id"`
	Statement list[rawStatement] `json:"Statement"`
}

type rawStatement struct {
	Sid         scalar                         `json:"Sid"`
	Effect      string                         `json:"Effect"`
	Action      list[scalar]                   `json:"Action"`
	NotAction   list[scalar]                   `json:"NotAction"`
	Resource    list[scalar]                   `json:"Resource"`
	NotResource list[scalar]                   `json:"NotResource"`
	Condition   members[members[list[scalar]]] `json:"Condition"`
}

// A list is one value or a list of them, as IAM takes both (IAM User Guide,
// "Grammar of the IAM JSON policy language").
type list[T any] []T

// UnmarshalJSONFrom reads one value or a list.
func (l *list[T]) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() == '[' {
		return json.UnmarshalDecode(d, (*[]T)(l))
	}
	var one T
	if err := json.UnmarshalDecode(d, &one); err != nil {
		return err
	}
	*l = list[T]{one}
	return nil
}

// A scalar is a text; a number or a truth is taken as its text.
type scalar string

// UnmarshalJSONFrom reads a text, a number or a truth.
func (s *scalar) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	t, err := d.ReadToken()
	if err != nil {
		return err
	}
	switch t.Kind() {
	case '"', '0', 't', 'f':
		*s = scalar(t.String())
		return nil
	}
	return fmt.Errorf("a text is wanted at %s", clip(string(d.StackPointer()), 120))
}

// Members are an object's, in its order.
type members[T any] []member[T]

type member[T any] struct {
	name  string
	value T
}

// UnmarshalJSONFrom reads an object.
func (m *members[T]) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() != '{' {
		return fmt.Errorf("an object is wanted at %s", clip(string(d.StackPointer()), 120))
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for d.PeekKind() != '}' {
		name, err := d.ReadToken()
		if err != nil {
			return err
		}
		one := member[T]{name: name.String()} // the token is gone with the next
		if err := json.UnmarshalDecode(d, &one.value); err != nil {
			return err
		}
		*m = append(*m, one)
	}
	_, err := d.ReadToken()
	return err
}

// A reading is a document that was read under a policy's name.
type reading struct {
	policy string
	doc    serval.Document
}

// maxRead bounds the documents that are remembered, with what their patterns match,
// in bytes.
const maxRead = 16 << 20

// read returns the statements of a permission document, which nobody may change.
// Those of documents that many roles share are remembered. It is strict: a name
// twice, a member that IAM does not know, or anything after the end is refused;
// so is what could not be read. The error is a refusal of kind Invalid.
func (r *Reference) read(policy string, doc serval.Document) ([]statement, error) {
	key := reading{policy, doc}
	r.mu.Lock()
	statements, known := r.readings[key]
	r.mu.Unlock()
	if known {
		return statements, nil
	}
	statements, err := r.parse(policy, doc)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	size := len(doc) + 200*wordsOf(statements) // with the parts of each
	for i := range statements {
		for _, m := range statements[i].matched {
			size += m.size()
		}
	}
	if r.bytes += size; r.bytes > maxRead {
		r.readings, r.bytes = map[reading][]statement{}, size // begun anew: what is used comes back
	}
	r.readings[key] = statements
	return statements, nil
}

func (r *Reference) parse(policy string, doc serval.Document) ([]statement, error) {
	refuse := func(format string, args ...any) ([]statement, error) {
		return nil, serval.Refuse(serval.Invalid, format, args...)
	}
	switch {
	case doc == "":
		return refuse("it could not be read")
	case len(doc) > maxDocument:
		return refuse("it has %d bytes; at most %d are looked at", len(doc), maxDocument)
	}
	var d document
	if err := json.Unmarshal([]byte(doc), &d, json.RejectUnknownMembers(true), json.MatchCaseInsensitiveNames(true)); err != nil {
		return refuse("it is no policy document: %s", clip(err.Error(), 200))
	}
	switch {
	case d.Version != "" && d.Version != "2012-10-17" && d.Version != "2008-10-17":
		return refuse("it has the version %q", clip(d.Version, 40))
	case d.Statement == nil:
		return refuse("it has no Statement")
	case len(d.Statement) > maxStatements:
		return refuse("it has %d statements; at most %d are looked at", len(d.Statement), maxStatements)
	}
	statements, left := make([]statement, 0, len(d.Statement)), maxHeld
	for i, raw := range d.Statement {
		s := statement{Statement: Statement{Policy: policy, Number: i + 1, Sid: string(raw.Sid)}}
		// "The Effect value is case sensitive" (IAM User Guide, "Effect").
		switch raw.Effect {
		case "Allow":
			s.allow = true
		case "Deny":
		default:
			return refuse("statement %d has the effect %q", i+1, clip(raw.Effect, 40))
		}
		switch {
		case (raw.Action == nil) == (raw.NotAction == nil):
			return refuse("statement %d has not one of Action and NotAction", i+1)
		case (raw.Resource == nil) == (raw.NotResource == nil):
			return refuse("statement %d has not one of Resource and NotResource", i+1)
		case len(raw.Action)+len(raw.NotAction) > maxWords || len(raw.Resource)+len(raw.NotResource) > maxWords:
			return refuse("statement %d has more than %d actions or resources", i+1, maxWords)
		}
		s.others, s.elsewhere = raw.NotAction != nil, raw.NotResource != nil
		for _, a := range append(raw.Action, raw.NotAction...) {
			s.actions = append(s.actions, strings.ToLower(string(a)))
		}
		for _, a := range append(raw.Resource, raw.NotResource...) {
			opened := string(a)
			if d.Version == "2012-10-17" { // "${" is text in the older version
				opened = open(opened)
			}
			s.resources = append(s.resources, newResource(opened, string(a)))
		}
		for _, operator := range raw.Condition {
			for _, key := range operator.value {
				c := condition{operator: strings.ToLower(operator.name), key: strings.ToLower(key.name)}
				for _, v := range key.value {
					c.values = append(c.values, string(v))
				}
				c.written = clip(operator.name, 60) + " " + clip(key.name, 120) + " " + clip(strings.Join(c.values, ", "), 200)
				s.conditions = append(s.conditions, c)
			}
		}
		r.settle(&s, &left)
		statements = append(statements, s)
	}
	return statements, nil
}

// maxHeld is how many actions of the reference the patterns of one document are
// held against: those of a dozen patterns of all services, or of hundreds of a
// large one. What AWS itself writes takes an eighth of it.
const maxHeld = 1 << 18

// settle works out what is asked of a statement again and again. Left is how many
// actions its patterns may still be held against; one for which nothing is left
// counts as what makes more possible.
func (r *Reference) settle(s *statement, left *int) {
	s.conditional = len(s.conditions) > 0
	for _, c := range s.conditions {
		s.restricted = s.restricted || c.restricts()
	}
	for _, x := range s.resources {
		if x.pattern == "*" || x.pattern == "arn:*" {
			s.everywhere = true
		}
	}
	if s.elsewhere {
		s.everywhere = false
	} else if s.everywhere {
		s.resources = everything
	}
	for _, a := range s.actions {
		var m set
		if *left -= r.held(a); *left >= 0 {
			m = r.match(a)
		} else if s.allow != s.others {
			m = r.match(widest(a))
		}
		if m.isEmpty() && !strings.ContainsAny(a, "*?") {
			s.unknown = append(s.unknown, a)
		}
		s.matched = append(s.matched, m)
	}
	if len(s.matched) > 4 {
		b := board{make([]uint64, r.size())}
		for _, m := range s.matched {
			b.add(m)
		}
		s.matched = []set{{words: b.words}}
	}
}

// covers reports whether the statement is about the action, whatever resources.
func (s *statement) covers(i int) bool {
	for _, m := range s.matched {
		if m.has(i) {
			return !s.others
		}
	}
	return s.others
}

// circumstances are condition keys that say from where, when, how or by whom
// something is done, and not on what: whoever holds the role may meet them.
var circumstances = map[string]bool{
	"aws:sourceip": true, "aws:vpcsourceip": true, "aws:sourcevpc": true, "aws:sourcevpce": true, "aws:securetransport": true,
	"aws:currenttime": true, "aws:epochtime": true, "aws:multifactorauthpresent": true, "aws:multifactorauthage": true,
	"aws:tokenissuetime": true, "aws:useragent": true, "aws:referer": true, "aws:requestedregion": true, "aws:viaawsservice": true,
	"aws:principalarn": true, "aws:principalaccount": true, "aws:principalorgid": true, "aws:principalorgpaths": true,
	"aws:principaltype": true, "aws:principalisawsservice": true, "aws:userid": true, "aws:username": true, "aws:sourceidentity": true,
	"aws:federatedprovider": true, "aws:tagkeys": true, "ec2:sourceinstancearn": true, "aws:ec2instancesourcevpc": true,
	"aws:ec2instancesourceprivateipv4": true, "aws:resourceaccount": true, "aws:resourceorgid": true, "aws:resourceorgpaths": true,
	"s3:resourceaccount": true, "s3:tlsversion": true, "s3:x-amz-server-side-encryption": true, "s3:x-amz-acl": true,
}

// circumstantial reports whether the key says nothing of what is acted on.
func (c condition) circumstantial() bool {
	return circumstances[c.key] || strings.HasPrefix(c.key, "aws:principaltag/") || strings.HasPrefix(c.key, "aws:requesttag/")
}

// negated reports whether the operator wants the key to be something else.
func (c condition) negated() bool { return strings.Contains(c.operator, "not") }

// restricts reports whether an Allow under the condition is for some targets
// only. One that leaves out a few restricts nothing.
func (c condition) restricts() bool { return !c.circumstantial() && !c.negated() }

// unless reports whether a Deny under the condition leaves what it denies to some
// targets only: it denies unless they are so.
func (c condition) unless() bool {
	return !c.circumstantial() && (c.negated() || c.operator == "null")
}
