package notify

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// whsec is the secret of a test, made of a text so that it looks like none.
var whsec = serval.NewSecret("whsec_" + base64.StdEncoding.EncodeToString([]byte("the secret of a test, in 32 byte")))

// A receiver of webhooks checks each as the specification says, and answers what
// it is told to.
func TestWebhook(t *testing.T) {
	verifier, err := standardwebhooks.NewWebhook(whsec.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	var status atomic.Int64
	var ids []string
	var bodies []event
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if err := verifier.Verify(body, r.Header); err != nil {
			t.Errorf("a webhook that does not verify: %v", err)
		}
		var e event
		if err := json.Unmarshal(body, &e); err != nil {
			t.Error(err)
		}
		ids, bodies = append(ids, r.Header.Get("webhook-id")), append(bodies, e)
		if code := int(status.Load()); code != 0 {
			w.Header().Set("Location", "/elsewhere")
			w.Header().Set("Retry-After", "30")
			w.WriteHeader(code)
		}
	}))
	defer receiver.Close()
	c, err := NewWebhook(WebhookConfig{URL: serval.NewSecret(receiver.URL + "/hook"), Secret: whsec}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, c)
	w.tellOf(person("ana@example.com"), serval.RequestCreate, w.request())
	for _, code := range []int{500, 302, 429, 0} {
		status.Store(int64(code))
		w.turn()
		w.move(time.Minute)
	}
	if len(ids) != 4 || ids[0] == "" || ids[0] != ids[3] || ids[1] != ids[2] {
		t.Fatalf("the attempts had the ids %q, want four of one", ids)
	}
	e := bodies[3]
	if e.Type != "request.create" || e.Data.Purpose != serval.ToDecide || !e.Data.Decidable || e.Data.Recipients.Groups[0] != "leads" ||
		e.Data.Facts["ticket"] != "OPS-1" || !strings.HasPrefix(e.Data.URL, origin+"/requests/req_") || !e.Timestamp.Equal(noon) {
		t.Errorf("the event is %+v", e)
	}
	if len(w.notices(serval.NoticeSent)) != 1 {
		t.Errorf("what was taken is not sent: %+v", w.notices(serval.NoticePending))
	}
}

