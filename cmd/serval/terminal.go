package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/cli/browser"
	"golang.org/x/term"

	"github.com/serval-bridge/serval-bridge/internal/catalogue"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A terminal is where a person can be told and asked, whatever stdin, stdout and
// stderr are: tools that run serval take these for themselves.
type terminal struct {
	in, out *os.File
	lines   *bufio.Reader
}

// tty returns the terminal that this process was started from; nil where there
// is none, or where nobody is to be asked.
func (p *program) tty() *terminal {
	if p.config.NoInput {
		return nil
	}
	if p.terminal != nil {
		return p.terminal
	}
	in, out := "/dev/tty", "/dev/tty"
	if runtime.GOOS == "windows" {
		in, out = "CONIN$", "CONOUT$"
	}
	t := &terminal{}
	var err error
	if t.in, err = os.OpenFile(in, os.O_RDWR, 0); err != nil {
		return nil
	}
	if t.out, err = os.OpenFile(out, os.O_RDWR, 0); err != nil || !term.IsTerminal(int(t.in.Fd())) {
		t.close()
		return nil
	}
	t.lines = bufio.NewReader(t.in)
	p.terminal = t
	return t
}

func (t *terminal) close() {
	if t == nil {
		return
	}
	for _, f := range []*os.File{t.in, t.out} {
		if f != nil {
			_ = f.Close()
		}
	}
}

func (t *terminal) say(format string, args ...any) { fmt.Fprintf(t.out, format, args...) }

// ask asks for a line.
func (t *terminal) ask(ctx context.Context, question string) (string, error) {
	t.say("%s", question)
	type answer struct {
		line string
		err  error
	}
	given := make(chan answer, 1)
	go func() { // a terminal that is read from cannot be interrupted: it goes with the process
		line, err := t.lines.ReadString('\n')
		given <- answer{line, err}
	}()
	select {
	case a := <-given:
		if errors.Is(a.err, io.EOF) {
			return "", context.Canceled
		}
		return strings.TrimSpace(a.line), a.err
	case <-ctx.Done():
		t.say("\n")
		return "", ctx.Err()
	}
}

// shown is how many are listed at once.
const shown = 15

// pick has somebody choose one of the entries, by number, or by letters that
// leave fewer.
func (t *terminal) pick(ctx context.Context, what string, entries []catalogue.Entry) (catalogue.Entry, error) {
	found := entries
	t.say("%s\n", what)
	for {
		for i, e := range found[:min(shown, len(found))] {
			line := fmt.Sprintf("  %2d  %-40s %s", i+1, cell(e.Label()), serval.Clip(cell(e.Description), 60))
			if wide := width(t.out); wide > 0 {
				line = cut(line, wide)
			}
			t.say("%s\n", line)
		}
		if more := len(found) - shown; more > 0 {
			t.say("      and %d more\n", more)
		}
		line, err := t.ask(ctx, "Number, or a few letters: ")
		if err != nil {
			return catalogue.Entry{}, err
		}
		n, err := strconv.Atoi(line)
		switch {
		case err == nil && n >= 1 && n <= min(shown, len(found)):
			return found[n-1], nil
		case line == "" && len(found) == 1:
			return found[0], nil
		}
		if found = catalogue.Near(line, entries); len(found) == 0 {
			t.say("Nothing has these letters.\n")
			found = entries
		}
	}
}

// isObeyed reports whether a terminal does something at a character, instead of
// showing it: a control, or what turns the order of letters around.
func isObeyed(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) }

// cell returns a text of somebody else's as a terminal shows it and does not obey
// it, on one line.
func cell(text string) string {
	return strings.Map(func(r rune) rune {
		if isObeyed(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "�"))
}

// passage is cell for a text of several lines.
func passage(text string) string {
	list := strings.Split(text, "\n")
	for i := range list {
		list[i] = cell(list[i])
	}
	return strings.Join(list, "\n")
}

// document returns JSON that is the same, and that a terminal does not obey: what
// it would obey is written as JSON's escapes.
func document(text string) string {
	var b strings.Builder
	for _, r := range text {
		if isObeyed(r) && r != '\n' {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// isTerminal reports whether a person sees what is written to w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// width returns how many characters a line of the terminal has that w is; 0 where it
// is none.
func width(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	columns, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return columns
}

// browse opens an address in the person's browser. It reports whether one was
// started; what it did then nobody knows.
func (p *program) browse(address, with string) bool {
	if with == "" {
		with = p.getenv("BROWSER")
	}
	if words := strings.Fields(with); len(words) > 0 {
		if i := slices.Index(words, "%s"); i >= 0 {
			words[i] = address
		} else {
			words = append(words, address)
		}
		return start(words[0], words[1:]...)
	}
	switch {
	case runtime.GOOS == "linux" && p.isWSL():
		return start("wslview", address) || start("rundll32.exe", "url.dll,FileProtocolHandler", address)
	case runtime.GOOS == "darwin" || runtime.GOOS == "windows":
		if p.getenv("SSH_CONNECTION") != "" {
			return false // the browser would open where nobody sits
		}
	case p.getenv("DISPLAY") == "" && p.getenv("WAYLAND_DISPLAY") == "":
		return false // what would open is a browser in the terminal, if any
	}
	browser.Stdout, browser.Stderr = io.Discard, io.Discard
	opened := make(chan error, 1)
	go func() { opened <- browser.OpenURL(address) }() // some stay until the browser is closed
	return waitBriefly(opened)
}

// start starts a program and reports whether it came up.
func start(name string, args ...string) bool {
	c := exec.Command(name, args...)
	if c.Start() != nil {
		return false
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	return waitBriefly(ended)
}

// isWSL reports whether this is Linux on Windows.
func (p *program) isWSL() bool {
	if p.getenv("WSL_DISTRO_NAME") != "" {
		return true
	}
	text, err := os.ReadFile(filepath.FromSlash("/proc/sys/kernel/osrelease"))
	return err == nil && strings.Contains(strings.ToLower(string(text)), "microsoft")
}
