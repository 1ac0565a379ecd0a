package guarantees

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/nats-io/nats.go"

	"mlfnode/cmd/mlfnode/hosts"
)

var gossipAttacks = []attack{
	{"garbage for gossip", func(a *attacks) error { return a.garbage(gossipPort) }},
	{"garbage for gossip over UDP", func(a *attacks) error {
		for _, h := range []*hosts.Host{a.Master, a.worker} {
			c, err := a.attacker.Network.Dial("udp", a.at(h, gossipPort))
			if err != nil {
				return err
			}
			for i := range 256 { // every type of message
				_, _ = c.Write(append([]byte{byte(i)}, bytes.Repeat([]byte{0xff}, i*4)...)) // it may be refused
			}
			_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond)) // an open socket takes it
			if n, err := c.Read(make([]byte, 1500)); err == nil {
				return fmt.Errorf("%s answers garbage with %d bytes", h.Name, n)
			}
			c.Close()
		}
		return nil
	}},
	{"gossip with another key", func(a *attacks) error { return a.intrude(bytes.Repeat([]byte{7}, 32)) }},
	{"gossip without a key", func(a *attacks) error { return a.intrude(nil) }},
	{"a gossip message that says it is huge", func(a *attacks) error {
		before := memory(a.t, a.worker)
		for range 32 {
			answer, err := a.speaks(a.at(a.worker, gossipPort),
				append([]byte{10, 0x7f, 0xff, 0xff, 0xff}, make([]byte, 1<<16)...)) // type encrypt, length
			if err != nil || len(answer) > 512 {
				return fmt.Errorf("got %d bytes, %v", len(answer), err)
			}
		}
		if now := memory(a.t, a.worker); now > before+memoryMargin {
			return fmt.Errorf("memory went from %d to %d MB", before>>20, now>>20)
		}
		return nil
	}},
	{"slow clients of gossip", func(a *attacks) error {
		return a.crowd(gossipPort, func(c io.Writer) { _, _ = c.Write([]byte{10, 0, 0}) }, func() error {
			_, err := a.Master.Agent.Members()
			return err
		})
	}},
}

// intrude has a real memberlist node try to join with a key that is not the cluster's.
func (a *attacks) intrude(key []byte) error {
	name := fmt.Sprintf("intruder-%d", len(key))
	// Dialling happens on this thread; listening sockets stay where they were made.
	err := a.attacker.Network.RunInside(func() error {
		cfg := memberlist.DefaultLANConfig()
		cfg.Name, cfg.BindAddr, cfg.AdvertiseAddr, cfg.BindPort, cfg.SecretKey = name, a.attacker.Addr,
			a.attacker.Addr, gossipPort, key
		cfg.LogOutput = io.Discard
		list, err := memberlist.Create(cfg)
		if err != nil {
			return err
		}
		defer list.Shutdown()
		if n, err := list.Join([]string{a.at(a.Master, gossipPort), a.at(a.worker, gossipPort)}); err == nil {
			return fmt.Errorf("it has joined %d nodes", n)
		}
		wait(500 * time.Millisecond)
		if n := list.NumMembers(); n != 1 {
			return fmt.Errorf("it knows %d members", n)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, h := range []*hosts.Host{a.Master, a.worker} {
		if state, err := h.Agent.StateOf(name); err != nil || state != "" {
			return fmt.Errorf("%s says that %s is %q, %v", h.Name, name, state, err)
		}
	}
	return nil
}

// crowd keeps many connections open that never say what they should, and checks meanwhile that
// others are served.
func (a *attacks) crowd(port int, begin func(c io.Writer), served func() error) error {
	const crowded = 400
	before := memory(a.t, a.Master)
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range crowded {
		c, err := a.attacker.Network.Dial("tcp", a.at(a.Master, port))
		if err != nil {
			break // it takes no more: as good
		}
		begin(c)
		conns = append(conns, c)
	}
	if err := served(); err != nil {
		return fmt.Errorf("with %d slow clients: %w", len(conns), err)
	}
	if now := memory(a.t, a.Master); now > before+memoryMargin {
		return fmt.Errorf("with %d slow clients memory went from %d to %d MB", len(conns), before>>20, now>>20)
	}
	return a.closes(conns)
}

// slowLimit is how long a client may leave a connection half open.
const slowLimit = 30 * time.Second

// closes fails unless the other side ends all connections by itself.
func (a *attacks) closes(conns []net.Conn) error {
	over := time.Now().Add(slowLimit)
	for i, c := range conns {
		_ = c.SetReadDeadline(over) // an open connection takes it
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("connection %d of %d is open after %v", i, len(conns), slowLimit)
		}
	}
	return nil
}

// slowHeaders sends a header a byte at a time over TLS, on many connections, and wants them closed.
func (a *attacks) slowHeaders() error {
	var conns []net.Conn
	for range 50 {
		c, err := a.attacker.Network.Dial("tcp", a.at(a.Master, apiPort))
		if err != nil {
			return err
		}
		defer c.Close()
		secure := tls.Client(c, trusting())
		if err := secure.Handshake(); err != nil {
			return err
		}
		if _, err := secure.Write([]byte("GET /v1/sweeps HTTP/1.1\r\nHost: x\r\nX-")); err != nil {
			return err
		}
		conns = append(conns, secure)
	}
	stop := make(chan struct{})
	var drip sync.WaitGroup
	drip.Go(func() {
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				for _, c := range conns {
					_, _ = c.Write([]byte("a")) // it is closed at some time
				}
			}
		}
	})
	defer drip.Wait()
	defer close(stop)
	return a.closes(conns)
}

