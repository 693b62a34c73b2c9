// Package policytest is AWS's evaluation of policies, for fakes: a [Policy] is a document, read; a
// [Question] is a request in the words a policy can judge; Evaluate answers it. How the answers of several
// policies make one decision is the business of who asks.
//
// The rules are those of the IAM user guide, read anew and not shared with the judgement of a product, so
// that one can be held against the other:
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements.html and
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
package policytest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Policy is a policy document, read. It is safe for concurrent use.
type Policy struct {
	statements []statement
	variables  bool // ${...} is only special since version 2012-10-17
}

type statement struct {
	deny          bool
	principals    *principals // nil where the document has no such element
	notPrincipals *principals
	actions       []string
	notActions    []string
	resources     []string
	notResources  []string
	conditions    []condition
}

type principals struct {
	everyone  bool
	aws       []string
	federated []string
	services  []string
}

type condition struct {
	test     test
	ifExists bool
	set      setOperator
	key      string // lower case: keys ignore case
	values   []string
}

type setOperator int

const (
	single setOperator = iota
	forAnyValue
	forAllValues
)

// A Question is one request in the words a policy can judge.
type Question struct {
	Action   string
	Resource string
	Who      Asker
	Context  map[string][]string // keys in lower case; a key is absent or has its values
}

// An Asker is who a Principal element is compared with.
type Asker struct {
	Account   string // of an AWS principal
	Self      string // ARN of the user or of the role session
	Role      string // ARN of the session's role
	RoleID    string // its unique id, which a trust policy may name instead
	Federated string // ARN of an identity provider
	Service   string
}

// A Reach says how an Allow came to its principal. Within one account the account's own policies
// have a say too where the trust names the account, and none where it names the principal.
type Reach int

// The reaches, from the least to the most direct.
const (
	Nobody    Reach = iota
	ByAccount       // the account or its root
	ByRole          // the role of a session, or everyone
	BySelf          // the user or the session itself
)

// An Outcome is what one policy says to one question.
type Outcome struct {
	Denied  bool
	Allowed Reach // for a policy without principals BySelf or Nobody
}

// Evaluate judges q by all statements: a Deny counts wherever it stands.
func (p *Policy) Evaluate(q Question) Outcome {
	var o Outcome
	for i := range p.statements {
		s := &p.statements[i]
		how := s.matches(q, p.variables)
		switch {
		case how == Nobody:
		case s.deny:
			o.Denied = true
		default:
			o.Allowed = max(o.Allowed, how)
		}
	}
	return o
}

// Named returns the AWS principals that statements name, but not those they except.
func (p *Policy) Named() []string {
	var named []string
	for _, s := range p.statements {
		if s.principals != nil {
			named = append(named, s.principals.aws...)
		}
	}
	return named
}

func (s *statement) matches(q Question, variables bool) Reach {
	how := BySelf
	switch {
	case s.principals != nil:
		how = s.principals.reach(q.Who)
	case s.notPrincipals != nil:
		if s.notPrincipals.reach(q.Who) != Nobody {
			return Nobody
		}
		how = ByRole
	}
	if how == Nobody {
		return Nobody
	}
	action := func(pattern string) bool {
		return glob(strings.ToLower(pattern), strings.ToLower(q.Action))
	}
	resource := func(pattern string) bool {
		pattern, ok := expand(pattern, q.Context, variables)
		return ok && glob(pattern, q.Resource)
	}
	switch {
	case s.actions != nil && !slices.ContainsFunc(s.actions, action),
		s.notActions != nil && slices.ContainsFunc(s.notActions, action),
		s.resources != nil && !slices.ContainsFunc(s.resources, resource),
		s.notResources != nil && slices.ContainsFunc(s.notResources, resource):
		return Nobody
	}
	for _, c := range s.conditions {
		if !c.holds(q.Context, variables) {
			return Nobody
		}
	}
	return how
}

