package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/idptest"
	"github.com/serval-bridge/serval-bridge/internal/pgtest"
	"github.com/serval-bridge/serval-bridge/internal/porttest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

var measure = flag.Bool("bridge", false, "measure what the bridge costs (make bench-bridge)")

// A served is a server in a process of its own, so that what it costs is told
// from what its client costs.
type served struct {
	t   testing.TB
	cmd *exec.Cmd
	url string
}

// serveApart runs a server in a process with one processor, until the test ends.
// The command's address is free for the moment.
func serveApart(t testing.TB, address string, cmd *exec.Cmd) *served {
	t.Helper()
	cmd.Env = append(cmd.Env, "GOMAXPROCS=1")
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &served{t: t, cmd: cmd, url: "http://" + address}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait() // how it ends is another test's
		log.Close()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("%.4000s", text)
		}
	})
	return s
}

// wait returns how long it took from now until the server answers.
func (s *served) wait() time.Duration {
	s.t.Helper()
	return s.waitFor(s.url + "/")
}

// waitFor is wait for another address of it.
func (s *served) waitFor(url string) time.Duration {
	s.t.Helper()
	began := time.Now()
	for time.Since(began) < time.Minute {
		if res, err := http.Get(url); err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return time.Since(began)
			}
		}
		time.Sleep(time.Millisecond)
	}
	s.t.Fatal("the server does not answer")
	return 0
}

// cpu returns the time that the process has used, and rss its memory in bytes.
func (s *served) cpu() time.Duration {
	s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+2:]))
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	if err := errors.Join(err1, err2); err != nil {
		s.t.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
}

func (s *served) rss() int { return s.memory("VmRSS") }

// memory returns a line of the kernel's account of the process's memory, in bytes.
func (s *served) memory(line string) int {
	s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), line+":")
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		s.t.Fatal(err)
	}
	return kb << 10
}

// per returns what one request costs the server, over n of them on 8 connections
// that are kept.
func (s *served) per(n int, request func(i int) *http.Request, want int) time.Duration {
	s.t.Helper()
	client := &http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: 8, MaxConnsPerHost: 8},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer client.CloseIdleConnections()
	run := func(n int) {
		var next atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for {
					i := int(next.Add(1))
					if i > n {
						return
					}
					res, err := client.Do(request(i))
					if err != nil {
						s.t.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, res.Body)
					res.Body.Close()
					if res.StatusCode != want {
						s.t.Errorf("answered %d, want %d", res.StatusCode, want)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	run(n / 10) // warm
	before := s.cpu()
	run(n)
	return (s.cpu() - before) / time.Duration(n)
}

// serveBare is the least that net/http can do. It is run in a process of its own.
func serveBare(address string) {
	server := &http.Server{Addr: address, ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok")
	})}
	fmt.Fprintln(os.Stderr, server.ListenAndServe())
	os.Exit(1)
}

