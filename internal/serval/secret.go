package serval

import (
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
)

// redacted is what a Secret shows of itself, in every verb and encoding.
const redacted = "[redacted]"

// A Secret is a text that must reach its one reader and nobody else: a key, a
// token, a password. It prints as [redacted] under every fmt verb and in JSON,
// text and gob, so that logging the struct around it is harmless. The zero
// value is the empty secret.
//
// A Secret is read with Reveal, which is easy to search for, and compared with
// Equal.
type Secret struct {
	// A pointer, because package fmt asks no method of an unexported field and
	// of a verb that it does not know: there it prints the address.
	text *string
}

// NewSecret returns text as a Secret.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{&text}
}

// Reveal returns the text. Call it where the text is used, not before.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// Empty reports whether there is nothing to keep.
func (s Secret) Empty() bool { return s.Reveal() == "" }

// Equal reports whether both texts are the same, in constant time for texts of
// equal length.
func (s Secret) Equal(other Secret) bool {
	return subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(other.Reveal())) == 1
}

// Key derives 32 bytes for one purpose from the secret by HKDF-SHA256 (RFC
// 5869). Keys of different purposes tell nothing of each other or of the secret.
func (s Secret) Key(purpose string) []byte {
	key, err := hkdf.Key(sha256.New, []byte(s.Reveal()), nil, "serval "+purpose, 32)
	if err != nil {
		// Only a length beyond 255 hashes can fail (RFC 5869 section 2.3).
		panic("serval: deriving 32 bytes: " + err.Error())
	}
	return key
}

// Digest returns what is kept of a secret that somebody else holds: enough to know
// it by when it is brought.
func (s Secret) Digest() string {
	sum := sha256.Sum256([]byte(s.Reveal()))
	return hex.EncodeToString(sum[:])
}

// String returns [redacted].
func (s Secret) String() string { return redacted }

// GoString returns [redacted].
func (s Secret) GoString() string { return redacted }

// Format writes [redacted] for every verb.
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// MarshalText returns [redacted].
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON returns "[redacted]".
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(redacted) }

// GobEncode returns [redacted].
func (s Secret) GobEncode() ([]byte, error) { return []byte(redacted), nil }

// UnmarshalText takes text as the secret, for readers of settings.
func (s *Secret) UnmarshalText(text []byte) error {
	*s = NewSecret(string(text))
	return nil
}
