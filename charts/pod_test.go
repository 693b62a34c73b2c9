package charts

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// pods returns every pod that the objects lead to, by what makes it.
func pods(objects []object) map[string]object {
	all := map[string]object{}
	for _, o := range objects {
		switch o.kind() {
		case "Deployment":
			all[o.name()] = object(o.at("spec.template").(map[string]any))
		case "Pod":
			all[o.name()] = o
		}
	}
	return all
}

// S-100, S-101, S-102, S-106, S-107, S-108, S-113: of every pod of every example.
func TestPods(t *testing.T) {
	for _, file := range examples(t) {
		objects := mustRender(t, "--values", file)
		for name, pod := range pods(objects) {
			t.Run(filepath.Base(file)+"/"+name, func(t *testing.T) {
				want := func(path string, value any) {
					t.Helper()
					if got := pod.at(path); fmt.Sprint(got) != fmt.Sprint(value) {
						t.Errorf("%s is %v, want %v", path, got, value)
					}
				}
				want("spec.securityContext.runAsNonRoot", true)
				want("spec.securityContext.runAsUser", 65532)
				want("spec.securityContext.runAsGroup", 65532)
				want("spec.securityContext.fsGroup", 65532)
				want("spec.securityContext.seccompProfile.type", "RuntimeDefault")
				want("spec.enableServiceLinks", false)
				for _, path := range []string{"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} {
					want("spec."+path, nil)
				}
				for _, v := range pod.at("spec.volumes").([]any) {
					volume := v.(map[string]any)
					for kind := range volume {
						if !slices.Contains([]string{"name", "configMap", "secret", "projected", "emptyDir", "persistentVolumeClaim"}, kind) {
							t.Errorf("volume %v is a %s", volume["name"], kind)
						}
					}
					if dir, ok := volume["emptyDir"].(map[string]any); ok && dir["sizeLimit"] == nil {
						t.Errorf("volume %v has no limit", volume["name"])
					}
				}
				containers := pod.at("spec.containers").([]any)
				if len(containers) != 1 {
					t.Fatalf("%d containers", len(containers))
				}
				c := object(containers[0].(map[string]any))
				for path, value := range map[string]any{
					"securityContext.allowPrivilegeEscalation": false, "securityContext.readOnlyRootFilesystem": true,
					"securityContext.capabilities.drop": []any{"ALL"}, "securityContext.privileged": nil, "securityContext.capabilities.add": nil,
				} {
					if got := c.at(path); fmt.Sprint(got) != fmt.Sprint(value) {
						t.Errorf("%s is %v, want %v", path, got, value)
					}
				}
				if c.at("resources.requests.memory") == nil || c.at("resources.limits.memory") == nil {
					t.Errorf("resources are %v", c["resources"])
				}
				env, _ := json.Marshal(c["env"])
				for _, secret := range []string{"secretKeyRef", "secretRef"} {
					if strings.Contains(string(env), secret) {
						t.Errorf("a secret is in the environment: %s", env)
					}
				}
				if !strings.Contains(string(env), `{"name":"GOMEMLIMIT","value":"483183820"}`) { // of 512 MiB
					t.Errorf("GOMEMLIMIT is not nine tenths of the limit: %s", env)
				}
				if c["lifecycle"] != nil || c["command"] != nil {
					t.Errorf("there is no shell in the image: %v, %v", c["lifecycle"], c["command"])
				}
				if strings.HasSuffix(name, "-test") {
					return
				}
				bridge := name == "serval-bridge"
				for probe, path := range map[string]string{
					"livenessProbe": "/livez", "readinessProbe": "/readyz", "startupProbe": map[bool]string{true: "/readyz", false: "/livez"}[bridge],
				} {
					if got := c.at(probe + ".httpGet.path"); got != path {
						t.Errorf("the %s asks %v, want %s", probe, got, path)
					}
					if got := c.at(probe + ".httpGet.port"); got != "admin" {
						t.Errorf("the %s asks port %v", probe, got)
					}
				}
				var grace, start int
				_, _ = fmt.Sscan(fmt.Sprint(pod.at("spec.terminationGracePeriodSeconds")), &grace)
				_, _ = fmt.Sscan(fmt.Sprint(c.at("startupProbe.failureThreshold")), &start)
				if bridge && (grace < 5+30+10 || start < 100) {
					t.Errorf("%d s to end and %d looks at the start", grace, start)
				}
				if pod.at("spec.topologySpreadConstraints") == nil {
					t.Error("the pods are not spread")
				}
			})
		}
		// S-113: nothing leads people to the admin port.
		for _, o := range objects {
			if text, _ := json.Marshal(o["spec"]); o.kind() == "Ingress" && strings.Contains(string(text), "admin") ||
				o.kind() == "Service" && o.name() == "serval-bridge" && strings.Contains(string(text), "9090") {
				t.Errorf("%s: %s %s leads to the admin port: %s", file, o.kind(), o.name(), text)
			}
		}
	}
}

