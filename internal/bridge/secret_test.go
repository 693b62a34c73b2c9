package bridge

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/md5"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/serval-bridge/serval-bridge/internal/notify"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// files lays out the secrets of c, as a pod finds them.
func files(t *testing.T, c *Config, settings ...string) (write func(setting, text string), remove func(setting string)) {
	t.Helper()
	dir := t.TempDir()
	c.SecretFiles, c.lookEvery = map[string]string{}, 5*time.Millisecond
	write = func(setting, text string) {
		t.Helper()
		replace(t, filepath.Join(dir, setting), []byte(text))
	}
	for _, setting := range settings {
		c.SecretFiles[setting] = filepath.Join(dir, setting)
		text := c.Secret
		if setting != rootSecret {
			text = *c.secret(setting)
		}
		write(setting, text.Reveal()+"\n")
	}
	return write, func(setting string) {
		t.Helper()
		if err := os.Remove(filepath.Join(dir, setting)); err != nil {
			t.Fatal(err)
		}
	}
}

// until waits for what comes by itself.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

// told reports whether the log has the message of a setting, n times.
func (e *estate) told(message, setting string, n int) func() bool {
	return func() bool {
		found := 0
		for _, entry := range e.logs.FilterMessage(message).All() {
			if entry.ContextMap()["setting"] == setting {
				found++
			}
		}
		return found >= n
	}
}

const (
	inUse    = "a secret has changed and is in use"
	unusable = "the file of a secret cannot be used; what was read before stays in use"
	usable   = "the file of a secret can be used again"
)

// stands checks what metric and /readyz say of a setting.
func (e *estate) stands(setting string, good bool) {
	e.t.Helper()
	_, metrics := get(e.t, e.admin+"/metrics")
	if want := fmt.Sprintf("serval_secret_unreadable{setting=%q} %d\n", setting, map[bool]int{true: 0, false: 1}[good]); !strings.Contains(metrics, want) {
		e.t.Errorf("the metrics lack %s", want)
	}
	if status, text := get(e.t, e.admin+"/readyz"); status != 200 || strings.Contains(text, setting) == good {
		e.t.Errorf("/readyz answers %d of %s: %s", status, setting, text)
	}
}

