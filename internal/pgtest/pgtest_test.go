package pgtest

import (
	"bufio"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

func TestEveryDatabaseIsItsOwn(t *testing.T) {
	var wg sync.WaitGroup
	for range 4 {
		url := URL(t)
		wg.Go(func() {
			c, err := pgx.Connect(t.Context(), url)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close(context.Background())
			if _, err := c.Exec(t.Context(), `create table seen (n bigint)`); err != nil {
				t.Errorf("creating a table in an empty database: %v", err)
			}
		})
	}
	wg.Wait()
}

// Each is a copy of what was prepared once, and nobody else's.
func TestPreparedOnce(t *testing.T) {
	times := 0
	prepare := func(url string) error {
		times++
		c, err := pgx.Connect(t.Context(), url)
		if err != nil {
			return err
		}
		_, err = c.Exec(t.Context(), `create table kept (n int); insert into kept values (7)`)
		return errors.Join(err, c.Close(t.Context()))
	}
	for range 2 {
		c := connect(t, URLOf(t, prepare))
		var n int
		if err := c.QueryRow(t.Context(), `delete from kept returning n`).Scan(&n); err != nil || n != 7 {
			t.Errorf("the copy holds %d, %v; want 7", n, err)
		}
	}
	if times != 1 {
		t.Errorf("it was prepared %d times, want once", times)
	}
}

func TestOrder(t *testing.T) {
	nothing := func(string) error { return nil }
	for _, test := range []struct {
		name, url, want string
	}{
		{"URL", URL(t), "B a"},
		{"URLIn a locale", URLIn(t, "en_US.UTF-8", nothing), "a B"},
		{"URLIn a locale nobody has", URLIn(t, "xx_XX.O'Brien", nothing), "a B"},
	} {
		var got string
		err := connect(t, test.url).QueryRow(t.Context(),
			`select string_agg(w, ' ' order by w) from (values ('a'), ('B')) as words (w)`).Scan(&got)
		if err != nil || got != test.want {
			t.Errorf("%s orders words as %q (%v), want %q", test.name, got, err, test.want)
		}
	}
}

// TestKilled: a test binary that is killed leaves neither a server nor a folder.
func TestKilled(t *testing.T) {
	if os.Getenv("PGTEST_CHILD") != "" {
		os.Stdout.WriteString("url=" + URL(t) + "\n")
		time.Sleep(time.Minute)
		return
	}
	URL(t) // or skip
	child := exec.Command(os.Args[0], "-test.run=^TestKilled$")
	child.Env = append(os.Environ(), "PGTEST_CHILD=1")
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	child.Process.Kill()
	child.Wait()
	config, err := pgx.ParseConfig(strings.TrimPrefix(strings.TrimSpace(line), "url="))
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		_, err := os.Stat(config.Host)
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is still there (%v) 20 s after its test was killed", config.Host, err)
		}
	}
}
