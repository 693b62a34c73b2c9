package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

const token = "canary-of-a-token"

// at returns a client of what h is.
func at(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return of(t, s.URL)
}

func of(t *testing.T, address string) *Client {
	t.Helper()
	c, err := New(Config{BaseURL: address, Token: serval.NewSecret(token), Name: "serval 1.2"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestOrigin(t *testing.T) {
	for text, want := range map[string]string{
		"https://serval.example.com":      "https://serval.example.com",
		"serval.example.com":              "https://serval.example.com",
		" Serval.Example.com:8443/ ":      "https://serval.example.com:8443",
		"https://serval.example.com:443/": "https://serval.example.com",
		"http://127.0.0.1:8080":           "http://127.0.0.1:8080",
		"http://localhost:80/":            "http://localhost",
		"http://[::1]:8080":               "http://[::1]:8080",
		"http://serval.example.com":       "",
		"https://a@serval.example.com":    "",
		"https://serval.example.com/x":    "",
		"https://serval.example.com?x":    "",
		"https://serval.example.com#x":    "",
		"ftp://serval.example.com":        "",
		"https://":                        "",
		"":                                "",
		"a b":                             "",
	} {
		got, err := Origin(text)
		if got != want || (err == nil) != (want != "") || err != nil && !serval.IsRefusal(err, serval.Invalid) {
			t.Errorf("%q is %q (%v), want %q", text, got, err, want)
		}
	}
}

// What is in the way is told apart, and named with service and host.
func TestFailures(t *testing.T) {
	untrusted := httptest.NewUnstartedServer(http.NotFoundHandler())
	untrusted.Config.ErrorLog = log.New(io.Discard, "", 0)
	untrusted.StartTLS()
	t.Cleanup(untrusted.Close)
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	dial := func(err error) *Client {
		c, _ := New(Config{BaseURL: "https://serval.example.com", HTTPClient: &http.Client{Transport: &http.Transport{
			DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, err },
		}}})
		return c
	}
	timeout := &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "i/o timeout", IsTimeout: true}}
	answer := func(status int, contentType, text string) *Client {
		return at(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			w.Header().Set("X-Request-Id", "abc")
			w.WriteHeader(status)
			io.WriteString(w, text)
		})
	}
	for name, c := range map[string]struct {
		client *Client
		cause  Cause
		says   string
	}{
		"no such name": {dial(&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "serval.example.com", IsNotFound: true}}), CauseName,
			"The Serval bridge at serval.example.com cannot be reached: the name has no address (serval.example.com)"},
		"no connection":         {dial(timeout), CauseTimeout, "The Serval bridge at serval.example.com cannot be reached: no connection came about in time. Is the VPN up?"},
		"no route":              {dial(&net.OpError{Op: "dial", Err: errors.New("no route to host")}), CauseNetwork, "no route to host"},
		"nobody listens":        {of(t, "http://127.0.0.1:1"), CauseRefused, "nothing listens there"},
		"another's certificate": {of(t, untrusted.URL), CauseTLS, "cannot be trusted: TLS failed (tls: failed to verify certificate: x509: certificate signed by unknown authority)"},
		"no TLS":                {of(t, strings.Replace(plain.URL, "http:", "https:", 1)), CauseTLS, "TLS failed"},
		"it breaks off":         {at(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), CauseLost, "its answer did not come"},
		"a proxy's 502":         {answer(502, "text/html", "<html>"), CauseStatus, "has a fault: it answered 502 Bad Gateway (request abc)"},
		"a fault":               {answer(500, "application/json", `{"code":"internal","message":"Something went wrong on our side.","detail":{}}`), CauseStatus, "it answered 500 Internal Server Error: Something went wrong on our side (request"},
		"it is not ready":       {answer(503, "application/json", `{"code":"unavailable","message":"The server is starting.","detail":{}}`), CauseStatus, "503 Service Unavailable: The server is starting"},
		"a captive portal":      {answer(200, "text/html", "<html>"), CauseForeign, "is not a Serval bridge: it sent 200 OK with text/html"},
		"another 404":           {answer(404, "text/html", "<html>"), CauseForeign, "404 Not Found with no refusal of the API's"},
		"a redirect":            {answer(302, "text/html", ""), CauseForeign, "a redirect"},
		"other JSON":            {answer(200, "application/json", `[]`), CauseForeign, "is not a Serval bridge"},
	} {
		_, err := c.client.Me(t.Context())
		f, ok := errors.AsType[*Failure](err)
		if !ok || f.Cause != c.cause || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), c.client.host) {
			t.Errorf("%s: %v, want cause %s and %q", name, err, c.cause, c.says)
		}
		if strings.ContainsRune(err.Error(), '\x1b') || strings.Contains(err.Error(), token) {
			t.Errorf("%s: the sentence holds what it must not: %q", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := answer(200, "", "{}").Me(ctx)
	if _, failed := errors.AsType[*Failure](err); failed || !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v, which is no failure of the bridge's", err)
	}
}

