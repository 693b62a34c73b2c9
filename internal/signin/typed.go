package signin

import "strings"

// typedAlphabet are the letters of what is typed for a device: none that is
// read for another, and no vowels, which make words (RFC 8628, section 6.1).
const typedAlphabet = "BCDFGHJKLMNPQRSTVWXZ"

// TypedLength is how many of them there are.
const TypedLength = 8

// foldTyped returns what a person typed for a device as it was made: without
// spaces and dashes, and in capitals. It is empty where that cannot be it.
func foldTyped(text string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		switch {
		case c == ' ' || c == '-':
		case strings.IndexByte(typedAlphabet, c) < 0 || b.Len() == TypedLength:
			return ""
		default:
			b.WriteByte(c)
		}
	}
	if b.Len() != TypedLength {
		return ""
	}
	return b.String()
}
