package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/door"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/signin"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// A desk is a configuration file that is looked at by hand.
type desk struct {
	*inForce
	t     *testing.T
	door  *door.Door
	logs  *observer.ObservedLogs
	metas *prometheus.Registry
}

// newDesk puts text into force, as at a start.
func newDesk(t *testing.T, text string) *desk {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{
		URL: serval.NewSecret("sqlite://" + filepath.Join(t.TempDir(), "serval.db")), Chain: serval.NewChain(good().Secret),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	d := newReplica(t, s, text)
	if err := d.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d
}

// newReplica has text to put into force.
func newReplica(t *testing.T, s *store.Store, text string) *desk {
	t.Helper()
	core, logs := observer.New(zapcore.InfoLevel)
	path := filepath.Join(t.TempDir(), "serval.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	file, faults := ReadFile(path)
	if len(faults) > 0 {
		t.Fatalf("faults: %v", faults)
	}
	c := good()
	c.Log, c.File, c.FilePath = zap.New(core), file, path
	d := door.New(s, c.Log)
	plane := control.New(d, signin.New(d, signin.Settings{Secret: c.Secret}), nil, control.Settings{File: path})
	registry := prometheus.NewRegistry()
	return &desk{newInForce(&c, plane, registry), t, d, logs, registry}
}

// write changes the file, and looks as often as it takes for it to count.
func (d *desk) write(text string) {
	d.t.Helper()
	replace(d.t, d.config.FilePath, []byte(text))
	d.look(d.t.Context())
	d.look(d.t.Context())
}

// replace puts a whole text in a file's place: whoever reads it meanwhile finds the
// one before or the new one, and never an empty file that is about to be written.
func replace(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path+".new", text, 0o600), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

// told returns the events of actions that begin so, oldest first.
func (d *desk) told(prefix string) (lines []string) {
	d.t.Helper()
	err := d.door.Store.Read(d.t.Context(), func(v *store.View) error {
		return v.EachEvent(0, func(l serval.Link) error {
			if strings.HasPrefix(string(l.Action), prefix) {
				lines = append(lines, string(l.Action)+" "+string(l.Outcome))
			}
			return nil
		})
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return lines
}

// values returns our metrics.
func (d *desk) values() map[string]float64 {
	d.t.Helper()
	families, err := d.metas.Gather()
	if err != nil {
		d.t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			values[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return values
}

// names returns the connected accounts and the access policies in force.
func (d *desk) names() (accounts, policies []string) {
	d.t.Helper()
	adm := serval.Principal{Kind: serval.KindPerson, Admin: true, Person: serval.Person{ID: "person_1", Email: "adm@example.com"}}
	connected, _, err := d.plane.Accounts(d.t.Context(), adm, control.AccountFilter{})
	if err != nil {
		d.t.Fatal(err)
	}
	for _, a := range connected {
		accounts = append(accounts, a.Name)
	}
	known, _, err := d.plane.Policies(d.t.Context(), adm, control.PolicyFilter{Limit: 100})
	if err != nil {
		d.t.Fatal(err)
	}
	for _, p := range known {
		policies = append(policies, p.Name)
	}
	return accounts, policies
}

// configured is a file with one account, one policy, one token and one network.
func configured(account, policy, token, network string) string {
	return fmt.Sprintf(`team: acme
accounts: [{id: "111122223333", name: %s, role_arn: "arn:aws:iam::111122223333:role/x"}]
access_policies:
  - {name: %s, roles: {arns: ["*"]}, eligible: {groups: [g]}, approval: {automatic: true}, max_minutes: 60}
upstream_tokens: [{name: hub, accounts: ["111122223333"], secret_file: %s}]
networks: [{name: %s, cidrs: ["203.0.113.0/24"]}]
`, account, policy, token, network)
}

// A changed file is in force without a restart, all of it.
func TestReload(t *testing.T) {
	token, other := tokenFile(t, 40), tokenFile(t, 50)
	d := newDesk(t, configured("one", "p1", token, "office"))
	d.write(configured("two", "p2", other, "home"))
	accounts, policies := d.names()
	if len(accounts) != 1 || accounts[0] != "two" || len(policies) != 1 || policies[0] != "p2" {
		t.Errorf("in force: accounts %v, policies %v", accounts, policies)
	}
	if n := d.networks(); len(n) != 1 || n[0] != "home" {
		t.Errorf("networks %v, want home", n)
	}
	want, err := readToken(other)
	if err != nil {
		t.Fatal(err)
	}
	if tokens := d.upstreamTokens(); len(tokens) != 1 || !tokens[0].Secret().Equal(want) {
		t.Error("the token is not the file's")
	}
	// S-108: a token's file is read at each look, whatever the configuration says.
	if err := os.WriteFile(other, []byte(strings.Repeat("n", 40)), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := d.upstreamTokens()[0].Secret().Reveal(); got != strings.Repeat("n", 40) {
		t.Error("a token that was rotated does not count")
	}
	if diff := cmp.Diff([]string{"config.appoint done", "config.appoint done", "config.reload done"}, d.told("config.")); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if v := d.values(); v["serval_config_reloads_total done"] != 1 || v["serval_config_reloads_total failed"] != 0 || v["serval_config_in_force"] != 1 {
		t.Errorf("metrics %v", v)
	}
	if said, err := d.report(t.Context()); said != "" || err != nil {
		t.Errorf("readyz says %q, %v", said, err)
	}
}

// S-109: a file that cannot be used is told once, with every fault and its line,
// and the last good one stays in force, until the file is right again.
func TestReloadOfAFaultyFile(t *testing.T) {
	token := tokenFile(t, 40)
	right := configured("one", "p1", token, "office")
	d := newDesk(t, right)
	wrong := strings.Replace(strings.Replace(right, "max_minutes: 60", "max_minutes: 0", 1), "203.0.113.0/24", "x", 1)
	for _, test := range []struct{ name, text, fault string }{
		{"faults", wrong, "line 4: access_policies[0].max_minutes"},
		{"another team", strings.Replace(right, "team: acme", "team: other", 1), "team: the team cannot be changed while the bridge runs"},
		{"no YAML", "team: [", "not YAML"},
	} {
		t.Run(test.name, func(t *testing.T) {
			failed, events := d.values()["serval_config_reloads_total failed"], len(d.told("config.reload"))
			d.logs.TakeAll()
			for range 3 {
				d.write(test.text)
			}
			logged := d.logs.FilterLevelExact(zapcore.ErrorLevel).All()
			if len(logged) != 1 || !strings.Contains(fmt.Sprint(logged[0].ContextMap()), test.fault) {
				t.Errorf("logged %v, want the faults once", logged)
			}
			if v := d.values(); v["serval_config_reloads_total failed"] != failed+1 || v["serval_config_in_force"] != 0 {
				t.Errorf("metrics %v", v)
			}
			if got := d.told("config.reload"); len(got) != events+1 || got[events] != "config.reload failed" {
				t.Errorf("events %v, want one more that failed", got)
			}
			if said, err := d.report(t.Context()); !strings.Contains(said, test.fault) || err != nil {
				t.Errorf("readyz says %q, %v; want the first fault, and no failure", said, err)
			}
			if accounts, policies := d.names(); len(accounts) != 1 || accounts[0] != "one" || len(policies) != 1 || d.networks()[0] != "office" {
				t.Errorf("the last good one is not in force: %v %v %v", accounts, policies, d.networks())
			}
		})
	}
	if err := os.Remove(d.config.FilePath); err != nil {
		t.Fatal(err)
	}
	d.look(t.Context())
	d.look(t.Context())
	if said, _ := d.report(t.Context()); !strings.Contains(said, "cannot be read") {
		t.Errorf("without a file readyz says %q", said)
	}
	d.write(right)
	if said, _ := d.report(t.Context()); said != "" || d.values()["serval_config_in_force"] != 1 {
		t.Errorf("put back, readyz says %q", said)
	}
	// What it needs from elsewhere comes right without a change of its own.
	gone := filepath.Join(t.TempDir(), "token")
	d.write(configured("three", "p1", gone, "office"))
	if said, _ := d.report(t.Context()); !strings.Contains(said, "the token's file cannot be read") {
		t.Errorf("without the token's file readyz says %q", said)
	}
	if err := os.WriteFile(gone, []byte(strings.Repeat("t", 40)), 0o600); err != nil {
		t.Fatal(err)
	}
	d.look(t.Context())
	if accounts, _ := d.names(); accounts[0] != "three" {
		t.Errorf("with the token's file: %v", accounts)
	}
}

// Half a file that somebody is writing disconnects nothing: a text counts when
// it is the same twice.
func TestReloadOfHalfAFile(t *testing.T) {
	right := configured("one", "p1", tokenFile(t, 40), "office")
	d := newDesk(t, right)
	for _, text := range []string{"team: acme\n", "team: acme\naccounts: []\n", right} {
		if err := os.WriteFile(d.config.FilePath, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		d.look(t.Context())
		if accounts, _ := d.names(); len(accounts) != 1 {
			t.Fatalf("after %q was seen once there are %d accounts", text, len(accounts))
		}
	}
	d.write("team: acme\n")
	if accounts, policies := d.names(); len(accounts) != 0 || len(policies) != 0 {
		t.Errorf("a whole file without accounts: %v %v", accounts, policies)
	}
}

// Two replicas, of which one is started with a file from before: it waits for the
// newer one, tells once why, and nothing of what it read is in force meanwhile.
func TestAnOlderFile(t *testing.T) {
	token := tokenFile(t, 40)
	revision := func(n int, account, policy string) string {
		return fmt.Sprintf("revision: %d\n", n) + configured(account, policy, token, "office")
	}
	newer := newDesk(t, revision(11, "newer", "p2"))
	late := newReplica(t, newer.door.Store, revision(9, "older", "p1"))
	late.config.lookEvery = time.Millisecond
	began := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { began <- late.begin(ctx) }()
	await := func(what string, f func() bool) {
		t.Helper()
		for until := time.Now().Add(20 * time.Second); !f(); time.Sleep(time.Millisecond) {
			if time.Now().After(until) {
				t.Fatal(what)
			}
		}
	}
	refused := func(why string) func() bool {
		return func() bool {
			_, err := late.report(t.Context())
			return err != nil && strings.Contains(err.Error(), why)
		}
	}
	inForce := func(account, policy string) {
		t.Helper()
		if a, p := newer.names(); len(a) != 1 || a[0] != account || len(p) != 1 || p[0] != policy {
			t.Errorf("in force: %v, %v; want %s and %s", a, p, account, policy)
		}
	}
	const why = "file is of revision 9, and one of revision 11 is in force"
	await("readyz does not say why the replica waits", refused(why))
	inForce("newer", "p2")
	if len(late.upstreamTokens()) > 0 || len(late.networks()) > 0 {
		t.Error("the older file lets workers in")
	}
	if v := late.values(); v["serval_config_in_force"] != 0 {
		t.Errorf("metrics %v", v)
	}
	// Half of the newer file is none.
	replace(t, late.config.FilePath, []byte("revision: 10\nteam: acme\n"))
	await("readyz does not say that another older file is there", refused("file is of revision 10"))
	inForce("newer", "p2")
	replace(t, late.config.FilePath, []byte(revision(11, "newer", "p2")))
	if err := <-began; err != nil {
		t.Fatal(err)
	}
	if said, err := late.report(t.Context()); said != "" || err != nil || late.values()["serval_config_in_force"] != 1 || len(late.networks()) != 1 {
		t.Errorf("with the newer file readyz says %q, %v", said, err)
	}
	inForce("newer", "p2")
	if logged := late.logs.FilterLevelExact(zapcore.ErrorLevel).All(); len(logged) != 2 || !strings.Contains(fmt.Sprint(logged[0].ContextMap()), why) {
		t.Errorf("logged %v, want each older file once", logged)
	}
	if diff := cmp.Diff([]string{"config.reload failed", "config.reload failed", "config.reload done"}, newer.told("config.reload")); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}

	// One that serves keeps what it has.
	newer.write(revision(10, "older", "p1"))
	if said, err := newer.report(t.Context()); err != nil || !strings.Contains(said, "one of revision 11 is in force") {
		t.Errorf("of an older file a replica that serves says %q, %v", said, err)
	}
	inForce("newer", "p2")
	newer.write(revision(12, "newest", "p3"))
	inForce("newest", "p3")

	// Who is told to stop meanwhile stops.
	stopped := newReplica(t, newer.door.Store, revision(9, "older", "p1"))
	cancel()
	if err := stopped.begin(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("told to stop: %v", err)
	}
}

// A ConfigMap changes by a link in its folder, not by the file.
func TestReloadThroughALink(t *testing.T) {
	token := tokenFile(t, 40)
	d := newDesk(t, configured("one", "p1", token, "office"))
	dir := t.TempDir()
	for i, name := range []string{"one", "two"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, name, "serval.yaml")
		if err := os.WriteFile(file, []byte(configured(name, "p1", token, "office")), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Unix(1_700_000_000, 0) // the same for both: times do not count
		if err := os.Chtimes(file, at, at); err != nil {
			t.Fatal(err)
		}
		link := filepath.Join(dir, fmt.Sprint("..data", i))
		if err := os.Symlink(name, link); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link, filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
		d.config.FilePath = filepath.Join(dir, "..data", "serval.yaml")
		d.look(t.Context())
		d.look(t.Context())
		if accounts, _ := d.names(); accounts[0] != name {
			t.Errorf("the link leads to %s, in force is %v", name, accounts)
		}
	}
}

// A bridge that is started with an older file is live and not ready, says why, and
// serves nobody; it ends in order.
func TestRunWithAnOlderFile(t *testing.T) {
	c := config(t)
	c.FilePath = filepath.Join(t.TempDir(), "serval.yaml")
	give := func(revision int) {
		t.Helper()
		replace(t, c.FilePath, fmt.Appendf(nil, "team: test\nrevision: %d\n", revision))
		var faults []Fault
		if c.File, faults = ReadFile(c.FilePath); len(faults) > 0 {
			t.Fatal(faults)
		}
	}
	c.lookEvery = 5 * time.Millisecond
	give(2)
	if err := start(t, c).stop(); err != nil {
		t.Fatal(err)
	}
	give(1)
	begun := begin(t, c)
	probe := func(path string) (int, string) {
		r, err := http.Get("http://" + begun.admin + path)
		if err != nil {
			return 0, ""
		}
		defer r.Body.Close()
		text, _ := io.ReadAll(r.Body)
		return r.StatusCode, string(text)
	}
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		status, said := probe("/readyz")
		if status == http.StatusServiceUnavailable && strings.Contains(said, "one of revision 2 is in force") {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("readyz says %d %s", status, said)
		}
	}
	if status, _ := probe("/livez"); status != http.StatusOK {
		t.Errorf("livez says %d", status)
	}
	if err := begun.stop(); err != nil {
		t.Errorf("told to stop: %v", err)
	}
}

// A running bridge looks by itself, and says what it found where it is asked.
func TestRunLooksAtItsFile(t *testing.T) {
	c := config(t)
	c.FilePath = filepath.Join(t.TempDir(), "serval.yaml")
	replace(t, c.FilePath, []byte("team: test\n"))
	c.lookEvery = 5 * time.Millisecond
	b := start(t, c)
	wait := func(what string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		for ctx.Err() == nil {
			if status, body := get(t, b.admin+"/readyz"); status == http.StatusOK && strings.Contains(body, what) {
				return
			}
		}
		t.Fatalf("readyz does not say %q", what)
	}
	replace(t, c.FilePath, []byte("team: another\n"))
	wait("the team cannot be changed")
	replace(t, c.FilePath, []byte("team: test\n"))
	wait(`"name":"configuration","ok":true}`)
}
