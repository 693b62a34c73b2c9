// Package docstest holds the documents to what they speak of: each command, flag,
// setting, metric, target and link that a person could follow is there. The tests
// of a program hand its help to Commands; what is of no program is tested here.
package docstest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A document is one that people read.
type document struct {
	path string // from the root of the checkout
	text string
}

// documents returns all of them, and the folder that they are in.
func documents(t testing.TB) (root string, all []document) {
	t.Helper()
	root, err := os.Getwd()
	for err == nil {
		if _, missing := os.Stat(filepath.Join(root, "go.mod")); missing == nil {
			break
		}
		root = filepath.Dir(root)
	}
	paths := []string{"charts/serval/templates/NOTES.txt"}
	for _, dir := range []string{".", "docs", "charts", "terraform"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && dir == "." && path != root {
				return fs.SkipDir
			}
			if rel, _ := filepath.Rel(root, path); err == nil && strings.HasSuffix(path, ".md") {
				paths = append(paths, rel)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range paths {
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, document{path, string(text)})
	}
	if len(all) < 20 {
		t.Fatalf("%d documents; are these all?", len(all))
	}
	return root, all
}

var (
	fence  = regexp.MustCompile("(?s)```([a-z]*)\n(.*?)\n *```")
	span   = regexp.MustCompile("`([^`]+)`")
	indent = regexp.MustCompile(`(?m)^    +(\S.*)$`)
)

// commands returns the lines of a document that a person would type: those of
// blocks for a shell, and what is set as code within a sentence.
func (d document) commands() (lines []string) {
	rest := fence.ReplaceAllStringFunc(d.text, func(block string) string {
		m := fence.FindStringSubmatch(block)
		if slices.Contains([]string{"", "sh", "bash", "console"}, m[1]) {
			for line := range strings.SplitSeq(strings.ReplaceAll(m[2], "\\\n", " "), "\n") {
				lines = append(lines, strings.Join(strings.Fields(line), " "))
			}
		}
		return ""
	})
	for _, m := range span.FindAllStringSubmatch(rest, -1) {
		lines = append(lines, strings.Join(strings.Fields(m[1]), " "))
	}
	for _, m := range indent.FindAllStringSubmatch(rest, -1) {
		lines = append(lines, m[1])
	}
	return lines
}

// typed finds a program where a command begins.
const typed = `(?:^|&& |\| |-- /|^/|= |\$\()(?:[A-Z_]+=\S* )*`

// Commands fails where a document names a command of the program, or a flag of
// one, that there is none of. help returns what the program says for a command,
// and with --help behind it. At least so many are to be found.
func Commands(t *testing.T, program string, atLeast int, help func(args ...string) string) {
	t.Helper()
	_, all := documents(t)
	begins := regexp.MustCompile(typed + regexp.QuoteMeta(program) + ` ([a-z-].*)`)
	said := map[string]string{}
	ask := func(words []string) string {
		key := strings.Join(words, " ")
		if _, asked := said[key]; !asked {
			said[key] = help(append(slices.Clone(words), "--help")...)
		}
		return said[key]
	}
	found := 0
	for _, d := range all {
		for _, line := range d.commands() {
			m := begins.FindStringSubmatch(line)
			if m == nil {
				continue
			}
			found++
			words, flags := parts(m[1])
			text, known := ask(nil), 0
			for known < len(words) && strings.Contains(text, "Available Commands:") {
				next := ask(words[:known+1])
				if !strings.Contains(next, "\n  "+program+" "+strings.Join(words[:known+1], " ")) {
					t.Errorf("%s: `%s`: %s has no command %q", d.path, line, program, words[known])
					break
				}
				text, known = next, known+1
			}
			for _, flag := range flags {
				if !regexp.MustCompile(`(?m)(^|[ ,])` + flag + `\b`).MatchString(text) {
					t.Errorf("%s: `%s`: there is no flag %s", d.path, line, flag)
				}
			}
		}
	}
	if found < atLeast {
		t.Errorf("the documents name %d commands of %s, want %d at least: are they read?", found, program, atLeast)
	}
}

// parts returns the words that a command line begins with, and its flags; what is
// behind -- , a pipe or a comment is another program's.
func parts(line string) (words, flags []string) {
	begun := false
	for _, w := range strings.Fields(line) {
		switch {
		case w == "--" || strings.ContainsAny(w[:1], "|>&#;"):
			return words, flags
		case strings.HasPrefix(w, "--"):
			begun = true
			name, _, _ := strings.Cut(w, "=")
			flags = append(flags, strings.Trim(name, ".,;:…)]"))
		case !regexp.MustCompile(`^[a-z][a-z-]*$`).MatchString(w):
			begun = true
		case !begun:
			words = append(words, w)
		}
	}
	return words, flags
}
