package pages

import (
	"cmp"
	"net/http"
	"net/url"
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
	Length      lengthView
	NeedsReason bool
	BreakGlass  bool
}

// newAsk returns the form for roles. Its bounds are those that all of them have.
func newAsk(roles []roleView, entered formView, wrong string) askView {
	a := askView{Roles: roles, Form: entered, Wrong: wrong}
	most, recommended := 0, 0
	for _, r := range roles {
		if most == 0 || r.MaxMinutes < most {
			most = r.MaxMinutes
		}
		if r.RecommendedMinutes > 0 && (recommended == 0 || r.RecommendedMinutes < recommended) {
			recommended = r.RecommendedMinutes
		}
		a.NeedsReason = a.NeedsReason || r.RequireJustification
		a.BreakGlass = a.BreakGlass || r.BreakGlass
	}
	recommended = min(recommended, most)
	chosen := cmp.Or(a.Form.Minutes, strconv.Itoa(cmp.Or(recommended, min(60, most))))
	a.Length = newLength(most, recommended, chosen, a.Form.Other)
	return a
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
	n, err := readLength(url.Values{"minutes": {entered.Minutes}, "other_minutes": {entered.Other}})
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
