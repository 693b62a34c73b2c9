// Package client is the bridge's wire, seen from a laptop: one person, one
// machine, the HTTP API under the bridge's origin.
//
// A Client makes one call for each of its methods. What the bridge refuses is a
// *serval.Refusal, with the bridge's own sentence. A bridge that was not reached,
// or that something else answered for, is a *Failure, which says which of the
// usual causes it is. Begin signs a person in through their browser, StartDevice
// by a typed code.
//
// The token goes to the bridge's origin and nowhere else: redirects are not
// followed, and plain http is for loopback.
package client

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// The deadlines and bounds of a call.
const (
	dialTime    = 5 * time.Second
	callTime    = 30 * time.Second
	sessionTime = 90 * time.Second // AWS is asked up to three times
	maxAnswer   = 32 << 20
	pageSize    = 1000
	maxPages    = 200
)

// A Config says where the bridge is, and who asks.
type Config struct {
	BaseURL string        // the bridge's origin, as Origin returns it
	Token   serval.Secret // of a client login; may be empty
	Name    string        // of the client, such as "serval 1.2"
	// HTTPClient makes the calls; its CheckRedirect is not used. Default: one of
	// its own, which honours the usual proxy variables.
	HTTPClient *http.Client
	Now        func() time.Time // default: time.Now
}

// A Client speaks to one bridge. It is safe for concurrent use.
type Client struct {
	origin string
	host   string
	token  serval.Secret
	name   string
	http   *http.Client
	now    func() time.Time

	skew *atomic.Int64 // how far the bridge's clock is ahead of this machine's
}

// New returns a client. It makes no call; an address that is no bridge's is
// refused.
func New(c Config) (*Client, error) {
	origin, err := Origin(c.BaseURL)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(origin)
	if err != nil {
		return nil, err
	}
	client := http.Client{Transport: newTransport()}
	if c.HTTPClient != nil {
		client = *c.HTTPClient
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Client{origin: origin, host: u.Host, token: c.Token, name: cmp.Or(c.Name, "serval"), http: &client, now: c.Now, skew: new(atomic.Int64)}, nil
}

// As returns a client of the same bridge for whoever has the token.
func (c *Client) As(token serval.Secret) *Client {
	as := *c
	as.token = token
	return &as
}

// Origin returns the bridge's origin as browsers write it, https where text has
// no scheme. Plain http is for loopback: a token goes over it.
func Origin(text string) (string, error) {
	refused := serval.Refuse(serval.Invalid, "%q is not the address of a bridge, such as https://serval.example.com.", serval.Clip(text, 200))
	text = strings.TrimSpace(text)
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/" {
		return "", refused
	}
	switch {
	case u.Scheme == "https", u.Scheme == "http" && serval.IsLoopback(u.Hostname()):
	case u.Scheme == "http":
		return "", serval.Refuse(serval.Invalid, "The bridge's address must be https: a token goes over it (http is allowed on a loopback address only).")
	default:
		return "", refused
	}
	host := strings.ToLower(u.Host)
	if port := u.Port(); port == "443" && u.Scheme == "https" || port == "80" && u.Scheme == "http" {
		host = strings.TrimSuffix(host, ":"+port)
	}
	return u.Scheme + "://" + host, nil
}

// Origin returns the bridge's.
func (c *Client) Origin() string { return c.origin }

// Skew returns how far the bridge's clock was ahead of this machine's when it
// last answered.
func (c *Client) Skew() time.Duration { return time.Duration(c.skew.Load()) }

// Close closes connections that are idle.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Me returns who is signed in.
func (c *Client) Me(ctx context.Context) (me wire.Me, err error) {
	return me, c.call(ctx, http.MethodGet, "/me", nil, &me)
}

// A RoleFilter chooses roles. The zero value chooses all.
type RoleFilter struct {
	AccountID string
	Text      string // in ARN, description, account name or tags
	Tag       string // a key, or key=value
}

// Roles returns the roles that the person is eligible for.
func (c *Client) Roles(ctx context.Context, f RoleFilter) (roles []wire.Role, err error) {
	query := url.Values{}
	for name, value := range map[string]string{"account_id": f.AccountID, "q": f.Text, "tag": f.Tag} {
		if value != "" {
			query.Set(name, value)
		}
	}
	err = c.pages(ctx, "/roles", query, func(text []byte) (string, error) {
		var page wire.Roles
		err := json.Unmarshal(text, &page)
		roles = append(roles, page.Roles...)
		return page.NextPageToken, err
	})
	return roles, err
}

// Role returns one role, with its documents.
func (c *Client) Role(ctx context.Context, accountID, name string) (role wire.Role, err error) {
	return role, c.call(ctx, http.MethodGet, "/roles/"+url.PathEscape(accountID)+"/"+url.PathEscape(name), nil, &role)
}

// Ask asks for a role, or for several, and returns a request for each. It is
// sent again where its answer was lost, and done once.
func (c *Client) Ask(ctx context.Context, ask wire.NewRequest) ([]wire.Request, error) {
	if len(ask.RoleARNs) > 0 {
		var batch wire.Batch
		err := c.once(ctx, "/requests", ask, &batch)
		return batch.Requests, err
	}
	var made wire.Request
	if err := c.once(ctx, "/requests", ask, &made); err != nil {
		return nil, err
	}
	return []wire.Request{made}, nil
}

// Requests returns the person's own requests, newest first; those of a status
// where it is not empty.
func (c *Client) Requests(ctx context.Context, status string) ([]wire.Request, error) {
	query := url.Values{}
	if status != "" {
		query.Set("status", status)
	}
	return c.requests(ctx, "/requests", query)
}