// TestBridgeCosts measures what the bridge costs beside a bare net/http handler,
// in one run: a ratio is much the same on every machine.
func TestBridgeCosts(t *testing.T) {
	if !*measure {
		t.Skip("make bench-bridge measures")
	}
	const roles = 20
	w := newBench(t, roles, "")
	bare := porttest.Own(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SERVAL_BENCH_BARE="+bare)
	b := serveApart(t, bare, cmd)
	b.wait()
	get := func(s *served, path string) *http.Request {
		r, err := http.NewRequest(http.MethodGet, s.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	median := func(n int, f func() time.Duration) time.Duration {
		var all []time.Duration
		for range n {
			all = append(all, f())
		}
		slices.Sort(all)
		return all[n/2]
	}
	ok := median(3, func() time.Duration {
		return b.per(30_000, func(int) *http.Request { return get(b, "/") }, 200)
	})
	tell := func(name string, cost time.Duration) {
		t.Helper()
		t.Logf("%-46s %8s %8.1f", name, cost, float64(cost)/float64(ok))
	}
	costs := func(w *bench, over string) {
		read := median(3, func() time.Duration {
			return w.per(10_000, func(int) *http.Request {
				r := get(w.served, "/api/v1/roles")
				r.Header.Set("Cookie", w.cookie)
				return r
			}, 200)
		})
		var from atomic.Int64
		begin := median(3, func() time.Duration {
			return w.per(3_000, func(int) *http.Request {
				r := get(w.served, "/oidc/auth/login?return_to=/roles")
				i := from.Add(1)
				r.Header.Set("X-Forwarded-For", fmt.Sprintf("10.%d.%d.%d", i>>16&255, i>>8&255, i&255))
				return r
			}, 303)
		})
		tell(fmt.Sprintf("authenticated read of %d roles, %s", roles, over), read)
		tell("sign-in start, "+over, begin)
	}
	t.Logf("%-46s %8s %8s", "CPU per request", "", "ratio")
	tell("bare net/http handler", ok)
	costs(w, "SQLite")
	t.Logf("%-46s %8s", "start to first answer, database migrated", w.started)
	t.Logf("%-46s %5.1f MiB, %.1f of it its own", "idle", float64(w.idle)/(1<<20), float64(w.own)/(1<<20))
	t.Logf("%-46s %5.1f MiB", "idle, with traces", float64(w.traced)/(1<<20))
	t.Logf("%-46s %5.1f MiB", "after load", float64(w.rss())/(1<<20))
	if runtime.NumCPU() < 2 {
		t.Log("with one processor the client's work is in the figures' noise")
	}
	t.Run("PostgreSQL", func(t *testing.T) { costs(newBench(t, roles, pgtest.URL(t)), "PostgreSQL") })
}

// A bench is a bridge with everything that it needs, and somebody signed in.
type bench struct {
	*served
	cookie  string
	started time.Duration // to the first answer, of a bridge whose database is there; median
	idle    int           // bytes, resident
	own     int           // of them its own; the rest is pages of its file
	traced  int           // resident, with traces switched on
	idp     *idptest.Provider
	capped  *memoryCap // nil: it has all memory there is
}

// newBench returns one over the database of the URL, or over SQLite where it is
// empty.
func newBench(t testing.TB, roles int, database string) *bench {
	t.Helper()
	if _, err := os.Stat("/proc/self/status"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("what a process costs is read in /proc, which is not there: %v", err)
		}
		t.Skip("what a process costs is read in /proc, which only Linux has")
	}
	dir := t.TempDir()
	database = cmp.Or(database, "sqlite://"+filepath.Join(dir, "serval.db"))
	program := filepath.Join(dir, "serval-bridge")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the bridge: %v: %s", err, out)
	}
	address, admin := porttest.Own(t), porttest.Own(t)
	idp := idptest.New(idptest.Options{
		ClientID: "client", ClientSecret: "s", RedirectURIs: []string{"http://" + address + "/oidc/auth/callback"},
		People: []idptest.Person{{Subject: "00u1ana", Name: "Ana", Email: "ana@example.com", EmailVerified: true, Groups: []string{"engineering"}}},
	})
	issuer := idp.Start(t)
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	token := strings.Repeat("0123456789abcdef", 4)
	file := write("config.yaml", fmt.Sprintf(`team: acme
accounts:
  - {id: "111122223333", name: prod, role_arn: "arn:aws:iam::111122223333:role/serval-ingestion"}
access_policies:
  - {name: all, roles: {arns: ["*"]}, eligible: {groups: [engineering]}, approval: {automatic: true}, max_minutes: 60}
upstream_tokens:
  - {name: hub, accounts: ["111122223333"], secret_file: %s}
`, write("token", token)))
	b := &bench{idp: idp}
	if *capMiB > 0 {
		b.capped = newMemoryCap(t, *capMiB<<20)
	}
	command := func() *exec.Cmd {
		cmd := exec.Command(program, "serve")
		if b.capped != nil {
			b.capped.hold(cmd)
		}
		cmd.Env = []string{
			fmt.Sprintf("GOMEMLIMIT=%d", cmp.Or((*capMiB<<20)/10*9, math.MaxInt64)), // as the chart has it
			"PATH=" + os.Getenv("PATH"), "SERVAL_LISTEN=" + address, "SERVAL_ADMIN_LISTEN=" + admin, "SERVAL_PUBLIC_URL=http://" + address,
			"SERVAL_OIDC_ISSUER=" + issuer, "SERVAL_OIDC_CLIENT_ID=client", "SERVAL_OIDC_CLIENT_SECRET=s",
			"SERVAL_SECRET=8f14e45fceea167a5a36dedd4bea2543", "SERVAL_EXTERNAL_ID_SECRET=c9f0f895fb98ab9159f51fd0297e236d",
			"SERVAL_DATABASE_URL=" + database, "SERVAL_CONFIG=" + file,
			"SERVAL_TRUSTED_PROXIES=127.0.0.0/8", "SERVAL_DRAIN_DELAY=0s",
		}
		return cmd
	}
	var took []time.Duration
	rest := func() { time.Sleep(2 * time.Second) } // whatever it does at its start, it has done
	for i := range 6 {                             // the first makes the database
		b.served = serveApart(t, address, command())
		d := b.wait()
		if i == 0 {
			b.stock(token, issuer, roles)
		} else {
			took = append(took, d)
		}
		if i == 0 {
			_ = b.cmd.Process.Signal(os.Interrupt)
			_ = b.cmd.Wait()
			traced := command()
			traced.Env = append(traced.Env, "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1") // nobody takes them
			b.served = serveApart(t, address, traced)
			b.wait()
			rest()
			b.traced = b.rss()
		}
		if i < 5 {
			_ = b.cmd.Process.Signal(os.Interrupt)
			_ = b.cmd.Wait() // for the next to have its address
		}
	}
	slices.Sort(took)
	b.started = took[len(took)/2]
	rest()
	b.idle, b.own = b.rss(), b.memory("RssAnon")

	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Get(b.url + "/oidc/auth/login")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	back, err := idp.SignIn(res.Header.Get("Location"), "ana@example.com")
	if err != nil {
		t.Fatal(err)
	}
	res, err = client.Get(back.String())
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	for _, c := range res.Cookies() {
		if c.Name == "__Host-serval" {
			b.cookie = c.Name + "=" + c.Value
		}
	}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, b.url+"/api/v1/roles", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Cookie", b.cookie)
	if res, err = client.Do(req); err != nil {
		t.Fatal(err)
	}
	var list wire.Roles
	if err := json.NewDecoder(res.Body).Decode(&list); err != nil || len(list.Roles) != roles || list.Roles[0].Trust.Verdict != "works" {
		t.Fatalf("%d roles, %v; want %d that work", len(list.Roles), err, roles)
	}
	res.Body.Close()
	return b
}

// stock has a worker push the roles.
func (b *bench) stock(token, issuer string, roles int) {
	b.t.Helper()
	at := strings.TrimPrefix(issuer, "http://")
	now := time.Now().UTC()
	var list []serval.Role
	for i := range roles {
		name := fmt.Sprintf("dev-%03d", i)
		list = append(list, serval.Role{
			ARN: "arn:aws:iam::111122223333:role/" + name, RoleID: fmt.Sprintf("AROABENCHBENCHBEN%03d", i), Name: name, Path: "/",
			Description: "For the team that " + name + " belongs to", CreatedAt: now.AddDate(-1, 0, 0), MaxSessionSeconds: 3600,
			Tags: map[string]string{"serval": "", "team": "payments", "env": "dev"},
			TrustPolicy: serval.Document(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Federated":"arn:aws:iam::111122223333:oidc-provider/` + at +
				`"},"Action":"sts:AssumeRoleWithWebIdentity","Condition":{"StringEquals":{"` + at + `:aud":"client"}}}]}`),
			InlinePolicies:  serval.InlinePolicies{Status: serval.ListRead},
			ManagedPolicies: serval.ManagedPolicies{Status: serval.ListRead},
		})
	}
	b.push(token, list...)
}

// push has a worker push these roles and no others.
func (b *bench) push(token string, roles ...serval.Role) {
	b.t.Helper()
	send := func(method, path string, body []byte, into any) {
		b.t.Helper()
		r, err := http.NewRequest(method, b.url+"/api/v1/upstream/accounts/111122223333/"+path, bytes.NewReader(body))
		if err != nil {
			b.t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			b.t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			b.t.Fatalf("%s %s answered %d: %s, %v", method, path, res.StatusCode, text, err)
		}
		if into != nil {
			if err := json.Unmarshal(text, into); err != nil {
				b.t.Fatal(err)
			}
		}
	}
	var opened wire.Sync
	send("POST", "syncs", []byte(`{"worker":"bench"}`), &opened)
	now := time.Now().UTC()
	inv := serval.Inventory{AccountID: "111122223333", AccountName: "prod", Generation: opened.Generation, Complete: true, ReadBy: serval.ByRoles,
		StartedAt: now.Add(-time.Minute), FinishedAt: now, Roles: roles}
	inv.Normalize()
	var body bytes.Buffer
	if err := wire.WriteInventory(&body, inv); err != nil {
		b.t.Fatal(err)
	}
	send("PUT", "inventory", body.Bytes(), nil)
}