func (p *principals) reach(who Asker) Reach {
	if p.everyone {
		return ByRole
	}
	if who.Service != "" {
		if slices.Contains(p.services, who.Service) {
			return BySelf
		}
		return Nobody
	}
	if who.Federated != "" {
		if slices.Contains(p.federated, who.Federated) || slices.Contains(p.federated, "*") {
			return BySelf
		}
		return Nobody
	}
	how := Nobody
	for _, a := range p.aws {
		switch {
		case a == who.Self:
			how = max(how, BySelf)
		case a == "*", who.Role != "" && (a == who.Role || a == who.RoleID):
			how = max(how, ByRole)
		case a == who.Account, strings.HasSuffix(a, ":iam::"+who.Account+":root"):
			how = max(how, ByAccount)
		}
	}
	return how
}

// holds judges one condition. A key the request does not carry makes negated operators true,
// IfExists true, and the others false.
func (c condition) holds(context map[string][]string, variables bool) bool {
	got, present := context[c.key]
	if c.test.null {
		return slices.ContainsFunc(c.values, func(want string) bool {
			return strings.EqualFold(want, "true") == !present
		})
	}
	if !present {
		switch c.set {
		case forAllValues:
			return true
		case forAnyValue:
			return c.ifExists
		}
		return c.ifExists || c.test.negated
	}
	matches := func(value string) bool {
		some := slices.ContainsFunc(c.values, func(want string) bool {
			if c.test.text {
				var ok bool
				if want, ok = expand(want, context, variables); !ok {
					return false
				}
			}
			return c.test.match(want, value)
		})
		return some != c.test.negated
	}
	all := func() bool {
		return !slices.ContainsFunc(got, func(v string) bool { return !matches(v) })
	}
	switch {
	case c.set == forAllValues:
		return all()
	case c.set == forAnyValue:
		return slices.ContainsFunc(got, matches)
	case c.test.negated:
		return all()
	}
	return slices.ContainsFunc(got, matches)
}

// A test is what a condition operator does to one value of the policy and one of the request.
type test struct {
	match   func(want, got string) bool
	negated bool
	null    bool
	text    bool // policy variables are expanded in the values
}

// tests holds the condition operators by lower-case name:
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
var tests = map[string]test{
	"stringequals":              {match: equal, text: true},
	"stringnotequals":           {match: equal, text: true, negated: true},
	"stringequalsignorecase":    {match: equalFold, text: true},
	"stringnotequalsignorecase": {match: equalFold, text: true, negated: true},
	"stringlike":                {match: glob, text: true},
	"stringnotlike":             {match: glob, text: true, negated: true},
	"arnequals":                 {match: arnLike, text: true},
	"arnlike":                   {match: arnLike, text: true},
	"arnnotequals":              {match: arnLike, text: true, negated: true},
	"arnnotlike":                {match: arnLike, text: true, negated: true},
	"bool":                      {match: strings.EqualFold},
	"null":                      {null: true},
	"ipaddress":                 {match: within},
	"notipaddress":              {match: within, negated: true},
	"dateequals":                {match: byDate(func(got, want time.Time) bool { return got.Equal(want) })},
	"datenotequals":             {match: byDate(func(got, want time.Time) bool { return got.Equal(want) }), negated: true},
	"datelessthan":              {match: byDate(func(got, want time.Time) bool { return got.Before(want) })},
	"datelessthanequals":        {match: byDate(func(got, want time.Time) bool { return !got.After(want) })},
	"dategreaterthan":           {match: byDate(func(got, want time.Time) bool { return got.After(want) })},
	"dategreaterthanequals":     {match: byDate(func(got, want time.Time) bool { return !got.Before(want) })},
	"numericequals":             {match: byNumber(func(got, want float64) bool { return got == want })},
	"numericnotequals":          {match: byNumber(func(got, want float64) bool { return got == want }), negated: true},
	"numericlessthan":           {match: byNumber(func(got, want float64) bool { return got < want })},
	"numericlessthanequals":     {match: byNumber(func(got, want float64) bool { return got <= want })},
	"numericgreaterthan":        {match: byNumber(func(got, want float64) bool { return got > want })},
	"numericgreaterthanequals":  {match: byNumber(func(got, want float64) bool { return got >= want })},
}

