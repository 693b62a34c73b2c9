package trust

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A condition is one key under one operator, with its values.
type condition struct {
	operator string // as written
	key      key
	values   []string

	test     test
	negated  bool
	ifExists bool
	set      set
}

// A set is how an operator takes a key with several values.
type set int

const (
	single set = iota
	allOf      // ForAllValues
	anyOf      // ForAnyValue
)

// A test is what an operator does to one value of the policy and one of the
// request. Names are those of the IAM User Guide, "IAM JSON policy elements:
// Condition operators".
type test int

const (
	testUnknown test = iota
	testEquals
	testEqualsFold
	testLike
	testARN
	testBool
	testBinary
	testAddress
	testNull
	testNumericEquals
	testNumericLess
	testNumericLessEquals
	testNumericGreater
	testNumericGreaterEquals
	testDateEquals
	testDateLess
	testDateLessEquals
	testDateGreater
	testDateGreaterEquals
)

func newCondition(operator, name string, values []string) condition {
	c := condition{operator: operator, key: newKey(name), values: values}
	o := strings.ToLower(operator)
	if rest, ok := strings.CutPrefix(o, "forallvalues:"); ok {
		o, c.set = rest, allOf
	} else if rest, ok := strings.CutPrefix(o, "foranyvalue:"); ok {
		o, c.set = rest, anyOf
	}
	if o == "null" {
		if c.set == single {
			c.test = testNull
		}
		return c
	}
	o, c.ifExists = strings.CutSuffix(o, "ifexists")
	switch o {
	case "stringequals":
		c.test = testEquals
	case "stringnotequals":
		c.test, c.negated = testEquals, true
	case "stringequalsignorecase":
		c.test = testEqualsFold
	case "stringnotequalsignorecase":
		c.test, c.negated = testEqualsFold, true
	case "stringlike":
		c.test = testLike
	case "stringnotlike":
		c.test, c.negated = testLike, true
	case "arnequals", "arnlike": // "behave identically"
		c.test = testARN
	case "arnnotequals", "arnnotlike":
		c.test, c.negated = testARN, true
	case "bool":
		c.test = testBool
	case "binaryequals":
		c.test = testBinary
	case "ipaddress":
		c.test = testAddress
	case "notipaddress":
		c.test, c.negated = testAddress, true
	case "numericequals":
		c.test = testNumericEquals
	case "numericnotequals":
		c.test, c.negated = testNumericEquals, true
	case "numericlessthan":
		c.test = testNumericLess
	case "numericlessthanequals":
		c.test = testNumericLessEquals
	case "numericgreaterthan":
		c.test = testNumericGreater
	case "numericgreaterthanequals":
		c.test = testNumericGreaterEquals
	case "dateequals":
		c.test = testDateEquals
	case "datenotequals":
		c.test, c.negated = testDateEquals, true
	case "datelessthan":
		c.test = testDateLess
	case "datelessthanequals":
		c.test = testDateLessEquals
	case "dategreaterthan":
		c.test = testDateGreater
	case "dategreaterthanequals":
		c.test = testDateGreaterEquals
	}
	return c
}

// String names the condition for a sentence.
func (c *condition) String() string {
	values := c.values
	if len(values) > 3 {
		values = append(slices.Clip(values[:3]), "...")
	}
	var b strings.Builder
	b.WriteString(clip(c.operator, 60) + " " + clip(c.key.name, 200))
	for i, v := range values {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(" " + quote(clip(v, 120)))
	}
	return b.String()
}

// holds judges one condition.
func (q *question) holds(c *condition) truth {
	if c.test == testUnknown || len(c.values) == 0 {
		return unknown
	}
	f := q.lookup(c.key)
	if c.test == testNull {
		return null(f.state, c.values)
	}
	switch f.state {
	case unknown:
		return unknown
	case no:
		return q.holdsAbsent(c)
	}
	if f.values == nil {
		return unknown
	}

	one := func(got string) truth {
		t := no
		for _, want := range c.values {
			if t = or(t, q.match(c.test, want, got, f.kind)); t == yes {
				break
			}
		}
		if c.negated {
			return not(t) // "evaluated using a logical NOR"
		}
		return t
	}
	result := unknown
	switch {
	case c.set != single && !slices.ContainsFunc(f.values, func(s string) bool { return s != "" }) && f.kind == kindText:
		// "A null data set, such as an empty string": true for ForAllValues,
		// false for ForAnyValue; of the negated operators the page says nothing.
		switch {
		case c.set == allOf:
			result = yes
		case !c.negated:
			result = no
		}
	case c.set == allOf:
		result = yes
		for _, got := range f.values {
			result = and(result, one(got))
		}
	case c.set == anyOf:
		result = no
		for _, got := range f.values {
			result = or(result, one(got))
		}
	default:
		// "Multivalued context keys require a condition set operator": without
		// one only values that agree give an answer.
		result = one(f.values[0])
		for _, got := range f.values[1:] {
			if one(got) != result {
				result = unknown
				break
			}
		}
	}
	return and(result, q.resolved(c))
}

// holdsAbsent judges a condition whose key the request does not have.
func (q *question) holdsAbsent(c *condition) truth {
	switch {
	case c.ifExists:
		return yes // "evaluate the condition element as true"
	case c.set == allOf:
		return and(yes, q.resolved(c)) // "also returns true if there are no context keys in the request"
	case c.set == anyOf && c.negated:
		return unknown // one page says true of negated operators, another false of ForAnyValue
	case c.negated:
		return and(yes, q.resolved(c)) // "such as StringNotLike ..., the condition is true"
	}
	return no
}

