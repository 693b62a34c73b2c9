package main

import (
	"encoding/base64"
	"flag"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var receivers = flag.Duration("receivers", 0, "for how long people ask and withdraw, in each state that the receivers of notices are in (make bench-notices)")

// People ask and withdraw, of which approvers are told each time, while the
// receivers of webhook, Slack and mail are well, slow, failing, away, and back.
// People's answers take as long as before, and no notice is lost.
func TestReceivers(t *testing.T) {
	if *receivers == 0 {
		t.Skip("make bench-notices measures")
	}
	var state atomic.Pointer[string]
	set := func(name string) { state.Store(&name) }
	set("well")
	var mu sync.Mutex
	came := map[string]int{} // by the webhook's id
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		switch *state.Load() {
		case "slow":
			pause(r.Context(), 15*time.Second) // longer than a delivery has
		case "failing":
			w.WriteHeader(http.StatusBadGateway)
		case "away":
			panic(http.ErrAbortHandler)
		case "well":
			if id := r.Header.Get("Webhook-Id"); id != "" {
				mu.Lock()
				came[id]++
				mu.Unlock()
			}
		}
	}))
	t.Cleanup(receiver.Close)
	mail, err := net.Listen("tcp", "127.0.0.1:0") // it takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mail.Close() })

	s := newSoak(t, 200, "sqlite://"+filepath.Join(t.TempDir(), "serval.db"), "{steps: [{emails: [lead@example.com]}]}")
	s.settings = append(s.settings,
		"SERVAL_WEBHOOK_URL="+receiver.URL+"/hook", "SERVAL_WEBHOOK_SECRET=whsec_"+base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32))),
		"SERVAL_SLACK_WEBHOOK_URL="+receiver.URL+"/slack",
		"SERVAL_SMTP_URL=smtp://"+mail.Addr().String(), "SERVAL_SMTP_FROM=serval@example.com")
	s.served = s.serve(s.build(), s.address)
	s.stock()
	s.run(*receivers, 0) // everybody is signed in
	s.lap()
	for _, name := range []string{"well", "slow", "failing", "away", "well"} {
		set(name)
		s.run(*receivers, 0)
		n, p50, p99 := s.lap()
		t.Logf("%-8s %5d answers, median %s, p99 %s", name, n, p50.Round(10*time.Microsecond), p99.Round(10*time.Microsecond))
	}
	pending := func() float64 { return s.metric(s.metrics(), `serval_notices_pending{channel="webhook"}`) }
	told := 2 * int(s.loops.Load()) // each asks, and withdraws
	for began := time.Now(); pending() > 0; time.Sleep(time.Second) {
		if time.Since(began) > 5*time.Minute {
			t.Fatalf("%.0f notices are still pending", pending())
		}
	}
	mu.Lock()
	defer mu.Unlock()
	twice := 0
	for _, n := range came {
		twice += min(n-1, 1)
	}
	t.Logf("%d notices, of which the webhook's receiver took %d, %d of them more than once", told, len(came), twice)
	if len(came) != told {
		t.Errorf("%d notices came of %d", len(came), told)
	}
}
