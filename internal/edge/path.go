package edge

import (
	"fmt"
	"net/url"
)

// Path returns an address of ours with ids in it.
func Path(format string, parts ...string) string {
	escaped := make([]any, len(parts))
	for i, p := range parts {
		escaped[i] = url.PathEscape(p)
	}
	return fmt.Sprintf(format, escaped...)
}