// confusedDeputy calls the master with the answer to go where the worker may not write: a master
// that answers there forges what the worker likes, a sweep record for one.
func (a *attacks) confusedDeputy() error {
	before := a.stored()
	var err error
	for _, target := range []string{
		"mlf.event." + a.victim.Name + "." + string(a.sweep), "mlf.log." + a.victim.Name + "." + string(a.sweep),
		"mlf.sweep.forged-1",
		"mlf.sweep." + string(a.sweep), "mlf.lease.forged", "mlf.number.bash", "mlf.call." + a.victim.Name + ".beat",
		"_INBOX." + a.victim.Name + ".hints",
	} {
		for _, verb := range []string{"beat", "take", "sweeps", "keyring", "events", "output"} {
			err = errors.Join(err, a.asWorker(func(c *nats.Conn) error {
				if err := c.PublishRequest("mlf.call."+a.worker.Name+"."+verb, target, []byte("{}")); err != nil {
					return err
				}
				return c.FlushTimeout(5 * time.Second)
			}))
		}
	}
	if err != nil {
		return err
	}
	wait(500 * time.Millisecond)
	if after := a.stored(); after != before {
		return fmt.Errorf("what the master lists was\n%s\nand is\n%s", before, after)
	}
	return nil
}

// stored gives what the master lists of sweeps, trials and output. Nothing runs meanwhile.
func (a *attacks) stored() string {
	a.t.Helper()
	id := string(a.sweep)
	return a.Master.Must("sweeps", "--json") + a.Master.Must("trials", id, "--json") + a.Master.Must("logs", id)
}

// TestPortScan tries every port of a running master and of a worker from another host, TCP and UDP.
func TestPortScan(t *testing.T) {
	p := newScenario(t, 2, hosts.Options{})
	scanner := p.AddHost("scanner")
	for _, c := range []struct {
		host     *hosts.Host
		tcp, udp string
	}{
		{p.Master, "[7420 7421 7422]", "[7422]"},
		{p.Hosts[1], "[7422]", "[7422]"},
	} {
		if got := fmt.Sprint(scan(t, scanner, c.host)); got != c.tcp {
			t.Errorf("TCP ports of %s: got %s, want %s", c.host.Name, got, c.tcp)
		}
		if got := fmt.Sprint(scanUDP(t, scanner, c.host)); got != c.udp {
			t.Errorf("UDP ports of %s: got %s, want %s", c.host.Name, got, c.udp)
		}
	}
}

