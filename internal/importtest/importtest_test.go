package importtest

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/version"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const module = "github.com/serval-bridge/serval-bridge/"

// maxLines is how much one room may be: what a person can hold in mind. Tests
// do not count.
const maxLines = 4000

// A rule says what a package may import besides the standard library.
type rule struct {
	ours   string // rooms, by their names under internal/ or from the root
	theirs string // modules, by their paths
}

// Rooms by whom they serve. What is in neither serves both.
const (
	pure        = "serval access trust insight connect wire shell probe settings checkup api "
	bridgeRooms = "trace awssts tokenreview login database lobby memory dossier store history roster door signin control intake workflow notify edge shape pages web bridge "
	workerRooms = "pace awsiam awsorg lease upstream worker workerd "
	laptopRooms = "client keep wallet catalogue profile "
	fakes       = "awstest idptest kubetest pgtest policytest sqlitetest "
)

const (
	aws      = "github.com/aws/aws-sdk-go-v2 github.com/aws/smithy-go golang.org/x/time golang.org/x/sync "
	strict   = "github.com/go-json-experiment/json " // a strict JSON reader
	zap      = "go.uber.org/zap "
	wiring   = zap + "github.com/spf13/cobra github.com/spf13/pflag github.com/caarlos0/env/v11 github.com/goccy/go-yaml golang.org/x/sync "
	metrics  = "github.com/prometheus/client_golang github.com/prometheus/client_model "
	terminal = "golang.org/x/term "
)

