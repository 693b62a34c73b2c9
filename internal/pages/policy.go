package pages

import (
	"errors"
	"maps"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/shape"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// A policiesView is the access policies in the order in which they are tried.
type policiesView struct {
	Policies []policyView
	Next     string // page token
}

type policyView struct {
	wire.AccessPolicy
	Path        string
	FromFile    bool
	First, Last bool // of those whose order is set here
}

// pagePolicies is how many access policies a page shows.
const pagePolicies = 100

func viewPolicy(k control.Policy) policyView {
	return policyView{AccessPolicy: shape.Policy(k), Path: edge.Path("/policies/%s", k.Name), FromFile: k.Source == "file"}
}

// Policies shows the access policies.
func (p *Pages) Policies(w http.ResponseWriter, r *http.Request, v *Visit) error {
	_, after, err := edge.Page(url.Values{"page_token": r.URL.Query()["page_token"]})
	if err != nil {
		return err
	}
	list, more, err := p.c.Plane.Policies(r.Context(), v.Who, control.PolicyFilter{After: after, Limit: pagePolicies})
	if err != nil {
		return err
	}
	var view policiesView
	for i, k := range list {
		one := viewPolicy(k)
		one.First = i == 0 && after == "" || i > 0 && view.Policies[i-1].FromFile
		one.Last = i == len(list)-1 && !more
		view.Policies = append(view.Policies, one)
	}
	if more {
		view.Next = edge.PageToken(more, list[len(list)-1].Name)
	}
	return p.show(w, v, http.StatusOK, "policies", "Access policies", view)
}

// A policyForm is what is filled in of an access policy: lists are one entry a
// line.
type policyForm struct {
	Name, Priority          string
	Accounts, ARNs, Tags    string
	Groups, Emails          string
	Approval                string // automatic or steps
	Steps                   string // one a line, of groups and emails with commas between them
	Max, Total, Recommended string

	NeedsReason, Self, Chaining, BreakGlass, SuspendOnEscalation bool
}

// A policyPageView is the page on which an access policy is made or changed.
type policyPageView struct {
	Form   policyForm
	Path   string // of the policy; empty where it is made
	Wrong  string
	Faults []fact
	View   *policyView // what is in force; nil where it is made
}

// groupPrefix marks a group whose name looks like an email.
const groupPrefix = "group:"

func formOf(k serval.AccessPolicy, priority int) policyForm {
	number := func(n int) string {
		if n == 0 {
			return ""
		}
		return strconv.Itoa(n)
	}
	f := policyForm{
		Name: k.Name, Priority: strconv.Itoa(priority), Accounts: lines(k.Roles.Accounts), ARNs: lines(k.Roles.ARNs),
		Groups: lines(k.Eligible.Groups), Emails: lines(k.Eligible.Emails), Approval: "steps",
		Max: number(k.MaxMinutes), Total: number(k.MaxTotalMinutes), Recommended: number(k.RecommendedMinutes),
		NeedsReason: k.RequireJustification, Self: k.AllowSelfApproval, Chaining: k.AllowChaining, BreakGlass: k.BreakGlass, SuspendOnEscalation: k.SuspendOnEscalation,
	}
	if k.Approval.Automatic {
		f.Approval = "automatic"
	}
	var tags, steps []string
	for _, key := range slices.Sorted(maps.Keys(k.Roles.Tags)) {
		tags = append(tags, key+"="+k.Roles.Tags[key])
	}
	for _, step := range k.Approval.Steps {
		var who []string
		for _, group := range step.Groups {
			if strings.Contains(group, "@") {
				group = groupPrefix + group
			}
			who = append(who, group)
		}
		steps = append(steps, strings.Join(append(who, step.Emails...), ", "))
	}
	f.Tags, f.Steps = lines(tags), lines(steps)
	return f
}

func lines(list []string) string { return strings.Join(list, "\n") }

// entries returns what is listed one a line.
func entries(text string) (list []string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			list = append(list, line)
		}
	}
	return list
}

func readPolicyForm(f url.Values) policyForm {
	on := func(name string) bool { return f.Get(name) != "" }
	return policyForm{
		Name: strings.TrimSpace(f.Get("name")), Priority: f.Get("priority"), Accounts: f.Get("accounts"), ARNs: f.Get("arns"), Tags: f.Get("tags"),
		Groups: f.Get("groups"), Emails: f.Get("emails"), Approval: f.Get("approval"), Steps: f.Get("steps"),
		Max: f.Get("max_minutes"), Total: f.Get("max_total_minutes"), Recommended: f.Get("recommended_minutes"),
		NeedsReason: on("require_justification"), Self: on("allow_self_approval"), Chaining: on("allow_chaining"), BreakGlass: on("break_glass"),
		SuspendOnEscalation: on("suspend_on_escalation"),
	}
}