// what the Go runtime may have is nine tenths of the limit, however that is
// written.
func TestMemoryLimit(t *testing.T) {
	for limit, want := range map[string]string{
		"512Mi": "483183820", "1.5Gi": "1449551462", "100M": "90000000", "1G": "900000000", "2Ti": "1979120929996",
		"500000k": "450000000", "600000Ki": "552960000", "1T": "900000000000", "1073741824": "966367641", "null": "",
	} {
		for _, name := range []string{"bridge", "worker"} {
			objects := mustRender(t, "--set", elsewhere, "--set", name+".resources.limits.memory="+limit)
			got := ""
			container := find(t, objects, "Deployment", "serval-"+name).at("spec.template.spec.containers").([]any)[0].(map[string]any)
			for _, v := range container["env"].([]any) {
				if v := v.(map[string]any); v["name"] == "GOMEMLIMIT" {
					got = fmt.Sprint(v["value"])
				}
			}
			if got != want {
				t.Errorf("with a limit of %s the %s has GOMEMLIMIT=%q, want %q", limit, name, got, want)
			}
		}
	}
}

// S-102: the rights that are given, all of them.
func TestRights(t *testing.T) {
	for _, c := range []struct {
		set  string
		kind string
		name string
		want string
	}{
		{"", "ClusterRole", "serval-bridge-tokenreview-serval", `[{"apiGroups":["authentication.k8s.io"],"resources":["tokenreviews"],"verbs":["create"]}]`},
		{"", "Role", "serval-worker", `[{"apiGroups":["coordination.k8s.io"],"resources":["leases"],"verbs":["create"]},` +
			`{"apiGroups":["coordination.k8s.io"],"resourceNames":["serval-worker-0"],"resources":["leases"],"verbs":["get","update"]}]`},
		{"worker.shards=2", "Role", "serval-worker", `[{"apiGroups":["coordination.k8s.io"],"resources":["leases"],"verbs":["create"]},` +
			`{"apiGroups":["coordination.k8s.io"],"resourceNames":["serval-worker-0","serval-worker-1"],"resources":["leases"],"verbs":["get","update"]}]`},
	} {
		objects := mustRender(t, "--set", elsewhere, "--set", c.set)
		if got, _ := json.Marshal(find(t, objects, c.kind, c.name)["rules"]); string(got) != c.want {
			t.Errorf("%s %s, with %q:\n got %s\nwant %s", c.kind, c.name, c.set, got, c.want)
		}
		var roles []string
		for _, o := range objects {
			if strings.HasSuffix(o.kind(), "Role") {
				roles = append(roles, o.kind()+" "+o.name())
			}
		}
		slices.Sort(roles)
		if want := []string{"ClusterRole serval-bridge-tokenreview-serval", "Role serval-worker"}; !slices.Equal(roles, want) {
			t.Errorf("roles are %v, want %v", roles, want)
		}
	}
	// Whoever else runs under these service accounts has no token by that.
	made := mustRender(t, "--set", elsewhere, "--set", "worker.serviceAccount.create=true")
	for _, name := range []string{"serval-bridge", "serval-worker-sa"} {
		if got := find(t, made, "ServiceAccount", name)["automountServiceAccountToken"]; got != false {
			t.Errorf("%s has tokens mounted by itself: %v", name, got)
		}
	}
	objects := mustRender(t, "--set", elsewhere, "--set", "bridge.tokenReview=false")
	for _, o := range objects {
		if strings.HasPrefix(o.kind(), "ClusterRole") {
			t.Errorf("%s %s without token reviews", o.kind(), o.name())
		}
	}
	if got := find(t, objects, "Deployment", "serval-bridge").at("spec.template.spec.automountServiceAccountToken"); got != false {
		t.Errorf("a bridge that asks the cluster nothing has a token: %v", got)
	}
}

