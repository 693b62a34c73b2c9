package main

import (
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// A worker is killed, as a process, in the midst of "Create AWS IAM Role". The next
// one finishes the run, and there is one role.
func TestKilledWhileCreatingARole(t *testing.T) {
	for name, arrange := range map[string]func(cloud *awstest.Cloud, far *far, kill func()){
		"the role is made and the worker has not heard of it": func(cloud *awstest.Cloud, _ *far, kill func()) {
			cloud.Inject(awstest.Fault{Action: "CreateRole", Hook: func(*awstest.Request) { kill() }, Happened: true, Hang: true, Times: 1})
		},
		"the role is made and has no policy yet": func(cloud *awstest.Cloud, _ *far, kill func()) {
			cloud.Inject(awstest.Fault{Action: "PutRolePolicy", Hook: func(*awstest.Request) { kill() }, Hang: true, Times: 1})
		},
		"all is done but the result": func(_ *awstest.Cloud, far *far, kill func()) {
			far.mu.Lock()
			defer far.mu.Unlock()
			far.put = func() { far.put = nil; kill() }
		},
	} {
		t.Run(name, func(t *testing.T) {
			cloud := awstest.New(awstest.Options{})
			url := cloud.Start(t)
			home := cloud.AddAccount(hub, "hub")
			home.PutRole(awstest.Role{Name: "worker", Inline: map[string]string{"hop": allow("sts:AssumeRole", "sts:TagSession")}})
			keys := home.PodIdentity("worker", time.Now())
			fill(cloud)
			prod := cloud.Account(member)
			prod.PutRole(awstest.Role{Name: "serval-workflow", Trust: trustPolicy(), Inline: map[string]string{"write": allow(serval.WorkflowActions()...)}})
			boundary := prod.PutPolicy(awstest.Policy{Name: "boundary", Document: allow("s3:*")})

			far := newFar(ingest, external)
			far.account.WorkflowRoleARN = "arn:aws:iam::" + member + ":role/serval-workflow"
			far.task = &wire.ClaimedTask{
				Task: wire.Task{ID: "task_1", Kind: serval.TaskCreateRole, AccountID: member}, RunID: "run_1",
				Until: wire.Time{Time: time.Now().Add(time.Hour)}, Account: far.account,
				Role: &serval.NewRole{Name: "made-by-a-run", MaxSessionSeconds: 3600, PermissionsBoundary: boundary,
					Policy: allow("s3:GetObject"), Issuer: "https://login.example.com", ClientID: "serval"},
			}
			upstream := httptest.NewServer(far)
			t.Cleanup(upstream.Close)
			token := filepath.Join(t.TempDir(), "token")
			if err := os.WriteFile(token, []byte(far.token), 0o600); err != nil {
				t.Fatal(err)
			}
			begin := func() *exec.Cmd {
				c := exec.Command("serval-worker", "run", "--admin-listen", "127.0.0.1:0", "--no-lease",
					"--upstream-url", upstream.URL, "--upstream-token-file", token, "--sts-endpoint", url, "--iam-endpoint", url)
				c.Env = append(os.Environ(), "AWS_EC2_METADATA_DISABLED=true", "AWS_ACCESS_KEY_ID="+keys.AccessKeyID,
					"AWS_SECRET_ACCESS_KEY="+keys.SecretAccessKey, "AWS_SESSION_TOKEN="+keys.SessionToken)
				if err := c.Start(); err != nil {
					t.Fatal(err)
				}
				return c
			}

			var once sync.Once
			var first *exec.Cmd
			started, killed := make(chan struct{}), make(chan struct{})
			arrange(cloud, far, func() {
				<-started
				once.Do(func() {
					if err := first.Process.Kill(); err != nil {
						t.Error(err)
					}
					_ = first.Wait() // it was killed, which is no success
					close(killed)
				})
			})
			first = begin()
			close(started)
			select {
			case <-killed:
			case <-time.After(2 * time.Minute):
				_ = first.Process.Kill()
				t.Fatal("the worker did not come to it in two minutes")
			}
			if status, ok := first.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
				t.Fatalf("the first worker ended as %s, want it killed", first.ProcessState)
			}
			id := prod.RoleID("made-by-a-run")
			for range 3000 { // what it had asked is still done
				if id != "" {
					break
				}
				time.Sleep(10 * time.Millisecond)
				id = prod.RoleID("made-by-a-run")
			}
			far.mu.Lock()
			if far.result != nil {
				t.Errorf("the killed worker put the result %+v", far.result)
			}
			far.held = false
			far.mu.Unlock()

			second := begin()
			var result *wire.TaskResult
			for range 6000 {
				far.mu.Lock()
				result = far.result
				far.mu.Unlock()
				if result != nil {
					break
				}
				time.Sleep(20 * time.Millisecond)
			}
			if err := second.Process.Signal(syscall.SIGTERM); err != nil {
				t.Error(err)
			}
			if err := second.Wait(); err != nil {
				t.Errorf("the second worker: %v", err)
			}
			if result == nil || result.Result.Error != "" || result.Result.Role == nil {
				t.Fatalf("the second worker's result is %+v", result)
			}
			made := result.Result.Role
			if id == "" || !made.Found || !made.Tagged || made.RoleID != id || prod.RoleID("made-by-a-run") != id {
				t.Errorf("it made %+v, want it to find the role %s", made, id)
			}
			good := 0
			for _, c := range cloud.Calls() {
				if c.Action == "CreateRole" && c.Status == 200 {
					good++
				}
			}
			if good > 1 {
				t.Errorf("%d calls of CreateRole went well, want one", good)
			}
			for _, wrong := range far.faults() {
				t.Errorf("the upstream says: %s", wrong)
			}
		})
	}
}