// policy returns the access policy that the form says, and its priority.
func (f policyForm) policy() (k serval.AccessPolicy, priority int, err error) {
	k = serval.AccessPolicy{
		Name: f.Name, Roles: serval.RoleMatch{Accounts: entries(f.Accounts), ARNs: entries(f.ARNs)},
		Eligible:             serval.People{Groups: entries(f.Groups), Emails: entries(f.Emails)},
		RequireJustification: f.NeedsReason, AllowSelfApproval: f.Self, AllowChaining: f.Chaining, BreakGlass: f.BreakGlass, SuspendOnEscalation: f.SuspendOnEscalation,
	}
	for _, tag := range entries(f.Tags) {
		key, value, _ := strings.Cut(tag, "=")
		if k.Roles.Tags == nil {
			k.Roles.Tags = map[string]string{}
		}
		k.Roles.Tags[key] = value
	}
	switch f.Approval {
	case "automatic":
		k.Approval.Automatic = true
	case "steps":
		for _, line := range entries(f.Steps) {
			var step serval.People
			for who := range strings.SplitSeq(line, ",") {
				who = strings.TrimSpace(who)
				group, marked := strings.CutPrefix(who, groupPrefix)
				switch {
				case who == "":
				case marked || !strings.Contains(who, "@"):
					step.Groups = append(step.Groups, strings.TrimSpace(group))
				default:
					step.Emails = append(step.Emails, who)
				}
			}
			k.Approval.Steps = append(k.Approval.Steps, step)
		}
	default:
		return k, 0, serval.Refuse(serval.Invalid, "Say whether requests are approved automatically or in steps.")
	}
	for _, n := range []struct {
		text string
		into *int
	}{{f.Max, &k.MaxMinutes}, {f.Total, &k.MaxTotalMinutes}, {f.Recommended, &k.RecommendedMinutes}} {
		if *n.into, err = minutes(n.text); err != nil {
			return k, 0, err
		}
	}
	priority = control.DefaultPriority
	if text := strings.TrimSpace(f.Priority); text != "" {
		if priority, err = strconv.Atoi(text); err != nil {
			return k, 0, serval.Refuse(serval.Invalid, "The priority is a whole number.")
		}
	}
	return k, priority, nil
}

// NewPolicy shows the form that makes an access policy.
func (p *Pages) NewPolicy(w http.ResponseWriter, r *http.Request, v *Visit) error {
	if _, _, err := p.c.Plane.Policies(r.Context(), v.Who, control.PolicyFilter{Limit: 1}); err != nil {
		return err // whoever may not see them makes none
	}
	return p.showPolicy(w, v, policyPageView{Form: policyForm{Approval: "steps", Priority: strconv.Itoa(control.DefaultPriority), Max: "480", Recommended: "60", NeedsReason: true}}, nil)
}

func (p *Pages) showPolicy(w http.ResponseWriter, v *Visit, view policyPageView, err error) error {
	status, title := http.StatusOK, "New access policy"
	if view.View != nil {
		title = view.View.Name
	}
	if wrong, ok := errors.AsType[*serval.Refusal](err); ok && (wrong.Kind == serval.Invalid || wrong.Kind == serval.Conflict) {
		view.Wrong, view.Faults, status = wrong.Reason, faults(wrong), http.StatusBadRequest
	} else if err != nil {
		return err
	}
	v.place = "policies"
	return p.show(w, v, status, "policy", title, view)
}

// MakePolicy puts an access policy into force.
func (p *Pages) MakePolicy(w http.ResponseWriter, r *http.Request, v *Visit) error {
	f, err := edge.Form(r)
	if err != nil {
		return err
	}
	form := readPolicyForm(f)
	k, priority, err := form.policy()
	if err == nil {
		_, err = p.c.Plane.CreatePolicy(r.Context(), v.Who, k, priority)
	}
	if err != nil {
		return p.showPolicy(w, v, policyPageView{Form: form}, err)
	}
	return p.redirect(w, "/policies")
}

// Policy shows one access policy, to change it where it is not the file's.
func (p *Pages) Policy(w http.ResponseWriter, r *http.Request, v *Visit) error {
	k, err := p.policy(r, v)
	if err != nil {
		return err
	}
	view := viewPolicy(k)
	return p.showPolicy(w, v, policyPageView{Form: formOf(k.AccessPolicy, k.Priority), Path: view.Path, View: &view}, nil)
}

// policy returns the access policy that the address names.
func (p *Pages) policy(r *http.Request, v *Visit) (control.Policy, error) {
	list, i, err := p.policies(r, v)
	if err != nil {
		return control.Policy{}, err
	}
	return list[i], nil
}

