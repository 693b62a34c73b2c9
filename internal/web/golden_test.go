package web_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What differs from run to run in a page, and what stands for it.
var varyingInPages = []struct{ pattern, stand string }{
	{`\?v=[0-9a-f]{16}`, "?v=TAG"},
	{`\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?Z`, "TIME"},
	{`\d{4}-\d\d-\d\d \d\d:\d\d UTC`, "WHEN"},
	{`(value="|from=|to=)\d{4}-\d\d-\d\d`, "${1}DAY"},
	{`(class="(?:left|clock)"[^>]*>)[^<]+`, "${1}A WHILE"},
	{`\d+ min ago`, "A WHILE ago"},
	{`\b(req|login|run|session|batch|task|client)_[a-z0-9]{26}`, "${1}_ID"},
	{`\b[0-9a-f]{64}\b`, "HASH"}, {`\bAROA[A-Z0-9]{10,}`, "AROAID"}, {`\bASIA[A-Z0-9]+`, "ASIAKEY"}, {`\b[A-Z2-7]{26}\b`, "REQUEST"},
	{`(?:[A-Za-z0-9/=]|&#43;){30,}`, "SECRET"},
	{`(packed_policy_percent</dt><dd>)\d+`, "${1}PERCENT"}, // an instant is packed with the rest, some better than others
	{`127\.0\.0\.1:\d+`, "127.0.0.1:PORT"},
}

// Every page as it is: a template changes on purpose, with what it writes in
// sight. UPDATE_GOLDEN=1 writes them anew.
func TestPagesAsTheyAre(t *testing.T) {
	w := newWorld(t)
	as := map[string]*browser{"": w.browser()}
	for _, p := range w.gallery() {
		if as[p.who] == nil {
			as[p.who] = w.as(p.who)
		}
		var text string
		if p.form != nil {
			_, text = as[p.who].do("POST", p.path, p.form)
		} else {
			_, text = as[p.who].do("GET", p.path, nil)
		}
		if p.name != "roles" { // what is around every page stands once
			_, text, _ = strings.Cut(text, "<main id=\"content\">")
			text, _, _ = strings.Cut(text, "</main>")
		}
		for _, v := range varyingInPages {
			text = regexp.MustCompile(v.pattern).ReplaceAllString(text, v.stand)
		}
		text = strings.TrimSpace(text) + "\n"
		path := filepath.Join("testdata", "pages", p.name+".html")
		if *update {
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), text); d != "" {
			t.Errorf("%s (-want +got); UPDATE_GOLDEN=1 writes it anew:\n%s", path, d)
		}
	}
}