// table is who may import whom. Its order is the architecture's.
var table = map[string]rule{
	"internal/serval": {},
	"internal/wire":   {ours: "serval"},
	"internal/shell":  {},

	"internal/access":  {ours: "serval", theirs: strict},
	"internal/trust":   {ours: "serval", theirs: strict},
	"internal/insight": {ours: "serval", theirs: strict},
	"internal/connect": {ours: "serval", theirs: strict},

	"internal/probe":    {theirs: metrics + zap},
	"internal/trace":    {theirs: "go.opentelemetry.io/otel go.opentelemetry.io/proto/otlp google.golang.org/protobuf"},
	"internal/settings": {ours: "serval", theirs: wiring},
	"internal/checkup":  {ours: "serval"},

	"internal/pace":   {},
	"internal/awsiam": {ours: "serval pace", theirs: aws},
	"internal/awsorg": {ours: "serval", theirs: aws},
	"internal/awssts": {ours: "serval", theirs: aws},

	"internal/lease":       {theirs: "k8s.io/client-go k8s.io/api k8s.io/apimachinery k8s.io/klog/v2"},
	"internal/tokenreview": {ours: "serval"},
	"internal/login": {ours: "serval",
		theirs: "github.com/coreos/go-oidc/v3 golang.org/x/oauth2 github.com/go-jose/go-jose/v4 golang.org/x/sync " + strict},
	"internal/upstream": {ours: "serval wire"},
	"internal/worker":   {ours: "serval", theirs: zap + "golang.org/x/sync"},
	"internal/database": {ours: "serval",
		theirs: "modernc.org/sqlite github.com/jackc/pgx/v5 github.com/pressly/goose/v3 github.com/gofrs/flock"},
	"internal/lobby":    {},
	"internal/memory":   {},
	"internal/dossier":  {ours: "serval"},
	"internal/store":    {ours: "serval database lobby memory dossier"},
	"internal/door":     {ours: "serval store", theirs: zap},
	"internal/signin":   {ours: "serval lobby store door", theirs: zap},
	"internal/history":  {ours: "serval insight store"},
	"internal/roster":   {ours: "serval access trust store door"},
	"internal/control":  {ours: "serval access trust insight history roster connect store door signin", theirs: zap},
	"internal/intake":   {ours: "serval insight history connect store door", theirs: zap},
	"internal/workflow": {ours: "serval connect store door"},
	"internal/notify": {ours: "serval store door",
		theirs: zap + "github.com/wneessen/go-mail github.com/standard-webhooks/standard-webhooks github.com/coder/websocket"},
	"internal/edge":  {ours: "serval wire"},
	"internal/shape": {ours: "serval wire signin control workflow store insight history"},
	"internal/pages": {ours: "serval wire shell signin control workflow history edge shape"},
	"internal/web":   {ours: "serval wire signin control intake workflow login edge shape pages trace", theirs: zap + "github.com/gorilla/sessions github.com/gorilla/securecookie golang.org/x/time"},

	// What runs on a laptop.
	"internal/client":    {ours: "serval wire"},
	"internal/keep":      {ours: "serval", theirs: "github.com/gofrs/flock github.com/zalando/go-keyring"},
	"internal/wallet":    {ours: "serval wire keep"},
	"internal/catalogue": {ours: "serval wire", theirs: "github.com/sahilm/fuzzy"},
	"internal/profile":   {ours: "serval"},

	"internal/bridge":   {ours: pure + bridgeRooms, theirs: wiring + metrics},
	"internal/workerd":  {ours: pure + workerRooms, theirs: wiring + metrics},
	"cmd/serval-bridge": {ours: pure + bridgeRooms, theirs: wiring + terminal},
	"cmd/serval-worker": {ours: pure + workerRooms, theirs: wiring + terminal},
	"cmd/serval":        {ours: "serval wire shell settings " + laptopRooms, theirs: "github.com/spf13/cobra " + terminal + "github.com/cli/browser"},
	"cmd/serval-demo":   {ours: pure + bridgeRooms + workerRooms + fakes, theirs: wiring + terminal + aws},

	// The far sides, played for tests and for the demo.
	"internal/awstest":    {ours: "serval policytest", theirs: aws + strict + "github.com/go-jose/go-jose/v4"},
	"internal/idptest":    {ours: "serval", theirs: "github.com/go-jose/go-jose/v4"},
	"internal/dnstest":    {theirs: "golang.org/x/net"},
	"internal/docstest":   {},
	"internal/kubetest":   {ours: "porttest"},
	"internal/pgtest":     {theirs: "github.com/jackc/pgx/v5"},
	"internal/porttest":   {},
	"internal/sqlitetest": {},
	"internal/storetest":  {ours: "serval store"},
	// AWS's evaluation of policies, for fakes.
	"internal/policytest": {},

	"internal/importtest": {},

	// What the programs are made of, with its licences.
	"release/licences": {theirs: "github.com/google/licensecheck"},

	// The API and the configuration file, described, for who embeds them.
	"api": {},
}

// nowhere are names under which anything could be put.
var nowhere = strings.Fields("util utils common model models type types service services manager managers pkg helper helpers misc base lib core shared")

// apart is what a daemon, or the client, must not hold in any of its rooms,
// whether they are wired yet or not, however it came by it.
var apart = []struct {
	daemon, rooms string
	never         []string
}{
	{"cmd/serval-bridge", bridgeRooms, []string{"github.com/aws/aws-sdk-go-v2/service/iam", "k8s.io/"}},
	{"cmd/serval", laptopRooms, []string{"github.com/aws/", "k8s.io/", "modernc.org/", module + "internal/store"}},
	{"cmd/serval-worker", workerRooms, []string{module + "internal/awssts", "github.com/coreos/go-oidc"}},
}

// A pkg is a directory with Go files, seen from outside.
type pkg struct {
	dir     string // from the module's root, with slashes
	names   []string
	imports []string // of files that are not tests
	mints   bool     // calls AssumeRoleWithWebIdentity
	lines   int      // of files that are not tests
}

func TestImports(t *testing.T) {
	pkgs := read(t, "../..")
	if len(pkgs) < 3 || !slices.ContainsFunc(pkgs, func(p pkg) bool { return p.dir == "internal/serval" && p.lines > 1000 }) {
		t.Fatalf("found %d packages and not the dictionary among them", len(pkgs))
	}
	for _, fault := range check(pkgs) {
		t.Error(fault)
	}
}

