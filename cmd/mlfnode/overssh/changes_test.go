package overssh

import (
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/cmd/mlfnode/hosts"
)

// TestHostIsWiped loses all that a worker had, as when its machine is reinstalled: the next up
// makes it one again, by its name.
func TestHostIsWiped(t *testing.T) {
	t.Parallel()
	l := newHarness(t, 2)
	l.laptop.Must("up", "-a", "host1,host2", "-r", "ML", "-m", "1", "-w", "2")
	l.wipe(l.Hosts[1])
	wantLine(t, l.laptop.Must("up", "-f"), "host2", "installed mlfnode", "joined", "started")
	if n := l.members(); n != 2 {
		t.Errorf("%d nodes are alive, want 2", n)
	}
	l.laptop.Must("down", "--purge", "--yes")
	l.nothingLeft("")
}

// wipe ends all that runs from the folder of a cluster, and removes it.
func (hs *harness) wipe(h *hosts.Host) {
	hs.t.Helper()
	for _, p := range h.Processes.Leftovers() {
		_ = unix.Kill(p.PID, unix.SIGKILL) // it may be gone
	}
	home := h.Accounts.Home(hosts.DefaultUser)
	if r := h.Run(h.Program("/bin/rm", "-rf", filepath.Join(home, "ML"))); r.Code != 0 {
		hs.t.Fatal(r.Stderr)
	}
}

// TestMasterIsWiped does the same to the master: the others join the new one.
func TestMasterIsWiped(t *testing.T) {
	t.Parallel()
	l := newHarness(t, 2)
	l.laptop.Must("up", "-a", "host1,host2", "-r", "ML", "-m", "1", "-w", "2")
	l.wipe(l.Hosts[0])
	out := l.laptop.Must("up", "-f")
	wantLine(t, out, "host1", "installed mlfnode", "started")
	wantLine(t, out, "host2", "joined", "started")
	if n := l.members(); n != 2 {
		t.Errorf("%d nodes are alive, want 2", n)
	}
	l.laptop.Must("down", "--purge", "--yes")
	l.nothingLeft("")
}

// TestOneMachineTwice names a machine by its name and by its address: it works under the first one
// alone.
func TestOneMachineTwice(t *testing.T) {
	t.Parallel()
	l := newHarness(t, 2)
	r := l.laptop.Try("up", "-a", "host1,host2,"+l.Hosts[1].Addr, "--accept-new", "-r", "ML", "-m", "1", "-w", "2,3")
	if r.Code != 1 || !strings.Contains(r.Stderr, "10-77-0-2: it is the same machine as host2\n  try: name it once") {
		t.Errorf("exit code %d, want 1 and the cause:\n%s", r.Code, r.Stderr)
	}
	if n := l.members(); n != 2 {
		t.Errorf("%d nodes are alive, want 2", n)
	}
	l.laptop.Must("down", "--purge", "--yes")
	l.nothingLeft("")
}

// TestEnvironmentOfLogin has start-up files that name another master, which is for what the user
// types there.
func TestEnvironmentOfLogin(t *testing.T) {
	t.Parallel()
	l := newHarness(t, 1, user(hosts.User{StartUp: "export MLF_MASTER=elsewhere\n"}))
	l.laptop.Must("up", "-a", "host1", "-r", "ML", "-m", "1", "-w", "1")
	l.laptop.Must("down", "--purge", "--yes")
	l.nothingLeft("")
}

// TestHungPrograms meets programs that hang, as with a GPU that is gone or an engine that does not
// answer.
func TestHungPrograms(t *testing.T) {
	t.Parallel()
	hung := "#!/bin/sh\nexec sleep 600\n"
	l := newHarness(t, 1, hosts.SSHD{Programs: map[string]string{"docker": hung, "sudo": hung}})
	began := time.Now()
	l.laptop.Must("up", "-a", "host1", "-r", "ML", "-m", "1", "-w", "1")
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("up took %v", took)
	}
	l.laptop.Must("down", "--purge", "--yes")
	l.nothingLeft("")
}

// TestTwoUps runs up twice at a time.
func TestTwoUps(t *testing.T) {
	t.Parallel()
	l := newHarness(t, 2)
	args := []string{"up", "-a", "host1,host2", "-r", "ML", "-m", "1", "-w", "1,2"}
	var both sync.WaitGroup
	results := make([]hosts.Result, 2)
	for i := range results {
		both.Go(func() { results[i] = l.laptop.Try(args...) })
	}
	both.Wait()
	for _, r := range results {
		if r.Code != 0 {
			t.Errorf("exit code %d:\n%s%s", r.Code, r.Stdout, r.Stderr)
		}
	}
	if n := l.members(); n != 2 {
		t.Errorf("%d nodes are alive, want 2", n)
	}
	l.laptop.Must("down", "--purge", "--yes")
	l.nothingLeft("")
}

// TestAnotherOnesNode is beside the node of another user, which is none of down's business.
func TestAnotherOnesNode(t *testing.T) {
	t.Parallel()
	l := newHarness(t, 1, hosts.SSHD{Users: []hosts.User{{}, {Name: "bob"}}})
	l.laptop.Must("up", "-a", "bob@host1", "-r", "ML", "-m", "1")
	for _, address := range []string{"host1", "root@host1"} {
		mine := "hosts: [{address: " + address + ", roles: [master]}]\n"
		l.laptop.WriteFile("mine.yaml", mine)
		r := l.laptop.Try("up", "-f", "mine.yaml")
		if r.Code != 1 || !strings.Contains(r.Stderr, "port 7422/tcp is held by ") {
			t.Errorf("%s: exit code %d, want 1 and who holds the port:\n%s", address, r.Code, r.Stderr)
		}
		l.laptop.WriteFile("mine.yaml", "settings:\n  ports: {api: 7520, nats: 7521, gossip: 7522}\n"+mine)
		l.laptop.Must("up", "-f", "mine.yaml")
		l.laptop.WriteFile("mine.yaml", mine)
		l.laptop.Must("down", "-f", "mine.yaml", "--purge", "--yes")
	}
	l.laptop.Must("down", "--purge", "--yes")
	l.nothingLeft("")
}

// TestFolderIsALink has the folder on another disk, by way of a link, as where the home folder is
// on the network.
func TestFolderIsALink(t *testing.T) {
	t.Parallel()
	l := newHarness(t, 1)
	home := l.Hosts[0].Accounts.Home(hosts.DefaultUser)
	disk := filepath.Join(home, "scratch")
	for _, args := range [][]string{{"/bin/mkdir", disk}, {"/bin/ln", "-s", disk, filepath.Join(home, "ML")}} {
		if r := l.Hosts[0].Run(l.Hosts[0].Accounts.As(hosts.DefaultUser,
			l.Hosts[0].Program(args[0], args[1:]...))); r.Code != 0 {
			t.Fatal(r.Stderr)
		}
	}
	l.laptop.Must("up", "-a", "host1", "-r", "ML", "-m", "1", "-w", "1")
	l.laptop.Must("sweep", "--set", "i=1:2", "--", "echo", "{i}")
	wantLine(t, l.laptop.Must("restart"), "host1", "restarted")
	wantLine(t, l.laptop.Must("up", "-f"), "host1", "unchanged")
	wantLine(t, l.laptop.Must("down", "--purge", "--yes"), "host1", "stopped")
	l.nothingLeft("scratch")
}
