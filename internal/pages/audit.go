package pages

import (
	"maps"
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

// An eventView is a row of the audit log for people.
type eventView struct {
	wire.Event
	Words string
	Tone  string
	Facts []fact
}

type fact struct{ Name, Value string }

// words say what an action is. One that is not here is shown as it is written.
var words = map[serval.Action]string{
	serval.RequestCreate:        "asked for the role",
	serval.RequestApprove:       "approved",
	serval.RequestApproveStep:   "approved a step",
	serval.RequestDecide:        "tried to decide",
	serval.RequestDeny:          "denied",
	serval.RequestCancel:        "canceled",
	serval.RequestShorten:       "shortened the access",
	serval.RequestDone:          "is done",
	serval.RequestRevoke:        "revoked the access",
	serval.RequestExpire:        "time ended the request",
	serval.RequestFail:          "the role is gone",
	serval.ExtensionCreate:      "asked for more time",
	serval.ExtensionApprove:     "approved more time",
	serval.ExtensionApproveStep: "approved a step of the extension",
	serval.ExtensionDeny:        "denied more time",
	serval.SessionOpen:          "asked AWS for a session",
	serval.SessionIssue:         "got a session",
	serval.SessionFail:          "got no session",
	serval.SessionDrop:          "a session was opened and not handed over",
	serval.SessionClose:         "a session has no known outcome; nothing was handed over",
	serval.SessionRead:          "looked at sessions",
	serval.RequestRead:          "looked at the request",
	serval.LoginCreate:          "signed in",
	serval.LoginEnd:             "signed out",
	serval.ClientApprove:        "let a client in",
	serval.ClientDeny:           "did not let a client in",
	serval.ClientRead:           "typed the code of a device",
}

func viewEvent(l serval.Link) eventView {
	view := eventView{Event: shape.Event(l), Words: words[l.Action], Tone: "over"}
	if view.Words == "" {
		view.Words = string(l.Action)
	}
	switch l.Outcome {
	case serval.OutcomeRefused, serval.OutcomeFailed:
		view.Tone = "bad"
	case serval.OutcomeStarted, serval.OutcomeUnknown:
		view.Tone = "wait"
	}
	switch l.Action {
	case serval.RequestApprove, serval.ExtensionApprove, serval.SessionIssue:
		if l.Outcome == serval.OutcomeDone {
			view.Tone = "good"
		}
	case serval.RequestDeny, serval.RequestRevoke, serval.ExtensionDeny:
		view.Tone = "bad"
	}
	for _, name := range slices.Sorted(maps.Keys(l.Detail)) {
		view.Facts = append(view.Facts, fact{name, l.Detail[name]})
	}
	return view
}

// An auditView is a page of the audit log.
type auditView struct {
	Events         []eventView
	Target, Action string
	Actor, Outcome string
	Outcomes       []serval.Outcome
	Next           string
	Head           wire.Head
	Admin          bool // and so may see the notices too
}

// More returns the address of the page behind this one.
func (v auditView) More() string {
	q := url.Values{"page_token": {v.Next}}
	for _, f := range []fact{{"target", v.Target}, {"action", v.Action}, {"actor", v.Actor}, {"outcome", v.Outcome}} {
		if f.Value != "" {
			q.Set(f.Name, f.Value)
		}
	}
	return "/audit?" + q.Encode()
}

// outcomes are what rows can be filtered by.
var outcomes = []serval.Outcome{serval.OutcomeDone, serval.OutcomeRefused, serval.OutcomeStarted, serval.OutcomeFailed, serval.OutcomeUnknown}

// pageEvents is how many rows a page of the audit log shows.
const pageEvents = 50

// Audit shows the audit log.
func (p *Pages) Audit(w http.ResponseWriter, r *http.Request, v *Visit) error {
	q := r.URL.Query()
	view := auditView{Target: strings.TrimSpace(serval.Clip(q.Get("target"), 2048)), Action: strings.TrimSpace(serval.Clip(q.Get("action"), 100)),
		Actor: strings.TrimSpace(serval.Clip(q.Get("actor"), 320)), Outcome: serval.Clip(q.Get("outcome"), 20), Outcomes: outcomes, Admin: v.Who.Admin}
	_, after, err := edge.Page(url.Values{"page_token": q["page_token"]})
	if err != nil {
		return err
	}
	before, err := edge.Number(after)
	if err != nil {
		return err
	}
	rows, next, head, err := p.c.Plane.Events(r.Context(), v.Who, control.AuditFilter{
		Before: before, Target: view.Target, Actor: view.Actor, Action: serval.Action(view.Action), Outcome: serval.Outcome(view.Outcome), Limit: pageEvents,
	})
	if err != nil {
		return err
	}
	view.Head = wire.Head{Seq: head.Seq, Hash: head.Hash}
	for _, row := range rows {
		view.Events = append(view.Events, viewEvent(row))
	}
	view.Next = edge.PageToken(next != 0, strconv.FormatInt(next, 10))
	return p.show(w, v, http.StatusOK, "audit", "Audit log", view)
}
