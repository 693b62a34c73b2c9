package pages

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/shape"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// pageRoles is how many roles a page of the catalogue shows.
const pageRoles = 50

// A rolesView is the catalogue, by account.
type rolesView struct {
	First    []roleList // favourites, and what was asked for lately
	Accounts []roleList
	Query    string
	Account  string
	Tag      string
	Ability  string // that the roles have
	Unused   string // days that they were not used for; empty for any
	Wrong    string // why that cannot be searched for
	Count    int
	Next     string // page token
	Groups   []string
	GroupsAt wire.Time
	NoGroups string // why they are not known; empty where they are
	Admin    bool   // the reader is
	Auditor  bool
}

// roleFilters are the parameters that choose roles of the catalogue.
var roleFilters = []string{"q", "account_id", "tag", "ability", "unused_days"}

// Filters returns those that are given.
func (v rolesView) Filters() (given []fact) {
	for i, value := range []string{v.Query, v.Account, v.Tag, v.Ability, v.Unused} {
		if value != "" {
			given = append(given, fact{roleFilters[i], value})
		}
	}
	return given
}

// More returns the address of the page behind this one.
func (v rolesView) More() string {
	q := url.Values{"page_token": {v.Next}}
	for _, f := range v.Filters() {
		q.Set(f.Name, f.Value)
	}
	return "/roles?" + q.Encode()
}

// A roleList is some roles under a heading.
type roleList struct {
	ID, Name string // of the account, where it is one
	Roles    []roleView
}

// A roleView is a role with what its page adds.
type roleView struct {
	wire.Role
	Mine      *requestView
	Path      string // of its page
	Minutes   int    // that the form begins with
	Favourite bool
	Where     bool // its account is said with it
}

func (p *Pages) viewRole(r control.Role, v *Visit) roleView {
	view := roleView{
		Role: shape.Role(r, v.Who, p.c.Now()), Path: edge.Path("/roles/%s/%s", r.Key.AccountID, r.Name),
		Minutes: cmp.Or(r.Policy.RecommendedMinutes, min(60, r.Policy.MaxMinutes)),
	}
	if value, tagged := view.Tags[serval.TagKey]; tagged && value == "" {
		view.Tags = maps.Clone(view.Tags)
		delete(view.Tags, serval.TagKey) // all of them have it
	}
	if r.MyRequest != nil {
		mine := p.viewRequest(*r.MyRequest, v)
		view.Mine = &mine
	}
	return view
}

// Roles shows the catalogue.
func (p *Pages) Roles(w http.ResponseWriter, r *http.Request, v *Visit) error {
	q := r.URL.Query()
	view := rolesView{
		Query: serval.Clip(q.Get("q"), 200), Account: serval.Clip(q.Get("account_id"), 40), Tag: serval.Clip(q.Get("tag"), 400),
		Ability: serval.Clip(q.Get("ability"), 400), Unused: serval.Clip(q.Get("unused_days"), 10),
		Groups: v.Who.Person.Groups, GroupsAt: wire.Time{Time: v.Who.Person.GroupsAt}, NoGroups: v.Who.Person.GroupsNote, Admin: v.Who.Admin, Auditor: v.Who.Auditor,
	}
	unused, err := edge.Days(view.Unused)
	if err != nil {
		view.Wrong, unused = err.Error(), 0
	}
	_, after, err := edge.Page(url.Values{"page_token": q["page_token"]})
	if err != nil {
		return err
	}
	favourites := readFavourites(r)
	if len(view.Filters()) == 0 && after == "" {
		if view.First, err = p.first(r.Context(), v, favourites); err != nil {
			return err
		}
	}
	roles, more, err := p.c.Plane.Roles(r.Context(), v.Who, control.RoleFilter{
		AccountID: view.Account, Tag: view.Tag, Text: view.Query, Abilities: view.Ability, Unused: unused, After: after, Limit: pageRoles,
	})
	if serval.IsRefusal(err, serval.Invalid) {
		view.Wrong, err = err.Error(), nil
	}
	if err != nil {
		return err
	}
	view.Count = len(roles)
	if more {
		view.Next = edge.PageToken(more, roles[len(roles)-1].ARN)
	}
	for _, role := range roles {
		if n := len(view.Accounts); n == 0 || view.Accounts[n-1].ID != role.Key.AccountID {
			view.Accounts = append(view.Accounts, roleList{ID: role.Key.AccountID, Name: role.AccountName})
		}
		last := &view.Accounts[len(view.Accounts)-1]
		one := p.viewRole(role, v)
		one.Favourite = slices.Contains(favourites, role.RoleID)
		last.Roles = append(last.Roles, one)
	}
	return p.show(w, v, http.StatusOK, "roles", "Roles", view)
}

