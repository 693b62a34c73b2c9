package bridge

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/pgtest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/storetest"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// while PostgreSQL is away people are told that, and to come again; whoever
// runs Serval has the reason in the log and a pod that is not ready; and with the
// database it works again, without a restart.
func TestDatabaseAway(t *testing.T) {
	proxy, url := pgtest.NewProxy(t, pgtest.URLOf(t, storetest.Migrate))
	e := newEstate(t, func(c *Config) { c.DatabaseURL, c.MintRate = serval.NewSecret(url), 10000 })
	ana, made := e.ana()
	open := func() (*http.Response, string) {
		t.Helper()
		res, text, err := e.ask(ana, "POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID})
		if err != nil {
			t.Fatal(err)
		}
		return res, text
	}
	proxy.Down(true)
	res, text := open() // which meets the connection that was cut
	if res.StatusCode == 200 || strings.Contains(text, "AccessKeyId") {
		t.Fatalf("a session without a database: %d %s", res.StatusCode, text)
	}
	if res, text = open(); res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || !strings.Contains(text, "database does not answer") {
		t.Errorf("without a database: %d %s, want 503, and when to come again", res.StatusCode, text)
	}
	if res, text, err := e.ask(ana, "GET", "/roles", nil); err != nil || res.StatusCode != 503 || !strings.Contains(text, "database does not answer") {
		t.Errorf("a page without a database: %v, %v: %s", res, err, text)
	}
	if status, _ := get(t, e.admin+"/readyz"); status != 503 {
		t.Errorf("/readyz answers %d without a database", status)
	}
	for end := time.Now().Add(time.Minute); e.logs.FilterMessage("a request failed").Len() < 3; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) { // it is written after the answer
			t.Fatal("the log does not say why")
		}
	}
	proxy.Down(false)
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if res, _ := open(); res.StatusCode == 200 {
			break
		} else if time.Now().After(end) {
			t.Fatalf("a minute after the database is back a session is answered %d", res.StatusCode)
		}
	}
	e.events() // whose chain holds
}
