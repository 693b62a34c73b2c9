package insight

import (
	"bytes"
	"compress/gzip"
	_ "embed" // the reference
	"fmt"
	"io"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// The service authorization reference, made by compact.go from a package under
// the licence beside it (`make iam-data`). Its form, line by line:
//
//	SOURCE VERSION DATE LICENCE
//	PREFIX<tab>NAME          a service; what follows is its
//	<tab>ARN                 a resource type: * any text, + any without a slash
//	<space>LNAME TYPE,TYPE   an action: level, name, and places of its types;
//	                         without types it is allowed on * alone
//
//go:embed aws/reference.gz
var packed []byte

// A Level is how AWS sorts actions.
type Level string

// The access levels, the gravest last.
const (
	List        Level = "list"
	Read        Level = "read"
	Write       Level = "write"
	Tagging     Level = "tagging"
	Permissions Level = "permissions"
)

// Levels are all of them, in their order.
var Levels = [...]Level{List, Read, Write, Tagging, Permissions}

const levelLetters = "LRWTP"

// A Reference is the services and actions of AWS. It does not change, but for
// what it remembers to be quicker; many goroutines may use it at once.
type Reference struct {
	Source, Version, Date string

	services []service
	byPrefix map[string]int
	actions  []action
	byLevel  [len(Levels)]set
	allKinds []*kind
	kinds    map[string][]*kind // by the service that their ARNs are of
	scratch  sync.Pool
	dangers  dangers
	needs    [][]int // the places of what each path needs; -1 for what is not known
	crown    []int

	mu           sync.Mutex
	patterns     map[string]set
	patternBytes int
	readings     map[reading][]statement
	bytes        int // of the documents read
}

type service struct {
	prefix, name string
	from, to     int // its actions
	types        []kind
	onType       []set // the actions of each type
	levels       [len(Levels)]int
	mask         uint8 // the levels it has, as bits
}

type action struct {
	name    string
	lower   string
	level   uint8
	service int
	types   []uint8
}

// String returns the action as policies write it.
func (r *Reference) actionName(i int) string {
	return r.services[r.actions[i].service].prefix + ":" + r.actions[i].name
}

// AWS returns the embedded reference. It is unpacked at the first call.
func AWS() *Reference { return embedded() }

var embedded = sync.OnceValue(func() *Reference {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		panic("insight: unpacking the reference: " + err.Error())
	}
	text, err := io.ReadAll(z)
	if err != nil {
		panic("insight: unpacking the reference: " + err.Error())
	}
	r, err := parseReference(string(text))
	if err != nil {
		panic("insight: reading the reference: " + err.Error()) // a test reads it
	}
	return r
})

func parseReference(text string) (*Reference, error) {
	head, rest, _ := strings.Cut(text, "\n")
	about := strings.Fields(head)
	if len(about) != 4 {
		return nil, fmt.Errorf("its first line is %q", clip(head, 100))
	}
	r := &Reference{Source: about[0], Version: about[1], Date: about[2], byPrefix: map[string]int{}, kinds: map[string][]*kind{}, patterns: map[string]set{}, readings: map[reading][]statement{}}
	number := 1
	for line := range strings.Lines(rest) {
		number++
		line = strings.TrimSuffix(line, "\n")
		last := len(r.services) - 1
		if line == "" || last < 0 && (line[0] == '\t' || line[0] == ' ') {
			return nil, fmt.Errorf("line %d is not understood", number)
		}
		switch line[0] {
		case '\t':
			types := &r.services[last].types
			*types = append(*types, newKind(line[1:], last, len(*types)))
		case ' ':
			a, err := parseAction(line[1:], len(r.services[last].types))
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", number, err)
			}
			a.service = last
			if n := len(r.actions); n > r.services[last].from && r.actions[n-1].lower >= a.lower {
				return nil, fmt.Errorf("line %d: the action %q is not in its order", number, clip(a.name, 100))
			}
			r.actions = append(r.actions, a)
			r.services[last].to = len(r.actions)
			r.services[last].levels[a.level]++
			r.services[last].mask |= 1 << a.level
		default:
			prefix, name, _ := strings.Cut(line, "\t")
			r.byPrefix[prefix] = len(r.services)
			r.services = append(r.services, service{prefix: prefix, name: name, from: len(r.actions), to: len(r.actions)})
		}
	}
	for l := range r.byLevel {
		r.byLevel[l] = r.choose(0, len(r.actions), func(a *action) bool { return int(a.level) == l })
	}
	for i := range r.services {
		s := &r.services[i]
		for t := range s.types {
			s.onType = append(s.onType, r.choose(s.from, s.to, func(a *action) bool { return slices.Contains(a.types, uint8(t)) }))
			k := &s.types[t]
			r.kinds[k.resource.service] = append(r.kinds[k.resource.service], k)
			r.allKinds = append(r.allKinds, k)
		}
	}
	r.dangers = r.findDangers()
	for _, at := range paths {
		r.needs = append(r.needs, r.places(at.needs))
	}
	for _, name := range crown {
		i, known := r.find(name)
		if !known {
			return nil, fmt.Errorf("it has no action %s", name)
		}
		r.crown = append(r.crown, i)
	}
	r.scratch.New = func() any { return &board{words: make([]uint64, r.size())} }
	return r, nil
}

