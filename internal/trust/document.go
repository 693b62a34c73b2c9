package trust

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// The longest policy document that IAM takes as a parameter, in bytes (IAM API
// Reference, UpdateAssumeRolePolicy).
const maxDocument = 131072

// How deep a document is read. A policy is six deep: document, statements,
// statement, condition, operator, values; a little more lets a refusal name what
// is wrong instead of where it is too deep.
const maxDepth = 8

// A node is a JSON value with the order of its members, so that a mended policy
// reads like the one it mends.
type node struct {
	kind    jsontext.Kind // { [ " 0 t f n
	text    string        // of a string its text, of another scalar its JSON
	members []member
	items   []*node
}

type member struct {
	name  string
	value *node
}

func text(s string) *node            { return &node{kind: '"', text: s} }
func list(items ...*node) *node      { return &node{kind: '[', items: items} }
func object(members ...member) *node { return &node{kind: '{', members: members} }

// get returns the member by that name, in any case, or nil.
func (n *node) get(name string) *node {
	for _, m := range n.members {
		if strings.EqualFold(m.name, name) {
			return m.value
		}
	}
	return nil
}

// put replaces the member by that name, or appends it.
func (n *node) put(name string, value *node) {
	for i, m := range n.members {
		if strings.EqualFold(m.name, name) {
			n.members[i].value = value
			return
		}
	}
	n.members = append(n.members, member{name, value})
}

// add appends a text to a value that may be one text or a list of them.
func (n *node) add(s string) *node {
	if n.kind == '[' {
		n.items = append(n.items, text(s))
		return n
	}
	return list(n, text(s))
}

func (n *node) clone() *node {
	c := &node{kind: n.kind, text: n.text}
	for _, m := range n.members {
		c.members = append(c.members, member{m.name, m.value.clone()})
	}
	for _, i := range n.items {
		c.items = append(c.items, i.clone())
	}
	return c
}

// readDocument reads the JSON text of a policy.
func readDocument(doc serval.Document) (*node, error) {
	return readJSON("The policy", []byte(doc), maxDepth)
}

// readJSON reads a JSON text strictly: duplicate names, invalid UTF-8 and
// anything after the value are refused, as is what lies deeper than it may. A
// refusal calls the text by the name it is given.
func readJSON(what string, data []byte, depth int) (*node, error) {
	switch {
	case len(bytes.TrimSpace(data)) == 0:
		return nil, refuse("%s is empty.", what)
	case len(data) > maxDocument:
		return nil, refuse("%s has %d bytes; at most %d are taken.", what, len(data), maxDocument)
	}
	r := reader{jsontext.NewDecoder(bytes.NewBuffer(data)), what}
	root, err := r.read(depth)
	if err != nil {
		return nil, err
	}
	if _, err := r.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, refuse("%s goes on after its end, at byte %d.", what, r.InputOffset())
	}
	return root, nil
}

type reader struct {
	*jsontext.Decoder
	what string
}

func (r reader) read(depth int) (*node, error) {
	t, err := r.ReadToken()
	if err != nil {
		return nil, r.syntax(err)
	}
	n := &node{kind: t.Kind()}
	switch n.kind {
	case '{', '[':
		if depth == 0 {
			return nil, refuse("%s is nested too deep, at %s.", r.what, place(r.StackPointer()))
		}
	default:
		n.text = t.String()
		return n, nil
	}
	for {
		switch r.PeekKind() {
		case '}', ']':
			if _, err := r.ReadToken(); err != nil {
				return nil, r.syntax(err)
			}
			return n, nil
		}
		var name string
		if n.kind == '{' {
			t, err := r.ReadToken()
			if err != nil {
				return nil, r.syntax(err)
			}
			name = t.String()
		}
		value, err := r.read(depth - 1)
		if err != nil {
			return nil, err
		}
		if n.kind == '{' {
			n.members = append(n.members, member{name, value})
		} else {
			n.items = append(n.items, value)
		}
	}
}

// syntax says of a JSON error what it is and where.
func (r reader) syntax(err error) error {
	e, ok := errors.AsType[*jsontext.SyntacticError](err)
	switch {
	case !ok:
		return refuse("%s is not JSON: it ends too early.", r.what)
	case errors.Is(err, jsontext.ErrDuplicateName):
		return refuse("%s has a name twice, at %s.", r.what, place(e.JSONPointer))
	}
	return refuse("%s is not JSON at byte %d, in %s.", r.what, e.ByteOffset, place(e.JSONPointer))
}

