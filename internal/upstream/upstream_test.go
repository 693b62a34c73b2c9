package upstream_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/upstream"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const account = "111122223333"

var (
	looked = time.Unix(1e9, 0).UTC()
	known  = []serval.KnownRole{{RoleID: "AROA1", ARN: "arn:aws:iam::" + account + ":role/one", Digest: "0a", Shown: "0b"}}
)

// A far is an upstream that judges every call: the token, the shape, the
// generations.
type far struct {
	t     *testing.T
	token string

	mu         sync.Mutex
	identity   string // as last said
	generation int64
	claimed    string
	until      time.Time
	taken      int64
	digest     string
	applied    int
	roles      int
	bounded    int  // of the roles that were pushed last, those with their boundary's policy
	takes      bool // the policies of boundaries
	removed    []serval.Removal
	kind       serval.SyncKind                                   // of the last sync that was opened
	answer     func(w http.ResponseWriter, r *http.Request) bool // answers in place of all this
	after      func(w http.ResponseWriter)                       // answers a push that was taken
}

func newFar(t *testing.T) *far { return &far{t: t, token: rand.Text()} }

func (f *far) refuse(w http.ResponseWriter, status int, code, message string, detail map[string]string) {
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(wire.Error{Code: code, Message: message, Detail: detail})
}

func (f *far) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.answer != nil && f.answer(w, r) {
		return
	}
	if r.Header.Get("Authorization") != "Bearer "+f.token {
		f.refuse(w, http.StatusUnauthorized, "unauthenticated", "The token is not known.", nil)
		return
	}
	switch r.Method + " " + r.URL.Path {
	case "GET /base/api/v1/upstream/accounts":
		if r.URL.Query().Get("wait") != "30" || r.URL.Query().Get("version") != "a b" {
			f.t.Errorf("asked with %q, want version and wait", r.URL.RawQuery)
		}
		f.identity = r.URL.Query().Get("identity")
		json.NewEncoder(w).Encode(wire.WorkerAccounts{Version: "c", Accounts: []wire.WorkerAccount{{ID: account}}})
	case "POST /base/api/v1/upstream/accounts/" + account + "/syncs":
		var in wire.OpenSync
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Worker == "" || r.Header.Get("Content-Type") != "application/json" {
			f.t.Errorf("opened with %+v (%v) as %s", in, err, r.Header.Get("Content-Type"))
		}
		if f.claimed != "" && f.claimed != in.Worker {
			f.refuse(w, http.StatusConflict, "conflict", "Another worker is reading this account.",
				map[string]string{"until": f.until.Format(time.RFC3339Nano)})
			return
		}
		f.generation++
		f.kind = in.Kind
		f.claimed, f.until = in.Worker, time.Now().Add(time.Minute)
		w.WriteHeader(http.StatusCreated)
		json.NewEncoder(w).Encode(struct {
			wire.Sync
			Later string `json:"of_a_later_version"` // a worker of today does not mind
		}{wire.Sync{Generation: f.generation, Until: wire.Time{Time: f.until}, LookedAt: wire.Time{Time: looked}, Known: known, TakesBoundaries: f.takes}, "x"})
	case "PUT /base/api/v1/upstream/accounts/" + account + "/inventory", "PUT /base/api/v1/upstream/accounts/" + account + "/delta":
		if r.Header.Get("Content-Encoding") != "gzip" || r.ContentLength != -1 {
			f.t.Errorf("pushed with encoding %q and length %d, want a gzip stream", r.Header.Get("Content-Encoding"), r.ContentLength)
		}
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			f.refuse(w, http.StatusBadRequest, "invalid_argument", "not gzip", nil)
			return
		}
		sum := sha256.New()
		roles := 0
		f.bounded = 0
		one := func(r serval.Role) error {
			roles++
			if r.BoundaryPolicy != nil {
				f.bounded++
			}
			return nil
		}
		var inv serval.Inventory
		if strings.HasSuffix(r.URL.Path, "/delta") {
			var d serval.Delta
			d, err = wire.ReadDelta(io.TeeReader(z, sum), one)
			inv.Generation, f.removed = d.Generation, d.Removed
		} else {
			inv, err = wire.ReadInventory(io.TeeReader(z, sum), one)
		}
		if err != nil {
			f.refuse(w, http.StatusBadRequest, "invalid_argument", err.Error(), nil)
			return
		}
		digest := hex.EncodeToString(sum.Sum(nil))
		push := wire.Push{Generation: inv.Generation}
		switch {
		case inv.Generation == f.taken && digest == f.digest:
			push.Repeated = true
		case inv.Generation != f.generation || inv.Generation == f.taken:
			f.refuse(w, http.StatusConflict, "conflict", fmt.Sprintf("Generation %d is not the last that was opened.", inv.Generation), nil)
			return
		default:
			f.taken, f.digest, f.roles = inv.Generation, digest, roles
			f.applied++
		}
		if f.after != nil {
			f.after(w)
			return
		}
		json.NewEncoder(w).Encode(push)
	default:
		f.t.Errorf("asked %s %s", r.Method, r.URL.Path)
	}
}

