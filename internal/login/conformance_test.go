package login

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/serval-bridge/serval-bridge/internal/idptest"
)

// set returns a change of one claim; nil removes it.
func set(name string, value any) func(*idptest.Misbehaviour) {
	return func(m *idptest.Misbehaviour) {
		m.Claims = func(claims map[string]any) {
			if value == nil {
				delete(claims, name)
				return
			}
			claims[name] = value
		}
	}
}

// shift moves time claims by whole seconds from the clock.
func shift(name string, from time.Duration) func(*idptest.Misbehaviour) {
	return set(name, newClock().Now().Add(from).Unix())
}

// insert puts text at the front of the payload's object.
func insert(text string) func(*idptest.Misbehaviour) {
	return func(m *idptest.Misbehaviour) {
		m.Payload = func(payload []byte) []byte { return append([]byte("{"+text+","), payload[1:]...) }
	}
}

// replace changes a text of the payload.
func replace(old, new string) func(*idptest.Misbehaviour) {
	return func(m *idptest.Misbehaviour) {
		m.Payload = func(payload []byte) []byte {
			if !bytes.Contains(payload, []byte(old)) {
				panic("the payload has no " + old)
			}
			return bytes.Replace(payload, []byte(old), []byte(new), 1)
		}
	}
}

func alg(name string) func(*idptest.Misbehaviour) {
	return func(m *idptest.Misbehaviour) { m.Alg = name }
}

func header(f func(map[string]any)) func(*idptest.Misbehaviour) {
	return func(m *idptest.Misbehaviour) { m.Header = f }
}

func back(f func(url.Values)) func(*idptest.Misbehaviour) {
	return func(m *idptest.Misbehaviour) { m.Callback = f }
}

// a conformanceCase is one wrong, or unusual, provider and what we make of it.
type conformanceCase struct {
	id     string // of the OpenID Foundation's suite, or ours after a slash
	change func(*idptest.Options, *Config)
	wrong  func(*idptest.Misbehaviour)
	before func(*world) // runs after Begin and sign-in were done once, successfully
	cause  string       // "" means that the sign-in works
	free   bool         // the token endpoint must not have been called
}

