package pages

import (
	"cmp"
	"net/http"
	"net/url"

	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/shape"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// A noticesView is the notices in one state.
type noticesView struct {
	State   string
	States  []stateView
	Notices []noticeView
	Next    string // page token
}

// A noticeView is a notice with what it is for, in words.
type noticeView struct {
	wire.SentNotice
	For string
}

// purposes say what a notice is for.
var purposes = map[serval.Purpose]string{
	serval.ToDecide: "Asks for a decision", serval.ToKnow: "Tells of a change", serval.Handled: "Takes a question back",
	serval.Ending: "Warns of the end", serval.Alarm: "Alarm",
}

// A stateView is a state of notices, as it is chosen.
type stateView struct{ State, Words string }

// states are the states of notices: first those that somebody has to look at.
var states = []stateView{
	{string(serval.NoticeFailed), "Reached nobody"}, {string(serval.NoticePending), "On their way"}, {string(serval.NoticeSent), "Sent"},
}

// pageNotices is how many notices a page shows.
const pageNotices = 50

// Notices shows what was to be told to people, in one state: those that reached
// nobody, where nothing else is said.
func (p *Pages) Notices(w http.ResponseWriter, r *http.Request, v *Visit) error {
	q := r.URL.Query()
	_, after, err := edge.Page(url.Values{"page_token": q["page_token"]})
	if err != nil {
		return err
	}
	view := noticesView{State: cmp.Or(q.Get("state"), states[0].State), States: states}
	found, next, err := p.c.Plane.Notices(r.Context(), v.Who, serval.NoticeState(view.State), after, pageNotices)
	if err != nil {
		return err
	}
	view.Next = edge.PageToken(next != "", next)
	for _, n := range found {
		view.Notices = append(view.Notices, noticeView{shape.SentNotice(n), purposes[n.Purpose]})
	}
	v.place = "audit"
	return p.show(w, v, http.StatusOK, "notices", "Notices", view)
}

// RetryNotice has a notice that reached nobody sent again.
func (p *Pages) RetryNotice(w http.ResponseWriter, r *http.Request, v *Visit) error {
	if _, err := edge.Form(r); err != nil {
		return err
	}
	v.From = "/notices"
	if _, err := p.c.Plane.RetryNotice(r.Context(), v.Who, r.PathValue("id")); err != nil {
		return err
	}
	return p.redirect(w, "/notices")
}