// policies returns all access policies, and which of them the address names.
func (p *Pages) policies(r *http.Request, v *Visit) (list []control.Policy, i int, err error) {
	if list, _, err = p.c.Plane.Policies(r.Context(), v.Who, control.PolicyFilter{Limit: math.MaxInt}); err != nil {
		return nil, 0, err
	}
	if i = slices.IndexFunc(list, func(k control.Policy) bool { return k.Name == r.PathValue("name") }); i < 0 {
		return nil, 0, serval.Refuse(serval.NotFound, "There is no access policy of this name.")
	}
	return list, i, nil
}

// ChangePolicy changes an access policy.
func (p *Pages) ChangePolicy(w http.ResponseWriter, r *http.Request, v *Visit) error {
	f, err := edge.Form(r)
	if err != nil {
		return err
	}
	was, err := p.policy(r, v)
	if err != nil {
		return err
	}
	form := readPolicyForm(f)
	form.Name = was.Name
	k, priority, err := form.policy()
	if err == nil {
		_, err = p.c.Plane.ChangePolicy(r.Context(), v.Who, was.Name, k, &priority)
	}
	if err != nil {
		view := viewPolicy(was)
		v.From = view.Path
		return p.showPolicy(w, v, policyPageView{Form: form, Path: view.Path, View: &view}, err)
	}
	return p.redirect(w, "/policies")
}

// MovePolicy has an access policy tried before the one above it, or after the one
// below. Each change on the way there leaves the order as it was, but for the last
// one, which makes the new one.
func (p *Pages) MovePolicy(w http.ResponseWriter, r *http.Request, v *Visit) error {
	f, err := edge.Form(r)
	if err != nil {
		return err
	}
	v.From = "/policies"
	list, i, err := p.policies(r, v)
	if err != nil {
		return err
	}
	to := f.Get("to")
	if to != "up" && to != "down" {
		return serval.Refuse(serval.Invalid, "A policy is moved up or down.")
	}
	if list[i].Source == "file" {
		return serval.Refuse(serval.FailedPrecondition, "This policy is declared in the configuration file, and is moved there.")
	}
	for _, k := range moved(list, i, to == "up") {
		if err := p.c.Plane.PlacePolicy(r.Context(), v.Who, k.Name, k.Priority); err != nil {
			return err
		}
	}
	return p.redirect(w, edge.Path("/policies#p-%s", list[i].Digest))
}

// moved returns the policies that need another priority for the one at i to change
// places with its neighbour, with that, in the order in which to change them: from
// the last one on, so that none passes another too early. It is none where there
// is no neighbour whose order is set here.
func moved(list []control.Policy, i int, up bool) (changed []control.Policy) {
	first := i
	if up {
		first--
	}
	if first < 0 || first+1 == len(list) || list[first].Source == "file" {
		return nil
	}
	list = slices.Clone(list)
	list[first], list[first+1] = list[first+1], list[first]
	for n := first + 1; n < len(list); n++ {
		before, k := list[n-1], &list[n]
		least := before.Priority
		if k.Name < before.Name {
			least++
		}
		if k.Priority >= least {
			break // as it is, and so are those behind it
		}
		k.Priority = least
		changed = append(changed, *k)
	}
	slices.Reverse(changed)
	return changed
}

// DeletePolicy takes an access policy out of force.
func (p *Pages) DeletePolicy(w http.ResponseWriter, r *http.Request, v *Visit) error {
	v.From = "/policies"
	if err := p.c.Plane.DeletePolicy(r.Context(), v.Who, r.PathValue("name")); err != nil {
		return err
	}
	return p.redirect(w, "/policies")
}

// An explainView says why somebody may or may not have a role.
type explainView struct {
	Email, RoleARN string
	Wrong          string
	Answer         *wire.Explanation
}

// Explain shows why somebody may or may not have a role.
func (p *Pages) Explain(w http.ResponseWriter, r *http.Request, v *Visit) error {
	q, err := edge.Query(r, "email", "role_arn")
	if err != nil {
		return err
	}
	view, status := explainView{Email: strings.TrimSpace(q.Get("email")), RoleARN: strings.TrimSpace(q.Get("role_arn"))}, http.StatusOK
	if view.Email != "" || view.RoleARN != "" {
		x, err := p.c.Plane.Explain(r.Context(), v.Who, view.Email, view.RoleARN)
		switch {
		case serval.IsRefusal(err, serval.Invalid):
			view.Wrong, status = err.Error(), http.StatusBadRequest
		case err != nil:
			return err
		default:
			answer := shape.Explanation(x)
			view.Answer = &answer
		}
	} else if _, _, err := p.c.Plane.Policies(r.Context(), v.Who, control.PolicyFilter{Limit: 1}); err != nil {
		return err
	}
	v.place = "policies"
	return p.show(w, v, status, "explain", "Explain access", view)
}
