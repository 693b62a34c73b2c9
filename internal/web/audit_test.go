package web_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// The audit log, filtered and page by page, exported, and the report: as auditors get
// them over the wire.
func TestAuditors(t *testing.T) {
	w := newWorld(t)
	w.push(w.inventory)
	ana, aud := w.as("ana"), w.as("aud")
	var made wire.Request
	ana.json("POST", "/api/v1/requests", wire.NewRequest{RoleARN: w.aws.RoleARN("dev-auto"), Minutes: 60, Justification: "to see why it is slow"}, 201, &made)
	ana.json("POST", "/api/v1/sessions", wire.NewSession{RequestID: made.ID}, 200, nil)

	var events wire.Events
	since := "&from=" + url.QueryEscape(w.clock.now().Add(-1e9).Format("2006-01-02T15:04:05Z07:00"))
	aud.json("GET", "/api/v1/audit?actor=ana%40example.com&outcome=started"+since, nil, 200, &events)
	if len(events.Events) != 1 || events.Events[0].Action != "session.open" || events.NextPageToken != "" {
		t.Errorf("what Ana began: %+v", events)
	}
	aud.json("GET", "/api/v1/audit?to=2020-01-01T00:00:00Z", nil, 200, &events)
	if len(events.Events) != 0 {
		t.Errorf("before everything: %+v", events)
	}
	for _, bad := range []string{"from=yesterday", "to=1", "outcome=good", "from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "who=ana", "page_token=x"} {
		aud.json("GET", "/api/v1/audit?"+bad, nil, 400, nil)
	}

	res, text := aud.do("GET", "/api/v1/audit/export?after=2", nil)
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "application/jsonl" || res.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("the export answered %d %v: %s", res.StatusCode, res.Header, text)
	}
	chain, last := serval.NewChain(serval.NewSecret(canary+"-root-secret-of-a-test-long-enough")), serval.Link{}
	lines := bufio.NewScanner(strings.NewReader(text))
	n := int64(2)
	for lines.Scan() {
		var end wire.ExportEnd
		if json.Unmarshal(lines.Bytes(), &end) == nil && end.Head.Seq != 0 {
			if end.Head.Seq != last.Seq || end.Head.Hash != last.Hash || last.Action != serval.AuditExport || lines.Scan() {
				t.Errorf("the export ends with %+v behind %+v", end, last)
			}
			break
		}
		var l serval.Link
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		if n++; l.Seq != n {
			t.Errorf("row %d comes where row %d belongs", l.Seq, n)
		}
		if last.Seq != 0 {
			if err := chain.Check(last.Seq, last.Hash, l); err != nil {
				t.Errorf("what was exported does not hold: %v", err)
			}
		}
		last = l
	}
	if last.Seq == 0 || !strings.HasSuffix(text, "}\n") {
		t.Errorf("the export: %s", text)
	}
	for _, bad := range []string{"after=x", "after=-1", "before=3"} {
		aud.json("GET", "/api/v1/audit/export?"+bad, nil, 400, nil)
	}

	var report wire.AccessReport
	aud.json("GET", "/api/v1/reports/access?email=ana%40example.com&page_size=1", nil, 200, &report)
	aud.json("GET", "/api/v1/reports/access?email=ana%40example.com&page_size=1&page_token="+report.NextPageToken, nil, 200, &report)
	if len(report.Roles) != 1 || len(report.Roles[0].Had) != 1 || len(report.Roles[0].Could) != 1 || report.Roles[0].RoleARN != w.aws.RoleARN("dev-auto") {
		t.Fatalf("the report: %+v", report)
	}
	if had := report.Roles[0].Had[0]; had.RequestID != made.ID || had.Sessions != 1 || fmt.Sprint(had.DecidedBy) != "[system]" || had.Email != "ana@example.com" {
		t.Errorf("Ana had %+v", had)
	}
	if ahead := report.To.Sub(report.AsOf.Time); ahead < 0 || ahead > time.Second || report.To.Sub(report.From.Time).Hours() != 30*24 {
		t.Errorf("the period is from %s to %s as of %s, want thirty days to now", report.From, report.To, report.AsOf)
	}
	for _, bad := range []string{"from=2027-01-01T00:00:00Z&to=2026-01-01T00:00:00Z", "page_token=x", "role=a", "page_size=0"} {
		aud.json("GET", "/api/v1/reports/access?"+bad, nil, 400, nil)
	}
}

// What the edge refuses of somebody who is signed in has a row, and of a stranger
// none: another site's form, a body that is none, a field that is not known.
func TestEdgeRefusalsAreRecorded(t *testing.T) {
	w := newWorld(t)
	ana, aud := w.as("ana"), w.as("aud")
	count := func() int {
		t.Helper()
		var events wire.Events
		aud.json("GET", "/api/v1/audit?action=edge.refuse&page_size=1000", nil, 200, &events)
		return len(events.Events)
	}
	send := func(b *browser, body string, change func(*http.Request)) int {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), "POST", w.url+"/api/v1/requests", bytes.NewReader([]byte(body)))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		change(r)
		res, err := b.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	same := func(*http.Request) {}
	for _, test := range []struct {
		name   string
		body   string
		change func(*http.Request)
		status int
	}{
		{"another site's", `{}`, func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }, 403},
		{"no JSON", `{`, same, 400},
		{"an unknown field", `{"role":"x"}`, same, 400},
		{"a form", `a=b`, func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") }, 400},
		{"a query that is not known", `{}`, func(r *http.Request) { r.Method, r.URL.RawQuery, r.Body, r.ContentLength = "GET", "x=y", nil, 0 }, 400},
		{"a key that is none", `{}`, func(r *http.Request) { r.Header.Set("Idempotency-Key", "a b") }, 400},
		{"neither role", `{"minutes":5}`, same, 400},
	} {
		before := count()
		if got := send(ana, test.body, test.change); got != test.status {
			t.Errorf("%s answered %d, want %d", test.name, got, test.status)
		}
		if n := count() - before; n != 1 {
			t.Errorf("%s has %d rows, want 1", test.name, n)
		}
	}
	before := count()
	stranger := w.browser()
	send(stranger, `{`, same)
	// Where nobody is recognised by a cookie, Ana is a stranger too.
	send(ana, `{`, func(r *http.Request) { r.URL.Path = "/api/v1/client/token" })
	send(ana, `{}`, func(r *http.Request) {
		r.URL.Path = "/api/v1/upstream/accounts/" + prod + "/syncs"
		r.Header.Set("Origin", "https://evil.example")
	})
	send(stranger, `{}`, func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") })
	// What the plane refuses it records itself.
	send(ana, `{"role_arn":"`+w.aws.RoleARN("none")+`","minutes":60,"justification":"x"}`, same)
	if n := count() - before; n != 0 {
		t.Errorf("%d rows for what a stranger sent and what the plane refused, want none", n)
	}
	var events wire.Events
	aud.json("GET", "/api/v1/audit?action=edge.refuse&page_size=1", nil, 200, &events)
	if e := events.Events[0]; e.Actor != "ana@example.com" || e.Target != "POST /api/v1/requests" || e.Outcome != "refused" || e.RequestID == "" || e.Reason == "" {
		t.Errorf("the row is %+v", e)
	}
}
