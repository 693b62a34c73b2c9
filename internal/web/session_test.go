package web_test

import (
	"bytes"
	"encoding/json"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/idptest"
	"github.com/serval-bridge/serval-bridge/internal/web"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// The shells, how each is run, and what shows its variables, each followed by a
// NUL.
var shells = map[string]struct {
	command []string
	show    string
	rule    func(line string) (name, value string, ok bool) // how the shell reads one line, where there is no such shell
}{
	"bash": {[]string{"bash", "--norc"}, "\nprintf '%s\\0' \"$AWS_ACCESS_KEY_ID\" \"$AWS_SECRET_ACCESS_KEY\" \"$AWS_SESSION_TOKEN\" \"$AWS_CREDENTIAL_EXPIRATION\"\n", nil},
	"fish": {[]string{"fish", "--no-config"}, "\nprintf '%s\\0' $AWS_ACCESS_KEY_ID $AWS_SECRET_ACCESS_KEY $AWS_SESSION_TOKEN $AWS_CREDENTIAL_EXPIRATION\n", fishRule},
	"powershell": {[]string{"pwsh", "-NoProfile", "-NonInteractive", "-Command", "-"},
		"\n[Console]::Out.Write(\"$Env:AWS_ACCESS_KEY_ID`0$Env:AWS_SECRET_ACCESS_KEY`0$Env:AWS_SESSION_TOKEN`0$Env:AWS_CREDENTIAL_EXPIRATION`0\")\n", powershellRule},
}

// fishRule reads a line by fish's own rule: within single quotes only \' and \\
// mean something else (fish documentation, Quotes).
func fishRule(line string) (name, value string, ok bool) {
	name, rest, ok := strings.Cut(strings.TrimPrefix(line, "set -gx "), " '")
	if !ok || !strings.HasPrefix(line, "set -gx ") {
		return "", "", false
	}
	var b strings.Builder
	for i := 0; i < len(rest); i++ {
		switch {
		case rest[i] == '\\' && i+1 < len(rest) && (rest[i+1] == '\'' || rest[i+1] == '\\'):
			i++
			b.WriteByte(rest[i])
		case rest[i] == '\'':
			return name, b.String(), i == len(rest)-1
		default:
			b.WriteByte(rest[i])
		}
	}
	return name, "", false
}

// powershellRule reads a line by PowerShell's own rule: within single quotes only
// a quote that comes twice means something else, and there are five characters
// that are single quotes (PowerShell Language Specification 3.0, 2.3.5.2).
func powershellRule(line string) (name, value string, ok bool) {
	name, rest, ok := strings.Cut(strings.TrimPrefix(line, "$Env:"), " = '")
	if !ok || !strings.HasPrefix(line, "$Env:") {
		return "", "", false
	}
	var b strings.Builder
	text := []rune(rest)
	isQuote := func(r rune) bool { return strings.ContainsRune("'\u2018\u2019\u201a\u201b", r) }
	for i := 0; i < len(text); i++ {
		if isQuote(text[i]) {
			if i+1 == len(text) {
				return name, b.String(), true
			}
			if !isQuote(text[i+1]) {
				return name, "", false
			}
			i++
		}
		b.WriteRune(text[i])
	}
	return name, "", false
}

// A role's path is its maker's choice, and in no command that is to be pasted
// where a shell would obey it.
func TestClientFormIsPlain(t *testing.T) { // S-25
	for arn, want := range map[string]string{
		"arn:aws:iam::111122223333:role/team/dev":                "serval exec arn:aws:iam::111122223333:role/team/dev -- ",
		"arn:aws:iam::111122223333:role/x;touch${IFS}pwned;/dev": "serval exec 111122223333/dev -- ",
	} {
		forms, err := web.Forms(wire.Credentials{RoleARN: arn})
		if err != nil {
			t.Fatal(err)
		}
		if text := forms["client"]; !strings.HasPrefix(text, want) || strings.Contains(text, "touch") {
			t.Errorf("of %s: %s", arn, text)
		}
	}
}

// What a shell reads is what was given, whatever it is: by the shell itself where
// there is one, and by its rules.
func TestCredentialsFormsAreQuoted(t *testing.T) {
	ends := wire.Time{Time: time.Date(2026, 3, 1, 13, 0, 0, 0, time.UTC)}
	for _, hostile := range []string{
		"plain/+=", `'; touch pwned; '`, `$(touch pwned)`, "`touch pwned`", `"; touch pwned; "`, `\`, `\'`, `'\''`, `a\\'b`, "$HOME ${IFS}", "!!", "%PATH%",
		"a b\tc", "#x", "\u2019; touch pwned; \u2018", "''", "é✓", "|&;<>()*?[]{}~",
	} {
		c := wire.Credentials{
			AccessKeyID: "ASIA" + hostile, SecretAccessKey: hostile, SessionToken: hostile + hostile, Expiration: ends,
			RoleARN: "arn:aws:iam::111122223333:role/dev",
		}
		forms, err := web.Forms(c)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{c.AccessKeyID, c.SecretAccessKey, c.SessionToken, "2026-03-01T13:00:00Z"}
		for name, shell := range shells {
			if shell.rule != nil {
				var got []string
				for line := range strings.Lines(forms[name]) {
					_, value, ok := shell.rule(strings.TrimSuffix(line, "\n"))
					if !ok {
						t.Errorf("%s: %q is not one assignment", name, line)
					}
					got = append(got, value)
				}
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("%s, by its rules (-want +got):\n%s", name, d)
				}
			}
			path, err := exec.LookPath(shell.command[0])
			if err != nil {
				if shell.rule == nil {
					t.Fatalf("%s is not at hand", name)
				}
				continue
			}
			cmd := exec.Command(path, shell.command[1:]...)
			cmd.Dir = t.TempDir()
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + cmd.Dir, "LC_ALL=C.UTF-8"}
			cmd.Stdin = strings.NewReader(forms[name] + shell.show)
			out, err := cmd.Output()
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if d := cmp.Diff(strings.Join(want, "\x00")+"\x00", string(out)); d != "" {
				t.Errorf("%s reads %q otherwise (-want +got):\n%s", name, hostile, d)
			}
			if files, err := filepath.Glob(filepath.Join(cmd.Dir, "pwned")); err != nil || len(files) > 0 {
				t.Errorf("%s ran a part of %q", name, hostile)
			}
		}
		var process struct {
			Version                                                int
			AccessKeyId, SecretAccessKey, SessionToken, Expiration string
		}
		d := json.NewDecoder(strings.NewReader(forms["json"]))
		d.DisallowUnknownFields()
		if err := d.Decode(&process); err != nil || process.Version != 1 || process.SecretAccessKey != c.SecretAccessKey || process.Expiration != want[3] {
			t.Errorf("JSON %s: %v", forms["json"], err)
		}
	}
}

