package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// S-111: what the programs hold may be passed on with them, and is named.
func TestLicences(t *testing.T) {
	parts, err := held()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := write(&out, parts); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"\nmodernc.org/sqlite v", "\nk8s.io/client-go v", "\ngithub.com/zalando/go-keyring v", "Copyright (c) 2017 The Sqlite Authors"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not told", want)
		}
	}
	if !strings.HasPrefix(out.String(), "std go1.") || strings.Contains(out.String(), "google/licensecheck") || len(parts) < 100 {
		t.Errorf("%d parts are told of, Go's own first and no tool of the tests: %.80s", len(parts), out.String())
	}
}

// What is of another licence, of none, or of one that is not known, is refused.
func TestRefusals(t *testing.T) {
	text := func(module, file string) string {
		parts, err := held()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range parts {
			if p.path == module {
				text, err := os.ReadFile(filepath.Join(p.dir, file))
				if err != nil {
					t.Fatal(err)
				}
				return string(text)
			}
		}
		t.Fatalf("nothing holds %s", module)
		return ""
	}
	good := text("k8s.io/client-go", "LICENSE")
	const copyleft = "This program is free software: you can redistribute it and/or modify it under the terms of the GNU Affero General Public License as " +
		"published by the Free Software Foundation, either version 3 of the License, or (at your option) any later version."
	for _, test := range []struct {
		name  string
		files map[string]string
		want  string // within the error; empty where there is none
	}{
		{"a good one", map[string]string{"LICENSE": good}, ""},
		{"by another name", map[string]string{"license-apache.txt": good}, ""},
		{"with a notice", map[string]string{"LICENSE": good, "NOTICE": "Somebody is to be named."}, ""},
		{"none", map[string]string{"README.md": good}, "it has no licence"},
		{"a folder", map[string]string{"LICENSE/LICENSE": good}, "it has no licence"},
		{"a notice alone", map[string]string{"NOTICE": "Somebody is to be named."}, "it has no licence"},
		{"unknown", map[string]string{"LICENSE": "You may look at it on Sundays."}, "not known"},
		{"mostly unknown", map[string]string{"LICENSE": good + strings.Repeat("And only on Sundays, where it does not rain. ", 400)}, "not known"},
		{"copyleft", map[string]string{"COPYING": copyleft}, "not among those that are allowed"},
		{"copyleft besides", map[string]string{"LICENSE": good, "LICENSE.AGPL": copyleft}, "not among those that are allowed"},
	} {
		dir := t.TempDir()
		for name, text := range test.files {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var out bytes.Buffer
		err := write(&out, []part{{"example.com/part", "v1.0.0", dir}})
		if test.want == "" && (err != nil || !strings.Contains(out.String(), "example.com/part v1.0.0 (Apache-2.0)")) || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q\n%.200s", test.name, err, test.want, out.String())
		}
	}
}
