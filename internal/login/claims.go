package login

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// claims are the members of a token's payload or of a UserInfo answer, as
// written.
type claims map[string]jsontext.Value

// registered are the claims that the protocol gives a meaning, so that they
// cannot be the email or the groups.
var registered = map[string]bool{
	"iss": true, "aud": true, "azp": true, "exp": true, "iat": true, "nbf": true, "nonce": true,
	"auth_time": true, "amr": true, "at_hash": true, "email_verified": true, "xms_edov": true,
	"_claim_names": true, "_claim_sources": true, "hasgroups": true,
}

// watched are the names of all claims that we, or go-oidc, look at.
type watched map[string]bool

func watchedClaims(email, groups string) watched {
	w := maps.Clone(watched(registered))
	for _, name := range []string{"sub", "email", "profile", email, groups} {
		w[name] = true
	}
	return w
}

// errClaims is what is wrong with a payload as a whole.
var errClaims = errors.New("not one JSON object with every name once")

// read reads a JSON object strictly: no name twice at any depth, no invalid
// UTF-8, and no name that differs from a watched one in case only. go-oidc
// reads names in any case, and of two the last: what we check must be what it
// read.
func (w watched) read(payload []byte) (claims, error) {
	var c claims
	if err := json.Unmarshal(payload, &c); err != nil || c == nil {
		return nil, errClaims
	}
	for name := range c {
		if w[name] {
			continue
		}
		for used := range w {
			// EqualFold folds as encoding/json does, Unicode included.
			if strings.EqualFold(name, used) {
				return nil, errClaims
			}
		}
	}
	return c, nil
}

// errType says that a claim is there and is not of its type.
var errType = errors.New("the claim is not of its type")

// text returns a string claim; absent is the empty string and false.
func (c claims) text(name string) (text string, present bool, err error) {
	raw, present := c[name]
	if !present {
		return "", false, nil
	}
	if raw.Kind() != '"' || json.Unmarshal(raw, &text) != nil {
		return "", true, fmt.Errorf("%s: %w", name, errType)
	}
	return text, true, nil
}

// seconds returns a time claim, which must be written as a whole number: STS
// takes no other (1.7e9 and "1700000000" are refused).
func (c claims) seconds(name string) (at time.Time, present bool, err error) {
	raw, present := c[name]
	if !present {
		return time.Time{}, false, nil
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil || n < 0 || n > 1<<40 {
		return time.Time{}, true, fmt.Errorf("%s: %w", name, errType)
	}
	return time.Unix(n, 0), true, nil
}

// list returns a claim that is an array of strings.
func (c claims) list(name string) (list []string, present bool, err error) {
	raw, present := c[name]
	if !present {
		return nil, false, nil
	}
	var values []jsontext.Value
	if raw.Kind() != '[' || json.Unmarshal(raw, &values) != nil {
		return nil, true, fmt.Errorf("%s: %w", name, errType)
	}
	for _, v := range values {
		var s string
		if v.Kind() != '"' || json.Unmarshal(v, &s) != nil {
			return nil, true, fmt.Errorf("%s: %w", name, errType)
		}
		list = append(list, s)
	}
	return list, true, nil
}

// textOrList returns a claim that is a string or an array of strings, as aud is.
func (c claims) textOrList(name string) (list []string, present bool, err error) {
	if one, present, err := c.text(name); present && err == nil {
		return []string{one}, true, nil
	}
	return c.list(name)
}

// forAWS returns the names of the claims that AWS reads as session tags, nested or
// flattened, and as a source identity (IAM User Guide, "Pass session tags in AWS
// STS" and "Monitor and control actions taken with assumed roles").
func (c claims) forAWS() (names []string) {
	const tags, source = "https://aws.amazon.com/tags", "https://aws.amazon.com/source_identity"
	for name := range c {
		if name == tags || strings.HasPrefix(name, tags+"/") || name == source {
			names = append(names, serval.Clip(name, 200))
		}
	}
	slices.Sort(names)
	return names[:min(len(names), 20)]
}

// truth returns a claim that is true or false, written as a boolean or, as
// some providers do, as a string.
func (c claims) truth(name string) (value, present bool, err error) {
	raw, present := c[name]
	if !present {
		return false, false, nil
	}
	switch string(raw) {
	case `true`, `"true"`:
		return true, true, nil
	case `false`, `"false"`:
		return false, true, nil
	}
	return false, true, fmt.Errorf("%s: %w", name, errType)
}
