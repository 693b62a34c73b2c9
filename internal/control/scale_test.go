package control

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/pgtest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/storetest"
)

var (
	scale         = flag.String("control", "", "measure what acts and reads cost at scale: all, or pushes alone; see docs/performance.md")
	scaleAccounts = flag.Int("accounts", 500, "how many accounts there are, from 50 on")
)

// What is measured.
const (
	scaleRoles  = 40 // of each account
	scalePeople = 2000
	scaleTeams  = 50
	scaleEvents = 2000 // for each account
	scalePush   = 5000
)

// TestScale prints what make bench-control measures. It fails where something is not
// done, never because it was slow.
func TestScale(t *testing.T) {
	if *scale == "" {
		t.Skip("only with -control: it takes some minutes")
	}
	t.Run("sqlite", func(t *testing.T) {
		url := "sqlite://" + filepath.Join(t.TempDir(), "serval.db") // on a disk
		must(t, storetest.Migrate(url))
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
		newBigWorld(t, url).measure()
	})
	t.Run("postgres", func(t *testing.T) { newBigWorld(t, pgtest.URLOf(t, storetest.Migrate)).measure() })
}

// A bigWorld is a world of many accounts, roles, people and events.
type bigWorld struct {
	*world
	people []serval.Principal
	open   func(int) error // a session; see opener
}

func newBigWorld(t *testing.T, url string) *bigWorld {
	t.Helper()
	e := &bigWorld{world: worldOver(t, url)}
	var all []serval.Account
	for i := range *scaleAccounts {
		a := serval.Account{ID: fmt.Sprintf("%012d", 100_000_000_000+i), Name: fmt.Sprintf("account-%03d", i), Partition: "aws", ExternalID: "x1"}
		a.RoleARN = "arn:aws:iam::" + a.ID + ":role/serval-ingestion"
		all = append(all, a)
	}
	var policies []serval.AccessPolicy
	for i := range scaleTeams {
		group := serval.People{Groups: []string{fmt.Sprintf("team-%02d", i)}}
		policies = append(policies,
			serval.AccessPolicy{Name: fmt.Sprintf("team-%02d-read", i), Roles: serval.RoleMatch{ARNs: []string{fmt.Sprintf("arn:aws:iam::*:role/team-%02d-reader-*", i)}},
				Eligible: group, Approval: serval.Approval{Automatic: true}, MaxMinutes: 480},
			serval.AccessPolicy{Name: fmt.Sprintf("team-%02d-admin", i), Roles: serval.RoleMatch{ARNs: []string{fmt.Sprintf("arn:aws:iam::*:role/team-%02d-*", i)}},
				Eligible: group, Approval: serval.Approval{Steps: []serval.People{group}}, MaxMinutes: 480})
	}
	must(t, e.plane.Declare(t.Context(), serval.System(), 0, append(all, accounts()...), policies))
	for i, a := range all {
		var roles []serval.Role
		for j := range scaleRoles {
			name := fmt.Sprintf("team-%02d-reader-%d", (i+j)%scaleTeams, j)
			if j%2 == 1 {
				name = fmt.Sprintf("team-%02d-admin-%d", (i+j)%scaleTeams, j)
			}
			roles = append(roles, scaleRole(a.ID, name, ""))
		}
		e.push(a.ID, roles...)
	}
	e.fillLog()
	must(t, e.store.Write(t.Context(), e.clock.now(), func(tx *store.Tx) error {
		e.people = nil
		for i := range scalePeople {
			p := serval.Person{
				ID: fmt.Sprintf("person_%04d", i), Issuer: issuer, Subject: fmt.Sprintf("00u%04d", i), Email: fmt.Sprintf("person%04d@example.com", i),
				Groups: []string{"everybody", fmt.Sprintf("team-%02d", i%scaleTeams)}, GroupsAt: tx.Now,
			}
			e.people = append(e.people, serval.Principal{Kind: serval.KindPerson, Person: p})
			if err := tx.SavePerson(p); err != nil {
				return err
			}
		}
		return nil
	}))
	return e
}

