package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A workspace is Slack beyond the wire: its API, its sockets, incoming webhooks
// and the addresses that answers to clicks go to.
type workspace struct {
	t      *testing.T
	server *httptest.Server

	mu       sync.Mutex
	users    map[string]map[string]any
	down     bool // apps.connections.open fails
	opened   int
	posted   []map[string]any // to the incoming webhook
	answered chan map[string]any
	acked    chan string
	send     chan string // down the socket
}

func newWorkspace(t *testing.T) *workspace {
	t.Helper()
	w := &workspace{t: t, users: map[string]map[string]any{}, answered: make(chan map[string]any, 10), acked: make(chan string, 10), send: make(chan string, 10)}
	mux := http.NewServeMux()
	answer := func(rw http.ResponseWriter, v any) { json.NewEncoder(rw).Encode(v) }
	mux.HandleFunc("POST /api/apps.connections.open", func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer xapp-1" {
			t.Errorf("apps.connections.open was called with %q", r.Header.Get("Authorization"))
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.opened++
		if w.down {
			answer(rw, map[string]any{"ok": false, "error": "internal_error"})
			return
		}
		answer(rw, map[string]any{"ok": true, "url": "ws" + strings.TrimPrefix(w.server.URL, "http") + "/socket?ticket=CANARY"})
	})
	mux.HandleFunc("POST /api/auth.test", func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer xoxb-1" {
			t.Errorf("auth.test was called with %q", r.Header.Get("Authorization"))
		}
		answer(rw, map[string]any{"ok": true, "team_id": "T1"})
	})
	mux.HandleFunc("POST /api/users.info", func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer xoxb-1" {
			t.Errorf("users.info was called with %q", r.Header.Get("Authorization"))
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		user, ok := w.users[r.URL.Query().Get("user")]
		answer(rw, map[string]any{"ok": ok, "error": "user_not_found", "user": user})
	})
	mux.HandleFunc("POST /hook", func(rw http.ResponseWriter, r *http.Request) { w.posted = append(w.posted, w.read(r)) })
	mux.HandleFunc("POST /answer", func(rw http.ResponseWriter, r *http.Request) { w.answered <- w.read(r) })
	mux.HandleFunc("/socket", w.socket)
	w.server = httptest.NewServer(mux)
	t.Cleanup(w.server.Close)
	return w
}

func (w *workspace) read(r *http.Request) (v map[string]any) {
	text, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(text, &v)
	}
	if err != nil {
		w.t.Error(err)
	}
	return v
}

func (w *workspace) socket(rw http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(rw, r, nil)
	if err != nil {
		w.t.Error(err)
		return
	}
	defer conn.CloseNow()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go func() {
		defer cancel()
		for {
			_, text, err := conn.Read(ctx)
			if err != nil {
				return
			}
			var ack struct {
				ID string `json:"envelope_id"`
			}
			json.Unmarshal(text, &ack)
			w.acked <- ack.ID
		}
	}()
	conn.Write(ctx, websocket.MessageText, []byte(`{"type":"hello"}`))
	for {
		select {
		case <-ctx.Done():
			return
		case text := <-w.send:
			if text == "cut" {
				return
			}
			conn.Write(ctx, websocket.MessageText, []byte(text))
			if strings.Contains(text, `"disconnect"`) {
				return
			}
		}
	}
}

func (w *workspace) config() SlackConfig {
	return SlackConfig{
		WebhookURL: serval.NewSecret(w.server.URL + "/hook"), AppToken: serval.NewSecret("xapp-1"), BotToken: serval.NewSecret("xoxb-1"), APIURL: w.server.URL + "/api",
	}
}

