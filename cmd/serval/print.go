package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// json prints a value for programs.
func (p *program) json(value any) error {
	var text strings.Builder
	e := json.NewEncoder(&text)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		return err
	}
	_, err := io.WriteString(p.stdout, document(text.String()))
	return err
}

// table prints rows below their headings. On a terminal what the last column has
// beyond its width is cut, and where little would be left of it, it stands below the
// rest: a line that goes on below is harder to read than one that does not.
func (p *program) table(headings []string, rows [][]string) error {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(headings, "\t"))
	for _, row := range rows {
		for i, text := range row {
			if i > 0 {
				io.WriteString(w, "\t")
			}
			io.WriteString(w, cell(text))
		}
		io.WriteString(w, "\n")
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(p.stdout, narrowed(text.String(), headings[len(headings)-1], width(p.stdout)))
	return err
}

// leastColumn is how much of the last column is left at least where it stands beside
// the others.
const leastColumn = 12

// narrowed returns a table whose last column, below its heading, ends at width; 0
// is no end. What stands in a line of its own is set in by two.
func narrowed(table, last string, width int) string {
	if width <= leastColumn {
		return table
	}
	var text strings.Builder
	lines := strings.Split(strings.TrimSuffix(table, "\n"), "\n")
	at := utf8.RuneCountInString(lines[0]) - utf8.RuneCountInString(last)
	for i, line := range lines {
		letters := []rune(line)
		if beside := at+leastColumn <= width; beside || at > len(letters) {
			text.WriteString(cut(line, width) + "\n")
			continue
		}
		text.WriteString(strings.TrimRight(string(letters[:at]), " ") + "\n")
		if below := letters[at:]; i > 0 && len(below) > 0 {
			text.WriteString(cut("  "+string(below), width) + "\n")
		}
	}
	return text.String()
}

// cut returns a line that ends at width.
func cut(line string, width int) string {
	letters := []rune(strings.TrimRight(line, " "))
	if len(letters) <= width {
		return string(letters)
	}
	return string(letters[:width-1]) + "…"
}

// facts prints names and what they are.
func (p *program) facts(lines [][2]string) error {
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	for _, l := range lines {
		fmt.Fprintf(w, "%s\t%s\n", l[0], cell(l[1]))
	}
	return w.Flush()
}

// moment writes an instant as people here read it.
func (p *program) moment(t wire.Time) string {
	if t.IsZero() {
		return "-"
	}
	local := t.Local()
	if today := p.now(); local.Year() == today.Year() && local.YearDay() == today.YearDay() {
		return local.Format("15:04")
	}
	return local.Format("2006-01-02 15:04")
}

// waitBriefly reports whether what was started goes well: it has ended so, or has
// not ended within a moment.
func waitBriefly(ended <-chan error) bool {
	select {
	case err := <-ended:
		return err == nil
	case <-time.After(2 * time.Second):
		return true
	}
}
