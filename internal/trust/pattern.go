package trust

import (
	"strings"
	"unicode/utf8"
)

// In a pattern the wildcards are these two bytes, which no UTF-8 text has, so
// that a star that came out of a variable stays a star.
const (
	anyText = 0xff // *
	anyOne  = 0xfe // ?
)

// isWild reports whether a pattern has a wildcard.
func isWild(pattern string) bool {
	return strings.IndexByte(pattern, anyText) >= 0 || strings.IndexByte(pattern, anyOne) >= 0
}

// wild makes a text with wildcards a pattern.
func wild(s string) string {
	if !strings.ContainsAny(s, "*?") {
		return s
	}
	b := []byte(s)
	for i, c := range b {
		switch c {
		case '*':
			b[i] = anyText
		case '?':
			b[i] = anyOne
		}
	}
	return string(b)
}

// A budget is how many steps a judgement may take in patterns. It makes time
// bounded for any policy; when it is gone, answers are unknown.
type budget int

const maxSteps budget = 4 << 20

func (b *budget) take(n int) bool {
	*b -= budget(n)
	return *b >= 0
}

// glob reports whether s matches the pattern, in which a wildcard stands for
// any text or for one character.
func (b *budget) glob(pattern, s string) truth {
	if !isWild(pattern) {
		return known(pattern == s)
	}
	p, i := 0, 0
	star, from := -1, 0 // where to go on when the text after the last * does not fit
	for i < len(s) {
		if !b.take(1) {
			return unknown
		}
		switch {
		case p < len(pattern) && pattern[p] == anyText:
			star, from = p, i
			p++
		case p < len(pattern) && pattern[p] == anyOne:
			_, n := utf8.DecodeRuneInString(s[i:])
			p, i = p+1, i+n
		case p < len(pattern) && pattern[p] == s[i]:
			p, i = p+1, i+1
		case star >= 0:
			from++
			p, i = star+1, from
		default:
			return no
		}
	}
	for p < len(pattern) && pattern[p] == anyText {
		p++
	}
	return known(p == len(pattern))
}

// expand makes the value of a string or ARN condition a pattern: variables are
// replaced, and stars and question marks are wildcards where the operator has
// them. Its answer is no where a variable has no value and no default, and
// unknown where a value is not known (IAM User Guide, "IAM policy elements:
// Variables and tags").
func (q *question) expand(value string, wildcards bool) (string, truth) {
	plain := func(s string) string {
		if wildcards {
			return wild(s)
		}
		return s
	}
	if !q.variables || !strings.Contains(value, "${") {
		return plain(value), yes
	}
	var b strings.Builder
	resolved := yes
	for {
		before, after, ok := strings.Cut(value, "${")
		b.WriteString(plain(before))
		if !ok {
			return b.String(), resolved
		}
		name, rest, ok := strings.Cut(after, "}")
		if !ok {
			return "", unknown // no page says what an open ${ is
		}
		value = rest
		switch name {
		case "*", "?", "$":
			b.WriteString(name)
			continue
		}
		name, fallback, hasFallback := strings.Cut(name, ",")
		f := q.lookup(newKey(strings.TrimSpace(name)))
		switch {
		case f.state == unknown || f.state == yes && (f.kind != kindText || len(f.values) != 1):
			// Not known, a date, or one of many: "you cannot use multivalued
			// context keys as policy variables".
			return "", unknown
		case f.state == yes:
			b.WriteString(f.values[0])
		case hasFallback:
			fallback = strings.TrimSpace(fallback)
			if len(fallback) < 2 || fallback[0] != '\'' || fallback[len(fallback)-1] != '\'' {
				return "", unknown
			}
			b.WriteString(fallback[1 : len(fallback)-1])
		default:
			resolved = no
		}
		if !q.steps.take(16 + b.Len()/16) {
			return "", unknown
		}
	}
}
