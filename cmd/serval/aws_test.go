package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	"github.com/aws/aws-sdk-go-v2/credentials/processcreds"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// A laptop runs serval, which TestMain has put on the PATH, in front of a world.
type laptop struct {
	*testing.T
	*world
}

// newLaptop returns a laptop on which ana is signed in and has the role dev.
func newLaptop(t *testing.T, o options) *laptop {
	t.Helper()
	w, err := newWorld(t.TempDir(), o, t.Cleanup)
	if err != nil {
		t.Fatal(err)
	}
	l := &laptop{t, w}
	l.must("serval", "login")
	l.must("serval", "request", "prod/dev", "--for", "2h")
	return l
}

// command returns a command in the laptop's environment, and in that alone.
func (l *laptop) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "GORACE=" + os.Getenv("GORACE")}
	for _, v := range l.environ() {
		c.Env = append(c.Env, v[0]+"="+v[1])
	}
	c.Dir = l.dir
	return c
}

// run runs a command to its end.
func (l *laptop) run(c *exec.Cmd) outcome {
	l.Helper()
	var stdout, stderr strings.Builder
	c.Stdout, c.Stderr = &stdout, &stderr
	err := c.Run()
	o := outcome{stdout: stdout.String(), stderr: stderr.String()}
	if exited, ok := errors.AsType[*exec.ExitError](err); ok {
		o.code = exited.ExitCode()
	} else if err != nil {
		l.Fatal(err)
	}
	return o
}

// must runs a command that has to succeed, and returns what it printed.
func (l *laptop) must(name string, args ...string) string {
	l.Helper()
	o := l.run(l.command(name, args...))
	if o.code != 0 {
		l.Fatalf("%s %s ended with %d: %s", name, strings.Join(args, " "), o.code, o.stderr)
	}
	return o.stdout
}

// identity is who ana is to AWS with the role.
const identity = "arn:aws:sts::" + prod + ":assumed-role/dev/ana@example.com"

// uses has AWS say who the credentials of c are, and use them.
func (l *laptop) uses(what string, c aws.Config) {
	l.Helper()
	c.Region, c.BaseEndpoint = "us-west-1", &l.awsAt
	who, err := sts.NewFromConfig(c).GetCallerIdentity(l.Context(), &sts.GetCallerIdentityInput{})
	if err != nil {
		l.Fatalf("%s: %v", what, err)
	}
	if *who.Arn != identity {
		l.Errorf("%s: AWS takes it for %s, want %s", what, *who.Arn, identity)
	}
	if _, err := iam.NewFromConfig(c).ListRoles(l.Context(), &iam.ListRolesInput{}); err != nil {
		l.Errorf("%s: %v", what, err)
	}
}

// S-64: the SDK's process credentials, and a profile as configure writes it.
func TestSDKProcessCredentials(t *testing.T) {
	l := newLaptop(t, options{})
	l.must("serval", "configure", "prod/dev")
	for _, v := range append(l.environ(), [2]string{"AWS_ACCESS_KEY_ID", ""}, [2]string{"AWS_SECRET_ACCESS_KEY", ""}, [2]string{"AWS_SESSION_TOKEN", ""}) {
		t.Setenv(v[0], v[1])
	}
	provider := processcreds.NewProvider("serval creds prod/dev")
	l.uses("processcreds", aws.Config{Credentials: aws.NewCredentialsCache(provider)})
	got, err := provider.Retrieve(t.Context())
	if err != nil || !got.CanExpire || time.Until(got.Expires) > 2*time.Hour || time.Until(got.Expires) < 110*time.Minute {
		t.Errorf("they expire at %v (%v), want two hours from now", got.Expires, err)
	}
	c, err := config.LoadDefaultConfig(t.Context(), config.WithSharedConfigProfile("prod-dev"))
	if err != nil {
		t.Fatal(err)
	}
	l.uses("a profile", c)
	if n := l.cloud.CountCalls("AssumeRoleWithWebIdentity"); n != 1 {
		t.Errorf("%d sessions were opened, want one", n)
	}
	_, err = processcreds.NewProvider("serval creds prod/prod-readonly").Retrieve(t.Context())
	if err == nil {
		t.Error("a role without access gave credentials")
	}
}

// serving starts serval serve, and returns what it printed.
func (l *laptop) serving(args ...string) (uri, token string) {
	l.Helper()
	c := l.command("serval", append([]string{"serve"}, args...)...)
	out, err := c.StdoutPipe()
	if err != nil {
		l.Fatal(err)
	}
	if err := c.Start(); err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() {
		c.Process.Signal(syscall.SIGTERM)
		if err := c.Wait(); err != nil {
			l.Errorf("serval serve, told to stop: %v", err)
		}
	})
	lines := bufio.NewScanner(out)
	for _, into := range []*string{&uri, &token} {
		if !lines.Scan() {
			l.Fatal("serval serve said nothing")
		}
		_, quoted, _ := strings.Cut(lines.Text(), "=")
		*into = strings.Trim(quoted, "'")
	}
	return uri, token
}

