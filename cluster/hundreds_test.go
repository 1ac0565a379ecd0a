package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"mlfnode/node/poll"
)

// ether is a network in memory. Packets get lost when their receiver is gone or has too many;
// nothing blocks a sender.
type ether struct {
	mu    sync.Mutex
	ports map[string]*etherPort

	calm           atomic.Bool  // packets get lost; streams go on, and keep everybody alive
	packets, bytes atomic.Int64 // payloads of packets and streams, without the headers of IP
}

type etherPort struct {
	net     *ether
	address string
	packets chan *memberlist.Packet
	streams chan net.Conn
}

func hostPort(n int) string { return fmt.Sprintf("10.0.%d.%d:7422", n/250, n%250+1) }

func (e *ether) plug(n int) *etherPort {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := &etherPort{
		net: e, address: hostPort(n), packets: make(chan *memberlist.Packet, 4096), streams: make(chan net.Conn, 64),
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
	if to := p.net.find(address); to != nil && !p.net.calm.Load() {
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

// simulate starts members that all know each other: each one exchanges states with the first, once
// to be known there and once to know all. What they would say about it meanwhile is a million
// messages that nobody needs, so it is lost.
func simulate(t *testing.T, e *ether, n int) []*simulated {
	t.Helper()
	all := make([]*simulated, n)
	for i := range all {
		all[i] = e.member(t, i)
	}
	e.calm.Store(true)
	for range 2 {
		for _, s := range all[1:] {
			if _, err := s.ml.Join([]string{hostPort(0)}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait() // the first takes a state over after it answered
	}
	for i, s := range all {
		if got := s.ml.NumMembers(); got != n {
			t.Fatalf("member %d knows %d members, want %d", i, got, n)
		}
	}
	e.settle(t, 30*int64(n))
	e.calm.Store(false)
	return all
}

// member is one with the settings of a real one. It does not compress, which would take more than
// the two processors of a small machine for so many at a time.
func (e *ether) member(t *testing.T, i int) *simulated {
	t.Helper()
	s := &simulated{losses: make(chan string, 1000)}
	mc := settings()
	mc.Name, mc.Label, mc.SecretKey, mc.Events = fmt.Sprintf("n%03d", i), "simulated", key1, s
	mc.Transport, mc.Logger, mc.EnableCompression = e.plug(i), log.New(io.Discard, "", 0), false
	var err error
	if s.ml, err = memberlist.Create(mc); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.ml.Shutdown() })
	return s
}

// TestFiveHundredMembers measures how fast a death is known, and what the gossip costs. Its clock
// stands still while somebody computes, so the figures are those of members with a processor each
// and a network without delay.
func TestFiveHundredMembers(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute of both processors")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(800)) // for so many members, not to spend the processors on memory
	synctest.Test(t, func(t *testing.T) { measure(t, 500) })
}

func measure(t *testing.T, n int) {
	t.Cleanup(func() { poll.Sleep(context.Background(), time.Minute) }) // the last probes end
	e := &ether{ports: map[string]*etherPort{}}
	used := processorTime(t)
	all := simulate(t, e, n)
	settled := e.settle(t, 6*int64(n))
	t.Logf("%d members met in %s of processor time", n, (processorTime(t) - used).Round(time.Second))

	begun, used := time.Now(), processorTime(t)
	bytes, packets := e.bytes.Load(), e.packets.Load()
	wait(t, 3*time.Minute) // with so many, each pair exchanges states every 150 s
	quiet := time.Since(begun).Seconds() * float64(n)
	t.Logf("in quiet times (%v): %.0f bytes/s and %.1f packets/s from each member, %.2f %% of a core", settled,
		float64(e.bytes.Load()-bytes)/quiet,
		float64(e.packets.Load()-packets)/quiet, 100*(processorTime(t)-used).Seconds()/quiet)
	for i, s := range all {
		if len(s.losses) > 0 {
			t.Errorf("member %d took %d members for dead", i, len(s.losses))
		}
	}

	bytes, begun = e.bytes.Load(), time.Now()
	all[n-1].ml.Shutdown()
	times := learn(t, all[:n-1], fmt.Sprintf("n%03d", n-1))
	t.Logf("a death is known after %s to the first, %s to the last of %d members", slices.Min(times),
		slices.Max(times), n-1)
	t.Logf("until then: %.0f bytes/s from each member",
		float64(e.bytes.Load()-bytes)/time.Since(begun).Seconds()/float64(n))
}

// settle waits until the news of the beginning are told, when few packets are sent in a second. It
// gives up after a while.
func (e *ether) settle(t *testing.T, few int64) bool {
	t.Helper()
	for range 60 {
		before := e.packets.Load()
		wait(t, time.Second)
		if e.packets.Load()-before < few {
			return true
		}
	}
	return false
}

// learn waits until all members lost one, and tells when each did.
func learn(t *testing.T, all []*simulated, name string) []time.Duration {
	t.Helper()
	begun, times := time.Now(), make([]time.Duration, len(all))
	var waiting sync.WaitGroup
	for i, s := range all {
		waiting.Go(func() {
			for late := time.After(5 * time.Minute); ; {
				select {
				case lost := <-s.losses:
					if lost == name {
						times[i] = since(begun)
						return
					}
				case <-late:
					t.Errorf("member %d did not learn of the death within five minutes", i)
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
