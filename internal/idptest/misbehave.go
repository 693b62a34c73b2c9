package idptest

import (
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// A Misbehaviour says what the provider does wrong. The zero value is a good
// provider.
type Misbehaviour struct {
	// The ID token, in the order of application.
	Claims       func(claims map[string]any)   // changes, adds or removes claims
	Payload      func(payload []byte) []byte   // changes the encoded payload: duplicates, odd numbers
	Alg          string                        // signs with this instead: "none", "HS256" keyed by the public key, another
	Header       func(header map[string]any)   // changes the header; without kid: delete(header, "kid")
	WrongKey     bool                          // signs with a key nobody knows, under the published kid
	BadSignature bool                          // spoils the signature
	WrongAtHash  bool                          // at_hash of some other access token
	IDToken      func(idToken string) string   // changes the finished token
	TokenAnswer  func(answer map[string]any)   // changes the token endpoint's good answer
	UserInfo     func(claims map[string]any)   // changes the UserInfo answer
	Discovery    func(document map[string]any) // changes the discovery document
	Keys         func(keys []jose.JSONWebKey) []jose.JSONWebKey

	// The way back to the client.
	Callback         func(query url.Values) // changes the callback: drops state, adds iss
	Error            string                 // answers with this error instead of a code
	ErrorDescription string

	// Answers given instead of, or before, the endpoint's own.
	AtDiscovery, AtAuthorize, AtToken, AtJWKS, AtUserInfo Answer
}

// An Answer replaces or delays what an endpoint would have said. The zero
// value does neither.
type Answer struct {
	Status int           // answers with this status and Body; 0 with a Body means 200
	Body   string        // answers with this body, as JSON unless it begins with < or Header says another type
	Header http.Header   // of the answer, also of the endpoint's own
	Delay  time.Duration // waits first
	Hang   bool          // never answers, until the client goes away
	Cut    bool          // sends half of Body and resets the connection
}

// Misbehave changes what the provider does wrong, on top of what it does wrong
// already. Undo puts back what was before the call.
func (p *Provider) Misbehave(f func(*Misbehaviour)) (undo func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.m
	f(&p.m)
	p.signing() // has its key made now: it may take longer than a client waits for a token
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.m = before
	}
}

func (m *Misbehaviour) answer(endpoint string) Answer {
	switch endpoint {
	case "discovery":
		return m.AtDiscovery
	case "authorize":
		return m.AtAuthorize
	case "token":
		return m.AtToken
	case "jwks":
		return m.AtJWKS
	case "userinfo":
		return m.AtUserInfo
	}
	return Answer{}
}

// instead carries the answer out and reports whether nothing is left to say.
func (a Answer) instead(w http.ResponseWriter, r *http.Request) bool {
	if a.Delay > 0 {
		select {
		case <-time.After(a.Delay):
		case <-r.Context().Done():
			return true
		}
	}
	if a.Hang {
		// Without reading the body the server would not notice that the client
		// has gone.
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
		return true
	}
	for name, values := range a.Header {
		w.Header()[http.CanonicalHeaderKey(name)] = values
	}
	if a.Status == 0 && a.Body == "" {
		return false
	}
	status := a.Status
	if status == 0 {
		status = http.StatusOK
	}
	if w.Header().Get("Content-Type") == "" && !strings.HasPrefix(a.Body, "<") {
		w.Header().Set("Content-Type", "application/json")
	}
	if a.Cut {
		w.Header().Set("Content-Length", strconv.Itoa(len(a.Body)))
		w.WriteHeader(status)
		io.WriteString(w, a.Body[:len(a.Body)/2])
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(status)
	io.WriteString(w, a.Body)
	return true
}
