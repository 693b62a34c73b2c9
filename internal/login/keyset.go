package login

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// How long keys are trusted, and how often they are asked for.
const (
	keysLife    = time.Hour        // or shorter, if Cache-Control says so
	keysMinLife = 30 * time.Second // whatever Cache-Control says
	keysLastUse = 24 * time.Hour   // while the provider's key set cannot be read
	missPause   = 30 * time.Second // between fetches that did not find the key looked for
	minRSABits  = 2048             // RFC 7518 section 3.3
)

// What may come of looking for a token's key.
var (
	errNoKey       = errors.New("no published key has the token's key id")
	errSeveralKeys = errors.New("the token names no key, and several are published")
	errSignature   = errors.New("the signature does not fit the key")
)

// keySet is the provider's published signing keys, with an age: a key that is
// no longer published stops working within keysLife, which go-oidc's own key
// set does not promise. A token whose key is unknown makes us ask again at
// once; only fetches that did not help are limited, so that a key that is
// rotated in just before it signs works, every time.
type keySet struct {
	turn turn // held while fetching

	mu       sync.Mutex
	url      string
	keys     []jose.JSONWebKey
	readAt   time.Time
	life     time.Duration
	retryAt  time.Time // no fetch for age before this
	missedAt time.Time // the last fetch for an unknown key that did not find it
	started  int       // fetches begun
	done     int       // number of the fetch that ended last
	fault    error     // of the last fetch, if it failed
}

// verify returns the payload of a token that one of the keys has signed.
func (k *keySet) verify(ctx context.Context, p *Provider, from string, token *jose.JSONWebSignature) ([]byte, error) {
	k.mu.Lock()
	arrived := k.started
	k.mu.Unlock()
	keys, done, err := k.current(ctx, p, from)
	if err != nil {
		return nil, err
	}
	payload, err := verifyWith(keys, token)
	if err == nil || errors.Is(err, errSeveralKeys) || done > arrived {
		return payload, err // or the keys are as new as can be
	}
	keys, asked := k.again(ctx, p, from, arrived, token)
	if !asked {
		return nil, err
	}
	return verifyWith(keys, token)
}

// current returns the keys, read when they are due, and the number of the
// fetch that ended last. While the provider cannot be reached the last good
// keys serve, for a day.
func (k *keySet) current(ctx context.Context, p *Provider, from string) (keys []jose.JSONWebKey, done int, err error) {
	keys, done, due, err := k.state(p.now(), from)
	if !due {
		return keys, done, err
	}
	if err := k.take(ctx); err != nil {
		return nil, 0, err
	}
	defer func() { <-k.turn }()
	if keys, done, due, err = k.state(p.now(), from); !due {
		return keys, done, err // somebody else has just asked
	}
	k.fetch(ctx, p, from)
	keys, done, _, err = k.state(p.now(), from)
	return keys, done, err
}

// again asks for the keys because the token's key is not among them, unless
// that was done in vain just now. It reports whether a fetch that began after
// the caller arrived has ended, be it the caller's own or another's.
func (k *keySet) again(ctx context.Context, p *Provider, from string, arrived int, token *jose.JSONWebSignature) (keys []jose.JSONWebKey, asked bool) {
	if k.take(ctx) != nil {
		return nil, false
	}
	defer func() { <-k.turn }()
	k.mu.Lock()
	keys, asked = k.keys, k.done > arrived
	paused := !k.missedAt.IsZero() && p.now().Sub(k.missedAt).Abs() < missPause
	k.mu.Unlock()
	if asked || paused {
		return keys, asked
	}
	k.fetch(ctx, p, from)
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, err := verifyWith(k.keys, token); err != nil {
		k.missedAt = p.now()
	}
	return k.keys, true
}

func (k *keySet) take(ctx context.Context) error {
	select {
	case k.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for the identity provider's keys: %w", ctx.Err())
	}
}

// state returns the keys, and whether it is time to ask for them.
func (k *keySet) state(now time.Time, from string) (keys []jose.JSONWebKey, done int, due bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	age := now.Sub(k.readAt)
	if k.keys != nil && k.url == from && 0 <= age && age < k.life {
		return k.keys, k.done, false, nil
	}
	due = !now.Before(k.retryAt) || k.url != from
	if k.keys != nil && 0 <= age && age < keysLastUse {
		return k.keys, k.done, due, nil
	}
	fault := k.fault
	if fault == nil {
		fault = errors.New("they have not been read for a day")
	}
	return nil, k.done, due, because(refuse(serval.Unavailable, CauseKeys,
		"The identity provider's keys cannot be read, so nobody can sign in. Try again in a minute."),
		fmt.Errorf("reading the identity provider's keys: %w", fault))
}

