package pages

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/shape"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// A rolesView is the catalogue, by account.
type rolesView struct {
	Accounts []accountRoles
	Query    string
	Account  string
	Tag      string
	Ability  string // that the roles have
	Unused   string // days that they were not used for; empty for any
	Wrong    string // why that cannot be searched for
	Count    int
	More     bool
	Groups   []string
	GroupsAt wire.Time
}

type accountRoles struct {
	ID, Name string
	Roles    []roleView
}

// A roleView is a role with what its page adds.
type roleView struct {
	wire.Role
	Mine    *requestView
	Path    string // of its page
	Minutes int    // that the form begins with
	Filter  string // what typing looks through
}

func (p *Pages) viewRole(r control.Role, v *Visit) roleView {
	view := roleView{
		Role: shape.Role(r, v.Who, p.c.Now()), Path: edge.Path("/roles/%s/%s", r.Key.AccountID, r.Name),
		Minutes: cmp.Or(r.Policy.RecommendedMinutes, min(60, r.Policy.MaxMinutes)),
	}
	if r.MyRequest != nil {
		mine := p.viewRequest(*r.MyRequest, v)
		view.Mine = &mine
	}
	text := []string{view.ARN, view.Description, view.AccountName}
	for key, value := range view.Tags {
		text = append(text, key, value)
	}
	view.Filter = strings.ToLower(strings.Join(text, " "))
	return view
}

// Roles shows the catalogue.
func (p *Pages) Roles(w http.ResponseWriter, r *http.Request, v *Visit) error {
	q := r.URL.Query()
	view := rolesView{
		Query: serval.Clip(q.Get("q"), 200), Account: serval.Clip(q.Get("account_id"), 40), Tag: serval.Clip(q.Get("tag"), 400),
		Ability: serval.Clip(q.Get("ability"), 400), Unused: serval.Clip(q.Get("unused_days"), 10),
		Groups: v.Who.Person.Groups, GroupsAt: wire.Time{Time: v.Who.Person.GroupsAt},
	}
	unused, err := edge.Days(view.Unused)
	if err != nil {
		view.Wrong, unused = err.Error(), 0
	}
	roles, more, err := p.c.Plane.Roles(r.Context(), v.Who, control.RoleFilter{
		AccountID: view.Account, Tag: view.Tag, Text: view.Query, Abilities: view.Ability, Unused: unused, Limit: edge.MaxPage,
	})
	if serval.IsRefusal(err, serval.Invalid) {
		view.Wrong, err = err.Error(), nil
	}
	if err != nil {
		return err
	}
	view.More, view.Count = more, len(roles)
	for _, role := range roles {
		if n := len(view.Accounts); n == 0 || view.Accounts[n-1].ID != role.Key.AccountID {
			view.Accounts = append(view.Accounts, accountRoles{ID: role.Key.AccountID, Name: role.AccountName})
		}
		last := &view.Accounts[len(view.Accounts)-1]
		last.Roles = append(last.Roles, p.viewRole(role, v))
	}
	return p.show(w, v, http.StatusOK, "roles", "Roles", view)
}

// A rolePageView is one role with its documents and, where it can be requested,
// the form.
type rolePageView struct {
	roleView
	TrustText string
	Inline    []documentView
	Managed   []documentView
	Unread    []string // which lists are not known
	Boundary  string
	LastUsed  wire.Time
	Created   wire.Time
	Changes   []wire.RoleVersion // those that changed something, the newest first

	Form  formView
	Wrong string // why what was sent is not taken
}

type documentView struct{ Name, ARN, Version, Text string }

// A formView is what a request form holds.
type formView struct{ Minutes, Justification, Ticket string }

// Role shows one role.
func (p *Pages) Role(w http.ResponseWriter, r *http.Request, v *Visit) error {
	return p.showRole(w, r, v, r.PathValue("account_id"), r.PathValue("role_name"), formView{}, "")
}

func (p *Pages) showRole(w http.ResponseWriter, r *http.Request, v *Visit, accountID, name string, entered formView, wrong string) error {
	role, err := p.c.Plane.RoleByName(r.Context(), v.Who, accountID, name)
	if err != nil {
		return err
	}
	paper := &paper{left: maxPaper}
	view := rolePageView{roleView: p.viewRole(role, v), Form: entered, Wrong: wrong, TrustText: paper.pretty(role.TrustPolicy), Created: wire.Time{Time: role.CreatedAt}}
	if role.PermissionsBoundary != nil {
		view.Boundary = *role.PermissionsBoundary
	}
	if role.LastUsedAt != nil {
		view.LastUsed = wire.Time{Time: *role.LastUsedAt}
	}
	for _, p := range role.InlinePolicies.Policies {
		view.Inline = append(view.Inline, documentView{Name: p.Name, Text: paper.pretty(p.Document)})
	}
	for _, p := range role.ManagedPolicies.Policies {
		view.Managed = append(view.Managed, documentView{Name: p.Name, ARN: p.ARN, Version: p.Version, Text: paper.pretty(p.Document)})
	}
	if l := role.InlinePolicies; l.Status != serval.ListRead {
		view.Unread = append(view.Unread, "Not all inline policies could be read: "+l.Action+" "+string(l.Status)+".")
	}
	if l := role.ManagedPolicies; l.Status != serval.ListRead {
		view.Unread = append(view.Unread, "Not all attached policies could be read: "+l.Action+" "+string(l.Status)+".")
	}
	h, err := p.c.Plane.RoleHistory(r.Context(), v.Who, accountID, name)
	if err != nil {
		return err
	}
	for _, version := range shape.Versions(h.Versions()).Versions {
		if version.Change != nil && len(version.Change.Sentences) > 0 {
			view.Changes = append(view.Changes, version)
		}
	}
	status := http.StatusOK
	if wrong != "" {
		status = http.StatusBadRequest
	} else {
		view.Form.Minutes = strconv.Itoa(view.Minutes)
	}
	return p.show(w, v, status, "role", role.Name, view)
}

// The bounds of the documents on a page: the most that is shown of one, how deep
// one may be nested that gets its lines broken, and how much all may take.
// Indenting takes depth times elements, which 26 KB make 78 MB of.
const (
	maxDocument = 256 << 10
	maxIndented = 40
	maxPaper    = 2 << 20
)

// A paper is what is left of a page for documents.
type paper struct{ left int }

// pretty returns a document with its lines broken. One that is no JSON, too
// large or too deep stays as it is, and is cut with a sentence that says so.
func (p *paper) pretty(d serval.Document) string {
	text, most := string(d), min(maxDocument, p.left)
	if len(text) <= most && depth(text) <= maxIndented {
		var b bytes.Buffer
		if json.Indent(&b, []byte(text), "", "  ") == nil && b.Len() <= p.left {
			text = b.String()
			p.left -= len(text)
			return text
		}
	}
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + fmt.Sprintf("\n\n… This document has %d bytes, of which the first %d are shown. The API has all of it.", len(d), most)
	}
	p.left -= min(len(d), most)
	return text
}

// depth returns how deep the lists and objects of a JSON text are nested.
func depth(text string) int {
	most, now, quoted := 0, 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			now++
			most = max(most, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return most
}
