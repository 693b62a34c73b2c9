package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/docstest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

const (
	hub      = "999988887777"
	member   = "111122223333"
	ingest   = "arn:aws:iam::" + member + ":role/serval-ingestion"
	external = "external-id-of-the-team"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"serval-worker": func() {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
		},
	})
}

// TestScripts runs the program itself, in front of a cloud and an upstream that
// each script has for itself. A script changes the cloud by the command aws.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup:               setUp,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"aws":      changeAWS,
			"scrub":    scrub,
			"exitcode": exitCode,
			"pushes":   waitForPushes,
		},
		Condition: func(cond string) (bool, error) {
			if cond != "readonly" {
				return false, fmt.Errorf("no condition %q", cond)
			}
			// Whether this machine lets a test have mounts of its own.
			return exec.Command("unshare", "-m", "mount", "-o", "remount,bind,ro", "/").Run() == nil, nil
		},
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
	})
}

type cloudKey struct{}
type farKey struct{}
type clockKey struct{}

// setUp gives the script a cloud with a worker in the hub and a member account,
// an upstream, and an environment in which both are found.
func setUp(e *testscript.Env) error {
	clock := new(atomic.Int64)
	cloud := awstest.New(awstest.Options{Now: func() time.Time { return time.Now().Add(time.Duration(clock.Load())) }})
	e.Values[clockKey{}] = clock
	server := httptest.NewServer(cloud)
	e.Defer(server.Close)
	untrusted := httptest.NewUnstartedServer(cloud)
	untrusted.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that are broken off
	untrusted.StartTLS()
	e.Defer(untrusted.Close)
	home := cloud.AddAccount(hub, "hub")
	home.PutRole(awstest.Role{Name: "worker", Inline: map[string]string{"hop": allow("sts:AssumeRole", "sts:TagSession")}})
	keys := home.PodIdentity("worker", time.Now())
	fill(cloud)
	e.Values[cloudKey{}] = cloud

	far := newFar(ingest, external)
	upstream := httptest.NewServer(far)
	e.Defer(upstream.Close)
	e.Values[farKey{}] = far
	e.Defer(func() {
		for _, fault := range far.faults() {
			e.T().Log("upstream: " + fault)
		}
		if len(far.faults()) > 0 {
			e.T().FailNow()
		}
	})
	token := filepath.Join(e.WorkDir, "token")
	if err := os.WriteFile(token, []byte(far.token+"\n"), 0o600); err != nil {
		return err
	}
	// By the clock no account is due again within a script, whatever time it is.
	now := time.Now()
	offset := now.Sub(now.Truncate(24*time.Hour)) + 2*time.Hour
	for name, value := range map[string]string{
		"SERVAL_SYNC_OFFSET":  offset.String(),
		"SERVAL_STS_ENDPOINT": server.URL, "SERVAL_IAM_ENDPOINT": server.URL, "SERVAL_ORGANIZATIONS_ENDPOINT": server.URL,
		"UNTRUSTED":         untrusted.URL,
		"AWS_ACCESS_KEY_ID": keys.AccessKeyID, "AWS_SECRET_ACCESS_KEY": keys.SecretAccessKey, "AWS_SESSION_TOKEN": keys.SessionToken,
		"AWS_EC2_METADATA_DISABLED": "true", "HOME": e.WorkDir,
		"INGEST": ingest, "MEMBER": member, "EXTERNAL": external, "HUB": hub,
		"UPSTREAM": upstream.URL, "TOKEN": token, "SERVAL_NO_LEASE": "true",
	} {
		e.Setenv(name, value)
	}
	return nil
}

// fill fills the member account: two tagged roles, a near miss and one that
// is none of ours.
func fill(cloud *awstest.Cloud) {
	created := time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC)
	a := cloud.AddAccount(member, "prod")
	a.PutRole(awstest.Role{
		Name: "serval-ingestion", Trust: trustPolicy(), Inline: map[string]string{"read": allow(serval.IngestionActions()...)}, Created: created,
	})
	policy := a.PutPolicy(awstest.Policy{Name: "logs", Document: allow("logs:Get*")})
	a.PutRole(awstest.Role{
		Name: "dev-admin", Path: "/people/", Description: "Development <admin> & more", MaxSessionDuration: 14400,
		Tags: map[string]string{"serval": "", "team": "payments"}, Trust: trustPolicy(),
		Inline:   map[string]string{"a+b": allow("s3:*")},
		Attached: []string{policy}, Created: created,
	})
	a.PutRole(awstest.Role{Name: "auditor", Tags: map[string]string{"serval": "yes"}, Trust: trustPolicy(), Created: created})
	a.PutRole(awstest.Role{Name: "almost", Tags: map[string]string{"Serval": ""}, Trust: trustPolicy(), Created: created})
	a.PutRole(awstest.Role{Name: "other", Trust: trustPolicy(), Created: created})
}