// fetch asks for the keys. The caller holds the turn.
func (k *keySet) fetch(ctx context.Context, p *Provider, from string) {
	k.mu.Lock()
	k.started++
	number := k.started
	k.mu.Unlock()
	// What is read is for everybody, so the caller's end does not end it.
	body, header, err := p.get(context.WithoutCancel(ctx), from, "", maxDocument)
	var keys []jose.JSONWebKey
	if err == nil {
		keys, err = parseKeys(body)
	}
	now := p.now()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.done = number
	if k.url != from {
		k.url, k.life = from, 0 // what was read elsewhere serves if need be, and is not fresh
	}
	if err != nil {
		// The last good set stays; with none left, asking again soon matters more.
		k.fault, k.retryAt = err, now.Add(firstRetry)
		if age := now.Sub(k.readAt); k.keys != nil && 0 <= age && age < keysLastUse {
			k.retryAt = now.Add(missPause)
		}
		return
	}
	k.keys, k.readAt, k.life, k.fault, k.retryAt = keys, now, lifeOf(header), nil, time.Time{}
}

// parseKeys reads a JSON Web Key Set (RFC 7517 section 5), leaving out what
// cannot verify our signatures. A set without any usable key is an error: an
// empty set must not replace a good one.
func parseKeys(body []byte) ([]jose.JSONWebKey, error) {
	var set struct {
		Keys []jsontext.Value `json:"keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, errors.New("the answer is not a JSON key set")
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if key.UnmarshalJSON(raw) != nil || key.Use != "" && key.Use != "sig" {
			continue
		}
		switch public := key.Key.(type) {
		case *rsa.PublicKey:
			if public.N.BitLen() < minRSABits {
				continue
			}
		case *ecdsa.PublicKey:
		default:
			continue // symmetric and private keys have no business here
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("the key set has no usable key")
	}
	return keys, nil
}

// lifeOf returns how long keys may be kept: what Cache-Control says (RFC 9111
// section 5.2), within our own bounds.
func lifeOf(header http.Header) time.Duration {
	life := keysLife
	for directive := range strings.SplitSeq(strings.Join(header.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(directive)), "=")
		switch name {
		case "no-store", "no-cache":
			life = 0
		case "max-age":
			if seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31); err == nil {
				life = min(life, time.Duration(seconds)*time.Second)
			}
		}
	}
	if age, err := strconv.ParseUint(header.Get("Age"), 10, 31); err == nil {
		life -= time.Duration(age) * time.Second
	}
	return max(life, keysMinLife)
}

// verifyWith verifies the token with the key it names. A token that names none
// is verified only when there is but one key (OpenID Connect Core 1.0, section
// 10.1).
func verifyWith(keys []jose.JSONWebKey, token *jose.JSONWebSignature) ([]byte, error) {
	header := token.Signatures[0].Protected
	if header.KeyID == "" && len(keys) > 1 {
		return nil, errSeveralKeys
	}
	found := errNoKey
	for _, key := range keys {
		if header.KeyID != "" && key.KeyID != header.KeyID || !fits(key, header.Algorithm) {
			continue
		}
		found = errSignature
		if payload, err := token.Verify(key.Key); err == nil {
			return payload, nil
		}
	}
	return nil, found
}

// fits reports whether a key is of the algorithm (RFC 7518 section 3.1): RSA
// for RS*, and for ES* the one curve that belongs to it.
func fits(key jose.JSONWebKey, algorithm string) bool {
	if key.Algorithm != "" && key.Algorithm != algorithm {
		return false
	}
	switch public := key.Key.(type) {
	case *rsa.PublicKey:
		return strings.HasPrefix(algorithm, "RS")
	case *ecdsa.PublicKey:
		bits := map[string]int{"ES256": 256, "ES384": 384, "ES512": 521}[algorithm]
		return public.Curve.Params().BitSize == bits
	default:
		return false
	}
}
