package pages

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/shape"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// An accountsView is the admin's page of accounts.
type accountsView struct {
	Waiting  []runView // runs that another admin has to approve
	Accounts []accountView
	Next     string // page token
}

type accountView struct {
	wire.Account
	State, Tone string
	Path        string
}

// oldAfter is when an account's last sync is called old: the second in a row is
// missing.
const oldAfter = 9 * time.Hour

// pageAccounts is how many accounts a page shows.
const pageAccounts = 50

func (p *Pages) viewAccount(a control.Account) accountView {
	one := accountView{Account: shape.Account(a, p.c.Now()), Path: edge.Path("/accounts/%s", a.ID)}
	switch {
	case !one.ReadingUntil.IsZero():
		one.State, one.Tone = "Being read", "wait"
	case a.AcceptedAt.IsZero():
		one.State, one.Tone = "Not read yet", "wait"
	case a.Held > 0:
		one.State, one.Tone = "Removals held", "bad"
	case p.c.Now().Sub(a.StartedAt) > oldAfter:
		one.State, one.Tone = "Old", "bad"
	case !a.Complete:
		one.State, one.Tone = "Incomplete", "wait"
	default:
		one.State, one.Tone = "Complete", "good"
	}
	return one
}

// Accounts shows the connected accounts by name, and how their syncs went.
func (p *Pages) Accounts(w http.ResponseWriter, r *http.Request, v *Visit) error {
	_, after, err := edge.Page(url.Values{"page_token": r.URL.Query()["page_token"]})
	if err != nil {
		return err
	}
	by := control.AccountFilter{ByName: true, After: after, Limit: pageAccounts}
	connected, more, err := p.c.Plane.Accounts(r.Context(), v.Who, by)
	if err != nil {
		return err
	}
	waiting, err := p.c.Runs.Waiting(r.Context(), v.Who)
	if err != nil {
		return err
	}
	var view accountsView
	for _, run := range waiting {
		view.Waiting = append(view.Waiting, p.viewRun(run, v))
	}
	for _, a := range connected {
		view.Accounts = append(view.Accounts, p.viewAccount(a))
	}
	if more {
		view.Next = edge.PageToken(more, by.Place(connected[len(connected)-1].Account.Account))
	}
	return p.show(w, v, http.StatusOK, "accounts", "Accounts", view)
}

// A connectView is the page on which an account is connected: what to paste into
// AWS, and what to fill in here.
type connectView struct {
	wire.Connect
	Form   accountForm
	Wrong  string
	Faults []fact // by their fields
}

// An accountForm is what is filled in of an account.
type accountForm struct{ ID, Name, RoleARN, DefaultRegion, WorkflowRoleARN string }

func readAccountForm(f url.Values) accountForm {
	read := func(name string) string { return strings.TrimSpace(f.Get(name)) }
	return accountForm{read("id"), read("name"), read("role_arn"), read("default_region"), read("workflow_role_arn")}
}

// ConnectAccount shows how an account is connected.
func (p *Pages) ConnectAccount(w http.ResponseWriter, r *http.Request, v *Visit) error {
	return p.showConnect(w, r, v, readAccountForm(r.URL.Query()), nil)
}

func (p *Pages) showConnect(w http.ResponseWriter, r *http.Request, v *Visit, form accountForm, wrong *serval.Refusal) error {
	next, err := p.c.Plane.Connecting(r.Context(), v.Who)
	if err != nil {
		return err
	}
	view, status := connectView{Connect: shape.Connect(next), Form: form}, http.StatusOK
	if wrong != nil {
		view.Wrong, view.Faults, status = wrong.Reason, faults(wrong), http.StatusBadRequest
	}
	v.place = "accounts"
	return p.show(w, v, status, "connect", "Connect AWS", view)
}

// faults returns what a refusal says of the fields of a form.
func faults(wrong *serval.Refusal) (list []fact) {
	for _, name := range slices.Sorted(maps.Keys(wrong.Detail)) {
		list = append(list, fact{name, wrong.Detail[name]})
	}
	return list
}

// AddAccount connects an account.
func (p *Pages) AddAccount(w http.ResponseWriter, r *http.Request, v *Visit) error {
	f, err := edge.Form(r)
	if err != nil {
		return err
	}
	form := readAccountForm(f)
	partition := ""
	if arn, err := serval.ParseRoleARN(form.RoleARN); err == nil {
		partition = arn.Partition
	}
	err = p.c.Plane.ConnectAccount(r.Context(), v.Who, serval.Account{
		ID: form.ID, Name: form.Name, RoleARN: form.RoleARN, Partition: partition, DefaultRegion: form.DefaultRegion, WorkflowRoleARN: form.WorkflowRoleARN,
	})
	if wrong, ok := errors.AsType[*serval.Refusal](err); ok && (wrong.Kind == serval.Invalid || wrong.Kind == serval.Conflict) {
		return p.showConnect(w, r, v, form, wrong)
	}
	if err != nil {
		return err
	}
	return p.redirect(w, edge.Path("/accounts/%s", form.ID))
}

