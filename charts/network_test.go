package charts

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A flow is one connection that somebody tries.
type flow struct {
	name string
	from any // end, at either side: a pod's labels or an address
	to   any
	port string // such as 443, or 53/UDP
	want bool
}

// labels are of a pod, in a namespace; ns is the namespace's name.
type pod struct {
	ns     string
	labels map[string]string
}

func component(name string) pod {
	return pod{"serval", map[string]string{"app.kubernetes.io/name": "serval", "app.kubernetes.io/instance": "serval", "app.kubernetes.io/component": name}}
}

// S-104, S-105: who reaches whom, by the policies as they are rendered.
func TestNetworkPolicy(t *testing.T) {
	bridge, worker := component("bridge"), component("worker")
	dns := pod{"kube-system", map[string]string{"k8s-app": "kube-dns"}}
	other := pod{"default", map[string]string{"app": "other"}}
	nginx := pod{"ingress-nginx", map[string]string{"app": "nginx"}}
	prometheus := pod{"monitoring", map[string]string{"app": "prometheus"}}
	const (
		aws, metadata, agent, agent6, database = "52.94.133.131", "169.254.169.254", "169.254.170.23", "fd00:ec2::23", "10.0.33.7"
	)
	for _, c := range []struct {
		name  string
		args  []string
		flows []flow
	}{
		{"the default", []string{"--set", elsewhere}, []flow{
			{"the worker, at the bridge", worker, bridge, "8080", true},
			{"the worker's test, at the bridge", component("worker-test"), bridge, "8080", true},
			{"the bridge's test, at the bridge", component("bridge-test"), bridge, "8080", true},
			{"the worker, at the bridge's admin port", worker, bridge, "9090", false},
			{"somebody, at the bridge", other, bridge, "8080", false},
			{"an address, at the bridge", "10.8.1.2", bridge, "8080", false},
			{"somebody, at the bridge's admin port", other, bridge, "9090", false},
			{"somebody, at the worker's admin port", other, worker, "9090", false},
			{"the bridge, at the worker", bridge, worker, "9090", false},
			{"the worker, at AWS", worker, aws, "443", true},
			{"the worker, at AWS in clear", worker, aws, "80", false},
			{"the worker, at the Pod Identity agent", worker, agent, "80", true},
			{"the worker, at the Pod Identity agent by IPv6", worker, agent6, "80", true},
			{"the worker, at instance metadata", worker, metadata, "80", false},
			{"the worker, at instance metadata by IPv6", worker, "fd00:ec2::254", "80", false},
			{"the worker, at instance metadata by TLS", worker, metadata, "443", false},
			{"the worker, at DNS", worker, dns, "53/UDP", true},
			{"the worker, at the node's DNS cache", worker, "169.254.20.10", "53/UDP", true},
			{"the worker, at DNS of the internet", worker, "198.51.100.53", "53/UDP", false},
			{"the worker, at the kubelet", worker, "10.0.1.2", "10250", false},
			{"the worker, at PostgreSQL", worker, database, "5432", false},
			{"the bridge, at the identity provider", bridge, "198.51.100.7", "443", true},
			{"the bridge, at the Pod Identity agent", bridge, agent, "80", false},
			{"the bridge, at instance metadata", bridge, metadata, "80", false},
			{"the bridge, at DNS", bridge, dns, "53/TCP", true},
			{"the bridge, at somebody's DNS", bridge, other, "53/UDP", false},
			{"the bridge, at PostgreSQL that it does not use", bridge, database, "5432", false},
		}},
		{"PostgreSQL, metrics and an ingress", []string{"--values", "serval/examples/postgresql.yaml"}, []flow{
			{"the ingress, at the bridge", nginx, bridge, "8080", true},
			{"the ingress, at the admin port", nginx, bridge, "9090", false},
			{"Prometheus, at the admin port", prometheus, bridge, "9090", true},
			{"Prometheus, at the worker's admin port", prometheus, worker, "9090", true},
			{"Prometheus, at the pages", prometheus, bridge, "8080", false},
			{"the bridge, at PostgreSQL", bridge, database, "5432", true},
			{"the bridge, at PostgreSQL elsewhere", bridge, "10.1.0.1", "5432", false},
			{"the worker, at PostgreSQL", worker, database, "5432", false},
		}},
		{"a VPN", []string{"--values", "serval/examples/tls-at-bridge.yaml"}, []flow{
			{"the VPN, at the bridge", "10.8.1.2", bridge, "8080", true},
			{"the internet, at the bridge", "203.0.113.1", bridge, "8080", false},
		}},
		{"narrow egress", []string{"--values", "serval/examples/cilium.yaml"}, []flow{
			{"the worker, at a VPC endpoint", worker, "10.0.3.4", "443", true},
			{"the worker, at the internet", worker, aws, "443", false},
			{"the bridge, at the mail server", bridge, "10.0.5.25", "587", true},
			{"the worker, at the mail server", worker, "10.0.5.25", "587", false},
		}},
		{"a worker of its own release", []string{"--set", "bridge.enabled=false"}, []flow{
			{"the worker, at the bridge of another release", worker, pod{"serval", map[string]string{"app.kubernetes.io/name": "serval", "app.kubernetes.io/instance": "other", "app.kubernetes.io/component": "bridge"}}, "8080", true},
			{"the worker, at a worker of another release", worker, pod{"serval", map[string]string{"app.kubernetes.io/name": "serval", "app.kubernetes.io/instance": "other", "app.kubernetes.io/component": "worker"}}, "8080", false},
			{"the worker, at somebody", worker, pod{"serval", map[string]string{"app": "other"}}, "8080", false},
		}},
		{"what helm test runs, and what else there is", []string{"--set", elsewhere}, []flow{
			{"the bridge's test, at whatever", component("bridge-test"), "203.0.113.9", "80", false},
			{"the worker's test, at whatever", component("worker-test"), "203.0.113.9", "80", false},
			{"another part, at the bridge", component("other"), bridge, "8080", false},
			{"somebody's worker, at the bridge", pod{"serval", map[string]string{"app.kubernetes.io/name": "other", "app.kubernetes.io/component": "worker"}}, bridge, "8080", false},
			{"a bridge, at the bridge", bridge, bridge, "8080", false},
			{"the bridge's test, at another part", component("bridge-test"), component("other"), "8080", false},
			{"the bridge's test, at the bridge of another release", component("bridge-test"),
				pod{"serval", map[string]string{"app.kubernetes.io/name": "serval", "app.kubernetes.io/instance": "other", "app.kubernetes.io/component": "bridge"}}, "8080", false},
			{"the worker, at instance metadata by IPv6", worker, "fd00:ec2::254", "443", false},
			{"the bridge, at instance metadata by IPv6", bridge, "fd00:ec2::254", "443", false},
			{"the worker, at its link by IPv6", worker, "fe80::1", "443", false},
			{"the worker, at AWS by IPv6", worker, "2001:db8::1", "443", true},
		}},
		{"a bridge elsewhere", []string{"--values", "serval/examples/worker-only.yaml"}, []flow{
			{"the worker, at a bridge here", worker, bridge, "8080", false},
			{"the worker, at the bridge by https", worker, "198.51.100.7", "443", true},
		}},
		{"instance metadata", []string{"--set", elsewhere, "--set", "worker.instanceMetadata.enabled=true"}, []flow{
			{"the worker, at instance metadata", worker, metadata, "80", true},
			{"the worker, at instance metadata by IPv6", worker, "fd00:ec2::254", "80", true},
			{"the worker, at another address there", worker, "169.254.7.7", "80", false},
			{"the worker, at another address there by IPv6", worker, "fd00:ec2::77", "80", false},
			{"the bridge, at instance metadata", bridge, metadata, "80", false},
		}},
	} {
		var policies []object
		for _, o := range mustRender(t, c.args...) {
			if o.kind() == "NetworkPolicy" {
				policies = append(policies, o)
			}
		}
		for _, f := range c.flows {
			if got := passes(policies, f); got != f.want {
				t.Errorf("%s: %s (port %s) passes: %t, want %t", c.name, f.name, f.port, got, f.want)
			}
		}
	}
}

