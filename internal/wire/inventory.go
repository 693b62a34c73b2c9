package wire

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// The bounds of a pushed inventory, and of a delta.
const (
	MaxInventoryBytes = 256 << 20 // of the whole body, uncompressed
	MaxRoleBytes      = 8 << 20   // of one role

	MaxEntries    = 20_000  // of each list beside the roles
	MaxListBytes  = 8 << 20 // of each list beside the roles
	MaxEntryBytes = 64 << 10
	MaxText       = 2048 // bytes of one text beside the roles; no ARN is longer
)

// WriteInventory writes inv as one JSON object, role by role, so that the
// peak is one role's text. Documents keep their bytes: nothing is escaped for
// HTML. The caller has normalized inv.
func WriteInventory(w io.Writer, inv serval.Inventory) error {
	roles := inv.Roles
	inv.Roles = []serval.Role{}
	return writeRoles(w, inv, roles)
}

// writeRoles writes whole, whose list of roles is empty, with the roles in it.
func writeRoles(w io.Writer, whole any, roles []serval.Role) error {
	b := bufio.NewWriter(w)
	head, err := encode(whole)
	if err != nil {
		return err
	}
	before, after, found := bytes.Cut(head, []byte(`"roles":[]`))
	if !found {
		return fmt.Errorf("wire: %T has no empty roles field", whole)
	}
	b.Write(before)
	b.WriteString(`"roles":[`)
	for i, r := range roles {
		if i > 0 {
			b.WriteByte(',')
		}
		text, err := encode(r)
		if err != nil {
			return fmt.Errorf("encoding role %s: %w", r.ARN, err)
		}
		b.Write(text)
	}
	b.WriteByte(']')
	b.Write(after)
	b.WriteByte('\n')
	return b.Flush() // reports the first error of all writes
}

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// ReadInventory reads one inventory and hands each of its roles to role as it
// comes, so that the peak is one role. It returns the inventory without its
// roles; the other lists have at most MaxEntries each. Fields may come in any order, so the roles may come before the account
// they belong to: keep them aside until ReadInventory has returned.
//
// What is not an inventory is refused with what is wrong: an unknown, repeated
// or missing field, another schema, a value of the wrong type, text behind the
// end, a text longer than MaxText; and, with kind TooLarge, what is larger than
// MaxInventoryBytes, than the limit of an http.MaxBytesReader, or has a role or a
// list larger than is taken. What else goes wrong with reading r is a fault. An
// error of role is returned as it is.
func ReadInventory(r io.Reader, role func(serval.Role) error) (serval.Inventory, error) {
	return readInventory(r, MaxInventoryBytes, MaxRoleBytes, role)
}

func readInventory(r io.Reader, most, mostRole int64, role func(serval.Role) error) (serval.Inventory, error) {
	var inv serval.Inventory
	err := readPush(r, push{
		what: "an inventory", schema: serval.InventorySchema, most: most, mostRole: mostRole,
		head: head{
			&inv.Schema, &inv.AccountID, &inv.AccountName, &inv.Generation, &inv.StartedAt, &inv.FinishedAt, &inv.Complete, &inv.ReadBy,
		},
		role: role,
		lists: map[string]func(*json.Decoder, *source) error{
			"unreadable": listInto(&inv.Unreadable, "unreadable", textsOfUnreadable), "near_misses": listInto(&inv.NearMisses, "near_misses", textsOfNearMiss),
			"problems": listInto(&inv.Problems, "problems", textsOfProblem), "untagged": listInto(&inv.Untagged, "untagged", textsOfUntagged),
			"oidc_provider": func(d *json.Decoder, src *source) error { return readProvider(d, src, &inv.OIDCProvider) },
		},
		optional: []string{"untagged", "oidc_provider"},
	})
	if err != nil {
		return serval.Inventory{}, err
	}
	return inv, nil
}

// A push is what is told apart in reading an inventory and a delta.
type push struct {
	what           string // with its article
	schema         string
	most, mostRole int64 // bytes
	head           head
	role           func(serval.Role) error
	lists          map[string]func(*json.Decoder, *source) error // beside the roles, and what else is bounded by itself
	optional       []string                                      // of all fields
}

// A head is where the fields go that are no lists.
type head struct {
	schema, accountID, accountName *string
	generation                     *int64
	startedAt, finishedAt          *time.Time
	complete                       *bool
	readBy                         *string
}

