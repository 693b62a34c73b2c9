package bridge

import (
	"context"
	"fmt"
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
	s, err := store.Open(t.Context(), store.Config{
		URL: serval.NewSecret("sqlite://" + filepath.Join(t.TempDir(), "serval.db")), Chain: serval.NewChain(c.Secret),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	d := door.New(s, c.Log)
	plane := control.New(d, signin.New(d, signin.Settings{Secret: c.Secret}), nil, control.Settings{File: path})
	if err := c.declare(t.Context(), plane, file); err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	return &desk{newInForce(&c, plane, registry), t, d, logs, registry}
}

// write changes the file, and looks as often as it takes for it to count.
func (d *desk) write(text string) {
	d.t.Helper()
	if err := os.WriteFile(d.config.FilePath, []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
	d.look(d.t.Context())
	d.look(d.t.Context())
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

// A running bridge looks by itself, and says what it found where it is asked.
func TestRunLooksAtItsFile(t *testing.T) {
	c := config(t)
	c.FilePath = filepath.Join(t.TempDir(), "serval.yaml")
	if err := os.WriteFile(c.FilePath, []byte("team: test\n"), 0o600); err != nil {
		t.Fatal(err)
	}
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
	if err := os.WriteFile(c.FilePath, []byte("team: another\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wait("the team cannot be changed")
	if err := os.WriteFile(c.FilePath, []byte("team: test\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wait(`"name":"configuration","ok":true}`)
}