// client starts the upstream and returns a client of it.
func (f *far) client(t *testing.T, with ...func(*upstream.Config)) *upstream.Client {
	t.Helper()
	server := httptest.NewServer(f)
	c := upstream.Config{
		BaseURL: server.URL + "/base/", Token: func() (serval.Secret, error) { return serval.NewSecret(f.token), nil },
		HTTPClient: server.Client(),
	}
	for _, g := range with {
		g(&c)
	}
	client, err := upstream.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client
}

func inventory(generation int64, roles int) serval.Inventory {
	inv := serval.Inventory{AccountID: account, Generation: generation, StartedAt: time.Unix(1e9, 0), FinishedAt: time.Unix(1e9, 5), Complete: true, ReadBy: serval.ByRoles}
	for i := range roles {
		name := fmt.Sprintf("role%06d", i)
		inv.Roles = append(inv.Roles, serval.Role{
			ARN: "arn:aws:iam::" + account + ":role/" + name, RoleID: "AROA" + name, Name: name, Path: "/", Tags: map[string]string{"serval": ""},
			TrustPolicy: serval.Document(`{"Statement":"` + strings.Repeat(name, 100) + `"}`),
		})
	}
	inv.Normalize()
	return inv
}

func TestASyncFromEndToEnd(t *testing.T) {
	f := newFar(t)
	c := f.client(t)
	ctx := t.Context()
	list, err := c.Accounts(ctx, "a b", 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	want := wire.WorkerAccounts{Version: "c", Accounts: []wire.WorkerAccount{{ID: account}}}
	if diff := cmp.Diff(want, list); diff != "" {
		t.Errorf("accounts (-want +got):\n%s", diff)
	}
	caller := serval.CallerARN{ARN: "arn:aws:sts::999988887777:assumed-role/serval-worker/pod"}
	c.Introduce(caller)
	if _, err := c.Accounts(ctx, "a b", 30*time.Second); err != nil || f.identity != caller.ARN {
		t.Errorf("the worker is known as %q (%v), want %q", f.identity, err, caller.ARN)
	}
	sync, err := c.OpenSync(ctx, account, "worker-0", serval.SyncFull)
	if err != nil || sync.Generation != 1 || f.kind != serval.SyncFull || !sync.LookedAt.Equal(looked) || !cmp.Equal(sync.Known, known) {
		t.Fatalf("OpenSync = %+v, %v; want generation 1 of a full sync, and what is known", sync, err)
	}
	if _, err := c.OpenSync(ctx, account, "worker-1", serval.SyncFull); !isBusy(err, f.until) {
		t.Errorf("a second worker's OpenSync = %v; want a *Busy until %s", err, f.until)
	}
	inv := inventory(1, 500)
	for i, repeated := range []bool{false, true} {
		push, err := c.PushInventory(ctx, inv)
		if err != nil || push.Repeated != repeated {
			t.Errorf("push %d = %+v, %v; want repeated %t", i+1, push, err, repeated)
		}
	}
	if f.applied != 1 || f.roles != 500 {
		t.Errorf("applied %d times with %d roles, want once with 500", f.applied, f.roles)
	}
	if _, err := c.OpenSync(ctx, account, "worker-0", serval.SyncDelta); err != nil {
		t.Fatal(err)
	}
	delta := serval.Delta{AccountID: account, Generation: 2, Complete: true, ReadBy: serval.ByRoles, Roles: inventory(2, 3).Roles,
		Removed: []serval.Removal{{RoleID: "AROA1", ARN: known[0].ARN, Reason: serval.RemovedUntagged}}}
	delta.Normalize()
	for i, repeated := range []bool{false, true} {
		push, err := c.PushDelta(ctx, delta)
		if err != nil || push.Repeated != repeated || push.Generation != 2 {
			t.Errorf("push %d of the delta = %+v, %v; want repeated %t", i+1, push, err, repeated)
		}
	}
	if f.kind != serval.SyncDelta || f.applied != 2 || f.roles != 3 || !cmp.Equal(f.removed, delta.Removed) {
		t.Errorf("opened as %q, applied %d times with %d roles, removing %v", f.kind, f.applied, f.roles, f.removed)
	}
	other := inventory(1, 1)
	if _, err := c.PushInventory(ctx, other); !serval.IsRefusal(err, serval.Conflict) {
		t.Errorf("pushing an older generation = %v; want a conflict", err)
	}
}

// An upstream of before there were policies of boundaries refuses roles that have
// one: it is not sent them. One that says that it takes them is.
func TestBoundariesGoWhereTheyAreTaken(t *testing.T) {
	f := newFar(t)
	c := f.client(t)
	for i, takes := range []bool{false, true, false} {
		f.takes = takes
		for _, kind := range []serval.SyncKind{serval.SyncFull, serval.SyncDelta} {
			sync, err := c.OpenSync(t.Context(), account, "worker-0", kind)
			if err != nil {
				t.Fatal(err)
			}
			inv := inventory(sync.Generation, 3)
			inv.Roles[1].PermissionsBoundary = new("arn:aws:iam::" + account + ":policy/edge")
			inv.Roles[1].BoundaryPolicy = &serval.BoundaryPolicy{Status: serval.ListRead, Version: "v1", Document: "{}"}
			if kind == serval.SyncFull {
				_, err = c.PushInventory(t.Context(), inv)
			} else {
				delta := serval.Delta{AccountID: account, Generation: sync.Generation, Complete: true, ReadBy: serval.ByRoles, Roles: inv.Roles}
				delta.Normalize()
				_, err = c.PushDelta(t.Context(), delta)
			}
			want := 0
			if takes {
				want = 1
			}
			if err != nil || f.roles != 3 || f.bounded != want {
				t.Errorf("sync %d, %s, takes %v: %v; %d roles came, %d with the policy of a boundary, want %d", i+1, kind, takes, err, f.roles, f.bounded, want)
			}
			if inv.Roles[1].BoundaryPolicy == nil {
				t.Error("what was pushed has lost it here, too")
			}
		}
	}
}

func isBusy(err error, until time.Time) bool {
	b, ok := errors.AsType[*upstream.Busy](err)
	return ok && b.Until.Equal(until) && serval.IsRefusal(err, serval.Conflict)
}

//
func TestRefusalsHaveTheirKind(t *testing.T) {
	for _, test := range []struct {
		status   int
		envelope string
		kind     serval.Kind
		reason   string
	}{
		{400, `{"code":"invalid_argument","message":"Not so."}`, serval.Invalid, "Not so."},
		{401, `{"code":"unauthenticated","message":"Who?"}`, serval.Unauthenticated, "Who?"},
		{403, `{"code":"permission_denied","message":"No."}`, serval.Denied, "No."},
		{404, `{"code":"not_found","message":"There is no such account for this worker."}`, serval.NotFound, "There is no such account for this worker."},
		{409, `{"code":"conflict","message":"Older."}`, serval.Conflict, "Older."},
		{413, `{"code":"too_large","message":"Too much."}`, serval.TooLarge, "Too much."},
		{422, `{"code":"failed_precondition","message":"Not now."}`, serval.FailedPrecondition, "Not now."},
		{429, `{"code":"resource_exhausted","message":"Slowly."}`, serval.Exhausted, "Slowly."},
		{500, `{"code":"internal","message":"Oh."}`, serval.Unavailable, "Oh."},
		{503, `{"code":"unavailable","message":"Later."}`, serval.Unavailable, "Later."},
		{413, `<html>nginx</html>`, serval.TooLarge, "The upstream answered 413 Request Entity Too Large."},
		{502, ``, serval.Unavailable, "The upstream answered 502 Bad Gateway."},
		{404, `404 page not found`, serval.Unavailable, "The upstream answered 404 Not Found."},
		{409, `<html>nginx</html>`, serval.Unavailable, "The upstream answered 409 Conflict."},
		{403, `{"message":"` + strings.Repeat("x", 501) + `"}`, serval.Denied, strings.Repeat("x", 500) + "…"},
		{418, `{}`, serval.Invalid, "The upstream answered 418 I'm a teapot."},
	} {
		t.Run(fmt.Sprint(test.status, " ", test.envelope), func(t *testing.T) {
			f := newFar(t)
			f.answer = func(w http.ResponseWriter, _ *http.Request) bool {
				w.WriteHeader(test.status)
				io.WriteString(w, test.envelope)
				return true
			}
			c := f.client(t)
			inv := inventory(1, 300)
			_, err := c.PushInventory(t.Context(), inv)
			r, ok := errors.AsType[*serval.Refusal](err)
			if !ok || r.Kind != test.kind || r.Reason != test.reason {
				t.Fatalf("PushInventory = %#v; want a refusal of kind %s that says %q", err, test.kind, test.reason)
			}
			var text bytes.Buffer
			wire.WriteInventory(&text, inv)
			var want map[string]string
			switch test.kind {
			case serval.TooLarge, serval.Invalid, serval.FailedPrecondition:
				sum := sha256.Sum256(text.Bytes())
				want = map[string]string{"bytes": strconv.Itoa(text.Len()), "sha256": hex.EncodeToString(sum[:])}
			}
			if diff := cmp.Diff(want, r.Detail); diff != "" {
				t.Errorf("detail (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFaultsAreNoRefusals(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer func(w http.ResponseWriter, r *http.Request)
		says   string
	}{
		{"a captive portal", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>Welcome!</html>") }, "without the JSON"},
		{"nothing", func(http.ResponseWriter, *http.Request) {}, "without the JSON"},
		{"broken off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, `{"generation":1`)
		}, "without the JSON"},
		{"another generation", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"generation":7}`) }, "generation 7"},
		{"cut", func(w http.ResponseWriter, _ *http.Request) { hangUp(w) }, "PUT /accounts/111122223333/inventory"},
		{"a redirect", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://elsewhere.example.com/")
			w.WriteHeader(http.StatusTemporaryRedirect)
		}, "answered 307, which is not followed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFar(t)
			f.answer = func(w http.ResponseWriter, r *http.Request) bool { test.answer(w, r); return true }
			_, err := f.client(t).PushInventory(t.Context(), inventory(1, 300))
			if err == nil || serval.IsRefusal(err) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("PushInventory = %v; want a fault that says %q", err, test.says)
			}
			if err != nil && strings.Contains(err.Error(), f.token) {
				t.Errorf("the fault shows the token: %v", err)
			}
		})
	}
}

func hangUp(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		conn.Close()
	}
}

// Without a generation no push of the sync could be told from an older one's.
func TestASyncHasAGeneration(t *testing.T) {
	for _, answer := range []string{`{}`, `{"generation":-1}`} {
		f := newFar(t)
		f.answer = func(w http.ResponseWriter, _ *http.Request) bool { io.WriteString(w, answer); return true }
		if _, err := f.client(t).OpenSync(t.Context(), account, "worker-0", serval.SyncFull); err == nil || serval.IsRefusal(err) {
			t.Errorf("%s: OpenSync = %v; want a fault", answer, err)
		}
	}
}

// Only an account that another worker has is busy, whatever else is said until when.
func TestARefusalThatIsNoConflictIsNotBusy(t *testing.T) {
	f := newFar(t)
	f.answer = func(w http.ResponseWriter, _ *http.Request) bool {
		f.refuse(w, http.StatusForbidden, "permission_denied", "No.", map[string]string{"until": looked.Format(time.RFC3339Nano)})
		return true
	}
	_, err := f.client(t).OpenSync(t.Context(), account, "worker-0", serval.SyncFull)
	if _, busy := errors.AsType[*upstream.Busy](err); busy || !serval.IsRefusal(err, serval.Denied) {
		t.Errorf("OpenSync = %#v; want it denied, and nobody busy", err)
	}
}

// it failed, but it happened.
func TestAPushWhoseAnswerIsLostIsTakenOnce(t *testing.T) {
	f := newFar(t)
	f.generation, f.claimed = 1, "worker-0"
	f.after = hangUp
	c := f.client(t)
	inv := inventory(1, 300)
	if _, err := c.PushInventory(t.Context(), inv); err == nil || serval.IsRefusal(err) {
		t.Fatalf("PushInventory = %v; want a fault", err)
	}
	f.mu.Lock()
	f.after = nil
	f.mu.Unlock()
	push, err := c.PushInventory(t.Context(), inv)
	if err != nil || !push.Repeated || f.applied != 1 {
		t.Errorf("the second push = %+v, %v, applied %d times; want repeated, applied once", push, err, f.applied)
	}
}

func TestTheTokenIsReadAnewAtEachCall(t *testing.T) {
	f := newFar(t)
	f.claimed = "worker-0"
	path := filepath.Join(t.TempDir(), "token")
	c := f.client(t, func(c *upstream.Config) { c.Token = upstream.TokenFile(path) })
	if _, err := c.OpenSync(t.Context(), account, "worker-0", serval.SyncFull); err == nil || serval.IsRefusal(err) {
		t.Errorf("without the file OpenSync = %v; want a fault", err)
	}
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("an-old-one\n")
	if _, err := c.OpenSync(t.Context(), account, "worker-0", serval.SyncFull); !serval.IsRefusal(err, serval.Unauthenticated) {
		t.Errorf("with an old token OpenSync = %v; want unauthenticated", err)
	}
	write(f.token + "\n")
	if _, err := c.OpenSync(t.Context(), account, "worker-0", serval.SyncFull); err != nil {
		t.Errorf("with the new token OpenSync = %v; want none", err)
	}
	write("\n")
	if _, err := c.OpenSync(t.Context(), account, "worker-0", serval.SyncFull); err == nil || !strings.Contains(err.Error(), "empty") {
		t.Errorf("with an empty token OpenSync = %v; want a fault that says so", err)
	}
}

// A redirect must not carry the token away, wherever it leads.
func TestRedirectsAreNotFollowed(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the redirect was followed with Authorization %q", r.Header.Get("Authorization"))
	}))
	defer elsewhere.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		f := newFar(t)
		f.answer = func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, elsewhere.URL, status)
			return true
		}
		if _, err := f.client(t).Accounts(t.Context(), "", time.Second); err == nil {
			t.Errorf("Accounts redirected with %d returned no error", status)
		}
	}
}

func TestCheckURL(t *testing.T) {
	for _, test := range []struct {
		url   string
		plain bool
		ok    bool
	}{
		{"https://serval.example.com", false, true},
		{"https://serval.example.com:8443/base/", false, true},
		{"http://127.0.0.1:8080", false, true},
		{"http://localhost:8080", false, true},
		{"http://[::1]:8080", false, true},
		{"http://serval.example.com", false, false},
		{"http://serval-bridge.serval.svc", true, true},
		{"http://127.0.0.1.example.com", false, false},
		{"https://ana:password@serval.example.com", false, false},
		{"https://serval.example.com/?x=1", false, false},
		{"https://serval.example.com/#x", false, false},
		{"ftp://serval.example.com", true, false},
		{"serval.example.com", false, false},
		{"https://", false, false},
		{"", false, false},
	} {
		if err := upstream.CheckURL(test.url, test.plain); (err == nil) != test.ok {
			t.Errorf("CheckURL(%q, %t) = %v; want acceptance %t", test.url, test.plain, err, test.ok)
		}
	}
}

func TestCallsEndWithTheirContext(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	c, err := upstream.New(upstream.Config{BaseURL: "http://" + listener.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	halfway := newFar(t)
	halfway.answer = func(w http.ResponseWriter, r *http.Request) bool {
		io.WriteString(w, `{"version":`)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return true
	}
	half := halfway.client(t)
	for name, call := range map[string]func(context.Context) error{
		"Accounts":                func(ctx context.Context) error { _, err := c.Accounts(ctx, "", time.Minute); return err },
		"Accounts, in mid-answer": func(ctx context.Context) error { _, err := half.Accounts(ctx, "", time.Minute); return err },
		"OpenSync": func(ctx context.Context) error {
			_, err := c.OpenSync(ctx, account, "worker-0", serval.SyncFull)
			return err
		},
		"PushInventory": func(ctx context.Context) error { _, err := c.PushInventory(ctx, inventory(1, 2000)); return err },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if err := call(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s = %v; want that the deadline passed", name, err)
		} else if strings.Contains(err.Error(), "wait=") {
			t.Errorf("%s shows the query of its URL: %v", name, err)
		}
		cancel()
	}
}

func TestAnInventoryThatCannotBeWrittenIsItsOwnFault(t *testing.T) {
	f := newFar(t)
	inv := inventory(1, 1)
	inv.Roles[0].CreatedAt = time.Date(12345, 1, 1, 0, 0, 0, 0, time.UTC)
	_, err := f.client(t).PushInventory(t.Context(), inv)
	if err == nil || !strings.Contains(err.Error(), "writing the inventory") {
		t.Errorf("PushInventory = %v; want the fault of writing it", err)
	}
	if f.applied != 0 {
		t.Error("half an inventory was taken")
	}
}