// What the bridge refuses comes in its own words.
func TestRefusals(t *testing.T) {
	for _, kind := range codes {
		c := at(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(422)
			fmt.Fprintf(w, `{"code":%q,"message":"No.\u001b[2J","detail":{"cause":"x"}}`, kind)
		})
		_, err := c.Me(t.Context())
		r, ok := errors.AsType[*serval.Refusal](err)
		if !ok || r.Kind != kind || r.Reason != "No. [2J" || r.Detail["cause"] != "x" {
			t.Errorf("%s: %v", kind, err)
		}
	}
	// What AWS could not do is no fault of the bridge's.
	c := at(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(503)
		io.WriteString(w, `{"code":"unavailable","message":"AWS did not answer.","detail":{"code":"NoAnswer"}}`)
	})
	if _, err := c.Open(t.Context(), wire.NewSession{RequestID: "r"}); !serval.IsRefusal(err, serval.Unavailable) {
		t.Errorf("AWS is away: %v", err)
	}
}

// A request whose answer was lost is sent again, as the same; a session is not.
func TestOnce(t *testing.T) {
	var mu sync.Mutex
	keys, calls := map[string]int{}, 0
	c := at(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		calls++
		keys[r.Header.Get("Idempotency-Key")]++
		if calls == 1 {
			panic(http.ErrAbortHandler)
		}
		io.WriteString(w, `{"id":"req_1"}`)
	})
	made, err := c.Ask(t.Context(), wire.NewRequest{RoleARN: "arn"})
	mu.Lock()
	defer mu.Unlock()
	if err != nil || len(made) != 1 || made[0].ID != "req_1" || calls != 2 || len(keys) != 1 || keys[""] > 0 {
		t.Errorf("asked for %v by %d calls with keys %v: %v", made, calls, keys, err)
	}
	calls = 0
	mu.Unlock()
	_, err = c.Open(t.Context(), wire.NewSession{RequestID: "r"})
	mu.Lock()
	if err == nil || calls != 1 {
		t.Errorf("a session was asked for %d times: %v", calls, err)
	}
}

// Each call is given up in the end; a session's later, for which AWS is asked up to
// three times. What has a body says what it is.
func TestEnds(t *testing.T) {
	var left time.Duration
	var kind string
	c, err := New(Config{BaseURL: "https://serval.example.com", HTTPClient: &http.Client{Transport: trip(func(r *http.Request) (*http.Response, error) {
		end, ok := r.Context().Deadline()
		if !ok {
			t.Error("a call has no end")
		}
		left, kind = time.Until(end), r.Header.Get("Content-Type")
		return nil, errors.New("away")
	})}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Me(t.Context()); err == nil || left > callTime || kind != "" {
		t.Errorf("a call ends after %s, of %q: %v", left, kind, err)
	}
	if _, err := c.Open(t.Context(), wire.NewSession{RequestID: "r"}); err == nil || left <= callTime || left > sessionTime || kind != "application/json" {
		t.Errorf("opening a session ends after %s, of %q: %v", left, kind, err)
	}
}

type trip func(*http.Request) (*http.Response, error)

func (t trip) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

// The token goes to the bridge and nowhere else, whatever it says.
func TestToken(t *testing.T) {
	seen := ""
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = "elsewhere" }))
	t.Cleanup(elsewhere.Close)
	c := at(t, func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header.Get("Authorization") + " " + r.UserAgent()
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	})
	if _, err := c.Me(t.Context()); err == nil || seen != "Bearer "+token+" serval 1.2" {
		t.Errorf("seen %q, %v", seen, err)
	}
	if text := fmt.Sprintf("%+v %#v", c, c); strings.Contains(text, token) {
		t.Error("the client shows its token")
	}
}