// The SDK's container credentials from serval serve; others get none.
func TestServe(t *testing.T) {
	l := newLaptop(t, options{})
	uri, token := l.serving("prod/dev")
	l.uses("endpointcreds", aws.Config{Credentials: aws.NewCredentialsCache(endpointcreds.New(uri, func(o *endpointcreds.Options) { o.AuthorizationToken = token }))})

	ask := func(change func(*http.Request)) (int, string) {
		t.Helper()
		r, err := http.NewRequest("GET", uri, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", token)
		change(r)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil || answer.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("the answer may be cached: %v, %v", answer.Header, err)
		}
		return answer.StatusCode, string(text)
	}
	for name, c := range map[string]struct {
		change func(*http.Request)
		want   int
	}{
		"as it is":        {func(*http.Request) {}, 200},
		"no token":        {func(r *http.Request) { r.Header.Del("Authorization") }, 401},
		"another token":   {func(r *http.Request) { r.Header.Set("Authorization", token+"x") }, 401},
		"another host":    {func(r *http.Request) { r.Host = "rebound.example" }, 421}, // S-63
		"another address": {func(r *http.Request) { r.URL.Path = "/latest" }, 404},
		"another method":  {func(r *http.Request) { r.Method = "POST" }, 404},
	} {
		got, text := ask(c.change)
		if got != c.want || (got != 200) == strings.Contains(text, "SecretAccessKey") {
			t.Errorf("%s: %d, want %d: %s", name, got, c.want, text)
		}
	}
	// Whoever takes the access away takes what is served.
	l.must("serval", "done", "prod/dev")
	if got, text := ask(func(*http.Request) {}); got != 403 || !strings.Contains(text, "You have no access to") {
		t.Errorf("after the end: %d %s", got, text)
	}
}

// The real AWS CLI, where it is: by a profile, and by serval serve.
func TestAWSCLI(t *testing.T) {
	if _, err := exec.LookPath("aws"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("the AWS CLI is missing: Debian package awscli")
		}
		t.Skip("the AWS CLI is not installed")
	}
	l := newLaptop(t, options{})
	l.must("serval", "configure")
	aws := func(c *exec.Cmd) string {
		t.Helper()
		c.Args = append(c.Args, "--endpoint-url", l.awsAt, "--output", "json", "sts", "get-caller-identity")
		o := l.run(c)
		t.Logf("$ %s\n%s%s", strings.Join(c.Args, " "), o.stdout, o.stderr)
		var who struct{ Arn string }
		if err := json.Unmarshal([]byte(o.stdout), &who); err != nil {
			t.Errorf("ended with %d", o.code)
		}
		return who.Arn
	}
	if got := aws(l.command("aws", "--profile", "prod-dev")); got != identity {
		t.Errorf("by a profile it is %q, want %s", got, identity)
	}
	uri, token := l.serving("prod/dev")
	served := l.command("aws")
	served.Env = append(served.Env, "AWS_CONFIG_FILE="+os.DevNull, "AWS_CONTAINER_CREDENTIALS_FULL_URI="+uri, "AWS_CONTAINER_AUTHORIZATION_TOKEN="+token)
	if got := aws(served); got != identity {
		t.Errorf("by serval serve it is %q, want %s", got, identity)
	}
	if got := aws(l.command("serval", "exec", "prod/dev", "--", "aws")); got != identity {
		t.Errorf("by serval exec it is %q, want %s", got, identity)
	}
	if n := l.cloud.CountCalls("AssumeRoleWithWebIdentity"); n != 1 {
		t.Errorf("%d sessions were opened, want one", n)
	}
	// What it says where there is no access is what serval says.
	o := l.run(l.command("aws", "--profile", "prod-readonly", "--endpoint-url", l.awsAt, "sts", "get-caller-identity"))
	if o.code == 0 || !strings.Contains(o.stderr, "serval request arn:aws:iam::"+prod+":role/prod-readonly") {
		t.Errorf("without access the CLI ends with %d and says %s", o.code, o.stderr)
	}
}

// S-64: whoever is killed while writing leaves nothing half written, and no lock.
func TestKilledWhileWriting(t *testing.T) {
	l := newLaptop(t, options{})
	for i := range 12 {
		c := l.command("serval", "creds", "prod/dev", "--network", "", "--read-only", "--reason", fmt.Sprint(i))
		if err := l.reset(); err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(10+8*i) * time.Millisecond)
		c.Process.Kill()
		c.Wait()
	}
	var got wire.ProcessCredentials
	if err := json.Unmarshal([]byte(l.must("serval", "creds", "prod/dev", "--read-only")), &got); err != nil || got.SecretAccessKey == "" {
		t.Errorf("after twelve were killed: %v", err)
	}
	// What was damaged is as if it were not there.
	files, err := filepath.Glob(filepath.Join(l.dir, "laptop", "kept", "*.sealed"))
	if err != nil || len(files) == 0 {
		t.Fatalf("nothing is kept: %v", err)
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > 1000 { // credentials, and not the login
			if err := os.Truncate(file, info.Size()/2); err != nil {
				t.Fatal(err)
			}
		}
	}
	l.must("serval", "creds", "prod/dev", "--read-only")
}

// reset takes away the credentials that are kept.
func (l *laptop) reset() error {
	files, err := filepath.Glob(filepath.Join(l.dir, "laptop", "kept", "*.sealed"))
	for _, file := range files {
		if info, statErr := os.Stat(file); statErr == nil && info.Size() > 1000 {
			err = errors.Join(err, os.Remove(file))
		}
	}
	return err
}
