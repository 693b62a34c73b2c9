package insight

import (
	"cmp"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A Change is what differs between two states of a role, by meaning: documents
// that say the same in another order or form are the same.
type Change struct {
	Gained Actions // that it could not do before, or not everywhere
	Lost   Actions

	GainedMarks []Mark
	LostMarks   []Mark
	// Escalated is set where whoever holds the role is an administrator, or can
	// become one, and was and could not before.
	Escalated bool

	Policies   []PolicyChange
	Statements []StatementChange // of permission documents
	Trust      []StatementChange
	Facts      []FactChange // tags, boundary, maximum, description and path

	// AtLeast is why there may be more: what could not be looked at, before or
	// after.
	AtLeast []string
	// Sentences are the change in words, the gravest first.
	Sentences []string
}

// Actions are actions of a change. Names are of the first maxChanged, by service.
type Actions struct {
	Count int
	Wider int // of the Count: allowed on more than before, or on less
	Names []string
	// Services are those of the actions, with how many of each.
	Services []ServiceActions
}

// A ServiceActions is how many actions of a service are in a change, by level.
type ServiceActions struct {
	Prefix, Name string
	Levels       []Reach // Actions only
}

// A PolicyChange is a policy that came, went or has another version.
type PolicyChange struct {
	How    string // added, removed or changed
	Policy string
	Detail string // versions
}

// A StatementChange is a statement that came or went. Text is its JSON.
type StatementChange struct {
	How    string // added or removed
	Policy string // of a permission document
	Text   string
}

// A FactChange is something else of the role that changed.
type FactChange struct {
	What   string // tag KEY, permissions boundary, maximum session, description, path
	Before string
	After  string
}

// How something changed.
const (
	Added   = "added"
	Removed = "removed"
	Changed = "changed"
)

// maxChanged bounds what a change lists of each: actions by name, statements.
const maxChanged = 200

// maxText is how much of a statement a change has, in characters.
const maxText = 16_384

// IsEmpty reports whether nothing changed that anybody must be told of.
func (c *Change) IsEmpty() bool {
	return c.Gained.Count+c.Lost.Count+len(c.GainedMarks)+len(c.LostMarks)+len(c.Policies)+len(c.Statements)+len(c.Trust)+len(c.Facts) == 0
}

// Compare returns what changed from one state of a role to another, with their
// documents. Where a permissions boundary is not known of one of them it is counted
// in neither: that somebody could not read it gives a role no powers, and that
// somebody reads it now takes none.
func (r *Reference) Compare(before, after serval.Role) Change {
	was, is := r.Look(before), r.Look(after)
	if was.unbound != "" || is.unbound != "" {
		was, is = was.unbounded(), is.unbounded()
	}
	was.weigh()
	is.weigh()
	c := Change{Gained: r.more(is, was), Lost: r.more(was, is)}
	old, now := was.Marks(), is.Marks()
	c.GainedMarks, c.LostMarks = without(now, old), without(old, now)
	grade := func(marks []Mark) bool {
		return slices.ContainsFunc(marks, func(m Mark) bool { return m.Kind == Administrator || m.Kind == Escalation })
	}
	c.Escalated = grade(now) && !grade(old)
	for _, m := range []struct {
		when   string
		unread []string
	}{{"Before: ", was.unread}, {"Now: ", is.unread}} {
		for _, why := range m.unread {
			c.AtLeast = append(c.AtLeast, m.when+why)
		}
	}
	for _, m := range []struct{ when, unbound string }{{"Before: ", was.unbound}, {"Now: ", is.unbound}} {
		if m.unbound != "" {
			c.AtLeast = append(c.AtLeast, m.when+"A permissions boundary limits it; "+m.unbound+". What it takes is not counted here.")
		}
	}
	room := maxCanonical
	c.Trust = statements("", before.TrustPolicy, after.TrustPolicy, &room)
	c.policies(before, after, &room)
	c.facts(before, after)
	c.say()
	return c
}

// more returns what a has and b has not, or not everywhere.
func (r *Reference) more(a, b *Powers) (more Actions) {
	byService := map[int]*[len(Levels)]int{}
	for w := range a.some {
		fresh := a.some[w] &^ b.some[w]
		wider := a.broad[w] &^ b.broad[w] &^ fresh
		more.Wider += bits.OnesCount64(wider)
		for word := fresh | wider; word != 0; word &= word - 1 {
			i := w*64 + bits.TrailingZeros64(word)
			more.Count++
			if len(more.Names) < maxChanged {
				more.Names = append(more.Names, r.actionName(i))
			}
			s := r.actions[i].service
			if byService[s] == nil {
				byService[s] = new([len(Levels)]int)
			}
			byService[s][r.actions[i].level]++
		}
	}
	for _, s := range slices.Sorted(maps.Keys(byService)) {
		one := ServiceActions{Prefix: r.services[s].prefix, Name: shortName(r.services[s].name)}
		for l, n := range byService[s] {
			if n > 0 {
				one.Levels = append(one.Levels, Reach{Level: Levels[l], Actions: n, Of: r.services[s].levels[l]})
			}
		}
		more.Services = append(more.Services, one)
	}
	return more
}

// without returns the marks that others do not have: of another kind or path, or
// with more of what they name.
func without(marks, others []Mark) (left []Mark) {
	for _, m := range marks {
		rest := m.Actions
		had := false
		for _, o := range others {
			if o.Kind != m.Kind || o.Path != m.Path || m.Everywhere && !o.Everywhere {
				continue
			}
			had = true
			rest = slices.DeleteFunc(slices.Clone(rest), func(a string) bool { return slices.Contains(o.Actions, a) })
		}
		if !had || len(rest) > 0 && m.Kind != Administrator && m.More == 0 {
			left = append(left, m)
		}
	}
	return left
}

// knowsBoundary reports whether the role has a permissions boundary whose policy
// was read.
func knowsBoundary(r serval.Role) bool {
	return r.PermissionsBoundary != nil && r.BoundaryPolicy != nil && r.BoundaryPolicy.Status == serval.ListRead
}

// policies notes which policies and which of their statements changed.
func (c *Change) policies(before, after serval.Role, room *int) {
	type policy struct {
		name, version string
		doc           serval.Document
	}
	of := func(r serval.Role) map[string]policy {
		list := map[string]policy{}
		for _, p := range r.InlinePolicies.Policies {
			list["inline "+p.Name] = policy{"inline policy " + p.Name, "", p.Document}
		}
		if knowsBoundary(r) && (knowsBoundary(before) || before.PermissionsBoundary == nil) && (knowsBoundary(after) || after.PermissionsBoundary == nil) {
			list["boundary "+*r.PermissionsBoundary] = policy{"permissions boundary " + policyName(*r.PermissionsBoundary), r.BoundaryPolicy.Version, r.BoundaryPolicy.Document}
		}
		for _, p := range r.ManagedPolicies.Policies {
			list["managed "+p.ARN] = policy{"policy " + cmp.Or(p.Name, policyName(p.ARN)), p.Version, p.Document}
		}
		return list
	}
	old, now := of(before), of(after)
	keys := maps.Clone(old)
	maps.Copy(keys, now)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		was, had := old[key]
		is, has := now[key]
		name := clip(keys[key].name, 160)
		changed := statements(name, was.doc, is.doc, room)
		c.Statements = append(c.Statements, changed...)
		switch {
		case !had:
			c.Policies = append(c.Policies, PolicyChange{Added, name, clip(is.version, 128)})
		case !has:
			c.Policies = append(c.Policies, PolicyChange{Removed, name, clip(was.version, 128)})
		case was.version != is.version:
			c.Policies = append(c.Policies, PolicyChange{Changed, name, "from " + clip(cmp.Or(was.version, "?"), 128) + " to " + clip(cmp.Or(is.version, "?"), 128)})
		case len(changed) > 0:
			c.Policies = append(c.Policies, PolicyChange{Changed, name, ""})
		}
	}
	c.Statements = c.Statements[:min(len(c.Statements), maxChanged)]
}

