package kubetest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/porttest"
)

// The identity that pods run under.
const nobody = 65532

// Kubernetes takes no loopback address for a pod's. It is told of one below
// shown, which stands for that below real.
const shown, real = "10.244.0.", "127.2.0."

// A Node runs the pods of a cluster: each container is the real program, in a
// file system of its own that holds the program and what the pod mounts and that
// it cannot write to, under the pod's user. It is no container engine: the network
// is the machine's, so every pod has a loopback address of its own and listens
// there, and no network policy holds.
//
// What pods mount of Secrets and ConfigMaps changes with these, as the kubelet has
// it. It works only while the test waits in During, so that nothing is shared.
type Node struct {
	// Programs are the files that images stand for, by the last part of their name,
	// with the tag where there is one of several versions.
	Programs map[string]string

	c    *Cluster
	t    testing.TB
	dir  string
	pods map[string]*running // by UID
	logs map[string][]*log   // by namespace/name
	last byte                // of the addresses given
}

// A log is what a container has written.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write keeps it.
func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String returns all of it.
func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// A running is a pod on the node.
type running struct {
	spec     podSpec
	address  string
	root     string
	program  *program
	log      *log
	restarts int
	again    time.Time // when it is started again
	probed   time.Time
	ready    bool
	said     string // the status that was last written
	stopping bool
}

// What is read of Kubernetes' objects.
type podSpec struct {
	Metadata struct {
		Name, Namespace, UID string
		DeletionTimestamp    *string
	}
	Spec struct {
		ServiceAccountName string
		RestartPolicy      string
		Containers         []container
		Volumes            []volume
	}
}

type container struct {
	Name, Image string
	Args        []string
	Env         []struct {
		Name, Value string
		ValueFrom   *struct {
			ResourceFieldRef *struct{ Resource, Divisor string }
		}
	}
	VolumeMounts []struct {
		Name, MountPath string
		ReadOnly        bool
	}
	Ports []struct {
		Name          string
		ContainerPort int
	}
	ReadinessProbe *struct {
		HTTPGet struct {
			Path string
			Port any
		}
	}
	Resources struct{ Limits map[string]string }
}

type volume struct {
	Name      string
	ConfigMap *struct {
		Name     string
		Optional bool
	}
	Secret *struct {
		SecretName string
		Optional   bool
	}
	PersistentVolumeClaim *struct{ ClaimName string }
	EmptyDir              *struct{}
	Projected             *struct {
		Sources []struct {
			ServiceAccountToken *struct{ Audience, Path string }
			ConfigMap           *struct{ Name string }
			DownwardAPI         *struct {
				Items []struct{ Path string }
			}
		}
	}
}

// StartWhole starts a cluster that also has controllers, a scheduler and a node,
// so that a Deployment comes to pods that run.
func StartWhole(t testing.TB) (*Cluster, *Node) {
	t.Helper()
	controllers, scheduler := Tool(t, "kube-controller-manager"), Tool(t, "kube-scheduler")
	if runtime.GOOS != "linux" {
		missing(t, "pods run here on Linux only: each has an address of loopback and a root folder of its own, with what it mounts")
	}
	if os.Geteuid() != 0 {
		t.Skip("pods run here as root only: each gets a root folder and a user of its own")
	}
	c := Start(t)
	dir := t.TempDir()
	config := c.Kubeconfig()
	c.run(dir, controllers, "--kubeconfig="+config, "--root-ca-file="+c.CAFile, "--service-account-private-key-file="+filepath.Join(filepath.Dir(filepath.Dir(c.CAFile)), "sa.key"),
		"--leader-elect=false", "--use-service-account-credentials=false", "--bind-address=127.0.0.1", "--secure-port=0",
		"--controllers=*,-node-lifecycle-controller,-taint-eviction-controller,-cloud-node-lifecycle-controller,-node-ipam-controller")
	c.run(dir, scheduler, "--kubeconfig="+config, "--leader-elect=false", "--bind-address=127.0.0.1", "--secure-port="+portOf(porttest.Own(t)))
	n := &Node{Programs: map[string]string{}, c: c, t: t, dir: folder(t), pods: map[string]*running{}, logs: map[string][]*log{}}
	c.Create("/api/v1/nodes", map[string]any{"metadata": map[string]any{
		"name": "node", "labels": map[string]string{"kubernetes.io/hostname": "node", "topology.kubernetes.io/zone": "a"},
	}})
	room := map[string]string{"cpu": "16", "memory": "64Gi", "pods": "100"}
	// Nobody looks after nodes here: it is ready because it is said to be.
	n.change("/api/v1/nodes/node", "spec", map[string]any{"taints": nil})
	n.change("/api/v1/nodes/node/status", "status", map[string]any{"capacity": room, "allocatable": room, "conditions": []any{map[string]string{"type": "Ready", "status": "True"}}})
	return c, n
}

