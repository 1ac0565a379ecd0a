package guarantees

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/cmd/mlfnode/hosts"
)

// TestMembersEverywhere asks each node who is there, with the master and without it.
func TestMembersEverywhere(t *testing.T) {
	t.Parallel()
	p := newScenario(t, 3, hosts.Options{Debian: true})
	for _, h := range p.Hosts {
		all, err := h.Agent.Members()
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range all {
			want := p.Hosts[i]
			if m.Node != want.Name || m.State != "alive" || !strings.HasPrefix(m.Address, want.Addr) ||
				m.Version == "" || m.CPUs != slotsOfHost || m.Memory <= 0 {
				t.Errorf("%s says of %s: %+v", h.Name, want.Name, m)
			}
			if slices.Contains(m.Roles, "master") != (want == p.Master) || !slices.Contains(m.Roles, "worker") {
				t.Errorf("%s says that the roles of %s are %v", h.Name, want.Name, m.Roles)
			}
		}
	}
	p.Master.PowerCut()
	for _, h := range p.Hosts[1:] {
		h.Agent.WaitForState("host1", "dead", hosts.Timeout)
		h.Agent.WaitForState("host2", "alive", hosts.Timeout)
		if shown := h.Must("members"); !strings.Contains(shown, "host1") || !strings.Contains(shown, "dead") {
			t.Errorf("%s shows\n%s", h.Name, shown)
		}
		h.Must("gpus")
		var gpus []any
		if text := h.Must("gpus", "--json"); json.Unmarshal([]byte(text), &gpus) != nil {
			t.Errorf("gpus --json: got %q", text)
		}
	}
	p.Hosts[2].Agent.Signal(unix.SIGTERM)
	if code := p.Hosts[2].Agent.Exit(hosts.Timeout); code != 0 {
		t.Errorf("an agent that was told to leave: got exit code %d, want 0", code)
	}
	p.Hosts[1].Agent.WaitForState("host3", "left", 2*time.Second)
}

// TestDrain lets running trials end and takes no more, until it is undone.
func TestDrain(t *testing.T) {
	t.Parallel()
	p := newScenario(t, 2, hosts.Options{})
	open := p.submitGated(p.Master, 8) // twice what fits
	p.ledger.waitForStarted(4)
	p.Hosts[1].Must("drain", "host2")
	open()
	p.checkAll()
	for _, r := range p.ledger.lines() {
		if r.host == "host2" && !r.ended && len(p.ledger.running("host2")) > slotsOfHost {
			t.Errorf("host2 took trial %d although it is drained", r.index)
		}
	}
	hosts.WaitFor(t, hosts.Timeout, func() error {
		all, err := p.Master.Agent.Members()
		if err != nil || len(all) != 2 || !all[1].Drained {
			return fmt.Errorf("members say %+v, %v, want host2 drained", all, err)
		}
		return nil
	})
	p.Master.Must("drain", "host1")
	open = p.submitGated(p.Master, 2)
	wait(2 * time.Second)
	if n := p.ledger.started(); n != 0 {
		t.Errorf("%d trials have begun on drained nodes", n)
	}
	p.Hosts[1].Must("undrain", "host2")
	p.ledger.waitForStarted(2)
	open()
	p.finish(settle)
}

// TestQuarantine breaks a node so that no trial can start there. It is set aside, and says why; the
// others do the work.
func TestQuarantine(t *testing.T) {
	t.Parallel()
	p := newScenario(t, 2, hosts.Options{Disk: smallDisk})
	broken := p.Hosts[1]
	broken.Disk.Fill()
	p.submitWriters(p.Master, 12, 2, 50*time.Millisecond)
	p.checkAll()
	for _, tr := range p.trials(p.client(p.Master)) {
		if string(tr.Node) != p.Master.Name {
			t.Errorf("trial %d has its result from %s", tr.Index, tr.Node)
		}
	}
	broken.Disk.Free()
}