// S-108: whoever is signed in, and whoever signs in, notices nothing of the
// client's secret and the root secret being changed; a root secret that would
// close what is open is not taken.
func TestSecretsOfSigningIn(t *testing.T) {
	var write func(setting, text string)
	var remove func(setting string)
	e := newEstate(t, func(c *Config) {
		c.MintRate = 1 << 20
		write, remove = files(t, c, "SERVAL_OIDC_CLIENT_SECRET", rootSecret, "SERVAL_EXTERNAL_ID_SECRET")
	})
	ana, made := e.ana()
	open := func(who *http.Client) {
		t.Helper()
		e.json(who, "POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID}, 200, nil)
	}
	open(ana)

	// Sessions are opened all the while.
	stop := make(chan struct{})
	var busy sync.WaitGroup
	for range 2 {
		busy.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if res, text, err := e.ask(ana, "POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID}); err != nil || res.StatusCode != 200 {
					t.Errorf("a session while secrets change: %v, %v: %s", res, err, text)
					return
				}
			}
		})
	}
	e.idp.RotateClient("the-next-secret-of-the-client")
	write("SERVAL_OIDC_CLIENT_SECRET", "the-next-secret-of-the-client")
	until(t, "the client's secret", e.told(inUse, "SERVAL_OIDC_CLIENT_SECRET", 1))
	e.ana()

	first, next := e.c.Secret.Reveal(), strings.Repeat("ab", 32)
	write(rootSecret, next) // without the one in use
	until(t, "a refusal", e.told(unusable, rootSecret, 1))
	e.stands(rootSecret, false)
	open(ana)
	write(rootSecret, next+","+first)
	until(t, "the root secret", e.told(inUse, rootSecret, 1))
	e.stands(rootSecret, true)
	open(ana)
	late, _ := e.ana()
	open(late)
	close(stop)
	busy.Wait()

	// An older one that is taken away ends what was made under it, and nothing else.
	write(rootSecret, next)
	until(t, "the older one's end", e.told(inUse, rootSecret, 2))
	e.json(ana, "POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID}, 401, nil)
	open(late)

	// What cannot be read, and what cannot be, changes nothing, and is told once.
	for i, wrong := range []string{"", "short", "changeme"} {
		write(rootSecret, wrong)
		until(t, "a refusal", e.told(unusable, rootSecret, 2+i))
		e.stands(rootSecret, false)
		open(late)
	}
	remove(rootSecret)
	until(t, "a refusal", e.told(unusable, rootSecret, 5))
	remove("SERVAL_OIDC_CLIENT_SECRET")
	until(t, "a refusal", e.told(unusable, "SERVAL_OIDC_CLIENT_SECRET", 1))
	e.stands("SERVAL_OIDC_CLIENT_SECRET", false)
	open(late)
	e.ana()
	write(rootSecret, next)
	write("SERVAL_OIDC_CLIENT_SECRET", "the-next-secret-of-the-client")
	until(t, "being used again", func() bool {
		return e.told(usable, rootSecret, 2)() && e.told(usable, "SERVAL_OIDC_CLIENT_SECRET", 1)()
	})
	e.stands(rootSecret, true)
	e.stands("SERVAL_OIDC_CLIENT_SECRET", true)

	// The key of External IDs is never changed.
	write("SERVAL_EXTERNAL_ID_SECRET", strings.Repeat("cd", 32))
	until(t, "a refusal", e.told(unusable, "SERVAL_EXTERNAL_ID_SECRET", 1))
	e.stands("SERVAL_EXTERNAL_ID_SECRET", false)
	if n := e.logs.FilterMessage(unusable).Len(); n != 7 {
		t.Errorf("%d lines of secrets that cannot be used, want one for each of seven", n)
	}
	for _, entry := range e.logs.All() {
		if text := fmt.Sprint(entry.Message, entry.ContextMap()); strings.Contains(text, next) || strings.Contains(text, first) || strings.Contains(text, "the-next-secret") {
			t.Errorf("a secret is in the log: %s", entry.Message)
		}
	}
	if err := e.stop(); err != nil {
		t.Errorf("stopping: %v", err)
	}
	archive, err := OpenArchive(t.Context(), e.c.DatabaseURL, serval.NewSecret(next), serval.NewSecret(first))
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	if _, err := archive.Export(t.Context(), io.Discard); err != nil {
		t.Errorf("the audit chain, with both secrets: %v", err)
	}
}

