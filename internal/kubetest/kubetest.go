// Package kubetest gives tests a real Kubernetes API server: etcd and
// kube-apiserver on loopback, from binaries that `make kube-tools` builds. There
// are no nodes and no controllers, so nothing runs in the cluster; what would be
// a pod is a process that has the environment and the files of one.
//
// These tests are a stage of their own, `make test-kube`, which says in
// SERVAL_KUBE_PATH where the binaries are. Elsewhere they are skipped by name.
package kubetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/porttest"
)

// Tool returns the path of a program that the stage has built, Serval's own among
// them. Where it is not there the test is skipped, or fails if the environment
// has CI=true.
func Tool(t testing.TB, name string) string {
	t.Helper()
	folders := os.Getenv("SERVAL_KUBE_PATH")
	if folders == "" {
		t.Skip("this needs a Kubernetes API server: run make test-kube")
	}
	for _, dir := range filepath.SplitList(folders) {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	missing(t, fmt.Sprintf("there is no %s in SERVAL_KUBE_PATH: run make kube-tools", name))
	return ""
}

// missing skips the test for what is not there, or fails it if the environment has
// CI=true.
func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// A Cluster is a running API server.
type Cluster struct {
	Server string // its URL
	CAFile string // whom to trust as that

	t      testing.TB
	admin  string // a token that may do everything
	client *http.Client
}

// ready is how long the API server may take until it can be used.
const ready = time.Minute

// Start starts a cluster, which is gone when the test ends.
func Start(t testing.TB) *Cluster {
	t.Helper()
	etcd, apiserver := Tool(t, "etcd"), Tool(t, "kube-apiserver")
	dir := t.TempDir()
	c := &Cluster{t: t, admin: rand.Text(), CAFile: filepath.Join(dir, "certs", "apiserver.crt")}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"sa.key":     string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})),
		"tokens.csv": c.admin + `,admin,admin,"system:masters"` + "\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	clients, peers, secure := porttest.Own(t), porttest.Own(t), porttest.Own(t)
	store := "http://" + clients
	c.Server = "https://" + secure
	_, port, _ := net.SplitHostPort(secure)
	c.run(dir, etcd, "--data-dir="+filepath.Join(dir, "etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls="+store, "--advertise-client-urls="+store,
		"--listen-peer-urls=http://"+peers, "--initial-advertise-peer-urls=http://"+peers, "--initial-cluster=default=http://"+peers)
	failed := c.run(dir, apiserver, "--etcd-servers="+store, "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--secure-port="+port,
		"--cert-dir="+filepath.Dir(c.CAFile), "--service-account-issuer="+c.Server,
		"--service-account-key-file="+filepath.Join(dir, "sa.key"), "--service-account-signing-key-file="+filepath.Join(dir, "sa.key"),
		"--authorization-mode=RBAC", "--token-auth-file="+filepath.Join(dir, "tokens.csv"), "--service-cluster-ip-range=10.96.0.0/16",
		"--allow-privileged=true", "--endpoint-reconciler-type=none")

	deadline := time.Now().Add(ready)
	for err := errors.New("it was not asked"); ; time.Sleep(50 * time.Millisecond) {
		select {
		case <-failed:
			text, _ := os.ReadFile(filepath.Join(dir, "kube-apiserver.log"))
			t.Fatalf("the API server ended:\n%s", text[max(0, len(text)-4000):])
		default:
		}
		if err == nil {
			return c
		}
		if time.Now().After(deadline) {
			t.Fatalf("the API server is not ready after %s: %v", ready, err)
		}
		err = c.check()
	}
}

//go:embed run.sh
var run string

// A program runs beside a test, and not longer.
type program struct {
	pid   int
	ended chan struct{} // closed when it has ended
	code  int           // that it ended with
}

// start starts a program that is killed when the test ends, and the latest with
// the test's process. What it says goes to output.
func start(t testing.TB, output io.Writer, environ []string, path string, args ...string) *program {
	t.Helper()
	shell := exec.Command("/bin/sh", append([]string{"-c", run, "run.sh", path}, args...)...)
	shell.Dir, shell.Env, shell.Stderr = t.TempDir(), environ, output
	// A group of its own: Ctrl-C is for the tests.
	shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	alive, err := shell.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	said, err := shell.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	p := &program{ended: make(chan struct{})}
	_, failed := fmt.Fscan(said, &p.pid)
	go func() {
		defer close(p.ended)
		_ = shell.Wait() // its code says it
		p.code = shell.ProcessState.ExitCode()
	}()
	t.Cleanup(func() {
		alive.Close()
		<-p.ended
	})
	if failed != nil {
		t.Fatalf("starting %s: %v", path, failed)
	}
	return p
}

// run starts a part of the cluster.
func (c *Cluster) run(dir, path string, args ...string) (ended <-chan struct{}) {
	c.t.Helper()
	log, err := os.Create(filepath.Join(dir, filepath.Base(path)+".log"))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { log.Close() })
	return start(c.t, log, nil, path, args...).ended
}

