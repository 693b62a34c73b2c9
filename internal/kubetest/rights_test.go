package kubetest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/tokenreview"
)

// The names that the chart gives.
const (
	namespace     = "serval"
	workerAccount = "serval-worker-sa"
	bridgeAccount = "serval-bridge"
	workerSubject = "system:serviceaccount:" + namespace + ":" + workerAccount
	audience      = "serval-bridge"
)

// object is a Kubernetes object with a name.
type object map[string]any

func named(name string, more object) object {
	o := object{"metadata": object{"name": name}}
	for k, v := range more {
		o[k] = v
	}
	return o
}

func rule(group, resource string, names []string, verbs ...string) object {
	r := object{"apiGroups": []string{group}, "resources": []string{resource}, "verbs": verbs}
	if names != nil {
		r["resourceNames"] = names
	}
	return r
}

func bind(account, kind, role string) object {
	return object{
		"subjects": []object{{"kind": "ServiceAccount", "name": account, "namespace": namespace}},
		"roleRef":  object{"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
	}
}

// install installs the chart, without pods: there is nobody here to run them.
func install(t *testing.T, c *Cluster) {
	t.Helper()
	helm := exec.Command(Tool(t, "helm"), "install", "serval", "../../charts/serval", "--namespace", namespace, "--create-namespace", "--set",
		"tls.terminatedElsewhere=true,worker.serviceAccount.create=true,bridge.replicaCount=0,worker.replicaCount=0,bridge.persistence.enabled=false")
	helm.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig())
	if text, err := helm.CombinedOutput(); err != nil {
		t.Fatalf("helm install: %v\n%s", err, text)
	}
}

// TestKubernetes is all that needs a real API server, before one.
func TestKubernetes(t *testing.T) {
	c := Start(t)
	install(t, c)
	define(t, c)
	t.Run("examples", func(t *testing.T) { testExamples(t, c) })
	t.Run("schemas", func(t *testing.T) { testSchemas(t, c) })
	t.Run("rights", func(t *testing.T) { testRights(t, c) })
	t.Run("token reviews", func(t *testing.T) { testTokenReviews(t, c) })
	t.Run("workers", func(t *testing.T) { testWorkers(t, c) })
}