// folder returns a folder that pods may pass through, unlike the test's own.
func folder(t testing.TB) string {
	dir, err := os.MkdirTemp("", "kubetest-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func portOf(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// Kubeconfig writes what an administrator's tools read, and returns its path.
func (c *Cluster) Kubeconfig() string {
	c.t.Helper()
	file := filepath.Join(c.t.TempDir(), "kubeconfig")
	text, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "test",
		"clusters": []any{map[string]any{"name": "test", "cluster": map[string]string{"server": c.Server, "certificate-authority": c.CAFile}}},
		"users":    []any{map[string]any{"name": "admin", "user": map[string]string{"token": c.admin}}},
		"contexts": []any{map[string]any{"name": "test", "context": map[string]string{"cluster": "test", "user": "admin"}}},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		c.t.Fatal(err)
	}
	return file
}

// Read reads an object into v, and reports whether there is one.
func (c *Cluster) Read(path string, v any) bool {
	c.t.Helper()
	status, text := c.Call(c.admin, http.MethodGet, path, nil)
	if status == http.StatusNotFound {
		return false
	}
	if status != http.StatusOK {
		c.t.Fatalf("reading %s answered %d: %s", path, status, text)
	}
	if err := json.Unmarshal([]byte(text), v); err != nil {
		c.t.Fatalf("reading %s: %v", path, err)
	}
	return true
}

// change changes a part of an object, spec or status; one that is gone has none.
func (n *Node) change(path, part string, to any) {
	n.t.Helper()
	text, err := json.Marshal(map[string]any{part: to})
	if err != nil {
		n.t.Fatal(err)
	}
	r, err := http.NewRequest(http.MethodPatch, n.c.Server+path, bytes.NewReader(text))
	if err != nil {
		n.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+n.c.admin)
	r.Header.Set("Content-Type", "application/merge-patch+json")
	answer, err := n.c.client.Do(r)
	if err != nil {
		n.t.Fatal(err)
	}
	defer answer.Body.Close()
	if said, _ := io.ReadAll(answer.Body); answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusNotFound {
		n.t.Fatalf("changing %s answered %d: %s", path, answer.StatusCode, said)
	}
}

// During runs the pods until f returns. F runs beside it, and must not use the
// node.
func (n *Node) During(f func()) {
	n.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	for {
		n.turn()
		select {
		case <-done:
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Until runs the pods until ok returns true, and fails the test with what all
// pods have written where it does not in time.
func (n *Node) Until(what string, patience time.Duration, ok func() bool) {
	n.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			for name := range n.logs {
				n.t.Logf("%s:\n%s", name, n.Log(name))
			}
			var events struct {
				Items []struct{ Reason, Message string }
			}
			n.c.Read("/api/v1/events", &events)
			for _, e := range events.Items {
				n.t.Logf("%s: %s", e.Reason, e.Message)
			}
			n.t.Fatalf("not %s in %s", what, patience)
		}
		n.turn()
	}
}

// Log returns what the pods of that namespace and beginning of a name have written,
// with all their restarts.
func (n *Node) Log(name string) string {
	var all strings.Builder
	for of, logs := range n.logs {
		if strings.HasPrefix(of, name) {
			for _, l := range logs {
				all.WriteString(l.String())
			}
		}
	}
	return all.String()
}

// turn brings the node's pods nearer to what the cluster wants.
func (n *Node) turn() {
	n.t.Helper()
	var list struct{ Items []podSpec }
	n.c.Read("/api/v1/pods?fieldSelector=spec.nodeName%3Dnode", &list)
	there := map[string]bool{}
	for _, spec := range list.Items {
		id := spec.Metadata.UID
		there[id] = true
		p := n.pods[id]
		if p == nil {
			n.last++
			p = &running{spec: spec, address: fmt.Sprint(real, n.last)}
			n.pods[id] = p
		}
		n.look(p, spec.Metadata.DeletionTimestamp != nil)
	}
	for id, p := range n.pods {
		if !there[id] {
			p.end(syscall.SIGKILL)
			delete(n.pods, id)
		}
	}
}

// end sends the pod's program a signal, where it runs.
func (p *running) end(signal syscall.Signal) {
	if p.runs() {
		_ = syscall.Kill(p.program.pid, signal) // it may end this very moment
	}
}

func (p *running) runs() bool {
	if p.program == nil {
		return false
	}
	select {
	case <-p.program.ended:
		return false
	default:
		return true
	}
}

// look takes the next step with a pod.
func (n *Node) look(p *running, deleted bool) {
	n.t.Helper()
	name := fmt.Sprintf("/api/v1/namespaces/%s/pods/%s", p.spec.Metadata.Namespace, p.spec.Metadata.Name)
	switch {
	case deleted && p.runs() && !p.stopping:
		p.stopping = true
		p.end(syscall.SIGTERM)
	case deleted && !p.runs():
		status, text := n.c.Call(n.c.admin, http.MethodDelete, name+"?gracePeriodSeconds=0", nil)
		if status != http.StatusOK && status != http.StatusNotFound {
			n.t.Fatalf("removing %s answered %d: %s", name, status, text)
		}
		return
	case deleted:
	case p.program == nil:
		if why := n.begin(p); why != "" {
			n.say(p, name, map[string]any{"phase": "Pending", "reason": "CreateContainerError", "message": why})
		}
	case !p.runs() && p.spec.Spec.RestartPolicy != "Never" && p.again.IsZero():
		p.again = time.Now().Add(time.Second << min(p.restarts, 3))
	case !p.runs() && p.spec.Spec.RestartPolicy != "Never" && time.Now().After(p.again):
		p.restarts++
		p.again = time.Time{}
		n.begin(p)
	}
	if p.program == nil {
		return
	}
	if p.runs() && time.Since(p.probed) > 300*time.Millisecond {
		p.probed, p.ready = time.Now(), n.probe(p)
		for _, m := range p.spec.Spec.Containers[0].VolumeMounts {
			for _, v := range p.spec.Spec.Volumes {
				if v.Name == m.Name && (v.Secret != nil || v.ConfigMap != nil) {
					n.renew(p, v, filepath.Join(p.root, m.MountPath))
				}
			}
		}
	}
	c := p.spec.Spec.Containers[0]
	state := map[string]any{"running": map[string]any{}}
	phase, ready := "Running", p.ready && p.runs() && !deleted
	if !p.runs() {
		state = map[string]any{"terminated": map[string]any{"exitCode": p.program.code, "reason": map[bool]string{true: "Completed", false: "Error"}[p.program.code == 0]}}
		if p.spec.Spec.RestartPolicy == "Never" {
			phase = map[bool]string{true: "Succeeded", false: "Failed"}[p.program.code == 0]
		}
	}
	conditions := []any{}
	for _, kind := range []string{"Initialized", "PodScheduled", "ContainersReady", "Ready"} {
		holds := ready || kind == "Initialized" || kind == "PodScheduled"
		conditions = append(conditions, map[string]string{"type": kind, "status": map[bool]string{true: "True", false: "False"}[holds]})
	}
	ip := strings.Replace(p.address, real, shown, 1)
	n.say(p, name, map[string]any{
		"phase": phase, "podIP": ip, "podIPs": []any{map[string]string{"ip": ip}}, "hostIP": "127.0.0.1", "conditions": conditions,
		"containerStatuses": []any{map[string]any{"name": c.Name, "image": c.Image, "imageID": c.Image, "ready": ready, "started": ready, "restartCount": p.restarts, "state": state}},
	})
}

// say writes a pod's status, if it is another than before.
func (n *Node) say(p *running, name string, status map[string]any) {
	text, err := json.Marshal(status)
	if err != nil {
		n.t.Fatal(err)
	}
	if string(text) != p.said {
		p.said = string(text)
		n.change(name+"/status", "status", status)
	}
}

// probe asks the container whether it is ready; one without a probe is.
func (n *Node) probe(p *running) bool {
	c := p.spec.Spec.Containers[0]
	if c.ReadinessProbe == nil {
		return true
	}
	port := fmt.Sprint(c.ReadinessProbe.HTTPGet.Port)
	for _, named := range c.Ports {
		if named.Name == port {
			port = strconv.Itoa(named.ContainerPort)
		}
	}
	client := http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get("http://" + net.JoinHostPort(p.address, port) + c.ReadinessProbe.HTTPGet.Path)
	if err != nil {
		return false
	}
	answer.Body.Close()
	return answer.StatusCode < 400
}

// begin lays out the container's file system and starts its program. It returns
// why it cannot.
func (n *Node) begin(p *running) (why string) {
	n.t.Helper()
	c := p.spec.Spec.Containers[0]
	image, _, _ := strings.Cut(path.Base(c.Image), ":")
	program := cmp.Or(n.Programs[path.Base(c.Image)], n.Programs[image])
	if program == "" {
		return "there is no image " + c.Image
	}
	p.root = filepath.Join(n.dir, p.spec.Metadata.UID)
	n.write(filepath.Join(p.root, image), read(n.t, program), 0o755)
	hosts := "127.0.0.1 localhost\n"
	var services struct {
		Items []struct {
			Metadata struct{ Name, Namespace string }
		}
	}
	n.c.Read("/api/v1/services", &services)
	for i, s := range services.Items {
		hosts += fmt.Sprintf("127.3.0.%d %s.%s.svc %s\n", i+1, s.Metadata.Name, s.Metadata.Namespace, s.Metadata.Name)
	}
	n.write(filepath.Join(p.root, "etc/hosts"), []byte(hosts), 0o644)
	n.write(filepath.Join(p.root, "etc/resolv.conf"), []byte("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"), 0o644)
	for _, m := range c.VolumeMounts {
		for _, v := range p.spec.Spec.Volumes {
			if v.Name == m.Name {
				if why := n.mount(p, v, filepath.Join(p.root, m.MountPath)); why != "" {
					return why
				}
			}
		}
	}
	host, port, _ := net.SplitHostPort(strings.TrimPrefix(n.c.Server, "https://"))
	environ := []string{"KUBERNETES_SERVICE_HOST=" + host, "KUBERNETES_SERVICE_PORT=" + port}
	values := map[string]string{}
	for _, e := range c.Env {
		value := regexp.MustCompile(`\$\((\w+)\)`).ReplaceAllStringFunc(e.Value, func(s string) string { return values[s[2:len(s)-1]] })
		if e.ValueFrom != nil && e.ValueFrom.ResourceFieldRef != nil {
			value = strings.TrimSuffix(c.Resources.Limits["memory"], "Mi")
		}
		if strings.HasPrefix(value, ":") && strings.HasSuffix(e.Name, "_LISTEN") {
			value = p.address + value
		}
		values[e.Name] = value
		environ = append(environ, e.Name+"="+value)
	}
	p.log = &log{}
	of := p.spec.Metadata.Namespace + "/" + p.spec.Metadata.Name
	n.logs[of] = append(n.logs[of], p.log)
	p.program = start(n.t, p.log, append(environ, "PATH="+os.Getenv("PATH")), "chroot", append([]string{fmt.Sprintf("--userspec=%d:%d", nobody, nobody), "--groups=", p.root, "/" + image}, c.Args...)...)
	return ""
}

// mount lays out a volume as a folder, readable to the pod's user alone.
func (n *Node) mount(p *running, v volume, at string) (why string) {
	n.t.Helper()
	namespace := "/api/v1/namespaces/" + p.spec.Metadata.Namespace
	n.folder(at)
	var object struct{ Data map[string]string }
	switch {
	case v.ConfigMap != nil, v.Secret != nil:
		if !n.renew(p, v, at) && (v.ConfigMap != nil && !v.ConfigMap.Optional || v.Secret != nil && !v.Secret.Optional) {
			return "what volume " + v.Name + " is of is not found"
		}
	case v.PersistentVolumeClaim != nil:
		disk := filepath.Join(n.dir, "claim-"+v.PersistentVolumeClaim.ClaimName)
		n.folder(disk)
		if err := os.Chown(disk, nobody, nobody); err != nil {
			n.t.Fatal(err)
		}
		if p.restarts > 0 {
			return "" // it is there
		}
		// By the program: the call of the kernel is one that other systems have not.
		if text, err := exec.Command("mount", "--bind", disk, at).CombinedOutput(); err != nil {
			n.t.Fatalf("mounting a claim: %v: %s", err, text)
		}
		n.t.Cleanup(func() { _ = exec.Command("umount", "--lazy", at).Run() })
	case v.EmptyDir != nil:
		if err := os.Chown(at, nobody, nobody); err != nil {
			n.t.Fatal(err)
		}
	case v.Projected != nil:
		for _, s := range v.Projected.Sources {
			switch {
			case s.ServiceAccountToken != nil:
				var audiences []string
				if s.ServiceAccountToken.Audience != "" {
					audiences = []string{s.ServiceAccountToken.Audience}
				}
				n.write(filepath.Join(at, s.ServiceAccountToken.Path), []byte(n.c.Token(p.spec.Metadata.Namespace, p.spec.Spec.ServiceAccountName, audiences...)), 0o444)
			case s.ConfigMap != nil:
				n.c.Read(namespace+"/configmaps/"+s.ConfigMap.Name, &object)
				for name, text := range object.Data {
					n.write(filepath.Join(at, name), []byte(text), 0o444)
				}
			case s.DownwardAPI != nil:
				for _, i := range s.DownwardAPI.Items {
					n.write(filepath.Join(at, i.Path), []byte(p.spec.Metadata.Namespace), 0o444)
				}
			}
		}
	}
	return ""
}

// renew has a folder hold what its ConfigMap or Secret has now, each file whole, and
// reports whether there is one. What is gone leaves what was there.
func (n *Node) renew(p *running, v volume, at string) bool {
	n.t.Helper()
	namespace := "/api/v1/namespaces/" + p.spec.Metadata.Namespace
	files := map[string][]byte{}
	if v.Secret != nil {
		var secret struct{ Data map[string][]byte }
		if !n.c.Read(namespace+"/secrets/"+v.Secret.SecretName, &secret) {
			return false
		}
		files = secret.Data
	} else {
		var config struct{ Data map[string]string }
		if !n.c.Read(namespace+"/configmaps/"+v.ConfigMap.Name, &config) {
			return false
		}
		for name, text := range config.Data {
			files[name] = []byte(text)
		}
	}
	there, err := os.ReadDir(at)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, f := range there {
		if _, kept := files[f.Name()]; !kept {
			if err := os.Remove(filepath.Join(at, f.Name())); err != nil {
				n.t.Fatal(err)
			}
		}
	}
	for name, text := range files {
		file := filepath.Join(at, name)
		if was, err := os.ReadFile(file); err == nil && bytes.Equal(was, text) {
			continue
		}
		n.write(at+".next", text, 0o444)
		if err := os.Rename(at+".next", file); err != nil {
			n.t.Fatal(err)
		}
	}
	return true
}

func (n *Node) folder(dir string) {
	n.t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		n.t.Fatal(err)
	}
}

func (n *Node) write(file string, text []byte, mode os.FileMode) {
	n.t.Helper()
	n.folder(filepath.Dir(file))
	if err := os.WriteFile(file, text, mode); err != nil {
		n.t.Fatal(err)
	}
}

func read(t testing.TB, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Serve has a Service answer at its name, as pods see it: connections to its ports
// go to a pod that it selects and that is ready.
func (n *Node) Serve(namespace, name string) {
	n.t.Helper()
	var services struct {
		Items []struct {
			Metadata struct{ Name, Namespace string }
			Spec     struct {
				Ports []struct{ Port int }
			}
		}
	}
	n.c.Read("/api/v1/services", &services)
	for i, s := range services.Items {
		if s.Metadata.Name != name || s.Metadata.Namespace != namespace {
			continue
		}
		for _, port := range s.Spec.Ports {
			l, err := net.Listen("tcp", fmt.Sprintf("127.3.0.%d:%d", i+1, port.Port))
			if err != nil {
				n.t.Fatal(err)
			}
			n.t.Cleanup(func() { l.Close() })
			go n.c.forward(l, fmt.Sprintf("/apis/discovery.k8s.io/v1/namespaces/%s/endpointslices?labelSelector=kubernetes.io%%2Fservice-name%%3D%s", namespace, name))
		}
	}
}

// forward takes connections on to where the endpoints say.
func (c *Cluster) forward(l net.Listener, endpoints string) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			_, text, err := c.call(c.admin, http.MethodGet, endpoints, nil)
			var list struct {
				Items []struct {
					Endpoints []struct {
						Addresses  []string
						Conditions struct{ Ready bool }
					}
					Ports []struct{ Port int }
				}
			}
			if err != nil || json.Unmarshal([]byte(text), &list) != nil {
				return
			}
			for _, slice := range list.Items {
				for _, e := range slice.Endpoints {
					if !e.Conditions.Ready || len(slice.Ports) == 0 {
						continue
					}
					to, err := net.Dial("tcp", net.JoinHostPort(strings.Replace(e.Addresses[0], shown, real, 1), strconv.Itoa(slice.Ports[0].Port)))
					if err != nil {
						return
					}
					defer to.Close()
					go func() { _, _ = io.Copy(to, conn) }() // either side may hang up
					_, _ = io.Copy(conn, to)
					return
				}
			}
		}()
	}
}