// resolved is unknown where a variable in the values has no value: "this might
// cause the entire statement to be invalid".
func (q *question) resolved(c *condition) truth {
	for _, v := range c.values {
		if _, t := q.expand(v, true); t != yes {
			return unknown
		}
	}
	return yes
}

// null judges the Null operator by whether the key is there.
func null(present truth, values []string) truth {
	t := no
	for _, v := range values {
		switch strings.ToLower(v) {
		case "true":
			t = or(t, not(present))
		case "false":
			t = or(t, present)
		default:
			return unknown
		}
	}
	return t
}

// match compares one value of the policy with one of the request.
func (q *question) match(t test, want, got string, k kind) truth {
	if k == kindAddress && t != testAddress {
		return unknown // "Works with IP address operators"
	}
	if k == kindTime || k == kindEpoch {
		return q.matchTime(t, want, k)
	}
	switch t { // "You can't use a policy variable with other operators": to those it is no value
	case testEquals, testEqualsFold, testLike:
		want, resolved := q.expand(want, t == testLike)
		if resolved != yes {
			return resolved
		}
		switch t {
		case testLike:
			return q.steps.glob(want, got)
		case testEquals:
			return known(want == got)
		}
		return sameFold(want, got)
	case testARN:
		want, resolved := q.expand(want, true)
		if resolved != yes {
			return resolved
		}
		return q.matchARN(want, got)
	case testBool:
		want, got := strings.ToLower(want), strings.ToLower(got)
		if want != "true" && want != "false" || got != "true" && got != "false" {
			return unknown
		}
		return known(want == got)
	case testAddress:
		return matchAddress(want, got)
	case testNumericEquals, testNumericLess, testNumericLessEquals, testNumericGreater, testNumericGreaterEquals:
		w, ok1 := parseNumber(want)
		g, ok2 := parseNumber(got)
		if !ok1 || !ok2 {
			return unknown
		}
		return compareNumbers(t, g, w)
	case testDateEquals, testDateLess, testDateLessEquals, testDateGreater, testDateGreaterEquals:
		w, ok1 := parseDate(want)
		g, ok2 := parseDate(got)
		if !ok1 || !ok2 {
			return unknown
		}
		return compareDates(t, g, w)
	}
	return unknown
}

// sameFold compares ignoring case. Beyond ASCII no page says how.
func sameFold(a, b string) truth {
	if a == b {
		return yes
	}
	if !isASCII(a) || !isASCII(b) {
		return unknown
	}
	return known(strings.EqualFold(a, b))
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// matchARN compares part by part: "each of the six colon-delimited components
// of the ARN is checked separately".
func (q *question) matchARN(want, got string) truth {
	w, g := strings.SplitN(want, ":", 6), strings.SplitN(got, ":", 6)
	if len(w) != 6 || len(g) != 6 || w[0] != "arn" || g[0] != "arn" {
		return unknown
	}
	t := yes
	for i := range w {
		t = and(t, q.steps.glob(w[i], g[i]))
	}
	return t
}

// matchAddress: "If you specify an IP address without the associated routing
// prefix, IAM uses the default prefix value of /32".
func matchAddress(want, got string) truth {
	a, err := netip.ParseAddr(got)
	if err != nil || a.Zone() != "" {
		return unknown
	}
	if single, err := netip.ParseAddr(want); err == nil {
		if single.Zone() != "" {
			return unknown
		}
		return known(single.Unmap() == a.Unmap())
	}
	p, err := netip.ParsePrefix(want)
	if err != nil {
		return unknown
	}
	return known(p.Contains(a) || p.Contains(a.Unmap()))
}

// matchTime compares with Now.
func (q *question) matchTime(t test, want string, k kind) truth {
	switch t {
	case testDateEquals, testDateLess, testDateLessEquals, testDateGreater, testDateGreaterEquals:
		w, ok := parseDate(want)
		if !ok {
			return unknown
		}
		return compareDates(t, q.Now, w)
	case testNumericEquals, testNumericLess, testNumericLessEquals, testNumericGreater, testNumericGreaterEquals:
		w, ok := parseNumber(want)
		if !ok || k != kindEpoch {
			return unknown
		}
		return compareNumbers(t, float64(q.Now.Unix()), w)
	}
	return unknown
}

// parseNumber reads "an integer or decimal value".
func parseNumber(s string) (float64, bool) {
	if strings.Trim(s, "0123456789.+-eE") != "" {
		return 0, false
	}
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil
}

func compareNumbers(t test, got, want float64) truth {
	switch t {
	case testNumericEquals:
		return known(got == want)
	case testNumericLess:
		return known(got < want)
	case testNumericLessEquals:
		return known(got <= want)
	case testNumericGreater:
		return known(got > want)
	}
	return known(got >= want)
}

// parseDate reads "one of the W3C implementations of the ISO 8601 date formats
// or epoch (UNIX) time". Four digits could be either, and are neither here.
func parseDate(s string) (time.Time, bool) {
	if len(s) > 4 && len(s) < 14 && strings.Trim(s, "0123456789") == "" {
		seconds, err := strconv.ParseInt(s, 10, 64)
		return time.Unix(seconds, 0), err == nil
	}
	for _, layout := range []string{"2006-01-02T15:04:05Z07:00", "2006-01-02", "2006-01-02T15:04Z07:00", "2006-01"} {
		if at, err := time.Parse(layout, s); err == nil {
			return at, true
		}
	}
	return time.Time{}, false
}

func compareDates(t test, got, want time.Time) truth {
	switch t {
	case testDateEquals:
		return known(got.Equal(want))
	case testDateLess:
		return known(got.Before(want))
	case testDateLessEquals:
		return known(!got.After(want))
	case testDateGreater:
		return known(got.After(want))
	}
	return known(!got.Before(want))
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