// S-102: what each service account may do, and what it may not.
func testRights(t *testing.T, c *Cluster) {
	const other = "elsewhere"
	c.Create(Namespaces, named(other, nil))
	c.Create(fmt.Sprintf(Secrets, namespace), named("bridge-secrets", nil))
	c.Create(fmt.Sprintf(Leases, namespace), named("another", nil))
	leases := fmt.Sprintf(Leases, namespace)
	worker, bridge := c.Token(namespace, workerAccount), c.Token(namespace, bridgeAccount)
	review := object{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": object{"token": "x"}}
	token := object{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": object{}}
	for _, call := range []struct {
		name         string
		method, path string
		body         any
		worker       int // what it answers the worker
		bridge       int // and the bridge
	}{
		{"make its Lease", "POST", leases, named("serval-worker-0", nil), 201, 403},
		{"read its Lease", "GET", leases + "/serval-worker-0", nil, 200, 403},
		{"write its Lease, over no version", "PUT", leases + "/serval-worker-0", named("serval-worker-0", nil), 422, 403}, // allowed, and wrong
		{"patch its Lease", "PATCH", leases + "/serval-worker-0", nil, 403, 403},
		{"delete its Lease", "DELETE", leases + "/serval-worker-0", nil, 403, 403},
		{"read another Lease", "GET", leases + "/another", nil, 403, 403},
		{"write another Lease", "PUT", leases + "/another", named("another", nil), 403, 403},
		{"another shard's Lease", "GET", leases + "/serval-worker-1", nil, 403, 403},
		{"list Leases", "GET", leases, nil, 403, 403},
		{"a Lease elsewhere", "POST", fmt.Sprintf(Leases, other), named("serval-worker-0", nil), 403, 403},
		{"read a Lease elsewhere", "GET", fmt.Sprintf(Leases, other) + "/serval-worker-0", nil, 403, 403},
		{"review a token", "POST", TokenReviews, review, 403, 201},
		{"read the secrets", "GET", fmt.Sprintf(Secrets, namespace) + "/bridge-secrets", nil, 403, 403},
		{"list secrets", "GET", fmt.Sprintf(Secrets, namespace), nil, 403, 403},
		{"make a token", "POST", fmt.Sprintf(ServiceAccounts, namespace) + "/" + workerAccount + "/token", token, 403, 403},
		{"list service accounts", "GET", fmt.Sprintf(ServiceAccounts, namespace), nil, 403, 403},
		{"list pods", "GET", "/api/v1/namespaces/" + namespace + "/pods", nil, 403, 403},
		{"change rights", "POST", fmt.Sprintf(RoleBindings, namespace), named("x", bind(workerAccount, "ClusterRole", "cluster-admin")), 403, 403},
		{"list namespaces", "GET", Namespaces, nil, 403, 403},
	} {
		for _, who := range []struct {
			name, token string
			want        int
		}{{"the worker", worker, call.worker}, {"the bridge", bridge, call.bridge}} {
			if got, text := c.Call(who.token, call.method, call.path, call.body); got != who.want {
				t.Errorf("%s wants to %s: answered %d, want %d: %s", who.name, call.name, got, who.want, text)
			}
		}
	}
	// The token that the worker shows the bridge is of no use at the API server.
	if got, text := c.Call(c.Token(namespace, workerAccount, audience), "GET", leases+"/serval-worker-0", nil); got != 401 {
		t.Errorf("the worker's token for the bridge is answered %d by the API server, want 401: %s", got, text)
	}
	c.Delete(leases, "serval-worker-0")
}

// Tokens as Kubernetes makes them, and what becomes of them.
func testTokenReviews(t *testing.T, c *Cluster) {
	accounts := fmt.Sprintf(ServiceAccounts, namespace)
	for _, account := range []string{"other", "gone"} {
		c.Create(accounts, named(account, nil))
	}
	reviewer := func(account, subject string) *tokenreview.Reviewer {
		pod := c.Pod(namespace, account)
		r := tokenreview.New(tokenreview.Config{
			Server: c.Server, TokenFile: filepath.Join(pod.Dir, "token"), CAFile: filepath.Join(pod.Dir, "ca.crt"), Audience: audience, Subject: subject,
		})
		t.Cleanup(r.Close)
		return r
	}
	good := c.Token(namespace, workerAccount, audience)
	forged := []byte(good)
	forged[len(forged)-10] ^= 1 // within the signature
	// Of an account that is deleted no token is good any more, but for what the
	// API server remembers itself for some seconds: so another one is shown after.
	before, after := c.Token(namespace, "gone", audience), c.Token(namespace, "gone", audience)
	review := func(token string) (tokenreview.Verdict, error) {
		return reviewer(bridgeAccount, "system:serviceaccount:"+namespace+":gone").Review(t.Context(), "", serval.NewSecret(token))
	}
	if v, err := review(before); !v.OK || err != nil {
		t.Errorf("before the account is deleted: %+v, %v", v, err)
	}
	c.Delete(accounts, "gone")
	if v, err := review(after); v.OK || err != nil || !strings.Contains(v.Why, "the API server does not accept it") {
		t.Errorf("after the account was deleted: %+v, %v", v, err)
	}
	r := reviewer(bridgeAccount, workerSubject)
	for _, test := range []struct{ name, token, why string }{
		{"the worker's", good, ""},
		{"the worker's, for two audiences", c.Token(namespace, workerAccount, "x", audience), ""},
		{"the worker's for the API server", c.Token(namespace, workerAccount), "another audience"},
		{"the worker's for somebody else", c.Token(namespace, workerAccount, "sts.amazonaws.com"), "another audience"},
		{"another account's", c.Token(namespace, "other", audience), "serval-worker-sa is who is recognised"},
		{"the bridge's own", c.Token(namespace, bridgeAccount, audience), "serval-worker-sa is who is recognised"},
		{"a forged one", string(forged), "the API server does not accept it"},
	} {
		if v, err := r.Review(t.Context(), "", serval.NewSecret(test.token)); err != nil || v.OK != (test.why == "") || !strings.Contains(v.Why, test.why) {
			t.Errorf("%s: %+v, %v; want %q", test.name, v, err, test.why)
		}
	}
	_, err := reviewer("other", workerSubject).Review(t.Context(), "", serval.NewSecret(good))
	const want = `this bridge may not create TokenReviews; its service account needs a ClusterRole with create on tokenreviews of the API group ` +
		`authentication.k8s.io: tokenreviews.authentication.k8s.io is forbidden: User "system:serviceaccount:serval:other" cannot create resource "tokenreviews"`
	if !serval.IsRefusal(err, serval.Unavailable) || !strings.Contains(err.Error(), want) {
		t.Errorf("a bridge without the right: %v\nwant Unavailable because %s", err, want)
	}
}
