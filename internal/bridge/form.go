package bridge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/serval-bridge/serval-bridge/api"
)

// A form is what the schema of the configuration file says of one value, in the
// words of JSON Schema that it is written in. A library that knows them all compiles
// five drafts of that standard whenever its program starts, and keeps them: a
// twentieth of what an idle bridge has in memory. One is held against this in the
// tests.
type form struct {
	Ref                  string           `json:"$ref"`
	Defs                 map[string]*form `json:"$defs"`
	Type                 string           `json:"type"`
	Enum                 []string         `json:"enum"`
	Pattern              *regexp.Regexp   `json:"pattern"`
	MinLength            *int             `json:"minLength"`
	MaxLength            *int             `json:"maxLength"`
	Minimum              *json.Number     `json:"minimum"`
	Maximum              *json.Number     `json:"maximum"`
	MinItems             int              `json:"minItems"`
	Items                *form            `json:"items"`
	MinProperties        int              `json:"minProperties"`
	Properties           map[string]*form `json:"properties"`
	AdditionalProperties *others          `json:"additionalProperties"`
	Required             []string         `json:"required"`

	// For whoever reads it.
	Schema      string `json:"$schema"`
	ID          string `json:"$id"`
	Title       string `json:"title"`
	Description string `json:"description"`
}

// A tell is told of something wrong, with the YAML path of where it is.
type tell func(path, format string, args ...any)

// others is the form of properties that have no name in the schema; nil where there
// may be none.
type others struct{ form *form }

// UnmarshalJSON reads false, or a form.
func (o *others) UnmarshalJSON(text []byte) error {
	if string(text) == "false" {
		return nil
	}
	return readForm(text, &o.form)
}

// readForm refuses words that a form does not know.
func readForm(text []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

// configuration returns the form of the whole file. A schema that it cannot be made
// of is a bug that every test meets.
func configuration() *form {
	var f form
	if err := readForm(api.ConfigSchema, &f); err != nil {
		panic("bridge: the configuration's schema: " + err.Error())
	}
	return &f
}

// check tells fault of all in which a value, as JSON, is not of the form.
func (f *form) check(text []byte, fault tell) error {
	var value any
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&value); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("there is more behind it")
	}
	f.of(value, "$", f.Defs, fault)
	return nil
}

// of is check of one value within.
func (f *form) of(value any, path string, defs map[string]*form, fault tell) {
	if name, ok := strings.CutPrefix(f.Ref, "#/$defs/"); ok {
		f = defs[name]
	}
	if got := typeOf(value); f.Type != "" && got != f.Type && (f.Type != "integer" || !isWhole(value)) {
		fault(path, "got %s, want %s", got, f.Type)
		return
	}
	switch v := value.(type) {
	case map[string]any:
		f.ofObject(v, path, defs, fault)
	case []any:
		if len(v) < f.MinItems {
			fault(path, "minItems: got %d, want %d", len(v), f.MinItems)
		}
		for i, item := range v {
			if f.Items != nil {
				f.Items.of(item, fmt.Sprintf("%s[%d]", path, i), defs, fault)
			}
		}
	case string:
		f.ofString(v, path, fault)
	case json.Number:
		if f.Minimum != nil && size(v) < size(*f.Minimum) {
			fault(path, "minimum: got %s, want %s", v, *f.Minimum)
		}
		if f.Maximum != nil && size(v) > size(*f.Maximum) {
			fault(path, "maximum: got %s, want %s", v, *f.Maximum)
		}
	}
}

func (f *form) ofObject(v map[string]any, path string, defs map[string]*form, fault tell) {
	if len(v) < f.MinProperties {
		fault(path, "minProperties: got %d, want %d", len(v), f.MinProperties)
	}
	var missing []string
	for _, name := range f.Required {
		if _, ok := v[name]; !ok {
			missing = append(missing, "'"+name+"'")
		}
	}
	switch len(missing) {
	case 0:
	case 1:
		fault(path, "missing property %s", missing[0])
	default:
		fault(path, "missing properties %s", strings.Join(missing, ", "))
	}
	for _, name := range slices.Sorted(maps.Keys(v)) {
		at := path + "." + name
		switch property := f.Properties[name]; {
		case property != nil:
			property.of(v[name], at, defs, fault)
		case f.AdditionalProperties == nil:
		case f.AdditionalProperties.form == nil:
			fault(at, "no such key")
		default:
			f.AdditionalProperties.form.of(v[name], at, defs, fault)
		}
	}
}

func (f *form) ofString(v, path string, fault tell) {
	if f.Enum != nil && !slices.Contains(f.Enum, v) {
		fault(path, "value must be one of '%s'", strings.Join(f.Enum, "', '"))
		return
	}
	length := utf8.RuneCountInString(v)
	if f.MinLength != nil && length < *f.MinLength {
		fault(path, "minLength: got %d, want %d", length, *f.MinLength)
	}
	if f.MaxLength != nil && length > *f.MaxLength {
		fault(path, "maxLength: got %d, want %d", length, *f.MaxLength)
	}
	if f.Pattern != nil && !f.Pattern.MatchString(v) {
		fault(path, "'%s' does not match pattern '%s'", v, f.Pattern)
	}
}

// typeOf returns what JSON Schema calls the type of a value.
func typeOf(value any) string {
	switch value.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case json.Number:
		return "number"
	case string:
		return "string"
	case []any:
		return "array"
	}
	return "object"
}

// size returns a number; what is too large for one is infinite.
func size(n json.Number) float64 {
	x, _ := n.Float64() // the decoder found it to be a number
	return x
}

// isWhole reports whether a value is what JSON Schema calls an integer.
func isWhole(value any) bool {
	n, ok := value.(json.Number)
	return ok && size(n) == math.Trunc(size(n)) && !math.IsInf(size(n), 0)
}
