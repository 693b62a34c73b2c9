package pages

import (
	"slices"

	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// A kindView is a kind of mark, as it is shown.
type kindView struct{ Kind, Words, Tone, Title string }

// kinds are the kinds of marks, the gravest first.
var kinds = []kindView{
	{"administrator", "Administrator", "bad", "It can do anything in the account, or give itself what it cannot"},
	{"privilege_escalation", "Privilege escalation", "bad", "Whoever holds it can gain more rights than it has"},
	{"credentials_exposure", "Credentials", "wait", "It can get credentials"},
	{"resource_exposure", "Exposure", "wait", "It can change who may use resources"},
	{"data_access", "Data", "", "It can read what is in databases, buckets or queues"},
}

// kind returns how a kind is shown; nil of one that is not known.
func kind(name string) *kindView {
	i := slices.IndexFunc(kinds, func(k kindView) bool { return k.Kind == name })
	if i < 0 {
		return nil
	}
	return &kinds[i]
}

// kindsOf returns the kinds of marks, the gravest first.
func kindsOf(marks []wire.Mark) (names []string) {
	for _, k := range kinds {
		if slices.ContainsFunc(marks, func(m wire.Mark) bool { return m.Kind == k.Kind }) {
			names = append(names, k.Kind)
		}
	}
	return names
}

// A causeView is a mark with every statement that causes the same.
type causeView struct {
	wire.Mark
	Statements []wire.Statement
}

// causes returns the marks, each said once with all that cause it.
func causes(marks []wire.Mark) (list []causeView) {
	for _, m := range marks {
		i := slices.IndexFunc(list, func(c causeView) bool {
			return c.Kind == m.Kind && c.Path == m.Path && c.Title == m.Title && c.More == m.More && c.Everywhere == m.Everywhere && c.Conditional == m.Conditional &&
				slices.Equal(c.Actions, m.Actions) && slices.Equal(c.Resources, m.Resources)
		})
		if i < 0 {
			i = len(list)
			list = append(list, causeView{Mark: m})
		}
		list[i].Statements = append(list[i].Statements, m.Statement)
	}
	return list
}

// abilities are what is offered to search for; any service and level can be typed.
var abilities = []string{
	"administrator", "privilege_escalation", "credentials_exposure", "resource_exposure", "data_access",
	"s3:write", "s3:read", "s3:permissions", "dynamodb:write", "dynamodb:read", "rds:write", "ec2:write", "lambda:write",
	"iam:write", "iam:permissions", "kms:permissions", "secretsmanager:read", "sqs:write", "sns:write",
}
