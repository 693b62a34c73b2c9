package door

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// Place names the place of what was made at an instant in a list that is newest
// first, as the token of the page behind it, and ReadPlace reads it. It says
// nothing about whether that is there.
func Place(at time.Time, id string) string { return fmt.Sprint(at.UnixMicro(), ".", id) }

// ReadPlace reads a Place; nothing is the beginning of the list. What is none is
// refused.
func ReadPlace(token string) (at time.Time, id string, err error) {
	if token == "" {
		return time.Time{}, "", nil
	}
	text, id, _ := strings.Cut(token, ".")
	us, err := strconv.ParseInt(text, 10, 64)
	if err != nil || us <= 0 || id == "" {
		return time.Time{}, "", NoPage()
	}
	return time.UnixMicro(us).UTC(), id, nil
}

// NoPage is the answer for a page token that a list did not give.
func NoPage() error { return serval.Refuse(serval.Invalid, "This page_token is not of this list.") }
