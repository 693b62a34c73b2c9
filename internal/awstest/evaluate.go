package awstest

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

// A policy is a policy document, read. The rules of its evaluation are those of the IAM user guide:
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements.html and
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
type policy struct {
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

// A question is one request in the words a policy can judge.
type question struct {
	action   string
	resource string
	who      asker
	context  map[string][]string // keys in lower case; a key is absent or has its values
}

// An asker is who a Principal element is compared with.
type asker struct {
	account   string // of an AWS principal
	self      string // ARN of the user or of the role session
	role      string // ARN of the session's role
	roleID    string // its unique id, which a trust policy may name instead
	federated string // ARN of an identity provider
	service   string
}

// A reach says how an Allow came to its principal. Within one account the account's own policies
// have a say too where the trust names the account, and none where it names the principal.
type reach int

const (
	nobody    reach = iota
	byAccount       // the account or its root
	byRole          // the role of a session, or everyone
	bySelf          // the user or the session itself
)

type outcome struct {
	denied  bool
	allowed reach // for a policy without principals bySelf or nobody
}

// evaluate judges q by all statements: a Deny counts wherever it stands.
func (p *policy) evaluate(q question) outcome {
	var o outcome
	for i := range p.statements {
		s := &p.statements[i]
		how := s.matches(q, p.variables)
		switch {
		case how == nobody:
		case s.deny:
			o.denied = true
		default:
			o.allowed = max(o.allowed, how)
		}
	}
	return o
}

func (s *statement) matches(q question, variables bool) reach {
	how := bySelf
	switch {
	case s.principals != nil:
		how = s.principals.reach(q.who)
	case s.notPrincipals != nil:
		if s.notPrincipals.reach(q.who) != nobody {
			return nobody
		}
		how = byRole
	}
	if how == nobody {
		return nobody
	}
	action := func(pattern string) bool {
		return glob(strings.ToLower(pattern), strings.ToLower(q.action))
	}
	resource := func(pattern string) bool {
		pattern, ok := expand(pattern, q.context, variables)
		return ok && glob(pattern, q.resource)
	}
	switch {
	case s.actions != nil && !slices.ContainsFunc(s.actions, action),
		s.notActions != nil && slices.ContainsFunc(s.notActions, action),
		s.resources != nil && !slices.ContainsFunc(s.resources, resource),
		s.notResources != nil && slices.ContainsFunc(s.notResources, resource):
		return nobody
	}
	for _, c := range s.conditions {
		if !c.holds(q.context, variables) {
			return nobody
		}
	}
	return how
}

func (p *principals) reach(who asker) reach {
	if p.everyone {
		return byRole
	}
	if who.service != "" {
		if slices.Contains(p.services, who.service) {
			return bySelf
		}
		return nobody
	}
	if who.federated != "" {
		if slices.Contains(p.federated, who.federated) || slices.Contains(p.federated, "*") {
			return bySelf
		}
		return nobody
	}
	how := nobody
	for _, a := range p.aws {
		switch {
		case a == who.self:
			how = max(how, bySelf)
		case a == "*", who.role != "" && (a == who.role || a == who.roleID):
			how = max(how, byRole)
		case a == who.account, strings.HasSuffix(a, ":iam::"+who.account+":root"):
			how = max(how, byAccount)
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

// A policyKind says which elements a document may and must have.
type policyKind int

const (
	identityPolicy policyKind = iota // also boundaries and session policies
	trustPolicy
)

// words is an element that may be one text or a list of them; numbers and truths count as text.
type words []string

func (w *words) UnmarshalJSON(b []byte) error {
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
	*w = words{} // present, though perhaps empty
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
	var kinds struct{ AWS, Federated, Service, CanonicalUser words }
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
	Action       words
	NotAction    words
	Resource     words
	NotResource  words
	Condition    map[string]map[string]words
}

// parsePolicy reads a document, and refuses what AWS refuses as MalformedPolicyDocument.
func parsePolicy(text string, kind policyKind) (*policy, error) {
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
	p := &policy{variables: doc.Version == "2012-10-17"}
	for _, raw := range doc.Statement {
		s, err := raw.read(kind)
		if err != nil {
			return nil, err
		}
		p.statements = append(p.statements, s)
	}
	return p, nil
}

func (raw rawStatement) read(kind policyKind) (statement, error) {
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
	case kind == trustPolicy && !named:
		return s, errors.New("missing required field Principal")
	case kind == trustPolicy && placed:
		return s, errors.New("has prohibited field Resource")
	case kind == identityPolicy && named:
		return s, errors.New("policy document should not specify a principal")
	case kind == identityPolicy && !placed:
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
