package idptest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512" // for the 384 and 512 algorithms
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/go-jose/go-jose/v4"
)

// A key signs ID tokens under its id.
type key struct {
	id, alg string

	signer crypto.Signer
}

// pool keeps the key pairs of the process, so that a thousand providers cost
// as many RSA keys as one provider rotates through.
var pool = struct {
	sync.Mutex
	pairs map[place]crypto.Signer
}{pairs: map[place]crypto.Signer{}}

// A place is where in the pool a key pair is.
type place struct {
	family string
	n      int
}

// pair returns the nth key pair of a family: "RSA", "P-256", "P-384", "P-521"
// or "Ed25519".
func pair(family string, n int) crypto.Signer {
	pool.Lock()
	defer pool.Unlock()
	at := place{family, n}
	if pool.pairs[at] == nil {
		pool.pairs[at] = generate(family)
	}
	return pool.pairs[at]
}

func generate(family string) crypto.Signer {
	curves := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}
	var signer crypto.Signer
	var err error
	switch family {
	case "RSA":
		signer, err = rsa.GenerateKey(rand.Reader, 2048)
	case "Ed25519":
		_, signer, err = ed25519.GenerateKey(rand.Reader)
	default:
		signer, err = ecdsa.GenerateKey(curves[family], rand.Reader)
	}
	if err != nil {
		panic("idptest: generating a key: " + err.Error())
	}
	return signer
}

// familyOf returns the family of keys that an algorithm of RFC 7518 uses.
func familyOf(alg string) string {
	switch alg {
	case "ES256":
		return "P-256"
	case "ES384":
		return "P-384"
	case "ES512":
		return "P-521"
	case "EdDSA":
		return "Ed25519"
	default:
		return "RSA"
	}
}

// Rotate makes a new key, with a new key id, the one that signs. The old ones
// stay published until Retire.
func (p *Provider) Rotate() { p.rotate("") }

// RotateTo rotates to a key of another algorithm.
func (p *Provider) RotateTo(algorithm string) { p.rotate(algorithm) }

func (p *Provider) rotate(algorithm string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if algorithm != "" {
		p.o.Algorithm = algorithm
	}
	p.rotations++
	p.keys = append(p.keys, &key{
		id:     fmt.Sprintf("key-%d", p.rotations),
		alg:    p.o.Algorithm,
		signer: pair(familyOf(p.o.Algorithm), p.rotations-1),
	})
}

// Retire takes every key but the signing one out of the published set.
func (p *Provider) Retire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = p.keys[len(p.keys)-1:]
}

// KeyID returns the id of the signing key.
func (p *Provider) KeyID() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.keys[len(p.keys)-1].id
}

// jwks serves the JSON Web Key Set (RFC 7517 section 5).
func (p *Provider) jwks(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var keys []jose.JSONWebKey
	for _, k := range p.keys {
		keys = append(keys, jose.JSONWebKey{Key: k.signer.Public(), KeyID: k.id, Algorithm: k.alg, Use: "sig"})
	}
	if p.m.Keys != nil {
		keys = p.m.Keys(keys)
	}
	if w.Header().Get("Cache-Control") == "" {
		w.Header().Set("Cache-Control", "public, max-age=3600")
	}
	writeJSON(w, http.StatusOK, map[string]any{"keys": keys})
}

// IDToken returns an ID token of the person (an email or a subject), signed by
// the current key, without a browser. Changes may be nil. A misbehaving
// provider misbehaves here too.
func (p *Provider) IDToken(person string, changes func(claims map[string]any)) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	who, found := p.person(person)
	if !found {
		panic("idptest: nobody is called " + person)
	}
	claims := p.profile(who, "openid email profile")
	p.stamp(claims, who, p.o.Now().Unix())
	if changes != nil {
		changes(claims)
	}
	return p.sign(claims)
}

// stamp adds the claims of OpenID Connect Core 1.0, section 2.
func (p *Provider) stamp(claims map[string]any, who Person, authTime int64) {
	now := p.o.Now()
	stamped := map[string]any{
		"iss":       p.o.Issuer,
		"sub":       who.Subject,
		"aud":       p.o.ClientID,
		"iat":       now.Unix(),
		"exp":       now.Add(p.o.TokenLife).Unix(),
		"auth_time": authTime,
		"amr":       []string{"pwd"},
	}
	for name, value := range stamped {
		if _, given := claims[name]; !given {
			claims[name] = value
		}
	}
}

