// Package notify brings messages out: to a webhook, to Slack, by mail. What they
// tell of is decided elsewhere, and kept as rows in the transaction of what
// happened; here they are claimed, put into words and delivered.
//
// Each channel has a loop of its own, so that a receiver that is slow or away
// holds up no other, and no person either: nothing waits for a delivery. A notice
// is claimed for longer than a delivery may take, delivered, and only then noted
// as sent. A crash between costs a second delivery, never the only one; every
// message carries the notice's id, so that a receiver can tell. What fails is
// tried again with growing pauses for about a day and is then kept as failed,
// where admins see it and can have it sent again.
package notify

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// The names of the channels, as rows and metrics have them.
const (
	Webhook = "webhook"
	Slack   = "slack"
	Mail    = "mail"
)

// A Channel delivers messages.
type Channel interface {
	Name() string
	// Send delivers m or says why not; its error holds no secret. A *Later says
	// how long the receiver wants to be left alone.
	Send(ctx context.Context, m Message) error
}

// Later is an error of Send after which the receiver wants a pause.
type Later struct {
	Pause time.Duration
	Why   string
}

// Error returns why.
func (l *Later) Error() string { return l.Why }

// The bounds of one turn of a channel.
const (
	atOnce    = 8                // deliveries of a channel at a time
	patience  = 10 * time.Second // with one delivery
	claimLife = time.Minute      // longer than a delivery and its record
	lookEvery = time.Second
	maxPeople = 100 // who are told of one thing by mail
)

// How long delivered notices are kept, and how often the old ones go.
const (
	sentLife  = 90 * 24 * time.Hour
	sentLimit = 1000
	dropEvery = time.Hour
)

// A Notifier delivers what is due. Make it with New, and Run it.
type Notifier struct {
	door     *door.Door
	channels []Channel
	origin   string
	log      *zap.Logger
	told     func(channel, outcome string)
}

// New returns a notifier for the channels, whose messages lead to pages under
// origin. Told hears how each delivery came out, as sent, retried or failed; it
// may be nil.
func New(d *door.Door, origin string, log *zap.Logger, told func(channel, outcome string), channels ...Channel) *Notifier {
	if told == nil {
		told = func(string, string) {}
	}
	return &Notifier{door: d, channels: channels, origin: strings.TrimSuffix(origin, "/"), log: log, told: told}
}

// Names returns the names of channels.
func Names(channels []Channel) (names []string) {
	for _, c := range channels {
		names = append(names, c.Name())
	}
	return names
}

// Run delivers until ctx ends, and waits for what is on its way.
func (n *Notifier) Run(ctx context.Context) {
	var loops sync.WaitGroup
	for _, c := range n.channels {
		loops.Go(func() { n.every(ctx, lookEvery, c.Name(), func() error { return n.deliver(ctx, c) }) })
	}
	if len(n.channels) > 0 {
		loops.Go(func() { n.every(ctx, dropEvery, "old notices", func() error { return n.drop(ctx) }) })
	}
	loops.Wait()
}

// every runs turn again and again until ctx ends. One that fails or panics
// is logged, and the next comes later each time.
func (n *Notifier) every(ctx context.Context, pause time.Duration, what string, turn func() error) {
	failures := 0
	for ctx.Err() == nil {
		if err := guarded(turn); err == nil {
			failures = 0
		} else if failures++; ctx.Err() == nil {
			level := zap.ErrorLevel
			if errors.Is(err, errReceiver) {
				level = zap.WarnLevel
			}
			n.log.Log(level, "notices could not be delivered", zap.String("channel", what), zap.Error(err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause << min(failures, 5)):
		}
	}
}

// errPanic is the error of a turn that panicked.
var errPanic = errors.New("panic")

func guarded(turn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errPanic, p)
		}
	}()
	return turn()
}

