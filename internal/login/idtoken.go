package login

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// Limits on an ID token.
const (
	maxIDToken = 20_000           // bytes: the most that AWS STS takes
	maxIatAge  = 10 * time.Minute // how long ago it may have been issued at the callback
	skew       = time.Minute      // how far ahead the provider's clock may run
	maxLife    = 24 * time.Hour   // exp - iat
	maxSubject = 255              // ASCII characters (OpenID Connect Core 1.0, section 2)
	minSubject = 6                // AWS STS reports subjects of 6 to 255 characters
)

// expected is what an ID token is held against besides the settings.
type expected struct {
	nonce       serval.Secret
	accessToken serval.Secret // for at_hash

	// A refreshed token has no nonce of ours, and must keep the person and the
	// time of the first sign-in.
	refreshed bool
	subject   string
	authTime  time.Time
}

// verifyIDToken returns what an ID token says, if every check of OpenID
// Connect Core 1.0 section 3.1.3.7 and of our own passes. It is the only
// caller of go-oidc. The claims are returned too, for the email and the groups.
func (p *Provider) verifyIDToken(ctx context.Context, m *metadata, raw string, want expected) (Identity, claims, error) {
	if err := checkForm(raw, p.c.Algorithms); err != nil {
		return Identity{}, nil, err
	}

	// go-oidc makes strings of what the key set says, so the key set of this
	// one call remembers it.
	keys := &keysOnce{p: p, url: m.JWKSURI}
	verifier := oidc.NewVerifier(p.c.Issuer, keys, &oidc.Config{
		ClientID:             p.c.ClientID,
		SupportedSigningAlgs: p.c.Algorithms,
		Now:                  p.now,
	})
	token, err := verifier.Verify(ctx, raw)
	if keys.err != nil {
		return Identity{}, nil, explainSignature(keys.err)
	}
	if keys.payload == nil {
		return Identity{}, nil, malformed()
	}

	// The signature is good: now our own checks, which name the cause. What
	// go-oidc has against the token is asked after them.
	c, fault := p.watch.read(keys.payload)
	if fault != nil {
		return Identity{}, nil, refuse(serval.Denied, CauseClaims,
			"The identity provider's token says some things twice, so it cannot be told what it says. An admin should look into the app's claims.")
	}
	id, fault := p.checkClaims(c, want)
	if fault != nil {
		return Identity{}, nil, fault
	}
	if err != nil {
		return Identity{}, nil, malformed()
	}
	if _, present := c["at_hash"]; present { // OpenID Connect Core 1.0, section 3.1.3.8
		if token.VerifyAccessToken(want.accessToken.Reveal()) != nil {
			return Identity{}, nil, refuse(serval.Denied, CauseAtHash,
				"The identity provider's tokens do not belong together. Please sign in again.")
		}
	}
	id.IDToken = serval.NewSecret(raw)
	id.Algorithm = keys.algorithm
	return id, c, nil
}

// keysOnce is the key set for one verification.
type keysOnce struct {
	p   *Provider
	url string

	payload   []byte
	algorithm string
	err       error
}

// VerifySignature implements oidc.KeySet.
func (k *keysOnce) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	var allowed []jose.SignatureAlgorithm
	for _, a := range k.p.c.Algorithms {
		allowed = append(allowed, jose.SignatureAlgorithm(a))
	}
	parsed, err := jose.ParseSignedCompact(token, allowed)
	if err != nil {
		k.err = malformed()
		return nil, k.err
	}
	k.algorithm = parsed.Signatures[0].Protected.Algorithm
	k.payload, k.err = k.p.keys.verify(ctx, k.p, k.url, parsed)
	return k.payload, k.err
}

func malformed() error {
	return refuse(serval.Denied, CauseToken,
		"The identity provider's token has no usable form. An admin should check that the app issues plain signed ID tokens.")
}

