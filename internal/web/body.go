package web

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// The bounds of a body.
const (
	maxBody  = 64 << 10
	maxDepth = 32
)

// decode reads a JSON body into value, strictly: one object, its fields named
// exactly and once, each of its type, and nothing behind it.
func decode(r *http.Request, value any) error {
	text, err := readBody(r)
	if err != nil {
		return err
	}
	if kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" ||
		params["charset"] != "" && !strings.EqualFold(params["charset"], "utf-8") {
		return serval.Refuse(serval.Invalid, "The body must be JSON: send Content-Type: application/json.")
	}
	if !utf8.Valid(text) {
		return serval.Refuse(serval.Invalid, "The body is not UTF-8.")
	}
	if err := checkJSON(text); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(value); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return serval.Refuse(serval.Invalid, "Field %q has the wrong type: it cannot be a %s.", clip(wrong.Field, 100), clip(wrong.Value, 40))
		}
		if _, field, ok := strings.Cut(err.Error(), "unknown field "); ok {
			return serval.Refuse(serval.Invalid, "Field %s is not known.", clip(field, 100))
		}
		return serval.Refuse(serval.Invalid, "The body does not fit: %s.", clip(err.Error(), 200))
	}
	return nil
}

// decodeNothing takes a body that says nothing, or none at all.
func decodeNothing(r *http.Request) error {
	if r.ContentLength == 0 {
		return nil
	}
	return decode(r, &struct{}{})
}

func readBody(r *http.Request) ([]byte, error) {
	text, err := io.ReadAll(r.Body)
	if limit, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, serval.Refuse(serval.TooLarge, "The body has more than the %d bytes that are taken.", limit.Limit)
	}
	if err != nil {
		return nil, serval.Refuse(serval.Invalid, "The body breaks off.")
	}
	return text, nil
}

// checkJSON refuses what encoding/json would let through: names that come twice
// or in another case, and text behind the end. All names of ours are lower case
// and ASCII; encoding/json takes "reque\u017ft_id" for request_id as well.
func checkJSON(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	malformed := serval.Refuse(serval.Invalid, "The body is not one JSON object.")
	t, err := d.Token()
	if err != nil || t != json.Delim('{') {
		return malformed
	}
	type level struct {
		object bool
		names  map[string]bool
		value  bool // a name was read, its value comes
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
				return serval.Refuse(serval.Invalid, "Field %q comes twice.", clip(name, 100))
			}
			if serval.FoldEmail(name) != name || strings.ContainsFunc(name, func(c rune) bool { return c >= utf8.RuneSelf }) {
				return serval.Refuse(serval.Invalid, "Field %q is not known.", clip(name, 100))
			}
			in.names[name], in.value = true, true
			continue
		}
		in.value = false
		switch t {
		case json.Delim('{'), json.Delim('['):
			if len(open) == maxDepth {
				return serval.Refuse(serval.Invalid, "The body is nested too deeply.")
			}
			open = append(open, &level{object: t == json.Delim('{'), names: map[string]bool{}})
		case json.Delim('}'), json.Delim(']'):
			open = open[:len(open)-1]
		}
	}
	if _, err := d.Token(); err != io.EOF {
		return serval.Refuse(serval.Invalid, "Something stands behind the end of the body.")
	}
	return nil
}

// form reads a posted form.
func form(r *http.Request) (url.Values, error) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); (err != nil || kind != "application/x-www-form-urlencoded") && r.ContentLength != 0 {
		return nil, serval.Refuse(serval.Invalid, "This address takes a posted form.")
	}
	text, err := readBody(r)
	if err != nil {
		return nil, err
	}
	values, err := url.ParseQuery(string(text))
	if err != nil {
		return nil, serval.Refuse(serval.Invalid, "The form cannot be read.")
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

// minutes reads a number of minutes from a form; empty is 0.
func minutes(text string) (int, error) {
	if text = strings.TrimSpace(text); text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, serval.Refuse(serval.Invalid, "Minutes are a whole number.")
	}
	return n, nil
}

// query reads the parameters of an API route. One that the route does not know,
// or that comes twice, is refused: a filter that is misspelled must not choose
// everything.
func query(r *http.Request, known ...string) (url.Values, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, serval.Refuse(serval.Invalid, "The query cannot be read.")
	}
	for name, all := range values {
		if !slices.Contains(known, name) {
			return nil, serval.Refuse(serval.Invalid, "The parameter %q is not known here.", clip(name, 100))
		}
		if len(all) > 1 {
			return nil, serval.Refuse(serval.Invalid, "The parameter %q comes more than once.", name)
		}
		if !utf8.ValidString(all[0]) {
			return nil, serval.Refuse(serval.Invalid, "The parameter %q is not UTF-8.", name)
		}
	}
	return values, nil
}

// The sizes of a page.
const (
	defaultPage = 100
	maxPage     = 1000
)

// page returns the size of a page, and behind what it begins.
func page(q url.Values) (size int, after string, err error) {
	size = defaultPage
	if text := q.Get("page_size"); text != "" {
		if size, err = strconv.Atoi(text); err != nil || size < 1 || size > maxPage {
			return 0, "", serval.Refuse(serval.Invalid, "page_size is a number from 1 to %d.", maxPage)
		}
	}
	token, err := base64.RawURLEncoding.DecodeString(q.Get("page_token"))
	if err != nil || !utf8.Valid(token) {
		return 0, "", serval.Refuse(serval.Invalid, "This page_token is not of this list.")
	}
	return size, string(token), nil
}

// pageToken names the last item of a page; empty where no page follows.
func pageToken(more bool, last string) string {
	if !more {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString([]byte(last))
}

// number reads a page token that is a row's number.
func number(token string) (int64, error) {
	if token == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(token, 10, 64)
	if err != nil || n < 1 {
		return 0, serval.Refuse(serval.Invalid, "This page_token is not of this list.")
	}
	return n, nil
}

// pathEscape is for ids in our own addresses.
func pathEscape(format string, parts ...string) string {
	escaped := make([]any, len(parts))
	for i, p := range parts {
		escaped[i] = url.PathEscape(p)
	}
	return fmt.Sprintf(format, escaped...)
}
