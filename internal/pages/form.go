package pages

import (
	"strconv"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// minutes reads a number of minutes from a form; empty is 0.
func minutes(text string) (int, error) {
	if text = strings.TrimSpace(text); text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, edge.Refuse(serval.Invalid, "Minutes are a whole number.")
	}
	return n, nil
}
