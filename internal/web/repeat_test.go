package web_test

import (
	"context"
	"database/sql"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// again sends a write with an idempotency key.
func (b *browser) again(key, method, path string, body any) (*http.Response, string) {
	b.w.t.Helper()
	b.header.Set("Idempotency-Key", key)
	defer b.header.Del("Idempotency-Key")
	return b.do(method, path, body)
}

func (b *browser) requests() int {
	b.w.t.Helper()
	var mine wire.Requests
	b.json("GET", "/api/v1/requests", nil, 200, &mine)
	return len(mine.Requests)
}

// A write with a key is done once and answered alike each time.
func TestRepeat(t *testing.T) {
	w := newWorld(t)
	w.push(w.inventory)
	ana, ben := w.as("ana"), w.as("ben")
	ask := wire.NewRequest{RoleARN: w.aws.RoleARN("dev-admin"), Minutes: 60, Justification: "Incident 7"}
	first, text := ana.again("k1", "POST", "/api/v1/requests", ask)
	if first.StatusCode != 201 || first.Header.Get("Idempotency-Replayed") != "" {
		t.Fatalf("the first answered %d: %s", first.StatusCode, text)
	}
	second, same := ana.again("k1", "POST", "/api/v1/requests", ask)
	if second.StatusCode != 201 || same != text || second.Header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("the second answered %d: %s; want as the first: %s", second.StatusCode, same, text)
	}
	if n := ana.requests(); n != 1 {
		t.Errorf("%d requests were made, want 1", n)
	}
	for name, c := range map[string]struct {
		path string
		body any
	}{
		"another body":         {"/api/v1/requests", wire.NewRequest{RoleARN: ask.RoleARN, Minutes: 61, Justification: "Incident 7"}},
		"another path":         {"/api/v1/requests?x=1", ask},
		"another thing at all": {"/api/v1/sessions", ask},
	} {
		if res, text := ana.again("k1", "POST", c.path, c.body); res.StatusCode != 422 || !strings.Contains(text, "idempotency_key_reused") {
			t.Errorf("the key with %s answered %d: %s; want 422", name, res.StatusCode, text)
		}
	}
	// It is the person's own, and another key another write.
	if res, text := ben.again("k1", "POST", "/api/v1/requests", ask); res.StatusCode != 404 {
		t.Errorf("another's key answered %d: %s; want 404, as Ben is not eligible", res.StatusCode, text)
	}
	ana.again("k2", "POST", "/api/v1/requests", ask)
	if n := ana.requests(); n != 2 {
		t.Errorf("%d requests after another key, want 2", n)
	}
	// What was refused did nothing, and may be tried again.
	bad := wire.NewRequest{RoleARN: ask.RoleARN, Minutes: 6000, Justification: "Incident 7"}
	for range 2 {
		if res, _ := ana.again("k3", "POST", "/api/v1/requests", bad); res.StatusCode != 400 || res.Header.Get("Idempotency-Replayed") != "" {
			t.Errorf("what is refused answered %d, replayed %q", res.StatusCode, res.Header.Get("Idempotency-Replayed"))
		}
	}
	if res, text := ana.again("k3", "POST", "/api/v1/requests", ask); res.StatusCode != 201 {
		t.Errorf("a key of what was refused, mended, answered %d: %s", res.StatusCode, text)
	}
	// A key is for a day.
	w.clock.move(24*time.Hour + time.Second)
	ana = w.as("ana")
	if res, _ := ana.again("k1", "POST", "/api/v1/requests", ask); res.StatusCode != 201 || res.Header.Get("Idempotency-Replayed") != "" {
		t.Errorf("a day later it answered %d, replayed %q; want done anew", res.StatusCode, res.Header.Get("Idempotency-Replayed"))
	}
	// It means nothing where nothing is written, and is held to its form.
	if res, _ := ana.again("k1", "GET", "/api/v1/requests", nil); res.StatusCode != 200 {
		t.Errorf("a read with a key answered %d", res.StatusCode)
	}
	for _, key := range []string{"", "a b", strings.Repeat("k", 256), "é"} {
		if res, _ := ana.again(key, "POST", "/api/v1/requests", ask); res.StatusCode != 400 {
			t.Errorf("the key %.20q answered %d, want 400", key, res.StatusCode)
		}
	}
	ana.header["Idempotency-Key"] = []string{"a", "b"}
	if res, _ := ana.do("POST", "/api/v1/requests", ask); res.StatusCode != 400 {
		t.Errorf("two keys answered %d, want 400", res.StatusCode)
	}
}

