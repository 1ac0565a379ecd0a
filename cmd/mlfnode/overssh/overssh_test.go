// Package overssh shows that `mlfnode up` and its kin do what they promise, on hosts with real
// OpenSSH servers.
package overssh

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/cmd/mlfnode/hosts"
	"mlfnode/grid/gridtest"
)

// program is the mlfnode under test, without what only debuggers read: it is sent to hosts again
// and again.
var program string

func TestMain(m *testing.M) {
	os.Exit(gridtest.RunWithProgram(m, &program, "-ldflags", "-s -w"))
}

// harness is n hosts that can be logged in to, and a laptop that knows them.
type harness struct {
	*hosts.Harness
	t        *testing.T
	machines []*hosts.Host // without the laptop
	laptop   *hosts.Laptop
}

func newHarness(t *testing.T, n int, how ...hosts.SSHD) *harness {
	t.Helper()
	s := hosts.New(t, n, hosts.Options{Program: program})
	for i, h := range s.Hosts {
		o := hosts.SSHD{}
		if i < len(how) {
			o = how[i]
		}
		h.SSH.Install(o)
	}
	l := &harness{Harness: s, t: t, machines: slices.Clone(s.Hosts), laptop: s.Laptop("laptop")}
	l.laptop.Trust()
	return l
}

// nothingLeft fails when a host still has a process, a port or a changed file outside of the
// folder.
func (hs *harness) nothingLeft(root string) {
	hs.t.Helper()
	for _, h := range hs.machines {
		hosts.WaitFor(hs.t, 5*time.Second, func() error { return nothingRuns(h) })
		for _, p := range h.Network.Listening() {
			if p.Number >= 7420 && p.Number <= 7422 {
				hs.t.Errorf("%s: something listens on %v", h.Name, p)
			}
		}
		if changed := h.Files.Changes(filepath.Join(h.Accounts.Home(hosts.DefaultUser), root)); len(changed) > 0 {
			hs.t.Errorf("%s: files outside of %s: %v", h.Name, root, changed)
		}
	}
}

// nothingRuns fails while a machine still runs something. The server's own processes for a
// connection end a moment after it.
func nothingRuns(h *hosts.Host) error {
	if left := h.Processes.Leftovers(); len(left) > 0 {
		return fmt.Errorf("%s: processes are left: %v", h.Name, left)
	}
	return nil
}

// members is how many nodes the laptop sees alive.
func (hs *harness) members() int {
	hs.t.Helper()
	var all []struct{ State string }
	text := hs.laptop.Must("members", "--json")
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		hs.t.Fatal(err)
	}
	n := 0
	for _, m := range all {
		if m.State == "alive" {
			n++
		}
	}
	if n < len(all) {
		hs.t.Logf("not all members are alive: %s", text)
	}
	return n
}

// TestTheOldExample is the example of the old system, word for word.
func TestTheOldExample(t *testing.T) {
	t.Parallel()
	l := newHarness(t, 3)
	began := time.Now()
	out := l.laptop.Must("up", "-a", "host1,host2,host3", "-r", "ML", "-d", "chainer", "-m", "1", "-w", "2,3")
	t.Logf("up took %v:\n%s", time.Since(began), out)
	if n := l.members(); n != 3 {
		t.Errorf("%d nodes are alive, want 3", n)
	}
	r := l.laptop.Try("sweep", "chainer", "echo")
	if r.Code != 0 {
		t.Fatalf("sweep: exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	for _, node := range []string{"host2", "host3"} {
		if !strings.Contains(r.Stdout+r.Stderr, node) {
			t.Errorf("no output from %s:\n%s%s", node, r.Stdout, r.Stderr)
		}
	}
	began = time.Now()
	if out = l.laptop.Must("up", "-f"); strings.Count(out, "unchanged") != 3 {
		t.Errorf("a second up changed something:\n%s", out)
	}
	t.Logf("a second up took %v", time.Since(began))
	began = time.Now()
	out = l.laptop.Must("down")
	t.Logf("down took %v:\n%s", time.Since(began), out)
	l.nothingLeft("ML")
}

// TestKilledUp kills up at random moments; the next one makes a working cluster, and down leaves
// nothing.
func TestKilledUp(t *testing.T) {
	t.Parallel()
	l := newHarness(t, 3)
	args := []string{"up", "-a", "host1,host2,host3", "-r", "ML", "-m", "1", "-w", "2,3"}
	for i := range 10 {
		up := l.laptop.Start(args...)
		wait(time.Duration(100+350*i) * time.Millisecond)
		up.Signal(unix.SIGKILL)
		<-up.Ended()
		if r := l.laptop.Try("up", "-f"); strings.Contains(r.Stderr, "there is no cluster.yaml in this folder") {
			l.laptop.Must(args...) // it had not come far enough to write one
		} else if r.Code != 0 {
			t.Fatalf("after kill %d: exit code %d:\n%s%s", i, r.Code, r.Stdout, r.Stderr)
		}
		if n := l.members(); n != 3 {
			t.Errorf("after kill %d: %d nodes are alive, want 3", i, n)
		}
		l.laptop.Must("down", "--purge", "--yes")
		l.nothingLeft("")
	}
}

// wait lets time pass, which is what the moments of kills are made of.
func wait(d time.Duration) { <-time.After(d) }