// S-104: what Cilium is told besides, of what it takes for the host.
func TestCilium(t *testing.T) {
	of := func(args ...string) (all []string) {
		for _, o := range mustRender(t, append([]string{"--set", elsewhere, "--set", "networkPolicy.cilium=true"}, args...)...) {
			if o.kind() == "CiliumNetworkPolicy" {
				pods := o.at("spec.endpointSelector.matchExpressions").([]any)[0].(map[string]any)["values"]
				for _, r := range o.at("spec.egress").([]any) {
					rule := object(r.(map[string]any))
					all = append(all, fmt.Sprint(pods, " ", rule["toEntities"], " ", rule["toPorts"]))
				}
			}
		}
		return all
	}
	const api = " [kube-apiserver] [map[ports:[map[port:%s protocol:TCP]]]]"
	host, worker, bridge := "[worker worker-test] [host] [map[ports:[map[port:80 protocol:TCP]]]]", "[worker worker-test]"+api, "[bridge bridge-test]"+api
	for _, c := range []struct {
		args []string
		want []string
	}{
		{nil, []string{host, fmt.Sprintf(worker, "443"), fmt.Sprintf(bridge, "443")}},
		{[]string{"--set", "networkPolicy.egress.kubernetesApiPort=6443"}, []string{host, fmt.Sprintf(worker, "6443"), fmt.Sprintf(bridge, "6443")}},
		{[]string{"--set", "bridge.tokenReview=false"}, []string{host, fmt.Sprintf(worker, "443")}},
		{[]string{"--set", "worker.enabled=false"}, []string{fmt.Sprintf(bridge, "443")}},
		{[]string{"--set", "networkPolicy.enabled=false,worker.upstream.plaintext=true"}, nil},
		{[]string{"--set", "networkPolicy.cilium=false"}, nil},
	} {
		if diff := cmp.Diff(c.want, of(c.args...)); diff != "" {
			t.Errorf("%v: -want +got:\n%s", c.args, diff)
		}
	}
}

