package overssh

import (
	"fmt"
	"strings"
	"testing"

	"mlfnode/cmd/mlfnode/hosts"
)

// TestMoveMasterOverSSH moves the master, which runs trials, to a worker's machine, while a third
// one runs trials; and refuses what can't be moved.
func TestMoveMasterOverSSH(t *testing.T) {
	t.Parallel()
	l := newHarness(t, 3)
	l.laptop.Must(three...)
	l.laptop.Must("sweep", "--name", "before", "--set", "i=1:4", "--", "echo", "result {i}")
	l.laptop.Must("drain", "host1")
	l.laptop.Must("drain", "host2")
	gate := l.Hosts[2].Accounts.Home(hosts.DefaultUser) + "/ML/gate"
	l.laptop.Must("sweep", "--detach", "--set", "i=1", "--", "sh", "-c",
		"until [ -e "+gate+" ]; do sleep 0.1; done; echo end")
	hosts.WaitFor(t, hosts.Timeout, func() error {
		if n := len(l.trials("running")); n != 1 {
			return fmt.Errorf("%d trials run, want 1", n)
		}
		return nil
	})
	r := l.laptop.Try("move-master", "host1")
	if want := "mlfnode: host1 is already the master\n"; r.Code != 1 || !strings.HasPrefix(r.Stderr, want) {
		t.Errorf("to the master itself: got %d, %q, want %q", r.Code, r.Stderr, want)
	}
	out := l.laptop.Must("move-master", "host2")
	wantLine(t, out, "host2", "moved the state of host1")
	l.laptop.Must("undrain", "host1")
	if r := l.Hosts[2].Run(l.Hosts[2].Accounts.As(hosts.DefaultUser,
		l.Hosts[2].Program("/usr/bin/touch", gate))); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	hosts.WaitFor(t, hosts.Timeout, func() error {
		if n := len(l.trials("succeeded")); n != 1 {
			return fmt.Errorf("%d trials succeeded, want 1", n)
		}
		return nil
	})
	if tr := l.trials("succeeded"); tr[0].Attempts != 1 {
		t.Errorf("the trial on the third machine took %d attempts, want the first to go on", tr[0].Attempts)
	}
	if got := l.laptop.Must("logs", "before"); strings.Count(got, "result") != 3 {
		t.Errorf("output of before the move: got\n%s", got)
	}
	out = l.laptop.Must("up", "-f")
	for _, h := range []string{"host1", "host2", "host3"} {
		wantLine(t, out, h, "unchanged")
	}
	if n := l.members(); n != 3 {
		t.Errorf("%d nodes are alive, want 3", n)
	}
	wantLine(t, l.laptop.Must("status"), "host2", "master")
	l.laptop.Must("sweep", "--set", "i=1:10", "--", "echo", "{i}")
	l.laptop.Must("down", "--purge", "--yes")
	l.nothingLeft("ML")
}

// TestMoveMasterFails has a machine with a state folder of somebody's: it stays as it is, and the
// cluster comes up as it was.
func TestMoveMasterFails(t *testing.T) {
	t.Parallel()
	l := newHarness(t, 2)
	l.laptop.WriteFile("cluster.yaml",
		"root: ML\nhosts:\n  - {address: host1, roles: [master, worker]}\n  - {address: host2, roles: []}\n")
	l.laptop.Must("up", "-f")
	l.laptop.Must("sweep", "--set", "i=1:4", "--", "echo", "{i}")
	state := l.Hosts[1].Accounts.Home(hosts.DefaultUser) + "/ML/state/trust"
	if r := l.Hosts[1].Run(l.Hosts[1].Accounts.As(hosts.DefaultUser,
		l.Hosts[1].Program("/bin/mkdir", "-p", state))); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	r := l.laptop.Try("move-master", "host2")
	for _, want := range []string{"host2: could not copy the state of host1: the state folder",
		"is not empty: it has trust", "\n  try: the cluster comes up as it was with: mlfnode up -f"} {
		if r.Code != 1 || !strings.Contains(r.Stderr, want) {
			t.Errorf("exit code %d, got\n%s\nwant %q in it", r.Code, r.Stderr, want)
		}
	}
	wantLine(t, l.laptop.Must("up", "-f"), "host1", "started")
	if n := len(l.trials("succeeded")); n != 3 {
		t.Errorf("%d trials succeeded, want the 3 of before", n)
	}
	wantLine(t, l.laptop.Must("status"), "host1", "master")
	l.laptop.Must("down", "--purge", "--yes")
}
