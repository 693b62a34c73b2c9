package notify

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A receiver of every channel is slow, fails, is away, and is back. No notice is
// lost and none is noted as sent twice; who writes them does not wait.
func TestReceiversAreSlowFailingAwayAndBack(t *testing.T) {
	const (
		good int32 = iota
		slow
		failing
		away
	)
	var state atomic.Int32
	var mu sync.Mutex
	got := map[string]map[string]int{Webhook: {}, Slack: {}, Mail: {}}
	took := func(channel, id string) {
		mu.Lock()
		defer mu.Unlock()
		got[channel][id]++
	}
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch state.Load() {
		case slow:
			time.Sleep(200 * time.Millisecond)
		case failing:
			w.WriteHeader(http.StatusBadGateway)
			return
		case away:
			panic(http.ErrAbortHandler)
		}
		if r.URL.Path == "/slack" {
			took(Slack, string(body))
			return
		}
		took(Webhook, r.Header.Get("webhook-id"))
	}))
	defer receiver.Close()
	office := newPostOffice(t)
	hook, err := NewWebhook(WebhookConfig{URL: serval.NewSecret(receiver.URL + "/hook"), Secret: whsec}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	mail, err := NewMail(MailConfig{URL: office.url(), From: "serval@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, hook, NewSlack(SlackConfig{WebhookURL: serval.NewSecret(receiver.URL + "/slack")}), mail)

	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer func() {
		stop()
		running.Wait()
	}()
	told := 0
	phase := func(name string, channels []string, n int) {
		w.door.Channels = channels
		var times []time.Duration
		for range n {
			began := time.Now()
			w.tell(serval.People{Emails: []string{"ann@example.com"}}, fmt.Sprint("notice ", told))
			times = append(times, time.Since(began))
			if channels != nil {
				told++
			}
			time.Sleep(2 * time.Millisecond)
		}
		slices.Sort(times)
		t.Logf("%-8s %3d acts that tell somebody: median %s, p99 %s", name, n, times[n/2].Round(10*time.Microsecond), times[(n*99+99)/100-1].Round(10*time.Microsecond))
		if times[n-1] > patience/2 {
			t.Errorf("%s: an act took %s", name, times[n-1])
		}
	}
	all := w.door.Channels
	phase("before", nil, 100)
	running.Go(func() { w.notifier.Run(ctx) })
	running.Go(func() { // time goes by quickly, so that pauses are over
		for ctx.Err() == nil {
			time.Sleep(10 * time.Millisecond)
			w.move(200 * time.Millisecond)
		}
	})
	for _, s := range []struct {
		name  string
		state int32
		mail  string
		mute  bool
	}{{"good", good, "", false}, {"slow", slow, "", true}, {"failing", failing, "451 not now", false}, {"away", away, "421 gone", false}} {
		state.Store(s.state)
		office.set(s.mail, s.mute)
		phase(s.name, all, 60)
	}
	state.Store(good)
	office.set("", false)
	for until := time.Now().Add(2 * time.Minute); len(w.notices(serval.NoticePending)) > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("%d are still pending", len(w.notices(serval.NoticePending)))
		}
	}
	stop()
	running.Wait() // the outcomes are counted after they are kept
	mu.Lock()
	defer mu.Unlock()
	for channel, want := range map[string]int{Webhook: told, Slack: told} {
		if len(got[channel]) != want {
			t.Errorf("%s: %d of %d notices came", channel, len(got[channel]), want)
		}
	}
	letters := map[string]int{}
	for _, l := range office.taken() {
		letters[subject(l)]++
	}
	if len(letters) != told {
		t.Errorf("mail: %d of %d notices came", len(letters), told)
	}
	if failed := w.notices(serval.NoticeFailed); len(failed) > 0 {
		t.Errorf("%d have failed for good", len(failed))
	}
	for _, channel := range all {
		if n := w.outcome(channel + " sent"); n != told {
			t.Errorf("%s: %d are noted as sent, want %d", channel, n, told)
		}
		t.Logf("%s: %d notices, %d attempts that failed and were made again", channel, told, w.outcome(channel+" retried"))
	}
}
