package kubetest

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
)

// collections are where objects of a kind are made, in a namespace or in none.
var collections = map[string]string{
	"Deployment": "/apis/apps/v1/namespaces/%s/deployments", "Service": "/api/v1/namespaces/%s/services", "ConfigMap": "/api/v1/namespaces/%s/configmaps",
	"PersistentVolumeClaim": "/api/v1/namespaces/%s/persistentvolumeclaims", "ServiceAccount": ServiceAccounts, "Role": Roles, "RoleBinding": RoleBindings,
	"ClusterRole": ClusterRoles, "ClusterRoleBinding": ClusterRoleBindings, "Pod": "/api/v1/namespaces/%s/pods",
	"NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/%s/networkpolicies", "Ingress": "/apis/networking.k8s.io/v1/namespaces/%s/ingresses",
	"PodDisruptionBudget": "/apis/policy/v1/namespaces/%s/poddisruptionbudgets",

	// Of others, as their projects define them.
	"ServiceMonitor": "/apis/monitoring.coreos.com/v1/namespaces/%s/servicemonitors", "PrometheusRule": "/apis/monitoring.coreos.com/v1/namespaces/%s/prometheusrules",
	"CiliumNetworkPolicy": "/apis/cilium.io/v2/namespaces/%s/ciliumnetworkpolicies", "ExternalSecret": "/apis/external-secrets.io/v1/namespaces/%s/externalsecrets",
	"Certificate": "/apis/cert-manager.io/v1/namespaces/%s/certificates",
}

// goldens are what the chart's examples render.
func goldens(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../../charts/testdata/golden/*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("the examples are %v, %v", files, err)
	}
	return files
}

// define has the cluster know the kinds of others that `make kube-tools` has laid
// out.
func define(t *testing.T, c *Cluster) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(os.Getenv("TEST_CRDS"), "*.yaml"))
	if err != nil || os.Getenv("TEST_CRDS") == "" || len(files) != 5 {
		t.Fatalf("the kinds of others are %v, %v: run make test-kube", files, err)
	}
	for _, file := range files {
		var o object
		if err := yaml.Unmarshal(read(t, file), &o); err != nil {
			t.Fatal(err)
		}
		c.Create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", o)
	}
	for _, path := range collections {
		if strings.Contains(path, "%s") {
			path = fmt.Sprintf(path, "default")
		}
		for deadline := time.Now().Add(ready); ; time.Sleep(100 * time.Millisecond) {
			if status, text := c.Call(c.admin, http.MethodGet, path, nil); status == http.StatusOK {
				break
			} else if time.Now().After(deadline) {
				t.Fatalf("%s is answered %d: %s", path, status, text)
			}
		}
	}
}

// S-100: the API server takes all that the chart's examples render, no field of
// it unknown or of a wrong type, and every pod in a namespace of Pod Security
// restricted.
func testExamples(t *testing.T, c *Cluster) {
	const strict = "restricted"
	c.Create(Namespaces, named(strict, object{"metadata": object{"name": strict, "labels": object{"pod-security.kubernetes.io/enforce": "restricted"}}}))
	for _, account := range []string{workerAccount, bridgeAccount, "default"} {
		c.Create(fmt.Sprintf(ServiceAccounts, strict), named(account, nil))
	}
	c.Create("/apis/scheduling.k8s.io/v1/priorityclasses", named("high", object{"value": 1000}))
	dry := func(path string, o object) {
		t.Helper()
		if strings.Contains(path, "%s") {
			path = fmt.Sprintf(path, strict)
		}
		o["metadata"].(map[string]any)["namespace"] = strict
		if strings.Contains(path, "clusterrole") {
			delete(o["metadata"].(map[string]any), "namespace")
		}
		if strings.Contains(path, "clusterrole") || strings.Contains(path, "serviceaccounts") {
			o["metadata"].(map[string]any)["name"] = "another" // those of that name are there
		}
		if status, text := c.Call(c.admin, http.MethodPost, path+"?dryRun=All&fieldValidation=Strict", o); status != http.StatusCreated {
			t.Errorf("%s %v is answered %d: %s", o["kind"], o["metadata"].(map[string]any)["name"], status, text)
		}
	}
	files := goldens(t)
	taken, pods := 0, 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		d := yaml.NewDecoder(strings.NewReader(string(text)))
		for {
			var o object
			if d.Decode(&o) != nil {
				break
			}
			if o == nil {
				continue
			}
			kind := o["kind"].(string)
			path, known := collections[kind]
			if !known {
				t.Errorf("%s: %s is not looked at", file, kind)
				continue
			}
			dry(path, o)
			taken++
			if kind == "Deployment" {
				template := object(o["spec"].(map[string]any)["template"].(map[string]any))
				dry(collections["Pod"], object{"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "of-a-deployment"}, "spec": template["spec"]})
				pods++
			}
		}
	}
	t.Logf("%d objects of %d examples are taken, and %d pods of Deployments", taken, len(files), pods)
	wrong := object{"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": object{"name": "x"}, "spec": object{"gruops": []object{}}}
	if status, text := c.Call(c.admin, http.MethodPost, fmt.Sprintf(collections["PrometheusRule"], strict)+"?dryRun=All&fieldValidation=Strict", wrong); status != http.StatusBadRequest || !strings.Contains(text, `unknown field \"spec.gruops\"`) {
		t.Errorf("a rule with a field that there is none of is answered %d: %s", status, text)
	}
	bad := object{"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": "x"}, "spec": object{"containers": []object{{"name": "x", "image": "x"}}}}
	if status, text := c.Call(c.admin, http.MethodPost, fmt.Sprintf(collections["Pod"], strict)+"?dryRun=All", bad); status != http.StatusForbidden || !strings.Contains(text, "violates PodSecurity") {
		t.Errorf("a pod that may more is answered %d: %s", status, text)
	}
}
