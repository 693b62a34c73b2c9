package insight

import (
	"slices"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// An Index is a role's powers in a few bytes: letters of its marks, and of each
// service the letters of the levels of which anything is allowed. It is empty
// where the role was not looked at.
//
//	1:aecxd *LRWTP iam=LR account=
//
// A star says that all services have the levels behind it, as far as they exist,
// but those that are named.
type Index string

const indexVersion = "1:"

// Letters of an index that are no kind's.
const (
	letterIncomplete = "i" // not everything was read
	letterBounded    = "b" // a boundary whose document is not known limits it
)

// letter is the kind's in an index.
func (k Kind) letter() string {
	switch k {
	case Administrator:
		return "a"
	case Escalation:
		return "e"
	case Credentials:
		return "c"
	case Exposure:
		return "x"
	}
	return "d"
}

// Index returns the powers as an index.
func (p *Powers) Index() Index {
	p.weigh()
	var b strings.Builder
	b.Grow(256)
	b.WriteString(indexVersion)
	if _, is := p.administrator(); is {
		b.WriteString(Administrator.letter())
	} else if len(p.escalations(1)) > 0 {
		b.WriteString(Escalation.letter())
	}
	for _, kind := range []Kind{Credentials, Exposure, Data} {
		if actions, _ := p.ref.dangers.of(kind); p.any(actions) {
			b.WriteString(kind.letter())
		}
	}
	if len(p.unread) > 0 {
		b.WriteString(letterIncomplete)
	}
	if p.boundary != "" && !p.bounded {
		b.WriteString(letterBounded)
	}
	some := board{p.some}
	masks := make([]uint8, len(p.ref.services))
	full := 0
	for i := range p.ref.services {
		v := &p.ref.services[i]
		if some.isEmpty(v.from, v.to) {
			continue
		}
		for l := range Levels {
			if v.levels[l] > 0 && some.count(p.ref.byLevel[l], v.from, v.to) > 0 {
				masks[i] |= 1 << l
			}
		}
		if masks[i] == v.mask {
			full++
		}
	}
	wide := full > len(masks)/2
	if wide {
		b.WriteString(" *" + levelLetters)
	}
	for i, mask := range masks {
		if v := &p.ref.services[i]; wide && mask != v.mask || !wide && mask != 0 {
			b.WriteByte(' ')
			b.WriteString(v.prefix)
			b.WriteByte('=')
			for l := range Levels {
				if mask&(1<<l) != 0 {
					b.WriteByte(levelLetters[l])
				}
			}
		}
	}
	return Index(b.String())
}

// flags returns the letters in front.
func (x Index) flags() string {
	rest, ok := strings.CutPrefix(string(x), indexVersion)
	if !ok {
		return ""
	}
	flags, _, _ := strings.Cut(rest, " ")
	return flags
}

// IsKnown reports whether the role was looked at, by the rules of today.
func (x Index) IsKnown() bool { return strings.HasPrefix(string(x), indexVersion) }

// Is reports whether the role has a mark of the kind.
func (x Index) Is(k Kind) bool { return strings.Contains(x.flags(), k.letter()) }

// Kinds returns the kinds of the role's marks, the gravest first.
func (x Index) Kinds() []Kind {
	kinds := []Kind{}
	for _, k := range Kinds {
		if x.Is(k) {
			kinds = append(kinds, k)
		}
	}
	return kinds
}

// AtLeast reports whether the role may be able to do more: not all of it was
// read.
func (x Index) AtLeast() bool { return strings.Contains(x.flags(), letterIncomplete) }

// AtMost reports whether a permissions boundary limits the role whose document is
// not known: what the index says is without it.
func (x Index) AtMost() bool { return strings.Contains(x.flags(), letterBounded) }

// AdministratorGrade reports whether whoever holds the role is an administrator
// or can become one.
func (x Index) AdministratorGrade() bool { return x.Is(Administrator) || x.Is(Escalation) }

// levels returns the letters of the levels of a service that the role has.
func (x Index) levels(r *Reference, prefix string) string {
	if _, after, ok := strings.Cut(string(x), " "+prefix+"="); ok {
		letters, _, _ := strings.Cut(after, " ")
		return letters
	}
	if i, known := r.byPrefix[prefix]; known && strings.Contains(string(x), " *") {
		var letters []byte
		for l := range Levels {
			if r.services[i].mask&(1<<l) != 0 {
				letters = append(letters, levelLetters[l])
			}
		}
		return string(letters)
	}
	return ""
}

// An Ability is what roles are searched for: a kind of mark, or a level of a
// service.
type Ability struct {
	kind    Kind
	service string
	level   Level
}

// ParseAbility reads the name of a kind, such as privilege_escalation, or a
// service and a level, such as s3:write. The error is a refusal of kind Invalid.
func (r *Reference) ParseAbility(text string) (Ability, error) {
	text = strings.ToLower(strings.TrimSpace(text))
	if k := Kind(text); slices.Contains(Kinds, k) {
		return Ability{kind: k}, nil
	}
	prefix, level, ok := strings.Cut(text, ":")
	if !ok || !slices.Contains(Levels[:], Level(level)) {
		return Ability{}, serval.Refuse(serval.Invalid, "Ability %q: a service and a level of %s, such as s3:write, or one of %s.",
			clip(text, 60), some(words(Levels[:]), 5), some(words(Kinds), 5))
	}
	if _, known := r.byPrefix[prefix]; !known {
		return Ability{}, serval.Refuse(serval.Invalid, "Ability %q: AWS has no service %q. It is the word before the colon in its actions: s3, dynamodb, iam.", clip(text, 60), clip(prefix, 40))
	}
	return Ability{service: prefix, level: Level(level)}, nil
}

func words[T ~string](list []T) (texts []string) {
	for _, t := range list {
		texts = append(texts, string(t))
	}
	return texts
}

// Has reports whether a role with the index has the ability. A role that was not
// looked at has none.
func (r *Reference) Has(x Index, a Ability) bool {
	if a.kind != "" {
		// An administrator needs no way to become one, and has it.
		return x.Is(a.kind) || a.kind == Escalation && x.Is(Administrator)
	}
	letter := levelLetters[slices.Index(Levels[:], a.level)]
	return strings.IndexByte(x.levels(r, a.service), letter) >= 0
}