// explainSignature turns what the key set says into what the person is told.
func explainSignature(err error) error {
	switch {
	case errors.Is(err, errNoKey):
		return refuse(serval.Denied, CauseKid,
			"The identity provider signed with a key it does not publish. Try again in a minute; if it stays, an admin should look into the provider's keys.")
	case errors.Is(err, errSeveralKeys):
		return refuse(serval.Denied, CauseKid,
			"The identity provider's token does not say which key signed it, and there are several. An admin should look into the provider's keys.")
	case errors.Is(err, errSignature):
		return refuse(serval.Denied, CauseSignature,
			"The signature on the identity provider's token is wrong. Please sign in again; if it stays, an admin should look into it.")
	default:
		return err
	}
}

// checkForm refuses, before anything parses it, what is not a compact JWS of a
// sensible size and a pinned algorithm (RFC 7515 section 7.1). Encrypted
// tokens have five parts and are never taken.
func checkForm(raw string, algorithms []string) error {
	if len(raw) > maxIDToken {
		return refuse(serval.FailedPrecondition, CauseSize,
			"Your ID token is longer than AWS takes (20,000 characters), most likely because you are in very many groups. "+
				"An admin should let the provider send fewer groups.")
	}
	if strings.Count(raw, ".") != 2 || strings.ContainsFunc(raw, func(r rune) bool { return !isTokenCharacter(r) }) {
		return malformed()
	}
	first, _, _ := strings.Cut(raw, ".")
	text, err := base64.RawURLEncoding.DecodeString(first)
	if err != nil {
		return malformed()
	}
	var header map[string]jsontext.Value // strict: a name twice is an error
	if json.Unmarshal(text, &header) != nil {
		return malformed()
	}
	for name := range header {
		for _, used := range []string{"alg", "kid"} {
			if name != used && strings.EqualFold(name, used) {
				return malformed()
			}
		}
	}
	for _, extension := range []string{"crit", "b64", "zip", "enc"} {
		if _, present := header[extension]; present {
			return malformed()
		}
	}
	alg, _, err := claims(header).text("alg")
	if err != nil || !slices.Contains(algorithms, alg) {
		return refuse(serval.FailedPrecondition, CauseAlg,
			"The identity provider's token is not signed with %s. An admin should check the app's signing algorithm.", strings.Join(algorithms, " or "))
	}
	return nil
}

func isTokenCharacter(r rune) bool {
	return '0' <= r && r <= '9' || 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' || r == '-' || r == '_' || r == '.'
}

// checkClaims checks every claim that says who, for whom and when.
func (p *Provider) checkClaims(c claims, want expected) (Identity, error) {
	if iss, _, err := c.text("iss"); err != nil || iss != p.c.Issuer {
		return Identity{}, refuse(serval.Denied, CauseIss,
			"The token comes from another issuer than %s. An admin should check SERVAL_OIDC_ISSUER.", p.c.Issuer)
	}
	if err := p.checkAudience(c); err != nil {
		return Identity{}, err
	}
	id := Identity{Issuer: p.c.Issuer}
	id.AuthorizedParty, _, _ = c.text("azp") // checkAudience has seen it
	id.AWSClaims = c.forAWS()
	var err error
	if id.Subject, err = subject(c); err != nil {
		return Identity{}, err
	}
	if len(id.Subject) < minSubject {
		id.SubjectNote = "The subject has fewer than 6 characters; AWS may not take the token."
	}
	if id.IssuedAt, id.ExpiresAt, err = p.checkTimes(c); err != nil {
		return Identity{}, err
	}
	if !want.refreshed {
		nonce, _, err := c.text("nonce")
		if err != nil || want.nonce.Empty() || !want.nonce.Equal(serval.NewSecret(nonce)) {
			return Identity{}, refuse(serval.Denied, CauseNonce,
				"The identity provider answered for another sign-in than this one. Please sign in again.")
		}
	}
	now := p.now()
	authTime, _, err := c.seconds("auth_time")
	if err != nil || authTime.After(now.Add(skew)) {
		return Identity{}, refuse(serval.Denied, CauseAuthTime,
			"The identity provider's token says no usable time of your sign-in. An admin should look into the app's claims and the clocks.")
	}
	id.AuthTime = authTime
	if id.AMR, _, err = c.list("amr"); err != nil {
		return Identity{}, refuse(serval.Denied, CauseAMR,
			"The identity provider's token says in no usable form how you signed in. An admin should look into the app's claims.")
	}
	if want.refreshed {
		if id.Subject != want.subject {
			return Identity{}, refuse(serval.LoginRequired, CauseRefresh,
				"The identity provider answered for another person. Please sign in again.")
		}
		// The person sat there once: when the sign-in was does not move, although some
		// providers have it say when the token was refreshed.
		if !want.authTime.IsZero() {
			id.AuthTime = want.authTime
		}
	}
	return id, p.stepUp(id.AuthTime, id.AMR, now)
}

