package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// sessionJSON returns a session; what it was opened with is nowhere any more.
func sessionJSON(s serval.Session) wire.Session {
	return wire.Session{
		ID: s.ID, RequestID: s.RequestID, Kind: string(s.Kind), State: string(s.State), RoleARN: s.Role.ARN, SessionName: s.SessionName,
		AccessKeyID: s.AccessKeyID, AssumedRoleID: s.AssumedRoleID, StartedAt: wire.Time{Time: s.StartedAt},
		EndsAt: wire.Time{Time: s.EndsAt}, Expiration: wire.Time{Time: s.Expiration}, Error: s.Error,
	}
}

// credentialsJSON is the one place where credentials are put into an answer.
// Both times are the earlier of STS's and the grant's end.
func credentialsJSON(o control.Opened) wire.Credentials {
	ends := wire.Time{Time: o.Session.EndsAt}
	return wire.Credentials{
		Version: 1, AccessKeyID: o.Credentials.AccessKeyID, SecretAccessKey: o.Credentials.SecretAccessKey.Reveal(),
		SessionToken: o.Credentials.SessionToken.Reveal(), Expiration: ends,
		SessionID: o.Session.ID, RoleARN: o.Session.Role.ARN, SessionName: o.Session.SessionName, EndsAt: ends,
		RenewAt: wire.Time{Time: o.RenewAt}, Note: o.Note,
	}
}

// narrowed returns what is asked for, narrowed.
func narrowed(ask control.Opening, n *wire.Narrow) control.Opening {
	if n != nil {
		ask.ReadOnly, ask.NoChaining, ask.Network = n.ReadOnly, n.NoChaining, n.Network
	}
	return ask
}

// narrowedBy returns what is asked for, narrowed as a form or a query says.
func narrowedBy(ask control.Opening, f url.Values) control.Opening {
	ask.ReadOnly, ask.NoChaining, ask.Network = f.Get("read_only") != "", f.Get("no_chaining") != "", f.Get("network")
	return ask
}

// openSession answers POST /api/v1/sessions.
func (s *Server) openSession(w http.ResponseWriter, r *http.Request, v *visit) error {
	var body wire.NewSession
	if err := edge.Decode(r, &body); err != nil {
		return err
	}
	ask := narrowed(control.Opening{RequestID: body.RequestID, Kind: serval.ForCredentials}, body.Narrow)
	opened, err := s.c.Plane.Open(r.Context(), v.who, ask)
	if err != nil {
		return err
	}
	c := credentialsJSON(opened)
	c.ConsolePath = consolePath(ask)
	return edge.WriteJSON(w, http.StatusOK, c)
}

// sessions answers GET /api/v1/sessions.
func (s *Server) sessions(w http.ResponseWriter, r *http.Request, v *visit) error {
	q, err := edge.Query(r, "request_id", "page_size", "page_token")
	if err != nil {
		return err
	}
	size, after, err := edge.Page(q)
	if err != nil {
		return err
	}
	found, more, err := s.c.Plane.Sessions(r.Context(), v.who, control.SessionFilter{RequestID: q.Get("request_id"), After: after, Limit: size})
	if err != nil {
		return err
	}
	answer := wire.Sessions{Sessions: []wire.Session{}}
	for _, one := range found {
		answer.Sessions = append(answer.Sessions, sessionJSON(one))
	}
	if more {
		answer.NextPageToken = edge.PageToken(more, found[len(found)-1].ID)
	}
	return edge.WriteJSON(w, http.StatusOK, answer)
}

// A credentialsView is the page that shows credentials, once.
type credentialsView struct {
	RoleARN     string
	SessionName string
	RequestPath string
	EndsAt      wire.Time
	RenewAt     wire.Time
	Note        string
	Narrowed    []string
	Bare        bool // without a session policy
	Forms       []credentialsForm
}

// A credentialsForm is one way to hand credentials to a tool.
type credentialsForm struct{ ID, Name, Hint, Text string }

