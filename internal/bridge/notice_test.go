package bridge

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/notify"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A request that waits is told by webhook, and the metrics say how that stands.
func TestNoticesAreDelivered(t *testing.T) {
	type told struct {
		Type string `json:"type"`
		Data struct {
			URL string `json:"url"`
		} `json:"data"`
	}
	got := make(chan told, 10)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var one told
		if err := json.NewDecoder(r.Body).Decode(&one); err != nil {
			t.Error(err)
		}
		got <- one
	}))
	defer receiver.Close()
	e := newEstate(t, func(c *Config) {
		c.File.Policies[0].Approval = serval.Approval{Steps: []serval.People{{Groups: []string{"leads"}}}}
		c.Notices.Webhook = notify.WebhookConfig{
			URL: serval.NewSecret(receiver.URL), Secret: serval.NewSecret("whsec_" + base64.StdEncoding.EncodeToString([]byte("the secret of a test, in 32 byte"))),
		}
	})
	_, made := e.ana()
	select {
	case one := <-got:
		if one.Type != "request.create" || !strings.HasSuffix(one.Data.URL, "/requests/"+made.ID) {
			t.Errorf("told %+v", one)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("nobody was told")
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		_, metrics := get(t, e.admin+"/metrics")
		missing := ""
		for _, want := range []string{`serval_notice_deliveries_total{channel="webhook",outcome="sent"} 1`, `serval_notices_pending{channel="webhook"} 0`, `serval_notices_failed{channel="webhook"} 0`} {
			if !strings.Contains(metrics, want) {
				missing = want
			}
		}
		if missing == "" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the metrics lack %s", missing)
		}
	}
}
