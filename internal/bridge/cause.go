package bridge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/awssts"
	"github.com/serval-bridge/serval-bridge/internal/checkup"
	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/login"
)

// causes look for why a session was not opened, from where the bridge runs: DNS,
// TLS, the clock, the way to STS and to the issuer. What was found is kept for a
// short while, and one looks at a time: when AWS is away, everybody asks at once.
type causes struct {
	c        *Config
	provider *login.Provider

	mu    sync.Mutex
	known map[string]foundCause
}

type foundCause struct {
	cause control.Cause
	ok    bool
	until time.Time
}

// The bounds.
const (
	causeKept = 10 * time.Second
	// maxApart is how far our clock and AWS's may be apart: it refuses tokens, and
	// signatures, beyond five minutes.
	maxApart = 5 * time.Minute
)

func newCauses(c *Config, provider *login.Provider) *causes {
	return &causes{c: c, provider: provider, known: map[string]foundCause{}}
}

// find is a control.Settings.Probe.
func (f *causes) find(ctx context.Context, code string) (control.Cause, bool) {
	look, of := f.ofSTS, "sts"
	switch code {
	case awssts.NoAnswer, awssts.BadAnswer, "RequestExpired", "SignatureDoesNotMatch", "ExpiredToken", "ExpiredTokenException":
	case "IDPCommunicationError", "InvalidIdentityToken":
		look, of = f.ofIssuer, "issuer"
	default:
		return control.Cause{}, false // AWS has said it
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if k, there := f.known[of]; there && time.Now().Before(k.until) {
		return k.cause, k.ok
	}
	cause, ok := look(ctx)
	f.known[of] = foundCause{cause, ok, time.Now().Add(causeKept)}
	if ok {
		f.c.Log.Warn("why sessions are not opened", zap.String("probe", cause.ID), zap.String("cause", cause.Sentence))
	}
	return cause, ok
}

const operatorMends = " The operator of Serval can mend that: "

// ofSTS asks STS for nothing.
func (f *causes) ofSTS(ctx context.Context) (control.Cause, bool) {
	endpoint := f.c.stsEndpoint()
	cause := func(id, what, how string) (control.Cause, bool) {
		return control.Cause{ID: id, Sentence: what + operatorMends + how, MendedBy: "operator"}, true
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return control.Cause{}, false
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint, nil)
	if err != nil {
		return control.Cause{}, false
	}
	client := checkup.Caller(&tls.Config{MinVersion: tls.VersionTLS12})
	defer client.CloseIdleConnections()
	before := f.c.Now()
	answer, err := client.Do(r)
	if err != nil {
		if _, is := errors.AsType[*net.DNSError](err); is {
			return cause("dns", u.Hostname()+", where AWS is asked, has no address.", "look at the cluster's DNS, and at SERVAL_STS_REGION.")
		}
		if isTLS(err) {
			return cause("tls", "What answers for "+u.Hostname()+" has no certificate that is trusted: something between Serval and AWS breaks TLS open.",
				"let "+u.Hostname()+" pass through as it is.")
		}
		return cause("connect", u.Host+", where AWS is asked, cannot be reached from Serval.", "look at egress rules and network policies. AWS traffic uses no proxy.")
	}
	answer.Body.Close()
	theirs, err := http.ParseTime(answer.Header.Get("Date"))
	if err != nil {
		return control.Cause{}, false
	}
	if apart := before.Sub(theirs); apart.Abs() > maxApart {
		word := map[bool]string{true: "ahead of", false: "behind"}[apart > 0]
		return cause("clock", fmt.Sprintf("The clock of Serval's server is %s %s AWS's.", apart.Abs().Round(time.Second), word), "set it, by NTP.")
	}
	return control.Cause{}, false
}

// isTLS reports whether a connection failed for what the other side showed.
func isTLS(err error) bool {
	_, certificate := errors.AsType[*tls.CertificateVerificationError](err)
	_, record := errors.AsType[tls.RecordHeaderError](err)
	_, alert := errors.AsType[tls.AlertError](err)
	return certificate || record || alert || errors.Is(err, http.ErrSchemeMismatch)
}

// ofIssuer looks at the identity provider as AWS would: its name, and the keys
// that AWS reads to check a sign-in.
func (f *causes) ofIssuer(ctx context.Context) (control.Cause, bool) {
	for _, c := range f.provider.ExamineReach(ctx) {
		if c.State == login.CheckFailed {
			return control.Cause{ID: c.ID, Sentence: "Something is wrong with the identity provider: " + c.Text + operatorMends + c.Mend, MendedBy: "operator"}, true
		}
	}
	for _, found := range checkIssuerForAWS(ctx, *f.c) {
		if found.State == findingFail || found.State == findingWarn {
			return control.Cause{ID: "issuer", Sentence: "AWS has to read the identity provider's keys, and perhaps cannot: " + found.Text + operatorMends + found.Mend, MendedBy: "operator"}, true
		}
	}
	return control.Cause{}, false
}