// postSession opens a session from a page. Its credentials are in this answer
// and nowhere else: it is posted, and kept by no cache.
func (s *Server) postSession(w http.ResponseWriter, r *http.Request, v *visit) error {
	f, err := edge.Form(r)
	if err != nil {
		return err
	}
	v.from = pathEscape("/requests/%s", f.Get("request_id"))
	opened, err := s.c.Plane.Open(r.Context(), v.who, narrowedBy(control.Opening{RequestID: f.Get("request_id"), Kind: serval.ForCredentials}, f))
	if err != nil {
		return err
	}
	c := credentialsJSON(opened)
	forms, err := credentialsForms(c)
	if err != nil {
		return err
	}
	return s.show(w, v, http.StatusOK, "credentials", "Credentials", credentialsView{
		RoleARN: c.RoleARN, SessionName: c.SessionName, RequestPath: pathEscape("/requests/%s", opened.Session.RequestID),
		EndsAt: c.EndsAt, RenewAt: c.RenewAt, Note: opened.Note, Narrowed: narrowedWords(f), Bare: s.c.NoSessionPolicy, Forms: forms,
	})
}

// narrowedWords says how a session was narrowed.
func narrowedWords(f url.Values) (words []string) {
	if f.Get("read_only") != "" {
		words = append(words, "read only")
	}
	if f.Get("no_chaining") != "" {
		words = append(words, "no other roles from here")
	}
	if network := f.Get("network"); network != "" {
		words = append(words, "from "+network+" only")
	}
	return words
}

// profileName is what a profile may be called without quotes.
var profileName = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// powershell doubles what PowerShell takes for a single quote.
var powershell = strings.NewReplacer(`'`, `''`, "\u2018", "\u2018\u2018", "\u2019", "\u2019\u2019", "\u201a", "\u201a\u201a", "\u201b", "\u201b\u201b")

func credentialsForms(c wire.Credentials) ([]credentialsForm, error) {
	variables := [][2]string{
		{"AWS_ACCESS_KEY_ID", c.AccessKeyID},
		{"AWS_SECRET_ACCESS_KEY", c.SecretAccessKey},
		{"AWS_SESSION_TOKEN", c.SessionToken},
		{"AWS_CREDENTIAL_EXPIRATION", c.Expiration.UTC().Format(time.RFC3339)},
	}
	lines := func(format string, quote func(string) string) string {
		var b strings.Builder
		for _, v := range variables {
			fmt.Fprintf(&b, format+"\n", v[0], quote(v[1]))
		}
		return b.String()
	}
	name := "serval"
	if arn, err := serval.ParseRoleARN(c.RoleARN); err == nil {
		name = "serval-" + arn.AccountID + "-" + profileName.ReplaceAllString(arn.Name, "-")
	}
	// What credential_process reads, and no more.
	process, err := json.MarshalIndent(struct {
		Version         int
		AccessKeyID     string `json:"AccessKeyId"`
		SecretAccessKey string
		SessionToken    string
		Expiration      string
	}{1, c.AccessKeyID, c.SecretAccessKey, c.SessionToken, c.Expiration.UTC().Format(time.RFC3339)}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding credentials: %w", err)
	}
	return []credentialsForm{
		{"bash", "bash, zsh", "Paste into a shell.", lines("export %s=%s", func(t string) string { return `'` + strings.ReplaceAll(t, `'`, `'\''`) + `'` })},
		{"fish", "fish", "Paste into a shell.", lines("set -gx %s %s", func(t string) string {
			return `'` + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(t) + `'`
		})},
		{"powershell", "PowerShell", "Paste into a shell.", lines("$Env:%s = %s", func(t string) string { return `'` + powershell.Replace(t) + `'` })},
		{"file", "Credentials file", "Add to ~/.aws/credentials and use --profile " + name + ".", fmt.Sprintf(
			"[%s]\naws_access_key_id = %s\naws_secret_access_key = %s\naws_session_token = %s\n", name, c.AccessKeyID, c.SecretAccessKey, c.SessionToken)},
		{"json", "JSON", "The form that credential_process reads.", string(process) + "\n"},
	}, nil
}
