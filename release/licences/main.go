// Licences writes the licences of all that Serval's programs are made of, as they
// ask for where they are passed on, and fails where there is one that does not let
// a program under Apache-2.0 hold it, or none (S-111).
//
//	go run ./release/licences >LICENCES.txt
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/licensecheck"
)

const commands = "github.com/serval-bridge/serval-bridge/cmd/"

// What is passed on, and where it runs.
var (
	programs  = []string{commands + "serval-bridge", commands + "serval-worker", commands + "serval"}
	platforms = []string{"linux", "darwin", "windows"}
)

// allowed are the licences that ask for no more than to be passed on with what they
// are of, by their SPDX names. Mozilla's asks so of its own files, which are not
// changed here.
var allowed = []string{"Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MPL-2.0", "Unlicense", "CC0-1.0", "0BSD", "BlueOak-1.0.0"}

// least is how much of a licence has to be known, in percent: the rest is names,
// and the years.
const least = 75

// What files with a licence are called: with the part's own, and with what it says
// besides, as of others' work within it.
var (
	isOwn     = regexp.MustCompile(`(?i)^(licen[cs]e|copying)(\.(txt|md|rst))?$`)
	isFurther = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice)([-._].*)?$`)
)

// A part is a module that some program holds.
type part struct{ path, version, dir string }

func main() {
	out := bufio.NewWriter(os.Stdout)
	parts, err := held()
	if err == nil {
		err = write(out, parts)
	}
	if err = errors.Join(err, out.Flush()); err != nil {
		fmt.Fprintln(os.Stderr, "licences:", err)
		os.Exit(1)
	}
}

// held returns the modules that the programs hold, Go's own library first.
func held() ([]part, error) {
	goroot, err := exec.Command("go", "env", "GOROOT", "GOVERSION").Output()
	if err != nil {
		return nil, fmt.Errorf("asking go: %w", err)
	}
	own := strings.Fields(string(goroot))
	parts := []part{{"std", own[1], own[0]}}
	for _, platform := range platforms {
		list := exec.Command("go", append([]string{"list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}"}, programs...)...)
		list.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+platform)
		list.Stderr = os.Stderr
		text, err := list.Output()
		if err != nil {
			return nil, fmt.Errorf("listing what the programs hold: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) == 3 {
				parts = append(parts, part{f[0], f[1], f[2]})
			}
		}
	}
	slices.SortFunc(parts[1:], func(a, b part) int { return cmp.Compare(a.path, b.path) })
	return slices.Compact(parts), nil
}

// write writes each part's licences to w. The error names every part that may not be
// held.
func write(w io.Writer, parts []part) error {
	var wrong []error
	for _, p := range parts {
		names, texts, err := p.licences()
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		fmt.Fprintf(w, "%s %s (%s)\n\n%s\n", p.path, p.version, strings.Join(names, ", "), bytes.TrimSpace(texts))
		fmt.Fprintf(w, "\n%s\n\n", strings.Repeat("-", 80))
	}
	return errors.Join(wrong...)
}

// licences returns the names of a part's licences and their texts, all of which
// are allowed.
func (p part) licences() (names []string, texts []byte, err error) {
	files, err := os.ReadDir(p.dir)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", p.path, err)
	}
	for _, f := range files {
		if f.IsDir() || !isFurther.MatchString(f.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(p.dir, f.Name()))
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", p.path, err)
		}
		texts = append(append(texts, text...), '\n')
		found := licensecheck.Scan(text)
		if isOwn.MatchString(f.Name()) && found.Percent < least {
			return nil, nil, fmt.Errorf("%s: %s is of a licence that is not known (%.0f percent are)", p.path, f.Name(), found.Percent)
		}
		for _, m := range found.Match {
			if !slices.Contains(allowed, m.ID) {
				return nil, nil, fmt.Errorf("%s: %s is of the licence %s, which is not among those that are allowed", p.path, f.Name(), m.ID)
			}
			names = append(names, m.ID)
		}
	}
	if len(names) == 0 {
		return nil, nil, fmt.Errorf("%s: it has no licence", p.path)
	}
	slices.Sort(names)
	return slices.Compact(names), texts, nil
}
