package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// maxAnswer bounds what is read of a receiver's answer.
const maxAnswer = 64 << 10

// newClient returns a client that follows no redirect: what is sent is signed, or
// sent to a secret address, and for that receiver alone.
func newClient() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost, transport.MaxResponseHeaderBytes = 2, maxAnswer
	return &http.Client{
		Transport: transport, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// post sends a body as JSON, and returns the answer of a receiver that took it.
func post(ctx context.Context, client *http.Client, to serval.Secret, body []byte, header http.Header) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to.Reveal(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("the address cannot be used")
	}
	for name, values := range header {
		r.Header[name] = values
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "serval-bridge")
	answer, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if answer.StatusCode/100 != 2 {
		why := fmt.Sprintf("the receiver answered %d", answer.StatusCode)
		if pause, ok := retryAfter(answer.Header.Get("Retry-After")); ok {
			return nil, &Later{pause, why}
		}
		return nil, fmt.Errorf("%s", why)
	}
	if err != nil {
		return nil, err
	}
	return text, nil
}

// retryAfter reads a Retry-After header, in seconds or as a date.
func retryAfter(text string) (time.Duration, bool) {
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second, true
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, time.Until(at)), true
	}
	return 0, false
}

// encode returns v as JSON, with <, > and & as they are: the receivers are no
// browsers.
func encode(v any) ([]byte, error) {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("encoding a message: %w", err)
	}
	return bytes.TrimSuffix(text.Bytes(), []byte("\n")), nil
}
