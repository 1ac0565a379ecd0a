package cluster

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mlfnode/cluster/inventory"
	"mlfnode/grid"
	"mlfnode/node/poll"
)

func TestMembersKnowEachOther(t *testing.T) {
	nodes := startMany(t, 3, nil)
	nodes[1].Update(func(s *Self) {
		s.Drained, s.Reason, s.Load = true, strings.Repeat("since the fan is broken ", 30), 1.5
		s.Inventory = &inventory.Machine{CPUs: 2, GPUs: []inventory.GPU{{UUID: "GPU-1", Name: "A100"}}}
	})
	for _, c := range nodes {
		eventually(t, "n01 is drained", func() bool {
			m, _ := c.table.find("n01")
			return m.Drained && strings.HasPrefix(m.Reason, "since the fan")
		})
	}
	// An exchange of states brings the rest, as every half minute.
	join(t, nodes[1], nodes[2])
	eventually(t, "n02 knows the GPU of n01", func() bool {
		m, _ := nodes[2].table.find("n01")
		return m.Inventory != nil && m.Inventory.GPUs[0].UUID == "GPU-1" && m.Load == 1.5 && len(m.Reason) == 720
	})
	eventually(t, "n01 knows its own GPU", func() bool {
		m, _ := nodes[1].table.find("n01")
		return m.Inventory != nil && m.Load == 1.5
	})
	list := nodes[0].Members()
	if len(list) != 3 || list[0].Node != "n00" || list[2].Node != "n02" || list[1].Version != "1.0.0" ||
		!list[1].Has(grid.Worker) {
		t.Errorf("got members %+v", list)
	}
}

// TestUpdatesArePaced changes something many times a second.
func TestUpdatesArePaced(t *testing.T) {
	nodes := startMany(t, 2, nil)
	seen := map[int]bool{}
	begun := time.Now()
	for i := range 100 {
		nodes[1].Update(func(s *Self) { s.Slots = i + 10 })
		m, _ := nodes[0].table.find("n01")
		seen[m.Slots] = true
		wait(t, 20*time.Millisecond)
	}
	eventually(t, "the last one is told", func() bool {
		m, _ := nodes[0].table.find("n01")
		return m.Slots == 109
	})
	if most := int(time.Since(begun)/pace) + 2; len(seen) > most {
		t.Errorf("got %d different values in %s, want at most %d", len(seen), since(begun), most)
	}
}

// TestDeathAndReturn kills an agent (no goodbye), and starts it again immediately after it was
// declared dead.
func TestDeathAndReturn(t *testing.T) {
	nodes := startMany(t, 3, nil)
	var seen changes
	stop := nodes[0].Watch(seen.add)
	defer stop()
	eventually(t, "the watcher met all", func() bool { return seen.count(Alive) == 3 })
	cfg := config("n02")
	cfg.Bind = strings.Split(nodes[2].address, ":")[0]

	killed := time.Now()
	nodes[2].Close()
	eventually(t, "its port refuses", func() bool { return nodes[0].Refused(short(t), "n02") })
	eventually(t, "n02 is dead", func() bool { return stateOf(nodes[0], "n02") == Dead })
	t.Logf("dead after %s", time.Since(killed).Round(time.Millisecond))
	if nodes[0].Refused(short(t), "n01") || nodes[0].Refused(short(t), "nobody") {
		t.Error("got a refusal of a node that listens, or that is not known")
	}

	back := start(t, cfg)
	join(t, back, nodes[1])
	eventually(t, "n02 is alive again", func() bool { return stateOf(nodes[0], "n02") == Alive })
	eventually(t, "the watcher saw it", func() bool {
		states := seen.of("n02")
		dead := slices.Index(states, "dead")
		return dead > 1 && states[0] == "alive" && states[dead-1] == "suspect" && states[len(states)-1] == "alive"
	})
}

