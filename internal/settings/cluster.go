package settings

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// ServiceAccountDir is where Kubernetes puts the files of a pod's service
// account, unless the pod says otherwise.
const ServiceAccountDir = "/var/run/secrets/kubernetes.io/serviceaccount"

// A Cluster is the Kubernetes cluster that a program runs in, as its pod is told
// of it.
type Cluster struct {
	Server    string // URL of the API server
	TokenFile string // of the pod's service account; it is renewed there
	CAFile    string // whom to trust as API server
	Namespace string // the pod's own
}

// FindCluster returns the cluster that environ (NAME=value each) and the files
// in dir tell of: token, ca.crt and namespace. The error is what is missing, as
// the end of a sentence.
func FindCluster(environ []string, dir string) (Cluster, error) {
	var host, port string
	for _, text := range environ {
		switch name, value, _ := strings.Cut(text, "="); name {
		case "KUBERNETES_SERVICE_HOST":
			host = value
		case "KUBERNETES_SERVICE_PORT":
			port = value
		}
	}
	if host == "" || port == "" {
		return Cluster{}, errors.New("this is no pod of a Kubernetes cluster (KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set)")
	}
	c := Cluster{
		Server: "https://" + net.JoinHostPort(host, port), TokenFile: filepath.Join(dir, "token"), CAFile: filepath.Join(dir, "ca.crt"),
	}
	for _, name := range []string{"token", "ca.crt", "namespace"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		c.Namespace = strings.TrimSpace(string(text)) // in the end the last one's
		switch {
		case err != nil:
			return Cluster{}, fmt.Errorf("the pod's service account is not to be had from %s: %s: %s (is automountServiceAccountToken off?)",
				dir, name, reason(err))
		case c.Namespace == "":
			return Cluster{}, fmt.Errorf("the pod's service account is not to be had from %s: %s is empty", dir, name)
		}
	}
	return c, nil
}