// Lists are read to their end, and one without an end is not read for ever.
func TestPages(t *testing.T) {
	var asked []string
	endless := false
	c := at(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RawQuery)
		next := ""
		if r.URL.Query().Get("page_token") == "" || endless {
			next = "more"
		}
		fmt.Fprintf(w, `{"roles":[{"name":"r%d"}],"next_page_token":%q}`, len(asked), next)
	})
	roles, err := c.Roles(t.Context(), RoleFilter{Text: "x", Tag: "a=b", AccountID: "1"})
	if err != nil || len(roles) != 2 || roles[1].Name != "r2" {
		t.Errorf("%v, %v", roles, err)
	}
	want := []string{"account_id=1&page_size=1000&q=x&tag=a%3Db", "account_id=1&page_size=1000&page_token=more&q=x&tag=a%3Db"}
	if diff := cmp.Diff(want, asked); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	endless = true
	if _, err := c.Roles(t.Context(), RoleFilter{}); err == nil {
		t.Error("a list without an end was read")
	}
}

func TestSkew(t *testing.T) {
	ahead := time.Duration(0)
	c := at(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
		io.WriteString(w, "{}")
	})
	for _, want := range []time.Duration{0, time.Hour, -time.Hour, 0} {
		ahead = want
		if _, err := c.As(serval.Secret{}).Me(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := c.Skew(); (got-want).Abs() > 20*time.Second || want == 0 && got.Abs() > 20*time.Second {
			t.Errorf("%s, want %s", got, want)
		}
	}
	// The header has whole seconds: two of them are none.
	at := time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)
	for date, want := range map[time.Duration]time.Duration{2 * time.Second: 0, 3 * time.Second: 3 * time.Second, -2 * time.Second: 0, -3 * time.Second: -3 * time.Second} {
		if c.compare(at.Add(date).Format(http.TimeFormat), at.Add(-time.Second), at.Add(time.Second)); c.Skew() != want {
			t.Errorf("%s off counts as %s, want %s", date, c.Skew(), want)
		}
	}
}

func TestLabel(t *testing.T) {
	for text, want := range map[string]string{
		"ana-laptop": "ana-laptop", "": "unnamed", "--": "unnamed", "Ana’s Mac": "Ana-s Mac", "<script>": "script-", ".local": "local",
		strings.Repeat("x", 80): strings.Repeat("x", 64),
	} {
		got := Label(text)
		if got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
		ask := serval.ClientAsk{Name: got, Host: got, Challenge: strings.Repeat("A", 43)}
		if err := ask.CheckDevice(); err != nil {
			t.Errorf("the bridge refuses %q: %v", got, err)
		}
	}
}

// A way to the console that leads elsewhere is not opened.
func TestConsoleLink(t *testing.T) {
	path := "/console/abc"
	c := at(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"path":%q}`, path)
	})
	if got, err := c.ConsoleLink(t.Context(), wire.NewConsoleLink{}); err != nil || got.Reveal() != c.Origin()+path {
		t.Errorf("%q, %v", got.Reveal(), err)
	}
	path = "@evil.example/console/abc"
	if got, err := c.ConsoleLink(t.Context(), wire.NewConsoleLink{}); err == nil {
		t.Errorf("it leads to %q", got.Reveal())
	}
}