// S-108: the database's user is another while sessions are opened.
func TestSecretOfTheDatabase(t *testing.T) {
	at := postgres(t)
	owner, err := pgx.Connect(t.Context(), at.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { owner.Close(context.WithoutCancel(t.Context())) })
	run := func(text string) {
		t.Helper()
		if _, err := owner.Exec(context.WithoutCancel(t.Context()), text); err != nil {
			t.Fatal(err)
		}
	}
	as := func(user string) string {
		u, err := url.Parse(at.Reveal())
		if err != nil {
			t.Fatal(err)
		}
		query := u.Query()
		query.Del("user")
		u.User, u.RawQuery = url.UserPassword(user, "x"), query.Encode()
		return u.String()
	}
	for _, user := range []string{"bridge_one", "bridge_two"} {
		run("create role " + user + " login superuser")
		t.Cleanup(func() {
			run("reassign owned by " + user + " to current_user; drop owned by " + user + "; drop role " + user)
		})
	}
	var write func(setting, text string)
	e := newEstate(t, func(c *Config) {
		c.DatabaseURL = serval.NewSecret(as("bridge_one"))
		write, _ = files(t, c, "SERVAL_DATABASE_URL")
	})
	ana, made := e.ana()
	write("SERVAL_DATABASE_URL", as("nobody_here"))
	until(t, "a refusal", e.told(unusable, "SERVAL_DATABASE_URL", 1))
	e.stands("SERVAL_DATABASE_URL", false)
	e.json(ana, "POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID}, 200, nil)
	write("SERVAL_DATABASE_URL", as("bridge_two"))
	until(t, "the database's user", e.told(inUse, "SERVAL_DATABASE_URL", 1))
	run("alter role bridge_one nologin")
	e.stands("SERVAL_DATABASE_URL", true)
	for range 5 {
		e.json(ana, "POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID}, 200, nil)
	}
	if err := e.stop(); err != nil {
		t.Errorf("stopping: %v", err)
	}
}

// S-108: a receiver's address and what it is signed with, Slack's tokens and the
// mail server's password are others from one delivery to the next.
func TestSecretsOfNotices(t *testing.T) {
	type call struct{ path, signature, bearer string }
	calls := make(chan call, 100)
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls <- call{r.URL.Path, r.Header.Get("Webhook-Signature"), r.Header.Get("Authorization")}
		fmt.Fprint(w, `{"ok": false, "error": "a test"}`)
	}))
	defer far.Close()
	office, passwords := mailServer(t, "one", "two")
	signing := func(b byte) string {
		return "whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat(string(b), 32)))
	}
	c := good()
	c.Now, c.Log = time.Now, zap.NewNop()
	c.Notices = Notices{
		Webhook: notify.WebhookConfig{URL: serval.NewSecret(far.URL + "/hook"), Secret: serval.NewSecret(signing('a'))},
		Slack: notify.SlackConfig{WebhookURL: serval.NewSecret(far.URL + "/slack"), AppToken: serval.NewSecret("xapp-one"),
			BotToken: serval.NewSecret("xoxb-one"), APIURL: far.URL + "/api"},
		Mail: notify.MailConfig{URL: office, From: "serval@example.com", Username: "serval", Password: serval.NewSecret("one")},
	}
	write, remove := files(t, &c, "SERVAL_WEBHOOK_URL", "SERVAL_WEBHOOK_SECRET", "SERVAL_SLACK_WEBHOOK_URL", "SERVAL_SLACK_APP_TOKEN",
		"SERVAL_SLACK_BOT_TOKEN", "SERVAL_SMTP_PASSWORD")
	m, err := newMessenger(&c)
	if err != nil {
		t.Fatal(err)
	}
	if names := notify.Names(m.channels); strings.Join(names, " ") != "webhook slack mail" {
		t.Fatalf("channels are %v", names)
	}
	registry := prometheus.NewRegistry()
	k := newKeeper(&c, m.rotations, registry)
	look := func() {
		k.look(t.Context())
		k.look(t.Context())
	}
	send := func(channel int) call {
		t.Helper()
		message := notify.Message{Notice: serval.Notice{ID: "n", To: serval.People{Emails: []string{"ana@example.com"}}}}
		if err := m.channels[channel].Send(t.Context(), message); err != nil {
			t.Fatalf("%s: %v", m.channels[channel].Name(), err)
		}
		if channel == 2 {
			return call{}
		}
		return <-calls
	}

	before := send(0)
	write("SERVAL_WEBHOOK_URL", far.URL+"/other")
	write("SERVAL_WEBHOOK_SECRET", "no secret of a webhook")
	look() // both, or neither
	if got := send(0); got.path != "/hook" {
		t.Errorf("half a rotation is in use: %+v", got)
	}
	if said, _ := k.report(t.Context()); !strings.Contains(said, "SERVAL_WEBHOOK_SECRET: ") || strings.Contains(said, "no secret of") {
		t.Errorf("/readyz says %q", said)
	}
	remove("SERVAL_WEBHOOK_SECRET")
	look()
	if got := send(0); got.path != "/hook" || got.signature == "" {
		t.Errorf("half a rotation is in use: %+v", got)
	}
	write("SERVAL_WEBHOOK_SECRET", signing('b'))
	look()
	if after := send(0); after.path != "/other" || after.signature == before.signature || after.signature == "" {
		t.Errorf("after the rotation %+v, before it %+v", after, before)
	}
	if said, _ := k.report(t.Context()); said != "" {
		t.Errorf("/readyz says %q", said)
	}

	send(1)
	write("SERVAL_SLACK_WEBHOOK_URL", far.URL+"/slack/other")
	look()
	if got := send(1); got.path != "/slack/other" {
		t.Errorf("Slack's webhook is %s", got.path)
	}

	send(2)
	write("SERVAL_SMTP_PASSWORD", "two")
	look()
	send(2)
	remove("SERVAL_SMTP_PASSWORD")
	look()
	send(2)
	for _, want := range []string{"one", "two", "two"} {
		if got := <-passwords; got != want {
			t.Errorf("the mail server is given the password %q, want %q", got, want)
		}
	}

	// Decisions are taken by the tokens of the day.
	ctx, stop := context.WithCancel(t.Context())
	var listening sync.WaitGroup
	listening.Go(func() {
		m.listen(ctx, &c, func(context.Context, notify.Click) (string, error) { return "", errors.New("nobody clicks") })
	})
	dialed := func() string {
		for got := range calls {
			if got.path == "/api/apps.connections.open" {
				return got.bearer
			}
		}
		return ""
	}
	if got := dialed(); got != "Bearer xapp-one" {
		t.Errorf("Slack is dialed by %q", got)
	}
	write("SERVAL_SLACK_APP_TOKEN", "xapp-two")
	write("SERVAL_SLACK_BOT_TOKEN", "xoxb-two")
	look()
	until(t, "dialing by the new token", func() bool { return dialed() == "Bearer xapp-two" })
	stop()
	listening.Wait()
}