// check returns all in which the packages break the table.
func check(pkgs []pkg) (faults []string) {
	fault := func(p pkg, format string, args ...any) {
		faults = append(faults, p.dir+" "+fmt.Sprintf(format, args...))
	}
	for _, p := range pkgs {
		for _, name := range append([]string{path.Base(p.dir)}, p.names...) {
			if slices.Contains(nowhere, name) {
				fault(p, "is named %s: name it for a noun, or for the far side it speaks to", name)
				break
			}
		}
		if p.lines > maxLines {
			fault(p, "has %d lines, at most %d: it is more than one room", p.lines, maxLines)
		}
		if p.mints && p.dir != "internal/awssts" {
			fault(p, "calls AssumeRoleWithWebIdentity: only internal/awssts opens sessions")
		}
		r, known := table[p.dir]
		if !known {
			if len(p.imports) > 0 || strings.HasPrefix(p.dir, "internal/") || strings.HasPrefix(p.dir, "cmd/") {
				fault(p, "is not in the table of who may import whom")
			}
			continue
		}
		for _, i := range p.imports {
			if !r.allows(p.dir, i) {
				fault(p, "imports %s, which the table does not give it", strings.TrimPrefix(i, module))
			}
		}
	}
	for _, a := range apart {
		faults = append(faults, reach(pkgs, a.daemon, a.rooms, a.never)...)
	}
	return faults
}

func (r rule) allows(dir, imported string) bool {
	if ours, is := strings.CutPrefix(imported, module); is {
		return slices.Contains(strings.Fields(r.ours), strings.TrimPrefix(ours, "internal/")) || strings.HasPrefix(ours, dir+"/")
	}
	if host, _, _ := strings.Cut(imported, "/"); !strings.Contains(host, ".") {
		return imported != "C" && imported != "unsafe" // the standard library
	}
	return slices.ContainsFunc(strings.Fields(r.theirs), func(m string) bool {
		return imported == m || strings.HasPrefix(imported, m+"/")
	})
}

// reach returns how the daemon, or one of its rooms, comes by anything of what
// it must not hold.
func reach(pkgs []pkg, daemon, rooms string, never []string) (faults []string) {
	byDir := map[string]pkg{}
	for _, p := range pkgs {
		byDir[p.dir] = p
	}
	todo := []string{daemon}
	for room := range strings.FieldsSeq(rooms) {
		todo = append(todo, "internal/"+room)
	}
	seen := map[string]bool{}
	for _, dir := range todo {
		seen[dir] = true
	}
	for ; len(todo) > 0; todo = todo[1:] {
		for _, i := range byDir[todo[0]].imports {
			if slices.ContainsFunc(never, func(n string) bool { return strings.HasPrefix(i, n) }) {
				faults = append(faults, fmt.Sprintf("%s holds %s, by way of %s", daemon, strings.TrimPrefix(i, module), todo[0]))
			}
			if dir, ours := strings.CutPrefix(i, module); ours && !seen[dir] {
				seen[dir] = true
				todo = append(todo, dir)
			}
		}
	}
	return faults
}