// scaleRole is a role such as they are: a trust policy of its own, an inline policy
// and a managed one.
func scaleRole(account, name, mark string) serval.Role {
	return aRole(account, name, func(r *serval.Role) {
		r.RoleID = fmt.Sprintf("AROA%s%s", account, strings.ToUpper(strings.ReplaceAll(name, "-", "")))
		r.Description = "What the team of this role works with" + mark
		r.Tags = map[string]string{"serval": "", "team": name[:min(7, len(name))], "stage": "prod"}
		trusting(closed)(r)
		r.TrustPolicy = serval.Document(strings.Replace(string(r.TrustPolicy), `"Version"`, `"Id":"`+name+`","Version"`, 1))
		r.InlinePolicies.Policies = []serval.InlinePolicy{{Name: "own", Document: serval.Document(`{"Version":"2012-10-17","Statement":[{"Sid":"` + strings.ReplaceAll(name, "-", "") +
			`","Effect":"Allow","Action":["s3:GetObject","s3:ListBucket","dynamodb:Query"],"Resource":"*"}]}`)}}
		r.ManagedPolicies.Policies = []serval.ManagedPolicy{{ARN: "arn:aws:iam::aws:policy/ReadOnlyAccess", Name: "ReadOnlyAccess", Version: "v1",
			Document: serval.Document(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ec2:Describe*","Resource":"*"}]}`)}}
	})
}

// fillLog puts rows into the audit log as somebody would who has the database: they
// are no chain, and nothing here verifies one.
func (e *bigWorld) fillLog() {
	e.t.Helper()
	head := e.head()
	e.exec(fmt.Sprintf(`insert into event (seq, at, actor_kind, actor_id, actor, action, target, outcome, reason, request_id, address, detail, key_id, hash)
		with recursive n (i) as (select %d union all select i + 1 from n where i < %d)
		select i, %d + cast(i as bigint) * 100000, 'person', 'person_' || (i %% 2000), 'person' || (i %% 2000) || '@example.com',
			case i %% 10 when 0 then 'session.open' when 1 then 'session.issue' when 2 then 'request.create' else 'role.read' end, 'req_' || (i / 7),
			case when i %% 1000 = 0 then 'failed' when i %% 10 = 0 then 'started' else 'done' end, '', 'r', '203.0.113.7', '{}', 'k', 'h' from n`,
		head+1, *scaleAccounts*scaleEvents, noon.UnixMicro()))
	e.exec(fmt.Sprintf(`update chain set seq = %d`, *scaleAccounts*scaleEvents))
	e.clock.move(28 * time.Hour)
	if strings.HasPrefix(e.url, "postgres") {
		e.exec(`analyze`)
	}
}

// settle has PostgreSQL clear up and look at what there is: of those that tests have
// none does it by itself. Without it each opening counts its person's sessions through the whole
// table, which PostgreSQL has last seen empty.
func (e *bigWorld) settle() {
	e.t.Helper()
	if strings.HasPrefix(e.url, "postgres") {
		e.exec(`vacuum analyze`)
	}
}

// exec runs a statement past the store.
func (e *bigWorld) exec(statement string) {
	e.t.Helper()
	db, err := sql.Open("pgx", e.url)
	if path, ok := strings.CutPrefix(e.url, "sqlite://"); ok {
		db, err = sql.Open("sqlite", path)
	}
	must(e.t, err)
	defer db.Close()
	if _, err := db.ExecContext(e.t.Context(), statement); err != nil {
		e.t.Fatal(err)
	}
}

// A turn is what something took: on the wall's clock, and of the processor in this
// process, which others on the machine do not lengthen.
type turn struct{ wall, cpu time.Duration }

// measured returns what f took.
func measured(f func()) turn {
	used := func() time.Duration {
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	cpu, began := used(), time.Now()
	f()
	return turn{time.Since(began), used() - cpu}
}

// took prints the percentiles of some turns.
func (e *bigWorld) took(what string, turns []turn) {
	percentile := func(of func(turn) time.Duration, percent int) float64 {
		all := make([]time.Duration, len(turns))
		for i, one := range turns {
			all[i] = of(one)
		}
		slices.Sort(all)
		return float64(all[(len(all)-1)*percent/100]) / float64(time.Millisecond)
	}
	wall, cpu := func(t turn) time.Duration { return t.wall }, func(t turn) time.Duration { return t.cpu }
	e.t.Logf("%-42s p50 %8.2f ms  p99 %8.2f ms  at most %8.2f ms  of the processor %8.2f and %8.2f ms  (%d)", what,
		percentile(wall, 50), percentile(wall, 99), percentile(wall, 100), percentile(cpu, 50), percentile(cpu, 99), len(turns))
}

// time measures n turns.
func (e *bigWorld) time(what string, n int, f func(i int) error) {
	e.t.Helper()
	var all []turn
	for i := range n {
		all = append(all, measured(func() {
			if err := f(i); err != nil {
				e.t.Fatalf("%s: %v", what, err)
			}
		}))
		e.clock.move(100 * time.Millisecond)
	}
	e.took(what, all)
}

func (e *bigWorld) measure() {
	e.t.Logf("the database is filled: %d accounts, %d people, %d rows of the audit log", *scaleAccounts, scalePeople, *scaleAccounts*scaleEvents)
	if *scale != "pushes" {
		e.reads()
		e.acts()
		e.audit()
	}
	e.pushes()
}

// who returns one of the people.
func (e *bigWorld) who(i int) serval.Principal { return e.people[i%len(e.people)] }

func (e *bigWorld) reads() {
	ctx := e.t.Context()
	e.time("the first look at every role", 1, func(int) error {
		_, _, err := e.plane.Roles(ctx, e.who(0), RoleFilter{Text: "no such role", Limit: 100})
		return err
	})
	list := func(f RoleFilter) func(int) error {
		return func(i int) error {
			f.Limit = 100
			_, _, err := e.plane.Roles(ctx, e.who(i), f)
			return err
		}
	}
	e.time("roles, the first page", 500, list(RoleFilter{}))
	e.time("roles with a text", 500, list(RoleFilter{Text: "account-49"}))
	e.time("roles with a text that none has", 500, list(RoleFilter{Text: "no such role"}))
	e.time("roles with a tag", 500, list(RoleFilter{Tag: "stage=prod"}))
	aud := e.auditor()
	e.time("findings, the first page", 50, func(int) error {
		_, _, err := e.plane.Findings(ctx, aud, FindingFilter{Limit: 100})
		return err
	})
	e.time("a page of the access report", 20, func(int) error {
		_, _, err := e.plane.AccessReport(ctx, aud, ReportFilter{From: noon.Add(-time.Hour), To: noon.Add(24 * time.Hour), Limit: 100})
		return err
	})
}

func (e *bigWorld) auditor() serval.Principal {
	return serval.Principal{Kind: serval.KindPerson, Person: e.who(0).Person, Auditor: true}
}

// scaleARN returns a role that who(i) is eligible for.
func scaleARN(i int, kind string) string {
	team := i % scaleTeams
	j := 0
	if kind == "admin" {
		j = 1
	}
	account := (team - j + scaleTeams) % scaleTeams
	return fmt.Sprintf("arn:aws:iam::%012d:role/team-%02d-%s-%d", 100_000_000_000+account, team, kind, j)
}

const acts = 300

func (e *bigWorld) acts() {
	ctx := e.t.Context()
	made := make([]string, acts)
	ask := func(kind string) func(int) error {
		return func(i int) error {
			r, err := e.plane.Request(ctx, e.who(i), Ask{RoleARNs: []string{scaleARN(i, kind)}, Ask: serval.Ask{Minutes: 60, Justification: "to see what it costs"}})
			if err == nil {
				made[i] = r[0].ID
			}
			return err
		}
	}
	e.time("request", acts, ask("admin"))
	e.time("decide", acts, func(i int) error {
		by := e.who(i + scaleTeams) // of the same team
		by.Person.GroupsAt = e.clock.now()
		_, err := e.decide(by, made[i], true)
		return err
	})
	e.time("open a session, without STS", acts, e.opener())
}

// scaleOpeners is how many people open sessions in turn. Nobody opens more than 60 in
// a minute; and the clock, which is moved for that, must not be moved by a minute while
// a push waits for its turn.
const scaleOpeners = 20

// opener returns what opens a session each time.
func (e *bigWorld) opener() func(int) error {
	e.t.Helper()
	if e.open != nil {
		return e.open
	}
	openers, requests := make([]serval.Principal, scaleOpeners), make([]string, scaleOpeners)
	for i := range openers {
		id := e.identity(fmt.Sprintf("opener%d@example.com", i), "team-00")
		id.ExpiresAt = e.clock.now().Add(24 * time.Hour)
		opener, _, err := e.signInAs(e.plane, id)
		must(e.t, err)
		openers[i], requests[i] = opener, e.ask(opener, scaleARN(0, "reader"), 480).ID
	}
	next := 0
	e.open = func(int) error {
		next = (next + 1) % scaleOpeners
		e.clock.move(1100 * time.Millisecond / scaleOpeners)
		_, err := e.plane.Open(e.t.Context(), openers[next], opening(requests[next]))
		return err
	}
	return e.open
}

func (e *bigWorld) audit() {
	ctx, aud := e.t.Context(), e.auditor()
	for _, f := range []struct {
		what string
		AuditFilter
	}{
		{"the newest", AuditFilter{}}, {"a target", AuditFilter{Target: "req_777"}}, {"an actor", AuditFilter{Actor: "person77@example.com"}},
		{"an action", AuditFilter{Action: serval.SessionIssue}}, {"an outcome", AuditFilter{Outcome: serval.OutcomeFailed}},
		{"a time", AuditFilter{From: noon.Add(5 * time.Hour), To: noon.Add(10 * time.Hour)}},
		{"an action and an outcome", AuditFilter{Action: serval.SessionOpen, Outcome: serval.OutcomeFailed}},
		{"two that never come together", AuditFilter{Action: serval.RoleRead, Outcome: serval.OutcomeStarted}},
		{"far behind", AuditFilter{Before: 1000, Action: serval.SessionIssue}},
	} {
		f.Limit = 100
		e.time("audit log: "+f.what, 50, func(int) error { _, _, _, err := e.plane.Events(ctx, aud, f.AuditFilter); return err })
	}
}

// pushes pushes one large account: all of it new, then nothing changed, then all;
// and then all so that each role can do more, of which there is to be told.
func (e *bigWorld) pushes() {
	account := prod
	actions := []string{"dynamodb:Query", "sqs:SendMessage", "sns:Publish", "kms:Decrypt", "lambda:InvokeFunction"}
	large := func(mark string, grown int) func(int) serval.Role {
		return func(i int) serval.Role {
			r := scaleRole(account, fmt.Sprintf("big-%04d", i), mark)
			own := &r.InlinePolicies.Policies[0].Document
			*own = serval.Document(strings.Replace(string(*own), actions[0], strings.Join(actions[:1+grown], `","`), 1))
			return r
		}
	}
	e.pushText(account, large("", 0))
	grown := 0
	changed := func(i int) func(int) serval.Role { return large(fmt.Sprint(" ", i), grown) }
	more := func(int) func(int) serval.Role { grown++; return large("", grown) }
	same := func(int) func(int) serval.Role { return large("", grown) }
	open := e.opener()
	e.time("open a session, the first times", acts, open)
	for _, kind := range []struct {
		what  string
		n     int
		roles func(i int) func(int) serval.Role
	}{{"all described anew", 3, changed}, {"all able to do more", 2, more}, {"none changed", 10, same}} {
		var alone []turn
		e.settle()
		for i := range kind.n {
			roles := kind.roles(i)
			alone = append(alone, measured(func() { e.pushText(account, roles) }))
			e.clock.move(time.Second)
		}
		e.took("push of 5,000 roles, "+kind.what, alone)
		e.took("open a session, nothing else going on", e.during(open, func(context.Context) { time.Sleep(4 * time.Second) }))
		e.took("open a session, during such pushes", e.during(open, func(context.Context) {
			for i := range kind.n {
				e.pushText(account, kind.roles(kind.n+i))
			}
		}))
	}
}

// pushText pushes an account's roles, each made when it is taken, as the bridge decodes
// one after the other, with a digest as cheap as that of a text.
func (e *bigWorld) pushText(account string, role func(int) serval.Role) {
	opened, err := e.intake.OpenSync(e.t.Context(), hub(), account, "pod-1", serval.SyncFull)
	if err != nil {
		e.t.Error(err)
		return
	}
	_, err = e.intake.Push(e.t.Context(), hub(), account, func(take func(serval.Role) error) (serval.Inventory, string, error) {
		for i := range scalePush {
			if err := take(role(i)); err != nil {
				return serval.Inventory{}, "", err
			}
		}
		return inventory(account, opened.Generation, e.clock.now()), fmt.Sprint("digest ", opened.Generation), nil
	})
	if err != nil {
		e.t.Error(err)
	}
}

// during measures f for as long as what goes on beside.
func (e *bigWorld) during(f func(int) error, beside func(context.Context)) (all []turn) {
	e.t.Helper()
	var wg sync.WaitGroup
	done := make(chan struct{})
	e.settle()
	wg.Go(func() { defer close(done); beside(e.t.Context()) })
	for {
		select {
		case <-done:
			wg.Wait()
			return all
		default:
			all = append(all, measured(func() {
				if err := f(0); err != nil {
					e.t.Fatal(err)
				}
			}))
		}
	}
}