// mailServer takes mail, and tells which of some passwords it was shown each time.
func mailServer(t *testing.T, known ...string) (address string, passwords <-chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	given := make(chan string, 10)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				fmt.Fprint(conn, "220 here\r\n")
				lines, letter := bufio.NewScanner(conn), false
				for lines.Scan() {
					line := lines.Text()
					switch {
					case letter && line != ".":
						continue
					case strings.HasPrefix(line, "EHLO"):
						fmt.Fprint(conn, "250-here\r\n250 AUTH CRAM-MD5\r\n")
						continue
					case line == "AUTH CRAM-MD5": // the one way that shows no password to whoever listens
						fmt.Fprintf(conn, "334 %s\r\n", base64.StdEncoding.EncodeToString([]byte("challenge")))
						lines.Scan()
						answer, _ := base64.StdEncoding.DecodeString(lines.Text())
						for _, password := range known {
							mac := hmac.New(md5.New, []byte(password))
							mac.Write([]byte("challenge"))
							if string(answer) == "serval "+hex.EncodeToString(mac.Sum(nil)) {
								given <- password
							}
						}
						fmt.Fprint(conn, "235 welcome\r\n")
						continue
					case line == "QUIT":
						fmt.Fprint(conn, "221 bye\r\n")
						return
					case line == "DATA":
						letter = true
						fmt.Fprint(conn, "354 go on\r\n")
						continue
					}
					letter = false
					fmt.Fprint(conn, "250 yes\r\n")
				}
			}()
		}
	}()
	return "smtp://" + l.Addr().String(), given
}

