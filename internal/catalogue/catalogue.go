// Package catalogue finds the role that somebody means: by its ARN, by an alias,
// as account/role, by its name where only one account has it, or on a terminal by
// a few letters of it. It is pure.
package catalogue

import (
	"slices"
	"strings"

	"github.com/sahilm/fuzzy"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// An Entry is a role that can be meant.
type Entry struct {
	ARN         string `json:"arn"`
	AccountID   string `json:"account_id"`
	AccountName string `json:"account_name"`
	Name        string `json:"name"`
	Description string `json:"description"`
}

// Entries returns the roles as entries.
func Entries(roles []wire.Role) []Entry {
	list := make([]Entry, len(roles))
	for i, r := range roles {
		list[i] = Entry{ARN: r.ARN, AccountID: r.AccountID, AccountName: r.AccountName, Name: r.Name, Description: r.Description}
	}
	return list
}

// Label is how an entry is shown and can be typed: account/role.
func (e Entry) Label() string {
	if e.AccountName == "" || strings.Contains(e.AccountName, "/") {
		return e.AccountID + "/" + e.Name
	}
	return e.AccountName + "/" + e.Name
}

// Direct returns the role that text names without a catalogue: an ARN, or an alias
// of one.
func Direct(text string, aliases map[string]string) (arn serval.RoleARN, ok bool) {
	if target, is := aliases[text]; is {
		text = target
	}
	arn, err := serval.ParseRoleARN(text)
	return arn, err == nil
}

// Exact returns the entries that text names: account/role, or a bare name. More
// than one are of several accounts.
func Exact(text string, entries []Entry) (found []Entry) {
	account, name, both := strings.Cut(text, "/")
	for _, e := range entries {
		if both && e.Name == name && (e.AccountID == account || strings.EqualFold(e.AccountName, account)) || !both && e.Name == text {
			found = append(found, e)
		}
	}
	return found
}

// Near returns the entries that text may mean, the likeliest first: those that
// have its letters in this order, or where there are none, those that are a letter
// or a few from it. Of no text it is all of them.
func Near(text string, entries []Entry) []Entry {
	if strings.TrimSpace(text) == "" {
		return slices.Clone(entries)
	}
	labels := make([]string, len(entries))
	for i, e := range entries {
		labels[i] = e.Label()
	}
	var found []Entry
	for _, m := range fuzzy.Find(strings.ReplaceAll(text, " ", ""), labels) {
		found = append(found, entries[m.Index])
	}
	if len(found) == 0 {
		found = mistyped(text, entries)
	}
	return found
}

// mistyped returns the entries whose label or name has a letter in four that is not
// text's at most, the nearest first.
func mistyped(text string, entries []Entry) (found []Entry) {
	most := max(1, len(text)/4)
	nearness := map[string]int{}
	for _, e := range entries {
		if n := min(edits(text, e.Label(), most), edits(text, e.Name, most)); n <= most {
			nearness[e.ARN] = n
			found = append(found, e)
		}
	}
	slices.SortStableFunc(found, func(a, b Entry) int { return nearness[a.ARN] - nearness[b.ARN] })
	return found
}
