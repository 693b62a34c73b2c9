package pages

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A document can be such that indenting it makes thousands of it. What a worker
// may push is bounded too; what the database holds from before is not.
func TestDocumentBombs(t *testing.T) {
	nest := func(depth, elements int) serval.Document {
		return serval.Document(strings.Repeat("[", depth) + strings.Repeat("0,", elements) + "0" + strings.Repeat("]", depth))
	}
	const cut = "of which the first 262144 are shown"
	for name, c := range map[string]struct {
		document serval.Document
		copies   int
		want     string // in the last of them
	}{
		"deep":                {nest(9000, 4000), 1, string(nest(9000, 4000))},
		"41 deep":             {nest(41, 3), 1, string(nest(41, 3))},
		"40 deep":             {nest(40, 3), 1, strings.Repeat(" ", 80) + "0,\n"},
		"40 deep and wide":    {nest(40, 120_000), 1, string(nest(40, 120_000))},
		"brackets in a text":  {serval.Document(`{"Sid":"\"` + strings.Repeat("[", 100) + `"}`), 1, "{\n  \"Sid\": \"\\\"[["},
		"long":                {nest(1, 150_000), 1, cut},
		"many":                {nest(1, 130_000), 25, "of which the first 0 are shown"},
		"many, each harmless": {nest(40, 3000), 400, "of which the first 0 are shown"},
		"long, and no JSON":   {serval.Document("x" + strings.Repeat("ü", 200_000)), 1, cut},
	} {
		var size int
		p := &paper{left: maxPaper}
		var texts []string
		for range c.copies {
			texts = append(texts, p.pretty(c.document))
		}
		for _, text := range texts {
			size += len(text)
		}
		if last := texts[c.copies-1]; size > 2<<20+c.copies*200 || !strings.Contains(last, c.want) || !utf8.ValidString(last) {
			t.Errorf("%s: %d bytes on a page, the last %.80q, want about 2 MiB at most, and %.80q", name, size, last, c.want)
		}
	}
}
