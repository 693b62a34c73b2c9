package pages

import (
	"net/http"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/shape"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// A findingsView is what is to be known about the trust policies of all roles:
// said once for all roles of a page of which it is the same, the gravest first.
type findingsView struct {
	Alike             []alikeView
	Account, Severity string
	NextPageToken     string
}

// An alikeView is roles of whose trust policies the same is to be known.
type alikeView struct {
	Roles      []wire.RoleFindings
	Findings   []wire.TrustFinding
	Unreadable string
}

// because returns the reason of a verdict as a sentence, where what is above it has
// said the verdict.
func because(reason string) string {
	reason = strings.TrimPrefix(strings.TrimPrefix(reason, "refuses you: "), "cannot tell: ")
	first, size := utf8.DecodeRuneInString(reason)
	return string(unicode.ToUpper(first)) + reason[size:]
}

// shownRoles is how many roles of one finding are shown without being unfolded.
const shownRoles = 8

// First and Rest are the roles that are shown at once, and those that are folded.
func (a alikeView) First() []wire.RoleFindings { return a.Roles[:min(len(a.Roles), shownRoles)] }
func (a alikeView) Rest() []wire.RoleFindings  { return a.Roles[len(a.First()):] }

// gravity is the place of the gravest finding among the severities; what could not
// be looked at is the gravest.
func (a alikeView) gravity() int {
	if a.Unreadable != "" {
		return len(severities)
	}
	most := -1
	for _, f := range a.Findings {
		most = max(most, slices.IndexFunc(severities[:], func(s severity) bool { return s.Name == f.Severity }))
	}
	return most
}

// alike puts together the roles of which the same is to be known.
func alike(roles []wire.RoleFindings) (list []alikeView) {
	for _, r := range roles {
		i := slices.IndexFunc(list, func(a alikeView) bool { return a.Unreadable == r.Unreadable && slices.Equal(a.Findings, r.Findings) })
		if i < 0 {
			i = len(list)
			list = append(list, alikeView{Findings: r.Findings, Unreadable: r.Unreadable})
		}
		list[i].Roles = append(list[i].Roles, r)
	}
	slices.SortStableFunc(list, func(a, b alikeView) int { return b.gravity() - a.gravity() })
	return list
}

// Findings answers GET /findings.
func (p *Pages) Findings(w http.ResponseWriter, r *http.Request, v *Visit) error {
	q, err := edge.Query(r, "account_id", "severity", "page_token")
	if err != nil {
		return err
	}
	f := control.FindingFilter{AccountID: q.Get("account_id"), Severity: q.Get("severity")}
	if f.Limit, f.After, err = edge.Page(q); err != nil {
		return err
	}
	roles, next, err := p.c.Plane.Findings(r.Context(), v.Who, f)
	if err != nil {
		return err
	}
	return p.show(w, v, http.StatusOK, "findings", "Findings", findingsView{
		Alike: alike(shape.Findings(roles).Roles), Account: f.AccountID, Severity: f.Severity, NextPageToken: edge.PageToken(next != "", next),
	})
}

// severities are what a list of findings can be held to, and the colour of each.
var severities = [...]severity{{"low", ""}, {"medium", "wait"}, {"high", "bad"}}

type severity struct{ Name, Tone string }

func severityTone(name string) string {
	for _, s := range severities {
		if s.Name == name {
			return s.Tone
		}
	}
	return ""
}
