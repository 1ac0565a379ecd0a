package servicetest

import (
	"fmt"
	"os/exec"
	"strconv"
	"testing"

	"mlfnode/grid/gridtest"
)

// Link connects machines pairwise by a cable and assigns the address 10.88.0.n to the n-th one, so
// that each reaches every other. The cables disappear with the machines.
func Link(t testing.TB, machines ...*Machine) {
	t.Helper()
	gridtest.Program(t, "ip")
	for i, a := range machines {
		for j := i + 1; j < len(machines); j++ {
			b := machines[j]
			here, there := fmt.Sprintf("to%d", j+1), fmt.Sprintf("to%d", i+1)
			host(t, "ip", "link", "add", here, "netns", strconv.Itoa(a.leader), "type", "veth", "peer", "name", there,
				"netns", strconv.Itoa(b.leader))
			a.connect(here, i+1, j+1)
			b.connect(there, j+1, i+1)
		}
	}
}

// connect assigns the machine its address at its end of a cable to another one.
func (m *Machine) connect(device string, own, peer int) {
	m.t.Helper()
	m.network("addr", "add", Address(own), "peer", Address(peer), "dev", device)
	m.network("link", "set", device, "up")
}

// Address returns the address of the n-th machine of a Link.
func Address(n int) string { return fmt.Sprintf("10.88.0.%d", n) }

// network runs ip in the machine's network. The program is that of the test's own machine, since
// the small root has none.
func (m *Machine) network(args ...string) {
	m.t.Helper()
	host(m.t, "nsenter", append([]string{"--target", strconv.Itoa(m.leader), "--net", "ip"}, args...)...)
}

func host(t testing.TB, program string, args ...string) {
	t.Helper()
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", program, args, err, out)
	}
}