func conformanceCases() []conformanceCase {
	now := newClock().Now()
	dropKid := header(func(h map[string]any) { delete(h, "kid") })
	twoKeys := func(w *world) { w.idp.Rotate() }
	aud := func(values ...string) func(*idptest.Misbehaviour) { return set("aud", values) }
	algorithm := func(name string) func(*idptest.Options, *Config) {
		return func(o *idptest.Options, c *Config) { o.Algorithm, c.Algorithms = name, []string{name} }
	}
	offering := func(o *idptest.Options, _ *Config) { o.ResponseIss = true }
	return []conformanceCase{
		// Basic RP plan. S-30
		{id: "oidcc-client-test"},
		{id: "oidcc-client-test/thin", change: func(o *idptest.Options, _ *Config) { o.Thin = true }},
		{id: "oidcc-client-test-invalid-iss", wrong: set("iss", "https://another.example.com"), cause: CauseIss},
		{id: "oidcc-client-test-invalid-iss/slash", wrong: replace(`"iss":"http`, `"iss":"/http`), cause: CauseIss},
		{id: "oidcc-client-test-invalid-iss/type", wrong: set("iss", 5), cause: CauseIss},
		{id: "oidcc-client-test-missing-sub", wrong: set("sub", nil), cause: CauseSub},
		{id: "oidcc-client-test-missing-sub/empty", wrong: set("sub", ""), cause: CauseSub},
		{id: "oidcc-client-test-missing-sub/number", wrong: set("sub", 12345678), cause: CauseSub}, // S-33
		{id: "oidcc-client-test-missing-sub/null", wrong: replace(`"sub":"00u1ana5678"`, `"sub":null`), cause: CauseSub},
		{id: "oidcc-client-test-missing-sub/not-ascii", wrong: set("sub", "änä-12345"), cause: CauseSub},
		{id: "oidcc-client-test-missing-sub/control", wrong: set("sub", "ana\n12345"), cause: CauseSub},
		{id: "oidcc-client-test-missing-sub/255", wrong: set("sub", strings.Repeat("s", 255))},
		{id: "oidcc-client-test-missing-sub/256", wrong: set("sub", strings.Repeat("s", 256)), cause: CauseSub},
		// S-4: the audience is compared exactly.
		{id: "oidcc-client-test-invalid-aud", wrong: set("aud", "another-client"), cause: CauseAud},
		{id: "oidcc-client-test-invalid-aud/prefix", wrong: set("aud", "serval"), cause: CauseAud},
		{id: "oidcc-client-test-invalid-aud/suffix", wrong: set("aud", testClient+"2"), cause: CauseAud},
		{id: "oidcc-client-test-invalid-aud/case", wrong: set("aud", strings.ToUpper(testClient)), cause: CauseAud},
		{id: "oidcc-client-test-invalid-aud/padded", wrong: set("aud", " "+testClient), cause: CauseAud},
		{id: "oidcc-client-test-invalid-aud/joined", wrong: set("aud", "other,"+testClient), cause: CauseAud},
		{id: "oidcc-client-test-invalid-aud/object", wrong: set("aud", map[string]any{testClient: true}), cause: CauseAud},
		{id: "oidcc-client-test-invalid-aud/mixed", wrong: set("aud", []any{testClient, 5}), cause: CauseAud},
		{id: "oidcc-client-test-missing-aud", wrong: set("aud", nil), cause: CauseAud},
		{id: "oidcc-client-test-missing-aud/empty", wrong: aud(), cause: CauseAud},
		{id: "oidcc-client-test-missing-iat", wrong: set("iat", nil), cause: CauseIat},
		{id: "oidcc-client-test-kid-absent-single-jwks", wrong: dropKid},
		{id: "oidcc-client-test-kid-absent-multiple-jwks", wrong: dropKid, before: twoKeys, cause: CauseKid},
		{id: "oidcc-client-test-idtoken-sig-rs256"},
		{id: "oidcc-client-test-idtoken-sig-rs384", change: algorithm("RS384")},
		{id: "oidcc-client-test-idtoken-sig-rs512", change: algorithm("RS512")},
		{id: "oidcc-client-test-idtoken-sig-es256", change: algorithm("ES256")},
		{id: "oidcc-client-test-idtoken-sig-es384", change: algorithm("ES384")},
		{id: "oidcc-client-test-idtoken-sig-es512", change: algorithm("ES512")},
		// S-31: algorithms are pinned.
		{id: "oidcc-client-test-idtoken-sig-none", wrong: alg("none"), cause: CauseAlg},
		{id: "oidcc-client-test-idtoken-sig-none/signed", wrong: header(func(h map[string]any) { h["alg"] = "none" }), cause: CauseAlg},
		{id: "oidcc-client-test-invalid-sig-hs256", wrong: alg("HS256"), cause: CauseAlg},
		{id: "oidcc-client-test-invalid-sig-es256", wrong: alg("ES256"), cause: CauseAlg},
		{id: "oidcc-client-test-invalid-sig-rs256", wrong: func(m *idptest.Misbehaviour) { m.BadSignature = true }, cause: CauseSignature},
		{id: "oidcc-client-test-invalid-sig-rs256/key", wrong: func(m *idptest.Misbehaviour) { m.WrongKey = true }, cause: CauseSignature},
		{id: "fapi1-advanced-final-client-test-invalid-null-alg", wrong: header(func(h map[string]any) { h["alg"] = nil }), cause: CauseAlg},
		{id: "fapi1-advanced-final-client-test-invalid-alternate-alg/rs384", wrong: alg("RS384"), cause: CauseAlg},
		{id: "fapi1-advanced-final-client-test-invalid-alternate-alg/ps256", wrong: alg("PS256"), cause: CauseAlg},
		{id: "fapi1-advanced-final-client-test-invalid-alternate-alg/eddsa", wrong: alg("EdDSA"), cause: CauseAlg},
		{id: "oidcc-client-test-userinfo-invalid-sub", change: func(o *idptest.Options, _ *Config) { o.Thin = true },
			wrong: func(m *idptest.Misbehaviour) {
				m.UserInfo = func(c map[string]any) { c["sub"] = "00u2bob5678" }
			}, cause: CauseUserInfo},
		{id: "oidcc-client-test-userinfo-missing-sub", change: func(o *idptest.Options, _ *Config) { o.Thin = true },
			wrong: func(m *idptest.Misbehaviour) {
				m.UserInfo = func(c map[string]any) { delete(c, "sub") }
			}, cause: CauseUserInfo},
		// S-40
		{id: "oidcc-client-test-nonce-invalid", wrong: set("nonce", "another"), cause: CauseNonce},
		{id: "oidcc-client-test-nonce-invalid/type", wrong: set("nonce", 5), cause: CauseNonce},
		{id: "oidcc-client-test-nonce-invalid/empty", wrong: set("nonce", ""), cause: CauseNonce},
		{id: "fapi1-advanced-final-client-test-invalid-missing-nonce", wrong: set("nonce", nil), cause: CauseNonce},
		{id: "oidcc-client-test-invalid-athash", wrong: func(m *idptest.Misbehaviour) { m.WrongAtHash = true }, cause: CauseAtHash},
		{id: "oidcc-client-test-invalid-athash/empty", wrong: set("at_hash", ""), cause: CauseAtHash},
		{id: "fapi1-advanced-final-client-test-missing-athash", wrong: set("at_hash", nil)},
		{id: "oidcc-client-test-form-post-error", wrong: func(m *idptest.Misbehaviour) { m.Error = "invalid_request" }, cause: CauseProviderError, free: true},

		// Config RP plan.
		{id: "oidcc-client-test-discovery-issuer-mismatch", cause: CauseDiscovery, free: true,
			wrong: func(m *idptest.Misbehaviour) {
				m.Discovery = func(d map[string]any) { d["issuer"] = d["issuer"].(string) + "/" }
			}},
		{id: "oidcc-client-test-signing-key-rotation", before: func(w *world) {
			w.idp.Rotate()
			w.idp.Retire()
		}},

		// FAPI negative cases, taken as our bar.
		{id: "ensure-authorization-response-with-invalid-state-fails", wrong: back(func(q url.Values) { q.Set("state", "another") }), cause: CauseState, free: true},
		{id: "ensure-authorization-response-with-invalid-missing-state-fails", wrong: back(func(q url.Values) { q.Del("state") }), cause: CauseState, free: true},
		{id: "ensure-authorization-response-with-two-states-fails", wrong: back(func(q url.Values) { q.Add("state", "another") }), cause: CauseState, free: true},
		// S-41
		{id: "invalid-authorization-response-iss", wrong: back(func(q url.Values) { q.Set("iss", "https://another.example.com") }), cause: CauseCallbackIss, free: true},
		{id: "invalid-authorization-response-iss/twice", change: offering, wrong: back(func(q url.Values) { q.Add("iss", q.Get("iss")) }), cause: CauseCallbackIss, free: true},
		{id: "invalid-authorization-response-iss/with-error", change: offering, wrong: back(func(q url.Values) {
			q.Set("iss", "https://another.example.com")
			q.Set("error", "access_denied")
		}), cause: CauseCallbackIss, free: true},
		{id: "remove-authorization-response-iss", change: offering, wrong: back(func(q url.Values) { q.Del("iss") }), cause: CauseCallbackIss, free: true},
		{id: "authorization-response-iss", change: offering},
		{id: "invalid-expired-exp", wrong: shift("exp", -time.Second), cause: CauseExp},
		{id: "invalid-missing-exp", wrong: set("exp", nil), cause: CauseExp},
		{id: "invalid-missing-iss", wrong: set("iss", nil), cause: CauseIss},
		{id: "fapi1-advanced-final-client-test-iat-is-week-in-past", wrong: shift("iat", -7*24*time.Hour), cause: CauseIat},
		// S-35
		{id: "invalid-secondary-aud", wrong: aud(testClient, "another-client"), cause: CauseAud},
		{id: "invalid-secondary-aud/azp-ours", wrong: both(aud(testClient, "another-client"), set("azp", testClient))},
		{id: "invalid-secondary-aud/azp-another", wrong: both(aud(testClient, "another-client"), set("azp", "another-client")), cause: CauseAzp},
		{id: "invalid-azp", wrong: set("azp", "another-client"), cause: CauseAzp},
		{id: "invalid-azp/type", wrong: set("azp", []string{testClient}), cause: CauseAzp},
		{id: "valid-azp", wrong: set("azp", testClient)},
		{id: "valid-aud-as-array", wrong: aud(testClient)},
		{id: "token-endpoint-response-without-expires_in", wrong: func(m *idptest.Misbehaviour) {
			m.TokenAnswer = func(a map[string]any) { delete(a, "expires_in") }
		}},
		{id: "token-type-case-insensitivity", wrong: func(m *idptest.Misbehaviour) {
			m.TokenAnswer = func(a map[string]any) { a["token_type"] = "bEaReR" }
		}},
		{id: "token-type-unknown", wrong: func(m *idptest.Misbehaviour) {
			m.TokenAnswer = func(a map[string]any) { a["token_type"] = "DPoP" }
		}, cause: CauseToken},
		{id: "no-id-token", wrong: func(m *idptest.Misbehaviour) {
			m.TokenAnswer = func(a map[string]any) { delete(a, "id_token") }
		}, cause: CauseToken},

		// S-32: no claim twice, none in another case.
		{id: "duplicate/sub", wrong: insert(`"sub":"00u2bob5678"`), cause: CauseClaims},
		{id: "duplicate/escaped", wrong: insert(`"s\u0075b":"00u2bob5678"`), cause: CauseClaims},
		{id: "duplicate/nested", wrong: insert(`"address":{"a":1,"a":2}`), cause: CauseClaims},
		{id: "case/SUB", wrong: insert(`"SUB":"00u2bob5678"`), cause: CauseClaims},
		{id: "case/Email", wrong: insert(`"Email":"bob@example.com"`), cause: CauseClaims},
		{id: "case/Email_Verified", wrong: insert(`"Email_Verified":true`), cause: CauseClaims},
		{id: "case/Groups", wrong: insert(`"Groups":["serval-admins"]`), cause: CauseClaims},
		{id: "case/long-s", wrong: insert(`"\u017fub":"00u2bob5678"`), cause: CauseClaims},
		{id: "case/unused", wrong: insert(`"DEPARTMENT":"a","department":"b"`)},
		{id: "utf-8", wrong: replace(`"name":"Ana"`, "\"name\":\"\xff\""), cause: CauseClaims},
		{id: "payload/array", wrong: func(m *idptest.Misbehaviour) {
			m.Payload = func([]byte) []byte { return []byte(`[]`) }
		}, cause: CauseClaims},
		{id: "payload/null", wrong: func(m *idptest.Misbehaviour) {
			m.Payload = func([]byte) []byte { return []byte(`null`) }
		}, cause: CauseClaims},

		// S-33: types.
		{id: "type/exp-float", wrong: replace(`"exp":1800003600`, `"exp":1.8000036e9`), cause: CauseExp},
		{id: "type/exp-point", wrong: replace(`"exp":1800003600`, `"exp":1800003600.0`), cause: CauseExp},
		{id: "type/exp-text", wrong: set("exp", "1800003600"), cause: CauseExp},
		{id: "type/exp-9999", wrong: set("exp", 253402300799), cause: CauseExp},
		{id: "type/exp-huge", wrong: replace(`"exp":1800003600`, `"exp":99999999999999999999`), cause: CauseExp},
		{id: "type/exp-negative", wrong: set("exp", -1), cause: CauseExp},
		{id: "type/iat-text", wrong: set("iat", "1800000000"), cause: CauseIat},
		{id: "type/iat-float", wrong: replace(`"iat":1800000000`, `"iat":1800000000.5`), cause: CauseIat},
		{id: "type/nbf-text", wrong: set("nbf", "1800000000"), cause: CauseNbf},
		{id: "type/auth_time-text", wrong: set("auth_time", "1800000000"), cause: CauseAuthTime},
		{id: "type/auth_time-float", wrong: replace(`"auth_time":1800000000`, `"auth_time":1.8e9`), cause: CauseAuthTime},
		{id: "type/amr-text", wrong: set("amr", "pwd"), cause: CauseAMR},
		{id: "type/email-list", wrong: set("email", []string{"ana@example.com"}), cause: CauseEmail},
		{id: "type/email-null", wrong: replace(`"email":"ana@example.com"`, `"email":null`), cause: CauseEmail},

		// S-34: times, at each limit.
		{id: "time/exp-now", wrong: shift("exp", 0), cause: CauseExp},
		{id: "time/exp-second", wrong: shift("exp", time.Second)},
		{id: "time/iat-10m", wrong: shift("iat", -10*time.Minute)},
		{id: "time/iat-10m1s", wrong: shift("iat", -10*time.Minute-time.Second), cause: CauseIat},
		{id: "time/iat-ahead-60s", wrong: shift("iat", time.Minute)},
		{id: "time/iat-ahead-61s", wrong: shift("iat", time.Minute+time.Second), cause: CauseIat},
		{id: "time/life-24h", wrong: shift("exp", 24*time.Hour)},
		{id: "time/life-24h1s", wrong: shift("exp", 24*time.Hour+time.Second), cause: CauseExp},
		{id: "time/nbf-60s", wrong: shift("nbf", time.Minute)},
		{id: "time/nbf-61s", wrong: shift("nbf", time.Minute+time.Second), cause: CauseNbf},
		{id: "time/auth_time-60s", wrong: shift("auth_time", time.Minute)},
		{id: "time/auth_time-61s", wrong: shift("auth_time", time.Minute+time.Second), cause: CauseAuthTime},

		// S-18: the token's form and size.
		{id: "form/jwe", wrong: form(func(string) string { return "a.b.c.d.e" }), cause: CauseToken},
		{id: "form/two-parts", wrong: form(func(s string) string { return s[:strings.LastIndex(s, ".")] }), cause: CauseToken},
		{id: "form/dots", wrong: form(func(string) string { return strings.Repeat(".", 19_000) }), cause: CauseToken},
		{id: "form/json", wrong: form(func(s string) string {
			part := strings.Split(s, ".")
			return fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, part[0], part[1], part[2])
		}), cause: CauseToken},
		{id: "form/space", wrong: form(func(s string) string { return s + " " }), cause: CauseToken},
		{id: "form/padding", wrong: form(func(s string) string { return s + "=" }), cause: CauseToken},
		{id: "form/signature", wrong: form(func(s string) string { return s + "A" }), cause: CauseSignature},
		{id: "form/header", wrong: form(func(s string) string { return "AAAA" + s }), cause: CauseToken},
		{id: "form/header-duplicate", wrong: form(func(s string) string {
			_, rest, _ := strings.Cut(s, ".")
			return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","alg":"RS256"}`)) + "." + rest
		}), cause: CauseToken},
		{id: "form/header-case", wrong: header(func(h map[string]any) { h["KID"] = "key-1" }), cause: CauseToken},
		{id: "form/crit", wrong: header(func(h map[string]any) { h["crit"] = []string{"exp"} }), cause: CauseToken},
		{id: "form/b64", wrong: header(func(h map[string]any) { h["b64"] = false }), cause: CauseToken},
		{id: "form/zip", wrong: header(func(h map[string]any) { h["zip"] = "DEF" }), cause: CauseToken},
		{id: "form/1MB", wrong: form(func(string) string { return strings.Repeat(".", 900_000) }), cause: CauseSize},
		// S-58: 500 groups of 40 letters are more than STS takes.
		{id: "size/500-groups", wrong: set("groups", manyGroups(500)), cause: CauseSize},
		{id: "size/200-groups", wrong: set("groups", manyGroups(200))},
		{id: "kid/unknown", wrong: header(func(h map[string]any) { h["kid"] = "nobody's" }), cause: CauseKid},

		// S-45: tokens in the callback.
		{id: "callback/id_token", wrong: back(func(q url.Values) { q.Set("id_token", "x") }), cause: CauseResponseMode, free: true},
		{id: "callback/token", wrong: back(func(q url.Values) { q.Set("token", "x") }), cause: CauseResponseMode, free: true},
		{id: "callback/access_token", wrong: back(func(q url.Values) { q.Set("access_token", "") }), cause: CauseResponseMode, free: true},
		{id: "callback/no-code", wrong: back(func(q url.Values) { q.Del("code") }), cause: CauseCode, free: true},
		{id: "callback/empty-code", wrong: back(func(q url.Values) { q.Set("code", "") }), cause: CauseCode, free: true},
		{id: "callback/two-codes", wrong: back(func(q url.Values) { q.Add("code", "x") }), cause: CauseCode, free: true},
		{id: "callback/long-code", wrong: back(func(q url.Values) { q.Set("code", strings.Repeat("x", maxCode+1)) }), cause: CauseCode, free: true},

		// S-57: email_verified, from an issuer that is not Okta.
		{id: "email_verified/false", wrong: set("email_verified", false), cause: CauseEmailVerified},
		{id: "email_verified/false-text", wrong: set("email_verified", "false"), cause: CauseEmailVerified},
		{id: "email_verified/true-text", wrong: set("email_verified", "true")},
		{id: "email_verified/number", wrong: set("email_verified", 1), cause: CauseEmailVerified},

		// S-59: step-up.
		{id: "max_age", change: maxAge},
		{id: "max_age/absent", change: maxAge, wrong: set("auth_time", nil), cause: CauseAuthTime},
		{id: "max_age/at-limit", change: maxAge, wrong: set("auth_time", now.Add(-6*time.Minute).Unix())},
		{id: "max_age/old", change: maxAge, wrong: set("auth_time", now.Add(-6*time.Minute-time.Second).Unix()), cause: CauseAuthTime},
		{id: "amr", change: amr, wrong: set("amr", []string{"pwd", "mfa", "hwk"})},
		{id: "amr/one-missing", change: amr, wrong: set("amr", []string{"pwd", "mfa"}), cause: CauseAMR},
		{id: "amr/absent", change: amr, wrong: set("amr", nil), cause: CauseAMR},

		// S-50: what must not be a key.
		{id: "jwks/symmetric", wrong: func(m *idptest.Misbehaviour) {
			m.Keys = func(keys []jose.JSONWebKey) []jose.JSONWebKey {
				return []jose.JSONWebKey{{Key: []byte("secret"), KeyID: keys[0].KeyID}}
			}
		}, cause: CauseKeys},
		{id: "jwks/enc", wrong: func(m *idptest.Misbehaviour) {
			m.Keys = func(keys []jose.JSONWebKey) []jose.JSONWebKey {
				keys[0].Use = "enc"
				return keys
			}
		}, cause: CauseKeys},
		{id: "jwks/alg", wrong: func(m *idptest.Misbehaviour) {
			m.Keys = func(keys []jose.JSONWebKey) []jose.JSONWebKey {
				keys[0].Algorithm = "RS512"
				return keys
			}
		}, cause: CauseKid},
	}
}

