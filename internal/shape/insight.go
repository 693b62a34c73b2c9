package shape

import (
	"github.com/serval-bridge/serval-bridge/internal/history"
	"github.com/serval-bridge/serval-bridge/internal/insight"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// Insight returns what a role can do; nil where it is not known.
func Insight(c *insight.Card) *wire.Insight {
	if c == nil {
		return nil
	}
	i := &wire.Insight{
		Summary: c.Summary, Facts: List(c.Facts), Marks: marks(c.Marks), Services: []wire.ServiceReach{},
		AtLeast: List(c.AtLeast), AtMost: c.AtMost, Unlisted: List(c.Unlisted), ReferenceDate: c.ReferenceDate,
	}
	for _, s := range c.Services {
		i.Services = append(i.Services, wire.ServiceReach{Prefix: s.Prefix, Name: s.Name, Levels: reaches(s.Levels)})
	}
	return i
}

func marks(list []insight.Mark) []wire.Mark {
	out := []wire.Mark{}
	for _, m := range list {
		out = append(out, wire.Mark{
			Kind: string(m.Kind), Path: m.Path, Title: m.Title, Reference: m.Reference,
			Statement: wire.Statement{Policy: m.Statement.Policy, Number: m.Statement.Number, Sid: m.Statement.Sid},
			Actions:   List(m.Actions), More: m.More, Resources: List(m.Resources), Everywhere: m.Everywhere, Conditional: m.Conditional,
		})
	}
	return out
}

func reaches(levels []insight.Reach) []wire.Reach {
	out := []wire.Reach{}
	for _, l := range levels {
		out = append(out, wire.Reach{Level: string(l.Level), Actions: l.Actions, Everywhere: l.Everywhere, Of: l.Of})
	}
	return out
}

// Change returns what changed of a role.
func Change(c insight.Change) wire.Change {
	out := wire.Change{
		Sentences: List(c.Sentences), Escalated: c.Escalated, Gained: changed(c.Gained), Lost: changed(c.Lost),
		GainedMarks: marks(c.GainedMarks), LostMarks: marks(c.LostMarks),
		Policies: []wire.ChangedPolicy{}, Statements: texts(c.Statements), Trust: texts(c.Trust), Facts: []wire.ChangedFact{},
		AtLeast: List(c.AtLeast),
	}
	for _, p := range c.Policies {
		out.Policies = append(out.Policies, wire.ChangedPolicy(p))
	}
	for _, f := range c.Facts {
		out.Facts = append(out.Facts, wire.ChangedFact(f))
	}
	return out
}

func changed(a insight.Actions) wire.ChangedActions {
	out := wire.ChangedActions{Count: a.Count, Wider: a.Wider, Names: List(a.Names), Services: []wire.ServiceReach{}}
	for _, s := range a.Services {
		out.Services = append(out.Services, wire.ServiceReach{Prefix: s.Prefix, Name: s.Name, Levels: reaches(s.Levels)})
	}
	return out
}

func texts(list []insight.StatementChange) []wire.ChangedText {
	out := []wire.ChangedText{}
	for _, s := range list {
		out = append(out, wire.ChangedText(s))
	}
	return out
}

// Versions returns the versions of a role.
func Versions(list []history.Version) wire.RoleVersions {
	out := wire.RoleVersions{Versions: []wire.RoleVersion{}}
	for i, v := range list {
		one := version(v)
		if i < len(list)-1 || !v.Change.IsEmpty() {
			change := Change(v.Change)
			one.Change = &change
		}
		out.Versions = append(out.Versions, one)
	}
	return out
}

func version(v history.Version) wire.RoleVersion {
	return wire.RoleVersion{Number: v.Number, At: wire.Time{Time: v.At}, Current: v.Current}
}

// Compared returns the difference between two versions of a role.
func Compared(c history.Compared) wire.RoleChange {
	return wire.RoleChange{From: version(c.From), To: version(c.To), Change: Change(c.Change)}
}
