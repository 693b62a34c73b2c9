package insight

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// repeated returns a list of n texts.
func repeated(n int, form string) string {
	var list []string
	for i := range n {
		list = append(list, strings.ReplaceAll(form, "#", fmt.Sprint(i)))
	}
	return strings.Join(list, ",")
}

// statementsOf returns a document of n statements.
func statementsOf(n int, form string) string {
	return `{"Version":"2012-10-17","Statement":[` + repeated(n, form) + `]}`
}

// copies returns a document n times.
func copies(n int, doc string) (docs []string) {
	for range n {
		docs = append(docs, doc)
	}
	return docs
}

// hostile are roles that somebody made to be hard to read: what a worker may push of
// one, and much more than AWS lets anybody have.
func hostile() map[string][]string {
	as := strings.Repeat("a", 60_000)
	return map[string][]string{
		"many tiny statements":             copies(7, statementsOf(1000, `{"Effect":"Allow","NotAction":"a:b","Resource":"*"}`)),
		"many tiny statements on a thing":  copies(7, statementsOf(1000, `{"Effect":"Allow","Action":"*","Resource":"a#"}`)),
		"many denies under conditions":     append(copies(20, statementsOf(500, `{"Effect":"Deny","Action":"iam:PassRole","Resource":"*","Condition":{"StringEquals":{"iam:PassedToService":"x#"}}}`)), copies(20, statementsOf(500, `{"Effect":"Allow","Action":"*","Resource":"*"}`))...),
		"many denies of things":            append(copies(20, statementsOf(900, `{"Effect":"Deny","Action":"*","Resource":["arn:aws:iam::*:role/x#*","arn:aws:s3:::*#"]}`)), statementsOf(900, `{"Effect":"Allow","Action":"*","Resource":"arn:*:*:*:*:a*#"}`)),
		"very many resources":              copies(4, `{"Statement":[`+repeated(3, `{"Effect":"Allow","Action":"s3:*","Resource":[`+repeated(9000, `"#"`)+`]}`)+`]}`),
		"many services by a wildcard each": copies(8, statementsOf(1, `{"Effect":"Allow","Action":[`+repeated(9000, `"s#:*"`)+`],"Resource":"*"}`)),
		"a long pattern in a long one":     {one(`"Effect":"Deny","Action":"*","Resource":"*` + as + `b"`), one(`"Effect":"Allow","Action":"*","Resource":"` + as + as + `"`)},
		"long patterns that overlap":       {statementsOf(40, `{"Effect":"Allow","Action":"*","Resource":"arn:*:*:*:*:*`+strings.Repeat("a?*", 900)+`#"}`), statementsOf(40, `{"Effect":"Deny","Action":"*","NotResource":"arn:*:*:*:*:*`+strings.Repeat("?a*", 900)+`#"}`)},
		"very many values":                 copies(5, one(`"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringLike":{"iam:PassedToService":[`+repeated(20_000, `"#"`)+`]}}`)),
		"NotAction of patterns":            copies(10, statementsOf(20, `{"Effect":"Allow","NotAction":[`+repeated(100, `"*:*#*?"`)+`],"Resource":"arn:aws:s3:::*"}`)),
	}
}

