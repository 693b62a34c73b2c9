package notify

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A WebhookConfig says where signed webhooks go.
type WebhookConfig struct {
	URL    serval.Secret // https, or http on loopback; it may hold a token
	Secret serval.Secret // whsec_ and base64 of 24 to 64 bytes
}

// Faults returns all that is wrong with the settings, by their variables.
func (c WebhookConfig) Faults() []string {
	if c == (WebhookConfig{}) {
		return nil
	}
	var faults []string
	if c.URL.Empty() {
		faults = append(faults, "SERVAL_WEBHOOK_URL: required where SERVAL_WEBHOOK_SECRET is set.")
	} else if err := serval.CheckEndpoint(c.URL.Reveal()); err != nil {
		faults = append(faults, "SERVAL_WEBHOOK_URL: "+err.Error())
	}
	if _, err := c.signer(); err != nil {
		faults = append(faults, "SERVAL_WEBHOOK_SECRET: required where SERVAL_WEBHOOK_URL is set; for example the output of: echo whsec_$(openssl rand -base64 32).")
	}
	return faults
}

// The bounds of a secret (Standard Webhooks, "Signature scheme").
const (
	minWebhookSecret = 24
	maxWebhookSecret = 64
)

func (c WebhookConfig) signer() (*standardwebhooks.Webhook, error) {
	if !strings.HasPrefix(c.Secret.Reveal(), "whsec_") {
		return nil, fmt.Errorf("a webhook secret begins with whsec_")
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(c.Secret.Reveal(), "whsec_"))
	if err != nil || len(raw) < minWebhookSecret || len(raw) > maxWebhookSecret {
		return nil, fmt.Errorf("a webhook secret is %d to %d bytes in base64", minWebhookSecret, maxWebhookSecret)
	}
	return standardwebhooks.NewWebhookRaw(raw)
}

// webhook is the channel of signed webhooks, by the Standard Webhooks
// specification: the id is the notice's, the same in every attempt.
type webhook struct {
	to     serval.Secret
	signer *standardwebhooks.Webhook
	client *http.Client
	now    func() time.Time
}

// NewWebhook returns the channel of signed webhooks.
func NewWebhook(c WebhookConfig, now func() time.Time) (Channel, error) {
	signer, err := c.signer()
	if err != nil {
		return nil, err
	}
	return &webhook{c.URL, signer, newClient(), now}, nil
}

// Name returns the channel's name.
func (w *webhook) Name() string { return Webhook }

// An event is the body of a webhook.
type event struct {
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"` // of what it tells of
	Data      eventData `json:"data"`
}

type eventData struct {
	Purpose    serval.Purpose    `json:"purpose"`
	RequestID  string            `json:"request_id,omitempty"`
	Recipients eventPeople       `json:"recipients"`
	Title      string            `json:"title"`
	Text       string            `json:"text"`
	URL        string            `json:"url,omitempty"`
	Decidable  bool              `json:"decidable"` // it waits for a decision now
	Facts      map[string]string `json:"facts"`
}

type eventPeople struct {
	Groups []string `json:"groups"`
	Emails []string `json:"emails"`
}

// Send posts the message.
func (w *webhook) Send(ctx context.Context, m Message) error {
	body, err := encode(event{Type: string(m.Kind), Timestamp: m.CreatedAt.UTC(), Data: eventData{
		Purpose: m.Purpose, RequestID: m.RequestID, Recipients: eventPeople{list(m.To.Groups), list(m.To.Emails)},
		Title: m.Title, Text: m.Text(), URL: m.Link, Decidable: m.Decide != nil, Facts: m.Facts,
	}})
	if err != nil {
		return err
	}
	at := w.now()
	signature, err := w.signer.Sign(m.ID, at, body)
	if err != nil {
		return fmt.Errorf("signing a webhook: %w", err)
	}
	_, err = post(ctx, w.client, w.to, body, http.Header{
		"Webhook-Id": {m.ID}, "Webhook-Timestamp": {strconv.FormatInt(at.Unix(), 10)}, "Webhook-Signature": {signature},
	})
	return err
}

// list returns l, or an empty list: in JSON there is no null.
func list(l []string) []string {
	if l == nil {
		return []string{}
	}
	return l
}
