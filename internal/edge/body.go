package edge

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// MaxBody is the most, in bytes, that is taken as a body; a stream has a bound of
// its own.
const MaxBody = 64 << 10

// maxDepth is how deep the objects and lists of a body may lie in each other.
const maxDepth = 32

// Decode reads a JSON body into value, strictly: one object, its fields named
// exactly and once, each of its type, and nothing behind it. A body without a byte
// says as much as an empty object.
func Decode(r *http.Request, value any) error {
	text, err := ReadBody(r)
	if err != nil || len(text) == 0 {
		return err
	}
	if !isJSON(r) {
		return Refuse(serval.Invalid, "The body must be JSON: send Content-Type: application/json.")
	}
	if !utf8.Valid(text) {
		return Refuse(serval.Invalid, "The body is not UTF-8.")
	}
	if err := checkJSON(text); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(value); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return Refuse(serval.Invalid, "Field %q has the wrong type: it cannot be a %s.", serval.Clip(wrong.Field, 100), serval.Clip(wrong.Value, 40))
		}
		if _, field, ok := strings.Cut(err.Error(), "unknown field "); ok {
			return Refuse(serval.Invalid, "Field %s is not known.", serval.Clip(field, 100))
		}
		return Refuse(serval.Invalid, "The body does not fit: %s.", serval.Clip(err.Error(), 200))
	}
	return nil
}

// Members reads a JSON object whose members are just these, each once and in any
// order, and leaves what they hold as it is written: somebody else's documents,
// which have rules of their own. A name that does not come has no entry.
func Members(r *http.Request, names ...string) (map[string]json.RawMessage, error) {
	text, err := ReadBody(r)
	if err != nil {
		return nil, err
	}
	if !isJSON(r) {
		return nil, Refuse(serval.Invalid, "The body must be JSON: send Content-Type: application/json.")
	}
	malformed := Refuse(serval.Invalid, "The body is not one JSON object.")
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, malformed
	}
	members := map[string]json.RawMessage{}
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil, malformed
		}
		if !slices.Contains(names, name) {
			return nil, Refuse(serval.Invalid, "Field %q is not known.", serval.Clip(name, 100))
		}
		if _, twice := members[name]; twice {
			return nil, Refuse(serval.Invalid, "Field %q comes twice.", name)
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, malformed
		}
		members[name] = raw
	}
	if _, err := d.Token(); err != nil {
		return nil, malformed
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, Refuse(serval.Invalid, "Something stands behind the end of the body.")
	}
	return members, nil
}

// isJSON reports whether a body says of itself that it is JSON, or nothing: there is
// nothing else that an address of the API takes. What is another site's form says
// so, and a browser says besides where it comes from.
func isJSON(r *http.Request) bool {
	said := r.Header.Values("Content-Type")
	if len(said) == 0 {
		return true
	}
	kind, params, err := mime.ParseMediaType(said[0])
	return err == nil && len(said) == 1 && kind == "application/json" && (params["charset"] == "" || strings.EqualFold(params["charset"], "utf-8"))
}

// DecodeNothing takes a body that says nothing, or none at all.
func DecodeNothing(r *http.Request) error {
	return Decode(r, &struct{}{})
}

// ReadBody reads a whole body, of at most what the server takes.
func ReadBody(r *http.Request) ([]byte, error) {
	text, err := io.ReadAll(r.Body)
	if limit, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, Refuse(serval.TooLarge, "The body has more than the %d bytes that are taken.", limit.Limit)
	}
	if err != nil {
		return nil, Refuse(serval.Invalid, "The body breaks off.")
	}
	return text, nil
}

// checkJSON refuses what encoding/json would let through: names that come twice
// or in another case, and text behind the end. All names of ours are lower case
// and ASCII; encoding/json takes "reque\u017ft_id" for request_id as well. The names
// within tags are the tags' own.
func checkJSON(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	malformed := Refuse(serval.Invalid, "The body is not one JSON object.")
	t, err := d.Token()
	if err != nil || t != json.Delim('{') {
		return malformed
	}
	type level struct {
		object bool
		names  map[string]bool
		value  bool   // a name was read, its value comes
		tags   bool   // its names are those of tags
		name   string // that was read last
	}
	open := []*level{{object: true, names: map[string]bool{}}}
	for len(open) > 0 {
		t, err := d.Token()
		if err != nil {
			return malformed
		}
		in := open[len(open)-1]
		if name, ok := t.(string); ok && in.object && !in.value {
			if in.names[name] {
				return Refuse(serval.Invalid, "Field %q comes twice.", serval.Clip(name, 100))
			}
			if !in.tags && (serval.FoldEmail(name) != name || strings.ContainsFunc(name, func(c rune) bool { return c >= utf8.RuneSelf })) {
				return Refuse(serval.Invalid, "Field %q is not known.", serval.Clip(name, 100))
			}
			in.names[name], in.value, in.name = true, true, name
			continue
		}
		in.value = false
		switch t {
		case json.Delim('{'), json.Delim('['):
			if len(open) == maxDepth {
				return Refuse(serval.Invalid, "The body is nested too deeply.")
			}
			open = append(open, &level{object: t == json.Delim('{'), names: map[string]bool{}, tags: in.name == "tags"})
		case json.Delim('}'), json.Delim(']'):
			open = open[:len(open)-1]
		}
	}
	if _, err := d.Token(); err != io.EOF {
		return Refuse(serval.Invalid, "Something stands behind the end of the body.")
	}
	return nil
}

