package signin

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A sealer encrypts what has to wait in the database: ID tokens and what a
// login attempt needs. It is AES-256-GCM under a key derived from the root
// secret, bound to the row it is for, so that a sealed text moved to another
// row does not open.
type sealer struct {
	keys []cipher.AEAD // the first seals, all open
}

func newSealer(root serval.Secret, older []serval.Secret) *sealer {
	s := new(sealer)
	for _, secret := range append([]serval.Secret{root}, older...) {
		block, err := aes.NewCipher(secret.Key("seal"))
		if err != nil {
			panic("signin: a key of 32 bytes: " + err.Error())
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			panic("signin: AES-GCM: " + err.Error())
		}
		s.keys = append(s.keys, aead)
	}
	return s
}

// seal returns text, readable only by open with the same row.
func (s *sealer) seal(text serval.Secret, row string) string {
	return base64.RawURLEncoding.EncodeToString(s.keys[0].Seal(nil, nil, []byte(text.Reveal()), []byte(row)))
}

// open returns what was sealed for row under any of the secrets.
func (s *sealer) open(sealed, row string) (serval.Secret, error) {
	text, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil {
		return serval.Secret{}, errors.New("signin: a sealed text is not base64")
	}
	for _, key := range s.keys {
		if plain, err := key.Open(nil, nil, text, []byte(row)); err == nil {
			return serval.NewSecret(string(plain)), nil
		}
	}
	return serval.Secret{}, errors.New("signin: a sealed text does not open: SERVAL_SECRET has changed, or the row was")
}

// join and split pack several secrets into one sealed text.
func join(secrets ...serval.Secret) serval.Secret {
	texts := make([]string, len(secrets))
	for i, s := range secrets {
		texts[i] = s.Reveal()
	}
	return serval.NewSecret(strings.Join(texts, "\n"))
}

func split(joined serval.Secret) []serval.Secret {
	var secrets []serval.Secret
	for text := range strings.SplitSeq(joined.Reveal(), "\n") {
		secrets = append(secrets, serval.NewSecret(text))
	}
	return secrets
}
