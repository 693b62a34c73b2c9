package docstest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// heading is a line that others link to, by the anchor that is made of it.
var heading = regexp.MustCompile(`(?m)^#+ +(.+?) *$`)

// anchors returns where in a document a link may lead.
func anchors(text string) map[string]bool {
	all := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		name := regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`).ReplaceAllString(m[1], "$1")
		name = regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(name), "")
		all[strings.ReplaceAll(name, " ", "-")] = true
	}
	return all
}

// Every link within the checkout leads somewhere, and to a heading where it names
// one.
func TestLinks(t *testing.T) {
	root, all := documents(t)
	links := 0
	for _, d := range all {
		for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(span.ReplaceAllString(fence.ReplaceAllString(d.text, ""), ""), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			links++
			file, anchor, named := strings.Cut(m[1], "#")
			path := filepath.Join(root, d.path)
			if file != "" {
				path = filepath.Join(filepath.Dir(path), file)
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s: a link leads to %s, which is not there", d.path, m[1])
				continue
			}
			if named {
				text, err := os.ReadFile(path)
				if err != nil || !anchors(string(text))[anchor] {
					t.Errorf("%s: a link leads to %s, where there is no such heading (%v)", d.path, m[1], err)
				}
			}
		}
	}
	if links < 80 {
		t.Errorf("%d links; are they read?", links)
	}
}

// Every target that somebody is told to make can be made.
func TestTargets(t *testing.T) {
	root, all := documents(t)
	makefile := read(t, filepath.Join(root, "Makefile"))
	found := 0
	for _, d := range all {
		for _, line := range d.commands() {
			for _, m := range regexp.MustCompile(`(?:^|&& )make ([a-z][a-z-]+)`).FindAllStringSubmatch(line, -1) {
				found++
				if !strings.Contains(makefile, "\n"+m[1]+":") {
					t.Errorf("%s: `%s`: the Makefile has no %s", d.path, line, m[1])
				}
			}
		}
	}
	if found < 20 {
		t.Errorf("%d targets are named; are the documents read?", found)
	}
}

// Every setting and every metric that a document names is in a program; so is
// every path of the API in its description.
func TestNames(t *testing.T) {
	root, all := documents(t)
	code := read(t, filepath.Join(root, "Makefile"))
	for _, dir := range []string{"cmd", "internal"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
				code += read(t, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	has := map[string]bool{}
	for _, name := range regexp.MustCompile(`\b(SERVAL|serval)_[A-Za-z_]+`).FindAllString(code, -1) {
		has[name] = true
	}
	for name := range has {
		has[name+"_FILE"] = true // any secret
	}
	openapi := read(t, filepath.Join(root, "api", "openapi.yaml"))
	found := 0
	for _, d := range all {
		for _, m := range regexp.MustCompile(`\b(SERVAL_[A-Z_]+|serval_[a-z_]+)(\.[a-z]|…|\*)?`).FindAllStringSubmatch(d.text, -1) {
			found++
			if strings.HasPrefix(m[1], "serval_ingestion") { // in Terraform
				continue
			}
			if m[2] == "" && !has[m[1]] && !strings.HasSuffix(m[1], "_") {
				t.Errorf("%s: no program knows %s", d.path, m[1])
			}
		}
		for _, m := range regexp.MustCompile(`\b(GET|POST|PUT|PATCH|DELETE) /api/v1(/[a-z0-9/{}_-]+)`).FindAllStringSubmatch(d.text, -1) {
			found++
			_, block, there := strings.Cut(openapi, "\n  "+regexp.MustCompile(`\{[a-z_]+\}`).ReplaceAllString(m[2], "{id}")+":\n")
			if !there {
				_, block, there = strings.Cut(openapi, "\n  "+m[2]+":\n")
			}
			if end := strings.Index(block, "\n  /"); end >= 0 {
				block = block[:end]
			}
			if !there || !strings.Contains("\n"+block, "\n    "+strings.ToLower(m[1])+":") {
				t.Errorf("%s: the API has no %s %s", d.path, m[1], m[2])
			}
		}
	}
	if found < 300 {
		t.Errorf("%d names; are the documents read?", found)
	}
}

// What Commands finds, and what it complains of.
func TestCommandsAreFound(t *testing.T) {
	d := document{text: "Run `serval-bridge audit verify --head 1:x`, or\n\n    X=1 serval-bridge migrate\n\n```sh\nkubectl exec a -- /serval-bridge \\\n  doctor --skip a # --none\n```\n\n```text\nserval-bridge never\n```\n"}
	begins := regexp.MustCompile(typed + `serval-bridge ([a-z-].*)`)
	got := map[string]bool{}
	for _, line := range d.commands() {
		if m := begins.FindStringSubmatch(line); m != nil {
			words, flags := parts(m[1])
			got[strings.Join(words, " ")+"|"+strings.Join(flags, " ")] = true
		}
	}
	for _, want := range []string{"audit verify|--head", "migrate|", "doctor|--skip"} {
		if !got[want] {
			t.Errorf("%q is not found in %v", want, got)
		}
	}
	if len(got) != 3 {
		t.Errorf("found %v, want three", got)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
