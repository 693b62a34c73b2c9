package kubetest

import (
	"os"
	"path/filepath"
	"testing"
)

// TestUpgrade goes from another version of Serval, its chart and its programs, to
// this one and back, on one database: helm test is green at each, and the account is
// read. TEST_PREVIOUS names a checkout with its programs in bin; make test-upgrade
// makes one.
func TestUpgrade(t *testing.T) {
	previous := os.Getenv("TEST_PREVIOUS")
	if previous == "" {
		t.Skip("this needs the version before: run make test-upgrade PREVIOUS=REVISION")
	}
	i := newInstallation(t)
	for _, name := range []string{"serval-bridge", "serval-worker"} {
		i.node.Programs[name+":before"] = filepath.Join(previous, "bin", name)
	}
	to := func(tag, chart string) {
		i.values["image"] = map[string]any{"tag": tag}
		i.chart = chart
	}
	green := func(at string) {
		t.Helper()
		i.node.Until("ready", settled, func() bool { return i.ready("serval-bridge") && i.ready("serval-worker") })
		ok, log := i.test()
		if !ok {
			t.Errorf("helm test is not green %s:\n%s", at, log)
		}
		t.Logf("%s: helm test is green: %t", at, ok)
	}
	now := i.chart

	to("before", filepath.Join(previous, "charts", "serval"))
	i.putSecret()
	i.must("install")
	i.node.Serve(namespace, "serval-bridge")
	green("of the version before")
	before := i.pods("bridge")

	to("now", now)
	i.must("upgrade", "--wait", "--timeout", "90s")
	green("after the upgrade")
	if after := i.pods("bridge"); len(after) != 1 || after[0] == before[0] {
		t.Errorf("the bridge's pods are %v, want another than %s", after, before[0])
	}

	// Programs of the version before run on the newer schema. R-42
	i.must("rollback", "serval", "--wait", "--timeout", "90s")
	green("after going back")

	to("now", now)
	i.must("upgrade", "--wait", "--timeout", "90s")
	green("after the upgrade once more")
}
