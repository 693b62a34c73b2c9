package insight

import (
	"strings"
	"unicode"
)

// A budget is how many steps of patterns may be taken for one role, or one
// difference. It makes time bounded for any documents; when it is gone, what is
// asked counts as possible, and nothing as certain.
type budget int

const maxSteps budget = 1 << 20

func (b *budget) take(n int) bool {
	*b -= budget(n)
	return *b >= 0
}

// covers is covers, as far as the budget goes: beyond it the outer pattern is taken
// to cover nothing.
func (b *budget) covers(outer, inner string) bool {
	if len(outer) != len(inner) && strings.IndexByte(outer, '*') < 0 {
		return false
	}
	if len(outer) > 0 && len(inner) > 0 && !wild(outer[0]) && outer[0] != inner[0] {
		return false
	}
	return b.take(1+len(outer)*len(inner)/512) && covers(outer, inner)
}

// covers reports whether every text that the inner pattern matches is matched by
// the outer one; of an inner pattern without wildcards, whether the outer matches
// it. Where it says so it is so; it may say less.
func covers(outer, inner string) bool {
	p, i := 0, 0
	star, from := -1, 0 // where to go on when the text after the last * does not fit
	for i < len(inner) {
		switch {
		case p < len(outer) && outer[p] == '*':
			star, from = p, i
			p++
		case p < len(outer) && inner[i] != '*' && (outer[p] == '?' || outer[p] == inner[i]):
			p, i = p+1, i+1
		case star >= 0:
			from++
			p, i = star+1, from
		default:
			return false
		}
	}
	for p < len(outer) && outer[p] == '*' {
		p++
	}
	return p == len(outer)
}

// overlap reports whether some text may match both patterns.
func (b *budget) overlap(x, y string) bool {
	for len(x) > 0 && len(y) > 0 && !wild(x[0]) && !wild(y[0]) {
		if x[0] != y[0] {
			return false
		}
		x, y = x[1:], y[1:]
	}
	for len(x) > 0 && len(y) > 0 && !wild(x[len(x)-1]) && !wild(y[len(y)-1]) {
		if x[len(x)-1] != y[len(y)-1] {
			return false
		}
		x, y = x[:len(x)-1], y[:len(y)-1]
	}
	switch {
	case x == y || x == "*" || y == "*":
		return true
	case !b.take(len(x) * len(y) / 8):
		return true
	case !strings.ContainsAny(x, "*?"):
		return covers(y, x)
	case !strings.ContainsAny(y, "*?"):
		return covers(x, y)
	}
	// reach[j]: some text matches x so far and y[:j].
	reach := make([]bool, len(y)+1)
	reach[0] = true
	for j := 0; j < len(y) && y[j] == '*'; j++ {
		reach[j+1] = true
	}
	for i := range len(x) {
		diagonal := reach[0]
		reach[0] = reach[0] && x[i] == '*'
		any := reach[0]
		for j := range len(y) {
			above := reach[j+1]
			switch {
			case x[i] == '*':
				reach[j+1] = above || reach[j] || y[j] == '*' && diagonal
			case y[j] == '*':
				reach[j+1] = above || reach[j] || diagonal
			default:
				reach[j+1] = diagonal && (x[i] == '?' || y[j] == '?' || x[i] == y[j])
			}
			diagonal = above
			any = any || reach[j+1]
		}
		if !any {
			return false
		}
	}
	return reach[len(y)]
}

// A resource is the pattern of a statement, or of a type, with its parts.
type resource struct {
	pattern string // variables opened
	written string // as the statement has it
	parts   [6]string
	isARN   bool
	service string // empty where it may be several
}

// everything is the resource of what is allowed on all.
var everything = []resource{{pattern: "*", written: "*"}}

func newResource(pattern, written string) resource {
	x := resource{pattern: pattern, written: written}
	rest := pattern
	for i := range 5 {
		part, after, ok := strings.Cut(rest, ":")
		if !ok {
			return x
		}
		x.parts[i], rest = part, after
	}
	x.parts[5], x.isARN = rest, x.parts[0] == "arn"
	if x.isARN && !strings.ContainsAny(x.parts[2], "*?") {
		x.service = x.parts[2]
	}
	return x
}

// tail returns the sixth part of an ARN, or all of what is none.
func (x *resource) tail() string {
	if x.isARN {
		return x.parts[5]
	}
	return x.pattern
}

// meet reports whether a resource may match both patterns. Of two ARNs each of the
// six parts is looked at by itself (IAM User Guide, "IAM JSON policy elements:
// Resource").
func (b *budget) meet(x, y *resource) bool {
	if !b.take(1) {
		return true
	}
	if !x.isARN || !y.isARN {
		return b.overlap(x.pattern, y.pattern)
	}
	for i := 5; i > 0; i-- { // the last part is what tells most apart
		if !b.overlap(x.parts[i], y.parts[i]) {
			return false
		}
	}
	return true
}

// A kind is a type of a service's resources.
type kind struct {
	resource
	service, place int
	flat           bool // its name has no slash
}

func newKind(pattern string, service, place int) kind {
	k := kind{service: service, place: place}
	pattern, k.flat = strings.CutSuffix(pattern, "+")
	if k.flat {
		pattern += "*"
	}
	k.resource = newResource(pattern, pattern)
	return k
}

// onType reports whether a resource of a statement may be one of a type.
func (b *budget) onType(x *resource, k *kind) bool {
	if k.flat && strings.Count(x.tail(), "/") != strings.Count(k.tail(), "/") && x.isARN {
		return false
	}
	return b.meet(x, &k.resource)
}

func wild(c byte) bool { return c == '*' || c == '?' }

// open replaces what the variables of a policy stand for by any text (IAM User
// Guide, "IAM policy elements: Variables and tags").
func open(text string) string {
	if !strings.Contains(text, "${") {
		return text
	}
	var out strings.Builder
	for {
		before, after, ok := strings.Cut(text, "${")
		out.WriteString(before)
		if !ok {
			return out.String()
		}
		_, rest, ok := strings.Cut(after, "}")
		out.WriteByte('*')
		if !ok {
			return out.String()
		}
		text = rest
	}
}

// clip cuts a text that came from outside before it enters a sentence, and leaves
// it nothing that breaks a line, turns the direction of reading or commands a
// terminal.
func clip(s string, n int) string {
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "") + "…"
	}
	return strings.Map(func(c rune) rune {
		if c != ' ' && !unicode.IsGraphic(c) || c != ' ' && unicode.IsSpace(c) {
			return unicode.ReplacementChar
		}
		return c
	}, s)
}
