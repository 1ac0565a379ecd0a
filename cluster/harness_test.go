package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/goleak"

	"mlfnode/grid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	key1 = []byte("0123456789abcdef0123456789abcde1")
	key2 = []byte("0123456789abcdef0123456789abcde2")
)

// testPort is the gossip port of every node here: each one has a loopback address of its own.
const testPort = 17422

var (
	testNet     = 2 + rand.IntN(250) // several people may run these tests at one time
	nextAddress atomic.Int32
)

func freshAddress() string {
	n := nextAddress.Add(1)
	return fmt.Sprintf("127.%d.%d.%d", testNet, n/250, n%250+1)
}

// config is that of a node with an address of its own.
func config(name string) Config {
	return Config{
		Node: grid.NodeID(name), Bind: freshAddress(), Port: testPort, Keys: [][]byte{key1}, Label: "test",
		Self: Self{Version: "1.0.0", Protocol: 1, Roles: []grid.NodeRole{grid.Worker}, CPUs: 2, Memory: 1 << 30,
			Slots: 2},
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

func start(t *testing.T, cfg Config) *Cluster {
	t.Helper()
	c, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// startMany starts nodes n00, n01, … that all joined the first. The func may change their settings.
func startMany(t *testing.T, n int, change func(*Config)) []*Cluster {
	t.Helper()
	var nodes []*Cluster
	for i := range n {
		cfg := config(fmt.Sprintf("n%02d", i))
		if change != nil {
			change(&cfg)
		}
		nodes = append(nodes, start(t, cfg))
	}
	for _, c := range nodes[1:] {
		join(t, c, nodes[0])
	}
	defer func() {
		if t.Failed() {
			t.Logf("members of %s: alive %d, suspect %d, dead %d", nodes[0].node, count(nodes[0], Alive),
				count(nodes[0], Suspect), count(nodes[0], Dead))
		}
	}()
	for _, c := range nodes {
		eventually(t, fmt.Sprintf("%s knows %d alive members", c.node, n), func() bool { return count(c, Alive) == n })
	}
	return nodes
}

func join(t *testing.T, c, to *Cluster) {
	t.Helper()
	if err := c.Join(t.Context(), []string{to.address}); err != nil {
		t.Fatalf("%s joins by %s: %v", c.node, to.node, err)
	}
}

func count(c *Cluster, s State) int {
	n := 0
	for _, m := range c.Members() {
		if m.State == s {
			n++
		}
	}
	return n
}

func stateOf(c *Cluster, node grid.NodeID) State {
	m, _ := c.table.find(node)
	return m.State
}

// eventually waits for what will surely come: on a machine that does much else packets get lost,
// and what was in them comes with the next exchange of states, which with many members is minutes
// away.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ticks := time.NewTicker(5 * time.Millisecond)
	defer ticks.Stop()
	const limit = 5 * time.Minute
	for late := time.After(limit); !ok(); {
		select {
		case <-ticks.C:
		case <-late:
			t.Fatalf("it did not happen within %s: %s", limit, what)
		}
	}
}

// changes collects what a node's watcher is told, as `node state`.
type changes struct {
	mu   sync.Mutex
	list []string
}

func (r *changes) add(m Member) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, fmt.Sprintf("%s %s", m.Node, m.State))
}

func (r *changes) of(node grid.NodeID) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var states []string
	for _, line := range r.list {
		if state, ok := strings.CutPrefix(line, string(node)+" "); ok {
			states = append(states, state)
		}
	}
	return states
}

func (r *changes) count(state State) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, line := range r.list {
		if strings.HasSuffix(line, " "+string(state)) {
			n++
		}
	}
	return n
}

// weather is a network that loses things on the way out.
type weather struct {
	memberlist.NodeAwareTransport
	own  string
	loss *atomic.Int32           // percent of the packets
	away *atomic.Pointer[string] // host that is cut off from all others, or nil
}

// lost reports whether nothing gets to a host:port.
func (w weather) lost(to string) bool {
	away := w.away.Load()
	return away != nil && (w.own == *away || strings.HasPrefix(to, *away+":"))
}

func (w weather) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	if rand.Int32N(100) < w.loss.Load() || w.lost(a.Addr) {
		return time.Now(), nil
	}
	return w.NodeAwareTransport.WriteToAddress(b, a)
}

func (w weather) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if w.lost(a.Addr) {
		return nil, errors.New("the host is cut off")
	}
	return w.NodeAwareTransport.DialAddressTimeout(a, timeout)
}

// under gives a node its weather.
func under(cfg *Config, loss *atomic.Int32, away *atomic.Pointer[string]) {
	own := cfg.Bind
	cfg.wrap = func(t memberlist.NodeAwareTransport) memberlist.NodeAwareTransport {
		return weather{t, own, loss, away}
	}
}

// short is a context for what should be quick, and need not be on a machine that does much else.
func short(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}
