// Package upstream is the control plane's wire, seen from the worker: whatever
// serves the upstream API under one base URL.
//
// A Client asks for the worker's accounts, opens the sync of one of them and
// pushes what was read. It tries each call once: when to try again is the
// caller's judgement. What the upstream refuses is a *serval.Refusal, or a *Busy
// where another worker has the account; everything else is a fault.
//
// The bearer token is asked for anew at every call, because the one that
// Kubernetes projects into a pod changes every hour. It goes to the base URL
// and nowhere else: redirects are not followed, and plain http is for loopback
// unless it is allowed explicitly. Nothing is kept on disk, and an inventory is
// written as a stream.
package upstream

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// The deadlines and bounds of a call.
const (
	callDeadline = 30 * time.Second // beside the wait of a long poll
	pushDeadline = 10 * time.Minute // 256 MiB over a slow line, and their staging
	maxAnswer    = 32 << 20         // ten thousand accounts; an account with twenty thousand roles
	maxRefusal   = 64 << 10
)

// A Config says where the upstream is.
type Config struct {
	// BaseURL is the upstream's origin, perhaps with a path; /api/v1 follows it.
	BaseURL string
	// Token returns the bearer token for one call. Default: none is sent.
	Token func() (serval.Secret, error)
	// AllowPlaintext lets http reach other hosts than this one: for a network
	// that encrypts by itself.
	AllowPlaintext bool
	// CAFile holds the certificate authorities (PEM) that vouch for the upstream, in
	// place of the public ones. It is read at each connection, because authorities
	// in a cluster are renewed; no proxy is asked then. Default: the system's.
	CAFile string
	// HTTPClient makes the calls; its CheckRedirect is not used. Default: one of
	// its own, which honours the usual proxy variables.
	HTTPClient *http.Client
}

// A Client speaks to one upstream. It is safe for concurrent use.
type Client struct {
	base  string
	token func() (serval.Secret, error)
	http  *http.Client

	identity atomic.Pointer[string] // who the worker is to AWS; nil while not known

	// takes has, by account, the generation of the last sync that was opened with an
	// upstream that takes the policies of boundaries.
	takes sync.Map
}

// New returns a client. It makes no call; a base URL that cannot be used is
// refused.
func New(c Config) (*Client, error) {
	if err := CheckURL(c.BaseURL, c.AllowPlaintext); err != nil {
		return nil, err
	}
	client := http.Client{Transport: newTransport(c.CAFile)}
	if c.HTTPClient != nil {
		client = *c.HTTPClient
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{base: strings.TrimSuffix(c.BaseURL, "/") + "/api/v1/upstream", token: c.Token, http: &client}, nil
}

// newTransport returns the transport of a client that is given none. There is
// no bound on the time to an answer's head: a long poll and a push take theirs.
func newTransport(caFile string) *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 4
	if caFile != "" {
		t.Proxy = nil
		t.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			authorities, err := ReadCAFile(caFile)
			if err != nil {
				return nil, err
			}
			d := tls.Dialer{Config: &tls.Config{RootCAs: authorities, MinVersion: tls.VersionTLS12}}
			return d.DialContext(ctx, network, address)
		}
	}
	return t
}

// ReadCAFile reads certificate authorities, at least one.
func ReadCAFile(path string) (*x509.CertPool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the upstream's certificate authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("reading the upstream's certificate authorities: there is no certificate (PEM) in %s", path)
	}
	return pool, nil
}

// CheckURL refuses a base URL that is not https, nor http on a loopback address,
// nor http where that is allowed.
func CheckURL(base string, allowPlaintext bool) error {
	u, err := url.Parse(base)
	switch {
	case err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return serval.Refuse(serval.Invalid, "not a URL such as https://serval.example.com.")
	case u.Scheme == "https", u.Scheme == "http" && (allowPlaintext || serval.IsLoopback(u.Hostname())):
		return nil
	default:
		return serval.Refuse(serval.Invalid, "must be https: a token goes over it (http is allowed on a loopback address only).")
	}
}

// Close closes connections that are idle.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// TokenFile returns a Token that reads the file at each call and drops one
// trailing newline.
func TokenFile(path string) func() (serval.Secret, error) {
	return func() (serval.Secret, error) {
		text, err := os.ReadFile(path)
		if err != nil {
			return serval.Secret{}, fmt.Errorf("reading the upstream token: %w", err)
		}
		return serval.NewSecret(strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")), nil
	}
}

// Introduce has the upstream told, with each call of Accounts from now on, who
// this worker is to AWS: its account is what trust policies have to name.
func (c *Client) Introduce(caller serval.CallerARN) { c.identity.Store(&caller.ARN) }

// A Busy says that another worker has claimed the account. It is a refusal of
// kind Conflict.
type Busy struct {
	*serval.Refusal
	Until time.Time // the claim's end
}

// Unwrap returns the refusal.
func (b *Busy) Unwrap() error { return b.Refusal }

// Accounts returns the worker's accounts as soon as there is another version of
// them than the one given, and after the wait at the latest.
func (c *Client) Accounts(ctx context.Context, version string, wait time.Duration) (wire.WorkerAccounts, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+callDeadline)
	defer cancel()
	query := waiting(version, wait)
	if identity := c.identity.Load(); identity != nil {
		query.Set("identity", *identity)
	}
	var answer wire.WorkerAccounts
	err := c.call(ctx, http.MethodGet, "/accounts?"+query.Encode(), nil, &answer)
	return answer, err
}

