package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// A browser is one person's: it keeps cookies, follows redirects and sends the
// headers that tell a same-origin request.
type browser struct {
	origin string
	client *http.Client
}

func newBrowser(origin string) (*browser, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	return &browser{origin: origin, client: &http.Client{Jar: jar, Timeout: 30 * time.Second}}, nil
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 16 << 20

// do sends a request and returns the answer's status, final address and body.
func (b *browser) do(ctx context.Context, method, address, contentType string, body []byte) (int, *url.URL, []byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	if method != http.MethodGet {
		r.Header.Set("Origin", r.URL.Scheme+"://"+r.URL.Host)
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	w, err := b.client.Do(r)
	if err != nil {
		return 0, nil, nil, err
	}
	defer w.Body.Close()
	text, err := io.ReadAll(io.LimitReader(w.Body, maxAnswer))
	return w.StatusCode, w.Request.URL, text, err
}

// page returns a page of the bridge's.
func (b *browser) page(ctx context.Context, path string) (string, error) {
	status, _, text, err := b.do(ctx, http.MethodGet, b.origin+path, "", nil)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("GET %s answered %d", path, status)
	}
	return string(text), err
}

// action finds where the identity provider's sign-in form posts to.
var action = regexp.MustCompile(`<form[^>]*action="([^"]*)"`)

// signIn goes to the sign-in page, chooses the person with the email there, and
// comes back.
func (b *browser) signIn(ctx context.Context, email string) error {
	status, at, text, err := b.do(ctx, http.MethodGet, b.origin+"/oidc/auth/login?return_to=/roles", "", nil)
	if err != nil {
		return err
	}
	form := action.FindSubmatch(text)
	if status != http.StatusOK || form == nil {
		return fmt.Errorf("the sign-in page at %s answered %d without a form", at, status)
	}
	target, err := at.Parse(html.UnescapeString(string(form[1])))
	if err != nil {
		return err
	}
	choice := url.Values{"choose": {email}}.Encode()
	status, at, _, err = b.do(ctx, http.MethodPost, target.String(), "application/x-www-form-urlencoded", []byte(choice))
	if err != nil {
		return err
	}
	if status != http.StatusOK || at.Path != "/roles" || at.Scheme+"://"+at.Host != b.origin {
		return fmt.Errorf("signing in ended at %s with status %d, want %s/roles", at, status, b.origin)
	}
	return nil
}

// call calls the API and decodes the answer into out, which may be nil.
func (b *browser) call(ctx context.Context, method, path string, in, out any) error {
	var body []byte
	contentType := ""
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
		contentType = "application/json"
	}
	status, _, text, err := b.do(ctx, method, b.origin+"/api/v1"+path, contentType, body)
	if err != nil {
		return err
	}
	if status >= 300 {
		var refused wire.Error
		if json.Unmarshal(text, &refused) == nil && refused.Code != "" {
			return &apiError{status, refused}
		}
		return fmt.Errorf("%s %s answered %d", method, path, status)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(text, out)
}

// An apiError is a refusal of the API's.
type apiError struct {
	status  int
	refusal wire.Error
}

// Error returns what the API said.
func (e *apiError) Error() string {
	return fmt.Sprintf("%d %s: %s", e.status, e.refusal.Code, e.refusal.Message)
}
