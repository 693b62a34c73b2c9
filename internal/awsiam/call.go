package awsiam

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/serval-bridge/serval-bridge/internal/pace"
)

// How often a call is tried. The SDK's own retryer gives up after three, does
// not know a bare 429, and has a budget that a throttled account uses up at once.
const (
	mostAttempts   = 10
	mostOfSTS      = 5 // nothing was begun yet, and whoever asked is waiting
	mostTimeouts   = 3 // each takes a whole callDeadline
	mostMalformed  = 3
	mostRenewals   = 4 // a call that is throttled too may meet the end of several short sessions
	firstBackoff   = 100 * time.Millisecond
	longestBackoff = 5 * time.Second
	skewAlarm      = 4 * time.Minute // AWS refuses signatures at five
)

// What is in flight when AWS first refuses a call is refused with it. So a quarter
// of an account's slots is kept back until so many calls were answered, or until it is
// known that the details leave few to make: of a hundred calls each slot kept back
// is several hundredths of the time, and what it saves is one refusal in the life of a worker.
const (
	notAtFirst = 4
	known      = 60
)

// Codes of our own, where AWS gave none.
const (
	codeTimeout      = "Timeout"      // no answer in 15 seconds, or the account's 20 minutes are over
	codeConnection   = "NoConnection" // no connection, or it broke
	codeMalformed    = "MalformedAnswer"
	codeEmpty        = "EmptyAnswer"
	codeWrongAccount = "WrongAccount"
	codeNone         = "NoCredentials"
	codeEndless      = "EndlessList"
	codeCanceled     = "Canceled"
	codeCertificate  = "BadCertificate"
	codeTLS          = "NoTLS" // what answers does not speak TLS, or not as we do

	// codeExternalIDOpen is of a role that can be assumed without its External ID.
	codeExternalIDOpen = "ExternalIDNotRequired"
)

// A kind says what a failed call means.
type kind int

const (
	failed    kind = iota
	denied         // AWS refused the action
	gone           // what was asked for does not exist
	throttled      // AWS asked us to slow down
	expired        // the session has ended
	skewed         // the signature's time was refused
	timeout
	malformed
)

// A callError is a call that failed for good.
type callError struct {
	action  string
	target  string
	kind    kind
	code    string
	message string
	cause   error
}

func (e *callError) Error() string {
	return fmt.Sprintf("%s on %s: %s: %s", e.action, e.target, e.code, e.message)
}

func (e *callError) Unwrap() error { return e.cause }

func noCredentials(err error) error {
	return &callError{action: "credentials", kind: failed, code: codeNone, message: clip(err.Error(), 500), cause: err}
}

// A line is one account's way to AWS, with one set of credentials.
type line struct {
	reader  *Reader
	gate    *gate
	creds   *keeper
	slotted bool   // calls count against the bounds; those of STS do not, since calls that count wait for them
	aside   *aside // of a delta; nil for what need not step aside
}

// A gate bounds and paces the calls that land in one account.
type gate struct {
	account  string
	slots    chan struct{}
	good     atomic.Int64 // answers
	opened   sync.Once    // see open
	tried    *tried
	provider *refusal
	pace     *pace.Account
}

// open gives the slots that were kept back.
func (g *gate) open() {
	g.opened.Do(func() {
		for range cap(g.slots) / notAtFirst {
			<-g.slots
		}
	})
}

// ask makes one call, as often as it takes. It returns the answer, a *callError,
// or the context's error.
func ask[T any](ctx context.Context, l *line, action, target string, call func(context.Context) (T, error)) (T, error) {
	var corrected bool
	var renewals, timeouts, malformations int
	for attempt := 1; ; attempt++ {
		out, sent, err := try(ctx, l, action, call)
		if err == nil {
			return out, nil
		}
		var zero T
		if e, ok := errors.AsType[*callError](err); ok && sent.IsZero() {
			return zero, e // the credentials are at fault
		}
		if ctx.Err() != nil {
			return zero, ctx.Err()
		}
		e := judge(err, action, target)
		again := false
		switch e.kind {
		case expired:
			renewals++
			again = renewals <= mostRenewals
			l.creds.renew(ctx, sent)
		case skewed:
			// The client has learned the skew from the answer and signs with it.
			off := l.reader.Skew().Abs() > skewAlarm
			again, corrected = off && !corrected, true
		case throttled:
			again = true
		case timeout:
			timeouts++
			again = timeouts < mostTimeouts
		case malformed:
			malformations++
			again = malformations < mostMalformed
		case failed:
			again = retryable.IsErrorRetryable(err) == aws.TrueTernary && e.code != codeCertificate && e.code != codeTLS &&
				(l.slotted || attempt < mostOfSTS)
		}
		if !again || attempt >= mostAttempts {
			return zero, e
		}
		if err := pause(ctx, backoff(attempt)); err != nil {
			return zero, err
		}
	}
}

