package node_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mlfnode/node/service/servicetest"
)

// TestShimDividesItsScope runs the shim's own test on a machine with systemd and cgroup v2. Its v2
// hierarchy lacks the memory controller where this machine has it in v1; another one that systemd
// leaves alone is passed down to the slices instead.
func TestShimDividesItsScope(t *testing.T) {
	m := servicetest.Boot(t)
	if !m.PassDown("hugetlb") {
		t.Skip("the v2 hierarchy of this machine has no controller to try this with")
	}
	bin := filepath.Join(t.TempDir(), "shim.test")
	build := exec.Command("go", "test", "-c", "-o", bin, "./executor/shim")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	m.Copy(bin, "/root/shim.test")
	out, err := m.Try("cd /root && SHIM_TEST_SYSTEMD=yes ./shim.test -test.v -test.run '^TestDelegationUnderSystemd$'")
	if err != nil || !strings.Contains(out, "--- PASS: TestDelegationUnderSystemd") {
		t.Errorf("on the machine: %v\n%s", err, out)
	}
}