// waiting is the query of a long poll.
func waiting(version string, wait time.Duration) url.Values {
	query := url.Values{"wait": {strconv.Itoa(int(wait.Seconds()))}}
	if version != "" {
		query.Set("version", version)
	}
	return query
}

// OpenSync claims the next sync of the account and returns its generation, with
// the roles that the upstream lists for it. While another worker has it, the
// error is a *Busy.
func (c *Client) OpenSync(ctx context.Context, accountID, worker string, kind serval.SyncKind) (wire.Sync, error) {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	body, err := json.Marshal(wire.OpenSync{Worker: worker, Kind: kind})
	if err != nil {
		return wire.Sync{}, fmt.Errorf("opening a sync: %w", err)
	}
	var answer wire.Sync
	err = c.call(ctx, http.MethodPost, "/accounts/"+url.PathEscape(accountID)+"/syncs", &payload{reader: bytes.NewReader(body)}, &answer)
	if err == nil && answer.Generation < 1 {
		return wire.Sync{}, fmt.Errorf("opening a sync of account %s: the upstream issued generation %d", accountID, answer.Generation)
	}
	if err == nil && answer.TakesBoundaries {
		c.takes.Store(accountID, answer.Generation)
	}
	if r, ok := errors.AsType[*serval.Refusal](err); ok && r.Kind == serval.Conflict {
		if until, parseErr := time.Parse(time.RFC3339Nano, r.Detail["until"]); parseErr == nil {
			return wire.Sync{}, &Busy{r, until}
		}
	}
	return answer, err
}

// PushInventory puts the inventory of an account, which is normalized and bears
// the generation its sync was opened with. The same inventory always has the
// same bytes, so that pushing it twice is the same as once. Where the upstream
// takes offence at the inventory itself, the refusal's detail has its size
// (bytes) and digest (sha256), both uncompressed. An upstream that did not say that
// it takes the policies of boundaries is not sent them.
func (c *Client) PushInventory(ctx context.Context, inv serval.Inventory) (wire.Push, error) {
	inv.Roles = c.taken(inv.AccountID, inv.Generation, inv.Roles)
	return c.push(ctx, inv.AccountID, "inventory", inv.Generation, func(w io.Writer) error { return wire.WriteInventory(w, inv) })
}

// PushDelta puts a delta as PushInventory does an inventory.
func (c *Client) PushDelta(ctx context.Context, d serval.Delta) (wire.Push, error) {
	d.Roles = c.taken(d.AccountID, d.Generation, d.Roles)
	return c.push(ctx, d.AccountID, "delta", d.Generation, func(w io.Writer) error { return wire.WriteDelta(w, d) })
}

// taken returns roles as the upstream that the sync was opened with takes them.
func (c *Client) taken(accountID string, generation int64, roles []serval.Role) []serval.Role {
	if opened, _ := c.takes.Load(accountID); opened == generation {
		return roles
	}
	plain := slices.Clone(roles)
	for i := range plain {
		plain[i].BoundaryPolicy = nil
	}
	return plain
}

func (c *Client) push(ctx context.Context, accountID, what string, generation int64, body func(io.Writer) error) (wire.Push, error) {
	ctx, cancel := context.WithTimeout(ctx, pushDeadline)
	defer cancel()

	read, write := io.Pipe()
	var wrote error
	done := make(chan struct{})
	go func() {
		defer close(done)
		z := gzip.NewWriter(write)
		err := body(z)
		if err == nil {
			err = z.Close()
		}
		if !errors.Is(err, io.ErrClosedPipe) {
			wrote = err
		}
		write.CloseWithError(err)
	}()
	var answer wire.Push
	err := c.call(ctx, http.MethodPut, "/accounts/"+url.PathEscape(accountID)+"/"+what, &payload{read, "gzip"}, &answer)
	read.Close() // the upstream may have answered before the end
	<-done
	if wrote != nil {
		return wire.Push{}, fmt.Errorf("writing the %s of account %s: %w", what, accountID, wrote)
	}
	if r, ok := errors.AsType[*serval.Refusal](err); ok &&
		(r.Kind == serval.TooLarge || r.Kind == serval.Invalid || r.Kind == serval.FailedPrecondition) {
		return answer, measured(r, body)
	}
	if err == nil && answer.Generation != generation {
		return answer, fmt.Errorf("pushing generation %d of account %s: the upstream answered for generation %d", generation, accountID, answer.Generation)
	}
	return answer, err
}

