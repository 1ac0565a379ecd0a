package cluster

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// ether is a network in memory. Packets get lost when their receiver is gone or has too many; nothing blocks a sender.
type ether struct {
	mu    sync.Mutex
	ports map[string]*etherPort

	packets, bytes atomic.Int64 // payloads of packets and streams, without the headers of IP
}

type etherPort struct {
	net     *ether
	address string
	packets chan *memberlist.Packet
	streams chan net.Conn
}

func (e *ether) plug(n int) *etherPort {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := &etherPort{
		net: e, address: fmt.Sprintf("10.0.%d.%d:7422", n/250, n%250+1), packets: make(chan *memberlist.Packet, 4096), streams: make(chan net.Conn, 64),
	}
	e.ports[p.address] = p
	return p
}

func (e *ether) find(address string) *etherPort {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ports[address]
}

func (p *etherPort) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	host, _, err := net.SplitHostPort(p.address)
	return net.ParseIP(host).To4(), 7422, err
}

func (p *etherPort) WriteTo(b []byte, address string) (time.Time, error) {
	now := time.Now()
	p.net.packets.Add(1)
	p.net.bytes.Add(int64(len(b)))
	if to := p.net.find(address); to != nil {
		from, _ := net.ResolveUDPAddr("udp", p.address)
		select {
		case to.packets <- &memberlist.Packet{Buf: slices.Clone(b), From: from, Timestamp: now}:
		default:
		}
	}
	return now, nil
}

func (p *etherPort) DialTimeout(address string, _ time.Duration) (net.Conn, error) {
	to := p.net.find(address)
	if to == nil {
		return nil, errors.New("no route to host")
	}
	near, far := net.Pipe()
	select {
	case to.streams <- countedConn{far, p.net}:
		return countedConn{near, p.net}, nil
	default:
		return nil, errors.New("too many connections")
	}
}

func (p *etherPort) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return p.WriteTo(b, a.Addr)
}

func (p *etherPort) DialAddressTimeout(a memberlist.Address, d time.Duration) (net.Conn, error) {
	return p.DialTimeout(a.Addr, d)
}

func (p *etherPort) PacketCh() <-chan *memberlist.Packet { return p.packets }
func (p *etherPort) StreamCh() <-chan net.Conn           { return p.streams }

func (p *etherPort) Shutdown() error {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	delete(p.net.ports, p.address)
	return nil
}

type countedConn struct {
	net.Conn
	net *ether
}

func (c countedConn) Write(b []byte) (int, error) {
	c.net.bytes.Add(int64(len(b)))
	return c.Conn.Write(b)
}

// simulated is one of many members, with the settings of a real one and no table.
type simulated struct {
	ml     *memberlist.Memberlist
	losses chan string
}

func (*simulated) NotifyJoin(*memberlist.Node)   {}
func (*simulated) NotifyUpdate(*memberlist.Node) {}
func (s *simulated) NotifyLeave(n *memberlist.Node) {
	select {
	case s.losses <- n.Name:
	default:
	}
}

// simulate starts members that all know each other.
func simulate(t *testing.T, e *ether, n int) []*simulated {
	t.Helper()
	all := make([]*simulated, n)
	for i := range all {
		s := &simulated{losses: make(chan string, n)}
		mc := settings()
		mc.Name, mc.Label, mc.SecretKey, mc.Events = fmt.Sprintf("n%03d", i), "simulated", key1, s
		mc.Transport, mc.Logger = e.plug(i), log.New(io.Discard, "", 0)
		var err error
		if s.ml, err = memberlist.Create(mc); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.ml.Shutdown() })
		all[i] = s
		if i > 0 {
			if _, err := s.ml.Join([]string{fmt.Sprintf("10.0.%d.%d:7422", (i-1)/250, (i-1)%250+1)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, time.Minute, "all know each other", func() bool {
		return !slices.ContainsFunc(all, func(s *simulated) bool { return s.ml.NumMembers() != n })
	})
	return all
}

// TestFiveHundredMembers measures how fast a death is known, and what the gossip costs.
func TestFiveHundredMembers(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute of both processors")
	}
	const n = 500
	e := &ether{ports: map[string]*etherPort{}}
	begun, used := time.Now(), processorTime(t)
	all := simulate(t, e, n)
	t.Logf("%d members met in %s (%s of processor time)", n, since(begun), (processorTime(t) - used).Round(time.Second))

	wait(t, 5*time.Second)
	begun, used = time.Now(), processorTime(t)
	bytes, packets := e.bytes.Load(), e.packets.Load()
	wait(t, 10*time.Second)
	quiet := time.Since(begun).Seconds() * n
	t.Logf("in quiet times: %.0f bytes/s and %.1f packets/s from each member, %.2f %% of a core", float64(e.bytes.Load()-bytes)/quiet,
		float64(e.packets.Load()-packets)/quiet, 100*(processorTime(t)-used).Seconds()/quiet)

	for _, s := range all {
		for len(s.losses) > 0 {
			t.Logf("a member was taken for dead before: %s", <-s.losses)
		}
	}
	bytes, begun = e.bytes.Load(), time.Now()
	all[n-1].ml.Shutdown()
	times := learn(t, all[:n-1], fmt.Sprintf("n%03d", n-1))
	t.Logf("a death is known after %s to the first, %s to the last of %d members", slices.Min(times), slices.Max(times), n-1)
	t.Logf("until then: %.0f bytes/s from each member", float64(e.bytes.Load()-bytes)/time.Since(begun).Seconds()/n)
}

// learn waits until all members lost one, and tells when each did.
func learn(t *testing.T, all []*simulated, name string) []time.Duration {
	t.Helper()
	begun, times := time.Now(), make([]time.Duration, len(all))
	var waiting sync.WaitGroup
	for i, s := range all {
		waiting.Go(func() {
			for late := time.After(time.Minute); ; {
				select {
				case lost := <-s.losses:
					if lost == name {
						times[i] = since(begun)
						return
					}
				case <-late:
					t.Errorf("member %d did not learn of the death within a minute", i)
					return
				}
			}
		})
	}
	waiting.Wait()
	return times
}

func since(t time.Time) time.Duration { return time.Since(t).Round(time.Millisecond) }

func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
