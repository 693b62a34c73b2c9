// Package checkup is what the doctors of both daemons share: checks that each
// look at one thing, from where the daemon runs, and findings that say what is
// wrong and what mends it. What there is to look at is the daemons' own.
package checkup

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A Finding is what one check came to. No secret is in it.
type Finding struct {
	ID    string `json:"id"`
	State string `json:"state"` // ok, warn, fail or skip
	Text  string `json:"text"`  // what was found
	Mend  string `json:"mend"`  // what to do about it; empty where it is fine
}

// The states of a finding.
const (
	OK   = "ok"
	Warn = "warn"
	Fail = "fail"
	Skip = "skip" // it was not looked at
)

// Found returns one finding, with its text made from format.
func Found(id, state, mend, format string, args ...any) []Finding {
	return []Finding{{id, state, fmt.Sprintf(format, args...), mend}}
}

// Healthy reports whether nothing of it fails.
func Healthy(findings []Finding) bool {
	return !slices.ContainsFunc(findings, func(f Finding) bool { return f.State == Fail })
}

// A Check looks at one thing of a T. It changes nothing and ends with ctx.
type Check[T any] struct {
	ID  string
	Run func(ctx context.Context, of T) []Finding
}

// A List is the checks of a daemon, in the order of their findings.
type List[T any] []Check[T]

// examineTime bounds one check.
const examineTime = 30 * time.Second

// CheckSkip refuses ids of which there is no check.
func (l List[T]) CheckSkip(skip []string) error {
	ids := make([]string, len(l))
	for i, c := range l {
		ids[i] = c.ID
	}
	for _, id := range skip {
		if !slices.Contains(ids, id) {
			return serval.Refuse(serval.Invalid, "there is no check %q; there are %s.", id, strings.Join(ids, ", "))
		}
	}
	return nil
}

// Run runs every check that is not to be skipped, each for half a minute at
// most, and returns what they found.
func (l List[T]) Run(ctx context.Context, of T, skip []string) []Finding {
	findings := make([]Finding, 0, len(l))
	for _, one := range l {
		if slices.Contains(skip, one.ID) {
			findings = append(findings, Finding{one.ID, Skip, "Left out, as was asked.", ""})
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, examineTime)
		findings = append(findings, one.Run(ctx, of)...)
		cancel()
	}
	return findings
}

// WriteTable writes findings for a person to read.
func WriteTable(w io.Writer, findings []Finding) error {
	for _, f := range findings {
		if _, err := fmt.Fprintf(w, "%-4s  %-20s  %s\n", f.State, f.ID, inert(f.Text)); err != nil {
			return err
		}
		if f.Mend != "" {
			if _, err := fmt.Fprintf(w, "%28s%s\n", "", inert(f.Mend)); err != nil {
				return err
			}
		}
	}
	return nil
}

// WriteJSON writes findings as one JSON object.
func WriteJSON(w io.Writer, findings []Finding) error {
	return json.NewEncoder(w).Encode(map[string]any{"findings": findings})
}

// inert returns text of others as one line that a terminal shows as it is.
func inert(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, text)
}

// Knock asks an endpoint of AWS for nothing: any answer will do. settings are the
// names of those that say where it is.
func Knock(ctx context.Context, id, endpoint, settings, mend string) []Finding {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint, nil)
	if err != nil {
		return Found(id, Fail, "Check "+settings+".", "%s cannot be asked.", endpoint)
	}
	client := Caller(&tls.Config{MinVersion: tls.VersionTLS12})
	defer client.CloseIdleConnections()
	answer, err := client.Do(r)
	if err != nil {
		if _, untrusted := errors.AsType[x509.UnknownAuthorityError](err); untrusted {
			mend = "Something between here and AWS breaks TLS open: let it pass " + endpoint + " through."
		}
		return Found(id, Fail, mend, "%s does not answer: %v.", endpoint, errors.Unwrap(err))
	}
	answer.Body.Close()
	return Found(id, OK, "", "%s answers.", endpoint)
}

// Caller returns a client for one question: without proxy, and following no
// redirect.
func Caller(config *tls.Config) *http.Client {
	return &http.Client{
		Timeout:       10 * time.Second,
		Transport:     &http.Transport{TLSClientConfig: config},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
