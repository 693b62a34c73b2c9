// Package tokenreview recognises a workload by the cluster that it runs in.
//
// A pod has a token of its service account, made out to one audience. A
// [Reviewer] shows such a token to the cluster's API server by one POST of a
// TokenReview, and believes what that answers: not that the token is good, but
// that it is good for our audience and the named user's. client-go, which would
// be several times the size of everything else, is not needed for that.
//
// An API server that is away is no answer: Review says so, and nobody is turned
// away or let in by it. What was answered is kept for a short while, so that a
// worker that calls often does not have the API server asked each time; a token
// that is revoked is so known a minute later at the latest.
package tokenreview

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A Config says whom to ask, and who is recognised. All but Now is required.
type Config struct {
	Server    string // URL of the API server
	TokenFile string // our own bearer token for it; read anew, so that it may be renewed
	CAFile    string // whom to trust as API server; read anew too

	Audience string // that a token has to be made out to
	Subject  string // user name of the one workload that is recognised

	Now func() time.Time // nil means time.Now
}

// The bounds.
const (
	patience    = 5 * time.Second  // with the API server
	goodFor     = time.Minute      // how long a token stays recognised
	badFor      = 10 * time.Second // how long one stays refused
	mostKept    = 256              // answers
	mostAtOnce  = 4                // reviews under way,
	mostFrom    = 2                // of them, and of what waits to be, from one network
	longest     = 16 << 10         // a token
	longestText = 256 << 10        // an answer
)

// A Reviewer recognises one workload. It is safe for concurrent use.
type Reviewer struct {
	c     Config
	turns chan struct{}

	mu      sync.Mutex
	answers map[[sha256.Size]byte]*answer
	from    map[string]int // networks that reviews are under way for, and how many
	client  *http.Client
	pem     []byte // that client trusts
}

// An answer is what the API server says of one token, or is going to.
type answer struct {
	done    chan struct{} // closed when what follows is there
	verdict Verdict
	err     error
	until   time.Time
}

// A Verdict says whether a token is the workload's.
type Verdict struct {
	OK  bool
	Why string // why not, for the operator; a stranger is not told
}

// New returns a reviewer. Nothing is asked or read before the first token.
func New(c Config) *Reviewer {
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Reviewer{c: c, turns: make(chan struct{}, mostAtOnce), answers: make(map[[sha256.Size]byte]*answer), from: make(map[string]int)}
}

// Close gives up connections that are not in use.
func (r *Reviewer) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.client != nil {
		r.client.CloseIdleConnections()
	}
}

// Review judges a token that somebody at an address has brought. The error is a
// refusal of kind Unavailable, with its cause behind it: the API server could not
// be asked, and the same token may well be good. Several calls with one token are
// one question. Of one network two are asked at a time: whoever makes tokens up
// leaves room for those who have one. From no address counts to none.
func (r *Reviewer) Review(ctx context.Context, from string, token serval.Secret) (Verdict, error) {
	c, why := r.read(token.Reveal())
	if why != "" {
		return Verdict{Why: why}, nil // not the API server's business either
	}
	key := sha256.Sum256([]byte(token.Reveal()))
	network := ""
	if from != "" {
		network = serval.NetworkOf(from)
	}
	a, mine := r.find(key, network)
	if a == nil {
		return Verdict{}, unavailable(errBusy)
	}
	if !mine {
		select {
		case <-a.done:
			return a.verdict, a.err
		case <-ctx.Done():
			return Verdict{}, ctx.Err()
		}
	}
	// Whoever asked first may go away; the others wait all the same.
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	a.verdict, a.err = r.ask(asking, token)
	r.leave(network)
	now := r.c.Now()
	switch expires := time.Unix(c.Expires, 0); {
	case a.err != nil:
		a.err = unavailable(a.err)
		r.forget(key) // the next one asks again
	case a.verdict.OK && expires.Before(now.Add(goodFor)):
		a.until = expires
	case a.verdict.OK:
		a.until = now.Add(goodFor)
	default:
		a.until = now.Add(badFor)
	}
	close(a.done)
	return a.verdict, a.err
}

var errBusy = errors.New("too many tokens are under review")

func unavailable(cause error) error {
	return fmt.Errorf("%w (%w)", serval.Refuse(serval.Unavailable, "The cluster cannot say now whose token this is. Try again in a moment."), cause)
}

// claims are what a token says of itself, which is no more than that.
type claims struct {
	Subject  string   `json:"sub"`
	Audience audience `json:"aud"`
	Expires  int64    `json:"exp"`
}

type audience []string

// UnmarshalJSON takes one text or a list of them (RFC 7519 section 4.1.3).
func (a *audience) UnmarshalJSON(text []byte) error {
	if len(text) > 0 && text[0] == '"' {
		*a = make(audience, 1)
		return json.Unmarshal(text, &(*a)[0])
	}
	return json.Unmarshal(text, (*[]string)(a))
}

