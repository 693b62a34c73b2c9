package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/trust"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// What docs/troubleshooting.md says is told by a check is told by it: each name
// in the last column of its tables is one of the code's.
func TestTroubleshooting(t *testing.T) {
	page := read(t, "../../docs/troubleshooting.md")
	control := ""
	names, err := filepath.Glob("../../internal/control/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		control += read(t, name)
	}
	fields := func(shape any) []string {
		text, err := json.Marshal(shape)
		if err != nil {
			t.Fatal(err)
		}
		var members map[string]any
		if err := json.Unmarshal(text, &members); err != nil {
			t.Fatal(err)
		}
		var names []string
		for name := range members {
			names = append(names, name)
		}
		return names
	}
	known := map[string]func(name string) bool{
		"check":     func(name string) bool { return slices.Contains(serval.Causes(), serval.Cause(name)) },
		"finding":   func(name string) bool { return slices.Contains(trust.FindingIDs(), name) },
		"trust":     func(name string) bool { return name == trust.Fails || slices.Contains(fields(wire.Trust{}), name) },
		"inventory": func(name string) bool { return slices.Contains(fields(serval.Inventory{}), name) },
		"account":   func(name string) bool { return slices.Contains(fields(wire.Account{}), name) },
		"role":      func(name string) bool { return slices.Contains(fields(wire.Role{}), name) },
		"request":   func(name string) bool { return slices.Contains(fields(wire.Request{}), name) },
		"event": func(name string) bool {
			return name == string(serval.InventoryAccept) || strings.Contains(read(t, "../../internal/signin/login.go"), `d["`+name+`"] = `)
		},
		"probe": func(name string) bool {
			probes := read(t, "../../internal/bridge/cause.go")
			return strings.Contains(probes, `cause("`+name+`", `) || strings.Contains(probes, `Cause{ID: "`+name+`", `)
		},
		"refusal": func(name string) bool { return strings.Contains(control, `"cause": "`+name+`"`) },
	}
	told := regexp.MustCompile("\\| `([a-z]+)/([a-z_.-]+)` \\|\n")
	rows := told.FindAllStringSubmatch(page, -1)
	if len(rows) < 25 {
		t.Errorf("%d rows name a check; is the test reading the page?", len(rows))
	}
	for _, row := range rows {
		if is := known[row[1]]; is == nil || !is(row[2]) {
			t.Errorf("%s/%s is no check of the product's", row[1], row[2])
		}
	}
	// Every row has its last column.
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| what") && !told.MatchString(line) &&
			!strings.Contains(line, ".md) |") && !strings.Contains(line, "| this page |") {
			t.Errorf("nothing tells: %s", line)
		}
	}
	for _, file := range regexp.MustCompile(`\]\(([a-z-]+\.md)\)`).FindAllStringSubmatch(page, -1) {
		read(t, "../../docs/"+file[1])
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