// S-108: a certificate that is renewed counts, and one that cannot be used leaves
// the last good one served.
func TestSecretOfTLS(t *testing.T) {
	e := &estate{t: t, c: config(t)}
	e.c.TLSCertFile, e.c.TLSKeyFile = certificate(t)
	e.c.PublicURL, e.c.lookEvery = "https://127.0.0.1:1", 5*time.Millisecond
	core, logs := observer.New(zapcore.InfoLevel)
	e.c.Log, e.logs = zap.New(core), logs
	e.running = start(t, e.c)
	served := func() string {
		t.Helper()
		conn, err := tls.Dial("tcp", e.pages, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return string(conn.ConnectionState().PeerCertificates[0].Raw)
	}
	first := served()
	cert, key := certificate(t)
	renew := func(what, with string) {
		t.Helper()
		text, err := os.ReadFile(with)
		if err != nil {
			t.Fatal(err)
		}
		replace(t, what, text)
	}
	renew(e.c.TLSCertFile, cert) // whose key is still the other's
	until(t, "a refusal", e.told(unusable, "SERVAL_TLS_CERT_FILE", 1))
	e.stands("SERVAL_TLS_CERT_FILE", false)
	if served() != first {
		t.Error("a certificate without its key is served")
	}
	renew(e.c.TLSKeyFile, key)
	until(t, "the renewed certificate", func() bool { return served() != first })
	until(t, "being used again", e.told(usable, "SERVAL_TLS_CERT_FILE", 1))
	second := served()
	if err := os.Remove(e.c.TLSKeyFile); err != nil {
		t.Fatal(err)
	}
	until(t, "a refusal", e.told(unusable, "SERVAL_TLS_CERT_FILE", 2))
	if served() != second {
		t.Error("the last good certificate is not served any more")
	}
}

// S-108: an upstream token that cannot be read is known before its worker comes.
func TestSecretOfAWorker(t *testing.T) {
	e := newEstate(t, func(c *Config) { c.lookEvery = 5 * time.Millisecond })
	e.stands("upstream_tokens", true)
	if err := os.Remove(e.c.File.UpstreamTokens[0].SecretFile); err != nil {
		t.Fatal(err)
	}
	until(t, "a refusal", e.told(unusable, "upstream_tokens", 1))
	e.stands("upstream_tokens", false)
	e.json(e.client(), "POST", "/api/v1/upstream/accounts/"+prod+"/syncs", wire.OpenSync{Worker: "w"}, 401, nil)
}

// What whoever it is for does not take is tried again now and then, and at once
// where it is another.
func TestSecretIsTriedAgain(t *testing.T) {
	c := good()
	c.Log = zap.NewNop()
	write, _ := files(t, &c, "SERVAL_OIDC_CLIENT_SECRET")
	tried, away := 0, true
	k := newKeeper(&c, []rotation{{[]string{"SERVAL_OIDC_CLIENT_SECRET"}, func(_ context.Context, used, next *Config) error {
		if tried++; away {
			return errors.New("away")
		}
		return nil
	}}}, prometheus.NewRegistry())
	looks := func(n, want int) {
		t.Helper()
		for range n {
			k.look(t.Context())
		}
		if tried != want {
			t.Fatalf("tried %d times, want %d", tried, want)
		}
	}
	looks(5, 0)
	write("SERVAL_OIDC_CLIENT_SECRET", "another")
	looks(1, 0) // it may be half of it
	looks(1, 1)
	looks(again, 1)
	looks(1, 2)
	write("SERVAL_OIDC_CLIENT_SECRET", "yet another")
	looks(2, 3)
	away = false
	looks(again, 3)
	looks(1, 4)
	looks(5, 4)
	if got := k.used.OIDC.ClientSecret.Reveal(); got != "yet another" {
		t.Errorf("in use is %q", got)
	}
}

// A root secret whose older ones are put right is another, and so are secrets that
// are taken up together where the second is.
func TestSecretPutRightIsTriedAtOnce(t *testing.T) {
	for _, test := range []struct {
		settings     []string
		wrong, right string // of the last
	}{
		{[]string{"SERVAL_SECRET"}, strings.Repeat("new.", 8), strings.Repeat("new.", 8) + "," + strings.Repeat("old.", 8)},
		{[]string{"SERVAL_SLACK_APP_TOKEN", "SERVAL_SLACK_BOT_TOKEN"}, "xoxb-wrong", "xoxb-right"},
	} {
		c := good()
		c.Log = zap.NewNop()
		write, _ := files(t, &c, test.settings...)
		wrong, tried := true, 0
		k := newKeeper(&c, []rotation{{test.settings, func(context.Context, *Config, *Config) error {
			if tried++; wrong {
				return errors.New("wrong")
			}
			return nil
		}}}, prometheus.NewRegistry())
		last := test.settings[len(test.settings)-1]
		if len(test.settings) > 1 {
			write(test.settings[0], "xapp-another")
		}
		write(last, test.wrong)
		k.look(t.Context())
		k.look(t.Context())
		wrong = false
		write(last, test.right)
		k.look(t.Context())
		k.look(t.Context())
		if tried != 2 {
			t.Errorf("%v: tried %d times, want once when wrong and once when right", test.settings, tried)
		}
	}
}
