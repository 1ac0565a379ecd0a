package guarantees

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mlfnode/cmd/mlfnode/hosts"
)

// buildRelease builds the program as a release, as `make build RELEASE=…` does.
func buildRelease(t *testing.T, release string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "mlfnode")
	build := exec.Command("go", "build", "-ldflags", "-X main.release="+release, "-o", bin, "mlfnode/cmd/mlfnode")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build release %s: %v\n%s", release, err, out)
	}
	return bin
}

// TestClusterOfTwoVersions runs a sweep on nodes of three versions, asks each of them who is there,
// and gives a worker and the master another version, an older one too, while trials run.
func TestClusterOfTwoVersions(t *testing.T) {
	t.Parallel()
	p := newScenario(t, 1, hosts.Options{})
	older, newer := buildRelease(t, "1.4.0"), buildRelease(t, "1.5.0")
	for name, bin := range map[string]string{"older": older, "newer": newer} {
		h := p.AddHost(name)
		cmd := h.Program(bin, "join", "--seed", p.Master.Name)
		cmd.Env = append(cmd.Env, "MLF_CLUSTER_TOKEN="+p.Token)
		h.Agent.StartCommand(cmd)
	}
	p.allAlive()
	checkVersions(p, map[string]string{"older": "1.4.0", "newer": "1.5.0"})
	p.Master.Must("drain", p.Master.Name)
	p.submitWriters(p.Host("older"), 24, 3, 50*time.Millisecond)
	p.checkAll()
	on := map[string]int{}
	for _, r := range p.ledger.lines() {
		on[r.host]++
	}
	if on["older"] == 0 || on["newer"] == 0 {
		t.Errorf("trials ran on %v, want both", on)
	}

	upgrade(p, p.Host("older"), newer, "join", "--seed", p.Master.Name)
	upgrade(p, p.Master, older, "master")
	checkVersions(p, map[string]string{"host1": "1.4.0", "older": "1.5.0", "newer": "1.5.0"})
	upgrade(p, p.Master, newer, "master")
	checkVersions(p, map[string]string{"host1": "1.5.0", "older": "1.5.0", "newer": "1.5.0"})
	p.submitWriters(p.Host("newer"), 12, 2, 50*time.Millisecond)
	p.checkAll()
}

// upgrade restarts the host's agent with another program, while trials run.
func upgrade(sc *scenario, h *hosts.Host, program string, args ...string) {
	sc.t.Helper()
	sc.submitWriters(sc.Host("newer"), 8, 10, 100*time.Millisecond)
	sc.ledger.waitForStarted(2)
	h.Agent.Kill()
	h.Agent.StartCommand(h.Program(program, args...))
	sc.checkAll()
	sc.allAlive()
}

// checkVersions waits until every node shows these versions.
func checkVersions(sc *scenario, want map[string]string) {
	sc.t.Helper()
	for _, h := range sc.Hosts {
		hosts.WaitFor(sc.t, hosts.Timeout, func() error { return wrongVersion(h, want) })
	}
	sc.t.Logf("\n%s", sc.Hosts[1].Must("members"))
}

func wrongVersion(h *hosts.Host, want map[string]string) error {
	all, err := h.Agent.Members()
	if err != nil {
		return err
	}
	for _, m := range all {
		if v := want[m.Node]; v != "" && m.Version != v {
			return fmt.Errorf("%s says that %s is of version %s, want %s", h.Name, m.Node, m.Version, v)
		}
	}
	if shown := h.Must("members"); !strings.Contains(shown, "version") {
		return fmt.Errorf("members show no versions:\n%s", shown)
	}
	return nil
}