// S-104: policies and Services find pods by these labels, so nobody's own take
// their place.
func TestLabelsOfPods(t *testing.T) {
	const component = `app\.kubernetes\.io/component`
	objects := mustRender(t, "--set", elsewhere, "--set", "commonLabels."+component+"=other,bridge.podLabels."+component+"=worker,worker.podLabels."+component+"=bridge")
	for _, name := range []string{"bridge", "worker"} {
		labels := find(t, objects, "Deployment", "serval-"+name).at("spec.template.metadata.labels").(map[string]any)
		if got := labels["app.kubernetes.io/component"]; got != name {
			t.Errorf("the pods of the %s are labelled %v", name, got)
		}
	}
}

// S-106: one with SQLite, and the old one ends first; several with PostgreSQL, and
// none is taken before the next is ready.
func TestReplicas(t *testing.T) {
	sqlite := mustRender(t, "--set", elsewhere)
	several := mustRender(t, "--values", "serval/examples/postgresql.yaml")
	for _, c := range []struct {
		objects []object
		path    string
		want    any
	}{
		{sqlite, "spec.replicas", 1},
		{sqlite, "spec.strategy.type", "Recreate"},
		{several, "spec.replicas", 3},
		{several, "spec.strategy.type", "RollingUpdate"},
		{several, "spec.strategy.rollingUpdate.maxUnavailable", 0},
	} {
		if got := find(t, c.objects, "Deployment", "serval-bridge").at(c.path); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s is %v, want %v", c.path, got, c.want)
		}
	}
	if got := find(t, several, "PodDisruptionBudget", "serval-bridge").at("spec.minAvailable"); fmt.Sprint(got) != "1" {
		t.Errorf("minAvailable is %v, want 1", got)
	}
	for _, o := range sqlite {
		if o.kind() == "PodDisruptionBudget" && o.name() == "serval-bridge" {
			t.Error("a budget for one replica would hold up every drain")
		}
	}
	claim := find(t, sqlite, "PersistentVolumeClaim", "serval-bridge")
	if got := object(claim.at("metadata.annotations").(map[string]any))["helm.sh/resource-policy"]; got != "keep" {
		t.Errorf("helm uninstall does with the database: %v", got)
	}
	for _, o := range several {
		if o.kind() == "PersistentVolumeClaim" {
			t.Error("a volume for PostgreSQL")
		}
	}
}

// What changes the configuration file alone changes no pod: the bridge reads it
// while it runs.
func TestConfigRestartsNothing(t *testing.T) {
	template := func(team string) string {
		text, err := json.Marshal(find(t, mustRender(t, "--set", elsewhere, "--set", "config.team="+team), "Deployment", "serval-bridge")["spec"])
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if a, b := template("a"), template("b"); a != b {
		t.Errorf("the pod goes by the configuration:\n%s\n%s", a, b)
	}
}