func parseAction(text string, types int) (a action, err error) {
	name, on, _ := strings.Cut(text, " ")
	level := -1
	if name != "" {
		level = strings.IndexByte(levelLetters, name[0])
	}
	if level < 0 || len(name) < 2 {
		return a, fmt.Errorf("the action %q has no level", clip(name, 100))
	}
	a = action{name: name[1:], lower: strings.ToLower(name[1:]), level: uint8(level)}
	if on == "" {
		return a, nil
	}
	for place := range strings.SplitSeq(on, ",") {
		i, err := strconv.Atoi(place)
		if err != nil || i < 0 || i >= types || i > 255 {
			return a, fmt.Errorf("the action %q has a type %q", a.name, place)
		}
		a.types = append(a.types, uint8(i))
	}
	return a, nil
}

// A set is actions that lie near each other: bits from the word lo on.
type set struct {
	lo    int
	words []uint64
}

// size returns how many words all actions take.
func (r *Reference) size() int { return (len(r.actions) + 63) / 64 }

// choose returns those actions of a range that keep says.
func (r *Reference) choose(from, to int, keep func(*action) bool) set {
	s := set{lo: from / 64, words: make([]uint64, (to+63)/64-from/64)}
	for i := from; i < to; i++ {
		if keep(&r.actions[i]) {
			s.words[i/64-s.lo] |= 1 << (i % 64)
		}
	}
	return s
}

func (s set) has(i int) bool {
	w := i/64 - s.lo
	return w >= 0 && w < len(s.words) && s.words[w]&(1<<(i%64)) != 0
}

// size is about how many bytes the set takes, where it is kept.
func (s set) size() int { return 64 + 8*len(s.words) }

func (s set) isEmpty() bool {
	return !slices.ContainsFunc(s.words, func(w uint64) bool { return w != 0 })
}

// held is how many actions a pattern has to be held against.
func (r *Reference) held(pattern string) int {
	prefix, name, _ := strings.Cut(pattern, ":")
	i, known := r.byPrefix[prefix]
	switch {
	case pattern == "*", !strings.ContainsAny(pattern, "*?"), known && name == "*":
		return 1
	case known:
		return r.services[i].to - r.services[i].from
	case name == "*":
		return len(r.services)
	default:
		return len(r.actions)
	}
}

// widest is a pattern of all that the pattern could match at most, by its service.
func widest(pattern string) string {
	if prefix, _, ok := strings.Cut(pattern, ":"); ok && !strings.ContainsAny(prefix, "*?") {
		return prefix + ":*"
	}
	return "*"
}

// maxPatterns bounds the patterns that are remembered, in bytes.
const maxPatterns = 16 << 20

// match returns the actions that an action's pattern in lower case matches. What
// the reference does not know is in none.
func (r *Reference) match(pattern string) set {
	r.mu.Lock()
	s, known := r.patterns[pattern]
	r.mu.Unlock()
	if known {
		return s
	}
	s = r.expand(pattern)
	r.mu.Lock()
	defer r.mu.Unlock()
	size := len(pattern) + s.size()
	if r.patternBytes += size; r.patternBytes > maxPatterns {
		r.patterns, r.patternBytes = map[string]set{}, size // begun anew: what is used comes back
	}
	r.patterns[strings.Clone(pattern)] = s
	return s
}

