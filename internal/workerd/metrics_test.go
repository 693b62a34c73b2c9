package workerd

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/serval-bridge/serval-bridge/internal/awsiam"
	"github.com/serval-bridge/serval-bridge/internal/probe"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/worker"
)

// scrape returns the lines of /metrics that are series.
func scrape(t *testing.T, r *prometheus.Registry) (series []string) {
	t.Helper()
	w := httptest.NewRecorder()
	probe.New(r).Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("/metrics answered %d: %s", w.Code, w.Body)
	}
	for line := range strings.Lines(w.Body.String()) {
		if !strings.HasPrefix(line, "#") {
			series = append(series, strings.TrimSpace(line))
		}
	}
	return series
}

// S-112: neither the number of accounts nor what AWS, or who answers in its place, says makes more series.
func TestSeriesAreBounded(t *testing.T) {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m := newMetrics(r)
	actions := []string{"iam:GetAccountAuthorizationDetails", "sts:AssumeRole", "sts:AssumeRole (probe)", "sts:GetCallerIdentity"}
	actions = append(actions, serval.IngestionActions()...)
	said := []string{"", "Throttling"}
	for code := range codes {
		said = append(said, code)
	}
	for range 3000 {
		said = append(said, rand.Text())
	}
	var accounts []worker.Account
	for i := range 3000 {
		a := worker.Account{Account: serval.Account{ID: fmt.Sprintf("%012d", i)}}
		if i%2 == 0 {
			a.LastSyncAt = time.Unix(1e9, 0)
		}
		accounts = append(accounts, a)
	}
	m.listed(accounts)
	for i, a := range accounts {
		for _, action := range actions {
			m.observe(awsiam.Call{AccountID: a.ID, Action: action, Code: said[i%len(said)], Duration: time.Duration(i) * time.Millisecond, Throttled: i%7 == 0})
		}
		for _, code := range said {
			m.observe(awsiam.Call{AccountID: rand.Text(), Action: actions[i%len(actions)], Code: code})
		}
		for _, kind := range []serval.SyncKind{serval.SyncFull, serval.SyncDelta} {
			m.done(worker.Outcome{Kind: kind, Account: a, Generation: 1, Accepted: i%3 > 0, Read: i%5 > 0, Complete: i%4 > 0, StartedAt: time.Unix(2e9, 0)})
		}
		if i == 3 {
			said = said[:100] // they are known by now
		}
	}
	// A flow has two for each action, and one.
	series := scrape(t, r)
	if n := len(series) + 2*len(actions) + 1; n >= 2000 {
		t.Errorf("%d series, want fewer than 2000", n)
	}
	text := strings.Join(series, "\n")
	for _, want := range []string{
		`serval_worker_aws_calls_total{action="iam:GetRole",code="other"}`, `serval_worker_aws_throttled_total{action="iam:GetRole"} 429`,
		`serval_worker_accounts{state="complete"} 1500`, `serval_worker_accounts{state="incomplete"} 500`,
		`serval_worker_accounts{state="never"} 500`, `serval_worker_accounts{state="unknown"} 500`,
		`serval_worker_sync_complete{account_id="000000000002"} 1`, `serval_worker_oldest_sync_timestamp_seconds 0`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %s", want)
		}
	}
	if made, throttled := m.callsOf("000000000007"); made != len(actions) || throttled != len(actions) {
		t.Errorf("%d calls of an account, %d throttled; want all %d", made, throttled, len(actions))
	}

	m.listed(accounts[1:3])
	for _, line := range scrape(t, r) {
		if strings.Contains(line, "account_id=") && !strings.Contains(line, `"000000000001"`) && !strings.Contains(line, `"000000000002"`) {
			t.Errorf("%s, of an account that is not listed any more", line)
		}
	}
}