// TestMasterMeetsNodesAnew restarts the master before anybody misses it, and without what it knew
// of the others: they think that they know it, and it does not know them.
func TestMasterMeetsNodesAnew(t *testing.T) {
	t.Parallel()
	p := newScenario(t, 3, hosts.Options{})
	p.Master.Agent.Signal(unix.SIGKILL)
	<-p.Master.Agent.Ended()
	if err := os.Remove(filepath.Join(p.Master.StateDir(), "cluster.json")); err != nil &&
		!errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	p.Relaunch(p.Master)
	for _, h := range p.Hosts {
		p.Master.Agent.WaitForState(h.Name, "alive", 8*time.Second)
	}
}

// TestIncarnationSurvivesPowerCut cuts the power of a node that has just been restarted: its next
// life must not name its runs as that one did, or reports of two attempts would be taken for one.
func TestIncarnationSurvivesPowerCut(t *testing.T) {
	t.Parallel()
	p := newScenario(t, 2, hosts.Options{Disk: "256m", Lossy: true})
	h := p.Hosts[1]
	seen := map[string]bool{}
	begins := func() {
		p.Relaunch(h)
		hosts.WaitFor(t, hosts.Timeout, func() error {
			about, err := p.client(h).Node(t.Context())
			if err == nil && !about.Working {
				err = fmt.Errorf("%s is not at work", h.Name)
			}
			return err
		})
		text, err := os.ReadFile(filepath.Join(h.StateDir(), "incarnation"))
		if now := string(text); err != nil || seen[now] {
			t.Errorf("got the incarnation %q, %v, after %v", now, err, seen)
		}
		seen[string(text)] = true
	}
	for range 3 {
		h.Agent.Kill()
		begins()
		h.PowerCut()
		h.Boot()
		begins()
	}
}

// TestForgetAndReturn takes a dead node off the list; it has to join again.
func TestForgetAndReturn(t *testing.T) {
	t.Parallel()
	p := newScenario(t, 3, hosts.Options{})
	h := p.Hosts[2]
	h.PowerCut()
	p.Master.Agent.WaitForState(h.Name, "dead", hosts.Timeout)
	p.Master.Must("forget", h.Name)
	p.Master.Agent.WaitForState(h.Name, "", hosts.Timeout)
	h.Boot()
	old := p.Relaunch(h)
	if code := old.Exit(hosts.Timeout); code == 0 {
		t.Errorf("a forgotten node came back by itself:\n%s", old.Output())
	}
	p.Join(h)
	p.allAlive()
}

// TestKeysRotate changes the key of gossip while the cluster runs. Nobody is lost, and the old key
// is of no use.
func TestKeysRotate(t *testing.T) {
	t.Parallel()
	p := newScenario(t, 3, hosts.Options{})
	before := keyring(t, p.Hosts[1])
	p.Master.Must("token", "rotate")
	hosts.WaitFor(t, hosts.Timeout, func() error {
		want := keyring(t, p.Master)
		if want == before {
			return errors.New("the key is the old one")
		}
		for _, h := range p.Hosts[1:] {
			if keyring(t, h) != want {
				return fmt.Errorf("%s has another keyring than the master", h.Name)
			}
		}
		return nil
	})
	p.allAlive()
	p.Hosts[2].PowerCut() // and one that was away meanwhile
	p.Master.Agent.WaitForState("host3", "dead", hosts.Timeout)
	p.Master.Must("token", "rotate")
	p.Hosts[2].Boot()
	p.Relaunch(p.Hosts[2])
	p.allAlive()
}

// TestUDPBlockedJoin forms a cluster where UDP passes nowhere.
func TestUDPBlockedJoin(t *testing.T) {
	t.Parallel()
	p := newScenario(t, 1, hosts.Options{})
	for _, name := range []string{"other2", "other3"} {
		p.SetLinkConditions(hosts.LinkConditions{NoUDP: true})
		h := p.AddHost(name)
		h.Network.SetConditions(hosts.LinkConditions{NoUDP: true})
		p.Join(h)
	}
	p.allAlive()
	wait(scale(5*time.Second, 30*time.Second))
	p.allAlive()
	p.submitWriters(p.Hosts[2], 8, 2, 50*time.Millisecond)
	p.checkAll()
}