// maxCanonical is how many bytes of documents one change compares by statements;
// of what is beyond it says that it differs. IAM's bounds for a role's own policies
// come to a fifth of it.
const maxCanonical = 1 << 20

// statements returns the statements that two documents do not share.
func statements(policy string, before, after serval.Document, room *int) (changes []StatementChange) {
	if before == after {
		return nil
	}
	read := canonical
	if *room -= len(before) + len(after); *room < 0 {
		read = unread
	}
	old, now := read(before), read(after)
	left := map[string]int{} // of the old, by meaning
	for _, one := range old {
		left[one.meaning]++
	}
	for _, one := range now {
		if left[one.meaning] > 0 {
			left[one.meaning]--
		} else if len(changes) < maxChanged {
			changes = append(changes, StatementChange{Added, policy, serval.Cut(one.text, maxText)})
		}
	}
	for _, one := range old {
		if left[one.meaning] > 0 {
			left[one.meaning]--
			changes = append(changes, StatementChange{Removed, policy, serval.Cut(one.text, maxText)})
		}
	}
	// What went comes first, so that a statement that was changed reads from the
	// old to the new.
	slices.SortStableFunc(changes, func(a, b StatementChange) int { return -strings.Compare(a.How, b.How) })
	return changes[:min(len(changes), maxChanged)]
}