// scan gives the TCP ports of a host that take connections.
func scan(t *testing.T, from, to *hosts.Host) (open []int) {
	t.Helper()
	err := from.Network.RunInside(func() error {
		for port := 1; port < 1<<16; port++ {
			c, err := net.DialTimeout("tcp", net.JoinHostPort(to.Addr, fmt.Sprint(port)), 2*time.Second)
			if err == nil {
				c.Close()
				open = append(open, port)
			} else if !strings.Contains(err.Error(), "refused") {
				return fmt.Errorf("port %d: %w", port, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return open
}

// scanUDP gives the UDP ports of a host that do not say that nobody is there.
func scanUDP(t *testing.T, from, to *hosts.Host) (open []int) {
	t.Helper()
	// the kernel would say it now and then only
	for _, name := range []string{"icmp_ratelimit", "icmp_msgs_per_sec", "icmp_msgs_burst"} {
		value := "1000000"
		if name == "icmp_ratelimit" {
			value = "0"
		}
		to.Run(to.Program("/bin/sh", "-c", "echo "+value+" > /proc/sys/net/ipv4/"+name))
	}
	err := from.Network.RunInside(func() error {
		for port := 1; port < 1<<16; port++ {
			c, err := net.Dial("udp", net.JoinHostPort(to.Addr, fmt.Sprint(port)))
			if err != nil {
				return err
			}
			if !saysNobody(c) {
				open = append(open, port)
			}
			c.Close()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return open
}

// saysNobody asks a UDP port some times, as an answer may be left out.
func saysNobody(c net.Conn) bool {
	for range 5 {
		_, _ = c.Write([]byte{0})                                     // it reports what came back for the one before
		_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) // an open socket takes it
		if _, err := c.Read(make([]byte, 16)); err != nil && strings.Contains(err.Error(), "refused") {
			return true
		}
	}
	return false
}

// TestJoinIsRefused tries to join with tokens that are not good, and with a name that is another
// node's.
func TestJoinIsRefused(t *testing.T) {
	t.Parallel()
	p := newScenario(t, 2, hosts.Options{})
	h := p.AddHost("mallory")
	expired := p.NewToken("--role", "node", "--expires", "1s")
	wait(1200 * time.Millisecond)
	revoked := p.NewToken("--role", "node")
	p.Master.Must("token", "revoke", strings.Split(revoked, ".")[2])
	good := p.NewToken("--role", "node")
	parts := strings.Split(good, ".")
	for _, c := range []struct {
		name, token string
		args        []string
	}{
		{"no token", "", nil},
		{"a malformed token", "mlf1.x", nil},
		{"an expired token", expired, nil},
		{"a revoked token", revoked, nil},
		{"an operator's token", p.NewToken("--role", "operator"), nil},
		{"a viewer's token", p.NewToken("--role", "viewer"), nil},
		{"another secret", strings.Join(append(parts[:3:3], strings.Repeat("A", 43)), "."), nil},
		{"another authority", strings.Join([]string{"mlf1", strings.Repeat("0", 64), parts[2], parts[3]}, "."), nil},
		{"the name of another node", good, []string{"--node", "host2"}},
		{"the name of the master", good, []string{"--node", "host1"}},
		{"a name that is none", good, []string{"--node", "../x"}},
	} {
		cmd := h.Command(append([]string{"join", "--seed", "host1"}, c.args...)...)
		cmd.Env = append(cmd.Env, "MLF_CLUSTER_TOKEN="+c.token)
		proc := h.StartCommand(cmd)
		if code := proc.Exit(hosts.Timeout); code != 1 && code != 2 {
			t.Errorf("%s: got exit code %d, want a refusal:\n%s", c.name, code, proc.Output())
		}
		if text := proc.Output(); !strings.Contains(text, "mlfnode: ") || !strings.Contains(text, "try: ") {
			t.Errorf("%s: got %q, want what is wrong and what to try", c.name, text)
		}
		if _, err := os.Stat(filepath.Join(h.StateDir(), "trust", "node.crt")); err == nil {
			t.Fatalf("%s: got a certificate", c.name)
		}
	}
	once := p.NewToken("--role", "node", "--uses", "1")
	for i, name := range []string{"first", "second"} {
		other := p.AddHost(name)
		cmd := other.Command("join", "--seed", "host1")
		cmd.Env = append(cmd.Env, "MLF_CLUSTER_TOKEN="+once)
		proc := other.StartCommand(cmd)
		if i == 0 {
			p.Master.Agent.WaitForState(name, "alive", hosts.Timeout)
		} else if code := proc.Exit(hosts.Timeout); code == 0 {
			t.Errorf("a token for one use let a second node in")
		}
	}
}

// TestWrongMaster has a node join somebody who only claims to be the master: nothing of the token
// reaches them.
func TestWrongMaster(t *testing.T) {
	t.Parallel()
	p := newScenario(t, 1, hosts.Options{})
	mallory, h := p.AddHost("mallory"), p.AddHost("newcomer")
	a := &attacks{scenario: p, attacker: mallory}
	var heard bytes.Buffer
	var mu sync.Mutex
	var listener net.Listener
	err := mallory.Network.RunInside(func() (err error) {
		listener, err = net.Listen("tcp", a.at(mallory, apiPort))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	fake := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		_ = r.Write(&heard) // what a buffer takes
	})}
	fake.TLSConfig = trusting(a.forged(nil))
	go func() { _ = fake.ServeTLS(listener, "", "") }() // until it is closed
	defer fake.Close()
	cmd := h.Command("join", "--seed", "mallory")
	cmd.Env = append(cmd.Env, "MLF_CLUSTER_TOKEN="+p.Token)
	proc := h.StartCommand(cmd)
	if code := proc.Exit(hosts.Timeout); code != 1 {
		t.Errorf("got exit code %d, want 1:\n%s", code, proc.Output())
	}
	mu.Lock()
	defer mu.Unlock()
	if heard.Len() > 0 {
		t.Errorf("somebody who is not the master was told:\n%s", heard.String())
	}
}