func place(p jsontext.Pointer) string {
	if p == "" {
		return "the document"
	}
	return clip(string(p), 120)
}

func refuse(format string, args ...any) error {
	return serval.Refuse(serval.Invalid, format, args...)
}

// clip cuts a text that came from outside before it enters a sentence.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "..."
}

// quote returns a text as JSON.
func quote(s string) string {
	b, err := jsontext.AppendQuote(nil, s)
	if err != nil {
		return fmt.Sprintf("%q", s) // not UTF-8; no text of a document is
	}
	return string(b)
}

// writeJSON returns the node as JSON, indented by two spaces.
func writeJSON(n *node) string {
	var b strings.Builder
	n.writeJSON(&b, "\n")
	b.WriteByte('\n')
	return b.String()
}

func (n *node) writeJSON(b *strings.Builder, indent string) {
	open := func(c byte, count int, each func(i int)) {
		b.WriteByte(c)
		for i := range count {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(indent + "  ")
			each(i)
		}
		if count > 0 {
			b.WriteString(indent)
		}
		b.WriteByte(c + 2) // } after {, ] after [
	}
	switch n.kind {
	case '{':
		open('{', len(n.members), func(i int) {
			b.WriteString(quote(n.members[i].name))
			b.WriteString(": ")
			n.members[i].value.writeJSON(b, indent+"  ")
		})
	case '[':
		open('[', len(n.items), func(i int) { n.items[i].writeJSON(b, indent+"  ") })
	case '"':
		b.WriteString(quote(n.text))
	default:
		b.WriteString(n.text)
	}
}

// writeTerraform returns the node as the argument of an aws_iam_role, with the
// equals signs where terraform fmt puts them.
func writeTerraform(n *node) string {
	var b strings.Builder
	b.WriteString("assume_role_policy = jsonencode(")
	n.writeTerraform(&b, "\n")
	b.WriteString(")\n")
	return b.String()
}

func (n *node) writeTerraform(b *strings.Builder, indent string) {
	switch n.kind {
	case '{':
		if len(n.members) == 0 {
			b.WriteString("{}")
			return
		}
		b.WriteByte('{')
		widths := n.columns()
		for i, m := range n.members {
			name := terraformName(m.name)
			b.WriteString(indent + "  " + name)
			b.WriteString(strings.Repeat(" ", widths[i]-len(name)))
			b.WriteString(" = ")
			m.value.writeTerraform(b, indent+"  ")
		}
		b.WriteString(indent + "}")
	case '[':
		if len(n.items) == 0 {
			b.WriteString("[]")
			return
		}
		b.WriteByte('[')
		for i, item := range n.items {
			b.WriteString(indent + "  ")
			item.writeTerraform(b, indent+"  ")
			if i < len(n.items)-1 {
				b.WriteByte(',')
			}
		}
		b.WriteString(indent + "]")
	case '"', '0': // Terraform would write a number in another form
		b.WriteString(terraformString(n.text))
	default:
		b.WriteString(n.text)
	}
}

// columns returns how wide the name of each member is written: those of
// neighbours whose values stand on one line share their width.
func (n *node) columns() []int {
	widths := make([]int, len(n.members))
	for i := 0; i < len(n.members); {
		end, width := i, 0
		for end < len(n.members) && (end == i || n.isShort(end-1) && n.isShort(end)) {
			width = max(width, len(terraformName(n.members[end].name)))
			end++
		}
		for ; i < end; i++ {
			widths[i] = width
		}
	}
	return widths
}

// isShort reports whether the value of member i stands on one line.
func (n *node) isShort(i int) bool {
	v := n.members[i].value
	return len(v.members)+len(v.items) == 0
}

func terraformName(s string) string {
	for i, r := range s {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		if !letter && (i == 0 || r != '_' && (r < '0' || r > '9')) {
			return terraformString(s)
		}
	}
	if s == "" {
		return `""`
	}
	return s
}

// forTerraform turns JSON's escapes into Terraform's, and doubles its own
// template marks (Terraform language, Strings and Templates).
var forTerraform = strings.NewReplacer(`\\`, `\\`, `\b`, `\u0008`, `\f`, `\u000c`, "${", "$${", "%{", "%%{")

// terraformString quotes a text for Terraform.
func terraformString(s string) string { return forTerraform.Replace(quote(s)) }