// S-64, S-78: AWS's own SDK reads what is given, as a credentials file and as a
// process; and the page that gives it is posted, said once, and kept by nobody.
func TestCredentialsAreWhatAWSReads(t *testing.T) {
	w := newWorld(t)
	w.push(w.inventory)
	ana := w.as("ana")
	var c wire.Credentials
	ana.json("POST", "/api/v1/sessions", wire.NewSession{RequestID: ana.running(60).ID}, 200, &c)
	forms, err := web.Forms(c)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file := write("credentials", forms["file"])
	process := write("config", "[profile p]\ncredential_process = cat "+write("json", forms["json"])+"\n")
	for _, profile := range []string{"serval-" + prod + "-dev-auto", "p"} {
		loaded, err := config.LoadDefaultConfig(t.Context(), config.WithSharedCredentialsFiles([]string{file}),
			config.WithSharedConfigFiles([]string{process}), config.WithSharedConfigProfile(profile))
		if err != nil {
			t.Fatal(err)
		}
		got, err := loaded.Credentials.Retrieve(t.Context())
		if err != nil || got.AccessKeyID != c.AccessKeyID || got.SecretAccessKey != c.SecretAccessKey || got.SessionToken != c.SessionToken {
			t.Errorf("profile %s: other credentials than were given: %v", profile, err)
		}
		if profile == "p" && (!got.CanExpire || !got.Expires.Equal(c.Expiration.Time)) {
			t.Errorf("the process's credentials end at %s, want %s", got.Expires, c.Expiration)
		}
	}

	made := ana.running(60)
	res, page := ana.do("POST", "/sessions", url.Values{"request_id": {made.ID}})
	for _, form := range []string{"export AWS_SECRET_ACCESS_KEY=", "set -gx AWS_SECRET_ACCESS_KEY ", "$Env:AWS_SECRET_ACCESS_KEY = ", "aws_secret_access_key = ", "&#34;SecretAccessKey&#34;: "} {
		if strings.Count(page, form) != 1 {
			t.Errorf("the page has %q %d times, want once", form, strings.Count(page, form))
		}
	}
	if res.Header.Get("Cache-Control") != "no-store" || res.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("the page may be kept: %v", res.Header)
	}
	// Nothing of it is anywhere afterwards.
	for _, path := range []string{"/requests/" + made.ID, "/requests", "/api/v1/sessions", "/api/v1/requests/" + made.ID} {
		if later := ana.page(path, 200); bytes.Contains([]byte(later), []byte("aws_secret_access_key")) || strings.Contains(later, c.SecretAccessKey) || strings.Contains(later, c.SessionToken) {
			t.Errorf("%s shows credentials again", path)
		}
	}
	ana.page("/sessions", 405) // not by GET
}