// read returns the packages under root, whatever their build constraints.
func read(t *testing.T, root string) []pkg {
	t.Helper()
	byDir := map[string]*pkg{}
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		name := d.Name()
		switch {
		case err != nil:
			return err
		case d.IsDir() && file != root && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata" || name == "node_modules"):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, text, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		p := byDir[dir]
		if p == nil {
			p = &pkg{dir: filepath.ToSlash(dir)}
			byDir[dir] = p
		}
		p.lines += bytes.Count(text, []byte("\n"))
		if !slices.Contains(p.names, f.Name.Name) {
			p.names = append(p.names, f.Name.Name)
		}
		for _, i := range f.Imports {
			imported, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			if !slices.Contains(p.imports, imported) {
				p.imports = append(p.imports, imported)
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if s, ok := call.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "AssumeRoleWithWebIdentity" {
					p.mints = true
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var pkgs []pkg
	for _, dir := range slices.Sorted(maps.Keys(byDir)) {
		pkgs = append(pkgs, *byDir[dir])
	}
	return pkgs
}

// TestFloors holds go.mod to what the published advisories ask for: an older
// toolchain refuses to build it, and no module falls back behind a fix.
func TestFloors(t *testing.T) { // S-18 S-19 S-21
	text, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if name, number, ok := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, "require ")), " "); ok {
			at[name], _, _ = strings.Cut(number, " ")
		}
	}
	for name, floor := range map[string]string{
		"go":                            "1.26.6",
		"github.com/go-jose/go-jose/v4": "v4.1.4",
		"github.com/jackc/pgx/v5":       "v5.9.2",
		"golang.org/x/oauth2":           "v0.27.0",
	} {
		// All of these are plain numbers, and Go's own are compared as those of modules are.
		plain := func(v string) string { return "go" + strings.TrimPrefix(v, "v") }
		if !version.IsValid(plain(at[name])) || version.Compare(plain(at[name]), plain(floor)) < 0 {
			t.Errorf("go.mod has %s %q, want %s or newer", name, at[name], floor)
		}
	}
	if at["toolchain"] != "" {
		t.Errorf("go.mod names toolchain %s; the line go alone says what builds it", at["toolchain"])
	}
}

// TestTable holds the table to itself: what it speaks of is in it, and the
// sentences of the architecture follow from it.
func TestTable(t *testing.T) {
	for dir, r := range table {
		for room := range strings.FieldsSeq(r.ours) {
			_, internal := table["internal/"+room]
			if _, atRoot := table[room]; !internal && !atRoot {
				t.Errorf("%s may import %s, which is not in the table", dir, room)
			}
			faked := strings.Contains(fakes, strings.TrimPrefix(dir, "internal/")+" ")
			if strings.Contains(fakes, room+" ") && dir != "cmd/serval-demo" && !faked {
				t.Errorf("%s may import the fake %s outside of tests", dir, room)
			}
		}
	}
	for room := range strings.FieldsSeq(bridgeRooms) {
		if table["internal/workerd"].allows("internal/workerd", module+"internal/"+room) {
			t.Errorf("the worker may have the bridge's %s", room)
		}
		for _, never := range []string{"k8s.io/client-go/rest", "k8s.io/api/core/v1"} {
			if table["internal/"+room].allows("internal/"+room, never) {
				t.Errorf("the bridge's %s may import %s", room, never)
			}
		}
	}
	for room := range strings.FieldsSeq(workerRooms) {
		if table["internal/bridge"].allows("internal/bridge", module+"internal/"+room) {
			t.Errorf("the bridge may have the worker's %s", room)
		}
	}
}

