package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// A Cause says why the bridge was not reached.
type Cause string

// The causes there are.
const (
	CauseName    Cause = "name"    // the name has no address
	CauseTimeout Cause = "timeout" // no connection in time
	CauseRefused Cause = "refused" // nothing listens there
	CauseTLS     Cause = "tls"     // the certificate does not hold, or it is no TLS
	CauseNetwork Cause = "network" // anything else before the call was sent
	CauseLost    Cause = "lost"    // the call was sent, and its answer did not come
	CauseStatus  Cause = "status"  // it answered, with 5xx
	CauseForeign Cause = "foreign" // what answered is not a bridge
)

// A Failure is a bridge that was not reached, or that did not answer as a
// bridge does.
type Failure struct {
	Host   string // with the port, where it is not the usual one
	Cause  Cause
	Detail string // what the network, or the answer, said
	err    error
}

// Error names the service, the host, the cause and what to do about it.
func (f *Failure) Error() string {
	at := "The Serval bridge at " + f.Host
	switch f.Cause {
	case CauseName:
		return fmt.Sprintf("%s cannot be reached: the name has no address (%s). Check the address, and whether the VPN is up.", at, f.Detail)
	case CauseTimeout:
		return at + " cannot be reached: no connection came about in time. Is the VPN up?"
	case CauseRefused:
		return at + " cannot be reached: the connection was refused, nothing listens there. Check the address and the port."
	case CauseTLS:
		return fmt.Sprintf("%s cannot be trusted: TLS failed (%s). Something in between may terminate TLS, its certificate may have ended, or this machine lacks your company's root certificate.", at, f.Detail)
	case CauseLost:
		return fmt.Sprintf("%s was reached, and its answer did not come (%s). Try again.", at, f.Detail)
	case CauseStatus:
		return fmt.Sprintf("%s has a fault: it answered %s. Try again in a moment, then tell whoever runs it.", at, f.Detail)
	case CauseForeign:
		return fmt.Sprintf("What answers at %s is not a Serval bridge: it sent %s. Check the address; a proxy or a captive portal may answer in its place.", f.Host, f.Detail)
	default:
		return fmt.Sprintf("%s cannot be reached: %s.", at, f.Detail)
	}
}

// Unwrap returns what the network said.
func (f *Failure) Unwrap() error { return f.err }

func newTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&net.Dialer{Timeout: dialTime}).DialContext
	t.TLSHandshakeTimeout = 2 * dialTime
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	return t
}

// unreached says why a call has no answer. A context that its owner ended is no
// failure of the bridge's.
func (c *Client) unreached(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), context.Canceled) {
		return context.Canceled
	}
	// The URL, which *url.Error would show, may hold what is nobody's business.
	if outer, ok := errors.AsType[*url.Error](err); ok {
		err = outer.Err
	}
	f := &Failure{Host: c.host, Cause: CauseLost, Detail: serval.Clip(plain(err.Error()), 300), err: err}
	op, _ := errors.AsType[*net.OpError](err)
	var (
		name      *net.DNSError
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		ended     x509.CertificateInvalidError
		verify    *tls.CertificateVerificationError
		record    tls.RecordHeaderError
		alert     tls.AlertError
	)
	switch {
	case errors.As(err, &name) && !name.IsTimeout:
		f.Cause, f.Detail = CauseName, serval.Clip(name.Name, 100)
	case errors.As(err, &authority), errors.As(err, &hostname), errors.As(err, &ended), errors.As(err, &verify), errors.As(err, &alert),
		errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		f.Cause = CauseTLS
	case errors.Is(err, syscall.ECONNREFUSED):
		f.Cause = CauseRefused
	case op != nil && op.Op == "dial" && op.Timeout(), errors.As(err, &name), strings.Contains(err.Error(), "TLS handshake timeout"):
		f.Cause = CauseTimeout
	case op != nil && (op.Op == "dial" || op.Op == "proxyconnect"):
		f.Cause = CauseNetwork
	case errors.Is(err, context.DeadlineExceeded):
		f.Detail = "none within the time that a call may take"
	}
	return f
}

// foreign is an answer that no bridge gives.
func (c *Client) foreign(status int, sent string) error {
	return &Failure{Host: c.host, Cause: CauseForeign, Detail: fmt.Sprintf("%d %s with %s", status, http.StatusText(status), serval.Clip(sent, 100))}
}

// codes are the kinds of refusal that the API has.
var codes = []serval.Kind{
	serval.Invalid, serval.Unauthenticated, serval.LoginRequired, serval.Denied, serval.NotFound, serval.Conflict,
	serval.TooLarge, serval.FailedPrecondition, serval.Exhausted, serval.Unavailable,
}

// refused returns what an answer of 400 or more means: a refusal where it is in
// the API's words, a failure where it is not.
func (c *Client) refused(w *http.Response, text []byte) error {
	var e wire.Error
	ours := json.Unmarshal(text, &e) == nil && e.Message != ""
	if ours {
		for _, kind := range codes {
			// A bridge that cannot do what was asked is as good as away, unless it
			// says that it was AWS.
			if string(kind) == e.Code && (w.StatusCode < 500 || e.Detail["code"] != "") {
				return &serval.Refusal{Kind: kind, Reason: plain(e.Message), Detail: e.Detail}
			}
		}
	}
	if w.StatusCode < 500 {
		return c.foreign(w.StatusCode, "no refusal of the API's")
	}
	detail := fmt.Sprintf("%d %s", w.StatusCode, http.StatusText(w.StatusCode))
	if ours {
		detail += ": " + strings.TrimSuffix(plain(e.Message), ".")
	}
	if id := w.Header.Get("X-Request-Id"); id != "" {
		detail += " (request " + serval.Clip(plain(id), 64) + ")"
	}
	return &Failure{Host: c.host, Cause: CauseStatus, Detail: detail}
}

// plain returns a text that came over the wire as one that a terminal shows and
// does not obey.
func plain(text string) string {
	return serval.Clip(strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "�")), 2000)
}
