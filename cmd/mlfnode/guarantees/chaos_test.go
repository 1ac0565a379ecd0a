package guarantees

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/cmd/mlfnode/hosts"
)

// chaos breaks a cluster at random.
type chaos struct {
	*scenario
	random *rand.Rand
}

// setting reads a number from the environment.
func setting(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// TestChaos breaks a cluster in random ways, one after the other, while one sweep runs: 30 faults
// and 2,000 trials with `make chaos`, a few of each otherwise. CHAOS_SEED repeats a run, with the
// same faults on the same hosts in the same order.
func TestChaos(t *testing.T) {
	t.Parallel()
	seed := setting(t, "CHAOS_SEED", int(time.Now().UnixNano()%1_000_000))
	count, number := setting(t, "CHAOS_TRIALS", scale(150, 2000)), setting(t, "CHAOS_FAULTS", scale(6, 30))
	t.Logf("CHAOS_SEED=%d, %d trials, %d faults", seed, count, number)
	p := newScenario(t, clusterSize, hosts.Options{Disk: "256m", Lossy: true})
	p.retries = 3 // of trials that could not write because the disk was full
	c := &chaos{scenario: p, random: rand.New(rand.NewPCG(uint64(seed), 0))}
	c.submitWriters(c.Hosts[1], count, 10, 100*time.Millisecond)
	for i := range number {
		f := disasters[c.random.IntN(len(disasters))]
		h := c.Hosts[c.random.IntN(len(c.Hosts))]
		span := time.Duration(500+c.random.IntN(6000)) * time.Millisecond
		rest := time.Duration(c.random.IntN(2000)) * time.Millisecond
		t.Logf("%2d. %s, %s, %v, then %v of peace; %d trials have begun", i+1, f.name, h.Name, span,
			rest, c.ledger.started())
		repair := f.strike(c, h)
		wait(span)
		repair()
		wait(rest)
	}
	c.allAlive()
	c.finish(scale(settle, 4*settle)) // on a busy machine most trials of the long form are still to come
	c.checkAll()
}

// disaster is a fault of a random kind that lasts for a random time.
type disaster struct {
	name   string
	strike func(c *chaos, h *hosts.Host) (repair func())
}

var disasters = []disaster{
	{"agent killed", func(c *chaos, h *hosts.Host) func() {
		h.Agent.Kill()
		return func() { c.Relaunch(h) }
	}},
	{"agent killed, and back immediately", func(c *chaos, h *hosts.Host) func() {
		h.Agent.Kill()
		c.Relaunch(h)
		return func() {}
	}},
	{"agent told to leave", func(c *chaos, h *hosts.Host) func() {
		h.Agent.Signal(unix.SIGTERM)
		h.Agent.Exit(hosts.Timeout)
		return func() { c.Relaunch(h) }
	}},
	{"power cut", func(c *chaos, h *hosts.Host) func() {
		h.PowerCut()
		return func() {
			h.Boot()
			c.Relaunch(h)
		}
	}},
	{"agent paused", func(_ *chaos, h *hosts.Host) func() {
		h.Agent.Signal(unix.SIGSTOP)
		return func() { h.Agent.Signal(unix.SIGCONT) }
	}},
	{"host paused", func(_ *chaos, h *hosts.Host) func() {
		h.Processes.Suspend()
		return h.Processes.Continue
	}},
	{"link down", func(_ *chaos, h *hosts.Host) func() {
		h.Network.Disconnect()
		return h.Network.Reconnect
	}},
	{"partition", func(c *chaos, h *hosts.Host) func() {
		other := c.other(h)
		h.Network.Partition(other)
		return func() { h.Network.Heal(other) }
	}},
	{"partition one way", func(c *chaos, h *hosts.Host) func() {
		other := c.other(h)
		h.Network.CutTo(other)
		return func() { h.Network.Heal(other) }
	}},
	{"lossy links", func(c *chaos, _ *hosts.Host) func() {
		c.SetLinkConditions(hosts.LinkConditions{Loss: 0.1, Duplicate: 0.05, Delay: 50 * time.Millisecond})
		return func() { c.SetLinkConditions(hosts.LinkConditions{}) }
	}},
	{"UDP blocked", func(_ *chaos, h *hosts.Host) func() {
		h.Network.SetConditions(hosts.LinkConditions{NoUDP: true})
		return func() { h.Network.SetConditions(hosts.LinkConditions{}) }
	}},
	{"clock an hour off", func(c *chaos, h *hosts.Host) func() {
		h.Clock.SetOffset(time.Hour - time.Duration(c.random.IntN(2))*2*time.Hour)
		return func() { h.Clock.SetOffset(0) }
	}},
	{"disk full", func(_ *chaos, h *hosts.Host) func() {
		h.Disk.Fill()
		return h.Disk.Free
	}},
}

// other gives another host than h.
func (c *chaos) other(h *hosts.Host) *hosts.Host {
	for {
		if o := c.Hosts[c.random.IntN(len(c.Hosts))]; o != h {
			return o
		}
	}
}