// measured returns r with the size and the digest of what was pushed.
func measured(r *serval.Refusal, body func(io.Writer) error) error {
	sum := sha256.New()
	var size counter
	if err := body(io.MultiWriter(sum, &size)); err != nil {
		return r
	}
	with := *r
	with.Detail = map[string]string{"bytes": strconv.FormatInt(int64(size), 10), "sha256": hex.EncodeToString(sum.Sum(nil))}
	for k, v := range r.Detail {
		with.Detail[k] = v
	}
	return &with
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// A payload is a JSON body on its way out.
type payload struct {
	reader   io.Reader
	encoding string
}

// call makes one call and decodes its answer.
func (c *Client) call(ctx context.Context, method, path string, body *payload, answer any) error {
	what := method + " " + strings.SplitN(path, "?", 2)[0]
	var reader io.Reader
	if body != nil {
		reader = body.reader
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, reader)
	if err != nil {
		return fmt.Errorf("upstream: %s: %w", what, err)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "serval-worker")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
		if body.encoding != "" {
			req.Header.Set("Content-Encoding", body.encoding)
		}
	}
	if c.token != nil {
		token, err := c.token()
		if err != nil {
			return err
		}
		if token.Empty() {
			return errors.New("upstream: the token is empty")
		}
		req.Header.Set("Authorization", "Bearer "+token.Reveal())
	}
	res, err := c.http.Do(req)
	if err != nil {
		// The URL's query, which *url.Error would show, is of no use to anybody.
		var outer *url.Error
		if errors.As(err, &outer) {
			err = outer.Err
		}
		return fmt.Errorf("upstream: %s: %w", what, err)
	}
	defer res.Body.Close()
	switch {
	case res.StatusCode >= 400:
		return refusal(res)
	case res.StatusCode != http.StatusOK && res.StatusCode != http.StatusCreated:
		return fmt.Errorf("upstream: %s: answered %d, which is not followed", what, res.StatusCode)
	}
	bounded := &io.LimitedReader{R: res.Body, N: maxAnswer + 1}
	if err := json.NewDecoder(bounded).Decode(answer); err != nil {
		if bounded.N == 0 {
			return fmt.Errorf("upstream: %s: answered more than %d bytes", what, maxAnswer)
		}
		// The text of a decoder's error may quote the answer, the cause of one
		// that broke off matters.
		if ctx.Err() != nil {
			return fmt.Errorf("upstream: %s: %w", what, ctx.Err())
		}
		return fmt.Errorf("upstream: %s: answered 200 without the JSON that belongs there", what)
	}
	return nil
}

// kinds of a refusal that came without an envelope, as from a proxy on the way.
var kinds = map[int]serval.Kind{
	http.StatusBadRequest:            serval.Invalid,
	http.StatusUnauthorized:          serval.Unauthenticated,
	http.StatusForbidden:             serval.Denied,
	http.StatusNotFound:              serval.NotFound,
	http.StatusConflict:              serval.Conflict,
	http.StatusRequestEntityTooLarge: serval.TooLarge,
	http.StatusUnprocessableEntity:   serval.FailedPrecondition,
	http.StatusTooManyRequests:       serval.Exhausted,
}

// refusal returns what an answer of 400 or more means. The status decides the
// kind: the envelope's code is only what it should be.
func refusal(res *http.Response) error {
	kind, known := kinds[res.StatusCode]
	switch {
	case res.StatusCode >= 500:
		kind = serval.Unavailable
	case !known:
		kind = serval.Invalid
	}
	var envelope wire.Error
	text, err := io.ReadAll(io.LimitReader(res.Body, maxRefusal))
	if err != nil || json.Unmarshal(text, &envelope) != nil || envelope.Message == "" {
		// A 404 that is not the API's is of a wrong base URL or of a proxy while
		// the upstream is away, and says nothing of the account.
		if kind == serval.NotFound || kind == serval.Conflict {
			kind = serval.Unavailable
		}
		return serval.Refuse(kind, "The upstream answered %d %s.", res.StatusCode, http.StatusText(res.StatusCode))
	}
	return &serval.Refusal{Kind: kind, Reason: clip(envelope.Message), Detail: envelope.Detail}
}

// clip cuts a sentence that came over the wire.
func clip(text string) string {
	text = strings.ToValidUTF8(text, "�")
	if len(text) > 500 {
		return strings.ToValidUTF8(text[:500], "") + "…"
	}
	return text
}
