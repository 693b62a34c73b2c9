package store

import (
	"context"
	"database/sql"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/database"
	"github.com/serval-bridge/serval-bridge/internal/pgtest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/sqlitetest"
)

// S-19: the text of every statement is a constant. Values are arguments.
func TestQueriesAreConstants(t *testing.T) {
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	beneath, err := filepath.Glob("../database/*.go")
	if err != nil || len(beneath) == 0 {
		t.Fatalf("%d files of the room beneath, %v", len(beneath), err)
	}
	names = append(names, beneath...)
	files := make(map[string]*ast.File)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = file
	}
	constants := make(map[string]bool)
	for _, file := range files {
		for _, decl := range file.Decls {
			if d, ok := decl.(*ast.GenDecl); ok && d.Tok == token.CONST {
				for _, spec := range d.Specs {
					for _, name := range spec.(*ast.ValueSpec).Names {
						constants[name.Name] = true
					}
				}
			}
		}
	}
	var isConstant func(e ast.Expr) bool
	isConstant = func(e ast.Expr) bool {
		switch e := e.(type) {
		case *ast.BasicLit:
			return e.Kind == token.STRING
		case *ast.Ident:
			return constants[e.Name]
		case *ast.BinaryExpr:
			return e.Op == token.ADD && isConstant(e.X) && isConstant(e.Y)
		case *ast.ParenExpr:
			return isConstant(e.X)
		default:
			return false
		}
	}
	// Which argument is the text. The helpers have it as a parameter named
	// query, which only they may hand on.
	text := map[string]int{
		"QueryContext": 1, "QueryRowContext": 1, "ExecContext": 1, "PrepareContext": 1, "Exec": 1, "Query": 0, "QueryRow": 0, "Prepare": 0,
		"exec": 1, "execCount": 1, "later": 1, "Later": 2, "Sooner": 2, "Behind": 0, "query": 1, "ahead": 0, "Ahead": 0, "scan": 0, "one": 3, "all": 2, "list": 0, "alone": 1, "fill": 1,
	}
	helpers := map[string]bool{"alone": true, "fill": true, "statement": true, "QueryContext": true, "QueryRowContext": true, "ExecContext": true, "Later": true, "Sooner": true, "Behind": true, "later": true, "query": true, "exec": true, "execCount": true, "scan": true, "one": true, "all": true, "list": true}
	checked := 0
	for name, file := range files {
		ast.PreorderStack(file, nil, func(n ast.Node, stack []ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			var callee string
			switch f := call.Fun.(type) {
			case *ast.Ident:
				callee = f.Name
			case *ast.SelectorExpr:
				callee = f.Sel.Name
			}
			at, ok := text[callee]
			if !ok || len(call.Args) <= at {
				return true
			}
			if at == len(call.Args)-1 && call.Ellipsis.IsValid() {
				return true // what a statement is run with: it has its text
			}
			// The helpers one and all call a function named scan, with a row.
			if f, ok := call.Fun.(*ast.Ident); ok && f.Name == "scan" {
				return true
			}
			checked++
			if id, ok := call.Args[at].(*ast.Ident); ok && id.Name == "query" {
				within := false
				for i, outer := range stack {
					switch f := outer.(type) {
					case *ast.FuncDecl:
						within = within || helpers[f.Name.Name]
					case *ast.FuncLit:
						if assign, ok := stack[i-1].(*ast.AssignStmt); ok {
							within = within || assign.Lhs[0].(*ast.Ident).Name == "list"
						}
					}
				}
				if within {
					return true
				}
			}
			if !isConstant(call.Args[at]) {
				t.Errorf("%s: the statement that %s runs is not a constant", name, callee)
			}
			return true
		})
	}
	if checked < 60 {
		t.Errorf("only %d statements were found to check", checked)
	}
}

// A recorder notes the statements that are run.
type recorder struct {
	querier
	statements []statement
}