// Form reads a posted form.
func Form(r *http.Request) (url.Values, error) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); (err != nil || kind != "application/x-www-form-urlencoded") && r.ContentLength != 0 {
		return nil, Refuse(serval.Invalid, "This address takes a posted form.")
	}
	text, err := ReadBody(r)
	if err != nil {
		return nil, err
	}
	values, err := url.ParseQuery(string(text))
	if err != nil {
		return nil, Refuse(serval.Invalid, "The form cannot be read.")
	}
	for name, all := range values {
		for i := range all {
			// A browser sends line ends as CR LF.
			all[i] = strings.ReplaceAll(strings.ToValidUTF8(all[i], "\uFFFD"), "\r\n", "\n")
		}
		values[name] = all
	}
	return values, nil
}

// Query reads the parameters of an API route. One that the route does not know,
// or that comes twice, is refused: a filter that is misspelled must not choose
// everything.
func Query(r *http.Request, known ...string) (url.Values, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, Refuse(serval.Invalid, "The query cannot be read.")
	}
	for name, all := range values {
		if !slices.Contains(known, name) {
			return nil, Refuse(serval.Invalid, "The parameter %q is not known here.", serval.Clip(name, 100))
		}
		if len(all) > 1 {
			return nil, Refuse(serval.Invalid, "The parameter %q comes more than once.", name)
		}
		if !utf8.ValidString(all[0]) {
			return nil, Refuse(serval.Invalid, "The parameter %q is not UTF-8.", name)
		}
	}
	return values, nil
}

// Yes reads a parameter that is true, or left out.
func Yes(q url.Values, name string) (bool, error) {
	switch q.Get(name) {
	case "":
		return false, nil
	case "true":
		return true, nil
	default:
		return false, Refuse(serval.Invalid, "The parameter %q is true, or left out.", name)
	}
}

// How many items a page has, where nobody says, and at most.
const (
	DefaultPage = 100
	MaxPage     = 1000
)

// Page returns the size of a page, and behind what it begins.
func Page(q url.Values) (size int, after string, err error) {
	size = DefaultPage
	if text := q.Get("page_size"); text != "" {
		if size, err = strconv.Atoi(text); err != nil || size < 1 || size > MaxPage {
			return 0, "", Refuse(serval.Invalid, "page_size is a number from 1 to %d.", MaxPage)
		}
	}
	token, err := base64.RawURLEncoding.DecodeString(q.Get("page_token"))
	if err != nil || !utf8.Valid(token) {
		return 0, "", Refuse(serval.Invalid, "This page_token is not of this list.")
	}
	return size, string(token), nil
}

// maxDays is how many days may be asked for: what AWS remembers is less.
const maxDays = 3650

// Days reads a number of days; 0 where there is none.
func Days(text string) (int, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxDays {
		return 0, serval.Refuse(serval.Invalid, "Days are a number from 1 to %d.", maxDays)
	}
	return n, nil
}

// PageToken names the last item of a page; empty where no page follows.
func PageToken(more bool, last string) string {
	if !more {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString([]byte(last))
}

// Instant reads a parameter that is a time; zero where it is left out.
func Instant(q url.Values, name string) (time.Time, error) {
	if q.Get(name) == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, q.Get(name))
	if err != nil || t.Year() < 2000 || t.Year() > 2200 {
		return time.Time{}, Refuse(serval.Invalid, "The parameter %q is a time such as 2026-03-01T12:00:00Z.", name)
	}
	return t.UTC(), nil
}

// Seq reads a parameter that is the number of a row; 0 where it is left out.
func Seq(q url.Values, name string) (int64, error) {
	if q.Get(name) == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(q.Get(name), 10, 64)
	if err != nil || n < 0 {
		return 0, Refuse(serval.Invalid, "The parameter %q is the number of a row.", name)
	}
	return n, nil
}

// Number reads a page token that is a row's number.
func Number(token string) (int64, error) {
	if token == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(token, 10, 64)
	if err != nil || n < 1 {
		return 0, Refuse(serval.Invalid, "This page_token is not of this list.")
	}
	return n, nil
}