func TestSettings(t *testing.T) {
	secret := serval.NewSecret
	for _, test := range []struct {
		name   string
		faults []string
		want   string
	}{
		{"no webhook", WebhookConfig{}.Faults(), ""},
		{"webhook", WebhookConfig{secret("https://a.example/x?token=1"), whsec}.Faults(), ""},
		{"webhook on loopback", WebhookConfig{secret("http://127.0.0.1:1/x"), whsec}.Faults(), ""},
		{"webhook over http", WebhookConfig{secret("http://a.example/x"), whsec}.Faults(), "SERVAL_WEBHOOK_URL: must be https"},
		{"webhook without a secret", WebhookConfig{secret("https://a.example"), secret("")}.Faults(), "SERVAL_WEBHOOK_SECRET:"},
		{"secret without a webhook", WebhookConfig{secret(""), whsec}.Faults(), "SERVAL_WEBHOOK_URL: required"},
		{"short secret", WebhookConfig{secret("https://a.example"), secret("whsec_YWJj")}.Faults(), "SERVAL_WEBHOOK_SECRET:"},
		{"long secret", WebhookConfig{secret("https://a.example"), secret("whsec_" + strings.Repeat("YWJj", 40))}.Faults(), "SERVAL_WEBHOOK_SECRET:"},
		{"secret that is no base64", WebhookConfig{secret("https://a.example"), secret(whsec.Reveal() + "!")}.Faults(), "SERVAL_WEBHOOK_SECRET:"},
		{"secret without its prefix", WebhookConfig{secret("https://a.example"), secret(whsec.Reveal()[6:])}.Faults(), "SERVAL_WEBHOOK_SECRET:"},

		{"no mail", MailConfig{}.Faults(), ""},
		{"mail", MailConfig{URL: "smtp://mail.example.com", From: "serval@example.com"}.Faults(), ""},
		{"mail by TLS", MailConfig{URL: "smtps://mail.example.com:465", From: "serval@example.com", Username: "u", Password: secret("p")}.Faults(), ""},
		{"mail by http", MailConfig{URL: "https://mail.example.com", From: "serval@example.com"}.Faults(), "SERVAL_SMTP_URL:"},
		{"mail with a password in its address", MailConfig{URL: "smtp://u:p@mail.example.com", From: "serval@example.com"}.Faults(), "SERVAL_SMTP_URL:"},
		{"mail to an address that cannot be read", MailConfig{URL: "smtp://%", From: "serval@example.com"}.Faults(), "SERVAL_SMTP_URL:"},
		{"mail to no host", MailConfig{URL: "smtp://:587", From: "serval@example.com"}.Faults(), "SERVAL_SMTP_URL:"},
		{"mail with a path", MailConfig{URL: "smtp://mail.example.com/x", From: "serval@example.com"}.Faults(), "SERVAL_SMTP_URL:"},
		{"mail with a query", MailConfig{URL: "smtp://mail.example.com?tls=off", From: "serval@example.com"}.Faults(), "SERVAL_SMTP_URL:"},
		{"mail with a fragment", MailConfig{URL: "smtp://mail.example.com#x", From: "serval@example.com"}.Faults(), "SERVAL_SMTP_URL:"},
		{"mail to port 0", MailConfig{URL: "smtp://mail.example.com:0", From: "serval@example.com"}.Faults(), "SERVAL_SMTP_URL:"},
		{"mail to no port", MailConfig{URL: "smtp://mail.example.com:65536", From: "serval@example.com"}.Faults(), "SERVAL_SMTP_URL:"},
		{"mail of nobody", MailConfig{URL: "smtp://mail.example.com"}.Faults(), "SERVAL_SMTP_FROM:"},
		{"mail without a server", MailConfig{From: "serval@example.com"}.Faults(), "SERVAL_SMTP_URL:"},
		{"mail with half a login", MailConfig{URL: "smtp://mail.example.com", From: "serval@example.com", Username: "u"}.Faults(), "SERVAL_SMTP_USERNAME:"},

		{"no Slack", SlackConfig{APIURL: "https://slack.com/api"}.Faults(), ""},
		{"Slack", SlackConfig{WebhookURL: secret("https://hooks.slack.example/x")}.Faults(), ""},
		{"Slack with buttons", SlackConfig{secret("https://hooks.slack.example/x"), secret("xapp-1"), secret("xoxb-1"), ""}.Faults(), ""},
		{"Slack over http", SlackConfig{WebhookURL: secret("http://hooks.slack.example/x")}.Faults(), "SERVAL_SLACK_WEBHOOK_URL:"},
		{"tokens alone", SlackConfig{AppToken: secret("xapp-1"), BotToken: secret("xoxb-1")}.Faults(), "SERVAL_SLACK_WEBHOOK_URL: required"},
		{"an app's token alone", SlackConfig{AppToken: secret("xapp-1")}.Faults(), "SERVAL_SLACK_WEBHOOK_URL: required|SERVAL_SLACK_APP_TOKEN:"},
		{"a bot's token alone", SlackConfig{BotToken: secret("xoxb-1")}.Faults(), "SERVAL_SLACK_WEBHOOK_URL: required|SERVAL_SLACK_APP_TOKEN:"},
		{"one token", SlackConfig{WebhookURL: secret("https://hooks.slack.example/x"), AppToken: secret("xapp-1")}.Faults(), "SERVAL_SLACK_APP_TOKEN:"},
		{"tokens the wrong way round", SlackConfig{secret("https://h.example/x"), secret("xoxb-1"), secret("xapp-1"), ""}.Faults(), "SERVAL_SLACK_APP_TOKEN:"},
		{"a wrong bot token", SlackConfig{secret("https://h.example/x"), secret("xapp-1"), secret("xoxp-1"), ""}.Faults(), "SERVAL_SLACK_BOT_TOKEN:"},
		{"Slack's API over http", SlackConfig{secret("https://h.example/x"), secret("xapp-1"), secret("xoxb-1"), "http://slack.example"}.Faults(), "SERVAL_SLACK_API_URL:"},
	} {
		var want []string
		if test.want != "" {
			want = strings.Split(test.want, "|")
		}
		if !slices.EqualFunc(test.faults, want, strings.HasPrefix) {
			t.Errorf("%s: %q, want those that begin with %q", test.name, test.faults, want)
		}
	}
	for url, want := range map[string]server{
		"smtp://127.0.0.1:25":    {"127.0.0.1", 25, false, true},
		"smtp://mail.example":    {"mail.example", 587, false, false},
		"smtps://127.0.0.1":      {"127.0.0.1", 465, true, false},
		"smtps://mail.example:1": {"mail.example", 1, true, false},
	} {
		if got, err := (MailConfig{URL: url}).server(); got != want || err != nil {
			t.Errorf("%s: %+v, %v; want %+v", url, got, err, want)
		}
	}
}