// S-5, S-7, S-60: a whole story with every kind of secret in it, and with every
// kind of failure. The log, at its most talkative, the database's files, every
// page and every answer of the API hold none of them.
func TestNoSecretAnywhere(t *testing.T) {
	boom := false
	w := buildWorld(t, true, panicking(&boom, "cannot happen"))
	w.push(w.inventory)
	ana, ben := w.as("ana"), w.as("ben")

	// What goes well: credentials by API and by page, the console both ways, and
	// an ID token that is refreshed before each of them.
	var made wire.Request
	ana.json("POST", "/api/v1/requests", wire.NewRequest{RoleARN: w.aws.RoleARN("dev-admin"), Minutes: 60, Justification: "Incident 7"}, 201, &made)
	ben.json("POST", "/api/v1/requests/"+made.ID+"/decisions", wire.Decision{Outcome: "approve"}, 200, nil)
	at := "/requests/" + made.ID
	ana.json("POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID}, 200, nil)
	ana.do("POST", "/sessions", url.Values{"request_id": {made.ID}})
	w.clock.move(time.Minute)
	ana.toConsole(ana.do("POST", at+"/console", nil))
	var link wire.ConsoleLink
	ana.json("POST", "/api/v1/console-links", wire.NewConsoleLink{RequestID: made.ID}, 201, &link)
	stranger := w.browser()
	stranger.page(link.Path, 401)
	stranger.do("GET", "/oidc/auth/login?return_to="+url.QueryEscape(link.Path), nil) // the way to the console waits with the sign-in
	ana.toConsole(ana.do("GET", link.Path, nil))

	// What does not.
	ana.do("GET", "/oidc/auth/callback?code="+canary+"&state="+canary, nil)
	tokens := w.cloud.Inject(awstest.Fault{Action: "AssumeRoleWithWebIdentity", Code: "InvalidIdentityToken", Message: "The token 'eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln' is not taken"})
	ana.do("POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID})
	tokens()
	for _, f := range []awstest.Fault{
		{Status: 500}, {Status: 429}, {Code: "AccessDenied", Message: "no"}, {Code: "MalformedPolicyDocument", Message: "no"}, {Status: 200}, {Reset: true, Happened: true},
		{Mutate: func(b []byte) []byte {
			return bytes.Replace(b, []byte("assumed-role/dev-admin"), []byte("assumed-role/other"), 1)
		}},
	} {
		f.Action = "AssumeRoleWithWebIdentity"
		remove := w.cloud.Inject(f)
		ana.do("POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID})
		ana.do("POST", "/sessions", url.Values{"request_id": {made.ID}})
		remove()
	}
	remove := w.cloud.Inject(awstest.Fault{Action: "getSigninToken", Status: 400, Body: "<html>"})
	ana.do("POST", at+"/console", nil)
	remove()
	w.idp.Misbehave(func(m *idptest.Misbehaviour) { m.AtToken = idptest.Answer{Status: 500, Body: "<html>" + canary} })
	w.clock.move(time.Minute)
	ana.do("POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID})
	res, _ := w.browser().do("GET", "/oidc/auth/login", nil)
	if back, err := w.idp.SignIn(res.Header.Get("Location"), "ana@example.com"); err == nil {
		w.browser().do("GET", back.RequestURI(), nil)
	}
	w.idp.Misbehave(func(m *idptest.Misbehaviour) { *m = idptest.Misbehaviour{} })
	boom = true
	ana.do("GET", at, nil)
	boom = false

	kinds := map[any]int{}
	secrets := slices.Concat(w.idp.Secrets(), w.cloud.Secrets())
	w.passed.Range(func(s, kind any) bool {
		kinds[kind]++
		secrets = append(secrets, s.(string))
		return true
	})
	for _, kind := range []string{"SigninToken", "state", "nonce", "console link", "cookie"} {
		if kinds[kind] == 0 {
			t.Errorf("the story has no %s in it", kind)
		}
	}
	if len(secrets) < 40 {
		t.Errorf("the story has %d secrets in it, want more", len(secrets))
	}
	for name, b := range map[string]*browser{"Ana": ana, "Ben": ben, "an admin": w.as("ada"), "an auditor": w.as("aud")} {
		for _, r := range w.edge.Routes() {
			if r.Method != "GET" || strings.Contains(r.Pattern, "{code}") || strings.HasPrefix(r.Pattern, "/oidc/") || r.Rule == web.Worker {
				continue
			}
			path := strings.NewReplacer("{id}", made.ID, "{account_id}", prod, "{role_name}", "dev-admin", "{$}", "").Replace(r.Pattern)
			_, text := b.do("GET", path, nil)
			for _, s := range secrets {
				if len(s) >= 16 && strings.Contains(text, s) {
					t.Errorf("%s is shown a secret at %s", name, path)
				}
			}
		}
	}
	w.idp.Complaints() // of the codes and tokens that were made up
}