type statement struct {
	text string
	args []any
}

func (r *recorder) QueryContext(ctx context.Context, query string, args ...any) (database.Rows, error) {
	r.statements = append(r.statements, statement{query, args})
	return r.querier.QueryContext(ctx, query, args...)
}

func (r *recorder) QueryRowContext(ctx context.Context, query string, args ...any) database.Row {
	r.statements = append(r.statements, statement{query, args})
	return r.querier.QueryRowContext(ctx, query, args...)
}

func (r *recorder) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	r.statements = append(r.statements, statement{query, args})
	return r.querier.ExecContext(ctx, query, args...)
}

// What is looked up often, or in a table that only grows, is found by an index:
// all that opening a session reads is. R-52
func TestLookupsUseAnIndex(t *testing.T) {
	each(t, func(t *testing.T, d place) {
		declare(t, d, prod)
		push(t, d, prod, noon, serval.Inventory{Complete: true, Roles: named(prod, "a", "b")})
		newRequest(t, d, "r1")
		events := func(f EventFilter) func(v *View) error {
			return func(v *View) error { _, _, err := v.Events(f); return err }
		}
		for name, lookup := range map[string]func(v *View) error{
			"login by token":       func(v *View) error { _, err := v.LoginByToken("t"); return err },
			"login":                func(v *View) error { _, err := v.Login("l", "p"); return err },
			"logins of a person":   func(v *View) error { _, err := v.Logins("p", noon); return err },
			"person":               func(v *View) error { _, err := v.Person("p"); return err },
			"person by subject":    func(v *View) error { _, err := v.PersonBySubject("i", "s"); return err },
			"people by email":      func(v *View) error { _, err := v.PeopleByEmail("e"); return err },
			"request":              func(v *View) error { _, err := v.Request("r1"); return err },
			"newest requests":      func(v *View) error { _, err := v.Requests(RequestFilter{Limit: 2}); return err },
			"requests of a person": func(v *View) error { _, err := v.Requests(RequestFilter{PersonID: "p", Limit: 2}); return err },
			"requests in a status": func(v *View) error { _, err := v.Requests(RequestFilter{Status: "denied", Limit: 2}); return err },
			"requests for a role":  func(v *View) error { _, err := v.Requests(RequestFilter{RoleID: "r", Limit: 2}); return err },
			"requests that wait":   func(v *View) error { _, err := v.Requests(RequestFilter{Awaiting: true, Limit: 2}); return err },
			"requests by email":    func(v *View) error { _, err := v.Requests(RequestFilter{Email: "e", Limit: 2}); return err },
			"running requests":     func(v *View) error { _, err := v.Requests(RequestFilter{Running: true, Limit: 2}); return err },
			"notices of a request": func(v *View) error { _, err := v.NoticesOf("r1"); return err },
			"notice":               func(v *View) error { _, err := v.Notice("n"); return err },
			"failed notices": func(v *View) error {
				_, err := v.Notices(NoticeFilter{State: serval.NoticeFailed, Limit: 2})
				return err
			},
			"due notices":          func(v *View) error { _, err := v.HasDueNotices("mail", noon); return err },
			"notices by channel":   func(v *View) error { _, err := v.NoticeQueues(noon); return err },
			"idempotency key":      func(v *View) error { _, err := v.Repeat("p", "k"); return err },
			"idempotency keys":     func(v *View) error { _, err := v.CountRepeats("p"); return err },
			"newest people":        func(v *View) error { _, err := v.People(PersonFilter{Limit: 2}); return err },
			"people with an email": func(v *View) error { _, err := v.People(PersonFilter{Email: "e", Limit: 2}); return err },
			"suspended people":     func(v *View) error { _, err := v.People(PersonFilter{Suspended: true, Limit: 2}); return err },
			"open requests":        func(v *View) error { _, err := v.OpenRequests("p"); return err },
			"requests of a role":   func(v *View) error { _, err := v.RequestsOfRole(admin); return err },
			"what waits":           func(v *View) error { _, _, err := v.Awaiting(); return err },
			"due requests":         func(v *View) error { _, err := v.DueRequests(noon, 2); return err },
			"role by key":          func(v *View) error { _, err := v.RoleByKey(named(prod, "a")[0].Key()); return err },
			"role of a request":    func(v *View) error { _, err := v.RoleOf(&serval.Request{ID: "r1"}); return err },
			"role by ARN":          func(v *View) error { _, err := v.RoleByARN("arn"); return err },
			"known roles":          func(v *View) error { _, err := v.KnownRoles(prod); return err },
			"known states":         func(v *View) error { return v.KnownStates(prod, func(KnownState) error { return nil }) },
			"staged roles":         func(v *View) error { _, err := v.StagedRoles("p"); return err },
			"session":              func(v *View) error { _, err := v.Session("s"); return err },
			"newest sessions":      func(v *View) error { _, err := v.Sessions(SessionFilter{Limit: 2}); return err },
			"sessions of a person": func(v *View) error { _, err := v.Sessions(SessionFilter{PersonID: "p", Limit: 2}); return err },
			"sessions of a request": func(v *View) error {
				_, err := v.Sessions(SessionFilter{RequestID: "r", Limit: 2})
				return err
			},
			"live sessions":         func(v *View) error { _, err := v.LiveSessions("r", noon, 2); return err },
			"newest session":        func(v *View) error { _, _, err := v.NewestSession("r", serval.ForConsole); return err },
			"recent sessions":       func(v *View) error { _, err := v.CountSessions("p", noon); return err },
			"approved version":      func(v *View) error { _, err := v.ApprovedVersion("r1"); return err },
			"version of a role":     func(v *View) error { _, err := v.RoleVersion(named(prod, "a")[0].Key(), 1); return err },
			"last row":              func(v *View) error { _, err := v.ChainHead(); return err },
			"console links":         func(v *View) error { _, err := v.CountConsoleLinks("p", noon); return err },
			"open intents":          func(v *View) error { _, err := v.OpenIntents(noon, 2); return err },
			"newest events":         events(EventFilter{}),
			"events of a target":    events(EventFilter{Target: "t"}),
			"events of a person":    events(EventFilter{ActorID: "a"}),
			"events of a name":      events(EventFilter{Actor: "a"}),
			"events of an action":   events(EventFilter{Action: "a"}),
			"events of an outcome":  events(EventFilter{Outcome: "a"}),
			"events of a time":      events(EventFilter{From: noon, To: noon.Add(time.Hour)}),
			"events in two regards": events(EventFilter{Action: "a", Outcome: "b"}),
			"versions given up":     func(v *View) error { _, err := v.versionsGivenUp(); return err },
			"oldest idle document":  func(v *View) error { _, err := v.oldestIdle(); return err },
			"idle documents":        func(v *View) error { _, err := v.longIdle(noon); return err },
			"events up to a row":    func(v *View) error { _, err := v.EventsAfter(1, 3, 2); return err },
			"events from a row on": func(v *View) error {
				return v.EachEvent(7, func(serval.Link) error { return nil })
			},
		} {
			tx, err := d.db.BeginWrite(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer tx.Rollback()
			if !d.isSQLite() {
				// The tables are too small to be worth an index otherwise.
				if _, err := tx.ExecContext(t.Context(), `set local enable_seqscan = off`); err != nil {
					t.Fatal(err)
				}
			}
			r := &recorder{querier: tx}
			if err := lookup(&View{ctx: t.Context(), q: r, chain: chain}); err != nil && !serval.IsRefusal(err, serval.NotFound) {
				t.Fatalf("%s: %v", name, err)
			}
			if len(r.statements) == 0 {
				t.Errorf("%s: no statement was run", name)
			}
			for _, s := range r.statements {
				plan := explain(t, d, tx, s)
				if strings.Contains(plan, "Seq Scan") || scans(plan) {
					t.Errorf("%s: %s\nis answered without an index:\n%s", name, s.text, plan)
				}
			}
			tx.Rollback()
		}
	})
}

// Notices that wait for a receiver are many when it is away, and then nobody's
// request may go through all of them.
func TestWaitingNoticesAreInNobodysWay(t *testing.T) {
	d := opened(t, sqlitetest.URLOf(t, migrate))
	tx, err := d.db.BeginWrite(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	r := &recorder{querier: tx}
	all := &Tx{View: View{ctx: t.Context(), q: r, chain: chain}, Now: noon}
	for name, c := range map[string]struct {
		do    func() error
		found string
	}{
		"due":            {func() error { _, err := all.HasDueNotices("mail", noon); return err }, "notice_due (channel=? AND next_at<?)"},
		"claimed":        {func() error { _, err := all.ClaimNotices("mail", noon, 8); return err }, "notice_due (channel=? AND next_at<?)"},
		"of a request":   {func() error { _, err := all.NoticesOf("r1"); return err }, "notice_by_request (request_id=?)"},
		"end, forgotten": {func() error { return all.DropEnding("r1") }, "notice_by_request (request_id=? AND state=?)"},
	} {
		r.statements = nil
		if err := c.do(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, s := range r.statements {
			if plan := explain(t, d, tx, s); !strings.Contains(plan, c.found) {
				t.Errorf("%s: %s\nis answered by\n%swant by %s", name, s.text, plan, c.found)
			}
		}
		if len(r.statements) == 0 {
			t.Errorf("%s: no statement was run", name)
		}
	}
}

func explain(t *testing.T, d place, tx *database.Tx, s statement) string {
	t.Helper()
	prefix := `explain `
	if d.isSQLite() {
		prefix = `explain query plan `
	}
	rows, err := tx.QueryContext(t.Context(), prefix+s.text, s.args...)
	if err != nil {
		t.Fatalf("explaining %s: %v", s.text, err)
	}
	defer rows.Close()
	var plan strings.Builder
	for rows.Next() {
		var id, parent, unused any
		var line string
		dest := []any{&line}
		if d.isSQLite() {
			dest = []any{&id, &parent, &unused, &line}
		}
		if err := rows.Scan(dest...); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&plan, line)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return plan.String()
}

// scans reports whether SQLite's plan reads a whole table. To read all of an
// index in its order, or all waiting allocations, is as it should be.
func scans(plan string) bool {
	for line := range strings.Lines(plan) {
		if strings.HasPrefix(line, "SCAN ") && !strings.Contains(line, "USING") {
			return true
		}
	}
	return false
}

// Housekeeping takes no chain: under PostgreSQL it waits for no act.
func TestHousekeepingTakesNoChain(t *testing.T) {
	d := opened(t, pgtest.URLOf(t, migrate))
	declare(t, d, prod)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	d.act(t, noon, func(tx *Tx) error {
		for name, f := range map[string]func() error{
			"TouchLogin":     func() error { return d.TouchLogin(ctx, "l", noon) },
			"WipeTokens":     func() error { return d.WipeTokens(ctx, noon, noon) },
			"Stage":          func() error { return d.Stage(ctx, "push", prod, noon, staged(named(prod, "a"))) },
			"DropOldStaged":  func() error { return d.DropOldStaged(ctx, noon) },
			"DropStaged":     func() error { return d.DropStaged(ctx, "push") },
			"GiveUpVersions": func() error { return d.GiveUpVersions(ctx, prod, noon, noon) },
			"KeepUnkept":     func() error { return d.KeepUnkept(ctx, prod) },
		} {
			if err := f(); err != nil {
				t.Errorf("%s while somebody acts: %v", name, err)
			}
		}
		return nil
	})
}
