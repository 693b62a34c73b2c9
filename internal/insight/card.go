package insight

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Card is what a role can do, for somebody who has to decide about it.
type Card struct {
	Summary  string   // one sentence
	Facts    []string // the ten that matter most, the gravest first
	Marks    []Mark
	Services []Service // those of which anything is allowed, by prefix

	// AtLeast is why the role may be able to do more than the card says; empty
	// where every document was looked at.
	AtLeast []string
	// AtMost is why it may be able to do less: what limits it that could not be
	// counted. It is empty where nothing is known that does.
	AtMost string
	// Unlisted are actions that statements allow and AWS's list does not have:
	// misspelt, of a service that is gone, or newer than the list.
	Unlisted []string

	ReferenceDate string // of AWS's list of actions
}

// A Service is what is allowed of a service.
type Service struct {
	Prefix string
	Name   string
	Levels []Reach // those of which anything is allowed
}

// A Reach is how many actions of a level are allowed.
type Reach struct {
	Level      Level
	Actions    int // that may be allowed, somewhere
	Everywhere int // that are allowed on every resource, always
	Of         int // that there are
}

// Card returns the powers as a card.
func (p *Powers) Card() Card {
	p.weigh()
	c := Card{Marks: p.Marks(), Services: p.services(), AtLeast: slices.Clone(p.unread), ReferenceDate: p.ref.Date}
	for i := range p.own {
		if p.own[i].allow && !p.own[i].others {
			for _, a := range p.own[i].unknown[:min(len(p.own[i].unknown), max(0, maxUnlisted-len(c.Unlisted)))] {
				c.Unlisted = append(c.Unlisted, clip(a, 128))
			}
		}
	}
	if p.steps < 0 {
		c.AtMost = "Its policies are too many to be looked at in full; what could not be ruled out is counted."
	}
	if p.unbound != "" {
		c.AtMost = "A permissions boundary, " + clip(policyName(p.boundary), 128) + ", limits it further; " + p.unbound + "."
	}
	changed, read := apart(c.Services)
	c.Facts = p.facts(&c, changed, read)
	c.Summary = p.summary(&c, changed, read)
	return c
}

func (p *Powers) services() []Service {
	services := []Service{}
	some, broad := board{p.some}, board{p.broad}
	for i := range p.ref.services {
		v := &p.ref.services[i]
		if some.isEmpty(v.from, v.to) {
			continue
		}
		var levels []Reach
		for l, level := range Levels {
			if v.levels[l] == 0 {
				continue
			}
			if n := some.count(p.ref.byLevel[l], v.from, v.to); n > 0 {
				levels = append(levels, Reach{Level: level, Actions: n, Everywhere: broad.count(p.ref.byLevel[l], v.from, v.to), Of: v.levels[l]})
			}
		}
		if len(levels) > 0 {
			services = append(services, Service{Prefix: v.prefix, Name: shortName(v.name), Levels: levels})
		}
	}
	return services
}

// shortName is a service's name without whose it is.
func shortName(name string) string {
	name = strings.TrimPrefix(strings.TrimPrefix(name, "Amazon "), "AWS ")
	if _, short, ok := strings.Cut(name, " ("); ok && strings.HasSuffix(short, ")") {
		return strings.TrimSuffix(short, ")")
	}
	return name
}

// changes reports whether the service can be changed, and not only looked at.
func (s Service) changes() bool {
	return slices.ContainsFunc(s.Levels, func(r Reach) bool { return r.Level != List && r.Level != Read })
}

// everywhere reports whether something of the service can be changed on every
// resource.
func (s Service) everywhere() bool {
	return slices.ContainsFunc(s.Levels, func(r Reach) bool { return r.Everywhere > 0 && r.Level != List && r.Level != Read })
}

