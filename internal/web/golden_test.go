package web_test

import (
	"path/filepath"
	"strings"
	"testing"
)

// varyingInPages is what differs in pages.
var varyingInPages = []variation{
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
		compare(t, filepath.Join("pages", p.name+".html"), strings.TrimSpace(text)+"\n", varyingInPages)
	}
}
