package client

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// An Arrival is a person on their way back from the browser: a listener on
// loopback that the bridge's page sends them to. It is of use to nobody but the
// process that began it, which alone has the verifier.
type Arrival struct {
	client   *Client
	listener net.Listener
	server   *http.Server
	verifier serval.Secret
	state    string
	host     string
	served   chan struct{}

	once    sync.Once // the first callback that is ours
	arrived chan outcome
}

type outcome struct {
	token wire.ClientToken
	err   error
}

// Begin begins a sign-in through the browser. It listens on port of 127.0.0.1,
// on one that the kernel chooses where it is 0. Machine is what the person is
// shown as the name of this machine. Close ends it.
func (c *Client) Begin(ctx context.Context, port int, machine string) (*Arrival, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp4", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		return nil, serval.Refuse(serval.FailedPrecondition, "This machine does not let serval listen on 127.0.0.1, port %d, where the browser comes back to: %s.", port, err)
	}
	a := &Arrival{
		client: c, listener: l, verifier: newVerifier(), state: rand.Text(), host: Label(machine),
		served: make(chan struct{}), arrived: make(chan outcome, 1),
	}
	a.server = &http.Server{Handler: a, ReadHeaderTimeout: dialTime, MaxHeaderBytes: 64 << 10}
	go func() {
		defer close(a.served)
		_ = a.server.Serve(l) // until Close
	}()
	return a, nil
}

// newVerifier returns a PKCE verifier of 256 random bits (RFC 7636).
func newVerifier() serval.Secret {
	var bits [32]byte
	rand.Read(bits[:])
	return serval.NewSecret(base64.RawURLEncoding.EncodeToString(bits[:]))
}

var unlabelled = regexp.MustCompile(`[^A-Za-z0-9 ._+/()-]+`)

// Label returns text as the bridge takes the name of a client or of a machine.
func Label(text string) string {
	text = strings.TrimLeft(unlabelled.ReplaceAllString(text, "-"), " ._+/()-")
	if text == "" {
		return "unnamed"
	}
	return text[:min(64, len(text))]
}

// Port returns the port that is listened on.
func (a *Arrival) Port() int { return a.listener.Addr().(*net.TCPAddr).Port }

func (a *Arrival) redirectURI() string { return fmt.Sprintf("http://127.0.0.1:%d/callback", a.Port()) }

// Address returns what to open in the browser. There is no secret in it: it may
// be printed, and stand in a process's arguments.
func (a *Arrival) Address() string {
	return a.client.origin + "/client/authorize?" + url.Values{
		"response_type": {"code"}, "client_id": {serval.ClientID}, "client_name": {Label(a.client.name)}, "client_host": {a.host},
		"redirect_uri": {a.redirectURI()}, "state": {a.state},
		"code_challenge": {serval.Challenge(a.verifier)}, "code_challenge_method": {"S256"},
	}.Encode()
}

// Wait returns the login as soon as the person has let the client in. That they
// said no is a refusal of kind Denied.
func (a *Arrival) Wait(ctx context.Context) (wire.ClientToken, error) {
	select {
	case o := <-a.arrived:
		return o.token, o.err
	case <-ctx.Done():
		return wire.ClientToken{}, ctx.Err()
	}
}

// Close stops listening. What the browser is being told is told to its end.
func (a *Arrival) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if a.server.Shutdown(ctx) != nil {
		_ = a.server.Close() // somebody keeps a connection open, and has had their second
	}
	<-a.served
}

// ServeHTTP takes the browser back. Whatever is not the bridge's answer to this
// very sign-in is refused and changes nothing: anybody on this machine, and any
// page in its browser, can call here.
func (a *Arrival) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Type", "text/html; charset=utf-8")
	q := r.URL.Query()
	switch {
	case r.Host != fmt.Sprintf("127.0.0.1:%d", a.Port()): // S-63: a name that was rebound
		say(w, http.StatusMisdirectedRequest, "This is not the address that serval listens on.")
		return
	case r.Method != http.MethodGet || r.URL.Path != "/callback":
		say(w, http.StatusNotFound, "There is nothing here.")
		return
	case len(q["state"]) != 1 || subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(a.state)) != 1,
		len(q["iss"]) != 1 || q.Get("iss") != a.client.origin, len(q["code"])+len(q["error"]) != 1:
		say(w, http.StatusBadRequest, "This does not belong to the sign-in that serval waits for. Begin again in the terminal.")
		return
	}
	first := false
	a.once.Do(func() { first = true })
	if !first {
		say(w, http.StatusConflict, "This sign-in is over. Go back to the terminal.")
		return
	}
	var o outcome
	if q.Has("error") {
		o.err = serval.Refuse(serval.Denied, "The sign-in was refused in the browser.")
	} else {
		ctx := context.WithoutCancel(r.Context()) // a browser that is closed now has let the client in all the same
		o.token, o.err = a.client.redeem(ctx, wire.NewClientToken{
			GrantType: "authorization_code", Code: q.Get("code"), RedirectURI: a.redirectURI(), CodeVerifier: a.verifier.Reveal(),
		})
	}
	a.arrived <- o
	switch {
	case q.Has("error"):
		say(w, http.StatusOK, "serval was not let in. You can close this window.")
	case o.err != nil:
		say(w, http.StatusBadGateway, "The sign-in did not work. The terminal says why.")
	default:
		say(w, http.StatusOK, "serval is signed in. You can close this window and go back to the terminal.")
	}
}

// say answers with a page of one sentence, which is one of ours.
func say(w http.ResponseWriter, status int, sentence string) {
	w.WriteHeader(status)
	_, _ = io.WriteString(w, `<!doctype html><html lang="en"><meta charset="utf-8"><title>serval</title>`+
		`<body style="font: 18px/1.5 system-ui, sans-serif; margin: 15vh auto; max-width: 32em; padding: 0 1em"><p>`+sentence+"</p></body></html>\n")
}

// redeem returns the login for what the client was let in with.
func (c *Client) redeem(ctx context.Context, ask wire.NewClientToken) (token wire.ClientToken, err error) {
	if err := c.As(serval.Secret{}).call(ctx, http.MethodPost, "/client/token", ask, &token); err != nil {
		return wire.ClientToken{}, err
	}
	if token.AccessToken == "" || token.EndsAt.IsZero() {
		return wire.ClientToken{}, c.foreign(http.StatusOK, "a login without a token")
	}
	return token, nil
}