// try makes one attempt when pace and bounds allow it. sent is zero where it
// did not come to that.
func try[T any](ctx context.Context, l *line, action string, call func(context.Context) (T, error)) (out T, sent time.Time, err error) {
	// Before a slot is taken: a renewal takes time, and makes a call itself.
	if _, err := l.creds.Retrieve(ctx); err != nil {
		return out, time.Time{}, err
	}
	c, release, err := l.enter(ctx, action)
	if err != nil {
		return out, time.Time{}, err
	}
	defer release()
	if l.aside != nil {
		l.aside.spent.Add(1)
	}

	bounded, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	out, err = call(bounded)
	done := time.Now()
	seen := Call{AccountID: l.gate.account, Action: action, Duration: done.Sub(c.Sent)}
	switch {
	case err == nil:
		l.gate.pace.Succeeded(c)
		if l.gate.good.Add(1) == known {
			l.gate.open()
		}
	case ctx.Err() != nil:
		seen.Code = codeCanceled
	default:
		e := judge(err, action, "")
		seen.Code, seen.Throttled = e.code, e.kind == throttled
		if seen.Throttled {
			l.gate.pace.Throttled(c)
		}
	}
	if l.reader.config.Observe != nil {
		l.reader.config.Observe(seen)
	}
	return out, c.Sent, err
}

// enter waits for the pace and for a slot, in this order, and is let go only with
// the slot in hand: else it could be sent after a throttle that came in between.
func (l *line) enter(ctx context.Context, action string) (c pace.Pass, release func(), err error) {
	for {
		if err := l.gate.pace.Ready(ctx, action); err != nil {
			return c, nil, err
		}
		release, err := l.slot(ctx)
		if err != nil {
			return c, nil, err
		}
		if c, ok := l.gate.pace.Take(action); ok {
			return c, release, nil
		}
		release()
	}
}

// slot waits for a slot of the account, and one of all accounts; that of the
// deltas comes before them.
func (l *line) slot(ctx context.Context) (release func(), err error) {
	if !l.slotted {
		return func() {}, nil
	}
	slots := []chan struct{}{l.gate.slots, l.reader.total}
	if l.aside != nil {
		slots = append([]chan struct{}{l.aside.of.calls}, slots...)
	}
	leave := func(taken []chan struct{}) {
		for _, s := range taken {
			<-s
		}
	}
	for i, s := range slots {
		select {
		case s <- struct{}{}:
		case <-ctx.Done():
			leave(slots[:i])
			return nil, ctx.Err()
		}
	}
	return func() { leave(slots) }, nil
}

var (
	retryable = retry.IsErrorRetryables(retry.DefaultRetryables)
	throttles = retry.IsErrorThrottles{retry.ThrottleErrorCode{Codes: retry.DefaultThrottleErrorCodes}}
)

// judge says what an attempt's error means.
func judge(err error, action, target string) *callError {
	e := &callError{action: action, target: target, cause: err}
	var inner *callError
	if errors.As(err, &inner) { // the credentials ended on the way, and could not be renewed
		return inner
	}
	api, isAPI := errors.AsType[smithy.APIError](err)
	if isAPI {
		e.code, e.message = api.ErrorCode(), clip(api.ErrorMessage(), 500)
	}
	status := 0
	if res, ok := errors.AsType[*smithyhttp.ResponseError](err); ok {
		status = res.HTTPStatusCode()
	}
	var broken *smithy.DeserializationError
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	switch {
	case throttles.IsErrorThrottle(err) == aws.TrueTernary || status == http.StatusTooManyRequests:
		e.kind = throttled
	case isAPI:
		e.kind = meanings[e.code]
	case untrusted:
		e.code, e.message = codeCertificate, clip(root(err).Error(), 300)
	case errors.Is(err, http.ErrSchemeMismatch) || strings.HasPrefix(root(err).Error(), "tls: "):
		e.code, e.message = codeTLS, clip(root(err).Error(), 300)
	case errors.Is(err, errEmpty):
		e.kind, e.code, e.message = malformed, codeEmpty, errEmpty.Error()
	case errors.Is(err, context.DeadlineExceeded):
		e.kind, e.code, e.message = timeout, codeTimeout, fmt.Sprintf("no answer in %d seconds", int(callDeadline.Seconds()))
	case errors.As(err, &broken) && status/100 <= 2:
		e.kind, e.code, e.message = malformed, codeMalformed, "the answer is not what AWS answers"
	case status != 0:
		e.message = fmt.Sprintf("HTTP status %d", status)
	default:
		e.code, e.message = codeConnection, clip(root(err).Error(), 200)
	}
	if e.code == "" || e.code == "UnknownError" {
		e.code = fmt.Sprintf("HTTP%d", status)
	}
	return e
}

// meanings of AWS's codes; all others are failures.
var meanings = map[string]kind{
	"AccessDenied":              denied,
	"AccessDeniedException":     denied,
	"UnauthorizedOperation":     denied,
	"NoSuchEntity":              gone,
	"NoSuchEntityException":     gone,
	"ExpiredToken":              expired,
	"ExpiredTokenException":     expired,
	"RequestExpired":            skewed,
	"RequestTimeTooSkewed":      skewed,
	"SignatureDoesNotMatch":     skewed,
	"InvalidSignatureException": skewed,
}

// root returns the innermost error, whose text has no addresses in it that
// differ from try to try.
func root(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// backoff is random between nothing and a bound that doubles, so that calls
// that were refused together do not come back together.
func backoff(attempt int) time.Duration {
	most := min(firstBackoff<<min(attempt, 10), longestBackoff)
	return rand.N(most) + time.Millisecond
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// clip bounds a text of somebody else's.
func clip(s string, n int) string {
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "") + "…"
	}
	return s
}