func equal(want, got string) bool     { return plain(want) == got }
func equalFold(want, got string) bool { return strings.EqualFold(plain(want), got) }

func byDate(f func(got, want time.Time) bool) func(want, got string) bool {
	return func(want, got string) bool {
		w, ok1 := parseDate(want)
		g, ok2 := parseDate(got)
		return ok1 && ok2 && f(g, w)
	}
}

// parseDate reads the forms AWS takes: the W3C profiles of ISO 8601, and epoch seconds.
func parseDate(s string) (time.Time, bool) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return time.Unix(n, 0), true
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04Z07:00", time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

func byNumber(f func(got, want float64) bool) func(want, got string) bool {
	return func(want, got string) bool {
		w, err1 := strconv.ParseFloat(want, 64)
		g, err2 := strconv.ParseFloat(got, 64)
		return err1 == nil && err2 == nil && f(g, w)
	}
}

func within(want, got string) bool {
	a, err := netip.ParseAddr(got)
	if err != nil {
		return false
	}
	if p, err := netip.ParsePrefix(want); err == nil {
		return p.Contains(a)
	}
	w, err := netip.ParseAddr(want)
	return err == nil && w == a
}

// arnLike compares the six parts of two ARNs, each with wildcards. ArnEquals does the same.
func arnLike(want, got string) bool {
	w, g := strings.SplitN(want, ":", 6), strings.SplitN(got, ":", 6)
	if len(w) != 6 || len(g) != 6 {
		return false
	}
	for i := range w {
		if !glob(w[i], g[i]) {
			return false
		}
	}
	return true
}

// What a variable puts into a pattern is meant literally. These two runes of the private use area
// stand for a * and a ? that are no wildcards.
const (
	literalStar     = '\uE000'
	literalQuestion = '\uE001'
)

var literally = strings.NewReplacer("*", string(literalStar), "?", string(literalQuestion))

// plain is an expanded text where wildcards have no meaning.
func plain(s string) string {
	if !strings.ContainsAny(s, string(literalStar)+string(literalQuestion)) {
		return s
	}
	return strings.NewReplacer(string(literalStar), "*", string(literalQuestion), "?").Replace(s)
}

// expand replaces policy variables. It reports false where one has no value and no default: such an
// element matches nothing.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html
func expand(s string, context map[string][]string, variables bool) (string, bool) {
	if !variables || !strings.Contains(s, "${") {
		return s, true
	}
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(s, "${")
		b.WriteString(before)
		if !found {
			return b.String(), true
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed {
			b.WriteString("${" + rest)
			return b.String(), true
		}
		s = after
		key, fallback, hasFallback := strings.Cut(name, ",")
		values := context[strings.ToLower(strings.TrimSpace(key))]
		switch {
		case name == "*", name == "?", name == "$":
			b.WriteString(literally.Replace(name))
		case len(values) == 1:
			b.WriteString(literally.Replace(values[0]))
		case hasFallback:
			b.WriteString(literally.Replace(strings.Trim(strings.TrimSpace(fallback), "'")))
		default:
			return "", false
		}
	}
}

// glob reports whether s matches the pattern, in which * stands for any text and ? for one character.
func glob(pattern, s string) bool {
	p, r := []rune(pattern), []rune(s)
	star, mark := -1, 0
	i, j := 0, 0
	for j < len(r) {
		switch {
		case i < len(p) && p[i] == '*':
			star, mark = i, j
			i++
		case i < len(p) && (p[i] == '?' || p[i] == r[j] ||
			p[i] == literalStar && r[j] == '*' || p[i] == literalQuestion && r[j] == '?'):
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}

// A Kind says which elements a document may and must have.
type Kind int

// The kinds of policies.
const (
	Identity Kind = iota // also boundaries and session policies
	Trust
)

// Words are an element that may be one text or a list of them; numbers and truths count as text.
type Words []string

// UnmarshalJSON reads one text or a list; an empty list is not nil.
func (w *Words) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return err
	}
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	*w = Words{} // present, though perhaps empty
	for _, e := range list {
		switch e := e.(type) {
		case string:
			*w = append(*w, e)
		case bool, json.Number:
			*w = append(*w, fmt.Sprint(e))
		default:
			return fmt.Errorf("%T where a text belongs", e)
		}
	}
	return nil
}

