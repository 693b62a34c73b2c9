package settings

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFindCluster(t *testing.T) {
	here := []string{"KUBERNETES_SERVICE_HOST=10.96.0.1", "KUBERNETES_SERVICE_PORT=443"}
	files := map[string]string{"token": "abc", "ca.crt": "pem", "namespace": "serval\n"}
	for _, c := range []struct {
		name    string
		environ []string
		without string
		empty   string
		server  string
		fault   string
	}{
		{"a pod", here, "", "", "https://10.96.0.1:443", ""},
		{"a pod of IPv6", []string{"KUBERNETES_SERVICE_HOST=fd00::1", "KUBERNETES_SERVICE_PORT=6443"}, "", "", "https://[fd00::1]:6443", ""},
		{"no pod", nil, "", "", "", "this is no pod of a Kubernetes cluster"},
		{"no port", here[:1], "", "", "", "this is no pod of a Kubernetes cluster"},
		{"no host", here[1:], "", "", "", "this is no pod of a Kubernetes cluster"},
		{"no token", here, "token", "", "", "token: no such file or directory"},
		{"no authority", here, "ca.crt", "", "", "ca.crt: no such file or directory"},
		{"no namespace", here, "namespace", "", "", "namespace: no such file or directory"},
		{"an empty namespace", here, "", "namespace", "", "namespace is empty"},
	} {
		dir := t.TempDir()
		for name, text := range files {
			if name == c.empty {
				text = "\n"
			}
			if name == c.without {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got, err := FindCluster(c.environ, dir)
		if c.fault != "" {
			if err == nil || !strings.Contains(err.Error(), c.fault) || got != (Cluster{}) {
				t.Errorf("%s: %+v, %v; want only an error with %q", c.name, got, err, c.fault)
			}
			continue
		}
		want := Cluster{Server: c.server, TokenFile: dir + "/token", CAFile: dir + "/ca.crt", Namespace: "serval"}
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", c.name, got, err, want)
		}
	}
}