// member adds a full member with a verified address.
func (w *workspace) member(id, email string, change ...func(map[string]any)) {
	user := map[string]any{"id": id, "team_id": "T1", "is_email_confirmed": true, "profile": map[string]any{"email": email}}
	for _, c := range change {
		c(user)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.users[id] = user
}

// click has somebody click a button.
func (w *workspace) click(envelope, user, team, action, value string) {
	w.clickIn("T1", envelope, user, team, action, value)
}

// clickIn is click in a channel of the workspace that Slack names.
func (w *workspace) clickIn(workspace, envelope, user, team, action, value string) {
	w.send <- fmt.Sprintf(`{"envelope_id":%q,"type":"interactive","accepts_response_payload":false,"payload":{"type":"block_actions",
		"user":{"id":%q,"team_id":%q},"team":{"id":%q},"response_url":%q,"actions":[{"action_id":%q,"value":%q}]}}`,
		envelope, user, team, workspace, w.server.URL+"/answer", action, value)
}

// run keeps a socket open while the test runs.
func (w *workspace) run(decide func(context.Context, Click) (string, error)) (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	var running sync.WaitGroup
	s := NewSocket(w.config(), origin, zap.NewNop(), decide)
	running.Go(func() { s.Run(ctx) })
	stop = func() {
		cancel()
		running.Wait()
	}
	w.t.Cleanup(stop)
	return stop
}

func (w *workspace) answer() map[string]any {
	w.t.Helper()
	select {
	case a := <-w.answered:
		return a
	case <-time.After(20 * time.Second):
		w.t.Fatal("nothing was answered in Slack")
		return nil
	}
}

// A click is acknowledged, decided once as whoever Slack has verified, and what
// came of it takes the message's place; a refusal is for whoever clicked alone.
func TestDecisionsFromSlack(t *testing.T) {
	slack := newWorkspace(t)
	before := goleak.IgnoreCurrent()
	slack.member("U1", "ann@example.com")
	clicks := make(chan Click, 10)
	var refuse error
	stop := slack.run(func(_ context.Context, c Click) (string, error) {
		clicks <- c
		return "ann@example.com approved it <now>.", refuse
	})
	slack.click("e1", "U1", "T1", actionApprove, "req_1 2")
	if got, want := <-clicks, (Click{"U1", "ann@example.com", "req_1", 2, true}); got != want {
		t.Errorf("the click is %+v, want %+v", got, want)
	}
	if a := slack.answer(); a["replace_original"] != true || a["text"] != "ann@example.com approved it &lt;now&gt;." || a["response_type"] != nil {
		t.Errorf("the answer is %v", a)
	}
	if id := <-slack.acked; id != "e1" {
		t.Errorf("acknowledged %q", id)
	}
	for _, err := range []error{serval.Refuse(serval.Denied, "You cannot decide your own request."), errors.New("CANARY")} {
		refuse = err
		slack.click("e2", "U1", "T1", actionDeny, "req_1 0")
		if c := <-clicks; c.Approve {
			t.Error("a denial approves")
		}
		a := slack.answer()
		text := a["text"].(string)
		if a["replace_original"] != false || a["response_type"] != "ephemeral" || strings.Contains(text, "CANARY") || !strings.Contains(text, origin+"/requests/req_1") {
			t.Errorf("refused, the answer is %v", a)
		}
		if serval.IsRefusal(err) && !strings.Contains(text, "You cannot decide your own request.") {
			t.Errorf("the refusal is not told: %v", a)
		}
		<-slack.acked
	}
	stop()
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	goleak.VerifyNone(t, before, goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
		goleak.IgnoreAnyFunction("net/http.(*conn).serve"), goleak.IgnoreAnyFunction("internal/poll.runtime_pollWait"))
}

// Who is not a full member of the workspace with an address that Slack has
// verified decides nothing: theirs is nobody's click, which is refused, and
// recorded as that.
func TestStrangersInSlack(t *testing.T) {
	slack := newWorkspace(t)
	set := func(name string, value any) func(map[string]any) {
		return func(u map[string]any) { u[name] = value }
	}
	slack.member("UNVERIFIED", "ann@example.com", set("is_email_confirmed", false))
	slack.member("SILENT", "ann@example.com", func(u map[string]any) { delete(u, "is_email_confirmed") })
	slack.member("GONE", "ann@example.com", set("deleted", true))
	slack.member("BOT", "ann@example.com", set("is_bot", true))
	slack.member("GUEST", "ann@example.com", set("is_restricted", true))
	slack.member("GUEST1", "ann@example.com", set("is_ultra_restricted", true))
	slack.member("STRANGER", "ann@example.com", set("is_stranger", true))
	slack.member("OTHERTEAM", "ann@example.com", set("team_id", "T2"))
	slack.member("SWAPPED", "ann@example.com", set("id", "U1"))
	slack.member("NOMAIL", "")
	slack.member("ODD", "Ann <ann@example.com>")
	slack.member("FROMELSEWHERE", "ann@example.com")
	var nobodys atomic.Int32
	slack.run(func(_ context.Context, c Click) (string, error) {
		if c.Email != "" || c.Request != "req_1" {
			t.Errorf("a decision of %+v was asked for", c)
		}
		nobodys.Add(1)
		return "", serval.Refuse(serval.LoginRequired, "Nobody knows who you are.")
	})
	for _, user := range []string{"UNVERIFIED", "SILENT", "GONE", "BOT", "GUEST", "GUEST1", "STRANGER", "OTHERTEAM", "SWAPPED", "NOMAIL", "ODD", "UNKNOWN", ""} {
		slack.click("e", user, "T1", actionApprove, "req_1 0")
		if a := slack.answer(); a["response_type"] != "ephemeral" || !strings.Contains(a["text"].(string), "Nothing was decided") {
			t.Errorf("%s: %v", user, a)
		}
		<-slack.acked
	}
	slack.click("e", "FROMELSEWHERE", "T2", actionApprove, "req_1 0")
	if a := slack.answer(); a["response_type"] != "ephemeral" {
		t.Errorf("of another workspace: %v", a)
	}
	<-slack.acked
	// In a channel that is shared with another company, whose admins say what
	// addresses their people have, a click may name their workspace throughout.
	for _, team := range []string{"T2", ""} {
		slack.clickIn("T2", "e", "OTHERTEAM", team, actionApprove, "req_1 0")
		if a := slack.answer(); a["response_type"] != "ephemeral" || !strings.Contains(a["text"].(string), "Nothing was decided") {
			t.Errorf("of another company: %v", a)
		}
		<-slack.acked
	}
	if n := nobodys.Load(); n != 16 {
		t.Errorf("%d clicks of nobody were brought to be refused, want 16", n)
	}
	// What is none of our buttons is acknowledged, and nothing comes of it.
	for _, c := range [][2]string{{actionOpen, "req_1 0"}, {"other", "req_1 0"}, {actionApprove, "req_1"}, {actionApprove, "req_1 x"}} {
		slack.click("e", "FROMELSEWHERE", "T1", c[0], c[1])
		<-slack.acked
	}
	for _, text := range []string{`{`, `[]`, `{"envelope_id":"e","type":"events_api","payload":{}}`, `{"envelope_id":"e","type":"interactive","payload":{"type":"block_actions","actions":[]}}`} {
		slack.send <- text
	}
	<-slack.acked
	<-slack.acked
}

// What is none of our buttons, in whatever envelope it comes, is nobody's decision.
func TestClicksOfOthers(t *testing.T) {
	slack := newWorkspace(t)
	slack.member("U1", "ann@example.com")
	var decided []Click
	s := NewSocket(slack.config(), origin, zap.NewNop(), func(_ context.Context, c Click) (string, error) {
		decided = append(decided, c)
		return "done", nil
	})
	const button = `{"action_id":"` + actionApprove + `","value":"req_1 0"}`
	envelopeOf := func(kind, payload, actions, to string) (e envelope) {
		text := fmt.Sprintf(`{"envelope_id":"e","type":%q,"payload":{"type":%q,"user":{"id":"U1","team_id":"T1"},"team":{"id":"T1"},"response_url":%q,"actions":[%s]}}`, kind, payload, to, actions)
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			t.Fatal(err)
		}
		return e
	}
	for name, e := range map[string]envelope{
		"an event":             envelopeOf("events_api", "block_actions", button, slack.server.URL+"/answer"),
		"a shortcut":           envelopeOf("interactive", "shortcut", button, slack.server.URL+"/answer"),
		"no button":            envelopeOf("interactive", "block_actions", "", slack.server.URL+"/answer"),
		"two buttons":          envelopeOf("interactive", "block_actions", button+","+button, slack.server.URL+"/answer"),
		"a button of another":  envelopeOf("interactive", "block_actions", `{"action_id":"other","value":"req_1 0"}`, slack.server.URL+"/answer"),
		"a button of no round": envelopeOf("interactive", "block_actions", `{"action_id":"`+actionApprove+`","value":"req_1"}`, slack.server.URL+"/answer"),
	} {
		if err := s.click(t.Context(), e, "T1"); err != nil || len(decided) > 0 || len(slack.answered) > 0 {
			t.Errorf("%s: %v, decided %+v", name, err, decided)
		}
	}
	if err := s.click(t.Context(), envelopeOf("interactive", "block_actions", button, slack.server.URL+"/answer"), "T1"); err != nil || len(decided) != 1 || len(slack.answered) != 1 {
		t.Errorf("our button: %v, decided %+v", err, decided)
	}
	// The address for the answer comes from outside, and nothing is sent there in
	// clear.
	err := s.click(t.Context(), envelopeOf("interactive", "block_actions", button, "http://answers.example/x"), "T1")
	if err == nil || !strings.Contains(err.Error(), "cannot be used") {
		t.Errorf("an answer in clear: %v", err)
	}
}

