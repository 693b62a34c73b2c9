package bridge

import (
	"context"
	"crypto/rand"
	"fmt"
	"path"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/notify"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// Notices are the ways in which people are told of something outside of the
// pages; each is off where it is not set.
type Notices struct {
	Webhook notify.WebhookConfig
	Slack   notify.SlackConfig
	Mail    notify.MailConfig
}

func (n Notices) faults() []string {
	return append(append(n.Webhook.Faults(), n.Slack.Faults()...), n.Mail.Faults()...)
}

// channels returns those that are set.
func (c *Config) channels() (list []notify.Channel, err error) {
	if n := c.Notices.Webhook; n != (notify.WebhookConfig{}) {
		webhook, err := notify.NewWebhook(n, c.Now)
		if err != nil {
			return nil, err
		}
		list = append(list, webhook)
	}
	if !c.Notices.Slack.WebhookURL.Empty() {
		list = append(list, notify.NewSlack(c.Notices.Slack))
	}
	if n := c.Notices.Mail; n != (notify.MailConfig{}) {
		mail, err := notify.NewMail(n)
		if err != nil {
			return nil, err
		}
		list = append(list, mail)
	}
	return list, nil
}

// decideInSlack decides as whoever clicked, and says in a sentence what came of
// it.
func decideInSlack(plane *control.Plane) func(context.Context, notify.Click) (string, error) {
	return func(ctx context.Context, c notify.Click) (string, error) {
		who := serval.Principal{Kind: serval.KindNobody, RequestID: rand.Text()}
		by := control.Chatter{Chat: "slack", User: c.User, Email: c.Email}
		r, err := plane.DecideInChat(ctx, who, by, c.Request, c.Round, serval.Decision{Approve: c.Approve})
		if err != nil {
			return "", err
		}
		did := "denied"
		switch {
		case c.Approve && r.Asked() != nil:
			did = "approved a step of"
		case c.Approve:
			did = "approved"
		}
		return fmt.Sprintf("%s %s what %s asked for: %s.", c.Email, did, r.Email, path.Base(r.Role.ARN)), nil
	}
}

// notify has notices delivered, and decisions taken from Slack, until ctx ends or
// the function that it returns is called, which waits for what is under way.
func (c *Config) notify(ctx context.Context, d *door.Door, plane *control.Plane, channels []notify.Channel, registry *prometheus.Registry) (end func()) {
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	deliveries := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "serval_notice_deliveries_total", Help: "Attempts to deliver a notice, by how they came out.",
	}, []string{"channel", "outcome"})
	for _, name := range notify.Names(channels) {
		for _, outcome := range []string{"sent", "retried", "failed"} {
			deliveries.WithLabelValues(name, outcome)
		}
	}
	registry.MustRegister(deliveries, newQueues(d.Store, c.Now, d.Channels))
	told := func(channel, outcome string) { deliveries.WithLabelValues(channel, outcome).Inc() }
	notifier := notify.New(d, c.PublicURL, c.Log, told, channels...)
	running.Go(func() { notifier.Run(ctx) })
	if c.Notices.Slack.Interactive() {
		socket := notify.NewSocket(c.Notices.Slack, c.PublicURL, c.Log, decideInSlack(plane))
		running.Go(func() { socket.Run(ctx) })
	}
	return func() {
		stop()
		running.Wait()
	}
}