// TestCheck breaks each rule once.
func TestCheck(t *testing.T) {
	in := func(dir string, imports ...string) pkg { return pkg{dir: dir, imports: imports} }
	for _, c := range []struct {
		name string
		pkgs []pkg
		want []string
	}{
		{"what is allowed", []pkg{
			in("internal/serval", "strings", "net/netip"), in("internal/wire", "io", module+"internal/serval"),
			in("internal/lease", "k8s.io/client-go/tools/leaderelection"), in("cmd/serval-demo", module+"internal/awstest", module+"internal/worker"),
			in("cmd/serval-bridge", module+"internal/bridge", module+"cmd/serval-bridge/part"), in("internal/bridge", module+"api"), in("terraform"),
			{dir: "internal/awssts", mints: true}, {dir: "internal/login", lines: maxLines},
		}, nil},
		{"a room of ours", []pkg{in("internal/wire", module+"internal/store")}, []string{"internal/wire imports internal/store, which the table does not give it"}},
		{"a command", []pkg{in("internal/bridge", module+"cmd/serval")}, []string{"internal/bridge imports cmd/serval, which the table does not give it"}},
		{"a module", []pkg{in("internal/serval", "go.uber.org/zap")}, []string{"internal/serval imports go.uber.org/zap, which the table does not give it"}},
		{"a module that begins like an allowed one", []pkg{in("internal/worker", "go.uber.org/zapper")}, []string{"internal/worker imports go.uber.org/zapper, which the table does not give it"}},
		{"C", []pkg{in("internal/serval", "C", "unsafe")}, []string{
			"internal/serval imports C, which the table does not give it", "internal/serval imports unsafe, which the table does not give it"}},
		{"a fake outside of tests", []pkg{in("internal/awsiam", module+"internal/awstest")}, []string{"internal/awsiam imports internal/awstest, which the table does not give it"}},
		{"an unknown room", []pkg{in("internal/cellar")}, []string{"internal/cellar is not in the table of who may import whom"}},
		{"an unknown directory", []pkg{in("tools", "fmt")}, []string{"tools is not in the table of who may import whom"}},
		{"a package without a purpose", []pkg{{dir: "internal/wire", names: []string{"types"}}}, []string{
			"internal/wire is named types: name it for a noun, or for the far side it speaks to"}},
		{"a directory without a purpose", []pkg{in("internal/cellar/util")}, []string{
			"internal/cellar/util is named util: name it for a noun, or for the far side it speaks to", "internal/cellar/util is not in the table of who may import whom"}},
		{"a room too large", []pkg{{dir: "internal/login", lines: maxLines + 1}}, []string{"internal/login has 4001 lines, at most 4000: it is more than one room"}},
		{"a worker that mints", []pkg{{dir: "internal/awsiam", mints: true}}, []string{"internal/awsiam calls AssumeRoleWithWebIdentity: only internal/awssts opens sessions"}},
		{"a bridge with an IAM client", []pkg{
			in("cmd/serval-bridge", module+"internal/bridge"), in("internal/bridge", module+"internal/awssts"),
			in("internal/awssts", "github.com/aws/aws-sdk-go-v2/service/iam/types"),
		}, []string{"cmd/serval-bridge holds github.com/aws/aws-sdk-go-v2/service/iam/types, by way of internal/awssts"}},
		{"a bridge's room, not wired yet, with client-go behind it", []pkg{
			in("internal/tokenreview", module+"internal/serval"), in("internal/serval", "k8s.io/client-go/rest"),
		}, []string{"internal/serval imports k8s.io/client-go/rest, which the table does not give it",
			"cmd/serval-bridge holds k8s.io/client-go/rest, by way of internal/serval"}},
		{"a worker with the bridge's room", []pkg{
			in("cmd/serval-worker", module+"internal/workerd"), in("internal/workerd", module+"internal/awssts"),
		}, []string{"internal/workerd imports internal/awssts, which the table does not give it", "cmd/serval-worker holds internal/awssts, by way of internal/workerd"}},
	} {
		if diff := cmp.Diff(c.want, check(c.pkgs)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// TestRead reads a small tree.
func TestRead(t *testing.T) {
	root := t.TempDir()
	for file, text := range map[string]string{
		"cmd/a/main.go":           "package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println() }\n",
		"cmd/a/other.go":          "//go:build plan9\n\npackage main\n\nimport (\n\t\"fmt\"\n\tx \"example.com/x\"\n)\n\nfunc f() { x.New().AssumeRoleWithWebIdentity(fmt.Sprint()) }\n",
		"cmd/a/main_test.go":      "package main\n\nimport \"testing\"\n",
		"cmd/a/testdata/x.go":     "package no\n",
		".hidden/x.go":            "package no\n",
		"only/tests/some_test.go": "package tests\n",
	} {
		file = filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	got := read(t, root)
	want := []pkg{{dir: "cmd/a", names: []string{"main"}, imports: []string{"fmt", "example.com/x"}, mints: true, lines: 15}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(pkg{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