func allow(actions ...string) string {
	return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["` + strings.Join(actions, `","`) + `"],"Resource":"*"}]}`
}

func trustPolicy() string {
	return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::%s:root"},`+
		`"Action":["sts:AssumeRole","sts:TagSession"],"Condition":{"StringEquals":{"sts:ExternalId":%q}}}]}`, hub, external)
}

// changeAWS is the command aws:
//
//	aws allow ACTION…       the ingestion role may do these, and nothing else
//	aws deny ACTION…        take actions from the seven of the ingestion role
//	aws worker ACTION…      the worker's own role may do these, and nothing else
//	aws trust FILE          replace the ingestion role's trust policy
//	aws provider ISSUER [CLIENT_ID…]   make the account's OIDC provider, for these
//	aws norole              delete the ingestion role
//	aws organization ID     make all accounts one organization, which ID manages
//	aws clock DURATION      set AWS's clock ahead
//	aws fault ACTION CODE [MESSAGE]   refuse an action, whoever asks
func changeAWS(ts *testscript.TestScript, neg bool, args []string) {
	cloud := ts.Value(cloudKey{}).(*awstest.Cloud)
	command, rest := args[0], args[1:]
	switch command {
	case "allow":
		cloud.Account(member).SetInline("serval-ingestion", "read", allow(rest...))
	case "deny":
		left := slices.DeleteFunc(serval.IngestionActions(), func(action string) bool { return slices.Contains(rest, action) })
		cloud.Account(member).SetInline("serval-ingestion", "read", allow(left...))
	case "worker":
		cloud.Account(hub).SetInline("worker", "hop", allow(rest...))
	case "trust":
		cloud.Account(member).SetTrust("serval-ingestion", ts.ReadFile(rest[0]))
	case "provider":
		cloud.Account(member).PutOIDCProvider(rest[0], rest[1:]...)
	case "norole":
		cloud.Account(member).DeleteRole("serval-ingestion")
	case "organization":
		cloud.SetManagementAccount(rest[0])
	case "clock":
		d, err := time.ParseDuration(rest[0])
		ts.Check(err)
		ts.Value(clockKey{}).(*atomic.Int64).Store(int64(d))
	case "fault":
		message := "Not today."
		if len(rest) > 2 {
			message = rest[2]
		}
		account := member
		if rest[0] == "ListAccounts" {
			account = "" // it lands in whichever account asks
		}
		cloud.Inject(awstest.Fault{Action: rest[0], Account: account, Code: rest[1], Message: message})
	default:
		ts.Fatalf("aws does not know %q", command)
	}
}

// scrub is the command scrub FILE: it prints the file into FILE.scrubbed with
// what differs from run to run replaced.
func scrub(ts *testscript.TestScript, neg bool, args []string) {
	text := ts.ReadFile(args[0])
	ids := map[string]string{}
	text = regexp.MustCompile(`AROA[A-Z0-9]{17}`).ReplaceAllStringFunc(text, func(id string) string {
		if ids[id] == "" {
			ids[id] = fmt.Sprintf("AROA%017d", len(ids)+1)
		}
		return ids[id]
	})
	text = regexp.MustCompile(`assumed-role/worker/[\w-]+`).ReplaceAllString(text, "assumed-role/worker/SESSION")
	text = regexp.MustCompile(`"at": "[^"]*"`).ReplaceAllString(text, `"at": "TIME"`)
	text = regexp.MustCompile(`"(started|finished)_at":"[^"]*"`).ReplaceAllString(text, `"${1}_at":"TIME"`)
	text = strings.ReplaceAll(text, `},{"arn"`, "},\n{\"arn\"") // one role a line
	ts.Check(os.WriteFile(ts.MkAbs("scrubbed"), []byte(text), 0o600))
}

// exitCode is the command exitcode N PROGRAM ARG…: it runs the program and
// demands that exit code.
func exitCode(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if err != nil {
		var exited interface{ ExitCode() int }
		if !errors.As(err, &exited) {
			ts.Fatalf("%s: %v", args[1], err)
		}
		got = exited.ExitCode()
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("%s ended with %d, want %s", strings.Join(args[1:], " "), got, args[0])
	}
}

// waitForPushes is the command pushes N: it waits until the upstream has accepted that
// many pushes and a delta, by which the worker has read what became of them.
func waitForPushes(ts *testscript.TestScript, neg bool, args []string) {
	far := ts.Value(farKey{}).(*far)
	for range 6000 {
		if pushes, deltas := far.accepted(); fmt.Sprint(pushes) == args[0] && deltas > 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	pushes, deltas := far.accepted()
	ts.Fatalf("the upstream accepted %d pushes and %d deltas in a minute, want %s and some", pushes, deltas, args[0])
}

// What the documents say to type is there.
func TestDocuments(t *testing.T) {
	docstest.Commands(t, "serval-worker", 10, func(args ...string) string {
		var out bytes.Buffer
		run(t.Context(), args, nil, strings.NewReader(""), &out, &out)
		return out.String()
	})
}
