package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

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

// table prints rows below their headings.
func (p *program) table(headings []string, rows [][]string) error {
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
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
	return w.Flush()
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