// TestQuickRestart starts an agent again before anybody missed it: another life of a member that
// was alive all the time.
func TestQuickRestart(t *testing.T) {
	nodes := startMany(t, 3, nil)
	before, _ := nodes[0].table.find("n02")
	var seen changes
	defer nodes[0].Watch(seen.add)()
	eventually(t, "the watcher met all", func() bool { return seen.count(Alive) == 3 })
	cfg := config("n02")
	cfg.Bind = strings.Split(nodes[2].address, ":")[0]
	nodes[2].Close()
	join(t, start(t, cfg), nodes[1])
	eventually(t, "n02 lives another life", func() bool {
		m, _ := nodes[0].table.find("n02")
		return m.State == Alive && m.Started.After(before.Started)
	})
	eventually(t, "the watcher is told", func() bool { return len(seen.of("n02")) >= 2 })
	if slices.Contains(seen.of("n02"), "dead") {
		t.Errorf("got states %q", seen.of("n02"))
	}
}

func TestLeave(t *testing.T) {
	nodes := startMany(t, 3, nil)
	if err := nodes[2].Leave(short(t)); err != nil {
		t.Fatal(err)
	}
	nodes[2].Update(func(s *Self) { s.Running++ }) // must not bring it back
	nodes[2].Close()
	for _, c := range nodes[:2] {
		eventually(t, "n02 left", func() bool { return stateOf(c, "n02") == Left })
	}
	moved := start(t, config("n02")) // with another address
	join(t, moved, nodes[0])
	eventually(t, "n02 is back", func() bool { return stateOf(nodes[1], "n02") == Alive })
}

// TestLeaveOfMany lets one of many nodes leave while packets get lost: some hear the goodbye late
// or from others.
func TestLeaveOfMany(t *testing.T) {
	var loss atomic.Int32
	nodes := startMany(t, 12, func(cfg *Config) { under(cfg, &loss, new(atomic.Pointer[string])) })
	loss.Store(30)
	_ = nodes[11].Leave(short(t)) // the packets of it may be lost, too
	nodes[11].Close()
	loss.Store(0)
	for _, c := range nodes[:11] {
		eventually(t, "n11 left", func() bool { return stateOf(c, "n11") == Left })
	}
}

func TestNameTaken(t *testing.T) {
	nodes := startMany(t, 2, nil)
	second := start(t, config("n01"))
	err := second.Join(short(t), []string{nodes[0].address})
	if !errors.Is(err, ErrNameTaken) || !strings.Contains(err.Error(), nodes[1].address) {
		t.Fatalf("got error %v, want the holder of the name", err)
	}
	if err := second.Leave(short(t)); err != nil { // must not speak for the holder
		t.Error(err)
	}
	second.Close()
	if err := nodes[0].admission.err(); err != nil {
		t.Errorf("the first node gives way: %v", err)
	}
	if m, _ := nodes[0].table.find("n01"); m.State != Alive || m.gossip() != nodes[1].address {
		t.Errorf("got %s at %s for n01, want the first one alive", m.State, m.gossip())
	}
}

// TestMovedMachine lets a machine die and come back with another address.
func TestMovedMachine(t *testing.T) {
	nodes := startMany(t, 3, nil)
	nodes[2].Close()
	moved := start(t, config("n02"))
	eventually(t, "it is taken in", func() bool { return moved.Join(short(t), []string{nodes[0].address}) == nil })
	eventually(t, "n01 knows its address", func() bool {
		m, _ := nodes[1].table.find("n02")
		return m.State == Alive && m.gossip() == moved.address
	})
}

// TestUDPBlocked keeps members alive over TCP alone.
func TestUDPBlocked(t *testing.T) {
	var loss atomic.Int32
	nodes := startMany(t, 4, func(cfg *Config) { under(cfg, &loss, new(atomic.Pointer[string])) })
	var seen changes
	defer nodes[0].Watch(seen.add)()
	loss.Store(100)
	wait(t, 8*time.Second)
	for _, c := range nodes {
		if count(c, Alive) != 4 {
			t.Errorf("%s got %d alive members, want 4: %q", c.node, count(c, Alive), seen.list)
		}
	}
}