// readPush reads one of them. Every field but the optional ones is required:
// unknown is never absent, and an inventory without the list of unreadable roles
// would pass for one in which everything was read.
func readPush(r io.Reader, p push) error {
	src := &source{r: r, until: p.most, most: p.most, mostRole: p.mostRole, what: p.what}
	d := json.NewDecoder(src)

	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return src.explain("it does not begin as a JSON object")
	}
	h := p.head
	fields := map[string]any{
		"schema": h.schema, "account_id": h.accountID, "account_name": h.accountName, "generation": h.generation,
		"started_at": h.startedAt, "finished_at": h.finishedAt, "complete": h.complete, "read_by": h.readBy,
	}
	seen := map[string]bool{}
	for {
		src.allow(d, MaxEntryBytes) // a name with a value that is no list
		if !d.More() {
			break
		}
		t, err := d.Token()
		name, isName := t.(string)
		if err != nil || !isName {
			return src.explain("its JSON breaks off or is malformed")
		}
		if seen[name] {
			return src.explain("field %q comes twice", clip(name))
		}
		seen[name] = true
		list := p.lists[name]
		if name == "roles" {
			list = func(d *json.Decoder, src *source) error { return readRoles(d, src, p.role) }
		}
		if list != nil {
			if err := list(d, src); err != nil {
				return err
			}
			continue
		}
		into, known := fields[name]
		if !known {
			return src.explain("field %q is not known", clip(name))
		}
		if err := d.Decode(into); err != nil {
			return src.explain("field %q: %s", name, clip(err.Error()))
		}
	}
	src.until = src.most
	if t, err := d.Token(); err != nil || t != json.Delim('}') {
		return src.explain("its JSON breaks off or is malformed")
	}
	if _, err := d.Token(); err != io.EOF {
		return src.explain("something stands behind its end")
	}
	for _, name := range slices.Concat(headFields, []string{"roles"}, slices.Sorted(maps.Keys(p.lists))) {
		if !seen[name] && !slices.Contains(p.optional, name) {
			return src.explain("field %q is missing", name)
		}
	}
	if *h.schema != p.schema {
		return src.explain("its schema is %q, not %q", clip(*h.schema), p.schema)
	}
	if longest(*h.accountID, *h.accountName, *h.readBy) > MaxText {
		return src.explain("a text of it has more than %d bytes", MaxText)
	}
	if !isWritable(*h.startedAt) || !isWritable(*h.finishedAt) {
		return src.explain("a time of it lies outside the years that can be written")
	}
	return nil
}

// headFields are the names of a head's fields. It is read only.
var headFields = []string{
	"schema", "account_id", "account_name", "generation", "started_at", "finished_at", "complete", "read_by",
}

// listInto reads a list other than the roles into to.
func listInto[T any](to *[]T, name string, texts func(T) []string) func(*json.Decoder, *source) error {
	return func(d *json.Decoder, src *source) (err error) {
		*to, err = readList(d, src, name, texts)
		return err
	}
}

func readRoles(d *json.Decoder, src *source, role func(serval.Role) error) error {
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return src.explain("roles is not a list")
	}
	for n := 0; ; n++ {
		// The decoder has to hold a role to find its end; it is not given more
		// than one may have, and a comma, space and the next one's beginning.
		src.allow(d, src.mostRole)
		if !d.More() {
			break
		}
		var text json.RawMessage
		err := d.Decode(&text)
		if err != nil {
			return src.explain("roles[%d] breaks off or is malformed", n)
		}
		if int64(len(text)) > src.mostRole {
			return src.tooLarge()
		}
		var r serval.Role
		strict := json.NewDecoder(bytes.NewReader(text))
		strict.DisallowUnknownFields()
		if err := strict.Decode(&r); err != nil {
			return src.explain("roles[%d]: %s", n, clip(err.Error()))
		}
		if !isWritable(r.CreatedAt) || r.LastUsedAt != nil && !isWritable(*r.LastUsedAt) {
			return src.explain("roles[%d]: a time of it lies outside the years that can be written", n)
		}
		if err := role(r); err != nil {
			return err
		}
	}
	if t, err := d.Token(); err != nil || t != json.Delim(']') {
		return src.explain("roles breaks off or is malformed")
	}
	return nil
}

// readList reads a list other than the roles, entry by entry: what a few bytes
// of gzip unfold to is refused before it is held. Texts returns the texts of an
// entry.
func readList[T any](d *json.Decoder, src *source, name string, texts func(T) []string) ([]T, error) {
	src.allow(d, MaxEntryBytes)
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return nil, src.explain("%s is not a list", name)
	}
	start := d.InputOffset()
	var list []T
	for {
		src.allow(d, MaxEntryBytes)
		if !d.More() {
			break
		}
		if len(list) == MaxEntries {
			return nil, serval.Refuse(serval.TooLarge, "%s is too large: %s has more than %d entries.", src.sentence(), name, MaxEntries)
		}
		var text json.RawMessage
		if err := d.Decode(&text); err != nil {
			return nil, src.explain("%s[%d] breaks off or is malformed", name, len(list))
		}
		if d.InputOffset()-start > MaxListBytes {
			return nil, serval.Refuse(serval.TooLarge, "%s is too large: %s has more than %d bytes.", src.sentence(), name, MaxListBytes)
		}
		var entry T
		strict := json.NewDecoder(bytes.NewReader(text))
		strict.DisallowUnknownFields()
		if err := strict.Decode(&entry); err != nil {
			return nil, src.explain("%s[%d]: %s", name, len(list), clip(err.Error()))
		}
		if string(text) == "null" {
			return nil, src.explain("%s[%d] is null", name, len(list))
		}
		if longest(texts(entry)...) > MaxText {
			return nil, src.explain("%s[%d]: a text of it has more than %d bytes", name, len(list), MaxText)
		}
		list = append(list, entry)
	}
	if t, err := d.Token(); err != nil || t != json.Delim(']') {
		return nil, src.explain("%s breaks off or is malformed", name)
	}
	return list, nil
}