func (r *Reference) expand(pattern string) set {
	if pattern == "*" {
		return r.choose(0, len(r.actions), func(*action) bool { return true })
	}
	prefix, name, ok := strings.Cut(pattern, ":")
	if !ok {
		return set{}
	}
	in := func(s *service) set {
		if name == "*" {
			return r.choose(s.from, s.to, func(*action) bool { return true })
		}
		if !strings.ContainsAny(name, "*?") {
			i, known := r.named(s, name)
			if !known {
				return set{}
			}
			return r.choose(i, i+1, func(*action) bool { return true })
		}
		return r.choose(s.from, s.to, func(a *action) bool { return covers(name, a.lower) })
	}
	if i, known := r.byPrefix[prefix]; known {
		return in(&r.services[i])
	}
	if !strings.ContainsAny(prefix, "*?") {
		return set{}
	}
	all := set{words: make([]uint64, r.size())}
	for i := range r.services {
		if s := &r.services[i]; covers(prefix, s.prefix) {
			one := in(s)
			for w, word := range one.words {
				all.words[one.lo+w] |= word
			}
		}
	}
	return all
}

// find returns the place of the action that is called so, in any case.
func (r *Reference) find(name string) (int, bool) {
	prefix, name, _ := strings.Cut(strings.ToLower(name), ":")
	s, known := r.byPrefix[prefix]
	if !known {
		return 0, false
	}
	return r.named(&r.services[s], name)
}

// named returns the place of a service's action by its name in lower case, by
// which the reference has them in order.
func (r *Reference) named(s *service, name string) (int, bool) {
	i, known := slices.BinarySearchFunc(r.actions[s.from:s.to], name, func(a action, name string) int { return strings.Compare(a.lower, name) })
	return s.from + i, known
}

// kindsOf returns the types that a resource may be of, by the service in its ARN.
func (r *Reference) kindsOf(x *resource) (some, others []*kind) {
	if x.service == "" {
		return r.allKinds, nil
	}
	return r.kinds[x.service], r.kinds[""]
}

// places returns where the actions of needs are.
func (r *Reference) places(needs []need) (places []int) {
	for _, n := range needs {
		i, known := r.find(n.action)
		if !known {
			i = -1
		}
		places = append(places, i)
	}
	return places
}

// A board is room for all actions.
type board struct{ words []uint64 }

func (b *board) add(s set) {
	for i, w := range s.words {
		b.words[s.lo+i] |= w
	}
}

func (b *board) remove(s set) {
	for i, w := range s.words {
		b.words[s.lo+i] &^= w
	}
}

func (b *board) clear() { clear(b.words) }

// isEmpty reports whether none of a range of actions is on the board.
func (b *board) isEmpty(from, to int) bool {
	if from == to {
		return true
	}
	first, last := from/64, (to-1)/64
	for w := first; w <= last; w++ {
		word := b.words[w]
		if w == first {
			word &= ^uint64(0) << (from % 64)
		}
		if w == last && to%64 != 0 {
			word &= 1<<(to%64) - 1
		}
		if word != 0 {
			return false
		}
	}
	return true
}

// total returns how many actions are on the board.
func (b *board) total() (n int) {
	for _, word := range b.words {
		n += bits.OnesCount64(word)
	}
	return n
}

// count returns how many actions of a range are on both.
func (b *board) count(level set, from, to int) (n int) {
	if from == to {
		return 0
	}
	first, last := from/64, (to-1)/64
	for w := first; w <= last; w++ {
		word := b.words[w]
		if i := w - level.lo; i < 0 || i >= len(level.words) {
			continue
		} else {
			word &= level.words[i]
		}
		if w == first {
			word &= ^uint64(0) << (from % 64)
		}
		if w == last && to%64 != 0 {
			word &= 1<<(to%64) - 1
		}
		n += bits.OnesCount64(word)
	}
	return n
}