// An accountPageView is one account with all that is known of it.
type accountPageView struct {
	accountView
	Connect  wire.Connect
	Problems []problemsView // by their action
	FromFile bool
	Provider string // what is known of the OIDC provider; empty where nobody asked

	// The first few.
	Unreadable []serval.Unreadable
	NearMisses []serval.NearMiss
	Checks     []serval.CheckName
}

// A problemsView is what went wrong with one IAM action.
type problemsView struct {
	Action string
	Some   []serval.Problem // the first few
	Count  int
}

// someProblems is how many problems with one action are told one by one.
const someProblems = 20

// Account shows one account.
func (p *Pages) Account(w http.ResponseWriter, r *http.Request, v *Visit) error {
	a, err := p.c.Plane.AccountByID(r.Context(), v.Who, r.PathValue("id"))
	if err != nil {
		return err
	}
	view := accountPageView{
		accountView: p.viewAccount(a), Connect: shape.Connect(a.Connect), FromFile: a.Source == "file",
		Checks:     []serval.CheckName{serval.CheckConnection, serval.CheckOrganization},
		Provider:   provider(a.OIDCProvider),
		Unreadable: first(a.Unreadable, someProblems), NearMisses: first(a.NearMisses, someProblems),
	}
	by := map[string]*problemsView{}
	for _, one := range a.Problems {
		if by[one.Action] == nil {
			by[one.Action] = &problemsView{Action: one.Action}
		}
		b := by[one.Action]
		if b.Count++; b.Count <= someProblems {
			b.Some = append(b.Some, one)
		}
	}
	for _, b := range by {
		view.Problems = append(view.Problems, *b)
	}
	slices.SortFunc(view.Problems, func(a, b problemsView) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Action, b.Action))
	})
	v.place = "accounts"
	return p.show(w, v, http.StatusOK, "account", a.Name, view)
}

// someClientIDs is how many client ids of an OIDC provider are named.
const someClientIDs = 5

// provider says what is known of an account's OIDC provider.
func provider(p *serval.OIDCProvider) string {
	switch {
	case p == nil:
		return ""
	case p.Status == serval.ListRead:
		some := first(p.ClientIDs, someClientIDs)
		said := "there, for " + cmp.Or(strings.Join(some, ", "), "nobody")
		if more := len(p.ClientIDs) - len(some); more > 0 {
			said += fmt.Sprintf(" and %d more", more)
		}
		return said
	case p.Status == serval.ListAbsent:
		return "none under " + p.ARN
	case p.Status == serval.ListDenied:
		return "not known: the ingestion role may not ask for it (iam:GetOpenIDConnectProvider)"
	}
	return "not known: AWS did not tell"
}

// first returns the first n of a list.
func first[E any](list []E, n int) []E { return list[:min(n, len(list))] }

// ChangeAccount changes what an account is called and how it is reached.
func (p *Pages) ChangeAccount(w http.ResponseWriter, r *http.Request, v *Visit) error {
	f, err := edge.Form(r)
	if err != nil {
		return err
	}
	form := readAccountForm(f)
	id := r.PathValue("id")
	v.From = edge.Path("/accounts/%s", id)
	err = p.c.Plane.ChangeAccount(r.Context(), v.Who, id, control.AccountChange{
		Name: &form.Name, RoleARN: &form.RoleARN, DefaultRegion: &form.DefaultRegion, WorkflowRoleARN: &form.WorkflowRoleARN,
	})
	if err != nil {
		return err
	}
	return p.redirect(w, v.From)
}

// DisconnectAccount takes an account out, with its roles.
func (p *Pages) DisconnectAccount(w http.ResponseWriter, r *http.Request, v *Visit) error {
	f, err := edge.Form(r)
	if err != nil {
		return err
	}
	id := r.PathValue("id")
	v.From = edge.Path("/accounts/%s", id)
	if strings.TrimSpace(f.Get("id")) != id {
		return serval.Refuse(serval.Invalid, "Type the account's id to disconnect it. Nothing was changed.")
	}
	if err := p.c.Plane.DisconnectAccount(r.Context(), v.Who, id); err != nil {
		return err
	}
	return p.redirect(w, "/accounts")
}

// Sync asks for a sync of an account.
func (p *Pages) Sync(w http.ResponseWriter, r *http.Request, v *Visit) error {
	v.From = edge.Path("/accounts/%s", r.PathValue("id"))
	if err := p.c.Plane.RequestSync(r.Context(), v.Who, r.PathValue("id")); err != nil {
		return err
	}
	return p.redirect(w, v.From)
}

// ConfirmRemovals removes the roles whose removal is held.
func (p *Pages) ConfirmRemovals(w http.ResponseWriter, r *http.Request, v *Visit) error {
	v.From = edge.Path("/accounts/%s", r.PathValue("id"))
	if _, err := p.c.Plane.ConfirmRemovals(r.Context(), v.Who, r.PathValue("id")); err != nil {
		return err
	}
	return p.redirect(w, v.From)
}