// A canon is a statement in one form: as it is shown, and as it is compared.
type canon struct{ text, meaning string }

// unread stands for a document that is too much to be compared by its statements.
func unread(doc serval.Document) []canon {
	if doc == "" {
		return nil
	}
	text := "a document of more than can be looked at, with the digest " + doc.Digest()
	return []canon{{text, text}}
}

// canonical returns the statements of a document, each in one form: names in
// their usual case, lists sorted, a list of one as one, without its Sid. What is
// no policy document is one statement.
func canonical(doc serval.Document) []canon {
	whole := func(text string) []canon { return []canon{{text, text}} }
	if doc == "" {
		return nil
	}
	if len(doc) > maxDocument {
		return unread(doc)
	}
	var d struct {
		Version   string
		ID        string `json:"Id"`
		Statement list[jsontext.Value]
	}
	if err := json.Unmarshal([]byte(doc), &d, json.MatchCaseInsensitiveNames(true), json.RejectUnknownMembers(true)); err != nil {
		return whole(string(doc))
	}
	list := make([]canon, 0, len(d.Statement))
	for _, raw := range d.Statement {
		var s map[string]any
		if err := json.Unmarshal(raw, &s); err != nil {
			return whole(string(doc))
		}
		shown, compared := map[string]any{}, map[string]any{}
		for name, value := range s {
			usual := name
			for _, n := range []string{"Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition", "Sid"} {
				if strings.EqualFold(n, name) {
					usual = n
				}
			}
			if _, twice := shown[usual]; twice {
				return whole(string(doc)) // IAM takes no such document
			}
			if usual != "Sid" {
				shown[usual] = plain(value, false)
				compared[usual] = plain(value, strings.HasSuffix(usual, "Action"))
			}
		}
		text, err1 := json.Marshal(shown, json.Deterministic(true))
		meaning, err2 := json.Marshal(compared, json.Deterministic(true))
		if err1 != nil || err2 != nil {
			return whole(string(doc))
		}
		list = append(list, canon{string(text), string(meaning)})
	}
	return list
}

// plain returns a value with its lists sorted, those of one as that one, and
// actions in lower case.
func plain(value any, action bool) any {
	switch v := value.(type) {
	case string:
		if action {
			return strings.ToLower(v)
		}
	case []any:
		items := make([]any, len(v))
		texts := make([]string, len(v))
		order := make([]int, len(v))
		for i, item := range v {
			items[i], order[i] = plain(item, action), i
			texts[i] = fmt.Sprint(items[i])
		}
		slices.SortFunc(order, func(a, b int) int { return strings.Compare(texts[a], texts[b]) })
		sorted := make([]any, 0, len(v))
		for n, i := range order {
			if n == 0 || texts[i] != texts[order[n-1]] {
				sorted = append(sorted, items[i])
			}
		}
		if len(sorted) == 1 {
			return sorted[0]
		}
		return sorted
	case map[string]any:
		fine := make(map[string]any, len(v))
		for name, item := range v {
			fine[name] = plain(item, false)
		}
		return fine
	}
	return value
}