// mostRecent is how many roles that were asked for lately come first.
const mostRecent = 5

// first returns the roles that come before all others: favourites, and those that
// were asked for lately, the last one first.
func (p *Pages) first(ctx context.Context, v *Visit, favourites []string) (lists []roleList, err error) {
	asked, _, err := p.c.Plane.Requests(ctx, v.Who, control.RequestFilter{Limit: 4 * mostRecent})
	if err != nil {
		return nil, err
	}
	var recent []string
	for _, r := range asked {
		if id := r.Role.RoleID; len(recent) < mostRecent && !slices.Contains(recent, id) && !slices.Contains(favourites, id) {
			recent = append(recent, id)
		}
	}
	if len(favourites)+len(recent) == 0 {
		return nil, nil
	}
	roles, _, err := p.c.Plane.Roles(ctx, v.Who, control.RoleFilter{IDs: slices.Concat(favourites, recent), Limit: maxFavourites + mostRecent})
	if err != nil {
		return nil, err
	}
	kept, late := roleList{Name: "Favourites"}, roleList{Name: "Recent"}
	for _, role := range roles {
		one := p.viewRole(role, v)
		one.Where = true
		if one.Favourite = slices.Contains(favourites, role.RoleID); one.Favourite {
			kept.Roles = append(kept.Roles, one)
		} else {
			late.Roles = append(late.Roles, one)
		}
	}
	slices.SortStableFunc(late.Roles, func(a, b roleView) int {
		return cmp.Compare(slices.Index(recent, a.RoleID), slices.Index(recent, b.RoleID))
	})
	for _, l := range []roleList{kept, late} {
		if len(l.Roles) > 0 {
			lists = append(lists, l)
		}
	}
	return lists, nil
}

// Which roles somebody wants to have first is a matter of their browser: a cookie
// says it, and nobody but the catalogue's page looks at that.
const (
	favouritesCookie = "__Host-serval-favourites"
	favouritesAge    = 400 * 24 * time.Hour // the most that browsers keep one
	maxFavourites    = 50
)

// roleID is the id of a role, as AWS makes them.
var roleID = regexp.MustCompile(`^AROA[A-Z0-9]{8,28}$`)