// checkAudience accepts one audience, ours. A second one needs azp to say that
// the token was issued to us, and azp may never say another (OpenID Connect
// Core 1.0, section 3.1.3.7, rules 3 to 5). Everything is compared exactly.
func (p *Provider) checkAudience(c claims) error {
	aud, _, err := c.textOrList("aud")
	if err != nil || !slices.Contains(aud, p.c.ClientID) {
		return refuse(serval.Denied, CauseAud,
			"The identity provider answered for another client. An admin should check SERVAL_OIDC_CLIENT_ID.")
	}
	azp, present, err := c.text("azp")
	if err != nil || present && azp != p.c.ClientID {
		return refuse(serval.Denied, CauseAzp,
			"The identity provider issued the token to another client. An admin should check SERVAL_OIDC_CLIENT_ID.")
	}
	if len(aud) > 1 && !present {
		return refuse(serval.Denied, CauseAud,
			"The identity provider answered for several clients at once. An admin should look into the app's audiences.")
	}
	return nil
}

// subject returns sub: 1 to 255 printable ASCII characters.
func subject(c claims) (string, error) {
	sub, _, err := c.text("sub")
	if err != nil || sub == "" || len(sub) > maxSubject || strings.ContainsFunc(sub, func(r rune) bool { return r < ' ' || r > '~' }) {
		return "", refuse(serval.Denied, CauseSub,
			"The identity provider's token does not say who you are in a usable form. An admin should look into the app's subject claim.")
	}
	return sub, nil
}

// checkTimes accepts a token that was issued for this callback and lives a day
// at most.
func (p *Provider) checkTimes(c claims) (issued, expires time.Time, err error) {
	const clocks = "An admin should compare the clocks of Serval and of the provider."
	now := p.now()
	refuseTimes := func(cause, sentence string) error { return refuse(serval.Denied, cause, "%s %s", sentence, clocks) }
	expires, present, err := c.seconds("exp")
	if err != nil || !present {
		return issued, expires, refuseTimes(CauseExp, "The identity provider's token does not say when it ends.")
	}
	if !expires.After(now) {
		return issued, expires, refuseTimes(CauseExp, "The identity provider's token has ended already. Please sign in again.")
	}
	issued, present, err = c.seconds("iat")
	switch {
	case err != nil || !present:
		return issued, expires, refuseTimes(CauseIat, "The identity provider's token does not say when it was issued.")
	case issued.After(now.Add(skew)):
		return issued, expires, refuseTimes(CauseIat, "The identity provider's token was issued in the future.")
	case issued.Before(now.Add(-maxIatAge)):
		return issued, expires, refuseTimes(CauseIat, "The identity provider's token is not a fresh one. Please sign in again.")
	case expires.Sub(issued) > maxLife:
		return issued, expires, refuse(serval.Denied, CauseExp,
			"The identity provider's token lives longer than a day. An admin should shorten the life of ID tokens.")
	}
	notBefore, _, err := c.seconds("nbf")
	if err != nil || notBefore.After(now.Add(skew)) {
		return issued, expires, refuseTimes(CauseNbf, "The identity provider's token is not valid yet.")
	}
	return issued, expires, nil
}