// A socket whose own workspace Slack does not name knows nobody.
func TestOwnWorkspace(t *testing.T) {
	for answer, want := range map[string]string{
		`{"ok":true,"team_id":"T1"}`: "T1",
		`{"ok":true}`:                "", `{"ok":true,"team_id":""}`: "", `{"ok":false,"error":"invalid_auth","team_id":"T1"}`: "", `{"team_id":"T1"}`: "", `{`: "", `[]`: "",
	} {
		api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, answer) }))
		s := NewSocket(SlackConfig{AppToken: serval.NewSecret("xapp-1"), BotToken: serval.NewSecret("xoxb-1"), APIURL: api.URL}, origin, zap.NewNop(), nil)
		if got, err := s.own(t.Context()); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v; want %q", answer, got, err, want)
		}
		api.Close()
	}
}

// The connection is made again when Slack moves it, cuts it or is away.
func TestSocketIsRedialed(t *testing.T) {
	slack := newWorkspace(t)
	slack.member("U1", "ann@example.com")
	clicks := make(chan Click, 10)
	slack.run(func(_ context.Context, c Click) (string, error) {
		clicks <- c
		return "done", nil
	})
	for i, cut := range []string{`{"type":"disconnect","reason":"refresh_requested"}`, "cut", ""} {
		slack.click(fmt.Sprint(i), "U1", "T1", actionDeny, "req_1 0")
		select {
		case <-clicks:
		case <-time.After(20 * time.Second):
			t.Fatalf("click %d did not arrive", i)
		}
		if cut != "" {
			slack.mu.Lock()
			slack.down = i == 1
			slack.mu.Unlock()
			slack.send <- cut
			time.AfterFunc(200*time.Millisecond, func() {
				slack.mu.Lock()
				defer slack.mu.Unlock()
				slack.down = false
			})
		}
	}
	for text, want := range map[string]bool{"wss://a.example/x": true, "ws://127.0.0.1:1/x": true, "ws://a.example/x": false, "https://a.example": false, "": false, "wss://": false} {
		if err := checkSocket(text); (err == nil) != want {
			t.Errorf("%q: %v, want %v", text, err, want)
		}
	}
}