// check asks the API server whether it is ready.
func (c *Cluster) check() error {
	if c.client == nil {
		ca, err := os.ReadFile(c.CAFile)
		if err != nil {
			return err // it has not made its certificate yet
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(ca) {
			return errors.New("its certificate is not there yet")
		}
		c.client = &http.Client{
			Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true},
			Timeout:   10 * time.Second,
		}
	}
	status, text, err := c.call(c.admin, http.MethodGet, "/readyz", nil)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("/readyz answered %d: %s", status, text)
	}
	return err
}

// Call calls the API server with a bearer token, and returns its status and its
// answer. A body is sent as JSON, a string as it is.
func (c *Cluster) Call(token, method, path string, body any) (status int, answer string) {
	c.t.Helper()
	status, answer, err := c.call(token, method, path, body)
	if err != nil {
		c.t.Fatal(err)
	}
	return status, answer
}

func (c *Cluster) call(token, method, path string, body any) (int, string, error) {
	var text []byte
	switch b := body.(type) {
	case nil:
	case string:
		text = []byte(b)
	default:
		var err error
		if text, err = json.Marshal(b); err != nil {
			return 0, "", err
		}
	}
	q, err := http.NewRequestWithContext(context.Background(), method, c.Server+path, bytes.NewReader(text))
	if err != nil {
		return 0, "", err
	}
	q.Header.Set("Authorization", "Bearer "+token)
	q.Header.Set("Content-Type", "application/json")
	res, err := c.client.Do(q)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	return res.StatusCode, string(answer), err
}

// The collections of the API, by namespace where they are in one.
const (
	Namespaces          = "/api/v1/namespaces"
	ServiceAccounts     = "/api/v1/namespaces/%s/serviceaccounts"
	Secrets             = "/api/v1/namespaces/%s/secrets"
	Leases              = "/apis/coordination.k8s.io/v1/namespaces/%s/leases"
	Roles               = "/apis/rbac.authorization.k8s.io/v1/namespaces/%s/roles"
	RoleBindings        = "/apis/rbac.authorization.k8s.io/v1/namespaces/%s/rolebindings"
	ClusterRoles        = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
	ClusterRoleBindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
	TokenReviews        = "/apis/authentication.k8s.io/v1/tokenreviews"
)

// Create creates an object, as an administrator.
func (c *Cluster) Create(collection string, object any) {
	c.t.Helper()
	if status, text := c.Call(c.admin, http.MethodPost, collection, object); status != http.StatusCreated {
		c.t.Fatalf("creating in %s answered %d: %s", collection, status, text)
	}
}

// Delete deletes an object, as an administrator.
func (c *Cluster) Delete(collection, name string) {
	c.t.Helper()
	if status, text := c.Call(c.admin, http.MethodDelete, collection+"/"+name, nil); status != http.StatusOK {
		c.t.Fatalf("deleting %s/%s answered %d: %s", collection, name, status, text)
	}
}

// Token returns a token of a service account, as a pod's volume would hold it,
// for the API server itself where no audience is given.
func (c *Cluster) Token(namespace, account string, audiences ...string) string {
	c.t.Helper()
	path := fmt.Sprintf(ServiceAccounts, namespace) + "/" + account + "/token"
	status, text := c.Call(c.admin, http.MethodPost, path, map[string]any{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": map[string]any{"audiences": audiences, "expirationSeconds": 3600},
	})
	var request struct{ Status struct{ Token string } }
	if err := json.Unmarshal([]byte(text), &request); err != nil || status != http.StatusCreated || request.Status.Token == "" {
		c.t.Fatalf("a token of %s/%s: %d, %v", namespace, account, status, err)
	}
	return request.Status.Token
}

// A Pod is what Kubernetes tells a pod of the cluster and of its service account.
type Pod struct {
	Environ []string // variables, NAME=value each
	Dir     string   // with token, ca.crt and namespace
}

// Pod lays out what a pod of a service account would have.
func (c *Cluster) Pod(namespace, account string) Pod {
	c.t.Helper()
	p := Pod{Dir: c.t.TempDir()}
	host, port, err := net.SplitHostPort(strings.TrimPrefix(c.Server, "https://"))
	if err != nil {
		c.t.Fatal(err)
	}
	p.Environ = []string{"KUBERNETES_SERVICE_HOST=" + host, "KUBERNETES_SERVICE_PORT=" + port}
	ca, err := os.ReadFile(c.CAFile)
	if err != nil {
		c.t.Fatal(err)
	}
	for name, text := range map[string]string{"token": c.Token(namespace, account), "ca.crt": string(ca), "namespace": namespace} {
		if err := os.WriteFile(filepath.Join(p.Dir, name), []byte(text), 0o600); err != nil {
			c.t.Fatal(err)
		}
	}
	return p
}
