package bridge

import (
	"context"
	"crypto/rand"
	"fmt"
	"path"
	"sync"
	"sync/atomic"

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

// A messenger is the channels that are set. Each is made anew when its secrets
// change, and delivers by the new ones from then on.
type messenger struct {
	channels  []notify.Channel
	rotations []rotation
	socket    chan notify.SlackConfig // by what decisions are taken from Slack, where that changed
}

func newMessenger(c *Config) (*messenger, error) {
	m := &messenger{socket: make(chan notify.SlackConfig, 1)}
	for _, kind := range []struct {
		set      bool
		settings []string
		open     func(c *Config) (notify.Channel, error)
	}{
		{c.Notices.Webhook != (notify.WebhookConfig{}), []string{"SERVAL_WEBHOOK_URL", "SERVAL_WEBHOOK_SECRET"},
			func(c *Config) (notify.Channel, error) { return notify.NewWebhook(c.Notices.Webhook, c.Now) }},
		{!c.Notices.Slack.WebhookURL.Empty(), []string{"SERVAL_SLACK_WEBHOOK_URL", "SERVAL_SLACK_APP_TOKEN", "SERVAL_SLACK_BOT_TOKEN"},
			func(c *Config) (notify.Channel, error) {
				m.redial(c.Notices.Slack)
				return notify.NewSlack(c.Notices.Slack), nil
			}},
		{c.Notices.Mail != (notify.MailConfig{}), []string{"SERVAL_SMTP_PASSWORD"},
			func(c *Config) (notify.Channel, error) { return notify.NewMail(c.Notices.Mail) }},
	} {
		if !kind.set {
			continue
		}
		var now renewed
		take := func(_ context.Context, _, next *Config) error {
			channel, err := kind.open(next)
			if err == nil {
				now.Store(&channel)
			}
			return err
		}
		if err := take(context.Background(), nil, c); err != nil {
			return nil, err
		}
		m.channels = append(m.channels, &now)
		m.rotations = append(m.rotations, rotation{kind.settings, take})
	}
	return m, nil
}

// redial has decisions be taken from Slack by these tokens from now on.
func (m *messenger) redial(c notify.SlackConfig) {
	select {
	case <-m.socket: // nobody has dialed by those
	default:
	}
	m.socket <- c
}

// A renewed is the channel that is in use now.
type renewed struct{ atomic.Pointer[notify.Channel] }

// Name returns the channel's name.
func (r *renewed) Name() string { return (*r.Load()).Name() }

// Send delivers by what the channel is now.
func (r *renewed) Send(ctx context.Context, m notify.Message) error { return (*r.Load()).Send(ctx, m) }

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
func (c *Config) notify(ctx context.Context, d *door.Door, plane *control.Plane, m *messenger, registry *prometheus.Registry) (end func()) {
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	deliveries := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "serval_notice_deliveries_total", Help: "Attempts to deliver a notice, by how they came out.",
	}, []string{"channel", "outcome"})
	for _, name := range notify.Names(m.channels) {
		for _, outcome := range []string{"sent", "retried", "failed"} {
			deliveries.WithLabelValues(name, outcome)
		}
	}
	registry.MustRegister(deliveries, newQueues(d.Store, c.Now, d.Channels))
	told := func(channel, outcome string) { deliveries.WithLabelValues(channel, outcome).Inc() }
	notifier := notify.New(d, c.PublicURL, c.Log, told, m.channels...)
	running.Go(func() { notifier.Run(ctx) })
	if c.Notices.Slack.Interactive() {
		running.Go(func() { m.listen(ctx, c, decideInSlack(plane)) })
	}
	return func() {
		stop()
		running.Wait()
	}
}

// listen takes decisions from Slack until ctx ends, by the tokens that are in use.
func (m *messenger) listen(ctx context.Context, c *Config, decide func(context.Context, notify.Click) (string, error)) {
	var running sync.WaitGroup
	defer running.Wait()
	hangUp := func() {}
	defer func() { hangUp() }()
	for {
		select {
		case <-ctx.Done():
			return
		case tokens := <-m.socket:
			hangUp()
			running.Wait() // what is under way is done
			dialed, cancel := context.WithCancel(ctx)
			hangUp = cancel
			running.Go(func() { notify.NewSocket(tokens, c.PublicURL, c.Log, decide).Run(dialed) })
		}
	}
}