// facts notes what else changed.
func (c *Change) facts(before, after serval.Role) {
	fact := func(what, was, is string) {
		if was != is {
			c.Facts = append(c.Facts, FactChange{what, clip(was, 300), clip(is, 300)})
		}
	}
	boundary := func(r serval.Role) string {
		if r.PermissionsBoundary == nil {
			return ""
		}
		return *r.PermissionsBoundary
	}
	fact("permissions boundary", boundary(before), boundary(after))
	if boundary(before) != "" && boundary(after) != "" {
		known := map[bool]string{true: "known", false: "not known"}
		fact("document of the permissions boundary", known[knowsBoundary(before)], known[knowsBoundary(after)])
	}
	longest := func(r serval.Role) string {
		if r.MaxSessionSeconds == 0 {
			return ""
		}
		return fmt.Sprintf("%d s", r.MaxSessionSeconds)
	}
	fact("maximum session", longest(before), longest(after))
	keys := maps.Clone(before.Tags)
	if keys == nil {
		keys = map[string]string{}
	}
	maps.Copy(keys, after.Tags)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		was, had := before.Tags[key]
		is, has := after.Tags[key]
		if had && !has {
			is = "(removed)"
		}
		if !had && has {
			was = "(none)"
		}
		fact("tag "+clip(key, 128), was, is)
	}
	fact("description", before.Description, after.Description)
	fact("path", before.Path, after.Path)
}

// say puts the change into words.
func (c *Change) say() {
	sentence := func(format string, args ...any) { c.Sentences = append(c.Sentences, fmt.Sprintf(format, args...)) }
	for _, m := range c.GainedMarks {
		if m.Kind == Administrator {
			sentence("It can now %s (%s).", m.Title, m.Statement)
		}
	}
	tell := func(marks []Mark, now, ways string) {
		var escalations []Mark
		var others []string
		for _, m := range marks {
			switch {
			case m.Kind == Escalation:
				escalations = append(escalations, m)
			case m.Kind != Administrator && !slices.Contains(others, m.Title):
				others = append(others, m.Title)
			}
		}
		if n := len(escalations); n > 0 {
			m := escalations[0]
			sentence("It can %s gain more rights by %s: %s, by %s (%s).", now, count(n, ways, ways+"s"), m.Title, strings.Join(m.Actions, " and "), m.Statement)
		}
		for _, title := range others {
			sentence("It can %s %s where it could %s.", now, title, map[bool]string{true: "not before", false: "before"}[now == "now"])
		}
	}
	tell(c.GainedMarks, "now", "%d way")
	actions := func(verb string, a Actions) {
		if a.Count == 0 {
			return
		}
		var list []string
		grave := func(s ServiceActions) (n int) {
			for _, l := range s.Levels {
				n += l.Actions * (1 + slices.Index(Levels[:], l.Level))
			}
			return n
		}
		for _, s := range slices.SortedStableFunc(slices.Values(a.Services), func(x, y ServiceActions) int { return cmp.Compare(grave(y), grave(x)) }) {
			var levels []string
			for _, l := range s.Levels {
				levels = append(levels, fmt.Sprintf("%d %s", l.Actions, l.Level))
			}
			list = append(list, s.Name+" ("+strings.Join(levels, ", ")+")")
		}
		scope := ""
		if a.Wider > 0 {
			scope = fmt.Sprintf(", %d of which it has elsewhere too", a.Wider)
		}
		sentence("It %s %s%s: %s.", verb, count(a.Count, "%d action", "%d actions"), scope, some(list, 6))
	}
	actions("gains", c.Gained)
	for _, t := range c.Trust {
		sentence("The trust policy %s %s", map[string]string{Added: "gains", Removed: "loses"}[t.How], clip(t.Text, 300))
	}
	for _, f := range c.Facts {
		sentence("The %s was %s and is %s.", f.What, quoted(f.Before), quoted(f.After))
	}
	for _, p := range c.Policies {
		detail := ""
		if p.Detail != "" {
			detail = " (" + p.Detail + ")"
		}
		sentence("The %s was %s%s.", p.Policy, p.How, detail)
	}
	for _, m := range c.LostMarks {
		if m.Kind == Administrator {
			sentence("It can no longer %s.", m.Title)
		}
	}
	tell(c.LostMarks, "no longer", "%d way")
	actions("loses", c.Lost)
	if len(c.Sentences) == 0 && len(c.Statements) > 0 {
		sentence("Its documents are written otherwise; what they allow is the same.")
	}
}

func quoted(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

// Grew reports whether the role can do more than before, or its trust policy has
// a statement that it had not.
func (c *Change) Grew() bool {
	return c.Gained.Count > 0 || len(c.GainedMarks) > 0 || slices.ContainsFunc(c.Trust, func(s StatementChange) bool { return s.How == Added })
}
