package database

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/serval-bridge/serval-bridge/internal/pgtest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// as returns an address for another user.
func as(t *testing.T, text, user, password string) serval.Secret {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	query := u.Query()
	query.Del("user")
	u.User, u.RawQuery = url.UserPassword(user, password), query.Encode()
	return serval.NewSecret(u.String())
}

// S-108: users of PostgreSQL take turns while the database is in use. Nobody
// notices, and the first can be locked out at once.
func TestRotate(t *testing.T) {
	at := pgtest.URL(t)
	owner, err := pgx.Connect(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close(t.Context())
	run := func(format string, args ...any) {
		t.Helper()
		if _, err := owner.Exec(t.Context(), fmt.Sprintf(format, args...)); err != nil {
			t.Fatal(err)
		}
	}
	roles := []string{"turn_one", "turn_two"}
	for _, role := range roles {
		run(`create role %s login`, role)
		defer run(`drop role %s`, role)
	}
	d := opened(t, as(t, at, roles[0], "a").Reveal())
	who := func() (user string) {
		t.Helper()
		if err := d.QueryRowContext(t.Context(), `select current_user`).Scan(&user); err != nil {
			t.Fatal(err)
		}
		return user
	}

	// Somebody is always in the middle of something.
	stop := make(chan struct{})
	var busy sync.WaitGroup
	for range 4 {
		busy.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				tx, err := d.BeginWrite(t.Context())
				if err != nil {
					t.Errorf("beginning: %v", err)
					return
				}
				var one, two string
				err = tx.QueryRowContext(t.Context(), `select current_user`).Scan(&one)
				if err == nil {
					err = tx.QueryRowContext(t.Context(), `select current_user from pg_sleep(0.002)`).Scan(&two)
				}
				if err == nil {
					err = tx.Commit()
				}
				if err != nil || one != two {
					t.Errorf("%s and %s within a transaction, %v", one, two, err)
				}
				tx.Rollback()
			}
		})
	}
	held, err := d.BeginRead(t.Context()) // and somebody takes long
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Rotate(t.Context(), as(t, at, roles[1], "b")); err != nil {
		t.Fatal(err)
	}
	run(`alter role %s nologin`, roles[0])
	for range 50 {
		if got := who(); got != roles[1] {
			t.Fatalf("%s asks after the rotation, want %s", got, roles[1])
		}
	}
	var user string
	if err := held.QueryRowContext(t.Context(), `select current_user`).Scan(&user); err != nil || user != roles[0] {
		t.Errorf("what was under way is done as %s, %v; want %s", user, err, roles[0])
	}
	held.Rollback()
	close(stop)
	busy.Wait()

	// Another password alone is a rotation too: what was made by the old one is given up.
	pid := func() (n int) {
		t.Helper()
		if err := d.QueryRowContext(t.Context(), `select pg_backend_pid()`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	d.read.SetMaxIdleConns(1)
	first := pid()
	if again := pid(); again != first {
		t.Fatal("the connection is not used again")
	}
	if err := d.Rotate(t.Context(), as(t, at, roles[1], "c")); err != nil {
		t.Fatal(err)
	}
	if after := pid(); after == first {
		t.Error("a connection by the old password is still used")
	}

	for name, test := range map[string]struct {
		to   serval.Secret
		want string
	}{
		"who may not log in":  {as(t, at, roles[0], "canary"), "is not permitted to log in"},
		"another database":    {serval.NewSecret(strings.Replace(as(t, at, roles[1], "canary").Reveal(), "?", "_other?", 1)), "only user and password"},
		"another setting":     {serval.NewSecret(as(t, at, roles[1], "canary").Reveal() + "&application_name=x"), "only user and password"},
		"no address":          {serval.NewSecret("postgres://canary:canary@%zz"), "cannot be read"},
		"the simple protocol": {serval.NewSecret(as(t, at, roles[1], "canary").Reveal() + "&default_query_exec_mode=simple_protocol"), "simple_protocol"},
	} {
		if err := d.Rotate(t.Context(), test.to); err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
		if got := who(); got != roles[1] {
			t.Errorf("%s: %s asks, want %s", name, got, roles[1])
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// late is locked out while it connects, the first time.
type late struct {
	driver.Connector
	rotate func()
	tries  int
}

func (l *late) Connect(context.Context) (driver.Conn, error) {
	if l.tries++; l.tries == 1 {
		l.rotate()
		return nil, errors.New("locked out")
	}
	return nil, nil
}

// Who was about to connect when the one before was locked out connects as the next.
func TestConnectAgain(t *testing.T) {
	for _, test := range []struct {
		name   string
		rotate bool
		tries  int
	}{{"rotated meanwhile", true, 2}, {"locked out for another reason", false, 1}} {
		var current atomic.Pointer[login]
		current.Store(&login{"a", "a"})
		far := &late{rotate: func() {
			if test.rotate {
				current.Store(&login{"b", "b"})
			}
		}}
		if _, err := (connector{far, &current}).Connect(t.Context()); (err == nil) != test.rotate || far.tries != test.tries {
			t.Errorf("%s: %v after %d tries, want %d", test.name, err, far.tries, test.tries)
		}
	}
}

// What has to stay is all but who connects.
func TestPlace(t *testing.T) {
	for address, want := range map[string]string{
		"postgres://a:b@h/d?sslmode=require&user=c&password=e": "postgres://h/d?sslmode=require",
		"postgres://a:b@h1:5432,h2:5432/d":                     "postgres://h1:5432,h2:5432/d",
	} {
		if got := place(address); got != want {
			t.Errorf("%s is at %q, want %q", address, got, want)
		}
	}
}

// SQLite has nobody who connects.
func TestRotateSQLite(t *testing.T) {
	at := "sqlite://" + filepath.Join(t.TempDir(), "serval.db")
	if err := opened(t, at).Rotate(t.Context(), serval.NewSecret(at)); !serval.IsRefusal(err, serval.FailedPrecondition) {
		t.Errorf("got %v, want a refusal", err)
	}
}