// passes evaluates policies as Kubernetes describes them: a pod that some policy
// selects for a direction lets only that pass which one of those allows.
func passes(policies []object, f flow) bool {
	return lets(policies, "Egress", f.from, f.to, f.port) && lets(policies, "Ingress", f.to, f.from, f.port)
}

func lets(policies []object, direction string, self, peer any, port string) bool {
	me, isPod := self.(pod)
	if !isPod || me.ns != "serval" {
		return true
	}
	selected := false
	for _, p := range policies {
		if !strings.Contains(fmt.Sprint(p.at("spec.policyTypes")), direction) || !matches(p.at("spec.podSelector"), me.labels) {
			continue
		}
		selected = true
		rules, _ := p.at("spec." + strings.ToLower(direction)).([]any)
		for _, r := range rules {
			rule := object(r.(map[string]any))
			ends, _ := rule[map[string]string{"Egress": "to", "Ingress": "from"}[direction]].([]any)
			if hasPort(rule["ports"], port) && hasPeer(ends, peer) {
				return true
			}
		}
	}
	return !selected
}

func hasPort(ports any, want string) bool {
	number, protocol, _ := strings.Cut(want, "/")
	if protocol == "" {
		protocol = "TCP"
	}
	for _, p := range ports.([]any) {
		port := object(p.(map[string]any))
		if fmt.Sprint(port["port"]) == number && port["protocol"] == protocol {
			return true
		}
	}
	return false
}

func hasPeer(peers []any, who any) bool {
	for _, p := range peers {
		peer := object(p.(map[string]any))
		switch who := who.(type) {
		case pod:
			if peer["ipBlock"] != nil {
				continue // a CNI need not see a pod as an address
			}
			namespace := peer["namespaceSelector"] == nil && who.ns == "serval" ||
				peer["namespaceSelector"] != nil && matches(peer["namespaceSelector"], map[string]string{"kubernetes.io/metadata.name": who.ns})
			if namespace && (peer["podSelector"] == nil || matches(peer["podSelector"], who.labels)) {
				return true
			}
		case string:
			cidr, _ := peer.at("ipBlock.cidr").(string)
			if cidr == "" || !netip.MustParsePrefix(cidr).Contains(netip.MustParseAddr(who)) {
				continue
			}
			except, _ := peer.at("ipBlock.except").([]any)
			excepted := false
			for _, e := range except {
				excepted = excepted || netip.MustParsePrefix(e.(string)).Contains(netip.MustParseAddr(who))
			}
			if !excepted {
				return true
			}
		}
	}
	return false
}

func matches(selector any, labels map[string]string) bool {
	s := object(selector.(map[string]any))
	if must, ok := s["matchLabels"].(map[string]any); ok {
		for k, v := range must {
			if labels[k] != v {
				return false
			}
		}
	}
	if must, ok := s["matchExpressions"].([]any); ok {
		for _, m := range must {
			e := object(m.(map[string]any))
			if !strings.Contains(" "+strings.Trim(fmt.Sprint(e["values"]), "[]")+" ", " "+labels[e["key"].(string)]+" ") {
				return false
			}
		}
	}
	return true
}
