package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A SlackConfig says how Slack is spoken to: messages by an incoming webhook, and
// with both tokens decisions by Socket Mode, which goes out from here and opens
// nothing to the world.
type SlackConfig struct {
	WebhookURL serval.Secret // whoever has it can post
	AppToken   serval.Secret // xapp-…, with connections:write
	BotToken   serval.Secret // xoxb-…, with users:read and users:read.email
	APIURL     string        // of Slack; empty: https://slack.com/api
}

// Faults returns all that is wrong with the settings, by their variables.
func (c SlackConfig) Faults() []string {
	if c.WebhookURL.Empty() && c.AppToken.Empty() && c.BotToken.Empty() {
		return nil
	}
	var faults []string
	if c.WebhookURL.Empty() {
		faults = append(faults, "SERVAL_SLACK_WEBHOOK_URL: required where a token for Slack is set.")
	} else if err := serval.CheckEndpoint(c.WebhookURL.Reveal()); err != nil {
		faults = append(faults, "SERVAL_SLACK_WEBHOOK_URL: "+err.Error())
	}
	switch {
	case c.AppToken.Empty() != c.BotToken.Empty():
		faults = append(faults, "SERVAL_SLACK_APP_TOKEN: decisions from Slack need SERVAL_SLACK_BOT_TOKEN too; give both, or neither.")
	case c.AppToken.Empty():
	case !strings.HasPrefix(c.AppToken.Reveal(), "xapp-"):
		faults = append(faults, "SERVAL_SLACK_APP_TOKEN: an app-level token begins with xapp-.")
	case !strings.HasPrefix(c.BotToken.Reveal(), "xoxb-"):
		faults = append(faults, "SERVAL_SLACK_BOT_TOKEN: a bot token begins with xoxb-.")
	}
	if c.APIURL != "" {
		if err := serval.CheckEndpoint(c.APIURL); err != nil {
			faults = append(faults, "SERVAL_SLACK_API_URL: "+err.Error())
		}
	}
	return faults
}

// Interactive reports whether people can decide from Slack.
func (c SlackConfig) Interactive() bool { return !c.AppToken.Empty() && !c.BotToken.Empty() }

// slack is the channel of Slack's incoming webhook.
type slack struct {
	config SlackConfig
	client *http.Client
}

// NewSlack returns the channel of Slack's incoming webhook.
func NewSlack(c SlackConfig) Channel { return &slack{c, newClient()} }

// Name returns the channel's name.
func (s *slack) Name() string { return Slack }

// Slack's bounds of what is shown (Block Kit reference).
const (
	maxSlackHeader = 150
	maxSlackText   = 3000
	maxSlackFields = 10
	maxSlackField  = 2000
)

// blocks are a message in Slack's own form. What people wrote is plain text
// there: it makes no link, and calls nobody.
func (s *slack) blocks(m Message) []any {
	plain := func(text string, most int) map[string]any {
		return map[string]any{"type": "plain_text", "text": serval.Cut(text, most), "emoji": false}
	}
	blocks := []any{map[string]any{"type": "header", "text": plain(oneLine(m.Title), maxSlackHeader)}}
	for _, l := range m.Lines {
		text := l.Text
		if l.Name != "" {
			text = l.Name + ": " + text
		}
		blocks = append(blocks, map[string]any{"type": "section", "text": plain(text, maxSlackText)})
	}
	var buttons []any
	button := func(text, action, value, style string, confirm bool) {
		b := map[string]any{"type": "button", "text": plain(text, 75), "action_id": action, "value": value}
		if style != "" {
			b["style"] = style
		}
		if confirm {
			b["confirm"] = map[string]any{"title": plain(text, 100), "text": plain(oneLine(m.Title), 300), "confirm": plain(text, 30), "deny": plain("Go back", 30)}
		}
		buttons = append(buttons, b)
	}
	if m.Decide != nil && s.config.Interactive() {
		value := m.Decide.RequestID + " " + strconv.Itoa(m.Decide.Round)
		button("Approve", actionApprove, value, "primary", true)
		button("Deny", actionDeny, value, "danger", true)
	}
	if m.Link != "" {
		buttons = append(buttons, map[string]any{"type": "button", "text": plain(m.Do, 75), "action_id": actionOpen, "url": m.Link})
	}
	if len(buttons) > 0 {
		blocks = append(blocks, map[string]any{"type": "actions", "elements": buttons})
	}
	return blocks
}

// Send posts the message.
func (s *slack) Send(ctx context.Context, m Message) error {
	body, err := encode(map[string]any{"text": slackText(oneLine(m.Title)), "blocks": s.blocks(m), "unfurl_links": false})
	if err != nil {
		return err
	}
	_, err = post(ctx, s.client, s.config.WebhookURL, body, nil)
	return err
}

// slackText returns text that Slack shows as it is (Formatting text for app
// surfaces: three characters).
func slackText(text string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(text)
}

// The buttons.
const (
	actionApprove = "serval_approve"
	actionDeny    = "serval_deny"
	actionOpen    = "serval_open"
)

// call calls a method of Slack's API under a token, and reads its answer.
func call(ctx context.Context, client *http.Client, api, method string, token serval.Secret, query string, answer any) error {
	text, err := post(ctx, client, serval.NewSecret(api+"/"+method+query), nil, http.Header{"Authorization": {"Bearer " + token.Reveal()}})
	if err != nil {
		return fmt.Errorf("calling Slack's %s: %s", method, why(err))
	}
	var said struct {
		OK    bool   `json:"ok"`
		Error string `json:"error"`
	}
	if err := json.Unmarshal(text, &said); err != nil {
		return fmt.Errorf("the answer to %s is no JSON", method)
	}
	if !said.OK {
		return fmt.Errorf("calling Slack's %s: it was refused: %s", method, serval.Clip(said.Error, 100))
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return errors.New("the answer to " + method + " is of another form")
	}
	return nil
}