// apart returns the services that can be changed, and those that can only be
// looked at, each by how much of them is allowed.
func apart(services []Service) (changed, read []*Service) {
	type weighed struct {
		*Service
		weight int
	}
	list := make([]weighed, len(services))
	for i := range services {
		list[i].Service = &services[i]
		for _, r := range services[i].Levels {
			list[i].weight += r.Actions + r.Everywhere
		}
	}
	slices.SortStableFunc(list, func(a, b weighed) int { return cmp.Compare(b.weight, a.weight) })
	for _, s := range list {
		if s.changes() {
			changed = append(changed, s.Service)
		} else {
			read = append(read, s.Service)
		}
	}
	return changed, read
}

// has returns the marks of a kind.
func (c *Card) has(k Kind) (marks []Mark) {
	for _, m := range c.Marks {
		if m.Kind == k {
			marks = append(marks, m)
		}
	}
	return marks
}

// Is reports whether the card has a mark of the kind.
func (c *Card) Is(k Kind) bool { return len(c.has(k)) > 0 }

// AdministratorGrade reports whether whoever holds the role is an administrator
// or can become one.
func (c *Card) AdministratorGrade() bool { return c.Is(Administrator) || c.Is(Escalation) }

// maxUnlisted is how many actions that AWS's list does not have are named.
const maxUnlisted = 100

// maxFacts is how many facts a card has at most.
const maxFacts = 10

func (p *Powers) facts(c *Card, changed, read []*Service) []string {
	facts := []string{}
	fact := func(format string, args ...any) { facts = append(facts, fmt.Sprintf(format, args...)) }
	under := func(m Mark) string {
		if m.Conditional {
			return ", under conditions"
		}
		return ""
	}
	for _, m := range c.has(Administrator) {
		fact("It can %s%s (%s).", m.Title, under(m), m.Statement)
	}
	if marks := c.has(Escalation); len(marks) > 0 {
		for _, m := range marks[:min(len(marks), 3)] {
			fact("It can gain more rights: %s, by %s%s (%s).", m.Title, strings.Join(m.Actions, " and "), under(m), m.Statement)
		}
		if more := len(marks) - 3; more > 0 {
			fact("There %s to gain more rights.", count(more, "is %d more way", "are %d more ways"))
		}
	}
	for _, k := range []Kind{Credentials, Exposure, Data} {
		marks := c.has(k)
		if len(marks) == 0 || c.Is(Administrator) {
			continue
		}
		m := marks[0]
		actions := 0
		for _, one := range marks {
			actions += len(one.Actions) + one.More
		}
		fact("It can %s, %s: %s%s (%s).", m.Title, where(m), some(m.Actions, 4, actions), under(m), m.Statement)
	}
	if n := len(changed); n > 0 {
		wide := 0
		for _, s := range changed {
			if s.everywhere() {
				wide++
			}
		}
		on := fmt.Sprintf("%d of them on every resource", wide)
		switch wide {
		case n:
			on = "on every resource"
		case 0:
			on = "on named resources or under conditions only"
		}
		fact("It can change %s, %s: %s.", count(n, "%d service", "%d services"), on, names(changed, 6))
	}
	switch n := len(read); {
	case n > 0 && len(changed) == 0:
		fact("It changes nothing; it can read or list %s: %s.", count(n, "%d service", "%d services"), names(read, 6))
	case n > 0:
		fact("It can read or list %s more: %s.", count(n, "%d service", "%d services"), names(read, 6))
	case len(c.Services) == 0:
		fact("No statement that could be looked at allows anything that AWS's list has.")
	}
	if wide := p.wildcards(); len(wide) > 0 {
		fact("By a wildcard it gets what AWS adds later, too: %s.", some(wide, 5))
	}
	for i := range p.own {
		if s := &p.own[i]; s.allow && s.others && len(facts) < maxFacts {
			fact("%s allows everything but %s.", s.Statement, some(s.actions, 4))
		}
	}
	if n, first := p.denies(); n > 0 {
		fact("%s something back (the first: %s).", count(n, "%d Deny statement takes", "%d Deny statements take"), first)
	}
	if len(c.Unlisted) > 0 {
		fact("AWS's list of %s does not have %s, which is allowed.", p.ref.Date, some(c.Unlisted, 3))
	}
	if p.cut > 0 {
		fact("Its permissions boundary, %s, takes %s back.", clip(policyName(p.boundary), 128), count(p.cut, "%d action", "%d actions"))
	}
	if c.AtMost != "" {
		facts = slices.Insert(facts, min(len(facts), maxFacts-1), c.AtMost)
	}
	return facts[:min(len(facts), maxFacts)]
}