// readProvider reads an OIDC provider into to.
func readProvider(d *json.Decoder, src *source, to **serval.OIDCProvider) error {
	src.allow(d, MaxEntryBytes)
	var text json.RawMessage
	if err := d.Decode(&text); err != nil {
		return src.explain("oidc_provider breaks off or is malformed")
	}
	strict := json.NewDecoder(bytes.NewReader(text))
	strict.DisallowUnknownFields()
	if err := strict.Decode(to); err != nil {
		return src.explain("oidc_provider: %s", clip(err.Error()))
	}
	if *to == nil {
		return src.explain("oidc_provider is null: it is left out where nobody asked for one")
	}
	if longest(append((*to).ClientIDs, (*to).Issuer, (*to).ARN, string((*to).Status))...) > MaxText {
		return src.explain("oidc_provider: a text of it has more than %d bytes", MaxText)
	}
	return nil
}

func textsOfUnreadable(u serval.Unreadable) []string {
	return []string{u.ARN, u.RoleID, u.Action, u.Code}
}
func textsOfNearMiss(n serval.NearMiss) []string { return []string{n.ARN, n.TagKey} }
func textsOfProblem(p serval.Problem) []string {
	return []string{p.Action, p.Target, p.Code, p.Message}
}
func textsOfUntagged(id string) []string { return []string{id} }

// longest returns the bytes of the longest text.
func longest(texts ...string) int {
	var n int
	for _, text := range texts {
		n = max(n, len(text))
	}
	return n
}

// readAhead is what a decoder may be given beyond one part.
const readAhead = 4 << 10

// errUntil ends a source at its until.
var errUntil = errors.New("wire: more than is taken at a time")

// A source reads at most until bytes of r, and remembers what went wrong:
// whether a decoder's error is the text's fault or the reader's is not to be
// seen from the decoder's error.
type source struct {
	r        io.Reader
	read     int64
	until    int64 // at most most
	most     int64 // of the whole
	mostRole int64
	what     string
	err      error // other than io.EOF; the first, and the last
}

// allow lets the decoder be given one more part of at most n bytes.
func (s *source) allow(d *json.Decoder, n int64) {
	s.until = min(s.most, d.InputOffset()+n+readAhead)
}

func (s *source) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if s.read >= s.until {
		// One more byte tells an end from an excess.
		var b [1]byte
		if n, err := io.ReadFull(s.r, b[:]); n == 0 {
			return 0, s.note(err)
		}
		return 0, s.note(errUntil)
	}
	n, err := s.r.Read(p[:min(int64(len(p)), s.until-s.read)])
	s.read += int64(n)
	return n, s.note(err)
}

func (s *source) note(err error) error {
	if err != nil && err != io.EOF {
		s.err = err
	}
	return err
}

// sentence returns what is read as a sentence begins with it.
func (s *source) sentence() string {
	_, noun, _ := strings.Cut(s.what, " ")
	return "The " + noun
}

// explain returns why reading ended: the reader's error if it had
// one, and otherwise the refusal of a text that is not an inventory.
func (s *source) explain(format string, args ...any) error {
	if limit, ok := errors.AsType[*http.MaxBytesError](s.err); ok {
		return serval.Refuse(serval.TooLarge, "%s has more than the %d bytes that are taken.", s.sentence(), limit.Limit)
	}
	switch {
	case errors.Is(s.err, errUntil):
		return s.tooLarge()
	case s.err != nil:
		return fmt.Errorf("reading %s: %w", s.what, s.err)
	}
	return serval.Refuse(serval.Invalid, "Not "+s.what+": "+format+".", args...)
}

func (s *source) tooLarge() error {
	return serval.Refuse(serval.TooLarge, "%s is too large: %d bytes are taken, %d for one role, and %d for anything else of it.",
		s.sentence(), s.most, s.mostRole, MaxEntryBytes)
}

// isWritable reports whether t has a year that RFC 3339 can write in UTC.
func isWritable(t time.Time) bool {
	year := t.UTC().Year()
	return 0 <= year && year <= 9999
}

// clip cuts text for a message.
func clip(text string) string {
	if len(text) > 200 {
		return strings.ToValidUTF8(text[:200], "") + "…"
	}
	return text
}