// What is posted has buttons where it can be decided, and what people wrote makes
// no link there and calls nobody.
func TestSlackMessages(t *testing.T) {
	slack := newWorkspace(t)
	w := newWorld(t, NewSlack(slack.config()))
	r := w.request()
	w.tellOf(person("ana@example.com"), serval.RequestCreate, r)
	w.turn()
	r.Allocations[0].BreakGlass = true
	w.tellOf(person("ana@example.com"), serval.RequestBreakGlass, r)
	w.turn()
	if len(slack.posted) != 2 {
		t.Fatalf("%d messages were posted, want 2", len(slack.posted))
	}
	asked, err := encode(slack.posted[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{actionApprove, actionDeny, r.ID + " 0", origin + "/requests/" + r.ID, `"text":"Justification: <!channel> the *shop* is down","type":"plain_text"`} {
		if !strings.Contains(string(asked), want) {
			t.Errorf("the message lacks %q:\n%s", want, asked)
		}
	}
	if strings.Contains(string(asked), "mrkdwn") {
		t.Errorf("the message has markup:\n%s", asked)
	}
	glass, err := encode(slack.posted[1])
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(glass), actionApprove) {
		t.Errorf("a broken glass has buttons:\n%s", glass)
	}
	// Without the tokens there are no buttons that nobody would hear.
	bare := slack.config()
	bare.AppToken, bare.BotToken = serval.Secret{}, serval.Secret{}
	c := claimed{Notice: serval.Notice{Kind: serval.RequestCreate, Purpose: serval.ToDecide, RequestID: r.ID, Facts: r.NoticeFacts(serval.System())}, request: r}
	text, err := encode(NewSlack(bare).(interface{ blocks(Message) []any }).blocks(w.notifier.message(c)))
	if err != nil || strings.Contains(string(text), actionApprove) || !strings.Contains(string(text), actionOpen) {
		t.Errorf("without tokens: %s, %v", text, err)
	}
}