// Approvals returns what waits for a decision of the person, newest first.
func (c *Client) Approvals(ctx context.Context) ([]wire.Request, error) {
	return c.requests(ctx, "/approvals", url.Values{})
}

func (c *Client) requests(ctx context.Context, path string, query url.Values) (list []wire.Request, err error) {
	err = c.pages(ctx, path, query, func(text []byte) (string, error) {
		var page wire.Requests
		err := json.Unmarshal(text, &page)
		list = append(list, page.Requests...)
		return page.NextPageToken, err
	})
	return list, err
}

// Request returns one request.
func (c *Client) Request(ctx context.Context, id string) (r wire.Request, err error) {
	return r, c.call(ctx, http.MethodGet, "/requests/"+url.PathEscape(id), nil, &r)
}

// Decide approves or denies what waits on a request.
func (c *Client) Decide(ctx context.Context, id string, d wire.Decision) (r wire.Request, err error) {
	return r, c.once(ctx, "/requests/"+url.PathEscape(id)+"/decisions", d, &r)
}

// Extend asks for more time.
func (c *Client) Extend(ctx context.Context, id string, e wire.Extension) (r wire.Request, err error) {
	return r, c.once(ctx, "/requests/"+url.PathEscape(id)+"/extensions", e, &r)
}

// Done ends the person's own access.
func (c *Client) Done(ctx context.Context, id string) (r wire.Request, err error) {
	return r, c.once(ctx, "/requests/"+url.PathEscape(id)+"/done", nil, &r)
}

// Cancel withdraws a request that was not used yet.
func (c *Client) Cancel(ctx context.Context, id string) (r wire.Request, err error) {
	return r, c.once(ctx, "/requests/"+url.PathEscape(id)+"/cancel", nil, &r)
}

// Open opens an AWS session under a request. It is never sent twice: its answer
// cannot be had again, and each sending is a session of its own.
func (c *Client) Open(ctx context.Context, s wire.NewSession) (credentials wire.Credentials, err error) {
	return credentials, c.call(ctx, http.MethodPost, "/sessions", s, &credentials)
}

// ConsoleLink makes a way to the AWS console for the person's browser, and
// returns its address, which works once and within a minute.
func (c *Client) ConsoleLink(ctx context.Context, l wire.NewConsoleLink) (address serval.Secret, err error) {
	var link wire.ConsoleLink
	if err := c.call(ctx, http.MethodPost, "/console-links", l, &link); err != nil {
		return serval.Secret{}, err
	}
	if !strings.HasPrefix(link.Path, "/console/") {
		return serval.Secret{}, c.foreign(http.StatusCreated, "a way to the console that leads elsewhere")
	}
	return serval.NewSecret(c.origin + link.Path), nil
}

// EndLogin ends a login of the person's.
func (c *Client) EndLogin(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, "/logins/"+url.PathEscape(id), nil, nil)
}

// pages calls read with each page of a list.
func (c *Client) pages(ctx context.Context, path string, query url.Values, read func(text []byte) (next string, err error)) error {
	query.Set("page_size", strconv.Itoa(pageSize))
	for range maxPages {
		var page json.RawMessage
		if err := c.call(ctx, http.MethodGet, path+"?"+query.Encode(), nil, &page); err != nil {
			return err
		}
		next, err := read(page)
		if err != nil {
			return c.foreign(http.StatusOK, "JSON of another form")
		}
		if next == "" {
			return nil
		}
		query.Set("page_token", next)
	}
	return fmt.Errorf("the bridge's list at %s does not end", path)
}

// once posts in a way that sending again is the same as sending once, and sends
// again where the answer was lost.
func (c *Client) once(ctx context.Context, path string, in, out any) error {
	key := rand.Text()
	err := c.send(ctx, http.MethodPost, path, key, in, out)
	if f, ok := errors.AsType[*Failure](err); ok && f.Cause == CauseLost && ctx.Err() == nil {
		err = c.send(ctx, http.MethodPost, path, key, in, out)
	}
	return err
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	return c.send(ctx, method, path, "", in, out)
}

// send makes one call of the API and decodes the answer into out, which may be
// nil.
func (c *Client) send(ctx context.Context, method, path, key string, in, out any) error {
	limit := callTime
	if path == "/sessions" {
		limit = sessionTime
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
		body = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, method, c.origin+"/api/v1"+path, body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", c.name)
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	if !c.token.Empty() {
		r.Header.Set("Authorization", "Bearer "+c.token.Reveal())
	}
	asked := c.now()
	w, err := c.http.Do(r)
	if err != nil {
		return c.unreached(ctx, err)
	}
	defer w.Body.Close()
	c.compare(w.Header.Get("Date"), asked, c.now())
	text, err := io.ReadAll(io.LimitReader(w.Body, maxAnswer+1))
	switch {
	case err != nil:
		return c.unreached(ctx, err)
	case len(text) > maxAnswer:
		return c.foreign(w.StatusCode, fmt.Sprintf("more than %d bytes", maxAnswer))
	case w.StatusCode >= 400:
		return c.refused(w, text)
	case w.StatusCode >= 300:
		return c.foreign(w.StatusCode, "a redirect")
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		// The decoder's error may quote the answer.
		return c.foreign(w.StatusCode, cmp.Or(w.Header.Get("Content-Type"), "no content type"))
	}
	return nil
}

// compare notes how far the bridge's clock is from ours. The header has whole
// seconds.
func (c *Client) compare(date string, asked, answered time.Time) {
	at, err := http.ParseTime(date)
	if err != nil {
		return
	}
	skew := at.Sub(asked.Add(answered.Sub(asked) / 2))
	if skew.Abs() <= 2*time.Second {
		skew = 0
	}
	c.skew.Store(int64(skew))
}