// Whatever the documents, what is said of a role is worked out with a bounded effort
// and has a bounded size; where the effort ends nothing is ruled out, and the card
// says so. (Without a bound this test does not end.)
func TestEffortIsBounded(t *testing.T) {
	for name, docs := range hostile() {
		for _, bounded := range []bool{false, true} {
			role := roleWith(docs...)
			if bounded {
				role = within(role, serval.Document(docs[0]))
			}
			p := AWS().Look(role)
			card, index := p.Card(), AWS().Look(role).Index()
			if p.steps < 0 && card.AtMost == "" || len(p.own) > maxOwn {
				t.Errorf("%s: %d statements, %d steps are left, and the card says at most %q", name, len(p.own), p.steps, card.AtMost)
			}
			if len(card.Marks) > len(paths)+3*maxMarks || len(card.Facts) > maxFacts || len(card.Unlisted) > maxUnlisted {
				t.Errorf("%s: %d marks, %d facts, %d actions that are not listed", name, len(card.Marks), len(card.Facts), len(card.Unlisted))
			}
			for _, k := range Kinds {
				if card.Is(k) != index.Is(k) {
					t.Errorf("%s: the card has the mark %s: %v, the index %q: %v", name, k, card.Is(k), index, index.Is(k))
				}
			}
			if bounded {
				continue
			}
			other := roleWith(docs...)
			for i := range other.InlinePolicies.Policies {
				other.InlinePolicies.Policies[i].Document += " "
			}
			change, size := AWS().Compare(role, other), 0
			for _, text := range change.Sentences {
				size += len(text)
			}
			for _, s := range change.Statements {
				size += len(s.Text)
			}
			if len(change.Statements) > maxChanged || size > maxChanged*(maxText+100) {
				t.Errorf("%s: the change has %d statements and %d bytes", name, len(change.Statements), size)
			}
		}
	}
}

// What AWS lets an account have, at its largest, is looked at in full.
func TestLargestHonestDocuments(t *testing.T) {
	var docs []string
	for range 21 { // twenty attached ones of 6,144 characters, and the inline ones
		docs = append(docs, statementsOf(40, `{"Effect":"Allow","Action":["s3:Get*","sqs:Send*"],"Resource":["arn:aws:s3:::bucket-#/*","arn:aws:sqs:*:*:queue-#"]}`))
	}
	p := AWS().Look(roleWith(docs...))
	if card := p.Card(); len(card.AtLeast) > 0 || card.AtMost != "" || p.steps < maxSteps/2 {
		t.Errorf("at least %q, at most %q, %d of %d steps are left", card.AtLeast, card.AtMost, p.steps, maxSteps)
	}
}

// Nothing that somebody wrote breaks a line of what is said, turns its direction or
// commands a terminal.
func TestSaidIsOneLine(t *testing.T) {
	const evil = "a\nIt can do nothing.\r\x1b[2J\u202e\u2028\u0000\u200fz\xff"
	role := roleWith(`{"Statement":[{"Sid":"x\nIt can do nothing.\u202e","Effect":"Allow","Action":["iam:*","nothing:\u202ex\ny"],"Resource":"*"},{"Effect":"Allow","NotAction":"s3:\nx","Resource":"*"}]}`)
	role.InlinePolicies.Policies[0].Name = evil
	role.ManagedPolicies = serval.ManagedPolicies{Status: serval.ListStatus(evil), Action: evil, Policies: []serval.ManagedPolicy{{ARN: evil, Name: evil, Version: evil, Document: evil}}}
	role.Description, role.Path, role.Tags = evil, evil, map[string]string{evil: evil}
	role.PermissionsBoundary, role.BoundaryPolicy = new(evil), &serval.BoundaryPolicy{Status: evil, Action: evil, Version: evil, Document: evil}
	role.TrustPolicy = evil
	card := AWS().Look(role).Card()
	said := append(append(append([]string{card.Summary, card.AtMost}, card.Facts...), card.AtLeast...), card.Unlisted...)
	for _, m := range card.Marks {
		said = append(said, m.Title, m.Statement.String())
	}
	for _, c := range []Change{AWS().Compare(roleWith(), role), AWS().Compare(role, roleWith())} {
		said = append(append(said, c.Sentences...), c.AtLeast...)
		for _, f := range c.Facts {
			said = append(said, f.What, f.Before, f.After)
		}
	}
	if len(said) < 20 {
		t.Fatalf("only %d things are said", len(said))
	}
	for _, text := range said {
		if strings.ContainsAny(text, "\n\r\x1b\u202e\u2028\u200f\x00") || !utf8.ValidString(text) {
			t.Errorf("%q has what breaks its line", text)
		}
	}
}
