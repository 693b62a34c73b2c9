package pages

import (
	"cmp"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/shape"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// The bounds of a page of the access report: roles, and names and accesses of each.
// The API has all of them.
const (
	pageReport  = 25
	reportNames = 20
)

// A reportView is a page of the access report.
type reportView struct {
	From, To       string // days, both of them within the period
	Account, Email string
	Wrong          string
	Roles          []reportRole
	Next           string // page token
}

// A reportRole is a role with the first of those who could have it and who had it.
type reportRole struct {
	wire.RoleAccess
	Names   []reportNamed
	HadRest int // accesses that are not shown
}

// A reportNamed is who could have a role under a policy.
type reportNamed struct {
	Policy string
	Emails []string
	Rest   int // people who are not shown
}

// address returns a path with what the report is filtered by.
func (v reportView) address(path string, more ...string) string {
	q := url.Values{}
	for _, f := range []fact{{"from", v.From}, {"to", v.To}, {"account_id", v.Account}, {"email", v.Email}} {
		if f.Value != "" {
			q.Set(f.Name, f.Value)
		}
	}
	for i := 0; i < len(more); i += 2 {
		q.Set(more[i], more[i+1])
	}
	return path + "?" + q.Encode()
}

// More returns the address of the page behind this one.
func (v reportView) More() string { return v.address("/reports/access", "page_token", v.Next) }

// Whole returns the address of the same report as the API has it.
func (v reportView) Whole() string {
	from, to, err := v.period()
	if err != nil {
		return "/api/v1/reports/access"
	}
	return v.address("/api/v1/reports/access", "from", from.Format(time.RFC3339), "to", to.Format(time.RFC3339))
}

// period returns when the report's days begin and end, in UTC.
func (v reportView) period() (from, to time.Time, err error) {
	if from, err = time.Parse(time.DateOnly, v.From); err == nil {
		to, err = time.Parse(time.DateOnly, v.To)
	}
	if err != nil {
		return from, to, serval.Refuse(serval.Invalid, "A day is a date, such as 2026-03-01.")
	}
	return from, to.AddDate(0, 0, 1), nil
}

// AccessReport shows who could have each role, and who had it.
func (p *Pages) AccessReport(w http.ResponseWriter, r *http.Request, v *Visit) error {
	q := r.URL.Query()
	read := func(name string) string { return strings.TrimSpace(serval.Clip(q.Get(name), 320)) }
	now := p.c.Now().UTC()
	view := reportView{
		From: cmp.Or(read("from"), now.AddDate(0, 0, -30).Format(time.DateOnly)), To: cmp.Or(read("to"), now.Format(time.DateOnly)),
		Account: read("account_id"), Email: read("email"),
	}
	_, after, err := edge.Page(url.Values{"page_token": q["page_token"]})
	if err != nil {
		return err
	}
	from, to, wrong := view.period()
	if wrong != nil {
		from, to = now.AddDate(0, 0, -30), now // whoever may not see it is refused first
	}
	roles, next, err := p.c.Plane.AccessReport(r.Context(), v.Who, control.ReportFilter{
		From: from, To: to, AccountID: view.Account, Email: view.Email, After: after, Limit: pageReport,
	})
	if serval.IsRefusal(err, serval.Invalid) {
		wrong, err = cmp.Or(wrong, err), nil
	}
	if err != nil {
		return err
	}
	v.place = "audit"
	if wrong != nil {
		view.Wrong = wrong.Error()
		return p.show(w, v, http.StatusBadRequest, "report", "Access report", view)
	}
	view.Next = edge.PageToken(next != "", next)
	for _, one := range shape.AccessReport(roles).Roles {
		shown := reportRole{RoleAccess: one, HadRest: max(0, len(one.Had)-reportNames)}
		shown.Had = one.Had[:len(one.Had)-shown.HadRest]
		for _, could := range one.Could {
			rest := max(0, len(could.Emails)-reportNames)
			shown.Names = append(shown.Names, reportNamed{could.Policy, could.Emails[:len(could.Emails)-rest], rest})
		}
		view.Roles = append(view.Roles, shown)
	}
	return p.show(w, v, http.StatusOK, "report", "Access report", view)
}