// deliver delivers what is due on a channel until nothing is.
func (n *Notifier) deliver(ctx context.Context, c Channel) error {
	for ctx.Err() == nil {
		var due bool
		err := n.door.View(ctx, serval.System(), serval.NoticeSend, "", func(v *store.View) (err error) {
			due, err = v.HasDueNotices(c.Name(), n.door.Now())
			return err
		})
		if err != nil || !due {
			return err
		}
		claimed, err := n.claim(ctx, c.Name())
		if err != nil {
			return err
		}
		if err := n.send(ctx, c, claimed); err != nil {
			return err
		}
	}
	return nil
}

// errReceiver ends a turn in which nothing was taken: to go on at once would cost
// the database more than it brings anybody.
var errReceiver = errors.New("the receiver takes nothing")

// A claimed notice.
type claimed struct {
	serval.Notice
	request     *serval.Request // that it is about, as it stands now; nil where it is about none
	undelivered error           // what came of sending it
}

// claim takes what is due on a channel. What is to be mailed to a group becomes a
// notice for each person, so that one who cannot be reached doubles nobody's mail;
// what there is nothing left to tell of is dropped.
func (n *Notifier) claim(ctx context.Context, channel string) (list []claimed, err error) {
	err = n.act(ctx, serval.NoticeSend, "", func(tx *store.Tx, e *serval.Event) error {
		list = nil
		e.Action, e.Outcome = "", "" // what matters is how it comes out
		due, err := tx.ClaimNotices(channel, tx.Now.Add(claimLife), atOnce)
		if err != nil {
			return err
		}
		for _, one := range due {
			c := claimed{Notice: one}
			if one.RequestID != "" {
				if c.request, err = tx.Request(one.RequestID); err != nil {
					return err
				}
			}
			switch {
			case one.Purpose == serval.Ending && !endsSoon(c.request, tx.Now):
				_, err = tx.DropNotice(one)
			case channel == Mail && (len(one.To.Groups) > 0 || len(one.To.Emails) > 1):
				err = n.spread(tx, one, c.request)
			default:
				list = append(list, c)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	return list, err
}

// endsSoon reports whether somebody still has to hear that the access ends.
func endsSoon(r *serval.Request, now time.Time) bool {
	return r != nil && r.State() == serval.StateRunning && now.Before(r.EndsAt)
}

// spread puts a notice for each person in the place of one for several. Whoever
// did what it tells of, and whoever cannot decide what they are asked to, is left
// out.
func (n *Notifier) spread(tx *store.Tx, one serval.Notice, r *serval.Request) error {
	emails, err := tx.EmailsOfGroups(one.To.Groups, maxPeople)
	if err != nil {
		return err
	}
	// Those who are named come first, and so are never the ones too many.
	emails = append(slices.Clone(one.To.Emails), emails...)
	seen := map[string]bool{serval.FoldEmail(one.Facts[serval.FactBy]): one.Purpose == serval.Handled}
	if r != nil && one.Purpose == serval.ToDecide && !r.Terms.AllowSelfApproval {
		seen[serval.FoldEmail(r.Email)] = true
	}
	var people []string
	for _, email := range emails {
		if fold := serval.FoldEmail(email); !seen[fold] {
			seen[fold] = true
			people = append(people, email)
		}
	}
	if len(people) > maxPeople {
		n.log.Warn("a notice is for more people than are told by mail", zap.String("notice", one.ID), zap.Int("people", len(people)), zap.Int("told", maxPeople))
		people = people[:maxPeople]
	}
	attempt := one.Attempts
	if len(people) == 0 {
		one.State, one.NextAt, one.EndedAt = serval.NoticeFailed, time.Time{}, tx.Now
		one.Error = "nobody of these has signed in yet, so no address is known"
		if one.Purpose == serval.Handled {
			one.Sent(tx.Now) // nobody but whoever did it
		}
		if _, err := tx.SaveNotice(one, attempt); err != nil || one.State == serval.NoticeSent {
			return err
		}
		n.told(Mail, "failed")
		return tx.Append(door.NoticeFailed(serval.System(), one))
	}
	if _, err := tx.DropNotice(one); err != nil {
		return err
	}
	for _, email := range people {
		each := one
		each.ID, each.To, each.Attempts, each.NextAt = door.NewID("notice"), serval.People{Emails: []string{email}}, 0, tx.Now
		if err := tx.CreateNotice(each); err != nil {
			return err
		}
	}
	return nil
}

// send delivers what was claimed, all at once, and then notes how that came out, in
// one transaction: people's own wait for it. A crash between has them delivered a
// second time.
func (n *Notifier) send(ctx context.Context, c Channel, list []claimed) error {
	var under sync.WaitGroup
	for i := range list {
		one := &list[i]
		under.Go(func() {
			sending, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			err := guarded(func() error { return c.Send(sending, n.message(*one)) })
			if errors.Is(err, errPanic) {
				n.log.Error("a notice could not be delivered", zap.String("channel", c.Name()), zap.String("notice", one.ID), zap.Error(err))
				err = errors.New("a fault of Serval's own, which the log tells of")
			}
			one.undelivered = err
		})
	}
	under.Wait()
	if ctx.Err() != nil { // the next process sends those again, when the claim is over
		list = slices.DeleteFunc(list, func(one claimed) bool { return one.undelivered != nil })
	}
	if len(list) == 0 {
		return ctx.Err()
	}
	if err := n.record(context.WithoutCancel(ctx), c.Name(), list); err != nil {
		return err
	}
	if !slices.ContainsFunc(list, func(one claimed) bool { return one.undelivered == nil }) {
		return errReceiver
	}
	return nil
}

// record notes how deliveries came out.
func (n *Notifier) record(ctx context.Context, channel string, list []claimed) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var after []serval.Notice
	err := n.act(ctx, serval.NoticeSend, "", func(tx *store.Tx, e *serval.Event) error {
		e.Action, e.Outcome = "", ""
		after = nil // this may be repeated
		for _, one := range list {
			was := one.Attempts
			if err := one.undelivered; err == nil {
				one.Sent(tx.Now)
			} else {
				var pause time.Duration
				if later, ok := errors.AsType[*Later](err); ok {
					pause = later.Pause
				}
				one.Failed(serval.Clip(why(err), 300), pause, tx.Now)
			}
			held, err := tx.SaveNotice(one.Notice, was)
			if err != nil {
				return err
			}
			if !held {
				continue
			}
			after = append(after, one.Notice)
			if one.State == serval.NoticeFailed {
				if err := tx.Append(door.NoticeFailed(serval.System(), one.Notice)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, one := range after {
		n.told(channel, outcomes[one.State])
		if one.State == serval.NoticeFailed {
			n.log.Error("a notice has failed for good", zap.String("channel", channel), zap.String("notice", one.ID), zap.String("of", string(one.Kind)))
		}
	}
	return nil
}

// outcomes are how a delivery came out, by what became of the notice. It is read
// only.
var outcomes = map[serval.NoticeState]string{serval.NoticeSent: "sent", serval.NoticePending: "retried", serval.NoticeFailed: "failed"}

// why returns what is kept of an error. An address may be a secret of its own, and
// net/http puts it into its errors.
func why(err error) string {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Sprintf("no answer within %s", patience)
	}
	return err.Error()
}

// drop forgets notices that were delivered long ago.
func (n *Notifier) drop(ctx context.Context) error {
	return n.act(ctx, serval.NoticeSend, "", func(tx *store.Tx, e *serval.Event) error {
		e.Action, e.Outcome = "", ""
		return tx.DropSent(tx.Now.Add(-sentLife), sentLimit)
	})
}

func (n *Notifier) act(ctx context.Context, what serval.Action, target string, f func(*store.Tx, *serval.Event) error) error {
	return n.door.Act(ctx, serval.System(), what, target, f)
}
