package trust

import (
	"fmt"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A Policy is a trust policy, read. It does not change; many goroutines may
// judge by it at once.
type Policy struct {
	root       *node
	variables  bool // Version 2012-10-17
	statements []statement
}

// A statement is one statement of a policy.
type statement struct {
	number     int // from 1
	sid        string
	allow      bool
	all        bool // Principal "*"
	except     bool // NotPrincipal
	principals []principal
	actions    []string // lower case, as patterns
	others     bool     // NotAction
	conditions []condition
}

// String names the statement for a sentence.
func (s *statement) String() string {
	if s.sid == "" {
		return fmt.Sprintf("statement %d", s.number)
	}
	return fmt.Sprintf("statement %d (%s)", s.number, clip(s.sid, 60))
}

// Parse reads a trust policy as IAM does (IAM User Guide, "Grammar of the IAM
// JSON policy language"): one text or a list of them, numbers and truths as
// text, one statement or a list. Element names are taken in any case. What is
// not a trust policy is refused with a sentence that names the place; the error
// is a refusal of kind Invalid.
func Parse(doc serval.Document) (*Policy, error) {
	root, err := readDocument(doc)
	if err != nil {
		return nil, err
	}
	return read(root)
}

// read takes the tree of a document as a policy.
func read(root *node) (*Policy, error) {
	p := &Policy{root: root}
	if err := only(root, "The policy", "Version", "Id", "Statement"); err != nil {
		return nil, err
	}
	if v := root.get("Version"); v != nil {
		switch {
		case v.kind == '"' && v.text == "2012-10-17":
			p.variables = true
		case v.kind == '"' && v.text == "2008-10-17":
		default:
			return nil, refuse(`Version: 2012-10-17 or 2008-10-17, not %s.`, v.brief())
		}
	}
	if id := root.get("Id"); id != nil && id.kind != '"' {
		return nil, refuse("Id: a text, not %s.", id.brief())
	}
	statements := root.get("Statement")
	if statements == nil {
		return nil, refuse("The policy has no Statement.")
	}
	items := []*node{statements}
	if statements.kind == '[' {
		items = statements.items
	}
	p.statements = make([]statement, len(items))
	for i, item := range items {
		if err := p.statements[i].read(i+1, item); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// only refuses a node that is not an object, or has members besides the named.
func only(n *node, where string, names ...string) error {
	if n.kind != '{' {
		return refuse("%s: an object, not %s.", where, n.brief())
	}
	var seen [16]bool
next:
	for _, m := range n.members {
		for i, name := range names {
			if strings.EqualFold(m.name, name) {
				if seen[i] {
					return refuse("%s: %s is there twice.", where, name)
				}
				seen[i] = true
				continue next
			}
		}
		if strings.EqualFold(m.name, "Resource") || strings.EqualFold(m.name, "NotResource") {
			return refuse("%s: a trust policy has no %s; the role is the resource.", where, clip(m.name, 40))
		}
		return refuse("%s: there is no element %q.", where, clip(m.name, 40))
	}
	return nil
}

// brief shows a value in a refusal.
func (n *node) brief() string {
	switch n.kind {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return clip(quote(n.text), 60)
	}
	return clip(n.text, 60)
}

func (s *statement) read(number int, n *node) error {
	s.number = number
	where := fmt.Sprintf("Statement %d", number)
	if err := only(n, where, "Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Condition"); err != nil {
		return err
	}
	if sid := n.get("Sid"); sid != nil {
		text, ok := sid.scalar()
		if !ok {
			return refuse("%s, Sid: a text, not %s.", where, sid.brief())
		}
		s.sid = text
	}

	// "The Effect value is case sensitive" (IAM User Guide, "Effect").
	effect := n.get("Effect")
	switch {
	case effect == nil:
		return refuse("%s: there is no Effect.", where)
	case effect.kind == '"' && effect.text == "Allow":
		s.allow = true
	case effect.kind == '"' && effect.text == "Deny":
	default:
		return refuse("%s, Effect: Allow or Deny, not %s.", where, effect.brief())
	}

	if err := s.readPrincipals(where, n.get("Principal"), n.get("NotPrincipal")); err != nil {
		return err
	}

	actions, others := n.get("Action"), n.get("NotAction")
	switch {
	case actions != nil && others != nil:
		return refuse("%s: either Action or NotAction, not both.", where)
	case actions == nil && others == nil:
		return refuse("%s: there is no Action.", where)
	case others != nil:
		actions, s.others = others, true
	}
	words, err := actions.words(where + ", Action")
	if err != nil {
		return err
	}
	for _, w := range words {
		s.actions = append(s.actions, wild(strings.ToLower(w)))
	}
	return s.readConditions(where, n.get("Condition"))
}

// scalar returns the text of a text, a number or a truth.
func (n *node) scalar() (string, bool) {
	switch n.kind {
	case '"', '0', 't', 'f':
		return n.text, true
	}
	return "", false
}

// words returns one text or a list of them.
func (n *node) words(where string) ([]string, error) {
	if n.kind != '[' {
		s, ok := n.scalar()
		if !ok {
			return nil, refuse("%s: a text or a list of them, not %s.", where, n.brief())
		}
		return []string{s}, nil
	}
	words := make([]string, 0, len(n.items))
	for _, item := range n.items {
		s, ok := item.scalar()
		if !ok {
			return nil, refuse("%s: a list of texts, with %s in it.", where, item.brief())
		}
		words = append(words, s)
	}
	return words, nil
}

func (s *statement) readConditions(where string, n *node) error {
	if n == nil {
		return nil
	}
	if n.kind != '{' {
		return refuse("%s, Condition: an object, not %s.", where, n.brief())
	}
	for _, operator := range n.members {
		where := where + ", Condition " + clip(operator.name, 40)
		if operator.value.kind != '{' {
			return refuse("%s: an object of keys, not %s.", where, operator.value.brief())
		}
		for _, key := range operator.value.members {
			values, err := key.value.words(where + " " + clip(key.name, 80))
			if err != nil {
				return err
			}
			s.conditions = append(s.conditions, newCondition(operator.name, key.name, values))
		}
	}
	return nil
}