func maxAge(_ *idptest.Options, c *Config) { c.MaxAge = 5 * time.Minute }

func amr(_ *idptest.Options, c *Config) { c.RequiredAMR = []string{"mfa", "hwk"} }

func form(f func(string) string) func(*idptest.Misbehaviour) {
	return func(m *idptest.Misbehaviour) { m.IDToken = f }
}

func manyGroups(n int) []string {
	groups := make([]string, n)
	for i := range groups {
		groups[i] = fmt.Sprintf("group-%034d", i)
	}
	return groups
}

// S-30: the conformance table, against a provider over HTTP.
func TestS30_Conformance(t *testing.T) {
	for _, c := range conformanceCases() {
		t.Run(c.id, func(t *testing.T) {
			w := newWorld(t, c.change)
			if c.before != nil {
				if _, err := w.signIn(); err != nil {
					t.Fatalf("the first sign-in: %v", err)
				}
				c.before(w)
				w.clock.Advance(time.Second)
			}
			calls := w.idp.Calls("token")
			if c.wrong != nil {
				w.idp.Misbehave(c.wrong)
			}
			a, redirect, err := w.p.Begin(t.Context(), Prompt{})
			var id Identity
			if err == nil {
				back, fault := w.idp.SignIn(redirect, ana.Email)
				if fault != nil {
					t.Fatalf("signing in: %v", fault)
				}
				id, err = w.p.Finish(t.Context(), a, back.Query())
			}
			if c.free && w.idp.Calls("token") != calls {
				t.Errorf("the token endpoint was called %d times, want none", w.idp.Calls("token")-calls)
			}
			if c.cause != "" {
				wantCause(t, err, c.cause)
				if id.Subject != "" || !id.IDToken.Empty() {
					t.Errorf("a refused sign-in came with %+v", id)
				}
				return
			}
			if err != nil {
				t.Fatalf("refused: %v", err)
			}
			if id.Email != ana.Email {
				t.Errorf("email %q, want %q", id.Email, ana.Email)
			}
		})
	}
}

