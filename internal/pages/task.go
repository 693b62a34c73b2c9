package pages

import (
	"net/http"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/shape"
	"github.com/serval-bridge/serval-bridge/internal/wire"
	"github.com/serval-bridge/serval-bridge/internal/workflow"
)

// Check starts a check of an account.
func (p *Pages) Check(w http.ResponseWriter, r *http.Request, v *Visit) error {
	f, err := edge.Form(r)
	if err != nil {
		return err
	}
	id := r.PathValue("id")
	v.From = edge.Path("/accounts/%s", id)
	run, err := p.c.Runs.StartCheck(r.Context(), v.Who, id, serval.CheckName(f.Get("check")))
	return p.toRun(w, run, err)
}

// StartRun starts a workflow on an account.
func (p *Pages) StartRun(w http.ResponseWriter, r *http.Request, v *Visit) error {
	f, err := edge.Form(r)
	if err != nil {
		return err
	}
	id := r.PathValue("id")
	v.From = edge.Path("/accounts/%s", id)
	name := serval.Workflow(f.Get("workflow"))
	var role *serval.NewRole
	if name == serval.WorkflowCreateRole {
		hours, err := minutes(f.Get("max_session_hours"))
		if err != nil {
			return serval.Refuse(serval.Invalid, "The longest session is a whole number of hours.")
		}
		role = &serval.NewRole{
			Name: strings.TrimSpace(f.Get("name")), Description: strings.TrimSpace(f.Get("description")), MaxSessionSeconds: hours * 3600,
			PermissionsBoundary: strings.TrimSpace(f.Get("permissions_boundary")), Policy: f.Get("policy"),
		}
	}
	run, err := p.c.Runs.Start(r.Context(), v.Who, name, id, role)
	return p.toRun(w, run, err)
}

func (p *Pages) toRun(w http.ResponseWriter, run workflow.Run, err error) error {
	if err != nil {
		return err
	}
	return p.redirect(w, edge.Path("/runs/%s", run.ID))
}

// A runView is a check or a workflow that was started, and what came of it.
type runView struct {
	wire.Run
	AccountName string
	AccountPath string
	Path        string
	Policy      []span // of the role to be made
	State, Tone string
	Open        bool // it is not over
	MayDecide   bool
	Mine        bool
}

// Run shows a run.
func (p *Pages) Run(w http.ResponseWriter, r *http.Request, v *Visit) error {
	run, err := p.c.Runs.Read(r.Context(), v.Who, r.PathValue("id"))
	if err != nil {
		return err
	}
	view := p.viewRun(run, v)
	v.place = "accounts"
	return p.show(w, v, http.StatusOK, "run", view.Title, view)
}

func (p *Pages) viewRun(run workflow.Run, v *Visit) runView {
	view := runView{
		Run: shape.Run(run), AccountName: run.Account.Name, AccountPath: edge.Path("/accounts/%s", run.AccountID), Path: edge.Path("/runs/%s", run.ID),
		Open: run.Status == serval.RunPending || run.Status == serval.RunRunning,
		Mine: run.By.ID == v.Who.Person.ID || serval.SameEmail(run.By.Email, v.Who.Person.Email),
	}
	if view.Role != nil {
		view.Policy = (&paper{left: maxPaper}).write(serval.Document(view.Role.Policy))
	}
	view.MayDecide = run.Status == serval.RunPending && !view.Mine
	switch run.Status {
	case serval.RunPending:
		view.State, view.Tone = "Waits for another admin", "wait"
	case serval.RunRunning:
		view.State, view.Tone = "Under way", "wait"
	case serval.RunDone:
		view.State, view.Tone = "Done", "good"
		if c := view.Check; c != nil && !c.Passed {
			view.State, view.Tone = "Not passed", "bad"
		}
	case serval.RunFailed:
		view.State, view.Tone = "Failed", "bad"
	case serval.RunDenied:
		view.State, view.Tone = "Denied", "bad"
	default:
		view.State, view.Tone = "Nobody decided in time", "over"
	}
	return view
}

// DecideRun lets a run that waits go on, or ends it.
func (p *Pages) DecideRun(w http.ResponseWriter, r *http.Request, v *Visit) error {
	f, err := edge.Form(r)
	if err != nil {
		return err
	}
	outcome := f.Get("outcome")
	if outcome != "approve" && outcome != "deny" {
		return serval.Refuse(serval.Invalid, "The outcome is approve or deny.")
	}
	id := r.PathValue("id")
	v.From = edge.Path("/runs/%s", id)
	if _, err := p.c.Runs.Decide(r.Context(), v.Who, id, outcome == "approve", strings.TrimSpace(f.Get("reason"))); err != nil {
		return err
	}
	return p.redirect(w, v.From)
}