// readFavourites returns the ids of the roles that come first.
func readFavourites(r *http.Request) (ids []string) {
	c, err := r.Cookie(favouritesCookie)
	if err != nil {
		return nil
	}
	for id := range strings.SplitSeq(c.Value, ".") {
		if len(ids) < maxFavourites && roleID.MatchString(id) && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// Favour makes a role one of those that come first, or no longer.
func (p *Pages) Favour(w http.ResponseWriter, r *http.Request, _ *Visit) error {
	f, err := edge.Form(r)
	if err != nil {
		return err
	}
	id, ids := f.Get("role_id"), readFavourites(r)
	if !roleID.MatchString(id) {
		return serval.Refuse(serval.Invalid, "This is not the id of a role.")
	}
	if i := slices.Index(ids, id); i >= 0 {
		ids = slices.Delete(ids, i, i+1)
	} else {
		ids = append(ids, id)
		ids = ids[max(0, len(ids)-maxFavourites):]
	}
	http.SetCookie(w, &http.Cookie{
		Name: favouritesCookie, Value: strings.Join(ids, "."), Path: "/", MaxAge: int(favouritesAge / time.Second),
		Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
	back := url.Values{}
	for _, name := range roleFilters {
		if value := f.Get(name); value != "" {
			back.Set(name, value)
		}
	}
	if len(back) > 0 {
		return p.redirect(w, "/roles?"+back.Encode())
	}
	return p.redirect(w, "/roles")
}

// A rolePageView is one role with its documents and, where it can be requested,
// the form.
type rolePageView struct {
	roleView
	TrustText []span
	Inline    []documentView
	Managed   []documentView
	Unread    []string // which lists are not known
	Boundary  string
	Bounding  *documentView // the boundary's policy, where it was read
	LastUsed  wire.Time
	Created   wire.Time
	Changes   []wire.RoleVersion // those that changed something, the newest first
	InUse     []useView
	Others    int // who has it besides, and is not named to this reader

	Ask askView
}

type documentView struct {
	Name, ARN, Version string
	Text               []span
}

// A useView is somebody who has the role now.
type useView struct {
	Email  string
	EndsAt wire.Time
	Mine   bool
}

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
	view := rolePageView{roleView: p.viewRole(role, v), TrustText: paper.write(role.TrustPolicy), Created: wire.Time{Time: role.CreatedAt}}
	view.Favourite = slices.Contains(readFavourites(r), role.RoleID)
	if role.PermissionsBoundary != nil {
		view.Boundary = *role.PermissionsBoundary
	}
	if b := role.BoundaryPolicy; b != nil && b.Status == serval.ListRead {
		view.Bounding = &documentView{Name: view.Boundary[strings.LastIndexByte(view.Boundary, '/')+1:], ARN: view.Boundary, Version: b.Version, Text: paper.write(b.Document)}
	}
	if role.LastUsedAt != nil {
		view.LastUsed = wire.Time{Time: *role.LastUsedAt}
	}
	for _, one := range role.InlinePolicies.Policies {
		view.Inline = append(view.Inline, documentView{Name: one.Name, Text: paper.write(one.Document)})
	}
	for _, one := range role.ManagedPolicies.Policies {
		view.Managed = append(view.Managed, documentView{Name: one.Name, ARN: one.ARN, Version: one.Version, Text: paper.write(one.Document)})
	}
	if l := role.InlinePolicies; l.Status != serval.ListRead {
		view.Unread = append(view.Unread, "Not all inline policies could be read: "+l.Action+" "+string(l.Status)+".")
	}
	if l := role.ManagedPolicies; l.Status != serval.ListRead {
		view.Unread = append(view.Unread, "Not all attached policies could be read: "+l.Action+" "+string(l.Status)+".")
	}
	h, err := p.c.Plane.RoleHistory(r.Context(), v.Who, accountID, name, "", "")
	if err != nil {
		return err
	}
	for _, version := range shape.Versions(h.Versions()).Versions {
		if version.Change != nil && len(version.Change.Sentences) > 0 {
			view.Changes = append(view.Changes, version)
		}
	}
	for _, one := range role.InUse {
		view.InUse = append(view.InUse, useView{one.Email, wire.Time{Time: one.EndsAt}, one.PersonID == v.Who.Person.ID})
	}
	view.Others = role.Others
	view.Ask = newAsk([]roleView{view.roleView}, entered, wrong)
	status := http.StatusOK
	if wrong != "" {
		status = http.StatusBadRequest
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

// A span is a stretch of a document.
type span struct{ Kind, Text string }

// What stands out in a document: names, what is denied, and what is meant for
// more than one thing.
const (
	spanName = "name"
	spanDeny = "deny"
	spanWild = "wild"
)

// maxMarked is the largest document, in bytes, of which anything is marked.
const maxMarked = 64 << 10

// write returns a document as pretty does, with what should stand out apart.
func (p *paper) write(d serval.Document) (spans []span) {
	text := p.pretty(d)
	if text == "" {
		return nil
	}
	if len(text) > maxMarked {
		return []span{{Text: text}}
	}
	from := 0
	for i := 0; i < len(text); i++ {
		if text[i] != '"' {
			continue
		}
		end := i + 1
		for end < len(text) && text[end] != '"' {
			if text[end] == '\\' {
				end++
			}
			end++
		}
		end = min(end+1, len(text))
		kind := ""
		switch word := text[i:end]; {
		case end < len(text) && text[end] == ':':
			kind = spanName
		case word == `"Deny"`:
			kind = spanDeny
		case strings.Contains(word, "*"):
			kind = spanWild
		}
		if kind != "" {
			if from < i {
				spans = append(spans, span{Text: text[from:i]})
			}
			spans = append(spans, span{kind, text[i:end]})
			from = end
		}
		i = end - 1
	}
	return append(spans, span{Text: text[from:]})
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
