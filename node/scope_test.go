package node_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mlfnode/node/service/servicetest"
)

// TestKeeperDividesItsScope runs the keeper's own test on a machine with systemd and cgroup v2. Its v2 hierarchy lacks the memory
// controller where this machine has it in v1; another one that systemd leaves alone is passed down to the slices instead.
func TestKeeperDividesItsScope(t *testing.T) {
	m := servicetest.Boot(t)
	if !m.PassDown("hugetlb") {
		t.Skip("the v2 hierarchy of this machine has no controller to try this with")
	}
	bin := filepath.Join(t.TempDir(), "keeper.test")
	build := exec.Command("go", "test", "-c", "-o", bin, "./executor/shim")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	m.Copy(bin, "/root/keeper.test")
	out, err := m.Try("cd /root && KEEPER_TEST_SYSTEMD=yes ./keeper.test -test.v -test.run '^TestAsideUnderSystemd$'")
	if err != nil || !strings.Contains(out, "--- PASS: TestAsideUnderSystemd") {
		t.Errorf("on the machine: %v\n%s", err, out)
	}
}
