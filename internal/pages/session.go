package pages

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/shape"
	"github.com/serval-bridge/serval-bridge/internal/shell"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// narrowedBy returns what is asked for, narrowed as a form or a query says.
func narrowedBy(ask control.Opening, f url.Values) control.Opening {
	ask.ReadOnly, ask.NoChaining, ask.Network = f.Get("read_only") != "", f.Get("no_chaining") != "", f.Get("network")
	return ask
}

// A credentialsView is the page that shows credentials, once.
type credentialsView struct {
	RoleARN     string
	SessionName string
	RequestPath string
	EndsAt      wire.Time
	Left        string // until then
	RenewAt     wire.Time
	Note        string
	Narrowed    []string
	Bare        bool       // without a session policy
	Console     bool       // the console of the role's partition is known
	Fields      url.Values // of the form that opened it: the console is narrowed alike
	Forms       []CredentialsForm
}

// A CredentialsForm is one way to hand credentials to a tool.
type CredentialsForm struct{ ID, Name, Hint, Text string }

// OpenSession opens a session from a page. Its credentials are in this answer
// and nowhere else: it is posted, and kept by no cache.
func (p *Pages) OpenSession(w http.ResponseWriter, r *http.Request, v *Visit) error {
	f, err := edge.Form(r)
	if err != nil {
		return err
	}
	v.From = edge.Path("/requests/%s", f.Get("request_id"))
	opened, err := p.c.Plane.Open(r.Context(), v.Who, narrowedBy(control.Opening{RequestID: f.Get("request_id"), Kind: serval.ForCredentials}, f))
	if err != nil {
		return err
	}
	c := shape.Credentials(opened)
	forms, err := CredentialsForms(c)
	if err != nil {
		return err
	}
	_, err = serval.ConsolePage{}.URL(opened.Session.Role.Partition)
	console := err == nil
	if console { // its form leads there
		allowFormTo(w, strings.Join(p.c.ConsoleHosts, " "))
	}
	v.place = "requests"
	return p.show(w, v, http.StatusOK, "credentials", "Credentials", credentialsView{
		Console: console, Fields: f,
		RoleARN: c.RoleARN, SessionName: c.SessionName, RequestPath: edge.Path("/requests/%s", opened.Session.RequestID),
		EndsAt: c.EndsAt, Left: p.left(c.EndsAt.Time), RenewAt: c.RenewAt, Note: opened.Note, Narrowed: narrowedWords(f), Bare: p.c.NoSessionPolicy, Forms: forms,
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

// CredentialsForms returns credentials in every form that a page shows.
func CredentialsForms(c wire.Credentials) ([]CredentialsForm, error) {
	name, role := "serval", "ROLE"
	if arn, err := serval.ParseRoleARN(c.RoleARN); err == nil {
		role = arn.Word()
		name = "serval-" + arn.AccountID + "-" + profileName.ReplaceAllString(arn.Name, "-")
	}
	lines := func(kind shell.Kind) string { return shell.Lines(kind, c.Variables()) }
	process, err := json.MarshalIndent(c.Process(), "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding credentials: %w", err)
	}
	return []CredentialsForm{
		{"bash", "bash, zsh", "Paste into a shell.", lines(shell.Bash)},
		{"fish", "fish", "Paste into a shell.", lines(shell.Fish)},
		{"powershell", "PowerShell", "Paste into a shell.", lines(shell.PowerShell)},
		{"file", "Credentials file", "Add to ~/.aws/credentials and use --profile " + name + ".", fmt.Sprintf(
			"[%s]\naws_access_key_id = %s\naws_secret_access_key = %s\naws_session_token = %s\n", name, c.AccessKeyID, c.SecretAccessKey, c.SessionToken)},
		{"json", "JSON", "The form that credential_process reads.", string(process) + "\n"},
		{"client", "Client", "Needs no copying at all: the serval client asks the bridge, with a login of its own.", fmt.Sprintf(
			"serval exec %[1]s -- aws sts get-caller-identity\n\n# or as a profile in ~/.aws/config\n[profile %[2]s]\ncredential_process = serval creds %[1]s\n", role, name)},
	}, nil
}