func (p *principals) UnmarshalJSON(b []byte) error {
	var all string
	if json.Unmarshal(b, &all) == nil {
		if all != "*" {
			return errors.New("invalid principal in policy")
		}
		p.everyone = true
		return nil
	}
	var kinds struct{ AWS, Federated, Service, CanonicalUser Words }
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&kinds); err != nil {
		return err
	}
	p.aws, p.federated, p.services = kinds.AWS, kinds.Federated, kinds.Service
	return nil
}

type document struct {
	Version   string
	ID        string `json:"Id"`
	Statement statements
}

type statements []rawStatement

func (s *statements) UnmarshalJSON(b []byte) error {
	b = bytes.TrimSpace(b)
	if len(b) > 0 && b[0] == '{' {
		b = slices.Concat([]byte("["), b, []byte("]"))
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode((*[]rawStatement)(s))
}

type rawStatement struct {
	Sid          string
	Effect       string
	Principal    *principals
	NotPrincipal *principals
	Action       Words
	NotAction    Words
	Resource     Words
	NotResource  Words
	Condition    map[string]map[string]Words
}

// Parse reads a document, and refuses what AWS refuses as MalformedPolicyDocument.
func Parse(text string, kind Kind) (*Policy, error) {
	var doc document
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&doc); err != nil {
		return nil, fmt.Errorf("this policy contains invalid Json: %w", err)
	}
	if d.More() {
		return nil, errors.New("this policy contains more than one document")
	}
	switch doc.Version {
	case "", "2008-10-17", "2012-10-17":
	default:
		return nil, fmt.Errorf("the policy must contain a valid version string, not %q", doc.Version)
	}
	p := &Policy{variables: doc.Version == "2012-10-17"}
	for _, raw := range doc.Statement {
		s, err := raw.read(kind)
		if err != nil {
			return nil, err
		}
		p.statements = append(p.statements, s)
	}
	return p, nil
}

func (raw rawStatement) read(kind Kind) (statement, error) {
	s := statement{
		principals: raw.Principal, notPrincipals: raw.NotPrincipal,
		actions: raw.Action, notActions: raw.NotAction,
		resources: raw.Resource, notResources: raw.NotResource,
	}
	switch raw.Effect {
	case "Allow":
	case "Deny":
		s.deny = true
	default:
		return s, fmt.Errorf("invalid effect: %q", raw.Effect)
	}
	if (s.actions == nil) == (s.notActions == nil) {
		return s, errors.New("a statement needs either Action or NotAction")
	}
	named := s.principals != nil || s.notPrincipals != nil
	placed := s.resources != nil || s.notResources != nil
	switch {
	case kind == Trust && !named:
		return s, errors.New("missing required field Principal")
	case kind == Trust && placed:
		return s, errors.New("has prohibited field Resource")
	case kind == Identity && named:
		return s, errors.New("policy document should not specify a principal")
	case kind == Identity && !placed:
		return s, errors.New("policy statement must contain resources")
	}
	for operator, keys := range raw.Condition {
		c, err := readOperator(operator)
		if err != nil {
			return s, err
		}
		for key, values := range keys {
			c.key, c.values = strings.ToLower(key), values
			s.conditions = append(s.conditions, c)
		}
	}
	return s, nil
}

func readOperator(operator string) (condition, error) {
	var c condition
	name := strings.ToLower(operator)
	if rest, ok := strings.CutPrefix(name, "foranyvalue:"); ok {
		name, c.set = rest, forAnyValue
	} else if rest, ok := strings.CutPrefix(name, "forallvalues:"); ok {
		name, c.set = rest, forAllValues
	}
	if rest, ok := strings.CutSuffix(name, "ifexists"); ok {
		name, c.ifExists = rest, true
	}
	t, ok := tests[name]
	if !ok || t.null && (c.ifExists || c.set != single) {
		return c, fmt.Errorf("invalid Condition type : %s", operator)
	}
	c.test = t
	return c, nil
}
