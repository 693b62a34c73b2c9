package pages

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A formView is what a request form holds.
type formView struct {
	Minutes       string // one of the choices, or "other"
	Other         string
	Justification string
	Ticket        string
	StartAt       string
	BreakGlass    bool
}

// An askView is the form that asks for roles, and what comes of sending it.
type askView struct {
	Roles       []roleView
	Form        formView
	Wrong       string // why what was sent is not taken
	Choices     []choice
	Max         int
	NeedsReason bool
	BreakGlass  bool
}

// A choice is a number of minutes to choose.
type choice struct {
	Minutes             int
	Recommended, Chosen bool
}

// newAsk returns the form for roles. Its bounds are those that all of them have.
func newAsk(roles []roleView, entered formView, wrong string) askView {
	a := askView{Roles: roles, Form: entered, Wrong: wrong}
	recommended := 0
	for _, r := range roles {
		if a.Max == 0 || r.MaxMinutes < a.Max {
			a.Max = r.MaxMinutes
		}
		if r.RecommendedMinutes > 0 && (recommended == 0 || r.RecommendedMinutes < recommended) {
			recommended = r.RecommendedMinutes
		}
		a.NeedsReason = a.NeedsReason || r.RequireJustification
		a.BreakGlass = a.BreakGlass || r.BreakGlass
	}
	recommended = min(recommended, a.Max)
	if a.Form.Minutes == "" {
		a.Form.Minutes = strconv.Itoa(recommended)
		if recommended == 0 {
			a.Form.Minutes = strconv.Itoa(min(60, a.Max))
		}
	}
	a.Choices = choices(a.Max, recommended, a.Form.Minutes)
	if !slices.ContainsFunc(a.Choices, func(c choice) bool { return c.Chosen }) && a.Form.Minutes != "other" {
		a.Form.Minutes, a.Form.Other = "other", a.Form.Minutes
	}
	return a
}

// choices returns what is offered of the minutes up to most.
func choices(most, recommended int, chosen string) (list []choice) {
	for _, n := range []int{30, 60, 120, 240, 480, 720, 1440, 2880, recommended, most} {
		if n > 0 && n <= most && !slices.ContainsFunc(list, func(c choice) bool { return c.Minutes == n }) {
			list = append(list, choice{Minutes: n, Recommended: n == recommended, Chosen: strconv.Itoa(n) == chosen})
		}
	}
	slices.SortFunc(list, func(a, b choice) int { return a.Minutes - b.Minutes })
	for len(list) > 5 { // the longest but one is missed least
		i := len(list) - 2
		for list[i].Recommended || list[i].Chosen {
			i--
		}
		list = slices.Delete(list, i, i+1)
	}
	return list
}

// AskSeveral shows the form that asks for several roles in one go.
func (p *Pages) AskSeveral(w http.ResponseWriter, r *http.Request, v *Visit) error {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return serval.Refuse(serval.Invalid, "The query cannot be read.")
	}
	return p.showSeveral(w, r, v, q["role_arn"], formView{}, "")
}

func (p *Pages) showSeveral(w http.ResponseWriter, r *http.Request, v *Visit, arns []string, entered formView, wrong string) error {
	if len(arns) == 0 || len(arns) > control.MaxBatch {
		return serval.Refuse(serval.Invalid, "Choose from one to %d roles.", control.MaxBatch)
	}
	var roles []roleView
	for _, text := range arns {
		arn, err := serval.ParseRoleARN(text)
		if err != nil {
			return err
		}
		role, err := p.c.Plane.RoleByName(r.Context(), v.Who, arn.AccountID, arn.Name)
		if err != nil {
			return err
		}
		roles = append(roles, p.viewRole(role, v))
	}
	status := http.StatusOK
	if wrong != "" {
		status = http.StatusBadRequest
	}
	v.place = "roles"
	return p.show(w, v, status, "ask", "Request roles", newAsk(roles, entered, wrong))
}

// Ask asks for roles from a form, which comes back with what was entered where
// that is not taken.
func (p *Pages) Ask(w http.ResponseWriter, r *http.Request, v *Visit) error {
	f, err := edge.Form(r)
	if err != nil {
		return err
	}
	entered := formView{
		Minutes: f.Get("minutes"), Other: f.Get("other_minutes"), Justification: f.Get("justification"), Ticket: f.Get("ticket"),
		StartAt: f.Get("start_at"), BreakGlass: f.Get("break_glass") != "",
	}
	arns := f["role_arn"]
	made, err := p.ask(r, v, arns, entered)
	if serval.IsRefusal(err, serval.Invalid) && len(arns) > 0 {
		arn, notARN := serval.ParseRoleARN(arns[0])
		switch {
		case len(arns) > 1:
			return p.showSeveral(w, r, v, arns, entered, err.Error())
		case notARN == nil:
			return p.showRole(w, r, v, arn.AccountID, arn.Name, entered, err.Error())
		}
	}
	if err != nil {
		return err
	}
	if len(made) > 1 {
		return p.redirect(w, "/requests")
	}
	return p.redirect(w, edge.Path("/requests/%s", made[0].ID))
}

func (p *Pages) ask(r *http.Request, v *Visit, arns []string, entered formView) ([]control.Request, error) {
	text := entered.Minutes
	if text == "other" {
		text = entered.Other
	}
	n, err := minutes(text)
	if err != nil {
		return nil, err
	}
	start, err := instant(entered.StartAt)
	if err != nil {
		return nil, err
	}
	return p.c.Plane.Request(r.Context(), v.Who, control.Ask{RoleARNs: arns, BreakGlass: entered.BreakGlass, Ask: serval.Ask{
		Minutes: n, Justification: strings.TrimSpace(entered.Justification), Ticket: strings.TrimSpace(entered.Ticket), StartAt: start,
	}})
}

// instant reads an instant from a form: as the script sends it, or as a browser
// does by itself, which is without a zone and means UTC here.
func instant(text string) (time.Time, error) {
	if text = strings.TrimSpace(text); text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04", "2006-01-02T15:04:05"} {
		if at, err := time.Parse(layout, text); err == nil {
			return at.UTC(), nil
		}
	}
	return time.Time{}, serval.Refuse(serval.Invalid, "The start is a date and a time, such as 2026-03-01T09:00, in UTC.")
}
