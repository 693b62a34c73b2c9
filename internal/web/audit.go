package web

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
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

func eventJSON(l serval.Link) wire.Event {
	e := wire.Event{
		Seq: l.Seq, At: wire.Time{Time: l.At}, ActorKind: string(l.ActorKind), Actor: l.Actor, ActorID: l.ActorID, Action: string(l.Action),
		Target: l.Target, Outcome: string(l.Outcome), Reason: l.Reason, RequestID: l.RequestID, Address: l.Address,
		Detail: l.Detail, KeyID: l.KeyID, Hash: l.Hash,
	}
	if e.Detail == nil {
		e.Detail = map[string]string{}
	}
	return e
}

// events reads a page of the audit log.
func (s *Server) events(r *http.Request, v *visit, q url.Values) (wire.Events, error) {
	size, after, err := edge.Page(q)
	if err != nil {
		return wire.Events{}, err
	}
	before, err := edge.Number(after)
	if err != nil {
		return wire.Events{}, err
	}
	rows, head, err := s.c.Plane.Events(r.Context(), v.who, control.AuditFilter{
		Before: before, Target: q.Get("target"), Action: serval.Action(q.Get("action")), Limit: size + 1,
	})
	if err != nil {
		return wire.Events{}, err
	}
	answer := wire.Events{Events: []wire.Event{}, Head: wire.Head{Seq: head.Seq, Hash: head.Hash}}
	for _, row := range rows[:min(size, len(rows))] {
		answer.Events = append(answer.Events, eventJSON(row))
	}
	if len(rows) > size {
		answer.NextPageToken = edge.PageToken(true, strconv.FormatInt(rows[size-1].Seq, 10))
	}
	return answer, nil
}

// audit answers GET /api/v1/audit.
func (s *Server) audit(w http.ResponseWriter, r *http.Request, v *visit) error {
	q, err := edge.Query(r, "target", "action", "page_size", "page_token")
	if err != nil {
		return err
	}
	answer, err := s.events(r, v, q)
	if err != nil {
		return err
	}
	return edge.WriteJSON(w, http.StatusOK, answer)
}

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
	view := eventView{Event: eventJSON(l), Words: words[l.Action], Tone: "over"}
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
	Next           string
	Head           wire.Head
}

// auditPage shows the audit log.
func (s *Server) auditPage(w http.ResponseWriter, r *http.Request, v *visit) error {
	q := r.URL.Query()
	view := auditView{Target: strings.TrimSpace(serval.Clip(q.Get("target"), 2048)), Action: strings.TrimSpace(serval.Clip(q.Get("action"), 100))}
	_, after, err := edge.Page(url.Values{"page_token": q["page_token"]})
	if err != nil {
		return err
	}
	before, err := edge.Number(after)
	if err != nil {
		return err
	}
	rows, head, err := s.c.Plane.Events(r.Context(), v.who, control.AuditFilter{
		Before: before, Target: view.Target, Action: serval.Action(view.Action), Limit: edge.DefaultPage + 1,
	})
	if err != nil {
		return err
	}
	view.Head = wire.Head{Seq: head.Seq, Hash: head.Hash}
	for _, row := range rows[:min(edge.DefaultPage, len(rows))] {
		view.Events = append(view.Events, viewEvent(row))
	}
	if len(rows) > edge.DefaultPage {
		view.Next = edge.PageToken(true, strconv.FormatInt(rows[edge.DefaultPage-1].Seq, 10))
	}
	return s.show(w, v, http.StatusOK, "audit", "Audit log", view)
}
