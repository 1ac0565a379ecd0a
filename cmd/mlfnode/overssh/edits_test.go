package overssh

import (
	"fmt"
	"strings"
	"testing"

	"mlfnode/cmd/mlfnode/hosts"
)

// TestRoleIsTaken takes the role of a worker away, and gives it back.
func TestRoleIsTaken(t *testing.T) {
	t.Parallel()
	l := newHarness(t, 3)
	l.laptop.Must("up", "-a", "host1,host2,host3", "-r", "ML", "-m", "1", "-w", "1,2,3")
	out := l.laptop.Must("up", "-f", "-w", "3")
	wantLine(t, out, "host1", "restarted")
	wantLine(t, out, "host2", "stopped")
	wantLine(t, out, "host3", "unchanged")
	hosts.WaitFor(t, hosts.Timeout, func() error {
		if n := l.members(); n != 2 {
			return fmt.Errorf("%d nodes are alive, want 2", n)
		}
		return nil
	})
	out = l.laptop.Must("up", "-f", "-w", "2,3")
	wantLine(t, out, "host1", "unchanged")
	wantLine(t, out, "host2", "started")
	l.laptop.Must("down", "--purge", "--yes")
	l.nothingLeft("")
}

// TestPortsAreChanged moves a cluster to other ports.
func TestPortsAreChanged(t *testing.T) {
	t.Parallel()
	l := newHarness(t, 2)
	cluster := "root: ML\nhosts:\n  - {address: host1, roles: [master, worker]}\n  - {address: host2, roles: [worker]}\n"
	l.laptop.WriteFile("lab.yaml", cluster)
	l.laptop.Must("up", "-f", "lab.yaml")
	l.laptop.WriteFile("lab.yaml", cluster+"settings: {ports: {api: 7520, nats: 7521, gossip: 7522}}\n")
	for _, state := range []string{"restarted", "unchanged"} {
		out := l.laptop.Must("up", "-f", "lab.yaml")
		wantLine(t, out, "host1", state)
		wantLine(t, out, "host2", state)
	}
	if n := l.members(); n != 2 {
		t.Errorf("%d nodes are alive, want 2", n)
	}
	l.laptop.Must("sweep", "--set", "i=1:4", "--", "echo", "{i}")
	l.laptop.Must("down", "-f", "lab.yaml", "--purge", "--yes")
	l.nothingLeft("")
}

// TestNodesAreRenamed gives first a worker, then the master another name.
func TestNodesAreRenamed(t *testing.T) {
	t.Parallel()
	l := newHarness(t, 2)
	for _, names := range [][]string{{"first", "fast"}, {"first", "faster"}, {"last", "faster"}} {
		l.laptop.WriteFile("lab.yaml",
			fmt.Sprintf("root: ML\nhosts:\n  - {address: host1, name: %s, roles: [master]}\n"+
				"  - {address: host2, name: %s, roles: [worker]}\n", names[0], names[1]))
		l.laptop.Must("up", "-f", "lab.yaml")
		members := l.laptop.Must("members")
		for _, name := range names {
			wantLine(t, members, name, "alive")
		}
		if names[1] != "fast" && strings.Contains(members, "fast ") {
			t.Errorf("the old name of the worker is still there:\n%s", members)
		}
		l.laptop.Must("sweep", "--set", "i=1:2", "--", "echo", "{i}")
	}
	l.laptop.WriteFile("lab.yaml", "root: ML\nhosts:\n  - {address: host1, name: last, roles: [master]}\n")
	if r := l.laptop.Try("status", "-f", "lab.yaml"); r.Code != 0 ||
		!strings.Contains("\n"+r.Stderr, "\nnote: faster is also a member of the cluster, but is not in the file") {
		t.Errorf("status: exit code %d, want 0 and a note:\n%s", r.Code, r.Stderr)
	}
	l.laptop.WriteFile("lab.yaml",
		"root: ML\nhosts: [{address: host2, roles: [worker]}, {address: host1, roles: [master]}]\n")
	l.laptop.Must("down", "-f", "lab.yaml", "--purge", "--yes")
	l.nothingLeft("")
}
