package kubetest

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/serval-bridge/serval-bridge/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// S-108: a Secret is changed, the file in the pod changes, and the same pod takes
// it up: the root secret, the client secret, an upstream token at both ends, and
// the database's user and password.
func testRotation(t *testing.T, i *installation) {
	at := database(t)
	bridge, worker := i.values["bridge"].(map[string]any), i.values["worker"].(map[string]any)
	token := rand.Text()
	putToken := func() {
		i.put("upstream-token", map[string]string{"token": base64.StdEncoding.EncodeToString([]byte(token))})
	}
	putToken()
	config := i.values["config"].(map[string]any)
	config["upstream_tokens"] = []any{map[string]any{"name": "hub", "accounts": []string{first}, "secret_file": "/etc/serval/hub/token"}}
	bridge["extraVolumes"] = []any{map[string]any{"name": "hub", "secret": map[string]string{"secretName": "upstream-token"}}}
	bridge["extraVolumeMounts"] = []any{map[string]any{"name": "hub", "mountPath": "/etc/serval/hub", "readOnly": true}}
	worker["upstream"] = map[string]any{"tokenSecretName": "upstream-token"}
	i.must("upgrade", "--wait", "--timeout", "90s")

	// rotated waits until the bridge says that it uses what has changed, and holds
	// it to being the pods that were there.
	rotated := func(setting string, change func()) {
		t.Helper()
		before := append(i.pods("bridge"), i.pods("worker")...)
		said := fmt.Sprintf(`"setting":%q`, setting)
		count := func() int {
			n := 0
			for line := range strings.Lines(i.node.Log(namespace + "/serval-bridge-")) {
				if strings.Contains(line, `"msg":"a secret has changed and is in use"`) && strings.Contains(line, said) {
					n++
				}
			}
			return n
		}
		was := count()
		change()
		i.node.Until(setting+" taken up", settled, func() bool { return count() > was })
		if after := append(i.pods("bridge"), i.pods("worker")...); strings.Join(before, " ") != strings.Join(after, " ") {
			t.Errorf("for %s the pods were %v and are %v", setting, before, after)
		}
		for line := range strings.Lines(i.node.Log(namespace + "/serval-bridge-")) {
			if strings.Contains(line, said) {
				t.Logf("%s", strings.TrimSpace(line))
			}
		}
	}
	rotated("SERVAL_SECRET", func() {
		i.secret["SERVAL_SECRET"] = rand.Text() + rand.Text() + "," + i.secret["SERVAL_SECRET"]
		i.putSecret()
	})
	rotated("SERVAL_OIDC_CLIENT_SECRET", func() {
		i.secret["SERVAL_OIDC_CLIENT_SECRET"] = rand.Text()
		i.idp.RotateClient(i.secret["SERVAL_OIDC_CLIENT_SECRET"])
		i.putSecret()
	})

	// The token of the worker is read at each use, at both ends.
	answers := func(token string) (status int) {
		for _, p := range i.node.pods {
			if !strings.HasPrefix(p.spec.Metadata.Name, "serval-bridge-") || !p.runs() {
				continue
			}
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+net.JoinHostPort(p.address, "8080")+"/api/v1/upstream/accounts", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+token)
			if answer, err := http.DefaultClient.Do(r); err == nil {
				answer.Body.Close()
				status = answer.StatusCode
			}
		}
		return status
	}
	old := token
	i.node.Until("let in by the token", settled, func() bool { return answers(old) == http.StatusOK })
	token = rand.Text()
	putToken()
	i.node.Until("let in by the new token", settled, func() bool { return answers(token) == http.StatusOK })
	if got := answers(old); got != http.StatusUnauthorized {
		t.Errorf("the token from before is answered %d, want 401", got)
	}

	// PostgreSQL in SQLite's place, and another user there.
	bridge["database"] = map[string]any{"type": "postgresql"}
	i.secret["SERVAL_DATABASE_URL"] = at("serval_one")
	i.putSecret()
	i.must("upgrade", "--wait", "--timeout", "90s")
	rotated("SERVAL_DATABASE_URL", func() {
		i.secret["SERVAL_DATABASE_URL"] = at("serval_two")
		i.putSecret()
	})
	if green, log := i.test(); !green {
		t.Errorf("helm test is not green after all of it:\n%s", log)
	}

	delete(bridge, "database")
	delete(bridge, "extraVolumes")
	delete(bridge, "extraVolumeMounts")
	delete(worker, "upstream")
	delete(config, "upstream_tokens")
	delete(i.secret, "SERVAL_DATABASE_URL")
	i.putSecret()
	i.must("upgrade", "--wait", "--timeout", "90s")
}

// database returns the address of a database of PostgreSQL for each of two users,
// as pods reach it: by TCP.
func database(t *testing.T) (at func(user string) string) {
	t.Helper()
	u, err := url.Parse(pgtest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), u.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	for _, user := range []string{"serval_one", "serval_two"} {
		if _, err := conn.Exec(t.Context(), "create role "+user+" login superuser"); err != nil {
			t.Fatal(err)
		}
	}
	socket := u.Query().Get("host") + "/.s.PGSQL.5432"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("unix", socket)
			if err != nil {
				from.Close()
				continue
			}
			go func() { _, _ = io.Copy(to, from); to.Close() }() // either side may hang up
			go func() { _, _ = io.Copy(from, to); from.Close() }()
		}
	}()
	return func(user string) string {
		return (&url.URL{Scheme: "postgres", User: url.UserPassword(user, "x"), Host: l.Addr().String(), Path: u.Path, RawQuery: "sslmode=disable"}).String()
	}
}