// TestPartitionHeals splits a cluster for good and joins the halves again.
func TestPartitionHeals(t *testing.T) {
	var away atomic.Pointer[string]
	nodes := startMany(t, 3, func(cfg *Config) { under(cfg, new(atomic.Int32), &away) })
	host := strings.Split(nodes[2].address, ":")[0]
	away.Store(&host)
	eventually(t, "each side takes the other for dead", func() bool {
		return stateOf(nodes[0], "n02") == Dead && count(nodes[2], Dead) == 2
	})
	away.Store(nil)
	eventually(t, "all are together again", func() bool {
		return count(nodes[0], Alive) == 3 && count(nodes[2], Alive) == 3
	})
}

// TestFalseDeaths loses every tenth packet.
func TestFalseDeaths(t *testing.T) {
	var loss atomic.Int32
	nodes := startMany(t, 10, func(cfg *Config) { under(cfg, &loss, new(atomic.Pointer[string])) })
	var seen changes
	for _, c := range nodes {
		defer c.Watch(seen.add)()
	}
	loss.Store(10)
	patience := 20 * time.Second
	if testing.Short() {
		patience = 5 * time.Second
	}
	wait(t, patience)
	t.Logf("10 members, 10 %% loss, %s: %d suspicions seen by all nodes together", patience, seen.count(Suspect))
	if n := seen.count(Dead); n != 0 {
		t.Errorf("got %d false deaths", n)
	}
}

func TestFortyMembers(t *testing.T) {
	n := 40
	if testing.Short() {
		n = 12 // under the race detector, 40 starve a small machine, and a starved member looks dead
	}
	nodes := startMany(t, n, nil)
	last := nodes[n-1].node
	killed := time.Now()
	nodes[n-1].Close()
	known := func() (n int) {
		for _, c := range nodes[:len(nodes)-1] {
			if stateOf(c, last) == Dead {
				n++
			}
		}
		return n
	}
	eventually(t, "it is dead for one", func() bool { return known() > 0 })
	first := since(killed)
	eventually(t, "it is dead for all", func() bool { return known() == n-1 })
	t.Logf("%d members: a death is known after %s to the first, %s to the last", n, first, since(killed))
}

func wait(t *testing.T, d time.Duration) {
	t.Helper()
	if !poll.Sleep(t.Context(), d) {
		t.Fatal("the test ended")
	}
}

func TestStartRefusals(t *testing.T) {
	tests := map[string]func(*Config){
		"only a loopback address may go unencrypted": func(c *Config) { c.Keys, c.Bind = nil, "0.0.0.0" },
		"bind address of the gossip":                 func(c *Config) { c.Bind = "here" },
		"node name":                                  func(c *Config) { c.Node = "" },
		"gossip key":                                 func(c *Config) { c.Keys = [][]byte{[]byte("short")} },
		"Give an IP address":                         func(c *Config) { c.Advertise = "host.example" },
		"can't reach 0.0.0.0":                        func(c *Config) { c.Advertise = "0.0.0.0" },
		"cluster label":                              func(c *Config) { c.Label = strings.Repeat("x", 256) },
	}
	for want, change := range tests {
		cfg := config("n")
		change(&cfg)
		if c, err := Start(cfg); err == nil {
			c.Close()
			t.Errorf("started, want an error with %q", want)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("got error %q, want %q in it", err, want)
		}
	}
}

func TestJoinErrors(t *testing.T) {
	c := start(t, config("n"))
	tests := map[string]string{
		c.address:              "it is this node itself",
		freshAddress() + ":1":  "nothing listens on that port",
		"nowhere.invalid:7422": "look up its address",
		"host-without-port":    "want HOST:PORT",
	}
	for seed, want := range tests {
		if err := c.Join(short(t), []string{seed}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("join by %s: got error %v, want %q in it", seed, err, want)
		}
	}
	if err := c.Join(short(t), nil); err == nil {
		t.Error("joined without a seed")
	}
}
