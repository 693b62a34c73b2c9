package kubetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/idptest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// An installation is the chart in a cluster whose pods run; AWS and the identity
// provider are fakes beyond the wire.
type installation struct {
	t      *testing.T
	c      *Cluster
	node   *Node
	cloud  *awstest.Cloud
	idp    *idptest.Provider
	secret map[string]string // bridge-secrets
	values map[string]any
	kube   string // the kubeconfig
	chart  string
}

// settled is how long a change may last until all of it is in force.
const settled = 2 * time.Minute

// publicURL is where people would open the bridge.
const publicURL = "http://127.0.0.1:18080"

// trusting is the trust policy of an ingestion role, with the tags of Pod Identity
// or without.
func trusting(externalID string, tags bool) string {
	text := fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::%s:root"},"Action":"sts:AssumeRole",`+
		`"Condition":{"StringEquals":{"sts:ExternalId":%q}}}`, hub, externalID)
	if tags {
		text += fmt.Sprintf(`,{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::%s:root"},"Action":"sts:TagSession"}`, hub)
	}
	return text + "]}"
}

func newInstallation(t *testing.T) *installation {
	t.Helper()
	c, node := StartWhole(t)
	i := &installation{t: t, c: c, node: node, cloud: awstest.New(awstest.Options{}), kube: c.Kubeconfig(), chart: "../../charts/serval"}
	node.Programs = map[string]string{"serval-bridge": Tool(t, "serval-bridge"), "serval-worker": Tool(t, "serval-worker")}

	externalIDs := serval.NewSecret(rand.Text() + rand.Text())
	allow := func(actions ...string) string {
		return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["` + strings.Join(actions, `","`) + `"],"Resource":"*"}]}`
	}
	i.cloud.AddAccount(hub, "hub").PutRole(awstest.Role{Name: "serval-worker", Inline: map[string]string{"hop": allow("sts:AssumeRole", "sts:TagSession")}})
	account := i.cloud.AddAccount(first, "prod")
	account.PutRole(awstest.Role{Name: "serval-ingestion", Trust: trusting(serval.ExternalID(externalIDs, "acme"), true),
		Inline: map[string]string{"read": allow(serval.IngestionActions()...)}})
	account.PutRole(awstest.Role{Name: "dev", Tags: map[string]string{"serval": ""}, Trust: trusting("x", true)})
	aws := i.cloud.Start(t)
	client := rand.Text()
	idp := idptest.New(idptest.Options{ClientID: "serval", ClientSecret: client, RedirectURIs: []string{publicURL + "/oidc/auth/callback"}})
	issuer := idp.Start(t)
	i.idp = idp
	t.Cleanup(func() { idp.Complaints() }) // of the codes that the doctor made up
	keys := i.cloud.Account(hub).PodIdentity("serval-worker", time.Now())

	i.secret = map[string]string{
		"SERVAL_OIDC_ISSUER": issuer, "SERVAL_OIDC_CLIENT_ID": "serval", "SERVAL_OIDC_CLIENT_SECRET": client,
		"SERVAL_SECRET": rand.Text() + rand.Text(), "SERVAL_EXTERNAL_ID_SECRET": externalIDs.Reveal(),
	}
	env := func(name, value string) any { return map[string]string{"name": name, "value": value} }
	i.values = map[string]any{
		"tls": map[string]any{"terminatedElsewhere": true},
		"bridge": map[string]any{
			"publicUrl": publicURL, "persistence": map[string]any{"size": "1Gi"},
			"settings":   map[string]any{"SERVAL_STS_ENDPOINT": aws, "SERVAL_SIGNIN_ENDPOINT": aws, "SERVAL_DRAIN_DELAY": "0s"},
			"doctorSkip": []string{"aws_issuer"}, // it is on loopback, where AWS reaches nothing
		},
		"worker": map[string]any{
			"serviceAccount": map[string]any{"create": true},
			"settings":       map[string]any{"SERVAL_STS_ENDPOINT": aws, "SERVAL_IAM_ENDPOINT": aws},
			"extraEnv": []any{env("AWS_ACCESS_KEY_ID", keys.AccessKeyID), env("AWS_SECRET_ACCESS_KEY", keys.SecretAccessKey),
				env("AWS_SESSION_TOKEN", keys.SessionToken), env("AWS_EC2_METADATA_DISABLED", "true")},
		},
		"config": map[string]any{
			"team": "acme", "accounts": []any{map[string]string{"id": first, "name": "prod", "role_arn": "arn:aws:iam::" + first + ":role/serval-ingestion"}},
		},
	}
	// S-100: whatever does not meet the standard is refused by the cluster.
	c.Create(Namespaces, map[string]any{"metadata": map[string]any{"name": namespace, "labels": map[string]string{
		"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "latest",
	}}})
	c.Create("/api/v1/persistentvolumes", map[string]any{"metadata": map[string]string{"name": "disk"}, "spec": map[string]any{
		"capacity": map[string]string{"storage": "1Gi"}, "accessModes": []string{"ReadWriteOnce"}, "hostPath": map[string]string{"path": "/disk"},
	}})
	return i
}

// putSecret makes bridge-secrets what i.secret says.
func (i *installation) putSecret() {
	i.t.Helper()
	data := map[string]string{}
	for name, text := range i.secret {
		data[name] = base64.StdEncoding.EncodeToString([]byte(text))
	}
	i.put("bridge-secrets", data)
}

// put makes a Secret what data says, in base64.
func (i *installation) put(name string, data map[string]string) {
	i.t.Helper()
	path, secret := fmt.Sprintf(Secrets, namespace), map[string]any{"metadata": map[string]string{"name": name}, "data": data}
	if !i.c.Read(path+"/"+name, new(map[string]any)) {
		i.c.Create(path, secret)
	} else if status, text := i.c.Call(i.c.admin, http.MethodPut, path+"/"+name, secret); status != http.StatusOK {
		i.t.Fatalf("changing %s answered %d: %s", name, status, text)
	}
}

// helm runs helm while the pods run, and returns all it says.
func (i *installation) helm(args ...string) (said string, err error) {
	i.t.Helper()
	if args[0] == "install" || args[0] == "upgrade" {
		values, err := json.Marshal(i.values)
		if err != nil {
			i.t.Fatal(err)
		}
		file := filepath.Join(i.t.TempDir(), "values.json")
		if err := os.WriteFile(file, values, 0o600); err != nil {
			i.t.Fatal(err)
		}
		args = append([]string{args[0], "serval", i.chart, "--values", file}, args[1:]...)
	}
	ctx, cancel := context.WithTimeout(i.t.Context(), settled+30*time.Second)
	defer cancel()
	helm := exec.CommandContext(ctx, Tool(i.t, "helm"), append(args, "--namespace", namespace)...)
	helm.Env = append(os.Environ(), "KUBECONFIG="+i.kube)
	var out bytes.Buffer
	helm.Stdout, helm.Stderr = &out, &out
	i.node.During(func() { err = helm.Run() })
	return out.String(), err
}

// must runs helm, which has to succeed.
func (i *installation) must(args ...string) string {
	i.t.Helper()
	said, err := i.helm(args...)
	if err != nil {
		for name := range i.node.logs {
			i.t.Logf("%s:\n%s", name, i.node.Log(name))
		}
		i.t.Fatalf("helm %s: %v\n%s", strings.Join(args, " "), err, said)
	}
	return said
}

// ready reports whether a Deployment has all its pods, ready and of its newest
// form.
func (i *installation) ready(name string) bool {
	var d struct {
		Metadata struct{ Generation int64 }
		Spec     struct{ Replicas int }
		Status   struct {
			ObservedGeneration                                int64
			Replicas, UpdatedReplicas, ReadyReplicas, Unavail int
		}
	}
	return i.c.Read("/apis/apps/v1/namespaces/"+namespace+"/deployments/"+name, &d) && d.Status.ObservedGeneration == d.Metadata.Generation &&
		d.Status.UpdatedReplicas == d.Spec.Replicas && d.Status.ReadyReplicas == d.Spec.Replicas && d.Status.Replicas == d.Spec.Replicas
}

// pods returns the ids of the pods of a part.
func (i *installation) pods(component string) (ids []string) {
	var list struct{ Items []podSpec }
	i.c.Read("/api/v1/namespaces/"+namespace+"/pods?labelSelector=app.kubernetes.io%2Fcomponent%3D"+component, &list)
	for _, p := range list.Items {
		if p.Metadata.DeletionTimestamp == nil {
			ids = append(ids, p.Metadata.UID)
		}
	}
	return ids
}

// test runs helm test, and returns whether it was green and what the pods wrote.
func (i *installation) test() (green bool, log string) {
	i.t.Helper()
	for name := range i.node.logs {
		if strings.HasSuffix(name, "-test") {
			delete(i.node.logs, name)
		}
	}
	said, err := i.helm("test", "serval", "--timeout", "60s")
	log = i.node.Log(namespace+"/serval-bridge-test") + i.node.Log(namespace+"/serval-worker-test")
	if log == "" {
		i.t.Fatalf("helm test ran nothing: %v\n%s", err, said)
	}
	return err == nil, log
}

// TestInstall is a person's way through the chart, before a real cluster.
func TestInstall(t *testing.T) {
	i := newInstallation(t)

	// The Secret is what people forget: helm says so, and the bridge says it too.
	said := i.must("install")
	for _, want := range []string{"The Secret bridge-secrets is not there yet", "kubectl create secret generic bridge-secrets --namespace serval", "helm test serval --namespace serval"} {
		if !strings.Contains(said, want) {
			t.Errorf("helm install does not say %q:\n%s", want, said)
		}
	}
	i.node.Until("told of the missing Secret", settled, func() bool {
		return strings.Contains(i.node.Log(namespace+"/serval-bridge"), "SERVAL_SECRET_FILE: the file cannot be read")
	})
	t.Logf("1. a missing Secret:\n%s\n%s", said, firstLines(i.node.Log(namespace+"/serval-bridge"), 8))

	began := time.Now()
	i.putSecret()
	i.node.Serve(namespace, "serval-bridge")
	i.node.Until("ready", settled, func() bool { return i.ready("serval-bridge") && i.ready("serval-worker") })
	t.Logf("ready %s after the Secret was there", time.Since(began).Round(time.Second))
	i.node.Until("read", settled, func() bool {
		return strings.Contains(i.node.Log(namespace+"/serval-worker"), `"account_id":"`+first+`"`)
	})

	green, log := i.test()
	if !green {
		t.Fatalf("helm test is not green:\n%s", log)
	}
	t.Logf("helm test:\n%s", log)

	// A new version of the chart, and another configuration, restart nothing; the
	// bridge takes the configuration up.
	before := append(i.pods("bridge"), i.pods("worker")...)
	i.newVersion()
	i.values["config"].(map[string]any)["admins"] = map[string]any{"groups": []string{"serval-admins"}}
	i.must("upgrade", "--wait", "--timeout", "60s")
	if after := append(i.pods("bridge"), i.pods("worker")...); strings.Join(before, " ") != strings.Join(after, " ") {
		t.Errorf("the pods were %v and are %v: an upgrade of the chart alone restarts them", before, after)
	}
	// Another setting replaces the bridge's pod, and SQLite goes with the volume.
	i.values["bridge"].(map[string]any)["settings"].(map[string]any)["SERVAL_MINT_RATE"] = 30
	i.must("upgrade", "--wait", "--timeout", "90s")
	if after := i.pods("bridge"); len(after) != 1 || after[0] == before[0] {
		t.Errorf("the bridge's pods are %v, want another than %s", after, before[0])
	}
	i.must("rollback", "serval", "--wait", "--timeout", "90s")

	t.Run("rotation", func(t *testing.T) { testRotation(t, i) })

	for number, m := range mistakes {
		t.Run(m.name, func(t *testing.T) {
			said := m.make(i)
			for _, want := range m.read {
				if !strings.Contains(said, want) {
					t.Errorf("what is read has no %q:\n%s", want, said)
				}
			}
			t.Logf("%d. %s:\n%s", number+2, m.name, relevant(said))
		})
	}

	if green, log := i.test(); !green {
		t.Errorf("helm test is not green in the end:\n%s", log)
	}
	i.must("uninstall", "serval", "--wait", "--timeout", "60s")
	if !i.c.Read("/api/v1/namespaces/"+namespace+"/persistentvolumeclaims/serval-bridge", new(map[string]any)) {
		t.Error("helm uninstall took the database with it")
	}
}

// newVersion has the chart be of a version that is newer, and is otherwise the same.
func (i *installation) newVersion() {
	i.t.Helper()
	dir := filepath.Join(i.t.TempDir(), "serval")
	if err := os.CopyFS(dir, os.DirFS(i.chart)); err != nil {
		i.t.Fatal(err)
	}
	file := filepath.Join(dir, "Chart.yaml")
	text := strings.Replace(string(read(i.t, file)), "\nversion: 0.1.0\n", "\nversion: 0.1.1\n", 1)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		i.t.Fatal(err)
	}
	i.chart = dir
}

// refused returns what helm says of values that cannot be.
func (i *installation) refused(set string) string {
	i.t.Helper()
	said, err := i.helm("upgrade", "--set", set)
	if err == nil {
		i.t.Errorf("helm upgrade with %s is not refused", set)
	}
	return said
}

// examined returns what helm test finds while something is otherwise.
func (i *installation) examined(wrong, right func()) string {
	i.t.Helper()
	wrong()
	green, log := i.test()
	right()
	if green {
		i.t.Error("helm test is green")
	}
	return log
}

// withSecret examines the installation with another value in bridge-secrets.
func (i *installation) withSecret(name, value string) string {
	i.t.Helper()
	was := i.secret[name]
	return i.examined(func() { i.secret[name] = value; i.putSecret() }, func() { i.secret[name] = was; i.putSecret() })
}

// The mistakes that people make, and what they read of each.
var mistakes = []struct {
	name string
	make func(i *installation) string
	read []string
}{
	{"no TLS", func(i *installation) string { return i.refused("tls.terminatedElsewhere=false") },
		[]string{"Port 80 carries credentials, so TLS has to end somewhere. Set one of:"}},
	{"two replicas on SQLite", func(i *installation) string { return i.refused("bridge.replicaCount=2") },
		[]string{"bridge.replicaCount is 2, and SQLite serves one: set bridge.database.type=postgresql, with SERVAL_DATABASE_URL in the Secret bridge-secrets"}},
	{"a typo in the values", func(i *installation) string { return i.refused("bridge.publicURL=https://serval.example.com") },
		[]string{"additional properties 'publicURL' not allowed"}},
	{"a wrong issuer", func(i *installation) string {
		return i.withSecret("SERVAL_OIDC_ISSUER", i.secret["SERVAL_OIDC_ISSUER"]+"/oauth2/default")
	}, []string{"fail  oidc.discovery", "Check SERVAL_OIDC_ISSUER to the letter: its description has to be at ", "/oauth2/default/.well-known/openid-configuration."}},
	{"a role that takes no session tags", func(i *installation) string {
		role := i.cloud.Account(first)
		externalID := serval.ExternalID(serval.NewSecret(i.secret["SERVAL_EXTERNAL_ID_SECRET"]), "acme")
		set := func(tags bool) func() {
			return func() { role.SetTrust("serval-ingestion", trusting(externalID, tags)) }
		}
		return i.examined(set(false), set(true))
	}, []string{"fail  account", "sts:TagSession"}},
	{"another subject", func(i *installation) string {
		bridge := i.values["bridge"].(map[string]any)
		defer delete(bridge, "extraEnv")
		return i.examined(func() {
			bridge["extraEnv"] = []any{map[string]string{"name": "SERVAL_WORKER_SUBJECT", "value": "system:serviceaccount:serval:somebody"}}
			i.must("upgrade", "--wait", "--timeout", "90s")
		}, func() {
			delete(bridge, "extraEnv")
			i.must("upgrade", "--wait", "--timeout", "90s")
		}) + i.node.Log(namespace+"/serval-bridge-")
	}, []string{"fail  upstream", "a worker's token is not accepted", "serval:somebody is who is recognised"}},
	{"blocked egress", func(i *installation) string {
		settings := i.values["bridge"].(map[string]any)["settings"].(map[string]any)
		was := settings["SERVAL_STS_ENDPOINT"]
		return i.examined(func() {
			settings["SERVAL_STS_ENDPOINT"] = "http://127.0.0.1:1"
			i.must("upgrade", "--wait", "--timeout", "90s")
		}, func() {
			settings["SERVAL_STS_ENDPOINT"] = was
			i.must("upgrade", "--wait", "--timeout", "90s")
		})
	}, []string{"fail  sts", "Let the bridge reach http://127.0.0.1:1: look at egress rules and network policies."}},
	{"a missing right to the Lease", func(i *installation) string {
		path := fmt.Sprintf(RoleBindings, namespace)
		return i.examined(func() { i.c.Delete(path, "serval-worker") }, func() {
			i.must("upgrade") // which makes it again
		})
	}, []string{"fail  lease"}},
	{"an old database under a new secret", func(i *installation) string {
		bridge := i.values["bridge"].(map[string]any)
		was := i.secret["SERVAL_SECRET"]
		begin := func(secret, attempt string) {
			i.secret["SERVAL_SECRET"] = secret
			i.putSecret()
			bridge["podAnnotations"] = map[string]string{"attempt": attempt}
			i.must("upgrade")
		}
		begin(rand.Text()+rand.Text(), "1")
		i.node.Until("refused", settled, func() bool {
			return strings.Contains(i.node.Log(namespace+"/serval-bridge-"), "was written with another SERVAL_SECRET")
		})
		said := i.node.Log(namespace + "/serval-bridge-")
		begin(was, "2")
		i.node.Until("ready again", settled, func() bool { return i.ready("serval-bridge") })
		at := strings.Index(said, "was written with another SERVAL_SECRET")
		return firstLines(said[strings.LastIndex(said[:at], "serval-bridge: "):], 1)
	}, []string{"The audit log was written with another SERVAL_SECRET", "Put the old secret behind a comma."}},
}

// firstLines returns the first lines of a text.
func firstLines(text string, n int) string {
	lines := strings.SplitAfterN(text, "\n", n+1)
	return strings.Join(lines[:min(n, len(lines))], "")
}

// relevant returns of findings those that are not fine, and of anything else its
// end.
func relevant(said string) string {
	var kept []string
	mends := false
	for line := range strings.Lines(said) {
		if strings.HasPrefix(line, "ok  ") || strings.HasPrefix(line, "skip") {
			mends = false
			continue
		}
		if mends = mends && strings.HasPrefix(line, "   ") || strings.HasPrefix(line, "fail") || strings.HasPrefix(line, "warn"); mends {
			kept = append(kept, line)
		}
	}
	if len(kept) == 0 {
		return said[max(0, len(said)-800):]
	}
	return strings.Join(kept, "")
}