// C oidcc-client-test-signing-key-rotation-just-before-signing, S-51: a new
// key signs the moment it is made, again and again, and no login fails.
func TestS51_KeyRotatedJustBeforeSigning(t *testing.T) {
	w := newWorld(t, nil)
	for i := range 5 {
		a, query := w.callback()
		w.idp.Rotate()
		if i%2 == 1 {
			w.idp.Retire()
		}
		if _, err := w.p.Finish(context.Background(), a, query); err != nil {
			t.Fatalf("sign-in %d, right after a rotation: %v", i, err)
		}
		w.clock.Advance(time.Second)
	}
	if calls := w.idp.Calls("jwks"); calls != 5 {
		t.Errorf("%d fetches of the keys for five rotations, want 5", calls)
	}
}

// oidcc-client-test-scope-userinfo-claims, -client-secret-basic, S-39, S-40:
// what Begin sends. The provider judges the rest.
func TestBeginAsksForEverything(t *testing.T) {
	w := newWorld(t, func(_ *idptest.Options, c *Config) { c.MaxAge = 90 * time.Second })
	a, redirect, err := w.p.Begin(t.Context(), Prompt{Silent: true, LoginHint: "ana@example.com"})
	if err != nil {
		t.Fatalf("Begin: %v", err)
	}
	u, _ := url.Parse(redirect)
	q := u.Query()
	for name, want := range map[string]string{
		"response_type": "code", "client_id": testClient, "redirect_uri": testRedirect, "scope": "openid email profile",
		"state": a.State.Reveal(), "nonce": a.Nonce.Reveal(), "code_challenge_method": "S256", "prompt": "none",
		"login_hint": "ana@example.com", "max_age": "90",
	} {
		if got := q.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if strings.Contains(redirect, a.Verifier.Reveal()) || q.Has("id_token_hint") || q.Has("response_mode") {
		t.Errorf("the redirect %s carries what it must not", redirect)
	}
	seen := map[string]bool{}
	for range 100 {
		a, _ := w.begin()
		for _, s := range []string{a.State.Reveal(), a.Nonce.Reveal(), a.Verifier.Reveal()} {
			if b, err := base64.RawURLEncoding.DecodeString(s); err != nil || len(b) != 32 || seen[s] {
				t.Fatalf("a secret is not 256 fresh bits")
			}
			seen[s] = true
		}
	}
	if _, redirect, _ := w.p.Begin(t.Context(), Prompt{LoginHint: "not an email"}); strings.Contains(redirect, "login_hint") {
		t.Errorf("a hint that is no email was sent on")
	}
}

// Google knows no offline_access: it is asked by parameters of its own, and no other
// provider is, nor who keeps no refresh tokens.
func TestBeginAsksGoogleOffline(t *testing.T) {
	const google = "https://accounts.google.com"
	for _, tt := range []struct {
		issuer          string
		offline, silent bool
		access, prompt  string
		scope           string
	}{
		{google, true, false, "offline", "consent", "openid email profile"},
		{google, true, true, "offline", "none", "openid email profile"},
		{google, false, false, "", "", "openid email profile"},
		{"https://id.example.com", true, false, "", "", "openid email profile offline_access"},
		{"https://id.example.com", true, false, "", "", "openid offline_access"},
	} {
		w := newWorld(t, func(o *idptest.Options, c *Config) {
			o.Issuer, c.Issuer, c.Offline = tt.issuer, tt.issuer, tt.offline
			if tt.scope == "openid offline_access" {
				c.Scopes = []string{"openid", "offline_access"}
			}
		})
		_, redirect, err := w.p.Begin(t.Context(), Prompt{Silent: tt.silent})
		if err != nil {
			t.Fatalf("Begin: %v", err)
		}
		u, _ := url.Parse(redirect)
		if q := u.Query(); q.Get("access_type") != tt.access || q.Get("prompt") != tt.prompt || q.Get("scope") != tt.scope {
			t.Errorf("%+v: access_type %q, prompt %q, scope %q", tt, q.Get("access_type"), q.Get("prompt"), q.Get("scope"))
		}
	}
}

// S-61: prompt=none without a session at the provider asks for a real sign-in.
func TestS61_SilentWithoutSession(t *testing.T) {
	w := newWorld(t, nil)
	a, redirect, err := w.p.Begin(t.Context(), Prompt{Silent: true})
	if err != nil {
		t.Fatalf("Begin: %v", err)
	}
	stay := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := stay.Get(redirect)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	to, err := answer.Location()
	if err != nil {
		t.Fatalf("the provider answered %s without a redirect", answer.Status)
	}
	_, err = w.p.Finish(t.Context(), a, to.Query())
	wantCause(t, err, CauseLoginRequired)
}

// both makes several things wrong.
func both(fs ...func(*idptest.Misbehaviour)) func(*idptest.Misbehaviour) {
	return func(m *idptest.Misbehaviour) {
		var claims []func(map[string]any)
		for _, f := range fs {
			f(m)
			if m.Claims != nil {
				claims = append(claims, m.Claims)
			}
			m.Claims = nil
		}
		m.Claims = func(c map[string]any) {
			for _, f := range claims {
				f(c)
			}
		}
	}
}