// read returns what a token says of itself, or why it cannot be the workload's.
// What cannot be is kept from the API server: another's token is not ours to
// pass on, and whoever makes tokens up cannot keep it busy so easily.
func (r *Reviewer) read(token string) (c claims, why string) {
	parts := strings.Split(token, ".")
	if len(token) > longest || len(parts) != 3 {
		return claims{}, "it is no service account's token"
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(text, &c) != nil {
		return claims{}, "it is no service account's token"
	}
	if c.Subject != r.c.Subject {
		return claims{}, fmt.Sprintf("it says that it is %q's, and %s is who is recognised", serval.Cut(c.Subject, 200), r.c.Subject)
	}
	if !slices.Contains(c.Audience, r.c.Audience) {
		return claims{}, fmt.Sprintf("it is made out to another audience than %s", r.c.Audience)
	}
	return c, ""
}

// find returns the answer to a token, and whether it is the caller's to get; then
// the network is counted until it leaves. It returns none where too many are on
// their way, in all or of the network.
func (r *Reviewer) find(key [sha256.Size]byte, network string) (a *answer, mine bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.c.Now()
	if a := r.answers[key]; a != nil && (!a.isDone() || now.Before(a.until)) {
		return a, false
	}
	if r.from[network] >= mostFrom {
		return nil, false
	}
	for _, all := range []bool{false, true} { // first what a stranger may have brought
		for k, a := range r.answers {
			if len(r.answers) >= mostKept && a.isDone() && (all || !a.verdict.OK) {
				delete(r.answers, k)
			}
		}
	}
	if len(r.answers) >= mostKept {
		return nil, false
	}
	a = &answer{done: make(chan struct{})}
	r.answers[key] = a
	if network != "" {
		r.from[network]++
	}
	return a, true
}

// leave gives the network's place back.
func (r *Reviewer) leave(network string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.from[network]--; r.from[network] <= 0 {
		delete(r.from, network)
	}
}

func (a *answer) isDone() bool {
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}

func (r *Reviewer) forget(key [sha256.Size]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.answers, key)
}

// The TokenReview of authentication.k8s.io/v1, as far as it is used.
type review struct {
	APIVersion string       `json:"apiVersion"`
	Kind       string       `json:"kind"`
	Spec       reviewSpec   `json:"spec"`
	Status     reviewStatus `json:"status,omitzero"`
}

type reviewSpec struct {
	Token     string   `json:"token"`
	Audiences []string `json:"audiences"`
}

type reviewStatus struct {
	Authenticated bool `json:"authenticated"`
	User          struct {
		Username string `json:"username"`
	} `json:"user"`
	Audiences []string `json:"audiences"`
	Error     string   `json:"error"`
}

// ask shows the token to the API server. An error means that it gave no answer.
func (r *Reviewer) ask(ctx context.Context, token serval.Secret) (Verdict, error) {
	select {
	case r.turns <- struct{}{}:
		defer func() { <-r.turns }()
	case <-ctx.Done():
		return Verdict{}, errBusy
	}
	client, err := r.connect()
	if err != nil {
		return Verdict{}, err
	}
	own, err := os.ReadFile(r.c.TokenFile)
	if err != nil {
		return Verdict{}, fmt.Errorf("reading our own token: %w", err)
	}
	body, err := json.Marshal(review{
		APIVersion: "authentication.k8s.io/v1", Kind: "TokenReview",
		Spec: reviewSpec{Token: token.Reveal(), Audiences: []string{r.c.Audience}},
	})
	if err != nil {
		return Verdict{}, fmt.Errorf("writing a TokenReview: %w", err)
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, r.c.Server+"/apis/authentication.k8s.io/v1/tokenreviews", bytes.NewReader(body))
	if err != nil {
		return Verdict{}, fmt.Errorf("asking the API server: %w", err)
	}
	q.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(own)))
	q.Header.Set("Content-Type", "application/json")
	q.Header.Set("Accept", "application/json")
	res, err := client.Do(q)
	if err != nil {
		return Verdict{}, fmt.Errorf("asking the API server: %w", err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, longestText))
	switch {
	case err != nil:
		return Verdict{}, fmt.Errorf("reading the API server's answer: %w", err)
	case res.StatusCode == http.StatusForbidden:
		return Verdict{}, fmt.Errorf("this bridge may not create TokenReviews; its service account needs a ClusterRole with create on tokenreviews of "+
			"the API group authentication.k8s.io: %s", message(text))
	case res.StatusCode == http.StatusUnauthorized:
		return Verdict{}, fmt.Errorf("the API server does not accept this bridge's own token in %s: %s", r.c.TokenFile, message(text))
	case res.StatusCode != http.StatusCreated && res.StatusCode != http.StatusOK:
		return Verdict{}, fmt.Errorf("the API server answered %d: %s", res.StatusCode, message(text))
	}
	var answer review
	if err := json.Unmarshal(text, &answer); err != nil || answer.Kind != "TokenReview" {
		return Verdict{}, errors.New("the API server answered with something else than a TokenReview")
	}
	return r.judge(answer.Status), nil
}

// judge says what the API server's word means to us. It may know the token and
// yet not have looked whom it is made out to, or know it as another's.
func (r *Reviewer) judge(s reviewStatus) Verdict {
	switch {
	case !s.Authenticated:
		return Verdict{Why: "the API server does not accept it: " + serval.Cut(s.Error, 300)}
	case !slices.Contains(s.Audiences, r.c.Audience):
		return Verdict{Why: "the API server does not say that it is made out to " + r.c.Audience}
	case s.User.Username != r.c.Subject:
		return Verdict{Why: "the API server knows it as another's"}
	}
	return Verdict{OK: true}
}

// message returns what the API server says of a refusal.
func message(text []byte) string {
	var status struct{ Message string }
	if json.Unmarshal(text, &status) != nil || status.Message == "" {
		return serval.Cut(string(text), 200)
	}
	return serval.Cut(status.Message, 500)
}

// connect returns a client that trusts the cluster's authority and nobody else,
// and goes by no proxy.
func (r *Reviewer) connect() (*http.Client, error) {
	pem, err := os.ReadFile(r.c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("reading the cluster's authority: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.client != nil && bytes.Equal(pem, r.pem) {
		return r.client, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("there is no certificate in %s", r.c.CAFile)
	}
	if r.client != nil {
		r.client.CloseIdleConnections()
	}
	r.pem = pem
	r.client = &http.Client{
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
			MaxIdleConns:    mostAtOnce, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: patience,
		},
		// Nobody is sent elsewhere with a token.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return r.client, nil
}