// sign turns claims into a token, by the misbehaviour's rules. The caller
// holds mu.
func (p *Provider) sign(claims map[string]any) string {
	if p.m.Claims != nil {
		p.m.Claims(claims)
	}
	payload := encodeJSON(claims)
	if p.m.Payload != nil {
		payload = p.m.Payload(payload)
	}
	k := p.signing()
	header := map[string]any{"alg": k.alg, "kid": k.id, "typ": "JWT"}
	if p.m.Header != nil {
		p.m.Header(header)
	}
	b64 := base64.RawURLEncoding
	signed := b64.EncodeToString(encodeJSON(header)) + "." + b64.EncodeToString(payload)
	signature := k.sign([]byte(signed))
	if p.m.BadSignature {
		signature[len(signature)/2] ^= 0x40
	}
	token := signed + "." + b64.EncodeToString(signature)
	if p.m.IDToken != nil {
		token = p.m.IDToken(token)
	}
	return token
}

// signing returns the key that signs ID tokens, by the misbehaviour's rules. The
// caller holds mu.
func (p *Provider) signing() key {
	k := *p.keys[len(p.keys)-1]
	if p.m.WrongKey {
		k.signer = pair(familyOf(k.alg), 9)
	}
	if alg := p.m.Alg; alg != "" {
		k.alg = alg
		if alg != "none" && !strings.HasPrefix(alg, "HS") && familyOf(alg) != familyOf(p.o.Algorithm) {
			k.signer = pair(familyOf(alg), 0)
		}
	}
	return k
}

// sign signs by RFC 7518 section 3. HS256 takes the PEM of the public key for
// its secret: the oldest confusion of algorithms.
func (k key) sign(text []byte) []byte {
	if k.alg == "none" {
		return nil
	}
	if strings.HasPrefix(k.alg, "HS") {
		der, err := x509.MarshalPKIXPublicKey(k.signer.Public())
		if err != nil {
			panic("idptest: encoding a public key: " + err.Error())
		}
		mac := hmac.New(sha256.New, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
		mac.Write(text)
		return mac.Sum(nil)
	}
	var signature []byte
	var err error
	switch signer := k.signer.(type) {
	case ed25519.PrivateKey:
		signature = ed25519.Sign(signer, text)
	case *rsa.PrivateKey:
		var options crypto.SignerOpts = hashOf(k.alg)
		if strings.HasPrefix(k.alg, "PS") {
			options = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hashOf(k.alg)}
		}
		signature, err = signer.Sign(rand.Reader, digest(k.alg, text), options)
	case *ecdsa.PrivateKey:
		r, s, fault := ecdsa.Sign(rand.Reader, signer, digest(k.alg, text))
		err = fault
		size := (signer.Curve.Params().BitSize + 7) / 8
		if err == nil {
			signature = append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
		}
	}
	if err != nil {
		panic("idptest: signing: " + err.Error())
	}
	return signature
}

func hashOf(alg string) crypto.Hash {
	switch {
	case strings.HasSuffix(alg, "384"):
		return crypto.SHA384
	case strings.HasSuffix(alg, "512"), alg == "EdDSA":
		return crypto.SHA512
	default:
		return crypto.SHA256
	}
}

func digest(alg string, text []byte) []byte {
	h := hashOf(alg).New()
	h.Write(text)
	return h.Sum(nil)
}

// atHash returns the at_hash of an access token (OpenID Connect Core 1.0,
// section 3.1.3.6).
func atHash(alg, accessToken string) string {
	sum := digest(alg, []byte(accessToken))
	return base64.RawURLEncoding.EncodeToString(sum[:len(sum)/2])
}

// encodeJSON encodes without HTML escapes, so that a payload is what it says.
func encodeJSON(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("idptest: encoding: " + err.Error())
	}
	return bytes.TrimSpace(b.Bytes())
}