// Credentials do not rest: what opens a session is done once for a key, and
// answered once. S-7
func TestRepeatOfASession(t *testing.T) {
	w := newWorld(t)
	w.push(w.inventory)
	ana := w.as("ana")
	var made wire.Request
	ana.json("POST", "/api/v1/requests", wire.NewRequest{RoleARN: w.aws.RoleARN("dev-auto"), Minutes: 60, Justification: "Incident 7"}, 201, &made)
	open := wire.NewSession{RequestID: made.ID}
	// While AWS refuses nothing is handed over, and the key stays good.
	w.cloud.Inject(awstest.Fault{Action: "AssumeRoleWithWebIdentity", Code: "AccessDenied", Times: 1})
	if res, text := ana.again("k1", "POST", "/api/v1/sessions", open); res.StatusCode < 400 {
		t.Fatalf("with AWS refusing it answered %d: %s", res.StatusCode, text)
	}
	res, text := ana.again("k1", "POST", "/api/v1/sessions", open)
	if res.StatusCode != 200 || !strings.Contains(text, "SecretAccessKey") {
		t.Fatalf("the first answered %d", res.StatusCode)
	}
	res, text = ana.again("k1", "POST", "/api/v1/sessions", open)
	if res.StatusCode != 409 || !strings.Contains(text, "already_done") || strings.Contains(text, "ASIA") {
		t.Errorf("the second answered %d: %s; want 409", res.StatusCode, text)
	}
	var sessions wire.Sessions
	ana.json("GET", "/api/v1/sessions", nil, 200, &sessions)
	if len(sessions.Sessions) != 2 || sessions.Sessions[0].State != "issued" || sessions.Sessions[1].State != "failed" {
		t.Errorf("the sessions are %+v, want one that failed and one that was issued", sessions.Sessions)
	}
	var kept string
	db, err := sql.Open("sqlite", w.database)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRowContext(context.Background(), `select answer from repeat where idempotency_key = 'k1'`).Scan(&kept); err != nil || kept != "" {
		t.Errorf("of the answer is kept %q, %v; want nothing", kept, err)
	}
}

// A write that panics behind its effect has settled its key: it is not done again,
// and whoever tries is told so at once.
func TestRepeatOfAPanic(t *testing.T) {
	boom := false
	w := newWorld(t, panicking(&boom, "when the answer is written"))
	w.push(w.inventory)
	ana := w.as("ana")
	ask := wire.NewRequest{RoleARN: w.aws.RoleARN("dev-auto"), Minutes: 60, Justification: "Incident 7"}
	boom = true
	if res, text := ana.again("k1", "POST", "/api/v1/requests", ask); res.StatusCode != 500 {
		t.Fatalf("while panicking it answered %d, want 500: %s", res.StatusCode, text)
	}
	boom = false
	if res, text := ana.again("k1", "POST", "/api/v1/requests", ask); res.StatusCode != 409 || !strings.Contains(text, "already_done") {
		t.Errorf("the second answered %d, want 409 and that it was done already: %s", res.StatusCode, text)
	}
	if n := ana.requests(); n != 1 {
		t.Errorf("%d requests were made, want 1", n)
	}
}

// Of many at once with one key one is done; the others are answered as it was,
// or told to come again.
func TestRepeatAtOnce(t *testing.T) {
	w := newWorld(t)
	w.push(w.inventory)
	ana := w.as("ana")
	ask := wire.NewRequest{RoleARN: w.aws.RoleARN("dev-auto"), Minutes: 60, Justification: "Incident 7"}
	ana.header.Set("Idempotency-Key", "k1")
	var wg sync.WaitGroup
	var mu sync.Mutex
	bodies := map[string]bool{}
	for range 20 {
		wg.Go(func() {
			res, text := ana.do("POST", "/api/v1/requests", ask)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case res.StatusCode == 201:
				bodies[text] = true
			case res.StatusCode != 409 || !strings.Contains(text, "in_progress"):
				t.Errorf("one of twenty answered %d: %s", res.StatusCode, text)
			}
		})
	}
	wg.Wait()
	ana.header.Del("Idempotency-Key")
	if len(bodies) != 1 || ana.requests() != 1 {
		t.Errorf("%d different answers and %d requests, want 1 and 1", len(bodies), ana.requests())
	}
}