// where says on what a mark's actions are allowed.
func where(m Mark) string {
	if m.Everywhere || len(m.Resources) == 0 || slices.Contains(m.Resources, "*") {
		return "on every resource"
	}
	return "on " + some(m.Resources, 2)
}

// wildcards returns what is allowed by patterns of whole services.
func (p *Powers) wildcards() (wide []string) {
	seen := map[string]bool{}
	for i := range p.own {
		s := &p.own[i]
		if !s.allow || s.others {
			continue
		}
		for _, a := range s.actions {
			if (a == "*" || strings.HasSuffix(a, ":*")) && !seen[a] {
				seen[a] = true
				wide = append(wide, a)
			}
		}
	}
	return wide
}

func (p *Powers) denies() (n int, first Statement) {
	for i := range p.own {
		if !p.own[i].allow {
			if n++; n == 1 {
				first = p.own[i].Statement
			}
		}
	}
	return n, first
}

// summary is the card in one sentence.
func (p *Powers) summary(c *Card, changed, read []*Service) string {
	var can []string
	switch {
	case c.Is(Administrator):
		can = append(can, c.has(Administrator)[0].Title)
	case len(changed) > 0 && len(read) > 3*len(changed):
		can = append(can, "read "+names(read, 3), "change "+names(changed, 2))
	case len(changed) > 0 && len(read) > 0:
		can = append(can, "change "+names(changed, 3), "read "+names(read, 2))
	case len(changed) > 0:
		can = append(can, "change "+names(changed, 4))
	case len(read) > 0:
		can = append(can, "read "+names(read, 4)+" and change nothing")
	}
	if c.Is(Escalation) {
		can = append(can, "gain more rights than that ("+count(len(c.has(Escalation)), "%d way", "%d ways")+")")
	} else if !c.Is(Administrator) && c.Is(Credentials) {
		can = append(can, "get credentials")
	}
	at := ""
	if len(c.AtLeast) > 0 {
		at = "at least "
	}
	if len(can) == 0 {
		if at != "" {
			return "What it can do is not known: its policies could not all be looked at."
		}
		return "It can do nothing: no policy of its own allows anything."
	}
	sentence := "It can " + at + strings.Join(can, ", and ")
	if p.boundary != "" && !p.bounded {
		sentence += ", at most: a permissions boundary limits it further"
	}
	return sentence + "."
}

// names lists the first services by name, and how many more there are.
func names(services []*Service, most int) string {
	var list []string
	for _, s := range services {
		list = append(list, s.Name)
	}
	return some(list, most)
}

// some lists the first texts, and how many more there are; of is how many there
// are in all, where that is more than the list has.
func some(list []string, most int, of ...int) string {
	total := len(list)
	if len(of) > 0 {
		total = of[0]
	}
	shown := make([]string, 0, most)
	for _, text := range list[:min(most, len(list))] {
		shown = append(shown, clip(text, 120))
	}
	if more := total - len(shown); more > 0 {
		return strings.Join(shown, ", ") + fmt.Sprintf(" and %d more", more)
	}
	if n := len(shown); n > 1 {
		return strings.Join(shown[:n-1], ", ") + " and " + shown[n-1]
	}
	return strings.Join(shown, "")
}

// count says how many, of one or several.
func count(n int, one, several string) string {
	if n == 1 {
		return fmt.Sprintf(one, n)
	}
	return fmt.Sprintf(several, n)
}
